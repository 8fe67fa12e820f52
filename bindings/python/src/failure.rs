//! Errors of the core as Python exceptions.
//!
//! The classes are Python's (`holepunch.errors`), found there by the number of the kind; the list of kinds that the
//! module exports lets a test compare the two.

use holepunch::{Error, ErrorKind};
use pyo3::{prelude::*, sync::PyOnceLock, types::PyTuple};

/// Why a method failed: an error of the core, or an exception that Python already has.
pub(crate) enum Failure {
    Core(Error),
    Python(PyErr),
}

/// Shorthand for results of methods.
pub(crate) type Result<T> = core::result::Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Core(error) => Python::attach(|py| exception(py, &error).unwrap_or_else(|failed| failed)),
            Failure::Python(error) => error,
        }
    }
}

/// The exception of an error; fails only with another exception, which then says why.
fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    static FROM_CORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let kind = error.kind();
    let instance = FROM_CORE.import(py, "holepunch.errors", "_from_core")?.call1((
        kind.code(),
        kind.name(),
        error.message(),
        error.hint(),
        error.os_code(),
        error.legacy_peer().map(|peer| (peer.ip().to_string(), peer.port())),
        PyTuple::new(py, error.strategies())?,
    ))?;
    Ok(PyErr::from_value(instance))
}

/// Number, name and advice of every kind.
pub(crate) fn kinds() -> Vec<(i32, &'static str, &'static str)> {
    ErrorKind::ALL.iter().map(|kind| (kind.code(), kind.name(), kind.hint())).collect()
}

/// The error of a call on an object that was closed.
pub(crate) fn closed(what: &'static str) -> Failure {
    Failure::Core(Error::new(ErrorKind::Closed, format!("the {what} is closed")))
}
