//! Binding requests of RFC 3489, the STUN before the magic cookie, which libnice and old clients still send.
//!
//! Their transaction id has 16 bytes, and their answer carries MAPPED-ADDRESS, which is not XORed.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{
    AttributeType, ChangeRequest, Class, HEADER_LENGTH, MAGIC_COOKIE, Method, encode_address,
    message::{ParseError, Walk, check_attributes, parse_header},
    methods::message_type,
};

/// A Binding request without magic cookie, borrowed, whose structure was found right.
#[derive(Clone, Copy, Debug)]
pub struct ClassicRequest<'a> {
    bytes: &'a [u8],
    transaction_id: [u8; 16],
}

impl<'a> ClassicRequest<'a> {
    /// Parses a datagram that is exactly one request.
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong with the structure; [`ParseError::NotClassicRequest`] when there is a magic
    /// cookie, or it is another message than a Binding request.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (found, transaction_id) = parse_header(bytes)?;
        if found != message_type(Class::Request, Method::BINDING)
            || transaction_id.starts_with(&MAGIC_COOKIE.to_be_bytes())
        {
            return Err(ParseError::NotClassicRequest);
        }
        check_attributes(bytes)?;
        Ok(Self { bytes, transaction_id })
    }

    /// What ties the answer to the request.
    #[must_use]
    pub const fn transaction_id(&self) -> [u8; 16] {
        self.transaction_id
    }

    /// The value of the first attribute of a type.
    #[must_use]
    pub fn attribute(&self, wanted: AttributeType) -> Option<&'a [u8]> {
        Walk::new(self.bytes).filter_map(Result::ok).find(|raw| raw.attribute_type == wanted).map(|raw| raw.value)
    }

    /// CHANGE-REQUEST. A server that cannot do what it asks for must not answer.
    #[must_use]
    pub fn change_request(&self) -> Option<ChangeRequest> {
        ChangeRequest::from_value(self.attribute(AttributeType::CHANGE_REQUEST)?)
    }

    /// Builds the answer: a success with MAPPED-ADDRESS, 32 or 44 bytes.
    #[must_use]
    pub fn answer(&self, mapped: SocketAddr) -> Vec<u8> {
        let value = encode_address(mapped);
        // 8 or 20, so both fit a byte.
        let length = value.as_bytes().len() as u8;
        let [type0, type1] = message_type(Class::Success, Method::BINDING).to_be_bytes();
        let [mapped0, mapped1] = AttributeType::MAPPED_ADDRESS.value().to_be_bytes();
        let mut bytes = Vec::with_capacity(HEADER_LENGTH + 4 + value.as_bytes().len());
        bytes.extend_from_slice(&[type0, type1, 0, 4 + length]);
        bytes.extend_from_slice(&self.transaction_id);
        bytes.extend_from_slice(&[mapped0, mapped1, 0, length]);
        bytes.extend_from_slice(value.as_bytes());
        bytes
    }
}
