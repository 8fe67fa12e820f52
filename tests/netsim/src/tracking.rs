//! Connection tracking of TCP: what a NAT and a firewall know of the connections that cross them.
//!
//! The SYN of either side that is let through makes a record; what belongs to a record passes, both ways, and nothing else
//! does. As in Linux, a RST ends the record, and what fits no window does not pass: a SYN-ACK that answers with another
//! number than the SYN that went out before it (so that a SYN with a low TTL, followed by a listener, opens nothing), a
//! RST that refuses a SYN when the other side's SYN has come in since, and a RST of an attempt before the one that the
//! other side has answered.

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

/// How far from what was acknowledged a number of the same attempt may be.
const WINDOW: u32 = 1 << 20;

/// What one side has sent of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// The number of its last SYN that asked for the connection.
    request: Option<u32>,
    /// The number of its last SYN.
    syn: Option<u32>,
    /// What the other side has acknowledged of the attempt that this SYN began.
    acknowledged: Option<u32>,
}

impl Sent {
    /// Takes note of a segment to the other side; an error if it ends an attempt before the one that was answered.
    fn send(&mut self, other: &mut Self, header: &TcpHeader) -> Result<(), DropReason> {
        let is_near = |number: u32, known: Option<u32>| {
            known.is_some_and(|known| number.wrapping_sub(known).wrapping_add(WINDOW) < 2 * WINDOW)
        };
        if header.rst {
            let is_stray = self.acknowledged.is_some() && !is_near(header.sequence, self.acknowledged);
            return if is_stray && !header.is_refusal() { Err(DropReason::OutOfWindow) } else { Ok(()) };
        }
        if header.is_request() {
            self.request = Some(header.sequence);
        }
        if header.syn {
            self.syn = Some(header.sequence);
        }
        if header.ack && [other.syn, other.acknowledged].iter().any(|known| is_near(header.acknowledgement, *known)) {
            other.acknowledged = Some(header.acknowledgement);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    /// The external port of a NAT; nothing for a firewall.
    port: u16,
    inner: Sent,
    outer: Sent,
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
        known.is_some_and(|known| known.outer.syn.is_some() && known.inner.syn.is_some())
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
        let mut known = Connection { port, inner: Sent::default(), outer: Sent::default(), expires: now + LIFETIME };
        let sender = if outgoing { &mut known.inner } else { &mut known.outer };
        *sender = Sent { request: Some(syn), syn: Some(syn), acknowledged: None };
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
        if header.syn && header.ack && known.inner.request.is_some_and(|syn| syn != header.sequence) {
            return Some(Err(DropReason::OutOfWindow));
        }
        if let Err(reason) = known.inner.send(&mut known.outer, header) {
            return Some(Err(reason));
        }
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
        if header.is_refusal() && known.outer.syn.is_some() {
            return Some(Err(DropReason::OutOfWindow));
        }
        if let Err(reason) = known.outer.send(&mut known.inner, header) {
            return Some(Err(reason));
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

/// The dialogues were held with Linux 6.18 (masquerade, what is forwarded from outside must be established).
#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::ZERO;
    const ATTEMPTS: [u32; 3] = [100_000_000, 105_000_000, 110_000_000];
    const THEIRS: u32 = 777_000_000;

    struct Border(Tracking, [SocketAddr; 2]);

    impl Border {
        /// A border that has let a SYN out.
        fn new(sequence: u32) -> Self {
            let ends = ["10.0.0.2:4001", "203.0.113.9:80"].map(|end| end.parse().unwrap());
            let mut tracking = Tracking::default();
            tracking.begin(NOW, ends[0], ends[1], 4001, sequence, true);
            Self(tracking, ends)
        }

        /// Whether a segment passes on its way out.
        fn lets_out(&mut self, header: TcpHeader) -> bool {
            let Self(tracking, [inner, outer]) = self;
            matches!(tracking.outbound(NOW, *inner, *outer, &header), Some(Ok(_)))
        }

        /// Whether an answer passes on its way in.
        fn lets_in(&mut self, syn: bool, acknowledgement: u32) -> bool {
            let Self(tracking, [inner, outer]) = self;
            let sequence = THEIRS + u32::from(!syn);
            let header = TcpHeader { syn, ack: true, sequence, acknowledgement, ..TcpHeader::default() };
            matches!(tracking.inbound(NOW, *inner, *outer, &header), Some(Ok(_)))
        }
    }

    fn syn(sequence: u32) -> TcpHeader {
        TcpHeader { syn: true, sequence, ..TcpHeader::default() }
    }

    fn rst(sequence: u32) -> TcpHeader {
        TcpHeader { rst: true, sequence, ..TcpHeader::default() }
    }

    #[test]
    fn a_rst_of_the_attempt_that_was_answered_ends_the_record_though_another_has_begun() {
        let [first, second, _] = ATTEMPTS;
        let mut border = Border::new(first);
        assert!(border.lets_in(true, first + 1));
        assert!(border.lets_out(syn(second)));
        assert!(border.lets_in(false, first + 1), "the peer's challenge");
        assert!(border.lets_out(rst(first + 1)));
        assert!(!border.lets_in(true, second + 1));
    }

    #[test]
    fn a_rst_of_an_attempt_before_the_one_that_was_answered_does_not_pass() {
        let [first, _, third] = ATTEMPTS;
        let mut border = Border::new(first);
        assert!(border.lets_out(syn(third)));
        assert!(border.lets_in(true, third + 1));
        assert!(!border.lets_out(rst(first + 1)));
        assert!(border.lets_out(TcpHeader { ack: true, sequence: third + 1, ..TcpHeader::default() }));
        assert!(border.lets_in(false, third + 1));
        assert!(border.lets_out(rst(third + 1)) && !border.lets_in(false, third + 1));
    }
}
