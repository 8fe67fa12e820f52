//! The lab for scripts and other languages; see `USAGE`.

mod demo;

use natlab::{Families, Lab, LabError, Router};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
natlab demo

Shows two peers behind two NATs finding a direct path, step by step; on the loopback interface where
namespaces are not allowed. Runs the command that HOLEPUNCH_BIN names, or builds it.
Status: 0 when everything worked, 1 otherwise.

natlab run [--left KIND] [--right KIND] [--ipv6] -- COMMAND...

Makes a public server and two clients, each behind a router of its KIND, runs COMMAND outside of
them, and removes everything. KIND is masquerade (the default), fully-random, firewall, or none.
COMMAND finds the namespaces, for `ip netns exec`, and the server's address in its environment:
NATLAB_SERVER, NATLAB_LEFT, NATLAB_RIGHT, NATLAB_ADDRESS.
Status: COMMAND's; 2 for wrong usage; 77 where namespaces are not allowed; 1 otherwise.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["demo"] {
        return demo::run();
    }
    let Some(plan) = Plan::parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match plan.run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("natlab: {error}");
            ExitCode::from(if matches!(error, LabError::NotAllowed(_)) { 77 } else { 1 })
        }
    }
}

struct Plan<'a> {
    left: Option<Router>,
    right: Option<Router>,
    families: Families,
    command: &'a [String],
}

impl<'a> Plan<'a> {
    fn parse(arguments: &'a [String]) -> Option<Self> {
        let [verb, rest @ ..] = arguments else { return None };
        let middle = rest.iter().position(|argument| argument == "--")?;
        let (mut options, command) = (rest[..middle].iter(), &rest[middle + 1..]);
        if verb != "run" || command.is_empty() {
            return None;
        }
        let (left, right) = (Some(Router::Masquerade), Some(Router::Masquerade));
        let mut plan = Plan { left, right, families: Families::V4, command };
        while let Some(option) = options.next() {
            match option.as_str() {
                "--left" => plan.left = kind(options.next()?)?,
                "--right" => plan.right = kind(options.next()?)?,
                "--ipv6" => plan.families = Families::V6,
                _ => return None,
            }
        }
        Some(plan)
    }

    fn run(&self) -> Result<u8, LabError> {
        let mut lab = Lab::new()?;
        let server = lab.host("server")?;
        let mut client = |name: &str, kind: Option<Router>| match kind {
            None => lab.host(name),
            Some(kind) => {
                let mut site = lab.site(&format!("{name}-router"), kind, self.families)?;
                lab.client(&mut site, name)
            }
        };
        let (left, right) = (client("left", self.left)?, client("right", self.right)?);
        let address = if self.families == Families::V6 { server.ipv6() } else { Some(server.address()) };
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        for (name, host) in [("NATLAB_SERVER", &server), ("NATLAB_LEFT", &left), ("NATLAB_RIGHT", &right)] {
            command.env(name, host.namespace());
        }
        command.env("NATLAB_ADDRESS", address.map(|address| address.to_string()).unwrap_or_default());
        let status = command.status()?;
        // A command that died of a signal has no code; shells say 128 and more.
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(128))
    }
}

/// `none` is no router at all; an unknown word is `None`.
fn kind(name: &str) -> Option<Option<Router>> {
    if name == "none" { Some(None) } else { Router::parse(name).map(Some) }
}
