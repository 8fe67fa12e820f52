//! Feeds arbitrary text to the parsers of names and targets.

#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("names_and_targets", bytes));
