//! The world: machines, the network between them, and a queue of everything that is going to happen.
//!
//! One thread, one queue ordered by time and then by insertion, one seed: the same seed makes the same
//! world, event by event. The file `outputs.rs` carries out what cores want; this one makes things
//! happen to them.

use fabric::clock::Instant;
use fabric::id::{AllocId, FabricKey, NodeId};
use fabric::io::{Answer, Input, Request};
use fabric::message::Message;
use fabric::node::{Canary, Origin};
use fabric::table::{Entry, TokenId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::book::{Book, Violation};
use crate::disk::Written;
use crate::gate::Sealed;
use crate::invariants;
use crate::machines::Hardware;
use crate::network::{Network, Quality};
use crate::node::{Agent, SimNode, fresh_identity};
use crate::trace::{Detail, Trace};
use crate::units::NextStep;
use forger::Forger;

mod agents;
mod forger;
mod moves;
mod outputs;

/// What a world is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything random comes from it.
    pub seed: u64,
    /// The network at its best.
    pub quality: Quality,
    /// A planted bug in every core.
    pub canary: Option<Canary>,
    /// Peers are found again and again, not only when an agent starts.
    pub rediscovery: Option<Duration>,
    /// What is told in words.
    pub detail: Detail,
    /// Print it as it comes.
    pub print: bool,
    /// Each line of the story begins with the number of its event.
    pub numbered: bool,
}

/// Something that is going to happen.
enum Event {
    /// A core's deadline; void unless it is that agent's latest.
    Wake { node: usize, token: u64 },
    /// Something comes to an agent that must still be the same one.
    Input { node: usize, life: u64, input: Box<Input> },
    /// A datagram arrives.
    Datagram { to: usize, from: NodeId, key: u32, sealed: Sealed, payload: Vec<u8> },
    /// A message has arrived.
    Message(Box<Envelope>),
    /// A write is due.
    Disk { node: usize, life: u64, sequence: u64 },
    /// A unit moves on.
    Unit { node: usize, step: NextStep },
    /// The guard of a unit looks at its clock.
    Guard { node: usize, alloc: AllocId, life: u64 },
    /// Machines that stood still have had a moment since.
    Thawed,
    /// An agent checks a unit's health.
    Check { node: usize, life: u64, alloc: AllocId, run: u32 },
    /// A machine that is on starts its agent.
    Boot { node: usize },
    /// An agent is told to stop; its units run on.
    StopAgent { node: usize },
    /// A machine is switched on.
    PowerOn { node: usize },
    /// A node without a fabric asks to be let in.
    Join { node: usize },
    /// The answer to that has arrived.
    Welcome { node: usize, identity: NodeId, entries: Vec<Entry> },
    /// Somebody with the gossip keys writes a row.
    Forge,
    /// Discovery looks around.
    Rediscover,
    /// The checkers look at the world as a whole.
    Observe,
}

/// A message under way.
struct Envelope {
    from: usize,
    to: usize,
    sender: NodeId,
    receiver: NodeId,
    bytes: Vec<u8>,
}

/// A request that waits for its answer, and why it was made.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who was asked.
    pub node: usize,
    /// By which of its agents.
    pub life: u64,
    /// When.
    pub at: Duration,
    /// In words.
    pub what: String,
    purpose: Purpose,
}

#[derive(Clone, Debug)]
enum Purpose {
    /// A user waits for the answer.
    User(Box<Request>),
    /// A token for a newcomer was asked for; it comes back to enrol.
    Token { newcomer: usize, token: TokenId },
    /// A newcomer waits for its welcome.
    Enrol { newcomer: usize, identity: NodeId },
}

/// Machines, network, time.
pub struct World {
    /// How it was made.
    pub settings: Settings,
    /// World time. Every machine's clocks differ from it.
    pub time: Duration,
    /// The machines.
    pub nodes: Vec<SimNode>,
    /// What lies between them.
    pub network: Network,
    /// What happened.
    pub trace: Trace,
    /// What the invariants need to remember.
    pub book: Book,
    /// Requests without an answer yet.
    pub asked: BTreeMap<u64, Asked>,
    /// Answers to users, by request.
    pub answers: BTreeMap<u64, (Duration, Answer)>,
    /// Events that happened.
    pub happened: u64,
    /// Stop after that many.
    pub stop_after: Option<u64>,
    queue: BTreeMap<(Duration, u64), Event>,
    events: u64,
    random: ChaCha8Rng,
    by_address: BTreeMap<SocketAddr, usize>,
    fabric: FabricKey,
    requests: u64,
    tokens: u64,
    renumbered: usize,
    forger: Forger,
    /// Wake-ups in a row without time passing.
    wakes_at_once: u32,
}

impl World {
    /// A world of switched-on machines without agents.
    pub fn new(settings: Settings, machines: Vec<(String, Hardware)>) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
        random.set_stream(1);
        let network = Network::new(settings.quality, ChaCha8Rng::from_rng(&mut random));
        let nodes: Vec<SimNode> = machines
            .into_iter()
            .enumerate()
            .map(|(index, (name, hardware))| SimNode::new(index, name, hardware, &mut random))
            .collect();
        let by_address = nodes.iter().enumerate().map(|(i, node)| (node.address, i)).collect();
        let fabric = fresh_identity(&mut random);
        let trace = Trace::new(settings.detail, settings.print);
        let mut world = Self {
            book: Book::new(nodes.len()),
            time: Duration::ZERO,
            nodes,
            network,
            trace,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            happened: 0,
            stop_after: None,
            queue: BTreeMap::new(),
            events: 0,
            random,
            by_address,
            fabric,
            requests: 0,
            tokens: 0,
            renumbered: 0,
            forger: Forger::new(settings.seed),
            wakes_at_once: 0,
            settings,
        };
        world.push(Duration::from_secs(1), Event::Observe);
        if let Some(every) = world.settings.rediscovery {
            world.push(every, Event::Rediscover);
        }
        world
    }

    /// The first machine founds a fabric, the others ask to be let in one after the other.
    pub fn found_and_join(&mut self) {
        self.found(0);
        for node in 1..self.nodes.len() {
            let wait = Duration::from_millis(self.random.random_range(200..3000));
            self.push(wait, Event::Join { node });
        }
    }

    /// A machine founds the fabric.
    pub fn found(&mut self, node: usize) {
        let mut gossip_key = [0; 32];
        rand::Rng::fill_bytes(&mut self.random, &mut gossip_key);
        self.nodes[node].joined = true;
        self.start_agent(node, Origin::Founded { gossip_key });
    }

    /// Lets everything happen that happens until `time`, or until an invariant is broken.
    pub fn run_until(&mut self, time: Duration) -> Result<(), Violation> {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > time {
                break;
            }
            let ((due, _), event) = entry.remove_entry();
            if due > self.time {
                self.time = due;
                self.wakes_at_once = 0;
            }
            self.happened += 1;
            self.happen(event);
            if let Some(violation) = self.book.violation.take() {
                return Err(violation);
            }
            if self.stop_after.is_some_and(|last| self.happened >= last) {
                return Err(Violation::stop(self.time));
            }
        }
        self.time = self.time.max(time);
        Ok(())
    }

    /// Like [`World::run_until`], from now on.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Violation> {
        self.run_until(self.time + duration)
    }

    /// A user asks something of a node. `None`: nobody is there to ask.
    pub fn request(&mut self, node: usize, request: Request) -> Option<u64> {
        self.nodes[node].agent.as_ref()?;
        let what = words_of(&request, &self.nodes);
        self.tell(|world| format!("user at {}: {what}", world.nodes[node].name));
        self.book.asked(self.time, node, &request);
        Some(self.ask(node, what, request.clone(), Purpose::User(Box::new(request))))
    }

    /// The agent dies; its units live on.
    pub fn crash_agent(&mut self, node: usize) {
        if self.nodes[node].agent.is_none() {
            return;
        }
        self.tell(|world| format!("agent of {} dies", world.nodes[node].name));
        let agent = self.lose_agent(node, 0);
        self.keep_votes(node, agent);
    }

    /// What it has granted as a voter is where a crash does not reach it, unless there was no room for it there.
    fn keep_votes(&mut self, node: usize, agent: Option<Agent>) {
        let keeps = self.nodes[node].units.steady || self.random.random_bool(0.7);
        // One that is planted to forget keeps nothing, or it would have nothing to forget.
        let keeps = keeps && self.settings.canary != Some(Canary::VoterForgets);
        let Some(mut agent) = agent.filter(|_| keeps) else { return };
        let now = self.nodes[node].clock.read(self.time);
        self.nodes[node].handover = agent.core.hand_over(now, true).map(|words| (words, now.at));
    }

    /// The agent stops or dies, and says so to all that it can reach: at its end, or by what its service manager runs
    /// after it.
    pub fn stop_agent(&mut self, node: usize, ends: bool) {
        if self.nodes[node].agent.is_none() {
            return;
        }
        self.tell(|world| format!("agent of {} stops", world.nodes[node].name));
        self.feed(node, Input::Leaving { ends });
        // In good order or not: the words of a service manager sound alike.
        let is_clean = self.nodes[node].units.steady || self.random.random_bool(0.5);
        let pending = self.nodes[node].disk.pending();
        let agent = self.lose_agent(node, if is_clean { pending } else { 0 });
        self.keep_votes(node, agent);
    }

    /// Stops the agent then, and starts it again so much later.
    pub fn restart_at(&mut self, node: usize, after: Duration, back_after: Duration) {
        self.push(after, Event::StopAgent { node });
        self.push(after + back_after, Event::Boot { node });
    }

    /// Switches a machine on so much later, with the disk that it has.
    pub fn boot_at(&mut self, node: usize, after: Duration) {
        self.push(after, Event::PowerOn { node });
    }

    /// The machine loses its power.
    pub fn power_off(&mut self, node: usize) {
        self.tell(|world| format!("{} loses its power", world.nodes[node].name));
        self.lose_agent(node, 0);
        self.nodes[node].handover = None;
        // What was about to run here ends by this, and not by a roll-out.
        for (alloc, _) in self.nodes[node].units.there() {
            self.book.emptied.filled(node, alloc);
        }
        self.nodes[node].units.power_off();
        self.nodes[node].powered = false;
        self.book.active.retain(|(at, _), _| *at != node);
    }

    /// The machine loses its power and its disk, and with it its identity.
    pub fn wipe(&mut self, node: usize) {
        self.power_off(node);
        self.tell(|world| format!("{} loses its disk", world.nodes[node].name));
        let identity = fresh_identity(&mut self.random);
        let lost = &mut self.nodes[node];
        lost.disk.wipe();
        lost.joined = false;
        let former = std::mem::replace(&mut lost.identity, identity);
        self.book.wiped = Some(self.time);
        self.book.former.entry(node).or_default().push(former);
    }

    /// Power comes back, and the agent starts. Does nothing to a node that runs.
    pub fn restart(&mut self, node: usize) {
        let after = Duration::from_millis(self.random.random_range(1..50));
        if !self.nodes[node].powered {
            self.nodes[node].powered = true;
            self.nodes[node].clock.reboot(self.time);
        }
        self.push(after, Event::Boot { node });
    }

    /// The agent gets no processor until `until`.
    pub fn pause(&mut self, node: usize, until: Duration) {
        self.nodes[node].paused_until = self.nodes[node].paused_until.max(until);
    }

    /// Something outside kills a running unit.
    pub fn kill_unit(&mut self, node: usize, alloc: &AllocId) {
        let heard = self.nodes[node].agent.is_some();
        if let Some((run, event)) = self.nodes[node].units.kill(alloc, heard) {
            self.unit_says(node, alloc.clone(), run, event);
        }
    }

    /// The machine gets another address: a lease ran out. Its agent is told, nobody else is.
    pub fn renumber(&mut self, node: usize) {
        self.renumbered += 1;
        let address = crate::node::address(self.nodes.len() + self.renumbered);
        self.tell(|world| format!("{} moves to {address}", world.nodes[node].name));
        self.by_address.remove(&self.nodes[node].address);
        self.by_address.insert(address, node);
        self.nodes[node].address = address;
        let topology = Box::new(self.nodes[node].hardware.topology.clone());
        let (life, addresses) = (self.life(node), vec![address]);
        let input = Box::new(Input::Changed { topology, addresses, connected: true });
        self.push(Duration::from_millis(1), Event::Input { node, life, input });
    }

    /// Somebody pulls a machine's only cable, or plugs it in again. Its agent is told by its kernel.
    pub fn plug(&mut self, node: usize, connected: bool) {
        if self.nodes[node].connected == connected {
            return;
        }
        self.nodes[node].connected = connected;
        let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != node).collect();
        let what = if connected { "has a link again" } else { "has no link" };
        self.tell(|world| format!("{} {what}", world.nodes[node].name));
        for (from, to) in [(&[node][..], &others[..]), (&others[..], &[node][..])] {
            match connected {
                true => self.network.unblock(from, to),
                false => self.network.block(from, to),
            }
        }
        self.tell_link(node);
    }

    /// What the kernel says of a machine's link.
    pub(crate) fn tell_link(&mut self, node: usize) {
        let machine = &self.nodes[node];
        let topology = Box::new(machine.hardware.topology.clone());
        let (addresses, connected) = (vec![machine.address], machine.connected);
        let life = self.life(node);
        let input = Box::new(Input::Changed { topology, addresses, connected });
        self.push(Duration::from_millis(1), Event::Input { node, life, input });
    }

    /// The disk starts or stops refusing, or slows down.
    pub fn set_disk(&mut self, node: usize, mode: crate::disk::DiskMode) {
        self.tell(|world| format!("disk of {}: {mode:?}", world.nodes[node].name));
        self.nodes[node].disk.mode = mode;
    }

    /// The unit manager changes its temper.
    pub fn set_temper(&mut self, node: usize, temper: crate::units::Temper) {
        self.tell(|world| format!("unit manager of {}: {temper:?}", world.nodes[node].name));
        self.nodes[node].units.temper = temper;
    }

    /// From now on nothing of `from` reaches `to`.
    pub fn split(&mut self, from: &[usize], to: &[usize]) {
        self.tell(|world| format!("{} no longer reach {}", world.names(from), world.names(to)));
        self.network.block(from, to);
    }

    /// Takes a [`World::split`] back.
    pub fn unsplit(&mut self, from: &[usize], to: &[usize]) {
        self.tell(|world| format!("{} reach {} again", world.names(from), world.names(to)));
        self.network.unblock(from, to);
    }

    /// Ends all splits.
    pub fn heal_network(&mut self) {
        self.tell(|_| "all splits end".into());
        self.network.heal();
        self.network.quality = self.settings.quality;
    }

    /// Somebody without a key begins to copy what is sent, or stops.
    pub fn set_stranger(&mut self, copies: bool) {
        if self.network.stranger != copies {
            let does = if copies { "copies every datagram to everybody" } else { "is gone" };
            self.tell(|_| format!("a stranger {does}"));
            self.network.stranger = copies;
            if copies {
                self.book.watch_strangers();
            }
        }
    }

    /// Changes a clock: its rate in parts per million of a right one, and a jump of the wall clock.
    pub fn set_clock(&mut self, node: usize, rate_ppm: Option<u32>, jump_ms: i64) {
        let time = self.time;
        if jump_ms != 0 {
            self.tell(|world| {
                format!("wall clock of {} jumps by {} s", world.nodes[node].name, jump_ms / 1000)
            });
            self.nodes[node].clock.jump(time, jump_ms);
        }
        if let Some(rate_ppm) = rate_ppm {
            self.nodes[node].clock.set_rate(time, rate_ppm);
            self.watch_all(node);
        }
        self.schedule_wake(node);
    }

    /// The running node with this identity.
    pub fn index_of(&self, identity: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.identity == *identity)
    }

    /// The node with this name.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// What people call a node.
    pub fn name_of(&self, identity: &NodeId) -> String {
        match self.index_of(identity) {
            Some(index) => self.nodes[index].name.clone(),
            None => format!("former {}", identity.short()),
        }
    }

    /// Indices of nodes whose agents run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].agent.is_some()).collect()
    }

    /// Nodes that think they belong to the fabric while no other running node has heard of them.
    pub fn strangers(&self) -> Vec<usize> {
        let known = |node: &usize| {
            let others = self.nodes.iter().enumerate().filter(|(other, _)| other != node);
            let mut cores = others.filter_map(|(_, machine)| machine.core());
            cores.any(|core| core.is_member(&self.nodes[*node].identity))
        };
        let running = self.running();
        if running.len() < 2 {
            return Vec::new();
        }
        running.into_iter().filter(|node| !known(node)).collect()
    }

    /// Tells the story.
    pub fn tell(&mut self, words: impl FnOnce(&World) -> String) {
        if self.settings.detail >= Detail::Story {
            let words = words(self);
            let number = self.happened;
            self.trace.tell(Detail::Story, self.time, || match self.settings.numbered {
                true => format!("{number:>7} {words}"),
                false => words,
            });
        }
    }

    fn names(&self, nodes: &[usize]) -> String {
        nodes.iter().map(|node| self.nodes[*node].name.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.events += 1;
        self.queue.insert((self.time + after, self.events), event);
    }

    fn life(&self, node: usize) -> u64 {
        self.nodes[node].generation
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].agent.is_some() && self.life(node) == life
    }

    fn happen(&mut self, event: Event) {
        if let Some(node) = event.needs_machine()
            && self.nodes[node].frozen_until > self.time
        {
            if matches!(event, Event::Datagram { .. } | Event::Message(_)) {
                // Nobody takes it from the network, and whoever sent it gives up.
                return;
            }
            let wait = self.nodes[node].frozen_until - self.time;
            return self.push(wait, event);
        }
        // An agent that gets no processor finds everything in its queues later.
        if let Some(node) = event.needs_awake()
            && self.nodes[node].agent.is_some()
            && self.nodes[node].paused_until > self.time
        {
            let wait = self.nodes[node].paused_until - self.time;
            return self.push(wait, event);
        }
        match event {
            Event::Wake { node, token } => self.wake(node, token),
            Event::Input { node, life, input } => {
                if self.lives(node, life) {
                    self.feed(node, *input);
                }
            }
            Event::Datagram { to, from, key, sealed, payload } => {
                self.datagram(to, from, key, sealed, payload);
            }
            Event::Message(envelope) => self.message(*envelope),
            Event::Disk { node, life, sequence } => self.disk(node, life, sequence),
            Event::Unit { node, step } => self.unit(node, step),
            Event::Guard { node, alloc, life } => self.guard(node, &alloc, life),
            Event::Thawed => self.thawed(),
            Event::Check { node, life, alloc, run } => self.check(node, life, alloc, run),
            Event::Boot { node } => self.boot(node),
            Event::StopAgent { node } => self.stop_agent(node, false),
            Event::PowerOn { node } => self.restart(node),
            Event::Join { node } => self.join(node),
            Event::Welcome { node, identity, entries } => self.welcome(node, identity, entries),
            Event::Forge => self.forge(),
            Event::Rediscover => self.rediscover(),
            Event::Observe => {
                invariants::observe(self);
                self.push(Duration::from_secs(1), Event::Observe);
            }
        }
    }

    fn feed(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].clock.read(self.time);
        let (tag, bytes) = outputs::fingerprint_of_input(&input);
        self.trace.hash(self.time, node, tag, &bytes);
        if self.settings.detail == Detail::Everything {
            let name = &self.nodes[node].name;
            self.trace.tell(Detail::Everything, self.time, || format!("{name} <- {input:?}"));
        }
        let Some(agent) = &mut self.nodes[node].agent else { return };
        agent.core.handle(now, input);
        self.drain(node);
    }

    fn wake(&mut self, node: usize, token: u64) {
        let Some(agent) = &mut self.nodes[node].agent else { return };
        if agent.wake.is_none_or(|(_, latest)| latest != token) {
            return;
        }
        agent.wake = None;
        self.wakes_at_once += 1;
        if !invariants::before_tick(self, node, self.wakes_at_once) {
            return;
        }
        self.feed(node, Input::Tick);
    }

    /// Sees to it that the node is woken at its deadline.
    fn schedule_wake(&mut self, node: usize) {
        let time = self.time;
        let (clock, token) = (&self.nodes[node].clock, self.events + 1);
        let Some(agent) = &self.nodes[node].agent else { return };
        let due = agent.core.next_deadline().map(|at: Instant| clock.when(at, time));
        let planned = agent.wake.map(|(due, _)| due);
        if due == planned {
            return;
        }
        let Some(agent) = &mut self.nodes[node].agent else { return };
        agent.wake = due.map(|due| (due, token));
        if let Some(due) = due {
            self.push(due - time, Event::Wake { node, token });
        }
    }

    fn datagram(&mut self, to: usize, from: NodeId, key: u32, sealed: Sealed, payload: Vec<u8>) {
        let own = self.nodes[to].identity;
        let Some(agent) = &mut self.nodes[to].agent else { return };
        // As the real agent does: what strangers or lost keys sealed, or somebody copied, is dropped unread.
        if agent.roster.contains(&from)
            && agent.keyring.keys.contains_key(&key)
            && agent.gate.opens(own, from, &sealed, self.settings.canary)
        {
            invariants::before_datagram(self, to, from, &sealed);
            self.feed(to, Input::Datagram { from, payload });
        }
    }

    fn message(&mut self, envelope: Envelope) {
        let Envelope { from, to, sender, receiver, bytes } = envelope;
        let Some(agent) = &self.nodes[to].agent else { return };
        // The stream must still stand, and each side must be who the other thinks it is.
        let stands = self.nodes[to].identity == receiver
            && self.nodes[from].identity == sender
            && self.network.connects(from, to)
            && agent.roster.contains(&sender);
        if !stands {
            return self.refuse(from, to, sender, receiver);
        }
        invariants::before_message(self, from, &bytes);
        if let Ok(message) = Message::decode(&bytes) {
            self.book.delivered(to, sender, &message);
            self.feed(to, Input::Message { from: sender, message });
        }
    }

    /// A member that refuses a stream of a node that was removed tells it why.
    fn refuse(&mut self, from: usize, to: usize, sender: NodeId, receiver: NodeId) {
        let real = self.nodes[to].identity == receiver && self.nodes[from].identity == sender;
        let Some(removal) = self.nodes[to].core().and_then(|core| core.removal_of(&sender)) else {
            return;
        };
        let bytes = removal.encode();
        if let Some(after) = self.network.stream(to, from, bytes.len()).filter(|_| real) {
            let (sender, receiver) = (receiver, sender);
            let envelope = Envelope { from: to, to: from, sender, receiver, bytes };
            self.push(after, Event::Message(Box::new(envelope)));
        }
    }

    fn disk(&mut self, node: usize, life: u64, sequence: u64) {
        if !self.lives(node, life) {
            return;
        }
        match self.nodes[node].disk.due(sequence) {
            Written::Applied => {
                let after = Duration::from_micros(self.random.random_range(10..500));
                let input = Box::new(Input::Persisted { through: sequence });
                self.push(after, Event::Input { node, life, input });
            }
            Written::Refused { reason } => {
                self.book.refused(node);
                let input = Box::new(Input::PersistFailed { sequence, reason });
                self.push(Duration::ZERO, Event::Input { node, life, input });
            }
            Written::Gone => {}
        }
    }

    fn ask(&mut self, node: usize, what: String, request: Request, purpose: Purpose) -> u64 {
        self.requests += 1;
        let (id, life) = (self.requests, self.life(node));
        let asked = Asked { node, life, at: self.time, what, purpose };
        self.asked.insert(id, asked);
        let input = Box::new(Input::Request { id, request });
        self.push(Duration::ZERO, Event::Input { node, life, input });
        id
    }

    /// Of the writes under way, this many at least reach the disk.
    fn lose_agent(&mut self, node: usize, flushed: usize) -> Option<Agent> {
        let agent = self.nodes[node].agent.take()?;
        let pending = self.nodes[node].disk.pending();
        let surviving = self.random.random_range(0..=pending).max(flushed);
        self.nodes[node].disk.crash(surviving);
        self.nodes[node].units.forget();
        self.asked.retain(|_, asked| asked.node != node);
        Some(agent)
    }
}

impl Event {
    /// The node whose machine has to run for this.
    fn needs_machine(&self) -> Option<usize> {
        match self {
            Event::Disk { node, .. }
            | Event::Unit { node, .. }
            | Event::Guard { node, .. }
            | Event::Boot { node }
            | Event::Join { node }
            | Event::Welcome { node, .. } => Some(*node),
            _ => self.needs_awake(),
        }
    }

    /// The node whose agent has to get a processor for this.
    fn needs_awake(&self) -> Option<usize> {
        match self {
            Event::Wake { node, .. } | Event::Input { node, .. } | Event::Check { node, .. } => {
                Some(*node)
            }
            Event::Datagram { to, .. } => Some(*to),
            Event::Message(envelope) => Some(envelope.to),
            _ => None,
        }
    }
}

fn words_of(request: &Request, nodes: &[SimNode]) -> String {
    let name = |id: &NodeId| {
        let known = nodes.iter().find(|node| node.identity == *id);
        known.map_or_else(|| id.short(), |node| node.name.clone())
    };
    match request {
        Request::Submit { spec, .. } => format!("submit {}, count {}", spec.name, spec.count),
        Request::Scale { job, count, .. } => format!("scale {job} to {count}"),
        Request::RestartJob { job, .. } => format!("restart {job}"),
        Request::RestartSlot { job, index } => format!("restart {job}/{index}"),
        Request::Stop { job } => format!("stop {job}"),
        Request::Drain { node, on: true } => format!("drain {}", name(node)),
        Request::Drain { node, on: false } => format!("undrain {}", name(node)),
        Request::Rebalance { wish } if wish.apply => format!("rebalance, {} moves", wish.max_moves),
        Request::Rebalance { .. } => "rebalance plan".into(),
        Request::AddToken { .. } => "token create".into(),
        Request::RevokeToken { .. } => "token revoke".into(),
        Request::Enrol { node, .. } => format!("enrol {}", name(node)),
        Request::SetQuota { namespace, .. } => format!("quota of {namespace}"),
        Request::RemoveQuota { namespace } => format!("no quota of {namespace}"),
        Request::Reclock => "reclock".into(),
        Request::Remove { node, .. } => format!("remove {}", name(node)),
    }
}
