//! STUN (RFC 8489), as far as Binding, ICE (RFC 8445), NAT discovery (RFC 5780) and our own methods need it.
//!
//! [`Message`] reads: it checks the structure of a whole datagram once, borrows it, and decodes an attribute when
//! it is asked for. [`Builder`] writes into a `Vec` of at most [`MAX_MESSAGE`] bytes. [`ClassicRequest`] is the
//! request of RFC 3489, which has no magic cookie and a 16-byte transaction id.
//!
//! A message is a header of 20 bytes (type, length, magic cookie, transaction id) and attributes, each a type, a
//! length and a value padded to 4 bytes. MESSAGE-INTEGRITY authenticates what stands before it, with the header's
//! length as if the message ended there; FINGERPRINT, a checksum, is the last attribute. So integrity and
//! fingerprint can be checked on the received bytes, without decoding anything.
//!
//! ```
//! use holepunch::wire::stun::{AttributeType, Builder, Class, Integrity, Message, Method, TransactionId};
//!
//! let bytes = Builder::new(Class::Request, Method::BINDING, TransactionId([7; 12]))
//!     .string(AttributeType::USERNAME, "their-ufrag:my-ufrag")
//!     .u32(AttributeType::PRIORITY, 0x6e00_1eff)
//!     .integrity(b"their password")
//!     .fingerprint()
//!     .finish();
//!
//! let message = Message::parse(&bytes)?;
//! assert_eq!(message.verify_integrity(b"their password"), Integrity::Valid);
//! assert_eq!(message.username(), Some("their-ufrag:my-ufrag"));
//! # Ok::<(), holepunch::wire::stun::ParseError>(())
//! ```

mod address;
mod attributes;
mod builder;
mod classic;
mod credentials;
mod fingerprint;
mod holepunch;
mod integrity;
mod message;
mod methods;
#[cfg(test)]
mod properties;
mod standard;

pub(crate) use self::fingerprint::ends_with_valid_fingerprint;
pub use self::{
    address::{AddressValue, decode_address, decode_xor_address, encode_address, encode_xor_address},
    attributes::AttributeType,
    builder::Builder,
    classic::ClassicRequest,
    credentials::Credentials,
    fingerprint::Fingerprint,
    holepunch::{
        CandidateKind, CandidateTransport, GREETING, MAX_CANDIDATES, MAX_ROUTE, Name, NameError, RegistrationId,
        SessionId, Transports, VERSION, WireCandidate,
    },
    integrity::Integrity,
    message::{Attributes, Message, ParseError},
    methods::{Class, Method, TransactionId},
    standard::{ChangeRequest, ErrorCode},
};

/// The header's third and fourth 16-bit words, which tell STUN from RFC 3489 (RFC 8489 section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// Bytes of a message's header (RFC 8489 section 5).
pub const HEADER_LENGTH: usize = 20;

/// The most bytes of a message that is built here: it fits one packet on every IPv6 path (1,280 bytes, RFC 8200
/// section 5) with room for headers and a tunnel. Longer messages of others are parsed.
pub const MAX_MESSAGE: usize = 1_200;

/// Bytes that [`Builder::integrity`] adds: the attribute's header and an HMAC-SHA1 (RFC 8489 section 14.5).
pub const INTEGRITY_LENGTH: usize = 24;

/// Bytes that [`Builder::integrity_sha256`] adds: the attribute's header and an HMAC-SHA256 (RFC 8489 section 14.6).
pub const INTEGRITY_SHA256_LENGTH: usize = 36;

/// Bytes that [`Builder::fingerprint`] adds: the attribute's header and a CRC-32 (RFC 8489 section 14.7).
pub const FINGERPRINT_LENGTH: usize = 8;
