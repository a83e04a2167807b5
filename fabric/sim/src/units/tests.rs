use super::*;
use fabric::claim::Claim;
use fabric::id::JobName;
use fabric::job::{Sandbox, Task};
use rand::SeedableRng;

fn manager() -> UnitManager {
    UnitManager::new(ChaCha8Rng::seed_from_u64(1))
}

fn launch(behaves: &str) -> Launch {
    let task = Task {
        command: vec!["task".into()],
        env: [(BEHAVES.to_owned(), behaves.to_owned())].into(),
        user: None,
        working_dir: None,
        files: Vec::new(),
        stop_signal: "SIGTERM".into(),
        stop_timeout: Duration::from_secs(7),
        sandbox: Sandbox::default(),
        arch: BTreeMap::new(),
    };
    Launch {
        alloc: AllocId::new(JobName::new("web").unwrap(), 0, 1),
        run: 1,
        node: "a".into(),
        task,
        memory: 1,
        swap: 0,
        cpu_hard: false,
        claim: Claim::default(),
        cpus: [3].into_iter().collect(),
        health: None,
        lease: None,
    }
}

fn begun(start: Start) -> NextStep {
    match start {
        Start::Begun(next) => next,
        other => panic!("{other:?}"),
    }
}

const ORIGIN: Instant = Instant::at(Duration::ZERO);
const AT: Duration = Duration::from_secs(1);

#[test]
fn a_unit_starts_runs_and_ends_when_asked() {
    let mut manager = manager();
    let active = begun(manager.start(launch("starts=2s"), ORIGIN, AT));
    assert_eq!(active.after, Duration::from_secs(2));
    assert!(matches!(manager.start(launch(""), ORIGIN, AT), Start::Again(1, None)));
    let (run, event, next) = manager.step(&active, AT, true).unwrap();
    assert_eq!(run, 1);
    assert!(matches!(event, UnitEvent::Running { cpus: Some(cpus), .. } if cpus.contains(3)));
    assert!(next.is_none());
    assert!(matches!(manager.stop(&active.alloc, 2, AT), Stop::NotThere(_)));
    let Stop::Begun(end) = manager.stop(&active.alloc, 1, AT) else { panic!() };
    let (_, event, _) = manager.step(&end, AT, true).unwrap();
    assert!(matches!(event, UnitEvent::Exited { success: true, killed: false, .. }));
    assert!(matches!(manager.stop(&active.alloc, 1, AT), Stop::NotThere(_)));
    assert!(
        matches!(manager.start(launch(""), ORIGIN, AT), Start::Again(1, _)),
        "a run starts once"
    );
}

#[test]
fn an_earlier_run_ends_before_the_next_one_starts() {
    let mut manager = manager();
    let active = begun(manager.start(launch(""), ORIGIN, AT));
    manager.step(&active, AT, true);
    let end = begun(manager.start(Launch { run: 2, ..launch("") }, ORIGIN, AT));
    assert_eq!(end.step, Step::End);
    assert!(manager.step(&end, AT, true).is_some());
    assert!(matches!(manager.start_waiting(&end.alloc, ORIGIN, AT), Some((2, Start::Begun(_)))));
}

#[test]
fn a_unit_that_ignores_stop_is_killed_after_its_timeout() {
    let mut manager = manager();
    let active = begun(manager.start(launch("ignores-stop"), ORIGIN, AT));
    manager.step(&active, AT, true);
    let Stop::Begun(kill) = manager.stop(&active.alloc, 1, AT) else { panic!() };
    assert_eq!((kill.after, kill.step), (Duration::from_secs(7), Step::Kill));
    let (_, event, _) = manager.step(&kill, AT, true).unwrap();
    assert!(matches!(event, UnitEvent::Exited { success: false, killed: true, .. }));
}

#[test]
fn a_stale_step_of_an_earlier_life_changes_nothing() {
    let mut manager = manager();
    let active = begun(manager.start(launch("exits=1s"), ORIGIN, AT));
    let (_, _, exit) = manager.step(&active, AT, true).unwrap();
    manager.kill(&active.alloc, true).unwrap();
    begun(manager.start(Launch { run: 2, ..launch("") }, ORIGIN, AT));
    assert!(manager.step(&exit.unwrap(), AT, true).is_none());
    assert_eq!(manager.there().count(), 1);
}

#[test]
fn a_refusing_manager_and_a_refused_unit_start_nothing() {
    let mut manager = manager();
    assert!(matches!(manager.start(launch("refuses"), ORIGIN, AT), Start::Refused { .. }));
    manager.temper = Temper::Refusing;
    let next = Launch { run: 2, ..launch("") };
    assert!(matches!(manager.start(next, ORIGIN, AT), Start::Refused { .. }));
    assert_eq!(manager.there().count(), 0);
}

#[test]
fn units_outlive_the_agent_and_not_the_machine() {
    let mut manager = manager();
    let active = begun(manager.start(launch(""), ORIGIN, AT));
    manager.step(&active, AT, true);
    assert_eq!(manager.list().len(), 1);
    manager.power_off();
    assert!(manager.list().is_empty());
}

#[test]
fn behaviours_are_read_and_nonsense_is_refused() {
    let behaviour = Behaviour::parse("starts=2s, exits=10s,ignores-stop").unwrap();
    assert_eq!(behaviour.starts, Some(Duration::from_secs(2)));
    assert!(!behaviour.is_sound());
    assert!(Behaviour::parse("well").unwrap().is_sound());
    assert_eq!(Behaviour::parse("explodes"), Err(NotABehaviour("explodes".into())));
    assert!(Behaviour::parse("starts=soon").is_err());
}

fn leased(behaves: &str, until_s: u64) -> Launch {
    let until = Instant::at(Duration::from_secs(until_s));
    let lease = fabric::io::Lease { until, stop_timeout: Duration::from_secs(7) };
    Launch { lease: Some(lease), ..launch(behaves) }
}

fn at(seconds: u64) -> Instant {
    Instant::at(Duration::from_secs(seconds))
}

#[test]
fn a_guard_asks_at_the_end_of_the_lease_and_kills_after_the_stop_timeout() {
    let mut manager = manager();
    let active = begun(manager.start(leased("ignores-stop", 10), ORIGIN, AT));
    manager.step(&active, AT, true);
    let (alloc, life) = (&active.alloc, active.life);
    assert!(matches!(manager.guard(alloc, life, at(9), AT, true), Guarded::Waits));
    assert!(matches!(manager.guard(alloc, life, at(10), AT, true), Guarded::Asked(Some(_))));
    manager.extend(alloc, 1, at(30));
    assert_eq!(manager.guard_due(alloc), Some((life, at(17))), "a renewal that comes too late");
    assert!(matches!(manager.guard(alloc, life, at(17), AT, true), Guarded::Killed(1, _)));
    assert_eq!(manager.there().count(), 0);
}

#[test]
fn a_guard_waits_for_a_renewed_lease_and_for_no_other_units() {
    let mut manager = manager();
    let active = begun(manager.start(leased("", 10), ORIGIN, AT));
    manager.step(&active, AT, true);
    manager.extend(&active.alloc, 2, at(60));
    assert_eq!(manager.guard_due(&active.alloc), Some((active.life, at(10))), "another run");
    manager.extend(&active.alloc, 1, at(20));
    assert!(matches!(manager.guard(&active.alloc, active.life, at(10), AT, true), Guarded::Waits));
    assert_eq!(manager.list()[0].lease_until, Some(at(20)));
    let stale = manager.guard(&active.alloc, active.life + 1, at(99), AT, true);
    assert!(matches!(stale, Guarded::Nothing));
}

#[test]
fn nothing_starts_once_its_lease_has_run_out() {
    let mut manager = manager();
    assert!(matches!(manager.start(leased("", 10), at(10), AT), Start::Refused { .. }));
    let active = begun(manager.start(Launch { run: 2, ..leased("", 20) }, at(11), AT));
    manager.step(&active, AT, true);
    begun(manager.start(Launch { run: 3, ..leased("", 20) }, at(12), AT));
    let waited = manager.start_waiting(&active.alloc, at(20), AT);
    assert!(matches!(waited, Some((3, Start::Refused { .. }))));
}
