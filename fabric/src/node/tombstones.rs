//! When tombstones of jobs, tokens and quotas leave, so that no name counts for ever, and why nothing comes back.
//!
//! Whoever deletes writes a tombstone, which beats what a node that was away brings back. It may leave once every
//! member has seen it:
//!
//! 1. *Seen.* While there are old tombstones, a node says in its own row: 'of what was stamped up to T, my roster,
//!    jobs, tokens and quotas have this digest'. T is a round time at least one round ago, so all say it of the
//!    same T. By saying it the node promises to stamp nothing up to T any more; its clock keeps that anyway.
//! 2. *Purged.* Once the rows of all members of the roster say the same of T as this node's table does, all hold the same
//!    entries up to T. The tombstones among them leave, and T is kept on disk as `purged_until`.
//! 3. *Nothing comes back.* What is stamped up to `purged_until` and not in the table was deleted: it is refused, unless it
//!    comes from a node that has purged as far (it repairs a disk that lost rows). A node that has purged less far
//!    than its peer, a restored backup or one that was off meanwhile, drops what it holds up to the peer's
//!    `purged_until` and the peer does not; once its table equals the peer's it has purged as far.
//!
//! A member that is away holds this up, on purpose: it may hold what was deleted. It is named by `weft doctor`.

use std::time::Duration;

use crate::clock::{Instant, Now, WallTime};
use crate::id::NodeId;
use crate::limits;
use crate::table::{Key, Order, Table};
use crate::topology::Seen;

use super::{Canary, Node};

/// Whether an entry of this key is told apart from a deleted one by its date.
fn leaves(key: &Key) -> bool {
    matches!(key, Key::Job(_) | Key::Token(_) | Key::Quota(_))
}

/// Time between two rounds: about one row is written per second, whatever the size of the fabric. While a member is
/// away no round can succeed, and memory cards wear out.
fn round(members: usize, complete: bool) -> Duration {
    let quick = limits::PURGE_ROUND * members.div_ceil(limits::PURGE_MEMBERS).max(1) as u32;
    if complete { quick } else { quick.max(limits::PURGE_ROUND_AWAY) }
}

impl Node {
    /// Up to when no tombstones are kept, because all members had seen what there was.
    pub fn purged_until(&self) -> WallTime {
        self.replica.purged_until()
    }

    /// Says what this node has seen, and drops the tombstones that all have seen.
    pub(super) fn purge(&mut self, now: Now) {
        if self.time.timekeeper.is_ahead(now.at, self.replica.purged_until()) {
            // Clocks were wrong: what is stamped from now on is not from before.
            self.replica.set_purged_until(WallTime(0));
        }
        if self.config.canary == Some(Canary::ForgetsDeletions) {
            let short = (limits::PURGE_ROUND / 6).as_millis() as u64;
            return self.drop_tombstones(WallTime(now.wall.0.saturating_sub(short)));
        }
        if !self.replica.disk().is_whole() {
            // There may be an older version of what was deleted on it, which would come back once nothing says so any more. What
            // was refused is written again as long as it is in the table.
            return;
        }
        let members = self.replica.members();
        let complete = self.others.membership.others_alive() + 1 >= members;
        let round = round(members, complete).as_millis() as u64;
        let until = WallTime((now.wall.0 / round).saturating_sub(1) * round);
        if until <= self.replica.purged_until() || self.replica.tombstones(until).next().is_none() {
            return;
        }
        let seen = Seen { until, digest: self.replica.digest_until(until) };
        if self.info.seen != Some(seen) {
            self.info.seen = Some(seen);
            self.publish_info(now);
        }
        if self.unseen(seen).next().is_none() {
            tracing::debug!(until = until.0, "all members have seen what was deleted");
            self.replica.set_purged_until(until);
            self.drop_tombstones(until);
        }
    }

    /// When to look, after a member said what it has seen: it may be the last of them. In a large fabric the next look
    /// is soon enough.
    pub(super) fn look_at_what_was_seen(&self, at: Instant) -> Instant {
        let few = self.replica.members() <= limits::PURGE_MEMBERS;
        at + if few { limits::TICK_MAX } else { limits::PURGE_LOOK }
    }

    /// Members that have not said that they hold the same.
    fn unseen(&self, seen: Seen) -> impl Iterator<Item = NodeId> + '_ {
        let roster = self.replica.roster().map(|(node, _)| node);
        roster.filter(move |node| self.replica.node(node).and_then(|info| info.seen) != Some(seen))
    }

    /// Members that hold up that tombstones leave: those that are away, or else those that hold something else.
    fn hold_up_tombstones(&self) -> Vec<NodeId> {
        if self.replica.tombstones(WallTime(u64::MAX)).next().is_none() {
            return Vec::new();
        }
        let roster = self.replica.roster().map(|(node, _)| node);
        let away: Vec<NodeId> =
            roster.filter(|node| *node != self.config.id && !self.is_up(node)).collect();
        if !away.is_empty() {
            return away;
        }
        // Younger ones wait for a round, and for nobody.
        let old = |seen: &Seen| self.replica.tombstones(seen.until).next().is_some();
        let seen = self.info.seen.filter(old);
        seen.map(|seen| self.unseen(seen).collect()).unwrap_or_default()
    }

    /// In words, to go on a sentence about names that are in use.
    pub(super) fn why_names_stay(&self) -> String {
        let members = self.hold_up_tombstones();
        if members.is_empty() {
            return String::new();
        }
        format!(
            "; names that were deleted leave once every member has seen that, and {} did not: bring them back, or remove \
             them (`weft node NAME remove`)",
            self.names_of(&members)
        )
    }

    /// Bounds of the table of which four fifths are used, in words.
    pub fn nearly_full(&self) -> Vec<String> {
        let (counts, bounds) = (self.replica.counts(), self.config.bounds);
        let kinds = [
            ("entries of any kind", counts.entries, bounds.entries),
            ("names of jobs, those of deleted ones included,", counts.jobs, bounds.jobs),
            ("quotas, deleted ones included,", counts.quotas, bounds.quotas),
        ];
        let crowded = kinds.iter().filter(|(_, used, max)| used * 5 >= max * 4);
        crowded
            .map(|(kind, used, max)| {
                format!(
                    "{used} {kind} are in the table, and there is room for {max}{}",
                    self.why_names_stay()
                )
            })
            .collect()
    }

    fn drop_tombstones(&mut self, until: WallTime) {
        let keys: Vec<Key> = self.replica.tombstones(until).cloned().collect();
        for key in keys {
            self.replica.forget_over(&key);
            self.timers.soon = true;
        }
    }

    /// Whether an entry was deleted, as all members knew, and is brought back by one that did not.
    pub(super) fn was_deleted(&self, key: &Key, order: &Order, purged_there: WallTime) -> bool {
        is_purged(key, order, self.replica.purged_until())
            && !is_purged(key, order, purged_there)
            && self.replica.order(key).map(|ours| ours.stamp) != Some(order.stamp)
            && self.config.canary != Some(Canary::ForgetsDeletions)
    }

    /// A peer that has purged further described these buckets completely: what this node holds in them and the peer does
    /// not, from before that, was deleted.
    pub(super) fn drop_deleted(
        &mut self,
        now: Now,
        purged_there: WallTime,
        buckets: &[u16],
        rows: &[(Key, Order)],
    ) {
        if purged_there <= self.replica.purged_until()
            || self.time.timekeeper.is_ahead(now.at, purged_there)
        {
            return;
        }
        for key in deleted(&self.replica, purged_there, buckets, rows) {
            tracing::debug!(?key, "was deleted while this node was away");
            let change = self.replica.drop_deleted(key, &self.others);
            self.timers.soon = true;
            self.follow(now, change);
        }
    }

    /// This node's table equals that of a member that has purged this far.
    pub(super) fn equals(&mut self, now: Now, purged_there: WallTime) {
        if purged_there > self.replica.purged_until()
            && !self.time.timekeeper.is_ahead(now.at, purged_there)
        {
            self.replica.set_purged_until(purged_there);
        }
    }
}

fn is_purged(key: &Key, order: &Order, until: WallTime) -> bool {
    leaves(key) && order.stamp.wall() <= until
}

/// What the table holds of the described buckets, from before `until`, and the other does not.
fn deleted(table: &Table, until: WallTime, buckets: &[u16], rows: &[(Key, Order)]) -> Vec<Key> {
    let theirs: std::collections::BTreeMap<&Key, &Order> =
        rows.iter().map(|(key, order)| (key, order)).collect();
    let buckets = buckets.iter().filter_map(|bucket| u8::try_from(*bucket).ok());
    let mut keys: Vec<Key> = buckets
        .flat_map(|bucket| table.entries_in(bucket))
        .filter(|entry| is_purged(&entry.key, &entry.order(), until))
        // What is newer there comes in its place. That a version was reverted is marked without a new stamp.
        .filter(|entry| theirs.get(&entry.key).is_none_or(|their| their.stamp < entry.stamp))
        .map(|entry| entry.key.clone())
        .collect();
    keys.sort_unstable();
    keys
}

#[cfg(test)]
mod tests;
