//! The checkers themselves: each of them must be able to fail.

use super::*;
use crate::book::Command;
use crate::invariants::*;
use crate::machines;
use crate::network::Quality;
use crate::run::rest_within;
use crate::trace::Detail;
use crate::workload::service;
use crate::world::Settings;
use fabric::id::{AllocId, JobName};
use fabric::io::{Answer, Input, Request};
use fabric::message::Message;

/// Three nodes at rest, with one job of two slots.
pub(crate) fn at_rest() -> World {
    let settings = Settings {
        seed: 5,
        quality: Quality::default(),
        canary: None,
        rediscovery: None,
        detail: Detail::Nothing,
        print: false,
        numbered: false,
    };
    let fleet = ["a", "b", "c"].map(|name| (name.to_owned(), machines::plain()));
    let mut world = World::new(settings, fleet.into());
    world.found_and_join();
    rest_within(&mut world, Duration::from_secs(60)).unwrap();
    let mut spec = service(web());
    spec.count = 2;
    let by = "somebody".into();
    world.request(0, Request::Submit { spec: Box::new(spec), by, expected_version: None });
    rest_within(&mut world, Duration::from_secs(60)).unwrap();
    assert_eq!(unrest(&world), None);
    world
}

fn web() -> JobName {
    JobName::new("web").unwrap()
}

/// A node on which a unit runs, and which.
fn a_unit(world: &World) -> (usize, AllocId) {
    let there =
        |node: usize| world.nodes[node].units.there().next().map(|(alloc, _)| alloc.clone());
    (0..3).find_map(|node| Some((node, there(node)?))).unwrap()
}

#[test]
fn views_that_differ_and_dead_nodes_that_are_seen_alive_are_found() {
    let mut world = at_rest();
    world.crash_agent(2);
    let found = invariant_views_converge_after_heal(&world).unwrap_err();
    assert!(found.contains("sees c alive"), "{found}");
}

#[test]
fn a_committed_spec_that_nobody_has_is_found() {
    let mut world = at_rest();
    assert_eq!(invariant_a_committed_spec_is_never_lost_while_a_holder_lives(&world), Ok(()));
    let commit = world.book.commits.get_mut(&web()).unwrap();
    commit.order.stamp.reading += 1;
    assert!(invariant_a_committed_spec_is_never_lost_while_a_holder_lives(&world).is_err());
    let commit = world.book.commits.get_mut(&web()).unwrap();
    commit.holders.clear();
    assert_eq!(invariant_a_committed_spec_is_never_lost_while_a_holder_lives(&world), Ok(()));
}

#[test]
fn what_nobody_wants_what_is_missing_and_what_the_table_has_wrong_is_found() {
    let mut world = at_rest();
    let (node, alloc) = a_unit(&world);
    let unit = world.nodes[node].units.units[&alloc].clone();
    let other = AllocId::new(web(), 7, 1);
    world.nodes[node].units.units.insert(other.clone(), unit.clone());
    assert!(invariant_nothing_runs_that_nobody_wants(&world).unwrap_err().contains("wanted are 2"));
    world.nodes[node].units.units.remove(&other);

    let elsewhere = (node + 1) % 3;
    let again = AllocId { epoch: alloc.epoch + 1, ..alloc.clone() };
    world.nodes[elsewhere].units.units.insert(again.clone(), unit);
    assert!(invariant_nothing_runs_that_nobody_wants(&world).unwrap_err().contains("at once"));
    assert!(
        invariant_the_table_says_what_really_runs(&world).unwrap_err().contains("without a row")
    );
    world.nodes[elsewhere].units.units.remove(&again);

    world.nodes[node].units.units.remove(&alloc);
    let found = invariant_every_feasible_job_reaches_its_count_and_nothing_above_it(&world);
    assert!(found.unwrap_err().contains("runs nowhere"));
    assert!(
        invariant_the_table_says_what_really_runs(&world).unwrap_err().contains("does not run")
    );
}

#[test]
fn work_on_a_draining_node_is_found() {
    let mut world = at_rest();
    let (node, _) = a_unit(&world);
    let id = world.nodes[node].identity;
    world.request(node, Request::Drain { node: id, on: true });
    while !is_draining(&world, node) {
        world.run_for(Duration::from_millis(1)).unwrap();
    }
    let found = invariant_an_accepted_drain_empties_a_node(&world).unwrap_err();
    assert!(found.contains("has room"), "{found}");
}

#[test]
fn a_member_that_sends_nonsense_is_found() {
    let mut world = at_rest();
    let from = world.nodes[1].identity;
    let now = world.nodes[0].clock.read(world.time);
    let payload = vec![1, 250, 250];
    let agent = world.nodes[0].agent.as_mut().unwrap();
    agent.core.handle(now, Input::Datagram { from, payload });
    assert!(invariant_honest_nodes_are_always_understood(&world).is_err());
}

#[test]
fn a_stop_by_mere_loss_of_peers_is_found() {
    let mut world = at_rest();
    let (node, alloc) = a_unit(&world);
    let stops = |world: &World| {
        invariant_no_running_allocation_is_stopped_by_mere_loss_of_peers(world, node, &alloc, 1)
    };
    assert_eq!(stops(&world), Ok(()), "it has peers, who may have asked");
    for other in (0..3).filter(|other| *other != node) {
        world.power_off(other);
    }
    world.run_for(Duration::from_secs(20)).unwrap();
    assert!(stops(&world).unwrap_err().contains("no reason"));
    world.book.user_asked[node] = Some(world.time);
    assert_eq!(stops(&world), Ok(()), "a user asked");
}

#[test]
fn a_promise_without_the_disk_is_found() {
    let mut world = at_rest();
    let (node, alloc) = a_unit(&world);
    let to = world.nodes[(node + 1) % 3].identity;
    let promises = |world: &World, message: Message| {
        invariant_what_is_promised_to_a_peer_is_on_disk(world, node, to, &message)
    };
    assert_eq!(promises(&world, Message::Accept { alloc: alloc.clone() }), Ok(()));
    let later = AllocId { epoch: alloc.epoch + 1, ..alloc };
    assert!(promises(&world, Message::Accept { alloc: later }).is_err());

    let mut entry = world.nodes[node].disk.entry(&Key::Job(web())).unwrap().clone();
    entry.stamp.reading += 1;
    let entries = vec![entry.into()];
    world.book.delivered(node, to, &Message::Hold { ticket: 9, entries });
    assert!(promises(&world, Message::Held { ticket: 9 }).unwrap_err().contains("not on disk"));
}

#[test]
fn a_request_without_an_answer_is_found() {
    let mut world = at_rest();
    world.request(0, Request::Stop { job: web() });
    assert_eq!(invariant_every_request_is_answered(&world), Ok(()));
    world.time += Duration::from_secs(31);
    assert!(invariant_every_request_is_answered(&world).unwrap_err().contains("no answer to stop"));
}

#[test]
fn an_answer_that_counts_holders_who_are_none_is_found() {
    let mut world = at_rest();
    let mut answers = world.answers.values().map(|(_, answer)| answer.clone());
    let Some(Answer::Submitted(told)) = answers.next_back() else { panic!("it was submitted") };
    let request = Request::Stop { job: web() };
    let mut tell = |held_by| {
        let told = fabric::api::Submitted { held_by, ..told.clone() };
        let nodes = std::mem::take(&mut world.nodes);
        world.book.answered(world.time, 0, &nodes, &request, &Answer::Submitted(told));
        world.nodes = nodes;
        world.book.violation.take().map(|violation| violation.invariant)
    };
    assert_eq!(tell(3), None);
    assert_eq!(tell(4), Some("invariant_an_answer_counts_only_real_holders"));
}

#[test]
fn rows_on_disk_that_went_back_are_found() {
    let mut world = at_rest();
    assert_eq!(invariant_rows_on_disk_are_readable_and_never_go_back(&world), Ok(()));
    world.nodes[1].disk.wrongs.push("an older row".into());
    assert!(invariant_rows_on_disk_are_readable_and_never_go_back(&world).is_err());
}

#[test]
fn commands_at_rest_are_noted() {
    let mut world = at_rest();
    let (node, alloc) = a_unit(&world);
    world.book.watch_quiet(true);
    world.book.commanded(world.time, node, Command::Stop, &alloc, 1);
    assert_eq!(world.book.moves.take().map(|moves| moves.len()), Some(1));
}

#[test]
fn an_answer_of_whoever_has_no_such_job_is_found() {
    let mut world = at_rest();
    let mut answers = world.answers.values().map(|(_, answer)| answer.clone());
    let Some(Answer::Submitted(told)) = answers.next_back() else { panic!("it was submitted") };
    let told = fabric::api::Submitted { job: JobName::new("other").unwrap(), ..told };
    let request = Request::Stop { job: web() };
    let nodes = std::mem::take(&mut world.nodes);
    world.book.answered(world.time, 0, &nodes, &request, &Answer::Submitted(told));
    let found = world.book.violation.take().expect("nobody has it");
    assert_eq!(found.invariant, "invariant_an_answer_counts_only_real_holders");
    assert!(found.detail.contains("a has no other"), "{found}");
}

#[test]
fn a_job_that_a_disk_drops_and_nobody_stopped_is_found() {
    let mut world = at_rest();
    let holds = deletions::invariant_no_disk_drops_a_job_that_nobody_stopped;
    assert_eq!(holds(&world), Ok(()));
    let order = world.nodes[1].disk.entry(&Key::Job(web())).unwrap().order();
    world.nodes[1].disk.dropped.push((web(), order));
    assert!(holds(&world).unwrap_err().contains("b dropped web"));
    world.nodes[2].disk.stopped.insert(web(), order);
    assert_eq!(holds(&world), Ok(()), "somebody stopped it");
}

#[test]
fn a_level_that_somebody_cannot_read_or_that_nobody_reached_is_found() {
    let mut world = at_rest();
    let holds = levels::invariant_all_members_know_the_level_of_the_fabric;
    assert_eq!(holds(&world), Ok(()));
    let level = world.nodes[1].level;
    world.nodes[1].level = level - 1;
    assert!(holds(&world).unwrap_err().contains("b reads less"));
    world.nodes.iter_mut().for_each(|machine| machine.level = level + 1);
    assert!(holds(&world).unwrap_err().contains("all read"));
}

#[test]
fn a_quota_that_is_below_what_runs_is_found() {
    let mut world = at_rest();
    let quota = fabric::quota::Quota { allocs: Some(1), ..Default::default() };
    let namespace = fabric::id::Namespace::default();
    world.request(0, Request::SetQuota { namespace, quota, force: true });
    let holds = sharing::invariant_quotas_hold_after_heal;
    assert_eq!(holds(&world), Ok(()), "nobody has heard of it");
    // Less than the grace in which what is too much is left.
    world.run_for(Duration::from_millis(100)).unwrap();
    assert!(holds(&world).unwrap_err().contains("what runs of default"));
    rest_within(&mut world, Duration::from_secs(60)).unwrap();
    assert_eq!(holds(&world), Ok(()));
}

#[test]
fn a_machine_that_is_on_and_whose_agent_does_not_come_is_found() {
    let mut world = at_rest();
    world.crash_agent(2);
    let found = rest_within(&mut world, Duration::from_secs(60)).unwrap_err();
    assert_eq!(found.invariant, "invariant_every_node_gets_in");
    assert!(found.detail.contains("2 of 3 run"), "{found}");
}
