//! What lookups that run for themselves report.

use crate::known::Scope;
use crate::sighting::Found;

/// All that one domain or one seed stands for now: replaces what it stood for before.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) scope: Scope,
    pub(crate) found: Vec<Found>,
}
