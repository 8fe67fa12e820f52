//! The rendezvous server with its real sockets, on loopback: what any STUN client sees, garbage, and its life and death.

#![cfg(feature = "server")]

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    thread::JoinHandle,
    time::Duration,
};

use holepunch::{
    ErrorKind, Result,
    machine::Random,
    server::{Handle, Options, RendezvousServer},
    wire::stun::{
        AttributeType, Builder, ChangeRequest, Class, Fingerprint, Message, Method, TransactionId, decode_address,
    },
};

/// A running server, stopped when the test is over.
struct Running {
    main: Vec<SocketAddr>,
    alternate: Vec<SocketAddr>,
    handle: Handle,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Running {
    fn start(host: Option<&str>) -> Self {
        let mut options = Options::default();
        options.host = host.map(str::to_owned);
        options.port = 0;
        options.config.stun_rate = 0;
        let server = RendezvousServer::bind(options).unwrap();
        Self {
            main: server.local_addresses().to_vec(),
            alternate: server.alternate_addresses().to_vec(),
            handle: server.handle(),
            thread: Some(std::thread::spawn(move || server.run())),
        }
    }

    fn stop(&mut self) -> Result<()> {
        self.handle.stop();
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
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

/// A socket whose reads give up after 5 s.
fn client(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
    (buffer[..length].to_vec(), from)
}

fn binding(id: u8) -> Vec<u8> {
    Builder::new(Class::Request, Method::BINDING, TransactionId([id; 12])).fingerprint().finish()
}

/// Asks for the mapped address, and checks the answer and where it comes from.
fn ask(socket: &UdpSocket, server: SocketAddr, id: u8) {
    socket.send_to(&binding(id), server).unwrap();
    let (bytes, from) = receive(socket);
    assert_eq!(from, server);
    let answer = Message::parse(&bytes).unwrap();
    assert_eq!((answer.class(), answer.method()), (Class::Success, Method::BINDING));
    assert_eq!(answer.transaction_id(), TransactionId([id; 12]));
    assert_eq!(answer.xor_mapped_address(), Some(socket.local_addr().unwrap()));
    assert_ne!(answer.verify_fingerprint(), Fingerprint::Invalid);
}

#[test]
fn binding_is_answered_over_ipv4_and_ipv6_from_the_address_asked() {
    let server = Running::start(None);
    let mut asked = 0;
    for main in &server.main {
        let (own, targets) = match main.ip() {
            IpAddr::V4(_) => ("127.0.0.1", &["127.0.0.1", "127.0.0.2", "127.3.2.1"][..]),
            IpAddr::V6(_) => ("::1", &["::1"][..]),
        };
        let socket = client(own);
        for (id, target) in targets.iter().enumerate() {
            ask(&socket, SocketAddr::new(target.parse().unwrap(), main.port()), id as u8);
            asked += 1;
        }
    }
    drop(server);
    assert!(asked >= 3, "{asked}");
}

#[test]
fn classic_requests_are_answered_with_mapped_address() {
    for host in ["127.0.0.1", "::1"] {
        let server = Running::start(Some(host));
        let socket = client(host);
        let mut request = vec![0, 1, 0, 0];
        request.extend_from_slice(&[0x5a; 16]);
        socket.send_to(&request, server.main[0]).unwrap();
        let (bytes, from) = receive(&socket);
        assert_eq!(from, server.main[0]);
        assert_eq!((&bytes[..2], &bytes[4..20]), (&[1, 1][..], &[0x5a; 16][..]));
        let address = AttributeType::MAPPED_ADDRESS.value().to_be_bytes();
        assert_eq!(bytes[20..22], address, "MAPPED-ADDRESS comes first");
        assert_eq!(decode_address(&bytes[24..]), Some(socket.local_addr().unwrap()));
    }
}

#[test]
fn change_port_is_answered_from_the_alternate_port_and_change_address_not_at_all() {
    for host in ["127.0.0.1", "::1"] {
        let server = Running::start(Some(host));
        let socket = client(host);
        let change = |id: u8, port: bool, ip: bool| {
            let change = ChangeRequest { change_ip: ip, change_port: port };
            Builder::new(Class::Request, Method::BINDING, TransactionId([id; 12]))
                .u32(AttributeType::CHANGE_REQUEST, change.to_bits())
                .finish()
        };
        // The server has one address; these must stay unanswered, and the next answer belongs to another request.
        socket.send_to(&change(1, false, true), server.main[0]).unwrap();
        socket.send_to(&change(2, true, true), server.main[0]).unwrap();
        socket.send_to(&change(3, true, false), server.main[0]).unwrap();
        let (bytes, from) = receive(&socket);
        assert_eq!(from, server.alternate[0]);
        let answer = Message::parse(&bytes).unwrap();
        assert_eq!(answer.transaction_id(), TransactionId([3; 12]));
        assert_eq!(answer.xor_mapped_address(), Some(socket.local_addr().unwrap()));
        // The alternate port is a server as well, and its alternate is the main one.
        ask(&socket, server.alternate[0], 4);
        socket.send_to(&change(5, true, false), server.alternate[0]).unwrap();
        assert_eq!(receive(&socket).1, server.main[0]);
    }
}

/// Random datagrams, and real messages with some bytes changed: nothing ends the server, and nothing makes it send more
/// bytes than it got.
#[test]
fn garbage_is_survived() {
    const SEED: [u8; 32] = [0x3b; 32];
    let mut server = Running::start(Some("127.0.0.1"));
    let mut random = Random::new(SEED);
    let socket = client("127.0.0.1");
    let templates: Vec<Vec<u8>> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/stun_message"))
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(!templates.is_empty());
    for round in 0..4_000_usize {
        let mut datagram = templates[round % templates.len()].clone();
        match round % 4 {
            0 => {
                datagram.resize((random.u64() % 2049) as usize, 0);
                datagram.iter_mut().for_each(|byte| *byte = random.u64() as u8);
            }
            1 => datagram.truncate((random.u64() as usize) % (datagram.len() + 1)),
            2 => datagram.extend_from_slice(&random.bytes::<7>()),
            _ => {
                for _ in 0..=random.u64() % 4 {
                    let position = (random.u64() as usize) % datagram.len();
                    datagram[position] = random.u64() as u8;
                }
            }
        }
        // What is longer is dropped unseen.
        datagram.truncate(2048);
        socket.send_to(&datagram, server.main[0]).unwrap();
        if round % 100 == 99 {
            // A request now and then, so that the datagrams do not outrun the server.
            let asking = client("127.0.0.1");
            ask(&asking, server.main[0], round as u8);
        }
    }
    socket.send_to(&[0; 60_000], server.main[0]).unwrap();
    socket.send_to(&[], server.main[0]).unwrap();
    let asking = client("127.0.0.1");
    ask(&asking, server.main[0], 0);
    assert_eq!(server.stop(), Ok(()), "seed {SEED:?}");
    let stats = server.handle.stats();
    assert!(stats.received >= 4_000 && stats.malformed > 1_000, "seed {SEED:?}: {stats:?}");
}

#[test]
fn a_second_server_on_the_port_fails_and_names_the_address() {
    let server = Running::start(Some("127.0.0.1"));
    let mut options = Options::default();
    options.host = Some("127.0.0.1".into());
    options.port = server.main[0].port();
    let error = RendezvousServer::bind(options).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddressInUse);
    assert!(error.message().contains(&server.main[0].to_string()), "{error}");
}

#[test]
fn a_server_is_stopped_from_another_thread_before_or_while_it_runs() {
    let mut server = Running::start(Some("127.0.0.1"));
    ask(&client("127.0.0.1"), server.main[0], 1);
    assert_eq!(server.stop(), Ok(()));
    assert!(server.handle.stats().bindings >= 1);
    let freed = server.main[0];
    UdpSocket::bind(freed).expect("the port is free again");
    server.handle.stop(); // harmless

    let mut options = Options::default();
    (options.host, options.port) = (Some("127.0.0.1".into()), 0);
    let server = RendezvousServer::bind(options).unwrap();
    server.handle().stop();
    assert_eq!(server.run(), Ok(()));
}

/// One client that floods a socket does not keep the others waiting.
#[test]
fn a_flooded_socket_leaves_room_for_the_other() {
    let server = Running::start(Some("127.0.0.1"));
    let target = server.main[0];
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flood = client("127.0.0.1");
            for _ in 0..200_000 {
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let _ = flood.send_to(&[0xff; 40], target);
            }
        });
        let socket = client("127.0.0.1");
        for id in 0..50 {
            ask(&socket, server.alternate[0], id);
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Runs a program of another's, or says why not.
fn foreign(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            Some(text)
        }
        Err(error) => {
            eprintln!("SKIPPED: {program} cannot be run ({error}); install stun-client and coturn");
            None
        }
    }
}

/// Debian's `stun-client` speaks RFC 3489. Its lightest test (a request with CHANGE-REQUEST for the port) and its
/// judgement of the NAT both have to be right: on loopback there is none.
#[test]
fn the_stun_client_of_debian_gets_the_right_answers() {
    let Some(_) = foreign("stun", &["-h"]) else { return };
    // It derives the alternate port as its server does (port + 1), so the whole of its judgement is not to be had; the
    // first test alone is.
    let server = Running::start(Some("127.0.0.1"));
    let source = client("127.0.0.1").local_addr().unwrap().port();
    let said = foreign("stun", &[&server.main[0].to_string(), "1", "-p", &source.to_string(), "-v"]).unwrap();
    assert!(said.contains(&format!("MappedAddress = 127.0.0.1:{source}")), "{said}");
}

/// coturn's client speaks RFC 8489.
#[test]
fn the_stun_client_of_coturn_gets_the_right_answers() {
    let server = Running::start(Some("127.0.0.1"));
    let port = server.main[0].port().to_string();
    let Some(said) = foreign("turnutils_stunclient", &["-p", &port, "-L", "127.0.0.1", "127.0.0.1"]) else { return };
    assert!(said.contains("UDP reflexive addr: 127.0.0.1:"), "{said}");
}

/// coturn's other client speaks RFC 5780; it pads its requests to more than an Ethernet frame.
#[test]
fn the_nat_discovery_of_coturn_is_answered() {
    let server = Running::start(Some("127.0.0.1"));
    let port = server.main[0].port().to_string();
    let arguments = ["-m", "-f", "-P", "-p", &port, "-L", "127.0.0.1", "127.0.0.1"];
    let Some(said) = foreign("turnutils_natdiscovery", &arguments) else { return };
    assert!(said.contains("UDP reflexive addr: 127.0.0.1:"), "{said}");
    assert!(said.contains(&format!("Other addr: : {}", server.alternate[0])), "{said}");
}
