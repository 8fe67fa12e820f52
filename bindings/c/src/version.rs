//! The version: of the header, as macros, and of the library that runs, as a text.

use std::ffi::c_char;

/// The major version of this header.
pub const HOLEPUNCH_VERSION_MAJOR: u32 = 0;
/// The minor version of this header.
pub const HOLEPUNCH_VERSION_MINOR: u32 = 1;
/// The patch version of this header.
pub const HOLEPUNCH_VERSION_PATCH: u32 = 0;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// Returns the version of the library that runs, such as "0.1.0"; it may be newer than the header.
///
/// The text is static: never NULL, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn holepunch_version() -> *const c_char {
    VERSION.as_ptr().cast()
}
