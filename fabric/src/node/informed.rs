//! Whether this node knows what the others run, and whom it has to wait for before it takes their work over.
//!
//! Silence has several reasons, and only one of them is a machine that is gone:
//!
//! - **This node has just started.** Rows of other nodes' allocations are not on its disk, so its table is not all there
//!   is. It is *informed* once a member that was informed says that their tables are equal or sends what is missing, or
//!   once every member was heard and compared tables with it, or else [`limits::UNHEARD_HOLD`] after the
//!   first member was heard. While it has heard nobody it stays uninformed: others may be running all of it.
//! - **This machine has no link.** Nobody can be heard, and whoever is gone for this node is probably well. This lasts until
//!   a link is back, and then until a member was heard, or for [`limits::RECONNECT_HOLD`]. Those that were not found alive by
//!   then are waited for as long.
//! - **Somebody else says so who cannot know.** A member of which a word came a moment ago is not gone for this node, whoever
//!   calls it dead: one that was cut off says so of all others.
//! - **A member said that its agent stops and its units run on**: it has [`limits::AWAY_GRACE`] to come back.
//!
//! Meanwhile this node keeps and restarts what it runs itself, and places what was submitted since: nobody who was not
//! heard can have heard of that. All else waits.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Instant;
use crate::id::NodeId;
use crate::limits;

/// See the module's words.
#[derive(Clone, Debug)]
pub(super) struct Informed {
    /// Not informed since the start, and what was written by then may be run by others.
    starting: bool,
    started: Instant,
    /// Who was heard since the start, while that matters.
    heard: BTreeSet<NodeId>,
    /// When a member was first heard since the start.
    heard_first: Option<Instant>,
    /// When a member was last heard.
    heard_last: Option<Instant>,
    /// Members that compared tables with this node since its start.
    agreed: BTreeSet<NodeId>,
    cut: Option<Cut>,
    /// Members that said that they would be back, and when.
    away: BTreeMap<NodeId, Instant>,
    /// When a link came back last, as long as that matters, and who was found alive since.
    back: Option<Instant>,
    met: BTreeSet<NodeId>,
    /// When a word of a member came last, of those of the last moments.
    words: BTreeMap<NodeId, Instant>,
    /// Members that said themselves that they go, and were not found since: they still say so when they are gone.
    parted: BTreeSet<NodeId>,
    /// Members that were taken for dead while nobody listened to this node.
    gone_before: BTreeSet<NodeId>,
}

/// This machine has, or had, no link.
#[derive(Clone, Debug)]
struct Cut {
    /// What was written by then may be run by others.
    since: Instant,
    /// When a link came back.
    back: Option<Instant>,
}

/// Why work that others may run waits, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// No other member was heard since this node's start.
    HeardNobody,
    /// Not all members were heard since this node's start.
    NotAllHeard,
    /// All were heard, and have not compared tables with this node yet.
    NotCompared,
    /// This machine has no link to a network.
    NoLink,
}

/// Why what a member runs that is not up is not to be placed elsewhere yet, and until when at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// This machine has no link. With an end: it had none until a moment ago.
    NoLink { until: Option<Instant> },
    /// Its agent said that it stops and that its units run on.
    Away { said: Instant, until: Instant },
    /// It was heard itself a moment ago, whatever others say.
    Heard { until: Instant },
    /// It was not heard since this node's start. Without an end: nobody was.
    Unheard { until: Option<Instant> },
}

impl Informed {
    /// A node that has just started, uninformed.
    pub fn new(now: Instant) -> Self {
        Self {
            starting: true,
            started: now,
            heard: BTreeSet::new(),
            heard_first: None,
            heard_last: None,
            agreed: BTreeSet::new(),
            cut: None,
            away: BTreeMap::new(),
            back: None,
            met: BTreeSet::new(),
            words: BTreeMap::new(),
            parted: BTreeSet::new(),
            gone_before: BTreeSet::new(),
        }
    }

    /// A node that nobody listened to for a while, and that begins anew: what it took for deaths meanwhile is worth
    /// nothing.
    pub fn anew(now: Instant, gone: BTreeSet<NodeId>) -> Self {
        Self { gone_before: gone, ..Self::new(now) }
    }

    /// Whether a member was taken for dead before this node began anew, and was not found alive since: that a word of it
    /// has come is not enough, for membership still calls it dead then.
    pub fn was_gone_before(&self, at: Instant, node: &NodeId) -> bool {
        let lately = self.starting || at.since(self.started) < limits::UNHEARD_HOLD;
        lately && self.gone_before.contains(node)
    }

    /// It knows all there is. True: that is news.
    pub fn settle(&mut self) -> bool {
        if self.cut.as_ref().is_some_and(|cut| cut.back.is_some()) {
            self.cut = None;
            self.starting = false;
            return true;
        }
        std::mem::take(&mut self.starting)
    }

    /// Whether what this node says of the fabric is worth another one's trust.
    pub fn is_settled(&self) -> bool {
        !self.starting && self.cut.is_none()
    }

    /// A member was heard. What it runs is waited for until membership has found it, too: a word of one that is called dead
    /// still may be the first after its return.
    pub fn hear(&mut self, at: Instant, from: NodeId, is_up: bool) {
        self.heard_first.get_or_insert(at);
        if !self.parted.contains(&from) {
            self.words.insert(from, at);
        }
        if is_up && self.back.is_some() {
            self.met.insert(from);
        }
        let lately = self.starting || at.since(self.started) < limits::UNHEARD_HOLD;
        if is_up && lately {
            self.heard.insert(from);
        }
        self.heard_last = Some(at);
    }

    /// Whether a member was heard a moment ago: a loss is then not this node's own trouble.
    pub fn hears(&self, at: Instant) -> bool {
        self.heard_last.is_some_and(|heard| at.since(heard) <= limits::HEARS_WITHIN)
    }

    /// A member compared tables with this node.
    pub fn agree(&mut self, with: NodeId) {
        if self.starting {
            self.agreed.insert(with);
        }
    }

    /// Whether a member compared tables with this node since its start.
    pub fn has_agreed(&self, with: &NodeId) -> bool {
        self.agreed.contains(with)
    }

    /// Whether something need not be waited for any more. `others_agreed`: all other members compared tables with this
    /// node since its start, or were seen to die.
    pub fn review(&mut self, at: Instant, others_agreed: bool) -> bool {
        let long_enough =
            self.heard_first.is_some_and(|heard| at.since(heard) >= limits::UNHEARD_HOLD);
        let mut news = false;
        if self.starting && (others_agreed || long_enough) {
            self.starting = false;
            news = true;
        }
        let back = self.cut.as_ref().and_then(|cut| cut.back);
        if back.is_some_and(|back| at.since(back) >= limits::RECONNECT_HOLD) {
            self.cut = None;
            news = true;
        }
        if self.back.is_some_and(|back| at.since(back) >= limits::RECONNECT_HOLD) {
            self.back = None;
            self.met.clear();
            news = true;
        }
        let before = self.away.len();
        self.away.retain(|_, said| at.since(*said) < limits::AWAY_GRACE);
        news || self.away.len() < before
    }

    /// When [`Informed::review`] has something to say at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = self.heard_first.filter(|_| self.starting);
        let back = self.cut.as_ref().and_then(|cut| cut.back).or(self.back);
        let away = self.away.values().map(|said| *said + limits::AWAY_GRACE).min();
        let unheard = first.map(|heard| heard + limits::UNHEARD_HOLD);
        let back = back.map(|back| back + limits::RECONNECT_HOLD);
        [unheard, back, away].into_iter().flatten().min()
    }

    /// This machine has a link, or none.
    pub fn link(&mut self, at: Instant, connected: bool) {
        match (&mut self.cut, connected) {
            (None, false) => self.cut = Some(Cut { since: at, back: None }),
            (Some(cut), true) if cut.back.is_none() => {
                (cut.back, self.back) = (Some(at), Some(at));
                self.met.clear();
            }
            (Some(cut), false) => (cut.back, self.back) = (None, None),
            // Something else of this machine has changed.
            (_, true) => {}
        }
    }

    /// Members whose last word is so long ago by now that it says nothing any more.
    pub fn fallen_silent(&mut self, at: Instant) -> Vec<NodeId> {
        let words = self.words.iter();
        let over = words.filter(|(_, heard)| at.since(**heard) >= limits::HEARS_WITHIN);
        let silent: Vec<NodeId> = over.map(|(node, _)| *node).collect();
        for node in &silent {
            self.words.remove(node);
        }
        silent
    }

    /// A member said itself that it goes, and that nothing of it goes on.
    pub fn part(&mut self, node: &NodeId) {
        self.words.remove(node);
        self.parted.insert(*node);
        if self.back.is_some() {
            self.met.insert(*node);
        }
    }

    /// A member says that its agent stops for a while and its units run on.
    pub fn leave(&mut self, at: Instant, node: NodeId) {
        self.away.insert(node, at);
    }

    /// A member is up.
    pub fn find(&mut self, node: &NodeId) {
        if self.back.is_some() {
            self.met.insert(*node);
        }
        self.gone_before.remove(node);
        self.away.remove(node);
        self.parted.remove(node);
    }

    /// A member that is up compares tables, which only an agent does that is there. One that said a moment ago that it goes
    /// may have sent this before that.
    pub fn find_comparing(&mut self, at: Instant, node: &NodeId) {
        let said = self.away.get(node);
        if said.is_none_or(|said| at.since(*said) > limits::OVERTAKEN) {
            self.find(node);
        }
    }

    /// Whether, and why, what a member runs that is not up is not to be placed elsewhere yet. One that was not heard since
    /// this node's start may have said to others that it will be back. `unknown`: membership has never called it alive or
    /// dead.
    pub fn hold(&self, at: Instant, node: &NodeId, unknown: bool) -> Option<Hold> {
        if let Some(cut) = &self.cut {
            return Some(Hold::NoLink {
                until: cut.back.map(|back| back + limits::RECONNECT_HOLD),
            });
        }
        if let Some(said) = self.away.get(node) {
            return Some(Hold::Away { said: *said, until: *said + limits::AWAY_GRACE });
        }
        let back = self.back.map(|back| back + limits::RECONNECT_HOLD);
        if let Some(until) = back.filter(|until| at < *until && !self.met.contains(node)) {
            return Some(Hold::NoLink { until: Some(until) });
        }
        let heard = self.words.get(node).map(|heard| *heard + limits::HEARS_WITHIN);
        if let Some(until) = heard.filter(|until| at < *until) {
            return Some(Hold::Heard { until });
        }
        let unheard = unknown || !self.heard.contains(node);
        let lately = at.since(self.started) < limits::UNHEARD_HOLD;
        (unheard && (self.starting || lately))
            .then(|| Hold::Unheard { until: self.unheard_until() })
    }

    /// When it stops waiting for members that were not heard since its start, at the latest; `None`: nobody was heard, and
    /// it goes on waiting.
    pub fn unheard_until(&self) -> Option<Instant> {
        let from = if self.starting { self.heard_first } else { Some(self.started) };
        from.map(|from| from + limits::UNHEARD_HOLD)
    }

    /// Members that said so a short time ago.
    pub fn away(&self) -> impl Iterator<Item = (NodeId, Instant)> {
        self.away.iter().map(|(node, said)| (*node, *said + limits::AWAY_GRACE))
    }

    /// Whether a member was heard since this node's start, as long as that matters.
    pub fn has_heard(&self, node: &NodeId) -> bool {
        self.heard.contains(node)
    }

    /// Since when a slot may be run by somebody who was not heard, though nothing live of it is known: unless its job, or
    /// the last row of it that is this node's own, was written later.
    pub fn uninformed_since(&self) -> Option<Instant> {
        let start = self.starting.then_some(self.started);
        start.into_iter().chain(self.cut.as_ref().map(|cut| cut.since)).max()
    }

    /// What it waits for, once it has waited for longer than a start takes.
    pub fn waits(&self, at: Instant) -> Option<Waits> {
        if self.cut.as_ref().is_some_and(|cut| cut.back.is_none()) {
            return Some(Waits::NoLink);
        }
        let long = self.starting && at.since(self.started) >= limits::BOOT_HOLD;
        long.then_some(match self.heard_first {
            None => Waits::HeardNobody,
            Some(_) => Waits::NotAllHeard,
        })
    }
}

#[cfg(test)]
mod tests;
