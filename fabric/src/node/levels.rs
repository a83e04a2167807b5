//! Which level the fabric has reached, and what follows from it: see [`crate::level`].

use crate::api::{Problem, ProblemKind};
use crate::clock::Now;
use crate::id::NodeId;
use crate::level::{LEVEL_MIN, Leveled};
use crate::topology::NodeInfo;

use super::{Canary, Node};

/// The level from which on a node says which pools of disk it has.
const POOLS: u8 = 3;

/// How far the fabric has come, as this node knows. It only rises.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    reached: u8,
    /// Somebody's row or the roster has changed since it was looked at.
    pub stale: bool,
}

impl Default for Levels {
    fn default() -> Self {
        Self { reached: LEVEL_MIN, stale: true }
    }
}

impl Levels {
    pub fn reached(&self) -> u8 {
        self.reached
    }

    /// From the disk.
    pub fn restore(&mut self, reached: u8) {
        self.reached = self.reached.max(reached);
    }
}

impl Node {
    /// The level that the fabric has reached: nothing above it is written.
    pub fn level(&self) -> u8 {
        self.levels.reached
    }

    /// Whether the fabric writes what this agent cannot read.
    pub fn is_too_old(&self) -> bool {
        self.levels.reached > self.config.level
    }

    /// Members that hold the fabric back from what this agent reads.
    pub fn held_back_by(&self) -> Vec<NodeId> {
        if self.levels.reached >= self.config.level {
            return Vec::new();
        }
        let below = |node: &NodeId| {
            self.replica.node(node).is_none_or(|info| info.level <= self.levels.reached)
        };
        self.replica.roster().map(|(node, _)| node).filter(below).collect()
    }

    /// Looks how far the fabric has come.
    pub(super) fn review_levels(&mut self, now: Now) {
        if !std::mem::take(&mut self.levels.stale) {
            return;
        }
        let rows = || self.replica.roster().map(|(node, _)| self.replica.node(&node));
        let known = rows().flatten().map(|info| info.reached).max().unwrap_or(LEVEL_MIN);
        // Whoever has not said anything yet may be of any level.
        let all = rows().map(|info| info.map_or(LEVEL_MIN, |info| info.level)).min();
        let reached = self.levels.reached.max(known).max(all.unwrap_or(LEVEL_MIN));
        if reached == self.levels.reached {
            return;
        }
        self.levels.reached = reached;
        self.replica.disk_mut().set_level(reached);
        if self.is_too_old() {
            tracing::error!(
                fabric = reached,
                agent = self.config.level,
                "the fabric writes what this agent cannot read: upgrade it; until then it takes no part, and what runs here \
                 runs on"
            );
        } else {
            tracing::info!(
                level = reached,
                "all members can read this level: the fabric has reached it"
            );
        }
        self.info.reached = reached;
        self.publish_info(now);
    }

    /// What this node says of itself, without what the fabric cannot read yet: it is said once all members can.
    pub(super) fn readable_info(&self) -> NodeInfo {
        let mut info = self.info.clone();
        if self.levels.reached < POOLS {
            info.topology.pools.clear();
        }
        info
    }

    /// What a user asks for can be written at the level that the fabric has reached.
    pub(super) fn check_level(&self, what: &impl Leveled) -> Result<(), Problem> {
        let needed = what.level();
        if needed <= self.levels.reached || self.config.canary == Some(Canary::WritesAnyLevel) {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::Conflict,
            "an agent of this fabric is too old for that",
            format!(
                "it needs level {needed}, and the fabric is at level {} as long as there are agents that read no more: upgrade \
                 {}",
                self.levels.reached,
                self.names_of(&self.held_back_by())
            ),
        ))
    }

    /// A node that wants to join can read what is written here.
    pub(super) fn check_joiner(&self, level: u8) -> Result<(), Problem> {
        if level >= self.levels.reached {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::Conflict,
            "its agent is too old for this fabric",
            format!(
                "the fabric is at level {}, and the agent that wants to join reads up to level {level}: upgrade it",
                self.levels.reached
            ),
        ))
    }
}

#[cfg(test)]
mod tests;
