//! What can be asked of an agent: a table with a row for each method and path.
//!
//! Each row stands beside the function that it names, in the file of its noun. The function looks at what came, as far as that can
//! be done without looking at the fabric, and says what is to be done:
//!
//! ```text
//!   method, path ──► find ──► a row: role, parameters, reader ──► an Operation
//!                                                                   │
//!     Known:  the answer is known already                           │
//!     Read:   from a copy of what the node knows, beside the loop ◄─┤
//!     Wish:   a Request, which the core decides ◄───────────────────┤
//!     Agent:  an AgentVerb, which the agent carries out itself ◄────┘
//! ```
//!
//! A new verb is a row and its function; one that neither the core nor a reader can do is a variant of [`AgentVerb`], too. What the
//! row says of itself is written into `openapi.json` by the test `the_document_is_of_this_table`.

use bytes::Bytes;
use fabric::api::{self, Problem, ProblemKind};
use fabric::clock::Now;
use fabric::io::Request;
use fabric::job::nearest;
use fabric::node::Node;
use metrics::answer::Answer;
use metrics::exposition::Format;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

use crate::observe::query::Asked;
use crate::upgrade::Step;
use doc::{Doc, Parameter};
use given::Given;
use logs::LogQuery;
use prometheus::Question;

pub mod about;
pub mod doc;
pub mod fabrics;
pub mod form;
pub mod given;
pub mod jobs;
pub mod logs;
pub mod nodes;
pub mod prometheus;
pub mod quotas;
pub mod tokens;
pub mod traces;
pub mod waiting;

/// The table, by noun.
pub const ROUTES: &[&[Route]] = &[
    about::ROUTES,
    nodes::ROUTES,
    waiting::ROUTES,
    jobs::ROUTES,
    logs::ROUTES,
    traces::ROUTES,
    fabrics::ROUTES,
    tokens::ROUTES,
    quotas::ROUTES,
    prometheus::ROUTES,
];

/// One row of the table.
#[derive(Debug)]
pub struct Route {
    /// HTTP method.
    pub method: &'static str,
    /// Path; a segment in braces stands for any text.
    pub path: &'static str,
    /// Query parameters that it knows.
    pub query: &'static [Parameter],
    /// The least that a caller must be allowed.
    pub role: Role,
    /// Whether other members' agents may ask it.
    pub peers: Peers,
    /// Makes an operation of what came.
    pub reader: Reader,
    /// What the document says of it. Only the test that writes the document reads that, so it is not in the agent.
    #[cfg(test)]
    pub doc: Doc,
}

/// What a caller may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See what is measured, and whether the agent is well: whoever reaches the TCP port.
    Measure,
    /// See everything that changes nothing. Jobs may hold secrets.
    Look,
    /// Run, move and stop work; not change which machines belong to the fabric, or who may have how much of it.
    Operate,
    /// Everything: root, and the group of the Unix socket.
    Own,
}

/// Whether other members' agents may ask something of this one. Everything else they know from the table of the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// They may not.
    Refused,
    /// The node that is meant must be reached without another one between.
    Direct,
    /// Also through a member that can reach the node that is meant: who answers does not look at who asks.
    Relayed,
}

/// How a row takes parameters and says what is wrong with them.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    /// A parameter that it does not know is an error, and errors are problems.
    Weft(fn(&Given<'_>) -> Result<Operation, Problem>),
    /// As Prometheus does, whose callers read no other form of errors.
    Prometheus(fn(&Question<'_>) -> Result<crate::observe::query::Query, Answer>),
}

/// What is to be done.
pub enum Operation {
    /// Nothing: the answer is known.
    Known(Reply),
    /// It is read from a copy of what the node knows.
    Read(Read),
    /// The core decides.
    Wish(Wish),
    /// The agent carries it out itself.
    Agent(AgentVerb),
}

/// Answers from what a node knows at one moment.
pub type Read = Box<dyn FnOnce(&Node, Now) -> Result<Reply, Problem> + Send>;
/// Says what the core is asked for, in whose name.
pub type Wish = Box<dyn FnOnce(&Node, &str) -> Result<Request, Problem> + Send>;

/// What only the agent can carry out: it is about the agent or its machine, needs a secret that the agent makes, takes time, or
/// comes in a stream.
#[derive(Debug, PartialEq)]
pub enum AgentVerb {
    /// This node and its fabric at a glance.
    Status,
    /// What is well and what is not.
    Doctor,
    /// Whether the loop turns.
    Healthz,
    /// Whether it is a member of a fabric.
    Readyz,
    /// What happened, and with `follow` what happens.
    Events {
        /// Go on.
        follow: bool,
    },
    /// Everything that is measured here, as text for those who scrape.
    Metrics(Format),
    /// A question in Prometheus's API.
    Prometheus(Box<Asked>),
    /// Found a fabric.
    Init(api::Init),
    /// Join a fabric.
    Join(api::Join),
    /// Nodes that wait for a fabric.
    Waiting,
    /// One of them, by name, fingerprint or key.
    WaitingNode(String),
    /// Let one of them in.
    Approve(String),
    /// Lock a node out.
    RemoveNode {
        /// By name, key, or the key's first digits.
        node: String,
        /// Also when no majority of the voters is left.
        force: bool,
    },
    /// Make a token.
    CreateToken {
        /// How long it works.
        lifetime: Duration,
        /// Labels for nodes that join with it.
        labels: BTreeMap<String, String>,
    },
    /// What a node is made of, by name or key.
    Hardware(String),
    /// Ask how far an update of a node has come, or go on with it.
    Upgrade {
        /// Which node.
        node: String,
        /// What to do.
        step: Step,
    },
    /// What a slot's allocation prints.
    Logs(LogQuery),
    /// Look closely at what runs, for a while.
    Trace {
        /// At what.
        wanted: Box<api::TraceBody>,
        /// The text of it, read.
        time: Duration,
    },
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

    /// A short text.
    pub fn plain(text: &'static str) -> Self {
        Reply::Text("text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
    }

    /// An answer of Prometheus's API.
    pub fn prometheus(answer: &Answer) -> Self {
        Reply::Prometheus(answer.status(), serde_json::to_vec(answer).unwrap_or_default())
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Known(reply) => f.debug_tuple("Known").field(reply).finish(),
            Operation::Read(_) => f.write_str("Read"),
            Operation::Wish(_) => f.write_str("Wish"),
            Operation::Agent(verb) => f.debug_tuple("Agent").field(verb).finish(),
        }
    }
}

/// An answer that is read from what the node knows.
fn read(
    read: impl FnOnce(&Node, Now) -> Result<Reply, Problem> + Send + 'static,
) -> Result<Operation, Problem> {
    Ok(Operation::Read(Box::new(read)))
}

/// A wish that the core is asked for.
fn wish(
    wish: impl FnOnce(&Node, &str) -> Result<Request, Problem> + Send + 'static,
) -> Result<Operation, Problem> {
    Ok(Operation::Wish(Box::new(wish)))
}

const fn get(
    path: &'static str,
    role: Role,
    read: fn(&Given<'_>) -> Result<Operation, Problem>,
) -> Route {
    Route::new("GET", path, role, Reader::Weft(read))
}

const fn post(
    path: &'static str,
    role: Role,
    read: fn(&Given<'_>) -> Result<Operation, Problem>,
) -> Route {
    Route::new("POST", path, role, Reader::Weft(read))
}

const fn put(
    path: &'static str,
    role: Role,
    read: fn(&Given<'_>) -> Result<Operation, Problem>,
) -> Route {
    Route::new("PUT", path, role, Reader::Weft(read))
}

const fn delete(
    path: &'static str,
    role: Role,
    read: fn(&Given<'_>) -> Result<Operation, Problem>,
) -> Route {
    Route::new("DELETE", path, role, Reader::Weft(read))
}

impl Route {
    const fn new(method: &'static str, path: &'static str, role: Role, reader: Reader) -> Self {
        Self {
            method,
            path,
            query: &[],
            role,
            peers: Peers::Refused,
            reader,
            #[cfg(test)]
            doc: Doc::NOTHING,
        }
    }

    const fn query(mut self, query: &'static [Parameter]) -> Self {
        self.query = query;
        self
    }

    const fn peers(mut self, peers: Peers) -> Self {
        self.peers = peers;
        self
    }

    const fn doc(self, doc: Doc) -> Self {
        #[cfg(test)]
        return Self { doc, ..self };
        #[cfg(not(test))]
        {
            let _ = doc;
            self
        }
    }

    /// Makes an operation of what came.
    ///
    /// # Errors
    /// A problem of kind `invalid` that names the parameter or the field.
    pub fn read(&self, came: &Came<'_>) -> Result<Operation, Problem> {
        match self.reader {
            Reader::Weft(read) => read(&Given::of(self, came)?),
            Reader::Prometheus(read) => Ok(match prometheus::asked(read, came) {
                Ok(asked) => Operation::Agent(AgentVerb::Prometheus(Box::new(asked))),
                Err(answer) => Operation::Known(Reply::prometheus(&answer)),
            }),
        }
    }
}

/// What came with a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Came<'a> {
    /// The decoded text of the path's segment in braces.
    pub name: Option<&'a str>,
    /// What is behind the question mark.
    pub query: &'a str,
    /// All of it.
    pub body: &'a [u8],
    /// Media types that the caller accepts.
    pub accept: &'a str,
    /// What is now for it: milliseconds since 1970.
    pub now_ms: i64,
}

/// Where a method and a path lead.
#[derive(Debug)]
pub enum Found {
    /// To this route; with the text of the segment in braces, if there is one.
    Route(&'static Route, Option<String>),
    /// The path is known, with these other methods.
    OtherMethods(Vec<&'static str>),
    /// Nowhere; with the nearest path there is.
    Nothing(Option<&'static str>),
}

/// Looks `path` up.
pub fn find(method: &str, path: &str) -> Found {
    let mut others = Vec::new();
    for route in ROUTES.iter().copied().flatten() {
        let Some(name) = matches(route.path, path) else { continue };
        if route.method == method {
            return Found::Route(route, name);
        }
        others.push(route.method);
    }
    if others.is_empty() {
        Found::Nothing(nearest(path, ROUTES.iter().copied().flatten().map(|route| route.path)))
    } else {
        Found::OtherMethods(others)
    }
}

/// `Some` when `path` has the shape of `pattern`, with the decoded text of the segment in braces.
fn matches(pattern: &str, path: &str) -> Option<Option<String>> {
    let mut name = None;
    let mut given = path.split('/');
    for wanted in pattern.split('/') {
        let segment = given.next()?;
        if wanted.starts_with('{') {
            name = Some(form::decode(segment).filter(|text| !text.is_empty())?);
        } else if wanted != segment {
            return None;
        }
    }
    given.next().is_none().then_some(name)
}

#[cfg(test)]
pub(crate) mod tests;
