//! What is received, as `bytes`.

use std::cell::Cell;

use pyo3::{prelude::*, types::PyBytes};

use crate::{
    failure::Result,
    wait::{self, Cancel, Timeout},
};

thread_local! {
    /// What is received into before it becomes `bytes` of its size: one buffer a thread, so that none is allocated and
    /// cleared for each call.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs a call that receives at most `max` bytes, and loses nothing when it is repeated after a timeout.
pub(crate) fn receive<'py>(
    py: Python<'py>,
    max: usize,
    timeout: Timeout,
    cancel: Option<&Cancel>,
    call: impl Fn(&mut [u8], holepunch::Wait) -> holepunch::Result<usize> + Sync,
) -> Result<Bound<'py, PyBytes>> {
    let mut buffer = BUFFER.take();
    if buffer.len() < max {
        buffer.resize(max, 0);
    }
    let room = &mut buffer[..max];
    let received = wait::repeat(py, timeout, cancel, |wait| call(room, wait));
    let received = received.map(|length| PyBytes::new(py, &buffer[..length]));
    BUFFER.set(buffer);
    received
}
