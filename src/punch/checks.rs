//! Connectivity checks and their answers as messages (RFC 8445 section 7, RFC 8489).

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{CandidateKind, Role};
use crate::{
    address::unspecified,
    wire::stun::{AttributeType, Builder, Class, Message, Method, TransactionId},
};

/// What a check may carry that must be understood.
pub(super) const UNDERSTOOD: &[AttributeType] =
    &[AttributeType::USERNAME, AttributeType::PRIORITY, AttributeType::USE_CANDIDATE];

/// What a check says of its sender.
pub(super) struct Check<'a> {
    pub(super) transaction: TransactionId,
    /// The fragments of both sides, the peer's first.
    pub(super) username: &'a str,
    /// The peer's.
    pub(super) password: &'a str,
    pub(super) role: Role,
    pub(super) tie_breaker: u64,
    pub(super) nominate: bool,
    pub(super) ipv6: bool,
}

impl Check<'_> {
    pub(super) fn build(&self) -> Vec<u8> {
        let role = match self.role {
            Role::Controlling => AttributeType::ICE_CONTROLLING,
            Role::Controlled => AttributeType::ICE_CONTROLLED,
        };
        let builder = Builder::new(Class::Request, Method::BINDING, self.transaction)
            .string(AttributeType::USERNAME, self.username)
            .u32(AttributeType::PRIORITY, CandidateKind::PeerReflexive.priority(unspecified(self.ipv6)))
            .u64(role, self.tie_breaker);
        let builder = if self.nominate { builder.flag(AttributeType::USE_CANDIDATE) } else { builder };
        builder.integrity(self.password.as_bytes()).fingerprint().finish()
    }
}

/// The success answer to a check.
pub(super) fn answer(request: &Message<'_>, mapped: SocketAddr, password: &str) -> Vec<u8> {
    Builder::new(Class::Success, Method::BINDING, request.transaction_id())
        .xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped)
        .integrity(password.as_bytes())
        .fingerprint()
        .finish()
}

/// An error answer; signed where the request was authentic.
pub(super) fn refusal(
    request: &Message<'_>,
    code: u16,
    reason: &str,
    unknown: &[AttributeType],
    password: Option<&str>,
) -> Vec<u8> {
    let builder = Builder::new(Class::Error, Method::BINDING, request.transaction_id()).error_code(code, reason);
    let builder = if unknown.is_empty() { builder } else { builder.unknown_attributes(unknown.iter().copied()) };
    let builder = match password {
        Some(password) => builder.integrity(password.as_bytes()),
        None => builder,
    };
    builder.fingerprint().finish()
}
