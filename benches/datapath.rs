//! Datagrams per second, and processor time, through a connection and through plain sockets in the same run.
//!
//! Two processes, each on a processor of its own where there are two: one sends, the other receives and acknowledges
//! every 16th datagram with one of 8 bytes, so that at most 64 are in flight and none is lost. They move the datagrams
//! in one of four ways:
//!
//! - `plain`: sendto and recvfrom on sockets that are not connected;
//! - `connected`: send and recv on connected ones, the least that the system does for a datagram;
//! - `thread`: a connection's send and recv, with the endpoint's thread beside them;
//! - `no thread`: the same without it, in an event loop: where nothing is there to receive the program polls the connection and
//!   the endpoint, and calls `process` when that is ready or its time has come.
//!
//! The pairs of processes live through the whole run and take turns, in another order each round; a ratio is of two
//! neighbours of one round, and what is printed is the median of the rounds, with the least and the greatest.
//!
//!     cargo bench --features server --bench datapath [-- NAME=COMMAND...]
//!
//! measures Rust, and each NAME whose COMMAND is a worker as `worker` below is; `benches/run` adds C and Python.

mod rendezvous;
mod worker;

use std::{
    env, io,
    net::UdpSocket,
    os::fd::AsFd as _,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use holepunch::{ConnectOptions, Connection, Endpoint, ErrorKind, Wait};
use rendezvous::{Rendezvous, is_measurement};
use worker::{Failure, PATIENCE, Worker, say, wait};

/// Datagrams in flight at most.
const WINDOW: u64 = 64;

/// One of so many is acknowledged.
const EVERY: u64 = 16;

/// The sizes that are measured, in bytes: little more than the headers, and the largest that a connection carries.
const SIZES: [usize; 2] = [64, 1200];

/// How long one turn of the plain sockets takes, about.
const TURN: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = match arguments.first().map(String::as_str) {
        Some("worker") => worker(&arguments[1..]),
        _ => drive(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("datapath: {error}");
            ExitCode::FAILURE
        }
    }
}

// --- The worker: one end ---------------------------------------------------------------------------------------------

/// One end of a path for datagrams.
trait End {
    fn send(&self, bytes: &[u8]) -> Result<(), Failure>;
    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Failure>;
}

struct Plain(UdpSocket, std::net::SocketAddr);
struct Connected(UdpSocket);

impl End for Plain {
    fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.send_to(bytes, self.1)?;
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        Ok(self.0.recv_from(buffer)?.0)
    }
}

impl End for Connected {
    fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.send(bytes)?;
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        Ok(self.0.recv(buffer)?)
    }
}

impl End for Connection {
    fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(Self::send(self, bytes)?)
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        Ok(self.recv(buffer, Wait::forever())?)
    }
}

/// A connection of an endpoint that has no thread.
struct Looped(Endpoint, Connection);

impl End for Looped {
    fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.1.send(bytes)?)
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.1.recv(buffer, Duration::ZERO.into()) {
                Err(error) if error.kind() == ErrorKind::Timeout => wait(&self.0, self.1.as_fd())?,
                result => return Ok(result?),
            }
        }
    }
}

/// `plain | connected | listen MODE SERVER | connect MODE SERVER`, where a MODE is `thread` or `loop`: makes an end, prints `ready`, then obeys the lines of its
/// input, `send SIZE COUNT` or `receive SIZE COUNT`, and prints `done` after each. With sockets it prints its port
/// first, and reads that of its peer.
fn worker(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["plain"] => {
            let (socket, peer) = sockets()?;
            obey(&Plain(socket, peer))
        }
        ["connected"] => {
            let (socket, peer) = sockets()?;
            socket.connect(peer)?;
            obey(&Connected(socket))
        }
        [role @ ("listen" | "connect"), mode @ ("thread" | "loop"), server] => {
            let builder = Endpoint::builder().server(server).bind("127.0.0.1:0".parse()?);
            let endpoint = builder.thread(mode == "thread").build()?;
            let connection = if role == "listen" {
                let listener = endpoint.listen(Some(mode), PATIENCE.into())?;
                say("listening")?;
                listener.accept_datagram(PATIENCE.into())?
            } else {
                endpoint.connect_datagram(mode, &ConnectOptions::default())?
            };
            if mode == "thread" { obey(&connection) } else { obey(&Looped(endpoint, connection)) }
        }
        _ => Err("a worker is plain, connected, listen MODE SERVER or connect MODE SERVER".into()),
    }
}

fn sockets() -> Result<(UdpSocket, std::net::SocketAddr), Failure> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    say(&socket.local_addr()?.port().to_string())?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let port: u16 = line.trim().parse()?;
    Ok((socket, ([127, 0, 0, 1], port).into()))
}

fn obey(end: &impl End) -> Result<(), Failure> {
    say("ready")?;
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["send", size, count] => send_all(end, size.parse()?, count.parse()?)?,
            ["receive", size, count] => receive_all(end, size.parse()?, count.parse()?)?,
            _ => return Err(format!("cannot {line:?}").into()),
        }
        say("done")?;
    }
    Ok(())
}

fn send_all(end: &impl End, size: usize, count: u64) -> Result<(), Failure> {
    // Not 0 to 3, which a message of STUN begins with: what data looks like nearly always.
    let datagram = vec![b'x'; size];
    let mut acknowledged = 0;
    for sent in 0..count {
        while sent - acknowledged >= WINDOW {
            acknowledged = read_acknowledgement(end)?;
        }
        end.send(&datagram)?;
    }
    while acknowledged < count {
        acknowledged = read_acknowledgement(end)?;
    }
    Ok(())
}

fn receive_all(end: &impl End, size: usize, count: u64) -> Result<(), Failure> {
    let mut buffer = [0; 1200];
    for received in 1..=count {
        let length = end.receive(&mut buffer)?;
        if length != size {
            return Err(format!("{length} bytes came instead of {size}").into());
        }
        if received % EVERY == 0 || received == count {
            // The first byte is 'a', so that it does not look like a message of STUN either.
            end.send(&(received | u64::from(b'a') << 56).to_be_bytes())?;
        }
    }
    Ok(())
}

/// Waits for an acknowledgement: how many datagrams have arrived.
fn read_acknowledgement(end: &impl End) -> Result<u64, Failure> {
    let mut buffer = [0; 1200];
    let length = end.receive(&mut buffer)?;
    let bytes: [u8; 8] = buffer[..length].try_into()?;
    Ok(u64::from_be_bytes(bytes) & (u64::MAX >> 8))
}

// --- The driver ------------------------------------------------------------------------------------------------------

/// A way to move datagrams: the two ends.
struct Way {
    sender: Worker,
    receiver: Worker,
}

/// What one turn took, each for one datagram, in seconds.
#[derive(Clone, Copy)]
struct Turn {
    time: f64,
    sending: f64,
    receiving: f64,
}

impl Way {
    fn with_sockets(command: &[String], kind: &str, processors: [Option<&str>; 2]) -> Result<Self, Failure> {
        let mut ends =
            [Worker::start(command, &[kind], processors[0])?, Worker::start(command, &[kind], processors[1])?];
        let ports = [ends[0].line()?, ends[1].line()?];
        for (end, peer) in ends.iter_mut().zip([&ports[1], &ports[0]]) {
            end.tell(peer)?;
            end.expect("ready")?;
        }
        let [sender, receiver] = ends;
        Ok(Self { sender, receiver })
    }

    fn with_connection(
        command: &[String],
        mode: &str,
        server: &str,
        processors: [Option<&str>; 2],
    ) -> Result<Self, Failure> {
        let receiver = Worker::start(command, &["listen", mode, server], processors[1])?;
        receiver.expect("listening")?;
        let sender = Worker::start(command, &["connect", mode, server], processors[0])?;
        sender.expect("ready")?;
        receiver.expect("ready")?;
        Ok(Self { sender, receiver })
    }

    fn turn(&mut self, size: usize, count: u64) -> Result<Turn, Failure> {
        let before = [self.sender.processor_time()?, self.receiver.processor_time()?];
        let start = Instant::now();
        self.receiver.tell(&format!("receive {size} {count}"))?;
        self.sender.tell(&format!("send {size} {count}"))?;
        self.sender.expect("done")?;
        self.receiver.expect("done")?;
        let time = start.elapsed();
        let each = |time: Duration| time.as_secs_f64() / count as f64;
        Ok(Turn {
            time: each(time),
            sending: each(self.sender.processor_time()? - before[0]),
            receiving: each(self.receiver.processor_time()? - before[1]),
        })
    }
}

const WAYS: [&str; 4] = ["plain", "connected", "thread", "no thread"];

/// Those of them that are a connection's.
const OWN: [&str; 2] = [WAYS[2], WAYS[3]];

fn drive(arguments: &[String]) -> Result<(), Failure> {
    let own = vec![env::current_exe()?.to_string_lossy().into_owned(), "worker".to_owned()];
    let mut languages = vec![("Rust".to_owned(), own)];
    for argument in arguments {
        let (name, command) = argument.split_once('=').ok_or("usage: datapath [NAME=COMMAND...]")?;
        languages.push((name.to_owned(), command.split(' ').map(str::to_owned).collect()));
    }
    let several = thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let processors = if several { [Some("0"), Some("1")] } else { [None, None] };
    let rounds = if is_measurement() { 15 } else { 1 };

    println!("datagrams between two processes over loopback, at most {WINDOW} in flight; {rounds} rounds");
    println!(
        "ratios of rates, more is better: median (least - greatest); processor time in us a datagram: sender + receiver\n"
    );
    let columns = ["bytes", "plain / s"].map(str::to_owned).into_iter();
    let ratios = [WAYS[0], WAYS[1]].into_iter().flat_map(|other| OWN.map(|way| format!("{way} : {other}")));
    let columns: Vec<_> = columns.chain(ratios).chain(WAYS.map(str::to_owned)).collect();
    println!("| | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
    for (language, command) in &languages {
        let server = Rendezvous::start("127.0.0.1");
        let mut ways = [
            Way::with_sockets(command, "plain", processors)?,
            Way::with_sockets(command, "connected", processors)?,
            Way::with_connection(command, "thread", &server.address, processors)?,
            Way::with_connection(command, "loop", &server.address, processors)?,
        ];
        for size in SIZES {
            let few = ways[0].turn(size, 1000)?;
            let count = if is_measurement() { (TURN.as_secs_f64() / few.time) as u64 } else { 200 };
            let mut turns: [Vec<Turn>; 4] = Default::default();
            for round in 0..rounds {
                for step in 0..ways.len() {
                    let way = (round + step) % ways.len();
                    let turn = ways[way].turn(size, count);
                    turns[way].push(turn.map_err(|error| format!("{language}, {size} bytes, {}: {error}", WAYS[way]))?);
                }
            }
            print_row(language, size, &turns);
        }
    }
    Ok(())
}

fn print_row(language: &str, size: usize, turns: &[Vec<Turn>; 4]) {
    let [plain, connected, own @ ..] = turns;
    let rate = 1.0 / spread(plain.iter().map(|turn| turn.time).collect())[1];
    print!("| {language} | {size} | {rate:.0} |");
    for other in [plain, connected] {
        for own in own {
            let ratios = other.iter().zip(own).map(|(other, own)| other.time / own.time);
            let [least, median, greatest] = spread(ratios.collect());
            print!(" {median:.2} ({least:.2} - {greatest:.2}) |");
        }
    }
    for turns in turns {
        let [sending, receiving]: [fn(&Turn) -> f64; 2] = [|turn| turn.sending, |turn| turn.receiving];
        let microseconds = |part| spread(turns.iter().map(part).collect())[1] * 1e6;
        print!(" {:.1} + {:.1} |", microseconds(sending), microseconds(receiving));
    }
    println!();
}

/// The least, the median and the greatest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}
