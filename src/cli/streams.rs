//! stdin and stdout, so that waiting for them can be stopped from another thread.
//!
//! A blocking read of a terminal, or a write to a pipe that nobody empties, would outlive the connection and ignore
//! signals. So each is waited for together with a waker before it is touched, and touched once for each time it is
//! ready. Regular files cannot be waited for and need not: they never block. The streams are not set non-blocking,
//! since that would reach the other programs that share them.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, AsRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};

const WAKE: Token = Token(0);
const STREAM: Token = Token(1);

/// Stops the waiting, for good; from any thread.
#[derive(Clone)]
pub(super) struct Stop {
    stopped: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stop {
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }
}

/// One of the standard streams.
pub(super) struct Stream {
    file: File,
    /// `None` for what is always ready.
    interest: Option<Interest>,
    poll: Poll,
    events: Events,
    stop: Stop,
}

impl Stream {
    pub(super) fn stdin() -> io::Result<Self> {
        Self::new(&io::stdin(), Interest::READABLE)
    }

    pub(super) fn stdout() -> io::Result<Self> {
        Self::new(&io::stdout(), Interest::WRITABLE)
    }

    /// Takes a descriptor of its own of the stream, past the buffers and locks of the standard library.
    fn new(stream: &impl AsFd, interest: Interest) -> io::Result<Self> {
        let file = File::from(stream.as_fd().try_clone_to_owned()?);
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let interest = match poll.registry().register(&mut SourceFd(&file.as_raw_fd()), STREAM, interest) {
            Ok(()) => Some(interest),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(error),
        };
        let stop = Stop { stopped: Arc::new(AtomicBool::new(false)), waker: Arc::new(waker) };
        Ok(Self { file, interest, poll, events: Events::with_capacity(2), stop })
    }

    /// What stops the waiting.
    pub(super) fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Reads some bytes: none at the end of the stream, `None` when it was stopped.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        while self.ready()? {
            match self.file.read(buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Writes all the bytes; false when it was stopped before.
    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            if !self.ready()? {
                return Ok(false);
            }
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Waits until the stream is ready; false when it was stopped.
    fn ready(&mut self) -> io::Result<bool> {
        let Some(interest) = self.interest else {
            return Ok(!self.stop.stopped.load(Ordering::Acquire));
        };
        // An event tells of a change only; registering again makes it tell the present state.
        self.poll.registry().reregister(&mut SourceFd(&self.file.as_raw_fd()), STREAM, interest)?;
        loop {
            if self.stop.stopped.load(Ordering::Acquire) {
                return Ok(false);
            }
            match self.poll.poll(&mut self.events, None) {
                Ok(()) if self.events.iter().any(|event| event.token() == STREAM) => return Ok(true),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether it is worth waiting again: another program that shares the stream may have set it non-blocking.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_goes_to_the_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut stream = Stream::new(&reader, Interest::READABLE).unwrap();
        writer.write_all(b"abc").unwrap();
        let mut buffer = [0; 2];
        assert_eq!((stream.read(&mut buffer).unwrap(), &buffer), (Some(2), b"ab"));
        assert_eq!((stream.read(&mut buffer).unwrap(), buffer[0]), (Some(1), b'c'), "what is left is seen again");
        drop(writer);
        assert_eq!(stream.read(&mut buffer).unwrap(), Some(0));
    }

    #[test]
    fn a_waiting_read_and_a_waiting_write_can_be_stopped() {
        let (reader, writer) = io::pipe().unwrap();
        let mut input = Stream::new(&reader, Interest::READABLE).unwrap();
        let mut output = Stream::new(&writer, Interest::WRITABLE).unwrap();
        let stop = output.stopper();
        std::thread::scope(|scope| {
            let filling = scope.spawn(move || {
                let mut written = 0;
                while output.write_all(&[0; 1024]).unwrap() {
                    written += 1;
                }
                written
            });
            stop.stop();
            filling.join().unwrap();
        });
        let stop = input.stopper();
        std::thread::scope(|scope| {
            let draining = scope.spawn(move || while input.read(&mut [0; 4096]).unwrap().is_some() {});
            stop.stop();
            draining.join().unwrap();
        });
    }

    #[test]
    fn files_and_devices_need_no_waiting() {
        let mut zero = Stream::new(&File::open("/dev/zero").unwrap(), Interest::READABLE).unwrap();
        assert_eq!(zero.read(&mut [0; 4]).unwrap(), Some(4));
        let mut null = Stream::new(&File::open("/dev/null").unwrap(), Interest::READABLE).unwrap();
        assert_eq!(null.read(&mut [0; 4]).unwrap(), Some(0));
        null.stopper().stop();
        assert_eq!(null.read(&mut [0; 4]).unwrap(), None);
    }

    #[test]
    fn a_stream_that_nobody_reads_any_more_and_a_full_disk_are_errors() {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Stream::new(&writer, Interest::WRITABLE).unwrap();
        drop(reader);
        assert_eq!(output.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut output = Stream::new(&full, Interest::WRITABLE).unwrap();
        assert_eq!(output.write_all(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
