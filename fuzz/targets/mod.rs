//! What the fuzz targets do with their input, a file each; `tests/fuzz_corpus.rs` replays the corpora through the same
//! functions.
//!
//! One is run by `cargo fuzz run NAME`, which needs a nightly compiler (or `RUSTC_BOOTSTRAP=1`). `fuzz/seeds.rs` makes
//! the starting points; `HOLEPUNCH_WRITE_SEEDS=1 cargo test --test fuzz_corpus` writes them into the corpora.

// Every fuzz target and the replaying test take this module in whole, and use their part of it.
#![allow(dead_code, reason = "each user of this module uses its part of it")]

pub(crate) mod agent;
pub(crate) mod names;
pub(crate) mod peer;
pub(crate) mod records;
pub(crate) mod server;
pub(crate) mod streams;
mod stun;

/// A fuzz target.
pub(crate) type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("agent_input", agent::agent_input),
    ("names_and_targets", names::names_and_targets),
    ("peer_input", peer::peer_input),
    ("server_input", server::server_input),
    ("server_streams", streams::server_streams),
    ("stun_message", stun::stun_message),
];

/// Runs a target on an input.
pub(crate) fn run(name: &str, input: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("the target is in the list");
    target(input);
}
