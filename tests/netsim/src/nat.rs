//! NAT44 in the words of RFC 4787: a mapping behaviour, a filtering behaviour and a way of choosing ports, apart and composed.
//!
//! # Outbound
//!
//! A datagram from an internal endpoint to a remote one leaves by, in this order:
//!
//! 1. the mapping the remote's last accepted datagram came in on. RFC 4787 leaves this open; connection tracking does it, since
//!    the answer belongs to the same connection, and even a NAT with endpoint-dependent mapping then answers from the port that
//!    was called;
//! 2. the mapping that the internal endpoint has for this remote: any remote (endpoint-independent), this address
//!    (address-dependent), this address and port (address-and-port-dependent);
//! 3. a new mapping, on a port chosen by the [`PortAllocation`].
//!
//! It refreshes the mapping, and permits the remote (its address, or address and port) to send through it.
//!
//! # Inbound
//!
//! A datagram to a port that has a live mapping is accepted if the filtering behaviour permits its source; anything else is
//! dropped in silence. Mappings and permissions die when their lifetime passes without a datagram; the dead are removed
//! when they are met.
//!
//! # TCP
//!
//! The same behaviours hold for TCP, with ports of its own ([`TcpNat`]): what decides is the SYN, either way; what belongs to a
//! connection that a SYN has begun passes by [`Tracking`].

use crate::random::{Random, scatter, unit};
use crate::tcp::TcpHeader;
use crate::time::Time;
use crate::trace::DropReason;
use crate::tracking::{LIFETIME, Tracking, UnsolicitedSyn};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

/// When two datagrams from one internal endpoint leave by the same external port (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mapping {
    /// Always.
    EndpointIndependent,
    /// When they go to the same address.
    AddressDependent,
    /// When they go to the same address and port.
    AddressAndPortDependent,
}

/// Which datagrams to a mapped port are let in (RFC 4787, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filtering {
    /// All.
    EndpointIndependent,
    /// Those from an address that the mapping was used to send to.
    AddressDependent,
    /// Those from an address and port that the mapping was used to send to.
    AddressAndPortDependent,
}

/// How the external port of a new mapping is chosen (RFC 4787, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortAllocation {
    /// The internal port where it is free; else, as with [`Random`](Self::Random). A port is taken by *any* live mapping, also by
    /// one of the same internal endpoint toward another remote.
    Preserving,
    /// The next free one after the last one given, beginning anywhere.
    Sequential,
    /// Any free one, each as likely.
    Random,
}

/// What a datagram that is let in nowhere does to later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyInbound {
    /// Nothing: it is dropped in silence.
    Ignored,
    /// It takes the pair of external port and remote for the NAT itself, as Linux does when its input chain accepts UDP: for
    /// one mapping lifetime, datagrams to that remote leave by another port.
    MovesPort,
}

/// Other users of the same NAT, who take ports between ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbours {
    /// Ports per second taken in sequence, on average, at random (Poisson) times. Felt by sequential allocation alone.
    pub rate: f64,
    /// How many ports a neighbour takes at once; 1 or more.
    pub burst: u16,
    /// Share, 0.0 to 1.0, of all ports that are always taken. Felt by every allocation.
    pub taken: f64,
}

/// The behaviour of a NAT. Make one with [`Nat::new`], then change the fields that matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Nat {
    /// Mapping behaviour.
    pub mapping: Mapping,
    /// Filtering behaviour.
    pub filtering: Filtering,
    /// Port allocation.
    pub allocation: PortAllocation,
    /// Ports that may be given; 1024 to 65535 unless a carrier gives its subscriber a block (RFC 7422).
    pub ports: RangeInclusive<u16>,
    /// Whether an internal host may reach another (or itself) by its external endpoint (RFC 4787 REQ-9, with the external
    /// source endpoint). False by default, as in most home routers.
    pub hairpin: bool,
    /// How long a mapping, or a permission, lives after its last datagram; 120 s by default (RFC 4787 REQ-5).
    pub lifetime: Duration,
    /// Whether accepted inbound datagrams refresh too (RFC 4787 REQ-6 allows it); true by default.
    pub inbound_refresh: bool,
    /// Most live mappings one internal address may have; carriers allow some hundreds. No limit by default.
    pub mapping_limit: Option<usize>,
    /// What unsolicited datagrams do; nothing by default.
    pub early_inbound: EarlyInbound,
    /// Other users of the NAT; none by default.
    pub neighbours: Option<Neighbours>,
    /// Whether all IPv4 UDP is dropped, both ways.
    pub block_udp: bool,
    /// What becomes of a TCP SYN that is not let in; it is dropped by default.
    pub unsolicited_syn: UnsolicitedSyn,
}

impl Nat {
    /// Returns a NAT with the given behaviours and the default of everything else.
    #[must_use]
    pub const fn new(mapping: Mapping, filtering: Filtering, allocation: PortAllocation) -> Self {
        Self {
            mapping,
            filtering,
            allocation,
            ports: 1024..=65535,
            hairpin: false,
            lifetime: Duration::from_secs(120),
            inbound_refresh: true,
            mapping_limit: None,
            early_inbound: EarlyInbound::Ignored,
            neighbours: None,
            block_udp: false,
            unsolicited_syn: UnsolicitedSyn::Drop,
        }
    }
}

/// The part of a remote endpoint that a behaviour depends on; the rest is zero.
type Scope = SocketAddrV4;

const fn any() -> Scope {
    SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)
}

const fn address_only(remote: SocketAddrV4) -> Scope {
    SocketAddrV4::new(*remote.ip(), 0)
}

impl Mapping {
    const fn scope(self, remote: SocketAddrV4) -> Scope {
        match self {
            Self::EndpointIndependent => any(),
            Self::AddressDependent => address_only(remote),
            Self::AddressAndPortDependent => remote,
        }
    }
}

/// One mapping between an internal endpoint and an external port.
#[derive(Debug)]
struct Entry {
    /// Never given twice, so that what points at a dead mapping does not point at its successor on the port.
    serial: u64,
    internal: SocketAddrV4,
    scope: Scope,
    expires: Time,
    /// Until when each remote (address, or address and port) may send.
    permissions: BTreeMap<Scope, Time>,
}

/// The mapping by which the answer to an accepted datagram leaves.
#[derive(Clone, Copy, Debug)]
struct Binding {
    port: u16,
    serial: u64,
    expires: Time,
}

/// A NAT at work: its behaviour and the mappings it holds.
#[derive(Debug)]
pub(crate) struct NatTable {
    pub(crate) nat: Nat,
    mappings: BTreeMap<u16, Entry>,
    /// External port by internal endpoint and scope.
    by_internal: BTreeMap<(SocketAddrV4, Scope), u16>,
    /// By internal endpoint and remote.
    bindings: BTreeMap<(SocketAddrV4, SocketAddrV4), Binding>,
    /// Until when an external port is spent toward a remote ([`EarlyInbound::MovesPort`]).
    spent: BTreeMap<(u16, SocketAddrV4), Time>,
    next_serial: u64,
    /// The port that sequential allocation gives next; none before the first.
    next_port: Option<u16>,
    last_allocation: Time,
    /// Decides which ports the neighbours hold.
    neighbour_seed: u64,
}

impl NatTable {
    pub(crate) const fn new(nat: Nat, neighbour_seed: u64) -> Self {
        Self {
            nat,
            mappings: BTreeMap::new(),
            by_internal: BTreeMap::new(),
            bindings: BTreeMap::new(),
            spent: BTreeMap::new(),
            next_serial: 0,
            next_port: None,
            last_allocation: Time::ZERO,
            neighbour_seed,
        }
    }

    /// Forgets every mapping, as a restart or a new public address does.
    pub(crate) fn flush(&mut self) {
        self.mappings.clear();
        self.by_internal.clear();
        self.bindings.clear();
        self.spent.clear();
        self.next_port = None;
    }

    /// Returns internal endpoint and external port of the live mappings, by port.
    pub(crate) fn live(&self, now: Time) -> impl Iterator<Item = (SocketAddrV4, u16)> {
        self.mappings.iter().filter(move |(_, entry)| entry.expires > now).map(|(port, entry)| (entry.internal, *port))
    }

    /// Returns the external port by which a datagram leaves.
    pub(crate) fn outbound(
        &mut self,
        now: Time,
        internal: SocketAddrV4,
        remote: SocketAddrV4,
        random: &mut Random,
    ) -> Result<u16, DropReason> {
        if self.nat.block_udp {
            return Err(DropReason::UdpBlocked);
        }
        let expires = now + self.nat.lifetime;
        let bound = self.bound(now, internal, remote);
        let known = bound.or_else(|| self.mapped(now, internal, remote));
        let port = match known {
            Some(port) if bound.is_some() || !self.is_spent(now, port, remote) => port,
            // The mapping stays; toward this remote alone a second one takes its place.
            Some(_) => {
                let port = self.allocate(now, internal, remote, remote, random)?;
                let serial = self.mappings.get(&port).map_or(0, |entry| entry.serial);
                self.bindings.insert((internal, remote), Binding { port, serial, expires });
                port
            }
            None => {
                let scope = self.nat.mapping.scope(remote);
                let port = self.allocate(now, internal, remote, scope, random)?;
                self.by_internal.insert((internal, scope), port);
                port
            }
        };
        if bound.is_some()
            && let Some(binding) = self.bindings.get_mut(&(internal, remote))
        {
            binding.expires = expires;
        }
        if let Some(entry) = self.mappings.get_mut(&port) {
            entry.expires = expires;
            match self.nat.filtering {
                Filtering::EndpointIndependent => {}
                Filtering::AddressDependent => drop(entry.permissions.insert(address_only(remote), expires)),
                Filtering::AddressAndPortDependent => drop(entry.permissions.insert(remote, expires)),
            }
        }
        Ok(port)
    }

    /// Returns the internal endpoint a datagram to an external port is for, if the NAT lets it in.
    pub(crate) fn inbound(&mut self, now: Time, port: u16, remote: SocketAddrV4) -> Result<SocketAddrV4, DropReason> {
        if self.nat.block_udp {
            return Err(DropReason::UdpBlocked);
        }
        let accepted = self.accept(now, port, remote);
        if accepted.is_err() && self.nat.early_inbound == EarlyInbound::MovesPort {
            self.spent.insert((port, remote), now + self.nat.lifetime);
        }
        accepted
    }

    fn accept(&mut self, now: Time, port: u16, remote: SocketAddrV4) -> Result<SocketAddrV4, DropReason> {
        let expires = now + self.nat.lifetime;
        let entry = self.mappings.get_mut(&port).filter(|entry| entry.expires > now).ok_or(DropReason::NoMapping)?;
        let permission = match self.nat.filtering {
            Filtering::EndpointIndependent => None,
            Filtering::AddressDependent => Some(address_only(remote)),
            Filtering::AddressAndPortDependent => Some(remote),
        };
        if let Some(scope) = permission {
            let until = entry.permissions.get_mut(&scope).filter(|until| **until > now).ok_or(DropReason::Filtered)?;
            if self.nat.inbound_refresh {
                *until = expires;
            }
        }
        if self.nat.inbound_refresh {
            entry.expires = expires;
        }
        let (internal, serial) = (entry.internal, entry.serial);
        // Where there is one mapping for every remote, the binding would say nothing new.
        if self.nat.mapping != Mapping::EndpointIndependent || self.nat.early_inbound == EarlyInbound::MovesPort {
            self.bindings.insert((internal, remote), Binding { port, serial, expires });
        }
        Ok(internal)
    }

    /// Returns the external port by which a datagram would leave; changes nothing.
    pub(crate) fn known_port(&self, now: Time, internal: SocketAddrV4, remote: SocketAddrV4) -> Option<u16> {
        let is_live = |port: u16, serial: Option<u64>| {
            let entry = self.mappings.get(&port);
            entry.is_some_and(|entry| entry.expires > now && serial.is_none_or(|serial| serial == entry.serial))
        };
        let bound = self.bindings.get(&(internal, remote)).filter(|binding| binding.expires > now);
        let bound = bound.filter(|binding| is_live(binding.port, Some(binding.serial))).map(|binding| binding.port);
        let mapped = || self.by_internal.get(&(internal, self.nat.mapping.scope(remote))).copied();
        bound.or_else(|| mapped().filter(|port| is_live(*port, None)))
    }

    /// Returns the internal endpoint for which a datagram to a port would be let in; changes nothing.
    pub(crate) fn known_internal(&self, now: Time, port: u16, remote: SocketAddrV4) -> Option<SocketAddrV4> {
        let entry = self.mappings.get(&port).filter(|entry| entry.expires > now)?;
        let is_permitted = |scope| entry.permissions.get(&scope).is_some_and(|until| *until > now);
        let is_let_in = match self.nat.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => is_permitted(address_only(remote)),
            Filtering::AddressAndPortDependent => is_permitted(remote),
        };
        is_let_in.then_some(entry.internal)
    }

    /// Takes back what a remote endpoint was permitted by itself.
    fn forbid(&mut self, port: u16, remote: SocketAddrV4) {
        if self.nat.filtering == Filtering::AddressAndPortDependent
            && let Some(entry) = self.mappings.get_mut(&port)
        {
            entry.permissions.remove(&remote);
        }
    }

    /// Returns the port of the live mapping that the remote came in on.
    fn bound(&mut self, now: Time, internal: SocketAddrV4, remote: SocketAddrV4) -> Option<u16> {
        let binding = *self.bindings.get(&(internal, remote))?;
        let entry = self.mappings.get(&binding.port);
        if binding.expires > now && entry.is_some_and(|entry| entry.serial == binding.serial && entry.expires > now) {
            return Some(binding.port);
        }
        self.bindings.remove(&(internal, remote));
        None
    }

    /// Returns the port of the live mapping that the mapping behaviour prescribes.
    fn mapped(&mut self, now: Time, internal: SocketAddrV4, remote: SocketAddrV4) -> Option<u16> {
        let port = *self.by_internal.get(&(internal, self.nat.mapping.scope(remote)))?;
        (!self.is_free(now, port)).then_some(port)
    }

    /// Makes a mapping on a port chosen by the allocation.
    fn allocate(
        &mut self,
        now: Time,
        internal: SocketAddrV4,
        remote: SocketAddrV4,
        scope: Scope,
        random: &mut Random,
    ) -> Result<u16, DropReason> {
        if let Some(limit) = self.nat.mapping_limit
            && self.live(now).filter(|(other, _)| other.ip() == internal.ip()).count() >= limit
        {
            return Err(DropReason::NoPort);
        }
        let port = match self.nat.allocation {
            PortAllocation::Preserving => {
                let port = internal.port();
                let usable = self.nat.ports.contains(&port) && !self.is_spent(now, port, remote);
                if usable && self.is_available(now, port) { Some(port) } else { self.random_port(now, random) }
            }
            PortAllocation::Sequential => self.sequential_port(now, random),
            PortAllocation::Random => self.random_port(now, random),
        };
        let port = port.ok_or(DropReason::NoPort)?;
        let serial = self.next_serial;
        self.next_serial += 1;
        self.last_allocation = now;
        let expires = now + self.nat.lifetime;
        self.mappings.insert(port, Entry { serial, internal, scope, expires, permissions: BTreeMap::new() });
        Ok(port)
    }

    /// Returns a random free port: drawn, and in a NAT that is nearly full the first free one from a random start.
    fn random_port(&mut self, now: Time, random: &mut Random) -> Option<u16> {
        /// Draws before the search; with half the ports taken, 2^-64 of all calls get there.
        const DRAWS: u32 = 64;
        for _ in 0..DRAWS {
            let port = self.any_port(random);
            if self.is_available(now, port) {
                return Some(port);
            }
        }
        let start = self.any_port(random);
        self.first_available(now, start)
    }

    fn sequential_port(&mut self, now: Time, random: &mut Random) -> Option<u16> {
        let mut start = match self.next_port {
            Some(port) => port,
            None => self.any_port(random),
        };
        if let Some(Neighbours { rate, burst, .. }) = self.nat.neighbours
            && rate > 0.0
            && self.next_port.is_some()
        {
            let burst = burst.max(1);
            let mean = rate / f64::from(burst) * now.since(self.last_allocation).as_secs_f64();
            start = self.after(start, random.poisson(mean) * u64::from(burst));
        }
        let port = self.first_available(now, start)?;
        self.next_port = Some(self.after(port, 1));
        Some(port)
    }

    fn any_port(&self, random: &mut Random) -> u16 {
        self.after(*self.nat.ports.start(), random.below(self.port_count()))
    }

    fn port_count(&self) -> u64 {
        u64::from(*self.nat.ports.end()).saturating_sub(u64::from(*self.nat.ports.start())) + 1
    }

    /// Returns the port `steps` after `port`, round the end of the range.
    fn after(&self, port: u16, steps: u64) -> u16 {
        let first = u64::from(*self.nat.ports.start());
        let offset = (u64::from(port) - first + steps) % self.port_count();
        u16::try_from(first + offset).unwrap_or(u16::MAX)
    }

    fn first_available(&mut self, now: Time, start: u16) -> Option<u16> {
        for steps in 0..self.port_count() {
            let port = self.after(start, steps);
            if self.is_available(now, port) {
                return Some(port);
            }
        }
        None
    }

    /// Whether neither we nor the neighbours hold the port.
    fn is_available(&mut self, now: Time, port: u16) -> bool {
        let taken = self.nat.neighbours.map_or(0.0, |neighbours| neighbours.taken);
        let theirs = taken > 0.0 && unit(scatter(self.neighbour_seed ^ u64::from(port))) < taken;
        !theirs && self.is_free(now, port)
    }

    /// Whether no live mapping holds the port; removes a dead one.
    fn is_free(&mut self, now: Time, port: u16) -> bool {
        match self.mappings.get(&port) {
            None => true,
            Some(entry) if entry.expires > now => false,
            Some(entry) => {
                let key = (entry.internal, entry.scope);
                if self.by_internal.get(&key) == Some(&port) {
                    self.by_internal.remove(&key);
                }
                self.mappings.remove(&port);
                true
            }
        }
    }

    fn is_spent(&self, now: Time, port: u16, remote: SocketAddrV4) -> bool {
        self.spent.get(&(port, remote)).is_some_and(|until| *until > now)
    }
}

/// A NAT's other half: the same behaviours for TCP.
#[derive(Debug)]
pub(crate) struct TcpNat {
    table: NatTable,
    connections: Tracking,
}

impl TcpNat {
    pub(crate) fn new(nat: &Nat, neighbour_seed: u64) -> Self {
        Self { table: NatTable::new(Self::rules(nat), neighbour_seed), connections: Tracking::default() }
    }

    fn rules(nat: &Nat) -> Nat {
        Nat { block_udp: false, lifetime: LIFETIME, early_inbound: EarlyInbound::Ignored, ..nat.clone() }
    }

    pub(crate) fn set_rules(&mut self, nat: &Nat) {
        self.table.nat = Self::rules(nat);
    }

    pub(crate) fn flush(&mut self) {
        self.table.flush();
        self.connections.clear();
    }

    /// Returns the external port of a known connection.
    pub(crate) fn known_port(&self, now: Time, internal: SocketAddrV4, remote: SocketAddrV4) -> Option<u16> {
        self.connections.port(now, internal.into(), remote.into())
    }

    /// Returns the internal endpoint of a known connection.
    pub(crate) fn known_internal(&self, now: Time, port: u16, remote: SocketAddrV4) -> Option<SocketAddr> {
        self.connections.inner(now, port, remote.into())
    }

    /// Returns the external port by which a segment leaves.
    pub(crate) fn outbound(
        &mut self,
        now: Time,
        internal: SocketAddrV4,
        remote: SocketAddrV4,
        header: &TcpHeader,
        random: &mut Random,
    ) -> Result<u16, DropReason> {
        if let Some(known) = self.connections.outbound(now, internal.into(), remote.into(), header) {
            return known;
        }
        if !header.is_request() {
            return Err(DropReason::Untracked);
        }
        let port = self.table.outbound(now, internal, remote, random)?;
        self.connections.begin(now, internal.into(), remote.into(), port, header.sequence, true);
        Ok(port)
    }

    /// Returns the internal endpoint a segment to an external port is for, if the NAT lets it in.
    pub(crate) fn inbound(
        &mut self,
        now: Time,
        port: u16,
        remote: SocketAddrV4,
        header: &TcpHeader,
    ) -> Result<SocketAddrV4, DropReason> {
        if let Some(SocketAddr::V4(internal)) = self.connections.inner(now, port, remote.into())
            && let Some(known) = self.connections.inbound(now, internal.into(), remote.into(), header)
        {
            if known? {
                self.table.forbid(port, remote);
            }
            return Ok(internal);
        }
        if !header.is_request() {
            return Err(DropReason::Untracked);
        }
        let internal = self.table.inbound(now, port, remote)?;
        // Inside, a second connection by another port would be the same as one that is there already. What only one side has
        // begun gives way.
        if self.connections.is_mutual(now, internal.into(), remote.into()) {
            return Err(DropReason::Filtered);
        }
        self.connections.begin(now, internal.into(), remote.into(), port, header.sequence, false);
        Ok(internal)
    }
}
