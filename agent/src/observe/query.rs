//! What is asked in Prometheus's HTTP API, from its parameters.

use std::time::Duration;

use metrics::answer::{Answer, ErrorType};
use metrics::evaluate::Grid;
use metrics::syntax::{Expr, parse};

use crate::http::router::form;

/// How long a query may wait for other nodes, unless its `timeout` is shorter.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Milliseconds of the past that series are looked for in, unless the caller says otherwise: all that a store has.
const PAST_MS: i64 = 24 * 3_600_000;
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

/// Which question of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Prometheus's")]
pub enum Kind {
    Query,
    QueryRange,
    Series,
    Labels,
    LabelValues,
    Metadata,
    FormatQuery,
    BuildInfo,
}

impl Asked {
    /// Reads the parameters of a path and of a form in the body. What is not known is ignored, as Prometheus
    /// does: Grafana sends more than it needs. `label` is the name in the path.
    pub fn read(
        kind: Kind,
        label: Option<&str>,
        query: &str,
        body: &[u8],
        now_ms: i64,
    ) -> Result<Self, Answer> {
        let body = std::str::from_utf8(body).map_err(|_| bad("the form is not UTF-8"))?;
        let mut given = form(body).map_err(bad)?;
        given.extend(form(query).map_err(bad)?);
        let value = |name: &str| {
            let found = given.iter().find(|(given, _)| given == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let needed = |name: &str| value(name).ok_or_else(|| bad(format!("{name} is missing")));
        let at = |name: &str, otherwise: i64| {
            value(name).map_or(Ok(otherwise), |text| time_ms(name, text))
        };
        let limit = value("limit").map_or(Ok(usize::MAX), |text| match text.parse() {
            Ok(0) => Ok(usize::MAX),
            Ok(limit) => Ok(limit),
            Err(_) => Err(bad(format!("limit={text}: write a number"))),
        })?;
        let selectors: Vec<String> = given
            .iter()
            .filter(|(name, _)| name == "match[]")
            .map(|(_, selector)| selector.clone())
            .collect();
        if selectors.len() > SELECTORS_MAX {
            return Err(bad(format!("more than {SELECTORS_MAX} selectors (match[])")));
        }
        let find = |wanted, selectors: Vec<String>| -> Result<Query, Answer> {
            Ok(Query::Find {
                selectors,
                from_ms: at("start", now_ms - PAST_MS)?,
                until_ms: at("end", now_ms)?,
                wanted,
                limit,
            })
        };
        let all = |selectors: &Vec<String>| match selectors.as_slice() {
            [] => vec!["{__name__=~\".+\"}".to_owned()],
            some => some.to_vec(),
        };
        let query = match kind {
            Kind::Query => {
                let grid = Grid::instant(at("time", now_ms)?).map_err(Answer::from)?;
                Query::Evaluate { expression: needed("query")?.into(), grid, is_range: false }
            }
            Kind::QueryRange => {
                let (start_ms, end_ms) = (needed("start")?, needed("end")?);
                let (start_ms, end_ms) = (time_ms("start", start_ms)?, time_ms("end", end_ms)?);
                let step_ms = duration_ms("step", needed("step")?)?;
                let grid = Grid::range(start_ms, end_ms, step_ms).map_err(Answer::from)?;
                Query::Evaluate { expression: needed("query")?.into(), grid, is_range: true }
            }
            Kind::Series if selectors.is_empty() => {
                return Err(bad("no match[] parameter provided"));
            }
            Kind::Series => find(Wanted::Series, selectors)?,
            Kind::Labels => find(Wanted::Names, all(&selectors))?,
            Kind::LabelValues => {
                let label = label.unwrap_or_default();
                if !metrics::labels::is_label_name(label) {
                    return Err(bad(format!("{label:?} is not a label's name")));
                }
                find(Wanted::Values(label.to_owned()), all(&selectors))?
            }
            Kind::Metadata => Query::Metadata { metric: value("metric").map(str::to_owned), limit },
            Kind::FormatQuery => Query::Format(needed("query")?.into()),
            Kind::BuildInfo => Query::BuildInfo,
        };
        let scope = match value("scope") {
            None | Some("fabric") => Scope::Fabric,
            Some("node") => Scope::Node,
            Some(other) => return Err(bad(format!("scope={other}: write fabric or node"))),
        };
        let timeout = match value("timeout") {
            None => TIMEOUT_MAX,
            Some(text) => {
                let wanted = duration_ms("timeout", text)?;
                Duration::from_millis(wanted.unsigned_abs()).min(TIMEOUT_MAX)
            }
        };
        Ok(Asked { query, scope, timeout })
    }
}

/// An error about what was sent.
pub fn bad(reason: impl Into<String>) -> Answer {
    Answer::error(ErrorType::BadData, reason)
}

/// Seconds since 1970 with a fraction, or a date by RFC 3339.
fn time_ms(name: &str, text: &str) -> Result<i64, Answer> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.abs() < 1e14);
    seconds.map(|seconds| (seconds * 1e3).round() as i64).or_else(|| date_ms(text)).ok_or_else(
        || {
            let shown: String = text.chars().take(40).collect();
            bad(format!(
                "{name}={shown}: write seconds since 1970, or a date like 2026-05-01T12:00:00Z"
            ))
        },
    )
}

/// Seconds with a fraction, or a duration like `5m`.
fn duration_ms(name: &str, text: &str) -> Result<i64, Answer> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.abs() < 1e12);
    let words = || {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match parse(&format!("a[{text}]")).ok().filter(|_| plain)? {
            Expr::Range(_, range_ms) => Some(range_ms),
            _ => None,
        }
    };
    let found = seconds.map(|seconds| (seconds * 1e3).round() as i64).or_else(words);
    found.filter(|duration| *duration > 0).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        bad(format!("{name}={shown}: write seconds above 0, or a duration like 15s or 5m"))
    })
}

/// RFC 3339, section 5.6.
fn date_ms(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (time, ahead_minutes) = if let Some(time) = time.strip_suffix(['Z', 'z']) {
        (time, 0)
    } else {
        let at = time.rfind(['+', '-'])?;
        let (hours, minutes) = time[at + 1..].split_once(':')?;
        let ahead = number(hours, 23)? * 60 + number(minutes, 59)?;
        (&time[..at], if time.as_bytes()[at] == b'-' { -ahead } else { ahead })
    };
    let mut date = date.splitn(3, '-');
    let (year, month, day) =
        (number(date.next()?, 9999)?, number(date.next()?, 12)?, number(date.next()?, 31)?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':');
    let (hour, minute, second) =
        (number(time.next()?, 23)?, number(time.next()?, 59)?, number(time.next()?, 60)?);
    let fraction: f64 = match fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("0.{fraction}").parse().ok()?,
        false => return None,
    };
    if month == 0 || day == 0 {
        return None;
    }
    // Howard Hinnant, 'chrono-Compatible Low-Level Date Algorithms': days_from_civil.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let minutes = (days * 24 + hour) * 60 + minute - ahead_minutes;
    Some((minutes * 60 + second) * 1000 + (fraction * 1e3).round() as i64)
}

/// Digits only, at most so much.
fn number(text: &str, max: i64) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= max)
}

#[cfg(test)]
mod tests;
