//! Joins a connection for datagrams to stdin and stdout until both sides have ended.
//!
//! A thread sends each line of stdin as a datagram and, at its end, announces the end. This thread writes what is
//! received. Each can be the first to find that it is over, and then stops the other: this one through the waker of
//! stdin, that one by closing the connection.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{lines::Lines, meet::Watch, streams::Stream};
use crate::{Cancel, Connection, Error, ErrorKind, Result, Wait, peer::CloseReason};

/// The end is repeated until it is acknowledged, or for so long.
const FAREWELL: Duration = Duration::from_secs(3);

/// The largest datagram that IPv4 and IPv6 carry; a peer that is not ours may send more than we do.
const RECEIVE: usize = 65_535;

/// Bytes of the peers' data.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// How the sending side ended.
pub(super) enum Sent {
    /// stdin has ended, and the peer was told.
    End,
    /// It was stopped, or the connection was gone.
    Stopped,
}

/// Exchanges data until both sides have ended, and says how much it was.
pub(super) fn exchange(
    connection: &Connection,
    input: &mut Stream,
    output: &mut Stream,
    cancel: &Cancel,
    watch: &Watch,
) -> (Result<()>, Traffic) {
    let bytes_out = AtomicU64::new(0);
    let mut bytes_in = 0;
    let stop = input.stopper();
    if watch.fate().closed.is_some() {
        stop.stop();
    }
    let (received, sent) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let result = send(connection, input, cancel, &bytes_out);
            if result.is_err() {
                connection.close();
            }
            result
        });
        let received = receive(connection, output, cancel, &mut bytes_in);
        // After an orderly end of the peer's data ours goes on.
        if received.is_err() {
            stop.stop();
            connection.close();
        }
        let sent =
            sending.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::Poisoned, "the sending thread panicked")));
        (received, sent)
    });
    let traffic = Traffic { bytes_in, bytes_out: bytes_out.into_inner() };
    (outcome(received, sent, watch), traffic)
}

/// What it means that the two directions ended so.
fn outcome(received: Result<()>, sent: Result<Sent>, watch: &Watch) -> Result<()> {
    // An error of the sending side closes the connection, which ends the receiving side without an error.
    let sent = sent?;
    received?;
    let fate = watch.end();
    match (sent, fate.closed) {
        (_, Some(CloseReason::Lost)) => {
            Err(Error::new(ErrorKind::Lost, "the peer has answered nothing for 30 seconds; the connection is lost"))
        }
        (Sent::End, _) if fate.peer_ended || fate.closed == Some(CloseReason::End) => Ok(()),
        (Sent::End | Sent::Stopped, _) => {
            Err(Error::new(ErrorKind::Lost, "the peer closed the connection before both sides had ended"))
        }
    }
}

/// Sends the lines of stdin.
fn send(connection: &Connection, input: &mut Stream, cancel: &Cancel, bytes_out: &AtomicU64) -> Result<Sent> {
    let mut lines = Lines::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = input.read(&mut buffer).map_err(|error| stream_failed("reading stdin failed", &error))?;
        let Some(bytes) = length.and_then(|length| buffer.get(..length)) else { return Ok(Sent::Stopped) };
        let ended = bytes.is_empty();
        lines.push(bytes);
        while let Some(line) = if ended { None } else { lines.next_line()? } {
            if !send_one(connection, line, bytes_out)? {
                return Ok(Sent::Stopped);
            }
        }
        if ended {
            if let Some(rest) = lines.rest()
                && !send_one(connection, rest, bytes_out)?
            {
                return Ok(Sent::Stopped);
            }
            // Whether the peer still acknowledges matters only to the peer's own end, which the receiving side awaits.
            let _ = connection.end(Wait::at_most(FAREWELL).or_cancelled(cancel));
            return Ok(Sent::End);
        }
    }
}

/// Sends a datagram; false when the connection is gone, which the receiving side explains.
fn send_one(connection: &Connection, bytes: &[u8], bytes_out: &AtomicU64) -> Result<bool> {
    match connection.send(bytes) {
        Ok(()) => {
            bytes_out.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Lost | ErrorKind::Cancelled) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes what is received until the peer's data has ended.
fn receive(connection: &Connection, output: &mut Stream, cancel: &Cancel, bytes_in: &mut u64) -> Result<()> {
    let mut buffer = vec![0; RECEIVE];
    loop {
        let length = match connection.recv(&mut buffer, Wait::forever().or_cancelled(cancel)) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
            Err(error) => return Err(error),
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        if !output.write_all(datagram).map_err(|error| stream_failed("writing to stdout failed", &error))? {
            return Err(ErrorKind::Cancelled.into());
        }
        *bytes_in += datagram.len() as u64;
    }
}

pub(super) fn stream_failed(what: &'static str, error: &io::Error) -> Error {
    let failed = Error::new(ErrorKind::Io, format!("{what}: {error}")).with_os_code(error.raw_os_error());
    if error.kind() == io::ErrorKind::BrokenPipe {
        failed.with_hint("the program that reads it has ended")
    } else if error.kind() == io::ErrorKind::StorageFull {
        failed.with_hint("free some space on the disk")
    } else {
        failed
    }
}
