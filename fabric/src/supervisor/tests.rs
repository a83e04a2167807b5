use super::*;
use crate::alloc::StandIn;
use crate::clock::WallTime;
use crate::id::JobName;
use crate::job::Guarantee;
use crate::level::{LEVEL, LEVEL_MIN};
use crate::topology::{Core, Enforced, Topology};
use std::time::Duration;

mod combinations;
mod leases;
mod looks;

const PROPOSER: NodeId = NodeId([2; 32]);

/// A node with four cores and its allocation of slot web/0.
struct Bench {
    supervisor: Supervisor,
    now: Now,
    spec: JobSpec,
    /// What is to be prepared is prepared at once.
    prepares: bool,
}

impl Bench {
    fn new() -> Self {
        let core = |cpu| Core { cpus: CpuSet::from_iter([cpu]), ..Core::default() };
        let topology = Topology {
            cores: (0..4).map(core).collect(),
            memory: 1 << 30,
            ports: (20000, 20010),
            enforced: Enforced { pinning: true, ..Enforced::default() },
            ..Topology::default()
        };
        let text = "name='web'\n[task]\ncommand=['/bin/true']\n[resources]\ncores=1\n\
            [[port]]\nname='http'\n[health]\ntcp=true\nport='http'\nfailures=2\ngrace='3s'\n\
            [restart]\nattempts=2\nwithin='1m'\ndelay='1s'";
        let spec = crate::job::parse(text).unwrap();
        let now = Now { at: Instant::at(Duration::from_secs(100)), wall: WallTime(1) };
        let mut supervisor = Supervisor::new(now.at, "n1".into(), Ledger::new(&topology));
        supervisor.units_found(now, Vec::new());
        Self { supervisor, now, spec, prepares: true }
    }

    fn id(&self) -> AllocId {
        AllocId::new(self.spec.name.clone(), 0, 7)
    }

    fn slot(&self) -> SlotId {
        self.id().slot
    }

    fn wait(&mut self, time: Duration) -> Vec<String> {
        self.now.at = self.now.at + time;
        self.supervisor.tick(self.now, true, LEVEL);
        self.commands()
    }

    fn commands(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let mut prepared = None;
            for output in self.supervisor.take_outputs() {
                said.push(match output {
                    Output::Prepare(launch) if self.prepares => {
                        prepared = Some((launch.alloc, launch.run));
                        continue;
                    }
                    Output::Prepare(launch) => format!("prepare {}", launch.run),
                    Output::Start(launch) => format!("start {}", launch.run),
                    Output::Stop { run, .. } => format!("stop {run}"),
                    Output::Confine { cpus, .. } => format!("confine {cpus}"),
                    other => format!("{other:?}"),
                });
            }
            let Some((alloc, run)) = prepared else { return said };
            self.supervisor.unit(self.now, &alloc, run, UnitEvent::Prepared);
            self.supervisor.tick(self.now, true, LEVEL);
        }
    }

    fn unit(&mut self, run: u32, event: UnitEvent) {
        let id = self.id();
        self.supervisor.unit(self.now, &id, run, event);
    }

    fn running(&mut self, run: u32) {
        self.unit(run, UnitEvent::Running { pid: 10 + run, cpus: None, mems: None });
    }

    fn exited(&mut self, run: u32) {
        let status = "exit status 3".into();
        self.unit(run, UnitEvent::Exited { status, success: false, killed: false });
    }

    fn check(&mut self, run: u32, outcome: Result<(), &str>) {
        let id = self.id();
        self.supervisor.checked(self.now, &id, run, outcome.map_err(str::to_owned));
    }

    fn retire(&mut self) -> bool {
        let ending = Ending::Retired { reason: "test".into() };
        self.supervisor.retire(self.now, &self.slot(), ending)
    }

    fn row(&self) -> &AllocRow {
        self.supervisor.local(&self.slot()).unwrap().row()
    }

    fn reserve(&mut self) {
        let claim = self.supervisor.ledger().admit(&self.spec).unwrap();
        let (spec, hash) = (self.spec.clone(), self.spec.hash(0));
        let id = self.id();
        self.supervisor.reserve(self.now, id, &spec, hash, 1, claim, Some(PROPOSER), 5, false);
    }

    /// Reserved, on disk, started and running as run 1.
    fn up(&mut self) {
        self.reserve();
        self.supervisor.persisted(5);
        assert_eq!(self.wait(Duration::ZERO), ["start 1"]);
        self.running(1);
    }

    fn in_phase(phase: Phase) -> Self {
        let mut bench = Self::new();
        match phase {
            Phase::Pending => {}
            Phase::Reserved => bench.reserve(),
            Phase::Preparing | Phase::Starting => {
                bench.prepares = phase == Phase::Starting;
                bench.reserve();
                bench.supervisor.persisted(5);
                bench.wait(Duration::ZERO);
            }
            Phase::Running => bench.up(),
            Phase::Stopping => {
                bench.up();
                assert!(bench.retire());
                assert_eq!(bench.commands(), ["stop 1"]);
            }
            Phase::Ended => {
                bench.up();
                assert!(bench.retire());
                bench.exited(1);
            }
        }
        if phase != Phase::Pending {
            assert_eq!(bench.row().phase, phase);
        }
        bench.commands();
        bench.prepares = false;
        bench
    }
}

/// Something that happens, by name.
type Happening = (&'static str, fn(&mut Bench));
/// The phase after it, and the commands given.
type Outcome = (Phase, &'static [&'static str]);

/// Every phase with every thing that can happen to it: the phase after, and the commands given.
#[test]
fn every_phase_knows_every_event() {
    use Phase::*;
    let happenings: [Happening; 7] = [
        ("disk", |bench| {
            bench.supervisor.persisted(5);
            bench.now.at = bench.now.at + Duration::from_millis(1);
            bench.supervisor.tick(bench.now, true, LEVEL);
        }),
        ("prepared", |bench| {
            bench.unit(1, UnitEvent::Prepared);
            bench.supervisor.tick(bench.now, true, LEVEL);
        }),
        ("running", |bench| bench.running(1)),
        ("exited", |bench| bench.exited(1)),
        ("refused", |bench| bench.unit(1, UnitEvent::Refused { reason: "no".into() })),
        ("retire", |bench| {
            bench.retire();
        }),
        ("stale exit", |bench| bench.exited(0)),
    ];
    let expected: &[(Phase, [Outcome; 7])] = &[
        (
            Reserved,
            [
                (Preparing, &["prepare 1"]),
                (Reserved, &[]),
                (Reserved, &[]),
                (Reserved, &[]),
                (Reserved, &[]),
                (Ended, &[]),
                (Reserved, &[]),
            ],
        ),
        (
            Preparing,
            [
                (Preparing, &[]),
                (Starting, &["start 1"]),
                (Running, &[]),
                (Preparing, &[]),
                (Preparing, &[]),
                (Stopping, &["stop 1"]),
                (Preparing, &[]),
            ],
        ),
        (
            Starting,
            [
                (Starting, &[]),
                (Starting, &[]),
                (Running, &[]),
                (Starting, &[]),
                (Starting, &[]),
                (Stopping, &["stop 1"]),
                (Starting, &[]),
            ],
        ),
        (
            Running,
            [
                (Running, &[]),
                (Running, &[]),
                (Running, &[]),
                (Running, &[]),
                (Running, &[]),
                (Stopping, &["stop 1"]),
                (Running, &[]),
            ],
        ),
        (
            Stopping,
            [
                (Stopping, &[]),
                (Stopping, &[]),
                (Stopping, &["stop 1"]),
                (Ended, &[]),
                (Ended, &[]),
                (Stopping, &[]),
                (Stopping, &[]),
            ],
        ),
        (
            Ended,
            [
                (Ended, &[]),
                (Ended, &[]),
                (Ended, &[]),
                (Ended, &[]),
                (Ended, &[]),
                (Ended, &[]),
                (Ended, &[]),
            ],
        ),
    ];
    for (phase, outcomes) in expected {
        for ((name, happening), (after, commands)) in happenings.iter().zip(outcomes) {
            let mut bench = Bench::in_phase(*phase);
            happening(&mut bench);
            assert_eq!(bench.row().phase, *after, "{phase}: {name}");
            assert_eq!(bench.commands(), *commands, "{phase}: {name}");
            let held = bench.supervisor.ledger().claims().count();
            assert_eq!(held == 1, after.holds_claim(), "{phase}: {name}: the claim");
        }
    }
}

#[test]
fn nothing_starts_before_its_claim_is_on_disk() {
    let mut bench = Bench::new();
    bench.reserve();
    assert!(bench.wait(Duration::from_secs(60)).is_empty());
    assert!(bench.supervisor.take_accepted().is_empty());
    bench.supervisor.persisted(4);
    assert!(bench.wait(Duration::from_secs(60)).is_empty());
    bench.supervisor.persisted(5);
    assert_eq!(bench.wait(Duration::ZERO), ["start 1"]);
    assert_eq!(bench.supervisor.take_accepted(), [(PROPOSER, bench.id())]);
}

#[test]
fn a_refused_write_gives_the_claim_back() {
    let mut bench = Bench::new();
    bench.reserve();
    assert_eq!(bench.supervisor.unpersisted(bench.now), [(PROPOSER, bench.id())]);
    assert_eq!(bench.row().phase, Phase::Ended);
    assert_eq!(bench.supervisor.ledger().claims().count(), 0);
}

#[test]
fn a_failing_unit_is_restarted_ever_later_and_then_given_up() {
    let mut bench = Bench::new();
    bench.up();
    bench.exited(1);
    assert_eq!(bench.row().trouble.as_deref(), Some("exit status 3"));
    assert!(bench.wait(Duration::from_millis(900)).is_empty());
    assert_eq!(bench.wait(Duration::from_millis(200)), ["start 2"]);
    bench.running(2);
    bench.exited(2);
    assert!(bench.wait(Duration::from_millis(1900)).is_empty(), "twice as long");
    assert_eq!(bench.wait(Duration::from_millis(200)), ["start 3"]);
    bench.running(3);
    bench.exited(3);
    assert_eq!(bench.row().phase, Phase::Ended, "two restarts are the policy");
    assert_eq!(bench.row().restarts, 2);
    assert!(matches!(bench.row().ending, Some(Ending::Failed { .. })));
}

#[test]
fn each_run_is_prepared_before_it_is_started() {
    let mut bench = Bench::new();
    bench.prepares = false;
    bench.reserve();
    bench.supervisor.persisted(5);
    assert_eq!(bench.wait(Duration::ZERO), ["prepare 1"]);
    assert_eq!(bench.row().phase, Phase::Preparing);
    // The command, or what the agent says of it, may be lost.
    assert_eq!(bench.wait(limits::UNIT_RETRY), ["prepare 1"]);
    bench.unit(1, UnitEvent::Prepared);
    assert_eq!(bench.wait(Duration::ZERO), ["start 1"]);
    assert_eq!(bench.row().phase, Phase::Starting);
    bench.unit(1, UnitEvent::Prepared);
    assert!(bench.wait(Duration::ZERO).is_empty(), "said twice");
    bench.running(1);
    bench.exited(1);
    assert_eq!(bench.wait(Duration::from_secs(1)), ["prepare 2"]);
    assert_eq!(bench.row().phase, Phase::Running, "a phase is not gone through twice");
    bench.unit(1, UnitEvent::Prepared);
    assert!(bench.wait(Duration::ZERO).is_empty(), "of an earlier run");
    // What cannot be prepared has not been started: like a start that is refused.
    bench.unit(2, UnitEvent::Refused { reason: "no space left on device".into() });
    assert_eq!(bench.row().trouble.as_deref(), Some("no space left on device"));
    assert_eq!(bench.wait(Duration::from_secs(2)), ["prepare 3"]);
    assert!(bench.retire());
    assert_eq!(bench.commands(), ["stop 3"], "the preparation ends");
    bench.unit(3, UnitEvent::Prepared);
    assert!(bench.wait(Duration::ZERO).is_empty(), "it was too late");
    bench.exited(3);
    assert_eq!(bench.row().phase, Phase::Ended);
}

#[test]
fn a_fabric_with_old_agents_hears_of_no_preparation() {
    for level in LEVEL_MIN..=LEVEL {
        let mut bench = Bench::new();
        bench.reserve();
        bench.supervisor.persisted(5);
        bench.supervisor.tick(bench.now, true, level);
        assert!(bench.row().level() <= level, "{:?} at level {level}", bench.row().phase);
        assert_eq!(bench.commands(), ["start 1"]);
    }
}

#[test]
fn what_was_being_prepared_is_prepared_again_by_the_next_agent() {
    let mut bench = Bench::new();
    bench.prepares = false;
    let (record, row) = record(&bench, Phase::Preparing);
    bench.supervisor.restore(bench.now.at, record, row);
    bench.supervisor.units_found(bench.now, Vec::new());
    assert_eq!(bench.wait(Duration::ZERO), ["prepare 4"]);
    assert_eq!(bench.row().trouble, None, "no unit was there that is gone");
    assert_eq!((bench.row().phase, bench.row().restarts), (Phase::Preparing, 0));
}

#[test]
fn a_decision_about_one_copy_says_nothing_of_others() {
    let mut bench = Bench::new();
    bench.up();
    let slot = bench.id().slot;
    let node = NodeId([9; 32]);
    let stands_in = StandIn { node, epoch: 2, healthy_since: WallTime(7), by_most: true };
    let succession = Succession { stands_in: Some(stands_in), ..Succession::default() };
    bench.supervisor.locals.get_mut(&slot).unwrap().alloc.row.succession =
        Some(Box::new(succession));
    let copy = |epoch, birth| AllocRow { epoch, birth: Birth(birth), ..AllocRow::default() };
    for (name, same) in [(0, true), (7, false)] {
        bench.supervisor.replace(&slot, (5, Birth(name)));
        let replaces = |epoch, birth| bench.row().replaces(&copy(epoch, birth));
        assert!(replaces(5, 7));
        // Both sides of a split may have given an epoch.
        assert_eq!(replaces(5, 8), same, "an agent of before level 3 says only the epoch");
        // One of an earlier epoch that nobody could see may have run all along.
        assert!(!replaces(4, 7) && !replaces(2, 7), "{:?}", bench.row().succession);
    }
    bench.supervisor.replace(&slot, (2, Birth(0)));
    assert!(bench.row().replaces(&copy(2, 7)) && !bench.row().replaces(&copy(5, 7)));
}

#[test]
fn failures_long_ago_do_not_count() {
    let mut bench = Bench::new();
    bench.up();
    for run in 1..6 {
        bench.exited(run);
        bench.wait(Duration::from_secs(2));
        bench.running(run + 1);
        bench.wait(Duration::from_secs(61));
    }
    assert_eq!(bench.row().phase, Phase::Running);
    assert_eq!(bench.row().restarts, 5);
}

#[test]
fn checks_make_healthy_and_restart_what_stays_ill() {
    let mut bench = Bench::new();
    bench.up();
    assert!(!bench.row().healthy, "not before the first check");
    bench.check(1, Err("refused"));
    bench.check(1, Err("refused"));
    bench.check(1, Err("refused"));
    assert!(bench.commands().is_empty(), "it has its grace");
    bench.check(1, Ok(()));
    assert!(bench.row().healthy);
    bench.check(1, Err("slow"));
    assert!(bench.row().healthy, "once is nothing");
    bench.check(1, Err("slow"));
    assert!(!bench.row().healthy);
    assert_eq!(bench.commands(), ["stop 1"]);
    bench.exited(1);
    assert_eq!(bench.row().trouble.as_deref(), Some("health check failed: slow"));
    assert_eq!(bench.wait(Duration::from_millis(1100)), ["start 2"]);
    bench.check(1, Ok(()));
    assert!(!bench.row().healthy, "an answer of the run before is stale");
}

#[test]
fn commands_without_effect_are_repeated_ever_more_rarely() {
    let mut bench = Bench::in_phase(Phase::Stopping);
    let mut repeated = 0;
    for _ in 0..3600 {
        repeated += bench.wait(Duration::from_secs(1)).len();
    }
    assert!((8..20).contains(&repeated), "{repeated} in an hour");
}

#[test]
fn a_restart_on_request_counts_as_no_failure() {
    let mut bench = Bench::new();
    bench.up();
    for run in 1..=5 {
        assert!(bench.supervisor.restart(bench.now, &bench.slot()));
        assert_eq!(bench.commands(), [format!("stop {run}")]);
        bench.exited(run);
        assert_eq!(bench.wait(Duration::ZERO), [format!("start {}", run + 1)]);
        bench.running(run + 1);
    }
    assert_eq!(bench.row().phase, Phase::Running);
}

fn record(bench: &Bench, phase: Phase) -> (Record, AllocRow) {
    let claim = bench.supervisor.ledger().admit(&bench.spec).unwrap();
    let row = AllocRow { epoch: 7, phase, claim, healthy: true, ..AllocRow::default() };
    (Record { alloc: bench.id(), spec: bench.spec.clone(), run: 3 }, row)
}

#[test]
fn a_restarted_agent_adopts_what_runs() {
    let mut bench = Bench::new();
    let (record, row) = record(&bench, Phase::Running);
    bench.supervisor.restore(bench.now.at, record, row);
    let event = UnitEvent::Running { pid: 99, cpus: None, mems: None };
    let found = UnitFound { alloc: bench.id(), run: 3, event, lease_until: None };
    bench.supervisor.units_found(bench.now, vec![found]);
    assert_eq!((bench.row().pid, bench.row().healthy), (Some(99), true));
    assert_eq!(bench.commands(), ["start 3"], "the same run: the agent learns how to check it");
    assert_eq!(bench.wait(Duration::from_secs(60)), ["start 3"], "it may have been lost");
    bench.running(3);
    assert!(bench.wait(Duration::from_secs(3600)).is_empty());
}

#[test]
fn a_unit_that_is_gone_after_a_restart_starts_again_on_its_claim() {
    let mut bench = Bench::new();
    let (record, row) = record(&bench, Phase::Running);
    let claim = row.claim.clone();
    bench.supervisor.restore(bench.now.at, record, row);
    bench.supervisor.units_found(bench.now, Vec::new());
    bench.supervisor.tick(bench.now, false, LEVEL);
    assert!(bench.commands().is_empty(), "not before the others had a say");
    assert_eq!(bench.wait(Duration::ZERO), ["start 4"]);
    assert_eq!((bench.row().phase, &bench.row().claim), (Phase::Running, &claim));
}

#[test]
fn units_without_a_record_are_stopped() {
    let mut bench = Bench::new();
    let alloc = AllocId::new(JobName::new("old").unwrap(), 1, 2);
    let event = UnitEvent::Running { pid: 99, cpus: None, mems: None };
    bench
        .supervisor
        .units_found(bench.now, vec![UnitFound { alloc, run: 9, event, lease_until: None }]);
    assert_eq!(bench.commands(), ["stop 9"]);
}

#[test]
fn a_delay_of_nothing_is_a_second() {
    let mut bench = Bench::new();
    bench.spec.restart.delay = Duration::ZERO;
    bench.spec.restart.attempts = 10_000;
    // So short that no restart counts for the next one.
    bench.spec.restart.within = Duration::from_millis(1);
    bench.up();
    let mut starts = 1;
    for _ in 0..6_000 {
        // It ends the moment that it starts.
        if bench.row().pid.is_some() {
            bench.exited(starts);
        }
        if !bench.wait(Duration::from_millis(10)).is_empty() {
            starts += 1;
            bench.running(starts);
        }
    }
    assert!((40..=61).contains(&starts), "{starts} in a minute");
}

#[test]
fn a_start_on_a_port_that_somebody_listens_on_gives_the_slot_back() {
    let mut bench = Bench::in_phase(Phase::Starting);
    bench.unit(1, UnitEvent::PortTaken { port: 20_000, by: "nginx (pid 812)".into() });
    let row = bench.row();
    let reason = "port 20000 is used by nginx (pid 812)".to_owned();
    assert_eq!((row.phase, &row.ending), (Phase::Ended, &Some(Ending::Retired { reason })));
    assert_eq!(bench.supervisor.ledger().claims().count(), 0);
    assert!(bench.wait(Duration::from_secs(3600)).is_empty(), "no second try on the same port");
}

/// A shared job with a unit that runs, beside an empty slot web/0.
fn with_a_shared_unit() -> (Bench, AllocId) {
    let mut bench = Bench::new();
    let mut shared = bench.spec.clone();
    shared.resources.cpu = CpuRequest::Shared { millis: 500, hard: false };
    shared.name = JobName::new("shared").unwrap();
    shared.health = None;
    let claim = bench.supervisor.ledger().admit(&shared).unwrap();
    let (id, hash) = (AllocId::new(shared.name.clone(), 0, 1), shared.hash(0));
    bench.supervisor.reserve(bench.now, id.clone(), &shared, hash, 1, claim, None, 4, false);
    bench.supervisor.persisted(4);
    assert_eq!(bench.wait(Duration::ZERO), ["start 1"]);
    on_cpus(&mut bench, &id, "0-3");
    assert!(bench.wait(Duration::from_secs(60)).is_empty());
    (bench, id)
}

fn on_cpus(bench: &mut Bench, id: &AllocId, cpus: &str) {
    let event = UnitEvent::Running { pid: 5, cpus: Some(cpus.parse().unwrap()), mems: None };
    bench.supervisor.unit(bench.now, id, 1, event);
}

#[test]
fn a_unit_that_is_not_seen_to_have_moved_is_told_again() {
    let (mut bench, shared) = with_a_shared_unit();
    bench.reserve();
    bench.supervisor.persisted(5);
    // The command is lost.
    assert_eq!(bench.wait(Duration::ZERO), ["confine 1-3", "start 1"]);
    bench.running(1);
    assert!(bench.wait(Duration::from_millis(900)).is_empty());
    let deadline = bench.supervisor.next_deadline().expect("it is not at rest");
    assert!(deadline.since(bench.now.at) < Duration::from_secs(1), "it wakes by itself");
    assert_eq!(bench.wait(Duration::from_millis(100)), ["confine 1-3"]);
    // So is the next one, and the one after that fails.
    assert_eq!(bench.wait(Duration::from_secs(2)), ["confine 1-3"]);
    on_cpus(&mut bench, &shared, "0-3");
    assert_eq!(bench.wait(Duration::from_secs(4)), ["confine 1-3"]);
    on_cpus(&mut bench, &shared, "1-3");
    assert!(bench.wait(Duration::from_secs(3600)).is_empty(), "it is there");

    // More CPUs: an old report is not taken for an answer.
    bench.retire();
    bench.commands();
    bench.exited(1);
    assert_eq!(bench.wait(Duration::ZERO), ["confine 0-3"]);
    on_cpus(&mut bench, &shared, "1-3");
    assert_eq!(bench.wait(Duration::from_secs(1)), ["confine 0-3"]);
    // A task that keeps itself to fewer is left alone in the end.
    on_cpus(&mut bench, &shared, "1-3");
    assert!(bench.wait(Duration::from_secs(3600)).is_empty());
}

#[test]
fn a_unit_without_a_record_is_told_to_stop_until_it_is_gone() {
    let mut bench = Bench::new();
    let alloc = AllocId::new(JobName::new("old").unwrap(), 1, 2);
    let event = UnitEvent::Running { pid: 99, cpus: None, mems: None };
    let found = UnitFound { alloc: alloc.clone(), run: 9, event, lease_until: None };
    bench.supervisor.units_found(bench.now, vec![found]);
    // The command is lost.
    assert_eq!(bench.commands(), ["stop 9"]);
    assert!(bench.wait(limits::UNIT_RETRY / 2).is_empty());
    assert!(bench.supervisor.next_deadline().is_some(), "it wakes by itself");
    assert_eq!(bench.wait(limits::UNIT_RETRY), ["stop 9"]);
    let status = "killed by SIGTERM".into();
    let gone = UnitEvent::Exited { status, success: false, killed: false };
    bench.supervisor.unit(bench.now, &alloc, 9, gone);
    assert!(bench.wait(Duration::from_secs(3600)).is_empty());
    assert_eq!(bench.supervisor.next_deadline(), None);
}

#[test]
fn shared_units_make_room_before_an_exclusive_one_starts() {
    let mut bench = Bench::new();
    let mut shared = bench.spec.clone();
    shared.resources.cpu = CpuRequest::Shared { millis: 500, hard: false };
    shared.name = JobName::new("shared").unwrap();
    let claim = bench.supervisor.ledger().admit(&shared).unwrap();
    let id = AllocId::new(shared.name.clone(), 0, 1);
    bench.supervisor.reserve(
        bench.now,
        id.clone(),
        &shared,
        shared.hash(0),
        1,
        claim,
        None,
        4,
        false,
    );
    bench.supervisor.persisted(4);
    assert_eq!(bench.wait(Duration::ZERO), ["start 1"]);
    let event = UnitEvent::Running { pid: 5, cpus: None, mems: None };
    bench.supervisor.unit(bench.now, &id, 1, event);
    bench.reserve();
    bench.supervisor.persisted(5);
    let commands = bench.wait(Duration::ZERO);
    let taken = bench.row().claim.cpus.clone();
    let mut left: CpuSet = "0-3".parse().unwrap();
    left.remove_all(&taken);
    assert_eq!(commands, [format!("confine {left}"), "start 1".into()]);
}
