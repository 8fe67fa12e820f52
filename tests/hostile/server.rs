//! A hostile server: what it answers to whom, how that ends, and that an honest server is of use afterwards.
//!
//! Each lie is told for as long as it works: to a listener that begins, to one that was registered, and to a connector.
//! A row says how it ends for each; none may take longer than it is documented to.

use crate::{
    outside::{Answers, Outside, PEER, SEEN, Say, addr, candidates, honest_server, over_tcp, refuses, silent, takes},
    victim::Victim,
};
use holepunch::{
    machine::Instant,
    peer::{PeerEvent, Transport},
    wire::stun::{AttributeType, Builder, CandidateKind, Class, Message, Method, TransactionId},
};
use std::{net::SocketAddr, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);

fn begin(message: &Message<'_>, class: Class) -> Builder {
    Builder::new(class, message.method(), message.transaction_id())
}

/// An error with this code, and with a cookie.
fn refuse(message: &Message<'_>, code: u16, cookie: Option<&[u8]>) -> Answers {
    let refusal = begin(message, Class::Error).error_code(code, "");
    let refusal = cookie.map_or(refusal.clone(), |cookie| refusal.attribute(AttributeType::NONCE, cookie));
    vec![refusal.fingerprint().finish()]
}

/// What an honest server says, but in another message.
fn said_in(outside: &mut Outside, message: &Message<'_>, class: Class, method: Method, id: TransactionId) -> Answers {
    let honest = honest_server(outside, message);
    let honest = Message::parse(&honest[0]).unwrap();
    let mut builder = Builder::new(class, method, id);
    for (attribute_type, value) in honest.attributes() {
        if ![AttributeType::MESSAGE_INTEGRITY_SHA256, AttributeType::FINGERPRINT].contains(&attribute_type) {
            builder = builder.attribute(attribute_type, value);
        }
    }
    vec![builder.integrity_sha256(&outside.registration.1).fingerprint().finish()]
}

fn confirm(outside: &mut Outside, message: &Message<'_>, seen: &str, keepalive: u32) -> Vec<u8> {
    honest_server(outside, message);
    begin(message, Class::Success)
        .xor_address(AttributeType::XOR_MAPPED_ADDRESS, addr(seen))
        .keepalive(keepalive)
        .integrity_sha256(&outside.registration.1)
        .fingerprint()
        .finish()
}

/// Introduces somebody with this public key and nothing else, and confirms every registration.
fn with_key(outside: &mut Outside, message: &Message<'_>, key: &[u8]) -> Answers {
    if message.method() != Method::CONNECT {
        return honest_server(outside, message);
    }
    let success = begin(message, Class::Success).attribute(AttributeType::PUBLIC_KEY, key);
    vec![success.candidates(&candidates(CandidateKind::ServerReflexiveObserved, PEER, 1)).fingerprint().finish()]
}

/// Introduces somebody who is nowhere.
fn nowhere(outside: &mut Outside, message: &Message<'_>) -> Answers {
    if message.method() != Method::CONNECT {
        return honest_server(outside, message);
    }
    let all: Vec<_> = NO_ADDRESSES
        .iter()
        .flat_map(|none| candidates(CandidateKind::ServerReflexiveObserved, none, 1))
        .flat_map(|told| [vec![told], over_tcp(vec![told])].concat())
        .collect();
    let success = |told| begin(message, Class::Success).public_key(&[9; 32]).candidates(told).fingerprint().finish();
    all.chunks(14).map(success).collect()
}

/// Addresses that nobody may be told of, or sent to.
pub(crate) const NO_ADDRESSES: [&str; 14] = [
    "127.0.0.1:22",
    "0.0.0.0:53",
    "0.1.2.3:53",
    "224.0.0.1:53",
    "239.255.255.250:1900",
    "255.255.255.255:9",
    "240.0.0.1:9",
    "169.254.169.254:80",
    "203.0.113.9:0",
    "[::ffff:127.0.0.1]:22",
    "[::ffff:224.0.0.1]:53",
    "[64:ff9b::7f00:1]:22",
    "[::1]:22",
    "[ff02::1]:5353",
];

/// What the server does; how it ends for a listener that begins, for one that was registered, and for a connector.
type Row = (&'static str, Say, [&'static str; 3]);

const LIES: &[Row] = &[
    ("says nothing", silent, ["ServerSilent", "goes on", "ServerSilent"]),
    (
        "asks for cookies for ever",
        |_, m| refuse(m, 401, Some(&m.transaction_id().0)),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    ("finds every cookie stale", |_, m| refuse(m, 438, Some(&[1; 20])), ["ServerSilent", "goes on", "ServerSilent"]),
    (
        "asks for the longest of cookies",
        |_, m| refuse(m, 401, Some(&[1; 763])),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "asks for a cookie that is too long",
        |_, m| refuse(m, 401, Some(&[1; 900])),
        ["ServerRefused", "ServerRefused", "ServerRefused"],
    ),
    ("asks for a cookie of no bytes", |_, m| refuse(m, 401, Some(&[])), ["ServerSilent", "goes on", "ServerSilent"]),
    (
        "asks for a cookie and gives none",
        |_, m| refuse(m, 401, None),
        ["ServerRefused", "ServerRefused", "ServerRefused"],
    ),
    (
        "confirms under another id",
        |o, m| said_in(o, m, Class::Success, m.method(), TransactionId([1; 12])),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "confirms in another message",
        |o, m| said_in(o, m, Class::Success, Method::BINDING, m.transaction_id()),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "answers in a request",
        |o, m| said_in(o, m, Class::Request, m.method(), m.transaction_id()),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "answers in an indication",
        |o, m| said_in(o, m, Class::Indication, m.method(), m.transaction_id()),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "answers without a word",
        |_, m| vec![begin(m, Class::Success).fingerprint().finish(), begin(m, Class::Error).fingerprint().finish()],
        ["ServerRefused", "ServerRefused", "ServerRefused"],
    ),
    (
        "confirms with another key",
        |_, m| vec![begin(m, Class::Success).keepalive(25).integrity_sha256(&[9; 32]).fingerprint().finish()],
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "confirms ten times over",
        |o, m| (0..10).flat_map(|_| honest_server(o, m)).collect(),
        ["registered", "goes on", "Timeout"],
    ),
    (
        "confirms, and refuses",
        |o, m| [honest_server(o, m), refuse(m, 409, None), refuse(m, 401, Some(&[1; 20]))].concat(),
        ["registered", "goes on", "Timeout"],
    ),
    (
        "sees us elsewhere each time",
        |o, m| (1..=10).map(|n| confirm(o, m, &format!("203.0.113.{n}:{n}"), 0)).collect(),
        ["registered", "goes on", "ServerSilent"],
    ),
    ("wants no keepalives", |o, m| vec![confirm(o, m, SEEN, u32::MAX)], ["registered", "goes on", "ServerSilent"]),
    (
        "sees us at addresses that are none",
        |o, m| NO_ADDRESSES.iter().map(|seen| confirm(o, m, seen, 5)).collect(),
        ["registered", "goes on", "ServerSilent"],
    ),
    ("introduces nobody's key", |o, m| with_key(o, m, &[]), ["registered", "goes on", "ServerSilent"]),
    ("introduces half a key", |o, m| with_key(o, m, &[9; 31]), ["registered", "goes on", "ServerSilent"]),
    ("introduces a key of zeros", |o, m| with_key(o, m, &[0; 32]), ["registered", "goes on", "ServerRefused"]),
    (
        "introduces the connector to itself",
        |o, m| with_key(o, m, &m.public_key().unwrap_or_default()),
        ["registered", "goes on", "Timeout"],
    ),
    ("introduces somebody without a key of its", |o, m| with_key(o, m, &[9; 32]), ["registered", "goes on", "Timeout"]),
    ("introduces addresses that are none", nowhere, ["registered", "goes on", "Timeout"]),
    (
        "is older than it says",
        |_, m| vec![begin(m, Class::Success).legacy(20001).fingerprint().finish()],
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
];

/// How it ends for one that asks, and after how long.
fn fate(victim: &Victim, since: usize, begin: Instant) -> (String, Duration) {
    let mut fate = ("goes on".to_owned(), Duration::ZERO);
    for (at, event) in victim.events.iter().skip(since) {
        match event {
            PeerEvent::ListenFailed { error, .. } | PeerEvent::Failed { error, .. } => {
                return (format!("{:?}", error.kind()), *at - begin);
            }
            PeerEvent::Registered { .. } => fate.0 = "registered".into(),
            _ => {}
        }
    }
    fate
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    BeginningListener,
    RegisteredListener,
    Connector,
}

/// Lets a server lie to each of the three for a minute, and be honest then.
pub(crate) fn fates(name: &str, begin_to_lie: impl Fn(&mut Outside)) -> [String; 3] {
    println!("{name}");
    [Whom::BeginningListener, Whom::RegisteredListener, Whom::Connector].map(|whom| {
        let mut victim = if whom == Whom::RegisteredListener { Victim::listening() } else { Victim::new() };
        victim.outside.peer = silent;
        begin_to_lie(&mut victim.outside);
        let (since, begin) = (victim.events.len(), victim.now);
        match whom {
            Whom::BeginningListener => victim.listen(),
            Whom::RegisteredListener => {}
            Whom::Connector => drop(victim.connect(Transport::Udp)),
        }
        victim.run(MINUTE);
        let (fate, after) = fate(&victim, since, begin);
        // A listener that is registered asks each 25 s; whoever was introduced is given 30.
        let longest = if whom == Whom::RegisteredListener || fate == "Timeout" { 31 } else { 6 };
        assert!(after <= Duration::from_secs(longest), "{name}: {fate} after {after:?}");
        assert_bounded(name, &victim);
        victim.outside.be_honest();
        if whom == Whom::Connector {
            let session = victim.connect(Transport::Udp);
            victim.run(Duration::from_secs(1));
            assert!(victim.is_connected(session), "{name}: does not connect to anybody again");
        } else {
            if victim.any(|event| matches!(event, PeerEvent::ListenFailed { .. })) {
                victim.listen();
            }
            victim.run(MINUTE);
            assert!(victim.meets_honest_peer(200, Transport::Udp), "{name}: never found again");
        }
        victim.assert_rests();
        if whom == Whom::RegisteredListener && fate == "registered" { "goes on".into() } else { fate }
    })
}

/// What it has sent and held in a minute.
fn assert_bounded(name: &str, victim: &Victim) {
    // Whatever it was told: it speaks when it is asked to, and in the meantime some twelve times in 5 s.
    let most = victim.outside.answers + 13 * 12;
    assert!(victim.to_server <= most, "{name}: {} messages for {}", victim.to_server, victim.outside.answers);
    let (count, _) = victim.total();
    assert!(count <= 384, "{name}: {count} to others");
    let is_none = |to: &SocketAddr| NO_ADDRESSES.contains(&to.to_string().as_str());
    assert!(!victim.sent.keys().any(is_none), "{name}: {:?}", victim.sent);
    assert!(victim.most_descriptors <= 2, "{name}: {} descriptors", victim.most_descriptors);
}

#[test]
fn lies_end_as_documented_and_honesty_is_believed_again() {
    let mut wrong = Vec::new();
    for (name, lie, expected) in LIES {
        for over_udp in [true, false] {
            let fates = fates(name, |outside| {
                (outside.server, outside.over_udp) = (*lie, over_udp);
                outside.tcp = if over_udp { refuses } else { takes };
            });
            if fates != *expected {
                wrong.push(format!("{name}: {fates:?}, over UDP: {over_udp}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// However often: a listener that begins, and a connector, end at once or after the time of silence.
#[test]
fn every_error_code_is_an_end() {
    for code in (300..=310).chain(400..=440).chain(485..=515).chain([600, 699]) {
        let [beginning, registered, connecting] = fates(&format!("error {code}"), |outside| {
            outside.code = code;
            outside.server = |outside, message| refuse(message, outside.code, None);
        });
        // 403: somebody else has the id. The listener tries others, for as long as anybody who asks.
        assert_eq!(registered, if code == 403 { "goes on" } else { beginning.as_str() }, "{code}");
        assert!(!["goes on", "registered"].contains(&beginning.as_str()), "{code}: {beginning}");
        assert!(!["goes on", "Timeout"].contains(&connecting.as_str()), "{code}: {connecting}");
    }
}
