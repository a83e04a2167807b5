//! What a caller wants, checked as far as it can be without looking at the fabric; and what it gets.

use bytes::Bytes;
use fabric::api::{self, Problem, ProblemKind};
use fabric::id::{JobName, Namespace};
use fabric::job::{JobSpec, duration};
use fabric::limits;
use fabric::table::TokenId;
use metrics::exposition::Format;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

use super::router::{Endpoint, Route, query};
use crate::observe::query::Asked;
use crate::upgrade::{self, Step};

/// Lines of log that can be asked for: more is a file to copy, not a view.
pub const TAIL_LINES_MAX: u64 = 100_000;
/// Lines of log when nothing is asked for.
const TAIL_LINES: u64 = 100;
/// How long a token works unless the caller says otherwise.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// A token that lives longer is a key that somebody forgot.
const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// One thing to do or to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// This node and its fabric at a glance.
    Status,
    /// Every node.
    Nodes,
    /// One node, by name or key.
    Node(String),
    /// What a node is made of, by name or key.
    Hardware(String),
    /// Ask how far an update of a node has come, or go on with it.
    Upgrade {
        /// Which node.
        node: String,
        /// What to do.
        step: Step,
    },
    /// Drain a node, or let it take work again.
    Drain {
        /// Name or key.
        node: String,
        /// True: drain.
        on: bool,
    },
    /// Lock a node out.
    RemoveNode {
        /// By name, key, or the key's first digits.
        node: String,
        /// Also when no majority of the voters is left.
        force: bool,
    },
    /// Nodes that wait for a fabric.
    Waiting,
    /// One of them, by name, fingerprint or key.
    WaitingNode(String),
    /// Let one of them in.
    Approve(String),
    /// Every job.
    Jobs,
    /// One job.
    Job(JobName),
    /// Run a job, or a new version of it.
    Submit {
        /// What.
        spec: Box<JobSpec>,
        /// Refuse unless it is at this version.
        expected_version: Option<u64>,
    },
    /// What a submit would do.
    Plan(Box<JobSpec>),
    /// Find moves that make things better, and perhaps make them.
    Rebalance(api::RebalanceBody),
    /// Date anew what is dated ahead of every clock.
    Reclock,
    /// Stop a job and forget it.
    StopJob(JobName),
    /// Change the number of slots.
    Scale {
        /// Whose.
        job: JobName,
        /// To how many.
        count: u32,
    },
    /// Restart one slot, or all.
    Restart {
        /// Whose.
        job: JobName,
        /// Which; `None`: all.
        slot: Option<u32>,
    },
    /// Why each slot is where it is.
    Explain(JobName),
    /// The versions of a job whose specs are known.
    Versions(JobName),
    /// Allocations.
    Allocs {
        /// Of this job only.
        job: Option<JobName>,
        /// Ended ones too.
        all: bool,
    },
    /// What a slot's allocation prints.
    Logs(LogQuery),
    /// What happened, and with `follow` what happens.
    Events {
        /// Go on.
        follow: bool,
    },
    /// Look closely at what runs, for a while.
    Trace {
        /// At what.
        wanted: Box<api::TraceBody>,
        /// The text of it, read.
        time: Duration,
    },
    /// Found a fabric.
    Init(api::Init),
    /// Join a fabric.
    Join(api::Join),
    /// Make a token.
    CreateToken {
        /// How long it works.
        lifetime: Duration,
        /// Labels for nodes that join with it.
        labels: BTreeMap<String, String>,
    },
    /// Tokens that still work.
    Tokens,
    /// Make a token useless.
    RevokeToken(TokenId),
    /// What namespaces may have, and have.
    Quotas,
    /// Limit what a namespace may have.
    SetQuota {
        /// Which.
        namespace: Namespace,
        /// To what, and whether something may be stopped for it.
        wanted: api::SetQuota,
    },
    /// Let a namespace have whatever fits.
    RemoveQuota(Namespace),
    /// What is well and what is not.
    Doctor,
    /// Everything that is measured here, as text for those who scrape.
    Metrics(Format),
    /// A question in Prometheus's API.
    Prometheus(Box<Asked>),
    /// Whether the loop turns.
    Healthz,
    /// Whether it is a member of a fabric.
    Readyz,
    /// The OpenAPI document.
    OpenApi,
}

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

/// An operation, who wants it, and where the answer goes.
#[derive(Debug)]
pub struct Call {
    /// What.
    pub operation: Operation,
    /// The user at the other end of the socket, for the record.
    pub by: String,
    /// Gets exactly one answer, unless the agent ends first.
    pub answer: oneshot::Sender<Result<Reply, Problem>>,
}

/// What a caller gets when nothing is wrong.
#[derive(Debug)]
pub enum Reply {
    /// JSON.
    Json(Vec<u8>),
    /// An answer of Prometheus's API: status and JSON.
    Prometheus(u16, Vec<u8>),
    /// Text of this media type.
    Text(&'static str, Bytes),
    /// Done, and nothing to say about it.
    Done,
    /// Text of this media type, as it comes.
    Stream(&'static str, mpsc::Receiver<Bytes>),
}

impl Reply {
    /// `value` as JSON.
    pub fn json<T: serde::Serialize>(value: &T) -> Result<Self, Problem> {
        serde_json::to_vec(value).map(Reply::Json).map_err(|error| {
            Problem::new(
                ProblemKind::Internal,
                "the answer has no JSON form",
                format!("{error}; this is a bug of the agent"),
            )
        })
    }
}

/// Makes an operation of what came.
///
/// # Errors
/// A problem of kind `invalid` that names the parameter or the field.
pub fn read(
    route: &Route,
    name: Option<String>,
    query_text: &str,
    body: &[u8],
) -> Result<Operation, Problem> {
    let parameters = query(query_text, route.query)
        .map_err(|message| invalid("the query makes no sense", message))?;
    let parameter = |wanted: &str| {
        parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    };
    let name = name.unwrap_or_default();
    let job = || job_name(&name);
    Ok(match route.endpoint {
        Endpoint::Status => Operation::Status,
        Endpoint::Nodes => Operation::Nodes,
        Endpoint::Node => Operation::Node(name),
        Endpoint::Hardware => Operation::Hardware(name),
        Endpoint::Drain => {
            Operation::Drain { node: name, on: json::<api::DrainBody>(body, None)?.on }
        }
        Endpoint::Upgrade => Operation::Upgrade { node: name, step: Step::Look },
        Endpoint::BeginUpgrade => {
            Operation::Upgrade { node: name, step: Step::begin(json(body, None)?)? }
        }
        Endpoint::UpgradeData => {
            let Some(offset) = parameter("offset") else {
                return Err(invalid("the query makes no sense", "offset=BYTES is missing"));
            };
            let offset = number("offset", offset, upgrade::BYTES_MAX)?;
            Operation::Upgrade { node: name, step: Step::Data { offset, bytes: body.to_vec() } }
        }
        Endpoint::RemoveNode => {
            Operation::RemoveNode { node: name, force: flag("force", parameter("force"))? }
        }
        Endpoint::Waiting => Operation::Waiting,
        Endpoint::WaitingNode => Operation::WaitingNode(name),
        Endpoint::Approve => Operation::Approve(name),
        Endpoint::Jobs => Operation::Jobs,
        Endpoint::Job => Operation::Job(job()?),
        Endpoint::Submit => {
            let spec = spec(body)?;
            let job = job()?;
            if spec.name != job {
                return Err(invalid(
                    "two names",
                    format!("the path says {job}, the spec says {}: make them equal", spec.name),
                ));
            }
            let expected_version = parameter("expected_version")
                .map(|text| number("expected_version", text, u64::MAX));
            Operation::Submit { spec, expected_version: expected_version.transpose()? }
        }
        Endpoint::Plan => Operation::Plan(spec(body)?),
        Endpoint::Rebalance => {
            Operation::Rebalance(json(body, Some(api::RebalanceBody::default()))?)
        }
        Endpoint::Reclock => Operation::Reclock,
        Endpoint::StopJob => Operation::StopJob(job()?),
        Endpoint::Scale => {
            let job = job()?;
            let count = json::<api::Scale>(body, None)?.count;
            if count > limits::COUNT_MAX {
                return Err(invalid(
                    "too many slots",
                    format!("{count} are more than the {} allowed", limits::COUNT_MAX),
                ));
            }
            Operation::Scale { job, count }
        }
        Endpoint::Restart => Operation::Restart {
            job: job()?,
            slot: json(body, Some(api::RestartBody::default()))?.slot,
        },
        Endpoint::Explain => Operation::Explain(job()?),
        Endpoint::Versions => Operation::Versions(job()?),
        Endpoint::Allocs => Operation::Allocs {
            job: parameter("job").map(job_name).transpose()?,
            all: flag("all", parameter("all"))?,
        },
        Endpoint::Logs => Operation::Logs(LogQuery {
            job: job()?,
            slot: parameter("slot")
                .map(|text| number("slot", text, limits::COUNT_MAX.into()))
                .transpose()?
                .unwrap_or(0) as u32,
            node: parameter("node").map(str::to_owned),
            stream: match parameter("stream") {
                None | Some("both") => LogStream::Both,
                Some("stdout") => LogStream::Stdout,
                Some("stderr") => LogStream::Stderr,
                Some(other) => {
                    let message = format!("stream={other}: write stdout, stderr or both");
                    return Err(invalid("the query makes no sense", message));
                }
            },
            tail: parameter("tail")
                .map(|text| number("tail", text, TAIL_LINES_MAX))
                .transpose()?
                .unwrap_or(TAIL_LINES),
            follow: flag("follow", parameter("follow"))?,
            of: match (flag("previous", parameter("previous"))?, parameter("epoch")) {
                (false, None) => LogOf::Newest,
                (true, None) => LogOf::Previous,
                (false, Some(text)) => LogOf::Epoch(number("epoch", text, limits::EPOCH_MAX)?),
                (true, Some(_)) => {
                    let message = "previous=true and an epoch: write one of the two";
                    return Err(invalid("the query makes no sense", message));
                }
            },
        }),
        Endpoint::Events => Operation::Events { follow: flag("follow", parameter("follow"))? },
        Endpoint::Trace => {
            let wanted: Box<api::TraceBody> = json(body, None)?;
            let most = ebpf::limits::TRACE_TIME_MAX;
            let time = duration::parse(&wanted.time).ok();
            let time = time.filter(|time| !time.is_zero() && *time <= most).ok_or_else(|| {
                invalid(
                    "not a trace's time",
                    format!("{:?}: write 10s, at most {}", wanted.time, duration::display(most)),
                )
            })?;
            Operation::Trace { wanted, time }
        }
        Endpoint::Init => {
            let init: api::Init = json(body, Some(api::Init::default()))?;
            if init.name.as_ref().is_some_and(|name| JobName::new(name).is_err()) {
                return Err(invalid(
                    "not a fabric's name",
                    "use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends",
                ));
            }
            Operation::Init(init)
        }
        Endpoint::Join => Operation::Join(json(body, None)?),
        Endpoint::CreateToken => {
            let wanted: api::CreateToken = json(body, Some(api::CreateToken::default()))?;
            let lifetime = match &wanted.lifetime {
                None => TOKEN_LIFETIME,
                Some(text) => duration::parse(text)
                    .ok()
                    .filter(|lifetime| !lifetime.is_zero() && *lifetime <= TOKEN_LIFETIME_MAX)
                    .ok_or_else(|| {
                        invalid(
                            "not a token's lifetime",
                            format!("{text:?}: write 30m, 1h or 7d, at most 30d"),
                        )
                    })?,
            };
            if wanted.labels.len() > limits::LABELS_MAX {
                return Err(invalid(
                    "too many labels",
                    format!("a node has {} at most", limits::LABELS_MAX),
                ));
            }
            Operation::CreateToken { lifetime, labels: wanted.labels }
        }
        Endpoint::Tokens => Operation::Tokens,
        Endpoint::RevokeToken => Operation::RevokeToken(TokenId(name)),
        Endpoint::Quotas => Operation::Quotas,
        Endpoint::SetQuota => {
            Operation::SetQuota { namespace: namespace(&name)?, wanted: json(body, None)? }
        }
        Endpoint::RemoveQuota => Operation::RemoveQuota(namespace(&name)?),
        Endpoint::Doctor => Operation::Doctor,
        // What the caller accepts is said in the head.
        Endpoint::Metrics => Operation::Metrics(Format::Prometheus),
        Endpoint::Prometheus(_) => {
            let detail = "this is a bug of the agent";
            return Err(Problem::new(ProblemKind::Internal, "read elsewhere", detail));
        }
        Endpoint::Healthz => Operation::Healthz,
        Endpoint::Readyz => Operation::Readyz,
        Endpoint::OpenApi => Operation::OpenApi,
    })
}

/// A problem of kind `invalid`.
pub fn invalid(title: &str, detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Invalid, title, detail)
}

fn job_name(text: &str) -> Result<JobName, Problem> {
    JobName::new(text).map_err(|error| invalid("not a job's name", error.to_string()))
}

fn namespace(text: &str) -> Result<Namespace, Problem> {
    Namespace::new(text).map_err(|error| invalid("not a namespace", error.to_string()))
}

fn number(name: &str, text: &str, max: u64) -> Result<u64, Problem> {
    text.parse().ok().filter(|number| *number <= max).ok_or_else(|| {
        invalid("the query makes no sense", format!("{name}={text}: write a number up to {max}"))
    })
}

fn flag(name: &str, value: Option<&str>) -> Result<bool, Problem> {
    match value {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(other) => {
            Err(invalid("the query makes no sense", format!("{name}={other}: write true or false")))
        }
    }
}

fn json<T: DeserializeOwned>(body: &[u8], empty: Option<T>) -> Result<T, Problem> {
    match empty {
        Some(empty) if body.is_empty() => Ok(empty),
        _ => serde_json::from_slice(body)
            .map_err(|error| invalid("the body makes no sense", error.to_string())),
    }
}

fn spec(body: &[u8]) -> Result<Box<JobSpec>, Problem> {
    let spec: Box<JobSpec> = json(body, None)?;
    let (given, taken) = (json(body, None)?, serde_json::to_value(&spec).unwrap_or_default());
    if let Some(unknown) = unknown_field(&given, &taken) {
        let detail = format!("unknown field `{unknown}`: see /v1/openapi.json for what a job has");
        return Err(invalid("the job makes no sense", detail));
    }
    spec.validate().map_err(|error| invalid("the job makes no sense", error.to_string()))?;
    Ok(spec)
}

/// A field of what was given that is nothing that was taken, with its path: a slip of the pen is no wish for what is usual.
fn unknown_field(given: &Value, taken: &Value) -> Option<String> {
    match (given, taken) {
        (Value::Object(given), Value::Object(taken)) => given.iter().find_map(|(name, inner)| {
            let Some(known) = taken.get(name) else { return Some(name.clone()) };
            Some(format!("{name}.{}", unknown_field(inner, known)?))
        }),
        (Value::Array(given), Value::Array(taken)) => {
            let mut pairs = given.iter().zip(taken).enumerate();
            pairs
                .find_map(|(at, (one, other))| Some(format!("{at}.{}", unknown_field(one, other)?)))
        }
        // Short forms: a text for what is kept as a text, a number, or nothing.
        _ => None,
    }
}

#[cfg(test)]
mod tests;
