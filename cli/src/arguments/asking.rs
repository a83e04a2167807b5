//! What can be asked about what work does to the hardware.

use clap::{Args, ValueEnum};
use fabric::constraint::Constraint;
use fabric::job::duration;
use std::time::Duration;

use super::values::JobOrSlot;

#[derive(Clone, Copy, Debug, Args)]
pub struct Events {
    /// Keep showing what happens
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last of those that are remembered [default: all]
    #[arg(short = 'n', long, value_name = "EVENTS")]
    pub tail: Option<u32>,
    /// Only what happened within this time
    #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
    pub since: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Query {
    /// In PromQL
    #[arg(value_name = "EXPR")]
    pub expression: String,
    /// How far back to look; without it, only now
    #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
    pub range: Option<Duration>,
    /// Time between two points of a range [default: as fits the screen]
    #[arg(long, value_parser = duration::parse, value_name = "DURATION", requires = "range")]
    pub step: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Top {
    /// Print instead of drawing: once, or as often as -n says
    #[arg(short, long)]
    pub batch: bool,
    /// Exit after so many updates
    #[arg(short = 'n', long, value_name = "LOOKS", value_parser = clap::value_parser!(u32).range(1..))]
    pub looks: Option<u32>,
    /// Time between two updates
    #[arg(long, value_parser = duration::parse, value_name = "DURATION", default_value = "2s")]
    pub every: Duration,
    /// What comes first
    #[arg(long, value_enum, default_value = "name")]
    pub sort: Order,
}

/// What is at the top of `weft top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// As they are called: lines stay where they are
    Name,
    Cpu,
    Memory,
    Runq,
    Disk,
}

#[derive(Debug, Args)]
pub struct Hist {
    /// What to measure
    #[arg(value_enum)]
    pub kind: HistKind,
    /// A row for each of these
    #[arg(long, value_enum)]
    pub by: Option<By>,
    /// Only on nodes for which this holds, as in 'labels.rack == "r2"'
    #[arg(long = "where", value_name = "CONDITION")]
    pub on: Option<Constraint>,
    /// Only this job, or one of its slots
    #[arg(long, value_name = "JOB[/SLOT]")]
    pub job: Option<JobOrSlot>,
    /// How far back to look
    #[arg(long, value_parser = duration::parse, value_name = "DURATION", default_value = "5m")]
    pub range: Duration,
}

/// What took its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HistKind {
    /// Waiting for a CPU, ready to run
    Runq,
    /// Requests to block devices, until they were answered
    Disk,
    /// Connections over TCP, until they were made
    Connect,
    /// Round trips of TCP connections: each connection counts once every ten seconds
    Rtt,
}

/// What has a histogram of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    Unit,
    Job,
    Node,
}

#[derive(Debug, Args)]
pub struct Trace {
    /// What to trace
    #[arg(value_enum)]
    pub kind: TraceKind,
    /// The job, or one of its slots
    #[arg(value_name = "JOB[/SLOT]")]
    pub what: JobOrSlot,
    /// For how long
    #[arg(long = "for", value_parser = duration::parse, value_name = "DURATION", default_value = "10s")]
    pub time: Duration,
    /// On this node only
    #[arg(long)]
    pub node: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceKind {
    /// Which system calls it makes, how long they take, how many fail
    Syscalls,
    /// Which programs it starts
    Exec,
    /// Which files it opens, and which it cannot open
    Files,
    /// Whom it connects to, and how long that takes
    Net,
}

#[derive(Debug, Args)]
pub struct Profile {
    /// The job, or one of its slots
    #[arg(value_name = "JOB[/SLOT]")]
    pub what: JobOrSlot,
    /// For how long
    #[arg(long = "for", value_parser = duration::parse, value_name = "DURATION", default_value = "10s")]
    pub time: Duration,
    /// Show where it sleeps, not where it runs
    #[arg(long)]
    pub off_cpu: bool,
    /// Print folded stacks, one per line with its count, in place of the flame graph
    #[arg(long)]
    pub folded: bool,
    /// On this node only
    #[arg(long)]
    pub node: Option<String>,
}
