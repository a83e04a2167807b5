use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::id::JobName;
use crate::job::{
    CpuRequest, JobKind, NumaPolicy, Placement, Port, Resources, Restart, Sandbox, Smt, Task,
    Update,
};
use crate::topology::{Core, Device, DiskPool, Enforced, HugepagePool, NumaNode, PortsUsed};

pub(crate) const GIB: u64 = 1 << 30;

/// A job that asks for nothing.
pub(crate) fn job(name: &str) -> JobSpec {
    JobSpec {
        name: JobName::new(name).unwrap(),
        kind: JobKind::Service,
        count: 1,
        task: Task {
            command: vec!["/bin/true".into()],
            env: BTreeMap::new(),
            user: None,
            working_dir: None,
            files: Vec::new(),
            stop_signal: "SIGTERM".into(),
            stop_timeout: Duration::from_secs(10),
            sandbox: Sandbox::default(),
            arch: BTreeMap::new(),
        },
        resources: Resources {
            cpu: CpuRequest::Shared { millis: 0, hard: false },
            memory: 0,
            swap: 0,
            numa: NumaPolicy::None,
            hugepages: BTreeMap::new(),
            devices: Vec::new(),
            disk: 0,
        },
        ports: Vec::new(),
        health: None,
        placement: Placement::default(),
        update: Update::default(),
        restart: Restart::default(),
        keep: Default::default(),
        guarantee: Default::default(),
        priority: 50,
        namespace: Default::default(),
        gang: false,
    }
}

pub(crate) fn shared(millis: u32, memory: u64) -> JobSpec {
    let mut spec = job("shared");
    spec.resources.cpu = CpuRequest::Shared { millis, hard: false };
    spec.resources.memory = memory;
    spec
}

pub(crate) fn pinned(cores: u16, numa: NumaPolicy) -> JobSpec {
    let mut spec = job("pinned");
    spec.resources.cpu = CpuRequest::Exclusive { cores, smt: Smt::Whole };
    spec.resources.numa = numa;
    spec
}

fn threads(count: u16) -> JobSpec {
    let mut spec = pinned(count, NumaPolicy::None);
    spec.resources.cpu = CpuRequest::Exclusive { cores: count, smt: Smt::Share };
    spec
}

pub(crate) fn port(name: &str, fixed: Option<u16>) -> Port {
    Port { name: name.into(), fixed }
}

pub(crate) fn alloc(index: u32) -> AllocId {
    AllocId::new(JobName::new("test").unwrap(), index, 1)
}

pub(crate) const ALL_ENFORCED: Enforced = Enforced {
    pinning: true,
    cpuset: true,
    numa: true,
    cpu: true,
    memory: true,
    tasks: true,
    devices: true,
};

/// A machine with `nodes` memory nodes of 4 GiB, `caches` caches on each, `cores` cores at each cache,
/// `threads` hardware threads to a core; CPUs are numbered core by core.
pub(crate) fn machine(nodes: u16, caches: u16, cores: u16, threads: u16) -> Topology {
    let core = |index: u16| Core {
        package: index / cores / caches,
        numa: index / cores / caches,
        cache: index / cores,
        cpus: (index * threads..(index + 1) * threads).collect(),
    };
    Topology {
        arch: "x86_64".into(),
        cores: (0..nodes * caches * cores).map(core).collect(),
        numa: (0..nodes).map(|id| NumaNode { id, memory: 4 * GIB }).collect(),
        memory: u64::from(nodes) * 4 * GIB,
        ports: (20_000, 20_099),
        enforced: ALL_ENFORCED,
        ..Topology::default()
    }
}

pub(crate) fn device(path: &str, class: &str, hardware: Option<&str>, numa: Option<u16>) -> Device {
    Device { path: path.into(), class: class.into(), hardware: hardware.map(Into::into), numa }
}

fn cpus(text: &str) -> CpuSet {
    text.parse().unwrap()
}

/// Admits and holds.
fn place(ledger: &mut Ledger, index: u32, spec: &JobSpec) -> Claim {
    let claim = ledger.admit(spec).expect("it fits");
    ledger.hold(&alloc(index), claim.clone()).expect("what admit returns can be held");
    claim
}

#[test]
fn a_core_comes_with_all_its_hardware_threads() {
    let mut ledger = Ledger::new(&machine(1, 1, 4, 2));
    let claim = place(&mut ledger, 0, &pinned(2, NumaPolicy::None));
    assert_eq!(claim.cpus, cpus("0-3"));
    assert_eq!(claim.shared_millis, 0);
    assert_eq!(ledger.shared_cpus(), cpus("4-7"));
    assert_eq!(ledger.free().cores, 2);
    assert_eq!(ledger.free().cpus, cpus("4-7"));
    assert_eq!(ledger.free().shared_millis, 4000);
}

#[test]
fn a_core_with_one_thread_taken_is_not_whole() {
    let mut ledger = Ledger::new(&machine(1, 1, 2, 2));
    place(&mut ledger, 0, &threads(1));
    assert_eq!(ledger.free().cores, 1);
    let refused = ledger.admit(&pinned(2, NumaPolicy::None));
    assert_eq!(refused, Err(Rejection::Cores { wanted: 2, free: 1 }));
}

#[test]
fn single_threads_come_from_cores_that_are_broken_already() {
    let mut ledger = Ledger::new(&machine(2, 1, 4, 2));
    let first = place(&mut ledger, 0, &threads(1));
    let second = place(&mut ledger, 1, &threads(1));
    assert_eq!((first.cpus, second.cpus), (cpus("0"), cpus("1")));
    // The second of these two breaks another core, at the same cache.
    place(&mut ledger, 2, &threads(1));
    assert_eq!(place(&mut ledger, 3, &threads(2)).cpus, cpus("3-4"));
    assert_eq!(ledger.free().cores, 5);
}

#[test]
fn cores_come_from_the_fullest_cache_that_holds_them() {
    let mut ledger = Ledger::new(&machine(2, 2, 4, 1));
    assert_eq!(place(&mut ledger, 0, &pinned(2, NumaPolicy::None)).cpus, cpus("0-1"));
    // Two more fit into the rest of that cache, four need another one, on the same memory node.
    assert_eq!(place(&mut ledger, 1, &pinned(4, NumaPolicy::None)).cpus, cpus("4-7"));
    assert_eq!(place(&mut ledger, 2, &pinned(2, NumaPolicy::None)).cpus, cpus("2-3"));
    // Six need two caches: one whole and the half of another.
    assert_eq!(place(&mut ledger, 3, &pinned(6, NumaPolicy::None)).cpus, cpus("8-13"));
}

#[test]
fn cores_span_memory_nodes_only_when_none_holds_them() {
    let mut ledger = Ledger::new(&machine(2, 1, 4, 1));
    place(&mut ledger, 0, &pinned(1, NumaPolicy::None));
    assert_eq!(place(&mut ledger, 1, &pinned(6, NumaPolicy::None)).cpus, cpus("1-2,4-7"));
}

#[test]
fn require_takes_everything_from_one_memory_node_or_nothing() {
    let mut topology = machine(2, 1, 4, 1);
    topology.devices = vec![device("/dev/gpu0", "gpu", None, Some(1))];
    topology.hugepages = vec![HugepagePool { size_kib: 2048, numa: 1, count: 4 }];
    let mut ledger = Ledger::new(&topology);
    let mut spec = pinned(2, NumaPolicy::Require);
    spec.resources.memory = GIB;
    spec.resources.devices = vec!["gpu".into()];
    spec.resources.hugepages = [(2048, 3)].into();
    let claim = place(&mut ledger, 0, &spec);
    assert_eq!((claim.cpus, claim.mems), (cpus("4-5"), cpus("1")));
    assert_eq!(claim.hugepages, [(2048, 1, 3)]);
    assert_eq!(claim.devices, ["/dev/gpu0"]);

    // Two cores are left on node 1 and three GiB; four cores would have to span.
    assert_eq!(ledger.admit(&pinned(5, NumaPolicy::Require)), Err(Rejection::Numa));
    let mut fits_nowhere = pinned(1, NumaPolicy::Require);
    fits_nowhere.resources.memory = 5 * GIB;
    assert_eq!(ledger.admit(&fits_nowhere), Err(Rejection::Numa));
    assert!(ledger.admit(&pinned(5, NumaPolicy::Prefer)).is_ok());
}

#[test]
fn prefer_binds_where_it_can_and_falls_back_unbound() {
    let mut ledger = Ledger::new(&machine(2, 1, 4, 1));
    let claim = place(&mut ledger, 0, &pinned(3, NumaPolicy::Prefer));
    assert_eq!((claim.cpus, claim.mems), (cpus("0-2"), cpus("0")));
    let claim = ledger.admit(&pinned(5, NumaPolicy::Prefer)).unwrap();
    assert_eq!((claim.cpus.len(), claim.mems), (5, cpus("")));
    let claim = ledger.admit(&pinned(1, NumaPolicy::None)).unwrap();
    assert_eq!((claim.cpus, claim.mems), (cpus("3"), cpus("")));
}

#[test]
fn bound_memory_counts_against_its_node_and_the_whole() {
    let mut ledger = Ledger::new(&machine(2, 1, 4, 1));
    let mut spec = pinned(1, NumaPolicy::Require);
    spec.resources.memory = 3 * GIB;
    assert_eq!(place(&mut ledger, 0, &spec).mems, cpus("0"));
    assert_eq!(place(&mut ledger, 1, &spec).mems, cpus("1"));
    assert_eq!(ledger.free().memory, 2 * GIB);
    spec.resources.memory = 2 * GIB;
    assert_eq!(ledger.admit(&spec), Err(Rejection::Numa));
    let refused = ledger.admit(&shared(0, 3 * GIB));
    assert_eq!(refused, Err(Rejection::Memory { wanted: 3 * GIB, free: 2 * GIB }));
    assert!(ledger.admit(&shared(0, 2 * GIB)).is_ok());
}

/// A pool of so many bytes.
pub(crate) fn pool(capacity: u64) -> DiskPool {
    DiskPool { name: DiskPool::DEFAULT.into(), capacity, ..DiskPool::default() }
}

#[test]
fn disk_is_given_away_to_the_last_byte_and_no_further() {
    let topology = Topology { pools: vec![pool(100 * GIB)], ..machine(1, 1, 4, 1) };
    let mut ledger = Ledger::new(&topology);
    let mut spec = job("any");
    spec.resources.disk = 60 * GIB;
    assert_eq!(place(&mut ledger, 0, &spec).disk, 60 * GIB);
    assert_eq!(ledger.free().disk, 40 * GIB);
    let refused = ledger.admit(&spec).unwrap_err();
    let figures =
        |wanted, free| Rejection::Disk { pool: "default".into(), wanted, free, of: 100 * GIB };
    assert_eq!(refused, figures(60 * GIB, 40 * GIB));
    assert_eq!(refused.to_string(), "60GiB disk wanted, 40GiB free of 100GiB in pool default");
    spec.resources.disk = 40 * GIB + 1;
    assert_eq!(ledger.admit(&spec), Err(figures(40 * GIB + 1, 40 * GIB)));
    spec.resources.disk = 40 * GIB;
    place(&mut ledger, 1, &spec);
    spec.resources.disk = 1;
    assert!(ledger.admit(&spec).is_err());
    spec.resources.disk = 0;
    assert!(ledger.admit(&spec).is_ok(), "who asks for none needs none");
    ledger.release(&alloc(0));
    assert_eq!(ledger.free().disk, 60 * GIB);
}

#[test]
fn a_claim_on_disk_outlives_a_pool_that_has_become_too_small() {
    let with = |capacity| Topology { pools: vec![pool(capacity)], ..machine(1, 1, 4, 1) };
    let mut ledger = Ledger::new(&with(100 * GIB));
    let mut spec = job("any");
    spec.resources.disk = 60 * GIB;
    let claim = place(&mut ledger, 0, &spec);
    ledger.topology_changed(&with(50 * GIB));
    assert_eq!((ledger.claim(&alloc(0)), ledger.free().disk), (Some(&claim), 0));
    spec.resources.disk = 1;
    assert!(ledger.admit(&spec).is_err());
    // An agent that has just started finds its allocations, whatever the pool is by now.
    let mut again = Ledger::new(&with(50 * GIB));
    assert!(matches!(again.hold(&alloc(0), claim.clone()), Err(Conflict::Disk { .. })));
    again.adopt(&alloc(0), claim).unwrap();
    again.release(&alloc(0));
    assert_eq!(again.free().disk, 50 * GIB);
}

#[test]
fn a_node_without_a_pool_has_no_disk_to_give() {
    let other = DiskPool { name: "scratch".into(), ..pool(GIB) };
    for pools in [vec![], vec![other]] {
        let ledger = Ledger::new(&Topology { pools, ..machine(1, 1, 4, 1) });
        let mut spec = job("any");
        spec.resources.disk = GIB;
        let refused = ledger.admit(&spec).unwrap_err();
        assert_eq!(refused.to_string(), "1GiB disk wanted, and pool default has none to give");
    }
}

#[test]
fn exclusive_cores_may_not_starve_the_shared_pool() {
    let mut ledger = Ledger::new(&machine(1, 1, 4, 1));
    place(&mut ledger, 0, &shared(1500, 0));
    let refused = ledger.admit(&pinned(3, NumaPolicy::None));
    assert_eq!(refused, Err(Rejection::Cores { wanted: 3, free: 2 }));
    place(&mut ledger, 1, &pinned(2, NumaPolicy::None));
    assert_eq!(ledger.free().shared_millis, 500);
    let refused = ledger.admit(&shared(501, 0));
    assert_eq!(refused, Err(Rejection::Cpu { wanted: 501, free: 500 }));
}

#[test]
fn the_last_shared_cpu_stays_while_somebody_runs_there() {
    let mut ledger = Ledger::new(&machine(1, 1, 2, 1));
    place(&mut ledger, 0, &shared(0, 0));
    assert!(ledger.admit(&pinned(2, NumaPolicy::None)).is_err());
    ledger.release(&alloc(0));
    place(&mut ledger, 1, &pinned(2, NumaPolicy::None));
    assert_eq!(ledger.admit(&shared(0, 0)), Err(Rejection::Cpu { wanted: 0, free: 0 }));
}

#[test]
fn unequal_cores_are_chosen_so_that_the_shared_pool_keeps_its_share() {
    // Two large cores with two threads each, two small ones with one.
    let mut topology = machine(1, 1, 2, 2);
    for cpu in [4, 5] {
        topology.cores.push(Core { cpus: [cpu].into_iter().collect(), ..Core::default() });
    }
    let mut ledger = Ledger::new(&topology);
    place(&mut ledger, 0, &shared(4000, 0));
    for numa in [NumaPolicy::None, NumaPolicy::Require] {
        assert_eq!(ledger.admit(&pinned(2, numa)).unwrap().cpus, cpus("4-5"));
    }
    assert!(ledger.admit(&pinned(3, NumaPolicy::None)).is_err());
}

#[test]
fn a_device_has_one_holder() {
    let mut topology = machine(1, 1, 4, 1);
    topology.devices = vec![
        device("/dev/ttyUSB0", "tty", Some("usb:1a86:7523"), None),
        device("/dev/ttyUSB1", "tty", None, None),
        device("/dev/ttyUSB1", "tty", None, None),
    ];
    let mut ledger = Ledger::new(&topology);
    let wants = |names: &[&str]| {
        let mut spec = job("devices");
        spec.resources.devices = names.iter().map(|name| name.to_string()).collect();
        spec
    };
    // The first tty is the only one with that bus identity: it goes where it is needed.
    let claim = ledger.admit(&wants(&["tty", "usb:1a86:7523"])).unwrap();
    assert_eq!(claim.devices, ["/dev/ttyUSB1", "/dev/ttyUSB0"]);
    let device = |device: &str| Err(Rejection::Device { device: device.into() });
    assert_eq!(ledger.admit(&wants(&["tty", "tty", "tty"])), device("tty"));
    assert_eq!(ledger.admit(&wants(&["/dev/ttyUSB1", "/dev/ttyUSB1"])), device("/dev/ttyUSB1"));
    place(&mut ledger, 0, &wants(&["/dev/ttyUSB0"]));
    assert_eq!(ledger.admit(&wants(&["usb:1a86:7523"])), device("usb:1a86:7523"));
    assert_eq!(ledger.free().devices, ["/dev/ttyUSB1"]);
    assert_eq!(place(&mut ledger, 1, &wants(&["tty"])).devices, ["/dev/ttyUSB1"]);
    assert_eq!(ledger.admit(&wants(&["tty"])), device("tty"));
}

#[test]
fn ports_are_not_reused_at_once_and_not_given_twice() {
    let mut topology = machine(1, 1, 4, 1);
    topology.ports = (20_000, 20_002);
    let mut ledger = Ledger::new(&topology);
    let mut spec = job("ports");
    spec.ports = vec![port("http", None)];
    let mut given = Vec::new();
    for _ in 0..4 {
        given.push(place(&mut ledger, 0, &spec).ports["http"]);
        ledger.release(&alloc(0));
    }
    assert_eq!(given, [20_000, 20_001, 20_002, 20_000]);

    spec.ports = vec![port("http", Some(20_001)), port("a", None), port("b", None)];
    let claim = place(&mut ledger, 0, &spec);
    let mut numbers: Vec<u16> = claim.ports.values().copied().collect();
    numbers.sort_unstable();
    assert_eq!((numbers, claim.ports["http"]), (vec![20_000, 20_001, 20_002], 20_001));
    let refused = |port: &str, number| Err(Rejection::Port { port: port.into(), number });
    spec.ports = vec![port("c", None)];
    assert_eq!(ledger.admit(&spec), refused("c", None));
    spec.ports = vec![port("c", Some(20_001))];
    assert_eq!(ledger.admit(&spec), refused("c", Some(20_001)));
    spec.ports = vec![port("c", Some(8080)), port("d", Some(8080))];
    assert_eq!(ledger.admit(&spec), refused("d", Some(8080)));
    spec.ports = vec![port("c", Some(8080))];
    assert_eq!(place(&mut ledger, 1, &spec).ports["c"], 8080);
}

fn used(first: u16, last: u16, by: &str) -> PortsUsed {
    PortsUsed { first, last, by: by.into() }
}

#[test]
fn a_port_that_another_program_listens_on_is_given_to_nobody() {
    let mut topology = machine(1, 1, 4, 1);
    topology.ports = (20_000, 20_003);
    topology.ports_used =
        vec![used(9090, 9090, "nginx (pid 812)"), used(20_000, 20_001, "python3 (pid 7)")];
    let mut ledger = Ledger::new(&topology);
    let mut spec = shared(100, GIB / 16);
    spec.ports = vec![port("http", None)];
    assert_eq!(place(&mut ledger, 0, &spec).ports["http"], 20_002);
    assert_eq!(place(&mut ledger, 1, &spec).ports["http"], 20_003);
    let refused = ledger.admit(&spec).unwrap_err();
    assert_eq!(refused, Rejection::PortsUsed { port: "http".into(), used: 2, of: 4 });
    assert_eq!(
        refused.to_string(),
        "no port is left for http: other programs listen on 2 of the 4 that it could be"
    );
    let mut fixed = shared(100, GIB / 16);
    for (number, by) in [(9090, "nginx (pid 812)"), (20_001, "python3 (pid 7)")] {
        fixed.ports = vec![port("http", Some(number))];
        let refused = ledger.admit(&fixed).unwrap_err();
        assert_eq!(refused.to_string(), format!("port {number} is used by {by}"));
    }
    fixed.ports = vec![port("http", Some(9091))];
    assert!(ledger.admit(&fixed).is_ok());

    // What runs on such a port keeps it, and counts once.
    let mut taken_over = topology.clone();
    taken_over.ports_used = vec![used(20_002, 20_002, "python3 (pid 7)")];
    ledger.topology_changed(&taken_over);
    assert!(place(&mut ledger, 2, &spec).ports["http"] < 20_002);
    assert!(place(&mut ledger, 3, &spec).ports["http"] < 20_002);
    assert_eq!(
        ledger.admit(&spec),
        Err(Rejection::Port { port: "http".into(), number: None }),
        "all four are the fabric's own"
    );
}

#[test]
fn a_node_where_others_listen_on_every_port_says_so() {
    let mut topology = machine(1, 1, 4, 1);
    topology.ports = (20_000, 20_009);
    topology.ports_used = vec![used(1, u16::MAX, "python3 (pid 7)")];
    let ledger = Ledger::new(&topology);
    let mut spec = shared(100, GIB / 16);
    spec.ports = vec![port("http", None)];
    let refused = Rejection::PortsUsed { port: "http".into(), used: 10, of: 10 };
    assert_eq!(ledger.admit(&spec), Err(refused));
}

#[test]
fn what_does_not_bite_is_not_promised() {
    let mut topology = machine(1, 1, 4, 1);
    topology.enforced = Enforced::default();
    let ledger = Ledger::new(&topology);
    let not_enforced = |limit: &str| Err(Rejection::NotEnforced { limit: limit.into() });
    assert_eq!(ledger.admit(&pinned(1, NumaPolicy::None)), not_enforced("pinning"));
    let mut spec = shared(100, GIB);
    assert!(ledger.admit(&spec).is_ok());
    spec.resources.numa = NumaPolicy::Require;
    assert_eq!(ledger.admit(&spec), not_enforced("numa"));
    spec.resources.numa = NumaPolicy::Prefer;
    assert_eq!(ledger.admit(&spec).unwrap().mems, cpus(""));
}

#[test]
fn hold_refuses_whatever_is_not_free() {
    let mut topology = machine(2, 1, 2, 1);
    topology.devices = vec![device("/dev/gpu0", "gpu", None, None)];
    topology.hugepages = vec![HugepagePool { size_kib: 2048, numa: 0, count: 4 }];
    topology.pools = vec![pool(100 * GIB)];
    let mut ledger = Ledger::new(&topology);
    let held = Claim {
        cpus: cpus("0-1"),
        mems: cpus("0"),
        memory: 3 * GIB,
        hugepages: vec![(2048, 0, 3)],
        devices: vec!["/dev/gpu0".into()],
        ports: [("http".into(), 80)].into(),
        shared_millis: 0,
        disk: 60 * GIB,
    };
    ledger.hold(&alloc(0), held.clone()).unwrap();
    ledger.hold(&alloc(0), held.clone()).expect("once more is no change");
    let before = format!("{ledger:?}");
    let claim = Claim::default;
    let refused = [
        (0, claim(), Conflict::Holder(alloc(0))),
        (1, Claim { cpus: cpus("1-2"), ..claim() }, Conflict::Cpus(cpus("1"))),
        (1, Claim { cpus: cpus("3-4"), ..claim() }, Conflict::Cpus(cpus("4"))),
        (1, Claim { shared_millis: 2001, ..claim() }, Conflict::Shared { free: 2000 }),
        (
            1,
            Claim { memory: 2 * GIB, mems: cpus("0"), ..claim() },
            Conflict::Memory { wanted: 2 * GIB, free: GIB },
        ),
        (
            1,
            Claim { memory: 6 * GIB, ..claim() },
            Conflict::Memory { wanted: 6 * GIB, free: 5 * GIB },
        ),
        (
            1,
            Claim { disk: 41 * GIB, ..claim() },
            Conflict::Disk { wanted: 41 * GIB, free: 40 * GIB },
        ),
        (
            1,
            Claim { hugepages: vec![(2048, 0, 1), (2048, 0, 1)], ..claim() },
            Conflict::Hugepages { size_kib: 2048, numa: 0 },
        ),
        (
            1,
            Claim { devices: vec!["/dev/gpu0".into()], ..claim() },
            Conflict::Device("/dev/gpu0".into()),
        ),
        (
            1,
            Claim { devices: vec!["/dev/gpu9".into()], ..claim() },
            Conflict::Device("/dev/gpu9".into()),
        ),
        (1, Claim { ports: [("x".into(), 80)].into(), ..claim() }, Conflict::Port(80)),
        (
            1,
            Claim { ports: [("x".into(), 81), ("y".into(), 81)].into(), ..claim() },
            Conflict::Port(81),
        ),
    ];
    for (index, claim, conflict) in refused {
        assert_eq!(ledger.hold(&alloc(index), claim), Err(conflict));
    }
    assert_eq!(format!("{ledger:?}"), before, "a refusal changes nothing");
    assert_eq!(ledger.claim(&alloc(0)), Some(&held));
}

#[test]
fn claims_outlive_a_change_of_topology() {
    let mut ledger = Ledger::new(&machine(2, 1, 4, 1));
    let mut spec = pinned(4, NumaPolicy::Require);
    spec.resources.memory = 3 * GIB;
    place(&mut ledger, 0, &spec);
    place(&mut ledger, 1, &spec);
    ledger.topology_changed(&machine(1, 1, 4, 1));
    assert_eq!(ledger.claims().len(), 2);
    assert_eq!(ledger.free().memory, 0, "six GiB of four are promised");
    assert_eq!(ledger.shared_cpus(), cpus(""));
    assert!(ledger.admit(&shared(0, 1)).is_err());
    ledger.release(&alloc(0));
    assert_eq!(ledger.shared_cpus(), cpus("0-3"));
    assert_eq!(ledger.free().memory, GIB, "the other claim's three GiB still count");
    ledger.topology_changed(&machine(2, 1, 4, 1));
    ledger.release(&alloc(1));
    assert_eq!(ledger.free().memory, 8 * GIB);
}

#[test]
fn a_fact_is_adopted_beyond_the_capacity_but_never_twice() {
    let mut ledger = Ledger::new(&machine(1, 1, 2, 1));
    let large = Claim { cpus: cpus("1-9"), memory: 99 * GIB, ..Claim::default() };
    assert!(ledger.hold(&alloc(0), large.clone()).is_err());
    ledger.adopt(&alloc(0), large.clone()).unwrap();
    assert_eq!(ledger.free().memory, 0);
    assert_eq!(ledger.shared_cpus(), cpus("0"));
    let overlapping = Claim { cpus: cpus("9"), ..Claim::default() };
    assert_eq!(ledger.adopt(&alloc(1), overlapping), Err(Conflict::Cpus(cpus("9"))));
    assert_eq!(ledger.release(&alloc(0)), Some(large));
    assert_eq!(ledger.free(), Ledger::new(&machine(1, 1, 2, 1)).free());
}

#[test]
fn a_node_holds_a_bounded_number_of_claims() {
    let mut ledger = Ledger::new(&machine(1, 1, 2, 1));
    for index in 0..crate::limits::ALLOCS_PER_NODE_MAX as u32 {
        place(&mut ledger, index, &shared(0, 0));
    }
    assert_eq!(ledger.admit(&shared(0, 0)), Err(Rejection::Full));
}

#[test]
fn nonsense_in_a_topology_gives_nothing_away() {
    let mut topology = machine(1, 1, 2, 2);
    topology.cores.push(Core { cpus: cpus("3-4"), numa: 7, ..Core::default() });
    topology.cores.push(Core::default());
    topology.housekeeping = cpus("0");
    topology.ports = (9, 1);
    topology.ports_used =
        vec![used(0, 5, ""), used(7, 3, ""), used(4, 8, ""), used(u16::MAX, u16::MAX, "")];
    topology.numa.push(NumaNode { id: 0, memory: u64::MAX });
    let ledger = Ledger::new(&topology);
    assert_eq!(ledger.shared_cpus(), cpus("1-4"));
    assert_eq!(ledger.admit(&pinned(3, NumaPolicy::None)).unwrap().cpus, cpus("1-4"));
    let mut spec = pinned(1, NumaPolicy::Require);
    spec.resources.memory = 4 * GIB;
    assert_eq!(ledger.admit(&spec).unwrap().mems, cpus("0"));
    spec.ports = vec![port("p", None)];
    assert_eq!(ledger.admit(&spec), Err(Rejection::Port { port: "p".into(), number: None }));
    assert!(Ledger::new(&Topology::default()).admit(&shared(0, 0)).is_err());
}
