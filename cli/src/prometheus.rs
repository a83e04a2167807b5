//! Questions in PromQL to the agent, which answers them for all nodes, and the shapes of the answers: those of
//! Prometheus's HTTP API ('HTTP API' in its documentation).

use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::{Client, escape};
use crate::exit::{Exit, Failure};
use crate::screen::{Screen, Tone, printable};

/// Names and values of a series' labels.
pub type Labels = BTreeMap<String, String>;

/// The label that holds a series' name.
pub const NAME: &str = "__name__";

/// An answer, and what has to be known about it.
#[derive(Clone, Debug)]
pub struct Found {
    /// What was found.
    pub data: Data,
    /// Nodes that did not answer, bounds that were met.
    pub warnings: Vec<String>,
    /// The answer as it came.
    pub raw: serde_json::Value,
}

/// What an expression is worth.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
pub enum Data {
    /// A number.
    Scalar(Sample),
    /// A text.
    String((f64, String)),
    /// A value of each of some series.
    Vector(Vec<Point>),
    /// Values of each of some series.
    Matrix(Vec<Curve>),
}

/// One series at one time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Point {
    /// Which.
    pub metric: Labels,
    /// Its value.
    pub value: Sample,
}

/// One series over a time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Curve {
    /// Which.
    pub metric: Labels,
    /// In the order of time.
    pub values: Vec<Sample>,
}

/// Seconds since 1970, and a value: `[1700000000.5, "0.1"]`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "(f64, String)")]
pub struct Sample {
    /// Seconds since 1970.
    pub at: f64,
    /// The value then.
    pub value: f64,
}

impl TryFrom<(f64, String)> for Sample {
    type Error = String;

    fn try_from((at, text): (f64, String)) -> Result<Self, String> {
        let value = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
        Ok(Self { at, value })
    }
}

/// Every answer.
#[derive(Deserialize)]
struct Envelope {
    data: Option<Data>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

/// When to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At the time of the agent.
    Now,
    /// At every step from then on, until now.
    Range {
        /// How long ago it begins.
        range: Duration,
        /// Between two values.
        step: Duration,
        /// Now, in milliseconds since 1970.
        now_ms: u64,
    },
}

/// Asks.
///
/// # Errors
/// The agent's, in words; an expression that makes no sense is shown with the place in it.
pub async fn ask(
    client: &Client,
    screen: &Screen,
    expression: &str,
    when: When,
) -> Result<Found, Failure> {
    let (status, answer) = client.exchange(&path(expression, when)).await?;
    let raw: serde_json::Value =
        serde_json::from_slice(&answer).map_err(|error| nonsense(&error))?;
    if raw["status"] != "success" {
        return Err(refusal(screen, expression, status, raw));
    }
    let envelope = Envelope::deserialize(&raw).map_err(|error| nonsense(&error))?;
    let data = envelope.data.ok_or_else(|| nonsense(&"it has no data"))?;
    Ok(Found { data, warnings: envelope.warnings, raw })
}

/// Asks for series at this moment; what is no vector is an error of whoever asks.
pub async fn vector(
    client: &Client,
    screen: &Screen,
    expression: &str,
) -> Result<(Vec<Point>, Vec<String>), Failure> {
    let found = ask(client, screen, expression, When::Now).await?;
    match found.data {
        Data::Vector(points) => Ok((points, found.warnings)),
        other => Err(nonsense(&format!("{expression} is {other:?}, not a vector"))),
    }
}

/// Says what has to be known about an answer, each thing once.
pub fn warn(screen: &Screen, warnings: &mut Vec<String>) {
    warnings.sort();
    warnings.dedup();
    for warning in warnings {
        screen.say_toned(Tone::Busy, &printable(&format!("warning: {warning}")));
    }
}

/// `text` as the text of a label in a selector.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// A regular expression, as a selector's text, that fits exactly these texts.
pub fn any_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let escaped = texts.into_iter().map(|text| {
        text.chars().fold(String::new(), |mut escaped, letter| {
            if !letter.is_alphanumeric() && letter != '-' && letter != '_' {
                escaped.push('\\');
            }
            escaped.push(letter);
            escaped
        })
    });
    quoted(&escaped.collect::<Vec<_>>().join("|"))
}

/// A duration as PromQL writes it.
pub fn duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn path(expression: &str, when: When) -> String {
    let query = escape(expression);
    match when {
        When::Now => format!("/api/v1/query?query={query}"),
        When::Range { range, step, now_ms } => {
            let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
            let start = seconds(now_ms.saturating_sub(range.as_millis() as u64));
            let (end, step) = (seconds(now_ms), step.as_secs_f64());
            format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}")
        }
    }
}

fn refusal(screen: &Screen, expression: &str, status: u16, raw: serde_json::Value) -> Failure {
    if let Ok(problem) = fabric::api::Problem::deserialize(&raw) {
        return problem.into();
    }
    let envelope = Envelope::deserialize(&raw).ok();
    let message = envelope.map(|envelope| envelope.error).filter(|error| !error.is_empty());
    let message = message.unwrap_or_else(|| format!("the agent refuses it with status {status}"));
    match place(&message) {
        Some((line, column, reason)) => {
            if let Some(marked) = marked(expression, line, column) {
                screen.say(&marked);
            }
            Failure::usage(format!("{line}:{column}: {reason}"))
        }
        None if status == 400 => Failure::usage(message),
        None if status == 503 => Failure::Said(Exit::TimedOut, message),
        None => Failure::failed(message),
    }
}

/// Line, column and reason of `...: 1:8: parse error: no closing parenthesis`.
fn place(message: &str) -> Option<(usize, usize, &str)> {
    let (before, reason) = message.split_once(": parse error: ")?;
    let place = before.rsplit(' ').next()?;
    let (line, column) = place.split_once(':')?;
    Some((line.parse().ok()?, column.parse().ok()?, reason))
}

/// The line of an expression with a caret below the column.
fn marked(expression: &str, line: usize, column: usize) -> Option<String> {
    let text = printable(expression.lines().nth(line.checked_sub(1)?)?);
    let before = column.checked_sub(1)?.min(text.chars().count());
    Some(format!("  {text}\n  {}^", " ".repeat(before)))
}

fn nonsense(why: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!(
        "the agent's answer makes no sense ({why}): weft and weftd must have the same version"
    ))
}

#[cfg(test)]
mod tests;
