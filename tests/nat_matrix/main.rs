//! Every unordered pair of the 27 kinds of NAT, each a named test, held against the oracle and a committed snapshot.
//!
//! Without loss each pair is tried both ways round. A pair that plain punching can connect is connected, in exactly
//! one round trip after the later introduction where both mapped addresses are right, or one and a half where one is
//! learned from a check; data passes both ways. The same with 5 and 10 % loss on each link, in whatever time. Every
//! other pair fails with a typed timeout on both sides, and neither keeps a socket or sends a packet for it afterwards.
//!
//! The snapshot has the round trips and the packets that each side had sent; virtual time makes both exact.
//! `HOLEPUNCH_BLESS=1 cargo test --test nat_matrix` writes it anew.

#[path = "../sim/topology.rs"]
mod topology;
#[path = "../sim/world.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod world;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, time::Duration};

use holepunch::{ErrorKind, peer::PeerEvent};
use libtest_mimic::{Arguments, Failed, Trial};
use netsim::oracle::{Expectation, NatKind, expected, pair_name, unordered_pairs};

use topology::{Pair, ROUND_TRIP, link, path};

/// Seeds tried with loss, each way round.
const LOSSY_SEEDS: u64 = 8;

fn main() {
    let arguments = Arguments::from_args();
    let snapshot_path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/nat_matrix/snapshot.txt");
    if std::env::var_os("HOLEPUNCH_BLESS").is_some() {
        let rows = unordered_pairs().iter().fold(String::new(), |mut rows, (a, b)| {
            let row = lossless(*a, *b).unwrap_or_else(|failed| format!("{failed:?}"));
            writeln!(rows, "{row}").unwrap();
            rows
        });
        fs::write(&snapshot_path, rows).unwrap();
    }
    let snapshot = fs::read_to_string(&snapshot_path).unwrap_or_default();
    let rows: BTreeMap<&str, &str> = snapshot.lines().filter_map(|row| Some((row.split_once(' ')?.0, row))).collect();
    let trials = unordered_pairs().into_iter().map(|(a, b)| {
        let name = pair_name(a, b);
        let committed = rows.get(name.as_str()).copied().unwrap_or_default().to_owned();
        Trial::test(name, move || trial(a, b, &committed))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn trial(a: NatKind, b: NatKind, committed: &str) -> Result<(), Failed> {
    let row = lossless(a, b)?;
    if row != committed {
        return Err(format!("the snapshot has\n  {committed}\nbut now it is\n  {row}").into());
    }
    if is_feasible(a, b) {
        for loss in [0.05, 0.10] {
            for seed in 0..LOSSY_SEEDS {
                lossy(seed, a, b, loss)?;
                lossy(seed, b, a, loss)?;
            }
        }
    }
    Ok(())
}

fn is_feasible(a: NatKind, b: NatKind) -> bool {
    match expected(a, b) {
        Expectation::Plain | Expectation::PeerReflexive => true,
        Expectation::NeedsMore | Expectation::Impossible => false,
    }
}

/// The row of a pair: label, and the outcome each way round.
fn lossless(a: NatKind, b: NatKind) -> Result<String, Failed> {
    let label = match expected(a, b) {
        Expectation::Plain => "plain",
        Expectation::PeerReflexive => "peer-reflexive",
        Expectation::NeedsMore => "needs more",
        Expectation::Impossible => "impossible",
    };
    let outcome = if is_feasible(a, b) { connects } else { times_out };
    Ok(format!("{}  {label}  {}  {}", pair_name(a, b), outcome(a, b)?, outcome(b, a)?))
}

fn connects(listener: NatKind, connector: NatKind) -> Result<String, Failed> {
    let mut pair = Pair::new(1, listener, connector);
    let session = pair.introduce();
    if !pair.run_until_connected(Duration::from_secs(30)) {
        return Err(capture(&pair, "not connected"));
    }
    let round_trips = pair.world.net.now().since(pair.later_introduction()).div_duration_f64(ROUND_TRIP);
    let [listener, connector] = [pair.listener, pair.connector].map(|node| path(&pair.world, node).unwrap());
    if !pair.exchange_data(session) {
        return Err(capture(&pair, "connected, but data did not arrive"));
    }
    if round_trips != 1.0 && round_trips != 1.5 {
        return Err(capture(&pair, &format!("took {round_trips} round trips")));
    }
    Ok(format!("{round_trips:.1} rtt, packets {} {}", listener.packets_sent, connector.packets_sent))
}

fn lossy(seed: u64, listener: NatKind, connector: NatKind, loss: f64) -> Result<(), Failed> {
    let mut pair = Pair::new(seed, listener, connector);
    let session = pair.introduce();
    for site in pair.sites {
        pair.world.net.set_link(site, link().with_loss(loss));
    }
    if !pair.run_until_connected(Duration::from_secs(30)) {
        return Err(capture(&pair, &format!("not connected; loss {loss}, seed {seed}")));
    }
    for site in pair.sites {
        pair.world.net.set_link(site, link());
    }
    if pair.exchange_data(session) {
        Ok(())
    } else {
        Err(capture(&pair, &format!("data did not arrive; loss {loss}, seed {seed}")))
    }
}

fn times_out(listener: NatKind, connector: NatKind) -> Result<String, Failed> {
    let mut pair = Pair::new(1, listener, connector);
    pair.introduce();
    pair.world.run_for(Duration::from_secs(31));
    for node in [pair.listener, pair.connector] {
        let kinds: Vec<_> = pair.world.node(node).events.iter().filter_map(|(_, event)| failure(event)).collect();
        if kinds != [ErrorKind::Timeout] {
            return Err(capture(&pair, &format!("failures: {kinds:?}")));
        }
    }
    let before = pair.world.net.counters(pair.world.host(pair.connector)).packets_sent;
    pair.world.run_for(Duration::from_secs(120));
    let after = pair.world.net.counters(pair.world.host(pair.connector)).packets_sent;
    if before != after || !pair.world.sockets(pair.connector).is_empty() {
        return Err(capture(&pair, "the connector has left something behind"));
    }
    // Two keepalives a family and 25 s; the listener has one family here that reaches the server.
    let keepalives = pair.world.net.counters(pair.world.host(pair.listener)).packets_sent;
    pair.world.run_for(Duration::from_secs(25));
    let more = pair.world.net.counters(pair.world.host(pair.listener)).packets_sent - keepalives;
    if more != 1 {
        return Err(capture(&pair, &format!("the listener sent {more} packets in 25 s")));
    }
    Ok("timeout".to_owned())
}

fn failure(event: &PeerEvent) -> Option<ErrorKind> {
    match event {
        PeerEvent::Failed { error, .. } => Some(error.kind()),
        _ => None,
    }
}

/// A failure, with a capture of what crossed the network.
fn capture(pair: &Pair, message: &str) -> Failed {
    let path = std::env::temp_dir().join(format!("holepunch-nat-matrix-{}.pcap", std::process::id()));
    let saved = fs::write(&path, pair.world.net.pcap()).is_ok();
    let capture = if saved { path.display().to_string() } else { "not saved".to_owned() };
    format!("{message}\ncapture: {capture}\n{}", pair.world.net.trace()).into()
}
