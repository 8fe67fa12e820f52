//! Runs the C programs of `tests/c` against the shared library: as they are, and under sanitisers.

mod support;

use support::{Server, Way, assert_success, compile_for, library, run};

fn passes(name: &str, way: Way) {
    if !way.is_there(&format!("{name}.c {way:?}")) {
        return;
    }
    let server = Server::start();
    let program = compile_for(&format!("bindings/c/tests/c/{name}.c"), way);
    let mut command = way.program(&program);
    // Only one of them looks at it: the library, to be loaded.
    command.arg(library().join("libholepunch.so")).env("HOLEPUNCH_SERVER", &server.address);
    assert_success(&run(&mut command));
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

#[test]
fn nothing_is_left_and_nothing_inherited_is_harmed() {
    passes("life", Way::Plain);
}

#[test]
fn nothing_is_left_and_nothing_inherited_is_harmed_sanitised() {
    passes("life", Way::Sanitised);
}

#[test]
fn the_library_is_loaded_and_unloaded() {
    passes("loading", Way::Plain);
}

#[test]
fn the_library_is_loaded_and_unloaded_sanitised() {
    passes("loading", Way::Sanitised);
}
