//! What can be typed.

mod asking;
pub mod help;
mod running;
mod values;

use clap::{Parser, Subcommand, ValueEnum};
use fabric::id::{JobName, Namespace};
use fabric::job::duration;
use fabric::limits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use asking::{By, Events, Hist, HistKind, Order, Profile, Query, Top, Trace, TraceKind};
pub use running::{Numa, Run, Watch};
pub use values::JobOrSlot;
use values::{bytes, cpus, device_count, job, key_value, slot_count};

use crate::context::{self, Host};
use crate::screen::Format;

/// Above the options that every command has.
const EVERYWHERE: &str = "Options of every command";

/// Shown below `weft help`.
const EPILOGUE: &str = "\
Data goes to stdout, all else to stderr. Questions are asked on a terminal only.

Environment:
  WEFT_SOCKET  the agent's socket, unless --socket says otherwise
  WEFT_HOST    another machine's agent, as --host says it
  NO_COLOR     no colour

Exit codes:
  0    done, and all is well
  1    it did not work
  2    the command line or the job file makes no sense; nothing was changed
  3    it works, but not all is well (status, doctor)
  4    there is no such node, job, version, slot, token or quota
  5    there is something to change (plan --exit-code)
  6    the agent does not answer
  7    slots have no node that could take them
  124  --timeout has passed
  130  Ctrl-C: stopped watching; what was started goes on";

/// Run jobs across your machines as if they were one computer
#[derive(Debug, Parser)]
#[command(name = "weft", version, after_help = EPILOGUE, arg_required_else_help = true)]
pub struct Arguments {
    /// The agent's socket [default: $WEFT_SOCKET or /run/weft/weft.sock]
    #[arg(long, global = true, value_name = "PATH", help_heading = EVERYWHERE)]
    pub socket: Option<PathBuf>,
    /// Another machine's agent, through ssh [default: $WEFT_HOST, or the context in use]
    #[arg(long, global = true, value_name = "ssh://[USER@]HOST[:PORT]", conflicts_with = "socket")]
    #[arg(help_heading = EVERYWHERE)]
    pub host: Option<Host>,
    /// For people (table, wide) or for programs (json, yaml, name)
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    #[arg(help_heading = EVERYWHERE)]
    pub output: Format,
    /// The same as -o json
    #[arg(long, global = true, conflicts_with = "output", help_heading = EVERYWHERE)]
    pub json: bool,
    /// Show no progress: only data, questions and what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// Show what the agent is asked, and how long it takes
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    pub verbose: bool,
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
        after_help = "Examples:\n  weft join weft1.5f3a...\n  weft join --address 10.0.0.7:7400 - < token"
    )]
    Join {
        /// From `weft token create`; - reads it from stdin
        token: String,
        /// A member to ask, where discovery finds none
        #[arg(long, value_name = "IP:PORT")]
        address: Option<SocketAddr>,
    },
    /// Take this node out of its fabric: it hands over its work, and another member locks it out
    #[command(
        after_help = "Examples:\n  weft leave\n  weft leave --now --yes\n\nFiles that jobs have written on this machine's disks stay there and are copied nowhere. To come back, the node\nneeds an empty state directory and a new token. Another node is removed with `weft node NAME remove`."
    )]
    Leave {
        /// Do not wait until its work runs elsewhere
        #[arg(long)]
        now: bool,
        /// How long to wait for that: then the node stays a member, and goes on handing over
        #[arg(long, value_parser = duration::parse, value_name = "DURATION", default_value = "5m")]
        timeout: Duration,
        /// Also when no majority of the voters is left: those that are left decide alone from then on
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Limit what namespaces may have
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// This node and its fabric at a glance; exit 3 when not all is well
    #[command(after_help = "Example:\n  weft status || weft doctor")]
    Status,
    /// List the nodes
    #[command(after_help = "Examples:\n  weft nodes -o json\n  weft nodes --waiting")]
    Nodes {
        /// Machines that wait to be let in, as seen from here
        #[arg(long)]
        waiting: bool,
    },
    /// Show one node, remove it from the fabric, or let in one that waits
    #[command(
        after_help = "Examples:\n  weft node rack1\n  weft node rack1 --hardware\n  weft node 3fa9 remove\n  weft node approve weft-1d2e3f"
    )]
    Node {
        /// Name, or the first digits of its id
        node: Option<String>,
        /// What the machine is made of, as it reports itself
        #[arg(long)]
        hardware: bool,
        #[command(subcommand)]
        action: Option<NodeAction>,
    },
    /// Show name, addresses, fingerprint, fabric and health on a console, as they change
    #[command(after_help = "Example:\n  weft console --once")]
    Console {
        /// Show it once, and end; exit 3 when not all is well
        #[arg(long)]
        once: bool,
    },
    /// Show what an apply would do; changes nothing
    #[command(
        after_help = "Examples:\n  weft plan web.toml\n  weft plan web.toml --exit-code; [ $? = 5 ] && weft apply web.toml"
    )]
    Plan {
        /// Job file; - reads it from stdin
        file: PathBuf,
        /// Show the values of environment variables and the contents of files, too
        #[arg(long)]
        show_values: bool,
        /// Exit 5 if there is something to change, for scripts
        #[arg(long)]
        exit_code: bool,
    },
    /// Run a job file, or change the job to what it says; waits until it is healthy
    #[command(
        alias = "deploy",
        after_help = "Examples:\n  weft apply web.toml\n  weft apply web.toml --yes --timeout 2m\n  weft apply jobs/          every .toml in it, one after the other\n\nCtrl-C stops watching, not deploying."
    )]
    Apply {
        /// Job files, or folders of them; - reads one from stdin
        #[arg(required_unless_present = "also", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The same, for those who are used to it
        #[arg(short = 'f', long = "file", value_name = "FILE", hide = true)]
        also: Vec<PathBuf>,
        /// Do not ask before something is replaced or stopped
        #[arg(short, long)]
        yes: bool,
        /// Show the values of environment variables and the contents of files, too
        #[arg(long)]
        show_values: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Bring a job back to the version before; waits until it is healthy
    #[command(
        after_help = "Examples:\n  weft rollback web\n  weft rollback web --to 3\n\nThe spec of the former version is submitted again, as a new one. What is known is the last version that was\nhealthy on all slots; a second rollback comes back to where the first began."
    )]
    Rollback {
        /// The job
        #[arg(value_parser = job)]
        job: JobName,
        /// To this one [default: the last before it that was healthy on all slots]
        #[arg(long, value_name = "VERSION")]
        to: Option<u64>,
        /// Do not ask before something is replaced or stopped
        #[arg(short, long)]
        yes: bool,
        /// Show the values of environment variables and the contents of files, too
        #[arg(long)]
        show_values: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Run a command as a new job, without a job file
    #[command(
        after_help = "Example:\n  weft run --name web --count 3 --cores 1 --memory 64MiB --port http --http / \\\n      -- /usr/bin/python3 -m http.server '${port.http}'"
    )]
    Run(Box<Run>),
    /// List allocations: what runs where
    #[command(alias = "ls", after_help = "Example:\n  weft ps web --all")]
    Ps {
        /// Only this job
        #[arg(value_parser = job)]
        job: Option<JobName>,
        /// Include those that have ended
        #[arg(short, long)]
        all: bool,
    },
    /// List jobs
    #[command(alias = "list", after_help = "Example:\n  weft jobs")]
    Jobs {
        /// Only this one
        #[arg(value_parser = job)]
        job: Option<JobName>,
    },
    /// Say why each slot of a job is where it is, or why it is nowhere
    #[command(after_help = "Example:\n  weft explain web")]
    Explain {
        /// The job
        #[arg(value_parser = job)]
        job: JobName,
    },
    /// Show what a job writes to stdout and stderr
    #[command(
        after_help = "Examples:\n  weft logs web -f\n  weft logs web/2 -n 100 --stream stderr\n  weft logs web --previous     why the last version was taken back"
    )]
    Logs {
        /// The job, or one of its slots
        #[arg(value_name = "JOB[/SLOT]")]
        what: JobOrSlot,
        /// Keep showing what is written
        #[arg(short, long)]
        follow: bool,
        /// Start this many lines before the end [default: 100]
        #[arg(short = 'n', long, value_name = "LINES")]
        tail: Option<u32>,
        /// Which of its streams
        #[arg(long, value_enum, default_value = "both")]
        stream: LogStream,
        /// Only on this node: a system job has a slot 0 on each
        #[arg(long)]
        node: Option<String>,
        /// The log of the allocation that failed, if the last version was taken back; otherwise of the one before the newest
        #[arg(long, conflicts_with = "follow")]
        previous: bool,
        /// The log of the allocation with this epoch (EPOCH in weft ps --all)
        #[arg(long, conflicts_with_all = ["follow", "previous"])]
        epoch: Option<u64>,
    },
    /// Show what happened in the fabric, as this node has seen it since its agent started
    ///
    /// Lines come in the order in which this node heard of them, each with the time at which it happened: they may be out of
    /// order by a little. What was before the last start of the agent is in the journal: journalctl -u weftd.
    #[command(
        after_help = "Examples:\n  weft events -f\n  weft events --since 10m\n  weft events -n 20 -o json"
    )]
    Events(Events),
    /// Ask all nodes a question in PromQL
    #[command(
        after_help = "Examples:\n  weft query 'topk(5, sum by (job) (rate(weft_unit_cpu_seconds_total[1m])))'\n  weft query 'node_load1' --range 10m"
    )]
    Query(Query),
    /// Show what nodes, jobs and allocations use, again and again
    #[command(
        after_help = "Examples:\n  weft top\n  weft top --sort runq\n  weft top --batch -n 3\n\nKeys: q ends; c, m, r, d sort by CPU, memory, run queue, disk, n by name."
    )]
    Top(Top),
    /// Show how long things took: for a CPU, for the disk, for the network
    #[command(
        after_help = "Examples:\n  weft hist runq --by unit\n  weft hist disk --by node --where 'labels.rack == \"r2\"'"
    )]
    Hist(Hist),
    /// Say what a job loses time to, and who takes it
    #[command(
        after_help = "Examples:\n  weft why-slow web\n  weft why-slow web --range 1m -o json"
    )]
    WhySlow {
        /// The job
        #[arg(value_parser = job)]
        job: JobName,
        /// How far back to look
        #[arg(long, value_parser = duration::parse, value_name = "DURATION", default_value = "1m")]
        range: Duration,
    },
    /// Look closely at what a job does, for a while
    #[command(
        after_help = "Examples:\n  weft trace syscalls web --for 10s\n  weft trace files web/2\n  weft trace exec web -o json"
    )]
    Trace(Trace),
    /// Find out where a job's CPU time goes, or where it sleeps: a flame graph on stdout
    #[command(
        after_help = "Examples:\n  weft profile web --for 10s > flame.svg\n  weft profile web --off-cpu --folded"
    )]
    Profile(Profile),
    /// Change the number of a job's slots
    #[command(after_help = "Example:\n  weft scale web 5")]
    Scale {
        /// The job
        #[arg(value_parser = job)]
        job: JobName,
        /// To how many
        #[arg(value_parser = slot_count, allow_negative_numbers = true)]
        count: u32,
        /// Do not ask before slots are stopped
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Restart a job slot by slot, or one slot in place
    #[command(after_help = "Examples:\n  weft restart web\n  weft restart web/2")]
    Restart {
        /// The job, or one of its slots
        #[arg(value_name = "JOB[/SLOT]")]
        what: JobOrSlot,
        /// Nothing is asked: for scripts that always say so
        #[arg(short, long, hide = true)]
        yes: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Stop a job and forget it; waits until it is gone
    #[command(aliases = ["rm", "delete"], after_help = "Example:\n  weft stop web")]
    Stop {
        /// The job
        #[arg(value_parser = job)]
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
        #[arg(value_parser = job)]
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
    /// Look after the fabric as a whole
    #[command(subcommand)]
    Fabric(FabricCommand),
    /// Look for trouble on this node; exit 3 for warnings, 1 for errors
    #[command(after_help = "Example:\n  weft doctor")]
    Doctor,
    /// Show the version of this program and of the agent that it talks to
    #[command(after_help = "Example:\n  weft version --json")]
    Version,
    /// Keep ways to the agents of other machines, and choose one
    #[command(subcommand, alias = "ctx")]
    Context(ContextCommand),
    /// Pass bytes on to the agent: what ssh starts for --host
    #[command(hide = true, after_help = "Example:\n  ssh pine weft api-proxy")]
    ApiProxy,
    /// Print the completion script of a shell: commands, options, and the names of jobs and nodes
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
pub enum ContextCommand {
    /// List them; `here` is the agent of this machine
    #[command(after_help = "Example:\n  weft context list")]
    List,
    /// Ask this one from now on, where neither an option nor a variable says otherwise
    #[command(after_help = "Examples:\n  weft context use home\n  weft context use here")]
    Use {
        /// From `weft context list`
        #[arg(value_parser = context::name)]
        name: String,
    },
    /// Keep one
    #[command(after_help = "Example:\n  weft context add home ssh://root@pine")]
    Add {
        /// What it is to be called
        #[arg(value_parser = context::name)]
        name: String,
        /// The machine whose agent is asked
        #[arg(value_name = "ssh://[USER@]HOST[:PORT]")]
        host: Host,
    },
    /// Forget one
    #[command(after_help = "Example:\n  weft context remove home")]
    Remove {
        /// From `weft context list`
        #[arg(value_parser = context::name)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum FabricCommand {
    /// Date anew what was written with a clock that was ahead, once `status` or `doctor` says so; nothing stops for it
    #[command(after_help = "Example:\n  weft fabric reclock")]
    Reclock,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; printed once, on stdout
    #[command(after_help = "Example:\n  weft token create --lifetime 10m --label rack=r1")]
    Create {
        /// How long it works [default: 1h]
        #[arg(long, alias = "ttl", value_parser = duration::parse, value_name = "DURATION")]
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
        /// Disk, as in 500GiB
        #[arg(long, value_parser = bytes, value_name = "SIZE")]
        disk: Option<u64>,
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
    ///
    /// A node that answers hands over its work first, as `weft drain` has it do. One that is told of its removal stops what
    /// it still runs, at once or when it is switched on again.
    #[command(
        after_help = "Examples:\n  weft node rack1 remove\n  weft node rack1 remove --now\n  weft node rack1 remove --force"
    )]
    Remove {
        /// Do not wait until its work runs elsewhere
        #[arg(long)]
        now: bool,
        /// How long to wait for that: then the node stays a member, and goes on handing over
        #[arg(long, value_parser = duration::parse, value_name = "DURATION", default_value = "5m")]
        timeout: Duration,
        /// Also when no majority of the voters is left: those that are left decide alone from then on
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Nothing: the node is named before the word
        #[arg(hide = true)]
        misplaced: Option<String>,
    },
    /// Let in a node that waits, once its fingerprint was compared with what its own console shows
    #[command(
        after_help = "Examples:\n  weft node approve weft-1d2e3f\n  weft node approve 3fa9-1c22-0b7e-99ad-5c01"
    )]
    Approve {
        /// Its name, or at least eight digits of its fingerprint; from `weft nodes --waiting`
        #[arg(value_name = "NAME")]
        waiting: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Bring a new image to nodes that start from one, one after the other: each hands over its work, writes its other
    /// slot, restarts, and goes back by itself when it does not find its fabric again
    #[command(
        after_help = "Examples:\n  weft node upgrade weft-0.2.0-x86_64.update rack1 rack2\n  weft node upgrade weft-0.2.0-aarch64.update --all"
    )]
    Upgrade {
        /// What `make image` wrote: weft-VERSION-ARCH.update
        file: PathBuf,
        /// Names, or the first digits of their ids
        #[arg(required_unless_present = "all")]
        nodes: Vec<String>,
        /// Every node of the update's architecture that starts from an image of another version
        #[arg(long, conflicts_with = "nodes")]
        all: bool,
        /// Restart them with their work
        #[arg(long)]
        no_drain: bool,
        /// How long handing over may take, and coming back, on each node
        #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
        timeout: Option<Duration>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
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

#[cfg(test)]
mod tests;
