//! Every timer and limit, named, with its unit and where it comes from.
//!
//! Numbers that a wire format fixes live beside its codec; what may be tuned lives here.

use core::{net::SocketAddr, time::Duration};

/// The port a server listens on unless told otherwise; as in 2015.
pub const DEFAULT_SERVER_PORT: u16 = 20000;

/// The port of a STUN server unless told otherwise (RFC 8489 section 8.1).
pub const DEFAULT_STUN_PORT: u16 = 3478;

/// STUN servers that one agent asks at most: each is asked from every socket of its family.
pub const MAX_STUN_SERVERS: usize = 8;

/// The port that peers of 2015 are told to punch from, unless told otherwise.
pub const DEFAULT_PUNCH_PORT: u16 = 20001;

/// The server's second port, for clients that ask how their NAT maps and filters (RFC 5780), is its first plus this.
pub const ALTERNATE_PORT_OFFSET: u16 = 2;

/// The largest datagram that is sent or accepted as application data, in bytes: it fits the smallest IPv6 path (1,280) with every header and room for a tunnel.
pub const MAX_DATAGRAM: usize = 1200;

/// Secrets shorter than this could be guessed by a hostile server; in bytes.
pub const MIN_SECRET: usize = 16;

/// How requests to the server are resent and given up.
#[derive(Clone, Copy, Debug)]
pub struct Retransmission {
    /// The first resend comes after this, each later one after twice the time before. RFC 8489 section 6.2.1 has 500 ms for a path that knows nothing; nearly all round trips are below 100 ms, and a lost first packet must not cost half a second.
    pub initial: Duration,
    /// Resends are never further apart than this.
    pub maximum: Duration,
    /// A server that answered nothing for this long is silent.
    pub silence: Duration,
    /// A server that has answered nothing over UDP for this long is called over TCP beside it: UDP may be blocked. Few
    /// round trips are longer.
    pub tcp_after: Duration,
    /// Along a connection nothing is lost; only what the server passes on over UDP may be, so a connector repeats its
    /// request this often.
    pub tcp_interval: Duration,
}

impl Retransmission {
    /// The same along a connection.
    pub(crate) const fn over_tcp(self) -> Self {
        Self { initial: self.tcp_interval, maximum: self.tcp_interval, ..self }
    }
}

impl Default for Retransmission {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            maximum: Duration::from_millis(500),
            silence: Duration::from_secs(5),
            tcp_after: Duration::from_millis(300),
            tcp_interval: Duration::from_secs(1),
        }
    }
}

/// Pace and bounds of connectivity checks (RFC 8445 section 14, with what measurement showed to be better).
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    /// Intervals between the checks of one pair before anything authenticated came from it. A first check may meet a firewall that the peer has not opened yet, a moment too early; the early resends repair that within milliseconds.
    pub unproven: [Duration; 11],
    /// How many checks go to an address that the server observed, before anything authenticated came from it: no more can be reflected by a lie.
    pub observed_budget: u8,
    /// How many more go to an address for each authenticated message that came from there: a peer whose checks get
    /// through, while ours are lost, keeps us checking; a forged source does not, much.
    pub heard_budget: u8,
    /// How many go to a public address that the peer only claims.
    pub claimed_budget: u8,
    /// How many public addresses that are only claimed are checked at all.
    pub claimed_addresses: u8,
    /// The interval between checks of a pair once the peer was heard on it and until it is valid.
    pub proven: Duration,
    /// So many checks at that interval; later ones back off.
    pub proven_burst: u8,
    /// The longest interval between checks.
    pub maximum: Duration,
    /// So many checks may leave at one moment; the likeliest pairs are first.
    pub burst: u8,
    /// Beyond the burst, one check each such time (RFC 8445 section 14.2 asks for at least 5 ms).
    pub pacing: Duration,
    /// Pairs of one session at most (RFC 8445 section 6.1.2.5 has 100).
    pub max_pairs: usize,
}

impl Default for Checks {
    fn default() -> Self {
        const fn ms(millis: u64) -> Duration {
            Duration::from_millis(millis)
        }
        Self {
            unproven: [ms(5), ms(10), ms(20), ms(20), ms(20), ms(40), ms(80), ms(160), ms(320), ms(640), ms(1000)],
            observed_budget: 12,
            heard_budget: 1,
            claimed_budget: 2,
            claimed_addresses: 2,
            proven: ms(15),
            proven_burst: 40,
            maximum: ms(1000),
            burst: 10,
            pacing: ms(5),
            max_pairs: 64,
        }
    }
}

/// How a connection shows that it is alive (RFC 7675).
#[derive(Clone, Copy, Debug)]
pub struct Consent {
    /// The mean time between consent checks; each is drawn from 0.8 to 1.2 times this (section 5.1).
    pub interval: Duration,
    /// Without an answer for this long the connection is lost (section 5.1).
    pub expiry: Duration,
}

impl Default for Consent {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), expiry: Duration::from_secs(30) }
    }
}

/// Everything that can be tuned in a [`Peer`](crate::peer::Peer).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PeerConfig {
    /// Requests to servers.
    pub retransmission: Retransmission,
    /// Connectivity checks.
    pub checks: Checks,
    /// Liveness of connections.
    pub consent: Consent,
    /// A connection to a server that broke is made anew after this; each further attempt comes after twice the time
    /// before ...
    pub reconnect: Duration,
    /// ... but never after more than this: as for a keepalive, the server must have a listener back soon.
    pub max_reconnect: Duration,
    /// A connector asks its second server this much after the first, and so on.
    pub server_stagger: Duration,
    /// The longest time between two requests for a name that is not registered yet.
    pub wait_backoff: Duration,
    /// A session's candidates are trickled for this long after its introduction.
    pub trickle: Duration,
    /// The end of a connection is repeated until acknowledged, or for this long.
    pub farewell: Duration,
    /// A listener gives a session this long from its introduction on; the connector's time is its caller's.
    pub session_timeout: Duration,
    /// Whether private addresses of this host are told to peers, and private addresses of peers are checked. They are
    /// what connects two peers on one LAN.
    pub private_candidates: bool,
    /// Sessions of one listener that may be punching at once; further introductions are ignored until one ends, or
    /// takes the place of one that has heard nothing for `stalled_session`.
    pub max_pending_sessions: usize,
    /// How many of them may be for streams. Each has up to 28 descriptors, and a process often no more than 1,024. Where
    /// the port was chosen by number it is one.
    pub max_pending_streams: usize,
    /// A session that has heard nothing of its peer for this long may have to make room.
    pub stalled_session: Duration,
    /// Sessions of one listener in all.
    pub max_sessions: usize,
    /// Introductions remembered by a listener so that each session is answered once.
    pub max_remembered_sessions: usize,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            retransmission: Retransmission::default(),
            checks: Checks::default(),
            consent: Consent::default(),
            reconnect: Duration::from_secs(1),
            max_reconnect: Duration::from_secs(30),
            server_stagger: Duration::from_millis(300),
            wait_backoff: Duration::from_secs(1),
            trickle: Duration::from_secs(30),
            farewell: Duration::from_secs(3),
            session_timeout: Duration::from_secs(30),
            private_candidates: true,
            max_pending_sessions: 64,
            max_pending_streams: 16,
            stalled_session: Duration::from_secs(10),
            max_sessions: 4096,
            max_remembered_sessions: 256,
        }
    }
}

/// Every limit of the rendezvous server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Clients are asked for a keepalive this often; NAT bindings for UDP live at least 30 s (Hätönen 2010), so 25.
    pub keepalive: Duration,
    /// Registrations at most.
    pub max_registrations: usize,
    /// Registrations from one IPv4 /24 or IPv6 /56 at most.
    pub max_registrations_per_network: u32,
    /// STUN Binding answers a second to one IPv4 /24 or IPv6 /56; 0 for no limit.
    pub stun_rate: u32,
    /// Introductions and trickled messages a second caused by one IPv4 /24 or IPv6 /56; 0 for no limit. Those that are
    /// repeated if they are lost leave half of it to new ones; this host's own are not counted.
    pub introduction_rate: u32,
    /// Buckets of 8 bytes that the rates of all networks are kept in; networks beyond that number share buckets.
    pub max_rate_entries: usize,
    /// A cookie is good for one to two of these.
    pub cookie_epoch: Duration,
    /// The server's own address and first port as clients are to be told it, where it stands behind port forwarding.
    pub advertise: Option<SocketAddr>,
    /// Whether the text protocol of 2015 is spoken over TCP.
    pub legacy: bool,
    /// The port that peers of 2015 are told to punch from.
    pub punch_port: u16,
    /// TCP connections at most; descriptors may bound them sooner.
    pub max_connections: usize,
    /// TCP connections from one IPv4 /24 or IPv6 /56 at most; this host's own are not counted.
    pub max_connections_per_network: u32,
    /// A TCP connection is closed when its first message takes longer than this, or any later one from its first byte
    /// on.
    pub first_word: Duration,
    /// A TCP connection that is silent for this long is closed, unless it is a listener of 2015, which has nothing to
    /// say. A punch over TCP keeps its connection to the server for as long as it lasts.
    pub idle_connection: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            keepalive: Duration::from_secs(25),
            max_registrations: 100_000,
            max_registrations_per_network: 1024,
            stun_rate: 200,
            introduction_rate: 100,
            max_rate_entries: 16_384,
            cookie_epoch: Duration::from_secs(60),
            advertise: None,
            legacy: true,
            punch_port: DEFAULT_PUNCH_PORT,
            max_connections: 65_536,
            max_connections_per_network: 4096,
            first_word: Duration::from_secs(60),
            idle_connection: Duration::from_secs(600),
        }
    }
}
