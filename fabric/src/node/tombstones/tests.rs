use super::super::tests::*;
use super::*;
use crate::id::JobName;
use crate::io::{Answer, Request};
use crate::table::{Merge, Value};
use std::collections::BTreeSet;

const MINUTE: Duration = Duration::from_secs(60);

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn name(name: &str) -> JobName {
    JobName::new(name).unwrap()
}

/// The file of a job that runs nowhere.
fn idle(name: &str) -> String {
    WEB.replace("\"web\"", &format!("{name:?}")).replace("count = 3", "count = 0")
}

fn submit(fleet: &mut Fleetlet, at: NodeId, name: &str) {
    let answer = fleet.submit(at, &idle(name));
    assert!(matches!(answer, Answer::Submitted(_)), "{answer:?}");
}

fn stop(fleet: &mut Fleetlet, at: NodeId, job: &str) {
    fleet.ask(at, Request::Stop { job: name(job) });
    fleet.run(Duration::from_secs(1));
    let answer = fleet.answers.pop();
    assert!(matches!(answer, Some(Answer::Submitted(_))), "{answer:?}");
}

/// The jobs that a node knows.
fn jobs(fleet: &Fleetlet, at: NodeId) -> BTreeSet<String> {
    fleet.nodes[&at].replica.jobs().map(|(name, ..)| name.to_string()).collect()
}

/// Tombstones of anything on any node.
fn tombstones(fleet: &Fleetlet) -> usize {
    let of = |node: &Node| node.replica.tombstones(WallTime(u64::MAX)).count();
    fleet.nodes.values().map(of).sum()
}

#[test]
fn what_all_members_saw_deleted_leaves_every_table() {
    let mut fleet = Fleetlet::new(3);
    let rows = |fleet: &Fleetlet| fleet.nodes.values().map(|it| it.info.seen).collect::<Vec<_>>();
    submit(&mut fleet, node(1), "kept");
    fleet.run(5 * MINUTE);
    assert_eq!(rows(&fleet), [None; 3], "nothing is said while there is nothing to say");
    for job in ["one", "two", "three"] {
        submit(&mut fleet, node(1), job);
        stop(&mut fleet, node(2), job);
    }
    assert_eq!(tombstones(&fleet), 9);
    fleet.run(5 * MINUTE);
    assert_eq!(tombstones(&fleet), 0);
    for member in [1, 2, 3] {
        assert_eq!(fleet.nodes[&node(member)].replica.counts().jobs, 1);
        assert!(fleet.nodes[&node(member)].hold_up_tombstones().is_empty());
    }
    let equal: BTreeSet<u64> = fleet.nodes.values().map(|node| node.fingerprint()).collect();
    assert_eq!(equal.len(), 1);
    // And then nothing more is written.
    let said = rows(&fleet);
    fleet.run(10 * MINUTE);
    assert_eq!(rows(&fleet), said);
}

#[test]
fn a_member_that_is_away_holds_it_up_and_brings_nothing_back() {
    let mut fleet = Fleetlet::new(3);
    submit(&mut fleet, node(1), "gone");
    fleet.cut.insert(node(3));
    fleet.run(MINUTE);
    stop(&mut fleet, node(1), "gone");
    fleet.run(10 * MINUTE);
    assert_eq!(fleet.nodes[&node(1)].hold_up_tombstones(), [node(3)], "at once");
    let rows: Vec<_> = fleet.nodes.values().map(|it| it.info.seen).collect();
    assert_eq!(rows, [None; 3], "no round can succeed: nothing is written");
    fleet.run(2 * limits::PURGE_ROUND_AWAY);
    let one = &fleet.nodes[&node(1)];
    assert_eq!(one.hold_up_tombstones(), [node(3)]);
    assert!(one.why_names_stay().contains("and n3 did not"), "{}", one.why_names_stay());
    assert!(fleet.nodes[&node(1)].replica.entry(&Key::Job(name("gone"))).is_some());
    fleet.cut.clear();
    fleet.run(10 * MINUTE);
    for member in [1, 2, 3] {
        assert_eq!(jobs(&fleet, node(member)), BTreeSet::new());
    }
    assert_eq!(tombstones(&fleet), 0);
}

#[test]
fn a_restored_backup_brings_nothing_back_and_gets_what_it_lacks() {
    let mut fleet = Fleetlet::new(3);
    submit(&mut fleet, node(1), "gone");
    submit(&mut fleet, node(1), "changed");
    fleet.run(Duration::from_secs(10));
    let backup = fleet.disks[&node(3)].clone();
    stop(&mut fleet, node(1), "gone");
    submit(&mut fleet, node(2), "new");
    let changed = idle("changed").replace("1000", "2000");
    assert!(matches!(fleet.submit(node(2), &changed), Answer::Submitted(_)));
    fleet.run(10 * MINUTE);
    assert_eq!(tombstones(&fleet), 0);
    let purged = fleet.nodes[&node(1)].purged_until();
    assert_ne!(purged, WallTime(0));

    fleet.restore(node(3), 2, backup);
    assert!(jobs(&fleet, node(3)).contains("gone"));
    fleet.run(2 * MINUTE);
    let live = ["changed", "new"].map(String::from).into();
    for member in [1, 2, 3] {
        assert_eq!(jobs(&fleet, node(member)), live, "{member}");
        let job = fleet.nodes[&node(member)].replica.job(&name("changed")).unwrap();
        assert_eq!(job.version, 2);
        assert!(fleet.nodes[&node(member)].purged_until() >= purged, "{member}");
    }
}

#[test]
fn who_joins_later_gets_what_is_older_than_that() {
    let mut fleet = Fleetlet::new(3);
    submit(&mut fleet, node(1), "old");
    submit(&mut fleet, node(1), "gone");
    stop(&mut fleet, node(1), "gone");
    fleet.run(10 * MINUTE);
    fleet.join(4, 3);
    fleet.run(2 * MINUTE);
    for member in [1, 2, 3, 4] {
        assert_eq!(jobs(&fleet, node(member)), BTreeSet::from(["old".to_owned()]));
    }
    assert_eq!(fleet.nodes[&node(4)].purged_until(), fleet.nodes[&node(1)].purged_until());
}

#[test]
fn a_disk_that_lost_rows_takes_them_back() {
    let mut fleet = Fleetlet::new(2);
    submit(&mut fleet, node(1), "old");
    submit(&mut fleet, node(1), "gone");
    stop(&mut fleet, node(1), "gone");
    fleet.run(10 * MINUTE);
    let purged = fleet.nodes[&node(1)].purged_until();
    assert_ne!(purged, WallTime(0));
    let mut disk = fleet.disks[&node(2)].clone();
    let of_the_job = |value: &[u8]| value.windows(3).any(|part| part == b"old");
    let lost: Vec<Vec<u8>> =
        disk.iter().filter(|(_, it)| of_the_job(it)).map(|(key, _)| key.clone()).collect();
    assert_eq!(lost.len(), 1);
    for key in lost {
        disk.remove(&key);
    }
    fleet.restore(node(2), 2, disk);
    assert_eq!(fleet.nodes[&node(2)].purged_until(), purged);
    fleet.run(2 * MINUTE);
    for member in [1, 2] {
        assert_eq!(jobs(&fleet, node(member)), BTreeSet::from(["old".to_owned()]));
    }
}

#[test]
fn what_was_accepted_on_an_island_stays() {
    let mut fleet = Fleetlet::new(3);
    submit(&mut fleet, node(1), "gone");
    fleet.cut_off.insert(node(3));
    fleet.run(MINUTE);
    stop(&mut fleet, node(1), "gone");
    fleet.ask(
        node(3),
        Request::Submit {
            spec: Box::new(crate::job::parse(&idle("island")).unwrap()),
            by: "me".into(),
            expected_version: None,
        },
    );
    // Long enough for rounds that somebody is missing from.
    fleet.run(2 * limits::PURGE_ROUND_AWAY + 10 * MINUTE);
    fleet.cut_off.clear();
    fleet.run(10 * MINUTE);
    for member in [1, 2, 3] {
        assert_eq!(jobs(&fleet, node(member)), BTreeSet::from(["island".to_owned()]));
    }
    assert_eq!(tombstones(&fleet), 0);
}

#[test]
fn a_name_that_is_used_again_counts_on() {
    let mut fleet = Fleetlet::new(2);
    assert!(matches!(fleet.submit(node(1), WEB), Answer::Submitted(_)));
    fleet.run(Duration::from_secs(5));
    stop(&mut fleet, node(1), "web");
    fleet.run(10 * MINUTE);
    assert_eq!(tombstones(&fleet), 0);
    let answer = fleet.submit(node(2), WEB);
    let Answer::Submitted(submitted) = answer else { panic!("{answer:?}") };
    assert_eq!(submitted.version, 2, "rows of the first one are still there");
}

#[test]
fn clocks_that_were_wrong_leave_nothing_refused() {
    let mut fleet = Fleetlet::new(1);
    let now = fleet.now;
    let one = fleet.nodes.get_mut(&node(1)).unwrap();
    one.replica.set_purged_until(WallTime(now.wall.0 + 50 * 366 * 86_400_000));
    fleet.run(MINUTE);
    assert_eq!(fleet.nodes[&node(1)].purged_until(), WallTime(0));
}

/// `days` with `names` that are used for a minute each, on three nodes. Each minute is run for its last seconds only.
fn names_come_and_go(days: u32, names: u32) {
    let mut fleet = Fleetlet::new(3);
    submit(&mut fleet, node(1), "kept");
    let (minutes, mut used, mut most) = (days * 1440, 0, 0);
    let before = fleet.nodes[&node(1)].replica.len();
    for minute in 0..minutes {
        let due = (u64::from(names) * u64::from(minute + 1) / u64::from(minutes)) as u32;
        let (now, one) = (fleet.now, fleet.nodes.get_mut(&node(1 + (minute % 3) as u8)).unwrap());
        for used in used..due {
            let key = Key::Job(name(&format!("n{used}")));
            let spec = crate::job::parse(&idle(&format!("n{used}"))).unwrap();
            let job = crate::table::JobEntry {
                spec,
                version: 1,
                generation: 0,
                previous: None,
                reverted: false,
                by: "me".into(),
            };
            assert_eq!(one.write(now, key.clone(), Value::Job(Box::new(job))), Merge::Taken);
            assert_eq!(one.write(now, key, Value::Tombstone { rank: 1 }), Merge::Taken);
        }
        used = due;
        fleet.now.at = fleet.now.at + Duration::from_secs(56);
        fleet.run(Duration::from_secs(4));
        most = most.max(fleet.nodes[&node(2)].replica.len());
    }
    fleet.run(10 * MINUTE);
    let per_minute = names.div_ceil(minutes) as usize;
    assert!(most <= before + per_minute * 10, "{most} entries at a time");
    assert_eq!(tombstones(&fleet), 0);
    for member in [1, 2, 3] {
        assert_eq!(jobs(&fleet, node(member)), BTreeSet::from(["kept".to_owned()]));
    }
    println!(
        "{used} names in {days} days: at most {most} entries at a time, {before} without them"
    );
}

#[test]
fn names_of_a_day_leave() {
    names_come_and_go(1, 2_000);
}

/// 200,000 names in a month: `make test-ground` runs it.
#[test]
#[ignore = "minutes"]
fn names_of_a_month_leave() {
    names_come_and_go(30, 200_000);
}

#[test]
fn tokens_and_quotas_that_all_members_saw_deleted_leave_as_well() {
    let mut fleet = Fleetlet::new(3);
    let id = crate::table::TokenId("gone".into());
    let namespace: crate::id::Namespace = "gone".parse().unwrap();
    let add = Request::AddToken {
        id: id.clone(),
        secret_hash: [4; 32],
        lifetime: 60 * MINUTE,
        labels: Default::default(),
    };
    let quota = crate::quota::Quota { allocs: Some(3), ..Default::default() };
    let set = Request::SetQuota { namespace: namespace.clone(), quota, force: false };
    let asks = [
        (1, add),
        (2, set),
        (3, Request::RevokeToken { id: id.clone() }),
        (1, Request::RemoveQuota { namespace: namespace.clone() }),
    ];
    for (member, request) in asks {
        fleet.ask(node(member), request);
        fleet.run(Duration::from_secs(1));
        assert_eq!(fleet.answers.pop(), Some(Answer::Done));
    }
    assert_eq!(tombstones(&fleet), 6);
    fleet.run(5 * MINUTE);
    assert_eq!(tombstones(&fleet), 0);
    for member in [1, 2, 3] {
        let table = &fleet.nodes[&node(member)].replica;
        assert!(table.entry(&Key::Token(id.clone())).is_none());
        assert_eq!((table.counts().quotas, table.quota(&namespace)), (0, None));
    }
    let equal: BTreeSet<u64> = fleet.nodes.values().map(|node| node.fingerprint()).collect();
    assert_eq!(equal.len(), 1);
}
