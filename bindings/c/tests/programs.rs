//! Runs the C programs of `tests/c` against the shared library: as they are, and under sanitisers.

mod support;

use support::{Server, Way, assert_success, compile_for, run};

fn passes(name: &str, way: Way) {
    if !way.is_there(&format!("{name}.c {way:?}")) {
        return;
    }
    let server = Server::start();
    let program = compile_for(&format!("bindings/c/tests/c/{name}.c"), way);
    assert_success(&run(way.program(&program).env("HOLEPUNCH_SERVER", &server.address)));
}

#[test]
fn wrong_arguments() {
    passes("arguments", Way::Plain);
}

#[test]
fn wrong_arguments_sanitised() {
    passes("arguments", Way::Sanitised);
}

#[test]
fn two_endpoints_over_loopback() {
    passes("loopback", Way::Plain);
}

#[test]
fn two_endpoints_over_loopback_sanitised() {
    passes("loopback", Way::Sanitised);
}

#[test]
fn streams_over_loopback() {
    passes("streams", Way::Plain);
}

#[test]
fn streams_over_loopback_sanitised() {
    passes("streams", Way::Sanitised);
}

#[test]
fn blocked_calls_are_ended_from_another_thread() {
    passes("blocking", Way::Plain);
}

#[test]
fn blocked_calls_are_ended_from_another_thread_sanitised() {
    passes("blocking", Way::Sanitised);
}
