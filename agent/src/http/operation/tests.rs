use super::*;
use crate::http::router::{Found, find};

fn read_from(method: &str, target: &str, body: &str) -> Result<Operation, Problem> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match find(method, path) {
        Found::Route(route, name) => read(route, name, query, body.as_bytes()),
        other => panic!("{method} {target} leads to {other:?}"),
    }
}

#[test]
fn requests_become_operations() {
    let job = || JobName::new("web").unwrap();
    let rows = [
        ("GET", "/v1/status", "", Operation::Status),
        ("GET", "/v1/nodes/a", "", Operation::Node("a".into())),
        (
            "POST",
            "/v1/nodes/a/drain",
            r#"{"on": true}"#,
            Operation::Drain { node: "a".into(), on: true },
        ),
        (
            "POST",
            "/v1/jobs/web/scale",
            r#"{"count": 3}"#,
            Operation::Scale { job: job(), count: 3 },
        ),
        ("POST", "/v1/jobs/web/restart", "", Operation::Restart { job: job(), slot: None }),
        (
            "POST",
            "/v1/jobs/web/restart",
            r#"{"slot": 2}"#,
            Operation::Restart { job: job(), slot: Some(2) },
        ),
        (
            "GET",
            "/v1/allocs?job=web&all=true",
            "",
            Operation::Allocs { job: Some(job()), all: true },
        ),
        ("GET", "/v1/allocs", "", Operation::Allocs { job: None, all: false }),
        (
            "GET",
            "/v1/jobs/web/logs?slot=1&node=rack%201&follow=true&tail=7&stream=stderr",
            "",
            Operation::Logs(LogQuery {
                job: job(),
                slot: 1,
                node: Some("rack 1".into()),
                stream: LogStream::Stderr,
                tail: 7,
                follow: true,
                of: LogOf::Newest,
            }),
        ),
        (
            "GET",
            "/v1/jobs/web/logs",
            "",
            Operation::Logs(LogQuery {
                job: job(),
                slot: 0,
                node: None,
                stream: LogStream::Both,
                tail: TAIL_LINES,
                follow: false,
                of: LogOf::Newest,
            }),
        ),
        (
            "GET",
            "/v1/jobs/web/logs?epoch=3&previous=false",
            "",
            Operation::Logs(LogQuery {
                job: job(),
                slot: 0,
                node: None,
                stream: LogStream::Both,
                tail: TAIL_LINES,
                follow: false,
                of: LogOf::Epoch(3),
            }),
        ),
        ("POST", "/v1/fabric/init", "", Operation::Init(api::Init { name: None })),
        (
            "POST",
            "/v1/fabric/join",
            r#"{"token": "weft1.a.b.c", "address": "[fe80::1%2]:7401"}"#,
            Operation::Join(api::Join {
                token: "weft1.a.b.c".into(),
                address: Some("[fe80::1%2]:7401".parse().unwrap()),
            }),
        ),
        (
            "POST",
            "/v1/tokens",
            r#"{"lifetime": "30m", "labels": {"rack": "r1"}}"#,
            Operation::CreateToken {
                lifetime: Duration::from_secs(1800),
                labels: BTreeMap::from([("rack".into(), "r1".into())]),
            },
        ),
        (
            "POST",
            "/v1/tokens",
            "",
            Operation::CreateToken { lifetime: TOKEN_LIFETIME, labels: BTreeMap::new() },
        ),
        (
            "PUT",
            "/v1/quotas/team",
            r#"{"quota": {"cpu_millis": 8000, "devices": {"gpu": 2}}}"#,
            Operation::SetQuota {
                namespace: Namespace::new("team").unwrap(),
                wanted: api::SetQuota {
                    quota: fabric::quota::Quota {
                        cpu_millis: Some(8000),
                        devices: BTreeMap::from([("gpu".into(), 2)]),
                        ..Default::default()
                    },
                    force: false,
                },
            },
        ),
        ("GET", "/v1/quotas", "", Operation::Quotas),
        ("POST", "/v1/fabric/reclock", "", Operation::Reclock),
        ("DELETE", "/v1/quotas/team", "", Operation::RemoveQuota(Namespace::new("team").unwrap())),
        ("DELETE", "/v1/tokens/abc", "", Operation::RevokeToken(TokenId("abc".into()))),
    ];
    for (method, target, body, wanted) in rows {
        assert_eq!(read_from(method, target, body).unwrap(), wanted, "{method} {target} {body}");
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
    let of = |body: &str| match read_from("PUT", "/v1/jobs/web", body) {
        Ok(Operation::Submit { spec, .. }) => *spec,
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
    let deep = "[".repeat(super::super::BODY_BYTES_MAX);
    assert_eq!(read_from("POST", "/v1/plan", &deep).unwrap_err().kind, ProblemKind::Invalid);
}
