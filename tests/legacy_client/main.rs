//! Meeting peers and servers of 2015 from Rust, on loopback. The old side is raw sockets, written from what the code of
//! 2015 did on the wire.
//!
//! Loopback is the hardest network for streams: a refusal comes in microseconds, so SYNs hardly ever cross.

#![cfg(feature = "server")]

mod client;
mod current;
mod deciding;
mod old;
mod peers;
