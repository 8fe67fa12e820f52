//! Builds what the tests link and run: the library, C programs, the examples.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where cargo puts what [`cargo_build`] builds.
fn target() -> PathBuf {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    scratch.parent().expect("cargo's scratch directory is within its target directory").to_owned()
}

/// Builds a part of the workspace for debugging, and returns the directory with the results. The tests cannot link
/// the library as cargo's dependency (it is no Rust library), and cargo does not build examples of other packages.
pub(crate) fn cargo_build(arguments: &[&str]) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet"])
        .args(arguments)
        .arg("--target-dir")
        .arg(target())
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo build {arguments:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    target().join("debug")
}

/// The directory with the shared library, under the names that linker and loader look for.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let built = cargo_build(&["--package", "holepunch-c", "--lib"]).join("libholepunch.so");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned();
        for name in ["libholepunch.so", "libholepunch.so.0"] {
            let link = unfinished(&directory.join(name));
            std::os::unix::fs::symlink(&built, &link).expect("a symbolic link");
            std::fs::rename(link, directory.join(name)).expect("it can be renamed");
        }
        directory
    })
}

/// Where to make a file before it gets its name at once: another process may use an older one of that name.
fn unfinished(path: &Path) -> PathBuf {
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&unfinished);
    unfinished
}

/// How a C program is built and run.
#[allow(dead_code, reason = "not every test has all of them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As users do.
    Plain,
    /// Under AddressSanitizer with LeakSanitizer, and UndefinedBehaviorSanitizer. They look into the C program and,
    /// as all memory comes from their allocator, see what the library leaks or frees twice.
    Sanitised,
    /// Under valgrind's memcheck, which looks into the library, too.
    Memcheck,
}

/// What every sanitised program is compiled with.
const SANITISERS: [&str; 3] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

#[allow(dead_code, reason = "not every test has all ways")]
impl Way {
    /// Whether this machine has what it needs. Where not, that is said past the test harness's capture, and
    /// `scripts/test` counts it.
    pub(crate) fn is_there(self, test: &str) -> bool {
        let (tool, why) = match self {
            Self::Plain => return true,
            Self::Sanitised => {
                let probe = Command::new("sh")
                    .arg("-c")
                    .arg(format!("echo 'int main(void) {{ return 0; }}' | cc {} -xc - -o /dev/null", SANITISERS[0]))
                    .output();
                (probe, "the C compiler has no sanitisers (Debian: libasan and libubsan)")
            }
            Self::Memcheck => (Command::new("valgrind").arg("--version").output(), "there is no valgrind"),
        };
        let is_there = tool.is_ok_and(|output| output.status.success());
        if !is_there {
            // Nobody is left to tell when standard error is gone.
            let _ = std::io::stderr().write_all(format!("SKIPPED: {test}: {why}\n").as_bytes());
        }
        is_there
    }

    /// A program built this way, whose output is kept, and which is ended with status 124 when it hangs.
    pub(crate) fn program(self, path: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.arg("300");
        if self == Self::Memcheck {
            command.args(["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"]);
            // What is still reachable, if only by a pointer to its middle, as the standard library has one to the main
            // thread, is no leak.
            command.args(["--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect"]);
        }
        command.arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("ASAN_OPTIONS", "detect_leaks=1:detect_stack_use_after_return=1");
        command.env("UBSAN_OPTIONS", "print_stacktrace=1");
        command
    }
}

/// Compiles a C program, strictly, and returns its path.
#[allow(dead_code, reason = "not every test compiles programs")]
pub(crate) fn compile(source: &str) -> PathBuf {
    compile_for(source, Way::Plain)
}

/// Compiles a C program, strictly, to be run in a certain way, and returns its path.
#[allow(dead_code, reason = "not every test compiles programs")]
pub(crate) fn compile_for(source: &str, way: Way) -> PathBuf {
    let library = format!("-Wl,-rpath,{}", library().display());
    let directory = library_argument();
    compile_with(&root().join(source), way, &[&directory, "-lholepunch", "-ldl", &library])
}

fn library_argument() -> String {
    format!("-L{}", library().display())
}

/// Compiles a C program, strictly, with these last arguments, and returns its path.
#[allow(dead_code, reason = "not every test compiles programs")]
pub(crate) fn compile_with(source: &Path, way: Way, arguments: &[&str]) -> PathBuf {
    let mut name = source.file_stem().expect("a source has a name").to_owned();
    if way == Way::Sanitised {
        name.push("-sanitised");
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let unfinished = unfinished(&program);
    let output = Command::new("cc")
        .args(["-std=c99", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread", "-I"])
        .arg(root().join("include"))
        .arg("-I")
        .arg(root().join("bindings/c/tests/c"))
        .arg(format!("-DEXPECTED_VERSION=\"{}\"", env!("CARGO_PKG_VERSION")))
        .args(if way == Way::Sanitised { &SANITISERS[..] } else { &[] })
        .arg(source)
        .arg("-o")
        .arg(&unfinished)
        .args(arguments)
        .output()
        .expect("a C compiler is installed");
    assert!(output.status.success(), "{}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
    std::fs::rename(unfinished, &program).expect("it can be renamed");
    program
}

/// A program whose output is kept, and which is ended with status 124 when it hangs.
#[allow(dead_code, reason = "not every test runs programs")]
pub(crate) fn program(path: &Path) -> Command {
    Way::Plain.program(path)
}

/// Runs a program to its end.
#[allow(dead_code, reason = "not every test runs programs")]
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

/// Asserts that a program ended well.
#[allow(dead_code, reason = "not every test runs programs")]
pub(crate) fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// A `holepunch server` on a free port of the loopback interface, ended with this.
#[allow(dead_code, reason = "not every test needs a server")]
pub(crate) struct Server {
    process: std::process::Child,
    /// What to set `HOLEPUNCH_SERVER` to.
    pub(crate) address: String,
}

#[allow(dead_code, reason = "not every test needs a server")]
impl Server {
    pub(crate) fn start() -> Self {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        let built = BUILT.get_or_init(|| cargo_build(&["--features", "cli", "--bin", "holepunch"]));
        let mut process = Command::new(built.join("holepunch"))
            .args(["--json", "server", "--host", "127.0.0.1", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let listening =
            lines.by_ref().find(|line| line.contains("\"listening\"")).expect("the server says where it listens");
        // Read to the end, so that the server never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let udp = listening.split("\"udp\":").nth(1).expect("it tells its UDP addresses");
        let address = udp.split('"').nth(1).expect("and there is one").to_owned();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
