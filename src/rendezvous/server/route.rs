//! Where a message between two introduced peers goes: a sealed token that each gets for the other, so that the
//! server remembers nothing of an introduction.
//!
//! One kind names a registration, which moves with its listener; the other the address that a connector asked from.

use alloc::vec::Vec;

use super::registry::Seen;
use super::seal::{self, ADDRESS_LENGTH, SEAL_LENGTH};
use crate::{machine::SocketId, wire::stun::RegistrationId};

const REGISTRATION: u8 = 1;
const ADDRESS: u8 = 2;

/// Where a forwarded message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To wherever this listener is now.
    Registration(RegistrationId),
    /// To a client where it was seen.
    Address(Seen),
}

impl Route {
    /// Seals the route, dated with an epoch.
    pub(super) fn seal(&self, key: &[u8; 32], epoch: u32) -> Vec<u8> {
        let mut token = Vec::with_capacity(1 + 4 + 4 + 16 + ADDRESS_LENGTH + SEAL_LENGTH);
        match self {
            Self::Registration(id) => {
                token.push(REGISTRATION);
                token.extend_from_slice(&epoch.to_be_bytes());
                token.extend_from_slice(&id.0);
            }
            Self::Address(seen) => {
                token.push(ADDRESS);
                token.extend_from_slice(&epoch.to_be_bytes());
                token.extend_from_slice(&seen.socket.0.to_be_bytes());
                token.extend_from_slice(&seal::write_ip(seen.local));
                let mut bytes = [0; ADDRESS_LENGTH];
                seal::write_address(&mut bytes, seen.remote);
                token.extend_from_slice(&bytes);
            }
        }
        let mac = seal::seal(key, &[b"route", &token]);
        token.extend_from_slice(&mac);
        token
    }

    /// Opens a token; returns the route and its epoch when the seal is ours.
    pub(super) fn open(key: &[u8; 32], token: &[u8]) -> Option<(Self, u32)> {
        let (body, mac) = token.split_last_chunk::<SEAL_LENGTH>()?;
        if !seal::equal(&seal::seal(key, &[b"route", body]), mac) {
            return None;
        }
        let (&[kind, e0, e1, e2, e3], rest) = body.split_first_chunk()?;
        let route = match kind {
            REGISTRATION => Self::Registration(RegistrationId(rest.try_into().ok()?)),
            ADDRESS => {
                let (socket, rest) = rest.split_first_chunk()?;
                let (local, address) = rest.split_first_chunk()?;
                let remote = seal::read_address(address.try_into().ok()?)?;
                let local = seal::read_ip(local);
                Self::Address(Seen { socket: SocketId(u32::from_be_bytes(*socket)), local, remote })
            }
            _ => return None,
        };
        Some((route, u32::from_be_bytes([e0, e1, e2, e3])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stun::MAX_ROUTE;

    fn seen(local: &str, remote: &str) -> Route {
        Route::Address(Seen { socket: SocketId(1), local: local.parse().unwrap(), remote: remote.parse().unwrap() })
    }

    #[test]
    fn only_what_was_sealed_here_is_opened() {
        for route in [
            Route::Registration(RegistrationId([3; 16])),
            seen("192.0.2.9", "192.0.2.1:5000"),
            seen("2001:db8::9", "[2001:db8::1]:5000"),
            seen("::", "[2001:db8::1]:5000"),
        ] {
            let mut token = route.seal(&[1; 32], 9);
            assert!(token.len() <= MAX_ROUTE);
            assert_eq!(Route::open(&[1; 32], &token), Some((route, 9)));
            assert_eq!(Route::open(&[2; 32], &token), None);
            token[6] ^= 1;
            assert_eq!(Route::open(&[1; 32], &token), None);
            assert_eq!(Route::open(&[1; 32], &token[..10]), None);
        }
    }
}
