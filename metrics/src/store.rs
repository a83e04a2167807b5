//! Series in a fixed amount of memory.
//!
//! Samples are kept raw for [`RAW_MS`], and in steps of the tiers of
//! [`TIERS`]: first, last, min, max, sum, count, changes and resets of each, as a
//! [`Span`]. Raw samples and steps lie compressed in blocks of
//! [`BLOCK_BYTES`](crate::limits::BLOCK_BYTES). When the budget is used up, what ended first is
//! dropped first, of whatever series and tier.
//!
//! An append writes into the series' open block. Once in about fifty samples it takes a new block from
//! the free ones, asks the allocator for a slab of them while the budget allows, or drops the oldest.

mod bits;
mod blocks;
mod codec;
mod drop;
mod index;
mod read;
#[cfg(test)]
mod tests;

pub use self::read::Source;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use self::bits::Record;
use self::blocks::{Blocks, NONE, WORDS};
use self::codec::{Samples, Steps};
use self::index::{ALLOCATION_BYTES, Ids, Pages, Texts, hash_of};
use crate::labels::{Labels, is_metric_name};
use crate::limits::{
    HELP_BYTES_MAX, INDEX_SHARE, METADATA_MAX, RAW_MS, SERIES_MAX, SILENT_MS, SLAB_BLOCKS,
    STORE_BYTES_MIN, TIERS, TIME_MS_MAX,
};
use crate::span::Span;

/// Bytes that are not worth counting one by one: the store itself, and lists of pages.
const FIXED_BYTES: usize = 8 << 10;

/// A series of a store, for appending to it. It stays valid until the series is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId {
    index: u32,
    generation: u32,
}

/// What a metric is, in OpenMetrics' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, or starts again at 0.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets with the label `le`, a sum and a count.
    Histogram,
    /// Says by its labels what something is; always 1.
    Info,
    /// Nobody said.
    Unknown,
}

/// What is said about a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its type.
    pub kind: Kind,
    /// One sentence.
    pub help: String,
    /// Its unit, or empty.
    pub unit: String,
}

/// Why a series is not taken in. The store is as it was, apart from old samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bound on series, and none has been silent long enough to be forgotten.
    #[error(
        "the store has {SERIES_MAX} series already, all alive: leave out labels with many values"
    )]
    Series,
    /// The index would outgrow its share.
    #[error(
        "the labels of all series would take more than half of the store's {budget} bytes: leave out labels with many values, or give the store more memory"
    )]
    Index {
        /// Bytes of the whole store.
        budget: usize,
    },
    /// The bound on metrics.
    #[error("the store describes {METADATA_MAX} metrics already")]
    Metadata,
    /// Not a metric's name.
    #[error("that is not a metric's name: letters, digits, underscores and colons")]
    Name,
}

/// Why a sample is not taken in. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The series was forgotten: ask for it again.
    #[error("the series was forgotten; ask for it again")]
    Forgotten,
    /// Not later than the series' last sample.
    #[error("the sample is not later than the last one")]
    OutOfOrder,
    /// Before the epoch or after the year 9999.
    #[error("the sample's time is before 1970 or after 9999")]
    Time,
}

/// How full a store is, and what became of what it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes it may have.
    pub budget: usize,
    /// Bytes it has.
    pub bytes: usize,
    /// Of them, labels and everything else that is not samples.
    pub index_bytes: usize,
    /// Bytes of blocks with samples in them.
    pub block_bytes: usize,
    /// Series.
    pub series: usize,
    /// Samples taken in, ever.
    pub samples: u64,
    /// Blocks dropped because of the budget, ever.
    pub dropped_blocks: u64,
    /// Series that were refused, ever.
    pub refused_series: u64,
}

/// The store.
///
/// Invariants: what it has allocated never exceeds the budget; whatever is dropped for the budget ended
/// before anything that stays; a chain of blocks is in order of time.
pub struct Store {
    budget: usize,
    texts: Texts,
    series: Pages<Series>,
    ids: Ids,
    labels_bytes: usize,
    blocks: Blocks,
    metadata: BTreeMap<Arc<str>, Metadata>,
    metadata_bytes: usize,
    generation: u32,
    samples: u64,
    dropped_blocks: u64,
    refused_series: u64,
    forgotten_to_ms: i64,
    /// What is added to the times within for those outside: see [`Store::shift`].
    shift_ms: i64,
}

struct Series {
    generation: u32,
    /// Name and value of each label, in order.
    labels: Box<[(u32, u32)]>,
    last_ms: i64,
    samples: Samples,
    raw: Chain,
    tiers: [Tier; TIERS.len()],
}

/// Blocks, the oldest first.
#[derive(Clone, Copy)]
struct Chain {
    head: u32,
    tail: u32,
}

impl Chain {
    const EMPTY: Chain = Chain { head: NONE, tail: NONE };
}

struct Tier {
    chain: Chain,
    /// The step that has not ended.
    open: Option<Span>,
}

impl Store {
    /// Of `budget` bytes, at least [`STORE_BYTES_MIN`].
    pub fn new(budget: usize) -> Self {
        Store {
            budget: budget.max(STORE_BYTES_MIN),
            texts: Texts::new(),
            series: Pages::new(),
            ids: Ids::new(),
            labels_bytes: 0,
            blocks: Blocks::default(),
            metadata: BTreeMap::new(),
            metadata_bytes: 0,
            generation: 0,
            samples: 0,
            dropped_blocks: 0,
            refused_series: 0,
            forgotten_to_ms: i64::MIN,
            shift_ms: 0,
        }
    }

    /// The clock by which samples are dated was set, by `by_ms` ahead: all that is stored moves along. The time between
    /// two samples stays what it was, and whatever comes next comes after the last.
    pub fn shift(&mut self, by_ms: i64) {
        self.shift_ms = self.shift_ms.saturating_add(by_ms);
    }

    /// A time outside as one within.
    fn inner(&self, at_ms: i64) -> i64 {
        at_ms.saturating_sub(self.shift_ms)
    }

    /// The series with these labels, new if need be. A new one may cost the oldest samples, or a series
    /// that has been silent for [`SILENT_MS`] before `now_ms`.
    pub fn series(&mut self, labels: &Labels, now_ms: i64) -> Result<SeriesId, Refused> {
        if let Some(index) = self.find(labels) {
            let generation = self.series.get(index).expect("in the table").generation;
            return Ok(SeriesId { index, generation });
        }
        let room = self.room_for(labels, self.inner(now_ms));
        if let Err(refused) = room {
            self.refused_series += 1;
            return Err(refused);
        }
        let mut pairs = Vec::with_capacity(labels.len());
        for (name, value) in labels.iter() {
            pairs.push((self.texts.intern(&name.into()), self.texts.intern(&value.into())));
        }
        let pairs = pairs.into_boxed_slice();
        self.labels_bytes += labels_bytes(pairs.len());
        let hash = hash_of(&*pairs);
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.series.insert(Series {
            generation,
            labels: pairs,
            last_ms: i64::MIN,
            samples: Samples::new(0),
            raw: Chain::EMPTY,
            tiers: std::array::from_fn(|_| Tier { chain: Chain::EMPTY, open: None }),
        });
        let series = &self.series;
        self.ids.insert(hash, index, |id| hash_of(&*series.get(id).expect("in the table").labels));
        Ok(SeriesId { index, generation })
    }

    /// Adds one sample. [`stale_marker`](crate::span::stale_marker) ends a series.
    pub fn append(&mut self, id: SeriesId, at_ms: i64, value: f64) -> Result<(), Unfit> {
        let series = self.series.get(id.index).filter(|series| series.generation == id.generation);
        let series = series.ok_or(Unfit::Forgotten)?;
        if !(0..=TIME_MS_MAX).contains(&at_ms) {
            return Err(Unfit::Time);
        }
        let at_ms = at_ms.saturating_sub(self.shift_ms);
        if at_ms <= series.last_ms {
            return Err(Unfit::OutOfOrder);
        }
        self.samples += 1;
        self.append_raw(id.index, at_ms, value);
        self.fold(id.index, 0, Span::of(at_ms, value));
        Ok(())
    }

    /// Says what a metric is. The first to say so is believed; a later one must be equal or is ignored.
    pub fn describe(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        unit: &str,
    ) -> Result<(), Refused> {
        if self.metadata.contains_key(name) {
            return Ok(());
        }
        if !is_metric_name(name) || name.len() > HELP_BYTES_MAX {
            return Err(Refused::Name);
        }
        if self.metadata.len() >= METADATA_MAX {
            return Err(Refused::Metadata);
        }
        let cut = |text: &str| {
            let end =
                (0..=text.len().min(HELP_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
            text[..end.unwrap_or(0)].to_owned()
        };
        let metadata = Metadata { kind, help: cut(help), unit: cut(unit) };
        let texts = name.len() + metadata.help.len() + metadata.unit.len();
        // A map's node holds 11 entries and is at least half full.
        let cost = texts + 4 * ALLOCATION_BYTES + 2 * size_of::<(Arc<str>, Metadata)>();
        self.make_room(cost)?;
        self.metadata_bytes += cost;
        self.metadata.insert(name.into(), metadata);
        Ok(())
    }

    /// What was said about metrics, by name.
    pub fn metadata(&self) -> &BTreeMap<Arc<str>, Metadata> {
        &self.metadata
    }

    /// Drops what is older than its tier keeps, ends the steps of silent series, and forgets series that
    /// have nothing left. To be called now and then: a store that nobody appends to does not age.
    pub fn expire(&mut self, now_ms: i64) {
        let now_ms = self.inner(now_ms);
        for index in 0..self.series.end() {
            let Some(series) = self.series.get(index) else { continue };
            let last_ms = series.last_ms;
            let mut raw = series.raw;
            self.drop_before(&mut raw, now_ms - RAW_MS);
            self.series.get_mut(index).expect("it is there").raw = raw;
            for (number, (step_ms, kept_ms)) in TIERS.into_iter().enumerate() {
                let series = self.series.get_mut(index).expect("it is there");
                let tier = &mut series.tiers[number];
                let over =
                    |span: &Span| span.first_ms - span.first_ms % step_ms + 2 * step_ms < now_ms;
                if let Some(step) = tier.open.filter(over) {
                    tier.open = None;
                    self.close(index, number, step);
                }
                let mut chain = self.series.get(index).expect("it is there").tiers[number].chain;
                self.drop_before(&mut chain, now_ms - kept_ms);
                self.series.get_mut(index).expect("it is there").tiers[number].chain = chain;
            }
            let series = self.series.get(index).expect("it is there");
            let empty = series.raw.head == NONE
                && series.tiers.iter().all(|tier| tier.chain.head == NONE && tier.open.is_none());
            if empty && last_ms < now_ms - SILENT_MS {
                self.forget(index);
            }
        }
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let used_blocks = self.blocks.slab_count() * SLAB_BLOCKS - self.blocks.free_count();
        Usage {
            budget: self.budget,
            bytes: self.bytes(),
            index_bytes: self.index_bytes(),
            block_bytes: used_blocks * crate::limits::BLOCK_BYTES,
            series: self.series.len(),
            samples: self.samples,
            dropped_blocks: self.dropped_blocks,
            refused_series: self.refused_series,
        }
    }

    /// When the newest of what was dropped for the budget ended: everything that ended later is there.
    pub fn forgotten_to_ms(&self) -> i64 {
        self.forgotten_to_ms.saturating_add(self.shift_ms)
    }

    fn bytes(&self) -> usize {
        self.index_bytes() + self.blocks.bytes()
    }

    fn index_bytes(&self) -> usize {
        FIXED_BYTES
            + self.texts.bytes()
            + self.series.bytes()
            + self.ids.bytes()
            + self.labels_bytes
            + self.metadata_bytes
    }

    fn find(&self, labels: &Labels) -> Option<u32> {
        let mut pairs = Vec::with_capacity(labels.len());
        for (name, value) in labels.iter() {
            pairs.push((self.texts.find(name)?, self.texts.find(value)?));
        }
        let is_it = |id| *self.series.get(id).expect("in the table").labels == *pairs;
        self.ids.find(hash_of(&*pairs), is_it)
    }

    fn room_for(&mut self, labels: &Labels, now_ms: i64) -> Result<(), Refused> {
        let full = |store: &Self| {
            let bytes = store.index_bytes() + store.cost(labels);
            store.series.len() >= SERIES_MAX || bytes > store.budget / INDEX_SHARE
        };
        if full(self) {
            self.forget_silent(now_ms - SILENT_MS);
        }
        if self.series.len() >= SERIES_MAX {
            return Err(Refused::Series);
        }
        self.make_room(self.cost(labels))
    }

    /// What a series adds to the index at most.
    fn cost(&self, labels: &Labels) -> usize {
        let texts = labels.iter().flat_map(|(name, value)| [name, value]);
        // Twice: the pairs are in a list before they are in a box.
        self.texts.cost(texts)
            + self.series.cost(1)
            + self.ids.cost(1)
            + 2 * labels_bytes(labels.len())
    }

    /// Lets the index grow by `cost`, at the expense of the oldest samples.
    fn make_room(&mut self, cost: usize) -> Result<(), Refused> {
        if self.index_bytes() + cost > self.budget / INDEX_SHARE {
            return Err(Refused::Index { budget: self.budget });
        }
        while self.bytes() + cost > self.budget {
            self.release_slab();
        }
        Ok(())
    }

    /// Forgets the eighth of all series that have been silent for longest, but none that had a sample
    /// after `until_ms`.
    fn forget_silent(&mut self, until_ms: i64) {
        let silent = self.series.iter().filter(|(_, series)| series.last_ms < until_ms);
        let mut silent: Vec<(i64, u32)> = silent.map(|(id, series)| (series.last_ms, id)).collect();
        silent.sort_unstable();
        silent.truncate(self.series.len() / 8 + 1);
        for (_, index) in silent {
            self.forget(index);
        }
    }

    fn forget(&mut self, index: u32) {
        let Some(series) = self.series.get(index) else { return };
        let hash = hash_of(&*series.labels);
        let all = &self.series;
        self.ids.remove(hash, index, |id| hash_of(&*all.get(id).expect("in the table").labels));
        let series = self.series.remove(index).expect("it is there");
        for mut chain in series.chains() {
            self.drop_before(&mut chain, i64::MAX);
        }
        self.labels_bytes -= labels_bytes(series.labels.len());
        for (name, value) in &series.labels {
            self.texts.release(*name);
            self.texts.release(*value);
        }
    }

    fn append_raw(&mut self, index: u32, at_ms: i64, value: f64) {
        let mut record = Record::new();
        let series = self.series.get_mut(index).expect("checked");
        series.last_ms = at_ms;
        if series.raw.tail != NONE {
            let mut samples = series.samples;
            samples.put(&mut record, at_ms, value);
            if write(&mut self.blocks, series.raw.tail, &record, at_ms) {
                series.samples = samples;
                return;
            }
            record = Record::new();
        }
        let mut samples = Samples::new(at_ms);
        samples.put(&mut record, at_ms, value);
        series.samples = samples;
        let block = self.new_block(at_ms);
        write(&mut self.blocks, block, &record, at_ms);
        let chain = &mut self.series.get_mut(index).expect("checked").raw;
        link(&mut self.blocks, chain, block);
    }

    /// Puts a span into a tier's open step, or closes that one and opens the next.
    fn fold(&mut self, index: u32, number: usize, span: Span) {
        let step_ms = TIERS[number].0;
        let tier = &mut self.series.get_mut(index).expect("checked").tiers[number];
        match &mut tier.open {
            Some(open) if open.first_ms / step_ms == span.first_ms / step_ms => open.append(&span),
            open => {
                if let Some(step) = open.replace(span) {
                    self.close(index, number, step);
                }
            }
        }
    }

    /// Writes a step down, and folds it into the next tier.
    fn close(&mut self, index: u32, number: usize, mut step: Span) {
        step.settle();
        let (tail, last) =
            (self.series.get(index).expect("checked").tiers[number].chain.tail, step.last_ms);
        let mut record = Record::new();
        let mut written = false;
        if tail != NONE {
            // The state of the open block is not kept, it would be larger than the block.
            let mut steps = self.steps(tail, TIERS[number].0);
            steps.put(&mut record, &step);
            written = write(&mut self.blocks, tail, &record, last);
        }
        if !written {
            let mut steps = Steps::new(step.first_ms, TIERS[number].0);
            record = Record::new();
            steps.put(&mut record, &step);
            let block = self.new_block(step.first_ms);
            write(&mut self.blocks, block, &record, last);
            let chain = &mut self.series.get_mut(index).expect("checked").tiers[number].chain;
            link(&mut self.blocks, chain, block);
        }
        if number + 1 < TIERS.len() {
            self.fold(index, number + 1, step);
        }
    }

    /// A block: a free one, one of a new slab, or what the oldest samples leave.
    fn new_block(&mut self, first_ms: i64) -> u32 {
        if self.blocks.free_count() == 0 {
            if self.bytes() + Blocks::SLAB_BYTES <= self.budget {
                self.blocks.grow();
            } else {
                self.drop_oldest(1);
            }
        }
        self.blocks.take(first_ms).expect("a free block")
    }
}

/// How full it is, not what is in it.
impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        self.usage().fmt(out)
    }
}

impl Series {
    fn chains(&self) -> [Chain; 1 + TIERS.len()] {
        std::array::from_fn(|index| match index {
            0 => self.raw,
            _ => self.tiers[index - 1].chain,
        })
    }

    fn chains_mut(&mut self) -> [&mut Chain; 1 + TIERS.len()] {
        let [minutes, day] = &mut self.tiers;
        [&mut self.raw, &mut minutes.chain, &mut day.chain]
    }
}

/// Whether the record went into the block.
fn write(blocks: &mut Blocks, id: u32, record: &Record, last_ms: i64) -> bool {
    let block = blocks.at_mut(id);
    let Ok(span_ms) = u32::try_from(last_ms - block.first_ms) else { return false };
    let mut used = usize::from(block.bits);
    if used + record.length() > WORDS * 32 {
        return false;
    }
    record.copy_to(&mut block.words, &mut used);
    (block.bits, block.span_ms) = (used as u16, span_ms);
    block.records += 1;
    true
}

fn link(blocks: &mut Blocks, chain: &mut Chain, block: u32) {
    if chain.tail == NONE {
        chain.head = block;
    } else {
        blocks.at_mut(chain.tail).next = block;
    }
    chain.tail = block;
}

/// What the labels of a series cost beside their texts.
fn labels_bytes(count: usize) -> usize {
    count * size_of::<(u32, u32)>() + ALLOCATION_BYTES
}
