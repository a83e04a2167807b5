//! The configuration of an image: what is run in it and how, the diffIDs of its layers, and how it was made.

use super::{ManifestError, Platform, bounded, json, shown};
use crate::digest::Digest;
use crate::limits;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The shell of `CMD-SHELL` where the image names none.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Highest signal of Linux.
const SIGNAL_MAX: u8 = 64;
/// The first of the signals without a name of their own, and the last.
const REAL_TIME: (u8, u8) = (34, 64);
/// Signals by number from 1 on. The same on every architecture that the kernel has but MIPS, Alpha and SPARC.
#[rustfmt::skip]
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
    "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// What a configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What it runs on.
    pub platform: Platform,
    /// What is run, and how.
    pub launch: Launch,
    /// Digests of the layers when they are decompressed, the lowest one first.
    pub diff_ids: Vec<Digest>,
    /// How it was made, the first step first; may be empty.
    pub history: Vec<History>,
    /// When it was made, as it says itself.
    pub created: Option<String>,
}

/// What an image says about how it is run. Every value has been checked: no text of it has a zero in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// What is executed, before `command`.
    pub entrypoint: Vec<String>,
    /// Arguments of the entrypoint, or what is executed where there is none.
    pub command: Vec<String>,
    /// Names and values, in order.
    pub env: Vec<(String, String)>,
    /// `USER[:GROUP]`, names or numbers of the image's own `/etc/passwd`; empty: root.
    pub user: String,
    /// Where it starts: an absolute path.
    pub working_dir: String,
    /// What asks it to end; `None`: SIGTERM.
    pub stop_signal: Option<Signal>,
    /// Ports that it may listen on.
    pub exposed_ports: Vec<ExposedPort>,
    /// Absolute paths whose contents are to outlive a container.
    pub volumes: Vec<String>,
    /// How to find out whether it works.
    pub healthcheck: Option<Healthcheck>,
    /// What a command of the health check in one piece is given to.
    pub shell: Vec<String>,
    /// Whatever was written on it.
    pub labels: BTreeMap<String, String>,
}

/// A port that a program may listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExposedPort {
    /// Never 0.
    pub port: u16,
    /// Of the port.
    pub protocol: Protocol,
}

/// What ports belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// The usual one.
    Tcp,
    /// Datagrams.
    Udp,
    /// Messages.
    Sctp,
}

/// How to find out whether an image works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// What is run for it.
    pub check: Check,
    /// From one to the next.
    pub interval: Option<Duration>,
    /// Until one has failed.
    pub timeout: Option<Duration>,
    /// After the start, while failures do not count.
    pub start_period: Option<Duration>,
    /// From one to the next during that time.
    pub start_interval: Option<Duration>,
    /// Failures in a row until it is not well.
    pub retries: Option<u32>,
}

/// What a health check runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: it switches off the check of an image below.
    Off,
    /// A program and its arguments.
    Command(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}

/// A step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, deserialize_with = "or_default")]
    pub created: String,
    /// By which instruction.
    #[serde(default, deserialize_with = "or_default")]
    pub created_by: String,
    /// Whatever was said about it.
    #[serde(default, deserialize_with = "or_default")]
    pub comment: String,
    /// It made no layer.
    #[serde(default, deserialize_with = "or_default")]
    pub empty_layer: bool,
}

/// A signal of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signal(u8);

impl Signal {
    /// From 1 to 64.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = String;

    /// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or `RTMAX-1`, in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("{} is no signal: write SIGTERM, SIGRTMIN+3 or 15", shown(text));
        let in_range = |number: u8| (1..=SIGNAL_MAX).contains(&number);
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().ok().filter(|number| in_range(*number));
            return number.map(Self).ok_or_else(unknown);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(at) = SIGNALS.iter().position(|it| *it == name) {
            return Ok(Self(at as u8 + 1));
        }
        let distance = |rest: &str, sign: char| match rest.strip_prefix(sign) {
            Some(digits) => digits.parse::<u8>().ok().filter(|it| *it <= REAL_TIME.1 - REAL_TIME.0),
            None => rest.is_empty().then_some(0),
        };
        let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX"), name) {
            (_, _, "IOT") => Some(6),
            (_, _, "POLL") => Some(29),
            (_, _, "CLD") => Some(17),
            (Some(rest), _, _) => distance(rest, '+').map(|it| REAL_TIME.0 + it),
            (_, Some(rest), _) => distance(rest, '-').map(|it| REAL_TIME.1 - it),
            _ => None,
        };
        number.map(Self).ok_or_else(unknown)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (SIGNALS.get(usize::from(self.0) - 1), self.0.checked_sub(REAL_TIME.0)) {
            (Some(name), _) => write!(f, "SIG{name}"),
            (None, Some(0)) => f.write_str("SIGRTMIN"),
            (None, Some(distance)) => write!(f, "SIGRTMIN+{distance}"),
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for ExposedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.port)
    }
}

impl Launch {
    /// What is executed: entrypoint and command. Empty where the image says nothing.
    pub fn words(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.command).cloned().collect()
    }

    /// The value of a variable: the last one that has this name.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find(|it| it.0 == name).map(|it| it.1.as_str())
    }

    /// What the health check executes, if there is one.
    pub fn health_command(&self) -> Option<Vec<String>> {
        match &self.healthcheck.as_ref()?.check {
            Check::Off => None,
            Check::Command(words) => Some(words.clone()),
            Check::Shell(line) => {
                let usual = || SHELL.map(str::to_owned).to_vec();
                let shell = if self.shell.is_empty() { usual() } else { self.shell.clone() };
                Some(shell.into_iter().chain([line.clone()]).collect())
            }
        }
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// When it is not one, a value in it cannot be, or it is outside of the limits.
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        let raw: Raw = json(bytes, limits::CONFIG_BYTES_MAX)?;
        let platform =
            Platform { os: raw.os, architecture: raw.architecture, variant: raw.variant };
        for (place, text) in [("os", &platform.os), ("architecture", &platform.architecture)] {
            if text.is_empty() {
                return Err(ManifestError::at(place, "is missing"));
            }
        }
        let rootfs = raw.rootfs.ok_or_else(|| ManifestError::at("rootfs", "is missing"))?;
        if rootfs.kind != "layers" {
            let problem = format!("is {}, and only layers are known", shown(&rootfs.kind));
            return Err(ManifestError::at("rootfs.type", problem));
        }
        bounded("rootfs.diff_ids", rootfs.diff_ids.len(), limits::LAYERS_MAX)?;
        bounded("history", raw.history.len(), limits::HISTORY_MAX)?;
        let diff_ids = rootfs.diff_ids.iter().enumerate().map(|(at, text)| {
            text.parse().map_err(|error| {
                let place = format!("rootfs.diff_ids[{at}]");
                ManifestError::at(place, format!("{}: {error}", shown(text)))
            })
        });
        Ok(Self {
            diff_ids: diff_ids.collect::<Result<_, _>>()?,
            launch: launch(raw.config)?,
            platform: platform.normal(),
            history: raw.history,
            created: raw.created,
        })
    }

    /// Whether it speaks of as many layers as a manifest has.
    ///
    /// # Errors
    /// When it does not: then nobody knows what a layer is to be when it is decompressed.
    pub fn fits(&self, layers: usize) -> Result<(), ManifestError> {
        if self.diff_ids.len() == layers {
            return Ok(());
        }
        let problem = format!("are {}, and the manifest has {layers} layers", self.diff_ids.len());
        Err(ManifestError::at("rootfs.diff_ids", problem))
    }

    /// The steps of its history, each with the number of the layer that it made. `None` where the history does not fit the layers:
    /// some tools write none or another one, and nothing but this list depends on it.
    pub fn steps(&self) -> Option<Vec<(&History, Option<usize>)>> {
        let made = self.history.iter().filter(|step| !step.empty_layer).count();
        let mut layers = 0..made;
        let number = |step: &History| if step.empty_layer { None } else { layers.next() };
        let numbers: Vec<Option<usize>> = self.history.iter().map(number).collect();
        (made == self.diff_ids.len()).then(|| self.history.iter().zip(numbers).collect())
    }
}

/// As it stands in the document. Docker writes `null` for what is not there.
#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
    created: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: RawLaunch,
    rootfs: Option<RawRootfs>,
    #[serde(default, deserialize_with = "or_default")]
    history: Vec<History>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawLaunch {
    #[serde(default, deserialize_with = "or_default")]
    entrypoint: Words,
    #[serde(default, deserialize_with = "or_default")]
    cmd: Words,
    #[serde(default, deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    user: String,
    #[serde(default, deserialize_with = "or_default")]
    working_dir: String,
    #[serde(default, deserialize_with = "or_default")]
    stop_signal: String,
    #[serde(default, deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    healthcheck: Option<RawHealthcheck>,
    #[serde(default, deserialize_with = "or_default")]
    shell: Words,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

/// Times in nanoseconds; 0 is as good as none.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealthcheck {
    #[serde(default, deserialize_with = "or_default")]
    test: Words,
    #[serde(default, deserialize_with = "or_default")]
    interval: i64,
    #[serde(default, deserialize_with = "or_default")]
    timeout: i64,
    #[serde(default, deserialize_with = "or_default")]
    start_period: i64,
    #[serde(default, deserialize_with = "or_default")]
    start_interval: i64,
    #[serde(default, deserialize_with = "or_default")]
    retries: i64,
}

/// A list of words. Images of early tools have a single one without a list.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Words {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Words {
    fn list(self, place: &str) -> Result<Vec<String>, ManifestError> {
        let words = match self {
            Self::None => Vec::new(),
            Self::One(word) => vec![word],
            Self::Many(words) => words,
        };
        bounded(place, words.len(), limits::CONFIG_ITEMS_MAX)?;
        for (at, word) in words.iter().enumerate() {
            without_zero(&format!("{place}[{at}]"), word)?;
        }
        Ok(words)
    }
}

fn or_default<'d, D: Deserializer<'d>, T: Default + Deserialize<'d>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

fn launch(raw: RawLaunch) -> Result<Launch, ManifestError> {
    let health = raw.healthcheck.map(healthcheck).transpose()?.flatten();
    let signal = Some(raw.stop_signal).filter(|text| !text.is_empty());
    let signal = signal.map(|text| text.parse()).transpose();
    for (place, count) in [
        ("config.Env", raw.env.len()),
        ("config.ExposedPorts", raw.exposed_ports.len()),
        ("config.Volumes", raw.volumes.len()),
        ("config.Labels", raw.labels.len()),
    ] {
        bounded(place, count, limits::CONFIG_ITEMS_MAX)?;
    }
    without_zero("config.User", &raw.user)?;
    Ok(Launch {
        entrypoint: raw.entrypoint.list("config.Entrypoint")?,
        command: raw.cmd.list("config.Cmd")?,
        env: raw.env.iter().enumerate().map(variable).collect::<Result<_, _>>()?,
        user: raw.user,
        working_dir: absolute("config.WorkingDir", &raw.working_dir)?,
        stop_signal: signal.map_err(|problem| ManifestError::at("config.StopSignal", problem))?,
        exposed_ports: raw
            .exposed_ports
            .keys()
            .map(|text| exposed_port(text))
            .collect::<Result<_, _>>()?,
        volumes: raw
            .volumes
            .keys()
            .map(|path| absolute("config.Volumes", path))
            .collect::<Result<_, _>>()?,
        healthcheck: health,
        shell: raw.shell.list("config.Shell")?,
        labels: raw.labels,
    })
}

fn variable((at, text): (usize, &String)) -> Result<(String, String), ManifestError> {
    let place = format!("config.Env[{at}]");
    without_zero(&place, text)?;
    // One without a value is one with an empty value.
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(ManifestError::at(place, format!("{} has no name", shown(text))));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn exposed_port(text: &str) -> Result<ExposedPort, ManifestError> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port > 0);
    let problem = || format!("{} is no port: PORT/tcp, PORT/udp and PORT/sctp are", shown(text));
    let (port, protocol) =
        port.zip(protocol).ok_or_else(|| ManifestError::at("config.ExposedPorts", problem()))?;
    Ok(ExposedPort { port, protocol })
}

fn healthcheck(raw: RawHealthcheck) -> Result<Option<Healthcheck>, ManifestError> {
    const PLACE: &str = "config.Healthcheck";
    let words = raw.test.list("config.Healthcheck.Test")?;
    let Some((kind, rest)) = words.split_first() else { return Ok(None) };
    let check = match (kind.as_str(), rest) {
        ("NONE", []) => Check::Off,
        ("CMD", [_, ..]) => Check::Command(rest.to_vec()),
        ("CMD-SHELL", [line]) => Check::Shell(line.clone()),
        (kind, rest) => {
            let problem = format!(
                "{} with {} words after it is no check: NONE, CMD WORD... and CMD-SHELL LINE are",
                shown(kind),
                rest.len()
            );
            return Err(ManifestError::at(format!("{PLACE}.Test"), problem));
        }
    };
    let time = |name: &str, nanoseconds: i64| {
        let nanoseconds = u64::try_from(nanoseconds)
            .map_err(|_| ManifestError::at(format!("{PLACE}.{name}"), "is below 0"))?;
        Ok(Some(nanoseconds).filter(|it| *it > 0).map(Duration::from_nanos))
    };
    let retries = u32::try_from(raw.retries)
        .map_err(|_| ManifestError::at(format!("{PLACE}.Retries"), "is no number of failures"))?;
    Ok(Some(Healthcheck {
        check,
        interval: time("Interval", raw.interval)?,
        timeout: time("Timeout", raw.timeout)?,
        start_period: time("StartPeriod", raw.start_period)?,
        start_interval: time("StartInterval", raw.start_interval)?,
        retries: Some(retries).filter(|it| *it > 0),
    }))
}

/// A path from the root on. Whoever writes a relative one means that, and nobody means one that climbs.
fn absolute(place: &str, path: &str) -> Result<String, ManifestError> {
    without_zero(place, path)?;
    if path.len() > limits::PATH_BYTES_MAX {
        let problem =
            format!("has {} bytes, and {} are allowed", path.len(), limits::PATH_BYTES_MAX);
        return Err(ManifestError::at(place, problem));
    }
    if path.split('/').any(|name| name == "..") {
        return Err(ManifestError::at(place, format!("{} has .. in it", shown(path))));
    }
    let names = path.split('/').filter(|name| !name.is_empty() && *name != ".");
    let absolute = names.fold(String::new(), |path, name| path + "/" + name);
    Ok(if absolute.is_empty() { "/".to_owned() } else { absolute })
}

fn without_zero(place: &str, text: &str) -> Result<(), ManifestError> {
    if text.contains('\0') {
        return Err(ManifestError::at(place, "has a zero byte in it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
