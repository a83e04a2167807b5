//! What the fuzzers call: a door for each kind of bytes that the agent reads from outside. A door takes bytes and gives nothing back;
//! whatever they are, nothing panics behind it, and what is promised of them holds. `fuzz/` explores them with libFuzzer; the test
//! below replays the corpus of the tree, and mutations of it, in every test run.

use fabric::api::Problem;
use fabric::clock::{Instant, Now, WallTime};
use fabric::id::{AllocId, NodeId};
use fabric::io::Request;
use fabric::message::Message;
use fabric::node::{Config as Core, Node, Origin};
use fabric::table::{Entry, Keyring};
use fabric::topology::NodeInfo;
use metrics::evaluate::{Grid, Limits, instant, range};
use metrics::fleet::{Plan, answer_all};
use metrics::store::Store;
use metrics::syntax::parse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::api::{AgentVerb, Call, Came, Found, Operation, Reply, Role, find};
use crate::config::Config;
use crate::credentials;
use crate::executor::{exec, record};
use crate::guard::{Fired, LeaseFile};
use crate::http::connection;
use crate::identity::{Fabric, Identity};
use crate::machine::Machine;
use crate::observe::gather::{Gathering, alone, respond_to};
use crate::observe::query::{Query, TIMEOUT_MAX, Wanted};
use crate::observe::sink::{HOME, Metric, Recorder};
use crate::observe::wire as series_wire;
use crate::quic::wire::{
    self, Answer, Greeting, Invitation, InvitationAnswer, JoinAnswer, JoinRequest, Outdated,
    RequestHead, ResponseHead,
};
use crate::seal::{Refusal, Seal, Start};
use crate::store::Store as _;
use crate::store::database::{self, RedbStore};
use crate::token::Token;

/// The last sample of the store that is asked.
const NOW_MS: i64 = 120_000;
/// When requests come.
const NOW: Now = Now { at: Instant::at(Duration::ZERO), wall: WallTime(1_700_000_000_000) };
/// What a question may use: little, so that thousands are asked in a second.
const LIMITS: Limits = Limits { series: 100, values: 2_000, samples: 20_000 };
/// Bytes of an answer of the API that are read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Pieces of an input. Before each stand three bytes: how it is meant, and its length, the lower byte first.
fn pieces(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [how, low, high, after @ ..] = rest else { return None };
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (piece, after) = after.split_at(after.len().min(length));
        rest = after;
        Some((*how, piece))
    })
}

/// A request of the API, as its table and its readers get it: `METHOD /path?query`, a line feed, and the body. What is only
/// looked up is answered, too, and of what is wished for it is said what the core would be asked.
pub fn api(bytes: &[u8]) {
    thread_local! {
        static NODE: Node = node();
    }
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (head, body) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    let Ok(head) = std::str::from_utf8(head) else { return };
    let (method, target) = head.split_once(' ').unwrap_or(("GET", head));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Found::Route(route, name) = find(method, path) else { return };
    let name = name.as_deref();
    match route.read(&Came { name, query, body, accept: "", now_ms: NOW_MS }) {
        Ok(Operation::Agent(AgentVerb::Prometheus(asked))) => {
            assert!(asked.timeout <= TIMEOUT_MAX);
            written(&alone(asked.query, store(), LIMITS));
        }
        Ok(Operation::Known(Reply::Prometheus(status, _))) => assert_eq!(status, 400),
        Ok(Operation::Agent(_) | Operation::Known(_)) => {}
        Ok(Operation::Read(read)) => match NODE.with(|node| read(node, NOW)) {
            Ok(_) => {}
            Err(problem) => refused(&problem),
        },
        Ok(Operation::Wish(wish)) => match NODE.with(|node| wish(node, "somebody")) {
            Ok(Request::Submit { spec, .. }) => assert_eq!(spec.validate(), Ok(())),
            Ok(_) => {}
            Err(problem) => refused(&problem),
        },
        Err(problem) => refused(&problem),
    }
}

fn refused(problem: &Problem) {
    assert!((400..500).contains(&problem.status), "{problem:?}");
    written(problem);
}

/// The only one of its fabric.
fn node() -> Node {
    let folder = std::env::temp_dir().join(format!("weft-fuzz-node-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let identity = Identity::load_or_create(&folder).expect("a key");
    std::fs::remove_dir_all(&folder).expect("removed");
    let core = Core {
        id: identity.id(),
        info: NodeInfo { name: "n0".into(), ..NodeInfo::default() },
        fabric: NodeId([9; 32]),
        fabric_name: "fuzz".into(),
        signer: Arc::new(identity),
        generation: 1,
        seed: 1,
        canary: None,
        bounds: fabric::table::Bounds::default(),
        level: fabric::level::LEVEL,
    };
    Node::new(NOW, core, Origin::Founded { gossip_key: [7; 32] })
}

/// What a connection to the API brings, from its first byte on. The first byte of the input says which port it is.
pub fn http(bytes: &[u8]) {
    thread_local! {
        static RUNTIME: Runtime =
            Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    let Some((port, bytes)) = bytes.split_first() else { return };
    let role = if port & 1 == 0 { Role::Own } else { Role::Measure };
    let served = async {
        let (caller, agent) = tokio::io::duplex(64 << 10);
        let (calls, mut asked) = mpsc::channel::<Call>(1);
        let answers = async {
            while let Some(call) = asked.recv().await {
                let told = matches!(
                    call.operation,
                    Operation::Agent(
                        AgentVerb::Metrics(_)
                            | AgentVerb::Prometheus(_)
                            | AgentVerb::Healthz
                            | AgentVerb::Readyz
                    )
                );
                assert!(told || role == Role::Own, "{:?}", call.operation);
                let _ = call.answer.send(Ok(Reply::Done));
            }
        };
        let called = async {
            let (mut read, mut write) = split(caller);
            let said = async {
                let _ = write.write_all(bytes).await;
                let _ = write.shutdown().await;
            };
            let mut answer = Vec::new();
            let heard = async {
                let _ = (&mut read).take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
            };
            tokio::join!(said, heard);
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
        };
        tokio::join!(connection(Box::new(agent), calls, "somebody".into(), role), answers, called);
    };
    RUNTIME.with(|runtime| runtime.block_on(served));
}

/// An expression in PromQL. One that parses prints as one that means the same; it is evaluated at one time, at some, and in the
/// parts that other nodes would be asked.
pub fn promql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let expr = match parse(text) {
        Ok(expr) => expr,
        Err(error) => return assert!(error.line >= 1 && error.column >= 1, "{error}"),
    };
    let printed = expr.to_string();
    match parse(&printed) {
        Ok(again) => assert_eq!(again.to_string(), printed),
        // The printed form may be longer or deeper than what was written.
        Err(error) => assert!(error.reason.contains("more than"), "{printed}: {error}"),
    }
    let store = store();
    let _ = instant(&expr, store, NOW_MS, LIMITS);
    let grid = Grid::range(NOW_MS - 60_000, NOW_MS, 10_000).expect("a grid");
    let _ = range(&expr, store, &grid, LIMITS);
    if let Ok(plan) = Plan::of(&expr, &grid, true, HOME)
        && let Ok(answers) = answer_all(plan.parts(), store, LIMITS)
    {
        for (answer, part) in answers.iter().zip(plan.parts()) {
            assert_eq!(answer.check(part), Ok(()), "an answer of our own");
        }
        let _ = plan.finish(answers, LIMITS);
    }
}

/// What another member asks about series, or what it answers. The first byte says which of the two, and to which question.
pub fn series(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else { return };
    if how & 1 == 0 {
        let answer = respond_to(bytes, store(), LIMITS);
        assert!(series_wire::decode::<series_wire::Response>(&answer).is_ok());
        return;
    }
    let evaluate = |expression: &str| Query::Evaluate {
        expression: expression.into(),
        grid: Grid::range(NOW_MS - 40_000, NOW_MS, 10_000).expect("a grid"),
        is_range: true,
    };
    let find = |wanted| {
        let selectors = vec!["done_total".to_owned()];
        Query::Find { selectors, from_ms: 0, until_ms: NOW_MS, wanted, limit: 10 }
    };
    let query = match how >> 1 & 7 {
        0 => evaluate("sum by (kind) (rate(done_total[1m]))"),
        1 => evaluate("done_total / on (kind) group_left lasts"),
        2 => evaluate("topk(2, sum by (kind) (done_total))"),
        3 => evaluate("quantile(0.5, lasts) + stddev(lasts) + avg(lasts)"),
        4 => {
            let grid = Grid::instant(NOW_MS).expect("a time");
            Query::Evaluate { expression: "done_total[1m]".into(), grid, is_range: false }
        }
        5 => find(Wanted::Series),
        6 => find(Wanted::Values("kind".into())),
        _ => Query::Metadata { metric: None, limit: 10 },
    };
    let mut gathering = Gathering::begin(query, store(), LIMITS).expect("a question");
    let taken = gathering.take("n1", bytes).and_then(|()| gathering.take("n2", bytes));
    match taken {
        Ok(()) => written(&gathering.finish()),
        Err(answer) => written(&*answer),
    }
}

/// Datagrams that reach the port of gossip: as they are, or sealed by a member and then changed on the way. What opens is what a
/// member has sealed, and once.
pub fn sealed(bytes: &[u8]) {
    const ME: NodeId = NodeId([1; 32]);
    const MEMBER: NodeId = NodeId([2; 32]);
    let is_member = |node: &NodeId| *node == ME || *node == MEMBER;
    let keyring = Keyring { keys: BTreeMap::from([(1, [7; 32]), (2, [8; 32])]) };
    let start = |generation| Start { generation, salt: [3; 8] };
    let (mut ours, mut theirs) = (Seal::new(ME, start(1)), Seal::new(MEMBER, start(2)));
    ours.trust(&keyring, is_member);
    theirs.trust(&keyring, is_member);
    for (how, piece) in pieces(bytes) {
        if how & 1 == 0 {
            if let Ok((from, _)) = ours.open(piece, is_member) {
                assert_eq!(from, MEMBER, "nobody else has sealed anything");
            }
            continue;
        }
        let Ok(mut datagram) = theirs.seal(&ME, piece) else { continue };
        if how & 2 == 0 {
            assert_eq!(ours.open(&datagram, is_member), Ok((MEMBER, piece.to_vec())));
            assert_eq!(ours.open(&datagram, is_member), Err(Refusal::Replayed));
        } else {
            let at = usize::from(how >> 2) % datagram.len();
            datagram[at] ^= 0x55;
            assert!(ours.open(&datagram, is_member).is_err());
        }
    }
}

/// A frame of a stream: greetings and their answers, what joins and what lets in, requests. The first byte says which one is
/// waited for.
pub fn stream(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 9 {
        0 => drop(again::<Greeting>(bytes)),
        1 => {
            if let Some(Answer::Removed(shown)) = again(bytes) {
                let _ = Message::decode(&shown);
            }
        }
        2 => drop(again::<JoinRequest>(bytes)),
        3 => {
            if let Some(JoinAnswer::Accepted { fabric, name, entries, .. }) = again(bytes) {
                let _ = Fabric::from_pkcs8(fabric, &name);
                entries.iter().for_each(|entry| drop(Entry::decode(entry)));
            }
        }
        4 => {
            if let Some(Invitation { token, .. }) = again(bytes) {
                let _ = token.parse::<Token>();
            }
        }
        5 => drop(again::<InvitationAnswer>(bytes)),
        6 => drop(again::<RequestHead>(bytes)),
        7 => drop(again::<ResponseHead>(bytes)),
        _ => drop(again::<Outdated>(bytes)),
    }
}

/// What decodes must encode to something that decodes to the same.
fn again<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) -> Option<T> {
    let value: T = wire::decode(bytes).ok()?;
    let encoded = wire::encode(&value);
    assert!(wire::decode::<T>(&encoded).is_ok_and(|again| again == value));
    Some(value)
}

/// A file of the state directory, but for the store. The first byte says which one.
pub fn state_file(bytes: &[u8]) {
    const UNIT: &str = "weft-web-0-1.service";
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match kind % 8 {
        0 => kept::<record::Record>(bytes),
        1 => {
            kept::<LeaseFile>(bytes);
            if let Ok(lease) = serde_json::from_slice::<LeaseFile>(bytes) {
                if lease.check(&lease.unit, &lease.boot).is_ok() {
                    let _ = (lease.kill_at(), lease.signal());
                }
                assert!(lease.check(UNIT, "another boot").is_err());
            }
        }
        2 => kept::<Fired>(bytes),
        3 => {
            let machine = Machine::parse(&text);
            // Each reading takes one carriage return off a line's end, where an editor put it.
            if !text.contains('\r') {
                assert_eq!(Machine::parse(&machine.text()), machine);
            }
        }
        4 => {
            if let Some(alloc) = AllocId::from_unit(&text) {
                assert_eq!(AllocId::from_unit(&alloc.unit()), Some(alloc));
            }
        }
        5 => drop(exec::read(bytes)),
        6 => drop(Fabric::from_pkcs8(bytes.to_vec(), "home")),
        _ => {
            kept::<BTreeSet<PathBuf>>(bytes);
            kept::<BTreeMap<String, String>>(bytes);
        }
    }
}

/// What is read can be written, and is read as the same.
fn kept<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes) {
        let text = serde_json::to_vec(&value).expect("it was read from JSON");
        assert_eq!(serde_json::from_slice::<T>(&text).ok(), Some(value));
    }
}

/// A store that was damaged: each six bytes are a place in its file (four, the lowest first), how many bytes from there, and what
/// is laid over them; a place behind its end cuts it off. It is read, or said to be damaged.
pub fn store_file(bytes: &[u8]) {
    let mut file = sound_store().to_vec();
    for change in bytes.chunks_exact(6) {
        let place = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize;
        if place >= file.len() {
            file.truncate(place % (file.len() + 1));
            continue;
        }
        let end = file.len().min(place + usize::from(change[4]) + 1);
        file[place..end].iter_mut().for_each(|byte| *byte ^= change[5]);
    }
    if let Ok((database, _)) = database::of_bytes(file) {
        let _ = database::note(&database, "labels");
    }
}

/// The file of a store with rows and a note, as an agent leaves it.
fn sound_store() -> &'static [u8] {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("weft-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (mut store, _, _) = RedbStore::open(&folder).expect("a store");
        let mut changes = crate::store::Changes::default();
        for number in 0..40u8 {
            changes.rows.insert(vec![0, number], Some(vec![number; 200]));
        }
        changes.notes.insert("labels".into(), b"{\"disk\":\"ssd\"}".to_vec());
        store.apply(&changes).expect("written");
        drop(store);
        let bytes = std::fs::read(folder.join("store.redb")).expect("read");
        std::fs::remove_dir_all(&folder).expect("removed");
        bytes
    })
}

/// What a machine is given for its first start: a token, labels, keys of the remote shell. The first byte says which.
pub fn credential(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let Ok(text) = String::from_utf8(bytes.to_vec()) else { return };
    match kind % 3 {
        0 => {
            if let Ok(token) = credentials::token(text) {
                assert_eq!(token.to_string().parse::<Token>(), Ok(token));
            }
        }
        1 => {
            if let Ok(labels) = credentials::labels(text) {
                assert!(labels.len() <= fabric::limits::LABELS_MAX);
            }
        }
        _ => drop(credentials::keys(text)),
    }
}

/// The agent's configuration. One that is taken makes sense in all that is asked of it later.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let config = match Config::parse(text) {
        Ok(config) => config,
        Err(error) => return drop(error.to_string()),
    };
    assert!(config.share().is_ok());
    assert!(config.gossip_address().port() > 0);
    assert!(config.metrics.listen.is_empty() || config.metrics.listen().is_some());
    assert!(config.metrics.remote_write.is_empty() || config.metrics.remote_write().is_some());
    assert!(config.metrics.memory() > 0 && !config.metrics.remote_write_every().is_zero());
    let _ = (config.name(), config.node.level(), config.metrics.probes());
}

fn written(value: &impl Serialize) {
    serde_json::to_vec(value).expect("an answer has a JSON form");
}

/// A node's series: counters, gauges and a histogram, a sample each second.
fn store() -> &'static Store {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    const DONE: Metric<'_> = Metric::counter("done_total", "Jobs done.");
    const LASTS: Metric<'_> = Metric::gauge("lasts", "How long the last one took.");
    const BUCKET: Metric<'_> = Metric::counter("took_bucket", "How long each took.");
    let recorder = RECORDER.get_or_init(|| {
        let mut recorder = Recorder::new(1 << 20, "n0");
        for second in 0..=NOW_MS / 1000 {
            recorder.collect(0, second * 1000, None, |sink| {
                for (kind, speed) in [("a", 1.0), ("b", 2.5)] {
                    // One of them starts anew in the middle.
                    let done = if second < 50 { second } else { second - 50 };
                    sink.put(&DONE, &[("kind", kind)], speed * done as f64);
                    sink.put(&LASTS, &[("kind", kind)], (second as f64 * speed).sin());
                    for le in ["0.1", "1", "+Inf"] {
                        sink.put(&BUCKET, &[("kind", kind), ("le", le)], second as f64);
                    }
                }
            });
        }
        recorder
    });
    recorder.store()
}

#[cfg(test)]
mod tests;
