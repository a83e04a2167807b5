//! What holds for every spec that enters the table, whichever way it came.

use std::collections::BTreeMap;
use std::time::Duration;

use super::placeholder;
use super::{
    Affinity, Check, CpuRequest, Guarantee, Health, JobKind, JobSpec, Task, TaskFile, nearest,
};
use crate::constraint::is_device_class;
use crate::limits;

/// Why a spec is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SpecError {
    /// What it is about, in the words of the job file: `task.command[0]`, `port[1].name`.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// Other keys without whose values nobody knows whether it is wrong.
    pub(super) rests_on: &'static [&'static str],
}

/// The signals that a job may choose to be stopped by.
const SIGNALS: [&str; 13] = [
    "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGPWR",
    "SIGALRM", "SIGABRT", "SIGCONT", "SIGPIPE", "SIGKILL",
];

/// Linux's capabilities: capabilities(7), as of kernel 6.18.
const CAPABILITIES: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// RFC 6335, section 5.1: the longest service name.
const PORT_NAME_CHARS_MAX: usize = 15;
/// What people call an architecture, and what `uname -m` says.
const ARCHITECTURE_NICKNAMES: [(&str, &str); 5] = [
    ("amd64", "x86_64"),
    ("x86-64", "x86_64"),
    ("x64", "x86_64"),
    ("arm64", "aarch64"),
    ("armhf", "armv7l"),
];
/// Longest name of an architecture: utsname(2) has no room for more.
const ARCHITECTURE_CHARS_MAX: usize = 64;
/// Longest name of a user: utmp(5) has no room for more.
const USER_CHARS_MAX: usize = 31;

/// Faults of one spec that are noted: far more than anybody reads, so that those that come first in a file are among them.
const FAULTS_MAX: usize = 256;

impl JobSpec {
    /// Checks everything that the types do not. A spec that passes can be encoded, placed and started
    /// on a suitable node.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything that is wrong, at most one fault for each thing, and at most [`FAULTS_MAX`] in all.
    pub(super) fn faults(&self) -> Vec<SpecError> {
        let mut faults = Faults::default();
        self.check(&mut faults);
        faults.0
    }

    fn check(&self, faults: &mut Faults) {
        self.validate_count(faults);
        self.validate_guarantee(faults);
        faults.in_range("priority", self.priority, limits::PRIORITY_MIN, limits::PRIORITY_MAX);
        self.validate_gang(faults);
        self.validate_ports(faults);
        self.validate_task(faults, &self.task);
        self.validate_resources(faults);
        if let Some(health) = &self.health {
            self.validate_health(faults, health);
        }
        self.validate_placement(faults);
        self.validate_times(faults);
        let bytes = postcard::to_stdvec(self).map_or(usize::MAX, |bytes| bytes.len());
        faults.ensure(bytes <= limits::JOB_FILE_BYTES_MAX, "task.files", || {
            format!(
                "the job has {bytes} bytes in all, {} are allowed: put large files into a package or an image",
                limits::JOB_FILE_BYTES_MAX
            )
        });
    }

    fn validate_count(&self, faults: &mut Faults) {
        if self.kind == JobKind::System {
            faults.ensure_by(&["type"], self.count == 1, "count", || {
                "a system job has one copy on each matching node: leave count out".into()
            });
            return;
        }
        faults.ensure(self.count <= limits::COUNT_MAX, "count", || {
            format!("{} is out of range: at most {} slots", self.count, limits::COUNT_MAX)
        });
    }

    fn validate_guarantee(&self, faults: &mut Faults) {
        if self.guarantee == Guarantee::AtLeast {
            return;
        }
        faults.ensure_by(&["type"], self.kind == JobKind::Service, "guarantee", || {
            "a system job has one copy on each node, so no slot of it ever moves: leave guarantee out"
                .into()
        });
        let few = self.count as usize <= limits::LEASES_MAX;
        faults.ensure_by(&["guarantee"], few, "count", || {
            format!(
                "the voters look after {} leases at most: an at-most-one job cannot have {} slots",
                limits::LEASES_MAX,
                self.count
            )
        });
        faults.ensure_by(
            &["guarantee"],
            self.task.stop_timeout <= limits::LEASE_STOP_MAX,
            "task.stop_timeout",
            || {
                format!(
                    "a successor of an at-most-one allocation waits for its stop: at most {} s",
                    limits::LEASE_STOP_MAX.as_secs()
                )
            },
        );
    }

    fn validate_gang(&self, faults: &mut Faults) {
        if !self.gang {
            return;
        }
        faults.ensure_by(&["type"], self.kind == JobKind::Service, "gang", || {
            "a system job starts on each node by itself: leave gang out".into()
        });
        faults.ensure_by(&["guarantee"], self.guarantee == Guarantee::AtLeast, "gang", || {
            "the slots of a gang start together, those of an at-most-one job when each has its lease: leave one of the two out"
                .into()
        });
        faults.in_range("count", self.count, 0, limits::GANG_SLOTS_MAX);
    }

    fn validate_ports(&self, faults: &mut Faults) {
        if !faults.bounded("port", self.ports.len()) {
            return;
        }
        for (index, port) in self.ports.iter().enumerate() {
            let path = || format!("port[{index}].name");
            let name = port.name.as_bytes();
            let fine = name.first().is_some_and(u8::is_ascii_lowercase)
                && name.len() <= PORT_NAME_CHARS_MAX
                && name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
                && !name.ends_with(b"-");
            faults.ensure(fine, path, || {
                format!(
                    "{:?} is not a port's name: use 1 to {PORT_NAME_CHARS_MAX} of a-z, 0-9 and '-', a letter first",
                    shown(&port.name)
                )
            });
            let earlier = &self.ports[..index];
            faults.ensure(earlier.iter().all(|other| other.name != port.name), path, || {
                format!("there are two ports called {:?}", port.name)
            });
            let path = || format!("port[{index}].static");
            faults.ensure(port.fixed != Some(0), path, || {
                "0 is not a port: leave it out and the node picks one".into()
            });
            let taken =
                port.fixed.is_some() && earlier.iter().any(|other| other.fixed == port.fixed);
            faults.ensure(!taken, path, || "two ports have the same number".into());
        }
    }

    fn validate_task(&self, faults: &mut Faults, task: &Task) {
        if !task.command.is_empty() || task.arch.is_empty() {
            self.validate_command(faults, "task.command", &task.command);
        }
        self.validate_env(faults, "task", &task.env);
        validate_user(faults, "task", task.user.as_deref());
        if let Some(directory) = &task.working_dir {
            faults.absolute("task.working_dir", directory);
        }
        validate_files(faults, "task", &task.files);
        self.validate_arch(faults, task);
        faults.ensure(SIGNALS.contains(&task.stop_signal.as_str()), "task.stop_signal", || {
            let signal = &task.stop_signal;
            let upper = signal.to_uppercase();
            let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
            match nearest(&full, SIGNALS.into_iter()) {
                Some(near) => {
                    format!("there is no signal {:?}: did you mean {near:?}?", shown(signal))
                }
                None => format!("{:?} is none of {}", shown(signal), SIGNALS.join(", ")),
            }
        });
        self.validate_sandbox(faults);
    }

    fn validate_sandbox(&self, faults: &mut Faults) {
        let sandbox = &self.task.sandbox;
        if !faults.bounded("task.sandbox.writable", sandbox.writable.len()) {
            return;
        }
        for (index, path) in sandbox.writable.iter().enumerate() {
            faults.absolute(|| format!("task.sandbox.writable[{index}]"), path);
        }
        if !faults.bounded("task.sandbox.capabilities", sandbox.capabilities.len()) {
            return;
        }
        for (index, capability) in sandbox.capabilities.iter().enumerate() {
            let path = || format!("task.sandbox.capabilities[{index}]");
            faults.ensure(CAPABILITIES.contains(&capability.as_str()), path, || {
                let upper = capability.to_uppercase();
                let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
                let capability = shown(capability);
                match nearest(&full, CAPABILITIES.into_iter()) {
                    Some(near) => {
                        format!("there is no capability {capability:?}: did you mean {near:?}?")
                    }
                    None => format!(
                        "there is no capability {capability:?}: they are called CAP_NET_BIND_SERVICE and so on"
                    ),
                }
            });
        }
        if !faults.bounded("task.sandbox.syscalls", sandbox.syscalls.len()) {
            return;
        }
        for (index, syscall) in sandbox.syscalls.iter().enumerate() {
            let name = syscall.strip_prefix('@').unwrap_or(syscall).as_bytes();
            let fine = (1..=64).contains(&name.len())
                && name
                    .iter()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(b));
            faults.ensure(
                fine,
                || format!("task.sandbox.syscalls[{index}]"),
                || {
                    format!(
                        "{:?} is not a system call (\"openat\") or a group of them (\"@system-service\")",
                        shown(syscall)
                    )
                },
            );
        }
        faults.in_range("task.sandbox.tasks_max", sandbox.tasks_max, 1, limits::TASKS_MAX);
    }

    fn validate_arch(&self, faults: &mut Faults, task: &Task) {
        if !faults.bounded("task.arch", task.arch.len()) {
            return;
        }
        for (arch, variant) in &task.arch {
            let at = format!("task.arch.{}", shown(arch));
            if let Some((_, right)) = ARCHITECTURE_NICKNAMES.iter().find(|(name, _)| name == arch) {
                faults.ensure(false, at.as_str(), || format!("the kernel calls it {right:?}"));
                continue;
            }
            let fine = (1..=ARCHITECTURE_CHARS_MAX).contains(&arch.len())
                && arch.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            faults.ensure(fine, at.as_str(), || {
                "is not an architecture: write what `uname -m` says there, as in x86_64 or aarch64"
                    .into()
            });
            let command = format!("{at}.command");
            faults.ensure_by(
                &["task.command"],
                !task.command.is_empty() || !variant.command.is_empty(),
                command.as_str(),
                || "is missing, and task.command too: name a program in one of them".into(),
            );
            if !variant.command.is_empty() {
                self.validate_command(faults, &command, &variant.command);
            }
            self.validate_env(faults, &at, &variant.env);
            validate_user(faults, &at, variant.user.as_deref());
            if let Some(directory) = &variant.working_dir {
                faults.absolute(|| format!("{at}.working_dir"), directory);
            }
            validate_files(faults, &at, &variant.files);
        }
    }

    fn validate_env(&self, faults: &mut Faults, at: &str, env: &BTreeMap<String, String>) {
        if !faults.bounded(&format!("{at}.env"), env.len()) {
            return;
        }
        for (name, value) in env {
            let path = || format!("{at}.env.{}", shown(name));
            let mut bytes = name.bytes();
            let fine = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
            faults.ensure(fine, path, || {
                "not the name of a variable: use letters, digits and '_', a letter first".into()
            });
            faults.ensure(!name.starts_with("WEFT_"), path, || {
                "names that begin with WEFT_ are set by weft itself".into()
            });
            self.validate_text(faults, path, value);
        }
    }

    fn validate_resources(&self, faults: &mut Faults) {
        let resources = &self.resources;
        match resources.cpu {
            CpuRequest::Shared { millis, .. } => {
                let most = limits::CPUS_MAX as u32 * 1000;
                faults.ensure((1..=most).contains(&millis), "resources.cpu", || {
                    format!("out of range: 0.001 to {} CPUs", limits::CPUS_MAX)
                });
            }
            CpuRequest::Exclusive { cores, .. } => {
                faults.in_range("resources.cores", cores, 1, limits::CPUS_MAX as u16);
            }
        }
        let (least, most) = (limits::JOB_MEMORY_BYTES_MIN, limits::JOB_MEMORY_BYTES_MAX);
        faults.ensure((least..=most).contains(&resources.memory), "resources.memory", || {
            let bytes = crate::resources::bytes;
            format!(
                "{} is out of range: {} to {}",
                bytes(resources.memory),
                bytes(least),
                bytes(most)
            )
        });
        faults.ensure(resources.swap <= most, "resources.swap", || {
            format!("out of range: at most {}", crate::resources::bytes(most))
        });
        let most = limits::JOB_DISK_BYTES_MAX;
        faults.ensure(resources.disk <= most, "resources.disk", || {
            let bytes = crate::resources::bytes;
            format!("{} is out of range: at most {}", bytes(resources.disk), bytes(most))
        });
        if !faults.bounded("resources.hugepages", resources.hugepages.len()) {
            return;
        }
        for (size_kib, count) in &resources.hugepages {
            let path = || "resources.hugepages".to_owned();
            let known = size_kib.is_power_of_two() && (64..=16 << 20).contains(size_kib);
            faults.ensure(known, path, || {
                format!(
                    "{} is not the size of a huge page: processors have powers of two from 64KiB to 16GiB, most of them 2MiB and 1GiB",
                    crate::resources::bytes(u64::from(*size_kib) * 1024)
                )
            });
            faults.in_range(path, *count, 1, limits::HUGEPAGES_MAX);
        }
        if !faults.bounded("resources.devices", resources.devices.len()) {
            return;
        }
        for (index, device) in resources.devices.iter().enumerate() {
            let path = || format!("resources.devices[{index}]");
            faults.ensure(is_device_request(device), path, || {
                format!(
                    "{:?} is not a device: write a class (\"gpu\"), a bus identity (\"usb:1a86:7523\", lower case) or a path (\"/dev/ttyUSB0\")",
                    shown(device)
                )
            });
            let twice = device.starts_with('/') && resources.devices[..index].contains(device);
            faults.ensure(!twice, path, || "is there twice, and there is only one".into());
        }
    }

    fn validate_health(&self, faults: &mut Faults, health: &Health) {
        match &health.check {
            Check::Http { path, port } => {
                let fine = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
                faults.ensure(fine && path.len() <= 2048, "health.http", || {
                    format!(
                        "{:?} is not a path: write it like \"/health\", without spaces",
                        shown(path)
                    )
                });
                self.validate_checked_port(faults, port);
            }
            Check::Tcp { port } => self.validate_checked_port(faults, port),
            // Also what a check is taken for that could not be read.
            Check::Command { command } if command.is_empty() => {
                faults.ensure_by(&["health.http", "health.tcp"], false, "health.command", || {
                    "is empty: name a program".into()
                });
            }
            Check::Command { command } => self.validate_command(faults, "health.command", command),
        }
        faults.in_range("health.failures", health.failures, 1, limits::FAILURES_MAX);
    }

    fn validate_checked_port(&self, faults: &mut Faults, port: &str) {
        faults.ensure_by(&["port"], self.port(port).is_some(), "health.port", || {
            let near = nearest(port, self.ports.iter().map(|port| port.name.as_str()));
            let hint = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add [[port]] with that name".into(),
            };
            format!("the job has no port {:?}: {hint}", shown(port))
        });
    }

    fn validate_placement(&self, faults: &mut Faults) {
        let placement = &self.placement;
        if !faults.bounded("placement.constraints", placement.constraints.len()) {
            return;
        }
        if !faults.bounded("placement.affinity", placement.affinity.len()) {
            return;
        }
        for (index, affinity) in placement.affinity.iter().enumerate() {
            let path = || format!("placement.affinity[{index}].weight");
            faults.in_range(path, affinity.weight, -Affinity::WEIGHT_MAX, Affinity::WEIGHT_MAX);
        }
        if !faults.bounded("placement.anti_affinity", placement.anti_affinity.len()) {
            return;
        }
        let levels = &placement.spread;
        let fits =
            faults.ensure(levels.len() <= limits::SPREAD_LEVELS_MAX, "placement.spread", || {
                format!("has {} levels, {} are allowed", levels.len(), limits::SPREAD_LEVELS_MAX)
            });
        if !fits {
            return;
        }
        for (index, level) in levels.iter().enumerate() {
            faults.ensure(
                !levels[..index].contains(level),
                || format!("placement.spread[{index}]"),
                || {
                    format!(
                        "{level} is there twice: within one value of it there is nothing to spread"
                    )
                },
            );
        }
        if self.kind == JobKind::System {
            for (path, is_there) in
                [("placement.spread", !levels.is_empty()), ("placement.sticky", placement.sticky)]
            {
                faults.ensure_by(&["type"], !is_there, path, || {
                    "a system job runs on every node that matches: leave it out".into()
                });
            }
        }
    }

    fn validate_times(&self, faults: &mut Faults) {
        let (update, restart) = (&self.update, &self.restart);
        let longest = Duration::from_secs(limits::JOB_DURATION_SECONDS_MAX);
        let mut all = vec![
            ("task.stop_timeout", self.task.stop_timeout),
            ("update.min_healthy", update.min_healthy),
            ("update.deadline", update.deadline),
            ("restart.within", restart.within),
            ("restart.delay", restart.delay),
        ];
        if let Some(health) = &self.health {
            let positive = faults.positive("health.interval", health.interval);
            // Without one of its own it is no longer than the interval.
            if positive {
                faults.positive("health.timeout", health.timeout);
                let (timeout, interval) = (health.timeout, health.interval);
                faults.ensure_by(&["health.interval"], timeout <= interval, "health.timeout", || {
                    let [timeout, interval] = [timeout, interval].map(super::duration::display);
                    format!(
                        "{timeout} is longer than health.interval ({interval}), and a check has to be over before the next one: write {interval} at most, or a longer interval"
                    )
                });
            }
            all.extend([
                ("health.interval", health.interval),
                ("health.timeout", health.timeout),
                ("health.grace", health.grace),
            ]);
        }
        for (path, duration) in all {
            faults.ensure(duration <= longest, path, || "is more than ten years".into());
        }
        faults.positive("task.stop_timeout", self.task.stop_timeout);
        faults.in_range("update.max_parallel", update.max_parallel, 1, limits::COUNT_MAX);
        let ends = update.min_healthy < update.deadline;
        faults.ensure_by(&["update.deadline"], ends, "update.min_healthy", || {
            format!(
                "must be less than update.deadline ({}), or no update ever succeeds",
                super::duration::display(update.deadline)
            )
        });
        faults.in_range("restart.attempts", restart.attempts, 0, limits::FAILURES_MAX);
        faults.positive("restart.within", restart.within);
        let (least, most) = (limits::ENDED_KEEP_MIN, limits::ENDED_KEEP_MAX);
        faults.ensure((least..=most).contains(&self.keep.ended), "keep.ended", || {
            "is not between a minute and thirty days".into()
        });
    }

    fn validate_command(&self, faults: &mut Faults, path: &str, command: &[String]) {
        if !faults.bounded(path, command.len()) {
            return;
        }
        if !faults.ensure(!command.is_empty(), path, || "is empty: name a program".into()) {
            return;
        }
        for (index, text) in command.iter().enumerate() {
            self.validate_text(faults, || format!("{path}[{index}]"), text);
        }
        faults.ensure(
            is_normal(&command[0]),
            || format!("{path}[0]"),
            || {
                format!(
                    "{:?} is not an absolute path: write where the nodes have it, as in \"/usr/bin/python3\"",
                    shown(&command[0])
                )
            },
        );
    }

    /// A text with placeholders.
    fn validate_text(&self, faults: &mut Faults, path: impl Path, text: &str) {
        let nul = text.contains('\0');
        if !faults.ensure(!nul, || path.text(), || "contains a NUL character".into()) {
            return;
        }
        let ports = self.ports.iter().map(|port| port.name.as_str());
        if let Err(error) = placeholder::check(text, ports) {
            faults.ensure_by(&["port"], false, path, || error.to_string());
        }
    }
}

fn validate_user(faults: &mut Faults, at: &str, user: Option<&str>) {
    let Some(user) = user else { return };
    let mut bytes = user.bytes();
    let named = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && user.len() <= USER_CHARS_MAX;
    faults.ensure(
        named || user.parse::<u32>().is_ok(),
        || format!("{at}.user"),
        || format!("{:?} is neither the name of a user nor a number", shown(user)),
    );
}

fn validate_files(faults: &mut Faults, at: &str, files: &[TaskFile]) {
    if !faults.bounded(&format!("{at}.files"), files.len()) {
        return;
    }
    for (index, file) in files.iter().enumerate() {
        let path = || format!("{at}.files[{index}].path");
        faults.absolute(path, &file.path);
        faults.ensure(!file.path.ends_with('/'), path, || {
            "names a directory: add a file name".into()
        });
        let twice = files[..index].iter().any(|other| other.path == file.path);
        faults.ensure(!twice, path, || format!("{} is there twice", shown(&file.path)));
    }
}

/// A path that is written out only when there is something to say about it.
trait Path {
    fn text(&self) -> String;
}

impl Path for &str {
    fn text(&self) -> String {
        (*self).into()
    }
}

impl<F: Fn() -> String> Path for F {
    fn text(&self) -> String {
        self()
    }
}

/// What was found to be wrong so far.
#[derive(Default)]
struct Faults(Vec<SpecError>);

impl Faults {
    /// Whether it holds. Of one thing only the first fault is kept: the others may be its consequences.
    fn ensure(&mut self, holds: bool, path: impl Path, message: impl FnOnce() -> String) -> bool {
        self.ensure_by(&[], holds, path, message)
    }

    /// The same of what is judged by the values of other keys.
    fn ensure_by(
        &mut self,
        rests_on: &'static [&'static str],
        holds: bool,
        path: impl Path,
        message: impl FnOnce() -> String,
    ) -> bool {
        if !holds && self.0.len() < FAULTS_MAX {
            let path = path.text();
            if self.0.iter().all(|fault| fault.path != path) {
                self.0.push(SpecError { path, message: message(), rests_on });
            }
        }
        holds
    }

    /// What is too long is not looked at any further.
    fn bounded(&mut self, path: &str, items: usize) -> bool {
        self.ensure(items <= limits::JOB_LIST_MAX, path, || {
            format!("has {items} items, {} are allowed", limits::JOB_LIST_MAX)
        })
    }

    fn in_range<T: PartialOrd + std::fmt::Display>(
        &mut self,
        path: impl Path,
        number: T,
        least: T,
        most: T,
    ) -> bool {
        self.ensure((&least..=&most).contains(&&number), path, || {
            format!("{number} is out of range: {least} to {most}")
        })
    }

    fn positive(&mut self, path: &str, duration: Duration) -> bool {
        self.ensure(!duration.is_zero(), path, || "must be more than 0s".into())
    }

    fn absolute(&mut self, path: impl Path, value: &str) -> bool {
        self.ensure(is_normal(value), path, || {
            format!(
                "{:?} is not an absolute path: write it from / on, without '..' and control characters",
                shown(value)
            )
        })
    }
}

/// Absolute, without `..`, and short enough for the kernel (PATH_MAX).
fn is_normal(path: &str) -> bool {
    path.starts_with('/')
        && path.len() < 4096
        && path.split('/').all(|part| part != ".." && part != ".")
        && !path.chars().any(char::is_control)
}

fn is_device_request(device: &str) -> bool {
    if let Some(rest) = device.strip_prefix("/dev/") {
        return !rest.is_empty() && is_normal(device);
    }
    let hex = |text: &str| {
        text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let mut parts = device.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("usb" | "pci"), Some(vendor), Some(product), None) => hex(vendor) && hex(product),
        (Some(class), None, None, None) => is_device_class(class),
        _ => false,
    }
}

/// What a message shows of a text that may be long.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
