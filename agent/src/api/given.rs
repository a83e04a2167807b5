//! What came with a request, in the words that rows need: parameters, names and JSON, or a problem that says which of them is wrong.

use fabric::api::{Problem, ProblemKind};
use fabric::id::{JobName, Namespace};
use serde::de::DeserializeOwned;

use super::form::query;
use super::{Came, Route};

/// What came with a request, for a row that knows all of its parameters.
#[derive(Debug)]
pub struct Given<'a> {
    came: Came<'a>,
    parameters: Vec<(String, String)>,
}

impl<'a> Given<'a> {
    pub(super) fn of(route: &Route, came: &Came<'a>) -> Result<Self, Problem> {
        let parameters = query(came.query, route.query).map_err(senseless)?;
        Ok(Self { came: *came, parameters })
    }

    /// The text of the path's segment in braces.
    pub fn name(&self) -> String {
        self.came.name.unwrap_or_default().to_owned()
    }

    /// The same, as the name of a job.
    pub fn job(&self) -> Result<JobName, Problem> {
        job_name(self.came.name.unwrap_or_default())
    }

    /// The same, as a namespace.
    pub fn namespace(&self) -> Result<Namespace, Problem> {
        Namespace::new(self.came.name.unwrap_or_default())
            .map_err(|error| invalid("not a namespace", error.to_string()))
    }

    /// The body as it came.
    pub fn body(&self) -> &'a [u8] {
        self.came.body
    }

    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        json(self.came.body)
    }

    /// The same, and what is usual if there is none.
    pub fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.came.body.is_empty() { Ok(T::default()) } else { self.json() }
    }

    /// Media types that the caller accepts.
    pub fn accept(&self) -> &'a str {
        self.came.accept
    }

    /// A parameter's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is a number.
    pub fn number(&self, name: &str, max: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse().ok().filter(|number| *number <= max) {
            Some(number) => Ok(Some(number)),
            None => Err(senseless(format!("{name}={text}: write a number up to {max}"))),
        }
    }

    /// A parameter that is true or false; one that is not there is false.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(other) => Err(senseless(format!("{name}={other}: write true or false"))),
        }
    }
}

/// A problem of kind `invalid`.
pub fn invalid(title: &str, detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Invalid, title, detail)
}

/// The query cannot be meant like that.
pub fn senseless(detail: impl Into<String>) -> Problem {
    invalid("the query makes no sense", detail)
}

pub(super) fn job_name(text: &str) -> Result<JobName, Problem> {
    JobName::new(text).map_err(|error| invalid("not a job's name", error.to_string()))
}

pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| invalid("the body makes no sense", error.to_string()))
}
