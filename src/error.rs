//! The one error of the crate: what failed, to whom, and what to try.
//!
//! [`ErrorKind`] is the single source of every error code: the C statuses, the Python exceptions and the
//! `kind` field of the command line's events are made from it. A number, once given, is never reused.

use alloc::{borrow::Cow, string::String};
use core::{fmt, net::SocketAddr};

/// Declares the kinds once: variant, number, snake-case name, default advice.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $hint:literal;)*) => {
        /// Why an operation failed. The numbers are stable: C statuses and Python exceptions carry them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* $variant,)* }

        impl ErrorKind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable number of this kind; the C API returns it as the status. Zero is never used: it means success.
            pub const fn code(self) -> i32 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The stable snake-case name of this kind, as in the command line's JSON events.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What to try, where nothing more specific is known.
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }
        }
    };
}

kinds! {
    /// An argument cannot be right, whatever the network does.
    InvalidArgument = 1, "invalid_argument", "correct the argument and try again";
    /// The local address or port is in use by another program.
    AddressInUse = 2, "address_in_use", "choose another port, or stop the program that holds it";
    /// The operating system refused; the error carries its number.
    Io = 3, "io", "see the system's message";
    /// The server's host name could not be resolved.
    Unresolvable = 4, "unresolvable", "check the server's name and this machine's DNS";
    /// No route to the server, or the system refused to send to it.
    ServerUnreachable = 5, "server_unreachable", "check the network and the server's address";
    /// The server did not answer for 5 seconds.
    ServerSilent = 6, "server_silent", "check that `holepunch server` runs there and that its UDP port is open";
    /// The server answered something that cannot be used, or is at one of its limits.
    ServerRefused = 7, "server_refused", "try again later, or use another server";
    /// No listener of that name or address is registered.
    NotFound = 8, "not_found", "start the listener first, or wait longer for it";
    /// Several unnamed listeners share the address.
    Ambiguous = 9, "ambiguous", "give the listeners names and connect by name";
    /// Another listener holds the name.
    NameTaken = 10, "name_taken", "choose another name, or wait until its holder has left";
    /// The peer has another secret.
    WrongSecret = 11, "wrong_secret", "give both sides the same secret";
    /// The listener does not offer the transport asked for.
    TransportMismatch = 12, "transport_mismatch", "use the transport that the listener offers";
    /// The other side speaks another version of the protocol.
    VersionMismatch = 13, "version_mismatch", "bring both sides and the server to the same major version";
    /// No direct path can exist between the two networks.
    NoPath = 14, "no_path", "use a network that allows UDP, or one with IPv4 and IPv6 on both sides";
    /// The deadline has passed.
    Timeout = 15, "timeout", "allow more time, or check both sides' networks";
    /// The operation was cancelled through its token.
    Cancelled = 16, "cancelled", "this was asked for by the program itself";
    /// The handle was closed, by this program or by an orderly end of the peer.
    Closed = 17, "closed", "open a new one";
    /// The connected peer has answered nothing for 30 seconds (RFC 7675).
    Lost = 18, "lost", "connect again";
    /// The handle is not connected yet. Reserved: today's handles exist only when connected; for handles that are
    /// opened before they connect, should there be such an interface.
    NotConnected = 19, "not_connected", "connect or accept first";
    /// The datagram is larger than the path carries.
    MessageTooLarge = 20, "message_too_large", "send at most 1,200 bytes in one datagram";
    /// The handle was made before a fork and is used in the child.
    Forked = 21, "forked", "make a new endpoint in the child process";
    /// A call on this handle panicked before; only freeing it is possible.
    Poisoned = 22, "poisoned", "free the handle, and report the panic as a bug";
    /// This build, or this version, cannot do it.
    Unsupported = 23, "unsupported", "see the documentation for what this version can do";
    /// A limit of this library was reached.
    LimitReached = 24, "limit_reached", "close what is no longer needed, or raise the limit in the configuration";
    /// The peer speaks the text protocol of 2015 only; the error carries its address.
    LegacyPeer = 25, "legacy_peer", "meet it as in 2015: from the port that its address has, without checks";
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What failed, to whom, and what to try.
///
/// `Display` gives `message; hint`. The parts can be had one by one, and the kind is what programs match on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    hint: Cow<'static, str>,
    os_code: Option<i32>,
    legacy_peer: Option<SocketAddr>,
    strategies: &'static [&'static str],
}

/// Shorthand for results with this crate's [`Error`].
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// Makes an error of `kind` that says `message`, with the kind's own advice.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: Cow::Borrowed(kind.hint()),
            os_code: None,
            legacy_peer: None,
            strategies: &[],
        }
    }

    /// Replaces the advice with a more specific one.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Attaches the operating system's error number.
    #[must_use]
    pub fn with_os_code(mut self, code: Option<i32>) -> Self {
        self.os_code = code;
        self
    }

    /// Says which ways to a path were tried.
    #[must_use]
    pub(crate) fn with_strategies(mut self, names: &'static [&'static str]) -> Self {
        self.strategies = names;
        self
    }

    /// The peer of 2015 at this address was introduced.
    #[cfg(feature = "std")]
    pub(crate) fn of_legacy_peer(peer: SocketAddr) -> Self {
        let message = alloc::format!("the peer at {peer} speaks the protocol of 2015 only");
        Self { legacy_peer: Some(peer), ..Self::new(ErrorKind::LegacyPeer, message) }
    }

    /// Why it failed; what programs match on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What failed, and to whom.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to try.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Where the peer of 2015 is ([`ErrorKind::LegacyPeer`]): it punches from and to this port, and expects the same.
    pub fn legacy_peer(&self) -> Option<SocketAddr> {
        self.legacy_peer
    }

    /// Which ways to a path were tried in vain, by the names of [`Strategy`](crate::peer::Strategy); empty where none was.
    pub fn strategies(&self) -> &'static [&'static str] {
        self.strategies
    }

    /// The operating system's error number (`errno`), where it was the cause.
    pub fn os_code(&self) -> Option<i32> {
        self.os_code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.hint)
    }
}

impl core::error::Error for Error {}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        let mut text = String::new();
        for (index, word) in kind.name().split('_').enumerate() {
            if index > 0 {
                text.push(' ');
            }
            text.push_str(word);
        }
        Self::new(kind, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeSet, string::ToString};

    #[test]
    fn codes_and_names_are_distinct_and_never_zero() {
        let codes: BTreeSet<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        let names: BTreeSet<_> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert_eq!(names.len(), ErrorKind::ALL.len());
        assert!(!codes.contains(&0));
    }

    #[test]
    fn display_says_what_and_what_to_try() {
        let error = Error::new(ErrorKind::NotFound, "no listener named \"bob\"");
        assert_eq!(error.to_string(), "no listener named \"bob\"; start the listener first, or wait longer for it");
    }
}
