//! How long it takes, in virtual time and so exactly; `docs/performance.md` quotes what is printed here.

use crate::topology::{DELAY, Pair, ROUND_TRIP, link};
use netsim::{
    Link,
    oracle::{Expectation, NatKind, expected, pair_name, unordered_pairs},
    probe,
};
use std::time::Duration;

fn feasible_pairs() -> Vec<(NatKind, NatKind)> {
    let is_feasible =
        |(a, b): &(NatKind, NatKind)| matches!(expected(*a, *b), Expectation::Plain | Expectation::PeerReflexive);
    unordered_pairs().into_iter().filter(is_feasible).collect()
}

/// From the call to connected: two round trips to the server, then one (or one and a half) between the peers.
#[test]
fn a_connect_takes_two_round_trips_to_the_server_more_than_the_punch() {
    for (a, b) in feasible_pairs() {
        let mut pair = Pair::new(1, a, b);
        pair.introduce();
        let called = pair.later_introduction().since(netsim::Time::ZERO);
        assert!(pair.run_until_connected(Duration::from_secs(5)));
        // The listener was registered after two round trips to the server, of two links each; so was the connector's cookie.
        assert_eq!(called, DELAY * 2 * 2 + DELAY * 2 * 2, "{}", pair_name(a, b));
    }
}

struct Distribution(Vec<f64>);

impl Distribution {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    fn quantile(&self, q: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * q).round() as usize]
    }

    fn line(&self) -> String {
        let [p50, p95, p99, worst] = [0.5, 0.95, 0.99, 1.0].map(|q| self.quantile(q));
        format!("p50 {p50:.2}  p95 {p95:.2}  p99 {p99:.2}  worst {worst:.2}")
    }
}

/// Round trips from the later introduction to connected on both sides, over all feasible pairs, beside a bare probe
/// every 20 ms in the same network with the same seeds.
#[test]
fn loss_costs_no_more_than_it_costs_a_bare_probe() {
    const SEEDS: u64 = 3000;
    let pairs = feasible_pairs();
    for loss in [0.05, 0.10] {
        let mut ours = Vec::new();
        let mut bare = Vec::new();
        for seed in 0..SEEDS {
            let (a, b) = pairs[seed as usize * 7919 % pairs.len()];
            let mut pair = Pair::new(seed, a, b);
            pair.introduce();
            for site in pair.sites {
                pair.world.net.set_link(site, link().with_loss(loss));
            }
            assert!(pair.run_until_connected(Duration::from_secs(30)), "{} loss {loss} seed {seed}", pair_name(a, b));
            let time = pair.world.net.now().since(pair.later_introduction());
            ours.push(time.div_duration_f64(ROUND_TRIP));
            let lossy = Link { delay: DELAY, ..Link::PERFECT }.with_loss(loss);
            let probe = probe::run(seed, a, b, lossy).connected.expect("the probe connects");
            bare.push(Duration::from_nanos(probe).div_duration_f64(ROUND_TRIP));
        }
        let [ours, bare] = [ours, bare].map(Distribution::of);
        println!("loss {loss} on each link, {SEEDS} seeds, in round trips");
        println!("  holepunch   {}", ours.line());
        println!("  bare probe  {}", bare.line());
        assert!(ours.quantile(0.99) <= 1.2 * bare.quantile(0.99));
        assert!(ours.quantile(1.0) <= 1.2 * bare.quantile(1.0));
    }
}

/// The same where the messages of the introduction are lost like all others, so that one side learns of the other long
/// before the other learns of it: from the later introduction on, when the earlier side has checked for a while already.
#[test]
fn an_introduction_that_is_lost_costs_no_more() {
    const SEEDS: u64 = 3000;
    let pairs = feasible_pairs();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for seed in 0..SEEDS {
        let (a, b) = pairs[seed as usize * 7919 % pairs.len()];
        let mut pair = Pair::new(seed, a, b);
        pair.world.listen(pair.listener, pair.server, Some("bob"));
        pair.world.run_until_registered(pair.listener);
        for site in pair.sites {
            pair.world.net.set_link(site, link().with_loss(0.1));
        }
        pair.world.connect(pair.connector, pair.server, "bob");
        assert!(pair.run_until_connected(Duration::from_secs(30)), "{} seed {seed}", pair_name(a, b));
        ours.push(pair.world.net.now().since(pair.later_introduction()).div_duration_f64(ROUND_TRIP));
        let probe = probe::run(seed, a, b, link().with_loss(0.1)).connected.expect("the probe connects");
        bare.push(Duration::from_nanos(probe).div_duration_f64(ROUND_TRIP));
    }
    let [ours, bare] = [ours, bare].map(Distribution::of);
    println!("loss 0.1 on each link, of the introduction too, {SEEDS} seeds, in round trips");
    println!("  holepunch   {}", ours.line());
    println!("  bare probe  {}", bare.line());
    assert!(ours.quantile(0.99) <= bare.quantile(0.99));
    // What is left was lost so often that checks were sent one by one.
    assert!(ours.quantile(0.995) <= 1.2 * bare.quantile(0.99));
}

/// One seed, one trace: in this process and in another.
#[test]
fn a_seed_gives_the_same_trace_in_another_process() {
    const CHILD: &str = "HOLEPUNCH_TEST_PRINT_DIGEST";
    let digest = || {
        let kinds = NatKind::all();
        let mut pair = Pair::new(42, kinds[10], kinds[3]);
        for site in pair.sites {
            let jittery = link().with_loss(0.1).with_jitter(Duration::from_millis(7));
            pair.world.net.set_link(site, Link { duplicate: 0.1, reorder: 0.1, ..jittery });
        }
        pair.introduce();
        pair.run_until_connected(Duration::from_secs(30));
        pair.world.run_for(Duration::from_secs(60));
        pair.world.net.trace_digest()
    };
    let here = digest();
    assert_eq!(here, digest());
    if std::env::var_os(CHILD).is_some() {
        println!("digest {here:016x}");
        return;
    }
    let name = "timing::a_seed_gives_the_same_trace_in_another_process";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("digest {here:016x}")), "{text}");
}
