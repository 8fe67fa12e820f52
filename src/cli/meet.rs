//! `holepunch listen` and `holepunch connect`: from the arguments to one connection, which
//! [`exchange`] or [`pipe`] then serves.
//!
//! The endpoint's events become the `registered` and `introduced` lines as they come, until there is a connection.
//! `connected` is said here and not from the endpoint's event: a listener may be meeting several peers at once, and only
//! the one that was accepted is served.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Context,
    arguments::{ConnectArguments, ListenArguments, MeetingArguments},
    exchange::exchange,
    pipe::pipe,
    report::Report,
    settings,
    streams::{Stop, Stream},
};
use crate::{
    Cancel, ConnectOptions, Connection, Endpoint, Error, ErrorKind, Result, Wait,
    config::PeerConfig,
    peer::{CloseReason, Path, PeerEvent, Transport},
    wire::stun::SessionId,
};

/// Waits for one peer and serves it.
pub(super) fn listen(arguments: &ListenArguments, context: &Context<'_>) -> Result<()> {
    let deadline = (!arguments.wait.is_zero()).then(|| Instant::now() + arguments.wait);
    let meeting = Meeting::new(&arguments.meeting, arguments.name.clone(), context)?;
    let wait = || match deadline {
        Some(deadline) => Wait::at_most(deadline.saturating_duration_since(Instant::now())),
        None => Wait::forever(),
    };
    let out_of_time = |error: Error| match (error.kind(), deadline) {
        (ErrorKind::Timeout, Some(_)) => {
            let seconds = arguments.wait.as_secs_f64();
            Error::new(ErrorKind::Timeout, format!("no peer came within {seconds} s"))
                .with_hint("start the other side, or wait longer")
        }
        _ => error,
    };
    let progress = context.report.progress("waiting for a peer");
    let listener = meeting
        .endpoint
        .listen(arguments.name.as_deref(), wait().or_cancelled(&meeting.cancel))
        .map_err(out_of_time)?;
    let wait = wait().or_cancelled(&meeting.cancel);
    let met = if arguments.meeting.udp {
        listener.accept_datagram(wait).map(Met::Datagrams)
    } else {
        listener.accept(wait).map(Met::Stream)
    };
    let met = met.map_err(out_of_time)?;
    drop(progress);
    meeting.watch.meet(met.session());
    listener.close();
    meeting.serve(&met, context)
}

/// Connects to a listener and serves it.
pub(super) fn connect(arguments: &ConnectArguments, context: &Context<'_>) -> Result<()> {
    let meeting = Meeting::new(&arguments.meeting, None, context)?;
    let options =
        ConnectOptions::default().wait(arguments.wait).timeout(arguments.meeting.timeout).cancel(&meeting.cancel);
    let progress = context.report.progress(&format!("connecting to {}", arguments.target));
    let met = if arguments.meeting.udp {
        Met::Datagrams(meeting.endpoint.connect_datagram(&arguments.target, &options)?)
    } else {
        Met::Stream(meeting.endpoint.connect(&arguments.target, &options)?)
    };
    drop(progress);
    meeting.watch.meet(met.session());
    meeting.serve(&met, context)
}

/// The connection that is served.
enum Met {
    Datagrams(Connection),
    Stream(crate::Stream),
}

impl Met {
    fn session(&self) -> SessionId {
        match self {
            Self::Datagrams(connection) => connection.session(),
            Self::Stream(stream) => stream.session(),
        }
    }

    fn path(&self) -> Path {
        match self {
            Self::Datagrams(connection) => connection.path(),
            Self::Stream(stream) => stream.path(),
        }
    }

    fn close(&self) {
        match self {
            Self::Datagrams(connection) => connection.close(),
            Self::Stream(stream) => stream.close(),
        }
    }
}

/// What is known of the sessions, told by the endpoint's events on its thread.
///
/// Events come in order, but a call that an event ends may return a little before its event is told. So whoever builds
/// on what an event says waits for it.
#[derive(Default)]
pub(super) struct Watch {
    watched: Mutex<Watched>,
    changed: Condvar,
}

/// An event follows the call that it ended within microseconds; if one never comes, this ends the waiting for it.
const STRAGGLER: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Watched {
    /// The session that is served, once there is one.
    served: Option<SessionId>,
    /// Whether its meeting is over, so that others do not matter any more.
    met: bool,
    fates: BTreeMap<SessionId, Fate>,
}

impl Watched {
    fn fate(&self) -> Fate {
        self.served.and_then(|session| self.fates.get(&session).copied()).unwrap_or_default()
    }
}

/// How far a session has come to its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    /// There is a path.
    connected: bool,
    /// The peer has announced the end of its data.
    pub(super) peer_ended: bool,
    /// It is over.
    pub(super) closed: Option<CloseReason>,
}

impl Watch {
    /// The fate of the session that is served.
    pub(super) fn fate(&self) -> Fate {
        self.lock().fate()
    }

    /// The fate of the session that is served, once it is known that nothing more is to come from the peer.
    pub(super) fn end(&self) -> Fate {
        self.wait(|fate| fate.peer_ended || fate.closed.is_some())
    }

    /// From here on only this session matters; its meeting has been told to the end.
    fn meet(&self, session: SessionId) {
        self.lock().served = Some(session);
        self.wait(|fate| fate.connected);
        let mut watched = self.lock();
        watched.met = true;
        watched.fates.retain(|other, _| *other == session);
    }

    fn wait(&self, reached: impl Fn(&Fate) -> bool) -> Fate {
        let pending = |watched: &mut Watched| !reached(&watched.fate());
        self.changed
            .wait_timeout_while(self.lock(), STRAGGLER, pending)
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .fate()
    }

    /// Whether events of meetings are still of interest.
    fn is_meeting(&self) -> bool {
        !self.lock().met
    }

    /// Changes the fate of a session that is served or may yet be; true when it is the one.
    fn update(&self, session: SessionId, change: impl FnOnce(&mut Fate)) -> bool {
        let mut watched = self.lock();
        let served = watched.served == Some(session);
        if served || !watched.met {
            change(watched.fates.entry(session).or_default());
            self.changed.notify_all();
        }
        served
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An endpoint with all that is around it.
struct Meeting {
    endpoint: Endpoint,
    cancel: Cancel,
    watch: Arc<Watch>,
    input: Stream,
    output: Stream,
}

impl Meeting {
    fn new(arguments: &MeetingArguments, name: Option<String>, context: &Context<'_>) -> Result<Self> {
        let secret = settings::secret(arguments.secret_file.as_deref(), context.environment)?;
        let stream = |name: &'static str| {
            move |error: std::io::Error| {
                Error::new(ErrorKind::Io, format!("{name} cannot be used: {error}")).with_os_code(error.raw_os_error())
            }
        };
        let input = Stream::stdin().map_err(stream("stdin"))?;
        let output = Stream::stdout().map_err(stream("stdout"))?;
        let cancel = Cancel::new()?;
        let (on_signal, stop_input, stop_output) = (cancel.clone(), input.stopper(), output.stopper());
        context.signals.on_signal(move || {
            on_signal.cancel();
            stop_input.stop();
            stop_output.stop();
        });
        let watch = Arc::new(Watch::default());
        let (events, log) = (Arc::clone(&context.report), Arc::clone(&context.report));
        let (watching, stop) = (Arc::clone(&watch), input.stopper());
        let config = PeerConfig { session_timeout: arguments.timeout, ..PeerConfig::default() };
        let mut builder = Endpoint::builder()
            .config(config)
            .on_event(move |event| hear(event, name.as_deref(), &events, &watching, &stop))
            .on_log(move |level, text| log.log(level, text));
        builder = if arguments.udp { builder.datagrams_only() } else { builder.streams_only() };
        for server in &arguments.server {
            builder = builder.server(server);
        }
        for address in &arguments.bind {
            builder = builder.bind(*address);
        }
        if arguments.ipv4 {
            builder = builder.ipv4_only();
        }
        if arguments.ipv6 {
            builder = builder.ipv6_only();
        }
        if let Some(secret) = secret {
            builder = builder.secret(secret);
        }
        Ok(Self { endpoint: builder.build()?, cancel, watch, input, output })
    }

    /// Says that there is a connection, joins it to stdin and stdout, and says how it ended.
    fn serve(self, met: &Met, context: &Context<'_>) -> Result<()> {
        let Self { endpoint, cancel, watch, mut input, mut output } = self;
        say_connected(&context.report, met);
        let (result, traffic) = match met {
            Met::Datagrams(connection) => exchange(connection, &mut input, &mut output, &cancel, &watch),
            Met::Stream(stream) => pipe(stream, &mut input, &mut output, &cancel),
        };
        let reason = match &result {
            Ok(()) => Some("end"),
            Err(error) if error.kind() == ErrorKind::Lost => Some("lost"),
            Err(_) => context.signals.caught().map(|_| "signal"),
        };
        met.close();
        if let Some(reason) = reason {
            context.report.event("closed", |object| {
                object
                    .string("reason", reason)
                    .integer("bytes_in", traffic.bytes_in)
                    .integer("bytes_out", traffic.bytes_out)
            });
        }
        let (bytes_in, bytes_out) = (traffic.bytes_in, traffic.bytes_out);
        context.report.line(&format!("closed; {bytes_in} bytes received, {bytes_out} bytes sent"));
        endpoint.close();
        result
    }
}

/// Takes an event of the endpoint; on its thread.
fn hear(event: &PeerEvent, name: Option<&str>, report: &Report, watch: &Watch, stop: &Stop) {
    match event {
        PeerEvent::Registered { server, mapped, via, .. } if watch.is_meeting() => {
            report.event("registered", |object| {
                object
                    .optional("name", name)
                    .string("server", server)
                    .string("via", via.name())
                    .strings("mapped", mapped)
            });
            let who = name.map_or_else(|| "without a name".to_owned(), |name| format!("as \"{name}\""));
            let mapped: Vec<_> = mapped.iter().map(ToString::to_string).collect();
            let over_tcp = if *via == Transport::Tcp { " over TCP" } else { "" };
            report.line(&format!("registered {who} at {server}{over_tcp}, seen as {}", mapped.join(" and ")));
        }
        PeerEvent::Introduced { session, role, peer, .. } if watch.is_meeting() => {
            report.event("introduced", |object| {
                object.string("session", hex(session)).string("role", role.name()).strings("peer", peer)
            });
            let peer: Vec<_> = peer.iter().map(ToString::to_string).collect();
            report.line(&format!("introduced to a peer at {}", peer.join(", ")));
        }
        PeerEvent::Failed { listener: Some(_), error, .. } if watch.is_meeting() => {
            report.line(&format!("no connection with that peer: {error}"));
        }
        PeerEvent::Connected { session, .. } => {
            watch.update(*session, |fate| fate.connected = true);
        }
        PeerEvent::Moved { session, remote } => {
            if watch.update(*session, |_| {}) {
                report.event("moved", |object| object.string("session", hex(session)).string("remote", remote));
                report.line(&format!("the peer is at {remote} now"));
            }
        }
        PeerEvent::PeerEnded { session } => {
            watch.update(*session, |fate| fate.peer_ended = true);
        }
        PeerEvent::Closed { session, reason } => {
            if watch.update(*session, |fate| fate.closed = Some(*reason)) {
                stop.stop();
            }
        }
        PeerEvent::Registered { .. }
        | PeerEvent::Introduced { .. }
        | PeerEvent::LocalCandidate { .. }
        | PeerEvent::Gathered { .. }
        | PeerEvent::LegacyIntroduced { .. }
        | PeerEvent::Failed { .. }
        | PeerEvent::ListenFailed { .. }
        | PeerEvent::PeerBare { .. }
        | PeerEvent::Bare { .. }
        | PeerEvent::EndAcknowledged { .. } => {}
    }
}

fn say_connected(report: &Report, met: &Met) {
    let path = met.path();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    report.event("connected", |object| {
        object
            .string("session", hex(&met.session()))
            .string("transport", path.carrier.transport().name())
            .string("local", path.local)
            .string("remote", path.remote)
            .string("path", path.kind.name())
            .string("strategy", path.strategy.name())
            .number("rtt_ms", milliseconds(path.rtt), 3)
            .number("since_introduction_ms", milliseconds(path.since_introduction), 3)
            .integer("packets_sent", path.packets_sent)
            .integer("sockets", path.sockets)
    });
    report.line(&format!(
        "connected to {} ({}, {}) {:.1} ms after the introduction; round trip {:.1} ms",
        path.remote,
        path.kind.name(),
        path.strategy.name(),
        milliseconds(path.since_introduction),
        milliseconds(path.rtt),
    ));
}

fn hex(session: &SessionId) -> String {
    session.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
