//! Whether and when two agents are connected, ours beside libnice and aioice and a bare probe, behind the simulator's
//! NATs in real time, with loss and without.
//!
//! A lab (`tests/natlab`) has two homes, each behind a NAT of its own and 20 ms from a server, so that a round trip
//! between the two is 80 ms. Every contender is a pair of programs that live as long as the lab (`ice_peers`); they take
//! turns, in another order each round. Before a turn the links lose nothing, so that both gather their candidates and
//! get the other's description; from then on they lose what they are to lose, toward the server too. What is measured is
//! from when the later of both has the description until the later of both is connected; of a connection by way of our
//! server, from the later introduction on.
//!
//! There are pairs of NATs that plain punching can connect, and a few that it cannot: of those it is shown who gives up,
//! and when.
//!
//!     cargo bench --features server --bench ice [-- [rounds=NUMBER] [COMMAND...]]      # as root
//!
//! A COMMAND is the program of another contender, which is given the address of a STUN server; `benches/run` adds
//! libnice and aioice. Several labs run at once: they wait far more than they work.

mod ice_peers;
mod rendezvous;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ice_peers::{Contender, Failure, LIMIT, NAMES, PATIENCE, Side};
use natlab::{LabError, Model};
use netsim::{Link, oracle::NatKind};
use rendezvous::{Rendezvous, is_measurement};

/// One way between a home and the internet, and between the homes there and back.
const DELAY: Duration = Duration::from_millis(20);
const ROUND_TRIP: Duration = Duration::from_millis(80);
/// On each link, each way.
const LOSS: f64 = 0.1;
/// In each lab when this is a measurement.
const ROUNDS: usize = 40;
/// Labs at once.
const LABS: usize = 6;

/// All that plain punching can connect, of the pairs that `tests/natlab` runs: each kind of mapping, filtering and port.
const FEASIBLE: [(&str, &str); 18] = [
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
    ("eim_adf_preserving", "apdm_apdf_random"),
    ("apdm_apdf_random", "eim_adf_preserving"),
    ("eim_adf_sequential", "adm_apdf_random"),
    ("eim_adf_random", "apdm_adf_sequential"),
    ("adm_adf_random", "eim_adf_random"),
    ("eim_adf_preserving", "eim_apdf_preserving"),
];

/// One that prediction could connect, one that search could, and one that nothing can.
const INFEASIBLE: [(&str, &str); 3] = [
    ("eim_apdf_preserving", "apdm_apdf_preserving"),
    ("eim_apdf_random", "apdm_apdf_random"),
    ("apdm_apdf_random", "apdm_apdf_random"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = match arguments.as_slice() {
        [name, server] if NAMES.contains(&name.as_str()) => ice_peers::run(name, server),
        _ => drive(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ice: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Two NATs and what their links lose.
#[derive(Clone, Copy)]
struct Case {
    pair: (&'static str, &'static str),
    feasible: bool,
    loss: f64,
    rounds: usize,
}

/// What came of one turn of a contender.
#[derive(Clone, Copy)]
struct Outcome {
    pair: (&'static str, &'static str),
    feasible: bool,
    lossy: bool,
    contender: usize,
    sides: [Side; 2],
}

impl Outcome {
    /// How long it took until both were connected.
    fn time(&self) -> Option<Duration> {
        let [one, other] = self.sides;
        let time = one.ended.max(other.ended).saturating_sub(one.begun.max(other.begun));
        (one.connected && other.connected && time <= LIMIT).then_some(time)
    }

    /// When each side gave up, if it did of its own accord; the earlier first.
    fn given_up(&self) -> [Option<Duration>; 2] {
        let mut sides = self.sides.map(|side| side.ended.saturating_sub(side.begun));
        sides.sort();
        sides.map(|time| Some(time).filter(|time| *time < PATIENCE))
    }
}

/// All that was measured, and the names of the contenders.
#[derive(Default)]
struct Results {
    names: Vec<String>,
    outcomes: Vec<Outcome>,
}

fn drive(arguments: &[String]) -> Result<(), Failure> {
    let (mut rounds, mut commands) = (ROUNDS, Vec::new());
    for argument in arguments {
        match argument.strip_prefix("rounds=") {
            Some(number) => rounds = number.parse()?,
            None => commands.push(argument.clone()),
        }
    }
    let begin = Instant::now();
    let mut cases = cases(rounds);
    if !is_measurement() {
        // One is enough to see that it works.
        rounds = 1;
        cases = vec![Case { rounds, ..cases[cases.len() - 1] }];
    }
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Results::default()));
    let work = || -> Result<(), Failure> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(number) else { return Ok(()) };
            measure(*case, number as u64, &commands, &results)?;
        }
    };
    let done = thread::scope(|scope| {
        let labs: Vec<_> = (0..LABS.min(cases.len())).map(|_| scope.spawn(work)).collect();
        labs.into_iter().try_for_each(|lab| lab.join().expect("a lab does not panic"))
    });
    match done {
        Ok(()) => report(&results.into_inner().expect("nobody panics with it"), rounds, begin.elapsed()),
        Err(error) if matches!(error.downcast_ref(), Some(LabError::NotAllowed(_))) => println!("left out: {error}"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The longest first, so that the labs end together.
fn cases(rounds: usize) -> Vec<Case> {
    let infeasible = INFEASIBLE.map(|pair| Case { pair, feasible: false, loss: 0.0, rounds: 1 });
    let feasible = |loss| FEASIBLE.map(|pair| Case { pair, feasible: true, loss, rounds });
    [&infeasible[..], &feasible(LOSS), &feasible(0.0)].concat()
}

// --- A lab -----------------------------------------------------------------------------------------------------------

fn measure(case: Case, seed: u64, commands: &[String], results: &Mutex<Results>) -> Result<(), Failure> {
    let mut model = Model::new(seed)?;
    let host = model.server()?;
    let link = Link { delay: DELAY, ..Link::PERFECT };
    let homes = [
        model.nat_home("left", kind(case.pair.0).nat(), link)?,
        model.nat_home("right", kind(case.pair.1).nat(), link)?,
    ];
    let server = host.within(|| Rendezvous::start(&host.address().to_string()))?;
    let this = env::current_exe()?.to_string_lossy().into_owned();
    let own = NAMES.map(|name| format!("{this} {name}"));
    let start = |command: &String| Contender::start(command, &homes, &server.address);
    let mut contenders = own.iter().chain(commands).map(start).collect::<Result<Vec<_>, _>>()?;
    let set_loss = |loss| {
        for site in homes.iter().filter_map(|home| home.site) {
            model.with(|network| network.set_link(site, Link { loss, ..link }));
        }
    };
    let note = |contender: usize, sides| {
        let Case { pair, feasible, .. } = case;
        let outcome = Outcome { pair, feasible, lossy: case.loss > 0.0, contender, sides };
        results.lock().expect("nobody panics with it").outcomes.push(outcome);
    };
    results.lock().expect("nobody panics with it").names = contenders.iter().map(|each| each.name.clone()).collect();
    if !case.feasible {
        // Nothing is timed but who gives up, so all may do so at once.
        return thread::scope(|scope| {
            let turns: Vec<_> = contenders.iter_mut().map(|each| scope.spawn(|| each.turn(0, &|_| ()))).collect();
            for (number, turn) in turns.into_iter().enumerate() {
                note(number, turn.join().expect("a turn does not panic")?);
            }
            Ok(())
        });
    }
    for round in 0..case.rounds {
        for turn in 0..contenders.len() {
            let number = (round + turn) % contenders.len();
            let sides =
                contenders[number].turn(round, &|exchanged| set_loss(if exchanged { case.loss } else { 0.0 }))?;
            note(number, sides);
        }
    }
    Ok(())
}

fn kind(name: &str) -> NatKind {
    NatKind::all().into_iter().find(|kind| kind.name() == name).unwrap_or_else(|| panic!("no kind is called {name}"))
}

// --- The tables ------------------------------------------------------------------------------------------------------

fn report(results: &Results, rounds: usize, took: Duration) {
    let select = |contender: usize, lossy: bool, pair: Option<(&str, &str)>| {
        let all = results.outcomes.iter().filter(move |outcome| {
            let is_one = outcome.feasible && outcome.contender == contender && outcome.lossy == lossy;
            is_one && pair.is_none_or(|pair| pair == outcome.pair)
        });
        Times::of(all)
    };
    let (pairs, seconds) = (FEASIBLE.len(), took.as_secs());
    println!("{pairs} pairs, {rounds} rounds of each, {LABS} labs at once, {seconds} s:\n");
    println!("| loss on each link | | connected | p50 / p95 / p99 / worst, ms | in round trips | p99 : bare probe |");
    println!("|---|---|---|---|---|---|");
    for (lossy, loss) in [(false, "0 %"), (true, "10 %")] {
        let floor = select(0, lossy, None).quantile(0.99);
        for (contender, name) in results.names.iter().enumerate() {
            let times = select(contender, lossy, None);
            let loss = if contender == 0 { loss } else { "" };
            let [ms, round_trips] = [times.row(1e3, 0), times.row(1.0 / ROUND_TRIP.as_secs_f64(), 2)];
            let ratio = number(times.quantile(0.99) / floor, 2);
            println!("| {loss} | {name} | {} | {ms} | {round_trips} | {ratio} |", times.connected());
        }
    }

    let head = |what: &str| {
        println!("\n| {what} | | {} |", results.names.join(" | "));
        println!("|---|---|{}", "---|".repeat(results.names.len()));
    };
    head("round trips, p50 without loss, p95 with it");
    for (left, right) in FEASIBLE {
        let mut line = format!("| {left} | {right} |");
        for contender in 0..results.names.len() {
            let [without, with] = [false, true].map(|lossy| select(contender, lossy, Some((left, right))));
            let round_trips = |seconds: f64| number(seconds / ROUND_TRIP.as_secs_f64(), 1);
            let [median, tail] = [round_trips(without.quantile(0.5)), round_trips(with.quantile(0.95))];
            let failed = without.tried + with.tried - without.seconds.len() - with.seconds.len();
            let failed = if failed > 0 { format!(" ({failed} failed)") } else { String::new() };
            let _ = write!(line, " {median}, {tail}{failed} |");
        }
        println!("{line}");
    }

    head("given up after, s, the earlier side and the later");
    let mut hopeless = BTreeMap::<_, Vec<_>>::new();
    for outcome in results.outcomes.iter().filter(|outcome| !outcome.feasible) {
        hopeless.entry(outcome.pair).or_default().push(outcome);
    }
    for ((left, right), mut outcomes) in hopeless {
        outcomes.sort_by_key(|outcome| outcome.contender);
        let cell = |outcome: &&Outcome| match (outcome.time(), outcome.given_up()) {
            (Some(time), _) => format!("connected after {:.1}", time.as_secs_f64()),
            (None, sides) => sides.map(|time| number(time.map_or(f64::NAN, |time| time.as_secs_f64()), 1)).join(", "),
        };
        println!("| {left} | {right} | {} |", outcomes.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
}

/// How long those took that connected, in order, and how many tried.
struct Times {
    seconds: Vec<f64>,
    tried: usize,
}

impl Times {
    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let times: Vec<_> = outcomes.map(Outcome::time).collect();
        let tried = times.len();
        let mut seconds: Vec<_> = times.into_iter().flatten().map(|time| time.as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        Self { seconds, tried }
    }

    fn connected(&self) -> String {
        format!("{} of {}", self.seconds.len(), self.tried)
    }

    /// Not a number where nothing has connected.
    fn quantile(&self, q: f64) -> f64 {
        let index = (self.seconds.len().saturating_sub(1) as f64 * q).round() as usize;
        self.seconds.get(index).copied().unwrap_or(f64::NAN)
    }

    fn row(&self, factor: f64, decimals: usize) -> String {
        [0.5, 0.95, 0.99, 1.0].map(|q| number(self.quantile(q) * factor, decimals)).join(" / ")
    }
}

/// A dash for what is none.
fn number(value: f64, decimals: usize) -> String {
    if value.is_nan() { "–".into() } else { format!("{value:.decimals$}") }
}
