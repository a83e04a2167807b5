//! What the Tab key finds: commands and options from the parser, and names of jobs, slots and nodes from the agent. Whoever
//! presses it waits for nothing: without an agent, or with a slow one, there are no names, and nothing is said.

use clap::{Command, CommandFactory};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Shells, Zsh};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::arguments::{Arguments, Shell};
use crate::context;

/// All of it, from the connection to the last byte.
const BUDGET: Duration = Duration::from_millis(80);
/// Bytes of an answer that are read: names of a few thousand jobs.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Set by the shell's script: says which shell it is.
const VARIABLE: &str = "COMPLETE";

/// What names there are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Jobs,
    /// Jobs, and their slots once there is a slash.
    Slots,
    Nodes,
}

/// Arguments whose values the agent knows: command, argument, of what.
const NAMED: &[(&str, &str, Of)] = &[
    ("rollback", "job", Of::Jobs),
    ("ps", "job", Of::Jobs),
    ("jobs", "job", Of::Jobs),
    ("explain", "job", Of::Jobs),
    ("why-slow", "job", Of::Jobs),
    ("scale", "job", Of::Jobs),
    ("stop", "job", Of::Jobs),
    ("wait", "job", Of::Jobs),
    ("logs", "what", Of::Slots),
    ("restart", "what", Of::Slots),
    ("trace", "what", Of::Slots),
    ("profile", "what", Of::Slots),
    ("logs", "node", Of::Nodes),
    ("node", "node", Of::Nodes),
    ("drain", "node", Of::Nodes),
    ("undrain", "node", Of::Nodes),
];

/// Answers a shell's script, if that is who started this program. Then it ends here.
pub fn if_asked() {
    CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .bin("weft")
        .completer("weft")
        .shells(Shells(&[&Bash, &Zsh, &Fish]))
        .complete();
}

/// The script that makes a shell ask.
pub fn script(shell: Shell) -> std::io::Result<Vec<u8>> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "weft", "weft", "weft", &mut script)?;
    if shell.is("zsh") {
        // As a file among zsh's functions it is run by the first Tab, which must find something, too.
        script.extend_from_slice(
            b"[[ $funcstack[1] != _weft ]] || _clap_dynamic_completer_weft \"$@\"\n",
        );
    }
    Ok(script)
}

/// The parser, with what completes the values of its arguments.
fn command() -> Command {
    NAMED.iter().fold(Arguments::command(), |command, (verb, argument, of)| {
        let of = *of;
        let completer = ArgValueCompleter::new(move |typed: &OsStr| candidates(of, typed));
        command.mut_subcommand(verb, |verb| verb.mut_arg(argument, |it| it.add(completer)))
    })
}

fn candidates(of: Of, typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let Some(socket) = context::local_socket() else { return Vec::new() };
    let path = match of {
        Of::Jobs => "/v1/jobs",
        Of::Slots if typed.contains('/') => "/v1/allocs",
        Of::Slots => "/v1/jobs",
        Of::Nodes => "/v1/nodes",
    };
    let mut names = ask(socket, path).unwrap_or_default();
    names.retain(|name| name.starts_with(typed));
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// Asks on a thread of its own, which nobody waits for longer than the budget: a connection to a socket has no time limit.
fn ask(socket: PathBuf, path: &'static str) -> Option<Vec<String>> {
    let (answer, answered) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("names".into());
    let asks = move || answer.send(names(&socket, path)).ok();
    thread.spawn(asks).ok()?;
    answered.recv_timeout(BUDGET).ok()?
}

fn names(socket: &Path, path: &str) -> Option<Vec<String>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(BUDGET)).ok()?;
    stream.set_write_timeout(Some(BUDGET)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: weft\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).ok()?;
    named(&answer)
}

/// The names in an answer.
fn named(answer: &[u8]) -> Option<Vec<String>> {
    const END_OF_HEAD: &[u8] = b"\r\n\r\n";
    let at = answer.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD)?;
    let (head, body) = (answer.get(..at)?, answer.get(at + END_OF_HEAD.len()..)?);
    let status = head.split(|byte| *byte == b' ').nth(1)?;
    let things: Vec<serde_json::Value> =
        serde_json::from_slice(body).ok().filter(|_| status == b"200")?;
    let name = |thing: &serde_json::Value| match thing["name"].as_str() {
        Some(name) => Some(name.to_owned()),
        None => {
            let slot = &thing["id"]["slot"];
            match slot.as_str() {
                Some(slot) => Some(slot.to_owned()),
                None => Some(format!("{}/{}", slot["job"].as_str()?, slot["index"].as_u64()?)),
            }
        }
    };
    // What a shell is shown must not be taken for anything but a name.
    let plain =
        |name: &String| name.chars().all(|char| char.is_alphanumeric() || "-_./".contains(char));
    Some(things.iter().filter_map(name).filter(plain).collect())
}

#[cfg(test)]
mod tests;
