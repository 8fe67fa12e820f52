//! An agent in virtual time: alone, against messages made by hand, and against another agent.

use alloc::{collections::BTreeMap, format, vec, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use super::{Agent, AgentEvent, Candidate, CandidateKind, Provenance, Received, Role, SelectedPair};
use crate::{
    config::{Checks, Consent},
    machine::{Instant, SocketId, Transmit},
    wire::stun::{AttributeType, Builder, Class, Credentials, ErrorCode, Integrity, Message, Method, TransactionId},
};

const SOCKET: SocketId = SocketId(4);
const SOCKET_6: SocketId = SocketId(6);
const PASSWORDS: [&str; 2] = ["the password of side 0", "the password of side 1"];
const ADDRESSES: [&str; 2] = ["192.0.2.1:1000", "192.0.2.2:2000"];
const ADDRESSES_6: [&str; 2] = ["[2001:db8::1]:1000", "[2001:db8::2]:2000"];

fn ms(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn millis(time: Instant) -> u64 {
    time.as_nanos() / 1_000_000
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn credentials(side: usize) -> Credentials {
    Credentials { ufrag: format!("ufrag-{side}"), password: PASSWORDS[side].into() }
}

fn agent(side: usize, role: Role, seed: u8) -> Agent {
    let (own, other) = (credentials(side), credentials(1 - side));
    Agent::new(Checks::default(), Consent::default(), role, own, other, [seed; 32])
}

/// Side 0 with a socket of IPv4 that is told these addresses of the peer.
fn alone(role: Role, remotes: &[(&str, CandidateKind, Provenance)]) -> Agent {
    let mut agent = agent(0, role, 1);
    agent.add_socket(ms(0), SOCKET, address(ADDRESSES[0]));
    for (remote, kind, provenance) in remotes {
        agent.add_remote(ms(0), Candidate::new(*kind, address(remote), *provenance));
    }
    agent
}

fn sent(agent: &mut Agent) -> Vec<Transmit> {
    core::iter::from_fn(|| agent.poll_transmit()).collect()
}

/// Everything that an agent sends when nobody answers, with its time in milliseconds.
fn sent_into_silence(agent: &mut Agent) -> Vec<(u64, SocketAddr)> {
    sent_between(agent, 0, u64::MAX)
}

/// The same from one time on until before another.
fn sent_between(agent: &mut Agent, from: u64, until: u64) -> Vec<(u64, SocketAddr)> {
    let mut all = Vec::new();
    let mut now = ms(from);
    loop {
        agent.handle_timeout(now);
        all.extend(sent(agent).into_iter().map(|transmit| (millis(now), transmit.destination)));
        match agent.next_timeout() {
            Some(next) if millis(next) < until => {
                assert!(next > now, "it wants to be called again at once");
                now = next;
            }
            _ => return all,
        }
    }
}

fn count(all: &[(u64, SocketAddr)], to: &str) -> usize {
    all.iter().filter(|(_, destination)| *destination == address(to)).count()
}

/// A check by side 1.
fn check(nominating: bool) -> Vec<u8> {
    check_as(AttributeType::ICE_CONTROLLED, nominating)
}

/// The same in a role.
fn check_as(role: AttributeType, nominating: bool) -> Vec<u8> {
    let builder = Builder::new(Class::Request, Method::BINDING, TransactionId([9; 12]))
        .string(AttributeType::USERNAME, "ufrag-0:ufrag-1")
        .u32(AttributeType::PRIORITY, 1234)
        .u64(role, 7);
    let builder = if nominating { builder.flag(AttributeType::USE_CANDIDATE) } else { builder };
    builder.integrity(PASSWORDS[0].as_bytes()).fingerprint().finish()
}

/// The answer of side 1 to a check.
fn answer(transmit: &Transmit, error: Option<u16>) -> Vec<u8> {
    let request = Message::parse(&transmit.payload).unwrap();
    let class = if error.is_some() { Class::Error } else { Class::Success };
    let builder = Builder::new(class, Method::BINDING, request.transaction_id());
    let builder = match error {
        Some(code) => builder.error_code(code, ""),
        None => builder.xor_address(AttributeType::XOR_MAPPED_ADDRESS, address(ADDRESSES[0])),
    };
    builder.integrity(PASSWORDS[1].as_bytes()).fingerprint().finish()
}

fn arrive(agent: &mut Agent, now: Instant, from: &str, bytes: &[u8]) -> Received {
    agent.handle_datagram(now, SOCKET, address(ADDRESSES[0]), address(from), bytes)
}

fn is_nominating(transmit: &Transmit) -> bool {
    let message = Message::parse(&transmit.payload).unwrap();
    message.class() == Class::Request && message.use_candidate()
}

fn class(transmit: &Transmit) -> Class {
    Message::parse(&transmit.payload).unwrap().class()
}

const OBSERVED: Provenance = Provenance::Observed;
const CLAIMED: Provenance = Provenance::Claimed;

#[test]
fn first_checks_leave_in_a_burst_the_likeliest_first_and_then_at_the_pace() {
    let mut agent = alone(Role::Controlling, &[]);
    agent.add_socket(ms(0), SOCKET_6, address(ADDRESSES_6[0]));
    let remote = |number: u16| SocketAddr::new([198, 51, 100, 1].into(), number);
    // Told in no order.
    for number in [3, 1, 4, 15, 9, 2, 6, 5, 8, 7, 14, 13, 10, 11, 12] {
        let candidate = Candidate::new(CandidateKind::ServerReflexive, remote(number), OBSERVED);
        agent.add_remote(ms(0), candidate.with_priority(1_000_000 - u32::from(number)));
    }
    agent.add_remote(ms(0), Candidate::new(CandidateKind::Host, address("10.0.0.9:1"), CLAIMED));
    agent.add_remote(ms(0), Candidate::new(CandidateKind::Host, address(ADDRESSES_6[1]), CLAIMED));
    agent.handle_timeout(ms(0));
    let burst = sent(&mut agent);
    let mut expected = vec![address(ADDRESSES_6[1]), address("10.0.0.9:1")];
    expected.extend((1..=8).map(remote));
    assert_eq!(burst.iter().map(|transmit| transmit.destination).collect::<Vec<_>>(), expected);
    assert_eq!((burst[0].socket, burst[1].socket), (SOCKET_6, SOCKET));
    for turn in 1..=20 {
        assert_eq!(agent.next_timeout(), Some(ms(5 * turn)));
        agent.handle_timeout(ms(5 * turn));
        assert_eq!(sent(&mut agent).len(), 1, "one each 5 ms");
    }
}

#[test]
fn an_unanswered_check_is_repeated_as_configured_and_given_up() {
    let mut agent = alone(Role::Controlled, &[(ADDRESSES[1], CandidateKind::ServerReflexive, OBSERVED)]);
    let times: Vec<_> = sent_into_silence(&mut agent).into_iter().map(|(time, _)| time).collect();
    assert_eq!(times, [0, 5, 15, 35, 55, 75, 115, 195, 355, 675, 1315, 2315]);
    assert_eq!(agent.packets_sent(), 12);
}

#[test]
fn a_peer_that_is_introduced_again_is_checked_at_once_where_checks_are_rare_by_then() {
    let candidate = Candidate::new(CandidateKind::ServerReflexive, address(ADDRESSES[1]), OBSERVED);
    let mut agent = alone(Role::Controlled, &[]);
    let mut times = Vec::new();
    for (introduced, until) in [(0, 120), (120, 400), (400, 2000), (2000, u64::MAX)] {
        agent.add_remote(ms(introduced), candidate);
        times.extend(sent_between(&mut agent, introduced, until).into_iter().map(|(time, _)| time));
    }
    assert_eq!(times, [0, 5, 15, 35, 55, 75, 115, 195, 355, 400, 420, 1420, 2000]);
}

#[test]
fn who_says_where_the_peer_is_bounds_how_often_it_is_looked_for_there() {
    let mut agent = alone(
        Role::Controlling,
        &[
            ("198.51.100.1:1", CandidateKind::ServerReflexive, OBSERVED),
            // The same host: no third party can be meant.
            ("198.51.100.1:2", CandidateKind::Host, CLAIMED),
            ("10.0.0.9:1", CandidateKind::Host, CLAIMED),
            ("203.0.113.1:1", CandidateKind::Host, CLAIMED),
            ("203.0.113.2:1", CandidateKind::ServerReflexive, CLAIMED),
            // Two claimed addresses are enough.
            ("203.0.113.3:1", CandidateKind::Host, CLAIMED),
            ("127.0.0.1:1", CandidateKind::Host, CLAIMED),
        ],
    );
    let all = sent_into_silence(&mut agent);
    for (to, checks) in [
        ("198.51.100.1:1", 12),
        ("198.51.100.1:2", 12),
        ("10.0.0.9:1", 12),
        ("203.0.113.1:1", 2),
        ("203.0.113.2:1", 2),
        ("203.0.113.3:1", 0),
        ("127.0.0.1:1", 0),
    ] {
        assert_eq!(count(&all, to), checks, "{to}");
    }
}

#[test]
fn a_claimed_address_that_a_server_sees_after_all_gets_the_rest_of_its_checks() {
    let mut agent = alone(Role::Controlling, &[(ADDRESSES[1], CandidateKind::Host, CLAIMED)]);
    assert_eq!(sent_into_silence(&mut agent).len(), 2);
    agent.add_remote(ms(0), Candidate::new(CandidateKind::ServerReflexive, address(ADDRESSES[1]), OBSERVED));
    assert_eq!(sent_into_silence(&mut agent).len(), 10);
}

#[test]
fn a_check_is_answered_and_triggers_one_in_the_same_moment() {
    for (from, kind) in [(ADDRESSES[1], CandidateKind::Host), ("203.0.113.7:777", CandidateKind::PeerReflexive)] {
        let mut agent = alone(Role::Controlling, &[(ADDRESSES[1], CandidateKind::Host, OBSERVED)]);
        agent.handle_timeout(ms(0));
        assert_eq!(sent(&mut agent).len(), 1);
        assert_eq!(arrive(&mut agent, ms(3), from, b"data"), Received::Foreign);
        assert_eq!(arrive(&mut agent, ms(3), from, &check(false)), Received::Message);
        let sent = sent(&mut agent);
        let [reply, triggered] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((class(reply), class(triggered)), (Class::Success, Class::Request));
        assert!([reply, triggered].iter().all(|transmit| transmit.destination == address(from)));
        // It leaves from where the peer reached us.
        assert_eq!(triggered.source, Some(address(ADDRESSES[0]).ip()));
        let reply = Message::parse(&reply.payload).unwrap();
        assert_eq!(reply.xor_mapped_address(), Some(address(from)));
        assert_eq!(reply.verify_integrity(PASSWORDS[0].as_bytes()), Integrity::Valid);
        // The first pair that the peer is heard on is the choice, and the triggered check says so.
        assert!(is_nominating(triggered));
        assert_eq!(arrive(&mut agent, ms(3), from, b"data"), Received::Data);
        assert_eq!(arrive(&mut agent, ms(43), from, &answer(triggered, None)), Received::Message);
        let selected = SelectedPair {
            socket: SOCKET,
            local: address(ADDRESSES[0]).ip(),
            remote: address(from),
            kind,
            rtt: Duration::from_millis(40),
        };
        assert_eq!(agent.poll_event(), Some(AgentEvent::Selected(selected)));
    }
}

#[test]
fn the_choice_leaves_in_the_moment_it_is_made() {
    let mut agent = alone(Role::Controlling, &[(ADDRESSES[1], CandidateKind::Host, OBSERVED)]);
    agent.handle_timeout(ms(0));
    let first = sent(&mut agent);
    assert!(!is_nominating(&first[0]));
    arrive(&mut agent, ms(4), ADDRESSES[1], &answer(&first[0], None));
    let then = sent(&mut agent);
    assert!(then.len() == 1 && is_nominating(&then[0]));
    assert!(matches!(agent.poll_event(), Some(AgentEvent::Selected(_))), "valid and chosen");
    // Until the peer has acknowledged the choice it is told again.
    assert_eq!(agent.next_timeout(), Some(ms(19)));
    agent.handle_timeout(ms(19));
    let again = sent(&mut agent);
    assert!(again.len() == 1 && is_nominating(&again[0]));
    arrive(&mut agent, ms(20), ADDRESSES[1], &answer(&again[0], None));
    assert!(agent.next_timeout() > Some(ms(4000)), "only consent is left");
}

#[test]
fn a_choice_that_works_in_one_direction_only_gives_way_to_a_pair_that_works() {
    let other = "192.0.2.77:7000";
    let kinds = [(ADDRESSES[1], CandidateKind::Host, OBSERVED), (other, CandidateKind::Host, OBSERVED)];
    let mut agent = alone(Role::Controlling, &kinds);
    agent.handle_timeout(ms(0));
    let to_other = sent(&mut agent).into_iter().find(|transmit| transmit.destination == address(other)).unwrap();
    // The peer is heard on the first pair, which is chosen, and none of our checks there is ever answered.
    arrive(&mut agent, ms(10), ADDRESSES[1], &check(false));
    assert!(sent(&mut agent).iter().any(is_nominating));
    arrive(&mut agent, ms(100), other, &answer(&to_other, None));
    let mut now = ms(100);
    let renominated = loop {
        agent.handle_timeout(now);
        let to_other = |transmit: &&Transmit| transmit.destination == address(other) && is_nominating(transmit);
        if let Some(transmit) = sent(&mut agent).iter().find(to_other) {
            break transmit.clone();
        }
        let next = agent.next_timeout().unwrap();
        assert!(next > now, "it wants to be called again at once");
        now = next;
    };
    assert!((400..700).contains(&millis(now)), "{} ms", millis(now));
    arrive(&mut agent, now, other, &answer(&renominated, None));
    assert!(core::iter::from_fn(|| agent.poll_event()).any(|event| matches!(event, AgentEvent::Selected(_))));
}

/// A relayed candidate and a direct one, of which the relayed one works first.
#[test]
fn a_relayed_candidate_is_settled_on_when_nothing_else_works() {
    let remotes =
        [(ADDRESSES[1], CandidateKind::ServerReflexive, OBSERVED), ("192.0.2.9:9", CandidateKind::Relayed, OBSERVED)];
    for role in [Role::Controlling, Role::Controlled] {
        for direct_works in [false, true] {
            let mut agent = alone(role, &remotes);
            let mut now = ms(0);
            let mut selected = None;
            while selected.is_none() && now < ms(2_000) {
                agent.handle_timeout(now);
                for transmit in sent(&mut agent) {
                    let is_relayed = transmit.destination == address("192.0.2.9:9");
                    let works = is_relayed || direct_works && now >= ms(100);
                    if class(&transmit) == Class::Request && works {
                        let from = format!("{}", transmit.destination);
                        if role == Role::Controlled {
                            arrive(&mut agent, now, &from, &check_as(AttributeType::ICE_CONTROLLING, true));
                        }
                        arrive(&mut agent, now, &from, &answer(&transmit, None));
                    }
                }
                if let Some(AgentEvent::Selected(pair)) = agent.poll_event() {
                    selected = Some((millis(now), pair.kind));
                }
                now = agent.next_timeout().map_or(ms(2_000), |next| next.max(now));
            }
            let (time, kind) = selected.expect("one of them works");
            if direct_works {
                assert_eq!(kind, CandidateKind::ServerReflexive, "{role:?}");
                assert!((100..300).contains(&time), "{role:?} {time}");
            } else {
                assert_eq!((time, kind), (300, CandidateKind::Relayed), "{role:?}");
            }
        }
    }
}

#[test]
fn a_controlled_agent_waits_for_the_choice() {
    let mut agent = alone(Role::Controlled, &[(ADDRESSES[1], CandidateKind::Host, OBSERVED)]);
    agent.handle_timeout(ms(0));
    let first = sent(&mut agent);
    arrive(&mut agent, ms(4), ADDRESSES[1], &answer(&first[0], None));
    assert_eq!((agent.poll_event(), agent.next_timeout()), (None, None));
    let request = |nominating| {
        let mut bytes = check(nominating);
        // The peer controls.
        let at = bytes.windows(2).position(|pair| pair == [0x80, 0x29]).unwrap();
        bytes[at + 1] = 0x2A;
        sign(&bytes)
    };
    arrive(&mut agent, ms(5), ADDRESSES[1], &request(false));
    assert_eq!(agent.poll_event(), None);
    arrive(&mut agent, ms(6), ADDRESSES[1], &request(true));
    assert!(matches!(agent.poll_event(), Some(AgentEvent::Selected(_))));
}

/// The same attributes with the integrity and the fingerprint that belong to them.
fn sign(bytes: &[u8]) -> Vec<u8> {
    let message = Message::parse(bytes).unwrap();
    let kept = |attribute| !matches!(attribute, AttributeType::MESSAGE_INTEGRITY | AttributeType::FINGERPRINT);
    message
        .attributes()
        .filter(|(attribute, _)| kept(*attribute))
        .fold(
            Builder::new(message.class(), message.method(), message.transaction_id()),
            |builder, (attribute, value)| builder.attribute(attribute, value),
        )
        .integrity(PASSWORDS[0].as_bytes())
        .fingerprint()
        .finish()
}

#[test]
fn of_many_refusals_of_one_role_the_first_counts() {
    let remotes = [ADDRESSES[1], "192.0.2.3:3", "192.0.2.4:4", "192.0.2.5:5"];
    let mut agent = alone(Role::Controlling, &remotes.map(|remote| (remote, CandidateKind::Host, OBSERVED)));
    agent.handle_timeout(ms(0));
    for (check, remote) in sent(&mut agent).iter().zip(remotes) {
        assert_eq!(check.destination, address(remote));
        arrive(&mut agent, ms(4), remote, &answer(check, Some(ErrorCode::ROLE_CONFLICT)));
        assert_eq!(agent.role(), Role::Controlled);
    }
    agent.handle_timeout(ms(4));
    let again = sent(&mut agent);
    assert_eq!(again.len(), 1, "one check in the new role at once");
    assert!(Message::parse(&again[0].payload).unwrap().ice_controlled().is_some());
}

/// Two agents, 20 ms apart.
struct Meeting {
    now: Instant,
    agents: [Agent; 2],
    starts: [Instant; 2],
    loss: f64,
    random: crate::machine::Random,
    flights: BTreeMap<(Instant, u64), (usize, Transmit)>,
    number: u64,
    is_cut: bool,
    /// When each was done, and with how many datagrams.
    selected: [Option<(u64, u32, SocketAddr)>; 2],
    events: Vec<(usize, AgentEvent)>,
    /// Requests, with their senders.
    requests: Vec<(usize, Instant)>,
}

const DELAY: Duration = Duration::from_millis(20);

impl Meeting {
    fn new(agents: [Agent; 2], starts: [u64; 2]) -> Self {
        Self {
            now: ms(0),
            agents,
            starts: starts.map(ms),
            loss: 0.0,
            random: crate::machine::Random::new([5; 32]),
            flights: BTreeMap::new(),
            number: 0,
            is_cut: false,
            selected: [None; 2],
            events: Vec::new(),
            requests: Vec::new(),
        }
    }

    fn with_loss(mut self, loss: f64, seed: u8) -> Self {
        self.loss = loss;
        self.random = crate::machine::Random::new([seed; 32]);
        self
    }

    fn start(&mut self, side: usize) {
        let agent = &mut self.agents[side];
        for (socket, addresses) in [(SOCKET, ADDRESSES), (SOCKET_6, ADDRESSES_6)] {
            agent.add_socket(self.now, socket, address(addresses[side]));
            let remote = address(addresses[1 - side]);
            agent.add_remote(self.now, Candidate::new(CandidateKind::Host, remote, OBSERVED));
        }
    }

    fn drain(&mut self, side: usize) {
        while let Some(transmit) = self.agents[side].poll_transmit() {
            if class(&transmit) == Class::Request {
                self.requests.push((side, self.now));
            }
            self.number += 1;
            let is_lost = (self.random.u64() >> 11) as f64 / (1_u64 << 53) as f64 <= self.loss;
            if !(self.is_cut || self.loss > 0.0 && is_lost) {
                self.flights.insert((self.now + DELAY, self.number), (1 - side, transmit));
            }
        }
        while let Some(event) = self.agents[side].poll_event() {
            if let AgentEvent::Selected(pair) = event {
                assert!(self.selected[side].is_none());
                self.selected[side] = Some((millis(self.now), self.agents[side].packets_sent(), pair.remote));
            } else {
                self.events.push((side, event));
            }
        }
    }

    fn run(&mut self, until: Instant) {
        loop {
            for side in 0..2 {
                if self.starts[side] == self.now {
                    self.start(side);
                    self.starts[side] = ms(u64::MAX / 2_000_000);
                }
                self.agents[side].handle_timeout(self.now);
                self.drain(side);
            }
            let arrival = self.flights.first_key_value().map(|((time, _), _)| *time);
            let timeouts = self.agents.iter().filter_map(Agent::next_timeout).min();
            let next = [arrival, timeouts, Some(self.starts[0]), Some(self.starts[1])].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else { return };
            self.now = next;
            while let Some(entry) = self.flights.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (side, transmit) = entry.remove();
                let addresses = if transmit.socket == SOCKET { ADDRESSES } else { ADDRESSES_6 };
                let (local, remote) = (address(addresses[side]), address(addresses[1 - side]));
                self.agents[side].handle_datagram(self.now, transmit.socket, local, remote, &transmit.payload);
                self.drain(side);
            }
        }
    }
}

fn meet(roles: [Role; 2], starts: [u64; 2]) -> Meeting {
    let mut meeting = Meeting::new([agent(0, roles[0], 1), agent(1, roles[1], 2)], starts);
    meeting.run(ms(1000));
    meeting
}

/// One round trip of 40 ms after the later began, where it began within the early resends. Else the earlier one must
/// wait for the later one's check, and is done half a round trip after it.
#[test]
fn both_are_done_one_round_trip_after_the_later_began() {
    let figures = |start, roles| {
        let [Some((first, packets_of_first, to_second)), Some((second, packets_of_second, to_first))] =
            meet(roles, [0, start]).selected
        else {
            panic!("{start} {roles:?}")
        };
        assert_eq!([to_first, to_second], ADDRESSES_6.map(address));
        [(first, packets_of_first), (second, packets_of_second)]
    };
    let (controlling, controlled) = (Role::Controlling, Role::Controlled);
    assert_eq!(figures(0, [controlling, controlled]), [(40, 16), (40, 17)]);
    assert_eq!(figures(0, [controlled, controlling]), [(40, 17), (40, 16)]);
    assert_eq!(figures(30, [controlling, controlled]), [(55, 12), (70, 13)]);
    assert_eq!(figures(30, [controlled, controlling]), [(55, 13), (70, 12)]);
    assert_eq!(figures(500, [controlling, controlled]), [(560, 32), (540, 9)]);
    assert_eq!(figures(500, [controlled, controlling]), [(560, 34), (540, 9)]);
}

#[test]
fn a_conflict_of_roles_is_settled() {
    for role in [Role::Controlling, Role::Controlled] {
        for seed in 0..50 {
            for loss in [0.0, 0.1] {
                let agents = [agent(0, role, seed), agent(1, role, 255 - seed)];
                let mut meeting = Meeting::new(agents, [0, 7]).with_loss(loss, seed);
                meeting.run(ms(4000));
                let roles = [meeting.agents[0].role(), meeting.agents[1].role()];
                assert_eq!(roles[0], roles[1].opposite(), "{role:?} {seed} {loss}");
                let [Some((_, _, to_second)), Some((_, _, to_first))] = meeting.selected else {
                    panic!("{role:?} {seed} {loss}: {:?}", meeting.selected)
                };
                assert_eq!(to_second.is_ipv6(), to_first.is_ipv6(), "{role:?} {seed} {loss}: two pairs");
            }
        }
    }
}

#[test]
fn a_wrong_password_is_told_once_on_each_side() {
    let wrong =
        |side: usize| Credentials { ufrag: credentials(side).ufrag.clone(), password: "another, also long".into() };
    let agents = [(0, Role::Controlling), (1, Role::Controlled)].map(|(side, role)| {
        Agent::new(Checks::default(), Consent::default(), role, credentials(side), wrong(1 - side), [side as u8; 32])
    });
    let mut meeting = Meeting::new(agents, [0, 0]);
    meeting.run(ms(10_000));
    assert_eq!(meeting.selected, [None, None]);
    meeting.events.sort_unstable_by_key(|(side, _)| *side);
    assert_eq!(meeting.events, [(0, AgentEvent::WrongSecret), (1, AgentEvent::WrongSecret)]);
    // Twelve checks on each of two pairs, and twelve refusals.
    assert_eq!(meeting.agents.each_ref().map(Agent::packets_sent), [36, 36]);
}

#[test]
fn consent_is_renewed_every_four_to_six_seconds_and_ends_after_thirty() {
    let mut meeting = meet([Role::Controlling, Role::Controlled], [0, 0]);
    meeting.requests.clear();
    meeting.run(ms(301_000));
    for side in 0..2 {
        let times: Vec<_> =
            meeting.requests.iter().filter(|(sender, _)| *sender == side).map(|(_, time)| *time).collect();
        assert!((50..=75).contains(&times.len()), "{}", times.len());
        for pair in times.windows(2) {
            let gap = pair[1].saturating_since(pair[0]);
            assert!(gap >= Duration::from_secs(4) && gap < Duration::from_secs(6), "{gap:?}");
        }
    }
    assert_eq!(meeting.events, []);
    meeting.is_cut = true;
    let last = [0, 1].map(|side| {
        let (_, time) = meeting.requests.iter().rfind(|(sender, _)| *sender == side).unwrap();
        *time + DELAY + DELAY
    });
    // What was under way when the path was cut has arrived long ago.
    assert!(last.iter().all(|time| *time <= meeting.now) && meeting.flights.is_empty());
    for (time, lost) in [(last[0].min(last[1]), 1), (last[0].max(last[1]), 2)] {
        let expiry = time + Duration::from_secs(30);
        meeting.run(Instant::from_nanos(expiry.as_nanos() - 1));
        assert_eq!(meeting.events.len(), lost - 1);
        meeting.run(expiry);
        assert_eq!(meeting.events.len(), lost);
        assert_eq!(meeting.events[lost - 1].1, AgentEvent::ConsentExpired);
    }
    assert_eq!(meeting.agents.each_ref().map(Agent::next_timeout), [None, None]);
}
