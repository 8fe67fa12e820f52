//! How many descriptors this process may have: a server needs one for each TCP connection.

#![allow(unsafe_code)]

use std::io;

/// Raises the soft limit of this process's descriptors to the hard one, and says what it is now.
///
/// For programs that are a server; a library must not change its host's limits, so nothing here calls it by itself.
///
/// # Errors
/// The system's, when it tells no limit or refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a limit that lives through the call, which writes it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the pointer is to a limit that lives through the call, which only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    #[allow(clippy::unnecessary_cast, reason = "the type differs between systems")]
    Ok(limit.rlim_cur as u64)
}
