//! How `weft` ends: the exit codes, and the failures that lead to them.

use fabric::api::{Problem, ProblemKind};

/// Exit codes. The list in `weft help` and in `docs/CLI.md` says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, and all is well.
    Ok = 0,
    /// It did not work.
    Failed = 1,
    /// The command line or the job file makes no sense; nothing was sent.
    Usage = 2,
    /// It works, but not all is well.
    Degraded = 3,
    /// There is no such node, job, slot or token.
    NotFound = 4,
    /// There is something to change, and that was the question.
    Changes = 5,
    /// The agent does not answer.
    Unreachable = 6,
    /// Slots have no node that could take them.
    Unplaceable = 7,
    /// `--timeout` has passed.
    TimedOut = 124,
    /// Ctrl-C: stopped watching.
    Interrupted = 130,
}

/// Why a command gives up.
#[derive(Debug)]
pub enum Failure {
    /// Said on stderr, then the exit code.
    Said(Exit, String),
    /// Several at once, a line each.
    Listed(Exit, Vec<String>),
    /// Whoever reads stdout has read enough.
    NobodyReads,
}

impl Failure {
    /// A failure of the everyday sort.
    pub fn failed(message: impl Into<String>) -> Self {
        Failure::Said(Exit::Failed, message.into())
    }

    /// The user's mistake.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::Said(Exit::Usage, message.into())
    }

    /// No such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Failure::Said(Exit::NotFound, message.into())
    }

    /// What is said of it, a line each.
    pub fn messages(&self) -> &[String] {
        match self {
            Failure::Said(_, message) => std::slice::from_ref(message),
            Failure::Listed(_, messages) => messages,
            Failure::NobodyReads => &[],
        }
    }

    /// The exit code it leads to.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Said(exit, _) | Failure::Listed(exit, _) => *exit,
            Failure::NobodyReads => Exit::Ok,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.kind {
            ProblemKind::Invalid | ProblemKind::TooLarge => Exit::Usage,
            ProblemKind::NotFound => Exit::NotFound,
            ProblemKind::Unreachable => Exit::Unreachable,
            ProblemKind::Forbidden
            | ProblemKind::Conflict
            | ProblemKind::Internal
            | ProblemKind::Unavailable => Exit::Failed,
        };
        let message = match problem.detail.as_str() {
            "" => problem.title,
            detail => format!("{}: {detail}", problem.title),
        };
        Failure::Said(exit, message)
    }
}
