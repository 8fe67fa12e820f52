//! A bare probe: the least that could be called hole punching, and so the floor that real code is compared with.
//!
//! Two endpoints, each behind a NAT of its own, send one datagram to a server; the server's view of each is handed to the other.
//! From its start on, each sends a 20-byte check every 20 ms to every address it knows: first the one handed over, then also the
//! source of whatever arrived, to which it also sends a check at once. It answers each check with a response to its source. An
//! endpoint is connected when a response to a check of its own arrives. There is no prediction and no search, no retreat and no
//! end but success or 30 s.
//!
//! Links are perfect but for their delay while the endpoints speak to the server; then they get the properties that were asked.

use crate::forwarding::Datagram;
use crate::link::Link;
use crate::network::{HostId, HostSpec, Network, SiteSpec};
use crate::oracle::NatKind;
use crate::time::Time;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Time between two checks to the same address.
const INTERVAL: Duration = Duration::from_millis(20);
/// Time after the later start at which the probe gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Length of a check or a response in bytes: that of a STUN header (RFC 8489, section 5).
const LENGTH: usize = 20;
/// First byte of a check.
const CHECK: u8 = 0;
/// First byte of a response.
const RESPONSE: u8 = 1;
/// TTL of everything sent.
const TTL: u8 = 64;
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 3478);

/// A probe to be run.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Seed of the network.
    pub seed: u64,
    /// NAT of the first endpoint.
    pub a: NatKind,
    /// NAT of the second endpoint.
    pub b: NatKind,
    /// Uplink of each site; a datagram between the endpoints crosses two.
    pub link: Link,
    /// How much later the second endpoint starts.
    pub skew: Duration,
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// Nanoseconds from the later start until both endpoints were connected; none if they were not within 30 s.
    pub connected: Option<u64>,
    /// Datagrams the endpoints sent from their start until then, first and second.
    pub sent: [u64; 2],
    /// Digest of the whole run.
    pub digest: u64,
}

/// Runs a probe in which both endpoints start at once.
#[must_use]
pub fn run(seed: u64, a: NatKind, b: NatKind, link: Link) -> ProbeResult {
    Probe { seed, a, b, link, skew: Duration::ZERO }.run()
}

struct Endpoint {
    host: HostId,
    local: SocketAddr,
    /// Where checks go: the peer's address as the server saw it, then every source seen.
    remotes: Vec<SocketAddr>,
    next_round: Time,
    connected: bool,
    sent_before: u64,
}

impl Endpoint {
    fn send(&self, net: &mut Network, destination: SocketAddr, kind: u8) {
        let mut payload = vec![0; LENGTH];
        payload[0] = kind;
        net.send(self.host, Datagram { source: self.local, destination, ttl: TTL, payload });
    }

    /// Sends the checks that are due.
    fn handle_timeout(&mut self, net: &mut Network) {
        if self.next_round <= net.now() {
            for remote in &self.remotes {
                self.send(net, *remote, CHECK);
            }
            self.next_round += INTERVAL;
        }
    }

    fn handle_input(&mut self, net: &mut Network, source: SocketAddr, kind: u8) {
        if kind == CHECK {
            self.send(net, source, RESPONSE);
        } else {
            self.connected = true;
        }
        if !self.remotes.contains(&source) {
            self.remotes.push(source);
            self.send(net, source, CHECK);
        }
    }
}

impl Probe {
    /// Runs the probe in a network of its own.
    #[must_use]
    pub fn run(&self) -> ProbeResult {
        let mut net = Network::new(self.seed);
        let server = net.add_host(HostSpec { addresses: vec![SERVER.ip()], link: Link::PERFECT });
        let clean = Link { delay: self.link.delay, ..Link::PERFECT };
        let mut sites = Vec::new();
        let mut endpoints = [(1, self.a), (2, self.b)].map(|(number, kind)| {
            let public = vec![Ipv4Addr::new(198, 51, 100, number).into()];
            let site = net.add_site(SiteSpec { public, nat: Some(kind.nat()), link: clean, ..SiteSpec::default() });
            sites.push(site);
            let local = SocketAddr::from((Ipv4Addr::new(10, 0, 0, number), 5000));
            let host = net.add_host_in(site, vec![local.ip()], Link::PERFECT);
            Endpoint { host, local, remotes: Vec::new(), next_round: Time::ZERO, connected: false, sent_before: 1 }
        });

        let views = endpoints.each_ref().map(|endpoint| {
            endpoint.send(&mut net, SERVER, CHECK);
            while let Some(time) = net.next_event() {
                net.advance_to(time);
                if let Some(delivery) = net.poll_delivery() {
                    debug_assert_eq!(delivery.host, server);
                    return delivery.source;
                }
            }
            unreachable!("a clean link and a NAT that lets UDP out")
        });
        for site in sites {
            net.set_link(site, self.link);
        }
        let first = net.now();
        let later = first + self.skew;
        for (endpoint, (remote, start)) in endpoints.iter_mut().zip([(views[1], first), (views[0], later)]) {
            endpoint.remotes.push(remote);
            endpoint.next_round = start;
        }

        let end = later + PATIENCE;
        loop {
            for endpoint in &mut endpoints {
                endpoint.handle_timeout(&mut net);
            }
            while let Some(delivery) = net.poll_delivery() {
                for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.host == delivery.host) {
                    endpoint.handle_input(&mut net, delivery.source, delivery.payload[0]);
                }
            }
            let is_connected = endpoints.iter().all(|endpoint| endpoint.connected);
            if is_connected || net.now() >= end {
                return ProbeResult {
                    connected: is_connected.then(|| net.now().0.saturating_sub(later.0)),
                    sent: endpoints.map(|endpoint| net.counters(endpoint.host).packets_sent - endpoint.sent_before),
                    digest: net.trace_digest(),
                };
            }
            let timeouts = endpoints.iter().map(|endpoint| endpoint.next_round).chain(net.next_event());
            let next = timeouts.min().unwrap_or(end).min(end);
            net.advance_to(next);
        }
    }
}
