//! The C library: every function of `holepunch.h`, over the public Rust API and nothing else.
//!
//! There is one file for each handle. Every exported function is a plain `extern "C" fn` (cbindgen, which makes the
//! header from these files, does not see functions made by macros) and does its work inside the guard of `guard.rs`,
//! which checks the handle, catches panics and turns errors into a status. What all functions have in common is said
//! once, in the preamble of `cbindgen.toml`, and so at the top of the header.
#![deny(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::wildcard_enum_match_arm)]
#![allow(unsafe_code, reason = "this is the border to C; every block says why it is sound")]
#![allow(non_camel_case_types, reason = "the names are those of C")]
#![allow(clippy::missing_safety_doc, reason = "the header says once what all pointers must be")]

pub mod agent;
pub mod cancel;
pub mod config;
pub mod connection;
mod deadline;
pub mod endpoint;
pub mod error;
mod guard;
pub mod listener;
pub mod options;
mod sized_struct;
mod slot;
pub mod status;
pub mod stream;
pub mod version;

/// A socket as the system names it: `int` on Unix, `SOCKET` on Windows. The header has its own definition.
#[cfg(unix)]
pub type holepunch_socket_t = std::ffi::c_int;
/// A socket as the system names it: `int` on Unix, `SOCKET` on Windows. The header has its own definition.
#[cfg(windows)]
pub type holepunch_socket_t = std::os::windows::raw::SOCKET;
