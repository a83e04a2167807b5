//! How much disk claims may add up to: of the file system with the agent's state directory.
//!
//! What a task keeps on that file system is used like everything else there, and nobody says whose it is. What has been used
//! may therefore be others' or that of claims, and both must not be counted twice. All that is known is that claims have used
//! between nothing and all of what they may: what can be promised in all lies between what is free now, less the reserve, and
//! that plus all claims. What was found before stands as long as it lies in between, and otherwise moves to the nearer end.
//! Without claims there is nothing in between.
//!
//! What is free changes with every log line, and what a node says of itself is written to every disk of the fabric. So it is
//! said anew only when it is off by more than a tenth, and by more than 1 GiB. A file system that grows and shrinks by itself is
//! no reason either.

use fabric::topology::DiskPool;
use std::path::Path;

use super::ShareError;

const GIB: u64 = 1 << 30;
/// What was found before is good enough if it is off by no more than this, or by a tenth.
const CLOSE_BYTES: u64 = GIB;

/// What a file system says of itself, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub size: u64,
    /// Not used, also where only root may write.
    pub free: u64,
    /// Not used, and everybody may write.
    pub available: u64,
}

impl Space {
    /// Of the file system that `path` lies in.
    pub fn of(path: &Path) -> nix::Result<Self> {
        let found = nix::sys::statvfs::statvfs(path)?;
        let unit = found.fragment_size();
        let bytes = |blocks: u64| blocks.saturating_mul(unit);
        Ok(Self {
            size: bytes(found.blocks()),
            free: bytes(found.blocks_free()),
            available: bytes(found.blocks_available()),
        })
    }
}

/// The pool that the space makes. `given` is what the owner gives, instead of all but the reserve; `before` is the pool as it
/// was found last, and `claimed` what claims on it add up to.
pub fn pool(
    space: Space,
    given: Option<u64>,
    before: Option<&DiskPool>,
    claimed: u64,
) -> Result<DiskPool, ShareError> {
    if let Some(wanted) = given.filter(|wanted| *wanted > space.size) {
        return Err(ShareError::TooMuchDisk { wanted, present: space.size });
    }
    let reserve = reserve(space.size);
    // What the file system keeps for root is a part of the reserve.
    let for_root = space.free.saturating_sub(space.available).min(reserve);
    let least = (space.available + for_root).saturating_sub(reserve);
    let most = least.saturating_add(claimed).min(space.size - reserve);
    let known = before.map(room);
    let now = known.map_or(least, |known| known.clamp(least, most.max(least)));
    let (size, room) = match (before, known) {
        (Some(before), Some(known)) if now.abs_diff(known) <= CLOSE_BYTES.max(known / 10) => {
            (before.size(), known)
        }
        _ => (space.size, now),
    };
    let reserve = self::reserve(size);
    let used = (size - reserve).saturating_sub(room);
    // As with memory, what the owner says includes the reserve if need be.
    let capacity = given.map_or(room, |given| given.min(size - used));
    let reserved = size - used - capacity;
    Ok(DiskPool { name: DiskPool::DEFAULT.into(), capacity, reserved, used })
}

/// What is not given away unless the owner says so: a twentieth and at least 1 GiB, but of small disks a tenth.
fn reserve(size: u64) -> u64 {
    (size / 20).max(GIB).min(size / 10)
}

/// What claims could add up to if the owner gave all but the reserve.
fn room(pool: &DiskPool) -> u64 {
    let size = pool.size();
    (size - reserve(size)).saturating_sub(pool.used)
}

#[cfg(test)]
mod tests;
