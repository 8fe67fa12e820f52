//! MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 (RFC 8489 sections 14.5 and 14.6).
//!
//! Both are an HMAC of everything before the attribute, with the header's length changed to end with it. The key
//! of short-term credentials, ICE's, is the password; that of long-term credentials is a hash that the caller
//! computes.

use hmac::{Hmac, KeyInit, Mac, digest::Output};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::HEADER_LENGTH;

/// Whether a message is authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Integrity {
    /// It does not carry the attribute.
    Absent,
    /// It was made by someone with this key; what stands after the attribute is not covered.
    Valid,
    /// It was not made with this key, or was changed, or the attribute has a wrong length.
    Invalid,
}

/// The HMAC-SHA1 of a message up to the attribute that begins at the end of `before`.
pub(super) fn compute_sha1(key: &[u8], before: &[u8], attribute_length: usize) -> [u8; 20] {
    compute::<Hmac<Sha1>>(key, before, attribute_length).into()
}

/// The HMAC-SHA256 of a message up to the attribute that begins at the end of `before`.
pub(super) fn compute_sha256(key: &[u8], before: &[u8], attribute_length: usize) -> [u8; 32] {
    compute::<Hmac<Sha256>>(key, before, attribute_length).into()
}

/// Compares in a time that does not tell how much of the value was right.
pub(super) fn compare(expected: &[u8], received: &[u8]) -> Integrity {
    if bool::from(expected.ct_eq(received)) { Integrity::Valid } else { Integrity::Invalid }
}

fn compute<M: Mac + KeyInit>(key: &[u8], before: &[u8], attribute_length: usize) -> Output<M> {
    let mut mac = <M as KeyInit>::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    // A message is shorter than 65,556 bytes, so the length fits: the parser and the builder see to it.
    let length = u16::try_from((before.len() + attribute_length).saturating_sub(HEADER_LENGTH)).unwrap_or(u16::MAX);
    if let Some((&[type0, type1, _, _], rest)) = before.split_first_chunk() {
        mac.update(&[type0, type1]);
        mac.update(&length.to_be_bytes());
        mac.update(rest);
    }
    mac.finalize().into_bytes()
}
