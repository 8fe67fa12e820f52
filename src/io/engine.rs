//! The life of an endpoint: its thread, and its end.
//!
//! Every handle (endpoint, listener, connection) keeps the engine alive. When the last is dropped everything is closed:
//! what peers and servers must know leaves at once, and the thread goes on while connected peers have not acknowledged it,
//! at most as long as the farewell takes, and half a second for servers. Then the thread ends and is joined. In a forked child nothing of this
//! happens: the sockets are its parent's.

use std::{
    mem,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    fault::os_error,
    shared::{Callbacks, Shared},
    spawn::spawn,
};
use crate::{Result, config::PeerConfig};

/// The farewell of the peer may be followed by so much, then the thread ends whatever is left.
const GRACE: Duration = Duration::from_millis(200);

/// Servers that are told of a listener's end may take so long to acknowledge it: a few round trips.
const LEAVE: Duration = Duration::from_millis(500);

/// A running endpoint.
#[derive(Debug)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    farewell: Duration,
}

impl Engine {
    /// Starts an endpoint, with its thread if it is to have one.
    pub(crate) fn start(config: PeerConfig, callbacks: Callbacks, threaded: bool) -> Result<Self> {
        let shared = Shared::new(config, callbacks, threaded)?;
        let mut engine = Self { shared, thread: None, farewell: config.farewell };
        if threaded {
            // The thread drives from now on, even before it runs.
            engine.shared.with(|core| core.driven = true)?;
            let shared = engine.shared.clone();
            let thread = spawn("holepunch", move || run(&shared));
            engine.thread = Some(thread.map_err(|error| os_error("cannot start the endpoint's thread", &error))?);
        }
        Ok(engine)
    }

    /// How long the end of a connection is repeated.
    pub(crate) const fn farewell(&self) -> Duration {
        self.farewell
    }

    /// Does everything that is due, without blocking.
    pub(crate) fn process(&self) -> Result<()> {
        match self.shared.try_drive()? {
            Some(_driving) => self.shared.drive(&[], Some(Duration::ZERO)),
            None => Ok(()),
        }
    }
}

impl Deref for Engine {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// The thread: drives until it is told to stop and nothing is left to say.
fn run(shared: &Shared) {
    let driven = catch_unwind(AssertUnwindSafe(|| {
        while shared.with(|core| !core.has_stopped()).unwrap_or(false) {
            if shared.drive(&[], None).is_err() {
                break;
            }
        }
    }));
    if driven.is_err() || !shared.with(|core| core.has_stopped()).unwrap_or(false) {
        shared.abandon();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.shared.is_forked() {
            // Its thread exists in the parent only; even to detach it would touch what is not there.
            mem::forget(self.thread.take());
            return;
        }
        let farewell = self.farewell + GRACE;
        let closed = self.shared.with(|core| {
            core.close_all();
            core.stop_within(farewell, LEAVE);
        });
        let Some(thread) = self.thread.take() else { return };
        if closed.is_ok() && thread.thread().id() != thread::current().id() {
            // A panic of its own was reported by the panic hook.
            let _ = thread.join();
        }
    }
}
