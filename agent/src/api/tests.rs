use super::*;
use crate::api::logs::{LogOf, LogStream};
use crate::identity::Identity;
use fabric::clock::{Instant, WallTime};
use fabric::id::{JobName, Namespace, NodeId};
use fabric::node::{Config, Origin};
use fabric::quota::Quota;
use fabric::table::TokenId;
use fabric::topology::NodeInfo;
use proptest::prelude::*;
use serde_json::Value;
use std::sync::Arc;

mod document;

pub(crate) const NOW: Now =
    Now { at: Instant::at(Duration::ZERO), wall: WallTime(1_700_000_000_000) };

/// The first one of a new fabric.
pub(crate) fn node(state: &tempfile::TempDir) -> Node {
    let identity = Arc::new(Identity::load_or_create(state.path()).unwrap());
    let config = Config {
        id: identity.id(),
        info: NodeInfo { name: "n1".into(), ..NodeInfo::default() },
        fabric: NodeId([9; 32]),
        fabric_name: "tests".into(),
        signer: identity,
        generation: 1,
        seed: 1,
        canary: None,
        level: fabric::level::LEVEL,
        bounds: fabric::table::Bounds::default(),
    };
    Node::new(NOW, config, Origin::Founded { gossip_key: [7; 32] })
}

/// What becomes of an operation.
#[derive(Debug, PartialEq)]
enum Does {
    Agent(AgentVerb),
    Wish(Request),
    Read(Value),
}

fn read_from(method: &str, target: &str, body: &str) -> Result<Operation, Problem> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match find(method, path) {
        Found::Route(route, name) => route.read(&Came {
            name: name.as_deref(),
            query,
            body: body.as_bytes(),
            ..Came::default()
        }),
        other => panic!("{method} {target} leads to {other:?}"),
    }
}

fn read(value: &impl serde::Serialize) -> Does {
    Does::Read(serde_json::to_value(value).expect("it has a JSON form"))
}

/// What a request leads to, of which `node` answers what is read and hears what somebody wishes.
fn carried_out(node: &Node, method: &str, target: &str, body: &str) -> Does {
    let operation = read_from(method, target, body);
    match operation.unwrap_or_else(|problem| panic!("{method} {target} {body}: {problem}")) {
        Operation::Agent(verb) => Does::Agent(verb),
        Operation::Wish(wish) => Does::Wish(wish(node, "somebody@n1").expect("a request")),
        Operation::Read(read) => match read(node, NOW) {
            Ok(Reply::Json(json)) => Does::Read(serde_json::from_slice(&json).expect("JSON")),
            other => panic!("{method} {target}: {other:?}"),
        },
        known => panic!("{method} {target}: {known:?}"),
    }
}

/// A node with a job.
fn node_with_a_job(state: &tempfile::TempDir) -> Node {
    let mut node = node(state);
    let spec = fabric::job::parse(SPEC).expect("a job");
    let request =
        Request::Submit { spec: Box::new(spec), by: "somebody".into(), expected_version: None };
    node.handle(NOW, fabric::io::Input::Request { id: 1, request });
    node
}

const SPEC: &str = "name = \"web\"\n[task]\ncommand = [\"/bin/true\"]\n";
/// The same.
const SPEC_JSON: &str = r#"{"name": "web", "task": {"command": ["/bin/true"]}}"#;

/// Method, path with a query, body, and what becomes of it.
type Row = (&'static str, &'static str, &'static str, Does);

fn job() -> JobName {
    JobName::new("web").expect("a name")
}

fn spec() -> Box<fabric::job::JobSpec> {
    Box::new(fabric::job::parse(SPEC).expect("a job"))
}

fn by() -> String {
    "somebody@n1".into()
}

fn rows_of_nodes(node: &Node) -> Vec<Row> {
    let (id, agent, wish) = (node.id(), Does::Agent, Does::Wish);
    vec![
        ("GET", "/v1/status", "", agent(AgentVerb::Status)),
        ("GET", "/v1/doctor", "", agent(AgentVerb::Doctor)),
        ("GET", "/healthz", "", agent(AgentVerb::Healthz)),
        ("GET", "/readyz", "", agent(AgentVerb::Readyz)),
        ("GET", "/v1/events?follow=1", "", agent(AgentVerb::Events { follow: true })),
        ("GET", "/v1/nodes", "", read(&node.nodes())),
        ("GET", "/v1/nodes/n1", "", read(&node.node_view(id))),
        ("GET", "/v1/nodes/a/hardware", "", agent(AgentVerb::Hardware("a".into()))),
        (
            "DELETE",
            "/v1/nodes/a?force=true",
            "",
            agent(AgentVerb::RemoveNode { node: "a".into(), force: true }),
        ),
        (
            "POST",
            "/v1/nodes/n1/drain",
            r#"{"on": true}"#,
            wish(Request::Drain { node: id, on: true }),
        ),
        (
            "GET",
            "/v1/nodes/a/upgrade",
            "",
            agent(AgentVerb::Upgrade { node: "a".into(), step: Step::Look }),
        ),
        (
            "PUT",
            "/v1/nodes/a/upgrade?offset=3",
            "abc",
            agent(AgentVerb::Upgrade {
                node: "a".into(),
                step: Step::Data { offset: 3, bytes: b"abc".to_vec() },
            }),
        ),
        ("GET", "/v1/waiting", "", agent(AgentVerb::Waiting)),
        ("GET", "/v1/waiting/a", "", agent(AgentVerb::WaitingNode("a".into()))),
        ("POST", "/v1/waiting/a/approve", "", agent(AgentVerb::Approve("a".into()))),
        ("GET", "/metrics", "", agent(AgentVerb::Metrics(Format::Prometheus))),
    ]
}

fn rows_of_jobs(node: &Node) -> Vec<Row> {
    let (agent, wish) = (Does::Agent, Does::Wish);
    let log = || LogQuery {
        job: job(),
        slot: 0,
        node: None,
        stream: LogStream::Both,
        tail: 100,
        follow: false,
        of: LogOf::Newest,
    };
    vec![
        ("GET", "/v1/jobs", "", read(&node.jobs())),
        ("GET", "/v1/jobs/web", "", read(&node.job(&job()).unwrap())),
        (
            "PUT",
            "/v1/jobs/web?expected_version=7",
            SPEC_JSON,
            wish(Request::Submit { spec: spec(), by: by(), expected_version: Some(7) }),
        ),
        ("DELETE", "/v1/jobs/web", "", wish(Request::Stop { job: job() })),
        ("POST", "/v1/plan", SPEC_JSON, read(&node.plan(NOW, &spec()).unwrap())),
        ("GET", "/v1/jobs/web/explain", "", read(&node.explain(NOW, &job()).unwrap())),
        (
            "POST",
            "/v1/jobs/web/scale",
            r#"{"count": 3}"#,
            wish(Request::Scale { job: job(), count: 3, by: by() }),
        ),
        ("POST", "/v1/jobs/web/restart", "", wish(Request::RestartJob { job: job(), by: by() })),
        (
            "POST",
            "/v1/jobs/web/restart",
            r#"{"slot": 2}"#,
            wish(Request::RestartSlot { job: job(), index: 2 }),
        ),
        ("GET", "/v1/allocs?job=web&all=true", "", read(&node.allocs(Some(&job()), true))),
        ("GET", "/v1/allocs", "", read(&node.allocs(None, false))),
        (
            "GET",
            "/v1/jobs/web/logs?slot=1&node=rack%201&follow=true&tail=7&stream=stderr",
            "",
            agent(AgentVerb::Logs(LogQuery {
                slot: 1,
                node: Some("rack 1".into()),
                stream: LogStream::Stderr,
                tail: 7,
                follow: true,
                ..log()
            })),
        ),
        ("GET", "/v1/jobs/web/logs", "", agent(AgentVerb::Logs(log()))),
        (
            "GET",
            "/v1/jobs/web/logs?epoch=3&previous=false",
            "",
            agent(AgentVerb::Logs(LogQuery { of: LogOf::Epoch(3), ..log() })),
        ),
        (
            "GET",
            "/v1/jobs/web/logs?previous=true",
            "",
            agent(AgentVerb::Logs(LogQuery { of: LogOf::Previous, ..log() })),
        ),
    ]
}

fn rows_of_fabrics(node: &Node) -> Vec<Row> {
    let (agent, wish) = (Does::Agent, Does::Wish);
    vec![
        ("POST", "/v1/fabric/init", "", agent(AgentVerb::Init(api::Init { name: None }))),
        (
            "POST",
            "/v1/fabric/join",
            r#"{"token": "weft1.a.b.c", "address": "[fe80::1%2]:7401"}"#,
            agent(AgentVerb::Join(api::Join {
                token: "weft1.a.b.c".into(),
                address: Some("[fe80::1%2]:7401".parse().unwrap()),
            })),
        ),
        ("POST", "/v1/fabric/reclock", "", wish(Request::Reclock)),
        (
            "POST",
            "/v1/rebalance",
            "",
            wish(Request::Rebalance { wish: api::RebalanceBody::default() }),
        ),
        (
            "POST",
            "/v1/tokens",
            r#"{"lifetime": "30m", "labels": {"rack": "r1"}}"#,
            agent(AgentVerb::CreateToken {
                lifetime: Duration::from_secs(1800),
                labels: BTreeMap::from([("rack".into(), "r1".into())]),
            }),
        ),
        (
            "POST",
            "/v1/tokens",
            "",
            agent(AgentVerb::CreateToken {
                lifetime: Duration::from_secs(3600),
                labels: BTreeMap::new(),
            }),
        ),
        ("GET", "/v1/tokens", "", read(&node.tokens(NOW))),
        ("DELETE", "/v1/tokens/abc", "", wish(Request::RevokeToken { id: TokenId("abc".into()) })),
        (
            "PUT",
            "/v1/quotas/team",
            r#"{"quota": {"cpu_millis": 8000, "devices": {"gpu": 2}}}"#,
            wish(Request::SetQuota {
                namespace: Namespace::new("team").unwrap(),
                quota: Quota {
                    cpu_millis: Some(8000),
                    devices: BTreeMap::from([("gpu".into(), 2)]),
                    ..Default::default()
                },
                force: false,
            }),
        ),
        ("GET", "/v1/quotas", "", read(&node.quotas())),
        (
            "DELETE",
            "/v1/quotas/team",
            "",
            wish(Request::RemoveQuota { namespace: Namespace::new("team").unwrap() }),
        ),
    ]
}

#[test]
fn requests_become_operations() {
    let state = tempfile::tempdir().unwrap();
    let node = node_with_a_job(&state);
    let rows =
        [rows_of_nodes(&node), rows_of_jobs(&node), rows_of_fabrics(&node)].into_iter().flatten();
    for (method, target, body, wanted) in rows {
        let got = carried_out(&node, method, target, body);
        assert_eq!(got, wanted, "{method} {target} {body}");
    }
    let traced = carried_out(
        &node,
        "POST",
        "/v1/traces",
        r#"{"job": "web", "what": "profile", "for": "2s"}"#,
    );
    let Does::Agent(AgentVerb::Trace { wanted, time }) = traced else { panic!("{traced:?}") };
    assert_eq!((wanted.job, time), (job(), Duration::from_secs(2)));
}

#[test]
fn allocations_are_of_one_job_or_of_all_and_ended_ones_are_asked_for() {
    let of = |query| {
        let came = Came { query, ..Came::default() };
        let route = jobs::ROUTES.iter().find(|route| route.path == "/v1/allocs").unwrap();
        jobs::which_allocs(&Given::of(route, &came).unwrap()).unwrap()
    };
    assert_eq!(of("job=web&all=true"), (Some(JobName::new("web").unwrap()), true));
    assert_eq!(of(""), (None, false));
}

#[test]
fn what_cannot_be_read_is_a_problem_and_who_is_meant_is_looked_up_by_who_knows() {
    let state = tempfile::tempdir().unwrap();
    let node = node(&state);
    let Ok(Operation::Wish(wish)) = read_from("POST", "/v1/nodes/a/drain", r#"{"on": true}"#)
    else {
        panic!("not a wish")
    };
    assert_eq!(wish(&node, "somebody").unwrap_err().kind, ProblemKind::NotFound);
    for target in ["/v1/nodes/a", "/v1/jobs/web", "/v1/jobs/web/explain"] {
        let Ok(Operation::Read(read)) = read_from("GET", target, "") else { panic!("{target}") };
        assert_eq!(read(&node, NOW).unwrap_err().kind, ProblemKind::NotFound, "{target}");
    }
}

#[test]
fn nonsense_is_refused_with_its_name() {
    let rows = [
        ("GET", "/v1/jobs/UPPER", "", "not a job name"),
        ("PUT", "/v1/quotas/A", "{}", "not a namespace"),
        ("PUT", "/v1/quotas/a", r#"{"quota": {"cores": 1}}"#, "cores"),
        ("GET", "/v1/jobs/web?a=1", "", "unknown parameter"),
        ("POST", "/v1/jobs/web/scale", "", "EOF"),
        ("POST", "/v1/jobs/web/scale", r#"{"count": -1}"#, "u32"),
        ("POST", "/v1/jobs/web/scale", r#"{"cuont": 1}"#, "cuont"),
        ("POST", "/v1/jobs/web/scale", r#"{"count": 4000000000}"#, "allowed"),
        ("POST", "/v1/nodes/a/drain", r#"{"on": 1}"#, "boolean"),
        ("GET", "/v1/jobs/web/logs?slot=x", "", "slot=x"),
        ("GET", "/v1/jobs/web/logs?tail=99999999", "", "tail"),
        ("GET", "/v1/jobs/web/logs?stream=all", "", "stdout, stderr or both"),
        ("GET", "/v1/events?follow=maybe", "", "true or false"),
        ("POST", "/v1/fabric/init", r#"{"name": "Not A Name"}"#, "a-z"),
        ("POST", "/v1/fabric/join", "{}", "token"),
        ("POST", "/v1/fabric/join", r#"{"token": "x", "address": "nowhere"}"#, "address"),
        ("POST", "/v1/tokens", r#"{"lifetime": "0s"}"#, "30m, 1h or 7d"),
        ("POST", "/v1/tokens", r#"{"lifetime": "31d"}"#, "30m, 1h or 7d"),
        ("POST", "/v1/tokens", r#"{"lifetime": "soon"}"#, "30m, 1h or 7d"),
        ("PUT", "/v1/jobs/web", "{", "EOF"),
        ("PUT", "/v1/jobs/web", "\u{0}", "expected value"),
        ("POST", "/v1/plan", "[]", "JobSpec"),
        ("PUT", "/v1/jobs/web", r#"{"name": "web"}"#, "missing field `task`"),
        (
            "PUT",
            "/v1/jobs/web",
            r#"{"name": "web", "task": {"command": ["/bin/true"]}, "cuont": 3}"#,
            "unknown field `cuont`",
        ),
        (
            "POST",
            "/v1/plan",
            r#"{"name": "web", "task": {"command": ["/bin/true"], "sandbox": {"wirtable": []}}}"#,
            "unknown field `task.sandbox.wirtable`",
        ),
        (
            "POST",
            "/v1/plan",
            r#"{"name": "web", "task": {"command": ["/bin/true"]}, "ports": [{"name": "a", "fixd": 1}]}"#,
            "unknown field `ports.0.fixd`",
        ),
    ];
    for (method, target, body, wanted) in rows {
        let problem = read_from(method, target, body).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Invalid, "{method} {target} {body}");
        let text = problem.to_string();
        assert!(text.contains(wanted), "{method} {target} {body}: {text}");
    }
}

#[test]
fn what_a_job_does_not_mention_is_as_in_a_job_file() {
    let state = tempfile::tempdir().unwrap();
    let node = node(&state);
    let of = |body: &str| match carried_out(&node, "PUT", "/v1/jobs/web", body) {
        Does::Wish(Request::Submit { spec, .. }) => *spec,
        other => panic!("{other:?}"),
    };
    let short = r#"{"name": "web", "task": {"command": ["/bin/true"]}}"#;
    let file = "name = \"web\"\n[task]\ncommand = [\"/bin/true\"]\n";
    assert_eq!(of(short), fabric::job::parse(file).unwrap());
    let more = r#"{
        "name": "web", "count": 3,
        "task": {"command": ["/bin/true"], "env": {"A": "b"}, "sandbox": {"home": true}},
        "resources": {"memory": 1073741824}, "ports": [{"name": "http"}],
        "health": {"check": {"http": {"path": "/", "port": "http"}}},
        "placement": {"spread": "name", "affinity": [{"if": "arch == x86_64", "weight": 50}]},
        "update": {"max_parallel": 2}, "restart": {"attempts": 1}
    }"#;
    let file = "name = \"web\"\ncount = 3\n[task]\ncommand = [\"/bin/true\"]\nenv = { A = \"b\" }\n\
        sandbox = { home = true }\n[resources]\nmemory = \"1GiB\"\n[[port]]\nname = \"http\"\n\
        [health]\nhttp = \"/\"\n[placement]\nspread = \"name\"\n\
        affinity = [{ if = \"arch == x86_64\", weight = 50 }]\n[update]\nmax_parallel = 2\n\
        [restart]\nattempts = 1\n";
    assert_eq!(of(more), fabric::job::parse(file).unwrap_or_else(|error| panic!("{error}")));
    // What the agent says of a job can be sent back as it is.
    let whole = serde_json::to_string(&of(more)).unwrap();
    assert_eq!(of(&whole), of(more));
}

#[test]
fn a_deep_body_is_refused_and_not_descended_into() {
    let deep = "[".repeat(crate::http::BODY_BYTES_MAX);
    assert_eq!(read_from("POST", "/v1/plan", &deep).unwrap_err().kind, ProblemKind::Invalid);
}

/// Method, path, and the row that it leads to.
#[test]
fn paths_lead_where_the_table_says() {
    let found = |method, path| match find(method, path) {
        Found::Route(Route { method, path, .. }, name) => {
            format!("{method} {path} {}", name.unwrap_or_default())
        }
        Found::OtherMethods(methods) => format!("only {}", methods.join(" ")),
        Found::Nothing(near) => format!("near {}", near.unwrap_or("nothing")),
    };
    let rows = [
        ("GET", "/v1/status", "GET /v1/status "),
        ("GET", "/v1/nodes/a", "GET /v1/nodes/{name} a"),
        ("GET", "/v1/nodes/a%2fb", "GET /v1/nodes/{name} a/b"),
        ("GET", "/v1/nodes/", "near /v1/nodes"),
        ("DELETE", "/v1/jobs/web", "DELETE /v1/jobs/{name} web"),
        ("PUT", "/v1/jobs/web", "PUT /v1/jobs/{name} web"),
        ("POST", "/v1/jobs/web/scale", "POST /v1/jobs/{name}/scale web"),
        ("PATCH", "/v1/jobs/web", "only GET PUT DELETE"),
        ("HEAD", "/v1/status", "only GET"),
        ("GET", "/v1/stauts", "near /v1/status"),
        ("GET", "/v1/jobs/%zz", "near /v1/jobs"),
        ("GET", "/v1/jobs/%ff", "near /v1/jobs"),
    ];
    for (method, path, wanted) in rows {
        let got = found(method, path);
        // The nearest path is a hint: that there is one is what counts.
        let same = if wanted.starts_with("near") { got.starts_with("near") } else { got == wanted };
        assert!(same, "{method} {path}: {got} instead of {wanted}");
    }
    assert_eq!(found("GET", "/v1/stauts"), "near /v1/status");
}

#[test]
fn no_method_and_path_is_there_twice() {
    let mut seen = std::collections::BTreeSet::new();
    for route in ROUTES.iter().copied().flatten() {
        // What stands in braces is any text.
        let shape = route.path.split('{').next().unwrap_or_default().to_owned()
            + route.path.split('}').nth(1).unwrap_or_default();
        assert!(seen.insert((route.method, shape)), "{} {}", route.method, route.path);
    }
}

/// Rows for which a role is needed that the one before it does not have.
fn rows_of(role: Role) -> Vec<String> {
    let rows = ROUTES.iter().copied().flatten().filter(|route| route.role == role);
    rows.map(|route| format!("{} {}", route.method, route.path)).collect()
}

#[test]
fn each_role_may_use_its_rows_and_those_of_the_roles_before_it() {
    assert!(Role::Measure < Role::Look && Role::Look < Role::Operate && Role::Operate < Role::Own);
    assert_eq!(
        rows_of(Role::Measure),
        [
            "GET /healthz",
            "GET /readyz",
            "GET /api/v1/query",
            "POST /api/v1/query",
            "GET /api/v1/query_range",
            "POST /api/v1/query_range",
            "GET /api/v1/series",
            "POST /api/v1/series",
            "GET /api/v1/labels",
            "POST /api/v1/labels",
            "GET /api/v1/label/{name}/values",
            "GET /api/v1/metadata",
            "GET /api/v1/format_query",
            "POST /api/v1/format_query",
            "GET /api/v1/status/buildinfo",
            "GET /metrics",
        ]
    );
    assert_eq!(
        rows_of(Role::Look),
        [
            "GET /v1/status",
            "GET /v1/doctor",
            "GET /v1/events",
            "GET /v1/openapi.json",
            "GET /v1/nodes",
            "GET /v1/nodes/{name}",
            "GET /v1/nodes/{name}/hardware",
            "GET /v1/nodes/{name}/upgrade",
            "GET /v1/waiting",
            "GET /v1/waiting/{name}",
            "GET /v1/jobs",
            "GET /v1/jobs/{name}",
            "POST /v1/plan",
            "GET /v1/jobs/{name}/explain",
            "GET /v1/jobs/{name}/versions",
            "GET /v1/allocs",
            "GET /v1/jobs/{name}/logs",
            "GET /v1/quotas",
        ]
    );
    assert_eq!(
        rows_of(Role::Operate),
        [
            "POST /v1/nodes/{name}/drain",
            "PUT /v1/jobs/{name}",
            "DELETE /v1/jobs/{name}",
            "POST /v1/jobs/{name}/scale",
            "POST /v1/jobs/{name}/restart",
            "POST /v1/traces",
            "POST /v1/rebalance",
        ]
    );
    assert_eq!(
        rows_of(Role::Own),
        [
            "DELETE /v1/nodes/{name}",
            "POST /v1/nodes/{name}/upgrade",
            "PUT /v1/nodes/{name}/upgrade",
            "POST /v1/waiting/{name}/approve",
            "POST /v1/fabric/init",
            "POST /v1/fabric/join",
            "POST /v1/fabric/reclock",
            "POST /v1/tokens",
            "GET /v1/tokens",
            "DELETE /v1/tokens/{id}",
            "PUT /v1/quotas/{namespace}",
            "DELETE /v1/quotas/{namespace}",
        ]
    );
}

#[test]
fn what_needs_no_more_than_a_look_wishes_for_nothing() {
    for route in ROUTES.iter().copied().flatten().filter(|route| route.role <= Role::Look) {
        let path = route.path.replace("{name}", "web");
        let operation = read_from(route.method, &path, SPEC_JSON);
        let wishes = matches!(operation, Ok(Operation::Wish(_)));
        assert!(!wishes, "{} {path}", route.method);
    }
}

#[test]
fn other_members_may_ask_about_what_one_node_alone_has() {
    let of = |peers| {
        let rows = ROUTES.iter().copied().flatten().filter(|route| route.peers == peers);
        rows.map(|route| format!("{} {}", route.method, route.path)).collect::<Vec<_>>()
    };
    assert_eq!(
        of(Peers::Relayed),
        [
            "GET /v1/nodes/{name}/hardware",
            "GET /v1/nodes/{name}/upgrade",
            "GET /v1/jobs/{name}/logs",
            "POST /v1/traces",
        ]
    );
    assert_eq!(
        of(Peers::Direct),
        ["POST /v1/nodes/{name}/upgrade", "PUT /v1/nodes/{name}/upgrade"]
    );
}

proptest! {
    #[test]
    fn no_path_is_too_strange(method in "[A-Z]{0,8}", path in "\\PC{0,60}") {
        let _ = find(&method, &path);
        let _ = find("GET", &format!("/v1/nodes/{path}"));
    }
}
