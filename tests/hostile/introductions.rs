//! A hostile server that introduces whom it likes, as often as it likes, and whoever has read its listener's key.

use crate::{
    outside::{PEER, SEEN, SERVER, candidates, over_tcp, silent, the_peer},
    server::NO_ADDRESSES,
    victim::Victim,
};
use holepunch::{
    peer::{PeerEvent, Transport},
    wire::stun::{CandidateKind, Class, Method, SessionId, Transports, WireCandidate},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const VICTIM: &str = "198.18.0.9:9";
const KINDS: [CandidateKind; 4] = [
    CandidateKind::Host,
    CandidateKind::ServerReflexiveObserved,
    CandidateKind::ServerReflexiveClaimed,
    CandidateKind::Relay,
];

fn listening() -> Victim {
    let mut victim = Victim::listening();
    victim.outside.peer = silent;
    victim
}

/// An introduction with this number, by whoever knows the key.
fn introduction(victim: &mut Victim, session: SessionId, sequence: u64, told: &[WireCandidate]) -> Vec<u8> {
    let key = victim.outside.registration.1;
    let builder = victim.outside.begin_introduction(session, Transport::Udp, sequence);
    builder.candidates(told).integrity_sha256(&key).fingerprint().finish()
}

/// A session of this number.
fn session(number: u16) -> SessionId {
    let mut session = SessionId([0xee; 16]);
    session.0[..2].copy_from_slice(&number.to_be_bytes());
    session
}

fn introduced(victim: &Victim) -> usize {
    victim.events.iter().filter(|(_, event)| matches!(event, PeerEvent::Introduced { .. })).count()
}

fn is_met_again(mut victim: Victim) {
    assert!(victim.meets_honest_peer(200, Transport::Udp));
    victim.assert_rests();
}

#[test]
fn of_a_thousand_sessions_64_are_begun_and_they_make_room() {
    let mut victim = listening();
    for number in 0..1000 {
        let told = candidates(CandidateKind::ServerReflexiveObserved, VICTIM, 16);
        let message = introduction(&mut victim, session(number), u64::from(number) + 1, &told);
        victim.arrive(SERVER, &message);
        victim.run(Duration::from_millis(5));
    }
    victim.outside.sequence = 1000;
    assert_eq!((introduced(&victim), victim.most_pending), (64, 64));
    victim.run(SECOND * 5);
    assert_eq!(victim.total().0, 64 * 16 * 12);
    is_met_again(victim);
}

#[test]
fn streams_have_a_limit_of_their_own_and_leave_room_for_datagrams() {
    let mut victim = listening();
    for number in 1..=100 {
        victim.introduce(number, Transport::Tcp, &over_tcp(the_peer()));
    }
    assert_eq!(victim.most_pending, 16);
    for number in 101..=199 {
        victim.introduce(number, Transport::Udp, &the_peer());
    }
    assert_eq!(victim.most_pending, 64);
    victim.run(SECOND * 11);
    // A stream takes the place of a stream.
    victim.introduce(201, Transport::Tcp, &over_tcp(the_peer()));
    let streams = victim.pending.iter().filter(|session| session.0[0] <= 100 || session.0[0] == 201).count();
    assert_eq!((streams, victim.most_pending), (16, 64));
    is_met_again(victim);
}

#[test]
fn one_session_introduced_for_ever_is_worth_twice_its_checks() {
    let mut victim = listening();
    for number in 0..2000 {
        let told = candidates(CandidateKind::ServerReflexiveObserved, &format!("198.18.0.9:{}", 1 + number * 16), 16);
        let message = introduction(&mut victim, session(1), number + 1, &told);
        victim.arrive(SERVER, &message);
        victim.run(Duration::from_millis(10));
    }
    victim.outside.sequence = 2000;
    victim.run(HALF_A_MINUTE);
    assert_eq!((introduced(&victim), victim.sent.len()), (1, 32));
    assert!(victim.total().0 <= 2 * 384, "{:?}", victim.total());
    is_met_again(victim);
}

#[test]
fn numbers_are_good_once_and_those_of_the_future_keep_nobody_away() {
    let mut victim = listening();
    let old = introduction(&mut victim, session(1), 1, &the_peer());
    for (sequence, expected) in
        [(1, 1), (1, 1), (0, 1), (2, 2), (u64::MAX - 1, 3), (u64::MAX, 4), (u64::MAX, 4), (3, 4)]
    {
        let message = introduction(&mut victim, session(sequence as u16), sequence, &the_peer());
        victim.arrive(SERVER, &message);
        assert_eq!(introduced(&victim), expected, "{sequence}");
    }
    let key = victim.outside.registration.1;
    victim.run(HALF_A_MINUTE);
    assert_eq!(victim.outside.registration.1, key);
    // One of the time before: a fresh key is drawn, and nothing that was signed before is of use.
    for _ in 0..1000 {
        victim.arrive(SERVER, &old);
        victim.run(Duration::from_millis(10));
    }
    assert_ne!(victim.outside.registration.1, key);
    let said = victim.to_server;
    for _ in 0..1000 {
        victim.arrive(SERVER, &old);
    }
    victim.run(SECOND);
    assert_eq!((victim.to_server, introduced(&victim)), (said, 4));
    is_met_again(victim);
}

#[test]
fn nothing_is_sent_to_what_is_no_hosts_address() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut victim = listening();
        let all = KINDS.iter().flat_map(|kind| NO_ADDRESSES.iter().flat_map(|none| candidates(*kind, none, 1)));
        let all: Vec<_> = all.flat_map(|it| [vec![it], over_tcp(vec![it])].concat()).collect();
        for told in all.chunks(16) {
            victim.introduce(1, transport, told);
            victim.run(Duration::from_millis(100));
        }
        victim.run(HALF_A_MINUTE);
        let sent: Vec<_> = victim.sent.keys().chain(victim.connects.keys()).collect();
        assert_eq!((introduced(&victim), sent), (1, vec![]));
        is_met_again(victim);
    }
}

#[test]
fn who_knows_the_key_and_is_not_the_server_introduces_nobody() {
    let mut victim = listening();
    for (source, number) in [PEER, SEEN, VICTIM, "192.0.2.1:20002", "[::1]:20000"].iter().zip(1..) {
        let message = introduction(&mut victim, session(number), number.into(), &the_peer());
        victim.arrive(source, &message);
    }
    assert_eq!((introduced(&victim), victim.total()), (0, (0, 0)));
    is_met_again(victim);
}

/// What a TRICKLE of no session, a transport of no kind and a key of no use do.
#[test]
fn introductions_of_nothing_are_nothing() {
    let mut victim = listening();
    let key = victim.outside.registration.1;
    for number in 0..100_u16 {
        let begin = victim.outside.begin_introduction(session(number), Transport::Udp, u64::from(number) + 1);
        let transports = Transports { udp: false, tcp: false };
        let message = begin.transports(transports).integrity_sha256(&key).fingerprint().finish();
        victim.arrive(SERVER, &message);
        let mut keys = victim.outside.sessions.values().next().expect("introduced").clone();
        keys.session = session(1000);
        let trickle = keys.control(Class::Request, Method::TRICKLE, 1, 0).sequence(1).candidates(&the_peer());
        victim.arrive(SERVER, &keys.signed(trickle));
    }
    victim.outside.sequence = 100;
    assert_eq!(victim.total(), (0, 0));
    victim.run(SECOND * 11);
    is_met_again(victim);
}
