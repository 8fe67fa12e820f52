//! The server's TCP connections: accepting, reading, writing and leaving.
//!
//! Nothing blocks and nobody is preferred. A wake-up accepts so many, and reads from each readable connection once;
//! whoever has more is read again in the next round. What the server answers is written at once, in its order, so an
//! answer is one segment; what the other side does not take is queued, and one that takes nothing is dropped. When
//! descriptors run out, accepting rests until one is free, and the backlog waits.
//!
//! A connection is left with FIN: what has come is read first, for closing over unread bytes sends RST, which throws
//! away an answer that is under way and was the death of servers and clients of 2015.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    time::{Duration, Instant as SystemInstant},
};

use mio::{
    Interest, Registry, Token,
    event::Event,
    net::{TcpListener, TcpStream},
};

use crate::machine::{PortId, StreamId, TcpRequest};

/// Connections accepted from one listener in one round.
pub(super) const ACCEPTS: usize = 64;

/// Bytes read from one connection in one round.
const READ: usize = 16 << 10;

/// Bytes that wait for a client to take them, at most.
const MAX_OUTGOING: usize = 64 << 10;

/// Bytes that the server has not taken, at most: its longest message is shorter.
const MAX_INCOMING: usize = 4 << 10;

/// How long accepting rests when the system has no descriptor or memory left, unless one becomes free.
const REST: Duration = Duration::from_millis(100);

/// The operator is told at most so often that accepting fails.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a connection that is closed may still bring what was under way.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes read from each connection before it is closed at the end of the server.
const LAST_READ: usize = 64 << 10;

/// What a connection has to say to the server.
pub(super) enum Heard {
    Accepted {
        port: PortId,
        stream: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// So many bytes were read, which [`Streams::bytes`] has.
    Data {
        stream: StreamId,
        length: usize,
    },
    Ended(StreamId),
    Failed(StreamId),
}

struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    /// Whether somebody may wait.
    is_ready: bool,
}

struct Connection {
    socket: TcpStream,
    /// What the server has not taken yet.
    incoming: Vec<u8>,
    /// What the other side has not taken yet.
    outgoing: Vec<u8>,
    /// Whether it stands in the queue of those to be read.
    is_ready: bool,
    /// Whether the system told of its end, so that reading goes on until that is read.
    is_ending: bool,
    /// Whether its end was read.
    has_ended: bool,
    /// Whether the server is done with it.
    is_leaving: bool,
    watches_writing: bool,
}

/// All listeners and connections.
pub(super) struct Streams {
    listeners: Vec<Listener>,
    first_token: usize,
    connections: HashMap<StreamId, Connection>,
    ready: VecDeque<StreamId>,
    /// Those that have been left, the earliest first.
    leaving: VecDeque<(SystemInstant, StreamId)>,
    /// Those that failed while being written to.
    failed: Vec<StreamId>,
    rests_until: Option<SystemInstant>,
    /// When the operator was last told.
    told: Option<SystemInstant>,
    next: u32,
    buffer: Vec<u8>,
}

impl Streams {
    /// Watches listeners under tokens from `first_token` on; connections have the tokens of their numbers.
    pub(super) fn new(
        listeners: Vec<(std::net::TcpListener, SocketAddr)>,
        first_token: usize,
        registry: &Registry,
    ) -> io::Result<Self> {
        let mut streams = Self {
            listeners: Vec::new(),
            first_token,
            connections: HashMap::new(),
            ready: VecDeque::new(),
            leaving: VecDeque::new(),
            failed: Vec::new(),
            rests_until: None,
            told: None,
            next: StreamId::FIRST_ACCEPTED,
            buffer: vec![0; READ],
        };
        for (index, (listener, local)) in listeners.into_iter().enumerate() {
            let mut socket = TcpListener::from_std(listener);
            registry.register(&mut socket, Token(first_token + index), Interest::READABLE)?;
            streams.listeners.push(Listener { socket, local, is_ready: true });
        }
        Ok(streams)
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.local).collect()
    }

    /// Notes an event of a listener or a connection; what it means is found out by [`Streams::accept`] and
    /// [`Streams::read`].
    pub(super) fn note(&mut self, event: &Event, registry: &Registry) {
        let Token(token) = event.token();
        let listener = token.checked_sub(self.first_token).and_then(|index| self.listeners.get_mut(index));
        if let Some(listener) = listener {
            listener.is_ready = true;
            return;
        }
        let Ok(id) = u32::try_from(token).map(StreamId) else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.is_ending |= event.is_read_closed() || event.is_error();
        if (event.is_readable() || connection.is_ending) && !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(id);
        }
        if event.is_writable() {
            self.flush(id, registry);
        }
    }

    /// Whether there is something to do without waiting for an event.
    pub(super) fn is_busy(&self) -> bool {
        let accepts = self.rests_until.is_none() && self.listeners.iter().any(|listener| listener.is_ready);
        accepts || !self.ready.is_empty() || !self.failed.is_empty()
    }

    /// When there is something to do though nothing happens.
    pub(super) fn deadline(&self) -> Option<SystemInstant> {
        let leaves = self.leaving.front().map(|(deadline, _)| *deadline);
        [self.rests_until, leaves].into_iter().flatten().min()
    }

    /// Ends the rest and the connections whose time has come.
    pub(super) fn expire(&mut self, now: SystemInstant) {
        self.rests_until = self.rests_until.filter(|until| now < *until);
        while let Some((deadline, id)) = self.leaving.front().copied()
            && deadline <= now
        {
            self.leaving.pop_front();
            // The number may be another's by now only after 2^31 connections within seconds.
            if self.connections.get(&id).is_some_and(|connection| connection.is_leaving) {
                self.drop(id);
            }
        }
    }

    /// Accepts the next connection of a listener; `None` when there is none or accepting rests. Says
    /// what failed, now and then.
    pub(super) fn accept(&mut self, index: usize, registry: &Registry) -> Option<io::Result<Heard>> {
        let listener = self.listeners.get_mut(index).filter(|listener| listener.is_ready)?;
        if self.rests_until.is_some() {
            return None;
        }
        let (mut socket, remote) = match listener.socket.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                let kind = error.kind();
                if kind == ErrorKind::WouldBlock {
                    listener.is_ready = false;
                    return None;
                }
                // With these, who wanted to connect has thought better of it; everything else lasts a while.
                if matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted) {
                    return None;
                }
                return self.rest().then_some(Err(error));
            }
        };
        let local = if listener.local.ip().is_unspecified() { socket.local_addr().ok() } else { None }
            .unwrap_or(listener.local);
        let stream = self.number();
        // usize has at least 32 bits where sockets are.
        let token = Token(stream.0 as usize);
        if let Err(error) = registry.register(&mut socket, token, Interest::READABLE) {
            return self.rest().then_some(Err(error));
        }
        let connection = Connection {
            socket,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            is_ready: false,
            is_ending: false,
            has_ended: false,
            is_leaving: false,
            watches_writing: false,
        };
        self.connections.insert(stream, connection);
        let port = PortId(u32::try_from(index).unwrap_or(u32::MAX));
        Some(Ok(Heard::Accepted { port, stream, local, remote }))
    }

    /// Accepts nobody for a while, and says whether the operator is to be told.
    fn rest(&mut self) -> bool {
        let now = SystemInstant::now();
        self.rests_until = Some(now + REST);
        let is_news = self.told.is_none_or(|told| now.duration_since(told) >= SILENCE);
        if is_news {
            self.told = Some(now);
        }
        is_news
    }

    pub(super) fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// A number that no connection has.
    fn number(&mut self) -> StreamId {
        loop {
            let id = StreamId(self.next);
            // The last number is the waker's token on systems of 32 bits.
            self.next = if self.next >= u32::MAX - 1 { StreamId::FIRST_ACCEPTED } else { self.next + 1 };
            if !self.connections.contains_key(&id) {
                return id;
            }
        }
    }

    /// How many connections are to be read in this round, or have failed.
    pub(super) fn readable(&self) -> usize {
        self.ready.len() + self.failed.len()
    }

    /// Reads the next connection once.
    pub(super) fn read(&mut self) -> Option<Heard> {
        if let Some(stream) = self.failed.pop() {
            self.drop(stream);
            return Some(Heard::Failed(stream));
        }
        let id = self.ready.pop_front()?;
        let connection = self.connections.get_mut(&id)?;
        connection.is_ready = false;
        let length = match connection.socket.read(&mut self.buffer) {
            Ok(0) => {
                connection.has_ended = true;
                if connection.is_leaving {
                    self.drop(id);
                    return None;
                }
                return Some(Heard::Ended(id));
            }
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(_) => {
                let was_leaving = connection.is_leaving;
                self.drop(id);
                return (!was_leaving).then_some(Heard::Failed(id));
            }
        };
        // A read that did not fill the buffer has emptied the socket; what comes later is told by an event of its own.
        if length == self.buffer.len() || length == 0 || connection.is_ending {
            connection.is_ready = true;
            self.ready.push_back(id);
        }
        if connection.is_leaving || length == 0 {
            return None;
        }
        if !connection.incoming.is_empty() {
            connection.incoming.extend_from_slice(self.buffer.get(..length).unwrap_or_default());
        }
        Some(Heard::Data { stream: id, length })
    }

    /// What was read last, after what the server had not taken before.
    pub(super) fn bytes(&self, id: StreamId, length: usize) -> &[u8] {
        match self.connections.get(&id) {
            Some(connection) if !connection.incoming.is_empty() => &connection.incoming,
            _ => self.buffer.get(..length).unwrap_or_default(),
        }
    }

    /// Keeps what the server has not taken of what was read last, and says whether that was possible.
    pub(super) fn keep(&mut self, id: StreamId, taken: usize, length: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.incoming.is_empty() {
            let rest = self.buffer.get(taken..length).unwrap_or_default();
            connection.incoming.extend_from_slice(rest);
        } else {
            connection.incoming.drain(..taken.min(connection.incoming.len()));
            if connection.incoming.is_empty() {
                connection.incoming = Vec::new();
            }
        }
        if connection.incoming.len() > MAX_INCOMING {
            self.failed.push(id);
        }
    }

    /// Does what the server asks for.
    pub(super) fn request(&mut self, request: TcpRequest, registry: &Registry) {
        match request {
            TcpRequest::Send { stream, bytes } => self.send(stream, &bytes, registry),
            TcpRequest::Close { stream } | TcpRequest::Abort { stream } => self.leave(stream),
            // A server never asks for these.
            TcpRequest::Reserve { .. }
            | TcpRequest::Listen { .. }
            | TcpRequest::Connect { .. }
            | TcpRequest::Release { .. } => {}
        }
    }

    fn send(&mut self, id: StreamId, bytes: &[u8], registry: &Registry) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.outgoing.is_empty() {
            if connection.outgoing.len() + bytes.len() > MAX_OUTGOING {
                self.failed.push(id);
            } else {
                connection.outgoing.extend_from_slice(bytes);
            }
            return;
        }
        match write(&mut connection.socket, bytes) {
            Ok(written) => {
                let rest = bytes.get(written..).unwrap_or_default();
                if !rest.is_empty() {
                    connection.outgoing.extend_from_slice(rest);
                    self.watch(id, true, registry);
                }
            }
            Err(_) => self.failed.push(id),
        }
    }

    /// Writes what waits.
    fn flush(&mut self, id: StreamId, registry: &Registry) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.outgoing.is_empty() {
            return;
        }
        match write(&mut connection.socket, &connection.outgoing) {
            Ok(written) => {
                connection.outgoing.drain(..written);
                if connection.outgoing.is_empty() {
                    connection.outgoing = Vec::new();
                    let is_leaving = connection.is_leaving;
                    self.watch(id, false, registry);
                    if is_leaving {
                        self.shut(id);
                    }
                }
            }
            Err(_) => self.failed.push(id),
        }
    }

    fn watch(&mut self, id: StreamId, writing: bool, registry: &Registry) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.watches_writing == writing {
            return;
        }
        let interest = if writing { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        match registry.reregister(&mut connection.socket, Token(id.0 as usize), interest) {
            Ok(()) => connection.watches_writing = writing,
            Err(_) => self.failed.push(id),
        }
    }

    fn leave(&mut self, id: StreamId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.is_leaving) else {
            return;
        };
        connection.is_leaving = true;
        connection.incoming = Vec::new();
        let has_more = !connection.outgoing.is_empty();
        if !has_more {
            self.shut(id);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            self.leaving.push_back((SystemInstant::now() + LINGER, id));
            // What was not read yet is read now, for no event tells of it again.
            if !connection.is_ready && !connection.has_ended {
                connection.is_ready = true;
                self.ready.push_back(id);
            }
        }
    }

    /// Nothing more is to be written: ends our side, and all of it if the other has ended.
    fn shut(&mut self, id: StreamId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.has_ended || connection.socket.shutdown(Shutdown::Write).is_err() {
            self.drop(id);
        }
    }

    fn drop(&mut self, id: StreamId) {
        if let Entry::Occupied(connection) = self.connections.entry(id) {
            connection.remove();
            // A descriptor is free.
            self.rests_until = None;
        }
    }

    /// Leaves everybody, for the server ends.
    pub(super) fn close(mut self) {
        for listener in self.listeners.drain(..) {
            drop(listener);
        }
        for (_, mut connection) in self.connections.drain() {
            // Whoever does not get this has had its answer, or will see the end.
            let _ = write(&mut connection.socket, &connection.outgoing);
            let _ = connection.socket.shutdown(Shutdown::Write);
            let mut read = 0;
            while let Ok(length @ 1..) = connection.socket.read(&mut self.buffer)
                && read < LAST_READ
            {
                read += length;
            }
        }
    }
}

/// Writes as much as the system takes.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..)
        && !rest.is_empty()
    {
        match socket.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => written += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
