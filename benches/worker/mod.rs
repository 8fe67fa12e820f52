//! One end as a process of its own, which obeys lines and answers each with one; and what such a process waits with.

#![allow(unsafe_code)]

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::fd::{AsRawFd as _, BorrowedFd},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use holepunch::Endpoint;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// Longer than any order takes: after that something was lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running worker; killed when dropped.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Worker {
    /// Starts it on this processor.
    pub(crate) fn start(command: &[String], arguments: &[&str], processor: Option<&str>) -> Result<Self, Failure> {
        let mut words: Vec<&str> = Vec::new();
        if let Some(processor) = processor {
            words.extend(["taskset", "-c", processor]);
        }
        words.extend(command.iter().map(String::as_str));
        words.extend(arguments);
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{words:?}: {error}"))?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).ok_or("no pipes")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // It ends with its output, or when nobody listens any more.
            BufReader::new(output).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Ok(Self { child, input, lines })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.input, "{line}")
    }

    pub(crate) fn line(&self) -> Result<String, Failure> {
        Ok(self.lines.recv_timeout(PATIENCE).map_err(|_| "a worker stopped, or datagrams were lost")?)
    }

    pub(crate) fn expect(&self, wanted: &str) -> Result<(), Failure> {
        let line = self.line()?;
        if line == wanted { Ok(()) } else { Err(format!("a worker said {line:?}, not {wanted:?}").into()) }
    }

    /// The processor time of all its threads so far.
    pub(crate) fn processor_time(&self) -> Result<Duration, Failure> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints a line for the process that started this one.
pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Waits until there is something to read, and meanwhile drives an endpoint without a thread, as an event loop does.
pub(crate) fn wait(endpoint: &Endpoint, readable: BorrowedFd<'_>) -> Result<(), Failure> {
    let watched = |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        let mut polled = [watched(readable), watched(std::os::fd::AsFd::as_fd(endpoint))];
        // Rounded up: a timeout that comes too early is one for nothing.
        let timeout = endpoint.next_timeout().map_or(-1, |time| time.as_micros().div_ceil(1000) as libc::c_int);
        // SAFETY: the array is live and writable, and as long as told; its descriptors are open.
        let count = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
        if count < 0 {
            return Err(io::Error::last_os_error().into());
        }
        if count == 0 || polled[1].revents != 0 {
            endpoint.process()?;
        }
        if polled[0].revents != 0 {
            return Ok(());
        }
    }
}
