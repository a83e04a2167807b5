//! What procfs and cgroupfs tell where a probe does not run. They tell less: no histograms, nothing about the
//! network by cgroup, and of a thread that has ended only what it had done at the reading before.

mod cgroupfs;
mod threads;

use crate::block::Block;
use crate::cgroup::{CgroupId, Cgroups};
use crate::faults::Faults;
use crate::kept::KeptFiles;
use crate::oom::OutOfMemory;
use crate::pressure::Pressure;
use crate::scheduler::Scheduling;
use crate::tcp::{Peer, Repeats};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use threads::{Thread, Threads};

/// Whatever is asked of it; what is not costs nothing.
#[derive(Default)]
pub(crate) struct Fallback {
    threads: Option<Threads>,
    read: bool,
    block: Kept<[u64; 4]>,
    kills: Kept<[u64; 1]>,
    retransmitted_before: Option<u64>,
}

/// Counts of cgroups, less what they were at first; what a cgroup that is gone had is added to `other`.
#[derive(Default)]
struct Kept<T> {
    begun: bool,
    at_first: BTreeMap<CgroupId, T>,
    last: BTreeMap<CgroupId, T>,
    gone: T,
}

impl Fallback {
    /// Everything asked from now on is about now.
    pub(crate) fn refresh(&mut self) {
        self.read = false;
    }

    /// Time waiting and running, and switches, of all threads. The first reading is where counting starts.
    pub(crate) fn scheduler(
        &mut self,
        cgroups: &mut Cgroups,
    ) -> Option<BTreeMap<CgroupId, Scheduling>> {
        let rows = self.threads(cgroups)?.map(|(id, thread)| {
            let scheduling = Scheduling {
                wait_ns: Some(thread.wait_ns),
                on_cpu_ns: Some(thread.on_cpu_ns),
                voluntary_switches: Some(thread.voluntary),
                involuntary_switches: Some(thread.involuntary),
                ..Scheduling::default()
            };
            (id, scheduling)
        });
        Some(rows.collect())
    }

    /// Page faults of all threads.
    pub(crate) fn faults(&mut self, cgroups: &mut Cgroups) -> Option<BTreeMap<CgroupId, Faults>> {
        let rows = self.threads(cgroups)?.map(|(id, thread)| {
            (
                id,
                Faults {
                    faults: thread.minor_faults + thread.major_faults,
                    major: Some(thread.major_faults),
                },
            )
        });
        Some(rows.collect())
    }

    fn threads<'a>(
        &'a mut self,
        cgroups: &mut Cgroups,
    ) -> Option<impl Iterator<Item = (CgroupId, Thread)> + use<'a>> {
        // Without a hierarchy nobody knows whose threads they are.
        cgroups.root()?;
        cgroups.walk();
        let threads = self.threads.get_or_insert_default();
        if !self.read {
            threads.read(cgroups);
            self.read = true;
        }
        Some(threads.by_cgroup())
    }

    /// `io.stat` of every cgroup that has the io controller.
    pub(crate) fn block(&mut self, cgroups: &mut Cgroups) -> Option<BTreeMap<CgroupId, Block>> {
        let now = cgroupfs::of_all(cgroups, |folder| {
            fs::read_to_string(folder.join("io.stat")).ok().map(|text| cgroupfs::io(&text))
        });
        let counts = self.block.since_first(now)?;
        Some(counts.into_iter().map(|(id, counts)| (id, Block::from_io_stat(counts))).collect())
    }

    /// `memory.events.local` of every cgroup that has the memory controller.
    pub(crate) fn oom(&mut self, cgroups: &mut Cgroups) -> Option<BTreeMap<CgroupId, OutOfMemory>> {
        let now = cgroupfs::of_all(cgroups, |folder| {
            let text = fs::read_to_string(folder.join("memory.events.local")).ok()?;
            cgroupfs::value(&text, "oom_kill").map(|kills| [kills])
        });
        let counts = self.kills.since_first(now)?;
        Some(counts.into_iter().map(|(id, [kills])| (id, OutOfMemory { kills })).collect())
    }

    /// Segments sent again, by whomever and to whomever.
    pub(crate) fn peers(&mut self) -> Option<BTreeMap<Peer, Repeats>> {
        let snmp = fs::read_to_string("/proc/thread-self/net/snmp").ok()?;
        let now = retransmitted(&snmp)?;
        let before = *self.retransmitted_before.get_or_insert(now);
        let all = Peer { cgroup: CgroupId::OTHER, address: None };
        Some([(all, Repeats { segments: now - before })].into())
    }
}

/// Times that threads of cgroups stood still for want of something: there is no probe for it. Only `wanted` ones are asked.
pub(crate) fn pressure(
    cgroups: &mut Cgroups,
    files: &mut KeptFiles,
    mut wanted: impl FnMut(CgroupId, &Cgroups) -> bool,
) -> Option<BTreeMap<CgroupId, Pressure>> {
    cgroups.walk();
    let asked: Vec<(CgroupId, &Path)> =
        cgroups.known().filter(|(id, _)| wanted(*id, cgroups)).collect();
    let mut now = BTreeMap::new();
    for (id, folder) in asked {
        let mut of = |file: &str| cgroupfs::pressure(files.text(folder, file)?);
        let (cpu, memory, io) = (of("cpu.pressure"), of("memory.pressure"), of("io.pressure"));
        let pressure = Pressure { cpu, memory, io };
        if pressure != Pressure::default() {
            now.insert(id, pressure);
        }
    }
    files.sweep();
    (!now.is_empty()).then_some(now)
}

/// `RetransSegs` of `/proc/net/snmp`: a line of names and a line of values.
fn retransmitted(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let place = lines.next()?.split(' ').position(|name| name == "RetransSegs")?;
    lines.next()?.split(' ').nth(place)?.parse().ok()
}

impl<const N: usize> Kept<[u64; N]>
where
    [u64; N]: Default,
{
    /// `None` if no cgroup has such counts.
    fn since_first(
        &mut self,
        now: BTreeMap<CgroupId, [u64; N]>,
    ) -> Option<BTreeMap<CgroupId, [u64; N]>> {
        if now.is_empty() {
            return None;
        }
        if !self.begun {
            self.begun = true;
            self.at_first = now.clone();
        }
        let mut rows = BTreeMap::new();
        for (id, counts) in &now {
            let first = self.at_first.get(id).copied().unwrap_or_default();
            rows.insert(*id, std::array::from_fn(|n| counts[n].saturating_sub(first[n])));
        }
        for (id, counts) in std::mem::replace(&mut self.last, rows.clone()) {
            if !now.contains_key(&id) {
                self.gone.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                self.at_first.remove(&id);
            }
        }
        rows.insert(CgroupId::OTHER, self.gone);
        Some(rows)
    }
}

#[cfg(test)]
mod tests;
