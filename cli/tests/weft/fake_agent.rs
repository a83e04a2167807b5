//! An agent that is not one: three nodes and the jobs on them in memory, behind a real HTTP server on a
//! real Unix socket. Slots are placed where cores and constraints allow, and come up one step with
//! each look at them.

mod prometheus;
mod routes;

use fabric::alloc::{AllocRow, Phase};
use fabric::api::Verdict;
use fabric::api::*;
use fabric::clock::WallTime;
use fabric::id::{AllocId, JobName, Namespace, NodeId};
use fabric::job::{CpuRequest, JobSpec};
use fabric::quota::Amount;
use fabric::resources::Rejection;
use fabric::topology::{Core, DiskPool, NodeInfo, Topology};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::rc::Rc;
use tokio::net::UnixListener;
use tokio::process::Command;

pub use prometheus::Series;

/// A job and how far it has come.
pub struct Job {
    pub spec: JobSpec,
    pub version: u64,
    pub reverted: bool,
    previous: Option<JobSpec>,
    allocs: Vec<Alloc>,
    /// Looks since the last submit.
    looks: u32,
}

impl Job {
    fn flaps(&self) -> bool {
        self.spec.task.command[0] == FLAPS
    }

    /// What flaps is healthy for two looks and fails for two.
    fn fails_now(&self) -> bool {
        self.spec.task.command[0] == CRASHES || self.flaps() && self.looks % 4 < 2
    }

    /// As the core says it: while nothing of the new version is healthy.
    fn reverts_to(&self, healthy: u32) -> Option<u64> {
        let takes_back = self.previous.is_some() && !self.reverted && self.spec.update.auto_revert;
        (takes_back && healthy == 0).then_some(self.version - 1)
    }
}

struct Alloc {
    index: u32,
    node: usize,
    epoch: u64,
    version: u64,
    steps: u32,
    stopping: bool,
}

/// What the fake knows.
#[derive(Default)]
pub struct State {
    pub nodes: Vec<NodeView>,
    pub jobs: BTreeMap<JobName, Job>,
    pub tokens: Vec<TokenView>,
    pub quotas: Vec<QuotaView>,
    pub findings: Vec<Finding>,
    /// `PUT /v1/jobs/web?expected_version=0`
    pub requests: Vec<String>,
    /// Somebody else submits between plan and submit.
    pub interfere: bool,
    /// What is measured.
    pub series: Vec<Series>,
    /// Nodes that do not answer questions.
    pub silent: Vec<String>,
    /// Other traces have all the room there is.
    pub tracing: bool,
    /// Traces end before their end.
    pub breaks_off: bool,
    /// What makes traces is killed.
    pub fails: bool,
    /// How it means to get into a fabric.
    pub entry: serde_json::Value,
    /// Nodes that wait for a fabric.
    pub waiting: Vec<serde_json::Value>,
    /// Lines that each slot has written.
    pub log_lines: usize,
    pub fabric: Option<String>,
    /// Nodes whose agents have stopped for a while.
    pub stopped_agents: Vec<String>,
    /// Whoever is told to drain dies of it.
    pub dies_draining: bool,
    ended: Vec<JobName>,
}

/// The fake and the directory with its socket.
pub struct Fake {
    pub state: Rc<RefCell<State>>,
    pub directory: tempfile::TempDir,
}

/// A slot whose command begins with this never works.
pub const CRASHES: &str = "/bin/crash";
/// A slot whose command begins with this works and crashes in turn.
pub const FLAPS: &str = "/bin/flap";
/// A slot whose command begins with this stays on its way.
pub const HANGS: &str = "/bin/hang";

impl Fake {
    /// Three nodes with four cores each, one of them in rack r2. Runs as long as the test's runtime.
    pub fn start() -> Fake {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("weft.sock")).unwrap();
        let state = Rc::new(RefCell::new(State {
            nodes: (0..3).map(node).collect(),
            fabric: Some("test".into()),
            log_lines: 3,
            ..State::default()
        }));
        let served = state.clone();
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = served.clone();
                tokio::task::spawn_local(async move {
                    let service = service_fn(|request| routes::respond(state.clone(), request));
                    // The client may go away at any moment: that is its right.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Fake { state, directory }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("weft.sock")
    }

    /// Writes a file beside the socket.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `weft ...`, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = weft(&self.socket());
        command.args(arguments).current_dir(self.directory.path());
        command
    }

    /// Runs `weft ...` to its end.
    pub async fn weft(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().await.unwrap())
    }

    /// Puts a job in place as if it had been applied and had come up.
    pub fn has_job(&self, name: &str, count: u32, program: &str) {
        let mut spec = JobSpec::service(JobName::new(name).unwrap(), vec![program.into()]);
        spec.count = count;
        spec.update.min_healthy = STEADY;
        let mut state = self.state.borrow_mut();
        state.submit(spec);
        (0..10).for_each(|_| state.look());
    }

    /// One slot runs on this node.
    pub fn has_slot_on(&self, job: &str, index: u32, node: usize) {
        let mut state = self.state.borrow_mut();
        let job = state.jobs.get_mut(&JobName::new(job).unwrap()).unwrap();
        job.allocs.iter_mut().filter(|alloc| alloc.index == index).for_each(|it| it.node = node);
    }

    /// Everything runs on this node.
    pub fn has_all_on(&self, node: usize) {
        let mut state = self.state.borrow_mut();
        let allocs = state.jobs.values_mut().flat_map(|job| &mut job.allocs);
        allocs.for_each(|alloc| alloc.node = node);
    }
}

/// For how long slots of jobs that are put in place have to stay healthy: tests are not to wait for long.
const STEADY: std::time::Duration = std::time::Duration::from_millis(300);

/// `weft` with a clean environment.
pub fn weft(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command
        .env_clear()
        .env("WEFT_SOCKET", socket)
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Ran {
    /// The exit code; all of the output goes into the failure's message.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        self
    }

    #[track_caller]
    pub fn shows(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no {text:?} in {self:#?}");
        self
    }

    #[track_caller]
    pub fn shows_nothing(self) -> Self {
        assert_eq!(self.stdout, "", "{self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

fn node(index: usize) -> NodeView {
    let rack = if index == 2 { "r2" } else { "r1" };
    let mut id = [0x10; 32];
    id[0] = 0xa0 + index as u8;
    let core = |cpu: u16| Core { cpus: [cpu].into_iter().collect(), ..Core::default() };
    let pool = DiskPool {
        name: DiskPool::DEFAULT.into(),
        capacity: 40 << 30,
        reserved: 2 << 30,
        used: 8 << 30,
    };
    let topology = Topology {
        arch: "x86_64".into(),
        os: "debian 12".into(),
        kernel: "6.1.0".into(),
        cores: (0..4).map(core).collect(),
        memory: 1 << 30,
        // The agent of the third is too old to say.
        pools: if index < 2 { vec![pool] } else { Vec::new() },
        ..Topology::default()
    };
    NodeView {
        id: NodeId(id),
        name: format!("node{}", index + 1),
        state: NodeState::Alive,
        local: index == 0,
        info: Some(NodeInfo {
            name: format!("node{}", index + 1),
            labels: BTreeMap::from([("rack".into(), rack.into())]),
            topology,
            version: "0.1.0".into(),
            executor: "systemd".into(),
            ..NodeInfo::default()
        }),
        free: Free { cores: 4, memory: 1 << 30, disk: 30 << 30, ..Free::default() },
        allocs: Vec::new(),
    }
}

fn cores_of(spec: &JobSpec) -> u32 {
    match spec.resources.cpu {
        CpuRequest::Exclusive { cores, .. } => cores.into(),
        CpuRequest::Shared { .. } => 0,
    }
}

impl State {
    fn free_cores(&self, node: usize) -> u32 {
        let used: u32 = self
            .jobs
            .values()
            .map(|job| {
                let here = job.allocs.iter().filter(|alloc| alloc.node == node).count() as u32;
                here * cores_of(&job.spec)
            })
            .sum();
        4u32.saturating_sub(used)
    }

    /// The first slot of each job goes one node on.
    fn rebalance(&mut self, wish: RebalanceBody) -> Rebalance {
        let count = self.nodes.len();
        let mut moves = Vec::new();
        for (name, job) in self.jobs.iter_mut().take(wish.max_moves as usize) {
            let Some(alloc) = job.allocs.first_mut() else { continue };
            let (from, to) = (alloc.node, (alloc.node + 1) % count);
            if wish.apply {
                alloc.node = to;
            }
            let slot = fabric::id::SlotId { job: name.clone(), index: alloc.index };
            moves.push(MoveView {
                slot,
                from: self.nodes[from].id,
                from_name: self.nodes[from].name.clone(),
                to: self.nodes[to].id,
                to_name: self.nodes[to].name.clone(),
                gain: "free cores on one memory node there: 2 -> 4".into(),
            });
        }
        let hole = |cores| HolesView { cores, memory: 1 << 30 };
        let after = hole(if moves.is_empty() { 2 } else { 4 });
        Rebalance { applied: wish.apply, moves, before: hole(2), after }
    }

    fn verdicts(&self, spec: &JobSpec) -> Vec<Verdict> {
        let verdict = |(index, node): (usize, &NodeView)| {
            let info = node.info.as_ref().unwrap();
            let failed = spec.placement.constraints.iter().find(|c| !c.holds(node.id, info));
            let (wanted, free) = (cores_of(spec), self.free_cores(index));
            let rejection = if node.state != NodeState::Alive {
                Some(Rejection::NotAlive)
            } else if info.draining {
                Some(Rejection::Draining)
            } else if let Some(constraint) = failed {
                let actual = constraint.actual(node.id, info).map(|value| value.into_owned());
                Some(Rejection::Constraint { constraint: constraint.to_string(), actual })
            } else if wanted > free {
                Some(Rejection::Cores { wanted, free })
            } else {
                None
            };
            let score = rejection.is_none().then_some(i64::from(free));
            Verdict { node: node.id, name: node.name.clone(), rejection, score }
        };
        let mut verdicts: Vec<_> = self.nodes.iter().enumerate().map(verdict).collect();
        verdicts.sort_by_key(|verdict| std::cmp::Reverse(verdict.score));
        verdicts
    }

    fn place(&mut self, name: &JobName) {
        let (spec, version) = (self.jobs[name].spec.clone(), self.jobs[name].version);
        self.jobs.get_mut(name).unwrap().allocs.retain(|alloc| alloc.index < spec.count);
        for index in 0..spec.count {
            let job = &self.jobs[name];
            if job.allocs.iter().any(|alloc| alloc.index == index && alloc.version == version) {
                continue;
            }
            let epoch =
                job.allocs.iter().filter(|a| a.index == index).map(|a| a.epoch).max().unwrap_or(0)
                    + 1;
            self.jobs.get_mut(name).unwrap().allocs.retain(|alloc| alloc.index != index);
            let best = self.verdicts(&spec).into_iter().find(|verdict| verdict.rejection.is_none());
            if let Some(best) = best {
                let node = self.nodes.iter().position(|node| node.id == best.node).unwrap();
                let alloc = Alloc { index, node, epoch, version, steps: 0, stopping: false };
                self.jobs.get_mut(name).unwrap().allocs.push(alloc);
            }
        }
    }

    pub fn submit(&mut self, spec: JobSpec) -> Submitted {
        let name = spec.name.clone();
        let (version, changed) = match self.jobs.get_mut(&name) {
            Some(job) if job.spec == spec => (job.version, false),
            Some(job) => {
                job.previous = Some(std::mem::replace(&mut job.spec, spec));
                (job.version, job.looks, job.reverted) = (job.version + 1, 0, false);
                (job.version, true)
            }
            None => {
                let job = Job {
                    spec,
                    version: 1,
                    reverted: false,
                    previous: None,
                    allocs: vec![],
                    looks: 0,
                };
                self.jobs.insert(name.clone(), job);
                (1, true)
            }
        };
        self.place(&name);
        Submitted { job: name, version, changed, held_by: 2, members: 3 }
    }

    /// Time passes: everything moves on by a step.
    fn look(&mut self) {
        let names: Vec<_> = self.jobs.keys().cloned().collect();
        for name in names {
            let job = self.jobs.get_mut(&name).unwrap();
            job.looks += 1;
            let slowest = if job.spec.task.command[0] == HANGS { 1 } else { 3 };
            job.allocs.iter_mut().for_each(|alloc| alloc.steps = (alloc.steps + 1).min(slowest));
            let fails = job.spec.task.command[0] == CRASHES && job.looks > 4;
            let reverts = fails && job.spec.update.auto_revert && !job.reverted;
            if let Some(previous) = job.previous.take_if(|_| reverts) {
                (job.spec, job.reverted) = (previous, true);
                job.version -= 1;
                job.allocs.clear();
            }
            if !self.ended.contains(&name) {
                self.place(&name);
            }
        }
        for name in std::mem::take(&mut self.ended) {
            if let Some(job) = self.jobs.get(&name) {
                assert!(job.allocs.iter().all(|alloc| alloc.stopping));
            }
            // Who is dead ends nothing.
            let nodes = &self.nodes;
            let job = self.jobs.get_mut(&name).expect("it was there when it was stopped");
            job.allocs.retain(|alloc| nodes[alloc.node].state == NodeState::Dead);
            if !job.allocs.is_empty() {
                self.ended.push(name);
                continue;
            }
            self.jobs.remove(&name);
        }
    }

    fn job_view(&self, name: &JobName) -> Option<JobView> {
        let job =
            self.jobs.get(name).filter(|job| !job.allocs.iter().any(|alloc| alloc.stopping))?;
        let crashes = job.fails_now();
        let healthy = job.allocs.iter().filter(|alloc| alloc.steps >= 3 && !crashes).count() as u32;
        let count = job.spec.count;
        let (state, reason) = if job.reverted {
            (JobState::Reverted, Some("exit status 3".into()))
        } else if (job.allocs.len() as u32) < count {
            (JobState::Unplaceable, Some("no node can take it".into()))
        } else if crashes && job.looks > 2 {
            (JobState::Failing, Some("exit status 3".into()))
        } else if healthy == count {
            (JobState::Healthy, None)
        } else {
            (JobState::Progressing, None)
        };
        Some(JobView {
            name: name.clone(),
            kind: job.spec.kind,
            spec: job.spec.clone(),
            version: job.version,
            by: "root at node1".into(),
            submitted: WallTime(1),
            wanted: count,
            running: job.allocs.len() as u32,
            healthy,
            coordinator: Some(self.nodes[0].id),
            state,
            reason,
            failed: None,
            reverts_to: job.reverts_to(healthy),
        })
    }

    pub fn alloc_views(&self, wanted: Option<&str>) -> Vec<AllocView> {
        let jobs = self
            .jobs
            .iter()
            .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name.as_str()));
        jobs.flat_map(|(name, job)| {
            job.allocs.iter().map(move |alloc| self.alloc_view(name, job, alloc))
        })
        .collect()
    }

    fn alloc_view(&self, name: &JobName, job: &Job, alloc: &Alloc) -> AllocView {
        let id = AllocId::new(name.clone(), alloc.index, alloc.epoch);
        let phase = match alloc.steps {
            _ if alloc.stopping => Phase::Stopping,
            0 => Phase::Reserved,
            1 => Phase::Starting,
            _ => Phase::Running,
        };
        let crashes = job.fails_now();
        let mut row =
            AllocRow { epoch: alloc.epoch, phase, version: alloc.version, ..AllocRow::default() };
        row.healthy = alloc.steps >= 3 && !crashes;
        row.restarts = if job.flaps() { job.looks / 2 } else { 0 };
        row.trouble = crashes.then(|| "exit status 3".into());
        row.claim.memory = job.spec.resources.memory;
        row.claim.ports = job.spec.ports.iter().map(|port| (port.name.clone(), 20_000)).collect();
        AllocView {
            unit: id.unit(),
            id,
            node: self.nodes[alloc.node].id,
            node_name: self.nodes[alloc.node].name.clone(),
            node_state: self.nodes[alloc.node].state,
            agent_stopped: self.stopped_agents.contains(&self.nodes[alloc.node].name),
            address: None,
            current: alloc.version == job.version,
            row,
        }
    }

    fn versions(&self, name: &JobName) -> Vec<JobVersion> {
        let job = &self.jobs[name];
        let newest = JobVersion { version: job.version, in_force: true, spec: job.spec.clone() };
        let before = job.previous.clone();
        let before =
            before.map(|spec| JobVersion { version: job.version - 1, in_force: false, spec });
        [Some(newest), before].into_iter().flatten().collect()
    }

    fn plan(&self, spec: &JobSpec) -> Plan {
        let before = self.jobs.get(&spec.name);
        let changes = JobSpec::changes(before.map(|job| &job.spec), spec);
        let had = before.map_or(0, |job| job.spec.count);
        let verdicts = self.verdicts(spec);
        let mut room: Vec<(String, u32)> = verdicts
            .iter()
            .filter(|verdict| verdict.rejection.is_none())
            .map(|verdict| {
                let node = self.nodes.iter().position(|node| node.id == verdict.node).unwrap();
                let fits = self.free_cores(node).checked_div(cores_of(spec)).unwrap_or(1000);
                (verdict.name.clone(), fits)
            })
            .collect();
        let mut slots = Vec::new();
        for index in 0..spec.count.max(had) {
            let action = if index >= spec.count {
                SlotAction::Stop
            } else if index >= had {
                SlotAction::Start
            } else if changes.iter().all(|change| change.path == "count") {
                SlotAction::Keep
            } else {
                SlotAction::Replace
            };
            let node = room.iter_mut().find(|(_, left)| *left > 0 && action != SlotAction::Stop);
            let node = node.map(|(name, left)| {
                *left -= 1;
                name.clone()
            });
            slots.push(SlotPlan { index, action, node, displaces: Vec::new() });
        }
        let stuck =
            slots.iter().any(|slot| slot.action == SlotAction::Start && slot.node.is_none());
        let unplaceable = if stuck {
            let refuse = |mut verdict: Verdict| {
                let wanted = cores_of(spec);
                verdict.rejection.get_or_insert(Rejection::Cores { wanted, free: 0 });
                verdict
            };
            verdicts.into_iter().map(refuse).collect()
        } else {
            Vec::new()
        };
        let version = before.map_or(0, |job| job.version);
        Plan { job: spec.name.clone(), version, changes, slots, unplaceable, warnings: Vec::new() }
    }

    fn status(&self) -> serde_json::Value {
        let mut nodes = BTreeMap::new();
        self.nodes.iter().for_each(|node| *nodes.entry(node.state).or_default() += 1);
        let jobs: Vec<_> = self.jobs.keys().filter_map(|name| self.job_view(name)).collect();
        let here = &self.nodes[0];
        let status = Status {
            version: "0.1.0".into(),
            node: here.id,
            name: here.name.clone(),
            fabric: self.fabric.clone().map(|name| FabricStatus {
                name,
                key: NodeId([7; 32]),
                nodes,
                jobs: jobs.len() as u32,
                wanted: jobs.iter().map(|job| job.wanted).sum(),
                healthy: jobs.iter().map(|job| job.healthy).sum(),
                unplaceable: 0,
                fingerprint: "00ff".into(),
                local_health: 0,
                level: 2,
                held_back_by: Vec::new(),
                voters: Default::default(),
                stopped_agents: self.stopped_agents.clone(),
                left_to_them: self.stopped_agents.len() as u32,
                removed: false,
            }),
            executor: "systemd".into(),
            executor_reason: "it is PID 1".into(),
            addresses: vec!["127.0.0.1:7946".parse().unwrap()],
            warnings: Vec::new(),
        };
        let mut status = serde_json::to_value(status).unwrap();
        status["fingerprint"] = "0000-1111-2222-3333-4444".into();
        status["network"] = true.into();
        status["entry"] = self.entry.clone();
        status
    }
}
