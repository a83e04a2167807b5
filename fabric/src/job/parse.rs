//! Reads a job file: TOML text in, a [`JobSpec`] or one [`ParseError`] out.
//!
//! The text is walked by hand over TOML's own tree, so that each error knows its line and column,
//! names the key it is about, and says what to write instead. Defaults live in [`JobSpec::service`]
//! and the `Default`s of its parts; a key that is absent keeps what is there.

use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

mod placement;

use super::item::{Item, Place, Section};
use super::keys;
use super::{
    Check, CpuRequest, Guarantee, Health, JobKind, JobSpec, Keep, NumaPolicy, Port, Resources,
    Restart, Sandbox, Smt, Task, TaskFile, TaskVariant, Update,
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
pub fn parse_with(
    text: &str,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<JobSpec, ParseError> {
    let place = Place::new(text);
    if text.len() > limits::JOB_FILE_BYTES_MAX {
        let message = format!(
            "the job file has {} bytes, {} are allowed",
            text.len(),
            limits::JOB_FILE_BYTES_MAX
        );
        return Err(place.error(0, message));
    }
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().next().unwrap_or("unreadable");
        place.error(at, format!("this is not TOML: {message}"))
    })?;
    let root = document.get_ref();
    let spec = job(&Section::root(&place, root), read_file)?;
    spec.validate().map_err(|error| place.error(locate(root, &error.path), error.to_string()))?;
    Ok(spec)
}

const NUMA: [(&str, NumaPolicy); 3] =
    [("none", NumaPolicy::None), ("prefer", NumaPolicy::Prefer), ("require", NumaPolicy::Require)];
const SMT: [(&str, Smt); 2] = [("whole", Smt::Whole), ("share", Smt::Share)];
const GUARANTEES: [(&str, Guarantee); 2] =
    [("at-least", Guarantee::AtLeast), ("at-most-one", Guarantee::AtMostOne)];
const KINDS: [(&str, JobKind); 2] = [("service", JobKind::Service), ("system", JobKind::System)];

fn job(
    root: &Section<'_>,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<JobSpec, ParseError> {
    root.only(&keys::JOB)?;
    let name = root.required("name", "the job's name, as in name = \"web\"")?;
    let name = JobName::new(name.string()?).map_err(|error| name.error(error))?;
    let section = root
        .required(
            "task",
            "a section [task] with a command, as in command = [\"/usr/bin/sleep\", \"60\"]",
        )?
        .section()?;
    // Before anything is missed: the missing key may be there under a misspelt name.
    section.only(&keys::TASK)?;
    let command = match section.item("command") {
        // There may be one for each architecture instead.
        None if section.item("arch").is_some() => Vec::new(),
        _ => section
            .required(
                "command",
                "the program and its arguments, as in command = [\"/usr/bin/sleep\", \"60\"]",
            )?
            .strings()?,
    };
    let mut spec = JobSpec::service(name, command);
    if let Some(item) = root.item("type") {
        spec.kind = item.choice(&KINDS)?;
    }
    if let Some(item) = root.item("count") {
        spec.count = item.integer(0, limits::COUNT_MAX)?;
    }
    if let Some(item) = root.item("guarantee") {
        spec.guarantee = item.choice(&GUARANTEES)?;
    }
    if let Some(item) = root.item("priority") {
        spec.priority = item.integer(limits::PRIORITY_MIN, limits::PRIORITY_MAX)?;
    }
    if let Some(item) = root.item("namespace") {
        spec.namespace = Namespace::new(item.string()?).map_err(|error| item.error(error))?;
    }
    if let Some(item) = root.item("gang") {
        spec.gang = item.boolean()?;
    }
    task(&section, &mut spec.task, read_file)?;
    if let Some(item) = root.item("resources") {
        resources(&item.section()?, &mut spec.resources)?;
    }
    if let Some(item) = root.item("port") {
        spec.ports =
            item.list()?.iter().map(|item| port(&item.section()?)).collect::<Result<_, _>>()?;
    }
    if let Some(item) = root.item("health") {
        spec.health = Some(health(&item.section()?, &spec.ports)?);
    }
    if let Some(item) = root.item("placement") {
        placement::placement(&item.section()?, &mut spec.placement)?;
    }
    if let Some(item) = root.item("update") {
        update(&item.section()?, &mut spec.update)?;
    }
    if let Some(item) = root.item("restart") {
        restart(&item.section()?, &mut spec.restart)?;
    }
    if let Some(item) = root.item("keep") {
        keep(&item.section()?, &mut spec.keep)?;
    }
    Ok(spec)
}

fn task(
    section: &Section<'_>,
    task: &mut Task,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<(), ParseError> {
    task.env = env(section)?;
    if let Some(item) = section.item("user") {
        task.user = Some(item.string()?.into());
    }
    if let Some(item) = section.item("working_dir") {
        task.working_dir = Some(item.string()?.into());
    }
    task.files = files(section, read_file)?;
    if let Some(item) = section.item("stop_signal") {
        task.stop_signal = item.string()?.into();
    }
    if let Some(item) = section.item("stop_timeout") {
        task.stop_timeout = item.duration()?;
    }
    if let Some(item) = section.item("sandbox") {
        sandbox(&item, &mut task.sandbox)?;
    }
    if let Some(item) = section.item("arch") {
        for item in item.section()?.items() {
            let variant = variant(&item.section()?, read_file)?;
            task.arch.insert(item.key().into(), variant);
        }
    }
    Ok(())
}

/// What a task has instead on one architecture.
fn variant(
    section: &Section<'_>,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<TaskVariant, ParseError> {
    section.only(&keys::VARIANT)?;
    let text = |key| section.item(key).map(|item| item.string().map(str::to_owned)).transpose();
    Ok(TaskVariant {
        command: section
            .item("command")
            .map(|item| item.strings())
            .transpose()?
            .unwrap_or_default(),
        env: env(section)?,
        user: text("user")?,
        working_dir: text("working_dir")?,
        files: files(section, read_file)?,
    })
}

fn env(section: &Section<'_>) -> Result<BTreeMap<String, String>, ParseError> {
    let Some(item) = section.item("env") else { return Ok(BTreeMap::new()) };
    let items = item.section()?.items();
    items.iter().map(|item| Ok((item.key().into(), item.string()?.into()))).collect()
}

fn files(
    section: &Section<'_>,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<Vec<TaskFile>, ParseError> {
    let Some(item) = section.item("files") else { return Ok(Vec::new()) };
    item.list()?.iter().map(|item| file(&item.section()?, read_file)).collect()
}

fn file(
    section: &Section<'_>,
    read_file: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<TaskFile, ParseError> {
    section.only(&keys::FILE)?;
    let path = section.required("path", "the path that the task sees")?.string()?.to_owned();
    let content = match (section.item("content"), section.item("source")) {
        (Some(content), None) => content.string()?.to_owned(),
        (None, Some(source)) => {
            let name = source.string()?;
            read_file(name).map_err(|reason| source.error(format!("{name:?}: {reason}")))?
        }
        (Some(_), Some(source)) => {
            return Err(source.error("a file has either content or source, not both"));
        }
        (None, None) => {
            return Err(section.missing("content", "the file's text (or source = \"./FILE\")"));
        }
    };
    Ok(TaskFile { path, content })
}

fn sandbox(item: &Item<'_>, sandbox: &mut Sandbox) -> Result<(), ParseError> {
    let section = item.section()?;
    section.only(&keys::SANDBOX)?;
    for (key, field) in [
        ("enabled", &mut sandbox.enabled),
        ("devices", &mut sandbox.devices),
        ("home", &mut sandbox.home),
        ("new_privileges", &mut sandbox.new_privileges),
    ] {
        if let Some(item) = section.item(key) {
            *field = item.boolean()?;
        }
    }
    for (key, field) in [
        ("writable", &mut sandbox.writable),
        ("capabilities", &mut sandbox.capabilities),
        ("syscalls", &mut sandbox.syscalls),
    ] {
        if let Some(item) = section.item(key) {
            *field = item.strings()?;
        }
    }
    if let Some(item) = section.item("tasks_max") {
        sandbox.tasks_max = item.integer(1, limits::TASKS_MAX)?;
    }
    Ok(())
}

fn resources(section: &Section<'_>, resources: &mut Resources) -> Result<(), ParseError> {
    section.only(&keys::RESOURCES)?;
    resources.cpu = cpu(section, resources.cpu)?;
    if let Some(item) = section.item("memory") {
        resources.memory = item.bytes()?;
    }
    if let Some(item) = section.item("swap") {
        resources.swap = item.bytes()?;
    }
    if let Some(item) = section.item("disk") {
        resources.disk = item.bytes()?;
    }
    if let Some(item) = section.item("numa") {
        resources.numa = item.choice(&NUMA)?;
    }
    if let Some(item) = section.item("hugepages") {
        resources.hugepages = hugepages(&item.section()?)?;
    }
    if let Some(item) = section.item("devices") {
        resources.devices = item.strings()?;
    }
    Ok(())
}

fn cpu(section: &Section<'_>, default: CpuRequest) -> Result<CpuRequest, ParseError> {
    let (cores, cpu) = (section.item("cores"), section.item("cpu"));
    let (smt, hard) = (section.item("smt"), section.item("cpu_hard"));
    if let Some(cores) = cores {
        if let Some(cpu) = cpu {
            return Err(cpu.error("ask for cores (exclusive) or for cpu (shared), not for both"));
        }
        if let Some(hard) = hard {
            return Err(hard.error("goes with cpu: exclusive cores are a limit by themselves"));
        }
        let smt = smt.map(|item| item.choice(&SMT)).transpose()?.unwrap_or_default();
        return Ok(CpuRequest::Exclusive {
            cores: cores.integer(1, limits::CPUS_MAX as u16)?,
            smt,
        });
    }
    if let Some(smt) = smt {
        return Err(smt.error("goes with cores: shared CPU has no siblings to keep or give away"));
    }
    let CpuRequest::Shared { mut millis, hard: mut is_hard } = default else {
        return Ok(default);
    };
    if let Some(cpu) = cpu {
        let number = cpu.number("a number of CPUs such as 0.5")?;
        let most = limits::CPUS_MAX as f64;
        if !(0.001..=most).contains(&number) {
            return Err(cpu.error(format!("{number} is out of range: 0.001 to {most} CPUs")));
        }
        millis = (number * 1000.0).round() as u32;
    }
    if let Some(hard) = hard {
        is_hard = hard.boolean()?;
    }
    Ok(CpuRequest::Shared { millis, hard: is_hard })
}

fn hugepages(section: &Section<'_>) -> Result<BTreeMap<u32, u32>, ParseError> {
    let mut pools = BTreeMap::new();
    for item in section.items() {
        let size = parse_bytes(item.key()).filter(|size| size % 1024 == 0);
        let size = size.and_then(|size| u32::try_from(size / 1024).ok()).ok_or_else(|| {
            item.error("is not the size of a huge page: write it like \"2MiB\" or \"1GiB\"")
        })?;
        if pools.insert(size, item.integer(1, limits::HUGEPAGES_MAX)?).is_some() {
            return Err(item.error("this size is there already, written differently"));
        }
    }
    Ok(pools)
}

fn port(section: &Section<'_>) -> Result<Port, ParseError> {
    section.only(&keys::PORT)?;
    let name = section.required("name", "the port's name, as in name = \"http\"")?;
    let fixed = section.item("static").map(|item| item.integer(1, u16::MAX)).transpose()?;
    Ok(Port { name: name.string()?.into(), fixed })
}

fn health(section: &Section<'_>, ports: &[Port]) -> Result<Health, ParseError> {
    section.only(&keys::HEALTH)?;
    let checks: Vec<_> =
        ["http", "tcp", "command"].iter().filter_map(|key| section.item(key)).collect();
    let [check] = &checks[..] else {
        return Err(match checks.get(1) {
            Some(second) => second.error("a job has one check: http, tcp or command"),
            None => section.missing("http", "the check (or tcp = true, or command = [\"...\"])"),
        });
    };
    let check = match check.key() {
        "http" => {
            Check::Http { path: check.string()?.into(), port: checked_port(section, check, ports)? }
        }
        "tcp" => {
            if !check.boolean()? {
                return Err(check.error("to have no check, leave [health] out"));
            }
            Check::Tcp { port: checked_port(section, check, ports)? }
        }
        _ => {
            if let Some(port) = section.item("port") {
                return Err(port.error("goes with http or tcp: a command knows ${port.NAME}"));
            }
            Check::Command { command: check.strings()? }
        }
    };
    let mut health = Health::new(check);
    for (key, field) in [
        ("interval", &mut health.interval),
        ("timeout", &mut health.timeout),
        ("grace", &mut health.grace),
    ] {
        if let Some(item) = section.item(key) {
            *field = item.duration()?;
        }
    }
    if section.item("timeout").is_none() {
        health.timeout = health.timeout.min(health.interval);
    }
    if let Some(item) = section.item("failures") {
        health.failures = item.integer(1, limits::FAILURES_MAX)?;
    }
    Ok(health)
}

/// The port that a check asks: the one it names, or the only one there is.
fn checked_port(
    section: &Section<'_>,
    check: &Item<'_>,
    ports: &[Port],
) -> Result<String, ParseError> {
    match (section.item("port"), ports) {
        (Some(port), _) => Ok(port.string()?.into()),
        (None, [only]) => Ok(only.name.clone()),
        (None, []) => Err(check.error("the job has no port to check: add [[port]] with a name")),
        (None, _) => Err(section.missing("port", "the name of the port to check")),
    }
}

fn update(section: &Section<'_>, update: &mut Update) -> Result<(), ParseError> {
    section.only(&keys::UPDATE)?;
    if let Some(item) = section.item("max_parallel") {
        update.max_parallel = item.integer(1, limits::COUNT_MAX)?;
    }
    if let Some(item) = section.item("min_healthy") {
        update.min_healthy = item.duration()?;
    }
    if let Some(item) = section.item("deadline") {
        update.deadline = item.duration()?;
    }
    if let Some(item) = section.item("auto_revert") {
        update.auto_revert = item.boolean()?;
    }
    Ok(())
}

fn restart(section: &Section<'_>, restart: &mut Restart) -> Result<(), ParseError> {
    section.only(&keys::RESTART)?;
    if let Some(item) = section.item("attempts") {
        restart.attempts = item.integer(0, limits::FAILURES_MAX)?;
    }
    if let Some(item) = section.item("within") {
        restart.within = item.duration()?;
    }
    if let Some(item) = section.item("delay") {
        restart.delay = item.duration()?;
    }
    Ok(())
}

fn keep(section: &Section<'_>, keep: &mut Keep) -> Result<(), ParseError> {
    section.only(&keys::KEEP)?;
    if let Some(item) = section.item("ended") {
        keep.ended = item.duration()?;
    }
    Ok(())
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
