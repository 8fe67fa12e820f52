//! Networks that let no UDP through: listeners are registered, and peers introduced, over TCP.

use crate::{
    topology::{Pair, add_server, ips, is_introduced, link, path},
    world::{NodeId, World},
};
use holepunch::{
    Error, ErrorKind,
    config::{PeerConfig, ServerConfig},
    peer::{ConnectRequest, PeerEvent, ServerAddress, Transport},
    wire::stun::SessionId,
};
use netsim::{Event, Firewall, HostSpec, Link, Place, SiteSpec, Time, oracle::NatKind};
use std::{net::SocketAddr, time::Duration};

const PATIENCE: Duration = Duration::from_secs(30);

fn kind(name: &str) -> NatKind {
    NatKind::all().into_iter().find(|kind| kind.name() == name).unwrap()
}

const NO_UDP: fn() -> Option<Firewall> = || Some(Firewall { block_udp: true, ..Firewall::default() });

/// Two peers behind NATs that plain punching gets through; which of their networks let no UDP through.
fn pair(seed: u64, blocked: [bool; 2]) -> Pair {
    let mut pair = Pair::new(seed, kind("eim_apdf_preserving"), kind("eim_apdf_preserving"));
    for (site, blocked) in pair.sites.into_iter().zip(blocked) {
        if blocked {
            pair.world.net.set_firewall(site, NO_UDP());
        }
    }
    pair
}

/// How a node was registered, each time.
fn registrations(world: &World, node: NodeId) -> Vec<(Time, Transport)> {
    let events = world.node(node).events.iter();
    events
        .filter_map(
            |(time, event)| if let PeerEvent::Registered { via, .. } = event { Some((*time, *via)) } else { None },
        )
        .collect()
}

fn failure(world: &World, node: NodeId) -> Option<(Time, Error)> {
    world.node(node).events.iter().find_map(|(time, event)| match event {
        PeerEvent::Failed { error, .. } | PeerEvent::ListenFailed { error, .. } => Some((*time, error.clone())),
        _ => None,
    })
}

fn connects(world: &World, node: NodeId) -> usize {
    world.node(node).events.iter().filter(|(_, event)| matches!(event, PeerEvent::Connected { .. })).count()
}

/// Runs until both ends have the stream of a session, and data has gone both ways.
fn meet(world: &mut World, listener: NodeId, connector: NodeId, session: SessionId) -> bool {
    let has = |world: &World, node: NodeId| {
        let is_it = |event: &PeerEvent| matches!(event, PeerEvent::Connected { session: of, .. } if *of == session);
        world.node(node).any(is_it)
    };
    if !world.run_until(PATIENCE, |world| has(world, listener) && has(world, connector)) {
        return false;
    }
    world.send_stream(listener, session, b"from the listener");
    world.send_stream(connector, session, b"from the connector");
    world.run_until(PATIENCE, |world| {
        world.stream_received(connector, session) == b"from the listener"
            && world.stream_received(listener, session) == b"from the connector"
    })
}

#[test]
fn streams_are_found_whichever_side_has_no_udp() {
    for (seed, blocked) in [(1, [false, true]), (2, [true, false]), (3, [true, true])] {
        let mut pair = pair(seed, blocked);
        let (server, listener, connector) = (pair.server, pair.listener, pair.connector);
        pair.world.listen(listener, server, Some("bob"));
        pair.world.run_until_registered(listener);
        let via = if blocked[0] { Transport::Tcp } else { Transport::Udp };
        let registered = registrations(&pair.world, listener);
        assert_eq!(registered.iter().map(|(_, via)| *via).collect::<Vec<_>>(), [via]);
        // 300 ms of silence, then a handshake, a greeting and a request, of a round trip each; or a cookie and the
        // confirmation.
        assert_eq!(registered[0].0.as_millis(), if blocked[0] { 300 + 3 * 40 } else { 2 * 40 });
        let session = pair.world.connect_stream(connector, server, "bob");
        assert!(meet(&mut pair.world, listener, connector, session), "{blocked:?}\n{}", pair.world.net.trace());
        // Nothing is left of the session; the listener's connection stays where it is needed.
        pair.world.run_for(Duration::from_secs(5));
        assert_eq!(pair.world.tcp_of_machine(connector), (0, 0));
        assert_eq!(pair.world.wake(connector), None);
        let kept = usize::from(blocked[0]);
        assert_eq!(pair.world.tcp_of_machine(listener), (kept, kept));
        // An hour later it is still found.
        pair.world.run_for(Duration::from_secs(3600));
        assert_eq!(registrations(&pair.world, listener).len(), 1, "nothing has changed");
        let again = pair.world.connect_stream(connector, server, "bob");
        assert!(meet(&mut pair.world, listener, connector, again), "{blocked:?}");
        // And it is gone at once when it leaves.
        pair.world.with_peer(listener, |peer, now| peer.close_listener(now, holepunch::peer::ListenerId(0)));
        pair.world.run_for(Duration::from_secs(1));
        assert_eq!(pair.world.server(server).stats().registrations, 0);
        assert_eq!(pair.world.tcp_of_machine(listener), (0, 0));
        assert_eq!(pair.world.wake(listener), None);
    }
}

/// A server that introduces along a connection has not seen where our datagrams come from, and without that the listener
/// does not find us: it is asked over UDP again, though the last requests were lost, and not half a second later.
#[test]
fn who_is_introduced_over_tcp_asks_over_udp_again_at_once() {
    let mut pair = pair(5, [false, true]);
    let (server, listener, connector) = (pair.server, pair.listener, pair.connector);
    pair.world.listen(listener, server, Some("bob"));
    pair.world.run_until_registered(listener);
    pair.world.connect(connector, server, "bob");
    assert!(pair.world.run_until(PATIENCE, |world| world.node(connector).any(is_introduced)));
    pair.world.net.set_firewall(pair.sites[1], None);
    let introduced = pair.world.net.now();
    assert!(pair.run_until_connected(PATIENCE));
    // The first request met the firewall, the second leaves 100 ms later. Its challenge comes back after 40 ms, the listener
    // hears of us after 40 more, and a check and its answer take 80; our next check may not be due at once.
    let took = pair.world.net.now().since(introduced);
    assert!(took < Duration::from_millis(100 + 40 + 40 + 80 + 40), "{took:?}");
}

#[test]
fn datagrams_go_their_way_though_the_server_is_not_reached_by_any() {
    let mut world = World::new(4);
    let server = add_server(&mut world);
    let nodes = [1, 2].map(|number| {
        let addresses = ips(&[&format!("198.51.100.{number}")]);
        let host = world.net.add_host(HostSpec { addresses, link: link() });
        world.add_peer(host, PeerConfig::default())
    });
    let server_ip = ips(&["192.0.2.1"])[0];
    world.on_send = Some(Box::new(move |datagram| datagram.destination.ip() != server_ip));
    world.listen(nodes[0], server, Some("bob"));
    world.run_until_registered(nodes[0]);
    world.connect(nodes[1], server, "bob");
    let connected = |world: &World| nodes.iter().all(|node| world.node(*node).is_connected());
    assert!(world.run_until(PATIENCE, connected), "{}", world.net.trace());
    let path = path(&world, nodes[1]).unwrap();
    assert_eq!(path.remote.ip(), ips(&["198.51.100.1"])[0]);
    // The host that the server has seen the peer at over TCP is believed: a peer that is only heard of gets two checks.
    assert_eq!(world.tcp_of_machine(nodes[1]), (0, 0));
}

#[test]
fn a_registration_outlives_its_connection_and_the_server() {
    let mut pair = pair(5, [true, true]);
    let (server, listener, connector) = (pair.server, pair.listener, pair.connector);
    pair.world.listen(listener, server, Some("bob"));
    pair.world.run_until_registered(listener);
    for end in [World::break_streams as fn(&mut World, NodeId), |world, server| {
        world.restart_server(server, ServerConfig::default())
    }] {
        let before = registrations(&pair.world, listener).len();
        end(&mut pair.world, server);
        assert_eq!(pair.world.server(server).stats().registrations, 0);
        let back = |world: &World| registrations(world, listener).len() > before;
        assert!(pair.world.run_until(Duration::from_secs(2), back), "{}", pair.world.net.trace());
        let session = pair.world.connect_stream(connector, server, "bob");
        assert!(meet(&mut pair.world, listener, connector, session), "{}", pair.world.net.trace());
    }
    // A server that is away is called again and again, ever more seldom, and found when it is back.
    let before = registrations(&pair.world, listener).len();
    pair.world.net.set_link_up(pair.world.host(server), false);
    pair.world.break_streams(listener);
    pair.world.run_for(Duration::from_secs(600));
    pair.world.net.set_link_up(pair.world.host(server), true);
    let back = |world: &World| registrations(world, listener).len() > before;
    assert!(pair.world.run_until(Duration::from_secs(130), back), "{}", pair.world.net.trace());
}

#[test]
fn an_introduction_outlives_its_connections() {
    for seed in 6..10 {
        let mut pair = pair(seed, [true, true]);
        let (server, listener, connector) = (pair.server, pair.listener, pair.connector);
        pair.world.listen(listener, server, Some("bob"));
        pair.world.run_until_registered(listener);
        let session = pair.world.connect_stream(connector, server, "bob");
        // As soon as both know of each other: neither has told the other where its port is mapped.
        let introduced = |world: &World| {
            [listener, connector].iter().any(|node| world.node(*node).any(crate::topology::is_introduced))
        };
        assert!(pair.world.run_until(PATIENCE, introduced));
        pair.world.break_streams(server);
        assert!(meet(&mut pair.world, listener, connector, session), "{}", pair.world.net.trace());
    }
}

#[test]
fn a_server_that_only_ever_hangs_up_is_given_up() {
    for listens in [false, true] {
        let mut pair = pair(10, [true, true]);
        let (server, node) = (pair.server, pair.connector);
        if listens {
            pair.world.listen(node, server, Some("bob"));
        } else {
            pair.world.connect(node, server, "bob");
        }
        // Whatever is said to it, it ends the connection.
        let mut ended = false;
        for _ in 0..20_000 {
            pair.world.run_for(Duration::from_millis(5));
            pair.world.break_streams(server);
            ended = failure(&pair.world, node).is_some();
            if ended {
                break;
            }
        }
        assert!(ended);
        let (time, error) = failure(&pair.world, node).unwrap();
        assert_eq!(error.kind(), ErrorKind::ServerSilent, "{error}");
        assert!(time.as_millis() < 30_000, "{time}");
        assert_eq!(pair.world.tcp_of_machine(node), (0, 0));
    }
}

#[test]
fn a_server_that_answers_late_is_talked_to_over_udp_after_all() {
    let mut world = World::new(11);
    let server = add_server(&mut world);
    // 600 ms to the server and back.
    let slow = Link { delay: Duration::from_millis(300), ..Link::PERFECT };
    let nodes = [1, 2].map(|number| {
        let addresses = ips(&[&format!("198.51.100.{number}")]);
        let host = world.net.add_host(HostSpec { addresses, link: slow });
        world.add_peer(host, PeerConfig::default())
    });
    world.listen(nodes[0], server, Some("bob"));
    world.run_until_registered(nodes[0]);
    world.run_for(Duration::from_secs(5));
    assert_eq!(registrations(&world, nodes[0]).last().unwrap().1, Transport::Udp);
    assert_eq!(world.tcp_of_machine(nodes[0]), (0, 0), "the connection is dropped");
    assert_eq!(world.server(server).stats().registrations, 1);
    let session = world.connect_stream(nodes[1], server, "bob");
    assert!(meet(&mut world, nodes[0], nodes[1], session), "{}", world.net.trace());
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.tcp_of_machine(nodes[1]), (0, 0));
}

#[test]
fn a_network_that_changes_its_mind_is_followed_both_ways() {
    let mut pair = pair(12, [false, false]);
    let (server, listener, connector) = (pair.server, pair.listener, pair.connector);
    pair.world.listen(listener, server, Some("bob"));
    pair.world.run_until_registered(listener);
    let last = |world: &World| registrations(world, listener).last().unwrap().1;
    assert_eq!(last(&pair.world), Transport::Udp);
    // The next keepalive is due after 25 s, and is given up after 5.
    pair.world.net.set_firewall(pair.sites[0], NO_UDP());
    assert!(pair.world.run_until(Duration::from_secs(32), |world| last(world) == Transport::Tcp));
    let session = pair.world.connect_stream(connector, server, "bob");
    assert!(meet(&mut pair.world, listener, connector, session), "{}", pair.world.net.trace());
    // UDP is tried once a minute.
    pair.world.net.set_firewall(pair.sites[0], None);
    assert!(pair.world.run_until(Duration::from_secs(66), |world| last(world) == Transport::Udp));
    pair.world.run_for(Duration::from_secs(1));
    assert_eq!(pair.world.tcp_of_machine(listener), (0, 0));
    assert_eq!(pair.world.server(server).stats().registrations, 1);
    let before = connects(&pair.world, connector);
    pair.world.connect(connector, server, "bob");
    assert!(pair.world.run_until(PATIENCE, |world| connects(world, connector) > before));
}

#[test]
fn a_server_of_2015_is_silent_and_survives() {
    for bind in ["0.0.0.0:0", "0.0.0.0:7777"] {
        let mut world = World::new(13);
        let old = world.net.add_host(HostSpec { addresses: ips(&["192.0.2.1"]), link: Link::PERFECT });
        let address: SocketAddr = "192.0.2.1:20000".parse().unwrap();
        let (port, _) = world.net.tcp_bind(old, address).unwrap();
        world.net.tcp_listen(port);
        let host = world.net.add_host(HostSpec { addresses: ips(&["198.51.100.1"]), link: link() });
        let peer = world.add_peer(host, PeerConfig::default());
        let request = ConnectRequest {
            target: "bob".parse().unwrap(),
            transport: Transport::Tcp,
            servers: vec![ServerAddress::from(address)],
            bind: vec![bind.parse().unwrap()],
            secret: None,
            wait: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            prefer_port: None,
            legacy: false,
        };
        world.with_peer(peer, |peer, now| peer.connect(now, request)).unwrap();
        assert!(world.run_until(PATIENCE, |world| failure(world, peer).is_some()));
        let (time, error) = failure(&world, peer).unwrap();
        assert_eq!((error.kind(), time.as_millis()), (ErrorKind::ServerSilent, 5000));
        world.run_for(Duration::from_secs(1));
        let mut said = Vec::new();
        for record in world.net.trace().records().filter(|record| record.tcp.is_some()) {
            if record.event == Event::Delivered && record.place == Place::Host(old) {
                assert!(!record.tcp.unwrap().rst, "a RST is its death");
                said.extend_from_slice(&record.payload);
            }
        }
        // Once over the port that is punched from, and once to be introduced.
        assert_eq!(said, b"HOLEPUNCH/1\nHOLEPUNCH/1\n");
    }
}

#[test]
fn a_network_that_lets_nothing_through_is_a_silent_server() {
    let mut world = World::new(14);
    let server = add_server(&mut world);
    let nodes = [1, 2].map(|number| {
        let firewall = NO_UDP();
        let site = world.net.add_site(SiteSpec { firewall, link: link(), ..SiteSpec::default() });
        let host = world.net.add_host_in(site, ips(&[&format!("2001:db8:a::{number}")]), Link::PERFECT);
        world.net.set_link_up(site, false);
        world.add_peer(host, PeerConfig::default())
    });
    world.listen(nodes[0], server, Some("bob"));
    world.connect_stream(nodes[1], server, "bob");
    for node in nodes {
        assert!(world.run_until(PATIENCE, |world| failure(world, node).is_some()));
        let (time, error) = failure(&world, node).unwrap();
        assert_eq!((error.kind(), time.as_millis()), (ErrorKind::ServerSilent, 5000));
        assert_eq!(world.tcp_of_machine(node), (0, 0));
        assert_eq!(world.wake(node), None);
    }
}

#[test]
fn a_host_that_is_only_kept_from_sending_datagrams_is_introduced_at_once() {
    let mut world = World::new(15);
    let server = add_server(&mut world);
    let host = world.net.add_host(HostSpec { addresses: ips(&["198.51.100.1"]), link: link() });
    let peer = world.add_peer(host, PeerConfig::default());
    world.refuse_datagrams = true;
    world.listen(peer, server, Some("bob"));
    world.run_until_registered(peer);
    // Three sends are refused, within 300 ms.
    let (time, via) = registrations(&world, peer)[0];
    assert_eq!(via, Transport::Tcp);
    assert!(time.as_millis() <= 300 + 3 * 40, "{time}");
}
