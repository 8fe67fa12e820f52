//! The rendezvous server over TCP with real sockets, on loopback: clients of 2015 as raw sockets, STUN in a stream, and
//! all that can go wrong with a connection; clients of 2015 and current ones are mixed in a file of their own. What is
//! said to whom, and when, is tested without sockets beside the server.

#![cfg(feature = "server")]

mod mixed;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use holepunch::{
    ErrorKind, Result,
    machine::Random,
    server::{Handle, Options, RendezvousServer, raise_descriptor_limit},
    wire::stun::{Builder, Class, Message, Method, TransactionId},
};
use socket2::{Domain, Socket, Type};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server on 127.0.0.1 (or elsewhere), stopped when the test is over.
struct Running {
    address: SocketAddr,
    handle: Handle,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Running {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        options.host = Some("127.0.0.1".into());
        options.port = 0;
        options.config.stun_rate = 0;
        change(&mut options);
        let server = RendezvousServer::bind(options).unwrap();
        assert_eq!(server.tcp_addresses(), server.local_addresses(), "one port for both");
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], server.local_addresses()[0].port())),
            handle: server.handle(),
            thread: Some(std::thread::spawn(move || server.run())),
        }
    }

    fn stop(&mut self) -> Result<()> {
        self.handle.stop();
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }

    /// A connection from this address.
    fn connect(&self, from: impl Into<Ipv4Addr>) -> Client {
        connect(self.address, from.into())
    }

    /// A listener of 2015 that the server knows of by now: it has answered what was asked after that.
    fn listener(&self, from: impl Into<Ipv4Addr>) -> Client {
        let mut listener = self.connect(from);
        listener.say(b"<>0.0.0.0\n");
        assert_eq!(listener.piece(), b"?");
        listener
    }

    /// Waits until something is so.
    fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.handle.stats());
            // Every answer is a round of the server's, after which it tells what it has done.
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&binding(1), self.address).unwrap();
            socket.recv(&mut [0; 100]).unwrap();
        }
    }

    /// The server introduces two who come now: it lives.
    fn is_alive(&self) {
        let mut listener = self.listener([127, 0, 9, 99]);
        let mut connector = self.connect([127, 0, 9, 98]);
        connector.say(b">127.0.9.99");
        assert_eq!(connector.piece(), b"*('127.0.9.99', 20001)");
        assert_eq!(listener.piece(), b"*('127.0.9.98', 20001)");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let result = self.stop();
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

fn connect(server: SocketAddr, from: Ipv4Addr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client(stream)
}

struct Client(TcpStream);

impl Client {
    fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// What one `recv` brings; nothing at the end.
    fn piece(&mut self) -> Vec<u8> {
        let mut buffer = [0; 4096];
        let length = self.0.read(&mut buffer).expect("an answer or the end");
        buffer[..length].to_vec()
    }

    fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        self.0.read_exact(&mut buffer).unwrap();
        buffer
    }

    /// All that comes until the end, which must be no RST.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("FIN, no RST");
        rest
    }

    /// Ends the connection with a RST.
    fn reset(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn binding(id: u8) -> Vec<u8> {
    Builder::new(Class::Request, Method::BINDING, TransactionId([id; 12])).fingerprint().finish()
}

#[test]
fn two_of_2015_meet() {
    let server = Running::start();
    let (mut listener, mut connector) = (server.listener([127, 0, 0, 2]), server.connect([127, 0, 0, 3]));
    connector.say(b">127.0.0.2");
    assert_eq!(connector.piece(), b"*('127.0.0.2', 20001)", "one segment");
    assert_eq!(listener.piece(), b"*('127.0.0.3', 20001)", "one segment");
    // Both leave with FIN, and the server too: nothing before or after.
    for client in [&mut connector, &mut listener] {
        client.0.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest(), b"");
    }
    server.until(|server| server.handle.stats().connections == 0);
}

#[test]
fn it_takes_over_a_listener_and_learns_of_another_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Running::with(|options| options.listener = Some(listener));
    assert_eq!(server.address, address);
    for port in [1234, 4321] {
        server.handle.set_punch_port(port);
        let (mut listener, mut connector) = (server.listener([127, 0, 0, 2]), server.connect([127, 0, 0, 3]));
        connector.say(b">127.0.0.2");
        assert_eq!(connector.piece(), format!("*('127.0.0.2', {port})").into_bytes());
        assert_eq!(listener.piece(), format!("*('127.0.0.3', {port})").into_bytes());
    }
    assert!(UdpSocket::bind(address).is_err(), "it has UDP, too");
}

#[test]
fn not_found_leaves_the_connection_usable() {
    let server = Running::with(|options| options.punch_port = 4321);
    let mut connector = server.connect([127, 0, 0, 3]);
    for host in ["127.0.0.2", "0.0.0.0", "127.0.0.1", "localhost", "::1"] {
        let asked = Instant::now();
        connector.say(format!(">{host}").as_bytes());
        assert_eq!(connector.piece(), b"?", "{host}");
        assert!(asked.elapsed() >= Duration::from_millis(100));
    }
    let mut listener = server.listener([127, 0, 0, 2]);
    connector.say(b">127.0.0.2");
    assert_eq!(connector.piece(), b"*('127.0.0.2', 4321)");
    assert_eq!(listener.piece(), b"*('127.0.0.3', 4321)");
}

#[test]
fn requests_arrive_in_any_segments() {
    let server = Running::start();
    let listeners = [2, 3].map(|last| server.listener([127, 0, 7, last]));
    let mut connector = server.connect([127, 0, 0, 3]);
    connector.say(b">127.0.7.9>127.0.7.2>127.0.7.3>127.0.7.8<");
    assert_eq!(connector.exactly(44), b"?*('127.0.7.2', 20001)*('127.0.7.3', 20001)?");
    for mut listener in listeners {
        assert_eq!(listener.piece(), b"*('127.0.0.3', 20001)");
    }
    // It listens itself now. Its finder sends a byte at a time, each of them a segment.
    let mut finder = server.connect([127, 0, 0, 4]);
    for byte in b">127.0.0.3" {
        finder.say(&[*byte]);
    }
    assert_eq!(finder.piece(), b"*('127.0.0.3', 20001)");
    assert_eq!(connector.piece(), b"*('127.0.0.4', 20001)");
}

#[test]
fn the_oldest_comes_first_and_each_once() {
    let server = Running::start();
    let mut listeners: Vec<_> = (0..3).map(|_| server.listener([127, 0, 0, 2])).collect();
    for (number, listener) in (10..).zip(&mut listeners) {
        let mut connector = server.connect([127, 0, 0, number]);
        connector.say(b">127.0.0.2");
        assert_eq!(connector.piece(), b"*('127.0.0.2', 20001)");
        assert_eq!(listener.piece(), format!("*('127.0.0.{number}', 20001)").as_bytes());
    }
    let mut late = server.connect([127, 0, 0, 20]);
    late.say(b">127.0.0.2");
    assert_eq!(late.piece(), b"?");
}

#[test]
fn stun_and_the_greeting_share_the_port() {
    let server = Running::with(|options| options.host = None);
    let mut old = server.listener([127, 0, 0, 2]);
    let asking = UdpSocket::bind("127.0.0.1:0").unwrap();
    asking.set_read_timeout(Some(PATIENCE)).unwrap();
    asking.send_to(&binding(9), server.address).unwrap();
    let mut buffer = [0; 200];
    let length = asking.recv(&mut buffer).unwrap();
    let answer = Message::parse(&buffer[..length]).unwrap();
    assert_eq!(answer.xor_mapped_address(), Some(asking.local_addr().unwrap()));

    for greets in [false, true] {
        let mut client = server.connect([127, 0, 0, 5]);
        if greets {
            client.say(b"HOLE");
            client.say(b"PUNCH/1\n");
            assert_eq!(client.piece(), b"HOLEPUNCH/1\n");
        }
        let requests = [binding(1), binding(2)].concat();
        client.say(&requests[..30]);
        client.say(&requests[30..]);
        for id in [1, 2] {
            let bytes = client.exactly(40);
            let answer = Message::parse(&bytes).unwrap();
            assert_eq!((answer.class(), answer.transaction_id()), (Class::Success, TransactionId([id; 12])));
            assert_eq!(answer.xor_mapped_address(), Some(client.0.local_addr().unwrap()));
        }
    }
    if let Ok(mut client) = TcpStream::connect(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, server.address.port())))
    {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(&binding(3)).unwrap();
        let mut bytes = [0; 52];
        client.read_exact(&mut bytes).unwrap();
        let mapped = Message::parse(&bytes).unwrap().xor_mapped_address();
        assert_eq!(mapped, Some(client.local_addr().unwrap()), "an IPv6 client");
    } else {
        eprintln!("SKIPPED: no IPv6 on this machine");
    }
    let mut connector = server.connect([127, 0, 0, 3]);
    connector.say(b">127.0.0.2");
    assert_eq!((connector.piece(), old.piece()), (b"*('127.0.0.2', 20001)".into(), b"*('127.0.0.3', 20001)".into()));
}

#[test]
fn without_the_protocol_of_2015_stun_remains() {
    let server = Running::with(|options| options.config.legacy = false);
    for said in [&b"<"[..], b">127.0.0.2", b"*("] {
        let mut client = server.connect([127, 0, 0, 3]);
        client.say(said);
        assert_eq!(client.rest(), b"", "closed with FIN");
    }
    let mut client = server.connect([127, 0, 0, 3]);
    client.say(&binding(1));
    assert_eq!(client.exactly(40)[..2], [1, 1]);
}

#[test]
fn what_killed_the_server_of_2015_does_not_kill_this_one() {
    let server = Running::start();
    for said in [&b"\xff\xfe"[..], b"*(", b"*(__import__('os').abort())", b">0.0.0.0", b">\xc3", b">*("] {
        let mut client = server.connect([127, 0, 0, 3]);
        client.say(said);
        assert_eq!(client.piece(), b"?", "{said:?}");
        client.reset();
    }
    server.is_alive();
}

#[test]
fn a_megabyte_and_a_million_requests() {
    let server = Running::start();
    let mut client = server.connect([127, 0, 0, 3]);
    client.say(&[&b">"[..], &vec![b'1'; 1 << 20]].concat());
    assert_eq!(client.piece(), b"?");
    let mut reading = Client(client.0.try_clone().unwrap());
    let counting = std::thread::spawn(move || reading.rest());
    client.say(&b">127.0.0.9".repeat(1_000_000));
    client.0.shutdown(Shutdown::Write).unwrap();
    let answers = counting.join().unwrap();
    assert_eq!(answers.len(), 1_000_000);
    assert!(answers.iter().all(|byte| *byte == b'?'));
    server.is_alive();
}

/// One who asks and never reads costs a queue, then nothing.
#[test]
fn whoever_does_not_read_is_dropped() {
    let server = Running::start();
    let client = server.connect([127, 0, 0, 3]);
    socket2::SockRef::from(&client.0).set_recv_buffer_size(4096).unwrap();
    let mut sending = Client(client.0.try_clone().unwrap());
    // `>` alone is a request, so this asks for more answers than all the buffers hold.
    let piece = vec![b'>'; 1 << 20];
    let failed = (0..200).any(|_| sending.0.write_all(&piece).is_err());
    assert!(failed, "it was served without reading");
    server.until(|server| server.handle.stats().connections == 0);
    server.is_alive();
}

/// A RST after every number of bytes, of every kind of client.
#[test]
fn a_reset_at_any_moment() {
    let server = Running::start();
    let stun = binding(1);
    for said in [&b"<"[..], b">127.0.0.2", b"HOLEPUNCH/1\n", &stun, b"*('x"] {
        for length in 0..=said.len() {
            let mut client = server.connect([127, 0, 0, 3]);
            client.say(&said[..length]);
            client.reset();
        }
    }
    // A listener that resets in the moment in which it is introduced, and a connector that does.
    for _ in 0..50 {
        let listener = server.listener([127, 0, 0, 77]);
        let mut connector = server.connect([127, 0, 0, 3]);
        connector.say(b">127.0.0.77");
        listener.reset();
        connector.reset();
        server.until(|server| server.handle.stats().connections == 0);
    }
    assert_eq!(server.handle.stats().legacy_listeners, 0);
    server.is_alive();
}

#[test]
fn garbage_is_survived() {
    const SEED: [u8; 32] = [0x2f; 32];
    let server = Running::start();
    let mut random = Random::new(SEED);
    for _ in 0..300 {
        let mut client = server.connect([127, 0, 0, 3]);
        for _ in 0..random.u64() % 4 {
            let mut bytes = random.bytes::<512>();
            // Half of it looks like one of the protocols.
            match random.u64() % 8 {
                0 => bytes[0] = b'<',
                1 => bytes[0] = b'>',
                2 => bytes[0] = b'H',
                3 => bytes[..8].copy_from_slice(&binding(0)[..8]),
                _ => {}
            }
            let length = random.u64() as usize % bytes.len();
            // The server may have closed it already.
            if client.0.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        if random.u64().is_multiple_of(2) {
            client.reset();
        }
    }
    server.is_alive();
    server.until(|server| server.handle.stats().connections <= 2);
}

/// All listen, some are introduced, and all leave, while others are served.
#[test]
fn eleven_hundred_clients() {
    let count = 1_100;
    let needed = 2 * count as u64 + 200;
    let limit = raise_descriptor_limit().unwrap();
    if limit < needed {
        eprintln!("SKIPPED: {count} clients and their server need {needed} descriptors; {limit} are allowed");
        return;
    }
    let server = Running::start();
    let address = |number: usize| Ipv4Addr::from(0x7f01_0000 + number as u32 / 4);
    let mut listeners: Vec<_> = (0..count)
        .map(|number| {
            let mut client = server.connect(address(number));
            client.say(b"<");
            client
        })
        .collect();
    server.until(|server| server.handle.stats().legacy_listeners == count);
    for (number, listener) in listeners.iter_mut().enumerate().step_by(100) {
        let mut connector = server.connect([127, 0, 0, 3]);
        connector.say(format!(">{}\n", address(number)).as_bytes());
        assert_eq!(connector.piece(), format!("*('{}', 20001)", address(number)).as_bytes());
        assert_eq!(listener.piece(), b"*('127.0.0.3', 20001)");
    }
    server.is_alive();
    for (number, listener) in listeners.into_iter().enumerate() {
        if number % 2 == 0 { listener.reset() } else { drop(listener) }
    }
    // Two connections that were served last may be left, of the listeners none.
    server.until(|server| server.handle.stats().connections <= 2 && server.handle.stats().legacy_listeners == 0);
}

/// A server in a process of its own, so that it and its clients each have a process's descriptors.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    /// Starts it, with so many descriptors if it matters.
    fn start(path: &str, descriptors: Option<u32>) -> Self {
        let limit = descriptors.map_or("exec \"$@\"".to_owned(), |limit| format!("ulimit -n {limit}; exec \"$@\""));
        let mut child = Command::new("sh")
            .args(["-c", &limit, "sh", path, "--json", "server", "--host", "127.0.0.1", "--port", "0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let (_, rest) = line.split_once(r#""tcp":[""#).unwrap_or_else(|| panic!("{line}"));
        let address = rest.split('"').next().unwrap().parse().unwrap();
        Self { child, address }
    }

    /// Ends it with SIGTERM, and returns its status.
    fn end(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("sh").args(["-c", "kill -s TERM \"$1\"", "sh", &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ten thousand listen, are introduced one after the other or stay, and see the end of the server as an end of stream.
#[test]
fn ten_thousand_clients_and_sigterm() {
    const CLIENTS: u32 = 10_000;
    let Some(path) = option_env!("CARGO_BIN_EXE_holepunch") else {
        eprintln!("SKIPPED: the program is not built; give --features cli");
        return;
    };
    let limit = raise_descriptor_limit().unwrap();
    // The other tests of this process have theirs.
    if limit < u64::from(CLIENTS) + 5_000 {
        eprintln!("SKIPPED: {CLIENTS} clients need more descriptors than the {limit} allowed");
        return;
    }
    let mut server = Program::start(path, None);
    let address = |number: u32| Ipv4Addr::from(0x7f02_0000 + number);
    let mut listeners: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let mut client = connect(server.address, address(number));
            client.say(b"<");
            client
        })
        .collect();
    let mut connector = connect(server.address, [127, 0, 0, 3].into());
    for (number, listener) in (0..).zip(&mut listeners).step_by(20) {
        let expected = format!("*('{}', 20001)", address(number));
        let asked = Instant::now();
        // The server may still be busy with accepting; then the first answers are `?`.
        while asked.elapsed() < PATIENCE {
            connector.say(format!(">{}\n", address(number)).as_bytes());
            let answer = connector.piece();
            if answer != b"?" {
                assert_eq!(answer, expected.as_bytes());
                break;
            }
        }
        assert_eq!(listener.piece(), b"*('127.0.0.3', 20001)");
    }
    assert_eq!(server.end(), Some(0));
    for listener in &mut listeners {
        assert_eq!(listener.rest(), b"", "FIN, no RST");
    }
}

/// More clients than descriptors wait in the backlog until others leave.
#[test]
fn a_server_without_descriptors_serves_whom_it_can() {
    let Some(path) = option_env!("CARGO_BIN_EXE_holepunch") else {
        eprintln!("SKIPPED: the program is not built; give --features cli");
        return;
    };
    let mut server = Program::start(path, Some(40));
    let greet = |client: &mut Client| {
        client.say(b"HOLEPUNCH/1\n");
        assert_eq!(client.piece(), b"HOLEPUNCH/1\n");
    };
    let mut clients: Vec<_> = (0..100).map(|_| connect(server.address, [127, 0, 0, 3].into())).collect();
    greet(&mut clients[0]);
    let mut late = clients.split_off(90);
    drop(clients);
    late.iter_mut().for_each(greet);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_server_stops_while_clients_are_connected_and_its_port_is_free_at_once() {
    let mut server = Running::start();
    let mut listener = server.listener([127, 0, 0, 2]);
    let mut connector = server.connect([127, 0, 0, 3]);
    connector.say(b">127.0.0.9");
    let mut silent = server.connect([127, 0, 0, 4]);
    server.until(|server| server.handle.stats().connections == 3);
    assert_eq!(server.stop(), Ok(()));
    assert_eq!(listener.rest(), b"", "FIN, no RST");
    assert_eq!(silent.rest(), b"");
    assert!(connector.rest().len() <= 1, "`?` or nothing");
    let port = server.address.port();
    let again = Running::with(|options| options.port = port);
    again.is_alive();
}

#[test]
fn a_port_that_is_taken_is_said_to_be_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut options = Options::default();
    (options.host, options.port) = (Some("127.0.0.1".into()), address.port());
    let error = RendezvousServer::bind(options).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddressInUse);
    assert!(error.message().contains(&format!("TCP {address}")), "{error}");
    let server = Running::start();
    assert!(TcpListener::bind(server.address).is_err(), "nobody shares its clients");
}
