//! What an IP address can mean to somebody else: the one form that is compared, and what may be sent to it.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The one form of an address that everything here compares: IPv4 wherever an IPv6 form carries it (IPv4-mapped, or
/// the well-known prefix of NAT64, RFC 6052); flow label and scope are dropped.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(address.ip()), address.port())
}

/// [`canonical`] without a port.
pub(crate) fn canonical_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), nat64(v6)) {
            (Some(v4), _) => IpAddr::V4(v4),
            (None, Some(v4)) => v4,
            (None, None) => ip,
        },
    }
}

/// The IPv4 address within the well-known prefix 64:ff9b::/96 (RFC 6052 section 2.1).
fn nat64(ip: Ipv6Addr) -> Option<IpAddr> {
    let [a, b, c, d, e, f, high, low] = ip.segments();
    ([a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0]).then(|| {
        let [o0, o1] = high.to_be_bytes();
        let [o2, o3] = low.to_be_bytes();
        IpAddr::from([o0, o1, o2, o3])
    })
}

/// Whether an address can be another host's on any link but one: not unspecified, multicast, broadcast, reserved or
/// link-local. Loopback passes: whether it means anything depends on who says so.
pub(crate) fn is_routable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            !(first == 0 || first >= 240 || ip.is_multicast() || ip.is_link_local())
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local()),
    }
}

/// Whether an address is a public one, where unwanted packets could be a nuisance to a third party.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && second & 0xC0 == 64; // 100.64.0.0/10, RFC 6598
            !(ip.is_private() || ip.is_loopback() || shared)
        }
        IpAddr::V6(ip) => !(ip.is_unique_local() || ip.is_loopback()),
    }
}

/// Whether a peer may be told this address of an interface as a candidate (RFC 8445 section 5.1.1.1).
pub(crate) fn is_sharable(ip: IpAddr) -> bool {
    is_routable(ip) && !ip.is_loopback()
}

/// The unspecified address of a family.
pub(crate) const fn unspecified(ipv6: bool) -> IpAddr {
    if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carried_ipv4_is_canonicalised() {
        let form = |text: &str| canonical(text.parse().unwrap());
        assert_eq!(form("[::ffff:192.0.2.7]:5"), "192.0.2.7:5".parse().unwrap());
        assert_eq!(form("[64:ff9b::c000:207]:5"), "192.0.2.7:5".parse().unwrap());
        assert_eq!(form("[2001:db8::1]:5"), "[2001:db8::1]:5".parse().unwrap());
    }

    #[test]
    fn public_and_private_are_told_apart() {
        for (text, public) in [
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("127.0.0.1", false),
            ("fd00::1", false),
            ("2001:db8::1", true),
        ] {
            assert_eq!(is_public(text.parse().unwrap()), public, "{text}");
        }
    }
}
