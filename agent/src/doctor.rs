//! What is well on this node and what is not, with advice: the answer to `weft doctor`.
//!
//! [`look`] gathers facts from the machine, [`examine`] judges them. Each finding comes from something
//! that was tried or read just now, none from configuration alone.

use ebpf::Status;
use fabric::api::{Finding, FindingLevel, NodeState};
use fabric::clock::{Now, WallTime};
use fabric::cpuset::CpuSet;
use fabric::resources;
use fabric::timekeeper::Clocks;
use fabric::topology::{Enforced, PortsUsed};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::executor;
use crate::guard::{self, WakesUp};
use crate::observe::remote::{Sending, Trouble};
use crate::observe::{Report, SourceReport, Unanswered, source_name};
use helper::order::Tried;

/// By then a member that is reached by multicast has been seen.
const MULTICAST_TAKES: Duration = Duration::from_secs(60);
/// Less free space than this and the table may soon not fit.
const SPACE_BYTES_MIN: u64 = 64 << 20;
/// The wall clock and the monotonic one may drift apart by this much before it is worth a word.
const DRIFT_MAX: Duration = Duration::from_secs(5);
/// 2026-01-01: no agent was built before, so an earlier wall clock is wrong.
const NOT_BEFORE: WallTime = WallTime(1_767_225_600_000);

/// Programs that are named which have ports of the range that jobs get.
const PORTS_SHOWN: usize = 5;

/// For whom the kernel refuses an eBPF program.
const EBPF_NEEDS: &str =
    "eBPF needs Linux 6.1 with BTF, and CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";

/// What the machine says when asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Whether a file could be written in the state directory and brought to the disk.
    pub written: Result<(), String>,
    /// Bytes free there.
    pub space: Option<u64>,
    /// The kernel's own range of ports for outgoing connections.
    pub ephemeral_ports: Option<(u16, u16)>,
    /// What the guard can do here, or why it cannot work.
    pub guard: Result<WakesUp, String>,
    /// Where what is not a job may run, by slice; `None`: nothing here says so.
    pub others: Option<Vec<(&'static str, CpuSet)>>,
}

/// What the agent knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Both clocks when it started.
    pub started: Now,
    /// Both clocks now.
    pub now: Now,
    /// Why the store refused the last write, if it did.
    pub store: Option<String>,
    /// `systemd` or `direct`, and why.
    pub executor: (String, String),
    /// Which limits bite.
    pub enforced: Enforced,
    /// Whether the processes of a unit are held together by a cgroup.
    pub cgroups: bool,
    /// CPUs that jobs have for themselves.
    pub exclusive: CpuSet,
    /// Whether they are to be kept free of what is not a job.
    pub confines: bool,
    /// Range of dynamic ports.
    pub ports: (u16, u16),
    /// Ports that other programs of this machine listen on.
    pub ports_used: Vec<PortsUsed>,
    /// Multicast discovery: `None`: switched off; `Err`: why it does not work; `Ok`: nodes seen.
    pub mdns: Option<Result<usize, String>>,
    /// Other ways to find nodes: domains and seeds.
    pub other_sources: usize,
    /// What is wrong with the credentials that this node was given.
    pub given: Vec<String>,
    /// The fabric; `None`: none yet.
    pub fabric: Option<Membership>,
    /// What is measured; why nothing is, otherwise.
    pub observed: Result<Report, Unanswered>,
    /// What can be traced, as it was tried; `Err`: why nothing was tried. `None`: switched off.
    pub tried: Option<Result<Tried, String>>,
}

/// What the agent knows of its fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Whether the roster has this node.
    pub in_roster: bool,
    /// Nodes in the roster.
    pub roster: usize,
    /// Nodes by state.
    pub nodes: BTreeMap<NodeState, u32>,
    /// Those of the dead whose agents have stopped and will be back, by name.
    pub stopped: Vec<String>,
    /// Local health multiplier.
    pub local_health: u32,
    /// Whose clocks differ, and what is dated ahead of them.
    pub clocks: Clocks,
    /// Datagrams that nobody with our keys sealed, or that came late or from a copy; and datagrams that were fine.
    pub datagrams: (u64, u64),
    /// Rows that were refused because the nodes they name did not sign them.
    pub forged: u64,
    /// Keys that two machines use, in words.
    pub twins: Vec<String>,
    /// The level that the fabric has reached, what this agent reads, and who holds it back from that.
    pub level: (u8, u8, Vec<String>),
    /// Bounds of the table of which little is left, in words.
    pub nearly_full: Vec<String>,
    /// This node with each member that is alive and cannot be reached from here, in words.
    pub broken_pairs: Vec<String>,
}

/// Asks the machine. Blocks on its disk.
pub fn look(state: &Path) -> Machine {
    Machine {
        written: write_probe(state).map_err(|error| error.to_string()),
        space: nix::sys::statvfs::statvfs(state).ok().map(|found| bytes_free(&found)),
        ephemeral_ports: std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
            .ok()
            .and_then(|text| {
                let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
                Some((numbers.next()??, numbers.next()??))
            }),
        guard: std::path::absolute(state)
            .map_err(|error| error.to_string())
            .and_then(|state| guard::probe(&guard::folder_of(&state))),
        others: executor::others(),
    }
}

#[allow(clippy::unnecessary_cast, reason = "both have 32 bits on 32-bit machines")]
fn bytes_free(found: &nix::sys::statvfs::Statvfs) -> u64 {
    found.blocks_available() as u64 * found.fragment_size() as u64
}

fn write_probe(state: &Path) -> std::io::Result<()> {
    // Several may look at once.
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    let path = state.join(format!("probe-{}", LOOKS.fetch_add(1, Ordering::Relaxed)));
    let mut file = std::fs::File::create(&path)?;
    let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_all());
    std::fs::remove_file(&path)?;
    written
}

/// Judges the facts.
pub fn examine(machine: &Machine, agent: &Agent) -> Vec<Finding> {
    let mut findings = vec![
        disk(machine, agent),
        clock(agent),
        runs_units(agent),
        limits(agent),
        lease_guard(machine, agent),
        ports(machine, agent),
        discovery(agent),
        probes(agent),
    ];
    findings.extend(cores(machine, agent));
    findings.extend(sources(agent));
    findings.extend(agent.tried.as_ref().map(|tried| traces(tried, agent)));
    findings
        .extend(agent.observed.iter().filter_map(|report| Some(sending(report.sending.as_ref()?))));
    let advice = "give it another one and restart weftd, or let this node in by hand";
    let given = agent.given.iter();
    findings.extend(given.map(|what| finding("credentials", FindingLevel::Warning, what, advice)));
    match &agent.fabric {
        None => findings.push(finding(
            "fabric",
            FindingLevel::Warning,
            "this node belongs to no fabric yet",
            "run `weft init` here, or `weft join TOKEN` with a token from a member",
        )),
        // Nobody speaks to it, and what it knows of them is from before.
        Some(membership) if !membership.in_roster => findings.push(roster(membership)),
        Some(membership) => {
            findings.extend([roster(membership), peers(membership), gossip(membership)]);
            let advice = "switch off the one that is the copy, empty its state directory, and let it join as a node of \
                          its own";
            let twins = membership.twins.iter();
            findings
                .extend(twins.map(|what| finding("identity", FindingLevel::Error, what, advice)));
            let advice = "the log names the rows and who they pretend to be from; once it is known where the key leaked, \
                          remove that node: that makes a new gossip key";
            let forged = forged(membership.forged);
            findings.extend(
                forged.map(|what| finding("signatures", FindingLevel::Warning, what, advice)),
            );
            findings.push(level(membership));
            let advice = "what runs runs on, and what is there can be changed; new jobs are refused when the table is full";
            let full = membership.nearly_full.iter();
            findings.extend(full.map(|what| finding("table", FindingLevel::Warning, what, advice)));
            findings.extend(membership.broken_pairs.iter().map(|pair| reach(pair)));
        }
    }
    findings
}

fn finding(
    check: &str,
    level: FindingLevel,
    message: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding { check: check.into(), level, message: message.into(), advice: advice.into() }
}

/// What does not work, by the reason: what one machine lacks is mostly the same for all, and is said once.
#[derive(Default)]
struct Refusals(BTreeMap<String, Vec<&'static str>>);

/// Characters of a reason that are told: the loader's words can fill a page.
const REASON_CHARS: usize = 240;

impl Refusals {
    fn add(&mut self, reason: &str, what: &'static str) {
        let mut told: String = reason.chars().take(REASON_CHARS).collect();
        if told.len() < reason.len() {
            told.push('…');
        }
        self.0.entry(told).or_default().push(what);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told: Vec<String> =
            self.0.iter().map(|(reason, of)| format!("{}: {reason}", of.join(", "))).collect();
        f.write_str(&told.join("; "))
    }
}

/// Which probes run, where the rest is read, and why.
fn probes(agent: &Agent) -> Finding {
    let report = match &agent.observed {
        Ok(report) => report,
        Err(Unanswered::Off) => {
            return finding(
                "probes",
                FindingLevel::Ok,
                "nothing is measured: switched off in the configuration",
                "",
            );
        }
        Err(error) => {
            let advice = "look into the agent's log";
            return finding("probes", FindingLevel::Warning, error.to_string(), advice);
        }
    };
    let mut running = Vec::new();
    let mut others = Refusals::default();
    for probe in &report.probes {
        let instead = match probe.source {
            Some(source) => format!("read from {} instead", source_name(source)),
            None => "not measured".to_owned(),
        };
        match &probe.status {
            Status::Running => running.push(probe.probe.name()),
            Status::Off => {}
            status => others.add(&format!("{status} ({instead})"), probe.probe.name()),
        }
    }
    let running = match running.as_slice() {
        [] => "no eBPF probe runs".to_owned(),
        some => format!("eBPF probes run: {}", some.join(", ")),
    };
    if others.is_empty() {
        return finding("probes", FindingLevel::Ok, running, "");
    }
    finding(
        "probes",
        FindingLevel::Warning,
        format!("{running}; {others}"),
        format!("{EBPF_NEEDS}; without it there are fewer numbers, and no histograms"),
    )
}

/// What else is measured that not every machine has. Where it has not, that is no trouble.
fn sources(agent: &Agent) -> Option<Finding> {
    let report = agent.observed.as_ref().ok()?;
    let wanted = report.sources.iter().filter(|source| source.status != Status::Off);
    let told: Vec<String> = wanted
        .map(|SourceReport { what, status, note, .. }| match note.as_str() {
            "" => format!("{what}: {status}"),
            note => format!("{what}: {status} ({note})"),
        })
        .collect();
    (!told.is_empty()).then(|| finding("hardware", FindingLevel::Ok, told.join("; "), ""))
}

/// Which traces `weft trace` can make, and why it cannot make the others.
fn traces(tried: &Result<Tried, String>, agent: &Agent) -> Finding {
    let tried = match tried {
        Ok(tried) => tried,
        Err(reason) => {
            let message = format!("it could not be tried: {reason}");
            return finding("traces", FindingLevel::Warning, message, "look into the agent's log");
        }
    };
    if !agent.cgroups {
        return finding(
            "traces",
            FindingLevel::Warning,
            "none can be made of a job: a unit is told apart by its cgroup, and has none here",
            "mount cgroup v2, or run under systemd",
        );
    }
    let mut work = Vec::new();
    let mut others = Refusals::default();
    for (what, outcome) in tried {
        match outcome {
            Ok(()) => work.push(what.name()),
            Err(reason) => others.add(reason, what.name()),
        }
    }
    let message = match (work.as_slice(), others.is_empty()) {
        ([], true) => "those that run have all the room there is".to_owned(),
        ([], false) => "none can be made".to_owned(),
        (some, _) => format!("can be made: {}", some.join(", ")),
    };
    if others.is_empty() {
        return finding("traces", FindingLevel::Ok, message, "");
    }
    let message = format!("{message}; {others}");
    finding("traces", FindingLevel::Warning, message, EBPF_NEEDS)
}

/// Whether the receiver of remote-write takes what is measured.
fn sending(sending: &Sending) -> Finding {
    let Sending { receiver, books } = sending;
    let mut counts = format!("{} samples sent, {} wait", books.sent, books.waiting);
    for (count, what) in [(books.failed, "refused"), (books.dropped, "dropped")] {
        if count > 0 {
            counts += &format!(", {count} {what}");
        }
    }
    let Some(Trouble { reason, again }) = &books.trouble else {
        return finding("remote-write", FindingLevel::Ok, format!("{receiver}: {counts}"), "");
    };
    let advice = match again {
        true => {
            "start the receiver, or correct metrics.remote_write in weftd.toml; until then it is tried again, and \
             the oldest samples are dropped when too many wait"
        }
        false => {
            "make the receiver take them (Prometheus: --web.enable-remote-write-receiver), or correct \
             metrics.remote_write in weftd.toml; what it refuses is lost"
        }
    };
    let message = format!("{receiver} does not take what is measured: {reason} ({counts})");
    finding("remote-write", FindingLevel::Warning, message, advice)
}

fn disk(machine: &Machine, agent: &Agent) -> Finding {
    let refused = machine.written.as_ref().err().or(agent.store.as_ref());
    match (refused, machine.space) {
        (Some(reason), _) => finding(
            "disk",
            FindingLevel::Error,
            format!("the state directory cannot be written: {reason}"),
            "make room, or make it writable; until then this node takes no new work",
        ),
        (None, Some(space)) if space < SPACE_BYTES_MIN => finding(
            "disk",
            FindingLevel::Warning,
            format!("{} are free in the state directory", resources::bytes(space)),
            format!("make room: below {} it may fill up", resources::bytes(SPACE_BYTES_MIN)),
        ),
        (None, space) => finding(
            "disk",
            FindingLevel::Ok,
            match space {
                Some(space) => format!("writable, {} free", resources::bytes(space)),
                None => "writable".into(),
            },
            "",
        ),
    }
}

fn clock(agent: &Agent) -> Finding {
    let advice = "set the clock and keep it set (timesyncd, chrony): it dates what people read";
    if agent.now.wall < NOT_BEFORE {
        let message = "the clock is set to a time before this agent was built";
        return finding("clock", FindingLevel::Error, message, advice);
    }
    let monotonic = agent.now.at.since(agent.started.at);
    let wall = agent.now.wall.since(agent.started.wall);
    let backwards = agent.started.wall.since(agent.now.wall);
    let drift = monotonic.abs_diff(wall).max(backwards);
    if drift > DRIFT_MAX {
        let message = format!("the clock was moved by about {} s since the start", drift.as_secs());
        return finding("clock", FindingLevel::Warning, message, advice);
    }
    let Some(clocks) = agent.fabric.as_ref().map(|membership| &membership.clocks) else {
        return finding("clock", FindingLevel::Ok, "goes evenly", "");
    };
    let mut warnings = clocks.warnings();
    if warnings.is_empty() {
        return finding("clock", FindingLevel::Ok, "goes evenly, and as those of the others", "");
    }
    if clocks.refused > 0 {
        let count = clocks.refused;
        warnings.push(format!("{count} entries dated ahead of every clock were refused"));
    }
    finding("clock", FindingLevel::Warning, warnings.join("; "), advice)
}

fn runs_units(agent: &Agent) -> Finding {
    let (kind, reason) = &agent.executor;
    finding("executor", FindingLevel::Ok, format!("{kind}: {reason}"), "")
}

fn limits(agent: &Agent) -> Finding {
    let enforced = agent.enforced;
    let missing: Vec<&str> = [
        (enforced.pinning, "pinning to cores"),
        (enforced.cpuset, "cpusets that a task cannot widen"),
        (enforced.numa, "binding to memory nodes"),
        (enforced.cpu, "CPU quota"),
        (enforced.memory, "memory limits"),
        (enforced.tasks, "task limits"),
        (enforced.devices, "device access"),
    ]
    .into_iter()
    .filter_map(|(bites, name)| (!bites).then_some(name))
    .collect();
    if missing.is_empty() {
        return finding("cgroup", FindingLevel::Ok, "every limit is enforced", "");
    }
    finding(
        "cgroup",
        FindingLevel::Warning,
        format!("not enforced here: {}", missing.join(", ")),
        "jobs that need one of these are placed elsewhere; cgroup v2 with its controllers enables them",
    )
}

/// Whether cores that jobs have for themselves are free of everything else. `None`: no job has any.
fn cores(machine: &Machine, agent: &Agent) -> Option<Finding> {
    let cpus = &agent.exclusive;
    if cpus.is_empty() {
        return None;
    }
    let Some(others) = &machine.others else {
        return Some(finding(
            "cores",
            FindingLevel::Warning,
            format!(
                "jobs have CPUs {cpus} for themselves, and what is not a job may run there, too"
            ),
            "cgroup v2 with cpusets, under systemd, lets the agent keep services off them",
        ));
    };
    let (there, elsewhere): (Vec<_>, Vec<_>) =
        others.iter().partition(|(_, on)| on.intersects(cpus));
    let mut rest = CpuSet::new();
    there.iter().chain(&elsewhere).for_each(|(_, on)| rest.insert_all(on));
    rest.remove_all(cpus);
    if there.is_empty() {
        let message = format!("CPUs {cpus} are kept free for their jobs; services run on {rest}");
        return Some(finding("cores", FindingLevel::Ok, message, ""));
    }
    let (level, why, advice) = if !agent.confines {
        (FindingLevel::Ok, ": resources.confine_system = false", "")
    } else if rest.is_empty() {
        let advice = "keep a core for the system: resources.housekeeping in weftd.toml";
        (FindingLevel::Warning, ": no other CPU is left", advice)
    } else {
        let advice = "somebody else has set their AllowedCPUs= (see `systemctl cat` of each), another agent has them, or \
                      systemd refused, which the agent's log says";
        (FindingLevel::Warning, "", advice)
    };
    let there: Vec<&str> = there.iter().map(|(slice, _)| *slice).collect();
    let there = there.join(", ");
    let message =
        format!("jobs have CPUs {cpus} for themselves, and {there} may run there, too{why}");
    Some(finding("cores", level, message, advice))
}

fn lease_guard(machine: &Machine, agent: &Agent) -> Finding {
    match &machine.guard {
        Err(reason) => finding(
            "guard",
            FindingLevel::Warning,
            format!("at-most-one jobs are refused here: {reason}"),
            "nothing else would end such a job with its lease: make it work, or let them run elsewhere",
        ),
        Ok(_) if !agent.cgroups => finding(
            "guard",
            FindingLevel::Warning,
            "no cgroup holds a task together: a process that starts a session of its own and clears its \
             environment outlives the lease of its at-most-one job",
            "mount cgroup v2, or run under systemd",
        ),
        Ok(WakesUp::Yes) => {
            finding("guard", FindingLevel::Ok, "ends at-most-one jobs with their lease", "")
        }
        Ok(WakesUp::No) => finding(
            "guard",
            FindingLevel::Ok,
            "ends at-most-one jobs with their lease; after a suspension, at the latest when it is over",
            "",
        ),
    }
}

fn ports(machine: &Machine, agent: &Agent) -> Finding {
    let (first, last) = agent.ports;
    match machine.ephemeral_ports {
        Some((low, high)) if first <= high && low <= last => finding(
            "ports",
            FindingLevel::Warning,
            format!("jobs get ports {first}-{last}, outgoing connections {low}-{high}"),
            "set resources.ports in weftd.toml to a range outside, or a job may find its port taken",
        ),
        _ => taken_ports(agent),
    }
}

/// How much of the range of dynamic ports others of this machine have.
fn taken_ports(agent: &Agent) -> Finding {
    let (first, last) = agent.ports;
    let within = agent.ports_used.iter().filter(|used| used.first <= last && first <= used.last);
    let used: Vec<PortsUsed> = within.cloned().collect();
    let count = |used: &PortsUsed| {
        u32::from(used.last.min(last)).saturating_sub(u32::from(used.first.max(first))) + 1
    };
    let (taken, all) = (used.iter().map(count).sum::<u32>(), u32::from(last.abs_diff(first)) + 1);
    let range = format!("jobs get ports {first}-{last}");
    if used.is_empty() {
        return finding("ports", FindingLevel::Ok, range, "");
    }
    let shown: Vec<String> = used.iter().take(PORTS_SHOWN).map(PortsUsed::to_string).collect();
    let more = match used.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("{range}; others have {taken} of them: {}{more}", shown.join(", "));
    if taken * 10 < all * 8 {
        return finding("ports", FindingLevel::Ok, message, "");
    }
    let advice =
        "end what listens there, or give jobs another range by resources.ports in weftd.toml";
    finding("ports", FindingLevel::Warning, message, advice)
}

fn discovery(agent: &Agent) -> Finding {
    let others = agent.fabric.as_ref().map_or(0, |fabric| fabric.roster.saturating_sub(1));
    match &agent.mdns {
        Some(Ok(0)) if others > 0 && agent.now.at.since(agent.started.at) > MULTICAST_TAKES => {
            finding(
                "discovery",
                FindingLevel::Warning,
                format!("multicast shows none of the {others} others"),
                "look at this machine's cable and at what filters UDP 5353; where multicast cannot work, set discovery.seeds in \
             weftd.toml and discovery.mdns = false",
            )
        }
        Some(Ok(seen)) => finding(
            "discovery",
            FindingLevel::Ok,
            format!("multicast works, {seen} nodes seen"),
            "",
        ),
        Some(Err(reason)) => finding(
            "discovery",
            FindingLevel::Error,
            format!("multicast does not work: {reason}"),
            "open UDP port 5353 and a multicast route, or set discovery.seeds in weftd.toml",
        ),
        None if agent.other_sources > 0 => finding(
            "discovery",
            FindingLevel::Ok,
            format!("multicast is off, {} domains and seeds", agent.other_sources),
            "",
        ),
        None => finding(
            "discovery",
            FindingLevel::Warning,
            "multicast is off, and there is no domain and no seed",
            "others can still find this node if they know its address",
        ),
    }
}

/// Whether all agents can read the same.
fn level(membership: &Membership) -> Finding {
    let (fabric, agent, held_back_by) = &membership.level;
    if fabric > agent {
        return finding(
            "level",
            FindingLevel::Error,
            format!(
                "the fabric is at level {fabric}, and this agent reads up to level {agent}: it takes no part"
            ),
            "upgrade weftd here; what runs here runs on",
        );
    }
    if held_back_by.is_empty() {
        return finding("level", FindingLevel::Ok, format!("all agents read level {fabric}"), "");
    }
    finding(
        "level",
        FindingLevel::Warning,
        format!("older agents run on {} (level {fabric}, here {agent})", held_back_by.join(", ")),
        "upgrade weftd there: until then jobs that ask for something newer are refused",
    )
}

fn roster(membership: &Membership) -> Finding {
    if membership.in_roster {
        let message = format!("{} nodes belong to the fabric", membership.roster);
        return finding("roster", FindingLevel::Ok, message, "");
    }
    finding(
        "roster",
        FindingLevel::Error,
        "this node was removed from the fabric, and has ended its work",
        "stop the agent, empty its state directory, start it and join again with a new token",
    )
}

fn peers(membership: &Membership) -> Finding {
    let count = |state| membership.nodes.get(&state).copied().unwrap_or(0);
    let (alive, suspect, dead) =
        (count(NodeState::Alive), count(NodeState::Suspect), count(NodeState::Dead));
    let unknown = count(NodeState::Unknown);
    let message =
        format!("{alive} alive, {suspect} suspect, {dead} dead, {unknown} never seen from here");
    if !membership.stopped.is_empty() && suspect + dead + unknown == membership.stopped.len() as u32
    {
        let names = membership.stopped.join(", ");
        return finding(
            "peers",
            FindingLevel::Warning,
            format!(
                "the agents of {names} have stopped, and said that they will be back: {message}"
            ),
            "nothing, if they are being restarted; after half a minute their work is placed elsewhere",
        );
    }
    let others = membership.roster.saturating_sub(1);
    if others > 0 && alive <= 1 {
        return finding(
            "peers",
            FindingLevel::Error,
            format!("nobody else answers: {message}"),
            "check the network, and that UDP ports 7400 and 7401 (or listen.port) are open",
        );
    }
    if membership.local_health > 0 {
        return finding(
            "peers",
            FindingLevel::Warning,
            format!("this node is slow to react: {message}"),
            "give the agent CPU: keep a housekeeping core (resources.housekeeping)",
        );
    }
    if suspect + dead + unknown > 0 {
        return finding(
            "peers",
            FindingLevel::Warning,
            message,
            "start the dead ones, or take them out with `weft node remove`",
        );
    }
    finding("peers", FindingLevel::Ok, message, "")
}

/// Two members that others reach and that do not reach each other.
fn reach(pair: &str) -> Finding {
    finding(
        "reach",
        FindingLevel::Warning,
        format!("{pair}: others pass on what they say"),
        "look at cable, switch, routes and firewalls between the two: UDP ports 7400 and 7401 (or listen.port), both ways",
    )
}

/// What is to be said of so many rows in the names of nodes that did not write them.
pub fn forged(rows: u64) -> Option<String> {
    let some = rows > 0;
    some.then(|| {
        format!("{rows} rows were refused that the nodes they name did not sign: somebody has a gossip key of this fabric")
    })
}

fn gossip(membership: &Membership) -> Finding {
    let (refused, opened) = membership.datagrams;
    if refused > opened && refused > 10 {
        return finding(
            "gossip",
            FindingLevel::Warning,
            format!("{refused} datagrams were refused, {opened} were good"),
            "somebody without our keys sends here: a removed node, or another fabric on this port",
        );
    }
    finding("gossip", FindingLevel::Ok, format!("{opened} datagrams, {refused} refused"), "")
}

#[cfg(test)]
mod tests;
