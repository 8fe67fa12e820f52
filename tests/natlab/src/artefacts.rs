//! The programs under test, built or found: the command, and the example listener and connector of each language.

use std::{
    env,
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Says on standard error, past the test harness's capture, that a test is skipped; `scripts/test` counts these lines.
pub fn skip(test: &str, why: &str) {
    // Nobody is left to tell when standard error is gone.
    let line = format!("SKIPPED: {test}: {why}").replace('\n', " ");
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// The languages of the examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `examples/rust`.
    Rust,
    /// `examples/c`.
    C,
    /// `examples/python`.
    Python,
}

/// The two example programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Example {
    /// `listener NAME`: answers each datagram with the same.
    Listener,
    /// `connector NAME MESSAGE...`: prints the answers.
    Connector,
}

impl Example {
    fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Connector => "connector",
        }
    }
}

/// Where the programs are; made once in a process.
#[derive(Debug)]
pub struct Artefacts {
    command: Result<PathBuf, String>,
    c: OnceLock<Result<PathBuf, String>>,
    python: OnceLock<Result<PathBuf, String>>,
}

impl Artefacts {
    /// Finds or builds the Rust programs: `$HOLEPUNCH_BIN`, or the command as cargo builds it now.
    pub fn get() -> &'static Self {
        static ARTEFACTS: OnceLock<Artefacts> = OnceLock::new();
        ARTEFACTS.get_or_init(|| Self {
            command: match env::var_os("HOLEPUNCH_BIN") {
                Some(path) => Ok(path.into()),
                None => build_rust().map(|()| target().join("debug/holepunch")),
            },
            c: OnceLock::new(),
            python: OnceLock::new(),
        })
    }

    /// The `holepunch` command.
    ///
    /// # Panics
    ///
    /// When it cannot be built: that is a failure of every test that needs it.
    pub fn holepunch(&self) -> Command {
        match &self.command {
            Ok(path) => clean(Command::new(path)),
            Err(error) => panic!("{error}"),
        }
    }

    /// The command as Python runs it, `python -m holepunch`.
    ///
    /// # Errors
    ///
    /// Why there is no Python with the package.
    pub fn python_holepunch(&self) -> Result<Command, String> {
        let mut command = clean(Command::new(self.python()?));
        command.args(["-m", "holepunch"]);
        Ok(command)
    }

    /// An example program.
    ///
    /// # Errors
    ///
    /// Why it cannot be run here: no compiler, no interpreter, no package.
    pub fn example(&self, language: Language, example: Example) -> Result<Command, String> {
        self.program(language, "examples/python", example.name())
    }

    /// A test program of `programs`: `streams` (`listen NAME` or `connect NAME`; there is none in Rust, the command does it),
    /// or `sends_only` (`NAME SECONDS`).
    ///
    /// # Errors
    ///
    /// Why it cannot be run here.
    pub fn test_program(&self, language: Language, name: &str) -> Result<Command, String> {
        self.program(language, "tests/natlab/programs", name)
    }

    fn program(&self, language: Language, scripts: &str, name: &str) -> Result<Command, String> {
        match language {
            Language::Rust => {
                static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
                BUILT.get_or_init(build_rust).clone()?;
                Ok(clean(Command::new(target().join("debug/examples").join(name))))
            }
            Language::C => Ok(clean(Command::new(self.c.get_or_init(build_c).clone()?.join(name)))),
            Language::Python => {
                let mut command = clean(Command::new(self.python()?));
                command.arg(root().join(scripts).join(format!("{name}.py")));
                Ok(command)
            }
        }
    }

    fn python(&self) -> Result<PathBuf, String> {
        self.python.get_or_init(find_python).clone()
    }
}

/// A test decides what its programs see of the settings.
fn clean(mut command: Command) -> Command {
    for name in ["HOLEPUNCH_SERVER", "HOLEPUNCH_BIND", "HOLEPUNCH_PORT", "HOLEPUNCH_SECRET"] {
        command.env_remove(name);
    }
    command
}

fn root() -> &'static Path {
    // This crate lives two folders down.
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The target directory that the running program was built into.
fn target() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let profile =
        program.parent().map(|folder| if folder.ends_with("deps") { folder.join("..") } else { folder.into() });
    profile.unwrap_or_default().join("..")
}

fn build_rust() -> Result<(), String> {
    cargo(&["--package", "holepunch", "--all-features", "--bins", "--examples"])
}

fn build_c() -> Result<PathBuf, String> {
    let sources = root().join("examples/c");
    let manifest = root().join("bindings/c/Cargo.toml");
    if !sources.join("listener.c").exists() || !manifest.exists() {
        return Err("there is no C library here".into());
    }
    cargo(&["--manifest-path", &manifest.to_string_lossy()])?;
    let folder = target().join("natlab-c");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let examples = [Example::Listener, Example::Connector].map(|example| sources.join(example.name()));
    let programs = ["streams", "sends_only"].map(|name| root().join("tests/natlab/programs").join(name));
    for source in examples.into_iter().chain(programs) {
        let mut command = Command::new(&compiler);
        command.arg("-I").arg(root().join("include")).arg(source.with_extension("c"));
        command.arg("-o").arg(folder.join(source.file_name().unwrap_or_default()));
        command.arg(target().join("debug/libholepunch.a"));
        run(command.args(["-lpthread", "-ldl", "-lm"]))?;
    }
    Ok(folder)
}

fn find_python() -> Result<PathBuf, String> {
    let python = env::var_os("HOLEPUNCH_TEST_PYTHON")
        .ok_or("HOLEPUNCH_TEST_PYTHON does not name an interpreter that has the package")?;
    run(Command::new(&python).args(["-c", "import holepunch"]).current_dir("/"))?;
    Ok(python.into())
}

fn cargo(arguments: &[&str]) -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .current_dir(root())
        .args(["build", "--quiet", "--profile", "test"])
        .args(arguments)
        .arg("--target-dir")
        .arg(target());
    run(&mut command)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
