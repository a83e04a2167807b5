//! At-most-one allocations: nothing of them runs without an unexpired lease.

use super::*;

impl Bench {
    fn at_most_one() -> Self {
        let mut bench = Self::new();
        bench.spec.guarantee = Guarantee::AtMostOne;
        bench
    }

    fn lease(&mut self, seconds: u64) -> Instant {
        let until = self.now.at + Duration::from_secs(seconds);
        self.supervisor.granted(&self.slot(), 7, until);
        until
    }

    /// Reserved, on disk, leased for ten seconds, and running as run 1.
    fn up_under_a_lease() -> Self {
        let mut bench = Self::at_most_one();
        bench.reserve();
        bench.supervisor.persisted(5);
        bench.lease(10);
        assert_eq!(bench.wait(Duration::ZERO), ["start 1"]);
        bench.running(1);
        bench.commands();
        bench
    }

    fn adopted(lease_until: Option<Instant>) -> Self {
        let mut bench = Self::at_most_one();
        let (record, row) = record(&bench, Phase::Running);
        bench.supervisor.restore(bench.now.at, record, row);
        let event = UnitEvent::Running { pid: 99, cpus: None, mems: None };
        let found = UnitFound { alloc: bench.id(), run: 3, event, lease_until };
        bench.supervisor.units_found(bench.now, vec![found]);
        bench
    }
}

#[test]
fn nothing_starts_before_its_lease_and_the_launch_says_how_long_it_is() {
    let mut bench = Bench::at_most_one();
    bench.reserve();
    assert_eq!(bench.supervisor.waiting_for_a_lease().count(), 0, "the claim is not on disk");
    bench.supervisor.persisted(5);
    assert!(bench.wait(Duration::from_secs(60)).is_empty());
    assert_eq!(bench.supervisor.take_accepted(), [(PROPOSER, bench.id())], "the claim is held");
    assert_eq!(bench.supervisor.waiting_for_a_lease().count(), 1);
    let until = bench.lease(10);
    bench.prepares = false;
    assert_eq!(bench.wait(Duration::ZERO), ["prepare 1"]);
    bench.unit(1, UnitEvent::Prepared);
    bench.supervisor.tick(bench.now, true, LEVEL);
    let outputs = bench.supervisor.take_outputs();
    let [Output::Start(launch)] = &outputs[..] else { panic!("{outputs:?}") };
    let stop_timeout = bench.spec.task.stop_timeout;
    assert_eq!(launch.lease, Some(Lease { until, stop_timeout }));
}

#[test]
fn a_lease_of_another_epoch_starts_nothing() {
    let mut bench = Bench::at_most_one();
    bench.reserve();
    bench.supervisor.persisted(5);
    let until = bench.now.at + Duration::from_secs(10);
    bench.supervisor.granted(&bench.slot(), 6, until);
    bench.supervisor.granted(&bench.slot(), 8, until);
    assert!(bench.wait(Duration::from_secs(1)).is_empty());
}

#[test]
fn a_renewal_is_passed_on_and_a_lease_that_runs_out_ends_the_allocation() {
    let mut bench = Bench::up_under_a_lease();
    assert!(bench.wait(Duration::from_secs(9)).is_empty());
    bench.lease(10);
    assert!(bench.commands()[0].starts_with("Extend"));
    assert!(bench.wait(Duration::from_secs(9)).is_empty());
    let due = bench.supervisor.next_deadline().unwrap();
    assert_eq!(due, bench.now.at + Duration::from_secs(1));
    assert_eq!(bench.wait(Duration::from_secs(1)), ["stop 1"]);
    assert_eq!(bench.row().ending, Some(Ending::LeaseLost));
    // A renewal that comes now is too late.
    bench.lease(10);
    assert!(bench.commands().is_empty());
    assert_eq!(bench.row().phase, Phase::Stopping);
    bench.exited(1);
    assert_eq!(bench.supervisor.take_ended(), [(bench.id(), true)]);
}

#[test]
fn a_unit_restarts_in_place_only_under_an_unexpired_lease() {
    let mut bench = Bench::up_under_a_lease();
    bench.exited(1);
    assert_eq!(bench.wait(Duration::from_secs(1)), ["start 2"]);

    let mut bench = Bench::up_under_a_lease();
    bench.now.at = bench.now.at + Duration::from_secs(9);
    bench.exited(1);
    assert!(bench.wait(Duration::from_secs(1)).is_empty());
    assert_eq!(bench.row().phase, Phase::Ended);
    assert_eq!(bench.row().ending, Some(Ending::LeaseLost));
}

#[test]
fn no_lease_gives_the_claim_back() {
    let mut bench = Bench::at_most_one();
    bench.reserve();
    bench.supervisor.persisted(5);
    bench.wait(Duration::ZERO);
    let ending = Ending::Unleased { reason: "nobody answers".into() };
    let proposer = bench.supervisor.unleased(bench.now, &bench.slot(), 7, ending.clone());
    assert_eq!(proposer.map(|(_, to)| to), Some(PROPOSER));
    assert_eq!((bench.row().phase, bench.row().ending.clone()), (Phase::Ended, Some(ending)));
    assert_eq!(bench.supervisor.ledger().claims().len(), 0);
    assert_eq!(bench.supervisor.take_ended(), [(bench.id(), true)]);
}

#[test]
fn a_unit_that_may_still_come_is_not_surely_gone() {
    let mut bench = Bench::up_under_a_lease();
    bench.spec.restart.attempts = 0;
    bench.exited(1);
    bench.wait(Duration::from_secs(1));
    bench.unit(2, UnitEvent::Refused { reason: "no answer".into() });
    bench.retire();
    assert_eq!(bench.supervisor.take_ended(), [(bench.id(), false)]);
}

#[test]
fn after_a_restart_only_what_the_guard_vouches_for_goes_on() {
    let now = Bench::at_most_one().now.at;
    let mut bench = Bench::adopted(Some(now + Duration::from_secs(4)));
    assert_eq!(bench.commands(), ["start 3"]);
    assert_eq!(
        bench.supervisor.leased().next().unwrap().leased_until(),
        Some(now + Duration::from_secs(4))
    );
    assert!(bench.wait(Duration::from_secs(3)).is_empty());
    bench.lease(10);
    assert_eq!(bench.row().phase, Phase::Running);

    for stale in [None, Some(now)] {
        let mut bench = Bench::adopted(stale);
        assert_eq!(bench.wait(Duration::ZERO), ["stop 3"], "{stale:?}");
        assert!(matches!(bench.row().ending, Some(Ending::Lost | Ending::LeaseLost)));
    }
}

#[test]
fn what_was_gone_after_a_restart_is_not_started_again() {
    for phase in [Phase::Reserved, Phase::Starting, Phase::Running, Phase::Stopping] {
        let mut bench = Bench::at_most_one();
        let (record, row) = record(&bench, phase);
        bench.supervisor.restore(bench.now.at, record, row);
        bench.supervisor.units_found(bench.now, Vec::new());
        assert!(bench.wait(Duration::from_secs(30)).is_empty(), "{phase}");
        assert_eq!(bench.row().phase, Phase::Ended, "{phase}");
        // Whether a start is still under way, nobody knows: the lease runs out by itself.
        assert_eq!(bench.supervisor.take_ended(), [(bench.id(), false)]);
    }
}
