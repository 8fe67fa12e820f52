//! The peers' half of the rendezvous: keeping a listener registered, asking to be introduced.
//!
//! Each machine here talks to one server (registration) or to several in turn (lookup), over at most one socket of
//! each family. They make transmissions and results; their owner finds out which of them an answer belongs to by
//! asking each, since a transaction id is known only to the one that made it.

mod lookup;
mod registration;
mod replay;
mod transaction;

pub(crate) use lookup::{Asked, Lookup, LookupRequest, LookupResult};
pub(crate) use registration::{Introduced, Listing, Registration, RegistrationResult};

/// After so many sends that the system refused, one after another, a server counts as unreachable: a network that is
/// just coming up refuses the first.
const MAX_REFUSED_SENDS: u8 = 3;

use core::net::SocketAddr;

use crate::machine::SocketId;

/// Where an answer came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From {
    pub(crate) socket: SocketId,
    pub(crate) remote: SocketAddr,
}
