use super::*;
use std::path::Path;

/// A table of cgroups that nobody knows: all belong to the unit `other`.
fn counted(counts: &mut Counts, rows: &[(u64, u64)]) -> u64 {
    let cgroups = Cgroups::default();
    let mut units = Units::new(Some(Path::new("/")), &cgroups);
    let rows = rows.iter().map(|(id, count)| ((CgroupId(*id), ()), vec![*count]));
    counts.add(rows, &mut units, &cgroups);
    counts.totals().map(|(_, (), total)| total[0]).sum()
}

/// Cgroup 0 is what is gone: its row grows by everything that a cgroup had counted when it goes.
#[test]
fn what_is_gone_is_counted_once() {
    let mut counts = Counts::new(usize::MAX);
    assert_eq!(counted(&mut counts, &[(0, 0), (7, 10), (8, 1)]), 11);
    assert_eq!(counted(&mut counts, &[(0, 0), (7, 15), (8, 1)]), 16);
    // 7 did two more things before it went.
    assert_eq!(counted(&mut counts, &[(0, 17), (8, 1)]), 18);
    assert_eq!(counted(&mut counts, &[(0, 20), (8, 2)]), 22);
    // 8 goes, and another gets its number: its counts begin anew.
    assert_eq!(counted(&mut counts, &[(0, 22)]), 22);
    assert_eq!(counted(&mut counts, &[(0, 22), (8, 3)]), 25);
}

#[test]
fn places_beyond_the_bound_are_counted_together() {
    let cgroups = Cgroups::default();
    let mut units = Units::new(None, &cgroups);
    let mut counts = Counts::<u32>::new(2);
    let rows = (1..=5u32).map(|more| ((CgroupId(0), more), vec![u64::from(more)]));
    counts.add(rows, &mut units, &cgroups);
    let totals: Vec<_> = counts.totals().map(|(_, more, total)| (*more, total[0])).collect();
    assert_eq!(totals, [(0, 3 + 4 + 5), (1, 1), (2, 2)]);
}

/// What a reading lacks is not told, and goes on when the next one has it. After that its series begin with a zero,
/// from which it must have begun, too.
#[test]
fn a_unit_that_is_back_at_once_goes_on() {
    let mut counts = Counts::new(usize::MAX);
    assert_eq!(counted(&mut counts, &[(7, 2)]), 2);
    assert_eq!(counted(&mut counts, &[]), 0);
    assert_eq!(counted(&mut counts, &[(8, 1)]), 3);
    assert_eq!(counted(&mut counts, &[]), 0);
    assert_eq!(counted(&mut counts, &[]), 0);
    assert_eq!(counted(&mut counts, &[(9, 1)]), 1);
}
