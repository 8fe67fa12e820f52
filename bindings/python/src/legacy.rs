//! What the modules of 2015 leave to the core: deciding what a server speaks, and meeting the peers that it has.
//!
//! Addresses are those of Python's sockets, an IP address and a port; the empty host is the unspecified one. The results
//! are plain sockets, blocking.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use holepunch::{
    Error, ErrorKind,
    legacy::{Meeting, Socket, Verdict},
    peer::Transport,
};
use pyo3::prelude::*;

use crate::{
    failure::Result,
    plain,
    wait::{self, Cancel},
};

/// A stream to a peer of 2015, from a port that both were told. Tries until the timeout, in seconds; None is for ever.
#[pyfunction]
#[pyo3(signature = (source, peer, *, timeout=None, cancel=None))]
pub(crate) fn meet_stream<'py>(
    py: Python<'py>,
    source: (String, u16),
    peer: (String, u16),
    timeout: Option<f64>,
    cancel: Option<&Cancel>,
) -> Result<Bound<'py, PyAny>> {
    let (source, peer) = (address(source)?, address(peer)?);
    let met = wait::once(py, timeout.try_into()?, cancel, move |_, wait| {
        holepunch::legacy::meet_stream(source, peer, &wait)
    })?;
    plain::object(plain::class(py)?, met)
}

/// A socket for datagrams to a peer of 2015, which was greeted through it; returns after 3 seconds at most.
#[pyfunction]
#[pyo3(signature = (source, peer, *, timeout=None, cancel=None))]
pub(crate) fn meet_datagram<'py>(
    py: Python<'py>,
    source: (String, u16),
    peer: (String, u16),
    timeout: Option<f64>,
    cancel: Option<&Cancel>,
) -> Result<Bound<'py, PyAny>> {
    let (source, peer) = (address(source)?, address(peer)?);
    let met = wait::once(py, timeout.try_into()?, cancel, move |_, wait| {
        holepunch::legacy::meet_datagram(source, peer, &wait)
    })?;
    plain::object(plain::class(py)?, met)
}

/// What the server at an address speaks: None for the current protocol, else a connection for the text of 2015, on which
/// nothing was sent. `bind` is the local address to ask from, empty for any.
#[pyfunction]
#[pyo3(signature = (server, bind, *, timeout=None, cancel=None))]
pub(crate) fn decide<'py>(
    py: Python<'py>,
    server: (String, u16),
    bind: String,
    timeout: Option<f64>,
    cancel: Option<&Cancel>,
) -> Result<Option<Bound<'py, PyAny>>> {
    let server = address(server)?;
    let bind = if bind.is_empty() { None } else { Some(ip(&bind)?) };
    let verdict =
        wait::once(py, timeout.try_into()?, cancel, move |_, wait| holepunch::legacy::decide(server, bind, &wait))?;
    match verdict {
        Verdict::Current => Ok(None),
        Verdict::Text(stream) => Ok(Some(plain::object(plain::class(py)?, stream)?)),
    }
}

/// A peer that a current server introduces, as a connected socket and the peer's address: the listener at `host`, or
/// without one the first who connects. `source` has the port that is used as long as it is free. A peer of 2015 is a
/// `LegacyPeerError`, and then to be met as one. Waits until the timeout, in seconds; None is for ever.
#[pyfunction]
#[pyo3(signature = (server, source, host, datagrams, *, timeout=None, cancel=None))]
pub(crate) fn meet_current<'py>(
    py: Python<'py>,
    server: (String, u16),
    source: (String, u16),
    host: Option<String>,
    datagrams: bool,
    timeout: Option<f64>,
    cancel: Option<&Cancel>,
) -> Result<(Bound<'py, PyAny>, (String, u16))> {
    let meeting = Meeting {
        server: address(server)?,
        source: address(source)?,
        destination: host.as_deref().map(ip).transpose()?,
        transport: if datagrams { Transport::Udp } else { Transport::Tcp },
    };
    let met =
        wait::once(py, timeout.try_into()?, cancel, move |_, wait| holepunch::legacy::meet_current(&meeting, &wait))?;
    let class = plain::class(py)?;
    let socket = match met.socket {
        Socket::Stream(stream) => plain::object(class, stream)?,
        Socket::Datagrams(socket) => plain::object(class, socket)?,
    };
    Ok((socket, (met.peer.ip().to_string(), met.peer.port())))
}

fn address((host, port): (String, u16)) -> Result<SocketAddr> {
    Ok(SocketAddr::new(if host.is_empty() { Ipv4Addr::UNSPECIFIED.into() } else { ip(&host)? }, port))
}

fn ip(host: &str) -> Result<IpAddr> {
    host.parse().map_err(|_| {
        Error::new(ErrorKind::InvalidArgument, format!("{host:?} is no IP address"))
            .with_hint("look names up first")
            .into()
    })
}
