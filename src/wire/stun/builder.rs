//! Writing a message, attribute by attribute, into a `Vec` of at most [`MAX_MESSAGE`] bytes.
//!
//! The order is the caller's, up to the end: the integrities come after all other attributes and the fingerprint
//! is last, as every receiver demands. Room for the three is always kept, so that a message that became too long
//! lacks an attribute, never its protection.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{
    AttributeType, Class, FINGERPRINT_LENGTH, HEADER_LENGTH, INTEGRITY_LENGTH, INTEGRITY_SHA256_LENGTH, MAGIC_COOKIE,
    MAX_MESSAGE, Method, TransactionId, encode_address, encode_xor_address, fingerprint, integrity, message::Stage,
    methods::message_type,
};

/// Room that no other attribute may take.
const RESERVED: usize = INTEGRITY_LENGTH + INTEGRITY_SHA256_LENGTH + FINGERPRINT_LENGTH;

/// A message in the making.
///
/// An attribute is left out when the message would become too long, or when it comes after one that must be later;
/// [`Builder::is_complete`] tells. Only attributes whose lengths others choose (names, realms, nonces) can come
/// to that.
#[derive(Clone)]
#[must_use]
pub struct Builder {
    bytes: Vec<u8>,
    transaction_id: TransactionId,
    stage: Stage,
    complete: bool,
}

impl Builder {
    /// Begins a message.
    pub fn new(class: Class, method: Method, transaction_id: TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&message_type(class, method).to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        bytes.extend_from_slice(&transaction_id.0);
        Self { bytes, transaction_id, stage: Stage::Open, complete: true }
    }

    /// Appends an attribute, padded with zeros to four bytes.
    pub fn attribute(mut self, attribute_type: AttributeType, value: &[u8]) -> Self {
        let end = self.bytes.len() + 4 + value.len().next_multiple_of(4);
        let belongs_here = self.stage == Stage::Open && Stage::after(attribute_type).is_none();
        debug_assert!(
            belongs_here,
            "{attribute_type:?} stands before the integrity and the fingerprint, which have methods of their own"
        );
        if belongs_here && end <= MAX_MESSAGE - RESERVED {
            self.push(attribute_type, value);
        } else {
            self.complete = false;
        }
        self
    }

    /// Appends a text.
    pub fn string(self, attribute_type: AttributeType, value: &str) -> Self {
        self.attribute(attribute_type, value.as_bytes())
    }

    /// Appends a number of 32 bits.
    pub fn u32(self, attribute_type: AttributeType, value: u32) -> Self {
        self.attribute(attribute_type, &value.to_be_bytes())
    }

    /// Appends a number of 64 bits.
    pub fn u64(self, attribute_type: AttributeType, value: u64) -> Self {
        self.attribute(attribute_type, &value.to_be_bytes())
    }

    /// Appends an attribute without value, which says what it says by being there.
    pub fn flag(self, attribute_type: AttributeType) -> Self {
        self.attribute(attribute_type, &[])
    }

    /// Appends an address as it is.
    pub fn address(self, attribute_type: AttributeType, address: SocketAddr) -> Self {
        self.attribute(attribute_type, encode_address(address).as_bytes())
    }

    /// Appends an address XORed.
    pub fn xor_address(self, attribute_type: AttributeType, address: SocketAddr) -> Self {
        let value = encode_xor_address(address, &self.transaction_id);
        self.attribute(attribute_type, value.as_bytes())
    }

    /// Appends ERROR-CODE; `code` is 300 to 699.
    pub fn error_code(self, code: u16, reason: &str) -> Self {
        debug_assert!((300..700).contains(&code), "STUN has no error {code}");
        let [_, class] = (code / 100).to_be_bytes();
        let [_, number] = (code % 100).to_be_bytes();
        let mut value = Vec::with_capacity(4 + reason.len());
        value.extend_from_slice(&[0, 0, class & 7, number]);
        value.extend_from_slice(reason.as_bytes());
        self.attribute(AttributeType::ERROR_CODE, &value)
    }

    /// Appends UNKNOWN-ATTRIBUTES.
    pub fn unknown_attributes(self, unknown: impl IntoIterator<Item = AttributeType>) -> Self {
        let value: Vec<u8> =
            unknown.into_iter().flat_map(|attribute_type| attribute_type.value().to_be_bytes()).collect();
        self.attribute(AttributeType::UNKNOWN_ATTRIBUTES, &value)
    }

    /// Appends PADDING so that the whole message will have at least `total` bytes, at most [`MAX_MESSAGE`], when
    /// `following` bytes of other attributes come after it; both are multiples of four. A message that is long enough is left as it is.
    ///
    /// PADDING must be understood by the receiver (RFC 5780 section 7.6): send it to servers that do.
    pub fn padding_to(mut self, total: usize, following: usize) -> Self {
        let end = total.min(MAX_MESSAGE).saturating_sub(following);
        let open = self.stage == Stage::Open;
        debug_assert!(open, "PADDING stands before the integrity and the fingerprint");
        if open && self.bytes.len() < end {
            let length = end.saturating_sub(self.bytes.len() + 4);
            self.push(AttributeType::PADDING, [0; MAX_MESSAGE].get(..length).unwrap_or_default());
        }
        self
    }

    /// Appends MESSAGE-INTEGRITY, an HMAC-SHA1 of the message so far.
    pub fn integrity(mut self, key: &[u8]) -> Self {
        if self.advance(Stage::Integrity) {
            let value = integrity::compute_sha1(key, &self.bytes, INTEGRITY_LENGTH);
            self.push(AttributeType::MESSAGE_INTEGRITY, &value);
        }
        self
    }

    /// Appends MESSAGE-INTEGRITY-SHA256, an HMAC-SHA256 of the message so far.
    pub fn integrity_sha256(mut self, key: &[u8]) -> Self {
        if self.advance(Stage::IntegritySha256) {
            let value = integrity::compute_sha256(key, &self.bytes, INTEGRITY_SHA256_LENGTH);
            self.push(AttributeType::MESSAGE_INTEGRITY_SHA256, &value);
        }
        self
    }

    /// Appends FINGERPRINT, a CRC-32 of the message so far.
    pub fn fingerprint(mut self) -> Self {
        if self.advance(Stage::Fingerprint) {
            self.set_length(FINGERPRINT_LENGTH);
            let value = fingerprint::compute(&self.bytes);
            self.push(AttributeType::FINGERPRINT, &value.to_be_bytes());
        }
        self
    }

    /// The message's transaction id.
    #[must_use]
    pub const fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }

    /// Bytes so far, the header included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the header is always there")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether every attribute found its place.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Ends the message.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.set_length(0);
        self.bytes
    }

    /// Moves on to an attribute that closes the message for those before it.
    fn advance(&mut self, stage: Stage) -> bool {
        let in_order = self.stage < stage;
        debug_assert!(in_order, "the order is MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, FINGERPRINT, each once");
        if in_order {
            self.stage = stage;
        } else {
            self.complete = false;
        }
        in_order
    }

    fn push(&mut self, attribute_type: AttributeType, value: &[u8]) {
        // The callers see to it that the message stays shorter than MAX_MESSAGE.
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&attribute_type.value().to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Writes the length into the header, for a message that `following` more bytes will be added to.
    fn set_length(&mut self, following: usize) {
        let length = u16::try_from((self.bytes.len() + following).saturating_sub(HEADER_LENGTH)).unwrap_or(u16::MAX);
        if let Some(([_, _, header_length @ ..], _)) = self.bytes.split_first_chunk_mut::<4>() {
            *header_length = length.to_be_bytes();
        }
    }
}

impl core::fmt::Debug for Builder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Builder({:?}, {} bytes)", self.transaction_id, self.bytes.len())
    }
}
