//! Being found: registration, lookup and introduction, when things go wrong.

use crate::{
    topology::{DELAY, Pair, add_server, ips, is_introduced, link, path},
    world::{NodeId, World, any},
};
use holepunch::{
    Error, ErrorKind,
    config::{PeerConfig, ServerConfig},
    peer::{ConnectRequest, ListenRequest, PeerEvent},
    rendezvous::{ServerAddress, keys::Secret},
    wire::stun::{Builder, Class, Message, Method, TransactionId},
};
use netsim::{HostSpec, Link, Time, oracle::NatKind};
use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server and some peers on the backbone, 20 ms from it each, without NATs.
fn open_network(seed: u64, peers: u8) -> (World, NodeId, Vec<NodeId>) {
    let mut world = World::new(seed);
    let server = add_server(&mut world);
    let peers = (1..=peers).map(|number| {
        let addresses = ips(&[&format!("198.51.100.{number}")]);
        let host = world.net.add_host(HostSpec { addresses, link: link() });
        world.add_peer(host, PeerConfig::default())
    });
    let peers = peers.collect();
    (world, server, peers)
}

/// Runs until a node has failed; why, and when.
fn run_until_failed(world: &mut World, node: NodeId) -> (Time, Error) {
    let failed = |world: &World| {
        world.node(node).events.iter().find_map(|(time, event)| match event {
            PeerEvent::Failed { error, .. } | PeerEvent::ListenFailed { error, .. } => Some((*time, error.clone())),
            _ => None,
        })
    };
    assert!(world.run_until(PATIENCE, |world| failed(world).is_some()), "nothing failed");
    failed(world).unwrap()
}

fn connected(world: &World, node: NodeId) -> usize {
    world.node(node).events.iter().filter(|(_, event)| matches!(event, PeerEvent::Connected { .. })).count()
}

fn request(world: &World, server: NodeId, target: &str, wait: Duration) -> ConnectRequest {
    ConnectRequest { wait, ..world.connect_request(server, target) }
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text.as_bytes()).unwrap())
}

/// One network's share of introductions is so many a second; whoever waits for a listener waits for that too.
#[test]
fn more_connects_at_once_than_a_server_introduces_come_in_turn() {
    let mut world = World::new(40);
    let host = world.net.add_host(HostSpec { addresses: ips(&["192.0.2.1"]), link: Link::PERFECT });
    let mut config = ServerConfig::default();
    config.introduction_rate = 20;
    let server = world.add_server(host, config);
    let peers = [1, 2].map(|number| {
        let addresses = ips(&[&format!("198.51.{number}.1")]);
        let host = world.net.add_host(HostSpec { addresses, link: link() });
        world.add_peer(host, PeerConfig::default())
    });
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    let begun = world.net.now();
    for _ in 0..60 {
        world.connect(peers[1], server, "bob");
    }
    assert!(world.run_until(PATIENCE, |world| connected(world, peers[1]) == 60));
    let took = world.net.now() - begun;
    // 20 at once, and 20 in each second; but for what their repetitions take.
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert!(world.server(server).stats().limited > 40);

    // Who does not wait is told.
    for _ in 0..60 {
        let request = request(&world, server, "bob", Duration::ZERO);
        world.with_peer(peers[1], |peer, now| peer.connect(now, request)).unwrap();
    }
    let (_, error) = run_until_failed(&mut world, peers[1]);
    assert_eq!(error.kind(), ErrorKind::ServerRefused);
    assert!(error.message().contains("508"), "{error}");
}

#[test]
fn one_registration_brings_many_peers() {
    let (mut world, server, peers) = open_network(1, 9);
    let (bob, others) = peers.split_first().unwrap();
    world.listen(*bob, server, Some("bob"));
    world.run_until_registered(*bob);
    for other in others {
        world.connect(*other, server, "bob");
    }
    assert!(world.run_until(PATIENCE, |world| connected(world, *bob) == others.len()));
    assert!(others.iter().all(|other| world.node(*other).is_connected()));
}

#[test]
fn an_unnamed_listener_is_found_by_its_address_and_a_named_one_is_not() {
    let (mut world, server, peers) = open_network(2, 3);
    world.listen(peers[0], server, None);
    world.listen(peers[1], server, Some("bob"));
    world.run_until_registered(peers[0]);
    world.run_until_registered(peers[1]);
    world.connect(peers[2], server, "198.51.100.1");
    assert!(world.run_until(PATIENCE, |world| world.node(peers[2]).is_connected()));
    let named = request(&world, server, "198.51.100.2", Duration::ZERO);
    world.with_peer(peers[2], |peer, now| peer.connect(now, named)).unwrap();
    assert_eq!(run_until_failed(&mut world, peers[2]).1.kind(), ErrorKind::NotFound);
}

#[test]
fn two_unnamed_listeners_at_one_address_are_ambiguous() {
    let (mut world, server, peers) = open_network(3, 2);
    world.listen(peers[0], server, None);
    world.listen(peers[0], server, None);
    world.run_for(Duration::from_secs(1));
    let both = request(&world, server, "198.51.100.1", Duration::ZERO);
    world.with_peer(peers[1], |peer, now| peer.connect(now, both)).unwrap();
    let (_, error) = run_until_failed(&mut world, peers[1]);
    assert_eq!(error.kind(), ErrorKind::Ambiguous);
}

#[test]
fn not_found_is_said_after_two_round_trips_to_the_server() {
    let (mut world, server, peers) = open_network(4, 1);
    let nobody = request(&world, server, "nobody", Duration::ZERO);
    world.with_peer(peers[0], |peer, now| peer.connect(now, nobody)).unwrap();
    let (time, error) = run_until_failed(&mut world, peers[0]);
    assert_eq!((error.kind(), time.as_millis()), (ErrorKind::NotFound, 80));
    assert!(error.message().contains("nobody"), "{error}");
    assert!(world.sockets(peers[0]).is_empty());
}

#[test]
fn a_listener_that_comes_later_is_waited_for() {
    let (mut world, server, peers) = open_network(5, 2);
    world.connect(peers[1], server, "bob");
    world.run_for(Duration::from_secs(7));
    world.listen(peers[0], server, Some("bob"));
    assert!(world.run_until(Duration::from_secs(2), |world| world.node(peers[1]).is_connected()));
    world.connect(peers[1], server, "carol");
    let start = world.net.now();
    let (time, error) = run_until_failed(&mut world, peers[1]);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let waited = time.since(start);
    assert!(waited > Duration::from_secs(8) && waited <= Duration::from_millis(10_100), "{waited:?}");
}

#[test]
fn a_name_has_one_holder_and_is_free_when_it_leaves() {
    let (mut world, server, peers) = open_network(6, 2);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    world.listen(peers[1], server, Some("bob"));
    let (_, error) = run_until_failed(&mut world, peers[1]);
    assert_eq!(error.kind(), ErrorKind::NameTaken);
    assert!(world.sockets(peers[1]).is_empty());

    world.with_peer(peers[0], |peer, now| peer.close_listener(now, holepunch::peer::ListenerId(0)));
    world.run_for(Duration::from_millis(50));
    assert!(world.sockets(peers[0]).is_empty());
    world.listen(peers[1], server, Some("bob"));
    world.run_until_registered(peers[1]);
}

#[test]
fn a_name_is_free_two_keepalives_after_its_holder_vanished() {
    let (mut world, server, peers) = open_network(7, 2);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    let host = world.host(peers[0]);
    world.net.set_link_up(host, false);
    world.run_for(Duration::from_secs(49));
    world.listen(peers[1], server, Some("bob"));
    assert_eq!(run_until_failed(&mut world, peers[1]).1.kind(), ErrorKind::NameTaken);
    world.run_for(Duration::from_secs(2));
    world.listen(peers[1], server, Some("bob"));
    world.run_until_registered(peers[1]);
}

#[test]
fn a_silent_server_is_given_up_after_five_seconds() {
    let (mut world, server, peers) = open_network(8, 2);
    let host = world.host(server);
    world.net.set_link_up(host, false);
    world.connect(peers[0], server, "bob");
    world.listen(peers[1], server, Some("bob"));
    for peer in peers {
        let (time, error) = run_until_failed(&mut world, peer);
        assert_eq!((error.kind(), time.as_millis()), (ErrorKind::ServerSilent, 5000));
        assert!(world.sockets(peer).is_empty());
    }
}

#[test]
fn a_server_that_answers_late_is_still_heard() {
    let (mut world, server, peers) = open_network(9, 2);
    let host = world.host(server);
    world.net.set_link(host, Link::delay_ms(1100));
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    world.connect(peers[1], server, "bob");
    assert!(world.run_until(PATIENCE, |world| world.node(peers[1]).is_connected()));
}

#[test]
fn nonsense_from_the_server_is_silence() {
    let (mut world, server, peers) = open_network(10, 1);
    let host = world.host(server);
    world.net.set_link_up(host, false);
    world.connect(peers[0], server, "bob");
    let from: SocketAddr = "192.0.2.1:20000".parse().unwrap();
    let port = world.sockets(peers[0])[0].port();
    let garbage = [
        b"what?".to_vec(),
        vec![0; 1500],
        Builder::new(Class::Success, Method::CONNECT, TransactionId([0; 12])).fingerprint().finish(),
        Builder::new(Class::Error, Method::CONNECT, TransactionId([0; 12])).error_code(404, "").fingerprint().finish(),
    ];
    for bytes in garbage {
        world.forge(peers[0], port, from, &bytes);
    }
    let (time, error) = run_until_failed(&mut world, peers[0]);
    assert_eq!((error.kind(), time.as_millis()), (ErrorKind::ServerSilent, 5000));
}

#[test]
fn one_dead_server_delays_and_does_not_abort() {
    let (mut world, server, peers) = open_network(11, 2);
    let dead = ServerAddress::from("192.0.2.99:20000".parse::<SocketAddr>().unwrap());
    let servers = vec![dead, world.server_address(server)];
    let listen = ListenRequest {
        transports: holepunch::wire::stun::Transports { udp: true, tcp: true },
        name: Some("bob".parse().unwrap()),
        servers: servers.clone(),
        bind: any(),
        secret: None,
        prefer_port: None,
        legacy: false,
    };
    world.with_peer(peers[0], |peer, now| peer.listen(now, listen)).unwrap();
    world.run_until_registered(peers[0]);
    let start = world.net.now();
    let connect = ConnectRequest { servers, ..world.connect_request(server, "bob") };
    world.with_peer(peers[1], |peer, now| peer.connect(now, connect)).unwrap();
    assert!(world.run_until(PATIENCE, |world| world.node(peers[1]).is_connected()));
    // 300 ms until the second server's turn, two round trips to it, one to the peer.
    assert_eq!(world.net.now().since(start).as_millis(), 300 + 80 + 80);
    world.run_for(Duration::from_secs(10));
    assert!(!world.node(peers[0]).any(|event| matches!(event, PeerEvent::ListenFailed { .. })));
}

#[test]
fn whoever_waits_for_a_listener_learns_of_it_when_it_learns_of_him() {
    // The CONNECT that finds it may be a repetition of one that did not.
    for begins in (0..1500).step_by(50) {
        let mut pair = Pair::new(begins, NatKind::all()[0], NatKind::all()[0]);
        let (listener, connector) = (pair.listener, pair.connector);
        pair.world.net.set_link(pair.sites[1], Link::delay_ms(150));
        pair.world.connect(connector, pair.server, "bob");
        pair.world.run_for(Duration::from_millis(begins));
        pair.world.listen(listener, pair.server, Some("bob"));
        let introduced = |world: &World, node| world.node(node).time_of(is_introduced);
        let both = |world: &World| introduced(world, listener).and(introduced(world, connector)).is_some();
        assert!(pair.world.run_until(PATIENCE, both));
        let [theirs, ours] = [listener, connector].map(|node| introduced(&pair.world, node).unwrap());
        assert_eq!(ours.since(theirs), Duration::from_millis(150) - DELAY, "began after {begins} ms");
    }
}

#[test]
fn a_restarted_server_has_everyone_back_within_a_keepalive() {
    let (mut world, server, peers) = open_network(12, 2);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    world.run_for(Duration::from_secs(100));
    world.restart_server(server, ServerConfig::default());
    world.run_for(Duration::from_secs(26));
    assert_eq!(world.server(server).stats().registrations, 1);
    world.connect(peers[1], server, "bob");
    assert!(world.run_until(PATIENCE, |world| world.node(peers[1]).is_connected()));
}

#[test]
fn a_server_that_was_away_for_an_hour_has_its_listener_back() {
    let (mut world, server, peers) = open_network(13, 1);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    let host = world.host(server);
    world.net.set_link_up(host, false);
    world.run_for(Duration::from_secs(3600));
    world.net.set_link_up(host, true);
    world.run_for(Duration::from_secs(25));
    assert_eq!(world.server(server).stats().registrations, 1);
    assert!(!world.node(peers[0]).any(|event| matches!(event, PeerEvent::ListenFailed { .. })));
}

#[test]
fn a_listener_whose_interfaces_changed_during_an_outage_is_found_again() {
    let (mut world, server, peers) = open_network(25, 2);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    for _ in 0..100 {
        let session = world.connect(peers[1], server, "bob");
        assert!(
            world
                .run_until(PATIENCE, |world| connected(world, peers[1]) > connected(world, peers[0]).saturating_sub(1))
        );
        world.with_peer(peers[1], |peer, now| peer.close(now, session));
    }
    world.run_for(Duration::from_secs(10));
    let host = world.host(peers[0]);
    world.net.set_link_up(host, false);
    world.run_for(Duration::from_secs(30));
    let addresses = ips(&["198.51.100.1", "203.0.113.9"]);
    world.with_peer(peers[0], |peer, now| {
        peer.handle_input(now, holepunch::machine::Input::Interfaces(&addresses));
    });
    world.run_for(Duration::from_secs(40));
    world.net.set_link_up(host, true);
    world.run_for(Duration::from_secs(26));
    assert_eq!(world.server(server).stats().registrations, 1);
    let before = connected(&world, peers[1]);
    world.connect(peers[1], server, "bob");
    assert!(world.run_until(Duration::from_secs(5), |world| connected(world, peers[1]) > before));
}

#[test]
fn a_server_that_nothing_can_be_sent_to_is_unreachable_and_not_silent() {
    let (mut world, server, peers) = open_network(26, 2);
    world.refuse_sends_to = Some(ips(&["192.0.2.1"])[0]);
    let request = holepunch::peer::ConnectRequest {
        bind: vec!["0.0.0.0:0".parse().unwrap()],
        ..world.connect_request(server, "bob")
    };
    world.with_peer(peers[0], |peer, now| peer.connect(now, request)).unwrap();
    world.listen(peers[1], server, Some("bob"));
    let (time, error) = run_until_failed(&mut world, peers[0]);
    assert_eq!(error.kind(), ErrorKind::ServerUnreachable, "{error}");
    assert!(time.as_millis() <= 300, "{time}");
    assert!(error.message().contains("no route"), "{error}");
    // Over IPv6 it is only silent.
    assert_eq!(run_until_failed(&mut world, peers[1]).1.kind(), ErrorKind::ServerSilent);
}

#[test]
fn a_listener_whose_address_changes_is_found_at_the_new_one() {
    let [kind, ..] = netsim::oracle::NatKind::all();
    let mut pair = Pair::new(14, kind, kind);
    pair.world.listen(pair.listener, pair.server, Some("bob"));
    pair.world.run_until_registered(pair.listener);
    pair.world.net.set_public(pair.sites[0], ips(&["203.0.113.77"]));
    pair.world.run_for(Duration::from_secs(26));
    let session = pair.world.connect(pair.connector, pair.server, "bob");
    assert!(pair.run_until_connected(PATIENCE));
    assert!(pair.exchange_data(session));
    assert_eq!(path(&pair.world, pair.connector).unwrap().remote.ip(), ips(&["203.0.113.77"])[0]);
    let registered = |event: &PeerEvent| match event {
        PeerEvent::Registered { mapped, .. } => mapped.iter().any(|mapped| mapped.ip() == ips(&["203.0.113.77"])[0]),
        _ => false,
    };
    assert!(pair.world.node(pair.listener).any(registered), "the listener was told its new address");
}

#[test]
fn lost_packets_delay_and_do_not_hinder() {
    for seed in 0..200 {
        let (mut world, server, peers) = open_network(seed, 2);
        for peer in &peers {
            let host = world.host(*peer);
            world.net.set_link(host, link().with_loss(0.2));
        }
        world.listen(peers[0], server, Some("bob"));
        world.run_until_registered(peers[0]);
        world.connect(peers[1], server, "bob");
        let both = |world: &World| peers.iter().all(|peer| world.node(*peer).is_connected());
        assert!(world.run_until(PATIENCE, both), "seed {seed}\n{}", world.net.trace());
    }
}

#[test]
fn both_need_the_same_secret() {
    let cases = [
        (None, secret("sixteen bytes or more"), false),
        (secret("sixteen bytes or more"), None, false),
        (secret("sixteen bytes or more"), secret("another sixteen bytes"), false),
        (secret("sixteen bytes or more"), secret("sixteen bytes or more"), true),
    ];
    for (theirs, ours, same) in cases {
        let (mut world, server, peers) = open_network(15, 3);
        let listen = ListenRequest {
            transports: holepunch::wire::stun::Transports { udp: true, tcp: true },
            name: Some("bob".parse().unwrap()),
            servers: vec![world.server_address(server)],
            bind: any(),
            secret: theirs.clone(),
            prefer_port: None,
            legacy: false,
        };
        world.with_peer(peers[0], |peer, now| peer.listen(now, listen)).unwrap();
        world.run_until_registered(peers[0]);
        let connect = ConnectRequest { secret: ours, ..world.connect_request(server, "bob") };
        world.with_peer(peers[1], |peer, now| peer.connect(now, connect)).unwrap();
        if same {
            assert!(world.run_until(PATIENCE, |world| world.node(peers[1]).is_connected()));
            continue;
        }
        let (time, error) = run_until_failed(&mut world, peers[1]);
        assert_eq!(error.kind(), ErrorKind::WrongSecret);
        let introduced = world.node(peers[1]).time_of(is_introduced).unwrap();
        assert!(time.since(introduced) <= Duration::from_millis(80), "known after one round trip");
        // The listener goes on, for whoever has the secret.
        let right = ConnectRequest { secret: theirs, ..world.connect_request(server, "bob") };
        world.with_peer(peers[2], |peer, now| peer.connect(now, right)).unwrap();
        assert!(world.run_until(PATIENCE, |world| world.node(peers[2]).is_connected()));
    }
}

#[test]
fn a_replayed_introduction_does_nothing() {
    let (mut world, server, peers) = open_network(16, 2);
    let recorded = Rc::new(RefCell::new(Vec::new()));
    let recorder = Rc::clone(&recorded);
    world.on_send = Some(Box::new(move |datagram| {
        if Message::parse(&datagram.payload).is_ok_and(|message| message.method() == Method::INTRODUCE) {
            recorder.borrow_mut().push(datagram.clone());
        }
        true
    }));
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    world.connect(peers[1], server, "bob");
    assert!(world.run_until(PATIENCE, |world| world.node(peers[1]).is_connected()));
    let introduction = recorded.borrow()[0].clone();
    // Long after, when the session is forgotten: the number was seen. After the key has changed: it is not signed.
    let introductions =
        |world: &World| world.node(peers[0]).events.iter().filter(|(_, event)| is_introduced(event)).count();
    for _ in 0..2 {
        world.forge(peers[0], introduction.destination.port(), introduction.source, &introduction.payload);
        assert_eq!(introductions(&world), 1);
        world.restart_server(server, ServerConfig::default());
        world.run_for(Duration::from_secs(60));
    }
}

/// Whoever has read the registration's key on its way has said the greatest of all numbers.
#[test]
fn a_number_of_the_future_keeps_the_next_connector_waiting_for_a_second() {
    let (mut world, server, peers) = open_network(25, 2);
    let recorded = Rc::new(RefCell::new(None));
    let recorder = Rc::clone(&recorded);
    world.on_send = Some(Box::new(move |datagram| {
        let message = Message::parse(&datagram.payload).unwrap();
        if let (Some(id), Some(key)) = (message.registration_id(), message.registration_key()) {
            *recorder.borrow_mut() = Some((id, key));
        }
        true
    }));
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    world.on_send = None;
    let (id, key) = recorded.borrow().unwrap();
    let forged = Builder::new(Class::Indication, Method::INTRODUCE, TransactionId([1; 12])).registration_id(id);
    let forged = forged.session_id(holepunch::wire::stun::SessionId([1; 16])).sequence(u64::MAX).public_key(&[9; 32]);
    let port = world.sockets(peers[0])[0].port();
    let forged = forged.integrity_sha256(&key).fingerprint().finish();
    world.forge(peers[0], port, "192.0.2.1:20000".parse().unwrap(), &forged);
    assert!(world.node(peers[0]).any(is_introduced));
    world.run_for(Duration::from_secs(5));
    world.connect(peers[1], server, "bob");
    assert!(world.run_until(Duration::from_secs(1), |world| peers.iter().all(|it| world.node(*it).is_connected())));
    assert_eq!(world.server(server).stats().registrations, 1);
}

#[test]
fn introductions_by_others_than_the_server_do_nothing() {
    let (mut world, server, peers) = open_network(17, 1);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    let port = world.sockets(peers[0])[0].port();
    let forged = Builder::new(Class::Indication, Method::INTRODUCE, TransactionId([1; 12]))
        .sequence(1)
        .public_key(&[9; 32])
        .integrity_sha256(b"a guess")
        .fingerprint()
        .finish();
    for from in ["192.0.2.1:20000", "203.0.113.1:20000"] {
        world.forge(peers[0], port, from.parse().unwrap(), &forged);
    }
    assert!(!world.node(peers[0]).any(is_introduced));
}

#[test]
fn repeating_a_connect_introduces_once() {
    let (mut world, server, peers) = open_network(18, 2);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    // The listener's packets to the connector are lost for a second, so the connector asks again and again.
    world.on_send = Some(Box::new(|datagram| {
        datagram.destination.ip() != ips(&["198.51.100.2"])[0] || datagram.source.port() == 20000
    }));
    world.connect(peers[1], server, "bob");
    world.run_for(Duration::from_secs(1));
    assert!(world.server(server).stats().introductions > 2);
    world.on_send = None;
    assert!(world.run_until(PATIENCE, |world| peers.iter().all(|peer| world.node(*peer).is_connected())));
    assert_eq!(connected(&world, peers[0]), 1);
    world.run_for(Duration::from_secs(40));
    assert_eq!(world.node(peers[0]).events.iter().filter(|(_, event)| is_introduced(event)).count(), 1);
}

#[test]
fn pending_sessions_of_a_listener_are_bounded() {
    let (mut world, server, peers) = open_network(19, 2);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    // A connector that floods with introductions and never checks.
    world.on_send = Some(Box::new(|datagram| {
        !(datagram.source.ip() == ips(&["198.51.100.2"])[0] && datagram.destination.port() != 20000)
    }));
    for _ in 0..90 {
        world.connect(peers[1], server, "bob");
        world.run_for(Duration::from_millis(100));
    }
    let introduced = world.node(peers[0]).events.iter().filter(|(_, event)| is_introduced(event)).count();
    assert_eq!(introduced, PeerConfig::default().max_pending_sessions);
}

#[test]
fn a_peer_that_connects_to_itself_is_told() {
    let (mut world, server, peers) = open_network(24, 1);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    world.connect(peers[0], server, "bob");
    assert_eq!(run_until_failed(&mut world, peers[0]).1.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_session_that_heard_nothing_for_long_makes_room() {
    let (mut world, server, peers) = open_network(21, 3);
    world.listen(peers[0], server, Some("bob"));
    world.run_until_registered(peers[0]);
    // One floods with introductions and never checks; another comes while all places are taken.
    world.on_send = Some(Box::new(|datagram| {
        !(datagram.source.ip() == ips(&["198.51.100.2"])[0] && datagram.destination.port() != 20000)
    }));
    for _ in 0..64 {
        world.connect(peers[1], server, "bob");
    }
    world.run_for(Duration::from_secs(11));
    world.connect(peers[2], server, "bob");
    assert!(world.run_until(Duration::from_secs(1), |world| world.node(peers[2]).is_connected()));
}

#[test]
fn a_server_that_only_ever_challenges_is_as_good_as_silent() {
    let (mut world, server, peers) = open_network(22, 2);
    // Its cookies are never good: a server whose clock runs wild.
    let config = {
        let mut config = ServerConfig::default();
        config.cookie_epoch = Duration::from_micros(1);
        config
    };
    world.restart_server(server, config);
    world.connect(peers[0], server, "bob");
    world.listen(peers[1], server, Some("bob"));
    for peer in peers {
        let (time, error) = run_until_failed(&mut world, peer);
        assert_eq!((error.kind(), time.as_millis()), (ErrorKind::ServerSilent, 5000));
    }
}

#[test]
fn private_addresses_stay_private_where_they_are_to() {
    for (tells, expected) in [(true, 2), (false, 1)] {
        let kind = netsim::oracle::NatKind::all()[0];
        let mut pair = Pair::new(23, kind, kind);
        let mut config = PeerConfig::default();
        config.private_candidates = tells;
        let host = pair.world.net.add_host_in(pair.sites[0], ips(&["10.0.1.3"]), Link::PERFECT);
        let listener = pair.world.add_peer(host, config);
        pair.world.listen(listener, pair.server, Some("carol"));
        pair.world.run_until_registered(listener);
        pair.world.connect(pair.connector, pair.server, "carol");
        assert!(pair.world.run_until(PATIENCE, |world| world.node(pair.connector).is_connected()));
        let told = pair.world.node(pair.connector).events.iter().find_map(|(_, event)| match event {
            PeerEvent::Introduced { peer, .. } => Some(peer.len()),
            _ => None,
        });
        assert_eq!(told, Some(expected));
    }
}

#[test]
fn requests_that_cannot_be_right_are_refused_at_once() {
    let (mut world, server, peers) = open_network(20, 1);
    let good = world.connect_request(server, "bob");
    let bad = [
        ConnectRequest { servers: vec![], ..good.clone() },
        ConnectRequest { bind: vec![], ..good.clone() },
        ConnectRequest { bind: vec!["0.0.0.0:1".parse().unwrap(), "0.0.0.0:2".parse().unwrap()], ..good.clone() },
        ConnectRequest { bind: vec!["224.0.0.1:0".parse().unwrap()], ..good },
    ];
    for request in bad {
        let error = world.with_peer(peers[0], |peer, now| peer.connect(now, request)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    assert!(world.sockets(peers[0]).is_empty());
    for (target, is_right) in
        [("bob", true), ("192.0.2.1", true), ("::1", true), ("Bob", false), ("a:1", false), ("", false)]
    {
        assert_eq!(target.parse::<holepunch::peer::Target>().is_ok(), is_right, "{target}");
    }
}
