use super::*;

/// A file system of `size` GiB with so much free, none of it for root only.
fn space(size: u64, free: u64) -> Space {
    Space { size: size * GIB, free: free * GIB, available: free * GIB }
}

fn found(space: Space, before: Option<&DiskPool>, claimed: u64) -> DiskPool {
    let pool = pool(space, None, before, claimed).unwrap();
    assert_eq!(pool.name, "default");
    pool
}

#[test]
fn what_is_free_can_be_promised_less_a_reserve() {
    for (size, free, capacity, reserved) in [
        (1000, 400, 350, 50),
        (40, 40, 38, 2),
        // At least 1 GiB, but never more than a tenth.
        (16, 12, 11, 1),
        (10, 5, 4, 1),
        (40, 1, 0, 2),
    ] {
        let pool = found(space(size, free), None, 0);
        assert_eq!((pool.capacity, pool.reserved), (capacity * GIB, reserved * GIB), "{size}");
        assert_eq!(pool.size(), size * GIB);
    }
    let card = Space { size: GIB, free: GIB / 2, available: GIB / 2 };
    assert_eq!(found(card, None, 0).reserved, GIB / 10);
    let nothing = Space { size: 0, free: 0, available: 0 };
    assert_eq!(found(nothing, None, 7).capacity, 0);
}

#[test]
fn what_is_kept_for_root_is_a_part_of_the_reserve() {
    let of_root = |kept: u64| Space { available: (400 - kept) * GIB, ..space(1000, 400) };
    assert_eq!(found(of_root(50), None, 0), found(of_root(0), None, 0));
    assert_eq!(found(of_root(20), None, 0), found(of_root(0), None, 0));
    // More than the reserve is nobody's to promise.
    assert_eq!(found(of_root(80), None, 0).capacity, 320 * GIB);
}

#[test]
fn what_claims_have_used_is_not_counted_twice() {
    let before = found(space(1000, 500), None, 0);
    assert_eq!(before.capacity, 450 * GIB);
    // A job that claimed 200 GiB writes them, bit by bit.
    for written in [0, 60, 200] {
        let now = found(space(1000, 500 - written), Some(&before), 200 * GIB);
        assert_eq!(now, before, "{written}");
    }
    // What is more than all claims can only be others'.
    let now = found(space(1000, 200), Some(&before), 200 * GIB);
    assert_eq!((now.capacity, now.used), (350 * GIB, 600 * GIB));
    // The job is gone and has left its data: whose it is does not matter any more.
    let now = found(space(1000, 300), Some(&before), 0);
    assert_eq!(now.capacity, 250 * GIB);
    // Or it is gone with its data, and others made room as well.
    let now = found(space(1000, 700), Some(&before), 0);
    assert_eq!(now.capacity, 650 * GIB);
    // Nothing is known from before: better too little than too much.
    assert_eq!(found(space(1000, 300), None, 200 * GIB).capacity, 250 * GIB);
}

#[test]
fn small_changes_are_not_worth_a_word() {
    let before = found(space(1000, 500), None, 0);
    for (free, same) in [(499, true), (455, true), (454, false), (545, true), (546, false)] {
        let now = found(space(1000, free), Some(&before), 0);
        assert_eq!(now == before, same, "{free}");
        let fresh = found(space(1000, free), None, 0);
        assert!(same || now == fresh, "what is said anew is what there is");
    }
    // Some file systems grow and shrink by themselves.
    let before = found(space(1000, 500), None, 0);
    assert_eq!(found(space(1001, 500), Some(&before), 0), before);
    // A tenth of little is nothing: then it is 1 GiB.
    let before = found(space(1000, 52), None, 0);
    assert_eq!(before.capacity, 2 * GIB);
    assert_eq!(found(space(1000, 51), Some(&before), 0), before);
    assert_ne!(found(space(1000, 50), Some(&before), 0), before);
    // Small steps add up: it is compared with what was said, not with the last look.
    let mut last = found(space(1000, 500), None, 0);
    for free in (440..500).rev() {
        last = found(space(1000, free), Some(&last), 0);
    }
    assert!(last.capacity < 405 * GIB, "{last:?}");
    // The file system has grown.
    assert_eq!(found(space(2000, 1500), Some(&last), 0), found(space(2000, 1500), None, 0));
}

#[test]
fn what_the_owner_gives_counts_as_long_as_it_is_there() {
    let given = |bytes, free| pool(space(1000, free), Some(bytes), None, 0);
    let little = given(100 * GIB, 500).unwrap();
    assert_eq!((little.capacity, little.used, little.reserved), (100 * GIB, 500 * GIB, 400 * GIB));
    assert_eq!(given(490 * GIB, 500).unwrap().capacity, 490 * GIB, "the reserve, too");
    assert_eq!(given(490 * GIB, 300).unwrap().capacity, 300 * GIB, "others use the rest");
    assert_eq!(given(0, 300).unwrap().capacity, 0);
    let error = given(1001 * GIB, 500).unwrap_err();
    assert!(error.to_string().contains("resources.disk"), "{error}");
    // Another word of the owner counts at once, however little it changes.
    let before = given(100 * GIB, 500).unwrap();
    let now = pool(space(1000, 500), Some(101 * GIB), Some(&before), 0).unwrap();
    assert_eq!(now.capacity, 101 * GIB);
    let now = pool(space(1000, 500), None, Some(&before), 0).unwrap();
    assert_eq!(now, found(space(1000, 500), None, 0));
}

#[test]
fn a_real_file_system_says_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::of(folder.path()).unwrap();
    assert!(space.size >= space.free && space.free >= space.available, "{space:?}");
    assert!(space.size > 0);
    assert!(Space::of(&folder.path().join("missing")).is_err());
}
