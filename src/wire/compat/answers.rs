//! What a server of 2015 answers, read by a client.
//!
//! An introduction ends with its parenthesis; `?` and `.` are one byte; whatever else came is nonsense as a whole. Answers
//! may come several in a piece, or one in many. The text looks like a Python tuple and is never evaluated.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// Bytes of an answer that does not end, before it counts as nonsense.
const MAX_ANSWER: usize = 1024;

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A peer: its address as the server sees it, and the port to punch from and to.
    Peer(SocketAddr),
    /// No listener is there.
    NotFound,
    /// The server has ended the conversation.
    End,
    /// This, which is no answer of the protocol.
    Nonsense(Vec<u8>),
}

/// Reads the answers of one connection. It keeps the 1,024 bytes of an answer that has begun at most, and what
/// came in the same piece after it.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    received: Vec<u8>,
}

impl Answers {
    /// Takes what was received.
    pub fn push(&mut self, piece: &[u8]) {
        self.received.extend_from_slice(piece);
    }

    /// Takes the next whole answer.
    pub fn pop(&mut self) -> Option<Answer> {
        let length = match self.received.first()? {
            b'*' => match self.received.iter().position(|byte| *byte == b')') {
                Some(end) => end + 1,
                None if self.received.len() < MAX_ANSWER => return None,
                None => self.received.len(),
            },
            b'?' | b'.' => 1,
            _ => self.received.len(),
        };
        let answer: Vec<u8> = self.received.drain(..length).collect();
        Some(match answer.as_slice() {
            b"?" => Answer::NotFound,
            b"." => Answer::End,
            text => introduced(text).map_or_else(|| Answer::Nonsense(text.to_vec()), Answer::Peer),
        })
    }
}

/// The address in `*('203.0.113.2', 20001)`, with any spaces and either kind of quotes; nothing that is no one host's.
fn introduced(answer: &[u8]) -> Option<SocketAddr> {
    let inner = core::str::from_utf8(answer).ok()?.strip_prefix("*(")?.strip_suffix(')')?;
    let (host, port) = inner.split_once(',')?;
    let host = host.trim();
    let unquoted = ['\'', '"'].iter().find_map(|quote| host.strip_prefix(*quote)?.strip_suffix(*quote))?;
    let ip = unquoted.parse::<IpAddr>().ok()?.to_canonical();
    let is_group = ip.is_multicast() || ip == IpAddr::from([255; 4]);
    if is_group || ip.is_unspecified() {
        return None;
    }
    let port = port.trim();
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn read(pieces: &[&[u8]]) -> Vec<Answer> {
        let mut answers = Answers::default();
        let mut read = Vec::new();
        for piece in pieces {
            answers.push(piece);
            while let Some(answer) = answers.pop() {
                read.push(answer);
            }
        }
        read
    }

    fn peer(text: &str) -> Answer {
        Answer::Peer(text.parse().unwrap())
    }

    #[test]
    fn answers_in_any_pieces() {
        let whole = b"*('203.0.113.2', 20001)?*(\"198.51.100.1\",7).";
        let expected = [peer("203.0.113.2:20001"), Answer::NotFound, peer("198.51.100.1:7"), Answer::End];
        assert_eq!(read(&[whole]), expected);
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(read(&bytes), expected);
        assert_eq!(read(&[b"*( '2001:db8::1' , 9 )"]), [peer("[2001:db8::1]:9")]);
        assert_eq!(read(&[b"*('::ffff:203.0.113.2', 7)"]), [peer("203.0.113.2:7")]);
        assert_eq!(read(&[b"*('203.0.113.2', 2000"]), []);
    }

    #[test]
    fn an_introduction_is_what_the_server_writes() {
        let written = super::super::introduction([203, 0, 113, 2].into(), 20001);
        assert_eq!(read(&[&written]), [peer("203.0.113.2:20001")]);
    }

    #[test]
    fn nonsense_is_told_as_it_is() {
        for text in [
            &b"*()"[..],
            b"*('203.0.113.2', 0)",
            b"*('203.0.113.2', 65536)",
            b"*('203.0.113.2', +7)",
            b"*('203.0.113.2', )",
            b"*('203.0.113.2')",
            b"*(203.0.113.2, 7)",
            b"*('203.0.113.2\", 7)",
            b"*('example.org', 7)",
            b"*('0.0.0.0', 7)",
            b"*('255.255.255.255', 7)",
            b"*('ff02::1', 7)",
            b"*('::ffff:224.0.0.1', 7)",
            b"*(__import__('os').abort(), 7)",
            b"\xff\xfe",
            b"HTTP/1.1 400 Bad Request",
        ] {
            let read = read(&[text]);
            assert!(matches!(read.first(), Some(Answer::Nonsense(_))), "{text:?}: {read:?}");
        }
        assert_eq!(read(&[b"*\xff)"]), [Answer::Nonsense(b"*\xff)".to_vec())]);
        let endless = vec![b'*'; MAX_ANSWER];
        assert_eq!(read(&[&endless]), [Answer::Nonsense(endless.clone())]);
    }
}
