//! The rows by the hash of their keys: fingerprints of 256 buckets, kept up to date row by row, and the
//! rows of one bucket without a look at the others.

use std::sync::Arc;

use super::SharedEntry;

/// Buckets whose fingerprints are compared when two tables differ: 2 KiB of fingerprints, and with
/// 100,000 entries a bucket describes 400.
pub const BUCKETS: usize = 256;
/// Rows of a leaf, on average, before a bucket gets twice as many leaves.
const LEAF_ROWS: usize = 12;

/// Invariants: a bucket's fingerprint is the exclusive or of those of its rows, and `root` that of all
/// buckets; each row lies in the bucket that the highest eight bits of its place name, and there in the
/// leaf that its lowest bits name.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    root: u64,
    /// Tables of one process may share a bucket until one of them changes it.
    buckets: Vec<Arc<Bucket>>,
}

#[derive(Clone, Debug)]
struct Bucket {
    fingerprint: u64,
    rows: usize,
    /// As many as a power of two.
    leaves: Vec<Vec<SharedEntry>>,
}

impl Default for Buckets {
    fn default() -> Self {
        let empty = Arc::new(Bucket { fingerprint: 0, rows: 0, leaves: vec![Vec::new()] });
        Self { root: 0, buckets: vec![empty; BUCKETS] }
    }
}

impl Buckets {
    /// The exclusive or of all rows' fingerprints.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// The fingerprint of each bucket.
    pub fn fingerprints(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.fingerprint).collect()
    }

    /// How many rows a bucket has.
    pub fn rows(&self, bucket: u8) -> usize {
        self.buckets[usize::from(bucket)].rows
    }

    /// The rows of a bucket, in no order that means anything.
    pub fn rows_of(&self, bucket: u8) -> impl Iterator<Item = &SharedEntry> {
        self.buckets[usize::from(bucket)].leaves.iter().flatten()
    }

    /// Takes in a row whose key is not there.
    pub fn insert(&mut self, row: SharedEntry) {
        self.root ^= row.fingerprint();
        let bucket = Arc::make_mut(&mut self.buckets[bucket_of(&row)]);
        bucket.fingerprint ^= row.fingerprint();
        bucket.rows += 1;
        if bucket.rows > bucket.leaves.len() * LEAF_ROWS {
            bucket.grow();
        }
        let leaf = bucket.leaf_of(&row);
        bucket.leaves[leaf].push(row);
    }

    /// Takes out this very row.
    pub fn remove(&mut self, row: &SharedEntry) {
        let bucket = Arc::make_mut(&mut self.buckets[bucket_of(row)]);
        let leaf = bucket.leaf_of(row);
        let leaf = &mut bucket.leaves[leaf];
        let Some(at) =
            leaf.iter().position(|other| other.order() == row.order() && other.key == row.key)
        else {
            return debug_assert!(false, "a row is in the table and in no bucket");
        };
        leaf.swap_remove(at);
        bucket.rows -= 1;
        bucket.fingerprint ^= row.fingerprint();
        self.root ^= row.fingerprint();
    }
}

impl Bucket {
    fn leaf_of(&self, row: &SharedEntry) -> usize {
        (row.place() as usize) & (self.leaves.len() - 1)
    }

    fn grow(&mut self) {
        let leaves = vec![Vec::new(); self.leaves.len() * 2];
        for row in std::mem::replace(&mut self.leaves, leaves).into_iter().flatten() {
            let leaf = self.leaf_of(&row);
            self.leaves[leaf].push(row);
        }
    }
}

fn bucket_of(row: &SharedEntry) -> usize {
    (row.place() >> 56) as usize
}
