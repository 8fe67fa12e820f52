//! How two introduced peers find a path: candidates, pairs, connectivity checks, nomination, consent.
//!
//! An [`Agent`] is one negotiation of ICE (RFC 8445). It knows nothing of servers and introductions: give it
//! sockets, credentials and the peer's candidates, as any signalling brings them. Mutate, then drain:
//!
//! ```
//! use holepunch::{
//!     config::{Checks, Consent},
//!     machine::{Instant, SocketId},
//!     punch::{Agent, AgentEvent, Candidate, CandidateKind, Provenance, Role},
//!     wire::stun::Credentials,
//! };
//! use std::{net::SocketAddr, time::Duration};
//!
//! // What signalling has brought to both sides.
//! let a: SocketAddr = "192.0.2.1:5000".parse()?;
//! let b: SocketAddr = "192.0.2.2:6000".parse()?;
//! let credentials = |ufrag: &str, password: &str| Credentials { ufrag: ufrag.into(), password: password.into() };
//! let of_a = credentials("aaaaaaaa", "22 random characters..");
//! let of_b = credentials("bbbbbbbb", "and 22 others, as many");
//!
//! let mut now = Instant::from_nanos(0); // A real driver reads a monotonic clock,
//! let agent = |role, own, other, seed| Agent::new(Checks::default(), Consent::default(), role, own, other, seed);
//! let mut agents = [
//!     agent(Role::Controlling, of_a.clone(), of_b.clone(), [1; 32]), // and draws secret seeds.
//!     agent(Role::Controlled, of_b, of_a, [2; 32]),
//! ];
//! let addresses = [a, b];
//! for (side, agent) in agents.iter_mut().enumerate() {
//!     agent.add_socket(now, SocketId(0), addresses[side]);
//!     agent.add_remote(now, Candidate::new(CandidateKind::Host, addresses[1 - side], Provenance::Observed));
//! }
//!
//! let mut selected = [None, None];
//! while selected.contains(&None) {
//!     for side in [0, 1] {
//!         agents[side].handle_timeout(now);
//!         while let Some(transmit) = agents[side].poll_transmit() {
//!             // Send it from its socket; here it arrives at once.
//!             assert_eq!(transmit.destination, addresses[1 - side]);
//!             let (local, remote) = (addresses[1 - side], addresses[side]);
//!             agents[1 - side].handle_datagram(now, SocketId(0), local, remote, &transmit.payload);
//!         }
//!         while let Some(event) = agents[side].poll_event() {
//!             if let AgentEvent::Selected(pair) = event {
//!                 selected[side] = Some(pair.remote);
//!             }
//!         }
//!     }
//!     // Wait for a datagram or for the earliest time; here nothing is under way, and time flies.
//!     now = agents.iter().filter_map(Agent::next_timeout).min().expect("consent is to be renewed");
//! }
//! assert_eq!(selected, [Some(b), Some(a)]);
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

mod agent;
mod candidate;
mod checks;
mod consent;
mod credentials;
mod events;
mod moving;
mod pair;
mod role;
mod stream;
#[cfg(test)]
mod tests;

pub use agent::Agent;
pub(crate) use agent::{Arrival, Settings};
pub use candidate::{Candidate, CandidateKind, Provenance};
pub use events::{AgentEvent, Received, SelectedPair};
pub use role::Role;
pub(crate) use stream::{SelectedStream, StreamAgent, StreamEvent};
