//! A hostile peer over UDP: introduced rightly, it holds the keys of its session, and can say that it is anywhere.

use crate::{
    outside::{Keys, PEER, SERVER, candidates, silent, transaction},
    server::NO_ADDRESSES,
    victim::Victim,
};
use holepunch::{
    ErrorKind,
    machine::{Disposition, Input},
    peer::{CloseReason, PeerEvent, Transport},
    wire::stun::{AttributeType, Builder, CandidateKind, Class, Method, WireCandidate},
};
use std::{net::SocketAddr, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const CHECKS: usize = 12;
const ELSEWHERE: &str = "198.18.0.9:9";

/// A listener with one session, whose peer has said nothing yet.
fn introduced() -> (Victim, Keys) {
    let mut victim = Victim::listening();
    victim.outside.peer = silent;
    victim.introduce(1, Transport::Udp, &candidates(CandidateKind::ServerReflexiveObserved, PEER, 1));
    let keys = victim.outside.keys(1);
    (victim, keys)
}

fn connected() -> (Victim, Keys) {
    let (mut victim, keys) = introduced();
    victim.outside.be_honest();
    victim.run(SECOND);
    assert!(victim.is_connected(keys.session));
    (victim, keys)
}

impl Victim {
    fn sent_to(&self, address: &str) -> usize {
        self.sent.get(&address.parse().unwrap()).map_or(0, |(count, _)| *count)
    }

    fn count(&self, is_it: impl Fn(&PeerEvent) -> bool) -> usize {
        self.events.iter().filter(|(_, event)| is_it(event)).count()
    }

    /// Whether data from there is the session's.
    fn takes_data_from(&mut self, remote: &str) -> bool {
        let (remote, local): (SocketAddr, SocketAddr) = (remote.parse().unwrap(), "10.0.1.2:5000".parse().unwrap());
        let input = Input::Datagram { socket: self.socket, local, remote, payload: b"data" };
        matches!(self.peer.handle_input(self.now, input), Disposition::Data(_))
    }
}

const fn is_connected(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Connected { .. })
}

const fn is_closed(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Closed { .. })
}

/// Each is answered and answered with a check, and the first one at each of 64 addresses is worth twelve more.
#[test]
fn checks_from_everywhere_are_worth_less_than_twice_what_they_cost() {
    let (mut victim, keys) = introduced();
    const TIMES: u64 = 5;
    let sources: Vec<_> = (0..300).map(|number| format!("198.18.{}.1:{}", number / 100, 1000 + number)).collect();
    for time in 0..TIMES {
        for (source, number) in sources.iter().zip(0..) {
            let check = keys.begin_check(transaction(time << 32 | number), true, 7);
            victim.arrive(source, &keys.sign(check));
        }
        victim.run(Duration::from_millis(20));
    }
    victim.run(HALF_A_MINUTE);
    let times = TIMES as usize;
    let counts: Vec<_> = sources.iter().map(|source| victim.sent_to(source)).collect();
    assert_eq!(counts.iter().filter(|count| **count > times).count(), 63, "of 64 pairs one is its own");
    assert!(counts.iter().all(|count| (times..=times + CHECKS + times).contains(count)), "{counts:?}");
    assert!(victim.meets_honest_peer(200, Transport::Udp));
    victim.assert_rests();
}

#[test]
fn role_conflicts_for_ever_are_answered_and_end() {
    const CONFLICTS: usize = 20_000;
    for before in [true, false] {
        let (mut victim, keys) = if before { introduced() } else { connected() };
        victim.outside.peer = silent;
        let sent = victim.sent_to(PEER);
        for number in 0..CONFLICTS {
            // The one with the greater number controls: whichever role it has, it must take the other.
            let controls = number % 2 == 1;
            let check = keys.begin_check(transaction(number as u64), controls, if controls { u64::MAX } else { 0 });
            victim.arrive(PEER, &keys.sign(check));
            victim.run(Duration::from_millis(1));
        }
        assert!(victim.sent_to(PEER) - sent <= 2 * CONFLICTS + 2 * CHECKS, "{}", victim.sent_to(PEER));
        victim.run(HALF_A_MINUTE);
        let lost = |event: &PeerEvent| matches!(event, PeerEvent::Closed { reason: CloseReason::Lost, .. });
        let failed = |event: &PeerEvent| matches!(event, PeerEvent::Failed { .. });
        assert!(if before { victim.any(failed) } else { victim.any(lost) });
        assert!(victim.meets_honest_peer(200, Transport::Udp));
        victim.assert_rests();
    }
}

#[test]
fn many_nominations_make_one_connection() {
    let (mut victim, keys) = introduced();
    victim.outside.be_honest();
    for port in 7000..7100 {
        victim.arrive(&format!("203.0.113.5:{port}"), &keys.check(port));
    }
    victim.run(SECOND * 10);
    for port in 7000..7100 {
        victim.arrive(&format!("203.0.113.5:{port}"), &keys.check(1000 + port));
        victim.run(Duration::from_millis(10));
    }
    assert_eq!(victim.count(is_connected), 1);
    assert!(!victim.any(|event| matches!(event, PeerEvent::Moved { .. })));
    victim.assert_rests();
}

#[test]
fn a_wrong_password_is_refused_twelve_times_and_a_wrong_name_never() {
    let (mut victim, keys) = introduced();
    victim.run(SECOND * 3);
    let mut guessing = keys.clone();
    guessing.victim.password = "a guess".into();
    let mut nameless = guessing.clone();
    nameless.peer.ufrag = "AAAAAAAA".into();
    for number in 0..1000 {
        let source = format!("198.18.0.1:{}", 1000 + number % 7);
        victim.arrive(&source, &guessing.check(number));
        victim.arrive(ELSEWHERE, &nameless.check(number));
    }
    victim.run(SECOND);
    let refusals = victim.sent.iter().filter(|(address, _)| address.ip().to_string() == "198.18.0.1");
    let (count, bytes) = refusals.fold((0, 0), |all, (_, each)| (all.0 + each.0, all.1 + each.1));
    assert_eq!((count, bytes, victim.sent_to(ELSEWHERE)), (12, 12 * 52, 0));
    victim.outside.be_honest();
    victim.arrive(PEER, &keys.check(1));
    victim.run(SECOND);
    assert!(victim.is_connected(keys.session), "a listener does not end for it");
    victim.assert_rests();
}

/// Whoever can read, and say everything again, from there and from elsewhere.
#[test]
fn what_is_said_again_changes_nothing() {
    let (mut victim, keys) = connected();
    let (said, events) = (victim.arrived.clone(), victim.events.len());
    let before = victim.sent_to(PEER);
    for _ in 0..50 {
        for message in &said {
            for source in [PEER, ELSEWHERE, SERVER] {
                victim.arrive(source, message);
            }
        }
        victim.run(Duration::from_millis(100));
    }
    assert_eq!(victim.events.len(), events, "{:?}", &victim.events[events..]);
    let copies = 50 * said.len();
    // An answer to each check; consent checks to the peer alone.
    assert!(victim.sent_to(ELSEWHERE) <= copies, "{}", victim.sent_to(ELSEWHERE));
    assert!(victim.sent_to(PEER) - before <= copies + 10);
    assert!(victim.takes_data_from(PEER));
    assert!(victim.is_connected(keys.session));
    victim.assert_rests();
}

#[test]
fn an_end_is_believed_when_it_is_the_peers_and_told_once() {
    let (mut victim, keys) = connected();
    let end = |keys: &Keys, number, flags| keys.signed(keys.control(Class::Request, Method::END, number, flags));
    let (mut forged, mut of_another) = (keys.clone(), keys.clone());
    forged.control = [1; 32];
    of_another.session.0[0] ^= 1;
    let own_role = Builder::new(Class::Request, Method::END, transaction(3)).session_id(keys.session).flags(1);
    let unsigned = keys.control(Class::Request, Method::END, 4, 1).fingerprint().finish();
    let before = victim.sent_to(PEER);
    for message in [end(&forged, 1, 1), end(&of_another, 2, 1), keys.signed(own_role), unsigned] {
        for source in [PEER, ELSEWHERE] {
            victim.arrive(source, &message);
        }
    }
    // Acknowledgements of what was never said.
    for number in 0..100 {
        victim.arrive(PEER, &keys.signed(keys.control(Class::Success, Method::END, number, 0)));
    }
    assert_eq!((victim.sent_to(PEER), victim.sent_to(ELSEWHERE), victim.count(is_closed)), (before, 0, 0));
    for number in 0..1000 {
        victim.arrive(PEER, &end(&keys, number, (number & 1) as u32));
    }
    assert_eq!((victim.sent_to(PEER) - before, victim.count(is_closed)), (1000, 1));
    victim.run(SECOND * 4);
    victim.arrive(PEER, &end(&keys, 1, 1));
    assert_eq!(victim.sent_to(PEER) - before, 1000, "the session is forgotten");
    assert_eq!(victim.count(|event| matches!(event, PeerEvent::PeerEnded { .. })), 1);
    assert!(victim.meets_honest_peer(200, Transport::Udp));
    victim.assert_rests();
}

#[test]
fn bare_out_of_order_does_nothing_and_is_acknowledged_four_times() {
    let bare = |keys: &Keys, class, number| keys.signed(keys.control(class, Method::BARE, number, 0));
    let (mut victim, keys) = introduced();
    victim.run(SECOND * 3);
    let before = victim.sent_to(PEER);
    for number in 0..100 {
        victim.arrive(PEER, &bare(&keys, Class::Request, number));
        victim.arrive(PEER, &bare(&keys, Class::Success, number));
    }
    assert_eq!(victim.sent_to(PEER), before, "it is not connected");
    let (mut victim, keys) = connected();
    let (before, events) = (victim.sent_to(PEER), victim.events.len());
    for number in 0..100 {
        victim.arrive(PEER, &bare(&keys, Class::Success, number));
    }
    assert_eq!(victim.events.len(), events, "nobody has asked for it");
    for number in 0..200 {
        victim.arrive(PEER, &bare(&keys, Class::Request, number % 100));
    }
    assert_eq!(victim.sent_to(PEER) - before, 4);
    assert_eq!(victim.events.len(), events + 1, "it is told once");
    // What comes after it: nothing is answered any more.
    victim.arrive(PEER, &keys.check(9));
    victim.run(SECOND * 60);
    assert_eq!(victim.sent_to(PEER) - before, 4);
    victim.assert_rests();
}

/// Each is acknowledged through the server, and of all that it tells few are tried.
#[test]
fn trickle_for_ever_is_worth_no_more_than_one_introduction() {
    for source in [SERVER, PEER] {
        let (mut victim, keys) = introduced();
        let before = victim.to_server;
        for number in 0..2000_u16 {
            let kind = [
                CandidateKind::Host,
                CandidateKind::ServerReflexiveObserved,
                CandidateKind::ServerReflexiveClaimed,
                CandidateKind::Relay,
            ][usize::from(number % 4)];
            let mut told: Vec<WireCandidate> = Vec::new();
            for address in [format!("198.18.{}.1:{}", number % 200, 1 + number), format!("10.9.{}.1:9", number % 200)] {
                told.extend(candidates(kind, &address, 1));
            }
            let none = NO_ADDRESSES[usize::from(number) % NO_ADDRESSES.len()];
            told.extend(candidates(kind, none, 1));
            let trickle = keys
                .control(Class::Request, Method::TRICKLE, number.into(), 0)
                .attribute(AttributeType::ROUTE, &[7; 44])
                .sequence(u64::MAX - u64::from(number))
                .candidates(&told);
            victim.arrive(source, &keys.signed(trickle));
            victim.run(Duration::from_millis(1));
        }
        victim.run(HALF_A_MINUTE);
        let to = |is_it: &dyn Fn(&SocketAddr) -> bool| {
            let there = victim.sent.iter().filter(|(address, _)| is_it(address));
            there.map(|(_, (count, _))| *count).collect::<Vec<_>>()
        };
        assert_eq!(to(&|address| address.ip().to_string().starts_with("198.18.")), [2, 2], "public addresses");
        let private = to(&|address| address.ip().to_string().starts_with("10.9."));
        assert!(private.len() <= 32 && private.iter().all(|count| *count <= CHECKS), "{private:?}");
        assert!(to(&|address| NO_ADDRESSES.contains(&address.to_string().as_str())).is_empty());
        assert!(victim.total().0 <= 384, "{:?}", victim.total());
        assert!(victim.to_server - before <= 2000 + 5, "{}", victim.to_server - before);
        assert!(victim.meets_honest_peer(200, Transport::Udp));
        victim.assert_rests();
    }
}

/// A connector's peer can say all of this too; and that it has another secret.
#[test]
fn a_connector_ends_for_a_wrong_secret_and_only_before_it_was_met() {
    for met in [false, true] {
        let mut victim = Victim::new();
        victim.outside.peer = silent;
        let session = victim.connect(Transport::Udp);
        victim.run(Duration::from_millis(100));
        let keys = victim.outside.keys(1);
        if met {
            victim.outside.be_honest();
            victim.run(SECOND);
        }
        let mut guessing = keys.clone();
        guessing.victim.password = "a guess".into();
        for number in 0..100 {
            victim.arrive(PEER, &guessing.check(number));
            let trickle = Builder::new(Class::Request, Method::TRICKLE, transaction(number)).session_id(session);
            victim.arrive(SERVER, &trickle.sequence(1).integrity_sha256(&[1; 32]).fingerprint().finish());
        }
        victim.run(SECOND);
        let failed = |event: &PeerEvent| match event {
            PeerEvent::Failed { error, .. } => error.kind() == ErrorKind::WrongSecret,
            _ => false,
        };
        assert_eq!((victim.count(failed), victim.is_connected(session)), (usize::from(!met), met));
        victim.assert_rests();
    }
}
