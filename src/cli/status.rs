//! What the program exits with. Scripts rely on these numbers.

use crate::ErrorKind;

/// Everything ended cleanly.
pub(super) const OK: i32 = 0;
/// Any other error.
pub(super) const OTHER: i32 = 1;
/// The command line, the environment or the configuration cannot be right, or asks for what this version cannot do.
pub(super) const USAGE: i32 = 2;
/// No server could be reached, or it was silent.
pub(super) const SERVER: i32 = 3;
/// No such listener within `--wait`.
pub(super) const NOT_FOUND: i32 = 4;
/// The server or the peer refused.
pub(super) const REFUSED: i32 = 5;
/// No direct path exists.
pub(super) const NO_PATH: i32 = 6;
/// `--timeout`, or the `--wait` of `listen`, has passed.
pub(super) const TIMEOUT: i32 = 7;
/// Connected, then lost.
pub(super) const LOST: i32 = 8;
/// Ended by a signal: this plus its number.
pub(super) const SIGNAL: i32 = 128;

/// The status for a kind of error.
pub(super) const fn of(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::InvalidArgument | ErrorKind::Unsupported => USAGE,
        ErrorKind::Unresolvable | ErrorKind::ServerUnreachable | ErrorKind::ServerSilent => SERVER,
        ErrorKind::NotFound => NOT_FOUND,
        ErrorKind::ServerRefused
        | ErrorKind::NameTaken
        | ErrorKind::WrongSecret
        | ErrorKind::TransportMismatch
        | ErrorKind::VersionMismatch => REFUSED,
        ErrorKind::NoPath => NO_PATH,
        ErrorKind::Timeout => TIMEOUT,
        ErrorKind::Lost => LOST,
        ErrorKind::AddressInUse
        | ErrorKind::Io
        | ErrorKind::Ambiguous
        | ErrorKind::Cancelled
        | ErrorKind::Closed
        | ErrorKind::NotConnected
        | ErrorKind::MessageTooLarge
        | ErrorKind::Forked
        | ErrorKind::Poisoned
        | ErrorKind::LimitReached
        | ErrorKind::LegacyPeer => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_status() {
        let statuses: Vec<(&str, i32)> = ErrorKind::ALL.iter().map(|kind| (kind.name(), of(*kind))).collect();
        assert_eq!(
            statuses,
            [
                ("invalid_argument", 2),
                ("address_in_use", 1),
                ("io", 1),
                ("unresolvable", 3),
                ("server_unreachable", 3),
                ("server_silent", 3),
                ("server_refused", 5),
                ("not_found", 4),
                ("ambiguous", 1),
                ("name_taken", 5),
                ("wrong_secret", 5),
                ("transport_mismatch", 5),
                ("version_mismatch", 5),
                ("no_path", 6),
                ("timeout", 7),
                ("cancelled", 1),
                ("closed", 1),
                ("lost", 8),
                ("not_connected", 1),
                ("message_too_large", 1),
                ("forked", 1),
                ("poisoned", 1),
                ("unsupported", 2),
                ("limit_reached", 1),
                ("legacy_peer", 1),
            ]
        );
    }
}
