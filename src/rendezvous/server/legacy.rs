//! The text protocol of 2015: its listeners, and who is introduced to whom.
//!
//! A listener is found by the IPv4 address that it connects from; of several at one address the oldest is introduced
//! first, and each once (`waiting` has them). The connector is told before the listener, both the same port. A connection over IPv6 has no
//! address that those clients could use: it is nobody's peer.
//!
//! A host that nothing follows may have more digits to come. When it names a listener and no digit can follow, it is
//! answered at once; when one could, after [`SETTLE`]; and only after [`SILENCE`] is anything not found. So a request
//! in two segments is understood, and nearly every one is answered without delay.

use core::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::{
    Server,
    registry::Registry,
    streams::{Protocol, Stream},
    waiting::{Place, Waiter},
};
use crate::{
    machine::{Instant, StreamId, TcpRequest},
    wire::compat::{self, Open, Request, Requests},
};

/// A host that names a listener is taken to be whole after this: two segments of one write are closer.
const SETTLE: Duration = Duration::from_millis(20);

/// After so long nothing more of a request is to come; a lost segment was sent again by then on most paths.
const SILENCE: Duration = Duration::from_millis(100);

/// Bytes that are no request, without a pause. Beyond that somebody is playing.
const MAX_GARBAGE: usize = 4 << 20;

/// What one connection has said.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    requests: Requests,
    /// Its place among those who wait.
    place: Option<Place>,
}

impl Conversation {
    /// It waits no more.
    pub(super) fn leave(&mut self, registry: &mut Registry) {
        if let Some(place) = self.place.take() {
            registry.waiting_mut().remove(place);
        }
    }
}

fn conversation(stream: &mut Stream) -> Option<&mut Conversation> {
    match &mut stream.protocol {
        Protocol::Legacy(conversation) => Some(conversation),
        Protocol::Unknown | Protocol::Stun => None,
    }
}

/// The IPv4 address, if it is one.
pub(super) const fn ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

impl Server {
    pub(super) fn handle_legacy(&mut self, now: Instant, id: StreamId, mut piece: &[u8]) {
        self.stats.received += 1;
        while let Some(conversation) = self.streams.get_mut(id).and_then(conversation) {
            let Some(request) = conversation.requests.next(&mut piece) else { break };
            self.handle_request(now, id, request);
        }
        self.wait_for_more(now, id);
    }

    /// Answers what is open if it can be told already, else waits for more.
    fn wait_for_more(&mut self, now: Instant, id: StreamId) {
        let Some(conversation) = self.streams.get_mut(id).and_then(conversation) else { return };
        let is_listening = conversation.place.is_some();
        match conversation.requests.open() {
            Some(Open::Host { host: Some(host), is_complete }) if self.oldest_for_text(id, host).is_some() => {
                if is_complete {
                    self.finish_legacy(now, id);
                } else {
                    self.streams.wake(id, Some(now + SETTLE));
                }
            }
            Some(Open::Garbage(length)) if length > MAX_GARBAGE => {
                self.stats.malformed += 1;
                self.close_stream(id);
            }
            Some(_) => self.streams.wake(id, Some(now + SILENCE)),
            None => {
                let idle = (!is_listening).then(|| now + self.config.idle_connection);
                self.streams.wake(id, idle);
            }
        }
    }

    /// A connection's time has come: whether it was one of these, and a request of its was open.
    pub(super) fn settle_legacy(&mut self, now: Instant, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(id) else { return false };
        let heard = stream.heard;
        let Some(open) = conversation(stream).and_then(|conversation| conversation.requests.open()) else {
            return false;
        };
        let is_found = match open {
            Open::Host { host: Some(host), .. } => self.oldest_for_text(id, host).is_some(),
            Open::Host { host: None, .. } | Open::Garbage(_) => false,
        };
        if is_found || now >= heard + SILENCE {
            self.finish_legacy(now, id);
        } else {
            self.streams.wake(id, Some(heard + SILENCE));
        }
        true
    }

    /// Takes what is open as it stands.
    pub(super) fn finish_legacy(&mut self, now: Instant, id: StreamId) {
        let Some(conversation) = self.streams.get_mut(id).and_then(conversation) else { return };
        if let Some(request) = conversation.requests.finish() {
            self.handle_request(now, id, request);
        }
        self.wait_for_more(now, id);
    }

    fn handle_request(&mut self, now: Instant, id: StreamId, request: Request) {
        match request {
            Request::Listen => self.listen_legacy(id),
            Request::Connect(host) => {
                if !host.is_some_and(|host| self.introduce_legacy(now, id, host)) {
                    self.answer_not_found(id);
                }
            }
        }
    }

    fn listen_legacy(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let host = ipv4(stream.remote.ip());
        let Some(conversation) = conversation(stream) else { return };
        if let (None, Some(host)) = (conversation.place, host) {
            conversation.place = Some(self.registry.waiting_mut().add(host, Waiter::Text(id)));
        }
    }

    /// Introduces the oldest that waits at an address and the one who asks to each other.
    fn introduce_legacy(&mut self, now: Instant, connector: StreamId, host: Ipv4Addr) -> bool {
        let Some(waiter) = self.oldest_for_text(connector, host) else { return false };
        let Some(own) = self.streams.get(connector).and_then(|stream| ipv4(stream.remote.ip())) else {
            return false;
        };
        if !self.may_introduce(now, own.into(), false) {
            return false;
        }
        let port = self.config.punch_port;
        self.send_stream(connector, &compat::introduction(host, port));
        match waiter {
            Waiter::Text(listener) => {
                self.send_stream(listener, &compat::introduction(own, port));
                self.release_text(now, listener);
            }
            Waiter::Registration(id) => self.introduce_old(now, id, own),
        }
        self.stats.introductions += 1;
        true
    }

    /// A listener has what it came for: it waits no more, and may be silent no longer than any other.
    pub(super) fn release_text(&mut self, now: Instant, listener: StreamId) {
        if let Some(conversation) = self.streams.get_mut(listener).and_then(conversation) {
            conversation.leave(&mut self.registry);
        }
        self.wait_for_more(now, listener);
    }

    /// Answers `?`. Those of one piece that follow each other leave together: a million requests in a segment are no
    /// million writes.
    fn answer_not_found(&mut self, id: StreamId) {
        match self.requests.back_mut() {
            Some(TcpRequest::Send { stream, bytes }) if *stream == id && bytes.ends_with(compat::NOT_FOUND) => {
                bytes.extend_from_slice(compat::NOT_FOUND);
            }
            _ => self.send_stream(id, compat::NOT_FOUND),
        }
    }
}
