//! How long a connection lives: while nobody reads, while one side only sends, and not when the peer is gone.

use std::time::{Duration, Instant};

use holepunch::{ConnectOptions, Connection, ErrorKind, Listener, Wait, config::PeerConfig};

use crate::rendezvous::{LONG, Rendezvous, receive};

/// Consent so short that a test can see it expire.
pub(crate) const EXPIRY: Duration = Duration::from_millis(1500);

pub(crate) fn short_lived() -> PeerConfig {
    let mut config = PeerConfig::default();
    config.consent.interval = Duration::from_millis(150);
    config.consent.expiry = EXPIRY;
    config
}

fn pair(server: &Rendezvous, near_threaded: bool) -> (Listener, Connection, Connection) {
    let here = server.endpoint().config(short_lived()).build().unwrap();
    let there = server.endpoint().config(short_lived()).thread(near_threaded).build().unwrap();
    let listener = here.listen(Some("bob"), LONG.into()).unwrap();
    let near = there.connect_datagram("bob", &ConnectOptions::default()).unwrap();
    let start = Instant::now();
    let far = loop {
        // Without a thread somebody has to answer the listener's checks until it is connected too.
        there.process().unwrap();
        match listener.accept_datagram(Duration::from_millis(1).into()) {
            Ok(connection) => break connection,
            Err(error) => assert!(error.kind() == ErrorKind::Timeout && start.elapsed() < LONG, "{error}"),
        }
    };
    (listener, near, far)
}

/// Lets time pass in which nobody reads.
fn rest(listener: &Listener, time: Duration) {
    assert_eq!(listener.accept_datagram(time.into()).unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn a_connection_that_nobody_reads_lives() {
    let server = Rendezvous::start();
    let (listener, near, far) = pair(&server, true);
    near.send(b"waits").unwrap();
    rest(&listener, EXPIRY * 3);
    assert_eq!(receive(&far).unwrap(), b"waits");
    far.send(b"too").unwrap();
    assert_eq!(receive(&near).unwrap(), b"too");
}

#[test]
fn a_connection_drowned_in_data_that_nobody_reads_lives() {
    let server = Rendezvous::start();
    let (_listener, near, far) = pair(&server, true);
    let start = Instant::now();
    let mut sent = 0_u64;
    while start.elapsed() < EXPIRY * 3 {
        sent += 1;
        near.send(&sent.to_be_bytes()).unwrap();
    }
    // Much was dropped; what is left comes in order, and when it was read, new data comes again.
    let mut last = 0;
    let mut buffer = [0; 1200];
    while let Ok(length) = far.recv(&mut buffer, Duration::ZERO.into()) {
        let number = u64::from_be_bytes(buffer[..length].try_into().unwrap());
        assert!(number > last);
        last = number;
    }
    near.send(b"alive").unwrap();
    assert_eq!(receive(&far).unwrap(), b"alive");
    far.send(b"alive").unwrap();
    assert_eq!(receive(&near).unwrap(), b"alive");
}

#[test]
fn a_peer_that_only_sends_lives() {
    let server = Rendezvous::start();
    let (_listener, near, far) = pair(&server, true);
    let start = Instant::now();
    while start.elapsed() < EXPIRY * 3 {
        near.send(b"again").unwrap();
        assert_eq!(receive(&far).unwrap(), b"again");
    }
    near.send(b"alive").unwrap();
    assert_eq!(receive(&far).unwrap(), b"alive");
}

#[test]
fn a_peer_that_vanishes_is_lost() {
    let server = Rendezvous::start();
    // Nobody drives the peer from here on: it is as if it were gone.
    let (_listener, near, far) = pair(&server, false);
    near.send(b"last words").unwrap();
    assert_eq!(receive(&far).unwrap(), b"last words");
    assert_eq!(far.recv(&mut [0; 1200], Wait::forever()).unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(far.send(b"anybody?").unwrap_err().kind(), ErrorKind::Lost);
}

#[test]
fn the_last_handle_tells_the_peer() {
    let server = Rendezvous::start();
    let (listener, near, far) = pair(&server, true);
    // With it goes the connecting endpoint, thread and all.
    drop(near);
    assert_eq!(receive(&far).unwrap_err().kind(), ErrorKind::Closed);
    let start = Instant::now();
    drop((listener, far));
    assert!(start.elapsed() < EXPIRY, "nobody is left to be waited for: {:?}", start.elapsed());
}
