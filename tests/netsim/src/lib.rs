//! A deterministic network simulator in virtual time.
//!
//! It moves UDP datagrams and TCP segments between hosts over links with delay, jitter, loss, duplication and reordering, through NATs of every
//! kind of RFC 4787 and stateful firewalls, and it knows nothing of the programs under test. UDP sockets and timers are the caller's
//! business, and so is every state machine but TCP's: hosts have a small stack of their own ([`Network::tcp_connect`], [`TcpEvent`]). Nothing here reads a clock, starts a thread or iterates a hash table: one seed gives one
//! trace, in any process, and [`Network::trace_digest`] proves it.
//!
//! # The shape of a network
//!
//! There is one *backbone*. Hosts with public addresses attach to it, each by a [`Link`]. A *site* ([`SiteSpec`]) attaches to it
//! (or to the inside of another site) by an uplink, may hold a NAT and a firewall at its border, and has a LAN inside, to which
//! hosts and further sites attach. So a datagram between hosts in two sites crosses two uplinks one way; the border of each site
//! and the backbone are the three routers that lower its TTL.
//!
//! # The loop
//!
//! Mutate, then drain: advance the clock to the next thing that happens, then take the deliveries.
//!
//! ```
//! use netsim::{Datagram, Filtering, HostSpec, Link, Mapping, Nat, Network, PortAllocation, SiteSpec};
//!
//! let mut net = Network::new(1);
//! let server = net.add_host(HostSpec { addresses: vec!["192.0.2.1".parse()?], link: Link::delay_ms(20) });
//! let site = net.add_site(SiteSpec {
//!     public: vec!["198.51.100.1".parse()?],
//!     nat: Some(Nat::new(Mapping::AddressDependent, Filtering::AddressDependent, PortAllocation::Random)),
//!     link: Link::delay_ms(20),
//!     ..SiteSpec::default()
//! });
//! let client = net.add_host_in(site, vec!["10.0.0.2".parse()?], Link::default());
//!
//! net.send(client, Datagram {
//!     source: "10.0.0.2:5000".parse()?,
//!     destination: "192.0.2.1:3478".parse()?,
//!     ttl: 64,
//!     payload: b"hello".to_vec(),
//! });
//! while let Some(time) = net.next_event() {
//!     net.advance_to(time);
//!     while let Some(delivery) = net.poll_delivery() {
//!         assert_eq!(delivery.host, server);
//!         assert_eq!(delivery.at.as_millis(), 40);
//!         assert_eq!(delivery.source.ip().to_string(), "198.51.100.1");
//!     }
//! }
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! # Beside the simulator
//!
//! [`oracle`] says which pairs of NATs can be traversed and how, from the definitions of RFC 4787 alone; [`probe`] is the least
//! that could be called hole punching, the floor that real code is compared with. A host may also be *outside*
//! ([`Network::set_outside`]): its packets are carried in and out, which is how `tests/natlab` puts the same network between
//! real programs.

#![warn(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

mod firewall;
mod forwarding;
mod link;
mod nat;
mod network;
pub mod oracle;
mod outside;
mod pcap;
pub mod probe;
mod random;
mod tcp;
#[cfg(test)]
mod tcp_tests;
mod time;
mod trace;
mod tracking;

pub use firewall::Firewall;
pub use forwarding::{Datagram, Delivery};
pub use link::{Bursts, Link};
pub use nat::{EarlyInbound, Filtering, Mapping, Nat, Neighbours, PortAllocation};
pub use network::{Attachment, Counters, HostId, HostSpec, InterfaceId, Network, SiteId, SiteSpec};
pub use outside::Carried;
pub use random::Random;
pub use tcp::{TcpConnection, TcpError, TcpEvent, TcpFailure, TcpHeader, TcpPort};
pub use time::Time;
pub use trace::{DropReason, Event, Place, Record, Trace};
pub use tracking::UnsolicitedSyn;
