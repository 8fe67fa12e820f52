//! How two peers learn of each other through a server: registration, lookup, introduction, trickle, keys.
//!
//! Sans-IO on both sides: [`client`] is the half in the peers, [`server`] the whole server but its sockets.

pub mod keys;
