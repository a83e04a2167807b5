//! Which method and path leads where: one table, which the OpenAPI document is compared with.

use crate::observe::query::Kind;
use fabric::job::nearest;

/// One thing that the API can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table below says what each one is")]
pub enum Endpoint {
    Status,
    Nodes,
    Node,
    Hardware,
    Drain,
    Upgrade,
    BeginUpgrade,
    UpgradeData,
    RemoveNode,
    Waiting,
    WaitingNode,
    Approve,
    Jobs,
    Job,
    Submit,
    Plan,
    StopJob,
    Scale,
    Rebalance,
    Restart,
    Explain,
    Versions,
    Allocs,
    Logs,
    Events,
    Trace,
    Init,
    Join,
    CreateToken,
    Tokens,
    RevokeToken,
    Quotas,
    SetQuota,
    RemoveQuota,
    Doctor,
    Metrics,
    Prometheus(Kind),
    Healthz,
    Readyz,
    OpenApi,
    Reclock,
}

/// One row of the table.
#[derive(Debug)]
pub struct Route {
    /// HTTP method.
    pub method: &'static str,
    /// Path; a segment in braces stands for any text.
    pub path: &'static str,
    /// Query parameters that it knows.
    pub query: &'static [&'static str],
    /// Where it leads.
    pub endpoint: Endpoint,
}

const fn route(
    method: &'static str,
    path: &'static str,
    query: &'static [&'static str],
    endpoint: Endpoint,
) -> Route {
    Route { method, path, query, endpoint }
}

/// Parameters of Prometheus's API. What it knows beside these, and what others send, is ignored.
const INSTANT: &[&str] = &["query", "time", "timeout", "scope"];
const RANGE: &[&str] = &["query", "start", "end", "step", "timeout", "scope"];
const FIND: &[&str] = &["match[]", "start", "end", "limit", "timeout", "scope"];

/// The table.
pub const ROUTES: &[Route] = &[
    route("GET", "/v1/status", &[], Endpoint::Status),
    route("GET", "/v1/nodes", &[], Endpoint::Nodes),
    route("GET", "/v1/nodes/{name}", &[], Endpoint::Node),
    route("GET", "/v1/nodes/{name}/hardware", &[], Endpoint::Hardware),
    route("POST", "/v1/nodes/{name}/drain", &[], Endpoint::Drain),
    route("GET", "/v1/nodes/{name}/upgrade", &[], Endpoint::Upgrade),
    route("POST", "/v1/nodes/{name}/upgrade", &[], Endpoint::BeginUpgrade),
    route("PUT", "/v1/nodes/{name}/upgrade", &["offset"], Endpoint::UpgradeData),
    route("DELETE", "/v1/nodes/{name}", &["force"], Endpoint::RemoveNode),
    route("GET", "/v1/waiting", &[], Endpoint::Waiting),
    route("GET", "/v1/waiting/{name}", &[], Endpoint::WaitingNode),
    route("POST", "/v1/waiting/{name}/approve", &[], Endpoint::Approve),
    route("GET", "/v1/jobs", &[], Endpoint::Jobs),
    route("GET", "/v1/jobs/{name}", &[], Endpoint::Job),
    route("PUT", "/v1/jobs/{name}", &["expected_version"], Endpoint::Submit),
    route("POST", "/v1/plan", &[], Endpoint::Plan),
    route("POST", "/v1/rebalance", &[], Endpoint::Rebalance),
    route("DELETE", "/v1/jobs/{name}", &[], Endpoint::StopJob),
    route("POST", "/v1/jobs/{name}/scale", &[], Endpoint::Scale),
    route("POST", "/v1/jobs/{name}/restart", &[], Endpoint::Restart),
    route("GET", "/v1/jobs/{name}/explain", &[], Endpoint::Explain),
    route("GET", "/v1/jobs/{name}/versions", &[], Endpoint::Versions),
    route("GET", "/v1/allocs", &["job", "all"], Endpoint::Allocs),
    route(
        "GET",
        "/v1/jobs/{name}/logs",
        &["slot", "node", "follow", "tail", "stream", "previous", "epoch"],
        Endpoint::Logs,
    ),
    route("GET", "/v1/events", &["follow"], Endpoint::Events),
    route("POST", "/v1/traces", &[], Endpoint::Trace),
    route("POST", "/v1/fabric/init", &[], Endpoint::Init),
    route("POST", "/v1/fabric/join", &[], Endpoint::Join),
    route("POST", "/v1/fabric/reclock", &[], Endpoint::Reclock),
    route("POST", "/v1/tokens", &[], Endpoint::CreateToken),
    route("GET", "/v1/tokens", &[], Endpoint::Tokens),
    route("DELETE", "/v1/tokens/{id}", &[], Endpoint::RevokeToken),
    route("GET", "/v1/quotas", &[], Endpoint::Quotas),
    route("PUT", "/v1/quotas/{namespace}", &[], Endpoint::SetQuota),
    route("DELETE", "/v1/quotas/{namespace}", &[], Endpoint::RemoveQuota),
    route("GET", "/v1/doctor", &[], Endpoint::Doctor),
    route("GET", "/v1/openapi.json", &[], Endpoint::OpenApi),
    route("GET", "/api/v1/query", INSTANT, Endpoint::Prometheus(Kind::Query)),
    route("POST", "/api/v1/query", INSTANT, Endpoint::Prometheus(Kind::Query)),
    route("GET", "/api/v1/query_range", RANGE, Endpoint::Prometheus(Kind::QueryRange)),
    route("POST", "/api/v1/query_range", RANGE, Endpoint::Prometheus(Kind::QueryRange)),
    route("GET", "/api/v1/series", FIND, Endpoint::Prometheus(Kind::Series)),
    route("POST", "/api/v1/series", FIND, Endpoint::Prometheus(Kind::Series)),
    route("GET", "/api/v1/labels", FIND, Endpoint::Prometheus(Kind::Labels)),
    route("POST", "/api/v1/labels", FIND, Endpoint::Prometheus(Kind::Labels)),
    route("GET", "/api/v1/label/{name}/values", FIND, Endpoint::Prometheus(Kind::LabelValues)),
    route(
        "GET",
        "/api/v1/metadata",
        &["metric", "limit", "timeout", "scope"],
        Endpoint::Prometheus(Kind::Metadata),
    ),
    route("GET", "/api/v1/format_query", &["query"], Endpoint::Prometheus(Kind::FormatQuery)),
    route("POST", "/api/v1/format_query", &["query"], Endpoint::Prometheus(Kind::FormatQuery)),
    route("GET", "/api/v1/status/buildinfo", &[], Endpoint::Prometheus(Kind::BuildInfo)),
    route("GET", "/metrics", &[], Endpoint::Metrics),
    route("GET", "/healthz", &[], Endpoint::Healthz),
    route("GET", "/readyz", &[], Endpoint::Readyz),
];

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
    for route in ROUTES {
        let Some(name) = matches(route.path, path) else { continue };
        if route.method == method {
            return Found::Route(route, name);
        }
        others.push(route.method);
    }
    if others.is_empty() {
        Found::Nothing(nearest(path, ROUTES.iter().map(|route| route.path)))
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
            name = Some(decode(segment).filter(|text| !text.is_empty())?);
        } else if wanted != segment {
            return None;
        }
    }
    given.next().is_none().then_some(name)
}

/// Undoes percent-encoding (RFC 3986, section 2.1); `None` when it is malformed or not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| rest.get(at).and_then(|digit| (*digit as char).to_digit(16));
        bytes.push((digit(0)? * 16 + digit(1)?) as u8);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Reads the pairs of a query string or a form (application/x-www-form-urlencoded), whatever their names.
///
/// # Errors
/// Says which pair cannot be read.
pub fn form(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = |text: &str| decode(&text.replace('+', " "));
            read(name).zip(read(value)).ok_or_else(|| {
                let shown: String = pair.chars().take(80).collect();
                format!("{shown:?} is not percent-encoded UTF-8")
            })
        })
        .collect()
}

/// Reads a query string whose names must all be in `known`.
///
/// # Errors
/// Says which parameter is wrong and what it should be.
pub fn query(text: &str, known: &[&str]) -> Result<Vec<(String, String)>, String> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    for (name, value) in form(text)? {
        if !known.contains(&name.as_str()) {
            return Err(match nearest(&name, known.iter().copied()) {
                Some(near) => format!("unknown parameter {name:?}: did you mean {near:?}?"),
                None if known.is_empty() => {
                    format!("unknown parameter {name:?}: this path has none")
                }
                None => format!("unknown parameter {name:?}: there are {}", known.join(", ")),
            });
        }
        if parameters.iter().any(|(other, _)| *other == name) {
            return Err(format!("parameter {name:?} is there twice"));
        }
        parameters.push((name, value));
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests;
