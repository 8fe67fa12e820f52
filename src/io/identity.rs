//! Whether a descriptor is still the socket that it was.
//!
//! A socket that was given away may be closed by the program at any time, and its number be another file's by then. The
//! system gives each socket an inode, whose number no two have at one time (stat(2)).

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, RawFd},
};

/// Tells one socket from whatever else its descriptor's number may come to mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    descriptor: RawFd,
    inode: u64,
}

impl Identity {
    /// That of an open socket; `None` when the system does not tell.
    pub(crate) fn of(socket: &impl AsRawFd) -> Option<Self> {
        let descriptor = socket.as_raw_fd();
        Some(Self { descriptor, inode: inode(descriptor)? })
    }

    /// Whether the socket is still open, by this number.
    pub(crate) fn is_open(self) -> bool {
        inode(self.descriptor) == Some(self.inode)
    }
}

fn inode(descriptor: RawFd) -> Option<u64> {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the structure is live and writable; a number that is no descriptor is an error and nothing else.
    if unsafe { libc::fstat(descriptor, status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat has succeeded, so it has filled the structure in.
    let status = unsafe { status.assume_init() };
    (status.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some(status.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_socket_is_itself_until_it_is_closed() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let identity = Identity::of(&socket).unwrap();
        assert!(identity.is_open());
        let mistaken = Identity { descriptor: other.as_raw_fd(), ..identity };
        assert!(!mistaken.is_open());
        assert_eq!(Identity::of(&std::fs::File::open("/dev/null").unwrap()), None);
        drop(socket);
        assert!(!identity.is_open());
    }
}
