//! Connection tracking of TCP: what a NAT and a firewall know of the connections that cross them.
//!
//! The SYN of either side that is let through makes a record; what belongs to a record passes, both ways, and nothing else
//! does. As in Linux, a RST ends the record, and what fits no window does not pass: a SYN-ACK that answers with another
//! number than the SYN that went out before it (so that a SYN with a low TTL, followed by a listener, opens nothing), and a
//! RST that refuses a SYN when the other side's SYN has come in since.

use crate::tcp::TcpHeader;
use crate::time::Time;
use crate::trace::DropReason;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long an idle connection is remembered (RFC 5382 REQ-5).
pub(crate) const LIFETIME: Duration = Duration::from_secs(2 * 3600 + 4 * 60);

/// What a border does with a SYN that nobody asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsolicitedSyn {
    /// It is dropped in silence (RFC 5382 REQ-4).
    #[default]
    Drop,
    /// It is answered with a RST.
    Reset,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    /// The external port of a NAT; nothing for a firewall.
    port: u16,
    inner_syn: Option<u32>,
    has_inner_syn: bool,
    has_outer_syn: bool,
    expires: Time,
}

/// The connections of one border, by inner and outer endpoint.
#[derive(Debug, Default)]
pub(crate) struct Tracking {
    connections: BTreeMap<(SocketAddr, SocketAddr), Connection>,
    by_port: BTreeMap<(u16, SocketAddr), SocketAddr>,
}

impl Tracking {
    pub(crate) fn clear(&mut self) {
        self.connections.clear();
        self.by_port.clear();
    }

    /// The inner endpoint of the connection that a segment from outside belongs to.
    pub(crate) fn inner(&self, now: Time, port: u16, outer: SocketAddr) -> Option<SocketAddr> {
        let inner = *self.by_port.get(&(port, outer))?;
        self.connections.get(&(inner, outer)).filter(|known| known.expires > now)?;
        Some(inner)
    }

    /// The external port of a known connection.
    pub(crate) fn port(&self, now: Time, inner: SocketAddr, outer: SocketAddr) -> Option<u16> {
        self.connections.get(&(inner, outer)).filter(|known| known.expires > now).map(|known| known.port)
    }

    /// Whether there is a connection between these two, by whatever port, that both have sent a SYN for.
    pub(crate) fn is_mutual(&self, now: Time, inner: SocketAddr, outer: SocketAddr) -> bool {
        let known = self.connections.get(&(inner, outer)).filter(|known| known.expires > now);
        known.is_some_and(|known| known.has_outer_syn && known.has_inner_syn)
    }

    /// Remembers a connection that began with this SYN.
    pub(crate) fn begin(
        &mut self,
        now: Time,
        inner: SocketAddr,
        outer: SocketAddr,
        port: u16,
        syn: u32,
        outgoing: bool,
    ) {
        let inner_syn = outgoing.then_some(syn);
        let known =
            Connection { port, inner_syn, has_inner_syn: outgoing, has_outer_syn: !outgoing, expires: now + LIFETIME };
        self.connections.insert((inner, outer), known);
        self.by_port.insert((port, outer), inner);
    }

    /// Lets a segment of a known connection out; the external port. None when no connection is known.
    pub(crate) fn outbound(
        &mut self,
        now: Time,
        inner: SocketAddr,
        outer: SocketAddr,
        header: &TcpHeader,
    ) -> Option<Result<u16, DropReason>> {
        let known = self.connections.get_mut(&(inner, outer)).filter(|known| known.expires > now)?;
        if header.is_request() {
            known.inner_syn = Some(header.sequence);
        } else if header.syn && known.inner_syn.is_some_and(|syn| syn != header.sequence) {
            return Some(Err(DropReason::OutOfWindow));
        }
        known.has_inner_syn |= header.syn;
        known.expires = now + LIFETIME;
        let port = known.port;
        if header.rst {
            self.end(inner, outer);
        }
        Some(Ok(port))
    }

    /// Lets a segment of a known connection in; whether it ended the connection. None when no connection is known.
    pub(crate) fn inbound(
        &mut self,
        now: Time,
        inner: SocketAddr,
        outer: SocketAddr,
        header: &TcpHeader,
    ) -> Option<Result<bool, DropReason>> {
        let known = self.connections.get_mut(&(inner, outer)).filter(|known| known.expires > now)?;
        known.has_outer_syn |= header.syn;
        let is_refusal = header.rst && header.ack && header.sequence == 0;
        if is_refusal && known.has_outer_syn {
            return Some(Err(DropReason::OutOfWindow));
        }
        known.expires = now + LIFETIME;
        if header.rst {
            self.end(inner, outer);
        }
        Some(Ok(header.rst))
    }

    fn end(&mut self, inner: SocketAddr, outer: SocketAddr) {
        if let Some(gone) = self.connections.remove(&(inner, outer)) {
            self.by_port.remove(&(gone.port, outer));
        }
    }
}
