//! Filters in the system (classic BPF, `SO_ATTACH_FILTER`), which drop packets before a socket sees them.
//!
//! One keeps data out of a receive queue that nobody empties, and lets messages in: it drops what does not begin like
//! STUN, at no cost to anybody, however much comes. For a UDP socket the filter sees the datagram from its UDP header on.
//! The other lets one host alone connect to a listener.

use std::{io, net::Ipv4Addr};

use socket2::Socket;

#[cfg(target_os = "linux")]
use crate::wire::stun::MAGIC_COOKIE;

/// Has the system queue only what begins like STUN.
#[cfg(target_os = "linux")]
pub(super) fn attach(socket: &Socket) -> io::Result<()> {
    /// The length of the UDP header.
    const UDP: u32 = 8;
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, UDP + 4),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, MAGIC_COOKIE),
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, UDP),
        op(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 1, 0, 3),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(socket, libc::SO_ATTACH_FILTER, &program)
}

/// Has the system drop what other hosts send to this socket.
#[cfg(target_os = "linux")]
pub(crate) fn only_from(socket: &Socket, host: Ipv4Addr) -> io::Result<()> {
    /// Where the source stands in the IPv4 header, which is reached by a negative offset (linux/filter.h, SKF_NET_OFF).
    const SOURCE: u32 = 0xFFF0_0000 + 12;
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, SOURCE),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, host.to_bits()),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(socket, libc::SO_ATTACH_FILTER, &program)
}

/// Has the system queue everything again.
#[cfg(target_os = "linux")]
pub(crate) fn detach(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SO_DETACH_FILTER, &0)
}

#[cfg(target_os = "linux")]
fn set<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    use std::{os::fd::AsRawFd as _, ptr};
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is live, of the type that the option takes, and as long as told; what it points to is live too.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, ptr::from_ref(value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn attach(_socket: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn only_from(_socket: &Socket, _host: Ipv4Addr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn detach(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn only_one_host_is_heard() {
        let socket = Socket::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let here = socket.local_addr().unwrap().as_socket().unwrap();
        only_from(&socket, Ipv4Addr::new(127, 0, 0, 2)).unwrap();
        let socket = UdpSocket::from(socket);
        for host in ["127.0.0.3", "127.0.0.2"] {
            UdpSocket::bind((host, 0)).unwrap().send_to(host.as_bytes(), here).unwrap();
        }
        let mut buffer = [0; 100];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 9);
        assert_eq!(&buffer[..9], b"127.0.0.2");
    }

    #[test]
    fn only_what_begins_like_stun_comes_in() {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        a.connect(b.local_addr().unwrap()).unwrap();
        let filtered = Socket::from(b.try_clone().unwrap());
        let mut message = [0; 20];
        message[1] = 1;
        message[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        let mut too_high = message;
        too_high[0] = 4;
        attach(&filtered).unwrap();
        for datagram in [&b"data"[..], b"", b"longer data than that", &too_high, &message] {
            a.send(datagram).unwrap();
        }
        let mut buffer = [0; 100];
        assert_eq!(b.recv(&mut buffer).unwrap(), message.len());
        assert_eq!(buffer[..20], message);
        detach(&filtered).unwrap();
        a.send(b"data").unwrap();
        assert_eq!(b.recv(&mut buffer).unwrap(), 4);
    }
}
