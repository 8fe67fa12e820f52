//! The main job before one's eyes: a server, two peers behind two NATs, a direct path, data both ways after the server is gone.

use natlab::{Artefacts, Families, Host, Lab, LabError, Pair, Place, Rendezvous, Router, Site, Stream, field};
use std::{
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the demonstration and says how it went.
pub(crate) fn run() -> ExitCode {
    let begin = Instant::now();
    match show() {
        Ok(()) => {
            println!("\nDone in {:.1} s; everything is cleaned up.", begin.elapsed().as_secs_f32());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!();
            eprintln!("The demonstration failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where everything runs.
struct Stage {
    server: Place,
    alice: Place,
    bob: Place,
    /// The public addresses of the NATs of alice and bob.
    public: Option<[SocketAddr; 2]>,
    _lab: Option<Lab>,
}

fn show() -> Result<(), String> {
    step(1, "Two homes, each behind its own NAT, and a public server");
    let stage = set_up()?;

    step(2, "The server starts, and bob listens");
    let mut server = Rendezvous::start(&stage.server, &[])?;
    say(&format!("server is ready at {}", server.address));
    let command = || Artefacts::get().holepunch();
    say(&format!("bob $ holepunch listen bob --udp --server {}", server.address));
    say(&format!("alice $ holepunch connect bob --udp --server {}", server.address));
    let mut pair = Pair::start(server.address, (&stage.bob, command()), (&stage.alice, command()), &["--udp"])?;
    let registered = event(&pair.listener.lines(Stream::Err), "registered");
    say(&format!("bob is registered; the server sees him at {}", value(&registered, "mapped")));

    step(3, "They are introduced, and punch");
    let (bob, alice) = pair.connected()?;
    for (who, report) in [("alice", &alice), ("bob", &bob)] {
        say(&format!(
            "{who:<5} {} <-> {}  direct over {}, path {}, strategy {}",
            report.local,
            report.remote,
            value(&report.line, "transport"),
            report.path,
            value(&report.line, "strategy"),
        ));
    }
    say(&format!(
        "connected {} ms after the introduction, round trip {} ms, {} packets sent by alice",
        value(&alice.line, "since_introduction_ms"),
        value(&alice.line, "rtt_ms"),
        value(&alice.line, "packets_sent"),
    ));
    if let Some([for_alice, for_bob]) = stage.public
        && (alice.remote.ip() != for_bob.ip() || bob.remote.ip() != for_alice.ip())
    {
        return Err("the path does not lead through the NATs' public addresses".into());
    }

    step(4, "The server is stopped; data goes both ways without it");
    server.program.signal("TERM").map_err(|error| error.to_string())?;
    server.program.wait(PATIENCE)?;
    pair.exchange("Hello alice, this is bob.", "Hello bob, this is alice.")?;
    say("bob received:   Hello bob, this is alice.");
    say("alice received: Hello alice, this is bob.");
    pair.end()?;
    say("both said goodbye and ended with status 0");
    Ok(())
}

fn set_up() -> Result<Stage, String> {
    let mut lab = match Lab::new() {
        Ok(lab) => lab,
        Err(error @ LabError::NotAllowed(_)) => {
            say(&error.to_string());
            say("So there are no NATs: all three run on the loopback interface.");
            let (server, alice, bob) = (Place::Loopback, Place::Loopback, Place::Loopback);
            return Ok(Stage { server, alice, bob, public: None, _lab: None });
        }
        Err(error) => return Err(error.to_string()),
    };
    let fail = |error: LabError| error.to_string();
    let mut home = |name: &str| -> Result<(Site, Host), LabError> {
        let mut site = lab.site(&format!("{name}-nat"), Router::Masquerade, Families::V4)?;
        let host = lab.client(&mut site, name)?;
        Ok((site, host))
    };
    let (alice_nat, alice) = home("alice").map_err(fail)?;
    let (bob_nat, bob) = home("bob").map_err(fail)?;
    let server = lab.host("server").map_err(fail)?;
    let (left, right) = (alice_nat.public[0].to_string(), bob_nat.public[0].to_string());
    say("");
    say(&format!("{:<14}{:<18}               {:>18}{:>14}", "alice", "NAT", "NAT", "bob"));
    say(&format!(
        "{:<14}{left:<18}-- internet --  {right:>17}{:>14}",
        alice.address().to_string(),
        bob.address().to_string()
    ));
    say(&format!("{:>43}", "|"));
    say(&format!("{:>50}", format!("server {}", server.address())));
    say("");
    say("Linux network namespaces with Linux's own NAT, which drops what nobody inside asked for.");
    let public = [&alice_nat, &bob_nat].map(|site| SocketAddr::new(site.public[0], 0));
    let [server, alice, bob] = [&server, &alice, &bob].map(Place::from);
    Ok(Stage { server, alice, bob, public: Some(public), _lab: Some(lab) })
}

fn step(number: u8, title: &str) {
    println!("\n[{number}/4] {title}");
}

fn say(text: &str) {
    println!("      {text}");
}

fn event(lines: &[String], name: &str) -> String {
    lines.iter().find(|line| field(line, "event") == Some(name)).cloned().unwrap_or_default()
}

/// A field's value as text, also where it is a list of one.
fn value(line: &str, name: &str) -> String {
    field(line, name).unwrap_or("?").trim_matches(['[', ']', '"']).to_owned()
}
