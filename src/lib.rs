#![cfg_attr(not(feature = "std"), no_std)]
//! Direct connections between two programs behind NATs or firewalls, in one call.
//!
//! Each of the two talks to a small public server (`holepunch server`), which introduces them and then steps out of
//! the way: they send to each other's addresses in the same moment, so that each opens its own NAT or firewall for
//! the other, and are connected one round trip later.
//!
//! ```no_run
//! use holepunch::{Endpoint, Wait};
//!
//! # fn main() -> holepunch::Result<()> {
//! // Behind one NAT:
//! let endpoint = Endpoint::builder().server("rendezvous.example").build()?;
//! let listener = endpoint.listen(Some("bob"), Wait::forever())?;
//! let connection = listener.accept_datagram(Wait::forever())?;
//!
//! // Behind another:
//! let endpoint = Endpoint::builder().server("rendezvous.example").build()?;
//! let connection = endpoint.connect_datagram("bob", &Default::default())?;
//! connection.send(b"hello")?;
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! [`Endpoint`] is the blocking interface for programs: it owns sockets and a thread. Under it is [`peer::Peer`], the
//! same without sockets, clock or randomness, for programs with an event loop of their own; and under that
//! [`punch::Agent`], one negotiation of ICE (RFC 8445). [`wire`] is the protocol as bytes. Everything from `peer` down is
//! `no_std`. Programs with signalling of their own, and peers that are other agents of ICE, are served by [`Agent`]. Beside
//! the endpoint, [`legacy`] meets peers and servers of the package of 2015.
//!
//! # Features
//!
//! `std` (default) is everything that needs an operating system; `server` the rendezvous server's event loop; `cli`
//! the command line as a function.

#![warn(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm
)]

extern crate alloc;

mod address;
#[cfg(feature = "cli")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a program, as a function")]
pub mod cli;
pub mod config;
#[cfg(feature = "std")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it blocks, so it knows of time")]
mod endpoint;
mod error;
#[cfg(feature = "std")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the one place for sockets, threads and clocks")]
mod io;
#[cfg(feature = "std")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it blocks, and gives plain sockets away")]
pub mod legacy;
pub mod machine;
pub mod peer;
pub mod punch;
pub mod rendezvous;
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "an event loop, with sockets and a clock")]
pub mod server;
pub mod wire;

#[cfg(feature = "std")]
pub use endpoint::{
    Agent, AgentOptions, Cancel, ConnectOptions, Connecting, Connection, Endpoint, EndpointBuilder, Listener, Stream,
    Wait,
};
pub use error::{Error, ErrorKind, Result};
pub use rendezvous::keys::Secret;
