//! The guard: ends units whose lease has run out, also while the agent hangs, is stopped or is dead.
//!
//! A unit of an at-most-one job may run only as long as a majority of the voters lets it. Another node
//! counts on its being gone at a known moment, so that moment must not depend on the agent. The guard is
//! a second process of this very program, `weftd guard --dir DIR`, one a node, without a runtime. It is
//! there from the first such unit until no lease is left.
//!
//! Agent and guard share a folder and nothing else:
//!
//! | file | written by | says |
//! |---|---|---|
//! | `<unit>.lease` | agent, anew with every renewal | until when, how to stop, how to find its processes: `lease::LeaseFile` |
//! | `<unit>.answer` | guard, once a run | armed, or why not: `lease::Answer` |
//! | `<unit>.fired` | guard | that it asked the unit to stop, and killed it: [`Fired`] |
//! | `guard` | guard | its process: `lease::Process` |
//!
//! Beside them is `<unit>.words`, where systemd runs the units, which the guard does not read: what a unit becomes when it is
//! executed ([`crate::executor::exec`]).
//!
//! ```text
//!   lease file ──► armed ──────── until ───────► asked ───── until + stop timeout ─────► killing
//!                  │  ▲ renewed   │                                                        │ nobody seen
//!                  │  └───────────┘ read once more before it fires                         │ for a while
//!                  └── removed by the agent: the unit is gone ──► (nothing) ◄──────────────┘
//! ```
//!
//! All times are [`BootTime`]s, which count suspensions. Where the kernel lets it,
//! the guard's timer wakes a suspended machine.
//!
//! Invariant: a unit with a lease runs only while a lease file of its run is there that this guard, or one
//! started since, has read. The agent starts it after the guard's answer; the started process itself
//! looks at the clock before it becomes the task; and the guard ends whatever appears after the end of
//! the lease for as long as the file is there.

use nix::libc;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::clock::BootTime;
use crate::program;
use lease::Folder;

mod lease;
mod leases;
mod reach;
mod watch;

#[cfg(test)]
mod tests;

pub use lease::Fired;
#[cfg(test)]
pub use lease::Folder as LeaseFolder;
#[cfg(any(test, fuzzing))]
pub use lease::LeaseFile;
pub use leases::{Keeper, LeaseOf, Leases, command};
pub use reach::Reach;
pub use watch::WakesUp;

/// The word after `weftd` that makes it a guard.
pub const WORD: &str = "guard";
const FOLDER: &str = "--dir";

/// The guard's command line, after [`WORD`]: `--dir DIR` guards the leases in DIR.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let given: Vec<OsString> = arguments.collect();
    let done = match given.as_slice() {
        [word, folder] if word == FOLDER => watch::guard(Path::new(folder)),
        _ => Err("usage: weftd guard --dir DIR: started by the agent, not by people".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            watch::say(&reason);
            ExitCode::FAILURE
        }
    }
}

/// Where the leases of the agent with this state directory are. `/run` is gone after a reboot; where
/// it cannot be written, the boot's name in each file tells.
pub fn folder_of(state: &Path) -> PathBuf {
    const RUN: &str = "/run/weft-guard";
    let name = format!("{:016x}", crate::hash::fnv1a(state.as_os_str().as_encoded_bytes()));
    let make = || {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(RUN)?;
        nix::unistd::access(RUN, nix::unistd::AccessFlags::W_OK).map_err(std::io::Error::from)
    };
    match make() {
        Ok(()) => Path::new(RUN).join(name),
        Err(_) => state.join(WORD),
    }
}

/// What the guard could do on this machine. Tries it: the folder, the timer, and the program itself.
pub fn probe(folder: &Path) -> Result<WakesUp, String> {
    let said = |error: std::io::Error| format!("{} cannot be written: {error}", folder.display());
    let there = folder.is_dir();
    let own = Folder::new(folder);
    own.make().map_err(said)?;
    let path = folder.join("probe");
    let written = std::fs::write(&path, b"probe").and_then(|()| std::fs::remove_file(&path));
    if !there {
        let _ = std::fs::remove_dir(folder);
    }
    written.map_err(said)?;
    let command = program::probe();
    let name = Path::new(&command[0]).display();
    let ended = std::process::Command::new(&command[0]).args(&command[1..]).status();
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("{name} does not run: {status}")),
        Err(error) => return Err(format!("{name} cannot be executed: {error}")),
    }
    WakesUp::here()
}

/// Whether it is earlier than `until`. Async-signal-safe: for a process between fork and exec.
pub fn is_before(until: BootTime) -> bool {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    let since = std::time::Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32);
    done == 0 && BootTime::after_boot(since) < until
}
