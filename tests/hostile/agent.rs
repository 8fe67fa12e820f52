//! Where the program does the signalling itself: a hostile STUN server, and a peer that knows our credentials before we
//! know its own.

use crate::{
    outside::{Answers, Outside, PEER, SEEN, SERVER, Say, addr, silent, transaction},
    server::NO_ADDRESSES,
    victim::Victim,
};
use holepunch::{
    machine::Input,
    peer::{NegotiateRequest, PeerEvent},
    punch::Role,
    wire::stun::{AttributeType, Builder, Class, Credentials, Message, Method, SessionId, TransactionId},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

impl Victim {
    fn negotiate(&mut self) -> SessionId {
        self.peer.handle_input(self.now, Input::Interfaces(&["10.0.1.2".parse().unwrap()]));
        let request = NegotiateRequest {
            role: Role::Controlled,
            stun_servers: vec![addr(SERVER).into()],
            bind: vec![addr("0.0.0.0:0")],
            timeout: SECOND * 30,
            prefer_port: None,
        };
        self.peer.negotiate(self.now, request).unwrap()
    }

    /// The candidates that the program was told of.
    fn told(&self) -> Vec<String> {
        let told = self.events.iter().filter_map(|(_, event)| match event {
            PeerEvent::LocalCandidate { candidate, .. } => Some(candidate.address.to_string()),
            _ => None,
        });
        told.collect()
    }
}

fn seen(message: &Message<'_>, attribute: AttributeType, address: &str) -> Vec<u8> {
    Builder::new(Class::Success, Method::BINDING, message.transaction_id())
        .xor_address(attribute, addr(address))
        .finish()
}

fn refuse(message: &Message<'_>, code: u16) -> Answers {
    let refusal = Builder::new(Class::Error, Method::BINDING, message.transaction_id()).error_code(code, "");
    let elsewhere = refusal.clone().address(AttributeType::ALTERNATE_SERVER, addr(PEER));
    vec![elsewhere.finish(), refusal.finish()]
}

fn none(_: &mut Outside, message: &Message<'_>) -> Answers {
    NO_ADDRESSES.iter().map(|none| seen(message, AttributeType::XOR_MAPPED_ADDRESS, none)).collect()
}

/// What the server says, and whether it is an end of asking; a mapped address that is believed is told.
const LIES: &[(&str, Say, bool, Option<&str>)] = &[
    ("nothing", silent, false, None),
    ("that it is somewhere else", |_, m| refuse(m, 300), true, None),
    ("that it wants a password", |_, m| refuse(m, 401), true, None),
    ("that it is broken", |_, m| refuse(m, 500), true, None),
    ("no address", |_, m| vec![Builder::new(Class::Success, Method::BINDING, m.transaction_id()).finish()], true, None),
    ("addresses that are none", none, true, None),
    (
        "ten addresses",
        |_, m| (1..=10).map(|n| seen(m, AttributeType::XOR_MAPPED_ADDRESS, &format!("203.0.113.{n}:{n}"))).collect(),
        true,
        Some("203.0.113.1:1"),
    ),
    (
        "half an address",
        |_, m| {
            let success = Builder::new(Class::Success, Method::BINDING, m.transaction_id());
            vec![success.attribute(AttributeType::XOR_MAPPED_ADDRESS, &[0, 1, 2, 3, 4]).finish()]
        },
        true,
        None,
    ),
    (
        "what was asked by another",
        |_, m| {
            let mut id = m.transaction_id();
            id.0[11] ^= 1;
            let success = Builder::new(Class::Success, Method::BINDING, id);
            vec![success.xor_address(AttributeType::XOR_MAPPED_ADDRESS, addr(SEEN)).finish()]
        },
        false,
        None,
    ),
    ("what is no message", |_, _| vec![vec![0; 65_507], vec![1, 1], Vec::new()], false, None),
];

#[test]
fn whatever_a_stun_server_says_gathering_ends() {
    for (name, lie, at_once, expected) in LIES {
        println!("{name}");
        let mut victim = Victim::new();
        (victim.outside.server, victim.outside.peer) = (*lie, silent);
        let session = victim.negotiate();
        victim.run(SECOND * 6);
        let is_end = |event: &PeerEvent| matches!(event, PeerEvent::Gathered { .. });
        let (at, _) = victim.events.iter().find(|(_, event)| is_end(event)).expect("gathered");
        assert_eq!(at.as_nanos() < 1_000_000_000, *at_once, "{name}: {at:?}");
        let told = victim.told();
        assert_eq!(
            told.iter().map(String::as_str).collect::<Vec<_>>(),
            ["10.0.1.2:5000"].into_iter().chain(*expected).collect::<Vec<_>>(),
            "{name}"
        );
        assert!(victim.to_server <= 12, "{name}: {}", victim.to_server);
        assert_eq!(victim.total(), (0, 0), "{name}");
        victim.peer.close(victim.now, session);
        victim.assert_rests();
    }
}

/// It knows our credentials; before its own are told at most 16 of its checks are kept, and none is answered.
#[test]
fn checks_before_the_credentials_are_few_and_ends_mean_nothing() {
    let mut victim = Victim::new();
    (victim.outside.server, victim.outside.peer) = (silent, silent);
    let session = victim.negotiate();
    victim.run(Duration::from_millis(10));
    let ours = victim.peer.local_credentials(session).unwrap().clone();
    let check = |number, nominates: bool| {
        let builder = Builder::new(Class::Request, Method::BINDING, transaction(number))
            .string(AttributeType::USERNAME, &format!("{}:theirs", ours.ufrag))
            .u32(AttributeType::PRIORITY, 1)
            .u64(AttributeType::ICE_CONTROLLING, 1);
        let builder = if nominates { builder.flag(AttributeType::USE_CANDIDATE) } else { builder };
        builder.integrity(ours.password.as_bytes()).fingerprint().finish()
    };
    for number in 0..1000 {
        victim.arrive(&format!("198.18.0.9:{}", 1 + number), &check(number, false));
    }
    assert_eq!(victim.total(), (0, 0));
    let remote = Credentials { ufrag: "theirs".into(), password: "a".repeat(22) };
    victim.peer.set_remote(victim.now, session, remote).unwrap();
    victim.run(SECOND);
    assert_eq!(victim.sent.len(), 16);
    for method in [Method::END, Method::BARE, Method::TRICKLE] {
        let message = Builder::new(Class::Request, method, TransactionId([1; 12])).session_id(session);
        victim.arrive("198.18.0.9:1000", &message.integrity_sha256(&[0; 32]).fingerprint().finish());
    }
    victim.run(SECOND * 30);
    let ends = victim.events.iter().filter(|(_, event)| {
        matches!(event, PeerEvent::Failed { .. } | PeerEvent::PeerEnded { .. } | PeerEvent::PeerBare { .. })
    });
    assert_eq!(ends.count(), 1, "its time is over");
    // An answer to each of the sixteen, and what an address may get in the time.
    let most = victim.sent.values().map(|(count, _)| *count).max();
    assert!(most <= Some(1 + 41 + 1), "{most:?}");
    victim.assert_rests();
}
