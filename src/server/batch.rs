//! Many datagrams a system call: `recvmmsg` and `sendmmsg`, with the local address of each (`IP_PKTINFO`).
//!
//! A rendezvous server's work for a datagram is far below the price of a system call, so a busy server reads and
//! answers in batches. Of each datagram it must know which local address it was sent to, because the answer has to
//! leave from there: a host with several addresses would otherwise answer from the one that routing prefers, and a
//! NAT or firewall would drop it. A socket that is bound to one address is spared that.
//!
//! The arrays of pointers that the system calls work on are built for one call and do not outlive it; what stays is
//! plain buffers.

#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use socket2::{SockAddr, SockAddrStorage};

use crate::machine::Transmit;

/// Datagrams a system call at most. More of them gain little and let one socket keep the others waiting.
pub(super) const BATCH: usize = 64;

/// Bytes kept of a datagram; a longer one is dropped. Our own messages have 1,200 at most, but a client that asks by PADDING
/// whether its NAT passes fragments (RFC 5780 section 7.6) sends 1,500 bytes and more.
const DATAGRAM: usize = 2048;

/// Room for one control message with an `in_pktinfo` or the larger `in6_pktinfo`, aligned as `cmsghdr` must be.
#[repr(align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

// SAFETY: CMSG_SPACE only computes.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<libc::in6_pktinfo>() as u32) } as usize;

/// A datagram that was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram<'a> {
    /// The local address that it was sent to, where the system told it.
    pub(super) local: Option<IpAddr>,
    pub(super) remote: SocketAddr,
    pub(super) payload: &'a [u8],
}

/// What is known of a datagram whose bytes are in the buffer of the same index.
struct Received {
    local: Option<IpAddr>,
    remote: SocketAddr,
    length: usize,
}

/// Room for one batch of received datagrams, used again for the next: clearing it for each would cost as much as
/// answering a datagram.
pub(super) struct Receiver {
    names: Vec<SockAddrStorage>,
    controls: Vec<Control>,
    buffers: Vec<[u8; DATAGRAM]>,
    received: Vec<Option<Received>>,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            names: (0..BATCH).map(|_| SockAddrStorage::zeroed()).collect(),
            controls: vec![Control([0; CONTROL]); BATCH],
            buffers: vec![[0; DATAGRAM]; BATCH],
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what is there, at most [`BATCH`] datagrams, and says how many there were; fails with `WouldBlock` when
    /// there was none.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        let mut vectors: [libc::iovec; BATCH] = std::array::from_fn(|index| {
            let buffer = &mut self.buffers[index];
            libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }
        });
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|index| {
            header(
                ptr::from_mut(&mut self.names[index]).cast(),
                mem::size_of::<SockAddrStorage>() as libc::socklen_t,
                &mut vectors[index],
                (&mut self.controls[index], CONTROL),
            )
        });
        let count = loop {
            // SAFETY: the headers point to names, vectors, controls and buffers that outlive this function or end with it
            // and are as long as the headers say; no timeout is given, and the socket is non-blocking.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    BATCH as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    ptr::null_mut(),
                )
            };
            match usize::try_from(count) {
                Ok(count) => break count,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        };
        for header in headers.iter().take(count) {
            let message = &header.msg_hdr;
            // SAFETY: the kernel wrote `msg_namelen` bytes of an address there; the rest is zero or of an address before.
            let remote = unsafe {
                let storage = ptr::read(message.msg_name.cast::<SockAddrStorage>());
                SockAddr::new(storage, message.msg_namelen)
            };
            let whole = message.msg_flags & libc::MSG_TRUNC == 0;
            self.received.push(remote.as_socket().filter(|_| whole).map(|remote| Received {
                local: packet_info(message),
                remote,
                length: header.msg_len as usize,
            }));
        }
        Ok(count)
    }

    /// The datagram of this index in the last batch; `None` for one that was longer than a buffer.
    pub(super) fn datagram(&self, index: usize) -> Option<Datagram<'_>> {
        let Received { local, remote, length } = self.received.get(index)?.as_ref()?;
        let payload = self.buffers.get(index)?.get(..*length)?;
        Some(Datagram { local: *local, remote: *remote, payload })
    }
}

/// Sends all of these from one socket, in order. Whatever cannot be sent is dropped, as any network may: a destination
/// that cannot be reached does not hold up the others, and a full send buffer is not waited for. Says how many left.
/// The source is named where the socket has several to choose from, which costs the system a look at each.
pub(super) fn send(socket: BorrowedFd<'_>, transmits: &[Transmit], names_source: bool) -> usize {
    let mut sent = 0;
    for chunk in transmits.chunks(BATCH) {
        sent += send_chunk(socket, chunk, names_source);
    }
    sent
}

fn send_chunk(socket: BorrowedFd<'_>, transmits: &[Transmit], names_source: bool) -> usize {
    let names: Vec<SockAddr> = transmits.iter().map(|transmit| transmit.destination.into()).collect();
    let mut controls = vec![Control([0; CONTROL]); transmits.len()];
    let mut vectors: Vec<libc::iovec> = transmits
        .iter()
        .map(|transmit| libc::iovec {
            iov_base: transmit.payload.as_ptr().cast_mut().cast(),
            iov_len: transmit.payload.len(),
        })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .zip(&names)
        .zip(&mut controls)
        .zip(transmits)
        .map(|(((vector, name), control), transmit)| {
            let length =
                transmit.source.filter(|_| names_source).map_or(0, |source| write_packet_info(control, source));
            header(name.as_ptr().cast_mut().cast(), name.len(), vector, (control, length))
        })
        .collect();
    let (mut next, mut sent) = (0, 0);
    while let Some(rest) = headers.get_mut(next..)
        && !rest.is_empty()
    {
        // SAFETY: the headers point to names, vectors, controls and payloads that outlive the call and are as long as
        // the headers say; the kernel only reads from them.
        let count = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                rest.as_mut_ptr(),
                rest.len() as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        match usize::try_from(count) {
            Ok(count) => {
                next += count.max(1);
                sent += count;
            }
            Err(_) => {
                let error = io::Error::last_os_error().kind();
                if error == io::ErrorKind::WouldBlock {
                    break;
                }
                // The first of the rest is the one that cannot be sent.
                next += usize::from(error != io::ErrorKind::Interrupted);
            }
        }
    }
    sent
}

/// Asks the system to tell the local address of every datagram received.
pub(super) fn enable_packet_info(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let (level, name) =
        if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&on).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A header for one message. The pointers are only stored here.
fn header(
    name: *mut libc::c_void,
    name_length: libc::socklen_t,
    vector: &mut libc::iovec,
    (control, control_length): (&mut Control, usize),
) -> libc::mmsghdr {
    // SAFETY: a `mmsghdr` is integers and pointers, for which zero is a value.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_name = name;
    header.msg_hdr.msg_namelen = name_length;
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    if control_length > 0 {
        header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = control_length as _;
    }
    header
}

/// The local address among the control messages of a received datagram.
fn packet_info(message: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel filled the control buffer of this message and set its length; CMSG_FIRSTHDR answers null unless
    // a whole header fits, and the length of the one message that is asked for is checked before its data is read.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message).as_ref()?;
        let data = libc::CMSG_DATA(header);
        let holds = |length: usize| header.cmsg_len as usize >= libc::CMSG_LEN(length as u32) as usize;
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if holds(mem::size_of::<libc::in_pktinfo>()) => {
                // `ipi_spec_dst` and not the header's destination: a broadcast is answered from a real address.
                let info = ptr::read_unaligned(data.cast::<libc::in_pktinfo>());
                Some(IpAddr::V4(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if holds(mem::size_of::<libc::in6_pktinfo>()) => {
                let info = ptr::read_unaligned(data.cast::<libc::in6_pktinfo>());
                Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

/// Writes a control message that makes a datagram leave from `source`, and says how long it is. The interface stays
/// routing's choice.
fn write_packet_info(control: &mut Control, source: IpAddr) -> usize {
    match source {
        IpAddr::V4(ip) => {
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
            let info =
                libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: libc::in_addr { s_addr: 0 } };
            write_control(control, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(ip) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            write_control(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn write_control<T>(control: &mut Control, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
    const { assert!(mem::size_of::<T>() <= mem::size_of::<libc::in6_pktinfo>()) };
    let length = mem::size_of::<T>() as u32;
    // SAFETY: the buffer is aligned for a `cmsghdr` and has room for one with the larger of both values, which the
    // assertion above bounds; its data may be unaligned for T and is written as such.
    unsafe {
        let header = control.0.as_mut_ptr().cast::<libc::cmsghdr>();
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(length) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast::<T>(), value);
        libc::CMSG_SPACE(length) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::SocketId;
    use std::{net::UdpSocket, os::fd::AsFd, time::Duration};

    fn transmit(destination: SocketAddr, source: Option<IpAddr>, payload: &[u8]) -> Transmit {
        Transmit { socket: SocketId(0), source, destination, payload: payload.to_vec() }
    }

    /// A server socket on the wildcard address and a client of the same family, whose reads give up after 5 s.
    fn pair(wildcard: &str, client: &str) -> (UdpSocket, UdpSocket) {
        let server = UdpSocket::bind(wildcard).unwrap();
        enable_packet_info(server.as_fd(), wildcard.starts_with('[')).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let client = UdpSocket::bind(client).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (server, client)
    }

    #[test]
    fn a_batch_tells_local_addresses_and_answers_leave_from_them() {
        for (wildcard, client, asked) in [("0.0.0.0:0", "127.0.0.1:0", "127.0.0.7"), ("[::]:0", "[::1]:0", "::1")] {
            let (server, client) = pair(wildcard, client);
            let asked: IpAddr = asked.parse().unwrap();
            let port = server.local_addr().unwrap().port();
            let requests: Vec<Transmit> =
                (0..100_u8).map(|n| transmit(SocketAddr::new(asked, port), None, &[n; 3])).collect();
            assert_eq!(send(client.as_fd(), &requests, true), 100);

            let (mut receiver, mut seen) = (Receiver::new(), Vec::new());
            while seen.len() < 100 {
                let count = receiver.receive(server.as_fd()).unwrap();
                assert!(count <= BATCH);
                let answers: Vec<Transmit> = (0..count)
                    .map(|index| {
                        let datagram = receiver.datagram(index).unwrap();
                        assert_eq!(datagram.local, Some(asked));
                        assert_eq!(datagram.remote, client.local_addr().unwrap());
                        seen.push(datagram.payload.to_vec());
                        transmit(datagram.remote, datagram.local, datagram.payload)
                    })
                    .collect();
                assert_eq!(send(server.as_fd(), &answers, true), count);
            }
            assert_eq!(seen, requests.iter().map(|request| request.payload.clone()).collect::<Vec<_>>());

            let mut buffer = [0; 8];
            for n in 0..100_u8 {
                let (length, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], from), (&[n; 3][..], SocketAddr::new(asked, port)));
            }
        }
    }

    #[test]
    fn an_empty_socket_would_block_and_an_oversized_datagram_is_none() {
        let (server, client) = pair("0.0.0.0:0", "127.0.0.1:0");
        let mut receiver = Receiver::new();
        assert_eq!(receiver.receive(server.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let port = server.local_addr().unwrap().port();
        client.send_to(&[0; 3000], ("127.0.0.1", port)).unwrap();
        client.send_to(&[], ("127.0.0.1", port)).unwrap();
        assert_eq!(receiver.receive(server.as_fd()).unwrap(), 2);
        assert!(receiver.datagram(0).is_none());
        assert_eq!(receiver.datagram(1).unwrap().payload, b"");
    }

    #[test]
    fn a_destination_that_fails_does_not_hold_up_the_others() {
        let (server, client) = pair("0.0.0.0:0", "127.0.0.1:0");
        let good = client.local_addr().unwrap();
        let transmits = [
            transmit(good, None, b"one"),
            transmit("[::1]:9".parse().unwrap(), None, b"another family"),
            transmit("127.0.0.1:0".parse().unwrap(), None, b"port zero"),
            transmit(good, Some("192.0.2.1".parse().unwrap()), b"not our address"),
            transmit(good, None, b"two"),
        ];
        assert_eq!(send(server.as_fd(), &transmits, true), 2);
        let mut buffer = [0; 8];
        for expected in [b"one", b"two"] {
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
    }
}
