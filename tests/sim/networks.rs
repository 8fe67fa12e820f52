//! Networks that are not two NATs: one LAN, firewalls, two families, a carrier's NAT, nothing in common.

use crate::{
    topology::{DELAY, Pair, add_server, ips, link, path},
    world::{NodeId, World},
};
use holepunch::{
    ErrorKind,
    config::{PeerConfig, ServerConfig},
    peer::PeerEvent,
    punch::CandidateKind,
};
use netsim::{Firewall, HostSpec, Link, Nat, SiteSpec, oracle::NatKind};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

fn nat(index: usize) -> Option<Nat> {
    Some(NatKind::all()[index].nat())
}

fn meet(world: &mut World, server: NodeId, listener: NodeId, connector: NodeId) -> bool {
    world.listen(listener, server, Some("bob"));
    world.run_until_registered(listener);
    world.connect(connector, server, "bob");
    world.run_until(PATIENCE, |world| world.node(listener).is_connected() && world.node(connector).is_connected())
}

fn failure(world: &World, node: NodeId) -> Option<ErrorKind> {
    world.node(node).events.iter().find_map(|(_, event)| match event {
        PeerEvent::Failed { error, .. } => Some(error.kind()),
        _ => None,
    })
}

#[test]
fn peers_on_one_lan_are_connected_directly_behind_any_nat() {
    for index in 0..27 {
        let mut world = World::new(1);
        let server = add_server(&mut world);
        let site = world.net.add_site(SiteSpec {
            public: ips(&["198.51.100.1"]),
            nat: nat(index),
            link: link(),
            ..SiteSpec::default()
        });
        let peers = ["10.0.0.2", "10.0.0.3"].map(|address| {
            let host = world.net.add_host_in(site, ips(&[address]), Link::PERFECT);
            world.add_peer(host, PeerConfig::default())
        });
        assert!(meet(&mut world, server, peers[0], peers[1]));
        let path = path(&world, peers[1]).unwrap();
        assert_eq!(
            (path.remote.ip(), path.kind),
            (ips(&["10.0.0.2"])[0], CandidateKind::Host),
            "{}",
            NatKind::all()[index]
        );
    }
}

#[test]
fn a_server_on_the_same_lan_introduces_too() {
    let mut world = World::new(2);
    let hosts = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        .map(|address| world.net.add_host(HostSpec { addresses: ips(&[address]), link: Link::delay_ms(1) }));
    let server = world.add_server(hosts[0], ServerConfig::default());
    let (a, b) = (world.add_peer(hosts[1], PeerConfig::default()), world.add_peer(hosts[2], PeerConfig::default()));
    assert!(meet(&mut world, server, a, b));
    assert_eq!(path(&world, b).unwrap().remote.ip(), ips(&["10.0.0.2"])[0]);
}

#[test]
fn two_firewalls_of_ipv6_are_punched_in_one_round_trip() {
    let mut world = World::new(3);
    let server = add_server(&mut world);
    let peers = ["2001:db8:a::2", "2001:db8:b::2"].map(|address| {
        let site =
            world.net.add_site(SiteSpec { firewall: Some(Firewall::default()), link: link(), ..SiteSpec::default() });
        let host = world.net.add_host_in(site, ips(&[address]), Link::PERFECT);
        world.add_peer(host, PeerConfig::default())
    });
    assert!(meet(&mut world, server, peers[0], peers[1]));
    let path = path(&world, peers[1]).unwrap();
    assert_eq!(path.remote.ip(), ips(&["2001:db8:a::2"])[0]);
    assert_eq!(path.since_introduction, DELAY * 4);
}

/// Two sites with private IPv4 behind NATs of a kind, and IPv6 behind firewalls.
fn dual_stack(seed: u64, index: usize) -> (World, NodeId, [NodeId; 2]) {
    let mut world = World::new(seed);
    let server = add_server(&mut world);
    let peers = [1, 2].map(|number| {
        let site = world.net.add_site(SiteSpec {
            public: ips(&[&format!("198.51.100.{number}")]),
            nat: nat(index),
            firewall: Some(Firewall::default()),
            link: link(),
            ..SiteSpec::default()
        });
        let addresses = ips(&[&format!("10.0.{number}.2"), &format!("2001:db8:{number}::2")]);
        let host = world.net.add_host_in(site, addresses, Link::PERFECT);
        world.add_peer(host, PeerConfig::default())
    });
    (world, server, peers)
}

#[test]
fn two_families_connect_by_whichever_works() {
    // Both behind NATs that no plain punch gets through: IPv6 does.
    let (mut world, server, [a, b]) = dual_stack(4, 26);
    assert!(meet(&mut world, server, a, b));
    assert!(path(&world, b).unwrap().remote.is_ipv6());
    // IPv6 is told of and dead: IPv4 does, in the same time.
    let (mut world, server, [a, b]) = dual_stack(5, 6);
    world.on_send = Some(Box::new(|datagram| !datagram.source.is_ipv6()));
    assert!(meet(&mut world, server, a, b));
    let path = path(&world, b).unwrap();
    assert!(path.remote.is_ipv4());
    assert_eq!(path.since_introduction, DELAY * 4);
}

#[test]
fn peers_without_a_common_family_are_told_at_once() {
    let mut world = World::new(6);
    let server = add_server(&mut world);
    let a = world.net.add_host(HostSpec { addresses: ips(&["198.51.100.1"]), link: link() });
    let b = world.net.add_host(HostSpec { addresses: ips(&["2001:db8::b"]), link: link() });
    let (a, b) = (world.add_peer(a, PeerConfig::default()), world.add_peer(b, PeerConfig::default()));
    world.listen(a, server, Some("bob"));
    world.run_until_registered(a);
    let start = world.net.now();
    world.connect(b, server, "bob");
    assert!(world.run_until(PATIENCE, |world| failure(world, b).is_some()));
    assert_eq!(failure(&world, b), Some(ErrorKind::NoPath));
    assert_eq!(world.net.now().since(start), DELAY * 4, "two round trips to the server");
}

#[test]
fn a_carrier_nat_over_a_home_nat_is_punched() {
    let mut world = World::new(7);
    let server = add_server(&mut world);
    let peers = [1, 2].map(|number| {
        let carrier = world.net.add_site(SiteSpec {
            public: ips(&[&format!("198.51.100.{number}")]),
            nat: nat(6),
            link: link(),
            ..SiteSpec::default()
        });
        let home = world.net.add_site(SiteSpec {
            parent: Some(carrier),
            public: ips(&["100.64.0.9"]),
            nat: nat(6),
            ..SiteSpec::default()
        });
        // The same private address on both sides.
        let host = world.net.add_host_in(home, ips(&["192.168.1.2"]), Link::PERFECT);
        world.add_peer(host, PeerConfig::default())
    });
    assert!(meet(&mut world, server, peers[0], peers[1]));
    assert_eq!(path(&world, peers[1]).unwrap().remote.ip(), ips(&["198.51.100.1"])[0]);
}

#[test]
fn blocked_udp_and_a_server_without_tcp_are_a_silent_server() {
    let mut world = World::new(8);
    let server = add_server(&mut world);
    let firewall = Firewall { block_udp: true, ..Firewall::default() };
    let site = world.net.add_site(SiteSpec { firewall: Some(firewall), link: link(), ..SiteSpec::default() });
    let host = world.net.add_host_in(site, ips(&["2001:db8:a::2"]), Link::PERFECT);
    let peer = world.add_peer(host, PeerConfig::default());
    world.refuse_tcp(server);
    world.connect(peer, server, "bob");
    assert!(world.run_until(Duration::from_secs(6), |world| failure(world, peer).is_some()));
    assert_eq!(failure(&world, peer), Some(ErrorKind::ServerSilent));
}

#[test]
fn dead_interfaces_do_not_delay_the_one_that_works() {
    let mut world = World::new(9);
    let server = add_server(&mut world);
    let peers = [1, 2].map(|number| {
        let host = world.net.add_host(HostSpec { addresses: ips(&[&format!("198.51.100.{number}")]), link: link() });
        let node = world.add_peer(host, PeerConfig::default());
        let dead: Vec<_> = (1..=4).map(|n| format!("172.16.{number}.{n}").parse().unwrap()).collect();
        let all: Vec<_> = ips(&[&format!("198.51.100.{number}")]).into_iter().chain(dead).collect();
        world.with_peer(node, |peer, now| {
            peer.handle_input(now, holepunch::machine::Input::Interfaces(&all));
        });
        node
    });
    assert!(meet(&mut world, server, peers[0], peers[1]));
    assert_eq!(path(&world, peers[1]).unwrap().since_introduction, DELAY * 4);
}

#[test]
fn an_address_that_appears_after_the_introduction_is_trickled() {
    // Behind NATs that no plain punch gets through; then both sides get IPv6.
    let kind = NatKind::all()[26];
    let mut pair = Pair::new(10, kind, kind);
    let session = pair.introduce();
    pair.world.run_for(Duration::from_secs(2));
    for (node, address) in [(pair.listener, "2001:db8:a::2"), (pair.connector, "2001:db8:b::2")] {
        let host = pair.world.host(node);
        pair.world.net.add_address(host, ips(&[address])[0]);
        let all = pair.world.net.addresses(host);
        pair.world.with_peer(node, |peer, now| {
            peer.handle_input(now, holepunch::machine::Input::Interfaces(&all));
        });
    }
    assert!(pair.run_until_connected(PATIENCE), "{}", pair.world.net.trace());
    assert!(path(&pair.world, pair.connector).unwrap().remote.is_ipv6());
    assert!(pair.exchange_data(session));
}
