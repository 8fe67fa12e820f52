//! What an [`Agent`](super::Agent) tells of what came in, and of how far it is.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::CandidateKind;
use crate::machine::SocketId;

/// The pair that a negotiation ended on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelectedPair {
    /// Our socket.
    pub socket: SocketId,
    /// The local address that the peer reached; unspecified where it was never seen.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// How the peer's address was learned.
    pub kind: CandidateKind,
    /// The round-trip time of the check that was answered.
    pub rtt: Duration,
}

/// What a datagram was to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// A message of this negotiation, taken in.
    Message,
    /// Data of the peer: it came from where something authenticated came from before.
    Data,
    /// Neither: it is for another agent on the same socket, or from a stranger.
    Foreign,
}

/// What an agent tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentEvent {
    /// A pair was selected. It is final, but for what [`Moved`](Self::Moved) tells.
    Selected(SelectedPair),
    /// The peer answers at another address now, and at the one before no more: its NAT has forgotten it, or it has
    /// another network. The pair in use is this.
    Moved(SelectedPair),
    /// The peer's checks name us rightly and are signed with another secret, or ours were refused for that.
    WrongSecret,
    /// The selected pair has answered nothing for the time of RFC 7675.
    ConsentExpired,
}
