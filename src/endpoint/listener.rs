//! Accepting connections.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use super::{Connection, Stream, Wait, in_time, wrong_kind};
use crate::{
    Result,
    io::{Channel, Engine},
    peer::{ListenerId, Transport},
    wire::stun::Name,
};

/// A registration that peers connect to, from [`Endpoint::listen`](super::Endpoint::listen).
///
/// All methods may be called from any thread. Dropping it closes it; its accepted connections live on.
#[derive(Debug)]
pub struct Listener {
    pub(super) engine: Arc<Engine>,
    pub(super) id: ListenerId,
    name: Option<Name>,
}

impl Listener {
    pub(super) fn new(engine: Arc<Engine>, id: ListenerId, name: Option<Name>) -> Self {
        Self { engine, id, name }
    }

    /// Waits for a peer that a direct path for a stream was found to.
    ///
    /// Streams and connections for datagrams wait apart; otherwise as [`accept_datagram`](Self::accept_datagram).
    ///
    /// # Errors
    /// As [`accept_datagram`](Self::accept_datagram).
    pub fn accept(&self, wait: Wait) -> Result<Stream> {
        match self.next(Transport::Tcp, &wait)? {
            Channel::Stream(link) => Ok(Stream::new(self.engine.clone(), link)),
            Channel::Datagrams(_) => Err(wrong_kind()),
        }
    }

    /// Waits for a peer that a direct path for datagrams was found to.
    ///
    /// Peers whose connecting fails do not end the wait. Up to 128 connected peers wait to be accepted; further ones are
    /// closed.
    ///
    /// # Errors
    /// `Timeout` and `Cancelled` as `wait` says; `Closed` when the listener or its endpoint was closed; what ended the
    /// registration, if no server has it any more; `LegacyPeer`, where the endpoint was built so
    /// ([`EndpointBuilder::legacy`](super::EndpointBuilder::legacy)), and then the listener goes on; `Forked`.
    pub fn accept_datagram(&self, wait: Wait) -> Result<Connection> {
        match self.next(Transport::Udp, &wait)? {
            Channel::Datagrams(link) => Ok(Connection::new(self.engine.clone(), link)),
            Channel::Stream(_) => Err(wrong_kind()),
        }
    }

    fn next(&self, kind: Transport, wait: &Wait) -> Result<Channel> {
        let accepted = self.engine.wait(wait, |core| core.accept(self.id, kind));
        accepted.map_err(|error| in_time(error, "no peer has connected"))
    }

    /// The name that it is found by; `None` when it is found by its public address.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(Name::as_str)
    }

    /// Our addresses as the servers see them now.
    #[must_use]
    pub fn mapped(&self) -> Vec<SocketAddr> {
        let mapped = |core: &mut crate::io::Core| {
            let state = core.listeners.get(&self.id);
            state.map(|state| state.mapped.values().flatten().copied().collect::<BTreeSet<_>>())
        };
        self.engine.with(mapped).ok().flatten().unwrap_or_default().into_iter().collect()
    }

    /// Gives the name back, and ends every call that waits to accept. Connections that were accepted live on.
    /// Idempotent, from any thread.
    pub fn close(&self) {
        // It fails where nothing is left to close: in a forked child, or after a panic.
        let _ = self.engine.with(|core| core.close_listener(self.id));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}
