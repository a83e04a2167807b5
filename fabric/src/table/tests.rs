use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::alloc::Phase;
use crate::gossip;
use crate::message::Message;
use crate::signature::{HashSigner, SIGNATURE_BYTES, Signature};
use crate::stamp::Stamp;

const NOW: WallTime = WallTime(1 << 20);

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// An entry whose value follows from its key and stamp: two writes never share a stamp.
fn entry(kind: u8, which: u8, reading: u64, writer: u8) -> Entry {
    let stamp = |n| Stamp { reading: (1 << 35) + reading, node: node(n) };
    let job = JobName::new(["a", "b"][usize::from(which % 2)]).unwrap();
    match kind % 4 {
        0 => {
            let value = match reading % 3 {
                0 => Value::Tombstone { rank: 0 },
                _ => Value::Roster(RosterEntry {
                    name: format!("n{}", which % 4),
                    vouched_by: node(writer),
                    joined: NOW,
                }),
            };
            // A node that comes back after its removal is taken in again by repair, not by these laws.
            let removed = matches!(value, Value::Tombstone { .. });
            let reading = if removed { reading + 1000 } else { reading };
            let stamp = Stamp { reading: (1 << 35) + reading, node: node(writer) };
            signed(Key::Roster(node(which % 4)), stamp, value)
        }
        1 => {
            let info = NodeInfo { name: format!("{reading}"), ..NodeInfo::default() };
            let owner = which % 4;
            Entry {
                key: Key::Node(node(owner)),
                stamp: stamp(owner),
                value: Value::Node(Box::new(info)),
                signature: None,
            }
        }
        2 => signed(Key::Job(job), stamp(writer), Value::Tombstone { rank: reading }),
        _ => {
            let owner = which % 4;
            let phases = [Phase::Reserved, Phase::Starting, Phase::Running, Phase::Ended];
            let row = AllocRow {
                epoch: reading % 3,
                phase: phases[(reading / 3 % 4) as usize],
                restarts: reading as u32,
                ..AllocRow::default()
            };
            Entry {
                key: Key::Alloc(SlotId { job, index: u32::from(writer % 2) }, node(owner)),
                stamp: stamp(owner),
                value: Value::Alloc(Box::new(row)),
                signature: None,
            }
        }
    }
}

/// As the node that the stamp names writes it.
fn signed(key: Key, stamp: Stamp, value: Value) -> Entry {
    Entry::written(&NodeId([9; 32]), &HashSigner::new(7, stamp.node), key, stamp, value)
}

prop_compose! {
    fn entries()(parts in prop::collection::vec((0..4u8, 0..8u8, 0..24u64, 0..4u8), 0..60)) -> Vec<Entry> {
        parts.into_iter().map(|(kind, which, reading, writer)| entry(kind, which, reading, writer)).collect()
    }
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::default();
    for entry in entries {
        table.merge(entry.clone(), NOW);
    }
    table
}

fn contents(table: &Table) -> Vec<Entry> {
    table.entries().map(|entry| (**entry).clone()).collect()
}

proptest! {
    #[test]
    fn merging_is_commutative_and_associative(entries in entries(), seed in any::<u64>()) {
        let mut shuffled = entries.clone();
        shuffled.sort_by_key(|entry| xxhash_rust::xxh3::xxh3_64_with_seed(&entry.encode(), seed));
        prop_assert_eq!(contents(&table(&entries)), contents(&table(&shuffled)));
    }

    #[test]
    fn merging_is_idempotent(entries in entries()) {
        let mut once = table(&entries);
        let before = (contents(&once), once.fingerprint());
        for entry in &entries {
            prop_assert_ne!(once.merge(entry.clone(), NOW), Merge::Taken);
        }
        prop_assert_eq!((contents(&once), once.fingerprint()), before);
    }

    #[test]
    fn equal_fingerprints_mean_equal_tables(left in entries(), right in entries()) {
        let (left, right) = (table(&left), table(&right));
        prop_assert_eq!(left.fingerprint() == right.fingerprint(), contents(&left) == contents(&right));
        prop_assert_eq!(left.buckets() == right.buckets(), contents(&left) == contents(&right));
    }

    #[test]
    fn what_is_derived_agrees_with_the_rows(entries in entries()) {
        let table = table(&entries);
        let rows = contents(&table);
        prop_assert_eq!(table.len(), rows.len());
        prop_assert_eq!(table.members(), table.roster().count());
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        for (node, _) in table.roster() {
            *names.entry(table.name(&node).unwrap()).or_default() += 1;
        }
        for (name, count) in names {
            prop_assert_eq!(table.members_named(name), count);
        }
        let mut root = 0;
        for (bucket, print) in (0..=u8::MAX).zip(table.buckets()) {
            let prints = table.entries_in(bucket).map(SharedEntry::fingerprint);
            prop_assert_eq!(prints.fold(0, |sum, print| sum ^ print), print);
            prop_assert_eq!(table.entries_in(bucket).count(), table.len_of(bucket));
            prop_assert!(table.entries_in(bucket).all(|entry| rows.contains(entry)));
            root ^= print;
        }
        prop_assert_eq!(root, table.fingerprint());
        let sizes = table.entries().map(|entry| (entry.encoded_bytes(), entry.encode().len()));
        prop_assert!(sizes.into_iter().all(|(derived, real)| derived == real));
    }

    #[test]
    fn one_exchange_repairs_both_sides(left in entries(), right in entries()) {
        let (mut left, mut right) = (table(&left), table(&right));
        let Some(Message::Rows { buckets, rows, .. }) =
            gossip::describe(&left, &right.buckets(), WallTime(0), 0)
        else {
            prop_assert_eq!(left.fingerprint(), right.fingerprint());
            return Ok(());
        };
        let (answer, want) = gossip::compare(&right, &buckets, &rows, |_| false, true, WallTime(0));
        let Message::Entries { entries, more: false, .. } = answer else {
            return Err(TestCaseError::fail("a small table fits one message"));
        };
        let (back, _) = gossip::collect(&left, want.iter());
        for entry in entries {
            left.merge(entry, NOW);
        }
        for entry in back {
            right.merge(entry, NOW);
        }
        // A removal that arrives now drops rows; one more round would show it. Compare what both
        // would keep.
        let all: Vec<Entry> = contents(&left).into_iter().chain(contents(&right)).collect();
        let both = contents(&table(&all));
        prop_assert_eq!(contents(&left), both.clone());
        prop_assert_eq!(contents(&right), both);
    }
}

#[test]
fn a_late_running_never_beats_an_ended_of_the_same_epoch() {
    let row = |epoch, phase, reading: u64| {
        let mut entry = entry(3, 1, 0, 1);
        entry.stamp.reading = (1 << 35) + reading;
        let row = AllocRow { epoch, phase, ..AllocRow::default() };
        entry.value = Value::Alloc(Box::new(row));
        entry
    };
    let mut table = Table::default();
    assert_eq!(table.merge(row(1, Phase::Ended, 5), NOW), Merge::Taken);
    assert_eq!(table.merge(row(1, Phase::Running, 9), NOW), Merge::Known);
    assert_eq!(table.merge(row(2, Phase::Reserved, 1), NOW), Merge::Taken, "a new epoch does");
}

#[test]
fn only_the_owner_writes_its_rows() {
    let mut forged = entry(1, 1, 1, 1);
    forged.stamp.node = node(2);
    assert_eq!(Table::default().merge(forged, NOW), Merge::Refused);
}

#[test]
fn what_anybody_may_write_is_signed_and_nothing_else() {
    for kind in 0..4 {
        let good = entry(kind, 1, 1, 1);
        assert_eq!(Table::default().merge(good.clone(), NOW), Merge::Taken);
        let mut other = good;
        other.signature = match other.signature {
            Some(_) => None,
            None => Some(Signature::new([0; SIGNATURE_BYTES])),
        };
        assert_eq!(Table::default().merge(other, NOW), Merge::Refused, "{kind}");
    }
}

#[test]
fn a_removed_node_leaves_nothing_behind_and_cannot_write() {
    let mut table = table(&[entry(1, 1, 1, 1), entry(3, 1, 1, 1)]);
    assert_eq!(table.len(), 2);
    let stamp = Stamp { reading: 1 << 40, node: node(2) };
    let removal = signed(Key::Roster(node(1)), stamp, Value::Tombstone { rank: 0 });
    table.merge(removal, NOW);
    assert_eq!(table.len(), 1);
    assert_eq!(table.merge(entry(1, 1, 9, 1), NOW), Merge::Refused);
}

#[test]
fn ended_rows_leave_on_every_node_and_stay_out() {
    let row = AllocRow { epoch: 1, phase: Phase::Ended, ..AllocRow::default() };
    let mut ended = entry(3, 1, 0, 1);
    ended.value = Value::Alloc(Box::new(row));
    let mut table = table(&[ended.clone()]);
    let before = WallTime(ended.stamp.wall().0 + limits::ENDED_KEEP.as_millis() as u64);
    assert!(table.expire(before).is_empty());
    let after = WallTime(before.0 + 1);
    assert_eq!(table.expire(after).len(), 1);
    assert_eq!(table.merge(ended, after), Merge::Refused);
    assert_eq!((table.len(), table.fingerprint()), (0, 0));
}

#[test]
fn each_ended_row_leaves_when_its_job_says() {
    let ended = |job: u8, keep_s| {
        let row = AllocRow { epoch: 1, phase: Phase::Ended, keep_s, ..AllocRow::default() };
        let mut ended = entry(3, job, 0, 1);
        ended.value = Value::Alloc(Box::new(row));
        ended
    };
    let written = ended(1, 0).stamp.wall().0;
    let after = |seconds: u64| WallTime(written + seconds * 1000 + 1);
    let day = 86_400;
    let rows = [ended(1, 60), ended(2, 7 * day), ended(3, u32::MAX)];
    let mut table = Table::default();
    for row in &rows {
        assert_eq!(table.merge(row.clone(), after(0)), Merge::Taken);
    }
    assert!(table.expire(after(59)).is_empty());
    assert_eq!(table.expire(after(60)), [rows[0].key.clone()]);
    assert_eq!(table.merge(rows[0].clone(), after(61)), Merge::Refused);
    assert!(table.expire(after(6 * u64::from(day))).is_empty());
    assert_eq!(table.expire(after(7 * u64::from(day))), [rows[1].key.clone()]);
    // No row asks for more than a job may.
    assert_eq!(table.expire(after(30 * u64::from(day))), [rows[2].key.clone()]);
    assert!(table.is_empty());
}

#[test]
fn a_revert_beats_its_own_version_and_no_later_submit() {
    let spec = crate::job::parse("name='a'\n[task]\ncommand=['/bin/true']").unwrap();
    let job = |version, reverted, reading| {
        let job = JobEntry {
            spec: spec.clone(),
            version,
            generation: 0,
            previous: None,
            reverted,
            by: String::new(),
        };
        let stamp = Stamp { reading, node: node(1) };
        signed(Key::Job(spec.name.clone()), stamp, Value::Job(Box::new(job)))
    };
    let reading = 1 << 40;
    let mut table = table(&[job(2, false, reading)]);
    assert_eq!(table.merge(job(2, true, reading), NOW), Merge::Taken);
    assert_eq!(table.merge(job(2, false, reading), NOW), Merge::Known);
    assert_eq!(table.merge(job(3, false, reading + 1), NOW), Merge::Taken);
    assert_eq!(table.merge(job(2, true, reading), NOW), Merge::Known);
}

/// Beyond its bounds a table takes a sixteenth more of what others made, and then nothing new.
#[test]
fn rows_that_another_member_sends_beyond_the_bounds_are_refused() {
    let of_a_slot = |index: u32, epoch| {
        let slot = SlotId { job: JobName::new("a").unwrap(), index };
        let row = AllocRow { epoch, phase: Phase::Running, ..AllocRow::default() };
        let stamp = Stamp { reading: (1 << 35) + epoch, node: node(2) };
        let value = Value::Alloc(Box::new(row));
        Entry { key: Key::Alloc(slot, node(2)), stamp, value, signature: None }
    };
    let of_a_job = |number: u32, rank| {
        let stamp = Stamp { reading: (1 << 35) + rank, node: node(2) };
        let key = Key::Job(JobName::new(&format!("j{number}")).unwrap());
        signed(key, stamp, Value::Tombstone { rank })
    };
    let of_a_quota = |number: u32, rank| {
        let stamp = Stamp { reading: (1 << 35) + rank, node: node(2) };
        let key = Key::Quota(Namespace::new(&format!("q{number}")).unwrap());
        signed(key, stamp, Value::Tombstone { rank })
    };
    type Make<'a> = &'a dyn Fn(u32, u64) -> Entry;
    let all = Bounds::default();
    let kinds: [(Bounds, Make<'_>); 3] = [
        (Bounds { entries: 32, ..all }, &of_a_slot),
        (Bounds { jobs: 32, ..all }, &of_a_job),
        (Bounds { quotas: 32, ..all }, &of_a_quota),
    ];
    for (bounds, make) in kinds {
        let mut table = Table::default();
        table.set_bounds(bounds);
        for number in 0..32 {
            assert_eq!(table.merge(make(number, 1), NOW), Merge::Taken);
        }
        let more = make(32, 1);
        assert!(!table.has_room(&more.key), "nobody here makes another one");
        for number in 32..34 {
            assert_eq!(table.merge(make(number, 1), NOW), Merge::Taken);
        }
        let before = (table.len(), table.fingerprint());
        for number in 34..1000 {
            assert_eq!(table.merge(make(number, 1), NOW), Merge::Refused);
        }
        assert_eq!((table.len(), table.fingerprint()), before);
        assert_eq!(table.merge(make(7, 2), NOW), Merge::Taken, "what is there changes");
    }
}

/// All that a described row can be at the most.
#[test]
fn no_described_row_is_larger_than_its_bound() {
    let job = || JobName::new(&"j".repeat(limits::JOB_NAME_BYTES_MAX)).unwrap();
    let slot = SlotId { job: job(), index: u32::MAX };
    let namespace = Namespace::new(&"n".repeat(limits::JOB_NAME_BYTES_MAX)).unwrap();
    let stamp = Stamp { reading: u64::MAX, node: node(255) };
    let order = Order { rank: u64::MAX, stamp, mark: 1 };
    let keys =
        [Key::Alloc(slot, node(255)), Key::Job(job()), Key::Quota(namespace), Key::Node(node(1))];
    let sizes = keys.map(|key| postcard::to_allocvec(&(key, order)).unwrap().len());
    assert_eq!(sizes.iter().max(), Some(&limits::ROW_BYTES_MAX), "{sizes:?}");
    let full = limits::ENTRIES_MAX / BUCKETS * sizes[0];
    println!("{} bytes a row, {full} of a bucket of a full table", sizes[0]);
    assert!(full > limits::MESSAGE_BYTES_MAX, "{full}");
}

/// Buckets whose description would not fit one message: each message fits, and in the end both have all.
#[test]
fn what_is_too_much_for_one_message_is_repaired_part_by_part() {
    let token = |number: u32| {
        let id = TokenId(format!("{number}{}", "x".repeat(8000)));
        let stamp = Stamp { reading: (1 << 35) + u64::from(number), node: node(2) };
        signed(Key::Token(id), stamp, Value::Tombstone { rank: 0 })
    };
    let all: Vec<Entry> = (0..400).map(token).collect();
    let (mut one, mut other) = (table(&all[..300]), table(&all[100..]));
    let mut rounds = 0;
    while one.fingerprint() != other.fingerprint() {
        rounds += 1;
        assert!(rounds < 200, "{} and {} of 400", one.len(), other.len());
        // Each of them asks in turn.
        std::mem::swap(&mut one, &mut other);
        let turn = (rounds as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let message = gossip::describe(&one, &other.buckets(), WallTime(0), turn).unwrap();
        assert!(message.encode().len() <= limits::MESSAGE_BYTES_MAX);
        let Message::Rows { buckets, rows, .. } = message else { panic!() };
        assert!(!buckets.is_empty() || rows.len() > 100, "{}", rows.len());
        let (answer, want) = gossip::compare(&other, &buckets, &rows, |_| false, true, WallTime(0));
        let Message::Entries { entries, .. } = answer else { panic!() };
        assert!(!buckets.is_empty() || entries.is_empty(), "what is not told of is not missing");
        for entry in entries {
            one.merge(entry, NOW);
        }
        for entry in gossip::collect(&one, want.iter()).0 {
            other.merge(entry, NOW);
        }
    }
    assert_eq!((one.len(), other.len()), (400, 400));
}
