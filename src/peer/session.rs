//! One session: from the wish to connect, or an introduction, through the checks to a path, and to its end.
//!
//! A connector's session begins with a lookup. When the lookup brings an introduction (a listener's session begins
//! there) both sides have the other's key and addresses: the session's keys are derived, an [`Agent`] is made and its
//! first checks leave in the same moment. When the agent has selected a pair the session is connected. Its end is
//! agreed upon by a [`Farewell`], or its socket becomes the application's own ([`Bare`]); a session that is over stays a few seconds more, silent but for repeating its
//! acknowledgement to a peer that missed it.

mod signalled;
mod tcp;

use alloc::{boxed::Box, format, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use zeroize::Zeroizing;

pub(super) use self::signalled::Signalled;

use super::{
    Carrier, CloseReason, ListenerId, Path, PeerEvent, Strategy,
    bare::Bare,
    context::Context,
    early::EarlyStream,
    farewell::{self, Farewell, is_from_peer},
    gathering::Gathering,
    negotiation::{Negotiation, Outcome},
    trickle::{Relay, Told, Trickle},
    uplink::Uplinks,
};
use crate::{
    Error, ErrorKind,
    address::canonical,
    machine::{BoundSocket, Instant, Level, NextWake, SocketId, Timer, Transmit},
    punch::{Arrival, CandidateKind, Role, SelectedPair, SelectedStream},
    rendezvous::{
        client::{Found as Answer, From, Lookup, LookupResult, Via},
        keys::{KeyPair, Secret, SessionKeys},
    },
    wire::stun::{self, Class, Integrity, Message, Method, SessionId, WireCandidate},
};

/// The connector's part of a session before its introduction.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) lookup: Lookup,
    /// Connections to servers that UDP does not get through to.
    pub(super) uplinks: Uplinks,
    pub(super) key_pair: KeyPair,
    pub(super) secret: Option<Secret>,
    pub(super) timeout: Duration,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its sockets are not bound yet.
    Binding,
    /// The servers are asked for the listener.
    Looking,
    /// The program has not told the peer's credentials yet.
    Signalling,
    /// Checks are sent.
    Punching,
    /// A path is selected.
    Connected,
    /// Over; acknowledgements are repeated until then.
    Lingering(Instant),
    /// Its socket is the application's, since then. Until the next timeout, messages are still told from data.
    Bare(Instant),
    /// Over, to be forgotten.
    Gone,
}

/// What both sides know once they are introduced.
#[derive(Debug)]
pub(super) struct Introduction {
    pub(super) negotiation: Negotiation,
    /// What only peers of this library have in common, whom a server introduced; `None` of an agent that the program
    /// has told us of.
    pub(super) kin: Option<Kin>,
    at: Instant,
    deadline: Instant,
}

/// What two peers of this library say to each other beside checks.
#[derive(Debug)]
pub(super) struct Kin {
    pub(super) control: Zeroizing<[u8; 32]>,
    /// `None` once a path is selected.
    trickle: Option<Box<Trickle>>,
}

/// What became of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum StreamNews {
    /// A connect of ours has succeeded, and this is our address.
    Connected(SocketAddr),
    /// It failed ([`Input::TcpFailed`](crate::machine::Input::TcpFailed)), or a connection is over.
    Failed { at_once: bool },
}

/// What a negotiation has found; the rest of a path is the session's to say.
struct Found {
    carrier: Carrier,
    local: SocketAddr,
    remote: SocketAddr,
    kind: CandidateKind,
    strategy: Strategy,
    rtt: Duration,
}

/// A session of a peer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The listener that it came to; `None` for a connector.
    pub(super) listener: Option<ListenerId>,
    pub(super) sockets: Vec<SocketId>,
    pub(super) phase: Phase,
    pub(super) connecting: Option<Box<Connecting>>,
    /// The first bytes of all its transactions' ids.
    pub(super) tag: [u8; 4],
    pub(super) introduction: Option<Introduction>,
    pub(super) farewell: Farewell,
    pub(super) bare: Bare,
    /// The ports of a stream session.
    pub(super) gathering: Option<Box<Gathering>>,
    /// What the program brings across itself.
    pub(super) signalled: Option<Box<Signalled>>,
}

impl Session {
    pub(super) fn new(id: SessionId, listener: Option<ListenerId>, sockets: Vec<SocketId>, tag: [u8; 4]) -> Self {
        Self {
            id,
            listener,
            sockets,
            phase: Phase::Binding,
            connecting: None,
            tag,
            introduction: None,
            farewell: Farewell::default(),
            bare: Bare::default(),
            gathering: None,
            signalled: None,
        }
    }

    pub(super) const fn is_connector(&self) -> bool {
        self.listener.is_none()
    }

    /// Whether the peer is one of this library, introduced by a server.
    pub(super) const fn is_of_kin(&self) -> bool {
        self.signalled.is_none()
    }

    /// The username fragment that the peer's checks name us by.
    pub(super) fn local_ufrag(&self) -> Option<&str> {
        match (&self.introduction, &self.signalled) {
            (Some(introduction), _) => Some(introduction.negotiation.local_ufrag()),
            (None, Some(signalled)) => Some(&signalled.local.ufrag),
            (None, None) => None,
        }
    }

    /// Whether data of the peer is of any use (still).
    pub(super) const fn takes_data(&self) -> bool {
        matches!(self.phase, Phase::Punching | Phase::Connected | Phase::Bare(_))
    }

    /// Since when it is looking for a path, if that is since then at least and it has heard nothing of its peer.
    pub(super) fn stalled_since(&self, time: Instant) -> Option<Instant> {
        let introduction = self.introduction.as_ref().filter(|_| self.phase == Phase::Punching)?;
        (introduction.at <= time && !introduction.negotiation.heard_peer()).then_some(introduction.at)
    }

    /// The pair that datagrams go by.
    pub(super) fn path(&self) -> Option<SelectedPair> {
        self.introduction.as_ref()?.negotiation.path()
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.introduction.as_ref()?.negotiation.rtt()
    }

    /// Where authenticated messages came from: data from there is the peer's.
    pub(super) fn heard(&self) -> &[(SocketId, SocketAddr)] {
        self.introduction.as_ref().map_or(&[], |introduction| introduction.negotiation.heard())
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
        if let Via::Tcp(stream) = from.via {
            connecting.uplinks.was_of_use(stream);
        }
        match result {
            Some(Answer::Peer(result)) => self.handle_lookup_result(cx, sockets, from, &result),
            Some(Answer::Legacy(peer)) if self.phase == Phase::Looking => {
                let (session, peer) = (self.id, peer.address);
                cx.event(PeerEvent::LegacyIntroduced { session, listener: None, peer });
                self.phase = Phase::Gone;
            }
            Some(Answer::Legacy(_)) => {}
            // What the answer makes due is done at once; it may be that no server is left to ask.
            None => self.run_lookup(cx),
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
        let relay = Relay { via: from.via, server: from.remote, route: result.route.to_vec() };
        if self.phase != Phase::Looking {
            return self.introduce_again(cx, &result.candidates, relay);
        }
        let Some(connecting) = &self.connecting else { return };
        let own = *connecting.key_pair.public();
        let secret = connecting.secret.as_ref();
        let keys = SessionKeys::derive(&connecting.key_pair, &own, &result.public_key, &self.id, secret);
        let Some(keys) = keys else {
            let error =
                Error::new(ErrorKind::ServerRefused, "the server gave us an unusable public key of the listener");
            return self.fail(cx, error);
        };
        let timeout = connecting.timeout;
        let told = connecting.lookup.told();
        if let Some(gathering) = &mut self.gathering {
            gathering.introduced_by(cx, from.remote);
        }
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
        told: Told,
        timeout: Duration,
    ) {
        let (role, local, remote) = if self.is_connector() {
            (Role::Controlling, keys.connector, keys.listener)
        } else {
            (Role::Controlled, keys.listener, keys.connector)
        };
        let mut negotiation = match &self.gathering {
            None => Negotiation::datagrams(cx, cx.settings.clone(), role, local, remote, self.tag, sockets),
            Some(_) => Negotiation::stream(cx, role, local, remote),
        };
        if let (Some(gathering), Some(agent)) = (&self.gathering, negotiation.as_stream()) {
            for (port, local) in gathering.reserved() {
                agent.add_port(cx.now, port, local);
            }
            if let Some(rtt) = gathering.server_rtt() {
                agent.set_server_rtt(rtt);
            }
        }
        for candidate in candidates {
            negotiation.add_remote(cx.now, candidate, cx.config);
        }
        if let (Some(gathering), Some(agent)) = (&mut self.gathering, negotiation.as_stream()) {
            for EarlyStream { stream, local, remote, check } in gathering.early.drain() {
                agent.handle_accepted(cx.now, stream, local, remote);
                agent.handle_data(cx.now, stream, &check);
            }
        }
        let peer = candidates.iter().map(|candidate| canonical(candidate.address)).collect();
        let until = cx.now + cx.config.trickle;
        let trickle = Trickle::new(self.id, self.is_connector(), relay, until, told);
        let kin = Some(Kin { control: keys.control, trickle: Some(Box::new(trickle)) });
        self.introduction = Some(Introduction { negotiation, kin, at: cx.now, deadline: cx.now + timeout });
        self.phase = Phase::Punching;
        cx.event(PeerEvent::Introduced { session: self.id, listener: self.listener, role, peer });
        self.handle_timeout(cx);
    }

    /// A repeated introduction: it may bring further candidates of the peer, and the peer may have moved.
    pub(super) fn introduce_again(&mut self, cx: &mut Context<'_>, candidates: &[WireCandidate], relay: Relay) {
        if self.phase != Phase::Punching {
            return;
        }
        if let Some(trickle) = self.trickle() {
            trickle.set_relay(relay);
        }
        let Some(introduction) = &mut self.introduction else { return };
        for candidate in candidates {
            introduction.negotiation.add_remote(cx.now, candidate, cx.config);
        }
        self.handle_timeout(cx);
    }

    /// Further candidates of ours.
    pub(super) fn tell_candidates(&mut self, cx: &mut Context<'_>, candidates: &[WireCandidate]) {
        if self.phase == Phase::Looking
            && let Some(connecting) = &mut self.connecting
        {
            connecting.lookup.set_candidates(candidates.to_vec());
        }
        if let Some(trickle) = self.trickle() {
            trickle.tell(cx.now, candidates, cx.random);
            self.handle_timeout(cx);
        }
    }

    /// What tells the peer of further candidates, while a path is looked for.
    fn trickle(&mut self) -> Option<&mut Trickle> {
        self.introduction.as_mut()?.kin.as_mut()?.trickle.as_deref_mut()
    }

    /// Takes in a check whose username begins with our fragment; whether it was one of this session.
    pub(super) fn handle_check(&mut self, cx: &mut Context<'_>, at: Arrival, message: &Message<'_>) -> bool {
        if matches!(self.phase, Phase::Lingering(_) | Phase::Bare(_)) || self.bare.peer_is_bare() {
            // The peer has not heard of the end yet, or takes no answers any more; a check of its is no data all the same.
            return true;
        }
        if self.phase == Phase::Signalling {
            return self.keep_early_check(at, message);
        }
        if !matches!(self.phase, Phase::Punching | Phase::Connected) {
            return false;
        }
        let Some(introduction) = &mut self.introduction else { return false };
        let is_ours = introduction.negotiation.handle_request(cx.now, at, message);
        self.stop_asking_when_heard();
        self.handle_timeout(cx);
        is_ours
    }

    /// Takes in an answer to a check whose transaction id begins with our tag; whether it was one.
    pub(super) fn handle_check_answer(&mut self, cx: &mut Context<'_>, at: Arrival, message: &Message<'_>) -> bool {
        if matches!(self.phase, Phase::Bare(_)) || self.bare.peer_is_bare() {
            return true;
        }
        if self.handle_stun_answer(cx, at, message) {
            return true;
        }
        let Some(introduction) = &mut self.introduction else { return false };
        let taken = introduction.negotiation.handle_response(cx.now, at, message);
        self.stop_asking_when_heard();
        self.handle_timeout(cx);
        taken
    }

    /// The lookup need not repeat itself once the listener is there.
    fn stop_asking_when_heard(&mut self) {
        if let Some(connecting) = &mut self.connecting
            && self.introduction.as_ref().is_some_and(|introduction| introduction.negotiation.heard_peer())
        {
            connecting.lookup.peer_heard();
        }
    }

    /// Takes in a message of ours that is not a check: END, TRICKLE or BARE; whether it was authentic.
    /// It may have come along a connection to a server; then there is no `at`.
    pub(super) fn handle_control(&mut self, cx: &mut Context<'_>, at: Option<Arrival>, message: &Message<'_>) -> bool {
        let is_connector = self.is_connector();
        let Some(introduction) = &mut self.introduction else { return false };
        // To any other agent these messages mean nothing, and from it they are data.
        let Some(kin) = &mut introduction.kin else { return false };
        if !is_from_peer(message, is_connector, &kin.control) {
            // The session's number is known to the peer and the servers alone. A stream's checks may never come that
            // far, since without this message the peer does not know where to send them.
            let is_signed_otherwise = is_connector
                && (message.method(), message.class()) == (Method::TRICKLE, Class::Request)
                && !introduction.negotiation.heard_peer()
                && message.verify_integrity_sha256(&*kin.control) == Integrity::Invalid;
            if is_signed_otherwise && self.phase == Phase::Punching {
                let error = Error::new(ErrorKind::WrongSecret, "the listener has another secret");
                self.fail(cx, error);
            }
            return false;
        }
        if matches!(self.phase, Phase::Bare(_)) {
            return true;
        }
        match (message.method(), message.class()) {
            (Method::BARE, _) => {
                let Some(at) = at else { return false };
                self.handle_bare(cx, at, message);
            }
            (Method::END, Class::Request) => {
                let Some(at) = at else { return false };
                self.handle_end(cx, at, message);
            }
            (Method::END, Class::Success) => {
                let is_news = self.farewell.handle_success(message.transaction_id());
                if is_news && !self.farewell.is_closing() && self.phase == Phase::Connected {
                    cx.event(PeerEvent::EndAcknowledged { session: self.id });
                }
                self.close_if_complete(cx);
            }
            (Method::TRICKLE, Class::Request) => {
                // A peer that has no path yet finds ours by our checks.
                let Some(trickle) = &kin.trickle else { return true };
                let answer = trickle.acknowledge(message, &kin.control);
                if self.phase == Phase::Punching {
                    for mut candidate in message.candidates() {
                        // Whatever the peer calls it: no server has observed it.
                        if candidate.kind == stun::CandidateKind::ServerReflexiveObserved {
                            candidate.kind = stun::CandidateKind::ServerReflexiveClaimed;
                        }
                        introduction.negotiation.add_remote(cx.now, &candidate, cx.config);
                    }
                }
                cx.tell_servers([answer]);
            }
            (Method::TRICKLE, Class::Success) => {
                let Some(trickle) = &mut kin.trickle else { return true };
                let rtt = trickle.handle_success(cx.now, message.transaction_id());
                if let (Some(rtt), Some(agent)) = (rtt, introduction.negotiation.as_stream()) {
                    agent.set_peer_rtt(rtt);
                }
            }
            _ => return false,
        }
        self.handle_timeout(cx);
        true
    }

    fn handle_end(&mut self, cx: &mut Context<'_>, at: Arrival, message: &Message<'_>) {
        let Some(Introduction { kin: Some(kin), .. }) = &self.introduction else { return };
        if self.path().is_none() {
            // The peer was connected and has ended before our last check was answered; it will say so again.
            return;
        }
        let source = Some(at.local.ip()).filter(|ip| !ip.is_unspecified());
        let payload = farewell::acknowledgement(message, self.id, self.is_connector(), &kin.control);
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
            Phase::Connected if self.bare.peer_is_bare() || !self.is_of_kin() => {
                // There is nobody to be told.
                if closes {
                    self.finish(cx, CloseReason::End);
                }
            }
            Phase::Connected => {
                // Half as much again as the round trip, and not below what a busy host needs.
                let interval = self.rtt().unwrap_or_default() * 3 / 2;
                let interval = interval.clamp(Duration::from_millis(50), Duration::from_millis(250));
                self.farewell.begin(cx.now, closes, interval, cx.config, cx.random);
                self.handle_timeout(cx);
            }
            Phase::Binding | Phase::Looking | Phase::Signalling | Phase::Punching if closes => self.phase = Phase::Gone,
            Phase::Binding
            | Phase::Looking
            | Phase::Signalling
            | Phase::Punching
            | Phase::Lingering(_)
            | Phase::Bare(_)
            | Phase::Gone => {}
        }
    }

    /// Something could not be sent: of interest while a server is asked.
    pub(super) fn handle_send_failed(&mut self, cx: &mut Context<'_>, to: From, error: &Error) {
        if let Some(connecting) = &mut self.connecting {
            connecting.lookup.handle_send_failed(to, error);
        }
        if let Some(signalled) = &mut self.signalled {
            signalled.handle_send_failed(to);
        }
        self.run_gathering(cx);
        self.run_lookup(cx);
    }

    /// Does everything that is due, and passes on what the agent made.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if let Phase::Lingering(until) | Phase::Bare(until) = self.phase {
            if cx.now >= until {
                self.phase = Phase::Gone;
            }
            return;
        }
        self.run_lookup(cx);
        self.run_gathering(cx);
        let Some(introduction) = &mut self.introduction else { return };
        if matches!(self.phase, Phase::Punching | Phase::Connected) {
            introduction.negotiation.handle_timeout(cx);
        }
        if self.phase == Phase::Punching
            && let Some(Kin { control, trickle: Some(trickle) }) = &mut introduction.kin
            && let Some(message) = trickle.poll(cx.now, control)
        {
            cx.tell_servers([message]);
        }
        self.drain_agent(cx);
        self.run_farewell(cx);
        self.run_bare(cx);
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
        let Connecting { lookup, uplinks, .. } = &mut **connecting;
        for stream in uplinks.handle_timeout(cx) {
            lookup.remove_connection(stream);
        }
        for call in lookup.take_calls(cx.now) {
            uplinks.call(cx, call);
        }
        uplinks.retain(cx, |server| lookup.needs(server));
        let mut messages = Vec::new();
        let result = lookup.handle_timeout(cx.now, cx.random, uplinks.is_calling(|_| true), &mut messages);
        cx.tell_servers(messages);
        if let Err(error) = result {
            self.fail(cx, error);
        }
    }

    fn run_farewell(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Connected {
            return;
        }
        let (Some(Introduction { kin: Some(kin), .. }), Some(pair)) = (&self.introduction, self.path()) else { return };
        match self.farewell.poll(cx.now, self.id, self.is_connector(), &kin.control) {
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
        let tried: &[_] = match introduction.negotiation {
            Negotiation::Datagrams(_) => const { &[Strategy::UdpSimultaneous.name()] },
            Negotiation::Stream(_) => const { &[Strategy::TcpSimultaneousOpen.name()] },
        };
        if introduction.negotiation.heard_peer() {
            let text = format!("the peer was heard, but no path worked in both directions within {seconds} s");
            return Error::new(ErrorKind::Timeout, text).with_strategies(tried);
        }
        let hint = match introduction.negotiation {
            Negotiation::Datagrams(_) => {
                "one of the two networks may change its port for every destination, or block UDP; try another network on either side"
            }
            Negotiation::Stream(_) => {
                "one of the two networks may change its port for every destination, or refuse what comes in; try datagrams, or another network on either side"
            }
        };
        Error::new(
            ErrorKind::Timeout,
            format!(
                "nothing was heard of the peer within {seconds} s after {}",
                if self.is_of_kin() { "the introduction" } else { "its description came" }
            ),
        )
        .with_hint(hint)
        .with_strategies(tried)
    }

    fn drain_agent(&mut self, cx: &mut Context<'_>) {
        let Some(introduction) = &mut self.introduction else { return };
        introduction.negotiation.drain(cx);
        while let Some(outcome) =
            self.introduction.as_mut().and_then(|introduction| introduction.negotiation.poll_outcome())
        {
            match outcome {
                Outcome::Pair(pair) => self.connected(cx, pair),
                Outcome::Moved(pair) => {
                    cx.event(PeerEvent::Moved { session: self.id, remote: pair.remote });
                }
                Outcome::Stream(stream) => self.stream_connected(cx, stream),
                Outcome::WrongSecret if self.is_connector() && self.is_of_kin() && self.phase == Phase::Punching => {
                    let error = Error::new(ErrorKind::WrongSecret, "the listener has another secret");
                    self.fail(cx, error);
                }
                // Whoever it was: a listener does not end for it.
                Outcome::WrongSecret => cx.log(Level::Info, format!("{:?}: another secret was tried", self.id)),
                Outcome::ConsentExpired if self.phase == Phase::Connected => {
                    let reason = if self.farewell.is_closing() { CloseReason::End } else { CloseReason::Lost };
                    self.finish(cx, reason);
                }
                Outcome::ConsentExpired => {}
            }
        }
    }

    fn connected(&mut self, cx: &mut Context<'_>, pair: SelectedPair) {
        if self.phase != Phase::Punching {
            return;
        }
        self.phase = Phase::Connected;
        if let Some(mut connecting) = self.connecting.take() {
            connecting.uplinks.end(cx);
        }
        self.end_gathering(cx);
        let Some(introduction) = &mut self.introduction else { return };
        if let Some(kin) = &mut introduction.kin {
            kin.trickle = None;
        }
        let Some(introduction) = &self.introduction else { return };
        let bound = cx.sockets.local(pair.socket);
        let mut local = bound.unwrap_or_else(|| SocketAddr::new(pair.local, 0));
        if !pair.local.is_unspecified() {
            local.set_ip(pair.local);
        }
        let found = Found {
            carrier: Carrier::Socket(pair.socket),
            local,
            remote: pair.remote,
            kind: pair.kind,
            strategy: Strategy::UdpSimultaneous,
            rtt: pair.rtt,
        };
        self.tell_connected(cx, introduction, found);
    }

    /// The connection leaves the machine with this event; the session is over.
    fn stream_connected(&mut self, cx: &mut Context<'_>, selected: SelectedStream) {
        let Some(introduction) = &mut self.introduction else { return };
        if self.phase != Phase::Punching {
            return;
        }
        introduction.negotiation.drain(cx);
        let Some(introduction) = &self.introduction else { return };
        let found = Found {
            carrier: Carrier::Stream(selected.stream),
            local: selected.local,
            remote: selected.remote,
            kind: selected.kind,
            strategy: Strategy::TcpSimultaneousOpen,
            rtt: selected.rtt,
        };
        self.tell_connected(cx, introduction, found);
        self.phase = Phase::Gone;
    }

    fn tell_connected(&self, cx: &mut Context<'_>, introduction: &Introduction, found: Found) {
        let Found { carrier, local, remote, kind, strategy, rtt } = found;
        let path = Path {
            carrier,
            local,
            remote,
            kind,
            strategy,
            role: introduction.negotiation.role(),
            rtt,
            signalled: introduction.kin.is_none(),
            since_introduction: cx.now.saturating_since(introduction.at),
            packets_sent: introduction.negotiation.packets_sent(),
            sockets: u32::try_from(self.sockets.len()).unwrap_or(u32::MAX),
        };
        cx.event(PeerEvent::Connected { session: self.id, listener: self.listener, path });
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        if let Phase::Lingering(until) | Phase::Bare(until) = self.phase {
            wake.at(Some(until), Timer::Expiry);
            return wake;
        }
        if let Some(connecting) = &self.connecting
            && matches!(self.phase, Phase::Looking | Phase::Punching)
        {
            wake.merge(connecting.lookup.next_wake());
            wake.merge(connecting.uplinks.next_wake());
        }
        if let Some(signalled) = &self.signalled {
            wake.merge(signalled.next_wake());
        }
        if let Some(introduction) = &self.introduction {
            wake.merge(introduction.negotiation.next_wake());
            if self.phase == Phase::Punching {
                if let Some(Kin { trickle: Some(trickle), .. }) = &introduction.kin {
                    wake.merge(trickle.next_wake());
                }
                wake.at(Some(introduction.deadline), Timer::Deadline);
            }
            wake.merge(self.farewell.next_wake());
            wake.merge(self.bare.next_wake());
        }
        wake
    }

    /// A connector's sockets other than that of the path; a listener's are not its session's to give up. Where the choice
    /// was made again the peer may send to the socket of the one before.
    pub(super) fn release_unused_sockets(&mut self) -> Vec<SocketId> {
        let Some(pair) = self.path() else { return Vec::new() };
        if self.introduction.as_ref().is_some_and(|introduction| introduction.negotiation.has_renominated()) {
            return Vec::new();
        }
        let (used, unused) = core::mem::take(&mut self.sockets).into_iter().partition(|socket| *socket == pair.socket);
        self.sockets = used;
        unused
    }
}

/// Whether any of our sockets could send there at all.
fn is_in_reach(candidate: &WireCandidate, sockets: &[BoundSocket]) -> bool {
    let address = canonical(candidate.address);
    sockets
        .iter()
        .filter(|socket| socket.is_ipv6() == address.is_ipv6())
        .any(|socket| socket.has_address || address.ip().is_loopback())
}
