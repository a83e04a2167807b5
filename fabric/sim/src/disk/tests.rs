use super::*;
use fabric::id::NodeId;
use fabric::stamp::Stamp;
use fabric::table::Keyring;

fn entry(reading: u64) -> Entry {
    let stamp = Stamp { reading, node: NodeId([1; 32]) };
    let (key, value) = (Key::Keyring, Value::Keyring(Keyring::default()));
    Entry { key, stamp, value, signature: None }
}

fn write(sequence: u64, reading: u64) -> Write {
    Write { sequence, changes: vec![(b"\0keyring".to_vec(), Some(entry(reading).encode()))] }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn writes_are_applied_in_order() {
    let mut disk = Disk::default();
    assert_eq!(disk.write(write(1, 10), MS, MS * 9), MS * 10);
    assert_eq!(disk.write(write(2, 20), MS * 2, MS), MS * 10);
    assert_eq!(disk.due(2), Written::Gone);
    assert_eq!(disk.due(1), Written::Applied);
    assert_eq!(disk.entry(&Key::Keyring), Some(&entry(10)));
    assert_eq!(disk.due(2), Written::Applied);
    assert_eq!(disk.entry(&Key::Keyring), Some(&entry(20)));
}

#[test]
fn a_crash_keeps_a_prefix_of_what_was_under_way() {
    let mut disk = Disk::default();
    for sequence in 1..=3 {
        disk.write(write(sequence, sequence), MS, MS);
    }
    disk.crash(2);
    assert_eq!(disk.entry(&Key::Keyring), Some(&entry(2)));
    assert_eq!(disk.due(3), Written::Gone);
}

#[test]
fn a_refused_write_takes_everything_behind_it_along() {
    let mut disk = Disk { mode: DiskMode::Refusing, ..Disk::default() };
    disk.write(write(1, 1), MS, MS);
    disk.write(write(2, 2), MS, MS);
    assert!(matches!(disk.due(1), Written::Refused { .. }));
    disk.mode = DiskMode::Well;
    assert_eq!(disk.due(2), Written::Gone);
    assert!(disk.is_empty());
}

#[test]
fn a_row_that_goes_back_is_noticed() {
    let mut disk = Disk::default();
    for (sequence, reading) in [(1, 9), (2, 8)] {
        disk.write(write(sequence, reading), MS, MS);
        disk.due(sequence);
    }
    assert_eq!(disk.wrongs.len(), 1);
}
