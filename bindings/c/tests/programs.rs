//! Runs the C programs of `tests/c` against the shared library.

mod support;

#[test]
fn wrong_arguments() {
    let program = support::compile("bindings/c/tests/c/arguments.c");
    support::assert_success(&support::run(&mut support::program(&program)));
}

#[test]
fn two_endpoints_over_loopback() {
    let server = support::Server::start();
    let program = support::compile("bindings/c/tests/c/loopback.c");
    support::assert_success(&support::run(support::program(&program).env("HOLEPUNCH_SERVER", &server.address)));
}

#[test]
fn streams_over_loopback() {
    let server = support::Server::start();
    let program = support::compile("bindings/c/tests/c/streams.c");
    support::assert_success(&support::run(support::program(&program).env("HOLEPUNCH_SERVER", &server.address)));
}

#[test]
fn blocked_calls_are_ended_from_another_thread() {
    let server = support::Server::start();
    let program = support::compile("bindings/c/tests/c/blocking.c");
    support::assert_success(&support::run(support::program(&program).env("HOLEPUNCH_SERVER", &server.address)));
}
