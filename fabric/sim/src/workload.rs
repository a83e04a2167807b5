//! What users want: random jobs, submitted, scaled, updated, restarted, stopped, and nodes drained.

use fabric::constraint::Constraint;
use fabric::id::{JobName, Namespace, NodeId};
use fabric::io::Request;
use fabric::job::{
    Check, CpuRequest, Guarantee, Health, JobKind, JobSpec, Keep, NumaPolicy, Placement, Port,
    Resources, Restart, Sandbox, Smt, Task, Update,
};
use fabric::limits;
use fabric::quota::Quota;
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::journal::Wish;
use crate::units::BEHAVES;
use crate::world::World;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Jobs at a time.
const JOBS_MAX: usize = 10;
/// The namespace that gets quotas.
const TEAM: &str = "team";
/// What no machine is.
const NOWHERE: &str = "labels.rack == \"nowhere\"";
/// Slots of one service.
const COUNT_MAX: u32 = 6;

/// A small service of one slot that works.
pub fn service(name: JobName) -> JobSpec {
    JobSpec {
        name,
        kind: JobKind::Service,
        count: 1,
        task: Task {
            command: vec!["/usr/bin/task".into()],
            env: [("VERSION".to_owned(), "1".to_owned())].into(),
            user: None,
            working_dir: None,
            files: Vec::new(),
            stop_signal: "SIGTERM".into(),
            stop_timeout: Duration::from_secs(5),
            sandbox: Sandbox::default(),
            arch: BTreeMap::new(),
        },
        resources: Resources {
            cpu: CpuRequest::Shared { millis: 100, hard: false },
            memory: 64 * MIB,
            swap: 0,
            numa: NumaPolicy::None,
            hugepages: BTreeMap::new(),
            devices: Vec::new(),
            disk: 0,
        },
        ports: Vec::new(),
        health: None,
        placement: Placement::default(),
        update: Update {
            max_parallel: 1,
            min_healthy: Duration::from_secs(2),
            deadline: Duration::from_secs(30),
            auto_revert: true,
        },
        restart: Restart::default(),
        guarantee: Guarantee::AtLeast,
        priority: limits::PRIORITY_DEFAULT,
        namespace: Namespace::default(),
        gang: false,
        keep: Keep::default(),
    }
}

/// A check that the simulated units answer.
pub fn health() -> Health {
    Health {
        check: Check::Command { command: vec!["/usr/bin/check".into()] },
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        failures: 3,
        grace: Duration::from_secs(5),
    }
}

/// Users who change their minds.
pub struct Workload {
    random: ChaCha8Rng,
    /// How much disk they want, drawn apart from everything else.
    disks: ChaCha8Rng,
    /// Jobs that were submitted and not stopped, as far as these users know.
    jobs: BTreeMap<JobName, JobSpec>,
    names: u32,
    versions: u32,
    draining: BTreeSet<NodeId>,
    /// Most jobs are at-most-one, and of those most ignore being asked to stop.
    aimed_at_leases: bool,
}

impl Workload {
    /// Users without any jobs yet.
    pub fn new(random: ChaCha8Rng, aimed_at_leases: bool) -> Self {
        let (jobs, draining) = (BTreeMap::new(), BTreeSet::new());
        let mut disks = random.clone();
        disks.set_stream(1);
        Self { random, disks, jobs, names: 0, versions: 1, draining, aimed_at_leases }
    }

    /// How long until the next wish.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(500..12_000))
    }

    /// One wish, and which of the nodes that run is told.
    pub fn wish(&mut self, world: &World) -> Option<(usize, Wish)> {
        let awake: Vec<usize> =
            (0..world.nodes.len()).filter(|node| world.nodes[*node].is_awake(world.time)).collect();
        let node = *awake.choose(&mut self.random)?;
        let request = self.request(world)?;
        Some((node, Wish::of(world, &request)?))
    }

    fn request(&mut self, world: &World) -> Option<Request> {
        let by = "somebody".to_owned();
        if self.chance(25) {
            return Some(self.quota());
        }
        let job = self.any_job();
        match (self.random.random_range(0..100), job) {
            (0..30, _) | (_, None) if self.jobs.len() < JOBS_MAX => {
                let spec = self.new_job();
                self.jobs.insert(spec.name.clone(), spec.clone());
                Some(Request::Submit { spec: Box::new(spec), by, expected_version: None })
            }
            (0..50, Some(job)) => {
                let mut spec = self.jobs.get(&job)?.clone();
                self.versions += 1;
                spec.task.env.insert("VERSION".into(), self.versions.to_string());
                if self.random.random_ratio(1, 4) {
                    spec.resources.memory = self.memory();
                }
                // Now and then a version is for a rack that is not there, until the next one.
                let nowhere: Constraint = NOWHERE.parse().expect("a constraint");
                spec.placement.constraints.retain(|constraint| *constraint != nowhere);
                if self.chance(8) {
                    spec.placement.constraints.push(nowhere);
                }
                let behaves = self.behaves(&mut spec);
                spec.task.env.insert(BEHAVES.into(), behaves);
                self.jobs.insert(job, spec.clone());
                Some(Request::Submit { spec: Box::new(spec), by, expected_version: None })
            }
            (50..65, Some(job)) => {
                let spec = self.jobs.get_mut(&job)?;
                if spec.kind == JobKind::System {
                    return None;
                }
                spec.count = self.random.random_range(0..=COUNT_MAX);
                Some(Request::Scale { job, count: spec.count, by })
            }
            (65..75, Some(job)) => {
                self.jobs.remove(&job);
                Some(Request::Stop { job })
            }
            (75..80, Some(job)) => Some(Request::RestartJob { job, by }),
            (80..85, Some(job)) => {
                let index = self.random.random_range(0..2);
                Some(Request::RestartSlot { job, index })
            }
            (85..90, _) if self.draining.len() * 4 < world.nodes.len() => {
                let ids: Vec<NodeId> = world.nodes.iter().map(|node| node.identity).collect();
                let node = *ids.choose(&mut self.random)?;
                self.draining.insert(node);
                Some(Request::Drain { node, on: true })
            }
            _ => {
                let node = *self.draining.first()?;
                self.draining.remove(&node);
                Some(Request::Drain { node, on: false })
            }
        }
    }

    /// Another quota of the team, also where something has to stop for it; or none.
    fn quota(&mut self) -> Request {
        let namespace = Namespace::new(TEAM).expect("a namespace");
        if self.chance(4) {
            return Request::RemoveQuota { namespace };
        }
        let quota = Quota {
            cpu_millis: Some(self.random.random_range(1..=8) * 1000),
            allocs: Some(self.random.random_range(2..=12)),
            ..Quota::default()
        };
        Request::SetQuota { namespace, quota, force: true }
    }

    fn any_job(&mut self) -> Option<JobName> {
        let names: Vec<&JobName> = self.jobs.keys().collect();
        names.choose(&mut self.random).map(|name| (*name).clone())
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    fn new_job(&mut self) -> JobSpec {
        // Names come back: a job that was stopped may be submitted again.
        self.names += 1;
        let names = if self.chance(4) { 5 } else { 1000 };
        // What a job promises goes with its name, so that it never changes.
        let only = if self.aimed_at_leases { !self.chance(4) } else { self.chance(4) };
        let prefix = if only { "only" } else { "job" };
        let name = format!("{prefix}{}", self.names % names);
        let mut spec = service(JobName::new(&name).expect("a job's name"));
        if only {
            spec.guarantee = Guarantee::AtMostOne;
            spec.count = self.random.random_range(1..=2);
            spec.task.stop_timeout = Duration::from_secs(self.random.random_range(1..=8));
            spec.resources.cpu = self.cpu();
            spec.resources.memory = self.memory();
        } else if self.chance(6) {
            spec.kind = JobKind::System;
            spec.resources.cpu = CpuRequest::Shared { millis: 50, hard: false };
            spec.resources.memory = 16 * MIB;
        } else {
            spec.count = self.random.random_range(1..=COUNT_MAX);
            spec.resources.cpu = self.cpu();
            spec.resources.memory = self.memory();
            self.special_wishes(&mut spec);
        }
        if self.chance(3) {
            spec.health = Some(health());
        }
        if self.chance(5) {
            let rack = self.random.random_range(1..=3u8);
            let rack = format!("labels.rack == \"r{rack}\"");
            spec.placement.constraints.push(rack.parse().expect("a constraint"));
        }
        if self.chance(6) {
            let arch = "arch == \"x86_64\"".parse().expect("a constraint");
            spec.placement.constraints.push(arch);
        }
        if self.chance(4) {
            spec.placement.spread = vec!["labels.rack".parse().expect("an attribute")];
        }
        if self.chance(2) {
            spec.priority = *[20, 40, 80].choose(&mut self.random).expect("not empty");
        }
        if self.chance(4) {
            spec.namespace = Namespace::new(TEAM).expect("a namespace");
        }
        spec.update.max_parallel = self.random.random_range(1..=2);
        spec.update.min_healthy = Duration::from_secs(self.random.random_range(1..=5));
        spec.update.auto_revert = !self.chance(4);
        spec.restart.attempts = self.random.random_range(1..=3);
        if self.chance(6) {
            // Which old agents cannot read.
            spec.keep.ended = Duration::from_secs(120);
        }
        spec.resources.disk = self.disk();
        let behaves = self.behaves(&mut spec);
        spec.task.env.insert(BEHAVES.into(), behaves);
        spec
    }

    fn cpu(&mut self) -> CpuRequest {
        match self.random.random_range(0..4u8) {
            0 | 1 => CpuRequest::Shared {
                millis: self.random.random_range(50..500),
                hard: self.random.random(),
            },
            2 => CpuRequest::Exclusive { cores: 1, smt: Smt::Share },
            _ => CpuRequest::Exclusive { cores: self.random.random_range(1..=2), smt: Smt::Whole },
        }
    }

    fn memory(&mut self) -> u64 {
        self.random.random_range(16..512) * MIB
    }

    /// None for most jobs: old agents cannot read what asks for disk. For some so much that few machines have it twice.
    fn disk(&mut self) -> u64 {
        match self.disks.random_range(0..6u8) {
            0 => self.disks.random_range(1..4) * GIB,
            1 => self.disks.random_range(4..=12) * GIB,
            _ => 0,
        }
    }

    /// Memory nodes, devices, huge pages and ports.
    fn special_wishes(&mut self, spec: &mut JobSpec) {
        spec.resources.numa = match self.random.random_range(0..6u8) {
            0 => NumaPolicy::Require,
            1 => NumaPolicy::Prefer,
            _ => NumaPolicy::None,
        };
        if self.chance(8) {
            let wishes = ["gpu", "usb:1a86:7523", "/dev/dri/renderD128"];
            let wish = *wishes.choose(&mut self.random).expect("not empty");
            spec.resources.devices.push(wish.into());
        }
        if self.chance(10) {
            spec.resources.hugepages.insert(2048, self.random.random_range(1..=32));
        }
        if self.chance(3) {
            spec.ports.push(Port { name: "http".into(), fixed: None });
        }
        if self.chance(6) {
            let number = 8000 + self.random.random_range(0..3);
            spec.ports.push(Port { name: "fixed".into(), fixed: Some(number) });
        }
    }

    /// Most things work.
    fn behaves(&mut self, spec: &mut JobSpec) -> String {
        if self.aimed_at_leases && spec.guarantee == Guarantee::AtMostOne {
            return if self.chance(4) { "well" } else { "ignores-stop" }.into();
        }
        match self.random.random_range(0..25u8) {
            0 => format!("exits={}s", self.random.random_range(1..20)),
            1 => "refuses".into(),
            2 | 3 => "ignores-stop".into(),
            4 => {
                spec.health = Some(health());
                "unhealthy".into()
            }
            5 | 6 => "starts=3s".into(),
            7 => format!("prepares={}s", self.random.random_range(1..8)),
            _ => "well".into(),
        }
    }
}
