use super::super::tests::{Fleetlet, WEB};
use super::*;
use crate::api::NodeState;
use crate::id::JobName;
use crate::io::{Answer, Request};
use crate::job;
use std::collections::BTreeSet;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn most(name: &str) -> String {
    format!(
        "name = \"{name}\"\nguarantee = \"at-most-one\"\n[task]\ncommand = [\"/bin/sleep\", \"1000\"]\n\
         stop_timeout = \"2s\"\n[resources]\nmemory = \"16MiB\"\n"
    )
}

/// The only node that runs slot 0 of `db`, as every one of `views` sees it.
fn holder(fleet: &Fleetlet, view: u8) -> Option<NodeId> {
    match fleet.healthy(node(view), "db")[..] {
        [] => None,
        [(0, on)] => Some(on),
        ref more => panic!("{more:?}"),
    }
}

/// What was started and stopped, as pairs of time and node.
fn told(fleet: &Fleetlet, verb: &str) -> Vec<(Instant, NodeId, u64)> {
    let mut told = Vec::new();
    for (at, on, command) in &fleet.commands {
        if let Some(rest) = command.strip_prefix(&format!("{verb} db/0@")) {
            let epoch = rest.split(' ').next().unwrap().parse().unwrap();
            told.push((*at, *on, epoch));
        }
    }
    told
}

#[test]
fn the_voter_set_grows_by_itself_to_an_odd_number() {
    for (nodes, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (6, 5)] {
        let mut fleet = Fleetlet::new(nodes);
        fleet.run(seconds(20));
        for n in 1..=nodes {
            let view = fleet.nodes[&node(n)].voters();
            assert_eq!(view.members.len(), voters, "{nodes} nodes: {view:?}");
            assert!(view.can_decide());
        }
    }
}

#[test]
fn a_holder_that_is_cut_off_stops_before_its_successor_starts_with_a_higher_token() {
    let mut fleet = Fleetlet::new(3);
    fleet.run(seconds(10));
    fleet.submit(node(1), &most("db"));
    fleet.run(seconds(5));
    let first = holder(&fleet, 1).expect("it runs");
    assert_eq!(told(&fleet, "start").len(), 1);
    fleet.run(seconds(60));
    assert_eq!(told(&fleet, "start").len(), 1, "renewed all the time");

    fleet.cut_off.insert(first);
    fleet.run(seconds(60));
    let (starts, stops) = (told(&fleet, "start"), told(&fleet, "stop"));
    let [(stopped, by, _)] = stops[..] else { panic!("{stops:?}") };
    let [(_, _, before), (started, next, after)] = starts[..] else { panic!("{starts:?}") };
    assert_eq!(by, first);
    assert_ne!(next, first);
    assert!(stopped < started, "{stopped:?} {started:?}");
    assert!(after > before, "tokens grow");
    // It waits for lease, drift bound and stop timeout, and not much longer.
    let waited = started.since(stopped);
    assert!(waited >= seconds(2) && waited < seconds(20), "{waited:?}");

    fleet.cut_off.clear();
    fleet.run(seconds(60));
    assert_eq!(holder(&fleet, 1), Some(next));
    assert_eq!(told(&fleet, "start").len(), 2);
}

#[test]
fn a_clean_end_lets_the_successor_start_at_once_and_a_drain_stops_first() {
    let mut fleet = Fleetlet::new(3);
    fleet.run(seconds(10));
    fleet.submit(node(1), &most("db"));
    fleet.run(seconds(5));
    let first = holder(&fleet, 1).unwrap();
    fleet.ask(node(1), Request::Drain { node: first, on: true });
    fleet.run(seconds(6));
    let (starts, stops) = (told(&fleet, "start"), told(&fleet, "stop"));
    let ([(stopped, by, _)], [_, (started, next, _)]) = (&stops[..], &starts[..]) else {
        panic!("{starts:?} {stops:?}")
    };
    assert_eq!(*by, first);
    assert_ne!(*next, first);
    assert!(stopped <= started && started.since(*stopped) < seconds(3));
}

#[test]
fn at_least_jobs_ask_no_voter() {
    let mut fleet = Fleetlet::new(3);
    fleet.run(seconds(10));
    fleet.submit(node(1), WEB);
    fleet.run(seconds(5));
    assert_eq!(fleet.healthy(node(1), "web").len(), 3);
    for n in 1..=3 {
        let leases = &fleet.nodes[&node(n)].leases;
        assert_eq!(leases.holder.slots().count(), 0);
        assert_eq!(leases.voter.locked(fleet.now.at).count(), 0);
    }
}

#[test]
fn with_two_nodes_one_votes_and_everybody_is_told_so() {
    let mut fleet = Fleetlet::new(2);
    fleet.run(seconds(10));
    let spec = job::parse(&most("db")).unwrap();
    let plan = fleet.nodes[&node(2)].plan(fleet.now, &spec).unwrap();
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.warnings[0].contains("no majority of the voters (n1) survives"));

    // The voter is gone: what runs elsewhere stops, and starts nowhere.
    fleet.submit(
        node(1),
        &format!("{}[placement]\nconstraints = [\"name == \\\"n2\\\"\"]\n", most("db")),
    );
    fleet.run(seconds(5));
    assert_eq!(holder(&fleet, 2), Some(node(2)));
    fleet.cut_off.insert(node(1));
    fleet.run(seconds(30));
    assert_eq!(holder(&fleet, 2), None);
    assert_eq!(told(&fleet, "stop").len(), 1);
    let job = JobName::new("db").unwrap();
    let explained = fleet.nodes[&node(2)].explain(fleet.now, &job).unwrap();
    let doing = &explained.slots[0].doing;
    assert!(doing.contains("0 of 1 voters answer, and nothing starts until 1 do"), "{doing}");
    assert_eq!(explained.voters.unwrap().members[0].state, NodeState::Dead);
    let plan = fleet.nodes[&node(2)].plan(fleet.now, &spec).unwrap();
    assert!(plan.warnings[0].contains("it will not start"), "{:?}", plan.warnings);
}

#[test]
fn a_removal_that_breaks_the_majority_is_refused_and_by_force_the_rest_decide_after_the_longest_hold()
 {
    let mut fleet = Fleetlet::new(2);
    fleet.run(seconds(10));
    fleet.submit(node(1), &most("db"));
    fleet.run(seconds(5));
    fleet.cut_off.insert(node(1));
    fleet.run(seconds(20));
    let before = fleet.nodes[&node(2)].fingerprint();
    let remove = |force| Request::Remove { node: node(1), new_key: [8; 32], force };
    fleet.ask(node(2), remove(false));
    let Some(Answer::Refused(problem)) = fleet.answers.pop() else { panic!() };
    assert!(
        problem.detail.contains("n1 is one of 1 voters, 1 decide and 0 others answer"),
        "{problem:?}"
    );
    assert!(problem.detail.contains("force"), "{problem:?}");
    assert_eq!(fleet.nodes[&node(2)].fingerprint(), before, "nothing changed");

    fleet.ask(node(2), remove(true));
    assert_eq!(fleet.answers.pop(), Some(Answer::Done));
    let forced = fleet.now.at;
    fleet.run(seconds(120));
    assert_eq!(holder(&fleet, 2), Some(node(2)));
    let starts = told(&fleet, "start");
    let (started, _, epoch) = *starts.iter().rfind(|(_, on, _)| *on == node(2)).unwrap();
    assert!(started.since(forced) >= lease::longest_hold());
    assert!(epoch > limits::EPOCH_FORCED_JUMP, "{epoch}");
}

#[test]
fn a_majority_survives_the_removal_of_one_of_three_voters_and_the_set_is_mended() {
    let mut fleet = Fleetlet::new(4);
    fleet.run(seconds(20));
    let voters = fleet.nodes[&node(1)].voters();
    assert_eq!(voters.members.len(), 3);
    let gone = voters.members[2].node;
    fleet.cut_off.insert(gone);
    fleet.run(seconds(10));
    fleet.ask(node(1), Request::Remove { node: gone, new_key: [8; 32], force: false });
    assert_eq!(fleet.answers.pop(), Some(Answer::Done));
    fleet.run(seconds(120));
    let voters = fleet.nodes[&node(1)].voters();
    let names: BTreeSet<NodeId> = voters.members.iter().map(|voter| voter.node).collect();
    assert!(names.len() == 3 && !names.contains(&gone), "{voters:?}");
}

#[test]
fn a_witness_votes_and_runs_nothing() {
    let mut fleet = Fleetlet::with_witness(3, 3);
    fleet.run(seconds(20));
    let voters = fleet.nodes[&node(1)].voters();
    assert!(voters.members.iter().any(|voter| voter.node == node(3) && voter.witness));
    fleet.submit(node(1), &most("db"));
    fleet.submit(node(1), WEB);
    fleet.run(seconds(10));
    let first = holder(&fleet, 1).unwrap();
    assert!(fleet.healthy(node(1), "web").iter().all(|(_, on)| *on != node(3)));
    let job = JobName::new("db").unwrap();
    let explained = fleet.nodes[&node(1)].explain(fleet.now, &job).unwrap();
    let witness = explained.nodes.iter().find(|verdict| verdict.node == node(3)).unwrap();
    assert_eq!(witness.rejection, Some(Rejection::Witness));
    // Either of the other two can go.
    fleet.cut_off.insert(first);
    fleet.run(seconds(60));
    let view = if first == node(1) { 2 } else { 1 };
    let next = holder(&fleet, view).unwrap();
    assert!(next != first && next != node(3));
}

#[test]
fn more_leases_than_the_voters_can_look_after_are_refused() {
    let mut fleet = Fleetlet::new(1);
    let large = most("one").replace("[task]", "count = 4000\n[task]");
    assert!(matches!(fleet.submit(node(1), &large), Answer::Submitted(_)));
    let other = most("two").replace("[task]", "count = 97\n[task]");
    let Answer::Refused(problem) = fleet.submit(node(1), &other) else { panic!() };
    assert!(
        problem.detail.contains("4000 at-most-one slots are wanted by other jobs"),
        "{problem:?}"
    );
    let fits = other.replace("97", "96");
    assert!(matches!(fleet.submit(node(1), &fits), Answer::Submitted(_)));
}

#[test]
fn what_a_voter_promised_survives_on_disk() {
    let record = VoterRecord { incarnation: 7, ceiling: 640, acceptor: Acceptor::default() };
    let bytes = crate::message::encode_row(&record);
    assert_eq!(crate::message::decode_row::<VoterRecord>(&bytes).unwrap(), record);
}
