//! The voter set changes by one member at a time while somebody holds a lease.
//!
//! What is modelled: each next set is chosen by single-decree Paxos among the voters of the one before, with two
//! competing ballots; what was chosen spreads by gossip; leases are asked for, granted and renewed under
//! a generation, and each voter answers only under the one that it knows; a voter accepts a next set only after
//! it has known its present one for as long as any lease lasts.
//!
//! As in [`lease`](crate::lease), whatever was sent once may arrive at any time, any number of times, or never.
//!
//! Left out, because the other model has them: drift, restarts, releases and stop timeouts. Each holder has one
//! epoch. Promises and acceptances of the Paxos are on disk, so that restarts would change nothing.

use stateright::{Model, Property};

/// Nodes that vote or may come to vote.
const NODES: usize = 3;
/// Would-be holders.
const HOLDERS: usize = 2;
/// Generations of the voter set, from 1.
const GENERATIONS: usize = 3;
/// A lease with its unit's end, and a voter's entry, in steps of time.
const HOLD: u8 = 2;

/// No two units of the slot.
pub const NEVER_TWO: &str = "never two live units of the slot while the voter set changes";
/// What was chosen is chosen.
pub const ONE_SET: &str = "a generation has one voter set";
/// Not a promise: the model is alive.
pub const A_SUCCESSOR: &str = "a lease under the first set has a successor under the last";

/// Likewise.
pub const BOTH_CHANGES: &str = "the last set is chosen";

/// What somebody got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Two members come or go at a time.
    TwoAtATime,
    /// A voter accepts the next set as soon as it knows the present one.
    NoWait,
    /// A voter answers under whatever generation it is asked.
    AnyGeneration,
    /// The second proposer of a set does not ask what was accepted before.
    ProposesUnasked,
}

/// What is searched.
#[derive(Clone, Debug)]
pub struct Voters {
    /// The first set: a bit a node.
    pub first: u8,
    /// Ballots of each next set: with one of them there is no competition.
    pub ballots: usize,
    /// Whether anybody wants a lease.
    pub leases: bool,
    /// What somebody got wrong.
    pub bug: Option<Bug>,
}

/// What a node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Voter {
    /// The newest generation that it knows to be chosen.
    generation: u8,
    /// For how long, at most [`HOLD`].
    known_for: u8,
    /// What it accepted of the next set in the first ballot, and in the second; 0: nothing.
    accepted: [u8; 2],
    /// It promised the second ballot; and had then accepted this in the first; 0: nothing.
    promised: Option<u8>,
    /// The highest epoch that it promised a lease to.
    epoch: u8,
    /// The epoch that it granted one, and how long that lasts.
    granted: u8,
    left: u8,
    /// By holder: it has answered the present question with a promise.
    promise_sent: [bool; HOLDERS],
    /// By holder: it has accepted the present round.
    accept_sent: [bool; HOLDERS],
}

/// A would-be holder. Its epoch is its number plus one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Under which it asks.
    generation: u8,
    /// A bit a generation: it asked for promises.
    prepared: u8,
    /// A bit a generation: it proposed.
    proposed: u8,
    /// A round is under way, and the lease would last this long.
    round_left: u8,
    /// Its unit runs for this long.
    left: u8,
    /// It had the lease.
    held: bool,
}

/// Everybody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    voters: [Voter; NODES],
    holders: [Holder; HOLDERS],
    /// By generation, from 1: what was chosen; 0: nothing yet.
    sets: [u8; GENERATIONS + 1],
    /// By generation and ballot: what is proposed for the next.
    proposals: [[u8; 2]; GENERATIONS + 1],
    /// A generation had two sets.
    conflict: bool,
    /// Somebody had the lease under the first set.
    under_first: bool,
    /// And somebody else under the last.
    under_last: bool,
}

/// Something happens. Numbers are nodes or holders, then generations, ballots or sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time passes.
    Tick,
    /// Somebody proposes a set to follow a generation's, in a ballot.
    ProposeSet(u8, usize, u8),
    /// A voter promises the second ballot.
    PromisesSet(usize),
    /// A voter accepts what a ballot proposes.
    AcceptsSet(usize, usize),
    /// A majority has accepted in a ballot: the set after a generation's is chosen.
    Chosen(u8, usize),
    /// A node learns that a generation was chosen.
    Learns(usize, u8),
    /// A holder learns that.
    HolderLearns(usize, u8),
    /// A holder asks for promises.
    Prepare(usize),
    /// A voter hears that, asked under a generation.
    PrepareArrives(usize, u8, usize),
    /// A holder proposes, or renews.
    Propose(usize),
    /// A voter hears that.
    ProposalArrives(usize, u8, usize),
    /// The holder has heard that a majority accepted.
    MajorityAccepted(usize),
}

impl Voters {
    /// In words.
    pub fn bounds(&self) -> String {
        format!(
            "first set of {}, {} changes of one member among {NODES} nodes, {} ballot(s) each, {} holders, any loss, \
             repetition and order of messages, time without bound",
            self.first.count_ones(),
            GENERATIONS - 1,
            self.ballots,
            if self.leases { HOLDERS } else { 0 }
        )
    }

    fn is_majority(state: &State, set: u8, said: impl Fn(&Voter) -> bool) -> bool {
        let members = (0..NODES).filter(|node| set & (1 << node) != 0);
        let yes = members.filter(|node| said(&state.voters[*node])).count() as u32;
        2 * yes > set.count_ones()
    }

    fn follows(&self, before: u8, next: u8) -> bool {
        // The first node may be special; the second and the third differ in nothing but their number.
        let canonical = next & 0b110 != 0b100;
        let changed = (before ^ next).count_ones();
        let at_once = if self.bug == Some(Bug::TwoAtATime) { 2 } else { 1 };
        canonical && next != 0 && changed >= 1 && changed <= at_once
    }

    /// The sets that a ballot may propose to follow a generation's.
    fn may_propose(&self, state: &State, generation: u8, ballot: usize) -> Vec<u8> {
        let set = state.sets[usize::from(generation)];
        let free: Vec<u8> = (1..1 << NODES).filter(|next| self.follows(set, *next)).collect();
        let at = |voter: &Voter| voter.generation == generation;
        if ballot == 0 || self.bug == Some(Bug::ProposesUnasked) {
            return free;
        }
        // Whoever hears of an accepted set among the promises of a majority must propose that.
        if Self::is_majority(state, set, |voter| at(voter) && voter.promised == Some(0)) {
            return free;
        }
        if Self::is_majority(state, set, |voter| at(voter) && voter.promised.is_some()) {
            let heard = state.voters.iter().filter(|voter| at(voter));
            let heard = heard.filter_map(|voter| voter.promised.filter(|set| *set > 0));
            return heard.take(1).collect();
        }
        Vec::new()
    }

    fn answers(&self, state: &State, node: usize, generation: u8) -> bool {
        let known =
            state.voters[node].generation == generation || self.bug == Some(Bug::AnyGeneration);
        known && state.sets[usize::from(generation)] & (1 << node) != 0
    }

    fn set_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for generation in 1..GENERATIONS as u8 {
            let index = usize::from(generation);
            let set = state.sets[index];
            if set == 0 {
                continue;
            }
            for ballot in 0..self.ballots {
                if state.proposals[index][ballot] == 0 && state.sets[index + 1] == 0 {
                    let sets = self.may_propose(state, generation, ballot);
                    let propose = |set| Action::ProposeSet(generation, ballot, set);
                    actions.extend(sets.into_iter().map(propose));
                }
                let proposed = state.proposals[index][ballot];
                let accepted = |voter: &Voter| {
                    voter.generation == generation && voter.accepted[ballot] == proposed
                };
                if proposed != 0
                    && state.sets[index + 1] != proposed
                    && Self::is_majority(state, set, accepted)
                {
                    actions.push(Action::Chosen(generation, ballot));
                }
            }
        }
        for (node, voter) in state.voters.iter().enumerate() {
            let index = usize::from(voter.generation);
            let member = state.sets[index] & (1 << node) != 0;
            let waited = voter.known_for == HOLD || self.bug == Some(Bug::NoWait);
            if index < GENERATIONS && member {
                if self.ballots > 1 && voter.promised.is_none() {
                    actions.push(Action::PromisesSet(node));
                }
                for ballot in 0..2 {
                    let proposed = state.proposals[index][ballot];
                    let barred = ballot == 0 && voter.promised.is_some();
                    if proposed != 0 && voter.accepted[ballot] == 0 && !barred && waited {
                        actions.push(Action::AcceptsSet(node, ballot));
                    }
                }
            }
            let newer = voter.generation + 1..=GENERATIONS as u8;
            let newer = newer.filter(|generation| state.sets[usize::from(*generation)] != 0);
            actions.extend(newer.map(|generation| Action::Learns(node, generation)));
        }
    }

    fn lease_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, holder) in state.holders.iter().enumerate() {
            let newer = holder.generation + 1..=GENERATIONS as u8;
            let newer = newer.filter(|generation| state.sets[usize::from(*generation)] != 0);
            actions.extend(newer.map(|generation| Action::HolderLearns(index, generation)));
            let set = state.sets[usize::from(holder.generation)];
            let asked = holder.prepared & (1 << holder.generation) != 0;
            let over = holder.held && holder.left == 0;
            if !over && !holder.held && !asked {
                actions.push(Action::Prepare(index));
            }
            let promised = Self::is_majority(state, set, |voter| voter.promise_sent[index]);
            if holder.left > 0 || (!holder.held && promised) {
                actions.push(Action::Propose(index));
            }
            let accepted = Self::is_majority(state, set, |voter| voter.accept_sent[index]);
            if holder.round_left > 0 && accepted {
                actions.push(Action::MajorityAccepted(index));
            }
            for node in 0..NODES {
                for generation in 1..=GENERATIONS as u8 {
                    if holder.prepared & (1 << generation) != 0 {
                        actions.push(Action::PrepareArrives(index, generation, node));
                    }
                    if holder.proposed & (1 << generation) != 0 {
                        actions.push(Action::ProposalArrives(index, generation, node));
                    }
                }
            }
        }
    }

    fn learns(&self, voter: &mut Voter, generation: u8) {
        voter.generation = generation;
        voter.known_for = 0;
        voter.accepted = [0; 2];
        voter.promised = None;
    }
}

impl Model for Voters {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let voter = Voter { generation: 1, known_for: HOLD, ..Voter::default() };
        let holder = Holder { generation: 1, ..Holder::default() };
        let mut sets = [0; GENERATIONS + 1];
        sets[1] = self.first;
        vec![State {
            voters: [voter; NODES],
            holders: [holder; HOLDERS],
            sets,
            proposals: Default::default(),
            conflict: false,
            under_first: false,
            under_last: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        self.set_actions(state, actions);
        if self.leases {
            self.lease_actions(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => {
                for voter in &mut state.voters {
                    voter.left = voter.left.saturating_sub(1);
                    voter.known_for = (voter.known_for + 1).min(HOLD);
                    if voter.left == 0 {
                        voter.granted = 0;
                    }
                }
                for (index, holder) in state.holders.iter_mut().enumerate() {
                    holder.round_left = holder.round_left.saturating_sub(1);
                    if holder.left == 1 {
                        holder.round_left = 0;
                    }
                    holder.left = holder.left.saturating_sub(1);
                    if holder.round_left == 0 {
                        state.voters.iter_mut().for_each(|voter| voter.accept_sent[index] = false);
                    }
                }
            }
            Action::ProposeSet(generation, ballot, set) => {
                state.proposals[usize::from(generation)][ballot] = set;
            }
            Action::PromisesSet(node) => {
                let promises = &mut state.voters[node];
                promises.promised = Some(promises.accepted[0]);
            }
            Action::AcceptsSet(node, ballot) => {
                let accepts = &mut state.voters[node];
                let generation = usize::from(accepts.generation);
                accepts.accepted[ballot] = state.proposals[generation][ballot];
            }
            Action::Chosen(generation, ballot) => {
                let index = usize::from(generation);
                let chosen = state.proposals[index][ballot];
                state.conflict |= state.sets[index + 1] != 0;
                state.sets[index + 1] = chosen;
            }
            Action::Learns(node, generation) => self.learns(&mut state.voters[node], generation),
            Action::HolderLearns(holder, generation) => {
                let learns = &mut state.holders[holder];
                learns.generation = generation;
                learns.round_left = 0;
                for voter in &mut state.voters {
                    voter.promise_sent[holder] = false;
                    voter.accept_sent[holder] = false;
                }
            }
            Action::Prepare(holder) => {
                let asks = &mut state.holders[holder];
                asks.prepared |= 1 << asks.generation;
            }
            Action::PrepareArrives(holder, generation, node) => {
                if !self.answers(last, node, generation) {
                    return None;
                }
                let epoch = holder as u8 + 1;
                let hears = &mut state.voters[node];
                if epoch < hears.epoch {
                    return None;
                }
                hears.epoch = epoch;
                let asks = &state.holders[holder];
                let free = hears.left == 0 || hears.granted == epoch;
                if free && asks.generation == generation && !asks.held {
                    hears.promise_sent[holder] = true;
                }
            }
            Action::Propose(holder) => {
                let asks = &mut state.holders[holder];
                asks.proposed |= 1 << asks.generation;
                asks.round_left = HOLD;
                state.voters.iter_mut().for_each(|voter| voter.accept_sent[holder] = false);
            }
            Action::ProposalArrives(holder, generation, node) => {
                let epoch = holder as u8 + 1;
                let hears = &mut state.voters[node];
                if !self.answers(last, node, generation) || epoch < hears.epoch {
                    return None;
                }
                (hears.epoch, hears.granted, hears.left) = (epoch, epoch, HOLD);
                let asks = &state.holders[holder];
                if asks.generation == generation && asks.round_left > 0 {
                    hears.accept_sent[holder] = true;
                }
            }
            Action::MajorityAccepted(holder) => {
                let holds = &mut state.holders[holder];
                holds.left = holds.left.max(holds.round_left);
                holds.round_left = 0;
                let first = !holds.held;
                holds.held = true;
                if first {
                    state.under_last |= state.under_first && holds.generation == 3;
                    state.under_first |= holds.generation == 1;
                }
                for voter in &mut state.voters {
                    voter.promise_sent[holder] = false;
                    voter.accept_sent[holder] = false;
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NEVER_TWO, |_, state: &State| {
                state.holders.iter().filter(|holder| holder.left > 0).count() <= 1
            }),
            Property::always(ONE_SET, |_, state: &State| !state.conflict),
            Property::sometimes(BOTH_CHANGES, |_, state: &State| state.sets[GENERATIONS] != 0),
        ];
        if self.leases {
            let succeeds = |_: &Self, state: &State| state.under_last;
            properties.push(Property::sometimes(A_SUCCESSOR, succeeds));
        }
        properties
    }

    fn format_action(&self, action: &Action) -> String {
        let name = |holder: &usize| ["A", "B"][*holder];
        match action {
            Action::Tick => "time passes".into(),
            Action::ProposeSet(g, b, set) => {
                format!("ballot {} proposes {set:03b} to follow generation {g}", b + 1)
            }
            Action::PromisesSet(n) => format!("voter {n} promises ballot 2 of the next set"),
            Action::AcceptsSet(n, b) => {
                format!("voter {n} accepts the next set of ballot {}", b + 1)
            }
            Action::Chosen(g, b) => format!("ballot {} after generation {g} is chosen", b + 1),
            Action::Learns(n, g) => format!("node {n} learns generation {g}"),
            Action::HolderLearns(h, g) => format!("{} learns generation {g}", name(h)),
            Action::Prepare(h) => format!("{} asks for promises", name(h)),
            Action::PrepareArrives(h, g, n) => {
                format!("voter {n} hears that {} asks under generation {g}", name(h))
            }
            Action::Propose(h) => format!("{} proposes", name(h)),
            Action::ProposalArrives(h, g, n) => {
                format!("voter {n} hears that {} proposes under generation {g}", name(h))
            }
            Action::MajorityAccepted(h) => format!("{} hears that a majority accepted", name(h)),
        }
    }
}

#[cfg(test)]
mod tests;
