//! Sessions whose signalling is the program's own, for the calls of an agent.

use super::core::{Channel, Core, Negotiating};
use crate::{
    Error, ErrorKind, Result,
    peer::NegotiateRequest,
    wire::stun::{Credentials, SessionId},
};

impl Core {
    /// Begins one; its number, and what the peer is to be told of us.
    pub(crate) fn negotiate(&mut self, request: NegotiateRequest) -> Result<(SessionId, Credentials)> {
        self.check_open()?;
        self.look_at_interfaces();
        let session = self.peer.negotiate(self.clock.now(), request)?;
        let Some(credentials) = self.peer.local_credentials(session).cloned() else {
            return Err(ErrorKind::Closed.into());
        };
        self.connects.insert(session, None);
        self.negotiations.insert(session, Negotiating::default());
        self.drain();
        Ok((session, credentials))
    }

    /// The next of our candidates; within, `None` when there are no more.
    pub(crate) fn next_candidate(&mut self, session: SessionId) -> Option<Result<Option<String>>> {
        let gathered = self.gathered(session);
        if let Some(Err(error)) = gathered {
            return Some(Err(error));
        }
        let negotiation = self.negotiations.get_mut(&session)?;
        match negotiation.candidates.get(negotiation.given) {
            Some(candidate) => {
                negotiation.given += 1;
                Some(Ok(Some(candidate.clone())))
            }
            None => gathered.map(|_| Ok(None)),
        }
    }

    /// All our candidates, once there will be no more.
    pub(crate) fn local_candidates(&self, session: SessionId) -> Option<Result<Vec<String>>> {
        let known = || self.negotiations.get(&session).map(|negotiation| negotiation.candidates.clone());
        Some(self.gathered(session)?.map(|()| known().unwrap_or_default()))
    }

    /// Whether all our candidates are known, or why they will not be.
    fn gathered(&self, session: SessionId) -> Option<Result<()>> {
        if let Err(error) = self.check_open() {
            return Some(Err(error));
        }
        match (self.negotiations.get(&session), self.connects.get(&session)) {
            (None, _) => Some(Err(closed())),
            (Some(negotiation), _) if negotiation.is_gathered => Some(Ok(())),
            (_, Some(Some(Err(error)))) => Some(Err(error.clone())),
            (_, Some(_)) => None,
            // It has given its connection, and gathers no more.
            (_, None) => Some(Ok(())),
        }
    }

    /// Tells the peer's credentials.
    pub(crate) fn set_remote(&mut self, session: SessionId, remote: Credentials) -> Result<()> {
        self.check_negotiation(session)?;
        let told = self.peer.set_remote(self.clock.now(), session, remote);
        self.drain();
        told
    }

    /// Tells a candidate of the peer. What comes too late means nothing.
    pub(crate) fn add_remote_candidate(&mut self, session: SessionId, line: &str) -> Result<()> {
        self.check_negotiation(session)?;
        let told = self.peer.add_remote_candidate(self.clock.now(), session, line);
        self.drain();
        told
    }

    /// Tells that there are no more.
    pub(crate) fn end_of_remote_candidates(&mut self, session: SessionId) -> Result<()> {
        self.check_negotiation(session)?;
        self.peer.end_of_remote_candidates(self.clock.now(), session)
    }

    /// What became of it, once that is known. A failure is told again, the connection once.
    pub(crate) fn negotiated(&mut self, session: SessionId) -> Option<Result<Channel>> {
        if let Err(error) = self.check_open() {
            return Some(Err(error));
        }
        if let Some(Some(Err(error))) = self.connects.get(&session) {
            return Some(Err(error.clone()));
        }
        match self.connects.get_mut(&session) {
            None => Some(Err(closed())),
            Some(outcome) => {
                let outcome = outcome.take()?;
                self.connects.remove(&session);
                Some(outcome)
            }
        }
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget_negotiation(&mut self, session: SessionId) {
        self.changed = true;
        self.negotiations.remove(&session);
        self.forget_connect(session);
    }

    /// Fails where it was closed, or has failed.
    fn check_negotiation(&self, session: SessionId) -> Result<()> {
        self.check_open()?;
        if !self.negotiations.contains_key(&session) {
            return Err(closed());
        }
        match self.connects.get(&session) {
            Some(Some(Err(error))) => Err(error.clone()),
            Some(_) | None => Ok(()),
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the agent was closed by this program, or has given its connection")
}
