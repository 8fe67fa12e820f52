//! The shared library exports what `exports.txt` lists and nothing else, and has its SONAME.

mod support;

use std::process::Command;

fn readelf(option: &str) -> String {
    let output = Command::new("readelf")
        .args(["--wide", option])
        .arg(support::library().join("libholepunch.so"))
        .output()
        .expect("binutils are installed");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("readelf writes UTF-8")
}

#[test]
fn the_library_exports_exactly_its_functions() {
    let table = readelf("--dyn-syms");
    let mut exported: Vec<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() == 8 && fields[6].parse::<u32>().is_ok())
        .map(|fields| fields[7])
        .collect();
    exported.sort_unstable();
    let listed: Vec<&str> = include_str!("../exports.txt").lines().collect();
    assert_eq!(exported, listed, "bindings/c/exports.txt lists other symbols than the library exports");
}

#[test]
fn the_library_has_its_soname() {
    assert!(readelf("--dynamic").contains("soname: [libholepunch.so.0]"));
}

#[test]
fn every_function_is_called_with_wrong_arguments() {
    let test = include_str!("c/arguments.c");
    for name in include_str!("../exports.txt").lines() {
        assert!(test.contains(&format!("{name}(")), "tests/c/arguments.c does not call {name}");
    }
}
