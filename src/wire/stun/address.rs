//! Addresses as attribute values (RFC 8489 sections 14.1 and 14.2).
//!
//! A zero byte, a family (1 IPv4, 2 IPv6), the port, then 4 or 16 bytes of address. In the XOR form the port is
//! XORed with the first half of the magic cookie and the address with the cookie followed by the transaction id,
//! since some NATs rewrite every four bytes that look like the address they translate. IPv4-mapped IPv6 addresses
//! are left as they are here.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAGIC_COOKIE, TransactionId};

/// The number of the IPv4 family (RFC 8489 section 14.1).
const FAMILY_IPV4: u8 = 1;
/// The number of the IPv6 family (RFC 8489 section 14.1).
const FAMILY_IPV6: u8 = 2;

/// An encoded address: 8 bytes for IPv4, 20 for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressValue(Encoded);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoded {
    V4([u8; 8]),
    V6([u8; 20]),
}

impl AddressValue {
    /// The attribute's value.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Encoded::V4(bytes) => bytes,
            Encoded::V6(bytes) => bytes,
        }
    }
}

/// Encodes an address as it is: MAPPED-ADDRESS, OTHER-ADDRESS and the like.
#[must_use]
pub fn encode_address(address: SocketAddr) -> AddressValue {
    let [p0, p1] = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            AddressValue(Encoded::V4([0, FAMILY_IPV4, p0, p1, a, b, c, d]))
        }
        IpAddr::V6(ip) => {
            let mut bytes = [0; 20];
            let (head, tail) = bytes.split_at_mut(4);
            head.copy_from_slice(&[0, FAMILY_IPV6, p0, p1]);
            tail.copy_from_slice(&ip.octets());
            AddressValue(Encoded::V6(bytes))
        }
    }
}

/// Encodes an address XORed: XOR-MAPPED-ADDRESS and the like.
#[must_use]
pub fn encode_xor_address(address: SocketAddr, transaction_id: &TransactionId) -> AddressValue {
    encode_address(xor(address, transaction_id))
}

/// Decodes an address that was sent as it is; `None` when the family or the length is wrong.
#[must_use]
pub fn decode_address(value: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], ip) = value.split_first_chunk()?;
    let ip = match family {
        FAMILY_IPV4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        FAMILY_IPV6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([p0, p1])))
}

/// Decodes an address that was sent XORed; `None` when the family or the length is wrong.
#[must_use]
pub fn decode_xor_address(value: &[u8], transaction_id: &TransactionId) -> Option<SocketAddr> {
    decode_address(value).map(|address| xor(address, transaction_id))
}

/// Applies the XOR, which is its own inverse.
fn xor(address: SocketAddr, transaction_id: &TransactionId) -> SocketAddr {
    let [cookie0, cookie1, ..] = MAGIC_COOKIE.to_be_bytes();
    let port = address.port() ^ u16::from_be_bytes([cookie0, cookie1]);
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => {
            let id = transaction_id.0.iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte));
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ (u128::from(MAGIC_COOKIE) << 96 | id)))
        }
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

    #[test]
    fn xored_ipv4_as_in_rfc_5769_section_2_2() {
        let address = "192.0.2.1:32853".parse().unwrap();
        let value = encode_xor_address(address, &ID);
        assert_eq!(value.as_bytes(), [0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        assert_eq!(decode_xor_address(value.as_bytes(), &ID), Some(address));
    }

    #[test]
    fn a_mapped_address_stays_what_it_is() {
        let address = "[::ffff:192.0.2.1]:1".parse().unwrap();
        assert_eq!(decode_address(encode_address(address).as_bytes()), Some(address));
        assert_eq!(encode_address(address).as_bytes().len(), 20);
    }

    #[test]
    fn a_wrong_family_or_length_is_no_address() {
        assert_eq!(decode_address(&[0, 3, 0, 1, 1, 2, 3, 4]), None);
        assert_eq!(decode_address(&[0, 2, 0, 1, 1, 2, 3, 4]), None);
        assert_eq!(decode_address(&[0, 1, 0, 1, 1, 2, 3]), None);
        assert_eq!(decode_address(&[0, 1]), None);
    }
}
