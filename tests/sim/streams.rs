//! Streams: two peers meet over TCP, in networks of every kind, and keep nothing that is not theirs.

use crate::{
    topology::{Pair, add_server, ips, is_introduced, path},
    world::{NodeId, World, any},
};
use holepunch::{
    ErrorKind,
    config::PeerConfig,
    machine::{Input, StreamId},
    peer::{Carrier, ConnectRequest, ListenRequest, PeerEvent, Strategy, Transport},
    rendezvous::keys::Secret,
    wire::stun::{CandidateTransport, Class, Message, Method, SessionId, Transports},
};
use netsim::{
    Event, Firewall, HostId, HostSpec, Link, Mapping, Nat, Place, SiteSpec, TcpConnection, Time, UnsolicitedSyn,
    oracle::{Expectation, NatKind, expected, pair_name, unordered_pairs},
};
use std::{cell::RefCell, fmt::Write as _, net::SocketAddr, rc::Rc, time::Duration};

const PATIENCE: Duration = Duration::from_secs(30);
const BOTH_ANSWERS: [UnsolicitedSyn; 2] = [UnsolicitedSyn::Drop, UnsolicitedSyn::Reset];
/// One way between a site and the backbone, of each side, in microseconds. (Where nothing takes time at all, two SYNs
/// cannot cross, and NATs that refuse them cannot be got through.)
const DELAYS: [[u64; 2]; 6] =
    [[100, 100], [20_000, 20_000], [50_000, 50_000], [150_000, 150_000], [100, 150_000], [20_000, 150_000]];
const TWENTY: [u64; 2] = [20_000, 20_000];

fn kind(name: &str) -> NatKind {
    NatKind::all().into_iter().find(|kind| kind.name() == name).unwrap()
}

fn endpoint_independent() -> Vec<NatKind> {
    NatKind::all().into_iter().filter(|kind| kind.mapping == Mapping::EndpointIndependent).collect()
}

fn set_delays(pair: &mut Pair, delays: [u64; 2]) {
    for (site, delay) in pair.sites.into_iter().zip(delays) {
        pair.world.net.set_link(site, Link { delay: Duration::from_micros(delay), ..Link::PERFECT });
    }
}

/// Two peers behind NATs that answer a SYN so, with these delays.
fn pair_with(seed: u64, kinds: [NatKind; 2], answer: UnsolicitedSyn, delays: [u64; 2]) -> Pair {
    let mut pair = Pair::new(seed, kinds[0], kinds[1]);
    for (site, kind) in pair.sites.into_iter().zip(kinds) {
        pair.world.net.set_nat(site, Nat { unsolicited_syn: answer, ..kind.nat() });
    }
    set_delays(&mut pair, delays);
    pair
}

fn begin(pair: &mut Pair) -> SessionId {
    pair.world.listen(pair.listener, pair.server, Some("bob"));
    pair.world.run_until_registered(pair.listener);
    pair.world.connect_stream(pair.connector, pair.server, "bob")
}

/// Runs until both have the stream and, from the very moment that each has it, data has gone both ways.
fn meet(world: &mut World, nodes: [NodeId; 2], session: SessionId, patience: Duration) -> bool {
    let mut connected_at = Time::ZERO;
    let mut told = [false; 2];
    while told != [true; 2] {
        let news = |world: &World| (0..2).find(|side| !told[*side] && world.node(nodes[*side]).is_connected());
        if !world.run_until(patience, |world| news(world).is_some()) {
            return false;
        }
        let side = news(world).unwrap();
        told[side] = true;
        connected_at = world.net.now();
        world.send_stream(nodes[side], session, format!("from {side}").as_bytes());
        world.send_stream(nodes[side], session, b", and more");
    }
    let heard = |world: &World| {
        [(0, "from 1, and more"), (1, "from 0, and more")]
            .iter()
            .all(|(side, text)| world.stream_received(nodes[*side], session) == text.as_bytes())
    };
    let in_time = Duration::from_secs(60);
    assert!(
        world.run_until(in_time, heard),
        "data did not arrive intact; connected at {connected_at}\n{}",
        world.net.trace()
    );
    true
}

/// When a peer was told of a public address of the other's port.
fn learned(world: &World, node: NodeId, peer: &str) -> Option<Time> {
    let peer = ips(&[peer])[0];
    let tells = |payload: &[u8]| {
        Message::parse(payload).is_ok_and(|message| {
            message
                .candidates()
                .any(|candidate| candidate.transport == CandidateTransport::Tcp && candidate.address.ip() == peer)
        })
    };
    let mut records = world.net.trace().records();
    let here = |place| place == Place::Host(world.host(node));
    records
        .find(|record| {
            record.event == Event::Delivered && here(record.place) && record.tcp.is_none() && tells(&record.payload)
        })
        .map(|record| record.at)
}

fn both_learned(pair: &Pair) -> Option<Time> {
    let listener = learned(&pair.world, pair.listener, "198.51.100.2")?;
    Some(listener.max(learned(&pair.world, pair.connector, "198.51.100.1")?))
}

fn both_connected(pair: &Pair) -> Time {
    let is_connected = |event: &PeerEvent| matches!(event, PeerEvent::Connected { .. });
    let time = |node| pair.world.node(node).time_of(is_connected).unwrap();
    time(pair.listener).max(time(pair.connector))
}

/// Nothing of a session that is over is left: ports, connections, sockets of the connector, timers.
fn assert_nothing_left(world: &mut World, listener: NodeId, connector: NodeId, streams: usize) {
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.tcp_of_machine(connector), (0, 0), "the connector's ports and connections");
    assert_eq!(world.tcp_of_machine(listener), (0, 0), "the listener's ports and connections");
    assert!(world.sockets(connector).is_empty());
    assert_eq!(world.wake(connector), None, "no timer is left");
    let segments = |world: &World| [listener, connector].map(|node| world.net.counters(world.host(node)).segments_sent);
    let before = segments(world);
    world.run_for(Duration::from_secs(120));
    assert_eq!(segments(world), before, "silence");
    for node in [listener, connector] {
        assert_eq!(world.net.tcp_in_use(world.host(node)), (0, streams), "of the host");
    }
}

fn failures(world: &World, node: NodeId) -> Vec<ErrorKind> {
    let events = world.node(node).events.iter();
    let kinds = events.filter_map(|(_, event)| match event {
        PeerEvent::Failed { error, .. } => Some(error.kind()),
        _ => None,
    });
    kinds.collect()
}

/// Two hosts on the backbone, without NATs.
fn open_network(seed: u64) -> (World, NodeId, [NodeId; 2]) {
    let mut world = World::new(seed);
    let server = add_server(&mut world);
    let peers = [1, 2].map(|number| {
        let addresses = ips(&[&format!("198.51.100.{number}")]);
        let host = world.net.add_host(HostSpec { addresses, link: Link::delay_ms(20) });
        world.add_peer(host, PeerConfig::default())
    });
    (world, server, peers)
}

fn begin_in(world: &mut World, server: NodeId, peers: [NodeId; 2]) -> SessionId {
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    world.connect_stream(peers[1], server, "bob")
}

#[test]
fn peers_on_an_open_network_meet_and_leave_nothing() {
    let (mut world, server, peers) = open_network(1);
    let session = begin_in(&mut world, server, peers);
    assert!(meet(&mut world, peers, session, PATIENCE), "{}", world.net.trace());
    for node in peers {
        let path = path(&world, node).unwrap();
        assert!(matches!(path.carrier, Carrier::Stream(_)));
        assert_eq!(path.strategy, Strategy::TcpSimultaneousOpen);
        assert!(path.local.ip().to_string().starts_with("198.51.100."), "{path:?}");
    }
    assert_nothing_left(&mut world, peers[0], peers[1], 1);
}

#[test]
fn peers_on_one_lan_meet_by_their_private_addresses() {
    let mut world = World::new(2);
    let server = add_server(&mut world);
    let nat = Some(kind("eim_apdf_preserving").nat());
    let public = ips(&["198.51.100.1"]);
    let site = world.net.add_site(SiteSpec { public, nat, link: Link::delay_ms(20), ..SiteSpec::default() });
    let peers = [2, 3].map(|number| {
        let host = world.net.add_host_in(site, ips(&[&format!("10.0.1.{number}")]), Link::PERFECT);
        world.add_peer(host, PeerConfig::default())
    });
    let session = begin_in(&mut world, server, peers);
    assert!(meet(&mut world, peers, session, PATIENCE), "{}", world.net.trace());
    assert!(path(&world, peers[1]).unwrap().remote.ip().to_string().starts_with("10.0.1."));
    assert_nothing_left(&mut world, peers[0], peers[1], 1);
}

#[test]
fn every_pair_of_endpoint_independent_nats_gives_a_stream() {
    for answer in BOTH_ANSWERS {
        for a in endpoint_independent() {
            for b in endpoint_independent() {
                let mut pair = pair_with(3, [a, b], answer, TWENTY);
                pair.world.net.set_trace_capacity(0);
                let session = begin(&mut pair);
                let nodes = [pair.listener, pair.connector];
                assert!(meet(&mut pair.world, nodes, session, PATIENCE), "{} {answer:?}", pair_name(a, b));
                assert_nothing_left(&mut pair.world, nodes[0], nodes[1], 1);
            }
        }
    }
}

#[test]
fn firewalls_before_ipv6_hosts_are_opened() {
    for answer in BOTH_ANSWERS {
        for delays in DELAYS {
            let mut world = World::new(4);
            let server = add_server(&mut world);
            let peers = [(0, "2001:db8:a::2"), (1, "2001:db8:b::2")].map(|(side, address)| {
                let firewall = Some(Firewall { unsolicited_syn: answer, ..Firewall::default() });
                let link = Link { delay: Duration::from_micros(delays[side]), ..Link::PERFECT };
                let site = world.net.add_site(SiteSpec { firewall, link, ..SiteSpec::default() });
                let host = world.net.add_host_in(site, ips(&[address]), Link::PERFECT);
                world.add_peer(host, PeerConfig::default())
            });
            let session = begin_in(&mut world, server, peers);
            assert!(meet(&mut world, peers, session, PATIENCE), "{answer:?} {delays:?}\n{}", world.net.trace());
            assert_nothing_left(&mut world, peers[0], peers[1], 1);
        }
    }
}

/// A network of the table, and how long it takes from when both know the other's mapped port.
fn row(delays: [u64; 2], kinds: [NatKind; 2], answer: UnsolicitedSyn, skew: Option<Duration>) -> (Duration, u32) {
    let mut pair = pair_with(5, kinds, answer, delays);
    let held = Rc::new(RefCell::new(None));
    if skew.is_some() {
        let hold = Rc::clone(&held);
        // What the server passes on to the listener of the connector's port is late.
        pair.world.on_send = Some(Box::new(move |datagram| {
            let is_late = datagram.destination.ip() == ips(&["198.51.100.1"])[0]
                && Message::parse(&datagram.payload)
                    .is_ok_and(|it| (it.method(), it.class()) == (Method::TRICKLE, Class::Request));
            if is_late {
                hold.borrow_mut().get_or_insert_with(|| datagram.clone());
            }
            !is_late
        }));
    }
    let session = begin(&mut pair);
    if let Some(skew) = skew {
        assert!(pair.world.run_until(PATIENCE, |_| held.borrow().is_some()));
        pair.world.run_for(skew);
        pair.world.on_send = None;
        let server = pair.world.host(pair.server);
        let late = held.borrow_mut().take().unwrap();
        pair.world.net.send(server, late);
    }
    let nodes = [pair.listener, pair.connector];
    assert!(
        meet(&mut pair.world, nodes, session, PATIENCE),
        "{} {answer:?} {delays:?} {skew:?}\n{}",
        pair_name(kinds[0], kinds[1]),
        pair.world.net.trace()
    );
    let time = both_connected(&pair).since(both_learned(&pair).expect("both were told"));
    let attempts = nodes.map(|node| path(&pair.world, node).unwrap().packets_sent);
    (time, attempts[0] + attempts[1])
}

/// The time from when both mapped ports are known; `docs/performance.md` quotes what is printed here.
#[test]
fn the_handshake_takes_a_round_trip_and_the_check_half_of_one() {
    let skewed = Some(Duration::from_millis(40));
    let networks = [
        ("EIM/APDF, dropping", "eim_apdf_random", UnsolicitedSyn::Drop, None),
        ("EIM/APDF, resetting", "eim_apdf_random", UnsolicitedSyn::Reset, None),
        ("EIM/ADF, resetting", "eim_adf_sequential", UnsolicitedSyn::Reset, None),
        ("EIM/EIF, resetting", "eim_eif_preserving", UnsolicitedSyn::Reset, None),
        ("EIM/APDF, dropping, 40 ms skew", "eim_apdf_random", UnsolicitedSyn::Drop, skewed),
        ("EIM/APDF, resetting, 40 ms skew", "eim_apdf_random", UnsolicitedSyn::Reset, skewed),
    ];
    println!("from both mapped ports known to connected on both sides: ms, round trips, connects");
    for (label, nat, answer, skew) in networks {
        for delays in DELAYS {
            let round_trip = Duration::from_micros(2 * (delays[0] + delays[1]));
            let (time, attempts) = row(delays, [kind(nat); 2], answer, skew);
            let trips = time.div_duration_f64(round_trip);
            let milliseconds = time.as_secs_f64() * 1e3;
            println!("{label:<32} rtt {round_trip:>7?}  {milliseconds:>7.1} ms  {trips:>6.2} rtt  {attempts} connects");
            // A RST that crosses the other's SYN costs the random time of the retry, and what follows from it.
            let bound = round_trip * 3 + skew.unwrap_or_default() + Duration::from_millis(60);
            assert!(time <= bound, "{label} {delays:?}: {time:?}");
        }
    }
}

#[test]
fn lost_segments_delay_and_do_not_hinder() {
    for loss in [0.05, 0.10] {
        for answer in BOTH_ANSWERS {
            let mut times = Vec::new();
            for seed in 0..200 {
                let kinds = endpoint_independent();
                let kinds = [kinds[seed as usize % 9], kinds[seed as usize / 9 % 9]];
                let mut pair = pair_with(seed, kinds, answer, TWENTY);
                let session = begin(&mut pair);
                for site in pair.sites {
                    pair.world.net.set_link(site, Link::delay_ms(20).with_loss(loss));
                }
                let nodes = [pair.listener, pair.connector];
                assert!(
                    meet(&mut pair.world, nodes, session, PATIENCE),
                    "{} {answer:?} loss {loss} seed {seed}\n{}",
                    pair_name(kinds[0], kinds[1]),
                    pair.world.net.trace()
                );
                let start = both_learned(&pair).unwrap_or_else(|| pair.later_introduction());
                times.push(both_connected(&pair).since(start).as_millis());
            }
            times.sort_unstable();
            let [p50, p95, p98, worst] = [100, 190, 196, 199].map(|index| times[index]);
            println!("loss {loss} a link, {answer:?}: p50 {p50} ms  p95 {p95}  p98 {p98}  worst {worst}");
        }
    }
}

/// Both hosts have one private address, and their ports one number: the peer's host candidate is our own endpoint.
#[test]
fn a_connection_to_oneself_is_none() {
    let mut world = World::new(6);
    let server = add_server(&mut world);
    let peers = [1, 2].map(|number| {
        let public = ips(&[&format!("198.51.100.{number}")]);
        let nat = Some(kind("eim_apdf_random").nat());
        let site = world.net.add_site(SiteSpec { public, nat, link: Link::delay_ms(20), ..SiteSpec::default() });
        let host = world.net.add_host_in(site, ips(&["192.168.1.2"]), Link::PERFECT);
        world.add_peer(host, PeerConfig::default())
    });
    let session = begin_in(&mut world, server, peers);
    assert!(meet(&mut world, peers, session, PATIENCE), "{}", world.net.trace());
    let own: SocketAddr = "192.168.1.2:49152".parse().unwrap();
    let to_itself = |record: &netsim::Record| record.source == own && record.destination == own;
    assert!(world.net.trace().records().any(to_itself), "it was tried");
    for node in peers {
        assert!(path(&world, node).unwrap().remote.ip().to_string().starts_with("198.51.100."));
    }
    assert_nothing_left(&mut world, peers[0], peers[1], 1);
}

#[test]
fn another_secret_is_told_and_ends_no_listener() {
    let (mut world, server, peers) = open_network(7);
    let secret = |text: &str| Some(Secret::new(text.as_bytes()).unwrap());
    let listen = ListenRequest {
        transports: Transports { udp: true, tcp: true },
        name: Some("bob".parse().unwrap()),
        servers: vec![world.server_address(server)],
        bind: any(),
        secret: secret("sixteen bytes or more"),
        prefer_port: None,
        legacy: false,
    };
    world.with_peer(peers[0], |peer, now| peer.listen(now, listen)).unwrap();
    world.run_until_registered(peers[0]);
    let request = |world: &World, text: &str| ConnectRequest {
        transport: Transport::Tcp,
        secret: secret(text),
        ..world.connect_request(server, "bob")
    };
    let wrong = request(&world, "another sixteen bytes");
    world.with_peer(peers[1], |peer, now| peer.connect(now, wrong)).unwrap();
    assert!(world.run_until(PATIENCE, |world| !failures(world, peers[1]).is_empty()), "{}", world.net.trace());
    assert_eq!(failures(&world, peers[1]), [ErrorKind::WrongSecret]);
    let right = request(&world, "sixteen bytes or more");
    let session = world.with_peer(peers[1], |peer, now| peer.connect(now, right)).unwrap();
    assert!(meet(&mut world, peers, session, PATIENCE));
    world.run_for(PATIENCE);
    assert_nothing_left(&mut world, peers[0], peers[1], 1);
}

#[test]
fn peers_that_cannot_meet_are_told_after_the_timeout() {
    let hard = kind("apdm_apdf_random");
    for answer in BOTH_ANSWERS {
        let mut pair = pair_with(8, [hard, hard], answer, TWENTY);
        pair.world.net.set_trace_capacity(0);
        begin(&mut pair);
        let (listener, connector) = (pair.listener, pair.connector);
        assert!(pair.world.run_until(PATIENCE, |world| world.node(connector).any(is_introduced)));
        let start = pair.world.net.now();
        let failed = |world: &World| [listener, connector].iter().all(|node| !failures(world, *node).is_empty());
        assert!(pair.world.run_until(PATIENCE * 2, failed));
        assert_eq!(failures(&pair.world, connector), [ErrorKind::Timeout]);
        assert_eq!(failures(&pair.world, listener), [ErrorKind::Timeout]);
        let waited = pair.world.net.now().since(start);
        assert!(waited <= Duration::from_millis(30_100), "{waited:?}");
        let connects = pair.world.net.counters(pair.world.host(connector)).segments_sent;
        println!("{answer:?}: {connects} segments in 30 s");
        assert!(connects < 300, "{connects} segments in 30 s");
        assert_nothing_left(&mut pair.world, listener, connector, 0);
    }
}

#[test]
fn closing_while_it_is_looked_for_leaves_nothing() {
    let hard = kind("apdm_apdf_random");
    for after in [0, 50, 100, 200, 1000] {
        let mut pair = pair_with(9, [hard, hard], UnsolicitedSyn::Drop, TWENTY);
        let session = begin(&mut pair);
        pair.world.run_for(Duration::from_millis(after));
        pair.world.with_peer(pair.connector, |peer, now| peer.close(now, session));
        assert_eq!(pair.world.tcp_of_machine(pair.connector), (0, 0));
        pair.world.with_peer(pair.listener, |peer, now| peer.close_listener(now, holepunch::peer::ListenerId(0)));
        assert_eq!(pair.world.tcp_of_machine(pair.listener), (0, 0));
        assert_nothing_left(&mut pair.world, pair.listener, pair.connector, 0);
    }
}

/// Hosts on the backbone that connect to a port of a peer the moment it is introduced; then the peers meet all the same.
fn with_strangers(count: u8, at_connector: bool, says: &[u8]) -> Duration {
    let (mut world, server, peers) = open_network(10);
    let hosts: Vec<HostId> = (1..=count)
        .map(|number| {
            let addresses = ips(&[&format!("203.0.113.{number}")]);
            world.net.add_host(HostSpec { addresses, link: Link::PERFECT })
        })
        .collect();
    let session = begin_in(&mut world, server, peers);
    let victim = if at_connector { peers[1] } else { peers[0] };
    assert!(world.run_until(PATIENCE, |world| world.node(victim).any(is_introduced)));
    let start = world.net.now();
    let target = SocketAddr::new(world.net.addresses(world.host(victim))[0], 49_152);
    let strangers: Vec<TcpConnection> = hosts
        .iter()
        .map(|host| {
            let (port, _) = world.net.tcp_bind(*host, "0.0.0.0:0".parse().unwrap()).unwrap();
            let connection = world.net.tcp_connect(port, target).unwrap();
            world.net.tcp_send(connection, says);
            connection
        })
        .collect();
    assert_eq!(strangers.len(), usize::from(count));
    assert!(meet(&mut world, peers, session, PATIENCE), "{}", world.net.trace());
    let time =
        peers.map(|node| world.node(node).time_of(|event| matches!(event, PeerEvent::Connected { .. })).unwrap());
    for node in peers {
        let StreamId(_) = match path(&world, node).unwrap().carrier {
            Carrier::Stream(stream) => stream,
            Carrier::Socket(_) => panic!("a stream was asked for"),
        };
        assert!(path(&world, node).unwrap().remote.ip().to_string().starts_with("198.51.100."));
    }
    assert_nothing_left(&mut world, peers[0], peers[1], 1);
    time[0].max(time[1]).since(start)
}

#[test]
fn strangers_who_say_nothing_delay_nobody() {
    let alone = [false, true].map(|at_connector| with_strangers(0, at_connector, b""));
    for count in [1, 20] {
        for (at_connector, alone) in [false, true].into_iter().zip(alone) {
            let time = with_strangers(count, at_connector, b"");
            assert_eq!(time, alone, "{count} strangers, at the connector: {at_connector}");
        }
    }
}

#[test]
fn garbage_on_a_connection_delays_nobody() {
    let huge = [&[0, 1, 0xff, 0xfc][..], &[7; 4000]].concat();
    for says in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0], &[0, 1, 0, 0], &[0; 20], &huge] {
        let alone = [false, true].map(|at_connector| with_strangers(0, at_connector, b""));
        for (at_connector, alone) in [false, true].into_iter().zip(alone) {
            assert_eq!(with_strangers(3, at_connector, says), alone);
        }
    }
}

#[test]
fn a_server_without_tcp_hinders_only_those_behind_nats() {
    let (mut world, server, peers) = open_network(12);
    world.refuse_tcp(server);
    let session = begin_in(&mut world, server, peers);
    assert!(meet(&mut world, peers, session, PATIENCE), "{}", world.net.trace());
    assert_nothing_left(&mut world, peers[0], peers[1], 1);

    let mut pair = pair_with(12, [kind("eim_apdf_random"); 2], UnsolicitedSyn::Drop, TWENTY);
    pair.world.refuse_tcp(pair.server);
    begin(&mut pair);
    pair.world.run_for(PATIENCE + Duration::from_secs(1));
    assert_eq!(failures(&pair.world, pair.connector), [ErrorKind::Timeout]);
    assert_nothing_left(&mut pair.world, pair.listener, pair.connector, 0);
}

#[test]
fn many_sessions_of_one_listener_do_not_disturb_each_other() {
    let kinds = [kind("eim_apdf_random"); 2];
    let mut pair = pair_with(13, kinds, UnsolicitedSyn::Drop, TWENTY);
    pair.world.listen(pair.listener, pair.server, Some("bob"));
    pair.world.run_until_registered(pair.listener);
    let sessions: Vec<_> = (0..10).map(|_| pair.world.connect_stream(pair.connector, pair.server, "bob")).collect();
    let all = |world: &World| {
        [pair.listener, pair.connector].iter().all(|node| {
            let events = world.node(*node).events.iter();
            events.filter(|(_, event)| matches!(event, PeerEvent::Connected { .. })).count() == 10
        })
    };
    assert!(pair.world.run_until(PATIENCE, all), "{}", pair.world.net.trace());
    for (number, session) in sessions.iter().enumerate() {
        pair.world.send_stream(pair.connector, *session, &[number as u8; 3]);
    }
    pair.world.run_for(Duration::from_secs(1));
    for (number, session) in sessions.iter().enumerate() {
        assert_eq!(pair.world.stream_received(pair.listener, *session), [number as u8; 3]);
    }
    assert_nothing_left(&mut pair.world, pair.listener, pair.connector, 10);
}

/// More than may be looked for at a time: at a port of the system's choice, and at one that serves a single stream.
#[test]
fn connectors_that_come_at_once_take_turns() {
    for (bind, count, patience) in [("0.0.0.0:0", 100, 4), ("0.0.0.0:7777", 4, 2)] {
        let (mut world, server, peers) = open_network(15);
        let request = ListenRequest { bind: vec![bind.parse().unwrap()], ..world.listen_request(server, Some("bob")) };
        world.with_peer(peers[0], |peer, now| peer.listen(now, request)).unwrap();
        world.run_until_registered(peers[0]);
        for _ in 0..count {
            world.connect_stream(peers[1], server, "bob");
        }
        let all = |world: &World| {
            peers.iter().all(|node| {
                let events = world.node(*node).events.iter();
                events.filter(|(_, event)| matches!(event, PeerEvent::Connected { .. })).count() == count
            })
        };
        let start = world.net.now();
        assert!(world.run_until(Duration::from_secs(patience), all), "{bind}: {:?}", world.net.now().since(start));
        println!("{count} at {bind}: {:?}", world.net.now().since(start));
        assert_nothing_left(&mut world, peers[0], peers[1], count);
    }
}

/// The listener is introduced over both families, and the connector has one; each of the two needs its mapped port.
#[test]
fn a_listener_of_two_families_is_reached_by_the_one_that_the_connector_has() {
    let mut pair = pair_with(14, [kind("eim_apdf_random"); 2], UnsolicitedSyn::Drop, TWENTY);
    let host = pair.world.host(pair.listener);
    pair.world.net.add_address(host, ips(&["2001:db8:a::2"])[0]);
    let all = pair.world.net.addresses(host);
    pair.world.with_peer(pair.listener, |peer, now| peer.handle_input(now, Input::Interfaces(&all)));
    let session = begin(&mut pair);
    let nodes = [pair.listener, pair.connector];
    assert!(meet(&mut pair.world, nodes, session, PATIENCE), "{}", pair.world.net.trace());
    assert!(path(&pair.world, nodes[1]).unwrap().remote.is_ipv4());
    assert_nothing_left(&mut pair.world, nodes[0], nodes[1], 1);
}

/// On a LAN the listener's connection is there before the connector has heard of it: the server's answer was lost.
#[test]
fn a_connection_that_comes_before_the_introduction_is_kept() {
    let mut world = World::new(15);
    let server = add_server(&mut world);
    let nat = Some(kind("eim_apdf_random").nat());
    let public = ips(&["198.51.100.1"]);
    let site = world.net.add_site(SiteSpec { public, nat, link: Link::delay_ms(20), ..SiteSpec::default() });
    let peers = [2, 3].map(|number| {
        let host = world.net.add_host_in(site, ips(&[&format!("10.0.1.{number}")]), Link::PERFECT);
        world.add_peer(host, PeerConfig::default())
    });
    let mut lost = 0;
    world.on_send = Some(Box::new(move |datagram| {
        let is_answer = Message::parse(&datagram.payload)
            .is_ok_and(|message| (message.method(), message.class()) == (Method::CONNECT, Class::Success));
        lost += u32::from(is_answer);
        !is_answer || lost > 1
    }));
    let session = begin_in(&mut world, server, peers);
    assert!(meet(&mut world, peers, session, PATIENCE), "{}", world.net.trace());
    let connected = |node| world.node(node).time_of(|event| matches!(event, PeerEvent::Connected { .. })).unwrap();
    let introduced = world.node(peers[1]).time_of(is_introduced).unwrap();
    assert_eq!(connected(peers[1]), introduced, "it had come already");
    assert_nothing_left(&mut world, peers[0], peers[1], 1);
}

/// In the connector's own network somebody else has the listener's private address, and takes the connection.
#[test]
fn a_silent_host_at_the_peers_private_address_costs_a_second() {
    let mut pair = pair_with(11, [kind("eim_apdf_random"); 2], UnsolicitedSyn::Drop, TWENTY);
    let stranger = pair.world.net.add_host_in(pair.sites[1], ips(&["10.0.1.2"]), Link::PERFECT);
    let (port, _) = pair.world.net.tcp_bind(stranger, "0.0.0.0:49152".parse().unwrap()).unwrap();
    pair.world.net.tcp_listen(port);
    let session = begin(&mut pair);
    let nodes = [pair.listener, pair.connector];
    assert!(meet(&mut pair.world, nodes, session, PATIENCE), "{}", pair.world.net.trace());
    assert!(pair.world.net.counters(stranger).segments_sent > 0, "it took the connection");
    let time = both_connected(&pair).since(both_learned(&pair).unwrap());
    assert!(time <= Duration::from_millis(1300), "{time:?}");
    assert_nothing_left(&mut pair.world, nodes[0], nodes[1], 1);
}

/// Fresh runs of what the table shows once.
#[test]
fn two_hundred_runs_of_each_network_connect() {
    for answer in BOTH_ANSWERS {
        for delays in DELAYS {
            let round_trip = Duration::from_micros(2 * (delays[0] + delays[1]));
            let mut times: Vec<_> = (0..200)
                .map(|seed| {
                    let mut pair = pair_with(seed, [kind("eim_apdf_random"); 2], answer, delays);
                    let session = begin(&mut pair);
                    let nodes = [pair.listener, pair.connector];
                    assert!(meet(&mut pair.world, nodes, session, PATIENCE), "{answer:?} {delays:?} seed {seed}");
                    both_connected(&pair).since(both_learned(&pair).unwrap())
                })
                .collect();
            times.sort_unstable();
            let [p50, p98, worst] = [100, 196, 199].map(|index| times[index].as_secs_f64() * 1e3);
            println!("{answer:?} rtt {round_trip:>7?}: p50 {p50:.1} ms  p98 {p98:.1}  worst {worst:.1}");
            assert!(worst <= (round_trip * 3).as_secs_f64() * 1e3 + 100.0, "{answer:?} {delays:?}: {worst} ms");
        }
    }
}

/// What becomes of each pair of NATs with a plain simultaneous open, where SYNs are dropped and where they are refused.
#[test]
fn the_pairs_that_plain_simultaneous_open_gets_through_are_these() {
    const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/streams_snapshot.txt");
    let mut text = String::new();
    for (a, b) in unordered_pairs() {
        let outcome = |answer, kinds: [NatKind; 2]| {
            let mut pair = pair_with(1, kinds, answer, TWENTY);
            pair.world.net.set_trace_capacity(0);
            let session = begin(&mut pair);
            let nodes = [pair.listener, pair.connector];
            if meet(&mut pair.world, nodes, session, PATIENCE + Duration::from_secs(1)) { "stream" } else { "timeout" }
        };
        let [drop, reset] =
            BOTH_ANSWERS.map(|answer| format!("{} {}", outcome(answer, [a, b]), outcome(answer, [b, a])));
        writeln!(text, "{}  drop: {drop}  reset: {reset}", pair_name(a, b)).unwrap();
        // The same as with datagrams: what a SYN to the port that the server saw, or to the one seen, can reach.
        let expected = match expected(a, b) {
            Expectation::Plain | Expectation::PeerReflexive => "stream stream",
            Expectation::NeedsMore | Expectation::Impossible => "timeout timeout",
        };
        assert_eq!([&*drop, &*reset], [expected; 2], "{}", pair_name(a, b));
    }
    if std::env::var_os("HOLEPUNCH_BLESS").is_some() {
        std::fs::write(SNAPSHOT, &text).unwrap();
    }
    let committed = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
    let changed = text.lines().zip(committed.lines()).find(|(new, old)| new != old);
    assert_eq!(changed, None, "new and committed");
    assert_eq!(text.lines().count(), committed.lines().count());
}
