use super::*;
use metrics::fleet::Partial;

#[path = "../../../fuzz/replay.rs"]
mod replay;

use replay::replay;

/// Mutations of each file in the corpus.
const MUTATIONS: usize = 400;
/// Of what takes longer.
const FEW_MUTATIONS: usize = 30;

#[test]
fn requests_of_the_api() {
    replay("api", MUTATIONS, api);
}

#[test]
fn connections_to_the_api() {
    replay("http", FEW_MUTATIONS, http);
}

#[test]
fn expressions() {
    replay("promql", MUTATIONS, promql);
}

#[test]
fn questions_about_series_and_answers() {
    replay("series", MUTATIONS, series);
}

#[test]
fn sealed_datagrams() {
    replay("sealed", MUTATIONS, sealed);
}

#[test]
fn frames_of_streams() {
    replay("stream", MUTATIONS, stream);
}

#[test]
fn files_of_the_state_directory() {
    replay("state_file", MUTATIONS, state_file);
}

#[test]
fn damaged_stores() {
    replay("store_file", FEW_MUTATIONS, store_file);
}

#[test]
fn credentials_of_a_first_start() {
    replay("credential", MUTATIONS, credential);
}

#[test]
fn configurations() {
    replay("configuration", MUTATIONS, configuration);
}

/// Writes the part of the corpus that is made by our own encoders: `WEFT_REWRITE=1 cargo test -p weft-agent fuzzing`.
#[test]
fn the_corpus_is_of_this_wire_version() {
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    let framed = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let start = |generation| Start { generation, salt: [3; 8] };

    let standing = wire::Standing { start: start(5), heard: Some(start(4)) };
    files.push(("stream/greeting", framed(0, wire::encode(&Greeting::Member(standing)))));
    let proof = Answer::Proof { fabric: NodeId([7; 32]), signature: [[1; 32], [2; 32]] };
    files.push(("stream/proof", framed(1, wire::encode(&proof))));
    let removed = Message::Retire {
        alloc: AllocId::from_unit("weft-web-0-1-0000002a.service").expect("a unit's name"),
        reason: "removed".into(),
    };
    let removed = Answer::Removed(removed.encode());
    files.push(("stream/removed", framed(1, wire::encode(&removed))));
    let request = JoinRequest {
        token: "abcdefgh".into(),
        secret: vec![9; 21],
        name: "birch".into(),
        level: 2,
    };
    files.push(("stream/join", framed(2, wire::encode(&request))));
    let accepted = JoinAnswer::Accepted {
        fabric: vec![4; 85],
        name: "home".into(),
        entries: vec![std::fs::read(corpus("entry/roster")).expect("read")],
        labels: BTreeMap::from([("disk".into(), "ssd".into())]),
    };
    files.push(("stream/accepted", framed(3, wire::encode(&accepted))));
    let invitation = Invitation { token: "weft1.a.b.c".into(), port: 7400 };
    files.push(("stream/invitation", framed(4, wire::encode(&invitation))));
    let refused = InvitationAnswer::Refused("it has a fabric".into());
    files.push(("stream/refused", framed(5, wire::encode(&refused))));
    let head = RequestHead {
        method: "GET".into(),
        path: "/v1/jobs/web/logs?slot=1&follow=true".into(),
        body_bytes: 0,
    };
    files.push(("stream/request", framed(6, wire::encode(&head))));
    let head = ResponseHead { status: 200, content_type: "application/json".into() };
    files.push(("stream/response", framed(7, wire::encode(&head))));
    let address = Some("192.0.2.7:7400".parse().expect("an address"));
    let outdated = Outdated { by: start(6), address, silent_ms: Some(1500) };
    files.push(("stream/outdated", framed(8, wire::encode(&outdated))));

    let mut member = Seal::new(NodeId([2; 32]), start(1));
    member.trust(&Keyring { keys: BTreeMap::from([(1, [7; 32]), (2, [8; 32])]) }, |_| true);
    let mut told = Vec::new();
    let mut tell = |how: u8, piece: &[u8]| {
        told.push(how);
        told.extend_from_slice(&(piece.len() as u16).to_le_bytes());
        told.extend_from_slice(piece);
    };
    tell(0, &member.seal(&NodeId([1; 32]), b"early").expect("sealed"));
    tell(1, b"late");
    tell(0, &member.seal(&NodeId([1; 32]), b"outdated").expect("sealed"));
    tell(43, b"changed on its way");
    files.push(("sealed/two_starts", told));

    let part = |expression: &str| metrics::fleet::Part {
        expression: expression.into(),
        grid: Grid::range(NOW_MS - 40_000, NOW_MS, 10_000).expect("a grid"),
        keep: Some(metrics::fleet::Keep { largest: true, groups: 2 }),
    };
    let sum = part("sum by (kind) (rate(done_total[1m]))");
    let parts = vec![sum.clone(), part("done_total")];
    let asked = [
        ("series/ask_parts", series_wire::Request::Parts(parts)),
        (
            "series/ask_values",
            series_wire::Request::Values {
                label: "kind".into(),
                selectors: vec!["done_total".into(), "{kind=~\"a|b\"}".into()],
                from_ms: 0,
                until_ms: NOW_MS,
            },
        ),
        ("series/ask_metadata", series_wire::Request::Metadata { metric: None }),
    ];
    for (name, request) in asked {
        files.push((name, framed(0, series_wire::encode(&request))));
    }
    let answer = |part: &metrics::fleet::Part| -> Partial {
        part.answer(store(), LIMITS).expect("an answer")
    };
    let response = |partial| series_wire::encode(&series_wire::Response::Parts(vec![partial]));
    files.push(("series/tell_groups", framed(1, response(answer(&sum)))));
    files.push(("series/tell_curves", framed(1, response(answer(&part("done_total"))))));
    let samples = metrics::fleet::Part {
        grid: Grid::instant(NOW_MS).expect("a time"),
        keep: None,
        ..part("done_total[20s]")
    };
    files.push(("series/tell_samples", framed(9, response(answer(&samples)))));
    let texts = series_wire::Response::Texts(BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    files.push(("series/tell_texts", framed(13, series_wire::encode(&texts))));

    let launch = fabric::io::Launch {
        alloc: AllocId::from_unit("weft-web-0-1-0000002a.service").expect("a unit's name"),
        cpus: "0-1".parse().expect("a set of CPUs"),
        ..crate::executor::tests::launch("web", &["/usr/bin/python3", "-m", "http.server"])
    };
    let record = record::Record {
        launch,
        boot: "5b2f1f0e-6f5c-4c39-9ed2-2b1b9a3c7d10".into(),
        process: Some((4711, 123_456)),
        user: Some(64_000),
        ended: Some(fabric::io::UnitEvent::Exited {
            status: "exit status 3".into(),
            success: false,
            killed: false,
        }),
    };
    let record = serde_json::to_vec(&record).expect("JSON");
    files.push(("state_file/record", framed(0, record)));

    for (name, bytes) in files {
        let path = corpus(name);
        if std::env::var_os("WEFT_REWRITE").is_some() {
            std::fs::write(&path, &bytes).expect("written");
        }
        let found = std::fs::read(&path).unwrap_or_default();
        assert!(found == bytes, "{name} is out of date: run with WEFT_REWRITE=1");
    }
}

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name)
}
