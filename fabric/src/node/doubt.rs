//! When a large part of the fabric is gone at once, it may be this node that is ill or cut off. It then doubts
//! itself before it makes good what was lost.
//!
//! # The rule
//!
//! - **It begins** when a member is lost while in all at least three members were lost within ten seconds or
//!   are suspected, and they are a quarter of the fabric or more, or this node's own local health is bad. It also begins
//!   when all others were lost, if they were two or more, and when one is lost while nobody else was heard for
//!   longer than a probe period: two machines seldom die at once, a cable is soon pulled. The last of *two* has nobody to
//!   hear, and acts at once if its machine has a link (`informed.rs`).
//! - **Meanwhile** slots whose allocation was on a lost member are not placed again. Everything else goes on:
//!   new jobs, updates, failures. Nothing that runs is touched.
//! - **It ends** when nobody was lost or suspected for five probe periods, half of the fabric or more still
//!   answers, and this node's local health is good again: five probes of those that it sees were answered,
//!   and they, who probe each other, brought no more losses. Failing that it ends after ten seconds.
//! - **Then** what was lost is placed, the most important first: a slot waits 30 ms more for each point that its
//!   priority is below 100, since coordinators do not ask each other. Most of what is less important then
//!   sees what room is left.
//!
//! So either half of a split goes on scheduling, at most thirteen seconds later.

use std::collections::{BTreeSet, VecDeque};

use crate::clock::Instant;
use crate::id::NodeId;
use crate::limits;

/// What a node thinks of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubt {
    /// Members that were lost a short time ago and did not come back, the first one first.
    lost: VecDeque<(Instant, NodeId)>,
    case: Option<Case>,
    after: Option<After>,
}

/// A doubt that is over.
#[derive(Clone, Debug)]
struct After {
    ended: Instant,
    members: BTreeSet<NodeId>,
}

/// A doubt under way.
#[derive(Clone, Debug)]
struct Case {
    since: Instant,
    /// When somebody was lost or suspected last.
    moved: Instant,
    members: BTreeSet<NodeId>,
}

/// How this node sees the fabric at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// Members that are up, suspects and this node included.
    pub up: usize,
    /// Members that are up and suspected.
    pub suspects: usize,
    /// The local health score: 0 is well.
    pub local_health: u32,
    /// Others seem to be up, and none of them was heard for longer than they are ever silent.
    pub deaf: bool,
}

/// What became of a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is none, nor was there a short time ago.
    None,
    /// It has begun.
    Begun,
    /// It goes on.
    Doubting,
    /// It is over: act.
    Over,
    /// It was over a short time ago: the less important slots have their turn.
    After,
}

impl Doubt {
    /// A member is dead.
    pub fn lose(&mut self, at: Instant, node: NodeId) {
        self.find(&node);
        self.lost.push_back((at, node));
    }

    /// A member is there again.
    pub fn find(&mut self, node: &NodeId) {
        self.lost.retain(|(_, lost)| lost != node);
        if let Some(case) = &mut self.case {
            case.members.remove(node);
        }
        if let Some(after) = &mut self.after {
            after.members.remove(node);
        }
    }

    /// Begins, goes on with or ends a doubt.
    pub fn review(&mut self, at: Instant, sight: Sight) -> Turn {
        self.lost.retain(|(when, _)| at.since(*when) < limits::DOUBT_WINDOW);
        let is_well = sight.local_health < limits::DOUBT_HEALTH;
        let longest = limits::IMPORTANCE_STEP * 100;
        let is_after = self.after.is_some();
        self.after = self.after.take().filter(|after| at.since(after.ended) < longest);
        let Some(case) = &mut self.case else {
            let missing = self.lost.len() + sight.suspects;
            let before = sight.up + self.lost.len();
            let many = missing >= limits::DOUBT_MEMBERS_MIN
                && (missing * limits::DOUBT_PART >= before || !is_well);
            let all_but_me = sight.up == 1 && self.lost.len() >= 2;
            let begins = !self.lost.is_empty() && (many || all_but_me || sight.deaf);
            if !begins {
                return if is_after { Turn::After } else { Turn::None };
            }
            let members = self.lost.iter().map(|(_, node)| *node).collect();
            self.case = Some(Case { since: at, moved: at, members });
            return Turn::Begun;
        };
        let news = self.lost.iter().filter(|(_, node)| case.members.insert(*node)).count();
        if news > 0 || sight.suspects > 0 {
            case.moved = at;
        }
        let is_calm = at.since(case.moved) >= limits::DOUBT_CALM;
        let sees_half = sight.up >= case.members.len();
        if is_calm && is_well && sees_half || at.since(case.since) >= limits::DOUBT_MAX {
            let members = self.case.take().map(|case| case.members).unwrap_or_default();
            self.after = Some(After { ended: at, members });
            self.lost.clear();
            return Turn::Over;
        }
        Turn::Doubting
    }

    /// Whether it is doubtful that the member is gone: what it ran is not to be placed elsewhere yet.
    pub fn covers(&self, node: &NodeId) -> bool {
        self.case.as_ref().is_some_and(|case| case.members.contains(node))
    }

    /// Until when, at the latest, a slot of this priority that the member ran has to wait: for the end of the doubt, or after
    /// it for more important ones. `None`: it has not to.
    pub fn holds_until(&self, at: Instant, node: &NodeId, priority: u8) -> Option<Instant> {
        let wait = limits::IMPORTANCE_STEP * u32::from(100u8.saturating_sub(priority));
        let case = self.case.as_ref().filter(|case| case.members.contains(node));
        let after = self.after.as_ref().filter(|after| after.members.contains(node));
        let turn = after.map(|after| after.ended + wait).filter(|turn| at < *turn);
        case.map(|case| case.since + limits::DOUBT_MAX + wait).or(turn)
    }

    /// Whether a node has to look more often.
    pub fn is_awake(&self) -> bool {
        self.case.is_some() || self.after.is_some()
    }

    /// How many members it is about; `None` without a doubt.
    pub fn about(&self) -> Option<usize> {
        self.case.as_ref().map(|case| case.members.len())
    }
}

#[cfg(test)]
mod tests;
