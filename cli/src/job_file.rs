//! Where a spec comes from: a job file, or the flags of `weft run`.

use fabric::id::JobName;
use fabric::job::{Check, CpuRequest, Health, JobKind, JobSpec, NumaPolicy, Port, Smt, parse_all};
use fabric::limits;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::arguments::{Numa, Run};
use crate::exit::{Exit, Failure};
use crate::screen::{self, Screen};
use crate::text;

/// Reads job files, and those in folders, by name. When one makes no sense, none is returned, and all that is wrong is said.
pub fn read_all<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> Result<Vec<JobSpec>, Failure> {
    let (mut read_from, mut wrong): (BTreeMap<JobName, PathBuf>, Vec<String>) = Default::default();
    let mut specs: Vec<JobSpec> = Vec::new();
    for path in paths {
        let files = files_of(path).unwrap_or_else(|reason| {
            wrong.push(reason);
            Vec::new()
        });
        for file in files {
            let spec = match read_noting_all(&file) {
                Ok(spec) => spec,
                Err(lines) => {
                    wrong.extend(lines);
                    continue;
                }
            };
            if let Some(first) = read_from.get(&spec.name) {
                let (name, file, first) = (&spec.name, file.display(), first.display());
                wrong.push(format!("{file}: a second job {name}: the first one is in {first}"));
                continue;
            }
            read_from.insert(spec.name.clone(), file);
            specs.push(spec);
        }
    }
    if wrong.is_empty() { Ok(specs) } else { Err(refused(wrong)) }
}

/// Files that make no sense: what is wrong with them, as much as is shown at a time.
fn refused(mut wrong: Vec<String>) -> Failure {
    let more = wrong.len().saturating_sub(ERRORS_SHOWN_MAX);
    if more > 0 {
        wrong.truncate(ERRORS_SHOWN_MAX);
        wrong.push(format!("and {more} more errors"));
    }
    Failure::Listed(Exit::Usage, wrong)
}

/// The job files that a path means: itself, or those in it.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, String> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("{shown}: {error}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|it| it == "toml") && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(format!("{shown}: there is no job file (NAME.toml) in this folder")),
        false => Ok(files),
    }
}

/// Reads a job file; `-` is stdin. A `source = "./x"` is read relative to the file.
pub fn read(path: &Path) -> Result<JobSpec, Failure> {
    if path.is_dir() {
        let shown = path.display();
        return Err(Failure::usage(format!(
            "{shown}: is a folder, not a job file: name one of those in it"
        )));
    }
    read_noting_all(path).map_err(refused)
}

/// The same; all that is wrong, a line each.
fn read_noting_all(path: &Path) -> Result<JobSpec, Vec<String>> {
    let stdin = path == Path::new("-");
    let shown = if stdin { "stdin".into() } else { path.display().to_string() };
    let text = if stdin { text_of(std::io::stdin()) } else { file(path) };
    let text = text.map_err(|reason| vec![format!("{shown}: {reason}")])?;
    let directory = if stdin { None } else { path.parent() };
    let mut read_file = |source: &str| source_of(&directory.unwrap_or(Path::new("")).join(source));
    parse_all(&text, &mut read_file).map_err(|errors| {
        let foreign = foreign(&text).map(|advice| format!("; {advice}")).unwrap_or_default();
        let mut lines: Vec<String> =
            errors.iter().map(|error| screen::printable(&format!("{shown}:{error}"))).collect();
        if let Some(first) = lines.first_mut() {
            first.push_str(&foreign);
        }
        lines
    })
}

/// What is wrong with job files and is shown at a time, in the order of the files.
const ERRORS_SHOWN_MAX: usize = 20;

fn file(path: &Path) -> Result<String, String> {
    if path.is_dir() {
        return Err("is a folder, not a job file".into());
    }
    text_of(File::open(path).map_err(|error| error.to_string())?)
}

/// What a job takes along. Nobody waits for whoever writes into a pipe.
fn source_of(path: &Path) -> Result<String, String> {
    let known = std::fs::metadata(path).map_err(|error| error.to_string())?;
    match known.is_file() || known.is_dir() {
        true => file(path),
        false => Err("is not a regular file".into()),
    }
}

/// Of whom a file is that is no job file of weft's, and what to do.
fn foreign(text: &str) -> Option<&'static str> {
    let begins = |words: &str| text.lines().any(|line| line.trim_end().starts_with(words));
    if begins("apiVersion:") && begins("kind:") {
        return Some(
            "this is a Kubernetes manifest: weft reads TOML, a job a file: `command`, `count`, `cores` and `memory` of a \
             Deployment have keys of the same meaning. docs/examples has job files to begin with",
        );
    }
    if begins("services:") {
        return Some(
            "this is a Compose file: weft reads TOML, a job a file, and runs programs of the node, not images: one job for each \
             service. docs/examples has job files to begin with",
        );
    }
    let hcl =
        |line: &str| line.trim_start().starts_with("job \"") && line.trim_end().ends_with('{');
    if text.lines().any(hcl) {
        return Some(
            "this is a job of Nomad's in HCL: weft reads TOML: `count` and `[resources]` are alike, a task's `config` is \
             `[task] command = [...]`. docs/examples has job files to begin with",
        );
    }
    let image = |line: &str| {
        let rest = line.trim_start().strip_prefix("image");
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines().any(image).then_some(
        "weft does not run images of containers yet: `command` is a program that the node has, with its whole path",
    )
}

fn text_of(from: impl Read) -> Result<String, String> {
    text::read(from, limits::JOB_FILE_BYTES_MAX, "a job")
}

/// The job that `weft run` describes.
pub fn from_flags(run: Run, screen: &Screen) -> Result<JobSpec, Failure> {
    let mut command = run.command;
    let program = program(&command[0], screen)?;
    let name = match run.name.or(run.called) {
        Some(name) => name,
        None => {
            let stem = Path::new(&program).file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
            JobName::new(stem)
                .map_err(|error| Failure::usage(format!("{error}; choose one with --name")))?
        }
    };
    command[0] = program;
    let mut spec = JobSpec::service(name, command);
    spec.kind = if run.system { JobKind::System } else { JobKind::Service };
    spec.count = run.count;
    spec.task.env = run.env.into_iter().collect();
    spec.task.user = run.user;
    if let Some(cores) = run.cores {
        spec.resources.cpu = CpuRequest::Exclusive { cores, smt: Smt::Whole };
    } else if let Some(cpus) = run.cpu {
        if !(0.001..=limits::CPUS_MAX as f64).contains(&cpus) {
            return Err(Failure::usage(format!("--cpu {cpus}: out of range")));
        }
        let millis = (cpus * 1000.0).round() as u32;
        spec.resources.cpu = CpuRequest::Shared { millis, hard: false };
    }
    if let Some(memory) = run.memory {
        spec.resources.memory = memory;
    }
    if let Some(disk) = run.disk {
        spec.resources.disk = disk;
    }
    spec.resources.numa = match run.numa {
        None | Some(Numa::None) => NumaPolicy::None,
        Some(Numa::Prefer) => NumaPolicy::Prefer,
        Some(Numa::Require) => NumaPolicy::Require,
    };
    spec.resources.devices = run.devices;
    spec.ports = run.ports.into_iter().map(|(name, fixed)| Port { name, fixed }).collect();
    spec.placement.constraints = run.constraints;
    let first_port = || match spec.ports.first() {
        Some(port) => Ok(port.name.clone()),
        None => Err(Failure::usage("--http and --tcp check a port: add --port NAME")),
    };
    spec.health = match run.http {
        Some(path) => Some(Health::new(Check::Http { path, port: first_port()? })),
        None if run.tcp => Some(Health::new(Check::Tcp { port: first_port()? })),
        None => None,
    };
    spec.validate().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(spec)
}

/// Where packages put programs, on every machine alike.
const PACKAGED: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// Where people put them, on their own.
const PRIVATE: [&str; 3] = ["/home", "/root", "/tmp"];

/// The absolute path of `program`: nodes look nothing up. A bare name is looked up here, which says
/// nothing about other machines, so it is said aloud.
fn program(program: &str, screen: &Screen) -> Result<String, Failure> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let packaged = PACKAGED.iter().map(PathBuf::from);
    let found: Option<PathBuf> = packaged
        .chain(std::env::split_paths(&directories))
        .map(|directory| directory.join(program))
        .find(|path| path.is_absolute() && path.is_file());
    match found.as_deref().and_then(Path::to_str) {
        Some(path) if PRIVATE.iter().any(|private| Path::new(path).starts_with(private)) => {
            Err(Failure::usage(format!(
                "{program} is {path} on this machine, which other nodes hardly have: write the absolute path that all have"
            )))
        }
        Some(path) => {
            screen
                .say(&format!("{program} is {path} on this machine, and is expected there on all"));
            Ok(path.into())
        }
        None => Err(Failure::usage(format!(
            "{program:?} is not on this machine's PATH: write the absolute path that the nodes have"
        ))),
    }
}
