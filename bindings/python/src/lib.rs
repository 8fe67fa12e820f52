//! The native module `holepunch._native`: the Rust endpoint as Python objects.
//!
//! It translates and decides nothing. What a call does is the core's; this crate turns arguments and errors into
//! Python's, releases the interpreter's lock in every wait, and runs pending signal handlers while waiting, so that
//! Ctrl-C works. Nothing of the core's calls into Python except the thread of `log`.

mod agent;
mod arguments;
mod buffer;
#[cfg(feature = "cli")]
mod command;
mod connection;
mod endpoint;
mod failure;
mod legacy;
mod listener;
mod log;
mod path;
mod plain;
#[cfg(feature = "server")]
mod server;
mod starting;
mod stream;
mod wait;

use pyo3::prelude::*;

/// The Rust core of the package; use it through `holepunch`.
#[pymodule]
mod _native {
    use super::{Bound, PyModule, PyModuleMethods as _, PyResult, failure};

    #[pymodule_export]
    use super::agent::Agent;
    #[cfg(feature = "cli")]
    #[pymodule_export]
    use super::command::run;
    #[pymodule_export]
    use super::connection::Connection;
    #[pymodule_export]
    use super::endpoint::Endpoint;
    #[pymodule_export]
    use super::legacy::{decide, meet_current, meet_datagram, meet_stream};
    #[pymodule_export]
    use super::listener::Listener;
    #[pymodule_export]
    use super::path::Path;
    #[cfg(feature = "server")]
    #[pymodule_export]
    use super::server::Server;
    #[pymodule_export]
    use super::starting::Connecting;
    #[pymodule_export]
    use super::stream::Stream;
    #[pymodule_export]
    use super::wait::Cancel;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("ERROR_KINDS", failure::kinds())
    }
}
