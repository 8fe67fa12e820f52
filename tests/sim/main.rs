//! The library in the simulator: real peers, the real server, virtual time.

mod bare;
mod blocked;
mod faults;
mod legacy;
mod life;
mod misery;
mod moving;
mod networks;
mod rendezvous;
mod signalled;
mod streams;
mod timing;
mod topology;
mod world;
