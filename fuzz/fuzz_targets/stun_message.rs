//! Feeds arbitrary datagrams to the STUN codec.

#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("stun_message", bytes));
