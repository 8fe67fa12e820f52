//! Connections that come before the introduction does: the listener is told of a session first, and on one LAN its SYN is
//! faster than the server's answer, which may be lost besides. Turned away, it would come again only after a minute:
//! so long the two ends of a connection that was closed are not to be had.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::{machine::StreamId, wire::demux::frame_length};

/// Such connections of one session; there is one address of each family that a peer could come from.
const MAX_STREAMS: usize = 4;

/// The most bytes of a check.
const MAX_CHECK: usize = 600;

/// A connection, and the check that it brought.
#[derive(Debug)]
pub(super) struct EarlyStream {
    pub(super) stream: StreamId,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) check: Vec<u8>,
}

/// The early connections of a session.
#[derive(Debug, Default)]
pub(super) struct Early {
    streams: Vec<EarlyStream>,
}

impl Early {
    /// Keeps a connection; whether there is room for it.
    pub(super) fn accept(&mut self, stream: StreamId, local: SocketAddr, remote: SocketAddr) -> bool {
        let has_room = self.streams.len() < MAX_STREAMS;
        if has_room {
            self.streams.push(EarlyStream { stream, local, remote, check: Vec::new() });
        }
        has_room
    }

    /// Keeps the message that a connection begins with, and says how much that is; `None` where it begins with none, and
    /// is forgotten.
    pub(super) fn take(&mut self, stream: StreamId, bytes: &[u8]) -> Option<usize> {
        let Some(early) = self.streams.iter_mut().find(|early| early.stream == stream) else { return Some(0) };
        if !early.check.is_empty() {
            return Some(0);
        }
        let Some(length) = frame_length(bytes) else { return Some(0) };
        let Some(length) = length.filter(|length| *length <= MAX_CHECK) else {
            self.forget(stream);
            return None;
        };
        let Some(frame) = bytes.get(..length) else { return Some(0) };
        early.check = frame.to_vec();
        Some(length)
    }

    /// A connection is over.
    pub(super) fn forget(&mut self, stream: StreamId) {
        self.streams.retain(|early| early.stream != stream);
    }

    /// All of them, for the negotiation.
    pub(super) fn drain(&mut self) -> Vec<EarlyStream> {
        core::mem::take(&mut self.streams)
    }
}
