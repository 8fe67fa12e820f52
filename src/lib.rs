#![cfg_attr(not(feature = "std"), no_std)]
//! holepunch

extern crate alloc;

mod address;
pub mod config;
mod error;
pub mod machine;
pub mod peer;
pub mod punch;
pub mod rendezvous;
pub mod wire;

pub use error::{Error, ErrorKind, Result};
