//! The text protocol of 2015: exact bytes, order and times.

use super::{streams::Asked, *};

const MS: Duration = Duration::from_millis(1);

fn told(stream: u32, host: &str) -> (u32, Option<Vec<u8>>) {
    (stream, Some(alloc::format!("*('{host}', 20001)").into_bytes()))
}

fn not_found(stream: u32) -> (u32, Option<Vec<u8>>) {
    (stream, Some(b"?".to_vec()))
}

/// A lab in which these are connected, numbered from 0, and have said so much.
fn lab(clients: &[(&str, &[u8])]) -> Lab {
    let mut lab = Lab::new(ServerConfig::default());
    for (stream, (remote, said)) in (0..).zip(clients) {
        lab.accept(stream, remote);
        lab.say(stream, said);
    }
    assert_eq!(lab.asked(), Asked::new());
    lab
}

#[test]
fn the_connector_is_told_first_and_then_the_listener() {
    let mut lab = lab(&[("198.51.100.1:5000", b"<"), ("203.0.113.2:6000", b">198.51.100.1")]);
    assert_eq!(lab.wake(), Some(20 * MS), "a digit may follow");
    assert_eq!(lab.pass(20 * MS - Duration::from_nanos(1)), []);
    assert_eq!(lab.pass(Duration::from_nanos(1)), [told(1, "198.51.100.1"), told(0, "203.0.113.2")]);
    assert_eq!((lab.server.stats().introductions, lab.server.stats().legacy_listeners), (1, 0));
}

#[test]
fn a_host_that_no_digit_can_follow_is_answered_at_once() {
    for host in ["198.51.100.26", "198.51.100.0", "198.51.100.255"] {
        let mut lab = lab(&[(&alloc::format!("{host}:5000"), b"<"), ("203.0.113.2:6000", b"")]);
        lab.say(1, b">198.51.");
        assert_eq!(lab.asked(), []);
        lab.say(1, host.strip_prefix("198.51.").unwrap().as_bytes());
        assert_eq!(lab.asked(), [told(1, host), told(0, "203.0.113.2")]);
    }
}

#[test]
fn a_host_in_two_segments_is_the_longer_one() {
    let mut lab = lab(&[("198.51.100.2:1", b"<"), ("198.51.100.23:1", b"<"), ("203.0.113.2:1", b">198.51.100.2")]);
    assert_eq!(lab.pass(19 * MS), []);
    lab.say(2, b"3");
    assert_eq!(lab.pass(19 * MS), [], "yet another may follow");
    assert_eq!(lab.pass(MS), [told(2, "198.51.100.23"), told(1, "203.0.113.2")]);
    assert_eq!(lab.server.stats().legacy_listeners, 1);
}

#[test]
fn nothing_is_not_found_before_100_ms_of_silence() {
    let mut lab = lab(&[("203.0.113.2:1", b">198.51.100.77")]);
    assert_eq!(lab.pass(99 * MS), []);
    lab.say(0, b".");
    assert_eq!(lab.pass(99 * MS), []);
    assert_eq!(lab.pass(MS), [not_found(0)]);
    // The connection stays usable, and a listener that comes within the silence is found.
    lab.say(0, b">198.51.100.77");
    assert_eq!(lab.pass(50 * MS), []);
    lab.accept(1, "198.51.100.77:1");
    lab.say(1, b"<");
    assert_eq!(lab.pass(50 * MS), [told(0, "198.51.100.77"), told(1, "203.0.113.2")]);
}

#[test]
fn the_oldest_listener_is_introduced_first_and_each_once() {
    let mut lab = lab(&[("198.51.100.30:1", b""), ("198.51.100.30:2", b"<"), ("198.51.100.30:3", b"<")]);
    lab.say(0, b"<");
    for (stream, listener) in [(3, 1), (4, 2), (5, 0)] {
        lab.accept(stream, "203.0.113.2:1");
        lab.say(stream, b">198.51.100.30");
        assert_eq!(lab.asked(), [told(stream, "198.51.100.30"), told(listener, "203.0.113.2")]);
    }
    lab.say(3, b">198.51.100.30");
    assert_eq!(lab.pass(100 * MS), [not_found(3)]);
    lab.say(1, b"<");
    lab.say(3, b">198.51.100.30");
    assert_eq!(lab.asked(), [told(3, "198.51.100.30"), told(1, "203.0.113.2")], "it listens again");
}

#[test]
fn nobody_is_introduced_who_did_not_listen_or_asks() {
    let mut lab = lab(&[("198.51.100.30:1", b""), ("198.51.100.30:2", b"<")]);
    lab.say(1, b">198.51.100.30");
    assert_eq!(lab.pass(100 * MS), [not_found(1)], "it is the only one");
    lab.accept(2, "198.51.100.30:3");
    lab.say(2, b"<");
    lab.say(1, b">198.51.100.30");
    assert_eq!(lab.asked(), [told(1, "198.51.100.30"), told(2, "198.51.100.30")]);
}

#[test]
fn coalesced_requests_are_answered_each() {
    let mut lab = lab(&[("198.51.100.1:1", b"<"), ("198.51.100.2:1", b"<")]);
    lab.accept(2, "203.0.113.2:1");
    lab.say(2, b"<>198.51.100.9>198.51.100.1>198.51.100.9>198.51.100.9>198.51.100.2<");
    let two = (2, Some(b"??".to_vec()));
    let (first, second) = (told(2, "198.51.100.1"), told(2, "198.51.100.2"));
    let (to_first, to_second) = (told(0, "203.0.113.2"), told(1, "203.0.113.2"));
    assert_eq!(lab.asked(), [not_found(2), first, to_first, two, second, to_second]);
}

#[test]
fn an_announcement_after_the_listening_is_passed_over() {
    let mut lab = lab(&[("198.51.100.30:1", b"<holepunch/1 <>*('eval')"), ("203.0.113.2:1", b"")]);
    lab.say(0, b"and more of it");
    assert_eq!(lab.pass(200 * MS), []);
    lab.say(1, b">198.51.100.30\n");
    assert_eq!(lab.asked(), [told(1, "198.51.100.30"), told(0, "203.0.113.2")]);
    assert_eq!(lab.server.stats().introductions, 1);
}

#[test]
fn whoever_leaves_is_found_no_more() {
    let mut lab = lab(&[("198.51.100.30:1", b"<"), ("198.51.100.30:2", b"<"), ("203.0.113.2:1", b"")]);
    lab.fail(0);
    lab.end(1);
    assert_eq!(lab.asked(), [(1, None)]);
    lab.say(2, b">198.51.100.30");
    assert_eq!(lab.pass(100 * MS), [not_found(2)]);
    assert_eq!((lab.server.stats().connections, lab.server.stats().legacy_listeners), (1, 0));
}

#[test]
fn the_end_of_a_stream_ends_its_request() {
    let mut lab = lab(&[("198.51.100.2:1", b"<"), ("203.0.113.2:1", b">198.51.100.2"), ("203.0.113.3:1", b">1.2.3.4")]);
    lab.end(1);
    assert_eq!(lab.asked(), [told(1, "198.51.100.2"), told(0, "203.0.113.2"), (1, None)]);
    lab.end(2);
    assert_eq!(lab.asked(), [not_found(2), (2, None)]);
}

#[test]
fn garbage_is_one_question_mark_and_the_connection_stays_usable() {
    for garbage in [&b"*("[..], b"*('203.0.113.2', 20001)", b"\xff\xfe", b">\x80", b"?", b">0.0.0.0", b">::1", b">a>b"]
    {
        let mut lab = lab(&[("198.51.100.30:1", b"<"), ("203.0.113.2:1", garbage)]);
        assert_eq!(lab.pass(100 * MS), [not_found(1)], "{garbage:?}");
        lab.say(1, b">198.51.100.30");
        assert_eq!(lab.asked(), [told(1, "198.51.100.30"), told(0, "203.0.113.2")]);
    }
}

#[test]
fn a_megabyte_gets_one_answer_and_without_end_none() {
    let mut lab = lab(&[("203.0.113.2:1", b">")]);
    for _ in 0..256 {
        assert_eq!(lab.say(0, &[b'7'; 4096]), 4096);
    }
    assert_eq!(lab.pass(100 * MS), [not_found(0)]);
    for _ in 0..2048 {
        lab.say(0, &[b'x'; 4096]);
    }
    assert_eq!(lab.asked(), [(0, None)]);
}

#[test]
fn ipv6_is_nobodys_peer() {
    let mut lab = lab(&[("[2001:db8::5]:1", b"<"), ("[::ffff:198.51.100.30]:1", b"<"), ("[2001:db8::6]:1", b"")]);
    assert_eq!(lab.server.stats().legacy_listeners, 1);
    lab.say(2, b">198.51.100.30");
    assert_eq!(lab.pass(100 * MS), [not_found(2)], "its address would say nothing to the listener");
    lab.accept(3, "203.0.113.2:1");
    lab.say(3, b">2001:db8::5");
    assert_eq!(lab.pass(100 * MS), [not_found(3)]);
    lab.say(3, b">198.51.100.30");
    assert_eq!(lab.asked(), [told(3, "198.51.100.30"), told(1, "203.0.113.2")]);
}

#[test]
fn a_listener_may_be_silent_for_ever_and_a_connector_not() {
    let mut lab = lab(&[("198.51.100.30:1", b"<"), ("203.0.113.2:1", b">1.2.3.4")]);
    let idle = lab.server.config.idle_connection;
    assert_eq!(lab.pass(idle - MS), [not_found(1)]);
    assert_eq!(lab.pass(101 * MS), [(1, None)]);
    assert_eq!(lab.pass(1000 * idle), []);
    lab.accept(2, "203.0.113.2:1");
    lab.say(2, b">198.51.100.30");
    assert_eq!(lab.asked(), [told(2, "198.51.100.30"), told(0, "203.0.113.2")]);
    assert_eq!(lab.pass(idle), [(0, None), (2, None)], "it has what it waited for");
}

#[test]
fn the_punch_port_is_told() {
    let mut lab = Lab::new(ServerConfig { punch_port: 7, ..ServerConfig::default() });
    lab.accept(0, "198.51.100.30:1");
    lab.say(0, b"<");
    lab.accept(1, "203.0.113.2:1");
    lab.say(1, b">198.51.100.30");
    let said = |host: &str| Some(alloc::format!("*('{host}', 7)").into_bytes());
    assert_eq!(lab.asked(), [(1, said("198.51.100.30")), (0, said("203.0.113.2"))]);
}

#[test]
fn a_network_gets_its_rate_of_introductions() {
    let mut lab = Lab::new(ServerConfig { introduction_rate: 3, ..ServerConfig::default() });
    let mut introduced = 0;
    for number in 0..5 {
        let (listener, connector) = (2 * number, 2 * number + 1);
        lab.accept(listener, "198.51.100.30:1");
        lab.say(listener, b"<");
        lab.accept(connector, "203.0.113.2:1");
        lab.say(connector, b">198.51.100.30");
        introduced += usize::from(lab.asked().len() == 2);
    }
    assert_eq!((introduced, lab.server.stats().limited), (3, 2));
}
