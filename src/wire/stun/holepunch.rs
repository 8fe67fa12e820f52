//! The values of our own attributes, all of them optional to others: who is registered, which session is meant,
//! where a peer may be reached.

use alloc::sync::Arc;
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::{
    AttributeType, Builder, Message, TransactionId, decode_xor_address, encode_xor_address, methods::write_hex,
};

/// What begins a TCP connection to a server that is not known yet, and is answered with itself: a server of 2015 takes
/// it for nothing, while STUN would kill it. Ours needs no greeting before STUN.
pub const GREETING: &[u8] = b"HOLEPUNCH/1\n";

/// The version of the protocol that VERSION announces.
pub const VERSION: u32 = 1;

/// The most candidates in a message; a receiver reads no more.
pub const MAX_CANDIDATES: usize = 16;

/// The most bytes of a ROUTE.
pub const MAX_ROUTE: usize = 64;

/// Names a registration at a server: 128 bits that the client drew at random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistrationId(pub [u8; 16]);

impl fmt::Debug for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, "RegistrationId", &self.0)
    }
}

/// Names a session between two peers: 128 bits that the connector drew at random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, "SessionId", &self.0)
    }
}

/// A listener's name: 1 to 64 characters of `a` to `z`, `0` to `9`, `.`, `_` and `-`.
///
/// ```
/// use holepunch::wire::stun::{Name, NameError};
///
/// assert_eq!(Name::new("printer.office")?.as_str(), "printer.office");
/// assert_eq!(Name::new("Printer"), Err(NameError::Character { character: 'P', position: 0 }));
/// # Ok::<(), NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The most characters, which are bytes.
    pub const MAX_LENGTH: usize = 64;

    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        let wrong = |character: &char| !matches!(character, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        if let Some((position, character)) = name.chars().enumerate().find(|(_, character)| wrong(character)) {
            return Err(NameError::Character { character, position });
        }
        if name.len() > Self::MAX_LENGTH {
            return Err(NameError::TooLong { length: name.len() });
        }
        Ok(Self(name.into()))
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl core::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// It has no character.
    Empty,
    /// It has more than 64 characters.
    TooLong {
        /// How many it has.
        length: usize,
    },
    /// It has a character that names do not have.
    Character {
        /// The first such character.
        character: char,
        /// How many characters stand before it.
        position: usize,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the name is empty; use 1 to 64 characters"),
            Self::TooLong { length } => write!(f, "the name has {length} characters; use at most {}", Name::MAX_LENGTH),
            Self::Character { character, position } => {
                write!(f, "the name has {character:?} at position {position}; use only a-z, 0-9, '.', '_' and '-'")
            }
        }
    }
}

impl core::error::Error for NameError {}

/// What a candidate is, as its sender or the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// An address of the host itself.
    Host,
    /// The address that the server itself saw the peer at.
    ServerReflexiveObserved,
    /// An address that the peer says another server saw it at.
    ServerReflexiveClaimed,
    /// An address of a relay.
    Relay,
}

/// What a candidate is reached with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateTransport {
    /// UDP.
    Udp,
    /// TCP, by simultaneous open (RFC 6544).
    Tcp,
}

/// A candidate as it travels: an address at which a peer may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireCandidate {
    /// What it is.
    pub kind: CandidateKind,
    /// What it is reached with.
    pub transport: CandidateTransport,
    /// Higher is tried first (RFC 8445 section 5.1.2).
    pub priority: u32,
    /// The address. Flow and scope of IPv6 do not travel.
    pub address: SocketAddr,
}

impl WireCandidate {
    /// Decodes CANDIDATE; `None` when it is malformed, or of a kind or transport that is not known yet.
    #[must_use]
    pub fn decode(value: &[u8], transaction_id: &TransactionId) -> Option<Self> {
        let (&[kind, transport, _, _, p0, p1, p2, p3], address) = value.split_first_chunk()?;
        Some(Self {
            kind: match kind {
                0 => CandidateKind::Host,
                1 => CandidateKind::ServerReflexiveObserved,
                2 => CandidateKind::ServerReflexiveClaimed,
                3 => CandidateKind::Relay,
                _ => return None,
            },
            transport: match transport {
                0 => CandidateTransport::Udp,
                1 => CandidateTransport::Tcp,
                _ => return None,
            },
            priority: u32::from_be_bytes([p0, p1, p2, p3]),
            address: decode_xor_address(address, transaction_id)?,
        })
    }
}

/// The kinds of connection that are offered or wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Transports {
    /// Datagrams over UDP.
    pub udp: bool,
    /// A stream over TCP.
    pub tcp: bool,
}

impl Transports {
    /// Bit 0 of TRANSPORT.
    const UDP: u32 = 1;
    /// Bit 1 of TRANSPORT.
    const TCP: u32 = 2;

    /// The attribute's value.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        (if self.udp { Self::UDP } else { 0 }) | (if self.tcp { Self::TCP } else { 0 })
    }

    /// Reads the attribute's value; bits that are not known yet are ignored.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self { udp: bits & Self::UDP != 0, tcp: bits & Self::TCP != 0 }
    }

    /// Whether both have a kind in common.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.to_bits() & other.to_bits() != 0
    }
}

impl<'a> Message<'a> {
    /// VERSION.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        self.u32(AttributeType::VERSION)
    }

    /// REGISTRATION-ID.
    #[must_use]
    pub fn registration_id(&self) -> Option<RegistrationId> {
        self.array(AttributeType::REGISTRATION_ID).map(RegistrationId)
    }

    /// REGISTRATION-KEY.
    #[must_use]
    pub fn registration_key(&self) -> Option<[u8; 32]> {
        self.array(AttributeType::REGISTRATION_KEY)
    }

    /// NAME.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        Name::new(core::str::from_utf8(self.attribute(AttributeType::NAME)?).ok()?).ok()
    }

    /// SESSION-ID.
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId> {
        self.array(AttributeType::SESSION_ID).map(SessionId)
    }

    /// PUBLIC-KEY.
    #[must_use]
    pub fn public_key(&self) -> Option<[u8; 32]> {
        self.array(AttributeType::PUBLIC_KEY)
    }

    /// SEQUENCE.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.u64(AttributeType::SEQUENCE)
    }

    /// The first 16 CANDIDATEs, without those that cannot be decoded.
    pub fn candidates(&self) -> impl Iterator<Item = WireCandidate> + 'a {
        let transaction_id = self.transaction_id();
        self.attributes()
            .filter(|(attribute_type, _)| *attribute_type == AttributeType::CANDIDATE)
            .take(MAX_CANDIDATES)
            .filter_map(move |(_, value)| WireCandidate::decode(value, &transaction_id))
    }

    /// ROUTE, at most 64 bytes.
    #[must_use]
    pub fn route(&self) -> Option<&'a [u8]> {
        self.attribute(AttributeType::ROUTE).filter(|value| value.len() <= MAX_ROUTE)
    }

    /// TRANSPORT.
    #[must_use]
    pub fn transports(&self) -> Option<Transports> {
        self.u32(AttributeType::TRANSPORT).map(Transports::from_bits)
    }

    /// TARGET-ADDRESS, whose port says nothing.
    #[must_use]
    pub fn target_address(&self) -> Option<IpAddr> {
        self.address(AttributeType::TARGET_ADDRESS).map(|address| address.ip())
    }

    /// KEEPALIVE, in seconds.
    #[must_use]
    pub fn keepalive(&self) -> Option<u32> {
        self.u32(AttributeType::KEEPALIVE)
    }

    /// LEGACY: from a client (with 0) that it can meet a peer of 2015; from the server that the peer is one, with the
    /// port to punch from and to.
    #[must_use]
    pub fn legacy(&self) -> Option<u16> {
        self.u32(AttributeType::LEGACY).and_then(|port| port.try_into().ok())
    }

    /// FLAGS; none are set when it is absent.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.u32(AttributeType::FLAGS).unwrap_or_default()
    }
}

impl Builder {
    /// Appends VERSION, that of this protocol.
    pub fn version(self) -> Self {
        self.u32(AttributeType::VERSION, VERSION)
    }

    /// Appends REGISTRATION-ID.
    pub fn registration_id(self, id: RegistrationId) -> Self {
        self.attribute(AttributeType::REGISTRATION_ID, &id.0)
    }

    /// Appends REGISTRATION-KEY.
    pub fn registration_key(self, key: &[u8; 32]) -> Self {
        self.attribute(AttributeType::REGISTRATION_KEY, key)
    }

    /// Appends NAME.
    pub fn name(self, name: &Name) -> Self {
        self.string(AttributeType::NAME, name.as_str())
    }

    /// Appends SESSION-ID.
    pub fn session_id(self, id: SessionId) -> Self {
        self.attribute(AttributeType::SESSION_ID, &id.0)
    }

    /// Appends PUBLIC-KEY.
    pub fn public_key(self, key: &[u8; 32]) -> Self {
        self.attribute(AttributeType::PUBLIC_KEY, key)
    }

    /// Appends SEQUENCE.
    pub fn sequence(self, number: u64) -> Self {
        self.u64(AttributeType::SEQUENCE, number)
    }

    /// Appends a CANDIDATE.
    pub fn candidate(self, candidate: &WireCandidate) -> Self {
        let kind = match candidate.kind {
            CandidateKind::Host => 0,
            CandidateKind::ServerReflexiveObserved => 1,
            CandidateKind::ServerReflexiveClaimed => 2,
            CandidateKind::Relay => 3,
        };
        let transport = match candidate.transport {
            CandidateTransport::Udp => 0,
            CandidateTransport::Tcp => 1,
        };
        let [p0, p1, p2, p3] = candidate.priority.to_be_bytes();
        let address = encode_xor_address(candidate.address, &self.transaction_id());
        let mut value = [0; 28];
        let length = 8 + address.as_bytes().len();
        for (to, from) in value.iter_mut().zip([kind, transport, 0, 0, p0, p1, p2, p3].iter().chain(address.as_bytes()))
        {
            *to = *from;
        }
        self.attribute(AttributeType::CANDIDATE, value.get(..length).unwrap_or_default())
    }

    /// Appends the first 16 of these as CANDIDATEs.
    pub fn candidates<'a>(self, candidates: impl IntoIterator<Item = &'a WireCandidate>) -> Self {
        candidates.into_iter().take(MAX_CANDIDATES).fold(self, Self::candidate)
    }

    /// Appends TRANSPORT.
    pub fn transports(self, transports: Transports) -> Self {
        self.u32(AttributeType::TRANSPORT, transports.to_bits())
    }

    /// Appends TARGET-ADDRESS.
    pub fn target_address(self, address: IpAddr) -> Self {
        self.address(AttributeType::TARGET_ADDRESS, SocketAddr::new(address, 0))
    }

    /// Appends KEEPALIVE.
    pub fn keepalive(self, seconds: u32) -> Self {
        self.u32(AttributeType::KEEPALIVE, seconds)
    }

    /// Appends LEGACY; a client's port is 0.
    pub fn legacy(self, port: u16) -> Self {
        self.u32(AttributeType::LEGACY, port.into())
    }

    /// Appends FLAGS.
    pub fn flags(self, flags: u32) -> Self {
        self.u32(AttributeType::FLAGS, flags)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn names_say_what_is_wrong_with_them() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new(&"a".repeat(65)), Err(NameError::TooLong { length: 65 }));
        assert_eq!(Name::new("a@b"), Err(NameError::Character { character: '@', position: 1 }));
        assert!(Name::new(&"z".repeat(64)).is_ok());
        assert!(Name::new("a.b_c-9").is_ok());
        assert_eq!(
            Name::new("ä").unwrap_err().to_string(),
            "the name has 'ä' at position 0; use only a-z, 0-9, '.', '_' and '-'"
        );
    }
}
