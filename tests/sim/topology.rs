//! The networks that the tests use, and the meeting of two peers in them.

use crate::world::{NodeId, World};
use holepunch::{
    config::{PeerConfig, ServerConfig},
    peer::{Path, PeerEvent},
    wire::stun::SessionId,
};
use netsim::{HostSpec, Link, SiteId, SiteSpec, Time, oracle::NatKind};
use std::{net::IpAddr, time::Duration};

/// One way from a site to the backbone; the round trip between two sites is four of these.
pub(crate) const DELAY: Duration = Duration::from_millis(20);
/// Between two peers in two sites.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(80);

pub(crate) fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

pub(crate) fn link() -> Link {
    Link { delay: DELAY, ..Link::PERFECT }
}

/// A server on the backbone, and two peers in sites of their own.
pub(crate) struct Pair {
    pub(crate) world: World,
    pub(crate) server: NodeId,
    pub(crate) listener: NodeId,
    pub(crate) connector: NodeId,
    pub(crate) sites: [SiteId; 2],
}

/// Puts a server with one address of each family on the backbone.
pub(crate) fn add_server(world: &mut World) -> NodeId {
    let host = world.net.add_host(HostSpec { addresses: ips(&["192.0.2.1", "2001:db8::1"]), link: Link::PERFECT });
    world.add_server(host, ServerConfig::default())
}

impl Pair {
    /// Both behind a NAT of IPv4, with private addresses inside.
    pub(crate) fn new(seed: u64, listener: NatKind, connector: NatKind) -> Self {
        let mut world = World::new(seed);
        let server = add_server(&mut world);
        let mut peer = |number: u8, kind: NatKind| {
            let site = world.net.add_site(SiteSpec {
                public: ips(&[&format!("198.51.100.{number}")]),
                nat: Some(kind.nat()),
                link: link(),
                ..SiteSpec::default()
            });
            let host = world.net.add_host_in(site, ips(&[&format!("10.0.{number}.2")]), Link::PERFECT);
            (site, world.add_peer(host, PeerConfig::default()))
        };
        let (first, listener) = peer(1, listener);
        let (second, connector) = peer(2, connector);
        Self { world, server, listener, connector, sites: [first, second] }
    }

    /// Listens as "bob", connects, and runs until both are introduced.
    pub(crate) fn introduce(&mut self) -> SessionId {
        self.world.listen(self.listener, self.server, Some("bob"));
        self.world.run_until_registered(self.listener);
        let session = self.world.connect(self.connector, self.server, "bob");
        let (listener, connector) = (self.listener, self.connector);
        let introduced =
            |world: &World| world.node(listener).any(is_introduced) || world.node(connector).any(is_introduced);
        assert!(self.world.run_until(Duration::from_secs(10), introduced), "not introduced");
        session
    }

    /// Runs until both are connected, or the patience ends; whether they are.
    pub(crate) fn run_until_connected(&mut self, patience: Duration) -> bool {
        let (listener, connector) = (self.listener, self.connector);
        self.world
            .run_until(patience, |world| world.node(listener).is_connected() && world.node(connector).is_connected())
    }

    /// When the later of the two was introduced.
    pub(crate) fn later_introduction(&self) -> Time {
        let time = |node| self.world.node(node).time_of(is_introduced);
        time(self.listener).max(time(self.connector)).expect("introduced")
    }

    /// Sends data both ways along the selected paths and runs until it has arrived; whether it did, at the right session.
    pub(crate) fn exchange_data(&mut self, session: SessionId) -> bool {
        let (listener, connector) = (self.listener, self.connector);
        for (node, text) in [(listener, &b"from the listener"[..]), (connector, b"from the connector")] {
            let path = path(&self.world, node).expect("connected");
            self.world.send_data(node, &path, text);
        }
        let arrived = |world: &World, node, text: &[u8]| {
            world.node(node).received.iter().any(|(at, data)| *at == session && data == text)
        };
        self.world.run_until(ROUND_TRIP, |world| {
            arrived(world, connector, b"from the listener") && arrived(world, listener, b"from the connector")
        })
    }
}

pub(crate) const fn is_introduced(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Introduced { .. })
}

/// The path that a peer is connected by.
pub(crate) fn path(world: &World, node: NodeId) -> Option<Path> {
    world.node(node).events.iter().find_map(|(_, event)| match event {
        PeerEvent::Connected { path, .. } => Some(*path),
        _ => None,
    })
}
