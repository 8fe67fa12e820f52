//! The network: hosts, sites and links, how they are put together, and how a test changes them while it runs.
//!
//! # Addresses and routes
//!
//! Every LAN, and the backbone, is a *zone* with a table of the addresses that can be reached in it and where they are: at a
//! host of the zone, or in a site that attaches to it. An address becomes known in the zone of its owner, and then in every zone
//! above, until it meets a border it does not cross: a NAT (IPv4 only), the border between a site and the backbone if it is
//! private (RFC 1918, RFC 6598, RFC 4193), or any border if it is link-local. So two sites may use the same private
//! addresses, and an IPv6 host behind a firewall can be reached from anywhere by its own address. What the table of a zone does
//! not know goes up.

use crate::firewall::{Firewall, FirewallTable};
use crate::forwarding::{Delivery, InFlight};
use crate::link::{Link, Weather};
use crate::nat::{Nat, NatTable, TcpNat};
use crate::outside::Carried;
use crate::pcap;
use crate::random::Random;
use crate::tcp::{Segment, Stack};
use crate::time::Time;
use crate::trace::Trace;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A host of one [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) u32);

/// A site of one [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub(crate) u32);

/// One of the interfaces of a host of one [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub(crate) u32);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.0)
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "site {}", self.0)
    }
}

/// What a link belongs to: a host (its first interface), one interface, or a site (its uplink).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The link of the host's first interface.
    Host(HostId),
    /// The link of the interface.
    Interface(InterfaceId),
    /// The uplink of the site.
    Site(SiteId),
}

impl From<HostId> for Attachment {
    fn from(host: HostId) -> Self {
        Self::Host(host)
    }
}

impl From<InterfaceId> for Attachment {
    fn from(interface: InterfaceId) -> Self {
        Self::Interface(interface)
    }
}

impl From<SiteId> for Attachment {
    fn from(site: SiteId) -> Self {
        Self::Site(site)
    }
}

/// A host on the backbone.
#[derive(Clone, Debug, Default)]
pub struct HostSpec {
    /// Its public addresses.
    pub addresses: Vec<IpAddr>,
    /// Its link to the backbone.
    pub link: Link,
}

/// A site: a LAN with a border.
#[derive(Clone, Debug, Default)]
pub struct SiteSpec {
    /// The site it attaches to, such as a carrier's; none for the backbone.
    pub parent: Option<SiteId>,
    /// The addresses of its router on the outside. A NAT translates to the first IPv4 address. Hosts inside have IPv6 addresses
    /// of their own, which are routed to the site.
    pub public: Vec<IpAddr>,
    /// The NAT at its border.
    pub nat: Option<Nat>,
    /// The firewall at its border, inside the NAT.
    pub firewall: Option<Firewall>,
    /// Its uplink.
    pub link: Link,
}

/// What a host has sent and received: datagrams, and bytes of UDP payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams sent, whatever became of them.
    pub packets_sent: u64,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Datagrams delivered, duplicates included.
    pub packets_delivered: u64,
    /// Payload bytes delivered.
    pub bytes_delivered: u64,
    /// TCP segments sent; those are in none of the others.
    pub segments_sent: u64,
}

/// The backbone (none) or the LAN of a site.
pub(crate) type Zone = Option<SiteId>;

/// Where a zone finds an address; also whom a link belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Interface(InterfaceId),
    Site(SiteId),
}

#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) host: HostId,
    pub(crate) zone: Zone,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) link: usize,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) interfaces: Vec<InterfaceId>,
    pub(crate) counters: Counters,
    pub(crate) tcp: Stack,
    /// Whether its packets are carried in and out, past the stack.
    pub(crate) is_outside: bool,
}

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) parent: Zone,
    pub(crate) public: Vec<IpAddr>,
    pub(crate) nat: Option<NatTable>,
    pub(crate) tcp_nat: Option<TcpNat>,
    pub(crate) firewall: Option<FirewallTable>,
    pub(crate) link: usize,
}

impl Site {
    /// Returns the address the NAT translates to.
    pub(crate) fn external(&self) -> Option<Ipv4Addr> {
        self.public.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }
}

#[derive(Debug)]
pub(crate) struct LinkState {
    pub(crate) owner: Target,
    pub(crate) link: Link,
    pub(crate) is_up: bool,
    /// Of each direction.
    pub(crate) weather: [Weather; 2],
}

/// A simulated network, its clock and everything under way in it.
///
/// Methods that take an identifier panic if it is of another network; those that give an address to a host or site
/// panic if it is taken where it would be known. Both are mistakes in a test.
#[derive(Debug)]
pub struct Network {
    pub(crate) now: Time,
    pub(crate) random: Random,
    pub(crate) hosts: Vec<Host>,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) sites: Vec<Site>,
    pub(crate) links: Vec<LinkState>,
    pub(crate) routes: BTreeMap<(Zone, IpAddr), Target>,
    pub(crate) backbone_hops: u8,
    /// The next event is the greatest: reversed, so the earliest, and of those at one time the first made.
    pub(crate) queue: BinaryHeap<Reverse<InFlight>>,
    pub(crate) next_order: u64,
    pub(crate) next_packet: u64,
    pub(crate) deliveries: VecDeque<Delivery>,
    /// Segments that have reached a host whose stack has not seen them yet.
    pub(crate) segments: VecDeque<(HostId, Segment)>,
    /// Packets that have reached an outside host.
    pub(crate) carried: VecDeque<(HostId, Carried)>,
    pub(crate) trace: Trace,
}

impl Network {
    /// Makes an empty network at time zero. The same seed and the same calls give the same trace.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            random: Random::new(seed),
            hosts: Vec::new(),
            interfaces: Vec::new(),
            sites: Vec::new(),
            links: Vec::new(),
            routes: BTreeMap::new(),
            backbone_hops: 1,
            queue: BinaryHeap::new(),
            next_order: 0,
            next_packet: 0,
            deliveries: VecDeque::new(),
            segments: VecDeque::new(),
            carried: VecDeque::new(),
            trace: Trace::new(),
        }
    }

    /// Adds a host with public addresses to the backbone.
    pub fn add_host(&mut self, spec: HostSpec) -> HostId {
        self.new_host(None, spec.addresses, spec.link)
    }

    /// Adds a host to the LAN of a site. Two hosts of a site are two such links apart; the default link takes no time.
    pub fn add_host_in(&mut self, site: SiteId, addresses: Vec<IpAddr>, link: Link) -> HostId {
        self.new_host(Some(site), addresses, link)
    }

    /// Adds a further interface to a host, on the backbone or in the LAN of a site: a second network to be reached by.
    ///
    /// A datagram leaves by the interface that has its source address.
    pub fn add_interface(
        &mut self,
        host: HostId,
        site: Option<SiteId>,
        addresses: Vec<IpAddr>,
        link: Link,
    ) -> InterfaceId {
        let id = InterfaceId(index(self.interfaces.len()));
        let link = self.new_link(Target::Interface(id), link);
        self.interfaces.push(Interface { host, zone: site, addresses: Vec::new(), link });
        self.hosts[host.0 as usize].interfaces.push(id);
        for address in addresses {
            self.add_address(id, address);
        }
        id
    }

    /// Adds a site to the backbone, or to the LAN of its parent.
    pub fn add_site(&mut self, spec: SiteSpec) -> SiteId {
        let SiteSpec { parent, public, nat, firewall, link } = spec;
        let id = SiteId(index(self.sites.len()));
        let link = self.new_link(Target::Site(id), link);
        let neighbour_seed = self.random.next_u64();
        let tcp_nat = nat.as_ref().map(|nat| TcpNat::new(nat, neighbour_seed));
        let nat = nat.map(|nat| NatTable::new(nat, neighbour_seed));
        let firewall = firewall.map(FirewallTable::new);
        self.sites.push(Site { parent, public: Vec::new(), nat, tcp_nat, firewall, link });
        self.set_public(id, public);
        id
    }

    /// Replaces the outside addresses of a site, and flushes its NAT: what a rebinding does.
    pub fn set_public(&mut self, site: SiteId, public: Vec<IpAddr>) {
        let parent = self.sites[site.0 as usize].parent;
        for address in std::mem::take(&mut self.sites[site.0 as usize].public) {
            self.withdraw(parent, address);
        }
        for address in &public {
            self.announce(parent, *address, Target::Site(site));
        }
        self.sites[site.0 as usize].public = public;
        self.flush_nat(site);
    }

    /// Forgets every mapping of the site's NAT, as its restart does.
    pub fn flush_nat(&mut self, site: SiteId) {
        if let Some(nat) = &mut self.sites[site.0 as usize].nat {
            nat.flush();
        }
        if let Some(nat) = &mut self.sites[site.0 as usize].tcp_nat {
            nat.flush();
        }
    }

    /// Changes the behaviour of a site's NAT from now on; what it holds stays.
    ///
    /// # Panics
    ///
    /// If the site has no NAT: that is for its [`SiteSpec`] to say, since routes depend on it.
    pub fn set_nat(&mut self, site: SiteId, nat: Nat) {
        if let Some(table) = &mut self.sites[site.0 as usize].tcp_nat {
            table.set_rules(&nat);
        }
        let table = self.sites[site.0 as usize].nat.as_mut();
        table.unwrap_or_else(|| panic!("{site} has no NAT to change")).nat = nat;
    }

    /// Replaces, adds or removes the firewall of a site; pinholes that are open stay open if there still is one.
    pub fn set_firewall(&mut self, site: SiteId, firewall: Option<Firewall>) {
        let table = &mut self.sites[site.0 as usize].firewall;
        match (table.as_mut(), firewall) {
            (Some(table), Some(rules)) => table.rules = rules,
            (_, firewall) => *table = firewall.map(FirewallTable::new),
        }
    }

    /// Gives a host (its first interface) or one interface a further address.
    ///
    /// # Panics
    ///
    /// If another host or site there has the address, or the attachment is a site.
    pub fn add_address(&mut self, to: impl Into<Attachment>, address: IpAddr) {
        let id = self.interface_of(to.into());
        let zone = self.interfaces[id.0 as usize].zone;
        self.announce(zone, address, Target::Interface(id));
        self.interfaces[id.0 as usize].addresses.push(address);
    }

    /// Takes an address away from a host (whichever of its interfaces has it); datagrams under way to it are dropped on arrival.
    pub fn remove_address(&mut self, host: HostId, address: IpAddr) {
        for id in self.hosts[host.0 as usize].interfaces.clone() {
            let interface = &mut self.interfaces[id.0 as usize];
            if interface.addresses.contains(&address) {
                interface.addresses.retain(|other| *other != address);
                let zone = interface.zone;
                self.withdraw(zone, address);
            }
        }
    }

    /// Changes a link's properties for datagrams that have not entered it yet.
    pub fn set_link(&mut self, of: impl Into<Attachment>, link: Link) {
        self.link_of(of.into()).link = link;
    }

    /// Takes a link up or down; datagrams that arrive from it while it is down are lost too.
    pub fn set_link_up(&mut self, of: impl Into<Attachment>, is_up: bool) {
        self.link_of(of.into()).is_up = is_up;
    }

    /// Sets how many routers the backbone is, 1 unless set: how far a low TTL reaches.
    pub const fn set_backbone_hops(&mut self, hops: u8) {
        self.backbone_hops = hops;
    }

    /// Returns the addresses of a host, over all its interfaces.
    #[must_use]
    pub fn addresses(&self, host: HostId) -> Vec<IpAddr> {
        let interfaces = self.hosts[host.0 as usize].interfaces.iter();
        interfaces.flat_map(|id| self.interfaces[id.0 as usize].addresses.iter().copied()).collect()
    }

    /// Returns the outside addresses of a site's router.
    #[must_use]
    pub fn public(&self, site: SiteId) -> &[IpAddr] {
        &self.sites[site.0 as usize].public
    }

    /// Returns the live mappings of a site's NAT, internal and external endpoint, by external port.
    #[must_use]
    pub fn mappings(&self, site: SiteId) -> Vec<(SocketAddr, SocketAddr)> {
        let site = &self.sites[site.0 as usize];
        let (Some(nat), Some(external)) = (&site.nat, site.external()) else {
            return Vec::new();
        };
        nat.live(self.now).map(|(internal, port)| (internal.into(), (external, port).into())).collect()
    }

    /// Returns what a host has sent and received so far.
    #[must_use]
    pub fn counters(&self, host: HostId) -> Counters {
        self.hosts[host.0 as usize].counters
    }

    /// Returns the trace: print it when a test fails.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Returns the digest of everything that has happened: equal for equal runs.
    #[must_use]
    pub const fn trace_digest(&self) -> u64 {
        self.trace.digest()
    }

    /// Sets how many records the trace keeps, 4096 unless set; with 0 it is digest only.
    pub fn set_trace_capacity(&mut self, records: usize) {
        self.trace.set_capacity(records);
    }

    /// Returns a capture (pcap, nanoseconds, raw IP) of the sends and deliveries that the trace still has.
    ///
    /// A datagram is in it as sent and again as delivered; both carry its number as the IPv4 identification or the IPv6 flow label.
    #[must_use]
    pub fn pcap(&self) -> Vec<u8> {
        pcap::capture(self.trace.records())
    }

    fn new_host(&mut self, zone: Zone, addresses: Vec<IpAddr>, link: Link) -> HostId {
        let host = HostId(index(self.hosts.len()));
        let (interfaces, counters, tcp) = (Vec::new(), Counters::default(), Stack::new(host));
        self.hosts.push(Host { interfaces, counters, tcp, is_outside: false });
        self.add_interface(host, zone, addresses, link);
        host
    }

    fn new_link(&mut self, owner: Target, link: Link) -> usize {
        self.links.push(LinkState { owner, link, is_up: true, weather: Default::default() });
        self.links.len() - 1
    }

    fn interface_of(&self, attachment: Attachment) -> InterfaceId {
        match attachment {
            Attachment::Host(host) => self.hosts[host.0 as usize].interfaces[0],
            Attachment::Interface(interface) => interface,
            Attachment::Site(site) => panic!("{site} is no host: set its public addresses"),
        }
    }

    fn link_of(&mut self, attachment: Attachment) -> &mut LinkState {
        let link = match attachment {
            Attachment::Site(site) => self.sites[site.0 as usize].link,
            Attachment::Host(_) | Attachment::Interface(_) => {
                self.interfaces[self.interface_of(attachment).0 as usize].link
            }
        };
        &mut self.links[link]
    }

    /// Makes an address known in a zone and, as far as it is routed, above.
    fn announce(&mut self, zone: Zone, address: IpAddr, target: Target) {
        if let Some(other) = self.routes.insert((zone, address), target) {
            panic!("{address} is taken: {other:?} has it already");
        }
        if let Some((site, parent)) = self.above(zone, address) {
            self.announce(parent, address, Target::Site(site));
        }
    }

    fn withdraw(&mut self, zone: Zone, address: IpAddr) {
        self.routes.remove(&(zone, address));
        if let Some((_, parent)) = self.above(zone, address) {
            self.withdraw(parent, address);
        }
    }

    /// Returns the site whose LAN the zone is, and the zone above, if the address is known there too.
    fn above(&self, zone: Zone, address: IpAddr) -> Option<(SiteId, Zone)> {
        let id = zone?;
        let site = &self.sites[id.0 as usize];
        let is_translated = address.is_ipv4() && site.nat.is_some();
        let stays = is_translated || is_link_local(address) || (site.parent.is_none() && is_private(address));
        (!stays).then_some((id, site.parent))
    }
}

fn index(length: usize) -> u32 {
    u32::try_from(length).expect("fewer than 2^32 of anything")
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether an address is of RFC 1918, RFC 6598 or RFC 4193.
const fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.to_bits() >> 22 == 0x6440_0000 >> 22,
        IpAddr::V6(address) => address.is_unique_local(),
    }
}
