//! The example listener and connector, in C and in Rust, each with each.

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use support::{Server, Way, assert_success, cargo_build, compile, compile_for, run};

struct Examples {
    c: Pair,
    rust: Pair,
}

struct Pair {
    listener: PathBuf,
    connector: PathBuf,
    agent: PathBuf,
}

fn examples() -> &'static Examples {
    static EXAMPLES: OnceLock<Examples> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let rust =
            cargo_build(&["--example", "listener", "--example", "connector", "--example", "agent"]).join("examples");
        Examples {
            c: Pair {
                listener: compile("examples/c/listener.c"),
                connector: compile("examples/c/connector.c"),
                agent: compile("examples/c/agent.c"),
            },
            rust: Pair {
                listener: rust.join("listener"),
                connector: rust.join("connector"),
                agent: rust.join("agent"),
            },
        }
    })
}

/// A program that knows where the server is.
fn program(path: &Path, server: &str) -> Command {
    let mut command = support::program(path);
    command.env("HOLEPUNCH_SERVER", server);
    command
}

fn talk(listener: &Path, connector: &Path) {
    talk_in(Way::Plain, listener, connector);
}

fn talk_in(way: Way, listener: &Path, connector: &Path) {
    let server = Server::start();
    let program = |path| {
        let mut command = way.program(path);
        command.env("HOLEPUNCH_SERVER", &server.address);
        command
    };
    let listening = program(listener).arg("echo").spawn().expect("the listener starts");
    let connected = run(program(connector).args(["echo", "one", "two words", "drei: \u{e4}"]));
    let listened = listening.wait_with_output().expect("the listener can be waited for");
    assert_success(&connected);
    assert_success(&listened);
    assert_eq!(String::from_utf8_lossy(&connected.stdout), "one\ntwo words\ndrei: \u{e4}\n");
    assert!(listened.stdout.is_empty());
    for stderr in [connected.stderr, listened.stderr] {
        let line = String::from_utf8(stderr).expect("they write UTF-8");
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["connected", "to", remote, "over", kind, "rtt", rtt, "ms"] = words.as_slice() else {
            panic!("{line:?} does not tell the path");
        };
        assert!(remote.parse::<std::net::SocketAddr>().is_ok(), "{line:?}");
        assert!(["host,", "srflx,", "prflx,"].contains(kind), "{line:?}");
        assert!(rtt.parse::<f64>().is_ok(), "{line:?}");
    }
}

#[test]
fn c_listener_and_c_connector() {
    talk(&examples().c.listener, &examples().c.connector);
}

#[test]
fn c_listener_and_c_connector_sanitised() {
    if Way::Sanitised.is_there("C examples") {
        let built = |name: &str| compile_for(&format!("examples/c/{name}.c"), Way::Sanitised);
        talk_in(Way::Sanitised, &built("listener"), &built("connector"));
    }
}

#[test]
fn c_listener_and_c_connector_under_valgrind() {
    if Way::Memcheck.is_there("C examples") {
        talk_in(Way::Memcheck, &examples().c.listener, &examples().c.connector);
    }
}

#[test]
fn c_listener_and_rust_connector() {
    talk(&examples().c.listener, &examples().rust.connector);
}

#[test]
fn rust_listener_and_c_connector() {
    talk(&examples().rust.listener, &examples().c.connector);
}

#[test]
fn rust_listener_and_rust_connector() {
    talk(&examples().rust.listener, &examples().rust.connector);
}

/// Each is told what the other prints; loopback serves, since both are told to bind to it.
fn negotiate(controlling: &Path, controlled: &Path) {
    let start = |path: &Path, role: &str, message: &str| {
        let mut command = support::program(path);
        command.args([role, message]).env("HOLEPUNCH_BIND", "127.0.0.1").stdin(Stdio::piped());
        let mut child = command.spawn().expect("the agent starts");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        (child, input, BufReader::new(output))
    };
    let (one, mut to_one, mut from_one) = start(controlling, "controlling", "one");
    let (two, mut to_two, mut from_two) = start(controlled, "controlled", "two");
    let tell = |from: &mut BufReader<ChildStdout>, to: &mut ChildStdin| {
        let mut line = String::new();
        while !line.contains("end-of-candidates") {
            line.clear();
            assert_ne!(from.read_line(&mut line).expect("they write UTF-8"), 0, "it ends before its candidates do");
            to.write_all(line.as_bytes()).expect("the other reads");
        }
    };
    tell(&mut from_one, &mut to_two);
    tell(&mut from_two, &mut to_one);
    for (child, mut output, expected) in [(one, from_one, "two\n"), (two, from_two, "one\n")] {
        let mut said = String::new();
        output.read_to_string(&mut said).expect("they write UTF-8");
        assert_success(&child.wait_with_output().expect("the agent can be waited for"));
        assert_eq!(said, expected);
    }
}

#[test]
fn c_agent_and_rust_agent() {
    negotiate(&examples().c.agent, &examples().rust.agent);
}

#[test]
fn rust_agent_and_c_agent() {
    negotiate(&examples().rust.agent, &examples().c.agent);
}

#[test]
fn they_say_what_is_wrong_and_what_to_try() {
    let nowhere = "127.0.0.1:1";
    for pair in [&examples().c, &examples().rust] {
        for path in [&pair.listener, &pair.connector] {
            let output = run(program(path, nowhere).arg("Not A Name"));
            assert_eq!(output.status.code(), Some(1));
            let stderr = String::from_utf8(output.stderr).expect("they write UTF-8");
            assert!(stderr.contains("is no name") && stderr.contains("; names are"), "{stderr:?}");
            assert_eq!(run(&mut program(path, nowhere)).status.code(), Some(2));
        }
    }
}
