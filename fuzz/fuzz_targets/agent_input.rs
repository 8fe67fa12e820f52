//! Lets two agents negotiate over a hostile network, and with a hostile peer.

#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("agent_input", bytes));
