//! What time it is in a fabric, by the clocks of its members.
//!
//! No wall clock is believed for being one's own. Members tell each other what their clocks show, each reading is
//! kept relative to the monotonic clock here, and:
//!
//! - *A majority agrees* (more than half of the roster, within [`limits::CLOCKS_AGREE`]): the time is theirs, the
//!   median. A clock beside them, also this node's own, is wrong and changes nothing.
//! - *None does, and somebody was heard*: the time is the earliest that is shown, but not before what the fabric
//!   is known to have reached, which goes on with the monotonic clock, nor after what a second clock shows.
//! - *Nobody was heard since the start, though there are others*: this node's own clock, if it goes on from the
//!   newest stamp on its disk by no more than [`limits::CLOCK_PAUSE_MAX`]; else that stamp, going on.
//!
//! Stamps are made with that time. A stamp may lie above the latest time that can be meant by at most
//! [`limits::STAMP_AHEAD_MAX`]: that is the *ceiling*.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Instant, Now, WallTime};
use crate::id::NodeId;
use crate::limits;

/// What a member says of its clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// What its wall clock shows.
    pub wall: WallTime,
    /// The highest stamp that it gave or took.
    pub horizon: WallTime,
}

/// How well the time is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consent {
    /// More than half of the roster agrees.
    Majority,
    /// Others were heard, and no majority agrees.
    Unsure,
    /// No other member was heard.
    #[default]
    Unheard,
}

/// A member whose clock is not the fabric's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockOff {
    /// Whose.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Milliseconds by which it is ahead; negative: behind.
    pub ahead_ms: i64,
}

impl std::fmt::Display for ClockOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = if self.ahead_ms < 0 { "behind" } else { "ahead" };
        write!(f, "{}'s clock is {} s {way}", self.name, self.ahead_ms.unsigned_abs() / 1000)
    }
}

/// What is to be said about the clocks of a fabric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Whether more than half of the roster agrees, or nobody else was heard yet.
    pub agree: bool,
    /// Whose clock is off by [`limits::CLOCK_OFF`] or more.
    pub off: Vec<ClockOff>,
    /// How far the newest stamp lies ahead of the fabric's time.
    pub stamps_ahead: Duration,
    /// Entries that were refused because their stamps are too far ahead, since the start.
    pub refused: u64,
}

impl Clocks {
    /// What is wrong, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.off.iter().map(ClockOff::to_string).collect();
        if !self.agree && !warnings.is_empty() {
            warnings.push(
                "no majority of the nodes agrees what time it is: the earliest is taken until \
                 the clocks are set"
                    .into(),
            );
        }
        if self.agree && self.stamps_ahead > limits::STAMP_AHEAD_MAX {
            warnings.push(format!(
                "what was written last is dated {} s ahead of every clock, so nothing old is \
                 cleared away: `weft fabric reclock` dates it anew",
                self.stamps_ahead.as_secs()
            ));
        }
        warnings
    }
}

/// A member's reading, relative to the monotonic clock here.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Its wall clock less our monotonic one, in milliseconds.
    offset: i64,
    horizon: WallTime,
    at: Instant,
}

/// Knows the time. Invariant: `heard` has fewer than [`limits::CLOCKS_MAX`] members.
#[derive(Clone, Debug, Default)]
pub struct Timekeeper {
    heard: BTreeMap<NodeId, Heard>,
    /// The fabric's time less the monotonic clock, in milliseconds; `None`: not looked yet.
    offset: Option<i64>,
    /// The same for what the fabric is known to have reached.
    reached: Option<i64>,
    /// The same for the ceiling.
    ceiling: i64,
    consent: Consent,
    /// Enough is known of others to say that stamps here are ahead of theirs.
    mends: bool,
    /// This node's own clock when it was looked last, and when that was.
    own: i64,
    looked: Instant,
    /// Something was heard since.
    stale: bool,
    /// Until then what others have stamped says nothing about the ceiling.
    disregard: Option<Instant>,
    /// Whose stamps were complained of, and when.
    told: BTreeMap<NodeId, Instant>,
    /// The planted bug: every clock is believed.
    pub(crate) gullible: bool,
}

impl Timekeeper {
    /// One that has heard nobody. `gullible`: the planted bug, every clock is believed.
    pub fn new(gullible: bool) -> Self {
        Self { gullible, ..Self::default() }
    }

    /// The clocks as this node reads them, with the fabric's time in place of the wall clock's. `members` is how many the
    /// roster has, `horizon` the highest stamp here.
    pub fn read(&mut self, now: Now, members: usize, horizon: WallTime) -> Now {
        let moved = self.own.abs_diff(offset_of(now)) >= limits::CLOCK_STEP.as_millis() as u64;
        let due = self.offset.is_none() || self.stale;
        if due || moved || now.at.since(self.looked) >= limits::TICK_MAX {
            self.look(now, members, horizon);
        }
        self.fabric(now)
    }

    /// The same, by what was found when it was looked last.
    pub fn fabric(&self, now: Now) -> Now {
        match self.offset {
            Some(offset) if !self.gullible => Now { wall: shown(now.at, offset), ..now },
            _ => now,
        }
    }

    /// How well it is known.
    pub fn consent(&self) -> Consent {
        self.consent
    }

    /// Whether a majority's clocks, or its stamps beside some clocks, say which stamps are ahead.
    pub fn can_tell(&self) -> bool {
        self.mends
    }

    /// Whether a stamp of this time is further ahead than any clock explains.
    pub fn is_ahead(&self, at: Instant, stamped: WallTime) -> bool {
        !self.gullible && stamped > shown(at, self.ceiling)
    }

    /// A member says what its clock shows. Whoever was not heard for longest makes room.
    pub fn hear(&mut self, at: Instant, from: NodeId, reading: ClockReading) {
        let wall = Now { at, wall: reading.wall };
        let heard = Heard { offset: offset_of(wall), horizon: reading.horizon, at };
        self.heard.insert(from, heard);
        if self.heard.len() >= limits::CLOCKS_MAX {
            let oldest = self.heard.iter().min_by_key(|(node, heard)| (heard.at, **node));
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.heard.remove(&oldest);
            }
        }
        self.stale = true;
    }

    /// A member is gone from the roster.
    pub fn forget(&mut self, node: &NodeId) {
        self.heard.remove(node);
        self.stale = true;
    }

    /// For a while the ceiling is that of the clocks alone: stamps above it are being made anew.
    pub fn disregard_stamps(&mut self, at: Instant) {
        self.disregard = Some(at + limits::RECLOCK_HOLD);
        self.stale = true;
    }

    /// Whether it is to be said that this writer's stamps are refused: not again and again.
    pub fn complains(&mut self, at: Instant, writer: NodeId) -> bool {
        let again = |told: &Instant| at.since(*told) >= limits::CLOCK_FRESH;
        if !self.told.get(&writer).is_none_or(again) {
            return false;
        }
        if self.told.len() >= limits::CLOCKS_MAX {
            self.told.clear();
        }
        self.told.insert(writer, at);
        true
    }

    /// By how many milliseconds each clock that was heard is ahead of the fabric's, this node's own first.
    pub fn differences(&self, now: Now, own: NodeId) -> Vec<(NodeId, i64)> {
        let Some(offset) = self.offset else { return Vec::new() };
        let fresh = self.heard.iter().filter(|(_, heard)| is_fresh(now.at, heard));
        let all = [(own, offset_of(now))].into_iter();
        all.chain(fresh.map(|(node, heard)| (*node, heard.offset)))
            .map(|(node, its)| (node, its.saturating_sub(offset)))
            .collect()
    }

    fn look(&mut self, now: Now, members: usize, horizon: WallTime) {
        (self.own, self.looked, self.stale) = (offset_of(now), now.at, false);
        self.disregard = self.disregard.filter(|until| *until > now.at);
        self.heard.retain(|_, heard| is_fresh(now.at, heard));
        let need = members.clamp(1, limits::CLOCKS_MAX) / 2 + 1;
        let of_stamp = |wall| offset_of(Now { at: now.at, wall });
        let set = |offset: &i64| shown(now.at, *offset) >= limits::CLOCK_SET_FROM;

        let mut votes: Vec<i64> = self.heard.values().map(|heard| heard.offset).collect();
        votes.push(self.own);
        votes.retain(set);
        votes.sort_unstable();
        let mut horizons: Vec<WallTime> = self.heard.values().map(|heard| heard.horizon).collect();
        horizons.push(horizon);
        horizons.sort_unstable_by(|one, other| other.cmp(one));
        // What more than half have stamped, or have taken, is no single clock's doing.
        let shared = horizons.get(need - 1).map(|shared| of_stamp(*shared));
        let known = shared.is_some();
        let shared = shared.filter(|_| self.disregard.is_none());
        let reached = self.reached.or_else(|| (horizon.0 > 0).then(|| of_stamp(horizon)));

        let (offset, latest) = if let Some(agreed) = agreed(&votes, need) {
            self.consent = Consent::Majority;
            self.reached = Some(agreed);
            (agreed, agreed)
        } else if self.heard.is_empty() {
            self.consent = Consent::Unheard;
            self.reached = reached;
            let pause = limits::CLOCK_PAUSE_MAX.as_millis() as u64;
            let offset = match reached {
                Some(reached) if self.own < reached || self.own.abs_diff(reached) > pause => {
                    reached
                }
                _ => self.own,
            };
            (offset, offset)
        } else {
            self.consent = Consent::Unsure;
            self.reached = reached.max(shared);
            let earliest = votes.first().copied();
            let time = earliest.max(self.reached).unwrap_or(self.own);
            // What two of three show is no single clock's doing. Of two nobody can say whose is wrong: where there are
            // no others, both are heeded.
            let second = votes.len().checked_sub(2).filter(|at| *at > 0).map(|at| votes[at]);
            let latest = if members <= 2 { votes.last().copied() } else { second };
            let offset = latest.map_or(time, |latest| time.min(latest));
            let own = Some(self.own).filter(set);
            (offset, latest.or(own).map_or(offset, |latest| latest.max(offset)))
        };
        self.mends = self.consent == Consent::Majority || (votes.len() > 2 && known);
        self.offset = Some(offset);
        let latest = shared.map_or(latest, |shared| latest.max(shared));
        self.ceiling = latest.saturating_add(limits::STAMP_AHEAD_MAX.as_millis() as i64);
    }
}

/// The median of the most clocks that agree, if they are `need` or more. `votes` are in order.
fn agreed(votes: &[i64], need: usize) -> Option<i64> {
    let width = limits::CLOCKS_AGREE.as_millis() as u64;
    let mut best: &[i64] = &[];
    let mut first = 0;
    for last in 0..votes.len() {
        while votes[last].abs_diff(votes[first]) > width {
            first += 1;
        }
        if last + 1 - first > best.len() {
            best = &votes[first..=last];
        }
    }
    (best.len() >= need).then(|| best[(best.len() - 1) / 2])
}

fn is_fresh(at: Instant, heard: &Heard) -> bool {
    at.since(heard.at) < limits::CLOCK_FRESH
}

fn offset_of(now: Now) -> i64 {
    let wall = i64::try_from(now.wall.0).unwrap_or(i64::MAX);
    wall.saturating_sub(now.at.since_origin().as_millis() as i64)
}

fn shown(at: Instant, offset: i64) -> WallTime {
    let wall = offset.saturating_add(at.since_origin().as_millis() as i64);
    WallTime(u64::try_from(wall).unwrap_or(0))
}

#[cfg(test)]
mod tests;
