//! What is known: the answers, by who and where.

use fabric::api::AllocView;
use std::collections::{BTreeMap, BTreeSet};

use crate::prometheus::{Labels, Point};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Number {
    /// CPUs.
    Cpu,
    /// Seconds a second, of all threads together.
    CpuWait,
    /// Seconds a second.
    Throttled,
    /// Seconds a second in which somebody waited for memory.
    MemoryStall,
    /// Seconds a second in which somebody waited for a disk.
    DiskStall,
    /// Seconds a second that requests to disks took, those at one time together.
    DiskTime,
    /// A second.
    DiskBytes,
    /// Bytes.
    Memory,
    /// A second.
    Faults,
    /// A second.
    MajorFaults,
    /// Processes in the range.
    Kills,
    /// Segments a second.
    Retransmits,
    /// Seconds.
    RoundTrip,
}

impl Number {
    /// All there are.
    pub const ALL: [Self; 13] = [
        Self::Cpu,
        Self::CpuWait,
        Self::Throttled,
        Self::MemoryStall,
        Self::DiskStall,
        Self::DiskTime,
        Self::DiskBytes,
        Self::Memory,
        Self::Faults,
        Self::MajorFaults,
        Self::Kills,
        Self::Retransmits,
        Self::RoundTrip,
    ];
}

/// A slot (`web/0`) or another unit (`cron.service`) on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The node's name.
    pub node: String,
    /// What it is called there.
    pub name: String,
}

/// By who it is.
pub type Amounts = BTreeMap<Who, f64>;

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The job that is asked about.
    pub job: String,
    /// Its slots.
    pub slots: BTreeSet<Who>,
    /// Slots of any job that have CPUs of their own, and how many.
    pub pinned: BTreeMap<Who, usize>,
    /// Of everybody on the nodes.
    pub now: BTreeMap<Number, Amounts>,
    /// Of the job, before the range.
    pub before: BTreeMap<Number, Amounts>,
    /// To whom most was sent again, and how many segments a second.
    pub peers: BTreeMap<Who, (String, f64)>,
    /// What has to be known about the answers.
    pub warnings: Vec<String>,
}

impl Facts {
    /// Where the job runs, and who is pinned.
    pub fn of_allocs(job: &str, allocs: &[AllocView]) -> Self {
        let who = |alloc: &AllocView| Who {
            node: alloc.node_name.clone(),
            name: alloc.id.slot.to_string(),
        };
        let own = allocs.iter().filter(|alloc| alloc.id.slot.job.as_str() == job);
        let cpus = |alloc: &AllocView| alloc.row.claim.cpus.len();
        let pinned = allocs.iter().filter(|alloc| cpus(alloc) > 0);
        Self {
            job: job.into(),
            slots: own.map(who).collect(),
            pinned: pinned.map(|alloc| (who(alloc), cpus(alloc))).collect(),
            ..Self::default()
        }
    }

    /// The nodes of the job.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        let nodes: BTreeSet<&str> = self.slots.iter().map(|slot| slot.node.as_str()).collect();
        nodes.into_iter()
    }

    /// An answer about everybody.
    pub fn take(&mut self, number: Number, points: &[Point]) {
        add(self.now.entry(number).or_default(), points);
    }

    /// An answer about the job before.
    pub fn take_before(&mut self, number: Number, points: &[Point]) {
        add(self.before.entry(number).or_default(), points);
    }

    /// An answer about peers.
    pub fn take_peers(&mut self, points: &[Point]) {
        for point in points {
            let (who, rate) = (who(&point.metric), point.value.value);
            let peer = point.metric.get("peer").cloned().unwrap_or_default();
            if self.peers.get(&who).is_none_or(|(_, most)| *most < rate) {
                self.peers.insert(who, (peer, rate));
            }
        }
    }

    /// A number of somebody now.
    pub fn of(&self, number: Number, who: &Who) -> Option<f64> {
        self.now.get(&number)?.get(who).copied()
    }

    /// A number of a slot before.
    pub fn earlier(&self, number: Number, who: &Who) -> Option<f64> {
        self.before.get(&number)?.get(who).copied()
    }

    /// Everybody else on the node of a slot, with a number of theirs.
    pub fn others(&self, number: Number, than: &Who) -> impl Iterator<Item = (&Who, f64)> {
        let all = self.now.get(&number).into_iter().flatten();
        all.filter(move |(who, _)| who.node == than.node && *who != than)
            .map(|(who, amount)| (who, *amount))
    }
}

/// Two runs of one slot are one.
fn add(amounts: &mut Amounts, points: &[Point]) {
    for point in points.iter().filter(|point| !point.value.value.is_nan()) {
        *amounts.entry(who(&point.metric)).or_default() += point.value.value;
    }
}

fn who(labels: &Labels) -> Who {
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    let name = match (label("job"), label("slot")) {
        ("", _) => label("unit").to_owned(),
        (job, slot) => format!("{job}/{slot}"),
    };
    Who { node: label("node").to_owned(), name }
}
