//! One session: from the wish to connect, or an introduction, through the checks to a path, and to its end.
//!
//! A connector's session begins with a lookup. When the lookup brings an introduction (a listener's session begins
//! there) both sides have the other's key and addresses: the session's keys are derived, an [`Agent`] is made and its
//! first checks leave in the same moment. When the agent has selected a pair the session is connected. Its end is
//! agreed upon by a [`Farewell`]; a session that is over stays a few seconds more, silent but for repeating its
//! acknowledgement to a peer that missed it.

use alloc::{collections::VecDeque, format, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use zeroize::Zeroizing;

use super::{
    CloseReason, ListenerId, Path, PeerEvent, Strategy,
    farewell::{self, Farewell, is_from_peer},
    trickle::{Relay, Trickle},
};
use crate::{
    Error, ErrorKind,
    address::canonical,
    config::PeerConfig,
    machine::{BoundSocket, Instant, Level, NextWake, Output, Random, SocketId, Timer, Transmit},
    punch::{Agent, AgentEvent, Arrival, Candidate, CandidateKind, Provenance, Role, SelectedPair},
    rendezvous::{
        client::{From, Lookup, LookupResult},
        keys::{KeyPair, Secret, SessionKeys},
    },
    wire::stun::{self, CandidateTransport, Class, Message, Method, SessionId, WireCandidate},
};

/// What the methods of a session work with, beside the session.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a PeerConfig,
    pub(super) random: &'a mut Random,
    pub(super) outputs: &'a mut VecDeque<Output<PeerEvent>>,
}

impl Context<'_> {
    pub(super) fn event(&mut self, event: PeerEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(super) fn log(&mut self, level: Level, line: alloc::string::String) {
        self.outputs.push_back(Output::Log(level, line));
    }

    fn transmit(&mut self, transmit: Transmit) {
        self.outputs.push_back(Output::Transmit(transmit));
    }
}

/// The connector's part of a session before its introduction.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) lookup: Lookup,
    pub(super) key_pair: KeyPair,
    pub(super) timeout: Duration,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its sockets are not bound yet.
    Binding,
    /// The servers are asked for the listener.
    Looking,
    /// Checks are sent.
    Punching,
    /// A path is selected.
    Connected,
    /// Over; acknowledgements are repeated until then.
    Lingering(Instant),
    /// Over, to be forgotten.
    Gone,
}

/// What both sides know once they are introduced.
#[derive(Debug)]
struct Introduction {
    agent: Agent,
    sockets: Vec<BoundSocket>,
    control: Zeroizing<[u8; 32]>,
    at: Instant,
    deadline: Instant,
    trickle: Trickle,
}

/// A session of a peer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The listener that it came to; `None` for a connector.
    pub(super) listener: Option<ListenerId>,
    pub(super) sockets: Vec<SocketId>,
    pub(super) phase: Phase,
    pub(super) connecting: Option<Connecting>,
    /// The first bytes of all its transactions' ids.
    pub(super) tag: [u8; 4],
    secret: Option<Secret>,
    introduction: Option<Introduction>,
    path: Option<SelectedPair>,
    farewell: Farewell,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        listener: Option<ListenerId>,
        sockets: Vec<SocketId>,
        tag: [u8; 4],
        secret: Option<Secret>,
    ) -> Self {
        Self {
            id,
            listener,
            sockets,
            phase: Phase::Binding,
            connecting: None,
            tag,
            secret,
            introduction: None,
            path: None,
            farewell: Farewell::default(),
        }
    }

    const fn is_connector(&self) -> bool {
        self.listener.is_none()
    }

    /// The username fragment that the peer's checks name us by.
    pub(super) fn local_ufrag(&self) -> Option<&str> {
        self.introduction.as_ref().map(|introduction| introduction.agent.local_ufrag())
    }

    /// Whether data of the peer is of any use (still).
    pub(super) const fn takes_data(&self) -> bool {
        matches!(self.phase, Phase::Punching | Phase::Connected)
    }

    /// Whether it is looking for a path since then at least, and has heard nothing of its peer.
    pub(super) fn is_stalled_since(&self, time: Instant) -> bool {
        let introduction = self.introduction.as_ref();
        self.phase == Phase::Punching && introduction.is_some_and(|it| it.at <= time && it.agent.heard().is_empty())
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.introduction.as_ref()?.agent.rtt()
    }

    /// Where authenticated messages came from: data from there is the peer's.
    pub(super) fn heard(&self) -> &[(SocketId, SocketAddr)] {
        self.introduction.as_ref().map_or(&[], |introduction| introduction.agent.heard())
    }

    /// Takes in an answer of a server; whether it was one to this session.
    pub(super) fn handle_server_answer(
        &mut self,
        cx: &mut Context<'_>,
        sockets: &[BoundSocket],
        from: From,
        message: &Message<'_>,
    ) -> bool {
        let Some(connecting) = &mut self.connecting else { return false };
        let Some(result) = connecting.lookup.handle_answer(cx.now, cx.random, from, message) else { return false };
        if let Some(result) = result {
            self.handle_lookup_result(cx, sockets, from, &result);
        } else {
            // What the answer makes due is done at once; it may be that no server is left to ask.
            self.run_lookup(cx);
        }
        true
    }

    fn handle_lookup_result(
        &mut self,
        cx: &mut Context<'_>,
        sockets: &[BoundSocket],
        from: From,
        result: &LookupResult<'_>,
    ) {
        if self.phase != Phase::Looking {
            return self.add_candidates(cx, &result.candidates);
        }
        let Some(connecting) = &self.connecting else { return };
        let own = *connecting.key_pair.public();
        let keys = SessionKeys::derive(&connecting.key_pair, &own, &result.public_key, &self.id, self.secret.as_ref());
        let Some(keys) = keys else {
            let error =
                Error::new(ErrorKind::ServerRefused, "the server gave us an unusable public key of the listener");
            return self.fail(cx, error);
        };
        let timeout = connecting.timeout;
        let told = connecting.lookup.told();
        let relay = Relay { socket: from.socket, server: from.remote, route: result.route.to_vec() };
        self.introduce(cx, keys, sockets, &result.candidates, relay, told, timeout);
        if !result.candidates.iter().any(|candidate| is_in_reach(candidate, sockets)) {
            let error = Error::new(ErrorKind::NoPath, "the listener has no address of a family that is in use here");
            self.fail(cx, error);
        }
    }

    /// Both sides know of each other: checks begin.
    #[expect(clippy::too_many_arguments, reason = "all that an introduction is")]
    pub(super) fn introduce(
        &mut self,
        cx: &mut Context<'_>,
        keys: SessionKeys,
        sockets: &[BoundSocket],
        candidates: &[WireCandidate],
        relay: Relay,
        told: Vec<SocketAddr>,
        timeout: Duration,
    ) {
        let (role, local, remote) = if self.is_connector() {
            (Role::Controlling, keys.connector, keys.listener)
        } else {
            (Role::Controlled, keys.listener, keys.connector)
        };
        let seed = cx.random.bytes();
        let agent = Agent::new(cx.config.checks, cx.config.consent, role, local, remote, seed);
        let mut agent = agent.with_tag(self.tag);
        for socket in sockets {
            agent.add_socket(cx.now, socket.id, socket.local);
        }
        let candidates: Vec<_> =
            candidates.iter().filter_map(from_wire).filter(|candidate| is_wanted(candidate, cx.config)).collect();
        let peer = candidates.iter().map(|candidate| candidate.address).collect();
        for candidate in candidates {
            agent.add_remote(cx.now, candidate);
        }
        let until = cx.now + cx.config.trickle;
        let trickle = Trickle::new(self.id, self.is_connector(), relay, until, told);
        self.introduction = Some(Introduction {
            agent,
            sockets: sockets.to_vec(),
            control: keys.control,
            at: cx.now,
            deadline: cx.now + timeout,
            trickle,
        });
        self.phase = Phase::Punching;
        cx.event(PeerEvent::Introduced { session: self.id, listener: self.listener, role, peer });
        self.handle_timeout(cx);
    }

    /// Further candidates of the peer, from a repeated introduction.
    pub(super) fn add_candidates(&mut self, cx: &mut Context<'_>, candidates: &[WireCandidate]) {
        if self.phase != Phase::Punching {
            return;
        }
        let Some(introduction) = &mut self.introduction else { return };
        for candidate in candidates.iter().filter_map(from_wire).filter(|candidate| is_wanted(candidate, cx.config)) {
            introduction.agent.add_remote(cx.now, candidate);
        }
        self.handle_timeout(cx);
    }

    /// Further candidates of ours.
    pub(super) fn tell_candidates(&mut self, cx: &mut Context<'_>, candidates: &[WireCandidate]) {
        match (self.phase, &mut self.introduction, &mut self.connecting) {
            (Phase::Punching, Some(introduction), _) => {
                introduction.trickle.tell(cx.now, candidates, cx.random);
                self.handle_timeout(cx);
            }
            (Phase::Looking, _, Some(connecting)) => connecting.lookup.set_candidates(candidates.to_vec()),
            _ => {}
        }
    }

    /// Takes in a check whose username begins with our fragment; whether it was one of this session.
    pub(super) fn handle_check(&mut self, cx: &mut Context<'_>, at: Arrival, message: &Message<'_>) -> bool {
        if matches!(self.phase, Phase::Lingering(_)) {
            // The peer has not heard of the end yet; a check of its is no data all the same.
            return true;
        }
        if !matches!(self.phase, Phase::Punching | Phase::Connected) {
            return false;
        }
        let Some(introduction) = &mut self.introduction else { return false };
        let is_ours = introduction.agent.handle_request(cx.now, at, message);
        self.stop_asking_when_heard();
        self.handle_timeout(cx);
        is_ours
    }

    /// Takes in an answer to a check whose transaction id begins with our tag; whether it was one.
    pub(super) fn handle_check_answer(&mut self, cx: &mut Context<'_>, at: Arrival, message: &Message<'_>) -> bool {
        let Some(introduction) = &mut self.introduction else { return false };
        let taken = introduction.agent.handle_response(cx.now, at, message);
        self.stop_asking_when_heard();
        self.handle_timeout(cx);
        taken
    }

    /// The lookup need not repeat itself once the listener is there.
    fn stop_asking_when_heard(&mut self) {
        if let Some(connecting) = &mut self.connecting
            && self.introduction.as_ref().is_some_and(|introduction| !introduction.agent.heard().is_empty())
        {
            connecting.lookup.peer_heard();
        }
    }

    /// Takes in a message of ours that is not a check: END or TRICKLE; whether it was authentic.
    pub(super) fn handle_control(&mut self, cx: &mut Context<'_>, at: Arrival, message: &Message<'_>) -> bool {
        let is_connector = self.is_connector();
        let Some(introduction) = &mut self.introduction else { return false };
        if !is_from_peer(message, is_connector, &introduction.control) {
            return false;
        }
        match (message.method(), message.class()) {
            (Method::END, Class::Request) => self.handle_end(cx, at, message),
            (Method::END, Class::Success) => {
                let is_news = self.farewell.handle_success(message.transaction_id());
                if is_news && !self.farewell.is_closing() && self.phase == Phase::Connected {
                    cx.event(PeerEvent::EndAcknowledged { session: self.id });
                }
                self.close_if_complete(cx);
            }
            (Method::TRICKLE, Class::Request) => {
                let candidates: Vec<_> = message
                    .candidates()
                    .filter_map(|candidate| from_wire(&candidate))
                    .filter(|candidate| is_wanted(candidate, cx.config))
                    .collect();
                let answer = introduction.trickle.acknowledge(message, &introduction.control);
                if self.phase == Phase::Punching {
                    for candidate in candidates {
                        // Whatever the peer calls it: no server has observed it.
                        let candidate = Candidate { provenance: Provenance::Claimed, ..candidate };
                        introduction.agent.add_remote(cx.now, candidate);
                    }
                }
                cx.transmit(answer);
            }
            (Method::TRICKLE, Class::Success) => introduction.trickle.handle_success(message.transaction_id()),
            _ => return false,
        }
        self.handle_timeout(cx);
        true
    }

    fn handle_end(&mut self, cx: &mut Context<'_>, at: Arrival, message: &Message<'_>) {
        let Some(introduction) = &self.introduction else { return };
        if self.path.is_none() {
            // The peer was connected and has ended before our last check was answered; it will say so again.
            return;
        }
        let source = Some(at.local.ip()).filter(|ip| !ip.is_unspecified());
        let payload = farewell::acknowledgement(message, self.id, self.is_connector(), &introduction.control);
        cx.transmit(Transmit { socket: at.socket, source, destination: at.remote, payload });
        let is_news = self.farewell.handle_request(message) && self.phase == Phase::Connected;
        if !is_news {
            return;
        }
        if self.farewell.they_closed() {
            let reason = if self.farewell.is_closing() { CloseReason::End } else { CloseReason::Peer };
            self.finish(cx, reason);
        } else {
            cx.event(PeerEvent::PeerEnded { session: self.id });
            self.close_if_complete(cx);
        }
    }

    fn close_if_complete(&mut self, cx: &mut Context<'_>) {
        if self.phase == Phase::Connected && self.farewell.is_complete() {
            self.finish(cx, CloseReason::End);
        }
    }

    /// The last event of a session that was connected.
    fn finish(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
        cx.event(PeerEvent::Closed { session: self.id, reason });
        // A peer whose end we have acknowledged may have missed it; one whose end we never heard repeats nothing.
        let lingers = self.farewell.they_ended() && reason != CloseReason::Lost;
        self.phase = if lingers { Phase::Lingering(cx.now + cx.config.farewell) } else { Phase::Gone };
    }

    /// The last event of a session that was not connected; what fails it first is told.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, error: Error) {
        if self.phase == Phase::Gone {
            return;
        }
        cx.event(PeerEvent::Failed { session: self.id, listener: self.listener, error });
        self.phase = Phase::Gone;
    }

    /// Announces the end of our data, or (with `closes`) of everything.
    pub(super) fn end(&mut self, cx: &mut Context<'_>, closes: bool) {
        match self.phase {
            Phase::Connected => {
                // Half as much again as the round trip, and not below what a busy host needs.
                let interval = self.rtt().unwrap_or_default() * 3 / 2;
                let interval = interval.clamp(Duration::from_millis(50), Duration::from_millis(250));
                self.farewell.begin(cx.now, closes, interval, cx.config, cx.random);
                self.handle_timeout(cx);
            }
            Phase::Binding | Phase::Looking | Phase::Punching if closes => self.phase = Phase::Gone,
            Phase::Binding | Phase::Looking | Phase::Punching | Phase::Lingering(_) | Phase::Gone => {}
        }
    }

    /// Something could not be sent: of interest while a server is asked.
    pub(super) fn handle_send_failed(&mut self, cx: &mut Context<'_>, to: From, error: &Error) {
        if let Some(connecting) = &mut self.connecting {
            connecting.lookup.handle_send_failed(to, error);
        }
        self.run_lookup(cx);
    }

    /// Does everything that is due, and passes on what the agent made.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if let Phase::Lingering(until) = self.phase {
            if cx.now >= until {
                self.phase = Phase::Gone;
            }
            return;
        }
        self.run_lookup(cx);
        let Some(introduction) = &mut self.introduction else { return };
        if matches!(self.phase, Phase::Punching | Phase::Connected) {
            introduction.agent.handle_timeout(cx.now);
        }
        if self.phase == Phase::Punching
            && let Some(transmit) = introduction.trickle.poll(cx.now, &introduction.control)
        {
            cx.transmit(transmit);
        }
        self.drain_agent(cx);
        self.run_farewell(cx);
        if self.phase == Phase::Punching
            && let Some(introduction) = self.introduction.as_ref()
            && cx.now >= introduction.deadline
        {
            let error = self.timed_out(introduction);
            self.fail(cx, error);
        }
    }

    fn run_lookup(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Looking | Phase::Punching) {
            return;
        }
        let Some(connecting) = &mut self.connecting else { return };
        let mut transmits = Vec::new();
        let result = connecting.lookup.handle_timeout(cx.now, cx.random, &mut transmits);
        cx.outputs.extend(transmits.into_iter().map(Output::Transmit));
        if let Err(error) = result {
            self.fail(cx, error);
        }
    }

    fn run_farewell(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Connected {
            return;
        }
        let (Some(introduction), Some(pair)) = (&self.introduction, self.path) else { return };
        match self.farewell.poll(cx.now, self.id, self.is_connector(), &introduction.control) {
            Ok(None) => {}
            Ok(Some(payload)) => {
                let source = Some(pair.local).filter(|ip| !ip.is_unspecified());
                cx.transmit(Transmit { socket: pair.socket, source, destination: pair.remote, payload });
            }
            Err(farewell::GaveUp) => self.close_if_complete(cx),
        }
    }

    fn timed_out(&self, introduction: &Introduction) -> Error {
        let seconds = introduction.deadline.saturating_since(introduction.at).as_secs_f32();
        if !introduction.agent.heard().is_empty() {
            return Error::new(
                ErrorKind::Timeout,
                format!("the peer was heard, but no path worked in both directions within {seconds} s"),
            );
        }
        Error::new(ErrorKind::Timeout, format!("nothing was heard of the peer within {seconds} s after the introduction"))
            .with_hint("one of the two networks may change its port for every destination, or block UDP; try another network on either side")
    }

    fn drain_agent(&mut self, cx: &mut Context<'_>) {
        let Some(introduction) = &mut self.introduction else { return };
        while let Some(transmit) = introduction.agent.poll_transmit() {
            cx.outputs.push_back(Output::Transmit(transmit));
        }
        while let Some(event) = self.introduction.as_mut().and_then(|introduction| introduction.agent.poll_event()) {
            match event {
                AgentEvent::Selected(pair) => self.connected(cx, pair),
                AgentEvent::WrongSecret if self.is_connector() && self.phase == Phase::Punching => {
                    let error = Error::new(ErrorKind::WrongSecret, "the listener has another secret");
                    self.fail(cx, error);
                }
                // Whoever it was: a listener does not end for it.
                AgentEvent::WrongSecret => cx.log(Level::Info, format!("{:?}: another secret was tried", self.id)),
                AgentEvent::ConsentExpired if self.phase == Phase::Connected => {
                    let reason = if self.farewell.is_closing() { CloseReason::End } else { CloseReason::Lost };
                    self.finish(cx, reason);
                }
                AgentEvent::ConsentExpired => {}
            }
        }
    }

    fn connected(&mut self, cx: &mut Context<'_>, pair: SelectedPair) {
        let Some(introduction) = &self.introduction else { return };
        if self.phase != Phase::Punching {
            return;
        }
        self.phase = Phase::Connected;
        self.connecting = None;
        self.path = Some(pair);
        let bound = introduction.sockets.iter().find(|socket| socket.id == pair.socket).map(|socket| socket.local);
        let mut local = bound.unwrap_or_else(|| SocketAddr::new(pair.local, 0));
        if !pair.local.is_unspecified() {
            local.set_ip(pair.local);
        }
        let path = Path {
            socket: pair.socket,
            local,
            remote: pair.remote,
            kind: pair.kind,
            strategy: Strategy::UdpSimultaneous,
            role: introduction.agent.role(),
            rtt: pair.rtt,
            since_introduction: cx.now.saturating_since(introduction.at),
            packets_sent: introduction.agent.packets_sent(),
            sockets: u32::try_from(self.sockets.len()).unwrap_or(u32::MAX),
        };
        cx.event(PeerEvent::Connected { session: self.id, listener: self.listener, path });
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        if let Phase::Lingering(until) = self.phase {
            wake.at(Some(until), Timer::Expiry);
            return wake;
        }
        if let Some(connecting) = &self.connecting
            && matches!(self.phase, Phase::Looking | Phase::Punching)
        {
            wake.merge(connecting.lookup.next_wake());
        }
        if let Some(introduction) = &self.introduction {
            wake.merge(introduction.agent.next_wake());
            if self.phase == Phase::Punching {
                wake.merge(introduction.trickle.next_wake());
                wake.at(Some(introduction.deadline), Timer::Deadline);
            }
            wake.merge(self.farewell.next_wake());
        }
        wake
    }

    /// A connector's sockets other than that of the path; a listener's are not its session's to give up.
    pub(super) fn release_unused_sockets(&mut self) -> Vec<SocketId> {
        let Some(pair) = self.path else { return Vec::new() };
        let (used, unused) = core::mem::take(&mut self.sockets).into_iter().partition(|socket| *socket == pair.socket);
        self.sockets = used;
        unused
    }
}

/// Whether a candidate of the peer may be checked: a private one only where that was not opted out of.
fn is_wanted(candidate: &Candidate, config: &PeerConfig) -> bool {
    config.private_candidates || candidate.provenance == Provenance::Observed || candidate.is_public()
}

/// Whether any of our sockets could send there at all.
fn is_in_reach(candidate: &WireCandidate, sockets: &[BoundSocket]) -> bool {
    let address = canonical(candidate.address);
    sockets
        .iter()
        .filter(|socket| socket.is_ipv6() == address.is_ipv6())
        .any(|socket| socket.has_address || address.ip().is_loopback())
}

/// A candidate as it came; `None` for what cannot be used over UDP.
fn from_wire(candidate: &WireCandidate) -> Option<Candidate> {
    let (kind, provenance) = match candidate.kind {
        stun::CandidateKind::Host => (CandidateKind::Host, Provenance::Claimed),
        stun::CandidateKind::ServerReflexiveObserved => (CandidateKind::ServerReflexive, Provenance::Observed),
        stun::CandidateKind::ServerReflexiveClaimed => (CandidateKind::ServerReflexive, Provenance::Claimed),
        stun::CandidateKind::Relay => (CandidateKind::Relayed, Provenance::Claimed),
    };
    if candidate.transport != CandidateTransport::Udp {
        return None;
    }
    let parsed = Candidate::new(kind, candidate.address, provenance);
    Some(if candidate.priority == 0 { parsed } else { parsed.with_priority(candidate.priority) })
}
