//! The blocking API: [`Endpoint`], [`Listener`], [`Stream`], [`Connection`].
//!
//! An endpoint owns the sockets and, unless told otherwise, one thread that answers servers and peers while the
//! program does something else. Calls block, take a [`Wait`] (a deadline and a [`Cancel`] token), and may be made from
//! any thread; every handle can be closed from any thread at any time, which ends its blocked calls with
//! [`ErrorKind::Closed`](crate::ErrorKind::Closed) within 100 ms.
//!
//! In a forked child every handle of the parent answers [`ErrorKind::Forked`](crate::ErrorKind::Forked), and dropping
//! it does nothing to the parent's connections.

mod agent;
mod builder;
mod connection;
pub(crate) mod environment;
mod listener;
mod options;
mod starting;
mod stream;

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

pub use agent::{Agent, AgentOptions};
pub use builder::EndpointBuilder;
pub use connection::Connection;
pub use listener::Listener;
pub use options::ConnectOptions;
pub use starting::Connecting;
pub use stream::Stream;

pub use crate::io::{Cancel, Wait};
use crate::{
    Error, ErrorKind, Result,
    io::{self, Channel, Engine, Families, ServerName},
    peer::{ConnectRequest, ListenRequest, ServerAddress, Target, Transport, parse_name},
    rendezvous::keys::Secret,
    wire::stun::{SessionId, Transports},
};

/// A server's name is looked up for at most so long; resolv.conf(5) allows a resolver 5 s for each of two tries.
const RESOLUTION: Duration = Duration::from_secs(10);

/// A program's end of the network: makes listeners and connections.
///
/// Clones are the same endpoint. Listeners and connections keep it running; when the last of all these is dropped it
/// closes, which takes up to 3 seconds where a connected peer does not acknowledge the end.
///
/// ```no_run
/// use holepunch::{ConnectOptions, Endpoint, Wait};
///
/// let endpoint = Endpoint::builder().server("example.org").build()?;
/// let connection = endpoint.connect_datagram("bob", &ConnectOptions::default())?;
/// connection.send(b"hello")?;
/// let stream = endpoint.connect("bob", &ConnectOptions::default())?;
/// stream.send_all(b"hello", Wait::forever())?;
/// # Ok::<(), holepunch::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

/// What an endpoint was built with.
#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    servers: Vec<ServerName>,
    bind: Vec<SocketAddr>,
    families: Families,
    secret: Option<Secret>,
    offered: Transports,
    prefer_port: Option<u16>,
    legacy: bool,
}

impl Endpoint {
    /// Starts to describe an endpoint; every setting has a default.
    pub fn builder() -> EndpointBuilder {
        EndpointBuilder::default()
    }

    /// Registers with every server, and returns when one has the registration.
    ///
    /// With a name the listener is found by it; names are 1 to 64 characters of `a-z`, `0-9`, `.`, `_`, `-`. Without one it is found by its
    /// public address. Blocks up to `wait`.
    ///
    /// # Errors
    /// [`ErrorKind`](crate::ErrorKind)s: `Unresolvable`, `ServerSilent` (after 5 s), `ServerRefused`, `NameTaken`, `AddressInUse`, `VersionMismatch`,
    /// `InvalidArgument`, `Io`; `Timeout` and `Cancelled` as `wait` says; `Closed`, `Forked`.
    ///
    /// ```no_run
    /// # use holepunch::{Endpoint, Wait};
    /// let endpoint = Endpoint::builder().build()?;
    /// let listener = endpoint.listen(Some("bob"), Wait::forever())?;
    /// let stream = listener.accept(Wait::forever())?;
    /// # Ok::<(), holepunch::Error>(())
    /// ```
    pub fn listen(&self, name: Option<&str>, wait: Wait) -> Result<Listener> {
        let deadline = wait.deadline();
        let time = deadline.left().map_or(RESOLUTION, |left| left.min(RESOLUTION));
        let listener = self.register(name, time, wait.cancel())?;
        let wait = deadline.left().map_or(wait.clone(), |left| wait.but_at_most(left));
        // Where it fails, dropping the listener takes the registration back.
        let known = self.0.engine.wait(&wait, |core| core.is_listening(listener.id));
        known.map_err(|error| in_time(error, "no server has answered"))?;
        Ok(listener)
    }

    /// Connects to a listener for a stream of bytes, by its name or, if `target` is an IP literal, by its public address.
    ///
    /// Otherwise as [`connect_datagram`](Self::connect_datagram).
    ///
    /// # Errors
    /// As [`connect_datagram`](Self::connect_datagram).
    pub fn connect(&self, target: &str, options: &ConnectOptions) -> Result<Stream> {
        self.connect_within(target, options, &options.as_wait())
    }

    /// As [`connect`](Self::connect), also ended by `wait`.
    pub(crate) fn connect_within(&self, target: &str, options: &ConnectOptions, wait: &Wait) -> Result<Stream> {
        match self.connect_over(Transport::Tcp, target, options, wait)? {
            Channel::Stream(link) => Ok(Stream::new(self.0.engine.clone(), link)),
            Channel::Datagrams(_) => Err(wrong_kind()),
        }
    }

    /// Connects to a listener for datagrams, by its name or, if `target` is an IP literal, by its public address.
    ///
    /// Blocks until a direct path was found: by default up to 10 s until the listener is there, and 30 s from the
    /// introduction on ([`ConnectOptions`]).
    ///
    /// # Errors
    /// [`ErrorKind`](crate::ErrorKind)s: `Unresolvable`, `ServerSilent` (after 5 s), `ServerRefused`, `NotFound`, `Ambiguous`, `WrongSecret`, `TransportMismatch`,
    /// `VersionMismatch`, `NoPath`, `LegacyPeer` ([`EndpointBuilder::legacy`]), `Timeout`, `AddressInUse`, `InvalidArgument`, `Io`; `Cancelled`, `Closed`, `Forked`.
    pub fn connect_datagram(&self, target: &str, options: &ConnectOptions) -> Result<Connection> {
        self.connect_datagram_within(target, options, &options.as_wait())
    }

    /// As [`connect_datagram`](Self::connect_datagram), also ended by `wait`.
    pub(crate) fn connect_datagram_within(
        &self,
        target: &str,
        options: &ConnectOptions,
        wait: &Wait,
    ) -> Result<Connection> {
        match self.connect_over(Transport::Udp, target, options, wait)? {
            Channel::Datagrams(link) => Ok(Connection::new(self.0.engine.clone(), link)),
            Channel::Stream(_) => Err(wrong_kind()),
        }
    }

    fn connect_over(
        &self,
        transport: Transport,
        target: &str,
        options: &ConnectOptions,
        wait: &Wait,
    ) -> Result<Channel> {
        let session = self.ask_for(transport, target, options)?;
        let engine = &self.0.engine;
        let outcome = engine.wait(wait, |core| core.connected(session));
        if outcome.is_ok() {
            // The connection is its handle's from now on.
            engine.with(|core| core.connects.remove(&session))?;
        } else {
            engine.with(|core| core.forget_connect(session))?;
        }
        outcome
    }

    /// Does everything that is due, without blocking, and runs the callbacks.
    ///
    /// Needed only without the thread ([`EndpointBuilder::thread`]), and then whenever the descriptor is readable or
    /// [`next_timeout`](Self::next_timeout) has passed. Blocking calls do it themselves while they block; with the thread
    /// it does nothing.
    ///
    /// # Errors
    /// `Io` when the system refuses to tell of readiness; `Forked`.
    ///
    /// ```
    /// # use holepunch::Endpoint;
    /// let endpoint = Endpoint::builder().thread(false).build()?;
    /// endpoint.process()?;
    /// assert_eq!(endpoint.next_timeout(), None); // nothing is asked of it yet
    /// # Ok::<(), holepunch::Error>(())
    /// ```
    pub fn process(&self) -> Result<()> {
        self.0.engine.process()
    }

    /// How long [`process`](Self::process) has nothing to do unless the descriptor becomes readable; `None`: for ever.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.0.engine.next_timeout()
    }

    /// Closes every listener and connection, for good. Returns at once; peers and servers are told in the background,
    /// for at most 3 s. Idempotent, from any thread.
    pub fn close(&self) {
        // It fails where nothing is left to close: in a forked child, or after a panic.
        let _ = self.0.engine.with(crate::io::Core::close_all);
    }

    /// Asks the servers for a registration.
    fn register(&self, name: Option<&str>, resolution: Duration, cancel: Option<&Cancel>) -> Result<Listener> {
        let name = name.map(parse_name).transpose()?;
        let request = ListenRequest {
            transports: self.0.offered,
            name: name.clone(),
            servers: self.resolve(resolution, cancel)?,
            bind: self.0.bind.clone(),
            secret: self.0.secret.clone(),
            prefer_port: self.0.prefer_port,
            legacy: self.0.legacy,
        };
        let id = self.0.engine.with(|core| core.listen(request))??;
        Ok(Listener::new(self.0.engine.clone(), id, name))
    }

    /// Asks the servers for an introduction.
    fn ask_for(&self, transport: Transport, target: &str, options: &ConnectOptions) -> Result<SessionId> {
        let target: Target = target.parse()?;
        let time = RESOLUTION.min(options.wait.saturating_add(options.timeout));
        let request = ConnectRequest {
            transport,
            target,
            servers: self.resolve(time, options.cancel.as_ref())?,
            bind: self.0.bind.clone(),
            secret: self.0.secret.clone(),
            prefer_port: self.0.prefer_port,
            legacy: self.0.legacy,
            wait: options.wait,
            timeout: options.timeout,
        };
        self.0.engine.with(|core| core.connect(request))?
    }

    fn resolve(&self, time: Duration, cancel: Option<&Cancel>) -> Result<Vec<ServerAddress>> {
        let interrupt = || {
            cancel.map_or(Ok(()), Cancel::check)?;
            self.0.engine.with(|core| core.check_open())?
        };
        interrupt()?;
        io::resolve(&self.0.servers, self.0.families, time, interrupt)
    }
}

/// A session ended in the kind of connection that was not asked for, which only a bug brings about.
fn wrong_kind() -> Error {
    Error::new(ErrorKind::Io, "the connection is of the kind that was not asked for").with_hint("report this as a bug")
}

/// Says what was waited for when the time ran out.
fn in_time(error: Error, what: &str) -> Error {
    if error.kind() == crate::ErrorKind::Timeout { Error::new(error.kind(), format!("{what} in time")) } else { error }
}

/// The descriptor to poll for reading without the thread; then call [`Endpoint::process`].
impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.engine.as_fd()
    }
}
