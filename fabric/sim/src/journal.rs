//! What was done to a world: its seed, every fault and every wish, each at its time, as text.
//!
//! ```text
//! seed 17
//! nodes 20
//! turmoil 600s
//! canary forgets-a-claim
//! breaks invariant_a_core_byte_device_or_port_is_never_claimed_twice_on_a_node
//! 12.345s power-cut n03 for 20.5s
//! 13.2s at n04 scale job1 3
//! ```
//!
//! A run that is played from its own journal is the same run, event by event. Lines may be changed or
//! taken out: then it is another one, and as repeatable. Times count from the first moment of the turmoil.
//! Lines that begin with `#` are comments.

use anyhow::{Context, bail, ensure};
use fabric::id::{JobName, Namespace};
use fabric::io::Request;
use fabric::job::JobSpec;
use fabric::node::Canary;
use fabric::quota::Quota;
use std::fmt::Write;
use std::time::Duration;

use crate::faults::{self, Fault};
use crate::world::World;

mod fault;

/// Everything that makes a run what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    /// Machines, network and everything else that is random follow from it.
    pub seed: u64,
    /// Machines.
    pub nodes: usize,
    /// How long faults and users may keep at it.
    pub turmoil: Duration,
    /// A planted bug.
    pub canary: Option<Canary>,
    /// The invariant that broke, if any.
    pub breaks: Option<String>,
    /// By time.
    pub acts: Vec<Entry>,
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// From the beginning of the turmoil, in whole milliseconds.
    pub at: Duration,
    /// What.
    pub act: Act,
}

/// What can be done to a world.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Something goes wrong, for so long.
    Fault(Fault, Duration),
    /// A user asks something of a node.
    Wish {
        /// Which, by index.
        node: usize,
        /// What.
        wish: Wish,
    },
}

/// What users ask. Nodes are indices.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Run a job, or this version of it.
    Submit(Box<JobSpec>),
    /// Change the number of slots.
    Scale(JobName, u32),
    /// Replace every allocation.
    RestartJob(JobName),
    /// Restart one slot in place.
    RestartSlot(JobName, u32),
    /// Stop a job and forget it.
    Stop(JobName),
    /// Take no more work, and give away what is there.
    Drain(usize),
    /// Take work again.
    Undrain(usize),
    /// What a namespace may have; also when something has to stop for it.
    Quota(Namespace, Box<Quota>),
    /// Let a namespace have whatever fits.
    RemoveQuota(Namespace),
    /// Remove identities from the roster that a machine lost with its disks.
    Forget(usize),
}

/// The names of planted bugs.
pub const CANARIES: [(&str, Canary); 19] = [
    ("forgets-a-claim", Canary::ForgetsAClaim),
    ("holds-a-lease-too-long", Canary::HoldsALeaseTooLong),
    ("voter-forgets", Canary::VoterForgets),
    ("higher-epoch-wins", Canary::HigherEpochWins),
    ("places-unheard", Canary::PlacesUnheard),
    ("takes-over-unmet", Canary::TakesOverUnmet),
    ("deaf-to-removal", Canary::DeafToRemoval),
    ("ignores-receivers", Canary::IgnoresReceivers),
    ("retires-without-a-place", Canary::RetiresWithoutAPlace),
    ("knows-no-detours", Canary::KnowsNoDetours),
    ("believes-every-clock", Canary::BelievesEveryClock),
    ("takes-unsigned", Canary::TakesUnsigned),
    ("knows-no-births", Canary::KnowsNoBirths),
    ("forgets-deletions", Canary::ForgetsDeletions),
    ("writes-any-level", Canary::WritesAnyLevel),
    ("forgets-disk", Canary::ForgetsDisk),
    ("starts-unprepared", Canary::StartsUnprepared),
    ("keeps-what-ended", Canary::KeepsWhatEnded),
    ("ignores-full", Canary::IgnoresFull),
];

/// A planted bug's name.
pub fn canary_name(canary: Canary) -> &'static str {
    CANARIES.iter().find(|(_, known)| *known == canary).map_or("unnamed", |(name, _)| name)
}

/// A planted bug, by its name.
pub fn canary_named(name: &str) -> Option<Canary> {
    CANARIES.iter().find(|(known, _)| *known == name).map(|(_, canary)| *canary)
}

impl Journal {
    /// What [`Journal`] displays.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (mut seed, mut nodes, mut turmoil) = (None, None, None);
        let (mut canary, mut breaks, mut acts) = (None, None, Vec::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut read = || -> anyhow::Result<()> {
                let (word, rest) = line.split_once(' ').context("a word and what belongs to it")?;
                match word {
                    "seed" => seed = Some(rest.parse().context("a seed is a number")?),
                    "nodes" => nodes = Some(rest.parse().context("how many nodes")?),
                    "turmoil" => turmoil = Some(seconds(rest)?),
                    "canary" => {
                        canary = Some(canary_named(rest).context("no such planted bug")?);
                    }
                    "breaks" => breaks = Some(rest.to_owned()),
                    at => acts.push(Entry { at: seconds(at)?, act: Act::parse(rest)? }),
                }
                Ok(())
            };
            read().with_context(|| format!("line {}: {line}", number + 1))?;
        }
        let nodes = nodes.context("`nodes` is missing")?;
        let journal = Self {
            seed: seed.context("`seed` is missing")?,
            nodes,
            turmoil: turmoil.context("`turmoil` is missing")?,
            canary,
            breaks,
            acts,
        };
        for entry in &journal.acts {
            for node in entry.act.nodes() {
                ensure!(node < nodes, "n{node:02}: there are {nodes} nodes");
            }
            ensure!(entry.at <= journal.turmoil, "{entry}: the turmoil is over by then");
        }
        Ok(journal)
    }
}

impl std::fmt::Display for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "nodes {}", self.nodes)?;
        writeln!(f, "turmoil {}", Seconds(self.turmoil))?;
        if let Some(canary) = self.canary {
            writeln!(f, "canary {}", canary_name(canary))?;
        }
        if let Some(breaks) = &self.breaks {
            writeln!(f, "breaks {breaks}")?;
        }
        for entry in &self.acts {
            writeln!(f, "{entry}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", Seconds(self.at))?;
        match &self.act {
            Act::Fault(fault, lasting) => {
                write!(f, "{} for {}", fault::words(fault), Seconds(*lasting))
            }
            Act::Wish { node, wish } => write!(f, "at n{node:02} {wish}"),
        }
    }
}

impl Act {
    fn parse(text: &str) -> anyhow::Result<Self> {
        if let Some(rest) = text.strip_prefix("at ") {
            let (node, wish) = rest.split_once(' ').context("write `at NODE WISH`")?;
            return Ok(Act::Wish { node: node_named(node)?, wish: Wish::parse(wish)? });
        }
        let (words, lasting) = text.rsplit_once(" for ").context("write `FAULT for 2.5s`")?;
        Ok(Act::Fault(fault::parse(words)?, seconds(lasting)?))
    }

    /// Every node that it names.
    fn nodes(&self) -> Vec<usize> {
        match self {
            Act::Fault(fault, _) => fault.nodes(),
            Act::Wish { node, wish } => match wish {
                Wish::Drain(other) | Wish::Undrain(other) | Wish::Forget(other) => {
                    vec![*node, *other]
                }
                _ => vec![*node],
            },
        }
    }
}

impl Wish {
    /// What a request asks, if users of a run can ask it.
    pub fn of(world: &World, request: &Request) -> Option<Self> {
        Some(match request {
            Request::Submit { spec, .. } => Wish::Submit(spec.clone()),
            Request::Scale { job, count, .. } => Wish::Scale(job.clone(), *count),
            Request::RestartJob { job, .. } => Wish::RestartJob(job.clone()),
            Request::RestartSlot { job, index } => Wish::RestartSlot(job.clone(), *index),
            Request::Stop { job } => Wish::Stop(job.clone()),
            Request::Drain { node, on: true } => Wish::Drain(world.index_of(node)?),
            Request::Drain { node, on: false } => Wish::Undrain(world.index_of(node)?),
            Request::SetQuota { namespace, quota, force: true } => {
                Wish::Quota(namespace.clone(), Box::new(quota.clone()))
            }
            Request::RemoveQuota { namespace } => Wish::RemoveQuota(namespace.clone()),
            _ => return None,
        })
    }

    /// The requests that ask it now.
    pub fn requests(&self, world: &World) -> Vec<Request> {
        let by = || "somebody".to_owned();
        vec![match self {
            Wish::Submit(spec) => {
                Request::Submit { spec: spec.clone(), by: by(), expected_version: None }
            }
            Wish::Scale(job, count) => Request::Scale { job: job.clone(), count: *count, by: by() },
            Wish::RestartJob(job) => Request::RestartJob { job: job.clone(), by: by() },
            Wish::RestartSlot(job, index) => {
                Request::RestartSlot { job: job.clone(), index: *index }
            }
            Wish::Stop(job) => Request::Stop { job: job.clone() },
            Wish::Drain(node) => Request::Drain { node: world.nodes[*node].identity, on: true },
            Wish::Undrain(node) => Request::Drain { node: world.nodes[*node].identity, on: false },
            Wish::Quota(namespace, quota) => {
                let (namespace, quota) = (namespace.clone(), (**quota).clone());
                Request::SetQuota { namespace, quota, force: true }
            }
            Wish::RemoveQuota(namespace) => Request::RemoveQuota { namespace: namespace.clone() },
            Wish::Forget(of) => {
                let former = world.book.former.get(of).map_or(&[][..], Vec::as_slice);
                return former.iter().map(|node| faults::remove(*node)).collect();
            }
        }]
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let (word, rest) = text.split_once(' ').context("a wish has a word and an object")?;
        let job = |name: &str| JobName::new(name).map_err(anyhow::Error::from);
        let both = || rest.split_once(' ').context("a job and a number");
        Ok(match word {
            "submit" => {
                let spec = serde_json::from_str(rest).context("a job's spec is JSON")?;
                Wish::Submit(Box::new(spec))
            }
            "scale" => Wish::Scale(job(both()?.0)?, both()?.1.parse().context("a count")?),
            "restart" => Wish::RestartJob(job(rest)?),
            "restart-slot" => {
                Wish::RestartSlot(job(both()?.0)?, both()?.1.parse().context("a slot's index")?)
            }
            "stop" => Wish::Stop(job(rest)?),
            "drain" => Wish::Drain(node_named(rest)?),
            "undrain" => Wish::Undrain(node_named(rest)?),
            "quota" => {
                let quota = serde_json::from_str(both()?.1).context("a quota is JSON")?;
                Wish::Quota(Namespace::new(both()?.0)?, Box::new(quota))
            }
            "remove-quota" => Wish::RemoveQuota(Namespace::new(rest)?),
            "forget" => Wish::Forget(node_named(rest)?),
            other => bail!("nobody wishes {other:?}"),
        })
    }
}

impl std::fmt::Display for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wish::Submit(spec) => {
                let json = serde_json::to_string(spec).map_err(|_| std::fmt::Error)?;
                write!(f, "submit {json}")
            }
            Wish::Scale(job, count) => write!(f, "scale {job} {count}"),
            Wish::RestartJob(job) => write!(f, "restart {job}"),
            Wish::RestartSlot(job, index) => write!(f, "restart-slot {job} {index}"),
            Wish::Stop(job) => write!(f, "stop {job}"),
            Wish::Drain(node) => write!(f, "drain n{node:02}"),
            Wish::Undrain(node) => write!(f, "undrain n{node:02}"),
            Wish::Quota(namespace, quota) => {
                let json = serde_json::to_string(quota).map_err(|_| std::fmt::Error)?;
                write!(f, "quota {namespace} {json}")
            }
            Wish::RemoveQuota(namespace) => write!(f, "remove-quota {namespace}"),
            Wish::Forget(node) => write!(f, "forget n{node:02}"),
        }
    }
}

/// The index in a node's name.
fn node_named(name: &str) -> anyhow::Result<usize> {
    let number = name.strip_prefix('n').with_context(|| format!("{name:?} is not a node"))?;
    number.parse().with_context(|| format!("{name:?} is not a node"))
}

/// Seconds with up to three digits after the point.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        write!(text, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())?;
        write!(f, "{}s", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

fn seconds(text: &str) -> anyhow::Result<Duration> {
    let refuse = || format!("{text:?} is not a time: write 12.345s");
    let number = text.strip_suffix('s').with_context(refuse)?;
    let seconds: f64 = number.parse().with_context(refuse)?;
    ensure!((0.0..1e9).contains(&seconds), refuse());
    Ok(Duration::from_millis((seconds * 1000.0).round() as u64))
}

#[cfg(test)]
mod tests;
