//! How two peers learn of each other through a server: registration, lookup, introduction, trickle, keys.
//!
//! Sans-IO on both sides: `client` is the half in the peers, [`server`] the whole server but its sockets.

pub(crate) mod client;
mod codes;
pub mod keys;
pub mod server;

pub(crate) use codes::most_telling;

use alloc::string::String;
use core::net::SocketAddr;

/// A rendezvous server: its addresses, at most one of each family, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// How errors and events name it, such as `example.org:20000`.
    pub label: String,
    /// Its IPv4 address.
    pub ipv4: Option<SocketAddr>,
    /// Its IPv6 address.
    pub ipv6: Option<SocketAddr>,
}

impl From<SocketAddr> for ServerAddress {
    fn from(address: SocketAddr) -> Self {
        let label = alloc::format!("{address}");
        match address {
            SocketAddr::V4(_) => Self { label, ipv4: Some(address), ipv6: None },
            SocketAddr::V6(_) => Self { label, ipv4: None, ipv6: Some(address) },
        }
    }
}
