//! Proof that a client can receive where it says it is, without state: the NONCE of a challenge is an HMAC over the
//! client's address, the id its request is about and the time, and comes back with the repeated request.
//!
//! A cookie is good during the epoch it was made in and the next, so for one to two epochs. The key may be shared by
//! several servers.

use core::{net::SocketAddr, time::Duration};

use super::seal;
use crate::machine::Instant;

/// Bytes of a cookie: the epoch and a truncated HMAC-SHA-256.
pub(crate) const COOKIE_LENGTH: usize = 4 + seal::SEAL_LENGTH;

/// Makes and verifies cookies.
pub(super) struct Cookies {
    key: [u8; 32],
    epoch: Duration,
}

impl Cookies {
    pub(super) const fn new(key: [u8; 32], epoch: Duration) -> Self {
        Self { key, epoch }
    }

    /// The number of the current epoch; also what routes are dated with.
    pub(super) fn epoch(&self, now: Instant) -> u32 {
        let length = self.epoch.as_nanos().max(1);
        u32::try_from(u128::from(now.as_nanos()) / length).unwrap_or(u32::MAX)
    }

    /// Whether something dated then is still good.
    pub(super) fn is_fresh(&self, now: Instant, epoch: u32) -> bool {
        let current = self.epoch(now);
        epoch == current || epoch.checked_add(1) == Some(current)
    }

    /// The cookie for a client, and the id (of a registration or a session) that its request is about.
    pub(super) fn make(&self, now: Instant, client: SocketAddr, id: &[u8; 16]) -> [u8; COOKIE_LENGTH] {
        self.make_at(self.epoch(now), client, id)
    }

    fn make_at(&self, epoch: u32, client: SocketAddr, id: &[u8; 16]) -> [u8; COOKIE_LENGTH] {
        let epoch = epoch.to_be_bytes();
        let mut address = [0; seal::ADDRESS_LENGTH];
        seal::write_address(&mut address, client);
        let mac = seal::seal(&self.key, &[b"cookie", &epoch, &address, id]);
        let mut cookie = [0; COOKIE_LENGTH];
        for (to, from) in cookie.iter_mut().zip(epoch.iter().chain(&mac)) {
            *to = *from;
        }
        cookie
    }

    /// Whether a NONCE is a cookie of ours for this client and id, and still good.
    pub(super) fn verify(&self, now: Instant, client: SocketAddr, id: &[u8; 16], nonce: &[u8]) -> bool {
        let Some((epoch, _)) = nonce.split_first_chunk() else { return false };
        let epoch = u32::from_be_bytes(*epoch);
        self.is_fresh(now, epoch) && seal::equal(&self.make_at(epoch, client, id), nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_client_its_id_and_its_time() {
        let cookies = Cookies::new([1; 32], Duration::from_secs(60));
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let client = "192.0.2.1:5000".parse().unwrap();
        let cookie = cookies.make(at(59), client, &[7; 16]);
        assert!(cookies.verify(at(59), client, &[7; 16], &cookie));
        assert!(cookies.verify(at(119), client, &[7; 16], &cookie));
        assert!(!cookies.verify(at(120), client, &[7; 16], &cookie));
        assert!(!cookies.verify(at(59), client, &[8; 16], &cookie));
        assert!(!cookies.verify(at(59), "192.0.2.1:5001".parse().unwrap(), &[7; 16], &cookie));
        assert!(!cookies.verify(at(59), client, &[7; 16], &cookie[..19]));
        assert!(!cookies.verify(at(59), client, &[7; 16], b""));
    }
}
