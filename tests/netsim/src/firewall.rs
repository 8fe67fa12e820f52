//! A stateful firewall: whatever goes out opens a pinhole for the answer; nothing else comes in.
//!
//! It stands inside the NAT (where there is one), so that it sees the inner addresses, as the forward chain of a router does;
//! and it is all that stands before IPv6 hosts. RFC 6092 calls this address- and port-dependent filtering.

use crate::time::Time;
use crate::trace::DropReason;
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
}

impl Default for Firewall {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(120), block_udp: false }
    }
}

/// A firewall at work: its rules and the pinholes now open.
#[derive(Debug)]
pub(crate) struct FirewallTable {
    pub(crate) rules: Firewall,
    /// When the pinhole between an inner and an outer endpoint closes.
    pinholes: BTreeMap<(SocketAddr, SocketAddr), Time>,
}

impl FirewallTable {
    pub(crate) const fn new(rules: Firewall) -> Self {
        Self { rules, pinholes: BTreeMap::new() }
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
}
