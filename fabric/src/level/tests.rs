use super::*;
use crate::alloc::AllocRow;
use crate::claim::Claim;
use crate::job::JobSpec;
use crate::message::{DecodeError, Message};
use crate::quota::Quota;
use crate::resources::Rejection;
use crate::table::{Entry, JobEntry, Key, Value};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A struct as it was, and as it became twice.
mod grown {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(remote = "Self")]
    pub struct One {
        pub a: u8,
        pub b: String,
    }
    evolving!(One { a, b });

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(remote = "Self")]
    pub struct Three {
        pub a: u8,
        pub b: String,
        #[serde(default)]
        pub c: u32,
        #[serde(default)]
        pub d: Option<u8>,
        #[serde(default)]
        pub e: bool,
    }
    evolving!(Three { a, b } 2 { c, d } 3 { e });
}
use grown::{One, Three};

fn bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap()
}

#[test]
fn what_uses_nothing_new_is_written_as_before() {
    let (one, three) =
        (One { a: 7, b: "x".into() }, Three { a: 7, b: "x".into(), ..Three::default() });
    assert_eq!(bytes(&one), [7, 1, b'x', 0]);
    assert_eq!(bytes(&three), bytes(&one));
    assert_eq!(postcard::from_bytes::<Three>(&bytes(&one)).unwrap(), three);
    assert_eq!(postcard::from_bytes::<One>(&bytes(&three)).unwrap(), one);
    assert_eq!((one.level(), three.level()), (1, 1));
}

#[test]
fn what_is_new_is_read_back_and_refused_by_whoever_is_too_old() {
    let three = Three { a: 7, b: "x".into(), d: Some(3), ..Three::default() };
    assert_eq!(bytes(&three), [7, 1, b'x', 2, 0, 1, 3]);
    assert_eq!(three.level(), 2);
    assert_eq!(postcard::from_bytes::<Three>(&bytes(&three)).unwrap(), three);
    assert!(postcard::from_bytes::<One>(&bytes(&three)).is_err());
    let latest = Three { e: true, ..three };
    assert_eq!((latest.level(), bytes(&latest).len()), (3, 8));
    assert_eq!(postcard::from_bytes::<Three>(&bytes(&latest)).unwrap(), latest);
    for length in 0..bytes(&latest).len() {
        assert!(postcard::from_bytes::<Three>(&bytes(&latest)[..length]).is_err());
    }
}

#[test]
fn in_a_list_and_in_text_nothing_is_lost() {
    let all = vec![
        Three { a: 1, ..Three::default() },
        Three { a: 2, c: 9, ..Three::default() },
        Three { a: 3, e: true, ..Three::default() },
    ];
    assert_eq!(postcard::from_bytes::<Vec<Three>>(&bytes(&all)).unwrap(), all);
    assert_eq!(all.level(), 3);
    let text = serde_json::to_string(&all).unwrap();
    assert!(text.contains("\"e\":true"), "{text}");
    assert_eq!(serde_json::from_str::<Vec<Three>>(&text).unwrap(), all);
    assert_eq!(serde_json::from_str::<Three>(r#"{"a":1,"b":""}"#).unwrap(), all[0]);
}

#[test]
fn an_entry_says_by_its_first_byte_who_can_read_it() {
    let mut spec: JobSpec = crate::job::parse("name='a'\n[task]\ncommand=['/bin/true']").unwrap();
    let entry = |spec: &JobSpec| {
        let job = JobEntry {
            spec: spec.clone(),
            version: 1,
            generation: 0,
            previous: None,
            reverted: false,
            by: String::new(),
        };
        let stamp = crate::stamp::Stamp { reading: 1 << 40, node: crate::id::NodeId([1; 32]) };
        Entry {
            key: Key::Job(spec.name.clone()),
            stamp,
            value: Value::Job(Box::new(job)),
            signature: Some(crate::signature::Signature::new([0; 64])),
        }
    };
    assert_eq!(entry(&spec).encode()[0], FORMAT + 1);
    spec.keep.ended = Duration::from_secs(60);
    let newer = entry(&spec);
    assert_eq!(newer.encode()[0], FORMAT + 2);
    assert_eq!(Message::News { entries: vec![newer.clone().into()] }.encode()[0], FORMAT + 2);
    assert_eq!(Entry::decode(&newer.encode()).unwrap(), newer);
    let row = AllocRow { keep_s: 60, ..AllocRow::default() };
    assert_eq!((AllocRow::default().level(), row.level()), (1, 2));

    let refused = |reason| {
        let alloc = crate::id::AllocId::new(spec.name.clone(), 0, 1);
        Message::Reject { alloc, reason }.encode()[0]
    };
    let disk = Rejection::Disk { pool: "default".into(), wanted: 2, free: 1, of: 1 };
    assert_eq!((refused(Rejection::Full), refused(disk)), (FORMAT + 1, FORMAT + 3));
    spec.resources.disk = 1;
    assert_eq!(entry(&spec).encode()[0], FORMAT + 3);
    let row = AllocRow { claim: Claim { disk: 1, ..Claim::default() }, ..AllocRow::default() };
    assert_eq!(row.level(), 3);
    assert_eq!((Quota { allocs: Some(1), disk: None, ..Quota::default() }).level(), 1);
    assert_eq!((Quota { disk: Some(1), ..Quota::default() }).level(), 3);

    let mut bytes = newer.encode();
    bytes[0] = FORMAT + LEVEL + 1;
    let error = Entry::decode(&bytes).unwrap_err();
    assert_eq!(error, DecodeError::Level(LEVEL + 1));
    assert!(error.to_string().contains("upgrade it"), "{error}");
    for first in [0, 1, 2, FORMAT, 0x20, 0xff] {
        bytes[0] = first;
        assert_eq!(Entry::decode(&bytes).unwrap_err(), DecodeError::Version(Some(first)));
    }
}
