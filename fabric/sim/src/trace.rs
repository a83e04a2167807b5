//! What happened, as a running hash of everything and as lines for people.
//!
//! Two runs from one seed must have equal hashes: that is how determinism is tested. Lines exist only
//! when somebody wants to read them.

use std::time::Duration;
use xxhash_rust::xxh3::Xxh3Default;

/// How much of what happens is told in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing.
    #[default]
    Nothing,
    /// Decisions and faults: what a person would tell about the run.
    Story,
    /// Every input and output.
    Everything,
}

/// The hash, and the lines.
#[derive(Default)]
pub struct Trace {
    hash: Xxh3Default,
    detail: Detail,
    /// Print lines as they come rather than keep them.
    print: bool,
    lines: Vec<(Duration, String)>,
}

impl Trace {
    /// A trace that keeps lines of this detail, or prints them at once.
    pub fn new(detail: Detail, print: bool) -> Self {
        Self { detail, print, ..Self::default() }
    }

    /// Adds to the hash: who, a tag for what, and the bytes that matter.
    pub fn hash(&mut self, time: Duration, node: usize, tag: u8, bytes: &[u8]) {
        self.hash.update(&(time.as_nanos() as u64).to_le_bytes());
        self.hash.update(&(node as u32).to_le_bytes());
        self.hash.update(&[tag]);
        self.hash.update(bytes);
    }

    /// Tells something, if lines of this detail are wanted. The words are made only then.
    pub fn tell(&mut self, detail: Detail, time: Duration, words: impl FnOnce() -> String) {
        if detail > self.detail {
            return;
        }
        if self.print {
            println!("{:>9.3} {}", time.as_secs_f64(), words());
        } else {
            self.lines.push((time, words()));
        }
    }

    /// The lines since the last call, and when they were told.
    pub fn take_lines(&mut self) -> Vec<(Duration, String)> {
        std::mem::take(&mut self.lines)
    }

    /// The hash of everything so far.
    pub fn digest(&self) -> u64 {
        self.hash.digest()
    }
}
