//! The system's randomness.

use crate::{Error, ErrorKind, Result, machine::Random};

/// A fresh seed.
///
/// # Errors
/// [`ErrorKind::Io`] when the system has no random bytes.
pub(super) fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Error::new(ErrorKind::Io, format!("the system gives no random bytes: {error}")))?;
    Ok(seed)
}

/// A generator with a fresh seed, for one call.
///
/// # Errors
/// [`ErrorKind::Io`] when the system has no random bytes.
pub(crate) fn random() -> Result<Random> {
    seed().map(Random::new)
}
