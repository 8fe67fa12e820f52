//! Everybody else: a TUN device of a host, behind which is a part of the internet, in the hands of a test.
//!
//! What the test writes arrives at the host as packets of others, from whichever of half a billion addresses of IPv4
//! and millions of networks of IPv6 it says; what the host answers can be read, or is lost when nobody does. No other
//! interface is asked: routes for these addresses lead to the device, and to nothing else.
#![allow(unsafe_code)]

use crate::{
    Host,
    model::{packet, tun},
};
use netsim::{Carried, Random, TcpHeader};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
    time::Duration,
};

/// The strangers' addresses: 32.0.0.0/3, and 2001:db8:8000::/33 of what documentation may use. Public ones, since a
/// program may treat private ones differently; none leaves the namespace.
const V4: (Ipv4Addr, u32) = (Ipv4Addr::new(32, 0, 0, 0), 3);
const V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 0), 33);

/// Longer than any packet of the device.
const LONGEST_PACKET: usize = 2048;

/// The device; it goes when this is dropped.
#[derive(Debug)]
pub struct Strangers {
    device: File,
    buffer: Box<[u8; LONGEST_PACKET]>,
}

impl Host {
    /// Puts the strangers' part of the internet behind this host, which must not have it already.
    pub fn strangers(&self) -> io::Result<Strangers> {
        let device = self.within(|| tun::create("strangers"))??;
        self.namespace.ip(&format!(
            "link set strangers mtu 1500 txqueuelen 10000 addrgenmode none up\n\
             route add {}/{} dev strangers\nroute add {}/{} dev strangers\n",
            V4.0, V4.1, V6.0, V6.1
        ))?;
        Ok(Strangers { device, buffer: Box::new([0; LONGEST_PACKET]) })
    }
}

impl Strangers {
    /// Any address of theirs, with any port from 1024 on.
    #[must_use]
    pub fn any(random: &mut Random, is_ipv4: bool) -> SocketAddr {
        let port = 1024 + random.below(64_000) as u16;
        if is_ipv4 {
            let ip = V4.0.to_bits() | (random.next_u64() as u32) >> V4.1;
            return (Ipv4Addr::from_bits(ip), port).into();
        }
        let drawn = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        (Ipv6Addr::from_bits(V6.0.to_bits() | drawn >> V6.1), port).into()
    }

    /// A datagram of a stranger's arrives at the host: the system has handed it to a socket, or dropped it, when this
    /// returns.
    ///
    /// # Errors
    ///
    /// The device's.
    pub fn send(&self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> io::Result<()> {
        self.write(source, destination, None, payload)
    }

    /// The same of a TCP segment without data.
    ///
    /// # Errors
    ///
    /// The device's.
    pub fn send_segment(&self, source: SocketAddr, destination: SocketAddr, header: TcpHeader) -> io::Result<()> {
        self.write(source, destination, Some(header), &[])
    }

    fn write(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        tcp: Option<TcpHeader>,
        payload: &[u8],
    ) -> io::Result<()> {
        let packet = packet::make((source, destination), 64, tcp, payload)
            .ok_or_else(|| io::Error::other("the addresses are of two families"))?;
        (&self.device).write_all(&packet)
    }

    /// The next packet that the host has sent to a stranger, of those that wait. What is neither UDP nor TCP nor an
    /// ICMP error is passed over.
    ///
    /// # Errors
    ///
    /// The device's.
    pub fn receive(&mut self) -> io::Result<Option<Carried>> {
        loop {
            match (&self.device).read(&mut self.buffer[..]) {
                Ok(length) => {
                    let carried = packet::read(&self.buffer[..length]);
                    if carried.is_some() {
                        return Ok(carried);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until a packet is there, at most so long; whether there is.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn wait(&self, patience: Duration) -> io::Result<bool> {
        let mut waiting = libc::pollfd { fd: self.device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the one `pollfd` lives through the call.
        match unsafe { libc::poll(&raw mut waiting, 1, milliseconds) } {
            -1 => Err(io::Error::last_os_error()),
            ready => Ok(ready > 0),
        }
    }
}
