use super::*;
use std::os::unix::fs::symlink;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn a_node_keeps_its_key() {
    let state = tempfile::tempdir().expect("a directory");
    let state = state.path().join("deep/state");
    let first = Identity::load_or_create(&state).expect("made");
    let second = Identity::load_or_create(&state).expect("read");
    assert_eq!(first.id(), second.id());
    assert_eq!(mode(&state.join(NODE_KEY)), 0o600);
    assert_eq!(mode(&state), 0o700);
    assert_eq!(fs::read_dir(&state).expect("listed").count(), 1, "no rests of writing");
}

#[test]
fn a_key_that_others_can_read_is_refused_with_advice() {
    let state = tempfile::tempdir().expect("a directory");
    Identity::load_or_create(state.path()).expect("made");
    let path = state.path().join(NODE_KEY);
    for mode in [0o640, 0o604, 0o660, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
        let error = Identity::load_or_create(state.path()).expect_err("refused").to_string();
        assert!(error.contains("chmod 600") && error.contains("node.key"), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("changed");
    Identity::load_or_create(state.path()).expect("only the owner can read it");
}

#[test]
fn a_damaged_key_is_refused_and_left_alone() {
    let state = tempfile::tempdir().expect("a directory");
    Identity::load_or_create(state.path()).expect("made");
    let path = state.path().join(NODE_KEY);
    let whole = fs::read(&path).expect("read");
    for damaged in [&whole[..whole.len() / 2], &[][..], &[0x30; 9000][..]] {
        fs::write(&path, damaged).expect("written");
        let error = format!("{:#}", Identity::load_or_create(state.path()).expect_err("refused"));
        assert!(error.contains("restore it from a backup"), "{error}");
        assert_eq!(fs::read(&path).expect("read"), damaged);
    }
}

#[test]
fn a_rest_of_an_interrupted_write_does_no_harm() {
    let state = tempfile::tempdir().expect("a directory");
    let elsewhere = state.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").expect("written");
    symlink(&elsewhere, state.path().join("node.new")).expect("linked");
    Identity::load_or_create(state.path()).expect("made");
    assert_eq!(fs::read_to_string(&elsewhere).expect("read"), "untouched");
    assert_eq!(mode(&state.path().join(NODE_KEY)), 0o600);
}

#[test]
fn a_fabric_survives_a_restart() {
    let state = tempfile::tempdir().expect("a directory");
    assert!(Fabric::load(state.path()).expect("readable").is_none());
    let founded = Fabric::found("my lab").expect("founded");
    founded.save(state.path()).expect("saved");
    let loaded = Fabric::load(state.path()).expect("readable").expect("there");
    assert_eq!(loaded.key(), founded.key());
    assert_eq!(loaded.name(), "my lab");
    assert_eq!(mode(&state.path().join(FABRIC_KEY)), 0o600);
    assert!(!format!("{founded:?}").contains("pkcs8"));
}

#[test]
fn a_fabric_needs_a_name_that_can_be_printed() {
    for name in ["", "a\nb", &"x".repeat(64)] {
        assert!(Fabric::found(name).is_err(), "{name:?}");
    }
}

#[test]
fn generations_grow_whatever_the_clock_does() {
    let state = tempfile::tempdir().expect("a directory");
    let mut last = 0;
    for wall in [1000, 2000, 500, 500, 0, 3000, u64::MAX - 1] {
        let next = next_generation(state.path(), wall);
        assert!(next == wall || next >= last + LIFE, "{next} after {last}");
        assert!(next > last);
        last = next;
    }
    fs::write(state.path().join(GENERATION), "rubbish").expect("written");
    assert_eq!(next_generation(state.path(), 77), 77);
}

#[test]
fn a_fingerprint_is_the_beginning_of_the_key() {
    let node: NodeId = format!("0123456789abcdef0123{}", "f".repeat(44)).parse().unwrap();
    assert_eq!(fingerprint(&node), "0123-4567-89ab-cdef-0123");
    assert!(fingerprint(&node).starts_with(&node.short()[..4]));
}

/// A row as a node with a real key writes it, and as all others check it.
#[test]
fn a_row_is_signed_with_the_nodes_key() {
    use fabric::clock::WallTime;
    use fabric::stamp::Stamp;
    use fabric::table::{Entry, Key, RosterEntry, Value};
    let one = Identity::ephemeral().expect("a key");
    let other = Identity::ephemeral().expect("a key");
    let fabric = Fabric::found("home").expect("a fabric").key();
    let value = RosterEntry { name: "n".into(), vouched_by: one.id(), joined: WallTime(7) };
    let (key, stamp) = (Key::Roster(other.id()), Stamp { reading: 5, node: one.id() });
    let row = Entry::written(&fabric, &one, key.clone(), stamp, Value::Roster(value.clone()));
    let row = Entry::decode(&row.encode()).expect("it survives the wire");
    assert!(row.is_authentic(&fabric, &other), "whoever checks it");
    assert!(!row.is_authentic(&one.id(), &other), "in another fabric");
    let later = Stamp { reading: 6, ..stamp };
    assert!(!Entry { stamp: later, ..row.clone() }.is_authentic(&fabric, &other));
    let borrowed = Entry::written(&fabric, &other, key, stamp, Value::Roster(value));
    assert!(!borrowed.is_authentic(&fabric, &one), "signed by another one");
    // What is no key at all signs nothing.
    let nobody = Stamp { node: NodeId([0xff; 32]), ..stamp };
    assert!(!Entry { stamp: nobody, ..row }.is_authentic(&fabric, &other));
}
