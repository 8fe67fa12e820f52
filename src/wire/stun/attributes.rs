//! The numbers of the attributes: those of the RFCs, then ours.
//!
//! A type below 0x8000 must be understood by whoever gets a request with it, or the request is refused with 420;
//! the others may be ignored (RFC 8489 section 14).

use core::fmt;

/// The type of an attribute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeType(u16);

impl AttributeType {
    /// The type of this number.
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u16 {
        self.0
    }

    /// Whether a request with this attribute must be refused by those who do not know it.
    #[must_use]
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

/// Declares the constants, and their names for `Debug`.
macro_rules! attribute_types {
    ($($(#[$doc:meta])+ $name:ident = $value:literal;)+) => {
        impl AttributeType {
            $($(#[$doc])+ pub const $name: Self = Self($value);)+
        }

        impl fmt::Debug for AttributeType {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match *self {
                    $(Self::$name => stringify!($name),)+
                    Self(other) => return write!(f, "AttributeType({other:#06x})"),
                })
            }
        }
    };
}

attribute_types! {
    /// The mapped address as it is (RFC 8489 section 14.1).
    MAPPED_ADDRESS = 0x0001;
    /// Asks for an answer from another address or port (RFC 5780 section 7.2).
    CHANGE_REQUEST = 0x0003;
    /// Whose credentials are used (RFC 8489 section 14.3).
    USERNAME = 0x0006;
    /// An HMAC-SHA1 of the message so far (RFC 8489 section 14.5).
    MESSAGE_INTEGRITY = 0x0008;
    /// Why a request was not carried out (RFC 8489 section 14.8).
    ERROR_CODE = 0x0009;
    /// The attributes that an error 420 is about (RFC 8489 section 14.13).
    UNKNOWN_ATTRIBUTES = 0x000A;
    /// How long an allocation lives, in seconds (RFC 8656 section 18.2).
    LIFETIME = 0x000D;
    /// The peer's address at a relay (RFC 8656 section 18.3).
    XOR_PEER_ADDRESS = 0x0012;
    /// Whose users the credentials belong to (RFC 8489 section 14.9).
    REALM = 0x0014;
    /// What the server wants to see again (RFC 8489 section 14.10).
    NONCE = 0x0015;
    /// An HMAC-SHA256 of the message so far (RFC 8489 section 14.6).
    MESSAGE_INTEGRITY_SHA256 = 0x001C;
    /// The mapped address, hidden from NATs that rewrite what looks like an address (RFC 8489 section 14.2).
    XOR_MAPPED_ADDRESS = 0x0020;
    /// The priority of the peer-reflexive candidate that a check may show (RFC 8445 section 16.1).
    PRIORITY = 0x0024;
    /// Nominates the pair of this check (RFC 8445 section 16.1).
    USE_CANDIDATE = 0x0025;
    /// Makes a message longer (RFC 5780 section 7.6).
    PADDING = 0x0026;
    /// Asks for an answer to another port (RFC 5780 section 7.5).
    RESPONSE_PORT = 0x0027;
    /// The sender's program (RFC 8489 section 14.14).
    SOFTWARE = 0x8022;
    /// Another server to ask (RFC 8489 section 14.15).
    ALTERNATE_SERVER = 0x8023;
    /// A CRC-32 of the message; always last (RFC 8489 section 14.7).
    FINGERPRINT = 0x8028;
    /// The sender is controlled; with its tie-breaker (RFC 8445 section 16.1).
    ICE_CONTROLLED = 0x8029;
    /// The sender is controlling; with its tie-breaker (RFC 8445 section 16.1).
    ICE_CONTROLLING = 0x802A;
    /// Where the answer was sent from (RFC 5780 section 7.3).
    RESPONSE_ORIGIN = 0x802B;
    /// Where answers to a CHANGE-REQUEST come from (RFC 5780 section 7.4).
    OTHER_ADDRESS = 0x802C;

    /// The protocol's version, 32 bits. Ours, like all that follow.
    VERSION = 0xC000;
    /// Names a registration, 16 bytes.
    REGISTRATION_ID = 0xC001;
    /// The key that a registration's later messages are authenticated with, 32 bytes; sent once.
    REGISTRATION_KEY = 0xC002;
    /// A listener's name, 1 to 64 characters.
    NAME = 0xC003;
    /// Names a session, 16 bytes.
    SESSION_ID = 0xC004;
    /// An X25519 public key, 32 bytes.
    PUBLIC_KEY = 0xC005;
    /// Grows with every message of its kind, 64 bits.
    SEQUENCE = 0xC006;
    /// An address at which the sender may be reached; repeatable.
    CANDIDATE = 0xC007;
    /// Tells the server that is asked which server the listener is at; opaque, at most 64 bytes.
    ROUTE = 0xC008;
    /// Which kinds of connection are wanted or offered; 32 bits.
    TRANSPORT = 0xC009;
    /// The address of the listener that is asked for; not XORed, the port is 0.
    TARGET_ADDRESS = 0xC00A;
    /// How often a registration must be renewed, in seconds; 32 bits.
    KEEPALIVE = 0xC00B;
    /// The sender can meet a peer of 2015, or the peer is one: the port to punch from and to, 32 bits.
    LEGACY = 0xC00C;
    /// 32 bits, whose meaning depends on the method.
    FLAGS = 0xC00D;
}
