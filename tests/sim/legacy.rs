//! Peers of 2015, as a server introduces them: what a peer that can meet them says and tells.

use crate::{
    topology::{add_server, ips, link},
    world::{NodeId, World},
};
use holepunch::{
    ErrorKind,
    config::PeerConfig,
    peer::{ConnectRequest, ListenRequest, ListenerId, PeerEvent, Transport},
    wire::stun::{
        Builder, CandidateKind, CandidateTransport, Class, Message, Method, RegistrationId, SessionId, TransactionId,
        WireCandidate,
    },
};
use netsim::HostSpec;
use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

const OLD_PEER: &str = "203.0.113.7:20001";

fn world(seed: u64) -> (World, NodeId, NodeId) {
    let mut world = World::new(seed);
    let server = add_server(&mut world);
    let host = world.net.add_host(HostSpec { addresses: ips(&["198.51.100.1"]), link: link() });
    let peer = world.add_peer(host, PeerConfig::default());
    (world, server, peer)
}

fn candidate(address: &str) -> WireCandidate {
    WireCandidate {
        kind: CandidateKind::ServerReflexiveObserved,
        transport: CandidateTransport::Udp,
        priority: 1,
        address: address.parse().unwrap(),
    }
}

/// What the peer sends with this method, from now on.
fn sent(world: &mut World, method: Method) -> Rc<RefCell<Vec<(SocketAddr, Vec<u8>)>>> {
    let sent = Rc::new(RefCell::new(Vec::new()));
    let seen = sent.clone();
    world.on_send = Some(Box::new(move |datagram| {
        let is_it = Message::parse(&datagram.payload)
            .is_ok_and(|message| (message.method(), message.class()) == (method, Class::Request));
        if is_it {
            seen.borrow_mut().push((datagram.source, datagram.payload.clone()));
        }
        true
    }));
    sent
}

fn introduced(world: &World, node: NodeId) -> Vec<(Option<ListenerId>, SocketAddr)> {
    let events = world.node(node).events.iter();
    let introduced = events.filter_map(|(_, event)| match event {
        PeerEvent::LegacyIntroduced { listener, peer, .. } => Some((*listener, *peer)),
        _ => None,
    });
    introduced.collect()
}

fn server_address() -> SocketAddr {
    "192.0.2.1:20000".parse().unwrap()
}

fn introduction(sequence: u64, id: RegistrationId, key: &[u8]) -> Vec<u8> {
    Builder::new(Class::Indication, Method::INTRODUCE, TransactionId([1; 12]))
        .registration_id(id)
        .session_id(SessionId([sequence as u8; 16]))
        .sequence(sequence)
        .candidates(&[candidate(OLD_PEER)])
        .legacy(20001)
        .integrity_sha256(key)
        .fingerprint()
        .finish()
}

#[test]
fn a_connect_that_finds_a_peer_of_2015_says_where_it_is_and_is_over() {
    for (legacy, transport) in [(true, Transport::Udp), (true, Transport::Tcp), (false, Transport::Udp)] {
        let (mut world, server, node) = world(1);
        let asked = sent(&mut world, Method::CONNECT);
        let request = ConnectRequest { legacy, transport, ..world.connect_request(server, "203.0.113.7") };
        world.with_peer(node, |peer, now| peer.connect(now, request)).unwrap();
        world.run_for(Duration::from_millis(60));
        let (from, request) = asked.borrow().last().cloned().unwrap();
        let request = Message::parse(&request).unwrap();
        assert_eq!(request.legacy(), legacy.then_some(0));
        let answer = |address: &str, port| {
            let builder = Builder::new(Class::Success, Method::CONNECT, request.transaction_id());
            builder.candidates(&[candidate(address)]).legacy(port).fingerprint().finish()
        };
        // Nothing that is no host's address, or this host's own, and no other port than is told.
        let wrong =
            ["[2001:db8::7]:20001", "127.0.0.1:20001", "0.0.0.0:20001", "224.0.0.1:20001", "255.255.255.255:20001"];
        for (address, port) in wrong.map(|address| (address, 20001)).into_iter().chain([(OLD_PEER, 20002)]) {
            world.forge(node, from.port(), server_address(), &answer(address, port));
        }
        assert!(introduced(&world, node).is_empty());
        world.forge(node, from.port(), server_address(), &answer(OLD_PEER, 20001));
        if legacy {
            assert_eq!(introduced(&world, node), [(None, OLD_PEER.parse().unwrap())]);
            assert_eq!(world.tcp_of_machine(node), (0, 0));
            assert_eq!(world.wake(node), None);
            assert!(world.sockets(node).is_empty());
        } else {
            assert!(introduced(&world, node).is_empty());
        }
    }
}

#[test]
fn a_listener_tells_of_every_peer_of_2015_once_and_lives_on() {
    let (mut world, server, node) = world(2);
    let asked = sent(&mut world, Method::REGISTER);
    let request = ListenRequest { legacy: true, ..world.listen_request(server, None) };
    world.with_peer(node, |peer, now| peer.listen(now, request)).unwrap();
    world.run_until_registered(node);
    let (from, request) = asked.borrow().iter().rev().find(|(from, _)| from.is_ipv4()).cloned().unwrap();
    let request = Message::parse(&request).unwrap();
    assert_eq!(request.legacy(), Some(0));
    let (id, key) = (request.registration_id().unwrap(), request.registration_key().unwrap());
    let mut hear = |sequence, id, key: &[u8]| {
        world.forge(node, from.port(), server_address(), &introduction(sequence, id, key));
        introduced(&world, node)
    };
    let once = (Some(ListenerId(0)), OLD_PEER.parse().unwrap());
    assert_eq!(hear(1, id, &key), [once]);
    assert_eq!(hear(1, id, &key), [once], "a double");
    assert_eq!(hear(2, id, &[0; 32]), [once], "a forgery");
    assert_eq!(hear(2, RegistrationId([0; 16]), &key), [once], "somebody else's");
    assert_eq!(hear(2, id, &key), [once, once]);
    assert_eq!(world.server(server).stats().registrations, 1);
}

/// A listener of 2015 cannot be told of any other address; and what a server says over IPv6, that nobody is there for
/// whoever asks from such an address, must not end the search.
#[test]
fn a_peer_of_2015_is_asked_for_over_ipv4_alone_where_there_is_ipv4() {
    let dual = ["198.51.100.1", "2001:db8:1::1"];
    for (addresses, target, legacy, families) in [
        (&dual[..], "203.0.113.7", true, &[true][..]),
        (&dual[..], "203.0.113.7", false, &[false, true]),
        (&dual[..], "2001:db8:7::1", true, &[false, true]),
        (&dual[..], "bob", true, &[false, true]),
        (&dual[1..], "203.0.113.7", true, &[false]),
    ] {
        let mut world = World::new(5);
        let server = add_server(&mut world);
        let host = world.net.add_host(HostSpec { addresses: ips(addresses), link: link() });
        let node = world.add_peer(host, PeerConfig::default());
        let asked = sent(&mut world, Method::CONNECT);
        let request = ConnectRequest { legacy, ..world.connect_request(server, target) };
        world.with_peer(node, |peer, now| peer.connect(now, request)).unwrap();
        world.run_for(Duration::from_millis(200));
        let mut seen: Vec<_> = asked.borrow().iter().map(|(from, _)| from.is_ipv4()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, families, "{target}");
        let says = |bytes: &[u8]| Message::parse(bytes).unwrap().legacy().is_some();
        let is_ipv4 = target.starts_with("203");
        assert!(asked.borrow().iter().all(|(_, bytes)| says(bytes) == (legacy && is_ipv4)), "{target}");
    }
}

/// It was found once: so it lets itself be heard again. A program that wanted one peer has left by then.
#[test]
fn a_listener_that_goes_on_is_soon_found_again() {
    for goes_on in [true, false] {
        let (mut world, server, node) = world(6);
        let request = ListenRequest { legacy: true, ..world.listen_request(server, None) };
        let listener = world.with_peer(node, |peer, now| peer.listen(now, request)).unwrap();
        world.run_until_registered(node);
        let host = world.net.add_host(HostSpec { addresses: ips(&["203.0.113.9"]), link: link() });
        let other = world.add_peer(host, PeerConfig::default());
        let connect = |world: &mut World| {
            let request =
                ConnectRequest { legacy: true, wait: Duration::ZERO, ..world.connect_request(server, "198.51.100.1") };
            let id = world.with_peer(other, |peer, now| peer.connect(now, request)).unwrap();
            // Two round trips and a little.
            world.run_for(Duration::from_millis(85));
            let is_it = |event: &PeerEvent| matches!(event, PeerEvent::Introduced { session, .. } if *session == id);
            world.node(other).any(is_it)
        };
        assert!(connect(&mut world));
        if goes_on {
            assert!(!connect(&mut world), "once");
            world.run_for(Duration::from_millis(50));
            assert!(connect(&mut world), "and again");
        } else {
            let asked = sent(&mut world, Method::REGISTER);
            world.with_peer(node, |peer, now| peer.close_listener(now, listener));
            world.run_for(Duration::from_secs(60));
            let leaves = |bytes: &[u8]| Message::parse(bytes).unwrap().keepalive() == Some(0);
            assert!(asked.borrow().iter().all(|(_, bytes)| leaves(bytes)));
            assert_eq!(world.server(server).stats().registrations, 0);
        }
    }
}

/// Its keepalive may have reached the server before the connector did.
#[test]
fn a_listener_that_is_introduced_while_it_asks_is_heard_again_too() {
    for introduced in [true, false] {
        let (mut world, server, node) = world(7);
        let asked = sent(&mut world, Method::REGISTER);
        let request = ListenRequest { legacy: true, ..world.listen_request(server, None) };
        world.with_peer(node, |peer, now| peer.listen(now, request)).unwrap();
        world.run_until_registered(node);
        let (from, request) = asked.borrow().iter().rev().find(|(from, _)| from.is_ipv4()).cloned().unwrap();
        let request = Message::parse(&request).unwrap();
        let (id, key) = (request.registration_id().unwrap(), request.registration_key().unwrap());
        let before = asked.borrow().len();
        assert!(world.run_until(Duration::from_secs(30), |_| asked.borrow().len() > before));
        if introduced {
            world.forge(node, from.port(), server_address(), &introduction(1, id, &key));
        }
        // The answer takes a round trip.
        world.run_for(Duration::from_millis(40 + 60));
        assert_eq!(asked.borrow().len(), before + if introduced { 2 } else { 1 });
    }
}

#[test]
fn a_listener_with_a_name_is_nothing_to_peers_of_2015() {
    let (mut world, server, node) = world(3);
    let asked = sent(&mut world, Method::REGISTER);
    let request = ListenRequest { legacy: true, ..world.listen_request(server, Some("bob")) };
    world.with_peer(node, |peer, now| peer.listen(now, request)).unwrap();
    world.run_until_registered(node);
    for (_, request) in asked.borrow().iter() {
        assert_eq!(Message::parse(request).unwrap().legacy(), None);
    }
}

#[test]
fn a_preferred_port_is_used_while_it_is_free() {
    let (mut world, server, node) = world(4);
    let listen = |world: &mut World| {
        let request = ListenRequest { prefer_port: Some(20001), ..world.listen_request(server, None) };
        world.with_peer(node, |peer, now| peer.listen(now, request)).unwrap();
    };
    listen(&mut world);
    assert!(world.sockets(node).iter().all(|local| local.port() == 20001));
    listen(&mut world);
    let ports: Vec<_> = world.sockets(node).iter().map(SocketAddr::port).collect();
    assert_eq!(ports.iter().filter(|port| **port == 20001).count(), ports.len() / 2, "{ports:?}");
}

#[test]
fn a_port_of_ones_choice_is_punched_from_and_serves_one_stream_at_a_time() {
    let mut world = World::new(5);
    let server = add_server(&mut world);
    let nodes = [1, 2].map(|number| {
        let addresses = ips(&[&format!("198.51.100.{number}")]);
        let host = world.net.add_host(HostSpec { addresses, link: link() });
        world.add_peer(host, PeerConfig::default())
    });
    let fixed = || vec!["0.0.0.0:7777".parse().unwrap()];
    world.listen(nodes[0], server, Some("bob"));
    world.run_until_registered(nodes[0]);
    let connect = |world: &mut World, prefer_port| {
        let bind = if prefer_port { vec!["0.0.0.0:0".parse().unwrap()] } else { fixed() };
        let prefer_port = prefer_port.then_some(7777);
        let transport = Transport::Tcp;
        let request = ConnectRequest { bind, transport, prefer_port, ..world.connect_request(server, "bob") };
        world.with_peer(nodes[1], |peer, now| peer.connect(now, request)).unwrap()
    };
    let port_of = |world: &World, of: SessionId| {
        world.node(nodes[1]).events.iter().find_map(|(_, event)| match event {
            PeerEvent::Connected { session, path, .. } if *session == of => Some(path.local.port()),
            _ => None,
        })
    };
    for round in 0..2 {
        let (fixed, preferred) = (connect(&mut world, false), connect(&mut world, true));
        let taken = connect(&mut world, false);
        let failed = |world: &World| {
            world.node(nodes[1]).events.iter().find_map(|(_, event)| match event {
                PeerEvent::Failed { session, error, .. } if *session == taken => Some(error.clone()),
                _ => None,
            })
        };
        let error = failed(&world).expect("the port is taken");
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        assert!(error.hint().contains("one stream at a time"), "{error}");
        let both = |world: &World| port_of(world, fixed).is_some() && port_of(world, preferred).is_some();
        assert!(world.run_until(Duration::from_secs(10), both), "round {round}\n{}", world.net.trace());
        assert_eq!(port_of(&world, fixed), Some(7777));
        assert_ne!(port_of(&world, preferred), Some(7777));
        // The port is free again, also toward the server; the peer's port is another one each time.
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.tcp_of_machine(nodes[1]), (0, 0));
    }
}
