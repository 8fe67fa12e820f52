//! What one negotiation must stand: two agents in a network that the input plays, and a peer that knows the passwords
//! and lies.
//!
//! The first byte chooses the roles, which may be the same, and whether the passwords agree; the rest are records:
//! sockets and candidates that come at any time, datagrams that are delivered, lost, repeated, changed or come from
//! somewhere else, pauses, and messages that are signed rightly and mean harm. What must hold of each agent:
//!
//! - nothing panics; an input makes no more than a burst of datagrams, and wake-ups that are due come to an end;
//! - an address that nothing authentic came from gets no more checks than its budget, and of the addresses that are only
//!   claimed no more than two get any; one whose checks were never answered gets a second budget, and one check more for
//!   each authentic request that came from there, and for each time that it is told again as a server has seen it, twelve at most;
//! - an answer goes only to where a request came from, one for each, and twelve refusals to strangers in all;
//! - a pair is selected at most once, and only one that has answered; it is lost when nothing renews its consent;
//! - data is only what comes from where something authentic came from;
//! - when nothing arrives any more it comes to rest.

use super::{
    records::{Fields, address, canonical, records},
    server::{CLIENTS, mutated},
};
use holepunch::{
    config::{Checks, Consent},
    machine::{Instant, SocketId},
    punch::{Agent, AgentEvent, Candidate, CandidateKind, Provenance, Received, Role},
    wire::stun::{AttributeType, Builder, Class, Credentials, Message, Method, TransactionId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The operations of the records; others are passed over.
pub(crate) mod operation {
    /// Which datagram under way: it arrives.
    pub(crate) const DELIVER: u8 = 0;
    /// Which: it is lost.
    pub(crate) const DROP: u8 = 1;
    /// Which: a copy arrives.
    pub(crate) const DUPLICATE: u8 = 2;
    /// Which, position (two bytes), bits: a changed copy arrives.
    pub(crate) const MUTATE: u8 = 3;
    /// Which, source: it arrives from somewhere else.
    pub(crate) const REROUTE: u8 = 4;
    /// All that is under way arrives, and all that comes of it.
    pub(crate) const DELIVER_ALL: u8 = 5;
    /// Milliseconds (two bytes), waking the agents when they want it.
    pub(crate) const WAIT: u8 = 6;
    /// Seconds (two bytes), waking nobody before.
    pub(crate) const JUMP: u8 = 7;
    /// Agent, which of its sockets.
    pub(crate) const SOCKET: u8 = 8;
    /// Agent, address, kind, provenance, priority.
    pub(crate) const REMOTE: u8 = 9;
    /// Agent, source, flags: a check that the peer has signed.
    pub(crate) const CHECK: u8 = 10;
    /// Agent, flags: an answer to its last check, which the peer has signed.
    pub(crate) const ANSWER: u8 = 11;
    /// Agent, source, then a datagram.
    pub(crate) const RAW: u8 = 12;
}

/// The flags of what the peer signs.
mod flag {
    pub(super) const USE_CANDIDATE: u8 = 1;
    pub(super) const CONTROLLING: u8 = 2;
    pub(super) const CONTROLLED: u8 = 4;
    pub(super) const UNKNOWN_ATTRIBUTE: u8 = 8;
    pub(super) const WRONG_PASSWORD: u8 = 16;
    pub(super) const HIGH_TIE_BREAKER: u8 = 32;
    pub(super) const ERROR: u8 = 64;
    pub(super) const UNSIGNED: u8 = 128;
}

/// Sockets of each agent, and where candidates and strangers are.
const OWN: [[&str; 4]; 2] = [
    ["10.0.0.2:5000", "198.51.100.1:5001", "[2001:db8:1::2]:5002", "[2001:db8:1::3]:5003"],
    ["10.0.0.3:6000", "203.0.113.1:6001", "[2001:db8:2::2]:6002", "[2001:db8:2::3]:6003"],
];
const PASSWORDS: [&str; 3] = ["a password of one agent", "that of the other agent", "one that nobody has told"];
const UFRAGS: [&str; 2] = ["aaaaaaaa", "bbbbbbbb"];

/// Datagrams under way at most.
const MAX_FLIGHTS: usize = 64;
const MAX_WAKES: usize = 100;
const MAX_WAKES_AT_ONCE: usize = 4;
/// A burst of checks, and one to renew consent.
const MAX_AT_ONCE: usize = 12;
const REFUSALS: u32 = 12;
const OBSERVED_BUDGET: u32 = 12;
const CLAIMED_BUDGET: u32 = 2;
const CLAIMED_ADDRESSES: usize = 2;
/// Within this, checks have run out, and the consent of a pair that is silent has expired.
const LONGEST: Duration = Duration::from_secs(300);

/// How far the agents came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) selected: u32,
    pub(crate) wrong_secret: u32,
    pub(crate) data: u32,
}

/// Runs the records against two agents.
pub(crate) fn agent_input(input: &[u8]) {
    run(input);
}

/// Runs the records against two agents.
pub(crate) fn run(input: &[u8]) -> Reached {
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    let mut world = World::new(*first);
    for record in records(rest) {
        world.step(record.operation, record.fields);
    }
    world.end();
    world.reached
}

#[derive(Clone)]
struct Flight {
    source: SocketAddr,
    destination: SocketAddr,
    payload: Vec<u8>,
    /// It is from where it says.
    honest: bool,
}

/// What an address has got and given.
#[derive(Clone, Copy, Default)]
struct Account {
    checks: u32,
    answers: u32,
    /// Requests that the peer has signed.
    authentic_requests: u32,
    /// Anything that the peer has signed.
    authentic: bool,
    /// The peer has answered a check from there.
    answered: bool,
    /// How often the agent was told of it.
    told: u32,
    requests: u32,
}

struct Node {
    agent: Agent,
    sockets: BTreeSet<SocketId>,
    accounts: BTreeMap<SocketAddr, Account>,
    /// Hosts that the agent was told a server has seen.
    observed: BTreeSet<IpAddr>,
    refusals: u32,
    selected: Option<SocketAddr>,
    is_lost: bool,
    wrong_secret: bool,
    /// The last check that it sent: from where, to where, and its id.
    last_check: Option<(SocketAddr, SocketAddr, TransactionId)>,
}

struct World {
    now: Instant,
    nodes: [Node; 2],
    /// Whether the passwords agree.
    passwords_agree: bool,
    flights: Vec<Flight>,
    transactions: u64,
    reached: Reached,
}

impl World {
    fn new(how: u8) -> Self {
        let (controlling, controlled) = (Role::Controlling, Role::Controlled);
        let roles = match how & 3 {
            0 => [controlled, controlling],
            1 => [controlling, controlled],
            2 => [controlling; 2],
            _ => [controlled; 2],
        };
        let passwords_agree = how & 4 == 0;
        let credentials =
            |side: usize, password: &str| Credentials { ufrag: UFRAGS[side].into(), password: password.into() };
        let nodes = [0, 1].map(|side| {
            let theirs = if passwords_agree { PASSWORDS[1 - side] } else { PASSWORDS[2] };
            let (local, remote) = (credentials(side, PASSWORDS[side]), credentials(1 - side, theirs));
            let seed = [side as u8 + 1; 32];
            let agent = Agent::new(Checks::default(), Consent::default(), roles[side], local, remote, seed);
            Node {
                agent,
                sockets: BTreeSet::new(),
                accounts: BTreeMap::new(),
                observed: BTreeSet::new(),
                refusals: 0,
                selected: None,
                is_lost: false,
                wrong_secret: false,
                last_check: None,
            }
        });
        let (flights, reached) = (Vec::new(), Reached::default());
        Self { now: Instant::default(), nodes, passwords_agree, flights, transactions: 0, reached }
    }

    fn step(&mut self, operation: u8, mut fields: Fields<'_>) {
        match operation {
            operation::DELIVER => {
                if let Some(flight) = self.take_flight(fields.u8()) {
                    self.deliver(&flight);
                }
            }
            operation::DROP => drop(self.take_flight(fields.u8())),
            operation::DUPLICATE => {
                if let Some(flight) = self.flight(fields.u8()) {
                    self.deliver(&flight);
                }
            }
            operation::MUTATE => {
                let flight = self.flight(fields.u8());
                let (position, bits) = (fields.u16(), fields.u8());
                if let Some(flight) = flight {
                    let payload = mutated(&flight.payload, usize::from(position), bits);
                    self.deliver(&Flight { payload, ..flight });
                }
            }
            operation::REROUTE => {
                if let Some(flight) = self.take_flight(fields.u8()) {
                    let source = address(fields.pick(&CLIENTS));
                    self.deliver(&Flight { source, honest: source == flight.source, ..flight });
                }
            }
            operation::DELIVER_ALL => {
                for _ in 0..2 * MAX_FLIGHTS {
                    let Some(flight) = self.take_flight(0) else { return };
                    self.deliver(&flight);
                }
            }
            operation::WAIT => self.wait(Duration::from_millis(u64::from(fields.u16())), MAX_WAKES),
            operation::JUMP => {
                self.now = self.now + Duration::from_secs(u64::from(fields.u16()));
                self.wake();
            }
            _ => {
                let node = usize::from(fields.u8() & 1);
                self.step_of_agent(node, operation, fields);
            }
        }
    }

    fn step_of_agent(&mut self, node: usize, operation: u8, mut fields: Fields<'_>) {
        match operation {
            operation::SOCKET => {
                let index = usize::from(fields.u8() % 4);
                let socket = SocketId(index as u32);
                self.nodes[node].sockets.insert(socket);
                self.nodes[node].agent.add_socket(self.now, socket, address(OWN[node][index]));
                self.settle(node, MAX_AT_ONCE);
            }
            operation::REMOTE => {
                let at = place(node, fields.u8());
                let kind = fields.pick(&[
                    CandidateKind::Host,
                    CandidateKind::ServerReflexive,
                    CandidateKind::PeerReflexive,
                    CandidateKind::Relayed,
                ]);
                let provenance = fields.pick(&[Provenance::Observed, Provenance::Claimed]);
                let mut candidate = Candidate::new(kind, at, provenance);
                let priority = fields.u16();
                if priority > 0 {
                    candidate = candidate.with_priority(u32::from(priority) << 16);
                }
                if provenance == Provenance::Observed {
                    self.nodes[node].observed.insert(candidate.address.ip());
                }
                self.nodes[node].accounts.entry(candidate.address).or_default().told += 1;
                self.nodes[node].agent.add_remote(self.now, candidate);
                self.settle(node, MAX_AT_ONCE);
            }
            operation::CHECK => {
                let (source, flags) = (place(node, fields.u8()), fields.u8());
                self.transactions += 1;
                let mut id = [7; 12];
                id[..8].copy_from_slice(&self.transactions.to_be_bytes());
                let username = format!("{}:{}", UFRAGS[node], UFRAGS[1 - node]);
                let builder = Builder::new(Class::Request, Method::BINDING, TransactionId(id))
                    .string(AttributeType::USERNAME, &username)
                    .u32(AttributeType::PRIORITY, u32::from(fields.u16()) << 16);
                let payload = sign(with_role(builder, flags), flags, PASSWORDS[node]);
                // Its source may be a lie.
                let honest = flags & (flag::UNSIGNED | flag::WRONG_PASSWORD) == 0;
                self.arrive(node, source, None, &payload, honest);
            }
            operation::ANSWER => {
                let Some((from, to, id)) = self.nodes[node].last_check else { return };
                let flags = fields.u8();
                let builder = if flags & flag::ERROR == 0 {
                    let mapped = place(1 - node, fields.u8());
                    Builder::new(Class::Success, Method::BINDING, id)
                        .xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped)
                } else {
                    let code = fields.pick(&[401, 487, 420, 400, 500]);
                    Builder::new(Class::Error, Method::BINDING, id).error_code(code, "")
                };
                let password = if self.passwords_agree { PASSWORDS[1 - node] } else { PASSWORDS[2] };
                let payload = sign(builder, flags, password);
                let honest = flags & (flag::UNSIGNED | flag::WRONG_PASSWORD) == 0;
                self.arrive(node, to, Some(from), &payload, honest);
            }
            operation::RAW => {
                let source = place(node, fields.u8());
                self.arrive(node, source, None, fields.rest(), false);
            }
            _ => {}
        }
    }

    fn flight(&self, index: u8) -> Option<Flight> {
        self.flights.get(usize::from(index) % self.flights.len().max(1)).cloned()
    }

    fn take_flight(&mut self, index: u8) -> Option<Flight> {
        let index = usize::from(index) % self.flights.len().max(1);
        (index < self.flights.len()).then(|| self.flights.remove(index))
    }

    fn deliver(&mut self, flight: &Flight) {
        let is_there = |own: &[&str; 4]| own.iter().any(|own| address(own) == flight.destination);
        if let Some(node) = OWN.iter().position(is_there) {
            // Whatever another agent has made is signed, and its answers only count from where they were asked for.
            let is_answer = Message::parse(&flight.payload).is_ok_and(|message| message.class() != Class::Request);
            let authentic = self.passwords_agree && (flight.honest || !is_answer);
            self.arrive(node, flight.source, Some(flight.destination), &flight.payload, authentic);
        }
    }

    /// Gives an agent a datagram, at the socket it was sent to or its first of that family.
    fn arrive(
        &mut self,
        node: usize,
        remote: SocketAddr,
        destination: Option<SocketAddr>,
        payload: &[u8],
        authentic: bool,
    ) {
        let Node { agent, sockets, accounts, .. } = &mut self.nodes[node];
        let local_of = |socket: &SocketId| address(OWN[node][socket.0 as usize]);
        let is_there = |socket: &&SocketId| match destination {
            Some(to) => local_of(socket) == to,
            None => local_of(socket).is_ipv6() == canonical(remote).is_ipv6(),
        };
        let Some(socket) = sockets.iter().find(is_there).copied() else { return };
        // No system makes the other family arrive there.
        if local_of(&socket).is_ipv6() != canonical(remote).is_ipv6() {
            return;
        }
        let account = accounts.entry(canonical(remote)).or_default();
        if let Ok(message) = Message::parse(payload) {
            let is_request = message.class() == Class::Request;
            account.requests += u32::from(is_request);
            account.authentic_requests += u32::from(is_request && authentic);
            account.answered |= message.class() == Class::Success && authentic;
            account.authentic |= authentic;
        }
        let was_authentic = account.authentic;
        let received = agent.handle_datagram(self.now, socket, local_of(&socket), remote, payload);
        if received == Received::Data {
            assert!(was_authentic, "data of a stranger");
            self.reached.data += 1;
        }
        self.settle(node, 2);
    }

    fn wait(&mut self, time: Duration, wakes: usize) {
        let until = self.now + time;
        for _ in 0..wakes {
            let next = self.nodes.iter().filter_map(|node| node.agent.next_timeout()).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = next.max(self.now);
            self.wake();
        }
        self.now = until;
        self.wake();
    }

    fn wake(&mut self) {
        for node in 0..2 {
            self.nodes[node].agent.handle_timeout(self.now);
            self.settle(node, MAX_AT_ONCE);
        }
    }

    /// Drains an agent, and wakes it as long as it wants to be woken now.
    fn settle(&mut self, node: usize, mut most: usize) {
        for _ in 0..MAX_WAKES_AT_ONCE {
            self.drain(node, most);
            most = MAX_AT_ONCE;
            if self.nodes[node].agent.next_timeout().is_none_or(|wake| wake > self.now) {
                return self.check_budgets(node);
            }
            self.nodes[node].agent.handle_timeout(self.now);
        }
        panic!("the agent is due at {:?} again and again", self.nodes[node].agent.next_timeout());
    }

    fn drain(&mut self, index: usize, most: usize) {
        let mut count = 0;
        while let Some(transmit) = self.nodes[index].agent.poll_transmit() {
            count += 1;
            assert!(count <= most, "more than {most} datagrams at once");
            let node = &mut self.nodes[index];
            assert!(node.sockets.contains(&transmit.socket), "sent from a socket that is not there");
            let source = address(OWN[index][transmit.socket.0 as usize]);
            let destination = transmit.destination;
            assert_eq!(source.is_ipv6(), destination.is_ipv6(), "the wrong family");
            let message = Message::parse(&transmit.payload).expect("a message");
            let account = node.accounts.entry(destination).or_default();
            match message.class() {
                Class::Request => {
                    account.checks += 1;
                    node.last_check = Some((source, destination, message.transaction_id()));
                }
                _ => {
                    account.answers += 1;
                    node.refusals += u32::from(message.error_code().is_some_and(|error| error.code == 401));
                }
            }
            if self.flights.len() < MAX_FLIGHTS {
                self.flights.push(Flight { source, destination, payload: transmit.payload, honest: true });
            }
        }
        let node = &mut self.nodes[index];
        while let Some(event) = node.agent.poll_event() {
            match event {
                AgentEvent::Selected(pair) => {
                    assert_eq!(node.selected, None, "selected twice");
                    assert!(node.accounts.get(&pair.remote).is_some_and(|account| account.answered), "{pair:?}");
                    node.selected = Some(pair.remote);
                    self.reached.selected += 1;
                }
                AgentEvent::WrongSecret => {
                    assert!(!node.wrong_secret, "told twice");
                    node.wrong_secret = true;
                    self.reached.wrong_secret += 1;
                }
                AgentEvent::ConsentExpired => {
                    assert!(node.selected.is_some() && !node.is_lost, "lost without a selected pair, or twice");
                    node.is_lost = true;
                }
                other => panic!("nobody knows of {other:?}"),
            }
        }
    }

    /// What an address that has proven little or nothing may have got.
    fn check_budgets(&self, index: usize) {
        let node = &self.nodes[index];
        assert!(node.refusals <= REFUSALS, "{} refusals", node.refusals);
        let mut only_claimed = 0;
        for (destination, account) in &node.accounts {
            assert!(account.answers <= account.requests, "more answers than requests: {destination}");
            if account.answered {
                continue;
            }
            let local = |socket: &&SocketId| address(OWN[index][socket.0 as usize]).is_ipv6() == destination.is_ipv6();
            let pairs = node.sockets.iter().filter(local).count() as u32;
            let is_claimed = is_public(destination.ip()) && !node.observed.contains(&destination.ip());
            let told_again = account.told.min(OBSERVED_BUDGET);
            // The source of an authentic request has a pair of its own, whatever it was before.
            let budget = match account.authentic_requests {
                0 if is_claimed => pairs * CLAIMED_BUDGET,
                0 => pairs * (OBSERVED_BUDGET + told_again),
                requests => pairs * (2 * OBSERVED_BUDGET + told_again + requests),
            };
            assert!(account.checks <= budget, "{} checks to {destination}, of {budget}", account.checks);
            only_claimed += usize::from(is_claimed && !account.authentic && account.checks > 0);
        }
        assert!(only_claimed <= CLAIMED_ADDRESSES, "{only_claimed} addresses that are only claimed");
    }

    /// Nothing arrives any more: both come to rest, and what was selected is lost.
    fn end(&mut self) {
        self.flights.clear();
        let until = self.now + LONGEST;
        while let Some(next) = self.nodes.iter().filter_map(|node| node.agent.next_timeout()).min() {
            assert!(next <= until, "an agent that hears nothing still waits for {next:?}, it is {:?}", self.now);
            self.now = next;
            self.wake();
        }
        for node in &self.nodes {
            assert_eq!(node.selected.is_some(), node.is_lost, "a silent pair is not lost");
        }
    }
}

/// A place as seen by an agent: one of the other's, or a stranger's.
fn place(node: usize, which: u8) -> SocketAddr {
    let others = &OWN[1 - node];
    let which = usize::from(which) % (others.len() + CLIENTS.len());
    address(others.get(which).copied().unwrap_or_else(|| CLIENTS[which - others.len()]))
}

fn with_role(mut builder: Builder, flags: u8) -> Builder {
    let tie_breaker = if flags & flag::HIGH_TIE_BREAKER == 0 { 0 } else { u64::MAX };
    if flags & flag::CONTROLLING != 0 {
        builder = builder.u64(AttributeType::ICE_CONTROLLING, tie_breaker);
    }
    if flags & flag::CONTROLLED != 0 {
        builder = builder.u64(AttributeType::ICE_CONTROLLED, tie_breaker);
    }
    if flags & flag::USE_CANDIDATE != 0 {
        builder = builder.flag(AttributeType::USE_CANDIDATE);
    }
    builder
}

fn sign(mut builder: Builder, flags: u8, password: &str) -> Vec<u8> {
    if flags & flag::UNKNOWN_ATTRIBUTE != 0 {
        builder = builder.flag(AttributeType::new(0x7FFF));
    }
    if flags & flag::UNSIGNED == 0 {
        let password = if flags & flag::WRONG_PASSWORD == 0 { password } else { "not the password" };
        builder = builder.integrity(password.as_bytes());
    }
    builder.fingerprint().finish()
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_private() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback(),
    }
}
