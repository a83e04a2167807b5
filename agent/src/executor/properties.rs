//! What systemd is asked to do with a unit: the properties of its transient service.

use fabric::cpuset::CpuSet;
use fabric::io::Launch;
use fabric::topology::Enforced;
use helper::order::Verb;
use nix::libc;
use rustix::thread::CapabilitySet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use zbus::{Fd, Variant};

use super::output::Channel;
use super::sandbox;
use crate::process;

/// One property of a unit.
#[derive(Debug)]
pub struct Property {
    /// As `systemctl show` writes it.
    pub name: &'static str,
    /// Its value.
    pub value: Variant<'static>,
    /// A unit without it is not what was asked for. The others are refinements of the sandbox, left
    /// out where this systemd is too old for them.
    pub required: bool,
}

/// Everything about a unit that is not in its launch.
#[derive(Debug)]
pub struct Surroundings {
    /// Where its output goes.
    pub folder: PathBuf,
    /// Files: where they are, where the task sees them.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Names the agent, so that another one on this machine does not adopt its units.
    pub agent: String,
    /// The limits that hold here.
    pub enforced: Enforced,
    /// What systemd executes, which becomes the task: [`exec::command`](super::exec::command).
    pub command: Vec<String>,
    /// Where that finds the words of the task.
    pub words: PathBuf,
    /// Bytes of its standard error before this start.
    pub said: u64,
}

/// Where a task finds the program that becomes it, if its sandbox hides the place where that is.
pub const PROGRAM_HERE: &str = "/run/weft-exec";

/// Whether a task's sandbox hides a program from it.
pub fn hides(task: &fabric::job::Task, program: &Path) -> bool {
    let sandbox = &task.sandbox;
    let homes = ["/home", "/root", "/run/user"].iter().filter(|_| !sandbox.home);
    let hidden = homes.chain(["/tmp", "/var/tmp"].iter());
    sandbox.enabled && hidden.into_iter().any(|folder| program.starts_with(folder))
}

/// Where on the machine something is mounted for a task; not where its sandbox has folders of its own.
pub fn mount_points(
    task: &fabric::job::Task,
    files: &[(PathBuf, PathBuf)],
    program: &Path,
) -> Vec<PathBuf> {
    let files = files.iter().map(|(_, seen)| seen.clone()).filter(|seen| !hides(task, seen));
    let own = hides(task, program).then(|| PathBuf::from(PROGRAM_HERE));
    files.chain(own).collect()
}

/// Whether systemd reads a path back from a unit's file as it was given over D-Bus: in the list of mounts it is not quoted.
pub fn is_read_back(path: &Path) -> bool {
    let odd = |byte: &u8| byte.is_ascii_whitespace() || b":\"'\\".contains(byte);
    !path.as_os_str().as_encoded_bytes().iter().any(odd)
}

/// All properties of a unit, in an order that reads well.
pub fn of(launch: &Launch, around: &Surroundings) -> Result<Vec<Property>, String> {
    let mut list = List(Vec::new());
    command(&mut list, launch, around)?;
    lifetime(&mut list, launch);
    pins(&mut list, launch, around.enforced);
    limits(&mut list, launch, around.enforced);
    access(&mut list, launch, around)?;
    if launch.task.sandbox.enabled {
        closed(&mut list, launch)?;
    }
    Ok(list.0)
}

struct List(Vec<Property>);

impl List {
    fn must(&mut self, name: &'static str, value: impl Into<Variant<'static>>) {
        self.0.push(Property { name, value: value.into(), required: true });
    }

    fn may(&mut self, name: &'static str, value: impl Into<Variant<'static>>) {
        self.0.push(Property { name, value: value.into(), required: false });
    }
}

fn text(path: &Path) -> Result<String, String> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not UTF-8", path.display()))
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

/// Variables of a task that are in its unit's properties, too: the next agent and people find the run by them. All
/// others are only in its words, which nobody else can read.
const SHOWN: [&str; 6] =
    ["WEFT_JOB", "WEFT_SLOT", "WEFT_EPOCH", "WEFT_RUN", "WEFT_NODE", "WEFT_UNIT"];

fn command(list: &mut List, launch: &Launch, around: &Surroundings) -> Result<(), String> {
    let task = &launch.task;
    let program = around.command.first().ok_or("the command is empty")?;
    list.must("Description", format!("weft allocation {}, run {}", launch.alloc, launch.run));
    list.must("Slice", "weft.slice".to_owned());
    list.must("Type", "exec".to_owned());
    let executed = if hides(task, Path::new(program)) { PROGRAM_HERE } else { program };
    let mut words = around.command.clone();
    words[0] = executed.to_owned();
    list.must("ExecStart", vec![(executed.to_owned(), words, false)]);
    list.must("StandardInputFile", text(&around.words)?);
    let all = super::environment(launch);
    let shown = all.into_iter().filter(|(key, _)| SHOWN.contains(&key.as_str()));
    let shown = shown.chain([("WEFT_AGENT".to_owned(), around.agent.clone())]);
    let environment: Vec<String> = shown.map(|(key, value)| format!("{key}={value}")).collect();
    list.must("Environment", environment);
    if let Some(folder) = &task.working_dir {
        list.must("WorkingDirectory", folder.clone());
    }
    list.must("StandardOutputFileToAppend", text(&Channel::Stdout.path(&around.folder))?);
    list.must("StandardErrorFileToAppend", text(&Channel::Stderr.path(&around.folder))?);
    list.may("UMask", 0o022u32);
    Ok(())
}

/// The service of the guard: beside the agent's and the units', and there as long as it has something to
/// guard.
pub fn of_guard(command: Vec<String>, environment: Vec<String>) -> Result<Vec<Property>, String> {
    let mut list = List(Vec::new());
    let program = command.first().ok_or("the command is empty")?.clone();
    list.must("Description", "weft guard: ends units whose lease has run out".to_owned());
    list.must("Slice", "weft.slice".to_owned());
    list.must("Type", "exec".to_owned());
    list.must("ExecStart", vec![(program, command, false)]);
    list.must("Environment", environment);
    // It ends well when no lease is left. Whatever else ends it, it comes back.
    list.must("Restart", "always".to_owned());
    list.must("RestartPreventExitStatus", (vec![0i32], Vec::<i32>::new()));
    list.must("RestartUSec", 100_000u64);
    list.must("StartLimitIntervalUSec", 0u64);
    list.must("CollectMode", "inactive-or-failed".to_owned());
    list.may("OOMScoreAdjust", -1000i32);
    list.may("Nice", -20i32);
    list.may("CPUWeight", 10_000u64);
    list.may("TasksMax", 16u64);
    list.may("NoNewPrivileges", true);
    list.may("ProtectHome", "read-only".to_owned());
    list.may("UMask", 0o077u32);
    Ok(list.0)
}

/// A helper that is to be started.
pub struct OfHelper<'a> {
    /// Its program.
    pub program: PathBuf,
    /// What it will be told to do.
    pub verb: &'a Verb,
    /// Its standard input.
    pub socket: OwnedFd,
}

/// The service of a helper. It gives up system calls and most of its rights itself; what is here is what only systemd can bound.
pub fn of_helper(of: OfHelper<'_>) -> Result<Vec<Property>, String> {
    let OfHelper { program, verb, socket } = of;
    let mut list = List(Vec::new());
    let program = text(&program)?;
    list.must("Description", format!("weft helper: {}", verb.name()));
    list.must("Type", "exec".to_owned());
    list.must("ExecStart", vec![(program.clone(), vec![program], false)]);
    list.must("StandardInputFileDescriptor", Variant::Fd(Fd::from(socket)));
    list.must("StandardOutput", "null".to_owned());
    list.must("StandardError", "journal".to_owned());
    list.must("CollectMode", "inactive-or-failed".to_owned());
    list.must("RuntimeMaxUSec", verb.takes().as_micros() as u64);
    list.may("TimeoutStopUSec", 2_000_000u64);
    list.may("MemoryMax", verb.memory());
    list.may("MemorySwapMax", 0u64);
    list.may("TasksMax", super::helper_process::TASKS_MAX);
    list.may("OOMScoreAdjust", 500i32);
    // Dropping rights is one of them, until it has done so.
    let bounds = verb.rights().capabilities.union(CapabilitySet::SETPCAP);
    list.must("CapabilityBoundingSet", bounds.bits());
    list.may("NoNewPrivileges", true);
    list.may("ProtectSystem", "strict".to_owned());
    list.may("ProtectHome", "read-only".to_owned());
    list.may("PrivateTmp", true);
    list.may("ProtectHostname", true);
    list.may("ProtectClock", true);
    list.may("ProtectKernelModules", true);
    list.may("LockPersonality", true);
    list.may("MemoryDenyWriteExecute", true);
    list.may("RestrictRealtime", true);
    list.may("RestrictSUIDSGID", true);
    list.may("SystemCallArchitectures", vec!["native".to_owned()]);
    list.may("UMask", 0o077u32);
    Ok(list.0)
}

fn lifetime(list: &mut List, launch: &Launch) {
    // Restarts are the core's decision.
    list.must("Restart", "no".to_owned());
    // A unit that ended well would vanish with its result before an agent that is away reads it.
    list.must("RemainAfterExit", true);
    list.must("AddRef", true);
    list.must("KillMode", "control-group".to_owned());
    list.must("KillSignal", super::signal(&launch.task.stop_signal) as i32);
    list.must(
        "TimeoutStopUSec",
        launch.task.stop_timeout.as_micros().min(u128::from(u64::MAX)) as u64,
    );
    list.must("TimeoutStartUSec", 30_000_000u64);
}

fn pins(list: &mut List, launch: &Launch, enforced: Enforced) {
    if !launch.cpus.is_empty() {
        list.must("CPUAffinity", bits(&launch.cpus));
        if enforced.cpuset {
            list.must("AllowedCPUs", bits(&launch.cpus));
        }
    }
    if !launch.claim.mems.is_empty() {
        if process::memory_policy_works() {
            list.must("NUMAPolicy", process::MPOL_BIND);
            list.must("NUMAMask", bits(&launch.claim.mems));
        }
        if enforced.cpuset {
            list.must("AllowedMemoryNodes", bits(&launch.claim.mems));
        }
    }
}

/// Only limits that bite are set: what systemd would take and ignore is not asked for.
fn limits(list: &mut List, launch: &Launch, enforced: Enforced) {
    if enforced.cpu {
        list.must("CPUWeight", crate::cgroup::weight(launch));
        if launch.cpu_hard && launch.claim.shared_millis > 0 {
            list.must("CPUQuotaPerSecUSec", u64::from(launch.claim.shared_millis) * 1000);
        }
    }
    if enforced.memory {
        if launch.memory > 0 {
            list.must("MemoryMax", launch.memory);
        }
        list.must("MemorySwapMax", launch.swap);
        list.may("OOMPolicy", "kill".to_owned());
    }
    if enforced.tasks && launch.task.sandbox.tasks_max > 0 {
        list.must("TasksMax", u64::from(launch.task.sandbox.tasks_max));
    }
}

/// Who it is, and the files and devices that it was given.
fn access(list: &mut List, launch: &Launch, around: &Surroundings) -> Result<(), String> {
    let task = &launch.task;
    match &task.user {
        Some(user) => list.must("User", user.clone()),
        None if task.sandbox.enabled => list.must("DynamicUser", true),
        None => {}
    }
    let groups = sandbox::device_groups(&launch.claim.devices);
    if !groups.is_empty() {
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        list.must("SupplementaryGroups", groups);
    }
    let own = around.command.first().map(Path::new).filter(|program| hides(task, program));
    let own = own.map(|program| (program.to_owned(), PathBuf::from(PROGRAM_HERE)));
    let mounts: Vec<(PathBuf, PathBuf)> = around.files.iter().cloned().chain(own).collect();
    if !mounts.is_empty() {
        let mounts = mounts.iter().map(|(from, to)| Ok((text(from)?, text(to)?, false, 0u64)));
        list.must("BindReadOnlyPaths", mounts.collect::<Result<Vec<_>, String>>()?);
    }
    Ok(())
}

/// Unit files of other services, which anybody could read: what whoever wrote them gave them may be secret.
const HIDDEN: [&str; 1] = ["-/run/systemd/transient"];

/// System calls of `weftd exec` and of the dynamic loader before it.
const TO_BECOME: [&str; 24] = [
    "access",
    "brk",
    "close",
    "dup2",
    "dup3",
    "execve",
    "fcntl",
    "fstat",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "poll",
    "ppoll",
    "pread64",
    "read",
    "rt_sigaction",
    "rt_sigprocmask",
    "sigaltstack",
    "statx",
    "write",
];

/// The sandbox: everything closed but what the job file opens.
fn closed(list: &mut List, launch: &Launch) -> Result<(), String> {
    let sandbox = &launch.task.sandbox;
    let devices = &launch.claim.devices;
    list.must("ProtectSystem", "strict".to_owned());
    list.must("ProtectHome", if sandbox.home { "no" } else { "yes" }.to_owned());
    list.must("PrivateTmp", true);
    list.must("NoNewPrivileges", !sandbox.new_privileges);
    list.must("InaccessiblePaths", words(&HIDDEN));
    if !sandbox.writable.is_empty() {
        list.must("ReadWritePaths", sandbox.writable.clone());
    }
    if !sandbox.devices {
        // A `/dev` of its own, with the claimed devices in it: holds also where the kernel lets
        // systemd attach no device filter.
        list.must("PrivateDevices", true);
        list.must("DevicePolicy", "closed".to_owned());
        if !devices.is_empty() {
            let allowed = |path: &String| (path.clone(), "rw".to_owned());
            list.must("DeviceAllow", devices.iter().map(allowed).collect::<Vec<_>>());
            let bound = |path: &String| (path.clone(), path.clone(), false, 0u64);
            list.must("BindPaths", devices.iter().map(bound).collect::<Vec<_>>());
        }
    }
    let kept = sandbox::capability_bits(&sandbox.capabilities)?;
    list.must("CapabilityBoundingSet", kept);
    list.must("AmbientCapabilities", kept);
    if let Some(first) = sandbox.syscalls.first() {
        // In systemd's words a list that begins with `~` forbids what it names.
        let allow = !first.starts_with('~');
        let mut names: Vec<String> =
            sandbox.syscalls.iter().map(|name| name.trim_start_matches('~').to_owned()).collect();
        if allow && !names.iter().any(|name| name == "@system-service") {
            // To become the task. systemd adds `execve` and its like to every list of its own accord.
            names.extend(words(&TO_BECOME));
        }
        list.must("SystemCallFilter", (allow, names));
        list.must("SystemCallErrorNumber", libc::EPERM);
        list.may("SystemCallArchitectures", words(&["native"]));
    }
    let mut families = words(&["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]);
    if sandbox.capabilities.iter().any(|name| name.eq_ignore_ascii_case("CAP_NET_RAW")) {
        families.push("AF_PACKET".into());
    }
    list.may("RestrictAddressFamilies", (true, families));
    // Of the kinds of namespaces only that of host names, which takes CAP_SYS_ADMIN and gives nothing. `0`, none at all,
    // is written to the unit's file as `RestrictNamespaces=`, which is read back as all.
    list.may("RestrictNamespaces", libc::CLONE_NEWUTS as u64);
    for name in [
        "RestrictSUIDSGID",
        "RestrictRealtime",
        "LockPersonality",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "RemoveIPC",
    ] {
        list.may(name, true);
    }
    list.may("ProtectProc", "invisible".to_owned());
    Ok(())
}

/// A set as systemd takes it: one bit a number, lowest byte first.
pub fn bits(set: &CpuSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in set.iter() {
        let (byte, bit) = (usize::from(number) / 8, number % 8);
        bytes.resize(byte + 1, 0);
        bytes[byte] |= 1 << bit;
    }
    bytes
}

/// What systemd's own exit statuses of a unit that could not be executed mean: systemd.exec(5).
pub fn exec_failure(status: i32, launch: &Launch) -> Option<String> {
    let task = &launch.task;
    let user = task.user.as_deref().unwrap_or("its user");
    Some(match status {
        200 => {
            let folder = task.working_dir.as_deref().unwrap_or("/");
            format!(
                "its working directory {folder} cannot be entered: is it there, and open to its user?"
            )
        }
        203 => {
            "weftd itself cannot be executed in its sandbox: can every user execute it where it is?"
                .into()
        }
        205 => "its limits cannot be set".into(),
        206 => "its OOM score cannot be set".into(),
        208 | 209 | 222 => "its input or output cannot be set up".into(),
        214 => "its scheduling cannot be set".into(),
        215 => "its CPU affinity cannot be set".into(),
        216 => format!("its group is not there (user {user:?})"),
        217 => format!("its user is not there: there is no user {user:?} on this node"),
        218 => "its capabilities cannot be set".into(),
        219 => "its cgroup cannot be entered".into(),
        226 => match missing(launch) {
            Some(missing) => format!("its file system cannot be set up: {missing}"),
            None => format!(
                "its file system cannot be set up: journalctl -u {} says which path",
                launch.alloc.unit()
            ),
        },
        227 => "new privileges cannot be given up".into(),
        228 => "its system call filter cannot be loaded".into(),
        233 => "its runtime directory cannot be made".into(),
        242 => "its memory policy cannot be set".into(),
        _ if (200..=245).contains(&status) => {
            format!("systemd could not set it up (status {status})")
        }
        _ => return None,
    })
}

/// The first path of a task's file system that is not there.
fn missing(launch: &Launch) -> Option<String> {
    let sandbox = &launch.task.sandbox;
    let is_missing = |path: &&String| std::fs::symlink_metadata(path).is_err();
    let writable = || {
        let needed = sandbox.writable.iter().find(is_missing)?;
        Some(format!("the writable path {needed} is not there"))
    };
    let device = || {
        let needed = launch.claim.devices.iter().find(is_missing)?;
        Some(format!("the device {needed} is not there"))
    };
    let file = || {
        let blocked = launch.task.files.iter().find(|file| {
            Path::new(&file.path)
                .ancestors()
                .skip(1)
                .any(|parent| std::fs::metadata(parent).is_ok_and(|parent| !parent.is_dir()))
        })?;
        Some(format!("no file can be put at {}", blocked.path))
    };
    writable().or_else(device).or_else(file)
}
