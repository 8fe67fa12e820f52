//! CONNECT, INTRODUCE and TRICKLE: two peers are told of each other, and what they tell each other afterwards is passed on.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::{
    At, Server,
    candidates::told_candidates,
    mixed::Met,
    registry::{Found, Registration, Seen},
    route::Route,
    stream_of,
};
use crate::{
    address::canonical_ip,
    machine::Instant,
    rendezvous::codes,
    wire::stun::{
        AttributeType, Builder, Class, Fingerprint, MAX_MESSAGE, Message, Method, RegistrationId, SessionId,
        TransactionId, Transports, VERSION, WireCandidate,
    },
};

/// What a listener is told of a connector.
struct Introduction {
    session: SessionId,
    public_key: [u8; 32],
    transports: Transports,
    candidates: Vec<WireCandidate>,
    route: Vec<u8>,
}

impl Server {
    pub(super) fn handle_connect(&mut self, now: Instant, at: At, message: &Message<'_>) {
        let (Some(session), Some(public_key)) = (message.session_id(), message.public_key()) else {
            self.stats.malformed += 1;
            return;
        };
        if message.version() != Some(VERSION) {
            return self.refuse(at, message, codes::VERSION_MISMATCH);
        }
        if !self.has_cookie(now, at, message, &session.0, codes::UNAUTHENTICATED) {
            return;
        }
        let tag = self.introduction_rates.tag(&session.0);
        let is_repeat = self.recent.knows(tag) && stream_of(at.socket).is_none();
        if !self.may_introduce(now, at.remote.ip(), is_repeat) {
            // It comes again, where a refusal would end a session that has begun.
            if is_repeat {
                return;
            }
            return self.refuse(at, message, codes::INSUFFICIENT_CAPACITY);
        }
        // Not before: one that was refused has not begun, and asks again.
        self.recent.note(tag);
        let wanted = message.transports().unwrap_or_default();
        let is_legacy = self.config.legacy && message.legacy().is_some();
        let found = match (message.name(), message.target_address().map(canonical_ip)) {
            (Some(name), _) => self.registry.by_name(&name),
            (None, Some(ip)) if is_legacy => match self.meet(now, at, session, ip, wanted) {
                Ok((Met::Current(id), _)) => Found::One(id),
                Ok((Met::Old(host), listener)) => return self.answer_old(now, at, message, host, listener),
                Err(code) => return self.refuse(at, message, code),
            },
            (None, Some(ip)) => self.registry.by_address(ip),
            (None, None) => return self.refuse(at, message, 400),
        };
        let id = match found {
            Found::One(id) => id,
            Found::Several => return self.refuse(at, message, codes::AMBIGUOUS),
            Found::None => return self.refuse(at, message, codes::NOT_FOUND),
        };
        // Whom a session has got before may be gone.
        let Some(registration) = self.registry.get(id) else { return self.refuse(at, message, codes::NOT_FOUND) };
        if !registration.listing.transports.intersects(wanted) {
            return self.refuse(at, message, codes::TRANSPORT_MISMATCH);
        }
        let epoch = self.cookies.epoch(now);
        let connector_seen = [at.seen()];
        let listener_seen: Vec<_> = registration.seen().collect();
        let claimed = self.claimed_candidates(at, message);
        let for_listener = told_candidates(&connector_seen, &claimed, &listener_seen);
        let for_connector = told_candidates(&listener_seen, &registration.listing.candidates.to_vec(), &connector_seen);

        let answer = Builder::new(Class::Success, Method::CONNECT, message.transaction_id())
            .public_key(&registration.listing.public_key)
            .transports(registration.listing.transports)
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, at.remote)
            .attribute(AttributeType::ROUTE, &Route::Registration(id).seal(&self.route_key, epoch))
            .candidates(&for_connector)
            .fingerprint()
            .finish();
        let route = Route::Address(at.seen()).seal(&self.route_key, epoch);
        let introduction = Introduction { session, public_key, transports: wanted, candidates: for_listener, route };
        for seen in listener_seen {
            self.introduce(id, seen, &introduction);
        }
        self.reply(at, answer);
        self.stats.introductions += 1;
    }

    /// Whether an address's network has not caused too much of this lately. What its sender repeats by itself can wait,
    /// so that many sessions that begin at once have room before any repeats. This host itself has better ways to
    /// exhaust its server.
    pub(super) fn may_introduce(&mut self, now: Instant, ip: IpAddr, can_wait: bool) -> bool {
        let rates = &mut self.introduction_rates;
        let may = ip.is_loopback() || if can_wait { rates.take_surplus(now, ip) } else { rates.take(now, ip) };
        self.stats.limited += u64::from(!may);
        may
    }

    /// Tells a listener of a connector.
    fn introduce(&mut self, id: RegistrationId, to: Seen, introduction: &Introduction) {
        let sequence = self.registry.next_sequence(id);
        let Some(registration) = self.registry.get(id) else { return };
        let transaction = TransactionId(self.random.bytes());
        let payload = Builder::new(Class::Indication, Method::INTRODUCE, transaction)
            .registration_id(id)
            .session_id(introduction.session)
            .sequence(sequence)
            .public_key(&introduction.public_key)
            .transports(introduction.transports)
            .attribute(AttributeType::ROUTE, &introduction.route)
            .candidates(&introduction.candidates)
            .integrity_sha256(&registration.listing.key)
            .fingerprint()
            .finish();
        self.send(to, payload);
    }

    /// Passes a message between two introduced peers on, as it is, to where its route leads.
    pub(super) fn handle_trickle(&mut self, now: Instant, message: &Message<'_>) {
        let is_ours = message.verify_fingerprint() == Fingerprint::Valid && message.as_bytes().len() <= MAX_MESSAGE;
        let token = message.route().filter(|_| is_ours);
        let opened = token.and_then(|token| Route::open(&self.route_key, token));
        let Some((route, _)) = opened.filter(|(_, epoch)| self.cookies.is_fresh(now, *epoch)) else {
            self.stats.malformed += 1;
            return;
        };
        let targets: Vec<_> = match route {
            Route::Registration(id) => self.registry.get(id).into_iter().flat_map(Registration::seen).collect(),
            Route::Address(seen) => alloc::vec![seen],
        };
        for target in targets {
            // The rate of whom it goes to: the sender's address is not proven.
            if self.may_introduce(now, target.remote.ip(), true) {
                self.send(target, message.as_bytes().to_vec());
            }
        }
    }
}
