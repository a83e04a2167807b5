//! Events that units cause, as the processor counts them: instructions, cycles, what the caches were asked for.
//!
//! The kernel counts for each cgroup (perf_event_open(2), `PERF_FLAG_PID_CGROUP`): one group of events for each unit and CPU,
//! with all cgroups below the unit's own. Needs no BPF, and CAP_PERFMON. A processor has few counters: where others
//! want them too, the kernel takes turns and says how long each group has counted, from which the rest is
//! inferred ([`Counters::read`]).
//!
//! Which events these are makes no difference here; the kernel's own software events are counted the same way.

use crate::cgroup::{CgroupId, Cgroups};
use crate::limits::{COUNTER_DESCRIPTORS_MAX, COUNTER_EVENTS_MAX};
use crate::perf::{self, Whose};
use crate::status::Status;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Units that want to be counted for so long without any counter being free have none to hope for: a second.
const STARVED_NS: u64 = 1_000_000_000;

/// Something that can be counted (perf_event_open(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    kind: u32,
    number: u64,
    name: &'static str,
}

impl Event {
    /// Instructions that were carried out.
    pub const INSTRUCTIONS: Self =
        Self::hardware(libbpf_sys::PERF_COUNT_HW_INSTRUCTIONS, "instructions");
    /// Cycles of the clock, however fast it was.
    pub const CYCLES: Self = Self::hardware(libbpf_sys::PERF_COUNT_HW_CPU_CYCLES, "cycles");
    /// What was asked of the cache. Which one is up to the processor: the last one on Intel's, the second on AMD's, the
    /// first one for data on ARM's.
    pub const CACHE_REFERENCES: Self =
        Self::hardware(libbpf_sys::PERF_COUNT_HW_CACHE_REFERENCES, "cache references");
    /// What was not in that cache.
    pub const CACHE_MISSES: Self =
        Self::hardware(libbpf_sys::PERF_COUNT_HW_CACHE_MISSES, "cache misses");
    /// Nanoseconds of threads on a CPU.
    pub const TASK_CLOCK: Self = Self::software(libbpf_sys::PERF_COUNT_SW_TASK_CLOCK, "task clock");
    /// Times that a thread left its CPU.
    pub const CONTEXT_SWITCHES: Self =
        Self::software(libbpf_sys::PERF_COUNT_SW_CONTEXT_SWITCHES, "context switches");

    const fn hardware(number: u32, name: &'static str) -> Self {
        Self { kind: libbpf_sys::PERF_TYPE_HARDWARE, number: number as u64, name }
    }

    const fn software(number: u32, name: &'static str) -> Self {
        Self { kind: libbpf_sys::PERF_TYPE_SOFTWARE, number: number as u64, name }
    }
}

/// Counters of units. Dropping it takes them out.
///
/// Invariants: there are never more descriptors than `descriptors_max`; no total of a unit falls while it is watched.
#[derive(Debug)]
pub struct Counters {
    /// Those that this machine counts, with their places among those that were asked for.
    events: Vec<(usize, Event)>,
    asked: usize,
    status: Status,
    descriptors_max: usize,
    units: BTreeMap<PathBuf, Unit>,
    left_out: usize,
}

#[derive(Debug)]
struct Unit {
    /// What the folder was when it was opened: a unit that is started again has another one of the same name.
    cgroup: CgroupId,
    groups: BTreeMap<u32, Group>,
    totals: Vec<u64>,
    /// How long all groups together have counted.
    running_ns: u64,
}

/// The events of one unit on one CPU, which are counted at the same times.
#[derive(Debug)]
struct Group {
    leader: File,
    _others: Vec<File>,
    /// The last reading that added something to the totals.
    seen: Counted,
    /// How long there has been something to count, by the last reading of all.
    enabled_ns: u64,
}

/// What the kernel says of a group since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counted {
    /// How long threads of the unit ran on this CPU.
    enabled_ns: u64,
    /// How long of that there were counters for them.
    running_ns: u64,
    values: [u64; COUNTER_EVENTS_MAX],
}

impl Counters {
    /// Finds out which of these events this machine counts. At most [`COUNTER_EVENTS_MAX`] are looked at.
    pub fn load(events: &[Event]) -> Self {
        let events = &events[..events.len().min(COUNTER_EVENTS_MAX)];
        let (counted, status) = match available(events) {
            Ok(counted) => (counted, Status::Running),
            Err(reason) => (Vec::new(), Status::Unsupported(reason)),
        };
        Self { status, events: counted, ..Self::off(events.len()) }
    }

    /// Counts nothing, because nobody asks for it.
    pub fn none() -> Self {
        Self::off(0)
    }

    fn off(asked: usize) -> Self {
        Self {
            events: Vec::new(),
            asked,
            status: Status::Off,
            descriptors_max: descriptors_max(),
            units: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Whether anything is counted; why not, otherwise.
    pub fn status(&self) -> Status {
        let groups = self.units.values().flat_map(|unit| unit.groups.values());
        let starved = groups.map(|group| group.enabled_ns).sum::<u64>() > STARVED_NS
            && self.units.values().all(|unit| unit.running_ns == 0);
        match &self.status {
            Status::Running if starved => Status::Unsupported(
                "the processor's counters are never free: the NMI watchdog, a debugger or a hypervisor has them".into(),
            ),
            status => status.clone(),
        }
    }

    /// Whether it would count for a unit, were there one.
    pub fn are_wanted(&self) -> bool {
        self.status == Status::Running
    }

    /// Units that are not counted because there may be no more descriptors.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Counts for the cgroups with these folders, and no others, from now on.
    pub fn watch(&mut self, folders: &BTreeSet<PathBuf>) {
        if !self.are_wanted() {
            return;
        }
        let online = online_cpus();
        self.units.retain(|folder, _| folders.contains(folder));
        self.left_out = 0;
        for folder in folders {
            let Some(cgroup) = crate::cgroup::inode(folder) else { continue };
            let mut unit =
                self.units.remove(folder).unwrap_or_else(|| Unit::new(self.events.len()));
            if unit.cgroup != cgroup {
                unit.groups.clear();
                unit.cgroup = cgroup;
            }
            unit.groups.retain(|cpu, _| online.contains(cpu));
            let missing: Vec<u32> =
                online.iter().filter(|cpu| !unit.groups.contains_key(cpu)).copied().collect();
            let used: usize = self.units.values().map(|unit| unit.groups.len()).sum();
            let wanted = used + unit.groups.len() + missing.len();
            // All of a unit or nothing: a part would look like less work.
            if wanted * self.events.len() > self.descriptors_max {
                self.left_out += 1;
                continue;
            }
            let opened = File::open(folder).and_then(|open| {
                missing
                    .into_iter()
                    .map(|cpu| Ok((cpu, Group::open(&self.events, &open, cpu)?)))
                    .collect()
            });
            // A unit that has just ended has none; one that goes on is tried again the next time.
            let Ok(opened): io::Result<Vec<(u32, Group)>> = opened else { continue };
            unit.groups.extend(opened);
            self.units.insert(folder.clone(), unit);
        }
    }

    /// What units have caused since they are watched, in the order of the events that were asked for; `None` for one that this
    /// machine does not count. Where counters were taken in turns, what was counted is taken for all of the
    /// time. A unit that there was no counter for has no row; neither has one that has not run yet.
    pub fn read(&mut self) -> BTreeMap<&Path, Vec<Option<u64>>> {
        let mut rows = BTreeMap::new();
        for (folder, unit) in &mut self.units {
            unit.read(self.events.len());
            if unit.running_ns == 0 {
                continue;
            }
            let mut row = vec![None; self.asked];
            for ((place, _), total) in self.events.iter().zip(&unit.totals) {
                row[*place] = Some(*total);
            }
            rows.insert(folder.as_path(), row);
        }
        rows
    }
}

impl Unit {
    fn new(events: usize) -> Self {
        Self {
            cgroup: CgroupId::OTHER,
            groups: BTreeMap::new(),
            totals: vec![0; events],
            running_ns: 0,
        }
    }

    fn read(&mut self, events: usize) {
        let Self { groups, totals, running_ns, .. } = self;
        groups.retain(|_, group| {
            // A CPU that was switched off takes its groups apart: they are opened anew when it comes back.
            let Some(now) = group.read(events) else { return false };
            group.enabled_ns = now.enabled_ns;
            if let Some(grown) = grown(&group.seen, &now) {
                for (total, grown) in totals.iter_mut().zip(grown) {
                    *total = total.saturating_add(grown);
                }
                *running_ns += now.running_ns - group.seen.running_ns;
                group.seen = now;
            }
            true
        });
    }
}

impl Group {
    fn open(events: &[(usize, Event)], cgroup: &File, cpu: u32) -> io::Result<Self> {
        let mut opened: Vec<File> = Vec::new();
        for (_, event) in events {
            let event = event.open(Whose::Cgroup(cgroup.as_fd()), cpu, opened.first())?;
            opened.push(event);
        }
        if opened.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let leader = opened.remove(0);
        Ok(Self { leader, _others: opened, seen: Counted::default(), enabled_ns: 0 })
    }

    fn read(&self, events: usize) -> Option<Counted> {
        let mut bytes = [0; (3 + COUNTER_EVENTS_MAX) * 8];
        let length = (&self.leader).read(&mut bytes).ok()?;
        Counted::parse(&bytes[..length], events)
    }
}

impl Event {
    fn open(self, whose: Whose<'_>, cpu: u32, leader: Option<&File>) -> io::Result<File> {
        let mut attributes = perf::attributes(self.kind, self.number);
        attributes.read_format = u64::from(
            libbpf_sys::PERF_FORMAT_GROUP
                | libbpf_sys::PERF_FORMAT_TOTAL_TIME_ENABLED
                | libbpf_sys::PERF_FORMAT_TOTAL_TIME_RUNNING,
        );
        perf::open(&attributes, whose, cpu, leader.map(|leader| leader.as_fd())).map(File::from)
    }
}

impl Counted {
    /// As perf_event_open(2) has it for `PERF_FORMAT_GROUP` with both times: the number of events, the times, a value
    /// for each event. `None` when that are not as many events as there should be.
    fn parse(bytes: &[u8], events: usize) -> Option<Self> {
        let mut words = bytes
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")));
        if words.next()? != events as u64 || events > COUNTER_EVENTS_MAX {
            return None;
        }
        let mut counted =
            Self { enabled_ns: words.next()?, running_ns: words.next()?, ..Self::default() };
        for value in &mut counted.values[..events] {
            *value = words.next()?;
        }
        Some(counted)
    }
}

/// By how much each event has grown, with what there was no counter for. `None` when there was none at all, or nothing to
/// count: the next reading is compared with the same one before.
fn grown(before: &Counted, now: &Counted) -> Option<[u64; COUNTER_EVENTS_MAX]> {
    let running_ns = now.running_ns.checked_sub(before.running_ns).filter(|ns| *ns > 0)?;
    let enabled_ns = now.enabled_ns.saturating_sub(before.enabled_ns).max(running_ns);
    let mut grown = [0; COUNTER_EVENTS_MAX];
    for (grown, (now, before)) in grown.iter_mut().zip(now.values.iter().zip(&before.values)) {
        let counted = u128::from(now.saturating_sub(*before));
        let whole = counted * u128::from(enabled_ns) / u128::from(running_ns);
        *grown = u64::try_from(whole).unwrap_or(u64::MAX);
    }
    Some(grown)
}

/// Those of the events that are counted here, by cgroup and in one group.
fn available(events: &[Event]) -> Result<Vec<(usize, Event)>, String> {
    let cpu = online_cpus().first().copied().unwrap_or(0);
    // Why the first one is not counted: the others mostly have the same reason.
    let mut reason = None;
    let mut known = Vec::new();
    for (place, event) in events.iter().enumerate() {
        match event.open(Whose::All, cpu, None) {
            Ok(_) => known.push((place, *event)),
            Err(error) => reason = reason.or_else(|| Some(refused(event, &error))),
        }
    }
    if known.is_empty() {
        return Err(reason.unwrap_or_else(|| "no event was asked for".into()));
    }
    let cgroups = Cgroups::new();
    let root = cgroups.root().ok_or("no cgroup hierarchy of version 2 is mounted")?;
    let root = File::open(root).map_err(|error| format!("{}: {error}", root.display()))?;
    let mut reason = None;
    let mut group: Vec<File> = Vec::new();
    let mut counted = Vec::new();
    for (place, event) in known {
        match event.open(Whose::Cgroup(root.as_fd()), cpu, group.first()) {
            Ok(open) => {
                group.push(open);
                counted.push((place, event));
            }
            Err(error) => {
                let this =
                    || Some(format!("this kernel counts no {} by cgroup: {error}", event.name));
                reason = reason.or_else(this);
            }
        }
    }
    match reason {
        Some(reason) if counted.is_empty() => Err(reason),
        _ => Ok(counted),
    }
}

/// Why an event is not counted, for people.
fn refused(event: &Event, error: &io::Error) -> String {
    let name = event.name;
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => format!("counting {name} needs CAP_PERFMON ({error})"),
        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP | libc::ENXIO) => format!(
            "this machine has no counter for {name} ({error}): virtual machines mostly have none"
        ),
        Some(libc::ENOSYS) => "this kernel counts no events (CONFIG_PERF_EVENTS)".into(),
        _ => format!("counting {name}: perf_event_open: {error}"),
    }
}

/// A quarter of what this process may open, or the bound of our own: its sockets and files come first.
fn descriptors_max() -> usize {
    (crate::limits::descriptors() / 4).min(COUNTER_DESCRIPTORS_MAX)
}

/// CPUs that are online, of `/sys/devices/system/cpu/online`: `0-3,5`.
fn online_cpus() -> Vec<u32> {
    cpus(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default())
}

fn cpus(list: &str) -> Vec<u32> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let ranges = list.split(',').filter_map(|range| match range.split_once('-') {
        Some((first, last)) => Some(number(first)?..=number(last)?),
        None => Some(number(range)?..=number(range)?),
    });
    ranges.flatten().take(COUNTER_DESCRIPTORS_MAX).collect()
}

#[cfg(test)]
mod tests;
