//! The roles of the two sides, and what is done when both claim the same one (RFC 8445 sections 6.1.1 and 7.3.1.1).

use crate::wire::stun::Message;

/// Which side makes the choice (RFC 8445 section 6.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Chooses the pair; here the connector.
    Controlling,
    /// Follows; here the listener.
    Controlled,
}

impl Role {
    /// The RFC's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Controlling => "controlling",
            Self::Controlled => "controlled",
        }
    }

    /// The role of the other side.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Controlling => Self::Controlled,
            Self::Controlled => Self::Controlling,
        }
    }

    /// What to do about the role that a check claims for its sender.
    pub(super) fn meet(self, tie_breaker: u64, check: &Message<'_>) -> Conflict {
        let theirs = match self {
            Self::Controlling => check.ice_controlling(),
            Self::Controlled => check.ice_controlled(),
        };
        let Some(theirs) = theirs else { return Conflict::None };
        // The greater one is to control.
        let we_control = tie_breaker >= theirs;
        if we_control == (self == Self::Controlling) { Conflict::Refuse } else { Conflict::Switch }
    }
}

/// Whether both sides claim the same role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    None,
    /// We keep ours: the check is refused with 487, and the other side takes the opposite one.
    Refuse,
    /// We take the opposite one.
    Switch,
}
