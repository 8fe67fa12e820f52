//! One negotiation of ICE with signalling of the program's own: [`Agent`].
//!
//! No rendezvous server takes part. The program tells the peer what the agent says of itself, by whatever channel it has, and
//! the agent what the peer said; the peer may be any agent of ICE (RFC 8445), such as libnice, aioice or a browser's.

use std::{fmt, sync::Arc, time::Duration};

use super::{Cancel, Connection, Endpoint, RESOLUTION, Wait, in_time, wrong_kind};
use crate::{
    Error, ErrorKind, Result,
    config::{DEFAULT_STUN_PORT, MAX_STUN_SERVERS},
    io::{self, Channel, Core, Engine, ServerName},
    peer::NegotiateRequest,
    punch::Role,
    wire::{
        sdp::Description,
        stun::{Credentials, SessionId},
    },
};

/// What an [`Agent`] is to ask, and how long it may take.
///
/// ```
/// use holepunch::AgentOptions;
/// use std::time::Duration;
///
/// let options = AgentOptions::default().stun_server("192.0.2.1").timeout(Duration::from_secs(60));
/// # drop(options);
/// ```
#[derive(Clone, Debug)]
pub struct AgentOptions {
    stun_servers: Vec<String>,
    timeout: Duration,
    cancel: Option<Cancel>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { stun_servers: Vec::new(), timeout: Duration::from_secs(30), cancel: None }
    }
}

impl AgentOptions {
    /// Adds a STUN server that is asked for our mapped addresses, written as a [rendezvous server](super::EndpointBuilder::server);
    /// the port is 3478 unless told. A rendezvous server of ours is one too, on its own port. Up to eight; default none,
    /// which connects on one LAN, or to a peer that we can reach at its addresses.
    #[must_use]
    pub fn stun_server(mut self, server: impl Into<String>) -> Self {
        self.stun_servers.push(server.into());
        self
    }

    /// How long the two may take from the moment on that the peer's credentials are known (default 30 s).
    #[must_use]
    pub fn timeout(self, time: Duration) -> Self {
        Self { timeout: time, ..self }
    }

    /// Also ends the look-up of the servers' names when `cancel` is cancelled.
    #[must_use]
    pub fn cancel(self, cancel: &Cancel) -> Self {
        Self { cancel: Some(cancel.clone()), ..self }
    }
}

/// One negotiation of ICE with signalling of the program's own, from [`Endpoint::agent`].
///
/// What is to be told to the peer: [`ufrag`](Self::ufrag), [`password`](Self::password) and each candidate
/// ([`next_candidate`](Self::next_candidate)), or all at once ([`local_description`](Self::local_description)). What the peer
/// said comes in by [`set_remote`](Self::set_remote) and [`add_remote_candidate`](Self::add_remote_candidate), or
/// [`set_remote_description`](Self::set_remote_description), in whatever order. Then [`connect`](Self::connect) waits for the
/// connection, which is like any other, save that its end is not told: the peer notices by consent (RFC 7675) or by what the
/// application says. The candidates that are checked are those that the signalling brought: it must come from the peer.
///
/// Calls may be made from any thread. Dropping it closes it; the connection that it gave lives on.
///
/// ```
/// use holepunch::{AgentOptions, Endpoint, Wait, punch::Role};
///
/// let endpoint = Endpoint::builder().bind("127.0.0.1:0".parse()?).build()?;
/// let ours = endpoint.agent(Role::Controlling, &AgentOptions::default())?;
/// let theirs = endpoint.agent(Role::Controlled, &AgentOptions::default())?;
/// // Here both are in one program; else these texts cross by whatever way there is.
/// ours.set_remote_description(&theirs.local_description(Wait::forever())?)?;
/// theirs.set_remote_description(&ours.local_description(Wait::forever())?)?;
/// let connection = ours.connect(Wait::forever())?;
/// connection.send(b"hello")?;
/// let mut buffer = [0; 1200];
/// let length = theirs.connect(Wait::forever())?.recv(&mut buffer, Wait::forever())?;
/// assert_eq!(&buffer[..length], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Agent {
    engine: Arc<Engine>,
    role: Role,
    session: SessionId,
    local: Credentials,
}

impl Endpoint {
    /// Begins a negotiation whose signalling is the program's own. The rendezvous servers of the endpoint are not asked; what
    /// it binds to is its own.
    ///
    /// Blocks only to look up the names of STUN servers, for at most 10 s.
    ///
    /// # Errors
    /// `InvalidArgument`, `Unresolvable`, `Cancelled`, `Closed`, `Forked`. That no socket can be bound is told by the agent's calls.
    pub fn agent(&self, role: Role, options: &AgentOptions) -> Result<Agent> {
        if options.stun_servers.len() > MAX_STUN_SERVERS {
            let text =
                format!("{} STUN servers, and an agent asks at most {MAX_STUN_SERVERS}", options.stun_servers.len());
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let parse = |server: &String| ServerName::parse_or(server, DEFAULT_STUN_PORT);
        let names = options.stun_servers.iter().map(parse).collect::<Result<Vec<_>>>()?;
        let interrupt = || {
            options.cancel.as_ref().map_or(Ok(()), Cancel::check)?;
            self.0.engine.with(|core| core.check_open())?
        };
        interrupt()?;
        let stun_servers = match names.is_empty() {
            true => Vec::new(),
            false => io::resolve(&names, self.0.families, RESOLUTION, interrupt)?,
        };
        let request = NegotiateRequest {
            role,
            stun_servers,
            bind: self.0.bind.clone(),
            timeout: options.timeout,
            prefer_port: self.0.prefer_port,
        };
        let (session, local) = self.0.engine.with(|core| core.negotiate(request))??;
        Ok(Agent { engine: self.0.engine.clone(), role, session, local })
    }
}

impl Agent {
    /// Our username fragment: 8 characters.
    #[must_use]
    pub fn ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// Our password: 32 characters. Whoever has it can make checks that are taken for the peer's.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.local.password
    }

    /// The number that log lines and events call the session by.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Waits for the next of our candidates, a line that begins with `candidate:` (RFC 8839 section 5.1); `None` when there are
    /// no more. Each is given once: addresses of this host at once, mapped ones when the STUN servers have answered, at most
    /// 5 s later.
    ///
    /// # Errors
    /// `Timeout` and `Cancelled` as `wait` says; why the negotiation failed, such as `AddressInUse`; `Closed`, `Forked`.
    pub fn next_candidate(&self, wait: Wait) -> Result<Option<String>> {
        let next = self.engine.wait(&wait, |core| core.next_candidate(self.session));
        next.map_err(|error| in_time(error, "no further candidate was found"))
    }

    /// Waits until all our candidates are known, and gives them with the credentials as lines of SDP: the same each time,
    /// whatever [`next_candidate`](Self::next_candidate) gave.
    ///
    /// # Errors
    /// As [`next_candidate`](Self::next_candidate).
    pub fn local_description(&self, wait: Wait) -> Result<String> {
        let lines = self.engine.wait(&wait, |core| core.local_candidates(self.session));
        let lines = lines.map_err(|error| in_time(error, "not all candidates were found"))?;
        Ok(self.describe(&lines))
    }

    /// Tells the peer's credentials; checks begin. To tell the same again changes nothing. Does not block.
    ///
    /// # Errors
    /// `InvalidArgument` when they cannot be anybody's; `Unsupported` for others than before (an ICE restart needs a new agent);
    /// why the negotiation failed; `Closed`, `Forked`.
    pub fn set_remote(&self, ufrag: &str, password: &str) -> Result<()> {
        let remote = Credentials { ufrag: ufrag.into(), password: password.into() };
        self.engine.with(|core| core.set_remote(self.session, remote))?
    }

    /// Tells a candidate of the peer: a line of SDP, with or without `a=` and `candidate:`. One of TCP, of another component,
    /// with a name instead of an address, or after the end of all, is left out; an empty line is the end of all, as in
    /// browsers. Does not block.
    ///
    /// # Errors
    /// `InvalidArgument` when it is no candidate; why the negotiation failed; `Closed`, `Forked`.
    pub fn add_remote_candidate(&self, line: &str) -> Result<()> {
        if line.trim().is_empty() {
            return self.end_of_candidates();
        }
        self.engine.with(|core| core.add_remote_candidate(self.session, line))?
    }

    /// Tells that these were all candidates of the peer; later ones are left out. Does not block.
    ///
    /// # Errors
    /// Why the negotiation failed; `Closed`, `Forked`.
    pub fn end_of_candidates(&self) -> Result<()> {
        self.engine.with(|core| core.end_of_remote_candidates(self.session))?
    }

    /// Tells the peer's credentials and candidates, found among lines of SDP. Candidates that cannot be read are left out.
    /// Does not block.
    ///
    /// # Errors
    /// As [`set_remote`](Self::set_remote); `InvalidArgument` also where the peer is an agent of ICE lite and this one is not
    /// controlling, for then nobody would be (RFC 8445 section 6.1.1).
    pub fn set_remote_description(&self, text: &str) -> Result<()> {
        let found = Description::parse(text).map_err(|what| Error::new(ErrorKind::InvalidArgument, what))?;
        if found.is_lite && self.role != Role::Controlling {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the peer is ICE lite, which leaves the choice to this agent",
            )
            .with_hint("make the agent controlling"));
        }
        self.set_remote(found.ufrag, found.password)?;
        for line in found.candidates {
            match self.add_remote_candidate(line) {
                Err(error) if error.kind() == ErrorKind::InvalidArgument => {}
                told => told?,
            }
        }
        if found.is_complete { self.end_of_candidates() } else { Ok(()) }
    }

    /// Waits for the connection, which is given once. After `Timeout` or `Cancelled` of `wait` itself it may be waited for again.
    ///
    /// # Errors
    /// `Timeout`: the time of `wait` is over, or the two have found no path in theirs; `Cancelled`, `AddressInUse`, `Io`;
    /// `Closed`, `Forked`.
    pub fn connect(&self, wait: Wait) -> Result<Connection> {
        let channel = self.engine.wait(&wait, |core| core.negotiated(self.session))?;
        self.connection(channel)
    }

    /// As [`next_candidate`](Self::next_candidate), without waiting: `None` while it is not known. Like the other polls,
    /// worth asking again when [`EndpointBuilder::on_change`](super::EndpointBuilder::on_change) says so.
    ///
    /// # Errors
    /// As there, except for `Timeout` and `Cancelled` of the wait.
    pub fn poll_candidate(&self) -> Option<Result<Option<String>>> {
        self.poll(|core| core.next_candidate(self.session))
    }

    /// As [`local_description`](Self::local_description), without waiting: `None` while it is not known.
    ///
    /// # Errors
    /// As [`poll_candidate`](Self::poll_candidate).
    pub fn poll_description(&self) -> Option<Result<String>> {
        let lines = self.poll(|core| core.local_candidates(self.session))?;
        Some(lines.map(|lines| self.describe(&lines)))
    }

    /// As [`connect`](Self::connect), without waiting: `None` while it is not known.
    ///
    /// # Errors
    /// As there, except for `Timeout` and `Cancelled` of the wait.
    pub fn poll_connect(&self) -> Option<Result<Connection>> {
        let channel = self.poll(|core| core.negotiated(self.session))?;
        Some(channel.and_then(|channel| self.connection(channel)))
    }

    /// Gives the negotiation up: blocked calls fail with `Closed`. A connection that it gave lives on. Idempotent, from any thread.
    pub fn close(&self) {
        // It fails where nothing is left to give up: in a forked child, or after a panic.
        let _ = self.engine.with(|core| core.forget_negotiation(self.session));
    }
}

impl Agent {
    fn poll<T>(&self, ask: impl FnOnce(&mut Core) -> Option<Result<T>>) -> Option<Result<T>> {
        self.engine.with(ask).unwrap_or_else(|error| Some(Err(error)))
    }

    fn describe(&self, candidates: &[String]) -> String {
        let Credentials { ufrag, password } = &self.local;
        let candidates = candidates.iter().map(String::as_str).collect();
        Description { ufrag, password, candidates, is_complete: true, is_lite: false }.to_string()
    }

    fn connection(&self, channel: Channel) -> Result<Connection> {
        match channel {
            Channel::Datagrams(link) => Ok(Connection::new(self.engine.clone(), link)),
            Channel::Stream(_) => Err(wrong_kind()),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("session", &self.session).finish_non_exhaustive()
    }
}
