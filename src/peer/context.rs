//! What listeners and sessions work with, beside themselves: the time, the configuration, and where they say what they want.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

use super::{PeerEvent, sockets::Sockets};
use crate::{
    config::PeerConfig,
    machine::{Instant, Level, Output, PortId, Random, StreamId, TcpRequest, Transmit},
    punch::Settings,
    rendezvous::client::ToServer,
};

/// What the methods of a session work with, beside the session.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a PeerConfig,
    /// What of it all agents have.
    pub(super) settings: &'a Arc<Settings>,
    pub(super) random: &'a mut Random,
    pub(super) outputs: &'a mut VecDeque<Output<PeerEvent>>,
    pub(super) sockets: &'a Sockets,
    pub(super) next_port: &'a mut u32,
    pub(super) next_stream: &'a mut u32,
    /// Streams and ports that were numbered by this call.
    pub(super) new_streams: Vec<StreamId>,
    pub(super) new_ports: Vec<PortId>,
    /// Those that it closed: nothing more comes of them.
    pub(super) closed_streams: Vec<StreamId>,
    pub(super) closed_ports: Vec<PortId>,
}

impl Context<'_> {
    pub(super) fn event(&mut self, event: PeerEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(super) fn log(&mut self, level: Level, line: alloc::string::String) {
        self.outputs.push_back(Output::Log(level, line));
    }

    pub(super) fn tcp(&mut self, request: TcpRequest) {
        match &request {
            TcpRequest::Close { stream } | TcpRequest::Abort { stream } => self.closed_streams.push(*stream),
            TcpRequest::Release { port } => self.closed_ports.push(*port),
            TcpRequest::Reserve { .. }
            | TcpRequest::Listen { .. }
            | TcpRequest::Connect { .. }
            | TcpRequest::Send { .. } => {}
        }
        self.outputs.push_back(Output::Tcp(request));
    }

    /// Numbers a port that is asked for.
    pub(super) fn new_port(&mut self) -> PortId {
        let port = PortId(*self.next_port);
        *self.next_port = self.next_port.wrapping_add(1);
        self.new_ports.push(port);
        port
    }

    pub(super) fn tell_servers(&mut self, messages: impl IntoIterator<Item = ToServer>) {
        self.outputs.extend(messages.into_iter().map(ToServer::into_output));
    }

    /// Numbers a connection that is asked for.
    pub(super) fn new_stream(&mut self) -> StreamId {
        let stream = StreamId(*self.next_stream);
        *self.next_stream = (*self.next_stream + 1) % StreamId::FIRST_ACCEPTED;
        self.new_streams.push(stream);
        stream
    }

    pub(super) fn transmit(&mut self, transmit: Transmit) {
        self.outputs.push_back(Output::Transmit(transmit));
    }
}
