//! What agents of each level wrote, kept in `fabric/fixtures/level-N/` and never changed. With `WEFT_REWRITE=1` files that are missing
//! are written, and no other.

use super::super::super::tests::*;
use crate::alloc::{AllocRow, Ending, Phase, StandIn, Succession};
use crate::claim::Claim;
use crate::clock::WallTime;
use crate::id::{AllocId, Birth, JobName, NodeId, SlotId};
use crate::io::{Answer, Request};
use crate::level::{FORMAT, LEVEL, LEVEL_MIN, Leveled};
use crate::message::{Confirm, Datagram, Message};
use crate::resources::Rejection;
use crate::stamp::Stamp;
use crate::table::{Entry, Key, Keyring, TokenEntry, TokenId, Value};
use crate::timekeeper::ClockReading;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn folder(level: u8) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/level-{level}"))
}

/// The disk of a node of three with a job, after a restart of one slot and the end of another job.
fn a_disk(level: u8) -> Rows {
    let mut fleet = Fleetlet::at_level(3, level);
    let job = match level {
        LEVEL_MIN => WEB.to_owned(),
        2 => format!("{WEB}\n[keep]\nended = \"5m\""),
        _ => {
            let disk = "memory = \"16MiB\"\ndisk = \"1GiB\"";
            format!("{}\n[keep]\nended = \"5m\"", WEB.replace("memory = \"16MiB\"", disk))
        }
    };
    let one = NodeId([1; 32]);
    assert!(matches!(fleet.submit(one, &job), Answer::Submitted(_)));
    assert!(matches!(fleet.submit(one, &WEB.replace("web", "gone")), Answer::Submitted(_)));
    fleet.run(Duration::from_secs(5));
    fleet.ask(one, Request::Stop { job: JobName::new("gone").unwrap() });
    fleet.run(Duration::from_secs(60));
    fleet.disks[&one].clone().into_iter().collect()
}

fn succession(level: u8, stands_in: Option<StandIn>) -> Succession {
    let birth = Birth(if level > 2 { 0xb1b1 } else { 0 });
    Succession { replaces: 4, replaces_birth: birth, stands_in }
}

/// Values of every kind at this level.
fn entries(level: u8) -> Vec<(String, Entry)> {
    let mut entries = Vec::new();
    for (key, value) in a_disk(level) {
        if key.first() == Some(&0) {
            let entry = Entry::decode(&value).unwrap();
            let kind = match (&entry.key, &entry.value) {
                (_, Value::Tombstone { .. }) => "tombstone",
                (Key::Roster(_), _) => "roster",
                (Key::Node(_), _) => "node",
                (Key::Job(_), _) => "job",
                (Key::Alloc(..), _) => "alloc",
                (Key::Keyring, _) => "keyring",
                (Key::Token(_), _) => "token",
                (Key::Voters, _) => "voters",
                (Key::Quota(_), _) => "quota",
            };
            entries.push((kind.to_owned(), entry));
        }
    }
    let stamp = Stamp { reading: 1 << 42, node: NodeId([2; 32]) };
    let slot = SlotId { job: JobName::new("web").unwrap(), index: 7 };
    let stood_in =
        StandIn { node: NodeId([4; 32]), epoch: 3, healthy_since: WallTime(5), by_most: true };
    let row = AllocRow {
        epoch: 300,
        birth: Birth(0x5a5a_5a5a),
        phase: Phase::Ended,
        effective_cpus: "0-3,8".parse().ok(),
        trouble: Some("exit status 3".into()),
        ending: Some(Ending::Preempted {
            by: AllocId { slot: slot.clone(), epoch: 2, birth: Birth(1) },
            priority: 90,
            over: 10,
        }),
        succession: Some(Box::new(succession(level, Some(stood_in)))),
        keep_s: if level > LEVEL_MIN { 60 } else { 0 },
        claim: Claim { disk: if level > 2 { 7 << 30 } else { 0 }, ..Claim::default() },
        ..AllocRow::default()
    };
    if level > 2 {
        let row = AllocRow { phase: Phase::Preparing, ending: None, ..row.clone() };
        let value = Value::Alloc(Box::new(row));
        let key = Key::Alloc(slot.clone(), stamp.node);
        entries.push(("preparing".into(), Entry { key, stamp, value, signature: None }));
    }
    let value = Value::Alloc(Box::new(row));
    let ended = Entry { key: Key::Alloc(slot, stamp.node), stamp, value, signature: None };
    entries.push(("ended".into(), ended));
    let mut full: crate::job::JobSpec =
        crate::job::parse(include_str!("../../../../../docs/examples/mixed.toml")).unwrap();
    full.resources.disk = if level > 2 { 5 << 30 } else { 0 };
    let signed = |key, value| Entry::written(&FABRIC, &signer(stamp.node), key, stamp, value);
    let job = crate::table::JobEntry {
        previous: Some(Box::new(crate::table::Previous {
            spec: full.clone(),
            version: 1,
            generation: 2,
        })),
        spec: full,
        version: 3,
        generation: 4,
        reverted: true,
        by: "me@n1".into(),
    };
    entries
        .push(("mixed".into(), signed(Key::Job(job.spec.name.clone()), Value::Job(Box::new(job)))));
    let token = TokenEntry {
        secret_hash: [5; 32],
        expires: WallTime(9),
        labels: [("rack".to_owned(), "r1".to_owned())].into(),
    };
    entries
        .push(("invitation".into(), signed(Key::Token(TokenId("t".into())), Value::Token(token))));
    let keyring = Keyring { keys: [(1, [1; 32]), (2, [2; 32])].into() };
    entries.push(("keys".into(), signed(Key::Keyring, Value::Keyring(keyring))));
    let quota = crate::quota::Quota {
        cpu_millis: Some(8000),
        devices: [("gpu".to_owned(), 2)].into(),
        disk: (level > 2).then_some(9 << 30),
        ..Default::default()
    };
    let team = crate::id::Namespace::new("team").unwrap();
    entries.push(("quota".into(), signed(Key::Quota(team), Value::Quota(quota))));
    entries
}

fn samples(level: u8) -> BTreeMap<String, Vec<u8>> {
    let entries = entries(level);
    let mut all = BTreeMap::new();
    for (name, entry) in &entries {
        all.insert(format!("entry-{name}.bin"), entry.encode());
    }
    let shared: Vec<crate::table::SharedEntry> =
        entries.iter().take(3).map(|(_, entry)| entry.clone().into()).collect();
    let clock = ClockReading { wall: WallTime(5), horizon: WallTime(6) };
    let confirms = vec![Confirm { subject: NodeId([1; 32]), generation: 3, by: NodeId([2; 32]) }];
    let purged_until = WallTime(7);
    let alloc = AllocId::new(JobName::new("web").unwrap(), 2, 300);
    let job = entries.iter().find(|(name, _)| name == "mixed").unwrap().1.clone();
    let rows = vec![(job.key.clone(), job.order())];
    let rejection = match level {
        LEVEL_MIN | 2 => Rejection::Draining,
        _ => Rejection::Disk { pool: "default".into(), wanted: 6 << 30, free: 5, of: 10 << 30 },
    };
    let proposed = (level > 2).then(|| Box::new(succession(level, None)));
    let datagrams = [
        ("swim", Datagram::Swim { packet: vec![0xaa; 40], confirms }),
        ("push", Datagram::Push(shared.iter().take(1).cloned().collect())),
        ("fingerprint", Datagram::Fingerprint { table: 5, clock, purged_until }),
        ("in-sync", Datagram::InSync { fingerprint: 5, purged_until, settled: true }),
        ("leaving", Datagram::Leaving { ends: true }),
    ];
    let messages = [
        ("buckets", Message::Buckets(vec![1; 256])),
        ("rows", Message::Rows { buckets: vec![1, 2], rows, purged_until }),
        ("want", Message::Want(vec![Key::Keyring, job.key.clone()])),
        (
            "entries",
            Message::Entries { entries: shared.clone(), more: true, purged_until, settled: true },
        ),
        ("hold", Message::Hold { ticket: 5, entries: shared.clone() }),
        ("held", Message::Held { ticket: 5 }),
        (
            "propose",
            Message::Propose { alloc: alloc.clone(), job: job.into(), succession: proposed },
        ),
        ("accept", Message::Accept { alloc: alloc.clone() }),
        ("reject", Message::Reject { alloc: alloc.clone(), reason: rejection }),
        ("retire", Message::Retire { alloc: alloc.clone(), reason: "x".into() }),
        ("drain", Message::Drain { on: true, by: NodeId([1; 32]) }),
        ("restart", Message::Restart { alloc: alloc.clone() }),
        (
            "move",
            Message::Move { alloc: alloc.clone(), from: NodeId([1; 32]), to: NodeId([2; 32]) },
        ),
        ("commit", Message::Commit { alloc }),
        ("news", Message::News { entries: shared }),
        ("reach", Message::Reach { answer: true }),
        ("pass-on", Message::PassOn { to: NodeId([1; 32]), bytes: vec![0xaa] }),
        ("passed-on", Message::PassedOn { from: NodeId([2; 32]), bytes: vec![0xbb] }),
        ("reclock", Message::Reclock),
        ("clock", Message::Clock(clock)),
    ];
    all.extend(datagrams.iter().map(|(name, it)| (format!("datagram-{name}.bin"), it.encode())));
    all.extend(messages.iter().map(|(name, it)| (format!("message-{name}.bin"), it.encode())));
    let disk = postcard::to_stdvec(&a_disk(level)).unwrap();
    all.insert("disk.bin".into(), disk);
    all
}

/// The same bytes again, and the level that they need.
fn again(name: &str, bytes: &[u8]) -> (Vec<u8>, u8) {
    let kind = name.split('-').next().unwrap();
    match kind {
        "entry" => {
            let entry = Entry::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            (entry.encode(), entry.level())
        }
        "datagram" => {
            let datagram =
                Datagram::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            (datagram.encode(), datagram.level())
        }
        "message" => {
            let message = Message::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            (message.encode(), message.level())
        }
        other => panic!("{other} is no kind of fixture"),
    }
}

#[test]
fn what_each_level_wrote_is_read_and_written_as_it_was() {
    for level in LEVEL_MIN..=LEVEL {
        let folder = folder(level);
        let samples = samples(level);
        if std::env::var_os("WEFT_REWRITE").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in samples.iter().filter(|(name, _)| !folder.join(name).exists()) {
                std::fs::write(folder.join(name), bytes).unwrap();
            }
        }
        for name in samples.keys().filter(|name| *name != "disk.bin") {
            let found = std::fs::read(folder.join(name));
            let bytes = found.unwrap_or_else(|error| panic!("{name} of level {level}: {error}"));
            let (written, needed) = again(name, &bytes);
            assert!(written == bytes, "{name} of level {level} is written otherwise now");
            assert_eq!(bytes[0], FORMAT + needed, "{name} of level {level}");
            assert!(needed <= level, "{name} of level {level} needs level {needed}");
        }
    }
}

#[test]
fn an_agent_goes_on_with_the_disk_of_each_level() {
    for level in LEVEL_MIN..=LEVEL {
        let rows: Rows =
            postcard::from_bytes(&std::fs::read(folder(level).join("disk.bin")).unwrap()).unwrap();
        assert!(super::super::super::level_on_disk(&rows) <= level);
        let mut fleet = Fleetlet::new(1);
        let one = NodeId([1; 32]);
        fleet.now.wall.0 += 600_000;
        fleet.restore(one, 99_000_000_000_000, rows.into_iter().collect());
        let node = &fleet.nodes[&one];
        assert_eq!(node.roster().len(), 3, "level {level}");
        let jobs: Vec<_> = node.jobs().into_iter().map(|job| job.name.to_string()).collect();
        assert_eq!(jobs, ["web"], "level {level}");
        assert_eq!(node.counters().malformed, 0);
        assert_eq!(node.supervisor.locals().count(), 1, "level {level}: what it ran is known");
    }
}
