//! The C library with one function more, which panics within a call, for `tests/table.rs`: no call of the library
//! itself can be made to panic.
#![allow(
    missing_docs,
    non_camel_case_types,
    unnameable_types,
    unreachable_pub,
    unsafe_code,
    clippy::missing_safety_doc,
    reason = "the parts of the library are those of src/lib.rs, where this is said"
)]

#[path = "../../src/agent.rs"]
pub mod agent;
#[path = "../../src/cancel.rs"]
pub mod cancel;
#[path = "../../src/config.rs"]
pub mod config;
#[path = "../../src/connection.rs"]
pub mod connection;
#[path = "../../src/deadline.rs"]
mod deadline;
#[path = "../../src/endpoint.rs"]
pub mod endpoint;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/guard.rs"]
mod guard;
#[path = "../../src/listener.rs"]
pub mod listener;
#[path = "../../src/options.rs"]
pub mod options;
#[path = "../../src/sized_struct.rs"]
mod sized_struct;
#[path = "../../src/slot.rs"]
mod slot;
#[path = "../../src/status.rs"]
pub mod status;
#[path = "../../src/stream.rs"]
pub mod stream;
#[path = "../../src/version.rs"]
pub mod version;

pub type holepunch_socket_t = std::ffi::c_int;

use std::{ffi::c_void, ptr};

/// Panics within a call on a handle, and returns the status. `name` is that of the handle's type, without
/// `holepunch_` and `_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn panic_on(handle: *mut c_void, name: *const std::ffi::c_char) -> i32 {
    // SAFETY: the test gives a handle that is alive, and the name of its type.
    unsafe {
        let none = ptr::null_mut();
        match std::ffi::CStr::from_ptr(name).to_bytes() {
            b"agent" => guard::call(handle.cast::<agent::holepunch_agent_t>(), none, |_| panic!("as asked")),
            b"cancel" => guard::call(handle.cast::<cancel::holepunch_cancel_t>(), none, |_| panic!("as asked")),
            b"connection" => {
                guard::call(handle.cast::<connection::holepunch_connection_t>(), none, |_| panic!("as asked"))
            }
            b"endpoint" => guard::call(handle.cast::<endpoint::holepunch_endpoint_t>(), none, |_| panic!("as asked")),
            b"listener" => guard::call(handle.cast::<listener::holepunch_listener_t>(), none, |_| panic!("as asked")),
            b"stream" => guard::call(handle.cast::<stream::holepunch_stream_t>(), none, |_| panic!("as asked")),
            _ => -1,
        }
    }
}
