//! A connection's socket becomes the program's own.

use std::{
    io::ErrorKind as IoKind,
    net::UdpSocket,
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
    time::{Duration, Instant},
};

use holepunch::{ConnectOptions, ErrorKind, config::PeerConfig, wire::stun};

use crate::rendezvous::{LONG, Rendezvous, receive};

/// What is in the socket within that time, until it stays silent for as long.
fn rest(socket: &UdpSocket, silence: Duration) -> Vec<Vec<u8>> {
    socket.set_read_timeout(Some(silence)).unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => all.push(buffer[..length].to_vec()),
            Err(error) => {
                assert_eq!(error.kind(), IoKind::WouldBlock, "{error}");
                return all;
            }
        }
    }
}

/// Consent so often that a socket which is asked for it hears of it soon.
fn restless() -> PeerConfig {
    let mut config = PeerConfig::default();
    config.consent.interval = Duration::from_millis(40);
    config
}

const SILENCE: Duration = Duration::from_millis(300);

#[test]
fn one_side_has_its_socket_and_the_other_goes_on() {
    let server = Rendezvous::start();
    for accepted in [false, true] {
        let build = || server.endpoint().config(restless()).build().unwrap();
        let listener = build().listen(Some("bob"), LONG.into()).unwrap();
        let near = build().connect_datagram("bob", &ConnectOptions::default()).unwrap();
        let far = listener.accept_datagram(LONG.into()).unwrap();
        let (bare, managed) = if accepted { (far, near) } else { (near, far) };
        let (local, remote) = (bare.local_addr(), bare.path().remote);
        let socket = bare.into_socket().unwrap();
        assert_eq!((socket.local_addr().unwrap(), socket.peer_addr().unwrap()), (local, remote));
        for round in 0..50_u8 {
            managed.send(&[round; 1000]).unwrap();
            socket.send(&[round]).unwrap();
            assert_eq!(receive(&managed).unwrap(), [round]);
        }
        let expected: Vec<_> = (0..50_u8).map(|round| vec![round; 1000]).collect();
        assert!(rest(&socket, SILENCE) == expected, "something else came");
        // The end reaches nobody, and takes no time.
        let start = Instant::now();
        assert_eq!(managed.end(LONG.into()).unwrap_err().kind(), ErrorKind::Unsupported);
        managed.close();
        drop((managed, listener));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(rest(&socket, SILENCE), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn both_sides_have_their_sockets_and_the_endpoints_go() {
    let server = Rendezvous::start();
    let (listener, near, far) = server.pair("bob");
    let (near, far) = thread::scope(|scope| {
        let near = scope.spawn(|| near.into_socket().unwrap());
        (far.into_socket().unwrap(), near.join().unwrap())
    });
    drop(listener);
    for (from, to) in [(&near, &far), (&far, &near)] {
        for round in 0..100_u8 {
            from.send(&[round; 700]).unwrap();
        }
        let expected: Vec<_> = (0..100_u8).map(|round| vec![round; 700]).collect();
        assert!(rest(to, SILENCE) == expected);
    }
}

/// It did not go round by the loopback interface, where a firewall might drop it.
#[test]
fn data_that_came_after_the_last_message_stays_in_its_place() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.pair("bob");
    let near = near.into_socket().unwrap();
    let sent: Vec<_> = (0..20_u8).map(|number| vec![number; 100]).collect();
    for datagram in &sent {
        near.send(datagram).unwrap();
    }
    let far = far.into_socket().unwrap();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 200];
    for expected in &sent {
        let (length, source) = far.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], source), (&expected[..], near.local_addr().unwrap()));
    }
}

#[test]
fn nothing_that_came_before_is_lost_or_out_of_order() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.pair("bob");
    // STUN of the application's own, too.
    let method = stun::Method::BINDING;
    let own = stun::Builder::new(stun::Class::Request, method, stun::TransactionId([3; 12])).fingerprint().finish();
    let mut expected: Vec<_> = (0..60_u8).map(|round| vec![round; usize::from(round) * 20]).collect();
    expected.push(own);
    for datagram in &expected {
        near.send(datagram).unwrap();
    }
    let socket = far.into_socket().unwrap();
    near.send(b"after").unwrap();
    expected.push(b"after".to_vec());
    assert!(rest(&socket, SILENCE) == expected);
    // It blocks, as the system makes them, and wakes for what comes.
    socket.set_read_timeout(None).unwrap();
    thread::scope(|scope| {
        let received = scope.spawn(|| socket.recv(&mut [0; 100]).unwrap());
        near.send(b"later").unwrap();
        assert_eq!(received.join().unwrap(), 5);
    });
}

#[test]
fn a_stream_of_data_meanwhile_arrives() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.pair("bob");
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for number in 0..3000_u32 {
                near.send(&number.to_be_bytes()).unwrap();
                thread::sleep(Duration::from_micros(100));
            }
        });
        let mut buffer = [0; 1200];
        let mut numbers = Vec::new();
        while numbers.len() < 100 {
            let length = far.recv(&mut buffer, LONG.into()).unwrap();
            numbers.push(u32::from_be_bytes(buffer[..length].try_into().unwrap()));
        }
        let socket = far.into_socket().unwrap();
        for datagram in rest(&socket, SILENCE) {
            numbers.push(u32::from_be_bytes(datagram.try_into().unwrap()));
        }
        sender.join().unwrap();
        // The order of those that came in the very moment may differ.
        numbers.sort_unstable();
        assert_eq!(numbers, (0..3000).collect::<Vec<_>>());
    });
}

#[test]
fn a_socket_that_data_was_kept_out_of_takes_it_again() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.pair("bob");
    // More than the queue holds, until the endpoint has seen it and attached its filter.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        near.send(&[1; 1000]).unwrap();
    }
    let socket = far.into_socket().unwrap();
    assert!(rest(&socket, SILENCE).iter().all(|datagram| datagram == &[1; 1000]));
    near.send(b"no filter").unwrap();
    assert_eq!(rest(&socket, SILENCE), [b"no filter"]);
}

#[test]
fn without_the_thread_the_call_drives() {
    let server = Rendezvous::start();
    let listener = server.endpoint().build().unwrap().listen(Some("bob"), LONG.into()).unwrap();
    let near = server.endpoint().thread(false).build().unwrap();
    let near = near.connect_datagram("bob", &ConnectOptions::default()).unwrap();
    near.send(b"hello").unwrap();
    let socket = near.into_socket().unwrap();
    let far = listener.accept_datagram(LONG.into()).unwrap();
    assert_eq!(receive(&far).unwrap(), b"hello");
    far.send(b"answer").unwrap();
    assert_eq!(rest(&socket, SILENCE), [b"answer"]);
}

#[test]
fn its_number_is_the_same_and_its_owner_closes_it() {
    let server = Rendezvous::start();
    let (listener, near, far) = server.pair("bob");
    let number = far.as_fd().as_raw_fd();
    let socket = far.into_socket().unwrap();
    assert_eq!(socket.as_raw_fd(), number);
    let port = socket.local_addr().unwrap().port();
    drop((listener, near));
    // Nobody else holds the port.
    drop(socket);
    let start = Instant::now();
    while let Err(error) = UdpSocket::bind(("127.0.0.1", port)) {
        assert!(start.elapsed() < LONG, "{error}");
        thread::yield_now();
    }
}

#[test]
fn what_is_ended_cannot_be_taken() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.pair("bob");
    near.end(LONG.into()).unwrap();
    assert_eq!(near.into_socket().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(receive(&far).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(far.into_socket().unwrap_err().kind(), ErrorKind::Closed);
    let (_listener, near, _far) = server.pair("eve");
    near.close();
    assert_eq!(near.into_socket().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_farewell_takes_as_long_as_it_was_told() {
    let server = Rendezvous::start();
    let mut config = PeerConfig::default();
    config.farewell = Duration::from_millis(200);
    let listener = server.endpoint().thread(false).build().unwrap().listen(Some("bob"), LONG.into()).unwrap();
    let endpoint = server.endpoint().config(config).build().unwrap();
    let (near, _far) = thread::scope(|scope| {
        let near = scope.spawn(|| endpoint.connect_datagram("bob", &ConnectOptions::default()).unwrap());
        let far = listener.accept_datagram(LONG.into()).unwrap();
        while !near.is_finished() {
            let _ = far.recv(&mut [0; 1200], Duration::from_millis(1).into());
        }
        (near.join().unwrap(), far)
    });
    // Nobody drives the other side any more.
    let start = Instant::now();
    let ended = near.end(LONG.into());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Timeout);
}
