//! What an agent keeps for the next one, as it goes: what it has granted as a voter. Without it a voter is mute after its start
//! for as long as anything that it may have granted lasts, and at-most-one work ends where too many are. A crash takes
//! nothing of it: it is written before anything is said that follows from it.
//!
//! It lies beside the API's socket, which no backup has and no machine keeps over a boot; and it is removed before anything of it is used, so that
//! it is used once. It counts only for the very next start: a state directory that was put back has lost count.
//!
//! Lines of JSON: a head, then what is kept, all of it first and then what has changed. A line that is not whole was about to be
//! written when the agent died, and nothing of it was said.

use anyhow::Context;
use fabric::clock::Now;
use fabric::id::NodeId;
use fabric::node::{Handover, Node};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::clock::BootTime;
use crate::process::boot_id;

/// Of the file: an agent that writes it otherwise says so with another number.
const VERSION: u32 = 2;
/// Bytes that are read. More slots than voters look after do not take half of it.
const BYTES_MAX: u64 = 64 << 20;
/// Bytes of changes after which all of it is written anew: at least so many, and several times as much as all of it.
const CHANGES_BYTES_MIN: u64 = 64 << 10;
const CHANGES_PART: u64 = 4;

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    boot: String,
    node: NodeId,
    /// The number of the start that writes it, on its disk.
    generation: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// No earlier than what it says.
    at: BootTime,
    kept: Handover,
}

impl Head {
    fn of(node: NodeId, generation: u64) -> Self {
        Self { version: VERSION, boot: boot_id(), node, generation }
    }
}

/// Beside the socket, under its name.
fn path(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".handover");
    name.into()
}

/// Keeps it for the next agent.
pub(super) struct Keeper {
    path: PathBuf,
    head: Head,
    file: Option<File>,
    /// Bytes of all of it when that was written last, and of what was written since.
    all: u64,
    since: u64,
    /// It could not be written: said once.
    failed: bool,
}

impl Keeper {
    /// `generation`: what the disk says of this start; without it nothing is kept.
    pub(super) fn new(socket: &Path, node: NodeId, generation: Option<u64>) -> Self {
        let failed = generation.is_none();
        let head = Head::of(node, generation.unwrap_or_default());
        Self { path: path(socket), head, file: None, all: 0, since: 0, failed }
    }

    /// Keeps what has changed. Before any output of the node is carried out.
    pub(super) fn keep(&mut self, now: Now, node: &mut Node) {
        let all = self.file.is_none()
            || self.since > CHANGES_BYTES_MIN.max(self.all.saturating_mul(CHANGES_PART));
        let Some(kept) = node.hand_over(now, all && !self.failed).filter(|_| !self.failed) else {
            return;
        };
        let line = Line { at: BootTime::now(), kept };
        let written = if all { self.write_all(&line) } else { self.append(&line) };
        if let Err(error) = written {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &anyhow::Error) {
        tracing::warn!(
            %error, path = %self.path.display(),
            "what is granted here as a voter cannot be kept: the next agent will be mute as one for a while"
        );
        self.forget();
    }

    /// Another machine speaks in this one's name, and may vote: what is kept here is not all any more.
    pub(super) fn forget(&mut self) {
        // What is there is not true any more. The next agent uses nothing that it cannot remove.
        self.failed = true;
        let emptied = self.file.take().map(|file| file.set_len(0));
        let removed = std::fs::remove_file(&self.path);
        if !matches!(emptied, Some(Ok(()))) && removed.is_err() && self.path.exists() {
            tracing::error!(path = %self.path.display(), "what was kept is out of date and cannot be removed");
        }
    }

    fn write_all(&mut self, line: &Line) -> anyhow::Result<()> {
        let (file, bytes) = write(&self.path, &self.head, line)?;
        (self.file, self.all, self.since) = (Some(file), bytes, 0);
        Ok(())
    }

    fn append(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.file.as_mut().context("it is not open")?.write_all(&bytes)?;
        self.since += bytes.len() as u64;
        Ok(())
    }
}

/// All of it, in place of what is there. Returns the file, and how long it is.
fn write(path: &Path, head: &Head, line: &Line) -> anyhow::Result<(File, u64)> {
    let mut bytes = serde_json::to_vec(head)?;
    bytes.push(b'\n');
    serde_json::to_writer(&mut bytes, line)?;
    bytes.push(b'\n');
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let _ = std::fs::remove_file(&new);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.append(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(&bytes).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written?;
    Ok((file, bytes.len() as u64))
}

/// Somebody started under this node's name who votes nothing, as `weftd farewell` does: what was kept for the start after
/// `before` is for the one after `generation`.
pub(super) fn pass_on(
    socket: &Path,
    node: NodeId,
    before: Option<u64>,
    generation: u64,
) -> anyhow::Result<()> {
    let Some(kept) = take(socket, node, before) else { return Ok(()) };
    let line = Line { at: BootTime::now(), kept };
    write(&path(socket), &Head::of(node, generation), &line).map(drop)
}

/// Takes what the agent before has kept, and removes it whatever it says. `generation`: what the disk says of the start before this
/// one.
pub(super) fn take(socket: &Path, node: NodeId, generation: Option<u64>) -> Option<Handover> {
    let path = path(socket);
    let opened = File::open(&path);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            // It would be found again.
            tracing::warn!(%error, path = %path.display(), "what the agent before has kept is not used: it cannot be removed");
            return None;
        }
    }
    let opened = opened.ok()?;
    if opened.metadata().ok()?.uid() != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let mut bytes = Vec::new();
    opened.take(BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > BYTES_MAX {
        return None;
    }
    // What comes after the last end of a line is not whole.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n')?;
    let mut lines = bytes[..whole].split(|byte| *byte == b'\n');
    let head: Head = serde_json::from_slice(lines.next()?).ok()?;
    let is_mine = head.version == VERSION
        && !head.boot.is_empty()
        && head.boot == boot_id()
        && head.node == node
        && Some(head.generation) == generation;
    if !is_mine {
        return None;
    }
    let now = BootTime::now();
    let mut kept = Vec::new();
    for line in lines {
        // A line that makes no sense has others after it that do not tell what it said.
        let mut line: Line = serde_json::from_slice(line).ok()?;
        line.kept.age(now.since(line.at));
        kept.push(line.kept);
    }
    let mut kept = kept.into_iter();
    let mut all = kept.next()?;
    all.absorb(kept.collect());
    Some(all)
}

#[cfg(test)]
mod tests;
