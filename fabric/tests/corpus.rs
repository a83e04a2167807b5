//! The fuzzers' corpus, and thousands of mutations of it, in every test run.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Mutations of each file in the corpus.
const MUTATIONS: usize = 400;

fn replay(kind: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(kind);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for file in files {
        let whole = std::fs::read(&file).unwrap();
        target(&whole);
        for _ in 0..MUTATIONS {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                if bytes.is_empty() {
                    break;
                }
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..4) {
                    0 => bytes[at] ^= 1 << random.random_range(0..8),
                    1 => bytes.truncate(at),
                    2 => bytes.insert(at, random.random()),
                    _ => bytes[at] = random.random(),
                }
            }
            target(&bytes);
        }
    }
}

#[test]
fn datagrams() {
    replay("datagram", fabric::fuzzing::datagram);
}

#[test]
fn messages() {
    replay("message", fabric::fuzzing::message);
}

#[test]
fn entries() {
    replay("entry", fabric::fuzzing::entry);
}

#[test]
fn job_files() {
    replay("job_file", fabric::fuzzing::job_file);
}

#[test]
fn a_node_that_is_told_anything() {
    replay("node", fabric::fuzzing::node);
}
