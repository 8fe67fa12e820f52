//! The first 16 bits of a message, its class and method, and the transaction id (RFC 8489 section 5).
//!
//! The two bits of the class stand between the twelve of the method, for the sake of RFC 3489, whose four
//! message types come out unchanged: `00 mmmmm c mmm c mmmm`, the most significant bit first.
//!
//! Our own methods are from 0x0F1, the end of the range that RFC 7983 leaves to STUN: from 0x100 on, the first
//! byte of a message would be over 0x03 and belong to other protocols.

use core::fmt;

/// What a message is within its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Gets no answer.
    Indication,
    /// The answer to a request that was carried out.
    Success,
    /// The answer to a request that was not.
    Error,
}

/// What a transaction is about; 12 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(u16);

impl Method {
    /// Asks for the mapped address, or checks a path (RFC 8489, RFC 8445).
    pub const BINDING: Self = Self(0x001);
    /// Registers a listener at the server, or keeps it registered. Ours, like all that follow.
    pub const REGISTER: Self = Self(0x0F1);
    /// Asks the server to introduce the sender to a listener.
    pub const CONNECT: Self = Self(0x0F2);
    /// Introduces a connector to a listener.
    pub const INTRODUCE: Self = Self(0x0F3);
    /// Carries candidates found after the introduction.
    pub const TRICKLE: Self = Self(0x0F4);
    /// Announces that the socket will hold application data only.
    pub const BARE: Self = Self(0x0F5);
    /// Ends a session.
    pub const END: Self = Self(0x0F6);

    /// The method of this number; `None` when it has more than 12 bits.
    #[must_use]
    pub const fn new(value: u16) -> Option<Self> {
        if value <= 0xFFF { Some(Self(value)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::BINDING => "BINDING",
            Self::REGISTER => "REGISTER",
            Self::CONNECT => "CONNECT",
            Self::INTRODUCE => "INTRODUCE",
            Self::TRICKLE => "TRICKLE",
            Self::BARE => "BARE",
            Self::END => "END",
            Self(other) => return write!(f, "Method({other:#05x})"),
        })
    }
}

/// What ties an answer to its request: 96 bits that the requester drew at random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, "TransactionId", &self.0)
    }
}

/// Writes `name(0011..ff)`.
pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, name: &str, bytes: &[u8]) -> fmt::Result {
    write!(f, "{name}(")?;
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
    f.write_str(")")
}

/// The message type of a class and a method.
pub(super) const fn message_type(class: Class, method: Method) -> u16 {
    let class = match class {
        Class::Request => 0x000,
        Class::Indication => 0x010,
        Class::Success => 0x100,
        Class::Error => 0x110,
    };
    let Method(m) = method;
    class | (m & 0xF80) << 2 | (m & 0x070) << 1 | m & 0x00F
}

/// The class and method of a message type; its two first bits are left out of account.
pub(super) const fn class_and_method(message_type: u16) -> (Class, Method) {
    let class = match (message_type & 0x100 != 0, message_type & 0x010 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    };
    let method = (message_type >> 2) & 0xF80 | (message_type >> 1) & 0x070 | message_type & 0x00F;
    (class, Method(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_type_round_trips() {
        for bits in 0..0x4000 {
            let (class, method) = class_and_method(bits);
            assert_eq!(message_type(class, method), bits);
        }
    }

    #[test]
    fn binding_has_the_types_of_the_rfc() {
        let types = [Class::Request, Class::Indication, Class::Success, Class::Error]
            .map(|class| message_type(class, Method::BINDING));
        assert_eq!(types, [0x0001, 0x0011, 0x0101, 0x0111]);
    }

    #[test]
    fn our_methods_keep_the_first_byte_of_stun() {
        for method in [Method::REGISTER, Method::CONNECT, Method::INTRODUCE, Method::TRICKLE, Method::BARE, Method::END]
        {
            for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
                assert!(message_type(class, method) >> 8 <= 3, "{method:?}");
            }
        }
    }
}
