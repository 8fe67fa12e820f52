//! Connections to servers that UDP does not get through to: called, greeted, made anew when they break.
//!
//! Each has a port of its own, for a connect needs one. Which servers are called is for a lookup or a registration to say; so
//! is for how long: a server that was of no use until its deadline is given up, and one without a deadline is called
//! again and again, after 1 s, 2 s, 4 s and so on, as is one whose connection broke. A server that the system itself will not
//! connect to, or has no port for, is given up too, if it has a deadline. One that takes the connection and does not answer
//! the greeting is hung up on after the time that makes a server silent, and called again.

use alloc::vec::Vec;
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{context::Context, session::StreamNews};
use crate::{
    Error,
    machine::{Instant, Level, NextWake, PortId, StreamId, TcpRequest, Timer},
    rendezvous::client::{Call, Connection, From, Read, Via},
};

/// A server that takes connections and ends them again is given up after so many, unless it was of use before.
const MAX_BREAKS: u8 = 8;

#[derive(Clone, Copy, Debug)]
enum State {
    /// The port is asked for.
    Reserving,
    /// A connection is there, or being made.
    Calling(Connection),
    /// It broke; the next is made then.
    Broken(Instant),
    /// There was no port to be had; it is asked for again then.
    WithoutPort(Instant),
    /// Not to be had; the port is given back.
    GivenUp,
}

#[derive(Debug)]
struct Uplink {
    server: SocketAddr,
    /// The local address.
    ip: IpAddr,
    port: PortId,
    state: State,
    /// Until when the server must have been of use.
    deadline: Option<Instant>,
    /// Until when it must have answered the greeting.
    greeted_until: Option<Instant>,
    /// How long to wait when it breaks next, and how often it did.
    backoff: Duration,
    breaks: u8,
}

/// The connections of one listener, or of one connector's session.
#[derive(Debug)]
pub(super) struct Uplinks {
    /// The local addresses to connect from.
    bind: Vec<IpAddr>,
    /// A server that was talked to is called for ever when its connection breaks.
    persistent: bool,
    uplinks: Vec<Uplink>,
}

/// What became of a connection to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UplinkNews {
    /// Nothing that others need to know.
    None,
    /// Messages may be sent along it.
    Opened(StreamId, SocketAddr),
    /// It is no more.
    Lost(StreamId),
    /// It has brought a message, which is what was read.
    Message(From),
}

impl Uplinks {
    pub(super) fn new(bind: &[SocketAddr]) -> Self {
        Self { bind: bind.iter().map(SocketAddr::ip).collect(), persistent: false, uplinks: Vec::new() }
    }

    /// The server has been of use along this connection: where it breaks, there is time again.
    pub(super) fn was_of_use(&mut self, stream: StreamId) {
        if let Some(uplink) = self.uplinks.iter_mut().find(|uplink| uplink.stream() == Some(stream)) {
            uplink.deadline = None;
        }
    }

    /// From now on servers are called for ever: they have been of use.
    pub(super) fn persist(&mut self) {
        self.persistent = true;
        for uplink in &mut self.uplinks {
            uplink.deadline = None;
        }
    }

    /// Calls a server, unless that was done before.
    pub(super) fn call(&mut self, cx: &mut Context<'_>, call: Call) {
        let Call { server, deadline } = call;
        if let Some(known) = self.uplinks.iter_mut().find(|known| known.server == server) {
            if let State::GivenUp = known.state {
                known.deadline = deadline;
                known.port = reserve(cx, known.ip);
                known.state = State::Reserving;
            }
            return;
        }
        let Some(ip) = self.bind.iter().find(|ip| ip.is_ipv6() == server.is_ipv6()) else { return };
        let (port, backoff) = (reserve(cx, *ip), cx.config.reconnect);
        self.uplinks.push(Uplink {
            server,
            ip: *ip,
            port,
            state: State::Reserving,
            deadline,
            greeted_until: None,
            backoff,
            breaks: 0,
        });
    }

    /// Whether a server that is meant may still become one that can be talked to.
    pub(super) fn is_calling(&self, is_meant: impl Fn(SocketAddr) -> bool) -> bool {
        let is_calling = |uplink: &Uplink| match &uplink.state {
            State::Reserving | State::Broken(_) | State::WithoutPort(_) => true,
            State::Calling(connection) => !connection.is_open(),
            State::GivenUp => false,
        };
        self.uplinks.iter().any(|uplink| is_calling(uplink) && is_meant(uplink.server))
    }

    /// Closes those that are of no use any more.
    pub(super) fn retain(&mut self, cx: &mut Context<'_>, is_needed: impl Fn(SocketAddr) -> bool) {
        self.uplinks.retain_mut(|uplink| {
            let keep = is_needed(uplink.server);
            if !keep {
                uplink.give_up(cx);
            }
            keep
        });
    }

    pub(super) fn owns(&self, stream: StreamId) -> bool {
        self.uplinks.iter().any(|uplink| uplink.stream() == Some(stream))
    }

    /// Notes what became of a port; whether it is one of these.
    pub(super) fn handle_reserved(
        &mut self,
        cx: &mut Context<'_>,
        port: PortId,
        result: &Result<SocketAddr, Error>,
    ) -> bool {
        let Some(uplink) = self.uplinks.iter_mut().find(|uplink| uplink.port == port) else { return false };
        match result {
            Ok(_) => uplink.connect(cx),
            Err(error) => {
                cx.log(Level::Warn, alloc::format!("no port to call {} from: {error}", uplink.server));
                if uplink.deadline.is_some() {
                    uplink.give_up(cx);
                } else {
                    uplink.release(cx);
                    uplink.state = State::WithoutPort(uplink.next_try(cx));
                }
            }
        }
        true
    }

    /// Takes in what became of a connection, if it is one of these.
    pub(super) fn handle_stream(&mut self, cx: &mut Context<'_>, stream: StreamId, news: StreamNews) -> UplinkNews {
        let persistent = self.persistent;
        let Some(uplink) = self.uplinks.iter_mut().find(|uplink| uplink.stream() == Some(stream)) else {
            return UplinkNews::None;
        };
        let State::Calling(connection) = &mut uplink.state else { return UplinkNews::None };
        match news {
            StreamNews::Connected(_) => match connection.handle_connected(false) {
                Some(greeting) => {
                    cx.tcp(greeting);
                    uplink.greeted_until = Some(cx.now + cx.config.retransmission.silence);
                    UplinkNews::None
                }
                None => uplink.opened(cx, stream),
            },
            StreamNews::Failed { at_once: true } if uplink.deadline.is_some() => {
                uplink.state = State::Broken(cx.now);
                uplink.give_up(cx);
                UplinkNews::Lost(stream)
            }
            StreamNews::Failed { .. } => {
                uplink.broke(cx, persistent);
                UplinkNews::Lost(stream)
            }
        }
    }

    /// Takes in what a server says, if it is one of these; how much of it, and what came of it.
    pub(super) fn handle_data(&mut self, cx: &mut Context<'_>, stream: StreamId, bytes: &[u8]) -> (usize, UplinkNews) {
        let Some(uplink) = self.uplinks.iter_mut().find(|uplink| uplink.stream() == Some(stream)) else {
            return (0, UplinkNews::None);
        };
        let State::Calling(connection) = &mut uplink.state else { return (0, UplinkNews::None) };
        match connection.read(bytes) {
            Read::Nothing => (0, UplinkNews::None),
            Read::Greeting(length) if connection.server_is_current() => (length, uplink.opened(cx, stream)),
            Read::Greeting(length) => (length, UplinkNews::None),
            Read::Message(length) => {
                (length, UplinkNews::Message(From { via: Via::Tcp(stream), remote: uplink.server }))
            }
            Read::Nonsense => {
                self.hang_up(cx, stream);
                (bytes.len(), UplinkNews::Lost(stream))
            }
        }
    }

    /// Ends a connection along which nothing useful comes; a new one is made after a while.
    pub(super) fn hang_up(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        if let Some(uplink) = self.uplinks.iter_mut().find(|uplink| uplink.stream() == Some(stream)) {
            uplink.hang_up(cx, self.persistent);
        }
    }

    /// Gives up what has taken too long, and calls again what broke; the connections that are no more.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Vec<StreamId> {
        let mut lost = Vec::new();
        for uplink in &mut self.uplinks {
            if uplink.deadline.is_some_and(|deadline| cx.now >= deadline) {
                lost.extend(uplink.stream());
                uplink.give_up(cx);
            }
            if uplink.greeted_until.is_some_and(|until| cx.now >= until) {
                uplink.hang_up(cx, self.persistent);
            }
            match uplink.state {
                State::Broken(until) if cx.now >= until => uplink.connect(cx),
                State::WithoutPort(until) if cx.now >= until => {
                    uplink.port = reserve(cx, uplink.ip);
                    uplink.state = State::Reserving;
                }
                State::Reserving | State::Calling(_) | State::Broken(_) | State::WithoutPort(_) | State::GivenUp => {}
            }
        }
        lost
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        for uplink in &self.uplinks {
            wake.at(uplink.deadline, Timer::Server);
            wake.at(uplink.greeted_until, Timer::Server);
            if let State::Broken(until) | State::WithoutPort(until) = uplink.state {
                wake.at(Some(until), Timer::Server);
            }
        }
        wake
    }

    /// Closes everything.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) {
        self.retain(cx, |_| false);
    }
}

impl Uplink {
    const fn stream(&self) -> Option<StreamId> {
        match &self.state {
            State::Calling(connection) => Some(connection.stream()),
            State::Reserving | State::Broken(_) | State::WithoutPort(_) | State::GivenUp => None,
        }
    }

    fn connect(&mut self, cx: &mut Context<'_>) {
        let stream = cx.new_stream();
        self.state = State::Calling(Connection::new(stream));
        cx.tcp(TcpRequest::Connect { port: self.port, stream, remote: self.server });
    }

    fn opened(&mut self, cx: &Context<'_>, stream: StreamId) -> UplinkNews {
        self.greeted_until = None;
        self.backoff = cx.config.reconnect;
        UplinkNews::Opened(stream, self.server)
    }

    /// Ends the connection, where there is one.
    fn hang_up(&mut self, cx: &mut Context<'_>, persistent: bool) {
        if let Some(stream) = self.stream() {
            cx.tcp(TcpRequest::Close { stream });
            self.broke(cx, persistent);
        }
    }

    fn broke(&mut self, cx: &mut Context<'_>, persistent: bool) {
        if !persistent {
            self.deadline.get_or_insert(cx.now + cx.config.retransmission.silence);
        }
        self.greeted_until = None;
        self.state = State::Broken(self.next_try(cx));
        self.breaks = self.breaks.saturating_add(1);
        if self.breaks >= MAX_BREAKS && !persistent {
            self.give_up(cx);
        }
    }

    /// When to try again; each time it is later.
    fn next_try(&mut self, cx: &Context<'_>) -> Instant {
        let next = cx.now + self.backoff;
        self.backoff = (self.backoff * 2).min(cx.config.max_reconnect);
        next
    }

    fn give_up(&mut self, cx: &mut Context<'_>) {
        if let Some(stream) = self.stream() {
            cx.tcp(TcpRequest::Close { stream });
        }
        self.release(cx);
        self.state = State::GivenUp;
        self.deadline = None;
        self.greeted_until = None;
    }

    fn release(&self, cx: &mut Context<'_>) {
        if !matches!(self.state, State::GivenUp | State::WithoutPort(_)) {
            cx.tcp(TcpRequest::Release { port: self.port });
        }
    }
}

/// Asks for a port to call from.
fn reserve(cx: &mut Context<'_>, ip: IpAddr) -> PortId {
    let port = cx.new_port();
    cx.tcp(TcpRequest::Reserve { port, address: SocketAddr::new(ip, 0) });
    port
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        config::PeerConfig,
        machine::{Output, Random},
        peer::{PeerEvent, sockets::Sockets},
        punch::Settings,
    };
    use alloc::{collections::VecDeque, sync::Arc};

    const SERVER: &str = "192.0.2.1:20000";

    /// One listener's uplinks to a server that it was registered with, and what they ask for.
    struct Lab {
        uplinks: Uplinks,
        config: PeerConfig,
        random: Random,
        outputs: VecDeque<Output<PeerEvent>>,
        numbers: (u32, u32),
    }

    impl Lab {
        fn new() -> Self {
            let mut uplinks = Uplinks::new(&["0.0.0.0:0".parse().unwrap()]);
            uplinks.persist();
            let (config, random) = (PeerConfig::default(), Random::new([1; 32]));
            Self { uplinks, config, random, outputs: VecDeque::new(), numbers: (0, 0) }
        }

        fn at<T>(&mut self, seconds: u64, act: impl FnOnce(&mut Uplinks, &mut Context<'_>) -> T) -> Vec<TcpRequest> {
            let mut cx = Context {
                now: Instant::from_nanos(seconds * 1_000_000_000),
                config: &self.config,
                settings: &Arc::new(Settings { checks: self.config.checks, consent: self.config.consent }),
                random: &mut self.random,
                outputs: &mut self.outputs,
                sockets: &Sockets::default(),
                next_port: &mut self.numbers.0,
                next_stream: &mut self.numbers.1,
                new_streams: Vec::new(),
                new_ports: Vec::new(),
                closed_streams: Vec::new(),
                closed_ports: Vec::new(),
            };
            act(&mut self.uplinks, &mut cx);
            let requests = self.outputs.drain(..);
            requests.filter_map(|output| if let Output::Tcp(request) = output { Some(request) } else { None }).collect()
        }

        fn call(&mut self) -> Vec<TcpRequest> {
            let call = Call { server: SERVER.parse().unwrap(), deadline: None };
            self.at(0, |uplinks, cx| uplinks.call(cx, call))
        }

        fn timeout(&mut self, seconds: u64) -> Vec<TcpRequest> {
            assert_eq!(self.uplinks.next_wake().time(), Some(Instant::from_nanos(seconds * 1_000_000_000)));
            self.at(seconds, |uplinks, cx| uplinks.handle_timeout(cx))
        }
    }

    /// A process may be out of descriptors for a while: its listener is not lost for ever.
    #[test]
    fn a_port_that_is_not_to_be_had_is_asked_for_again() {
        let mut lab = Lab::new();
        for (number, (asked, next)) in [(0, 1), (1, 3), (3, 7)].into_iter().enumerate() {
            let port = PortId(u32::try_from(number).unwrap());
            let requests = if number == 0 { lab.call() } else { lab.timeout(asked) };
            assert_eq!(requests, [TcpRequest::Reserve { port, address: "0.0.0.0:0".parse().unwrap() }]);
            let refused = Err(Error::new(ErrorKind::Io, "too many open files"));
            let requests = lab.at(asked, |uplinks, cx| uplinks.handle_reserved(cx, port, &refused));
            assert_eq!(requests, [TcpRequest::Release { port }]);
            assert!(lab.uplinks.is_calling(|_| true));
            assert_eq!(lab.uplinks.next_wake().time(), Some(Instant::from_nanos(next * 1_000_000_000)));
        }
        assert_eq!(lab.at(4, |uplinks, cx| uplinks.end(cx)), [], "nothing is held");
        assert_eq!(lab.uplinks.next_wake().time(), None);
    }

    /// A box on the way may take every connection and say nothing.
    #[test]
    fn who_does_not_answer_the_greeting_is_called_anew() {
        let mut lab = Lab::new();
        lab.call();
        let local = Ok("192.0.2.9:5000".parse().unwrap());
        lab.at(0, |uplinks, cx| uplinks.handle_reserved(cx, PortId(0), &local));
        let news = StreamNews::Connected("192.0.2.9:5000".parse().unwrap());
        assert_eq!(lab.at(0, |uplinks, cx| uplinks.handle_stream(cx, StreamId(0), news)).len(), 1, "the greeting");
        assert_eq!(lab.timeout(5), [TcpRequest::Close { stream: StreamId(0) }]);
        let (port, remote) = (PortId(0), SERVER.parse().unwrap());
        assert_eq!(lab.timeout(6), [TcpRequest::Connect { port, stream: StreamId(1), remote }]);
        // One that answers is kept.
        lab.at(6, |uplinks, cx| uplinks.handle_stream(cx, StreamId(1), news));
        lab.at(7, |uplinks, cx| uplinks.handle_data(cx, StreamId(1), b"HOLEPUNCH/1\n"));
        assert_eq!(lab.uplinks.next_wake().time(), None);
    }
}
