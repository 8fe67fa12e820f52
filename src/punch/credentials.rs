//! The credentials of both sides as checks need them, in one piece of memory: a session has them for as long as it lives.

use alloc::{boxed::Box, format};
use core::fmt;

use zeroize::Zeroizing;

use crate::wire::stun::Credentials;

/// Ours and the peer's.
pub(super) struct Both {
    /// The peer's fragment, a colon, our fragment, our password, the peer's password.
    text: Zeroizing<Box<str>>,
    /// Where the peer's fragment, ours, and our password end.
    ends: [usize; 3],
}

impl Both {
    pub(super) fn new(local: &Credentials, remote: &Credentials) -> Self {
        let text = format!("{}:{}{}{}", remote.ufrag, local.ufrag, local.password, remote.password);
        let username = remote.ufrag.len() + 1 + local.ufrag.len();
        let ends = [remote.ufrag.len(), username, username + local.password.len()];
        Self { text: Zeroizing::new(text.into()), ends }
    }

    /// As our checks name the peer and us.
    pub(super) fn username(&self) -> &str {
        &self.text[..self.ends[1]]
    }

    pub(super) fn remote_ufrag(&self) -> &str {
        &self.text[..self.ends[0]]
    }

    pub(super) fn local_ufrag(&self) -> &str {
        &self.text[self.ends[0] + 1..self.ends[1]]
    }

    pub(super) fn local_password(&self) -> &str {
        &self.text[self.ends[1]..self.ends[2]]
    }

    pub(super) fn remote_password(&self) -> &str {
        &self.text[self.ends[2]..]
    }
}

impl fmt::Debug for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Both({}, ..)", self.username())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found_again() {
        let of = |ufrag: &str, password: &str| Credentials { ufrag: ufrag.into(), password: password.into() };
        let both = Both::new(&of("ours", "our password"), &of("the-peer's", "its password"));
        assert_eq!(both.username(), "the-peer's:ours");
        assert_eq!((both.local_ufrag(), both.local_password()), ("ours", "our password"));
        assert_eq!((both.remote_ufrag(), both.remote_password()), ("the-peer's", "its password"));
        assert_eq!(format!("{both:?}"), "Both(the-peer's:ours, ..)");
    }
}
