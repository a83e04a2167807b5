use super::*;
use crate::prometheus::{Point, Sample};

/// Node, slot or other unit, value.
type Told<'a> = &'a [(&'a str, &'a str, f64)];

/// `("n1", "web/0", 0.5)`: a slot; without a slash it is another unit.
fn points(amounts: Told) -> Vec<Point> {
    let point = |(node, name, value): &(&str, &str, f64)| {
        let mut labels = vec![("node", *node)];
        match name.split_once('/') {
            Some((job, slot)) => labels.extend([("job", job), ("slot", slot), ("unit", name)]),
            None => labels.push(("unit", name)),
        }
        let metric = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Point { metric, value: Sample { at: 0.0, value: *value } }
    };
    amounts.iter().map(point).collect()
}

fn who(node: &str, name: &str) -> Who {
    Who { node: node.into(), name: name.into() }
}

/// A slot web/0 on n1 that has a CPU for a tenth of the time.
fn facts(now: &[(Number, Told)]) -> Facts {
    let mut facts = Facts { job: "web".into(), ..Facts::default() };
    facts.slots.insert(who("n1", "web/0"));
    facts.take(Number::Cpu, &points(&[("n1", "web/0", 0.1)]));
    now.iter().for_each(|(number, amounts)| facts.take(*number, &points(amounts)));
    facts
}

fn only(facts: &Facts) -> Finding {
    let mut findings = find(facts);
    assert_eq!(findings.len(), 1);
    findings.pop().unwrap()
}

#[test]
fn the_neighbour_that_has_the_cpus_is_named() {
    let facts = facts(&[
        (Number::CpuWait, &[("n1", "web/0", 0.3), ("n1", "batch/1", 0.2), ("n2", "far/0", 9.0)]),
        (Number::Cpu, &[("n1", "batch/1", 1.8), ("n1", "cron.service", 0.2), ("n2", "far/0", 9.0)]),
    ]);
    let finding = only(&facts);
    assert!((finding.lost - 0.75).abs() < 1e-9);
    let reason = &finding.reasons[0];
    assert_eq!((reason.cause, reason.culprit.as_deref()), (Cause::Cpu, Some("batch/1")));
    assert!((reason.share - 0.75).abs() < 1e-9);
    assert!((reason.others.unwrap() - 0.2 / 2.2).abs() < 1e-9);
    assert!(reason.grown && reason.before.is_none());
    assert!(reason.who.as_ref().unwrap().contains("batch/1's: 1.80, and 0.10 its own"));
    assert!(reason.advice.as_ref().unwrap().contains("batch/1 another node"));
}

#[test]
fn who_has_cores_of_its_own_is_not_blamed_for_the_cpus() {
    let mut facts = facts(&[
        (Number::CpuWait, &[("n1", "web/0", 0.3)]),
        (Number::Cpu, &[("n1", "pinned/0", 3.0), ("n1", "batch/0", 0.5)]),
    ]);
    facts.pinned.insert(who("n1", "pinned/0"), 4);
    assert_eq!(only(&facts).reasons[0].culprit.as_deref(), Some("batch/0"));
    // And a slot with cores of its own waits for itself.
    facts.pinned.insert(who("n1", "web/0"), 1);
    facts.take(Number::Cpu, &points(&[("n1", "web/0", 0.8)]));
    let finding = only(&facts);
    assert_eq!(finding.reasons[0].culprit, None);
    assert!(finding.reasons[0].who.as_ref().unwrap().contains("its CPUs are its own"));
}

/// It hardly ran: whoever has its CPUs is no thread of its own.
#[test]
fn a_pinned_slot_that_hardly_runs_does_not_wait_for_itself() {
    let mut facts = facts(&[
        (Number::CpuWait, &[("n1", "web/0", 0.3)]),
        (Number::Cpu, &[("n1", "pinned/0", 3.0), ("n1", "other", 0.9)]),
    ]);
    facts.pinned.extend([(who("n1", "pinned/0"), 4), (who("n1", "web/0"), 1)]);
    let reason = only(&facts).reasons.remove(0);
    assert_eq!(reason.culprit.as_deref(), Some(OTHER));
    let words = reason.who.unwrap();
    assert!(words.contains("uses 0.10 of 1") && words.contains("outside of all units"), "{words}");
    assert!(reason.advice.unwrap().contains("weft doctor"));
    facts.now.get_mut(&Number::Cpu).unwrap().remove(&who("n1", "other"));
    let reason = only(&facts).reasons.remove(0);
    assert_eq!(reason.culprit, None);
    assert!(!reason.advice.unwrap().contains("fewer threads"));
}

#[test]
fn who_takes_most_itself_blames_nobody() {
    let facts = facts(&[
        (Number::CpuWait, &[("n1", "web/0", 0.3)]),
        (Number::Cpu, &[("n1", "web/0", 1.4), ("n1", "batch/0", 0.5)]),
    ]);
    let reason = &only(&facts).reasons[0];
    assert_eq!(reason.culprit, None);
    assert!(
        reason.who.as_ref().unwrap().contains("it takes most itself: 1.50 CPUs; next is batch/0")
    );
}

#[test]
fn what_explains_most_comes_first_and_what_was_always_so_counts_half() {
    let mut facts = facts(&[
        (Number::CpuWait, &[("n1", "web/0", 0.5)]),
        (Number::DiskStall, &[("n1", "web/0", 0.4)]),
    ]);
    let causes =
        |facts: &Facts| only(facts).reasons.iter().map(|reason| reason.cause).collect::<Vec<_>>();
    assert_eq!(causes(&facts), [Cause::Cpu, Cause::Disk]);
    // It always waited that much for a CPU; the disk is new.
    facts.take_before(Number::Cpu, &points(&[("n1", "web/0", 0.5)]));
    facts.take_before(Number::CpuWait, &points(&[("n1", "web/0", 0.5)]));
    facts.take_before(Number::DiskStall, &points(&[("n1", "web/0", 0.0)]));
    assert_eq!(causes(&facts), [Cause::Disk, Cause::Cpu]);
    let finding = only(&facts);
    assert_eq!((finding.reasons[1].grown, finding.reasons[1].before), (false, Some(0.5)));
    assert_eq!((finding.reasons[0].grown, finding.reasons[0].before), (true, Some(0.0)));
}

#[test]
fn waiting_for_the_quota_is_nobody_elses_doing() {
    let facts = facts(&[
        (Number::CpuWait, &[("n1", "web/0", 0.9)]),
        (Number::Throttled, &[("n1", "web/0", 0.9)]),
        (Number::Cpu, &[("n1", "batch/0", 1.0)]),
    ]);
    let finding = only(&facts);
    assert_eq!(finding.reasons[0].cause, Cause::Throttling);
    assert!((finding.reasons[0].share - 0.9).abs() < 1e-9);
    assert!(finding.innocent.contains(&Cause::Cpu));
}

#[test]
fn kills_come_before_all_else() {
    let facts = facts(&[
        (Number::CpuWait, &[("n1", "web/0", 0.9)]),
        (Number::Kills, &[("n1", "web/0", 2.02)]),
    ]);
    let reason = &only(&facts).reasons[0];
    assert_eq!(reason.cause, Cause::OutOfMemory);
    assert_eq!(reason.detail.as_deref(), Some("2 of its processes in this time"));
}

#[test]
fn who_keeps_the_disk_busy_is_named_by_time_and_else_by_bytes() {
    let mut facts = facts(&[
        (Number::DiskStall, &[("n1", "web/0", 0.5)]),
        (Number::DiskBytes, &[("n1", "web/0", 1024.0), ("n1", "backup.service", 8e6)]),
    ]);
    let reason = only(&facts).reasons[0].clone();
    assert_eq!((reason.cause, reason.culprit.as_deref()), (Cause::Disk, Some("backup.service")));
    assert!(reason.who.unwrap().contains("most bytes are backup.service's"));
    facts.take(Number::DiskTime, &points(&[("n1", "web/0", 0.1), ("n1", "index/0", 12.0)]));
    assert_eq!(only(&facts).reasons[0].culprit.as_deref(), Some("index/0"));
    // Without pressure the requests' own time has to do, which is said.
    facts.now.remove(&Number::DiskStall);
    let reason = only(&facts).reasons[0].clone();
    assert!((reason.share - 0.5).abs() < 1e-9);
    assert!(reason.detail.unwrap().contains("the most that it can be"));
}

#[test]
fn retransmissions_and_faults_are_estimates_and_name_the_peer() {
    let mut facts = facts(&[
        (Number::Retransmits, &[("n1", "web/0", 2.0)]),
        (Number::Faults, &[("n1", "web/0", 50_000.0)]),
        (Number::RoundTrip, &[("n1", "web/0", 0.02)]),
    ]);
    let peer = |peer: &str, rate| {
        let mut point = points(&[("n1", "web/0", rate)]).remove(0);
        point.metric.insert("peer".into(), peer.into());
        point
    };
    facts.take_peers(&[peer("10.0.0.9", 1.8), peer("10.0.0.7", 0.2)]);
    facts.take_before(Number::RoundTrip, &points(&[("n1", "web/0", 0.001)]));
    let finding = only(&facts);
    let causes: Vec<_> =
        finding.reasons.iter().map(|reason| (reason.cause, reason.estimated)).collect();
    assert_eq!(causes, [(Cause::Network, true), (Cause::PageFaults, true)]);
    assert_eq!(finding.reasons[0].who.as_deref(), Some("most are for 10.0.0.9: 1.8 a second"));
    assert_eq!(finding.round_trip, Some(RoundTrip { now: 0.02, before: Some(0.001) }));
}

#[test]
fn what_was_not_measured_is_said_and_is_not_nothing() {
    let finding = only(&facts(&[(Number::CpuWait, &[("n1", "web/0", 0.0)])]));
    assert!(finding.busy && finding.reasons.is_empty());
    assert_eq!(finding.innocent, [Cause::Cpu]);
    assert_eq!(finding.unmeasured.len(), Cause::ALL.len() - 1);
    assert!(finding.unmeasured.contains(&Cause::Throttling));
}

#[test]
fn who_has_nothing_to_do_is_not_slow() {
    let mut facts = Facts { job: "web".into(), ..Facts::default() };
    facts.slots.insert(who("n1", "web/0"));
    facts.take(Number::CpuWait, &points(&[("n1", "web/0", 1e-5)]));
    let finding = only(&facts);
    assert!(!finding.busy && finding.reasons.is_empty());
    assert_eq!(finding.lost, 0.0);
}

#[test]
fn two_runs_of_one_slot_are_one_and_the_worst_slot_comes_first() {
    let mut facts = facts(&[(
        Number::CpuWait,
        &[("n1", "web/0", 0.1), ("n1", "web/0", 0.2), ("n2", "web/1", 0.9)],
    )]);
    facts.slots.insert(who("n2", "web/1"));
    let findings = find(&facts);
    assert_eq!(findings[0].slot, "web/1");
    assert!((findings[1].lost - 0.75).abs() < 1e-9);
}

#[test]
fn what_runs_in_no_unit_is_told_from_units() {
    let facts = facts(&[
        (Number::CpuWait, &[("n1", "web/0", 0.3)]),
        (Number::Cpu, &[("n1", "other", 1.5)]),
    ]);
    let finding = only(&facts);
    let reason = &finding.reasons[0];
    assert_eq!(reason.culprit.as_deref(), Some("other"));
    assert!(reason.who.as_ref().unwrap().contains("somebody's outside of all units: 1.50"));
    assert!(reason.advice.as_ref().unwrap().contains("end what runs there outside of units"));
}
