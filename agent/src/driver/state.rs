//! What the state directory says when the agent starts, in the order in which it may be read and written.

use fabric::clock::Now;
use fabric::node::Handover;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{enter, handover};
use crate::config::Config;
use crate::identity::{self, Fabric, Identity};
use crate::level;
use crate::machine::{self, Machine};
use crate::seal::Start;
use crate::store::{self, Writer, Written};

/// This life of the agent.
///
/// Invariant: `start` only ever becomes later, and its number is on disk before anybody hears of it.
pub(super) struct Life {
    pub(super) began: Now,
    /// As others know it.
    pub(super) start: Start,
    /// What people should know about the start.
    pub(super) warnings: Vec<String>,
}

/// What is on disk.
pub(super) struct State {
    pub(super) identity: Arc<Identity>,
    pub(super) life: Life,
    pub(super) fabric: Option<Fabric>,
    /// Of the table.
    pub(super) rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// What the agent before has kept.
    pub(super) handover: Option<Handover>,
    /// Labels that came with the token.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) store: Writer,
    pub(super) written: Written,
}

impl State {
    /// Reads it, and begins another start of this node.
    ///
    /// # Errors
    /// When the directory cannot be used, is of another machine, or of an agent that this one cannot follow.
    pub(super) fn open(config: &Config, began: Now) -> anyhow::Result<Self> {
        let machine = Machine::this(Path::new("/"));
        machine::check(&config.state, &machine)?;
        let opened = store::open(&config.state)?;
        // Before anything is written there.
        level::check(config, &opened.rows)?;
        let identity = Arc::new(Identity::load_or_create(&config.state)?);
        machine::bind(&config.state, &machine);
        let before = identity::last_generation(&config.state);
        let start = Start::new(identity::next_generation(&config.state, began.wall.0))?;
        let handover = handover::take(&config.api.socket, identity.id(), before);
        let fabric = Fabric::load(&config.state)?;
        let mut disk = opened.store;
        let labels = match disk.note(enter::LABELS_NOTE) {
            Ok(Some(note)) => serde_json::from_slice(&note).unwrap_or_default(),
            _ => BTreeMap::new(),
        };
        let (store, written) = Writer::start(disk)?;
        let life = Life { began, start, warnings: opened.warnings };
        Ok(Self { identity, life, fabric, rows: opened.rows, handover, labels, store, written })
    }
}
