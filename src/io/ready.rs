//! Waiting until one of a few descriptors is readable, or writable: poll(2).

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use super::fault::interrupted;

/// At most so many descriptors are waited for at once: a connection's, a token's, an endpoint's; or two sockets' and a token's.
const MAX: usize = 3;

/// Waits until one of at most three descriptors is readable, at end of file or broken, or the time has passed. May return
/// early, after a signal.
pub(super) fn wait(sources: &[&dyn AsRawFd], timeout: Option<Duration>) -> io::Result<()> {
    let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MAX];
    for (slot, source) in polled.iter_mut().zip(sources) {
        let fd: RawFd = source.as_raw_fd();
        slot.fd = fd;
    }
    poll(&mut polled, timeout)
}

/// Waits until `sink` takes bytes, at least one, or is broken; or `other` is readable, or the time has passed. May return
/// early, after a signal.
pub(super) fn wait_writable(
    sink: &dyn AsRawFd,
    other: Option<&dyn AsRawFd>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let mut polled = [
        libc::pollfd { fd: sink.as_raw_fd(), events: libc::POLLOUT, revents: 0 },
        libc::pollfd { fd: other.map_or(-1, AsRawFd::as_raw_fd), events: libc::POLLIN, revents: 0 },
    ];
    poll(&mut polled, timeout)
}

/// What a descriptor is waited for.
#[derive(Clone, Copy)]
pub(crate) enum Interest<'a> {
    /// It can be read or accepted from, is at its end, or is broken.
    Readable(&'a dyn AsRawFd),
    /// It takes bytes, its connect is over, or it is broken.
    Writable(&'a dyn AsRawFd),
}

/// Waits for the first of at most three interests that is ready, and says which; `None` when the time has passed, or earlier
/// after a signal.
pub(super) fn wait_first(interests: &[Interest<'_>], timeout: Option<Duration>) -> io::Result<Option<usize>> {
    let mut polled = [libc::pollfd { fd: -1, events: 0, revents: 0 }; MAX];
    for (slot, interest) in polled.iter_mut().zip(interests) {
        (slot.fd, slot.events) = match interest {
            Interest::Readable(source) => (source.as_raw_fd(), libc::POLLIN),
            Interest::Writable(sink) => (sink.as_raw_fd(), libc::POLLOUT),
        };
    }
    poll(&mut polled, timeout)?;
    Ok(polled.iter().position(|entry| entry.revents != 0))
}

fn poll(polled: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let millis = timeout.map_or(-1, rounded_up);
    // SAFETY: the slice is live and as long as told; entries with a negative descriptor are ignored.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if interrupted(&error) { Ok(()) } else { Err(error) }
}

/// Milliseconds, never less than the time: a wait that ends too early would spin.
fn rounded_up(time: Duration) -> libc::c_int {
    libc::c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write as _, os::unix::net::UnixStream, time::Instant};

    #[test]
    fn a_time_is_never_cut_short() {
        assert_eq!(rounded_up(Duration::ZERO), 0);
        assert_eq!(rounded_up(Duration::from_nanos(1)), 1);
        assert_eq!(rounded_up(Duration::MAX), libc::c_int::MAX);
        let (reader, _writer) = UnixStream::pair().unwrap();
        let start = Instant::now();
        wait(&[&reader], Some(Duration::from_micros(1500))).unwrap();
        assert!(start.elapsed() >= Duration::from_micros(1500));
    }

    #[test]
    fn any_of_them_ends_the_wait() {
        let (quiet, _silent) = UnixStream::pair().unwrap();
        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(b"x").unwrap();
        wait(&[&quiet, &reader], None).unwrap();
        let interests = [Interest::Readable(&quiet), Interest::Readable(&reader), Interest::Writable(&quiet)];
        assert_eq!(wait_first(&interests, None).unwrap(), Some(1));
        assert_eq!(wait_first(&interests[..1], Some(Duration::ZERO)).unwrap(), None);
        assert_eq!(wait_first(&interests[2..], None).unwrap(), Some(0));
    }
}
