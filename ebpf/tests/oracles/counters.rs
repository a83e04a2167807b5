//! Counting in cgroup mode, with the kernel's own events: the processor's are counted by the same code, and there is
//! no second book of those. Beside `cpu.stat` of the cgroup and the books of its threads.

use crate::near;
use crate::unit::{Unit, alone, skipped};
use ebpf::counters::{Counters, Event};
use ebpf::{Cgroups, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const EVENTS: [Event; 2] = [Event::TASK_CLOCK, Event::CONTEXT_SWITCHES];

fn counters(events: &[Event]) -> Option<Counters> {
    let counters = Counters::load(events);
    match counters.status() {
        Status::Running => Some(counters),
        status => {
            skipped(&status.to_string());
            None
        }
    }
}

/// What one unit has come to.
fn row(counters: &mut Counters, folder: &Path) -> Option<Vec<u64>> {
    let row = counters.read().remove(folder)?;
    Some(
        row.into_iter()
            .map(|total| total.expect("the kernel's own events are always there"))
            .collect(),
    )
}

fn watch(counters: &mut Counters, folders: &[&Path]) {
    counters.watch(&folders.iter().map(|folder| PathBuf::from(*folder)).collect());
}

/// Microseconds on a CPU, by the cgroup's own books.
fn usage_us(folder: &Path) -> u64 {
    let text = fs::read_to_string(folder.join("cpu.stat")).expect("every cgroup has it");
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    line.and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a_unit_is_counted_with_what_is_below_it_and_without_its_neighbours() {
    let _alone = alone();
    let Some(mut counters) = counters(&EVENTS) else { return };
    let cgroups = Cgroups::new();
    let (Some(ours), Some(idle)) = (Unit::of(&cgroups, "counted"), Unit::of(&cgroups, "idle"))
    else {
        return;
    };
    let below = ours.folder().join("below");
    fs::create_dir(&below).expect("the cgroup is ours");
    let mut worker = ours.process("share a cpu");
    let mut lower = ours.process_in(&below, "spin in a function");
    let neighbour = idle.process("spin");
    worker.asleep();
    lower.asleep();
    neighbour.asleep();

    watch(&mut counters, &[ours.folder(), idle.folder()]);
    assert_eq!(counters.left_out(), 0);
    assert_eq!(counters.read(), BTreeMap::new(), "nobody has run yet");
    let books = |worker: &crate::unit::Process, lower: &crate::unit::Process| {
        let (one, other) = (worker.books(), lower.books());
        (
            one.voluntary + one.involuntary + other.voluntary + other.involuntary,
            usage_us(ours.folder()),
        )
    };
    let before = books(&worker, &lower);
    worker.begin();
    lower.begin();
    worker.end();
    lower.end();
    worker.asleep();
    lower.asleep();
    let after = books(&worker, &lower);
    let counted = row(&mut counters, ours.folder()).expect("it ran");
    near("time on a CPU, us", counted[0] / 1000, after.1 - before.1, 0.03);
    near("context switches", counted[1], after.0 - before.0, 0.03);
    assert!(counted[0] > 1_000_000_000, "it had a second of a CPU at least");
    assert_eq!(row(&mut counters, idle.folder()), None, "the neighbour slept all the time");

    // An agent reads every few seconds: sums over readings are what one reading at the end would say.
    let steps: Vec<u64> =
        (0..5).filter_map(|_| Some(row(&mut counters, ours.folder())?[0])).collect();
    assert!(steps.iter().all(|step| *step == counted[0]), "nobody ran: {steps:?}");
    drop((worker, lower));
    fs::remove_dir(&below).expect("its process has been waited for");
}

#[test]
fn a_unit_that_is_started_again_goes_on_where_it_was() {
    let _alone = alone();
    let Some(mut counters) = counters(&EVENTS) else { return };
    let cgroups = Cgroups::new();
    let Some(unit) = Unit::of(&cgroups, "again") else { return };
    let mut process = unit.process("sleep");
    watch(&mut counters, &[unit.folder()]);
    process.run();
    process.asleep();
    let first = row(&mut counters, unit.folder()).expect("it ran");
    drop(process);
    fs::remove_dir(unit.folder()).expect("its process has been waited for");
    fs::create_dir(unit.folder()).expect("it was ours");

    watch(&mut counters, &[unit.folder()]);
    let mut process = unit.process("sleep");
    process.run();
    process.asleep();
    let second = row(&mut counters, unit.folder()).expect("it ran");
    // It sleeps twenty times, and leaves its CPU each time.
    assert!(second[1] >= first[1] + 20, "{first:?}, then {second:?}");
    watch(&mut counters, &[]);
    assert_eq!(counters.read(), BTreeMap::new(), "nobody is watched any more");
}

#[test]
fn descriptors_have_a_bound_and_units_are_counted_whole_or_not_at_all() {
    let _alone = alone();
    let Some(mut counters) = counters(&[Event::TASK_CLOCK; 8]) else { return };
    let cgroups = Cgroups::new();
    let Some(top) = Unit::of(&cgroups, "bound") else { return };
    let open = || fs::read_dir("/proc/self/fd").expect("proc is mounted").count();
    let before = open();
    let folders: BTreeSet<PathBuf> =
        (0..300).map(|number| top.folder().join(number.to_string())).collect();
    folders.iter().for_each(|folder| fs::create_dir(folder).expect("the cgroup is ours"));
    counters.watch(&folders);
    let used = open() - before;
    let left_out = counters.left_out();
    counters.watch(&BTreeSet::new());
    let after = open();
    folders.iter().for_each(|folder| fs::remove_dir(folder).expect("it is empty"));
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
    println!("{used} descriptors, {left_out} of 300 units left out, {cpus} CPUs");
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let most = (limit.expect("a limit").0 / 4).min(ebpf::limits::COUNTER_DESCRIPTORS_MAX as u64);
    assert!(used as u64 <= most && left_out > 0, "a bound was reached: {used} of {most}");
    assert_eq!(after, before, "nothing is kept for nobody");
}

#[test]
fn a_machine_without_counters_says_so_and_one_with_them_knows_how_fast_it_is() {
    let _alone = alone();
    let events = [Event::INSTRUCTIONS, Event::CYCLES, Event::CACHE_REFERENCES, Event::CACHE_MISSES];
    let mut counters = Counters::load(&events);
    let cgroups = Cgroups::new();
    let Some(unit) = Unit::of(&cgroups, "hardware") else { return };
    watch(&mut counters, &[unit.folder()]);
    let mut process = unit.process("spin in a function");
    process.run();
    let rows: Vec<_> = counters.read().into_values().collect();
    match counters.status() {
        Status::Running => {
            let [Some(instructions), Some(cycles), ..] = rows[0][..] else {
                return skipped(&format!("only some counters: {rows:?}"));
            };
            let each = instructions as f64 / cycles as f64;
            println!("{instructions} instructions, {cycles} cycles, {each:.2} each");
            assert!((0.05..10.0).contains(&each), "no processor does {each} instructions a cycle");
        }
        Status::Unsupported(reason) => {
            assert!(rows.is_empty(), "not measured is not zero: {rows:?}");
            let kind = Path::new("/sys/bus/event_source/devices/cpu");
            assert!(
                !kind.exists() || reason.contains("never free") || reason.contains("CAP_PERFMON"),
                "{reason}"
            );
            assert!(reason.contains("instructions") || reason.contains("never free"), "{reason}");
            println!("unsupported: {reason}");
        }
        status => panic!("{status}"),
    }
}
