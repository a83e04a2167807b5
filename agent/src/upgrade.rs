//! Updates of the image that this machine started from: they come in pieces, are kept in a file, and are written into
//! the other slot by `weft-upgrade.service`, which is a part of the image.
//!
//! What is in a piece is none of the agent's business: the service compares hashes, before and after it writes, and has this
//! weft-helper look at who made it.

use fabric::api::{Problem, ProblemKind, UpgradeBody, UpgradeView};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::executor::Executor;

/// The longest update: far above what the slots of an image hold.
pub const BYTES_MAX: u64 = 1 << 30;
/// What must be left of the disk beside it.
const SPARE_BYTES: u64 = 16 << 20;
/// The unit that writes a slot.
const UNIT: &str = "weft-upgrade.service";
/// What it reads, in the agent's state directory.
const READY: &str = "update";
/// Where it says what it does, and what went wrong.
const SAID: &str = "/run/weft-upgrade/said";
/// There when the machine's root is in its memory: the image's initial RAM disk makes it.
const FROM_MEMORY: &str = "/run/weft-from-memory";
/// Bytes of the end of what is said that are passed on.
const SAID_BYTES_MAX: usize = 4096;

/// One step of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// How far is it?
    Look,
    /// An update is to come, goes on, or is complete.
    Begin(UpgradeBody),
    /// A piece of it.
    Data {
        /// Where it belongs: as many bytes are there.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
}

impl Step {
    /// Looks at what somebody wants to bring.
    ///
    /// # Errors
    /// Says which field makes no sense.
    pub fn begin(wanted: UpgradeBody) -> Result<Self, Problem> {
        let good = |c: char| c.is_ascii_alphanumeric() || ".~+-".contains(c);
        let invalid = |title, detail| Err(Problem::new(ProblemKind::Invalid, title, detail));
        if !(1..=16).contains(&wanted.version.len()) || !wanted.version.chars().all(good) {
            return invalid("not a version", "write 1 to 16 letters, digits and .~+-".into());
        }
        if wanted.bytes == 0 || wanted.bytes > BYTES_MAX {
            let detail = format!("{} bytes: an update has 1 to {BYTES_MAX}", wanted.bytes);
            return invalid("not an update", detail);
        }
        Ok(Self::Begin(wanted))
    }
}

/// Where updates come in.
#[derive(Clone, Debug)]
pub struct Inbox {
    folder: PathBuf,
    release: PathBuf,
    said: PathBuf,
    from_memory: PathBuf,
}

impl Inbox {
    /// Below the agent's state directory.
    pub fn new(state: &Path) -> Self {
        let (release, said) = ("/etc/os-release".into(), SAID.into());
        Self { folder: state.join("upgrade"), release, said, from_memory: FROM_MEMORY.into() }
    }

    /// Takes a step. Reads and writes files.
    ///
    /// # Errors
    /// When this machine did not start from an image, the update is for another one, or the disk refuses.
    pub fn take(&self, step: Step) -> Result<UpgradeView, Problem> {
        let running = self.running()?;
        let have = match step {
            Step::Look => self.part().map_or(0, |(_, have)| have),
            Step::Begin(wanted) => self.begin(&wanted, &running)?,
            Step::Data { offset, bytes } => self.append(offset, &bytes)?,
        };
        Ok(UpgradeView { running, have, said: self.said() })
    }

    /// What the last installation said since the machine started.
    fn said(&self) -> String {
        let said = fs::read(&self.said).unwrap_or_default();
        let end = &said[said.len().saturating_sub(SAID_BYTES_MAX)..];
        String::from_utf8_lossy(end).trim().to_owned()
    }

    /// The version of the image that this machine started from.
    fn running(&self) -> Result<String, Problem> {
        let text = fs::read_to_string(&self.release).unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        match value("IMAGE_ID").as_deref() {
            Some("weft") => Ok(value("IMAGE_VERSION").unwrap_or_default()),
            _ => Err(Problem::new(
                ProblemKind::Conflict,
                "this node did not start from an image of weft",
                "it has no second slot to write: upgrade its package, or what else brought the agent, there",
            )),
        }
    }

    fn begin(&self, wanted: &UpgradeBody, running: &str) -> Result<u64, Problem> {
        let conflict =
            |title: &str, detail: String| Problem::new(ProblemKind::Conflict, title, detail);
        if wanted.arch != std::env::consts::ARCH {
            let detail =
                format!("it is for {}, this node is {}", wanted.arch, std::env::consts::ARCH);
            return Err(conflict("the update is for other machines", detail));
        }
        if wanted.version == running {
            let detail = format!("{running} is what runs here");
            return Err(conflict("there is nothing to upgrade", detail));
        }
        if self.from_memory.exists() {
            let detail = format!(
                "it has no second slot to write: have it start from files of {}, and restart it",
                wanted.version
            );
            return Err(conflict("this node runs from memory", detail));
        }
        let said = self.said();
        let is_over = said.lines().last().is_none_or(|line| line.starts_with("failed: "));
        if self.folder.join(READY).exists() && !is_over {
            let detail = format!("it says {said:?}: wait until the node is back");
            return Err(conflict("an update is being written", detail));
        }
        let path = self.folder.join(format!("{}-{}.part", wanted.version, wanted.bytes));
        let have = fs::metadata(&path).map_or(0, |found| found.len());
        if wanted.install {
            if have != wanted.bytes {
                let detail = format!("{have} of {} bytes are here: send the rest", wanted.bytes);
                return Err(conflict("the update is not complete", detail));
            }
            fs::File::open(&path).and_then(|file| file.sync_all()).map_err(|e| on_disk(&e))?;
            fs::rename(&path, self.folder.join(READY)).map_err(|e| on_disk(&e))?;
            // What an earlier one said is not about this one.
            let _ = fs::remove_file(&self.said);
            return Ok(have);
        }
        if have > 0 && have <= wanted.bytes {
            return Ok(have);
        }
        // Another one's pieces are of no use any more.
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(&self.folder).map_err(|e| on_disk(&e))?;
        let disk = nix::sys::statvfs::statvfs(&self.folder)
            .map_err(|error| on_disk(&std::io::Error::from(error)))?;
        let free = disk.blocks_available() * disk.fragment_size();
        if free < wanted.bytes + SPARE_BYTES {
            let (free, wanted) = (free >> 20, (wanted.bytes + SPARE_BYTES) >> 20);
            let detail = format!("{free} MiB are free in /var, {wanted} MiB are needed to keep it");
            return Err(conflict("there is no room for the update", detail));
        }
        fs::File::create(&path).map_err(|e| on_disk(&e))?;
        Ok(0)
    }

    fn append(&self, offset: u64, bytes: &[u8]) -> Result<u64, Problem> {
        let conflict =
            |detail: String| Problem::new(ProblemKind::Conflict, "the piece does not fit", detail);
        let Some((path, have)) = self.part() else {
            return Err(conflict("no update was begun here: begin it first".into()));
        };
        let most = path.file_stem().and_then(|stem| stem.to_str());
        let most = most.and_then(|stem| stem.rsplit('-').next()?.parse::<u64>().ok()).unwrap_or(0);
        let after = offset + bytes.len() as u64;
        if offset != have || after > most {
            return Err(conflict(format!("{have} of {most} bytes are here: go on from there")));
        }
        let file = fs::OpenOptions::new().append(true).open(path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(|e| on_disk(&e))?;
        Ok(after)
    }

    /// The file that pieces go to, and its length.
    fn part(&self) -> Option<(PathBuf, u64)> {
        let files = fs::read_dir(&self.folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let path = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "part"))?;
        let length = fs::metadata(&path).ok()?.len();
        Some((path, length))
    }
}

fn on_disk(error: &std::io::Error) -> Problem {
    let detail = format!("{error}: `weft doctor` on that node says more of its disk");
    Problem::new(ProblemKind::Unavailable, "the update cannot be kept", detail)
}

/// Takes a step on a thread for files, and starts what writes the slot when all is there.
///
/// # Errors
/// As [`Inbox::take`]; and when systemd does not start the service.
pub async fn take(inbox: Inbox, executor: Executor, step: Step) -> Result<UpgradeView, Problem> {
    let install = matches!(&step, Step::Begin(wanted) if wanted.install);
    let taken = tokio::task::spawn_blocking(move || inbox.take(step)).await;
    let failed = |error: String| {
        Problem::new(ProblemKind::Internal, "the update could not be looked at", error)
    };
    let view = taken.map_err(|error| failed(error.to_string()))??;
    if install {
        let Executor::Systemd(systemd) = executor else {
            let detail = "this agent does not work through systemd: see `weft doctor`";
            return Err(Problem::new(ProblemKind::Conflict, "nothing can write the slot", detail));
        };
        systemd.begin(UNIT).await.map_err(|error| {
            let detail = format!("{UNIT}: {error}");
            Problem::new(ProblemKind::Unavailable, "systemd did not start the upgrade", detail)
        })?;
    }
    Ok(view)
}

#[cfg(test)]
mod tests;
