//! Nothing is left when everything is dropped. Alone in its process, because it counts what the process has.

#[path = "endpoint/greeter.rs"]
mod greeter;
#[path = "endpoint/liar.rs"]
mod liar;
#[path = "endpoint/rendezvous.rs"]
mod rendezvous;

use std::{
    fs,
    time::{Duration, Instant},
};

use holepunch::{
    Cancel, ConnectOptions, Endpoint, ErrorKind, Listener, Wait,
    config::PeerConfig,
    server::raise_descriptor_limit,
    wire::stun::{AttributeType, Builder, Class, GREETING, Message},
};
use liar::{Liar, Lie};
use rendezvous::{LONG, Rendezvous, receive};

/// The descriptors and threads of this process.
fn held() -> (usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

fn use_everything(server: &Rendezvous) {
    for threaded in [true, false] {
        let endpoint = server.endpoint().thread(threaded).build().unwrap();
        let other = server.endpoint().build().unwrap();
        let cancel = Cancel::new().unwrap();
        let listener = endpoint.listen(Some("bob"), Wait::from(LONG).or_cancelled(&cancel)).unwrap();
        let connects = std::thread::spawn(move || {
            let options = ConnectOptions::default();
            let connections = [(); 3].map(|()| other.connect_datagram("bob", &options).unwrap());
            connections[0].send(b"one").unwrap();
            connections[1].close();
            assert!(other.connect_datagram("nobody", &options.wait(Duration::ZERO)).is_err());
            connections
        });
        let accepted = [(); 3].map(|()| listener.accept_datagram(LONG.into()).unwrap());
        let connections = connects.join().unwrap();
        assert_eq!(receive(&accepted[0]).unwrap(), b"one");
        assert_eq!(receive(&accepted[1]).unwrap_err().kind(), ErrorKind::Closed);
        // The last handle waits for the peer, which without a thread answers only while it is in a call.
        let closes = std::thread::spawn(move || drop(connections));
        for connection in [&accepted[0], &accepted[2]] {
            assert_eq!(receive(connection).unwrap_err().kind(), ErrorKind::Closed);
        }
        closes.join().unwrap();
    }
}

/// How many connections of each kind; some hundred are as good, but for what a page each would be.
fn many() -> usize {
    std::env::var("HOLEPUNCH_TEST_CONNECTIONS").map_or(200, |count| count.parse().unwrap())
}

/// The most by which memory may grow after the first have made what is kept: the allocator's caches, some hundred KiB.
/// A thousand connections that left one page each would be 4,000.
const GROWTH_KIB: usize = 2048;

/// Memory of this process that is in use, in KiB.
fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Connects `count` times, talks, and closes.
fn datagrams(connecting: &Endpoint, listener: &Listener, count: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                let accepted = listener.accept_datagram(LONG.into()).unwrap();
                accepted.send(&receive(&accepted).unwrap()).unwrap();
                assert_eq!(receive(&accepted).unwrap_err().kind(), ErrorKind::Closed);
            }
        });
        for _ in 0..count {
            let connection = connecting.connect_datagram("many", &ConnectOptions::default()).unwrap();
            connection.send(b"x").unwrap();
            assert_eq!(receive(&connection).unwrap(), b"x");
        }
    });
}

fn streams(connecting: &Endpoint, listener: &Listener, count: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                let accepted = listener.accept(LONG.into()).unwrap();
                accepted.send_all(b"x", LONG.into()).unwrap();
                assert_eq!(accepted.recv(&mut [0; 9], LONG.into()).unwrap(), 0);
            }
        });
        for _ in 0..count {
            let stream = connecting.connect("many", &ConnectOptions::default()).unwrap();
            assert_eq!(stream.recv(&mut [0; 9], LONG.into()).unwrap(), 1);
        }
    });
}

fn failures(connecting: &Endpoint, _listener: &Listener, count: usize) {
    let once = ConnectOptions::default().wait(Duration::ZERO);
    for _ in 0..count {
        assert_eq!(connecting.connect_datagram("nobody", &once).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(connecting.connect("nobody", &once).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// Waits until there is no more than there was; the ends of connections are told in the background. Once is enough: the
/// server, which is in this process, too, may yet accept a connection that is over already.
fn settle(before: (usize, usize)) {
    let (start, mut now) = (Instant::now(), held());
    while now != before && start.elapsed() < LONG {
        std::thread::yield_now();
        now = held();
    }
    assert_eq!(now, before);
}

/// One connection after the other.
fn many_leave_nothing(server: &Rendezvous) {
    let (connecting, listening) = (server.endpoint().build().unwrap(), server.endpoint().build().unwrap());
    let listener = listening.listen(Some("many"), LONG.into()).unwrap();
    let before = held();
    let kinds: [(&str, fn(&Endpoint, &Listener, usize)); 3] =
        [("datagrams", datagrams), ("streams", streams), ("failures of both", failures)];
    for (what, make) in kinds {
        make(&connecting, &listener, many());
        settle(before);
        let (memory, start) = (resident_kib(), Instant::now());
        make(&connecting, &listener, many());
        settle(before);
        let growth = resident_kib().saturating_sub(memory);
        println!("{} {what}: {growth} KiB more after {:?}", many(), start.elapsed());
        // A sanitiser's own memory grows with everything that is ever used; it looks for leaks itself.
        if std::env::var_os("HOLEPUNCH_TEST_SANITISED").is_none() {
            assert!(growth < GROWTH_KIB, "{what}: {growth} KiB more");
        }
    }
}

/// Connections that are there at once.
const AT_ONCE: usize = 1000;

/// The most memory of this process that a connection takes, both its ends. Either end is to take 2 KiB in a process of
/// its own.
const BOTH_ENDS: usize = 4096;

/// A thousand at once in one process: one thread for each endpoint whatever it has. A connection has one descriptor, and two
/// where it was made from: the socket that asked for it stays, so that nobody else is given its port.
fn many_at_once(server: &Rendezvous) {
    raise_descriptor_limit().unwrap();
    let before = held();
    {
        let (connecting, listening) = (server.endpoint().build().unwrap(), server.endpoint().build().unwrap());
        let listener = listening.listen(Some("crowd"), LONG.into()).unwrap();
        let (descriptors, threads) = held();
        assert_eq!(threads, before.1 + 2);
        let mut ends = Vec::new();
        let mut early = 0;
        for number in 0..AT_ONCE {
            // What the first ones cost is not theirs alone.
            if number == AT_ONCE / 10 {
                early = resident_kib();
            }
            ends.push(connecting.connect_datagram("crowd", &ConnectOptions::default()).unwrap());
            ends.push(listener.accept_datagram(LONG.into()).unwrap());
        }
        settle((descriptors + AT_ONCE * 3, threads));
        let each = (resident_kib() - early) * 1024 / (AT_ONCE - AT_ONCE / 10);
        println!("{AT_ONCE} at once: {each} bytes each");
        if std::env::var_os("HOLEPUNCH_TEST_SANITISED").is_none() {
            assert!(each < BOTH_ENDS, "{each} bytes");
        }
        for pair in ends.chunks(2) {
            pair[0].send(b"one").unwrap();
            assert_eq!(receive(&pair[1]).unwrap(), b"one");
        }
        listening.close();
        for near in ends.iter().step_by(2) {
            assert_eq!(receive(near).unwrap_err().kind(), ErrorKind::Closed);
        }
    }
    settle(before);
}

/// An error, and a cookie.
fn refuse(request: &[u8], code: u16) -> Option<Vec<u8>> {
    let request = Message::parse(request).ok()?;
    let refusal = Builder::new(Class::Error, request.method(), request.transaction_id()).error_code(code, "");
    Some(refusal.attribute(AttributeType::NONCE, &[1; 20]).fingerprint().finish())
}

/// A success that says nothing.
fn agree(request: &[u8]) -> Option<Vec<u8>> {
    let request = Message::parse(request).ok()?;
    Some(Builder::new(Class::Success, request.method(), request.transaction_id()).fingerprint().finish())
}

fn greet(begun: &[u8]) -> bool {
    begun == GREETING
}

/// A server that lies, over UDP and over TCP: what each says, and how listening and connecting end.
type Row = (&'static str, Lie, Lie, [ErrorKind; 2]);

const LIES: &[Row] = &[
    ("says nothing", |_| None, |_| Some(Vec::new()), [ErrorKind::ServerSilent; 2]),
    ("ends connections", |_| None, |_| None, [ErrorKind::ServerSilent; 2]),
    ("says what is no message", |_| Some(vec![3; 65_507]), |_| Some(vec![3; 65_507]), [ErrorKind::ServerSilent; 2]),
    ("is of 2015", |_| None, |_| Some(b"?".to_vec()), [ErrorKind::ServerSilent; 2]),
    (
        "greets, and says giant lengths",
        |_| None,
        |begun| Some(if greet(begun) { begun.to_vec() } else { [&[3, 0xe1, 0xff, 0xfc], &begun[4..]].concat() }),
        [ErrorKind::ServerSilent; 2],
    ),
    (
        "asks for cookies for ever",
        |request| refuse(request, 401),
        |begun| if greet(begun) { Some(begun.to_vec()) } else { refuse(begun, 401) },
        [ErrorKind::ServerSilent; 2],
    ),
    ("agrees to everything", agree, |_| None, [ErrorKind::ServerSilent; 2]),
    ("refuses everything", |request| refuse(request, 400), |_| None, [ErrorKind::ServerRefused; 2]),
    ("has taken every name", |request| refuse(request, 409), |_| None, [ErrorKind::NameTaken; 2]),
];

/// Calls end with the error that is documented, and leave nothing.
fn hostile_servers(before: (usize, usize)) {
    for (name, over_udp, over_tcp, expected) in LIES {
        for threaded in [true, false] {
            let liar = Liar::start(*over_udp, *over_tcp);
            let mut config = PeerConfig::default();
            config.retransmission.silence = Duration::from_millis(400);
            config.retransmission.tcp_after = Duration::from_millis(50);
            let endpoint = Endpoint::builder().server(liar.address.to_string()).bind("127.0.0.1:0".parse().unwrap());
            let endpoint = endpoint.config(config).thread(threaded).build().unwrap();
            let start = Instant::now();
            let once = ConnectOptions::default().wait(Duration::ZERO);
            let listening = endpoint.listen(Some("bob"), LONG.into()).unwrap_err().kind();
            let datagrams = endpoint.connect_datagram("bob", &once).unwrap_err().kind();
            let stream = endpoint.connect("bob", &once).unwrap_err().kind();
            println!("a server that {name}: {:?}", start.elapsed());
            assert_eq!([listening, datagrams, stream], [expected[0], expected[1], expected[1]], "{name}");
            drop((endpoint, liar));
            settle(before);
        }
    }
}

#[test]
fn nothing_is_left() {
    let server = Rendezvous::start();
    use_everything(&server);
    let before = held();
    for _ in 0..5 {
        use_everything(&server);
    }
    assert_eq!(held(), before);
    many_leave_nothing(&server);
    many_at_once(&server);
    hostile_servers(before);
}
