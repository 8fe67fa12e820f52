//! The only sockets, threads, clock and OS randomness of the library.
//!
//! [`mod@core`] holds the sans-IO peer and does what it wants ([`outputs`]), and gives it what the sockets bring
//! ([`inputs`]). [`shared`] guards it with one lock, wakes blocked calls and whoever drives; [`engine`] is the thread and
//! the end of all. A connection's own socket ([`link`]) is used by the program's calls directly ([`mod@receive`]), and
//! only [`peek`]ed at for the peer's checks while nobody reads, or becomes the program's own ([`bare`]). TCP is
//! [`tcp`]'s sockets in the peer's hands ([`streams`]), until one of them is the program's ([`stream`]). What peers of
//! 2015 are met with is [`plain`] sockets, which belong to one blocking call ([`turn`]). `unsafe` is allowed here, for what neither std nor
//! socket2 can do.

#![allow(unsafe_code)]

mod bare;
mod cancel;
mod clock;
mod control;
mod core;
#[cfg(feature = "cli")]
mod daytime;
mod engine;
mod fault;
mod filter;
mod fork;
mod identity;
mod inputs;
mod interfaces;
mod link;
mod negotiations;
mod outputs;
mod peek;
mod random;
mod ready;
mod receive;
mod resolve;
mod send;
mod shared;
mod spawn;
mod stream;
mod streams;
mod tcp;
#[cfg(test)]
mod tests;
mod turn;
mod udp;
mod wait;

pub use cancel::Cancel;
pub(crate) use core::{Channel, Core};
#[cfg(feature = "cli")]
pub(crate) use daytime::local_time;
pub(crate) use engine::Engine;
pub(crate) use link::Link;
pub(crate) use receive::receive;
pub(crate) use resolve::{Families, ServerName, addresses, resolve};
pub(crate) use send::send;
pub(crate) use shared::Callbacks;
pub(crate) use stream::StreamLink;
pub(crate) mod streaming {
    //! The calls on a stream.
    pub(crate) use super::stream::{as_io, receive, send, send_all};
}
pub(crate) mod plain {
    //! Plain sockets in the hands of one call, as meeting peers and servers of 2015 needs them.
    pub(crate) use super::{
        fault::{bind_error, os_error},
        filter::{detach, only_from},
        identity::Identity,
        link::as_uninit,
        random::random,
        ready::Interest,
        tcp::{accept, begin, drain, new_socket as stream_socket, shared as shared_stream},
        turn::Turn,
        udp::new_socket as datagram_socket,
    };
}
pub use wait::Wait;
