//! The agent's loop: wait for something to happen, tell the core, carry out what the core decides.
//!
//! The driver owns everything; the tasks beside it (see `main.rs`) hold only their end of a channel.
//! Without a fabric there is no core: then only `status`, `doctor`, `init` and `join` have an answer.

use anyhow::Context;
use discovery::{Discovery, Interfaces, Settings};
use fabric::api::{Problem, ProblemKind};
use fabric::clock::{Instant, Now};
use fabric::cpuset::CpuSet;
use fabric::id::NodeId;
use fabric::io::{Input, Request, UnitEvent, UnitFound};
use fabric::node::disk_on_disk;
use fabric::topology::{NodeInfo, PortsUsed, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use crate::api::Reply;
use crate::approval::{Door, Invitations, Invited};
use crate::clock::Clock;
use crate::config::Config;
use crate::credentials::Credentials;
use crate::events::Events;
use crate::executor::Executor;
use crate::health::Checker;
use crate::http;
use crate::identity::{self, Fabric, Identity};
use crate::level;
use crate::listeners::{Listeners, Wanted};
use crate::machine::{self, Machine};
use crate::observe::{Observer, Source};
use crate::quic::{Incoming, Own, Sockets};
use crate::seal::Start;
use crate::store::{self, Progress, Writer};
use crate::topology::Settling;
use crate::trace::Tracer;
use addresses::Local;
use approval::Seen;
use checks::Checks;
use enter::{Entering, JoinOutcome, Joining};
use member::{Counts, Hands, Member};
use provision::Provision;
use readers::Readers;
use sources::{Channels, Sources, Wake};
use standing::Standing;
use units::UnitCommand;

mod addresses;
mod approval;
mod ask;
mod calls;
mod checks;
mod counters;
mod elsewhere;
mod enter;
pub mod farewell;
mod handover;
mod hardware;
mod journal;
mod listening;
mod local;
mod logs;
mod member;
mod provision;
mod readers;
mod services;
mod sources;
mod standing;
mod topology;
mod traces;
mod twins;
mod units;
mod upgrade;

/// Calls of the API that wait for the loop; callers wait for a place.
const CALLS_MAX: usize = 64;
/// Events of units that wait for the loop; the executor waits for a place.
const UNIT_EVENTS_MAX: usize = 512;
/// Attempts to join, and looks at the hardware, that are over and wait for the loop: there is one of each
/// at a time.
const OUTCOMES_MAX: usize = 1;
/// Invitations that wait for the loop, which takes one and refuses the others: as many as there can be visitors.
const INVITED_MAX: usize = 8;
/// Nodes remembered from discovery.
const FOUND_MAX: usize = 4096;
/// Time between two rounds of the agent's own chores.
const CHORES: Duration = Duration::from_secs(1);
/// Members that have moved are known to the stream port at their new addresses within this.
const KNOW_PERIOD: Duration = Duration::from_secs(5);

/// The agent.
pub struct Driver {
    clock: Clock,
    started: Now,
    config: Config,
    name: String,
    identity: Arc<Identity>,
    /// Of this agent.
    start: Start,
    /// Where the gossip socket is bound.
    bound: SocketAddr,
    /// Goes to the transport when the node becomes a member.
    streams: Option<std::net::UdpSocket>,
    sources: Sources,
    /// The machine's addresses.
    local: Local,
    /// Those of which the others are told.
    told: Local,
    /// Where this agent answers: whoever is looked for is not there.
    own: Own,
    /// Where members were heard when the addresses were looked at.
    heard_at: BTreeSet<SocketAddr>,
    /// Whether any link has a carrier and leads to where members were heard: without one, silence of others is this
    /// machine's own.
    connected: bool,
    topology: Topology,
    topology_looked: Instant,
    /// What was plugged in or out since then.
    plugged: Settling,
    /// CPUs that jobs have for themselves.
    kept_free: CpuSet,
    looks: mpsc::Sender<Topology>,
    listeners: Listeners,
    /// When it was looked who listens on this machine.
    listeners_looked: Instant,
    listening: mpsc::Sender<(Wanted, Vec<PortsUsed>)>,
    executor: Executor,
    executor_reason: String,
    units: mpsc::Sender<UnitCommand>,
    checks: Checks,
    /// Units of the agent before, until a core takes them.
    adopted: Option<Vec<UnitFound>>,
    store: Writer,
    observer: Observer,
    tracer: Tracer,
    /// What the observer was told that this node is called: no other of its fabric is called so.
    name_of_series: String,
    /// When the loop's counters went into the store.
    counted: Instant,
    /// What people should know about the start.
    warnings: Vec<String>,
    events: Events,
    readers: Readers,
    standing: Standing,
    counts: Counts,
    /// Why multicast discovery does not work, if it does not.
    discovery_trouble: Option<String>,
    /// Who was found, by source and name.
    found: BTreeMap<(discovery::Source, String), Seen>,
    /// Of nodes that this one lets in.
    invitations: Invitations,
    /// Where members invite this node, while it is in no fabric.
    door: Option<Door>,
    invited: mpsc::Sender<Invited>,
    token_labels: BTreeMap<String, String>,
    provision: Provision,
    joining: Option<Joining>,
    entering: Option<Entering>,
    outcomes: mpsc::Sender<JoinOutcome>,
    /// Attempts to join so far.
    attempts: u64,
    member: Option<Member>,
    next_chores: Instant,
    /// When the streams were told last where members are.
    knew: Instant,
    told_status: String,
}

impl Driver {
    /// Opens everything: state directory, sockets, executor, discovery and the API.
    ///
    /// # Errors
    /// When the agent cannot work at all: the state directory, a socket or the executor fails.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let started = clock.now();
        let machine = Machine::this(Path::new("/"));
        machine::check(&config.state, &machine)?;
        let opened = store::open(&config.state)?;
        // Before anything is written there.
        level::check(&config, &opened.rows)?;
        let identity = Arc::new(Identity::load_or_create(&config.state)?);
        machine::bind(&config.state, &machine);
        let before = identity::last_generation(&config.state);
        let start = Start::new(identity::next_generation(&config.state, started.wall.0))?;
        let handover = handover::take(&config.api.socket, identity.id(), before);
        let fabric = Fabric::load(&config.state)?;
        let mut disk = opened.store;
        let token_labels = match disk.note(enter::LABELS_NOTE) {
            Ok(Some(note)) => serde_json::from_slice(&note).unwrap_or_default(),
            _ => BTreeMap::new(),
        };
        let (store, written) = Writer::start(disk)?;

        let sockets = Sockets::bind(config.gossip_address())?;
        let gossip = UdpSocket::from_std(sockets.gossip).context("the gossip socket")?;
        let listener = http::bind(&config.api.socket, &config.api.group)
            .await
            .with_context(|| format!("the API's socket {}", config.api.socket.display()))?;
        let (calls, calls_received) = mpsc::channel(CALLS_MAX);
        if let Some(address) = config.metrics.listen() {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("metrics.listen = {address}"))?;
            tracing::info!(%address, "what is measured is told here, to everybody");
            tokio::spawn(http::serve_readers(listener, calls.clone()));
        }
        tokio::spawn(http::serve(listener, calls));

        let (unit_events, units_received) = mpsc::channel(UNIT_EVENTS_MAX);
        let choice =
            Executor::choose(config.executor.kind, &config.state, clock, unit_events.clone())
                .await
                .context("no executor works here")?;
        let adopted = choice.executor.adopt().await.context("cannot look for units that run")?;
        let (units, commands) = mpsc::channel(units::COMMANDS_MAX);
        let (outcomes, checked) = mpsc::channel(UNIT_EVENTS_MAX);
        let folder = choice.executor.units_folder().await;
        let listeners = Listeners::new(folder.clone());
        let mut checks = Checks::new(Checker::new(outcomes, listeners.clone()));
        let mut running = Vec::new();
        for found in &adopted {
            if matches!(found.event, UnitEvent::Running { .. })
                && let Some(launch) = choice.executor.launch_of(&found.alloc).await
            {
                checks.launched(&launch);
                checks.event(&found.alloc, found.run, &found.event);
                running.push(launch);
            }
        }
        let kept_free = topology::keep_from(&config, &choice.executor, &running).await;
        let executor = choice.executor.clone();
        tokio::spawn(units::carry_out(executor, listeners.clone(), unit_events, commands));

        let name = config.name();
        let observer = Observer::start(&config.metrics, &name, folder)?;
        if let (Executor::Systemd(systemd), true) = (&choice.executor, config.metrics.enabled) {
            tokio::spawn(services::watch(systemd.clone(), observer.clone()));
        }
        let (discovery, discovery_trouble) =
            start_discovery(&config, &name, &identity, fabric.as_ref(), sockets.address.port());
        let (outcomes, joined) = mpsc::channel(OUTCOMES_MAX);
        let (invite, invited) = mpsc::channel(INVITED_MAX);
        let (looks, looked) = mpsc::channel(OUTCOMES_MAX);
        let (listen, listening) = mpsc::channel(OUTCOMES_MAX);
        let (readers, read) = Readers::new();
        let (pools, claimed) = disk_on_disk(&opened.rows, &identity.id());
        let before = topology::DiskBefore { pools, claimed };
        let mut topology = topology::topology(&config, &choice.executor, before)?;
        topology.ports_used = listening::at_start(&listeners, topology.ports);
        let channels = Channels {
            calls: calls_received,
            units: units_received,
            checked,
            written,
            joined,
            invited,
            looked,
            listening,
            read,
        };
        let local = Local::look(&BTreeSet::new(), &Local::default());
        let bound = gossip.local_addr()?;
        let mut driver = Self {
            clock,
            started,
            start,
            bound,
            streams: Some(sockets.streams),
            sources: Sources::new(gossip, channels, discovery)?,
            told: local.clone(),
            own: local.own(&config.listen, bound.port()),
            heard_at: BTreeSet::new(),
            connected: addresses::is_connected(&config.listen, &local),
            local,
            topology,
            topology_looked: started.at,
            plugged: Settling::default(),
            kept_free,
            looks,
            listeners,
            listeners_looked: Instant::default(),
            listening: listen,
            executor: choice.executor,
            executor_reason: choice.reason,
            units,
            checks,
            adopted: Some(adopted),
            store,
            observer,
            tracer: Tracer::default(),
            name_of_series: name.clone(),
            counted: started.at,
            warnings: opened.warnings,
            events: Events::default(),
            readers,
            standing: Standing::default(),
            counts: Counts::default(),
            discovery_trouble,
            found: BTreeMap::new(),
            invitations: Invitations::default(),
            door: None,
            invited: invite,
            token_labels,
            provision: Provision::new(Credentials::load(), config.node.approval, started.at),
            joining: None,
            entering: None,
            outcomes,
            attempts: 0,
            member: None,
            next_chores: started.at,
            knew: started.at,
            told_status: String::new(),
            name,
            identity,
            config,
        };
        tracing::info!(
            node = %driver.identity.id(), name = driver.name, address = %driver.bound,
            executor = driver.executor.name(), reason = driver.executor_reason,
            socket = %driver.config.api.socket.display(), "weftd {}", env!("CARGO_PKG_VERSION")
        );
        match fabric {
            Some(fabric) => driver.restore(fabric, opened.rows, handover)?,
            None => driver.forget(opened.rows),
        }
        driver.open_door()?;
        Ok(driver)
    }

    /// Turns until somebody wants the agent to end. Units run on.
    ///
    /// # Errors
    /// When a part of the agent is gone without which it cannot work.
    pub async fn run(mut self) -> anyhow::Result<()> {
        // A service manager that is not there needs no word.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let why = loop {
            self.chores();
            let wake = self.sources.next(self.clock.deadline(self.deadline())).await;
            match wake {
                Wake::Stop(why) => break why,
                Wake::Gone(what) => {
                    anyhow::bail!("{what} is gone: the agent cannot work without it")
                }
                wake => self.handle(wake),
            }
            self.carry_out();
        };
        tracing::info!(why, "stopping; units run on");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.say_goodbye().await;
        self.close().await;
        Ok(())
    }

    fn handle(&mut self, wake: Wake) {
        let now = self.clock.now();
        match wake {
            Wake::Datagram(from) => {
                let bytes = self.sources.datagram();
                self.counts.datagrams_received += 1;
                self.counts.datagram_bytes_received += bytes.len() as u64;
                if let Some(member) = &mut self.member {
                    member.datagram(now, bytes, from);
                }
            }
            Wake::Call(call) => self.call(now, call),
            Wake::Incoming(incoming) => self.incoming(now, incoming),
            Wake::Unit(alloc, run, event) => {
                tracing::debug!(%alloc, run, ?event, "unit");
                self.checks.event(&alloc, run, &event);
                if let UnitEvent::PortTaken { port, by } = &event {
                    self.port_taken(*port, by);
                }
                self.input(Input::Unit { alloc, run, event });
            }
            Wake::Checked(alloc, run, outcome) => {
                self.input(Input::Checked { alloc, run, outcome });
            }
            Wake::Written(progress) => self.written(progress),
            Wake::Joined(outcome) => self.join_ended(*outcome),
            Wake::Invited(invited) => self.invited(*invited),
            Wake::Discovered(event) => self.discovered(event),
            Wake::Links => self.look_at_addresses(),
            Wake::Plugged => self.plugged.heard(now.at),
            Wake::Looked(topology) => self.looked(*topology),
            Wake::Listening(wanted, used) => self.others_listen(&wanted, used),
            Wake::Read => {
                if let Some(member) = &self.member {
                    self.readers.go_on(&member.node);
                }
            }
            Wake::Deadline => {
                if let Some(member) = &mut self.member
                    && member.node.next_deadline().is_some_and(|deadline| deadline <= now.at)
                {
                    member.node.handle(now, Input::Tick);
                }
            }
            Wake::Watchdog => {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            Wake::Stop(_) | Wake::Gone(_) => {}
        }
    }

    /// Hands something to the core, if there is one.
    fn input(&mut self, input: Input) {
        let now = self.clock.now();
        if let Some(member) = &mut self.member {
            member.node.handle(now, input);
        }
    }

    fn carry_out(&mut self) {
        let now = self.clock.now();
        let Some(member) = &mut self.member else { return };
        self.observer.correct(member.node.fabric_time(now), now.wall);
        let trust_changed = member.carry_out(
            now,
            &mut Hands {
                gossip: &self.sources.gossip,
                bound: self.bound,
                local: &self.local,
                own: &self.own,
                store: &self.store,
                units: &self.units,
                checks: &mut self.checks,
                events: &mut self.events,
                counts: &mut self.counts,
            },
        );
        if trust_changed {
            // Whoever was found before the roster knew it is of interest now.
            for found in self.all_found() {
                self.found(&found);
            }
        }
    }

    fn deadline(&self) -> Instant {
        let core = self.member.as_ref().and_then(|member| member.node.next_deadline());
        core.map_or(self.next_chores, |core| core.min(self.next_chores))
    }

    /// What the agent does for itself once a second.
    fn chores(&mut self) {
        let now = self.clock.now();
        if now.at < self.next_chores {
            return;
        }
        self.next_chores = now.at + CHORES;
        if let Some(member) = &mut self.member {
            member.expire(now);
            if now.at.since(self.knew) >= KNOW_PERIOD {
                self.knew = now.at;
                member.know_members();
            }
            let name = member.node.name_of(&self.identity.id());
            if name != self.name_of_series {
                self.observer.rename(&name);
                self.name_of_series = name;
            }
        }
        if now.at.since(self.counted) >= ask::COUNT_PERIOD {
            self.counted = now.at;
            let counters = self.counters();
            self.observer.count(Source::Loop, counters);
        }
        self.look_after_twins();
        self.try_to_enter();
        self.provision();
        self.notice_hardware(now.at);
        self.notice_listeners(now.at);
        self.notice_peers();
        self.tell_status();
    }

    fn incoming(&mut self, now: Now, incoming: Incoming) {
        match incoming {
            Incoming::Message { from, address, message } => {
                let Some(member) = &mut self.member else { return };
                if member.twins.is_superseded() {
                    return;
                }
                member.heard(now, from, address);
                member.node.handle(now, Input::Message { from, message });
            }
            Incoming::Enrol { node, name, level, token, secret_hash, answer } => {
                let enrol = Request::Enrol { node, name, level, token, secret_hash };
                self.enrol(now, enrol, answer);
            }
            Incoming::Superseded { by, address, silent } => self.superseded(by, address, silent),
            Incoming::Twin { node, address } => self.saw_twin(node, address),
            Incoming::Copy { start, address } => self.saw_copy(start, address),
            Incoming::Request { request, answer, .. } if request.path == twins::PATH => {
                let _ = answer.send(self.told_of_copy(&request.body));
            }
            Incoming::Request { from, request, answer } => {
                self.peer_request(from, &request, answer);
            }
        }
    }

    fn written(&mut self, progress: Progress) {
        if let Some(member) = &mut self.member {
            member.written(&progress);
        }
        self.input(match progress {
            Progress::Persisted { through } => Input::Persisted { through },
            Progress::Failed { sequence, reason } => Input::PersistFailed { sequence, reason },
        });
        self.try_to_enter();
    }

    fn discovered(&mut self, event: discovery::Event) {
        match event {
            discovery::Event::Found(found) => {
                self.offer(&found);
                self.found(&found);
                let key = (found.source, found.name.clone());
                if self.found.len() < FOUND_MAX || self.found.contains_key(&key) {
                    let seen = Seen::new(found, self.found.get(&key), self.clock.now().wall);
                    self.found.insert(key, seen);
                }
            }
            discovery::Event::Lost(lost) => {
                self.found.remove(&(lost.source, lost.name));
            }
        }
    }

    fn all_found(&self) -> Vec<discovery::Found> {
        self.found.values().map(|seen| seen.found.clone()).collect()
    }

    /// Tells the core about a member that was found. Others are ignored there.
    fn found(&mut self, found: &discovery::Found) {
        let now = self.clock.now();
        let Some(member) = &mut self.member else { return };
        let Some(node) = found.node.as_deref().and_then(|text| text.parse::<NodeId>().ok()) else {
            return;
        };
        for address in &found.addresses {
            member.found(now, node, *address);
        }
    }

    fn announce_fabric(&mut self, fabric: &Fabric) {
        let hint = crate::token::fabric_hint(&fabric.key());
        if let Some(discovery) = &mut self.sources.discovery
            && let Err(error) = discovery.set_fabric(Some(hint))
        {
            tracing::error!(%error, "cannot announce the fabric");
        }
    }

    fn look_at_addresses(&mut self) {
        let local = Local::look(&self.heard_at, &self.local);
        if local == self.local {
            return;
        }
        let before = (self.advertised(), self.connected);
        self.told = addresses::worth_telling(std::mem::take(&mut self.told), &local);
        self.connected = addresses::is_connected(&self.config.listen, &local);
        self.local = local;
        self.own = self.local.own(&self.config.listen, self.bound.port());
        if let Some(member) = &mut self.member {
            member.answers_at(self.own.clone());
        }
        let after = (self.advertised(), self.connected);
        if before != after {
            let (addresses, connected) = &after;
            tracing::info!(?addresses, connected, "addresses changed");
            self.changed();
        }
    }

    /// Members were heard elsewhere than before: that says which of our addresses lead to them. And a route that comes back
    /// after its link and address is announced by nobody who is listened to here.
    fn notice_peers(&mut self) {
        let Some(member) = &self.member else { return };
        let heard_at: BTreeSet<SocketAddr> = member.peers().take(addresses::PEERS_MAX).collect();
        if heard_at != self.heard_at || !self.connected {
            self.heard_at = heard_at;
            self.look_at_addresses();
        }
    }

    fn changed(&mut self) {
        let input = Input::Changed {
            topology: Box::new(self.topology.clone()),
            addresses: self.advertised(),
            connected: self.connected,
        };
        self.input(input);
    }

    fn advertised(&self) -> Vec<SocketAddr> {
        addresses::advertised(&self.config.listen, self.bound.port(), &self.told)
    }

    /// Clears away what an interrupted `init` or `join` has left.
    fn forget(&mut self, rows: Vec<(Vec<u8>, Vec<u8>)>) {
        if rows.is_empty() {
            return;
        }
        tracing::info!(
            rows = rows.len(),
            "this node belongs to no fabric: old rows are cleared away"
        );
        self.store.persist(0, rows.into_iter().map(|(key, _)| (key, None)).collect());
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
            .map_err(|_| random_failed(&anyhow::anyhow!("the kernel gave no random numbers")))?;
        Ok(bytes)
    }

    async fn close(self) {
        if let Some(discovery) = self.sources.discovery {
            discovery.shutdown().await;
        }
        if let Some(member) = &self.member {
            member.transport.close().await;
        }
        // Waits for the disk: there is nothing left to do beside it.
        self.store.close();
        if let Err(error) = std::fs::remove_file(&self.config.api.socket) {
            tracing::debug!(%error, "the API's socket stays");
        }
    }
}

/// Where the answer to a call goes.
type CallAnswer = tokio::sync::oneshot::Sender<Result<Reply, Problem>>;

fn random_failed(error: &anyhow::Error) -> Problem {
    Problem::new(ProblemKind::Internal, "no random numbers", format!("{error:#}"))
}

/// What a node tells the others about itself.
fn describe(driver: &Driver, labels: BTreeMap<String, String>) -> NodeInfo {
    NodeInfo {
        name: driver.name.clone(),
        labels,
        topology: driver.topology.clone(),
        addresses: driver.advertised(),
        version: env!("CARGO_PKG_VERSION").into(),
        executor: driver.executor.name().into(),
        draining: false,
        impaired: None,
        started: driver.started.wall,
        witness: driver.config.node.witness,
        incarnation: 0,
        level: driver.config.node.level(),
        reached: 0,
        seen: None,
    }
}

fn start_discovery(
    config: &Config,
    name: &str,
    identity: &Identity,
    fabric: Option<&Fabric>,
    port: u16,
) -> (Option<Discovery>, Option<String>) {
    let settings = Settings {
        machine: name.to_owned(),
        node: identity.id().to_string(),
        fabric: fabric.map(|fabric| crate::token::fabric_hint(&fabric.key())),
        port,
        mdns: config.discovery.mdns,
        interfaces: Interfaces { only: config.discovery.interfaces.clone(), except: Vec::new() },
        domains: config.discovery.domains.clone(),
        seeds: config.discovery.seeds.clone(),
    };
    let error = match Discovery::start(settings.clone()) {
        Ok(discovery) => return (Some(discovery), None),
        Err(error) => error,
    };
    tracing::warn!(%error, "discovery does not work as configured");
    // Without multicast the other ways may still work.
    let rest = Discovery::start(Settings { mdns: false, ..settings });
    (rest.ok(), Some(error.to_string()))
}
