//! Replays the fuzz corpora, so that what a fuzzer found once stays found.

use std::{fs, path::Path};

#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn every_corpus_file_is_replayed() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut files = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("no corpus of {name}: {error}")) {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn every_corpus_has_a_target() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(targets::TARGETS.iter().any(|(target, _)| *target == name), "{name:?} belongs to no target");
    }
}
