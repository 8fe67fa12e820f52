//! Every message that a peer gets from its server and from its peer, with every attribute wrong in every way: missing,
//! empty, too short, too long, twice; and signed all the same. And what is no message: cut off anywhere, with lengths
//! that point past the end, of 65,504 bytes.
//!
//! A conversation is led once as it should be. It is the same each time, so any one message of it can be replaced by
//! another; then it must end in a connection or an error that says so, and the next peer must be met as always.

use crate::{
    outside::{Answers, Keys, Outside, PEER, SERVER, candidates, honest_server, silent, the_peer},
    victim::Victim,
};
use holepunch::{
    peer::{PeerEvent, Transport},
    wire::stun::{AttributeType, Builder, CandidateKind, Class, Integrity, Message, Method},
};
use std::{collections::BTreeSet, time::Duration};

const LONGEST: usize = 65_504;
const SECOND: Duration = Duration::from_secs(1);

/// Asks for a cookie, once for each request.
fn asks_for_cookie(outside: &mut Outside, message: &Message<'_>) -> Answers {
    if message.nonce().is_some() || message.registration_key().is_none() && message.method() == Method::REGISTER {
        return honest_server(outside, message);
    }
    let refusal = Builder::new(Class::Error, message.method(), message.transaction_id()).error_code(401, "");
    vec![refusal.attribute(AttributeType::NONCE, &[1; 20]).fingerprint().finish()]
}

/// Says everything that a peer can say to a session that is not connected, then answers, and says the rest.
fn meet(victim: &mut Victim, keys: &Keys) {
    let trickle = keys
        .control(Class::Request, Method::TRICKLE, 1, 0)
        .attribute(AttributeType::ROUTE, &[7; 44])
        .sequence(1)
        .candidates(&candidates(CandidateKind::Host, "10.9.9.9:9", 1));
    victim.arrive(SERVER, &keys.signed(trickle));
    victim.outside.be_honest();
    victim.outside.server = asks_for_cookie;
    victim.run(SECOND);
    victim.peer.end(victim.now, keys.session);
    victim.run(SECOND);
    for method in [Method::BARE, Method::END] {
        victim.arrive(PEER, &keys.signed(keys.control(Class::Request, method, 2, 0)));
    }
    victim.run(SECOND);
}

/// A listener's life with one peer, or a connector's.
fn converse(victim: &mut Victim, connects: bool) {
    victim.outside.server = asks_for_cookie;
    victim.outside.peer = silent;
    if connects {
        victim.connect(Transport::Udp);
    } else {
        victim.listen();
    }
    victim.run(SECOND);
    if !connects {
        // As often as a connector asks that hears nothing.
        victim.introduce(1, Transport::Udp, &the_peer());
        victim.introduce(1, Transport::Udp, &the_peer());
    }
    // A connector's server may have said nothing that can be used.
    if victim.outside.sessions.is_empty() {
        return;
    }
    let keys = victim.outside.keys(1);
    meet(victim, &keys);
}

/// What a message is signed with, as far as it is.
fn sign(outside: &Outside, message: &Message<'_>, builder: Builder) -> Vec<u8> {
    let controls = outside.sessions.values().map(|keys| keys.control);
    let mut keys = controls.chain([outside.registration.1]);
    let passwords = outside.sessions.values().flat_map(|keys| [&keys.victim.password, &keys.peer.password]);
    let password = passwords.clone().find(|it| message.verify_integrity(it.as_bytes()) == Integrity::Valid);
    let builder = match (keys.find(|key| message.verify_integrity_sha256(key) == Integrity::Valid), password) {
        (Some(key), _) => builder.integrity_sha256(&key),
        (None, Some(password)) => builder.integrity(password.as_bytes()),
        (None, None) => builder,
    };
    builder.fingerprint().finish()
}

const CLOSING: [AttributeType; 3] =
    [AttributeType::MESSAGE_INTEGRITY, AttributeType::MESSAGE_INTEGRITY_SHA256, AttributeType::FINGERPRINT];

/// The message with one attribute changed, in every way; each as what it is, and its bytes.
fn changed(outside: &Outside, message: &Message<'_>) -> Vec<(String, Vec<u8>)> {
    let attributes: Vec<_> = message.attributes().filter(|(attribute, _)| !CLOSING.contains(attribute)).collect();
    let mut all = Vec::new();
    for (index, (attribute, value)) in attributes.iter().enumerate() {
        let less = value.split_last().map_or(&[][..], |(_, less)| less).to_vec();
        let inverted: Vec<u8> = value.iter().map(|byte| !byte).collect();
        let ways: [(&str, Vec<Vec<u8>>); 9] = [
            ("missing", vec![]),
            ("empty", vec![vec![]]),
            ("of one byte", vec![vec![0]]),
            ("a byte short", vec![less]),
            ("a byte long", vec![[value, &[0][..]].concat()]),
            ("four bytes long", vec![[value, &[0; 4][..]].concat()]),
            ("of 600 bytes", vec![vec![0xff; 600]]),
            ("other", vec![inverted.clone()]),
            ("twice", vec![inverted, value.to_vec()]),
        ];
        for (way, values) in ways {
            let mut builder = Builder::new(message.class(), message.method(), message.transaction_id());
            for (position, (other, its)) in attributes.iter().enumerate() {
                let values = if position == index { values.clone() } else { vec![its.to_vec()] };
                builder = values.iter().fold(builder, |builder, value| builder.attribute(*other, value));
            }
            all.push((format!("{attribute:?} {way}"), sign(outside, message, builder)));
        }
    }
    all
}

/// What begins as the message does, and is none.
fn broken(message: &[u8]) -> Vec<Vec<u8>> {
    let with_length = |bytes: &[u8], length: u16| {
        let mut bytes = bytes.to_vec();
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let length = u16::try_from(message.len()).unwrap() - 20;
    let mut all: Vec<_> = (0..message.len()).map(|end| message[..end].to_vec()).collect();
    all.extend((20..message.len()).step_by(4).map(|end| with_length(&message[..end], end as u16 - 20)));
    all.extend([0, 1, length - 4, length - 1, length + 1, length + 4, u16::MAX].map(|it| with_length(message, it)));
    // Each attribute's length, past the end.
    let mut offset = 20;
    while offset < message.len() {
        let own = u16::from_be_bytes([message[offset + 2], message[offset + 3]]);
        for wrong in [u16::MAX, own + 4, u16::try_from(message.len() - offset).unwrap()] {
            let mut bytes = message.to_vec();
            bytes[offset + 2..offset + 4].copy_from_slice(&wrong.to_be_bytes());
            all.push(bytes);
        }
        offset += 4 + usize::from(own).next_multiple_of(4);
    }
    let long = [message, &vec![0; LONGEST - message.len()][..]].concat();
    all.extend([with_length(&long, (LONGEST - 20) as u16), long, vec![0; LONGEST]]);
    all
}

/// What became of it.
fn outcome(victim: &Victim) -> &'static str {
    let is_failure = |event: &PeerEvent| matches!(event, PeerEvent::ListenFailed { .. } | PeerEvent::Failed { .. });
    match (victim.any(|event| matches!(event, PeerEvent::Connected { .. })), victim.any(is_failure)) {
        (true, _) => "connected",
        (false, true) => "failed",
        (false, false) => "neither",
    }
}

#[test]
fn a_message_that_is_wrong_in_any_way_is_survived() {
    let mut kinds = BTreeSet::new();
    let mut outcomes = std::collections::BTreeMap::<_, usize>::new();
    for connects in [false, true] {
        let mut honest = Victim::new();
        converse(&mut honest, connects);
        assert_eq!(outcome(&honest), "connected");
        for (number, bytes) in honest.arrived.iter().enumerate() {
            let message = Message::parse(bytes).unwrap();
            let kind = (connects, message.method().value(), format!("{:?}", message.class()));
            if !kinds.insert(kind.clone()) {
                continue;
            }
            let changed = changed(&honest.outside, &message);
            let all = [("nothing that is a message".into(), broken(bytes))].into_iter();
            for (what, instead) in all.chain(changed.into_iter().map(|(what, bytes)| (what, vec![bytes]))) {
                let what = format!("{kind:?}: {what}");
                println!("{what}");
                let mut victim = Victim::new();
                victim.tamper = Some((number, instead));
                converse(&mut victim, connects);
                victim.run(SECOND * 60);
                let outcome = outcome(&victim);
                *outcomes.entry(outcome).or_default() += 1;
                assert_ne!(outcome, "neither", "{what}");
                victim.outside.be_honest();
                if connects {
                    let session = victim.connect(Transport::Udp);
                    victim.run(SECOND);
                    assert!(victim.is_connected(session), "{what}: connects no more");
                } else {
                    if victim.any(|event| matches!(event, PeerEvent::ListenFailed { .. })) {
                        victim.listen();
                        victim.run(SECOND);
                    }
                    assert!(victim.meets_honest_peer(200, Transport::Udp), "{what}: found no more");
                }
                victim.assert_rests();
            }
        }
    }
    println!("{} kinds of message, {outcomes:?}", kinds.len());
    assert!(kinds.len() >= 14 && outcomes.values().sum::<usize>() > 400, "{kinds:?} {outcomes:?}");
}
