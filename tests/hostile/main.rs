//! Strangers, a hostile server and a hostile peer, let loose on a real `Peer` in virtual time: what they can make it
//! send is counted, what it keeps is bounded, and afterwards it works as before.

mod agent;
mod introductions;
mod outside;
mod peer;
mod server;
mod server_tcp;
mod strangers;
mod stream;
mod victim;
mod wrong_lengths;
