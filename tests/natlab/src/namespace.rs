//! One network namespace, how threads and child processes enter it, and how a child is tied to its maker.
//!
//! `setns` changes the calling thread only, and sockets stay where they were made. So work inside a namespace is done by a
//! thread of its own that ends afterwards, and a program enters between fork and exec.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
    sync::Arc,
    thread,
};

/// A namespace by name, held open.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace; `ip netns` gives it its name, under which everybody finds it.
    pub(crate) fn create(name: String) -> io::Result<Self> {
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let file = Arc::new(File::open(format!("/run/netns/{name}"))?);
        let namespace = Self { name, file };
        // As by default in a fresh system, but without the second that duplicate address detection takes.
        namespace.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// Runs `work` on a thread inside the namespace.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let fd = self.file.as_raw_fd();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                enter(fd)?;
                Ok(work())
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Makes `command` start inside the namespace.
    pub(crate) fn confine(&self, command: &mut Command) {
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; `setns` is a bare system call and nothing is
        // allocated. The descriptor lives as long as the closure, which owns the file.
        unsafe {
            command.pre_exec(move || enter(file.as_raw_fd()));
        }
    }

    /// Runs a batch of iproute2 commands inside.
    pub(crate) fn ip(&self, batch: &str) -> io::Result<()> {
        run(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), batch)
    }

    /// Loads nftables rules inside.
    pub(crate) fn nft(&self, rules: &str) -> io::Result<()> {
        let mut command = Command::new("nft");
        self.confine(&mut command);
        run(command.args(["-f", "-"]), rules)
    }

    /// Writes a value below `/proc/sys`, which shows the namespace of the thread that looks.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        self.within(|| std::fs::write(format!("/proc/sys/{key}"), value))?
            .map_err(|error| io::Error::new(error.kind(), format!("sysctl {key}={value}: {error}")))
    }
}

/// Makes `command` die when the thread that starts it ends, so that no program outlives a test or a demonstration that was
/// killed, in a namespace or not.
pub(crate) fn tie_to_starter(command: &mut Command) {
    let tie = || {
        // SAFETY: a bare system call, safe between fork and exec; it concerns the calling process only.
        let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: `tie` allocates nothing and makes one async-signal-safe call.
    unsafe {
        command.pre_exec(tie);
    }
}

/// Moves the calling thread into the namespace behind `fd`.
fn enter(fd: RawFd) -> io::Result<()> {
    // SAFETY: no memory is involved; a descriptor that is no namespace gives an error.
    if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs a tool to its end with `input` on its standard input; its complaint is the error.
pub(crate) fn run(command: &mut Command, input: &str) -> io::Result<()> {
    use std::{io::Write as _, process::Stdio};

    let tool = command.get_program().to_string_lossy().into_owned();
    let words: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{tool}: {error}"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(explain)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(explain)?;
    }
    let output = child.wait_with_output().map_err(explain)?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{tool} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim())))
}
