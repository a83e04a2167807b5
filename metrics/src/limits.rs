//! Every bound of this crate: its unit last in the name, its reason beside it.

/// Bytes of a store, everything in it counted. An agent with a full store shall fit 12 MiB.
pub const STORE_BYTES: usize = 4 << 20;
/// Bytes below which a store makes no sense: one slab of blocks, and an index of some series.
pub const STORE_BYTES_MIN: usize = 64 << 10;
/// Bytes of one block of compressed samples. Each series has an open block a tier, half empty on
/// average, and every block repeats a header of 20 bytes: 128 is where the two cost the same.
pub const BLOCK_BYTES: usize = 128;
/// Blocks that are asked of the allocator at once: 16 KiB.
pub const SLAB_BLOCKS: usize = 128;
/// The index may take this part of the budget: a store of nothing but labels answers nothing.
pub const INDEX_SHARE: usize = 2;

/// Series of one store. A node with a hundred units has about 5,000.
pub const SERIES_MAX: usize = 16_384;
/// Labels of one series, its name included.
pub const LABELS_MAX: usize = 32;
/// Bytes of a label's name.
pub const LABEL_NAME_BYTES_MAX: usize = 128;
/// Bytes of a label's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 512;
/// Metrics with a type and a help text.
pub const METADATA_MAX: usize = 2_048;
/// Bytes of a help text; a longer one is cut.
pub const HELP_BYTES_MAX: usize = 256;
/// Milliseconds from the epoch that a sample may have: the year 10,000, so that differences of two
/// and sums of differences cannot overflow.
pub const TIME_MS_MAX: i64 = 253_402_300_800_000;

/// Milliseconds that raw samples are kept.
pub const RAW_MS: i64 = 10 * 60_000;
/// Milliseconds of one step of each down-sampled tier, and how long its steps are kept. The longest
/// step is shorter than the look-back of a selector, so that old series have no gaps.
pub const TIERS: [(i64, i64); 2] = [(60_000, 3 * 3_600_000), (240_000, 24 * 3_600_000)];
const _: () = assert!(TIERS[1].0 % TIERS[0].0 == 0, "steps nest");
const _: () = assert!(TIERS[1].0 < LOOKBACK_MS);
/// Milliseconds of the past that are dropped at once, at most, when the budget is used up.
pub const DROP_MS_MAX: i64 = 10 * 60_000;
/// Milliseconds that a series must have been silent before it makes room for a new one.
pub const SILENT_MS: i64 = LOOKBACK_MS;

/// Milliseconds that a selector looks back for a sample: Prometheus's default.
pub const LOOKBACK_MS: i64 = 300_000;
/// Milliseconds between the evaluations of a subquery that names no step: Prometheus's default.
pub const SUBQUERY_STEP_MS: i64 = 60_000;

/// Bytes of an expression.
pub const EXPRESSION_BYTES_MAX: usize = 16 << 10;
/// Nesting of an expression, and operators in one chain: bounds the stack.
pub const EXPRESSION_DEPTH_MAX: usize = 100;
/// Evaluations of one range query: Prometheus's limit.
pub const STEPS_MAX: usize = 11_000;
/// Series that all selectors of one query may find together.
pub const QUERY_SERIES_MAX: usize = 10_000;
/// Values that one query may make, of all its operations together: 8 MB of memory.
pub const QUERY_VALUES_MAX: u64 = 1_000_000;
/// Samples that one query may look at, those in overlapping windows in each of them: about a second of one
/// core.
pub const QUERY_SAMPLES_MAX: u64 = 100_000_000;
/// Bytes of a regular expression.
pub const REGEX_BYTES_MAX: usize = 1 << 10;
/// Bytes of a compiled regular expression: it is tried on each of a store's texts, in time that grows with
/// its size.
pub const REGEX_COMPILED_BYTES_MAX: usize = 64 << 10;

/// Parts that a question is cut into for many nodes: it has a selector for each. What a person or a dashboard writes has
/// a dozen.
pub const PARTS_MAX: usize = 1_000;
/// Groups that one node sends of a `topk` over sums; the rest becomes an error bound.
pub const PARTIAL_GROUPS_MAX: usize = 512;

/// Samples of one message of remote-write. Prometheus itself sends 2,000: half, since a message is built while
/// nothing else is measured.
pub const BATCH_SAMPLES_MAX: usize = 1_000;
/// Bytes of one message of remote-write before it is compressed: a thousand series of ordinary labels. Receivers
/// take megabytes.
pub const BATCH_BYTES_MAX: usize = 192 << 10;
const _: () = assert!(
    LABELS_MAX * (LABEL_NAME_BYTES_MAX + LABEL_VALUE_BYTES_MAX + 16) < BATCH_BYTES_MAX,
    "every series fits a message"
);
