//! What the handles of an endpoint, its thread and its blocked calls share: the lock, waking, callbacks.
//!
//! Every use of the core ends by *settling*: what happened under the lock is told when the lock is free again.
//! Blocked calls are woken when a state changed; the driver, when it would sleep too long; the callbacks run, one at
//! a time and in order, in whichever thread comes first. A panic in a callback ends with it.
//!
//! Somebody has to *drive*: wait for readiness and hand it to the core. With a thread it is the thread, always. Without
//! one it is whichever blocked call comes first, while it blocks; the others sleep on the condition variable, and one of
//! them takes over when the first has what it wanted.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, ThreadId},
    time::Duration,
};

use mio::{Events, Poll, Token, Waker};

use super::{
    cancel::Sleeper,
    core::{Core, Notice, Wanted},
    fault::{interrupted, os_error},
    fork::Birthplace,
    random, ready,
    wait::{Deadline, Wait},
};
use crate::{
    Error, ErrorKind, Result,
    config::PeerConfig,
    machine::{Instant, Level},
    peer::PeerEvent,
};

/// The token of the waker.
const WAKER: Token = Token(0);

/// Readiness taken from the system at once.
const EVENTS: usize = 256;

/// A call that waits for a socket while another call drives looks after so long whether it has to drive now.
const TAKE_OVER: Duration = Duration::from_millis(50);

type EventCallback = dyn Fn(&PeerEvent) + Send + Sync;
type LogCallback = dyn Fn(Level, &str) + Send + Sync;
type ChangeCallback = dyn Fn() + Send + Sync;

/// What the program wants to be told, from any thread.
#[derive(Default)]
pub(crate) struct Callbacks {
    pub(crate) event: Option<Box<EventCallback>>,
    pub(crate) log: Option<Box<LogCallback>>,
    /// A state that may be polled has changed.
    pub(crate) change: Option<Box<ChangeCallback>>,
}

thread_local! {
    /// How many callbacks this thread is in: one that uses another endpoint may be in its callback, too.
    static CALLBACKS: Cell<u32> = const { Cell::new(0) };
}

/// This thread is in a callback until this is dropped.
struct InCallback;

impl InCallback {
    fn enter() -> Self {
        CALLBACKS.set(CALLBACKS.get() + 1);
        Self
    }
}

impl Drop for InCallback {
    fn drop(&mut self) {
        CALLBACKS.set(CALLBACKS.get() - 1);
    }
}

/// See the module.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// A state that a blocked call may wait for has changed, or the driver has left.
    changed: Condvar,
    reactor: Mutex<Reactor>,
    waker: Waker,
    poll: RawFd,
    callbacks: Callbacks,
    told: Mutex<Told>,
    /// The process that made the endpoint.
    birthplace: Birthplace,
    pub(super) threaded: bool,
    weak: Weak<Self>,
}

/// Where readiness comes from.
struct Reactor {
    poll: Poll,
    events: Events,
}

/// What the callbacks have not been told yet.
#[derive(Default)]
struct Told {
    queue: VecDeque<Notice>,
    /// The thread that is in a callback.
    busy: Option<ThreadId>,
}

impl Shared {
    pub(super) fn new(config: PeerConfig, callbacks: Callbacks, threaded: bool) -> Result<Arc<Self>> {
        let failed = |error| os_error("cannot make the endpoint", &error);
        let seed = random::seed()?;
        let poll = Poll::new().map_err(failed)?;
        let registry = poll.registry().try_clone().map_err(failed)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(failed)?;
        let wanted = Wanted { events: callbacks.event.is_some(), logs: callbacks.log.is_some() };
        Ok(Arc::new_cyclic(|weak| Self {
            core: Mutex::new(Core::new(config, seed, registry, wanted)),
            changed: Condvar::new(),
            poll: poll.as_raw_fd(),
            reactor: Mutex::new(Reactor { poll, events: Events::with_capacity(EVENTS) }),
            waker,
            callbacks,
            told: Mutex::default(),
            birthplace: Birthplace::here(),
            threaded,
            weak: weak.clone(),
        }))
    }

    /// Whether this is a forked child of the process that made the endpoint.
    pub(crate) fn is_forked(&self) -> bool {
        self.birthplace.is_elsewhere()
    }

    /// Fails in a forked child: it shares the sockets with its parent, and has no thread that drives.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::new(ErrorKind::Forked, "the endpoint was made before the process forked"));
        }
        Ok(())
    }

    fn lock(&self) -> Result<MutexGuard<'_, Core>> {
        self.check_process()?;
        self.core.lock().map_err(|_| Error::new(ErrorKind::Poisoned, "the endpoint panicked before"))
    }

    /// Uses the core, and settles.
    pub(crate) fn with<T>(&self, use_core: impl FnOnce(&mut Core) -> T) -> Result<T> {
        let mut core = self.lock()?;
        let result = use_core(&mut core);
        self.settle(core);
        Ok(result)
    }

    /// Tells whom it concerns what has happened under the lock.
    fn settle(&self, mut core: MutexGuard<'_, Core>) {
        let changed = std::mem::take(&mut core.changed);
        let next = core.next_wake();
        let wake = core.driven && next.is_some_and(|next| core.sleeping_until.is_none_or(|until| next < until));
        if wake {
            core.sleeping_until = Some(Instant::default());
        }
        if !core.notices.is_empty() {
            self.told().queue.append(&mut core.notices);
        }
        drop(core);
        if wake {
            // It fails only where the descriptor is gone, and then nobody sleeps on it.
            let _ = self.waker.wake();
        }
        if changed {
            self.tell_change();
        }
        self.tell();
    }

    /// Wakes every blocked call, and the program's own loop.
    fn tell_change(&self) {
        self.changed.notify_all();
        if let Some(callback) = &self.callbacks.change {
            // Its panic is the program's own, and was reported by the panic hook.
            let _ = catch_unwind(AssertUnwindSafe(callback));
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the callbacks with what they have not been told yet, unless another call is at it, which then goes on.
    fn tell(&self) {
        loop {
            let notice = {
                let mut told = self.told();
                if told.busy.is_some() {
                    return;
                }
                let Some(notice) = told.queue.pop_front() else { return };
                told.busy = Some(thread::current().id());
                notice
            };
            let _in_callback = InCallback::enter();
            // Its panic is the program's own, and was reported by the panic hook.
            let _ = catch_unwind(AssertUnwindSafe(|| match &notice {
                Notice::Event(event) => self.callbacks.event.iter().for_each(|callback| callback(event)),
                Notice::Log(level, line) => self.callbacks.log.iter().for_each(|callback| callback(*level, line)),
            }));
            self.told().busy = None;
        }
    }

    /// Whether this thread is in a callback of this endpoint.
    pub(super) fn is_in_callback(&self) -> bool {
        CALLBACKS.get() != 0 && self.told().busy == Some(thread::current().id())
    }

    /// Fails in a callback of this endpoint: what is waited for may need the callback's end.
    fn check_callback(&self) -> Result<()> {
        if self.is_in_callback() {
            let text = "a blocking call inside a callback could wait for itself";
            return Err(Error::new(ErrorKind::InvalidArgument, text).with_hint("hand the event to another thread"));
        }
        Ok(())
    }

    /// Whether a call may sleep in the system's own call until its success or failure: nothing else ends it, and
    /// nothing else has to be done meanwhile.
    pub(super) fn may_sleep(&self, wait: &Wait) -> bool {
        self.threaded && wait.is_endless() && !self.is_in_callback()
    }

    /// Blocks until `look` finds what it wants, an error, or the end of the wait.
    pub(crate) fn wait<T>(&self, wait: &Wait, mut look: impl FnMut(&mut Core) -> Option<Result<T>>) -> Result<T> {
        self.check_process()?;
        self.check_callback()?;
        let deadline = wait.deadline();
        let sleeper: Weak<dyn Sleeper> = self.weak.clone();
        let _watch = wait.cancel().map(|cancel| cancel.watch(sleeper));
        let mut core = self.lock()?;
        loop {
            if let Some(cancel) = wait.cancel() {
                cancel.check()?;
            }
            if let Some(result) = look(&mut core) {
                self.settle(core);
                return result;
            }
            let left = deadline.left();
            if left == Some(Duration::ZERO) && core.driven {
                return Err(Error::new(ErrorKind::Timeout, "the time that was allowed has passed"));
            }
            if core.driven {
                core = self.sleep(core, deadline)?;
            } else {
                // Once also when no time is left: without a thread nothing happens by itself.
                let driving = self.become_driver(&mut core);
                drop(core);
                match wait.cancel() {
                    Some(cancel) => self.drive(&[cancel], left)?,
                    None => self.drive(&[], left)?,
                }
                drop(driving);
                core = self.lock()?;
                if left == Some(Duration::ZERO) {
                    let result = look(&mut core);
                    self.settle(core);
                    let late = || Error::new(ErrorKind::Timeout, "the time that was allowed has passed");
                    return result.unwrap_or_else(|| Err(late()));
                }
            }
        }
    }

    fn sleep<'a>(&self, core: MutexGuard<'a, Core>, deadline: Deadline) -> Result<MutexGuard<'a, Core>> {
        let poisoned = || Error::new(ErrorKind::Poisoned, "the endpoint panicked before");
        match deadline.left() {
            None => self.changed.wait(core).map_err(|_| poisoned()),
            Some(left) => self.changed.wait_timeout(core, left).map(|(core, _)| core).map_err(|_| poisoned()),
        }
    }

    /// Blocks until a connection's socket is readable, something else is worth a look, or the deadline passes.
    pub(super) fn wait_readable(&self, link: &dyn AsRawFd, wait: &Wait, deadline: Deadline) -> Result<()> {
        self.check_callback()?;
        let failed = |error| os_error("cannot wait for a socket", &error);
        let left = deadline.left();
        let driving = if self.threaded { None } else { self.try_drive()? };
        match (wait.cancel(), &driving) {
            (Some(cancel), Some(_)) => self.drive(&[link, cancel], left),
            (None, Some(_)) => self.drive(&[link], left),
            (Some(cancel), None) => ready::wait(&[link, cancel], self.slice(left)).map_err(failed),
            (None, None) => ready::wait(&[link], self.slice(left)).map_err(failed),
        }
    }

    /// Blocks until a stream's socket takes bytes, something else is worth a look, or the deadline passes.
    pub(super) fn wait_writable(&self, link: &dyn AsRawFd, wait: &Wait, deadline: Deadline) -> Result<()> {
        self.check_callback()?;
        let other = wait.cancel().map(|cancel| cancel as &dyn AsRawFd);
        // Without a thread it is enough to drive now and then: the stream itself does not need it.
        if !self.threaded
            && let Some(_driving) = self.try_drive()?
        {
            self.drive(&[], Some(Duration::ZERO))?;
        }
        ready::wait_writable(link, other, self.slice(deadline.left()))
            .map_err(|error| os_error("cannot wait for a socket", &error))
    }

    /// How long a call that does not drive may wait for a socket.
    fn slice(&self, left: Option<Duration>) -> Option<Duration> {
        if self.threaded { left } else { Some(left.map_or(TAKE_OVER, |left| left.min(TAKE_OVER))) }
    }

    /// Becomes the driver, unless there is one.
    pub(super) fn try_drive(&self) -> Result<Option<Driving<'_>>> {
        let mut core = self.lock()?;
        if core.driven {
            return Ok(None);
        }
        Ok(Some(self.become_driver(&mut core)))
    }

    fn become_driver(&self, core: &mut Core) -> Driving<'_> {
        core.driven = true;
        Driving(self)
    }

    /// Does what is due; then waits, at most so long, for readiness (or that of `others`) and handles it. The caller
    /// is the driver.
    pub(super) fn drive(&self, others: &[&dyn AsRawFd], limit: Option<Duration>) -> Result<()> {
        let timeout = self.prepare_sleep(limit)?;
        if !others.is_empty() && timeout != Some(Duration::ZERO) {
            let mut sources: Vec<&dyn AsRawFd> = others.to_vec();
            sources.push(&self.poll);
            ready::wait(&sources, timeout).map_err(|error| os_error("cannot wait for sockets", &error))?;
            return self.turn(Some(Duration::ZERO));
        }
        self.turn(timeout)
    }

    /// Does what is due by the clock until nothing is, and says how long the driver may sleep.
    fn prepare_sleep(&self, limit: Option<Duration>) -> Result<Option<Duration>> {
        self.with(Core::handle_time)?;
        let mut core = self.lock()?;
        let now = core.clock.now();
        let next = [core.next_wake(), limit.map(|limit| now + limit)].into_iter().flatten().min();
        core.sleeping_until = next;
        Ok(next.map(|next| next.saturating_since(now)))
    }

    /// Takes readiness from the system and hands it to the core.
    fn turn(&self, timeout: Option<Duration>) -> Result<()> {
        let mut reactor = self.reactor.lock().unwrap_or_else(PoisonError::into_inner);
        let Reactor { poll, events } = &mut *reactor;
        let polled = poll.poll(events, timeout);
        let mut core = self.lock()?;
        core.sleeping_until = Some(Instant::default());
        match polled {
            Ok(()) => {
                events.iter().filter(|event| event.token() != WAKER).for_each(|event| core.handle_ready(event.token()))
            }
            Err(error) if interrupted(&error) => {}
            Err(error) => return Err(os_error("cannot wait for sockets", &error)),
        }
        core.handle_time();
        drop(reactor);
        self.settle(core);
        Ok(())
    }

    /// How long the driver has nothing to do.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let core = self.lock().ok()?;
        core.next_wake().map(|next| next.saturating_since(core.clock.now()))
    }

    /// The thread has ended by a panic: nobody drives any more, and no call may sleep on.
    pub(super) fn abandon(&self) {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        core.closed = true;
        for watched in core.links.values() {
            watched.link.set_closed();
        }
        drop(core);
        self.tell_change();
    }
}

impl Sleeper for Shared {
    fn wake_sleepers(&self) {
        // Whoever holds the lock may have looked at the token, but does not sleep yet.
        drop(self.core.lock());
        self.changed.notify_all();
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `reactor`, and so as `self`.
        unsafe { BorrowedFd::borrow_raw(self.poll) }
    }
}

impl AsRawFd for Shared {
    /// The descriptor that becomes readable when the driver has something to do.
    fn as_raw_fd(&self) -> RawFd {
        self.poll
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("threaded", &self.threaded).finish_non_exhaustive()
    }
}

/// The caller is the driver until this is dropped.
pub(super) struct Driving<'a>(&'a Shared);

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        if let Ok(mut core) = self.0.lock() {
            core.driven = false;
        }
        self.0.changed.notify_all();
    }
}
