//! The servers as processes: started, watched and killed.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use crate::Failure;

/// Prints a line for the process that started this one.
pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Whether servers and clients can have a processor each; asked before this process is kept on one itself.
fn several() -> bool {
    static SEVERAL: OnceLock<bool> = OnceLock::new();
    *SEVERAL.get_or_init(|| thread::available_parallelism().is_ok_and(|count| count.get() > 1))
}

/// Keeps a process, and whatever it starts from now on, on one processor, where there are several.
fn pin(process: u32, processor: &str) {
    if several() {
        let mut command = Command::new("taskset");
        // Without it the numbers are only less steady.
        let _ = command.args(["-cp", processor, &process.to_string()]).stdout(Stdio::null()).status();
    }
}

/// Keeps the clients away from the servers.
pub(crate) fn pin_self() {
    pin(std::process::id(), "1");
}

/// A running server, or what keeps one busy. Killed when dropped.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) port: u16,
    child: Child,
}

impl Process {
    /// This program's own server.
    pub(crate) fn own() -> Result<Self, Failure> {
        Self::server("holepunch", &mut Self::worker(&["serve"])?)
    }

    /// This program in another role.
    pub(crate) fn worker(arguments: &[&str]) -> Result<Command, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        Ok(command)
    }

    /// Starts a program that prints its port when it is ready.
    pub(crate) fn server(name: &str, command: &mut Command) -> Result<Self, Failure> {
        let mut process = Self::start(name, command.stdout(Stdio::piped()), 0)?;
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        process.port = line.trim().parse().map_err(|_| format!("{name} said {line:?}, which is no port"))?;
        Ok(process)
    }

    /// Starts a program, on the servers' processor.
    pub(crate) fn start(name: &str, command: &mut Command, port: u16) -> Result<Self, Failure> {
        let child = command.stdin(Stdio::null()).spawn().map_err(|error| format!("{name}: {error}"))?;
        pin(child.id(), "0");
        Ok(Self { name: name.to_owned(), port, child })
    }

    /// The processor time of all its threads so far.
    pub(crate) fn processor_time(&self) -> Result<Duration, Failure> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Bytes of memory that it has of its own and that are there: heap and stacks.
    pub(crate) fn memory(&self) -> Result<u64, Failure> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("the system tells no RssAnon")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
