//! Threads of the library: with a name, and without the program's signals.

use std::{io, mem::MaybeUninit, ptr, thread};

/// Starts a thread that no signal is delivered to: a signal must interrupt the program's own threads, whose handlers
/// and blocking calls expect it.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: both sets are live; sigfillset initialises the first, pthread_sigmask the second. A new thread inherits
    // the mask of the thread that makes it.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    // SAFETY: `before` is the mask that this thread had.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
    }
    thread
}
