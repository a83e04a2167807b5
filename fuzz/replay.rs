//! Gives a door of the fuzzers each file of its corpus, and mutations of it: a part of the tests of each crate that has such doors.

use std::path::Path;

/// Gives `door` the files of `fuzz/corpus/<name>`, each whole and `mutations` times changed.
pub fn replay(name: &str, mutations: usize, door: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.expect("listed").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    let mut random = Random(7);
    for file in files {
        let whole = std::fs::read(&file).expect("read");
        door(&whole);
        for _ in 0..mutations {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                if bytes.is_empty() {
                    break;
                }
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes.truncate(at),
                    2 => bytes.insert(at, random.below(256) as u8),
                    _ => bytes[at] = random.below(256) as u8,
                }
            }
            door(&bytes);
        }
    }
}

/// SplitMix64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ word >> 31) % end as u64) as usize
    }
}
