//! The agents of `ice` that are in Rust, each a program of its own, and what one says to whoever runs it.
//!
//! A program is one side. Its first line is its name; then it has turns. A turn begins with a line that is its role,
//! `controlling` or `controlled`; it prints its description, is told the other's, and prints
//! `connected BEGUN ENDED` or `failed BEGUN ENDED`: when it knew the description, and when it was connected or gave
//! up, in nanoseconds of the monotonic clock. It stays reachable until it is told `end`. A description is some lines
//! and `a=end-of-candidates`. `peer_libnice.c` and `peer_aioice.py` are such programs, too.
#![allow(unsafe_code)]

mod contender;
mod probe;

use std::{
    io::{self, Write as _},
    sync::mpsc::{self, Receiver, TryRecvError},
    thread,
    time::Duration,
};

pub(crate) use contender::{Contender, Side};
use holepunch::{AgentOptions, ConnectOptions, Endpoint, punch::Role};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Whoever neither connects nor gives up by then has failed; what comes later than [`LIMIT`] does not count.
pub(crate) const PATIENCE: Duration = Duration::from_secs(35);
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

const END_OF_DESCRIPTION: &str = "a=end-of-candidates";

/// Those that are here, as [`run`] knows them; the first is the floor that the others are compared with.
pub(crate) const NAMES: [&str; 3] = ["probe", "agent", "server"];

/// Is one of them until its input ends; `server` is the one that answers STUN, and introduces.
pub(crate) fn run(name: &str, server: &str) -> Result<(), Failure> {
    let turns = Turns::begin();
    match name {
        "probe" => probe::run(&turns, server.parse()?),
        "agent" => agent(&turns, server),
        _ => introduced(&turns, server),
    }
}

/// Our agent, as ICE between two who have signalling of their own.
fn agent(turns: &Turns, server: &str) -> Result<(), Failure> {
    say("holepunch, an agent")?;
    let endpoint = Endpoint::builder().build()?;
    let options = AgentOptions::default().stun_server(server);
    while let Some(role) = turns.next()? {
        let agent = endpoint.agent(role, &options)?;
        say(agent.local_description(PATIENCE.into())?.trim_end())?;
        let (theirs, begun) = turns.description()?;
        agent.set_remote_description(&theirs)?;
        let connected = agent.connect(PATIENCE.into());
        ended(begun, now(), connected.is_ok())?;
        turns.end()?;
    }
    Ok(())
}

/// A connection by way of our server: the side that controls connects, the other listens. It begins when the server has
/// introduced them.
fn introduced(turns: &Turns, server: &str) -> Result<(), Failure> {
    say("holepunch, introduced by its server")?;
    let endpoint = Endpoint::builder().server(server).build()?;
    let name = std::process::id().to_string();
    let listener = endpoint.listen(Some(&name), PATIENCE.into())?;
    while let Some(role) = turns.next()? {
        say(&name)?;
        say(END_OF_DESCRIPTION)?;
        let (theirs, begun) = turns.description()?;
        let connected = match role {
            Role::Controlled => listener.accept_datagram(PATIENCE.into()),
            Role::Controlling => {
                endpoint.connect_datagram(theirs.lines().next().unwrap_or_default(), &ConnectOptions::default())
            }
        };
        let now = now();
        let begun = connected.as_ref().map_or(begun, |connection| now - connection.path().since_introduction);
        ended(begun, now, connected.is_ok())?;
        turns.end()?;
    }
    Ok(())
}

/// The lines that a program is told.
struct Turns(Receiver<String>);

impl Turns {
    fn begin() -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self(lines)
    }

    /// The role in the next turn, if there is one.
    fn next(&self) -> Result<Option<Role>, Failure> {
        match self.0.recv().as_deref() {
            Ok("controlling") => Ok(Some(Role::Controlling)),
            Ok("controlled") => Ok(Some(Role::Controlled)),
            Ok(other) => Err(format!("{other} is no role").into()),
            Err(_) => Ok(None),
        }
    }

    /// The other's description, and the time.
    fn description(&self) -> Result<(String, Duration), Failure> {
        let mut text = String::new();
        while !text.contains(END_OF_DESCRIPTION) {
            text = text + &self.0.recv()? + "\n";
        }
        Ok((text, now()))
    }

    /// Waits for the end of the turn.
    fn end(&self) -> Result<(), Failure> {
        self.0.recv()?;
        Ok(())
    }

    /// Whether the turn has ended.
    fn has_ended(&self) -> bool {
        self.0.try_recv() != Err(TryRecvError::Empty)
    }
}

fn ended(begun: Duration, ended: Duration, connected: bool) -> io::Result<()> {
    let word = if connected { "connected" } else { "failed" };
    say(&format!("{word} {} {}", begun.as_nanos(), ended.as_nanos()))
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

/// The monotonic clock, which all processes of one machine share.
fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists, and the time is written to where it lives.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
