//! Counts of cgroups, added up by unit.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use ebpf::{CgroupId, Cgroups};

use super::units::{Unit, Units};

/// Columns of counts of each unit; or of each unit and something more, a peer for example, where [`Default`]
/// stands for all that have no place of their own.
///
/// Invariants: no total ever falls while its unit is there; all totals together are all that the rows ever
/// grew by. So what a cgroup of a unit did stays with the unit when that cgroup is gone, and is not counted
/// a second time when its row is added to that of [`CgroupId::OTHER`].
#[derive(Debug)]
pub struct Counts<M = ()> {
    last: BTreeMap<(CgroupId, M), Vec<u64>>,
    totals: BTreeMap<(Arc<Unit>, M), Total>,
    /// How many readings were taken in.
    readings: u64,
    /// Those that the last reading had none of. A unit that is back by the next one goes on where it was; later, its
    /// series begin with a zero, which tells the two apart.
    absent: BTreeMap<(Arc<Unit>, M), Vec<u64>>,
    totals_max: usize,
}

/// What one of them has come to.
#[derive(Debug, Default)]
struct Total {
    row: Vec<u64>,
    /// The last reading that had some of it.
    reading: u64,
}

impl<M: Ord + Clone + Default> Counts<M> {
    /// Of at most `totals_max` units, or units and something more.
    pub fn new(totals_max: usize) -> Self {
        Self {
            last: BTreeMap::new(),
            totals: BTreeMap::new(),
            readings: 0,
            absent: BTreeMap::new(),
            totals_max,
        }
    }

    /// Takes in all rows of a reading, each with as many columns, none of which falls while its cgroup is there.
    pub fn add(
        &mut self,
        rows: impl IntoIterator<Item = ((CgroupId, M), Vec<u64>)>,
        units: &mut Units,
        cgroups: &Cgroups,
    ) {
        let rows: BTreeMap<(CgroupId, M), Vec<u64>> = rows.into_iter().collect();
        // What is gone is in the row of all others, to which it adds only what nobody has seen yet.
        let mut seen: BTreeMap<M, Vec<u64>> = BTreeMap::new();
        self.last.retain(|key, row| {
            let there = rows.contains_key(key);
            if !there {
                add(seen.entry(key.1.clone()).or_default(), row);
            }
            there
        });
        self.readings += 1;
        let mut present = 0;
        let mut absent = std::mem::take(&mut self.absent);
        for ((id, more), row) in rows {
            let mut place = (units.of(id, cgroups), more.clone());
            if self.totals.len() >= self.totals_max && !self.totals.contains_key(&place) {
                place = (units.other(), M::default());
            }
            let total = match self.totals.entry(place) {
                Entry::Occupied(total) => total.into_mut(),
                Entry::Vacant(free) => {
                    let row = absent.remove(free.key()).unwrap_or_default();
                    free.insert(Total { row, reading: 0 })
                }
            };
            if total.reading != self.readings {
                total.reading = self.readings;
                present += 1;
            }
            total.row.resize(row.len().max(total.row.len()), 0);
            let seen = seen.get(&more).filter(|_| id == CgroupId::OTHER);
            let last = self.last.entry((id, more)).or_default();
            for (place, (now, total)) in row.iter().zip(&mut total.row).enumerate() {
                let count = |row: &Vec<u64>| row.get(place).copied().unwrap_or(0);
                *total += now.saturating_sub(count(last) + seen.map_or(0, count));
            }
            *last = row;
        }
        if present < self.totals.len() {
            let is_present = |total: &Total| total.reading == self.readings;
            let (there, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.totals)
                .into_iter()
                .partition(|(_, total)| is_present(total));
            self.totals = there;
            self.absent = gone.into_iter().map(|(place, total)| (place, total.row)).collect();
        }
    }

    /// What each that is there has come to.
    pub fn totals(&self) -> impl Iterator<Item = (&Unit, &M, &[u64])> {
        self.totals.iter().map(|((unit, more), total)| (&**unit, more, &*total.row))
    }
}

fn add(sum: &mut Vec<u64>, row: &[u64]) {
    sum.resize(row.len().max(sum.len()), 0);
    sum.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
}

#[cfg(test)]
mod tests;
