//! What users ask of a table that is full.

use super::super::tests::*;
use super::*;
use crate::alloc::Phase;
use crate::quota::Quota;
use crate::table::Bounds;
use std::collections::BTreeMap;
use std::time::Duration;

const ONE: NodeId = NodeId([1; 32]);
const TWO: NodeId = NodeId([2; 32]);

/// `web` runs on three nodes, whose tables hold as much as `bounds` says, given what is in them.
fn fabric_with(bounds: impl Fn(Bounds) -> Bounds) -> Fleetlet {
    let mut fleet = Fleetlet::new(3);
    assert!(matches!(fleet.submit(TWO, WEB), Answer::Submitted(_)));
    fleet.run(Duration::from_secs(30));
    for node in fleet.nodes.values_mut() {
        let counts = node.replica.counts();
        let (entries, jobs, quotas) = (counts.entries, counts.jobs, counts.quotas);
        let (all, spare) = (Bounds::default(), Bounds::default().spare);
        let full = bounds(Bounds { entries, jobs, quotas, spare });
        node.replica.table_mut().set_bounds(Bounds {
            entries: all.entries.min(full.entries),
            jobs: all.jobs.min(full.jobs),
            quotas: all.quotas.min(full.quotas),
            spare,
        });
    }
    fleet
}

fn job(name: &str) -> String {
    WEB.replace("\"web\"", &format!("{name:?}")).replace("cores = 1", "cpu = 0.1")
}

fn asked(fleet: &mut Fleetlet, request: Request) -> Answer {
    fleet.ask(ONE, request);
    fleet.run(Duration::from_secs(1));
    fleet.answers.pop().expect("an answer")
}

fn refused(answer: &Answer) -> &Problem {
    let Answer::Refused(problem) = answer else { panic!("{answer:?}") };
    assert_eq!(problem.kind, ProblemKind::Conflict, "{problem:?}");
    problem
}

/// Slot, node and epoch of everything that runs.
fn running(fleet: &Fleetlet) -> BTreeMap<(SlotId, NodeId), u64> {
    let rows = fleet.nodes[&ONE].replica.allocs();
    rows.filter(|(_, _, row, _)| row.phase == Phase::Running && row.healthy)
        .map(|(slot, node, row, _)| ((slot.clone(), node), row.epoch))
        .collect()
}

fn agree(fleet: &Fleetlet) -> bool {
    let all: BTreeSet<u64> = fleet.nodes.values().map(|node| node.fingerprint()).collect();
    all.len() == 1
}

#[test]
fn a_table_full_of_jobs_refuses_another_name_and_changes_what_is_there() {
    const MORE: usize = 1 << 20;
    let mut fleet = fabric_with(|it| Bounds { entries: MORE, quotas: MORE, ..it });
    let before = running(&fleet);
    assert_eq!(before.len(), 3);
    let answer = fleet.submit(ONE, &job("other"));
    assert!(refused(&answer).detail.contains("names of jobs are in use"), "{answer:?}");
    fleet.run(Duration::from_secs(300));
    assert_eq!(running(&fleet), before);
    let four = fleet.submit(ONE, &WEB.replace("count = 3", "count = 4"));
    assert!(matches!(four, Answer::Submitted(_)), "{four:?}");
    fleet.run(Duration::from_secs(30));
    assert_eq!(running(&fleet).len(), 4);
    assert!(agree(&fleet));
}

#[test]
fn a_table_full_of_quotas_refuses_another_namespace_and_changes_what_is_there() {
    const MORE: usize = 1 << 20;
    let mut fleet =
        fabric_with(|it| Bounds { entries: MORE, jobs: MORE, quotas: it.quotas + 1, ..it });
    let set = |namespace: &str| Request::SetQuota {
        namespace: namespace.parse().expect("a namespace"),
        quota: Quota { cpu_millis: Some(64_000), ..Quota::default() },
        force: false,
    };
    assert!(matches!(asked(&mut fleet, set("one")), Answer::Done));
    refused(&asked(&mut fleet, set("two")));
    assert!(matches!(asked(&mut fleet, set("one")), Answer::Done));
    assert!(agree(&fleet));
}

#[test]
fn a_full_table_refuses_what_is_new_and_touches_nothing_that_runs() {
    let mut fleet = fabric_with(|it| it);
    let before = running(&fleet);
    for answer in [
        fleet.submit(ONE, &job("other")),
        asked(
            &mut fleet,
            Request::AddToken {
                id: TokenId("u".into()),
                secret_hash: [4; 32],
                lifetime: Duration::from_secs(60),
                labels: BTreeMap::new(),
            },
        ),
        asked(
            &mut fleet,
            Request::Enrol {
                node: NodeId([9; 32]),
                name: "n9".into(),
                level: crate::level::LEVEL,
                token: TokenId("t".into()),
                secret_hash: [3; 32],
            },
        ),
    ] {
        let problem = refused(&answer);
        assert!(problem.title.contains("full"), "{problem:?}");
    }
    // A slot that nobody could know of is not started, and the job says why.
    let four = fleet.submit(ONE, &WEB.replace("count = 3", "count = 4"));
    assert!(matches!(four, Answer::Submitted(_)), "{four:?}");
    fleet.run(Duration::from_secs(300));
    assert_eq!(running(&fleet), before);
    assert!(agree(&fleet));
    // With room again it comes.
    for node in fleet.nodes.values_mut() {
        node.replica.table_mut().set_bounds(Bounds::default());
    }
    fleet.run(Duration::from_secs(120));
    assert_eq!(running(&fleet).len(), 4);
    assert!(before.iter().all(|(slot, epoch)| running(&fleet).get(slot) == Some(epoch)));
}

/// Each of the members may make the last entry; none of them refuses what another one accepted.
#[test]
fn what_several_members_accept_at_a_bound_is_in_all_tables() {
    let mut fleet = fabric_with(|it| Bounds { entries: 1 << 20, jobs: it.jobs + 15, ..it });
    for number in 0..14 {
        assert!(matches!(fleet.submit(ONE, &job(&format!("j{number}"))), Answer::Submitted(_)));
    }
    for (member, name) in [(ONE, "one"), (TWO, "two")] {
        let spec =
            Box::new(crate::job::parse(&job(name).replace("count = 3", "count = 0")).unwrap());
        fleet.cut_off.insert(TWO);
        fleet.ask(member, Request::Submit { spec, by: "me".into(), expected_version: None });
    }
    fleet.cut_off.clear();
    fleet.run(Duration::from_secs(60));
    assert!(agree(&fleet));
    let names = fleet.nodes[&ONE].replica.jobs().count();
    assert_eq!(names, 17, "two last ones");
    refused(&fleet.submit(ONE, &job("more")));
}

#[test]
fn a_full_fabric_lets_nobody_in_and_welcomes_its_members_again() {
    let mut fleet = Fleetlet::new(1);
    let member = |number: u32| {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    };
    let (now, one) = (fleet.now, fleet.nodes.get_mut(&ONE).expect("it runs"));
    for number in 1..limits::MEMBERS_MAX as u32 {
        let entry = RosterEntry { name: "other".into(), vouched_by: ONE, joined: now.wall };
        let (key, value) = (Key::Roster(member(number)), Value::Roster(entry));
        let stamp = one.time.clock.tick(now.wall);
        let entry = Entry::written(&FABRIC, &signer(ONE), key, stamp, value);
        assert_eq!(one.replica.table_mut().merge(entry, now.wall), Merge::Taken);
    }
    assert_eq!(one.replica.members(), limits::MEMBERS_MAX);
    let before = one.fingerprint();
    let mut enrol = |node| {
        let (name, level) = ("newcomer".into(), crate::level::LEVEL);
        let (token, secret_hash) = (TokenId("t".into()), [3; 32]);
        fleet.ask(ONE, Request::Enrol { node, name, level, token, secret_hash });
        fleet.answers.pop().expect("an answer")
    };
    let answer = enrol(NodeId([9; 32]));
    let problem = refused(&answer);
    assert_eq!(problem.title, "the fabric is full");
    assert!(problem.detail.contains("16384 nodes"), "{problem:?}");
    assert!(matches!(enrol(member(5)), Answer::Enrolled { .. }));
    assert_eq!(fleet.nodes[&ONE].fingerprint(), before, "nothing has changed");
}
