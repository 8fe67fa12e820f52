//! IP packets, as far as a router looks at them: read into what the network model wants to know, and rewritten as it
//! decided.
//!
//! UDP, TCP and the ICMP errors about them pass, in IPv4 and IPv6. Whatever else a host sends (fragments, options of
//! IPv6, router solicitations, echoes) is none of the model's business and is dropped. Checksums are mended where a
//! word was replaced (RFC 1624), not made anew, so that a broken packet stays broken.

use netsim::{Carried, TcpHeader};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    sync::Arc,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Destination unreachable, time exceeded, parameter problem (RFC 792).
const ICMP_ERRORS: [u8; 3] = [3, 11, 12];
/// Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443).
const ICMPV6_ERRORS: [u8; 4] = [1, 2, 3, 4];
/// Before the packet that an ICMP error is about.
const ICMP_HEADER: usize = 8;

/// An IP header: where it ends, and what it says.
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    protocol: u8,
    /// What follows the header, in the bytes that it was read from.
    body: Range<usize>,
}

impl Ip {
    /// Reads a header; a packet that another quotes may be cut.
    fn read(bytes: &[u8], is_quoted: bool) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let (source, destination, ttl, protocol, start, end) = match bytes.first()? >> 4 {
            4 => {
                let header = usize::from(bytes[0] & 15) * 4;
                // Neither more fragments nor an offset: a whole datagram.
                if header < 20 || word(6)? & 0x3fff != 0 {
                    return None;
                }
                let address =
                    |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?).into());
                (address(12)?, address(16)?, bytes[8], bytes[9], header, usize::from(word(2)?))
            }
            6 => {
                let address =
                    |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?).into());
                (address(8)?, address(24)?, bytes[7], bytes[6], 40, 40 + usize::from(word(4)?))
            }
            _ => return None,
        };
        let end = if is_quoted { end.min(bytes.len()) } else { end };
        (start <= end && end <= bytes.len()).then_some(Self { source, destination, ttl, protocol, body: start..end })
    }

    /// The endpoints, if the body begins with ports.
    fn endpoints(&self, body: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
        Some((SocketAddr::new(self.source, port(0)?), SocketAddr::new(self.destination, port(2)?)))
    }

    fn icmp_errors(&self) -> Option<&'static [u8]> {
        match (self.protocol, self.source) {
            (ICMP, IpAddr::V4(_)) => Some(&ICMP_ERRORS),
            (ICMPV6, IpAddr::V6(_)) => Some(&ICMPV6_ERRORS),
            _ => None,
        }
    }
}

/// Reads a packet; none for what the model does not carry.
pub(crate) fn read(bytes: &[u8]) -> Option<Carried> {
    let ip = Ip::read(bytes, false)?;
    let body = &bytes[ip.body.clone()];
    if let Some(errors) = ip.icmp_errors() {
        return read_error(bytes, &ip, body, errors);
    }
    let (source, destination) = ip.endpoints(body)?;
    let (tcp, header) = match ip.protocol {
        UDP => (None, 8),
        TCP => (Some(read_tcp(body)?), usize::from(body.get(12)? >> 4) * 4),
        _ => return None,
    };
    let payload = Arc::from(body.get(header..)?);
    let original = Some(Arc::from(bytes));
    Some(Carried { source, destination, ttl: ip.ttl, tcp, is_error: false, payload, original })
}

fn read_tcp(body: &[u8]) -> Option<TcpHeader> {
    let number = |at: usize| Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let flags = *body.get(13)?;
    Some(TcpHeader {
        syn: flags & SYN != 0,
        ack: flags & ACK != 0,
        rst: flags & RST != 0,
        fin: flags & FIN != 0,
        sequence: number(4)?,
        acknowledgement: number(8)?,
    })
}

/// Reads an ICMP error: it goes the way of the answer to the datagram that it quotes.
fn read_error(bytes: &[u8], ip: &Ip, body: &[u8], errors: &[u8]) -> Option<Carried> {
    if !errors.contains(body.first()?) {
        return None;
    }
    let quoted = Ip::read(body.get(ICMP_HEADER..)?, true)?;
    let (from, to) = quoted.endpoints(&body[ICMP_HEADER..][quoted.body.clone()])?;
    let tcp = match quoted.protocol {
        UDP => None,
        TCP => Some(TcpHeader::default()),
        _ => return None,
    };
    let (payload, original) = (Arc::from([]), Some(Arc::from(bytes)));
    (from.ip() == ip.destination).then_some(Carried {
        source: to,
        destination: from,
        ttl: ip.ttl,
        tcp,
        is_error: true,
        payload,
        original,
    })
}

/// Makes the packet that a host receives; none for what could not have been sent.
pub(crate) fn write(carried: &Carried) -> Option<Vec<u8>> {
    let Some(original) = &carried.original else {
        return make((carried.source, carried.destination), carried.ttl, carried.tcp, &carried.payload);
    };
    let mut bytes = original.to_vec();
    let ip = Ip::read(&bytes, false)?;
    let (header, body) = bytes.split_at_mut(ip.body.start);
    let body = &mut body[..ip.body.end - ip.body.start];
    set_ttl(header, carried.ttl);
    if ip.icmp_errors().is_none() {
        set_endpoints(header, body, ip.protocol, carried.source, carried.destination);
        return Some(bytes);
    }
    // The router that complains is translated like the endpoint that it complains about.
    set_addresses(header, carried.source.ip(), carried.destination.ip(), &mut [])?;
    let quoted = Ip::read(body.get(ICMP_HEADER..)?, true)?;
    let (quoted_header, quoted_body) = body[ICMP_HEADER..].split_at_mut(quoted.body.start);
    set_endpoints(quoted_header, quoted_body, quoted.protocol, carried.destination, carried.source);
    body[2..4].fill(0);
    let pseudo = match (carried.source.ip(), carried.destination.ip()) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            sum(&source.octets()) + sum(&destination.octets()) + body.len() as u32 + u32::from(ICMPV6)
        }
        _ => 0,
    };
    let checksum = !fold(sum(body) + pseudo);
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(bytes)
}

fn set_ttl(header: &mut [u8], ttl: u8) {
    if header[0] >> 4 == 6 {
        header[7] = ttl;
        return;
    }
    let before = [header[8], header[9]];
    header[8] = ttl;
    let after = [ttl, header[9]];
    mend(&mut header[10..12], &before, &after);
}

/// Replaces the addresses in a header, and mends its checksum and those given.
fn set_addresses(header: &mut [u8], source: IpAddr, destination: IpAddr, checksums: &mut [u8]) -> Option<()> {
    let (range, after): (_, Vec<u8>) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => (12..20, [source.octets(), destination.octets()].concat()),
        (IpAddr::V6(source), IpAddr::V6(destination)) => (8..40, [source.octets(), destination.octets()].concat()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let before = header.get(range.clone())?.to_vec();
    header[range].copy_from_slice(&after);
    if source.is_ipv4() {
        mend(&mut header[10..12], &before, &after);
    }
    mend(checksums, &before, &after);
    Some(())
}

/// Replaces addresses and ports, and mends both checksums, where they are.
fn set_endpoints(header: &mut [u8], body: &mut [u8], protocol: u8, source: SocketAddr, destination: SocketAddr) {
    let at = if protocol == TCP { 16 } else { 6 };
    let mut checksum = body.get(at..at + 2).map(<[u8]>::to_vec).unwrap_or_default();
    // A datagram of IPv4 may be without (RFC 768).
    let is_without = protocol == UDP && source.is_ipv4() && checksum == [0, 0];
    if set_addresses(header, source.ip(), destination.ip(), &mut checksum).is_none() {
        return;
    }
    let after = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let before = body[..4].to_vec();
    body[..4].copy_from_slice(&after);
    mend(&mut checksum, &before, &after);
    if !is_without && !checksum.is_empty() {
        if protocol == UDP && checksum == [0, 0] {
            checksum = vec![0xff, 0xff];
        }
        body[at..at + 2].copy_from_slice(&checksum);
    }
}

/// Makes a packet from nothing: the RST that a border answers with, or what a stranger sends; none if the addresses are
/// of two families.
pub(crate) fn make(
    (from, to): (SocketAddr, SocketAddr),
    ttl: u8,
    tcp: Option<TcpHeader>,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let mut body = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let (protocol, checksum_at) = match tcp {
        Some(tcp) => {
            body.extend(tcp.sequence.to_be_bytes());
            body.extend(tcp.acknowledgement.to_be_bytes());
            let flags = [(tcp.fin, FIN), (tcp.syn, SYN), (tcp.rst, RST), (tcp.ack, ACK)];
            let flags = flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag);
            // Five words of header, the largest window, no checksum yet, nothing urgent.
            body.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
            (TCP, 16)
        }
        None => {
            body.extend((payload.len() as u16 + 8).to_be_bytes());
            body.extend([0, 0]);
            (UDP, 6)
        }
    };
    body.extend_from_slice(payload);
    let length = body.len() as u16;
    let mut bytes = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0];
            header.extend((length + 20).to_be_bytes());
            header.extend([0, 0, 0x40, 0, ttl, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let checksum = !fold(sum(&header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, ttl]);
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let addresses = if from.is_ipv4() { &bytes[12..20] } else { &bytes[8..40] };
    let mut checksum = !fold(sum(addresses) + sum(&body) + u32::from(protocol) + u32::from(length));
    if checksum == 0 && protocol == UDP {
        // Zero says that there is none (RFC 768).
        checksum = u16::MAX;
    }
    body[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(body);
    Some(bytes)
}

/// Mends a checksum (or none, which is empty) after words were replaced: HC' = ~(~HC + ~m + m') (RFC 1624).
fn mend(checksum: &mut [u8], before: &[u8], after: &[u8]) {
    let [high, low] = checksum else { return };
    let old = !u16::from_be_bytes([*high, *low]);
    let gone = !fold(sum(before));
    let new = !fold(u32::from(old) + u32::from(gone) + sum(after));
    checksum.copy_from_slice(&new.to_be_bytes());
}

/// The sum of 16-bit words, an odd last byte padded (RFC 1071); 64 KiB cannot overflow it.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram with right checksums.
    fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let (payload, original) = (Arc::from(payload), None);
        write(&Carried { source, destination, ttl: 64, tcp: None, is_error: false, payload, original }).unwrap()
    }

    /// Whether every checksum of a packet is right.
    fn is_sound(bytes: &[u8]) -> bool {
        let ip = Ip::read(bytes, false).unwrap();
        let body = &bytes[ip.body.clone()];
        let addresses = if ip.source.is_ipv4() { &bytes[12..20] } else { &bytes[8..40] };
        let pseudo = match ip.protocol {
            ICMP => 0,
            protocol => sum(addresses) + u32::from(protocol) + body.len() as u32,
        };
        let header = ip.source.is_ipv6() || fold(sum(&bytes[..ip.body.start])) == u16::MAX;
        header && fold(sum(body) + pseudo) == u16::MAX
    }

    #[test]
    fn endpoints_and_ttl_are_replaced_and_checksums_mended() {
        for (source, destination, new) in [
            ("10.0.0.2:5000", "192.0.2.1:7000", "198.51.100.1:65535"),
            ("[2001:db8::2]:5000", "[2001:db8::1]:7000", "[2001:db8::3]:1"),
        ] {
            let bytes = udp(source, destination, b"odd");
            assert!(is_sound(&bytes));
            let mut carried = read(&bytes).unwrap();
            assert_eq!((carried.source, carried.destination), (source.parse().unwrap(), destination.parse().unwrap()));
            assert_eq!((carried.ttl, &*carried.payload, carried.tcp), (64, &b"odd"[..], None));
            (carried.source, carried.ttl) = (new.parse().unwrap(), 61);
            let sent = write(&carried).unwrap();
            assert!(is_sound(&sent), "{sent:?}");
            let again = read(&sent).unwrap();
            assert_eq!((again.source, again.destination, again.ttl), (carried.source, carried.destination, 61));
        }
    }

    #[test]
    fn a_datagram_without_a_checksum_stays_so() {
        let mut bytes = udp("10.0.0.2:5000", "192.0.2.1:7000", b"hello");
        bytes[26..28].fill(0);
        let mut carried = read(&bytes).unwrap();
        carried.source = "198.51.100.1:9".parse().unwrap();
        assert_eq!(write(&carried).unwrap()[26..28], [0, 0]);
    }

    #[test]
    fn a_refusal_is_a_reset_with_right_checksums() {
        for (source, destination) in
            [("192.0.2.1:7000", "198.51.100.1:5000"), ("[2001:db8::2]:5000", "[2001:db8::1]:7000")]
        {
            let tcp = TcpHeader { rst: true, ack: true, acknowledgement: 0x0102_0304, ..TcpHeader::default() };
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let (payload, original) = (Arc::from([]), None);
            let carried = Carried { source, destination, ttl: 64, tcp: Some(tcp), is_error: false, payload, original };
            let bytes = write(&carried).unwrap();
            assert!(is_sound(&bytes));
            let again = read(&bytes).unwrap();
            assert_eq!((again.tcp, again.source, again.destination), (carried.tcp, source, destination));
        }
    }

    #[test]
    fn an_error_is_translated_with_what_it_quotes() {
        let quoted = udp("192.0.2.1:7000", "10.0.0.2:5000", b"hello");
        let mut bytes = udp("10.0.0.2:0", "192.0.2.1:0", &[&[0; 8][..], &quoted].concat());
        // In place of the UDP header: destination unreachable, port unreachable.
        bytes.drain(20..28);
        let length = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[9] = ICMP;
        bytes[10..12].fill(0);
        let checksum = !fold(sum(&bytes[..20]));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes[20..28].copy_from_slice(&[3, 3, 0, 0, 0, 0, 0, 0]);
        let checksum = !fold(sum(&bytes[20..]));
        bytes[22..24].copy_from_slice(&checksum.to_be_bytes());
        assert!(is_sound(&bytes));

        let mut carried = read(&bytes).unwrap();
        assert!(carried.is_error && carried.tcp.is_none());
        assert_eq!(
            (carried.source.to_string(), carried.destination.to_string()),
            ("10.0.0.2:5000".into(), "192.0.2.1:7000".into())
        );
        carried.source = "198.51.100.1:6000".parse().unwrap();
        let sent = write(&carried).unwrap();
        assert!(is_sound(&sent) && is_sound(&sent[28..]), "{sent:?}");
        assert_eq!(read(&sent).unwrap().source, carried.source);
        assert_eq!(Ip::read(&sent, false).unwrap().source, carried.source.ip());
    }

    #[test]
    fn what_is_none_of_our_business_is_not_read_and_nothing_panics() {
        let whole = udp("10.0.0.2:5000", "192.0.2.1:7000", b"hello");
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None);
        }
        let fragment = [&whole[..6], &[0x20, 0], &whole[8..]].concat();
        assert_eq!(read(&fragment), None);
        for at in 0..whole.len() {
            for value in [0, 1, 0x4f, 0x60, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                let _ = read(&broken).and_then(|carried| write(&carried));
            }
        }
    }
}
