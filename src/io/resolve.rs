//! From what people call a server to its addresses.
//!
//! An IP literal is its own answer. A name goes to the system's resolver in a thread of its own, all names at
//! once, because the resolver cannot be stopped: a call that has waited long enough goes on without its answer,
//! and so does one that has the address of another server and has waited [`STRAGGLERS`] more. The first address of each
//! family is taken.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::spawn::spawn;
use crate::{Error, ErrorKind, Result, address::canonical_ip, config::DEFAULT_SERVER_PORT, peer::ServerAddress};

/// When one server is known, the others may take so much longer.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// A waiting call looks this often whether it was cancelled.
const SLICE: Duration = Duration::from_millis(50);

/// Which families an endpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
}

impl Families {
    /// Whether an address is of one of them.
    pub(crate) fn allow(self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// What people call a server: a host name or IP literal, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerName {
    host: String,
    port: u16,
}

impl ServerName {
    /// Parses `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 literal.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::parse_or(text, DEFAULT_SERVER_PORT)
    }

    /// The same with another port where none is given.
    pub(crate) fn parse_or(text: &str, default_port: u16) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::InvalidArgument, format!("{text:?} is no server's name"))
                .with_hint("write host, host:port, [IPv6] or [IPv6]:port")
        };
        let trimmed = text.trim();
        let (host, port) = if trimmed.parse::<Ipv6Addr>().is_ok() {
            (trimmed, None)
        } else if let Some(rest) = trimmed.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            if !host.contains(':') {
                return Err(wrong());
            }
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(wrong()),
            }
        } else {
            match trimmed.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (trimmed, None),
            }
        };
        let port = match port {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
            None => default_port,
        };
        let has_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '[' | ']' | ',');
        if host.is_empty() || port == 0 || host.contains(has_odd) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// Parses a list separated by commas, as in `HOLEPUNCH_SERVER`.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Self>> {
        text.split(',').filter(|part| !part.trim().is_empty()).map(Self::parse).collect()
    }

    /// How errors and events name it.
    pub(crate) fn label(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether no resolver is needed.
    pub(crate) fn is_literal(&self) -> bool {
        self.literal().is_some()
    }

    /// The address, where the host is a literal. The unspecified address means this host.
    fn literal(&self) -> Option<SocketAddr> {
        let mut ip = canonical_ip(self.host.parse().ok()?);
        if ip.is_unspecified() {
            ip = if ip.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        }
        Some(SocketAddr::new(ip, self.port))
    }

    fn address(&self, found: &[SocketAddr], families: Families) -> ServerAddress {
        let allowed =
            |ipv6| found.iter().copied().find(|address| address.is_ipv6() == ipv6 && families.allow(address.ip()));
        ServerAddress { label: self.label(), ipv4: allowed(false), ipv6: allowed(true) }
    }
}

/// The addresses of those servers that can be found within `time`, in their order.
///
/// `interrupt` is asked now and then whether to give up at once.
///
/// # Errors
/// When there is none: [`ErrorKind::Unresolvable`] names the servers and says why, [`ErrorKind::InvalidArgument`] when
/// none has an address of the families allowed.
pub(crate) fn resolve(
    names: &[ServerName],
    families: Families,
    time: Duration,
    interrupt: impl FnMut() -> Result<()>,
) -> Result<Vec<ServerAddress>> {
    resolve_with(names, families, time, interrupt, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

/// Every address of a server, IPv4 first, for those who try one after the other.
///
/// # Errors
/// [`ErrorKind::Unresolvable`]; whatever `interrupt` says.
pub(crate) fn addresses(
    name: &ServerName,
    time: Duration,
    interrupt: impl FnMut() -> Result<()>,
) -> Result<Vec<SocketAddr>> {
    let mut answers = vec![name.literal().map(|address| Ok(vec![address]))];
    if answers.iter().any(Option::is_none) {
        let look_up = |host: &str, port| Ok((host, port).to_socket_addrs()?.collect());
        ask(std::slice::from_ref(name), &mut answers, time, interrupt, look_up)?;
    }
    let fault = match answers.pop().flatten() {
        Some(Ok(mut found)) if !found.is_empty() => {
            found.sort_by_key(SocketAddr::is_ipv6);
            return Ok(found);
        }
        Some(Ok(_)) => "it has no address".to_owned(),
        Some(Err(error)) => error.to_string(),
        None => "no answer in time".to_owned(),
    };
    Err(Error::new(ErrorKind::Unresolvable, format!("the server's name {:?} cannot be resolved: {fault}", name.host)))
}

fn resolve_with(
    names: &[ServerName],
    families: Families,
    time: Duration,
    interrupt: impl FnMut() -> Result<()>,
    look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Clone + Send + 'static,
) -> Result<Vec<ServerAddress>> {
    let mut answers: Vec<Option<io::Result<Vec<SocketAddr>>>> =
        names.iter().map(|name| name.literal().map(|address| Ok(vec![address]))).collect();
    if answers.iter().any(Option::is_none) {
        ask(names, &mut answers, time, interrupt, look_up)?;
    }
    let mut found = Vec::new();
    let mut faults = Vec::new();
    let mut kind = ErrorKind::InvalidArgument;
    for (name, answer) in names.iter().zip(answers) {
        let fault = match answer {
            Some(Ok(addresses)) => {
                let server = name.address(&addresses, families);
                if server.ipv4.is_some() || server.ipv6.is_some() {
                    found.push(server);
                    continue;
                }
                let family = if families.ipv4 { "IPv4" } else { "IPv6" };
                format!("the server {} has no {family} address, and no other may be used", name.label())
            }
            Some(Err(error)) => {
                kind = ErrorKind::Unresolvable;
                format!("the server's name {:?} cannot be resolved: {error}", name.host)
            }
            None => {
                kind = ErrorKind::Unresolvable;
                format!("the server's name {:?} cannot be resolved: no answer in time", name.host)
            }
        };
        faults.push(fault);
    }
    if found.is_empty() { Err(Error::new(kind, faults.join("; "))) } else { Ok(found) }
}

/// Asks for the names that have no answer yet.
fn ask(
    names: &[ServerName],
    answers: &mut [Option<io::Result<Vec<SocketAddr>>>],
    time: Duration,
    mut interrupt: impl FnMut() -> Result<()>,
    look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Clone + Send + 'static,
) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    let start = Instant::now();
    let mut limit = time;
    for (index, name) in names.iter().enumerate().filter(|(index, _)| answers[*index].is_none()).collect::<Vec<_>>() {
        let (sender, name, look_up) = (sender.clone(), name.clone(), look_up.clone());
        let thread = spawn("holepunch-resolve", move || {
            // Nobody may be waiting any more.
            let _ = sender.send((index, look_up(&name.host, name.port)));
        });
        if let Err(error) = thread {
            answers[index] = Some(Err(error));
        }
    }
    drop(sender);
    loop {
        if answers.iter().flatten().any(|answer| answer.is_ok()) {
            limit = limit.min(start.elapsed() + STRAGGLERS);
        }
        interrupt()?;
        let left = limit.saturating_sub(start.elapsed());
        match receiver.recv_timeout(left.min(SLICE)) {
            Ok((index, answer)) => answers[index] = Some(answer),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    const BOTH: Families = Families { ipv4: true, ipv6: true };
    const LONG: Duration = Duration::from_secs(60);

    fn parse(text: &str) -> (String, u16) {
        let name = ServerName::parse(text).unwrap();
        (name.host, name.port)
    }

    fn names(text: &str) -> Vec<ServerName> {
        ServerName::parse_list(text).unwrap()
    }

    #[test]
    fn every_way_to_write_a_server() {
        for (text, host, port) in [
            ("example.org", "example.org", 20000),
            (" example.org:7 ", "example.org", 7),
            ("192.0.2.1", "192.0.2.1", 20000),
            ("192.0.2.1:9", "192.0.2.1", 9),
            ("2001:db8::1", "2001:db8::1", 20000),
            ("[2001:db8::1]", "2001:db8::1", 20000),
            ("[2001:db8::1]:9", "2001:db8::1", 9),
            ("[fe80::1%eth0]:9", "fe80::1%eth0", 9),
        ] {
            assert_eq!(parse(text), (host.to_owned(), port), "{text}");
        }
        for text in [
            "",
            ":",
            ":9",
            "host:",
            "host:0",
            "host:65536",
            "host:+9",
            "host:http",
            "a b",
            "[::1",
            "[host]",
            "[::1]9",
            "a:b:c",
            "u@h",
            "h/p",
        ] {
            assert_eq!(ServerName::parse(text).unwrap_err().kind(), ErrorKind::InvalidArgument, "{text}");
        }
        assert_eq!(names("a, b:1,").len(), 2);
    }

    #[test]
    fn literals_need_no_resolver_and_unspecified_is_this_host() {
        let found =
            resolve_with(&names("0.0.0.0:5,[::]:6,192.0.2.1"), BOTH, Duration::ZERO, || Ok(()), |_, _| panic!())
                .unwrap();
        assert_eq!(found[0].ipv4, Some("127.0.0.1:5".parse().unwrap()));
        assert_eq!(found[1].ipv6, Some("[::1]:6".parse().unwrap()));
        assert_eq!((found[1].label.as_str(), found[2].label.as_str()), ("[::]:6", "192.0.2.1:20000"));
    }

    #[test]
    fn one_bad_name_does_not_matter_and_one_address_of_each_family_is_taken() {
        let look_up = |host: &str, port| match host {
            "good" => Ok(["192.0.2.1", "2001:db8::1", "192.0.2.2"]
                .map(|ip| SocketAddr::new(ip.parse().unwrap(), port))
                .to_vec()),
            _ => Err(io::Error::other("no such host")),
        };
        let found = resolve_with(&names("bad,good:9"), BOTH, LONG, || Ok(()), look_up).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].ipv4, Some("192.0.2.1:9".parse().unwrap()));
        assert_eq!(found[0].ipv6, Some("[2001:db8::1]:9".parse().unwrap()));
        let error = resolve_with(&names("bad,worse"), BOTH, LONG, || Ok(()), look_up).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unresolvable);
        assert!(error.message().contains("\"bad\"") && error.message().contains("\"worse\""), "{error}");
    }

    #[test]
    fn a_family_that_is_not_used_leaves_nothing() {
        let only_ipv6 = Families { ipv4: false, ipv6: true };
        let error = resolve(&names("192.0.2.1"), only_ipv6, LONG, || Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(resolve(&names("192.0.2.1,[::1]:5"), only_ipv6, LONG, || Ok(())).unwrap().len(), 1);
    }

    #[test]
    fn all_addresses_of_one_server() {
        let found = |text| addresses(&ServerName::parse(text).unwrap(), LONG, || Ok(()));
        assert_eq!(found("0.0.0.0:5").unwrap(), ["127.0.0.1:5".parse().unwrap()]);
        assert!(found("localhost:7").unwrap().iter().all(|address| address.ip().is_loopback() && address.port() == 7));
        assert_eq!(found("no-such-host.invalid").unwrap_err().kind(), ErrorKind::Unresolvable);
    }

    #[test]
    fn a_resolver_that_hangs_holds_nobody_past_the_deadline() {
        let released = Arc::new(Barrier::new(2));
        let barrier = released.clone();
        let look_up = move |_: &str, _| {
            barrier.wait();
            Ok(Vec::new())
        };
        let start = Instant::now();
        let error =
            resolve_with(&names("slow"), BOTH, Duration::from_millis(30), || Ok(()), look_up.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unresolvable);
        assert!(start.elapsed() < LONG);
        released.wait();
        let cancelled = || Err(ErrorKind::Cancelled.into());
        let error = resolve_with(&names("slow"), BOTH, LONG, cancelled, look_up).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        released.wait();
    }
}
