//! How a call receives: from the queue beside the socket, then from the socket, then asleep until it is readable.
//!
//! Each datagram costs one call of the system. One that is a message for the endpoint, told by its first byte nearly
//! always, is handed over under the lock, and receiving goes on. A call that nothing but its success or failure ends
//! sleeps in receive itself; one with a deadline or a token sleeps in poll.

use super::{
    fault::{interrupted, is_loss, os_error, would_block},
    link::{Link, Taken},
    peek,
    shared::Shared,
    wait::Wait,
};
use crate::{Error, ErrorKind, Result, config::MAX_DATAGRAM};

/// Receives one datagram of the peer's into `buffer`, and returns its length.
pub(crate) fn receive(shared: &Shared, link: &Link, buffer: &mut [u8], wait: &Wait) -> Result<usize> {
    shared.check_process()?;
    let (kept_out, _reading) = link.reading();
    if kept_out {
        shared.with(|_| ())?;
    }
    if buffer.len() >= MAX_DATAGRAM {
        return receive_whole(shared, link, buffer, wait);
    }
    // Messages for the endpoint must come whole, however small the program's datagrams are.
    let mut whole = [0; MAX_DATAGRAM];
    let length = receive_whole(shared, link, &mut whole, wait)?;
    let datagram = fitting(length, &whole)?;
    let room = buffer.len();
    buffer.get_mut(..length).ok_or_else(|| too_large(length, room))?.copy_from_slice(datagram);
    Ok(length)
}

fn receive_whole(shared: &Shared, link: &Link, buffer: &mut [u8], wait: &Wait) -> Result<usize> {
    let flags = if shared.may_sleep(wait) { 0 } else { libc::MSG_DONTWAIT };
    let mut deadline = None;
    if let Some(cancel) = wait.cancel() {
        cancel.check()?;
    }
    loop {
        if link.is_closed() {
            return Err(link.over().unwrap_or_else(|| ErrorKind::Closed.into()));
        }
        if let Some(length) = link.take_queued(buffer) {
            return fitting(length, buffer).map(<[u8]>::len);
        }
        let taken = link.take(buffer, flags);
        if link.is_filtered() {
            peek::let_data_in(link);
        }
        match taken {
            Ok(Taken::Data(length)) => return fitting(length, buffer).map(<[u8]>::len),
            Ok(Taken::Other(from, length)) => {
                let socket = link.path.udp_socket();
                shared.with(|core| core.handle_datagram(socket, link.local(), from, &buffer[..length]))?;
            }
            Ok(Taken::Nothing) => {}
            Ok(Taken::End) => sleep_or_end(shared, link, wait, &mut deadline, true)?,
            Err(error) if would_block(&error) => sleep_or_end(shared, link, wait, &mut deadline, false)?,
            Err(error) if is_loss(&error) || interrupted(&error) => {}
            Err(error) => {
                return Err(link
                    .over()
                    .unwrap_or_else(|| os_error(format!("cannot receive from {}", link.remote()), &error)));
            }
        }
    }
}

/// Nothing is there: fails when nothing will come or the time has passed, else waits.
fn sleep_or_end(
    shared: &Shared,
    link: &Link,
    wait: &Wait,
    deadline: &mut Option<super::wait::Deadline>,
    ended: bool,
) -> Result<()> {
    if let Some(error) = link.no_more() {
        // What the socket held when it was given back was put into the queue before the state changed.
        return if link.has_queued() { Ok(()) } else { Err(error) };
    }
    if ended {
        // The state is set before the socket is shut down.
        return Err(ErrorKind::Closed.into());
    }
    let first = deadline.is_none();
    let deadline = *deadline.get_or_insert_with(|| wait.deadline());
    if deadline.has_passed() && (shared.threaded || !first) {
        return Err(Error::new(ErrorKind::Timeout, format!("nothing came from {} in time", link.remote())));
    }
    shared.wait_readable(link, wait, deadline)?;
    wait.cancel().map_or(Ok(()), super::cancel::Cancel::check)
}

/// The datagram in the buffer, if it fits.
fn fitting(length: usize, buffer: &[u8]) -> Result<&[u8]> {
    buffer.get(..length).ok_or_else(|| too_large(length, buffer.len()))
}

fn too_large(length: usize, room: usize) -> Error {
    Error::new(ErrorKind::MessageTooLarge, format!("a datagram of {length} bytes came for a buffer of {room}"))
        .with_hint(format!("receive with a buffer of {MAX_DATAGRAM} bytes; the datagram is lost"))
}
