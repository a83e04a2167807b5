//! Two or three allocations of one slot, as a split leaves them: which of them gives way.
//!
//! What is modelled: allocations with an epoch and a place in the order of hashes; rows that spread by
//! gossip, node by node, late, in any order and not at all to some; nodes that are wrongly held for dead;
//! units that become healthy, fall ill, recover, or are given up.
//!
//! A row that was read earlier and arrives later is older than what the receiver could have had before, and
//! merging takes the newest: late, lost and repeated rows are covered by not passing a row on yet.
//!
//! Everything that goes wrong is counted, so that every run ends. The promise about the end is checked
//! in those states in which nothing can happen any more.
//!
//! Left out: the coordinator, which would start another allocation when none is left; and what was there of the slot
//! when an allocation was placed. Of two copies the later one stays here, as if it was meant to take over. Stand-ins, and
//! copies that nobody knew of, are the simulator's to judge.

use stateright::{Model, Property};

/// Nodes at most, each with an allocation of the slot.
const NODES_MAX: usize = 3;

/// Somebody always stays.
pub const NEVER_ALL: &str = "the allocations of a slot never all give way to each other";
/// Whoever could run is not given up for one that never did.
pub const ONE_STAYS: &str = "in the end exactly one stays, unless all were given up";
/// Not a promise: the model is alive.
pub const GIVES_WAY: &str = "one gives way to another";
/// Not a promise: failing units are part of it.
pub const SURVIVES: &str = "one stays although a higher one was given up";

/// What somebody got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Gives way to any other that is healthy.
    NoDirection,
    /// With equal epochs, gives way whatever the hashes say.
    NoTieBreak,
    /// Gives way to a higher one that is not healthy yet.
    TooEarly,
}

/// What is searched.
#[derive(Clone, Debug)]
pub struct Slots {
    /// Two or three nodes.
    pub nodes: usize,
    /// Times that a unit falls ill, all together.
    pub illnesses: u8,
    /// Units that are given up before they were ever healthy.
    pub failures: u8,
    /// Times that a node holds another one for dead.
    pub doubts: u8,
    /// What somebody got wrong.
    pub bug: Option<Bug>,
}

/// How far an allocation has come, in the order in which rows replace each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Its unit starts.
    #[default]
    Starting,
    /// Its unit runs.
    Running,
    /// Given up.
    Failed,
    /// It gave way.
    GaveWay,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    phase: Phase,
    /// Later rows of one phase have a higher one.
    stamp: u8,
    healthy: bool,
}

/// Everybody: what each node has in its table. Its own row is the truth.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// By node: epoch, and place in the order of hashes; lower stays.
    ranks: [(u8, u8); NODES_MAX],
    /// By reader and node; `None`: never heard of.
    rows: [[Option<Row>; NODES_MAX]; NODES_MAX],
    /// By reader and node: held for dead.
    doubted: [[bool; NODES_MAX]; NODES_MAX],
    illnesses: u8,
    failures: u8,
    doubts: u8,
}

/// Something happens. Numbers are nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A unit runs, and is healthy.
    Healthy(usize),
    /// A healthy unit falls ill.
    FallsIll(usize),
    /// A unit is given up.
    Fails(usize),
    /// The first passes to the second what it knows of the third.
    Gossip(usize, usize, usize),
    /// The first holds the second for dead.
    Doubts(usize, usize),
    /// And no longer does.
    Trusts(usize, usize),
    /// A node looks at its table and gives way.
    GivesWay(usize),
}

impl Slots {
    /// In words.
    pub fn bounds(&self) -> String {
        format!(
            "{} allocations, all orders of epochs 1 to 2 and hashes, {} illnesses, {} failures, {} nodes wrongly \
             held for dead, any loss and order of gossip",
            self.nodes, self.illnesses, self.failures, self.doubts
        )
    }

    fn is_higher(&self, state: &State, other: usize, own: usize) -> bool {
        let ((epoch, hash), (own_epoch, own_hash)) = (state.ranks[other], state.ranks[own]);
        match self.bug {
            Some(Bug::NoDirection) => true,
            Some(Bug::NoTieBreak) => epoch >= own_epoch,
            _ => epoch > own_epoch || (epoch == own_epoch && hash < own_hash),
        }
    }

    fn must_give_way(&self, state: &State, node: usize) -> bool {
        let Some(own) = state.rows[node][node] else { return false };
        own.phase <= Phase::Running
            && (0..self.nodes).any(|other| {
                let there = state.rows[node][other].is_some_and(|row| match self.bug {
                    Some(Bug::TooEarly) => row.phase <= Phase::Running,
                    _ => row.phase == Phase::Running && row.healthy,
                });
                other != node
                    && there
                    && !state.doubted[node][other]
                    && self.is_higher(state, other, node)
            })
    }
}

impl Model for Slots {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut states = Vec::new();
        // Nodes differ in nothing else, so that their numbers may be their order.
        for epochs in 0..1u8 << self.nodes {
            let mut rows = [[None; NODES_MAX]; NODES_MAX];
            let mut ranks = [(0, 0); NODES_MAX];
            for node in 0..self.nodes {
                ranks[node] = (1 + (epochs >> node & 1), node as u8);
                rows[node][node] = Some(Row::default());
            }
            states.push(State {
                ranks,
                rows,
                doubted: Default::default(),
                illnesses: self.illnesses,
                failures: self.failures,
                doubts: self.doubts,
            });
        }
        states
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for node in 0..self.nodes {
            let Some(own) = state.rows[node][node] else { continue };
            let live = own.phase <= Phase::Running;
            if live && !own.healthy {
                actions.push(Action::Healthy(node));
            }
            if live && own.healthy && state.illnesses > 0 {
                actions.push(Action::FallsIll(node));
            }
            if own.phase == Phase::Starting && state.failures > 0 {
                actions.push(Action::Fails(node));
            }
            if self.must_give_way(state, node) {
                actions.push(Action::GivesWay(node));
            }
            for other in (0..self.nodes).filter(|other| *other != node) {
                if state.doubted[node][other] {
                    actions.push(Action::Trusts(node, other));
                } else if state.doubts > 0 {
                    actions.push(Action::Doubts(node, other));
                }
                for about in 0..self.nodes {
                    if state.rows[node][about] > state.rows[other][about] {
                        actions.push(Action::Gossip(node, other, about));
                    }
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let mut change = |node: usize, phase: Phase, healthy: bool| {
            let before = state.rows[node][node].unwrap_or_default();
            let stamp = if before.phase == phase { before.stamp + 1 } else { 0 };
            state.rows[node][node] = Some(Row { phase, stamp, healthy });
        };
        match action {
            Action::Healthy(node) => change(node, Phase::Running, true),
            Action::FallsIll(node) => {
                change(node, Phase::Running, false);
                state.illnesses -= 1;
            }
            Action::Fails(node) => {
                change(node, Phase::Failed, false);
                state.failures -= 1;
            }
            Action::GivesWay(node) => change(node, Phase::GaveWay, false),
            Action::Gossip(from, to, about) => state.rows[to][about] = state.rows[from][about],
            Action::Doubts(node, other) => {
                state.doubted[node][other] = true;
                state.doubts -= 1;
            }
            Action::Trusts(node, other) => state.doubted[node][other] = false,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER_ALL, |model: &Self, state: &State| {
                own_rows(model, state).any(|row| row.phase != Phase::GaveWay)
            }),
            Property::always(ONE_STAYS, |model: &Self, state: &State| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                let live = own_rows(model, state).filter(|row| row.phase <= Phase::Running).count();
                let failed = own_rows(model, state).all(|row| row.phase == Phase::Failed);
                !actions.is_empty() || live == 1 || failed
            }),
            Property::sometimes(GIVES_WAY, |model: &Self, state: &State| {
                own_rows(model, state).any(|row| row.phase == Phase::GaveWay)
            }),
            Property::sometimes(SURVIVES, |model: &Self, state: &State| {
                let stays = |node: usize| {
                    state.rows[node][node].is_some_and(|row| row.phase == Phase::Running)
                };
                (0..model.nodes).any(|node| {
                    let failed = |other: &usize| {
                        state.rows[*other][*other].is_some_and(|row| row.phase == Phase::Failed)
                    };
                    stays(node)
                        && (0..model.nodes).filter(failed).any(|o| model.is_higher(state, o, node))
                })
            }),
        ]
    }

    fn format_action(&self, action: &Action) -> String {
        let name = |node: &usize| ["A", "B", "C"][*node];
        match action {
            Action::Healthy(node) => format!("the unit of {} is healthy", name(node)),
            Action::FallsIll(node) => format!("the unit of {} falls ill", name(node)),
            Action::Fails(node) => format!("the unit of {} is given up", name(node)),
            Action::Gossip(from, to, about) => {
                format!("{} tells {} of {}'s row", name(from), name(to), name(about))
            }
            Action::Doubts(node, other) => format!("{} holds {} for dead", name(node), name(other)),
            Action::Trusts(node, other) => format!("{} hears of {} again", name(node), name(other)),
            Action::GivesWay(node) => format!("{} gives way", name(node)),
        }
    }
}

/// What is true of each node.
fn own_rows(model: &Slots, state: &State) -> impl Iterator<Item = Row> {
    let rows: Vec<Row> = (0..model.nodes).filter_map(|node| state.rows[node][node]).collect();
    rows.into_iter()
}

#[cfg(test)]
mod tests;
