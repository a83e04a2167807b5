//! All threads of the machine, from `/proc/PID/task/TID` (proc(5)).

use crate::cgroup::{CgroupId, Cgroups};
use crate::limits::THREADS_MAX;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What a thread has done, or all threads of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) on_cpu_ns: u64,
    pub(super) wait_ns: u64,
    pub(super) voluntary: u64,
    pub(super) involuntary: u64,
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
}

/// A thread, and the moment of its start, since numbers are used again.
type Name = (u64, u64);

/// Sums by cgroup of what threads have done since the first reading.
///
/// Invariant: a sum never falls; `seen` holds only threads that there were at the last reading.
#[derive(Default)]
pub(super) struct Threads {
    begun: bool,
    seen: BTreeMap<Name, Thread>,
    sums: BTreeMap<CgroupId, Thread>,
}

impl Threads {
    pub(super) fn read(&mut self, cgroups: &Cgroups) {
        let mut seen = BTreeMap::new();
        for process in numbered(Path::new("/proc")) {
            let id = cgroup_of(&process, cgroups);
            for thread in numbered(&process.join("task")) {
                if seen.len() == THREADS_MAX {
                    break;
                }
                let Some((name, now)) = look(&thread) else { continue };
                let first = if self.begun { Thread::default() } else { now };
                let before = self.seen.get(&name).copied().unwrap_or(first);
                let sum = self.sums.entry(id).or_default();
                *sum = sum.plus(now.minus(before));
                seen.insert(name, now);
            }
        }
        self.begun = true;
        self.seen = seen;
        let gone: Vec<CgroupId> =
            self.sums.keys().copied().filter(|id| !cgroups.knows(*id)).collect();
        for id in gone.into_iter().filter(|id| *id != CgroupId::OTHER) {
            let sum = self.sums.remove(&id).unwrap_or_default();
            let other = self.sums.entry(CgroupId::OTHER).or_default();
            *other = other.plus(sum);
        }
    }

    pub(super) fn by_cgroup(&self) -> impl Iterator<Item = (CgroupId, Thread)> + '_ {
        self.sums.iter().map(|(id, sum)| (*id, *sum))
    }
}

impl Thread {
    fn plus(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }

    fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            on_cpu_ns: with(self.on_cpu_ns, other.on_cpu_ns),
            wait_ns: with(self.wait_ns, other.wait_ns),
            voluntary: with(self.voluntary, other.voluntary),
            involuntary: with(self.involuntary, other.involuntary),
            minor_faults: with(self.minor_faults, other.minor_faults),
            major_faults: with(self.major_faults, other.major_faults),
        }
    }
}

/// Folders whose names are numbers.
fn numbered(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| number(path).is_some())
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The line `0::/path` of `/proc/PID/cgroup` is about version 2.
fn cgroup_of(process: &Path, cgroups: &Cgroups) -> CgroupId {
    let text = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    path.and_then(|path| cgroups.id(path)).unwrap_or(CgroupId::OTHER)
}

/// `None` when it is gone already.
fn look(thread: &Path) -> Option<(Name, Thread)> {
    let stat = fs::read_to_string(thread.join("stat")).ok()?;
    let schedstat = fs::read_to_string(thread.join("schedstat")).ok()?;
    let status = fs::read_to_string(thread.join("status")).ok()?;
    parse(number(thread)?, &stat, &schedstat, &status)
}

fn parse(number: u64, stat: &str, schedstat: &str, status: &str) -> Option<(Name, Thread)> {
    // The second field is the program's name in parentheses, and may hold anything; the third follows it.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let field = |place: usize| fields.get(place - 3)?.parse().ok();
    let mut scheduled = schedstat.split(' ');
    let of_status = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| value.trim().parse().ok())
    };
    let thread = Thread {
        on_cpu_ns: scheduled.next()?.trim().parse().ok()?,
        wait_ns: scheduled.next()?.trim().parse().ok()?,
        voluntary: of_status("voluntary_ctxt_switches:")?,
        involuntary: of_status("nonvoluntary_ctxt_switches:")?,
        minor_faults: field(10)?,
        major_faults: field(12)?,
    };
    Some(((number, field(22)?), thread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let stat = "7 (a) S 1 (b) ) S 1 7 7 0 -1 4194560 12 0 3 0 5 6 0 0 20 0 1 0 987 0 0";
        let status = "Name:\ta\nvoluntary_ctxt_switches:\t21\nnonvoluntary_ctxt_switches:\t22\n";
        let (name, thread) = parse(7, stat, "100 200 3\n", status).expect("well formed");
        assert_eq!(name, (7, 987));
        let expected = Thread {
            on_cpu_ns: 100,
            wait_ns: 200,
            voluntary: 21,
            involuntary: 22,
            minor_faults: 12,
            major_faults: 3,
        };
        assert_eq!(thread, expected);
        assert_eq!(parse(7, "7 (a", "100 200 3", status), None);
        assert_eq!(parse(7, stat, "", status), None);
    }
}
