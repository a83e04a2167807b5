//! What an agent that ends in good order leaves for the next one: what it has granted as a voter. Without it a voter is mute
//! after its start for as long as anything that it may have granted lasts, and at-most-one work ends where too many are.
//!
//! It lies beside the API's socket, which no backup has and no machine keeps over a boot; and it is removed before anything of it is used, so that
//! it is used once. It counts only for the very next start: a state directory that was put back has lost count.

use anyhow::Context;
use fabric::id::NodeId;
use fabric::node::Handover;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::BootTime;
use crate::executor::process::boot_id;

/// Of the file: an agent that writes it otherwise says so with another number.
const VERSION: u32 = 1;
/// Bytes that are read. More slots than voters look after do not take half of it.
const BYTES_MAX: u64 = 32 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    boot: String,
    node: NodeId,
    /// The number of the start that ends, on its disk.
    generation: u64,
    /// No earlier than what it says.
    at: BootTime,
    handover: Handover,
}

/// Beside the socket, under its name.
fn path(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".handover");
    name.into()
}

/// Leaves it for the next agent. `generation`: what the disk says of this start.
pub(super) fn leave(
    socket: &Path,
    node: NodeId,
    generation: u64,
    handover: Handover,
) -> anyhow::Result<()> {
    let (version, boot, at) = (VERSION, boot_id(), BootTime::now());
    let file = File { version, boot, node, generation, at, handover };
    let path = path(socket);
    let new = path.with_extension("handover.new");
    let _ = std::fs::remove_file(&new);
    let mut options = std::fs::OpenOptions::new();
    let mut written = options.write(true).create_new(true).mode(0o600).open(&new)?;
    written.write_all(&serde_json::to_vec(&file)?)?;
    std::fs::rename(new, &path).with_context(|| path.display().to_string())
}

/// Takes it, and removes it whatever it says. `generation`: what the disk says of the start before this one.
pub(super) fn take(
    socket: &Path,
    node: NodeId,
    generation: Option<u64>,
) -> Option<(Handover, Duration)> {
    let path = path(socket);
    let opened = std::fs::File::open(&path);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            // It would be found again.
            tracing::warn!(%error, path = %path.display(), "what the agent before has left is not used: it cannot be removed");
            return None;
        }
    }
    let opened = opened.ok()?;
    if opened.metadata().ok()?.uid() != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let mut bytes = Vec::new();
    opened.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let file: File = serde_json::from_slice(&bytes).ok()?;
    let is_mine = file.version == VERSION
        && !file.boot.is_empty()
        && file.boot == boot_id()
        && file.node == node
        && Some(file.generation) == generation;
    is_mine.then(|| (file.handover, BootTime::now().since(file.at)))
}

#[cfg(test)]
mod tests;
