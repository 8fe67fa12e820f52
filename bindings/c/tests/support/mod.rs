//! Builds what the tests link and run: the library, C programs, the examples.

use std::{
    io::{BufRead, BufReader},
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

/// Compiles a C program, strictly, and returns its path.
#[allow(dead_code, reason = "not every test compiles programs")]
pub(crate) fn compile(source: &str) -> PathBuf {
    let source = root().join(source);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(source.file_stem().expect("a source has a name"));
    let unfinished = unfinished(&program);
    let output = Command::new("cc")
        .args(["-std=c99", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread", "-I"])
        .arg(root().join("include"))
        .arg(format!("-DEXPECTED_VERSION=\"{}\"", env!("CARGO_PKG_VERSION")))
        .arg(&source)
        .arg("-o")
        .arg(&unfinished)
        .arg("-L")
        .arg(library())
        .arg("-lholepunch")
        .arg(format!("-Wl,-rpath,{}", library().display()))
        .output()
        .expect("a C compiler is installed");
    assert!(output.status.success(), "{}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
    std::fs::rename(unfinished, &program).expect("it can be renamed");
    program
}

/// A program whose output is kept, and which is ended with status 124 after two minutes.
#[allow(dead_code, reason = "not every test runs programs")]
pub(crate) fn program(path: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg("120").arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
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
