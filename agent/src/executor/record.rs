//! What the agent keeps on disk of each unit, so that the next agent finds it: one folder a unit,
//! `<state>/alloc/<unit>/`, with `unit.json`, `stdout`, `stderr`, `files/`, and the list of its mount points while there is
//! one ([`super::mount_points`]).

use fabric::id::{AllocId, JobName, SlotId};
use fabric::io::{Launch, UnitEvent};
use nix::libc;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use super::mount_points::{MountPoints, View};
use super::output::rotation::{Rotated, Rotation};

/// Folders of ended units of one job that are kept for their logs; the oldest go first.
pub const ENDED_OF_JOB_MAX: usize = 4;
/// Folders of ended units of all jobs. Beyond it the job that has most gives up its oldest, so that the last logs of one
/// that ended long ago are not pushed out by another one that fails again and again.
const ENDED_MAX: usize = 64;
/// Units that end between two looks for folders to remove.
const ENDS_PER_PRUNING: u32 = 16;
/// Bytes of a record: a launch with all its files, as JSON.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// One unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How it was started.
    pub launch: Launch,
    /// In which boot of the machine.
    pub boot: String,
    /// Main process and its start time; `None` until it was started. Unused by systemd's units,
    /// which systemd remembers.
    pub process: Option<(u32, u64)>,
    /// The user and group that were made up for it.
    pub user: Option<u32>,
    /// How it ended.
    pub ended: Option<UnitEvent>,
}

/// The folder of all records.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    ends: Arc<AtomicU32>,
    mount_points: MountPoints,
    rotation: Rotation,
}

impl Store {
    /// The records under `state`, of units that see the machine like this.
    pub fn open(state: &Path, view: View) -> io::Result<Self> {
        let folder = std::path::absolute(state)?.join("alloc");
        make(&folder)?;
        let mount_points = MountPoints::new(folder.clone(), view);
        let store =
            Self { folder, ends: Arc::default(), mount_points, rotation: Rotation::default() };
        for entry in std::fs::read_dir(&store.folder)?.flatten() {
            // The agent before may have ended between a preparation and its start.
            if let Some(alloc) = entry.file_name().to_str().and_then(AllocId::from_unit) {
                store.unprepare(&alloc);
            }
        }
        Ok(store)
    }

    /// Keeps a unit's output within bounds until this is dropped.
    pub fn rotated(&self, alloc: &AllocId) -> Rotated {
        let folder = self.folder(alloc);
        if let Err(error) = make(&folder) {
            // Its start says so too.
            tracing::warn!(%error, folder = %folder.display(), "the folder of a unit cannot be made");
        }
        self.rotation.watch(&folder)
    }

    /// Sees to it that there is a file at each of these paths until the unit has ended, and says where that really is. Its
    /// record is written before.
    pub fn claim_mount_points(
        &self,
        alloc: &AllocId,
        paths: &[PathBuf],
    ) -> io::Result<Vec<PathBuf>> {
        self.mount_points.claim(&alloc.unit(), paths)
    }

    /// Removes the mount points of units that an agent before has left, all but those of `kept`.
    pub fn release_mount_points(&self, kept: &BTreeSet<String>) {
        self.mount_points.release_others(kept);
    }

    /// The folder of one unit.
    pub fn folder(&self, alloc: &AllocId) -> PathBuf {
        self.folder.join(alloc.unit())
    }

    /// Makes ready what a start finds in the unit's folder: the task's files.
    pub fn prepare(&self, launch: &Launch) -> io::Result<()> {
        if launch.task.files.is_empty() {
            return Ok(());
        }
        let folder = self.folder(&launch.alloc);
        make(&folder)?;
        write_files(&folder.join("files"), launch)
    }

    /// Pairs of where each of the task's files is and where the task wants to see it. Prepares them if they are not there.
    pub fn files(&self, launch: &Launch) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        let folder = self.folder(&launch.alloc).join("files");
        let number = |(number, wanted): (usize, &fabric::job::TaskFile)| {
            (folder.join(number.to_string()), PathBuf::from(&wanted.path))
        };
        let pairs: Vec<_> = launch.task.files.iter().enumerate().map(number).collect();
        if !pairs.iter().all(|(file, _)| file.is_file()) {
            self.prepare(launch)?;
        }
        Ok(pairs)
    }

    /// Removes what was prepared for a unit that was never started.
    pub fn unprepare(&self, alloc: &AllocId) {
        let folder = self.folder(alloc);
        if !folder.join("unit.json").exists()
            && let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %folder.display(), "what was prepared for a unit stays");
        }
    }

    /// Writes a record, all or nothing.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let folder = self.folder(&record.launch.alloc);
        make(&folder)?;
        let new = folder.join("unit.json.new");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        // Not synced: a record is of use only within the boot that wrote it.
        file.write_all(&serde_json::to_vec(record)?)?;
        std::fs::rename(new, folder.join("unit.json"))
    }

    /// Reads one record.
    pub fn read(&self, alloc: &AllocId) -> io::Result<Record> {
        let path = self.folder(alloc).join("unit.json");
        let length = std::fs::metadata(&path)?.len();
        if length > RECORD_BYTES_MAX {
            return Err(io::Error::other(format!("{} is too large", path.display())));
        }
        let record: Record = serde_json::from_slice(&std::fs::read(path)?)?;
        if record.launch.alloc != *alloc {
            return Err(io::Error::other("the record is about another allocation"));
        }
        Ok(record)
    }

    /// The allocations of a slot that have a folder, those whose record was written last first.
    pub fn of_slot(&self, slot: &SlotId) -> Vec<AllocId> {
        let mut found: Vec<(SystemTime, AllocId)> = std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let alloc = AllocId::from_unit(entry.file_name().to_str()?)?;
                let record = entry.path().join("unit.json").metadata().ok()?;
                (alloc.slot == *slot).then_some((record.modified().ok()?, alloc))
            })
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, alloc)| alloc).collect()
    }

    /// Every record that can be read. One that cannot is named in the log and left alone; it is an error if it might be read
    /// a moment later.
    pub fn all(&self) -> io::Result<Vec<Record>> {
        let passes = |error: &io::Error| {
            let code = error.raw_os_error();
            matches!(code, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN))
        };
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if passes(&error) => return Err(error),
            entries => entries.into_iter().flatten().flatten(),
        };
        let mut records = Vec::new();
        for entry in entries {
            let name = entry.file_name();
            let Some(alloc) = name.to_str().and_then(AllocId::from_unit) else { continue };
            match self.read(&alloc) {
                Ok(record) => records.push(record),
                // It is prepared, and was not started yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if passes(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(unit = alloc.unit(), %error, "cannot read the record of a unit")
                }
            }
        }
        records.sort_by(|a, b| a.launch.alloc.cmp(&b.launch.alloc));
        Ok(records)
    }

    /// Notes how a unit ended, removes its mount points, and drops the oldest folders of ended units.
    pub fn end(&self, mut record: Record, event: UnitEvent) -> io::Result<()> {
        let unit = record.launch.alloc.unit();
        record.ended = Some(event);
        self.write(&record)?;
        if let Err(error) = self.mount_points.release(&unit) {
            tracing::warn!(unit, %error, "an empty file that was made for a unit stays");
        }
        // Looking at every record costs more than the few folders too many that gather meanwhile.
        if self.ends.fetch_add(1, Ordering::Relaxed).is_multiple_of(ENDS_PER_PRUNING) {
            self.prune();
        }
        Ok(())
    }

    fn prune(&self) {
        let mut ended = Vec::new();
        for record in self.all().into_iter().flatten().filter(|record| record.ended.is_some()) {
            let folder = self.folder(&record.launch.alloc);
            let when = std::fs::metadata(folder.join("unit.json")).and_then(|meta| meta.modified());
            if let Ok(when) = when {
                ended.push((record.launch.alloc.slot.job, when, folder));
            }
        }
        for folder in surplus(ended) {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn make(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Which of these folders go: of each job all but the last few, and then the oldest of whichever job has most.
fn surplus(ended: Vec<(JobName, SystemTime, PathBuf)>) -> Vec<PathBuf> {
    let mut jobs: BTreeMap<JobName, Vec<(SystemTime, PathBuf)>> = BTreeMap::new();
    for (job, when, folder) in ended {
        jobs.entry(job).or_default().push((when, folder));
    }
    let mut surplus = Vec::new();
    for folders in jobs.values_mut() {
        // The newest first.
        folders.sort_by(|a, b| b.cmp(a));
        let kept = folders.len().min(ENDED_OF_JOB_MAX);
        surplus.extend(folders.drain(kept..).map(|(_, folder)| folder));
    }
    let mut count: usize = jobs.values().map(Vec::len).sum();
    while count > ENDED_MAX {
        let oldest = |folders: &Vec<_>| folders.last().cloned();
        let most = jobs.values_mut().max_by_key(|it| (it.len(), std::cmp::Reverse(oldest(it))));
        let Some((_, folder)) = most.and_then(Vec::pop) else { break };
        surplus.push(folder);
        count -= 1;
    }
    surplus
}

/// Writes the task's files into `folder`, readable by everybody and writable by nobody.
fn write_files(folder: &Path, launch: &Launch) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    for (number, wanted) in launch.task.files.iter().enumerate() {
        let wanted_path = Path::new(&wanted.path);
        let plain =
            |part| matches!(part, std::path::Component::Normal(_) | std::path::Component::RootDir);
        if !wanted_path.is_absolute() || !wanted_path.components().all(plain) {
            return Err(io::Error::other(format!(
                "file {:?}: write an absolute path without '..'",
                wanted.path
            )));
        }
        let path = folder.join(number.to_string());
        std::fs::write(&path, &wanted.content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
