use super::*;
use crate::admission::tests::{pinned, pool, shared};
use crate::id::{JobName, NodeId};
use crate::job::NumaPolicy;
use crate::topology::{Core, Enforced, Topology};

const NODE: NodeId = NodeId([1; 32]);

fn info(cores: u16, memory: u64) -> NodeInfo {
    let core = |id| Core { cpus: [id].into_iter().collect(), ..Core::default() };
    let enforced = Enforced { pinning: true, numa: true, ..Enforced::default() };
    let topology =
        Topology { cores: (0..cores).map(core).collect(), memory, enforced, ..Topology::default() };
    NodeInfo { topology, ..NodeInfo::default() }
}

fn alloc(name: &str) -> AllocId {
    AllocId::new(JobName::new(name).unwrap(), 0, 1)
}

/// A node of four cores on which these run: name, cores, priority, since when.
fn full(held: &[(&str, u16, u8, u64)]) -> (NodeInfo, Ledger, Vec<Candidate>) {
    let info = info(4, 4 << 30);
    let mut ledger = Ledger::new(&info.topology);
    let mut candidates = Vec::new();
    for (name, cores, priority, since) in held {
        let claim = ledger.admit(&pinned(*cores, NumaPolicy::None)).unwrap();
        ledger.hold(&alloc(name), claim).unwrap();
        let since = WallTime(*since);
        candidates.push(Candidate { alloc: alloc(name), priority: *priority, since });
    }
    (info, ledger, candidates)
}

fn names(victims: Option<Victims>) -> Vec<String> {
    let allocs = victims.map(|victims| victims.allocs).unwrap_or_default();
    let mut names: Vec<String> = allocs.iter().map(|alloc| alloc.slot.job.to_string()).collect();
    names.sort();
    names
}

#[test]
fn the_set_that_loses_least_goes() {
    let wanted = pinned(2, NumaPolicy::None);
    for (held, goes) in [
        // One that is large enough, rather than two as important.
        (vec![("a", 2, 10, 1), ("b", 1, 10, 1), ("c", 1, 11, 1)], vec!["a"]),
        // Two that matter little, rather than one that matters more.
        (vec![("a", 2, 30, 1), ("b", 1, 10, 1), ("c", 1, 11, 1)], vec!["b", "c"]),
        // Of equal ones the youngest.
        (vec![("a", 2, 10, 5), ("b", 2, 10, 7)], vec!["b"]),
        // Nobody more than needed.
        (vec![("a", 1, 1, 1), ("b", 3, 1, 1)], vec!["b"]),
    ] {
        let (info, ledger, candidates) = full(&held);
        assert_eq!(names(victims(&wanted, (NODE, &info), &ledger, &candidates)), goes, "{held:?}");
    }
}

#[test]
fn who_holds_the_disk_makes_room_for_it() {
    let mut info = info(4, 4 << 30);
    info.topology.pools = vec![pool(100 << 30)];
    let mut ledger = Ledger::new(&info.topology);
    let mut candidates = Vec::new();
    for (name, disk) in [("none", 0), ("large", 60 << 30), ("small", 30 << 30)] {
        let mut spec = shared(10, 1 << 20);
        spec.resources.disk = disk;
        let claim = ledger.admit(&spec).unwrap();
        ledger.hold(&alloc(name), claim).unwrap();
        candidates.push(Candidate { alloc: alloc(name), priority: 10, since: WallTime(1) });
    }
    let mut wanted = shared(10, 1 << 20);
    for (disk, goes) in [(40, vec!["small"]), (41, vec!["large"]), (100, vec!["large", "small"])] {
        wanted.resources.disk = disk << 30;
        assert_eq!(names(victims(&wanted, (NODE, &info), &ledger, &candidates)), goes, "{disk}");
    }
}

#[test]
fn nobody_goes_in_vain() {
    let (info, ledger, candidates) = full(&[("a", 2, 10, 1), ("b", 2, 10, 1)]);
    let vast = shared(100, 64 << 30);
    assert_eq!(
        victims(&vast, (NODE, &info), &ledger, &candidates),
        None,
        "not even on the empty node"
    );
    assert_eq!(victims(&pinned(2, NumaPolicy::None), (NODE, &info), &ledger, &[]), None);
    let many: Vec<(&str, u16, u8, u64)> =
        vec![("a", 1, 9, 1), ("b", 1, 9, 2), ("c", 1, 9, 3), ("d", 1, 9, 4)];
    let (info, ledger, candidates) = full(&many);
    let found = victims(&pinned(3, NumaPolicy::None), (NODE, &info), &ledger, &candidates);
    assert_eq!(names(found), ["b", "c", "d"], "three of four, the youngest");
}
