//! What connections cost that nobody uses: memory, wake-ups, processor time and datagrams.
//!
//! Two processes, one that listens and one that connects, have 1,000 connections with each other, and then do nothing.
//! Counted from outside, for each connection of each process: the anonymous memory that the last 1,000 of 1,100 have
//! brought (`RssAnon`, so the allocator's share is in it; the kernel's memory for sockets is not); how often all threads
//! of the process went to sleep in 20 s, and their processor time; and the datagrams that left, which the system
//! counts for the network namespace that all this is in (made for it where that is allowed).
//!
//! Consent (RFC 7675) asks each end for a check every 4 to 6 s, and for an answer to each of the other's: 0.4 datagrams a
//! second. An end that is awake for a check that is due, and for every datagram that comes, wakes 0.6 times a second.
//!
//!     cargo bench --features server --bench idle

mod rendezvous;
mod worker;

use std::{
    env, fs,
    io::{self, BufRead as _},
    os::fd::AsFd as _,
    process::ExitCode,
    thread,
    time::Duration,
};

use holepunch::{ConnectOptions, Connection, Endpoint, Listener, Stream, server::raise_descriptor_limit};
use natlab::Lab;
use rendezvous::{Rendezvous, is_measurement};
use worker::{Failure, PATIENCE, Worker, say, wait};

/// What the first connections cost is not theirs alone.
const EARLY: u32 = 100;

/// Longer than a connection is young, and than an interval of consent.
const SETTLE: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["worker", role, kind, mode, server] => worker(role, kind, mode, server),
        _ => drive(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle: {error}");
            ExitCode::FAILURE
        }
    }
}

// --- The worker: one end of all connections --------------------------------------------------------------------------

/// Where connections come from.
enum Source {
    Listener(Listener),
    Connector(Endpoint),
}

/// What is held and not used.
#[expect(dead_code, reason = "it is held")]
enum Held {
    Datagrams(Connection),
    Stream(Stream),
}

impl Source {
    fn next(&self, kind: &str) -> Result<Held, holepunch::Error> {
        let options = ConnectOptions::default();
        match (self, kind) {
            (Self::Listener(listener), "streams") => listener.accept(PATIENCE.into()).map(Held::Stream),
            (Self::Listener(listener), _) => listener.accept_datagram(PATIENCE.into()).map(Held::Datagrams),
            (Self::Connector(endpoint), "streams") => endpoint.connect("idle", &options).map(Held::Stream),
            (Self::Connector(endpoint), _) => endpoint.connect_datagram("idle", &options).map(Held::Datagrams),
        }
    }
}

/// `listen | connect KIND MODE SERVER`: prints `ready`, then makes as many connections as each line of its input says, and
/// prints `done`. A KIND is `datagrams` or `streams`, a MODE `thread` or `loop`.
fn worker(role: &str, kind: &str, mode: &str, server: &str) -> Result<(), Failure> {
    let builder = Endpoint::builder().server(server).bind("127.0.0.1:0".parse()?);
    let endpoint = builder.thread(mode == "thread").build()?;
    let source = match role {
        "listen" => Source::Listener(endpoint.listen(Some("idle"), PATIENCE.into())?),
        _ => Source::Connector(endpoint.clone()),
    };
    // More than there will be: the program's own list is not to grow meanwhile.
    let mut held = Vec::with_capacity(4096);
    say("ready")?;
    loop {
        if mode == "loop" {
            wait(&endpoint, io::stdin().as_fd())?;
        }
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        for _ in 0..line.trim().parse()? {
            held.push(source.next(kind)?);
        }
        say("done")?;
    }
}

// --- The driver ------------------------------------------------------------------------------------------------------

fn drive() -> Result<(), Failure> {
    raise_descriptor_limit()?;
    match Lab::new() {
        Ok(mut lab) => {
            lab.host("idle")?.within(|| measure().map_err(|error| error.to_string()))?.map_err(Failure::from)
        }
        Err(error) => {
            println!("in this network namespace, with whatever else is sent in it: {error}");
            measure()
        }
    }
}

fn measure() -> Result<(), Failure> {
    let (count, time) = if is_measurement() { (1000, Duration::from_secs(20)) } else { (5, Duration::from_millis(10)) };
    println!("{count} idle connections between two processes over loopback, watched for {} s", time.as_secs_f32());
    println!("for each connection, and each second: end that connected + end that listened\n");
    println!("| | bytes | wake-ups | CPU, us | datagrams sent by an end |\n|---|---|---|---|---|");
    for (title, kind, mode) in [
        ("datagrams", "datagrams", "thread"),
        ("datagrams, no thread", "datagrams", "loop"),
        ("streams", "streams", "thread"),
        ("streams, no thread", "streams", "loop"),
    ] {
        measure_kind(title, kind, mode, count, time).map_err(|error| format!("{title}: {error}"))?;
    }
    Ok(())
}

fn measure_kind(title: &str, kind: &str, mode: &str, count: u32, time: Duration) -> Result<(), Failure> {
    let settle = if is_measurement() { SETTLE } else { Duration::ZERO };
    let server = Rendezvous::start("127.0.0.1");
    let own = [env::current_exe()?.to_string_lossy().into_owned(), "worker".to_owned()];
    let start = |role| Worker::start(&own, &[role, kind, mode, &server.address], None);
    let listening = start("listen")?;
    listening.expect("ready")?;
    let mut ends = [start("connect")?, listening];
    ends[0].expect("ready")?;
    make(&mut ends, EARLY)?;
    thread::sleep(settle);
    let early = counts(&ends)?;
    make(&mut ends, count)?;
    thread::sleep(settle);
    let (before, sent_before) = (counts(&ends)?, datagrams_sent()?);
    thread::sleep(time);
    let (after, sent_after) = (counts(&ends)?, datagrams_sent()?);

    let both = |value: &dyn Fn(usize) -> f64, digits: usize| format!("{:.digits$} + {:.digits$}", value(0), value(1));
    let all = f64::from(EARLY + count) * time.as_secs_f64();
    println!(
        "| {title} | {} | {} | {} | {:.2} |",
        both(&|end| (before[end].memory - early[end].memory) / f64::from(count), 0),
        both(&|end| (after[end].sleeps - before[end].sleeps) / all, 3),
        both(&|end| (after[end].processor - before[end].processor) / all * 1e6, 1),
        (sent_after - sent_before) / all / 2.0,
    );
    Ok(())
}

/// Makes so many more connections.
fn make(ends: &mut [Worker; 2], count: u32) -> Result<(), Failure> {
    let bulks = (0..count).step_by(EARLY as usize).map(|made| (count - made).min(EARLY));
    for bulk in bulks {
        ends.iter_mut().try_for_each(|end| end.tell(&bulk.to_string()))?;
        ends.iter().try_for_each(|end| end.expect("done"))?;
    }
    Ok(())
}

/// What a process has used so far.
struct Counts {
    /// Bytes of memory that it has of its own and that are there: heap and stacks.
    memory: f64,
    /// How often its threads have gone to sleep.
    sleeps: f64,
    /// Seconds.
    processor: f64,
}

fn counts(ends: &[Worker; 2]) -> Result<[Counts; 2], Failure> {
    let of = |end: &Worker| {
        let mut sleeps = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", end.id()))? {
            sleeps += field(&task?.path().join("status").to_string_lossy(), "voluntary_ctxt_switches:")?;
        }
        let memory = field(&format!("/proc/{}/status", end.id()), "RssAnon:")? * 1024.0;
        Ok::<_, Failure>(Counts { memory, sleeps, processor: end.processor_time()?.as_secs_f64() })
    };
    Ok([of(&ends[0])?, of(&ends[1])?])
}

/// The datagrams that were sent in this network namespace.
fn datagrams_sent() -> Result<f64, Failure> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = lines.next().zip(lines.next()).ok_or("the system counts no datagrams")?;
    let sent = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "OutDatagrams");
    Ok(sent.ok_or("the system counts no datagrams that are sent")?.1.parse()?)
}

/// A number in a file of lines that begin with a name.
fn field(path: &str, name: &str) -> Result<f64, Failure> {
    let text = fs::read_to_string(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name} in {path}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
