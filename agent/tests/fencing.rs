//! An at-most-one job against everything that may happen to its holder, on one clock.
//!
//! Real agents, each in a machine of namespaces on one switch. The job's process writes down when it runs:
//! all machines share a folder, and a kernel with one `CLOCK_BOOTTIME`, so what two machines wrote can be
//! compared to the nanosecond. In each round something happens to a machine that holds such a job: it is
//! split off, its agent is stopped for longer than the lease, its plug is pulled, or its agent is killed.
//!
//! `make test` does a few rounds; `make test-fencing` does fifty (`ROUNDS=`), with several jobs and two
//! troubles at a time.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::api::AllocView;
use fabric::job::JobSpec;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::{Lab, Machine};

/// Names the folder for logs in the environment of [`a_task_that_writes_down_when_it_runs`].
const FOLDER: &str = "FENCING_LOGS";
/// In its environment: it does not end when it is asked to.
const STUBBORN: &str = "FENCING_STUBBORN";
/// Rounds of the long test, in the environment of this program.
const ROUNDS: &str = "WEFT_ROUNDS";
/// A job that may run twice: were it not seen to do so in a split, nothing would be seen at all.
const CONTROL: &str = "control";
/// Time between two signs of life.
const BEAT: Duration = Duration::from_millis(20);
/// Signs of life of a process that has come up.
const BEATS_MIN: usize = 5;
/// A job is back within this: lease, stop timeout and drift, a voter that says nothing after its restart,
/// and a busy machine on top.
const PATIENCE: Duration = Duration::from_secs(240);
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

#[test]
fn an_at_most_one_job_survives_its_holder_and_never_runs_twice() {
    let Some(lab) = Lab::new("fence") else { return };
    let story = Story::begin(&lab, 3, 0, 1);
    story.tell(3, 1);
}

/// The long one, only where it is asked for.
#[test]
fn at_most_one_jobs_never_run_twice_over_many_rounds() {
    let rounds = std::env::var(ROUNDS).ok().and_then(|text| text.parse().ok());
    let Some(rounds) = rounds else {
        println!("skipped: {ROUNDS} is not set (make test-fencing)");
        return;
    };
    let Some(lab) = Lab::new("fences") else { return };
    let story = Story::begin(&lab, 4, 3, 4);
    story.tell(rounds, 2);
}

/// Not a test of its own: the task that the others run, where its environment asks for it.
#[test]
fn a_task_that_writes_down_when_it_runs() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    extern "C" fn asked(_: i32) {
        ASKED.store(true, Ordering::Relaxed);
    }
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    // SAFETY: the handler writes one atomic.
    unsafe {
        nix::sys::signal::signal(Signal::SIGTERM, nix::sys::signal::SigHandler::Handler(asked))
    }
    .expect("a handler");
    let of = |name: &str| std::env::var(name).expect("the agent sets it");
    let epoch = of("WEFT_EPOCH");
    let name = [of("WEFT_JOB"), epoch.clone(), of("WEFT_RUN"), of("WEFT_NODE")].join(" ");
    let path = Path::new(&folder).join(name);
    let mut log = File::options().create(true).append(true).open(path).expect("a log");
    let mut write = |line: String| log.write_all(line.as_bytes()).expect("the disk takes it");
    write(format!("start {} {} {epoch}\n", now(), std::process::id()));
    let stubborn = std::env::var_os(STUBBORN).is_some();
    while stubborn || !ASKED.load(Ordering::Relaxed) {
        std::thread::sleep(BEAT);
        write(format!("beat {}\n", now()));
    }
    write(format!("stop {}\n", now()));
    std::process::exit(0);
}

/// `CLOCK_BOOTTIME`, in nanoseconds.
fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the clock");
    Duration::from(time).as_nanos() as u64
}

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It is alone on a switch of its own.
    Split,
    /// Its agent is stopped, and continued when its lease is long over.
    Stopped,
    /// Its plug is pulled, and it comes back.
    PowerCut,
    /// Its agent is killed, and comes back when its lease is long over.
    KilledForLong,
    /// Its agent is killed and started again at once.
    Killed,
}

const TROUBLES: [Trouble; 5] =
    [Trouble::Split, Trouble::Stopped, Trouble::PowerCut, Trouble::KilledForLong, Trouble::Killed];

/// From the first to the last sign of life of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    epoch: u64,
    run: u32,
    node: String,
    start: u64,
    end: u64,
    beats: usize,
}

/// Machines, jobs, and what has happened so far.
struct Story<'a> {
    lab: &'a Lab,
    /// Those that run work first, then the witnesses.
    machines: Vec<Machine>,
    workers: usize,
    jobs: Vec<String>,
    logs: PathBuf,
}

impl<'a> Story<'a> {
    /// A fabric whose voters are complete and whose jobs run.
    fn begin(lab: &'a Lab, workers: usize, witnesses: usize, jobs: usize) -> Self {
        let machines = lab.fabric_with(workers + witnesses, |machine| {
            machine.witness = usize::from(machine.number) > workers;
        });
        let logs = lab.folder().join("logs");
        fs::create_dir(&logs).expect("a folder for logs");
        for machine in &machines[..workers] {
            lab.bridge.netns().exec(&format!("ip link add {} type bridge", aside(machine)));
            lab.bridge.netns().exec(&format!("ip link set {} up", aside(machine)));
        }
        let jobs: Vec<String> = (0..jobs).map(|number| format!("single-{number}")).collect();
        let mut story = Self { lab, machines, workers, jobs, logs };
        story.wait_for_voters();
        for (number, job) in story.jobs.iter().enumerate() {
            story.observer(&[]).submit(&story.spec(job, "at-most-one", number % 2 == 1));
        }
        story.observer(&[]).submit(&story.spec(CONTROL, "at-least", false));
        story.wait_settled();
        story
    }

    fn spec(&self, job: &str, guarantee: &str, stubborn: bool) -> JobSpec {
        let program = std::env::current_exe().expect("this program");
        let stubborn = if stubborn { format!("{STUBBORN} = \"1\"\n") } else { String::new() };
        let text = format!(
            "name = \"{job}\"\nguarantee = \"{guarantee}\"\n\
             [task]\ncommand = [{program:?}, \"a_task_that_writes_down_when_it_runs\", \"--exact\"]\n\
             user = \"root\"\nstop_timeout = \"{}s\"\n\
             [task.env]\n{FOLDER} = {:?}\n{stubborn}\
             [task.sandbox]\nenabled = false\n\
             [resources]\ncpu = 0.1\n",
            STOP_TIMEOUT.as_secs(),
            self.logs,
        );
        fabric::job::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// `rounds` times something happens to a holder, `at_once` of them at a time.
    fn tell(mut self, rounds: usize, at_once: usize) {
        let mut done: BTreeMap<String, usize> = BTreeMap::new();
        let mut next = 0;
        let mut longest_gap = Duration::ZERO;
        while next < rounds {
            let holders = self.holders();
            let busy: BTreeSet<usize> = holders.values().map(|(machine, _)| *machine).collect();
            // Another machine first each time, where there is a choice.
            let mut hit: Vec<usize> = busy.into_iter().collect();
            let turn = next % hit.len();
            hit.rotate_left(turn);
            hit.truncate(at_once.min(rounds - next));
            let troubles: Vec<(usize, Trouble)> = hit
                .iter()
                .enumerate()
                .map(|(position, &machine)| (machine, TROUBLES[(next + position) % TROUBLES.len()]))
                .collect();
            let begun = now();
            for &(machine, trouble) in &troubles {
                self.strike(machine, trouble);
            }
            for (job, (machine, epoch)) in &holders {
                let trouble = troubles.iter().find(|(hit, _)| hit == machine);
                let Some((_, trouble)) = trouble else { continue };
                let life = self.wait_back(job, *trouble, *epoch, begun);
                let name = &self.machines[*machine].name;
                print!("round {}: {job}: {trouble:?} on {name}: ", next + 1);
                if life.epoch == *epoch {
                    println!("kept");
                    continue;
                }
                let gap = self.gap_before(job, &life);
                longest_gap = longest_gap.max(gap);
                let (node, after, gap) = (&life.node, life.epoch, gap.as_secs_f64());
                println!("epoch {epoch}, then {after} on {node}, {gap:.2} s without");
            }
            if troubles.iter().any(|(_, trouble)| *trouble == Trouble::Split) {
                self.wait("both sides of the split run the job that may run twice", || {
                    overlap(&self.lives(CONTROL))
                });
            }
            for &(machine, trouble) in &troubles {
                self.mend(machine, trouble);
                *done.entry(format!("{trouble:?}")).or_default() += 1;
            }
            next += troubles.len();
            self.wait_settled();
            self.check();
        }
        println!("{rounds} rounds: {done:?}; longest time without a job {longest_gap:?}");
        self.measure_guards();
        self.check_epochs_of_the_api();
    }

    fn strike(&mut self, machine: usize, trouble: Trouble) {
        let machine = &mut self.machines[machine];
        match trouble {
            Trouble::Split => {
                let line = format!("ip link set {} master {}", machine.port, aside(machine));
                self.lab.bridge.netns().exec(&line);
            }
            Trouble::Stopped => machine.stop_agent(),
            Trouble::PowerCut => machine.power_off(),
            Trouble::KilledForLong => machine.kill_agent(),
            Trouble::Killed => {
                machine.kill_agent();
                machine.start_agent();
            }
        }
    }

    fn mend(&mut self, machine: usize, trouble: Trouble) {
        let machine = &mut self.machines[machine];
        match trouble {
            Trouble::Split => {
                self.lab.bridge.netns().exec(&format!("ip link set {} master br0", machine.port));
            }
            Trouble::Stopped => machine.continue_agent(),
            Trouble::PowerCut => {
                machine.power_on();
                machine.start_agent();
            }
            Trouble::KilledForLong => machine.start_agent(),
            Trouble::Killed => {}
        }
    }

    /// A machine that is asked what it sees: the last one that nothing happens to.
    fn observer(&self, struck: &[usize]) -> &Machine {
        let last = (0..self.machines.len()).rev().find(|number| !struck.contains(number));
        &self.machines[last.expect("one is well")]
    }

    /// Which machine runs each job, and its epoch.
    fn holders(&self) -> BTreeMap<String, (usize, u64)> {
        let observer = self.observer(&[]);
        let of = |job: &String| {
            let live = observer.live(job);
            let [AllocView { id, node_name, .. }] = live.as_slice() else { panic!("{live:?}") };
            let machine = self.machines.iter().position(|machine| machine.name == *node_name);
            (job.clone(), (machine.expect("one of ours"), id.epoch))
        };
        self.jobs.iter().map(of).collect()
    }

    /// Waits until every machine sees all others, and each job runs once and says so itself.
    fn wait_settled(&mut self) {
        let all = self.machines.len();
        for machine in &self.machines {
            machine.wait_alive(all);
        }
        let (observer, jobs) = (self.observer(&[]), &self.jobs);
        let settled = || {
            jobs.iter().all(|job| {
                let live = observer.live(job);
                let [alloc] = live.as_slice() else { return false };
                let fresh = now() - Duration::from_secs(1).as_nanos() as u64;
                self.lives(job).iter().any(|life| {
                    life.epoch == alloc.id.epoch && life.node == alloc.node_name && life.end > fresh
                })
            })
        };
        self.wait("all jobs run", || settled().then_some(()));
    }

    fn wait_for_voters(&self) {
        let wanted = if self.machines.len() >= 5 { 5 } else { 3 };
        self.wait(&format!("{wanted} vote"), || (voters(&self.machines) >= wanted).then_some(()));
    }

    /// Waits until a job that ran with `epoch` has signs of life from after the trouble.
    fn wait_back(&self, job: &str, trouble: Trouble, epoch: u64, begun: u64) -> Life {
        let back = |life: &Life| match trouble {
            // It may have been kept, or was given to another.
            Trouble::Killed => life.end > begun + Duration::from_secs(2).as_nanos() as u64,
            _ => life.epoch > epoch && life.beats >= BEATS_MIN,
        };
        self.wait(&format!("{job} is back after {trouble:?}"), || {
            self.lives(job).into_iter().find(back)
        })
    }

    /// Time without a sign of life before this one began.
    fn gap_before(&self, job: &str, life: &Life) -> Duration {
        let lives = self.lives(job);
        let before = lives.iter().filter(|other| other.start < life.start).map(|other| other.end);
        before
            .max()
            .map_or(Duration::ZERO, |end| Duration::from_nanos(life.start.saturating_sub(end)))
    }

    /// What the processes of a job wrote down, by their start.
    fn lives(&self, job: &str) -> Vec<Life> {
        let mut lives = Vec::new();
        for entry in fs::read_dir(&self.logs).expect("the logs").flatten() {
            let name = entry.file_name().into_string().expect("a name of ours");
            let words: Vec<&str> = name.split(' ').collect();
            let [of, epoch, run, node] = words[..] else { panic!("{name:?}") };
            if of != job {
                continue;
            }
            let text = fs::read_to_string(entry.path()).expect("a log");
            // The last line may be half written.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let times: Vec<u64> = whole
                .lines()
                .map(|line| line.split(' ').nth(1).and_then(|time| time.parse().ok()))
                .map(|time| time.unwrap_or_else(|| panic!("{name:?}: {text}")))
                .collect();
            let (Some(&start), Some(&end)) = (times.first(), times.last()) else { continue };
            assert_eq!(whole.matches("start").count(), 1, "{name:?} ran twice: {text}");
            let (epoch, run) = (epoch.parse().expect("a number"), run.parse().expect("a number"));
            lives.push(Life { epoch, run, node: node.into(), start, end, beats: times.len() - 1 });
        }
        lives.sort_by_key(|life| life.start);
        lives
    }

    /// No two processes of a job at one time, and epochs only grow.
    fn check(&self) {
        for job in &self.jobs {
            let lives = self.lives(job);
            if let Some((earlier, later)) = overlap(&lives) {
                panic!("{job} ran twice at one time:\n{earlier:?}\n{later:?}");
            }
            for pair in lives.windows(2) {
                let (was, is) = (&pair[0], &pair[1]);
                let grows = was.epoch < is.epoch
                    || (was.epoch == is.epoch && was.node == is.node && was.run < is.run);
                assert!(grows, "{job}: the epoch did not grow:\n{was:?}\n{is:?}");
            }
        }
    }

    /// What the API says of the epoch is what the process was given.
    fn check_epochs_of_the_api(&self) {
        for (job, (machine, epoch)) in self.holders() {
            let lives = self.lives(&job);
            let last = lives.last().expect("it ran");
            assert_eq!((last.epoch, &last.node), (epoch, &self.machines[machine].name), "{job}");
        }
    }

    fn measure_guards(&self) {
        for machine in &self.machines[..self.workers] {
            let found = machine.shell(
                "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = weftd ] \
                 && tr '\\0' ' ' <$p/cmdline | grep -q ' guard --dir ' \
                 && grep -h '^Rss\\|^Pss:\\|^Private_Dirty' $p/smaps_rollup | tr -s ' \\n' ' '; done; true",
            );
            println!("guard on {}: {}", machine.name, found.trim());
        }
    }

    fn wait<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = condition() {
                return value;
            }
            if Instant::now() > deadline {
                let lives: Vec<_> = self.jobs.iter().map(|job| (job, self.lives(job))).collect();
                panic!("waited in vain until {what}\n{lives:#?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Two lives, in the order of their starts, of which the second began before the first was over.
fn overlap(lives: &[Life]) -> Option<(Life, Life)> {
    lives.iter().enumerate().find_map(|(position, later)| {
        let earlier = lives[..position].iter().find(|earlier| earlier.end >= later.start)?;
        Some((earlier.clone(), later.clone()))
    })
}

/// The switch that a machine is put on to be alone.
fn aside(machine: &Machine) -> String {
    format!("aside{}", machine.number)
}

/// Machines that said that they vote.
fn voters(machines: &[Machine]) -> usize {
    machines.iter().filter(|machine| machine.log().contains("a voter")).count()
}
