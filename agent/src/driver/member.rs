//! A node that belongs to a fabric: the core, and the carrying out of what the core decides.

use fabric::api::{Problem, ProblemKind};
use fabric::clock::{Instant, Now};
use fabric::id::NodeId;
use fabric::io::{Answer, Input, Output, Request, RequestId};
use fabric::node::Node;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use super::addresses::{LinkAddresses, routes};
use super::checks::Checks;
use super::handover::Keeper;
use super::journal;
use super::twins::Twins;
use super::units::UnitCommand;
use crate::api::{self, Found, Peers, Reply};
use crate::approval::Invitations;
use crate::events::Events;
use crate::identity::Fabric;
use crate::observe::wire;
use crate::quic::{
    ApiRequest, ApiResponse, Enrolled, Own, RequestError, TARGETS_MAX, Transport, for_socket,
};
use crate::seal::{Refusal, Seal, Start};
use crate::store::{Progress, Writer};

/// Requests that may wait for the core at a time.
const PENDING_MAX: usize = 1024;
/// The core answers sooner than that, even when nobody holds what was submitted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that was heard from an address this short a time ago is still there.
const LEARNED_FRESH: Duration = Duration::from_secs(5);
/// Addresses that a datagram goes to when its receiver was never heard.
const UNHEARD_TARGETS_MAX: usize = 3;
/// What comes before the key of the node that is meant, and then the path that is asked of it.
pub(super) const PASS_ON: &str = "/v1/pass-on/";
/// The status of an answer that comes from whoever should have passed the request on, and could not.
pub(super) const NOT_PASSED_ON: u16 = 504;
/// Members that have moved are known to the stream port at their new addresses within this.
const KNOW_PERIOD: Duration = Duration::from_secs(5);
/// Members that are asked to pass a request on, one after the other.
const OTHERS_MAX: usize = 2;

/// Where a request's answer goes.
#[derive(Debug)]
pub(super) enum Asker {
    /// A caller of the API, who gets the core's answer, and what the log says once that is good.
    Caller(oneshot::Sender<Result<Reply, Problem>>, Option<String>),
    /// A caller of the API, who gets this once the core agrees.
    Promised(oneshot::Sender<Result<Reply, Problem>>, Result<Reply, Problem>),
    /// A stranger with a token.
    Newcomer(oneshot::Sender<Result<Enrolled, String>>),
    /// The agent itself, which does not depend on it.
    Nobody,
}

impl Asker {
    fn tell(self, answer: Answer) {
        // Whoever went away in the meantime does not want the answer any more.
        match (self, answer) {
            (Asker::Caller(asker, wish), answer) => {
                if let Some(wish) = wish.filter(|_| !matches!(answer, Answer::Refused(_))) {
                    tracing::info!("{wish}");
                }
                let _ = asker.send(reply(answer));
            }
            (Asker::Promised(asker, promised), Answer::Done) => {
                let _ = asker.send(promised);
            }
            (Asker::Promised(asker, _), answer) => {
                let _ = asker.send(reply(answer));
            }
            (Asker::Nobody, Answer::Refused(problem)) => {
                tracing::warn!(%problem, "the core refused the agent");
            }
            (Asker::Nobody, _) => {}
            (Asker::Newcomer(asker), Answer::Enrolled { labels, entries }) => {
                let _ = asker.send(Ok(Enrolled { entries, labels }));
            }
            (Asker::Newcomer(asker), Answer::Refused(problem)) => {
                let _ = asker.send(Err(problem.to_string()));
            }
            (Asker::Newcomer(asker), other) => {
                tracing::error!(?other, "the core answered an enrolment with something else");
                let _ = asker.send(Err("this member made a mistake: ask another".into()));
            }
        }
    }
}

/// What the loop lends for carrying out outputs.
pub(super) struct Hands<'a> {
    pub(super) gossip: &'a UdpSocket,
    /// Where the gossip socket is bound.
    pub(super) bound: SocketAddr,
    pub(super) links: &'a LinkAddresses,
    /// What this agent answers at.
    pub(super) own: &'a Own,
    pub(super) store: &'a Writer,
    pub(super) units: &'a mpsc::Sender<UnitCommand>,
    pub(super) checks: &'a mut Checks,
    pub(super) events: &'a mut Events,
    pub(super) counts: &'a mut Counts,
}

/// What the loop counts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) datagrams_sent: u64,
    pub(super) datagram_bytes_sent: u64,
    pub(super) datagrams_unsent: u64,
    pub(super) datagrams_received: u64,
    pub(super) datagram_bytes_received: u64,
    pub(super) calls: u64,
    pub(super) unit_commands_dropped: u64,
}

/// The node and its fabric.
pub(super) struct Member {
    pub(super) node: Node,
    /// Keeps for the next agent what this one grants.
    pub(super) keeper: Keeper,
    pub(super) fabric: Arc<Fabric>,
    pub(super) seal: Seal,
    pub(super) twins: Twins,
    /// How many members were asked whom they hear under our key.
    asked: usize,
    pub(super) transport: Transport,
    /// Where each peer is known to be, and when it was heard from there. Such an address was proved by a
    /// stream, or is one that the peer itself advertises: whoever copies datagrams has neither.
    learned: BTreeMap<NodeId, (SocketAddr, Instant)>,
    /// What this agent answers at: nobody else is there.
    own: Own,
    pending: BTreeMap<RequestId, (Instant, Asker)>,
    requests: RequestId,
    /// The last write that the core asked for.
    pub(super) persisting: u64,
    /// Everything up to this write is on disk.
    pub(super) persisted: u64,
    /// Answers that wait until this write is on disk: what was said to be done outlives a crash.
    held: VecDeque<(u64, Asker, Answer)>,
    /// Why the disk refused the last write, if it did.
    pub(super) disk: Option<String>,
    /// Of nodes that this one lets in.
    pub(super) invitations: Invitations,
    /// When the streams last learned where members are.
    knew: Instant,
}

impl Member {
    pub(super) fn new(
        node: Node,
        keeper: Keeper,
        fabric: Arc<Fabric>,
        seal: Seal,
        transport: Transport,
    ) -> Self {
        let mut member = Self {
            node,
            keeper,
            fabric,
            seal,
            twins: Twins::default(),
            asked: 0,
            transport,
            learned: BTreeMap::new(),
            own: Own::default(),
            pending: BTreeMap::new(),
            requests: 0,
            persisting: 0,
            persisted: 0,
            held: VecDeque::new(),
            disk: None,
            invitations: Invitations::default(),
            knew: Instant::default(),
        };
        member.trust();
        member
    }

    /// Opens a datagram and hands it in. What is not from a member is counted by the seal, and dropped.
    pub(super) fn datagram(&mut self, now: Now, bytes: &[u8], from: SocketAddr) {
        let node = &self.node;
        match self.seal.open(bytes, |sender| node.is_member(sender)) {
            // What comes now is for the other machine with our key.
            Ok(_) if self.twins.is_superseded() => {}
            Ok((sender, payload)) => {
                if self.seal.has_started_anew(&sender) {
                    self.started_anew(now, sender, from);
                }
                self.came_from(now, sender, from);
                if let Some(start) = self.seal.start_of(&sender) {
                    self.transport.heard(sender, start, self.place_of(&sender));
                }
                self.node.handle(now, Input::Datagram { from: sender, payload });
            }
            Err(Refusal::Outdated(sender)) => self.question(now, sender),
            Err(refusal) => tracing::trace!(%from, %refusal, "a datagram was dropped"),
        }
    }

    /// Another start of a member speaks from now on: its agent was started anew, or it is another machine. Where
    /// the one before was proved to be, if that is elsewhere, somebody may still be, and is to know. Not after every
    /// restart: all members would ask at once.
    fn started_anew(&mut self, now: Now, node: NodeId, from: SocketAddr) {
        self.twins.started_anew(&node);
        if self.is_address_of(&node, from) {
            return;
        }
        if let Some((before, _)) = self.learned.get(&node).copied()
            && !is_same(before, from)
        {
            self.learned.remove(&node);
            self.twins.moved(node, before);
        }
        self.question(now, node);
    }

    /// Asks who is there where a member was before, if that was not asked just now.
    fn question(&mut self, now: Now, node: NodeId) {
        if let Some(address) = self.twins.question(now.at, node) {
            self.transport.challenge(node, address);
        }
    }

    /// Where a member is, as far as that is proved.
    pub(super) fn place_of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.learned.get(node).map(|(address, _)| *address)
    }

    /// Whether a member is at an address as far as we know, at whichever of its links.
    pub(super) fn is_there(&self, node: &NodeId, address: SocketAddr) -> bool {
        self.place_of(node).is_some_and(|here| is_same(here, address))
            || self.is_address_of(node, address)
    }

    /// Keys that two machines use, in words.
    pub(super) fn twin_troubles(&self) -> Vec<String> {
        self.twins.troubles(|node| self.node.name_of(node), |node| self.place_of(node))
    }

    /// Asks the next member whom it hears under our key.
    pub(super) fn ask_whom_they_hear(&mut self, links: &LinkAddresses) {
        let others = self.node.roster().into_iter().map(|(member, _)| member);
        let others: Vec<NodeId> = others.filter(|member| *member != self.node.id()).collect();
        if let Some(member) = others.get(self.asked % others.len().max(1)) {
            self.asked += 1;
            // The first may lead nowhere.
            for address in self.targets(member, None, links).into_iter().take(UNHEARD_TARGETS_MAX) {
                self.transport.challenge(*member, address);
            }
        }
    }

    /// Goes on as another start of this agent, which the others listen to.
    pub(super) fn renew(&mut self, now: Now, start: Start) {
        self.seal.renew(start);
        self.transport.renew(start);
        self.twins.returned();
        self.node.handle(now, Input::Renewed { generation: start.generation });
    }

    /// A member holds a stream from this address: the handshake went there and back.
    pub(super) fn heard(&mut self, now: Now, node: NodeId, address: SocketAddr) {
        let before = self.learned.insert(node, (address, now.at));
        if let Some((before, _)) = before.filter(|(before, _)| !is_same(*before, address)) {
            self.twins.moved(node, before);
        }
    }

    /// A member's datagram came from this address. Anybody may have brought it, so it says only which of
    /// the addresses that are the member's works.
    fn came_from(&mut self, now: Now, node: NodeId, address: SocketAddr) {
        if self.is_address_of(&node, address) {
            self.learned.insert(node, (address, now.at));
        }
    }

    /// Where members were heard, some of them.
    pub(super) fn peers(&self) -> impl Iterator<Item = SocketAddr> {
        self.learned.values().map(|(address, _)| *address)
    }

    /// This agent answers at these addresses now.
    pub(super) fn answers_at(&mut self, own: Own) {
        self.transport.answers_at(own.clone());
        self.own = own;
    }

    /// Whether an address is a member's: proved, or advertised by it.
    fn is_address_of(&self, node: &NodeId, address: SocketAddr) -> bool {
        let known = self.learned.get(node).is_some_and(|(learned, _)| *learned == address);
        known || self.node.addresses(node).iter().any(|told| is_same(*told, address))
    }

    /// A member may be there: discovery says so.
    pub(super) fn found(&mut self, now: Now, node: NodeId, address: SocketAddr) {
        if node != self.node.id() && self.node.is_member(&node) && !self.own.contains(address) {
            self.node.handle(now, Input::Found { node, address });
        }
    }

    /// Hands a request to the core. The asker gets exactly one answer.
    pub(super) fn ask(&mut self, now: Now, request: Request, asker: Asker) {
        if self.twins.is_superseded() {
            return asker.tell(Answer::Refused(Problem::new(
                ProblemKind::Unavailable,
                "another machine uses the key of this node",
                "the others listen to that one, and nothing of this one reaches them: ask another node; `weft status` here \
                 says more",
            )));
        }
        if self.pending.len() >= PENDING_MAX {
            asker.tell(Answer::Refused(Problem::new(
                ProblemKind::Unavailable,
                "too many requests at once",
                format!("{PENDING_MAX} wait already: try again in a moment"),
            )));
            return;
        }
        self.requests += 1;
        let id = self.requests;
        self.pending.insert(id, (now.at + ANSWER_TIMEOUT, asker));
        self.node.handle(now, Input::Request { id, request });
    }

    /// Answers requests that the core has left open for too long.
    fn expire(&mut self, now: Now) {
        let late = self.pending.extract_if(.., |_, (until, _)| *until <= now.at);
        for (id, (_, asker)) in late.collect::<Vec<_>>() {
            tracing::warn!(id, "the core left a request open");
            asker.tell(Answer::Refused(Problem::new(
                ProblemKind::Unavailable,
                "no answer in time",
                format!(
                    "after {} s; it may still happen, so look before asking again",
                    ANSWER_TIMEOUT.as_secs()
                ),
            )));
        }
    }

    /// Carries out everything that the core has decided. True: roster or keyring changed.
    pub(super) fn carry_out(&mut self, now: Now, hands: &mut Hands<'_>) -> bool {
        let mut trust_changed = false;
        let mut answers = Vec::new();
        self.keeper.keep(now, &mut self.node);
        while let Some(output) = self.node.poll() {
            match output {
                Output::Transmit { to, address, datagram } => {
                    self.transmit(now, to, address, &datagram.encode(), hands);
                }
                Output::Send { to, address, message } => {
                    let targets = self.targets(&to, address, hands.links);
                    self.transport.send(to, &targets, &message);
                }
                Output::Persist { sequence, changes } => {
                    self.persisting = sequence;
                    hands.store.persist(sequence, changes);
                }
                Output::Prepare(launch) => hands.unit(UnitCommand::Prepare(launch)),
                Output::Start(launch) => {
                    hands.checks.launched(&launch);
                    hands.unit(UnitCommand::Start(launch));
                }
                Output::Stop { alloc, run } => {
                    hands.checks.stopping(&alloc, run);
                    hands.unit(UnitCommand::Stop { alloc, run });
                }
                Output::Confine { alloc, run, cpus } => {
                    hands.unit(UnitCommand::Confine { alloc, run, cpus });
                }
                Output::Extend { alloc, run, until } => {
                    hands.unit(UnitCommand::Extend { alloc, run, until });
                }
                Output::Answer { id, answer } => match self.pending.remove(&id) {
                    Some((_, asker)) => answers.push((asker, answer)),
                    None => tracing::debug!(id, "an answer to nobody"),
                },
                Output::Event(event) => {
                    journal::tell(&event, &self.node.id());
                    hands.events.push(&event);
                }
                Output::TrustChanged => {
                    self.trust();
                    trust_changed = true;
                }
            }
        }
        for (asker, answer) in answers {
            // The core itself waits for the disks of those that hold a job.
            let changed = matches!(answer, Answer::Done | Answer::Enrolled { .. });
            if changed && self.persisted < self.persisting && self.disk.is_none() {
                self.held.push_back((self.persisting, asker, answer));
            } else {
                asker.tell(answer);
            }
        }
        trust_changed
    }

    /// The disk is this far, or refuses.
    pub(super) fn written(&mut self, progress: &Progress) {
        let trouble = match progress {
            Progress::Persisted { through } => {
                self.persisted = *through;
                None
            }
            Progress::Failed { reason, .. } => Some(reason.clone()),
        };
        match (&self.disk, &trouble) {
            (None, Some(reason)) => tracing::warn!(reason, "the disk refuses: no new work here"),
            (Some(_), None) => tracing::info!("the disk takes writes again"),
            _ => {}
        }
        let refused = trouble.is_some();
        self.disk = trouble;
        while self.held.front().is_some_and(|(through, ..)| refused || *through <= self.persisted) {
            if let Some((_, asker, answer)) = self.held.pop_front() {
                // Refused: it is done all the same, in memory and at the others, and the status warns.
                asker.tell(answer);
            }
        }
    }

    fn transmit(
        &mut self,
        now: Now,
        to: NodeId,
        hint: SocketAddr,
        payload: &[u8],
        hands: &mut Hands<'_>,
    ) {
        let sealed = match self.seal.seal(&to, payload) {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::warn!(?to, %error, "a datagram cannot be sealed");
                return;
            }
        };
        let mut sent = false;
        for target in self.gossip_targets(now, &to, hint) {
            sent |= send(hands, &sealed, target);
        }
        if !sent {
            hands.counts.datagrams_unsent += 1;
        }
    }

    /// Where a datagram goes; see [`targets_of`].
    fn gossip_targets(&self, now: Now, to: &NodeId, hint: SocketAddr) -> Vec<SocketAddr> {
        let learned = self.learned.get(to);
        let learned =
            learned.map(|(address, heard)| (*address, now.at.since(*heard) < LEARNED_FRESH));
        let targets = targets_of(learned, hint, &self.node.addresses(to));
        targets.into_iter().filter(|target| !self.own.contains(*target)).collect()
    }

    /// Where a message to `node` may be delivered, best first. Those that lead back here come last: whoever dials leaves
    /// them out, and says so when nothing else is known.
    fn targets(
        &self,
        node: &NodeId,
        hint: Option<SocketAddr>,
        links: &LinkAddresses,
    ) -> Vec<SocketAddr> {
        let told = self.node.addresses(node);
        let learned = self.learned.get(node).map(|(address, _)| *address);
        let mut targets: Vec<SocketAddr> = Vec::new();
        for address in learned.into_iter().chain(hint).chain(told) {
            for route in routes(address, links) {
                if !targets.contains(&route) {
                    targets.push(route);
                }
            }
        }
        // Stable: the best of the others stays first.
        targets.sort_by_key(|target| self.own.contains(*target));
        targets.truncate(TARGETS_MAX);
        targets
    }

    /// Ways to pass a request on to another member's API.
    pub(super) fn passing(&self, to: NodeId, links: &LinkAddresses) -> Passing {
        let targets = self.targets(&to, None, links);
        let others = self.node.others_to_ask(&to, OTHERS_MAX).into_iter();
        let others = others.map(|other| (other, self.targets(&other, None, links))).collect();
        let is_cut = self.node.cut_off_from().contains(&to);
        Passing { to, targets, is_cut, others, transport: self.transport.clone() }
    }

    /// Once a second: answers what was left open, and looks where members are now.
    pub(super) fn chores(&mut self, now: Now) {
        self.expire(now);
        if now.at.since(self.knew) >= KNOW_PERIOD {
            self.knew = now.at;
            self.know_members();
        }
    }

    /// Tells the streams where members are.
    fn know_members(&self) {
        let roster = self.node.roster();
        let learned = self.learned.values().map(|(address, _)| *address);
        let told = roster.iter().flat_map(|(member, _)| self.node.addresses(member));
        self.transport.know(told.chain(learned));
    }

    /// Takes over the roster and the keyring.
    fn trust(&mut self) {
        let node = &self.node;
        self.seal.trust(&node.keyring(), |sender| node.is_member(sender));
        let members = node.roster().into_iter().map(|(member, _)| member).collect();
        self.transport.trust(members, node.removals());
        self.learned.retain(|member, _| node.is_member(member));
        self.twins.trust(|member| node.is_member(member));
        self.know_members();
    }
}

/// A member that a request can be passed on to, without the loop.
pub(super) struct Passing {
    to: NodeId,
    targets: Vec<SocketAddr>,
    /// It is known that this node cannot reach it.
    is_cut: bool,
    /// Who may pass the request on, where this node cannot.
    others: Vec<(NodeId, Vec<SocketAddr>)>,
    transport: Transport,
}

impl Passing {
    /// Passes a request on to its API, if need be through another member, which passes it on once.
    pub(super) async fn request(
        mut self,
        request: ApiRequest,
    ) -> Result<ApiResponse, RequestError> {
        if !may_be_passed_on(&request) {
            return self.straight(request).await;
        }
        if self.is_cut {
            // A dial would take seconds to fail.
            if let Some(response) = self.around(&request).await {
                return Ok(response);
            }
            return self.straight(request).await;
        }
        match self.straight(request.clone()).await {
            Err(error @ RequestError::Unreachable { .. }) => {
                self.around(&request).await.ok_or(error)
            }
            outcome => outcome,
        }
    }

    /// The same, and never through another member.
    pub(super) async fn straight(&self, request: ApiRequest) -> Result<ApiResponse, RequestError> {
        self.transport.request(self.to, &self.targets, request).await
    }

    /// `None`: nobody else could pass it on.
    async fn around(&mut self, request: &ApiRequest) -> Option<ApiResponse> {
        for (other, targets) in std::mem::take(&mut self.others) {
            let path = format!("{PASS_ON}{}{}", self.to, request.path);
            let asked = ApiRequest { path, ..request.clone() };
            match self.transport.request(other, &targets, asked).await {
                Ok(response) if response.status != NOT_PASSED_ON => return Some(response),
                outcome => {
                    tracing::debug!(?other, to = ?self.to, ?outcome, "could not pass a request on");
                }
            }
        }
        None
    }
}

/// Questions may be: who answers does not look at who asks. Updates of images go straight.
fn may_be_passed_on(request: &ApiRequest) -> bool {
    let path = request.path.split_once('?').map_or(request.path.as_str(), |(path, _)| path);
    match api::find(&request.method, path) {
        Found::Route(route, _) => route.peers == Peers::Relayed,
        _ => (request.method.as_str(), path) == (wire::METHOD, wire::PATH),
    }
}

/// What an HTTP caller gets of the core's answer.
fn reply(answer: Answer) -> Result<Reply, Problem> {
    match answer {
        Answer::Submitted(submitted) => Reply::json(&submitted),
        Answer::Done => Ok(Reply::Done),
        Answer::Rebalanced(rebalance) => Reply::json(&rebalance),
        Answer::Refused(problem) => Err(problem),
        Answer::Enrolled { .. } => Err(Problem::new(
            ProblemKind::Internal,
            "an enrolment answered a caller of the API",
            "this is a bug of the agent",
        )),
    }
}

impl Hands<'_> {
    fn unit(&mut self, command: UnitCommand) {
        if let Err(error) = self.units.try_send(command) {
            self.counts.unit_commands_dropped += 1;
            tracing::warn!(%error, "the executor is behind: the core will ask again");
        }
    }
}

/// Where a datagram for a peer goes: to the address that it was heard from lately, and nowhere else, if the
/// peer advertises that. Where it does not (a translator lies between, or the peer has moved), or has been
/// silent for some time, what it says of itself is tried as well: nobody who has got between a peer and one
/// stream of it can keep gossip from it.
fn targets_of(
    learned: Option<(SocketAddr, bool)>,
    hint: SocketAddr,
    advertised: &[SocketAddr],
) -> Vec<SocketAddr> {
    let Some((address, fresh)) = learned else {
        let mut targets = vec![hint];
        for address in advertised {
            if !targets.contains(address) && targets.len() < UNHEARD_TARGETS_MAX {
                targets.push(*address);
            }
        }
        return targets;
    };
    let is_its_own = advertised.iter().chain([&hint]).any(|told| is_same(*told, address));
    if (fresh && is_its_own) || is_same(address, hint) {
        return vec![address];
    }
    vec![address, hint]
}

/// Whether two addresses mean the same. On another machine nobody knows our links, so what is advertised of a
/// link does not say which.
pub(super) fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip().to_canonical(), one.port()) == (other.ip().to_canonical(), other.port())
}

/// Sends to an address, on every link that it may mean. Datagrams may be lost, also here.
fn send(hands: &mut Hands<'_>, sealed: &[u8], address: SocketAddr) -> bool {
    let mut sent = false;
    for route in routes(address, hands.links) {
        if hands.own.contains(route) {
            continue;
        }
        match hands.gossip.try_send_to(sealed, for_socket(route, hands.bound)) {
            Ok(_) => {
                sent = true;
                hands.counts.datagrams_sent += 1;
                hands.counts.datagram_bytes_sent += sealed.len() as u64;
            }
            Err(error) => tracing::trace!(%route, %error, "a datagram was not sent"),
        }
    }
    sent
}

#[cfg(test)]
mod tests;
