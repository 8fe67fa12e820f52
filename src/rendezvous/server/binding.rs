//! STUN Binding for everybody (RFC 8489), with the answers from the other port that RFC 5780 asks for, and RFC 3489
//! for those who still speak it.
//!
//! An answer is at most 24 bytes longer than its request, so the server is a poor amplifier: what RFC 5780 adds is
//! said only in answers to requests that are at least as long (PADDING makes them so). A CHANGE-REQUEST that cannot
//! be honoured gets no answer: one from the wrong address would let the client believe in an open NAT.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::{
    rendezvous::codes,
    wire::stun::{
        AttributeType, Builder, ChangeRequest, Class, ClassicRequest, FINGERPRINT_LENGTH, Fingerprint, Message, Method,
    },
};

/// The attributes that a Binding request may carry. Credentials and ICE's attributes are let pass: they ask nothing
/// of a server that authenticates nobody.
const UNDERSTOOD: &[AttributeType] = &[
    AttributeType::CHANGE_REQUEST,
    AttributeType::USERNAME,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::PRIORITY,
    AttributeType::USE_CANDIDATE,
    AttributeType::PADDING,
];

/// Where the server's answers may come from, as far as clients are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origins {
    /// The address and port that the request came to.
    pub(super) origin: SocketAddr,
    /// The other port, where there is one.
    pub(super) other: Option<SocketAddr>,
}

/// An answer, and whether it leaves from the other port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) from_other: bool,
    pub(super) bytes: Vec<u8>,
}

/// Which port answers; `None` when nothing may.
fn from_other(change: Option<ChangeRequest>, has_other: bool) -> Option<bool> {
    let change = change.unwrap_or_default();
    if change.change_ip || change.change_port && !has_other { None } else { Some(change.change_port) }
}

/// Answers a Binding request.
pub(super) fn answer(request: &Message<'_>, remote: SocketAddr, origins: Origins) -> Option<Answer> {
    let fingerprint = match request.verify_fingerprint() {
        Fingerprint::Absent => false,
        Fingerprint::Valid => true,
        Fingerprint::Invalid => return None,
    };
    let close = |builder: Builder| if fingerprint { builder.fingerprint().finish() } else { builder.finish() };
    let id = request.transaction_id();
    let mut unknown = request.unknown_comprehension_required(UNDERSTOOD).take(4).peekable();
    if unknown.peek().is_some() {
        let builder = Builder::new(Class::Error, Method::BINDING, id)
            .error_code(codes::UNKNOWN_ATTRIBUTE, "")
            .unknown_attributes(unknown);
        return Some(Answer { from_other: false, bytes: close(builder) });
    }
    let from_other = from_other(request.change_request(), origins.other.is_some())?;
    let mut builder =
        Builder::new(Class::Success, Method::BINDING, id).xor_address(AttributeType::XOR_MAPPED_ADDRESS, remote);
    let origin = if from_other { origins.other.unwrap_or(origins.origin) } else { origins.origin };
    let more: usize = [Some(origin), origins.other].into_iter().flatten().map(attribute_length).sum();
    let fixed = builder.len() + if fingerprint { FINGERPRINT_LENGTH } else { 0 };
    if fixed + more <= request.as_bytes().len() {
        builder = builder.address(AttributeType::RESPONSE_ORIGIN, origin);
        if let Some(other) = origins.other {
            builder = builder.address(AttributeType::OTHER_ADDRESS, other);
        }
    }
    let bytes = close(builder);
    Some(Answer { from_other, bytes })
}

/// Bytes of an attribute with this address.
const fn attribute_length(address: SocketAddr) -> usize {
    if address.is_ipv4() { 4 + 8 } else { 4 + 20 }
}

/// Answers a request of RFC 3489.
pub(super) fn answer_classic(request: &ClassicRequest<'_>, remote: SocketAddr, has_other: bool) -> Option<Answer> {
    let from_other = from_other(request.change_request(), has_other)?;
    Some(Answer { from_other, bytes: request.answer(remote) })
}
