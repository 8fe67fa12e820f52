//! The server's sockets: which addresses are bound, in which order, and what is an error.
//!
//! Without a host it is 0.0.0.0 and, separately, [::] for IPv6 alone, so that each family has its own socket and an
//! IPv4 client never appears in its IPv6-mapped form; where the machine has one family only, the other is left out.
//! An explicit host binds only that. Beside each socket stands one on an alternate port, from which requests to
//! change the port are answered (RFC 5780); the server works without it.
//!
//! TCP is listened on at the same addresses and port as the first UDP sockets.
//!
//! SO_REUSEPORT is never set: a second server on the same port must fail, not share the clients. SO_REUSEADDR is set for
//! TCP alone, where it lets a restarted server have its port while old connections are still in TIME_WAIT, and does
//! not let a second listener in.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _, UdpSocket},
    os::fd::AsFd as _,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::batch;
use crate::{
    Error, ErrorKind, Result,
    config::ALTERNATE_PORT_OFFSET,
    machine::{Level, SocketId},
    rendezvous::server::ServerSocket,
};

/// Bytes asked of the system for received datagrams: a burst of every client of a large server (10,000 keepalives of
/// some 200 bytes, each with the kernel's overhead) fits. The system may grant less.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Connections that may wait to be accepted; the system may grant fewer. Thousands of clients come back at once after a restart.
const BACKLOG: i32 = 4096;

/// A TCP client that vanished is noticed after a minute of silence and three unanswered probes, 10 s apart. A listener
/// of 2015 says nothing for as long as it listens.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// With port 0 the port that UDP over IPv4 got may be in use for IPv6 or TCP; then another is tried, so often.
const FREE_PORT_ATTEMPTS: usize = 16;

/// Sockets that are bound, with what the machine is to know of them.
pub(super) struct Bound {
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) known: Vec<ServerSocket>,
    pub(super) listeners: Vec<(TcpListener, SocketAddr)>,
}

/// Binds everything. `log` hears what is missing without being an error.
pub(super) fn bind(host: Option<&str>, port: u16, log: &dyn Fn(Level, &str)) -> Result<Bound> {
    let mut attempts = FREE_PORT_ATTEMPTS;
    let (mains, listeners) = loop {
        attempts -= 1;
        let mains = match host {
            Some(host) => {
                let mut mains = Vec::new();
                for ip in resolve(host)? {
                    let address = SocketAddr::new(ip, port);
                    mains.push(open(address).map_err(|error| failure("UDP", address, &error))?);
                }
                mains
            }
            None => bind_wildcards(port, log)?,
        };
        match listen_beside(&mains) {
            Ok(listeners) => break (mains, listeners),
            Err(error) if error.kind() == ErrorKind::AddressInUse && port == 0 && attempts > 0 => {}
            Err(error) => return Err(error),
        }
    };
    complete(mains, listeners, port, log)
}

/// Binds UDP beside a listener that somebody else has opened.
pub(super) fn bind_beside(listener: TcpListener, log: &dyn Fn(Level, &str)) -> Result<Bound> {
    let socket = Socket::from(listener);
    let is_unusable = |error: io::Error| failure_of("the listener cannot be used", &error);
    let address = socket.local_addr().map_err(is_unusable)?.as_socket();
    let address = address.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the listener is none of TCP"))?;
    prepare(&socket).map_err(is_unusable)?;
    let mains = match open(address) {
        Ok(main) => vec![main],
        Err(error) => {
            log(Level::Warn, &format!("UDP {address} cannot be bound ({error}); clients are served over TCP only"));
            Vec::new()
        }
    };
    complete(mains, vec![(socket.into(), address)], address.port(), log)
}

/// Puts an alternate port beside each main socket.
fn complete(
    mains: Vec<UdpSocket>,
    listeners: Vec<(TcpListener, SocketAddr)>,
    port: u16,
    log: &dyn Fn(Level, &str),
) -> Result<Bound> {
    let mut bound = Bound { sockets: Vec::new(), known: Vec::new(), listeners };
    for main in mains {
        let local = main.local_addr().map_err(|error| unusable(&error))?;
        let alternate = bind_alternate(local, port, log);
        let id = |bound: &Bound| SocketId(u32::try_from(bound.sockets.len()).unwrap_or(u32::MAX));
        let main_id = id(&bound);
        bound.sockets.push(main);
        let alternate_id = alternate.as_ref().map(|_| id(&bound));
        bound.known.push(ServerSocket { socket: main_id, local, alternate: alternate_id });
        if let (Some((socket, local)), Some(id)) = (alternate, alternate_id) {
            bound.sockets.push(socket);
            bound.known.push(ServerSocket { socket: id, local, alternate: Some(main_id) });
        }
    }
    Ok(bound)
}

/// Listens on TCP wherever these sockets are bound.
fn listen_beside(mains: &[UdpSocket]) -> Result<Vec<(TcpListener, SocketAddr)>> {
    let listen = |main: &UdpSocket| {
        let address = main.local_addr().map_err(|error| unusable(&error))?;
        let listener = listen(address).map_err(|error| failure("TCP", address, &error))?;
        Ok((listener, address))
    };
    mains.iter().map(listen).collect()
}

/// Opens one listener: non-blocking, one family. What is set here its connections inherit.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets what a listener's connections inherit, and that it does not block.
fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES),
    )?;
    // Each answer is one segment, at once.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)
}

/// The addresses of a host: itself if it is an address, else at most one of each family.
fn resolve(host: &str) -> Result<Vec<IpAddr>> {
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(vec![ip]);
    }
    let found: Vec<IpAddr> = (host, 0)
        .to_socket_addrs()
        .map_err(|error| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("the host \"{host}\" to listen on cannot be resolved: {error}"),
            )
            .with_hint("give an address of this machine, or leave the host out")
            .with_os_code(error.raw_os_error())
        })?
        .map(|address| address.ip())
        .collect();
    let first = |ipv6: bool| found.iter().copied().find(|ip| ip.is_ipv6() == ipv6);
    Ok([first(false), first(true)].into_iter().flatten().collect())
}

/// Binds 0.0.0.0 and [::] to one port, as far as this machine has the families.
fn bind_wildcards(port: u16, log: &dyn Fn(Level, &str)) -> Result<Vec<UdpSocket>> {
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let mut attempts = FREE_PORT_ATTEMPTS;
    loop {
        attempts -= 1;
        let first = open(SocketAddr::new(v4, port));
        let chosen = match &first {
            Ok(socket) => socket.local_addr().map_err(|error| unusable(&error))?.port(),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(failure("UDP", SocketAddr::new(v4, port), error));
            }
            Err(_) => port,
        };
        let second = open(SocketAddr::new(v6, chosen));
        return match (first, second) {
            (Ok(_), Err(error)) if error.kind() == io::ErrorKind::AddrInUse && port == 0 && attempts > 0 => continue,
            (_, Err(error)) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(failure("UDP", SocketAddr::new(v6, chosen), &error))
            }
            (Ok(first), Ok(second)) => Ok(vec![first, second]),
            (Ok(socket), Err(error)) => {
                log(Level::Warn, &format!("no IPv6 on this machine ({error}); going on with IPv4 only"));
                Ok(vec![socket])
            }
            (Err(error), Ok(socket)) => {
                log(Level::Warn, &format!("no IPv4 on this machine ({error}); going on with IPv6 only"));
                Ok(vec![socket])
            }
            (Err(error), Err(_)) => Err(failure("UDP", SocketAddr::new(v4, port), &error)),
        };
    }
}

/// Binds the alternate port of a main address, if that can be had.
fn bind_alternate(main: SocketAddr, asked: u16, log: &dyn Fn(Level, &str)) -> Option<(UdpSocket, SocketAddr)> {
    let port = match asked {
        0 => Some(0),
        _ => main.port().checked_add(ALTERNATE_PORT_OFFSET),
    };
    let without = "clients cannot ask for answers from another port (RFC 5780)";
    let Some(port) = port else {
        log(Level::Warn, &format!("port {} leaves no room for an alternate port; {without}", main.port()));
        return None;
    };
    let address = SocketAddr::new(main.ip(), port);
    match open(address).and_then(|socket| socket.local_addr().map(|local| (socket, local))) {
        Ok(bound) => Some(bound),
        Err(error) => {
            log(Level::Warn, &format!("the alternate port {address} cannot be bound ({error}); {without}"));
            None
        }
    }
}

/// Opens one socket: exclusive, non-blocking, one family, local addresses told.
fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if address.ip().is_unspecified() {
        batch::enable_packet_info(socket.as_fd(), address.is_ipv6())?;
    }
    // The system's limit may be lower, and a smaller buffer is no reason to stop.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn failure(protocol: &str, address: SocketAddr, error: &io::Error) -> Error {
    let message = |what: &str| format!("cannot listen on {protocol} {address}: {what}");
    let kind = error.kind();
    let failed = if kind == io::ErrorKind::AddrInUse {
        Error::new(ErrorKind::AddressInUse, message("the port is in use by another program"))
    } else if kind == io::ErrorKind::AddrNotAvailable {
        Error::new(ErrorKind::InvalidArgument, message("it is not an address of this machine"))
            .with_hint("give an address of this machine, or leave the host out")
    } else if kind == io::ErrorKind::PermissionDenied {
        Error::new(ErrorKind::Io, message("permission denied"))
            .with_hint("choose a port from 1024 on, or run it with the permission to bind that port")
    } else {
        Error::new(ErrorKind::Io, message(&error.to_string()))
    };
    failed.with_os_code(error.raw_os_error())
}

fn unusable(error: &io::Error) -> Error {
    failure_of("the system does not tell the address of a socket", error)
}

fn failure_of(what: &str, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{what}: {error}")).with_os_code(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn quiet(_: Level, _: &str) {}

    #[test]
    fn an_explicit_host_binds_only_that_with_its_alternate() {
        let bound = bind(Some("127.0.0.1"), 0, &quiet).unwrap();
        let [main, alternate] = &bound.known[..] else { panic!("{:?}", bound.known) };
        assert_eq!(main.local.ip(), alternate.local.ip());
        assert_ne!(main.local.port(), alternate.local.port());
        assert_eq!((main.alternate, alternate.alternate), (Some(SocketId(1)), Some(SocketId(0))));
        assert_eq!(bound.sockets.len(), 2);
    }

    #[test]
    fn without_a_host_both_families_share_the_port() {
        let bound = bind(None, 0, &quiet).unwrap();
        let mains: Vec<_> = bound.known.iter().step_by(2).map(|socket| socket.local).collect();
        assert!(mains.iter().all(|local| local.ip().is_unspecified() && local.port() == mains[0].port()));
        assert_eq!(bound.sockets.len(), bound.known.len());
    }

    #[test]
    fn a_port_in_use_is_one_clear_error() {
        let first = bind(Some("127.0.0.1"), 0, &quiet).unwrap();
        let local = first.known[0].local;
        let error = bind(Some("127.0.0.1"), local.port(), &quiet).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        assert!(error.message().contains(&local.to_string()), "{error}");
        let error = bind(None, local.port(), &quiet).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddressInUse, "the wildcard covers it: {error}");
    }

    #[test]
    fn a_taken_alternate_port_is_said_and_done_without() {
        // Two free ports at the distance of main and alternate; the second one stays taken.
        let (port, _taken) = (0..100)
            .find_map(|_| {
                let free = UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
                let taken = UdpSocket::bind(("127.0.0.1", free.checked_add(ALTERNATE_PORT_OFFSET)?)).ok()?;
                Some((free, taken))
            })
            .unwrap();
        let lines = RefCell::new(Vec::new());
        let bound = bind(Some("127.0.0.1"), port, &|_, text| lines.borrow_mut().push(text.to_owned())).unwrap();
        assert_eq!(bound.known.len(), 1);
        assert_eq!(bound.known[0].alternate, None);
        assert!(lines.borrow()[0].contains(&format!("127.0.0.1:{}", port + ALTERNATE_PORT_OFFSET)));
    }

    #[test]
    fn hosts_that_cannot_be_bound_say_why() {
        let error = bind(Some("192.0.2.1"), 0, &quiet).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("192.0.2.1"), "{error}");
    }

    #[test]
    fn udp_is_bound_beside_a_listener_where_it_can_be() {
        // An address whose ports no other test takes.
        let listener = || TcpListener::bind("127.0.77.1:0").unwrap();
        let (first, lines) = (listener(), RefCell::new(Vec::new()));
        let local = first.local_addr().unwrap();
        let bound = bind_beside(first, &quiet).unwrap();
        assert_eq!((bound.known[0].local, bound.listeners[0].1), (local, local));
        let second = listener();
        let local = second.local_addr().unwrap();
        let _taken = UdpSocket::bind(local).unwrap();
        let bound = bind_beside(second, &|_, text| lines.borrow_mut().push(text.to_owned())).unwrap();
        assert_eq!((bound.sockets.len(), bound.listeners[0].1), (0, local));
        assert!(lines.borrow()[0].contains(&local.to_string()), "{lines:?}");
    }

    #[test]
    fn ports_without_room_for_an_alternate_have_none() {
        let local = SocketAddr::from(([127, 0, 0, 1], u16::MAX));
        assert!(bind_alternate(local, u16::MAX, &quiet).is_none());
    }
}
