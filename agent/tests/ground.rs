//! What happens to every owner of a fabric, and what must not follow from it: nothing runs that should not, and nothing
//! stops that should not.
//!
//! Real agents, each in a machine of namespaces on one switch. Each unit writes a line when it starts, into a file that
//! all machines share, and is seen in the kernel's list of processes for as long as it runs. So what the agents say is
//! not asked: a unit that ended and came back is another process, and a start that was over before anybody looked has
//! left its line.
//!
//! Each story prints a line with its figures. `make test` tells them with few rounds, `make test-ground` with ten
//! (`ROUNDS=`).

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::api::{JobState, JobView};
use fabric::job::{Guarantee, JobSpec};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};
use testbed::netns::wait_until;
use testbed::{Lab, Machine, shown, weftd};

/// How often each thing happens, in the environment of this program.
const ROUNDS: &str = "WEFT_GROUND_ROUNDS";
/// Names the fabric that a unit belongs to, in its environment.
const MARK: &str = "GROUND";
/// Jobs of each fabric. Each has a slot for each machine.
const JOBS: [&str; 4] = ["ash", "birch", "cedar", "dogwood"];
/// What was decided wrongly shows within this, in most cases.
const REST: Duration = Duration::from_secs(8);
/// And within this in all: longer than anything waits for a member that is away.
const LONG_REST: Duration = Duration::from_secs(35);
/// A pulled cable is put back after this.
const UNPLUGGED: [Duration; 2] = [Duration::from_secs(16), Duration::from_secs(8)];
/// An agent is away for this long.
const AWAY: Duration = Duration::from_secs(13);
/// A node that was removed runs nothing after this.
const REMOVED: Duration = Duration::from_secs(30);
/// Whoever looks twice within this sees the same.
const LOOK: Duration = Duration::from_millis(200);

/// One story at a time: agents that have no turn look like agents that are gone.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rounds(few: usize) -> usize {
    std::env::var(ROUNDS).ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

/// A running unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Unit {
    slot: String,
    epoch: String,
    node: String,
    /// As the machine that runs the test counts.
    pid: u32,
}

/// A start that was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    slot: String,
    epoch: String,
    node: String,
}

/// A fabric, and all that it runs.
struct Ground<'a> {
    lab: &'a Lab,
    machines: Vec<Machine>,
    starts: PathBuf,
}

impl<'a> Ground<'a> {
    /// A fabric of so many machines, each with a unit of each job.
    fn begin(lab: &'a Lab, machines: usize) -> Self {
        let starts = lab.folder().join("starts");
        fs::write(&starts, "").expect("a file for starts");
        let ground = Self { lab, machines: lab.fabric(machines), starts };
        for name in JOBS {
            ground.machines[0].submit(&ground.job(name, ""));
        }
        let running = ground.settled();
        assert_eq!(running.len(), JOBS.len() * machines);
        ground
    }

    /// A job with a slot for each machine.
    fn job(&self, name: &str, more: &str) -> JobSpec {
        let script = format!(
            "echo \"$WEFT_JOB/$WEFT_SLOT $WEFT_EPOCH $WEFT_NODE\" >> {}; exec sleep 100000",
            self.starts.display()
        );
        let text = format!(
            "name = \"{name}\"\ncount = {}\n\
             [task]\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n\
             user = \"root\"\nstop_timeout = \"2s\"\n\
             [task.env]\n{MARK} = \"{}\"\n\
             [task.sandbox]\nenabled = false\n\
             [resources]\ncpu = 0.1\nmemory = \"8MiB\"\n{more}\n",
            self.machines.len(),
            self.starts.display(),
        );
        fabric::job::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// What runs now, by the kernel's list.
    fn units(&self) -> BTreeSet<Unit> {
        let mark = format!("{MARK}={}", self.starts.display());
        let processes = fs::read_dir("/proc").expect("processes");
        let unit = |pid: u32| {
            // It may be gone by now.
            let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let variables: Vec<&str> =
                environ.split(|byte| *byte == 0).filter_map(|v| str::from_utf8(v).ok()).collect();
            let of = |name: &str| {
                let value = variables.iter().find_map(|v| v.strip_prefix(name)?.strip_prefix('='));
                value.map(str::to_owned)
            };
            variables.contains(&&*mark).then_some(())?;
            let slot = format!("{}/{}", of("WEFT_JOB")?, of("WEFT_SLOT")?);
            Some(Unit { slot, epoch: of("WEFT_EPOCH")?, node: of("WEFT_NODE")?, pid })
        };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(unit).collect()
    }

    fn units_on(&self, node: &str) -> usize {
        self.units().iter().filter(|unit| unit.node == node).count()
    }

    /// Every start so far.
    fn starts(&self) -> Vec<Start> {
        let text = fs::read_to_string(&self.starts).expect("the file for starts");
        let start = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            let mut next = || words.next().expect("a start is three words");
            Start { slot: next(), epoch: next(), node: next() }
        };
        text.lines().map(start).collect()
    }

    /// Waits until every job has what it wants and no more, by everybody's word and by the kernel's list.
    fn settled(&self) -> BTreeSet<Unit> {
        self.settled_of(&self.machines)
    }

    fn settled_of(&self, members: &[Machine]) -> BTreeSet<Unit> {
        for machine in members {
            machine.wait_alive(members.len());
        }
        wait_until("what runs is what is wanted", || {
            let names: Vec<&str> = members.iter().map(|machine| machine.name.as_str()).collect();
            let of_members = |unit: &Unit| names.contains(&unit.node.as_str());
            let before: BTreeSet<Unit> = self.units().into_iter().filter(of_members).collect();
            for machine in members {
                for name in JOBS {
                    let view: JobView = machine.try_get(&format!("/v1/jobs/{name}")).ok()?;
                    let said: BTreeSet<(String, String, String)> = machine
                        .live(name)
                        .into_iter()
                        .map(|alloc| {
                            let slot = format!("{name}/{}", alloc.id.slot.index);
                            (slot, alloc.id.epoch.to_string(), alloc.node_name)
                        })
                        .collect();
                    let runs: BTreeSet<(String, String, String)> = before
                        .iter()
                        .filter(|unit| unit.slot.split('/').next() == Some(name))
                        .map(|unit| (unit.slot.clone(), unit.epoch.clone(), unit.node.clone()))
                        .collect();
                    let exact = view.healthy == view.wanted && said.len() as u32 == view.wanted;
                    if !exact || said != runs {
                        return None;
                    }
                }
            }
            let after: BTreeSet<Unit> = self.units().into_iter().filter(of_members).collect();
            (after == before).then_some(before)
        })
    }

    fn note(&self) -> Note {
        Note { units: self.units(), starts: self.starts().len() }
    }

    /// What has ended and what was started since.
    fn since(&self, note: &Note) -> (Vec<Unit>, Vec<Start>) {
        let now = self.units();
        let ended = note.units.difference(&now).cloned().collect();
        (ended, self.starts().split_off(note.starts))
    }

    /// Removes a node from the fabric, as a person would.
    fn remove(&self, name: &str) {
        let member = &self.machines[0];
        // A fabric that has just lost a voter says no for a moment.
        wait_until(&format!("{name} may be removed"), || {
            let Some(weft) = weft() else {
                let path = format!("/v1/nodes/{name}");
                let nothing = serde_json::Value::Null;
                return member.tell::<serde_json::Value>("DELETE", &path, &nothing).ok().map(drop);
            };
            let command = |words: &[&str]| {
                let mut command = Command::new(&weft);
                command.arg("--socket").arg(member.socket()).args(["node", name, "remove"]);
                command.args(words).output().expect("weft")
            };
            let knows_now = shown(&command(&["--help"])).contains("--now");
            let words: &[&str] = if knows_now { &["--yes", "--now"] } else { &["--yes"] };
            let output = command(words);
            if !output.status.success() {
                println!("weft node {name} remove: {}", shown(&output));
            }
            output.status.success().then_some(())
        });
    }
}

/// A moment to compare with.
struct Note {
    units: BTreeSet<Unit>,
    starts: usize,
}

/// The command line, where it was built with the agent.
fn weft() -> Option<PathBuf> {
    let path = weftd().with_file_name("weft");
    path.exists().then_some(path)
}

/// How all agents are restarted.
#[derive(Clone, Copy, Debug)]
enum Restart {
    /// All are ended; then one after the other is started, two seconds apart.
    OneByOne,
    /// The next one is ended as soon as the one before answers again.
    InWaves,
    /// All are ended, and started together a little later.
    Together,
    /// All are killed, and started together at once.
    Killed,
}

const RESTARTS: [Restart; 4] =
    [Restart::OneByOne, Restart::InWaves, Restart::Together, Restart::Killed];

impl Restart {
    fn of(self, machines: &mut [Machine]) {
        match self {
            Restart::OneByOne => {
                machines.iter_mut().for_each(Machine::end_agent);
                sleep(Duration::from_millis(1500));
                for machine in machines.iter_mut() {
                    machine.launch_agent();
                    sleep(Duration::from_secs(2));
                }
            }
            Restart::InWaves => {
                for machine in machines.iter_mut() {
                    machine.end_agent();
                    sleep(Duration::from_millis(500));
                    machine.start_agent();
                }
            }
            Restart::Together => {
                machines.iter_mut().for_each(Machine::end_agent);
                sleep(Duration::from_millis(1500));
                machines.iter_mut().for_each(Machine::launch_agent);
            }
            Restart::Killed => {
                machines.iter_mut().for_each(Machine::kill_agent);
                machines.iter_mut().for_each(Machine::launch_agent);
            }
        }
        machines.iter_mut().for_each(Machine::wait_for_agent);
    }
}

/// Restarts all agents in one of these ways after the other, another one first each time: which units have ended, and which were started.
fn restarted(
    ground: &mut Ground,
    rounds: usize,
    ways: &[Restart],
    rest: impl Fn(&Ground, usize),
) -> (Vec<Unit>, Vec<Start>) {
    let (mut ended, mut started) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let note = ground.note();
        ground.machines.rotate_left(usize::from(round > 0));
        let restart = ways[round % ways.len()];
        restart.of(&mut ground.machines);
        rest(ground, round);
        let (gone, new) = ground.since(&note);
        if !gone.is_empty() || !new.is_empty() {
            println!("round {round}, {restart:?}: ended {gone:?}, started {new:?}");
        }
        ended.extend(gone);
        started.extend(new);
    }
    (ended, started)
}

#[test]
fn a_restart_of_all_agents_starts_and_ends_nothing() {
    let _turn = turn();
    let Some(lab) = Lab::new("restarts") else { return };
    let mut ground = Ground::begin(&lab, 3);
    let slots = ground.units().len();
    let rounds = rounds(2);
    let (ended, started) = restarted(&mut ground, rounds, &RESTARTS, |ground, round| {
        sleep(if round + 1 == rounds { LONG_REST } else { REST });
        ground.settled();
    });
    println!(
        "ground: {rounds} restarts of all three agents, {slots} slots: {} units ended, {} started",
        ended.len(),
        started.len()
    );
    assert!(ended.is_empty(), "ended: {ended:?}");
    assert!(started.is_empty(), "started: {started:?}");
}

/// At-most-one work: the agents are voters too, and what they have granted outlives them, also when they are killed.
#[test]
fn a_restart_of_all_agents_takes_no_lease_away() {
    let _turn = turn();
    let Some(lab) = Lab::new("leases") else { return };
    let mut ground = Ground::begin(&lab, 3);
    let mut leased = ground.job("elm", "");
    leased.guarantee = Guarantee::AtMostOne;
    ground.machines[0].submit(&leased);
    let wanted = leased.count;
    let is_up = |ground: &Ground| {
        ground.machines.iter().all(|machine| {
            let view: Option<JobView> = machine.try_get("/v1/jobs/elm").ok();
            view.is_some_and(|view| view.healthy == wanted && view.running == wanted)
        })
    };
    wait_until("the leased job runs", || is_up(&ground).then_some(()));
    let rounds = rounds(2);
    let ways = [Restart::Killed, Restart::Together, Restart::InWaves];
    let (ended, started) = restarted(&mut ground, rounds, &ways, |ground, _| {
        // Longer than a lease, and than what the guard waits for.
        sleep(Duration::from_secs(15));
        wait_until("the leased job runs", || is_up(ground).then_some(()));
    });
    println!(
        "ground: {rounds} restarts of all three agents and voters, {wanted} slots under leases: {} units ended, {} started",
        ended.len(),
        started.len()
    );
    assert!(ended.is_empty(), "ended: {ended:?}");
    assert!(started.is_empty(), "started: {started:?}");
}

#[test]
fn a_pulled_cable_ends_nothing_in_a_fabric_of_three() {
    pull_cables(3);
}

#[test]
fn a_pulled_cable_ends_nothing_in_a_fabric_of_two() {
    pull_cables(2);
}

/// Each time another machine loses its cable for a while. It starts nothing, then and when the cable is back, and nobody ends what
/// ran before; what the others start meanwhile goes again.
fn pull_cables(machines: usize) {
    let _turn = turn();
    let Some(lab) = Lab::new(&format!("cables{machines}")) else { return };
    let ground = Ground::begin(&lab, machines);
    let rounds = rounds(1);
    let (mut ended, mut alone, mut copies) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        // The one that founded the fabric comes last.
        let machine = &ground.machines[machines - 1 - round % machines];
        let note = ground.note();
        ground.lab.bridge.plug(&machine.port, false);
        sleep(UNPLUGGED[round % 2]);
        let (early, _) = ground.since(&note);
        ground.lab.bridge.plug(&machine.port, true);
        sleep(REST);
        ground.settled();
        let (gone, new) = ground.since(&note);
        if !gone.is_empty() {
            println!(
                "round {round}, {}: ended {gone:?}, {} of them early",
                machine.name,
                early.len()
            );
        }
        copies += new.len();
        alone.extend(new.into_iter().filter(|start| start.node == machine.name));
        ended.extend(gone);
    }
    println!(
        "ground: {rounds} times the cable of one in {machines} pulled for {} or {} s, {} slots: {} originals ended, \
         {} started by the one that was cut off, {copies} copies started in all",
        UNPLUGGED[1].as_secs(),
        UNPLUGGED[0].as_secs(),
        JOBS.len() * machines,
        ended.len(),
        alone.len(),
    );
    assert!(ended.is_empty(), "ended: {ended:?}");
    assert!(alone.is_empty(), "started by the one that was cut off: {alone:?}");
}

/// Whether the node was there when it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// It runs.
    On,
    /// Its agent is off, its units run.
    AgentOff,
    /// Its power is off.
    PowerOff,
}

#[test]
fn a_removed_node_runs_nothing_of_the_fabric() {
    let _turn = turn();
    let Some(lab) = Lab::new("removed") else { return };
    let mut ground = Ground::begin(&lab, 5);
    let mut left = Vec::new();
    for (index, when) in [(4, When::On), (3, When::AgentOff), (2, When::PowerOff)] {
        let name = ground.machines[index].name.clone();
        match when {
            When::On => {}
            When::AgentOff => ground.machines[index].end_agent(),
            When::PowerOff => ground.machines[index].power_off(),
        }
        let before = ground.starts().len();
        ground.remove(&name);
        let removed = Instant::now();
        match when {
            When::On => {}
            When::AgentOff => ground.machines[index].start_agent(),
            When::PowerOff => {
                ground.machines[index].power_on();
                ground.machines[index].start_agent();
            }
        }
        let counts_from = if when == When::On { removed } else { Instant::now() };
        // Gone at some time, and still gone at the end.
        let mut gone_after = None;
        while counts_from.elapsed() < REMOVED {
            match ground.units_on(&name) {
                0 => gone_after = gone_after.or(Some(counts_from.elapsed())),
                _ => gone_after = None,
            }
            sleep(LOOK);
        }
        let units = ground.units_on(&name);
        let new = ground.starts().split_off(before);
        let new = new.iter().filter(|start| start.node == name).count();
        println!(
            "ground: a node removed while {when:?}: {units} units of the fabric on it after {} s{}, {new} started there; \
             it says {:?}",
            REMOVED.as_secs(),
            gone_after.map_or(String::new(), |after| format!(
                " (none after {:.1} s)",
                after.as_secs_f64()
            )),
            ground.machines[index].status().warnings,
        );
        left.push((when, units, new));
        ground.settled_of(&ground.machines[..index]);
    }
    for (when, units, new) in left {
        assert_eq!((units, new), (0, 0), "units on, and starts on, a node removed while {when:?}");
    }
}

#[test]
fn an_update_that_fits_nowhere_ends_nothing_and_is_taken_back() {
    let _turn = turn();
    let Some(lab) = Lab::new("update") else { return };
    let ground = Ground::begin(&lab, 3);
    let name = JOBS[0];
    let update = "[update]\nauto_revert = true\ndeadline = \"20s\"\nmin_healthy = \"2s\"\n";
    let first = ground.job(name, update);
    ground.machines[0].submit(&first);
    ground.settled();
    let note = ground.note();

    let nowhere = "[placement]\nconstraints = ['labels.rack == \"nowhere\"']";
    let second = ground.machines[1].submit(&ground.job(name, &format!("{update}{nowhere}")));
    let submitted = Instant::now();
    let of_job = |unit: &Unit| unit.slot.split('/').next() == Some(name);
    let wanted = note.units.iter().filter(|unit| of_job(unit)).count();
    let mut least = wanted;
    let taken_back = loop {
        let running = ground.units();
        least = least.min(note.units.intersection(&running).filter(|unit| of_job(unit)).count());
        let view: JobView = ground.machines[2].get(&format!("/v1/jobs/{name}"));
        if view.state == JobState::Reverted && view.spec.placement == first.placement {
            break Some(submitted.elapsed());
        }
        if submitted.elapsed() > Duration::from_secs(90) {
            println!("{name}: {:?}, {:?}", view.state, view.reason);
            break None;
        }
        sleep(LOOK);
    };
    sleep(REST);
    let (ended, started) = ground.since(&note);
    println!(
        "ground: an update that fits nowhere (version {}): {least} of {wanted} ran on at the least, {} ended, {} started; {}",
        second.version,
        ended.len(),
        started.len(),
        taken_back.map_or("not taken back".to_owned(), |after| {
            format!("taken back after {:.0} s", after.as_secs_f64())
        }),
    );
    assert_eq!(least, wanted, "ran on at the least");
    assert!(ended.is_empty() && started.is_empty(), "ended {ended:?}, started {started:?}");
    assert!(taken_back.is_some(), "it is taken back");
    ground.settled();
}

#[test]
fn an_agent_that_is_away_for_a_while_loses_nothing() {
    let _turn = turn();
    let Some(lab) = Lab::new("away") else { return };
    let mut ground = Ground::begin(&lab, 3);
    let rounds = rounds(2);
    let (mut ended, mut started) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let machine = round % ground.machines.len();
        let note = ground.note();
        match round % 2 {
            0 => ground.machines[machine].end_agent(),
            _ => ground.machines[machine].crash_agent(),
        }
        sleep(AWAY);
        ground.machines[machine].start_agent();
        sleep(if round + 1 == rounds { LONG_REST } else { REST });
        ground.settled();
        let (gone, new) = ground.since(&note);
        if !gone.is_empty() || !new.is_empty() {
            println!("round {round}: ended {gone:?}, started {new:?}");
        }
        ended.extend(gone);
        started.extend(new);
    }
    println!(
        "ground: {rounds} times an agent away for {} s, {} slots: {} units ended, {} started",
        AWAY.as_secs(),
        JOBS.len() * ground.machines.len(),
        ended.len(),
        started.len()
    );
    assert!(ended.is_empty(), "ended: {ended:?}");
    assert!(started.is_empty(), "started: {started:?}");
}

/// What a job prints at full speed is bounded on disk, and its last lines can be read while it prints.
#[test]
fn a_job_that_prints_at_full_speed_is_bounded() {
    let _turn = turn();
    let Some(lab) = Lab::new("flood") else { return };
    let Some(weft) = weft() else { return println!("skipped: the command line was not built") };
    let machines = lab.fabric(1);
    let time = Duration::from_secs(3 * rounds(1) as u64);
    // Beside other tests nobody may come to look for a while.
    let bound = if rounds(1) > 1 { 32 << 20 } else { 256 << 20 };
    let text = "name = \"noisy\"\n[task]\ncommand = [\"/usr/bin/yes\", \"prints in a loop\"]\n";
    machines[0].submit(&fabric::job::parse(text).expect("a good job"));
    machines[0].wait_healthy("noisy");
    let folders = || fs::read_dir(machines[0].state.join("alloc")).expect("units").flatten();
    let on_disk = || -> u64 {
        let files = folders().flat_map(|unit| ["stdout", "stderr"].map(|it| unit.path().join(it)));
        files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
    };
    let (begun, mut most, mut longest, mut asked) = (Instant::now(), 0, Duration::ZERO, 0);
    while begun.elapsed() < time {
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            most = most.max(on_disk());
            sleep(Duration::from_millis(1));
        }
        let ask = Instant::now();
        let mut command = Command::new(&weft);
        command.arg("--socket").arg(machines[0].socket()).args(["logs", "noisy", "-n", "3"]);
        let output = command.output().expect("weft");
        longest = longest.max(ask.elapsed());
        asked += 1;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", shown(&output));
        // The last of them may be half printed.
        assert_eq!(said.lines().count(), 3, "{said}");
        assert!(said.lines().all(|line| "prints in a loop".starts_with(line)), "{said}");
    }
    let printed: u64 =
        folders().filter_map(|unit| Some(unit.path().join("stdout").metadata().ok()?.len())).sum();
    const MIB: u64 = 1 << 20;
    println!(
        "ground: a job printed {} MiB in {} s: at most {} MiB on disk; {asked} times asked for its last lines: within {} ms",
        printed / MIB,
        time.as_secs(),
        most.div_ceil(MIB),
        longest.as_millis(),
    );
    assert!(printed > 32 << 20, "it was no flood: {printed} bytes");
    assert!(most <= bound, "{most} bytes on disk");
}
