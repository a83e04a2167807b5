//! Laws of the ledger, for any topology and any sequence of jobs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{GIB, alloc, device, job, machine, pool, port};
use super::*;
use crate::job::{CpuRequest, NumaPolicy, Smt};
use crate::topology::{Device, HugepagePool};

prop_compose! {
    fn any_topology()(
        nodes in 1u16..=4, caches in 1u16..=2, cores in 1u16..=8, threads in 1u16..=2,
        memory in proptest::collection::vec(0..=8 * GIB, 4),
        total in 0..=32 * GIB,
        uneven: bool,
        devices in proptest::collection::vec((0usize..3, 0usize..3, proptest::option::of(0u16..4)), 0..6),
        pages in proptest::collection::vec((0u16..4, 0u32..20), 0..4),
        ports in (1u16..40, 0u16..12),
        disk in proptest::option::of(0..=9 * GIB),
    ) -> Topology {
        let mut topology = machine(nodes, caches, cores, threads);
        for (node, memory) in topology.numa.iter_mut().zip(memory) {
            node.memory = memory;
        }
        topology.memory = total;
        if uneven {
            // Every third core has one thread only.
            for core in topology.cores.iter_mut().step_by(3) {
                core.cpus = core.cpus.iter().take(1).collect();
            }
        }
        topology.devices = devices.into_iter().enumerate().map(|(index, (class, hardware, numa))| {
            let hardware = ["usb:1:1", "usb:2:2"].get(hardware).copied();
            device(&format!("/dev/d{index}"), ["gpu", "tty", "net"][class], hardware, numa)
        }).collect();
        topology.hugepages = pages.into_iter()
            .map(|(numa, count)| HugepagePool { size_kib: 2048, numa, count })
            .collect();
        topology.ports = (ports.0, ports.0 + ports.1);
        topology.pools = disk.map(pool).into_iter().collect();
        topology
    }
}

prop_compose! {
    pub(crate) fn any_spec()(
        exclusive: bool, whole: bool, hard: bool,
        cores in 1u16..=6, millis in 0u32..3000,
        memory in 0..=3 * GIB,
        numa in 0usize..3,
        pages in proptest::option::weighted(0.2, 1u32..12),
        devices in proptest::collection::vec(0usize..6, 0..3),
        ports in proptest::collection::vec(proptest::option::of(1u16..50), 0..3),
        disk in proptest::option::of(0..=3 * GIB),
    ) -> JobSpec {
        let mut spec = job("any");
        spec.resources.cpu = if exclusive {
            CpuRequest::Exclusive { cores, smt: if whole { Smt::Whole } else { Smt::Share } }
        } else {
            CpuRequest::Shared { millis, hard }
        };
        spec.resources.memory = memory;
        spec.resources.disk = disk.unwrap_or(0);
        spec.resources.numa = [NumaPolicy::None, NumaPolicy::Prefer, NumaPolicy::Require][numa];
        spec.resources.hugepages = pages.map(|count| (2048, count)).into_iter().collect();
        let names = ["gpu", "tty", "net", "usb:1:1", "usb:2:2", "/dev/d1"];
        spec.resources.devices = devices.into_iter().map(|index| names[index].into()).collect();
        spec.ports = ports.into_iter().enumerate()
            .map(|(index, fixed)| port(&format!("p{index}"), fixed))
            .collect();
        spec
    }
}

/// Counts everything again from the topology and the claims alone.
fn check_invariants(topology: &Topology, ledger: &Ledger) {
    let all: CpuSet = topology.cores.iter().flat_map(|core| core.cpus.iter()).collect();
    let mut exclusive = CpuSet::new();
    let (mut devices, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let (mut memory, mut disk, mut millis, mut in_pool) = (0, 0, 0, 0);
    let mut bound: BTreeMap<u16, u64> = BTreeMap::new();
    let mut pages: BTreeMap<u16, u32> = BTreeMap::new();
    for (_, claim) in ledger.claims() {
        for cpu in claim.cpus.iter() {
            assert!(exclusive.insert(cpu), "CPU {cpu} is claimed twice");
            assert!(all.contains(cpu), "CPU {cpu} is not there");
        }
        for path in &claim.devices {
            assert!(devices.insert(path.clone()), "{path} is claimed twice");
        }
        for port in claim.ports.values() {
            assert!(ports.insert(*port), "port {port} is claimed twice");
        }
        memory += claim.memory;
        disk += claim.disk;
        millis += claim.shared_millis;
        in_pool += u32::from(claim.cpus.is_empty());
        if let [node] = claim.mems.iter().collect::<Vec<_>>()[..] {
            *bound.entry(node).or_default() += claim.memory;
        }
        for (_, numa, count) in &claim.hugepages {
            *pages.entry(*numa).or_default() += count;
        }
    }
    assert!(memory <= topology.memory);
    let capacity = topology.pools.iter().map(|pool| pool.capacity).sum::<u64>();
    assert!(disk <= capacity);
    for (node, bytes) in bound {
        assert!(bytes <= topology.numa.iter().find(|numa| numa.id == node).unwrap().memory);
    }
    for (node, count) in pages {
        let pools = topology.hugepages.iter().filter(|pool| pool.numa == node);
        assert!(count <= pools.map(|pool| pool.count).sum());
    }
    let pool = ledger.shared_cpus();
    assert!(!pool.intersects(&exclusive));
    assert_eq!(pool.len() + exclusive.len(), all.len());
    assert!(millis as usize <= 1000 * pool.len());
    assert!(in_pool == 0 || !pool.is_empty());
    let free = ledger.free();
    assert_eq!(free.memory, topology.memory - memory);
    assert_eq!(free.disk, capacity - disk);
    assert_eq!(free.shared_millis as usize, 1000 * pool.len() - millis as usize);
    let whole = topology.cores.iter().filter(|core| pool.contains_all(&core.cpus)).count();
    assert_eq!(free.cores as usize, whole);
    assert_eq!(free.devices.len() + devices.len(), topology.devices.len());
}

/// What the policies promise of one claim.
fn check_claim(topology: &Topology, spec: &JobSpec, claim: &Claim) {
    let home = |cpu| topology.cores.iter().find(|core| core.cpus.contains(cpu)).unwrap();
    match spec.resources.cpu {
        CpuRequest::Shared { millis, .. } => {
            assert_eq!((claim.shared_millis, claim.cpus.is_empty()), (millis, true));
        }
        CpuRequest::Exclusive { cores, smt: Smt::Share } => {
            assert_eq!(claim.cpus.len(), usize::from(cores));
        }
        CpuRequest::Exclusive { cores, smt: Smt::Whole } => {
            let touched: BTreeSet<CpuSet> =
                claim.cpus.iter().map(|cpu| home(cpu).cpus.clone()).collect();
            assert_eq!(touched.len(), usize::from(cores));
            assert!(touched.iter().all(|core| claim.cpus.contains_all(core)));
        }
    }
    assert_eq!((claim.memory, claim.disk), (spec.resources.memory, spec.resources.disk));
    let pages: u32 = claim.hugepages.iter().map(|(_, _, count)| count).sum();
    assert_eq!(pages, spec.resources.hugepages.values().sum::<u32>());
    assert_eq!(claim.devices.len(), spec.resources.devices.len());
    for (wanted, path) in spec.resources.devices.iter().zip(&claim.devices) {
        let device = topology.devices.iter().find(|device| device.path == *path).unwrap();
        let names = [Some(&device.path), Some(&device.class), device.hardware.as_ref()];
        assert!(names.contains(&Some(wanted)));
    }
    assert_eq!(claim.ports.len(), spec.ports.len());
    for wanted in &spec.ports {
        let number = claim.ports[&wanted.name];
        let fine = wanted
            .fixed
            .map_or((topology.ports.0..=topology.ports.1).contains(&number), |f| f == number);
        assert!(fine, "port {number} is not what was asked for");
    }
    if spec.resources.numa == NumaPolicy::Require {
        assert_eq!(claim.mems.len(), 1);
    }
    if let Some(node) = claim.mems.iter().next() {
        assert!(claim.cpus.iter().all(|cpu| home(cpu).numa == node));
        assert!(claim.hugepages.iter().all(|(_, numa, _)| *numa == node));
        for path in &claim.devices {
            let device = topology.devices.iter().find(|device| device.path == *path).unwrap();
            assert!(device.numa.is_none_or(|numa| numa == node));
        }
    }
}

/// Whether a job fits, found out the slow way: from the claims alone, trying everything.
fn could_fit(topology: &Topology, ledger: &Ledger, spec: &JobSpec) -> bool {
    let claims = || ledger.claims().map(|(_, claim)| claim);
    let pool = ledger.shared_cpus();
    let millis: u64 = claims().map(|claim| u64::from(claim.shared_millis)).sum();
    let in_use = claims().any(|claim| claim.cpus.is_empty());
    let spare = (pool.len() as u64).saturating_sub(millis.div_ceil(1000).max(u64::from(in_use)));
    let memory: u64 = topology.memory - claims().map(|claim| claim.memory).sum::<u64>();
    let capacity = topology.pools.iter().map(|pool| pool.capacity).sum::<u64>();
    let disk = capacity - claims().map(|claim| claim.disk).sum::<u64>();
    let held: BTreeSet<u16> = claims().flat_map(|claim| claim.ports.values().copied()).collect();
    let fixed: Vec<u16> = spec.ports.iter().filter_map(|port| port.fixed).collect();
    let distinct: BTreeSet<u16> = fixed.iter().copied().collect();
    let range = topology.ports.0..=topology.ports.1;
    let left = range.filter(|port| !held.contains(port) && !distinct.contains(port)).count();
    let ports = distinct.len() == fixed.len()
        && distinct.is_disjoint(&held)
        && spec.ports.len() - fixed.len() <= left;

    let on = |node: Option<u16>| {
        let here = |numa: u16| node.is_none_or(|node| node == numa);
        let cpu = match spec.resources.cpu {
            CpuRequest::Shared { millis: wanted, .. } => {
                !pool.is_empty() && millis + u64::from(wanted) <= 1000 * pool.len() as u64
            }
            CpuRequest::Exclusive { cores, smt: Smt::Share } => {
                let near = topology.cores.iter().filter(|core| here(core.numa));
                let free: usize = near.map(|core| core.cpus.intersection(&pool).len()).sum();
                usize::from(cores) <= free && u64::from(cores) <= spare
            }
            CpuRequest::Exclusive { cores, smt: Smt::Whole } => {
                let near = topology.cores.iter().filter(|core| here(core.numa));
                let whole = near.filter(|core| pool.contains_all(&core.cpus));
                let mut sizes: Vec<u64> = whole.map(|core| core.cpus.len() as u64).collect();
                sizes.sort_unstable();
                let cores = usize::from(cores);
                cores <= sizes.len() && sizes[..cores].iter().sum::<u64>() <= spare
            }
        };
        let bound = node.is_none_or(|node| {
            let bound = claims().filter(|claim| claim.mems == [node].into_iter().collect());
            let all = topology.numa.iter().find(|numa| numa.id == node).unwrap().memory;
            spec.resources.memory + bound.map(|claim| claim.memory).sum::<u64>() <= all
        });
        let all_pages = topology.hugepages.iter().filter(|pool| here(pool.numa));
        let pages_held = claims().flat_map(|claim| &claim.hugepages).filter(|(_, id, _)| here(*id));
        let pages_left = all_pages.map(|pool| pool.count).sum::<u32>()
            - pages_held.map(|(_, _, count)| count).sum::<u32>();
        let pages = spec.resources.hugepages.values().all(|wanted| *wanted <= pages_left);
        let devices: Vec<&Device> = topology
            .devices
            .iter()
            .filter(|device| device.numa.is_none_or(here))
            .filter(|device| !claims().any(|claim| claim.devices.contains(&device.path)))
            .collect();
        cpu && bound && pages && can_serve(&spec.resources.devices, &devices)
    };
    memory >= spec.resources.memory
        && disk >= spec.resources.disk
        && ports
        && match spec.resources.numa {
            NumaPolicy::Require => topology.numa.iter().any(|numa| on(Some(numa.id))),
            NumaPolicy::None | NumaPolicy::Prefer => on(None),
        }
}

fn can_serve(wanted: &[String], devices: &[&Device]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return true };
    devices.iter().enumerate().any(|(index, device)| {
        let others: Vec<&Device> =
            devices.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, d)| *d).collect();
        let names = [Some(&device.path), Some(&device.class), device.hardware.as_ref()];
        names.contains(&Some(first)) && can_serve(rest, &others)
    })
}

/// Everything but the hint for the next port, which moves on by design.
fn without_hint(ledger: &Ledger) -> String {
    format!("{:?}", Ledger { next_port: 0, ..ledger.clone() })
}

#[derive(Clone, Debug)]
enum Step {
    Place(Box<JobSpec>),
    Release(prop::sample::Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any_spec().prop_map(|spec| Step::Place(Box::new(spec))),
        1 => any::<prop::sample::Index>().prop_map(Step::Release),
    ]
}

proptest! {
    #[test]
    fn nothing_is_ever_claimed_twice(
        topology in any_topology(),
        steps in proptest::collection::vec(any_step(), 1..40),
    ) {
        let mut ledger = Ledger::new(&topology);
        for (index, step) in steps.iter().enumerate() {
            match step {
                Step::Place(spec) => {
                    let before = format!("{ledger:?}");
                    let outcome = ledger.admit(spec);
                    prop_assert_eq!(&outcome, &ledger.clone().admit(spec), "admit is deterministic");
                    prop_assert_eq!(&before, &format!("{ledger:?}"), "admit is pure");
                    prop_assert_eq!(outcome.is_ok(), could_fit(&topology, &ledger, spec), "{:?}", outcome);
                    if let Ok(claim) = outcome {
                        check_claim(&topology, spec, &claim);
                        let before = without_hint(&ledger);
                        ledger.hold(&alloc(index as u32), claim.clone()).expect("held");
                        check_invariants(&topology, &ledger);
                        let mut undone = ledger.clone();
                        prop_assert_eq!(undone.release(&alloc(index as u32)), Some(claim));
                        prop_assert_eq!(without_hint(&undone), before, "release restores exactly");
                    }
                }
                Step::Release(which) => {
                    let held: Vec<AllocId> = ledger.claims().map(|(id, _)| id.clone()).collect();
                    if !held.is_empty() {
                        ledger.release(&held[which.index(held.len())]);
                    }
                }
            }
            check_invariants(&topology, &ledger);
        }
        // Counting all over from the claims comes to the same numbers as counting along.
        let mut again = ledger.clone();
        again.topology_changed(&topology);
        prop_assert_eq!(without_hint(&again), without_hint(&ledger));
    }

    #[test]
    fn arbitrary_claims_are_held_only_where_they_fit(
        topology in any_topology(),
        claims in proptest::collection::vec(
            (
                proptest::collection::vec(0u16..40, 0..3), 0u32..2500, proptest::option::of(0u16..5),
                0..=2 * GIB, 0..=2 * GIB, proptest::option::of(0usize..7), proptest::option::of(0u16..9),
            ),
            1..20,
        ),
    ) {
        let (mut strict, mut facts) = (Ledger::new(&topology), Ledger::new(&topology));
        let empty = without_hint(&facts);
        for (index, (cpus, millis, node, memory, disk, device, port)) in claims.into_iter().enumerate() {
            let claim = Claim {
                shared_millis: if cpus.is_empty() { millis } else { 0 },
                cpus: cpus.into_iter().collect(),
                mems: node.filter(|&id| topology.numa.iter().any(|n| n.id == id)).into_iter().collect(),
                memory,
                disk,
                hugepages: Vec::new(),
                devices: device.map(|index| format!("/dev/d{index}")).into_iter().collect(),
                ports: port.map(|port| ("p".into(), port)).into_iter().collect(),
            };
            let held = strict.hold(&alloc(index as u32), claim.clone()).is_ok();
            check_invariants(&topology, &strict);
            prop_assert_eq!(held, strict.claim(&alloc(index as u32)).is_some());
            let overlaps = facts.claims().any(|(_, other)| {
                other.cpus.intersects(&claim.cpus)
                    || other.devices.iter().any(|device| claim.devices.contains(device))
                    || other.ports.values().any(|port| claim.ports.values().any(|p| p == port))
            });
            let is_port = claim.ports.values().all(|port| *port != 0);
            let adopted = facts.adopt(&alloc(index as u32), claim).is_ok();
            prop_assert_eq!(adopted, !overlaps && is_port);
        }
        let ids: Vec<AllocId> = facts.claims().map(|(id, _)| id.clone()).collect();
        for id in ids {
            facts.release(&id);
        }
        prop_assert_eq!(without_hint(&facts), empty);
    }
}
