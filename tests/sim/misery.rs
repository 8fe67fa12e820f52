//! Bad networks: every pair of NATs that can be traversed is, whatever is lost, doubled, late or out of order.
//!
//! `cargo test --test sim misery -- --nocapture` prints how long it took; `docs/faults.md` quotes it.

use crate::topology::{Pair, link};
use holepunch::{ErrorKind, peer::PeerEvent};
use netsim::{
    Bursts, Link, Mapping, Time,
    oracle::{Expectation, NatKind, expected, pair_name, unordered_pairs},
};
use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What is wrong with every link of the peers; a round trip between them crosses four.
fn networks() -> Vec<(&'static str, Link)> {
    let bursts = |good, bad, loss| Bursts { good: ms(good), bad: ms(bad), loss };
    let shaken = Link { duplicate: 0.1, reorder: 0.2, reorder_delay: ms(60), ..link().with_jitter(ms(50)) };
    vec![
        ("nothing", link()),
        ("loss 5 %", link().with_loss(0.05)),
        ("loss 10 %", link().with_loss(0.10)),
        ("loss 20 %", link().with_loss(0.20)),
        ("bursts of 100 ms each second, losing all", link().with_bursts(bursts(900, 100, 1.0))),
        ("bursts of 500 ms each 2 s, losing 80 %", link().with_bursts(bursts(1500, 500, 0.8))),
        ("a third arrives twice", Link { duplicate: 0.33, ..link() }),
        ("a third is 100 ms late (reordered)", Link { reorder: 0.33, reorder_delay: ms(100), ..link() }),
        ("1 ms a link", Link::delay_ms(1)),
        ("300 ms a link", Link::delay_ms(300)),
        ("300 ms a link, loss 10 %", Link::delay_ms(300).with_loss(0.10)),
        ("1 to 300 ms a link, at random", Link::delay_ms(1).with_jitter(ms(299))),
        ("loss 10 %, jitter 50 ms, doubled 10 %, late 20 %", shaken.with_loss(0.10)),
    ]
}

fn feasible() -> Vec<(NatKind, NatKind)> {
    let is_feasible =
        |(a, b): &(NatKind, NatKind)| matches!(expected(*a, *b), Expectation::Plain | Expectation::PeerReflexive);
    unordered_pairs().into_iter().filter(is_feasible).collect()
}

/// Runs a meeting from the first message to the server on; how long after the later introduction both were connected,
/// and how long after the call.
fn meet(seed: u64, kinds: (NatKind, NatKind), link: Link, stream: bool) -> Result<(Duration, Duration), ErrorKind> {
    let mut pair = Pair::new(seed, kinds.0, kinds.1);
    for site in pair.sites {
        pair.world.net.set_link(site, link);
    }
    pair.world.listen(pair.listener, pair.server, Some("bob"));
    let said = |event: &PeerEvent| matches!(event, PeerEvent::Registered { .. } | PeerEvent::ListenFailed { .. });
    assert!(pair.world.run_until(Duration::from_secs(60), |world| world.node(pair.listener).any(said)), "seed {seed}");
    let called = pair.world.net.now();
    match stream {
        true => pair.world.connect_stream(pair.connector, pair.server, "bob"),
        false => pair.world.connect(pair.connector, pair.server, "bob"),
    };
    let over = |world: &crate::world::World| {
        let is_over = |event: &PeerEvent| matches!(event, PeerEvent::Failed { .. });
        [pair.listener, pair.connector].iter().any(|node| world.node(*node).any(is_over))
            || [pair.listener, pair.connector].iter().all(|node| world.node(*node).is_connected())
    };
    pair.world.run_until(Duration::from_secs(60), over);
    let done = |node| pair.world.node(node).time_of(|event| matches!(event, PeerEvent::Connected { .. }));
    let (Some(listener), Some(connector)) = (done(pair.listener), done(pair.connector)) else {
        let events = [pair.listener, pair.connector].map(|node| pair.world.node(node).events.iter());
        let kinds = events.into_iter().flatten().filter_map(|(_, event)| match event {
            PeerEvent::Failed { error, .. } | PeerEvent::ListenFailed { error, .. } => Some(error.kind()),
            _ => None,
        });
        return Err(kinds
            .collect::<Vec<_>>()
            .pop()
            .unwrap_or_else(|| panic!("neither connected nor failed: seed {seed}")));
    };
    let done: Time = listener.max(connector);
    Ok((done.since(pair.later_introduction()), done.since(called)))
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize].as_millis();
    format!("{} | {} | {} | {}", at(0.5), at(0.95), at(0.99), at(1.0))
}

/// Meets over all these pairs; a row of the table, and what failed.
fn row(name: &str, link: Link, pairs: &[(NatKind, NatKind)], seeds: u64, stream: bool) -> (String, Vec<String>) {
    let (mut punched, mut called, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (a, b)) in pairs.iter().enumerate() {
        for seed in 0..seeds {
            let kinds = if seed % 2 == 0 { (*a, *b) } else { (*b, *a) };
            match meet(seed * 1000 + index as u64, kinds, link, stream) {
                Ok((punch, call)) => {
                    punched.push(punch);
                    called.push(call);
                }
                Err(kind) => {
                    failed.push(format!("{name}: {kind:?} {} seed {}", pair_name(*a, *b), seed * 1000 + index as u64));
                }
            }
        }
    }
    let total = pairs.len() as u64 * seeds;
    let connected = punched.len();
    (format!("| {name} | {connected} of {total} | {} | {} |", quantiles(punched), quantiles(called)), failed)
}

/// Meets in every network. All must connect, but of heavy bursts and, for streams, what loses their SYNs: a stream has one
/// connection with the system's timers, 1 s and more. Those that do not connect were told so, in time and with a reason.
fn all_networks(pairs: &[(NatKind, NatKind)], stream: bool, at_least: impl Fn(&str) -> f64) {
    let mut failures = Vec::new();
    for (name, link) in networks() {
        let (row, failed) = row(name, link, pairs, 4, stream);
        println!("{row}");
        let tried = pairs.len() as f64 * 4.0;
        if 1.0 - failed.len() as f64 / tried < at_least(name) {
            failures.extend(failed);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_feasible_pair_connects_in_bad_networks() {
    all_networks(&feasible(), false, |name| if name.starts_with("bursts of 500") { 0.98 } else { 1.0 });
}

#[test]
fn pairs_of_endpoint_independent_nats_give_a_stream_in_bad_networks() {
    let is_possible = |(a, b): &(NatKind, NatKind)| {
        a.mapping == Mapping::EndpointIndependent && b.mapping == Mapping::EndpointIndependent
    };
    let pairs: Vec<_> = feasible().into_iter().filter(is_possible).collect();
    let is_calm = |name: &str| ["nothing", "loss 5 %", "loss 10 %", "300 ms a link"].contains(&name);
    let at_least = |name: &str| match name {
        // Here already the server is not heard for seconds.
        heavy if heavy.starts_with("bursts of 500") => 0.95,
        calm if is_calm(calm) => 1.0,
        _ => 0.97,
    };
    all_networks(&pairs, true, at_least);
}
