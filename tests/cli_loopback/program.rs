//! The program run as a child, its stderr read as events.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::JoinHandle,
    time::Duration,
};

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// As much of JSON as the events use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Number(f64),
    String(String),
    Array(Vec<Self>),
}

/// A reader of one flat object; it panics at anything that is not JSON.
struct Parser<'a>(std::iter::Peekable<std::str::Chars<'a>>);

impl Parser<'_> {
    fn expect(&mut self, wanted: char) {
        assert_eq!(self.0.next(), Some(wanted));
    }

    fn string(&mut self) -> String {
        self.expect('"');
        let mut text = String::new();
        loop {
            match self.0.next().unwrap() {
                '"' => return text,
                '\\' => text.push(match self.0.next().unwrap() {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => {
                        let digits: String = self.0.by_ref().take(4).collect();
                        char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
                    }
                    other => other,
                }),
                control if control < ' ' => panic!("a bare control character"),
                other => text.push(other),
            }
        }
    }

    fn value(&mut self) -> Json {
        match self.0.peek().unwrap() {
            '"' => Json::String(self.string()),
            '[' => {
                self.expect('[');
                let mut values = Vec::new();
                while *self.0.peek().unwrap() != ']' {
                    if !values.is_empty() {
                        self.expect(',');
                    }
                    values.push(self.value());
                }
                self.expect(']');
                Json::Array(values)
            }
            'n' => {
                "null".chars().for_each(|character| self.expect(character));
                Json::Null
            }
            _ => {
                let mut digits = String::new();
                while let Some(character) = self.0.next_if(|character| !",]}".contains(*character)) {
                    digits.push(character);
                }
                Json::Number(digits.parse().unwrap())
            }
        }
    }

    fn object(&mut self) -> BTreeMap<String, Json> {
        let mut fields = BTreeMap::new();
        self.expect('{');
        while *self.0.peek().unwrap() != '}' {
            if !fields.is_empty() {
                self.expect(',');
            }
            let key = self.string();
            self.expect(':');
            assert_eq!(fields.insert(key, self.value()), None);
        }
        self.expect('}');
        assert_eq!(self.0.next(), None);
        fields
    }
}

/// One line of `--json`.
#[derive(Clone, Debug)]
pub(crate) struct Event(pub(crate) BTreeMap<String, Json>);

impl Event {
    pub(crate) fn parse(line: &str) -> Self {
        let event = Self(Parser(line.chars().peekable()).object());
        assert!(event.number("t") >= 0.0 && event.number("time") > 1.7e9, "{line}");
        event
    }

    pub(crate) fn name(&self) -> &str {
        self.text("event")
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        match self.0.get(key) {
            Some(Json::String(text)) => text,
            other => panic!("{key} is {other:?} in {self:?}"),
        }
    }

    pub(crate) fn number(&self, key: &str) -> f64 {
        match self.0.get(key) {
            Some(Json::Number(number)) => *number,
            other => panic!("{key} is {other:?} in {self:?}"),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        let Some(Json::Array(values)) = self.0.get(key) else { panic!("{key} is no array in {self:?}") };
        values
            .iter()
            .map(|value| match value {
                Json::String(text) => text.clone(),
                other => panic!("{other:?} in {key}"),
            })
            .collect()
    }
}

/// A running program; killed when the test ends before it does.
pub(crate) struct Program {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stderr: Receiver<String>,
    pub(crate) stdout: Option<Receiver<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    pub(crate) fn start_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holepunch"));
        for name in ["HOLEPUNCH_SERVER", "HOLEPUNCH_BIND", "HOLEPUNCH_PORT", "HOLEPUNCH_SECRET"] {
            command.env_remove(name);
        }
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut readers = Vec::new();
        let (sender, stderr) = channel();
        let source = BufReader::new(child.stderr.take().unwrap());
        readers.push(std::thread::spawn(move || {
            for line in source.lines() {
                let _ = sender.send(line.unwrap());
            }
        }));
        let stdout = child.stdout.take().map(|mut source| {
            let (sender, stdout) = channel();
            readers.push(std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = source.read(&mut buffer) {
                    let _ = sender.send(buffer[..length].to_vec());
                }
            }));
            stdout
        });
        Self { what: arguments.join(" "), stdin: child.stdin.take(), child, stderr, stdout, readers }
    }

    /// The next line of stderr.
    pub(crate) fn line(&self) -> String {
        self.stderr.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{}: {error}", self.what))
    }

    /// The next event, which must be this one.
    pub(crate) fn event(&self, name: &str) -> Event {
        let event = Event::parse(&self.line());
        assert_eq!(event.name(), name, "{}: {event:?}", self.what);
        event
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Writes, unless the program has gone.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stdin.as_mut().unwrap().write_all(bytes).is_ok()
    }

    pub(crate) fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Bytes of stdout until there are as many as expected.
    pub(crate) fn read(&self, expected: &[u8]) {
        let mut bytes = Vec::new();
        while bytes.len() < expected.len() {
            let more = self.stdout.as_ref().unwrap().recv_timeout(PATIENCE);
            bytes.extend(more.unwrap_or_else(|error| panic!("{}: {error}, with {bytes:?}", self.what)));
        }
        assert_eq!(bytes, expected, "{}", self.what);
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &id]).status().unwrap().success());
    }

    /// Waits for the end, and returns the status and what was not read of stderr.
    pub(crate) fn finish(&mut self) -> (i32, Vec<String>) {
        let mut lines = Vec::new();
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{} does not end: {lines:?}", self.what),
            }
        }
        let status = self.child.wait().unwrap();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (status.code().unwrap_or_else(|| panic!("{}: {status}", self.what)), lines)
    }

    /// Waits for the end, which must have this status; the last line must be the error event that goes with it.
    pub(crate) fn fail(&mut self, status: i32, kind: &str) -> Vec<Event> {
        let (code, lines) = self.finish();
        let events: Vec<_> = lines.iter().map(|line| Event::parse(line)).collect();
        assert_eq!(code, status, "{}: {events:?}", self.what);
        let error = events.last().unwrap();
        assert_eq!((error.name(), error.text("kind")), ("error", kind), "{}: {events:?}", self.what);
        assert_eq!(error.number("status"), f64::from(status));
        assert!(!error.text("message").is_empty() && !error.text("hint").is_empty(), "{error:?}");
        events
    }

    /// Waits for the end, which must be clean, with nothing more to say than that it is over.
    pub(crate) fn succeed(&mut self) -> Event {
        let (code, lines) = self.finish();
        assert_eq!((code, lines.len()), (0, 1), "{}: {lines:?}", self.what);
        let event = Event::parse(&lines[0]);
        assert_eq!((event.name(), event.text("reason")), ("closed", "end"));
        event
    }
}

/// The next bytes of stdout; `None` at its end.
pub(crate) fn wait_for_more(program: &mut Program) -> Option<Vec<u8>> {
    match program.stdout.as_ref().unwrap().recv_timeout(PATIENCE) {
        Ok(bytes) => Some(bytes),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("{} does not end", program.what),
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
