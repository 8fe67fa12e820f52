//! Reading a message: its structure is checked once and completely, its attributes are decoded when asked for.
//!
//! The parser walks the attributes once, to see that each lies within the message, and remembers where the first
//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT stand. What stands behind those is not protected
//! by them and must be ignored (RFC 8489 sections 14.5 to 14.7); [`Attributes`] leaves it out, so that a caller
//! who has verified the integrity sees no attribute that it does not cover, save the other two of the three.

use core::fmt;

use super::{
    AttributeType, Class, FINGERPRINT_LENGTH, Fingerprint, HEADER_LENGTH, INTEGRITY_LENGTH, INTEGRITY_SHA256_LENGTH,
    Integrity, MAGIC_COOKIE, Method, TransactionId, fingerprint, integrity, methods::class_and_method,
};

/// A STUN message, borrowed, whose structure was found right.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: Method,
    transaction_id: TransactionId,
    integrity: Option<Protection<'a>>,
    integrity_sha256: Option<Protection<'a>>,
    fingerprint: Option<Protection<'a>>,
}

/// An attribute that protects what stands before it.
#[derive(Clone, Copy)]
struct Protection<'a> {
    before: &'a [u8],
    value: &'a [u8],
}

impl<'a> Message<'a> {
    /// Parses a datagram, or a frame of a stream, that is exactly one message.
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong with the structure. The values of the attributes are not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (message_type, [c0, c1, c2, c3, id @ ..]) = parse_header(bytes)?;
        if u32::from_be_bytes([c0, c1, c2, c3]) != MAGIC_COOKIE {
            return Err(ParseError::NoMagicCookie);
        }
        check_attributes(bytes)?;
        let (class, method) = class_and_method(message_type);
        let mut message = Self {
            bytes,
            class,
            method,
            transaction_id: TransactionId(id),
            integrity: None,
            integrity_sha256: None,
            fingerprint: None,
        };
        let mut attributes = message.attributes();
        while let Some(Raw { offset, attribute_type, value }) = attributes.next_raw() {
            let protection = bytes.get(..offset).map(|before| Protection { before, value });
            match attribute_type {
                AttributeType::MESSAGE_INTEGRITY => message.integrity = protection,
                AttributeType::MESSAGE_INTEGRITY_SHA256 => message.integrity_sha256 = protection,
                AttributeType::FINGERPRINT => message.fingerprint = protection,
                _ => {}
            }
        }
        Ok(message)
    }

    /// The bytes it was parsed from.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Request, indication, success or error.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What it is about.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// What ties an answer to its request.
    #[must_use]
    pub const fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }

    /// The attributes that count, in their order.
    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes { walk: Walk::new(self.bytes), stage: Stage::Open }
    }

    /// The value of the first attribute of a type; the later ones of most types are to be ignored (RFC 8489 section 14).
    #[must_use]
    pub fn attribute(&self, wanted: AttributeType) -> Option<&'a [u8]> {
        self.attributes().find(|(attribute_type, _)| *attribute_type == wanted).map(|(_, value)| value)
    }

    /// The types that the receiver of a request had to understand and does not: what the error 420 lists.
    ///
    /// What is understood depends on the receiver and the method, so it is an argument. The two integrities and
    /// the fingerprint are always understood.
    pub fn unknown_comprehension_required(&self, understood: &[AttributeType]) -> impl Iterator<Item = AttributeType> {
        self.attributes().map(|(attribute_type, _)| attribute_type).filter(|attribute_type| {
            attribute_type.is_comprehension_required()
                && Stage::after(*attribute_type).is_none()
                && !understood.contains(attribute_type)
        })
    }

    /// Verifies FINGERPRINT. It proves nothing about the sender; it tells STUN from other data.
    pub fn verify_fingerprint(&self) -> Fingerprint {
        match self.fingerprint {
            None => Fingerprint::Absent,
            Some(Protection { before, .. })
                if before.len() + FINGERPRINT_LENGTH == self.bytes.len()
                    && fingerprint::ends_with_valid_fingerprint(self.bytes) =>
            {
                Fingerprint::Valid
            }
            Some(_) => Fingerprint::Invalid,
        }
    }

    /// Verifies MESSAGE-INTEGRITY (HMAC-SHA1), in constant time.
    pub fn verify_integrity(&self, key: &[u8]) -> Integrity {
        let Some(Protection { before, value }) = self.integrity else {
            return Integrity::Absent;
        };
        integrity::compare(&integrity::compute_sha1(key, before, INTEGRITY_LENGTH), value)
    }

    /// Verifies MESSAGE-INTEGRITY-SHA256, in constant time.
    ///
    /// A truncated value is [`Integrity::Invalid`]: only a usage that says so may truncate it (RFC 8489 section
    /// 14.6), and none here does.
    pub fn verify_integrity_sha256(&self, key: &[u8]) -> Integrity {
        let Some(Protection { before, value }) = self.integrity_sha256 else {
            return Integrity::Absent;
        };
        integrity::compare(&integrity::compute_sha256(key, before, INTEGRITY_SHA256_LENGTH), value)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?} ", self.method, self.class, self.transaction_id)?;
        f.debug_list().entries(self.attributes().map(|(attribute_type, _)| attribute_type)).finish()
    }
}

/// The attributes of a message that count: none but MESSAGE-INTEGRITY-SHA256 and FINGERPRINT after
/// MESSAGE-INTEGRITY, none but FINGERPRINT after MESSAGE-INTEGRITY-SHA256, none after FINGERPRINT.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    walk: Walk<'a>,
    stage: Stage,
}

impl<'a> Attributes<'a> {
    fn next_raw(&mut self) -> Option<Raw<'a>> {
        while self.stage < Stage::Fingerprint {
            // The structure was checked by `Message::parse`.
            let raw = self.walk.next()?.ok()?;
            let next = Stage::after(raw.attribute_type);
            if self.stage == Stage::Open || next.is_some_and(|next| self.stage < next) {
                self.stage = next.unwrap_or(self.stage);
                return Some(raw);
            }
        }
        None
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (AttributeType, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_raw().map(|raw| (raw.attribute_type, raw.value))
    }
}

/// What the attributes so far leave room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Anything.
    Open,
    /// MESSAGE-INTEGRITY-SHA256 and FINGERPRINT.
    Integrity,
    /// FINGERPRINT.
    IntegritySha256,
    /// Nothing.
    Fingerprint,
}

impl Stage {
    /// The stage that begins after an attribute; `None` when it changes nothing.
    pub(super) const fn after(attribute_type: AttributeType) -> Option<Self> {
        match attribute_type {
            AttributeType::MESSAGE_INTEGRITY => Some(Self::Integrity),
            AttributeType::MESSAGE_INTEGRITY_SHA256 => Some(Self::IntegritySha256),
            AttributeType::FINGERPRINT => Some(Self::Fingerprint),
            _ => None,
        }
    }
}

/// Checks the header that STUN and RFC 3489 share; returns the message type and the 16 bytes behind the length.
pub(super) fn parse_header(bytes: &[u8]) -> Result<(u16, [u8; 16]), ParseError> {
    let (&[t0, t1, l0, l1, id @ ..], body) = bytes.split_first_chunk::<HEADER_LENGTH>().ok_or(ParseError::TooShort)?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if t0 & 0xC0 != 0 {
        Err(ParseError::NotStun)
    } else if !length.is_multiple_of(4) {
        Err(ParseError::Unaligned)
    } else if length != body.len() {
        Err(ParseError::LengthMismatch)
    } else {
        Ok((u16::from_be_bytes([t0, t1]), id))
    }
}

/// Checks that every attribute, with its padding, lies within the message.
pub(super) fn check_attributes(bytes: &[u8]) -> Result<(), ParseError> {
    Walk::new(bytes).try_for_each(|raw| raw.map(|_| ()))
}

/// An attribute and where it begins in the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    pub(super) offset: usize,
    pub(super) attribute_type: AttributeType,
    pub(super) value: &'a [u8],
}

/// Goes through all attributes of a message, whatever they mean.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(message: &'a [u8]) -> Self {
        let rest = match message.split_at_checked(HEADER_LENGTH) {
            Some((_, rest)) => rest,
            None => &[],
        };
        Self { rest, offset: HEADER_LENGTH }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Raw<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let offset = self.offset;
        let split = self.rest.split_first_chunk().and_then(|(&[t0, t1, l0, l1], rest)| {
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let (padded, rest) = rest.split_at_checked(length.next_multiple_of(4))?;
            let raw = Raw {
                offset,
                attribute_type: AttributeType::new(u16::from_be_bytes([t0, t1])),
                value: padded.get(..length)?,
            };
            Some((raw, 4 + padded.len(), rest))
        });
        let Some((raw, length, rest)) = split else {
            self.rest = &[];
            return Some(Err(ParseError::AttributeTooLong { offset }));
        };
        self.rest = rest;
        self.offset += length;
        Some(Ok(raw))
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// There are fewer than the 20 bytes of a header.
    TooShort,
    /// The first two bits are not zero.
    NotStun,
    /// The length is no multiple of four.
    Unaligned,
    /// The length is not that of the bytes after the header.
    LengthMismatch,
    /// The magic cookie is missing: at best a request of RFC 3489.
    NoMagicCookie,
    /// Without magic cookie, and no Binding request of RFC 3489.
    NotClassicRequest,
    /// An attribute is longer than what is left of the message.
    AttributeTooLong {
        /// Where the attribute begins, in bytes from the message's first.
        offset: usize,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "shorter than the 20 bytes of a STUN header",
            Self::NotStun => "the first two bits are not zero, so it is not STUN",
            Self::Unaligned => "the length in the header is no multiple of four",
            Self::LengthMismatch => "the length in the header is not that of the message",
            Self::NoMagicCookie => "the magic cookie is missing",
            Self::NotClassicRequest => "not a Binding request of RFC 3489",
            Self::AttributeTooLong { offset } => {
                return write!(f, "the attribute at byte {offset} reaches beyond the message");
            }
        })
    }
}

impl core::error::Error for ParseError {}
