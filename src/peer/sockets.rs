//! The sockets of a peer, by number: asked of the driver, shared by a listener and its sessions, closed when nobody
//! uses them any more; and the host candidates that they make with the interfaces.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::net::{IpAddr, SocketAddr};

use crate::{
    Error,
    address::{canonical_ip, is_public, is_sharable},
    machine::{BoundSocket, Output, SocketId, UdpRequest},
    punch::CandidateKind,
    wire::stun::{self, CandidateTransport, WireCandidate},
};

use super::PeerEvent;

/// Host candidates that a peer tells of at most; there must be room for those that the server adds.
const MAX_HOST_CANDIDATES: usize = 12;

/// Who asked for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Listener(super::ListenerId),
    Session(stun::SessionId),
}

/// A local address to bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) address: SocketAddr,
    /// Whether another port will do, where this one is not to be had.
    pub(super) or_any: bool,
}

impl Wanted {
    /// The addresses of a request; where the port is left open, this one is preferred.
    pub(super) fn all(bind: &[SocketAddr], preferred: Option<u16>) -> Vec<Self> {
        let wanted = bind.iter().map(|address| match preferred.filter(|port| *port != 0 && address.port() == 0) {
            Some(port) => Self { address: SocketAddr::new(address.ip(), port), or_any: true },
            None => Self { address: *address, or_any: false },
        });
        wanted.collect()
    }

    /// The same, with whatever port.
    pub(super) const fn any(self) -> Self {
        let mut address = self.address;
        address.set_port(0);
        Self { address, or_any: false }
    }
}

#[derive(Debug)]
enum State {
    Asked(Wanted),
    Bound(SocketAddr),
    Failed(Box<Error>),
}

#[derive(Debug)]
struct Socket {
    owner: Owner,
    state: State,
    users: u32,
}

/// All sockets of a peer.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    sockets: BTreeMap<SocketId, Socket>,
    next: u32,
    interfaces: Vec<IpAddr>,
}

impl Sockets {
    /// Asks the driver for a socket; its owner is its first user.
    pub(super) fn ask(
        &mut self,
        owner: Owner,
        wanted: Wanted,
        outputs: &mut impl Extend<Output<PeerEvent>>,
    ) -> SocketId {
        let id = SocketId(self.next);
        // Drivers may need a bit of their own beside it.
        self.next = (self.next + 1) % (1 << 31);
        self.sockets.insert(id, Socket { owner, state: State::Asked(wanted), users: 1 });
        outputs.extend([Output::Udp(UdpRequest::Bind { socket: id, address: wanted.address })]);
        id
    }

    /// Notes what became of a socket; its owner, unless nobody wants it any more. A port that was only preferred may be
    /// followed by another.
    pub(super) fn answer(
        &mut self,
        id: SocketId,
        result: Result<SocketAddr, Error>,
        outputs: &mut impl Extend<Output<PeerEvent>>,
    ) -> Option<Owner> {
        let socket = self.sockets.get_mut(&id)?;
        socket.state = match (result, &socket.state) {
            (Ok(local), _) => State::Bound(local),
            (Err(_), State::Asked(wanted)) if wanted.or_any => {
                let any = wanted.any();
                outputs.extend([Output::Udp(UdpRequest::Bind { socket: id, address: any.address })]);
                State::Asked(any)
            }
            (Err(error), _) => State::Failed(Box::new(error)),
        };
        Some(socket.owner)
    }

    /// One more user.
    pub(super) fn share(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.users += 1;
        }
    }

    /// One user less; the last one closes it.
    pub(super) fn release(&mut self, id: SocketId, outputs: &mut impl Extend<Output<PeerEvent>>) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.users -= 1;
        if socket.users == 0 {
            self.sockets.remove(&id);
            outputs.extend([Output::Udp(UdpRequest::Close { socket: id })]);
        }
    }

    pub(super) fn owner(&self, id: SocketId) -> Option<Owner> {
        self.sockets.get(&id).map(|socket| socket.owner)
    }

    /// Whether the driver has answered for all of these.
    pub(super) fn are_answered(&self, ids: &[SocketId]) -> bool {
        ids.iter().all(|id| !self.sockets.get(id).is_some_and(|socket| matches!(socket.state, State::Asked(_))))
    }

    /// Those of the sockets that are bound.
    pub(super) fn bound(&self, ids: &[SocketId]) -> Vec<BoundSocket> {
        let bound = ids.iter().filter_map(|id| match self.sockets.get(id)?.state {
            State::Bound(local) => Some(BoundSocket { id: *id, local, has_address: self.has_address(local) }),
            State::Asked(_) | State::Failed(_) => None,
        });
        bound.collect()
    }

    /// Our address at a socket that is bound.
    pub(super) fn local(&self, id: SocketId) -> Option<SocketAddr> {
        match self.sockets.get(&id)?.state {
            State::Bound(local) => Some(local),
            State::Asked(_) | State::Failed(_) => None,
        }
    }

    /// Whether there is an address to send from; of a host whose addresses are not known it is believed.
    fn has_address(&self, local: SocketAddr) -> bool {
        let same_family = |ip: &IpAddr| ip.is_ipv6() == local.is_ipv6();
        !local.ip().is_unspecified() || self.interfaces.is_empty() || self.interfaces.iter().any(same_family)
    }

    /// Why the first of these that failed did.
    pub(super) fn error(&self, ids: &[SocketId]) -> Option<&Error> {
        ids.iter().find_map(|id| match &self.sockets.get(id)?.state {
            State::Failed(error) => Some(&**error),
            State::Asked(_) | State::Bound(_) => None,
        })
    }

    /// Takes note of the host's addresses; whether they changed.
    pub(super) fn set_interfaces(&mut self, interfaces: &[IpAddr]) -> bool {
        let mut usable: Vec<_> = interfaces.iter().map(|ip| canonical_ip(*ip)).filter(|ip| is_sharable(*ip)).collect();
        usable.sort_unstable();
        usable.dedup();
        let changed = usable != self.interfaces;
        self.interfaces = usable;
        changed
    }

    /// The host candidates of these sockets, best first; private addresses only where they are to be told.
    pub(super) fn host_candidates(&self, ids: &[SocketId], private: bool) -> Vec<WireCandidate> {
        let locals: Vec<_> = self.bound(ids).iter().map(|socket| socket.local).collect();
        host_candidates(&self.interfaces, &locals, CandidateTransport::Udp, private)
    }

    pub(super) fn interfaces(&self) -> &[IpAddr] {
        &self.interfaces
    }
}

/// The host candidates of sockets that are bound so, on a host with these addresses.
pub(super) fn host_candidates(
    interfaces: &[IpAddr],
    locals: &[SocketAddr],
    transport: CandidateTransport,
    private: bool,
) -> Vec<WireCandidate> {
    let mut candidates = Vec::new();
    for local in locals {
        let bound = canonical_ip(local.ip());
        let every = if bound.is_unspecified() { interfaces } else { core::slice::from_ref(&bound) };
        let is_told =
            |ip: &&IpAddr| ip.is_ipv6() == bound.is_ipv6() && is_sharable(**ip) && (private || is_public(**ip));
        for ip in every.iter().filter(is_told) {
            candidates.push(WireCandidate {
                kind: stun::CandidateKind::Host,
                transport,
                priority: CandidateKind::Host.priority(*ip),
                address: SocketAddr::new(*ip, local.port()),
            });
        }
    }
    // One of each family at least: alternate rather than sort by family.
    let (v6, v4): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|candidate| candidate.address.is_ipv6());
    let longest = v4.len().max(v6.len());
    let mixed = (0..longest).flat_map(|index| v6.get(index).into_iter().chain(v4.get(index))).copied();
    mixed.take(MAX_HOST_CANDIDATES).collect()
}
