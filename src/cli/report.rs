//! What the program says on stderr: lines for a person, with a progress line on a terminal, or JSON Lines.
//!
//! A stderr that cannot be written to is no reason to stop: nothing here fails.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use super::json::Object;
use crate::{Error, io::local_time, machine::Level};

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Events, as JSON Lines.
    Json,
    /// The reason of a failure only.
    Quiet,
    /// What a person follows.
    Normal,
    /// Everything.
    Verbose,
}

/// Writes the lines, from any thread.
pub(super) struct Report {
    start: Instant,
    style: Style,
    animated: bool,
    screen: Mutex<Screen>,
}

struct Screen {
    out: Box<dyn Write + Send>,
    /// Whether the last line on the terminal is a progress line, to be overwritten.
    progress: bool,
}

impl Report {
    /// Reports to stderr; `start` is when the program started.
    pub(super) fn new(start: Instant, style: Style) -> Self {
        let animated = matches!(style, Style::Normal | Style::Verbose)
            && io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { animated, ..Self::to(Box::new(io::stderr()), start, style) }
    }

    fn to(out: Box<dyn Write + Send>, start: Instant, style: Style) -> Self {
        Self { start, style, animated: false, screen: Mutex::new(Screen { out, progress: false }) }
    }

    /// Writes an event, if events are wanted; `fields` appends to what every event has.
    pub(super) fn event(&self, name: &str, fields: impl FnOnce(Object) -> Object) {
        if self.style != Style::Json {
            return;
        }
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let object = Object::new().string("event", name).number("t", self.start.elapsed().as_secs_f64(), 6).number(
            "time",
            unix.as_secs_f64(),
            3,
        );
        self.write(&fields(object).finish());
    }

    /// Writes a line that a person follows.
    pub(super) fn line(&self, text: &str) {
        if matches!(self.style, Style::Normal | Style::Verbose) {
            self.write(&one_line(text));
        }
    }

    /// Writes a line of the library's log: warnings, with `-v` everything.
    pub(super) fn log(&self, level: Level, text: &str) {
        let wanted = match self.style {
            Style::Json | Style::Quiet => false,
            Style::Normal => level <= Level::Warn,
            Style::Verbose => true,
        };
        if wanted {
            self.write(&one_line(text));
        }
    }

    /// Writes a line as the package of 2015 logged it, with the time of day.
    pub(super) fn record(&self, level: Level, text: &str) {
        let name = match level {
            Level::Error => "ERROR",
            Level::Warn => "WARNING",
            Level::Info => "INFO",
            Level::Debug => return,
        };
        self.line(&format!("{} {name}: {text}", local_time()));
    }

    /// Writes the last line of a failure.
    pub(super) fn failure(&self, error: &Error, status: i32) {
        if self.style == Style::Json {
            self.event("error", |object| {
                object
                    .string("kind", error.kind())
                    .string("message", error.message())
                    .string("hint", error.hint())
                    .integer("status", status)
            });
        } else {
            self.write(&one_line(&format!("holepunch: {error}")));
        }
    }

    /// Shows on a terminal what is waited for, and for how long, until the guard is dropped.
    pub(super) fn progress(self: &Arc<Self>, text: &str) -> Option<Progress> {
        if !self.animated {
            return None;
        }
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let (report, text, shared) = (Arc::clone(self), one_line(text), Arc::clone(&over));
        let thread = std::thread::Builder::new().name("holepunch-progress".into()).spawn(move || {
            let start = Instant::now();
            let (over, changed) = &*shared;
            let mut guard = over.lock().unwrap_or_else(PoisonError::into_inner);
            while !*guard {
                report.show_progress(&format!("{text} ({} s)", start.elapsed().as_secs()));
                guard = changed.wait_timeout(guard, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(guard);
            report.clear_progress();
        });
        Some(Progress { over, thread: thread.ok() })
    }

    fn screen(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a whole line at once, in place of a progress line.
    fn write(&self, line: &str) {
        let mut screen = self.screen();
        let clear = if std::mem::take(&mut screen.progress) { CLEAR } else { "" };
        let _ = screen.out.write_all(format!("{clear}{line}\n").as_bytes());
        let _ = screen.out.flush();
    }

    fn show_progress(&self, text: &str) {
        let mut screen = self.screen();
        let _ = screen.out.write_all(format!("{CLEAR}{text}").as_bytes());
        let _ = screen.out.flush();
        screen.progress = true;
    }

    fn clear_progress(&self) {
        let mut screen = self.screen();
        if std::mem::take(&mut screen.progress) {
            let _ = screen.out.write_all(CLEAR.as_bytes());
            let _ = screen.out.flush();
        }
    }
}

/// To the beginning of the line, and erase to its end (ECMA-48).
const CLEAR: &str = "\r\x1b[K";

/// A progress line that is shown until this is dropped.
pub(super) struct Progress {
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        let (over, changed) = &*self.over;
        *over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The text without control characters: what a server or a system says must neither break a line nor steer a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(style: Style, say: impl FnOnce(&Report)) -> String {
        let sink = Sink::default();
        say(&Report::to(Box::new(sink.clone()), Instant::now(), style));
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn everything(report: &Report) {
        report.event("listening", |object| object.strings("udp", ["a"]));
        report.line("a line");
        report.log(Level::Warn, "a warning");
        report.log(Level::Debug, "a detail");
        report.failure(&Error::new(ErrorKind::NotFound, "no\nlistener\x1b[1m").with_hint("try again"), 4);
    }

    #[test]
    fn each_style_has_its_lines_and_all_have_the_failure_last() {
        let failure = "holepunch: no listener [1m; try again\n";
        assert_eq!(said(Style::Quiet, everything), failure);
        assert_eq!(said(Style::Normal, everything), format!("a line\na warning\n{failure}"));
        assert_eq!(said(Style::Verbose, everything), format!("a line\na warning\na detail\n{failure}"));
    }

    #[test]
    fn events_have_a_name_and_both_times() {
        let said = said(Style::Json, everything);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(lines[0].starts_with(r#"{"event":"listening","t":0."#), "{said}");
        assert!(lines[0].contains(r#","time":"#) && lines[0].ends_with(r#","udp":["a"]}"#), "{said}");
        let error = r#""kind":"not_found","message":"no\nlistener\u001b[1m","hint":"try again","status":4}"#;
        assert!(lines[1].ends_with(error), "{said}");
    }

    #[test]
    fn records_have_the_time_of_day() {
        let said = said(Style::Normal, |report| {
            report.record(Level::Info, "Open server socket");
            report.record(Level::Debug, "a detail");
        });
        let (time, text) = said.split_at("2026-11-23 03:12:53,827".len());
        assert!(time.starts_with("20"), "{said}");
        assert_eq!(text, " INFO: Open server socket\n");
        assert_eq!(super::tests::said(Style::Json, |report| report.record(Level::Info, "no event")), "");
    }

    #[test]
    fn a_progress_line_gives_way_to_others() {
        let said = said(Style::Normal, |report| {
            report.show_progress("waiting");
            report.line("done");
            report.line("more");
        });
        assert_eq!(said, "\r\x1b[Kwaiting\r\x1b[Kdone\nmore\n");
    }
}
