//! The program as people and scripts run it: a server, a listener and a connector on loopback, their streams, events and
//! statuses. Nothing is waited for by time alone: each step follows an event of the one before.

#![cfg(feature = "cli")]

mod client;
mod program;
mod streams;

use std::{
    net::UdpSocket,
    process::{Command, Stdio},
};

use program::{Json, Program};

/// A server on a free port of loopback, and its address.
fn server() -> (Program, String) {
    let server = Program::start(&["--json", "server", "--host", "127.0.0.1", "--port", "0", "--stun-rate", "0"]);
    let listening = server.event("listening");
    assert_eq!(listening.texts("tcp"), listening.texts("udp"), "one port for both");
    let [address] = &listening.texts("udp")[..] else { panic!("{listening:?}") };
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let address = address.clone();
    (server, address)
}

fn listen(server: &str, more: &[&str]) -> Program {
    Program::start(&[&["listen", "--json", "--udp", "-4", "--server", server][..], more].concat())
}

fn connect(server: &str, more: &[&str]) -> Program {
    Program::start(&[&["connect", "--json", "--udp", "-4", "--server", server][..], more].concat())
}

/// A listener and a connector, connected.
fn pair(server: &str) -> (Program, Program) {
    let listener = listen(server, &["bob"]);
    listener.event("registered");
    let connector = connect(server, &["bob"]);
    for program in [&listener, &connector] {
        program.event("introduced");
        program.event("connected");
    }
    (listener, connector)
}

#[test]
fn data_goes_both_ways_and_events_tell_of_it() {
    let (mut server, address) = server();
    let mut listener = listen(&address, &["bob"]);
    let registered = listener.event("registered");
    assert_eq!((registered.text("name"), registered.text("via")), ("bob", "udp"));
    assert_eq!(registered.text("server"), address);
    assert!(registered.texts("mapped")[0].starts_with("127.0.0.1:"), "{registered:?}");
    // What is written before there is a connection waits for it.
    listener.write(b"first\n");
    let mut connector = connect(&address, &["bob"]);

    let mut sessions = Vec::new();
    for (program, role) in [(&listener, "controlled"), (&connector, "controlling")] {
        let introduced = program.event("introduced");
        assert_eq!(introduced.text("role"), role);
        introduced.texts("peer");
        let connected = program.event("connected");
        assert_eq!(connected.text("session"), introduced.text("session"));
        assert_eq!((connected.text("transport"), connected.text("strategy")), ("udp", "udp_simultaneous"));
        assert!(["host", "srflx", "prflx"].contains(&connected.text("path")), "{connected:?}");
        for key in ["rtt_ms", "since_introduction_ms", "packets_sent", "sockets"] {
            assert!(connected.number(key) >= 0.0);
        }
        assert!(connected.number("t") >= introduced.number("t"));
        sessions.push((
            connected.text("session").to_owned(),
            connected.text("local").to_owned(),
            connected.text("remote").to_owned(),
        ));
    }
    assert_eq!(sessions[0].0, sessions[1].0);
    assert_eq!(sessions[0].0.len(), 32, "128 bits in hexadecimal");
    assert!(sessions.iter().all(|session| session.1.contains(':') && session.2.contains(':')), "{sessions:?}");

    connector.read(b"first\n");
    connector.write(b"one\n");
    listener.read(b"one\n");
    // The longest line there may be, an empty line, bytes that are no text, and a last line without its newline.
    let mut longest = vec![b'x'; 1199];
    longest.push(b'\n');
    connector.write(&longest);
    listener.read(&longest);
    listener.write(b"\n");
    connector.read(b"\n");
    listener.write(b"\xff\x00\n");
    connector.read(b"\xff\x00\n");
    connector.write(b"last");
    connector.end_stdin();
    listener.read(b"last");
    // One side has ended; the other still sends.
    listener.write(b"still here\n");
    connector.read(b"still here\n");
    listener.end_stdin();

    let closed = connector.succeed();
    assert_eq!((closed.number("bytes_out"), closed.number("bytes_in")), (1208.0, 21.0));
    let closed = listener.succeed();
    assert_eq!((closed.number("bytes_out"), closed.number("bytes_in")), (21.0, 1208.0));
    server.signal("TERM");
    assert_eq!(server.finish(), (0, Vec::new()));
    assert!(server.stdout.as_ref().unwrap().try_recv().is_err(), "a server writes nothing to stdout");
}

#[test]
fn a_listener_without_a_name_is_found_by_its_address() {
    let (_server, address) = server();
    let mut listener = listen(&address, &[]);
    let registered = listener.event("registered");
    assert_eq!(registered.0.get("name"), Some(&Json::Null));
    let mut connector = connect(&address, &["127.0.0.1"]);
    for program in [&mut listener, &mut connector] {
        program.end_stdin();
        program.event("introduced");
        program.event("connected");
    }
    listener.succeed();
    connector.succeed();
}

#[test]
fn a_line_too_long_ends_it_with_1_and_is_not_sent() {
    let (_server, address) = server();
    let (mut listener, mut connector) = pair(&address);
    connector.write(b"short\n");
    listener.read(b"short\n");
    connector.write(&[b'x'; 1201]);
    connector.fail(1, "message_too_large");
    let events = listener.fail(8, "lost");
    assert_eq!(events[0].text("reason"), "lost");
    assert_eq!(events[0].number("bytes_in"), 6.0, "nothing of the long line came");
}

#[test]
fn a_server_that_is_silent_or_has_no_address_is_3() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let mut programs = [listen(&address, &["bob"]), connect(&address, &["bob"])];
    for program in &mut programs {
        program.fail(3, "server_silent");
    }
    connect("no..such..host", &["bob"]).fail(3, "unresolvable");
}

#[test]
fn a_name_that_nobody_has_is_4() {
    let (_server, address) = server();
    let error = connect(&address, &["nobody", "--wait", "0"]).fail(4, "not_found");
    assert!(error[0].text("message").contains("nobody"), "{error:?}");
}

#[test]
fn a_name_taken_and_a_wrong_secret_are_5_and_the_listener_goes_on() {
    let (_server, address) = server();
    let secret = |secret: &'static str| {
        move |command: &mut Command| {
            command.env("HOLEPUNCH_SECRET", secret);
        }
    };
    let (right, wrong) = ("correct horse battery", "incorrect horse battery");
    let mut listener =
        Program::start_with(&["listen", "--json", "--udp", "-4", "--server", &address, "bob"], secret(right));
    listener.event("registered");
    listen(&address, &["bob"]).fail(5, "name_taken");
    let arguments = ["connect", "--json", "--udp", "-4", "--server", &address, "bob"];
    Program::start_with(&arguments, secret(wrong)).fail(5, "wrong_secret");
    Program::start(&arguments).fail(5, "wrong_secret");
    let mut connector = Program::start_with(&arguments, secret(right));
    connector.end_stdin();
    listener.end_stdin();
    connector.event("introduced");
    connector.event("connected");
    connector.succeed();
    let (status, lines) = listener.finish();
    assert_eq!(status, 0, "{lines:?}");
}

#[test]
fn a_listener_gives_up_after_its_wait_with_7() {
    let (_server, address) = server();
    let mut listener = listen(&address, &["bob", "--wait", "0.5"]);
    listener.event("registered");
    listener.fail(7, "timeout");
}

#[test]
fn signals_end_it_with_128_and_their_number() {
    let (_server, address) = server();
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let mut waiting = listen(&address, &["alone"]);
        waiting.event("registered");
        waiting.signal(signal);
        let events = waiting.fail(status, "cancelled");
        assert_eq!(events.len(), 1, "there was no connection to close: {events:?}");

        let (mut listener, mut connector) = pair(&address);
        connector.write(b"hello\n");
        listener.read(b"hello\n");
        connector.signal(signal);
        let events = connector.fail(status, "cancelled");
        assert_eq!((events[0].name(), events[0].text("reason")), ("closed", "signal"));
        assert_eq!(events[0].number("bytes_out"), 6.0);
        listener.fail(8, "lost");
    }
    let (mut server, _) = server();
    server.signal("INT");
    assert_eq!(server.finish().0, 0);
}

#[test]
fn a_stdout_that_nobody_reads_or_that_is_full_ends_it_with_1() {
    let (_server, address) = server();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for stdout in [Stdio::from(closed), Stdio::from(full)] {
        let mut listener = listen(&address, &["bob"]);
        listener.event("registered");
        let mut connector =
            Program::start_with(&["connect", "--json", "--udp", "-4", "--server", &address, "bob"], |command| {
                command.stdout(stdout);
            });
        for program in [&listener, &connector] {
            program.event("introduced");
            program.event("connected");
        }
        listener.write(b"hello\n");
        connector.fail(1, "io");
        listener.fail(8, "lost");
    }
}

#[test]
fn ports_in_use_are_one_clear_line() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    let mut second = Program::start(&["server", "--host", "127.0.0.1", "--port", &port]);
    let (status, lines) = second.finish();
    assert_eq!(status, 1);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.starts_with("holepunch: ") && line.contains(&address.to_string()) && line.contains("; "), "{line}");

    let (_server, server) = server();
    listen(&server, &["bob", "--bind", &address.to_string()]).fail(1, "address_in_use");
}

#[test]
fn a_person_reads_lines_and_the_reason_of_a_failure_last() {
    let (_server, address) = server();
    let arguments = ["connect", "nobody", "--udp", "--wait", "0", "--server", &address];
    for more in [&[][..], &["-v"], &["-q"]] {
        let mut program = Program::start(&[&arguments[..], more].concat());
        let (status, lines) = program.finish();
        let last = lines.last().unwrap();
        assert_eq!(status, 4, "{lines:?}");
        assert!(last.starts_with("holepunch: ") && last.contains("nobody") && last.contains("; "), "{last}");
        assert!(more != ["-q"] || lines.len() == 1, "{lines:?}");
    }
}
