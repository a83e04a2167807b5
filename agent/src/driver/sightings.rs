//! Other nodes that discovery sees: members, whose addresses go to the core, and those that wait for a fabric.

use discovery::{Discovery, Event, Found, Interfaces, Settings, Source};
use fabric::api::{Problem, ProblemKind};
use fabric::clock::WallTime;
use fabric::id::NodeId;
use std::collections::BTreeMap;

use super::Driver;
use crate::approval::WaitingNode;
use crate::config::Config;
use crate::identity::{Fabric, Identity, fingerprint};

/// Nodes remembered from discovery.
const FOUND_MAX: usize = 4096;
/// Digits of a fingerprint that are enough to name a node by. What a person compares is all of it.
const FINGERPRINT_DIGITS_MIN: usize = 8;
/// Hex digits of a node's key that its announcement's name ends with.
const NAME_DIGITS: usize = discovery::limits::SHORT_DIGITS;
/// Candidates that an error names.
const NAMED_MAX: usize = 8;

/// Who was found.
///
/// Invariant: at most [`FOUND_MAX`], by source and name, and nobody whom its source has lost.
pub(super) struct Sightings {
    seen: BTreeMap<(Source, String), Seen>,
    /// Why multicast discovery does not work, if it does not.
    pub(super) trouble: Option<String>,
}

impl Sightings {
    /// Starts to look, and to be seen.
    pub(super) fn start(
        config: &Config,
        name: &str,
        identity: &Identity,
        fabric: Option<&Fabric>,
        port: u16,
    ) -> (Self, Option<Discovery>) {
        let (discovery, trouble) = start_discovery(config, name, identity, fabric, port);
        (Self { seen: BTreeMap::new(), trouble }, discovery)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Found> {
        self.seen.values().map(|seen| seen.found.clone()).collect()
    }

    /// How many a source has found.
    pub(super) fn count(&self, source: Source) -> usize {
        self.seen.keys().filter(|(seen, _)| *seen == source).count()
    }

    fn found(&mut self, found: Found, now: WallTime) {
        let key = (found.source, found.name.clone());
        if self.seen.len() < FOUND_MAX || self.seen.contains_key(&key) {
            let seen = Seen::new(found, self.seen.get(&key), now);
            self.seen.insert(key, seen);
        }
    }

    /// Who waits for a fabric.
    pub(super) fn waiting(&self) -> Vec<WaitingNode> {
        waiting(self.seen.values())
    }

    /// One who waits, by name, fingerprint or key.
    pub(super) fn waiting_node(&self, wanted: &str) -> Result<WaitingNode, Problem> {
        choose(self.waiting(), wanted)
    }
}

/// Somebody that discovery found.
#[derive(Clone, Debug)]
struct Seen {
    found: Found,
    /// Since when it says the same about its key and its fabric.
    since: WallTime,
}

impl Seen {
    /// What is seen now, and was seen as `before`.
    fn new(found: Found, before: Option<&Seen>, now: WallTime) -> Self {
        let same = before.filter(|before| {
            (&before.found.node, &before.found.fabric) == (&found.node, &found.fabric)
        });
        let since = same.map_or(now, |before| before.since);
        Self { found, since }
    }
}

/// Those who wait for a fabric, by key. One that several sources have found is there once.
fn waiting<'a>(seen: impl Iterator<Item = &'a Seen>) -> Vec<WaitingNode> {
    let mut waiting: BTreeMap<NodeId, WaitingNode> = BTreeMap::new();
    for Seen { found, since } in seen.filter(|seen| seen.found.fabric.is_none()) {
        let Some(node) = found.node.as_deref().and_then(|text| text.parse::<NodeId>().ok()) else {
            continue;
        };
        let row = waiting.entry(node).or_insert_with(|| WaitingNode {
            name: machine_name(&found.name, &node),
            node,
            fingerprint: fingerprint(&node),
            addresses: Vec::new(),
            since: *since,
        });
        row.since = row.since.min(*since);
        for address in &found.addresses {
            if !row.addresses.contains(address) {
                row.addresses.push(*address);
            }
        }
    }
    waiting.into_values().collect()
}

/// The machine's name in the name that it is announced by: without the digits of its key, and without the domain.
fn machine_name(announced: &str, node: &NodeId) -> String {
    let label = announced.split('.').next().unwrap_or_default();
    let end = format!("-{}", &node.to_string()[..NAME_DIGITS]);
    let name = label.strip_suffix(&end).unwrap_or(label);
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The one that is meant by a name, or by the first digits of a fingerprint or key.
///
/// # Errors
/// Names the candidates when there is none or more than one.
fn choose(mut waiting: Vec<WaitingNode>, wanted: &str) -> Result<WaitingNode, Problem> {
    let digits = wanted.replace('-', "").to_ascii_lowercase();
    let is_digits =
        digits.len() >= FINGERPRINT_DIGITS_MIN && digits.chars().all(|c| c.is_ascii_hexdigit());
    let means = |candidate: &WaitingNode| {
        candidate.name.eq_ignore_ascii_case(wanted)
            || (is_digits && candidate.node.to_string().starts_with(&digits))
    };
    let fitting: Vec<usize> = (0..waiting.len()).filter(|index| means(&waiting[*index])).collect();
    match fitting[..] {
        [only] => Ok(waiting.swap_remove(only)),
        [] => {
            let detail = match named(waiting.iter()) {
                None => "no node waits that can be seen from here".to_owned(),
                Some(names) => format!("these wait: {names}"),
            };
            Err(Problem::new(ProblemKind::NotFound, format!("no {wanted:?} waits"), detail))
        }
        _ => {
            let names = named(fitting.iter().map(|index| &waiting[*index])).unwrap_or_default();
            Err(Problem::new(
                ProblemKind::Invalid,
                format!("{wanted:?} may be more than one"),
                format!("{names}: use the fingerprint that the node's own console shows"),
            ))
        }
    }
}

fn named<'a>(candidates: impl Iterator<Item = &'a WaitingNode>) -> Option<String> {
    let all: Vec<String> =
        candidates.map(|one| format!("{} ({})", one.name, one.fingerprint)).collect();
    let more = all.len().saturating_sub(NAMED_MAX);
    let mut text = all.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    (!text.is_empty()).then_some(text)
}

impl Driver {
    /// Somebody was found, or is not announced any more.
    pub(super) fn discovered(&mut self, event: Event) {
        match event {
            Event::Found(found) => {
                self.offer(&found);
                self.tell_core_of(&found);
                self.sightings.found(found, self.clock.now().wall);
            }
            Event::Lost(lost) => {
                self.sightings.seen.remove(&(lost.source, lost.name));
            }
        }
    }

    /// Tells the core about a member that was found. Others are ignored there.
    fn tell_core_of(&mut self, found: &Found) {
        let now = self.clock.now();
        let Some(member) = &mut self.member else { return };
        let Some(node) = found.node.as_deref().and_then(|text| text.parse::<NodeId>().ok()) else {
            return;
        };
        for address in &found.addresses {
            member.found(now, node, *address);
        }
    }

    /// The same about all who were found: the roster has changed.
    pub(super) fn tell_core_of_all(&mut self) {
        for found in self.sightings.all() {
            self.tell_core_of(&found);
        }
    }

    pub(super) fn announce_fabric(&mut self, fabric: &Fabric) {
        let hint = crate::token::fabric_hint(&fabric.key());
        if let Some(discovery) = &mut self.sources.discovery
            && let Err(error) = discovery.set_fabric(Some(hint))
        {
            tracing::error!(%error, "cannot announce the fabric");
        }
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

#[cfg(test)]
mod tests;
