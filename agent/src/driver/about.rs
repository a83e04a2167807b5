//! What callers get to know about this agent itself: its status, and what a doctor finds.

use fabric::api::{self, Problem, ProblemKind};
use fabric::clock::Now;
use fabric::node::{Node, Waits};
use serde::Serialize;

use super::provision::Entry;
use super::{CallAnswer, Driver};
use crate::api::Reply;
use crate::doctor;
use crate::identity;
use crate::observe::Unanswered;

/// This node and its fabric at a glance.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    #[serde(flatten)]
    status: api::Status,
    /// For people to compare.
    fingerprint: String,
    /// Whether the machine has an address that others may reach.
    network: bool,
    /// How it means to get into a fabric, while it is in none.
    entry: Option<Entry>,
}

/// What a node says that was locked out.
const REMOVED: &str = "this node was removed from the fabric and has ended its work: to use it again, stop the agent, empty its \
                       state directory, start it, and join with a new token";

/// What an agent says that is older than its fabric.
const TOO_OLD: &str = "this agent is too old for its fabric and takes no part in it; what runs here runs on: upgrade it";

impl Driver {
    /// This node and its fabric at a glance.
    pub(super) fn status(&mut self, answer: CallAnswer) {
        let mut status = self.own_status();
        let Some(member) = &self.member else {
            return drop(answer.send(Reply::json(&status)));
        };
        let read = move |node: &Node, _: Now| {
            status.status.fabric = Some(node.status());
            Reply::json(&status)
        };
        self.readers.ask(&member.node, self.clock.now(), Box::new(read), answer);
    }

    /// Without its fabric.
    fn own_status(&self) -> Status {
        let status = api::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.identity.id(),
            name: self.name.clone(),
            fabric: None,
            executor: self.work.executor.name().into(),
            executor_reason: self.work.reason.clone(),
            addresses: self.addresses.advertised(),
            warnings: self.current_warnings(),
        };
        Status {
            status,
            fingerprint: identity::fingerprint(&self.identity.id()),
            network: self.addresses.is_connected(),
            entry: self.member.is_none().then(|| self.entrance.provision.entry()),
        }
    }

    fn current_warnings(&self) -> Vec<String> {
        let mut warnings = self.life.warnings.clone();
        if let Some(trouble) = &self.sightings.trouble {
            warnings.push(format!("discovery: {trouble}"));
        }
        warnings.extend(self.entrance.provision.warnings());
        let Some(member) = &self.member else { return warnings };
        if member.node.is_too_old() {
            warnings.push(TOO_OLD.into());
        }
        warnings.extend(member.node.nearly_full());
        if let Some(reason) = &member.disk {
            warnings.push(format!("no new work is taken, the disk refuses: {reason}"));
        }
        if !member.node.is_member(&self.identity.id()) {
            warnings.push(REMOVED.into());
        }
        match member.node.waits(self.clock.now().at).filter(|_| !member.node.is_removed()) {
            Some(Waits::HeardNobody) => warnings.push(format!(
                "no other member was heard since this agent started: it runs its own work and what it is asked for, and \
                 nothing that the others may run; if they are gone for good, remove them: {}",
                member.node.removal_commands()
            )),
            Some(Waits::NotAllHeard) => warnings.push(format!(
                "not heard since this agent started: {}; their work is placed elsewhere in half a minute, unless they come \
                 back",
                member.node.names_of(&member.node.unheard())
            )),
            Some(Waits::NotCompared | Waits::NoLink) | None => {}
        }
        warnings.extend(member.twin_troubles());
        if !self.addresses.is_connected() && member.node.roster().len() > 1 {
            warnings.push(
                "no network: no link of this machine has a cable and an address, or none leads to the other members, \
                 so their silence is its own"
                    .into(),
            );
        }
        warnings.extend(member.node.clocks(self.clock.now()).warnings());
        warnings.extend(doctor::forged(member.node.counters().forged));
        if self.entrance.entering.is_some() {
            warnings.push("entering the fabric: waiting for the disk".into());
        }
        warnings
    }

    /// Looks at the machine beside the loop, and judges.
    pub(super) fn doctor(&mut self, answer: CallAnswer) {
        let mut agent = self.facts();
        let (state, observer) = (self.config.state.clone(), self.measuring.observer.clone());
        let tracer = self.measuring.tracer.clone();
        tokio::spawn(async move {
            agent.observed = observer.report().await;
            if agent.observed != Err(Unanswered::Off) {
                let tried = tracer.attempt().await;
                agent.tried = Some(tried.map_err(|problem| problem.to_string()));
            }
            let looked = tokio::task::spawn_blocking(move || doctor::look(&state)).await;
            let reply = match looked {
                Ok(machine) => Reply::json(&doctor::examine(&machine, &agent)),
                Err(error) => Err(Problem::new(
                    ProblemKind::Internal,
                    "the machine could not be looked at",
                    error.to_string(),
                )),
            };
            let _ = answer.send(reply);
        });
    }

    fn facts(&mut self) -> doctor::Agent {
        let now = self.clock.now();
        let mdns = self.config.discovery.mdns.then(|| match &self.sightings.trouble {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(self.sightings.count(discovery::Source::Mdns)),
        });
        doctor::Agent {
            started: self.life.began,
            now,
            store: self.member.as_ref().and_then(|member| member.disk.clone()),
            executor: (self.work.executor.name().into(), self.work.reason.clone()),
            enforced: self.looks.topology.enforced,
            cgroups: self.work.executor.has_cgroups(),
            exclusive: self.exclusive_cpus(),
            confines: self.config.resources.confine_system,
            ports: self.looks.topology.ports,
            ports_used: self.looks.topology.ports_used.clone(),
            mdns,
            given: self.entrance.provision.warnings(),
            // Asked for beside the loop.
            observed: Err(Unanswered::Off),
            tried: None,
            other_sources: self.config.discovery.domains.len() + self.config.discovery.seeds.len(),
            fabric: self.member.as_ref().map(|member| {
                let status = self.measuring.standing.of(&member.node, now.at);
                let seal = member.seal.counters();
                doctor::Membership {
                    in_roster: member.node.is_member(&self.identity.id()),
                    roster: member.node.roster().len(),
                    nodes: status.nodes.clone(),
                    stopped: status.stopped_agents.clone(),
                    local_health: status.local_health,
                    clocks: member.node.clocks(now),
                    forged: member.node.counters().forged,
                    datagrams: (
                        seal.malformed
                            + seal.unknown_key
                            + seal.forged
                            + seal.not_member
                            + seal.outdated,
                        seal.opened,
                    ),
                    twins: member.twin_troubles(),
                    level: (status.level, self.config.node.level(), status.held_back_by.clone()),
                    nearly_full: member.node.nearly_full(),
                    broken_pairs: {
                        let cut = member.node.cut_off_from().into_iter();
                        cut.map(|node| member.node.broken_pair(&node)).collect()
                    },
                }
            }),
        }
    }
}
