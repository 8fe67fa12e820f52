//! Connections over TCP: what each speaks, STUN in a stream, limits and silence.

use super::*;
use crate::machine::{PortId, StreamId};
use crate::wire::stun::GREETING;

const FIRST: u32 = StreamId::FIRST_ACCEPTED;

/// What the server asks of its connections, as text is read by people: `(stream, bytes)`, and `None` for a close.
pub(super) type Asked = Vec<(u32, Option<Vec<u8>>)>;

impl Lab {
    pub(super) fn accept(&mut self, stream: u32, remote: &str) {
        let (stream, local) = (StreamId(FIRST + stream), addr("192.0.2.1:20000"));
        let accepted = Input::TcpAccepted { port: PortId(0), stream, local, remote: addr(remote) };
        self.server.handle_input(self.now, accepted);
    }

    /// Gives a connection's bytes to the server, which takes so many.
    pub(super) fn say(&mut self, stream: u32, bytes: &[u8]) -> usize {
        self.server.handle_stream_data(self.now, StreamId(FIRST + stream), bytes)
    }

    pub(super) fn end(&mut self, stream: u32) {
        self.server.handle_stream_end(self.now, StreamId(FIRST + stream));
    }

    pub(super) fn fail(&mut self, stream: u32) {
        self.server.handle_input(self.now, Input::TcpFailed { stream: StreamId(FIRST + stream), at_once: false });
    }

    pub(super) fn asked(&mut self) -> Asked {
        self.drain();
        let read = |request| match request {
            TcpRequest::Send { stream, bytes } => (stream.0 - FIRST, Some(bytes)),
            TcpRequest::Close { stream } => (stream.0 - FIRST, None),
            other @ (TcpRequest::Reserve { .. }
            | TcpRequest::Abort { .. }
            | TcpRequest::Listen { .. }
            | TcpRequest::Connect { .. }
            | TcpRequest::Release { .. }) => panic!("{other:?}"),
        };
        core::mem::take(&mut self.requests).into_iter().map(read).collect()
    }

    /// When the server wants to be called again, from now on.
    pub(super) fn wake(&mut self) -> Option<Duration> {
        self.drain().map(|wake| wake - self.now)
    }

    /// Lets time pass, with a call at each time that the server asked for.
    pub(super) fn pass(&mut self, duration: Duration) -> Asked {
        let until = self.now + duration;
        let mut asked = self.asked();
        while let Some(wake) = self.wake()
            && self.now + wake <= until
        {
            self.now = self.now + wake;
            self.server.handle_input(self.now, Input::Timeout);
            asked.extend(self.asked());
        }
        self.now = until;
        asked
    }
}

pub(super) fn answers(asked: &Asked, stream: u32) -> Vec<u8> {
    asked.iter().filter(|(id, _)| *id == stream).filter_map(|(_, bytes)| bytes.clone()).flatten().collect()
}

#[test]
fn binding_is_answered_over_tcp_in_any_pieces() {
    let request = binding().fingerprint().finish();
    for (remote, pieces) in [("198.51.100.1:5000", 1), ("[2001:db8:1::1]:5000", 7), ("[::ffff:198.51.100.1]:5000", 28)]
    {
        let mut lab = Lab::new(ServerConfig { stun_rate: 1, ..ServerConfig::default() });
        lab.accept(0, remote);
        let mut stream = request.repeat(3);
        stream.splice(0..0, GREETING.iter().copied());
        let mut left: Vec<u8> = Vec::new();
        for piece in stream.chunks(stream.len().div_ceil(pieces)) {
            left.extend_from_slice(piece);
            let taken = lab.say(0, &left);
            left.drain(..taken);
        }
        assert!(left.is_empty());
        let said = answers(&lab.asked(), 0);
        let said = said.strip_prefix(GREETING).expect("the same line");
        let length = said.len() / 3;
        for answer in said.chunks(length) {
            let answer = parse(answer);
            assert_eq!((answer.class(), answer.method()), (Class::Success, Method::BINDING));
            assert_eq!(answer.xor_mapped_address(), Some(canonical(addr(remote))));
            assert_eq!(answer.verify_fingerprint(), Fingerprint::Valid);
        }
        assert_eq!((lab.server.stats().bindings, lab.server.stats().limited), (3, 0));
    }
}

#[test]
fn an_advertised_address_stands_for_the_servers_own_over_tcp_too() {
    let mut lab = Lab::new(ServerConfig { advertise: Some(addr("203.0.113.9:4000")), ..ServerConfig::default() });
    lab.accept(0, "198.51.100.1:5000");
    lab.say(0, &binding().padding_to(200, 0).finish());
    let said = answers(&lab.asked(), 0);
    let answer = parse(&said);
    assert_eq!((answer.response_origin(), answer.other_address()), (Some(addr("203.0.113.9:4000")), None));
}

#[test]
fn what_is_no_protocol_is_closed() {
    let classic = [&[0, 1, 0, 0][..], &[7; 16]].concat();
    let long = [&[0, 1, 0x20, 0][..], &MAGIC_COOKIE_BYTES].concat();
    for (bytes, legacy) in [
        (&b"\x16\x03\x01"[..], true),
        (b"HTTP", true),
        (b"HOLEPUNCH/2\n", true),
        (&classic, true),
        (&long, true),
        (b"\0\x01\0\x03", true),
        (b"\0\x01\0\x04\x21\x13", true),
        (b"<", false),
        (b">192.0.2.1", false),
        (b"*", false),
    ] {
        let mut lab = Lab::new(ServerConfig { legacy, ..ServerConfig::default() });
        lab.accept(0, "198.51.100.1:5000");
        assert_eq!(lab.say(0, bytes), bytes.len());
        assert_eq!(lab.asked(), [(0, None)], "{bytes:?}");
        assert_eq!((lab.server.stats().connections, lab.server.stats().malformed), (0, 1));
        assert_eq!(lab.say(0, b"more"), 4, "nobody's");
        assert!(lab.asked().is_empty());
        assert_eq!(lab.wake(), None);
    }
}

const MAGIC_COOKIE_BYTES: [u8; 4] = crate::wire::stun::MAGIC_COOKIE.to_be_bytes();

#[test]
fn silence_ends_a_connection() {
    let mut lab = Lab::new(ServerConfig::default());
    let (first, idle) = (lab.server.config.first_word, lab.server.config.idle_connection);
    lab.accept(0, "198.51.100.1:5000");
    lab.accept(1, "198.51.100.1:5001");
    assert_eq!(lab.say(1, b"HOLE"), 0, "still to come");
    assert_eq!(lab.pass(first - Duration::from_millis(1)), []);
    lab.accept(2, "198.51.100.1:5002");
    lab.say(2, GREETING);
    assert_eq!(lab.pass(Duration::from_millis(1)), [(2, Some(GREETING.to_vec())), (0, None), (1, None)]);
    lab.pass(idle - Duration::from_millis(2));
    lab.say(2, &binding().finish());
    assert_eq!(lab.pass(idle - Duration::from_millis(1)).len(), 1, "the answer");
    assert_eq!(lab.pass(Duration::from_millis(1)), [(2, None)]);
    assert_eq!(lab.server.stats().connections, 0);
}

/// Who sends byte by byte has no more time for a message than who sends it whole.
#[test]
fn a_message_that_is_begun_is_to_be_whole_in_time() {
    let mut lab = Lab::new(ServerConfig::default());
    let (first, request) = (lab.server.config.first_word, binding().finish());
    for stream in 0..3 {
        lab.accept(stream, "198.51.100.1:5000");
    }
    let mut said = Vec::new();
    for second in 1..first.as_secs() {
        said.extend(lab.pass(Duration::from_secs(1)));
        // A greeting without end, a message, and one after another that was whole.
        let count = (second / 5) as usize;
        assert_eq!(lab.say(0, &GREETING[..count]), 0);
        assert_eq!(lab.say(1, &request[..count]), 0);
        let (third, taken) = match second {
            30 => ([&request, &request[..1]].concat(), request.len()),
            _ => (request[..count].to_vec(), 0),
        };
        assert_eq!(lab.say(2, &third), taken);
    }
    assert!(said.iter().all(|(stream, bytes)| *stream == 2 && bytes.is_some()), "{said:?}");
    assert_eq!(lab.pass(Duration::from_secs(1)), [(0, None), (1, None)]);
    assert_eq!(lab.pass(Duration::from_secs(29)), []);
    assert_eq!(lab.pass(Duration::from_secs(1)), [(2, None)], "60 s after its second message began");
    assert_eq!(lab.server.stats().connections, 0);
}

#[test]
fn connections_are_bounded_in_all_and_for_each_network() {
    let config = ServerConfig { max_connections: 5, max_connections_per_network: 2, ..ServerConfig::default() };
    let mut lab = Lab::new(config);
    for (stream, remote, is_taken) in [
        (0, "198.51.100.1:1", true),
        (1, "198.51.100.2:1", true),
        (2, "198.51.100.3:1", false),
        (3, "198.51.101.3:1", true),
        (4, "127.0.0.1:1", true),
        (5, "127.0.0.1:2", true),
        (6, "203.0.113.1:1", false),
    ] {
        lab.accept(stream, remote);
        assert_eq!(lab.asked().is_empty(), is_taken, "{stream}");
    }
    lab.fail(0);
    lab.accept(7, "198.51.100.3:1");
    assert_eq!(lab.asked(), [], "there is room again");
    assert_eq!((lab.server.stats().connections, lab.server.stats().limited), (5, 2));
}

/// A listener and a connector over TCP, both without a cookie.
#[test]
fn peers_are_introduced_over_tcp_as_long_as_they_are_connected() {
    let mut lab = Lab::new(ServerConfig { stun_rate: 1, ..ServerConfig::default() });
    let bob = Listener::new(1, Some("bob"));
    let connector = Connector::new(Target::Name("bob"));
    lab.accept(0, "198.51.100.1:5000");
    lab.accept(1, "203.0.113.5:7000");
    let request = connector.request(lab.id(), None);
    lab.say(1, &request);
    assert_eq!(code(&answers(&lab.asked(), 1)), 404);

    let full = bob.full(lab.id(), None);
    lab.say(0, &full);
    let confirmed = answers(&lab.asked(), 0);
    let confirmed = parse(&confirmed);
    assert_eq!((confirmed.class(), confirmed.xor_mapped_address()), (Class::Success, Some(addr("198.51.100.1:5000"))));
    assert_eq!(confirmed.verify_integrity_sha256(&bob.key), Integrity::Valid);

    lab.say(1, &request);
    let asked = lab.asked();
    let (introduction, answer) = (answers(&asked, 0), answers(&asked, 1));
    let (introduction, answer) = (parse(&introduction), parse(&answer));
    assert_eq!((introduction.method(), answer.method()), (Method::INTRODUCE, Method::CONNECT));
    assert_eq!(answer.class(), Class::Success);
    let seen = |message: &Message<'_>| {
        message.candidates().map(|told| (told.kind, told.transport, told.address)).collect::<Vec<_>>()
    };
    let observed = |address| (CandidateKind::ServerReflexiveObserved, CandidateTransport::Tcp, addr(address));
    assert_eq!(seen(&introduction), [observed("203.0.113.5:7000")]);
    assert_eq!(seen(&answer), [observed("198.51.100.1:5000")]);

    // What the peers trickle goes along the connections, both ways, and nowhere when one is gone.
    let trickle = |route: &[u8]| {
        Builder::new(Class::Request, Method::TRICKLE, TransactionId([8; 12]))
            .attribute(AttributeType::ROUTE, route)
            .fingerprint()
            .finish()
    };
    let (to_listener, to_connector) = (trickle(answer.route().unwrap()), trickle(introduction.route().unwrap()));
    lab.say(0, &to_connector);
    lab.say(1, &to_listener);
    assert_eq!(lab.asked(), [(1, Some(to_connector.clone())), (0, Some(to_listener))]);

    lab.fail(1);
    lab.say(0, &to_connector);
    assert_eq!(lab.asked(), []);
    assert_eq!(lab.server.stats().registrations, 1);
    lab.fail(0);
    assert_eq!(lab.server.stats().registrations, 0, "its name is free at once");
}

#[test]
fn a_registration_over_tcp_is_kept_alive_and_moves() {
    let mut lab = Lab::new(ServerConfig::default());
    let bob = Listener::new(1, None);
    lab.accept(0, "198.51.100.1:5000");
    let full = bob.full(lab.id(), None);
    lab.say(0, &full);
    for _ in 0..4 {
        lab.pass(Duration::from_secs(40));
        let keepalive = bob.keepalive(lab.id(), None);
        lab.say(0, &keepalive);
        assert_eq!(code(&answers(&lab.asked(), 0)), 0);
    }
    // Now over UDP, from the same family: the connection's end is none of its any more.
    let transmits = lab.ask_twice(addr("198.51.100.1:5001"), |id, cookie| bob.keepalive(id, cookie));
    assert_eq!(code(&transmits[0].payload), 0);
    lab.fail(0);
    assert_eq!(lab.server.stats().registrations, 1);
    // And back over a new connection, without a cookie, but not with another's key.
    lab.accept(1, "198.51.100.1:5002");
    let forged = Listener { key: [9; 32], ..bob.clone() }.keepalive(lab.id(), None);
    lab.say(1, &forged);
    assert_eq!(lab.asked(), []);
    let keepalive = bob.keepalive(lab.id(), None);
    lab.say(1, &keepalive);
    assert_eq!(code(&answers(&lab.asked(), 1)), 0);
    lab.end(1);
    assert_eq!((lab.server.stats().registrations, lab.asked()), (0, vec![(1, None)]));
    // Without keepalives it ends as any other does.
    lab.accept(2, "198.51.100.1:5003");
    let full = bob.full(lab.id(), None);
    lab.say(2, &full);
    lab.pass(Duration::from_secs(51));
    assert_eq!(lab.server.stats().registrations, 0);
    lab.fail(2);
}
