//! Which ports a job gets: those that it names, and others from the node's range. A port is not to be had when another claim
//! holds it, or when a program that is not the fabric's listens on it.

use super::Ledger;
use super::fit::Obstacle;
use crate::claim::Claim;
use crate::job::JobSpec;

impl Ledger {
    pub(super) fn fit_ports<'a>(&'a self, spec: &'a JobSpec) -> Result<(), Obstacle<'a>> {
        let (first, last) = self.layout.ports;
        let used = self.dynamic_ports_used();
        let mut taken = self.ports_in_range + used;
        for (index, port) in spec.ports.iter().enumerate() {
            let twice = spec.ports[..index].iter().any(|other| {
                other.name == port.name || (port.fixed.is_some() && other.fixed == port.fixed)
            });
            match port.fixed {
                Some(number) if twice || number == 0 || self.ports.contains(&number) => {
                    return Err(Obstacle::Port(&port.name, port.fixed));
                }
                Some(number) => {
                    if let Some(by) = self.user_of(number) {
                        return Err(Obstacle::PortUsed(number, by));
                    }
                    taken += u32::from((first..=last).contains(&number));
                }
                None if twice => return Err(Obstacle::Port(&port.name, None)),
                None => {}
            }
        }
        let size = (u32::from(last) + 1).saturating_sub(u32::from(first));
        let left = size.saturating_sub(taken) as usize;
        let mut dynamic = spec.ports.iter().filter(|port| port.fixed.is_none());
        match dynamic.nth(left) {
            None => Ok(()),
            Some(port) if used > 0 => Err(Obstacle::PortsUsed { port: &port.name, used, of: size }),
            Some(port) => Err(Obstacle::Port(&port.name, None)),
        }
    }

    pub(super) fn pick_ports(&self, spec: &JobSpec, claim: &mut Claim) {
        let (first, last) = self.layout.ports;
        let fixed = |number| spec.ports.iter().any(|port| port.fixed == Some(number));
        let is_free = |number: &u16| {
            !self.ports.contains(number) && !fixed(*number) && self.user_of(*number).is_none()
        };
        let mut numbers = (self.next_port..=last).chain(first..self.next_port).filter(is_free);
        for port in &spec.ports {
            if let Some(number) = port.fixed.or_else(|| numbers.next()) {
                claim.ports.insert(port.name.clone(), number);
            }
        }
    }

    /// Who listens on a port that is not the fabric's.
    fn user_of(&self, port: u16) -> Option<&str> {
        let used = &self.layout.ports_used;
        let next = used.partition_point(|used| used.first <= port);
        let used = used[..next].last().filter(|used| port <= used.last);
        used.map(|used| used.by.as_str())
    }

    /// How many dynamic ports others use that no claim holds: those that one holds are counted there.
    fn dynamic_ports_used(&self) -> u32 {
        let (first, last) = self.layout.ports;
        let stretches = self.layout.ports_used.iter().filter_map(|used| {
            let (first, last) = (used.first.max(first), used.last.min(last));
            (first <= last).then_some(first..=last)
        });
        let free = stretches.map(|stretch| {
            let claimed = self.ports.range(stretch.clone()).count() as u32;
            u32::from(stretch.end() - stretch.start()) + 1 - claimed
        });
        free.sum()
    }
}
