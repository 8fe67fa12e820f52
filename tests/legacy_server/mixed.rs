//! Clients of 2015 and clients that speak STUN and said LEGACY, introduced to each other over real sockets.

use holepunch::wire::stun::{
    AttributeType, CandidateKind, Integrity, RegistrationId, SessionId, Transports, WireCandidate,
};

use super::*;

const KEY: [u8; 32] = [7; 32];
const BOTH: Transports = Transports { udp: true, tcp: true };

/// A client that speaks STUN, over UDP or a connection.
enum Current {
    Udp(UdpSocket),
    Tcp(Client),
}

impl Current {
    fn udp(server: &Running, from: [u8; 4]) -> Self {
        let socket = UdpSocket::bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(server.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::Udp(socket)
    }

    fn tcp(server: &Running, from: [u8; 4]) -> Self {
        Self::Tcp(server.connect(from))
    }

    fn say(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Self::Tcp(client) => client.say(bytes),
        }
    }

    /// The next message.
    fn message(&mut self) -> Vec<u8> {
        match self {
            Self::Udp(socket) => {
                let mut buffer = [0; 2048];
                let length = socket.recv(&mut buffer).expect("a message");
                buffer[..length].to_vec()
            }
            Self::Tcp(client) => {
                let mut bytes = client.exactly(20);
                bytes.extend(client.exactly(usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))));
                bytes
            }
        }
    }

    /// Asks, with the cookie that it is asked for over UDP; the answer.
    fn ask(&mut self, request: impl Fn(Option<&[u8]>) -> Vec<u8>) -> Vec<u8> {
        self.say(&request(None));
        let answer = self.message();
        let Some(cookie) = Message::parse(&answer).unwrap().nonce().map(<[u8]>::to_vec) else { return answer };
        self.say(&request(Some(&cookie)));
        self.message()
    }

    fn register(&mut self) {
        let answer = self.ask(|cookie| {
            let builder = Builder::new(Class::Request, Method::REGISTER, TransactionId([1; 12]))
                .version()
                .registration_id(RegistrationId([1; 16]));
            with(builder, cookie)
                .registration_key(&KEY)
                .public_key(&[8; 32])
                .transports(BOTH)
                .legacy(0)
                .integrity_sha256(&KEY)
                .fingerprint()
                .finish()
        });
        assert_eq!(Message::parse(&answer).unwrap().class(), Class::Success);
    }

    fn connect(&mut self, session: u8, target: [u8; 4]) -> Vec<u8> {
        self.ask(|cookie| {
            let builder = Builder::new(Class::Request, Method::CONNECT, TransactionId([session; 12]))
                .version()
                .session_id(SessionId([session; 16]));
            let builder = with(builder, cookie).public_key(&[9; 32]).transports(BOTH);
            builder.target_address(target.into()).legacy(0).fingerprint().finish()
        })
    }
}

fn with(builder: Builder, cookie: Option<&[u8]>) -> Builder {
    cookie.into_iter().fold(builder, |builder, cookie| builder.attribute(AttributeType::NONCE, cookie))
}

/// Whether the message tells of a peer of 2015 at that address.
fn tells_of(bytes: &[u8], host: [u8; 4]) {
    let message = Message::parse(bytes).unwrap();
    assert_eq!((message.legacy(), message.public_key(), message.route()), (Some(20001), None, None));
    let candidates: Vec<WireCandidate> = message.candidates().collect();
    let [candidate] = candidates[..] else { panic!("{candidates:?}") };
    assert_eq!(candidate.kind, CandidateKind::ServerReflexiveObserved);
    assert_eq!(candidate.address, SocketAddr::from((host, 20001)));
}

fn tells_the_listener_of(bytes: &[u8], host: [u8; 4]) {
    tells_of(bytes, host);
    let message = Message::parse(bytes).unwrap();
    assert_eq!((message.method(), message.class()), (Method::INTRODUCE, Class::Indication));
    assert_eq!(message.verify_integrity_sha256(&KEY), Integrity::Valid);
    assert!(message.session_id().is_some());
}

#[test]
fn a_connector_of_2015_meets_a_current_listener_which_is_told_three_times_over_udp() {
    let server = Running::start();
    let mut listener = Current::udp(&server, [127, 0, 0, 2]);
    listener.register();
    let mut connector = server.connect([127, 0, 0, 3]);
    let asked = Instant::now();
    connector.say(b">127.0.0.2");
    assert_eq!(connector.piece(), b"*('127.0.0.2', 20001)", "one segment");
    let first = listener.message();
    tells_the_listener_of(&first, [127, 0, 0, 3]);
    assert_eq!([listener.message(), listener.message()], [first.clone(), first]);
    assert!(asked.elapsed() >= Duration::from_millis(300), "{:?}", asked.elapsed());
    connector.say(b">127.0.0.2");
    assert_eq!(connector.piece(), b"?", "each once");
    listener.register();
    connector.say(b">127.0.0.2");
    assert_eq!(connector.piece(), b"*('127.0.0.2', 20001)", "it was heard again");
    let next = listener.message();
    tells_the_listener_of(&next, [127, 0, 0, 3]);
    assert_eq!(Message::parse(&next).unwrap().sequence(), Some(2), "nothing came in between");
}

#[test]
fn a_current_listener_over_tcp_is_told_once_and_found_no_more_when_it_leaves() {
    let server = Running::start();
    let mut listener = Current::tcp(&server, [127, 0, 0, 2]);
    listener.register();
    let mut connector = server.connect([127, 0, 0, 3]);
    connector.say(b">127.0.0.2");
    assert_eq!(connector.piece(), b"*('127.0.0.2', 20001)");
    tells_the_listener_of(&listener.message(), [127, 0, 0, 3]);
    listener.register();
    drop(listener);
    server.until(|server| server.handle.stats().registrations == 0);
    connector.say(b">127.0.0.2");
    assert_eq!(connector.piece(), b"?");
}

#[test]
fn a_current_connector_meets_a_listener_of_2015_however_often_it_asks() {
    for over_tcp in [false, true] {
        let server = Running::start();
        let (mut first, mut second) = (server.listener([127, 0, 0, 2]), server.listener([127, 0, 0, 2]));
        let connect = |last| if over_tcp { Current::tcp } else { Current::udp }(&server, [127, 0, 0, last]);
        let mut connector = connect(3);
        for _ in 0..3 {
            let answer = connector.connect(1, [127, 0, 0, 2]);
            assert_eq!(Message::parse(&answer).unwrap().class(), Class::Success);
            tells_of(&answer, [127, 0, 0, 2]);
        }
        assert_eq!(first.piece(), b"*('127.0.0.3', 20001)", "one segment, once");
        tells_of(&connect(4).connect(2, [127, 0, 0, 2]), [127, 0, 0, 2]);
        assert_eq!(second.piece(), b"*('127.0.0.4', 20001)");
        let answer = connect(5).connect(3, [127, 0, 0, 2]);
        assert_eq!(Message::parse(&answer).unwrap().error_code().map(|error| error.code), Some(404));
        for listener in [&mut first, &mut second] {
            listener.0.shutdown(Shutdown::Write).unwrap();
            assert_eq!(listener.rest(), b"", "FIN, and nothing more");
        }
    }
}

#[test]
fn two_that_said_legacy_meet_as_any_two() {
    let server = Running::start();
    let (mut listener, mut connector) = (Current::udp(&server, [127, 0, 0, 2]), Current::udp(&server, [127, 0, 0, 3]));
    listener.register();
    let answer = connector.connect(1, [127, 0, 0, 2]);
    let (answer, introduction) = (Message::parse(&answer).unwrap(), listener.message());
    let introduction = Message::parse(&introduction).unwrap();
    assert_eq!((answer.public_key(), answer.legacy()), (Some([8; 32]), None));
    assert_eq!((introduction.public_key(), introduction.legacy()), (Some([9; 32]), None));
    assert_eq!(introduction.session_id(), Some(SessionId([1; 16])));
}

#[test]
fn without_the_protocol_of_2015_legacy_says_nothing() {
    let server = Running::with(|options| options.config.legacy = false);
    let mut listener = Current::udp(&server, [127, 0, 0, 2]);
    listener.register();
    for session in 1..3 {
        let answer = Current::udp(&server, [127, 0, 0, 3]).connect(session, [127, 0, 0, 2]);
        assert_eq!(Message::parse(&answer).unwrap().public_key(), Some([8; 32]), "as often as it likes");
        assert_eq!(Message::parse(&listener.message()).unwrap().public_key(), Some([9; 32]));
    }
}
