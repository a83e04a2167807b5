//! Prometheus's HTTP API, and what those who scrape it get.

use fabric::api::Problem;
use metrics::answer::Answer;
use metrics::evaluate::Grid;
use metrics::exposition::Format;
use metrics::syntax::{Expr, parse};
use std::time::Duration;

use super::doc::{Gives, Parameter, one_of, says, text};
use super::form::form;
use super::given::Given;
use super::{AgentVerb, Came, Operation, Reader, Role, Route, get};
use crate::observe::query::{Asked, Query, SELECTORS_MAX, Scope, TIMEOUT_MAX, Wanted, bad};

/// Milliseconds of the past that series are looked for in, unless the caller says otherwise: all that a store has.
const PAST_MS: i64 = 24 * 3_600_000;

const QUERY: Parameter = text("query", "An expression in PromQL.").required();
const TIME: Parameter = text("time", "Seconds since 1970, or a date by RFC 3339; now unless said.");
const START: Parameter = text("start", "Seconds since 1970, or a date by RFC 3339.");
const END: Parameter = text("end", "Seconds since 1970, or a date by RFC 3339.");
const STEP: Parameter = text("step", "Seconds, or a duration like 15s.").required();
const LIMIT: Parameter = text("limit", "At most so many answers.");
const MATCH: Parameter = text("match[]", "A series selector; may be given several times.");
const TIMEOUT: Parameter = text(
    "timeout",
    "How long other nodes may take, as seconds or a duration; 10s unless said, and at most.",
);
const SCOPE: Parameter = one_of(
    "scope",
    &["fabric", "node"],
    "fabric (unless said) asks all nodes, node this one alone.",
);

/// What each path knows. What it knows beside these, and what others send, is ignored.
const INSTANT: &[Parameter] = &[QUERY, TIME, TIMEOUT, SCOPE];
const RANGE: &[Parameter] = &[QUERY, START, END, STEP, TIMEOUT, SCOPE];
const FIND: &[Parameter] = &[MATCH, START, END, LIMIT, TIMEOUT, SCOPE];
const METADATA: &[Parameter] = &[text("metric", "This metric only."), LIMIT, TIMEOUT, SCOPE];

pub const ROUTES: &[Route] = &[
    ask("GET", "/api/v1/query", INSTANT, at_one_time, "An expression at one time, as Prometheus answers it."),
    ask("POST", "/api/v1/query", INSTANT, at_one_time, "An expression at one time, as Prometheus answers it. Parameters may also be a form in the body."),
    ask("GET", "/api/v1/query_range", RANGE, at_many_times, "An expression at many times, as Prometheus answers it."),
    ask("POST", "/api/v1/query_range", RANGE, at_many_times, "An expression at many times, as Prometheus answers it. Parameters may also be a form in the body."),
    ask("GET", "/api/v1/series", FIND, series, "Series that there are."),
    ask("POST", "/api/v1/series", FIND, series, "Series that there are. Parameters may also be a form in the body."),
    ask("GET", "/api/v1/labels", FIND, labels, "Names of labels."),
    ask("POST", "/api/v1/labels", FIND, labels, "Names of labels. Parameters may also be a form in the body."),
    ask("GET", "/api/v1/label/{name}/values", FIND, label_values, "Values of one label."),
    ask("GET", "/api/v1/metadata", METADATA, metadata, "What is said about metrics."),
    ask("GET", "/api/v1/format_query", &[QUERY], format_query, "An expression as it was understood."),
    ask("POST", "/api/v1/format_query", &[QUERY], format_query, "An expression as it was understood. Parameters may also be a form in the body."),
    ask("GET", "/api/v1/status/buildinfo", &[], build_info, "The version of Prometheus's API that is answered here."),
    get("/metrics", Role::Measure, exposition).doc(
        says("Everything that is measured on this node, for those who scrape: in Prometheus's text format, or in OpenMetrics for those who accept it.")
            .answers(Gives::Text(&[
                "text/plain; version=0.0.4; charset=utf-8",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ])),
    ),
];

const fn ask(
    method: &'static str,
    path: &'static str,
    query: &'static [Parameter],
    read: fn(&Question<'_>) -> Result<Query, Answer>,
    summary: &'static str,
) -> Route {
    Route::new(method, path, Role::Measure, Reader::Prometheus(read))
        .query(query)
        .doc(says(summary).answers(Gives::Prometheus))
}

/// What is accepted is said in the head of the request.
fn exposition(given: &Given<'_>) -> Result<Operation, Problem> {
    Ok(Operation::Agent(AgentVerb::Metrics(Format::accepted(given.accept()))))
}

/// The parameters of a question, from its path, the query and a form in the body. What is not known is ignored, as Prometheus
/// does: Grafana sends more than it needs.
#[derive(Debug)]
pub struct Question<'a> {
    given: Vec<(String, String)>,
    label: &'a str,
    now_ms: i64,
    selectors: Vec<String>,
    limit: usize,
}

/// Makes a question of what came.
pub(super) fn asked(
    read: fn(&Question<'_>) -> Result<Query, Answer>,
    came: &Came<'_>,
) -> Result<Asked, Answer> {
    let question = Question::of(came)?;
    let query = read(&question)?;
    let scope = match question.value("scope") {
        None | Some("fabric") => Scope::Fabric,
        Some("node") => Scope::Node,
        Some(other) => return Err(bad(format!("scope={other}: write fabric or node"))),
    };
    let timeout = match question.value("timeout") {
        None => TIMEOUT_MAX,
        Some(text) => {
            let wanted = duration_ms("timeout", text)?;
            Duration::from_millis(wanted.unsigned_abs()).min(TIMEOUT_MAX)
        }
    };
    Ok(Asked { query, scope, timeout })
}

impl<'a> Question<'a> {
    fn of(came: &Came<'a>) -> Result<Self, Answer> {
        let body = std::str::from_utf8(came.body).map_err(|_| bad("the form is not UTF-8"))?;
        let mut given = form(body).map_err(bad)?;
        given.extend(form(came.query).map_err(bad)?);
        let (label, now_ms) = (came.name.unwrap_or_default(), came.now_ms);
        let mut question = Self { given, label, now_ms, selectors: Vec::new(), limit: usize::MAX };
        if let Some(text) = question.value("limit") {
            question.limit = match text.parse() {
                Ok(0) => usize::MAX,
                Ok(limit) => limit,
                Err(_) => return Err(bad(format!("limit={text}: write a number"))),
            };
        }
        let selectors = question.given.iter().filter(|(name, _)| name == MATCH.name);
        question.selectors = selectors.map(|(_, selector)| selector.clone()).collect();
        if question.selectors.len() > SELECTORS_MAX {
            return Err(bad(format!("more than {SELECTORS_MAX} selectors (match[])")));
        }
        Ok(question)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let found = self.given.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn needed(&self, name: &str) -> Result<&str, Answer> {
        self.value(name).ok_or_else(|| bad(format!("{name} is missing")))
    }

    fn at(&self, name: &str, otherwise: i64) -> Result<i64, Answer> {
        self.value(name).map_or(Ok(otherwise), |text| time_ms(name, text))
    }

    fn find(&self, wanted: Wanted, selectors: Vec<String>) -> Result<Query, Answer> {
        Ok(Query::Find {
            selectors,
            from_ms: self.at("start", self.now_ms - PAST_MS)?,
            until_ms: self.at("end", self.now_ms)?,
            wanted,
            limit: self.limit,
        })
    }

    /// The selectors; one that every series fits if there is none.
    fn any(&self) -> Vec<String> {
        match self.selectors.as_slice() {
            [] => vec!["{__name__=~\".+\"}".to_owned()],
            some => some.to_vec(),
        }
    }
}

fn at_one_time(question: &Question<'_>) -> Result<Query, Answer> {
    let grid = Grid::instant(question.at("time", question.now_ms)?).map_err(Answer::from)?;
    Ok(Query::Evaluate { expression: question.needed("query")?.into(), grid, is_range: false })
}

fn at_many_times(question: &Question<'_>) -> Result<Query, Answer> {
    let (start_ms, end_ms) = (question.needed("start")?, question.needed("end")?);
    let (start_ms, end_ms) = (time_ms("start", start_ms)?, time_ms("end", end_ms)?);
    let step_ms = duration_ms("step", question.needed("step")?)?;
    let grid = Grid::range(start_ms, end_ms, step_ms).map_err(Answer::from)?;
    Ok(Query::Evaluate { expression: question.needed("query")?.into(), grid, is_range: true })
}

fn series(question: &Question<'_>) -> Result<Query, Answer> {
    if question.selectors.is_empty() {
        return Err(bad("no match[] parameter provided"));
    }
    question.find(Wanted::Series, question.selectors.clone())
}

fn labels(question: &Question<'_>) -> Result<Query, Answer> {
    question.find(Wanted::Names, question.any())
}

fn label_values(question: &Question<'_>) -> Result<Query, Answer> {
    let label = question.label;
    if !metrics::labels::is_label_name(label) {
        return Err(bad(format!("{label:?} is not a label's name")));
    }
    question.find(Wanted::Values(label.to_owned()), question.any())
}

fn metadata(question: &Question<'_>) -> Result<Query, Answer> {
    let metric = question.value("metric").map(str::to_owned);
    Ok(Query::Metadata { metric, limit: question.limit })
}

fn format_query(question: &Question<'_>) -> Result<Query, Answer> {
    Ok(Query::Format(question.needed("query")?.into()))
}

fn build_info(_: &Question<'_>) -> Result<Query, Answer> {
    Ok(Query::BuildInfo)
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
