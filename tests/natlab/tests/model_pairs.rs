//! The simulator's NATs, pair by pair, between real programs in real time: each of the 27 kinds, each of the techniques
//! that the oracle tells apart, over UDP and over TCP, and some with loss, with NATs that answer RST, and with Linux's
//! own NAT as one of the two.
//!
//! What plain punching can connect is connected, in the time that `tests/nat_matrix` and `tests/sim` find in virtual
//! time and what a busy machine adds; what it cannot fails with the typed timeout. A failure prints the seed and the
//! last of what the network did.

mod meeting;

use libtest_mimic::{Arguments, Failed, Trial};
use meeting::{connects, fails, serve};
use natlab::{Families, Home, LabError, Model, Router, field};
use netsim::{
    Link, Nat, UnsolicitedSyn,
    oracle::{Expectation, NatKind, expected, pair_name},
};
use std::{collections::BTreeSet, time::Duration};

/// One way between a site and the backbone; the round trip between two sites is four of these.
const DELAY: Duration = Duration::from_millis(20);
const ROUND_TRIP: Duration = Duration::from_millis(80);
/// What a busy machine may add to an exact time.
const SLACK: Duration = Duration::from_millis(500);
/// Trials at once: they wait more than they work.
const THREADS: usize = 6;

/// Every kind is in some pair, and every technique of the oracle in two or more; the listener's kind, the connector's.
const PAIRS: [(&str, &str); 28] = [
    // Plain.
    ("eim_apdf_preserving", "eim_apdf_preserving"),
    ("eim_apdf_sequential", "eim_apdf_random"),
    ("eim_apdf_random", "eim_apdf_random"),
    ("eim_eif_preserving", "apdm_apdf_random"),
    ("apdm_apdf_random", "eim_eif_preserving"),
    ("eim_eif_random", "adm_apdf_sequential"),
    ("eim_eif_sequential", "eim_eif_sequential"),
    ("adm_eif_preserving", "apdm_apdf_preserving"),
    ("adm_eif_random", "apdm_adf_random"),
    ("apdm_eif_random", "apdm_apdf_random"),
    ("apdm_eif_sequential", "adm_adf_preserving"),
    ("apdm_eif_preserving", "adm_eif_sequential"),
    // Peer-reflexive.
    ("eim_adf_preserving", "apdm_apdf_random"),
    ("apdm_apdf_random", "eim_adf_preserving"),
    ("eim_adf_sequential", "adm_apdf_random"),
    ("eim_adf_random", "apdm_adf_sequential"),
    ("adm_adf_random", "eim_adf_random"),
    ("eim_adf_preserving", "eim_apdf_preserving"),
    // Needs prediction or search.
    ("eim_apdf_preserving", "apdm_apdf_preserving"),
    ("eim_apdf_random", "apdm_apdf_random"),
    ("adm_adf_sequential", "apdm_adf_preserving"),
    ("adm_adf_random", "apdm_adf_random"),
    ("apdm_apdf_preserving", "apdm_apdf_preserving"),
    ("adm_apdf_preserving", "apdm_apdf_random"),
    ("adm_apdf_sequential", "adm_apdf_sequential"),
    // Impossible.
    ("apdm_apdf_random", "apdm_apdf_random"),
    ("adm_apdf_random", "apdm_apdf_sequential"),
    ("adm_apdf_random", "adm_apdf_random"),
];

/// Pairs that are tried with 5 % loss on each link too.
const LOSSY: [(&str, &str); 4] = [
    ("eim_apdf_random", "eim_apdf_random"),
    ("eim_eif_preserving", "apdm_apdf_random"),
    ("eim_adf_sequential", "adm_apdf_random"),
    ("apdm_eif_random", "apdm_apdf_random"),
];
const LOSS: f64 = 0.05;

/// Pairs of which both NATs answer an unsolicited SYN with a RST.
const RESETTING: [(&str, &str); 3] = [
    ("eim_apdf_preserving", "eim_apdf_preserving"),
    ("eim_adf_preserving", "apdm_apdf_random"),
    ("eim_apdf_random", "eim_apdf_random"),
];

/// One of Linux's routers, and the kind of NAT that it looks like.
const LINUX: [(Router, &str); 2] =
    [(Router::Masquerade, "eim_apdf_preserving"), (Router::MasqueradeRandom, "apdm_apdf_random")];
/// What is put on the other side of it.
const BESIDE_LINUX: [&str; 4] = ["eim_apdf_random", "eim_adf_preserving", "apdm_eif_sequential", "adm_apdf_random"];

fn kind(name: &str) -> NatKind {
    NatKind::all().into_iter().find(|kind| kind.name() == name).unwrap_or_else(|| panic!("no kind is called {name}"))
}

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Udp,
    Tcp,
}

/// What stands before one of the two.
#[derive(Clone)]
enum Border {
    Model(Nat),
    Linux(Router),
}

#[derive(Clone)]
struct Case {
    kinds: [NatKind; 2],
    borders: [Border; 2],
    transport: Transport,
    loss: f64,
    /// Of the model, printed when the trial fails.
    seed: u64,
}

fn main() {
    let mut arguments = Arguments::from_args();
    let wanted = std::env::var("RUST_TEST_THREADS").ok().and_then(|number| number.parse().ok());
    arguments.test_threads.get_or_insert(wanted.unwrap_or(THREADS));
    let shown: BTreeSet<_> = PAIRS.iter().flat_map(|(a, b)| [kind(a), kind(b)]).collect();
    assert_eq!(shown.len(), NatKind::all().len(), "every kind is in some pair");

    let mut trials = Vec::new();
    let mut add = |name: String, case: Case| {
        let test = name.clone();
        trials.push(Trial::test(name, move || trial(&test, &case)));
    };
    for (transport, prefix) in [(Transport::Udp, "udp"), (Transport::Tcp, "tcp")] {
        let case = |(a, b): (&str, &str), change: fn(&mut Nat)| {
            let kinds = [kind(a), kind(b)];
            let borders = kinds.map(|kind| {
                let mut nat = kind.nat();
                change(&mut nat);
                Border::Model(nat)
            });
            (pair_name(kinds[0], kinds[1]), Case { kinds, borders, transport, loss: 0.0, seed: 1 })
        };
        for pair in PAIRS {
            let (name, case) = case(pair, |_| {});
            add(format!("{prefix}_{name}"), case);
        }
        for (seed, pair) in (2..).zip(LOSSY) {
            let (name, case) = case(pair, |_| {});
            add(format!("{prefix}_{name}_with_loss"), Case { loss: LOSS, seed, ..case });
        }
        if transport == Transport::Tcp {
            for pair in RESETTING {
                let (name, case) = case(pair, |nat| nat.unsolicited_syn = UnsolicitedSyn::Reset);
                add(format!("{prefix}_{name}_that_reset"), case);
            }
        }
        if transport == Transport::Tcp {
            let looks = "eim_apdf_preserving";
            let (_, case) = case((looks, "eim_apdf_random"), |nat| nat.unsolicited_syn = UnsolicitedSyn::Reset);
            let ([_, modelled], linux) = (case.borders.clone(), Border::Linux(Router::MasqueradeReset));
            for (name, other) in [("itself", linux.clone()), ("eim_apdf_random_that_resets", modelled)] {
                let name = format!("tcp_linux_that_resets_x_{name}");
                add(name, Case { borders: [linux.clone(), other], ..case.clone() });
            }
        }
        for (router, looks) in LINUX {
            for other in BESIDE_LINUX {
                let (_, case) = case((looks, other), |_| {});
                let [_, modelled] = case.borders.clone();
                let name = format!("{prefix}_linux_that_looks_{looks}_x_{other}");
                add(name, Case { borders: [Border::Linux(router), modelled], ..case });
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(test: &str, case: &Case) -> Result<(), Failed> {
    let Some(mut model) = Model::or_skip(test, case.seed) else { return Ok(()) };
    run(&mut model, case).map_err(|error| {
        format!("{error}\nseed {}; the last of what the network did:\n{}", case.seed, model.last_of_trace()).into()
    })
}

fn run(model: &mut Model, case: &Case) -> Result<(), String> {
    let link = Link { delay: DELAY, loss: case.loss, ..Link::PERFECT };
    let server = serve(model)?;
    let mut home = |name: &str, border: &Border| -> Result<Home, LabError> {
        match border {
            Border::Model(nat) => model.nat_home(name, nat.clone(), link),
            Border::Linux(router) => model.linux_home(name, *router, Families::V4, link),
        }
    };
    let bob = home("bob", &case.borders[0]).map_err(|error| error.to_string())?;
    let alice = home("alice", &case.borders[1]).map_err(|error| error.to_string())?;
    let transport = if case.transport == Transport::Tcp { "--tcp" } else { "--udp" };
    match expected(case.kinds[0], case.kinds[1]) {
        Expectation::Plain | Expectation::PeerReflexive => {
            // A datagram of the command may be lost for good.
            let lossless = || {
                for site in [bob.site, alice.site].into_iter().flatten() {
                    model.with(|network| network.set_link(site, Link { loss: 0.0, ..link }));
                }
            };
            let then = || {
                if case.transport == Transport::Udp {
                    lossless()
                }
            };
            let (listener, connector) = connects(&server, &bob.host, &alice.host, &[transport], then)?;
            for (report, other) in [(&connector, &bob), (&listener, &alice)] {
                if report.remote.ip() != other.public {
                    return Err(format!("not by way of {}: {}", other.public, report.line));
                }
            }
            if case.loss == 0.0 { in_time(case.transport, &[&listener.line, &connector.line]) } else { Ok(()) }
        }
        Expectation::NeedsMore | Expectation::Impossible => {
            fails(&server, &bob.host, &alice.host, &[transport], ("timeout", 7))
        }
    }
}

/// In virtual time a datagram connection takes a round trip and a half at most, and a stream three from the
/// introduction.
fn in_time(transport: Transport, reports: &[&str]) -> Result<(), String> {
    let limit = ROUND_TRIP.mul_f64(if transport == Transport::Udp { 1.5 } else { 3.0 }) + SLACK;
    for line in reports {
        let took: f64 = field(line, "since_introduction_ms").and_then(|text| text.parse().ok()).unwrap_or(f64::MAX);
        if took > limit.as_secs_f64() * 1e3 {
            return Err(format!("took longer than {limit:?}: {line}"));
        }
    }
    Ok(())
}
