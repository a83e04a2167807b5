//! Members that are alive and cannot be reached from here: noticed, told, and spoken to through a third one.
//!
//! Membership is about members that nobody reaches. Where a cable, a firewall or a route breaks between two of them
//! only, others see both alive, rightly, and what one of the two has to say to the other would be lost for as long as
//! that lasts. So whoever misses an answer asks 'do you hear me?' ([`Message::Reach`]), and after
//! [`limits::REACH_ASKS`] of these without an answer has a third member pass on what it says. Streams need both
//! directions, so a path that is broken in one of them is found by both ends; and whoever gets a word that was passed
//! on answers by the same way until it has asked for itself.
//!
//! A word is passed on once and never further, so there is no loop. Only what coordinators and targets say to each other,
//! and users' wishes, are passed on: the table spreads by itself, and a vote counts only from whom it comes. Nobody
//! hands a job over: who coordinates it depends on who is alive, for all alike.

use std::collections::BTreeMap;

use crate::clock::{Instant, Now};
use crate::id::NodeId;
use crate::limits;
use crate::message::Message;

use super::{Canary, Node};

/// The members that this node has missed an answer of.
#[derive(Clone, Debug, Default)]
pub(super) struct Detours {
    missed: BTreeMap<NodeId, Missed>,
}

#[derive(Clone, Debug)]
struct Missed {
    /// Asks in a row that were not answered; no more are counted than are enough.
    unanswered: u32,
    asked: Instant,
    /// Who passed on its last word, and when.
    through: Option<(NodeId, Instant)>,
    /// Users' wishes that may not have arrived.
    wishes: Vec<Message>,
}

impl Missed {
    fn is_cut(&self) -> bool {
        self.unanswered >= limits::REACH_ASKS
    }

    fn next(&self) -> Instant {
        self.asked + if self.is_cut() { limits::REACH_AGAIN } else { limits::REACH_TIMEOUT }
    }
}

impl Detours {
    pub fn next_deadline(&self) -> Option<Instant> {
        self.missed.values().map(Missed::next).min()
    }

    /// Whether a member is alive and cannot be reached from here, as far as this node found out.
    pub fn is_cut(&self, node: &NodeId) -> bool {
        self.missed.get(node).is_some_and(Missed::is_cut)
    }

    /// All of those.
    pub fn cut(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.missed.iter().filter(|(_, missed)| missed.is_cut()).map(|(node, _)| *node)
    }
}

impl Node {
    /// A member has not answered: it is asked whether it hears this node at all.
    pub(super) fn miss(&mut self, now: Now, node: NodeId) {
        let is_known = self.others.detours.missed.contains_key(&node);
        if node == self.config.id || is_known || !self.is_up(&node) {
            return;
        }
        let missed = Missed { unanswered: 0, asked: now.at, through: None, wishes: Vec::new() };
        self.others.detours.missed.insert(node, missed);
        self.send_straight(node, Message::Reach { answer: false });
    }

    /// Asks again those that have not answered, and finds out who cannot be reached.
    pub(super) fn do_detours(&mut self, now: Now) {
        for node in self.others.membership.take_answered_by_others() {
            self.miss(now, node);
        }
        if self.others.detours.missed.is_empty() {
            return;
        }
        let mut missed = std::mem::take(&mut self.others.detours.missed);
        // What nobody reaches is for membership to find out.
        missed.retain(|node, _| self.is_up(node));
        self.others.detours.missed = missed;
        let due = self.others.detours.missed.iter().filter(|(_, missed)| missed.next() <= now.at);
        for node in due.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.send_straight(node, Message::Reach { answer: false });
            let Some(missed) = self.others.detours.missed.get_mut(&node) else { continue };
            let was_cut = missed.is_cut();
            missed.asked = now.at;
            missed.unanswered = (missed.unanswered + 1).min(limits::REACH_ASKS);
            if !was_cut && missed.is_cut() {
                self.find_cut(node);
            }
        }
    }

    fn find_cut(&mut self, node: NodeId) {
        tracing::warn!("{}: others pass on what they say", self.broken_pair(&node));
        self.replica.look_at_all();
        self.timers.soon = true;
        let missed = self.others.detours.missed.get_mut(&node);
        for wish in missed.map(|missed| std::mem::take(&mut missed.wishes)).unwrap_or_default() {
            self.send(node, wish);
        }
    }

    /// Something came from a member over a stream of its own, so both directions work.
    pub(super) fn hear_straight(&mut self, from: &NodeId) {
        if self.others.detours.missed.remove(from).is_some_and(|missed| missed.is_cut()) {
            let (me, peer) = (self.name_of(&self.config.id), self.name_of(from));
            tracing::info!("{me} and {peer} reach each other again");
        }
    }

    /// Sends a user's wish, to which there is no answer: should the member turn out not to be reached, it goes through
    /// another one.
    pub(super) fn send_wish(&mut self, now: Now, to: NodeId, wish: Message) {
        self.send(to, wish.clone());
        self.miss(now, to);
        if let Some(missed) = self.others.detours.missed.get_mut(&to)
            && !missed.is_cut()
            && missed.wishes.len() < limits::WISHES_MAX
        {
            missed.wishes.push(wish);
        }
    }

    /// Sends a message, through another member if its receiver cannot be reached.
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        if !self.others.detours.is_cut(&to) || !message.may_be_passed_on() {
            return self.send_straight(to, message);
        }
        let bytes = message.encode();
        let fits = bytes.len() <= limits::PASSED_ON_BYTES_MAX;
        let through = if fits { self.detour_to(&to) } else { None };
        match through {
            Some(through) => self.send_straight(through, Message::PassOn { to, bytes }),
            None => self.send_straight(to, message),
        }
    }

    /// Who may pass something on to a member: whoever passed on its word of late, or anybody who can be reached.
    fn detour_to(&mut self, to: &NodeId) -> Option<NodeId> {
        if self.config.canary == Some(Canary::KnowsNoDetours) {
            return None;
        }
        let fits = |node: &Node, other: &NodeId| {
            other != to && node.is_up(other) && !node.others.detours.is_cut(other)
        };
        let fresh = self.timers.last_tick;
        let through = self.others.detours.missed.get(to).and_then(|missed| missed.through);
        let through = through.filter(|(_, at)| fresh.since(*at) < limits::REACH_AGAIN * 2);
        if let Some((through, _)) = through
            && fits(self, &through)
        {
            return Some(through);
        }
        let drawn = self.some_peers(limits::DETOURS_DRAWN);
        drawn.into_iter().find(|other| fits(self, other))
    }

    /// A member asks this one to hand a word of its own to another one.
    pub(super) fn pass_on(&mut self, from: NodeId, to: NodeId, bytes: Vec<u8>) {
        if self.is_up(&to) && to != self.config.id && bytes.len() <= limits::PASSED_ON_BYTES_MAX {
            self.send_straight(to, Message::PassedOn { from, bytes });
        }
    }

    /// A word of a member that cannot reach this one, by `through`.
    pub(super) fn take_passed_on(&mut self, now: Now, through: NodeId, from: NodeId, bytes: &[u8]) {
        if from == self.config.id || !self.replica.is_member(&from) {
            return;
        }
        let message = match Message::decode(bytes) {
            Ok(message) if message.may_be_passed_on() => message,
            _ => {
                self.counters.malformed += 1;
                return;
            }
        };
        self.miss(now, from);
        if let Some(missed) = self.others.detours.missed.get_mut(&from) {
            missed.through = Some((through, now.at));
            let was_cut = missed.is_cut();
            missed.unanswered = limits::REACH_ASKS;
            if !was_cut {
                self.find_cut(from);
            }
        }
        self.handle_message(now, from, message);
    }
}
