//! The life of a connection and its end: consent, silence, farewell.

use crate::{
    topology::{Pair, path},
    world::World,
};
use holepunch::{
    peer::{CloseReason, PeerEvent},
    wire::stun::{Message, Method, SessionId},
};
use netsim::oracle::NatKind;
use std::{cell::RefCell, rc::Rc, time::Duration};

fn connected(seed: u64) -> (Pair, SessionId) {
    let kind = NatKind::all()[6];
    assert_eq!(kind.name(), "eim_apdf_preserving");
    let mut pair = Pair::new(seed, kind, kind);
    let session = pair.introduce();
    assert!(pair.run_until_connected(Duration::from_secs(5)));
    (pair, session)
}

fn closed(world: &World, node: crate::world::NodeId) -> Option<CloseReason> {
    world.node(node).events.iter().find_map(|(_, event)| match event {
        PeerEvent::Closed { reason, .. } => Some(*reason),
        _ => None,
    })
}

#[test]
fn an_idle_connection_outlives_short_nat_lifetimes() {
    let (mut pair, session) = connected(1);
    for site in pair.sites {
        let mut nat = NatKind::all()[6].nat();
        nat.lifetime = Duration::from_secs(30);
        pair.world.net.set_nat(site, nat);
    }
    let before = pair.world.net.counters(pair.world.host(pair.connector)).packets_sent;
    pair.world.run_for(Duration::from_secs(3600));
    assert!(pair.exchange_data(session));
    let sent = pair.world.net.counters(pair.world.host(pair.connector)).packets_sent - before;
    // A check every 5 s of its own and an answer to each of the peer's; the connector is registered nowhere.
    assert!((1300..1600).contains(&sent), "{sent} packets in an hour");
}

#[test]
fn a_peer_that_vanishes_is_lost_after_thirty_seconds() {
    let (mut pair, _) = connected(2);
    let start = pair.world.net.now();
    pair.world.net.set_link_up(pair.sites[0], false);
    let connector = pair.connector;
    assert!(pair.world.run_until(Duration::from_secs(60), |world| closed(world, connector).is_some()));
    assert_eq!(closed(&pair.world, connector), Some(CloseReason::Lost));
    let silence = pair.world.net.now().since(start);
    assert!(silence > Duration::from_secs(29) && silence < Duration::from_millis(30_100), "{silence:?}");
    assert!(pair.world.sockets(connector).is_empty());
}

#[test]
fn a_second_of_loss_does_not_end_a_connection() {
    let (mut pair, session) = connected(3);
    for _ in 0..20 {
        pair.world.net.set_link_up(pair.sites[0], false);
        pair.world.run_for(Duration::from_secs(12));
        pair.world.net.set_link_up(pair.sites[0], true);
        pair.world.run_for(Duration::from_secs(12));
    }
    assert!(pair.exchange_data(session));
}

#[test]
fn heavy_loss_does_not_end_a_connection() {
    for seed in 0..20 {
        let (mut pair, _) = connected(seed);
        for site in pair.sites {
            // Six of ten round trips fail.
            pair.world.net.set_link(site, crate::topology::link().with_loss(0.2));
        }
        pair.world.run_for(Duration::from_secs(600));
        assert_eq!(closed(&pair.world, pair.listener), None, "seed {seed}");
        assert_eq!(closed(&pair.world, pair.connector), None, "seed {seed}");
    }
}

#[test]
fn both_ends_in_order_close_the_connection_on_both_sides() {
    let (mut pair, session) = connected(4);
    pair.world.with_peer(pair.connector, |peer, now| peer.end(now, session));
    pair.world.run_for(Duration::from_millis(100));
    assert!(pair.world.node(pair.listener).any(|event| matches!(event, PeerEvent::PeerEnded { .. })));
    assert!(pair.world.node(pair.connector).any(|event| matches!(event, PeerEvent::EndAcknowledged { .. })));
    assert_eq!(closed(&pair.world, pair.connector), None, "half closed");
    assert!(pair.exchange_data(session), "receiving goes on");
    pair.world.with_peer(pair.listener, |peer, now| peer.end(now, session));
    pair.world.run_for(Duration::from_millis(100));
    assert_eq!(closed(&pair.world, pair.connector), Some(CloseReason::End));
    assert_eq!(closed(&pair.world, pair.listener), Some(CloseReason::End));
    pair.world.run_for(Duration::from_secs(4));
    assert!(pair.world.sockets(pair.connector).is_empty());
    assert_eq!(pair.world.sockets(pair.listener).len(), 2, "it still listens");
}

#[test]
fn closing_tells_the_peer_even_under_loss() {
    for seed in 0..50 {
        let (mut pair, session) = connected(seed);
        for site in pair.sites {
            pair.world.net.set_link(site, crate::topology::link().with_loss(0.3));
        }
        pair.world.with_peer(pair.listener, |peer, now| peer.close(now, session));
        pair.world.run_for(Duration::from_secs(7));
        assert_eq!(closed(&pair.world, pair.listener), Some(CloseReason::End), "seed {seed}");
        assert_eq!(closed(&pair.world, pair.connector), Some(CloseReason::Peer), "seed {seed}");
        assert!(pair.world.sockets(pair.connector).is_empty());
    }
}

#[test]
fn closing_toward_a_dead_peer_takes_three_seconds() {
    let (mut pair, session) = connected(5);
    pair.world.net.set_link_up(pair.sites[0], false);
    let start = pair.world.net.now();
    pair.world.with_peer(pair.connector, |peer, now| peer.close(now, session));
    let connector = pair.connector;
    assert!(pair.world.run_until(Duration::from_secs(60), |world| closed(world, connector).is_some()));
    assert_eq!(pair.world.net.now().since(start), Duration::from_secs(3));
    assert!(pair.world.sockets(connector).is_empty());
}

#[test]
fn an_end_that_is_reflected_to_its_sender_does_nothing() {
    let (mut pair, session) = connected(6);
    let sent = Rc::new(RefCell::new(None));
    let recorder = Rc::clone(&sent);
    pair.world.on_send = Some(Box::new(move |datagram| {
        let is_end = Message::parse(&datagram.payload).is_ok_and(|message| message.method() == Method::END);
        if is_end {
            recorder.borrow_mut().get_or_insert(datagram.payload.clone());
        }
        !is_end
    }));
    let listener_path = path(&pair.world, pair.listener).unwrap();
    pair.world.with_peer(pair.listener, |peer, now| peer.end(now, session));
    let end = sent.borrow().clone().expect("an END was sent");
    let port = listener_path.local.port();
    pair.world.forge(pair.listener, port, listener_path.remote, &end);
    assert!(!pair.world.node(pair.listener).any(|event| matches!(event, PeerEvent::PeerEnded { .. })));
}

#[test]
fn closing_before_the_connection_leaves_nothing() {
    let kind = NatKind::all()[26];
    let mut pair = Pair::new(7, kind, kind);
    let session = pair.introduce();
    pair.world.with_peer(pair.connector, |peer, now| peer.close(now, session));
    assert!(pair.world.sockets(pair.connector).is_empty());
    pair.world.with_peer(pair.listener, |peer, now| peer.close_listener(now, holepunch::peer::ListenerId(0)));
    pair.world.run_for(Duration::from_secs(3));
    assert!(pair.world.sockets(pair.listener).is_empty());
    assert!(pair.world.node(pair.listener).any(|event| matches!(event, PeerEvent::Failed { .. })));
}

#[test]
fn a_connection_outlives_its_listener() {
    let (mut pair, session) = connected(8);
    pair.world.with_peer(pair.listener, |peer, now| peer.close_listener(now, holepunch::peer::ListenerId(0)));
    pair.world.run_for(Duration::from_secs(60));
    assert!(pair.exchange_data(session));
    pair.world.with_peer(pair.listener, |peer, now| peer.close(now, session));
    pair.world.run_for(Duration::from_secs(4));
    assert!(pair.world.sockets(pair.listener).is_empty());
}

#[test]
fn data_that_looks_like_stun_is_data() {
    let (mut pair, _) = connected(9);
    let path = path(&pair.world, pair.connector).unwrap();
    let lookalike = holepunch::wire::stun::Builder::new(
        holepunch::wire::stun::Class::Request,
        Method::BINDING,
        holepunch::wire::stun::TransactionId([3; 12]),
    )
    .fingerprint()
    .finish();
    pair.world.send_data(pair.connector, &path, &lookalike);
    pair.world.send_data(pair.connector, &path, b"");
    pair.world.run_for(Duration::from_millis(100));
    let received: Vec<_> = pair.world.node(pair.listener).received.iter().map(|(_, data)| data.clone()).collect();
    assert_eq!(received, [lookalike, Vec::new()]);
}
