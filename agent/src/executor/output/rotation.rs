//! Keeps the output of units within bounds, however fast they print.
//!
//! A file that nobody writes to costs nothing: a one-shot watch wakes the thread with the first write after silence, and slows no
//! other write. From then on the thread looks again and again, the more often the faster the file grows, until a look finds little
//! new, and a watch is set again. So a file exceeds [`ROTATED_BYTES`] by what is printed between two looks, and by how late
//! the kernel runs the thread, which is why it is a thread of its own.

// A thread of its own, beside the runtime: it may wait.
#![allow(clippy::disallowed_methods)]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{Channel, KEPT_BYTES, ROTATED_BYTES, rotate};

/// Time between two looks at files that grow: at the most, and at the least, for those that are printed at full speed.
const PERIOD: Duration = Duration::from_millis(5);
const PERIOD_MIN: Duration = Duration::from_millis(1);
/// Bytes that may come between two looks, as far as the period allows.
const STEP_BYTES: u64 = ROTATED_BYTES - KEPT_BYTES;
/// A unit that printed less than this since the look before is waited for again.
const LITTLE_BYTES: u64 = 64 << 10;
/// Who prints little, but more often than this, wakes the thread once a period and not with each line.
const OFTEN: Duration = Duration::from_millis(100);
/// Time between two looks where no watch can be had.
const UNWATCHED_PERIOD: Duration = Duration::from_millis(200);
/// Time between two words about files that cannot be rotated.
const COMPLAINTS_PERIOD: Duration = Duration::from_secs(60);
const STACK_BYTES: usize = 128 << 10;

/// The rotation of one executor's units. Clones are the same one; the thread ends with the last.
#[derive(Clone, Debug, Default)]
pub struct Rotation(Arc<Mutex<Option<Thread>>>);

/// Rotates one unit's files until it is dropped.
#[derive(Debug)]
pub struct Rotated {
    shared: Option<Arc<Shared>>,
    number: u64,
}

/// The thread's end, once nobody holds this.
#[derive(Debug)]
struct Thread(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None`: no more of them can be had on this machine.
    inotify: Option<Inotify>,
    wake: EventFd,
    folders: Mutex<Folders>,
}

#[derive(Debug, Default)]
struct Folders {
    by_number: BTreeMap<u64, Folder>,
    watches: BTreeMap<WatchDescriptor, u64>,
    next: u64,
    over: bool,
}

/// A unit's folder, and what was found there.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    length: u64,
    state: State,
    /// It is looked at once more.
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be looked at.
    Grows,
    /// A watch will tell.
    Quiet,
    /// No watch can be had.
    Unwatched,
}

impl Rotation {
    /// Keeps what is printed into a unit's folder, which is there, within bounds.
    pub fn watch(&self, folder: &Path) -> Rotated {
        let shared = match self.thread() {
            Ok(shared) => shared,
            Err(error) => {
                tracing::warn!(%error, "the output of tasks cannot be rotated");
                return Rotated { shared: None, number: 0 };
            }
        };
        let number = shared.lock().add(folder);
        shared.wake();
        Rotated { shared: Some(shared), number }
    }

    fn thread(&self) -> io::Result<Arc<Shared>> {
        // Nothing panics while holding it.
        let mut thread = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(thread) = &*thread {
            return Ok(thread.0.clone());
        }
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let inotify = inotify
            .inspect_err(|error| {
                tracing::info!(%error, "no inotify: the output of tasks is looked at all the time")
            })
            .ok();
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared { inotify, wake, folders: Mutex::default() });
        let works = shared.clone();
        std::thread::Builder::new()
            .name("rotation".into())
            .stack_size(STACK_BYTES)
            .spawn(move || works.work())?;
        *thread = Some(Thread(shared.clone()));
        Ok(shared)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.wake();
    }
}

impl Drop for Rotated {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        // Not here, since whoever drops it may not wait: the thread looks once more.
        if let Some(folder) = shared.lock().by_number.get_mut(&self.number) {
            (folder.state, folder.over) = (State::Grows, true);
        }
        shared.wake();
    }
}

impl Folders {
    fn add(&mut self, path: &Path) -> u64 {
        self.next += 1;
        let folder = Folder { path: path.into(), length: 0, state: State::Grows, over: false };
        self.by_number.insert(self.next, folder);
        self.next
    }

    fn has(&self, state: State) -> bool {
        self.by_number.values().any(|folder| folder.state == state)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Folders> {
        // Nothing panics while holding it.
        self.folders.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wake(&self) {
        // An error means that it is awake anyway.
        let _ = self.wake.write(1);
    }

    fn work(&self) {
        let mut before = Instant::now();
        let mut period = PERIOD;
        loop {
            if self.grows() {
                std::thread::sleep(period);
            } else {
                if before.elapsed() < OFTEN {
                    std::thread::sleep(PERIOD);
                }
                self.wait();
            }
            if self.lock().over {
                return;
            }
            self.hear();
            let new = self.look();
            period = period_for(new, before.elapsed());
            before = Instant::now();
        }
    }

    fn grows(&self) -> bool {
        self.lock().has(State::Grows)
    }

    fn wait(&self) {
        let timeout = self.lock().has(State::Unwatched).then_some(UNWATCHED_PERIOD);
        let mut sources = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        sources.extend(
            self.inotify.as_ref().map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)),
        );
        let timeout = timeout.and_then(|timeout| PollTimeout::try_from(timeout).ok());
        let _ = poll(&mut sources, timeout.unwrap_or(PollTimeout::NONE));
        let _ = self.wake.read();
    }

    /// Takes up what the watches told.
    fn hear(&self) {
        let Some(inotify) = &self.inotify else { return };
        while let Ok(events) = inotify.read_events() {
            let mut folders = self.lock();
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    folders.by_number.values_mut().for_each(|folder| folder.state = State::Grows);
                }
                // Each tells once.
                if let Some(number) = folders.watches.remove(&event.wd)
                    && let Some(folder) = folders.by_number.get_mut(&number)
                {
                    folder.state = State::Grows;
                }
            }
        }
    }

    /// Rotates what has to be, and gives back the most that is new of any unit.
    fn look(&self) -> u64 {
        let due = {
            let folders = self.lock();
            let due = folders.by_number.iter().filter(|(_, it)| it.state != State::Quiet);
            due.map(|(number, it)| (*number, it.path.clone(), it.length, it.over))
                .collect::<Vec<_>>()
        };
        let mut most = 0;
        // Not under the lock: a disk may be slow.
        for (number, path, before, over) in due {
            let mut length = look_at(&path);
            let mut new = length.abs_diff(before);
            let mut watch = None;
            if new < LITTLE_BYTES {
                watch = self.watch(&path);
                // What came before the watch was set has told nobody.
                let later = look_at(&path);
                new = new.max(later.abs_diff(length));
                length = later;
            }
            most = most.max(new);
            self.note(number, length, new, watch);
            if over {
                self.forget(number);
            }
        }
        most
    }

    /// What a look has found.
    fn note(&self, number: u64, length: u64, new: u64, watch: Option<WatchDescriptor>) {
        let mut folders = self.lock();
        let Folders { by_number, watches, .. } = &mut *folders;
        if let Some(watch) = watch {
            watches.insert(watch, number);
        }
        let Some(folder) = by_number.get_mut(&number) else { return };
        folder.length = length;
        folder.state = match watch {
            _ if new >= LITTLE_BYTES => State::Grows,
            Some(_) => State::Quiet,
            None => State::Unwatched,
        };
        if folder.over {
            // It was not when this look began.
            folder.state = State::Grows;
        }
    }

    fn forget(&self, number: u64) {
        let mut folders = self.lock();
        let Folders { by_number, watches, .. } = &mut *folders;
        let Some(gone) = by_number.remove(&number) else { return };
        for (watch, _) in watches.extract_if(.., |_, watched| *watched == number) {
            if let Some(inotify) = &self.inotify {
                // It may have told something just now, and be gone.
                let _ = inotify.rm_watch(watch);
            }
        }
        // The next run of the unit had the same watch.
        for folder in by_number.values_mut().filter(|folder| folder.path == gone.path) {
            folder.state = State::Grows;
        }
    }

    fn watch(&self, folder: &Path) -> Option<WatchDescriptor> {
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ONESHOT;
        self.inotify.as_ref()?.add_watch(folder, flags).ok()
    }
}

/// The time in which no more is printed than a step, if this much was within `time`.
fn period_for(new: u64, time: Duration) -> Duration {
    let steps = new as f64 / STEP_BYTES as f64;
    Duration::try_from_secs_f64(time.as_secs_f64() / steps)
        .map_or(PERIOD, |period| period.clamp(PERIOD_MIN, PERIOD))
}

/// Rotates a unit's files, and gives back the sum of their lengths. One that is not there is empty.
fn look_at(folder: &Path) -> u64 {
    let length = |channel: Channel| {
        let path = channel.path(folder);
        match rotate(&path, ROTATED_BYTES, KEPT_BYTES) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => {
                complain(&path, &error);
                path.metadata().map_or(0, |meta| meta.len())
            }
        }
    };
    Channel::ALL.map(length).iter().sum()
}

/// Once a minute, of all files together.
fn complain(path: &Path, error: &io::Error) {
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if said.is_none_or(|at| at.elapsed() > COMPLAINTS_PERIOD) {
        *said = Some(Instant::now());
        tracing::warn!(%error, file = %path.display(), "the output of a task cannot be rotated");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Far more than anything here takes; only a hang reaches it.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn on_disk(folder: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let blocks = |channel: Channel| channel.path(folder).metadata().map_or(0, |it| it.blocks());
        Channel::ALL.map(blocks).iter().sum::<u64>() * 512
    }

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn all_quiet(rotation: &Rotation) -> bool {
        let thread = rotation.0.lock().unwrap();
        let folders = thread.as_ref().unwrap().0.lock();
        folders.by_number.values().all(|folder| folder.state == State::Quiet)
    }

    #[test]
    fn files_that_grow_are_rotated_and_waited_for_again() {
        let state = tempfile::tempdir().unwrap();
        let rotation = Rotation::default();
        let watched = rotation.watch(state.path());
        let mut out =
            super::super::super::spawn::open_append(&state.path().join("stdout")).unwrap();
        for _ in 0..3 {
            // After silence, and more than is kept.
            wait_until("it is quiet", || all_quiet(&rotation));
            out.write_all(&vec![b'x'; 2 * ROTATED_BYTES as usize]).unwrap();
            wait_until("it is rotated", || on_disk(state.path()) <= ROTATED_BYTES);
        }
        assert_eq!(state.path().join("stdout").metadata().unwrap().len(), 6 * ROTATED_BYTES);
        wait_until("it is quiet", || all_quiet(&rotation));
        drop(watched);
        let shared = rotation.0.lock().unwrap().as_ref().unwrap().0.clone();
        let forgotten = |it: &Folders| it.by_number.is_empty() && it.watches.is_empty();
        wait_until("it is forgotten", || forgotten(&shared.lock()));
        // The thread ends with the last that may want it.
        drop(rotation);
        wait_until("the thread has ended", || Arc::strong_count(&shared) == 1);
    }

    #[test]
    fn what_was_printed_before_anybody_looked_is_rotated_and_what_comes_last_too() {
        let state = tempfile::tempdir().unwrap();
        let much = vec![b'x'; 2 * ROTATED_BYTES as usize];
        std::fs::write(state.path().join("stderr"), &much).unwrap();
        let rotation = Rotation::default();
        let watched = rotation.watch(state.path());
        wait_until("it is rotated", || on_disk(state.path()) <= ROTATED_BYTES);
        wait_until("it is quiet", || all_quiet(&rotation));
        // The last words of one that is over, and the next run in the same folder.
        let next = rotation.watch(state.path());
        std::fs::write(state.path().join("stdout"), &much).unwrap();
        drop(watched);
        wait_until("it is rotated", || on_disk(state.path()) <= 2 * ROTATED_BYTES);
        wait_until("it is quiet", || all_quiet(&rotation));
        let much = vec![b'x'; 4 * ROTATED_BYTES as usize];
        std::fs::write(state.path().join("stdout"), &much).unwrap();
        wait_until("it is rotated", || on_disk(state.path()) <= 2 * ROTATED_BYTES);
        std::fs::write(state.path().join("stderr"), &much).unwrap();
        drop(next);
        wait_until("it is rotated", || on_disk(state.path()) <= 2 * ROTATED_BYTES);
    }

    #[test]
    fn one_file_that_cannot_be_rotated_does_not_keep_the_other_from_it() {
        let state = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("stdout", state.path().join("stdout")).unwrap();
        std::fs::write(state.path().join("stderr"), vec![b'x'; 4 * ROTATED_BYTES as usize])
            .unwrap();
        look_at(state.path());
        assert!(on_disk(state.path()) <= ROTATED_BYTES);
    }

    #[test]
    fn files_are_looked_at_where_no_watch_can_be_had() {
        let state = tempfile::tempdir().unwrap();
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap();
        let shared = Arc::new(Shared { inotify: None, wake, folders: Mutex::default() });
        let thread = Thread(shared.clone());
        let worker = std::thread::spawn(move || shared.work());
        let rotation = Rotation(Arc::new(Mutex::new(Some(thread))));
        let _watched = rotation.watch(state.path());
        for channel in Channel::ALL {
            let much = vec![b'x'; 4 * ROTATED_BYTES as usize];
            std::fs::write(channel.path(state.path()), much).unwrap();
            wait_until("it is rotated", || on_disk(state.path()) <= 2 * ROTATED_BYTES);
        }
        drop(rotation);
        worker.join().unwrap();
    }
}
