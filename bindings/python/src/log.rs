//! The core's log lines as records of the logger `holepunch`.
//!
//! Lines go through a bounded queue to a thread of their own, and only that thread calls into Python. So no endpoint
//! ever waits for the interpreter's lock: a program busy in Python code delays its log, not its packets, and an
//! endpoint may be closed by a thread that holds the lock. The thread is stopped before the interpreter goes away
//! (`atexit`), because a thread that asks a dying interpreter for its lock never comes back.

use std::{
    process,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use holepunch::{Error, ErrorKind, machine::Level};
use pyo3::{prelude::*, sync::PyOnceLock, types::PyCFunction};

use crate::failure::Result;

/// Lines that may wait for the interpreter; when it lags further behind, later ones are dropped.
const QUEUE: usize = 1024;

enum Line {
    Record(Level, String),
    Stop,
}

/// The logging thread of a process; a forked child has none of its parent's threads and starts its own.
struct Sink {
    process: u32,
    lines: SyncSender<Line>,
    /// None once stopped: lines then go nowhere.
    thread: Option<JoinHandle<()>>,
}

/// Locked only with the interpreter's lock held throughout, so no fork finds it locked.
static SINK: Mutex<Option<Sink>> = Mutex::new(None);

/// What an endpoint calls with its log lines; starts the thread when it is the first.
pub(crate) fn callback(py: Python<'_>) -> Result<impl Fn(Level, &str) + Send + Sync + 'static> {
    let lines = lines(py)?;
    Ok(move |level, text: &str| {
        // A full queue drops the line; a stopped thread means that the program ends.
        let _ = lines.try_send(Line::Record(level, text.to_owned()));
    })
}

fn lines(py: Python<'_>) -> Result<SyncSender<Line>> {
    static REGISTERED: PyOnceLock<()> = PyOnceLock::new();
    REGISTERED.get_or_try_init(py, || {
        let stop = PyCFunction::new_closure(py, None, None, |arguments, _| stop(arguments.py()))?;
        py.import("atexit")?.call_method1("register", (stop,)).map(drop)
    })?;
    let mut sink = SINK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sink) = sink.as_ref().filter(|sink| sink.process == process::id()) {
        return Ok(sink.lines.clone());
    }
    let (lines, queue) = mpsc::sync_channel(QUEUE);
    let thread = thread::Builder::new().name("holepunch-log".into()).spawn(move || run(&queue)).map_err(|error| {
        Error::new(ErrorKind::Io, format!("no thread for the log: {error}")).with_os_code(error.raw_os_error())
    })?;
    // The handle of a thread that only the parent has must not be detached here: it is forgotten.
    std::mem::forget(sink.replace(Sink { process: process::id(), lines: lines.clone(), thread: Some(thread) }));
    Ok(lines)
}

/// Writes what is queued and ends the thread; then no thread of ours asks for the interpreter any more.
fn stop(py: Python<'_>) {
    let running = match SINK.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        Some(sink) if sink.process == process::id() => sink.thread.take().map(|thread| (sink.lines.clone(), thread)),
        _ => None,
    };
    if let Some((lines, thread)) = running {
        py.detach(move || {
            let _ = lines.send(Line::Stop);
            let _ = thread.join();
        });
    }
}

fn run(queue: &Receiver<Line>) {
    while let Ok(first) = queue.recv() {
        let more = Python::try_attach(|py| {
            // Whatever else is queued is written in the same visit.
            let mut next = Some(first);
            while let Some(line) = next {
                match line {
                    Line::Record(level, text) => write(py, level, &text),
                    Line::Stop => return false,
                }
                next = queue.try_recv().ok();
            }
            true
        });
        if more != Some(true) {
            break;
        }
    }
}

fn write(py: Python<'_>, level: Level, text: &str) {
    static LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // The numbers of Python's `logging`.
    let number = match level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug => 10,
    };
    let written = LOGGER
        .get_or_try_init(py, || {
            Ok::<_, PyErr>(py.import("logging")?.call_method1("getLogger", ("holepunch",))?.unbind())
        })
        .and_then(|logger| logger.bind(py).call_method1("log", (number, "%s", text)));
    if let Err(error) = written {
        error.write_unraisable(py, None);
    }
}
