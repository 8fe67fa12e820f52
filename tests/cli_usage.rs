//! The program without a network: usage errors, configuration errors, help. Statuses and streams as scripts rely on them.

#![cfg(feature = "cli")]

use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    run_with(arguments, &[])
}

fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holepunch"));
    for name in ["HOLEPUNCH_SERVER", "HOLEPUNCH_BIND", "HOLEPUNCH_PORT", "HOLEPUNCH_SECRET"] {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Checks a failure of status 2: nothing on stdout, and the last line of stderr says what and what to do.
fn assert_usage(output: &Output, expected: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stdout, b"");
    let last = text(&output.stderr).lines().last().unwrap();
    assert!(last.starts_with("holepunch: ") && last.contains("; ") && last.contains(expected), "{last}");
}

#[test]
fn help_and_version_go_to_stdout_and_succeed() {
    for arguments in [&["--version"][..], &["-h"], &["--help"], &["server", "-h"], &["connect", "--help"]] {
        let output = run(arguments);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
    assert_eq!(text(&run(&["--version"]).stdout), concat!("holepunch ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = text(&run(&["-h"]).stdout).to_owned();
    for command in ["server", "listen", "connect", "netcheck", "client"] {
        assert!(help.contains(command), "{help}");
    }
    assert!(text(&run(&["connect", "-h"]).stdout).contains("not retransmitted"));
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_holepunch")).arg("--help").stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn usage_errors_are_explained_and_exit_2() {
    for (arguments, expected) in [
        (&[][..], "no command"),
        (&["fly"], "'fly'"),
        (&["connect"], "<TARGET>"),
        (&["connect", "bob", "--fast"], "'--fast'"),
        (&["connect", "bob", "--secret", "hunter2"], "'--secret'"),
        (&["connect", "bob@example.org"], "'@' at position 3"),
        (&["connect", "bob", "--tcp", "--udp"], "'--udp'"),
        (&["listen", "192.0.2.1"], "192.0.2.1"),
        (&["server", "--port", "65536"], "65536"),
        (&["client"], "<PROTOCOL>"),
        (&["client", "sctp"], "sctp"),
        (&["client", "udp", "192.0.2.1", "more"], "more"),
        (&["-q", "-v", "listen"], "-q and -v"),
        (&["-q", "listen", "-v"], "-q and -v"),
    ] {
        assert_usage(&run(arguments), expected);
    }
}

#[test]
fn a_usage_error_with_json_is_one_event() {
    for arguments in [&["--json", "connect"], &["connect", "--json"]] {
        let output = run(arguments);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
        let lines: Vec<_> = text(&output.stderr).lines().collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("{\"event\":\"error\",\"t\":") && lines[0].ends_with("\"status\":2}"),
            "{lines:?}"
        );
        assert!(lines[0].contains("\"kind\":\"invalid_argument\"") && lines[0].contains("\"time\":"), "{lines:?}");
    }
}

#[test]
fn what_this_version_cannot_do_says_so() {
    let output = run(&["netcheck", "--lifetime"]);
    assert_usage(&output, "netcheck");
    assert_eq!(text(&output.stderr).lines().count(), 1);
}

#[test]
fn a_secret_is_sixteen_bytes_from_a_file_or_the_environment() {
    let listen = ["listen", "--udp"];
    assert_usage(&run_with(&listen, &[("HOLEPUNCH_SECRET", "fifteen bytes..\n")]), "HOLEPUNCH_SECRET");
    assert_usage(&run_with(&listen, &[("HOLEPUNCH_SECRET", "")]), "16 bytes");
    assert_usage(&run(&["listen", "--udp", "--secret-file", "/nonexistent"]), "/nonexistent");
    assert_usage(&run(&["listen", "--udp", "--secret-file", "/dev/null"]), "/dev/null");
}

#[test]
fn a_settings_file_that_is_wrong_is_named_with_its_key() {
    let path = std::env::temp_dir().join(format!("holepunch-cli-usage-{}.toml", std::process::id()));
    std::fs::write(&path, "port = 0\npunchport = 1\n").unwrap();
    let output = run(&["server", "--config", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert_usage(&output, "unknown key \"punchport\"");
    assert_usage(&run_with(&["server"], &[("HOLEPUNCH_PORT", "many")]), "HOLEPUNCH_PORT");
    assert_usage(&run(&["server", "--host", "192.0.2.1"]), "192.0.2.1");
}
