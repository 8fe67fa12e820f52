//! Real Linux NATs and firewalls, and the simulator's, between real programs in network namespaces that a test makes
//! and removes.
//!
//! The simulator (`tests/netsim`) in virtual time is exact but is a model; this crate is slower and is the truth: the
//! kernel's own connection tracking stands between real programs. A [`Lab`] is a small internet, a namespace that
//! routes between all others. Hosts with public addresses attach to it directly; a [`Site`] attaches through a
//! [`Router`] with a LAN behind it.
//!
//! ```text
//!     alice ── router (NAT) ── internet ── router (NAT) ── bob
//!                                  │
//!                               server
//! ```
//!
//! A [`Model`] is the other lab: the simulator's own network between the same programs, in real time, over TUN devices,
//! with NATs of every kind, delay, jitter and loss, and with Linux's routers beside them.
//!
//! [`Strangers`] are everybody else: a host's device behind which is a part of the internet, so that a test can send
//! from millions of addresses, and read what is answered.
//!
//! Nothing leaves the namespaces, and nothing is made outside of them but their names, which carry the maker's process
//! id. They are removed when the `Lab` is dropped, and also when its process dies in any way, SIGKILL included: a child
//! of the lab waits for the end of its input and cleans up (see `reaper`).
//!
//! The lab needs root (that of a user namespace is enough, see `scripts/demo`), iproute2 and nftables, a model
//! `/dev/net/tun`. Where it is not allowed, [`Lab::or_skip`] says so aloud on standard error, on a line that begins
//! with `SKIPPED: `, and the caller returns.

mod artefacts;
mod lab;
mod model;
mod namespace;
mod pair;
mod program;
mod reaper;
mod router;
mod strangers;

pub use artefacts::{Artefacts, Example, Language, skip};
pub use lab::{Families, Host, Lab, LabError, Site};
pub use model::{Home, Model};
pub use pair::{Connected, Pair, Place, Rendezvous, field};
pub use program::{Program, Stream};
pub use router::Router;
pub use strangers::Strangers;
