//! `Connection`: datagrams to and from one peer, on a direct path.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Arc, Mutex, PoisonError},
};

use holepunch::{Error, ErrorKind};
use pyo3::{prelude::*, types::PyBytes};

use crate::{
    arguments::Bytes,
    buffer,
    endpoint::without_lock,
    failure::{Result, closed},
    path::Path,
    plain,
    wait::{self, Cancel},
};

/// The most bytes that a UDP datagram can carry (RFC 768), rounded up as in 2015.
const LARGEST: usize = 65_535;

/// A connection with one peer, for datagrams of at most 1,200 bytes; like UDP itself it may lose or reorder them.
///
/// Methods may be called from any thread, several at once.
#[pyclass(module = "holepunch", frozen)]
pub(crate) struct Connection {
    inner: Mutex<Option<Arc<holepunch::Connection>>>,
    path: holepunch::peer::Path,
    session: String,
}

impl Connection {
    pub(crate) fn new(connection: holepunch::Connection) -> Self {
        let session = connection.session().0.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { path: connection.path(), session, inner: Mutex::new(Some(Arc::new(connection))) }
    }

    fn get(&self) -> Result<Arc<holepunch::Connection>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| closed("connection"))
    }

    fn take(&self) -> Option<Arc<holepunch::Connection>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The connection itself, where no other call uses it.
    fn take_alone(&self) -> Result<holepunch::Connection> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = inner.take().ok_or_else(|| closed("connection"))?;
        Arc::try_unwrap(connection).map_err(|used| {
            *inner = Some(used);
            let error = Error::new(ErrorKind::InvalidArgument, "another call uses the connection");
            error.with_hint("end the calls on it first").into()
        })
    }
}

#[pymethods]
impl Connection {
    /// Sends one datagram: any bytes-like object of at most 1,200 bytes. Waits only while the system has no room for it.
    ///
    /// `timeout` is in seconds: 0 polls, None waits for ever. After an exception it was not sent.
    #[pyo3(signature = (data, *, timeout=None, cancel=None))]
    fn send(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<()> {
        let timeout = timeout.try_into()?;
        let connection = self.get()?;
        let data = Bytes::new(data)?;
        let data = data.as_slice();
        let sent = wait::repeat(py, timeout, cancel, |wait| connection.send_within(data, wait));
        py.detach(move || drop(connection));
        sent
    }

    /// Waits for a datagram and returns it.
    ///
    /// A datagram longer than `max` is a `MessageTooLargeError`; after the peer's end comes `ClosedError`, after 30
    /// silent seconds `LostError`. `timeout` is in seconds: 0 polls, None waits for ever.
    #[pyo3(signature = (max=65535, *, timeout=None, cancel=None))]
    fn recv<'py>(
        &self,
        py: Python<'py>,
        max: usize,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<Bound<'py, PyBytes>> {
        let timeout = timeout.try_into()?;
        let connection = self.get()?;
        let max = max.min(LARGEST);
        let received = buffer::receive(py, max, timeout, cancel, |room, wait| connection.recv(room, wait));
        py.detach(move || drop(connection));
        received
    }

    /// Announces the end of our data and waits until the peer has acknowledged it (3 seconds at most). Receiving goes on.
    #[pyo3(signature = (timeout=None, *, cancel=None))]
    fn end(&self, py: Python<'_>, timeout: Option<f64>, cancel: Option<&Cancel>) -> Result<()> {
        let connection = self.get()?;
        wait::once(py, timeout.try_into()?, cancel, move |_, wait| connection.end(wait))
    }

    /// Gives the socket away, as a plain `socket.socket`: connected, blocking, holding nothing but data, with nothing of this package on it.
    ///
    /// It is the caller's, who closes it, and outlives the endpoint; the connection is as good as closed, also after an
    /// exception, unless another call has not returned. Blocks for a round trip, up to 4 seconds where the peer does not
    /// answer. `recvfrom` tells our own address as the source of what had come before. Nobody keeps NAT bindings alive or
    /// notices the peer's end any more.
    #[expect(clippy::wrong_self_convention, reason = "a Python object cannot be moved out of")]
    fn into_socket<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        let class = plain::class(py)?;
        let connection = self.take_alone()?;
        let given = wait::finish(py, move || connection.into_socket())??;
        plain::object(class, given)
    }

    /// The path that the connection was found on.
    #[getter]
    fn path(&self) -> Path {
        Path(self.path)
    }

    /// The smoothed round-trip time, in seconds.
    #[getter]
    fn rtt(&self, py: Python<'_>) -> Result<f64> {
        let connection = self.get()?;
        Ok(py.detach(move || connection.rtt()).as_secs_f64())
    }

    /// The session's identifier, the same on both sides, in hexadecimal.
    #[getter]
    fn session(&self) -> &str {
        &self.session
    }

    /// The socket's descriptor, for `select` and the like; -1 once closed. Readable may be spurious: then `recv(timeout=0)` raises `TimeoutError`.
    fn fileno(&self) -> i32 {
        self.get().map_or(-1, |connection| connection.as_fd().as_raw_fd())
    }

    /// Closes the connection and tells the peer. Blocked calls fail with `ClosedError`. Any thread, any time, any number of times.
    fn close(&self, py: Python<'_>) -> Result<()> {
        let Some(connection) = self.take() else { return Ok(()) };
        py.detach(|| connection.close());
        wait::dispose(py, connection)
    }

    /// As `close`, in this thread: quick while the endpoint is held otherwise.
    fn _close(&self, py: Python<'_>) {
        if let Some(connection) = self.take() {
            py.detach(move || {
                connection.close();
                drop(connection);
            });
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> Result<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        let state = if self.get().is_ok() { "" } else { " closed" };
        format!("<holepunch.Connection to {} over {}{state}>", self.path.remote, self.path.kind.name())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        without_lock(self.take());
    }
}
