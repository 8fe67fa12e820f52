//! Clients of 2015 and a current server. Where it speaks no text, only the current protocol can have done it.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use holepunch::{
    Cancel, ConnectOptions, Endpoint, ErrorKind, Result, Wait,
    legacy::{Client, Meeting, Opened, Socket, meet_current},
    peer::Transport,
    server::{Handle, Options, RendezvousServer},
};

use crate::old::{self, PATIENCE, at, free_port};

const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

/// A server on loopback that tells peers of 2015 this port.
struct Current {
    address: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Current {
    fn start(punch_port: u16, text: bool) -> Self {
        let mut options = Options::default();
        options.host = Some("127.0.0.1".into());
        options.port = 0;
        options.punch_port = punch_port;
        options.config.legacy = text;
        let server = RendezvousServer::bind(options).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], server.local_addresses()[0].port()));
        let handle = server.handle();
        Self { address, handle, thread: Some(std::thread::spawn(move || server.run())) }
    }

    fn meeting(&self, source: SocketAddr, destination: Option<&str>, transport: Transport) -> Meeting {
        Meeting { server: self.address, source, destination: destination.map(|ip| ip.parse().unwrap()), transport }
    }

    /// Waits until so many listeners are registered.
    fn wait_for(&self, listeners: usize) {
        let start = Instant::now();
        while self.handle.stats().registrations != listeners {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.handle.stats());
            std::thread::yield_now();
        }
    }

    /// Waits until a listener of 2015 is there.
    fn wait_for_text(&self) {
        let start = Instant::now();
        while self.handle.stats().legacy_listeners == 0 {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.handle.stats());
            std::thread::yield_now();
        }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.unwrap().is_ok());
    }
}

fn patient() -> Wait {
    Wait::at_most(PATIENCE)
}

fn local(opened: &Opened) -> SocketAddr {
    match &opened.socket {
        Socket::Stream(stream) => stream.local_addr().unwrap(),
        Socket::Datagrams(socket) => socket.local_addr().unwrap(),
    }
}

/// Data both ways, with nothing before it and nothing after, and blocking.
fn exchange(here: &Opened, there: &Opened) {
    assert_eq!([local(here), local(there)], [there.peer, here.peer]);
    for (from, to) in [(here, there), (there, here)] {
        let mut buffer = [0; 100];
        let length = match (&from.socket, &to.socket) {
            (Socket::Stream(from), Socket::Stream(to)) => {
                to.set_read_timeout(Some(PATIENCE)).unwrap();
                std::io::Write::write_all(&mut &*from, b"data").unwrap();
                std::io::Read::read(&mut &*to, &mut buffer).unwrap()
            }
            (Socket::Datagrams(from), Socket::Datagrams(to)) => {
                to.set_read_timeout(Some(PATIENCE)).unwrap();
                from.send(b"data").unwrap();
                let length = to.recv(&mut buffer).unwrap();
                to.set_nonblocking(true).unwrap();
                assert_eq!(to.recv(&mut [0; 100]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
                to.set_nonblocking(false).unwrap();
                length
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(&buffer[..length], b"data");
    }
}

#[test]
fn two_current_peers_meet_on_the_port_of_2015() {
    let port = free_port();
    let server = Current::start(port, false);
    for transport in BOTH {
        let listening = server.meeting(at("127.74.1.3", port), None, transport);
        let listener = std::thread::spawn(move || meet_current(&listening, &patient()).unwrap());
        server.wait_for(1);
        let here =
            meet_current(&server.meeting(at("127.74.1.2", port), Some("127.74.1.3"), transport), &patient()).unwrap();
        let there = listener.join().unwrap();
        assert_eq!([local(&here), local(&there)], [at("127.74.1.2", port), at("127.74.1.3", port)]);
        exchange(&here, &there);
        // Its place at the server was given back before it returned.
        assert_eq!(server.handle.stats().registrations, 0);
        // Nobody else has the port.
        if let Socket::Datagrams(socket) = here.socket {
            drop(socket);
            UdpSocket::bind(at("127.74.1.2", port)).unwrap();
        }
    }
}

#[test]
fn a_port_that_is_taken_and_no_address_of_its_own_are_no_hindrance() {
    let port = free_port();
    let server = Current::start(port, false);
    let _taken = UdpSocket::bind(at("0.0.0.0", port)).unwrap();
    let listening = server.meeting(at("0.0.0.0", port), None, Transport::Udp);
    let listener = std::thread::spawn(move || meet_current(&listening, &patient()).unwrap());
    server.wait_for(1);
    let connecting = server.meeting(at("0.0.0.0", port), Some("127.0.0.1"), Transport::Udp);
    let here = meet_current(&connecting, &patient()).unwrap();
    let there = listener.join().unwrap();
    assert!(local(&here).port() != port && local(&there).port() != port);
    exchange(&here, &there);
}

#[test]
fn a_whole_client_asks_a_server_that_speaks_no_text() {
    let port = free_port();
    let server = Current::start(port, false);
    let client = |bind: &str| {
        let bind: IpAddr = bind.parse().unwrap();
        Client::new(Some(&server.address.to_string()), Some(bind)).unwrap().port(port)
    };
    for transport in BOTH {
        let listening = client("127.74.2.3");
        let listener = std::thread::spawn(move || {
            // On loopback the server has 20 ms to say that it is current, which a busy machine may not give it; then
            // the text is tried, which this one ends.
            std::iter::repeat_with(|| listening.open(None, transport, &patient()))
                .find(|opened| opened.as_ref().err().is_none_or(|error| error.kind() != ErrorKind::ServerRefused))
                .unwrap()
                .unwrap()
        });
        server.wait_for(1);
        let here = loop {
            match client("127.74.2.2").open(Some("127.74.2.3"), transport, &patient()) {
                Ok(opened) => break opened,
                Err(error) => assert_eq!(error.kind(), ErrorKind::ServerRefused, "{error}"),
            }
        };
        exchange(&here, &listener.join().unwrap());
    }
}

#[test]
fn a_listener_of_2015_is_handed_on() {
    let port = free_port();
    let server = Current::start(port, true);
    for transport in BOTH {
        let (here, there) = (at("127.74.3.2", port), at("127.74.3.3", port));
        let asking = old::Asking::start(server.address, there, b"<");
        server.wait_for_text();
        let error = meet_current(&server.meeting(here, Some("127.74.3.3"), transport), &patient()).unwrap_err();
        assert_eq!((error.kind(), error.legacy_peer()), (ErrorKind::LegacyPeer, Some(there)));
        assert_eq!(asking.answer(), format!("*('127.74.3.2', {port})"));
    }
}

#[test]
fn a_connector_of_2015_is_handed_on_and_the_listener_has_left() {
    let port = free_port();
    let server = Current::start(port, true);
    for transport in BOTH {
        let (here, there) = (at("127.74.4.2", port), at("127.74.4.3", port));
        let listening = server.meeting(here, None, transport);
        let listener = std::thread::spawn(move || meet_current(&listening, &patient()).unwrap_err());
        server.wait_for(1);
        let asking = old::Asking::start(server.address, there, b">127.74.4.2");
        let error = listener.join().unwrap();
        assert_eq!((error.kind(), error.legacy_peer()), (ErrorKind::LegacyPeer, Some(there)));
        assert_eq!(asking.answer(), format!("*('127.74.4.2', {port})"));
        server.wait_for(0);
        // What the server still had to say did not come late: the port is free, and silent.
        let socket = UdpSocket::bind(here).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        assert_eq!(socket.recv(&mut [0; 100]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[test]
fn nobody_there_is_said_at_once() {
    let server = Current::start(free_port(), false);
    for transport in BOTH {
        let error = meet_current(&server.meeting(at("127.74.5.2", 0), Some("127.74.5.3"), transport), &Wait::forever());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
    }
    // Of another family, nothing can be asked.
    let error = meet_current(&server.meeting(at("::1", 0), None, Transport::Tcp), &patient()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_listener_for_something_else_refuses() {
    let server = Current::start(free_port(), false);
    let cancel = Cancel::new().unwrap();
    let wait = patient().or_cancelled(&cancel);
    let listening = server.meeting(at("127.74.6.3", 0), None, Transport::Udp);
    let listener = std::thread::spawn(move || meet_current(&listening, &wait).unwrap_err());
    server.wait_for(1);
    let connecting = server.meeting(at("127.74.6.2", 0), Some("127.74.6.3"), Transport::Tcp);
    assert_eq!(meet_current(&connecting, &patient()).unwrap_err().kind(), ErrorKind::TransportMismatch);
    cancel.cancel();
    assert_eq!(listener.join().unwrap().kind(), ErrorKind::Cancelled);
    server.wait_for(0);
}

#[test]
fn time_and_a_token_end_it_at_every_step() {
    let server = Current::start(free_port(), false);
    // A listener that is registered, and does nothing more.
    let endpoint = Endpoint::builder()
        .server(server.address.to_string())
        .bind(at("127.74.7.3", 0))
        .legacy(true)
        .thread(false)
        .build()
        .unwrap();
    let _listener = endpoint.listen(None, patient()).unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    for transport in BOTH {
        let mut silent_server = server.meeting(at("127.74.7.2", 0), None, transport);
        silent_server.server = silent.local_addr().unwrap();
        for meeting in [
            server.meeting(at("127.74.7.2", 0), None, transport),
            server.meeting(at("127.74.7.2", 0), Some("127.74.7.3"), transport),
            silent_server,
        ] {
            let start = Instant::now();
            let error = meet_current(&meeting, &Wait::at_most(Duration::from_millis(200))).unwrap_err();
            // The listener of the second is there for one, and the first call took its place.
            assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::NotFound), "{meeting:?}: {error}");
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
            let cancel = Cancel::new().unwrap();
            let wait = Wait::forever().or_cancelled(&cancel);
            let thread = std::thread::spawn(move || meet_current(&meeting, &wait).unwrap_err());
            cancel.cancel();
            let start = Instant::now();
            assert!(matches!(thread.join().unwrap().kind(), ErrorKind::Cancelled | ErrorKind::NotFound));
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        }
    }
}

#[test]
fn a_current_program_without_legacy_is_met_and_never_gets_a_listener_of_2015() {
    let port = free_port();
    let server = Current::start(port, true);
    let build = |host: &str| {
        let bind = at(host, 0);
        Endpoint::builder().server(server.address.to_string()).bind(bind).build().unwrap()
    };
    let listener = build("127.74.8.3").listen(None, patient()).unwrap();
    let connecting = server.meeting(at("127.74.8.2", port), Some("127.74.8.3"), Transport::Tcp);
    let here = meet_current(&connecting, &patient()).unwrap();
    let there = listener.accept(patient()).unwrap();
    assert_eq!([here.peer, local(&here)], [there.local_addr(), there.path().remote]);
    // A listener of 2015 waits, and is nobody to it.
    let asking = old::Asking::start(server.address, at("127.74.8.4", port), b"<");
    server.wait_for_text();
    let once = ConnectOptions::default().wait(Duration::ZERO);
    let modern = build("127.74.8.5");
    assert_eq!(modern.connect("127.74.8.4", &once).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(modern.connect_datagram("127.74.8.4", &once).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(server.handle.stats().legacy_listeners, 1);
    drop(asking);
}
