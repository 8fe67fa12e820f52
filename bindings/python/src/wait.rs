//! Waiting as Python expects it: without the interpreter's lock, interruptible by Ctrl-C, cancellable, with deadlines
//! in seconds.
//!
//! Signal handlers written in Python run on the main thread, and only when it asks. So there a call that can be
//! repeated waits in slices and asks between them ([`repeat`]); a call that cannot runs on a helper thread while the
//! main thread asks, and is cancelled when a handler raises ([`once`]). Other threads wait in one piece.

use std::{
    os::fd::AsRawFd as _,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use holepunch::{Error, ErrorKind, Wait};
use pyo3::{prelude::*, sync::PyOnceLock};

use crate::failure::Result;

/// How long the main thread waits before it asks for signals: well below the 100 ms that a person notices, and 20
/// wake-ups a second cost nothing measurable.
const SLICE: Duration = Duration::from_millis(50);

/// Timeouts longer than this are for ever (a century, in seconds): the clock's arithmetic would overflow later.
const FOREVER: f64 = 100.0 * 365.25 * 86_400.0;

/// A token that cancels blocking calls from another thread.
///
/// It stays cancelled; a call given a cancelled token fails at once with `CancelledError`. One token may serve many
/// calls.
#[pyclass(module = "holepunch", frozen)]
pub(crate) struct Cancel(pub(crate) holepunch::Cancel);

#[pymethods]
impl Cancel {
    #[new]
    fn new() -> Result<Self> {
        Ok(Self(holepunch::Cancel::new()?))
    }

    /// Cancels every call that waits with this token, and every later one. May be called from any thread.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.0.cancel());
    }

    /// Whether `cancel` was called.
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// A descriptor that is readable once cancelled, for `select` and the like.
    fn fileno(&self) -> i32 {
        self.0.as_raw_fd()
    }

    fn __repr__(&self) -> &'static str {
        if self.0.is_cancelled() { "<holepunch.Cancel cancelled>" } else { "<holepunch.Cancel>" }
    }
}

/// A timeout in seconds; `None` and infinity wait for ever, zero polls.
pub(crate) struct Timeout(pub(crate) Option<Duration>);

impl Timeout {
    /// For arguments of the core that have no "for ever".
    pub(crate) fn or_century(self) -> Duration {
        self.0.unwrap_or(Duration::from_secs(FOREVER as u64))
    }
}

impl TryFrom<Option<f64>> for Timeout {
    type Error = Error;

    fn try_from(seconds: Option<f64>) -> holepunch::Result<Self> {
        match seconds {
            None => Ok(Self(None)),
            Some(seconds) if seconds >= FOREVER => Ok(Self(None)),
            Some(seconds) => match Duration::try_from_secs_f64(seconds) {
                Ok(time) => Ok(Self(Some(time))),
                Err(_) => Err(Error::new(ErrorKind::InvalidArgument, format!("{seconds} s is no timeout"))
                    .with_hint("a timeout is a number of seconds, not negative; None waits for ever")),
            },
        }
    }
}

/// What the core is told about a wait.
pub(crate) fn wait(timeout: Option<Duration>, cancel: Option<&holepunch::Cancel>) -> Wait {
    let wait = timeout.map_or_else(Wait::forever, Wait::at_most);
    match cancel {
        Some(cancel) => wait.or_cancelled(cancel),
        None => wait,
    }
}

/// Runs a call that loses nothing when it is repeated after a timeout.
pub(crate) fn repeat<T: Send>(
    py: Python<'_>,
    timeout: Timeout,
    cancel: Option<&Cancel>,
    mut call: impl FnMut(Wait) -> holepunch::Result<T> + Send,
) -> Result<T> {
    let cancel = cancel.map(|cancel| &cancel.0);
    let deadline = timeout.0.and_then(|time| Instant::now().checked_add(time));
    let mut sliced = true;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let last = !sliced || left.is_some_and(|left| left <= SLICE);
        let slice = if last { left } else { Some(SLICE) };
        match py.detach(|| call(wait(slice, cancel))) {
            Err(error) if error.kind() == ErrorKind::Timeout && !last => {}
            result => return Ok(result?),
        }
        py.check_signals()?;
        sliced = is_main_thread(py)?;
    }
}

/// Runs a call that must not be repeated.
pub(crate) fn once<T: Send + 'static>(
    py: Python<'_>,
    timeout: Timeout,
    cancel: Option<&Cancel>,
    call: impl FnOnce(Option<&holepunch::Cancel>, Wait) -> holepunch::Result<T> + Send + 'static,
) -> Result<T> {
    let cancel = cancel.map(|cancel| &cancel.0);
    if !is_main_thread(py)? {
        return Ok(py.detach(|| call(cancel, wait(timeout.0, cancel)))?);
    }
    let interrupt = holepunch::Cancel::new()?;
    let forward = || {
        if cancel.is_some_and(holepunch::Cancel::is_cancelled) {
            interrupt.cancel();
        }
    };
    forward();
    let worker = {
        let interrupt = interrupt.clone();
        Worker::start(move || call(Some(&interrupt), wait(timeout.0, Some(&interrupt))))?
    };
    match worker.result(py, forward) {
        Ok(result) => Ok(result?),
        Err((signal, worker)) => {
            interrupt.cancel();
            // What the call may have brought all the same is dropped, which closes it.
            drop(py.detach(|| worker.thread.join()));
            Err(signal.into())
        }
    }
}

/// Runs a call that may drop its endpoint's last handle. That takes until the peers know, or 3 seconds if one is silent;
/// an exception of a signal handler ends the wait, not the farewell.
pub(crate) fn finish<T: Send + 'static>(py: Python<'_>, call: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if !is_main_thread(py)? {
        return Ok(py.detach(call));
    }
    Worker::start(call)?.result(py, || {}).map_err(|(signal, _)| signal.into())
}

/// Drops a closed handle.
pub(crate) fn dispose<T: Send + 'static>(py: Python<'_>, handle: T) -> Result<()> {
    finish(py, move || drop(handle))
}

/// A call on a helper thread.
struct Worker<T> {
    thread: JoinHandle<()>,
    result: Receiver<T>,
}

impl<T: Send + 'static> Worker<T> {
    fn start(call: impl FnOnce() -> T + Send + 'static) -> holepunch::Result<Self> {
        let (sender, result) = mpsc::channel();
        let work = move || {
            // Nobody waits for it any more when a signal handler raised.
            let _ = sender.send(call());
        };
        let thread = thread::Builder::new().name("holepunch-call".into()).spawn(work).map_err(|error| {
            Error::new(ErrorKind::Io, format!("no thread for the call: {error}")).with_os_code(error.raw_os_error())
        })?;
        Ok(Self { thread, result })
    }

    /// Waits for the result; where a signal handler raises, its exception and the call as it stands.
    fn result(mut self, py: Python<'_>, between: impl Fn()) -> core::result::Result<T, (PyErr, Self)> {
        loop {
            let result = &mut self.result;
            match py.detach(move || result.recv_timeout(SLICE)) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {}
                // The thread ended without a result: it panicked, and so does this call.
                Err(RecvTimeoutError::Disconnected) => match py.detach(|| self.thread.join()) {
                    Err(panic) => std::panic::resume_unwind(panic),
                    Ok(()) => unreachable!("a call that returns sends its result"),
                },
            }
            if let Err(signal) = py.check_signals() {
                return Err((signal, self));
            }
            between();
        }
    }
}

/// Whether this is the thread that Python runs signal handlers on.
fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    static MAIN_THREAD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static GET_IDENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let main = MAIN_THREAD.import(py, "threading", "main_thread")?.call0()?.getattr("ident")?;
    GET_IDENT.import(py, "threading", "get_ident")?.call0()?.eq(main)
}
