//! What the package of 2015 did, for its programs: a server's name and a listener's address in, a plain socket out.
//!
//! [`Client`] does it all. Its parts can be had one by one, as the Python package does, whose programs may replace any of
//! them: [`decide()`] finds out what a server speaks. Through a current one [`meet_current`] meets current peers as they
//! meet each other, and hands on those of 2015. An old one names a peer and a port that both are told. [`meet_stream`] and
//! [`meet_datagram`] meet a peer of 2015, or who is taken for one, from that port.
//!
//! Everything here blocks, asleep, until its [`Wait`](crate::Wait) ends it; nothing starts a thread that outlives the call, but that
//! a name is looked up in one, which cannot be stopped. So all of it may be used in a forked child.

mod client;
mod current;
mod datagram;
mod decide;
mod route;
mod server;
mod stream;

pub use client::{Client, Opened, Socket};
pub use current::{Meeting, meet_current};
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
