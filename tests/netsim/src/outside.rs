//! Hosts whose programs are not in the simulation: their packets are carried in from outside and out to it.
//!
//! Such a host has addresses, a link and a place like any other, and no stack: what reaches it waits for
//! [`Network::poll_carried`]. So the same NATs, firewalls and links stand between real programs, when somebody moves
//! the clock with the real one and rewrites the packets as the network says (`tests/natlab`).
//!
//! An ICMP error about a datagram takes the way of the datagram's answer: a NAT and a firewall let it through where
//! they would let the answer through, translated alike, and it opens and refreshes nothing (RFC 5508, REQ-4 and REQ-5;
//! RFC 5927).

use crate::forwarding::Packet;
use crate::network::{HostId, Network, SiteId};
use crate::tcp::TcpHeader;
use crate::trace::DropReason;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A packet of an outside host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Where it comes from. Of an ICMP error: where the datagram was going that it is about.
    pub source: SocketAddr,
    /// Where it goes. Of an ICMP error: where that datagram came from.
    pub destination: SocketAddr,
    /// Time to live.
    pub ttl: u8,
    /// The header of a TCP segment, or of the one that an ICMP error is about; none for UDP.
    pub tcp: Option<TcpHeader>,
    /// Whether it is an ICMP error.
    pub is_error: bool,
    /// What a UDP datagram or TCP segment carries.
    pub payload: Arc<[u8]>,
    /// The whole packet as it was sent, which the network does not look at. Nothing for what the network itself makes:
    /// the RST of a border.
    pub original: Option<Arc<[u8]>>,
}

impl Network {
    /// Makes `host` one whose packets are carried in and out.
    pub fn set_outside(&mut self, host: HostId) {
        self.hosts[host.0 as usize].is_outside = true;
    }

    /// Sends a packet from an outside host, now.
    pub fn carry_in(&mut self, host: HostId, carried: Carried) {
        let Carried { source, destination, ttl, tcp, is_error, payload, original } = carried;
        let counters = &mut self.hosts[host.0 as usize].counters;
        if tcp.is_some() {
            counters.segments_sent += 1;
        } else {
            counters.packets_sent += 1;
            counters.bytes_sent += payload.len() as u64;
        }
        let id = self.next_packet;
        self.launch_from(host, Packet { id, source, destination, ttl, tcp, is_error, payload, original });
    }

    /// Takes the next packet that has arrived at an outside host, in order of arrival.
    pub fn poll_carried(&mut self) -> Option<(HostId, Carried)> {
        self.carried.pop_front()
    }

    /// Returns how many packets are on links now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Hands a packet that has arrived to the outside.
    pub(crate) fn carry_out(&mut self, host: HostId, packet: Packet) {
        let Packet { source, destination, ttl, tcp, is_error, payload, original, .. } = packet;
        if tcp.is_none() {
            let counters = &mut self.hosts[host.0 as usize].counters;
            counters.packets_delivered += 1;
            counters.bytes_delivered += payload.len() as u64;
        }
        let carried = Carried { source, destination, ttl, tcp, is_error, payload, original };
        self.carried.push_back((host, carried));
    }

    /// Passes firewall and NAT with an ICMP error on the way out; returns the source before, if the NAT replaced it.
    pub(crate) fn translate_error_source(
        &mut self,
        id: SiteId,
        packet: &mut Packet,
    ) -> Result<Option<SocketAddr>, DropReason> {
        let site = &self.sites[id.0 as usize];
        let (is_tcp, inner, outer) = (packet.tcp.is_some(), packet.source, packet.destination);
        if site.firewall.as_ref().is_some_and(|firewall| !firewall.knows(self.now, inner, outer, is_tcp)) {
            return Err(DropReason::Filtered);
        }
        let (Some(nat), Some(tcp_nat), SocketAddr::V4(source), SocketAddr::V4(destination)) =
            (&site.nat, &site.tcp_nat, inner, outer)
        else {
            return Ok(None);
        };
        let port = match is_tcp {
            false => nat.known_port(self.now, source, destination),
            true => tcp_nat.known_port(self.now, source, destination),
        };
        let external = site.external().ok_or(DropReason::NoRoute)?;
        packet.source = (external, port.ok_or(DropReason::NoMapping)?).into();
        Ok(Some(source.into()))
    }

    /// Passes the NAT with an ICMP error on the way in, and asks the firewall; returns the destination before, if
    /// replaced.
    pub(crate) fn translate_error_destination(
        &mut self,
        id: SiteId,
        packet: &mut Packet,
    ) -> Result<Option<SocketAddr>, DropReason> {
        let site = &self.sites[id.0 as usize];
        let is_tcp = packet.tcp.is_some();
        let mut was = None;
        if site.public.contains(&packet.destination.ip()) {
            let (Some(nat), Some(tcp_nat), SocketAddr::V4(source), SocketAddr::V4(destination)) =
                (&site.nat, &site.tcp_nat, packet.source, packet.destination)
            else {
                return Err(DropReason::NoHost);
            };
            let inner = match is_tcp {
                _ if site.external().map(IpAddr::V4) != Some(packet.destination.ip()) => None,
                false => nat.known_internal(self.now, destination.port(), source).map(SocketAddr::V4),
                true => tcp_nat.known_internal(self.now, destination.port(), source),
            };
            was = Some(packet.destination);
            packet.destination = inner.ok_or(DropReason::NoMapping)?;
        }
        let (inner, outer) = (packet.destination, packet.source);
        if site.firewall.as_ref().is_some_and(|firewall| !firewall.knows(self.now, inner, outer, is_tcp)) {
            return Err(DropReason::Filtered);
        }
        Ok(was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Filtering, Firewall, HostSpec, Link, Mapping, Nat, PortAllocation, SiteSpec};

    struct World {
        net: Network,
        hosts: [HostId; 2],
    }

    const SERVER: &str = "192.0.2.1:7000";

    /// A server on the backbone, and a client behind a NAT and a firewall.
    fn world() -> World {
        let mut net = Network::new(1);
        let server = net.add_host(HostSpec { addresses: vec!["192.0.2.1".parse().unwrap()], link: Link::delay_ms(1) });
        let (mapping, filtering) = (Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
        let site = net.add_site(SiteSpec {
            public: vec!["198.51.100.1".parse().unwrap()],
            nat: Some(Nat::new(mapping, filtering, PortAllocation::Random)),
            firewall: Some(Firewall::default()),
            link: Link::delay_ms(1),
            ..SiteSpec::default()
        });
        let client = net.add_host_in(site, vec!["10.0.0.2".parse().unwrap()], Link::default());
        for host in [server, client] {
            net.set_outside(host);
        }
        World { net, hosts: [server, client] }
    }

    fn packet(source: &str, destination: &str, is_error: bool) -> Carried {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let payload: Arc<[u8]> = (*b"hello").into();
        let original = Some(Arc::clone(&payload));
        Carried { source, destination, ttl: 64, tcp: None, is_error, payload, original }
    }

    impl World {
        /// Sends, and returns what arrives anywhere.
        fn send(&mut self, from: usize, carried: Carried) -> Option<Carried> {
            self.net.carry_in(self.hosts[from], carried);
            while let Some(time) = self.net.next_event() {
                self.net.advance_to(time);
            }
            self.net.poll_carried().map(|(_, carried)| carried)
        }
    }

    #[test]
    fn packets_are_translated_and_carried_out_with_what_came_in() {
        let mut world = world();
        let arrived = world.send(1, packet("10.0.0.2:5000", SERVER, false)).unwrap();
        assert_eq!(arrived.source.ip().to_string(), "198.51.100.1");
        assert_eq!((arrived.destination.to_string().as_str(), arrived.ttl), (SERVER, 62));
        assert_eq!(arrived.original.as_deref(), Some(&b"hello"[..]));
        let answer = packet(SERVER, &arrived.source.to_string(), false);
        assert_eq!(world.send(0, answer).unwrap().destination.to_string(), "10.0.0.2:5000");
        assert_eq!(world.net.counters(world.hosts[1]).packets_delivered, 1);
    }

    #[test]
    fn an_icmp_error_takes_the_way_of_an_answer_and_opens_nothing() {
        let mut world = world();
        assert_eq!(world.send(1, packet("10.0.0.2:5000", SERVER, true)), None, "nothing to be about");
        assert_eq!(world.net.mappings(crate::SiteId(0)), []);
        let mapped = world.send(1, packet("10.0.0.2:5000", SERVER, false)).unwrap().source.to_string();
        assert_eq!(world.send(0, packet("192.0.2.1:7001", &mapped, true)), None, "that port was not spoken to");
        let inward = world.send(0, packet(SERVER, &mapped, true)).unwrap();
        assert_eq!((inward.destination.to_string().as_str(), inward.is_error), ("10.0.0.2:5000", true));
        let outward = world.send(1, packet("10.0.0.2:5000", SERVER, true)).unwrap();
        assert_eq!((outward.source.to_string(), outward.is_error), (mapped, true));
    }

    #[test]
    fn the_refusal_of_a_border_has_no_original() {
        let mut world = world();
        let nat = Nat {
            unsolicited_syn: crate::UnsolicitedSyn::Reset,
            ..Nat::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, PortAllocation::Random)
        };
        world.net.set_nat(crate::SiteId(0), nat);
        let syn = TcpHeader { syn: true, sequence: 7, ..TcpHeader::default() };
        let syn = Carried { tcp: Some(syn), ..packet(SERVER, "198.51.100.1:9", false) };
        let refusal = world.send(0, syn).unwrap();
        let header = refusal.tcp.unwrap();
        assert_eq!((header.rst, header.ack, header.acknowledgement, refusal.original), (true, true, 8, None));
    }
}
