//! The path of a connection, as a value.

use std::net::SocketAddr;

use pyo3::{prelude::*, sync::PyOnceLock};

/// The path that a connection was found on.
#[pyclass(module = "holepunch", frozen, eq)]
#[derive(PartialEq)]
pub(crate) struct Path(pub(crate) holepunch::peer::Path);

#[pymethods]
impl Path {
    /// Our address. Its host is unspecified where the peer's packets never showed it.
    #[getter]
    fn local<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        address(py, self.0.local)
    }

    /// The peer's address.
    #[getter]
    fn remote<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        address(py, self.0.remote)
    }

    /// How the peer's address was learned: `host`, `srflx`, `prflx` or `relay` (RFC 8445).
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind.name()
    }

    /// Which way the path was found, such as `udp_simultaneous`.
    #[getter]
    fn strategy(&self) -> &'static str {
        self.0.strategy.name()
    }

    /// The role that this side ended in: `controlling` or `controlled` (RFC 8445).
    #[getter]
    fn role(&self) -> &'static str {
        self.0.role.name()
    }

    /// The round-trip time of the check that found the path, in seconds.
    #[getter]
    fn rtt(&self) -> f64 {
        self.0.rtt.as_secs_f64()
    }

    /// From the introduction, as this side learned of it, to the connection, in seconds.
    #[getter]
    fn since_introduction(&self) -> f64 {
        self.0.since_introduction.as_secs_f64()
    }

    /// Datagrams that this side sent to the peer until it was connected; for a stream, the connects that it attempted.
    #[getter]
    fn packets_sent(&self) -> u32 {
        self.0.packets_sent
    }

    /// Sockets that this side used.
    #[getter]
    fn sockets(&self) -> u32 {
        self.0.sockets
    }

    fn __repr__(&self) -> String {
        let Self(path) = self;
        format!(
            "<holepunch.Path {} -> {} kind={} strategy={} role={} rtt={:.6}>",
            path.local,
            path.remote,
            path.kind.name(),
            path.strategy.name(),
            path.role.name(),
            path.rtt.as_secs_f64(),
        )
    }
}

/// An address as `holepunch.Address`.
pub(crate) fn address(py: Python<'_>, address: SocketAddr) -> PyResult<Bound<'_, PyAny>> {
    static ADDRESS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ADDRESS.import(py, "holepunch.address", "Address")?.call1((address.ip().to_string(), address.port()))
}
