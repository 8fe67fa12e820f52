//! The header is what the sources say, its numbers are those of the Rust API, and it stands on its own.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, sync::Once, time::Duration};

use holepunch_core::{ConnectOptions, ErrorKind, config};

/// The files that export something, in the order in which the header tells of them.
const SOURCES: [&str; 11] = [
    "version",
    "status",
    "error",
    "config",
    "options",
    "cancel",
    "endpoint",
    "listener",
    "stream",
    "connection",
    "agent",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The committed header. With HOLEPUNCH_BLESS set it is first made anew.
fn committed() -> String {
    static BLESS: Once = Once::new();
    BLESS.call_once(|| {
        if std::env::var_os("HOLEPUNCH_BLESS").is_some() {
            fs::create_dir_all(root().join("include")).expect("include can be made");
            fs::write(root().join("include/holepunch.h"), generate()).expect("include/holepunch.h can be written");
        }
    });
    fs::read_to_string(root().join("include/holepunch.h")).expect("include/holepunch.h can be read")
}

fn generate() -> String {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).expect("cbindgen.toml is sound");
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, name| {
        builder.with_src(here.join("src").join(name).with_extension("rs"))
    });
    let mut header = Vec::new();
    builder.generate().expect("cbindgen understands the sources").write(&mut header);
    String::from_utf8(header).expect("the header is UTF-8")
}

/// The numbers that the header defines.
fn defines() -> BTreeMap<String, i64> {
    committed()
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

#[test]
fn the_committed_header_is_what_the_sources_say() {
    assert!(
        generate() == committed(),
        "include/holepunch.h differs from the sources; HOLEPUNCH_BLESS=1 cargo test -p holepunch-c --test header rewrites it"
    );
}

#[test]
fn the_statuses_are_the_error_kinds() {
    let found: BTreeMap<String, i64> = defines()
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("HOLEPUNCH_ERROR_")?.to_lowercase(), value)))
        .collect();
    let expected: BTreeMap<String, i64> =
        ErrorKind::ALL.iter().map(|kind| (kind.name().to_owned(), i64::from(kind.code()))).collect();
    assert_eq!(found, expected);
    assert_eq!(defines()["HOLEPUNCH_OK"], 0);
}

#[test]
fn the_version_macros_are_the_version() {
    let defines = defines();
    let version = ["MAJOR", "MINOR", "PATCH"].map(|part| defines[&format!("HOLEPUNCH_VERSION_{part}")].to_string());
    assert_eq!(version.join("."), env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_limits_are_those_of_the_library() {
    assert_eq!(defines()["HOLEPUNCH_MAX_DATAGRAM"], i64::try_from(config::MAX_DATAGRAM).expect("it is small"));
}

#[test]
fn the_default_times_are_those_of_the_library() {
    let time = |name| Duration::from_millis(defines()[name].try_into().expect("it is not negative"));
    let options =
        ConnectOptions::default().wait(time("HOLEPUNCH_CONNECT_WAIT_MS")).timeout(time("HOLEPUNCH_CONNECT_TIMEOUT_MS"));
    // Debug tells every field, and there is no other way to read one.
    assert_eq!(format!("{options:?}"), format!("{:?}", ConnectOptions::default()));
}

#[test]
fn every_exported_function_is_in_the_header() {
    let header = committed();
    let exports = include_str!("../exports.txt");
    for name in exports.lines() {
        assert!(header.contains(&format!(" {name}(")) || header.contains(&format!("*{name}(")), "{name} is missing");
    }
}

#[test]
fn the_header_compiles_alone_in_every_language() {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("header");
    fs::create_dir_all(&scratch).expect("a scratch directory");
    for (compiler, language, standard) in [
        ("cc", "c", "c99"),
        ("cc", "c", "c11"),
        ("cc", "c", "c17"),
        ("c++", "c++", "c++11"),
        ("c++", "c++", "c++17"),
        ("c++", "c++", "c++20"),
    ] {
        let source = scratch.join(format!("alone-{standard}.{language}"));
        fs::write(&source, "#include <holepunch.h>\n#include <holepunch.h>\nint main(void) { return HOLEPUNCH_OK; }\n")
            .expect("a scratch file");
        let output = Command::new(compiler)
            .args(["-x", language, &format!("-std={standard}")])
            .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
            .arg(root().join("include"))
            .arg(&source)
            .output()
            .expect("a C and a C++ compiler are installed");
        assert!(output.status.success(), "{standard}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
}
