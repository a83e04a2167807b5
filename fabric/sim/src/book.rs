//! What the invariants need to remember of the past: promises, commands, deaths, submits.

use fabric::api::NodeState;
use fabric::id::{AllocId, JobName, NodeId, SlotId};
use fabric::io::{Answer, Launch, Request, UnitEvent};
use fabric::job::{Guarantee, JobSpec};
use fabric::message::Message;
use fabric::stamp::Stamp;
use fabric::table::{Key, Order, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::gate::Sealed;
use crate::invariants::rollouts::Emptied;
use crate::node::SimNode;

/// An invariant was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name: a sentence.
    pub invariant: &'static str,
    /// When it was noticed, in world time.
    pub at: Duration,
    /// What was seen.
    pub detail: String,
}

/// Nothing is broken: the run stopped where somebody wanted it to.
const STOPPED: &str = "stopped";

impl Violation {
    /// Nothing is broken: somebody wanted to look at the world now.
    pub fn stop(at: Duration) -> Self {
        Self { invariant: STOPPED, at, detail: "as asked".into() }
    }

    /// Whether it is one of those.
    pub fn is_stop(&self) -> bool {
        self.invariant == STOPPED
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sentence = self.invariant.trim_start_matches("invariant_").replace('_', " ");
        write!(f, "broken at {:.3} s: {sentence}: {}", self.at.as_secs_f64(), self.detail)
    }
}

impl std::error::Error for Violation {}

/// What a node wants done that can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Start a unit.
    Start,
    /// Stop a unit.
    Stop,
    /// Ask another node to run a slot.
    Propose,
    /// Ask another node to end an allocation.
    Retire,
}

/// A job that a user was told is kept.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The row that was kept; later ones may have replaced it.
    pub order: Order,
    /// Identities that had it, or a later one, on disk when the user was told.
    pub holders: BTreeSet<NodeId>,
    /// It was stopped: the row may leave once all have seen it.
    pub stopped: bool,
    /// When.
    pub at: Duration,
}

/// A datagram that came to a core: listener and its life, speaker and its start, and number.
type Hearing = (usize, u64, NodeId, u64, u64);

/// What a failing unit leaves behind.
const TROUBLES_MAX: usize = 100_000;

/// What happened so far, as far as an invariant asks for it.
#[derive(Debug, Default)]
pub struct Book {
    /// The first broken invariant.
    pub violation: Option<Violation>,
    /// Where each allocation that ever was was started first, and its highest run.
    begun: BTreeMap<AllocId, (usize, u32)>,
    /// Commands about one allocation since anything changed for it, and when the first of them was given.
    repeats: BTreeMap<(usize, Command, AllocId, u32), VecDeque<Duration>>,
    /// Commands of all nodes since [`Book::watch_quiet`]: when, about what, and in words.
    pub moves: Option<Vec<(Duration, AllocId, String)>>,
    /// What nodes were asked to hold: by holder's index, asker and ticket.
    holds: BTreeMap<(usize, NodeId, u64), Vec<(Key, Order)>>,
    /// Allocations whose end or restart somebody asked for, by node.
    asked_to_end: BTreeSet<(usize, AllocId)>,
    /// When a user last asked something of a node that changes what runs.
    pub user_asked: Vec<Option<Duration>>,
    /// Since when a node has been without any peer.
    pub alone_since: Vec<Option<Duration>>,
    /// When an agent last started.
    pub started: Vec<Duration>,
    /// What a node last said of another one, and when.
    pub views: BTreeMap<(usize, NodeId), (NodeState, Duration)>,
    /// What users were told is kept.
    pub commits: BTreeMap<JobName, Commit>,
    /// Every spec that was ever submitted, by job: its hash without a generation.
    pub submitted: BTreeMap<JobName, Vec<JobSpec>>,
    /// Jobs whose slots may never run twice, by what users submitted.
    at_most_one: BTreeSet<JobName>,
    /// The unit of an at-most-one slot that started last: its epoch and node.
    pub tokens: BTreeMap<SlotId, (u64, usize)>,
    /// Gangs that were seen with all slots reserved at one time.
    pub whole_gangs: BTreeSet<JobName>,
    /// When a unit of a slot last failed on a node.
    pub troubles: BTreeMap<(SlotId, usize), Duration>,
    /// When a unit of an allocation became active, by node.
    pub active: BTreeMap<(usize, AllocId), Duration>,
    /// When a disk was lost the last time.
    pub wiped: Option<Duration>,
    /// Of copies of slots, and of removed nodes.
    pub copies: crate::invariants::copies::Notes,
    /// Identities that machines lost with their disks.
    pub former: BTreeMap<usize, Vec<NodeId>>,
    /// What cores have heard since a stranger began to copy.
    heard: Option<BTreeSet<Hearing>>,
    /// What roll-outs have stopped.
    pub emptied: Emptied,
    /// Rows that were written in a name by somebody else: their stamps, and of what key.
    pub forged: BTreeMap<Stamp, Key>,
    /// Machines whose wall clocks were ever wrong.
    pub wrong_clocks: BTreeSet<usize>,
}

impl Book {
    /// A book about this many nodes.
    pub fn new(nodes: usize) -> Self {
        Self {
            user_asked: vec![None; nodes],
            alone_since: vec![None; nodes],
            started: vec![Duration::ZERO; nodes],
            ..Self::default()
        }
    }

    /// A stranger begins to copy.
    pub fn watch_strangers(&mut self) {
        self.heard = Some(BTreeSet::new());
    }

    /// A core hears a datagram.
    pub fn hears(&mut self, node: usize, life: u64, from: NodeId, sealed: &Sealed) {
        if let Some(heard) = &mut self.heard {
            heard.insert((node, life, from, sealed.start, sealed.counter));
        }
    }

    /// Whether it has heard this one before.
    pub fn has_heard(&self, node: usize, life: u64, from: NodeId, sealed: &Sealed) -> bool {
        let this = (node, life, from, sealed.start, sealed.counter);
        self.heard.as_ref().is_some_and(|heard| heard.contains(&this))
    }

    /// Writes a broken invariant down; only the first one counts.
    pub fn violate(&mut self, at: Duration, invariant: &'static str, detail: String) {
        self.violation.get_or_insert(Violation { invariant, at, detail });
    }

    /// From now on no node should want anything any more.
    pub fn watch_quiet(&mut self, watch: bool) {
        self.moves = watch.then(Vec::new);
        self.emptied.displaced.clear();
    }

    /// A node gave a command about an allocation. Returns how often within the last minute, without
    /// anything having changed for that allocation.
    pub fn commanded(
        &mut self,
        time: Duration,
        node: usize,
        command: Command,
        alloc: &AllocId,
        run: u32,
    ) -> usize {
        if let Some(moves) = &mut self.moves {
            moves.push((time, alloc.clone(), format!("{command:?} by node {node}")));
        }
        let times = self.repeats.entry((node, command, alloc.clone(), run)).or_default();
        while times.front().is_some_and(|first| time - *first > Duration::from_secs(60)) {
            times.pop_front();
        }
        times.push_back(time);
        times.len()
    }

    /// Something changed for an allocation on a node.
    pub fn progress(&mut self, node: usize, alloc: &AllocId) {
        self.repeats.retain(|(by, _, about, _), _| *by != node || about != alloc);
    }

    /// A message arrives.
    pub fn delivered(&mut self, to: usize, from: NodeId, message: &Message) {
        match message {
            Message::Hold { ticket, entries } => {
                let held = entries.iter().map(|entry| (entry.key.clone(), entry.order()));
                self.holds.insert((to, from, *ticket), held.collect());
            }
            Message::Retire { alloc, .. } | Message::Restart { alloc } => {
                self.asked_to_end.insert((to, alloc.clone()));
            }
            Message::PassedOn { from, bytes } => {
                if let Ok(message) = Message::decode(bytes) {
                    self.delivered(to, *from, &message);
                }
            }
            _ => {}
        }
    }

    /// Whether slots of a job may never run twice.
    pub fn is_at_most_one(&self, job: &JobName) -> bool {
        self.at_most_one.contains(job)
    }

    /// Whether there is any such job.
    pub fn has_at_most_one(&self) -> bool {
        !self.at_most_one.is_empty()
    }

    /// What a node was asked to hold under a ticket.
    pub fn hold(&self, node: usize, asker: NodeId, ticket: u64) -> &[(Key, Order)] {
        self.holds.get(&(node, asker, ticket)).map_or(&[], Vec::as_slice)
    }

    /// Whether a peer asked a node to end or restart an allocation.
    pub fn was_asked_to_end(&self, node: usize, alloc: &AllocId) -> bool {
        self.asked_to_end.contains(&(node, alloc.clone()))
    }

    /// A user asks something.
    pub fn asked(&mut self, time: Duration, node: usize, request: &Request) {
        self.user_asked[node] = Some(time);
        self.copies.asked(time, request);
        if let Request::Stop { job } | Request::Scale { job, .. } = request {
            self.emptied.forget(job);
        }
        if let Request::Submit { spec, .. } = request {
            match spec.guarantee {
                Guarantee::AtMostOne => self.at_most_one.insert(spec.name.clone()),
                // Units of a version that promised more may run on beside it.
                Guarantee::AtLeast => self.at_most_one.remove(&spec.name),
            };
            self.submitted.entry(spec.name.clone()).or_default().push((**spec).clone());
        }
    }

    /// A user is told something. A submit that counts holders has to have them, and whoever says so has the job: in its table, where
    /// its own disk refused it and those of others did not.
    pub fn answered(
        &mut self,
        time: Duration,
        node: usize,
        nodes: &[SimNode],
        request: &Request,
        answer: &Answer,
    ) {
        let Answer::Submitted(submitted) = answer else { return };
        let key = Key::Job(submitted.job.clone());
        let invariant = "invariant_an_answer_counts_only_real_holders";
        let written = nodes[node].disk.entry_under_way(&key);
        let known = || {
            let mut entries = nodes[node].core().into_iter().flat_map(|core| core.entries());
            entries.find(|entry| entry.key == key).map(|entry| (**entry).clone())
        };
        let Some(entry) = written.or_else(known) else {
            let (name, told) = (&nodes[node].name, submitted.held_by);
            let detail = format!(
                "{name} has no {}, and says that {told} hold it ({request:?})",
                submitted.job
            );
            return self.violate(time, invariant, detail);
        };
        let (order, stopped) = (entry.order(), matches!(entry.value, Value::Tombstone { .. }));
        // A mark that the version failed may come at any time; what was promised is the version.
        let order = Order { mark: 0, ..order };
        let holders: BTreeSet<NodeId> = nodes
            .iter()
            .filter(|node| node.disk.entry(&key).is_some_and(|entry| entry.order() >= order))
            .map(|node| node.identity)
            .collect();
        let wiped = self.wiped.is_some_and(|at| time - at < Duration::from_secs(2));
        if (submitted.held_by as usize) > holders.len() && !wiped {
            let detail = format!(
                "{} says that {} nodes hold {} at version {}, but {} do ({request:?})",
                nodes[node].name,
                submitted.held_by,
                submitted.job,
                submitted.version,
                holders.len(),
            );
            self.violate(time, invariant, detail);
        }
        let commit = Commit { order, holders, stopped, at: time };
        match self.commits.get_mut(&submitted.job) {
            Some(before) if before.order >= order => {}
            _ => {
                self.commits.insert(submitted.job.clone(), commit);
            }
        }
    }

    /// An agent starts.
    pub fn started(&mut self, time: Duration, node: usize) {
        self.started[node] = time;
        self.repeats.retain(|(by, ..), _| *by != node);
        self.views.retain(|(by, _), _| *by != node);
        self.holds.retain(|(by, ..), _| *by != node);
    }

    /// A unit is about to be started. Where its allocation was started before, and the highest run of it.
    pub fn first_start(&mut self, node: usize, launch: &Launch) -> Option<(usize, u32)> {
        let earlier = self.begun.get(&launch.alloc).copied();
        let begun = self.begun.entry(launch.alloc.clone()).or_insert((node, launch.run));
        begun.1 = begun.1.max(launch.run);
        earlier
    }

    /// The disk of a node refused a write. What has begun there may be on no disk, and count again once its agent has restarted.
    pub fn refused(&mut self, node: usize) {
        for (at, run) in self.begun.values_mut() {
            if *at == node {
                *run = 0;
            }
        }
    }

    /// A node says how another one is doing.
    pub fn saw(&mut self, time: Duration, node: usize, subject: NodeId, state: NodeState) {
        self.views.insert((node, subject), (state, time));
    }

    /// The unit manager says something of a unit.
    pub fn unit(&mut self, time: Duration, node: usize, alloc: &AllocId, event: &UnitEvent) {
        match event {
            UnitEvent::Prepared => {}
            UnitEvent::Running { .. } => {
                self.active.entry((node, alloc.clone())).or_insert(time);
                self.emptied.filled(node, alloc);
            }
            UnitEvent::Exited { success, .. } => {
                self.active.remove(&(node, alloc.clone()));
                if !success && self.troubles.len() < TROUBLES_MAX {
                    self.troubles.insert((alloc.slot.clone(), node), time);
                }
            }
            UnitEvent::Refused { .. } | UnitEvent::PortTaken { .. } => {
                if self.troubles.len() < TROUBLES_MAX {
                    self.troubles.insert((alloc.slot.clone(), node), time);
                }
            }
        }
    }

    /// Whether a slot failed on a node within `within` before `time`.
    pub fn had_trouble(
        &self,
        slot: &SlotId,
        node: usize,
        time: Duration,
        within: Duration,
    ) -> bool {
        self.troubles.get(&(slot.clone(), node)).is_some_and(|at| time - *at < within)
    }

    /// Whether a slot failed anywhere within the ten minutes before `time`.
    pub fn failed_lately(&self, slot: &SlotId, time: Duration) -> bool {
        let first = (slot.clone(), 0);
        let mut troubles = self.troubles.range(first..).take_while(|((of, _), _)| of == slot);
        let of_late = |at| time.checked_sub(at).is_some_and(|ago| ago.as_secs() < 600);
        troubles.any(|(_, at)| of_late(*at))
    }
}
