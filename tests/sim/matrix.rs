//! Every pair of NATs.

use crate::world::{NodeId, World};
use holepunch::{
    config::{PeerConfig, ServerConfig},
    peer::PeerEvent,
};
use netsim::{
    HostSpec, Link, SiteId, SiteSpec,
    oracle::{Expectation, NatKind, expected, pair_name, unordered_pairs},
};
use std::time::Duration;

/// What came of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// From the later introduction to connected on both sides, in round trips between the peers.
    pub(crate) round_trips: Option<f64>,
    /// From the call to connected on both sides, in milliseconds.
    pub(crate) total_ms: f64,
    /// Datagrams of checks that each side had sent then.
    pub(crate) packets: [u32; 2],
    pub(crate) digest: u64,
}

const DELAY: Duration = Duration::from_millis(20);

pub(crate) struct Pair {
    pub(crate) world: World,
    pub(crate) server: NodeId,
    pub(crate) a: NodeId,
    pub(crate) b: NodeId,
    pub(crate) sites: [SiteId; 2],
}

/// Two sites, each behind its NAT, 20 ms from the backbone; a server in it.
pub(crate) fn pair(seed: u64, a: NatKind, b: NatKind) -> Pair {
    let mut world = World::new(seed);
    let host = world.net.add_host(HostSpec { addresses: vec!["192.0.2.1".parse().unwrap()], link: Link::PERFECT });
    let server = world.add_server(host, ServerConfig::default());
    let mut sites = Vec::new();
    let mut peers = [(1, a), (2, b)]
        .map(|(number, kind)| {
            let site = world.net.add_site(SiteSpec {
                public: vec![format!("198.51.100.{number}").parse().unwrap()],
                nat: Some(kind.nat()),
                link: Link { delay: DELAY, ..Link::PERFECT },
                ..SiteSpec::default()
            });
            sites.push(site);
            let host = world.net.add_host_in(site, vec![format!("10.0.{number}.2").parse().unwrap()], Link::PERFECT);
            world.add_peer(host, PeerConfig::default())
        })
        .into_iter();
    Pair { server, a: peers.next().unwrap(), b: peers.next().unwrap(), sites: [sites[0], sites[1]], world }
}

/// Connects b to a, with loss on each link from the introduction on.
pub(crate) fn run(seed: u64, a: NatKind, b: NatKind, loss: f64) -> Outcome {
    let Pair { mut world, server, a, b, sites } = pair(seed, a, b);
    world.listen(a, server, Some("bob"));
    world.run_until_registered(a);
    let start = world.net.now();
    world.connect(b, server, "bob");
    let introduced = |event: &PeerEvent| matches!(event, PeerEvent::Introduced { .. });
    assert!(
        world.run_until(Duration::from_secs(5), |world| world.node(b).any(introduced) || world.node(a).any(introduced))
    );
    for site in sites {
        world.net.set_link(site, Link { delay: DELAY, ..Link::PERFECT }.with_loss(loss));
    }
    let both = |world: &World| world.node(a).is_connected() && world.node(b).is_connected();
    let connected = world.run_until(Duration::from_secs(40), both);
    let later = world.node(a).time_of(introduced).max(world.node(b).time_of(introduced)).unwrap();
    let end = world.net.now();
    let packets = [a, b].map(|node| {
        world
            .node(node)
            .events
            .iter()
            .find_map(|(_, event)| match event {
                PeerEvent::Connected { path, .. } => Some(path.packets_sent),
                _ => None,
            })
            .unwrap_or(0)
    });
    Outcome {
        round_trips: connected.then(|| end.since(later).as_secs_f64() / (4.0 * DELAY.as_secs_f64())),
        total_ms: end.since(start).as_secs_f64() * 1e3,
        packets,
        digest: world.net.trace_digest(),
    }
}

#[test]
fn all() {
    let mut bad = 0;
    for (a, b) in unordered_pairs() {
        let outcome = run(1, a, b, 0.0);
        let want = matches!(expected(a, b), Expectation::Plain | Expectation::PeerReflexive);
        if want != outcome.round_trips.is_some() {
            bad += 1;
            println!("{} {:?} {:?}", pair_name(a, b), expected(a, b), outcome);
        } else if outcome.round_trips.is_some() {
            println!(
                "{} {:?} {:?} {:.0} {:?}",
                pair_name(a, b),
                expected(a, b),
                outcome.round_trips,
                outcome.total_ms,
                outcome.packets
            );
        }
    }
    println!("bad {bad}");
}
