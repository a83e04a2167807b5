//! Every phase with every state of the unit and of the lease, also those that should not come together, and everything that
//! can happen then.

use super::*;

const PHASES: [Phase; 6] = [
    Phase::Reserved,
    Phase::Preparing,
    Phase::Starting,
    Phase::Running,
    Phase::Stopping,
    Phase::Ended,
];

const UNITS: [Unit; 6] =
    [Unit::Unknown, Unit::Absent, Unit::Preparing, Unit::Prepared, Unit::Asked, Unit::Active];

/// The lease of each kind, that which has run out included.
fn leases(now: Instant) -> [LeaseState; 5] {
    let soon = now + Duration::from_secs(10);
    [
        LeaseState::Free,
        LeaseState::Waiting,
        LeaseState::Unknown,
        LeaseState::Until(now),
        LeaseState::Until(soon),
    ]
}

/// The run of the unit, if there is one.
const RUN: u32 = 3;

fn recalled(bench: &mut Bench, epoch: u64, phase: Phase) {
    let row = AllocRow { epoch, phase, ..AllocRow::default() };
    bench.supervisor.recall(bench.now, &bench.slot(), &row);
}

fn found(bench: &mut Bench, lease_until: Option<Instant>) {
    let event = UnitEvent::Running { pid: 9, cpus: None, mems: None };
    let unit = UnitFound { alloc: bench.id(), run: RUN, event, lease_until };
    bench.supervisor.units_found(bench.now, vec![unit]);
}

fn leased_for(bench: &mut Bench, epoch: u64, time: Duration) {
    let until = bench.now.at + time;
    bench.supervisor.granted(&bench.slot(), epoch, until);
}

const HAPPENINGS: [Happening; 26] = [
    ("nothing", |_| {}),
    ("disk", |bench| bench.supervisor.persisted(5)),
    ("the disk refuses", |bench| {
        bench.supervisor.unpersisted(bench.now);
    }),
    ("prepared", |bench| bench.unit(RUN, UnitEvent::Prepared)),
    ("running", |bench| bench.running(RUN)),
    ("exited", |bench| bench.exited(RUN)),
    ("exit of another run", |bench| bench.exited(RUN - 1)),
    ("refused", |bench| bench.unit(RUN, UnitEvent::Refused { reason: "no".into() })),
    ("port taken", |bench| {
        bench.unit(RUN, UnitEvent::PortTaken { port: 20_000, by: "nginx".into() });
    }),
    ("well", |bench| bench.check(RUN, Ok(()))),
    ("unwell", |bench| {
        bench.check(RUN, Ok(()));
        (0..3).for_each(|_| bench.check(RUN, Err("refused")));
    }),
    ("retire", |bench| {
        bench.retire();
    }),
    ("restart", |bench| {
        bench.supervisor.restart(bench.now, &bench.slot());
    }),
    ("leased", |bench| leased_for(bench, 7, Duration::from_secs(20))),
    ("leased for a moment", |bench| leased_for(bench, 7, Duration::from_millis(1))),
    ("another epoch leased", |bench| leased_for(bench, 8, Duration::from_secs(20))),
    ("no lease", |bench| {
        let ending = Ending::Unleased { reason: "no majority".into() };
        bench.supervisor.unleased(bench.now, &bench.slot(), 7, ending);
    }),
    ("recalled as running", |bench| recalled(bench, 7, Phase::Running)),
    ("recalled as ended", |bench| recalled(bench, 7, Phase::Ended)),
    ("a later epoch is known", |bench| recalled(bench, 8, Phase::Running)),
    ("held back", |bench| {
        let until = bench.now.at + Duration::from_secs(1);
        bench.supervisor.hold_back(&bench.slot(), until);
    }),
    ("committed", |bench| bench.supervisor.commit(&bench.slot())),
    ("found", |bench| found(bench, None)),
    ("found with a guard", |bench| {
        let until = bench.now.at + Duration::from_secs(5);
        found(bench, Some(until));
    }),
    ("not found", |bench| bench.supervisor.units_found(bench.now, Vec::new())),
    ("forgotten", |bench| bench.supervisor.forget(&bench.slot())),
];

/// What ends a unit, or says that there is none.
fn says_that_it_is_gone(happening: &str) -> bool {
    ["exited", "refused", "port taken", "not found"].contains(&happening)
}

impl Bench {
    /// An allocation in this state, whose agent has said which units there are, unless it is `Unknown`.
    fn in_state(phase: Phase, unit: Unit, lease: LeaseState) -> Self {
        let mut bench = Bench::new();
        bench.prepares = false;
        bench.supervisor.listed = unit != Unit::Unknown;
        if lease != LeaseState::Free {
            bench.spec.guarantee = Guarantee::AtMostOne;
        }
        bench.reserve();
        bench.supervisor.take_changed();
        if phase > Phase::Reserved {
            bench.supervisor.persisted(5);
        }
        let (id, slot) = (bench.id(), bench.slot());
        if phase == Phase::Ended {
            bench.supervisor.ledger.release(&id);
            bench.supervisor.leased.remove(&slot);
        }
        let local = bench.supervisor.locals.get_mut(&slot).unwrap();
        local.alloc.row.phase = phase;
        local.alloc.record.run = RUN;
        local.unit.state = unit;
        local.lease.state = lease;
        bench
    }

    fn local(&self) -> Option<&LocalAlloc> {
        self.supervisor.local(&self.slot())
    }

    /// Ticks, and says what was given and what must not be so.
    fn tick_and_look(&mut self, may_start: bool, case: &str) -> Vec<Output> {
        self.supervisor.tick(self.now, may_start, LEVEL);
        let given = self.supervisor.take_outputs();
        let Some(local) = self.local() else { return given };
        let (phase, unit) = (local.row().phase, local.unit.state);
        let claims = self.supervisor.ledger().claims().count();
        assert_eq!(claims == 1, phase.holds_claim(), "{case}: the claim");
        let is_leased = self.supervisor.leased().count() == 1;
        let needs = local.needs_lease().is_some() && phase != Phase::Ended;
        assert_eq!(is_leased, needs, "{case}: the lease");
        match local.lease.state {
            LeaseState::Until(until) if until <= self.now.at => {
                assert!(!phase.is_live(), "{case}: it runs on without its lease");
            }
            LeaseState::Unknown if unit != Unit::Unknown => {
                assert!(!phase.is_live(), "{case}: it runs on by the lease of a former life");
            }
            _ => {}
        }
        let waits = !matches!(unit, Unit::Unknown | Unit::Absent);
        if phase == Phase::Stopping && waits {
            let wakes = self.supervisor.next_deadline();
            assert!(wakes.is_some(), "{case}: nobody would repeat that it is to stop");
        }
        given
    }
}

fn check(
    phase: Phase,
    unit: Unit,
    lease: LeaseState,
    (name, happens): &Happening,
    may_start: bool,
) {
    let case = format!("{phase}, {unit:?}, {lease:?}: {name}, may start: {may_start}");
    let mut bench = Bench::in_state(phase, unit, lease);
    happens(&mut bench);
    let mut given = bench.supervisor.take_outputs();
    let mut last = phase;
    for wait in [Duration::ZERO, Duration::from_millis(1), limits::UNIT_RETRY * 2] {
        bench.now.at = bench.now.at + wait;
        given.extend(bench.tick_and_look(may_start, &case));
        let now = bench.local().map_or(Phase::Ended, |local| local.row().phase);
        assert!(now >= last, "{case}: from {last} back to {now}");
        last = now;
        for output in given.drain(..) {
            match output {
                Output::Prepare(launch) | Output::Start(launch) => {
                    let runs = matches!(unit, Unit::Asked | Unit::Active);
                    let same = launch.run == RUN || says_that_it_is_gone(name);
                    assert!(!runs || same, "{case}: run {} beside one that runs", launch.run);
                    assert!(launch.run == RUN || may_start, "{case}: started too early");
                    assert!(phase < Phase::Stopping, "{case}: started although it is to end");
                    let lease = launch.lease.map(|lease| lease.until);
                    let needs = bench.spec.guarantee == Guarantee::AtMostOne;
                    let may = !needs || lease.is_some_and(|until| bench.now.at < until);
                    assert!(may, "{case}: started without a lease");
                }
                Output::Stop { run, .. } => {
                    let is_there = bench.local().is_some_and(|local| local.record().run == run);
                    assert!(is_there, "{case}: another run is stopped");
                }
                _ => {}
            }
        }
    }
    // What happened to it is told once.
    let told = bench.supervisor.take_ended().len();
    let ended = phase != Phase::Ended && last == Phase::Ended && lease != LeaseState::Free;
    assert_eq!(told, usize::from(ended), "{case}: whether nothing is left of it");
}

#[test]
fn every_phase_unit_and_lease_knows_everything_that_happens() {
    let now = Bench::new().now.at;
    let mut cases = 0;
    for phase in PHASES {
        for unit in UNITS {
            for lease in leases(now) {
                for happening in &HAPPENINGS {
                    for may_start in [true, false] {
                        check(phase, unit, lease, happening, may_start);
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 6 * 6 * 5 * 26 * 2);
}
