//! Blocks of fixed size, chained: where compressed samples lie.

use crate::limits::{BLOCK_BYTES, SLAB_BLOCKS};

/// No block.
pub(super) const NONE: u32 = u32::MAX;
/// Words of one block's contents.
pub(super) const WORDS: usize = (BLOCK_BYTES - 20) / 4;
const _: () = assert!(size_of::<Block>() == BLOCK_BYTES);
/// What `Block::bits` says of a block that is not in use.
const FREE: u16 = u16::MAX;

/// Records of one series and tier, decodable without any other block.
pub(super) struct Block {
    /// When the first sample in it was taken.
    pub first_ms: i64,
    /// From there to the last one.
    pub span_ms: u32,
    /// The next block of its chain, or the next free one.
    pub next: u32,
    /// Bits in use.
    pub bits: u16,
    /// Records.
    pub records: u16,
    pub words: [u32; WORDS],
}

impl Block {
    pub fn end_ms(&self) -> i64 {
        self.first_ms + i64::from(self.span_ms)
    }
}

/// All blocks of a store, in slabs. Free ones are chained.
#[derive(Default)]
pub(super) struct Blocks {
    slabs: Vec<Box<[Block]>>,
    free: Option<u32>,
    free_count: usize,
}

impl Blocks {
    pub const SLAB_BYTES: usize = SLAB_BLOCKS * BLOCK_BYTES + size_of::<Box<[Block]>>() + 16;

    pub fn bytes(&self) -> usize {
        self.slabs.len() * Self::SLAB_BYTES
    }

    pub fn free_count(&self) -> usize {
        self.free_count
    }

    pub fn slab_count(&self) -> usize {
        self.slabs.len()
    }

    /// A block that is free already.
    pub fn take(&mut self, first_ms: i64) -> Option<u32> {
        let id = self.free?;
        let block = self.at_mut(id);
        let next = block.next;
        (block.first_ms, block.span_ms, block.next, block.bits, block.records) =
            (first_ms, 0, NONE, 0, 0);
        self.free = (next != NONE).then_some(next);
        self.free_count -= 1;
        Some(id)
    }

    pub fn give_back(&mut self, id: u32) {
        let next = self.free.unwrap_or(NONE);
        let block = self.at_mut(id);
        (block.bits, block.next) = (FREE, next);
        self.free = Some(id);
        self.free_count += 1;
    }

    /// Asks the allocator for one more slab.
    pub fn grow(&mut self) {
        let start = (self.slabs.len() * SLAB_BLOCKS) as u32;
        let block = || Block {
            first_ms: 0,
            span_ms: 0,
            next: NONE,
            bits: FREE,
            records: 0,
            words: [0; WORDS],
        };
        self.slabs.reserve_exact(1);
        self.slabs.push((0..SLAB_BLOCKS).map(|_| block()).collect());
        for id in (start..start + SLAB_BLOCKS as u32).rev() {
            self.give_back(id);
        }
    }

    /// Before the last slab can go: leaves only free blocks of other slabs in the free chain. There
    /// must be as many of those as the last slab has in use.
    pub fn retire_last(&mut self) -> std::ops::Range<u32> {
        let end = (self.slabs.len() * SLAB_BLOCKS) as u32;
        let start = end - SLAB_BLOCKS as u32;
        (self.free, self.free_count) = (None, 0);
        for id in (0..start).rev() {
            if self.at(id).bits == FREE {
                self.give_back(id);
            }
        }
        start..end
    }

    /// Copies a block of the retired slab elsewhere.
    pub fn relocate(&mut self, id: u32) -> Option<u32> {
        let new = self.take(self.at(id).first_ms)?;
        let old = self.at(id);
        let (span_ms, next, bits, records, words) =
            (old.span_ms, old.next, old.bits, old.records, old.words);
        let block = self.at_mut(new);
        (block.span_ms, block.next, block.bits, block.records, block.words) =
            (span_ms, next, bits, records, words);
        Some(new)
    }

    pub fn drop_last(&mut self) {
        self.slabs.pop();
    }

    pub fn at(&self, id: u32) -> &Block {
        &self.slabs[id as usize / SLAB_BLOCKS][id as usize % SLAB_BLOCKS]
    }

    pub fn at_mut(&mut self, id: u32) -> &mut Block {
        &mut self.slabs[id as usize / SLAB_BLOCKS][id as usize % SLAB_BLOCKS]
    }
}
