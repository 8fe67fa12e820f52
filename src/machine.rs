//! The shared vocabulary of the sans-IO layers: time, randomness, sockets by number, what goes in and what comes out.
//!
//! A machine never reads a clock, a socket or the system's randomness. Its driver calls a method with the time
//! and an input, then drains [`Output`]s until it gets [`Output::Timeout`], waits for a datagram or for that
//! time, and calls again: mutate, then drain.

use alloc::{string::String, vec::Vec};
use chacha20::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use core::{
    net::{IpAddr, SocketAddr},
    ops::{Add, Sub},
    time::Duration,
};
use zeroize::Zeroizing;

/// A point in monotonic time, in nanoseconds since an origin that the driver chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The time `nanos` nanoseconds after the driver's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the driver's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Instant {
    /// The time `duration` before this; `None` when that is before the driver's origin.
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        self.0.checked_sub(u64::try_from(duration.as_nanos()).ok()?).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        self.saturating_since(rhs)
    }
}

/// The seeded generator that a machine draws everything unpredictable from (ChaCha20).
///
/// With a secret seed its output is fit for keys; with a known one a run can be repeated exactly. It keeps no output
/// ahead: every session has one, and draws a few bytes every few seconds.
pub struct Random {
    seed: Zeroizing<[u8; 32]>,
    /// Words of 32 bits drawn so far.
    drawn: u64,
}

impl Random {
    /// Starts the generator; `seed` must be secret and fresh wherever the network is real.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed: Zeroizing::new(seed), drawn: 0 }
    }

    fn draw<T>(&mut self, draw: impl FnOnce(&mut ChaCha20Rng) -> T) -> T {
        let mut generator = ChaCha20Rng::from_seed(*self.seed);
        generator.set_word_pos(self.drawn.into());
        let drawn = draw(&mut generator);
        self.drawn = generator.get_word_pos() as u64;
        drawn
    }

    /// Draws `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.draw(|generator| generator.fill_bytes(&mut bytes));
        bytes
    }

    /// Draws 64 bits.
    pub fn u64(&mut self) -> u64 {
        self.draw(ChaCha20Rng::next_u64)
    }

    /// Draws a duration uniformly from `low..high`; `low` when the range is empty.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        if span == 0 { low } else { low + Duration::from_nanos(self.u64() % span) }
    }
}

impl core::fmt::Debug for Random {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Random(..)")
    }
}

/// A UDP socket, by the number that the machine gave it when it asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u32);

/// One of a machine's sockets, bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoundSocket {
    pub(crate) id: SocketId,
    pub(crate) local: SocketAddr,
    /// Whether the host has an address of its family to send from, as far as is known.
    pub(crate) has_address: bool,
}

impl BoundSocket {
    pub(crate) const fn is_ipv6(&self) -> bool {
        self.local.is_ipv6()
    }
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transmit {
    /// The socket to send from.
    pub socket: SocketId,
    /// The local address to send from, where it matters (an answer leaves from the address that the request came to); `None` leaves the choice to routing,
    /// as does an address that the host has no more.
    pub source: Option<IpAddr>,
    /// Where to.
    pub destination: SocketAddr,
    /// The bytes, at most 1,200.
    pub payload: Vec<u8>,
}

/// What a machine asks of the driver about its UDP sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpRequest {
    /// Bind a socket and answer with [`Input::UdpBound`] or [`Input::UdpFailed`].
    Bind {
        /// The number it will be known by.
        socket: SocketId,
        /// The address to bind; port 0 leaves the choice to the system.
        address: SocketAddr,
    },
    /// Close it; nothing of it is used any more.
    Close {
        /// The socket's number.
        socket: SocketId,
    },
}

/// A reserved local TCP port, by the number that the machine gave it: a listener and any number of streams share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

/// A TCP connection, by number. The machine numbers those that it asks for, below 2^31; the driver those that it
/// accepted, from 2^31 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The first number that a driver gives to a connection that it accepted.
    pub const FIRST_ACCEPTED: u32 = 1 << 31;
}

/// What a machine asks of the driver about TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpRequest {
    /// Bind a socket that does nothing but keep the port, so that others may share it (`SO_REUSEADDR` and
    /// `SO_REUSEPORT`), and answer with [`Input::TcpReserved`] or [`Input::TcpReserveFailed`].
    Reserve {
        /// The number it will be known by.
        port: PortId,
        /// The address to bind; port 0 leaves the choice to the system.
        address: SocketAddr,
    },
    /// Accept connections on a reserved port; each is told with [`Input::TcpAccepted`]. Where that is not possible
    /// nothing is accepted.
    Listen {
        /// The port.
        port: PortId,
    },
    /// Connect from a reserved port, and answer with [`Input::TcpConnected`] or [`Input::TcpFailed`].
    Connect {
        /// The port.
        port: PortId,
        /// The number that the connection will be known by.
        stream: StreamId,
        /// Where to.
        remote: SocketAddr,
    },
    /// Send these bytes, whole and in order.
    Send {
        /// The connection.
        stream: StreamId,
        /// A few hundred bytes.
        bytes: Vec<u8>,
    },
    /// Close a connection, or give up the attempt to make it. What was sent still arrives (FIN, no RST). Of an attempt
    /// nothing is left: its two endpoints are free at once, though the other side's SYN may have come (a linger time of
    /// zero; else Linux keeps such an attempt until the handshake is over).
    Close {
        /// The connection.
        stream: StreamId,
    },
    /// End a connection with a RST, so that its two endpoints are free at once: the next one from this port to the same
    /// address need not wait until they have rested.
    Abort {
        /// The connection.
        stream: StreamId,
    },
    /// Give a port up: nothing more is accepted on it. Its connections stay.
    Release {
        /// The port.
        port: PortId,
    },
}

/// What a driver tells a machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// The time of the last [`Output::Timeout`] has come (earlier is harmless).
    Timeout,
    /// A datagram arrived.
    Datagram {
        /// At which socket.
        socket: SocketId,
        /// The local address it was sent to, as `IP_PKTINFO` tells it; the unspecified address where unknown.
        local: SocketAddr,
        /// Its source.
        remote: SocketAddr,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// The addresses of this host's interfaces changed, or are told for the first time. All families, without loopback.
    Interfaces(&'a [IpAddr]),
    /// A socket asked for is bound.
    UdpBound {
        /// The socket.
        socket: SocketId,
        /// Its local address; the address part may be unspecified.
        local: SocketAddr,
    },
    /// The system would not send a datagram: there is no route, or a rule against it. Of one datagram it means
    /// nothing; of all that went to a server, that the server cannot be reached.
    SendFailed {
        /// The socket that it was to leave by.
        socket: SocketId,
        /// Where it was to go.
        destination: SocketAddr,
        /// Why not.
        error: crate::Error,
    },
    /// A socket asked for could not be bound.
    UdpFailed {
        /// The socket.
        socket: SocketId,
        /// Why.
        error: crate::Error,
    },
    /// A port asked for is reserved.
    TcpReserved {
        /// The port.
        port: PortId,
        /// Its local address; the address part may be unspecified.
        local: SocketAddr,
    },
    /// A port asked for could not be reserved.
    TcpReserveFailed {
        /// The port.
        port: PortId,
        /// Why.
        error: crate::Error,
    },
    /// Somebody has connected to a port that was to be listened on.
    TcpAccepted {
        /// The port.
        port: PortId,
        /// The number that the driver gave the connection.
        stream: StreamId,
        /// Our address.
        local: SocketAddr,
        /// The other's.
        remote: SocketAddr,
    },
    /// A connection asked for is there.
    TcpConnected {
        /// The connection.
        stream: StreamId,
        /// Our address.
        local: SocketAddr,
    },
    /// A connection asked for did not come about, or one that was there is over.
    TcpFailed {
        /// The connection.
        stream: StreamId,
        /// The system itself would not connect, in the moment it was asked: no packet of the other side has said so.
        /// There may be a connection between the two endpoints already, or have been one a short time ago.
        at_once: bool,
    },
}

/// What became of an input datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition<S> {
    /// It was a message of the machine's, or nobody's.
    Consumed,
    /// It is application data of this session; the machine does not keep it.
    Data(S),
}

/// What a machine wants: drained with `poll_output` until [`Output::Timeout`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Output<E> {
    /// Send this datagram.
    Transmit(Transmit),
    /// Bind or close a socket.
    Udp(UdpRequest),
    /// Do something about TCP.
    Tcp(TcpRequest),
    /// Something happened that the user wants to know.
    Event(E),
    /// A line for the log; never a secret.
    Log(Level, String),
    /// Nothing more to do until this time (`None`: until the next input), and why.
    Timeout(Option<Instant>, Timer),
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something failed that the user must know.
    Error = 1,
    /// Something is odd, and was dealt with.
    Warn = 2,
    /// A step that a user follows.
    Info = 3,
    /// A step that a developer follows.
    Debug = 4,
}

/// Why a machine wants to be woken: the one list of its timers. The next wake-up is their minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Timer {
    /// Nothing is waited for.
    Idle,
    /// A request to the server is due for its next transmission, or has been silent for too long.
    Server,
    /// A registration is due for its keepalive.
    Keepalive,
    /// A connectivity check is due (RFC 8445 section 6.1.4).
    Check,
    /// A TCP connect is due, or has waited for its answer for long enough.
    Connect,
    /// Consent is due for renewal, or has expired (RFC 7675).
    Consent,
    /// A trickled candidate, or the end of a session, awaits its acknowledgement.
    Acknowledgement,
    /// A session's deadline.
    Deadline,
    /// Something remembered is to be forgotten.
    Expiry,
    /// An introduction is due to be sent again.
    Introduction,
}

/// The earliest of several wake-ups, with its reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextWake(Option<(Instant, Timer)>);

impl NextWake {
    pub(crate) const fn never() -> Self {
        Self(None)
    }

    /// Takes another wake-up into account.
    pub(crate) fn at(&mut self, time: Option<Instant>, timer: Timer) {
        if let Some(time) = time
            && self.0.is_none_or(|(earliest, _)| time < earliest)
        {
            self.0 = Some((time, timer));
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        if let Some((time, timer)) = other.0 {
            self.at(Some(time), timer);
        }
    }

    pub(crate) fn time(self) -> Option<Instant> {
        self.0.map(|(time, _)| time)
    }

    pub(crate) fn timer(self) -> Timer {
        self.0.map_or(Timer::Idle, |(_, timer)| timer)
    }
}
