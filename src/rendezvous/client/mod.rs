//! The peers' half of the rendezvous: keeping a listener registered, asking to be introduced.
//!
//! Each machine here talks to one server (registration) or to several in turn (lookup), over at most one socket of
//! each family, and over connections beside them where UDP does not get through. They make messages and results; their
//! owner finds out which of them an answer belongs to by asking each, since a transaction id is known only to the one
//! that made it.

mod connection;
mod lookup;
mod registration;
mod replay;
mod transaction;

pub(crate) use self::transaction::{Due, Transaction};

pub(crate) use connection::{Connection, Read};
pub(crate) use lookup::{Asked, Found, Lookup, LookupRequest, LookupResult};
pub(crate) use registration::{Listing, Registration, RegistrationResult, Stranger};

/// After so many sends that the system refused, one after another, a server counts as unreachable: a network that is
/// just coming up refuses the first.
const MAX_REFUSED_SENDS: u8 = 3;

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::{
    address::canonical,
    machine::{Instant, Output, SocketId, StreamId, TcpRequest, Transmit},
    wire::stun::{Message, SessionId, WireCandidate},
};

/// Which way a server is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// In datagrams.
    Udp(SocketId),
    /// Along a connection.
    Tcp(StreamId),
}

impl Via {
    pub(crate) const fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

/// Where an answer came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) via: Via,
    pub(crate) remote: SocketAddr,
}

/// A message for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToServer {
    pub(crate) via: Via,
    pub(crate) server: SocketAddr,
    pub(crate) payload: Vec<u8>,
}

impl ToServer {
    /// What the driver is to do about it.
    pub(crate) fn into_output<E>(self) -> Output<E> {
        let Self { via, server: destination, payload } = self;
        match via {
            Via::Udp(socket) => Output::Transmit(Transmit { socket, source: None, destination, payload }),
            Via::Tcp(stream) => Output::Tcp(TcpRequest::Send { stream, bytes: payload }),
        }
    }
}

/// A server that is to be called over TCP, and until when it must have answered; `None`: it is called for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) server: SocketAddr,
    pub(crate) deadline: Option<Instant>,
}

/// The peer's candidates as the server tells them. A server elsewhere has seen nobody on this host's loopback.
fn candidates(from: From, message: &Message<'_>) -> Vec<WireCandidate> {
    let is_here = from.remote.ip().is_loopback();
    message.candidates().filter(|it| is_here || !canonical(it.address).ip().is_loopback()).collect()
}

/// Where the server says that a peer of 2015 is: the one candidate of such an introduction. It must be one host's, and this
/// host's own loopback only for a server that is there too: elsewhere it means nothing, or harm.
fn legacy_peer(from: From, message: &Message<'_>) -> Option<SocketAddr> {
    let port = message.legacy()?;
    let address = canonical(message.candidates().next()?.address);
    let IpAddr::V4(ip) = address.ip() else { return None };
    let is_host = !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast());
    let is_in_reach = !ip.is_loopback() || from.remote.ip().is_loopback();
    (is_host && is_in_reach && address.port() == port && port != 0).then_some(address)
}

/// A peer of 2015, introduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LegacyPeer {
    pub(crate) session: SessionId,
    pub(crate) address: SocketAddr,
}
