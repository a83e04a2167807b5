//! The agent's loop: wait for something to happen, tell the core, carry out what the core decides.
//!
//! The driver owns everything; the tasks beside it (see `lib.rs`) hold only their end of a channel.
//! Without a fabric there is no core: then only `status`, `doctor`, `init` and `join` have an answer.

use anyhow::Context;
use fabric::api::{Problem, ProblemKind};
use fabric::clock::Instant;
use fabric::io::{Input, UnitEvent};
use fabric::node::disk_on_disk;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

use crate::api::Reply;
use crate::clock::Clock;
use crate::config::Config;
use crate::events::Events;
use crate::identity::Identity;
use crate::quic::Sockets;
use crate::store::{Progress, Writer};
use addresses::Addresses;
use enter::Entrance;
use looks::{DiskBefore, Looks};
use measuring::Measuring;
use member::{Hands, Member};
use readers::Readers;
use sightings::Sightings;
use sources::{Channels, Sources, Wake};
use state::{Life, State};
use units::{Work, WorkFound};

mod about;
mod addresses;
mod ask;
mod calls;
mod checks;
mod elsewhere;
mod enter;
pub mod farewell;
mod handover;
mod journal;
mod leave;
mod let_in;
mod listening;
mod logs;
mod looks;
mod measuring;
mod member;
mod parts;
mod peers;
mod provision;
mod readers;
mod services;
mod sightings;
mod sources;
mod standing;
mod state;
mod traces;
mod twins;
mod units;
mod updates;

/// Attempts to join, and looks at the machine, that are over and wait for the loop: there is one of each at a time.
const OUTCOMES_MAX: usize = 1;
/// Time between two rounds of the agent's own chores.
const CHORES: Duration = Duration::from_secs(1);

/// The agent: what it is from its start to its end, and groups of what changes together, each in its own file.
///
/// Invariants: without a fabric there is no `member`, and once there is one it stays. The loop alone changes anything of this.
pub struct Driver {
    clock: Clock,
    config: Config,
    identity: Arc<Identity>,
    name: String,
    life: Life,
    sources: Sources,
    addresses: Addresses,
    looks: Looks,
    work: Work,
    store: Writer,
    measuring: Measuring,
    events: Events,
    readers: Readers,
    sightings: Sightings,
    entrance: Entrance,
    member: Option<Member>,
    next_chores: Instant,
}

impl Driver {
    /// Opens everything: state directory, sockets, executor, discovery and the API.
    ///
    /// # Errors
    /// When the agent cannot work at all: the state directory, a socket or the executor fails.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let (clock, name) = (Clock::start(), config.name());
        let now = clock.now();
        let State { identity, life, fabric, rows, handover, labels, store, written } =
            State::open(&config, now)?;
        let sockets = Sockets::bind(config.gossip_address())?;
        let gossip = UdpSocket::from_std(sockets.gossip).context("the gossip socket")?;
        let bound = gossip.local_addr()?;
        let calls = calls::listen(&config).await?;
        let (work, found) = Work::start(&config, clock).await?;
        let WorkFound { folder, listeners, running, events: units, checked } = found;
        let measuring = Measuring::start(&config, &name, folder, &work, now.at)?;
        let port = sockets.address.port();
        let (sightings, discovery) =
            Sightings::start(&config, &name, &identity, fabric.as_ref(), port);
        let (entrance, joined, invited) = Entrance::start(&config, labels, sockets.streams, now.at);
        let (readers, read) = Readers::new();
        let (pools, claimed) = disk_on_disk(&rows, &identity.id());
        let disk = DiskBefore { pools, claimed };
        let (looks, looked, listening) =
            Looks::start(&config, &work.executor, &running, listeners, disk, now.at).await?;
        let channels =
            Channels { calls, units, checked, written, joined, invited, looked, listening, read };
        let mut driver = Self {
            clock,
            identity,
            name,
            life,
            sources: Sources::new(gossip, channels, discovery)?,
            addresses: Addresses::start(config.listen.clone(), bound),
            looks,
            work,
            store,
            measuring,
            events: Events::default(),
            readers,
            sightings,
            entrance,
            member: None,
            next_chores: now.at,
            config,
        };
        tracing::info!(
            node = %driver.identity.id(), name = driver.name, address = %bound,
            executor = driver.work.executor.name(), reason = driver.work.reason,
            socket = %driver.config.api.socket.display(), "weftd {}", env!("CARGO_PKG_VERSION")
        );
        match fabric {
            Some(fabric) => driver.restore(fabric, rows, handover)?,
            None => driver.forget(rows),
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
                self.measuring.counts.datagrams_received += 1;
                self.measuring.counts.datagram_bytes_received += bytes.len() as u64;
                if let Some(member) = &mut self.member {
                    member.datagram(now, bytes, from);
                }
            }
            Wake::Call(call) => self.call(now, call),
            Wake::Incoming(incoming) => self.incoming(now, incoming),
            Wake::Unit(alloc, run, event) => {
                tracing::debug!(%alloc, run, ?event, "unit");
                self.work.checks.event(&alloc, run, &event);
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
            Wake::Plugged => self.looks.plugged.heard(now.at),
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
        self.measuring.observer.correct(member.node.fabric_time(now), now.wall);
        let trust_changed = member.carry_out(
            now,
            &mut Hands {
                gossip: &self.sources.gossip,
                bound: self.addresses.bound(),
                links: self.addresses.links(),
                own: self.addresses.own(),
                store: &self.store,
                units: &self.work.commands,
                checks: &mut self.work.checks,
                events: &mut self.events,
                counts: &mut self.measuring.counts,
            },
        );
        if trust_changed {
            // Whoever was found before the roster knew it is of interest now.
            self.tell_core_of_all();
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
            member.chores(now);
        }
        self.measure(now.at);
        self.look_after_twins();
        self.try_to_enter();
        self.provision();
        self.notice_hardware(now.at);
        self.notice_listeners(now.at);
        self.notice_peers();
        self.tell_status();
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

    fn changed(&mut self) {
        let input = Input::Changed {
            topology: Box::new(self.looks.topology.clone()),
            addresses: self.addresses.advertised(),
            connected: self.addresses.is_connected(),
        };
        self.input(input);
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
