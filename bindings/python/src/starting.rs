//! What `holepunch.aio` is made of: calls that start something and do not wait, and a descriptor that wakes an event
//! loop when it is worth asking what became of it.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use holepunch::{Error, ErrorKind};
use pyo3::prelude::*;

use crate::{
    connection::Connection,
    endpoint::without_lock,
    failure::{Result, closed},
    stream::Stream,
};

/// A descriptor that is readable when something has changed. Changes between two looks are one byte in a socket.
#[derive(Clone)]
pub(crate) struct Wakeup(Arc<Pair>);

struct Pair {
    reader: UnixStream,
    writer: UnixStream,
    is_told: AtomicBool,
}

impl Wakeup {
    pub(crate) fn new() -> Result<Self> {
        let pair = || {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            writer.set_nonblocking(true)?;
            Ok(Self(Arc::new(Pair { reader, writer, is_told: AtomicBool::new(false) })))
        };
        pair().map_err(|error: io::Error| {
            Error::new(ErrorKind::Io, format!("no descriptors to wake an event loop: {error}"))
                .with_os_code(error.raw_os_error())
                .into()
        })
    }

    /// Makes the descriptor readable. From any thread.
    pub(crate) fn tell(&self) {
        if !self.0.is_told.swap(true, Ordering::SeqCst) {
            // There is room: at most a few bytes are ever in it.
            let _ = (&self.0.writer).write(&[0]);
        }
    }

    /// Makes it unreadable again; look at the states after this, not before.
    pub(crate) fn clear(&self) {
        let mut bytes = [0; 16];
        while matches!((&self.0.reader).read(&mut bytes), Ok(1..)) {}
        // After the reading: what is told from here on brings a byte that stays.
        self.0.is_told.store(false, Ordering::SeqCst);
    }

    pub(crate) fn fileno(&self) -> RawFd {
        self.0.reader.as_raw_fd()
    }
}

/// A connect under way.
pub(crate) enum Started {
    Stream(holepunch::Connecting<holepunch::Stream>),
    Datagrams(holepunch::Connecting<holepunch::Connection>),
}

/// A connect under way. `close`, and dropping it, gives it up.
#[pyclass(module = "holepunch", frozen)]
pub(crate) struct Connecting {
    inner: Mutex<Option<Started>>,
}

impl Connecting {
    pub(crate) fn new(started: Started) -> Self {
        Self { inner: Mutex::new(Some(started)) }
    }

    fn take(&self) -> Option<Started> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Connecting {
    /// The stream or connection, None while it is not known; or raises why there is none. Does not wait.
    fn poll<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyAny>>> {
        // With the interpreter's lock: it does not block, and a thread that had to take it again would hold `inner`.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match inner.as_mut().ok_or_else(|| closed("connect"))? {
            Started::Stream(started) => match started.poll().transpose()? {
                Some(stream) => Some(Bound::new(py, Stream::new(stream))?.into_any()),
                None => None,
            },
            Started::Datagrams(started) => match started.poll().transpose()? {
                Some(connection) => Some(Bound::new(py, Connection::new(connection))?.into_any()),
                None => None,
            },
        })
    }

    /// Gives it up, and closes what it had brought.
    fn close(&self) {
        without_lock(self.take());
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        without_lock(self.take());
    }
}
