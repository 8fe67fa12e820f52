//! What a [`Peer`](super::Peer) is asked for, and what it tells.

use alloc::{string::String, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

pub use crate::rendezvous::ServerAddress;
use crate::{
    Error, ErrorKind,
    address::canonical_ip,
    machine::{SocketId, StreamId},
    punch::{CandidateKind, Role},
    rendezvous::keys::Secret,
    wire::{
        sdp,
        stun::{Name, SessionId, Transports},
    },
};

/// A listener of a [`Peer`](super::Peer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// Whom to connect to: an IP literal is an address, everything else a name. Names are never resolved by DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The listener that registered this name.
    Name(Name),
    /// The unnamed listener that the server sees at this public address.
    Address(IpAddr),
}

impl FromStr for Target {
    type Err = Error;

    /// Parses an IP literal or a name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when it is neither.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Address(canonical_ip(ip)));
        }
        parse_name(text).map(Self::Name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "\"{name}\""),
            Self::Address(ip) => ip.fmt(f),
        }
    }
}

/// Parses a listener's name. An IP literal is none: nobody could connect to it by that name.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] says what is wrong with it.
pub fn parse_name(text: &str) -> Result<Name, Error> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(Error::new(ErrorKind::InvalidArgument, alloc::format!("{text:?} is an IP address, and no name"))
            .with_hint("choose a name with a letter in it; without a name the listener is found by its address"));
    }
    Name::new(text).map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, alloc::format!("{text:?} is no name: {error}"))
            .with_hint("names are 1 to 64 characters of a-z, 0-9, '.', '_' and '-'")
    })
}

/// What a connection carries its data over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams over UDP.
    Udp,
    /// A stream over TCP.
    Tcp,
}

impl Transport {
    /// The stable name, as in the command line's events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// The same as what is offered or wanted on the wire.
    pub(crate) const fn only(self) -> Transports {
        Transports { udp: matches!(self, Self::Udp), tcp: matches!(self, Self::Tcp) }
    }
}

/// What a path is made of, on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// A UDP socket, which may be shared with other sessions.
    Socket(SocketId),
    /// A TCP connection. It is the application's from now on: what is unread of it is data, and the peer machine
    /// knows it no more.
    Stream(StreamId),
}

impl Carrier {
    /// The transport.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Self::Socket(_) => Transport::Udp,
            Self::Stream(_) => Transport::Tcp,
        }
    }
}

/// A listener that is asked for.
#[derive(Clone, Debug)]
pub struct ListenRequest {
    /// The name to be found by; without one the listener is found by its public address, as in 2015.
    pub name: Option<Name>,
    /// The servers to register with, all of them.
    pub servers: Vec<ServerAddress>,
    /// The local addresses to bind, at most one of each family; port 0 leaves the choice to the system.
    pub bind: Vec<SocketAddr>,
    /// What only peers know; the server never sees it.
    pub secret: Option<Secret>,
    /// The kinds of connection that are offered, at least one.
    pub transports: Transports,
    /// Where `bind` leaves the port open this one is used if it is free: for datagrams, and for streams.
    pub prefer_port: Option<u16>,
    /// Whether peers of 2015 may be introduced ([`PeerEvent::LegacyIntroduced`]); it means nothing with a name, since
    /// they know none.
    pub legacy: bool,
}

/// A connection that is asked for.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// To whom.
    pub target: Target,
    /// Which kind of connection.
    pub transport: Transport,
    /// The servers to ask, in this order.
    pub servers: Vec<ServerAddress>,
    /// The local addresses to bind, at most one of each family; port 0 leaves the choice to the system.
    pub bind: Vec<SocketAddr>,
    /// What only peers know; the server never sees it.
    pub secret: Option<Secret>,
    /// How long to keep asking for a listener that is not there yet, or a server that introduces no more for now; zero asks
    /// once.
    pub wait: Duration,
    /// How long the two peers may take from their introduction on.
    pub timeout: Duration,
    /// Where `bind` leaves the port open this one is used if it is free: for datagrams, and for streams.
    pub prefer_port: Option<u16>,
    /// Whether a peer of 2015 may be introduced ([`PeerEvent::LegacyIntroduced`]).
    pub legacy: bool,
}

/// A session whose signalling the program does itself.
#[derive(Clone, Debug)]
pub struct NegotiateRequest {
    /// Which side makes the choice; it must be the opposite of the peer's, and a conflict resolves itself
    /// (RFC 8445 section 7.3.1.1).
    pub role: Role,
    /// STUN servers to ask for our mapped addresses; may be none.
    pub stun_servers: Vec<ServerAddress>,
    /// The local addresses to bind, at most one of each family; port 0 leaves the choice to the system.
    pub bind: Vec<SocketAddr>,
    /// How long the two may take from the moment on that the peer's credentials are known.
    pub timeout: Duration,
    /// Where `bind` leaves the port open this one is used if it is free.
    pub prefer_port: Option<u16>,
}

/// How the path of a connection was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Both sides sent checks to each other's known addresses at once.
    UdpSimultaneous,
    /// Both sides sent SYNs to each other's known addresses at once, and listened.
    TcpSimultaneousOpen,
}

impl Strategy {
    /// The stable name, as in the command line's events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UdpSimultaneous => "udp_simultaneous",
            Self::TcpSimultaneousOpen => "tcp_simultaneous_open",
        }
    }
}

/// The path that a session ended on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Path {
    /// What it is made of.
    pub carrier: Carrier,
    /// Our address and port, as far as known: the address is unspecified where the peer's packets never showed it.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// How the peer's address was learned.
    pub kind: CandidateKind,
    /// Which way it was found.
    pub strategy: Strategy,
    /// The role that this side ended in.
    pub role: Role,
    /// The round-trip time of the check that was answered, or of the connect.
    pub rtt: Duration,
    /// Whether the program did the signalling itself ([`Peer::negotiate`](super::Peer::negotiate)): then the peer may be
    /// any agent of ICE, and hears of no end.
    pub signalled: bool,
    /// From the introduction, as this side learned of it, to the connection.
    pub since_introduction: Duration,
    /// Datagrams that this side sent to the peer until then, or connects that it attempted.
    pub packets_sent: u32,
    /// Sockets that this side used.
    pub sockets: u32,
}

impl Path {
    /// The UDP socket of a datagram path.
    #[must_use]
    pub const fn socket(&self) -> Option<SocketId> {
        match self.carrier {
            Carrier::Socket(socket) => Some(socket),
            Carrier::Stream(_) => None,
        }
    }

    /// The same for those who know that it is one.
    #[cfg(feature = "std")]
    pub(crate) fn udp_socket(&self) -> SocketId {
        self.socket().unwrap_or(SocketId(u32::MAX))
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// In order: by this side, or because both sides announced the end of their data.
    End,
    /// The peer has closed the connection.
    Peer,
    /// The peer has answered nothing for 30 seconds (RFC 7675).
    Lost,
}

/// What a [`Peer`](super::Peer) tells its user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A server has a listener's registration; comes again when a mapped address changed or the server forgot.
    Registered {
        /// The listener.
        listener: ListenerId,
        /// The server's label.
        server: String,
        /// Our addresses as the server sees them.
        mapped: Vec<SocketAddr>,
        /// How it is talked to: over TCP only where UDP does not get through.
        via: Transport,
    },
    /// A listener could not be registered with any of its servers, and is gone.
    ListenFailed {
        /// The listener.
        listener: ListenerId,
        /// Why.
        error: Error,
    },
    /// Two peers know of each other; checks begin.
    Introduced {
        /// The session.
        session: SessionId,
        /// The listener that it came to; `None` for the connector.
        listener: Option<ListenerId>,
        /// Our role.
        role: Role,
        /// The peer's candidates.
        peer: Vec<SocketAddr>,
    },
    /// The server has introduced a peer of 2015, which is to be met as such: from the port that its address has, without
    /// checks. There is no session; of a connector this is the last event.
    LegacyIntroduced {
        /// The session that it would have been.
        session: SessionId,
        /// The listener that it came to; `None` for the connector.
        listener: Option<ListenerId>,
        /// Where the peer is.
        peer: SocketAddr,
    },
    /// A session whose signalling is the program's own has one more candidate for the peer.
    LocalCandidate {
        /// The session.
        session: SessionId,
        /// Its line.
        candidate: sdp::Candidate,
    },
    /// These were all its candidates.
    Gathered {
        /// The session.
        session: SessionId,
    },
    /// A path was found; data may be sent and received.
    Connected {
        /// The session.
        session: SessionId,
        /// The listener that it came to; `None` for the connector.
        listener: Option<ListenerId>,
        /// The path.
        path: Path,
    },
    /// The peer of a connected session is at another address now, since its NAT gave it another; the connection goes on.
    /// Data is sent there from now on, by the same socket.
    Moved {
        /// The session.
        session: SessionId,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// A session came to nothing, and is gone.
    Failed {
        /// The session.
        session: SessionId,
        /// The listener that it came to; `None` for the connector.
        listener: Option<ListenerId>,
        /// Why.
        error: Error,
    },
    /// The peer has announced the end of its data; what was sent before may still arrive.
    PeerEnded {
        /// The session.
        session: SessionId,
    },
    /// The peer knows of the end of our data.
    EndAcknowledged {
        /// The session.
        session: SessionId,
    },
    /// The peer has taken its socket for itself ([`Peer::bare`](super::Peer::bare)): it is sent nothing but data any more, neither checks
    /// nor the end, and its silence says nothing. The connection lasts until it is closed here; nobody else is told then.
    PeerBare {
        /// The session.
        session: SessionId,
    },
    /// The socket of this connection holds nothing but data from now on, and is the application's
    /// ([`Peer::bare`](super::Peer::bare)); the last event of its session. Until the next timeout the machine still tells the messages
    /// that came before from data, then it forgets the session.
    Bare {
        /// The session.
        session: SessionId,
    },
    /// A connection is over, and gone. The last event of every session that was connected, but for those that have
    /// left the machine before: streams with [`PeerEvent::Connected`], sockets with [`PeerEvent::Bare`].
    Closed {
        /// The session.
        session: SessionId,
        /// How.
        reason: CloseReason,
    },
}
