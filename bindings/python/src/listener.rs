//! `Listener`: a registration with the servers, and the peers that come to it.

use std::sync::{Arc, Mutex, PoisonError};

use holepunch::ErrorKind;
use pyo3::prelude::*;

use crate::{
    connection::Connection,
    endpoint::without_lock,
    failure::{Failure, Result, closed},
    path,
    wait::{self, Cancel},
};

/// A listener: registered with the servers, it accepts many peers, until it is closed.
///
/// Iterating accepts, and ends when the listener is closed. Methods may be called from any thread, several at once.
#[pyclass(module = "holepunch", frozen)]
pub(crate) struct Listener {
    inner: Mutex<Option<Arc<holepunch::Listener>>>,
    name: Option<String>,
}

impl Listener {
    pub(crate) fn new(listener: holepunch::Listener) -> Self {
        let name = listener.name().map(str::to_owned);
        Self { inner: Mutex::new(Some(Arc::new(listener))), name }
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
    /// Waits for a peer and returns the connection with it, for datagrams. A peer that could not be met ends nothing.
    #[pyo3(signature = (timeout=None, *, cancel=None))]
    fn accept_datagram(&self, py: Python<'_>, timeout: Option<f64>, cancel: Option<&Cancel>) -> Result<Connection> {
        let listener = self.get()?;
        let connection = wait::repeat(py, timeout.try_into()?, cancel, |wait| listener.accept_datagram(wait));
        py.detach(move || drop(listener));
        Ok(Connection::new(connection?))
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

    fn __next__(&self, py: Python<'_>) -> Result<Option<Connection>> {
        match self.accept_datagram(py, None, None) {
            Ok(connection) => Ok(Some(connection)),
            Err(Failure::Core(error)) if error.kind() == ErrorKind::Closed => Ok(None),
            Err(failure) => Err(failure),
        }
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
