//! The voter's side: a lock for each slot, and a number on disk that epochs never fall below.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Answer, Ask, Ballot, Verdict, Wish, hold, longest_hold};
use crate::clock::Instant;
use crate::id::{NodeId, SlotId};
use crate::limits;

/// One voter; the default never voted. Invariants: of each slot at most one lock is unexpired; a slot's `highest` epoch only grows;
/// `highest <= ceiling` for every slot; what is not above `floor` is granted only as a renewal.
#[derive(Clone, Debug, Default)]
pub struct Voter {
    slots: BTreeMap<SlotId, Record>,
    /// Epochs up to here may have been granted by somebody, to anybody.
    floor: u64,
    /// On disk: no epoch above it was ever promised or granted here.
    ceiling: u64,
    /// What the ceiling should be raised to.
    wanted: u64,
    mute_until: Option<Instant>,
    /// Slots of which something has changed since [`Voter::changes`] was asked.
    changed: BTreeSet<SlotId>,
    /// Whether anything else has.
    moved: bool,
}

/// What a voter knows and its disk does not, or what of that has changed: whoever has all of it need not stay mute in the
/// next life. It must be kept before anything that follows from it is said. Used once at most, since what the next life
/// grants is not in it, and by nobody who has lost count of its lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    floor: u64,
    /// For how much longer it would have been mute itself.
    mute: Duration,
    slots: Vec<Handed>,
}

/// A slot of a [`Handover`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Handed {
    slot: SlotId,
    highest: Ballot,
    /// Whose lock, for how much longer, and the last round that asked for it.
    lock: Option<(Ballot, Duration, u64)>,
}

#[derive(Clone, Debug)]
struct Record {
    /// The highest ballot promised or granted.
    highest: Ballot,
    lock: Option<Lock>,
}

#[derive(Clone, Copy, Debug)]
struct Lock {
    ballot: Ballot,
    expires: Instant,
    /// The last round that asked for it. A release frees what was asked for before it: one that is late must not
    /// free what the same node asked for again.
    round: u64,
}

impl Handover {
    /// As it is so much later.
    pub fn age(&mut self, by: Duration) {
        self.mute = self.mute.saturating_sub(by);
        for handed in &mut self.slots {
            if let Some((_, left, _)) = &mut handed.lock {
                *left = left.saturating_sub(by);
            }
        }
    }

    /// Takes in what has changed since, bit by bit.
    pub fn absorb(&mut self, later: impl IntoIterator<Item = Handover>) {
        let slots = std::mem::take(&mut self.slots).into_iter();
        let mut slots: BTreeMap<_, _> = slots.map(|it| (it.slot.clone(), it)).collect();
        for later in later {
            slots.extend(later.slots.into_iter().map(|it| (it.slot.clone(), it)));
            (self.floor, self.mute) = (later.floor, later.mute);
        }
        self.slots = slots.into_values().collect();
    }
}

impl Record {
    fn locked(&self, now: Instant) -> Option<Lock> {
        self.lock.filter(|lock| now < lock.expires)
    }
}

impl Voter {
    /// A voter after a restart, with the ceiling that its disk kept: mute for the longest hold, and above
    /// everything that it ever promised. `forgets` plants a bug: it answers at once.
    pub fn restored(now: Instant, ceiling: u64, forgets: bool) -> Self {
        let mut voter = Self { floor: ceiling, ceiling, wanted: ceiling, ..Self::default() };
        voter.want(ceiling);
        if !forgets {
            voter.silence(now);
        }
        voter
    }

    /// What the voter of the next life has to know: all of it, or what has changed since this was asked. `None`: nothing
    /// has.
    pub fn changes(&mut self, now: Instant, all: bool) -> Option<Handover> {
        let changed = std::mem::take(&mut self.changed);
        let moved = std::mem::take(&mut self.moved);
        if !all && !moved && changed.is_empty() {
            return None;
        }
        let mute = self.mute_for(now).unwrap_or_default();
        let handed = |(slot, record): (&SlotId, &Record)| {
            let lock = record.locked(now);
            let lock = lock.map(|lock| (lock.ballot, lock.expires.since(now), lock.round));
            Handed { slot: slot.clone(), highest: record.highest, lock }
        };
        let slots = match all {
            true => self.slots.iter().map(handed).collect(),
            false => {
                changed.iter().filter_map(|it| self.slots.get_key_value(it)).map(handed).collect()
            }
        };
        Some(Handover { floor: self.floor, mute, slots })
    }

    /// Goes on where the voter of the life before has ended. False: it knew of more than the
    /// disk, which is older then, and this voter stays as it is.
    pub fn take_over(&mut self, now: Instant, handover: Handover) -> bool {
        if handover.slots.iter().any(|handed| handed.highest.epoch > self.ceiling) {
            return false;
        }
        let lock = |(ballot, left, round): (Ballot, Duration, u64)| Lock {
            ballot,
            expires: now + left,
            round,
        };
        let slots = handover.slots.into_iter().map(|handed| {
            (handed.slot, Record { highest: handed.highest, lock: handed.lock.map(lock) })
        });
        self.slots = slots.collect();
        self.floor = handover.floor;
        self.mute_until = Some(now + handover.mute);
        self.moved = true;
        true
    }

    /// From now on it answers nothing for the longest hold: others may have granted what it does not know of.
    pub fn silence(&mut self, now: Instant) {
        self.mute_until = Some(now + longest_hold());
        self.moved = true;
    }

    /// A voter set says that epochs up to here may have been granted.
    pub fn raise_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.want(self.floor);
        self.moved = true;
    }

    /// The number that has to be on disk, if a greater one has to be there than is.
    pub fn wanted_ceiling(&self) -> Option<u64> {
        (self.wanted > self.ceiling).then_some(self.wanted)
    }

    /// This number is on disk.
    pub fn ceiling_is_on_disk(&mut self, ceiling: u64) {
        self.ceiling = self.ceiling.max(ceiling);
    }

    /// No epoch above it was or will be granted here before a greater number is on disk.
    pub fn ceiling(&self) -> u64 {
        self.ceiling.max(self.wanted)
    }

    /// For how much longer it answers nothing.
    pub fn mute_for(&self, now: Instant) -> Option<Duration> {
        self.mute_until.map(|until| until.since(now)).filter(|left| !left.is_zero())
    }

    /// Slots that are locked.
    pub fn locked(&self, now: Instant) -> impl Iterator<Item = (&SlotId, Ballot)> {
        self.slots.iter().filter_map(move |(slot, r)| Some((slot, r.locked(now)?.ballot)))
    }

    /// Answers a holder, or says nothing: the holder asks again.
    pub fn handle(&mut self, now: Instant, from: NodeId, ask: &Ask) -> Option<Answer> {
        let verdict = self.judge(now, from, ask)?;
        Some(Answer { slot: ask.slot.clone(), epoch: ask.epoch, round: ask.round, verdict })
    }

    fn judge(&mut self, now: Instant, from: NodeId, ask: &Ask) -> Option<Verdict> {
        if ask.epoch == 0 || ask.epoch > limits::EPOCH_MAX {
            return None;
        }
        if let Some(for_another) = self.mute_for(now) {
            return Some(Verdict::Mute { for_another });
        }
        let ballot = Ballot { epoch: ask.epoch, node: from };
        let record = self.slots.get(&ask.slot);
        if ask.wish == Wish::Release {
            if let Some(record) = self.slots.get_mut(&ask.slot)
                && record.lock.is_some_and(|lock| lock.ballot == ballot && lock.round < ask.round)
            {
                record.lock = None;
                self.changed.insert(ask.slot.clone());
            }
            return Some(Verdict::Released);
        }
        let renewal = matches!(ask.wish, Wish::Propose { renewal: true, .. });
        let highest = record.map(|record| record.highest);
        // The same ballot may come again; any other has to have a higher epoch, whosever it is.
        let seen = highest.filter(|highest| *highest != ballot).map_or(0, |highest| highest.epoch);
        let floor = if renewal { 0 } else { self.floor };
        if ask.epoch <= seen.max(floor) {
            let at_least = seen.max(self.floor) + 1;
            return Some(Verdict::Below { at_least });
        }
        if let Some(lock) = record.and_then(|record| record.locked(now))
            && lock.ballot != ballot
        {
            return Some(Verdict::Held { by: lock.ballot, for_another: lock.expires.since(now) });
        }
        if record.is_none() && !self.make_room(now) {
            return Some(Verdict::Full);
        }
        if ask.epoch > self.ceiling {
            self.want(ask.epoch);
            return None;
        }
        if self.ceiling - ask.epoch < limits::EPOCH_BLOCK / 2 {
            // Ahead of need, so that nobody waits for the disk.
            self.want(self.ceiling);
        }
        self.changed.insert(ask.slot.clone());
        let record =
            self.slots.entry(ask.slot.clone()).or_insert(Record { highest: ballot, lock: None });
        record.highest = ballot;
        let Wish::Propose { stop_timeout, .. } = ask.wish else { return Some(Verdict::Promised) };
        let expires = now + hold(stop_timeout);
        let lock = Lock { ballot, expires, round: ask.round };
        let before = record.lock.filter(|lock| lock.ballot == ballot).unwrap_or(lock);
        record.lock = Some(Lock {
            expires: expires.max(before.expires),
            round: ask.round.max(before.round),
            ballot,
        });
        Some(Verdict::Accepted)
    }

    fn want(&mut self, epoch: u64) {
        self.wanted = self.wanted.max(epoch.saturating_add(limits::EPOCH_BLOCK));
    }

    /// Forgets what is not locked when there is no room for another slot. What is forgotten raises the floor.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.slots.len() < 2 * limits::LEASES_MAX {
            return true;
        }
        let mut floor = self.floor;
        self.slots.retain(|_, record| {
            let keep = record.locked(now).is_some();
            if !keep {
                floor = floor.max(record.highest.epoch);
            }
            keep
        });
        self.floor = floor;
        self.moved = true;
        self.slots.len() < limits::LEASES_MAX
    }
}
