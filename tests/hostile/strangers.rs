//! What strangers can make a listener send, counted: the numbers that `SECURITY.md` states. The server is honest, and
//! introduces connectors that name as many addresses as they may.

use crate::{
    outside::{Outside, SERVER, addr, candidates as from, over_tcp, refuses, silent, takes, the_peer},
    victim::{Arrives, Victim},
};
use holepunch::{
    machine::TcpRequest,
    peer::Transport::{Tcp, Udp},
    wire::stun::{
        AttributeType, Builder,
        CandidateKind::{self, ServerReflexiveClaimed, ServerReflexiveObserved},
        Class, Method, SessionId, TransactionId, WireCandidate,
    },
};
use std::{ops::Range, time::Duration};

/// Bytes of a check of a controlled side: header, USERNAME, PRIORITY, ICE-CONTROLLED, MESSAGE-INTEGRITY, FINGERPRINT.
const CHECK: usize = 20 + 24 + 8 + 12 + 24 + 8;

/// A listener that nobody but its server answers.
fn listening() -> Victim {
    let mut listening = Victim::listening();
    listening.outside.peer = silent;
    listening
}

fn candidates(kind: CandidateKind, ip: &str, ports: Range<u16>) -> Vec<WireCandidate> {
    from(kind, &format!("{ip}:{}", ports.start), ports.end - ports.start)
}

fn run(listening: &mut Victim, time: Duration) -> (usize, usize) {
    listening.run(time);
    listening.total()
}

const HALF_A_MINUTE: Duration = Duration::from_secs(30);

#[test]
fn who_is_not_introduced_gets_nothing() {
    let mut listening = listening();
    let binding = Builder::new(Class::Request, Method::BINDING, TransactionId([1; 12]));
    let check = binding.clone().string(AttributeType::USERNAME, "AAAAAAAA:BBBBBBBB").integrity(b"guess");
    let end = Builder::new(Class::Request, Method::END, TransactionId([1; 12])).session_id(SessionId([1; 16]));
    for message in [
        binding.finish(),
        check.fingerprint().finish(),
        end.integrity_sha256(&[0; 32]).fingerprint().finish(),
        vec![7; 1200],
    ] {
        listening.arrive("203.0.113.5:7000", &message);
    }
    assert_eq!(run(&mut listening, HALF_A_MINUTE), (0, 0));
}

#[test]
fn an_observed_address_gets_twelve_checks_and_a_claimed_public_one_two() {
    let mut listening = listening();
    let mut told = candidates(ServerReflexiveObserved, "203.0.113.5", 7000..7001);
    told.extend(candidates(ServerReflexiveClaimed, "198.18.0.1", 53..56));
    told.extend(candidates(CandidateKind::Host, "192.168.0.1", 53..54));
    listening.introduce(1, Udp, &told);
    listening.run(HALF_A_MINUTE);
    let counts = listening.sent.iter().map(|(address, (count, bytes))| (address.to_string(), *count, bytes / count));
    let expected = [("192.168.0.1:53", 12), ("198.18.0.1:53", 2), ("198.18.0.1:54", 2), ("203.0.113.5:7000", 12)];
    let expected = expected.map(|(address, count)| (address.to_owned(), count, CHECK));
    assert_eq!(counts.collect::<Vec<_>>(), expected);
}

#[test]
fn an_observed_address_gets_one_more_check_for_each_further_introduction_and_twelve_at_most() {
    let mut listening = listening();
    let mut told = candidates(ServerReflexiveObserved, "203.0.113.5", 7000..7001);
    told.extend(candidates(ServerReflexiveClaimed, "198.18.0.1", 53..54));
    for (times, expected) in [(1, 12), (1, 13), (1, 14), (20, 24), (20, 24)] {
        for _ in 0..times {
            listening.introduce(1, Udp, &told);
            listening.run(Duration::from_millis(200));
        }
        listening.run(Duration::from_secs(3));
        assert_eq!(listening.sent[&addr("203.0.113.5:7000")], (expected, expected * CHECK));
        assert_eq!(listening.sent[&addr("198.18.0.1:53")].0, 2, "what is only claimed gets no more");
    }
}

fn refuses_all(_: &mut Outside, request: &TcpRequest) -> Vec<Arrives> {
    match request {
        TcpRequest::Connect { stream, .. } => vec![Arrives::Failed(*stream)],
        _ => Vec::new(),
    }
}

fn only_server_takes(outside: &mut Outside, request: &TcpRequest) -> Vec<Arrives> {
    match request {
        TcpRequest::Connect { remote, .. } if *remote != addr(SERVER) => Vec::new(),
        _ => takes(outside, request),
    }
}

/// What a stranger at 203.0.113.5 may say: ports of its own host, of a victim's, and of one in the listener's network.
fn told_for_streams() -> Vec<WireCandidate> {
    let mut told = candidates(ServerReflexiveObserved, "203.0.113.5", 7000..7001);
    for (ip, ports) in [("203.0.113.5", 7000..7006), ("198.18.0.1", 53..56), ("192.168.0.1", 53..59)] {
        let claimed = candidates(ServerReflexiveClaimed, ip, ports);
        told.extend(over_tcp(claimed));
    }
    told
}

#[test]
fn a_stream_costs_a_third_party_four_connects_a_session() {
    for refused in [false, true] {
        let mut listening = listening();
        listening.outside.tcp = if refused { refuses_all } else { refuses };
        listening.introduce(1, Tcp, &told_for_streams());
        listening.run(HALF_A_MINUTE);
        let to = |ip: &str| {
            let there = listening.connects.iter().filter(|(address, _)| address.ip().to_string() == ip);
            there.map(|(_, count)| *count).collect::<Vec<_>>()
        };
        assert_eq!(to("198.18.0.1"), [2, 2], "a victim's");
        let (private, own) = (to("192.168.0.1"), to("203.0.113.5"));
        assert_eq!((private.len(), own.len()), (6, 6), "all are tried");
        assert!(private.iter().max() <= Some(&if refused { 30 } else { 20 }), "{private:?}");
        assert!(own.iter().max() <= Some(&if refused { 300 } else { 20 }), "{own:?}");
        // They take turns where there are more than may be tried at a time.
        assert!(private.iter().chain(&own).min() >= Some(&5), "{private:?} {own:?}");
        assert!(listening.most_under_way <= 8);
    }
}

/// An address that is alone gets the most, where TRICKLE shows that the peer is near. A connector, which is told by its
/// server only, is the more eager of the two.
#[test]
fn an_address_that_refuses_gets_some_hundred_connects_and_one_that_is_silent_some_fifty() {
    for (connects, refused, most) in [(false, false, 50), (true, false, 50), (false, true, 300), (true, true, 520)] {
        let mut victim = if connects { Victim::new() } else { listening() };
        victim.outside.peer = silent;
        victim.outside.tcp = if refused { refuses_all } else { only_server_takes };
        if connects {
            victim.connect(Tcp);
        } else {
            victim.introduce(1, Tcp, &the_peer());
        }
        victim.run(HALF_A_MINUTE);
        let counts: Vec<_> = victim.connects.values().copied().collect();
        println!("connects: {connects}, refused: {refused}: {counts:?}");
        assert_eq!(counts.len(), 1);
        assert!((most / 2..=most).contains(&counts[0]), "{counts:?} and not {most}");
    }
}

/// A port, a connection to the server, connects, and whoever connects; each as often as there are sessions. (Here there
/// is IPv4 alone; IPv6 is one port and one connection to the server more.)
#[test]
fn all_streams_at_once_are_so_many_descriptors() {
    let mut listening = listening();
    listening.outside.tcp = only_server_takes;
    for session in 1..=100 {
        listening.introduce(session, Tcp, &told_for_streams());
        for number in 0..5 {
            listening.accept(&format!("203.0.113.{session}:{}", 1000 + number));
        }
    }
    for number in 0..30 {
        listening.accept(&format!("203.0.113.200:{}", 1000 + number));
    }
    listening.run(HALF_A_MINUTE - Duration::from_millis(1));
    assert_eq!((listening.most_pending, listening.most_under_way), (16, 16 * 8));
    // One that is accepted is one until it is turned away.
    assert_eq!(listening.most_descriptors, 16 * (1 + 1 + 8 + 16) + 1);
    listening.assert_rests();
}

/// A port that was chosen by number serves one stream at a time while it is looked for: a stranger that says nothing has
/// it for 10 s.
#[test]
fn a_port_that_was_chosen_by_number_is_busy_for_ten_seconds() {
    let mut listening = Victim::listening_at("0.0.0.0:5000");
    listening.outside.peer = silent;
    listening.introduce(1, Tcp, &candidates(ServerReflexiveObserved, "203.0.113.9", 7000..7001));
    let begin = listening.now;
    assert!(listening.meets_honest_peer(2, Tcp));
    let took = listening.now - begin;
    assert!((10_000..10_500).contains(&took.as_millis()), "{took:?}");
    assert_eq!(listening.most_pending, 1);
    listening.assert_rests();
}

#[test]
fn one_session_costs_at_most_384_checks_and_a_listener_has_64_at_once() {
    let mut listening = listening();
    let observed = ServerReflexiveObserved;
    for session in 1..=100 {
        for ports in [7000..7016, 7016..7032, 7032..7048] {
            listening.introduce(session, Udp, &candidates(observed, "203.0.113.5", ports));
        }
    }
    let expected = 64 * 32 * 12;
    assert_eq!(run(&mut listening, HALF_A_MINUTE - Duration::from_millis(1)), (expected, expected * CHECK));
    assert_eq!((expected, expected * CHECK), (24_576, 2_359_296));
}

#[test]
fn a_third_party_gets_four_checks_a_session() {
    let mut listening = listening();
    for session in 1..=100 {
        listening.introduce(session, Udp, &candidates(ServerReflexiveClaimed, "198.18.0.1", 1..17));
    }
    assert_eq!(run(&mut listening, HALF_A_MINUTE - Duration::from_millis(1)), (256, 256 * CHECK));
}
