//! A socket that becomes the program's own, as Python's `socket.socket`.

use std::os::fd::{AsRawFd, IntoRawFd};

use pyo3::{prelude::*, sync::PyOnceLock, types::IntoPyDict as _};

use crate::failure::Result;

/// The class. It is imported before anything is given away: that is the step that may fail.
pub(crate) fn class(py: Python<'_>) -> Result<&Bound<'_, PyAny>> {
    static SOCKET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Ok(SOCKET.import(py, "socket", "socket")?)
}

/// The object that owns the descriptor from now on.
pub(crate) fn object<'py>(class: &Bound<'py, PyAny>, given: impl AsRawFd + IntoRawFd) -> Result<Bound<'py, PyAny>> {
    let arguments = [("fileno", given.as_raw_fd())].into_py_dict(class.py())?;
    let socket = class.call((), Some(&arguments))?;
    let _ = given.into_raw_fd();
    Ok(socket)
}
