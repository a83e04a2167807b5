//! One question on its way: this node's answer, those of the others put to it, and what comes of them.
//!
//! All of it happens on the thread `observe`; between two steps the question waits for other nodes.

use std::collections::BTreeMap;

use metrics::answer::{Answer, ErrorType, label_names, label_values, selected};
use metrics::evaluate::{EvaluateError, Limits, instant, range};
use metrics::fleet::{PartError, Plan, answer_all};
use metrics::store::{Metadata, Store};
use metrics::syntax::parse;

use super::query::{Query, SELECTORS_MAX, Wanted, bad};
use super::sink::HOME;
use super::wire::{self, Described, Request, Response};

/// A question that other nodes are asked, too.
#[derive(Debug)]
pub struct Gathering {
    query: Query,
    /// Of a question in PromQL.
    plan: Option<Plan>,
    request: Request,
    /// Of all that have answered.
    merged: Response,
    limits: Limits,
    warnings: Vec<String>,
}

impl Gathering {
    /// Cuts a question into what every node is asked, and asks this one. The error is the answer already: an
    /// error, or all that there is to say.
    pub fn begin(query: Query, store: &Store, limits: Limits) -> Result<Self, Box<Answer>> {
        let (request, plan) = match &query {
            Query::Evaluate { expression, grid, is_range } => {
                let expr = parse(expression).map_err(|error| Box::new(error.into()))?;
                let plan = Plan::of(&expr, grid, *is_range, HOME)
                    .map_err(|error| Box::new(error.into()))?;
                (Request::Parts(plan.parts().to_vec()), Some(plan))
            }
            Query::Find { selectors, from_ms, until_ms, wanted, .. } => {
                let (selectors, from_ms, until_ms) = (selectors.clone(), *from_ms, *until_ms);
                let request = match wanted.clone() {
                    Wanted::Series => Request::Series { selectors, from_ms, until_ms },
                    Wanted::Names => Request::Names { selectors, from_ms, until_ms },
                    Wanted::Values(label) => {
                        Request::Values { label, selectors, from_ms, until_ms }
                    }
                };
                (request, None)
            }
            Query::Metadata { metric, .. } => (Request::Metadata { metric: metric.clone() }, None),
            Query::Format(_) | Query::BuildInfo => {
                return Err(Box::new(alone(query, store, limits)));
            }
        };
        let merged = respond(&request, store, limits).map_err(Box::new)?;
        Ok(Self { query, plan, request, merged, limits, warnings: Vec::new() })
    }

    /// Whether other nodes have anything to say to it.
    pub fn asks_others(&self) -> bool {
        !matches!(&self.request, Request::Parts(parts) if parts.is_empty())
    }

    /// What other nodes are asked.
    pub fn request(&self) -> Vec<u8> {
        wire::encode(&self.request)
    }

    /// Another node has answered. What cannot be understood is a warning; what is too much with the answers of
    /// the others is the end.
    pub fn take(&mut self, node: &str, bytes: &[u8]) -> Result<(), Box<Answer>> {
        let response = match wire::decode(bytes) {
            Ok(Response::Refused(reason)) => Err(reason),
            Ok(Response::TooMuch(reason)) => {
                let reason = format!("{node}: {reason}");
                return Err(Box::new(Answer::error(ErrorType::Execution, reason)));
            }
            Ok(response) if response.answers(&self.request) => Ok(response),
            Ok(_) => Err("what it says does not answer the question".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match response {
            Ok(response) => {
                let ours = std::mem::replace(&mut self.merged, Response::Refused(String::new()));
                self.merged =
                    ours.merge(response, &self.request).map_err(|error| Box::new(error.into()))?;
            }
            Err(reason) => self.missing(node, &reason),
        }
        Ok(())
    }

    /// Something that whoever reads the answer should know.
    pub fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// A node's series are not in the answer.
    pub fn missing(&mut self, node: &str, reason: &str) {
        self.warnings.push(format!("{node} is not in this answer: {reason}"));
    }

    /// The answer.
    pub fn finish(self) -> Answer {
        let Self { query, plan, merged, limits, mut warnings, .. } = self;
        let mut answer = match (query, plan, merged) {
            (Query::Evaluate { grid, is_range, .. }, Some(plan), Response::Parts(parts)) => {
                match plan.finish(parts, limits) {
                    Ok(finished) => {
                        warnings.extend(finished.warnings);
                        Answer::value(finished.value, &grid, is_range)
                    }
                    Err(error) => error.into(),
                }
            }
            (Query::Find { limit, .. }, _, Response::Series(series)) => {
                Answer::series(series.into_iter().take(limit))
            }
            (Query::Find { limit, .. }, _, Response::Texts(texts)) => {
                Answer::texts(texts.into_iter().take(limit))
            }
            (Query::Metadata { limit, .. }, _, Response::Metadata(list)) => {
                let list: BTreeMap<String, Metadata> =
                    list.into_iter().take(limit).map(Described::metadata).collect();
                Answer::metadata(list.iter().map(|(name, metadata)| (name.as_str(), metadata)))
            }
            _ => EvaluateError::Part.into(),
        };
        answer.warnings.extend(warnings);
        answer
    }
}

/// Answers a question of this node alone.
pub fn alone(query: Query, store: &Store, limits: Limits) -> Answer {
    match query {
        Query::Evaluate { expression, grid, is_range } => {
            let expr = match parse(&expression) {
                Ok(expr) => expr,
                Err(error) => return error.into(),
            };
            let value = match is_range {
                true => range(&expr, store, &grid, limits),
                false => instant(&expr, store, grid.start_ms(), limits),
            };
            match value {
                Ok(value) => Answer::value(value, &grid, is_range),
                Err(error) => error.into(),
            }
        }
        Query::Format(expression) => match parse(&expression) {
            Ok(expr) => Answer::text(expr.to_string()),
            Err(error) => error.into(),
        },
        Query::BuildInfo => {
            // The version is that of Prometheus's API: Grafana chooses by it what it may ask.
            let ours = env!("CARGO_PKG_VERSION");
            Answer::object([("version", "2.42.0".to_owned()), ("weft", ours.to_owned())])
        }
        query => match Gathering::begin(query, store, limits) {
            Ok(gathering) => gathering.finish(),
            Err(answer) => *answer,
        },
    }
}

/// What this node has to say to a question. It may come from anywhere: it is checked like any query.
pub fn respond(request: &Request, store: &Store, limits: Limits) -> Result<Response, Answer> {
    let find = |selectors: &[String], from_ms, until_ms| {
        if selectors.len() > SELECTORS_MAX {
            return Err(bad(format!("more than {SELECTORS_MAX} selectors")));
        }
        let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
        selected(store, &selectors, from_ms, until_ms).map_err(Answer::from)
    };
    Ok(match request {
        Request::Parts(parts) => {
            Response::Parts(answer_all(parts, store, limits).map_err(|error| match error {
                PartError::Syntax(error) => Answer::from(error),
                PartError::Evaluate(error) => Answer::from(error),
            })?)
        }
        Request::Series { selectors, from_ms, until_ms } => {
            Response::Series(find(selectors, *from_ms, *until_ms)?)
        }
        Request::Names { selectors, from_ms, until_ms } => {
            Response::Texts(label_names(&find(selectors, *from_ms, *until_ms)?))
        }
        Request::Values { label, selectors, from_ms, until_ms } => {
            Response::Texts(label_values(&find(selectors, *from_ms, *until_ms)?, label))
        }
        Request::Metadata { metric } => {
            let all = store.metadata().iter();
            let wanted = all.filter(|(name, _)| metric.as_ref().is_none_or(|m| **m == ***name));
            Response::Metadata(wanted.map(|(name, about)| Described::of(name, about)).collect())
        }
    })
}

/// The same for another node, which sent these bytes.
pub fn respond_to(bytes: &[u8], store: &Store, limits: Limits) -> Vec<u8> {
    let response = match wire::decode::<Request>(bytes) {
        Ok(request) => match respond(&request, store, limits) {
            Ok(response) => response,
            Err(answer) => {
                let reason = answer.reason().unwrap_or_default().to_owned();
                match answer.status() {
                    422 => Response::TooMuch(reason),
                    _ => Response::Refused(reason),
                }
            }
        },
        Err(error) => Response::Refused(error.to_string()),
    };
    wire::encode(&response)
}

#[cfg(test)]
mod tests;
