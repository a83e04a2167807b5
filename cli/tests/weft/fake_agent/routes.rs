//! What the fake answers to which path.

use bytes::Bytes;
use fabric::table::TokenId;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::convert::Infallible;

use super::*;

type Body = Either<Full<Bytes>, Channel<Bytes>>;

fn json(status: u16, value: &impl serde::Serialize) -> Response<Body> {
    let body = Full::new(Bytes::from(serde_json::to_vec(value).unwrap()));
    Response::builder().status(status).body(Either::Left(body)).unwrap()
}

fn problem(kind: ProblemKind, title: &str, detail: &str) -> Response<Body> {
    let problem = Problem::new(kind, title, detail);
    json(problem.status, &problem)
}

fn no_such(what: &str) -> Response<Body> {
    problem(ProblemKind::NotFound, &format!("there is no {what}"), "look again")
}

pub(super) async fn respond(
    state: Rc<RefCell<State>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let query: BTreeMap<String, String> = request
        .uri()
        .query()
        .unwrap_or("")
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    state.borrow_mut().requests.push(format!("{method} {}", request.uri()));
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if let Some(asked) = path.strip_prefix("/api/v1/") {
        let (status, answer) = prometheus::answer(&state.borrow(), asked, &query);
        return Ok(json(status, &answer));
    }
    let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    Ok(route(&mut state.borrow_mut(), &method, &parts, &query, &body))
}

fn route(
    state: &mut State,
    method: &str,
    parts: &[&str],
    query: &BTreeMap<String, String>,
    body: &[u8],
) -> Response<Body> {
    let parse_job = |name: &str| JobName::new(name).unwrap();
    match (method, parts) {
        ("GET", ["status"]) => json(200, &state.status()),
        ("GET", ["doctor"]) => json(200, &state.findings),
        ("GET", ["nodes"]) => {
            let all = 0..state.nodes.len();
            json(200, &all.map(|index| node_view(state, index)).collect::<Vec<_>>())
        }
        (_, ["nodes", id, rest @ ..]) => node_route(state, method, id, rest, body),
        ("GET", ["waiting"]) => json(200, &state.waiting),
        (_, ["waiting", wanted, rest @ ..]) => {
            let means = |one: &&serde_json::Value| one["name"] == *wanted || one["node"] == *wanted;
            match (state.waiting.iter().find(means).cloned(), method, rest) {
                (None, ..) => {
                    let detail = "these wait: board (3fa9-1c22-0b7e-99ad-5c01)";
                    problem(ProblemKind::NotFound, &format!("no {wanted:?} waits"), detail)
                }
                (Some(one), "GET", []) => json(200, &one),
                (Some(mut one), "POST", ["approve"]) => {
                    one["address"] = one["addresses"][0].clone();
                    json(200, &one)
                }
                _ => no_such("path"),
            }
        }
        ("GET", ["jobs"]) => {
            let jobs: Vec<_> = state.jobs.keys().filter_map(|name| state.job_view(name)).collect();
            json(200, &jobs)
        }
        ("GET", ["allocs"]) => {
            state.look();
            json(200, &state.alloc_views(query.get("job").map(String::as_str)))
        }
        ("POST", ["plan"]) => {
            let plan = state.plan(&serde_json::from_slice(body).unwrap());
            if std::mem::take(&mut state.interfere) {
                state.submit(JobSpec::service(plan.job.clone(), vec!["/bin/other".into()]));
            }
            json(200, &plan)
        }
        ("POST", ["rebalance"]) => {
            let wish: RebalanceBody = serde_json::from_slice(body).unwrap();
            json(200, &state.rebalance(wish))
        }
        ("PUT", ["jobs", name]) => {
            let spec: JobSpec = serde_json::from_slice(body).unwrap();
            assert_eq!(spec.name.as_str(), *name);
            let version = state.jobs.get(&spec.name).map_or(0, |job| job.version);
            if query["expected_version"] != version.to_string() {
                return problem(ProblemKind::Conflict, "the job has changed", "plan again");
            }
            json(200, &state.submit(spec))
        }
        (_, ["jobs", name, rest @ ..]) => {
            let name = parse_job(name);
            match state.job_view(&name) {
                Some(view) => job_route(state, method, view, rest, query, body),
                None => no_such("job"),
            }
        }
        ("GET", ["events"]) => {
            let event = |what| Event { at: WallTime(0), node: state.nodes[0].id, what };
            let events = [
                event(EventKind::Node {
                    subject: state.nodes[1].id,
                    name: "node2".into(),
                    state: NodeState::Dead,
                }),
                event(EventKind::Alloc {
                    alloc: AllocId::new(parse_job("web"), 0, 2),
                    on: state.nodes[0].id,
                    phase: Phase::Running,
                    healthy: true,
                    message: "".into(),
                }),
            ];
            let text: String = events
                .iter()
                .map(|event| {
                    format!(
                        ": beat\nevent: event\ndata: {}\n\n",
                        serde_json::to_string(event).unwrap()
                    )
                })
                .collect();
            Response::new(Either::Left(Full::new(text.into())))
        }
        ("POST", ["traces"]) => trace(state, serde_json::from_slice(body).unwrap()),
        ("POST", ["fabric", "init"]) => match state.fabric {
            Some(_) => problem(ProblemKind::Conflict, "already in a fabric", "leave it first"),
            None => {
                let init: Init = serde_json::from_slice(body).unwrap();
                let name = init.name.unwrap_or_else(|| "weft".into());
                state.fabric = Some(name.clone());
                json(
                    200,
                    &Joined {
                        fabric: name,
                        key: NodeId([7; 32]),
                        node: state.nodes[0].id,
                        by: None,
                    },
                )
            }
        },
        ("POST", ["fabric", "join"]) => {
            let join: Join = serde_json::from_slice(body).unwrap();
            if join.token != "weft1.a.b.c" {
                return problem(
                    ProblemKind::Forbidden,
                    "the token is refused",
                    "ask for a new one",
                );
            }
            let by = Some("node2".into());
            json(
                200,
                &Joined {
                    fabric: "test".into(),
                    key: NodeId([7; 32]),
                    node: state.nodes[0].id,
                    by,
                },
            )
        }
        ("GET", ["quotas"]) => json(200, &state.quotas),
        ("PUT", ["quotas", namespace]) => {
            let wanted: SetQuota = serde_json::from_slice(body).unwrap();
            let used = Amount { cpu_millis: 6000, allocs: 6, disk: 3 << 30, ..Amount::default() };
            if wanted.quota.check(&used).is_err() && !wanted.force {
                let detail = "it would stop web/5: repeat with --force";
                let problem = Problem::new(ProblemKind::Conflict, "namespace has more", detail);
                return json(409, &problem);
            }
            let namespace = Namespace::new(namespace).unwrap();
            state.quotas.retain(|quota| quota.namespace != namespace);
            state.quotas.push(QuotaView { namespace, quota: wanted.quota, used });
            json(200, &())
        }
        ("DELETE", ["quotas", namespace]) => {
            let before = state.quotas.len();
            state.quotas.retain(|quota| quota.namespace.as_str() != *namespace);
            if state.quotas.len() < before { json(200, &()) } else { no_such("quota") }
        }
        ("POST", ["fabric", "reclock"]) => json(200, &()),
        ("GET", ["tokens"]) => json(200, &state.tokens),
        ("POST", ["tokens"]) => {
            let create: CreateToken = serde_json::from_slice(body).unwrap();
            assert!(create.lifetime.is_none_or(|lifetime| lifetime == "10m"));
            let token =
                TokenView { id: TokenId("b".into()), expires: WallTime(1), labels: create.labels };
            state.tokens.push(token.clone());
            json(
                200,
                &TokenCreated { token: "weft1.a.b.c".into(), id: token.id, expires: token.expires },
            )
        }
        ("DELETE", ["tokens", id]) => {
            let before = state.tokens.len();
            state.tokens.retain(|token| token.id.0 != *id);
            if state.tokens.len() < before { json(200, &()) } else { no_such("token") }
        }
        _ => no_such("page"),
    }
}

/// Sees what there is to see at once. There is room for one profile at a time, and node3 cannot do it.
fn trace(state: &mut State, wanted: TraceBody) -> Response<Body> {
    let wanted_node = wanted.node.unwrap();
    let node = state.nodes.iter().find(|node| node.id.to_string() == wanted_node).unwrap();
    if node.name == "node3" {
        let why = "loading eBPF programs needs CAP_BPF";
        return problem(ProblemKind::Unavailable, "this node cannot do that", why);
    }
    if state.tracing {
        let why = "running here: profile of web for 7 s more";
        return problem(ProblemKind::Conflict, "other traces have the room there is", why);
    }
    let slot = format!("{}/{}", wanted.job, wanted.slot.unwrap_or(0));
    let started = TraceEvent::Started {
        node: node.name.clone(),
        slots: vec![slot.clone()],
        seconds: fabric::job::duration::parse(&wanted.time).unwrap().as_secs_f64(),
    };
    let seen = match wanted.what {
        TraceWhat::Syscalls => TraceEvent::Calls {
            calls: vec![TracedCall {
                call: "read".into(),
                calls: 20,
                errors: 1,
                total_ns: 5_000_000,
                p50_ns: 1000,
                p99_ns: 64_000,
                max_ns: 90_000,
            }],
        },
        TraceWhat::Profile | TraceWhat::OffCpu => TraceEvent::Stacks {
            unit: "samples".into(),
            folded: vec![("web;main;work".into(), 30), ("web;main".into(), 2)],
        },
        TraceWhat::Exec | TraceWhat::Files | TraceWhat::Net => TraceEvent::Events {
            events: vec![Traced {
                at_ns: 1,
                slot,
                process: 812,
                parent: 7,
                name: "web\u{1b}[2J".into(),
                path: "/etc/web.conf".into(),
                result: -2,
            }],
        },
    };
    let ends = match state.fails {
        true => TraceEvent::Failed {
            problem: Problem::new(ProblemKind::Unavailable, "weft-helper did not finish", "killed"),
        },
        false => TraceEvent::Ended { lost: 3 },
    };
    let events = [started, TraceEvent::Progress { seconds_left: 1.0 }, seen, ends];
    let kept = if state.breaks_off { 3 } else { 4 };
    let text: String = events[..kept]
        .iter()
        .map(|event| format!("data: {}\n\n", serde_json::to_string(event).unwrap()))
        .collect();
    Response::new(Either::Left(Full::new(text.into())))
}

fn node_view(state: &State, index: usize) -> NodeView {
    let mut node = state.nodes[index].clone();
    node.allocs =
        state.alloc_views(None).into_iter().filter(|alloc| alloc.node == node.id).collect();
    node
}

fn node_route(
    state: &mut State,
    method: &str,
    id: &str,
    rest: &[&str],
    body: &[u8],
) -> Response<Body> {
    let Some(index) = state.nodes.iter().position(|node| node.id.to_string() == id) else {
        return no_such("node");
    };
    match (method, rest) {
        ("GET", []) => {
            state.look();
            json(200, &node_view(state, index))
        }
        ("DELETE", []) => {
            state.nodes.remove(index);
            json(200, &())
        }
        ("POST", ["drain"]) => {
            let drain: DrainBody = serde_json::from_slice(body).unwrap();
            state.nodes[index].info.as_mut().unwrap().draining = drain.on;
            if state.dies_draining {
                state.nodes[index].state = NodeState::Dead;
                return json(200, &());
            }
            let takes = |node: &NodeView| {
                node.state == NodeState::Alive
                    && !node.info.as_ref().is_some_and(|info| info.draining)
            };
            if drain.on && state.nodes.iter().any(takes) {
                state
                    .jobs
                    .values_mut()
                    .for_each(|job| job.allocs.retain(|alloc| alloc.node != index));
            }
            json(200, &())
        }
        _ => no_such("page"),
    }
}

fn job_route(
    state: &mut State,
    method: &str,
    view: JobView,
    rest: &[&str],
    query: &BTreeMap<String, String>,
    body: &[u8],
) -> Response<Body> {
    match (method, rest) {
        ("GET", []) => json(200, &view),
        ("GET", ["versions"]) => {
            let versions = state.versions(&view.name);
            if std::mem::take(&mut state.interfere) {
                state.submit(JobSpec::service(view.name, vec!["/bin/other".into()]));
            }
            json(200, &versions)
        }
        ("DELETE", []) => {
            state
                .jobs
                .get_mut(&view.name)
                .unwrap()
                .allocs
                .iter_mut()
                .for_each(|alloc| alloc.stopping = true);
            if view.running == 0 {
                state.jobs.remove(&view.name);
            } else {
                state.ended.push(view.name);
            }
            json(200, &())
        }
        ("GET", ["explain"]) => json(
            200,
            &Explanation {
                job: view.name.clone(),
                coordinator: view.coordinator,
                slots: (0..view.wanted)
                    .map(|index| {
                        let allocs: Vec<_> = state
                            .alloc_views(Some(view.name.as_str()))
                            .into_iter()
                            .filter(|alloc| alloc.id.slot.index == index)
                            .collect();
                        let doing =
                            if allocs.is_empty() { "no node can take it" } else { "nothing to do" };
                        SlotExplanation { index, allocs, doing: doing.into() }
                    })
                    .collect(),
                nodes: state.verdicts(&view.spec),
                voters: None,
            },
        ),
        ("POST", ["scale"]) => {
            let scale: Scale = serde_json::from_slice(body).unwrap();
            json(200, &state.submit(JobSpec { count: scale.count, ..view.spec }))
        }
        ("POST", ["restart"]) => {
            let restart: RestartBody = serde_json::from_slice(body).unwrap();
            let job = state.jobs.get_mut(&view.name).unwrap();
            match restart.slot {
                Some(slot) if slot < view.wanted => json(200, &()),
                Some(_) => no_such("slot"),
                None => {
                    job.version += 1;
                    let version = job.version;
                    state.place(&view.name);
                    json(
                        200,
                        &Submitted {
                            job: view.name,
                            version,
                            changed: true,
                            held_by: 3,
                            members: 3,
                        },
                    )
                }
            }
        }
        ("GET", ["logs"]) if query["slot"].parse::<u32>().unwrap() >= view.wanted => {
            no_such("slot")
        }
        ("GET", ["logs"]) => {
            let first = query
                .get("tail")
                .map_or(0, |tail| state.log_lines.saturating_sub(tail.parse().unwrap()));
            let lines: String = (first..state.log_lines)
                .map(|line| format!("slot {} {} line {line}\n", query["slot"], query["stream"]))
                .collect();
            if !query.contains_key("follow") {
                return Response::new(Either::Left(Full::new(lines.into())));
            }
            let (mut sender, body) = Channel::new(1);
            tokio::task::spawn_local(async move {
                let mut text = Bytes::from(lines);
                while sender.send_data(text).await.is_ok() {
                    text = Bytes::from_static(b"one more\n");
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            });
            Response::new(Either::Right(body))
        }
        _ => no_such("page"),
    }
}
