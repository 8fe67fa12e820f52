//! recvmsg and sendmsg with the one ancillary datum that matters here: the local address of a datagram.
//!
//! Linux tells it in `IP_PKTINFO` (RFC 3542 calls the IPv6 one `IPV6_PKTINFO`) and takes the source of an answer by the
//! same option. Elsewhere the local address stays unknown and the source is left to routing.

use std::{
    io,
    mem::{MaybeUninit, size_of, size_of_val},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    ptr,
};

use socket2::{SockAddr, Socket};

/// Room for one `IP_PKTINFO` or `IPV6_PKTINFO` with its header, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Room([u8; 64]);

/// Asks for the local address of every datagram.
#[cfg(target_os = "linux")]
pub(super) fn enable(socket: &Socket, ipv6: bool) -> io::Result<()> {
    let (level, option) =
        if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    set_option(socket, level, option, 1)
}

/// The local address stays unknown here.
#[cfg(not(target_os = "linux"))]
pub(super) fn enable(_socket: &Socket, _ipv6: bool) -> io::Result<()> {
    Ok(())
}

/// Sets an option whose value is an `int`.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(super) fn set_option(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is a live `int` and its size is told; the descriptor is open as long as `socket`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Tells an option whose value is an `int`.
#[cfg(target_os = "linux")]
pub(super) fn get_option(socket: &Socket, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is a live `int`, writable, and its size is told; the descriptor is open as long as `socket`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// What [`receive`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) length: usize,
    pub(super) truncated: bool,
    /// `None` for what is no internet address.
    pub(super) remote: Option<SocketAddr>,
    /// The address that the datagram was sent to, where the system told it.
    pub(super) local: Option<IpAddr>,
}

/// Receives one datagram without blocking.
pub(super) fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Message> {
    let mut room = Room([0; 64]);
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeros is a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut room).cast();
    header.msg_controllen = size_of_val(&room) as _;
    // SAFETY: socket2 gives pointers to a live storage and its length; vector and control buffer are live, writable and
    // as long as the header says. Afterwards the storage holds the address that recvmsg wrote, and its length.
    let (length, remote) = unsafe {
        SockAddr::try_init(|storage, length| {
            header.msg_name = storage.cast();
            header.msg_namelen = *length;
            let result = libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT);
            *length = header.msg_namelen;
            usize::try_from(result).map_err(|_| io::Error::last_os_error())
        })
    }?;
    Ok(Message {
        length,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        remote: remote.as_socket(),
        local: local_of(&header),
    })
}

/// Sends one datagram without blocking, from `source` where given and possible.
pub(super) fn send(
    socket: &Socket,
    source: Option<IpAddr>,
    destination: SocketAddr,
    payload: &[u8],
) -> io::Result<usize> {
    let destination = SockAddr::from(destination);
    let mut vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    let mut room = Room([0; 64]);
    // SAFETY: all zeros is a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_name = destination.as_ptr().cast_mut().cast();
    header.msg_namelen = destination.len();
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if let Some(source) = source {
        write_source(&mut header, &mut room, source);
    }
    // SAFETY: name, vector and control buffer are live and as long as the header says; sendmsg only reads them.
    let result =
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(target_os = "linux")]
fn local_of(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the header is the one that recvmsg filled in, its control buffer is live and aligned; the macros stay
    // within the length that recvmsg set.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = message.as_ref() {
            let data = libc::CMSG_DATA(message);
            match (head.cmsg_level, head.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    return Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    return Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                _ => message = libc::CMSG_NXTHDR(header, message),
            }
        }
    }
    None
}

#[cfg(not(target_os = "linux"))]
fn local_of(_header: &libc::msghdr) -> Option<IpAddr> {
    None
}

#[cfg(target_os = "linux")]
fn write_source(header: &mut libc::msghdr, room: &mut Room, source: IpAddr) {
    /// Writes one control message into the room.
    fn put<T>(header: &mut libc::msghdr, room: &mut Room, level: libc::c_int, kind: libc::c_int, value: T) {
        header.msg_control = (&raw mut *room).cast();
        // SAFETY: the macros only compute; the room is larger than the space for either value and aligned for its
        // header, so the first header and its data lie within it.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size_of::<T>() as u32) as _;
            let message = libc::CMSG_FIRSTHDR(header);
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
            ptr::write_unaligned(libc::CMSG_DATA(message).cast(), value);
        }
    }
    match source {
        IpAddr::V4(ip) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put(header, room, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        IpAddr::V6(ip) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            put(header, room, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn write_source(_header: &mut libc::msghdr, _room: &mut Room, _source: IpAddr) {}
