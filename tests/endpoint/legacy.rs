//! What programs that can meet peers of 2015 are told, by a server that introduces one; and the port that they prefer.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use holepunch::{
    ConnectOptions, Endpoint, EndpointBuilder, ErrorKind,
    wire::stun::{
        Builder, CandidateKind, CandidateTransport, Class, Message, Method, SessionId, TransactionId, WireCandidate,
    },
};

use crate::rendezvous::{LONG, Rendezvous};

const OLD_PEER: &str = "127.0.0.9:20001";

fn introduction(builder: Builder) -> Builder {
    let candidate = WireCandidate {
        kind: CandidateKind::ServerReflexiveObserved,
        transport: CandidateTransport::Udp,
        priority: 0,
        address: OLD_PEER.parse().unwrap(),
    };
    builder.candidates(&[candidate]).legacy(20001)
}

/// A server that knows one peer, of 2015, and introduces it to everybody: to a listener as soon as it is registered. It
/// ends when nothing was asked for a second.
fn introducer() -> (SocketAddr, thread::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let serve = move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let request = Message::parse(&buffer[..length]).unwrap();
            let answer = Builder::new(Class::Success, request.method(), request.transaction_id());
            if request.method() == Method::CONNECT {
                assert_eq!(request.legacy(), Some(0));
                socket.send_to(&introduction(answer).fingerprint().finish(), from).unwrap();
                continue;
            }
            let Some(key) = request.registration_key() else { continue };
            assert_eq!(request.legacy(), Some(0));
            let answer = answer.keepalive(25).integrity_sha256(&key).fingerprint().finish();
            socket.send_to(&answer, from).unwrap();
            for sequence in 1..=2 {
                let told = Builder::new(Class::Indication, Method::INTRODUCE, TransactionId([1; 12]))
                    .registration_id(request.registration_id().unwrap())
                    .session_id(SessionId([sequence; 16]))
                    .sequence(sequence.into());
                let told = introduction(told).integrity_sha256(&key).fingerprint().finish();
                socket.send_to(&told, from).unwrap();
                socket.send_to(&told, from).unwrap();
            }
        }
    };
    (address, thread::spawn(serve))
}

fn endpoint(server: SocketAddr) -> EndpointBuilder {
    Endpoint::builder().server(server.to_string()).bind("127.0.0.1:0".parse().unwrap()).legacy(true)
}

#[test]
fn a_peer_of_2015_is_an_error_that_says_where_it_is() {
    let (server, thread) = introducer();
    let endpoint = endpoint(server).build().unwrap();
    let once = ConnectOptions::default().wait(Duration::ZERO);
    for error in
        [endpoint.connect("127.0.0.9", &once).unwrap_err(), endpoint.connect_datagram("127.0.0.9", &once).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::LegacyPeer);
        assert_eq!(error.legacy_peer(), Some(OLD_PEER.parse().unwrap()));
    }
    let listener = endpoint.listen(None, LONG.into()).unwrap();
    for error in [listener.accept(LONG.into()).unwrap_err(), listener.accept_datagram(LONG.into()).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::LegacyPeer);
        assert_eq!(error.legacy_peer(), Some(OLD_PEER.parse().unwrap()));
    }
    // Each was told once, and the listener goes on.
    let error = listener.accept(Duration::from_millis(50).into()).unwrap_err();
    assert_eq!((error.kind(), error.legacy_peer()), (ErrorKind::Timeout, None));
    drop(listener);
    drop(endpoint);
    thread.join().unwrap();
}

#[test]
fn a_preferred_port_is_used_while_it_is_free() {
    let server = Rendezvous::start();
    // Below those that the system gives by itself (32,768 and up), and another one for each run.
    let preferred = u16::try_from(21_000 + std::process::id() % 10_000).unwrap();
    let build = || server.endpoint().prefer_port(preferred).build().unwrap();
    let (here, there) = (build(), build());
    let listener = here.listen(Some("bob"), LONG.into()).unwrap();
    assert_eq!(listener.mapped()[0].port(), preferred);
    let near = there.connect_datagram("bob", &ConnectOptions::default()).unwrap();
    let far = listener.accept_datagram(LONG.into()).unwrap();
    assert_eq!(far.local_addr().port(), preferred);
    assert_ne!(near.local_addr().port(), preferred, "it is taken");
    // For streams the same: one side has it, for they are on one host.
    for _ in 0..3 {
        let near = there.connect("bob", &ConnectOptions::default()).unwrap();
        let far = listener.accept(LONG.into()).unwrap();
        let ports = [near.local_addr().port(), far.local_addr().port()];
        assert!(ports.contains(&preferred) && ports[0] != ports[1], "{ports:?}, {preferred}");
    }
}
