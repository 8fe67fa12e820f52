//! Connections over TCP: which protocol each speaks, how many there may be, and how long they may be silent.
//!
//! A connection's first byte tells: 0x00 to 0x03 is STUN, `H` begins the line `HOLEPUNCH/1`, which is answered with
//! itself and followed by STUN, 0x16 is kept for TLS, and everything else is left to the text protocol of 2015, where
//! that is spoken. STUN frames itself. A handshake has proven the other's address, so no rate guards the answers;
//! what a connection can cost is bounded by the bytes that it sends.
//!
//! What is closed here is forgotten at once: whatever it still brings is nobody's.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::SocketAddr;

use super::{At, Server, legacy::Conversation, rate::network, stream_of};
use crate::{
    machine::{Instant, SocketId, StreamId, TcpRequest},
    wire::{
        demux::frame_length,
        stun::{GREETING, MAGIC_COOKIE, Message, RegistrationId},
    },
};

/// The longest message that is read from a stream, in bytes. Our own have 1,200 at most; PADDING may add to others'.
const MAX_FRAME: usize = 2048;

/// The first byte of a TLS record, which is kept for the day when TLS is spoken.
const TLS: u8 = 0x16;

/// What a connection speaks.
#[derive(Debug)]
pub(super) enum Protocol {
    /// It has not said enough to tell.
    Unknown,
    Stun,
    Legacy(Conversation),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) protocol: Protocol,
    /// When it was heard last.
    pub(super) heard: Instant,
    /// Since when it owes its first message, or the rest of another that it has begun.
    owes: Option<Instant>,
    /// Who is registered over it, one at a time.
    registration: Option<RegistrationId>,
    /// What its place counts against; `None` for this host itself.
    network: Option<u64>,
    wake: Option<Instant>,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    per_network: BTreeMap<u64, u32>,
    wakes: BTreeSet<(Instant, StreamId)>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(time, _)| *time)
    }

    /// Sets the time at which a connection is looked at again.
    pub(super) fn wake(&mut self, id: StreamId, time: Option<Instant>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.wake == time {
            return;
        }
        if let Some(before) = stream.wake {
            self.wakes.remove(&(before, id));
        }
        if let Some(time) = time {
            self.wakes.insert((time, id));
        }
        stream.wake = time;
    }

    fn insert(&mut self, id: StreamId, stream: Stream) {
        if let Some(network) = stream.network {
            *self.per_network.entry(network).or_default() += 1;
        }
        self.streams.insert(id, stream);
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        if let Some(wake) = stream.wake {
            self.wakes.remove(&(wake, id));
        }
        if let Some(network) = stream.network
            && let Some(count) = self.per_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.per_network.remove(&network);
            }
        }
        Some(stream)
    }
}

impl Server {
    /// Takes in what a connection brings, from where the last call left it, and returns how many bytes it took; give
    /// the rest again when there is more. It asks for no more than some 2 KiB at a time. Drain afterwards.
    pub fn handle_stream_data(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) -> usize {
        self.pass_time(now);
        let legacy = self.config.legacy;
        let Some(known) = self.streams.get_mut(stream) else { return bytes.len() };
        known.heard = now;
        let mut taken = 0;
        if matches!(known.protocol, Protocol::Unknown) {
            match bytes.first() {
                None => return 0,
                Some(0..=3) => known.protocol = Protocol::Stun,
                Some(b'H') if bytes.starts_with(GREETING) => {
                    known.protocol = Protocol::Stun;
                    taken = GREETING.len();
                    self.send_stream(stream, GREETING);
                }
                Some(b'H') if GREETING.starts_with(bytes) => return 0,
                Some(&TLS | b'H') => {
                    self.stats.malformed += 1;
                    self.close_stream(stream);
                    return bytes.len();
                }
                Some(_) if legacy => known.protocol = Protocol::Legacy(Conversation::default()),
                Some(_) => {
                    self.stats.malformed += 1;
                    self.close_stream(stream);
                    return bytes.len();
                }
            }
            let idle = now + self.config.idle_connection;
            self.streams.wake(stream, Some(idle));
        }
        let rest = bytes.get(taken..).unwrap_or_default();
        taken += match self.streams.get_mut(stream).map(|known| &known.protocol) {
            Some(Protocol::Stun) => self.handle_frames(now, stream, rest),
            Some(Protocol::Legacy(_)) => {
                self.handle_legacy(now, stream, rest);
                rest.len()
            }
            Some(Protocol::Unknown) | None => rest.len(),
        };
        self.wait_for_rest(now, stream, taken, bytes.len());
        taken
    }

    /// So many bytes were taken of those that are there: what is left begins a message, which is to be whole in time.
    fn wait_for_rest(&mut self, now: Instant, id: StreamId, taken: usize, length: usize) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let before = stream.owes.filter(|_| taken == 0);
        stream.owes = (taken < length).then(|| before.unwrap_or(now));
        if let Some(since) = stream.owes {
            self.streams.wake(id, Some(since + self.config.first_word));
        }
    }

    /// Takes in that the other side has ended its data: what it has asked for is answered, and the connection closed.
    /// Drain afterwards.
    pub fn handle_stream_end(&mut self, now: Instant, stream: StreamId) {
        self.pass_time(now);
        self.finish_legacy(now, stream);
        self.close_stream(stream);
    }

    pub(super) fn accept_stream(&mut self, now: Instant, id: StreamId, local: SocketAddr, remote: SocketAddr) {
        // This host itself has better ways to exhaust its server, and tests need thousands of clients.
        let network = (!remote.ip().is_loopback()).then(|| network(remote.ip()));
        let of_network = network.and_then(|network| self.streams.per_network.get(&network)).copied().unwrap_or(0);
        let is_full =
            self.streams.len() >= self.config.max_connections || of_network >= self.config.max_connections_per_network;
        if is_full || self.streams.get_mut(id).is_some() {
            self.stats.limited += 1;
            self.requests.push_back(TcpRequest::Close { stream: id });
            return;
        }
        let stream = Stream {
            local,
            remote,
            protocol: Protocol::Unknown,
            heard: now,
            owes: Some(now),
            registration: None,
            network,
            wake: None,
        };
        self.streams.insert(id, stream);
        self.streams.wake(id, Some(now + self.config.first_word));
    }

    pub(super) fn expire_streams(&mut self, now: Instant) {
        while let Some((time, id)) = self.streams.wakes.first().copied()
            && time <= now
        {
            self.streams.wake(id, None);
            self.look_at_stream(now, id);
        }
    }

    /// A connection's time has come: a request of 2015 that was open is one, or it was silent or slow for too long.
    fn look_at_stream(&mut self, now: Instant, id: StreamId) {
        if self.settle_legacy(now, id) {
            return;
        }
        let Some(stream) = self.streams.get_mut(id) else { return };
        let idle = stream.heard + self.config.idle_connection;
        let until = stream.owes.map_or(idle, |since| idle.min(since + self.config.first_word));
        if now >= until {
            self.close_stream(id);
        } else {
            self.streams.wake(id, Some(until));
        }
    }

    /// A connection is over.
    pub(super) fn forget_stream(&mut self, id: StreamId) {
        let Some(mut stream) = self.streams.remove(id) else { return };
        if let Protocol::Legacy(conversation) = &mut stream.protocol {
            conversation.leave(&mut self.registry);
        }
        if let Some(registration) = stream.registration {
            self.registry.leave(registration, SocketId(id.0));
        }
    }

    pub(super) fn close_stream(&mut self, id: StreamId) {
        if self.streams.get_mut(id).is_some() {
            self.forget_stream(id);
            self.requests.push_back(TcpRequest::Close { stream: id });
        }
    }

    pub(super) fn send_stream(&mut self, stream: StreamId, bytes: &[u8]) {
        self.requests.push_back(TcpRequest::Send { stream, bytes: bytes.to_vec() });
    }

    /// Answers whole messages; how many bytes they had.
    fn handle_frames(&mut self, now: Instant, id: StreamId, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let Some(length) = frame_length(rest) else { return taken };
            let Some(length) = length.filter(|length| *length <= MAX_FRAME && has_cookie(rest)) else {
                self.stats.malformed += 1;
                self.close_stream(id);
                return bytes.len();
            };
            let Some(frame) = rest.get(..length) else { return taken };
            taken += length;
            self.stats.received += 1;
            match Message::parse(frame) {
                Ok(message) => {
                    let Some(Stream { local, remote, .. }) = self.streams.get_mut(id) else { return bytes.len() };
                    let at = At { socket: SocketId(id.0), local: *local, remote: *remote };
                    self.handle_message(now, at, &message);
                }
                Err(_) => self.stats.malformed += 1,
            }
        }
    }

    /// A listener has registered over a connection: it is registered no longer than that.
    pub(super) fn keep_registration(&mut self, at: At, id: RegistrationId) {
        let Some(stream) = stream_of(at.socket).and_then(|stream| self.streams.get_mut(stream)) else { return };
        if let Some(before) = stream.registration.replace(id).filter(|before| *before != id) {
            self.registry.leave(before, at.socket);
        }
    }
}

/// Whether the magic cookie is there, as far as the bytes go: what only looks like STUN is not waited for.
fn has_cookie(bytes: &[u8]) -> bool {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let there = bytes.get(4..bytes.len().min(8)).unwrap_or_default();
    cookie.starts_with(there)
}
