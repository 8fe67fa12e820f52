//! The part of a session whose signalling is the program's own: our candidates are told to the program as they are found,
//! the peer's come from it, and checks begin when its credentials are known.
//!
//! Host candidates are told at once. Every STUN server is asked from every socket of its family for the address that it
//! sees (RFC 8445 section 5.1.1.2), each request repeated until it is answered or the server is silent; what comes of
//! it trickles (RFC 8838). [`PeerEvent::Gathered`] ends them. A check that arrives before the peer's credentials do
//! is kept, and answered when they come: RFC 8445 section 7.3 allows either, and the peer repeats nothing so soon.
//!
//! The program vouches for its signalling, so a candidate of the peer gets as many checks as the time allows: early ones in
//! haste, then one a second. The number of candidates is bounded as everywhere.

use alloc::{format, string::String, vec::Vec};
use core::{net::SocketAddr, time::Duration};

use super::{Context, Introduction, Phase, Session};
use crate::{
    Error, ErrorKind,
    address::{canonical, is_sharable, unspecified},
    config::{Checks, MAX_STUN_SERVERS},
    machine::{BoundSocket, Level, NextWake, Output, Random, SocketId, Timer, Transmit},
    peer::{NegotiateRequest, PeerEvent, ServerAddress, negotiation::Negotiation},
    punch::{Arrival, Candidate, CandidateKind, Provenance, Role, Settings},
    rendezvous::client::{Due, From, Transaction, Via},
    wire::{
        sdp::{self, CandidateType},
        stun::{Builder, Class, Credentials, Integrity, Message, Method, SessionId, TransactionId, WireCandidate},
    },
};

/// Candidates of the peer that are kept until its credentials are known; as many as are checked.
const MAX_REMOTE: usize = 32;

/// Checks of the peer that are kept until its credentials are known, and the length of each that is kept at most, in bytes.
const MAX_EARLY: usize = 16;
const MAX_EARLY_LENGTH: usize = 1_280;

/// The characters that credentials are made of: 6 bits each (RFC 8839 section 5.4).
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// After the hasty checks of [`Checks::unproven`] one a second is sent, up to this many in all.
const MAX_CHECKS: u8 = 120;

/// One request for our mapped address.
#[derive(Debug)]
struct Query {
    socket: SocketId,
    server: SocketAddr,
    /// Of servers and families: candidates of one server share their foundation.
    number: usize,
    /// The id that the session's answers are told by.
    id: TransactionId,
    timing: Transaction,
}

/// See the module.
#[derive(Debug)]
pub(in crate::peer) struct Signalled {
    role: Role,
    timeout: Duration,
    servers: Vec<ServerAddress>,
    pub(in crate::peer) local: Credentials,
    remote: Option<Credentials>,
    /// Candidates of the peer, until its credentials are known.
    waiting: Vec<Candidate>,
    is_remote_complete: bool,
    early: Vec<(Arrival, Vec<u8>)>,
    sockets: Vec<BoundSocket>,
    queries: Vec<Query>,
    /// Our candidates that the program knows.
    told: Vec<SocketAddr>,
    is_gathered: bool,
}

impl Signalled {
    pub(in crate::peer) fn new(request: NegotiateRequest, random: &mut Random) -> Self {
        let NegotiateRequest { role, stun_servers: mut servers, timeout, .. } = request;
        servers.truncate(MAX_STUN_SERVERS);
        let local = Credentials { ufrag: ice_chars::<8>(random), password: ice_chars::<32>(random) };
        Self {
            role,
            timeout,
            servers,
            local,
            remote: None,
            waiting: Vec::new(),
            is_remote_complete: false,
            early: Vec::new(),
            sockets: Vec::new(),
            queries: Vec::new(),
            told: Vec::new(),
            is_gathered: false,
        }
    }

    /// Nothing can be sent to this server from there.
    pub(super) fn handle_send_failed(&mut self, to: From) {
        self.queries.retain(|query| Via::Udp(query.socket) != to.via || query.server != to.remote);
    }

    pub(super) fn next_wake(&self) -> NextWake {
        let mut wake = NextWake::never();
        for query in &self.queries {
            wake.at(Some(query.timing.next()), Timer::Server);
        }
        wake
    }

    /// How often a candidate of the peer is checked: until the time is over.
    fn checks(&self, checks: Checks) -> Checks {
        let hasty = u64::try_from(checks.unproven.len()).unwrap_or_default();
        let all = hasty.saturating_add(self.timeout.as_secs()).min(u64::from(MAX_CHECKS));
        Checks { observed_budget: u8::try_from(all).unwrap_or(MAX_CHECKS).max(checks.observed_budget), ..checks }
    }

    /// Notes a candidate of ours and tells the program, unless it knows it.
    fn tell(&mut self, cx: &mut Context<'_>, session: SessionId, candidate: sdp::Candidate) {
        if !self.told.contains(&candidate.address) {
            self.told.push(candidate.address);
            cx.event(PeerEvent::LocalCandidate { session, candidate });
        }
    }

    fn tell_hosts(&mut self, cx: &mut Context<'_>, session: SessionId, addresses: &[SocketAddr]) {
        for address in addresses {
            let index = u32::try_from(self.told.len()).unwrap_or(u32::MAX);
            let candidate = sdp::Candidate {
                foundation: format!("1{index}"),
                component: 1,
                // Each has its own (RFC 8445 section 5.1.2.1).
                priority: CandidateKind::Host.priority(address.ip()).saturating_sub(index.min(255) << 8),
                address: *address,
                kind: CandidateType::Host,
                related: None,
            };
            self.tell(cx, session, candidate);
        }
    }

    /// The base that is told with a mapped address.
    fn base(&self, socket: SocketId, ipv6: bool) -> SocketAddr {
        let of_socket = self.sockets.iter().find(|bound| bound.id == socket).map(|bound| bound.local);
        let bound = of_socket.filter(|local| !local.ip().is_unspecified());
        let told = || self.told.iter().copied().find(|told| told.is_ipv6() == ipv6);
        // What RFC 8839 section 5.1 allows instead.
        bound.or_else(told).unwrap_or_else(|| SocketAddr::new(unspecified(ipv6), 9))
    }
}

impl Session {
    /// The sockets are bound: tells our addresses and asks for the mapped ones.
    pub(in crate::peer) fn begin_signalling(
        &mut self,
        cx: &mut Context<'_>,
        sockets: &[BoundSocket],
        hosts: &[WireCandidate],
    ) {
        let Some(signalled) = &mut self.signalled else { return };
        signalled.sockets = sockets.to_vec();
        let mut addresses: Vec<_> = hosts.iter().map(|candidate| candidate.address).collect();
        // A program that binds to loopback means it.
        addresses.extend(sockets.iter().map(|socket| socket.local).filter(|local| local.ip().is_loopback()));
        signalled.tell_hosts(cx, self.id, &addresses);
        let mut number = 0;
        for server in &signalled.servers {
            for address in [server.ipv4, server.ipv6].into_iter().flatten() {
                number += 1;
                let ours = |socket: &&BoundSocket| socket.is_ipv6() == address.is_ipv6() && socket.has_address;
                for socket in sockets.iter().filter(ours) {
                    let timing = Transaction::new(cx.now, &cx.config.retransmission, cx.random);
                    let mut id = timing.id;
                    id.0[..4].copy_from_slice(&self.tag);
                    signalled.queries.push(Query { socket: socket.id, server: address, number, id, timing });
                }
            }
        }
        self.phase = Phase::Signalling;
        self.begin_if_known(cx);
        self.handle_timeout(cx);
    }

    /// Further addresses of this host, while there is somebody to tell them to.
    pub(in crate::peer) fn tell_new_hosts(&mut self, cx: &mut Context<'_>, hosts: &[WireCandidate]) {
        if let Some(signalled) = &mut self.signalled
            && !signalled.is_gathered
            && matches!(self.phase, Phase::Signalling | Phase::Punching)
        {
            let addresses: Vec<_> = hosts.iter().map(|candidate| candidate.address).collect();
            signalled.tell_hosts(cx, self.id, &addresses);
        }
    }

    /// Asks the STUN servers, and says when there is nobody left to ask.
    pub(super) fn run_gathering(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Signalling | Phase::Punching) {
            return;
        }
        let Some(signalled) = &mut self.signalled else { return };
        signalled.queries.retain_mut(|query| match query.timing.poll(cx.now, &cx.config.retransmission) {
            Due::Nothing => true,
            Due::Send => {
                let payload = Builder::new(Class::Request, Method::BINDING, query.id).fingerprint().finish();
                let (socket, destination) = (query.socket, query.server);
                cx.outputs.push_back(Output::Transmit(Transmit { socket, source: None, destination, payload }));
                true
            }
            Due::Silent => {
                let line = format!("the STUN server {} does not answer", query.server);
                cx.outputs.push_back(Output::Log(Level::Warn, line));
                false
            }
        });
        if signalled.queries.is_empty() {
            self.end_gathering(cx);
        }
    }

    /// No further candidate of ours will be told.
    pub(super) fn end_gathering(&mut self, cx: &mut Context<'_>) {
        if let Some(signalled) = &mut self.signalled {
            signalled.queries.clear();
            if !core::mem::replace(&mut signalled.is_gathered, true) {
                cx.event(PeerEvent::Gathered { session: self.id });
            }
        }
    }

    /// Takes in the answer of a STUN server; whether it was one.
    pub(in crate::peer) fn handle_stun_answer(
        &mut self,
        cx: &mut Context<'_>,
        at: Arrival,
        message: &Message<'_>,
    ) -> bool {
        let Some(signalled) = &mut self.signalled else { return false };
        let id = message.transaction_id();
        let is_it = |query: &Query| query.id == id && query.socket == at.socket && query.server == at.remote;
        let Some(index) = signalled.queries.iter().position(is_it) else { return false };
        let query = signalled.queries.swap_remove(index);
        let mapped = message.xor_mapped_address().or_else(|| message.mapped_address());
        match mapped.map(canonical).filter(|_| message.class() == Class::Success) {
            Some(mapped) if is_sharable(mapped.ip()) && mapped.port() != 0 => {
                let candidate = sdp::Candidate {
                    foundation: format!("2{}", query.number),
                    component: 1,
                    priority: CandidateKind::ServerReflexive
                        .priority(mapped.ip())
                        .saturating_sub(u32::try_from(query.number.min(255)).unwrap_or_default() << 8),
                    address: mapped,
                    kind: CandidateType::ServerReflexive,
                    related: Some(signalled.base(query.socket, mapped.is_ipv6())),
                };
                signalled.tell(cx, self.id, candidate);
            }
            // Loopback, on one host.
            Some(_) => {}
            None => cx.log(Level::Warn, format!("the STUN server {} tells no mapped address", query.server)),
        }
        self.run_gathering(cx);
        true
    }

    /// Takes the peer's credentials.
    pub(in crate::peer) fn set_remote(&mut self, cx: &mut Context<'_>, remote: Credentials) -> Result<(), Error> {
        let Some(signalled) = &mut self.signalled else { return Err(not_signalled()) };
        if let Err(what) = sdp::check_credentials(&remote.ufrag, &remote.password) {
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        if let Some(known) = &signalled.remote {
            if *known == remote {
                return Ok(());
            }
            return Err(Error::new(ErrorKind::Unsupported, "the peer has other credentials already")
                .with_hint("an ICE restart needs a new agent"));
        }
        signalled.remote = Some(remote);
        self.begin_if_known(cx);
        self.handle_timeout(cx);
        Ok(())
    }

    /// Takes a candidate of the peer, as a line of SDP.
    pub(in crate::peer) fn add_told_candidate(&mut self, cx: &mut Context<'_>, line: &str) -> Result<(), Error> {
        let Some(signalled) = &mut self.signalled else { return Err(not_signalled()) };
        let parsed = match line.parse::<sdp::Candidate>() {
            Ok(parsed) => parsed,
            Err(sdp::CandidateError::Malformed(what)) => {
                let text = format!("this is no candidate: {what}");
                let hint = "give a line like \"candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host\"";
                return Err(Error::new(ErrorKind::InvalidArgument, text).with_hint(hint));
            }
            Err(sdp::CandidateError::Unusable(why)) => {
                cx.log(Level::Debug, format!("a candidate of the peer is left out: {why}"));
                return Ok(());
            }
        };
        if parsed.component != 1 || signalled.is_remote_complete {
            let why = if parsed.component == 1 { "those before were all" } else { "there is one component only" };
            cx.log(Level::Debug, format!("the candidate {} of the peer is left out: {why}", parsed.address));
            return Ok(());
        }
        let candidate = Candidate::new(candidate_kind(parsed.kind), parsed.address, Provenance::Observed);
        let candidate = candidate.with_priority(parsed.priority);
        match (&mut self.introduction, self.phase) {
            (Some(introduction), Phase::Punching) => introduction.negotiation.add_told(cx.now, candidate),
            (None, Phase::Binding | Phase::Signalling) if signalled.waiting.len() < MAX_REMOTE => {
                signalled.waiting.push(candidate);
            }
            _ => {}
        }
        self.handle_timeout(cx);
        Ok(())
    }

    /// The peer has told all its candidates (RFC 8838 section 14): later ones are left out.
    pub(in crate::peer) fn end_told_candidates(&mut self) -> Result<(), Error> {
        let Some(signalled) = &mut self.signalled else { return Err(not_signalled()) };
        signalled.is_remote_complete = true;
        Ok(())
    }

    /// Begins the checks, once the sockets are there and the peer's credentials.
    fn begin_if_known(&mut self, cx: &mut Context<'_>) {
        let Some(signalled) = &mut self.signalled else { return };
        let (Phase::Signalling, Some(remote)) = (self.phase, &signalled.remote) else { return };
        let (role, local, remote) = (signalled.role, signalled.local.clone(), remote.clone());
        let settings = Settings { checks: signalled.checks(cx.config.checks), consent: cx.config.consent }.into();
        let mut negotiation = Negotiation::datagrams(cx, settings, role, local, remote, self.tag, &signalled.sockets);
        let candidates = core::mem::take(&mut signalled.waiting);
        let peer = candidates.iter().map(|candidate| candidate.address).collect();
        for candidate in candidates {
            negotiation.add_told(cx.now, candidate);
        }
        let early = core::mem::take(&mut signalled.early);
        let deadline = cx.now + signalled.timeout;
        self.introduction = Some(Introduction { negotiation, kin: None, at: cx.now, deadline });
        self.phase = Phase::Punching;
        cx.event(PeerEvent::Introduced { session: self.id, listener: None, role, peer });
        for (at, bytes) in early {
            if let Ok(message) = Message::parse(&bytes) {
                self.handle_check(cx, at, &message);
            }
        }
    }

    /// Keeps an authentic check of a peer whose credentials are not known yet; whether it was one.
    pub(super) fn keep_early_check(&mut self, at: Arrival, message: &Message<'_>) -> bool {
        let Some(signalled) = &mut self.signalled else { return false };
        if message.verify_integrity(signalled.local.password.as_bytes()) != Integrity::Valid {
            return false;
        }
        let bytes = message.as_bytes();
        if bytes.len() <= MAX_EARLY_LENGTH {
            if signalled.early.len() == MAX_EARLY {
                // The peer has given the oldest up first.
                signalled.early.remove(0);
            }
            signalled.early.push((at, bytes.to_vec()));
        }
        true
    }
}

fn not_signalled() -> Error {
    Error::new(ErrorKind::InvalidArgument, "the signalling of this session is not the program's")
}

const fn candidate_kind(kind: CandidateType) -> CandidateKind {
    match kind {
        CandidateType::Host => CandidateKind::Host,
        CandidateType::ServerReflexive => CandidateKind::ServerReflexive,
        CandidateType::PeerReflexive => CandidateKind::PeerReflexive,
        CandidateType::Relayed => CandidateKind::Relayed,
    }
}

/// So many characters, each drawn from 64.
fn ice_chars<const N: usize>(random: &mut Random) -> String {
    let drawn: [u8; N] = random.bytes();
    drawn.iter().filter_map(|byte| ICE_CHARS.get(usize::from(byte & 63))).map(|byte| char::from(*byte)).collect()
}
