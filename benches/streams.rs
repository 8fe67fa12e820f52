//! Streams through two NATs in real time: from when both know the other's mapped port to connected, beside a
//! simultaneous open on bare sockets, in the same lab and run.
//!
//! The lab is the simulator's network between real sockets (`tests/natlab`): two NATs with endpoint-independent
//! mapping, filtering by address and port, and random ports, which drop an unsolicited SYN or answer it with a RST;
//! links of 0.1 to 150 ms, four of which are a round trip between the peers; both sides at once, or one told of the
//! other's port 40 ms later. Each run is a connect, then a raw open (`raw_stream`). That a peer was told of the other's
//! port is read off what the network delivered to it; that it is connected is when the call returns.
//!
//!     cargo bench --features server --bench streams          # as root; 200 runs of each network
//!
//! Several pairs run at once where links are slow, each in a lab of its own; they wait far more than they work.

mod raw_stream;
mod rendezvous;

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use holepunch::{
    ConnectOptions, Endpoint, Stream, Wait,
    wire::stun::{CandidateTransport, Class, Message, Method},
};
use natlab::{Home, LabError, Model};
use netsim::{Event, Link, Nat, Time, UnsolicitedSyn, oracle::NatKind};
use rendezvous::{Rendezvous, is_measurement};

/// Of each network when this is a measurement.
const RUNS: usize = 200;
const SKEW: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(20);
/// One way between a peer and the internet, in microseconds, and how many pairs run at once. Where nothing takes time
/// at all, two SYNs hardly ever cross, and NATs that refuse them cannot be got through.
const DELAYS: [(u64, usize); 4] = [(100, 1), (20_000, 4), (50_000, 8), (150_000, 16)];

/// One line of the table.
#[derive(Clone, Copy)]
struct Network {
    delay: Duration,
    answer: UnsolicitedSyn,
    skew: Duration,
}

/// A connect, or a raw open: nothing where it failed.
#[derive(Clone, Copy)]
struct Outcome {
    /// From when the later of both knew the other's port until the later was connected.
    open: Duration,
    /// From the introduction, the later of both; zero of a raw open, which has none.
    total: Duration,
    connects: u32,
}

#[derive(Default)]
struct Results {
    holepunch: Vec<Option<Outcome>>,
    raw: Vec<Option<Outcome>>,
    /// Of both sides together, over all runs.
    processor: [Duration; 2],
}

fn main() {
    let runs = if is_measurement() { RUNS } else { 1 };
    let delays = if is_measurement() { &DELAYS[..] } else { &DELAYS[..2] };
    println!(
        "{runs} runs of each; EIM/APDF random x EIM/APDF random; ms p50 / p95 / worst from both mapped ports known to"
    );
    println!("connected on both sides; connects attempted and processor time (ms) a run, both sides together\n");
    let title = ["rtt ms", "NATs", "skew", "", "ok", "p50 / p95 / worst", "from introduction", "connects", "CPU"];
    let [rtt, nats, skew, who, ok, times, total, connects, processor] = title;
    println!("{rtt:>6} {nats:>5} {skew:>4} {who:<9} {ok:>7} {times:>26} {total:>26} {connects:>8} {processor:>6}");
    for (delay, workers) in delays.iter().copied() {
        for answer in [UnsolicitedSyn::Drop, UnsolicitedSyn::Reset] {
            for skew in [Duration::ZERO, SKEW] {
                let network = Network { delay: Duration::from_micros(delay), answer, skew };
                match measure(network, runs, workers) {
                    Ok(results) => report(network, &results),
                    Err(error @ LabError::NotAllowed(_)) => return println!("left out: {error}"),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

fn measure(network: Network, runs: usize, workers: usize) -> Result<Results, LabError> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Results::default()));
    thread::scope(|scope| {
        let work = || -> Result<(), LabError> {
            let mut pair = Pair::new(network)?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= runs {
                    return Ok(());
                }
                let connected = pair.connect();
                let opened = pair.raw(number as u64);
                let mut results = results.lock().expect("nobody panics with it");
                results.holepunch.push(connected.0);
                results.raw.push(opened.0);
                results.processor[0] += connected.1;
                results.processor[1] += opened.1;
            }
        };
        let workers: Vec<_> = (0..workers.min(runs)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(results.into_inner().expect("nobody panics with it"))
}

/// Two endpoints in a lab of their own.
struct Pair {
    network: Network,
    endpoints: [Endpoint; 2],
    /// Those of the two endpoints, by number.
    threads: Vec<String>,
    listener: holepunch::Listener,
    introducer: std::net::TcpListener,
    homes: [Home; 2],
    _server: Rendezvous,
    model: Model,
}

impl Pair {
    fn new(network: Network) -> Result<Self, LabError> {
        let mut model = Model::new(1)?;
        let host = model.server()?;
        let kind = NatKind::all().into_iter().find(|kind| kind.name() == "eim_apdf_random").expect("a kind");
        let link = Link { delay: network.delay, ..Link::PERFECT };
        let nat = Nat { unsolicited_syn: network.answer, ..kind.nat() };
        let homes = [model.nat_home("bob", nat.clone(), link)?, model.nat_home("alice", nat, link)?];
        let server = host.within(|| Rendezvous::start(&host.address().to_string()))?;
        let endpoint = |home: &Home| {
            let build = || Endpoint::builder().server(&server.address).build().expect("an endpoint");
            home.host.within(build)
        };
        // One pair after the other, so that each knows its threads; a thread has its name a moment after it began.
        static MAKING: Mutex<()> = Mutex::new(());
        let (endpoints, threads) = {
            let _one = MAKING.lock().expect("nobody panics with it");
            let before = endpoint_threads();
            let endpoints = [endpoint(&homes[0])?, endpoint(&homes[1])?];
            let all = std::iter::repeat_with(endpoint_threads).find(|now| now.difference(&before).count() == 2);
            (endpoints, all.expect("it is endless").difference(&before).cloned().collect())
        };
        let listener =
            homes[0].host.within(|| endpoints[0].listen(Some("bob"), PATIENCE.into()).expect("a listener"))?;
        // What the server passes on to the listener of the connector's port is late.
        let (skew, bob) = (network.skew, homes[0].public);
        model.hold(move |packet| {
            let is_late = !skew.is_zero()
                && packet.destination.ip() == bob
                && packet.tcp.is_none()
                && Message::parse(&packet.payload)
                    .is_ok_and(|message| (message.method(), message.class()) == (Method::TRICKLE, Class::Request));
            if is_late { skew } else { Duration::ZERO }
        });
        let introducer = raw_stream::introducer(&host, host.address());
        Ok(Self { network, endpoints, threads, listener, introducer, homes, _server: server, model })
    }

    /// Connects a stream; what came of it, and the processor time of both sides.
    fn connect(&mut self) -> (Option<Outcome>, Duration) {
        let (begin, before) = (self.model.now(), self.processor_time());
        let [near, far] = thread::scope(|scope| {
            let (pair, model) = (&*self, &self.model);
            // The system's sockets are made by the thread that calls, so it is in its peer's namespace.
            let side = |number: usize, call: fn(&Self) -> holepunch::Result<Stream>| {
                let within = move || {
                    let before = processor_time();
                    let stream = call(pair).ok().map(|stream| (stream, model.now()));
                    (stream, processor_time().saturating_sub(before))
                };
                let host = &pair.homes[number].host;
                scope.spawn(move || host.within(within).expect("the namespace can be entered"))
            };
            let accept = side(0, |pair| pair.listener.accept(Wait::at_most(PATIENCE)));
            let connect = side(1, |pair| pair.endpoints[1].connect("bob", &ConnectOptions::default()));
            [connect, accept].map(|side| side.join().expect("a side does not panic"))
        });
        let processor = self.processor_time().saturating_sub(before) + near.1 + far.1;
        let outcome = near.0.zip(far.0).and_then(|((near, near_at), (far, far_at))| {
            let learned = self.learned(0, begin)?.max(self.learned(1, begin)?);
            let path = |stream: &Stream| stream.path();
            let (near, far) = (path(&near), path(&far));
            Some(Outcome {
                open: near_at.max(far_at).since(learned),
                total: near.since_introduction.max(far.since_introduction),
                connects: near.packets_sent + far.packets_sent,
            })
        });
        (outcome, processor)
    }

    /// When a peer was told of a public port of the other, in this run.
    fn learned(&self, side: usize, begin: Time) -> Option<Time> {
        let (own, other) = (self.homes[side].host.address(), self.homes[1 - side].public);
        let tells = |payload: &[u8], other: IpAddr| {
            Message::parse(payload).is_ok_and(|message| {
                message
                    .candidates()
                    .any(|candidate| candidate.transport == CandidateTransport::Tcp && candidate.address.ip() == other)
            })
        };
        self.model.with(|network| {
            let mut records = network.trace().records().filter(|record| record.at >= begin);
            let record = records.find(|record| {
                record.event == Event::Delivered
                    && record.destination.ip() == own
                    && record.tcp.is_none()
                    && tells(&record.payload, other)
            });
            record.map(|record| record.at)
        })
    }

    /// A simultaneous open on bare sockets; what came of it, and the processor time of both sides.
    fn raw(&self, seed: u64) -> (Option<Outcome>, Duration) {
        let hosts = self.homes.each_ref().map(|home| &home.host);
        let Network { skew, delay, .. } = self.network;
        let sides = raw_stream::run(&self.model, &self.introducer, hosts, skew, delay * 4, seed).expect("bare sockets");
        let [first, second] = sides;
        let connected = first.connected.zip(second.connected).map(|(first, second)| first.max(second));
        let outcome = connected.map(|connected| Outcome {
            open: connected.since(first.learned.max(second.learned)),
            total: Duration::ZERO,
            connects: first.connects + second.connects,
        });
        (outcome, first.processor + second.processor)
    }

    /// What the threads of the two endpoints have taken.
    fn processor_time(&self) -> Duration {
        self.threads.iter().map(|thread| schedstat(&format!("/proc/self/task/{thread}/schedstat"))).sum()
    }
}

/// The threads of this process's endpoints.
fn endpoint_threads() -> BTreeSet<String> {
    let threads = fs::read_dir("/proc/self/task").expect("procfs").filter_map(Result::ok);
    let is_endpoint = |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "holepunch");
    threads
        .filter(|thread| is_endpoint(&thread.path()))
        .map(|thread| thread.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The processor time of the calling thread.
pub(crate) fn processor_time() -> Duration {
    schedstat("/proc/thread-self/schedstat")
}

fn schedstat(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn report(network: Network, results: &Results) {
    let nats = if network.answer == UnsolicitedSyn::Drop { "drop" } else { "reset" };
    let (rtt, skew) = ((network.delay * 4).as_secs_f64() * 1e3, network.skew.as_millis());
    for (who, outcomes, processor) in
        [("holepunch", &results.holepunch, results.processor[0]), ("raw", &results.raw, results.processor[1])]
    {
        let done: Vec<_> = outcomes.iter().flatten().collect();
        let ok = format!("{}/{}", done.len(), outcomes.len());
        let times = quantiles(done.iter().map(|outcome| outcome.open));
        let total = if who == "raw" { String::new() } else { quantiles(done.iter().map(|outcome| outcome.total)) };
        let connects = done.iter().map(|outcome| f64::from(outcome.connects)).sum::<f64>() / done.len().max(1) as f64;
        let processor = processor.as_secs_f64() * 1e3 / outcomes.len().max(1) as f64;
        println!(
            "{rtt:>6} {nats:>5} {skew:>4} {who:<9} {ok:>7} {times:>26} {total:>26} {connects:>8.1} {processor:>6.2}"
        );
    }
}

fn quantiles(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    let at = |q: f64| times.get(((times.len().max(1) - 1) as f64 * q).round() as usize);
    let [p50, p95, worst] = [0.5, 0.95, 1.0].map(|q| at(q).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3));
    format!("{p50:.1} / {p95:.1} / {worst:.1}")
}
