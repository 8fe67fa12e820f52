//! Registration: how a listener comes, stays, moves and goes, and what it is refused.

use super::*;

const HOME: &str = "198.51.100.1:5000";

#[test]
fn a_listener_is_registered_where_it_has_proven_to_be() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = Listener::new(1, Some("bob"));
    for (remote, mapped) in [(HOME, HOME), ("[2001:db8:1::1]:5000", "[2001:db8:1::1]:5000")] {
        let transmits = lab.ask_twice(addr(remote), |id, cookie| bob.full(id, cookie));
        let answer = parse(&transmits[0].payload);
        assert_eq!((answer.class(), answer.xor_mapped_address()), (Class::Success, Some(addr(mapped))));
        assert_eq!(answer.keepalive(), Some(25));
        assert_eq!(answer.verify_integrity_sha256(&bob.key), Integrity::Valid);
        assert_eq!(answer.verify_fingerprint(), Fingerprint::Valid);
    }
    assert_eq!(lab.server.stats().registrations, 1, "one registration, two families");
}

#[test]
fn a_registration_lives_two_keepalives_after_the_last_sign_of_life() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = Listener::new(1, Some("bob"));
    bob.register(&mut lab, addr(HOME));
    for _ in 0..3 {
        lab.wait(49);
        let keepalive = bob.keepalive(lab.id(), None);
        assert_eq!(lab.code(addr(HOME), &keepalive), 0);
    }
    assert!(
        matches!(lab.server.poll_output(), Output::Timeout(Some(time), Timer::Expiry) if time == lab.now + Duration::from_secs(50))
    );
    lab.wait(50);
    lab.server.handle_input(lab.now, Input::Timeout);
    assert_eq!(lab.server.stats().registrations, 0);
}

#[test]
fn a_keepalive_from_a_new_address_is_challenged_then_moves_the_listener() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = Listener::new(1, None);
    bob.register(&mut lab, addr(HOME));
    let away = addr("203.0.113.5:7000");
    let connector = Connector::new(Target::Address("203.0.113.5"));
    let keepalive = bob.keepalive(lab.id(), None);
    let challenge = lab.ask(away, &keepalive);
    assert_eq!(code(&challenge), 438);
    assert_eq!(connector.code(&mut lab, addr("198.51.100.200:1")), 404, "not moved by a claim");

    let cookie = parse(&challenge).nonce().unwrap().to_vec();
    let proven = bob.keepalive(lab.id(), Some(&cookie));
    let answer = lab.ask(away, &proven);
    assert_eq!(parse(&answer).xor_mapped_address(), Some(away));
    let introduced = connector.connect(&mut lab, addr("198.51.100.200:1"));
    assert!(introduced.iter().any(|transmit| transmit.destination == away));
    assert!(introduced.iter().all(|transmit| transmit.destination != addr(HOME)));
}

#[test]
fn a_listener_that_the_server_forgot_is_challenged_and_comes_back() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = Listener::new(1, Some("bob"));
    let keepalive = bob.keepalive(lab.id(), None);
    assert_eq!(lab.code(addr(HOME), &keepalive), 401);
    assert_eq!(lab.server.stats().registrations, 0);
    assert_eq!(bob.register(&mut lab, addr(HOME)), 0);
}

#[test]
fn a_name_is_free_at_once_when_its_listener_leaves() {
    let mut lab = Lab::new(ServerConfig::default());
    let (bob, other) = (Listener::new(1, Some("bob")), Listener::new(2, Some("bob")));
    bob.register(&mut lab, addr(HOME));
    assert_eq!(other.register(&mut lab, addr("203.0.113.5:7000")), 409);
    for _ in 0..2 {
        let leave = bob.leave(lab.id());
        assert_eq!(lab.code(addr(HOME), &leave), 0, "also when it is gone already");
    }
    assert_eq!(other.register(&mut lab, addr("203.0.113.5:7000")), 0);
}

#[test]
fn a_wrong_signature_changes_nothing() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = Listener::new(1, Some("bob"));
    bob.register(&mut lab, addr(HOME));
    let thief = Listener { key: [9; 32], ..bob.clone() };
    let away = addr("203.0.113.5:7000");

    assert_eq!(thief.register(&mut lab, away), 403, "the id is no key");
    let moved = thief.keepalive(lab.id(), None);
    assert!(lab.send(away, &moved).is_empty());
    let left = thief.leave(lab.id());
    lab.send(addr(HOME), &left);
    let mut unsigned = Builder::new(Class::Request, Method::REGISTER, lab.id()).version().registration_id(thief.id);
    unsigned = unsigned.registration_key(&thief.key).public_key(&[1; 32]).transports(UDP);
    assert!(lab.send(away, &unsigned.fingerprint().finish()).is_empty());

    assert_eq!(lab.server.stats().registrations, 1);
    let introduced = Connector::new(Target::Name("bob")).connect(&mut lab, addr("198.51.100.200:1"));
    assert!(introduced.iter().any(|transmit| transmit.destination == addr(HOME)));
}

#[test]
fn another_version_and_a_name_that_is_none_are_refused() {
    let mut lab = Lab::new(ServerConfig::default());
    assert_eq!(
        {
            let bad = Listener::new(1, Some("Bob")).full(lab.id(), None);
            lab.code(addr(HOME), &bad)
        },
        400
    );
    let bob = Listener::new(1, None);
    for version in [None, Some(2)] {
        let mut register = Builder::new(Class::Request, Method::REGISTER, lab.id()).registration_id(bob.id);
        register = register.registration_key(&bob.key).public_key(&[1; 32]).transports(UDP);
        let mut connect = Builder::new(Class::Request, Method::CONNECT, lab.id()).session_id(SessionId([1; 16]));
        connect = connect.public_key(&[1; 32]).transports(UDP).string(AttributeType::NAME, "bob");
        if let Some(version) = version {
            register = register.u32(AttributeType::VERSION, version);
            connect = connect.u32(AttributeType::VERSION, version);
        }
        assert_eq!(lab.code(addr(HOME), &sealed(register, &bob.key)), 426);
        assert_eq!(lab.code(addr(HOME), &connect.fingerprint().finish()), 426);
    }
}

#[test]
fn the_server_and_each_network_have_room_for_so_many() {
    let config = ServerConfig { max_registrations: 3, max_registrations_per_network: 2, ..ServerConfig::default() };
    let mut lab = Lab::new(config);
    let codes = [
        ("198.51.100.1:1", 1),
        ("198.51.100.2:1", 2),
        ("198.51.100.3:1", 3),
        ("203.0.113.1:1", 4),
        ("192.0.2.77:1", 5),
    ]
    .map(|(remote, number)| Listener::new(number, None).register(&mut lab, addr(remote)));
    assert_eq!(codes, [0, 0, 508, 0, 508]);
    assert_eq!(lab.server.stats().registrations, 3);
}

#[test]
fn strangers_of_its_network_cannot_silence_a_listener() {
    let mut lab = Lab::new(ServerConfig { stun_rate: 10, ..ServerConfig::default() });
    let bob = Listener::new(1, None);
    bob.register(&mut lab, addr(HOME));
    for _ in 0..50 {
        lab.send(addr("198.51.100.66:6"), &binding().finish());
    }
    let keepalive = bob.keepalive(lab.id(), None);
    assert_eq!(lab.code(addr(HOME), &keepalive), 0);
    let elsewhere = bob.keepalive(lab.id(), None);
    assert!(lab.send(addr("198.51.100.1:5001"), &elsewhere).is_empty(), "who has proven nothing has the rate");
}
