//! What a slot waits for that runs nowhere as far as this node sees, and for which nothing is placed yet: in words, with the time
//! that it takes at the most. Any node can be asked; what only the job's coordinator knows of its own start is said by that one.

use std::time::Duration;

use super::informed::Hold;
use super::{Canary, Node, Waits};
use crate::alloc::AllocRow;
use crate::api::NodeState;
use crate::clock::{Instant, Now};
use crate::id::{NodeId, SlotId};
use crate::job::{Guarantee, JobSpec, duration};
use crate::limits;

/// Why a slot is not placed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    /// What a member that is not up runs is left to it.
    LeftTo(NodeId, Reason),
    /// Somebody who was not heard may run it.
    MayRunUnheard,
}

/// Why it is left to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// See [`Hold`].
    Held(Hold),
    /// Its agent has stopped, so nobody renews the lease, without which nothing of the slot runs.
    Lease { until: Instant },
    /// Many members are gone at once: is that so?
    Doubted { until: Instant },
    /// It is so; what is more important has its turn.
    AfterOthers { until: Instant },
}

impl Node {
    /// Whether, and why, what a member runs that is not up is not to be placed elsewhere yet.
    pub(super) fn held_back(&self, now: Now, node: &NodeId, spec: &JobSpec) -> Option<Reason> {
        let unknown = self.others.membership.state(node) == NodeState::Unknown
            || self.others.informed.was_gone_before(now.at, node);
        let hold = self.others.informed.hold(now.at, node, unknown);
        let hold = hold.filter(|hold| match self.config.canary {
            Some(Canary::PlacesUnheard) => false,
            Some(Canary::TakesOverUnmet) => {
                !matches!(hold, Hold::NoLink { until: Some(_) } | Hold::Heard { .. })
            }
            _ => true,
        });
        let held = hold.map(|hold| match hold {
            // Who is away for longer comes back to nothing of it: there is nothing to wait for.
            Hold::Away { said, .. } if spec.guarantee == Guarantee::AtMostOne => {
                Reason::Lease { until: said + limits::LEASE }
            }
            hold => Reason::Held(hold),
        });
        let is_over =
            |reason: &Reason| matches!(reason, Reason::Lease { until } if *until <= now.at);
        held.filter(|reason| !is_over(reason)).or_else(|| {
            let until = self.others.doubt.holds_until(now.at, node, spec.priority)?;
            Some(match self.others.doubt.covers(node) {
                true => Reason::Doubted { until },
                false => Reason::AfterOthers { until },
            })
        })
    }

    /// Why a slot that nobody who is up runs is not placed yet. `None`: it may be.
    pub(super) fn pending(&self, now: Now, spec: &JobSpec, slot: &SlotId) -> Option<Pending> {
        // What a node that has just started does not know says nothing of the one that looks after the job.
        let decides = self.coordinator_of(&spec.name) == self.config.id;
        let told = |reason: &Reason| {
            decides || !matches!(reason, Reason::Held(Hold::NoLink { .. } | Hold::Unheard { .. }))
        };
        let left_to = |(node, _): (NodeId, &AllocRow)| {
            let reason = self.held_back(now, &node, spec).filter(told)?;
            let away = matches!(reason, Reason::Held(Hold::Away { .. }) | Reason::Lease { .. });
            Some((away, node, reason))
        };
        let left = self.rows_elsewhere(slot).filter_map(left_to).max_by_key(|(away, ..)| *away);
        let unheard =
            || (decides && self.may_be_run_unheard(slot)).then_some(Pending::MayRunUnheard);
        left.map(|(_, node, reason)| Pending::LeftTo(node, reason)).or_else(unheard)
    }

    /// Rows of a slot that hold a claim on nodes that are not up.
    pub(super) fn rows_elsewhere(
        &self,
        slot: &SlotId,
    ) -> impl Iterator<Item = (NodeId, &AllocRow)> {
        let rows = self.replica.allocs_in(slot).map(|(_, node, row, _)| (node, row));
        rows.filter(|(node, row)| row.phase.holds_claim() && !self.is_up(node))
    }

    /// The same of slots of a service that none who is up runs: how many wait, and for what the first of them does.
    pub(super) fn pending_slots(
        &self,
        now: Now,
        spec: &JobSpec,
        empty: impl Iterator<Item = u32>,
    ) -> (u32, Option<String>) {
        let (mut count, mut first) = (0, None);
        for index in empty {
            let slot = SlotId { job: spec.name.clone(), index };
            if let Some(pending) = self.pending(now, spec, &slot) {
                count += 1;
                first.get_or_insert((slot, pending));
            }
        }
        let words = first.map(|(slot, pending)| {
            let others = match count - 1 {
                0 => String::new(),
                1 => "; so does 1 more slot".into(),
                more => format!("; so do {more} more slots"),
            };
            format!("{slot} {}{others}", self.pending_in_words(now, pending))
        });
        (count, words)
    }

    /// What a plan says of the first of the slots that would not be placed at once. Who was not heard cannot run what is about to be
    /// submitted; `same`: nothing is.
    pub(super) fn pending_in_a_plan(
        &self,
        now: Now,
        spec: &JobSpec,
        mut empty: impl Iterator<Item = u32>,
        same: bool,
    ) -> Option<String> {
        empty.find_map(|index| {
            let slot = SlotId { job: spec.name.clone(), index };
            let pending = self.pending(now, spec, &slot);
            let pending = pending.filter(|it| same || matches!(it, Pending::LeftTo(..)))?;
            Some(format!("{slot} {}", self.pending_in_words(now, pending)))
        })
    }

    /// What a slot waits for: `waits for two, whose agent has stopped ...`.
    pub(super) fn pending_in_words(&self, now: Now, pending: Pending) -> String {
        let me = self.name_of(&self.config.id);
        let left = |until: Instant| duration::display(in_seconds(until.since(now.at)));
        let (node, removal, reason) = match pending {
            Pending::LeftTo(node, reason) => {
                (self.name_of(&node), self.removal_command(&node), reason)
            }
            Pending::MayRunUnheard => return format!("waits: {}", self.unheard_in_words(now)),
        };
        match reason {
            Reason::Lease { until } => format!(
                "waits for {node}, whose agent has stopped and renews no lease: placed elsewhere unless it is back within {}",
                left(until)
            ),
            Reason::Held(Hold::Away { until, .. }) => format!(
                "waits for {node}, whose agent has stopped and whose units run on: placed elsewhere unless it is back within {}",
                left(until)
            ),
            Reason::Held(Hold::NoLink { until: None }) => {
                format!("waits for {node}, which may run it: {me} has no link to a network")
            }
            Reason::Held(Hold::NoLink { until: Some(until) }) => format!(
                "waits for {node}: {me} had no link to a network until a moment ago, and listens for {} at the most",
                left(until)
            ),
            Reason::Held(Hold::Heard { until }) => format!(
                "waits for {node}, which was heard a moment ago though others call it dead: for {} at the most",
                left(until)
            ),
            Reason::Held(Hold::Unheard { until: None }) => format!(
                "waits for {node}, which may run it: {me} has heard no other member since its agent started; if {node} is gone \
                 for good: {}",
                removal
            ),
            Reason::Held(Hold::Unheard { until: Some(until) }) => format!(
                "waits for {node}, which {me} has not heard since its agent started and which may run it: placed elsewhere \
                 unless it is heard within {}",
                left(until)
            ),
            Reason::Doubted { until } => format!(
                "was on {node}, one of {} nodes gone at once: making sure, for {} at the most",
                self.others.doubt.about().unwrap_or(1),
                left(until)
            ),
            Reason::AfterOthers { until } => {
                format!("was on {node}: what is more important goes first, for {}", left(until))
            }
        }
    }

    /// What removes a member that is gone for good, to be typed here: it is refused without `--force` where no majority of the
    /// voters would be left.
    pub fn removal_command(&self, node: &NodeId) -> String {
        let force = if self.voters_without(node, false).is_err() { " --force" } else { "" };
        format!("weft node {} remove{force}", self.name_of(node))
    }

    /// The same for all that were not heard since this node's start, of whom a few are named.
    pub fn removal_commands(&self) -> String {
        let unheard = self.unheard();
        let commands = unheard.iter().take(limits::REASONS_MAX);
        let mut commands: Vec<String> = commands.map(|node| self.removal_command(node)).collect();
        if let more @ 1.. = unheard.len() - commands.len() {
            commands.push(format!("and so on for {more} more"));
        }
        commands.join(", ")
    }

    /// Why somebody who was not heard may run a slot.
    fn unheard_in_words(&self, now: Now) -> String {
        let me = self.name_of(&self.config.id);
        let waits = self.waits(now.at);
        let left = || {
            let until = self.others.informed.unheard_until()?;
            Some(format!(
                ", for {} at the most",
                duration::display(in_seconds(until.since(now.at)))
            ))
        };
        match waits {
            Some(Waits::NoLink) => {
                format!("others may run it, and {me} has no link to a network")
            }
            Some(Waits::HeardNobody) => format!(
                "others may run it, and {me} has heard none of them since its agent started; if they are gone for good: {}",
                self.removal_commands()
            ),
            Some(Waits::NotAllHeard) => format!(
                "{} may run it and was not heard since the agent of {me} started{}",
                self.names_of(&self.unheard()),
                left().unwrap_or_default()
            ),
            Some(Waits::NotCompared) | None => format!(
                "the agent of {me} has just started, and compares with the others what it knows{}",
                left().unwrap_or_default()
            ),
        }
    }
}

/// Whole seconds, and never none.
fn in_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_millis().div_ceil(1000).max(1) as u64)
}

#[cfg(test)]
mod tests;
