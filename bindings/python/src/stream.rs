//! `Stream`: bytes to and from one peer, on a direct path.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
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
    wait::{self, Cancel, Timeout},
};

/// The most bytes that one call receives, which bounds what each thread keeps for receiving: more than the system hands
/// over at once.
const MOST_AT_ONCE: usize = 1 << 18;

/// A stream of bytes to and from one peer, complete and in order: a TCP connection.
///
/// Methods may be called from any thread, several at once. The socket is the system's: `into_socket` gives it away.
#[pyclass(module = "holepunch", frozen)]
pub(crate) struct Stream {
    inner: Mutex<Option<Arc<holepunch::Stream>>>,
    path: holepunch::peer::Path,
    session: String,
}

impl Stream {
    pub(crate) fn new(stream: holepunch::Stream) -> Self {
        let session = stream.session().0.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { path: stream.path(), session, inner: Mutex::new(Some(Arc::new(stream))) }
    }

    fn get(&self) -> Result<Arc<holepunch::Stream>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| closed("stream"))
    }

    fn take(&self) -> Option<Arc<holepunch::Stream>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The stream itself, where no other call uses it.
    fn take_alone(&self) -> Result<holepunch::Stream> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = inner.take().ok_or_else(|| closed("stream"))?;
        Arc::try_unwrap(stream).map_err(|used| {
            *inner = Some(used);
            let error = Error::new(ErrorKind::InvalidArgument, "another call uses the stream");
            error.with_hint("end the calls on it first").into()
        })
    }
}

#[pymethods]
impl Stream {
    /// Waits for bytes and returns at most `max` of them; b"" at the end of the peer's data.
    ///
    /// One call returns 256 KiB at most. A connection that broke is a `LostError`. `timeout` is in seconds: 0 polls, None
    /// waits for ever.
    #[pyo3(signature = (max=65536, *, timeout=None, cancel=None))]
    fn recv<'py>(
        &self,
        py: Python<'py>,
        max: usize,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<Bound<'py, PyBytes>> {
        let timeout = timeout.try_into()?;
        let stream = self.get()?;
        let max = max.min(MOST_AT_ONCE);
        let received = buffer::receive(py, max, timeout, cancel, |room, wait| stream.recv(room, wait));
        py.detach(move || drop(stream));
        received
    }

    /// Sends some bytes, as many as the system takes, and returns how many; waits only while it takes none.
    #[pyo3(signature = (data, *, timeout=None, cancel=None))]
    fn send(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<usize> {
        let timeout = timeout.try_into()?;
        let data = Bytes::new(data)?;
        let data = data.as_slice();
        let stream = self.get()?;
        let sent = wait::repeat(py, timeout, cancel, |wait| stream.send(data, wait));
        py.detach(move || drop(stream));
        sent
    }

    /// Sends all of the bytes. After an exception it is not known how many were sent.
    #[pyo3(signature = (data, *, timeout=None, cancel=None))]
    fn sendall(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<()> {
        let Timeout(timeout) = timeout.try_into()?;
        let data = Bytes::new(data)?;
        let stream = self.get()?;
        let sent = send_all(py, &stream, data.as_slice(), timeout, cancel);
        py.detach(move || drop(stream));
        sent
    }

    /// Ends our data: the peer receives what was sent, then b"". Receiving goes on. Does not block.
    fn shutdown(&self, py: Python<'_>) -> Result<()> {
        let stream = self.get()?;
        Ok(py.detach(move || stream.shutdown_write())?)
    }

    /// Gives the socket away, as a plain `socket.socket`: connected, blocking, with nothing of this package on it.
    ///
    /// It is the caller's, who closes it, and outlives the endpoint; the stream is as good as closed. Other calls on the
    /// stream must have returned.
    #[expect(clippy::wrong_self_convention, reason = "a Python object cannot be moved out of")]
    fn into_socket<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        let class = plain::class(py)?;
        let stream = self.take_alone()?;
        let given = wait::finish(py, move || stream.into_socket())??;
        plain::object(class, given)
    }

    /// The path that the stream was found on.
    #[getter]
    fn path(&self) -> Path {
        Path(self.path)
    }

    /// The smoothed round-trip time, in seconds.
    #[getter]
    fn rtt(&self, py: Python<'_>) -> Result<f64> {
        let stream = self.get()?;
        Ok(py.detach(move || stream.rtt()).as_secs_f64())
    }

    /// The session's identifier, the same on both sides, in hexadecimal.
    #[getter]
    fn session(&self) -> &str {
        &self.session
    }

    /// The socket's descriptor, for `select` and the like; -1 once closed. To read or write it otherwise, use `into_socket`.
    fn fileno(&self) -> i32 {
        self.get().map_or(-1, |stream| stream.as_fd().as_raw_fd())
    }

    /// Closes the stream: what was sent still arrives, then the peer receives the end. Blocked calls fail with `ClosedError`.
    ///
    /// Any thread, any time, any number of times.
    fn close(&self, py: Python<'_>) -> Result<()> {
        let Some(stream) = self.take() else { return Ok(()) };
        py.detach(|| stream.close());
        wait::dispose(py, stream)
    }

    /// As `close`, in this thread: quick while the endpoint is held otherwise.
    fn _close(&self, py: Python<'_>) {
        if let Some(stream) = self.take() {
            py.detach(move || {
                stream.close();
                drop(stream);
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
        format!("<holepunch.Stream to {} over {}{state}>", self.path.remote, self.path.kind.name())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        without_lock(self.take());
    }
}

/// Sends piece by piece, so that on the main thread signals are answered in between.
fn send_all(
    py: Python<'_>,
    stream: &holepunch::Stream,
    mut data: &[u8],
    timeout: Option<Duration>,
    cancel: Option<&Cancel>,
) -> Result<()> {
    let deadline = timeout.and_then(|time| Instant::now().checked_add(time));
    while !data.is_empty() {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let sent = wait::repeat(py, Timeout(left), cancel, |wait| stream.send(data, wait))?;
        data = data.get(sent..).unwrap_or_default();
        py.check_signals()?;
    }
    Ok(())
}
