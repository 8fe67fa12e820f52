//! A running program: its output by line, waited for with a deadline, and its end.

use crate::namespace::tie_to_starter;
use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Which output a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

#[derive(Default)]
struct Transcript {
    lines: Vec<(Stream, String)>,
    ended: usize,
}

#[derive(Default)]
struct Shared {
    transcript: Mutex<Transcript>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Transcript> {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills the program when it is dropped.
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    shared: Arc<Shared>,
}

impl Program {
    /// Starts `command` with all three streams connected to the guard. It also dies with the calling thread.
    pub fn spawn(name: &str, mut command: Command) -> io::Result<Self> {
        tie_to_starter(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{command:?}: {error}")))?;
        let shared = Arc::new(Shared::default());
        collect(&shared, Stream::Out, child.stdout.take());
        collect(&shared, Stream::Err, child.stderr.take());
        Ok(Self { name: name.to_owned(), stdin: child.stdin.take(), child, shared })
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or_else(|| io::Error::other("its input is closed"))?;
        stdin.write_all(format!("{line}\n").as_bytes())?;
        stdin.flush()
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until `stream` has a line that `wanted` accepts, among all lines so far and to come.
    ///
    /// # Errors
    ///
    /// When the output ended or `patience` is over; the text holds everything the program said.
    pub fn wait_for(
        &self,
        stream: Stream,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, String> {
        let deadline = Instant::now() + patience;
        let mut transcript = self.shared.lock();
        let mut seen = 0;
        loop {
            let found = transcript.lines[seen..].iter().find(|(from, line)| *from == stream && wanted(line));
            if let Some((_, line)) = found {
                return Ok(line.clone());
            }
            seen = transcript.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = transcript.ended == 2;
            if ended || left.is_zero() {
                drop(transcript);
                let why = if ended { "its output ended" } else { "it took too long" };
                return Err(format!("{} never said {what}: {why}; it said:\n{}", self.name, self.transcript()));
            }
            transcript = self.shared.changed.wait_timeout(transcript, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the program has ended, which it shows by closing its outputs.
    ///
    /// # Errors
    ///
    /// When `patience` is over; the text holds everything the program said.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + patience;
        let mut transcript = self.shared.lock();
        while transcript.ended < 2 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(transcript);
                return Err(format!("{} did not end; it said:\n{}", self.name, self.transcript()));
            }
            transcript = self.shared.changed.wait_timeout(transcript, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(transcript);
        self.child.wait().map_err(|error| format!("{}: {error}", self.name))
    }

    /// Sends a signal by name, as `kill` does.
    pub fn signal(&self, signal: &str) -> io::Result<()> {
        let status = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("kill failed")) }
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All lines of one stream so far.
    pub fn lines(&self, stream: Stream) -> Vec<String> {
        self.shared.lock().lines.iter().filter(|(from, _)| *from == stream).map(|(_, line)| line.clone()).collect()
    }

    /// Everything it said so far, each line marked with its stream.
    pub fn transcript(&self) -> String {
        let mark = |stream| if stream == Stream::Out { "out" } else { "err" };
        self.shared
            .lock()
            .lines
            .iter()
            .map(|(from, line)| format!("  {} {}: {line}\n", self.name, mark(*from)))
            .collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a stream to its end on a thread of its own.
fn collect(shared: &Arc<Shared>, stream: Stream, source: Option<impl Read + Send + 'static>) {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let mut lines = source.map(BufReader::new);
        let mut line = Vec::new();
        while let Some(reader) = &mut lines {
            line.clear();
            if !matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                break;
            }
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            shared.lock().lines.push((stream, text));
            shared.changed.notify_all();
        }
        shared.lock().ended += 1;
        shared.changed.notify_all();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::spawn("shell", command).unwrap()
    }

    #[test]
    fn lines_are_waited_for_by_stream() {
        let mut program = shell("echo one; echo two >&2; read -r word; echo got $word; exit 3");
        assert_eq!(program.wait_for(Stream::Out, "one", SOON, |line| line == "one").unwrap(), "one");
        assert_eq!(program.wait_for(Stream::Err, "two", SOON, |_| true).unwrap(), "two");
        program.say("it").unwrap();
        assert_eq!(program.wait_for(Stream::Out, "an answer", SOON, |line| line.starts_with("got")).unwrap(), "got it");
        assert_eq!(program.wait(SOON).unwrap().code(), Some(3));
    }

    #[test]
    fn the_end_of_the_output_ends_the_waiting() {
        let program = shell("echo one");
        let error = program.wait_for(Stream::Out, "two", SOON, |line| line == "two").unwrap_err();
        assert!(error.contains("its output ended") && error.contains("one"), "{error}");
    }

    #[test]
    fn the_deadline_ends_the_waiting() {
        let mut program = shell("read -r word");
        let error = program.wait_for(Stream::Out, "anything", Duration::from_millis(20), |_| true).unwrap_err();
        assert!(error.contains("took too long"), "{error}");
        program.end_input();
        program.wait(SOON).unwrap();
    }
}
