//! The library in the simulator: real peers, the real server, virtual time.

mod matrix;
mod world;
