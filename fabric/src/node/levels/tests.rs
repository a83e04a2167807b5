use super::super::tests::*;
use super::*;
use crate::io::{Answer, Request};
use crate::level::LEVEL;
use std::time::Duration;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// A job that old agents cannot read.
fn new_kind() -> String {
    format!("{WEB}\n[keep]\nended = \"5m\"")
}

fn levels(fleet: &Fleetlet) -> Vec<u8> {
    fleet.nodes.values().map(Node::level).collect()
}

#[test]
fn the_fabric_is_as_old_as_its_oldest_agent_and_never_gets_younger() {
    let mut fleet = Fleetlet::at_level(3, 1);
    fleet.run(Duration::from_secs(60));
    assert_eq!(levels(&fleet), [1; 3]);
    for upgraded in [1, 3] {
        fleet.start_at_level(node(upgraded), LEVEL);
        fleet.run(Duration::from_secs(60));
        assert_eq!(levels(&fleet), [1; 3]);
    }
    // What an old agent cannot read is refused, with its name; what it can is taken.
    let answer = fleet.submit(node(1), &new_kind());
    let Answer::Refused(problem) = answer else { panic!("{answer:?}") };
    assert!(problem.detail.contains("upgrade n2"), "{problem:?}");
    assert_eq!(fleet.nodes[&node(1)].held_back_by(), [node(2)]);
    assert!(fleet.nodes[&node(3)].table.jobs().next().is_none());
    assert!(matches!(fleet.submit(node(1), WEB), Answer::Submitted(_)));
    // One goes back, and that is an ordinary day.
    fleet.start_at_level(node(3), 1);
    fleet.run(Duration::from_secs(60));
    assert_eq!(fleet.healthy(node(1), "web").len(), 3);
    fleet.start_at_level(node(3), LEVEL);
    fleet.start_at_level(node(2), LEVEL);
    fleet.run(Duration::from_secs(60));
    assert_eq!(levels(&fleet), [LEVEL; 3]);
    assert!(matches!(fleet.submit(node(2), &new_kind()), Answer::Submitted(_)));
    // It is on their disks, by which an agent that is too old for it knows that it is.
    for disk in fleet.disks.values() {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = disk.clone().into_iter().collect();
        assert_eq!(super::super::level_on_disk(&rows), LEVEL);
    }
}

#[test]
fn an_agent_that_is_too_old_is_not_let_in_and_takes_no_part() {
    let mut fleet = Fleetlet::new(2);
    fleet.run(Duration::from_secs(30));
    assert_eq!(levels(&fleet), [LEVEL; 2]);
    let enrol = Request::Enrol {
        node: node(9),
        name: "n9".into(),
        level: LEVEL - 1,
        token: crate::table::TokenId("t".into()),
        secret_hash: [3; 32],
    };
    fleet.ask(node(1), enrol);
    let answer = fleet.answers.pop();
    let Some(Answer::Refused(problem)) = answer else { panic!("{answer:?}") };
    assert!(problem.title.contains("too old"), "{problem:?}");
    // One that comes back older than it was, and does not know: its disk is from before.
    let mut disk = fleet.disks[&node(2)].clone();
    disk.retain(|key, _| key[0] != 4);
    assert!(matches!(fleet.submit(node(1), WEB), Answer::Submitted(_)));
    fleet.restore_at(node(2), 7, disk, LEVEL - 1);
    fleet.run(Duration::from_secs(60));
    assert!(fleet.nodes[&node(2)].is_too_old());
    let Answer::Refused(problem) = fleet.submit(node(2), &WEB.replace("web", "more")) else {
        panic!("{:?}", fleet.answers)
    };
    assert!(problem.title.contains("too old"), "{problem:?}");
    let started =
        fleet.commands.iter().filter(|(at, ..)| fleet.now.at.since(*at) < Duration::from_secs(50));
    assert_eq!(
        started.filter(|(_, at, words)| *at == node(2) && words.starts_with("start")).count(),
        0
    );
}

mod fixtures;
