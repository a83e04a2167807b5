//! The voter set: who grants leases, and how it changes.
//!
//! The set is written down, never derived from who is alive. A change adds or removes one voter, so that any
//! majority before it meets any majority after it. The next set is chosen by single-decree Paxos (Lamport,
//! "Paxos Made Simple", 2001) among the voters of the set before; the table only spreads what was chosen.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Instant;
use crate::id::NodeId;
use crate::lease;
use crate::limits;

#[cfg(test)]
mod tests;

/// Generations of one era follow each other by agreement. A new era is declared by a user who gives up what
/// the old one promised.
const ERA_BITS: u32 = 32;

/// A node, and which life of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Which node.
    pub node: NodeId,
    /// Random, made with the node's table and kept with it: a node that lost its disk is another voter.
    pub incarnation: u64,
}

/// The voters of one generation. The default has nobody to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterSet {
    /// Grows by one with each agreed change.
    pub generation: u64,
    /// Epochs up to here may have been granted under sets before this one.
    pub floor: u64,
    /// No lease was in force under the set before when this one was chosen.
    pub quiet: bool,
    /// At most [`limits::VOTERS_MAX`], in the order of their keys, no node twice.
    pub members: Vec<Member>,
}

impl VoterSet {
    /// The set of a fabric that has just been founded.
    pub fn founded(founder: Member) -> Self {
        Self { generation: 1, floor: 0, quiet: true, members: vec![founder] }
    }

    /// How many voters decide.
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Whether `node` is one of them, in whichever life.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.members.iter().any(|member| member.node == *node)
    }

    /// Whether it is a set that anybody may act under.
    pub fn is_proper(&self) -> bool {
        self.generation > 0
            && self.floor <= limits::EPOCH_MAX
            && (1..=limits::VOTERS_MAX).contains(&self.members.len())
            && self.members.windows(2).all(|pair| pair[0].node < pair[1].node)
    }

    fn with(&self, member: Member) -> Vec<Member> {
        let mut members = self.members.clone();
        members.push(member);
        members.sort();
        members
    }

    fn without(&self, node: &NodeId) -> Vec<Member> {
        self.members.iter().copied().filter(|member| member.node != *node).collect()
    }

    /// A set by decree, of a new era: what the sets before it granted may still be in force somewhere.
    pub fn declared(&self, mut members: Vec<Member>, floor: u64) -> Self {
        members.sort();
        members.truncate(limits::VOTERS_MAX);
        let generation = ((self.generation >> ERA_BITS) + 1) << ERA_BITS;
        let floor = self.floor.max(floor).saturating_add(limits::EPOCH_FORCED_JUMP);
        Self { generation, floor: floor.min(limits::EPOCH_MAX), quiet: false, members }
    }

    /// Whether a user declared something between these two.
    pub fn is_of_another_era(&self, other: &VoterSet) -> bool {
        self.generation >> ERA_BITS != other.generation >> ERA_BITS
    }

    /// Whether `members` differ from this set's by one voter more or less.
    pub fn may_be_followed_by(&self, members: &[Member]) -> bool {
        let (mine, theirs): (BTreeSet<Member>, BTreeSet<Member>) =
            (self.members.iter().copied().collect(), members.iter().copied().collect());
        let next = self.followed_by(members.to_vec(), 0, false);
        next.is_proper()
            && !next.is_of_another_era(self)
            && mine.symmetric_difference(&theirs).count() == 1
    }

    /// The set of the next generation. Epochs up to `floor` may have been granted under this one.
    fn followed_by(&self, members: Vec<Member>, floor: u64, quiet: bool) -> Self {
        Self { generation: self.generation + 1, floor: self.floor.max(floor), quiet, members }
    }
}

/// Orders the attempts to choose the next set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts up.
    pub number: u64,
    /// Whose attempt.
    pub node: NodeId,
}

/// What proposers and acceptors of a change say to each other. `generation` is the set that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// 'Accept nothing below this any more.'
    Prepare {
        /// Of the set that is followed.
        generation: u64,
        /// Which attempt.
        attempt: Attempt,
    },
    /// 'I will not.'
    Promise {
        /// Of the set that is followed.
        generation: u64,
        /// Which attempt.
        attempt: Attempt,
        /// What it accepted last.
        accepted: Option<(Attempt, Vec<Member>)>,
    },
    /// 'Accept this.'
    Accept {
        /// Of the set that is followed.
        generation: u64,
        /// Which attempt.
        attempt: Attempt,
        /// Of the next set.
        members: Vec<Member>,
    },
    /// 'I have, and grant nothing under the set that is followed any more.'
    Accepted {
        /// Of the set that is followed.
        generation: u64,
        /// Which attempt.
        attempt: Attempt,
        /// Epochs up to here may have been granted by this voter.
        ceiling: u64,
        /// It has granted nothing that is still in force.
        quiet: bool,
    },
    /// 'I promised a later attempt.'
    Refused {
        /// Of the set that is followed.
        generation: u64,
        /// The one that it promised.
        promised: Attempt,
    },
}

/// One voter's part in choosing the set that follows the one it knows. On disk before any answer leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptor {
    /// Of the set that is followed.
    pub generation: u64,
    /// Nothing below this is accepted.
    pub promised: Option<Attempt>,
    /// What was accepted last. From then on nothing is granted under the set that is followed.
    pub accepted: Option<(Attempt, Vec<Member>)>,
}

impl Acceptor {
    /// A newer set is known: what was promised about its making is over.
    pub fn learn(&mut self, set: &VoterSet) {
        if set.generation > self.generation {
            *self = Self { generation: set.generation, ..Self::default() };
        }
    }

    /// Whether it has to grant nothing until it knows what was chosen.
    pub fn is_bound(&self, set: &VoterSet) -> bool {
        self.generation == set.generation && self.accepted.is_some()
    }

    /// Answers a proposer. `set` is the one that this voter knows, since `known_since` (`None`: nothing was in
    /// force before it); epochs up to `ceiling` its voter may have granted, and, if it is `quiet`, nothing that
    /// is still in force. The answer may leave once this acceptor is on disk.
    pub fn handle(
        &mut self,
        now: Instant,
        change: &Change,
        set: &VoterSet,
        known_since: Option<Instant>,
        ceiling: u64,
        quiet: bool,
    ) -> Option<Change> {
        let generation = set.generation;
        self.learn(set);
        // Leases of the set before this one have to be over or renewed. Nor is it promised before: whoever accepts first
        // grants nothing until enough others have accepted, and would wait for this one.
        let settled = known_since.is_none_or(|since| now.since(since) >= lease::longest_hold());
        if !settled {
            return None;
        }
        match change {
            Change::Prepare { generation: of, attempt } if *of == generation => {
                if self.promised.is_some_and(|promised| promised > *attempt) {
                    return self.promised.map(|promised| Change::Refused { generation, promised });
                }
                self.promised = Some(*attempt);
                let accepted = self.accepted.clone();
                Some(Change::Promise { generation, attempt: *attempt, accepted })
            }
            Change::Accept { generation: of, attempt, members } if *of == generation => {
                if self.promised.is_some_and(|promised| promised > *attempt) {
                    return self.promised.map(|promised| Change::Refused { generation, promised });
                }
                if !set.may_be_followed_by(members) {
                    return None;
                }
                self.promised = Some(*attempt);
                self.accepted = Some((*attempt, members.clone()));
                Some(Change::Accepted { generation, attempt: *attempt, ceiling, quiet })
            }
            _ => None,
        }
    }
}

/// One attempt to choose the next set.
#[derive(Clone, Debug)]
pub struct Proposer {
    generation: u64,
    attempt: Attempt,
    /// What to propose if nothing was accepted before.
    wish: Wish,
    promises: BTreeMap<NodeId, Option<(Attempt, Vec<Member>)>>,
    ceiling: u64,
    quiet: bool,
    value: Option<Vec<Member>>,
    accepted: BTreeSet<NodeId>,
    /// When it is given up.
    pub deadline: Instant,
}

/// How a set should change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// One voter more.
    Add(Member),
    /// One voter less.
    Drop(NodeId),
}

impl Proposer {
    /// The attempt with this number, by `me`.
    pub fn new(now: Instant, me: NodeId, number: u64, set: &VoterSet, wish: Wish) -> Self {
        Self {
            generation: set.generation,
            attempt: Attempt { number, node: me },
            wish,
            promises: BTreeMap::new(),
            ceiling: 0,
            quiet: true,
            value: None,
            accepted: BTreeSet::new(),
            deadline: now + limits::VOTERS_ATTEMPT,
        }
    }

    /// Which attempt it is.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Which set it wants to follow.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What to say to every voter of the set now; said again, it does no harm.
    pub fn say(&self) -> Change {
        let (generation, attempt) = (self.generation, self.attempt);
        match &self.value {
            None => Change::Prepare { generation, attempt },
            Some(members) => Change::Accept { generation, attempt, members: members.clone() },
        }
    }

    /// A voter answered. `Some`: this set was chosen.
    pub fn hear(&mut self, from: NodeId, change: &Change, set: &VoterSet) -> Option<VoterSet> {
        if set.generation != self.generation || !set.contains(&from) {
            return None;
        }
        match change {
            Change::Promise { generation, attempt, accepted }
                if *generation == self.generation && *attempt == self.attempt =>
            {
                // Another's word may be broken; what it cannot have accepted is not taken over.
                let accepted = accepted.clone().filter(|(_, next)| set.may_be_followed_by(next));
                self.promises.insert(from, accepted);
                if self.value.is_none() && self.promises.len() >= set.majority() {
                    self.value = self.choose(set);
                }
                None
            }
            Change::Accepted { generation, attempt, ceiling, quiet }
                if *generation == self.generation && *attempt == self.attempt =>
            {
                self.ceiling = self.ceiling.max((*ceiling).min(limits::EPOCH_MAX));
                self.quiet &= *quiet;
                self.accepted.insert(from);
                let members =
                    self.value.clone().filter(|_| self.accepted.len() >= set.majority())?;
                Some(set.followed_by(members, self.ceiling, self.quiet))
            }
            _ => None,
        }
    }

    fn choose(&self, set: &VoterSet) -> Option<Vec<Member>> {
        let before = self.promises.values().flatten().max_by_key(|(attempt, _)| *attempt);
        if let Some((_, next)) = before {
            return Some(next.clone());
        }
        let next = match self.wish {
            Wish::Add(member) => set.with(member),
            Wish::Drop(node) => set.without(&node),
        };
        set.may_be_followed_by(&next).then_some(next)
    }
}
