//! A hostile peer, or a stranger, over TCP: what it does at the port that a stream is being looked for with.

use crate::{
    outside::{DoTcp, Keys, Outside, PEER, addr, candidates, refuses, silent, takes, transaction},
    victim::{Arrives, Victim},
};
use holepunch::{
    ErrorKind,
    machine::TcpRequest,
    peer::{PeerEvent, Transport},
    wire::stun::CandidateKind,
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// How long a connection may say nothing.
const PATIENCE: Duration = Duration::from_secs(5);
const STRANGER: &str = "198.18.0.9:9";
/// A port, a connection to the server, connects, and whoever connects.
const DESCRIPTORS: usize = 1 + 1 + 8 + 16;

/// A listener that looks for a stream to a peer that is not there yet.
fn looking() -> (Victim, Keys) {
    let mut victim = Victim::listening();
    victim.outside.peer = silent;
    victim.outside.tcp = refuses;
    victim.introduce(1, Transport::Tcp, &candidates(CandidateKind::ServerReflexiveObserved, "203.0.113.9:1", 1));
    victim.run(Duration::from_millis(10));
    let keys = victim.outside.keys(1);
    (victim, keys)
}

/// What a stranger says: in pieces, each its own segment.
type Words = fn(&Keys) -> Vec<Vec<u8>>;

fn half(bytes: &[u8]) -> Vec<Vec<u8>> {
    vec![bytes[..bytes.len() / 2].to_vec()]
}

/// What is said, and whether it is the end at once; else it is when nothing more is said.
const WORDS: &[(&str, Words, bool)] = &[
    ("nothing", |_| vec![], false),
    ("the first byte", |_| vec![vec![0]], false),
    ("a web request", |_| vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()], true),
    ("a web request by the byte", |_| b"GET / HTTP".iter().map(|byte| vec![*byte]).collect(), true),
    ("65,507 bytes of nothing", |_| vec![vec![0; 65_507]], true),
    ("a header of no length", |keys| vec![[&[0, 1, 0, 0], &keys.check(1)[4..20]].concat()], true),
    ("a length that is none", |keys| vec![[&[0, 1, 0, 3], &keys.check(1)[4..]].concat()], true),
    ("a giant length", |keys| vec![[&[0, 1, 0xff, 0xfc], &keys.check(1)[4..]].concat()], true),
    ("half a check", |keys| half(&keys.check(1)), false),
    (
        "the check of another",
        |keys| {
            let mut keys = keys.clone();
            keys.peer.ufrag = "AAAAAAAA".into();
            vec![keys.check(1)]
        },
        true,
    ),
    (
        "a check with a guess",
        |keys| {
            let mut keys = keys.clone();
            keys.victim.password = "a guess".into();
            vec![keys.check(1)]
        },
        true,
    ),
    ("a check in the role of the other", |keys| vec![keys.sign(keys.begin_check(transaction(1), false, 7))], true),
    ("a check without integrity", |keys| vec![keys.begin_check(transaction(1), true, 7).fingerprint().finish()], true),
];

#[test]
fn strangers_at_the_port_are_hung_up_on() {
    for (name, words, at_once) in WORDS {
        println!("{name}");
        let (mut victim, keys) = looking();
        let streams = victim.accept(STRANGER);
        let stream = *streams.first().expect("a port");
        for piece in words(&keys) {
            victim.deliver(Arrives::Bytes(stream, piece));
        }
        victim.run(Duration::from_millis(1));
        assert_eq!(!victim.streams.contains_key(&stream), *at_once, "{name}");
        victim.run(PATIENCE);
        assert!(!victim.streams.contains_key(&stream), "{name}: is there still");
        assert!(victim.meets_honest_peer(1, Transport::Tcp), "{name}: the session's peer is not met");
        victim.assert_rests();
    }
}

#[test]
fn a_check_that_comes_by_the_byte_is_one() {
    let (mut victim, keys) = looking();
    let stream = *victim.accept(STRANGER).first().expect("a port");
    for byte in keys.check(1) {
        victim.deliver(Arrives::Bytes(stream, vec![byte]));
        victim.run(Duration::from_millis(10));
    }
    assert!(victim.is_connected(keys.session));
    victim.assert_rests();
}

/// The peer itself ends its connection, after so many bytes of its check, or before or behind it.
#[test]
fn a_connection_that_is_reset_at_any_moment_is_made_again() {
    let length = looking().1.check(1).len();
    for end in 0..=length {
        let (mut victim, keys) = looking();
        let stream = *victim.accept(STRANGER).first().expect("a port");
        victim.deliver(Arrives::Bytes(stream, keys.check(1)[..end].to_vec()));
        victim.deliver(Arrives::Failed(stream));
        victim.run(SECOND);
        // With nothing left to say it has nominated, and the connection is the application's.
        assert_eq!(victim.is_connected(keys.session), end == length);
        assert!(end == length || victim.meets_honest_peer(1, Transport::Tcp), "after {end} bytes");
        victim.assert_rests();
    }
}

/// The oldest stranger makes room; the peer finds it.
#[test]
fn a_thousand_connections_to_the_port_are_sixteen() {
    for says in [false, true] {
        let (mut victim, keys) = looking();
        for number in 0..1000 {
            for stream in victim.accept(&format!("198.18.{}.1:{}", number / 100, 1000 + number)) {
                if says {
                    victim.deliver(Arrives::Bytes(stream, half(&keys.check(1)).concat()));
                }
            }
            victim.run(Duration::from_millis(1));
        }
        assert!(victim.most_descriptors <= DESCRIPTORS, "{}", victim.most_descriptors);
        assert!(victim.meets_honest_peer(1, Transport::Tcp));
        victim.assert_rests();
    }
}

/// What the peer does with the connections of a connector.
const CONDUCTS: &[(&str, DoTcp)] = &[
    ("says nothing", |o, r| at_peer(o, r, &[], false)),
    ("ends them at once", |o, r| at_peer(o, r, &[], true)),
    ("is a web server", |o, r| at_peer(o, r, b"HTTP/1.1 400 Bad Request\r\n\r\n", false)),
    ("says giant lengths", |o, r| at_peer(o, r, &[0, 1, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42], false)),
    ("says the same again", |o, r| {
        let same = if let TcpRequest::Send { bytes, .. } = r { bytes.clone() } else { Vec::new() };
        at_peer(o, r, &same, false)
    }),
];

/// The server is honest; the peer takes connections and answers the check with this, or ends them.
fn at_peer(outside: &mut Outside, request: &TcpRequest, words: &[u8], ends: bool) -> Vec<Arrives> {
    let (stream, is_check) = match request {
        TcpRequest::Connect { stream, .. } => (*stream, false),
        TcpRequest::Send { stream, .. } => (*stream, true),
        _ => return Vec::new(),
    };
    if outside.streams.get(&stream) != Some(&addr(PEER)) {
        return takes(outside, request);
    }
    match (ends, is_check) {
        (false, false) => vec![Arrives::Connected(stream)],
        (false, true) => vec![Arrives::Bytes(stream, words.to_vec())],
        (true, false) => vec![Arrives::Connected(stream), Arrives::Failed(stream)],
        (true, true) => vec![Arrives::Failed(stream)],
    }
}

#[test]
fn a_connector_gives_a_hostile_peer_up_after_its_time() {
    for (name, conduct) in CONDUCTS {
        let mut victim = Victim::new();
        victim.outside.tcp = *conduct;
        let session = victim.connect(Transport::Tcp);
        victim.run(SECOND * 29);
        assert!(victim.pending.contains(&session), "{name}");
        victim.run(SECOND * 2);
        let is_it =
            |event: &PeerEvent| matches!(event, PeerEvent::Failed { error, .. } if error.kind() == ErrorKind::Timeout);
        assert!(victim.any(is_it), "{name}");
        assert!(victim.most_descriptors <= DESCRIPTORS, "{name}: {}", victim.most_descriptors);
        let most = victim.connects.values().max().copied().unwrap_or_default();
        println!("{name}: {most} connects");
        victim.outside.be_honest();
        let session = victim.connect(Transport::Tcp);
        victim.run(SECOND);
        assert!(victim.is_connected(session), "{name}: meets nobody any more");
        victim.assert_rests();
    }
}
