//! Random meetings held against the oracle: peers anywhere, behind anything, of either transport, at any times.
//!
//! Each seed draws a scenario: one or two borders on each side or none, each a NAT of any kind, some with firewalls;
//! carriers' NATs over home NATs, with two homes behind one; LANs; the same private addresses on both sides; one family
//! or both; delay, jitter, and on every second seed up to 10 % loss on each uplink; by name or by address; either side
//! first. What the oracle says must come of it: a connection that carries data both ways, or a typed failure on both
//! sides; in time; and nothing is left afterwards.
//!
//! `HOLEPUNCH_MEETINGS=FIRST..END cargo test --release --test random_meetings` tries other seeds than the few that are
//! always tried, on every processor; a failure names its seed, and when that is tried alone it shows what crossed the
//! network.

#[path = "../sim/world.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod world;

mod scenario;

use holepunch::{
    ErrorKind,
    config::{PeerConfig, ServerConfig},
    peer::{ConnectRequest, Path, PeerEvent, Transport},
    wire::stun::SessionId,
};
use netsim::{HostSpec, Link, SiteId, SiteSpec, Time};
use scenario::{Expected, Layout, Scenario};
use std::{net::IpAddr, num::NonZero, ops::Range, time::Duration};
use world::{NodeId, World};

/// The seeds that are always tried.
const SEEDS: Range<u64> = 0..400;
/// Those that once failed, of the first two million.
const ONCE_FAILED: [u64; 15] = [
    34421, 224660, 230317, 230350, 239950, 256927, 512482, 559896, 598848, 601077, 647946, 740948, 777522, 780627,
    1119015,
];
/// Faults that are told at most.
const MOST_FAULTS: usize = 20;
/// Lossy meetings that may come to nothing by bad luck: all requests to a server lost, or all checks.
const UNLUCKY: u64 = 500;

/// A meeting under way.
struct Meeting {
    scenario: Scenario,
    world: World,
    server: NodeId,
    /// The listener, and the connector.
    peers: [NodeId; 2],
    /// The links that lose, and what they are when they do not.
    links: Vec<(SiteId, Link)>,
}

/// How it ended, where that is no fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    AsExpected(Expected),
    /// Connected where plain punching cannot be relied on.
    Lucky,
    /// Failed where packets were lost.
    Unlucky,
}

#[test]
fn meetings_end_as_the_oracle_says() {
    let seeds = std::env::var("HOLEPUNCH_MEETINGS").ok().map_or(SEEDS, |text| {
        let (first, end) = text.split_once("..").expect("FIRST..END");
        first.parse().expect("a number")..end.parse().expect("a number")
    });
    let (mut outcomes, mut faults) = (Vec::new(), Vec::new());
    for (seed, result) in hold_all(&seeds.clone().collect::<Vec<_>>()) {
        match result {
            Ok(outcome) => {
                if outcome == Outcome::Unlucky {
                    println!("seed {seed}: unlucky");
                }
                outcomes.push(outcome);
            }
            Err(fault) => faults.push(fault),
        }
    }
    let count = |outcome| outcomes.iter().filter(|it| **it == outcome).count() as u64;
    let [connected, either, timeout, no_path] =
        [Expected::Connected, Expected::Either, Expected::Timeout, Expected::NoPath]
            .map(|expected| count(Outcome::AsExpected(expected)));
    let (lucky, unlucky) = (count(Outcome::Lucky), count(Outcome::Unlucky));
    println!(
        "{seeds:?}: {connected} connected, {either} that may be, {timeout} timeouts, {no_path} without a path, {lucky} lucky, {unlucky} unlucky"
    );
    let first = &faults[..faults.len().min(MOST_FAULTS)];
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), first.join("\n"));
    assert!(lucky <= 1 + timeout / 50, "{lucky} were connected that should not");
    assert!(unlucky <= 1 + outcomes.len() as u64 / UNLUCKY, "{unlucky} failed where packets were lost");
}

#[test]
fn what_once_failed_ends_as_the_oracle_says() {
    for (seed, result) in hold_all(&ONCE_FAILED) {
        assert!(matches!(result, Ok(Outcome::AsExpected(_))), "seed {seed}: {result:?}");
    }
}

#[test]
fn a_seed_is_a_meeting() {
    let digest = |seed| {
        let mut meeting = Meeting::new(Scenario::draw(seed));
        let outcome = meeting.meet();
        (format!("{outcome:?}"), meeting.world.net.trace_digest())
    };
    for seed in 0..20 {
        assert_eq!(digest(seed), digest(seed));
    }
}

/// Holds a meeting for each seed, on every processor; how each ended, in the order of the seeds.
fn hold_all(seeds: &[u64]) -> Vec<(u64, Result<Outcome, String>)> {
    let hold = |seed| {
        let meeting = || Meeting::new(Scenario::draw(seed)).run(seeds.len() == 1);
        let result = std::panic::catch_unwind(meeting).unwrap_or_else(|_| Err("a panic".to_owned()));
        (seed, result.map_err(|fault| format!("seed {seed}: {fault}\n{:#?}", Scenario::draw(seed))))
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let share = |thread| seeds.iter().skip(thread).step_by(threads).copied().map(hold).collect::<Vec<_>>();
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("panics are caught")).collect()
    });
    results.sort_by_key(|(seed, _)| *seed);
    results
}

impl Meeting {
    fn new(scenario: Scenario) -> Self {
        let mut world = World::new(scenario.seed);
        world.net.set_trace_capacity(0);
        let host = world.net.add_host(HostSpec { addresses: ips(&["192.0.2.1", "2001:db8::1"]), link: Link::PERFECT });
        let server = world.add_server(host, ServerConfig::default());
        let mut links = Vec::new();
        let mut sites: Vec<SiteId> = Vec::new();
        let mut peers = Vec::new();
        for (side, it) in scenario.sides.iter().enumerate() {
            let shared = match scenario.layout {
                Layout::Lan if side == 1 => it.borders.len(),
                Layout::SharedCarrier if side == 1 => 1,
                _ => 0,
            };
            // From the outermost inwards; the second side shares some with the first.
            sites.truncate(shared);
            for (depth, border) in it.borders.iter().rev().enumerate().skip(shared) {
                let public = match depth {
                    0 => format!("198.51.100.{}", side + 1),
                    _ => format!("100.64.0.{}", side + 1),
                };
                let site = world.net.add_site(SiteSpec {
                    parent: sites.last().copied(),
                    public: ips(&[&public]),
                    nat: Some(border.nat.clone()),
                    firewall: border.firewall.clone(),
                    link: border.link,
                });
                sites.push(site);
                links.push((site, border.link));
            }
            let private = format!("192.168.1.{}", it.number);
            let public = format!("198.51.100.{}", side + 1);
            let ipv4 = it.ipv4.then_some(if it.borders.is_empty() { public } else { private });
            let ipv6 = it.ipv6.then(|| format!("2001:db8:{}::2", side + 1));
            let addresses: Vec<IpAddr> = ipv4.into_iter().chain(ipv6).map(|ip| ip.parse().unwrap()).collect();
            let host = match sites.last() {
                Some(site) => world.net.add_host_in(*site, addresses, it.link),
                None => world.net.add_host(HostSpec { addresses, link: it.link }),
            };
            if scenario.strangers
                && let Some(site) = sites.last()
            {
                let other = format!("192.168.1.{}", scenario.sides[1 - side].number);
                world.net.add_host_in(*site, ips(&[&other]), Link::PERFECT);
            }
            peers.push(world.add_peer(host, PeerConfig::default()));
        }
        let peers = peers.try_into().expect("two sides");
        Self { scenario, world, server, peers, links }
    }

    fn run(mut self, shows_trace: bool) -> Result<Outcome, String> {
        if shows_trace {
            self.world.net.set_trace_capacity(4096);
        }
        let outcome = self.meet().and_then(|outcome| self.leave().map(|()| outcome));
        if shows_trace && !matches!(outcome, Ok(Outcome::AsExpected(_))) {
            println!("{}", self.world.net.trace());
            for node in self.peers {
                for (at, event) in &self.world.node(node).events {
                    println!("{at} {}: {event:?}", self.world.host(node));
                }
            }
        }
        outcome
    }

    /// Both begin at their times; what comes of it.
    fn meet(&mut self) -> Result<Outcome, String> {
        let Scenario { listener_at, connector_at, by_name, .. } = self.scenario;
        let [listener, _] = self.peers;
        let name = by_name.then_some("bob");
        let target = if by_name { "bob".to_owned() } else { self.address_of_listener() };
        if listener_at > connector_at {
            let session = self.connect(&target);
            self.world.run_for(listener_at);
            self.world.listen(listener, self.server, name);
            return self.judge(session);
        }
        self.world.listen(listener, self.server, name);
        self.world.run_for(connector_at);
        let session = self.connect(&target);
        self.judge(session)
    }

    fn connect(&mut self, target: &str) -> SessionId {
        let transport = if self.scenario.tcp { Transport::Tcp } else { Transport::Udp };
        let wait = Duration::from_secs(20);
        let request = ConnectRequest { transport, wait, ..self.world.connect_request(self.server, target) };
        self.world.with_peer(self.peers[1], |peer, now| peer.connect(now, request)).unwrap()
    }

    fn address_of_listener(&self) -> String {
        let side = &self.scenario.sides[0];
        if side.ipv4 { "198.51.100.1".to_owned() } else { "2001:db8:1::2".to_owned() }
    }

    fn judge(&mut self, session: SessionId) -> Result<Outcome, String> {
        let [listener, connector] = self.peers;
        let over = |world: &World| {
            let is_over = |node| world.node(node).is_connected() || failure(world, node).is_some();
            is_over(connector) && (is_over(listener) || !world.node(listener).any(is_introduced))
        };
        // Asking, waiting for the listener, and punching.
        if !self.world.run_until(Duration::from_secs(70), over) {
            return Err("it never ends".to_owned());
        }
        // The listener may be the later one.
        self.world.run_until(Duration::from_secs(35), |world| {
            [listener, connector].iter().all(|node| world.node(*node).is_connected())
                || [listener, connector].iter().all(|node| failure(world, *node).is_some())
        });
        let is_connected = self.peers.map(|node| self.world.node(node).is_connected());
        let failures = self.peers.map(|node| failure(&self.world, node));
        let expected = self.scenario.expected();
        let outcome = match (is_connected, expected) {
            ([true, true], Expected::Connected | Expected::Either) => Outcome::AsExpected(expected),
            ([true, true], Expected::Timeout) => Outcome::Lucky,
            ([false, false], Expected::Timeout | Expected::Either) if failures == [Some(ErrorKind::Timeout); 2] => {
                Outcome::AsExpected(expected)
            }
            ([false, false], Expected::NoPath) if failures[1] == Some(ErrorKind::NoPath) => {
                Outcome::AsExpected(expected)
            }
            _ if self.scenario.is_lossy() && is_connected != [true; 2] && failures.iter().any(Option::is_some) => {
                return Ok(Outcome::Unlucky);
            }
            _ => return Err(format!("{expected:?} is expected; connected: {is_connected:?}, failed: {failures:?}")),
        };
        if is_connected == [true; 2] {
            self.check_time()?;
            self.exchange_data(session)?;
        }
        Ok(outcome)
    }

    /// Where nothing is lost there is not much to wait for. Most meetings take a round trip or two; behind borders that
    /// refuse SYNs, and far apart, attempts over TCP miss each other for a while.
    fn check_time(&self) -> Result<(), String> {
        let time = |node, is_it: fn(&PeerEvent) -> bool| self.world.node(node).time_of(is_it).unwrap_or(Time::ZERO);
        let latest = |is_it: fn(&PeerEvent) -> bool| self.peers.map(|node| time(node, is_it)).into_iter().max();
        let took = latest(is_connected_event).unwrap_or_default().since(latest(is_introduced).unwrap_or_default());
        let round_trip = self.scenario.round_trip();
        let most = if self.scenario.tcp {
            round_trip * 20 + Duration::from_secs(5)
        } else {
            round_trip * 3 + Duration::from_millis(500)
        };
        if self.scenario.is_lossy() || took <= most {
            return Ok(());
        }
        Err(format!("connected {took:?} after the introduction; the round trip takes {round_trip:?}"))
    }

    /// Data goes both ways where nothing is lost any more.
    fn exchange_data(&mut self, session: SessionId) -> Result<(), String> {
        for (site, link) in &self.links {
            self.world.net.set_link(*site, Link { loss: 0.0, jitter: Duration::ZERO, ..*link });
        }
        let peers = self.peers;
        let texts = [&b"from the listener"[..], b"from the connector"];
        let tcp = self.scenario.tcp;
        let has_arrived = |world: &World| {
            [0, 1].map(|side| {
                let (node, text) = (peers[side], texts[1 - side]);
                match tcp {
                    true => world.stream_received(node, session) == text,
                    false => world.node(node).received.iter().any(|(at, data)| *at == session && data == text),
                }
            })
        };
        // A SYN-ACK's acknowledgement may have been lost, and what follows it waits. Where checks were lost, or overtook
        // each other, a NAT may change its port still, and a datagram that comes from there before a check is nobody's.
        let (patience, times) = match (tcp, self.scenario.is_steady()) {
            (true, _) => (Duration::from_secs(60), 1),
            (false, is_steady) => (self.scenario.round_trip(), if is_steady { 1 } else { 5 }),
        };
        let arrives = (0..times).any(|_| {
            for (side, text) in texts.into_iter().enumerate() {
                if tcp {
                    self.world.send_stream(peers[side], session, text);
                } else {
                    let path = self.path_of(peers[side]);
                    self.world.send_data(peers[side], &path, text);
                }
            }
            self.world.run_until(patience, |world| has_arrived(world) == [true; 2])
        });
        if arrives { Ok(()) } else { Err(format!("whom data reached: {:?}", has_arrived(&self.world))) }
    }

    /// Where a connected peer's datagrams go.
    fn path_of(&self, node: NodeId) -> Path {
        let mut path = None;
        for (_, event) in &self.world.node(node).events {
            match (event, &mut path) {
                (PeerEvent::Connected { path: found, .. }, _) => path = Some(*found),
                (PeerEvent::Moved { remote, .. }, Some(path)) => path.remote = *remote,
                _ => {}
            }
        }
        path.expect("connected")
    }

    /// The connector leaves, and keeps nothing.
    fn leave(&mut self) -> Result<(), String> {
        let [_, connector] = self.peers;
        let sessions: Vec<SessionId> =
            self.world.node(connector).events.iter().filter_map(|(_, event)| session_of(event)).collect();
        for session in sessions {
            self.world.with_peer(connector, |peer, now| peer.close(now, session));
        }
        self.world.run_for(Duration::from_secs(10));
        let (sockets, tcp, wake) =
            (self.world.sockets(connector), self.world.tcp_of_machine(connector), self.world.wake(connector));
        if sockets.is_empty() && tcp == (0, 0) && wake.is_none() {
            return Ok(());
        }
        Err(format!("left behind: {sockets:?}, ports and connections {tcp:?}, a timer at {wake:?}"))
    }
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn failure(world: &World, node: NodeId) -> Option<ErrorKind> {
    world.node(node).events.iter().find_map(|(_, event)| match event {
        PeerEvent::Failed { error, .. } | PeerEvent::ListenFailed { error, .. } => Some(error.kind()),
        _ => None,
    })
}

fn session_of(event: &PeerEvent) -> Option<SessionId> {
    match event {
        PeerEvent::Introduced { session, .. } => Some(*session),
        _ => None,
    }
}

const fn is_introduced(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Introduced { .. })
}

const fn is_connected_event(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Connected { .. })
}
