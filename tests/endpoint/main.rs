//! The blocking endpoint over real sockets on loopback, with the sans-IO server in a thread.

mod agent;
mod bare;
mod blocked;
mod full;
mod greeter;
mod legacy;
mod lifetime;
mod rendezvous;
mod starting;
mod streams;

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use holepunch::{
    ConnectOptions, Connection, Endpoint, EndpointBuilder, ErrorKind, Listener, Wait, config::PeerConfig,
    peer::PeerEvent, rendezvous::keys::Secret,
};
use rendezvous::{LONG, Rendezvous, receive};

const SHORT: Duration = Duration::from_millis(50);

impl Rendezvous {
    /// A listener and one connection, both ends of it.
    fn pair(&self, name: &str) -> (Listener, Connection, Connection) {
        let (here, there) = (self.endpoint().build().unwrap(), self.endpoint().build().unwrap());
        let listener = here.listen(Some(name), LONG.into()).unwrap();
        let near = there.connect_datagram(name, &ConnectOptions::default()).unwrap();
        let far = listener.accept_datagram(LONG.into()).unwrap();
        (listener, near, far)
    }
}

/// A connect that asks once.
fn once() -> ConnectOptions {
    ConnectOptions::default().wait(Duration::ZERO)
}

#[test]
fn data_goes_both_ways() {
    let server = Rendezvous::start();
    let (listener, near, far) = server.pair("bob");
    assert_eq!(listener.name(), Some("bob"));
    assert_eq!(listener.mapped().len(), 1);
    assert_eq!(near.session(), far.session());
    assert_eq!(near.path().remote, far.local_addr());
    for round in 0..100_u8 {
        near.send(&[round; 1200]).unwrap();
        assert_eq!(receive(&far).unwrap(), [round; 1200]);
        far.send(&[round]).unwrap();
        assert_eq!(receive(&near).unwrap(), [round]);
    }
    near.send(&[]).unwrap();
    assert_eq!(receive(&far).unwrap(), []);
    assert!(near.rtt() < LONG);
}

/// Connects two endpoints that are built alike, and has them talk.
fn talk(build: impl Fn() -> EndpointBuilder) {
    let (here, there) = (build().build().unwrap(), build().build().unwrap());
    let listener = here.listen(Some("bob"), LONG.into()).unwrap();
    let near = there.connect_datagram("bob", &ConnectOptions::default()).unwrap();
    near.send(b"question").unwrap();
    let far = listener.accept_datagram(LONG.into()).unwrap();
    assert_eq!(receive(&far).unwrap(), b"question");
    far.send(b"answer").unwrap();
    assert_eq!(receive(&near).unwrap(), b"answer");
}

#[test]
fn an_endpoint_bound_to_nothing_in_particular_finds_its_way() {
    let server = Rendezvous::start();
    talk(|| Endpoint::builder().server(server.address.to_string()));
    talk(|| Endpoint::builder().server(server.address.to_string()).ipv4_only());
}

#[test]
fn data_goes_both_ways_over_ipv6() {
    let Ok(socket) = UdpSocket::bind("[::1]:0") else { return eprintln!("skipped: this host has no IPv6") };
    let server = Rendezvous::over(socket);
    talk(|| Endpoint::builder().server(server.address.to_string()));
    talk(|| Endpoint::builder().server(server.address.to_string()).ipv6_only().thread(true));
}

#[test]
fn a_close_comes_after_the_data() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.pair("bob");
    near.send(b"first").unwrap();
    near.send(b"").unwrap();
    near.send(b"last").unwrap();
    near.close();
    near.close();
    for expected in [&b"first"[..], b"", b"last"] {
        assert_eq!(receive(&far).unwrap(), expected);
    }
    assert_eq!(receive(&far).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(far.send(b"more").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(near.send(b"more").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(receive(&near).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn each_direction_ends_alone() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.pair("bob");
    near.send(b"all there is").unwrap();
    near.end(LONG.into()).unwrap();
    assert_eq!(near.send(b"more").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(receive(&far).unwrap(), b"all there is");
    assert_eq!(receive(&far).unwrap_err().kind(), ErrorKind::Closed);
    for _ in 0..10 {
        far.send(b"still here").unwrap();
        assert_eq!(receive(&near).unwrap(), b"still here");
    }
    far.end(LONG.into()).unwrap();
    assert_eq!(receive(&near).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_datagram_is_never_truncated() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.pair("bob");
    assert_eq!(near.send(&[0; 1201]).unwrap_err().kind(), ErrorKind::MessageTooLarge);
    near.send(&[7; 100]).unwrap();
    near.send(&[8; 10]).unwrap();
    let mut buffer = [0; 10];
    assert_eq!(far.recv(&mut buffer, LONG.into()).unwrap_err().kind(), ErrorKind::MessageTooLarge);
    assert_eq!(far.recv(&mut buffer, LONG.into()).unwrap(), 10);
    assert_eq!(buffer, [8; 10]);
}

#[test]
fn every_wait_keeps_its_deadline() {
    let server = Rendezvous::start();
    let (listener, near, _far) = server.pair("bob");
    for wait in [Duration::ZERO, SHORT] {
        assert_eq!(near.recv(&mut [0; 1200], wait.into()).unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(listener.accept_datagram(wait.into()).unwrap_err().kind(), ErrorKind::Timeout);
    }
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = PeerConfig::default();
    config.retransmission.silence = Duration::from_millis(300);
    let endpoint = Endpoint::builder().server(silent.local_addr().unwrap().to_string()).config(config).build().unwrap();
    assert_eq!(endpoint.listen(Some("x"), SHORT.into()).unwrap_err().kind(), ErrorKind::Timeout);
    let error = endpoint.listen(Some("x"), LONG.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerSilent);
    assert!(error.message().contains(&silent.local_addr().unwrap().to_string()), "{error}");
    assert_eq!(endpoint.connect_datagram("x", &once()).unwrap_err().kind(), ErrorKind::ServerSilent);
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let server = Rendezvous::start();
    let endpoint = server.endpoint().build().unwrap();
    let error = endpoint.connect_datagram("nobody", &once()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("nobody"), "{error}");
    assert_eq!(endpoint.connect_datagram("No Name", &once()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let _listener = endpoint.listen(Some("taken"), LONG.into()).unwrap();
    assert_eq!(endpoint.listen(Some("taken"), LONG.into()).unwrap_err().kind(), ErrorKind::NameTaken);
    let unresolvable = Endpoint::builder().server("no-such-host.invalid").build().unwrap();
    let error = unresolvable.connect_datagram("x", &once().timeout(Duration::from_secs(2))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unresolvable);
    assert!(error.message().contains("no-such-host.invalid"), "{error}");
}

#[test]
fn a_busy_port_is_named() {
    let server = Rendezvous::start();
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let busy = holder.local_addr().unwrap();
    let endpoint = Endpoint::builder().server(server.address.to_string()).bind(busy).build().unwrap();
    for error in [
        endpoint.listen(None, LONG.into()).unwrap_err(),
        endpoint.connect_datagram("x", &ConnectOptions::default()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        assert!(error.message().contains(&busy.to_string()), "{error}");
    }
}

#[test]
fn another_secret_is_refused_and_the_listener_goes_on() {
    let server = Rendezvous::start();
    let secret = |text: &str| Secret::new(text.as_bytes()).unwrap();
    let with = |text: &str| server.endpoint().secret(secret(text)).build().unwrap();
    let listener = with("the secret that both know").listen(Some("bob"), LONG.into()).unwrap();
    let stranger = with("some other secret, not it");
    assert_eq!(stranger.connect_datagram("bob", &once()).unwrap_err().kind(), ErrorKind::WrongSecret);
    let friend = with("the secret that both know");
    let near = friend.connect_datagram("bob", &once()).unwrap();
    let far = listener.accept_datagram(LONG.into()).unwrap();
    assert_eq!(near.session(), far.session());
}

#[test]
fn a_closed_listener_gives_its_name_back_and_leaves_connections() {
    let server = Rendezvous::start();
    let (listener, near, far) = server.pair("bob");
    listener.close();
    listener.close();
    assert_eq!(listener.accept_datagram(LONG.into()).unwrap_err().kind(), ErrorKind::Closed);
    drop(listener);
    let other = server.endpoint().build().unwrap();
    let mut again = other.listen(Some("bob"), LONG.into());
    while again.as_ref().is_err_and(|error| error.kind() == ErrorKind::NameTaken) {
        again = other.listen(Some("bob"), LONG.into());
    }
    again.unwrap();
    near.send(b"on").unwrap();
    assert_eq!(receive(&far).unwrap(), b"on");
}

#[test]
fn many_peers_come_to_one_listener() {
    const PEERS: u32 = 24;
    let server = Rendezvous::start();
    let listener = server.endpoint().build().unwrap().listen(Some("bob"), LONG.into()).unwrap();
    let endpoint = server.endpoint().build().unwrap();
    thread::scope(|scope| {
        for number in 0..PEERS {
            let endpoint = &endpoint;
            scope.spawn(move || {
                let connection = endpoint.connect_datagram("bob", &ConnectOptions::default()).unwrap();
                connection.send(&number.to_be_bytes()).unwrap();
                assert_eq!(receive(&connection).unwrap(), number.to_le_bytes());
            });
        }
        let mut seen = Vec::new();
        for _ in 0..PEERS {
            let connection = listener.accept_datagram(LONG.into()).unwrap();
            let number = u32::from_be_bytes(receive(&connection).unwrap().try_into().unwrap());
            connection.send(&number.to_le_bytes()).unwrap();
            assert_eq!(receive(&connection).unwrap_err().kind(), ErrorKind::Closed);
            seen.push(number);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..PEERS).collect::<Vec<_>>());
    });
}

#[test]
fn without_the_thread_the_program_drives() {
    let server = Rendezvous::start();
    let listening = server.endpoint().thread(false).build().unwrap();
    let connecting = server.endpoint().thread(false).build().unwrap();
    // Blocking calls drive their own endpoint.
    let listener = listening.listen(Some("bob"), LONG.into()).unwrap();
    thread::scope(|scope| {
        let near = scope.spawn(|| connecting.connect_datagram("bob", &ConnectOptions::default()).unwrap());
        // The other is driven by hand.
        let far = loop {
            listening.process().unwrap();
            match listener.accept_datagram(Wait::at_most(Duration::ZERO)) {
                Ok(connection) => break connection,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout),
            }
            assert!(listening.next_timeout().is_some());
        };
        // Until the other side knows, this one has to answer its checks.
        while !near.is_finished() {
            listening.process().unwrap();
        }
        let near = near.join().unwrap();
        near.send(b"question").unwrap();
        assert_eq!(receive(&far).unwrap(), b"question");
        far.send(b"answer").unwrap();
        assert_eq!(receive(&near).unwrap(), b"answer");
        near.close();
        assert_eq!(receive(&far).unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn callbacks_are_told_everything_and_may_panic() {
    let server = Rendezvous::start();
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let endpoint = server.endpoint().on_event(move |event| {
        if matches!(event, PeerEvent::Registered { .. } | PeerEvent::Introduced { .. } | PeerEvent::Connected { .. }) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        // Not `panic!`: its hook would print.
        std::panic::resume_unwind(Box::new("the program's own fault"));
    });
    let endpoint = endpoint.build().unwrap();
    let listener = endpoint.listen(Some("bob"), LONG.into()).unwrap();
    let near = server.endpoint().build().unwrap().connect_datagram("bob", &once()).unwrap();
    let far = listener.accept_datagram(LONG.into()).unwrap();
    near.send(b"alive").unwrap();
    assert_eq!(receive(&far).unwrap(), b"alive");
    drop((near, far, listener));
    // The last handle waits for the thread, which has told everything.
    drop(endpoint);
    assert_eq!(told.load(Ordering::SeqCst), 3);
}
