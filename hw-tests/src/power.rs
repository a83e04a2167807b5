//! What switches a board's power: a command of somebody else's, which has its time limit and says why it failed.

use crate::lab::Words;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take: a relay is done in milliseconds, a plug on a network within seconds.
pub const SWITCHED_WITHIN: Duration = Duration::from_secs(60);
/// How much of what a command said is quoted, in bytes from its end.
const QUOTED_BYTES_MAX: usize = 2000;

/// Runs a command in a folder, and waits until it has ended. What it says is added to the log: it may leave somebody
/// behind who goes on writing, so there is no pipe to wait for.
pub fn switch(words: &Words, folder: &Path, log: &Path, limit: Duration) -> Result<()> {
    let line = words.line();
    let (program, arguments) = words.split();
    // With a slash in it, it is in the folder of the lab's file, and not where this was started.
    let program = if program.contains('/') { folder.join(program) } else { program.into() };
    let output = File::options().create(true).append(true).open(log)?;
    let begin = output.metadata()?.len() as usize;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).process_group(0);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut child = command
        .spawn()
        .with_context(|| format!("`{line}` cannot be started: is it installed, and spelled so?"))?;
    let said = || match fs::read(log) {
        Ok(bytes) => quote(&bytes[begin.min(bytes.len())..]),
        Err(error) => error.to_string(),
    };
    let by_hand = || format!("try it by hand in {}", folder.display());
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("`{line}`: {status}: {}; {}", said(), by_hand());
            }
            return Ok(());
        }
        if started.elapsed() > limit {
            // With all that it started: it was made the first of a group of its own, and has not been waited for yet.
            let _ended = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            child.wait()?;
            bail!("`{line}` has not ended within {} s: {}; {}", limit.as_secs(), said(), by_hand());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a command said, for a sentence.
fn quote(bytes: &[u8]) -> String {
    let end = &bytes[bytes.len().saturating_sub(QUOTED_BYTES_MAX)..];
    let text = String::from_utf8_lossy(end);
    match text.trim() {
        "" => "it said nothing".into(),
        said => format!("it said \"{}\"", said.replace('\n', " | ")),
    }
}

#[cfg(test)]
mod tests;
