//! What nodes ask each other about their series, over the streams that API requests take.
//!
//! Both sides are postcard, behind one byte with the version. An answer comes from another machine: it is read
//! up to [`ANSWER_BYTES_MAX`], and nothing is believed of it but what its decoder and the merging check.

use std::collections::BTreeSet;

use metrics::evaluate::EvaluateError;
use metrics::fleet::{Part, Partial};
use metrics::labels::Labels;
use metrics::store::{Kind, Metadata};
use serde::{Deserialize, Serialize};

/// The path that a peer asks at. It is none of the API's: people ask in PromQL.
pub const PATH: &str = "/v1/peers/series";
/// Its method.
pub const METHOD: &str = "POST";
/// The media type of both sides.
pub const MEDIA: &str = "application/octet-stream";
/// Of this encoding. A node of another version is named in the warnings, as one that cannot be understood.
const VERSION: u8 = 1;
/// Bytes of one node's answer: more than a graph of a thousand series has. Held of as many nodes at a time as
/// are asked at once.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Series and texts that are taken of one node.
pub const FOUND_MAX: usize = 50_000;

/// A question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Parts of a query.
    Parts(Vec<Part>),
    /// The labels of series that fit one of the selectors and have samples in that time.
    Series {
        /// In PromQL.
        selectors: Vec<String>,
        /// Milliseconds.
        from_ms: i64,
        /// Milliseconds.
        until_ms: i64,
    },
    /// The names of their labels.
    Names {
        /// See `Series`.
        selectors: Vec<String>,
        /// See `Series`.
        from_ms: i64,
        /// See `Series`.
        until_ms: i64,
    },
    /// The values of one label.
    Values {
        /// Which.
        label: String,
        /// See `Series`.
        selectors: Vec<String>,
        /// See `Series`.
        from_ms: i64,
        /// See `Series`.
        until_ms: i64,
    },
    /// What is said about metrics.
    Metadata {
        /// About one only.
        metric: Option<String>,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To each part.
    Parts(Vec<Partial>),
    /// Labels of series.
    Series(BTreeSet<Labels>),
    /// Texts.
    Texts(BTreeSet<String>),
    /// Metrics.
    Metadata(Vec<Described>),
    /// The node has no answer: why.
    Refused(String),
    /// The question is too large, and not only for this node: by which limit, and how to narrow it.
    TooMuch(String),
}

/// A metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// In OpenMetrics' words.
    pub kind: String,
    /// One sentence.
    pub help: String,
    /// Or empty.
    pub unit: String,
}

/// Why bytes are nothing that can be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The first byte.
    #[error("it speaks version {0} and this node {VERSION}: is its agent of another version?")]
    Version(u8),
    /// The rest.
    #[error("what it says makes no sense: {0}")]
    Malformed(String),
}

/// As bytes.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising into a vector fails for maps of unknown length alone, and there are none.
    postcard::to_extend(value, vec![VERSION]).unwrap_or_default()
}

/// From bytes that came from anywhere.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, WireError> {
    let malformed = |error: &str| WireError::Malformed(error.to_owned());
    let (version, rest) = bytes.split_first().ok_or_else(|| malformed("it is empty"))?;
    if *version != VERSION {
        return Err(WireError::Version(*version));
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(malformed("there is more than an answer")),
        Err(error) => Err(malformed(&error.to_string())),
    }
}

impl Response {
    /// Whether it has the shape that is asked for: it may come from anywhere.
    pub fn answers(&self, request: &Request) -> bool {
        match (request, self) {
            (Request::Parts(parts), Response::Parts(answers)) => {
                let mut pairs = answers.iter().zip(parts);
                answers.len() == parts.len()
                    && pairs.all(|(answer, part)| answer.check(part).is_ok())
            }
            (Request::Series { .. }, Response::Series(_))
            | (Request::Names { .. } | Request::Values { .. }, Response::Texts(_))
            | (Request::Metadata { .. }, Response::Metadata(_)) => true,
            _ => false,
        }
    }

    /// Puts another node's answer to the same question to this one.
    pub fn merge(self, other: Self, request: &Request) -> Result<Self, EvaluateError> {
        Ok(match (self, other) {
            (Response::Parts(ours), Response::Parts(theirs)) => {
                let Request::Parts(parts) = request else { return Err(EvaluateError::Part) };
                if ours.len() != parts.len() || theirs.len() != parts.len() {
                    return Err(EvaluateError::Part);
                }
                let both = ours.into_iter().zip(theirs).zip(parts);
                let merged = both.map(|((ours, theirs), part)| ours.merge(theirs, part));
                Response::Parts(merged.collect::<Result<_, _>>()?)
            }
            (Response::Series(mut ours), Response::Series(theirs)) => {
                ours.extend(theirs);
                bounded(ours.len())?;
                Response::Series(ours)
            }
            (Response::Texts(mut ours), Response::Texts(theirs)) => {
                ours.extend(theirs);
                bounded(ours.len())?;
                Response::Texts(ours)
            }
            (Response::Metadata(mut ours), Response::Metadata(theirs)) => {
                ours.extend(theirs);
                ours.sort();
                // The first to say something about a metric is believed.
                ours.dedup_by(|later, first| later.name == first.name);
                bounded(ours.len())?;
                Response::Metadata(ours)
            }
            _ => return Err(EvaluateError::Part),
        })
    }
}

fn bounded(count: usize) -> Result<(), EvaluateError> {
    if count > FOUND_MAX { Err(EvaluateError::Series(FOUND_MAX)) } else { Ok(()) }
}

impl Described {
    /// What a store knows about a metric.
    pub fn of(name: &str, metadata: &Metadata) -> Self {
        Self {
            name: name.to_owned(),
            kind: metadata.kind.name().to_owned(),
            help: metadata.help.clone(),
            unit: metadata.unit.clone(),
        }
    }

    /// As a store would know it.
    pub fn metadata(self) -> (String, Metadata) {
        let kinds = [Kind::Counter, Kind::Gauge, Kind::Histogram, Kind::Info];
        let kind = kinds.into_iter().find(|kind| kind.name() == self.kind);
        let kind = kind.unwrap_or(Kind::Unknown);
        (self.name, Metadata { kind, help: self.help, unit: self.unit })
    }
}

#[cfg(test)]
mod tests;
