//! A unit manager that behaves: it starts slowly, crash-loops, refuses, ignores stop until it kills,
//! and keeps its units when the agent dies.
//!
//! How a unit behaves is written in its job, in the environment variable [`BEHAVES`], so that the spec
//! carries its behaviour through the fabric and a new version can behave differently.

use fabric::clock::Instant;
use fabric::cpuset::CpuSet;
use fabric::id::AllocId;
use fabric::io::{Launch, UnitEvent, UnitFound};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// The environment variable that says how a unit behaves, for example `starts=2s,exits=10s`.
pub const BEHAVES: &str = "BEHAVES";

/// How a unit of a job behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// From the command to `prepared`; without one, a few milliseconds.
    pub prepares: Option<Duration>,
    /// From the command to `active`; without one, up to half a second.
    pub starts: Option<Duration>,
    /// It exits with a failure after running this long.
    pub exits: Option<Duration>,
    /// The unit manager refuses to start it.
    pub refuses: bool,
    /// It outlives its stop timeout and is killed.
    pub ignores_stop: bool,
    /// Its health check fails.
    pub unhealthy: bool,
    /// It gets other CPUs than it was promised.
    pub misplaced: bool,
}

/// A text that says nothing about how a unit behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotABehaviour(pub String);

impl std::fmt::Display for NotABehaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} is not a behaviour: write well, prepares=5s, starts=2s, exits=10s, refuses, ignores-stop, unhealthy or misplaced",
            self.0
        )
    }
}

impl std::error::Error for NotABehaviour {}

impl Behaviour {
    /// A unit that starts, runs until it is stopped, and then ends.
    pub const WELL: Behaviour = Behaviour {
        prepares: None,
        starts: None,
        exits: None,
        refuses: false,
        ignores_stop: false,
        unhealthy: false,
        misplaced: false,
    };

    /// Reads the comma-separated list in [`BEHAVES`].
    pub fn parse(text: &str) -> Result<Self, NotABehaviour> {
        let mut behaviour = Self::WELL;
        for word in text.split(',').map(str::trim) {
            let refuse = || NotABehaviour(word.into());
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let duration = || fabric::job::duration::parse(value).map_err(|_| refuse()).map(Some);
            match name {
                "" | "well" => {}
                "prepares" => behaviour.prepares = duration()?,
                "starts" => behaviour.starts = duration()?,
                "exits" => behaviour.exits = duration()?,
                "refuses" => behaviour.refuses = true,
                "ignores-stop" => behaviour.ignores_stop = true,
                "unhealthy" => behaviour.unhealthy = true,
                "misplaced" => behaviour.misplaced = true,
                _ => return Err(refuse()),
            }
        }
        Ok(behaviour)
    }

    /// How units of this task behave.
    pub fn of(task: &fabric::job::Task) -> Self {
        task.env.get(BEHAVES).and_then(|text| Self::parse(text).ok()).unwrap_or(Self::WELL)
    }

    /// Whether a unit gets to run and keeps running.
    pub fn is_sound(&self) -> bool {
        self.exits.is_none() && !self.refuses && !self.unhealthy && !self.misplaced
    }
}

/// How one machine's unit manager does right now, whatever the units are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temper {
    /// As it should.
    #[default]
    Well,
    /// Starting takes ten seconds and more.
    Slow,
    /// It refuses every start.
    Refusing,
    /// Everything it starts dies after a moment.
    CrashLooping,
}

/// How far a unit has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// The command came.
    Starting,
    /// It is active.
    Running,
    /// It was asked to end.
    Stopping,
    /// It ended while no agent was there to hear it.
    Ended,
}

/// A unit that the unit manager has.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The command that made it.
    pub launch: Launch,
    /// How far it has come.
    pub state: UnitState,
    /// Main process.
    pub pid: u32,
    /// Where it runs now.
    pub cpus: CpuSet,
    /// When its state last changed, in world time.
    pub since: Duration,
    /// Ends it when its lease runs out.
    pub guard: Option<Guard>,
    /// Tells this life from an earlier one of the same allocation.
    life: u64,
    /// How it ended, once it did.
    ending: Option<UnitEvent>,
}

impl Unit {
    /// Whether it holds its cores, memory, devices and ports.
    pub fn is_there(&self) -> bool {
        self.state != UnitState::Ended
    }
}

/// A process beside the agent that knows when the lease of a unit runs out, on the machine's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Then the unit is asked to stop.
    pub until: Instant,
    /// So much later it is killed.
    pub stop_timeout: Duration,
    /// It was asked: no renewal helps any more.
    asked: bool,
}

impl Guard {
    /// When it kills.
    pub fn kill_at(&self) -> Instant {
        self.until + self.stop_timeout
    }

    fn due(&self) -> Instant {
        if self.asked { self.kill_at() } else { self.until }
    }
}

/// What a unit does next, if nobody intervenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What it needs is ready.
    Prepared,
    /// It becomes active.
    Active,
    /// It exits by itself.
    Exit,
    /// It has ended as asked.
    End,
    /// It is killed because it outlived its stop timeout.
    Kill,
}

/// A step that is due after a while.
#[derive(Clone, Debug)]
pub struct NextStep {
    /// From now.
    pub after: Duration,
    /// Which unit.
    pub alloc: AllocId,
    /// Which of its lives.
    pub life: u64,
    /// What happens.
    pub step: Step,
}

/// One machine's unit manager. It survives the agent; [`UnitManager::power_off`] ends it.
#[derive(Debug)]
pub struct UnitManager {
    /// How it does.
    pub temper: Temper,
    /// Starting and ending always take the same time: for scenarios.
    pub steady: bool,
    /// By allocation; the unit's name is made from nothing else.
    pub units: BTreeMap<AllocId, Unit>,
    /// What the agent remembers of each allocation: the latest run and what was last said of it.
    desk: BTreeMap<AllocId, (u32, Option<UnitEvent>)>,
    /// What is being made ready for a start, or is ready. The agent's own, as the desk is.
    preparations: BTreeMap<AllocId, Preparation>,
    /// Starts that wait for an earlier run to end.
    waiting: BTreeMap<AllocId, Launch>,
    random: ChaCha8Rng,
    lives: u64,
}

impl UnitManager {
    /// A unit manager without units.
    pub fn new(random: ChaCha8Rng) -> Self {
        Self {
            temper: Temper::Well,
            steady: false,
            units: BTreeMap::new(),
            desk: BTreeMap::new(),
            preparations: BTreeMap::new(),
            waiting: BTreeMap::new(),
            random,
            lives: 0,
        }
    }

    /// Makes ready what a run needs. One that was started before needs nothing.
    pub fn prepare(&mut self, launch: &Launch, disk_refuses: bool) -> Prepare {
        let (alloc, run) = (launch.alloc.clone(), launch.run);
        if !self.is_new(launch) {
            return Prepare::Done;
        }
        match self.preparations.get(&alloc) {
            Some(known) if known.run == run && known.is_ready => return Prepare::Done,
            Some(known) if known.run == run => return Prepare::UnderWay,
            _ if disk_refuses => {
                return Prepare::Refused { reason: "no space left on device".into() };
            }
            _ => {}
        }
        let usual = self.taking(1..20);
        let after = Behaviour::of(&launch.task).prepares.unwrap_or(usual);
        self.lives += 1;
        let life = self.lives;
        self.preparations.insert(alloc.clone(), Preparation { run, life, is_ready: false });
        Prepare::Begun(NextStep { after, alloc, life, step: Step::Prepared })
    }

    /// Whether this run has not been started before.
    pub fn is_new(&self, launch: &Launch) -> bool {
        self.desk.get(&launch.alloc).is_none_or(|(run, _)| *run < launch.run)
    }

    /// Whether all is ready for this run.
    pub fn is_prepared(&self, launch: &Launch) -> bool {
        let known = self.preparations.get(&launch.alloc);
        known.is_some_and(|known| known.run == launch.run && known.is_ready)
    }

    /// Starts a unit. A run that was started before stays as it is, also when it is over; an earlier
    /// run has to end first.
    pub fn start(&mut self, launch: Launch, at: Instant, time: Duration) -> Start {
        let alloc = launch.alloc.clone();
        if self.is_new(&launch) {
            self.preparations.remove(&alloc);
        }
        match self.desk.get(&alloc) {
            Some((run, last)) if *run >= launch.run => return Start::Again(*run, last.clone()),
            _ => self.desk.insert(alloc.clone(), (launch.run, None)),
        };
        if let Some(unit) = self.units.get(&alloc).filter(|unit| unit.is_there()) {
            let run = unit.launch.run;
            self.waiting.insert(alloc.clone(), launch);
            return match self.stop(&alloc, run, time) {
                Stop::Begun(step) => Start::Begun(step),
                Stop::Nothing | Stop::NotThere(_) => Start::Again(run, None),
            };
        }
        self.begin(launch, at, time)
    }

    /// The start that waited for an earlier run of `alloc`, which has just ended.
    pub fn start_waiting(
        &mut self,
        alloc: &AllocId,
        at: Instant,
        time: Duration,
    ) -> Option<(u32, Start)> {
        let launch = self.waiting.remove(alloc)?;
        Some((launch.run, self.begin(launch, at, time)))
    }

    fn begin(&mut self, launch: Launch, at: Instant, time: Duration) -> Start {
        let behaviour = Behaviour::of(&launch.task);
        if launch.lease.is_some_and(|lease| lease.until <= at) {
            return Start::Refused { reason: "guard: the lease has run out".into() };
        }
        if behaviour.refuses || self.temper == Temper::Refusing {
            return Start::Refused { reason: "unit manager: operation refused".into() };
        }
        let usual = self.taking(20..500);
        let after = match self.temper {
            Temper::Slow => self.taking(8_000..15_000),
            _ => behaviour.starts.unwrap_or(usual),
        };
        self.lives += 1;
        let (alloc, life, cpus) = (launch.alloc.clone(), self.lives, launch.cpus.clone());
        let cpus = if behaviour.misplaced { [0].into_iter().collect() } else { cpus };
        let (pid, state) = (1000 + life as u32, UnitState::Starting);
        let guard = launch.lease.map(|lease| Guard {
            until: lease.until,
            stop_timeout: lease.stop_timeout,
            asked: false,
        });
        let unit = Unit { launch, state, pid, cpus, since: time, guard, life, ending: None };
        self.units.insert(alloc.clone(), unit);
        Start::Begun(NextStep { after, alloc, life, step: Step::Active })
    }

    /// Asks a unit to end.
    pub fn stop(&mut self, alloc: &AllocId, run: u32, time: Duration) -> Stop {
        let ending = self.taking(5..800);
        let kept = self.units.get_mut(alloc).filter(|u| u.is_there() && u.launch.run == run);
        let Some(unit) = kept else {
            if self.preparations.get(alloc).is_some_and(|known| known.run == run) {
                self.preparations.remove(alloc);
            }
            if self.waiting.get(alloc).is_some_and(|launch| launch.run == run) {
                self.waiting.remove(alloc);
            }
            let last = self.desk.get(alloc).filter(|(known, _)| *known == run);
            let last = last.and_then(|(_, last)| last.clone());
            return Stop::NotThere(last.unwrap_or_else(|| UnitEvent::Exited {
                status: "there is no such unit".into(),
                success: true,
                killed: false,
            }));
        };
        if unit.state == UnitState::Stopping {
            return Stop::Nothing;
        }
        unit.state = UnitState::Stopping;
        unit.since = time;
        let (after, step) = if Behaviour::of(&unit.launch.task).ignores_stop {
            (unit.launch.task.stop_timeout, Step::Kill)
        } else {
            (ending, Step::End)
        };
        Stop::Begun(NextStep { after, alloc: alloc.clone(), life: unit.life, step })
    }

    /// Moves a unit to other CPUs, and says where it then is if it runs. Unknown units and runs change nothing.
    pub fn confine(&mut self, alloc: &AllocId, run: u32, cpus: CpuSet) -> Option<UnitEvent> {
        let unit = self.units.get_mut(alloc).filter(|unit| unit.launch.run == run)?;
        unit.cpus = cpus;
        (unit.state == UnitState::Running).then(|| running(unit))
    }

    /// A lease was renewed. Unknown units and runs change nothing, nor does what comes too late.
    pub fn extend(&mut self, alloc: &AllocId, run: u32, until: Instant) {
        if let Some(unit) = self.units.get_mut(alloc)
            && unit.launch.run == run
            && let Some(guard) = &mut unit.guard
            && !guard.asked
        {
            guard.until = guard.until.max(until);
        }
    }

    /// When the guard of a unit has something to do, on the machine's clock; and which life it guards.
    pub fn guard_due(&self, alloc: &AllocId) -> Option<(u64, Instant)> {
        let unit = self.units.get(alloc).filter(|unit| unit.is_there())?;
        Some((unit.life, unit.guard?.due()))
    }

    /// The guard of a unit looks at the clock.
    pub fn guard(
        &mut self,
        alloc: &AllocId,
        life: u64,
        at: Instant,
        time: Duration,
        heard: bool,
    ) -> Guarded {
        let unit = self.units.get_mut(alloc).filter(|unit| unit.is_there() && unit.life == life);
        let Some((unit, guard)) =
            unit.and_then(|unit| Some((unit.launch.run, unit.guard.as_mut()?)))
        else {
            return Guarded::Nothing;
        };
        if at < guard.due() {
            return Guarded::Waits;
        }
        if at >= guard.kill_at() {
            return Guarded::Killed(unit, self.end(alloc, "killed by its guard", true, heard));
        }
        guard.asked = true;
        match self.stop(alloc, unit, time) {
            Stop::Begun(step) => Guarded::Asked(Some(step)),
            Stop::Nothing | Stop::NotThere(_) => Guarded::Asked(None),
        }
    }

    /// A step is due: what the unit manager says of it, and the next step. `heard`: an agent is there.
    pub fn step(
        &mut self,
        due: &NextStep,
        time: Duration,
        heard: bool,
    ) -> Option<(u32, UnitEvent, Option<NextStep>)> {
        if due.step == Step::Prepared {
            let known = self.preparations.get_mut(&due.alloc);
            let known = known.filter(|known| known.life == due.life)?;
            known.is_ready = true;
            return Some((known.run, UnitEvent::Prepared, None));
        }
        let crash_after = self.taking(50..1_500);
        let unit = self.units.get_mut(&due.alloc).filter(|unit| unit.life == due.life)?;
        let run = unit.launch.run;
        match (due.step, unit.state) {
            (Step::Active, UnitState::Starting) => {
                unit.state = UnitState::Running;
                unit.since = time;
                let event = running(unit);
                let exits = match self.temper {
                    Temper::CrashLooping => Some(crash_after),
                    _ => Behaviour::of(&unit.launch.task).exits,
                };
                let next = exits.map(|after| NextStep { after, step: Step::Exit, ..due.clone() });
                Some((run, event, next))
            }
            (Step::Exit, UnitState::Running) => {
                Some((run, self.end(&due.alloc, "exit status 1", false, heard), None))
            }
            (Step::End, UnitState::Stopping) => {
                Some((run, self.end(&due.alloc, "exit status 0", false, heard), None))
            }
            (Step::Kill, UnitState::Stopping) => {
                Some((run, self.end(&due.alloc, "killed by SIGKILL", true, heard), None))
            }
            _ => None,
        }
    }

    /// Something outside kills a unit: out of memory, for example. Returns its run.
    pub fn kill(&mut self, alloc: &AllocId, heard: bool) -> Option<(u32, UnitEvent)> {
        let run = self.units.get(alloc).filter(|unit| unit.is_there())?.launch.run;
        Some((run, self.end(alloc, "out of memory", false, heard)))
    }

    /// The agent takes note of what it passes on.
    pub fn said(&mut self, alloc: &AllocId, run: u32, event: &UnitEvent) {
        if let Some((known, last)) = self.desk.get_mut(alloc)
            && *known == run
        {
            *last = Some(event.clone());
        }
    }

    /// The agent dies, and what it remembered with it.
    pub fn forget(&mut self) {
        self.desk.clear();
        self.preparations.clear();
        self.waiting.clear();
    }

    /// What an agent that starts finds. Ended units are forgotten once they were listed.
    pub fn list(&mut self) -> Vec<UnitFound> {
        let found: Vec<UnitFound> = self
            .units
            .iter()
            .filter_map(|(alloc, unit)| {
                let event = match unit.state {
                    // Its process is there; when it is active it says so once more.
                    UnitState::Starting | UnitState::Running | UnitState::Stopping => running(unit),
                    UnitState::Ended => unit.ending.clone()?,
                };
                Some(UnitFound {
                    alloc: alloc.clone(),
                    run: unit.launch.run,
                    event,
                    lease_until: unit.guard.map(|guard| guard.until),
                })
            })
            .collect();
        self.units.retain(|_, unit| unit.is_there());
        self.desk = found
            .iter()
            .map(|unit| (unit.alloc.clone(), (unit.run, Some(unit.event.clone()))))
            .collect();
        found
    }

    /// The machine loses its power: all units are gone.
    pub fn power_off(&mut self) {
        self.units.clear();
    }

    /// Units that hold something.
    pub fn there(&self) -> impl Iterator<Item = (&AllocId, &Unit)> {
        self.units.iter().filter(|(_, unit)| unit.is_there())
    }

    fn taking(&mut self, millis: std::ops::Range<u64>) -> Duration {
        let steady = (millis.start + millis.end) / 4;
        Duration::from_millis(if self.steady { steady } else { self.random.random_range(millis) })
    }

    fn end(&mut self, alloc: &AllocId, status: &str, killed: bool, heard: bool) -> UnitEvent {
        let success = status == "exit status 0";
        let event = UnitEvent::Exited { status: status.into(), success, killed };
        // Half of the unit managers keep an ended unit until somebody asked for it.
        if heard || self.random.random_bool(0.5) {
            self.units.remove(alloc);
        } else if let Some(unit) = self.units.get_mut(alloc) {
            unit.state = UnitState::Ended;
            unit.ending = Some(event.clone());
        }
        event
    }
}

/// What is made ready for a start.
#[derive(Clone, Copy, Debug)]
struct Preparation {
    run: u32,
    /// Tells it from an earlier one of the same allocation.
    life: u64,
    is_ready: bool,
}

/// What became of a command to prepare.
#[derive(Clone, Debug)]
pub enum Prepare {
    /// It is ready, or needs nothing.
    Done,
    /// It was told so before.
    UnderWay,
    /// It has begun.
    Begun(NextStep),
    /// It cannot be made ready.
    Refused {
        /// In words.
        reason: String,
    },
}

/// What became of a start command.
#[derive(Clone, Debug)]
pub enum Start {
    /// This run, or a later one, was started before: which, and what was last said of it.
    Again(u32, Option<UnitEvent>),
    /// It is starting, or the run before it is ending.
    Begun(NextStep),
    /// The unit manager will not.
    Refused {
        /// In words.
        reason: String,
    },
}

/// What a guard did.
#[derive(Clone, Debug)]
pub enum Guarded {
    /// Its unit is gone.
    Nothing,
    /// It is too early.
    Waits,
    /// It asked its unit to stop, which ends as this says, unless it was ending already.
    Asked(Option<NextStep>),
    /// It killed its unit: which run, and what the unit manager says of it.
    Killed(u32, UnitEvent),
}

/// What became of a stop command.
#[derive(Clone, Debug)]
pub enum Stop {
    /// It is ending already.
    Nothing,
    /// There is no such unit: what is said of it.
    NotThere(UnitEvent),
    /// It is ending.
    Begun(NextStep),
}

fn running(unit: &Unit) -> UnitEvent {
    let mems = &unit.launch.claim.mems;
    UnitEvent::Running {
        pid: unit.pid,
        cpus: Some(unit.cpus.clone()),
        mems: (!mems.is_empty()).then(|| mems.clone()),
    }
}

#[cfg(test)]
mod tests;
