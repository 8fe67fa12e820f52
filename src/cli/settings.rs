//! What comes from files and the environment: the secret, and the server's settings.
//!
//! An argument goes before the environment, which goes before the file, which goes before the default. A setting that
//! is there and cannot be right is an error wherever it stands; it is never skipped.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStringExt as _,
    path::Path,
    time::Duration,
};

use toml::{Table, Value};

use super::arguments::ServerArguments;
use crate::{
    Error, ErrorKind, Result,
    rendezvous::keys::Secret,
    server::{Advertise, Options},
};

/// Bytes of a secret's or settings' file at most; more is a mistake, such as a device that never ends.
const MAX_FILE: u64 = 1 << 16;

/// An environment to look names up in.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The secret from `--secret-file`, else from `HOLEPUNCH_SECRET`; one newline at its end is not part of it.
pub(super) fn secret(file: Option<&Path>, environment: Environment<'_>) -> Result<Option<Secret>> {
    let (mut bytes, origin) = match file {
        Some(path) => (read(path, "the secret's file")?, format!("the file {}", path.display())),
        None => match environment("HOLEPUNCH_SECRET") {
            Some(value) => (value.into_vec(), "HOLEPUNCH_SECRET".to_owned()),
            None => return Ok(None),
        },
    };
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Secret::new(bytes).map(Some).map_err(|error| {
        Error::new(error.kind(), format!("{} ({origin})", error.message())).with_hint(error.hint().to_owned())
    })
}

/// The server's options from its arguments, the environment and its file.
pub(super) fn server(arguments: ServerArguments, environment: Environment<'_>) -> Result<Options> {
    let mut options = Options::default();
    let mut stun_rate = None;
    if let Some(path) = &arguments.config {
        let text = String::from_utf8(read(path, "the settings' file")?)
            .map_err(|_| invalid(format!("the settings' file {} is not UTF-8", path.display())))?;
        stun_rate = apply_file(&text, &mut options)
            .map_err(|error| error.rename(&format!("the settings' file {}", path.display())))?;
    }
    if let Some(value) = environment("HOLEPUNCH_PORT") {
        options.punch_port = value.to_str().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
            invalid(format!("HOLEPUNCH_PORT is {value:?}, which is no port"))
                .with_hint("set it to a number from 1 to 65535, or unset it")
        })?;
    }
    options.host = arguments.host.or(options.host);
    options.port = arguments.port.unwrap_or(options.port);
    options.punch_port = arguments.punch_port.unwrap_or(options.punch_port);
    options.advertise = arguments.advertise.or(options.advertise);
    if let Some(rate) = arguments.stun_rate.or(stun_rate) {
        options.config.stun_rate = rate;
    }
    Ok(options)
}

/// What is wrong in a settings' file, without saying in which.
struct FileError(String);

impl FileError {
    fn rename(self, file: &str) -> Error {
        invalid(format!("{file}: {}", self.0)).with_hint(
            "its keys are host, port, punch_port, advertise, legacy, stun_rate, introduction_rate, \
             max_registrations, max_registrations_per_network, max_connections, max_connections_per_network, \
             first_word and idle_connection; see `holepunch server --help`",
        )
    }
}

/// Takes the settings of a file over, and returns its `stun_rate`.
fn apply_file(text: &str, options: &mut Options) -> core::result::Result<Option<u32>, FileError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
        FileError(match line {
            Some(line) => format!("line {line}: {}", error.message().replace('\n', ", ")),
            None => error.message().replace('\n', ", "),
        })
    })?;
    let mut stun_rate = None;
    for (key, value) in table {
        match key.as_str() {
            "host" => options.host = Some(string(&key, &value)?),
            "port" => options.port = number(&key, &value)?,
            "punch_port" => options.punch_port = number(&key, &value)?,
            "advertise" => {
                let advertise = string(&key, &value)?.parse::<Advertise>();
                options.advertise =
                    Some(advertise.map_err(|error| FileError(format!("advertise: {}", error.message())))?);
            }
            "legacy" => options.config.legacy = boolean(&key, &value)?,
            "introduction_rate" => options.config.introduction_rate = number(&key, &value)?,
            "max_registrations" => options.config.max_registrations = number(&key, &value)?,
            "max_registrations_per_network" => {
                options.config.max_registrations_per_network = number(&key, &value)?;
            }
            "max_connections" => options.config.max_connections = number(&key, &value)?,
            "max_connections_per_network" => {
                options.config.max_connections_per_network = number(&key, &value)?;
            }
            "first_word" => options.config.first_word = seconds(&key, &value)?,
            "idle_connection" => options.config.idle_connection = seconds(&key, &value)?,
            "stun_rate" => stun_rate = Some(number(&key, &value)?),
            _ => return Err(FileError(format!("unknown key \"{}\"", key.escape_debug()))),
        }
    }
    Ok(stun_rate)
}

fn string(key: &str, value: &Value) -> core::result::Result<String, FileError> {
    let text = value
        .as_str()
        .ok_or_else(|| FileError(format!("{key} is to be a string, and is of type {}", value.type_str())))?;
    Ok(text.to_owned())
}

fn boolean(key: &str, value: &Value) -> core::result::Result<bool, FileError> {
    value
        .as_bool()
        .ok_or_else(|| FileError(format!("{key} is to be true or false, and is of type {}", value.type_str())))
}

fn number<T: TryFrom<i64>>(key: &str, value: &Value) -> core::result::Result<T, FileError> {
    let integer = value
        .as_integer()
        .ok_or_else(|| FileError(format!("{key} is to be a number, and is of type {}", value.type_str())))?;
    T::try_from(integer).map_err(|_| FileError(format!("{key} cannot be {integer}")))
}

/// A time that ends: zero would close every connection at once.
fn seconds(key: &str, value: &Value) -> core::result::Result<Duration, FileError> {
    match number::<u32>(key, value)? {
        0 => Err(FileError(format!("{key} cannot be 0"))),
        seconds => Ok(Duration::from_secs(seconds.into())),
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let result = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    match result {
        Ok(length) if length as u64 <= MAX_FILE => Ok(bytes),
        Ok(_) => Err(invalid(format!("{what} {} is longer than {MAX_FILE} bytes", path.display()))),
        Err(error) => Err(unreadable(path, what, &error)),
    }
}

fn unreadable(path: &Path, what: &str, error: &io::Error) -> Error {
    invalid(format!("{what} {} cannot be read: {error}", path.display()))
        .with_hint("check the file's name and its permissions")
        .with_os_code(error.raw_os_error())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file that is removed again.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("holepunch-settings-{}-{name}", std::process::id()));
            std::fs::write(&path, content).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    fn only(name: &'static str, value: &'static str) -> impl Fn(&str) -> Option<OsString> {
        move |asked| (asked == name).then(|| value.into())
    }

    fn with_file(content: &str) -> core::result::Result<Options, String> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = Scratch::new(&format!("config-{number}"), content.as_bytes());
        let arguments = ServerArguments { config: Some(file.0.clone()), ..ServerArguments::default() };
        server(arguments, &nothing).map_err(|error| {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            error.message().to_owned()
        })
    }

    #[test]
    fn a_secret_has_sixteen_bytes_without_its_newline() {
        let long = Scratch::new("long", b"sixteen bytes ok\n");
        assert!(secret(Some(&long.0), &nothing).unwrap().is_some());
        let short = Scratch::new("short", b"fifteen bytes..\n");
        let error = secret(Some(&short.0), &nothing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("short"), "{error}");
        assert!(secret(None, &nothing).unwrap().is_none());
        assert!(secret(None, &only("HOLEPUNCH_SECRET", "sixteen bytes ok")).unwrap().is_some());
        assert!(secret(None, &only("HOLEPUNCH_SECRET", "")).is_err(), "an empty secret is no consent to have none");
        assert!(secret(Some(&long.0), &only("HOLEPUNCH_SECRET", "short")).is_ok(), "the argument goes first");
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_named() {
        let error = secret(Some(Path::new("/nonexistent/secret")), &nothing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("/nonexistent/secret"), "{error}");
        let endless = secret(Some(Path::new("/dev/zero")), &nothing).unwrap_err();
        assert!(endless.message().contains("longer than"), "{endless}");
    }

    #[test]
    fn a_settings_file_is_taken_over() {
        let options = with_file(
            "host = \"::1\"\nport = 7\npunch_port = 8\nadvertise = \"192.0.2.1:9\"\nstun_rate = 0 # no limit\n",
        )
        .unwrap();
        assert_eq!((options.host.as_deref(), options.port, options.punch_port), (Some("::1"), 7, 8));
        assert_eq!((options.advertise, options.config.stun_rate), (Some("192.0.2.1:9".parse().unwrap()), 0));
        let config = with_file("legacy = false\nmax_connections = 5\nmax_connections_per_network = 6").unwrap().config;
        assert_eq!((config.legacy, config.max_connections, config.max_connections_per_network), (false, 5, 6));
        let config = with_file(
            "introduction_rate = 1\nmax_registrations = 2\nmax_registrations_per_network = 3\n\
             first_word = 4\nidle_connection = 5",
        )
        .unwrap()
        .config;
        assert_eq!(
            (config.introduction_rate, config.max_registrations, config.max_registrations_per_network),
            (1, 2, 3)
        );
        assert_eq!([config.first_word, config.idle_connection], [4, 5].map(Duration::from_secs));
        let untouched = with_file("").unwrap();
        assert!(untouched.config.legacy);
        assert_eq!((untouched.host, untouched.port, untouched.punch_port), (None, 20000, 20001));
    }

    #[test]
    fn a_settings_file_says_what_is_wrong_in_it() {
        for (content, expected) in [
            ("prot = 5", "unknown key \"prot\""),
            ("port = \"5\"", "port is to be a number"),
            ("legacy = 0", "legacy is to be true or false"),
            ("port = 65536", "port cannot be 65536"),
            ("stun_rate = -1", "stun_rate cannot be -1"),
            ("first_word = 0", "first_word cannot be 0"),
            ("host = 5", "host is to be a string"),
            ("advertise = \"0.0.0.0\"", "advertise: "),
            ("port = 1\nport = ", "line 2"),
        ] {
            let message = with_file(content).expect_err(content);
            assert!(message.contains(expected), "{content}: {message}");
        }
    }

    #[test]
    fn arguments_go_before_the_environment_and_that_before_the_file() {
        let file = Scratch::new("order", b"port = 1\npunch_port = 2\nstun_rate = 3\n");
        let arguments = || ServerArguments { config: Some(file.0.clone()), ..ServerArguments::default() };
        let environment = only("HOLEPUNCH_PORT", "22");
        let options = server(ServerArguments { stun_rate: Some(33), ..arguments() }, &environment).unwrap();
        assert_eq!((options.port, options.punch_port, options.config.stun_rate), (1, 22, 33));
        let options = server(ServerArguments { punch_port: Some(222), ..arguments() }, &environment).unwrap();
        assert_eq!((options.punch_port, options.config.stun_rate), (222, 3));
        assert!(server(arguments(), &only("HOLEPUNCH_PORT", "many")).is_err());
    }
}
