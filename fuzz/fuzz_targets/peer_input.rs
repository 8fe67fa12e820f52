//! Lets two peers and their server meet over a hostile network.

#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("peer_input", bytes));
