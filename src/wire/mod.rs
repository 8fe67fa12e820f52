//! What crosses the network, as bytes: the STUN codec, the text protocol of 2015, and the rule that tells STUN from
//! everything else.
//!
//! Bytes only. Nothing here knows of a clock, a socket or a source of randomness, and no input makes it panic:
//! what was parsed is of a type that cannot be wrong.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used))]

pub mod compat;
pub mod demux;
pub mod sdp;
pub mod stun;
