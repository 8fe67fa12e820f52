//! CONNECT, INTRODUCE and TRICKLE: who is told what of whom, and what is passed on.

use super::*;

const LISTENER: &str = "198.51.100.1:5000";
const CONNECTOR: &str = "203.0.113.5:7000";

/// The message of a method among what was sent, and where it goes.
fn only(transmits: &[Transmit], method: Method) -> (&Transmit, Message<'_>) {
    let mut found = transmits.iter().map(|transmit| (transmit, parse(&transmit.payload)));
    found.find(|(_, message)| message.method() == method).expect("such a message")
}

fn told(message: &Message<'_>) -> Vec<WireCandidate> {
    message.candidates().collect()
}

fn observed(address: &str) -> WireCandidate {
    WireCandidate { priority: 0, ..candidate(CandidateKind::ServerReflexiveObserved, address) }
}

#[test]
fn each_is_told_the_others_key_address_and_candidates() {
    let mut lab = Lab::new(ServerConfig::default());
    let (at_home, at_work) =
        (candidate(CandidateKind::Host, "10.0.0.2:5"), candidate(CandidateKind::Host, "10.0.1.2:7"));
    let bob = Listener { candidates: vec![at_home], ..Listener::new(1, Some("bob")) };
    bob.register(&mut lab, addr(LISTENER));
    let connector = Connector { candidates: vec![at_work], ..Connector::new(Target::Name("bob")) };
    let transmits = connector.connect(&mut lab, addr(CONNECTOR));
    assert_eq!(transmits.len(), 2);

    let (transmit, answer) = only(&transmits, Method::CONNECT);
    assert_eq!((transmit.destination, answer.class()), (addr(CONNECTOR), Class::Success));
    assert_eq!((answer.public_key(), answer.transports()), (Some([1; 32]), Some(UDP)));
    assert_eq!(answer.xor_mapped_address(), Some(addr(CONNECTOR)));
    assert_eq!(told(&answer), [observed(LISTENER), at_home]);

    let (transmit, introduction) = only(&transmits, Method::INTRODUCE);
    assert_eq!((transmit.destination, introduction.class()), (addr(LISTENER), Class::Indication));
    assert_eq!(introduction.registration_id(), Some(bob.id));
    assert_eq!((introduction.session_id(), introduction.public_key()), (Some(connector.session), Some([0xCC; 32])));
    assert_eq!(introduction.verify_integrity_sha256(&bob.key), Integrity::Valid);
    assert_eq!(told(&introduction), [observed(CONNECTOR), at_work]);
    assert!(answer.route().is_some() && introduction.route().is_some());
}

#[test]
fn every_introduction_has_a_number_of_its_own_and_goes_to_every_family() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = Listener::new(1, Some("bob"));
    bob.register(&mut lab, addr(LISTENER));
    bob.register(&mut lab, addr("[2001:db8:1::1]:5000"));
    let connector = Connector::new(Target::Name("bob"));
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let transmits = connector.connect(&mut lab, addr(CONNECTOR));
        let messages = transmits.iter().map(|transmit| parse(&transmit.payload));
        numbers
            .extend(messages.filter(|message| message.method() == Method::INTRODUCE).map(|message| message.sequence()));
        let (_, answer) = only(&transmits, Method::CONNECT);
        assert_eq!(told(&answer), [observed(LISTENER), observed("[2001:db8:1::1]:5000")]);
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6].map(Some));
    // Registering anew with the same key must not begin again: old introductions would pass for new ones.
    bob.register(&mut lab, addr(LISTENER));
    let transmits = connector.connect(&mut lab, addr(CONNECTOR));
    assert_eq!(only(&transmits, Method::INTRODUCE).1.sequence(), Some(7));
}

#[test]
fn who_cannot_be_introduced_is_told_why() {
    let mut lab = Lab::new(ServerConfig::default());
    Listener::new(1, Some("bob")).register(&mut lab, addr(LISTENER));
    Listener::new(2, None).register(&mut lab, addr("198.51.100.2:1"));
    Listener::new(3, None).register(&mut lab, addr("198.51.100.3:1"));
    Listener::new(4, None).register(&mut lab, addr("198.51.100.3:2"));
    let code = |lab: &mut Lab, target| Connector::new(target).code(lab, addr(CONNECTOR));
    assert_eq!(code(&mut lab, Target::Name("bob")), 0);
    assert_eq!(code(&mut lab, Target::Name("alice")), 404);
    assert_eq!(code(&mut lab, Target::Address("198.51.100.1")), 404, "named listeners have no address");
    assert_eq!(code(&mut lab, Target::Address("198.51.100.2")), 0);
    assert_eq!(code(&mut lab, Target::Address("::ffff:198.51.100.2")), 0);
    assert_eq!(code(&mut lab, Target::Address("198.51.100.3")), 410);
    let over_tcp =
        Connector { transports: Transports { udp: false, tcp: true }, ..Connector::new(Target::Name("bob")) };
    assert_eq!(over_tcp.code(&mut lab, addr(CONNECTOR)), 415);
    assert_eq!(lab.server.stats().introductions, 3);
}

#[test]
fn a_network_causes_so_many_introductions_a_second() {
    let mut lab = Lab::new(ServerConfig { introduction_rate: 3, ..ServerConfig::default() });
    Listener::new(1, Some("bob")).register(&mut lab, addr(LISTENER));
    let connector = |number: u8| Connector { session: SessionId([number; 16]), ..Connector::new(Target::Name("bob")) };
    let codes = [1, 2, 3, 4, 5].map(|number| connector(number).code(&mut lab, addr(CONNECTOR)));
    assert_eq!(codes, [0, 0, 0, 508, 508]);
    assert_eq!(connector(6).code(&mut lab, addr("192.0.2.200:1")), 0, "another network");
    lab.wait(1);
    assert_eq!(connector(7).code(&mut lab, addr(CONNECTOR)), 0);
    let again = [4, 5].map(|number| connector(number).code(&mut lab, addr(CONNECTOR)));
    assert_eq!(again, [0, 0], "who was refused has not begun, and does not stand back as a repetition does");
    let local = [8; 10].map(|number| connector(number).code(&mut lab, addr("127.0.0.1:7000")));
    assert_eq!(local, [0; 10], "this host itself is not counted");
}

/// Many sessions that begin at once have room before any of them is repeated, or trickles.
#[test]
fn what_is_repeated_leaves_half_of_the_rate_to_what_is_new() {
    let mut lab = Lab::new(ServerConfig { introduction_rate: 10, ..ServerConfig::default() });
    Listener::new(1, Some("bob")).register(&mut lab, addr(LISTENER));
    let connector = Connector::new(Target::Name("bob"));
    let answers = |lab: &mut Lab, connector: &Connector| {
        let answers = |transmit: &&Transmit| transmit.destination == addr(CONNECTOR);
        connector.connect(lab, addr(CONNECTOR)).iter().filter(answers).map(|answer| code(&answer.payload)).collect()
    };
    let many: Vec<Vec<u16>> = (0..20).map(|_| answers(&mut lab, &connector)).collect();
    let (served, dropped) = many.split_at(5);
    assert!(served.iter().all(|codes| codes == &[0]) && dropped.iter().all(Vec::is_empty), "{many:?}");
    assert_eq!(lab.server.stats().limited, 15);
    // Over a connection nothing is repeated.
    lab.accept(0, CONNECTOR);
    let request = connector.request(lab.id(), None);
    lab.say(0, &request);
    assert_eq!(code(&super::streams::answers(&lab.asked(), 0)), 0);

    let route =
        only(&connector.connect(&mut lab, addr("192.0.2.200:1")), Method::INTRODUCE).1.route().unwrap().to_vec();
    let to_connector = sealed(trickle(Class::Request, &route), &[8; 32]);
    assert_eq!(lab.send(addr(LISTENER), &to_connector).len(), 1, "another network");
    for number in 0..6 {
        let new = Connector { session: SessionId([number; 16]), ..connector.clone() };
        let codes: Vec<u16> = answers(&mut lab, &new);
        assert_eq!(codes, [if number < 4 { 0 } else { 508 }]);
    }
}

#[test]
fn claims_that_mean_nothing_to_others_are_dropped() {
    let mut lab = Lab::new(ServerConfig { advertise: Some(addr("203.0.113.9:4000")), ..ServerConfig::default() });
    let nothing = [
        "127.0.0.1:5",
        "[::1]:5",
        "0.0.0.0:5",
        "[::]:5",
        "224.0.0.1:5",
        "[ff02::1]:5",
        "255.255.255.255:5",
        "169.254.0.1:5",
        "[fe80::1]:5",
        "[::ffff:127.0.0.1]:5",
        "10.0.0.1:0",
        "192.0.2.1:20000",
        "192.0.2.1:20002",
        "[2001:db8::1]:20000",
        "203.0.113.9:4000",
        "203.0.113.9:4002",
        "203.0.113.9:20000",
    ];
    let host = |text: &&str| candidate(CandidateKind::Host, text);
    for chunk in nothing.chunks(10) {
        let bob = Listener { candidates: chunk.iter().map(host).collect(), ..Listener::new(1, Some("bob")) };
        bob.register(&mut lab, addr(LISTENER));
        let transmits = Connector::new(Target::Name("bob")).connect(&mut lab, addr(CONNECTOR));
        assert_eq!(told(&only(&transmits, Method::CONNECT).1), [observed(LISTENER)], "{chunk:?}");
    }
    let claimed = [
        candidate(CandidateKind::Host, "[::ffff:10.0.0.7]:5"),
        candidate(CandidateKind::ServerReflexiveObserved, "203.0.113.77:5"),
        candidate(CandidateKind::Relay, "[64:ff9b::c000:281]:5"),
        candidate(CandidateKind::Host, "192.0.2.1:21000"),
        candidate(CandidateKind::Host, LISTENER),
    ];
    let bob = Listener { candidates: claimed.to_vec(), ..Listener::new(1, Some("bob")) };
    bob.register(&mut lab, addr(LISTENER));
    let transmits = Connector::new(Target::Name("bob")).connect(&mut lab, addr(CONNECTOR));
    let expected = [
        observed(LISTENER),
        candidate(CandidateKind::Host, "10.0.0.7:5"),
        candidate(CandidateKind::ServerReflexiveClaimed, "203.0.113.77:5"),
        candidate(CandidateKind::Relay, "192.0.2.129:5"),
        candidate(CandidateKind::Host, "192.0.2.1:21000"),
    ];
    assert_eq!(told(&only(&transmits, Method::CONNECT).1), expected);
}

#[test]
fn a_loopback_address_is_told_only_where_it_was_observed_and_to_a_peer_that_is_there_too() {
    let port = |ip: &str| candidate(CandidateKind::ServerReflexiveClaimed, &format!("{ip}:6000"));
    for (connector, is_told) in [("127.0.0.1:7000", true), (CONNECTOR, false)] {
        let mut lab = Lab::new(ServerConfig::default());
        let claimed = vec![port("127.0.0.2"), port("127.0.0.3")];
        let bob = Listener { candidates: claimed.clone(), ..Listener::new(1, Some("bob")) };
        bob.register(&mut lab, addr("127.0.0.2:5000"));
        let alice = Connector { candidates: claimed, ..Connector::new(Target::Name("bob")) };
        let transmits = alice.connect(&mut lab, addr(connector));
        let expected = if is_told { vec![observed("127.0.0.2:5000"), port("127.0.0.2")] } else { Vec::new() };
        assert_eq!(told(&only(&transmits, Method::CONNECT).1), expected);
        assert_eq!(told(&only(&transmits, Method::INTRODUCE).1), [observed(connector)], "claims of others' addresses");
    }
}

/// A message of one peer to the other over a route.
fn trickle(class: Class, route: &[u8]) -> Builder {
    Builder::new(class, Method::TRICKLE, TransactionId([6; 12]))
        .candidate(&candidate(CandidateKind::Host, "10.0.0.9:9"))
        .session_id(SessionId([0xC0; 16]))
        .attribute(AttributeType::ROUTE, route)
        .sequence(1)
}

#[test]
fn trickle_is_passed_on_as_it_is_over_a_fresh_route_of_the_servers() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = Listener::new(1, Some("bob"));
    bob.register(&mut lab, addr(LISTENER));
    let transmits = Connector::new(Target::Name("bob")).connect(&mut lab, addr(CONNECTOR));
    let route = |method| only(&transmits, method).1.route().unwrap().to_vec();
    let (to_listener, to_connector) = (route(Method::CONNECT), route(Method::INTRODUCE));

    let message = sealed(trickle(Class::Request, &to_listener), &[8; 32]);
    let forwarded = lab.send(addr(CONNECTOR), &message);
    assert_eq!(forwarded.iter().map(|t| (t.destination, &t.payload)).collect::<Vec<_>>(), [(addr(LISTENER), &message)]);
    let message = sealed(trickle(Class::Success, &to_connector), &[8; 32]);
    let forwarded = lab.send(addr(LISTENER), &message);
    assert_eq!(
        forwarded.iter().map(|t| (t.destination, &t.payload)).collect::<Vec<_>>(),
        [(addr(CONNECTOR), &message)]
    );

    let mut forged = to_listener.clone();
    forged[9] ^= 1;
    let long = |route: &[u8]| {
        let mut bytes = trickle(Class::Request, route).finish();
        bytes.extend_from_slice(&[0x80, 0x22, 0x04, 0x80]);
        bytes.resize(bytes.len() + 0x480, b'x');
        let length = (bytes.len() + FINGERPRINT_LENGTH - HEADER_LENGTH) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
        });
        bytes.extend_from_slice(&[0x80, 0x28, 0, 4]);
        bytes.extend_from_slice(&(!crc ^ 0x5354_554E).to_be_bytes());
        assert_eq!(parse(&bytes).verify_fingerprint(), Fingerprint::Valid);
        bytes
    };
    for message in [
        sealed(trickle(Class::Request, &forged), &[8; 32]),
        sealed(trickle(Class::Request, b""), &[8; 32]),
        sealed(trickle(Class::Error, &to_listener), &[8; 32]),
        trickle(Class::Request, &to_listener).integrity_sha256(&[8; 32]).finish(),
        long(&to_listener),
    ] {
        assert!(lab.send(addr(CONNECTOR), &message).is_empty());
    }
    lab.wait(40);
    let keepalive = bob.keepalive(lab.id(), None);
    lab.send(addr(LISTENER), &keepalive);
    let message = sealed(trickle(Class::Request, &to_listener), &[8; 32]);
    assert_eq!(lab.send(addr(CONNECTOR), &message).len(), 1);
    lab.wait(80);
    bob.register(&mut lab, addr(LISTENER));
    assert!(lab.send(addr(CONNECTOR), &message).is_empty(), "older than two epochs");
}
