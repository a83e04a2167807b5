use proptest::prelude::*;

use super::*;
use crate::alloc::{AllocRow, Ending};
use crate::clock::WallTime;
use crate::id::{Birth, JobName};
use crate::signature::{SIGNATURE_BYTES, Signature};
use crate::stamp::Stamp;
use crate::table::{JobEntry, Keyring, Previous, RosterEntry, TokenEntry, Value};

fn roster() -> Entry {
    Entry {
        key: Key::Roster(NodeId([1; 32])),
        stamp: Stamp { reading: 0x1234_5678, node: NodeId([2; 32]) },
        value: Value::Roster(RosterEntry {
            name: "n1".into(),
            vouched_by: NodeId([2; 32]),
            joined: WallTime(7),
        }),
        signature: Some(Signature::new([0x5a; SIGNATURE_BYTES])),
    }
}

fn fingerprint(table: u64) -> Datagram {
    let clock = ClockReading { wall: WallTime(5), horizon: WallTime(6) };
    Datagram::Fingerprint { table, clock, purged_until: WallTime(7) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A changed encoding breaks fabrics that are being upgraded: these bytes may only change together with
/// [`FIRST_LEVEL`].
#[test]
fn golden_vectors() {
    let ones = "01".repeat(32);
    let twos = "02".repeat(32);
    let signature = format!("01{}", "5a".repeat(SIGNATURE_BYTES));
    let entry = format!("00{ones}f8acd19101{twos}00026e31{twos}0700{signature}");
    assert_eq!(hex(&roster().encode()), format!("11{entry}"));
    assert_eq!(hex(&fingerprint(0x1ff).encode()), "1102ff03050607");
    assert_eq!(hex(&Datagram::Push(vec![roster().into()]).encode()), format!("110101{entry}"));
    let confirms = vec![Confirm { subject: NodeId([1; 32]), generation: 3, by: NodeId([2; 32]) }];
    let swim = Datagram::Swim { packet: vec![0xaa, 0xbb], confirms };
    assert_eq!(hex(&swim.encode()), format!("110002aabb01{ones}03{twos}"));
    let alloc = AllocId::new(JobName::new("web").unwrap(), 2, 300);
    let alloc = AllocId { birth: Birth(5), ..alloc };
    assert_eq!(
        hex(&Message::Accept { alloc: alloc.clone() }.encode()),
        "1107037765 6202ac0205".replace(' ', "")
    );
    let message =
        Message::Move { alloc: alloc.clone(), from: NodeId([1; 32]), to: NodeId([2; 32]) };
    assert_eq!(hex(&message.encode()), format!("110e0377656202ac0205{ones}{twos}"));
    let message = Message::Retire { alloc, reason: "x".into() };
    assert_eq!(hex(&message.encode()), "11090377656202ac02050178");
    let want = Message::Want(vec![Key::Keyring, Key::Job(JobName::new("a").unwrap())]);
    assert_eq!(hex(&want.encode()), "11020204020161");
    let news = Message::News { entries: vec![roster().into()] };
    assert_eq!(hex(&news.encode()), format!("111101{entry}"));
    assert_eq!(hex(&Message::Reach { answer: true }.encode()), "111201");
    let pass_on = Message::PassOn { to: NodeId([1; 32]), bytes: vec![0xaa] };
    assert_eq!(hex(&pass_on.encode()), format!("1113{ones}01aa"));
    let passed_on = Message::PassedOn { from: NodeId([2; 32]), bytes: vec![0xbb] };
    assert_eq!(hex(&passed_on.encode()), format!("1114{twos}01bb"));
    assert_eq!(hex(&Message::Reclock.encode()), "1115");
    let clock = ClockReading { wall: WallTime(1), horizon: WallTime(0x1ff) };
    assert_eq!(hex(&Message::Clock(clock).encode()), "111601ff03");
}

/// Serde can describe types that postcard cannot read back: every kind of value goes there and back.
#[test]
fn every_value_survives_the_wire() {
    let endings = [
        Ending::Retired { reason: "x".into() },
        Ending::Failed { reason: "exit status 3".into() },
        Ending::Superseded { epoch: 4 },
        Ending::Lost,
        Ending::Preempted {
            by: AllocId::new(JobName::new("web").unwrap(), 2, 300),
            priority: 90,
            over: 10,
        },
    ];
    let spec = crate::job::parse(include_str!("../../../docs/examples/web.toml")).unwrap();
    let job = JobEntry {
        previous: Some(Box::new(Previous { spec: spec.clone(), version: 1, generation: 0 })),
        spec,
        version: 2,
        generation: 3,
        reverted: true,
        by: "me".into(),
    };
    let token = TokenEntry {
        secret_hash: [5; 32],
        expires: WallTime(9),
        labels: [("rack".to_owned(), "r1".to_owned())].into(),
    };
    let mut values = vec![
        Value::Job(Box::new(job)),
        Value::Node(Box::default()),
        Value::Keyring(Keyring { keys: [(1, [1; 32])].into() }),
        Value::Token(token),
        Value::Tombstone { rank: 7 },
        Value::Quota(crate::quota::Quota { cpu_millis: Some(8000), ..Default::default() }),
    ];
    values.extend(endings.map(|ending| {
        let row = AllocRow {
            ending: Some(ending),
            effective_cpus: "0-3,8".parse().ok(),
            trouble: Some("x".into()),
            ..AllocRow::default()
        };
        Value::Alloc(Box::new(row))
    }));
    for value in values {
        let entry = Entry { value, ..roster() };
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }
}

#[test]
fn another_version_is_told_apart_from_rubbish() {
    let mut bytes = fingerprint(1).encode();
    bytes[0] = 9;
    assert_eq!(Datagram::decode(&bytes), Err(DecodeError::Version(Some(9))));
    assert_eq!(Datagram::decode(&[]), Err(DecodeError::Version(None)));
    let long = vec![FIRST_LEVEL; limits::DATAGRAM_BYTES_MAX + 1];
    assert!(matches!(Datagram::decode(&long), Err(DecodeError::TooLong { .. })));
    let mut trailing = fingerprint(1).encode();
    trailing.push(0);
    assert!(matches!(Datagram::decode(&trailing), Err(DecodeError::Malformed(_))));
}

proptest! {
    #[test]
    fn decoders_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = bytes;
        for first in [None, Some(FIRST_LEVEL)] {
            if let (Some(first), Some(byte)) = (first, bytes.first_mut()) {
                *byte = first;
            }
            let _ = (Datagram::decode(&bytes), Message::decode(&bytes), Entry::decode(&bytes));
        }
    }

    /// What was decoded means what was sent, also when bytes were flipped on the way.
    #[test]
    fn flipped_bytes_decode_to_something_that_encodes_again(at in 0..80usize, flip in 1..=255u8) {
        let mut bytes = Message::Hold { ticket: 5, entries: vec![roster().into()] }.encode();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }
}

/// Writes the corpus that the fuzzers start from: `WEFT_REWRITE=1 cargo test -p weft-fabric corpus`.
#[test]
fn the_corpus_is_of_this_wire_version() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let alloc = AllocId::new(JobName::new("web").unwrap(), 2, 3);
    let spec = crate::job::parse(include_str!("../../../docs/examples/web.toml")).unwrap();
    let job = JobEntry {
        spec,
        version: 1,
        generation: 0,
        previous: None,
        reverted: false,
        by: "me".into(),
    };
    let job = Entry {
        key: Key::Job(job.spec.name.clone()),
        value: Value::Job(Box::new(job)),
        ..roster()
    };
    let confirms = vec![Confirm { subject: NodeId([1; 32]), generation: 3, by: NodeId([2; 32]) }];
    let datagrams = [
        ("push", Datagram::Push(vec![roster().into()])),
        ("swim", Datagram::Swim { packet: vec![0xaa; 40], confirms }),
        ("fingerprint", fingerprint(5)),
    ];
    let messages = [
        ("buckets", Message::Buckets(vec![1; 256])),
        (
            "rows",
            Message::Rows {
                buckets: vec![1, 2],
                rows: vec![(roster().key, roster().order())],
                purged_until: WallTime(7),
            },
        ),
        ("want", Message::Want(vec![Key::Keyring])),
        (
            "entries",
            Message::Entries {
                entries: vec![roster().into(), job.clone().into()],
                more: false,
                purged_until: WallTime(7),
                settled: true,
            },
        ),
        (
            "propose",
            Message::Propose { alloc: alloc.clone(), job: job.clone().into(), succession: None },
        ),
        ("retire", Message::Retire { alloc, reason: "x".into() }),
    ];
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut told = Vec::new();
    let mut tell = |how: u8, bytes: &[u8]| {
        told.push(how);
        told.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        told.extend_from_slice(bytes);
    };
    for (name, datagram) in datagrams {
        let bytes = datagram.encode();
        tell(40, &bytes);
        files.push((format!("datagram/{name}"), bytes));
    }
    for (name, message) in messages {
        let bytes = message.encode();
        tell(41, &bytes);
        files.push((format!("message/{name}"), bytes));
    }
    files.push(("entry/roster".into(), roster().encode()));
    files.push(("entry/job".into(), job.encode()));
    files.push(("node/told".into(), told));
    let rows = crate::fuzzing::rows_on_disk(|now, node| {
        let (spec, by) =
            (crate::job::parse(include_str!("../../../docs/examples/web.toml")), "me".into());
        let spec = Box::new(spec.unwrap());
        let submit = crate::io::Request::Submit { spec, expected_version: None, by };
        node.handle(now, crate::io::Input::Request { id: 3, request: submit });
    });
    files.push(("node_start/rows".into(), rows));
    for (name, bytes) in files {
        let path = folder.join(&name);
        if std::env::var_os("WEFT_REWRITE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let found = std::fs::read(&path).unwrap_or_default();
        assert!(found == bytes, "{name} is out of date: run with WEFT_REWRITE=1");
    }
}
