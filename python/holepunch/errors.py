"""Exceptions: one class for each kind of error, under families that say who can mend it.

The kinds, their numbers and their advice are those of the Rust core (`ErrorKind`), the C statuses and the `kind`
field of the command line's events. All are Exceptions and none is an OSError; the operating system's number, where it
was the cause, is in `os_errno`.

    HolepunchError
    ├── InvalidArgumentError (ValueError)
    │   └── MessageTooLargeError
    ├── LocalError                  this machine
    │   ├── AddressInUseError, SystemCallError, LimitReachedError
    ├── ServerError                 the rendezvous server
    │   ├── UnresolvableError, ServerUnreachableError, ServerSilentError, ServerRefusedError
    ├── NotFoundError               the listener
    │   └── AmbiguousError
    ├── RefusedError                the other side said no
    │   ├── NameTakenError, WrongSecretError, TransportMismatchError, VersionMismatchError
    ├── NoPathError                 the networks between
    ├── TimeoutError (builtins.TimeoutError)
    ├── CancelledError
    ├── HandleError                 the object
    │   ├── ClosedError, NotConnectedError (AttributeError), ForkedError, PoisonedError
    ├── LostError                   the peer vanished
    ├── LegacyPeerError             the peer is of 2015
    └── UnsupportedError
"""

import builtins
from typing import Dict, Optional, Tuple, Type

__all__ = [
    "AddressInUseError",
    "AmbiguousError",
    "CancelledError",
    "ClosedError",
    "ForkedError",
    "HandleError",
    "HolepunchError",
    "InvalidArgumentError",
    "LegacyPeerError",
    "LimitReachedError",
    "LocalError",
    "LostError",
    "MessageTooLargeError",
    "NameTakenError",
    "NoPathError",
    "NotConnectedError",
    "NotFoundError",
    "PoisonedError",
    "RefusedError",
    "ServerError",
    "ServerRefusedError",
    "ServerSilentError",
    "ServerUnreachableError",
    "SystemCallError",
    "TimeoutError",
    "TransportMismatchError",
    "UnresolvableError",
    "UnsupportedError",
    "VersionMismatchError",
    "WrongSecretError",
]


class HolepunchError(Exception):
    """Root of every error of this package. Its text is `message; hint`."""

    code: int = 0
    """The stable number of the kind, as in C; 0 where the class is only a family."""
    kind: str = ""
    """The stable name of the kind, as in the command line's events."""
    message: str = ""
    """What failed, and to whom."""
    hint: str = ""
    """What to try."""
    os_errno: Optional[int] = None
    """The operating system's error number, where it was the cause."""
    strategies: Tuple[str, ...] = ()
    """Which ways to a path were tried in vain, named as in `Path.strategy`."""

    def __init__(self, message: str = "", hint: str = "", os_errno: Optional[int] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.os_errno = os_errno

    def __str__(self) -> str:
        return "; ".join(part for part in (self.message, self.hint) if part)


class InvalidArgumentError(HolepunchError, ValueError):
    """An argument cannot be right, whatever the network does."""

    code = 1
    kind = "invalid_argument"


class MessageTooLargeError(InvalidArgumentError):
    """The datagram is larger than the path, or the buffer, carries."""

    code = 20
    kind = "message_too_large"


class LocalError(HolepunchError):
    """Something on this machine is in the way."""


class AddressInUseError(LocalError):
    """The local address or port is in use by another program."""

    code = 2
    kind = "address_in_use"


class SystemCallError(LocalError):
    """The operating system refused; `os_errno` says why."""

    code = 3
    kind = "io"


class LimitReachedError(LocalError):
    """A limit of this library was reached."""

    code = 24
    kind = "limit_reached"


class ServerError(HolepunchError):
    """The rendezvous server cannot be used."""


class UnresolvableError(ServerError):
    """The server's host name could not be resolved."""

    code = 4
    kind = "unresolvable"


class ServerUnreachableError(ServerError):
    """No route to the server, or the system refused to send to it."""

    code = 5
    kind = "server_unreachable"


class ServerSilentError(ServerError):
    """The server did not answer for 5 seconds."""

    code = 6
    kind = "server_silent"


class ServerRefusedError(ServerError):
    """The server answered something that cannot be used, or is at one of its limits."""

    code = 7
    kind = "server_refused"


class NotFoundError(HolepunchError):
    """No listener of that name or address is registered."""

    code = 8
    kind = "not_found"


class AmbiguousError(NotFoundError):
    """Several unnamed listeners share the address."""

    code = 9
    kind = "ambiguous"


class RefusedError(HolepunchError):
    """The server or the peer said no, for a reason that waiting alone does not mend."""


class NameTakenError(RefusedError):
    """Another listener holds the name."""

    code = 10
    kind = "name_taken"


class WrongSecretError(RefusedError):
    """The peer has another secret."""

    code = 11
    kind = "wrong_secret"


class TransportMismatchError(RefusedError):
    """The listener does not offer the transport asked for."""

    code = 12
    kind = "transport_mismatch"


class VersionMismatchError(RefusedError):
    """The other side speaks another version of the protocol."""

    code = 13
    kind = "version_mismatch"


class NoPathError(HolepunchError):
    """No direct path can exist between the two networks."""

    code = 14
    kind = "no_path"


class TimeoutError(HolepunchError, builtins.TimeoutError):
    """The deadline has passed. The one error that is an OSError too, because the built-in TimeoutError is one."""

    code = 15
    kind = "timeout"


class CancelledError(HolepunchError):
    """The call was cancelled through its `Cancel`."""

    code = 16
    kind = "cancelled"


class HandleError(HolepunchError):
    """The object cannot do this in the state that it is in."""


class ClosedError(HandleError):
    """The object was closed, by this program or by an orderly end of the peer."""

    code = 17
    kind = "closed"


class LostError(HolepunchError):
    """The connected peer has answered nothing for 30 seconds (RFC 7675)."""

    code = 18
    kind = "lost"


class LegacyPeerError(HolepunchError):
    """The peer speaks the text protocol of 2015 only; it is met in another way. Only an endpoint made for that is told."""

    code = 25
    kind = "legacy_peer"

    peer: Optional[Tuple[str, int]] = None
    """Where the peer is: it punches from and to this port, and expects the same."""


class NotConnectedError(HandleError, AttributeError):
    """The object is not connected yet. An AttributeError, as in 2015."""

    code = 19
    kind = "not_connected"


class ForkedError(HandleError):
    """The object was made before a fork and is used in the child."""

    code = 21
    kind = "forked"


class PoisonedError(HandleError):
    """A call on this object panicked before; it can only be dropped."""

    code = 22
    kind = "poisoned"


class UnsupportedError(HolepunchError):
    """This build, or this version, cannot do it."""

    code = 23
    kind = "unsupported"


def _by_code(family: Type[HolepunchError]) -> Dict[int, Type[HolepunchError]]:
    table = {family.code: family} if family.code else {}
    for member in family.__subclasses__():
        table.update(_by_code(member))
    return table


_BY_CODE = _by_code(HolepunchError)


def _from_core(
    code: int,
    kind: str,
    message: str,
    hint: str,
    os_errno: Optional[int],
    legacy_peer: Optional[Tuple[str, int]] = None,
    strategies: Tuple[str, ...] = (),
) -> HolepunchError:
    """Makes the exception for an error of the core; the native module calls it."""
    error = _BY_CODE.get(code, HolepunchError)(message, hint, os_errno)
    error.code, error.kind, error.strategies = code, kind, strategies
    if isinstance(error, LegacyPeerError):
        error.peer = legacy_peer
    return error
