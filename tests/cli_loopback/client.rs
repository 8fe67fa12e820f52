//! `holepunch client`: opens, logs as in 2015, closes, and exits 0; every failure is status 1.

use std::net::{TcpListener, UdpSocket};

use super::program::Program;

/// A server that tells peers this port, and its address.
fn server(punch_port: u16) -> (Program, String) {
    let port = punch_port.to_string();
    let options = ["--json", "server", "--host", "127.0.0.1", "--port", "0", "--punch-port", &port];
    let server = Program::start(&options);
    let address = server.event("listening").texts("tcp")[0].clone();
    (server, address)
}

/// A port that nobody has on any address.
fn free_port() -> u16 {
    loop {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

fn client(arguments: &[&str], server: &str, bind: &str) -> Program {
    client_from(20001, arguments, server, bind)
}

/// A client that prefers this port toward current peers.
fn client_from(port: u16, arguments: &[&str], server: &str, bind: &str) -> Program {
    Program::start_with(&[&["client"], arguments].concat(), |command| {
        command.env("HOLEPUNCH_SERVER", server).env("HOLEPUNCH_BIND", bind).env("HOLEPUNCH_PORT", port.to_string());
    })
}

/// The lines without their time of day, which each must have.
fn records(lines: &[String]) -> Vec<&str> {
    let time = "2026-11-23 03:12:53,827 ";
    lines
        .iter()
        .map(|line| {
            let (day, text) = line.split_at(time.len());
            let form: String = day.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(form, "0000-00-00 00:00:00,000 ", "{line}");
            text
        })
        .collect()
}

#[test]
fn two_clients_open_and_close() {
    let port = free_port();
    let (_server, address) = server(port);
    for protocol in ["udp", "tcp"] {
        let mut listener = client_from(port, &[protocol], &address, "127.73.1.2");
        let mut said = vec![listener.line()];
        let lines = loop {
            let mut connector = client_from(port, &[protocol, "127.73.1.2"], &address, "127.73.1.3");
            match connector.finish() {
                (0, lines) => break lines,
                // The listener's request is on its way.
                (status, lines) => {
                    assert_eq!((status, lines.len()), (1, 3), "{lines:?}");
                    assert!(lines[2].starts_with("holepunch: no listener is at 127.73.1.2; "), "{lines:?}");
                }
            }
        };
        let records_of = |peer: &str| {
            let open = format!("INFO: Open server socket {address}");
            let peer = format!("INFO: Open client socket to {peer}:{port}");
            let close = format!("INFO: Close server socket {address}");
            [open, peer, close, "INFO: Close client socket".to_owned()]
        };
        assert_eq!(records(&lines), records_of("127.73.1.2"));
        let (status, rest) = listener.finish();
        said.extend(rest);
        assert_eq!(status, 0, "{said:?}");
        assert_eq!(records(&said), records_of("127.73.1.3"));
    }
}

#[test]
fn every_failure_is_1() {
    let (_server, address) = server(free_port());
    let nobody = format!("127.0.0.1:{}", free_port());
    for (arguments, server, kind) in [
        (&["tcp", "127.73.2.9"][..], &*address, "not_found"),
        (&["udp", "--timeout", "0.05"], &address, "timeout"),
        (&["tcp"], &nobody, "server_unreachable"),
        (&["tcp"], "no-such-host.invalid", "unresolvable"),
        (&["udp"], "127.0.0.1:port", "invalid_argument"),
        (&["udp", "--bind", "192.0.2.1"], &address, "invalid_argument"),
        (&["udp", "0.0.0.0"], &address, "invalid_argument"),
    ] {
        client(&[arguments, &["--json"]].concat(), server, "127.73.2.2").fail(1, kind);
    }
}

#[test]
fn a_signal_ends_it() {
    let (_server, address) = server(free_port());
    let mut listener = client(&["tcp"], &address, "127.73.3.2");
    assert!(listener.line().ends_with(&format!("INFO: Open server socket {address}")));
    listener.signal("INT");
    let (status, lines) = listener.finish();
    assert_eq!(status, 130, "{lines:?}");
    assert_eq!(lines.last().unwrap(), "holepunch: ended by SIGINT; this was asked for by the program itself");
}
