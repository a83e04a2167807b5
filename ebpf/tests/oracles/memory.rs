//! Processes that are killed for want of memory, beside the memory controller's own count.

use crate::unit::{Unit, enter, only, probes, skipped};
use ebpf::{CgroupId, Config, Probe};
use std::fs;
use std::path::{Path, PathBuf};

const LIMIT: &str = "16777216";

#[test]
fn kills_for_want_of_memory_are_counted_exactly() {
    for older_hooks in [false, true] {
        let config = Config { older_hooks, ..only(Probe::OutOfMemory) };
        let Some((mut probes, _alone)) = probes(&config) else { return };
        let Some(unit) = Unit::new(&probes, "oom") else { return };
        let memory = match Memory::limited(unit.folder()) {
            Ok(memory) => memory,
            Err(reason) => return skipped(&format!("memory cannot be limited here: {reason}")),
        };
        for times in 1..=3 {
            let mut process = unit.process("eat memory");
            memory.take_in(process.pid());
            assert_eq!(process.run()["killed"], 1, "it ate four times what it may");
            drop(process);
            let rows = probes.read().oom.expect("running").rows;
            assert_eq!(memory.kills(), times);
            assert_eq!(rows[&unit.id()].kills, times, "older hooks: {older_hooks}");
        }
    }
}

/// Between two readings a cgroup comes, its process is killed, and it goes: nobody but the kernel has seen it.
#[test]
fn a_cgroup_whose_process_is_killed_at_once_has_its_name() {
    for older_hooks in [false, true] {
        let config = Config {
            older_hooks,
            probes: [Probe::OutOfMemory, Probe::Processes].into(),
            ..Config::default()
        };
        let Some((mut probes, _alone)) = probes(&config) else { return };
        let before = probes.read().oom.expect("running").rows;
        let Some(unit) = Unit::new(&probes, "brief") else { return };
        let (id, folder) = (unit.id(), unit.folder().to_owned());
        let memory = match Memory::limited(&folder) {
            Ok(memory) => memory,
            Err(reason) => return skipped(&format!("memory cannot be limited here: {reason}")),
        };
        let mut process = unit.process("eat memory");
        memory.take_in(process.pid());
        assert_eq!(process.run()["killed"], 1, "it ate four times what it may");
        drop((process, memory, unit));
        assert!(!folder.exists());
        let readings = probes.read();
        let rows = readings.oom.expect("running").rows;
        assert_eq!(rows[&id].kills, 1, "older hooks: {older_hooks}");
        assert_eq!(rows[&CgroupId::OTHER].kills, before[&CgroupId::OTHER].kills);
        assert!(readings.processes.expect("running").rows[&id].exited > 0);
        let told = probes.cgroups().folder(id).expect("the kernel told");
        assert_eq!(folder.file_name().map(Path::new), Some(told));
        let after = probes.read().oom.expect("running").rows;
        assert!(!after.contains_key(&id));
        assert_eq!(after[&CgroupId::OTHER].kills, before[&CgroupId::OTHER].kills + 1);
    }
}

/// Where a limit bites: the cgroup itself, or one of version 1 beside it.
enum Memory {
    Same(PathBuf),
    Version1(PathBuf),
}

impl Memory {
    fn limited(cgroup: &Path) -> Result<Self, String> {
        if fs::write(cgroup.join("memory.max"), LIMIT).is_ok() {
            let _no_swap = fs::write(cgroup.join("memory.swap.max"), "0");
            return Ok(Self::Same(cgroup.to_owned()));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let memory = fields[2] == "cgroup" && fields[3].split(',').any(|o| o == "memory");
            memory.then(|| PathBuf::from(fields[1]))
        });
        let name = cgroup.file_name().expect("cgroups have names");
        let folder = root.ok_or("there is no memory controller")?.join(name);
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let memory = Self::Version1(folder.clone());
        fs::write(folder.join("memory.limit_in_bytes"), LIMIT)
            .map_err(|error| format!("memory.limit_in_bytes: {error}"))?;
        let _no_swap = fs::write(folder.join("memory.memsw.limit_in_bytes"), LIMIT);
        Ok(memory)
    }

    fn take_in(&self, pid: u32) {
        if let Self::Version1(folder) = self {
            enter(folder, pid);
        }
    }

    fn kills(&self) -> u64 {
        let (Self::Same(folder) | Self::Version1(folder)) = self;
        let file = match self {
            Self::Same(_) => "memory.events",
            Self::Version1(_) => "memory.oom_control",
        };
        let text = fs::read_to_string(folder.join(file)).expect("the controller counts");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.parse().ok()).expect("a count")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Self::Version1(folder) = self {
            let _busy = fs::remove_dir(folder);
        }
    }
}
