//! The units of an executor: a task of the runtime per unit looks after it and takes commands over a channel. The table makes
//! starts idempotent, and answers for units that have no task.

use fabric::cpuset::CpuSet;
use fabric::id::AllocId;
use fabric::io::UnitEvent;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{mpsc, watch};

/// Ended units whose last event is remembered, for starts that come twice.
const ENDED_MAX: usize = fabric::limits::ALLOCS_PER_NODE_MAX;

/// Where events of units go.
pub type Events = mpsc::Sender<(AllocId, u32, UnitEvent)>;

/// A command to the task of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// End the unit.
    Stop,
    /// Move it to these CPUs.
    Confine(CpuSet),
}

/// The table. Clones are the same one.
///
/// Invariant: an entry per allocation, of its latest run, which has a task until `ended` is true.
#[derive(Clone, Debug)]
pub struct Units {
    events: Events,
    units: Arc<Mutex<BTreeMap<AllocId, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    run: u32,
    commands: mpsc::UnboundedSender<Command>,
    /// True once the task is done.
    ended: watch::Receiver<bool>,
    last: Option<UnitEvent>,
    /// Grows with every entry: the oldest ended ones are forgotten first.
    order: u64,
}

/// The side of a unit's task: one unit, from before its start until it is gone.
#[derive(Debug)]
pub struct UnitTask {
    /// Which unit.
    pub alloc: AllocId,
    /// Which run of it.
    pub run: u32,
    /// What to do.
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// An earlier run that must be over first.
    pub before: Option<watch::Receiver<bool>>,
    ended: watch::Sender<bool>,
    table: Units,
}

impl Units {
    /// A table without units.
    pub fn new(events: Events) -> Self {
        Self { events, units: Arc::default() }
    }

    /// Takes a unit on. `None` when this run, or a later one, is there already: then its last event
    /// is said again.
    pub fn take(&self, alloc: &AllocId, run: u32) -> Option<UnitTask> {
        let known = {
            let mut units = self.lock();
            match units.get(alloc) {
                Some(entry) if entry.run >= run => Err((entry.run, entry.last.clone())),
                entry => {
                    // An earlier run should be over by now; if it is not, it has to go first.
                    let before = entry.map(|entry| {
                        let _ = entry.commands.send(Command::Stop);
                        entry.ended.clone()
                    });
                    let (commands, receiver) = mpsc::unbounded_channel();
                    let (ended, watch) = watch::channel(false);
                    let order = units.values().map(|entry| entry.order).max().unwrap_or(0) + 1;
                    units.insert(
                        alloc.clone(),
                        Entry { run, commands, ended: watch, last: None, order },
                    );
                    forget_oldest(&mut units);
                    Ok(UnitTask {
                        alloc: alloc.clone(),
                        run,
                        commands: receiver,
                        before,
                        ended,
                        table: self.clone(),
                    })
                }
            }
        };
        match known {
            Ok(task) => Some(task),
            Err((run, last)) => {
                if let Some(event) = last {
                    self.say_at_once(alloc, run, event);
                }
                None
            }
        }
    }

    /// Passes a command on; false when that run has no task.
    pub fn command(&self, alloc: &AllocId, run: u32, command: Command) -> bool {
        match self.lock().get(alloc) {
            Some(entry) if entry.run == run => entry.commands.send(command).is_ok(),
            _ => false,
        }
    }

    /// Whether this run, or a later one, was taken on before: another start of it starts nothing.
    pub fn knows(&self, alloc: &AllocId, run: u32) -> bool {
        self.lock().get(alloc).is_some_and(|entry| entry.run >= run)
    }

    /// The last event of a unit, if the table remembers it.
    pub fn last(&self, alloc: &AllocId, run: u32) -> Option<UnitEvent> {
        let units = self.lock();
        units.get(alloc).filter(|entry| entry.run == run)?.last.clone()
    }

    /// Says something about a unit that has no task. The caller may be the one who empties the
    /// channel, so nothing here waits for room in it.
    pub fn say_at_once(&self, alloc: &AllocId, run: u32, event: UnitEvent) {
        use mpsc::error::TrySendError;
        if let Err(TrySendError::Full(event)) = self.events.try_send((alloc.clone(), run, event)) {
            let events = self.events.clone();
            tokio::spawn(async move {
                let _ = events.send(event).await;
            });
        }
    }

    async fn say(&self, alloc: &AllocId, run: u32, event: UnitEvent) {
        let _ = self.events.send((alloc.clone(), run, event)).await;
    }

    /// Units that have a task.
    pub fn with_tasks(&self) -> Vec<AllocId> {
        let units = self.lock();
        units.iter().filter(|(_, entry)| !*entry.ended.borrow()).map(|(id, _)| id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AllocId, Entry>> {
        // Nothing panics while holding it.
        self.units.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn forget_oldest(units: &mut BTreeMap<AllocId, Entry>) {
    let mut ended: Vec<(u64, AllocId)> = units
        .iter()
        .filter(|(_, entry)| *entry.ended.borrow())
        .map(|(alloc, entry)| (entry.order, alloc.clone()))
        .collect();
    ended.sort();
    let surplus = ended.len().saturating_sub(ENDED_MAX);
    for (_, alloc) in ended.into_iter().take(surplus) {
        units.remove(&alloc);
    }
}

impl UnitTask {
    /// Waits until the run before this one is over.
    pub async fn wait_for_earlier_run(&mut self) {
        if let Some(mut before) = self.before.take() {
            // An error means that its task is gone, which is as good.
            let _ = before.wait_for(|ended| *ended).await;
        }
    }

    /// Remembers an event without saying it: adoption reports all units at once.
    pub fn note(&self, event: &UnitEvent) {
        if let Some(entry) = self.table.lock().get_mut(&self.alloc)
            && entry.run == self.run
        {
            entry.last = Some(event.clone());
        }
    }

    /// Says what happened to the unit.
    pub async fn tell(&self, event: UnitEvent) {
        self.note(&event);
        self.table.say(&self.alloc, self.run, event).await;
    }

    /// Remembers how it ended without saying it; the task is done.
    pub fn close(self, event: &UnitEvent) {
        self.note(event);
        let _ = self.ended.send(true);
    }

    /// Says how it ended; the task is done.
    pub async fn end(self, event: UnitEvent) {
        self.note(&event);
        let _ = self.ended.send(true);
        self.table.say(&self.alloc, self.run, event).await;
    }
}
