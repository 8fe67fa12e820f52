//! What the sockets bring: datagrams of the peer's own sockets, and the unread messages of connections.
//!
//! A connection's socket is watched until it becomes readable; then its messages are looked at ([`super::peek`]), and it
//! stays watched without a further wake-up until something new comes. Where that is soon it is left alone for [`PAUSE`], so
//! that data, however fast, causes some twenty wake-ups a second at most, and the messages of an idle connection one each.
//! When the pause is over the socket is watched again, which tells at once if anything is unread.
//!
//! Being watched costs a connection that sends: the system tells the watcher of every datagram that has left (100 ns of
//! 2.4 µs, seen on loopback). So one that is busy sending is not watched but looked at once in a pause.

use std::{io, mem, os::fd::AsRawFd as _, time::Duration};

use mio::{Interest, Token, unix::SourceFd};

use super::{
    core::{Core, Source, token_socket},
    fault::{is_loss, would_block},
    peek::Found,
};
use crate::{
    machine::{Instant, Level, SocketId},
    wire::stun::SessionId,
};

/// A connection that was looked at is left alone for so long.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that becomes readable again within this time, two pauses and a little, is busy.
const CALM: Duration = Duration::from_millis(250);

/// A connection this young is not left alone: the peer may still be finishing its checks.
const YOUNG: Duration = Duration::from_secs(1);

/// Datagrams read from one socket before others have their turn.
const BATCH: usize = 64;

impl Core {
    /// Takes in what made a socket readable.
    pub(super) fn handle_ready(&mut self, token: Token) {
        if let Some(socket) = token_socket(token) {
            if self.read_bound(socket) {
                self.unfinished.insert(socket);
            }
            return;
        }
        match self.sources.get(&token) {
            Some(Source::Link(session)) => {
                let session = *session;
                self.look_at(session);
            }
            Some(Source::Port(port)) => {
                let port = *port;
                self.accept_streams(port);
            }
            Some(Source::Stream(stream)) => {
                let stream = *stream;
                self.handle_stream(stream);
            }
            None => {}
        }
    }

    /// Reads a batch from one of the peer's sockets; whether there may be more.
    pub(super) fn read_bound(&mut self, socket: SocketId) -> bool {
        let mut input = mem::take(&mut self.input);
        let mut more = true;
        for _ in 0..BATCH {
            let Some(bound) = self.sockets.get(&socket) else {
                more = false;
                break;
            };
            match bound.receive(&mut input) {
                Ok(received) => {
                    self.handle_datagram(socket, received.local, received.remote, &input[..received.length]);
                }
                Err(error) if would_block(&error) => {
                    more = false;
                    break;
                }
                Err(error) if is_loss(&error) => {}
                Err(error) => {
                    self.log(Level::Warn, || format!("cannot receive: {error}"));
                    more = false;
                    break;
                }
            }
        }
        self.input = input;
        more
    }

    /// Hands the unread messages of a connection to the peer.
    fn look_at(&mut self, session: SessionId) {
        let now = self.clock.now();
        let Some(watched) = self.links.get_mut(&session) else { return };
        let link = watched.link.clone();
        let is_busy = now.saturating_since(mem::replace(&mut watched.look.last, now)) < CALM;
        let mut messages = Vec::new();
        let found = watched.look.look(&link, &mut self.buffer, |from, bytes| messages.push((from, bytes.to_vec())));
        let rests = match found {
            Found::Nothing => false,
            Found::New if link.is_closed() || link.is_leaving() => false,
            Found::New => is_busy && now.saturating_since(watched.since) >= YOUNG,
            Found::Reader => is_busy,
        };
        if rests {
            self.leave_alone(session);
        }
        for (from, message) in messages {
            self.handle_peeked(&link, from, &message);
        }
    }

    /// Does not watch a connection until a pause has passed.
    pub(crate) fn leave_alone(&mut self, session: SessionId) {
        let due = self.clock.now() + PAUSE;
        let Some(watched) = self.links.get_mut(&session) else { return };
        if watched.look.due.is_none() && self.registry.deregister(&mut SourceFd(&watched.link.as_raw_fd())).is_ok() {
            watched.link.set_watched(false);
            watched.look.sends = watched.link.is_sending(0).1;
            watched.look.due = Some(due);
            self.looks.insert((due, session));
        }
    }

    /// Watches the connections again whose pause is over; those that are busy sending are looked at instead.
    pub(super) fn watch_again(&mut self, now: Instant) {
        while let Some(&(due, session)) = self.looks.first()
            && due <= now
        {
            self.looks.pop_first();
            let Some(watched) = self.links.get_mut(&session) else { continue };
            let (is_sending, sends) = watched.link.is_sending(watched.look.sends);
            watched.look.sends = sends;
            let again = if is_sending { Ok(false) } else { self.watch(session).map(|()| true) };
            if let Ok(true) = again {
                continue;
            }
            if let Some(watched) = self.links.get_mut(&session) {
                watched.look.due = Some(now + PAUSE);
                self.looks.insert((now + PAUSE, session));
            }
            match again {
                Ok(_) => self.look_at(session),
                Err(error) => self.log(Level::Warn, || format!("cannot watch a connection: {error}")),
            }
        }
    }

    /// Watches a connection from now on.
    pub(super) fn watch(&mut self, session: SessionId) -> io::Result<()> {
        let Some(watched) = self.links.get_mut(&session) else { return Ok(()) };
        self.registry.register(&mut SourceFd(&watched.link.as_raw_fd()), watched.token, Interest::READABLE)?;
        watched.look.due = None;
        watched.link.set_watched(true);
        Ok(())
    }
}
