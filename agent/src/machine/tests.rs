use super::*;

const UUID: &str = "sys/class/dmi/id/product_uuid";
const SERIAL: &str = "sys/class/dmi/id/board_serial";
const ETC: &str = "etc/machine-id";
const ONE: &str = "3d1219c7c4c5404aaa1f6d2a48adfda4\n";
const OTHER: &str = "9a1219c7c4c5404aaa1f6d2a48adfda4\n";

type Files<'a> = &'a [(&'a str, &'a str)];

fn machine(files: Files) -> Machine {
    let root = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
        fs::write(path, text).expect("written");
    }
    Machine::this(root.path())
}

#[test]
fn another_machine_is_told_by_its_hardware_else_by_its_machine_id() {
    let rows: [(Files, Files, Option<&str>); 10] = [
        (&[(ETC, ONE)], &[(ETC, ONE)], None),
        (&[(ETC, ONE)], &[(ETC, OTHER)], Some(MACHINE_ID)),
        // Installed anew on the same board; the same card in another board.
        (&[(UUID, "a1\n"), (ETC, ONE)], &[(UUID, "A1\n"), (ETC, OTHER)], None),
        (&[(UUID, "a1"), (ETC, ONE)], &[(UUID, "b2"), (ETC, ONE)], Some("product-uuid")),
        (&[(UUID, "a1"), (SERIAL, "s1")], &[(UUID, "a1"), (SERIAL, "s2")], None),
        // Not both say something of their hardware.
        (&[(UUID, "a1"), (ETC, ONE)], &[(ETC, ONE)], None),
        (&[(UUID, "a1"), (ETC, ONE)], &[(ETC, OTHER)], Some(MACHINE_ID)),
        // Phrases are no numbers.
        (&[(SERIAL, "Default string"), (ETC, ONE)], &[(SERIAL, "s2"), (ETC, ONE)], None),
        // New at each boot.
        (&[(ETC, ONE), ("run/machine-id", ONE)], &[(ETC, OTHER), ("run/machine-id", OTHER)], None),
        (&[], &[(ETC, ONE)], None),
    ];
    for (one, other, wanted) in rows {
        let (one, other) = (machine(one), machine(other));
        assert_eq!(one.differs_from(&other), wanted, "{one:?} {other:?}");
        assert_eq!(other.differs_from(&one), wanted, "{other:?} {one:?}");
    }
}

#[test]
fn what_says_nothing_is_left_out() {
    for text in
        ["", "\n", "None", "0", "0000-0000", "FFFFFFFF-FFFF", "To Be Filled By O.E.M.", "\0"]
    {
        assert_eq!(machine(&[(UUID, text), (SERIAL, text)]), Machine::default(), "{text:?}");
    }
    assert_eq!(machine(&[(ETC, "uninitialized\n")]), Machine::default());
    assert_eq!(machine(&[(HARDWARE[0].1, "10000000a1b2c3d4\0")]).0.len(), 1);
}

#[test]
fn a_copied_state_is_refused_and_left_alone_until_somebody_says_that_it_moved() {
    let state = tempfile::tempdir().expect("a folder");
    let state = state.path();
    let (one, other) = (machine(&[(ETC, ONE)]), machine(&[(ETC, OTHER)]));
    // State of an agent that did not note it yet.
    check(state, &one).expect("nothing is noted");
    bind(state, &one);
    check(state, &one).expect("the same machine");
    let noted = fs::read_to_string(state.join(FILE)).expect("noted");
    assert!(!noted.contains(ONE.trim()), "{noted}");

    let error = check(state, &other).expect_err("another machine").to_string();
    assert!(error.contains("machine-id differs") && error.contains("remove"), "{error}");
    assert_eq!(fs::read_to_string(state.join(FILE)).expect("noted"), noted);
    assert_eq!(fs::read_dir(state).expect("a folder").count(), 1);

    fs::remove_file(state.join(FILE)).expect("as it was told");
    check(state, &other).expect("it moved");
    bind(state, &other);
    assert!(check(state, &one).is_err());
    // Damaged, and new marks of the same machine.
    fs::write(state.join(FILE), [0xff, 0xfe]).expect("written");
    check(state, &other).expect("nothing is noted");
    let more = machine(&[(ETC, OTHER), (UUID, "a1")]);
    bind(state, &more);
    check(state, &more).expect("the same machine");
    assert!(check(state, &machine(&[(ETC, OTHER), (UUID, "b2")])).is_err());
}
