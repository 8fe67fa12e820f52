//! Captures of failed runs, for the usual tools: the classic pcap format with nanosecond times and raw IP packets
//! (draft-ietf-opsawg-pcap), each datagram as its sender and as its receiver saw it.

use crate::trace::{Event, Record};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Magic number of a pcap file whose times are in nanoseconds.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Packets begin with an IPv4 or IPv6 header.
const LINKTYPE_RAW: u32 = 101;
/// Most bytes of a packet; nothing is cut.
const SNAPLEN: u32 = 262_144;
/// IANA protocol number of UDP.
const UDP: u8 = 17;
/// IANA protocol number of TCP.
const TCP: u8 = 6;

pub(crate) fn capture<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [MAGIC_NANOSECONDS, 4 << 16 | 2, 0, 0, SNAPLEN, LINKTYPE_RAW] {
        file.extend(word.to_le_bytes());
    }
    for record in records.filter(|record| matches!(record.event, Event::Sent | Event::Delivered)) {
        let Some(packet) = packet(record) else {
            continue;
        };
        let length = packet.len() as u32;
        let (seconds, nanos) = (record.at.0 / 1_000_000_000, record.at.0 % 1_000_000_000);
        for word in [seconds as u32, nanos as u32, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

/// Returns the IP packet of a record; none if its endpoints are of two families, which no packet could be.
fn packet(record: &Record) -> Option<Vec<u8>> {
    let (protocol, header_length, checksum_at) = if record.tcp.is_some() { (TCP, 20, 16) } else { (UDP, 8, 6) };
    let length = u16::try_from(record.payload.len() + header_length).ok()?;
    let mut header = match (record.source.ip(), record.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(record, source, destination, protocol, length)?,
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(record, source, destination, protocol, length),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let mut body = Vec::with_capacity(usize::from(length));
    body.extend(record.source.port().to_be_bytes());
    body.extend(record.destination.port().to_be_bytes());
    match record.tcp {
        None => {
            body.extend(length.to_be_bytes());
            body.extend([0; 2]);
        }
        Some(tcp) => {
            body.extend(tcp.sequence.to_be_bytes());
            body.extend(tcp.acknowledgement.to_be_bytes());
            let flags = u8::from(tcp.fin) | u8::from(tcp.syn) << 1 | u8::from(tcp.rst) << 2 | u8::from(tcp.ack) << 4;
            // Five words of header; a window that is always open; no checksum yet, nothing urgent.
            body.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
    }
    body.extend(&*record.payload);
    // The pseudo header: both addresses (the last 8 or 32 bytes of the header), protocol and length.
    let addresses = if record.source.is_ipv4() { &header[12..20] } else { &header[8..40] };
    let pseudo = u32::from(protocol) + u32::from(length);
    let checksum = match !fold(sum(addresses) + sum(&body) + pseudo) {
        0 => u16::MAX,
        checksum => checksum,
    };
    body[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    header.extend(body);
    Some(header)
}

fn ipv4(record: &Record, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> Option<Vec<u8>> {
    let mut header = vec![0x45, 0];
    header.extend(length.checked_add(20)?.to_be_bytes());
    header.extend((record.packet as u16).to_be_bytes());
    header.extend([0, 0, record.ttl, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let checksum = !fold(sum(&header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    Some(header)
}

fn ipv6(record: &Record, source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: u16) -> Vec<u8> {
    let flow_label = record.packet as u32 & 0x000f_ffff;
    let mut header = (6 << 28 | flow_label).to_be_bytes().to_vec();
    header.extend(length.to_be_bytes());
    header.extend([protocol, record.ttl]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

/// Returns the sum of 16-bit words, an odd last byte padded (RFC 1071); 64 KiB cannot overflow it.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}
