use super::super::tests::*;
use super::*;
use crate::id::{JobName, NodeId};
use crate::io::Request;
use crate::node::Brought;
use crate::stamp::READING_MAX;
use crate::table::{Merge, RosterEntry, TokenId};
use std::time::Duration;

const YEAR_MS: i64 = 365 * 86_400_000;
const FROM: Brought = Brought::ByStream(NodeId([3; 32]));

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn roster(of: NodeId, by: NodeId, wall: u64, counter: u64) -> Entry {
    let entry = RosterEntry { name: "x".into(), vouched_by: by, joined: WallTime(0) };
    let reading = (wall << 16).saturating_add(counter);
    let (stamp, value) = (Stamp { reading, node: by }, Value::Roster(entry));
    Entry::written(&FABRIC, &signer(by), Key::Roster(of), stamp, value)
}

#[test]
fn a_stamp_far_ahead_is_refused_and_moves_no_clock() {
    let mut fleet = Fleetlet::new(3);
    let now = fleet.now;
    let one = fleet.nodes.get_mut(&node(1)).unwrap();
    let before = (one.time.clock.last(), one.replica.fingerprint());
    let hours = |hours: u64| now.wall.0 + hours * 3_600_000;
    for wall in [hours(2), hours(24 * 365 * 50), READING_MAX >> 16, u64::MAX >> 16] {
        let entry = roster(node(9), node(3), wall, 0xffff);
        assert_eq!(one.take_in(now, FROM, entry, true), Merge::Refused, "{wall}");
    }
    assert_eq!((one.time.clock.last(), one.replica.fingerprint()), before);
    assert_eq!(one.clocks(now).refused, 4);
    // When its time has come it is taken.
    let entry = roster(node(9), node(3), hours(2), 0);
    let later = Now { wall: WallTime(hours(2)), ..now };
    for number in [2, 3] {
        let reading = ClockReading { wall: later.wall, horizon: now.wall };
        one.time.timekeeper.hear(now.at, node(number), reading);
    }
    let later = one.read_clocks(later);
    assert_eq!(one.take_in(later, FROM, entry, true), Merge::Taken);
}

#[test]
fn an_hour_is_not_far_ahead() {
    let mut fleet = Fleetlet::new(3);
    let now = fleet.now;
    let one = fleet.nodes.get_mut(&node(1)).unwrap();
    let entry = roster(node(9), node(3), now.wall.0 + 3_500_000, 0);
    assert_eq!(one.take_in(now, FROM, entry, true), Merge::Taken);
}

#[test]
fn the_largest_stamp_makes_nobody_unremovable() {
    let mut fleet = Fleetlet::new(3);
    let now = fleet.now;
    let entry = Entry {
        stamp: Stamp { reading: u64::MAX, node: NodeId([0xff; 32]) },
        ..roster(node(3), node(3), 0, 0)
    };
    for number in [1, 2] {
        let one = fleet.nodes.get_mut(&node(number)).unwrap();
        assert_eq!(one.take_in(now, FROM, entry.clone(), true), Merge::Refused);
    }
    fleet.ask(node(1), Request::Remove { node: node(3), new_key: [4; 32], force: true });
    fleet.run(Duration::from_secs(5));
    assert_eq!(fleet.answers.pop(), Some(Answer::Done));
    for number in [1, 2] {
        assert!(!fleet.nodes[&node(number)].is_member(&node(3)));
    }
}

/// Years ahead, years behind, and what nobody ever set: whatever one clock shows, the others go by theirs, and what
/// that node runs and says is dated like theirs.
#[test]
fn one_wrong_clock_changes_nobody_elses_time() {
    for off_ms in [50 * YEAR_MS, -3 * YEAR_MS, -60 * YEAR_MS, 7_200_000] {
        let mut fleet = Fleetlet::new(3);
        fleet.clocks_ms.insert(node(3), off_ms);
        fleet.run(Duration::from_secs(30));
        fleet.submit(node(3), WEB);
        fleet.run(Duration::from_secs(30));
        assert_eq!(fleet.healthy(node(1), "web").len(), 3, "{off_ms}");
        for one in fleet.nodes.values() {
            let now = Now { at: fleet.now.at, wall: one.time.own_wall };
            assert!(one.fabric_time(now).0.abs_diff(fleet.now.wall.0) < 60_000, "{off_ms}");
            for entry in one.replica.entries() {
                let written = entry.stamp.wall().0;
                assert!(written.abs_diff(fleet.now.wall.0) < 300_000, "{off_ms}: {:?}", entry.key);
            }
        }
        // And everybody says whose it is.
        for one in fleet.nodes.values() {
            let now = Now { at: fleet.now.at, wall: one.time.own_wall };
            let off = one.clocks(now).off;
            assert_eq!(off.len(), 1, "{off:?}");
            // No clock shows a time before 1970.
            let shown = off_ms.max(-(fleet.now.wall.0 as i64));
            let right = off[0].ahead_ms.abs_diff(shown) < 100_000;
            assert!(off[0].node == node(3) && right, "{off:?}");
        }
    }
}

#[test]
fn tokens_outlive_a_clock_that_is_ahead() {
    let mut fleet = Fleetlet::new(3);
    let tokens = |fleet: &Fleetlet, number| fleet.nodes[&node(number)].tokens(fleet.now).len();
    fleet.clocks_ms.insert(node(3), 7_200_000);
    fleet.run(Duration::from_secs(200));
    assert_eq!([1, 2, 3].map(|number| tokens(&fleet, number)), [1, 1, 1]);
    // Whoever has the wrong clock lets nobody in with an old token, nor keeps anybody out with a good one.
    let enrol = || Request::Enrol {
        node: node(7),
        name: "n7".into(),
        level: crate::level::LEVEL,
        token: TokenId("t".into()),
        secret_hash: [3; 32],
    };
    fleet.ask(node(3), enrol());
    assert!(matches!(fleet.answers.pop(), Some(Answer::Enrolled { .. })));
    let hour = Duration::from_secs(3601);
    fleet.clocks_ms.insert(node(3), -7_200_000);
    fleet.run(hour);
    fleet.ask(node(3), enrol());
    assert!(matches!(fleet.answers.pop(), Some(Answer::Refused(_))));
    assert_eq!(tokens(&fleet, 1), 0, "it is listed no longer");
    let kept = |fleet: &Fleetlet| {
        let key = Key::Token(TokenId("t".into()));
        let one = &fleet.nodes[&node(1)];
        one.replica.entry(&key).is_some_and(|entry| matches!(entry.value, Value::Token(_)))
    };
    assert!(kept(&fleet), "a day later it is deleted, not before");
}

#[test]
fn a_fabric_that_is_dated_ahead_is_dated_anew() {
    let mut fleet = Fleetlet::new(3);
    fleet.submit(node(1), WEB);
    fleet.run(Duration::from_secs(20));
    for number in [1, 2, 3] {
        fleet.nodes.get_mut(&node(number)).unwrap().time.timekeeper.gullible = true;
    }
    fleet.clocks_ms.insert(node(3), 50 * YEAR_MS);
    fleet.submit(node(3), &WEB.replace("count = 3", "count = 2"));
    fleet.run(Duration::from_secs(30));
    let ahead = |fleet: &Fleetlet, number: u8| {
        let one = &fleet.nodes[&node(number)];
        let entries = one.replica.entries();
        entries.filter(|entry| entry.stamp.wall().since(fleet.now.wall).as_secs() > 3600).count()
    };
    assert!([1, 2, 3].iter().all(|number| ahead(&fleet, *number) > 0), "the fabric is spoilt");
    // The clock is set, and whoever looks after the fabric is told what else is to be done.
    for number in [1, 2, 3] {
        fleet.nodes.get_mut(&node(number)).unwrap().time.timekeeper.gullible = false;
    }
    fleet.clocks_ms.clear();
    fleet.run(Duration::from_secs(60));
    assert!(ahead(&fleet, 1) > 0, "nothing is dated anew unless somebody asks");
    let words = fleet.nodes[&node(1)].clocks(fleet.now).warnings();
    assert!(words.iter().any(|line| line.contains("weft fabric reclock")), "{words:?}");
    let before = fleet.commands.len();
    fleet.answers.clear();
    fleet.ask(node(2), Request::Reclock);
    assert_eq!(fleet.answers.pop(), Some(Answer::Done));
    fleet.run(Duration::from_secs(60));
    for number in [1, 2, 3] {
        assert_eq!(ahead(&fleet, number), 0);
        assert!(fleet.nodes[&node(number)].clocks(fleet.now).warnings().is_empty());
    }
    let fingerprints: std::collections::BTreeSet<u64> =
        fleet.nodes.values().map(|one| one.replica.fingerprint()).collect();
    assert_eq!(fingerprints.len(), 1, "all hold the same");
    assert_eq!(fleet.commands.len(), before, "nothing was started or stopped for it");
    assert_eq!(fleet.healthy(node(1), "web").len(), 2);
    // And what is old leaves again.
    fleet.ask(node(1), Request::Stop { job: JobName::new("web").unwrap() });
    fleet.run(Duration::from_secs(10));
    for number in [1, 2, 3] {
        fleet.clocks_ms.insert(node(number), 13 * 3_600_000);
    }
    fleet.run(Duration::from_secs(130));
    let rows = fleet.nodes[&node(1)].allocs(None, true);
    assert!(rows.is_empty(), "{rows:?}");
}

#[test]
fn whoever_was_away_while_the_fabric_was_dated_anew_follows() {
    let mut fleet = Fleetlet::new(3);
    fleet.submit(node(1), WEB);
    for number in [1, 2, 3] {
        fleet.nodes.get_mut(&node(number)).unwrap().time.timekeeper.gullible = true;
    }
    fleet.clocks_ms.insert(node(3), 50 * YEAR_MS);
    fleet.submit(node(3), &WEB.replace("count = 3", "count = 2"));
    fleet.run(Duration::from_secs(30));
    for number in [1, 2, 3] {
        fleet.nodes.get_mut(&node(number)).unwrap().time.timekeeper.gullible = false;
    }
    fleet.clocks_ms.clear();
    fleet.run(Duration::from_secs(60));
    fleet.cut_off.insert(node(2));
    fleet.run(Duration::from_secs(5));
    fleet.ask(node(1), Request::Reclock);
    fleet.run(Duration::from_secs(120));
    fleet.cut_off.clear();
    fleet.run(Duration::from_secs(120));
    let fingerprints: std::collections::BTreeSet<u64> =
        fleet.nodes.values().map(|one| one.replica.fingerprint()).collect();
    assert_eq!(fingerprints.len(), 1, "all hold the same");
    for one in fleet.nodes.values() {
        assert!(one.clocks(fleet.now).warnings().is_empty());
    }
}

#[test]
fn without_a_majority_nothing_is_dated_anew() {
    let mut fleet = Fleetlet::new(3);
    fleet.clocks_ms.insert(node(2), 4 * 3_600_000);
    fleet.clocks_ms.insert(node(3), -4 * 3_600_000);
    fleet.run(Duration::from_secs(60));
    fleet.ask(node(1), Request::Reclock);
    assert!(matches!(fleet.answers.pop(), Some(Answer::Refused(_))));
    let words = fleet.nodes[&node(1)].clocks(fleet.now).warnings();
    assert!(words.iter().any(|line| line.contains("no majority")), "{words:?}");
}
