//! The text protocol of 2015, as bytes.
//!
//! A client says `<` (it listens) or `>203.0.113.2` (it asks for the listener at that address); it is answered with
//! `*('203.0.113.2', 20001)`, the other side's address and the port to punch from, or `?`. Nothing is framed: one
//! write was one message. TCP keeps no such borders, so a request may come in pieces, or several at once, and a host
//! that nothing follows may go on: [`Requests`] reads what can be told and says what is still open. [`Answers`] reads the
//! other direction.
//!
//! Nothing is ever evaluated. What is no request is passed over as a whole and counts as the request for a host that
//! does not exist.

mod answers;

use alloc::{format, vec::Vec};
use core::net::Ipv4Addr;

pub use answers::{Answer, Answers};

/// The answer to a request for a listener that is not there.
pub const NOT_FOUND: &[u8] = b"?";

/// Bytes of the longest host, `255.255.255.255`.
const MAX_HOST: usize = 15;

/// The answer that introduces a peer: where it was seen, and the port to punch from and to.
///
/// ```
/// use holepunch::wire::compat::introduction;
///
/// assert_eq!(introduction([203, 0, 113, 2].into(), 20001), b"*('203.0.113.2', 20001)");
/// ```
#[must_use]
pub fn introduction(host: Ipv4Addr, port: u16) -> Vec<u8> {
    format!("*('{host}', {port})").into_bytes()
}

/// Whether a connection's first byte begins this protocol as a client of 2015 speaks it.
#[must_use]
pub fn is_opening(first: u8) -> bool {
    matches!(first, b'<' | b'>')
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// It listens.
    Listen,
    /// It asks for the listener at this address; `None`: at something that is no IPv4 address.
    Connect(Option<Ipv4Addr>),
}

/// What has begun and is not ended by anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// A request for a host, which is this if no more comes.
    Host {
        /// The host so far.
        host: Option<Ipv4Addr>,
        /// Whether no digit can follow: the last number is 0 or over 25.
        is_complete: bool,
    },
    /// Something that is no request, of so many bytes.
    Garbage(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between requests.
    Idle,
    /// After `<`, which is a message by itself: what follows in the same piece is an announcement.
    Listening,
    Host {
        bytes: [u8; MAX_HOST],
        length: usize,
    },
    Garbage(usize),
}

/// Reads the requests of one connection. It keeps 15 bytes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    state: State,
}

impl Default for Requests {
    fn default() -> Self {
        Self { state: State::Idle }
    }
}

impl Requests {
    /// Takes from the front of a piece what makes the next request; `None` when it is used up.
    pub fn next(&mut self, piece: &mut &[u8]) -> Option<Request> {
        loop {
            let (&first, rest) = piece.split_first()?;
            match &mut self.state {
                State::Idle | State::Listening => match first {
                    b'<' => {
                        self.state = State::Listening;
                        *piece = if rest.first().is_none_or(|next| is_opening(*next)) { rest } else { &[] };
                        return Some(Request::Listen);
                    }
                    b'>' => {
                        self.state = State::Host { bytes: [0; MAX_HOST], length: 0 };
                        *piece = rest;
                    }
                    _ if self.state == State::Listening => *piece = &[],
                    _ if is_end(first) => *piece = rest,
                    _ => self.state = State::Garbage(0),
                },
                State::Host { bytes, length } => match (first, bytes.get_mut(*length)) {
                    (b'0'..=b'9' | b'.', Some(next)) => {
                        *next = first;
                        *length += 1;
                        *piece = rest;
                    }
                    // The next request ends this one, and stays.
                    (b'<' | b'>', _) => return self.finish(),
                    _ if is_end(first) => {
                        *piece = rest;
                        return self.finish();
                    }
                    _ => self.state = State::Garbage(*length + 1),
                },
                State::Garbage(length) => {
                    *length = length.saturating_add(piece.len());
                    *piece = &[];
                }
            }
        }
    }

    /// What has begun and may go on.
    #[must_use]
    pub fn open(&self) -> Option<Open> {
        match &self.state {
            State::Idle | State::Listening => None,
            State::Host { bytes, length } => {
                let host = parse(bytes.get(..*length)?);
                let is_complete = host.is_some_and(|host| matches!(host.octets(), [.., 0 | 26..]));
                Some(Open::Host { host, is_complete })
            }
            State::Garbage(length) => Some(Open::Garbage(*length)),
        }
    }

    /// No more comes: what is open is a request as it stands.
    pub fn finish(&mut self) -> Option<Request> {
        match self.open()? {
            Open::Host { host, .. } => {
                self.state = State::Idle;
                Some(Request::Connect(host))
            }
            Open::Garbage(_) => {
                self.state = State::Idle;
                Some(Request::Connect(None))
            }
        }
    }
}

/// Whether a byte ends a host without meaning anything: people try a server by hand, with a line.
const fn is_end(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0
}

fn parse(bytes: &[u8]) -> Option<Ipv4Addr> {
    core::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn connect(host: &str) -> Request {
        Request::Connect(host.parse().ok())
    }

    /// All requests of these pieces.
    fn read(pieces: &[&[u8]]) -> (Vec<Request>, Option<Open>) {
        let (mut requests, mut read) = (Requests::default(), Vec::new());
        for piece in pieces {
            let mut piece = *piece;
            while let Some(request) = requests.next(&mut piece) {
                read.push(request);
            }
            assert!(piece.is_empty());
        }
        (read, requests.open())
    }

    fn host(text: &str, is_complete: bool) -> Option<Open> {
        Some(Open::Host { host: text.parse().ok(), is_complete })
    }

    #[test]
    fn requests_in_any_pieces() {
        assert_eq!(read(&[b"<"]), (vec![Request::Listen], None));
        assert_eq!(read(&[b">203.0.113.2"]), (vec![], host("203.0.113.2", false)));
        let whole: &[u8] = b"<>203.0.113.2>198.51.100.26<";
        let expected = vec![Request::Listen, connect("203.0.113.2"), connect("198.51.100.26"), Request::Listen];
        assert_eq!(read(&[whole]), (expected.clone(), None));
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(read(&bytes), (expected, None));
    }

    #[test]
    fn whether_a_digit_can_follow() {
        for (text, is_complete) in
            [("1.2.3.0", true), ("1.2.3.2", false), ("1.2.3.25", false), ("1.2.3.26", true), ("1.2.3.255", true)]
        {
            assert_eq!(read(&[format!(">{text}").as_bytes()]).1, host(text, is_complete), "{text}");
        }
        assert_eq!(read(&[b">1.2.3."]).1, host("", false));
        assert_eq!(read(&[b">"]).1, host("", false));
    }

    #[test]
    fn an_announcement_is_passed_over() {
        assert_eq!(read(&[b"<holepunch/1 <>garbage>"]), (vec![Request::Listen], None));
        assert_eq!(read(&[b"<", b"announcement", b">1.2.3.4\n"]), (vec![Request::Listen, connect("1.2.3.4")], None));
    }

    #[test]
    fn garbage_is_one_request_for_nothing() {
        for garbage in [
            &b"*("[..],
            b"*('203.0.113.2', 20001)",
            b"\xff\xfe",
            b">\xff",
            b">localhost",
            b">::1",
            b"?",
            b">1.2.3.4.5.6.7.8.9",
            b">1.2.3.4; more>1.2.3.4",
            b"GET / HTTP/1.0\r\n\r\n",
        ] {
            let mut requests = Requests::default();
            let mut piece = garbage;
            assert_eq!(requests.next(&mut piece), None, "{garbage:?}");
            assert!(matches!(requests.open(), Some(Open::Garbage(1..))), "{garbage:?}");
            assert_eq!(requests.finish(), Some(Request::Connect(None)));
            assert_eq!(requests, Requests::default());
        }
        for text in [">", ">1.2.3", ">1.2.3.4.5", ">01.2.3.4", ">256.1.1.1", ">..."] {
            let mut requests = Requests::default();
            assert_eq!(requests.next(&mut text.as_bytes()), None);
            assert_eq!(requests.finish(), Some(Request::Connect(None)), "{text}");
        }
    }

    #[test]
    fn a_megabyte_is_counted_and_not_kept() {
        let mut requests = Requests::default();
        for piece in vec![b'x'; 1 << 20].chunks(4096) {
            assert_eq!(requests.next(&mut &*piece), None);
        }
        assert_eq!(requests.open(), Some(Open::Garbage(1 << 20)));
    }

    #[test]
    fn lines_typed_by_hand_are_requests() {
        let (read, open) = read(&[b">1.2.3.4\r\n>5.6.7.8\n\0"]);
        assert_eq!((read, open), (vec![connect("1.2.3.4"), connect("5.6.7.8")], None));
    }
}
