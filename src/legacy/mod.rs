//! Meeting peers as the package of 2015 did: through a server that speaks the text protocol, on one port that both are told.
//!
//! [`Client`] does it all, from a server's name to a plain socket. Its parts can be had one by one, as the Python
//! package does, whose programs may replace any of them: [`decide()`] finds out what a server speaks, [`meet_stream`] and
//! [`meet_datagram`] meet a peer that it named.
//!
//! Everything here blocks, asleep, until its [`Wait`](crate::Wait) ends it; nothing starts a thread that outlives the call, but that
//! a name is looked up in one, which cannot be stopped. So all of it may be used in a forked child.

mod client;
mod datagram;
mod decide;
mod route;
mod server;
mod stream;

pub use client::{Client, Opened, Socket};
pub use datagram::meet_datagram;
pub use decide::{Verdict, decide};
pub use stream::meet_stream;

/// The system's errors that trying again does not mend.
const HOPELESS: &[i32] = &[
    libc::EACCES,
    libc::EADDRINUSE,
    libc::EAFNOSUPPORT,
    libc::EINVAL,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOBUFS,
    libc::ENOMEM,
];
