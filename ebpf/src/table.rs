//! Tables of counters: rows of `u64` words by keys of `u64` words, a copy for every CPU.

use crate::batch::Batches;
use crate::cgroup::{CgroupId, Cgroups};
use crate::histogram::Histogram;
use crate::hooks::Hooks;
use crate::status::Status;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};
use std::collections::BTreeMap;
use std::time::Duration;

/// What programs call the histograms beside a table.
pub(crate) const HISTOGRAMS: &str = "histograms";

/// Readings between two times that rows of cgroups which this process cannot see are taken out of the kernel. Outside of
/// a container they go on counting, and each row that is taken out is one that the kernel makes again.
const STRANGERS_READINGS: u32 = 60;

/// How often a row is added that the kernel has no memory for, and the pause in between.
const INSERT_TRIES: u32 = 20;
const INSERT_PAUSE: Duration = Duration::from_millis(50);

/// What was counted for one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// The words of the table.
    pub(crate) numbers: Vec<u64>,
    /// What is beside them, if anything is.
    pub(crate) histogram: Histogram,
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.numbers.resize(self.numbers.len().max(other.numbers.len()), 0);
        self.numbers.iter_mut().zip(&other.numbers).for_each(|(sum, number)| *sum += number);
        self.histogram.merge(&other.histogram);
    }
}

/// A table with keys of `KEY` words, the first of which is the cgroup. There may be histograms beside it, by the same
/// keys.
///
/// Invariant: no histogram has counted more than its row, but that of `other`, which has what others' could not take.
///
/// Invariant: the sum over all rows never falls. The row of a cgroup that is gone is taken out of the kernel; if its
/// folder is known it is there in one reading more, and then what it has used is part of the row `other`. What a cgroup
/// uses that is out of sight is part of that row at once.
pub(crate) struct Table<const KEY: usize> {
    map: Batches,
    histograms: Option<Batches>,
    folded: BTreeMap<[u64; KEY], Row>,
    /// Rows that the last reading had for the last time.
    leaving: BTreeMap<[u64; KEY], Row>,
    /// Readings until rows of cgroups that are out of sight are taken out of the kernel.
    strangers_stay: u32,
}

impl<const KEY: usize> Table<KEY> {
    /// The table of this name, with a row `other` for each of these keys.
    pub(crate) fn new(hooks: &Hooks, name: &str, others: &[[u64; KEY]]) -> Result<Self, Status> {
        Ok(Self {
            map: Batches::new(with_others(hooks, name, others)?),
            histograms: None,
            folded: BTreeMap::new(),
            leaving: BTreeMap::new(),
            strangers_stay: STRANGERS_READINGS,
        })
    }

    /// The same, with the histograms beside it.
    pub(crate) fn with_histograms(
        hooks: &Hooks,
        name: &str,
        others: &[[u64; KEY]],
    ) -> Result<Self, Status> {
        let histograms = Some(Batches::new(with_others(hooks, HISTOGRAMS, others)?));
        Ok(Self { histograms, ..Self::new(hooks, name, others)? })
    }

    /// All rows, summed over CPUs.
    pub(crate) fn rows(&mut self) -> Result<BTreeMap<[u64; KEY], Row>, libbpf_rs::Error> {
        // Histograms first: programs count in the row first.
        let mut histograms: BTreeMap<[u64; KEY], Histogram> = BTreeMap::new();
        if let Some(table) = &mut self.histograms {
            each_summed(table, |key, counts| {
                histograms.insert(key, Histogram::from_counts(counts));
            })?;
        }
        let mut rows = BTreeMap::new();
        each_summed(&mut self.map, |key, numbers| {
            let histogram = histograms.remove(&key).unwrap_or_default();
            rows.insert(key, Row { numbers: numbers.to_vec(), histogram });
        })?;
        let numbers = self.map.map().value_size() as usize / 8;
        for (key, histogram) in histograms {
            // One that was counted while its row was taken out is alone.
            rows.insert(key, Row { numbers: vec![0; numbers], histogram });
        }
        Ok(rows)
    }

    /// All rows, with those of cgroups that are gone added up.
    pub(crate) fn read(
        &mut self,
        cgroups: &mut Cgroups,
    ) -> Result<BTreeMap<[u64; KEY], Row>, libbpf_rs::Error> {
        let mut rows = self.rows()?;
        let gone = |key: &[u64; KEY]| {
            let id = CgroupId(key[0]);
            id != CgroupId::OTHER && !cgroups.exists(id)
        };
        let gone: Vec<[u64; KEY]> = rows.keys().copied().filter(gone).collect();
        let left = std::mem::take(&mut self.leaving);
        let strangers_stay = self.do_strangers_stay(rows.len());
        let mut strangers = Vec::new();
        for key in gone {
            let id = CgroupId(key[0]);
            let is_known = cgroups.folder(id).is_some();
            if strangers_stay && !is_known && cgroups.is_out_of_sight(id) {
                strangers.push((self.place_in_other(key), rows.remove(&key).unwrap_or_default()));
                continue;
            }
            delete(self.map.map(), &key)?;
            if let Some(histograms) = &self.histograms {
                delete(histograms.map(), &key)?;
            }
            // Once: a process that was killed may take its time, and count on.
            if is_known && !left.contains_key(&key) {
                self.leaving.insert(key, rows[&key].clone());
            } else {
                let row = rows.remove(&key).unwrap_or_default();
                self.fold(key, &row);
            }
        }
        for (key, row) in left {
            self.fold(key, &row);
        }
        for (place, row) in &self.folded {
            rows.entry(*place).or_default().add(row);
        }
        for (place, row) in &strangers {
            rows.entry(*place).or_default().add(row);
        }
        Ok(rows)
    }

    /// Whether rows of cgroups that are out of sight stay in the kernel once more: not where others may need their places.
    fn do_strangers_stay(&mut self, rows: usize) -> bool {
        let is_half_full = 2 * rows >= self.map.map().max_entries() as usize;
        if self.strangers_stay == 0 || is_half_full {
            self.strangers_stay = STRANGERS_READINGS;
            return false;
        }
        self.strangers_stay -= 1;
        true
    }

    fn fold(&mut self, key: [u64; KEY], row: &Row) {
        let place = self.place_in_other(key);
        self.folded.entry(place).or_default().add(row);
    }

    /// Where it is counted what a key's cgroup has used: there from now on. What is folded is bounded like the table that
    /// it comes from.
    fn place_in_other(&mut self, mut key: [u64; KEY]) -> [u64; KEY] {
        key[0] = CgroupId::OTHER.0;
        let full = self.folded.len() >= self.map.map().max_entries() as usize;
        if full && !self.folded.contains_key(&key) {
            key = [0; KEY];
        }
        self.folded.entry(key).or_default();
        key
    }
}

/// The table of this name, with a row for each of these keys.
fn with_others<const KEY: usize>(
    hooks: &Hooks,
    name: &str,
    others: &[[u64; KEY]],
) -> Result<MapHandle, Status> {
    let map = hooks.map(name)?;
    debug_assert_eq!(map.key_size() as usize, KEY * 8, "{name}");
    debug_assert_eq!(map.value_size() % 8, 0, "{name}");
    let zero = vec![vec![0; map.value_size() as usize]; crate::kernel::possible_cpus()];
    for other in others {
        insert(&map, &bytes(other), &zero).map_err(|error| Status::refused(name, &error, ""))?;
    }
    Ok(map)
}

/// Calls `row` with each key of a table and its words, summed over CPUs.
fn each_summed<const KEY: usize>(
    table: &mut Batches,
    mut row: impl FnMut([u64; KEY], &[u64]),
) -> Result<(), libbpf_rs::Error> {
    let mut sum = vec![0; table.map().value_size() as usize / 8];
    table.each(|key, copies| {
        sum.fill(0);
        for copy in copies.chunks_exact(sum.len() * 8) {
            sum.iter_mut().zip(words(copy)).for_each(|(sum, word)| *sum += word);
        }
        row(array(key), &sum);
    })
}

/// Takes a row out, if it is there: a row may have no histogram.
fn delete<const KEY: usize>(map: &MapHandle, key: &[u64; KEY]) -> Result<(), libbpf_rs::Error> {
    match map.delete(&bytes(key)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Adds a row. The kernel takes its copies from memory that it has at hand for all CPUs, and has more of it a moment after it
/// had to refuse.
#[expect(clippy::disallowed_methods, reason = "the kernel does not say when there is more")]
fn insert(map: &MapHandle, key: &[u8], copies: &[Vec<u8>]) -> Result<(), libbpf_rs::Error> {
    let mut tries = 1;
    loop {
        match map.update_percpu(key, copies, MapFlags::ANY) {
            Err(error) if error.kind() == ErrorKind::OutOfMemory && tries < INSERT_TRIES => {
                tries += 1;
                std::thread::sleep(INSERT_PAUSE);
            }
            other => return other,
        }
    }
}

/// The one number of a table that has nothing else, summed over CPUs.
pub(crate) fn counter(map: &MapHandle) -> Result<u64, libbpf_rs::Error> {
    let copies = map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
    Ok(copies.iter().flat_map(|copy| words(copy)).sum())
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The words of bytes that the kernel wrote.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")))
}

fn array<const LENGTH: usize>(bytes: &[u8]) -> [u64; LENGTH] {
    let mut array = [0; LENGTH];
    array.iter_mut().zip(words(bytes)).for_each(|(place, word)| *place = word);
    array
}

#[cfg(test)]
mod tests;
