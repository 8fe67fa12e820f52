//! The server program under a flood of spoofed datagrams: what it grows by, what becomes of those who want to be
//! introduced meanwhile, and what a registration takes when each comes from an address of its own.
//!
//! The flood comes from a TUN device of the server's namespace (`natlab::Strangers`), each datagram from another
//! address, so that the limits for each network stay as they are by default and do not help. The server is on the first
//! processor; the flood and the honest clients share the second, the flood at a lower priority.
//!
//!     HOLEPUNCH_BIN=target/release/holepunch cargo bench --package natlab --bench abuse [-- PART...]      # as root
//!
//! A part is one of `memory`, `introductions` and `registrations`.

#[path = "../tests/flood/mod.rs"]
mod flood;

use flood::{Flood, Memory, Received, binding};
use holepunch::{ConnectOptions, Endpoint, Listener, Wait};
use natlab::{Host, Lab, LabError, Place, Rendezvous, Strangers};
use std::{
    collections::BTreeSet,
    env, fs, io,
    process::{self, Command, ExitCode, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

type Failure = Box<dyn std::error::Error>;

const SEED: u64 = 71;
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two connects, so that their network keeps within its rate of 100 introductions a second.
const PAUSE: Duration = Duration::from_millis(15);
/// A registration that is not kept alive ends after this: two keepalives.
const LIFETIME: Duration = Duration::from_secs(50);
const PARTS: [&str; 3] = ["memory", "introductions", "registrations"];

fn main() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.contains(&word.as_str())) {
        eprintln!("abuse: there is no part {unknown:?}; there are {PARTS:?}");
        return ExitCode::from(2);
    }
    pin(process::id(), "1");
    for part in PARTS.iter().filter(|part| wanted.is_empty() || wanted.iter().any(|word| word == *part)) {
        let done = match *part {
            "memory" => memory(),
            "introductions" => introductions(),
            _ => registrations(),
        };
        match done.map_err(|error| error.downcast::<LabError>()) {
            Ok(()) => println!(),
            Err(Ok(error)) if matches!(*error, LabError::NotAllowed(_)) => println!("left out: {error}"),
            Err(Ok(error)) => return failed(part, &error),
            Err(Err(error)) => return failed(part, &error),
        }
    }
    ExitCode::SUCCESS
}

fn failed(part: &str, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("abuse: {part}: {error}");
    ExitCode::FAILURE
}

/// `cargo bench` says `--bench`; without it (`cargo test --benches`) the program only shows that it works.
fn is_measurement() -> bool {
    env::args().any(|argument| argument == "--bench")
}

/// Keeps a process, and what it starts from now on, on one processor, where there are several; of that it is told first
/// by the call that is about this process itself.
fn pin(process: u32, processor: &str) {
    static SEVERAL: OnceLock<bool> = OnceLock::new();
    if *SEVERAL.get_or_init(|| thread::available_parallelism().is_ok_and(|count| count.get() > 1)) {
        // Without it the numbers are only less steady.
        let _ = Command::new("taskset")
            .args(["-cp", processor, &process.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// A server, and hosts for those who are honest.
struct Scene {
    server: Rendezvous,
    host: Host,
    honest: [Host; 2],
    _lab: Lab,
}

impl Scene {
    /// With settings in a file, which is gone again afterwards; and with strangers behind the server.
    fn new(settings: &str) -> Result<(Self, Flood), Failure> {
        let mut lab = Lab::new()?;
        let host = lab.host("server")?;
        let honest = [lab.host("bob")?, lab.host("alice")?];
        let file = env::temp_dir().join(format!("holepunch-abuse-{}", process::id()));
        fs::write(&file, settings)?;
        let server = Rendezvous::start(&Place::from(&host), &["--config", &file.to_string_lossy()]);
        fs::remove_file(&file)?;
        let server = server?;
        pin(server.program.id(), "0");
        let flood = Flood::new(&host, server.address.port(), SEED)?;
        Ok((Self { server, host, honest, _lab: lab }, flood))
    }

    /// The server's processor time so far.
    fn processor_time(&self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.server.program.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    fn memory(&self) -> io::Result<Memory> {
        Memory::of(self.server.program.id())
    }

    fn endpoint(&self, host: &Host) -> Result<Endpoint, Failure> {
        Ok(host.within(|| Endpoint::builder().server(self.server.address.to_string()).build())??)
    }

    /// A listener called bob.
    fn listen(&self) -> Result<Listener, Failure> {
        let endpoint = self.endpoint(&self.honest[0])?;
        Ok(self.honest[0].within(|| endpoint.listen(Some("bob"), PATIENCE.into()))??)
    }

    /// What a new connector's call takes until it is connected with the listener.
    fn connect(&self, listener: &Listener) -> Result<Duration, Failure> {
        thread::sleep(PAUSE);
        let endpoint = self.endpoint(&self.honest[1])?;
        let (connection, time) = self.honest[1].within(|| {
            let begin = Instant::now();
            let connection = endpoint.connect_datagram("bob", &ConnectOptions::default());
            (connection, begin.elapsed())
        })?;
        connection?;
        listener.accept_datagram(Wait::at_most(PATIENCE))?;
        Ok(time)
    }
}

// --- What is left of a flood -----------------------------------------------------------------------------------------

fn memory() -> Result<(), Failure> {
    let count = if is_measurement() { 10_000_000 } else { 20_000 };
    let (scene, mut flood) = Scene::new("")?;
    let listener = scene.listen()?;
    scene.connect(&listener)?;
    let (before, received, begin) = (scene.memory()?, Received::by(&scene.host)?, Instant::now());
    flood.mixed(count)?;
    let (time, after, now, counts) =
        (begin.elapsed().as_secs_f64(), scene.memory()?, Received::by(&scene.host)?, flood.counts);
    scene.connect(&listener)?;
    println!("a flood of spoofed datagrams of every kind, seed {SEED}; another two were introduced before and after");
    println!("  sent                  {:>12}, {} bytes, in {time:.0} s", counts.sent, counts.sent_bytes);
    let (taken, lost) = (now.datagrams - received.datagrams, now.lost - received.lost);
    println!("  taken by the server   {taken:>12}, {lost} lost");
    println!("  answers               {:>12}, {} bytes", counts.answers, counts.answer_bytes);
    for (name, before, after) in
        [("RssAnon", before.anonymous, after.anonymous), ("VmRSS", before.resident, after.resident)]
    {
        println!("  {name:<8}{before:>8} KiB before, {after} KiB after: {:+}", after as i64 - before as i64);
    }
    Ok(())
}

// --- Introductions beside a flood ------------------------------------------------------------------------------------

fn introductions() -> Result<(), Failure> {
    let (requests, rounds, each) = if is_measurement() { (500_000, 20, 20) } else { (5_000, 2, 3) };
    let (scene, mut flood) = Scene::new("")?;
    bindings(&mut flood, requests / 10)?;
    let (begin, before, answered) = (Instant::now(), scene.processor_time()?, flood.counts.answers);
    bindings(&mut flood, requests)?;
    let answers = (flood.counts.answers - answered) as f64;
    let (time, processor) = (begin.elapsed().as_secs_f64(), (scene.processor_time()? - before).as_secs_f64());
    // What the server would answer if it were kept busy all the time: more than the flood can ask for.
    let capacity = answers / processor;
    println!("introductions beside spoofed STUN Binding requests at half of the server's capacity");
    println!("  capacity      {capacity:.0}/s: {:.2} us of the server's processor time each", 1e6 / capacity);
    println!(
        "  measured at   {:.0}/s, which kept it busy {:.0} % of the time",
        answers / time,
        100.0 * processor / time
    );

    let listener = scene.listen()?;
    let received = Received::by(&scene.host)?;
    let (mut calm, mut loaded, mut load) = (Vec::new(), Vec::new(), Load::default());
    for _ in 0..rounds {
        for _ in 0..each {
            calm.push(scene.connect(&listener)?);
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| -> Result<(), Failure> {
            let flooding = scope.spawn(|| load.keep_up(&mut flood, capacity / 2.0, &over));
            let times: Result<Vec<_>, _> = (0..each).map(|_| scene.connect(&listener)).collect();
            over.store(true, Ordering::Relaxed);
            flooding.join().expect("the flood does not panic")?;
            loaded.extend(times?);
            Ok(())
        })?;
    }
    let lost = Received::by(&scene.host)?.lost - received.lost;
    println!(
        "  the flood     {:.0}/s for {:.1} s; {:.2} % answered, {lost} lost",
        load.sent as f64 / load.time.as_secs_f64(),
        load.time.as_secs_f64(),
        100.0 * load.answered as f64 / load.sent as f64
    );
    let [calm, loaded] = [calm, loaded].map(|mut times| {
        times.sort();
        [0.5, 0.95, 1.0].map(|q| times[((times.len() - 1) as f64 * q).round() as usize].as_secs_f64() * 1e3)
    });
    println!("  {} connects each, ms, p50 / p95 / worst", rounds * each);
    for (name, [p50, p95, worst]) in [("without", calm), ("with", loaded)] {
        println!("  {name:<12}{p50:>8.3} / {p95:>7.3} / {worst:>7.3}");
    }
    println!("  ratio       {:>8.2} / {:>7.2}", loaded[0] / calm[0], loaded[1] / calm[1]);
    Ok(())
}

/// Sends at least so many Binding requests as fast as the server answers.
fn bindings(flood: &mut Flood, count: u64) -> io::Result<()> {
    let request = binding(&mut flood.random).finish();
    let until = flood.counts.sent + count;
    while flood.counts.sent < until {
        flood.batch(|_| &request)?;
    }
    flood.settle()
}

/// What a steady flood has come to.
#[derive(Default)]
struct Load {
    sent: u64,
    answered: u64,
    time: Duration,
}

impl Load {
    /// Sends so many requests a second until it is over: what is due at each wake-up, of which there are thousands a
    /// second. What is late is sent late.
    fn keep_up(&mut self, flood: &mut Flood, rate: f64, over: &AtomicBool) -> io::Result<()> {
        // The honest go first on the processor that they share.
        let thread = fs::read_link("/proc/thread-self")?;
        let thread = thread.file_name().unwrap_or_default();
        Command::new("renice").args(["-n", "5", "-p"]).arg(thread).stdout(Stdio::null()).status()?;
        let request = binding(&mut flood.random).finish();
        let (begin, mut sent, before) = (Instant::now(), 0, flood.counts.answers);
        while !over.load(Ordering::Relaxed) {
            let due = (begin.elapsed().as_secs_f64() * rate) as u64;
            while sent < due {
                flood.send(flood.server[sent as usize % 2], &request)?;
                sent += 1;
            }
            while flood.next(Duration::ZERO)?.is_some() {}
            thread::sleep(Duration::from_micros(20));
        }
        self.time += begin.elapsed();
        while flood.next(Duration::from_millis(100))?.is_some() {}
        self.sent += sent;
        self.answered += flood.counts.answers - before;
        Ok(())
    }
}

// --- Memory for each registration ------------------------------------------------------------------------------------

fn registrations() -> Result<(), Failure> {
    let count = if is_measurement() { 100_000 } else { 1_000 };
    println!("memory of the server for each of {count} registrations over UDP, each with two candidates, in bytes");
    for (title, named) in [("with a name of 12 characters", true), ("found by address", false)] {
        let (scene, mut flood) = Scene::new("max_registrations = 200000\n")?;
        let mut sources = BTreeSet::new();
        // What the first ones cost is not theirs alone.
        let early = 100;
        while sources.len() < early + count {
            sources.insert(Strangers::any(&mut flood.random, true));
        }
        let name = |number| named.then(|| format!("listen{number:06}"));
        let listeners: Vec<_> = sources.into_iter().zip(0..).map(|(source, number)| (source, name(number))).collect();
        let mut refused = flood.register(&listeners[..early])?;
        let (before, begin) = (scene.memory()?.anonymous, Instant::now());
        refused.extend(flood.register(&listeners[early..])?);
        let (after, time) = (scene.memory()?.anonymous, begin.elapsed());
        if !refused.is_empty() || time >= LIFETIME {
            return Err(format!("{} were refused, and it took {time:?} of {LIFETIME:?}", refused.len()).into());
        }
        println!("  {title:<40}{:>8.0}", (after - before) as f64 * 1024.0 / count as f64);
    }
    Ok(())
}
