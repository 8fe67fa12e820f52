//! The one way in which the server marks bytes as its own: a truncated HMAC-SHA-256.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Bytes of a seal: 128 bits of an HMAC-SHA-256 (RFC 2104 section 5 allows down to half).
pub(super) const SEAL_LENGTH: usize = 16;

/// Bytes of an address within sealed bytes: family, 16 bytes of address, port.
pub(super) const ADDRESS_LENGTH: usize = 19;

/// Seals the parts, whose lengths must be fixed by the first.
pub(super) fn seal(key: &[u8; 32], parts: &[&[u8]]) -> [u8; SEAL_LENGTH] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key)
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    for part in parts {
        mac.update(part);
    }
    let full = mac.finalize().into_bytes();
    let mut short = [0; SEAL_LENGTH];
    for (to, from) in short.iter_mut().zip(full) {
        *to = from;
    }
    short
}

/// Compares in constant time.
pub(super) fn equal(expected: &[u8], received: &[u8]) -> bool {
    expected.ct_eq(received).into()
}

/// Writes an address in its fixed form.
pub(super) fn write_address(to: &mut [u8; ADDRESS_LENGTH], address: SocketAddr) {
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (4, ip.to_ipv6_mapped()),
        IpAddr::V6(ip) => (6, ip),
    };
    let bytes = [family].into_iter().chain(ip.octets()).chain(address.port().to_be_bytes());
    for (to, from) in to.iter_mut().zip(bytes) {
        *to = from;
    }
}

/// An IP address in 16 bytes, an IPv4 one mapped.
pub(super) const fn write_ip(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Reads [`write_ip`]'s.
pub(super) fn read_ip(bytes: &[u8; 16]) -> IpAddr {
    crate::address::canonical_ip(IpAddr::from(*bytes))
}

/// Reads an address in its fixed form.
pub(super) fn read_address(bytes: &[u8; ADDRESS_LENGTH]) -> Option<SocketAddr> {
    let (&[family], rest) = bytes.split_first_chunk()?;
    let (ip, port) = rest.split_first_chunk::<16>()?;
    let ip = Ipv6Addr::from(*ip);
    let ip = match family {
        4 => IpAddr::V4(ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED)),
        6 => IpAddr::V6(ip),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(port.try_into().ok()?)))
}
