//! This program, as it is started again: by systemd for each task, and by the agent for its guard.

use std::ffi::OsString;
use std::path::PathBuf;

/// The word after `weftd` that makes it the beginning of a task.
pub const EXEC: &str = "exec";
/// After [`EXEC`]: ends well, to show that this program can be executed.
pub const PROBE: &str = "--probe";

/// This very program, also when its file has been replaced since.
pub fn own() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/weftd".into());
    // What the kernel says of a program that an upgrade has replaced; the new one is at its place.
    let text = own.to_string_lossy();
    text.strip_suffix(" (deleted)").map_or_else(|| own.clone(), PathBuf::from)
}

/// The agent's program.
#[cfg(not(test))]
pub fn weftd() -> PathBuf {
    own()
}

/// In the tests of this crate this very program is the tests: the agent's is beside it, or where cargo builds it.
#[cfg(test)]
pub fn weftd() -> PathBuf {
    let own = own();
    let beside = own.with_file_name("weftd");
    let built = own.ancestors().nth(2).map(|folder| folder.join("weftd"));
    Some(beside).filter(|path| path.is_file()).or(built).unwrap_or_default()
}

/// What shows that this program can be executed.
pub fn probe() -> Vec<OsString> {
    vec![weftd().into(), EXEC.into(), PROBE.into()]
}
