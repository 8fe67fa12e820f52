//! The rendezvous server: the sans-IO [`Server`] with real sockets under it.
//!
//! One thread does everything. It sleeps until a socket is readable, a timer of the server is due, or a [`Handle`]
//! wakes it. Then each readable socket in turn gives one batch of datagrams, the server's answers to the batch leave
//! together; each readable TCP connection is read once; and it goes round again until nothing is left: a flooded socket
//! delays the others by a batch and never starves them, and timers are looked at once each round. Memory is bounded: the buffers of one batch, its
//! answers, a few KiB of queues for each TCP connection, and what the server itself bounds ([`ServerConfig`]).
//!
//! Nothing that arrives ends the loop. An answer that cannot be sent is dropped, as the network may do anyway.
//!
//! ```
//! use holepunch::server::{Options, RendezvousServer};
//!
//! let mut options = Options::default();
//! options.host = Some("127.0.0.1".into());
//! options.port = 0; // any free port
//! let server = RendezvousServer::bind(options)?;
//! println!("listening on {}", server.local_addresses()[0]);
//!
//! let handle = server.handle();
//! let thread = std::thread::spawn(move || server.run());
//! handle.stop();
//! thread.join().unwrap()?;
//! # Ok::<(), holepunch::Error>(())
//! ```

mod batch;
mod descriptors;
mod sockets;
mod streams;

pub use descriptors::raise_descriptor_limit;

pub use crate::config::DEFAULT_PUNCH_PORT;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::AsFd as _,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, Instant as SystemInstant},
};

use mio::{Events, Interest, Poll, Token, Waker, net::UdpSocket};

use crate::{
    Error, ErrorKind, Result,
    config::{DEFAULT_SERVER_PORT, ServerConfig},
    machine::{Input, Instant, Level, Output, SocketId, Transmit},
    rendezvous::server::{Server, ServerSocket, ServerStats},
};

use self::streams::{Heard, Streams};

/// The waker's token; a UDP socket's is its index, listeners follow, and a connection's is its number.
const WAKE: Token = Token(usize::MAX);

/// Events taken from the system at a time.
const EVENTS: usize = 1024;

/// Where the server's log lines go.
pub type Log = Box<dyn Fn(Level, &str) + Send>;

/// How a server is to listen.
#[non_exhaustive]
pub struct Options {
    /// The address or host name to listen on, that alone. `None`: every address of this machine, IPv4 and IPv6.
    pub host: Option<String>,
    /// The port; 0 leaves the choice to the system, for the alternate port as well.
    pub port: u16,
    /// Takes TCP connections from this listener, whose address stands for `host` and `port`; it becomes non-blocking.
    ///
    /// UDP is bound beside it and may fail: that goes to the log, and clients of the current protocol come over TCP.
    pub listener: Option<TcpListener>,
    /// The port that peers of 2015 are told to punch from; [`Handle::set_punch_port`] changes it.
    pub punch_port: u16,
    /// What clients are told instead of the server's own address, for a server behind a forwarded port.
    pub advertise: Option<Advertise>,
    /// Limits and times.
    pub config: ServerConfig,
    /// Hears the server's log lines; on the thread of `bind`, then on that of `run`. `None`: they are dropped.
    pub log: Option<Log>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: None,
            port: DEFAULT_SERVER_PORT,
            listener: None,
            punch_port: DEFAULT_PUNCH_PORT,
            advertise: None,
            config: ServerConfig::default(),
            log: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("listener", &self.listener)
            .field("punch_port", &self.punch_port)
            .field("advertise", &self.advertise)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The public address of a server that cannot see it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// The address.
    pub ip: IpAddr,
    /// The port; `None`: the one that the server listens on.
    pub port: Option<u16>,
}

impl FromStr for Advertise {
    type Err = Error;

    /// Parses `A`, `A:P`, `[A6]` or `[A6]:P`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when it is none of these, or an address that no client could use.
    fn from_str(text: &str) -> Result<Self> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let parsed = match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => Self { ip, port: None },
            (Err(_), Ok(address)) => Self { ip: address.ip(), port: Some(address.port()) },
            (Err(_), Err(_)) => {
                return Err(Error::new(ErrorKind::InvalidArgument, format!("{text:?} is no address")).with_hint(
                    "give an IP address, with or without a port: 192.0.2.1, 192.0.2.1:20000 or [2001:db8::1]:20000",
                ));
            }
        };
        if parsed.ip.is_unspecified() || parsed.ip.is_multicast() || parsed.port == Some(0) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("clients cannot reach {text:?}"))
                .with_hint("give the public address of the server"));
        }
        Ok(parsed)
    }
}

impl Advertise {
    /// The address as the server is told it: with the port that it listens on in that family, where none was given.
    fn complete(self, main: &[SocketAddr]) -> Option<SocketAddr> {
        let own = main.iter().find(|own| own.is_ipv4() == self.ip.is_ipv4()).map(SocketAddr::port);
        self.port.or(own).map(|port| SocketAddr::new(self.ip, port))
    }
}

/// What a server and its handles share.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    punch_port: AtomicU16,
    stats: Mutex<ServerStats>,
}

/// Stops a running server and tells what it has done, from any thread. Clones are handles of the same server.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    waker: Arc<Waker>,
}

impl Handle {
    /// Makes [`RendezvousServer::run`] return; also when it is called only later. Does not wait for it.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        // Waking fails only when the poll is gone, and then nothing runs any more.
        let _ = self.waker.wake();
    }

    /// Changes the port that peers of 2015 are told to punch from, for every answer to what comes from now on.
    pub fn set_punch_port(&self, port: u16) {
        self.shared.punch_port.store(port, Ordering::Release);
    }

    /// What the server had done when it last went to sleep.
    pub fn stats(&self) -> ServerStats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rendezvous server that is bound. It answers while [`run`](Self::run) runs.
pub struct RendezvousServer {
    server: Server,
    sockets: Vec<UdpSocket>,
    streams: Streams,
    bound: Vec<SocketAddr>,
    main: Vec<SocketAddr>,
    alternate: Vec<SocketAddr>,
    poll: Poll,
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    log: Log,
    origin: SystemInstant,
}

impl fmt::Debug for RendezvousServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RendezvousServer").field("main", &self.main).finish_non_exhaustive()
    }
}

impl RendezvousServer {
    /// Binds the sockets. From here on requests wait in them.
    ///
    /// An alternate port that is taken, or a family that this machine does not have, goes to the log and is done without.
    ///
    /// # Errors
    /// [`ErrorKind::AddressInUse`] when another program holds the port, [`ErrorKind::InvalidArgument`] when the host is
    /// none of this machine, [`ErrorKind::Io`] when the system refuses otherwise.
    pub fn bind(options: Options) -> Result<Self> {
        let log = options.log.unwrap_or_else(|| Box::new(|_, _| {}));
        let sockets::Bound { sockets, known, listeners } = match options.listener {
            Some(listener) => sockets::bind_beside(listener, &*log)?,
            None => sockets::bind(options.host.as_deref(), options.port, &*log)?,
        };
        let poll = Poll::new().map_err(|error| system("cannot make an event queue", &error))?;
        let waker = Waker::new(poll.registry(), WAKE).map_err(|error| system("cannot make a waker", &error))?;
        let mut sockets: Vec<UdpSocket> = sockets.into_iter().map(UdpSocket::from_std).collect();
        for (index, socket) in sockets.iter_mut().enumerate() {
            poll.registry()
                .register(socket, Token(index), Interest::READABLE)
                .map_err(|error| system("cannot watch a socket", &error))?;
        }
        let streams = Streams::new(listeners, sockets.len(), poll.registry())
            .map_err(|error| system("cannot watch a socket", &error))?;
        // A main socket stands before its alternate, so a number points back only from an alternate.
        let is_alternate = |socket: &ServerSocket| socket.alternate.is_some_and(|other| other < socket.socket);
        let addresses = |alternate: bool| {
            known.iter().filter(|socket| is_alternate(socket) == alternate).map(|socket| socket.local).collect()
        };
        let (main, alternate): (Vec<SocketAddr>, Vec<SocketAddr>) = (addresses(false), addresses(true));
        let bound = known.iter().map(|socket| socket.local).collect();
        let mut config = options.config;
        config.punch_port = options.punch_port;
        if let Some(advertise) = options.advertise {
            let tcp = streams.addresses();
            config.advertise = advertise.complete(if main.is_empty() { &tcp } else { &main });
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| {
            Error::new(ErrorKind::Io, format!("the system gives no random bytes: {error}"))
                .with_os_code(error.raw_os_error())
        })?;
        Ok(Self {
            server: Server::new(config, seed, known),
            sockets,
            streams,
            bound,
            main,
            alternate,
            poll,
            shared: Arc::new(Shared {
                stop: AtomicBool::new(false),
                punch_port: AtomicU16::new(options.punch_port),
                stats: Mutex::default(),
            }),
            waker: Arc::new(waker),
            log,
            origin: SystemInstant::now(),
        })
    }

    /// The addresses it listens on with UDP, IPv4 first; the address part is unspecified where it listens on all.
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.main
    }

    /// The addresses that it takes TCP connections on: those of [`local_addresses`](Self::local_addresses), or that of
    /// [`Options::listener`].
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.streams.addresses()
    }

    /// The addresses that answers come from when a client asks for another port; empty where they could not be bound.
    pub fn alternate_addresses(&self) -> &[SocketAddr] {
        &self.alternate
    }

    /// A handle to stop it, and to see what it does.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared), waker: Arc::clone(&self.waker) }
    }

    /// Answers requests until a [`Handle`] stops it. Blocks; the sockets are closed when it returns.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the system's event queue fails; nothing that arrives can cause that.
    pub fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut receiver = batch::Receiver::new();
        let mut outgoing = Vec::new();
        // Events tell of a change only: a socket stays readable here until a read said that it is empty.
        let mut readable = vec![true; self.sockets.len()];
        let mut wake = self.drain(&mut outgoing);
        self.flush(&mut outgoing);
        while !self.shared.stop.load(Ordering::Acquire) {
            let timeout = if readable.contains(&true) || self.streams.is_busy() {
                Some(Duration::ZERO)
            } else {
                *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.server.stats();
                let of_streams =
                    self.streams.deadline().map(|deadline| deadline.saturating_duration_since(SystemInstant::now()));
                [wake.map(|wake| wake - self.now()), of_streams].into_iter().flatten().min()
            };
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(system("waiting for requests failed", &error)),
            }
            self.server.set_punch_port(self.shared.punch_port.load(Ordering::Acquire));
            for event in &events {
                match readable.get_mut(event.token().0) {
                    Some(readable) => *readable = true,
                    None => self.streams.note(event, self.poll.registry()),
                }
            }
            for (index, readable) in readable.iter_mut().enumerate() {
                if *readable {
                    *readable = self.read_batch(index, &mut receiver, &mut outgoing);
                    wake = self.drain(&mut outgoing);
                    self.flush(&mut outgoing);
                }
            }
            if self.serve_streams() {
                // What came over a connection may be for somebody who is reached by datagrams.
                wake = self.drain(&mut outgoing);
                self.flush(&mut outgoing);
            }
            if wake.is_some_and(|wake| wake <= self.now()) {
                self.server.handle_input(self.now(), Input::Timeout);
                wake = self.drain(&mut outgoing);
                self.flush(&mut outgoing);
            }
        }
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.server.stats();
        self.streams.close();
        Ok(())
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Gives the server one batch of a socket's datagrams; false when the socket has no more.
    fn read_batch(&mut self, index: usize, receiver: &mut batch::Receiver, outgoing: &mut Vec<Transmit>) -> bool {
        let (Some(socket), Some(bound)) = (self.sockets.get(index), self.bound.get(index).copied()) else {
            return false;
        };
        let count = match receiver.receive(socket.as_fd()) {
            Ok(count) => count,
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    (self.log)(Level::Warn, &format!("receiving failed: {error}"));
                }
                return false;
            }
        };
        let now = self.now();
        for datagram in (0..count).filter_map(|index| receiver.datagram(index)) {
            let local = SocketAddr::new(datagram.local.unwrap_or(bound.ip()), bound.port());
            let socket = SocketId(u32::try_from(index).unwrap_or(u32::MAX));
            let input = Input::Datagram { socket, local, remote: datagram.remote, payload: datagram.payload };
            self.server.handle_input(now, input);
            self.drain(outgoing);
        }
        // Also after a batch that has emptied the socket: a client that was answered may have asked again already, and looking
        // is cheaper than going to sleep and being woken.
        true
    }

    /// Accepts who waits, and reads once from each connection that has something; whether there was any.
    fn serve_streams(&mut self) -> bool {
        if let Some(deadline) = self.streams.deadline()
            && deadline <= SystemInstant::now()
        {
            self.streams.expire(SystemInstant::now());
        }
        if !self.streams.is_busy() {
            return false;
        }
        let now = self.now();
        for index in 0..self.streams.listeners() {
            for _ in 0..streams::ACCEPTS {
                match self.streams.accept(index, self.poll.registry()) {
                    Some(Ok(heard)) => self.hear(now, heard),
                    Some(Err(error)) => (self.log)(Level::Warn, &format!("accepting a connection failed: {error}")),
                    None => break,
                }
            }
        }
        for _ in 0..self.streams.readable() {
            if let Some(heard) = self.streams.read() {
                self.hear(now, heard);
            }
        }
        true
    }

    /// Tells the server what a connection brings.
    fn hear(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Accepted { port, stream, local, remote } => {
                self.server.handle_input(now, Input::TcpAccepted { port, stream, local, remote });
            }
            Heard::Data { stream, length } => {
                let taken = self.server.handle_stream_data(now, stream, self.streams.bytes(stream, length));
                self.streams.keep(stream, taken, length);
            }
            Heard::Ended(stream) => self.server.handle_stream_end(now, stream),
            Heard::Failed(stream) => self.server.handle_input(now, Input::TcpFailed { stream, at_once: false }),
        }
        self.answer_streams();
    }

    /// Does at once what the server asks of its connections; datagrams wait for the end of the round.
    fn answer_streams(&mut self) {
        while let Some(request) = self.server.poll_stream_request() {
            self.streams.request(request, self.poll.registry());
        }
    }

    /// Takes out all that the server wants, and the time at which it wants to be called again.
    fn drain(&mut self, outgoing: &mut Vec<Transmit>) -> Option<Instant> {
        loop {
            match self.server.poll_output() {
                Output::Transmit(transmit) => outgoing.push(transmit),
                Output::Log(level, text) => (self.log)(level, &text),
                Output::Event(event) => (self.log)(Level::Info, &format!("{event:?}")),
                Output::Udp(_) => {} // A server never asks for sockets.
                Output::Tcp(request) => self.streams.request(request, self.poll.registry()),
                Output::Timeout(wake, _) => return wake,
            }
        }
    }

    /// Sends what has gathered, each socket's datagrams together and in their order.
    fn flush(&self, outgoing: &mut Vec<Transmit>) {
        if outgoing.is_empty() {
            return;
        }
        outgoing.sort_by_key(|transmit| transmit.socket);
        for group in outgoing.chunk_by(|a, b| a.socket == b.socket) {
            let index = group.first().and_then(|transmit| usize::try_from(transmit.socket.0).ok());
            if let Some(index) = index
                && let (Some(socket), Some(bound)) = (self.sockets.get(index), self.bound.get(index))
            {
                batch::send(socket.as_fd(), group, bound.ip().is_unspecified());
            }
        }
        outgoing.clear();
    }
}

fn system(what: &'static str, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{what}: {error}")).with_os_code(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertised_addresses_are_parsed_and_judged() {
        let parse = |text: &str| text.parse::<Advertise>();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (text, address, port) in [
            ("192.0.2.1", "192.0.2.1", None),
            ("192.0.2.1:5", "192.0.2.1", Some(5)),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:5", "2001:db8::1", Some(5)),
        ] {
            assert_eq!(parse(text), Ok(Advertise { ip: ip(address), port }));
        }
        for text in
            ["", "example.org", "192.0.2.1:", "192.0.2.1:70000", "0.0.0.0", "[::]:1", "224.0.0.1", "192.0.2.1:0"]
        {
            assert_eq!(parse(text).unwrap_err().kind(), ErrorKind::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn an_advertised_address_gets_the_port_of_its_family() {
        let main = ["0.0.0.0:5", "[::]:6"].map(|text| text.parse().unwrap());
        let complete = |text: &str, main: &[SocketAddr]| {
            text.parse::<Advertise>().unwrap().complete(main).map(|address| address.to_string())
        };
        assert_eq!(complete("192.0.2.1", &main).as_deref(), Some("192.0.2.1:5"));
        assert_eq!(complete("2001:db8::1", &main).as_deref(), Some("[2001:db8::1]:6"));
        assert_eq!(complete("192.0.2.1:7", &main).as_deref(), Some("192.0.2.1:7"));
        assert_eq!(complete("2001:db8::1", &main[..1]), None, "nothing is listened on in that family");
    }
}
