//! Joins a stream to stdin and stdout until both directions have ended.
//!
//! A thread sends what stdin brings, as it comes, and ends our data at its end. This thread writes what is received.
//! Whichever fails first stops the other: this one through the waker of stdin, that one by closing the stream.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    exchange::{Sent, Traffic, stream_failed},
    streams::Stream,
};
use crate::{Cancel, Error, ErrorKind, Result, Stream as Connection, Wait};

/// Bytes that are taken at once.
const CHUNK: usize = 1 << 16;

/// Exchanges bytes until both directions have ended, and says how many there were.
pub(super) fn pipe(
    connection: &Connection,
    input: &mut Stream,
    output: &mut Stream,
    cancel: &Cancel,
) -> (Result<()>, Traffic) {
    let bytes_out = AtomicU64::new(0);
    let mut bytes_in = 0;
    let stop = input.stopper();
    let (received, sent) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let result = send(connection, input, cancel, &bytes_out);
            // A connection that broke ends the receiving side by itself, after all that has come.
            if result.as_ref().is_err_and(|error: &Error| error.kind() != ErrorKind::Lost) {
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
    // An error of the sending side closes the stream, which the receiving side then reports as its own.
    let result = match (sent, received) {
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        (Ok(Sent::End), Ok(())) => Ok(()),
        (Ok(Sent::Stopped), Ok(())) => Err(ErrorKind::Cancelled.into()),
    };
    (result, traffic)
}

/// Sends what stdin brings, and ends our data with it.
fn send(connection: &Connection, input: &mut Stream, cancel: &Cancel, bytes_out: &AtomicU64) -> Result<Sent> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = input.read(&mut buffer).map_err(|error| stream_failed("reading stdin failed", &error))?;
        let Some(bytes) = length.and_then(|length| buffer.get(..length)) else { return Ok(Sent::Stopped) };
        let sent = if bytes.is_empty() {
            connection.shutdown_write()
        } else {
            connection.send_all(bytes, Wait::forever().or_cancelled(cancel))
        };
        match sent {
            Ok(()) if bytes.is_empty() => return Ok(Sent::End),
            Ok(()) => drop(bytes_out.fetch_add(bytes.len() as u64, Ordering::Relaxed)),
            // The receiving side has closed it, and says why.
            Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Cancelled) => return Ok(Sent::Stopped),
            Err(error) => return Err(error),
        }
    }
}

/// Writes what is received until the peer's data has ended.
fn receive(connection: &Connection, output: &mut Stream, cancel: &Cancel, bytes_in: &mut u64) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = connection.recv(&mut buffer, Wait::forever().or_cancelled(cancel))?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        if !output.write_all(bytes).map_err(|error| stream_failed("writing to stdout failed", &error))? {
            return Err(ErrorKind::Cancelled.into());
        }
        *bytes_in += bytes.len() as u64;
    }
}
