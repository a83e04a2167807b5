//! What can be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use fabric::constraint::Constraint;
use fabric::id::{JobName, Namespace};
use fabric::job::{duration, parse_bytes};
use fabric::limits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::screen::Format;

/// Shown below `weft help`.
const EPILOGUE: &str = "\
Data goes to stdout, all else to stderr. Questions are asked on a terminal only.

Environment:
  WEFT_SOCKET  the agent's socket, unless --socket says otherwise
  NO_COLOR     no colour

Exit codes:
  0    done, and all is well
  1    it did not work
  2    the command line or the job file makes no sense; nothing was changed
  3    it works, but not all is well (status, doctor)
  4    there is no such node, job, slot, token or quota
  6    the agent does not answer
  7    slots have no node that could take them
  124  --timeout has passed
  130  Ctrl-C: stopped watching; what was started goes on";

/// One computer out of many: runs jobs on the machines of a fabric.
#[derive(Debug, Parser)]
#[command(name = "weft", version, after_help = EPILOGUE, arg_required_else_help = true)]
pub struct Arguments {
    /// The agent's socket [default: $WEFT_SOCKET or /run/weft/weft.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// For people or for programs
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Format,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a new fabric with this node as its first
    #[command(after_help = "Example:\n  weft init --name home")]
    Init {
        /// A name for people
        #[arg(long)]
        name: Option<String>,
    },
    /// Make, list and revoke the tokens that let nodes join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Join the fabric that a token belongs to
    #[command(
        after_help = "Examples:\n  weft join weft1.5f3a...\n  weft join --address 10.0.0.7:7946 - < token"
    )]
    Join {
        /// From `weft token create`; - reads it from stdin
        token: String,
        /// A member to ask, where discovery finds none
        #[arg(long, value_name = "IP:PORT")]
        address: Option<SocketAddr>,
    },
    /// Limit what namespaces may have
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// This node and its fabric at a glance; exit 3 when not all is well
    #[command(after_help = "Example:\n  weft status || weft doctor")]
    Status,
    /// List the nodes
    #[command(after_help = "Example:\n  weft nodes -o json")]
    Nodes,
    /// Show one node, or remove it from the fabric
    #[command(after_help = "Examples:\n  weft node rack1\n  weft node 3fa9 remove")]
    Node {
        /// Name, or the first digits of its id
        node: String,
        #[command(subcommand)]
        action: Option<NodeAction>,
    },
    /// Show what an apply would do; changes nothing
    #[command(after_help = "Example:\n  weft plan web.toml")]
    Plan {
        /// Job file; - reads it from stdin
        file: PathBuf,
    },
    /// Run a job file, or change the job to what it says; waits until it is healthy
    #[command(
        after_help = "Examples:\n  weft apply web.toml\n  weft apply web.toml --yes --timeout 2m\n\nCtrl-C stops watching, not deploying."
    )]
    Apply {
        /// Job file; - reads it from stdin
        file: PathBuf,
        /// Do not ask before something is replaced or stopped
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Run a command as a new job, without a job file
    #[command(
        after_help = "Example:\n  weft run --name web --count 3 --cores 1 --memory 64MiB --port http --http / \\\n      -- /usr/bin/python3 -m http.server '${port.http}'"
    )]
    Run(Box<Run>),
    /// List allocations: what runs where
    #[command(after_help = "Example:\n  weft ps web --all")]
    Ps {
        /// Of this job only
        #[arg(value_parser = JobName::new)]
        job: Option<JobName>,
        /// Also those that have ended
        #[arg(short, long)]
        all: bool,
    },
    /// List jobs
    #[command(after_help = "Example:\n  weft jobs")]
    Jobs {
        /// This one only
        #[arg(value_parser = JobName::new)]
        job: Option<JobName>,
    },
    /// Say why each slot of a job is where it is, or why it is nowhere
    #[command(after_help = "Example:\n  weft explain web")]
    Explain {
        /// The job
        #[arg(value_parser = JobName::new)]
        job: JobName,
    },
    /// Show what a job writes to stdout and stderr
    #[command(
        after_help = "Examples:\n  weft logs web -f\n  weft logs web/2 -n 100 --stream stderr"
    )]
    Logs {
        /// The job, or one of its slots
        #[arg(value_name = "JOB[/SLOT]")]
        what: JobOrSlot,
        /// Go on as more is written
        #[arg(short, long)]
        follow: bool,
        /// Begin with so many lines from the end [default: 100]
        #[arg(short = 'n', long, value_name = "LINES")]
        tail: Option<u32>,
        /// Which of the two
        #[arg(long, value_enum, default_value = "both")]
        stream: LogStream,
        /// On this node: for a system job, which has a slot 0 on each
        #[arg(long)]
        node: Option<String>,
    },
    /// Show what happened in the fabric
    #[command(after_help = "Example:\n  weft events -f")]
    Events {
        /// Go on as more happens
        #[arg(short, long)]
        follow: bool,
    },
    /// Change the number of a job's slots
    #[command(after_help = "Example:\n  weft scale web 5")]
    Scale {
        /// The job
        #[arg(value_parser = JobName::new)]
        job: JobName,
        /// To how many
        count: u32,
        #[command(flatten)]
        watch: Watch,
    },
    /// Restart a job slot by slot, or one slot in place
    #[command(after_help = "Examples:\n  weft restart web\n  weft restart web/2")]
    Restart {
        /// The job, or one of its slots
        #[arg(value_name = "JOB[/SLOT]")]
        what: JobOrSlot,
        #[command(flatten)]
        watch: Watch,
    },
    /// Stop a job and forget it; waits until it is gone
    #[command(after_help = "Example:\n  weft stop web")]
    Stop {
        /// The job
        #[arg(value_parser = JobName::new)]
        job: JobName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Do not wait
        #[arg(short, long)]
        detach: bool,
        /// Wait no longer than this
        #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
        timeout: Option<Duration>,
    },
    /// Let a node hand over its work and take no more
    #[command(after_help = "Example:\n  weft drain rack1 --wait --timeout 5m")]
    Drain {
        /// Name, or the first digits of its id
        node: String,
        /// Wait until nothing is left on it
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this
        #[arg(long, value_parser = duration::parse, value_name = "DURATION", requires = "wait")]
        timeout: Option<Duration>,
    },
    /// Let a drained node take work again
    #[command(after_help = "Example:\n  weft undrain rack1")]
    Undrain {
        /// Name, or the first digits of its id
        node: String,
    },
    /// Show or make a few moves that leave larger holes, or restore what jobs ask of their places
    #[command(after_help = "Examples:\n  weft rebalance\n  weft rebalance --apply --max-moves 4")]
    Rebalance {
        /// Only show the moves: the default
        #[arg(long, conflicts_with = "apply")]
        plan: bool,
        /// Make the moves
        #[arg(long)]
        apply: bool,
        /// How many at most
        #[arg(long, value_name = "MOVES", default_value_t = 10)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::MOVES_MAX)))]
        max_moves: u32,
        /// Also at-most-one jobs, which are stopped before they start elsewhere
        #[arg(long)]
        at_most_one: bool,
    },
    /// Wait until a job is healthy, or gone
    #[command(after_help = "Examples:\n  weft wait web --timeout 1m\n  weft wait web --gone")]
    Wait {
        /// The job
        #[arg(value_parser = JobName::new)]
        job: JobName,
        /// Until every slot is healthy; the default
        #[arg(long, conflicts_with = "gone")]
        healthy: bool,
        /// Until it is stopped and nothing of it runs
        #[arg(long)]
        gone: bool,
        /// Wait no longer than this
        #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
        timeout: Option<Duration>,
    },
    /// Look for trouble on this node; exit 3 for warnings, 1 for errors
    #[command(after_help = "Example:\n  weft doctor")]
    Doctor,
    /// Print the completion script of a shell
    #[command(
        after_help = "Examples:\n  weft completion bash > /etc/bash_completion.d/weft\n  weft completion zsh > /usr/local/share/zsh/site-functions/_weft\n  weft completion fish > ~/.config/fish/completions/weft.fish"
    )]
    Completion {
        /// Which shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; printed once, on stdout
    #[command(after_help = "Example:\n  weft token create --lifetime 10m --label rack=r1")]
    Create {
        /// How long it works [default: 1h]
        #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
        lifetime: Option<Duration>,
        /// A label for nodes that join with it
        #[arg(long = "label", value_parser = key_value, value_name = "NAME=VALUE")]
        labels: Vec<(String, String)>,
    },
    /// List the tokens that still work, without their secrets
    #[command(after_help = "Example:\n  weft token list")]
    List,
    /// Make a token useless
    #[command(after_help = "Example:\n  weft token revoke 7c21")]
    Revoke {
        /// From `weft token list`
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// Limit what all jobs of a namespace have together; what is not given is not limited
    #[command(
        after_help = "Example:\n  weft quota set research --cores 8 --memory 16GiB --devices gpu=2"
    )]
    Set {
        /// As in namespace = "research" of a job file; jobs that name none are in default
        #[arg(value_parser = Namespace::new)]
        namespace: Namespace,
        /// Logical CPUs, exclusive and shared ones together
        #[arg(long, value_parser = cpus)]
        cores: Option<f64>,
        /// Memory, as in 16GiB
        #[arg(long, value_parser = bytes, value_name = "SIZE")]
        memory: Option<u64>,
        /// Devices of a class
        #[arg(long, value_parser = device_count, value_name = "CLASS=COUNT")]
        devices: Vec<(String, u32)>,
        /// Allocations
        #[arg(long, value_name = "COUNT")]
        allocs: Option<u32>,
        /// Also when something has to stop for it: the least important first
        #[arg(long)]
        force: bool,
    },
    /// List quotas and what is used of them
    #[command(after_help = "Example:\n  weft quota list -o json")]
    List,
    /// Let a namespace have whatever fits
    #[command(after_help = "Example:\n  weft quota remove research")]
    Remove {
        /// Which
        #[arg(value_parser = Namespace::new)]
        namespace: Namespace,
    },
}

#[derive(Debug, Subcommand)]
pub enum NodeAction {
    /// Lock the node out of the fabric, for good
    #[command(after_help = "Examples:\n  weft node rack1 remove\n  weft node rack1 remove --force")]
    Remove {
        /// Also when no majority of the voters is left: those that are left decide alone from then on
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

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
    /// The job's name [default: the program's]
    #[arg(long, value_parser = JobName::new)]
    pub name: Option<JobName>,
    /// Slots
    #[arg(long, default_value_t = 1, conflicts_with = "system")]
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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogStream {
    Stdout,
    Stderr,
    Both,
}

impl LogStream {
    /// As the API calls it.
    pub fn name(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
            LogStream::Both => "both",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `web` or `web/2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOrSlot {
    pub job: JobName,
    pub slot: Option<u32>,
}

impl FromStr for JobOrSlot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (job, slot) = match text.split_once('/') {
            Some((job, slot)) => (job, Some(slot)),
            None => (text, None),
        };
        let job = JobName::new(job).map_err(|error| error.to_string())?;
        let slot = slot.map(|slot| {
            slot.parse()
                .map_err(|_| format!("{slot:?} is not a slot: write JOB/0, JOB/1 and so on"))
        });
        Ok(Self { job, slot: slot.transpose()? })
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("write NAME=VALUE".into()),
    }
}

fn cpus(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1e9).contains(number));
    number.ok_or_else(|| "write a number of CPUs such as 8 or 0.5".into())
}

fn device_count(text: &str) -> Result<(String, u32), String> {
    let (class, count) = key_value(text).map_err(|_| "write CLASS=COUNT as in gpu=2")?;
    count.parse().map(|count| (class, count)).map_err(|_| "write CLASS=COUNT as in gpu=2".into())
}

fn port(text: &str) -> Result<(String, Option<u16>), String> {
    let Some((name, number)) = text.split_once('=') else { return Ok((text.into(), None)) };
    match number.parse() {
        Ok(number) if number > 0 => Ok((name.into(), Some(number))),
        _ => Err(format!("{number:?} is not a port: write a number from 1 to 65535")),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "write a size such as 64MiB or 1.5GiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().all(|inner| inner.get_name() == "remove") {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example") && help.contains("weft "), "{path}: {help}");
            }
            command.get_subcommands().for_each(|inner| check(inner, &path));
        }
        Arguments::command().get_subcommands().for_each(|command| check(command, "weft"));
    }

    #[test]
    fn the_page_about_the_command_line_knows_every_command_and_exit_code() {
        let page = include_str!("../../docs/CLI.md");
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            assert!(page.contains(&format!("`weft {name}")), "weft {name} is not in docs/CLI.md");
        }
        for line in EPILOGUE.lines().skip_while(|line| !line.starts_with("Exit codes")).skip(1) {
            let code = line.split_whitespace().next().unwrap();
            assert!(
                page.contains(&format!("| {code} |")),
                "exit code {code} is not in docs/CLI.md"
            );
        }
    }

    #[test]
    fn slots_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<JobOrSlot>();
        let job = JobName::new("web").unwrap();
        assert_eq!(read("web"), Ok(JobOrSlot { job: job.clone(), slot: None }));
        assert_eq!(read("web/2"), Ok(JobOrSlot { job, slot: Some(2) }));
        for wrong in ["", "/2", "web/", "web/x", "web/-1", "Web", "web/1/2"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
