//! `Server`: the rendezvous server's loop, for `holepunch.server.Server.run`.

#![allow(unsafe_code)]

use std::{
    net::TcpListener,
    os::fd::{BorrowedFd, RawFd},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use holepunch::{
    Error, ErrorKind,
    server::{Handle, Options, RendezvousServer},
};
use pyo3::{prelude::*, types::PyDict};

use crate::{failure::Result, log, wait::Timeout};

/// A running server, on a thread of its own.
#[pyclass(module = "holepunch", frozen)]
pub(crate) struct Server {
    handle: Handle,
    thread: Mutex<Option<JoinHandle<()>>>,
    outcome: Arc<Outcome>,
}

/// What became of the loop.
#[derive(Default)]
struct Outcome {
    ended: Mutex<Option<holepunch::Result<()>>>,
    changed: Condvar,
}

#[pymethods]
impl Server {
    /// Starts to serve the clients of a listening socket, of which it uses a duplicate, and on UDP beside it.
    #[new]
    fn new(py: Python<'_>, listener: RawFd, punch_port: u16) -> Result<Self> {
        if listener < 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "the server is not open").into());
        }
        let failed = |what: &str, error: &std::io::Error| {
            Error::new(ErrorKind::Io, format!("{what}: {error}")).with_os_code(error.raw_os_error())
        };
        // SAFETY: the caller's socket is open during this call, for Python holds it; a number that is nobody's fails.
        let borrowed = unsafe { BorrowedFd::borrow_raw(listener) };
        let own =
            borrowed.try_clone_to_owned().map_err(|error| failed("the listening socket cannot be used", &error))?;
        let mut options = Options::default();
        options.listener = Some(TcpListener::from(own));
        options.punch_port = punch_port;
        options.log = Some(Box::new(log::callback(py)?));
        let outcome = Arc::new(Outcome::default());
        let server = RendezvousServer::bind(options)?;
        let handle = server.handle();
        let run = {
            let outcome = outcome.clone();
            move || {
                let ending = Ending(&outcome);
                let result = server.run();
                *ending.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            }
        };
        let thread = thread::Builder::new().name("holepunch-server".into()).spawn(run);
        let thread = thread.map_err(|error| failed("no thread for the server", &error))?;
        Ok(Self { handle, thread: Mutex::new(Some(thread)), outcome })
    }

    /// Waits until the server has stopped, and returns whether it has; raises why, where it was no `stop`.
    fn wait(&self, py: Python<'_>, timeout: f64) -> Result<bool> {
        let Timeout(timeout) = Some(timeout).try_into()?;
        let ended = py.detach(|| {
            let ended = self.outcome.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let wait = self
                .outcome
                .changed
                .wait_timeout_while(ended, timeout.unwrap_or(Duration::MAX), |ended| ended.is_none());
            wait.unwrap_or_else(PoisonError::into_inner).0.clone()
        });
        Ok(ended.transpose()?.is_some())
    }

    /// Makes it stop; does not wait for it. From any thread, any number of times.
    fn stop(&self) {
        self.handle.stop();
    }

    /// Makes it stop, and waits until its clients are closed.
    fn close(&self, py: Python<'_>) {
        self.handle.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic of its own was reported by the panic hook, and `wait` says so.
        py.detach(move || thread.map(JoinHandle::join));
    }

    /// The port that peers of 2015 are told to meet on, for every answer to what comes from now on.
    fn set_punch_port(&self, port: u16) {
        self.handle.set_punch_port(port);
    }

    /// What it had done when it last went to sleep.
    fn stats<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let stats = self.handle.stats();
        let dict = PyDict::new(py);
        dict.set_item("introductions", stats.introductions)?;
        dict.set_item("registrations", stats.registrations)?;
        dict.set_item("connections", stats.connections)?;
        dict.set_item("legacy_listeners", stats.legacy_listeners)?;
        Ok(dict)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// Tells whoever waits that the loop has ended, also by a panic.
struct Ending<'a>(&'a Outcome);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let panicked = || Err(Error::new(ErrorKind::Poisoned, "the server panicked"));
        self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(panicked);
        self.0.changed.notify_all();
    }
}
