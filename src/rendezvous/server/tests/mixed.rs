//! Peers of 2015 and current ones: who gets whom, what each is told, and what is sent again.

use super::{
    streams::{Asked, answers},
    *,
};

const MS: Duration = Duration::from_millis(1);
/// Its last number lets no digit follow, so that a request for it is answered at once.
const HOST: &str = "198.51.100.30";
const LISTENER: &str = "198.51.100.30:5000";
const CONNECTOR: &str = "203.0.113.5:7000";

fn told(stream: u32, host: &str) -> (u32, Option<Vec<u8>>) {
    (stream, Some(alloc::format!("*('{host}', 20001)").into_bytes()))
}

fn not_found(stream: u32) -> (u32, Option<Vec<u8>>) {
    (stream, Some(b"?".to_vec()))
}

/// A current listener that can meet a peer of 2015.
fn listener(number: u8) -> Listener {
    Listener { legacy: true, ..Listener::new(number, None) }
}

/// A current connector that can.
fn connector(session: u8) -> Connector {
    Connector { session: SessionId([session; 16]), legacy: true, ..Connector::new(Target::Address(HOST)) }
}

/// All that the server wants sent and asked, in its order of each.
fn drain(lab: &mut Lab) -> (Vec<Transmit>, Asked) {
    lab.drain();
    (core::mem::take(&mut lab.sent), lab.asked())
}

/// A text client at this address says something.
fn text(lab: &mut Lab, stream: u32, remote: &str, said: &[u8]) -> (Vec<Transmit>, Asked) {
    lab.accept(stream, remote);
    lab.say(stream, said);
    drain(lab)
}

/// What the server sends within that time, with a call whenever it asked for one.
fn wait(lab: &mut Lab, duration: Duration) -> Vec<(Duration, Transmit)> {
    let (start, until) = (lab.now, lab.now + duration);
    let mut sent = Vec::new();
    while let Some(wake) = lab.wake().filter(|wake| lab.now + *wake <= until) {
        lab.now = lab.now + wake;
        lab.server.handle_input(lab.now, Input::Timeout);
        let (transmits, asked) = drain(lab);
        assert_eq!(asked, []);
        sent.extend(transmits.into_iter().map(|transmit| (lab.now - start, transmit)));
    }
    lab.now = until;
    sent
}

/// Checks that this tells a listener of a peer of 2015, and returns SEQUENCE and SESSION-ID.
fn introduced(bytes: &[u8], listener: &Listener, host: &str) -> (u64, SessionId) {
    let message = parse(bytes);
    assert_eq!((message.method(), message.class()), (Method::INTRODUCE, Class::Indication));
    assert_eq!(message.registration_id(), Some(listener.id));
    assert_eq!(message.verify_integrity_sha256(&listener.key), Integrity::Valid);
    assert_eq!(message.verify_fingerprint(), Fingerprint::Valid);
    is_old(&message, host);
    (message.sequence().unwrap(), message.session_id().unwrap())
}

/// Whether the peer is said to be of 2015, and there.
fn is_old(message: &Message<'_>, host: &str) {
    assert_eq!(message.legacy(), Some(20001));
    assert_eq!((message.public_key(), message.route()), (None, None));
    let address = SocketAddr::new(host.parse().unwrap(), 20001);
    let candidate = WireCandidate {
        kind: CandidateKind::ServerReflexiveObserved,
        transport: CandidateTransport::Udp,
        priority: 0,
        address,
    };
    assert_eq!(message.candidates().collect::<Vec<_>>(), [candidate]);
}

/// Whom a connection's request gets: the one answer, and what else goes out.
fn connect(lab: &mut Lab, connector: &Connector, remote: &str) -> (Vec<u8>, Vec<Transmit>, Asked) {
    let mut transmits = connector.connect(lab, addr(remote));
    let own = transmits.iter().position(|transmit| transmit.destination == addr(remote)).expect("an answer");
    let answer = transmits.remove(own).payload;
    (answer, transmits, lab.asked())
}

#[test]
fn a_connector_of_2015_meets_a_current_listener() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = listener(1);
    bob.register(&mut lab, addr(LISTENER));
    let (transmits, asked) = text(&mut lab, 0, "203.0.113.2:6000", b">198.51.100.30");
    assert_eq!(asked, [told(0, HOST)]);
    let [first] = &transmits[..] else { panic!("{transmits:?}") };
    assert_eq!(first.destination, addr(LISTENER));
    assert_eq!(introduced(&first.payload, &bob, "203.0.113.2").0, 1);
    assert_eq!((lab.server.stats().introductions, lab.server.stats().legacy_listeners), (1, 0));

    let again = wait(&mut lab, Duration::from_secs(20));
    assert_eq!(again, [(100 * MS, first.clone()), (300 * MS, first.clone())], "UDP loses, and 2015 asks once");
}

#[test]
fn over_a_connection_a_current_listener_is_told_once() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = listener(1);
    lab.accept(9, LISTENER);
    let full = bob.full(lab.id(), None);
    lab.say(9, &full);
    lab.asked();
    let (transmits, asked) = text(&mut lab, 0, "203.0.113.2:6000", b">198.51.100.30");
    assert_eq!((transmits, &asked[0]), (Vec::new(), &told(0, HOST)), "the connector first");
    introduced(&answers(&asked, 9), &bob, "203.0.113.2");
    assert_eq!(wait(&mut lab, Duration::from_secs(1)), []);
    lab.fail(9);
    let (_, asked) = text(&mut lab, 1, "203.0.113.2:6001", b">198.51.100.30");
    assert_eq!((asked, lab.pass(100 * MS)), (Asked::new(), vec![not_found(1)]));
}

#[test]
fn an_introduction_is_sent_again_to_where_the_listener_is_now_or_not_at_all() {
    let mut lab = Lab::new(ServerConfig::default());
    let (bob, away) = (listener(1), addr("192.0.2.77:4000"));
    bob.register(&mut lab, addr(LISTENER));
    text(&mut lab, 0, "203.0.113.2:6000", b">198.51.100.30");
    lab.ask_twice(away, |id, cookie| bob.keepalive(id, cookie));
    let again = wait(&mut lab, 100 * MS);
    assert_eq!(again.iter().map(|(_, transmit)| transmit.destination).collect::<Vec<_>>(), [away]);
    let leave = bob.leave(lab.id());
    lab.send(away, &leave);
    assert_eq!(wait(&mut lab, Duration::from_secs(1)), []);
}

#[test]
fn a_connector_of_2015_sees_whoever_said_legacy_has_an_ipv4_address_and_no_name() {
    let named = Listener { name: Some("bob"), ..listener(1) };
    let silent = Listener { legacy: false, ..listener(1) };
    for (listener, remote, is_seen) in [
        (listener(1), LISTENER, true),
        (named, LISTENER, false),
        (silent, LISTENER, false),
        (listener(1), "[2001:db8:1::1]:5000", false),
        (listener(1), "198.51.100.31:5000", false),
    ] {
        for legacy in [true, false] {
            let mut lab = Lab::new(ServerConfig::default());
            lab.server.config.legacy = legacy;
            listener.register(&mut lab, addr(remote));
            lab.server.config.legacy = true;
            let (transmits, mut asked) = text(&mut lab, 0, "203.0.113.2:6000", b">198.51.100.30");
            asked.extend(lab.pass(100 * MS));
            let is_seen = is_seen && legacy;
            assert_eq!(asked, [if is_seen { told(0, HOST) } else { not_found(0) }], "{remote}");
            assert_eq!(transmits.len(), usize::from(is_seen));
        }
    }
}

#[test]
fn a_listener_that_moves_or_leaves_or_expires_is_found_where_it_is() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = listener(1);
    let found = |lab: &mut Lab, stream: u32, host: &str| {
        let (_, mut asked) = text(lab, stream, "203.0.113.2:6000", alloc::format!(">{host}").as_bytes());
        asked.extend(lab.pass(100 * MS));
        asked == [told(stream, host)]
    };
    bob.register(&mut lab, addr(LISTENER));
    lab.ask_twice(addr("192.0.2.77:4000"), |id, cookie| bob.keepalive(id, cookie));
    assert!(!found(&mut lab, 0, HOST));
    assert!(found(&mut lab, 1, "192.0.2.77"));
    bob.register(&mut lab, addr(LISTENER));
    lab.pass(Duration::from_secs(50));
    assert!(!found(&mut lab, 2, HOST), "expired, though nobody but the connector has come since");
    bob.register(&mut lab, addr(LISTENER));
    // Its IPv4 address falls silent, and it lives on over IPv6.
    for _ in 0..2 {
        lab.wait(30);
        bob.register(&mut lab, addr("[2001:db8:1::1]:5000"));
    }
    assert!(!found(&mut lab, 3, HOST));
    // One that says it no more.
    bob.register(&mut lab, addr(LISTENER));
    Listener { legacy: false, ..bob.clone() }.register(&mut lab, addr(LISTENER));
    assert!(!found(&mut lab, 4, HOST));
    assert_eq!(lab.server.stats().registrations, 1);
    assert!(lab.server.registry.waiting().is_empty());
}

#[test]
fn a_current_connector_meets_a_listener_of_2015() {
    let mut lab = Lab::new(ServerConfig::default());
    text(&mut lab, 0, LISTENER, b"<");
    let (answer, transmits, asked) = connect(&mut lab, &connector(1), CONNECTOR);
    let message = parse(&answer);
    assert_eq!((message.method(), message.class()), (Method::CONNECT, Class::Success));
    assert_eq!(message.xor_mapped_address(), Some(addr(CONNECTOR)));
    is_old(&message, HOST);
    assert_eq!((transmits, asked), (Vec::new(), vec![told(0, "203.0.113.5")]));
    assert_eq!((lab.server.stats().introductions, lab.server.stats().legacy_listeners), (1, 0));

    // Another gets no more of it; it may listen again.
    assert_eq!(connector(2).code(&mut lab, addr(CONNECTOR)), 404);
    lab.say(0, b"<");
    let (answer, _, asked) = connect(&mut lab, &connector(2), "203.0.113.6:1");
    assert_eq!((code(&answer), asked), (0, vec![told(0, "203.0.113.6")]));
}

#[test]
fn over_a_connection_the_connector_is_told_first() {
    let mut lab = Lab::new(ServerConfig::default());
    text(&mut lab, 0, LISTENER, b"<");
    lab.accept(1, CONNECTOR);
    let request = connector(1).request(lab.id(), None);
    lab.say(1, &request);
    let asked = lab.asked();
    assert_eq!((asked.len(), asked[0].0, &asked[1]), (2, 1, &told(0, "203.0.113.5")));
    is_old(&parse(&answers(&asked, 1)), HOST);
}

#[test]
fn a_session_gets_one_listener_however_often_it_asks() {
    let mut lab = Lab::new(ServerConfig::default());
    text(&mut lab, 0, LISTENER, b"<");
    text(&mut lab, 1, "198.51.100.30:5001", b"<");
    let mut listeners = Vec::new();
    for remote in [CONNECTOR, CONNECTOR, "[2001:db8:1::7]:7000", CONNECTOR] {
        let (answer, _, asked) = connect(&mut lab, &connector(1), remote);
        is_old(&parse(&answer), HOST);
        listeners.extend(asked);
        lab.pass(Duration::from_secs(15));
    }
    assert_eq!(listeners, [told(0, "203.0.113.5")]);
    // By now it is another session, whatever it says.
    let (_, _, asked) = connect(&mut lab, &connector(1), CONNECTOR);
    assert_eq!(asked, [told(1, "203.0.113.5")]);
}

#[test]
fn a_session_gets_one_current_listener_however_often_it_asks() {
    let mut lab = Lab::new(ServerConfig::default());
    let (bob, other) = (listener(1), listener(2));
    bob.register(&mut lab, addr(LISTENER));
    other.register(&mut lab, addr("198.51.100.30:5001"));
    for _ in 0..3 {
        let (answer, transmits, _) = connect(&mut lab, &connector(1), CONNECTOR);
        assert_eq!(parse(&answer).public_key(), Some([1; 32]), "an introduction as any other");
        assert!(parse(&answer).route().is_some() && parse(&answer).legacy().is_none());
        assert_eq!(transmits.len(), 1);
        let introduction = parse(&transmits[0].payload);
        assert_eq!((introduction.public_key(), introduction.legacy()), (Some([0xCC; 32]), None));
        assert_eq!(transmits[0].destination, addr(LISTENER));
        // It is usable again, and still the same.
        let keepalive = bob.keepalive(lab.id(), None);
        lab.send(addr(LISTENER), &keepalive);
    }
    assert_eq!(wait(&mut lab, Duration::from_secs(1)), [], "the connector asks again by itself");
    // Its listener leaves: the session does not take the next one's turn.
    let leave = bob.leave(lab.id());
    lab.send(addr(LISTENER), &leave);
    assert_eq!(connector(1).code(&mut lab, addr(CONNECTOR)), 404);
    assert_eq!(parse(&connect(&mut lab, &connector(2), CONNECTOR).0).public_key(), Some([2; 32]));
}

#[test]
fn the_oldest_of_both_kinds_comes_first_and_each_once() {
    let mut lab = Lab::new(ServerConfig::default());
    let (first, third) = (listener(1), listener(3));
    first.register(&mut lab, addr(LISTENER));
    text(&mut lab, 20, "198.51.100.30:2", b"<");
    third.register(&mut lab, addr("198.51.100.30:3"));
    text(&mut lab, 40, "198.51.100.30:4", b"<");
    // Being heard again costs no turn.
    let keepalive = first.keepalive(lab.id(), None);
    lab.send(addr(LISTENER), &keepalive);

    let (transmits, asked) = text(&mut lab, 0, "203.0.113.2:1", b">198.51.100.30");
    assert_eq!(asked, [told(0, HOST)]);
    introduced(&transmits[0].payload, &first, "203.0.113.2");
    let (_, _, asked) = connect(&mut lab, &connector(1), CONNECTOR);
    assert_eq!(asked, [told(20, "203.0.113.5")]);
    let (answer, transmits, _) = connect(&mut lab, &connector(2), CONNECTOR);
    assert_eq!((parse(&answer).public_key(), transmits[0].destination), (Some([3; 32]), addr("198.51.100.30:3")));
    // The first is heard, and waits again, behind the fourth.
    let keepalive = first.keepalive(lab.id(), None);
    lab.send(addr(LISTENER), &keepalive);
    let (_, asked) = text(&mut lab, 1, "203.0.113.2:2", b">198.51.100.30");
    assert_eq!(asked, [told(1, HOST), told(40, "203.0.113.2")]);
    let (transmits, _) = text(&mut lab, 2, "203.0.113.2:3", b">198.51.100.30");
    assert_eq!(introduced(&transmits[0].payload, &first, "203.0.113.2").0, 2);
    assert_eq!(connector(3).code(&mut lab, addr(CONNECTOR)), 404);
}

#[test]
fn a_connector_that_did_not_say_legacy_sees_current_listeners_only_and_todays_rules() {
    let mut lab = Lab::new(ServerConfig::default());
    let plain = |session| Connector { legacy: false, ..connector(session) };
    text(&mut lab, 0, LISTENER, b"<");
    assert_eq!(plain(1).code(&mut lab, addr(CONNECTOR)), 404);
    listener(1).register(&mut lab, addr(LISTENER));
    for session in 2..4 {
        assert_eq!(plain(session).code(&mut lab, addr(CONNECTOR)), 0, "as often as it likes");
    }
    Listener::new(2, None).register(&mut lab, addr("198.51.100.30:5001"));
    assert_eq!(plain(4).code(&mut lab, addr(CONNECTOR)), 410);
    assert_eq!(lab.server.stats().legacy_listeners, 1);
    assert_eq!(lab.asked(), []);
}

#[test]
fn who_said_legacy_gets_who_did_not_only_when_nobody_else_waits() {
    let mut lab = Lab::new(ServerConfig::default());
    let key = |lab: &mut Lab, session| {
        let (answer, ..) = connect(lab, &connector(session), CONNECTOR);
        (code(&answer), parse(&answer).public_key().map(|key| key[0]))
    };
    Listener::new(1, None).register(&mut lab, addr(LISTENER));
    assert_eq!(key(&mut lab, 1), (0, Some(1)));
    listener(2).register(&mut lab, addr("198.51.100.30:5001"));
    assert_eq!(key(&mut lab, 1), (0, Some(1)), "the same session");
    assert_eq!(key(&mut lab, 2), (0, Some(2)), "who waits comes first");
    assert_eq!(key(&mut lab, 3), (0, Some(1)), "and is used up");
    Listener::new(3, None).register(&mut lab, addr("198.51.100.30:5002"));
    assert_eq!(key(&mut lab, 4), (410, None));
    text(&mut lab, 0, "198.51.100.30:5003", b"<");
    assert_eq!(key(&mut lab, 5), (0, None), "a listener of 2015");
    // By name nothing is different, and nothing is used up.
    Listener { name: Some("bob"), ..listener(4) }.register(&mut lab, addr("198.51.100.30:5004"));
    for session in 6..8 {
        let named = Connector { target: Target::Name("bob"), ..connector(session) };
        assert_eq!(named.code(&mut lab, addr(CONNECTOR)), 0);
    }
}

#[test]
fn nobody_gets_itself_or_whom_it_cannot_reach() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = listener(1);
    bob.register(&mut lab, addr(LISTENER));
    assert_eq!(connector(1).code(&mut lab, addr(LISTENER)), 404, "it is the only one");
    let over_tcp = Connector { transports: Transports { udp: false, tcp: true }, ..connector(2) };
    assert_eq!(over_tcp.code(&mut lab, addr(CONNECTOR)), 415);
    text(&mut lab, 0, "198.51.100.30:5001", b"<");
    // Over IPv6 there is nothing that a listener of 2015 could be told; a current one can.
    let (answer, ..) = connect(&mut lab, &connector(3), "[2001:db8:1::7]:7000");
    assert_eq!(parse(&answer).public_key(), Some([1; 32]));
    assert_eq!(connector(4).code(&mut lab, addr("[2001:db8:1::7]:7000")), 404);
    let (answer, ..) = connect(&mut lab, &over_tcp, CONNECTOR);
    is_old(&parse(&answer), HOST);

    // Somebody on the server's host and somebody elsewhere have no addresses for each other.
    let mut lab = Lab::new(ServerConfig::default());
    bob.register(&mut lab, addr("127.0.0.30:5000"));
    let (transmits, asked) = text(&mut lab, 0, "203.0.113.2:6000", b">127.0.0.30");
    assert_eq!((transmits, asked, lab.pass(100 * MS)), (Vec::new(), Asked::new(), vec![not_found(0)]));
    let (transmits, asked) = text(&mut lab, 1, "127.0.0.2:6000", b">127.0.0.30");
    assert_eq!((transmits.len(), asked), (1, vec![told(1, "127.0.0.30")]));
    text(&mut lab, 2, "127.0.0.30:5001", b"<");
    let to_loopback = Connector { target: Target::Address("127.0.0.30"), ..connector(1) };
    assert_eq!(to_loopback.code(&mut lab, addr(CONNECTOR)), 404);
    assert_eq!(to_loopback.code(&mut lab, addr("127.0.0.2:7000")), 0);
}

#[test]
fn the_switch_turns_it_off() {
    let mut lab = Lab::new(ServerConfig { legacy: false, ..ServerConfig::default() });
    listener(1).register(&mut lab, addr(LISTENER));
    assert!(lab.server.registry.waiting().is_empty());
    for session in 1..3 {
        assert_eq!(connector(session).code(&mut lab, addr(CONNECTOR)), 0, "as any other, and as often");
    }
    listener(2).register(&mut lab, addr("198.51.100.30:5001"));
    assert_eq!(connector(3).code(&mut lab, addr(CONNECTOR)), 410);
}

#[test]
fn a_network_gets_its_rate_of_mixed_introductions() {
    let mut lab = Lab::new(ServerConfig { introduction_rate: 3, ..ServerConfig::default() });
    for number in 1..=5 {
        listener(number).register(&mut lab, addr(LISTENER));
    }
    let mut asked = Asked::new();
    for stream in 0..5 {
        asked.extend(text(&mut lab, stream, "203.0.113.2:6000", b">198.51.100.30").1);
    }
    assert_eq!(asked, [told(0, HOST), told(1, HOST), told(2, HOST), not_found(3), not_found(4)]);
    assert_eq!(connector(1).code(&mut lab, addr("203.0.113.3:1")), 508);
    lab.wait(1);
    assert_eq!(connector(2).code(&mut lab, addr("203.0.113.3:1")), 0);
}

/// Nothing of it grows without bounds: what is to be sent again, and what is remembered.
#[test]
fn what_is_kept_of_it_is_bounded() {
    let config = ServerConfig { introduction_rate: 0, stun_rate: 0, ..ServerConfig::default() };
    let mut lab = Lab::new(config);
    let bob = listener(1);
    bob.register(&mut lab, addr(LISTENER));
    lab.accept(0, "203.0.113.2:6000");
    for _ in 0..5000 {
        lab.say(0, b">198.51.100.30");
        assert_eq!(drain(&mut lab).1, [told(0, HOST)]);
        let keepalive = bob.keepalive(lab.id(), None);
        lab.send(addr(LISTENER), &keepalive);
    }
    let again = wait(&mut lab, Duration::from_secs(1));
    assert_eq!(again.len(), 4096);
    assert_eq!(wait(&mut lab, Duration::from_secs(1)), []);

    lab.accept(1, "203.0.113.2:6001");
    for number in 0..5000_u32 {
        let mut session = [0; 16];
        session[..4].copy_from_slice(&number.to_be_bytes());
        let request = Connector { session: SessionId(session), ..connector(1) }.request(TransactionId([1; 12]), None);
        lab.say(1, &request);
        assert_eq!(code(&answers(&lab.asked(), 1)), 0);
        let keepalive = bob.keepalive(TransactionId([2; 12]), None);
        lab.send(addr(LISTENER), &keepalive);
    }
    assert_eq!(lab.server.memory.len(), 4097);
}
