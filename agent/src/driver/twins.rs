//! Two machines with one key: a copied card, a clone of a virtual machine, a restored backup.
//!
//! Everybody listens to one start under a key, the greatest ([`Start`]), and drops what others say. That alone would
//! leave the other machine believing that all the rest is dead. So it is told, by whoever knows: over a stream, in which it
//! has shown that it holds the key and that it lives. What a datagram says, which anybody may have kept for later, only has
//! us look: at an address where the other one was proved to be before.
//!
//! - *A third one* ([`Incoming::Twin`](crate::quic::Incoming::Twin)) says so aloud, and tells the one it listens to.
//! - *The one that is not listened to* ([`Twins::superseded`]) does not listen either, for what still comes is for the other.
//!   It places and starts nothing, and its units run on. It looks
//!   every few seconds whether the other is still there, and asks one member after the other when it was heard last. Once
//!   that is some time ago it goes on as a new start, later than all before, and is listened to again. So does a machine
//!   whose clock or whose backup has made it look older than it was itself.
//! - *The one that is listened to* goes on, and says that there is a copy.

use fabric::api::{Event, EventKind};
use fabric::clock::Instant;
use fabric::id::NodeId;
use fabric::io::Input;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Driver;
use super::handover::Keeper;
use crate::identity;
use crate::quic::{ApiRequest, ApiResponse};
use crate::seal::Start;

/// What one member asks of another to tell it of a copy; the body is where that is.
pub(super) const PATH: &str = "/twin";
/// Who was seen this long ago is gone.
const SEEN_MAX: Duration = Duration::from_secs(60);
/// Time between two looks whether a copy is still there.
const LOOK_PERIOD: Duration = Duration::from_secs(15);
/// Time between two questions about one whose datagrams are from an earlier start: a moment after its own restart
/// they are only late.
const QUESTION_PERIOD: Duration = Duration::from_secs(5);
/// Time between two looks of one that is not listened to.
const RETURN_PERIOD: Duration = Duration::from_secs(3);
/// The other one is gone when nobody has heard it for this long: longer than a restart of its agent takes.
const SILENCE: Duration = Duration::from_secs(12);

/// What an agent knows of keys that two machines use.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// Where members were proved to be before they were where they are now.
    former: BTreeMap<NodeId, SocketAddr>,
    questions: BTreeMap<NodeId, Instant>,
    /// Members that two machines claim to be: where the one is that is not listened to.
    seen: BTreeMap<NodeId, Seen>,
    /// Where another machine with our key was, that is not listened to.
    copy: Option<(SocketAddr, Instant)>,
    superseded: Option<Superseded>,
}

#[derive(Debug)]
struct Seen {
    address: SocketAddr,
    at: Instant,
    looked: Instant,
}

/// Another machine with our key is listened to.
#[derive(Debug)]
struct Superseded {
    by: Start,
    address: Option<SocketAddr>,
    since: Instant,
    /// When anybody heard it last, as far as we were told, and when we were told.
    heard: Option<(Instant, Instant)>,
    /// When it answered us.
    answered: Option<Instant>,
    looked: Instant,
}

impl Twins {
    /// A member was proved to be elsewhere than it is now.
    pub(super) fn moved(&mut self, node: NodeId, from: SocketAddr) {
        self.former.insert(node, from);
    }

    /// A member's datagram is from an earlier start: where to ask who is there, if that was not asked just now.
    pub(super) fn question(&mut self, now: Instant, node: NodeId) -> Option<SocketAddr> {
        let address = *self.former.get(&node)?;
        let asked = self.questions.get(&node);
        if asked.is_some_and(|asked| now.since(*asked) < QUESTION_PERIOD) {
            return None;
        }
        self.questions.insert(node, now);
        Some(address)
    }

    /// Another start of a member is listened to from now on: maybe the very one that was not.
    pub(super) fn started_anew(&mut self, node: &NodeId) {
        self.seen.remove(node);
        self.questions.remove(node);
    }

    /// A start of a member that is not listened to lives, and is there. True: that is news.
    pub(super) fn saw(&mut self, now: Instant, node: NodeId, address: SocketAddr) -> bool {
        self.former.insert(node, address);
        self.seen.insert(node, Seen { address, at: now, looked: now }).is_none()
    }

    /// Another machine has our key, and is not listened to. True: that is news.
    pub(super) fn has_copy(&mut self, now: Instant, address: SocketAddr) -> bool {
        self.copy.replace((address, now)).is_none()
    }

    /// Others listen to another start than to ours, which was silent for so long, if that was said. True: that is news.
    pub(super) fn superseded(
        &mut self,
        now: Instant,
        own: Start,
        by: Start,
        address: Option<SocketAddr>,
        silent: Option<Duration>,
    ) -> bool {
        if by <= own {
            return false;
        }
        let told = silent.map(|silent| (now - silent, now));
        let Some(superseded) = &mut self.superseded else {
            let (since, looked) = (now, now);
            self.superseded =
                Some(Superseded { by, address, since, heard: told, answered: None, looked });
            return true;
        };
        superseded.by = superseded.by.max(by);
        superseded.address = address.or(superseded.address);
        if let Some((heard, now)) = told {
            let before = superseded.heard.map_or(heard, |(before, _)| before);
            superseded.heard = Some((heard.max(before), now));
        }
        false
    }

    /// Whether others listen to another machine in our place.
    pub(super) fn is_superseded(&self) -> bool {
        self.superseded.is_some()
    }

    /// The one that is listened to in our place lives, and is there.
    pub(super) fn answered(&mut self, now: Instant, address: SocketAddr) {
        if let Some(superseded) = &mut self.superseded {
            (superseded.address, superseded.answered) = (Some(address), Some(now));
        }
    }

    /// Copies of members that are to be looked after now.
    pub(super) fn looks(&mut self, now: Instant) -> Vec<(NodeId, SocketAddr)> {
        self.seen.retain(|_, seen| now.since(seen.at) < SEEN_MAX);
        self.questions.retain(|_, asked| now.since(*asked) < QUESTION_PERIOD);
        self.copy = self.copy.filter(|(_, at)| now.since(*at) < SEEN_MAX);
        let due = self.seen.iter_mut().filter(|(_, seen)| now.since(seen.looked) >= LOOK_PERIOD);
        let looks = due.map(|(node, seen)| {
            seen.looked = now;
            (*node, seen.address)
        });
        looks.collect()
    }

    /// Whether it is time to look for the one that is listened to in our place, and where that may be.
    pub(super) fn looks_for_the_other(&mut self, now: Instant) -> Option<Option<SocketAddr>> {
        let superseded = self.superseded.as_mut()?;
        if now.since(superseded.looked) < RETURN_PERIOD {
            return None;
        }
        superseded.looked = now;
        Some(superseded.address)
    }

    /// The start that our next one has to be later than, when the other one is gone.
    pub(super) fn may_return(&self, now: Instant) -> Option<Start> {
        let Superseded { by, since, heard, answered, .. } = self.superseded.as_ref()?;
        let (heard, told) = (*heard)?;
        let long_ago = |at: Instant| now.since(at) >= SILENCE;
        let gone = long_ago(heard) && answered.is_none_or(long_ago) && long_ago(*since);
        (gone && !long_ago(told)).then_some(*by)
    }

    /// We are listened to again.
    pub(super) fn returned(&mut self) {
        self.superseded = None;
    }

    /// Forgets who is not a member any more.
    pub(super) fn trust(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.former.retain(|node, _| is_member(node));
        self.seen.retain(|node, _| is_member(node));
    }

    /// What is wrong, for people.
    pub(super) fn troubles(
        &self,
        name: impl Fn(&NodeId) -> String,
        place: impl Fn(&NodeId) -> Option<SocketAddr>,
    ) -> Vec<String> {
        let at = |address: Option<SocketAddr>| match address {
            Some(address) => format!("at {}", address.ip().to_canonical()),
            None => "elsewhere".to_owned(),
        };
        let mut troubles = Vec::new();
        if let Some(superseded) = &self.superseded {
            troubles.push(format!(
                "another machine ({}) uses the key of this node, and the others listen to that one: nothing is \
                 started here until it is gone",
                at(superseded.address)
            ));
        }
        if let Some((address, _)) = self.copy {
            troubles.push(format!(
                "two machines use the key of this node: this one and one {}, which the others do not listen to",
                at(Some(address))
            ));
        }
        troubles.extend(self.seen.iter().map(|(node, seen)| {
            let (here, there) = (at(place(node)), at(Some(seen.address)));
            format!("two machines use the key of {}: {here} and {there}", name(node))
        }));
        troubles
    }
}

impl Driver {
    /// A start of a member that is not listened to lives: says so, also to the one that is.
    pub(super) fn saw_twin(&mut self, node: NodeId, address: SocketAddr) {
        let now = self.clock.now();
        let Some(member) = &mut self.member else { return };
        // A machine whose clock or disk has gone back is one machine, at whichever of its addresses it is seen.
        if member.is_there(&node, address) || !member.node.is_member(&node) {
            return;
        }
        if member.twins.saw(now.at, node, address) {
            let name = member.node.name_of(&node);
            let here = member.place_of(&node);
            tracing::warn!(name, there = %address, ?here, "two machines use the key of one node");
            let message = match here {
                Some(here) => format!("two machines use its key: at {here} and at {address}"),
                None => format!("two machines use its key, one of them at {address}"),
            };
            let what = EventKind::Roster { subject: node, name, message };
            self.events.push(&Event { at: now.wall, node: self.identity.id(), what });
        }
        let (method, body) = ("POST".to_owned(), address.to_string().into_bytes());
        let request = ApiRequest { method, path: PATH.to_owned(), body };
        let passing = member.passing(node, self.addresses.links());
        tokio::spawn(async move {
            if let Err(error) = passing.request(request).await {
                tracing::debug!(?node, %error, "it could not be told of its copy");
            }
        });
    }

    /// A member tells us of a copy of this node.
    pub(super) fn told_of_copy(&mut self, body: &[u8]) -> ApiResponse {
        let address = std::str::from_utf8(body).ok().and_then(|text| text.parse().ok());
        if let Some(address) = address {
            self.has_copy(address);
        }
        ApiResponse::whole(200, "text/plain", "")
    }

    /// Another machine has our key: a later start than ours, or an earlier one.
    pub(super) fn saw_copy(&mut self, start: Start, address: SocketAddr) {
        if start < self.life.start {
            return self.has_copy(address);
        }
        self.superseded(start, Some(address), None);
        if let Some(member) = &mut self.member {
            member.twins.answered(self.clock.now().at, address);
        }
    }

    fn has_copy(&mut self, address: SocketAddr) {
        let now = self.clock.now();
        // What somebody else saw of us is no copy; the link in its words is his.
        if self.addresses.own().contains_on_any_link(address) {
            return;
        }
        let Some(member) = &mut self.member else { return };
        if member.twins.has_copy(now.at, address) {
            tracing::warn!(there = %address, "another machine uses this node's key");
        }
    }

    /// Others listen to another start under our key.
    pub(super) fn superseded(
        &mut self,
        by: Start,
        address: Option<SocketAddr>,
        silent: Option<Duration>,
    ) {
        let now = self.clock.now();
        let Some(member) = &mut self.member else { return };
        if member.twins.superseded(now.at, self.life.start, by, address, silent) {
            tracing::warn!(
                ?address, ?by, own = ?self.life.start,
                "the others listen to another machine with this node's key: nothing is started here until it is gone"
            );
            let name = member.node.name_of(&self.identity.id());
            let message = "another machine with its key is listened to in its place".to_owned();
            let what = EventKind::Roster { subject: self.identity.id(), name, message };
            self.events.push(&Event { at: now.wall, node: self.identity.id(), what });
            member.keeper.forget();
            member.node.handle(now, Input::Superseded);
        }
    }

    /// Once a second: whether copies are still there, and whether this node may speak again.
    pub(super) fn look_after_twins(&mut self) {
        let now = self.clock.now();
        let Some(member) = &mut self.member else { return };
        for (node, address) in member.twins.looks(now.at) {
            member.transport.challenge(node, address);
        }
        if let Some(other) = member.twins.looks_for_the_other(now.at) {
            let own = self.identity.id();
            // Whoever is at our own address is this agent.
            let elsewhere = |it: &SocketAddr| !self.addresses.own().contains(*it);
            if let Some(address) = other.filter(elsewhere) {
                member.transport.challenge(own, address);
            }
            member.ask_whom_they_hear(self.addresses.links());
        }
        if let Some(other) = member.twins.may_return(now.at) {
            let own = self.identity.id();
            let wall = now.wall.0.max(other.generation.saturating_add(1));
            let generation = identity::next_generation(&self.config.state, wall);
            match Start::new(generation) {
                Ok(start) => {
                    tracing::info!(
                        ?other,
                        ?start,
                        "the other machine is gone: this node speaks again"
                    );
                    self.life.start = start;
                    member.keeper = Keeper::new(&self.config.api.socket, own, Some(generation));
                    member.renew(now, start);
                }
                Err(error) => tracing::error!(%error, "cannot speak again"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
