//! `Listener`: a registration with the servers, and the peers that come to it.

use std::sync::{Arc, Mutex, PoisonError};

use holepunch::ErrorKind;
use pyo3::{
    prelude::*,
    types::{PyAny, PyType},
};

use crate::{
    connection::Connection,
    endpoint::without_lock,
    failure::{Failure, Result, closed},
    path,
    stream::Stream,
    wait::{self, Cancel},
};

/// What iterating a listener gives.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Streams,
    Datagrams,
}

/// A listener: registered with the servers, it accepts many peers, until it is closed.
///
/// `accept` and `accept_datagram` may both be used. Iterating accepts streams (one from `listen`) or connections for
/// datagrams (one from `listen_datagram`), and ends when the listener is closed. Methods may be called from any thread, several at once.
#[pyclass(module = "holepunch", frozen)]
pub(crate) struct Listener {
    inner: Mutex<Option<Arc<holepunch::Listener>>>,
    name: Option<String>,
    kind: Kind,
}

impl Listener {
    pub(crate) fn new(listener: holepunch::Listener, kind: Kind) -> Self {
        let name = listener.name().map(str::to_owned);
        Self { inner: Mutex::new(Some(Arc::new(listener))), name, kind }
    }

    fn get(&self) -> Result<Arc<holepunch::Listener>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| closed("listener"))
    }

    fn take(&self) -> Option<Arc<holepunch::Listener>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Listener {
    /// Waits for a peer and returns the stream to it. A peer that could not be met ends nothing.
    #[pyo3(signature = (timeout=None, *, cancel=None))]
    fn accept(&self, py: Python<'_>, timeout: Option<f64>, cancel: Option<&Cancel>) -> Result<Stream> {
        let listener = self.get()?;
        let stream = wait::repeat(py, timeout.try_into()?, cancel, |wait| listener.accept(wait));
        py.detach(move || drop(listener));
        Ok(Stream::new(stream?))
    }

    /// Waits for a peer and returns the connection with it, for datagrams. A peer that could not be met ends nothing.
    #[pyo3(signature = (timeout=None, *, cancel=None))]
    fn accept_datagram(&self, py: Python<'_>, timeout: Option<f64>, cancel: Option<&Cancel>) -> Result<Connection> {
        let listener = self.get()?;
        let connection = wait::repeat(py, timeout.try_into()?, cancel, |wait| listener.accept_datagram(wait));
        py.detach(move || drop(listener));
        Ok(Connection::new(connection?))
    }

    /// Whether a server has the registration; raises why none will. Does not wait.
    fn _poll_listening(&self, py: Python<'_>) -> Result<bool> {
        let listener = self.get()?;
        Ok(py.detach(move || listener.poll_listening()).transpose()?.is_some())
    }

    /// The name that it is found by; None when it is found by its public address.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Our addresses as the servers see them.
    #[getter]
    fn mapped<'py>(&self, py: Python<'py>) -> Result<Vec<Bound<'py, PyAny>>> {
        let listener = self.get()?;
        let mapped = py.detach(move || listener.mapped());
        Ok(mapped.into_iter().map(|address| path::address(py, address)).collect::<PyResult<_>>()?)
    }

    /// Closes the listener; its name is free again at once. Blocked calls fail with `ClosedError`, connections live on.
    ///
    /// Any thread, any time, any number of times.
    fn close(&self, py: Python<'_>) -> Result<()> {
        let Some(listener) = self.take() else { return Ok(()) };
        py.detach(|| listener.close());
        wait::dispose(py, listener)
    }

    /// As `close`, in this thread: quick while the endpoint is held otherwise.
    fn _close(&self, py: Python<'_>) {
        if let Some(listener) = self.take() {
            py.detach(move || {
                listener.close();
                drop(listener);
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

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyAny>>> {
        let accepted = match self.kind {
            Kind::Streams => self.accept(py, None, None).map(|stream| Ok(Bound::new(py, stream)?.into_any())),
            Kind::Datagrams => self.accept_datagram(py, None, None).map(|other| Ok(Bound::new(py, other)?.into_any())),
        };
        match accepted {
            Ok(object) => Ok(Some(object.map_err(Failure::Python)?)),
            Err(Failure::Core(error)) if error.kind() == ErrorKind::Closed => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// `Listener[Stream]` and `Listener[Connection]` tell type checkers what the iteration gives.
    #[classmethod]
    fn __class_getitem__(class: &Bound<'_, PyType>, item: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let alias = class.py().import("types")?.getattr("GenericAlias")?;
        Ok(alias.call1((class, item))?.unbind())
    }

    fn __repr__(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
        format!("<holepunch.Listener{name}{}>", if self.get().is_ok() { "" } else { " closed" })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        without_lock(self.take());
    }
}
