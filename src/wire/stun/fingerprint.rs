//! FINGERPRINT: the CRC-32 of the message before it, XORed with "STUN" (RFC 8489 section 14.7).

use super::{AttributeType, FINGERPRINT_LENGTH, HEADER_LENGTH, MAGIC_COOKIE};

/// Whether a message ends with its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fingerprint {
    /// It carries none.
    Absent,
    /// It carries the right one, and nothing after it.
    Valid,
    /// It carries a wrong one, or one that is not its last attribute.
    Invalid,
}

/// What the CRC-32 is XORed with, so that it differs from the CRC-32 of other protocols (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// The attribute's header: its type and the length 4.
const ATTRIBUTE_HEADER: [u8; 4] = {
    let [high, low] = AttributeType::FINGERPRINT.value().to_be_bytes();
    [high, low, 0, 4]
};

/// The value of the attribute that follows these bytes, whose header already counts it.
pub(super) fn compute(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        let entry = CRC_TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default();
        crc >> 8 ^ entry
    });
    !crc ^ FINGERPRINT_XOR
}

/// Whether the bytes have the length, the magic cookie and the last eight bytes of a message with a valid
/// FINGERPRINT. Little is read of datagrams that have not.
pub(crate) fn ends_with_valid_fingerprint(bytes: &[u8]) -> bool {
    let Some((rest, &value)) = bytes.split_last_chunk::<4>() else {
        return false;
    };
    let Some((_, attribute_header)) = rest.split_last_chunk::<4>() else {
        return false;
    };
    let Some((&[_, _, l0, l1, c0, c1, c2, c3], _)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    bytes.len() >= HEADER_LENGTH + FINGERPRINT_LENGTH
        && u32::from_be_bytes([c0, c1, c2, c3]) == MAGIC_COOKIE
        && usize::from(u16::from_be_bytes([l0, l1])) == bytes.len() - HEADER_LENGTH
        && bytes.len().is_multiple_of(4)
        && *attribute_header == ATTRIBUTE_HEADER
        && bytes.get(..bytes.len() - FINGERPRINT_LENGTH).map(compute) == Some(u32::from_be_bytes(value))
}

/// CRC-32 of ITU V.42, one byte at a time: the reflected polynomial 0xEDB88320.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut entry = index as u32;
        let mut bit = 0;
        while bit < 8 {
            entry = if entry & 1 == 1 { entry >> 1 ^ 0xEDB8_8320 } else { entry >> 1 };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, where a panic is an error")]
        {
            table[index] = entry;
        }
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_32_has_its_check_value() {
        assert_eq!(compute(b"123456789") ^ FINGERPRINT_XOR, 0xCBF4_3926);
    }
}
