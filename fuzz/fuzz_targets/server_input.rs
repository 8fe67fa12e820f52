//! Feeds the rendezvous server with the datagrams of several clients.

#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("server_input", bytes));
