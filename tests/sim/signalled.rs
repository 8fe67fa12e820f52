//! Sessions whose signalling is the program's own: two peers behind NATs, a STUN server, and texts that cross in the test.

use crate::{
    topology::{DELAY, add_server, ips, link},
    world::{NodeId, World, any},
};
use holepunch::{
    ErrorKind,
    config::PeerConfig,
    peer::{CloseReason, NegotiateRequest, Path, PeerEvent, ServerAddress},
    punch::{CandidateKind, Role},
    wire::stun::{Credentials, SessionId},
};
use netsim::{
    SiteSpec,
    oracle::{Expectation, NatKind, expected},
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

const PATIENCE: Duration = Duration::from_secs(5);
const ROLES: [Role; 2] = [Role::Controlling, Role::Controlled];

/// Two peers, each behind a NAT of this kind of its own.
struct Meeting {
    world: World,
    server: NodeId,
    peers: [NodeId; 2],
    sessions: [SessionId; 2],
}

impl Meeting {
    fn new(kind: usize, roles: [Role; 2]) -> Self {
        let mut world = World::new(7);
        let server = add_server(&mut world);
        let stun = world.server_address(server);
        Self::with_stun(world, server, kind, roles, stun)
    }

    fn with_stun(mut world: World, server: NodeId, kind: usize, roles: [Role; 2], stun: ServerAddress) -> Self {
        let peers = ["198.51.100.1", "198.51.100.2"].map(|public| {
            let spec = SiteSpec {
                public: ips(&[public]),
                nat: Some(NatKind::all()[kind].nat()),
                link: link(),
                ..SiteSpec::default()
            };
            let site = world.net.add_site(spec);
            let host = world.net.add_host_in(site, ips(&["10.0.0.2"]), netsim::Link::PERFECT);
            world.add_peer(host, PeerConfig::default())
        });
        let sessions = [0, 1].map(|side| {
            let request = NegotiateRequest {
                role: roles[side],
                stun_servers: vec![stun.clone()],
                bind: any(),
                timeout: Duration::from_secs(30),
                prefer_port: None,
            };
            world.with_peer(peers[side], |peer, now| peer.negotiate(now, request)).unwrap()
        });
        Self { world, server, peers, sessions }
    }

    fn credentials(&mut self, side: usize) -> Credentials {
        let session = self.sessions[side];
        self.world.with_peer(self.peers[side], |peer, _| peer.local_credentials(session).cloned()).unwrap()
    }

    fn lines(&self, side: usize) -> Vec<String> {
        let events = self.world.node(self.peers[side]).events.iter();
        let lines = events.filter_map(|(_, event)| match event {
            PeerEvent::LocalCandidate { candidate, .. } => Some(candidate.to_string()),
            _ => None,
        });
        lines.collect()
    }

    fn is_gathered(&self, side: usize) -> bool {
        self.world.node(self.peers[side]).any(|event| matches!(event, PeerEvent::Gathered { .. }))
    }

    /// One side learns all that is known of the other.
    fn tell(&mut self, side: usize) {
        let remote = self.credentials(1 - side);
        let lines = self.lines(1 - side);
        let session = self.sessions[side];
        self.world.with_peer(self.peers[side], |peer, now| {
            peer.set_remote(now, session, remote).unwrap();
            lines.iter().for_each(|line| peer.add_remote_candidate(now, session, line).unwrap());
        });
    }

    fn gather(&mut self) {
        let peers = self.peers;
        let gathered = |world: &World| {
            peers.iter().all(|peer| world.node(*peer).any(|event| matches!(event, PeerEvent::Gathered { .. })))
        };
        assert!(self.world.run_until(PATIENCE, gathered));
    }

    fn run_until_connected(&mut self) -> bool {
        let peers = self.peers;
        self.world.run_until(PATIENCE, |world| peers.iter().all(|peer| world.node(*peer).is_connected()))
    }

    fn path(&self, side: usize) -> Path {
        let path = self.world.node(self.peers[side]).events.iter().find_map(|(_, event)| match event {
            PeerEvent::Connected { path, .. } => Some(*path),
            _ => None,
        });
        path.expect("connected")
    }
}

#[test]
fn nats_are_punched_that_need_no_prediction() {
    for (kind, nat) in NatKind::all().into_iter().enumerate() {
        let feasible = matches!(expected(nat, nat), Expectation::Plain | Expectation::PeerReflexive);
        let mut meeting = Meeting::new(kind, ROLES);
        meeting.gather();
        let lines = meeting.lines(0);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains(" 10.0.0.2 40000 typ host"), "{lines:?}");
        assert!(lines[1].contains("udp") && lines[1].contains(" 198.51.100.1 "), "{lines:?}");
        assert!(lines[1].ends_with(" typ srflx raddr 10.0.0.2 rport 40000"), "{lines:?}");
        meeting.tell(0);
        meeting.tell(1);
        assert_eq!(meeting.run_until_connected(), feasible, "{}", nat.name());
        if feasible {
            assert!(meeting.path(0).signalled);
            assert_eq!([meeting.path(0).role, meeting.path(1).role], ROLES);
            let path = meeting.path(0);
            let peer = meeting.peers[0];
            meeting.world.send_data(peer, &path, b"hello");
            meeting.world.run_for(DELAY * 4);
            assert_eq!(meeting.world.node(meeting.peers[1]).received, [(meeting.sessions[1], b"hello".to_vec())]);
        }
    }
}

#[test]
fn equal_roles_are_settled() {
    for role in ROLES {
        let mut meeting = Meeting::new(0, [role; 2]);
        meeting.gather();
        meeting.tell(0);
        meeting.tell(1);
        assert!(meeting.run_until_connected());
        assert_ne!(meeting.path(0).role, meeting.path(1).role);
    }
}

/// The peer's checks come before its description does, by any time.
#[test]
fn checks_that_come_early_are_answered_late() {
    let mut meeting = Meeting::new(0, ROLES);
    meeting.gather();
    meeting.tell(1);
    meeting.world.run_for(Duration::from_secs(20));
    meeting.tell(0);
    let begin = meeting.world.net.now();
    assert!(meeting.run_until_connected());
    assert!(meeting.world.net.now() - begin < DELAY * 8, "one check a second is still sent, and one was kept");
}

/// The peer's candidates come one by one, and before its credentials.
#[test]
fn candidates_trickle_in_any_order() {
    let mut meeting = Meeting::new(0, ROLES);
    let session = meeting.sessions[0];
    meeting.gather();
    let (remote, lines) = (meeting.credentials(1), meeting.lines(1));
    meeting.world.with_peer(meeting.peers[0], |peer, now| {
        for odd in [
            "candidate:1 1 tcp 1 192.0.2.1 9 typ host",
            "1 1 udp 1 name.local 9 typ host",
            "1 2 udp 1 192.0.2.1 9 typ host",
        ] {
            peer.add_remote_candidate(now, session, odd).unwrap();
        }
        let error = peer.add_remote_candidate(now, session, "candidate:?").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        for line in &lines {
            peer.add_remote_candidate(now, session, line).unwrap();
        }
        peer.end_of_remote_candidates(now, session).unwrap();
        let weak = Credentials { ufrag: "abcd".into(), password: "short".into() };
        assert_eq!(peer.set_remote(now, session, weak).unwrap_err().kind(), ErrorKind::InvalidArgument);
        peer.set_remote(now, session, remote.clone()).unwrap();
        peer.set_remote(now, session, remote.clone()).unwrap();
        let other = Credentials { ufrag: "abcd".into(), password: remote.password.clone() };
        assert_eq!(peer.set_remote(now, session, other).unwrap_err().kind(), ErrorKind::Unsupported);
    });
    let (session, remote) = (meeting.sessions[1], meeting.credentials(0));
    meeting.world.with_peer(meeting.peers[1], |peer, now| peer.set_remote(now, session, remote)).unwrap();
    for line in meeting.lines(0) {
        meeting.world.run_for(Duration::from_millis(300));
        meeting.world.with_peer(meeting.peers[1], |peer, now| peer.add_remote_candidate(now, session, &line)).unwrap();
    }
    assert!(meeting.run_until_connected());
    // Its checks came before its candidate did.
    assert_eq!(meeting.path(1).kind, CandidateKind::PeerReflexive);
    assert_eq!(meeting.path(0).kind, CandidateKind::ServerReflexive);
}

#[test]
fn a_silent_stun_server_delays_nothing_but_the_end_of_gathering() {
    let mut world = World::new(7);
    let server = add_server(&mut world);
    let nowhere =
        ServerAddress { label: "nowhere".into(), ipv4: Some("192.0.2.250:3478".parse().unwrap()), ipv6: None };
    let mut meeting = Meeting::with_stun(world, server, 0, ROLES, nowhere);
    assert_eq!(meeting.lines(0).len(), 1);
    assert!(!meeting.is_gathered(0));
    meeting.world.run_for(Duration::from_millis(4_900));
    assert!(!meeting.is_gathered(0));
    meeting.world.run_for(Duration::from_millis(200));
    assert!(meeting.is_gathered(0));
}

/// Nobody is told of the end, and consent ends the other side; a wrong password ends nothing but time.
#[test]
fn the_end_is_noticed_by_consent() {
    let mut meeting = Meeting::new(0, ROLES);
    meeting.gather();
    meeting.tell(0);
    meeting.tell(1);
    assert!(meeting.run_until_connected());
    let session = meeting.sessions[0];
    meeting.world.with_peer(meeting.peers[0], |peer, now| peer.close(now, session));
    let closed =
        |reason| move |event: &PeerEvent| matches!(event, PeerEvent::Closed { reason: why, .. } if *why == reason);
    assert!(meeting.world.node(meeting.peers[0]).any(closed(CloseReason::End)));
    assert!(meeting.world.sockets(meeting.peers[0]).is_empty());
    meeting.world.run_for(Duration::from_secs(36));
    assert!(meeting.world.node(meeting.peers[1]).any(closed(CloseReason::Lost)));
    assert!(meeting.world.sockets(meeting.peers[1]).is_empty());
    assert_eq!(meeting.world.wake(meeting.peers[1]), None);
    let _ = meeting.server;
}

/// As SECURITY.md says.
#[test]
fn the_checks_to_what_the_program_tells_are_counted() {
    let mut meeting = Meeting::new(0, ROLES);
    meeting.gather();
    let sent = Rc::new(RefCell::new(BTreeMap::new()));
    let counted = sent.clone();
    meeting.world.on_send = Some(Box::new(move |datagram| {
        *counted.borrow_mut().entry(datagram.destination).or_insert(0) += 1;
        assert!(datagram.payload.len() <= 100, "{}", datagram.payload.len());
        true
    }));
    let (session, remote) = (meeting.sessions[0], meeting.credentials(1));
    meeting.world.with_peer(meeting.peers[0], |peer, now| {
        for early in [true, false] {
            for number in 0..40 {
                let line = format!("1 1 udp 1 203.0.113.{} 9 typ host", number + if early { 0 } else { 100 });
                peer.add_remote_candidate(now, session, &line).unwrap();
            }
            peer.set_remote(now, session, remote.clone()).unwrap();
        }
    });
    meeting.world.run_for(Duration::from_secs(40));
    assert_eq!(sent.borrow().len(), 32);
    assert_eq!(sent.borrow().values().max(), Some(&39));
}

#[test]
fn a_peer_that_is_not_there_is_given_up_in_time() {
    let mut meeting = Meeting::new(0, ROLES);
    meeting.gather();
    meeting.tell(0);
    meeting.world.run_for(Duration::from_millis(29_900));
    let failed =
        |event: &PeerEvent| matches!(event, PeerEvent::Failed { error, .. } if error.kind() == ErrorKind::Timeout);
    assert!(!meeting.world.node(meeting.peers[0]).any(failed));
    meeting.world.run_for(Duration::from_millis(200));
    assert!(meeting.world.node(meeting.peers[0]).any(failed));
    assert!(meeting.world.sockets(meeting.peers[0]).is_empty());
}
