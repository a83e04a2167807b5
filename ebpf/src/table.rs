//! Tables of counters: rows of `u64` words by keys of `u64` words, a copy for every CPU.

use crate::batch::Batches;
use crate::cgroup::{CgroupId, Cgroups};
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

/// A table with keys of `KEY` words, the first of which is the cgroup. Where there are histograms beside it, the counts
/// of one follow the numbers of its row.
///
/// Invariant: no histogram has counted more than its row, but that of `other`, which has what others' could not take.
///
/// Invariant: the sum over all rows never falls. The row of a cgroup that is gone is taken out of the kernel; if its
/// folder is known it is there in one reading more, and then what it has used is part of the row `other`. What a cgroup
/// uses that is out of sight is part of that row at once.
pub(crate) struct Table<const KEY: usize> {
    map: Batches,
    histograms: Option<Batches>,
    folded: BTreeMap<[u64; KEY], Vec<u64>>,
    /// Rows that the last reading had for the last time.
    leaving: BTreeMap<[u64; KEY], Vec<u64>>,
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

    /// All rows, summed over CPUs. A row without a histogram ends with its numbers.
    pub(crate) fn rows(&mut self) -> Result<BTreeMap<[u64; KEY], Vec<u64>>, libbpf_rs::Error> {
        // Histograms first: programs count in the row first.
        let histograms = self.histograms.as_mut().map(summed).transpose()?;
        let mut rows = summed(&mut self.map)?;
        let numbers = self.map.map().value_size() as usize / 8;
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
                self.fold(key, row);
            }
        }
        for (key, row) in left {
            self.fold(key, row);
        }
        let folded = self.folded.iter().map(|(key, row)| (*key, row));
        for (key, row) in folded.chain(strangers.iter().map(|(key, row)| (*key, row))) {
            add(rows.entry(key).or_default(), row.iter().copied());
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

    fn fold(&mut self, key: [u64; KEY], row: Vec<u64>) {
        let place = self.place_in_other(key);
        add(self.folded.entry(place).or_default(), row.iter().copied());
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

/// All rows of one table, summed over CPUs.
fn summed<const KEY: usize>(
    map: &mut Batches,
) -> Result<BTreeMap<[u64; KEY], Vec<u64>>, libbpf_rs::Error> {
    let mut rows = BTreeMap::new();
    let words_each = map.map().value_size() as usize / 8;
    map.each(|key, copies| {
        let mut row = vec![0; words_each];
        for copy in copies.chunks_exact(words_each * 8) {
            row.iter_mut().zip(words(copy)).for_each(|(sum, word)| *sum += word);
        }
        rows.insert(array(key), row);
    })?;
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

#[cfg(test)]
mod tests;
