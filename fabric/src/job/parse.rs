//! Reads a job file: TOML text in, a [`JobSpec`] or [`ParseError`]s out.
//!
//! The text is walked by hand over TOML's own tree, so that each error knows its line and column,
//! names the key it is about, and says what to write instead. What is wrong is noted, and the rest is read all the same, so
//! that whoever wrote the file sees all of it at once. Defaults live in [`JobSpec::service`]
//! and the `Default`s of its parts; a key that is absent keeps what is there.

use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

mod placement;

use super::item::{Item, Place, Section};
use super::keys;
use super::{
    Check, CpuRequest, Guarantee, Health, JobKind, JobSpec, NumaPolicy, Port, Resources, Restart,
    Sandbox, Smt, SpecError, Task, TaskFile, TaskVariant, Update,
};
use crate::id::{JobName, Namespace};
use crate::limits;

/// Why a job file is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The key that it is about: `resources.memory`; empty when it is about the text as a whole.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Reads a job file whose `files` are all inline. A `source = "..."` is refused, because the core
/// reads no files: use [`parse_with`].
pub fn parse(text: &str) -> Result<JobSpec, ParseError> {
    parse_with(text, &mut |_| Err("files cannot be read here: write content = \"...\"".into()))
}

/// Reads a job file. `read_file` is given each `source = "..."` as it is written and answers with
/// the file's text, or with the reason why there is none.
///
/// # Errors
/// With the first thing in the file that is wrong.
pub fn parse_with(
    text: &str,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<JobSpec, ParseError> {
    parse_all(text, read_file).map_err(|mut errors| errors.swap_remove(0))
}

/// The same.
///
/// # Errors
/// With everything that is wrong, in the order of the file: one at least, and a few hundred at most. What may be wrong only
/// because something else is, is left out.
pub fn parse_all(
    text: &str,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<JobSpec, Vec<ParseError>> {
    let place = Place::new(text);
    if text.len() > limits::JOB_FILE_BYTES_MAX {
        let message = format!(
            "the job file has {} bytes, {} are allowed",
            text.len(),
            limits::JOB_FILE_BYTES_MAX
        );
        return Err(vec![place.error(0, "", message)]);
    }
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().next().unwrap_or("unreadable");
        vec![place.error(at, "", format!("this is not TOML: {message}"))]
    })?;
    let root = document.get_ref();
    let spec = job(&Section::root(&place, root), read_file);
    let unread: Vec<String> = place.errors().iter().map(|error| error.path.clone()).collect();
    for fault in spec.as_ref().map(JobSpec::faults).unwrap_or_default() {
        if !unread.iter().any(|path| may_follow(&fault, path)) {
            let at = locate(root, &fault.path);
            place.note(place.error(at, fault.path.clone(), fault.to_string()));
        }
    }
    let mut errors = place.into_errors();
    errors.sort_by_key(|error| (error.line, error.column));
    match spec {
        Some(spec) if errors.is_empty() => Ok(spec),
        _ => Err(errors),
    }
}

/// Whether a fault may be there only because what was written at `unread` could not be read.
fn may_follow(fault: &SpecError, unread: &str) -> bool {
    let by = fault.rests_on.iter().copied();
    by.chain([fault.path.as_str()]).any(|path| match path {
        // By its name.
        "port" => names_a_port(unread),
        path => within(path, unread) || within(unread, path),
    })
}

/// Whether the key `path` is `of`, or in it.
fn within(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether a key is that of a port's name, or one that holds it.
fn names_a_port(path: &str) -> bool {
    within(path, "port") && (!path.contains('.') || path.ends_with(".name"))
}

const NUMA: [(&str, NumaPolicy); 3] =
    [("none", NumaPolicy::None), ("prefer", NumaPolicy::Prefer), ("require", NumaPolicy::Require)];
const SMT: [(&str, Smt); 2] = [("whole", Smt::Whole), ("share", Smt::Share)];
const GUARANTEES: [(&str, Guarantee); 2] =
    [("at-least", Guarantee::AtLeast), ("at-most-one", Guarantee::AtMostOne)];
const KINDS: [(&str, JobKind); 2] = [("service", JobKind::Service), ("system", JobKind::System)];

/// The job, as far as it could be read: what was noted says whether that is all of it.
fn job(
    root: &Section<'_>,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Option<JobSpec> {
    root.only(&keys::JOB);
    let name = root.required("name", "the job's name, as in name = \"web\"");
    let name = name.and_then(|name| {
        let read = name.string().and_then(|text| JobName::new(text).map_err(|it| name.error(it)));
        root.take(read)
    });
    let section = root.required(
        "task",
        "a section [task] with a command, as in command = [\"/usr/bin/sleep\", \"60\"]",
    );
    let section = section.and_then(|item| root.take(item.section()));
    // A name that is nobody's: all else is looked at although this one is missing, and nothing comes of it.
    let name = name.or_else(|| JobName::new("job").ok())?;
    let mut spec = JobSpec::service(name, Vec::new());
    if let Some(section) = &section {
        task(section, &mut spec.task, read_file);
    }
    root.set("type", &mut spec.kind, |item| item.choice(&KINDS));
    root.set("count", &mut spec.count, |item| item.integer(0, limits::COUNT_MAX));
    root.set("guarantee", &mut spec.guarantee, |item| item.choice(&GUARANTEES));
    root.set("priority", &mut spec.priority, |item| {
        item.integer(limits::PRIORITY_MIN, limits::PRIORITY_MAX)
    });
    root.set("namespace", &mut spec.namespace, |item| {
        Namespace::new(item.string()?).map_err(|error| item.error(error))
    });
    root.set("gang", &mut spec.gang, Item::boolean);
    if let Some(section) = root.section("resources") {
        resources(&section, &mut spec.resources);
    }
    spec.ports = root.sections("port", port);
    if let Some(section) = root.section("health") {
        let ports = (!root.is_wrong(names_a_port)).then_some(&spec.ports[..]);
        spec.health = Some(health(&section, ports));
    }
    if let Some(section) = root.section("placement") {
        placement::placement(&section, &mut spec.placement);
    }
    if let Some(section) = root.section("update") {
        update(&section, &mut spec.update);
    }
    if let Some(section) = root.section("restart") {
        restart(&section, &mut spec.restart);
    }
    if let Some(section) = root.section("keep") {
        section.only(&keys::KEEP);
        section.set("ended", &mut spec.keep.ended, Item::duration);
    }
    Some(spec)
}

fn task(
    section: &Section<'_>,
    task: &mut Task,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) {
    // Before anything is missed: the missing key may be there under a misspelt name.
    section.only(&keys::TASK);
    // There may be one for each architecture instead.
    if section.item("command").is_some() || section.item("arch").is_none() {
        let command = section.required(
            "command",
            "the program and its arguments, as in command = [\"/usr/bin/sleep\", \"60\"]",
        );
        task.command = command.and_then(|item| section.take(item.strings())).unwrap_or_default();
    }
    task.env = env(section);
    section.set("user", &mut task.user, |item| Ok(Some(item.string()?.into())));
    section.set("working_dir", &mut task.working_dir, |item| Ok(Some(item.string()?.into())));
    task.files = files(section, read_file);
    section.set("stop_signal", &mut task.stop_signal, |item| Ok(item.string()?.into()));
    section.set("stop_timeout", &mut task.stop_timeout, Item::duration);
    if let Some(section) = section.section("sandbox") {
        sandbox(&section, &mut task.sandbox);
    }
    for item in section.section("arch").iter().flat_map(Section::items) {
        if let Some(inner) = section.take(item.section()) {
            task.arch.insert(item.key().into(), variant(&inner, read_file));
        }
    }
}

/// What a task has instead on one architecture.
fn variant(
    section: &Section<'_>,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> TaskVariant {
    section.only(&keys::VARIANT);
    let mut variant = TaskVariant::default();
    section.set("command", &mut variant.command, Item::strings);
    variant.env = env(section);
    section.set("user", &mut variant.user, |item| Ok(Some(item.string()?.into())));
    section.set("working_dir", &mut variant.working_dir, |item| Ok(Some(item.string()?.into())));
    variant.files = files(section, read_file);
    variant
}

fn env(section: &Section<'_>) -> BTreeMap<String, String> {
    let variables = section.section("env");
    let items = variables.iter().flat_map(Section::items);
    items
        .filter_map(|item| Some((item.key().into(), section.take(item.string())?.into())))
        .collect()
}

fn files(
    section: &Section<'_>,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Vec<TaskFile> {
    section.sections("files", |section| file(section, read_file))
}

/// What of a file could be read.
fn file(
    section: &Section<'_>,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> TaskFile {
    section.only(&keys::FILE);
    let path = section.required("path", "the path that the task sees");
    let path = path.and_then(|item| section.take(item.string())).unwrap_or_default().to_owned();
    let content = match (section.item("content"), section.item("source")) {
        (Some(content), None) => content.string().map(str::to_owned),
        (None, Some(source)) => source.string().and_then(|name| {
            read_file(name).map_err(|reason| source.error(format!("{name:?}: {reason}")))
        }),
        (Some(_), Some(source)) => {
            Err(source.error("a file has either content or source, not both"))
        }
        (None, None) => {
            section.required("content", "the file's text (or source = \"./FILE\")");
            Ok(String::new())
        }
    };
    TaskFile { path, content: section.take(content).unwrap_or_default() }
}

fn sandbox(section: &Section<'_>, sandbox: &mut Sandbox) {
    section.only(&keys::SANDBOX);
    for (key, field) in [
        ("enabled", &mut sandbox.enabled),
        ("devices", &mut sandbox.devices),
        ("home", &mut sandbox.home),
        ("new_privileges", &mut sandbox.new_privileges),
    ] {
        section.set(key, field, Item::boolean);
    }
    for (key, field) in [
        ("writable", &mut sandbox.writable),
        ("capabilities", &mut sandbox.capabilities),
        ("syscalls", &mut sandbox.syscalls),
    ] {
        section.set(key, field, Item::strings);
    }
    section.set("tasks_max", &mut sandbox.tasks_max, |item| item.integer(1, limits::TASKS_MAX));
}

fn resources(section: &Section<'_>, resources: &mut Resources) {
    section.only(&keys::RESOURCES);
    resources.cpu = cpu(section, resources.cpu);
    section.set("memory", &mut resources.memory, Item::bytes);
    section.set("swap", &mut resources.swap, Item::bytes);
    section.set("disk", &mut resources.disk, Item::bytes);
    section.set("numa", &mut resources.numa, |item| item.choice(&NUMA));
    if let Some(section) = section.section("hugepages") {
        resources.hugepages = hugepages(&section);
    }
    section.set("devices", &mut resources.devices, Item::strings);
}

fn cpu(section: &Section<'_>, default: CpuRequest) -> CpuRequest {
    let (cores, cpu) = (section.item("cores"), section.item("cpu"));
    let (mut smt, mut hard) = (Smt::default(), false);
    let refuse = |item: Option<Item<'_>>, why: &str| {
        item.is_some_and(|item| section.take::<()>(Err(item.error(why))).is_none())
    };
    if let Some(cores) = cores {
        // Of two that do not go together one is enough to be said.
        if !refuse(cpu, "ask for cores (exclusive) or for cpu (shared), not for both") {
            refuse(
                section.item("cpu_hard"),
                "goes with cpu: exclusive cores are a limit by themselves",
            );
        }
        section.set("smt", &mut smt, |item| item.choice(&SMT));
        let cores = section.take(cores.integer(1, limits::CPUS_MAX as u16)).unwrap_or(1);
        return CpuRequest::Exclusive { cores, smt };
    }
    refuse(section.item("smt"), "goes with cores: shared CPU has no siblings to keep or give away");
    section.set("cpu_hard", &mut hard, Item::boolean);
    let CpuRequest::Shared { mut millis, .. } = default else { return default };
    section.set("cpu", &mut millis, |cpu| {
        let number = cpu.number("a number of CPUs such as 0.5")?;
        let most = limits::CPUS_MAX as f64;
        if !(0.001..=most).contains(&number) {
            return Err(cpu.error(format!("{number} is out of range: 0.001 to {most} CPUs")));
        }
        Ok((number * 1000.0).round() as u32)
    });
    CpuRequest::Shared { millis, hard }
}

fn hugepages(section: &Section<'_>) -> BTreeMap<u32, u32> {
    let mut pools = BTreeMap::new();
    for item in section.items() {
        let size = parse_bytes(item.key()).filter(|size| size % 1024 == 0);
        let size = size.and_then(|size| u32::try_from(size / 1024).ok()).ok_or_else(|| {
            item.error("is not the size of a huge page: write it like \"2MiB\" or \"1GiB\"")
        });
        let count = item.integer(1, limits::HUGEPAGES_MAX);
        if let (Some(size), Some(count)) = (section.take(size), section.take(count))
            && pools.insert(size, count).is_some()
        {
            let again = item.error("this size is there already, written differently");
            section.take::<()>(Err(again));
        }
    }
    pools
}

/// What of a port could be read.
fn port(section: &Section<'_>) -> Port {
    section.only(&keys::PORT);
    let name = section.required("name", "the port's name, as in name = \"http\"");
    let name = name.and_then(|name| section.take(name.string())).unwrap_or_default();
    let mut fixed = None;
    section.set("static", &mut fixed, |item| item.integer(1, u16::MAX).map(Some));
    Port { name: name.into(), fixed }
}

/// What of a check could be read. `ports`: those of the job, if all their names are known.
fn health(section: &Section<'_>, ports: Option<&[Port]>) -> Health {
    section.only(&keys::HEALTH);
    let checks: Vec<_> =
        ["http", "tcp", "command"].iter().filter_map(|key| section.item(key)).collect();
    let check = match &checks[..] {
        [check] => checked(section, check, ports),
        [_, second, ..] => {
            section.take(Err(second.error("a job has one check: http, tcp or command")))
        }
        [] if section.misspells(&["tcp", "command"]) => None,
        [] => {
            section.required("http", "the check (or tcp = true, or command = [\"...\"])");
            None
        }
    };
    // The rest is looked at although there is no check.
    let mut health = Health::new(check.unwrap_or(Check::Command { command: Vec::new() }));
    for (key, field) in [
        ("interval", &mut health.interval),
        ("timeout", &mut health.timeout),
        ("grace", &mut health.grace),
    ] {
        section.set(key, field, Item::duration);
    }
    if section.item("timeout").is_none() {
        health.timeout = health.timeout.min(health.interval);
    }
    section.set("failures", &mut health.failures, |item| item.integer(1, limits::FAILURES_MAX));
    health
}

/// The one check that is there, as far as it could be read; `None`: not even so far.
fn checked(section: &Section<'_>, check: &Item<'_>, ports: Option<&[Port]>) -> Option<Check> {
    match check.key() {
        "http" => {
            let path = section.take(check.string());
            let port = section.take(checked_port(section, check, ports));
            Some(Check::Http {
                path: path.unwrap_or_default().into(),
                port: port.unwrap_or_default(),
            })
        }
        "tcp" => {
            let on = section.take(check.boolean());
            if on == Some(false) {
                section.take::<()>(Err(check.error("to have no check, leave [health] out")));
            }
            let port = section.take(checked_port(section, check, ports));
            on.map(|_| Check::Tcp { port: port.unwrap_or_default() })
        }
        _ => {
            if let Some(port) = section.item("port") {
                let message = "goes with http or tcp: a command knows ${port.NAME}";
                section.take::<()>(Err(port.error(message)));
            }
            Some(Check::Command { command: section.take(check.strings())? })
        }
    }
}

/// The port that a check asks: the one it names, or the only one there is.
fn checked_port(
    section: &Section<'_>,
    check: &Item<'_>,
    ports: Option<&[Port]>,
) -> Result<String, ParseError> {
    match (section.item("port"), ports) {
        (Some(port), _) => Ok(port.string()?.into()),
        // Which there are is not known.
        (None, None) => Ok(String::new()),
        (None, Some([only])) => Ok(only.name.clone()),
        (None, Some([])) => {
            let error = check.error("the job has no port to check: add [[port]] with a name");
            // It is about the check's port, wherever that is to be seen.
            Err(ParseError { path: "health.port".into(), ..error })
        }
        (None, Some(_)) => Err(section.missing("port", "the name of the port to check")),
    }
}

fn update(section: &Section<'_>, update: &mut Update) {
    section.only(&keys::UPDATE);
    section
        .set("max_parallel", &mut update.max_parallel, |item| item.integer(1, limits::COUNT_MAX));
    section.set("min_healthy", &mut update.min_healthy, Item::duration);
    section.set("deadline", &mut update.deadline, Item::duration);
    section.set("auto_revert", &mut update.auto_revert, Item::boolean);
}

fn restart(section: &Section<'_>, restart: &mut Restart) {
    section.only(&keys::RESTART);
    section.set("attempts", &mut restart.attempts, |item| item.integer(0, limits::FAILURES_MAX));
    section.set("within", &mut restart.within, Item::duration);
    section.set("delay", &mut restart.delay, Item::duration);
}

/// Where in the text the thing at `path` (`port[1].name`) is, or else what surrounds it most closely.
fn locate(root: &DeTable<'_>, path: &str) -> usize {
    let (mut table, mut path, mut at) = (root, path, 0);
    loop {
        // A key may itself contain dots: the longest one that fits is meant.
        let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        let found = table
            .iter()
            .filter(|(key, _)| path.strip_prefix(&**key.get_ref()).is_some_and(ends))
            .max_by_key(|(key, _)| key.get_ref().len());
        let Some((key, value)) = found else { return at };
        path = &path[key.get_ref().len()..];
        at = if value.get_ref().is_table() { key.span().start } else { value.span().start };
        let mut value: &Spanned<DeValue<'_>> = value;
        while let Some((index, rest)) = path.strip_prefix('[').and_then(|path| path.split_once(']'))
        {
            let element = index.parse::<usize>().ok().and_then(|index| value.get_ref().get(index));
            let Some(element) = element else { return at };
            (value, path, at) = (element, rest, element.span().start);
        }
        let (Some(inner), Some(rest)) = (value.get_ref().as_table(), path.strip_prefix('.')) else {
            return at;
        };
        (table, path) = (inner, rest);
    }
}

/// The nearest of `names`, if one is near enough to be a slip of the fingers.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if wrong.len() > LONGEST {
        return None;
    }
    let wrong = wrong.to_lowercase();
    names
        .map(|name| (strsim::damerau_levenshtein(&wrong, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Units of memory. `K`, `M` and `G` alone are left out: people disagree on what they mean.
const BYTE_UNITS: [(&str, u64); 12] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `64MiB`, `1.5GiB`, `500MB` or `1000` as bytes, rounded down; `None` for all else, also for
/// more than fits.
pub fn parse_bytes(text: &str) -> Option<u64> {
    const DECIMALS_MAX: usize = 9;
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(decimals) || decimals.len() > DECIMALS_MAX {
        return None;
    }
    let (_, factor) = BYTE_UNITS.iter().find(|(name, _)| *name == unit)?;
    if *factor == 1 && number.contains('.') {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?) * u128::from(*factor);
    let scale = 10u128.pow(decimals.len() as u32);
    let part = u128::from(decimals.parse::<u64>().ok()?) * u128::from(*factor) / scale;
    u64::try_from(whole + part).ok()
}

#[cfg(test)]
mod tests;
