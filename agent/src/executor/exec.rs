//! What systemd starts in place of a task: this program, `weftd exec`, which becomes the task.
//!
//! systemd reads a unit's file again at every `daemon-reload`, and does not read back everything as it wrote it: a command with
//! `;` or `$` in it comes back as another command, and a condition is gone. So a unit's file says `weftd exec` and
//! no more, and the words of the task are in a file of ours that systemd opens as its standard input. Whoever
//! starts the unit, and whenever, starts the same command; once the file is gone, nothing.
//!
//! It runs inside the task's sandbox, as the task's user, in the task's cgroup:
//!
//! ```text
//!   read the words ──► does its lease, if it needs one, still run? ──► standard input: nothing ──► become the task
//!         │ none, or not ours            │ no                                                          │ refused
//!         └─────────────────────────────►┴── "weft: not executed: REASON" on standard error, status 203 ◄──┘
//! ```
//!
//! The look at the clock comes last, and inside the cgroup that the guard watches: whoever is late is killed there.

use nix::libc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::clock::BootTime;
use crate::guard;
use crate::process;
use crate::program;
use fabric::cpuset::CpuSet;

/// Its exit status when it does not become the task: the one that systemd has for the same.
pub const FAILED: i32 = 203;
/// What its last line begins with then.
const SAYS: &str = "weft: not executed: ";
/// How the reason begins when the lease was over.
const TOO_LATE: &str = "its lease ran out before it was executed";
/// Goes into every file: a program of another version understands it or says so.
const FORMAT: u32 = 1;
/// Bytes of a file: a job's text and what the agent adds to its environment, as JSON.
const BYTES_MAX: u64 = 1 << 20;
/// Bytes of a last line that is looked for.
const LINE_BYTES_MAX: u64 = 4 << 10;
/// Follows a unit's name in the file's.
const KIND: &str = ".words";

/// What a unit's file cannot hold without being changed: the words of its task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    format: u32,
    /// Which run they belong to.
    pub run: u32,
    /// Not executed from then on; `None`: it needs no lease.
    pub until: Option<BootTime>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Added to what systemd sets.
    pub environment: BTreeMap<String, String>,
    /// All its memory comes from these nodes, if any are named: what systemd is told of that it does not write down.
    pub mems: CpuSet,
}

impl Words {
    /// The words of a run.
    pub fn new(
        run: u32,
        until: Option<BootTime>,
        command: Vec<String>,
        environment: BTreeMap<String, String>,
        mems: CpuSet,
    ) -> Self {
        Self { format: FORMAT, run, until, command, environment, mems }
    }

    /// Becomes the task; the error says why not.
    fn become_task(&self) -> Result<Infallible, String> {
        if self.format != FORMAT {
            return Err(format!("its words have format {}, and not {FORMAT}", self.format));
        }
        let (program, arguments) = self.command.split_first().ok_or("its command is empty")?;
        let text = |bytes: Vec<u8>| {
            CString::new(bytes).map_err(|_| "its command holds a zero byte".to_owned())
        };
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let own = self.environment.iter().map(|(name, value)| (name.into(), value.into()));
        environment.extend(own);
        let environment = environment.into_iter().map(|(mut pair, value)| {
            pair.push("=");
            pair.push(value);
            text(pair.into_vec())
        });
        let environment = environment.collect::<Result<Vec<_>, _>>()?;
        let words = std::iter::once(program).chain(arguments);
        let words = words.map(|word| text(word.clone().into_bytes()));
        let words = words.collect::<Result<Vec<_>, _>>()?;
        let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
            list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (words_at, environment_at) = (pointers(&words), pointers(&environment));
        self.bind_memory()?;
        let nothing = File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
        // SAFETY: no memory is passed.
        if unsafe { libc::dup2(nothing.as_raw_fd(), libc::STDIN_FILENO) } < 0 {
            return Err(format!("its standard input: {}", io::Error::last_os_error()));
        }
        if self.until.is_some_and(|until| !guard::is_before(until)) {
            return Err(TOO_LATE.into());
        }
        // Not the standard library's: it would change what the task does when a pipe breaks.
        // SAFETY: all pointers are to C strings that live through the call, and both lists end with null.
        unsafe { libc::execve(words[0].as_ptr(), words_at.as_ptr(), environment_at.as_ptr()) };
        Err(refused(program, &io::Error::last_os_error()))
    }
}

impl Words {
    fn bind_memory(&self) -> Result<(), String> {
        if self.mems.is_empty() {
            return Ok(());
        }
        let own = std::process::id();
        let is_bound = process::status(own).is_some_and(|status| {
            self.mems.contains_all(&process::memory_nodes(own, &status.mems))
        });
        // At its first start it is. Its filter of system calls may not let it do that once more.
        match is_bound {
            true => Ok(()),
            false => process::Mask::of(&self.mems).bind_memory().map_err(|error| {
                format!("it cannot be bound to memory nodes {}: {error}", self.mems)
            }),
        }
    }
}

/// Why the kernel did not execute a program, in words.
fn refused(program: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) if Path::new(program).exists() => {
            format!("{program} cannot be executed: what it is to be run with is missing")
        }
        Some(libc::ENOENT | libc::ENOTDIR) => {
            format!("{program} cannot be executed: it is not there, or hidden from this task")
        }
        Some(libc::EACCES) => {
            format!("{program} cannot be executed: its user may not, or it is not a program")
        }
        Some(libc::ENOEXEC) => {
            format!("{program} cannot be executed: it is not a program of this machine")
        }
        _ => format!("{program} cannot be executed: {error}"),
    }
}

/// `weftd exec`: becomes the task whose words are on standard input.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    if arguments.next().is_some_and(|word| word == program::PROBE) {
        return ExitCode::SUCCESS;
    }
    let words = read(io::stdin().lock()).map_err(|error| {
        format!("its words cannot be read: {error}: started by systemd, not by people")
    });
    let Err(reason) = words.and_then(|words| words.become_task());
    let _ = writeln!(io::stderr(), "{SAYS}{reason}");
    ExitCode::from(FAILED as u8)
}

pub(crate) fn read(from: impl Read) -> io::Result<Words> {
    let mut bytes = Vec::new();
    from.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("more than {BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

/// The folder with the words of this node's units. Clones are the same one.
///
/// Nobody but root can look into it: an environment may hold secrets.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`; not made yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where the words of a unit are.
    pub fn path(&self, unit: &str) -> PathBuf {
        self.0.join(format!("{unit}{KIND}"))
    }

    /// Writes the words of a unit, all or nothing.
    pub fn write(&self, unit: &str, words: &Words) -> io::Result<()> {
        let bytes = serde_json::to_vec(words)?;
        // A guard that ends takes the empty folder along.
        self.write_once(unit, &bytes).or_else(|_| self.write_once(unit, &bytes))
    }

    fn write_once(&self, unit: &str, bytes: &[u8]) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let new = self.0.join(format!(".{unit}{KIND}"));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        std::fs::rename(new, self.path(unit))
    }

    /// A lease was renewed: its run may be executed until then. Nothing is written for a unit without words.
    pub fn extend(&self, unit: &str, run: u32, until: BootTime) -> io::Result<()> {
        let mut words = match File::open(self.path(unit)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => read(file?)?,
        };
        match words.until {
            Some(before) if words.run == run && before < until => {
                words.until = Some(until);
                self.write(unit, &words)
            }
            _ => Ok(()),
        }
    }

    /// Nobody executes this unit from now on, but who has opened its words already.
    pub fn remove(&self, unit: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(unit)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Units that have words.
    pub fn units(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let unit = |entry: std::fs::DirEntry| {
            Some(entry.file_name().to_str()?.strip_suffix(KIND)?.to_owned())
        };
        entries.filter_map(unit).filter(|unit| !unit.starts_with('.')).collect()
    }
}

/// Why it did not become the task, if that is the last that a unit's standard error says after its first `from` bytes.
pub fn reason(stderr: &Path, from: u64) -> Option<String> {
    let mut file = File::open(stderr).ok()?;
    let length = file.metadata().ok()?.len();
    // What was cut off at the front is of earlier runs.
    let from = if from > length { 0 } else { from };
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(LINE_BYTES_MAX)))).ok()?;
    let mut bytes = Vec::new();
    file.take(LINE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().next_back()?.strip_prefix(SAYS).map(str::to_owned)
}

/// The command line that becomes a task.
pub fn command() -> Result<Vec<String>, String> {
    let own = program::weftd().into_os_string().into_string();
    let own = own.map_err(|path| format!("{} is not UTF-8", path.display()))?;
    Ok(vec![own, program::EXEC.into()])
}

/// Whether a process has become a task: it was told something, and none of these commands of ours.
pub fn is_a_task(pid: u32, ours: &[Vec<String>]) -> bool {
    let Ok(words) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    // Empty in the moment of its execution, and from the moment that it ends, before it is a zombie.
    let is_ours = |command: &Vec<String>| {
        words.iter().copied().eq(command.iter().flat_map(|word| word.bytes().chain([0])))
    };
    !words.is_empty() && !ours.iter().any(is_ours)
}

#[cfg(test)]
mod tests;
