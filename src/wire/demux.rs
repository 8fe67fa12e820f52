//! Tells STUN from everything else that shares its socket, by the first bytes (RFC 7983).
//!
//! The first byte of STUN is 0x00 to 0x03. Application data may begin so too, therefore the length in the header
//! must be that of the datagram, and the magic cookie must be there. A Binding request of RFC 3489 has no
//! cookie; it is told by its type alone, and looked for only where no application data can arrive.

use super::stun::{HEADER_LENGTH, MAGIC_COOKIE, ends_with_valid_fingerprint};

/// What a UDP datagram is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datagram {
    /// STUN, our own protocol included; its attributes may still be malformed.
    Stun,
    /// A Binding request of RFC 3489; likewise.
    ClassicStun,
    /// Anything else.
    Other,
}

impl Datagram {
    /// Classifies a datagram.
    ///
    /// ```
    /// use holepunch::wire::demux::Datagram;
    ///
    /// assert_eq!(Datagram::classify(b"application data"), Datagram::Other);
    /// ```
    #[must_use]
    pub fn classify(bytes: &[u8]) -> Self {
        let Some((&[t0, t1, l0, l1, c0, c1, c2, c3, ..], body)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
            return Self::Other;
        };
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if t0 > 3 || length != body.len() || !length.is_multiple_of(4) {
            Self::Other
        } else if u32::from_be_bytes([c0, c1, c2, c3]) == MAGIC_COOKIE {
            Self::Stun
        } else if (t0, t1) == (0, 1) {
            Self::ClassicStun
        } else {
            Self::Other
        }
    }
}

/// Whether a datagram is STUN with magic cookie, right length and a valid FINGERPRINT at its end.
///
/// This is the question of the data path: nearly all data is told by its first eight bytes, and the checksum is
/// computed only for what passes for STUN otherwise.
#[must_use]
pub fn is_stun_with_fingerprint(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first <= 3) && ends_with_valid_fingerprint(bytes)
}

/// The length of the STUN message that bytes of a stream begin with (RFC 8489 section 6.2.2: it frames itself): `None`
/// when they are too few to tell, `Some(None)` when they begin no message.
pub(crate) fn frame_length(bytes: &[u8]) -> Option<Option<usize>> {
    if bytes.first().is_some_and(|first| *first > 3) {
        return Some(None);
    }
    let &[_, _, high, low] = bytes.first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    Some(length.is_multiple_of(4).then_some(HEADER_LENGTH + length))
}
