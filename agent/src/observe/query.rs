//! What can be asked about series.

use metrics::answer::{Answer, ErrorType};
use metrics::evaluate::Grid;
use std::time::Duration;

/// How long a query may wait for other nodes, unless its `timeout` is shorter.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Selectors of one question.
pub const SELECTORS_MAX: usize = 64;

/// A question, of whom it is asked, and how long it may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The question.
    pub query: Query,
    /// Of whom.
    pub scope: Scope,
    /// How long other nodes may take.
    pub timeout: Duration,
}

/// Whose series are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of all nodes.
    Fabric,
    /// Those of the node that is asked.
    Node,
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// An expression at one time, or at many.
    Evaluate {
        /// In PromQL.
        expression: String,
        /// When.
        grid: Grid,
        /// `query_range`.
        is_range: bool,
    },
    /// Which series there are.
    Find {
        /// Series selectors; a series must fit one of them.
        selectors: Vec<String>,
        /// They have samples from then on.
        from_ms: i64,
        /// And until then.
        until_ms: i64,
        /// What is wanted of them.
        wanted: Wanted,
        /// How many answers.
        limit: usize,
    },
    /// What is said about metrics.
    Metadata {
        /// About one only.
        metric: Option<String>,
        /// About how many.
        limit: usize,
    },
    /// The expression as it was understood.
    Format(String),
    /// Which version answers.
    BuildInfo,
}

/// What is wanted of series that are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Their labels.
    Series,
    /// The names of their labels.
    Names,
    /// The values of one label.
    Values(String),
}

/// An error about what was asked.
pub fn bad(reason: impl Into<String>) -> Answer {
    Answer::error(ErrorType::BadData, reason)
}
