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

type Checked = Result<(), SpecError>;

impl JobSpec {
    /// Checks everything that the types do not. A spec that passes can be encoded, placed and started
    /// on a suitable node.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.validate_count()?;
        self.validate_guarantee()?;
        in_range("priority", self.priority, limits::PRIORITY_MIN, limits::PRIORITY_MAX)?;
        self.validate_gang()?;
        self.validate_ports()?;
        self.validate_task(&self.task)?;
        self.validate_resources()?;
        if let Some(health) = &self.health {
            self.validate_health(health)?;
        }
        self.validate_placement()?;
        self.validate_times()?;
        let bytes = postcard::to_stdvec(self).map_or(usize::MAX, |bytes| bytes.len());
        ensure(bytes <= limits::JOB_FILE_BYTES_MAX, "task.files", || {
            format!(
                "the job has {bytes} bytes in all, {} are allowed: put large files into a package or an image",
                limits::JOB_FILE_BYTES_MAX
            )
        })
    }

    fn validate_count(&self) -> Checked {
        if self.kind == JobKind::System {
            return ensure(self.count == 1, "count", || {
                "a system job has one copy on each matching node: leave count out".into()
            });
        }
        ensure(self.count <= limits::COUNT_MAX, "count", || {
            format!("{} is out of range: at most {} slots", self.count, limits::COUNT_MAX)
        })
    }

    fn validate_guarantee(&self) -> Checked {
        if self.guarantee == Guarantee::AtLeast {
            return Ok(());
        }
        ensure(self.kind == JobKind::Service, "guarantee", || {
            "a system job has one copy on each node, so no slot of it ever moves: leave guarantee out"
                .into()
        })?;
        ensure(self.count as usize <= limits::LEASES_MAX, "count", || {
            format!(
                "the voters look after {} leases at most: an at-most-one job cannot have {} slots",
                limits::LEASES_MAX,
                self.count
            )
        })?;
        ensure(self.task.stop_timeout <= limits::LEASE_STOP_MAX, "task.stop_timeout", || {
            format!(
                "a successor of an at-most-one allocation waits for its stop: at most {} s",
                limits::LEASE_STOP_MAX.as_secs()
            )
        })
    }

    fn validate_gang(&self) -> Checked {
        if !self.gang {
            return Ok(());
        }
        ensure(self.kind == JobKind::Service, "gang", || {
            "a system job starts on each node by itself: leave gang out".into()
        })?;
        ensure(self.guarantee == Guarantee::AtLeast, "gang", || {
            "the slots of a gang start together, those of an at-most-one job when each has its lease: leave one of the two out"
                .into()
        })?;
        in_range("count", self.count, 0, limits::GANG_SLOTS_MAX)
    }

    fn validate_ports(&self) -> Checked {
        bounded("port", self.ports.len())?;
        for (index, port) in self.ports.iter().enumerate() {
            let path = || format!("port[{index}].name");
            let name = port.name.as_bytes();
            let fine = name.first().is_some_and(u8::is_ascii_lowercase)
                && name.len() <= PORT_NAME_CHARS_MAX
                && name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
                && !name.ends_with(b"-");
            ensure(fine, path, || {
                format!(
                    "{:?} is not a port's name: use 1 to {PORT_NAME_CHARS_MAX} of a-z, 0-9 and '-', a letter first",
                    shown(&port.name)
                )
            })?;
            let earlier = &self.ports[..index];
            ensure(earlier.iter().all(|other| other.name != port.name), path, || {
                format!("there are two ports called {:?}", port.name)
            })?;
            let path = || format!("port[{index}].static");
            ensure(port.fixed != Some(0), path, || {
                "0 is not a port: leave it out and the node picks one".into()
            })?;
            let taken =
                port.fixed.is_some() && earlier.iter().any(|other| other.fixed == port.fixed);
            ensure(!taken, path, || "two ports have the same number".into())?;
        }
        Ok(())
    }

    fn validate_task(&self, task: &Task) -> Checked {
        if !task.command.is_empty() || task.arch.is_empty() {
            self.validate_command("task.command", &task.command)?;
        }
        self.validate_env("task", &task.env)?;
        validate_user("task", task.user.as_deref())?;
        if let Some(directory) = &task.working_dir {
            absolute("task.working_dir", directory)?;
        }
        validate_files("task", &task.files)?;
        self.validate_arch(task)?;
        ensure(SIGNALS.contains(&task.stop_signal.as_str()), "task.stop_signal", || {
            let signal = &task.stop_signal;
            let upper = signal.to_uppercase();
            let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
            match nearest(&full, SIGNALS.into_iter()) {
                Some(near) => {
                    format!("there is no signal {:?}: did you mean {near:?}?", shown(signal))
                }
                None => format!("{:?} is none of {}", shown(signal), SIGNALS.join(", ")),
            }
        })?;
        self.validate_sandbox()
    }

    fn validate_sandbox(&self) -> Checked {
        let sandbox = &self.task.sandbox;
        bounded("task.sandbox.writable", sandbox.writable.len())?;
        for (index, path) in sandbox.writable.iter().enumerate() {
            absolute(|| format!("task.sandbox.writable[{index}]"), path)?;
        }
        bounded("task.sandbox.capabilities", sandbox.capabilities.len())?;
        for (index, capability) in sandbox.capabilities.iter().enumerate() {
            let path = || format!("task.sandbox.capabilities[{index}]");
            ensure(CAPABILITIES.contains(&capability.as_str()), path, || {
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
            })?;
        }
        bounded("task.sandbox.syscalls", sandbox.syscalls.len())?;
        for (index, syscall) in sandbox.syscalls.iter().enumerate() {
            let name = syscall.strip_prefix('@').unwrap_or(syscall).as_bytes();
            let fine = (1..=64).contains(&name.len())
                && name
                    .iter()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(b));
            ensure(
                fine,
                || format!("task.sandbox.syscalls[{index}]"),
                || {
                    format!(
                        "{:?} is not a system call (\"openat\") or a group of them (\"@system-service\")",
                        shown(syscall)
                    )
                },
            )?;
        }
        in_range("task.sandbox.tasks_max", sandbox.tasks_max, 1, limits::TASKS_MAX)
    }

    fn validate_arch(&self, task: &Task) -> Checked {
        bounded("task.arch", task.arch.len())?;
        for (arch, variant) in &task.arch {
            let at = format!("task.arch.{}", shown(arch));
            if let Some((_, right)) = ARCHITECTURE_NICKNAMES.iter().find(|(name, _)| name == arch) {
                return ensure(false, at.as_str(), || format!("the kernel calls it {right:?}"));
            }
            let fine = (1..=ARCHITECTURE_CHARS_MAX).contains(&arch.len())
                && arch.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            ensure(fine, at.as_str(), || {
                "is not an architecture: write what `uname -m` says there, as in x86_64 or aarch64"
                    .into()
            })?;
            let command = format!("{at}.command");
            ensure(
                !task.command.is_empty() || !variant.command.is_empty(),
                command.as_str(),
                || "is missing, and task.command too: name a program in one of them".into(),
            )?;
            if !variant.command.is_empty() {
                self.validate_command(&command, &variant.command)?;
            }
            self.validate_env(&at, &variant.env)?;
            validate_user(&at, variant.user.as_deref())?;
            if let Some(directory) = &variant.working_dir {
                absolute(|| format!("{at}.working_dir"), directory)?;
            }
            validate_files(&at, &variant.files)?;
        }
        Ok(())
    }

    fn validate_env(&self, at: &str, env: &BTreeMap<String, String>) -> Checked {
        bounded(&format!("{at}.env"), env.len())?;
        for (name, value) in env {
            let path = || format!("{at}.env.{}", shown(name));
            let mut bytes = name.bytes();
            let fine = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
            ensure(fine, path, || {
                "not the name of a variable: use letters, digits and '_', a letter first".into()
            })?;
            ensure(!name.starts_with("WEFT_"), path, || {
                "names that begin with WEFT_ are set by weft itself".into()
            })?;
            self.validate_text(path, value)?;
        }
        Ok(())
    }

    fn validate_resources(&self) -> Checked {
        let resources = &self.resources;
        match resources.cpu {
            CpuRequest::Shared { millis, .. } => {
                let most = limits::CPUS_MAX as u32 * 1000;
                ensure((1..=most).contains(&millis), "resources.cpu", || {
                    format!("out of range: 0.001 to {} CPUs", limits::CPUS_MAX)
                })?;
            }
            CpuRequest::Exclusive { cores, .. } => {
                in_range("resources.cores", cores, 1, limits::CPUS_MAX as u16)?;
            }
        }
        let (least, most) = (limits::JOB_MEMORY_BYTES_MIN, limits::JOB_MEMORY_BYTES_MAX);
        ensure((least..=most).contains(&resources.memory), "resources.memory", || {
            let bytes = crate::resources::bytes;
            format!(
                "{} is out of range: {} to {}",
                bytes(resources.memory),
                bytes(least),
                bytes(most)
            )
        })?;
        ensure(resources.swap <= most, "resources.swap", || {
            format!("out of range: at most {}", crate::resources::bytes(most))
        })?;
        let most = limits::JOB_DISK_BYTES_MAX;
        ensure(resources.disk <= most, "resources.disk", || {
            let bytes = crate::resources::bytes;
            format!("{} is out of range: at most {}", bytes(resources.disk), bytes(most))
        })?;
        bounded("resources.hugepages", resources.hugepages.len())?;
        for (size_kib, count) in &resources.hugepages {
            let path = || "resources.hugepages".to_owned();
            let known = size_kib.is_power_of_two() && (64..=16 << 20).contains(size_kib);
            ensure(known, path, || {
                format!(
                    "{} is not the size of a huge page: processors have powers of two from 64KiB to 16GiB, most of them 2MiB and 1GiB",
                    crate::resources::bytes(u64::from(*size_kib) * 1024)
                )
            })?;
            in_range(path, *count, 1, limits::HUGEPAGES_MAX)?;
        }
        bounded("resources.devices", resources.devices.len())?;
        for (index, device) in resources.devices.iter().enumerate() {
            let path = || format!("resources.devices[{index}]");
            ensure(is_device_request(device), path, || {
                format!(
                    "{:?} is not a device: write a class (\"gpu\"), a bus identity (\"usb:1a86:7523\", lower case) or a path (\"/dev/ttyUSB0\")",
                    shown(device)
                )
            })?;
            let twice = device.starts_with('/') && resources.devices[..index].contains(device);
            ensure(!twice, path, || "is there twice, and there is only one".into())?;
        }
        Ok(())
    }

    fn validate_health(&self, health: &Health) -> Checked {
        match &health.check {
            Check::Http { path, port } => {
                let fine = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
                ensure(fine && path.len() <= 2048, "health.http", || {
                    format!(
                        "{:?} is not a path: write it like \"/health\", without spaces",
                        shown(path)
                    )
                })?;
                self.validate_checked_port(port)?;
            }
            Check::Tcp { port } => self.validate_checked_port(port)?,
            Check::Command { command } => self.validate_command("health.command", command)?,
        }
        in_range("health.failures", health.failures, 1, limits::FAILURES_MAX)
    }

    fn validate_checked_port(&self, port: &str) -> Checked {
        ensure(self.port(port).is_some(), "health.port", || {
            let near = nearest(port, self.ports.iter().map(|port| port.name.as_str()));
            let hint = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add [[port]] with that name".into(),
            };
            format!("the job has no port {:?}: {hint}", shown(port))
        })
    }

    fn validate_placement(&self) -> Checked {
        let placement = &self.placement;
        bounded("placement.constraints", placement.constraints.len())?;
        bounded("placement.affinity", placement.affinity.len())?;
        for (index, affinity) in placement.affinity.iter().enumerate() {
            let path = || format!("placement.affinity[{index}].weight");
            in_range(path, affinity.weight, -Affinity::WEIGHT_MAX, Affinity::WEIGHT_MAX)?;
        }
        bounded("placement.anti_affinity", placement.anti_affinity.len())?;
        let levels = &placement.spread;
        ensure(levels.len() <= limits::SPREAD_LEVELS_MAX, "placement.spread", || {
            format!("has {} levels, {} are allowed", levels.len(), limits::SPREAD_LEVELS_MAX)
        })?;
        for (index, level) in levels.iter().enumerate() {
            ensure(
                !levels[..index].contains(level),
                || format!("placement.spread[{index}]"),
                || {
                    format!(
                        "{level} is there twice: within one value of it there is nothing to spread"
                    )
                },
            )?;
        }
        if self.kind == JobKind::System {
            for (path, is_there) in
                [("placement.spread", !levels.is_empty()), ("placement.sticky", placement.sticky)]
            {
                ensure(!is_there, path, || {
                    "a system job runs on every node that matches: leave it out".into()
                })?;
            }
        }
        Ok(())
    }

    fn validate_times(&self) -> Checked {
        let positive = |path: &str, duration: Duration| {
            ensure(!duration.is_zero(), path, || "must be more than 0s".into())
        };
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
            positive("health.interval", health.interval)?;
            positive("health.timeout", health.timeout)?;
            ensure(health.timeout <= health.interval, "health.timeout", || {
                let (timeout, interval) = (health.timeout, health.interval);
                let [timeout, interval] = [timeout, interval].map(super::duration::display);
                format!(
                    "{timeout} is longer than health.interval ({interval}), and a check has to be over before the next one: write {interval} at most, or a longer interval"
                )
            })?;
            all.extend([
                ("health.interval", health.interval),
                ("health.timeout", health.timeout),
                ("health.grace", health.grace),
            ]);
        }
        for (path, duration) in all {
            ensure(duration <= longest, path, || "is more than ten years".into())?;
        }
        positive("task.stop_timeout", self.task.stop_timeout)?;
        in_range("update.max_parallel", update.max_parallel, 1, limits::COUNT_MAX)?;
        ensure(update.min_healthy < update.deadline, "update.min_healthy", || {
            format!(
                "must be less than update.deadline ({}), or no update ever succeeds",
                super::duration::display(update.deadline)
            )
        })?;
        in_range("restart.attempts", restart.attempts, 0, limits::FAILURES_MAX)?;
        positive("restart.within", restart.within)?;
        let (least, most) = (limits::ENDED_KEEP_MIN, limits::ENDED_KEEP_MAX);
        ensure((least..=most).contains(&self.keep.ended), "keep.ended", || {
            "is not between a minute and thirty days".into()
        })
    }

    fn validate_command(&self, path: &str, command: &[String]) -> Checked {
        bounded(path, command.len())?;
        ensure(!command.is_empty(), path, || "is empty: name a program".into())?;
        for (index, text) in command.iter().enumerate() {
            self.validate_text(|| format!("{path}[{index}]"), text)?;
        }
        ensure(
            is_normal(&command[0]),
            || format!("{path}[0]"),
            || {
                format!(
                    "{:?} is not an absolute path: write where the nodes have it, as in \"/usr/bin/python3\"",
                    shown(&command[0])
                )
            },
        )
    }

    /// A text with placeholders.
    fn validate_text(&self, path: impl Path, text: &str) -> Checked {
        if text.contains('\0') {
            return Err(SpecError {
                path: path.text(),
                message: "contains a NUL character".into(),
            });
        }
        let ports = self.ports.iter().map(|port| port.name.as_str());
        placeholder::check(text, ports)
            .map_err(|error| SpecError { path: path.text(), message: error.to_string() })
    }
}

fn validate_user(at: &str, user: Option<&str>) -> Checked {
    let Some(user) = user else { return Ok(()) };
    let mut bytes = user.bytes();
    let named = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && user.len() <= USER_CHARS_MAX;
    ensure(
        named || user.parse::<u32>().is_ok(),
        || format!("{at}.user"),
        || format!("{:?} is neither the name of a user nor a number", shown(user)),
    )
}

fn validate_files(at: &str, files: &[TaskFile]) -> Checked {
    bounded(&format!("{at}.files"), files.len())?;
    for (index, file) in files.iter().enumerate() {
        let path = || format!("{at}.files[{index}].path");
        absolute(path, &file.path)?;
        ensure(!file.path.ends_with('/'), path, || "names a directory: add a file name".into())?;
        let twice = files[..index].iter().any(|other| other.path == file.path);
        ensure(!twice, path, || format!("{} is there twice", shown(&file.path)))?;
    }
    Ok(())
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

fn ensure(holds: bool, path: impl Path, message: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(SpecError { path: path.text(), message: message() }) }
}

fn bounded(path: &str, items: usize) -> Checked {
    ensure(items <= limits::JOB_LIST_MAX, path, || {
        format!("has {items} items, {} are allowed", limits::JOB_LIST_MAX)
    })
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    path: impl Path,
    number: T,
    least: T,
    most: T,
) -> Checked {
    ensure((&least..=&most).contains(&&number), path, || {
        format!("{number} is out of range: {least} to {most}")
    })
}

fn absolute(path: impl Path, value: &str) -> Checked {
    ensure(is_normal(value), path, || {
        format!(
            "{:?} is not an absolute path: write it from / on, without '..' and control characters",
            shown(value)
        )
    })
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
