//! A socket becomes its application's own: nothing but data comes to it, and the other side goes on or does the same.

use std::time::Duration;

use holepunch::{
    ErrorKind,
    peer::{CloseReason, PeerEvent},
    wire::stun::{Class, Message, Method, SessionId},
};
use netsim::oracle::NatKind;

use crate::{
    topology::{Pair, ROUND_TRIP, link, path},
    world::{NodeId, World},
};

const MINUTE: Duration = Duration::from_secs(60);

fn connected(seed: u64) -> (Pair, SessionId) {
    let kind = NatKind::all()[6];
    let mut pair = Pair::new(seed, kind, kind);
    let session = pair.introduce();
    assert!(pair.run_until_connected(Duration::from_secs(5)));
    // What was sent before has arrived.
    pair.world.run_for(Duration::from_millis(200));
    (pair, session)
}

fn ask(pair: &mut Pair, node: NodeId, session: SessionId) {
    pair.world.with_peer(node, |peer, now| peer.bare(now, session)).unwrap();
}

fn is_bare(world: &World, node: NodeId) -> bool {
    world.node(node).any(|event| matches!(event, PeerEvent::Bare { .. }))
}

fn closed(world: &World, node: NodeId) -> Option<CloseReason> {
    world.node(node).events.iter().find_map(|(_, event)| match event {
        PeerEvent::Closed { reason, .. } => Some(*reason),
        _ => None,
    })
}

fn message(payload: &[u8]) -> Option<(Method, Class)> {
    Message::parse(payload).ok().map(|message| (message.method(), message.class()))
}

/// What came to the socket since it is the application's own.
fn came(world: &World, node: NodeId) -> Vec<Vec<u8>> {
    world.node(node).received_bare.iter().map(|(_, payload)| payload.clone()).collect()
}

#[test]
fn one_side_takes_its_socket_and_the_other_goes_on() {
    for by_connector in [true, false] {
        let (mut pair, session) = connected(1);
        let (bare, managed) =
            if by_connector { (pair.connector, pair.listener) } else { (pair.listener, pair.connector) };
        let start = pair.world.net.now();
        ask(&mut pair, bare, session);
        assert!(pair.world.run_until(MINUTE, |world| is_bare(world, bare)));
        assert_eq!(pair.world.net.now().since(start), ROUND_TRIP);
        assert!(pair.world.node(managed).any(|event| matches!(event, PeerEvent::PeerBare { .. })));

        let managed_path = path(&pair.world, managed).unwrap();
        for _ in 0..10 {
            pair.world.run_for(Duration::from_secs(10));
            pair.world.send_data(managed, &managed_path, b"data");
            pair.world.send_bare(bare, b"answer");
        }
        pair.world.run_for(Duration::from_secs(1));
        assert_eq!(came(&pair.world, bare), vec![b"data".to_vec(); 10], "nothing but data");
        assert_eq!(pair.world.node(managed).received, vec![(session, b"answer".to_vec()); 10]);
        assert_eq!(closed(&pair.world, managed), None, "its silence says nothing");

        // The end is announced to nobody, and there is nothing to wait for.
        pair.world.with_peer(managed, |peer, now| peer.end(now, session));
        pair.world.with_peer(managed, |peer, now| peer.close(now, session));
        assert_eq!(closed(&pair.world, managed), Some(CloseReason::End));
        pair.world.run_for(MINUTE);
        assert_eq!(came(&pair.world, bare).len(), 10);
        let left = pair.world.sockets(pair.listener).len();
        assert_eq!((pair.world.sockets(pair.connector).len(), left), (0, 2), "the listener still listens");
    }
}

#[test]
fn both_take_their_sockets_at_any_distance() {
    for later in [0, 1, 5, 10, 20, 45, 50, 90, 200, 1000, 10_000] {
        let (mut pair, session) = connected(later);
        let (connector, listener) = (pair.connector, pair.listener);
        ask(&mut pair, connector, session);
        pair.world.run_for(Duration::from_millis(later));
        let start = pair.world.net.now();
        ask(&mut pair, listener, session);
        let both = |world: &World| is_bare(world, connector) && is_bare(world, listener);
        assert!(pair.world.run_until(Duration::from_secs(3), both), "{later} ms later");
        if later >= 1000 {
            assert_eq!(pair.world.net.now(), start, "the peer is silent already");
        }
        for round in 0..5_u8 {
            pair.world.send_bare(connector, &[1, round]);
            pair.world.send_bare(listener, &[2, round]);
            pair.world.run_for(Duration::from_secs(10));
        }
        let rounds = |side: u8| (0..5_u8).map(|round| vec![side, round]).collect::<Vec<_>>();
        assert_eq!(came(&pair.world, listener), rounds(1), "{later} ms later");
        assert_eq!(came(&pair.world, connector), rounds(2), "{later} ms later");
        assert!(pair.world.sockets(connector).is_empty());
    }
}

#[test]
fn under_loss_at_most_a_repeated_message_comes_to_the_application() {
    let mut strays = 0;
    for seed in 0..400 {
        let (mut pair, session) = connected(seed);
        let (connector, listener) = (pair.connector, pair.listener);
        for site in pair.sites {
            pair.world.net.set_link(site, link().with_loss(0.1));
        }
        ask(&mut pair, connector, session);
        pair.world.run_for(Duration::from_millis(seed % 300));
        ask(&mut pair, listener, session);
        let both = |world: &World| is_bare(world, connector) && is_bare(world, listener);
        assert!(pair.world.run_until(Duration::from_secs(5), both), "seed {seed}");
        pair.world.run_for(MINUTE);
        for node in [connector, listener] {
            let came = came(&pair.world, node);
            // Nothing but the one kind of message, and never a check.
            assert!(came.iter().all(|payload| message(payload) == Some((Method::BARE, Class::Request))), "seed {seed}");
            assert!(came.len() <= 3, "seed {seed}: {}", came.len());
            strays += usize::from(!came.is_empty());
        }
    }
    // 3 were seen.
    assert!(strays <= 8, "{strays} of 800 sockets got a message");
}

#[test]
fn a_lost_message_and_a_lost_acknowledgement_are_made_up_for() {
    for (lost, class) in [(1, Class::Request), (3, Class::Request), (1, Class::Success), (3, Class::Success)] {
        let (mut pair, session) = connected(2);
        let (connector, listener) = (pair.connector, pair.listener);
        let mut left = lost;
        pair.world.on_send = Some(Box::new(move |datagram| {
            let hit = left > 0 && message(&datagram.payload) == Some((Method::BARE, class));
            left -= usize::from(hit);
            !hit
        }));
        ask(&mut pair, connector, session);
        assert!(pair.world.run_until(Duration::from_secs(5), |world| is_bare(world, connector)));
        pair.world.run_for(MINUTE * 2);
        assert_eq!(came(&pair.world, connector), Vec::<Vec<u8>>::new(), "{lost} {class:?}");
        assert_eq!(closed(&pair.world, listener), None);
    }
}

#[test]
fn a_peer_that_never_acknowledges_is_not_waited_for() {
    let (mut pair, session) = connected(3);
    let (connector, listener) = (pair.connector, pair.listener);
    pair.world.on_send =
        Some(Box::new(|datagram| message(&datagram.payload).is_none_or(|(method, _)| method != Method::BARE)));
    let start = pair.world.net.now();
    ask(&mut pair, connector, session);
    assert!(pair.world.run_until(MINUTE, |world| is_bare(world, connector)));
    let waited = pair.world.net.now().since(start);
    assert!(waited >= Duration::from_millis(200) && waited < Duration::from_secs(1), "{waited:?}");
    // The other never heard of it: it asks for consent until that expires, and no longer.
    pair.world.run_for(MINUTE);
    assert_eq!(closed(&pair.world, listener), Some(CloseReason::Lost));
    let before = came(&pair.world, connector).len();
    assert!(before > 0);
    pair.world.run_for(MINUTE);
    assert_eq!(came(&pair.world, connector).len(), before);
}

#[test]
fn data_goes_on_while_the_sockets_are_taken() {
    let (mut pair, session) = connected(4);
    let (connector, listener) = (pair.connector, pair.listener);
    let paths = [connector, listener].map(|node| path(&pair.world, node).unwrap());
    let mut sent = [Vec::new(), Vec::new()];
    for round in 0..300_u16 {
        for (index, node) in [connector, listener].into_iter().enumerate() {
            if round == 50 + 10 * index as u16 {
                ask(&mut pair, node, session);
            }
            let payload = round.to_be_bytes();
            if is_bare(&pair.world, node) {
                pair.world.send_bare(node, &payload);
            } else {
                pair.world.send_data(node, &paths[index], &payload);
            }
            sent[index].push(payload.to_vec());
        }
        pair.world.run_for(Duration::from_millis(1));
    }
    pair.world.run_for(Duration::from_secs(1));
    for (node, sent) in [(listener, &sent[0]), (connector, &sent[1])] {
        assert!(is_bare(&pair.world, node));
        let before = pair.world.node(node).received.iter().map(|(_, payload)| payload.clone());
        let all: Vec<_> = before.chain(came(&pair.world, node)).collect();
        assert_eq!(all, *sent, "all of it, in order, and nothing else");
    }
}

#[test]
fn taken_at_the_first_moment_the_peer_is_connected_all_the_same() {
    for seed in 0..50 {
        let kind = NatKind::all()[6];
        let mut pair = Pair::new(seed, kind, kind);
        let session = pair.introduce();
        let (connector, listener) = (pair.connector, pair.listener);
        let connected = |world: &World, node| world.node(node).is_connected();
        assert!(pair.world.run_until(MINUTE, |world| connected(world, connector) || connected(world, listener)));
        let first = if connected(&pair.world, connector) { connector } else { listener };
        let second = if first == connector { listener } else { connector };
        ask(&mut pair, first, session);
        assert!(pair.world.run_until(MINUTE, |world| is_bare(world, first) && connected(world, second)));
        pair.world.run_for(MINUTE);
        assert_eq!(came(&pair.world, first), Vec::<Vec<u8>>::new(), "seed {seed}");
        assert_eq!(closed(&pair.world, second), None, "seed {seed}");
    }
}

#[test]
fn who_ends_has_no_socket_to_take() {
    let (mut pair, session) = connected(5);
    let (connector, listener) = (pair.connector, pair.listener);
    pair.world.with_peer(connector, |peer, now| peer.end(now, session));
    pair.world.run_for(Duration::from_millis(100));
    for node in [connector, listener] {
        let refused = pair.world.with_peer(node, |peer, now| peer.bare(now, session));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    }
    let refused = pair.world.with_peer(connector, |peer, now| peer.bare(now, SessionId([9; 16])));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    // A close that is on its way comes first.
    let (mut pair, session) = connected(6);
    pair.world.with_peer(listener, |peer, now| peer.close(now, session));
    ask(&mut pair, connector, session);
    pair.world.run_for(Duration::from_secs(4));
    assert_eq!(closed(&pair.world, connector), Some(CloseReason::Peer));
    assert!(!is_bare(&pair.world, connector));
}

#[test]
fn a_message_that_is_reflected_to_its_sender_does_nothing() {
    let (mut pair, session) = connected(7);
    let connector = pair.connector;
    let recorded = std::rc::Rc::new(std::cell::RefCell::new(None));
    let recorder = recorded.clone();
    pair.world.on_send = Some(Box::new(move |datagram| {
        let is_bare = message(&datagram.payload) == Some((Method::BARE, Class::Request));
        if is_bare {
            recorder.borrow_mut().get_or_insert(datagram.payload.clone());
        }
        !is_bare
    }));
    ask(&mut pair, connector, session);
    let sent = recorded.borrow().clone().expect("a message was sent");
    let path = path(&pair.world, connector).unwrap();
    pair.world.forge(connector, path.local.port(), path.remote, &sent);
    assert!(!pair.world.node(connector).any(|event| matches!(event, PeerEvent::PeerBare { .. })));
}
