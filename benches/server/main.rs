//! What the rendezvous server costs: processor time for each answer and introduction, and memory for each registration.
//!
//! Each server is a process of its own on the first processor; whoever asks is on the second. Where there is a yardstick,
//! a server in plain C (`plain.c`) or coturn, all of them live through the whole run and take turns, in another order each
//! round, with the same number of requests. A ratio is of two neighbours of one round, and what is printed is
//! the median of the rounds, with the least and the greatest. The time is the server's alone, user and system, as the
//! scheduler counted it, so that it matters little what else the machine does.
//!
//! Limits that guard against strangers are raised: all clients here are of one network.
//!
//!     cargo bench --features server --bench server [-- PART...]
//!
//! A part is one of `bindings`, `introductions`, `legacy` and `memory`.

mod introductions;
mod legacy;
mod memory;
mod process;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use holepunch::server::{Options, RendezvousServer, raise_descriptor_limit};
use process::Process;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// How long a turn of the first server takes, about.
const TURN: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["serve"] => serve(),
        ["idle", port, count] => legacy::stay(port, count),
        _ => drive(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `cargo bench` says `--bench`; without it (`cargo test --benches`) the program only shows that it works.
fn is_measurement() -> bool {
    env::args().any(|argument| argument == "--bench")
}

/// The worker `serve`: a server that prints its port and runs until it is killed.
fn serve() -> Result<(), Failure> {
    raise_descriptor_limit()?;
    let mut options = Options::default();
    options.host = Some("127.0.0.1".to_owned());
    options.port = 0;
    options.config.stun_rate = 0;
    options.config.introduction_rate = 0;
    options.config.max_registrations = 1 << 20;
    options.config.max_registrations_per_network = u32::MAX;
    // Nobody here comes again to stay registered.
    options.config.keepalive = Duration::from_secs(1800);
    options.config.idle_connection = Duration::from_secs(3600);
    let server = RendezvousServer::bind(options)?;
    process::say(&server.local_addresses()[0].port().to_string())?;
    Ok(server.run()?)
}

const PARTS: [&str; 4] = ["bindings", "introductions", "legacy", "memory"];

/// Measures these parts, or all.
fn drive(wanted: &[&str]) -> Result<(), Failure> {
    if let Some(unknown) = wanted.iter().find(|word| !PARTS.contains(word)) {
        return Err(format!("there is no part {unknown:?}; there are {PARTS:?}").into());
    }
    raise_descriptor_limit()?;
    let rounds = if is_measurement() { 15 } else { 1 };
    println!(
        "processor time of the server, user and system, in us for each; {rounds} rounds; ratios: median (least - greatest)\n"
    );
    process::pin_self();
    let plain = compile();
    if let Err(error) = &plain {
        println!("the servers in C are left out, and STUN Binding, which is asked for in C: {error}\n");
    }
    let plain = plain.as_deref().ok();
    for part in PARTS {
        match part {
            _ if !wanted.is_empty() && !wanted.contains(&part) => {}
            "bindings" => plain.map_or(Ok(()), |plain| bindings(plain, rounds))?,
            "introductions" => introductions::measure(rounds)?,
            "legacy" => legacy::measure(plain, rounds)?,
            _ => memory::measure()?,
        }
    }
    Ok(())
}

/// Compiles the servers in C.
fn compile() -> Result<PathBuf, Failure> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/server/plain.c");
    let plain = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plain");
    let status = Command::new("cc").arg("-O2").arg(source).arg("-o").arg(&plain).status();
    match status {
        Ok(status) if status.success() => Ok(plain),
        Ok(status) => Err(format!("cc: {status}").into()),
        Err(error) => Err(format!("cc: {error}").into()),
    }
}

// --- STUN Binding ----------------------------------------------------------------------------------------------------

/// STUN Binding: one request at a time, and a window of them.
fn bindings(plain: &Path, rounds: usize) -> Result<(), Failure> {
    let mut servers = vec![Process::own()?, Process::server("plain C", Command::new(plain).arg("udp"))?];
    match coturn() {
        Ok(coturn) => servers.push(coturn),
        Err(error) => println!("coturn is left out: {error}"),
    }
    let pairs: Vec<_> = (1..servers.len()).map(|other| (0, other)).collect();
    for window in [1, 64] {
        let ask = |server: &Process, count: u64| {
            let [port, window, count] = [u64::from(server.port), window, count].map(|number| number.to_string());
            let status = Command::new(plain).args(["flood", &port, &window, &count]).status()?;
            if status.success() {
                Ok(())
            } else {
                Err(format!("{}: not every request was answered", server.name).into())
            }
        };
        let title = if window == 1 {
            "STUN Binding, one at a time".into()
        } else {
            format!("STUN Binding, {window} at a time")
        };
        compare(&title, &servers, &pairs, rounds, window, &ask)?;
    }
    println!();
    Ok(())
}

fn coturn() -> Result<Process, Failure> {
    let port = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("turnserver");
    command
        .args([
            "--stun-only",
            "--no-tcp",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--relay-threads=0",
            "--listening-ip=127.0.0.1",
        ])
        .args(["--no-rfc5780", "--no-stun-backward-compatibility", "--no-software-attribute"])
        .args(["--log-file=/dev/null", "--no-stdout-log", "--pidfile=/dev/null", "-c", "/dev/null"])
        .arg(format!("--listening-port={port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let coturn = Process::start("coturn", &mut command, port)?;
    // It tells nobody when it is ready.
    let asks = std::net::UdpSocket::bind("127.0.0.1:0")?;
    asks.connect(("127.0.0.1", port))?;
    asks.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut request = [0; 20];
    request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
    let patience = Instant::now() + Duration::from_secs(10);
    while Instant::now() < patience {
        // Refused while nobody listens.
        if asks.send(&request).is_ok() && asks.recv(&mut [0; 256]).is_ok() {
            return Ok(coturn);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err("it did not answer for 10 s".into())
}

// --- Taking turns ----------------------------------------------------------------------------------------------------

/// Lets servers take turns at so many requests, a multiple of `step`, and prints what each took, and the ratios of these
/// pairs of them.
pub(crate) fn compare(
    title: &str,
    servers: &[Process],
    pairs: &[(usize, usize)],
    rounds: usize,
    step: u64,
    ask: &dyn Fn(&Process, u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let few = step * 100u64.div_ceil(step);
    let count = if is_measurement() {
        ask(&servers[0], few)?;
        let start = Instant::now();
        ask(&servers[0], few)?;
        let turns = TURN.as_secs_f64() / start.elapsed().as_secs_f64();
        ((few as f64 * turns) as u64).next_multiple_of(step)
    } else {
        few
    };
    let mut costs = vec![Vec::new(); servers.len()];
    for round in 0..rounds {
        for turn in 0..servers.len() {
            let index = (round + turn) % servers.len();
            let before = servers[index].processor_time()?;
            ask(&servers[index], count)?;
            let time = servers[index].processor_time()? - before;
            costs[index].push(time.as_secs_f64() * 1e6 / count as f64);
        }
    }
    println!("{title}; {count} each");
    for (server, own) in servers.iter().zip(&costs) {
        println!("  {:<44}{:>8.2}", server.name, spread(own.clone())[1]);
    }
    for (one, other) in pairs {
        let ratios = costs[*one].iter().zip(&costs[*other]).map(|(one, other)| one / other);
        let [least, ratio, greatest] = spread(ratios.collect());
        let names = format!("{} : {}", servers[*one].name, servers[*other].name);
        println!("  {names:<44}{ratio:>8.2} ({least:.2} - {greatest:.2})");
    }
    Ok(())
}

/// The least, the median and the greatest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}
