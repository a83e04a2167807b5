//! The cgroup (version 2) that the `direct` executor keeps its units in, and which limits bite there.

use fabric::cpuset::CpuSet;
use fabric::io::Launch;
use fabric::topology::Enforced;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Controllers that units use, where there are any.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// The folder of the version 2 hierarchy: the whole tree, or the part beside version 1.
pub fn mount() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.join("cgroup.controllers").exists())
}

/// The cgroup of a process.
pub fn of_process(pid: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let below = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount()?.join(below))
}

/// Controllers that a cgroup may use or, with `subtree_control`, hands on to those below it.
pub fn controllers(cgroup: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// A cgroup that belongs to this agent, with one child a unit.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: PathBuf,
    enforced: Enforced,
}

impl Cgroup {
    /// Makes `weft/<name>` at the top of what this agent sees of the hierarchy. It is not below the
    /// agent's own cgroup: whoever ends the agent by its cgroup must not end the work.
    pub fn open(name: &str) -> io::Result<Self> {
        let top = mount().ok_or_else(|| io::Error::other("cgroup version 2 is not mounted"))?;
        let parent = top.join("weft");
        let path = parent.join(name);
        std::fs::create_dir_all(&path)?;
        for level in [&top, &parent, &path] {
            for controller in CONTROLLERS {
                // Refused where there is no such controller, or where processes sit beside the
                // children. What it comes to is measured below.
                let _ =
                    std::fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let mut cgroup = Self { path, enforced: Enforced::default() };
        cgroup.enforced = cgroup.probe()?;
        Ok(cgroup)
    }

    /// The limits that hold for units in it.
    pub fn enforced(&self) -> Enforced {
        self.enforced
    }

    /// Where the cgroups of its units are.
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// The cgroup of one unit; not made yet.
    pub fn of_unit(&self, unit: &str) -> PathBuf {
        self.path.join(unit)
    }

    /// Makes the cgroup of a unit and sets its limits.
    pub fn create(&self, unit: &str, launch: &Launch) -> io::Result<PathBuf> {
        let path = self.of_unit(unit);
        std::fs::create_dir_all(&path)?;
        let set = |file: &str, value: String| {
            std::fs::write(path.join(file), &value)
                .map_err(|error| io::Error::new(error.kind(), format!("{file} = {value}: {error}")))
        };
        if self.enforced.memory {
            if launch.memory > 0 {
                set("memory.max", launch.memory.to_string())?;
            }
            // Not there on a kernel without swap.
            if path.join("memory.swap.max").exists() {
                set("memory.swap.max", launch.swap.to_string())?;
            }
            set("memory.oom.group", "1".into())?;
        }
        if self.enforced.cpu {
            set("cpu.weight", weight(launch).to_string())?;
            if launch.cpu_hard && launch.claim.shared_millis > 0 {
                set("cpu.max", format!("{} 100000", u64::from(launch.claim.shared_millis) * 100))?;
            }
        }
        if self.enforced.tasks && launch.task.sandbox.tasks_max > 0 {
            set("pids.max", launch.task.sandbox.tasks_max.to_string())?;
        }
        if self.enforced.cpuset {
            set("cpuset.cpus", launch.cpus.to_string())?;
            if !launch.claim.mems.is_empty() {
                set("cpuset.mems", launch.claim.mems.to_string())?;
            }
        }
        Ok(path)
    }

    /// Moves a unit's cpuset, where there are cpusets.
    pub fn confine(&self, unit: &str, cpus: &CpuSet) -> io::Result<()> {
        if !self.enforced.cpuset {
            return Ok(());
        }
        std::fs::write(self.of_unit(unit).join("cpuset.cpus"), cpus.to_string())
    }

    /// Really looks: sets each limit in a child and reads it back.
    fn probe(&self) -> io::Result<Enforced> {
        let child = self.path.join("probe");
        std::fs::create_dir_all(&child)?;
        let takes = |file: &str, value: &str, shown: &str| {
            std::fs::write(child.join(file), value).is_ok()
                && std::fs::read_to_string(child.join(file)).is_ok_and(|text| text.trim() == shown)
        };
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let first = online.parse::<CpuSet>().ok().and_then(|cpus| cpus.iter().next()).unwrap_or(0);
        let first = first.to_string();
        let enforced = Enforced {
            cpu: takes("cpu.weight", "50", "50")
                && takes("cpu.max", "50000 100000", "50000 100000"),
            memory: takes("memory.max", "67108864", "67108864"),
            tasks: takes("pids.max", "100", "100"),
            cpuset: takes("cpuset.cpus", &first, &first)
                && std::fs::read_to_string(child.join("cpuset.cpus.effective"))
                    .is_ok_and(|text| text.trim() == first),
            ..Enforced::default()
        };
        std::fs::remove_dir(&child)?;
        Ok(enforced)
    }
}

/// The file through which a process enters a cgroup.
pub fn open_procs(cgroup: &Path) -> io::Result<OwnedFd> {
    let file = std::fs::File::options().write(true).open(cgroup.join("cgroup.procs"))?;
    Ok(OwnedFd::from(file))
}

/// Bytes of a unit were refused often enough that the kernel killed something in it.
pub fn out_of_memory(cgroup: &Path) -> bool {
    let text = std::fs::read_to_string(cgroup.join("memory.events")).unwrap_or_default();
    let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    kills.unwrap_or(0u64) > 0
}

/// Removes a unit's cgroup and what the task made below it. All must be empty.
pub fn remove(cgroup: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    match std::fs::remove_dir(cgroup) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A whole CPU weighs 100, which is also what everything else on the machine weighs.
pub fn weight(launch: &Launch) -> u64 {
    let millis = match launch.claim.cpus.len() as u64 {
        0 => u64::from(launch.claim.shared_millis),
        cpus => cpus * 1000,
    };
    (millis / 10).clamp(1, 10_000)
}
