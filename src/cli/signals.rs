//! SIGINT and SIGTERM, for as long as a command runs.
//!
//! The handler writes the signal's number into a socket pair; a thread reads it and does what is to be done, since a
//! handler itself may do almost nothing. When the command is over, the handlers that were there before are put back:
//! the command line also runs inside a Python program, whose own SIGINT handler must neither be lost nor hear of
//! signals that were meant for the command. (A library that could do it without `unsafe` code leaves its own handler
//! behind.)

#![allow(unsafe_code)]

use std::{
    io::{self, Read as _},
    mem,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use super::status;
use crate::{Error, ErrorKind, Result};

const CAUGHT: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// Where the handler writes to; -1 while nobody wants signals.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Handlers that are running; the descriptor may be closed only when there are none.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

type Action = Box<dyn Fn() + Send>;

#[derive(Default)]
struct Shared {
    /// The first signal that came; 0 while there was none.
    signal: AtomicI32,
    actions: Mutex<Vec<Action>>,
}

/// Catches the signals until it is dropped.
pub(super) struct Signals {
    shared: Arc<Shared>,
    previous: Vec<(libc::c_int, libc::sigaction)>,
    writer: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Begins to catch.
    pub(super) fn install() -> Result<Self> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Io, format!("cannot catch signals: {error}")).with_os_code(error.raw_os_error())
        };
        let (reader, writer) = UnixStream::pair().map_err(failed)?;
        if PIPE.compare_exchange(-1, writer.as_raw_fd(), Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(Error::new(ErrorKind::LimitReached, "another command runs in this process already")
                .with_hint("run one command at a time in a process"));
        }
        // From here on dropping `signals` undoes what was done.
        let shared = Arc::new(Shared::default());
        let mut signals =
            Self { shared: Arc::clone(&shared), previous: Vec::new(), writer: Some(writer), thread: None };
        let thread = std::thread::Builder::new().name("holepunch-signals".into());
        signals.thread = Some(thread.spawn(move || watch(reader, &shared)).map_err(failed)?);
        for signal in CAUGHT {
            signals.previous.push((signal, catch(signal).map_err(failed)?));
        }
        Ok(signals)
    }

    /// Also does this when a signal comes; at once, if one came already. On another thread.
    pub(super) fn on_signal(&self, action: impl Fn() + Send + 'static) {
        let mut actions = self.shared.actions.lock().unwrap_or_else(PoisonError::into_inner);
        if self.caught().is_some() {
            action();
        }
        actions.push(Box::new(action));
    }

    /// The first signal that came.
    pub(super) fn caught(&self) -> Option<i32> {
        Some(self.shared.signal.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// The error and the status of a command that a signal ended.
    pub(super) fn failure(&self) -> Option<(Error, i32)> {
        self.caught().map(|signal| {
            let name = if signal == libc::SIGINT { "SIGINT" } else { "SIGTERM" };
            (Error::new(ErrorKind::Cancelled, format!("ended by {name}")), status::SIGNAL + signal)
        })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, action) in &self.previous {
            // SAFETY: `action` is what `sigaction` gave for this signal.
            unsafe { libc::sigaction(*signal, action, ptr::null_mut()) };
        }
        PIPE.store(-1, Ordering::SeqCst);
        while RUNNING.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Does what is to be done for each signal, until the writing end is closed.
fn watch(mut reader: UnixStream, shared: &Shared) {
    let mut byte = [0];
    loop {
        match reader.read(&mut byte) {
            Ok(0) => return,
            Ok(_) => {
                let actions = shared.actions.lock().unwrap_or_else(PoisonError::into_inner);
                let signal = i32::from(byte[0]);
                let _ = shared.signal.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
                for action in &*actions {
                    action();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Installs the handler for a signal, and returns what was there before.
fn catch(signal: libc::c_int) -> io::Result<libc::sigaction> {
    // SAFETY: a `sigaction` is integers and pointers, for which zero is a value; all three structures live through
    // the calls, and the handler does only what a handler may.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        let mut previous: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        if libc::sigaction(signal, &action, &mut previous) == 0 {
            Ok(previous)
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

extern "C" fn handle(signal: libc::c_int) {
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let pipe = PIPE.load(Ordering::SeqCst);
    if pipe >= 0 {
        let byte = signal as u8;
        // SAFETY: `send` may be called in a handler (signal-safety(7)); the descriptor is open, because it is closed only
        // when no handler runs; `errno` is put back for the code that was interrupted.
        unsafe {
            let errno = libc::__errno_location();
            let before = *errno;
            libc::send(pipe, ptr::from_ref(&byte).cast(), 1, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
            *errno = before;
        }
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// The one test that touches the process's handlers, so that no two run at once.
    #[test]
    fn signals_are_caught_while_installed_and_handlers_put_back() {
        let current = || {
            // SAFETY: only reads the current action into a structure that lives through the call.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                libc::sigaction(libc::SIGTERM, ptr::null(), &mut action);
                action.sa_sigaction
            }
        };
        let before = current();
        for _ in 0..2 {
            let signals = Signals::install().unwrap();
            assert_ne!(current(), before);
            assert_eq!(Signals::install().err().unwrap().kind(), ErrorKind::LimitReached);
            assert!(signals.caught().is_none() && signals.failure().is_none());
            let (sender, receiver) = mpsc::channel();
            let again = sender.clone();
            signals.on_signal(move || sender.send(()).unwrap());
            // SAFETY: raises a signal that is caught.
            unsafe { libc::raise(libc::SIGTERM) };
            receiver.recv().unwrap();
            assert_eq!(signals.caught(), Some(libc::SIGTERM));
            signals.on_signal(move || again.send(()).unwrap());
            receiver.recv().unwrap();
            assert_eq!(signals.failure().unwrap().1, 143);
            drop(signals);
            assert_eq!(current(), before);
        }
    }
}
