//! A server and two peers, run by the command line, from start to end; what each test and the demonstration do.

use crate::{Artefacts, Host, Program, Stream};
use std::{io, net::SocketAddr, process::Command, time::Duration};

/// More than any step takes on a busy machine; every wait ends at once when the step is done.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where programs run: in a lab, or on this machine where labs are not allowed.
#[derive(Clone, Debug)]
pub enum Place {
    /// Inside a host of a lab.
    Host(Host),
    /// On the loopback interface.
    Loopback,
}

impl Place {
    /// Starts a program there; `name` marks its output.
    pub fn spawn(&self, name: &str, command: Command) -> io::Result<Program> {
        match self {
            Self::Host(host) => host.spawn(command),
            Self::Loopback => Program::spawn(name, command),
        }
    }
}

impl From<&Host> for Place {
    fn from(host: &Host) -> Self {
        Self::Host(host.clone())
    }
}

/// A running rendezvous server.
pub struct Rendezvous {
    /// The program; dropping it kills it.
    pub program: Program,
    /// What peers are told: `host:port`.
    pub address: SocketAddr,
}

impl Rendezvous {
    /// Starts `holepunch server` and waits until it is ready. On a lab's host it listens on everything, as by default.
    ///
    /// # Errors
    ///
    /// What went wrong, with everything that the server said.
    pub fn start(place: &Place, options: &[&str]) -> Result<Self, String> {
        let mut command = Artefacts::get().holepunch();
        command.args(["--json", "server"]).args(options);
        if matches!(place, Place::Loopback) {
            command.args(["--host", "127.0.0.1", "--port", "0"]);
        }
        let program = place.spawn("server", command).map_err(|error| error.to_string())?;
        let line = program.wait_for(Stream::Err, "that it listens", PATIENCE, is("listening"))?;
        let address = match place {
            Place::Host(host) => SocketAddr::new(host.address(), 20000),
            Place::Loopback => list(&line, "udp")
                .into_iter()
                .find_map(|address| address.parse().ok())
                .ok_or_else(|| format!("no UDP address in {line}"))?,
        };
        Ok(Self { program, address })
    }
}

/// What a peer reported of its connection.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Its own address on the path.
    pub local: SocketAddr,
    /// The other's, as it sees it.
    pub remote: SocketAddr,
    /// The candidate type of the path: `host`, `srflx`, `prflx`.
    pub path: String,
    /// The whole event.
    pub line: String,
}

/// Two peers of one server: `listener` offers the name bob, `connector` asks for it.
pub struct Pair {
    /// `holepunch listen bob`.
    pub listener: Program,
    /// `holepunch connect bob`.
    pub connector: Program,
}

impl Pair {
    /// Starts the listener, waits until it is registered, and starts the connector. The options, `--udp` or `--tcp` among
    /// them, are for both.
    ///
    /// # Errors
    ///
    /// What went wrong, with everything that the program said.
    pub fn start(
        server: SocketAddr,
        listener: (&Place, Command),
        connector: (&Place, Command),
        options: &[&str],
    ) -> Result<Self, String> {
        let start = |(place, mut command): (&Place, Command), words: &[&str]| {
            command.arg("--json").args(words).args(["bob", "--server", &server.to_string()]).args(options);
            place.spawn(words[0], command).map_err(|error| error.to_string())
        };
        let listener = start(listener, &["listen"])?;
        listener.wait_for(Stream::Err, "that it is registered", PATIENCE, is("registered"))?;
        let connector = start(connector, &["connect"])?;
        Ok(Self { listener, connector })
    }

    /// Waits until both report the connection: the listener's report, then the connector's.
    ///
    /// # Errors
    ///
    /// What went wrong, with everything that both said.
    pub fn connected(&self) -> Result<(Connected, Connected), String> {
        let report = |program: &Program| {
            let line = program.wait_for(Stream::Err, "that it is connected", PATIENCE, is("connected"))?;
            let address = |name| {
                let text = field(&line, name).unwrap_or_default();
                text.parse::<SocketAddr>().map_err(|error| format!("{name}: {error}: {line}"))
            };
            let path = field(&line, "path").unwrap_or_default().to_owned();
            Ok(Connected { local: address("local")?, remote: address("remote")?, path, line: line.clone() })
        };
        let both = report(&self.listener).and_then(|listener| Ok((listener, report(&self.connector)?)));
        both.map_err(|error: String| format!("{error}\nlistener:\n{}", self.listener.transcript()))
    }

    /// Sends a line each way and waits until it has arrived.
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub fn exchange(&mut self, from_listener: &str, from_connector: &str) -> Result<(), String> {
        self.listener.say(from_listener).map_err(|error| error.to_string())?;
        self.connector.say(from_connector).map_err(|error| error.to_string())?;
        self.listener.wait_for(Stream::Out, from_connector, PATIENCE, |line| line == from_connector)?;
        self.connector.wait_for(Stream::Out, from_listener, PATIENCE, |line| line == from_listener)?;
        Ok(())
    }

    /// Ends both inputs and waits until both programs have ended with status 0.
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub fn end(&mut self) -> Result<(), String> {
        self.listener.end_input();
        self.connector.end_input();
        for program in [&mut self.connector, &mut self.listener] {
            let status = program.wait(PATIENCE)?;
            if !status.success() {
                return Err(format!("ended with {status}:\n{}", program.transcript()));
            }
        }
        Ok(())
    }
}

/// Accepts the JSON line of an event.
fn is(event: &str) -> impl Fn(&str) -> bool {
    let event = event.to_owned();
    move |line| field(line, "event") == Some(&event)
}

/// The value of a field of a flat JSON object, without its quotes. Enough for the command's events, whose interesting values hold no escapes.
pub fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line.find(&format!("\"{name}\":"))? + name.len() + 3;
    let value = line[start..].trim_start();
    match value.strip_prefix('"') {
        Some(text) => text.split('"').next(),
        None => value.split([',', '}']).next().map(str::trim),
    }
}

/// The strings of a field that is a list.
fn list(line: &str, name: &str) -> Vec<String> {
    let Some(start) = line.find(&format!("\"{name}\":")) else { return Vec::new() };
    let inside = line[start..].split(['[', ']']).nth(1).unwrap_or_default();
    inside.split(',').map(|text| text.trim().trim_matches('"').to_owned()).filter(|text| !text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_events() {
        let line =
            r#"{"event":"connected","t":0.01,"remote":"[2001:db8::1]:4","udp":["1.2.3.4:5","[::1]:6"],"sockets":1}"#;
        assert!(is("connected")(line));
        assert_eq!(field(line, "remote"), Some("[2001:db8::1]:4"));
        assert_eq!(field(line, "sockets"), Some("1"));
        assert_eq!(field(line, "t"), Some("0.01"));
        assert_eq!(field(line, "absent"), None);
    }

    #[test]
    fn lists_are_found_in_events() {
        let line = r#"{"event":"listening","tcp":[],"udp":["1.2.3.4:5", "5.6.7.8:9"]}"#;
        assert_eq!(list(line, "udp"), ["1.2.3.4:5", "5.6.7.8:9"]);
        assert!(list(line, "tcp").is_empty() && list(line, "absent").is_empty());
    }
}
