//! The lease of one slot: voters grant it, would-be holders ask for it, and each clock runs at a rate of its own.
//!
//! What is modelled: ballots of epoch and holder; promises; proposals and renewals, each in a round of its
//! own; the voter's entry that outlasts the lease; the number on a voter's disk; the silence
//! of a voter that has restarted; a unit that runs until its guard kills it, whatever becomes of its agent;
//! releases.
//!
//! The network loses, repeats and reorders: whatever was sent once may arrive at any time, any number of
//! times, or never. It is therefore not a queue but follows from what was sent: a bit a message. Answers
//! to anything but the present epoch and round of a holder would be ignored, so they are not kept; and
//! because a holder does nothing before a majority has answered, an answer that arrived and one that could arrive
//! now are the same state.
//!
//! Time is a step that every clock takes at once: a slow clock counts one unit, a fast one two. That is a
//! drift bound of one third, coarser than the real one and without loss: the protocol's durations are multiples of
//! the ratio of the two rates. Guards fire at once and nothing has slack.
//!
//! Left out: coordinators (a holder takes any epoch that it has not taken before), changes of the voter set
//! (see [`voters`](crate::voters)).

use stateright::{Model, Property};

/// Clock units of a step of time on a slow clock.
const SLOW: u8 = 1;
/// The same on a fast one.
const FAST: u8 = 2;
/// A lease, in units of the holder's clock.
const LEASE: u8 = 2;
/// From the end of the lease to the end of the unit, in units of the holder's clock.
const STOP: u8 = 1;
/// A voter's entry, in units of the voter's clock: fast enough, it lasts as long as a slow holder's unit.
const HOLD: u8 = (LEASE + STOP) * FAST / SLOW;
/// Voters at most.
const VOTERS_MAX: usize = 3;
/// Would-be holders.
const HOLDERS: usize = 2;

/// No two units of the slot.
pub const NEVER_TWO: &str = "never two live units of the slot";
/// Who starts later has the higher epoch.
pub const TOKENS_GROW: &str = "fencing tokens only grow";
/// Not a promise about safety: the model is alive.
pub const A_SUCCESSOR: &str = "a second holder gets the lease";

/// What somebody got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The holder keeps its lease one drift bound too long.
    HoldsTooLong,
    /// A voter answers at once after a restart.
    NotMute,
    /// A voter does not have on disk what it promised.
    ForgetsItsFloor,
    /// An entry lasts as long as the lease, not as long as the unit.
    EntryIgnoresTheStop,
    /// An entry lasts as long as the unit, if all clocks were right.
    EntryIgnoresTheDrift,
    /// A lease counts from its answer, not from its question.
    CountsFromTheAnswer,
    /// An answer to an earlier round counts for the present one.
    OldAnswersCount,
    /// Of two holders with one epoch, a voter takes the second as well.
    EqualEpochs,
    /// The lease is given back while the unit still ends.
    ReleasesTooEarly,
    /// Promises that were made long ago are good for a first proposal.
    PromisesNeverAge,
    /// A voter that has restarted takes a first proposal as it takes a renewal, without a look at its floor.
    FirstBelowTheFloor,
}

/// How clocks may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// All run alike.
    None,
    /// Holders run slow and voters fast: entries are as short as they can be while units last longest.
    Hostile,
    /// Each runs slow or fast, throughout.
    Constant,
    /// Each runs slow or fast in every step of time anew.
    Changing,
}

/// What is searched.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Two or three.
    pub voters: usize,
    /// Epochs from one to this.
    pub epochs: u8,
    /// Restarts of voters, all together.
    pub voter_restarts: u8,
    /// Restarts of holders' agents, and power cuts of holders, all together.
    pub holder_restarts: u8,
    /// How clocks differ.
    pub drift: Drift,
    /// What somebody got wrong.
    pub bug: Option<Bug>,
}

/// What a voter knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Voter {
    fast: bool,
    /// Highest ballot promised since the start: epoch and holder.
    promised: (u8, u8),
    /// The lease that it granted and that has not run out.
    accepted: (u8, u8),
    /// How long that lasts.
    left: u8,
    /// How long it answers nothing.
    mute: u8,
    /// On disk: at least every epoch that it promised.
    ceiling: u8,
    /// What was on disk when it started the last time: nobody new gets a lease with less.
    floor: u8,
    /// By holder: it has answered the holder's present epoch with a promise.
    promise_sent: [bool; HOLDERS],
    /// By holder: it has answered the holder's present round with its acceptance.
    accept_sent: [bool; HOLDERS],
}

/// What a would-be holder knows, and its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    fast: bool,
    /// The epoch under way; 0: none.
    epoch: u8,
    /// How long the promises of it are good for a first proposal.
    promises_left: u8,
    /// A round is under way, and its lease would last this long.
    round_left: u8,
    /// It has the lease for this long.
    lease_left: u8,
    /// The unit runs and its guard kills it after this; 0: there is no unit.
    guard_left: u8,
    /// A bit an epoch: preparations that were sent.
    prepared: u8,
    /// A bit an epoch: first proposals that were sent.
    proposed: u8,
    /// A bit an epoch: renewals that were sent.
    renewed: u8,
    /// A bit an epoch: releases that were sent.
    released: u8,
}

/// Everybody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    voters: [Voter; VOTERS_MAX],
    holders: [Holder; HOLDERS],
    voter_restarts: u8,
    holder_restarts: u8,
    /// The last unit that started, by epoch and holder.
    latest: (u8, u8),
    /// It started with a lower or the same epoch as one before.
    token_fell: bool,
    /// The slot had a second holder.
    succeeded: bool,
}

/// Something happens. Numbers are holders, epochs and voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time passes; a bit for each clock that runs fast in this step, voters first.
    Tick(u8),
    /// A holder begins with an epoch, and asks all voters for a promise.
    Prepare(usize, u8),
    /// A voter hears that.
    PrepareArrives(usize, u8, usize),
    /// A holder proposes: it has heard the promises of a majority, or renews.
    Propose(usize),
    /// A voter hears that, for the first time.
    ProposalArrives(usize, u8, usize),
    /// A voter hears of a renewal.
    RenewalArrives(usize, u8, usize),
    /// The holder has heard that a majority accepted.
    MajorityAccepted(usize),
    /// The unit ends by itself, or gently, and the lease is given back.
    UnitEnds(usize),
    /// A voter hears of it.
    ReleaseArrives(usize, u8, usize),
    /// A voter forgets all that is not on its disk.
    VoterRestarts(usize),
    /// A holder's agent forgets; its unit and guard stay.
    AgentRestarts(usize),
    /// A holder loses agent and unit.
    PowerFails(usize),
}

impl Lease {
    /// In words.
    pub fn bounds(&self) -> String {
        let drift = match self.drift {
            Drift::None => "clocks run alike",
            Drift::Hostile => "voters' clocks fast, holders' slow",
            Drift::Constant => "each clock slow or fast",
            Drift::Changing => "each clock slow or fast in every step of time",
        };
        format!(
            "{} voters, {HOLDERS} holders, epochs to {}, {} restarts of voters and {} of holders, {drift}, \
             any loss, repetition and order of messages, time without bound",
            self.voters, self.epochs, self.voter_restarts, self.holder_restarts
        )
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn is_majority(&self, state: &State, said: impl Fn(&Voter) -> bool) -> bool {
        2 * state.voters[..self.voters].iter().filter(|voter| said(voter)).count() > self.voters
    }

    fn hold(&self) -> u8 {
        match self.bug {
            Some(Bug::EntryIgnoresTheStop) => LEASE * FAST / SLOW,
            Some(Bug::EntryIgnoresTheDrift) => LEASE + STOP,
            _ => HOLD,
        }
    }

    fn tick(&self, state: &mut State, fast: u8) {
        let rate = |own: bool, index: usize| match self.drift {
            Drift::None => SLOW,
            Drift::Hostile if index < self.voters => FAST,
            Drift::Hostile => SLOW,
            Drift::Constant if own => FAST,
            Drift::Constant => SLOW,
            Drift::Changing if fast & (1 << index) != 0 => FAST,
            Drift::Changing => SLOW,
        };
        for (index, voter) in state.voters[..self.voters].iter_mut().enumerate() {
            let rate = rate(voter.fast, index);
            voter.left = voter.left.saturating_sub(rate);
            voter.mute = voter.mute.saturating_sub(rate);
        }
        for (index, holder) in state.holders.iter_mut().enumerate() {
            let rate = rate(holder.fast, self.voters + index);
            if !self.has(Bug::PromisesNeverAge) {
                holder.promises_left = holder.promises_left.saturating_sub(rate);
            }
            holder.round_left = holder.round_left.saturating_sub(rate);
            if holder.lease_left > 0 && holder.lease_left <= rate {
                // A renewal that comes too late finds the unit on its way out.
                holder.round_left = 0;
            }
            holder.lease_left = holder.lease_left.saturating_sub(rate);
            holder.guard_left = holder.guard_left.saturating_sub(rate);
        }
    }

    fn voter_hears_prepare(&self, state: &mut State, holder: usize, epoch: u8, voter: usize) {
        let hears = &mut state.voters[voter];
        let ballot = (epoch, holder as u8);
        let higher = epoch > hears.promised.0.max(hears.floor);
        let tie = self.has(Bug::EqualEpochs) && epoch > hears.floor && ballot > hears.promised;
        if hears.mute > 0 || !(higher || tie || ballot == hears.promised) {
            return;
        }
        hears.promised = ballot;
        if !self.has(Bug::ForgetsItsFloor) {
            hears.ceiling = hears.ceiling.max(epoch);
        }
        // With the lease of another it would say so, which the holder must not count.
        let free = hears.left == 0 || hears.accepted == ballot;
        if free && state.holders[holder].epoch == epoch {
            state.voters[voter].promise_sent[holder] = true;
        }
    }

    fn voter_hears_proposal(
        &self,
        state: &mut State,
        holder: usize,
        epoch: u8,
        voter: usize,
        renewal: bool,
    ) {
        let hold = self.hold();
        let hears = &mut state.voters[voter];
        let ballot = (epoch, holder as u8);
        let higher = epoch > hears.promised.0;
        let tie = self.has(Bug::EqualEpochs) && ballot > hears.promised;
        let new = !renewal && !self.has(Bug::FirstBelowTheFloor);
        if hears.mute > 0
            || !(higher || tie || ballot == hears.promised)
            || (new && epoch <= hears.floor)
        {
            return;
        }
        hears.promised = ballot;
        hears.accepted = ballot;
        hears.left = hold;
        let asks = &state.holders[holder];
        let present = asks.epoch == epoch && renewal == (asks.lease_left > 0);
        if present && asks.round_left > 0 {
            state.voters[voter].accept_sent[holder] = true;
        }
    }

    fn begin_round(&self, state: &mut State, holder: usize) {
        let asks = &mut state.holders[holder];
        let sent = if asks.lease_left > 0 { &mut asks.renewed } else { &mut asks.proposed };
        *sent |= 1 << asks.epoch;
        asks.round_left = if self.has(Bug::HoldsTooLong) { LEASE * FAST / SLOW } else { LEASE };
        for voter in &mut state.voters {
            if !self.has(Bug::OldAnswersCount) {
                voter.accept_sent[holder] = false;
            }
        }
    }

    fn take_hold(&self, state: &mut State, holder: usize) {
        let holds = &mut state.holders[holder];
        let first = holds.guard_left == 0;
        let lease = if self.has(Bug::CountsFromTheAnswer) { LEASE } else { holds.round_left };
        holds.lease_left = holds.lease_left.max(lease);
        holds.guard_left = holds.lease_left + STOP;
        holds.round_left = 0;
        holds.promises_left = 0;
        let ballot = (holds.epoch, holder as u8);
        if first {
            state.token_fell |= ballot.0 <= state.latest.0;
            state.succeeded |= state.latest.0 > 0 && state.latest.1 != ballot.1;
            state.latest = ballot;
        }
    }

    /// What can make no difference any more is made equal, so that it makes no states.
    fn tidy(&self, state: &mut State) {
        for (index, holder) in state.holders.iter_mut().enumerate() {
            let idle =
                holder.promises_left == 0 && holder.round_left == 0 && holder.lease_left == 0;
            if idle {
                holder.epoch = 0;
            }
            for voter in &mut state.voters {
                if holder.promises_left == 0 {
                    voter.promise_sent[index] = false;
                }
                if holder.round_left == 0 && (idle || !self.has(Bug::OldAnswersCount)) {
                    voter.accept_sent[index] = false;
                }
            }
        }
        for voter in &mut state.voters {
            if voter.left == 0 {
                voter.accepted = (0, 0);
            }
        }
        // Voters differ in nothing but what they know.
        state.voters[..self.voters].sort_unstable();
    }
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let fresh = State {
            voters: Default::default(),
            holders: Default::default(),
            voter_restarts: self.voter_restarts,
            holder_restarts: self.holder_restarts,
            latest: (0, 0),
            token_fell: false,
            succeeded: false,
        };
        if self.drift != Drift::Constant {
            return vec![fresh];
        }
        let mut states: Vec<State> = Vec::new();
        for fast in 0..1u8 << (self.voters + HOLDERS) {
            let mut state = fresh.clone();
            for (index, voter) in state.voters[..self.voters].iter_mut().enumerate() {
                voter.fast = fast & (1 << index) != 0;
            }
            for (index, holder) in state.holders.iter_mut().enumerate() {
                holder.fast = fast & (1 << (self.voters + index)) != 0;
            }
            self.tidy(&mut state);
            if !states.contains(&state) {
                states.push(state);
            }
        }
        states
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        match self.drift {
            Drift::Changing => {
                actions.extend((0..1 << (self.voters + HOLDERS)).map(Action::Tick));
            }
            _ => actions.push(Action::Tick(0)),
        }
        for (index, holder) in state.holders.iter().enumerate() {
            let of = |bits: u8| (1..=self.epochs).filter(move |epoch| bits & (1 << epoch) != 0);
            let unused = (1..=self.epochs).filter(|epoch| holder.prepared >> epoch == 0);
            if holder.guard_left == 0 {
                actions.extend(unused.map(|epoch| Action::Prepare(index, epoch)));
            }
            let promised = holder.promises_left > 0
                && self.is_majority(state, |voter| voter.promise_sent[index]);
            if promised || holder.lease_left > 0 {
                actions.push(Action::Propose(index));
            }
            let accepted = self.is_majority(state, |voter| voter.accept_sent[index]);
            if holder.round_left > 0 && accepted {
                actions.push(Action::MajorityAccepted(index));
            }
            if holder.guard_left > 0 {
                actions.push(Action::UnitEnds(index));
            }
            if state.holder_restarts > 0 {
                actions.push(Action::AgentRestarts(index));
                actions.push(Action::PowerFails(index));
            }
            for at in 0..self.voters {
                actions.extend(of(holder.prepared).map(|e| Action::PrepareArrives(index, e, at)));
                actions.extend(of(holder.proposed).map(|e| Action::ProposalArrives(index, e, at)));
                actions.extend(of(holder.renewed).map(|e| Action::RenewalArrives(index, e, at)));
                actions.extend(of(holder.released).map(|e| Action::ReleaseArrives(index, e, at)));
            }
        }
        if state.voter_restarts > 0 {
            actions.extend((0..self.voters).map(Action::VoterRestarts));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick(fast) => self.tick(&mut state, fast),
            Action::Prepare(holder, epoch) => {
                for voter in &mut state.voters {
                    voter.promise_sent[holder] = false;
                    voter.accept_sent[holder] = false;
                }
                let asks = &mut state.holders[holder];
                asks.epoch = epoch;
                asks.prepared |= 1 << epoch;
                asks.promises_left = LEASE;
                asks.round_left = 0;
                asks.lease_left = 0;
            }
            Action::PrepareArrives(holder, epoch, voter) => {
                self.voter_hears_prepare(&mut state, holder, epoch, voter);
            }
            Action::Propose(holder) => self.begin_round(&mut state, holder),
            Action::ProposalArrives(holder, epoch, voter) => {
                self.voter_hears_proposal(&mut state, holder, epoch, voter, false);
            }
            Action::RenewalArrives(holder, epoch, voter) => {
                self.voter_hears_proposal(&mut state, holder, epoch, voter, true);
            }
            Action::MajorityAccepted(holder) => self.take_hold(&mut state, holder),
            Action::UnitEnds(holder) => {
                let ends = &mut state.holders[holder];
                // After a restart without a lease the epoch is known from the disk.
                let epoch = if ends.epoch > 0 { ends.epoch } else { last_epoch(ends.proposed) };
                ends.released |= 1 << epoch;
                (ends.promises_left, ends.round_left, ends.lease_left) = (0, 0, 0);
                if !self.has(Bug::ReleasesTooEarly) {
                    ends.guard_left = 0;
                }
            }
            Action::ReleaseArrives(holder, epoch, voter) => {
                let hears = &mut state.voters[voter];
                if hears.accepted == (epoch, holder as u8) {
                    hears.left = 0;
                }
            }
            Action::VoterRestarts(voter) => {
                state.voter_restarts -= 1;
                let restarts = &mut state.voters[voter];
                restarts.promised = (0, 0);
                restarts.left = 0;
                restarts.floor = restarts.ceiling;
                restarts.mute = if self.has(Bug::NotMute) { 0 } else { HOLD };
            }
            Action::AgentRestarts(holder) => {
                state.holder_restarts -= 1;
                let restarts = &mut state.holders[holder];
                restarts.promises_left = 0;
                restarts.round_left = 0;
                restarts.lease_left = restarts.guard_left.saturating_sub(STOP);
            }
            Action::PowerFails(holder) => {
                state.holder_restarts -= 1;
                let fails = &mut state.holders[holder];
                (fails.promises_left, fails.round_left) = (0, 0);
                (fails.lease_left, fails.guard_left) = (0, 0);
            }
        }
        self.tidy(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER_TWO, |_, state: &State| {
                state.holders.iter().filter(|holder| holder.guard_left > 0).count() <= 1
            }),
            Property::always(TOKENS_GROW, |_, state: &State| !state.token_fell),
            Property::sometimes(A_SUCCESSOR, |_, state: &State| state.succeeded),
        ]
    }

    fn format_action(&self, action: &Action) -> String {
        // Voters are sorted by what they know after every step, so that a number would mean nothing.
        let name = |holder: &usize| ["A", "B"][*holder];
        match action {
            Action::Tick(0) => "time passes".into(),
            Action::Tick(fast) => format!("time passes, clocks that run fast: {fast:05b}"),
            Action::Prepare(h, e) => format!("{} asks for promises of epoch {e}", name(h)),
            Action::PrepareArrives(h, e, _) => {
                format!("a voter hears that {} asks for {e}", name(h))
            }
            Action::Propose(h) => format!("{} proposes", name(h)),
            Action::ProposalArrives(h, e, _) => {
                format!("a voter hears that {} proposes {e}", name(h))
            }
            Action::RenewalArrives(h, e, _) => format!("a voter hears that {} renews {e}", name(h)),
            Action::MajorityAccepted(h) => format!("{} hears that a majority accepted", name(h)),
            Action::UnitEnds(h) => format!("the unit of {} ends, the lease is given back", name(h)),
            Action::ReleaseArrives(h, e, _) => {
                format!("a voter hears that {} gives {e} back", name(h))
            }
            Action::VoterRestarts(_) => "a voter restarts".into(),
            Action::AgentRestarts(h) => format!("the agent of {} restarts", name(h)),
            Action::PowerFails(h) => format!("{} loses its power", name(h)),
        }
    }
}

fn last_epoch(bits: u8) -> u8 {
    7 - bits.leading_zeros().min(7) as u8
}

#[cfg(test)]
mod tests;
