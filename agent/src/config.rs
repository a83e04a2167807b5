//! `weftd.toml`: what a machine's owner decides. Every key has a default; the file may be missing.
//!
//! A key that is not known is refused with the nearest one that is, and a value that makes no sense
//! with its line, so that a typing error never silently means the default.

use fabric::cpuset::CpuSet;
use fabric::job::nearest;
use fabric::level::{LEVEL, LEVEL_MIN};
use fabric::limits;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::executor::Preference;
use crate::topology::Share;
pub use metrics::MetricsSection;
pub use receiver::Receiver;

mod metrics;
mod receiver;

/// Where the file lies unless the command line says otherwise.
pub const PATH: &str = "/etc/weft/weftd.toml";

/// Bytes of the file that are read at most: it is written by hand.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Stands for 'find out yourself' in every key that can.
const AUTO: &str = "auto";

/// Every key there is, by table; `""` is the top.
const KEYS: &[(&str, &[&str])] = &[
    ("", &["state", "log"]),
    ("node", &["name", "labels", "witness", "approval", "level"]),
    ("listen", &["address", "port", "advertise"]),
    (
        "resources",
        &["cpus", "housekeeping", "confine_system", "memory", "disk", "ports", "devices"],
    ),
    ("discovery", &["mdns", "interfaces", "domains", "seeds"]),
    ("api", &["socket", "group"]),
    ("executor", &["kind"]),
    (
        "metrics",
        &[
            "enabled",
            "probes",
            "counters",
            "memory",
            "listen",
            "remote_write",
            "remote_write_every",
        ],
    ),
];

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory for identity, table and logs of direct units.
    pub state: PathBuf,
    /// What to log: a level, or `target=level` pairs.
    pub log: String,
    /// What this node is called.
    pub node: NodeSection,
    /// Where it listens.
    pub listen: Listen,
    /// Which share of the machine it gives.
    pub resources: ResourcesSection,
    /// How it finds the others.
    pub discovery: DiscoverySection,
    /// Where people and programs talk to it.
    pub api: Api,
    /// What runs its units.
    pub executor: ExecutorSection,
    /// What is measured.
    pub metrics: MetricsSection,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// Its name; `auto`: the host name.
    pub name: String,
    /// For constraints, affinity and spread.
    pub labels: BTreeMap<String, String>,
    /// It votes on the leases of at-most-one jobs and runs nothing.
    pub witness: bool,
    /// While it is in no fabric, a member that asks may let it in.
    pub approval: bool,
    /// Up to which level it reads and writes, to act as an older agent; 0: all that this build can.
    pub level: u8,
}

impl NodeSection {
    /// Up to which level it reads and writes.
    pub fn level(&self) -> u8 {
        if self.level == 0 { LEVEL } else { self.level }
    }
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address for gossip and streams.
    pub address: IpAddr,
    /// UDP port of gossip; streams (QUIC) use the next one.
    pub port: u16,
    /// Gossip addresses to tell the others; empty: those of the interfaces.
    pub advertise: Vec<SocketAddr>,
}

/// `[resources]`: the share of the machine that work may use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourcesSection {
    /// CPUs the fabric may use, `0-3,8`; `auto`: all.
    pub cpus: String,
    /// CPUs among them kept for the system; `auto`: decided by the machine's size.
    pub housekeeping: String,
    /// Whether services, sessions and containers of the machine are kept off cores that a job has for itself, where systemd
    /// runs the jobs.
    pub confine_system: bool,
    /// Memory for work, `4GiB`; `auto`: what the machine has, less a reserve.
    pub memory: String,
    /// Disk for work, `200GiB`, of the file system with the state directory; `auto`: what is free, less a reserve.
    pub disk: String,
    /// Ports for dynamic requests, `20000-31999`.
    pub ports: String,
    /// Devices that may be claimed: paths, classes or bus identities; `["auto"]`: all that are found.
    pub devices: Vec<String>,
}

/// `[discovery]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoverySection {
    /// Announce and look on the local links.
    pub mdns: bool,
    /// Only on these interfaces; empty: on all.
    pub interfaces: Vec<String>,
    /// Domains to browse with unicast DNS.
    pub domains: Vec<String>,
    /// `host:port` of members to try, for networks where nothing else works.
    pub seeds: Vec<String>,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Group whose members may use it, if the machine has such a group.
    pub group: String,
}

/// `[executor]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorSection {
    /// Which one.
    pub kind: Preference,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "/var/lib/weft".into(),
            log: "info".into(),
            node: NodeSection::default(),
            listen: Listen::default(),
            resources: ResourcesSection::default(),
            discovery: DiscoverySection::default(),
            api: Api::default(),
            executor: ExecutorSection::default(),
            metrics: MetricsSection::default(),
        }
    }
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            name: AUTO.into(),
            labels: BTreeMap::new(),
            witness: false,
            approval: false,
            level: 0,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: Ipv6Addr::UNSPECIFIED.into(), port: 7400, advertise: Vec::new() }
    }
}

impl Default for ResourcesSection {
    fn default() -> Self {
        Self {
            cpus: AUTO.into(),
            housekeeping: AUTO.into(),
            confine_system: true,
            memory: AUTO.into(),
            disk: AUTO.into(),
            ports: "20000-31999".into(),
            devices: vec![AUTO.into()],
        }
    }
}

impl Default for DiscoverySection {
    fn default() -> Self {
        Self { mdns: true, interfaces: Vec::new(), domains: Vec::new(), seeds: Vec::new() }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { socket: "/run/weft/weft.sock".into(), group: "weft".into() }
    }
}

impl Default for ExecutorSection {
    fn default() -> Self {
        Self { kind: Preference::Auto }
    }
}

/// Why a configuration is refused. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is longer than anybody writes by hand.
    #[error("{}: more than {FILE_BYTES_MAX} bytes; is this the right file?", .0.display())]
    TooLong(PathBuf),
    /// Line and column, both from 1.
    #[error("{line}:{column}: {message}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong, and what to write instead.
        message: String,
    },
    /// A value makes no sense.
    #[error("{key}: {message}")]
    Value {
        /// `resources.memory`
        key: &'static str,
        /// What is wrong, and what to write instead.
        message: String,
    },
}

impl Config {
    /// Reads `path`. With `required` unset a missing file means all defaults.
    pub fn load(path: &Path, required: bool) -> Result<Self, ConfigError> {
        use std::io::Read;
        let unreadable = |error| ConfigError::Unreadable { path: path.into(), error };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unreadable(error)),
        };
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::TooLong(path.into()));
        }
        Self::parse(&text)
    }

    /// Reads a configuration's text and checks every value that can be checked without the machine.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let malformed = |at: usize, message: String| {
            let (line, column) = position(text, at);
            ConfigError::Malformed { line, column, message }
        };
        let document = toml::de::DeTable::parse(text).map_err(|error| {
            malformed(error.span().map_or(0, |span| span.start), error.message().to_owned())
        })?;
        if let Some((at, message)) = unknown_key(document.get_ref()) {
            return Err(malformed(at, message));
        }
        let config: Self = toml::from_str(text).map_err(|error| {
            malformed(error.span().map_or(0, |span| span.start), error.message().to_owned())
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, message: String| Err(ConfigError::Value { key, message });
        if !(LEVEL_MIN..=LEVEL).contains(&self.node.level()) {
            let all =
                format!("this agent acts at levels {LEVEL_MIN} to {LEVEL}, and 0 is the highest");
            return refuse("node.level", all);
        }
        self.share()?;
        self.metrics.check()?;
        if self.listen.port == 0 || self.listen.port == u16::MAX {
            return refuse(
                "listen.port",
                "streams use the next port: choose one from 1 to 65534".into(),
            );
        }
        if self.node.labels.len() > limits::LABELS_MAX {
            return refuse("node.labels", format!("more than {} labels", limits::LABELS_MAX));
        }
        if self.node.name.is_empty() || self.node.name.len() > 253 {
            return refuse(
                "node.name",
                "1 to 253 characters, or \"auto\" for the host name".into(),
            );
        }
        for seed in &self.discovery.seeds {
            let port = seed.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                return refuse(
                    "discovery.seeds",
                    format!("{seed:?} has no port: write host:7400, or [address]:7400 for IPv6"),
                );
            }
        }
        if !self.state.is_absolute() {
            return refuse("state", format!("{} is not an absolute path", self.state.display()));
        }
        if !self.api.socket.is_absolute() || self.api.socket.as_os_str().len() > 107 {
            return refuse(
                "api.socket",
                "an absolute path of at most 107 bytes, as Unix sockets need".into(),
            );
        }
        Ok(())
    }

    /// The share of the machine that work may use.
    pub fn share(&self) -> Result<Share, ConfigError> {
        let resources = &self.resources;
        Ok(Share {
            cpus: cpu_set("resources.cpus", &resources.cpus)?,
            housekeeping: cpu_set("resources.housekeeping", &resources.housekeeping)?,
            memory: size("resources.memory", &resources.memory, 1)?,
            disk: size("resources.disk", &resources.disk, 0)?,
            ports: Some(ports(&resources.ports)?),
            devices: match resources.devices.as_slice() {
                [only] if only == AUTO => None,
                some => Some(some.to_vec()),
            },
        })
    }

    /// The name to go by.
    pub fn name(&self) -> String {
        if self.node.name != AUTO {
            return self.node.name.clone();
        }
        nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "unnamed".into())
    }

    /// Where gossip is received.
    pub fn gossip_address(&self) -> SocketAddr {
        SocketAddr::new(self.listen.address, self.listen.port)
    }
}

fn cpu_set(key: &'static str, text: &str) -> Result<Option<CpuSet>, ConfigError> {
    if text == AUTO {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| ConfigError::Value {
        key,
        message: format!("{text:?} is no set of CPUs: write \"0-3,8\", \"\" for none, or \"auto\""),
    })
}

/// `least`: in bytes.
fn size(key: &'static str, text: &str, least: u64) -> Result<Option<u64>, ConfigError> {
    if text == AUTO {
        return Ok(None);
    }
    match fabric::job::parse_bytes(text) {
        Some(bytes) if bytes >= least => Ok(Some(bytes)),
        _ => Err(ConfigError::Value {
            key,
            message: format!("{text:?} is no size: write \"4GiB\", \"512MiB\" or \"auto\""),
        }),
    }
}

fn ports(text: &str) -> Result<(u16, u16), ConfigError> {
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    range.filter(|(first, last)| *first > 0 && first <= last).ok_or_else(|| ConfigError::Value {
        key: "resources.ports",
        message: format!(
            "{text:?} is no range: write the lowest and the highest port, as in \"20000-31999\""
        ),
    })
}

/// The first key that the agent does not know: where it is, and what to say about it.
fn unknown_key(document: &toml::de::DeTable<'_>) -> Option<(usize, String)> {
    let of = |table: &str| KEYS.iter().find(|(name, _)| *name == table).map(|(_, keys)| *keys);
    let top = of("").unwrap_or_default();
    for (key, value) in document {
        let name = key.get_ref().as_ref();
        if top.contains(&name) {
            continue;
        }
        let Some(keys) = of(name).filter(|_| !name.is_empty()) else {
            let known = KEYS.iter().map(|(table, _)| *table).chain(top.iter().copied());
            return Some((key.span().start, unknown(name, "", known.filter(|k| !k.is_empty()))));
        };
        let Some(table) = value.get_ref().as_table() else { continue };
        for inner in table.keys() {
            if !keys.contains(&inner.get_ref().as_ref()) {
                let message = unknown(inner.get_ref(), name, keys.iter().copied());
                return Some((inner.span().start, message));
            }
        }
    }
    None
}

fn unknown<'a>(wrong: &str, table: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let place = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
    match nearest(wrong, known.clone()) {
        Some(near) => format!("unknown key {wrong:?}{place}: did you mean {near:?}?"),
        None => format!(
            "unknown key {wrong:?}{place}: there are {}",
            known.collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Line and column of byte `at`, both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests;
