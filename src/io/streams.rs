//! What the peer wants of TCP, done; and what the sockets of its ports and connections bring.
//!
//! Bytes are shown to the peer before they are taken from the system, and only as many as are its own are taken: so a
//! connection that becomes the program's has lost nothing, and holds nothing of ours. The moment it does
//! ([`PeerEvent::Connected`](crate::peer::PeerEvent)) it leaves the core.

use std::{
    net::SocketAddr,
    os::fd::AsRawFd as _,
    sync::{Arc, Weak},
};

use mio::{Interest, Token, unix::SourceFd};
use socket2::Socket;

use super::{
    core::{Core, Pending, Source},
    fault::{interrupted, is_refusal, os_error, would_block},
    stream::StreamLink,
    tcp::{self, Attempt, Tcp},
};
use crate::{
    Error, ErrorKind, Result,
    machine::{Input, Level, PortId, StreamId, TcpRequest},
    peer::Path,
    wire::stun::SessionId,
};

/// What is shown of a connection at once; the peer's largest message is smaller.
const SHOWN: usize = 2048;

/// Connections accepted at one readiness; the rest at the next.
const ACCEPTED: usize = 32;

/// A reserved port.
pub(super) struct Port {
    socket: Socket,
    token: Token,
    local: SocketAddr,
}

/// A connection in the peer's hands.
pub(super) struct Connection {
    tcp: Tcp,
    token: Token,
}

impl Core {
    pub(super) fn handle_tcp(&mut self, request: TcpRequest) {
        match request {
            TcpRequest::Reserve { port, address } => {
                let input = match self.reserve(port, address) {
                    Ok(local) => Pending::Reserved { port, local },
                    Err(error) => Pending::ReserveFailed { port, error },
                };
                self.pending.push_back(input);
            }
            TcpRequest::Listen { port } => {
                let listening = self.ports.get(&port).map(|port| (tcp::listen(&port.socket), port));
                let watched = listening.map(|(listening, port)| {
                    listening?;
                    self.registry.register(&mut SourceFd(&port.socket.as_raw_fd()), port.token, Interest::READABLE)
                });
                match watched {
                    Some(Ok(())) | None => {}
                    Some(Err(error)) => self.log(Level::Debug, || format!("cannot listen beside connecting: {error}")),
                }
            }
            TcpRequest::Connect { port, stream, remote } => {
                if let Err(error) = self.connect_tcp(port, stream, remote) {
                    self.log(Level::Debug, || format!("cannot connect to {remote}: {error}"));
                    // On loopback the other side's refusal may be there before the call returns.
                    let at_once = !is_refusal(&error);
                    self.pending.push_back(Pending::StreamFailed { stream, at_once });
                }
            }
            TcpRequest::Send { stream, bytes } => {
                if let Some(connection) = self.tcp.get_mut(&stream)
                    && connection.tcp.send(&bytes).is_err()
                {
                    self.forget_stream(stream);
                    self.pending.push_back(Pending::StreamFailed { stream, at_once: false });
                }
            }
            TcpRequest::Close { stream } => {
                if let Some(connection) = self.forget_stream(stream) {
                    connection.close();
                }
            }
            TcpRequest::Abort { stream } => {
                if let Some(connection) = self.forget_stream(stream) {
                    connection.abort();
                }
            }
            TcpRequest::Release { port } => {
                if let Some(port) = self.ports.remove(&port) {
                    self.sources.remove(&port.token);
                }
            }
        }
    }

    fn reserve(&mut self, id: PortId, address: SocketAddr) -> Result<SocketAddr> {
        let (socket, local) = tcp::reserve(address)?;
        let token = self.token();
        self.sources.insert(token, Source::Port(id));
        self.ports.insert(id, Port { socket, token, local });
        Ok(local)
    }

    fn connect_tcp(&mut self, port: PortId, stream: StreamId, remote: SocketAddr) -> std::io::Result<()> {
        let Some(port) = self.ports.get(&port) else { return Err(std::io::ErrorKind::NotFound.into()) };
        let socket = tcp::connect(port.local, remote)?;
        self.watch_stream(stream, Tcp::connecting(socket))
    }

    /// Watches a connection. What is there already is told at once.
    fn watch_stream(&mut self, stream: StreamId, tcp: Tcp) -> std::io::Result<()> {
        let token = self.token();
        self.registry.register(&mut SourceFd(&tcp.as_raw_fd()), token, Interest::READABLE.add(Interest::WRITABLE))?;
        self.sources.insert(token, Source::Stream(stream));
        self.tcp.insert(stream, Connection { tcp, token });
        Ok(())
    }

    /// A connection is the peer's no more.
    fn forget_stream(&mut self, stream: StreamId) -> Option<Tcp> {
        let Connection { tcp, token } = self.tcp.remove(&stream)?;
        self.sources.remove(&token);
        // It fails only where it is closed already.
        let _ = self.registry.deregister(&mut SourceFd(&tcp.as_raw_fd()));
        Some(tcp)
    }

    /// Accepts who has connected to a port.
    pub(super) fn accept_streams(&mut self, id: PortId) {
        for _ in 0..ACCEPTED {
            let Some(port) = self.ports.get(&id) else { return };
            let (socket, local, remote) = match tcp::accept(&port.socket) {
                Ok(accepted) => accepted,
                Err(error) if would_block(&error) => return,
                // Whoever it was has gone already.
                Err(error) if interrupted(&error) || error.raw_os_error() == Some(libc::ECONNABORTED) => continue,
                Err(error) => return self.log(Level::Warn, || format!("cannot accept: {error}")),
            };
            let stream = StreamId(StreamId::FIRST_ACCEPTED | self.next_accepted);
            self.next_accepted = (self.next_accepted + 1) % StreamId::FIRST_ACCEPTED;
            if let Err(error) = self.watch_stream(stream, Tcp::open(socket)) {
                return self.log(Level::Warn, || format!("cannot watch a connection: {error}"));
            }
            self.peer.handle_input(self.clock.now(), Input::TcpAccepted { port: id, stream, local, remote });
            self.drain();
        }
        // Watching anew tells of what is left.
        if let Some(port) = self.ports.get(&id) {
            let _ = self.registry.reregister(&mut SourceFd(&port.socket.as_raw_fd()), port.token, Interest::READABLE);
        }
    }

    /// Takes in what became of a connection: it is there, or broken, or has brought something.
    pub(super) fn handle_stream(&mut self, stream: StreamId) {
        let Some(connection) = self.tcp.get_mut(&stream) else { return };
        match connection.tcp.attempt() {
            Attempt::Pending => return,
            Attempt::Failed => return self.stream_failed(stream),
            Attempt::Open => {}
            Attempt::Connected(local) => {
                self.peer.handle_input(self.clock.now(), Input::TcpConnected { stream, local });
                self.drain();
            }
        }
        self.exchange(stream);
    }

    /// Sends what waits to be sent, and shows the peer what came.
    fn exchange(&mut self, stream: StreamId) {
        let mut shown = [0; SHOWN];
        loop {
            let Some(connection) = self.tcp.get_mut(&stream) else { return };
            if connection.tcp.flush().is_err() {
                return self.stream_failed(stream);
            }
            let length = match connection.tcp.peek(&mut shown) {
                Ok(0) => return self.stream_failed(stream),
                Ok(length) => length,
                Err(error) if would_block(&error) => return,
                Err(error) if interrupted(&error) => continue,
                Err(_) => return self.stream_failed(stream),
            };
            let bytes = shown.get(..length).unwrap_or_default();
            let taken = self.peer.handle_stream_data(self.clock.now(), stream, bytes);
            // Before the outputs, which may give the connection away.
            let rest = self.tcp.get_mut(&stream).map(|connection| connection.tcp.take(taken));
            self.drain();
            match rest {
                Some(Ok(())) if taken > 0 => {}
                // The rest comes again when more is there.
                Some(Ok(())) | None => return,
                Some(Err(_)) => return self.stream_failed(stream),
            }
        }
    }

    fn stream_failed(&mut self, stream: StreamId) {
        if self.forget_stream(stream).is_some() {
            self.peer.handle_input(self.clock.now(), Input::TcpFailed { stream, at_once: false });
            self.drain();
        }
    }

    /// Takes a connection out of the peer's hands.
    pub(super) fn give_stream(&mut self, session: SessionId, stream: StreamId, path: Path) -> Result<Arc<StreamLink>> {
        let failed = |error| os_error(format!("cannot use the connection to {}", path.remote), &error);
        let socket = self.forget_stream(stream).and_then(Tcp::into_socket);
        let socket = socket.ok_or_else(|| Error::new(ErrorKind::Lost, "the connection broke while it was made"))?;
        let link = Arc::new(StreamLink::new(session, path, socket).map_err(failed)?);
        self.streams.retain(|_, link| link.strong_count() > 0);
        self.streams.insert(session, Arc::downgrade(&link));
        Ok(link)
    }

    /// The program closes a stream, or takes its socket.
    pub(crate) fn forget_link(&mut self, link: &StreamLink) {
        self.streams.remove(&link.session);
    }

    /// Closes the program's streams.
    pub(super) fn close_streams(&mut self) {
        for link in std::mem::take(&mut self.streams).into_values().filter_map(|link| Weak::upgrade(&link)) {
            link.close();
        }
    }
}
