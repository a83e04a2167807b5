use crate::api::{JobState, JobView};
use crate::id::{JobName, NodeId, SlotId};
use crate::io::{Input, Request, UnitEvent};
use crate::limits;
use crate::message::Datagram;
use crate::node::Waits;
use crate::node::informed::Informed;
use crate::node::tests::{Fleetlet, WEB};
use std::time::Duration;

const NODES: [NodeId; 3] = [NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32])];

fn web() -> JobName {
    JobName::new("web").expect("a name")
}

fn running() -> Fleetlet {
    let mut fleet = Fleetlet::new(3);
    fleet.submit(NODES[0], WEB);
    fleet.run(Duration::from_secs(3));
    assert_eq!(fleet.healthy(NODES[0], "web").len(), 3);
    fleet
}

fn seen_by(fleet: &Fleetlet, node: NodeId) -> JobView {
    fleet.nodes[&node].job(&web()).expect("it is there")
}

fn index_on(fleet: &Fleetlet, node: NodeId) -> u32 {
    let placed = fleet.healthy(NODES[0], "web");
    placed.iter().find(|(_, at)| *at == node).expect("one each").0
}

fn doing(fleet: &Fleetlet, asked: NodeId, index: u32) -> String {
    let explanation = fleet.nodes[&asked].explain(fleet.now, &web()).expect("it is there");
    explanation.slots[index as usize].doing.clone()
}

#[test]
fn what_runs_on_while_its_agent_is_stopped_is_no_trouble_and_is_said() {
    let mut fleet = running();
    let [a, b, c] = NODES;
    let index = index_on(&fleet, c);
    // It has crashed once, long ago.
    let view = fleet.nodes[&c].allocs(Some(&web()), false);
    let alloc = view.iter().find(|alloc| alloc.node == c).expect("its own").id.clone();
    let event = UnitEvent::Exited { status: "exit status 7".into(), success: false, killed: false };
    fleet.feed(c, Input::Unit { alloc, run: 1, event });
    fleet.run(Duration::from_secs(6));
    let row = |fleet: &Fleetlet| {
        let views = fleet.nodes[&a].allocs(Some(&web()), false);
        views.into_iter().find(|alloc| alloc.node == c).expect("its own").row
    };
    let note = row(&fleet);
    assert!(note.healthy && note.trouble.is_some(), "{note:?}");

    for node in [a, b] {
        let payload = Datagram::Leaving { ends: false }.encode();
        fleet.feed(node, Input::Datagram { from: c, payload });
    }
    fleet.cut.insert(c);
    fleet.run(Duration::from_secs(12));
    for node in [a, b] {
        let view = seen_by(&fleet, node);
        assert_eq!(view.state, JobState::Progressing, "{:?}", view.reason);
        let said = "waits for n3, whose agent has stopped and whose units run on: placed elsewhere unless it is back within 1";
        let reason = view.reason.expect("a reason");
        assert!(reason.starts_with(&format!("web/{index} {said}")), "{reason}");
        let now = doing(&fleet, node, index);
        assert!(now.starts_with(said), "{now}");
        let spec = crate::job::parse(WEB).expect("a job");
        let plan = fleet.nodes[&node].plan(fleet.now, &spec).expect("it makes sense");
        let note = format!("web/{index} {said}");
        assert!(plan.warnings.iter().any(|it| it.starts_with(&note)), "{:?}", plan.warnings);
        let status = fleet.nodes[&node].status();
        assert_eq!((status.stopped_agents, status.left_to_them), (vec!["n3".into()], 1));
    }
    fleet.run(limits::AWAY_GRACE);
    assert_eq!(fleet.healthy(a, "web").len(), 3, "{:?}", seen_by(&fleet, a).reason);
    assert!(fleet.nodes[&a].status().stopped_agents.is_empty());
}

#[test]
fn who_has_heard_nobody_since_its_start_says_for_whom_it_waits_and_what_ends_that() {
    let mut fleet = running();
    let [a, b, c] = NODES;
    let index = index_on(&fleet, a);
    fleet.cut.extend([a, b]);
    fleet.start_at_level(c, crate::level::LEVEL);
    fleet.run(Duration::from_secs(20));
    let now = doing(&fleet, c, index);
    let (waits, command) = ("n3 has heard n", "weft node n1 remove --force");
    assert!(now.starts_with("waits") && now.contains(waits) && now.contains(command), "{now}");
    let view = seen_by(&fleet, c);
    assert_eq!(view.state, JobState::Progressing, "{:?}", view.reason);
    let reason = view.reason.expect("a reason");
    assert!(reason.contains(waits) && reason.ends_with("; so does 1 more slot"), "{reason}");
}

#[test]
fn a_member_that_was_heard_is_not_called_unheard() {
    let mut fleet = running();
    let [a, b, c] = NODES;
    let start = fleet.now.at;
    let later = start + limits::BOOT_HOLD;
    let node = fleet.nodes.get_mut(&a).expect("it is there");
    node.others.informed = Informed::new(start);
    assert_eq!(node.waits(later), Some(Waits::HeardNobody));
    node.others.informed.hear(later, b, true);
    assert_eq!(node.waits(later), Some(Waits::NotAllHeard));
    assert_eq!(node.unheard(), [c]);
    node.others.informed.hear(later, c, true);
    assert_eq!(node.waits(later), Some(Waits::NotCompared));
}

#[test]
fn a_slot_that_was_tried_before_says_what_went_wrong() {
    let fleet = running();
    let node = &fleet.nodes[&NODES[0]];
    let slot = SlotId { job: web(), index: 0 };
    let explanation = node.explain(fleet.now, &web()).expect("it is there");
    let mut allocs = explanation.slots[0].allocs.clone();
    let entry = node.replica.job(&web()).expect("it is there").clone();
    for phase in [crate::alloc::Phase::Preparing, crate::alloc::Phase::Starting] {
        (allocs[0].row.phase, allocs[0].row.healthy) = (phase, false);
        allocs[0].row.trouble = Some("could not be executed".into());
        let now = node.doing(fleet.now, &entry.spec, &entry, &slot, &allocs);
        assert!(now.ends_with("where it was tried before: could not be executed"), "{now}");
    }
}

#[test]
fn why_a_version_fitted_nowhere_stays_as_it_was_when_it_was_taken_back() {
    let mut fleet = running();
    let [a, b, _] = NODES;
    let larger = WEB.replace("cores = 1", "cores = 64") + "[update]\ndeadline = \"6s\"\n";
    fleet.submit(a, &larger);
    assert_eq!(seen_by(&fleet, a).reverts_to, Some(1));
    fleet.run(Duration::from_secs(15));
    let why = "version 2 failed (it fits nowhere: 3 nodes: 64 cores wanted";
    for node in NODES {
        let view = seen_by(&fleet, node);
        assert_eq!((view.state, view.reverts_to), (JobState::Reverted, None));
        assert!(view.reason.as_ref().is_some_and(|it| it.starts_with(why)), "{:?}", view.reason);
    }
    fleet.ask(a, Request::Drain { node: b, on: true });
    fleet.run(Duration::from_secs(20));
    for node in NODES {
        let reason = seen_by(&fleet, node).reason;
        assert!(reason.as_ref().is_some_and(|it| it.starts_with(why)), "{reason:?}");
    }
    // Who was not there knows no reason, and makes none up.
    fleet.start_at_level(b, crate::level::LEVEL);
    let reason = seen_by(&fleet, b).reason.expect("a reason");
    assert!(reason.starts_with("version 2 failed (n2 has not seen why)"), "{reason}");
}

#[test]
fn more_slots_of_the_same_are_not_taken_back() {
    let mut fleet = running();
    let scale = Request::Scale { job: web(), count: 30, by: "me".into() };
    fleet.ask(NODES[0], scale);
    fleet.run(Duration::from_secs(5));
    let view = seen_by(&fleet, NODES[0]);
    assert_eq!((view.version, view.state), (2, JobState::Unplaceable), "{:?}", view.reason);
    assert_eq!(view.reverts_to, None, "a slot is healthy, and nothing of another version runs");
}

#[test]
fn a_version_that_runs_somewhere_does_not_fit_nowhere() {
    let mut fleet = running();
    let bound = WEB.replace("/bin/sleep", "/bin/other").replace("cores = 1", "cores = 4")
        + "[placement]\nconstraints = ['name == \"n1\"']\n";
    fleet.submit(NODES[0], &bound);
    fleet.run(Duration::from_secs(15));
    let said: Vec<String> = (0..3).map(|index| doing(&fleet, NODES[1], index)).collect();
    let expected = "version 2 has no place for another slot: ";
    assert!(said.iter().any(|it| it.starts_with(expected)), "{said:?}");
    assert!(!said.iter().any(|it| it.contains("fits nowhere")), "{said:?}");
}

#[test]
fn times_are_whole_seconds_and_never_none() {
    for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2)] {
        let left = super::in_seconds(Duration::from_millis(millis));
        assert_eq!(left, Duration::from_secs(seconds));
    }
}
