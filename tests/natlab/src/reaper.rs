//! Removes what a lab made, whatever became of the lab.
//!
//! The reaper is a child process that reads from a pipe whose other end only the lab's process holds. Its read ends when the
//! lab is dropped or when the process dies, however it dies; then it kills what still runs in the lab's namespaces and
//! removes them. Being in a process group of its own, it outlives a Ctrl-C. There is no second way to clean up, so this one
//! is always exercised.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

/// Every namespace of every lab is called `natlab-<process>-<number>-<host>`.
pub(crate) const PREFIX: &str = "natlab-";

/// Removes the namespaces whose names begin with `$1`. Interfaces and rules go with them.
const REMOVE: &str = r#"
trap '' HUP INT TERM
cat > /dev/null
ip netns list | while read -r name rest; do
    case $name in "$1"*)
        for process in $(ip netns pids "$name"); do kill -KILL "$process"; done
        ip netns del "$name";;
    esac
done
"#;

/// The waiting child.
#[derive(Debug)]
pub(crate) struct Reaper(Child);

impl Reaper {
    /// Watches over the namespaces whose names begin with `prefix`.
    pub(crate) fn watch(prefix: &str) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", REMOVE, "natlab-reaper", prefix]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // Closes the pipe and waits; there is nobody to tell of a failure, and the next lab tries again.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Removes what labs of dead processes left: those whose reaper was killed as well.
pub(crate) fn remove_leftovers() -> io::Result<()> {
    let listed = Command::new("ip").args(["netns", "list"]).stderr(Stdio::null()).output()?;
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(process) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        let alive = std::path::Path::new("/proc").join(process).exists();
        if process.parse::<u32>().is_ok() && !alive {
            drop(Reaper::watch(name)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reaper_ends_with_its_input() {
        let mut reaper = Reaper::watch("natlab-none-").unwrap();
        assert!(reaper.0.try_wait().unwrap().is_none());
        drop(reaper.0.stdin.take());
        assert!(reaper.0.wait().unwrap().success() || Command::new("ip").arg("-V").output().is_err());
    }
}
