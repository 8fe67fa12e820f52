//! The examples of `PROTOCOL.md`, made anew by real peers and a real server from fixed seeds, and compared byte for
//! byte.
//!
//! A fenced block ` ```hex NAME ` holds one message; what stands behind `#` on a line is for people. A block
//! ` ```keys ` holds lines `NAME = VALUE`. Every block of the document is made here, and everything made here is in
//! the document. The keys are derived here a second time, from the text of the document rather than by the library,
//! and every message must be authentic under the key that the document names for it.
//!
//! When the protocol changes on purpose, `UPDATE_PROTOCOL_EXAMPLES=1 cargo test --test protocol_examples -- --test-threads=1`
//! writes the blocks that stand in the document anew.

use hkdf::Hkdf;
use holepunch::{
    config::{PeerConfig, ServerConfig},
    machine::{Disposition, Input, Instant, Output, PortId, Random, SocketId, StreamId, TcpRequest, UdpRequest},
    peer::{ConnectRequest, ListenRequest, Peer, PeerEvent},
    rendezvous::{
        keys::Secret,
        server::{Server, ServerSocket},
    },
    wire::stun::{
        AttributeType, Builder, ChangeRequest, Class, ErrorCode, Fingerprint, HEADER_LENGTH, Integrity, Message,
        Method, RegistrationId, SessionId, TransactionId, Transports,
    },
};
use sha2::Sha256;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use x25519_dalek::{PublicKey, StaticSecret};

const SERVER: &str = "192.0.2.1:20000";
const SERVER_SECOND: &str = "192.0.2.1:20002";
/// Within its NAT, and as the NAT maps it.
const LISTENER: [&str; 2] = ["10.0.1.2:40000", "198.51.100.7:62000"];
const CONNECTOR: [&str; 2] = ["10.0.2.2:40000", "203.0.113.5:61000"];
const LISTENER_SEED: [u8; 32] = [1; 32];
const CONNECTOR_SEED: [u8; 32] = [2; 32];
const SERVER_SEED: [u8; 32] = [3; 32];
const SECRET: &str = "correct horse battery staple";
/// The way between a peer and the server.
const DELAY: Duration = Duration::from_millis(10);
/// The way between the peers: long, so that they trickle before they are connected.
const DIRECT_DELAY: Duration = Duration::from_millis(50);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A peer behind a NAT with a fixed mapping, which lets everything in.
struct Host {
    peer: Peer,
    inside: SocketAddr,
    outside: SocketAddr,
    socket: Option<SocketId>,
    wake: Option<Instant>,
    events: Vec<PeerEvent>,
}

impl Host {
    fn new(seed: [u8; 32], [inside, outside]: [&str; 2]) -> Self {
        let (inside, outside) = (addr(inside), addr(outside));
        let mut peer = Peer::new(PeerConfig::default(), seed);
        peer.handle_input(Instant::from_nanos(0), Input::Interfaces(&[inside.ip()]));
        Self { peer, inside, outside, socket: None, wake: None, events: Vec::new() }
    }

    fn is_connected(&self) -> bool {
        self.events.iter().any(|event| matches!(event, PeerEvent::Connected { .. }))
    }
}

#[derive(Clone, Debug)]
struct Datagram {
    source: SocketAddr,
    destination: SocketAddr,
    payload: Vec<u8>,
}

/// A server, a listener, a connector, what is on its way and what ever was.
struct World {
    now: Instant,
    server: Server,
    hosts: [Host; 2],
    under_way: BTreeMap<(Instant, usize), Datagram>,
    sent: Vec<Datagram>,
    count: usize,
    /// How many clients of 2015 have come, and what they were told.
    texts: u32,
    told: Vec<(u32, String)>,
}

const L: usize = 0;
const C: usize = 1;

impl World {
    fn new() -> Self {
        let (first, second) = (SocketId(0), SocketId(1));
        let sockets = vec![
            ServerSocket { socket: first, local: addr(SERVER), alternate: Some(second) },
            ServerSocket { socket: second, local: addr(SERVER_SECOND), alternate: Some(first) },
        ];
        Self {
            now: Instant::from_nanos(0),
            server: Server::new(ServerConfig::default(), SERVER_SEED, sockets),
            hosts: [Host::new(LISTENER_SEED, LISTENER), Host::new(CONNECTOR_SEED, CONNECTOR)],
            under_way: BTreeMap::new(),
            sent: Vec::new(),
            count: 0,
            texts: 0,
            told: Vec::new(),
        }
    }

    fn send(&mut self, source: SocketAddr, destination: SocketAddr, payload: Vec<u8>) {
        let datagram = Datagram { source, destination, payload };
        let by_server = [source, destination].iter().any(|end| end.ip() == addr(SERVER).ip());
        let delay = if by_server { DELAY } else { DIRECT_DELAY };
        self.under_way.insert((self.now + delay, self.count), datagram.clone());
        self.count += 1;
        self.sent.push(datagram);
    }

    fn drain(&mut self, index: usize) {
        loop {
            let host = &mut self.hosts[index];
            match host.peer.poll_output() {
                Output::Transmit(transmit) => {
                    let source = host.outside;
                    self.send(source, transmit.destination, transmit.payload);
                }
                Output::Udp(UdpRequest::Bind { socket, .. }) => {
                    host.socket = Some(socket);
                    let local = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), host.inside.port());
                    host.peer.handle_input(self.now, Input::UdpBound { socket, local });
                }
                Output::Event(event) => host.events.push(event),
                Output::Timeout(time, _) => {
                    host.wake = time;
                    return;
                }
                _ => {}
            }
        }
    }

    fn drain_server(&mut self) {
        loop {
            match self.server.poll_output() {
                Output::Transmit(transmit) => {
                    let source = addr([SERVER, SERVER_SECOND][transmit.socket.0 as usize]);
                    self.send(source, transmit.destination, transmit.payload);
                }
                Output::Tcp(TcpRequest::Send { stream, bytes }) => {
                    self.told.push((stream.0 - StreamId::FIRST_ACCEPTED, String::from_utf8(bytes).unwrap()));
                }
                _ => return,
            }
        }
    }

    /// A client of 2015 connects and says this; what clients of 2015 were told since.
    fn text(&mut self, remote: &str, said: &[u8]) -> Vec<(u32, String)> {
        let stream = StreamId(StreamId::FIRST_ACCEPTED + self.texts);
        self.texts += 1;
        let (port, local, remote) = (PortId(0), addr(SERVER), addr(remote));
        self.server.handle_input(self.now, Input::TcpAccepted { port, stream, local, remote });
        self.server.handle_stream_data(self.now, stream, said);
        let before = self.told.len();
        self.drain_server();
        self.told[before..].to_vec()
    }

    fn deliver(&mut self, datagram: &Datagram) -> Option<Disposition<holepunch::wire::stun::SessionId>> {
        let Datagram { source: remote, destination, payload } = datagram;
        if destination.ip() == addr(SERVER).ip() {
            let socket = SocketId(u32::from(*destination == addr(SERVER_SECOND)));
            self.server
                .handle_input(self.now, Input::Datagram { socket, local: *destination, remote: *remote, payload });
            self.drain_server();
            return None;
        }
        let index = self.hosts.iter().position(|host| host.outside == *destination)?;
        let host = &mut self.hosts[index];
        let input = Input::Datagram { socket: host.socket?, local: host.inside, remote: *remote, payload };
        let disposition = host.peer.handle_input(self.now, input);
        self.drain(index);
        Some(disposition)
    }

    /// Lets time pass until something is so; it must be within a minute.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while !done(self) {
            let wakes = self.hosts.iter().filter_map(|host| host.wake);
            let arrival = self.under_way.first_key_value().map(|((time, _), _)| *time);
            let next = wakes.chain(arrival).min().expect("somebody waits for something");
            assert!(next <= end, "it did not happen");
            self.now = next.max(self.now);
            while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let datagram = entry.remove();
                self.deliver(&datagram);
            }
            for index in [L, C] {
                if self.hosts[index].wake.is_some_and(|wake| wake <= self.now) {
                    self.hosts[index].peer.handle_input(self.now, Input::Timeout);
                    self.drain(index);
                }
            }
        }
    }

    /// Lets everything arrive that is under way, and what comes of it.
    fn settle(&mut self) {
        self.run_until(|world| world.under_way.is_empty());
    }

    fn listen(&mut self, secret: &str) -> holepunch::peer::ListenerId {
        let request = ListenRequest {
            transports: holepunch::wire::stun::Transports { udp: true, tcp: false },
            name: Some("bob".parse().unwrap()),
            servers: vec![addr(SERVER).into()],
            bind: vec![addr("0.0.0.0:0")],
            secret: Some(Secret::new(secret).unwrap()),
            prefer_port: None,
            legacy: false,
        };
        let listener = self.hosts[L].peer.listen(self.now, request).unwrap();
        self.drain(L);
        self.run_until(|world| world.hosts[L].events.iter().any(|event| matches!(event, PeerEvent::Registered { .. })));
        listener
    }

    fn connect(&mut self, target: &str, wait: Duration) -> holepunch::wire::stun::SessionId {
        let request = ConnectRequest {
            transport: holepunch::peer::Transport::Udp,
            target: target.parse().unwrap(),
            servers: vec![addr(SERVER).into()],
            bind: vec![addr("0.0.0.0:0")],
            secret: Some(Secret::new(SECRET).unwrap()),
            wait,
            timeout: Duration::from_secs(30),
            prefer_port: None,
            legacy: false,
        };
        let session = self.hosts[C].peer.connect(self.now, request).unwrap();
        self.drain(C);
        session
    }

    /// The first message of a kind that was sent from there, and of which more is so.
    fn first(&self, from: &str, class: Class, method: Method, is_it: impl Fn(&Message<'_>) -> bool) -> Vec<u8> {
        let found = self.sent.iter().find(|datagram| {
            datagram.source == addr(from)
                && Message::parse(&datagram.payload)
                    .is_ok_and(|message| (message.class(), message.method()) == (class, method) && is_it(&message))
        });
        found.unwrap_or_else(|| panic!("no {method:?} {class:?} came from {from}")).payload.clone()
    }

    /// What the server answers to a request from the connector's address.
    fn ask_server(&mut self, request: &[u8]) -> Vec<u8> {
        self.ask_server_from(CONNECTOR[1], request)
    }

    fn ask_server_from(&mut self, source: &str, request: &[u8]) -> Vec<u8> {
        let before = self.sent.len();
        let request = Datagram { source: addr(source), destination: addr(SERVER), payload: request.to_vec() };
        self.deliver(&request);
        self.sent[before].payload.clone()
    }
}

/// What a message is signed with.
#[derive(Clone, Copy)]
enum Key {
    /// Nothing; it has a fingerprint.
    None,
    /// Nothing, and it has no fingerprint either.
    Plain,
    Registration,
    /// The password that checks to the listener, and their answers, are signed with.
    ListenerPassword,
    ConnectorPassword,
    Control,
}

/// The keys of the session, derived as the document says.
struct Derived {
    /// As the document shows them.
    lines: Vec<(&'static str, String)>,
    listener_password: String,
    connector_password: String,
    control: [u8; 32],
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn base64(bytes: &[u8]) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".as_bytes();
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    bits.chunks(6).map(|six| char::from(alphabet[six.iter().fold(0, |n, bit| n << 1 | usize::from(*bit))])).collect()
}

fn derive(session: [u8; 16], connector_private: [u8; 32], listener_private: [u8; 32]) -> Derived {
    let (connector, listener) = (StaticSecret::from(connector_private), StaticSecret::from(listener_private));
    let public = [&connector, &listener].map(|private| PublicKey::from(private).to_bytes());
    let shared = connector.diffie_hellman(&PublicKey::from(public[1]));
    assert_eq!(shared.as_bytes(), listener.diffie_hellman(&PublicKey::from(public[0])).as_bytes());
    let expand = |material: &[u8], label: &str, length: usize| {
        let mut output = vec![0; length];
        let info = [label.as_bytes(), &public[0], &public[1]].concat();
        Hkdf::<Sha256>::new(Some(&session), material).expand(&info, &mut output).unwrap();
        output
    };
    let open = shared.as_bytes();
    let closed = [shared.as_bytes(), SECRET.as_bytes()].concat();
    let connector_password = base64(&expand(&closed, "holepunch 1 password connector", 24));
    let listener_password = base64(&expand(&closed, "holepunch 1 password listener", 24));
    let control: [u8; 32] = expand(&closed, "holepunch 1 control", 32).try_into().unwrap();
    let lines = vec![
        ("session id", hex(&session)),
        ("connector private key", hex(&connector_private)),
        ("connector public key", hex(&public[0])),
        ("listener private key", hex(&listener_private)),
        ("listener public key", hex(&public[1])),
        ("X25519 shared secret", hex(open)),
        ("application secret", format!("\"{SECRET}\"")),
        ("connector ufrag", base64(&expand(open, "holepunch 1 ufrag connector", 6))),
        ("listener ufrag", base64(&expand(open, "holepunch 1 ufrag listener", 6))),
        ("connector password", connector_password.clone()),
        ("listener password", listener_password.clone()),
        ("control key", hex(&control)),
    ];
    Derived { lines, listener_password, connector_password, control }
}

impl Derived {
    fn line(&self, name: &str) -> &str {
        &self.lines.iter().find(|(known, _)| *known == name).unwrap().1
    }
}

/// Everything that the document shows.
struct Examples {
    keys: Derived,
    registration_key: [u8; 32],
    messages: Vec<(&'static str, Key, Vec<u8>)>,
}

/// STUN for everybody, from fixed transaction ids.
fn make_bindings(world: &mut World, messages: &mut Vec<(&'static str, Key, Vec<u8>)>) {
    let id = TransactionId(*b"holepunching");
    let request = || Builder::new(Class::Request, Method::BINDING, id);
    let change = ChangeRequest { change_ip: false, change_port: true };
    let plain = request().finish();
    let probe = request().u32(AttributeType::CHANGE_REQUEST, change.to_bits()).padding_to(56, 0).finish();
    let unknown = request().u32(AttributeType::RESPONSE_PORT, 0x1388_0000).fingerprint().finish();
    let classic = [&[0, 1, 0, 0], &b"sixteen bytes id"[..]].concat();
    for (names, key, bytes) in [
        (["binding-request", "binding-success"], Key::Plain, plain),
        (["binding-probe", "binding-probe-success"], Key::Plain, probe),
        (["binding-unknown", "binding-420"], Key::None, unknown),
        (["classic-request", "classic-success"], Key::Plain, classic),
    ] {
        let answer = world.ask_server(&bytes);
        messages.extend([(names[0], key, bytes), (names[1], key, answer)]);
    }
    let indication = Builder::new(Class::Indication, Method::BINDING, id).fingerprint().finish();
    messages.push(("binding-indication", Key::None, indication));
}

/// A check that claims the listener's own role, made from the document alone, and its answer.
fn provoke_role_conflict(world: &mut World, keys: &Derived) -> (Vec<u8>, Vec<u8>) {
    let line = |name| keys.line(name);
    let check = Builder::new(Class::Request, Method::BINDING, TransactionId(*b"role convict"))
        .string(AttributeType::USERNAME, &format!("{}:{}", line("listener ufrag"), line("connector ufrag")))
        .u32(AttributeType::PRIORITY, 0x6EFF_FEFF)
        .u64(AttributeType::ICE_CONTROLLED, u64::MAX)
        .integrity(keys.listener_password.as_bytes())
        .fingerprint()
        .finish();
    world.send(addr(CONNECTOR[1]), addr(LISTENER[1]), check.clone());
    world.settle();
    let conflict =
        |message: &Message<'_>| message.error_code().map(|error| error.code) == Some(ErrorCode::ROLE_CONFLICT);
    let answer = world.first(LISTENER[1], Class::Error, Method::BINDING, conflict);
    (check, answer)
}

/// A connection from its registration to its end, and what went over the wire meanwhile.
fn make_examples() -> Examples {
    let mut messages = Vec::new();
    let mut world = World::new();
    make_bindings(&mut world, &mut messages);

    let listener = world.listen(SECRET);
    world.connect("alice", Duration::ZERO);
    world.settle();
    let not_found = |message: &Message<'_>| message.error_code().map(|error| error.code) == Some(404);
    messages.push(("connect-404", Key::None, world.first(SERVER, Class::Error, Method::CONNECT, not_found)));

    world.sent.retain(|datagram| addr(CONNECTOR[1]) != datagram.source && addr(CONNECTOR[1]) != datagram.destination);
    world.hosts[C] = Host::new(CONNECTOR_SEED, CONNECTOR);
    let session = world.connect("bob", Duration::ZERO);
    world.run_until(|world| world.hosts[C].events.iter().any(|event| matches!(event, PeerEvent::Introduced { .. })));
    let now = world.now;
    world.hosts[C].peer.handle_input(now, Input::Interfaces(&[[10, 0, 2, 2].into(), [172, 16, 0, 9].into()]));
    world.drain(C);
    world.run_until(|world| world.hosts.iter().all(Host::is_connected));
    world.settle();

    // What the seeds begin with, in the order that a peer draws it.
    let mut random = Random::new(LISTENER_SEED);
    let listener_private = random.bytes();
    let mut random = Random::new(CONNECTOR_SEED);
    let session_id = random.bytes();
    assert_eq!(session_id, session.0);
    let keys = derive(session_id, random.bytes(), listener_private);
    let (conflict, refused) = provoke_role_conflict(&mut world, &keys);

    // The listener ends its data, then the connector closes.
    let now = world.now;
    world.hosts[L].peer.end(now, session);
    world.drain(L);
    world.settle();
    let now = world.now;
    world.hosts[C].peer.close(now, session);
    world.drain(C);
    world.settle();
    for host in &world.hosts {
        assert!(host.events.iter().any(|event| matches!(event, PeerEvent::Closed { .. })));
    }
    let is_keepalive = |message: &Message<'_>| {
        message.registration_key().is_none() && message.nonce().is_none() && message.keepalive().is_none()
    };
    world.run_until(|world| {
        world.sent.iter().any(|datagram| {
            datagram.source == addr(LISTENER[1])
                && Message::parse(&datagram.payload)
                    .is_ok_and(|message| message.method() == Method::REGISTER && is_keepalive(&message))
        })
    });
    world.settle();
    let now = world.now;
    world.hosts[L].peer.close_listener(now, listener);
    world.drain(L);
    world.settle();

    make_legacy(&mut messages);

    let (l, c, s) = (LISTENER[1], CONNECTOR[1], SERVER);
    let any = |_: &Message<'_>| true;
    let has_nonce = |message: &Message<'_>| message.nonce().is_some();
    let has_no_nonce = |message: &Message<'_>| message.nonce().is_none();
    let nominates = |message: &Message<'_>| message.use_candidate();
    let does_not = |message: &Message<'_>| !message.use_candidate();
    let is_leave = |message: &Message<'_>| message.keepalive() == Some(0);
    let is_goodbye = |message: &Message<'_>| message.keepalive().is_none();
    let confirms = |message: &Message<'_>| message.keepalive() == Some(25);
    use Class::{Error, Indication, Request, Success};
    use Method as M;
    messages.extend([
        ("register-first", Key::Registration, world.first(l, Request, M::REGISTER, has_no_nonce)),
        ("register-challenge", Key::None, world.first(s, Error, M::REGISTER, has_nonce)),
        ("register-full", Key::Registration, world.first(l, Request, M::REGISTER, has_nonce)),
        ("register-success", Key::Registration, world.first(s, Success, M::REGISTER, confirms)),
        ("register-keepalive", Key::Registration, world.first(l, Request, M::REGISTER, is_keepalive)),
        ("register-leave", Key::Registration, world.first(l, Request, M::REGISTER, is_leave)),
        ("register-left", Key::None, world.first(s, Success, M::REGISTER, is_goodbye)),
        ("connect-first", Key::None, world.first(c, Request, M::CONNECT, has_no_nonce)),
        ("connect-challenge", Key::None, world.first(s, Error, M::CONNECT, has_nonce)),
        ("connect-full", Key::None, world.first(c, Request, M::CONNECT, has_nonce)),
        ("connect-success", Key::None, world.first(s, Success, M::CONNECT, any)),
        ("introduce", Key::Registration, world.first(s, Indication, M::INTRODUCE, any)),
        ("check-connector", Key::ListenerPassword, world.first(c, Request, M::BINDING, does_not)),
        ("check-listener", Key::ConnectorPassword, world.first(l, Request, M::BINDING, any)),
        ("check-nominating", Key::ListenerPassword, world.first(c, Request, M::BINDING, nominates)),
        ("check-success", Key::ListenerPassword, world.first(l, Success, M::BINDING, any)),
        ("check-conflict", Key::ListenerPassword, conflict),
        ("check-487", Key::ListenerPassword, refused),
        ("check-401", Key::None, refused_check()),
        ("trickle", Key::Control, world.first(c, Request, M::TRICKLE, any)),
        ("trickle-success", Key::Control, world.first(l, Success, M::TRICKLE, any)),
        ("end", Key::Control, world.first(l, Request, M::END, any)),
        ("end-success", Key::Control, world.first(c, Success, M::END, any)),
        ("end-closing", Key::Control, world.first(c, Request, M::END, any)),
    ]);
    messages.extend(make_bare());
    let first = messages.iter().find(|(name, ..)| *name == "register-first").unwrap();
    let registration_key = Message::parse(&first.2).unwrap().registration_key().unwrap();
    Examples { keys, registration_key, messages }
}

/// A current listener and a connector of 2015, a current connector and a listener of 2015. The key is the one that the
/// listener of the other examples draws, too.
fn make_legacy(messages: &mut Vec<(&'static str, Key, Vec<u8>)>) {
    let mut random = Random::new(LISTENER_SEED);
    let (listener_key, id, key) = (random.bytes(), RegistrationId(random.bytes()), random.bytes::<32>());
    let mut random = Random::new(CONNECTOR_SEED);
    let session = SessionId(random.bytes());
    let connector_key = random.bytes();
    let transports = Transports { udp: true, tcp: false };
    let register = |transaction, cookie: Option<&[u8]>| {
        let builder = Builder::new(Class::Request, Method::REGISTER, transaction).version().registration_id(id);
        let builder =
            cookie.into_iter().fold(builder, |builder, cookie| builder.attribute(AttributeType::NONCE, cookie));
        let builder =
            builder.registration_key(&key).public_key(&PublicKey::from(&StaticSecret::from(listener_key)).to_bytes());
        builder.transports(transports).legacy(0).integrity_sha256(&key).fingerprint().finish()
    };
    let connect = |transaction, cookie: Option<&[u8]>| {
        let builder = Builder::new(Class::Request, Method::CONNECT, transaction).version().session_id(session);
        let builder =
            cookie.into_iter().fold(builder, |builder, cookie| builder.attribute(AttributeType::NONCE, cookie));
        let builder = builder.public_key(&PublicKey::from(&StaticSecret::from(connector_key)).to_bytes());
        builder.transports(transports).target_address([198, 51, 100, 8].into()).legacy(0).fingerprint().finish()
    };

    let mut world = World::new();
    let requests = [TransactionId(*b"who are you?"), TransactionId(*b"it is me bob")];
    let challenge = world.ask_server_from(LISTENER[1], &register(requests[0], None));
    let cookie = Message::parse(&challenge).unwrap().nonce().unwrap().to_vec();
    let registered = register(requests[1], Some(&cookie));
    world.ask_server_from(LISTENER[1], &registered);
    assert_eq!(world.text("203.0.113.9:4000", b">198.51.100.7\n"), [(0, "*('198.51.100.7', 20001)".to_owned())]);
    let introduced = world.first(SERVER, Class::Indication, Method::INTRODUCE, |_| true);

    assert_eq!(world.text("198.51.100.8:4000", b"<"), []);
    let challenge = world.ask_server(&connect(requests[0], None));
    let cookie = Message::parse(&challenge).unwrap().nonce().unwrap().to_vec();
    let asked = connect(requests[1], Some(&cookie));
    let answer = world.ask_server(&asked);
    assert_eq!(world.told, [(0, "*('198.51.100.7', 20001)".to_owned()), (1, "*('203.0.113.5', 20001)".to_owned())]);
    messages.extend([
        ("register-legacy", Key::Registration, registered),
        ("introduce-legacy", Key::Registration, introduced),
        ("connect-legacy", Key::None, asked),
        ("connect-legacy-success", Key::None, answer),
    ]);
}

/// A connector takes its socket for itself.
fn make_bare() -> [(&'static str, Key, Vec<u8>); 2] {
    let mut world = World::new();
    world.listen(SECRET);
    let session = world.connect("bob", Duration::ZERO);
    world.run_until(|world| world.hosts.iter().all(Host::is_connected));
    world.settle();
    let now = world.now;
    world.hosts[C].peer.bare(now, session).unwrap();
    world.drain(C);
    world.run_until(|world| world.hosts[C].events.iter().any(|event| matches!(event, PeerEvent::Bare { .. })));
    assert!(world.hosts[L].events.iter().any(|event| matches!(event, PeerEvent::PeerBare { .. })));
    let any = |_: &Message<'_>| true;
    [
        ("bare", Key::Control, world.first(CONNECTOR[1], Class::Request, Method::BARE, any)),
        ("bare-success", Key::Control, world.first(LISTENER[1], Class::Success, Method::BARE, any)),
    ]
}

/// What a listener with another secret answers.
fn refused_check() -> Vec<u8> {
    let mut world = World::new();
    world.listen("another secret than that");
    world.connect("bob", Duration::ZERO);
    world.run_until(|world| world.hosts[C].events.iter().any(|event| matches!(event, PeerEvent::Failed { .. })));
    let refusal = |message: &Message<'_>| message.error_code().map(|error| error.code) == Some(401);
    world.first(LISTENER[1], Class::Error, Method::BINDING, refusal)
}

/// A message as the document shows it: the header, then one attribute a line.
fn render(bytes: &[u8]) -> String {
    let mut text = String::new();
    let line = |text: &mut String, hex: &str, comment: &str| writeln!(text, "{hex}  # {comment}").unwrap();
    let (head, mut rest) = bytes.split_at(HEADER_LENGTH);
    let header = format!("{} {} {} {}", hex(&head[..2]), hex(&head[2..4]), hex(&head[4..8]), hex(&head[8..]));
    let kind = Message::parse(bytes)
        .map_or("RFC 3489 Binding".into(), |message| format!("{:?} {:?}", message.method(), message.class()));
    line(&mut text, &header, &kind);
    while let [t0, t1, l0, l1, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let (attribute, after) = rest.split_at(4 + length.next_multiple_of(4));
        let name = format!("{:?}", AttributeType::new(u16::from_be_bytes([t0, t1]))).replace('_', "-");
        let value = if length > 0 { format!(" {}", hex(&attribute[4..])) } else { String::new() };
        line(&mut text, &format!("{} {}{value}", hex(&attribute[..2]), hex(&attribute[2..4])), &name);
        rest = after;
    }
    text
}

/// The fenced blocks of the document whose first word is this: what follows it, and the lines.
fn blocks<'a>(document: &'a str, kind: &str) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else { continue };
        let content: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        let (word, name) = fence.split_once(' ').unwrap_or((fence, ""));
        if word == kind {
            blocks.push((name, content));
        }
    }
    blocks
}

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/PROTOCOL.md")).unwrap()
}

/// The document with another block in the place of the one that begins so.
fn replaced(document: &str, begin: &str, block: &str) -> String {
    let Some((before, rest)) = document.split_once(begin) else { return document.to_owned() };
    let (_, after) = rest.split_once("```").expect("the block has an end");
    format!("{before}{block}{after}")
}

/// Writes the document where that was asked for; the test fails once more, and passes from then on.
fn update(old: &str, new: &str) {
    if old != new && std::env::var_os("UPDATE_PROTOCOL_EXAMPLES").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/PROTOCOL.md"), new).unwrap();
    }
}

fn without_comments(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| line.split('#').next()).flat_map(str::chars).filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn the_document_shows_what_goes_over_the_wire() {
    let document = document();
    let blocks = blocks(&document, "hex");
    let shown: BTreeMap<_, _> = blocks.iter().map(|(name, lines)| (*name, without_comments(lines))).collect();
    assert_eq!(shown.len(), blocks.len(), "a name stands twice");
    let examples = make_examples();
    let made: BTreeSet<_> = examples.messages.iter().map(|(name, ..)| *name).collect();
    let mut wrong = String::new();
    let mut updated = document.clone();
    for (name, _, bytes) in &examples.messages {
        if shown.get(name) != Some(&hex(bytes)) {
            let block = format!("```hex {name}\n{}```", render(bytes));
            updated = replaced(&updated, &format!("```hex {name}\n"), &block);
            writeln!(wrong, "{block}").unwrap();
        }
    }
    update(&document, &updated);
    assert!(wrong.is_empty(), "PROTOCOL.md should show:\n{wrong}");
    let unknown: Vec<_> = shown.keys().filter(|name| !made.contains(*name)).collect();
    assert!(unknown.is_empty(), "nothing makes these blocks: {unknown:?}");
}

#[test]
fn the_document_shows_the_keys_of_the_session() {
    let document = document();
    let shown: BTreeMap<_, _> = blocks(&document, "keys")
        .iter()
        .flat_map(|(_, lines)| lines)
        .map(|line| line.split_once('=').map(|(name, value)| (name.trim(), value.trim().to_owned())).unwrap())
        .collect();
    let examples = make_examples();
    let mut lines = examples.keys.lines;
    lines.push(("registration key", hex(&examples.registration_key)));
    let text = lines.iter().fold(String::new(), |text, (name, value)| text + &format!("{name:<21} = {value}\n"));
    let expected: BTreeMap<_, _> = lines.into_iter().collect();
    update(&document, &replaced(&document, "```keys\n", &format!("```keys\n{text}```")));
    assert_eq!(shown, expected, "PROTOCOL.md should show:\n{text}");
}

#[test]
fn every_message_is_authentic_under_the_key_that_the_document_names() {
    let Examples { keys, registration_key, messages } = make_examples();
    for (name, key, bytes) in &messages {
        let Ok(message) = Message::parse(bytes) else {
            assert!(name.starts_with("classic"), "{name}");
            continue;
        };
        let sha1 = |password: &String| message.verify_integrity(password.as_bytes());
        let expected = match key {
            Key::Plain | Key::None => {
                let both = (message.verify_integrity(b""), message.verify_integrity_sha256(b""));
                assert_eq!(both, (Integrity::Absent, Integrity::Absent), "{name}");
                Integrity::Valid
            }
            Key::Registration => message.verify_integrity_sha256(&registration_key),
            Key::ListenerPassword => sha1(&keys.listener_password),
            Key::ConnectorPassword => sha1(&keys.connector_password),
            Key::Control => message.verify_integrity_sha256(&keys.control),
        };
        assert_eq!(expected, Integrity::Valid, "{name}");
        let fingerprint = if matches!(key, Key::Plain) { Fingerprint::Absent } else { Fingerprint::Valid };
        assert_eq!(message.verify_fingerprint(), fingerprint, "{name}");
        let unnamed = message.attributes().find(|(kind, _)| format!("{kind:?}").starts_with("AttributeType"));
        assert_eq!(unnamed, None, "{name} has an attribute without a name");
    }
}

#[test]
fn public_keys_and_usernames_on_the_wire_are_the_derived_ones() {
    let Examples { keys, messages, .. } = make_examples();
    let line = |name| keys.line(name);
    let of = |wanted: &str| Message::parse(&messages.iter().find(|(name, ..)| *name == wanted).unwrap().2).unwrap();
    for name in ["connect-first", "connect-full", "introduce"] {
        assert_eq!(of(name).public_key().map(|key| hex(&key)).as_deref(), Some(line("connector public key")), "{name}");
        assert_eq!(of(name).session_id().map(|id| hex(&id.0)).as_deref(), Some(line("session id")), "{name}");
    }
    for name in ["register-first", "register-full", "connect-success"] {
        assert_eq!(of(name).public_key().map(|key| hex(&key)).as_deref(), Some(line("listener public key")), "{name}");
    }
    let (connector, listener) = (line("connector ufrag"), line("listener ufrag"));
    assert_eq!(of("check-connector").username(), Some(format!("{listener}:{connector}").as_str()));
    assert_eq!(of("check-listener").username(), Some(format!("{connector}:{listener}").as_str()));
}

#[test]
fn an_indication_is_no_data() {
    let mut world = World::new();
    world.listen(SECRET);
    world.connect("bob", Duration::ZERO);
    world.run_until(|world| world.hosts.iter().all(Host::is_connected));
    world.settle();
    let examples = make_examples().messages;
    let indication = &examples.iter().find(|(name, ..)| *name == "binding-indication").unwrap().2;
    let mut from_connector = |payload: &[u8]| {
        let (source, destination) = (addr(CONNECTOR[1]), addr(LISTENER[1]));
        world.deliver(&Datagram { source, destination, payload: payload.to_vec() })
    };
    assert_eq!(from_connector(indication), Some(Disposition::Consumed));
    let binding = &examples.iter().find(|(name, ..)| *name == "binding-request").unwrap().2;
    assert!(matches!(from_connector(binding), Some(Disposition::Data(_))), "no fingerprint: data");
    assert!(matches!(from_connector(b"hello"), Some(Disposition::Data(_))));
}
