//! Ports that other programs of this machine listen on: the core gives them to nobody, and tells the others.

use fabric::clock::Instant;
use fabric::topology::PortsUsed;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;

use super::{Driver, OUTCOMES_MAX};
use crate::listeners::{self, Listeners, Wanted};

/// Time between two looks. Who comes in between is seen when a unit starts.
const PERIOD: Duration = Duration::from_secs(5);

/// Ports that were wanted when it was looked, and those of them that other programs listen on.
pub(super) type PortsFound = mpsc::Receiver<(Wanted, Vec<PortsUsed>)>;

/// When it is looked who listens on this machine. What was found is a part of the topology.
pub(super) struct PortLooks {
    listeners: Listeners,
    looked: Instant,
    results: mpsc::Sender<(Wanted, Vec<PortsUsed>)>,
}

impl PortLooks {
    /// The first look is due at once. What is found comes out of the channel.
    pub(super) fn start(listeners: Listeners) -> (Self, PortsFound) {
        let (results, found) = mpsc::channel(OUTCOMES_MAX);
        (Self { listeners, looked: Instant::default(), results }, found)
    }
}

/// Who listens when the agent starts. Which ports jobs name is not known yet.
pub(super) fn at_start(listeners: &Listeners, (first, last): (u16, u16)) -> Vec<PortsUsed> {
    let found = look(listeners, &Wanted { dynamic: first..=last, fixed: BTreeSet::new() });
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, "the kernel does not say who listens on this machine: ports of other programs are given out");
        Vec::new()
    })
}

fn look(listeners: &Listeners, wanted: &Wanted) -> std::io::Result<Vec<PortsUsed>> {
    Ok(listeners::used(listeners.strangers(wanted)?, &wanted.dynamic))
}

impl Driver {
    /// Looks who listens if it is time to, beside the loop: whose a new socket is only a look at all processes tells.
    pub(super) fn notice_listeners(&mut self, now: Instant) {
        let Some(member) = &self.member else { return };
        if now.since(self.looks.ports.looked) < PERIOD {
            return;
        }
        self.looks.ports.looked = now;
        let (first, last) = self.looks.topology.ports;
        let wanted = Wanted { dynamic: first..=last, fixed: member.node.fixed_ports() };
        let ports = &self.looks.ports;
        let (listeners, results) = (ports.listeners.clone(), ports.results.clone());
        tokio::task::spawn_blocking(move || match look(&listeners, &wanted) {
            // Nobody listens: the agent ends. Full: another look is about to be taken in.
            Ok(used) => drop(results.try_send((wanted, used))),
            Err(error) => tracing::debug!(%error, "the kernel does not say who listens"),
        });
    }

    /// Takes in who listens.
    pub(super) fn others_listen(&mut self, wanted: &Wanted, mut used: Vec<PortsUsed>) {
        // What was found when a unit started, on a port that no job asked for when this look began.
        let is_of_look = |port| wanted.dynamic.contains(&port) || wanted.fixed.contains(&port);
        used.extend(
            self.looks.topology.ports_used.iter().filter(|one| !is_of_look(one.first)).cloned(),
        );
        used.sort_by_key(|one| one.first);
        self.set_ports_used(used);
    }

    /// A unit was not started because of somebody who listens on its port: before the core hears of that, it knows the
    /// port for taken, or it would give it away again.
    pub(super) fn port_taken(&mut self, port: u16, by: &str) {
        let mut used = self.looks.topology.ports_used.clone();
        if !used.iter().any(|used| (used.first..=used.last).contains(&port)) {
            let at = used.partition_point(|used| used.first < port);
            used.insert(at, PortsUsed { first: port, last: port, by: by.to_owned() });
            self.set_ports_used(used);
        }
    }

    fn set_ports_used(&mut self, used: Vec<PortsUsed>) {
        if used != self.looks.topology.ports_used {
            let ports: Vec<String> = used.iter().map(PortsUsed::to_string).collect();
            tracing::info!(ports = %ports.join(", "), "ports that other programs listen on");
            self.looks.topology.ports_used = used;
            self.changed();
        }
    }
}
