//! A stateful firewall: whatever goes out opens a pinhole for the answer; nothing else comes in.
//!
//! It stands inside the NAT (where there is one), so that it sees the inner addresses, as the forward chain of a router does;
//! and it is all that stands before IPv6 hosts. RFC 6092 calls this address- and port-dependent filtering.

use crate::tcp::TcpHeader;
use crate::time::Time;
use crate::trace::DropReason;
use crate::tracking::{Tracking, UnsolicitedSyn};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The rules of a stateful firewall.
#[derive(Clone, Debug, PartialEq)]
pub struct Firewall {
    /// How long a pinhole lives after the last datagram through it, either way. RFC 6092 REC-14 asks at least 2 minutes.
    pub lifetime: Duration,
    /// Whether all UDP is dropped, both ways.
    pub block_udp: bool,
    /// What becomes of a TCP SYN that no SYN of ours went out for.
    pub unsolicited_syn: UnsolicitedSyn,
}

impl Default for Firewall {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(120), block_udp: false, unsolicited_syn: UnsolicitedSyn::Drop }
    }
}

/// A firewall at work: its rules and the pinholes now open.
#[derive(Debug)]
pub(crate) struct FirewallTable {
    pub(crate) rules: Firewall,
    /// When the pinhole between an inner and an outer endpoint closes.
    pinholes: BTreeMap<(SocketAddr, SocketAddr), Time>,
    connections: Tracking,
}

impl FirewallTable {
    pub(crate) fn new(rules: Firewall) -> Self {
        Self { rules, pinholes: BTreeMap::new(), connections: Tracking::default() }
    }

    /// Whether there is a pinhole, or a connection, between two endpoints; changes nothing.
    pub(crate) fn knows(&self, now: Time, inner: SocketAddr, outer: SocketAddr, is_tcp: bool) -> bool {
        match is_tcp {
            true => self.connections.port(now, inner, outer).is_some(),
            false => !self.rules.block_udp && self.pinholes.get(&(inner, outer)).is_some_and(|closes| *closes > now),
        }
    }

    /// Opens or refreshes the pinhole of a datagram on its way out.
    pub(crate) fn outbound(&mut self, now: Time, inner: SocketAddr, outer: SocketAddr) -> Result<(), DropReason> {
        if self.rules.block_udp {
            return Err(DropReason::UdpBlocked);
        }
        self.pinholes.insert((inner, outer), now + self.rules.lifetime);
        Ok(())
    }

    /// Lets a datagram in if its pinhole is open.
    pub(crate) fn inbound(&mut self, now: Time, inner: SocketAddr, outer: SocketAddr) -> Result<(), DropReason> {
        if self.rules.block_udp {
            return Err(DropReason::UdpBlocked);
        }
        match self.pinholes.get_mut(&(inner, outer)) {
            Some(closes) if *closes > now => {
                *closes = now + self.rules.lifetime;
                Ok(())
            }
            _ => Err(DropReason::Filtered),
        }
    }

    /// Lets a TCP segment out: a SYN, or what belongs to a connection.
    pub(crate) fn tcp_outbound(
        &mut self,
        now: Time,
        inner: SocketAddr,
        outer: SocketAddr,
        header: &TcpHeader,
    ) -> Result<(), DropReason> {
        match self.connections.outbound(now, inner, outer, header) {
            Some(result) => result.map(|_| ()),
            None if header.is_request() => {
                self.connections.begin(now, inner, outer, inner.port(), header.sequence, true);
                Ok(())
            }
            None => Err(DropReason::Untracked),
        }
    }

    /// Lets a TCP segment in that belongs to a connection.
    pub(crate) fn tcp_inbound(
        &mut self,
        now: Time,
        inner: SocketAddr,
        outer: SocketAddr,
        header: &TcpHeader,
    ) -> Result<(), DropReason> {
        match self.connections.inbound(now, inner, outer, header) {
            Some(result) => result.map(|_| ()),
            None if header.is_request() => Err(DropReason::Filtered),
            None => Err(DropReason::Untracked),
        }
    }
}
