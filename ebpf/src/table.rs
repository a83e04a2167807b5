//! Tables of counters: rows of `u64` words by keys of `u64` words, a copy for every CPU.

use crate::cgroup::{CgroupId, Cgroups};
use crate::hooks::Hooks;
use crate::status::Status;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};
use std::collections::BTreeMap;
use std::time::Duration;

/// What programs call the histograms beside a table.
pub(crate) const HISTOGRAMS: &str = "histograms";

/// How often a row is added that the kernel has no memory for, and the pause in between.
const INSERT_TRIES: u32 = 20;
const INSERT_PAUSE: Duration = Duration::from_millis(50);

/// A table with keys of `KEY` words, the first of which is the cgroup. Where there are histograms beside it, the counts
/// of one follow the numbers of its row.
///
/// Invariant: no histogram has counted more than its row, but that of `other`, which has what others' could not take.
///
/// Invariant: the sum over all rows never falls. The row of a cgroup that is gone is taken out of the kernel; if its
/// folder is known it is there in one reading more, and then what it has used is part of the row `other`.
pub(crate) struct Table<const KEY: usize> {
    map: MapHandle,
    histograms: Option<MapHandle>,
    folded: BTreeMap<[u64; KEY], Vec<u64>>,
    /// Rows that the last reading had for the last time.
    leaving: BTreeMap<[u64; KEY], Vec<u64>>,
}

impl<const KEY: usize> Table<KEY> {
    /// The table of this name, with a row `other` for each of these keys.
    pub(crate) fn new(hooks: &Hooks, name: &str, others: &[[u64; KEY]]) -> Result<Self, Status> {
        Ok(Self {
            map: with_others(hooks, name, others)?,
            histograms: None,
            folded: BTreeMap::new(),
            leaving: BTreeMap::new(),
        })
    }

    /// The same, with the histograms beside it.
    pub(crate) fn with_histograms(
        hooks: &Hooks,
        name: &str,
        others: &[[u64; KEY]],
    ) -> Result<Self, Status> {
        let histograms = Some(with_others(hooks, HISTOGRAMS, others)?);
        Ok(Self { histograms, ..Self::new(hooks, name, others)? })
    }

    /// All rows, summed over CPUs. A row without a histogram ends with its numbers.
    pub(crate) fn rows(&self) -> Result<BTreeMap<[u64; KEY], Vec<u64>>, libbpf_rs::Error> {
        // Histograms first: programs count in the row first.
        let histograms = self.histograms.as_ref().map(summed).transpose()?;
        let mut rows = summed(&self.map)?;
        let numbers = self.map.value_size() as usize / 8;
        for (key, histogram) in histograms.into_iter().flatten() {
            // One that was counted while its row was taken out is alone.
            rows.entry(key).or_insert_with(|| vec![0; numbers]).extend(histogram);
        }
        Ok(rows)
    }

    /// All rows, with those of cgroups that are gone added up.
    pub(crate) fn read(
        &mut self,
        cgroups: &mut Cgroups,
    ) -> Result<BTreeMap<[u64; KEY], Vec<u64>>, libbpf_rs::Error> {
        let mut rows = self.rows()?;
        let gone = |key: &[u64; KEY]| {
            let id = CgroupId(key[0]);
            id != CgroupId::OTHER && !cgroups.exists(id)
        };
        let gone: Vec<[u64; KEY]> = rows.keys().copied().filter(gone).collect();
        let left = std::mem::take(&mut self.leaving);
        for key in gone {
            delete(&self.map, &key)?;
            if let Some(histograms) = &self.histograms {
                delete(histograms, &key)?;
            }
            // Once: a process that was killed may take its time, and count on.
            if cgroups.folder(CgroupId(key[0])).is_some() && !left.contains_key(&key) {
                self.leaving.insert(key, rows[&key].clone());
            } else {
                let row = rows.remove(&key).unwrap_or_default();
                self.fold(key, row);
            }
        }
        for (key, row) in left {
            self.fold(key, row);
        }
        for (key, row) in &self.folded {
            add(rows.entry(*key).or_default(), row.iter().copied());
        }
        Ok(rows)
    }

    fn fold(&mut self, mut key: [u64; KEY], row: Vec<u64>) {
        key[0] = CgroupId::OTHER.0;
        add(self.folded.entry(self.bounded(key)).or_default(), row);
    }

    /// What is folded is bounded like the table that it comes from.
    fn bounded(&self, key: [u64; KEY]) -> [u64; KEY] {
        let full = self.folded.len() >= self.map.max_entries() as usize;
        if full && !self.folded.contains_key(&key) { [0; KEY] } else { key }
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

/// All rows of one table, summed over CPUs.
fn summed<const KEY: usize>(
    map: &MapHandle,
) -> Result<BTreeMap<[u64; KEY], Vec<u64>>, libbpf_rs::Error> {
    let mut rows = BTreeMap::new();
    for key in map.keys().collect::<Vec<_>>() {
        let Some(copies) = map.lookup_percpu(&key, MapFlags::ANY)? else { continue };
        let mut row = Vec::new();
        for copy in &copies {
            add(&mut row, words(copy));
        }
        rows.insert(array(&key), row);
    }
    Ok(rows)
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

fn add(sum: &mut Vec<u64>, row: impl IntoIterator<Item = u64>) {
    for (place, word) in row.into_iter().enumerate() {
        match sum.get_mut(place) {
            Some(total) => *total += word,
            None => sum.push(word),
        }
    }
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
