//! From what is known to reasons: a pure function.
//!
//! The measure of all reasons is time. A slot that had something to do either had a CPU or lost time: it waited
//! for a CPU, for its quota, for a disk, for memory. Each reason's share is its part of all that, so shares
//! add up to what was lost, and the largest explains most. What a reason costs is estimated where only events
//! are counted (retransmissions, page faults), and said to be.

use serde::Serialize;

use super::facts::{Facts, Number, Who};
use crate::chart::{number, seconds};

/// A smaller share explains nothing.
const SHARE_MIN: f64 = 0.01;
/// Seconds a second of anything at all, below which a slot has nothing to do.
const BUSY_MIN: f64 = 0.000_1;
/// A share has grown if it is that many times what it was. One that has not explains half as much: the job
/// lived with it.
const GROWN: f64 = 1.25;
/// Everything of a node that is in no unit, under this name.
const OTHER: &str = "other";
/// Seconds until a lost segment is sent again, at least: Linux' `TCP_RTO_MIN`.
const RETRANSMIT_SECONDS: f64 = 0.2;
/// Seconds that a page fault without a disk takes: assumed, not measured. Answers call what follows 'about'.
const FAULT_SECONDS: f64 = 1e-6;
/// The part of its own CPUs that a slot must have used to have waited for itself.
const OWN_BUSY_MIN: f64 = 0.4;
/// CPUs below which a neighbour does not matter.
const NEIGHBOUR_CPU_MIN: f64 = 0.05;

/// What time is lost to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Processes of it were killed for want of memory.
    OutOfMemory,
    /// Others have the CPUs.
    Cpu,
    /// Its quota is used up.
    Throttling,
    /// Requests to disks.
    Disk,
    /// Memory has to be made free, or read again.
    Memory,
    /// Segments that are sent again.
    Network,
    /// Pages that are touched for the first time.
    PageFaults,
}

impl Cause {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::OutOfMemory,
        Self::Cpu,
        Self::Throttling,
        Self::Disk,
        Self::Memory,
        Self::Network,
        Self::PageFaults,
    ];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::OutOfMemory => "killed for want of memory",
            Self::Cpu => "waiting for a CPU",
            Self::Throttling => "throttled by its quota",
            Self::Disk => "waiting for a disk",
            Self::Memory => "waiting for memory",
            Self::Network => "segments sent again",
            Self::PageFaults => "page faults",
        }
    }

    fn is_estimated(self) -> bool {
        matches!(self, Self::Network | Self::PageFaults)
    }
}

/// What was found about one slot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// `web/0`
    pub slot: String,
    /// The node's name.
    pub node: String,
    /// It had something to do.
    pub busy: bool,
    /// The part of its busy time that it lost.
    pub lost: f64,
    /// What explains most comes first.
    pub reasons: Vec<Reason>,
    /// Looked at, and too little to matter.
    pub innocent: Vec<Cause>,
    /// What nobody could tell.
    pub unmeasured: Vec<Cause>,
    /// How long the network takes, where there are connections.
    pub round_trip: Option<RoundTrip>,
}

/// Seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundTrip {
    /// In the range.
    pub now: f64,
    /// Before it.
    pub before: Option<f64>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// What time is lost to.
    pub cause: Cause,
    /// The part of the busy time.
    pub share: f64,
    /// It is estimated from counted events.
    pub estimated: bool,
    /// The share before, as far as anything is known of it.
    pub before: Option<f64>,
    /// It is more than before, or nothing is known of before.
    pub grown: bool,
    /// The share that others on the node lose, together.
    pub others: Option<f64>,
    /// Who takes it: a slot or a unit, if it is one that can be named.
    pub culprit: Option<String>,
    /// Who takes it and how much, in words.
    pub who: Option<String>,
    /// More that was seen.
    pub detail: Option<String>,
    /// What helps.
    pub advice: Option<String>,
}

/// What is known of one slot's time, or of several together.
struct Time {
    /// Seconds a second.
    cpu: f64,
    /// Seconds a second by cause; `None`: nobody can tell.
    lost: [(Cause, Option<f64>); Cause::ALL.len()],
}

impl Time {
    /// Of numbers that are told.
    fn of(number: impl Fn(Number) -> Option<f64>) -> Self {
        let throttled = number(Number::Throttled);
        let lost = Cause::ALL.map(|cause| {
            let seconds = match cause {
                // Whoever is throttled waits for a CPU too: that is not others' doing.
                Cause::Cpu => number(Number::CpuWait).map(|wait| wait - throttled.unwrap_or(0.0)),
                Cause::Throttling => throttled,
                // Requests overlap with each other and with work: their time is the most that it can be.
                Cause::Disk => number(Number::DiskStall)
                    .or_else(|| number(Number::DiskTime).map(|seconds| seconds.min(1.0))),
                Cause::Memory => number(Number::MemoryStall),
                Cause::Network => {
                    number(Number::Retransmits).map(|again| again * RETRANSMIT_SECONDS)
                }
                Cause::PageFaults => number(Number::Faults).map(|faults| faults * FAULT_SECONDS),
                // A process that is killed loses all that it was at.
                Cause::OutOfMemory => number(Number::Kills).map(|kills| kills.round().max(0.0)),
            };
            (cause, seconds.map(|seconds| seconds.max(0.0)))
        });
        Self { cpu: number(Number::Cpu).unwrap_or(0.0).max(0.0), lost }
    }

    fn all(&self) -> f64 {
        self.cpu + self.lost.iter().filter_map(|(_, seconds)| *seconds).sum::<f64>()
    }

    fn share(&self, cause: Cause) -> Option<f64> {
        let all = self.all();
        let (_, seconds) = self.lost.iter().find(|(one, _)| *one == cause)?;
        let seconds = (*seconds)?;
        Some(if all < BUSY_MIN { 0.0 } else { seconds / all })
    }
}

/// What each slot of the job loses time to.
pub fn find(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.slots.iter().map(|slot| of_slot(facts, slot)).collect();
    findings.sort_by(|left, right| right.lost.total_cmp(&left.lost));
    findings
}

fn of_slot(facts: &Facts, slot: &Who) -> Finding {
    let now = Time::of(|number| facts.of(number, slot));
    let before = Time::of(|number| facts.earlier(number, slot));
    let others = Time::of(|number| {
        let mut amounts = facts.others(number, slot).map(|(_, amount)| amount).peekable();
        amounts.peek().is_some().then_some(())?;
        Some(amounts.sum())
    });
    let knows_before = before.all() >= BUSY_MIN;
    let (mut reasons, mut innocent, mut unmeasured) = (Vec::new(), Vec::new(), Vec::new());
    for cause in Cause::ALL {
        let Some(share) = now.share(cause) else {
            unmeasured.push(cause);
            continue;
        };
        if share < SHARE_MIN {
            innocent.push(cause);
            continue;
        }
        let earlier = before.share(cause).filter(|_| knows_before);
        let (culprit, who) = blame(facts, slot, cause);
        reasons.push(Reason {
            cause,
            share,
            estimated: cause.is_estimated(),
            before: earlier,
            grown: earlier.is_none_or(|earlier| share > earlier * GROWN),
            others: others.share(cause),
            who,
            detail: detail(facts, slot, cause),
            advice: advice(facts, slot, cause, culprit.as_deref()),
            culprit,
        });
    }
    let weight = |reason: &Reason| if reason.grown { reason.share } else { reason.share / 2.0 };
    reasons.sort_by(|left, right| weight(right).total_cmp(&weight(left)));
    let lost = if now.all() < BUSY_MIN { 0.0 } else { 1.0 - now.cpu / now.all() };
    let round_trip = facts
        .of(Number::RoundTrip, slot)
        .map(|now| RoundTrip { now, before: facts.earlier(Number::RoundTrip, slot) });
    Finding {
        slot: slot.name.clone(),
        node: slot.node.clone(),
        busy: now.all() >= BUSY_MIN,
        lost,
        reasons,
        innocent,
        unmeasured,
        round_trip,
    }
}

/// Who takes what the slot waits for: by name if it is somebody else, and in words.
fn blame(facts: &Facts, slot: &Who, cause: Cause) -> (Option<String>, Option<String>) {
    match cause {
        Cause::Cpu => blame_cpu(facts, slot),
        Cause::Disk => {
            let told = [Number::DiskTime, Number::DiskBytes].into_iter().find_map(|asked| {
                let (who, most) = largest(facts, asked, slot, |_| true)?;
                (most > facts.of(asked, slot).unwrap_or(0.0)).then_some((asked, who, most))
            });
            let Some((asked, who, most)) = told else {
                return (None, Some("its own requests".into()));
            };
            let own = facts.of(asked, slot).unwrap_or(0.0);
            let words = match asked {
                Number::DiskBytes => format!(
                    "most bytes are {}'s: {}/s, and {}/s its own",
                    who.name,
                    fabric::resources::bytes(most as u64),
                    fabric::resources::bytes(own as u64)
                ),
                _ => format!(
                    "most of the disks' time is {}'s: {} requests at a time, and {} its own",
                    who.name,
                    number(most),
                    number(own)
                ),
            };
            (Some(who.name.clone()), Some(words))
        }
        Cause::Memory => match largest(facts, Number::Memory, slot, |_| true) {
            Some((who, most)) if most > facts.of(Number::Memory, slot).unwrap_or(0.0) => {
                let size = fabric::resources::bytes(most as u64);
                (
                    Some(who.name.clone()),
                    Some(format!("most memory there is {}'s: {size}", who.name)),
                )
            }
            _ => (None, None),
        },
        Cause::Network => match facts.peers.get(slot) {
            Some((peer, rate)) => {
                (None, Some(format!("most are for {peer}: {} a second", number(*rate))))
            }
            None => (None, None),
        },
        Cause::OutOfMemory | Cause::Throttling | Cause::PageFaults => (None, None),
    }
}

fn blame_cpu(facts: &Facts, slot: &Who) -> (Option<String>, Option<String>) {
    let own = facts.of(Number::Cpu, slot).unwrap_or(0.0);
    // Who has cores of its own takes nothing from the others.
    let neighbour = largest(facts, Number::Cpu, slot, |who| !facts.pinned.contains_key(who));
    if let Some(cpus) = facts.pinned.get(slot) {
        if explains_its_wait(facts, slot) {
            let words =
                format!("its CPUs are its own: its threads wait for each other ({own:.2} CPUs)");
            return (None, Some(words));
        }
        let little = format!("no other job may use its CPUs, of which it uses {own:.2} of {cpus}");
        return match neighbour.filter(|(_, most)| *most >= NEIGHBOUR_CPU_MIN) {
            Some((who, most)) => {
                let words = format!(
                    "{little}: something else runs on them, and {} {most:.2} CPUs of the node",
                    has(who)
                );
                (Some(who.name.clone()), Some(words))
            }
            None => (None, Some(format!("{little}: something else runs on them, unseen"))),
        };
    }
    match neighbour {
        Some((who, most)) if most >= NEIGHBOUR_CPU_MIN && most > own => {
            let words =
                format!("most of the CPUs is {}: {most:.2}, and {own:.2} its own", owner(who));
            (Some(who.name.clone()), Some(words))
        }
        Some((who, most)) if most >= NEIGHBOUR_CPU_MIN => {
            let words =
                format!("it takes most itself: {own:.2} CPUs; next is {} with {most:.2}", who.name);
            (None, Some(words))
        }
        _ => (None, Some(format!("nobody else takes much: its own threads do ({own:.2} CPUs)"))),
    }
}

/// Whether the threads of a slot with CPUs of its own can be what they wait for: then these have been busy.
fn explains_its_wait(facts: &Facts, slot: &Who) -> bool {
    let own = facts.of(Number::Cpu, slot).unwrap_or(0.0);
    facts.pinned.get(slot).is_some_and(|cpus| own >= *cpus as f64 * OWN_BUSY_MIN)
}

/// Who has something, in a sentence.
fn has(who: &Who) -> String {
    match who.name.as_str() {
        OTHER => "what is outside of all units has".into(),
        name => format!("{name} has"),
    }
}

/// Whose something is, in a sentence.
fn owner(who: &Who) -> String {
    match who.name.as_str() {
        OTHER => "somebody's outside of all units".into(),
        name => format!("{name}'s"),
    }
}

fn largest<'a>(
    facts: &'a Facts,
    number: Number,
    than: &Who,
    counts: impl Fn(&Who) -> bool,
) -> Option<(&'a Who, f64)> {
    let others = facts.others(number, than).filter(|(who, _)| counts(who));
    others.max_by(|left, right| left.1.total_cmp(&right.1))
}

fn detail(facts: &Facts, slot: &Who, cause: Cause) -> Option<String> {
    match cause {
        Cause::Disk => {
            let stall = facts.of(Number::DiskStall, slot);
            stall.is_none().then(|| "by the time its requests took: the most that it can be".into())
        }
        Cause::Memory => {
            let major = facts.of(Number::MajorFaults, slot)?;
            (major > 0.0)
                .then(|| format!("{} pages a second are read from disk again", number(major)))
        }
        Cause::OutOfMemory => {
            let kills = facts.of(Number::Kills, slot)?.round();
            Some(format!("{kills} of its processes in this time"))
        }
        Cause::Network => {
            let again = facts.of(Number::Retransmits, slot)?;
            Some(format!(
                "{} segments a second, each {} late at least",
                number(again),
                seconds(RETRANSMIT_SECONDS)
            ))
        }
        Cause::PageFaults => {
            Some(format!("{} a second", number(facts.of(Number::Faults, slot)?.round())))
        }
        Cause::Cpu | Cause::Throttling => None,
    }
}

fn advice(facts: &Facts, slot: &Who, cause: Cause, culprit: Option<&str>) -> Option<String> {
    let text = match (cause, culprit) {
        (Cause::Cpu, _) if facts.pinned.contains_key(slot) && explains_its_wait(facts, slot) => {
            "do: give it more cores, or fewer threads".into()
        }
        (Cause::Cpu, _) if facts.pinned.contains_key(slot) => {
            format!(
                "do: weft doctor on {} says who else may run on CPUs that jobs have for themselves",
                slot.node
            )
        }
        (Cause::Cpu, Some(OTHER)) => {
            "do: give it cores of its own, or end what runs there outside of units".into()
        }
        (Cause::Cpu, Some(culprit)) => {
            format!(
                "do: give it cores of its own (cores = 1 in its job file), or {culprit} another node"
            )
        }
        (Cause::Cpu, None) => "do: give it cores of its own, or more slots".into(),
        (Cause::Throttling, _) => {
            "do: raise cpu in its job file, or give it cores of its own".into()
        }
        (Cause::OutOfMemory, _) => "do: raise memory in its job file".into(),
        (Cause::Memory, _) => "do: raise memory in its job file, or move who takes most".into(),
        (Cause::Disk, Some(culprit)) => format!("do: give {culprit} another node, or another disk"),
        (Cause::Disk | Cause::Network | Cause::PageFaults, _) => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests;
