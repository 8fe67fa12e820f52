//! The command line, as a function: the program `holepunch`, and `python -m holepunch`, are this.
//!
//! [`run`] never ends the process and leaves its signal handlers as they were. stdout carries the peer's bytes and
//! nothing else; what is to be said goes to stderr. What each status and each event means is in `holepunch --help`
//! and in docs/cli.md.

mod arguments;
mod client;
mod exchange;
mod json;
mod lines;
mod meet;
mod pipe;
mod report;
mod serve;
mod settings;
mod signals;
mod status;
mod streams;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    sync::Arc,
    time::Instant,
};

use clap::Parser as _;

use self::{
    arguments::{Arguments, Command},
    report::{Report, Style},
    signals::Signals,
};
use crate::{Error, ErrorKind, Result};

/// What every command works with.
struct Context<'a> {
    report: Arc<Report>,
    signals: Signals,
    environment: settings::Environment<'a>,
}

/// Runs a command line, the program's name first, and returns the exit status.
///
/// Blocks until the command is over. stdin, stdout and stderr are those of the process; SIGINT and SIGTERM are caught
/// meanwhile and end the command. One command at a time runs in a process.
///
/// ```
/// assert_eq!(holepunch::cli::run(["holepunch", "--version"]), 0);
/// ```
pub fn run<I, T>(argv: I) -> i32
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let start = Instant::now();
    let argv: Vec<OsString> = argv.into_iter().map(Into::into).collect();
    let arguments = match Arguments::try_parse_from(&argv) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => return misused(&error, start, &argv),
        Err(help) => {
            let written = help.print().and_then(|()| io::stdout().flush());
            return if written.is_ok() { status::OK } else { status::OTHER };
        }
    };
    let style = match (arguments.json, arguments.quiet > 0, arguments.verbose > 0) {
        (true, _, _) => Style::Json,
        (false, true, _) => Style::Quiet,
        (false, false, true) => Style::Verbose,
        (false, false, false) => Style::Normal,
    };
    let report = Arc::new(Report::new(start, style));
    let fail = |error: &Error, status: i32| {
        report.failure(error, status);
        status
    };
    if arguments.quiet > 0 && arguments.verbose > 0 {
        let error = Error::new(ErrorKind::InvalidArgument, "-q and -v cannot be used together");
        return fail(&error.with_hint("give one of them"), status::USAGE);
    }
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(&error, status::of(error.kind())),
    };
    let context = Context { report: Arc::clone(&report), signals, environment: &|name| std::env::var_os(name) };
    // As in 2015, whatever kept `client` from opening.
    let status_of = if matches!(arguments.command, Command::Client(_)) { |_| status::OTHER } else { status::of };
    match (dispatch(arguments.command, &context), context.signals.failure()) {
        (Ok(()), _) => status::OK,
        (Err(_), Some((error, status))) => fail(&error, status),
        (Err(error), None) => fail(&error, status_of(error.kind())),
    }
}

fn dispatch(command: Command, context: &Context<'_>) -> Result<()> {
    let later = |name: &str, hint: &'static str| {
        Err(Error::new(ErrorKind::Unsupported, format!("this version has no `{name}` yet")).with_hint(hint))
    };
    match command {
        Command::Server(arguments) => serve::serve(arguments, context),
        Command::Listen(arguments) => meet::listen(&arguments, context),
        Command::Connect(arguments) => meet::connect(&arguments, context),
        Command::Netcheck(_) => later("netcheck", "try `listen` and `connect`, which say why they fail"),
        Command::Client(arguments) => client::client(&arguments, context),
    }
}

/// Says what is wrong with a command line: in full for a person, then the last line of every failure.
fn misused(error: &clap::Error, start: Instant, argv: &[OsString]) -> i32 {
    let json = argv.iter().skip(1).take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    if !json {
        let _ = error.print();
    }
    let message = if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "no command is given".to_owned()
    } else {
        // The first paragraph; usage and advice follow it.
        let text = error.render().to_string();
        let paragraph: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let paragraph = paragraph.join(" ");
        paragraph.strip_prefix("error: ").unwrap_or(&paragraph).to_owned()
    };
    let error = Error::new(ErrorKind::InvalidArgument, message).with_hint("see `holepunch --help`");
    Report::new(start, if json { Style::Json } else { Style::Quiet }).failure(&error, status::USAGE);
    status::USAGE
}
