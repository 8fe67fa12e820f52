//! What a full send buffer does: to the calls that send, and to nothing else. Two hosts, and the device of one is slow.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use holepunch::{Cancel, ConnectOptions, Connection, Endpoint, ErrorKind, Listener, Stream, Wait, config::PeerConfig};
use natlab::{Host, Lab};

use crate::{
    SHORT,
    blocked::Blocked,
    lifetime::{EXPIRY, short_lived},
    rendezvous::{LONG, Rendezvous, receive},
};

/// One datagram in five seconds: for a test, nothing more once one has left.
const STUCK: &str = "2kbit";

/// The slow host's endpoint, and one that listens elsewhere.
struct Scene {
    near: Endpoint,
    listener: Listener,
    here: Host,
    there: Host,
    server: Option<Rendezvous>,
    _lab: Lab,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let server = self.server.take();
        // It ends by a connection to itself.
        self.there.within(|| drop(server)).unwrap();
    }
}

impl Scene {
    /// `None` where there can be none, which is said.
    fn or_skip(test: &str, config: PeerConfig) -> Option<Self> {
        let mut lab = Lab::or_skip(test)?;
        let (there, here) = (lab.host("there").unwrap(), lab.host("here").unwrap());
        if let Err(why) = here.slow_down("1gbit") {
            natlab::skip(test, &why.to_string());
            return None;
        }
        let server = there.within(|| Rendezvous::at(there.address())).unwrap();
        let build = || Endpoint::builder().server(server.address.to_string()).config(config).build().unwrap();
        let listener = there.within(|| build().listen(Some("bob"), LONG.into()).unwrap()).unwrap();
        let near = here.within(build).unwrap();
        Some(Self { near, listener, here, there, server: Some(server), _lab: lab })
    }

    fn datagrams(&self) -> (Connection, Connection) {
        let connect = || self.near.connect_datagram("bob", &ConnectOptions::default()).unwrap();
        (self.here.within(connect).unwrap(), self.listener.accept_datagram(LONG.into()).unwrap())
    }

    fn streams(&self) -> (Stream, Stream) {
        let connect = || self.near.connect("bob", &ConnectOptions::default()).unwrap();
        (self.here.within(connect).unwrap(), self.listener.accept(LONG.into()).unwrap())
    }
}

/// Sends until nothing more goes out; how much did.
fn fill(mut send: impl FnMut(Wait) -> holepunch::Result<()>) -> u32 {
    let mut sent = 0;
    loop {
        match send(Duration::ZERO.into()) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Timeout);
                return sent;
            }
        }
        assert!(sent < 100_000, "it is never full");
    }
}

/// A time is kept, not less, by a call that cannot succeed.
fn keeps_time(send: impl FnOnce(Wait) -> holepunch::Result<()>) {
    let start = Instant::now();
    assert_eq!(send(SHORT.into()).unwrap_err().kind(), ErrorKind::Timeout);
    assert!(start.elapsed() >= SHORT);
}

#[test]
fn a_datagram_waits_for_room_and_nothing_else_waits() {
    let test = "a_datagram_waits_for_room_and_nothing_else_waits";
    let Some(scene) = Scene::or_skip(test, PeerConfig::default()) else { return };
    for closes_endpoint in [false, true] {
        let (near, far) = scene.datagrams();
        let near = Arc::new(near);
        scene.here.slow_down(STUCK).unwrap();
        println!("{} datagrams fit", fill(|wait| near.send_within(&[7; 1200], wait)));
        keeps_time(|wait| near.send_within(&[7; 1200], wait));

        let cancel = Cancel::new().unwrap();
        let (sender, wait) = (near.clone(), Wait::forever().or_cancelled(&cancel));
        let blocked = Blocked::start(move || sender.send_within(&[7; 1200], wait));
        assert_eq!(blocked.end(|| cancel.cancel()), ErrorKind::Cancelled);

        let sender = near.clone();
        let blocked = Blocked::start(move || sender.send(&[7; 1200]));
        blocked.is_asleep();
        // The endpoint receives, has its lock, and knows what time it is.
        far.send(b"from there").unwrap();
        assert_eq!(receive(&near).unwrap(), b"from there");
        assert_eq!(scene.listener.accept_datagram(SHORT.into()).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(near.rtt() > Duration::ZERO);
        assert_eq!(blocked.end(|| if closes_endpoint { scene.near.close() } else { near.close() }), ErrorKind::Closed);
        scene.here.slow_down("1gbit").unwrap();
    }
}

#[test]
fn a_connection_that_sends_more_than_its_device_lives() {
    let test = "a_connection_that_sends_more_than_its_device_lives";
    let Some(scene) = Scene::or_skip(test, short_lived()) else { return };
    let (near, far) = scene.datagrams();
    scene.here.slow_down("8mbit").unwrap();
    let (start, mut full, mut buffer) = (Instant::now(), 0, [0; 1200]);
    while start.elapsed() < EXPIRY * 3 {
        full += u32::from(near.send_within(&[7; 1200], Duration::ZERO.into()).is_err());
        near.send(&[7; 1200]).unwrap();
        while far.recv(&mut buffer, Duration::ZERO.into()).is_ok() {}
    }
    println!("full {full} times");
    assert!(full > 0);
    far.send(b"alive").unwrap();
    assert_eq!(receive(&near).unwrap(), b"alive");
    near.send(b"alive").unwrap();
    while receive(&far).unwrap() != b"alive" {}
}

#[test]
fn a_stream_waits_for_room_and_nothing_else_waits() {
    let test = "a_stream_waits_for_room_and_nothing_else_waits";
    let Some(scene) = Scene::or_skip(test, PeerConfig::default()) else { return };
    let (near, far) = scene.streams();
    let (near, cancel) = (Arc::new(near), Cancel::new().unwrap());
    scene.here.slow_down(STUCK).unwrap();
    // More than the system takes, however much that grows to.
    let much: Arc<[u8]> = vec![7; 1 << 26].into();
    keeps_time(|wait| near.send_all(&much, wait));
    let (sender, bytes, wait) = (near.clone(), much.clone(), Wait::forever().or_cancelled(&cancel));
    let blocked = Blocked::start(move || sender.send_all(&bytes, wait));
    assert_eq!(blocked.end(|| cancel.cancel()), ErrorKind::Cancelled);
    let sender = near.clone();
    let blocked = Blocked::start(move || sender.send_all(&much, Wait::forever()));
    blocked.is_asleep();
    far.send_all(b"from there", LONG.into()).unwrap();
    let mut buffer = [0; 16];
    let length = near.recv(&mut buffer, LONG.into()).unwrap();
    assert_eq!(&buffer[..length], b"from there");
    assert_eq!(blocked.end(|| near.close()), ErrorKind::Closed);
}
