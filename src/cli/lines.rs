//! Cuts a stream of bytes into datagrams: a line each, its newline included. The last one may have none.

use crate::{Error, ErrorKind, Result, config::MAX_DATAGRAM};

/// Bytes that came and were not yet sent.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    start: usize,
}

impl Lines {
    /// Takes more bytes in.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::MessageTooLarge`] as soon as the line is known to fit no datagram. It is not cut: a receiver could not
    /// tell the halves from lines.
    pub(super) fn next_line(&mut self) -> Result<Option<&[u8]>> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let length = match rest.iter().position(|byte| *byte == b'\n') {
            Some(newline) => newline + 1,
            None if rest.len() > MAX_DATAGRAM => rest.len(),
            None => return Ok(None),
        };
        if length > MAX_DATAGRAM {
            let message = "a line of stdin is longer than the 1,200 bytes of a datagram";
            return Err(Error::new(ErrorKind::MessageTooLarge, message).with_hint("send shorter lines"));
        }
        self.start += length;
        Ok(rest.get(..length))
    }

    /// What remains when the stream has ended: a line without its newline, or nothing.
    pub(super) fn rest(&self) -> Option<&[u8]> {
        self.buffer.get(self.start..).filter(|rest| !rest.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let (mut lines, mut cut) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next_line()? {
                cut.push(line.to_vec());
            }
        }
        cut.extend(lines.rest().map(<[u8]>::to_vec));
        Ok(cut)
    }

    #[test]
    fn a_line_is_a_datagram_however_it_arrives() {
        for pieces in [&[&b"a\n\nbc\nd"[..]][..], &[b"a", b"\n", b"\nb", b"c\nd"], &[b"a\n\nbc\n", b"", b"d"]] {
            assert_eq!(cut(pieces).unwrap(), [&b"a\n"[..], b"\n", b"bc\n", b"d"]);
        }
        assert_eq!(cut(&[b""]).unwrap(), [[0; 0]; 0]);
        assert_eq!(cut(&[b"a\n"]).unwrap(), [b"a\n"]);
    }

    #[test]
    fn the_longest_line_is_1200_bytes_with_its_newline() {
        let mut longest = vec![b'x'; 1199];
        longest.push(b'\n');
        assert_eq!(cut(&[&longest, b"y\n"]).unwrap(), [longest.clone(), b"y\n".to_vec()]);
        assert_eq!(cut(&[&[b'x'; 1200]]).unwrap(), [[b'x'; 1200]], "the last one has no newline");
        longest.insert(0, b'x');
        assert_eq!(cut(&[&longest]).unwrap_err().kind(), ErrorKind::MessageTooLarge);
        assert_eq!(cut(&[&[b'x'; 1000], &[b'x'; 201]]).unwrap_err().kind(), ErrorKind::MessageTooLarge);
    }
}
