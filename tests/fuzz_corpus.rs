//! The fuzz targets on stable: every seed, and deterministic mutations of it, through every body.
//!
//! `cargo fuzz run TARGET` in `fuzz/` goes on from the same folders. What it finds worth keeping is committed as
//! `fuzz/corpus/TARGET/found-…`; the files named `seed-…` are made by `fuzz_corpus/seeds.rs`.

#[path = "fuzz_corpus/mutate.rs"]
mod mutate;
#[path = "fuzz_corpus/seeds.rs"]
mod seeds;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mutate::Mutator;
use weave_router::{crypto, dns, forward, ipam, mesh, names, wire};

/// Mutations of seeds per target: together some seconds.
const MANY: usize = 10_000;
/// The same for a target that takes a millisecond or two for each.
const SOME: usize = 2000;

/// A fuzz target as the library has it.
type Body = fn(&[u8]);

/// Every target, with its body and how many mutations it is given.
const TARGETS: [(&str, Body, usize); 12] = [
    ("header", wire::fuzz::header, MANY),
    ("control", wire::fuzz::control, MANY),
    ("handshake", crypto::fuzz::fuzz_handshake, MANY),
    ("bundle", forward::fuzz::bundle, MANY),
    ("sealed", forward::fuzz::sealed, MANY),
    ("datagrams", forward::fuzz::datagrams, MANY),
    ("cut_rejoin", forward::fuzz::frames, MANY),
    ("gossip", gossip, MANY),
    ("mesh", mesh::fuzz::mesh, SOME),
    ("names", names::fuzz::names, MANY),
    ("dns", dns::fuzz::dns, MANY),
    ("ipam", ipam::fuzz::ipam, SOME),
];

fn gossip(data: &[u8]) {
    wire::fuzz::gossip(data);
    mesh::gossip::fuzz_gossip(data);
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files of a target's corpus, by name.
fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = fuzz_folder().join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| entry.expect("a folder entry").path());
    let kept = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?;
        // What a fuzzer left there by itself is not ours to judge.
        (name.starts_with("seed-") || name.starts_with("found-")).then(|| name.to_string())
    };
    let named = files.filter_map(|path| Some((kept(&path)?, path)));
    named.map(|(name, path)| (name, fs::read(&path).expect("a readable seed"))).collect()
}

/// Runs one input, and says which it was where the body panics.
fn run(target: &str, body: Body, what: &str, data: &[u8]) {
    let outcome = std::panic::catch_unwind(|| body(data));
    if let Err(panic) = outcome {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{target}"));
        fs::write(&kept, data).expect("the target folder is writable");
        eprintln!("{target} fails on {what}; the input is in {}", kept.display());
        std::panic::resume_unwind(panic);
    }
}

/// Replays the corpus of one target, then mutations of it.
fn replay(target: &str) {
    let (_, body, mutations) = TARGETS.iter().find(|(name, ..)| *name == target).expect("a target");
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "fuzz/corpus/{target} holds no seed");
    for (name, bytes) in &corpus {
        run(target, *body, name, bytes);
    }
    let inputs: Vec<Vec<u8>> = corpus.into_values().collect();
    let mut mutator = Mutator::new(target);
    for number in 0..*mutations {
        let input = mutator.mutate(&inputs, number);
        run(target, *body, &format!("mutation {number}"), &input);
    }
}

macro_rules! replays {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        /// Targets with a test of their own.
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

mod each {
    use super::replay;

    replays!(header, control, handshake, bundle, sealed, datagrams, cut_rejoin, gossip, mesh, names, dns, ipam);

    #[test]
    fn every_target_is_replayed() {
        assert_eq!(REPLAYED, super::TARGETS.map(|(name, ..)| name));
    }
}

#[test]
fn targets_here_and_in_the_fuzz_crate_are_the_same() {
    let folder = fuzz_folder();
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("the fuzz crate's manifest");
    let built: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\"")).collect();
    assert_eq!(built, TARGETS.map(|(name, ..)| name));
    for name in built {
        assert!(folder.join("fuzz_targets").join(format!("{name}.rs")).exists(), "{name} has no source");
    }
}

#[test]
fn seeds_are_up_to_date() {
    let seeds = seeds::all();
    assert_eq!(seeds.keys().len(), TARGETS.len());
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-corpus");
    let mut stale = Vec::new();
    for (target, made) in &seeds {
        let mut kept = if fuzz_folder().join("corpus").join(target).exists() { corpus(target) } else { BTreeMap::new() };
        kept.retain(|name, _| name.starts_with("seed-"));
        if kept == *made {
            continue;
        }
        stale.push(*target);
        let folder = fresh.join(target);
        fs::create_dir_all(&folder).expect("the target folder is writable");
        for (name, bytes) in made {
            fs::write(folder.join(name), bytes).expect("the target folder is writable");
        }
    }
    assert!(stale.is_empty(), "the seeds of {stale:?} are not what seeds.rs makes; the new ones are in {}", fresh.display());
}
