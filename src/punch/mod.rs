//! How two introduced peers find a path: candidates, pairs, connectivity checks, nomination, consent.
//!
//! An [`Agent`] is one negotiation of ICE (RFC 8445). It knows nothing of servers and introductions: give it
//! sockets, credentials and the peer's candidates, as any signalling brings them.

mod agent;
mod candidate;
mod checks;
mod pair;

pub(crate) use agent::Arrival;
pub use agent::{Agent, AgentEvent, Role, SelectedPair};
pub use candidate::{Candidate, CandidateKind, Provenance};
