//! A UDP socket that knows which local address each datagram came to, and can answer from it.
//!
//! It is bound exclusively first, so that a port that another program holds is an error and not a silent theft of its
//! packets; only then `SO_REUSEADDR` is set, so that the sockets of single connections ([`super::link`]) may share
//! the port. IPv6 sockets carry IPv6 only. The local address of a datagram comes from `IP_PKTINFO` or
//! `IPV6_RECVPKTINFO`, and the same option chooses the source of an answer ([`super::control`]). Nothing here blocks.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{control, fault::bind_error};
use crate::Error;

/// An unconnected socket with its local address; the IP is unspecified where it was bound so.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
}

/// A datagram's measure and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Its bytes in the buffer.
    pub(crate) length: usize,
    /// The address that it was sent to, and our port.
    pub(crate) local: SocketAddr,
    /// Where it came from.
    pub(crate) remote: SocketAddr,
}

impl UdpSocket {
    /// Binds a socket.
    ///
    /// # Errors
    /// [`AddressInUse`](crate::ErrorKind::AddressInUse), [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for an address that is not of this host or a port that
    /// the user may not have, else [`Io`](crate::ErrorKind::Io); each names the address.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, Error> {
        Self::try_bind(address).map_err(|error| bind_error("UDP", address, &error))
    }

    fn try_bind(address: SocketAddr) -> io::Result<Self> {
        let socket = new_socket(address)?;
        socket.set_nonblocking(true)?;
        control::enable(&socket, address.is_ipv6())?;
        socket.bind(&address.into())?;
        socket.set_reuse_address(true)?;
        let local = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Self { socket, local })
    }

    /// The bound address; the IP may be unspecified, the port is not zero.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Receives one datagram without blocking. One that is longer than the buffer is dropped as if it never came.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            let message = control::receive(&self.socket, buffer)?;
            let (Some(remote), false) = (message.remote, message.truncated) else { continue };
            let local = SocketAddr::new(message.local.unwrap_or(self.local.ip()), self.local.port());
            return Ok(Received { length: message.length, local, remote });
        }
    }

    /// Sends one datagram without blocking, from `source` where given.
    pub(crate) fn send(&self, source: Option<IpAddr>, destination: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let source = source.filter(|ip| ip.is_ipv6() == self.local.is_ipv6() && !ip.is_unspecified());
        control::send(&self.socket, source, destination, payload).map(|_| ())
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A datagram socket for the family of `address`; never inherited by a program that this one starts.
pub(crate) fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket as StdSocket};

    /// Waits until a datagram is there.
    fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Received {
        for _ in 0..500 {
            match socket.receive(buffer) {
                Ok(received) => return received,
                Err(error) => assert!(super::super::fault::would_block(&error), "{error}"),
            }
            super::super::ready::wait(&[&socket.socket], Some(std::time::Duration::from_millis(20))).unwrap();
        }
        panic!("no datagram came");
    }

    #[test]
    fn the_local_address_is_told_and_an_answer_leaves_from_it() {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = socket.local().port();
        assert_ne!(port, 0);
        let peer = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let second_loopback = Ipv4Addr::new(127, 0, 0, 2);
        let target: SocketAddr = (second_loopback, port).into();
        peer.send_to(b"question", target).unwrap();
        let mut buffer = [0; 64];
        let received = receive(&socket, &mut buffer);
        assert_eq!(&buffer[..received.length], b"question");
        assert_eq!(received.remote, peer.local_addr().unwrap());
        if cfg!(target_os = "linux") {
            assert_eq!(received.local, target);
            socket.send(Some(second_loopback.into()), received.remote, b"answer").unwrap();
            assert_eq!(peer.recv_from(&mut buffer).unwrap(), (6, target));
        }
    }

    #[test]
    fn the_same_over_ipv6() {
        let Ok(socket) = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0).into()) else {
            return assert!(StdSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err(), "IPv6 works, but not for us");
        };
        let peer = StdSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let target: SocketAddr = (Ipv6Addr::LOCALHOST, socket.local().port()).into();
        peer.send_to(b"question", target).unwrap();
        let mut buffer = [0; 64];
        let received = receive(&socket, &mut buffer);
        assert_eq!((received.length, received.local), (8, target));
        socket.send(Some(received.local.ip()), received.remote, b"answer").unwrap();
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (6, target));
    }

    #[test]
    fn a_busy_port_is_named_even_when_its_holder_shares() {
        let holder = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let error = UdpSocket::bind(holder.local()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        assert!(error.message().contains(&holder.local().to_string()), "{error}");
        assert_eq!(error.os_code(), Some(libc::EADDRINUSE));
    }

    #[test]
    fn a_foreign_address_is_the_callers_mistake() {
        let error = UdpSocket::bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn a_datagram_longer_than_the_buffer_is_dropped() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let peer = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        peer.send_to(&[1; 100], socket.local()).unwrap();
        peer.send_to(&[2; 10], socket.local()).unwrap();
        let mut buffer = [0; 50];
        assert_eq!(receive(&socket, &mut buffer).length, 10);
        assert_eq!(buffer[0], 2);
    }
}
