//! The statuses that functions return.
//!
//! `ErrorKind` of the Rust API is where the numbers come from. The header needs them as literals; the assertions
//! below, in every build, and a test over the header hold them to it.

use std::{
    ffi::{CString, c_char},
    sync::LazyLock,
};

use holepunch_core::ErrorKind;

/// The call did what was asked.
pub const HOLEPUNCH_OK: i32 = 0;
/// An argument cannot be right, whatever the network does.
pub const HOLEPUNCH_ERROR_INVALID_ARGUMENT: i32 = 1;
/// The local address or port is in use by another program.
pub const HOLEPUNCH_ERROR_ADDRESS_IN_USE: i32 = 2;
/// The operating system refused; the error carries its number.
pub const HOLEPUNCH_ERROR_IO: i32 = 3;
/// The server's host name could not be resolved.
pub const HOLEPUNCH_ERROR_UNRESOLVABLE: i32 = 4;
/// No route to the server, or the system refused to send to it.
pub const HOLEPUNCH_ERROR_SERVER_UNREACHABLE: i32 = 5;
/// The server did not answer for 5 seconds.
pub const HOLEPUNCH_ERROR_SERVER_SILENT: i32 = 6;
/// The server answered something that cannot be used, or is at one of its limits.
pub const HOLEPUNCH_ERROR_SERVER_REFUSED: i32 = 7;
/// No listener of that name or address is registered.
pub const HOLEPUNCH_ERROR_NOT_FOUND: i32 = 8;
/// Several unnamed listeners share the address.
pub const HOLEPUNCH_ERROR_AMBIGUOUS: i32 = 9;
/// Another listener holds the name.
pub const HOLEPUNCH_ERROR_NAME_TAKEN: i32 = 10;
/// The peer has another secret.
pub const HOLEPUNCH_ERROR_WRONG_SECRET: i32 = 11;
/// The listener does not offer the transport asked for.
pub const HOLEPUNCH_ERROR_TRANSPORT_MISMATCH: i32 = 12;
/// The other side speaks another version of the protocol.
pub const HOLEPUNCH_ERROR_VERSION_MISMATCH: i32 = 13;
/// No direct path can exist between the two networks.
pub const HOLEPUNCH_ERROR_NO_PATH: i32 = 14;
/// The deadline has passed.
pub const HOLEPUNCH_ERROR_TIMEOUT: i32 = 15;
/// The operation was cancelled through its token.
pub const HOLEPUNCH_ERROR_CANCELLED: i32 = 16;
/// The handle was closed, by this program or by an orderly end of the peer.
pub const HOLEPUNCH_ERROR_CLOSED: i32 = 17;
/// The connected peer has answered nothing for 30 seconds (RFC 7675).
pub const HOLEPUNCH_ERROR_LOST: i32 = 18;
/// The handle is not connected yet. Reserved: today's handles exist only when connected; for handles that are
/// opened before they connect, should there be such an interface.
pub const HOLEPUNCH_ERROR_NOT_CONNECTED: i32 = 19;
/// The datagram is larger than the path carries.
pub const HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE: i32 = 20;
/// The handle was made before a fork and is used in the child.
pub const HOLEPUNCH_ERROR_FORKED: i32 = 21;
/// A call on this handle panicked before; only freeing it is possible.
pub const HOLEPUNCH_ERROR_POISONED: i32 = 22;
/// This build, or this version, cannot do it.
pub const HOLEPUNCH_ERROR_UNSUPPORTED: i32 = 23;
/// A limit of this library was reached.
pub const HOLEPUNCH_ERROR_LIMIT_REACHED: i32 = 24;
/// The peer speaks the text protocol of 2015 only. Reserved: endpoints of this library are not introduced to such
/// peers.
pub const HOLEPUNCH_ERROR_LEGACY_PEER: i32 = 25;

const _: () = {
    assert!(HOLEPUNCH_ERROR_INVALID_ARGUMENT == ErrorKind::InvalidArgument.code());
    assert!(HOLEPUNCH_ERROR_ADDRESS_IN_USE == ErrorKind::AddressInUse.code());
    assert!(HOLEPUNCH_ERROR_IO == ErrorKind::Io.code());
    assert!(HOLEPUNCH_ERROR_UNRESOLVABLE == ErrorKind::Unresolvable.code());
    assert!(HOLEPUNCH_ERROR_SERVER_UNREACHABLE == ErrorKind::ServerUnreachable.code());
    assert!(HOLEPUNCH_ERROR_SERVER_SILENT == ErrorKind::ServerSilent.code());
    assert!(HOLEPUNCH_ERROR_SERVER_REFUSED == ErrorKind::ServerRefused.code());
    assert!(HOLEPUNCH_ERROR_NOT_FOUND == ErrorKind::NotFound.code());
    assert!(HOLEPUNCH_ERROR_AMBIGUOUS == ErrorKind::Ambiguous.code());
    assert!(HOLEPUNCH_ERROR_NAME_TAKEN == ErrorKind::NameTaken.code());
    assert!(HOLEPUNCH_ERROR_WRONG_SECRET == ErrorKind::WrongSecret.code());
    assert!(HOLEPUNCH_ERROR_TRANSPORT_MISMATCH == ErrorKind::TransportMismatch.code());
    assert!(HOLEPUNCH_ERROR_VERSION_MISMATCH == ErrorKind::VersionMismatch.code());
    assert!(HOLEPUNCH_ERROR_NO_PATH == ErrorKind::NoPath.code());
    assert!(HOLEPUNCH_ERROR_TIMEOUT == ErrorKind::Timeout.code());
    assert!(HOLEPUNCH_ERROR_CANCELLED == ErrorKind::Cancelled.code());
    assert!(HOLEPUNCH_ERROR_CLOSED == ErrorKind::Closed.code());
    assert!(HOLEPUNCH_ERROR_LOST == ErrorKind::Lost.code());
    assert!(HOLEPUNCH_ERROR_NOT_CONNECTED == ErrorKind::NotConnected.code());
    assert!(HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE == ErrorKind::MessageTooLarge.code());
    assert!(HOLEPUNCH_ERROR_FORKED == ErrorKind::Forked.code());
    assert!(HOLEPUNCH_ERROR_POISONED == ErrorKind::Poisoned.code());
    assert!(HOLEPUNCH_ERROR_UNSUPPORTED == ErrorKind::Unsupported.code());
    assert!(HOLEPUNCH_ERROR_LIMIT_REACHED == ErrorKind::LimitReached.code());
    assert!(HOLEPUNCH_ERROR_LEGACY_PEER == ErrorKind::LegacyPeer.code());
    assert!(ErrorKind::ALL.len() == 25);
};

/// The names with the NUL that C wants at their end.
static NAMES: LazyLock<Vec<(i32, CString)>> =
    LazyLock::new(|| ErrorKind::ALL.iter().map(|kind| (kind.code(), crate::error::c_string(kind.name()))).collect());

/// Returns the name of a status in snake case, such as "not_found"; "ok" for HOLEPUNCH_OK and "unknown" for a number
/// that is no status of this library.
///
/// The names are those of the "kind" field of the command line's events. The text is static: never NULL, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn holepunch_status_name(status: i32) -> *const c_char {
    if status == HOLEPUNCH_OK {
        return c"ok".as_ptr();
    }
    NAMES.iter().find(|(code, _)| *code == status).map_or(c"unknown".as_ptr(), |(_, name)| name.as_ptr())
}
