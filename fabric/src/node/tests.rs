use super::*;
use crate::alloc::Phase;
use crate::cpuset::CpuSet;
use crate::id::JobName;
use crate::io::Request;
use crate::job;
use crate::level::LEVEL;
use crate::signature::HashSigner;
use crate::table::Merge;
use crate::topology::{Core, Enforced, NumaNode, Topology};
use std::time::Duration;

/// Up to a handful of nodes that hear each other at once, with disks and unit managers that do as told.
pub(super) struct Fleetlet {
    pub nodes: BTreeMap<NodeId, Node>,
    pub now: Now,
    /// Hear and say nothing, and do nothing either.
    pub cut: std::collections::BTreeSet<NodeId>,
    /// Hear and say nothing.
    pub cut_off: std::collections::BTreeSet<NodeId>,
    pub answers: Vec<Answer>,
    pub commands: Vec<(Instant, NodeId, String)>,
    /// How far a node's wall clock is off, in milliseconds.
    pub clocks_ms: BTreeMap<NodeId, i64>,
    /// What each of them has written down.
    pub disks: BTreeMap<NodeId, BTreeMap<Vec<u8>, Vec<u8>>>,
}

fn info(name: &str) -> NodeInfo {
    let core = |cpu| Core { cpus: CpuSet::from_iter([cpu]), ..Core::default() };
    NodeInfo {
        name: name.into(),
        topology: Topology {
            arch: "x86_64".into(),
            cores: (0..4).map(core).collect(),
            numa: vec![NumaNode { id: 0, memory: 1 << 30 }],
            memory: 1 << 30,
            ports: (20000, 20100),
            pools: vec![crate::admission::tests::pool(10 << 30)],
            enforced: Enforced { pinning: true, numa: true, ..Enforced::default() },
            ..Topology::default()
        },
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 7400))],
        ..NodeInfo::default()
    }
}

/// The fabric of all tests here.
pub(super) const FABRIC: FabricKey = NodeId([9; 32]);

/// What node `id` signs with.
pub(super) fn signer(id: NodeId) -> HashSigner {
    HashSigner::new(7, id)
}

fn config(id: NodeId, name: &str) -> Config {
    Config {
        id,
        info: info(name),
        fabric: FABRIC,
        fabric_name: "test".into(),
        signer: Arc::new(signer(id)),
        generation: 1,
        seed: u64::from(id.0[0]),
        canary: None,
        level: LEVEL,
        bounds: crate::table::Bounds::default(),
    }
}

impl Fleetlet {
    pub fn new(count: u8) -> Self {
        Self::with_witness(count, 0)
    }

    /// The node with this number is a witness.
    pub fn with_witness(count: u8, witness: u8) -> Self {
        Self::of(count, witness, LEVEL)
    }

    /// All agents read up to this level.
    pub fn at_level(count: u8, level: u8) -> Self {
        Self::of(count, 0, level)
    }

    fn of(count: u8, witness: u8, level: u8) -> Self {
        let now = Now { at: Instant::default(), wall: WallTime(1_700_000_000_000) };
        let mut fleet = Fleetlet {
            nodes: BTreeMap::new(),
            now,
            cut: Default::default(),
            cut_off: Default::default(),
            answers: Vec::new(),
            commands: Vec::new(),
            clocks_ms: BTreeMap::new(),
            disks: BTreeMap::new(),
        };
        let first = NodeId([1; 32]);
        let origin = Origin::Founded { gossip_key: [7; 32] };
        let config = Config { level, ..config(first, "n1") };
        fleet.nodes.insert(first, Node::new(now, config, origin));
        fleet.ask(
            first,
            Request::AddToken {
                id: crate::table::TokenId("t".into()),
                secret_hash: [3; 32],
                lifetime: Duration::from_secs(3600),
                labels: BTreeMap::new(),
            },
        );
        for index in 2..=count {
            // Whoever has just joined can let in the next one.
            fleet.join_as(index, index - 1, index == witness, level);
        }
        fleet.run(Duration::from_secs(8));
        fleet
    }

    /// The node `index` is let in by the node `by`.
    pub fn join(&mut self, index: u8, by: u8) {
        self.join_as(index, by, false, LEVEL);
    }

    fn join_as(&mut self, index: u8, by: u8, witness: bool, level: u8) {
        let id = NodeId([index; 32]);
        self.ask(
            NodeId([by; 32]),
            Request::Enrol {
                node: id,
                name: format!("n{index}"),
                level,
                token: crate::table::TokenId("t".into()),
                secret_hash: [3; 32],
            },
        );
        let Some(Answer::Enrolled { entries, .. }) = self.answers.pop() else {
            panic!("not enrolled: {:?}", self.answers)
        };
        let mut config = config(id, &format!("n{index}"));
        (config.info.witness, config.level) = (witness, level);
        self.nodes.insert(id, Node::new(self.now, config, Origin::Joined { entries }));
    }

    /// The agent of `id` starts with this disk.
    pub fn restore(&mut self, id: NodeId, generation: u64, disk: BTreeMap<Vec<u8>, Vec<u8>>) {
        self.restore_at(id, generation, disk, LEVEL);
    }

    /// The agent of `id` starts with its own disk, and reads up to this level.
    pub fn start_at_level(&mut self, id: NodeId, level: u8) {
        let disk = self.disks.get(&id).cloned().unwrap_or_default();
        let generation = 1 + self.now.at.since_origin().as_millis() as u64;
        self.restore_at(id, generation, disk, level);
    }

    /// The agent of `id`, which reads up to this level, starts with this disk.
    pub fn restore_at(
        &mut self,
        id: NodeId,
        generation: u64,
        disk: BTreeMap<Vec<u8>, Vec<u8>>,
        level: u8,
    ) {
        let mut config = config(id, &format!("n{}", id.0[0]));
        (config.generation, config.level) = (generation, level);
        let rows = disk.clone().into_iter().collect();
        self.nodes
            .insert(id, Node::new(self.now, config, Origin::Restored { rows, handover: None }));
        self.disks.insert(id, disk);
    }

    pub fn ask(&mut self, node: NodeId, request: Request) {
        self.feed(node, Input::Request { id: 1, request });
    }

    pub fn feed(&mut self, node: NodeId, input: Input) {
        let mut queue = VecDeque::from([(node, input)]);
        while let Some((to, input)) = queue.pop_front() {
            let Some(node) = self.nodes.get_mut(&to) else { continue };
            let deaf = |node: &NodeId| self.cut.contains(node) || self.cut_off.contains(node);
            let off = self.clocks_ms.get(&to).copied().unwrap_or(0);
            let wall = WallTime(self.now.wall.0.saturating_add_signed(off));
            node.handle(Now { wall, ..self.now }, input);
            while let Some(output) = node.poll() {
                match output {
                    Output::Transmit { to: peer, datagram, .. } => {
                        let payload = datagram.encode();
                        assert!(payload.len() <= limits::DATAGRAM_BYTES_MAX);
                        if !deaf(&peer) && !deaf(&to) {
                            queue.push_back((peer, Input::Datagram { from: to, payload }));
                        }
                    }
                    Output::Send { to: peer, message, .. } => {
                        assert_ne!(peer, to, "{message:?}");
                        if !deaf(&peer) && !deaf(&to) {
                            queue.push_back((peer, Input::Message { from: to, message }));
                        }
                    }
                    Output::Persist { sequence, changes } => {
                        let disk = self.disks.entry(to).or_default();
                        for (key, value) in changes {
                            match value {
                                Some(value) => drop(disk.insert(key, value)),
                                None => drop(disk.remove(&key)),
                            }
                        }
                        queue.push_back((to, Input::Persisted { through: sequence }));
                    }
                    Output::Prepare(launch) => {
                        let (alloc, run) = (launch.alloc, launch.run);
                        let event = UnitEvent::Prepared;
                        queue.push_back((to, Input::Unit { alloc, run, event }));
                    }
                    Output::Start(launch) => {
                        let words = format!("start {} run {}", launch.alloc, launch.run);
                        self.commands.push((self.now.at, to, words));
                        let event = UnitEvent::Running { pid: 1, cpus: None, mems: None };
                        queue.push_back((
                            to,
                            Input::Unit { alloc: launch.alloc, run: launch.run, event },
                        ));
                    }
                    Output::Stop { alloc, run } => {
                        self.commands.push((self.now.at, to, format!("stop {alloc} run {run}")));
                        let event = UnitEvent::Exited {
                            status: "exit status 0".into(),
                            success: true,
                            killed: false,
                        };
                        queue.push_back((to, Input::Unit { alloc, run, event }));
                    }
                    Output::Answer { answer, .. } => self.answers.push(answer),
                    Output::Confine { .. }
                    | Output::Extend { .. }
                    | Output::Event(_)
                    | Output::TrustChanged => {}
                }
            }
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now.at + time;
        loop {
            let next = self
                .nodes
                .iter()
                .filter(|(id, _)| !self.cut.contains(id))
                .filter_map(|(id, node)| Some((node.next_deadline()?, *id)))
                .min();
            let Some((at, id)) = next.filter(|(at, _)| *at <= end) else { break };
            let step = at.since(self.now.at).max(Duration::from_micros(10));
            self.now.at = self.now.at + step;
            self.now.wall.0 = 1_700_000_000_000 + self.now.at.since_origin().as_millis() as u64;
            self.feed(id, Input::Tick);
        }
        self.now.at = end;
    }

    pub fn healthy(&self, node: NodeId, name: &str) -> Vec<(u32, NodeId)> {
        let name = JobName::new(name).unwrap();
        let mut healthy: Vec<_> = self.nodes[&node]
            .allocs(Some(&name), false)
            .into_iter()
            .filter(|alloc| alloc.row.healthy && alloc.row.phase == Phase::Running)
            .filter(|alloc| alloc.node_state == NodeState::Alive)
            .map(|alloc| (alloc.id.slot.index, alloc.node))
            .collect();
        healthy.sort();
        healthy
    }

    pub fn submit(&mut self, node: NodeId, text: &str) -> Answer {
        let spec = Box::new(job::parse(text).unwrap());
        self.ask(node, Request::Submit { spec, by: "me".into(), expected_version: None });
        self.run(Duration::from_secs(1));
        self.answers.pop().unwrap()
    }
}

pub(super) const WEB: &str = r#"
    name = "web"
    type = "service"
    count = 3
    [task]
    command = ["/bin/sleep", "1000"]
    [resources]
    cores = 1
    memory = "16MiB"
"#;

#[test]
fn three_nodes_join_place_and_replace() {
    let mut fleet = Fleetlet::new(3);
    let [a, b, c] = [1, 2, 3].map(|n| NodeId([n; 32]));
    for node in [a, b, c] {
        assert_eq!(fleet.nodes[&node].peers().count(), 2, "{node:?}");
        assert_eq!(fleet.nodes[&node].fingerprint(), fleet.nodes[&a].fingerprint());
    }
    let answer = fleet.submit(b, WEB);
    let Answer::Submitted(submitted) = answer else { panic!("{answer:?}") };
    assert_eq!((submitted.held_by, submitted.members), (3, 3));
    fleet.run(Duration::from_secs(3));
    let placed = fleet.healthy(a, "web");
    assert_eq!(placed.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(
        placed.iter().map(|(_, node)| *node).collect::<std::collections::BTreeSet<_>>().len(),
        3
    );

    fleet.cut.insert(c);
    fleet.run(Duration::from_secs(6));
    let placed = fleet.healthy(a, "web");
    assert_eq!(placed.len(), 3, "{placed:?}");
    assert!(placed.iter().all(|(_, node)| *node != c));

    fleet.cut.clear();
    fleet.run(Duration::from_secs(40));
    let placed = fleet.healthy(c, "web");
    assert_eq!(placed.len(), 3, "{placed:?} {:?}", fleet.commands);
    assert_eq!(fleet.nodes[&c].fingerprint(), fleet.nodes[&a].fingerprint());

    fleet.ask(a, Request::Stop { job: JobName::new("web").unwrap() });
    fleet.run(Duration::from_secs(5));
    for node in [a, b, c] {
        let left = fleet.nodes[&node].allocs(None, false);
        assert!(left.is_empty(), "{node:?}: {left:#?}");
        assert_eq!(fleet.nodes[&node].counters().malformed, 0);
    }
}

#[test]
fn nothing_is_confirmed_before_what_the_disk_refused_is_written_again() {
    let mut fleet = Fleetlet::new(2);
    let [a, b] = [1, 2].map(|n| NodeId([n; 32]));
    fleet.submit(a, WEB);
    let key = Key::Job(JobName::new("web").unwrap());
    let entries = vec![fleet.nodes[&a].replica.entry(&key).unwrap().clone()];
    // What node b says when it is asked to hold the job and its disk does as told: the tickets it confirms.
    let hold = |fleet: &mut Fleetlet, ticket, works: bool| {
        let now = fleet.now;
        let node = fleet.nodes.get_mut(&b).unwrap();
        let message = Message::Hold { ticket, entries: entries.clone() };
        node.handle(now, Input::Message { from: a, message });
        let mut confirmed = Vec::new();
        while let Some(output) = node.poll() {
            match output {
                Output::Persist { sequence, .. } if works => {
                    node.handle(now, Input::Persisted { through: sequence });
                }
                Output::Persist { sequence, .. } => {
                    let reason = "no space left on device".into();
                    node.handle(now, Input::PersistFailed { sequence, reason });
                    break;
                }
                Output::Send { message: Message::Held { ticket }, .. } => confirmed.push(ticket),
                _ => {}
            }
        }
        confirmed
    };
    assert_eq!(hold(&mut fleet, 1, true), [1]);
    assert!(hold(&mut fleet, 2, false).is_empty());
    assert!(hold(&mut fleet, 3, true).is_empty(), "what was refused is not on disk yet");
    fleet.run(limits::PERSIST_RETRY + Duration::from_secs(3));
    assert_eq!(hold(&mut fleet, 4, true), [4]);
}

#[test]
fn who_is_superseded_takes_nothing_over_until_it_is_renewed() {
    let [a, b, c] = [1, 2, 3].map(|n| NodeId([n; 32]));
    let starts = |superseded: bool| {
        let mut fleet = Fleetlet::new(3);
        fleet.submit(b, WEB);
        fleet.run(Duration::from_secs(3));
        fleet.commands.clear();
        // Nobody listens to it any more, nor speaks to it.
        fleet.cut_off.insert(c);
        if superseded {
            fleet.feed(c, Input::Superseded);
        }
        fleet.run(Duration::from_secs(30));
        let ran = |(_, node, words): &&(Instant, NodeId, String)| {
            *node == c && words.starts_with("start")
        };
        (fleet.commands.iter().filter(ran).count(), fleet)
    };
    assert_eq!(starts(false).0, 2, "the last of three runs it all");
    let (started, mut fleet) = starts(true);
    assert_eq!(started, 0);
    assert!(fleet.commands.iter().all(|(_, node, _)| *node != c), "{:?}", fleet.commands);

    // It speaks again: that it took the others for dead counts for nothing, also while a word of theirs has come and
    // membership knows nothing of them yet.
    fleet.feed(c, Input::Renewed { generation: 9 });
    fleet.run(Duration::from_secs(8));
    for from in [a, b] {
        let payload = Datagram::Push(Vec::new()).encode();
        fleet.feed(c, Input::Datagram { from, payload });
    }
    fleet.run(Duration::from_secs(2));
    assert!(fleet.commands.iter().all(|(_, node, _)| *node != c), "{:?}", fleet.commands);
    fleet.cut_off.clear();
    fleet.run(Duration::from_secs(60));
    let starts_on_c =
        fleet.commands.iter().filter(|(_, node, it)| *node == c && it.starts_with("start"));
    assert_eq!(starts_on_c.count(), 0, "{:?}", fleet.commands);
    for node in [a, b, c] {
        assert_eq!(fleet.nodes[&node].peers().count(), 2, "{node:?}");
        assert_eq!(fleet.healthy(node, "web").len(), 3, "{:?}", fleet.commands);
    }
    assert_eq!(fleet.nodes[&c].fingerprint(), fleet.nodes[&a].fingerprint());
}

#[test]
fn goodbyes_of_one_that_is_down_already_hold_nothing_up() {
    let mut fleet = Fleetlet::new(3);
    let [a, b, c] = [1, 2, 3].map(|n| NodeId([n; 32]));
    fleet.submit(b, WEB);
    fleet.run(Duration::from_secs(3));
    assert!(fleet.healthy(a, "web").iter().any(|(_, node)| *node == c));
    // Its agent dies again and again before it has said anything else.
    fleet.cut.insert(c);
    for _ in 0..25 {
        let payload = Datagram::Leaving { ends: false }.encode();
        for node in [a, b] {
            fleet.feed(node, Input::Datagram { from: c, payload: payload.clone() });
        }
        fleet.run(Duration::from_secs(2));
    }
    let placed = fleet.healthy(a, "web");
    assert_eq!(placed.len(), 3, "{placed:?}");
    assert!(placed.iter().all(|(_, node)| *node != c), "{placed:?}");
}

#[test]
fn a_goodbye_that_overtakes_what_was_said_before_it_holds() {
    let mut fleet = Fleetlet::new(3);
    let [a, b, c] = [1, 2, 3].map(|n| NodeId([n; 32]));
    fleet.submit(b, WEB);
    fleet.run(Duration::from_secs(3));
    let before = fleet.healthy(a, "web");
    assert!(before.iter().any(|(_, node)| *node == c), "{before:?}");
    let compares = fleet.nodes[&c].summary().encode();
    for node in [a, b] {
        for payload in [Datagram::Leaving { ends: false }.encode(), compares.clone()] {
            fleet.feed(node, Input::Datagram { from: c, payload });
        }
    }
    fleet.cut.insert(c);
    fleet.commands.clear();
    fleet.run(limits::AWAY_GRACE - Duration::from_secs(5));
    assert!(fleet.commands.is_empty(), "{:?}", fleet.commands);
    fleet.run(Duration::from_secs(15));
    assert_eq!(fleet.healthy(a, "web").len(), 3, "it has not come back");
}

#[test]
fn who_was_removed_has_nothing_to_do() {
    let mut fleet = Fleetlet::new(3);
    let [a, b, c] = [1, 2, 3].map(|n| NodeId([n; 32]));
    let job = JobName::new("web").unwrap();
    fleet.submit(b, WEB);
    fleet.run(Duration::from_secs(3));
    fleet.ask(a, Request::Remove { node: c, new_key: [8; 32], force: false });
    fleet.run(Duration::from_secs(10));
    assert!(fleet.nodes[&c].is_removed());
    assert!(fleet.commands.iter().any(|(_, node, words)| *node == c && words.starts_with("stop")));
    // It says so to whoever wants something of it.
    let Answer::Refused(problem) = fleet.submit(c, &WEB.replace("web", "more")) else {
        panic!("{:?}", fleet.answers)
    };
    assert!(problem.title.contains("was removed"), "{problem:?}");
    // And has nothing else to say of what others run.
    let (view, status) = (fleet.nodes[&c].job(&job).unwrap(), fleet.nodes[&c].status());
    assert!(view.reason.is_some_and(|reason| reason.contains("ask another node")), "{status:?}");
    let explained = fleet.nodes[&c].explain(fleet.now, &job).unwrap();
    assert!(explained.slots.iter().all(|slot| slot.doing.contains("ask another node")));
    assert!(status.removed && !fleet.nodes[&a].status().removed);
    // What comes after its allocations counts on from them.
    let epochs = |node| {
        let allocs = fleet.nodes[node].allocs(None, true).into_iter();
        allocs.map(|alloc| alloc.id.epoch).collect::<Vec<_>>()
    };
    assert!(epochs(&a).contains(&2), "{:?}", epochs(&a));
    // It looks after itself a few times a second at most.
    let (mut ticks, end) = (0, fleet.now.at + Duration::from_secs(10));
    while let Some(at) = fleet.nodes[&c].next_deadline().filter(|at| *at < end) {
        fleet.now.at = at.max(fleet.now.at + Duration::from_micros(10));
        fleet.feed(c, Input::Tick);
        ticks += 1;
    }
    assert!(ticks < 100, "{ticks} ticks in ten seconds");
}

/// What a removed node knows opens nothing that comes later, and lets nobody in.
#[test]
fn a_removal_changes_the_gossip_key_and_revokes_every_token() {
    let mut fleet = Fleetlet::new(3);
    let [a, b, c] = [1, 2, 3].map(|n| NodeId([n; 32]));
    let keys = |fleet: &Fleetlet, node| {
        fleet.nodes[&node].keyring().keys.into_values().collect::<Vec<_>>()
    };
    fleet.ask(a, Request::Remove { node: c, new_key: [8; 32], force: true });
    fleet.run(Duration::from_secs(20));
    for node in [a, b] {
        assert_eq!(keys(&fleet, node), [[7; 32], [8; 32]], "{node:?}: both open for a while");
    }
    assert_eq!(keys(&fleet, c), [[7; 32]], "nobody gave it the new one");
    for by in [a, b] {
        fleet.ask(
            by,
            Request::Enrol {
                node: c,
                name: "n3".into(),
                level: LEVEL,
                token: crate::table::TokenId("t".into()),
                secret_hash: [3; 32],
            },
        );
        let answer = fleet.answers.pop();
        assert!(matches!(answer, Some(Answer::Refused(_))), "{answer:?}");
    }
    fleet.run(limits::KEY_OVERLAP);
    for node in [a, b] {
        assert_eq!(keys(&fleet, node), [[8; 32]], "{node:?}: the old key is gone");
    }
}

#[test]
fn who_submits_to_a_full_table_is_told() {
    let mut fleet = Fleetlet::new(1);
    let one = NodeId([1; 32]);
    let Answer::Submitted(_) = fleet.submit(one, WEB) else { panic!("{:?}", fleet.answers) };
    let (now, node) = (fleet.now, fleet.nodes.get_mut(&one).unwrap());
    for number in 1..limits::JOBS_MAX {
        let key = Key::Job(JobName::new(&format!("used-{number}")).unwrap());
        assert_eq!(node.write(now, key, Value::Tombstone { rank: 1 }), Merge::Taken);
    }
    let before = node.fingerprint();
    let answer = fleet.submit(one, &WEB.replace("web", "one-more"));
    let Answer::Refused(problem) = answer else { panic!("{answer:?}") };
    assert!(problem.detail.contains("65536 names of jobs are in use"), "{problem:?}");
    let full = fleet.nodes[&one].nearly_full();
    assert_eq!(full.len(), 1, "{full:?}");
    assert!(full[0].starts_with("65536 names of jobs"), "{full:?}");
    assert_eq!(fleet.nodes[&one].fingerprint(), before, "nothing has changed");
    // What is there can be changed, and a name that was used before can be used again.
    for name in ["web", "used-7"] {
        let answer =
            fleet.submit(one, &WEB.replace("\"web\"", &format!("{name:?}")).replace("= 3", "= 1"));
        assert!(matches!(answer, Answer::Submitted(_)), "{answer:?}");
    }
}

#[test]
fn what_nobody_polls_is_dropped_and_never_what_is_said_once() {
    let mut fleet = Fleetlet::new(1);
    let one = NodeId([1; 32]);
    let (now, node) = (fleet.now, fleet.nodes.get_mut(&one).unwrap());
    let persist = Output::Persist { sequence: 7, changes: Vec::new() };
    let answer = Output::Answer { id: 9, answer: Answer::Done };
    node.outputs.extend([persist, answer, Output::TrustChanged]);
    for _ in 0..limits::OUTPUTS_MAX {
        let message = crate::message::Message::Reach { answer: true };
        node.outputs.push_back(Output::Send { to: NodeId([2; 32]), address: None, message });
    }
    let dropped = node.counters().outputs_dropped;
    node.handle(now, Input::Tick);
    assert!(node.outputs.len() <= limits::OUTPUTS_MAX, "{}", node.outputs.len());
    assert!(node.counters().outputs_dropped >= dropped + 3);
    let first: Vec<&Output> = node.outputs.iter().take(3).collect();
    assert!(
        matches!(
            first[..],
            [
                Output::Persist { sequence: 7, .. },
                Output::Answer { id: 9, .. },
                Output::TrustChanged
            ]
        ),
        "{first:?}"
    );
}

#[test]
fn a_node_at_rest_wakes_a_few_times_a_second() {
    let mut fleet = Fleetlet::new(3);
    fleet.submit(NodeId([1; 32]), WEB);
    fleet.run(Duration::from_secs(60));
    let ticks =
        |fleet: &Fleetlet| -> u64 { fleet.nodes.values().map(|node| node.counters().ticks).sum() };
    let before = ticks(&fleet);
    fleet.run(Duration::from_secs(60));
    // A probe each 400 ms with its two deadlines, and one look a second.
    let per_second = (ticks(&fleet) - before) as f64 / 60.0 / 3.0;
    assert!(per_second < 6.5, "{per_second} ticks a second");
}

/// A job's rows leave a minute after they ended, on all nodes, and then its slot begins anew with the first epoch.
#[test]
fn rows_that_ended_leave_every_node_and_an_identity_does_not_come_back() {
    let mut fleet = Fleetlet::new(3);
    let [a, b, c] = [1, 2, 3].map(|n| NodeId([n; 32]));
    fleet.run(Duration::from_secs(30));
    let web = JobName::new("web").unwrap();
    let one = WEB.replace("count = 3", "count = 1") + "[keep]\nended = \"1m\"\n";
    assert!(matches!(fleet.submit(a, &one), Answer::Submitted(_)));
    fleet.run(Duration::from_secs(10));
    let rows = |fleet: &Fleetlet, node: NodeId| fleet.nodes[&node].allocs(Some(&web), true);
    let first = rows(&fleet, a).remove(0).id;
    assert_eq!(first.epoch, 1);

    let scale = |count| Request::Scale { job: web.clone(), count, by: "me".into() };
    fleet.ask(b, scale(0));
    fleet.run(Duration::from_secs(40));
    for node in [a, b, c] {
        let rows = rows(&fleet, node);
        assert_eq!(rows.len(), 1, "{node:?}: {rows:#?}");
        assert_eq!(rows[0].row.phase, Phase::Ended);
    }
    fleet.run(Duration::from_secs(40));
    for node in [a, b, c] {
        assert_eq!(rows(&fleet, node), [], "{node:?}");
        assert_eq!(fleet.nodes[&node].fingerprint(), fleet.nodes[&a].fingerprint());
    }

    fleet.ask(c, scale(1));
    fleet.run(Duration::from_secs(10));
    let again = rows(&fleet, a).remove(0).id;
    assert_eq!(again.epoch, first.epoch, "nobody remembers the one before");
    assert_ne!(again, first);
    assert_ne!(again.unit(), first.unit());
}
