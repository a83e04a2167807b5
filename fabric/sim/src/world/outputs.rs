//! Carries out what cores want.

use fabric::id::{AllocId, NodeId};
use fabric::io::{Answer, Input, Launch, Output, UnitEvent};
use fabric::level::LEVEL;
use rand::RngExt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Envelope, Event, Purpose, World};
use crate::disk::{DiskMode, Write};
use crate::gate::Sealed;
use crate::invariants;
use crate::trace::Detail;
use crate::units::{Prepare, Start, Step, Stop};

/// A unit that is told to move to other CPUs is seen there after this.
const CONFINES_WITHIN: Duration = Duration::from_micros(500);

impl World {
    /// Polls a core until it wants nothing more, and carries out what it wanted.
    pub(super) fn drain(&mut self, node: usize) {
        let mut outputs = 0;
        while let Some(output) = self.nodes[node].agent.as_mut().and_then(|agent| agent.core.poll())
        {
            outputs += 1;
            self.carry_out(node, output);
        }
        invariants::after_outputs(self, node, outputs);
        self.schedule_wake(node);
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        if self.settings.detail == Detail::Everything {
            let name = &self.nodes[node].name;
            self.trace.tell(Detail::Everything, self.time, || format!("{name} -> {output:?}"));
        }
        match output {
            Output::Transmit { to, address, datagram } => {
                let payload = datagram.encode();
                self.trace.hash(self.time, node, 1, &payload);
                invariants::before_transmit(self, node, to, &payload);
                // The packet goes to the address; who is there decides what it thinks of it.
                self.transmit(node, to, address, payload);
            }
            Output::Send { to, address, message } => {
                let bytes = message.encode();
                self.trace.hash(self.time, node, 2, &bytes);
                invariants::before_send(self, node, to, &message, &bytes);
                self.send(node, to, address, bytes);
            }
            Output::Persist { sequence, changes } => {
                self.trace.hash(self.time, node, 3, &sequence.to_le_bytes());
                invariants::before_persist(self, node, sequence, &changes);
                let taking = self.disk_takes(node);
                let write = Write { sequence, changes };
                let due = self.nodes[node].disk.write(write, self.time, taking);
                let life = self.life(node);
                self.push(due - self.time, Event::Disk { node, life, sequence });
            }
            Output::Prepare(launch) => {
                self.trace.hash(self.time, node, 10, launch.alloc.unit().as_bytes());
                self.prepare_unit(node, &launch);
            }
            Output::Start(launch) => {
                self.trace.hash(self.time, node, 4, launch.alloc.unit().as_bytes());
                self.trace.hash(self.time, node, 4, launch.cpus.to_string().as_bytes());
                self.start_unit(node, *launch);
            }
            Output::Stop { alloc, run } => {
                self.trace.hash(self.time, node, 5, alloc.unit().as_bytes());
                invariants::before_stop(self, node, &alloc, run);
                if self.command_is_lost(node) {
                    return;
                }
                self.tell(|world| format!("{} stops {alloc}", world.nodes[node].name));
                match self.nodes[node].units.stop(&alloc, run, self.time) {
                    Stop::Nothing => {}
                    Stop::NotThere(event) => self.pass_on(node, alloc, run, event),
                    Stop::Begun(step) => {
                        self.book.progress(node, &alloc);
                        self.push(step.after, Event::Unit { node, step });
                    }
                }
            }
            Output::Confine { alloc, run, cpus } => {
                self.trace.hash(self.time, node, 6, cpus.to_string().as_bytes());
                if let Some(event) = self.nodes[node].units.confine(&alloc, run, cpus) {
                    self.pass_on_after(node, CONFINES_WITHIN, alloc, run, event);
                }
            }
            Output::Extend { alloc, run, until } => {
                self.trace.hash(self.time, node, 9, alloc.unit().as_bytes());
                if !self.command_is_lost(node) {
                    self.nodes[node].units.extend(&alloc, run, until);
                }
            }
            Output::Answer { id, answer } => {
                self.trace.hash(self.time, node, 7, &id.to_le_bytes());
                self.answer(node, id, answer);
            }
            Output::Event(event) => {
                self.trace.hash(self.time, node, 8, &event.at.0.to_le_bytes());
                self.noticed(node, event);
            }
            Output::TrustChanged => {
                if let Some(agent) = &mut self.nodes[node].agent {
                    agent.trust_changed();
                }
            }
        }
    }

    fn transmit(&mut self, node: usize, receiver: NodeId, address: SocketAddr, payload: Vec<u8>) {
        let start = self.life(node);
        let Some(agent) = &mut self.nodes[node].agent else { return };
        let Some(key) = agent.sealing_key() else { return };
        agent.sealed += 1;
        let sealed = Sealed { receiver, start, counter: agent.sealed, copied: false };
        self.copy(node, key, sealed, &payload);
        let Some(&to) = self.by_address.get(&address) else { return };
        let from = self.nodes[node].identity;
        for after in self.network.datagram(node, to) {
            let payload = payload.clone();
            self.push(after, Event::Datagram { to, from, key, sealed, payload });
        }
    }

    /// A stranger hears it, and brings it to all that the sender itself would reach.
    fn copy(&mut self, node: usize, key: u32, sealed: Sealed, payload: &[u8]) {
        if !self.network.stranger {
            return;
        }
        let (from, sealed) = (self.nodes[node].identity, Sealed { copied: true, ..sealed });
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            if self.network.reaches(node, to) {
                let (after, payload) = (self.network.copy(), payload.to_vec());
                self.push(after, Event::Datagram { to, from, key, sealed, payload });
            }
        }
    }

    fn send(&mut self, node: usize, receiver: NodeId, address: Option<SocketAddr>, bytes: Vec<u8>) {
        let to = match address {
            Some(address) => self.by_address.get(&address).copied(),
            None => self.index_of(&receiver),
        };
        let Some(to) = to else { return };
        if let Some(after) = self.network.stream(node, to, bytes.len()) {
            let sender = self.nodes[node].identity;
            let envelope = Envelope { from: node, to, sender, receiver, bytes };
            self.push(after, Event::Message(Box::new(envelope)));
        }
    }

    fn disk_takes(&mut self, node: usize) -> Duration {
        let (least, most) = match self.nodes[node].disk.mode {
            DiskMode::Well | DiskMode::Refusing => (500, 8_000),
            DiskMode::Slow => (300_000, 3_000_000),
        };
        Duration::from_micros(self.random.random_range(least..most))
    }

    fn prepare_unit(&mut self, node: usize, launch: &Launch) {
        if self.command_is_lost(node) {
            return;
        }
        let (alloc, run) = (launch.alloc.clone(), launch.run);
        let refusing = self.nodes[node].disk.mode == DiskMode::Refusing;
        match self.nodes[node].units.prepare(launch, refusing) {
            Prepare::UnderWay => {}
            Prepare::Done => self.pass_on(node, alloc, run, UnitEvent::Prepared),
            Prepare::Refused { reason } => {
                self.unit_says(node, alloc, run, UnitEvent::Refused { reason });
            }
            Prepare::Begun(step) => {
                self.book.progress(node, &alloc);
                self.push(step.after, Event::Unit { node, step });
            }
        }
    }

    fn start_unit(&mut self, node: usize, launch: Launch) {
        invariants::before_start(self, node, &launch);
        if self.command_is_lost(node) {
            return;
        }
        let (alloc, run) = (launch.alloc.clone(), launch.run);
        // From the start command the agent learns how to check a unit, also one that it adopts.
        if let (Some(health), Some(agent)) = (&launch.health, &mut self.nodes[node].agent)
            && agent.checks.insert(alloc.clone(), run) != Some(run)
        {
            let (interval, life) = (health.interval, self.life(node));
            self.push(interval, Event::Check { node, life, alloc: alloc.clone(), run });
        }
        let at = self.nodes[node].clock.read(self.time).at;
        let started = self.nodes[node].units.start(launch, at, self.time);
        self.unit_started(node, &alloc, run, started);
    }

    pub(super) fn unit_started(&mut self, node: usize, alloc: &AllocId, run: u32, started: Start) {
        match started {
            Start::Again(run, Some(event)) => self.pass_on(node, alloc.clone(), run, event),
            Start::Again(_, None) => {}
            Start::Refused { reason } => {
                self.unit_says(node, alloc.clone(), run, UnitEvent::Refused { reason });
            }
            Start::Begun(step) => {
                self.tell(|world| {
                    let name = &world.nodes[node].name;
                    let Some(unit) = world.nodes[node].units.units.get(alloc) else {
                        return String::new();
                    };
                    let claim = &unit.launch.claim;
                    let sort = if claim.cpus.is_empty() { "shared" } else { "its own" };
                    format!("{name} starts {alloc}, run {run}, on {sort} cpus {}", unit.cpus)
                });
                self.book.progress(node, alloc);
                let begun = step.step == Step::Active;
                self.push(step.after, Event::Unit { node, step });
                invariants::after_start(self, node);
                if begun {
                    invariants::leases::after_begin(self, node, alloc);
                    self.watch(node, alloc);
                }
            }
        }
    }

    /// Any output may be lost, and a core must notice.
    fn command_is_lost(&mut self, node: usize) -> bool {
        let permille = self.nodes[node].lost_commands_permille;
        permille > 0 && self.random.random_range(0..1000) < permille
    }

    fn answer(&mut self, node: usize, id: u64, answer: Answer) {
        let Some(asked) = self.asked.remove(&id) else {
            let detail = format!("{} answers request {id} twice", self.nodes[node].name);
            return self.book.violate(self.time, "invariant_every_request_is_answered", detail);
        };
        match asked.purpose {
            Purpose::User(request) => {
                self.tell(|world| {
                    let name = &world.nodes[node].name;
                    format!("{name} answers {}: {}", asked.what, words_of(&answer))
                });
                self.book.answered(self.time, node, &self.nodes, &request, &answer);
                self.answers.insert(id, (self.time, answer));
            }
            Purpose::Token { newcomer, token } => {
                if answer == Answer::Done && !self.nodes[newcomer].joined {
                    let identity = self.nodes[newcomer].identity;
                    let request = fabric::io::Request::Enrol {
                        node: identity,
                        name: self.nodes[newcomer].name.clone(),
                        level: self.nodes[newcomer].level,
                        token,
                        secret_hash: [7; 32],
                    };
                    let purpose = Purpose::Enrol { newcomer, identity };
                    let what = format!("enrol {}", self.nodes[newcomer].name);
                    self.ask(node, what, request, purpose);
                }
            }
            Purpose::Enrol { newcomer, identity } => match answer {
                Answer::Enrolled { entries, .. } => {
                    if let Some(after) = self.network.stream(node, newcomer, 1000) {
                        self.push(after, Event::Welcome { node: newcomer, identity, entries });
                    }
                }
                other => {
                    // Whoever is told that his agent is too old upgrades it.
                    self.nodes[newcomer].level = LEVEL;
                    self.tell(|_| format!("{}: {}", asked.what, words_of(&other)));
                }
            },
        }
    }

    fn noticed(&mut self, node: usize, event: fabric::api::Event) {
        use fabric::api::EventKind;
        match event.what {
            EventKind::Node { subject, state, .. } => {
                self.book.saw(self.time, node, subject, state);
                self.tell(|world| {
                    let name = &world.nodes[node].name;
                    format!("{name} sees {} {state}", world.name_of(&subject))
                });
            }
            EventKind::Job { job, message, .. } => {
                self.tell(|world| format!("{}: job {job}: {message}", world.nodes[node].name));
            }
            EventKind::Alloc { .. } | EventKind::Roster { .. } => {}
        }
    }
}

fn words_of(answer: &Answer) -> String {
    match answer {
        Answer::Submitted(submitted) => format!(
            "version {}{}, held by {} of {}",
            submitted.version,
            if submitted.changed { "" } else { " as before" },
            submitted.held_by,
            submitted.members
        ),
        Answer::Done => "done".into(),
        Answer::Rebalanced(rebalance) => {
            let holes = (rebalance.before.cores, rebalance.after.cores);
            let moves = rebalance.moves.iter();
            let moves: Vec<String> = moves
                .map(|made| format!("{} {}->{}", made.slot, made.from_name, made.to_name))
                .collect();
            format!("hole {} -> {} cores, [{}]", holes.0, holes.1, moves.join(", "))
        }
        Answer::Enrolled { .. } => "enrolled".into(),
        Answer::Refused(problem) => format!("refused: {problem}"),
    }
}

/// What of an input goes into the hash.
pub(super) fn fingerprint_of_input(input: &Input) -> (u8, Vec<u8>) {
    match input {
        Input::Tick => (32, Vec::new()),
        Input::Datagram { payload, .. } => (33, payload.clone()),
        Input::Heard { datagram, .. } => (33, datagram.encode()),
        Input::Message { message, .. } => (34, message.encode()),
        Input::Found { node, .. } => (35, node.0.to_vec()),
        Input::Request { id, .. } => (36, id.to_le_bytes().to_vec()),
        Input::Unit { alloc, run, .. } => (37, format!("{alloc} {run}").into_bytes()),
        Input::Units(found) => (38, found.len().to_le_bytes().to_vec()),
        Input::Checked { alloc, .. } => (39, alloc.to_string().into_bytes()),
        Input::Persisted { through } => (40, through.to_le_bytes().to_vec()),
        Input::PersistFailed { sequence, .. } => (41, sequence.to_le_bytes().to_vec()),
        Input::Changed { connected, .. } => (42, vec![u8::from(*connected)]),
        Input::Leaving { ends } => (43, vec![u8::from(*ends)]),
        Input::Superseded => (45, Vec::new()),
        Input::Renewed { generation } => (44, generation.to_le_bytes().to_vec()),
    }
}
