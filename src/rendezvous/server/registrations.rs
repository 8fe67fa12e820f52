//! REGISTER: how a listener comes, stays, moves and leaves, and what it is refused.
//!
//! A registration belongs to whoever knows its key: everything but its first message is signed with that, and moves it to
//! another address only with a cookie that was sent there.

use super::{
    At, Server, is_signed,
    registry::{Listing, Refusal},
    stream_of,
};
use crate::{
    machine::Instant,
    rendezvous::codes,
    wire::stun::{AttributeType, Builder, Class, Message, Method, RegistrationId, VERSION},
};

impl Server {
    pub(super) fn handle_register(&mut self, now: Instant, at: At, message: &Message<'_>) {
        let Some(id) = message.registration_id() else {
            self.stats.malformed += 1;
            return;
        };
        let known = self.registry.get(id);
        if message.keepalive() == Some(0) {
            if known.is_some_and(|known| is_signed(message, &known.listing.key)) {
                self.registry.remove(id);
            }
            // Also when it is gone already: the answer to an earlier request may have been lost.
            let gone = Builder::new(Class::Success, Method::REGISTER, message.transaction_id());
            self.reply_unproven(at, message, gone);
        } else if let Some(key) = message.registration_key() {
            self.handle_full_register(now, at, message, id, key);
        } else {
            self.handle_keepalive(now, at, message, id);
        }
    }

    fn handle_full_register(&mut self, now: Instant, at: At, message: &Message<'_>, id: RegistrationId, key: [u8; 32]) {
        let (Some(public_key), true) = (message.public_key(), is_signed(message, &key)) else {
            self.stats.malformed += 1;
            return;
        };
        // A name that is there and cannot be read must not become an unnamed listener.
        let name = message.name();
        if name.is_none() && message.attribute(AttributeType::NAME).is_some() {
            return self.refuse(at, message, 400);
        }
        if message.version() != Some(VERSION) {
            return self.refuse(at, message, codes::VERSION_MISMATCH);
        }
        let code = if self.registry.get(id).is_some() { codes::STALE_NONCE } else { codes::UNAUTHENTICATED };
        if !self.has_cookie(now, at, message, &id.0, code) {
            return;
        }
        let candidates = self.claimed_candidates(at, message).into();
        let transports = message.transports().unwrap_or_default();
        let legacy = self.config.legacy && message.legacy().is_some();
        let listing = Listing { key, name, public_key, transports, candidates, legacy };
        match self.registry.register(now, id, listing, at.seen()) {
            Ok(()) => {
                self.keep_registration(at, id);
                self.confirm(at, message, &key);
            }
            Err(refusal) => {
                if refusal == Refusal::Full {
                    self.stats.limited += 1;
                }
                let code = match refusal {
                    Refusal::NameTaken => codes::NAME_TAKEN,
                    Refusal::Forbidden => codes::FORBIDDEN,
                    Refusal::Full => codes::INSUFFICIENT_CAPACITY,
                };
                self.refuse(at, message, code);
            }
        }
    }

    fn handle_keepalive(&mut self, now: Instant, at: At, message: &Message<'_>, id: RegistrationId) {
        let Some(registration) = self.registry.get(id) else {
            return self.challenge(now, at, message, &id.0, codes::UNAUTHENTICATED);
        };
        let key = registration.listing.key;
        let is_there = registration.is_at(at.seen());
        if !is_signed(message, &key) {
            self.stats.malformed += 1;
            return;
        }
        let is_stream = stream_of(at.socket).is_some();
        if !is_there
            && !is_stream
            && !message.nonce().is_some_and(|nonce| self.cookies.verify(now, at.remote, &id.0, nonce))
        {
            return self.challenge(now, at, message, &id.0, codes::STALE_NONCE);
        }
        self.registry.refresh(now, id, at.seen());
        self.keep_registration(at, id);
        self.confirm(at, message, &key);
    }

    /// Confirms a registration: where the listener was seen, and when to come again.
    fn confirm(&mut self, at: At, message: &Message<'_>, key: &[u8; 32]) {
        let seconds = u32::try_from(self.config.keepalive.as_secs()).unwrap_or(u32::MAX);
        let bytes = Builder::new(Class::Success, Method::REGISTER, message.transaction_id())
            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, at.remote)
            .keepalive(seconds)
            .integrity_sha256(key)
            .fingerprint()
            .finish();
        self.reply(at, bytes);
    }
}
