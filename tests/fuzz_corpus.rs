//! Replays the fuzz corpora, so that what a fuzzer found once stays found; and makes the seeds of those targets that
//! a fuzzer would not get far with alone.

use std::{fs, path::Path};

#[path = "../fuzz/seeds.rs"]
mod seeds;
#[path = "../fuzz/targets/mod.rs"]
mod targets;

/// Set, it makes the seeds be written into the corpora.
const WRITE_SEEDS: &str = "HOLEPUNCH_WRITE_SEEDS";

fn corpora() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_corpus_file_is_replayed() {
    for (name, target) in targets::TARGETS {
        let mut files = 0;
        for entry in fs::read_dir(corpora().join(name)).unwrap_or_else(|error| panic!("no corpus of {name}: {error}")) {
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
    for entry in fs::read_dir(corpora()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(targets::TARGETS.iter().any(|(target, _)| *target == name), "{name:?} belongs to no target");
    }
}

#[test]
fn the_seeds_reach_the_deep_states() {
    let agent_seeds = seeds::agent_input();
    for (name, seed, reached) in &agent_seeds {
        assert_eq!(targets::agent::run(seed), *reached, "{name}");
    }
    let peer_seeds = seeds::peer_input();
    for (name, seed, reached) in &peer_seeds {
        assert_eq!(targets::peer::run(seed), *reached, "{name}");
    }
    let server_seeds = seeds::server_input();
    for (name, seed, introductions) in &server_seeds {
        assert_eq!(targets::server::run(seed), *introductions, "{name}");
    }
    let stream_seeds = seeds::server_streams();
    for (name, seed, introductions) in &stream_seeds {
        assert_eq!(targets::streams::run(seed), *introductions, "{name}");
    }
    if std::env::var_os(WRITE_SEEDS).is_some() {
        let agent_seeds = agent_seeds.iter().map(|(name, seed, _)| ("agent_input", *name, seed));
        let peer_seeds = peer_seeds.iter().map(|(name, seed, _)| ("peer_input", *name, seed));
        let server_seeds = server_seeds.iter().map(|(name, seed, _)| ("server_input", *name, seed));
        let stream_seeds = stream_seeds.iter().map(|(name, seed, _)| ("server_streams", *name, seed));
        for (target, name, seed) in agent_seeds.chain(peer_seeds).chain(server_seeds).chain(stream_seeds) {
            let corpus = corpora().join(target);
            fs::create_dir_all(&corpus).unwrap();
            fs::write(corpus.join(name), seed).unwrap();
        }
    }
}
