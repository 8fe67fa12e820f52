//! A whole client, with servers of 2015 and a current one.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use holepunch::{
    Cancel, ErrorKind, Wait,
    legacy::{Client, Opened, Socket},
    peer::Transport,
    server::{Options, RendezvousServer},
};

use crate::old::{self, PATIENCE, Server, at, free_port};

fn client(server: &str, bind: &str) -> Client {
    Client::new(Some(server), Some(bind.parse().unwrap())).unwrap()
}

fn patient() -> Wait {
    Wait::at_most(PATIENCE)
}

fn failure(server: &Server, destination: Option<&str>) -> holepunch::Error {
    client(&server.name(), "127.0.0.1").open(destination, Transport::Tcp, &patient()).unwrap_err()
}

#[test]
fn an_old_server_and_an_old_peer() {
    for (destination, message) in [(None, &b"<"[..]), (Some("127.72.1.3"), b">127.72.1.3")] {
        let port = free_port();
        let (here, there) = (at("127.72.1.2", port), at("127.72.1.3", port));
        let answer = format!("*('127.72.1.3', {port})");
        // Whole, with another behind it, and byte by byte.
        let doubled = format!("{answer}{answer}?");
        let bytes: Vec<&[u8]> = answer.as_bytes().chunks(1).collect();
        for pieces in [vec![answer.as_bytes()], vec![doubled.as_bytes()], bytes] {
            let server = Server::start(&pieces, false);
            let peer = old::datagram_peer(there);
            let opened = client(&server.name(), "127.72.1.2").open(destination, Transport::Udp, &patient()).unwrap();
            assert_eq!(opened.peer, there);
            let Socket::Datagrams(socket) = opened.socket else { panic!("no datagrams") };
            assert_eq!(socket.local_addr().unwrap(), here);
            peer.join().unwrap();
            server.saw(message);
        }
    }
}

#[test]
fn a_stream_through_an_old_server() {
    let port = free_port();
    let (here, there) = (at("127.72.2.2", port), at("127.72.2.3", port));
    let server = Server::start(&[format!("*('127.72.2.3', {port})").as_bytes()], false);
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&said);
    let client = client(&server.name(), "127.72.2.2").on_log(move |_, text| log.lock().unwrap().push(text.to_owned()));
    let peer = old::stream_peer(there, here);
    let Opened { socket: Socket::Stream(stream), .. } = client.open(None, Transport::Tcp, &patient()).unwrap() else {
        panic!("no stream")
    };
    let remote = peer.join().unwrap();
    assert_eq!((stream.local_addr().unwrap(), stream.peer_addr().unwrap()), (here, there));
    assert_eq!(remote.peer_addr().unwrap(), here);
    let name = server.name();
    server.saw(b"<");
    let said = said.lock().unwrap().clone();
    let open = format!("Open client socket to {there}");
    assert_eq!(said, [format!("Open server socket {name}"), open, format!("Close server socket {name}")]);
}

#[test]
fn answers_that_introduce_nobody() {
    let cases: [(&[&[u8]], bool, ErrorKind); 8] = [
        (&[b"?"], false, ErrorKind::NotFound),
        (&[b"?", b"*('127.0.0.9', 7)"], false, ErrorKind::NotFound),
        (&[], true, ErrorKind::ServerRefused),
        (&[b"*('127.0.0.9', "], true, ErrorKind::ServerRefused),
        (&[b"*('127.0.0.9', 0)"], false, ErrorKind::ServerRefused),
        (&[b"*(__import__('os').abort(), 1)"], false, ErrorKind::ServerRefused),
        (&[b"\xff\xfe"], false, ErrorKind::ServerRefused),
        (&[&[b'*'; 4096]], false, ErrorKind::ServerRefused),
    ];
    for (pieces, end, kind) in cases {
        let server = Server::start(pieces, end);
        let error = failure(&server, Some("127.0.0.9"));
        assert_eq!(error.kind(), kind, "{pieces:?}: {error}");
        server.saw(b">127.0.0.9");
    }
}

#[test]
fn a_server_that_says_nothing_is_left_in_order() {
    let server = Server::start(&[], false);
    let wait = Wait::at_most(Duration::from_millis(100));
    let error = client(&server.name(), "127.0.0.1").open(None, Transport::Tcp, &wait).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    server.saw(b"<");
    let server = Server::start(&[], false);
    let cancel = Cancel::new().unwrap();
    let wait = Wait::forever().or_cancelled(&cancel);
    let opening = client(&server.name(), "127.0.0.1").on_log(move |_, text| {
        if text.starts_with("Open server") {
            cancel.cancel();
        }
    });
    assert_eq!(opening.open(None, Transport::Udp, &wait).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn oneself_through_a_server() {
    let server = Server::start(&[b"*('127.0.0.1', 20001)"], false);
    assert_eq!(failure(&server, None).kind(), ErrorKind::NoPath);
    server.saw(b"<");
}

#[test]
fn the_first_server_that_can_be_reached_is_asked() {
    let server = Server::start(&[b"?"], false);
    let servers = format!("127.0.0.1:{},{}", free_port(), server.name());
    let error = client(&servers, "127.0.0.1").open(Some("127.0.0.9"), Transport::Tcp, &patient()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    server.saw(b">127.0.0.9");
    let nobody = client(&format!("127.0.0.1:{}", free_port()), "127.0.0.1");
    let error = nobody.open(None, Transport::Tcp, &patient()).unwrap_err();
    assert_eq!((error.kind(), error.os_code()), (ErrorKind::ServerUnreachable, Some(libc::ECONNREFUSED)));
    let error = client("[::1]:9", "127.0.0.1").open(None, Transport::Tcp, &patient()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn hosts_that_no_server_shall_be_asked_for() {
    let client = client("127.0.0.1:1", "127.0.0.1");
    for host in ["", "0.0.0.0", "::", "a b", "\u{ff}", "1.2.3.4\n"] {
        let error = client.open(Some(host), Transport::Tcp, &patient()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{host:?}");
    }
}

#[test]
fn two_new_clients_through_a_current_server() {
    let port = free_port();
    let mut options = Options::default();
    options.host = Some("127.0.0.1".into());
    options.port = 0;
    options.punch_port = port;
    let running = RendezvousServer::bind(options).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], running.local_addresses()[0].port()));
    let handle = running.handle();
    let thread = std::thread::spawn(move || running.run());
    for transport in [Transport::Tcp, Transport::Udp] {
        let listener = std::thread::spawn(move || {
            client(&address.to_string(), "127.72.3.3").port(port).open(None, transport, &patient()).unwrap()
        });
        let connecting = client(&address.to_string(), "127.72.3.2").port(port);
        let here = loop {
            match connecting.open(Some("127.72.3.3"), transport, &patient()) {
                Ok(opened) => break opened,
                // The listener is not there yet.
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        };
        let there = listener.join().unwrap();
        let ends = [&here, &there].map(|opened| match &opened.socket {
            Socket::Stream(stream) => stream.local_addr().unwrap(),
            Socket::Datagrams(socket) => socket.local_addr().unwrap(),
        });
        assert_eq!(ends, [at("127.72.3.2", port), at("127.72.3.3", port)]);
        assert_eq!([here.peer, there.peer], [ends[1], ends[0]]);
    }
    handle.stop();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_server_that_has_no_name() {
    let error = Client::new(Some(" , "), None::<IpAddr>).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let client = Client::new(Some("no-such-host.invalid"), None).unwrap();
    for (wait, kind) in [(patient(), ErrorKind::Unresolvable), (Wait::at_most(Duration::ZERO), ErrorKind::Timeout)] {
        assert_eq!(client.open(None, Transport::Tcp, &wait).unwrap_err().kind(), kind);
    }
}
