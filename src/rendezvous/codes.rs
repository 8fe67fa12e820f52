//! The error codes of our own methods, and what a client makes of them.

use crate::{Error, ErrorKind};

/// The cookie is missing, or the registration is not known; the answer carries a cookie.
pub(crate) const UNAUTHENTICATED: u16 = 401;
/// The id belongs to a registration with another key.
pub(crate) const FORBIDDEN: u16 = 403;
/// No such listener.
pub(crate) const NOT_FOUND: u16 = 404;
/// The name is taken.
pub(crate) const NAME_TAKEN: u16 = 409;
/// Several listeners at that address.
pub(crate) const AMBIGUOUS: u16 = 410;
/// The listener does not offer the transport.
pub(crate) const TRANSPORT_MISMATCH: u16 = 415;
/// An attribute that must be understood is not.
pub(crate) const UNKNOWN_ATTRIBUTE: u16 = 420;
/// The server speaks another version.
pub(crate) const VERSION_MISMATCH: u16 = 426;
/// The cookie is too old, or the address is new; the answer carries a cookie.
pub(crate) const STALE_NONCE: u16 = 438;
/// A limit of the server.
pub(crate) const INSUFFICIENT_CAPACITY: u16 = 508;

/// The kind of error that an answer means to the caller.
pub(crate) const fn kind(code: u16) -> ErrorKind {
    match code {
        NOT_FOUND => ErrorKind::NotFound,
        NAME_TAKEN => ErrorKind::NameTaken,
        AMBIGUOUS => ErrorKind::Ambiguous,
        TRANSPORT_MISMATCH => ErrorKind::TransportMismatch,
        VERSION_MISMATCH => ErrorKind::VersionMismatch,
        _ => ErrorKind::ServerRefused,
    }
}

/// Of what several servers said, the most telling: a refusal, then that nobody is there, then silence.
pub(crate) fn most_telling<'a>(errors: impl Iterator<Item = &'a Error>) -> Option<Error> {
    const LEAST: [ErrorKind; 3] = [ErrorKind::ServerUnreachable, ErrorKind::ServerSilent, ErrorKind::NotFound];
    let rank = |error: &&Error| LEAST.iter().position(|kind| *kind == error.kind()).unwrap_or(LEAST.len());
    errors.max_by_key(rank).cloned()
}
