//! The world of many nodes.

use fabric::api::{EventKind, NodeState};
use fabric::claim::Claim;
use fabric::clock::{Instant, Now, WallTime};
use fabric::id::{AllocId, JobName, NodeId, SlotId};
use fabric::io::{Input, Output, Request, UnitEvent, UnitFound};
use fabric::job::{CpuRequest, JobSpec};
use fabric::level::LEVEL_MIN;
use fabric::limits;
use fabric::membership::{Formed, Identity};
use fabric::message::{Datagram, Message};
use fabric::node::{Config, Node, Origin};
use fabric::signature::HashSigner;
use fabric::stamp::Stamp;
use fabric::supervisor::Record;
use fabric::table::{Entry, JobEntry, Key, Keyring, RosterEntry, Table, Value};
use fabric::topology::NodeInfo;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use crate::machines::Shape;
use crate::network::{Network, Quality};
use crate::node::{address, fresh_identity};
use crate::workload;

/// Wall time when every simulated clock was at zero: the summer of 2025.
const EPOCH_MILLIS: u64 = 1_750_000_000_000;

/// What a crowd is made from.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Everything random comes from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Jobs that run before the first moment, and how many slots each of them has.
    pub running: (usize, u32),
    /// The network.
    pub quality: Quality,
    /// Rows of allocations reach their own node and the coordinator that proposed them, and nobody else:
    /// what a fabric is like that does not copy every row everywhere. False: every node gets every row.
    pub rows_stay: bool,
}

/// What was sent since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes, sealed, without the headers of UDP and IP.
    pub datagram_bytes: u64,
    /// Messages over streams.
    pub messages: u64,
    /// Their bytes, as far as their entries and rows go.
    pub message_bytes: u64,
}

/// Something that is going to happen.
enum Event {
    Wake { node: u32 },
    Datagram { to: u32, from: u32, datagram: Box<Datagram> },
    Message { to: u32, from: u32, message: Box<Message> },
    Input { node: u32, input: Box<Input> },
}

struct Due {
    at: Duration,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Member {
    id: NodeId,
    /// `None`: it lost its power.
    core: Option<Node>,
    wake: Option<Duration>,
    running: BTreeSet<AllocId>,
}

/// Many nodes.
pub struct Crowd {
    /// World time; every node's clocks show it.
    pub time: Duration,
    /// What was sent since somebody set it to zero.
    pub traffic: Traffic,
    /// Events so far.
    pub events: u64,
    /// Units that run, by slot: how many.
    pub filled: BTreeMap<SlotId, u32>,
    /// How many nodes have heard of which version of a job, and when the last one did.
    pub heard: BTreeMap<(JobName, u64), (usize, Duration)>,
    /// How many nodes know that a node is dead, and when the last one learned it.
    pub mourned: BTreeMap<NodeId, (usize, Duration)>,
    scene: Scene,
    members: Vec<Member>,
    numbers: BTreeMap<NodeId, u32>,
    queue: BinaryHeap<Reverse<Due>>,
    network: Network,
    random: ChaCha8Rng,
    requests: u64,
}

/// A machine of the size that clouds rent out: 2 sockets of 8 cores with 2 threads, 64 GiB.
const MACHINE: Shape = Shape { packages: 2, cores: 8, threads: 2, memory_gib: 64 };

/// A service of `count` small slots: some 900 of them fit one machine.
pub fn small_service(name: &str, count: u32) -> JobSpec {
    let mut spec = workload::service(JobName::new(name).expect("a job's name"));
    spec.count = count;
    spec.resources.cpu = CpuRequest::Shared { millis: 30, hard: false };
    spec
}

impl Crowd {
    /// A fabric of nodes that know each other and whose tables agree.
    pub fn new(scene: Scene) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(scene.seed);
        let ids: Vec<NodeId> = (0..scene.nodes).map(|_| fresh_identity(&mut random)).collect();
        let identities: Vec<Identity> = ids
            .iter()
            .enumerate()
            .map(|(index, node)| Identity { node: *node, generation: 1, address: address(index) })
            .collect();
        let formed = Formed::new(&identities);
        let infos: Vec<NodeInfo> = (0..scene.nodes).map(info).collect();
        let (table, mut records) = table(&scene, &ids, &infos);
        let network = Network::new(scene.quality, ChaCha8Rng::from_rng(&mut random));
        let mut crowd = Self {
            time: Duration::ZERO,
            traffic: Traffic::default(),
            events: 0,
            filled: BTreeMap::new(),
            heard: BTreeMap::new(),
            mourned: BTreeMap::new(),
            members: Vec::with_capacity(scene.nodes),
            numbers: ids.iter().enumerate().map(|(at, id)| (*id, at as u32)).collect(),
            queue: BinaryHeap::new(),
            network,
            requests: 0,
            scene,
            random,
        };
        for (index, (id, info)) in ids.iter().zip(infos).enumerate() {
            // Agents were not all started at the same moment.
            let started = Duration::from_millis(crowd.random.random_range(0..1000));
            let records = records.remove(id).unwrap_or_default();
            let found: Vec<UnitFound> = records.iter().map(found).collect();
            let config = Config {
                id: *id,
                info,
                fabric: ids[0],
                fabric_name: "crowd".into(),
                signer: Arc::new(signer(*id)),
                generation: 1,
                seed: crowd.random.random(),
                canary: None,
                level: LEVEL_MIN,
                bounds: fabric::table::Bounds::default(),
            };
            let table = Box::new(table.clone());
            let origin = Origin::Formed { table, records, members: formed.clone() };
            let core = Some(Node::new(now(started), config, origin));
            let running = found.iter().map(|unit| unit.alloc.clone()).collect();
            for unit in &found {
                *crowd.filled.entry(unit.alloc.slot.clone()).or_default() += 1;
            }
            crowd.members.push(Member { id: *id, core, wake: None, running });
            let input = Box::new(Input::Units(found));
            crowd.push(started, Event::Input { node: index as u32, input });
        }
        crowd
    }

    /// Lets happen what happens within `duration`.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.time + duration;
        while self.queue.peek().is_some_and(|Reverse(due)| due.at <= end) {
            let Some(Reverse(due)) = self.queue.pop() else { break };
            self.time = due.at;
            self.events += 1;
            self.happen(due.at, due.event);
        }
        self.time = end;
    }

    /// Runs in steps until `done`, or until `patience` is over: false.
    pub fn run_until(
        &mut self,
        step: Duration,
        patience: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.time + patience;
        while !done(self) {
            if self.time >= end {
                return false;
            }
            self.run_for(step);
        }
        true
    }

    /// A user submits a job to a random node that is up.
    pub fn submit(&mut self, spec: JobSpec) {
        let up: Vec<u32> = self.up();
        let node = up[self.random.random_range(0..up.len())];
        self.requests += 1;
        let request =
            Request::Submit { spec: Box::new(spec), by: "crowd".into(), expected_version: None };
        let input = Box::new(Input::Request { id: self.requests, request });
        self.push(Duration::ZERO, Event::Input { node, input });
    }

    /// Some random nodes lose their power; their keys, and the slots that ran there.
    pub fn kill(&mut self, count: usize) -> (Vec<NodeId>, Vec<SlotId>) {
        let mut up = self.up();
        let (mut dead, mut lost) = (Vec::new(), Vec::new());
        for _ in 0..count.min(up.len()) {
            let victim = up.swap_remove(self.random.random_range(0..up.len()));
            let member = &mut self.members[victim as usize];
            member.core = None;
            dead.push(member.id);
            for alloc in std::mem::take(&mut member.running) {
                if let Some(running) = self.filled.get_mut(&alloc.slot) {
                    *running -= 1;
                }
                lost.push(alloc.slot);
            }
        }
        (dead, lost)
    }

    /// Nodes that are up.
    pub fn alive(&self) -> usize {
        self.members.iter().filter(|member| member.core.is_some()).count()
    }

    /// The cores of the nodes that are up.
    pub fn cores(&self) -> impl Iterator<Item = &Node> {
        self.members.iter().filter_map(|member| member.core.as_ref())
    }

    /// Whether all tables are equal.
    pub fn agrees(&self) -> bool {
        let mut prints = self.cores().map(Node::fingerprint);
        let first = prints.next();
        prints.all(|print| Some(print) == first)
    }

    fn up(&self) -> Vec<u32> {
        let members = self.members.iter().enumerate();
        members.filter(|(_, m)| m.core.is_some()).map(|(at, _)| at as u32).collect()
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.requests += 1;
        self.queue.push(Reverse(Due { at: self.time + after, number: self.requests, event }));
    }

    fn happen(&mut self, at: Duration, event: Event) {
        match event {
            Event::Wake { node } => {
                let member = &mut self.members[node as usize];
                if member.wake == Some(at) {
                    member.wake = None;
                    self.feed(node, Input::Tick);
                }
            }
            Event::Datagram { to, from, datagram } => {
                let from = self.members[from as usize].id;
                self.feed(to, Input::Heard { from, datagram: *datagram });
            }
            Event::Message { to, from, message } => {
                let from = self.members[from as usize].id;
                self.feed(to, Input::Message { from, message: *message });
            }
            Event::Input { node, input } => {
                if let Input::Unit { alloc, event, .. } = &*input {
                    self.note(node, alloc, event);
                }
                self.feed(node, *input);
            }
        }
    }

    /// Keeps account of what runs where.
    fn note(&mut self, node: u32, alloc: &AllocId, event: &UnitEvent) {
        let member = &mut self.members[node as usize];
        if member.core.is_none() {
            return;
        }
        if *event == UnitEvent::Prepared {
            return;
        }
        let runs = matches!(event, UnitEvent::Running { .. });
        let filled = self.filled.entry(alloc.slot.clone()).or_default();
        if runs && member.running.insert(alloc.clone()) {
            *filled += 1;
        } else if !runs && member.running.remove(alloc) {
            *filled -= 1;
        }
    }

    fn feed(&mut self, node: u32, input: Input) {
        let now = now(self.time);
        let Some(core) = &mut self.members[node as usize].core else { return };
        core.handle(now, input);
        while let Some(output) =
            self.members[node as usize].core.as_mut().and_then(|core| core.poll())
        {
            self.carry_out(node, output);
        }
        let member = &mut self.members[node as usize];
        let due = member.core.as_ref().and_then(Node::next_deadline);
        if let Some(due) = due.map(|due| due.since_origin().max(self.time))
            && member.wake.is_none_or(|wake| due < wake)
        {
            member.wake = Some(due);
            self.push(due - self.time, Event::Wake { node });
        }
    }

    fn carry_out(&mut self, node: u32, output: Output) {
        match output {
            Output::Transmit { to, datagram, .. } => self.transmit(node, to, datagram),
            Output::Send { to, message, .. } => self.send(node, to, message),
            Output::Persist { sequence, .. } => {
                let after = Duration::from_micros(self.random.random_range(500..8_000));
                let input = Box::new(Input::Persisted { through: sequence });
                self.push(after, Event::Input { node, input });
            }
            Output::Prepare(launch) => {
                let after = Duration::from_millis(self.random.random_range(1..20));
                let (alloc, run) = (launch.alloc, launch.run);
                let input = Input::Unit { alloc, run, event: UnitEvent::Prepared };
                self.push(after, Event::Input { node, input: Box::new(input) });
            }
            Output::Start(launch) => {
                let after = Duration::from_millis(self.random.random_range(20..500));
                let event = UnitEvent::Running { pid: 1, cpus: None, mems: None };
                let input = Input::Unit { alloc: launch.alloc, run: launch.run, event };
                self.push(after, Event::Input { node, input: Box::new(input) });
            }
            Output::Stop { alloc, run } => {
                let after = Duration::from_millis(self.random.random_range(5..800));
                let status = "exit status 0".to_owned();
                let event = UnitEvent::Exited { status, success: true, killed: false };
                let input = Box::new(Input::Unit { alloc, run, event });
                self.push(after, Event::Input { node, input });
            }
            Output::Event(event) => self.noticed(event.what),
            _ => {}
        }
    }

    fn noticed(&mut self, what: EventKind) {
        let time = self.time;
        let (count, last) = match what {
            EventKind::Job { job, version, .. } => self.heard.entry((job, version)).or_default(),
            EventKind::Node { subject, state: NodeState::Dead, .. } => {
                self.mourned.entry(subject).or_default()
            }
            _ => return,
        };
        *count += 1;
        *last = time;
    }

    fn transmit(&mut self, from: u32, to: NodeId, datagram: Datagram) {
        let Some(to) = self.numbers.get(&to).copied() else { return };
        let datagram = match (datagram, self.scene.rows_stay) {
            (Datagram::Push(mut entries), true) => {
                entries.retain(|entry| !matches!(entry.key, Key::Alloc(..)));
                if entries.is_empty() {
                    return;
                }
                Datagram::Push(entries)
            }
            // Tables differ on purpose.
            (Datagram::Fingerprint { .. }, true) => return,
            (datagram, _) => datagram,
        };
        let bytes = match &datagram {
            Datagram::Push(entries) => {
                3 + entries.iter().map(|entry| entry.encoded_bytes() - 1).sum::<usize>()
            }
            datagram => datagram.encode().len(),
        };
        self.traffic.datagrams += 1;
        self.traffic.datagram_bytes += (bytes + limits::SEAL_BYTES) as u64;
        for after in self.network.datagram(from as usize, to as usize) {
            let datagram = Box::new(datagram.clone());
            self.push(after, Event::Datagram { to, from, datagram });
        }
    }

    fn send(&mut self, from: u32, to: NodeId, message: Message) {
        let Some(to) = self.numbers.get(&to).copied() else { return };
        let bytes = match &message {
            Message::Entries { entries, .. }
            | Message::Hold { entries, .. }
            | Message::News { entries } => {
                10 + entries.iter().map(|entry| entry.encoded_bytes()).sum::<usize>()
            }
            Message::Propose { job, .. } => 80 + job.encoded_bytes(),
            Message::Rows { rows, .. } => 120 * rows.len(),
            message => message.encode().len(),
        };
        self.traffic.messages += 1;
        self.traffic.message_bytes += bytes as u64;
        if self.members[to as usize].core.is_none() {
            return;
        }
        if let Some(after) = self.network.stream(from as usize, to as usize, bytes) {
            self.push(after, Event::Message { to, from, message: Box::new(message) });
        }
    }
}

fn now(time: Duration) -> Now {
    let wall = WallTime(EPOCH_MILLIS + time.as_millis() as u64);
    Now { at: Instant::at(time), wall }
}

/// Nobody here forges anything: there is no secret to keep.
fn signer(node: NodeId) -> HashSigner {
    HashSigner::new(0, node)
}

fn info(index: usize) -> NodeInfo {
    // What a fabric of the lowest level does not say: nodes that say more than they may would all begin with saying less.
    let mut topology = MACHINE.topology();
    topology.pools.clear();
    NodeInfo {
        name: format!("n{index}"),
        labels: [("rack".to_owned(), format!("r{}", index % 40))].into(),
        topology,
        level: LEVEL_MIN,
        reached: LEVEL_MIN,
        addresses: vec![address(index)],
        version: "0.1.0".into(),
        executor: "systemd".into(),
        started: WallTime(EPOCH_MILLIS),
        ..NodeInfo::default()
    }
}

/// The table that all nodes begin with, and what each of them runs.
fn table(
    scene: &Scene,
    ids: &[NodeId],
    infos: &[NodeInfo],
) -> (Table, BTreeMap<NodeId, Vec<Record>>) {
    let mut table = Table::default();
    let horizon = WallTime(EPOCH_MILLIS);
    let mut reading = (EPOCH_MILLIS - 1_000_000) << 16;
    let mut add = |node: NodeId, key: Key, value: Value| {
        reading += 1;
        let stamp = Stamp { reading, node };
        table.merge(Entry::written(&ids[0], &signer(node), key, stamp, value), horizon);
    };
    let keyring = Keyring { keys: BTreeMap::from([(1, [7; 32])]) };
    add(ids[0], Key::Keyring, Value::Keyring(keyring));
    for (id, info) in ids.iter().zip(infos) {
        let roster =
            RosterEntry { name: info.name.clone(), vouched_by: ids[0], joined: info.started };
        add(ids[0], Key::Roster(*id), Value::Roster(roster));
        add(*id, Key::Node(*id), Value::Node(Box::new(info.clone())));
    }
    let mut records: BTreeMap<NodeId, Vec<Record>> = BTreeMap::new();
    let (jobs, slots) = scene.running;
    for job in 0..jobs {
        let spec = small_service(&format!("old{job}"), slots);
        let entry = JobEntry {
            spec: spec.clone(),
            version: 1,
            generation: 0,
            previous: None,
            reverted: false,
            by: "crowd".into(),
        };
        let hash = entry.hash();
        add(ids[0], Key::Job(spec.name.clone()), Value::Job(Box::new(entry)));
        for index in 0..slots {
            let node = ids[(job * slots as usize + index as usize) % ids.len()];
            let alloc = AllocId::new(spec.name.clone(), index, 1);
            let row = fabric::alloc::AllocRow {
                epoch: 1,
                phase: fabric::alloc::Phase::Running,
                spec: hash,
                version: 1,
                claim: claim(&spec),
                healthy: true,
                since: horizon,
                healthy_since: horizon,
                pid: Some(1),
                ..Default::default()
            };
            let key = Key::Alloc(alloc.slot.clone(), node);
            add(node, key, Value::Alloc(Box::new(row)));
            records.entry(node).or_default().push(Record { alloc, spec: spec.clone(), run: 1 });
        }
    }
    (table, records)
}

fn claim(spec: &JobSpec) -> Claim {
    let CpuRequest::Shared { millis, .. } = spec.resources.cpu else { return Claim::default() };
    Claim {
        shared_millis: millis,
        memory: spec.resources.memory,
        disk: spec.resources.disk,
        ..Claim::default()
    }
}

fn found(record: &Record) -> UnitFound {
    UnitFound {
        alloc: record.alloc.clone(),
        run: record.run,
        event: UnitEvent::Running { pid: 1, cpus: None, mems: None },
        lease_until: None,
    }
}
