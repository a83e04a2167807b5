//! What tasks print.

use fabric::api::Problem;
use fabric::id::JobName;
use fabric::limits;

use super::doc::{Gives, flag, number, one_of, says, text};
use super::given::{Given, senseless};
use super::{AgentVerb, Operation, Peers, Role, Route, get};

/// Lines of log that can be asked for: more is a file to copy, not a view.
pub const TAIL_LINES_MAX: u64 = 100_000;
/// Lines of log when nothing is asked for.
const TAIL_LINES: u64 = 100;

pub const ROUTES: &[Route] = &[get("/v1/jobs/{name}/logs", Role::Look, logs)
    .query(&[
        number("slot", "0 if absent."),
        text("node", "Name or key of a node: for a system job, which has a slot 0 on each."),
        flag("follow", "Go on with what comes."),
        number("tail", "Lines from the end; 100 if absent."),
        one_of("stream", &["stdout", "stderr", "both"], "both if absent."),
        flag(
            "previous",
            "Of the allocation that failed, where the last version was reverted for it; else of the one before the newest.",
        ),
        number("epoch", "Of the allocation with this epoch. Not together with previous."),
    ])
    .peers(Peers::Relayed)
    .doc(
        says("What a slot's allocation prints, from whichever node it runs on.")
            .answers(Gives::Text(&["text/plain; charset=utf-8"])),
    )];

/// Which lines of which allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Whose.
    pub job: JobName,
    /// Which slot.
    pub slot: u32,
    /// On which node, by name or key: a system job has a slot 0 on each.
    pub node: Option<String>,
    /// Which of its outputs.
    pub stream: LogStream,
    /// Lines from the end.
    pub tail: u64,
    /// Go on with what comes.
    pub follow: bool,
    /// Of which of its allocations.
    pub of: LogOf,
}

/// Of which of a slot's allocations a log is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOf {
    /// The newest that runs, else the newest.
    Newest,
    /// The one that failed where the last version was reverted for it, else the one before the newest.
    Previous,
    /// The one with this epoch.
    Epoch(u64),
}

/// Which output of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Both: standard output first, and, for who follows, then each as it comes.
    Both,
}

fn logs(given: &Given<'_>) -> Result<Operation, Problem> {
    let query = LogQuery {
        job: given.job()?,
        slot: given.number("slot", limits::COUNT_MAX.into())?.unwrap_or(0) as u32,
        node: given.text("node").map(str::to_owned),
        stream: match given.text("stream") {
            None | Some("both") => LogStream::Both,
            Some("stdout") => LogStream::Stdout,
            Some("stderr") => LogStream::Stderr,
            Some(other) => {
                return Err(senseless(format!("stream={other}: write stdout, stderr or both")));
            }
        },
        tail: given.number("tail", TAIL_LINES_MAX)?.unwrap_or(TAIL_LINES),
        follow: given.flag("follow")?,
        of: match (given.flag("previous")?, given.text("epoch")) {
            (false, None) => LogOf::Newest,
            (true, None) => LogOf::Previous,
            (false, Some(_)) => {
                LogOf::Epoch(given.number("epoch", limits::EPOCH_MAX)?.unwrap_or_default())
            }
            (true, Some(_)) => {
                return Err(senseless("previous=true and an epoch: write one of the two"));
            }
        },
    };
    Ok(Operation::Agent(AgentVerb::Logs(query)))
}
