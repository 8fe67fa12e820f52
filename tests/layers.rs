//! Imports point down only: which module of the crate may name which others, as ARCHITECTURE.md draws it.

use std::{collections::BTreeMap, fs, path::Path};

/// Each module, with those that it may name; its own is always allowed.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("address", &[]),
    ("config", &[]),
    ("wire", &[]),
    ("machine", &[]),
    ("punch", &["wire", "machine", "config", "address"]),
    ("rendezvous", &["wire", "machine", "config", "address"]),
    ("peer", &["rendezvous", "punch", "wire", "machine", "config", "address"]),
    ("io", &["peer", "rendezvous", "punch", "wire", "machine", "config", "address"]),
    ("endpoint", &["io", "peer", "rendezvous", "punch", "wire", "machine", "config", "address"]),
    ("server", &["io", "rendezvous", "wire", "machine", "config", "address"]),
    ("legacy", &["endpoint", "io", "peer", "rendezvous", "punch", "wire", "machine", "config", "address"]),
    (
        "cli",
        &["legacy", "server", "endpoint", "io", "peer", "rendezvous", "punch", "wire", "machine", "config", "address"],
    ),
];

fn module_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a text names by `crate::name`, within braces too.
fn named(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for (position, _) in code.match_indices("crate::") {
        let rest = &code[position + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.push(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned());
            continue;
        };
        let mut depth = 0;
        let mut word = String::new();
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' | ':' | '\n' | ' ' if depth == 0 => names.push(std::mem::take(&mut word)),
                _ if depth == 0 => word.push(c),
                _ => {}
            }
        }
        names.push(word);
    }
    names
}

#[test]
fn imports_point_down_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut all = Vec::new();
    files(&source, &mut all);
    let mut wrong = Vec::new();
    for path in all {
        let relative = path.strip_prefix(&source).unwrap();
        let module = module_of(relative);
        if module == "lib" || module == "bin" {
            continue;
        }
        let allowed = layers.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no place in the layers"));
        for name in named(&fs::read_to_string(&path).unwrap()) {
            if layers.contains_key(name.as_str())
                && name != module
                && name != "error"
                && !allowed.contains(&name.as_str())
            {
                wrong.push(format!("{} names {name}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn names_are_found_in_lists_and_alone() {
    let text = "use crate::{\n    Error,\n    wire::{stun, demux},\n    machine::Instant,\n};\nfn f() { crate::io::g() }\n// crate::cli";
    let found: Vec<_> = named(text).into_iter().filter(|name| !name.is_empty()).collect();
    assert!(["wire", "machine", "io"].iter().all(|name| found.iter().any(|found| found == name)), "{found:?}");
    assert!(!found.iter().any(|name| name == "cli"));
}
