use super::*;
use crate::batch::tests::table;
use std::fs;
use std::path::PathBuf;

/// A hierarchy of nothing but its root, which goes with this.
struct Hierarchy(PathBuf);

impl Hierarchy {
    fn new() -> (Self, Cgroups) {
        let root = std::env::temp_dir().join(format!("weft-table-{}", std::process::id()));
        fs::create_dir_all(&root).expect("a folder");
        fs::write(root.join("cgroup.stat"), "nr_descendants 0\n").expect("written");
        let cgroups = Cgroups::at(root.clone());
        (Self(root), cgroups)
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn read(table: &mut Table<1>, cgroups: &mut Cgroups) -> BTreeMap<[u64; 1], Row> {
    cgroups.begin();
    let rows = table.read(cgroups).expect("readable");
    cgroups.end();
    rows
}

/// The kernel's rows, by key.
fn rows_of(table: &Table<1>) -> Vec<u64> {
    let mut keys: Vec<u64> = table.map.map().keys().filter_map(|key| words(&key).next()).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn rows_of_cgroups_out_of_sight_are_part_of_other_and_are_taken_out_now_and_then() {
    // Three rows whose numbers are no folder's here, each with its key, which CPU, and the sum of both.
    let Some(map) = table(3, 1024) else { return };
    let (_hierarchy, mut cgroups) = Hierarchy::new();
    let mut table = Table::<1> {
        map: Batches::new(map),
        histograms: None,
        folded: BTreeMap::new(),
        leaving: BTreeMap::new(),
        strangers_stay: STRANGERS_READINGS,
    };
    let cpus = crate::kernel::possible_cpus() as u64;
    let other = |rows: &BTreeMap<[u64; 1], Row>| {
        assert_eq!(rows.keys().collect::<Vec<_>>(), [&[CgroupId::OTHER.0]], "nobody else");
        rows[&[CgroupId::OTHER.0]].numbers[0]
    };
    // Who is missed for the first time is taken to be gone.
    let gone = 6 * cpus;
    assert_eq!(other(&read(&mut table, &mut cgroups)), gone);
    assert_eq!(rows_of(&table), []);
    let count = |table: &Table<1>, key: u64, count: u64| {
        let copy: Vec<u8> = [count, 0, 0].iter().flat_map(|word| u64::to_ne_bytes(*word)).collect();
        let copies = vec![copy; cpus as usize];
        table.map.map().update_percpu(&key.to_ne_bytes(), &copies, MapFlags::ANY).expect("a row");
    };
    // They go on counting.
    count(&table, 2, 10);
    let mut taken_out = 0;
    for reading in 1..=2 * u64::from(STRANGERS_READINGS) {
        if rows_of(&table).is_empty() {
            taken_out += 1;
            count(&table, 2, 10);
        }
        // What it had counted when its row was taken out, and what the new one has.
        let expected = gone + (taken_out + 1) * 10 * cpus;
        assert_eq!(other(&read(&mut table, &mut cgroups)), expected, "reading {reading}");
    }
    assert!((1..=2).contains(&taken_out), "{taken_out}");
}
