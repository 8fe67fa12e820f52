//! Forwarding: the event loop, and the way of a datagram from host to host.
//!
//! A datagram crosses the link of the interface it leaves by and is in that interface's zone. There its destination is looked up:
//! it goes down the link of the host or site that has it, or else out by the border of the zone's site and up its uplink, into the
//! zone above. At a border it loses a hop, and passes, on the way out, the firewall and then the NAT; on the way in, the NAT and
//! then the firewall.
//!
//! Only links take time, so only they make events: a datagram on a link stands in the queue, by the time it gets off and then by
//! the order of getting on. A link without delay is crossed at once.

use crate::network::{HostId, Interface, InterfaceId, LinkState, Network, SiteId, Target, Zone};
use crate::tcp::{Segment, TcpConnection, TcpError, TcpEvent, TcpHeader, TcpPort};
use crate::time::Time;
use crate::trace::{DropReason, Event, Place, Record};
use crate::tracking::UnsolicitedSyn;
use std::cmp::{Ordering, Reverse};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The time to live of a TCP segment.
const SEGMENT_TTL: u8 = 64;

/// A UDP datagram that a host sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it comes from; the address must be one of the host's.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Time to live: how many routers may see it. The first router is that of the sender's site, then come those of the backbone.
    pub ttl: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A UDP datagram that a host receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When it arrived.
    pub at: Time,
    /// Who receives it.
    pub host: HostId,
    /// Where it seems to come from.
    pub source: SocketAddr,
    /// The host's own address and port it arrived at.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) id: u64,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) ttl: u8,
    /// The header of a TCP segment; none for a UDP datagram.
    pub(crate) tcp: Option<TcpHeader>,
    /// Whether it is an ICMP error about a datagram of the other direction; outside hosts send those.
    pub(crate) is_error: bool,
    pub(crate) payload: Arc<[u8]>,
    /// The packet of an outside host as it was sent.
    pub(crate) original: Option<Arc<[u8]>>,
}

/// The way a datagram goes along a link: away from its owner, or to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// A datagram on a link. Ordered by the time it gets off, then by the order of getting on.
#[derive(Debug)]
pub(crate) struct InFlight {
    at: Time,
    order: u64,
    link: usize,
    direction: Direction,
    packet: Packet,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for InFlight {}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at).then(self.order.cmp(&other.order))
    }
}

impl Network {
    /// Returns the virtual time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Sends a datagram from a host, now.
    pub fn send(&mut self, host: HostId, datagram: Datagram) {
        let Datagram { source, destination, ttl, payload } = datagram;
        let counters = &mut self.hosts[host.0 as usize].counters;
        counters.packets_sent += 1;
        counters.bytes_sent += payload.len() as u64;
        let (id, payload) = (self.next_packet, payload.into());
        let packet = Packet { id, source, destination, ttl, tcp: None, is_error: false, payload, original: None };
        self.launch_from(host, packet);
    }

    /// Sends a segment from a host, now.
    fn send_segment(&mut self, host: HostId, segment: Segment) {
        let Segment { source, destination, header, payload } = segment;
        self.hosts[host.0 as usize].counters.segments_sent += 1;
        let (id, ttl, tcp, payload) = (self.next_packet, SEGMENT_TTL, Some(header), payload.into());
        self.launch_from(host, Packet { id, source, destination, ttl, tcp, is_error: false, payload, original: None });
    }

    pub(crate) fn launch_from(&mut self, host: HostId, packet: Packet) {
        let Packet { source, destination, .. } = packet;
        self.next_packet += 1;
        self.record(Place::Host(host), Event::Sent, &packet);

        if let Some(id) = self.interface_with(host, destination.ip()) {
            return self.deliver(id, packet);
        }
        match self.interface_with(host, source.ip()) {
            Some(id) => self.cross(self.interfaces[id.0 as usize].link, Direction::Up, packet),
            None => self.drop(Place::Host(host), DropReason::SourceAddress, &packet),
        }
    }

    /// Returns when something happens next: now, if there are deliveries to take; none, if nothing is under way.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        if !self.deliveries.is_empty() || self.hosts.iter().any(|host| !host.tcp.events.is_empty()) {
            return Some(self.now);
        }
        self.queue.peek().map(|Reverse(next)| next.at).into_iter().chain(self.next_tcp_timeout()).min()
    }

    /// Moves the clock to `time`, and does everything that happens until then, `time` included. The clock never goes back.
    ///
    /// A caller that answers deliveries must not advance past [`next_event`](Self::next_event), or its answers come late.
    pub fn advance_to(&mut self, time: Time) {
        loop {
            let arrival = self.queue.peek().map(|Reverse(next)| next.at).filter(|at| *at <= time);
            let timeout = self.next_tcp_timeout().filter(|at| *at <= time);
            if let Some(at) = timeout
                && arrival.is_none_or(|arrival| at < arrival)
            {
                self.now = self.now.max(at);
                for host in &mut self.hosts {
                    host.tcp.handle_timeout(self.now);
                }
            } else if arrival.is_some()
                && let Some(Reverse(next)) = self.queue.pop()
            {
                self.now = next.at;
                self.arrive(next.link, next.direction, next.packet);
            } else {
                break;
            }
            self.run_tcp();
        }
        self.now = self.now.max(time);
    }

    fn next_tcp_timeout(&self) -> Option<Time> {
        self.hosts.iter().filter_map(|host| host.tcp.next_timeout()).min()
    }

    /// Lets the stacks see what has reached them, and sends what they answer, until there is nothing more.
    fn run_tcp(&mut self) {
        loop {
            for index in 0..self.hosts.len() {
                while let Some(segment) = self.hosts[index].tcp.segments.pop_front() {
                    self.send_segment(HostId(index as u32), segment);
                }
            }
            let Some((host, segment)) = self.segments.pop_front() else { return };
            self.hosts[host.0 as usize].tcp.handle_segment(self.now, &segment);
        }
    }

    /// Reserves a TCP port of a host; port 0 leaves the choice to the host. Returns the local endpoint too.
    ///
    /// # Errors
    ///
    /// [`TcpError::InUse`] if it is reserved already.
    pub fn tcp_bind(&mut self, host: HostId, local: SocketAddr) -> Result<(TcpPort, SocketAddr), TcpError> {
        self.hosts[host.0 as usize].tcp.bind(local)
    }

    /// Accepts connections on a reserved port from now on.
    pub fn tcp_listen(&mut self, port: TcpPort) {
        self.hosts[port.host.0 as usize].tcp.listen(port);
    }

    /// Gives a port up; its connections stay.
    pub fn tcp_release(&mut self, port: TcpPort) {
        self.hosts[port.host.0 as usize].tcp.release(port);
    }

    /// Begins to connect from a reserved port.
    ///
    /// # Errors
    ///
    /// [`TcpError::InUse`] if there is a connection between the two endpoints already, or was a minute ago.
    pub fn tcp_connect(&mut self, port: TcpPort, remote: SocketAddr) -> Result<TcpConnection, TcpError> {
        let own = self.addresses(port.host);
        let connection = self.hosts[port.host.0 as usize].tcp.connect(self.now, port, remote, &own);
        self.run_tcp();
        connection
    }

    /// Sends bytes on a connection.
    pub fn tcp_send(&mut self, connection: TcpConnection, bytes: &[u8]) {
        self.hosts[connection.host.0 as usize].tcp.send(self.now, connection, bytes);
        self.run_tcp();
    }

    /// Closes a connection, after what was sent; ends an attempt.
    pub fn tcp_close(&mut self, connection: TcpConnection) {
        self.hosts[connection.host.0 as usize].tcp.close(self.now, connection);
        self.run_tcp();
    }

    /// Ends a connection with a RST.
    pub fn tcp_abort(&mut self, connection: TcpConnection) {
        self.hosts[connection.host.0 as usize].tcp.abort(connection);
        self.run_tcp();
    }

    /// Takes the next thing that a host's TCP tells.
    pub fn poll_tcp(&mut self) -> Option<(HostId, TcpEvent)> {
        let hosts = self.hosts.iter_mut().enumerate();
        hosts.filter_map(|(index, host)| Some((HostId(index as u32), host.tcp.events.pop_front()?))).next()
    }

    /// Returns how many ports a host has reserved, and how many connections it has or attempts; those that only rest are
    /// not among them.
    #[must_use]
    pub fn tcp_in_use(&self, host: HostId) -> (usize, usize) {
        let tcp = &self.hosts[host.0 as usize].tcp;
        (tcp.ports(), tcp.connections())
    }

    /// Takes the next datagram that has arrived, in order of arrival.
    pub fn poll_delivery(&mut self) -> Option<Delivery> {
        self.deliveries.pop_front()
    }

    /// Sends a packet along a link.
    fn cross(&mut self, link: usize, direction: Direction, packet: Packet) {
        let state = &self.links[link];
        if !state.is_up {
            return self.drop(self.place_of(link), DropReason::LinkDown, &packet);
        }
        let properties = state.link;
        let weather = &mut self.links[link].weather[usize::from(direction == Direction::Down)];
        let in_burst = properties.bursts.is_some_and(|bursts| weather.loses(self.now, bursts, &mut self.random));
        if in_burst || self.random.chance(properties.loss) {
            return self.drop(self.place_of(link), DropReason::Loss, &packet);
        }
        if self.random.chance(properties.duplicate) {
            self.record(self.place_of(link), Event::Duplicated, &packet);
            let at = self.now + properties.transit(&mut self.random);
            self.launch(at, link, direction, packet.clone());
        }
        let at = self.now + properties.transit(&mut self.random);
        self.launch(at, link, direction, packet);
    }

    fn launch(&mut self, at: Time, link: usize, direction: Direction, packet: Packet) {
        if at == self.now {
            return self.arrive(link, direction, packet);
        }
        let order = self.next_order;
        self.next_order += 1;
        self.queue.push(Reverse(InFlight { at, order, link, direction, packet }));
    }

    /// Takes a packet off a link.
    fn arrive(&mut self, link: usize, direction: Direction, packet: Packet) {
        let LinkState { owner, is_up, .. } = self.links[link];
        if !is_up {
            return self.drop(self.place_of(link), DropReason::LinkDown, &packet);
        }
        match (owner, direction) {
            (Target::Interface(id), Direction::Up) => self.route(self.interfaces[id.0 as usize].zone, packet, false),
            (Target::Interface(id), Direction::Down) => self.deliver(id, packet),
            (Target::Site(id), Direction::Up) => self.route(self.sites[id.0 as usize].parent, packet, false),
            (Target::Site(id), Direction::Down) => self.come_in(id, packet),
        }
    }

    /// Sends a packet on from a zone: down to its destination, or up, unless it came from there.
    fn route(&mut self, zone: Zone, mut packet: Packet, from_above: bool) {
        if zone.is_none() && !self.hop(Place::Backbone, self.backbone_hops, &mut packet) {
            return;
        }
        match (self.routes.get(&(zone, packet.destination.ip())), zone) {
            (Some(Target::Interface(id)), _) => {
                self.cross(self.interfaces[id.0 as usize].link, Direction::Down, packet);
            }
            (Some(Target::Site(id)), _) => self.cross(self.sites[id.0 as usize].link, Direction::Down, packet),
            (None, Some(site)) if from_above => self.drop(Place::Site(site), DropReason::NoHost, &packet),
            (None, Some(site)) => self.go_out(site, packet),
            (None, None) => self.drop(Place::Backbone, DropReason::NoRoute, &packet),
        }
    }

    /// Takes a packet from the LAN of a site out by its border.
    fn go_out(&mut self, id: SiteId, mut packet: Packet) {
        let place = Place::Site(id);
        if !self.hop(place, 1, &mut packet) {
            return;
        }
        match self.translate_source(id, &mut packet) {
            Err(reason) => self.drop(place, reason, &packet),
            Ok(None) => self.cross(self.sites[id.0 as usize].link, Direction::Up, packet),
            Ok(Some(was)) => {
                self.record(place, Event::SourceTranslated { was }, &packet);
                if self.sites[id.0 as usize].public.contains(&packet.destination.ip()) {
                    // Hairpin: the packet turns round at the border, and the uplink never sees it.
                    self.enter(id, packet);
                } else {
                    self.cross(self.sites[id.0 as usize].link, Direction::Up, packet);
                }
            }
        }
    }

    /// Passes firewall and NAT on the way out; returns the source before, if the NAT replaced it.
    fn translate_source(&mut self, id: SiteId, packet: &mut Packet) -> Result<Option<SocketAddr>, DropReason> {
        if packet.is_error {
            return self.translate_error_source(id, packet);
        }
        let site = &mut self.sites[id.0 as usize];
        let to_itself = site.public.contains(&packet.destination.ip());
        let external = site.external();
        if let Some(firewall) = &mut site.firewall {
            match &packet.tcp {
                None => firewall.outbound(self.now, packet.source, packet.destination)?,
                Some(header) => firewall.tcp_outbound(self.now, packet.source, packet.destination, header)?,
            }
        }
        let (Some(nat), Some(tcp_nat), SocketAddr::V4(source), SocketAddr::V4(destination)) =
            (&mut site.nat, &mut site.tcp_nat, packet.source, packet.destination)
        else {
            return if to_itself { Err(DropReason::NoHost) } else { Ok(None) };
        };
        if to_itself && !nat.nat.hairpin {
            return Err(DropReason::NoHairpin);
        }
        let external = external.ok_or(DropReason::NoRoute)?;
        let port = match &packet.tcp {
            None => nat.outbound(self.now, source, destination, &mut self.random)?,
            Some(header) => tcp_nat.outbound(self.now, source, destination, header, &mut self.random)?,
        };
        packet.source = (external, port).into();
        Ok(Some(source.into()))
    }

    /// Takes a packet from the uplink of a site in by its border.
    fn come_in(&mut self, id: SiteId, mut packet: Packet) {
        if self.hop(Place::Site(id), 1, &mut packet) {
            self.enter(id, packet);
        }
    }

    fn enter(&mut self, id: SiteId, mut packet: Packet) {
        let place = Place::Site(id);
        if packet.is_error {
            return match self.translate_error_destination(id, &mut packet) {
                Err(reason) => self.drop(place, reason, &packet),
                Ok(_) => self.route(Some(id), packet, true),
            };
        }
        let outside = packet.clone();
        match self.translate_destination(id, &mut packet) {
            Err(reason) => return self.turn_away(id, reason, &outside, &packet),
            Ok(None) => {}
            Ok(Some(was)) => self.record(place, Event::DestinationTranslated { was }, &packet),
        }
        if let Some(firewall) = &mut self.sites[id.0 as usize].firewall {
            let passed = match &packet.tcp {
                None => firewall.inbound(self.now, packet.destination, packet.source),
                Some(header) => firewall.tcp_inbound(self.now, packet.destination, packet.source, header),
            };
            if let Err(reason) = passed {
                return self.turn_away(id, reason, &outside, &packet);
            }
        }
        self.route(Some(id), packet, true);
    }

    /// Drops a packet at the border that it did not pass, and answers a SYN if that is the border's way.
    fn turn_away(&mut self, id: SiteId, reason: DropReason, outside: &Packet, packet: &Packet) {
        self.drop(Place::Site(id), reason, packet);
        let site = &self.sites[id.0 as usize];
        let answers = site.nat.as_ref().is_some_and(|nat| nat.nat.unsolicited_syn == UnsolicitedSyn::Reset)
            || site.firewall.as_ref().is_some_and(|firewall| firewall.rules.unsolicited_syn == UnsolicitedSyn::Reset);
        let Some(header) = outside.tcp.filter(|header| answers && header.is_request()) else { return };
        let answer = Packet {
            id: self.next_packet,
            source: outside.destination,
            destination: outside.source,
            ttl: SEGMENT_TTL,
            tcp: Some(header.refusal()),
            is_error: false,
            payload: Arc::new([]),
            original: None,
        };
        self.next_packet += 1;
        self.record(Place::Site(id), Event::Sent, &answer);
        if self.sites[id.0 as usize].public.contains(&answer.destination.ip()) {
            self.enter(id, answer);
        } else {
            self.cross(self.sites[id.0 as usize].link, Direction::Up, answer);
        }
    }

    /// Passes the NAT on the way in; returns the destination before, if the NAT replaced it.
    fn translate_destination(&mut self, id: SiteId, packet: &mut Packet) -> Result<Option<SocketAddr>, DropReason> {
        let site = &mut self.sites[id.0 as usize];
        if !site.public.contains(&packet.destination.ip()) {
            return Ok(None);
        }
        let external = site.external().map(IpAddr::V4);
        let (Some(nat), Some(tcp_nat), SocketAddr::V4(source), SocketAddr::V4(destination)) =
            (&mut site.nat, &mut site.tcp_nat, packet.source, packet.destination)
        else {
            return Err(DropReason::NoHost);
        };
        if external != Some(packet.destination.ip()) {
            return Err(DropReason::NoMapping);
        }
        let inner = match &packet.tcp {
            None => nat.inbound(self.now, destination.port(), source)?,
            Some(header) => tcp_nat.inbound(self.now, destination.port(), source, header)?,
        };
        packet.destination = inner.into();
        Ok(Some(destination.into()))
    }

    fn deliver(&mut self, id: InterfaceId, packet: Packet) {
        let Interface { host, ref addresses, .. } = self.interfaces[id.0 as usize];
        if !addresses.contains(&packet.destination.ip()) {
            return self.drop(Place::Host(host), DropReason::NoHost, &packet);
        }
        if self.hosts[host.0 as usize].is_outside {
            self.record(Place::Host(host), Event::Delivered, &packet);
            return self.carry_out(host, packet);
        }
        if let Some(header) = packet.tcp {
            self.record(Place::Host(host), Event::Delivered, &packet);
            let Packet { source, destination, payload, .. } = packet;
            self.segments.push_back((host, Segment { source, destination, header, payload: payload.to_vec() }));
            return;
        }
        let counters = &mut self.hosts[host.0 as usize].counters;
        counters.packets_delivered += 1;
        counters.bytes_delivered += packet.payload.len() as u64;
        self.record(Place::Host(host), Event::Delivered, &packet);
        let Packet { source, destination, payload, .. } = packet;
        self.deliveries.push_back(Delivery { at: self.now, host, source, destination, payload: payload.to_vec() });
    }

    /// Takes hops off a packet; one that has none left is dropped. A router drops what it would send on with a TTL of 0.
    fn hop(&mut self, place: Place, hops: u8, packet: &mut Packet) -> bool {
        packet.ttl = packet.ttl.saturating_sub(hops);
        if packet.ttl == 0 {
            self.drop(place, DropReason::TtlExceeded, packet);
        }
        packet.ttl > 0
    }

    /// Returns the interface by which a host has an address.
    fn interface_with(&self, host: HostId, address: IpAddr) -> Option<InterfaceId> {
        let interfaces = &self.hosts[host.0 as usize].interfaces;
        interfaces.iter().copied().find(|id| self.interfaces[id.0 as usize].addresses.contains(&address))
    }

    fn place_of(&self, link: usize) -> Place {
        match self.links[link].owner {
            Target::Interface(id) => Place::Host(self.interfaces[id.0 as usize].host),
            Target::Site(id) => Place::Site(id),
        }
    }

    fn drop(&mut self, place: Place, reason: DropReason, packet: &Packet) {
        self.record(place, Event::Dropped(reason), packet);
    }

    fn record(&mut self, place: Place, event: Event, packet: &Packet) {
        let Packet { id, source, destination, ttl, tcp, ref payload, .. } = *packet;
        let payload = Arc::clone(payload);
        self.trace.push(Record { at: self.now, packet: id, place, event, source, destination, ttl, tcp, payload });
    }
}
