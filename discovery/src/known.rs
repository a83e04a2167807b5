//! The instances that are known, and what changed about them. No I/O.

use std::collections::BTreeMap;

use crate::limits;
use crate::sighting::{Event, Found, Lost, Relation, Source};

/// Who reports: each domain and each seed reports for itself, the link as a whole.
pub(crate) type Scope = (Source, String);

/// Everything that was found.
///
/// - An instance is *shown* when the last event about it was a [`Found`]. Those of other fabrics,
///   and this node itself, are never shown.
/// - At most `instances_max` instances are kept. When one more comes, the one that was heard of
///   least recently among those that are not of our fabric makes room; if there is none, the
///   newcomer is left out.
#[derive(Debug)]
pub(crate) struct Known {
    node: String,
    fabric: Option<String>,
    instances: BTreeMap<Scope, BTreeMap<String, Instance>>,
    count: usize,
    clock: u64,
    instances_max: usize,
}

/// A moment between two sightings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

#[derive(Debug)]
struct Instance {
    found: Found,
    shown: bool,
    heard: u64,
}

impl Known {
    pub(crate) fn new(node: String, fabric: Option<String>) -> Self {
        let instances_max = limits::INSTANCES_MAX;
        Self { node, fabric, instances: BTreeMap::new(), count: 0, clock: 0, instances_max }
    }

    /// Takes in what `scope` found.
    pub(crate) fn see(&mut self, scope: &Scope, found: Found) -> Vec<Event> {
        self.clock += 1;
        let show = self.is_shown(&found);
        let known = self.instances.get_mut(scope).and_then(|names| names.get_mut(&found.name));
        if let Some(instance) = known {
            instance.heard = self.clock;
            let changed = instance.found != found;
            let was_shown = std::mem::replace(&mut instance.shown, show);
            instance.found = found;
            return match (was_shown, show) {
                (true, false) => vec![lost(&instance.found)],
                (_, true) if changed || !was_shown => vec![Event::Found(instance.found.clone())],
                _ => Vec::new(),
            };
        }
        let mut events = Vec::new();
        if self.count >= self.instances_max && !self.make_room(&mut events) {
            tracing::debug!(name = %found.name, "more instances than are kept: left out");
            return events;
        }
        if show {
            events.push(Event::Found(found.clone()));
        }
        let heard = self.clock;
        let name = found.name.clone();
        let names = self.instances.entry(scope.clone()).or_default();
        names.insert(name, Instance { found, shown: show, heard });
        self.count += 1;
        events
    }

    /// Forgets an instance of `scope`.
    pub(crate) fn gone(&mut self, scope: &Scope, name: &str) -> Option<Event> {
        let names = self.instances.get_mut(scope)?;
        let instance = names.remove(name)?;
        if names.is_empty() {
            self.instances.remove(scope);
        }
        self.count -= 1;
        instance.shown.then(|| lost(&instance.found))
    }

    /// Now, for [`Known::forget_unheard`].
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.clock)
    }

    /// Forgets those of `scope` that were not seen since `mark`.
    pub(crate) fn forget_unheard(&mut self, scope: &Scope, mark: Mark) -> Vec<Event> {
        let names = self.instances.get(scope).into_iter().flatten();
        let unheard = names.filter(|(_, instance)| instance.heard <= mark.0);
        let unheard: Vec<String> = unheard.map(|(name, _)| name.clone()).collect();
        unheard.iter().filter_map(|name| self.gone(scope, name)).collect()
    }

    /// Takes in all that `scope` finds now: what is not in `all` is gone.
    pub(crate) fn replace(&mut self, scope: &Scope, all: Vec<Found>) -> Vec<Event> {
        let names = self.instances.get(scope).into_iter().flat_map(|names| names.keys());
        let gone: Vec<String> =
            names.filter(|name| !all.iter().any(|found| found.name == **name)).cloned().collect();
        let mut events: Vec<Event> =
            gone.iter().filter_map(|name| self.gone(scope, name)).collect();
        for found in all {
            events.extend(self.see(scope, found));
        }
        events
    }

    /// This node belongs to `fabric` now: others become peers or stop being some.
    pub(crate) fn set_fabric(&mut self, fabric: Option<String>) -> Vec<Event> {
        self.fabric = fabric;
        let (own, node) = (self.fabric.as_deref(), self.node.as_str());
        let mut events = Vec::new();
        for instance in self.instances.values_mut().flat_map(|names| names.values_mut()) {
            let show = is_shown(&instance.found, node, own);
            match (std::mem::replace(&mut instance.shown, show), show) {
                (true, false) => events.push(lost(&instance.found)),
                (false, true) => events.push(Event::Found(instance.found.clone())),
                _ => {}
            }
        }
        events
    }

    fn is_shown(&self, found: &Found) -> bool {
        let show = is_shown(found, &self.node, self.fabric.as_deref());
        if !show && found.node.as_deref() != Some(&self.node) {
            tracing::debug!(name = %found.name, fabric = found.fabric, "a node of another fabric");
        }
        show
    }

    /// Forgets one instance that is not of our fabric. `false` when there is none.
    fn make_room(&mut self, events: &mut Vec<Event>) -> bool {
        let own = self.fabric.as_deref();
        let least = self
            .instances
            .iter()
            .flat_map(|(scope, names)| names.iter().map(move |(name, known)| (scope, name, known)))
            .filter(|(_, _, known)| known.found.relation(own) != Relation::Same)
            .min_by_key(|(_, _, known)| known.heard);
        let Some((scope, name)) = least.map(|(scope, name, _)| (scope.clone(), name.clone()))
        else {
            return false;
        };
        events.extend(self.gone(&scope, &name));
        true
    }
}

/// Whether an instance is worth telling about: not this node itself, and not of another fabric.
fn is_shown(found: &Found, node: &str, fabric: Option<&str>) -> bool {
    found.node.as_deref() != Some(node) && found.relation(fabric) != Relation::Foreign
}

fn lost(found: &Found) -> Event {
    let Found { source, name, node, .. } = found;
    Event::Lost(Lost { source: *source, name: name.clone(), node: node.clone() })
}

#[cfg(test)]
mod tests;
