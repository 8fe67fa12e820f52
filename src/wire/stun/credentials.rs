//! Short-term credentials (RFC 8489 section 9.1), as ICE uses them (RFC 8445 section 5.3).

use alloc::string::String;
use core::fmt;

use zeroize::Zeroize as _;

/// What the peer of one side names and signs its checks with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The username fragment: 8 characters of ours; any ICE peer's has 4 to 256.
    pub ufrag: String,
    /// The password: 32 characters of ours; any ICE peer's has 22 to 256.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ..)", self.ufrag)
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}
