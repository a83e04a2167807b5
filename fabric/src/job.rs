//! What a user wants to run: a spec with a name.
//!
//! The job file is TOML; `job::parse` (module `parse`) turns its text into a [`JobSpec`] or into an error with a line,
//! a column and, for an unknown key, the nearest name. [`JobSpec::validate`] holds for every spec that
//! enters the table, whichever way it came.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{JobName, Namespace};
use crate::level::evolving;
use crate::limits;

mod diff;
pub mod duration;
mod item;
pub mod keys;
mod parse;
pub mod placeholder;
mod placement;
pub mod schema;
mod validate;

pub use parse::{ParseError, nearest, parse, parse_all, parse_bytes, parse_with};
pub use placement::{Affinity, Placement, Strategy};
pub use validate::SpecError;

/// A duration in binary formats.
#[derive(Serialize, Deserialize)]
struct Span(#[serde(with = "duration")] Duration);

/// A job as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct JobSpec {
    /// Its name: one per fabric.
    pub name: JobName,
    /// How many copies, and where.
    #[serde(default)]
    pub kind: JobKind,
    /// Slots of a service. Always 1 for a system job.
    #[serde(default = "one")]
    pub count: u32,
    /// What to run.
    pub task: Task,
    /// What it needs.
    #[serde(default)]
    pub resources: Resources,
    /// Ports, each with a name.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// How to tell that it works.
    pub health: Option<Health>,
    /// Where it may run and where it is better off.
    #[serde(default)]
    pub placement: Placement,
    /// How a new version replaces an old one.
    #[serde(default)]
    pub update: Update,
    /// What to do when it exits.
    #[serde(default)]
    pub restart: Restart,
    /// How many live allocations a slot may have while the fabric is split.
    #[serde(default)]
    pub guarantee: Guarantee,
    /// 1 to 100; the higher may displace the strictly lower where nothing else fits, and is kept first where
    /// a namespace has more than its quota.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// Whose quota its claims count against.
    #[serde(default)]
    pub namespace: Namespace,
    /// All slots start, or none holds a claim.
    #[serde(default)]
    pub gang: bool,
    /// How long what is over is remembered.
    #[serde(default)]
    pub keep: Keep,
}

evolving!(JobSpec {
    name, kind, count, task, resources, ports, health, placement, update, restart, guarantee,
    priority, namespace, gang
} 2 { keep } within task, resources, ports, health, placement, update, restart);

/// How many live allocations a slot may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// One if at all possible: each side of a split may run its own.
    #[default]
    AtLeast,
    /// Never two: it runs under a lease that a majority of the voters granted, and without one not at all.
    AtMostOne,
}

/// How a job multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// `count` copies, somewhere.
    #[default]
    Service,
    /// One copy on each matching node.
    System,
}

/// The process to run and what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Task {
    /// Program and arguments. `${port.NAME}`, `${cpus}`, `${job}`, `${slot}`, `${epoch}`, `${node}` are replaced.
    pub command: Vec<String>,
    /// Environment, replaced likewise.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// User to run as; without one, systemd makes up a dynamic user.
    pub user: Option<String>,
    /// Directory to start in.
    pub working_dir: Option<String>,
    /// Files made for the task, read-only.
    #[serde(default)]
    pub files: Vec<TaskFile>,
    /// Signal that asks it to end: `SIGTERM`.
    #[serde(default = "default_stop_signal")]
    pub stop_signal: String,
    /// After this it is killed.
    #[serde(with = "duration", default = "default_stop_timeout")]
    pub stop_timeout: Duration,
    /// What the sandbox keeps from it.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// What is different on machines of one architecture, by the name that `uname -m` has for it. A task
    /// whose own command is empty runs on these architectures only.
    #[serde(default)]
    pub arch: BTreeMap<String, TaskVariant>,
}

evolving!(Task {
    command, env, user, working_dir, files, stop_signal, stop_timeout: Span, sandbox, arch
} within sandbox);

/// What a task has instead on one architecture. What is empty here is the task's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskVariant {
    /// Program and arguments, all of them.
    pub command: Vec<String>,
    /// Variables that are added, or that replace those with the same name.
    pub env: BTreeMap<String, String>,
    /// User to run as.
    pub user: Option<String>,
    /// Directory to start in.
    pub working_dir: Option<String>,
    /// Files that are added, or that replace those with the same path.
    pub files: Vec<TaskFile>,
}

/// A file that the task sees, read-only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFile {
    /// Absolute path that the task sees.
    pub path: String,
    /// Its text.
    pub content: String,
}

/// What a task may touch. Everything starts closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Sandbox {
    /// False: no sandbox at all.
    pub enabled: bool,
    /// Paths it may write besides its private `/tmp`.
    pub writable: Vec<String>,
    /// Capabilities to keep: `CAP_NET_BIND_SERVICE`.
    pub capabilities: Vec<String>,
    /// System calls allowed, in systemd's words: `@system-service`.
    pub syscalls: Vec<String>,
    /// Real devices under `/dev` besides claimed ones.
    pub devices: bool,
    /// Home directories are visible.
    pub home: bool,
    /// May gain privileges by executing setuid programs.
    pub new_privileges: bool,
    /// Most tasks (threads) at a time.
    pub tasks_max: u32,
}

evolving!(Sandbox {
    enabled,
    writable,
    capabilities,
    syscalls,
    devices,
    home,
    new_privileges,
    tasks_max
});

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            enabled: true,
            writable: Vec::new(),
            capabilities: Vec::new(),
            syscalls: vec!["@system-service".into()],
            devices: false,
            home: false,
            new_privileges: false,
            tasks_max: 1024,
        }
    }
}

/// What an allocation needs of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Resources {
    /// CPU.
    pub cpu: CpuRequest,
    /// Bytes of memory; the unit is killed above. Swap is off unless asked for.
    pub memory: u64,
    /// Bytes of swap it may use.
    pub swap: u64,
    /// Whether cores, memory and devices must come from one memory node.
    pub numa: NumaPolicy,
    /// Huge pages: size in KiB to number of pages.
    pub hugepages: BTreeMap<u32, u32>,
    /// Devices: a class (`gpu`), a bus identity (`usb:1a86:7523`) or a path (`/dev/ttyUSB0`), one each.
    pub devices: Vec<String>,
    /// Bytes that it may keep on the node's disk: counted, and not enforced. 0: it asks for none.
    #[serde(default)]
    pub disk: u64,
}

evolving!(Resources { cpu, memory, swap, numa, hugepages, devices } 3 { disk });

impl Default for Resources {
    /// A tenth of a shared CPU and 64 MiB: what a small service on a small board needs.
    fn default() -> Self {
        Self {
            cpu: CpuRequest::Shared { millis: 100, hard: false },
            memory: 64 << 20,
            swap: 0,
            numa: NumaPolicy::None,
            hugepages: BTreeMap::new(),
            devices: Vec::new(),
            disk: 0,
        }
    }
}

/// How much CPU, and of which sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuRequest {
    /// Thousandths of a CPU's time, on the cores that nobody holds for himself.
    Shared {
        /// 1000 is one CPU.
        millis: u32,
        /// May not use more than that even when the machine is idle.
        hard: bool,
    },
    /// Cores that nobody else uses.
    Exclusive {
        /// How many cores (with `smt = "share"`: hardware threads).
        cores: u16,
        /// Whether an SMT sibling may go to somebody else.
        smt: Smt,
    },
}

/// What happens to the other hardware threads of an exclusive core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Smt {
    /// The allocation gets all of them: a core is a whole physical core.
    #[default]
    Whole,
    /// A core is one hardware thread; its sibling may go to another allocation.
    Share,
}

/// Whether an allocation's cores, memory and devices lie on one memory node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NumaPolicy {
    /// Anywhere.
    #[default]
    None,
    /// On one node if that is possible.
    Prefer,
    /// On one node, or not at all.
    Require,
}

/// A port of an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Port {
    /// `${port.NAME}` in the command, `WEFT_PORT_NAME` in the environment.
    pub name: String,
    /// A fixed number; otherwise the node picks one.
    pub fixed: Option<u16>,
}

evolving!(Port { name, fixed });

/// How to tell that an allocation works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// Time between two checks.
    #[serde(with = "duration", default = "Health::default_interval")]
    pub interval: Duration,
    /// An answer that takes longer is a failure. Not more than the interval.
    #[serde(with = "duration", default = "Health::default_interval")]
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy and restart it.
    #[serde(default = "Health::default_failures")]
    pub failures: u32,
    /// After a start, failures do not count for this long (or until the first success).
    #[serde(with = "duration", default = "Health::default_grace")]
    pub grace: Duration,
}

evolving!(Health { check, interval: Span, timeout: Span, failures, grace: Span });

impl Health {
    /// `check` every 2 s, each given 2 s; three failures in a row count, none in the first 10 s.
    pub fn new(check: Check) -> Self {
        Self {
            check,
            interval: Self::default_interval(),
            timeout: Self::default_interval(),
            failures: Self::default_failures(),
            grace: Self::default_grace(),
        }
    }

    fn default_interval() -> Duration {
        Duration::from_secs(2)
    }

    fn default_failures() -> u32 {
        3
    }

    fn default_grace() -> Duration {
        Duration::from_secs(10)
    }
}

/// One question to an allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// GET `path` on `port` answers 2xx or 3xx.
    Http {
        /// Absolute path.
        path: String,
        /// Name of one of the job's ports.
        port: String,
    },
    /// `port` accepts a connection.
    Tcp {
        /// Name of one of the job's ports.
        port: String,
    },
    /// The command exits 0. It runs as a part of the task: with its environment and within its limits.
    Command {
        /// Program and arguments, replaced like the task's.
        command: Vec<String>,
    },
}

/// How a new version replaces an old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Update {
    /// Slots that may be without a healthy allocation at a time because of the update.
    pub max_parallel: u32,
    /// A new allocation counts after it was healthy for this long.
    #[serde(with = "duration")]
    pub min_healthy: Duration,
    /// A new allocation that is not healthy by then has failed.
    #[serde(with = "duration")]
    pub deadline: Duration,
    /// Go back to the version before when the new one fails.
    pub auto_revert: bool,
}

evolving!(Update { max_parallel, min_healthy: Span, deadline: Span, auto_revert });

impl Default for Update {
    fn default() -> Self {
        Self {
            max_parallel: 1,
            min_healthy: Duration::from_secs(5),
            deadline: Duration::from_secs(120),
            auto_revert: true,
        }
    }
}

/// What to do when an allocation exits or is unhealthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Restart {
    /// Restarts on the same node, within `within`, before the slot is placed elsewhere.
    pub attempts: u32,
    /// The window in which they are counted.
    #[serde(with = "duration")]
    pub within: Duration,
    /// Wait before the first restart, a second at least; doubles with each further one in the window.
    #[serde(with = "duration")]
    pub delay: Duration,
}

evolving!(Restart { attempts, within: Span, delay: Span });

impl Default for Restart {
    fn default() -> Self {
        Self { attempts: 3, within: Duration::from_secs(60), delay: Duration::from_secs(1) }
    }
}

/// How long what is over is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Keep {
    /// Allocations that have ended: `weft ps --all` shows them, and why they ended.
    #[serde(with = "duration")]
    pub ended: Duration,
}

evolving!(Keep { ended: Span });

impl Default for Keep {
    fn default() -> Self {
        Self { ended: limits::ENDED_KEEP }
    }
}

/// Names what is run, without how many and how to get there: allocations with the fingerprint of
/// the current spec are up to date.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SpecHash(pub u64);

impl Task {
    /// Runs `command`, sandboxed; it has 10 s to end after a SIGTERM.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            env: BTreeMap::new(),
            user: None,
            working_dir: None,
            files: Vec::new(),
            stop_signal: default_stop_signal(),
            stop_timeout: default_stop_timeout(),
            sandbox: Sandbox::default(),
            arch: BTreeMap::new(),
        }
    }

    /// Whether there is a command for machines of this architecture.
    pub fn runs_on(&self, arch: &str) -> bool {
        !self.command.is_empty()
            || self.arch.get(arch).is_some_and(|variant| !variant.command.is_empty())
    }

    /// The task as machines of this architecture run it.
    pub fn on_arch(&self, arch: &str) -> Cow<'_, Task> {
        let Some(variant) = self.arch.get(arch) else { return Cow::Borrowed(self) };
        let mut task = Task { arch: BTreeMap::new(), ..self.clone() };
        if !variant.command.is_empty() {
            task.command.clone_from(&variant.command);
        }
        task.env.extend(variant.env.iter().map(|(name, value)| (name.clone(), value.clone())));
        task.user = variant.user.clone().or(task.user);
        task.working_dir = variant.working_dir.clone().or(task.working_dir);
        task.files.retain(|file| variant.files.iter().all(|other| other.path != file.path));
        task.files.extend(variant.files.iter().cloned());
        Cow::Owned(task)
    }
}

fn one() -> u32 {
    1
}

fn default_stop_signal() -> String {
    "SIGTERM".into()
}

fn default_stop_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_priority() -> u8 {
    limits::PRIORITY_DEFAULT
}

impl JobSpec {
    /// A service with one slot that runs `command`: everything else is what a job file gets that does
    /// not mention it.
    pub fn service(name: JobName, command: Vec<String>) -> Self {
        Self {
            name,
            kind: JobKind::Service,
            count: 1,
            task: Task::new(command),
            resources: Resources::default(),
            ports: Vec::new(),
            health: None,
            placement: Placement::default(),
            update: Update::default(),
            restart: Restart::default(),
            guarantee: Guarantee::default(),
            priority: limits::PRIORITY_DEFAULT,
            namespace: Namespace::default(),
            gang: false,
            keep: Keep::default(),
        }
    }

    /// What an allocation of this spec depends on. `count`, `update`, `restart`, `priority`,
    /// `namespace`, `gang` and `keep` are left out: changing them restarts nothing. `generation` grows when a user asks for a restart.
    pub fn hash(&self, generation: u32) -> SpecHash {
        let parts = (
            &self.name,
            self.kind,
            &self.task,
            &self.resources,
            &self.ports,
            &self.health,
            &self.placement,
            self.guarantee,
            generation,
        );
        let bytes = postcard::to_stdvec(&parts).expect("a spec encodes");
        SpecHash(xxhash_rust::xxh3::xxh3_64(&bytes))
    }

    /// The port called `name`.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }
}
