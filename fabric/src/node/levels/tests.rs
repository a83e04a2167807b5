use super::super::tests::*;
use super::*;
use crate::id::JobName;
use crate::io::{Answer, Request};
use crate::level::LEVEL;
use crate::table::Key;
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
    assert!(fleet.nodes[&node(3)].replica.jobs().next().is_none());
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

/// [`WEB`], whose slots want so much disk each.
fn with_disk(disk: &str) -> String {
    WEB.replace("memory = \"16MiB\"", &format!("memory = \"16MiB\"\ndisk = \"{disk}\""))
}

#[test]
fn disk_is_spoken_of_once_all_agents_can_read_of_it() {
    let mut fleet = Fleetlet::at_level(3, 2);
    for upgraded in [1, 3] {
        fleet.start_at_level(node(upgraded), LEVEL);
    }
    fleet.run(Duration::from_secs(60));
    assert_eq!(levels(&fleet), [2; 3]);
    let rows = |fleet: &Fleetlet| -> Vec<_> {
        let table = &fleet.nodes[&node(1)].replica;
        let rows = fleet.nodes.keys().map(|id| table.entry(&Key::Node(*id)).unwrap().clone());
        rows.collect()
    };
    let before = rows(&fleet);
    assert!(before.iter().all(|row| row.level() <= 2), "{before:?}");
    fleet.run(Duration::from_secs(60));
    assert_eq!(rows(&fleet), before, "what is left out is no news");
    // Who asks for disk is told whom to upgrade; who asks for none is served.
    let refused = |answer: Answer| match answer {
        Answer::Refused(problem) => assert!(problem.detail.contains("upgrade n2"), "{problem:?}"),
        answer => panic!("{answer:?}"),
    };
    refused(fleet.submit(node(1), &with_disk("1GiB")));
    let namespace = crate::id::Namespace::new("team").unwrap();
    let quota = crate::quota::Quota { disk: Some(1 << 30), ..Default::default() };
    fleet.ask(node(3), Request::SetQuota { namespace, quota, force: false });
    refused(fleet.answers.pop().unwrap());
    assert!(matches!(fleet.submit(node(1), WEB), Answer::Submitted(_)));

    fleet.start_at_level(node(2), LEVEL);
    fleet.run(Duration::from_secs(60));
    assert_eq!(levels(&fleet), [LEVEL; 3]);
    for id in [1, 2, 3] {
        let pools = &fleet.nodes[&node(1)].replica.node(&node(id)).unwrap().topology.pools;
        assert_eq!(pools[0].capacity, 10 << 30, "n{id} says what it has");
    }
    assert!(matches!(fleet.submit(node(1), &with_disk("1GiB")), Answer::Submitted(_)));
    fleet.run(Duration::from_secs(60));
    assert_eq!(fleet.healthy(node(1), "web").len(), 3);
    let rows: Vec<_> = fleet.disks[&node(1)].clone().into_iter().collect();
    let (pools, claimed) = super::super::disk_on_disk(&rows, &node(1));
    assert_eq!(pools[0].capacity, 10 << 30, "which the next agent finds on its disk");
    let held = fleet.nodes[&node(1)].disk_claimed();
    assert!(held > 0 && claimed == held, "{claimed} of {held}");
}

#[test]
fn disk_is_shared_out_and_makes_room_for_what_is_more_important() {
    let mut fleet = Fleetlet::new(2);
    // Of ten GiB each node can give six once.
    assert!(matches!(fleet.submit(node(1), &with_disk("6GiB")), Answer::Submitted(_)));
    fleet.run(Duration::from_secs(30));
    assert_eq!(fleet.healthy(node(1), "web").len(), 2, "the third waits");
    let web = JobName::new("web").unwrap();
    let explanation = fleet.nodes[&node(2)].explain(fleet.now, &web).unwrap();
    for verdict in &explanation.nodes {
        let why = verdict.rejection.as_ref().map(ToString::to_string);
        let figures = "6GiB disk wanted, 4GiB free of 10GiB in pool default";
        assert_eq!(why.as_deref(), Some(figures));
    }
    let important = with_disk("6GiB").replace("\"web\"", "\"more\"");
    let important = format!("priority = 90\n{}", important.replace("count = 3", "count = 1"));
    assert!(matches!(fleet.submit(node(1), &important), Answer::Submitted(_)));
    fleet.run(Duration::from_secs(30));
    assert_eq!(fleet.healthy(node(1), "more").len(), 1);
    assert_eq!(fleet.healthy(node(1), "web").len(), 1);
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
