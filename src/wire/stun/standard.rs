//! The values of the RFCs' attributes. A getter answers `None` when the attribute is absent or its value malformed;
//! [`Message::attribute`] tells the two apart.

use core::net::SocketAddr;

use super::{AttributeType, Message, decode_address, decode_xor_address};

/// The most bytes of a USERNAME (RFC 5389 section 15.3; RFC 8489 allows 509).
const MAX_USERNAME: usize = 513;

/// The most bytes of REALM, NONCE, SOFTWARE and a reason: 127 characters (RFC 8489 sections 14.8 to 14.14, whose 763
/// bytes stem from six-byte UTF-8).
const MAX_TEXT: usize = 763;

/// What a CHANGE-REQUEST asks for (RFC 5780 section 7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeRequest {
    /// An answer from the server's other address.
    pub change_ip: bool,
    /// An answer from the server's other port.
    pub change_port: bool,
}

impl ChangeRequest {
    /// The bit "change IP" (RFC 5780 section 7.2).
    const CHANGE_IP: u32 = 4;
    /// The bit "change port" (RFC 5780 section 7.2).
    const CHANGE_PORT: u32 = 2;

    /// The attribute's value.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        (if self.change_ip { Self::CHANGE_IP } else { 0 }) | (if self.change_port { Self::CHANGE_PORT } else { 0 })
    }

    pub(super) fn from_value(value: &[u8]) -> Option<Self> {
        let bits = decode_u32(value)?;
        Some(Self { change_ip: bits & Self::CHANGE_IP != 0, change_port: bits & Self::CHANGE_PORT != 0 })
    }
}

/// Why a request was not carried out (RFC 8489 section 14.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    /// 300 to 699.
    pub code: u16,
    /// For people; empty when it was not UTF-8 or too long.
    pub reason: &'a str,
}

impl ErrorCode<'_> {
    /// Ask another server, named by ALTERNATE-SERVER.
    pub const TRY_ALTERNATE: u16 = 300;
    /// The request is malformed.
    pub const BAD_REQUEST: u16 = 400;
    /// The credentials are missing or wrong.
    pub const UNAUTHENTICATED: u16 = 401;
    /// An attribute that must be understood is not.
    pub const UNKNOWN_ATTRIBUTE: u16 = 420;
    /// The NONCE is no longer valid; the answer carries the next.
    pub const STALE_NONCE: u16 = 438;
    /// Both agents took the same ICE role (RFC 8445 section 7.3.1.1).
    pub const ROLE_CONFLICT: u16 = 487;
    /// The server failed.
    pub const SERVER_ERROR: u16 = 500;
}

impl<'a> Message<'a> {
    /// XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn xor_mapped_address(&self) -> Option<SocketAddr> {
        self.xor_address(AttributeType::XOR_MAPPED_ADDRESS)
    }

    /// MAPPED-ADDRESS.
    #[must_use]
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        self.address(AttributeType::MAPPED_ADDRESS)
    }

    /// XOR-PEER-ADDRESS.
    #[must_use]
    pub fn xor_peer_address(&self) -> Option<SocketAddr> {
        self.xor_address(AttributeType::XOR_PEER_ADDRESS)
    }

    /// ALTERNATE-SERVER.
    #[must_use]
    pub fn alternate_server(&self) -> Option<SocketAddr> {
        self.address(AttributeType::ALTERNATE_SERVER)
    }

    /// RESPONSE-ORIGIN.
    #[must_use]
    pub fn response_origin(&self) -> Option<SocketAddr> {
        self.address(AttributeType::RESPONSE_ORIGIN)
    }

    /// OTHER-ADDRESS.
    #[must_use]
    pub fn other_address(&self) -> Option<SocketAddr> {
        self.address(AttributeType::OTHER_ADDRESS)
    }

    /// USERNAME, at most 513 bytes.
    #[must_use]
    pub fn username(&self) -> Option<&'a str> {
        self.text(AttributeType::USERNAME, MAX_USERNAME)
    }

    /// REALM, at most 763 bytes.
    #[must_use]
    pub fn realm(&self) -> Option<&'a str> {
        self.text(AttributeType::REALM, MAX_TEXT)
    }

    /// SOFTWARE, at most 763 bytes.
    #[must_use]
    pub fn software(&self) -> Option<&'a str> {
        self.text(AttributeType::SOFTWARE, MAX_TEXT)
    }

    /// NONCE, at most 763 bytes; ours is not text.
    #[must_use]
    pub fn nonce(&self) -> Option<&'a [u8]> {
        self.attribute(AttributeType::NONCE).filter(|value| value.len() <= MAX_TEXT)
    }

    /// ERROR-CODE.
    #[must_use]
    pub fn error_code(&self) -> Option<ErrorCode<'a>> {
        let (&[_, _, class, number], reason) = self.attribute(AttributeType::ERROR_CODE)?.split_first_chunk()?;
        let class = class & 7;
        if !(3..=6).contains(&class) || number > 99 {
            return None;
        }
        let reason = core::str::from_utf8(reason).ok().filter(|reason| reason.len() <= MAX_TEXT).unwrap_or_default();
        Some(ErrorCode { code: u16::from(class) * 100 + u16::from(number), reason })
    }

    /// UNKNOWN-ATTRIBUTES; nothing when it is absent.
    pub fn unknown_attributes(&self) -> impl Iterator<Item = AttributeType> + 'a {
        let value = self.attribute(AttributeType::UNKNOWN_ATTRIBUTES).unwrap_or_default();
        value.chunks_exact(2).filter_map(|pair| Some(AttributeType::new(u16::from_be_bytes(*pair.first_chunk()?))))
    }

    /// LIFETIME, in seconds.
    #[must_use]
    pub fn lifetime(&self) -> Option<u32> {
        self.u32(AttributeType::LIFETIME)
    }

    /// PRIORITY.
    #[must_use]
    pub fn priority(&self) -> Option<u32> {
        self.u32(AttributeType::PRIORITY)
    }

    /// Whether USE-CANDIDATE is there.
    #[must_use]
    pub fn use_candidate(&self) -> bool {
        self.attribute(AttributeType::USE_CANDIDATE).is_some()
    }

    /// ICE-CONTROLLED's tie-breaker.
    #[must_use]
    pub fn ice_controlled(&self) -> Option<u64> {
        self.u64(AttributeType::ICE_CONTROLLED)
    }

    /// ICE-CONTROLLING's tie-breaker.
    #[must_use]
    pub fn ice_controlling(&self) -> Option<u64> {
        self.u64(AttributeType::ICE_CONTROLLING)
    }

    /// CHANGE-REQUEST.
    #[must_use]
    pub fn change_request(&self) -> Option<ChangeRequest> {
        ChangeRequest::from_value(self.attribute(AttributeType::CHANGE_REQUEST)?)
    }

    /// RESPONSE-PORT.
    #[must_use]
    pub fn response_port(&self) -> Option<u16> {
        let (&port, rest) = self.attribute(AttributeType::RESPONSE_PORT)?.split_first_chunk()?;
        // RFC 5780 section 7.5 pads the value to four bytes, within or behind its length.
        matches!(rest.len(), 0 | 2).then(|| u16::from_be_bytes(port))
    }

    /// The value of an attribute that is an address as it is.
    #[must_use]
    pub fn address(&self, attribute_type: AttributeType) -> Option<SocketAddr> {
        decode_address(self.attribute(attribute_type)?)
    }

    /// The value of an attribute that is a XORed address.
    #[must_use]
    pub fn xor_address(&self, attribute_type: AttributeType) -> Option<SocketAddr> {
        decode_xor_address(self.attribute(attribute_type)?, &self.transaction_id())
    }

    /// The value of an attribute that is a number of 32 bits.
    #[must_use]
    pub fn u32(&self, attribute_type: AttributeType) -> Option<u32> {
        decode_u32(self.attribute(attribute_type)?)
    }

    /// The value of an attribute that is a number of 64 bits.
    #[must_use]
    pub fn u64(&self, attribute_type: AttributeType) -> Option<u64> {
        self.array(attribute_type).map(u64::from_be_bytes)
    }

    /// The value of an attribute that has exactly `N` bytes.
    #[must_use]
    pub fn array<const N: usize>(&self, attribute_type: AttributeType) -> Option<[u8; N]> {
        self.attribute(attribute_type)?.try_into().ok()
    }

    fn text(&self, attribute_type: AttributeType, max: usize) -> Option<&'a str> {
        core::str::from_utf8(self.attribute(attribute_type).filter(|value| value.len() <= max)?).ok()
    }
}

fn decode_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}
