//! Where packets to a peer leave from.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    Error, ErrorKind, Result,
    io::plain::{bind_error, datagram_socket},
};

/// The source with the unspecified address of the peer's family, where it is unspecified.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] where the two are of different families.
pub(super) fn source_toward(source: SocketAddr, peer: SocketAddr) -> Result<SocketAddr> {
    if source.is_ipv4() == peer.is_ipv4() {
        return Ok(source);
    }
    if !source.ip().is_unspecified() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} cannot be reached from {}, which is of another family", peer.ip(), source.ip()),
        )
        .with_hint("bind an address of the peer's family"));
    }
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Ok(SocketAddr::new(any, source.port()))
}

/// The concrete local address of packets from `source` to the peer. Connecting a datagram socket sends nothing.
pub(super) fn local_address(source: SocketAddr, peer: SocketAddr) -> io::Result<IpAddr> {
    let probe = datagram_socket(peer)?;
    probe.bind(&SocketAddr::new(source.ip(), 0).into())?;
    probe.connect(&peer.into())?;
    Ok(probe.local_addr()?.as_socket().map_or(source.ip(), |local| local.ip()))
}

/// Refuses a peer that is the own address: a stream connects to itself if it is asked to, and greetings come back.
///
/// # Errors
/// [`ErrorKind::NoPath`].
pub(super) fn refuse_oneself(source: SocketAddr, peer: SocketAddr) -> Result<()> {
    // Where there is no route now, the attempts will tell.
    if source.port() == peer.port() && local_address(source, peer).is_ok_and(|local| local == peer.ip()) {
        return Err(oneself(peer));
    }
    Ok(())
}

pub(super) fn oneself(peer: SocketAddr) -> Error {
    let message = format!("the peer's address {} port {} is this program's own", peer.ip(), peer.port());
    Error::new(ErrorKind::NoPath, message)
        .with_hint("two programs on one machine need two addresses: give each its own bind address")
}

/// As [`bind_error`], for a port that both sides were told and that nobody here chose.
pub(super) fn port_error(protocol: &str, source: SocketAddr, error: &io::Error) -> Error {
    let failed = bind_error(protocol, source, error);
    if failed.kind() == ErrorKind::AddressInUse {
        return failed.with_hint("the server tells both peers this port; end the program that has it");
    }
    failed
}
