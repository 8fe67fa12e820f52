//! How a call sends a datagram: by one call of the system, and where there is no room, asleep in poll until there is.
//!
//! The endpoint goes on meanwhile: its own messages never wait for room. A connection that is closed still sends its
//! farewell, so its socket cannot wake who waits to send; that one looks for itself.

use std::time::Duration;

use super::{
    link::{Link, Sent},
    shared::Shared,
    wait::Wait,
};
use crate::{Error, ErrorKind, Result, config::MAX_DATAGRAM};

/// So often a call that waits for room looks whether the connection is over: in half the time that a person notices.
const LOOK: Duration = Duration::from_millis(50);

/// Sends one datagram to the peer.
pub(crate) fn send(shared: &Shared, link: &Link, bytes: &[u8], wait: &Wait) -> Result<()> {
    shared.check_process()?;
    if bytes.len() > MAX_DATAGRAM {
        let text = format!("{} bytes are too many for one datagram", bytes.len());
        return Err(Error::new(ErrorKind::MessageTooLarge, text));
    }
    let mut deadline = None;
    loop {
        if let Some(cancel) = wait.cancel() {
            cancel.check()?;
        }
        match link.send(bytes)? {
            Sent::Gone => return Ok(()),
            Sent::Busy => return shared.with(|core| core.leave_alone(link.session)),
            Sent::Full => {}
        }
        let deadline = deadline.get_or_insert_with(|| wait.deadline());
        if deadline.has_passed() {
            let text = format!("there was no room for a datagram to {} in time", link.remote());
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        let left = deadline.left().map_or(LOOK, |left| left.min(LOOK));
        shared.wait_writable(link, wait, wait.but_at_most(left).deadline())?;
    }
}
