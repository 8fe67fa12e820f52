//! The TCP of a session: the ports and connections that a stream is looked for with, and the connections to servers that
//! UDP does not get through to.

use alloc::collections::VecDeque;
use core::net::SocketAddr;

use super::{Context, Phase, Session, StreamNews};
use crate::{
    Error,
    machine::{Output, PortId, StreamId, TcpRequest},
    peer::{PeerEvent, uplink::UplinkNews},
    rendezvous::client::{From, Via},
};

impl Session {
    /// A port of this stream session is reserved, or could not be.
    pub(in crate::peer) fn handle_reserved(
        &mut self,
        cx: &mut Context<'_>,
        port: PortId,
        result: Result<SocketAddr, Error>,
    ) {
        if let Some(connecting) = &mut self.connecting
            && connecting.uplinks.handle_reserved(cx, port, &result)
        {
            return self.run_lookup(cx);
        }
        let Some(gathering) = &mut self.gathering else { return };
        gathering.handle_reserved(cx, port, result);
        if !gathering.is_answered() {
            return;
        }
        if let Some(error) = gathering.error() {
            return self.fail(cx, error);
        }
        if let Some(agent) = self.introduction.as_mut().and_then(|introduction| introduction.negotiation.as_stream()) {
            for (port, local) in gathering.reserved() {
                agent.add_port(cx.now, port, local);
            }
        }
        self.tell_gathered(cx);
    }

    /// Tells the peer of what was gathered since.
    pub(in crate::peer) fn tell_gathered(&mut self, cx: &mut Context<'_>) {
        let Some(gathering) = &self.gathering else { return };
        let candidates = gathering.candidates(cx);
        self.tell_candidates(cx, &candidates);
    }

    /// What goes by this server goes this way from now on.
    pub(in crate::peer) fn set_relay_via(&mut self, via: impl FnOnce(SocketAddr) -> Option<Via>) {
        if let Some(trickle) = self.trickle()
            && let Some(via) = via(trickle.server())
        {
            trickle.set_via(via);
        }
    }

    /// Closes the connections to servers of a session that is over.
    pub(in crate::peer) fn give_up_uplinks(&mut self, cx: &mut Context<'_>) {
        if let Some(connecting) = &mut self.connecting {
            connecting.uplinks.end(cx);
        }
    }

    /// Closes the connections and ports of a stream session that is over; one that was given away is not among them.
    pub(in crate::peer) fn give_up_streams(&mut self, outputs: &mut VecDeque<Output<PeerEvent>>) {
        if let Some(agent) = self.introduction.as_mut().and_then(|introduction| introduction.negotiation.as_stream()) {
            agent.close();
            while let Some(request) = agent.poll_request() {
                outputs.push_back(Output::Tcp(request));
            }
        }
        if let Some(gathering) = &mut self.gathering {
            for early in gathering.early.drain() {
                outputs.push_back(Output::Tcp(TcpRequest::Close { stream: early.stream }));
            }
            gathering.end(outputs);
        }
    }

    /// Somebody has connected to one of our ports.
    pub(in crate::peer) fn handle_accepted(
        &mut self,
        cx: &mut Context<'_>,
        stream: StreamId,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        let is_early = self.is_looking_for_stream();
        let agent = self.introduction.as_mut().and_then(|introduction| introduction.negotiation.as_stream());
        let early = self.gathering.as_mut().filter(|_| is_early).map(|gathering| &mut gathering.early);
        if let Some(agent) = agent {
            agent.handle_accepted(cx.now, stream, local, remote);
        } else if !early.is_some_and(|early| early.accept(stream, local, remote)) {
            cx.tcp(TcpRequest::Close { stream });
        }
        self.handle_timeout(cx);
    }

    /// Takes in what became of a connect, or that a connection is over.
    pub(in crate::peer) fn handle_stream(&mut self, cx: &mut Context<'_>, stream: StreamId, news: StreamNews) {
        if let Some(connecting) = self.connecting.as_mut().filter(|connecting| connecting.uplinks.owns(stream)) {
            let news = connecting.uplinks.handle_stream(cx, stream, news);
            return self.handle_uplink(cx, news);
        }
        let servers = self.gathering.as_mut().filter(|gathering| gathering.owns(stream));
        let agent = self.introduction.as_mut().and_then(|introduction| introduction.negotiation.as_stream());
        match (servers, agent, news) {
            (Some(gathering), agent, StreamNews::Connected(_)) => {
                gathering.handle_connected(cx, stream);
                if let (Some(agent), Some(rtt)) = (agent, gathering.server_rtt()) {
                    agent.set_server_rtt(rtt);
                }
            }
            (Some(gathering), _, StreamNews::Failed { at_once }) => gathering.handle_failed(cx, stream, at_once),
            (None, Some(agent), StreamNews::Connected(local)) => agent.handle_connected(cx.now, stream, local),
            (None, Some(agent), StreamNews::Failed { at_once }) => agent.handle_failed(cx.now, stream, at_once),
            (None, None, StreamNews::Failed { .. }) => {
                if let Some(gathering) = &mut self.gathering {
                    gathering.early.forget(stream);
                }
            }
            (None, None, StreamNews::Connected(_)) => {}
        }
        self.handle_timeout(cx);
    }

    /// Whether it has ports, and no introduction yet.
    fn is_looking_for_stream(&self) -> bool {
        self.gathering.is_some() && self.introduction.is_none() && matches!(self.phase, Phase::Binding | Phase::Looking)
    }

    fn handle_uplink(&mut self, cx: &mut Context<'_>, news: UplinkNews) {
        if let Some(connecting) = &mut self.connecting {
            match news {
                UplinkNews::Opened(stream, server) => connecting.lookup.add_connection(cx.now, stream, server),
                UplinkNews::Lost(stream) => connecting.lookup.remove_connection(stream),
                UplinkNews::None | UplinkNews::Message(_) => {}
            }
        }
        self.handle_timeout(cx);
    }

    /// Takes in what a connection brings: how much of it was for us, and whether that is a message of a server's.
    pub(in crate::peer) fn handle_stream_data(
        &mut self,
        cx: &mut Context<'_>,
        stream: StreamId,
        bytes: &[u8],
    ) -> (usize, Option<From>) {
        if let Some(connecting) = self.connecting.as_mut().filter(|connecting| connecting.uplinks.owns(stream)) {
            let (taken, news) = connecting.uplinks.handle_data(cx, stream, bytes);
            if let UplinkNews::Message(from) = news {
                return (taken, Some(from));
            }
            self.handle_uplink(cx, news);
            return (taken, None);
        }
        let taken = if let Some(gathering) = self.gathering.as_mut().filter(|gathering| gathering.owns(stream)) {
            let taken = gathering.handle_data(cx, stream, bytes);
            self.tell_gathered(cx);
            taken
        } else if let Some(introduction) = &mut self.introduction
            && let Some(agent) = introduction.negotiation.as_stream()
        {
            agent.handle_data(cx.now, stream, bytes)
        } else {
            let early = self.gathering.as_mut().and_then(|gathering| gathering.early.take(stream, bytes));
            early.unwrap_or_else(|| {
                cx.tcp(TcpRequest::Close { stream });
                0
            })
        };
        self.stop_asking_when_heard();
        self.handle_timeout(cx);
        (taken, None)
    }
}
