//! Peers of 2015, met without a server.

use std::{
    io::{ErrorKind as ErrorOfSystem, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use holepunch::{
    Cancel, ErrorKind, Wait,
    legacy::{meet_datagram, meet_stream},
};

use crate::old::{self, PATIENCE, at, free_port};

fn patient() -> Wait {
    Wait::at_most(PATIENCE)
}

/// Bytes both ways, and both ends as both sockets see them; nothing came before the bytes.
fn exchange(mut here: TcpStream, mut there: TcpStream) {
    assert_eq!(here.local_addr().unwrap(), there.peer_addr().unwrap());
    assert_eq!(here.peer_addr().unwrap(), there.local_addr().unwrap());
    here.set_read_timeout(Some(PATIENCE)).unwrap();
    there.set_read_timeout(Some(PATIENCE)).unwrap();
    here.write_all(b"from here").unwrap();
    there.write_all(b"from there").unwrap();
    let mut buffer = [0; 100];
    let length = there.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"from here");
    let length = here.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"from there");
}

#[test]
fn a_stream_with_an_old_peer_whoever_is_first() {
    for (network, ours_first) in [("127.71.1", true), ("127.71.2", false)] {
        let port = free_port();
        let (here, there) = (at(&format!("{network}.2"), port), at(&format!("{network}.3"), port));
        if ours_first {
            let ours = std::thread::spawn(move || meet_stream(here, there, &patient()));
            let peer = old::stream_peer(there, here);
            exchange(ours.join().unwrap().unwrap(), peer.join().unwrap());
        } else {
            let peer = old::stream_peer(there, here);
            exchange(meet_stream(here, there, &patient()).unwrap(), peer.join().unwrap());
        }
    }
}

#[test]
fn a_stream_between_two_new_peers() {
    let port = free_port();
    let (one, other) = (at("127.71.3.2", port), at("127.71.3.3", port));
    let thread = std::thread::spawn(move || meet_stream(other, one, &patient()));
    let here = meet_stream(one, other, &patient()).unwrap();
    exchange(here, thread.join().unwrap().unwrap());
}

#[test]
fn a_stream_whose_source_the_system_chooses() {
    let port = free_port();
    let there = at("127.71.4.3", port);
    let peer = old::stream_peer(there, at("127.0.0.1", port));
    let here = meet_stream(at("0.0.0.0", port), there, &patient()).unwrap();
    assert_eq!(here.local_addr().unwrap(), at("127.0.0.1", port));
    exchange(here, peer.join().unwrap());
}

#[test]
fn a_stranger_on_the_port_is_not_the_peer() {
    let port = free_port();
    let (here, there) = (at("127.71.5.2", port), at("127.71.5.3", port));
    let ours = std::thread::spawn(move || meet_stream(here, there, &patient()));
    // Refused while nobody listens there; then the listener's filter drops what is not the peer's, and nothing answers.
    let start = Instant::now();
    loop {
        match TcpStream::connect_timeout(&here, Duration::from_millis(300)).map_err(|error| error.kind()) {
            Err(ErrorOfSystem::TimedOut) => break,
            Err(ErrorOfSystem::ConnectionRefused) => assert!(start.elapsed() < PATIENCE),
            other => panic!("{other:?}"),
        }
    }
    let peer = old::stream_peer(there, here);
    exchange(ours.join().unwrap().unwrap(), peer.join().unwrap());
}

#[test]
fn oneself_is_refused_and_a_port_in_use_is_named() {
    let port = free_port();
    for (source, peer) in [("127.71.6.2", "127.71.6.2"), ("0.0.0.0", "127.0.0.1")] {
        let (source, peer) = (at(source, port), at(peer, port));
        let stream = meet_stream(source, peer, &patient()).unwrap_err();
        let datagram = meet_datagram(source, peer, &patient()).unwrap_err();
        for error in [stream, datagram] {
            assert_eq!(error.kind(), ErrorKind::NoPath);
            assert!(error.hint().contains("bind"), "{error}");
        }
    }
    let here = at("127.71.6.2", port);
    let _holder = TcpListener::bind(here).unwrap();
    let error = meet_stream(here, at("127.71.6.3", port), &patient()).unwrap_err();
    assert_eq!((error.kind(), error.os_code()), (ErrorKind::AddressInUse, Some(libc::EADDRINUSE)));
    let error = meet_stream(at("192.0.2.1", port), at("192.0.2.2", port), &patient()).unwrap_err();
    assert_eq!((error.kind(), error.os_code()), (ErrorKind::InvalidArgument, Some(libc::EADDRNOTAVAIL)));
    let error = meet_stream(at("127.71.6.2", port), at("::1", port), &patient()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// The time that this thread has spent on a processor.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn a_peer_that_is_not_there_costs_time_and_no_cpu() {
    let port = free_port();
    let (start, before) = (Instant::now(), cpu());
    let wait = Wait::at_most(Duration::from_secs(2));
    let error = meet_stream(at("127.71.7.2", port), at("127.71.7.3", port), &wait).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("127.71.7.3"), "{error}");
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert!(cpu() - before < Duration::from_millis(100), "{:?}", cpu() - before);
}

#[test]
fn a_cancelled_meeting_ends_at_once() {
    for datagrams in [false, true] {
        let port = free_port();
        let (here, there) = (at("127.71.8.2", port), at("127.71.8.3", port));
        let cancel = Cancel::new().unwrap();
        let wait = Wait::forever().or_cancelled(&cancel);
        let silent = old::bound_datagram(there);
        let thread = std::thread::spawn(move || {
            let result = if datagrams {
                meet_datagram(here, there, &wait).map(drop)
            } else {
                meet_stream(here, there, &wait).map(drop)
            };
            (result, Instant::now())
        });
        if datagrams {
            silent.recv(&mut [0; 10]).unwrap(); // it has begun
        }
        let start = Instant::now();
        cancel.cancel();
        let (result, end) = thread.join().unwrap();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(end - start < Duration::from_secs(1), "{:?}", end - start);
    }
}

#[test]
fn a_silent_peer_is_greeted_at_most_twenty_times_and_is_no_error() {
    let port = free_port();
    let (here, there) = (at("127.71.9.2", port), at("127.71.9.3", port));
    let silent = old::bound_datagram(there);
    let start = Instant::now();
    let socket = meet_datagram(here, there, &Wait::forever()).unwrap();
    let took = start.elapsed();
    assert!((Duration::from_millis(2_900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert_eq!(socket.local_addr().unwrap(), here);
    silent.set_nonblocking(true).unwrap();
    let mut buffer = [0; 100];
    let received: Vec<Vec<u8>> =
        std::iter::from_fn(|| silent.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect();
    assert!((6..=20).contains(&received.len()), "{}", received.len());
    assert!(received.iter().all(|datagram| datagram == b"*"));
    // A deadline that is nearer ends the greeting just so.
    drop(socket);
    let socket = meet_datagram(here, there, &Wait::at_most(Duration::from_millis(50))).unwrap();
    assert_eq!(socket.send_to(b"first", there).unwrap(), 5);
}

#[test]
fn what_an_old_peer_sent_stays_readable() {
    let port = free_port();
    let (here, there) = (at("127.71.10.2", port), at("127.71.10.3", port));
    let ours = std::thread::spawn(move || meet_datagram(here, there, &patient()));
    let peer = old::bound_datagram(there);
    let mut buffer = [0; 100];
    // One that was sent before the peer had the port is lost; another one follows.
    assert_eq!(peer.recv_from(&mut buffer).unwrap(), (1, here));
    let stranger = UdpSocket::bind("127.71.10.9:0").unwrap();
    stranger.send_to(b"stranger", here).unwrap();
    peer.send_to(b"*", here).unwrap();
    peer.send_to(b"data", here).unwrap();
    let socket = ours.join().unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for expected in [&b"*"[..], b"data"] {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (expected, there));
    }
    // Plain, and unconnected: a peer whose NAT chose another port is heard.
    let elsewhere = UdpSocket::bind("127.71.10.3:0").unwrap();
    elsewhere.send_to(b"elsewhere", here).unwrap();
    assert_eq!(socket.recv_from(&mut buffer).unwrap(), (9, elsewhere.local_addr().unwrap()));
}

#[test]
fn sessions_on_one_port_are_told_apart_and_a_second_one_with_a_peer_is_refused() {
    let port = free_port();
    let here = at("127.71.11.2", port);
    let there: Vec<_> = (3..6).map(|host| at(&format!("127.71.11.{host}"), port)).collect();
    let mut sessions = Vec::new();
    for peer in &there {
        let peer = *peer;
        let ours = std::thread::spawn(move || meet_datagram(here, peer, &patient()));
        let remote = old::bound_datagram(peer);
        remote.recv(&mut [0; 10]).unwrap();
        remote.send_to(b"*", here).unwrap();
        sessions.push((remote, ours.join().unwrap().unwrap()));
    }
    for (number, (remote, _)) in sessions.iter().enumerate() {
        remote.send_to(format!("for {number}").as_bytes(), here).unwrap();
    }
    for (number, (_, session)) in sessions.iter().enumerate() {
        session.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 100];
        let mut length = session.recv(&mut buffer).unwrap();
        while &buffer[..length] == b"*" {
            length = session.recv(&mut buffer).unwrap();
        }
        assert_eq!(&buffer[..length], format!("for {number}").as_bytes());
    }
    let error = meet_datagram(here, there[0], &patient()).unwrap_err();
    assert_eq!((error.kind(), error.os_code()), (ErrorKind::AddressInUse, Some(libc::EADDRINUSE)));
    // With the session ends the refusal.
    let (remote, session) = sessions.remove(0);
    drop(session);
    remote.send_to(b"*", here).unwrap_or_default();
    meet_datagram(here, there[0], &Wait::at_most(Duration::from_millis(10))).unwrap();
}

/// Two threads that meet the same peer: the system would give both the port, and all datagrams to one of them.
#[test]
fn of_two_meetings_at_once_with_one_peer_one_is_refused() {
    let port = free_port();
    let (here, peer) = (at("127.71.12.2", port), at("127.71.12.3", port));
    let _silent = UdpSocket::bind(peer).unwrap();
    let meeting = || std::thread::spawn(move || meet_datagram(here, peer, &Wait::at_most(Duration::from_secs(1))));
    let met = [meeting(), meeting()].map(|meeting| meeting.join().unwrap());
    let errors: Vec<_> = met.iter().filter_map(|met| met.as_ref().err().map(holepunch::Error::kind)).collect();
    assert_eq!(errors, [ErrorKind::AddressInUse]);
}
