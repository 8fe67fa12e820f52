//! The trace: every send, translation, delivery and drop, as a running digest and as a bounded ring of the latest records.
//!
//! The digest covers everything since the beginning, payloads included, so two runs with the same digest are the same run. The
//! ring is for people: print it, or turn it into a capture, when a test fails.

use crate::network::{HostId, SiteId};
use crate::tcp::TcpHeader;
use crate::time::Time;
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between the sites.
    Backbone,
    /// At a host or on its link.
    Host(HostId),
    /// At the border of a site, on its uplink or in its LAN.
    Site(SiteId),
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The link lost it.
    Loss = 1,
    /// The link was down when the datagram came to it, or when it would have left it.
    LinkDown,
    /// The NAT's filtering, or the firewall, does not permit the source.
    Filtered,
    /// The NAT has no mapping on the port.
    NoMapping,
    /// The NAT has no port left, or the internal address has all the mappings it may have.
    NoPort,
    /// The NAT does not turn datagrams to itself round.
    NoHairpin,
    /// Nothing knows the way to the destination.
    NoRoute,
    /// The router on the way has the destination address itself, or nobody in the LAN has it (any more).
    NoHost,
    /// The host does not have the source address it sends from.
    SourceAddress,
    /// UDP is blocked here.
    UdpBlocked,
    /// The time to live ran out.
    TtlExceeded,
    /// A TCP segment that belongs to no connection known here, and begins none.
    Untracked,
    /// A TCP segment of a known connection that fits none of its windows.
    OutOfWindow,
}

/// What happened to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A host sent it.
    Sent,
    /// A link made a second copy of it.
    Duplicated,
    /// A NAT replaced its source, on the way out.
    SourceTranslated {
        /// The source before.
        was: SocketAddr,
    },
    /// A NAT replaced its destination, on the way in.
    DestinationTranslated {
        /// The destination before.
        was: SocketAddr,
    },
    /// A host received it.
    Delivered,
    /// It was dropped.
    Dropped(DropReason),
}

/// One line of the trace. Addresses and TTL are those after the event.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it happened.
    pub at: Time,
    /// The number of the datagram, by order of sending; duplicates share it.
    pub packet: u64,
    /// Where it happened.
    pub place: Place,
    /// What happened.
    pub event: Event,
    /// Source of the datagram.
    pub source: SocketAddr,
    /// Destination of the datagram.
    pub destination: SocketAddr,
    /// Hops the datagram may still make.
    pub ttl: u8,
    /// The header of a TCP segment; none for a UDP datagram.
    pub tcp: Option<TcpHeader>,
    /// What the datagram carries.
    pub payload: Arc<[u8]>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backbone => f.write_str("backbone"),
            Self::Host(host) => host.fmt(f),
            Self::Site(site) => site.fmt(f),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, packet, place, source, destination, ttl, payload, tcp, .. } = self;
        write!(f, "{at:>18} #{packet:<5} {place:<8} {source} -> {destination}, {} bytes, ttl {ttl}: ", payload.len())?;
        if let Some(header) = tcp {
            write!(f, "{header}: ")?;
        }
        match self.event {
            Event::Sent => f.write_str("sent"),
            Event::Duplicated => f.write_str("duplicated"),
            Event::SourceTranslated { was } => write!(f, "source was {was}"),
            Event::DestinationTranslated { was } => write!(f, "destination was {was}"),
            Event::Delivered => f.write_str("delivered"),
            Event::Dropped(reason) => write!(f, "dropped, {reason:?}"),
        }
    }
}

/// The latest records, and the digest of all. Its `Display` is one line a record.
#[derive(Debug)]
pub struct Trace {
    ring: VecDeque<Record>,
    capacity: usize,
    forgotten: u64,
    digest: u64,
}

impl Trace {
    /// Records kept unless the caller says otherwise: some seconds of two peers, half a megabyte.
    pub(crate) const CAPACITY: usize = 4096;

    pub(crate) const fn new() -> Self {
        Self { ring: VecDeque::new(), capacity: Self::CAPACITY, forgotten: 0, digest: 0 }
    }

    /// Returns the records that are kept, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.ring.iter()
    }

    /// Returns how many records the ring has forgotten.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Returns the digest of every record since the beginning.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.shrink();
    }

    pub(crate) fn push(&mut self, record: Record) {
        self.absorb(&record);
        if self.capacity == 0 {
            self.forgotten += 1;
            return;
        }
        self.ring.push_back(record);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.ring.len() > self.capacity {
            self.ring.pop_front();
            self.forgotten += 1;
        }
    }

    fn absorb(&mut self, record: &Record) {
        let (kind, was) = match record.event {
            Event::Sent => (1, None),
            Event::Duplicated => (2, None),
            Event::SourceTranslated { was } => (3, Some(was)),
            Event::DestinationTranslated { was } => (4, Some(was)),
            Event::Delivered => (5, None),
            Event::Dropped(reason) => (0x100 | reason as u64, None),
        };
        let place = match record.place {
            Place::Backbone => 0,
            Place::Host(host) => 1 << 32 | u64::from(host.0),
            Place::Site(site) => 2 << 32 | u64::from(site.0),
        };
        self.word(record.at.0);
        self.word(record.packet);
        self.word(kind << 8 | u64::from(record.ttl));
        self.word(place);
        self.endpoint(record.source);
        self.endpoint(record.destination);
        if let Some(was) = was {
            self.endpoint(was);
        }
        if let Some(tcp) = record.tcp {
            let flags =
                u64::from(tcp.syn) | u64::from(tcp.ack) << 1 | u64::from(tcp.rst) << 2 | u64::from(tcp.fin) << 3;
            self.word(1 << 63 | flags);
            self.word(u64::from(tcp.sequence) << 32 | u64::from(tcp.acknowledgement));
        }
        if record.event == Event::Sent {
            self.word(record.payload.len() as u64);
            for chunk in record.payload.chunks(8) {
                let mut bytes = [0; 8];
                bytes[..chunk.len()].copy_from_slice(chunk);
                self.word(u64::from_le_bytes(bytes));
            }
        }
    }

    fn endpoint(&mut self, endpoint: SocketAddr) {
        match endpoint.ip() {
            IpAddr::V4(address) => self.word(u64::from(address.to_bits()) << 16 | u64::from(endpoint.port())),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.word((bits >> 64) as u64);
                self.word(bits as u64);
                self.word(1 << 48 | u64::from(endpoint.port()));
            }
        }
    }

    const fn word(&mut self, word: u64) {
        self.digest = (self.digest.rotate_left(29) ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.forgotten > 0 {
            writeln!(f, "({} earlier records forgotten)", self.forgotten)?;
        }
        self.ring.iter().try_for_each(|record| writeln!(f, "{record}"))
    }
}
