//! What an endpoint is made with, and where the defaults come from: an argument, else the environment, else built in.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::{
    Endpoint, Inner,
    environment::{parse_bind, variable},
};
use crate::{
    Error, ErrorKind, Result,
    config::PeerConfig,
    io::{Callbacks, Engine, Families, ServerName},
    machine::Level,
    peer::PeerEvent,
    rendezvous::keys::Secret,
    wire::stun::Transports,
};

/// The server when none is named.
const DEFAULT_SERVER: &str = "127.0.0.1";

/// Describes an [`Endpoint`]; from [`Endpoint::builder`].
///
/// ```
/// use holepunch::Endpoint;
///
/// let endpoint = Endpoint::builder()
///     .server("192.0.2.1")
///     .server("[2001:db8::1]:20000")
///     .bind("0.0.0.0:0".parse()?)
///     .on_log(|level, line| eprintln!("{level:?} {line}"))
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct EndpointBuilder {
    servers: Vec<String>,
    bind: Vec<SocketAddr>,
    families: Families,
    secret: Option<Secret>,
    offered: Transports,
    prefer_port: Option<u16>,
    legacy: bool,
    thread: bool,
    config: PeerConfig,
    callbacks: Callbacks,
}

impl Default for EndpointBuilder {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            bind: Vec::new(),
            families: Families { ipv4: true, ipv6: true },
            secret: None,
            offered: Transports { udp: true, tcp: true },
            prefer_port: None,
            legacy: false,
            thread: true,
            config: PeerConfig::default(),
            callbacks: Callbacks::default(),
        }
    }
}

impl EndpointBuilder {
    /// Adds a rendezvous server: `host`, `host:port`, `[IPv6]` or `[IPv6]:port`; the port is 20000 unless told.
    ///
    /// Listeners register with all of them, connectors ask them in this order, 300 ms apart. Without any it is what
    /// `HOLEPUNCH_SERVER` says (several separated by commas), else 127.0.0.1:20000.
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// Adds a local address to bind, at most one of each family; port 0 leaves the choice to the system.
    ///
    /// Without any it is what `HOLEPUNCH_BIND` says (`address` or `address:port`, several separated by commas), else any address and port of
    /// both families. A fixed port serves one listener or connect at a time.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind.push(address);
        self
    }

    /// Uses IPv4 only; servers and bound addresses of IPv6 are left out.
    pub fn ipv4_only(mut self) -> Self {
        self.families.ipv6 = false;
        self
    }

    /// Uses IPv6 only; servers and bound addresses of IPv4 are left out.
    pub fn ipv6_only(mut self) -> Self {
        self.families.ipv4 = false;
        self
    }

    /// Listeners offer streams only; a peer that wants datagrams is refused with
    /// [`ErrorKind::TransportMismatch`]. Without this and [`datagrams_only`](Self::datagrams_only) they offer both.
    pub fn streams_only(mut self) -> Self {
        self.offered = Transports { udp: false, tcp: true };
        self
    }

    /// Listeners offer datagrams only; a peer that wants a stream is refused with
    /// [`ErrorKind::TransportMismatch`].
    pub fn datagrams_only(mut self) -> Self {
        self.offered = Transports { udp: true, tcp: false };
        self
    }

    /// What both programs know and the server does not; a peer with another secret is refused with
    /// [`ErrorKind::WrongSecret`].
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Where no port is chosen by [`bind`](Self::bind), this one is used as long as it is free, for datagrams and for streams:
    /// it fits a firewall that was opened for it. Where it is taken any other serves.
    pub fn prefer_port(mut self, port: u16) -> Self {
        self.prefer_port = Some(port).filter(|port| *port != 0);
        self
    }

    /// Whether peers that speak the text protocol of 2015 only may be introduced (default false): listeners without a name
    /// are found by them, and connects by address find them. Then [`Listener::accept`](super::Listener::accept),
    /// [`Endpoint::connect`] and their likes fail with [`ErrorKind::LegacyPeer`], whose
    /// [`legacy_peer`](Error::legacy_peer) says where the peer is; the listener lives on. To meet it is up to the caller.
    pub fn legacy(mut self, legacy: bool) -> Self {
        self.legacy = legacy;
        self
    }

    /// Whether a thread of the endpoint drives it (default true). Without, see [`Endpoint::process`]: connections live
    /// only as long as the program calls it often enough, or is in a blocking call.
    pub fn thread(mut self, thread: bool) -> Self {
        self.thread = thread;
        self
    }

    /// Timers and limits; the defaults are meant to be right.
    pub fn config(mut self, config: PeerConfig) -> Self {
        self.config = config;
        self
    }

    /// Calls `callback` with everything that happens, in order and one at a time, from any thread: the endpoint's or one that is in a
    /// call of it. It must be quick, and must not call what blocks; closing and sending are fine.
    pub fn on_event(mut self, callback: impl Fn(&PeerEvent) + Send + Sync + 'static) -> Self {
        self.callbacks.event = Some(Box::new(callback));
        self
    }

    /// Calls `callback` with log lines, as [`on_event`](Self::on_event) does. They hold no secrets.
    pub fn on_log(mut self, callback: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        self.callbacks.log = Some(Box::new(callback));
        self
    }

    /// Calls `callback` whenever what was started may be worth another poll ([`Endpoint::start_connect`]), a listener may have
    /// somebody to accept, or something was closed; from any thread, several at once, and often for nothing. It must be quick and call
    /// nothing of this library: it is there to wake the program's own event loop.
    pub fn on_change(mut self, callback: impl Fn() + Send + Sync + 'static) -> Self {
        self.callbacks.change = Some(Box::new(callback));
        self
    }

    /// Makes the endpoint, and starts its thread. Binds nothing and asks nobody yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a server, address or combination that cannot be right; [`ErrorKind::Io`] when
    /// the system has no descriptors, threads or random bytes left.
    pub fn build(self) -> Result<Endpoint> {
        let servers = servers(&self.servers)?;
        let (bind, families) = bind(self.bind, self.families)?;
        let engine = Arc::new(Engine::start(self.config, self.callbacks, self.thread)?);
        let Self { secret, offered, prefer_port, legacy, .. } = self;
        Ok(Endpoint(Arc::new(Inner { engine, servers, bind, families, secret, offered, prefer_port, legacy })))
    }
}

impl fmt::Debug for EndpointBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointBuilder")
            .field("servers", &self.servers)
            .field("bind", &self.bind)
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

fn servers(given: &[String]) -> Result<Vec<ServerName>> {
    if !given.is_empty() {
        return given.iter().map(|server| ServerName::parse(server)).collect();
    }
    let list = variable("HOLEPUNCH_SERVER")?;
    let servers = ServerName::parse_list(list.as_deref().unwrap_or(DEFAULT_SERVER))?;
    if servers.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "HOLEPUNCH_SERVER names no server"));
    }
    Ok(servers)
}

/// The addresses to bind, and the families that are left.
fn bind(given: Vec<SocketAddr>, families: Families) -> Result<(Vec<SocketAddr>, Families)> {
    let any = || vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
    let all = match variable("HOLEPUNCH_BIND")? {
        _ if !given.is_empty() => given,
        Some(list) => parse_bind(&list)?,
        None => any(),
    };
    let used: Vec<_> = all.into_iter().filter(|address| families.allow(address.ip())).collect();
    let count = |ipv6| used.iter().filter(|address| address.is_ipv6() == ipv6).count();
    let (ipv4, ipv6) = (count(false), count(true));
    if ipv4 > 1 || ipv6 > 1 {
        return Err(Error::new(ErrorKind::InvalidArgument, "more than one address of a family to bind")
            .with_hint("bind at most one IPv4 and one IPv6 address"));
    }
    if used.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "no address is left to bind")
            .with_hint("give an address of the family that is to be used"));
    }
    Ok((used, Families { ipv4: ipv4 > 0, ipv6: ipv6 > 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_bind_are_one_of_each_family() {
        let both = Families { ipv4: true, ipv6: true };
        let only_ipv6 = Families { ipv4: false, ipv6: true };
        let list = parse_bind("192.0.2.1, [2001:db8::1]:7,").unwrap();
        assert_eq!(list, ["192.0.2.1:0".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap()]);
        assert_eq!(bind(list.clone(), both).unwrap(), (list.clone(), both));
        assert_eq!(bind(list.clone(), only_ipv6).unwrap(), (list[1..].to_vec(), only_ipv6));
        assert_eq!(bind(vec![list[0]], both).unwrap().1, Families { ipv4: true, ipv6: false });
        for wrong in [bind(vec![list[0], list[0]], both), bind(vec![list[0]], only_ipv6)] {
            assert_eq!(wrong.unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(parse_bind("2001:db8::1").unwrap(), ["[2001:db8::1]:0".parse().unwrap()]);
        assert_eq!(parse_bind("localhost").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn two_families_cannot_both_be_the_only_one() {
        let error = Endpoint::builder().ipv4_only().ipv6_only().build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
