//! What the operating system's errors mean here.
//!
//! A datagram socket reports what routers and hosts said about *earlier* datagrams (ICMP) on the next call. Such a
//! report is about one datagram of many: it is as if that datagram had been lost, and whoever needs an answer
//! sends again.

use std::{borrow::Cow, io, net::SocketAddr};

use crate::{Error, ErrorKind};

/// An [`ErrorKind::Io`] that says what was tried.
pub(crate) fn os_error(what: impl Into<Cow<'static, str>>, error: &io::Error) -> Error {
    let what: Cow<'static, str> = what.into();
    Error::new(ErrorKind::Io, format!("{what}: {error}")).with_os_code(error.raw_os_error())
}

/// Why an address could not be bound.
pub(crate) fn bind_error(protocol: &str, address: SocketAddr, error: &io::Error) -> Error {
    let kind = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => ErrorKind::AddressInUse,
        Some(libc::EADDRNOTAVAIL | libc::EACCES) => ErrorKind::InvalidArgument,
        Some(_) | None => ErrorKind::Io,
    };
    let failed = os_error(format!("cannot bind {protocol} {address}"), error);
    let failed_as = Error::new(kind, failed.message().to_owned()).with_os_code(error.raw_os_error());
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => failed_as.with_hint("bind an address of this machine, or 0.0.0.0 or [::]"),
        Some(libc::EACCES) => failed_as.with_hint("choose a port from 1024 on, or let the system choose with port 0"),
        Some(_) | None => failed_as,
    }
}

/// Whether an error of send or receive means no more than that a datagram was lost.
pub(crate) fn is_loss(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::ECONNRESET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::ENOBUFS
        )
    )
}

/// The same for send: also where our address is this host's no more, or a rule is against it.
pub(super) fn is_loss_in_sending(error: &io::Error) -> bool {
    is_loss(error) || is_unreachable(error)
}

/// Whether the system would not send to this address at all: no route, no address of ours, or a rule against it.
pub(crate) fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EADDRNOTAVAIL
                | libc::EDESTADDRREQ
                | libc::EACCES
                | libc::EPERM
                | libc::EINVAL
        )
    )
}

/// Whether a non-blocking call found nothing to do.
pub(crate) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Whether a signal handler ran and the call is to be repeated.
pub(crate) fn interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

/// Whether the other side itself refused a connect, or ended it.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ECONNRESET))
}
