//! Placements per second of one core, for the speed that the design promises.
//!
//! Each case fills a simulated fleet to about two thirds, then goes on: one placement, one release.
//! A placement is a choice with its claim, set aside in the target's ledger. Time is the time that the
//! kernel says this process spent on a core, so that a busy machine does not count. Prints one JSON
//! object a line: `{"name", "value", "unit"}`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fabric::id::{AllocId, JobName, NodeId};
use fabric::job::{
    Affinity, CpuRequest, JobKind, JobSpec, NumaPolicy, Placement, Resources, Restart, Sandbox,
    Smt, Task, Update,
};
use fabric::placement::{Fleet, Placer};
use fabric::topology::{Core, Device, Enforced, NodeInfo, NumaNode, Topology};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Slots that one placer fills before the next job's turn.
const SLOTS: u32 = 10;
const MEASURED: Duration = Duration::from_secs(1);
const GIB: u64 = 1 << 30;

fn main() {
    for nodes in [1_000, 5_000, 10_000] {
        measure("shared", nodes, nodes * 20, &shared());
        measure("pinned", nodes, nodes * 5, &pinned());
        measure("device", nodes, nodes / 7, &with_device());
        measure("constraint", nodes, nodes * 5, &particular());
    }
}

fn measure(case: &str, nodes: u32, filled: u32, spec: &JobSpec) {
    let mut random = ChaCha8Rng::seed_from_u64(42);
    let mut fleet = fleet(nodes, &mut random);
    let mut held: VecDeque<(NodeId, AllocId)> = VecDeque::new();
    let mut placed = 0;
    while (placed as u32) < filled {
        placed += place_job(&mut fleet, spec, placed, &mut held, &mut random);
    }

    let before = placed;
    let start = time_on_core();
    while time_on_core() - start < MEASURED {
        let count = place_job(&mut fleet, spec, placed, &mut held, &mut random);
        placed += count;
        for (node, alloc) in held.drain(..count as usize) {
            fleet.release(&node, &alloc);
        }
    }
    let value = (placed - before) as f64 / (time_on_core() - start).as_secs_f64();
    println!(
        "{{\"name\": \"placements/{case}/{nodes} nodes\", \"value\": {value:.0}, \"unit\": \"1/s\"}}"
    );
}

/// Places the slots of one job; how many.
fn place_job(
    fleet: &mut Fleet,
    spec: &JobSpec,
    number: u64,
    held: &mut VecDeque<(NodeId, AllocId)>,
    random: &mut ChaCha8Rng,
) -> u64 {
    let job = JobName::new(&format!("j{number}")).expect("a name");
    let mut placer = Placer::new(fleet, spec, &BTreeMap::new());
    for index in 0..SLOTS {
        let choice = placer.choose(fleet, &[], random).expect("the fleet has room");
        let alloc = AllocId::new(job.clone(), index, number);
        assert!(fleet.propose(&choice.node, &alloc, choice.claim), "the choice can be held");
        held.push_back((choice.node, alloc));
    }
    u64::from(SLOTS)
}

/// Two sockets of 8 cores with two threads, 32 GiB each; every tenth node has two GPUs.
fn fleet(nodes: u32, random: &mut ChaCha8Rng) -> Fleet {
    let mut fleet = Fleet::new();
    for number in 0..nodes {
        let mut id = [0; 32];
        random.fill_bytes(&mut id);
        let core = |index: u16| Core {
            package: index / 8,
            numa: index / 8,
            cache: index / 4,
            cpus: [index, index + 16].into_iter().collect(),
        };
        let gpu = |index: u16| Device {
            path: format!("/dev/nvidia{index}"),
            class: "gpu".into(),
            hardware: Some("pci:10de:2204".into()),
            numa: Some(index),
        };
        let topology = Topology {
            arch: "x86_64".into(),
            cores: (0..16).map(core).collect(),
            numa: (0..2).map(|id| NumaNode { id, memory: 32 * GIB }).collect(),
            memory: 64 * GIB,
            devices: if number % 10 == 0 { (0..2).map(gpu).collect() } else { Vec::new() },
            ports: (20_000, 29_999),
            enforced: Enforced {
                pinning: true,
                cpuset: true,
                numa: true,
                cpu: true,
                memory: true,
                tasks: true,
                devices: true,
            },
            ..Topology::default()
        };
        let info = NodeInfo {
            name: format!("n{number}"),
            labels: [("rack".to_owned(), format!("r{}", number % 40))].into(),
            topology,
            ..NodeInfo::default()
        };
        fleet.upsert(NodeId(id), Arc::new(info));
        fleet.set_alive(NodeId(id), true);
    }
    fleet
}

fn shared() -> JobSpec {
    JobSpec {
        name: JobName::new("bench").expect("a name"),
        kind: JobKind::Service,
        count: SLOTS,
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
            cpu: CpuRequest::Shared { millis: 1000, hard: false },
            memory: GIB,
            swap: 0,
            numa: NumaPolicy::None,
            hugepages: BTreeMap::new(),
            devices: Vec::new(),
            disk: 0,
        },
        ports: vec![fabric::job::Port { name: "http".into(), fixed: None }],
        health: None,
        placement: Placement::default(),
        update: Update::default(),
        restart: Restart::default(),
        guarantee: Default::default(),
        priority: 50,
        namespace: Default::default(),
        gang: false,
        keep: Default::default(),
    }
}

fn pinned() -> JobSpec {
    let mut spec = shared();
    spec.resources.cpu = CpuRequest::Exclusive { cores: 2, smt: Smt::Whole };
    spec.resources.numa = NumaPolicy::Require;
    spec
}

fn with_device() -> JobSpec {
    let mut spec = shared();
    spec.resources.devices = vec!["gpu".into()];
    spec
}

/// Pinned, off one rack, spread over the others, with an affinity.
fn particular() -> JobSpec {
    let mut spec = pinned();
    let condition = |text: &str| text.parse().expect("a condition");
    spec.placement.constraints = vec![condition("labels.rack != \"r1\"")];
    spec.placement.affinity = vec![Affinity::new(condition("labels.rack == \"r2\""))];
    spec.placement.spread = vec!["labels.rack".parse().expect("an attribute")];
    spec
}

/// Time that this process has run: the first number of `/proc/self/schedstat`, in nanoseconds.
fn time_on_core() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").expect("a kernel with schedstat");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds first"))
}
