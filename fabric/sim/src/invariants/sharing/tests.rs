//! The checkers themselves: each of them must be able to fail.

use super::*;
use fabric::alloc::AllocRow;
use fabric::api::JobState;
use fabric::claim::Claim;
use fabric::clock::WallTime;
use fabric::job::JobKind;
use fabric::quota::Quota;

fn name(name: &str) -> JobName {
    JobName::new(name).unwrap()
}

fn spec(job: &str, priority: u8) -> JobSpec {
    JobSpec { priority, ..crate::workload::service(name(job)) }
}

fn view(job: &str, index: u32, row: AllocRow) -> AllocView {
    let id = AllocId::new(name(job), index, row.epoch);
    AllocView {
        unit: id.unit(),
        id,
        node: NodeId([1; 32]),
        node_name: "a".into(),
        node_state: NodeState::Alive,
        agent_stopped: false,
        address: None,
        current: true,
        row,
    }
}

fn job_view(spec: JobSpec) -> JobView {
    JobView {
        name: spec.name.clone(),
        kind: JobKind::Service,
        wanted: spec.count,
        spec,
        version: 1,
        by: "me".into(),
        submitted: WallTime(1),
        running: 0,
        healthy: 0,
        coordinator: None,
        state: JobState::Progressing,
        reason: None,
        failed: None,
        reverts_to: None,
    }
}

#[test]
fn a_displacement_of_the_equally_important_is_found() {
    let by = AllocId::new(name("high"), 0, 1);
    let ending = Ending::Preempted { by, priority: 9, over: 1 };
    let row =
        AllocRow { epoch: 1, phase: Phase::Ended, ending: Some(ending), ..Default::default() };
    let rows = [view("low", 0, row)];
    let holds = |high, low| {
        let submitted =
            [(name("high"), vec![spec("high", high)]), (name("low"), vec![spec("low", low)])];
        invariant_preemption_never_cascades_into_itself(&rows, &submitted.into())
    };
    assert_eq!(holds(9, 8), Ok(()));
    assert!(holds(9, 9).is_err());
    assert!(holds(8, 9).unwrap_err().contains("made room for high/0@1"));
}

#[test]
fn a_claim_above_a_quota_that_its_node_knows_is_found() {
    let job = |name: &str| job_view(spec(name, 50));
    let row = |job: &str, index: u32, node: u8, millis: u32| {
        let claim = Claim { shared_millis: millis, ..Claim::default() };
        let row = AllocRow { epoch: 1, phase: Phase::Reserved, claim, ..Default::default() };
        AllocView { node: NodeId([node; 32]), ..view(job, index, row) }
    };
    let used = Amount::default();
    let quota = Quota { cpu_millis: Some(1000), ..Quota::default() };
    let quotas = [QuotaView { namespace: Namespace::default(), quota, used }];
    let holds = |rows: &[AllocView]| {
        let (jobs, made) = ([job("a"), job("b")], [rows[0].id.clone()]);
        let node = rows[0].node;
        invariant_no_claim_goes_above_a_quota_that_its_node_knows(
            node,
            &made,
            rows,
            &jobs,
            &quotas,
            |_| None,
        )
    };
    assert_eq!(holds(&[row("a", 0, 1, 400), row("b", 0, 2, 600)]), Ok(()));
    let above = holds(&[row("a", 0, 1, 401), row("b", 0, 2, 600)]);
    assert!(above.unwrap_err().contains("a/0@1"));
    let moves = [row("a", 0, 1, 600), row("a", 0, 2, 600)];
    assert_eq!(holds(&moves), Ok(()), "it replaces its slot's other claim");
    let mut gone = [row("a", 0, 1, 600), row("b", 0, 2, 600)];
    gone[1].node_state = NodeState::Dead;
    assert_eq!(holds(&gone), Ok(()), "claims of the dead do not count");
}

#[test]
fn a_gang_that_begins_without_one_of_its_slots_is_found() {
    let holds = |reserved: &[u32]| {
        let reserved = reserved.iter().copied().collect();
        let job = name("gang");
        invariant_no_unit_of_a_gang_starts_unless_all_slots_were_reserved(&job, 3, &reserved)
    };
    assert_eq!(holds(&[0, 1, 2]), Ok(()));
    assert!(holds(&[0, 2]).unwrap_err().contains("gang/1"));
}

#[test]
fn a_gang_of_which_some_are_reserved_and_none_begins_is_found() {
    let mut gang = spec("gang", 50);
    (gang.gang, gang.count) = (true, 2);
    let job = job_view(gang);
    let holds = |phases: &[Phase]| {
        let row = |(index, phase): (usize, &Phase)| {
            view("gang", index as u32, AllocRow { epoch: 1, phase: *phase, ..Default::default() })
        };
        let rows: Vec<AllocView> = phases.iter().enumerate().map(row).collect();
        invariant_a_gang_is_never_half_reserved_at_rest(&rows, std::slice::from_ref(&job))
    };
    assert_eq!(holds(&[]), Ok(()));
    assert_eq!(holds(&[Phase::Running, Phase::Running]), Ok(()));
    assert_eq!(holds(&[Phase::Running, Phase::Reserved]), Ok(()), "the commit is given again");
    assert!(holds(&[Phase::Reserved]).is_err());
    assert!(holds(&[Phase::Reserved, Phase::Reserved]).is_err());
}
