//! How a node comes to belong to a fabric: it founds one, is let into one, or was there before.
//!
//! The order on disk matters: first the table's first rows (roster and keyring), then the fabric's key,
//! which says that there is a fabric. An agent that dies in between starts without a fabric again, and
//! clears the rows away.

use fabric::api::{self, Problem, ProblemKind};
use fabric::id::NodeId;
use fabric::node::{Config as Core, Handover, Node, Origin};
use fabric::topology::NodeInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::handover::Keeper;
use super::member::Member;
use super::provision::Provision;
use super::{Driver, OUTCOMES_MAX};
use crate::api::Reply;
use crate::approval::{Door, Invited};
use crate::config::Config;
use crate::credentials::Credentials;
use crate::identity::{self, Fabric, Identity};
use crate::join::{Admission, JoinError, Newcomer, join};
use crate::quic::{Setup, Transport, listen};
use crate::seal::Seal;
use crate::token::Token;

/// How long a joiner waits for discovery to find a member.
const SEEK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a joiner that a member refused goes on to ask others that were found.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(2);
/// Batches of addresses that wait to be tried.
const BATCHES_MAX: usize = 64;
/// Invitations that wait for the loop, which takes one and refuses the others: as many as there can be visitors.
const INVITED_MAX: usize = 8;
/// Fabric's name unless the founder says otherwise.
const FABRIC_NAME: &str = "weft";
/// The note that keeps labels which came with a token.
pub(super) const LABELS_NOTE: &str = "labels";

type Answer = oneshot::Sender<Result<Reply, Problem>>;

/// How this node comes into a fabric, and how far it is.
///
/// Invariants: `streams` is there until a door or the transport has it, and a door only while the node is in no fabric. An
/// attempt to join (`joining`) is over before the node is `entering`. One attempt goes on at a time.
pub(super) struct Entrance {
    /// Goes to the transport when the node becomes a member.
    streams: Option<UdpSocket>,
    /// Where members invite this node, while it is in no fabric.
    door: Option<Door>,
    invited: mpsc::Sender<Invited>,
    /// Labels that came with the token.
    token_labels: BTreeMap<String, String>,
    pub(super) provision: Provision,
    pub(super) joining: Option<Joining>,
    pub(super) entering: Option<Entering>,
    outcomes: mpsc::Sender<JoinOutcome>,
    /// Attempts to join so far.
    attempts: u64,
}

impl Entrance {
    /// In no fabric yet. Ends of attempts to join come out of the first channel, invitations out of the second.
    pub(super) fn start(
        config: &Config,
        token_labels: BTreeMap<String, String>,
        streams: UdpSocket,
        now: fabric::clock::Instant,
    ) -> (Self, mpsc::Receiver<JoinOutcome>, mpsc::Receiver<Invited>) {
        let (outcomes, joined) = mpsc::channel(OUTCOMES_MAX);
        let (invite, invited) = mpsc::channel(INVITED_MAX);
        let entrance = Self {
            streams: Some(streams),
            door: None,
            invited: invite,
            token_labels,
            provision: Provision::new(Credentials::load(), config.node.approval, now),
            joining: None,
            entering: None,
            outcomes,
            attempts: 0,
        };
        (entrance, joined, invited)
    }
}

/// Who wants this node to join.
pub(super) enum Caller {
    /// A person or a program, who gets the answer.
    Api(Answer),
    /// The agent itself, which has a credential; see [`super::provision`].
    Credential,
    /// A member that has invited this node; see [`crate::approval`].
    Invitation(oneshot::Sender<Result<(), String>>),
}

/// The end of an attempt to join.
#[derive(Debug)]
pub(super) struct JoinOutcome {
    attempt: u64,
    result: Result<Admission, JoinError>,
}

/// An attempt to join that is under way.
pub(super) struct Joining {
    caller: Caller,
    token: Token,
    /// Addresses that discovery finds; `None` when the address was given.
    candidates: Option<mpsc::Sender<Vec<SocketAddr>>>,
    /// Counts attempts: one that was given up may have ended all the same.
    attempt: u64,
    task: JoinHandle<()>,
}

/// A node that is a member in memory and not yet on disk.
pub(super) struct Entering {
    /// The write that must be on disk first.
    through: u64,
    joined: api::Joined,
    /// Goes once there was an answer, good or bad.
    caller: Option<Caller>,
}

impl Caller {
    /// What came of it, when it is on disk or has failed for good.
    fn tell(self, outcome: Result<&api::Joined, Problem>) {
        match self {
            // Nobody waits for it any more: so be it.
            Caller::Api(answer) => drop(answer.send(outcome.and_then(Reply::json))),
            Caller::Invitation(answer) => {
                let outcome = outcome.map(drop).map_err(|problem| problem.to_string());
                drop(answer.send(outcome));
            }
            // A success is said in the log for all.
            Caller::Credential => {
                if let Err(problem) = outcome {
                    tracing::error!(%problem, "cannot enter the fabric that let this node in");
                }
            }
        }
    }
}

impl Driver {
    /// Founds a fabric. The answer comes when it is on disk.
    pub(super) fn init(&mut self, init: &api::Init, answer: Answer) {
        let founded = self.may_enter().and_then(|()| {
            let fabric =
                Fabric::found(init.name.as_deref().unwrap_or(FABRIC_NAME)).map_err(internal)?;
            let gossip_key = self.random()?;
            self.enter(fabric, Origin::Founded { gossip_key })
        });
        match founded {
            Ok(()) => self.entering(None, Caller::Api(answer)),
            Err(problem) => drop(answer.send(Err(problem))),
        }
    }

    /// Starts to join. The answer comes when a member let us in and that is on disk.
    pub(super) fn join(&mut self, wanted: &api::Join, answer: Answer) {
        let token = self.may_enter().and_then(|()| {
            wanted.token.parse::<Token>().map_err(|error| {
                Problem::new(ProblemKind::Invalid, "not a token", error.to_string())
            })
        });
        let token = match token {
            Ok(token) => token,
            Err(problem) => return drop(answer.send(Err(problem))),
        };
        let given = wanted.address.map(|address| self.addresses.elsewhere(&[address]));
        if let (Some(address), Some([])) = (wanted.address, given.as_deref()) {
            return drop(answer.send(Err(Problem::new(
                ProblemKind::Invalid,
                "no way to a member",
                format!(
                    "{address} leads to this machine itself, or is of a link and no link is up: name an address of a member"
                ),
            ))));
        }
        self.start_to_join(token, given, Caller::Api(answer));
    }

    /// Tries the token that was given, when it is time.
    pub(super) fn provision(&mut self) {
        if self.member.is_some() || self.entrance.joining.is_some() {
            return;
        }
        let now = self.clock.now().at;
        if let Some(token) = self.entrance.provision.due(now).cloned() {
            self.start_to_join(token, None, Caller::Credential);
        }
    }

    /// Starts to join, with members at the addresses that are given or that discovery finds. Nothing else may be
    /// under way.
    pub(super) fn start_to_join(
        &mut self,
        token: Token,
        given: Option<Vec<SocketAddr>>,
        caller: Caller,
    ) {
        let (candidates, receiver) = mpsc::channel(BATCHES_MAX);
        let candidates = given.is_none().then_some(candidates);
        let (identity, name) = (self.identity.clone(), self.name.clone());
        let asked = Attempt {
            identity,
            token: token.clone(),
            name,
            level: self.config.node.level(),
            given,
        };
        self.entrance.attempts += 1;
        let (attempt, outcomes) = (self.entrance.attempts, self.entrance.outcomes.clone());
        let task = tokio::spawn(async move {
            let result = asked.run(receiver).await;
            // Nobody listens: the agent ends.
            let _ = outcomes.send(JoinOutcome { attempt, result }).await;
        });
        self.entrance.joining = Some(Joining { caller, token, candidates, attempt, task });
        for found in self.sightings.all() {
            self.offer(&found);
        }
    }

    /// Tells an attempt to join about a node that was found.
    pub(super) fn offer(&mut self, found: &discovery::Found) {
        // A seed does not say whose it is: it is asked, and has to prove it.
        let may_be_of = |token: &Token| match &found.fabric {
            Some(hint) => *hint == token.fabric_hint(),
            None => found.node.is_none(),
        };
        if self.entrance.provision.credentials.token.as_ref().is_some_and(may_be_of) {
            self.entrance.provision.found_somebody(self.clock.now().at);
        }
        let Some(Joining { token, candidates: Some(candidates), .. }) = &self.entrance.joining
        else {
            return;
        };
        if may_be_of(token) {
            // A list of seeds may name this node. When full there is more than enough to try.
            let _ = candidates.try_send(self.addresses.elsewhere(&found.addresses));
        }
    }

    /// An attempt to join is over.
    pub(super) fn join_ended(&mut self, outcome: JoinOutcome) {
        let JoinOutcome { attempt, result } = outcome;
        let Some(joining) = self.entrance.joining.take_if(|joining| joining.attempt == attempt)
        else {
            return;
        };
        let Joining { caller, token, .. } = joining;
        let admission = match result {
            Ok(admission) => admission,
            Err(error) => return self.not_let_in(&token, &error, caller),
        };
        let Admission { fabric, entries, labels, by, address } = admission;
        self.entrance.token_labels = labels;
        match serde_json::to_vec(&self.entrance.token_labels) {
            Ok(note) => self.store.set_note(LABELS_NOTE, note),
            Err(error) => tracing::error!(%error, "labels have no JSON form"),
        }
        match self.enter(fabric, Origin::Joined { entries }) {
            Ok(()) => {
                let now = self.clock.now();
                if let Some(member) = &mut self.member {
                    member.found(now, by, address);
                }
                self.entering(Some(by), caller);
            }
            Err(problem) => caller.tell(Err(problem)),
        }
    }

    fn not_let_in(&mut self, token: &Token, error: &JoinError, caller: Caller) {
        if let Caller::Credential = caller {
            self.entrance.provision.failed(self.clock.now().at, error);
        } else {
            tracing::warn!(token = %token.id().0, %error, "not let in");
            caller.tell(Err(refused(error)));
        }
    }

    /// Takes up the membership of an earlier start.
    pub(super) fn restore(
        &mut self,
        fabric: Fabric,
        rows: Vec<(Vec<u8>, Vec<u8>)>,
        handover: Option<Handover>,
    ) -> Result<(), Problem> {
        self.enter(fabric, Origin::Restored { rows, handover })
    }

    /// Whether somebody who asks for it may have this node enter a fabric. An attempt of the agent's own is given
    /// up for that.
    pub(super) fn may_enter(&mut self) -> Result<(), Problem> {
        self.entrance.joining.take_if(|joining| {
            let own = matches!(joining.caller, Caller::Credential);
            if own {
                joining.task.abort();
            }
            own
        });
        let conflict =
            |title: &str, detail: &str| Err(Problem::new(ProblemKind::Conflict, title, detail));
        if self.entrance.joining.is_some() {
            return conflict("this node is joining already", "wait until that has ended");
        }
        if let Some(member) = &self.member {
            return Err(belongs_already(&member.node));
        }
        Ok(())
    }

    /// Starts the core and the streams.
    fn enter(&mut self, fabric: Fabric, origin: Origin) -> Result<(), Problem> {
        let fabric = Arc::new(fabric);
        let config = Core {
            id: self.identity.id(),
            info: self.info(),
            fabric: fabric.key(),
            fabric_name: fabric.name().to_owned(),
            signer: self.identity.clone(),
            generation: self.life.start.generation,
            seed: u64::from_le_bytes(self.random()?),
            canary: None,
            level: self.config.node.level(),
            bounds: fabric::table::Bounds::default(),
        };
        let node = Node::new(self.clock.now(), config, origin);
        let seal = Seal::new(self.identity.id(), self.life.start);
        let endpoint = match (self.entrance.door.take(), self.entrance.streams.take()) {
            (Some(door), _) => door.close(),
            (None, Some(socket)) => listen(&self.identity, socket).map_err(internal)?,
            (None, None) => {
                return Err(Problem::new(
                    ProblemKind::Unavailable,
                    "the socket for streams is gone",
                    "an earlier attempt failed half-way: restart the agent",
                ));
            }
        };
        let setup = Setup {
            identity: &self.identity,
            fabric: fabric.clone(),
            endpoint,
            roster: node.roster().into_iter().map(|(member, _)| member).collect(),
            start: self.life.start,
        };
        let (transport, incoming) = Transport::start(setup).map_err(internal)?;
        self.entrance.provision.belongs_to(&fabric);
        self.sources.incoming = Some(incoming);
        let keeper = self.keeper();
        let mut member = Member::new(node, keeper, fabric.clone(), seal, transport);
        member.answers_at(self.addresses.own().clone());
        self.member = Some(member);
        self.announce_fabric(&fabric);
        if let Some(units) = self.work.adopted.take() {
            self.input(fabric::io::Input::Units(units));
        }
        // Whether it has a link decides what it may believe of the others' silence.
        self.changed();
        self.carry_out();
        self.tell_core_of_all();
        Ok(())
    }

    /// Keeps what this start grants, for the next one.
    pub(super) fn keeper(&self) -> Keeper {
        let generation = identity::last_generation(&self.config.state);
        Keeper::new(&self.config.api.socket, self.identity.id(), generation)
    }

    fn entering(&mut self, by: Option<NodeId>, caller: Caller) {
        let Some(member) = &self.member else { return };
        let by = by.map(|by| member.node.name_of(&by));
        let joined = api::Joined {
            fabric: member.fabric.name().to_owned(),
            key: member.fabric.key(),
            node: self.identity.id(),
            by,
        };
        self.entrance.entering =
            Some(Entering { through: member.persisting, joined, caller: Some(caller) });
        self.try_to_enter();
    }

    /// Once the first rows are on disk, notes that this node belongs to the fabric.
    pub(super) fn try_to_enter(&mut self) {
        let (Some(entering), Some(member)) = (&mut self.entrance.entering, &self.member) else {
            return;
        };
        let trouble = match &member.disk {
            Some(reason) => Some(reason.clone()),
            None if member.persisted < entering.through => return,
            // Once in the life of a node, and before there is any work to look after: the loop may wait.
            None => member.fabric.save(&self.config.state).err().map(|error| format!("{error:#}")),
        };
        match trouble {
            None => {
                tracing::info!(
                    fabric = entering.joined.fabric,
                    key = entering.joined.key.short(),
                    by = entering.joined.by.as_deref().unwrap_or("itself"),
                    "joined"
                );
                if let Some(caller) = entering.caller.take() {
                    caller.tell(Ok(&entering.joined));
                }
                self.entrance.entering = None;
            }
            Some(reason) => {
                if let Some(caller) = entering.caller.take() {
                    caller.tell(Err(Problem::new(
                        ProblemKind::Unavailable,
                        "the disk refuses",
                        format!("{reason}; make room, and the node goes on by itself"),
                    )));
                }
            }
        }
    }

    /// What this node tells the others about itself.
    fn info(&self) -> NodeInfo {
        let mut labels: BTreeMap<String, String> = self.entrance.token_labels.clone();
        labels.extend(self.entrance.provision.credentials.labels.clone());
        labels.extend(self.config.node.labels.clone());
        NodeInfo {
            name: self.name.clone(),
            labels,
            topology: self.looks.topology.clone(),
            addresses: self.addresses.advertised(),
            version: env!("CARGO_PKG_VERSION").into(),
            executor: self.work.executor.name().into(),
            draining: false,
            impaired: None,
            started: self.life.began.wall,
            witness: self.config.node.witness,
            incarnation: 0,
            level: self.config.node.level(),
            reached: 0,
            seen: None,
        }
    }

    /// Listens for invitations, where the configuration says so and this node is in no fabric.
    pub(super) fn open_door(&mut self) -> anyhow::Result<()> {
        if self.member.is_none()
            && self.config.node.approval
            && let Some(socket) = self.entrance.streams.take()
        {
            let endpoint = listen(&self.identity, socket)?;
            self.entrance.door = Some(Door::open(endpoint, self.entrance.invited.clone()));
        }
        Ok(())
    }

    /// A member has invited this node: joins there.
    pub(super) fn invited(&mut self, invited: Invited) {
        let Invited { by, address, token, answer } = invited;
        let may = match &self.entrance.provision.credentials.token {
            Some(own) if !own.is_of_fabric_of(&token) => {
                Err("this node was given a token of another fabric".to_owned())
            }
            _ => self.may_enter().map_err(|problem| problem.title),
        };
        match may {
            Ok(()) => {
                tracing::info!(member = ?by, %address, token = %token.id().0, "invited");
                self.start_to_join(token, Some(vec![address]), Caller::Invitation(answer));
            }
            Err(reason) => drop(answer.send(Err(reason))),
        }
    }

    /// Clears away what an interrupted `init` or `join` has left.
    pub(super) fn forget(&mut self, rows: Vec<(Vec<u8>, Vec<u8>)>) {
        if rows.is_empty() {
            return;
        }
        tracing::info!(
            rows = rows.len(),
            "this node belongs to no fabric: old rows are cleared away"
        );
        self.store.persist(0, rows.into_iter().map(|(key, _)| (key, None)).collect());
    }
}

/// One attempt to join, beside the loop.
struct Attempt {
    identity: Arc<Identity>,
    token: Token,
    name: String,
    level: u8,
    given: Option<Vec<SocketAddr>>,
}

impl Attempt {
    async fn run(
        self,
        mut candidates: mpsc::Receiver<Vec<SocketAddr>>,
    ) -> Result<Admission, JoinError> {
        let Self { identity, token, name, level, given } = self;
        let newcomer = Newcomer { name: &name, level };
        if let Some(addresses) = given {
            return join(&identity, &token, newcomer, &addresses).await;
        }
        let mut until = Instant::now() + SEEK_TIMEOUT;
        let mut tried = BTreeSet::new();
        let mut last = JoinError::NobodyFound;
        while let Ok(Some(mut addresses)) = timeout_at(until, candidates.recv()).await {
            addresses.retain(|address| tried.insert(*address));
            if addresses.is_empty() {
                continue;
            }
            match join(&identity, &token, newcomer, &addresses).await {
                Ok(admission) => return Ok(admission),
                // A token that was made a moment ago may not have come to every member yet.
                Err(error @ JoinError::Refused { .. }) => {
                    until = until.min(Instant::now() + OTHERS_TIMEOUT);
                    last = error;
                }
                Err(_) if matches!(last, JoinError::Refused { .. }) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The answer to whoever asks a node to enter a fabric that has been in one.
fn belongs_already(node: &Node) -> Problem {
    let (title, detail) = match node.is_removed() {
        true => (
            "this node was removed from its fabric",
            "to use it again, stop the agent, empty its state directory, start it, and join with a new token".to_owned(),
        ),
        false => (
            "this node belongs to a fabric already",
            format!(
                "it belongs to {}; to move it, stop the agent, empty its state directory, and start it again",
                node.fabric_name()
            ),
        ),
    };
    Problem::new(ProblemKind::Conflict, title, detail)
}

fn internal(error: anyhow::Error) -> Problem {
    Problem::new(ProblemKind::Internal, "the agent cannot", format!("{error:#}"))
}

fn refused(error: &JoinError) -> Problem {
    let (kind, title) = match error {
        JoinError::NobodyFound => (ProblemKind::Unreachable, "nobody found"),
        JoinError::Unreachable(_) => (ProblemKind::Unreachable, "nobody reached"),
        JoinError::WrongFabric(_) => (ProblemKind::Forbidden, "another fabric"),
        JoinError::Refused { .. } => (ProblemKind::Forbidden, "refused"),
    };
    Problem::new(kind, title, error.to_string())
}
