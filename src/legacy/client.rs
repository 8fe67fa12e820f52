//! A client of 2015, whole: from a server's name to a socket to the peer.
//!
//! What the server speaks is found out first. Toward a current one the meeting is a current one, too, unless the peer is of
//! 2015; the listener that is asked for by anything but an IP address is asked for with the text, for only there is that
//! an address.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};

use super::{Meeting, Verdict, current, decide, meet_datagram, meet_stream, server::Server};
use crate::{
    Error, ErrorKind, Result,
    config::DEFAULT_PUNCH_PORT,
    endpoint::environment,
    io::{ServerName, Wait, addresses, plain::Turn},
    machine::Level,
    peer::Transport,
};

/// The server when none is named, as in 2015: as a destination, "every address" means this machine.
const DEFAULT_SERVER: &str = "0.0.0.0";

/// A server's name is looked up for at most so long; resolv.conf(5) allows a resolver 5 s for each of two tries.
const RESOLUTION: Duration = Duration::from_secs(10);

/// Meets peers as the package of 2015 did.
///
/// ```no_run
/// use holepunch::{Wait, legacy::Client, peer::Transport};
///
/// let client = Client::new(Some("rendezvous.example"), None)?;
/// let listening = client.open(None, Transport::Tcp, &Wait::forever())?;
/// println!("met {}", listening.peer);
///
/// // Elsewhere:
/// let connected = client.open(Some("198.51.100.7"), Transport::Tcp, &Wait::forever())?;
/// # drop(connected);
/// # Ok::<(), holepunch::Error>(())
/// ```
pub struct Client {
    servers: Vec<ServerName>,
    bind: Vec<IpAddr>,
    port: u16,
    log: Arc<Log>,
}

type Log = dyn Fn(Level, &str) + Send + Sync;

/// What a server speaks, on what there is of a connection to it.
enum Reached {
    Text(Server),
    Current(SocketAddr),
}

/// A peer that was met.
#[derive(Debug)]
pub struct Opened {
    /// The socket to it.
    pub socket: Socket,
    /// Its address: as the server named it, or where it was found.
    pub peer: SocketAddr,
}

/// A plain socket of the system, blocking, with nothing of this library on it.
#[derive(Debug)]
pub enum Socket {
    /// A connected stream.
    Stream(TcpStream),
    /// Datagrams. Connected to the peer; to one of 2015 only where another socket of this machine has the port too.
    Datagrams(UdpSocket),
}

impl Client {
    /// Makes a client; nothing is asked or bound yet.
    ///
    /// `server` is `host`, `host:port`, `[IPv6]` or `[IPv6]:port`, several separated by commas, which are tried in their
    /// order; without it it is what `HOLEPUNCH_SERVER` says, else this machine, port 20000. `bind` is the local address
    /// to use, toward the server and toward the peer; without it it is what `HOLEPUNCH_BIND` says, where ports do not
    /// count, else the system's choice. The port toward current peers is what `HOLEPUNCH_PORT` says, else 20001, as long as it
    /// is free; toward peers of 2015 it is the server's to say.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for what cannot be right.
    pub fn new(server: Option<&str>, bind: Option<IpAddr>) -> Result<Self> {
        let list = match server {
            Some(list) => Some(list.to_owned()),
            None => environment::variable("HOLEPUNCH_SERVER")?,
        };
        let servers = ServerName::parse_list(list.as_deref().unwrap_or(DEFAULT_SERVER))?;
        if servers.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "no server is named"));
        }
        let bind = match (bind, environment::variable("HOLEPUNCH_BIND")?) {
            (Some(ip), _) => vec![ip],
            (None, Some(list)) => environment::parse_bind(&list)?.iter().map(SocketAddr::ip).collect(),
            (None, None) => Vec::new(),
        };
        let port = environment::variable("HOLEPUNCH_PORT")?.map_or(Ok(DEFAULT_PUNCH_PORT), |text| punch_port(&text))?;
        let bind = bind.into_iter().filter(|ip| !ip.is_unspecified()).collect();
        Ok(Self { servers, bind, port, log: Arc::new(|_, _| {}) })
    }

    /// Toward current peers this port is used as long as it is free; 0 leaves it to the system.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Calls `callback` with what the package of 2015 logged, from the thread that calls [`open`](Self::open).
    #[must_use]
    pub fn on_log(mut self, callback: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        self.log = Arc::new(callback);
        self
    }

    /// Connects to the listener at an address, or without one listens and waits for a peer.
    ///
    /// Blocks until the peer is met; for datagrams to a peer of 2015, within 5 s of the introduction also if it is silent.
    /// The server is left in order, and nothing stays but the socket.
    ///
    /// # Errors
    /// [`ErrorKind::Unresolvable`] and [`ErrorKind::ServerUnreachable`] (with the system's number) as the last server
    /// has it; [`ErrorKind::NotFound`]; [`ErrorKind::ServerRefused`] when the server ends the conversation or answers what
    /// makes no sense; [`ErrorKind::NoPath`] when the peer's address is this program's own, or no way leads there;
    /// [`ErrorKind::AddressInUse`]; [`ErrorKind::InvalidArgument`]; of a current server also what
    /// [`meet_current`](super::meet_current) says; [`ErrorKind::Timeout`] and [`ErrorKind::Cancelled`] as the wait says.
    pub fn open(&self, destination: Option<&str>, transport: Transport, wait: &Wait) -> Result<Opened> {
        let listener = destination.map(check_host).transpose()?.flatten();
        let turn = Turn::begin(wait, "asking the server");
        // Of every step, the time that is left of the whole.
        let left = || wait.but_at_most(turn.left(Duration::MAX));
        let text_only = destination.is_some() && listener.is_none();
        let (reached, label) = self.server(&turn, text_only, &left)?;
        let opened = match reached {
            Reached::Text(mut server) => self.named(&mut server, destination, transport, &left),
            Reached::Current(server) => self.introduced(server, listener, transport, &left),
        };
        self.say(&format!("Close server socket {label}"));
        opened
    }

    /// Asks a server of 2015, and meets the peer that it names.
    fn named(
        &self,
        server: &mut Server,
        destination: Option<&str>,
        transport: Transport,
        left: &dyn Fn() -> Wait,
    ) -> Result<Opened> {
        let peer = server.ask(destination, &left())?;
        // The end of our stream tells the server now; the socket stays until the peer is met, or something in flight would be
        // answered with a reset.
        server.leave();
        self.meet_old(peer, transport, left)
    }

    /// Asks a current server, and meets the peer that it introduces.
    fn introduced(
        &self,
        server: SocketAddr,
        destination: Option<IpAddr>,
        transport: Transport,
        left: &dyn Fn() -> Wait,
    ) -> Result<Opened> {
        let source = SocketAddr::new(self.local(server)?.unwrap_or_else(|| any(server)), self.port);
        match current::meet_current(&Meeting { server, source, destination, transport }, &left()) {
            Ok(opened) => {
                self.say_peer(opened.peer);
                Ok(opened)
            }
            Err(error) => match error.legacy_peer() {
                Some(peer) => self.meet_old(peer, transport, left),
                None => Err(error),
            },
        }
    }

    /// Meets a peer of 2015 from and to the port that it was told.
    fn meet_old(&self, peer: SocketAddr, transport: Transport, left: &dyn Fn() -> Wait) -> Result<Opened> {
        self.say_peer(peer);
        let source = SocketAddr::new(self.local(peer)?.unwrap_or_else(|| any(peer)), peer.port());
        let socket = match transport {
            Transport::Udp => Socket::Datagrams(meet_datagram(source, peer, &left())?),
            Transport::Tcp => Socket::Stream(meet_stream(source, peer, &left())?),
        };
        Ok(Opened { socket, peer })
    }

    /// A connection to the first server that can be reached, and what to call it.
    fn server(&self, turn: &Turn, text_only: bool, left: &dyn Fn() -> Wait) -> Result<(Reached, String)> {
        let mut failure = None;
        for name in &self.servers {
            let found = match addresses(name, turn.left(RESOLUTION), || turn.check()) {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::Unresolvable => {
                    failure = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for address in found {
                match self.reach(address, text_only, left) {
                    Ok(reached) => {
                        let label = name.label();
                        self.say(&format!("Open server socket {label}"));
                        return Ok((reached, label));
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Timeout) => {
                        return Err(error);
                    }
                    Err(error) => failure = Some(error),
                }
            }
        }
        Err(failure.unwrap_or_else(|| ErrorKind::ServerUnreachable.into()))
    }

    /// What the server speaks, and the connection for the text.
    fn reach(&self, address: SocketAddr, text_only: bool, left: &dyn Fn() -> Wait) -> Result<Reached> {
        let bind = self.local(address)?;
        match decide(address, bind, &left())? {
            Verdict::Text(stream) => Server::new(stream, address).map(Reached::Text),
            Verdict::Current if text_only => Server::connect(address, bind, &left()).map(Reached::Text),
            Verdict::Current => Ok(Reached::Current(address)),
        }
    }

    /// The local address to use toward another; `None` leaves it to the system.
    fn local(&self, toward: SocketAddr) -> Result<Option<IpAddr>> {
        let local = self.bind.iter().copied().find(|ip| ip.is_ipv4() == toward.is_ipv4());
        match (local, self.bind.first()) {
            (None, Some(ip)) => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{} cannot be reached from {ip}, which is of another family", toward.ip()),
            )
            .with_hint("bind an address of the server's family")),
            (local, _) => Ok(local),
        }
    }

    fn say(&self, text: &str) {
        (self.log)(Level::Info, text);
    }

    fn say_peer(&self, peer: SocketAddr) {
        self.say(&format!("Open client socket to {}:{}", peer.ip(), peer.port()));
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("servers", &self.servers).field("bind", &self.bind).finish_non_exhaustive()
    }
}

fn any(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { [0; 4].into() } else { [0; 16].into() }
}

/// The host as an IP address, where it is one. Refuses a host that no server can know, and "every address", which kills a
/// server of 2015.
fn check_host(host: &str) -> Result<Option<IpAddr>> {
    let ip: Option<IpAddr> = host.parse().ok();
    let wrong = host.is_empty() || host.len() > 255 || !host.bytes().all(|byte| byte.is_ascii_graphic());
    if wrong || ip.is_some_and(|ip| ip.is_unspecified()) {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("{host:?} is no listener's address"))
            .with_hint("give the listener's public IP address"));
    }
    Ok(ip)
}

fn punch_port(text: &str) -> Result<u16> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, format!("HOLEPUNCH_PORT is no port: {text:?}"))
            .with_hint("it is a number from 1 to 65535")
    })
}
