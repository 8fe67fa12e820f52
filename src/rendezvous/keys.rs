//! Keys of a session, made by the two peers from what the server carries between them.
//!
//! The listener registers an X25519 public key, the connector sends a fresh one. From the shared secret, the
//! session id, both public keys and the optional secret of the application, HKDF-SHA-256 (RFC 5869) makes two
//! pairs of ICE credentials, one for each role (a single pair would let a check be reflected to its sender), and
//! a control key for the messages beside the checks. The username fragments leave the application's secret out:
//! a check with a known fragment and a wrong integrity shows that the secrets differ.

use alloc::{string::String, vec::Vec};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    config::MIN_SECRET,
    error::{Error, ErrorKind},
    machine::Random,
    wire::stun::{Credentials, SessionId},
};

/// A secret that both applications know and the server does not; at least 16 bytes.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the secret's bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when there are fewer than 16: a hostile server could guess it.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.len() < MIN_SECRET {
            return Err(Error::new(ErrorKind::InvalidArgument, "the secret is shorter than 16 bytes")
                .with_hint("use 16 random bytes or more; a short secret could be guessed by the server"));
        }
        Ok(Self(bytes))
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl core::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("KeyPair(..)")
    }
}

/// One side's X25519 key pair.
pub(crate) struct KeyPair {
    secret: StaticSecret,
    public: [u8; 32],
}

impl KeyPair {
    pub(crate) fn generate(random: &mut Random) -> Self {
        let mut bytes = random.bytes();
        let secret = StaticSecret::from(bytes);
        bytes.zeroize();
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    pub(crate) fn public(&self) -> &[u8; 32] {
        &self.public
    }
}

/// Everything that one session is protected with.
#[derive(Debug)]
pub(crate) struct SessionKeys {
    pub(crate) connector: Credentials,
    pub(crate) listener: Credentials,
    pub(crate) control: Zeroizing<[u8; 32]>,
}

impl SessionKeys {
    /// Derives the keys; `None` when the other public key is one of the few whose shared secret is all zero.
    pub(crate) fn derive(
        own: &KeyPair,
        connector: &[u8; 32],
        listener: &[u8; 32],
        session: &SessionId,
        secret: Option<&Secret>,
    ) -> Option<Self> {
        let theirs = if own.public() == connector { listener } else { connector };
        let shared = own.secret.diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() {
            return None;
        }
        let open = Hkdf::<Sha256>::new(Some(&session.0), shared.as_bytes());
        let mut material = Zeroizing::new(shared.as_bytes().to_vec());
        if let Some(secret) = secret {
            material.extend_from_slice(&secret.0);
        }
        let closed = Hkdf::<Sha256>::new(Some(&session.0), &material);
        let credentials = |role: &str| {
            let mut ufrag = [0; 6];
            let mut password = Zeroizing::new([0; 24]);
            expand(&open, &mut ufrag, &["holepunch 1 ufrag ", role], connector, listener);
            expand(&closed, &mut password[..], &["holepunch 1 password ", role], connector, listener);
            Credentials { ufrag: ice_chars(&ufrag), password: ice_chars(&password[..]) }
        };
        let mut control = Zeroizing::new([0; 32]);
        expand(&closed, &mut control[..], &["holepunch 1 control"], connector, listener);
        Some(Self { connector: credentials("connector"), listener: credentials("listener"), control })
    }
}

/// HKDF-Expand with the label and both public keys as info.
fn expand(hkdf: &Hkdf<Sha256>, out: &mut [u8], label: &[&str], connector: &[u8; 32], listener: &[u8; 32]) {
    let mut info: Vec<&[u8]> = label.iter().map(|part| part.as_bytes()).collect();
    info.push(connector);
    info.push(listener);
    hkdf.expand_multi_info(&info, out)
        .unwrap_or_else(|_| unreachable!("every output here is shorter than HKDF's 8,160 bytes"));
}

/// Base64 (RFC 4648) without padding, whose alphabet is that of `ice-char` (RFC 8839); three bytes to four characters.
fn ice_chars(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len() / 3 * 4);
    for chunk in bytes.chunks_exact(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[bits >> shift & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret_connector: Option<&str>, secret_listener: Option<&str>) -> (SessionKeys, SessionKeys) {
        let mut random = Random::new([7; 32]);
        let (connector, listener) = (KeyPair::generate(&mut random), KeyPair::generate(&mut random));
        let session = SessionId([9; 16]);
        let secret = |text: Option<&str>| text.map(|text| Secret::new(text.as_bytes()).unwrap());
        let derive = |own, secret: Option<Secret>| {
            SessionKeys::derive(own, connector.public(), listener.public(), &session, secret.as_ref()).unwrap()
        };
        (derive(&connector, secret(secret_connector)), derive(&listener, secret(secret_listener)))
    }

    #[test]
    fn both_sides_derive_the_same_keys() {
        let (a, b) = keys(Some("sixteen bytes or more"), Some("sixteen bytes or more"));
        assert_eq!(a.connector.ufrag, b.connector.ufrag);
        assert_eq!(a.connector.password, b.connector.password);
        assert_eq!(a.listener.password, b.listener.password);
        assert_eq!(*a.control, *b.control);
        assert_ne!(a.connector.ufrag, a.listener.ufrag);
        assert_eq!((a.connector.ufrag.len(), a.connector.password.len()), (8, 32));
    }

    #[test]
    fn another_secret_leaves_the_fragments_and_changes_the_passwords() {
        let (a, b) = keys(Some("sixteen bytes or more"), None);
        assert_eq!(a.connector.ufrag, b.connector.ufrag);
        assert_ne!(a.connector.password, b.connector.password);
        assert_ne!(*a.control, *b.control);
    }

    #[test]
    fn a_public_key_of_small_order_is_refused() {
        let mut random = Random::new([7; 32]);
        let own = KeyPair::generate(&mut random);
        assert!(SessionKeys::derive(&own, own.public(), &[0; 32], &SessionId([1; 16]), None).is_none());
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(Secret::new(*b"fifteen bytes..").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
