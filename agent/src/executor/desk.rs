//! Who looks after which unit: one keeper (a task of the runtime) a unit, told what to do over a
//! channel. The desk makes starts idempotent and answers for units that nobody keeps.

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

/// What a keeper can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// End the unit.
    Stop,
    /// Move it to these CPUs.
    Confine(CpuSet),
}

/// The desk. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Desk {
    events: Events,
    units: Arc<Mutex<BTreeMap<AllocId, Held>>>,
}

#[derive(Debug)]
struct Held {
    run: u32,
    commands: mpsc::UnboundedSender<Command>,
    /// True once the keeper is done.
    ended: watch::Receiver<bool>,
    last: Option<UnitEvent>,
    /// Grows with every entry: the oldest ended ones are forgotten first.
    order: u64,
}

/// A keeper's side of the desk: one unit, from before its start until it is gone.
#[derive(Debug)]
pub struct Seat {
    /// Which unit.
    pub alloc: AllocId,
    /// Which run of it.
    pub run: u32,
    /// What to do.
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// An earlier run that must be over first.
    pub before: Option<watch::Receiver<bool>>,
    ended: watch::Sender<bool>,
    desk: Desk,
}

impl Desk {
    /// A desk without units.
    pub fn new(events: Events) -> Self {
        Self { events, units: Arc::default() }
    }

    /// Takes a unit on. `None` when this run, or a later one, is there already: then its last event
    /// is said again.
    pub fn take(&self, alloc: &AllocId, run: u32) -> Option<Seat> {
        let known = {
            let mut units = self.lock();
            match units.get(alloc) {
                Some(held) if held.run >= run => Err((held.run, held.last.clone())),
                held => {
                    // An earlier run should be over by now; if it is not, it has to go first.
                    let before = held.map(|held| {
                        let _ = held.commands.send(Command::Stop);
                        held.ended.clone()
                    });
                    let (commands, receiver) = mpsc::unbounded_channel();
                    let (ended, watch) = watch::channel(false);
                    let order = units.values().map(|held| held.order).max().unwrap_or(0) + 1;
                    units.insert(
                        alloc.clone(),
                        Held { run, commands, ended: watch, last: None, order },
                    );
                    forget_oldest(&mut units);
                    Ok(Seat {
                        alloc: alloc.clone(),
                        run,
                        commands: receiver,
                        before,
                        ended,
                        desk: self.clone(),
                    })
                }
            }
        };
        match known {
            Ok(seat) => Some(seat),
            Err((run, last)) => {
                if let Some(event) = last {
                    self.say_at_once(alloc, run, event);
                }
                None
            }
        }
    }

    /// Passes a command on; false when nobody keeps that run.
    pub fn command(&self, alloc: &AllocId, run: u32, command: Command) -> bool {
        match self.lock().get(alloc) {
            Some(held) if held.run == run => held.commands.send(command).is_ok(),
            _ => false,
        }
    }

    /// Whether this run, or a later one, was taken on before: another start of it starts nothing.
    pub fn knows(&self, alloc: &AllocId, run: u32) -> bool {
        self.lock().get(alloc).is_some_and(|held| held.run >= run)
    }

    /// The last event of a unit, if the desk remembers it.
    pub fn last(&self, alloc: &AllocId, run: u32) -> Option<UnitEvent> {
        let units = self.lock();
        units.get(alloc).filter(|held| held.run == run)?.last.clone()
    }

    /// Says something about a unit that has no keeper. The caller may be the one who empties the
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

    /// Units that have a keeper.
    pub fn kept(&self) -> Vec<AllocId> {
        let units = self.lock();
        units.iter().filter(|(_, held)| !*held.ended.borrow()).map(|(id, _)| id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AllocId, Held>> {
        // Nothing panics while holding it.
        self.units.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn forget_oldest(units: &mut BTreeMap<AllocId, Held>) {
    let mut ended: Vec<(u64, AllocId)> = units
        .iter()
        .filter(|(_, held)| *held.ended.borrow())
        .map(|(alloc, held)| (held.order, alloc.clone()))
        .collect();
    ended.sort();
    let surplus = ended.len().saturating_sub(ENDED_MAX);
    for (_, alloc) in ended.into_iter().take(surplus) {
        units.remove(&alloc);
    }
}

impl Seat {
    /// Waits until the run before this one is over.
    pub async fn wait_for_earlier_run(&mut self) {
        if let Some(mut before) = self.before.take() {
            // An error means that its keeper is gone, which is as good.
            let _ = before.wait_for(|ended| *ended).await;
        }
    }

    /// Remembers an event without saying it: adoption reports all units at once.
    pub fn note(&self, event: &UnitEvent) {
        if let Some(held) = self.desk.lock().get_mut(&self.alloc)
            && held.run == self.run
        {
            held.last = Some(event.clone());
        }
    }

    /// Says what happened to the unit.
    pub async fn tell(&self, event: UnitEvent) {
        self.note(&event);
        self.desk.say(&self.alloc, self.run, event).await;
    }

    /// Remembers how it ended without saying it; the keeper is done.
    pub fn close(self, event: &UnitEvent) {
        self.note(event);
        let _ = self.ended.send(true);
    }

    /// Says how it ended; the keeper is done.
    pub async fn end(self, event: UnitEvent) {
        self.note(&event);
        let _ = self.ended.send(true);
        self.desk.say(&self.alloc, self.run, event).await;
    }
}
