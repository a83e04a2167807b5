//! What time it is, whose clock is wrong, and stamps that no clock explains.

use crate::api::{Problem, ProblemKind};
use crate::clock::{Instant, Now, WallTime};
use crate::io::Answer;
use crate::limits;
use crate::message::Message;
use crate::stamp::Stamp;
use crate::table::{Entry, Key, SharedEntry, Value};
use crate::timekeeper::{ClockOff, ClockReading, Clocks, Consent};

use super::Node;

use rand::RngExt;

impl Node {
    /// The fabric's time, as this node knows it. It is what stamps are made with, what is old is judged by, and what
    /// people read.
    pub fn fabric_time(&self, now: Now) -> WallTime {
        self.time.timekeeper.fabric(now).wall
    }

    /// The highest stamp that this node gave or took.
    pub fn horizon(&self) -> WallTime {
        self.time.clock.time()
    }

    /// Every entry of the table, in the order of the keys.
    pub fn entries(&self) -> impl Iterator<Item = &SharedEntry> {
        self.replica.entries()
    }

    /// How the clocks of the fabric are.
    pub fn clocks(&self, now: Now) -> Clocks {
        let time = self.fabric_time(now);
        let off = |(node, ahead_ms): (_, i64)| {
            let wrong = ahead_ms.unsigned_abs() >= limits::CLOCK_OFF.as_millis() as u64;
            wrong.then(|| ClockOff { node, name: self.name_of(&node), ahead_ms })
        };
        Clocks {
            agree: self.time.timekeeper.consent() != Consent::Unsure,
            off: self
                .time
                .timekeeper
                .differences(now, self.config.id)
                .into_iter()
                .filter(|(node, _)| self.replica.is_member(node))
                .filter_map(off)
                .collect(),
            stamps_ahead: self.time.clock.time().since(time),
            refused: self.counters.ahead,
        }
    }

    /// What this node's clocks show, for another member.
    pub(super) fn clock_reading(&self) -> ClockReading {
        ClockReading { wall: self.time.own_wall, horizon: self.time.clock.time() }
    }

    /// Both clocks, with the fabric's time in place of this machine's.
    pub(super) fn read_clocks(&mut self, now: Now) -> Now {
        (self.time.own_wall, self.time.looked) = (now.wall, now.at);
        self.time.timekeeper.read(now, self.replica.members(), self.time.clock.time())
    }

    /// What time it may be by what a table that is about to be taken in was stamped with.
    pub(super) fn wake_up(&mut self, own: Now, entries: impl Iterator<Item = Entry>) -> Now {
        let mut members = 0;
        for entry in entries {
            self.time.clock.observe(entry.stamp);
            members += usize::from(matches!(entry.value, Value::Roster(_)));
        }
        self.time.timekeeper.read(own, members, self.time.clock.time())
    }

    pub(super) fn is_ahead(&self, at: Instant, stamp: Stamp) -> bool {
        self.time.timekeeper.is_ahead(at, stamp.wall())
    }

    /// Whether an entry that somebody sends is stamped further ahead than any clock explains. It is left out, and moves
    /// no clock; repair brings it again, and when its time has come it is taken.
    pub(super) fn refuses_stamp(&mut self, now: Now, entry: &SharedEntry) -> bool {
        if !self.is_ahead(now.at, entry.stamp) {
            return false;
        }
        self.counters.ahead += 1;
        let writer = entry.stamp.node;
        if self.time.timekeeper.complains(now.at, writer) {
            let ahead = entry.stamp.wall().since(now.wall);
            tracing::warn!(
                node = %self.name_of(&writer), key = ?entry.key, ahead_s = ahead.as_secs(),
                "refused what is dated ahead of every clock: is that node's clock right?"
            );
        }
        true
    }

    /// What this node holds that is dated further ahead than any clock explains is dated anew, as soon as it can be
    /// told: its own rows, and what belongs to nobody. Others' rows give way to what their owners write; where
    /// they are over, they go.
    pub(super) fn mend_stamps(&mut self, now: Now) {
        if self.timers.restamp.is_some_and(|at| at <= now.at) {
            self.timers.restamp = None;
            self.time.timekeeper.disregard_stamps(now.at);
            let own = Now { wall: self.time.own_wall, ..now };
            self.read_clocks(own);
        }
        let known = self.time.timekeeper.can_tell();
        if !known || !self.time.timekeeper.is_ahead(now.at, self.time.clock.time()) {
            return;
        }
        let me = self.config.id;
        let (mut anew, mut over, mut highest) = (Vec::new(), Vec::new(), 0);
        for entry in self.replica.entries() {
            if !self.is_ahead(now.at, entry.stamp) {
                highest = highest.max(entry.stamp.reading);
            } else if entry.key.owner().is_none_or(|owner| owner == me) {
                anew.push(entry.clone());
            } else if entry.is_over() {
                over.push(entry.key.clone());
            }
        }
        tracing::warn!(
            entries = anew.len(),
            forgotten = over.len(),
            "dated anew what was dated ahead of every clock"
        );
        self.time.clock.go_back_to(highest);
        for key in over {
            self.replica.forget_over(&key);
        }
        for entry in anew {
            self.write(now, entry.key.clone(), entry.value.clone());
        }
        self.timers.soon = true;
    }

    /// Somebody asks that what is dated ahead be dated anew, everywhere.
    pub(super) fn reclock(&mut self, now: Now) -> Result<Answer, Problem> {
        if self.time.timekeeper.consent() != Consent::Majority {
            return Err(Problem::new(
                ProblemKind::Conflict,
                "no majority of the nodes agrees what time it is",
                "set their clocks first: `weft status` names those that differ",
            ));
        }
        let others: Vec<_> = self.peers().collect();
        for peer in others {
            self.send(peer, Message::Reclock);
        }
        self.timers.restamp = Some(now.at);
        Ok(Answer::Done)
    }

    /// Another member was asked. What it dates anew comes by push meanwhile, so that little is left to do here.
    pub(super) fn handle_reclock(&mut self, now: Now) {
        if self.timers.restamp.is_none() {
            self.time.timekeeper.disregard_stamps(now.at);
            let after = limits::RECLOCK_SPREAD.mul_f64(self.rng.random_range(0.1..1.0));
            self.timers.restamp = Some(now.at + after);
        }
    }

    /// Deletes tokens that nobody could think good any more: by the time of a majority, and a day after they ran out.
    pub(super) fn expire_tokens(&mut self, now: Now) {
        if self.time.timekeeper.consent() != Consent::Majority {
            return;
        }
        let tokens: Vec<Key> = self
            .replica
            .entries_from(Key::Keyring)
            .filter(|entry| match &entry.value {
                Value::Token(token) => now.wall.since(token.expires) > limits::TOKEN_KEEP,
                _ => false,
            })
            .map(|entry| entry.key.clone())
            .collect();
        for token in tokens {
            self.write(now, token, Value::Tombstone { rank: 0 });
        }
    }
}

#[cfg(test)]
mod tests;
