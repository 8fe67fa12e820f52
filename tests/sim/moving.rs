//! A connection whose peer gets another address from its NAT in the middle: followed where packets still get through,
//! reported lost within the time of consent where they do not; and never moved by copies of checks.

use crate::{
    topology::{Pair, ips, link, path},
    world::NodeId,
};
use holepunch::{
    peer::{CloseReason, PeerEvent},
    wire::stun::{Class, Message, Method, SessionId},
};
use netsim::{Filtering, Mapping, Nat, PortAllocation, oracle::NatKind};
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

/// The peer's next check is due within 6 s (RFC 7675), the old address has half a second, then a round trip.
const FOLLOWED: Duration = Duration::from_millis(6_700);
/// Without consent for so long a connection is lost, and a check is answered after a round trip.
const LOST: Duration = Duration::from_millis(30_100);

fn kind(filtering: Filtering, allocation: PortAllocation) -> NatKind {
    let is_it = |kind: &NatKind| {
        let nat = kind.nat();
        (nat.mapping, nat.filtering, nat.allocation) == (Mapping::EndpointIndependent, filtering, allocation)
    };
    NatKind::all().into_iter().find(is_it).unwrap()
}

/// Two peers behind NATs with random ports: the first side's is forgotten in the tests; the second filters like this.
fn connected(seed: u64, moves: usize, filtering: Filtering) -> (Pair, SessionId, [NodeId; 2]) {
    let moved = kind(Filtering::AddressAndPortDependent, PortAllocation::Random);
    let stays = kind(filtering, PortAllocation::Random);
    let mut pair = if moves == 0 { Pair::new(seed, moved, stays) } else { Pair::new(seed, stays, moved) };
    let session = pair.introduce();
    assert!(pair.run_until_connected(Duration::from_secs(5)), "seed {seed}");
    pair.world.run_for(Duration::from_secs(20));
    let nodes = if moves == 0 { [pair.listener, pair.connector] } else { [pair.connector, pair.listener] };
    (pair, session, nodes)
}

fn moved(pair: &Pair, node: NodeId) -> Vec<SocketAddr> {
    let moved = pair.world.node(node).events.iter().filter_map(|(_, event)| match event {
        PeerEvent::Moved { remote, .. } => Some(*remote),
        _ => None,
    });
    moved.collect()
}

fn closed(pair: &Pair, node: NodeId) -> Option<CloseReason> {
    pair.world.node(node).events.iter().find_map(|(_, event)| match event {
        PeerEvent::Closed { reason, .. } => Some(*reason),
        _ => None,
    })
}

/// Where a peer's data goes now.
fn send(pair: &mut Pair, from: NodeId, text: &[u8]) {
    let mut path = path(&pair.world, from).unwrap();
    if let Some(remote) = moved(pair, from).last() {
        path.remote = *remote;
    }
    pair.world.send_data(from, &path, text);
}

fn exchange(pair: &mut Pair, session: SessionId, nodes: [NodeId; 2]) {
    for (from, to) in [(nodes[0], nodes[1]), (nodes[1], nodes[0])] {
        let text = format!("{:?} at {:?}", from, pair.world.net.now());
        send(pair, from, text.as_bytes());
        pair.world.run_for(Duration::from_millis(200));
        let arrived = pair.world.node(to).received.last().cloned();
        assert_eq!(arrived, Some((session, text.into_bytes())));
    }
}

#[test]
fn a_connection_survives_a_nat_that_forgets_where_packets_get_through() {
    for seed in 0..40 {
        for moves in [0, 1] {
            for (filtering, also_address) in [
                (Filtering::EndpointIndependent, false),
                (Filtering::EndpointIndependent, true),
                (Filtering::AddressDependent, false),
            ] {
                let (mut pair, session, nodes) = connected(seed, moves, filtering);
                for round in 1..=3_usize {
                    match also_address {
                        true => pair.world.net.set_public(pair.sites[moves], ips(&[&format!("203.0.113.{round}")])),
                        false => pair.world.net.flush_nat(pair.sites[moves]),
                    }
                    let start = pair.world.net.now();
                    let nodes_of = nodes;
                    let is_followed = |world: &crate::world::World| {
                        let events = &world.node(nodes_of[1]).events;
                        events.iter().filter(|(_, event)| matches!(event, PeerEvent::Moved { .. })).count() == round
                    };
                    let followed = pair.world.run_until(FOLLOWED, is_followed);
                    assert!(followed, "seed {seed}, {filtering:?}, address {also_address}, round {round}");
                    assert!(pair.world.net.now().since(start) > Duration::from_millis(500));
                    exchange(&mut pair, session, nodes);
                    pair.world.run_for(Duration::from_secs(100));
                    exchange(&mut pair, session, nodes);
                }
                assert_eq!(moved(&pair, nodes[0]), [], "it sees the other where it was");
                assert_eq!((closed(&pair, nodes[0]), closed(&pair, nodes[1])), (None, None), "seed {seed}");
            }
        }
    }
}

#[test]
fn moving_is_noticed_under_loss_too() {
    for seed in 0..40 {
        let (mut pair, session, nodes) = connected(seed, 0, Filtering::EndpointIndependent);
        for site in pair.sites {
            pair.world.net.set_link(site, link().with_loss(0.1));
        }
        pair.world.net.flush_nat(pair.sites[0]);
        let other = nodes[1];
        let is_moved = |world: &crate::world::World| world.node(other).any(|e| matches!(e, PeerEvent::Moved { .. }));
        assert!(pair.world.run_until(Duration::from_secs(25), is_moved), "seed {seed}");
        for site in pair.sites {
            pair.world.net.set_link(site, link());
        }
        exchange(&mut pair, session, nodes);
    }
}

#[test]
fn where_the_other_nat_filters_the_new_address_both_are_told_within_thirty_seconds() {
    for (filtering, also_address) in [(Filtering::AddressAndPortDependent, false), (Filtering::AddressDependent, true)]
    {
        for moves in [0, 1] {
            let (mut pair, _, nodes) = connected(1, moves, filtering);
            match also_address {
                true => pair.world.net.set_public(pair.sites[moves], ips(&["203.0.113.9"])),
                false => pair.world.net.flush_nat(pair.sites[moves]),
            }
            pair.world.run_for(LOST);
            for node in nodes {
                assert_eq!(closed(&pair, node), Some(CloseReason::Lost), "{filtering:?}");
                assert_eq!(moved(&pair, node), []);
            }
        }
    }
}

#[test]
fn a_nat_that_preserves_ports_may_forget_what_it_likes() {
    let preserving = kind(Filtering::AddressAndPortDependent, PortAllocation::Preserving);
    let mut pair = Pair::new(3, preserving, preserving);
    let session = pair.introduce();
    assert!(pair.run_until_connected(Duration::from_secs(5)));
    for _ in 0..10 {
        for site in pair.sites {
            pair.world.net.flush_nat(site);
        }
        pair.world.run_for(Duration::from_secs(7));
        assert!(pair.exchange_data(session));
    }
    assert_eq!((moved(&pair, pair.listener), moved(&pair, pair.connector)), (vec![], vec![]));
}

#[test]
fn an_idle_connection_with_short_mappings_that_change_lives() {
    let (mut pair, session, nodes) = connected(5, 1, Filtering::EndpointIndependent);
    for site in pair.sites {
        let nat = Nat {
            lifetime: Duration::from_secs(30),
            ..kind(Filtering::EndpointIndependent, PortAllocation::Random).nat()
        };
        pair.world.net.set_nat(site, nat);
    }
    for _ in 0..50 {
        pair.world.net.flush_nat(pair.sites[1]);
        pair.world.run_for(Duration::from_secs(60));
    }
    exchange(&mut pair, session, nodes);
    assert_eq!(moved(&pair, nodes[1]).len(), 50);
}

/// Somebody sends copies of a peer's checks from elsewhere; how many datagrams it gets for it, by whether the peer lives.
fn copies(is_alive: bool, seconds: u64) -> (u32, u32, Pair) {
    let (mut pair, _, nodes) = connected(7, 0, Filtering::EndpointIndependent);
    let copied = Rc::new(RefCell::new(None));
    let answered = Rc::new(Cell::new((0, 0)));
    let (recorder, counter) = (Rc::clone(&copied), Rc::clone(&answered));
    let stranger: SocketAddr = "198.18.0.1:53".parse().unwrap();
    let local = path(&pair.world, nodes[1]).unwrap().local;
    let own = path(&pair.world, nodes[0]).unwrap().local.port();
    pair.world.on_send = Some(Box::new(move |datagram| {
        let Ok(message) = Message::parse(&datagram.payload) else { return true };
        let is_check = (message.method(), message.class()) == (Method::BINDING, Class::Request);
        if datagram.destination == stranger {
            let (answers, checks) = counter.get();
            counter.set(if is_check { (answers, checks + 1) } else { (answers + 1, checks) });
            return false;
        }
        if is_check && datagram.source.port() == own && datagram.source.ip() != local.ip() {
            recorder.borrow_mut().replace(datagram.payload.clone());
        }
        true
    }));
    pair.world.run_for(Duration::from_secs(7));
    let check = copied.borrow().clone().expect("a check was sent");
    if !is_alive {
        pair.world.net.set_link_up(pair.sites[0], false);
    }
    for _ in 0..seconds * 10 {
        pair.world.forge(nodes[1], local.port(), stranger, &check);
        pair.world.run_for(Duration::from_millis(100));
    }
    let (answers, checks) = answered.get();
    (answers, checks, pair)
}

#[test]
fn a_copied_check_moves_nothing_and_brings_its_sender_one_answer_each() {
    let (answers, checks, pair) = copies(true, 60);
    assert_eq!((answers, checks), (600, 0), "while the peer answers nobody else is checked");
    assert_eq!(moved(&pair, pair.connector), []);
    assert_eq!(closed(&pair, pair.connector), None);
}

#[test]
fn a_copied_check_moves_nothing_when_the_peer_is_gone() {
    let (answers, checks, pair) = copies(false, 40);
    assert_eq!(moved(&pair, pair.connector), []);
    assert_eq!(closed(&pair, pair.connector), Some(CloseReason::Lost), "in time");
    assert!(answers <= 300 && checks <= answers + 3, "{answers} answers, {checks} checks");
}
