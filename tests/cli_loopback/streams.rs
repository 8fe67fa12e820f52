//! `listen` and `connect` with streams, which are the default.

use std::process::{Command, Stdio};

use crate::{
    connect, listen,
    program::{Program, wait_for_more},
    server,
};

fn listen_tcp(server: &str, more: &[&str]) -> Program {
    Program::start(&[&["listen", "--json", "--tcp", "-4", "--server", server][..], more].concat())
}

/// Without a flag.
fn connect_tcp(server: &str, more: &[&str]) -> Program {
    Program::start(&[&["connect", "--json", "-4", "--server", server][..], more].concat())
}

/// A listener and a connector, connected.
fn pair(server: &str) -> (Program, Program) {
    let listener = listen_tcp(server, &["bob"]);
    listener.event("registered");
    let connector = connect_tcp(server, &["bob"]);
    for program in [&listener, &connector] {
        program.event("introduced");
        program.event("connected");
    }
    (listener, connector)
}

#[test]
fn a_pipe_of_bytes_ends_with_both_directions() {
    let (_server, address) = server();
    let mut listener = listen_tcp(&address, &["bob"]);
    let registered = listener.event("registered");
    assert_eq!((registered.text("name"), registered.text("via")), ("bob", "udp"));
    let mut connector = connect_tcp(&address, &["bob"]);
    let ends = [&listener, &connector].map(|program| {
        program.event("introduced");
        program.event("connected")
    });
    for event in &ends {
        assert_eq!((event.text("transport"), event.text("strategy")), ("tcp", "tcp_simultaneous_open"));
        for number in ["rtt_ms", "since_introduction_ms", "packets_sent", "sockets"] {
            assert!(event.number(number) >= 0.0);
        }
    }
    assert_eq!(ends[0].text("session"), ends[1].text("session"));
    assert_eq!(ends[0].text("remote"), ends[1].text("local"));
    assert_eq!(ends[1].text("remote"), ends[0].text("local"));

    // Not lines: all bytes, in pieces longer than any datagram.
    let bytes: Vec<u8> = (0..300_000_u32).map(|index| ((index * 7) >> 5) as u8).collect();
    connector.write(&bytes);
    listener.read(&bytes);
    connector.end_stdin();
    // One direction has ended; the other goes on.
    listener.write(b"no newline");
    connector.read(b"no newline");
    listener.end_stdin();
    let closed = connector.succeed();
    assert_eq!((closed.number("bytes_out"), closed.number("bytes_in")), (300_000.0, 10.0));
    let closed = listener.succeed();
    assert_eq!((closed.number("bytes_out"), closed.number("bytes_in")), (10.0, 300_000.0));
}

#[test]
fn both_may_end_at_once_and_say_nothing() {
    let (_server, address) = server();
    let (mut listener, mut connector) = pair(&address);
    listener.end_stdin();
    connector.end_stdin();
    assert_eq!(listener.succeed().number("bytes_in"), 0.0);
    connector.succeed();
}

#[test]
fn another_transport_and_another_secret_are_5() {
    let (_server, address) = server();
    let mut listener = listen_tcp(&address, &["bob"]);
    listener.event("registered");
    connect(&address, &["bob"]).fail(5, "transport_mismatch");
    let datagrams = listen(&address, &["alice"]);
    datagrams.event("registered");
    connect_tcp(&address, &["alice"]).fail(5, "transport_mismatch");
    let with_secret = |command: &mut Command| {
        command.env("HOLEPUNCH_SECRET", "correct horse battery");
    };
    let arguments = ["connect", "--json", "-4", "--server", &address, "bob"];
    Program::start_with(&arguments, with_secret).fail(5, "wrong_secret");
    let mut connector = connect_tcp(&address, &["bob"]);
    connector.end_stdin();
    listener.end_stdin();
    connector.event("introduced");
    connector.event("connected");
    connector.succeed();
    assert_eq!(listener.finish().0, 0);
}

#[test]
fn a_name_that_nobody_has_is_4() {
    let (_server, address) = server();
    connect_tcp(&address, &["nobody", "--wait", "0"]).fail(4, "not_found");
}

#[test]
fn signals_end_it_with_128_and_their_number() {
    let (_server, address) = server();
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let (mut listener, mut connector) = pair(&address);
        connector.write(b"hello");
        listener.read(b"hello");
        connector.signal(signal);
        let events = connector.fail(status, "cancelled");
        assert_eq!((events[0].name(), events[0].text("reason")), ("closed", "signal"));
        assert_eq!(events[0].number("bytes_out"), 5.0);
        // To the other side it is an end like any other, until it sends.
        listener.end_stdin();
        listener.succeed();
    }
}

#[test]
fn a_peer_that_takes_no_more_is_8() {
    let (_server, address) = server();
    let (mut listener, mut connector) = pair(&address);
    connector.signal("KILL");
    assert_eq!(wait_for_more(&mut connector), None);
    // The first bytes are refused, the next cannot be sent.
    while listener.try_write(b"anybody?") {
        std::thread::yield_now();
    }
    let events = listener.fail(8, "lost");
    assert_eq!((events[0].name(), events[0].text("reason")), ("closed", "lost"));
}

#[test]
fn a_stdout_that_nobody_reads_ends_it_with_1() {
    let (_server, address) = server();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let mut listener = listen_tcp(&address, &["bob"]);
    listener.event("registered");
    let arguments = ["connect", "--json", "-4", "--server", &address, "bob"];
    let mut connector = Program::start_with(&arguments, |command| {
        command.stdout(Stdio::from(closed));
    });
    for program in [&listener, &connector] {
        program.event("introduced");
        program.event("connected");
    }
    listener.write(b"hello");
    connector.fail(1, "io");
    listener.end_stdin();
    listener.succeed();
}
