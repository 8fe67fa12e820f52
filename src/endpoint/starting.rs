//! Listening and connecting without blocking, for programs with an event loop of their own.
//!
//! What was started goes on by itself (with the endpoint's thread) or in [`Endpoint::process`]. Whether it is done is asked
//! by polling, which never blocks; when it is worth asking again is told by
//! [`EndpointBuilder::on_change`](super::EndpointBuilder::on_change).

use std::{fmt, sync::Arc};

use super::{ConnectOptions, Connection, Endpoint, Listener, RESOLUTION, Stream, wrong_kind};
use crate::{
    Result,
    io::{Channel, Engine},
    peer::Transport,
    wire::stun::SessionId,
};

/// A connect under way, from [`Endpoint::start_connect`]. Dropping it gives the connect up, and closes what it had brought.
///
/// ```no_run
/// use holepunch::{ConnectOptions, Endpoint};
/// use std::sync::mpsc;
///
/// let (changed, changes) = mpsc::channel();
/// let endpoint = Endpoint::builder().on_change(move || changed.send(()).unwrap_or_default()).build()?;
/// let mut connecting = endpoint.start_connect("bob", &ConnectOptions::default())?;
/// let stream = loop {
///     if let Some(outcome) = connecting.poll() {
///         break outcome?;
///     }
///     let _ = changes.recv();
/// };
/// # drop(stream);
/// # Ok::<(), holepunch::Error>(())
/// ```
#[must_use = "dropping it gives the connect up"]
pub struct Connecting<T> {
    engine: Arc<Engine>,
    session: SessionId,
    make: fn(Arc<Engine>, Channel) -> Result<T>,
}

impl<T> Connecting<T> {
    /// What became of it; `None` while that is not known. The outcome is told once, then it is `Closed`. Does not block.
    ///
    /// # Errors
    /// As [`Endpoint::connect_datagram`], except for `Cancelled`.
    pub fn poll(&mut self) -> Option<Result<T>> {
        let outcome = match self.engine.with(|core| core.connected(self.session)) {
            Ok(outcome) => outcome?,
            Err(error) => Err(error),
        };
        Some(outcome.and_then(|channel| {
            // It is its handle's from now on.
            self.engine.with(|core| core.connects.remove(&self.session))?;
            (self.make)(self.engine.clone(), channel)
        }))
    }
}

impl<T> Drop for Connecting<T> {
    fn drop(&mut self) {
        // It fails where nothing is left to give up: in a forked child, or after a panic.
        let _ = self.engine.with(|core| core.forget_connect(self.session));
    }
}

impl<T> fmt::Debug for Connecting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Starts to connect to a listener for a stream of bytes. Blocks only where it [looks up names](Self::looks_up_names).
    ///
    /// # Errors
    /// `Unresolvable`, `InvalidArgument`, `Cancelled`, `Closed`, `Forked`; everything else comes from [`Connecting::poll`].
    pub fn start_connect(&self, target: &str, options: &ConnectOptions) -> Result<Connecting<Stream>> {
        self.start(Transport::Tcp, target, options, |engine, channel| match channel {
            Channel::Stream(link) => Ok(Stream::new(engine, link)),
            Channel::Datagrams(_) => Err(wrong_kind()),
        })
    }

    /// Starts to connect to a listener for datagrams; otherwise as [`start_connect`](Self::start_connect).
    ///
    /// # Errors
    /// As [`start_connect`](Self::start_connect).
    pub fn start_connect_datagram(&self, target: &str, options: &ConnectOptions) -> Result<Connecting<Connection>> {
        self.start(Transport::Udp, target, options, |engine, channel| match channel {
            Channel::Datagrams(link) => Ok(Connection::new(engine, link)),
            Channel::Stream(_) => Err(wrong_kind()),
        })
    }

    /// Starts to register with every server; [`Listener::poll_listening`] tells when one has the registration.
    ///
    /// Blocks only where it [looks up names](Self::looks_up_names), and for that at most as long as `wait` says.
    ///
    /// # Errors
    /// `Unresolvable`, `InvalidArgument`, `Cancelled`, `Closed`, `Forked`.
    pub fn start_listen(&self, name: Option<&str>, wait: super::Wait) -> Result<Listener> {
        let time = wait.deadline().left().map_or(RESOLUTION, |left| left.min(RESOLUTION));
        self.register(name, time, wait.cancel())
    }

    /// Whether starting something asks the system's resolver for a server's address, which may block for seconds. Without
    /// it every `start` function returns at once.
    #[must_use]
    pub fn looks_up_names(&self) -> bool {
        self.0.servers.iter().any(|server| !server.is_literal())
    }

    fn start<T>(
        &self,
        transport: Transport,
        target: &str,
        options: &ConnectOptions,
        make: fn(Arc<Engine>, Channel) -> Result<T>,
    ) -> Result<Connecting<T>> {
        let session = self.ask_for(transport, target, options)?;
        Ok(Connecting { engine: self.0.engine.clone(), session, make })
    }
}

impl Listener {
    /// Whether a server has the registration, or why none will; `None` while that is not known. Does not block.
    ///
    /// # Errors
    /// As [`Endpoint::listen`], except for `Timeout` and `Cancelled`.
    pub fn poll_listening(&self) -> Option<Result<()>> {
        match self.engine.with(|core| core.is_listening(self.id)) {
            Ok(outcome) => outcome,
            Err(error) => Some(Err(error)),
        }
    }
}
