//! A TCP connection to a server: greeted until it is known what the server speaks, then STUN, which frames itself.
//!
//! A server that is not known yet to speak the current protocol is sent the line `HOLEPUNCH/1` and nothing more until it
//! answers with the same: a server of 2015 ignores the line, and would stumble over anything else.

use crate::{
    machine::{StreamId, TcpRequest},
    wire::{demux::frame_length, stun::GREETING},
};

/// The longest message that is read, in bytes; no server sends more than 1,200.
const MAX_FRAME: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    /// Connected; it is not known yet what the server speaks.
    Greeted,
    /// The server understands STUN.
    Open,
}

/// A connection to a server, or the attempt to make one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    stream: StreamId,
    state: State,
}

/// What the bytes of a connection begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Too little to tell.
    Nothing,
    /// So many bytes in which the server says that it speaks the current protocol.
    Greeting(usize),
    /// A message, of so many bytes.
    Message(usize),
    /// Whoever it is, it is no such server.
    Nonsense,
}

impl Connection {
    /// A connection that is asked for under this number.
    pub(crate) const fn new(stream: StreamId) -> Self {
        Self { stream, state: State::Connecting }
    }

    pub(crate) const fn stream(&self) -> StreamId {
        self.stream
    }

    /// Whether messages may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Takes in that it is there: open at once where the server is known to be `current`, else there is something to
    /// be said first.
    pub(crate) fn handle_connected(&mut self, current: bool) -> Option<TcpRequest> {
        if current {
            self.state = State::Open;
            return None;
        }
        self.state = State::Greeted;
        Some(TcpRequest::Send { stream: self.stream, bytes: GREETING.to_vec() })
    }

    /// Takes in that the server speaks the current protocol; whether that opens the connection.
    pub(crate) fn server_is_current(&mut self) -> bool {
        let opens = self.state == State::Greeted;
        if opens {
            self.state = State::Open;
        }
        opens
    }

    /// Looks what the unread bytes begin with.
    pub(crate) fn read(&self, bytes: &[u8]) -> Read {
        if bytes.starts_with(GREETING) {
            return Read::Greeting(GREETING.len());
        }
        if GREETING.starts_with(bytes) {
            return Read::Nothing;
        }
        match frame_length(bytes) {
            None => Read::Nothing,
            Some(Some(length)) if self.is_open() && length <= MAX_FRAME => {
                if bytes.len() < length {
                    Read::Nothing
                } else {
                    Read::Message(length)
                }
            }
            Some(_) => Read::Nonsense,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_known_is_greeted_and_asked_nothing() {
        let mut connection = Connection::new(StreamId(1));
        let greeting = connection.handle_connected(false);
        assert_eq!(greeting, Some(TcpRequest::Send { stream: StreamId(1), bytes: b"HOLEPUNCH/1\n".to_vec() }));
        assert!(!connection.is_open());
        assert_eq!(connection.read(b""), Read::Nothing);
        assert_eq!(connection.read(b"HOLEPUNCH/1"), Read::Nothing);
        assert_eq!(connection.read(b"HOLEPUNCH/1\nmore"), Read::Greeting(12));
        // A server of 2015, a web server, and one that speaks before it was understood.
        assert_eq!(connection.read(b"?"), Read::Nonsense);
        assert_eq!(connection.read(b"HTTP/1.1 400"), Read::Nonsense);
        assert_eq!(connection.read(&[0, 1, 0, 0]), Read::Nonsense);
        assert!(connection.server_is_current());
        assert!(connection.is_open());
        assert!(!connection.server_is_current());
    }

    #[test]
    fn messages_come_one_by_one_and_no_longer_than_they_may_be() {
        let mut connection = Connection::new(StreamId(1));
        assert_eq!(connection.handle_connected(true), None);
        let mut bytes = [0; 60];
        bytes[3] = 8;
        assert_eq!(connection.read(&bytes[..3]), Read::Nothing);
        assert_eq!(connection.read(&bytes[..27]), Read::Nothing);
        assert_eq!(connection.read(&bytes), Read::Message(28));
        assert_eq!(connection.read(&[0, 1, 8, 0]), Read::Nonsense);
        assert_eq!(connection.read(&[0, 1, 0, 3]), Read::Nonsense);
    }
}
