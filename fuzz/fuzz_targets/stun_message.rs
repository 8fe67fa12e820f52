//! Feeds arbitrary datagrams to the STUN codec.

#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::stun_message(bytes));
