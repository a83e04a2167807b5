//! How a job is made of flags, and how a change is waited for.

use clap::{Args, ValueEnum};
use fabric::constraint::Constraint;
use fabric::id::JobName;
use fabric::job::duration;
use std::time::Duration;

use super::values::{bytes, key_value, port, slot_count};

/// How to wait for a change.
#[derive(Clone, Copy, Debug, Args)]
pub struct Watch {
    /// Do not wait
    #[arg(short, long)]
    pub detach: bool,
    /// Wait no longer than this
    #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Give up when slots are failing or unplaceable for this long
    #[arg(long, value_parser = duration::parse, value_name = "DURATION", default_value = "5s")]
    pub settle: Duration,
}

#[derive(Debug, Args)]
pub struct Run {
    /// The same as --name
    #[arg(value_name = "NAME", value_parser = JobName::new, conflicts_with = "name")]
    pub called: Option<JobName>,
    /// The job's name [default: the program's]
    #[arg(long, value_parser = JobName::new)]
    pub name: Option<JobName>,
    /// Slots
    #[arg(long, value_parser = slot_count, default_value_t = 1, conflicts_with = "system")]
    pub count: u32,
    /// One copy on each matching node
    #[arg(long)]
    pub system: bool,
    /// Exclusive cores
    #[arg(long, conflicts_with = "cpu")]
    pub cores: Option<u16>,
    /// Shared CPUs [default: 0.1]
    #[arg(long, value_name = "CPUS")]
    pub cpu: Option<f64>,
    /// Memory, as in 64MiB
    #[arg(long, value_parser = bytes, value_name = "SIZE")]
    pub memory: Option<u64>,
    /// What it may keep on the node's disk, as in 2GiB [default: none]
    #[arg(long, value_parser = bytes, value_name = "SIZE")]
    pub disk: Option<u64>,
    /// Cores and memory on one memory node
    #[arg(long, value_enum)]
    pub numa: Option<Numa>,
    /// A device: gpu, usb:1a86:7523, /dev/ttyUSB0
    #[arg(long = "device", value_name = "DEVICE")]
    pub devices: Vec<String>,
    /// An environment variable
    #[arg(short, long = "env", value_parser = key_value, value_name = "NAME=VALUE")]
    pub env: Vec<(String, String)>,
    /// A port, picked by the node unless it has a number
    #[arg(short, long = "port", value_parser = port, value_name = "NAME[=NUMBER]")]
    pub ports: Vec<(String, Option<u16>)>,
    /// Healthy when this path of the first port answers
    #[arg(long, value_name = "PATH", conflicts_with = "tcp")]
    pub http: Option<String>,
    /// Healthy when the first port takes connections
    #[arg(long)]
    pub tcp: bool,
    /// User to run as
    #[arg(long)]
    pub user: Option<String>,
    /// A condition on nodes, as in 'arch == "x86_64"'
    #[arg(long = "constraint", value_name = "CONDITION")]
    pub constraints: Vec<Constraint>,
    #[command(flatten)]
    pub watch: Watch,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Numa {
    None,
    Prefer,
    Require,
}
