//! Counts of cgroups, added up by unit.

use std::collections::{BTreeMap, BTreeSet};
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
    totals: BTreeMap<(Arc<Unit>, M), Vec<u64>>,
    /// Those that the last reading had none of. A unit that is back by the next one goes on where it was; later, its
    /// series begin with a zero, which tells the two apart.
    absent: BTreeMap<(Arc<Unit>, M), Vec<u64>>,
    totals_max: usize,
}

impl<M: Ord + Clone + Default> Counts<M> {
    /// Of at most `totals_max` units, or units and something more.
    pub fn new(totals_max: usize) -> Self {
        Self { last: BTreeMap::new(), totals: BTreeMap::new(), absent: BTreeMap::new(), totals_max }
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
        let mut present = BTreeSet::new();
        let mut absent = std::mem::take(&mut self.absent);
        for ((id, more), row) in rows {
            let mut place = (units.of(id, cgroups), more.clone());
            if self.totals.len() >= self.totals_max && !self.totals.contains_key(&place) {
                place = (units.other(), M::default());
            }
            let before = || absent.remove(&place).unwrap_or_default();
            let total = self.totals.entry(place.clone()).or_insert_with(before);
            total.resize(row.len().max(total.len()), 0);
            let seen = seen.get(&more).filter(|_| id == CgroupId::OTHER);
            let last = self.last.entry((id, more)).or_default();
            for (place, (now, total)) in row.iter().zip(total).enumerate() {
                let count = |row: &Vec<u64>| row.get(place).copied().unwrap_or(0);
                *total += now.saturating_sub(count(last) + seen.map_or(0, count));
            }
            *last = row;
            present.insert(place);
        }
        (self.totals, self.absent) = std::mem::take(&mut self.totals)
            .into_iter()
            .partition(|(place, _)| present.contains(place));
    }

    /// What each that is there has come to.
    pub fn totals(&self) -> impl Iterator<Item = (&Unit, &M, &[u64])> {
        self.totals.iter().map(|((unit, more), total)| (&**unit, more, &**total))
    }
}

fn add(sum: &mut Vec<u64>, row: &[u64]) {
    sum.resize(row.len().max(sum.len()), 0);
    sum.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
}

#[cfg(test)]
mod tests;
