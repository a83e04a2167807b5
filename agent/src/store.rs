//! What a node keeps on disk: the rows of its table, and a few notes of the agent.
//!
//! [`open`] reads everything once; after that a [`Writer`] on its own thread takes changes, so that the
//! disk never holds up the agent's loop. Changes that pile up while the disk is busy become one commit.
//! What the disk refused is kept (one value a key) and tried again, and only then is 'persisted' said:
//! everything up to the number it names is on disk, without gaps.
//!
//! A store that cannot be read is put aside with a warning, and the node starts with an empty one: the
//! others hold copies of its table, and its key lies in another file. A store that a newer agent wrote
//! is not touched.

pub(crate) mod database;

use anyhow::Context;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tokio::sync::watch;

pub use database::RedbStore;

/// Pause before the disk is tried again after it refused.
const RETRY: Duration = Duration::from_secs(1);

/// Encoded key and encoded entry.
pub type Row = (Vec<u8>, Vec<u8>);

/// Something to write, all or nothing. Later changes of a key replace earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Encoded key to encoded entry, or `None` to delete.
    pub rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Notes of the agent, by name.
    pub notes: BTreeMap<String, Vec<u8>>,
}

/// A place for rows and notes.
pub trait Store: Send {
    /// Every row, by key.
    ///
    /// # Errors
    /// When they cannot be read.
    #[cfg_attr(not(test), expect(dead_code, reason = "the agent reads all rows when it opens"))]
    fn load(&mut self) -> Result<Vec<Row>, StoreError>;

    /// A note of the agent.
    ///
    /// # Errors
    /// When it cannot be read.
    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes the changes, all or nothing. When this returns, they outlive a power cut.
    ///
    /// # Errors
    /// When the disk refuses. Then nothing was written, and a later call may succeed.
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError>;
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Written by an agent that knows more than this one. Left untouched.
    #[error(
        "the store has format {found}, this agent reads up to {known}: install the newer agent again, \
         or move the file away and let the node fetch its table from the others"
    )]
    Newer {
        /// The format on disk.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// Locked by another process.
    #[error("another agent uses this state directory: stop it, or give this one its own")]
    InUse,
    /// What is on disk makes no sense.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Full, read-only, or broken.
    #[error("the disk refused: {0}")]
    Disk(String),
}

/// A store and what was in it.
pub struct Opened {
    /// For [`Writer::start`].
    pub store: Box<dyn Store>,
    /// Every row, by key.
    pub rows: Vec<Row>,
    /// What people should know, in words: the store was put aside, or the disk cannot be written.
    pub warnings: Vec<String>,
}

/// How often a store that another process has is tried.
const TRIES: u32 = 20;
/// Time between two tries.
const TRY_AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::InUse))
}

#[allow(
    clippy::disallowed_methods,
    reason = "before there is a loop, and nobody tells when a lock is free"
)]
fn wait_for_the_kernel() {
    std::thread::sleep(TRY_AGAIN);
}

/// Opens the store in the state directory, or makes one.
///
/// # Errors
/// When the directory cannot be made, another agent uses it for longer than a second, or a newer agent wrote it. A damaged store is
/// put aside, and one that cannot be written is read as far as it goes: both are warnings.
pub fn open(state: &Path) -> anyhow::Result<Opened> {
    crate::identity::make_directory(state)?;
    let mut tries = 1;
    let opened = loop {
        match RedbStore::open(state) {
            // An agent that was killed a moment ago has it for as long as the kernel needs to end it.
            Err(error) if tries < TRIES && is_in_use(&error) => {
                tries += 1;
                wait_for_the_kernel();
            }
            opened => break opened,
        }
    };
    let (store, rows, warnings) =
        opened.with_context(|| format!("cannot use the store in {state:?}"))?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    Ok(Opened { store: Box::new(store), rows, warnings })
}

/// A store that is gone with the process, for tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    notes: BTreeMap<String, Vec<u8>>,
}

#[cfg(test)]
impl Store for MemoryStore {
    fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        Ok(self.rows.clone().into_iter().collect())
    }

    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.notes.get(name).cloned())
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        for (key, value) in &changes.rows {
            match value {
                Some(value) => self.rows.insert(key.clone(), value.clone()),
                None => self.rows.remove(key),
            };
        }
        self.notes.extend(changes.notes.clone());
        Ok(())
    }
}

/// How far the disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything up to this number is on disk: [`Persisted`](fabric::io::Input::Persisted).
    Persisted {
        /// The last number that is safe. 0: only notes were written.
        through: u64,
    },
    /// The disk refused: [`PersistFailed`](fabric::io::Input::PersistFailed). It is tried again.
    Failed {
        /// The first number that is not safe.
        sequence: u64,
        /// In words.
        reason: String,
    },
}

/// Tells the agent's loop how far the disk is. News that were not fetched are replaced by newer ones.
#[derive(Debug)]
pub struct Written(watch::Receiver<Option<Progress>>);

impl Written {
    /// Waits for news; `None`: the writer has ended.
    pub async fn next(&mut self) -> Option<Progress> {
        self.0.changed().await.ok()?;
        self.0.borrow_and_update().clone()
    }
}

/// Writes in the background, in the order in which it was asked.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    pending: Mutex<Pending>,
    wake: Condvar,
}

/// What is not on disk yet.
#[derive(Debug, Default)]
struct Pending {
    changes: Changes,
    /// First and last number of what is in `changes`.
    numbers: Option<(u64, u64)>,
    /// Numbers up to here were handed in.
    through: u64,
    dirty: bool,
    stop: bool,
}

impl Writer {
    /// Starts the thread `store`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(store: Box<dyn Store>) -> anyhow::Result<(Self, Written)> {
        let queue = Arc::new(Queue::default());
        let (progress, written) = watch::channel(None);
        let work = {
            let queue = queue.clone();
            move || write(store, &queue, &progress)
        };
        let thread = Builder::new()
            .name("store".to_owned())
            // redb's trees are shallow; the default of 2 MiB would only be address space, but much of it.
            .stack_size(512 << 10)
            .spawn(work)
            .context("cannot start the thread that writes to disk")?;
        Ok((Self { queue, thread: Some(thread) }, Written(written)))
    }

    /// Hands in an [`Output::Persist`](fabric::io::Output::Persist). Never waits for the disk.
    pub fn persist(&self, sequence: u64, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        let mut pending = self.queue.lock();
        pending.changes.rows.extend(changes);
        let first = pending.numbers.map_or(sequence, |(first, _)| first);
        pending.numbers = Some((first, sequence));
        pending.dirty = true;
        self.queue.wake.notify_one();
    }

    /// Hands in a note of the agent. Never waits for the disk.
    pub fn set_note(&self, name: &str, value: Vec<u8>) {
        let mut pending = self.queue.lock();
        pending.changes.notes.insert(name.to_owned(), value);
        pending.dirty = true;
        self.queue.wake.notify_one();
    }

    /// Writes what is left, if the disk takes it, and ends the thread. Waits for the disk.
    pub fn close(mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn stop(&self) {
        self.queue.lock().stop = true;
        self.queue.wake.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Puts back what the disk refused, below what was handed in since.
    fn put_back(&mut self, refused: Changes, numbers: Option<(u64, u64)>) {
        let newer = std::mem::replace(&mut self.changes, refused);
        self.changes.rows.extend(newer.rows);
        self.changes.notes.extend(newer.notes);
        self.numbers = match (numbers, self.numbers) {
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            (older, newer) => older.or(newer),
        };
        self.dirty = true;
    }
}

/// The thread's work, until it is told to stop.
fn write(mut store: Box<dyn Store>, queue: &Queue, progress: &watch::Sender<Option<Progress>>) {
    let mut pending = queue.lock();
    loop {
        pending = queue
            .wake
            .wait_while(pending, |pending| !pending.dirty && !pending.stop)
            .unwrap_or_else(PoisonError::into_inner);
        if !pending.dirty {
            return;
        }
        let changes = std::mem::take(&mut pending.changes);
        let numbers = pending.numbers.take();
        let stopping = pending.stop;
        pending.dirty = false;
        drop(pending);
        let result = store.apply(&changes);
        pending = queue.lock();
        match result {
            Ok(()) => {
                pending.through = numbers.map_or(pending.through, |(_, last)| last);
                let through = pending.through;
                progress.send_replace(Some(Progress::Persisted { through }));
            }
            Err(error) => {
                let sequence = numbers.map_or(pending.through + 1, |(first, _)| first);
                let reason = error.to_string();
                progress.send_replace(Some(Progress::Failed { sequence, reason }));
                pending.put_back(changes, numbers);
                if stopping {
                    return;
                }
                pending = queue
                    .wake
                    .wait_timeout_while(pending, RETRY, |pending| !pending.stop)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("rows", &self.rows.len())
            .field("warnings", &self.warnings)
            .finish()
    }
}

#[cfg(test)]
mod tests;
