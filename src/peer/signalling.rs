//! Sessions without a server to introduce the peers: the program carries credentials and candidates across itself, to
//! any agent of ICE.

use alloc::boxed::Box;

use super::{
    NegotiateRequest, Peer, check_bind,
    session::{Session, Signalled},
    sockets::{Owner, Wanted},
};
use crate::{
    Error, ErrorKind, Result,
    machine::Instant,
    punch::Arrival,
    wire::stun::{Class, Credentials, Message, Method, SessionId},
};

impl Peer {
    /// Begins a session whose signalling is the program's own.
    ///
    /// The peer is to be told our [`local_credentials`](Self::local_credentials) and the candidates that
    /// [`PeerEvent::LocalCandidate`](super::PeerEvent::LocalCandidate) brings until
    /// [`PeerEvent::Gathered`](super::PeerEvent::Gathered); of it we are told by [`set_remote`](Self::set_remote) and
    /// [`add_remote_candidate`](Self::add_remote_candidate), in whatever order. Then it is a session like a connector's:
    /// `Connected` or `Failed` follows. But nobody is told of its end; consent does it (RFC 7675).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the local addresses cannot be used.
    pub fn negotiate(&mut self, _now: Instant, request: NegotiateRequest) -> Result<SessionId> {
        check_bind(&request.bind)?;
        let id = SessionId(self.random.bytes());
        let wanted = Wanted::all(&request.bind, request.prefer_port);
        let ask = |wanted| self.sockets.ask(Owner::Session(id), wanted, &mut self.outputs);
        let sockets = wanted.into_iter().map(ask).collect();
        let tag = self.new_tag(id);
        let mut session = Session::new(id, None, sockets, tag);
        let signalled = Signalled::new(request, &mut self.random);
        if let Ok(ufrag) = signalled.local.ufrag.as_bytes().try_into() {
            self.by_ufrag.insert(ufrag, id);
        }
        session.signalled = Some(signalled.into());
        self.sessions.insert(id, Box::new(session));
        Ok(id)
    }

    /// What the peer of such a session is to be told of us.
    #[must_use]
    pub fn local_credentials(&self, session: SessionId) -> Option<&Credentials> {
        self.sessions.get(&session)?.signalled.as_ref().map(|signalled| &signalled.local)
    }

    /// Tells the peer's credentials; checks begin. To tell the same again changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when they cannot be anybody's; [`ErrorKind::Unsupported`] for others than before,
    /// which an ICE restart would bring; [`ErrorKind::Closed`] when the session is over.
    pub fn set_remote(&mut self, now: Instant, session: SessionId, remote: Credentials) -> Result<()> {
        self.with_session(now, session, |session, cx| session.set_remote(cx, remote)).unwrap_or_else(|| Err(gone()))
    }

    /// Tells a candidate of the peer, as a line of SDP ([`sdp`](crate::wire::sdp)). One that is of no use here, or one too
    /// many, is left out, and so is what comes after the path is found.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when it is no candidate; [`ErrorKind::Closed`] when the session is over.
    pub fn add_remote_candidate(&mut self, now: Instant, session: SessionId, line: &str) -> Result<()> {
        let added = self.with_session(now, session, |session, cx| session.add_told_candidate(cx, line));
        added.unwrap_or_else(|| Err(gone()))
    }

    /// Tells that these were all candidates of the peer; later ones are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when the session is over.
    pub fn end_of_remote_candidates(&mut self, now: Instant, session: SessionId) -> Result<()> {
        let ended = self.with_session(now, session, |session, _| session.end_told_candidates());
        ended.unwrap_or_else(|| Err(gone()))
    }

    /// Takes in an answer without a fingerprint, as STUN servers give it; whether it was one to a request of ours.
    pub(super) fn handle_plain_answer(&mut self, now: Instant, at: Arrival, message: &Message<'_>) -> bool {
        if message.method() != Method::BINDING || !matches!(message.class(), Class::Success | Class::Error) {
            return false;
        }
        let [t0, t1, t2, t3, ..] = message.transaction_id().0;
        let session = self.by_tag.get(&[t0, t1, t2, t3]).copied();
        let session = session.filter(|id| self.sessions.get(id).is_some_and(|session| session.signalled.is_some()));
        self.give(now, session, |session, cx| session.handle_stun_answer(cx, at, message))
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the session is over")
}
