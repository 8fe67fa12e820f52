//! Finding out what a server speaks, without harm to one that is old.
//!
//! A second TCP connection is poison to a server of 2015 (it may introduce a client that never spoke), and so are bytes
//! that it does not know. So there is one connection, on which nothing is sent before the verdict, and beside it a STUN
//! Binding request over UDP, repeated against loss. Both leave at once:
//!
//! - The request is answered, at the latest one round trip after the TCP handshake (its own, within 20 to 300 ms): the
//!   server is current. TCP is closed unused.
//! - It is not, or the host refuses it: the connection is there for the text protocol.
//! - TCP fails: a request that is answered within the second that follows makes the server current all the same.
//!
//! Never both.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::Socket;

use crate::{
    Result,
    io::{
        Wait,
        plain::{Interest, Turn, as_uninit, begin, bind_error, datagram_socket, drain, os_error, random},
    },
    wire::stun::{Builder, Class, Message, Method, TransactionId},
};

/// How long after the handshake an answer is waited for: one round trip, but not less or more than this.
const SHORTEST_WINDOW: Duration = Duration::from_millis(20);
const LONGEST_WINDOW: Duration = Duration::from_millis(300);

/// How long after a failed connect an answer is waited for: five requests.
const WITHOUT_TCP: Duration = Duration::from_secs(1);

/// The request is sent again after so long, then after twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A server that said nothing for so long is silent, over UDP.
const SILENT: Duration = Duration::from_secs(5);

/// What a server speaks.
#[derive(Debug)]
pub enum Verdict {
    /// The current protocol, over UDP; there is no connection.
    Current,
    /// The text protocol of 2015, on this connection, on which nothing was sent.
    Text(TcpStream),
}

/// Asks a server what it speaks; `bind` is the local address to ask from.
///
/// # Errors
/// [`ServerUnreachable`](crate::ErrorKind::ServerUnreachable) with the system's number when TCP fails and UDP is silent;
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for an address that cannot be bound;
/// [`Timeout`](crate::ErrorKind::Timeout) and [`Cancelled`](crate::ErrorKind::Cancelled) as the wait says;
/// [`Io`](crate::ErrorKind::Io).
pub fn decide(server: SocketAddr, bind: Option<IpAddr>, wait: &Wait) -> Result<Verdict> {
    let turn = Turn::begin(wait, format!("asking the server {server}"));
    turn.check()?;
    let mut question = Question::new(server, bind)?;
    let start = Instant::now();
    let tcp = super::server::bound(server, bind)?;
    let mut connection = match begin(&tcp, server) {
        Ok(()) => Connection::Pending,
        Err(error) => Connection::Failed(error, start),
    };
    loop {
        question.repeat();
        let until = match &connection {
            _ if question.answered => {
                // Bytes that were not read would make the end a reset.
                drain(&tcp);
                return Ok(Verdict::Current);
            }
            Connection::Pending => None,
            Connection::Open(end) if question.is_open() && Instant::now() < *end => Some(*end),
            Connection::Open(_) => return super::server::given(tcp).map(Verdict::Text),
            Connection::Failed(_, at) if question.is_open() && at.elapsed() < WITHOUT_TCP => Some(*at + WITHOUT_TCP),
            Connection::Failed(error, _) => return Err(super::server::unreachable(server, error)),
        };
        let until = [until, question.next].into_iter().flatten().min();
        let pending = matches!(connection, Connection::Pending);
        let interests: Vec<_> = [
            question.socket.as_ref().map(|socket| Interest::Readable(socket)),
            pending.then_some(Interest::Writable(&tcp)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let ready = turn.ready(&interests, until)?;
        if ready == Some(0) && question.is_open() {
            question.look();
        } else if ready.is_some() && pending {
            let now = Instant::now();
            connection = match tcp.take_error() {
                Ok(None) => {
                    // The last request whose answer can come in time.
                    question.next = Some(now);
                    Connection::Open(now + (now - start).clamp(SHORTEST_WINDOW, LONGEST_WINDOW))
                }
                Ok(Some(error)) | Err(error) => Connection::Failed(error, now),
            };
        }
    }
}

enum Connection {
    Pending,
    /// Until when UDP may still be answered.
    Open(Instant),
    /// Why, and when.
    Failed(io::Error, Instant),
}

/// The request over UDP.
struct Question {
    /// `None` once it is known that nobody will answer.
    socket: Option<Socket>,
    transaction: TransactionId,
    begun: Instant,
    next: Option<Instant>,
    pause: Duration,
    answered: bool,
}

impl Question {
    fn new(server: SocketAddr, bind: Option<IpAddr>) -> Result<Self> {
        let failed = |error: io::Error| os_error("cannot make a socket", &error);
        let socket = datagram_socket(server).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        if let Some(ip) = bind {
            let local = SocketAddr::new(ip, 0);
            socket.bind(&local.into()).map_err(|error| bind_error("UDP", local, &error))?;
        }
        let transaction = TransactionId(random()?.bytes());
        let begun = Instant::now();
        // A server that has no route has none for TCP either, which tells.
        let socket = socket.connect(&server.into()).is_ok().then_some(socket);
        Ok(Self { socket, transaction, begun, next: Some(begun), pause: FIRST_PAUSE, answered: false })
    }

    /// Whether an answer may still come.
    fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends the request where it is due.
    fn repeat(&mut self) {
        let now = Instant::now();
        let Some(socket) = self.socket.as_ref().filter(|_| self.next.is_some_and(|next| next <= now)) else { return };
        let request = Builder::new(Class::Request, Method::BINDING, self.transaction).fingerprint().finish();
        if socket.send(&request).is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED)) {
            self.give_up();
            return;
        }
        self.next = Some(now + self.pause).filter(|next| *next < self.begun + SILENT);
        self.pause = LONGEST_PAUSE.min(2 * self.pause);
    }

    /// Reads what has come. A host that refuses (ICMP port unreachable) has no server on the port.
    fn look(&mut self) {
        let mut buffer = [0; 1500];
        let Some(socket) = &self.socket else { return };
        match socket.recv_with_flags(as_uninit(&mut buffer), libc::MSG_DONTWAIT) {
            Ok(length) => {
                let answer = Message::parse(buffer.get(..length).unwrap_or_default());
                self.answered |= answer.is_ok_and(|answer| {
                    answer.class() == Class::Success
                        && answer.method() == Method::BINDING
                        && answer.transaction_id() == self.transaction
                });
            }
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => self.give_up(),
            // Nothing after all, or what the network said of one request of several.
            Err(_) => {}
        }
    }

    fn give_up(&mut self) {
        self.socket = None;
        self.next = None;
    }
}
