//! The server program among strangers: floods from addresses that are not theirs, connections that come to nothing, and
//! clients that want more than their share, each beside two honest ones that are introduced.

mod flood;

use flood::{Flood, Memory, Received, binding, connect, cookie, register};
use holepunch::wire::stun::{RegistrationId, SessionId};
use natlab::{Artefacts, Host, Lab, Pair, Place, Rendezvous, Strangers, skip};
use netsim::{Random, TcpHeader};
use std::{
    collections::HashSet,
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    process, thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const GREETING: &[u8] = b"HOLEPUNCH/1\n";

/// A server with strangers behind it, and two hosts whose programs are honest.
struct Scene {
    flood: Flood,
    server: Rendezvous,
    host: Host,
    honest: [Host; 2],
    /// The strangers whose connections the server has ended.
    ended: HashSet<SocketAddr>,
    _lab: Lab,
}

impl Scene {
    /// Starts a server with these lines of settings, or says that `test` is skipped and why.
    fn or_skip(test: &str, seed: u64, settings: &str) -> Option<Self> {
        let mut lab = Lab::or_skip(test)?;
        let host = lab.host("server").unwrap();
        let flood = match Flood::new(&host, 20000, seed) {
            Ok(flood) => flood,
            Err(error) => {
                skip(test, &format!("/dev/net/tun: {error}"));
                return None;
            }
        };
        let file = env::temp_dir().join(format!("holepunch-abuse-{}-{seed}", process::id()));
        fs::write(&file, settings).unwrap();
        let server = Rendezvous::start(&Place::from(&host), &["--config", file.to_str().unwrap()]);
        fs::remove_file(&file).unwrap();
        let honest = ["bob", "alice"].map(|name| lab.host(name).unwrap());
        Some(Self { flood, server: server.unwrap(), host, honest, ended: HashSet::new(), _lab: lab })
    }

    /// A connection from the one host to the server.
    fn connect(&self) -> TcpStream {
        let stream = self.honest[1].within(|| TcpStream::connect(self.server.address)).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Waits until the server has as many descriptors as before; it answers meanwhile.
    fn descriptors_are(&mut self, count: usize) {
        let until = Instant::now() + PATIENCE;
        while descriptors(&self.server) != count {
            assert!(Instant::now() < until, "{} descriptors instead of {count}", descriptors(&self.server));
            let source = Strangers::any(&mut self.flood.random, true);
            let request = binding(&mut self.flood.random).finish();
            self.flood.ask(&[(source, request)]).unwrap();
        }
    }

    /// So many requests from one address, as fast as the server reads; how many are answered, and how long it took.
    fn flood_from(
        &mut self,
        source: SocketAddr,
        count: usize,
        request: impl Fn(&mut Random) -> Vec<u8>,
    ) -> (usize, Duration) {
        let (begin, mut answers) = (Instant::now(), 0);
        for _ in (0..count).step_by(100) {
            for _ in 0..100 {
                let request = request(&mut self.flood.random);
                self.flood.strangers.send(source, self.flood.server[0], &request).unwrap();
            }
            // One from elsewhere is answered when all before it are.
            let last = Strangers::any(&mut self.flood.random, true);
            let request = binding(&mut self.flood.random).finish();
            self.flood.strangers.send(last, self.flood.server[0], &request).unwrap();
            while let (to, _) = self.flood.next(PATIENCE).unwrap().expect("an answer")
                && to != last
            {
                answers += usize::from(to == source);
            }
        }
        (answers, begin.elapsed())
    }

    /// A stranger's request for a connection, and its answer to the server's answer.
    fn knock(&mut self, source: SocketAddr, then: Option<fn(u32, u32) -> TcpHeader>) {
        let request = TcpHeader { syn: true, sequence: 1, ..TcpHeader::default() };
        let server = self.flood.server[0];
        self.flood.strangers.send_segment(source, server, request).unwrap();
        let Some(then) = then else { return };
        let answer = loop {
            let (to, header) = self.segment();
            if to == source && header.syn {
                break header;
            }
        };
        assert!(answer.ack && answer.acknowledgement == 2, "{answer:?}");
        self.flood.strangers.send_segment(source, server, then(2, answer.sequence.wrapping_add(1))).unwrap();
    }

    /// The next segment of the server's to a stranger. Whom it ended is remembered.
    fn segment(&mut self) -> (SocketAddr, TcpHeader) {
        let until = Instant::now() + PATIENCE;
        loop {
            while let Some(packet) = self.flood.strangers.receive().unwrap() {
                let Some(header) = packet.tcp.filter(|_| !packet.is_error) else { continue };
                if header.fin {
                    self.ended.insert(packet.destination);
                }
                return (packet.destination, header);
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing comes of the server; {} have ended", self.ended.len());
            self.flood.strangers.wait(left).unwrap();
        }
    }

    /// Waits until the server has ended these connections; it has ended no others.
    fn has_ended(&mut self, sources: &[SocketAddr]) {
        let until = Instant::now() + PATIENCE;
        let expected: HashSet<_> = sources.iter().copied().collect();
        while !self.ended.is_superset(&expected) {
            assert!(Instant::now() < until, "{} of {} have ended", self.ended.len(), expected.len());
            self.segment();
        }
        assert!(self.ended == expected, "{} have ended, not {}", self.ended.len(), expected.len());
    }
}

/// Two meet, who know nothing of the strangers.
fn meet(server: &Rendezvous, honest: &[Host; 2], options: &[&str]) {
    let [bob, alice] = [&honest[0], &honest[1]].map(Place::from);
    let command = || Artefacts::get().holepunch();
    let mut pair = Pair::start(server.address, (&bob, command()), (&alice, command()), options).unwrap();
    pair.connected().unwrap();
    pair.exchange("from the listener", "from the connector").unwrap();
    pair.end().unwrap();
}

fn descriptors(server: &Rendezvous) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.program.id())).unwrap().count()
}

/// The rest of a handshake.
fn acknowledge(sequence: u32, acknowledgement: u32) -> TcpHeader {
    TcpHeader { ack: true, sequence, acknowledgement, ..TcpHeader::default() }
}

/// Or its end.
fn reset(sequence: u32, _: u32) -> TcpHeader {
    TcpHeader { rst: true, sequence, ..TcpHeader::default() }
}

/// So many addresses of one /24, which has 254 hosts with many ports each.
fn network(third: u8, count: u16) -> Vec<SocketAddr> {
    let address = |number| (Ipv4Addr::new(40, 1, third, 1 + (number % 254) as u8), 1024 + number / 254).into();
    (0..count).map(address).collect()
}

/// `benches/run abuse` does it with ten million.
#[test]
fn spoofed_datagrams_leave_nothing_behind() {
    const COUNT: u64 = 200_000;
    const SEED: u64 = 61;
    let Some(mut scene) = Scene::or_skip("spoofed_datagrams_leave_nothing_behind", SEED, "") else { return };
    let Scene { flood, server, host, honest, .. } = &mut scene;
    meet(server, honest, &["--udp"]);
    let process = server.program.id();
    let (before, received) = (Memory::of(process).unwrap(), Received::by(host).unwrap());
    thread::scope(|scope| {
        let flooding = scope.spawn(|| flood.mixed(COUNT));
        meet(server, honest, &["--udp"]);
        flooding.join().unwrap().unwrap();
    });
    let (after, now, counts) = (Memory::of(process).unwrap(), Received::by(host).unwrap(), flood.counts);
    assert!(now.lost == received.lost && now.datagrams >= received.datagrams + counts.sent, "seed {SEED}: {now:?}");
    assert!(counts.sent >= COUNT && counts.answers > COUNT / 4, "seed {SEED}: {counts:?}");
    assert!(counts.answer_bytes < counts.sent_bytes, "seed {SEED}: {counts:?}");
    for (before, after) in [(before.anonymous, after.anonymous), (before.resident, after.resident)] {
        assert!(after < before + 1024, "seed {SEED}: {before} KiB, then {after}: {counts:?}");
    }
    meet(server, honest, &["--tcp"]);
}

#[test]
fn connections_that_come_to_nothing_are_cut() {
    let test = "connections_that_come_to_nothing_are_cut";
    let Some(mut scene) = Scene::or_skip(test, 62, "first_word = 2\n") else { return };
    let before = descriptors(&scene.server);
    // Those who never answer, more than the system's queue holds.
    for _ in 0..20_000 {
        let source = Strangers::any(&mut scene.flood.random, true);
        scene.knock(source, None);
        // Nobody answers, but the device's queue is to have room for the others' answers.
        while scene.flood.strangers.receive().unwrap().is_some() {}
    }
    let mut honest = scene.connect();
    honest.write_all(GREETING).unwrap();
    honest.read_exact(&mut [0; GREETING.len()]).unwrap();
    drop(honest);
    // Those who are there and then no more, without a word or with a RST.
    let silent = network(1, 500);
    silent.iter().for_each(|source| scene.knock(*source, Some(acknowledge)));
    for source in network(2, 500) {
        scene.knock(source, Some(acknowledge));
        scene.flood.strangers.send_segment(source, scene.flood.server[0], reset(2, 0)).unwrap();
    }
    // One who begins a message and never ends it, and one who ends its side and never the connection.
    let mut slow = scene.connect();
    slow.write_all(&binding(&mut scene.flood.random).finish()[..19]).unwrap();
    let mut half = scene.connect();
    half.write_all(&binding(&mut scene.flood.random).finish()).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).unwrap();
    assert_eq!(answer[..2], [1, 1]);
    scene.has_ended(&silent);
    assert_eq!(slow.read(&mut [0; 1]).unwrap(), 0, "the end");
    scene.descriptors_are(before);
    meet(&scene.server, &scene.honest, &["--tcp"]);
}

#[test]
fn a_network_has_its_share_of_connections() {
    let test = "a_network_has_its_share_of_connections";
    let Some(mut scene) = Scene::or_skip(test, 63, "max_connections_per_network = 500\n") else { return };
    let greedy = network(1, 600);
    greedy.iter().for_each(|source| scene.knock(*source, Some(acknowledge)));
    scene.has_ended(&greedy[500..]);
    meet(&scene.server, &scene.honest, &["--tcp"]);
}

#[test]
fn a_network_has_its_share_of_registrations() {
    let test = "a_network_has_its_share_of_registrations";
    // No rate, which would not let one network come so far so fast.
    let Some(mut scene) = Scene::or_skip(test, 64, "stun_rate = 0\n") else { return };
    let named = |third: u8, count| {
        let name =
            move |address: SocketAddr| (address, Some(format!("{third}-{}", address.to_string().replace(':', "-"))));
        network(third, count).into_iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(scene.flood.register(&named(1, 1100)).unwrap(), [508; 76], "1,024 had room");
    assert_eq!(scene.flood.register(&named(2, 100)).unwrap(), [0; 0], "another network");
    meet(&scene.server, &scene.honest, &["--udp"]);
}

#[test]
fn who_asks_more_than_its_share_is_not_answered() {
    const EVE: &str = "eve";
    let Some(mut scene) = Scene::or_skip("who_asks_more_than_its_share_is_not_answered", 65, "") else { return };
    let source = |third| network(third, 1)[0];
    assert_eq!(scene.flood.register(&[(source(1), Some(EVE.to_owned()))]).unwrap(), [0; 0]);
    let session = SessionId([3; 16]);
    let first = connect(&mut scene.flood.random, session, None, Some(EVE));
    let good = cookie(&scene.flood.ask(&[(source(2), first)]).unwrap()[0]);
    type Request<'a> = &'a dyn Fn(&mut Random) -> Vec<u8>;
    // From whom, how many of them are answered at once, and how many then in a second.
    let requests: [(u8, usize, f64, Request); 5] = [
        (3, 200, 200.0, &|random| binding(random).finish()),
        (4, 200, 200.0, &|random| register(random, RegistrationId([4; 16]), None, None)),
        (5, 200, 200.0, &|random| connect(random, session, None, Some(EVE))),
        (6, 200, 200.0, &|random| connect(random, session, Some(&good), Some(EVE))),
        // With its own cookie; what is repeated leaves half of the rate to what is new.
        (2, 49, 100.0, &|random| connect(random, session, Some(&good), Some(EVE))),
    ];
    for (third, at_once, rate, request) in requests {
        let (answers, time) = scene.flood_from(source(third), 5_000, request);
        let most = at_once + 1 + (rate * time.as_secs_f64()) as usize;
        assert!((at_once..=most).contains(&answers), "{third}: {answers} answers in {time:?}, {most} at most");
    }
    meet(&scene.server, &scene.honest, &["--udp"]);
}
