//! Making room: what ended first goes first.

use super::blocks::NONE;
use super::{Chain, Store};
use crate::limits::{DROP_MS_MAX, SLAB_BLOCKS};

impl Store {
    /// Gives a slab back to the allocator.
    pub(super) fn release_slab(&mut self) {
        self.drop_oldest(SLAB_BLOCKS);
        let retired = self.blocks.retire_last();
        let blocks = &mut self.blocks;
        let mut moved = |id: &mut u32| {
            if retired.contains(id) {
                *id = blocks.relocate(*id).expect("as many free blocks as are moved");
            }
        };
        for index in 0..self.series.end() {
            let Some(series) = self.series.get_mut(index) else { continue };
            for chain in series.chains_mut() {
                moved(&mut chain.head);
            }
        }
        for index in 0..self.series.end() {
            let Some(series) = self.series.get_mut(index) else { continue };
            for chain in series.chains_mut() {
                let mut id = chain.head;
                while id != NONE {
                    let next = self.blocks.at(id).next;
                    if retired.contains(&next) {
                        let new =
                            self.blocks.relocate(next).expect("as many free blocks as are moved");
                        self.blocks.at_mut(id).next = new;
                    }
                    chain.tail = id;
                    id = self.blocks.at(id).next;
                }
            }
        }
        self.blocks.drop_last();
    }

    /// Drops whatever ended first, until there are `wanted` free blocks.
    pub(super) fn drop_oldest(&mut self, wanted: usize) {
        while self.blocks.free_count() < wanted {
            let (mut oldest, mut newest) = (i64::MAX, i64::MIN);
            for (_, series) in self.series.iter() {
                newest = newest.max(series.last_ms);
                for chain in series.chains().into_iter().filter(|chain| chain.head != NONE) {
                    oldest = oldest.min(self.blocks.at(chain.head).end_ms());
                }
            }
            if oldest == i64::MAX {
                return;
            }
            // A walk over all series costs the same for one block as for many: take a little more. A sample
            // from the far future must not make everything else old.
            let until_ms = oldest + ((newest - oldest).max(0) / 256).min(DROP_MS_MAX);
            self.forgotten_to_ms = self.forgotten_to_ms.max(until_ms);
            let before = self.blocks.free_count();
            for index in 0..self.series.end() {
                let Some(series) = self.series.get(index) else { continue };
                let mut chains = series.chains();
                for chain in &mut chains {
                    self.drop_before(chain, until_ms + 1);
                }
                let series = self.series.get_mut(index).expect("it is there");
                for (chain, kept) in series.chains_mut().into_iter().zip(chains) {
                    *chain = kept;
                }
            }
            self.dropped_blocks += (self.blocks.free_count() - before) as u64;
        }
    }

    /// Drops the blocks of a chain that ended before a time.
    pub(super) fn drop_before(&mut self, chain: &mut Chain, before_ms: i64) {
        while chain.head != NONE && self.blocks.at(chain.head).end_ms() < before_ms {
            let next = self.blocks.at(chain.head).next;
            self.blocks.give_back(chain.head);
            chain.head = next;
        }
        if chain.head == NONE {
            chain.tail = NONE;
        }
    }
}
