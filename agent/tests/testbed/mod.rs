//! Real agents on this machine, each in a machine made of namespaces, all on one switch.
//!
//! A [`Lab`] is a switch with machines on it. A [`Machine`] has its own host name, processes, mounts,
//! network and cgroups; [`Machine::power_off`] ends everything in it at once, agent and work, and what
//! it wrote stays. The API is spoken over the agent's Unix socket, in the API's own types.
//!
//!     let Some(lab) = Lab::new("split") else { return };
//!     let mut machines = lab.fabric(3);
//!     machines[0].submit(&job("web", 2, ""));
//!     machines[1].wait_healthy("web");
//!
//! Whatever is made here goes away with its guard, also when the test panics, and the processes also
//! when the test is killed.

// Tests wait for real processes in real time.
#![allow(clippy::disallowed_methods)]
// Each test file uses its part of this.
#![allow(dead_code)]

#[path = "../../../discovery/tests/netns/mod.rs"]
pub mod netns;

pub mod api;
pub mod cost;
pub mod half_open;
pub mod wire;

use fabric::api::{AllocView, JobView, Joined, NodeState, NodeView, Status, TokenCreated};
use fabric::job::JobSpec;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

pub use api::Refused;
use netns::{Bridge, Netns, wait_until};

/// The agent, as cargo built it with this program, or the one that `WEFT_AGENT` names: the benchmarks
/// measure a release.
pub fn weftd() -> PathBuf {
    std::env::var_os("WEFT_AGENT").unwrap_or_else(|| env!("CARGO_BIN_EXE_weftd").into()).into()
}

/// What it starts for what it does not do itself: beside it.
pub fn helper() -> PathBuf {
    weftd().with_file_name("weft-helper")
}

/// UDP port of gossip; streams use the next one.
pub const GOSSIP_PORT: u16 = 7400;

/// Machines on one switch.
pub struct Lab {
    pub bridge: Bridge,
    folder: tempfile::TempDir,
    cgroup: Option<PathBuf>,
    machines: Cell<u8>,
}

impl Lab {
    /// A switch without machines. `None` when this machine cannot do that; says so aloud.
    pub fn new(name: &str) -> Option<Self> {
        if !netns::can_run(&["nsenter", "unshare", "bash", "mount", "bridge"]) {
            return None;
        }
        // Short: a path of a socket has 107 bytes at most.
        let folder = tempfile::Builder::new().prefix("weft-lab-").tempdir_in("/tmp");
        let folder = folder.expect("a folder in /tmp");
        let unique = folder.path().file_name().expect("it has a name");
        let cgroup = cgroup_mount().map(|mount| mount.join(unique)).filter(|path| {
            // Without cgroups the agent holds tasks together by their sessions.
            fs::create_dir(path).is_ok()
        });
        Some(Self { bridge: Bridge::new(name), folder, cgroup, machines: Cell::new(0) })
    }

    /// A machine that is switched on, with the next free address: 10.77.0.1, 10.77.0.2 and so on.
    pub fn machine(&self, name: &str) -> Machine {
        let number = self.machines.get() + 1;
        self.machines.set(number);
        let folder = self.folder.path().join(number.to_string());
        fs::create_dir(&folder).expect("a folder for the machine");
        let cgroup = self.cgroup.as_ref().map(|path| path.join(number.to_string()));
        let netns = Netns::new(name);
        let port = self.bridge.connect(&netns, "eth0");
        netns.exec(&format!("ip addr add 10.77.0.{number}/24 dev eth0"));
        let mut machine = Machine {
            name: name.to_owned(),
            number,
            netns,
            port,
            cpus: all_cpus(),
            labels: String::new(),
            witness: false,
            metrics: "probes = []".to_owned(),
            discovery: String::new(),
            credentials: Vec::new(),
            approval: false,
            level: fabric::level::LEVEL,
            clock: "",
            program: weftd(),
            state: folder.join("state"),
            folder,
            cgroup,
            init: None,
            agent: None,
        };
        machine.power_on();
        machine
    }

    /// A fabric of this many machines, `n1`, `n2` and so on, in which each knows that all are alive.
    /// They were told nothing about each other but the token.
    pub fn fabric(&self, count: usize) -> Vec<Machine> {
        self.fabric_with(count, |_| {})
    }

    /// The same, but each machine is prepared before its agent starts.
    pub fn fabric_with(&self, count: usize, prepare: impl Fn(&mut Machine)) -> Vec<Machine> {
        let mut machines: Vec<Machine> = (1..=count)
            .map(|number| {
                let mut machine = self.machine(&format!("n{number}"));
                prepare(&mut machine);
                machine.start_agent();
                machine
            })
            .collect();
        machines[0].init();
        let token = machines[0].token("1h");
        for machine in &machines[1..] {
            machine.join(&token.token).expect("a good token lets it in");
        }
        for machine in &mut machines {
            machine.wait_alive(count);
        }
        machines
    }
}

impl Lab {
    /// Whether its machines have cgroups.
    pub fn has_cgroups(&self) -> bool {
        self.cgroup.is_some()
    }

    /// A folder that all machines see.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            remove_cgroups(cgroup);
        }
    }
}

/// One machine.
pub struct Machine {
    pub name: String,
    pub number: u8,
    pub netns: Netns,
    /// Its port of the switch.
    pub port: String,
    /// CPUs that its agent gives away.
    pub cpus: String,
    /// Lines of `[node.labels]`.
    pub labels: String,
    /// It votes and runs nothing.
    pub witness: bool,
    /// Lines of `[metrics]`. Many agents on one machine would measure all the same, so none does unless told to.
    pub metrics: String,
    /// Lines of `[discovery]`.
    pub discovery: String,
    /// What its service manager gives to the agent: names and contents.
    pub credentials: Vec<(&'static str, String)>,
    /// While it is in no fabric, a member may let it in.
    pub approval: bool,
    /// Up to which level its agent reads and writes.
    pub level: u8,
    /// How far its agent's wall clock is off, as `faketime` writes it; empty: it is right.
    pub clock: &'static str,
    /// The agent.
    program: PathBuf,
    /// The agent's state directory.
    pub state: PathBuf,
    folder: PathBuf,
    cgroup: Option<PathBuf>,
    init: Option<Init>,
    agent: Option<Child>,
}

/// What keeps a machine on: its end is the end of every process in it.
struct Init {
    child: Child,
    pid: u32,
}

impl Machine {
    /// Its address on the switch.
    pub fn address(&self) -> String {
        format!("10.77.0.{}", self.number)
    }

    /// Its agent has a file of its own, and shares no page of it.
    pub fn use_copy(&mut self) {
        self.program = self.folder.join("weftd");
        fs::copy(weftd(), &self.program).expect("a copy of the agent");
        fs::copy(helper(), self.folder.join("weft-helper")).expect("a copy of the helper");
    }

    /// The agent's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("weft.sock")
    }

    /// What its agent keeps for the next one.
    pub fn handover(&self) -> PathBuf {
        self.folder.join("weft.sock.handover")
    }

    /// What the agent said so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn log_file(&self) -> File {
        let path = self.folder.join("log");
        File::options().create(true).append(true).open(path).expect("a log")
    }

    /// Switches it on. Nothing runs in it yet.
    pub fn power_on(&mut self) {
        assert!(self.init.is_none(), "{} is on", self.name);
        let network = Path::new("/run/netns").join(self.netns.name());
        let mut command = script();
        command.args(["init", &self.name]).arg(network).arg(self.cgroup_argument());
        dies_with_us(&mut command);
        let mut child =
            command.stdout(Stdio::piped()).stderr(self.log_file()).spawn().expect("bash");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let pid = line.strip_prefix("init ").and_then(|pid| pid.trim().parse().ok());
        let pid = pid.unwrap_or_else(|| panic!("{} did not come up: {line:?}", self.name));
        self.init = Some(Init { child, pid });
    }

    /// Pulls its plug: agent and work die at once.
    pub fn power_off(&mut self) {
        let Some(mut init) = self.init.take() else { return };
        signal(init.pid, nix::sys::signal::Signal::SIGKILL);
        let _ = init.child.wait();
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.wait();
        }
        if let Some(cgroup) = &self.cgroup {
            remove_cgroups(cgroup);
        }
    }

    /// A command that will run in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let init = self.init.as_ref().expect("it is on");
        let mut command = script();
        command.args(["run", &init.pid.to_string()]).arg(self.cgroup_argument()).arg(program);
        command
    }

    /// What a person sees who types a line in it, in the folder `desk`: the exit status, and all that is printed. `weft` is
    /// the one that was built with the agent, and asks this machine's.
    pub fn types(&self, desk: &Path, line: &str) -> (Option<i32>, String) {
        let programs = weftd().parent().expect("its folder").to_path_buf();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = self.command("bash");
        shell.arg("-c").arg(format!("cd {} || exit; exec 2>&1; {line}", desk.display()));
        shell.env("PATH", path).env("WEFT_SOCKET", self.socket()).env("NO_COLOR", "1");
        let ended = shell.stdin(Stdio::null()).output().expect("a shell");
        let printed = [ended.stdout, ended.stderr].concat();
        (ended.status.code(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Runs a shell's line in it. Panics when that fails.
    pub fn shell(&self, line: &str) -> String {
        netns::run(self.command("sh").args(["-c", line]))
    }

    /// The agent's command. Its configuration is written.
    pub fn agent_command(&self) -> Command {
        let config = self.folder.join("weftd.toml");
        fs::write(&config, self.config()).expect("a configuration");
        let mut command = self.command(&self.program);
        command.arg("--config").arg(config);
        command
    }

    /// What the service manager runs after an agent that did not end as it was told.
    pub fn farewell_command(&self) -> Command {
        let mut command = self.command(&self.program);
        command.args(["farewell", "--config"]).arg(self.folder.join("weftd.toml"));
        command.env("SERVICE_RESULT", "signal");
        command
    }

    /// Starts the agent, and waits until it answers.
    pub fn start_agent(&mut self) {
        self.launch_agent();
        self.wait_for_agent();
    }

    /// Starts the agent.
    pub fn launch_agent(&mut self) {
        let log = self.log_file();
        let mut command = self.agent_command();
        if let (false, Some(library)) = (self.clock.is_empty(), faketime()) {
            command.env("LD_PRELOAD", library).env("FAKETIME", self.clock);
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let credentials = self.folder.join("credentials");
        let _ = fs::remove_dir_all(&credentials);
        if !self.credentials.is_empty() {
            fs::create_dir(&credentials).expect("a folder");
            for (name, content) in &self.credentials {
                fs::write(credentials.join(name), content).expect("a credential");
            }
            command.env("CREDENTIALS_DIRECTORY", &credentials);
        }
        dies_with_us(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("an agent");
        self.agent = Some(child);
    }

    /// Waits until the agent that was launched answers.
    pub fn wait_for_agent(&mut self) {
        wait_until(&format!("the agent on {} answers", self.name), || {
            if let Ok(Some(status)) = self.agent.as_mut().expect("an agent").try_wait() {
                panic!("the agent on {} ended, {status}: {}", self.name, self.log());
            }
            self.try_get::<Status>("/v1/status").ok()
        });
    }

    /// Ends the agent with SIGKILL; its work runs on.
    pub fn kill_agent(&mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        signal(self.agent_pid_of(&agent), nix::sys::signal::Signal::SIGKILL);
        let _ = agent.wait();
    }

    /// Ends the agent with SIGKILL, and does what its service manager does then.
    pub fn crash_agent(&mut self) {
        self.kill_agent();
        let told = netns::run(&mut self.farewell_command());
        assert!(told.is_empty(), "what it has to say goes to the journal: {told}");
    }

    /// Ends the agent as a service manager does, by SIGTERM, and waits until it is gone; its work runs on.
    pub fn end_agent(&mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        signal(self.agent_pid_of(&agent), nix::sys::signal::Signal::SIGTERM);
        let _ = agent.wait();
    }

    /// Stops the agent, and nothing else, until it is continued.
    pub fn stop_agent(&self) {
        signal(self.agent_pid(), nix::sys::signal::Signal::SIGSTOP);
    }

    /// Lets a stopped agent go on.
    pub fn continue_agent(&self) {
        let agent = self.agent.as_ref().expect("an agent");
        // `nsenter` has stopped with it, and would never see its end.
        for pid in [self.agent_pid(), agent.id()] {
            signal(pid, nix::sys::signal::Signal::SIGCONT);
        }
    }

    /// The agent's process, as this machine sees it.
    pub fn agent_pid(&self) -> u32 {
        self.agent_pid_of(self.agent.as_ref().expect("an agent"))
    }

    /// `nsenter` waits for the agent, which is its only child.
    fn agent_pid_of(&self, agent: &Child) -> u32 {
        let pid = agent.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("the kernel tells children");
        let child = children.split_ascii_whitespace().next();
        child.and_then(|pid| pid.parse().ok()).expect("nsenter has a child")
    }

    fn config(&self) -> String {
        let Self { state, cpus, labels, witness, approval, level, metrics, discovery, .. } = self;
        let (state, socket) = (state.display(), self.socket());
        let socket = socket.display();
        format!(
            "state = \"{state}\"\n\
             [node]\nwitness = {witness}\napproval = {approval}\nlevel = {level}\n\
             [node.labels]\n{labels}\n\
             [resources]\ncpus = \"{cpus}\"\nhousekeeping = \"\"\nmemory = \"512MiB\"\n\
             [api]\nsocket = \"{socket}\"\n\
             [executor]\nkind = \"direct\"\n\
             [metrics]\n{metrics}\n\
             [discovery]\n{discovery}\n"
        )
    }

    fn cgroup_argument(&self) -> &Path {
        self.cgroup.as_deref().unwrap_or(Path::new("-"))
    }

    /// Asks the agent. Panics with what it says if that is no.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.try_get(path).unwrap_or_else(|refused| panic!("{}: GET {path}: {refused}", self.name))
    }

    /// Asks the agent.
    pub fn try_get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refused> {
        api::call(&self.socket(), "GET", path, None)
    }

    /// Tells the agent.
    pub fn tell<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, Refused> {
        let body = serde_json::to_string(body).expect("it has a JSON form");
        api::call(&self.socket(), method, path, Some(&body))
    }

    /// Founds a fabric.
    pub fn init(&self) -> Joined {
        let joined = self.tell("POST", "/v1/fabric/init", &json!({ "name": "lab" }));
        joined.expect("it founds a fabric")
    }

    /// Makes a token.
    pub fn token(&self, lifetime: &str) -> TokenCreated {
        let token = self.tell("POST", "/v1/tokens", &json!({ "lifetime": lifetime }));
        token.expect("it makes a token")
    }

    /// Joins with a token; discovery finds the members.
    pub fn join(&self, token: &str) -> Result<Joined, Refused> {
        self.tell("POST", "/v1/fabric/join", &json!({ "token": token }))
    }

    /// Submits a job.
    pub fn submit(&self, spec: &JobSpec) -> fabric::api::Submitted {
        let submitted = self.tell("PUT", &format!("/v1/jobs/{}", spec.name), spec);
        submitted.unwrap_or_else(|refused| panic!("{}: submit {}: {refused}", self.name, spec.name))
    }

    /// The agent's word on itself and the fabric.
    pub fn status(&self) -> Status {
        self.get("/v1/status")
    }

    /// The fabric's part of the status.
    pub fn fabric_status(&self) -> fabric::api::FabricStatus {
        self.status().fabric.expect("it belongs to a fabric")
    }

    /// Every node.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.get("/v1/nodes")
    }

    /// Allocations of a job that are not over and whose node is alive.
    pub fn live(&self, job: &str) -> Vec<AllocView> {
        let allocs: Vec<AllocView> = self.get(&format!("/v1/allocs?job={job}"));
        let alive = allocs.into_iter().filter(|alloc| alloc.node_state == NodeState::Alive);
        alive.filter(|alloc| alloc.row.phase.holds_claim()).collect()
    }

    /// One of the agent's counters, by its name with labels.
    pub fn counter(&self, name: &str) -> u64 {
        let text = api::text(&self.socket(), "/metrics").expect("counters");
        let (family, label) = name.trim_end_matches('}').split_once('{').unwrap_or((name, ""));
        let value = text.lines().find_map(|line| {
            let (labels, value) = line.strip_prefix(family)?.strip_prefix('{')?.split_once("} ")?;
            labels.contains(label).then(|| value.parse().ok())?
        });
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Waits until it sees this many nodes alive, and no others but dead or left ones.
    pub fn wait_alive(&self, count: usize) {
        self.wait(&format!("sees {count} nodes alive"), || {
            let nodes = self.nodes();
            let alive = nodes.iter().filter(|node| node.state == NodeState::Alive).count();
            let unsure = nodes
                .iter()
                .any(|node| matches!(node.state, NodeState::Suspect | NodeState::Unknown));
            (alive == count && !unsure).then_some(())
        });
    }

    /// Waits until every slot of a job is healthy and nothing more than that runs, by its view.
    pub fn wait_healthy(&self, job: &str) -> JobView {
        self.wait(&format!("sees {job} healthy"), || {
            let view: JobView = self.try_get(&format!("/v1/jobs/{job}")).ok()?;
            let exact = self.live(job).len() as u32 == view.wanted;
            (view.healthy == view.wanted && exact).then_some(view)
        })
    }

    /// Waits, and says what the agent said if that is in vain.
    pub fn wait<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + netns::PATIENCE;
        loop {
            if let Some(value) = condition() {
                return value;
            }
            if Instant::now() > deadline {
                let jobs: serde_json::Value = self.try_get("/v1/jobs").unwrap_or_default();
                let allocs: serde_json::Value = self.try_get("/v1/allocs").unwrap_or_default();
                panic!(
                    "waited in vain until {} {what}\njobs: {jobs:#}\nallocs: {allocs:#}\n\
                     its agent said:\n{}",
                    self.name,
                    self.log()
                );
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// Main processes of a job's tasks on this machine, by the machine's own list of processes.
    pub fn processes_of(&self, job: &str) -> Vec<u32> {
        // In it, not of it: the numbers are those of its process namespace.
        let found = self.shell(&format!(
            "grep -lzx 'WEFT_JOB={job}' /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3; true"
        ));
        found.lines().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- weftd on {} said:\n{}----", self.name, self.log());
        }
        self.power_off();
    }
}

/// Waits until all have the same view, and returns its fingerprint.
pub fn wait_equal(machines: &[Machine]) -> String {
    wait_until("all views are equal", || {
        let prints: Vec<String> =
            machines.iter().map(|machine| machine.fabric_status().fingerprint).collect();
        prints.iter().all(|print| *print == prints[0]).then(|| prints[0].clone())
    })
}

/// A service that sleeps. `more` is further text of the job file.
pub fn job(name: &str, count: u32, more: &str) -> JobSpec {
    let text = format!(
        "name = \"{name}\"\ncount = {count}\n\
         [task]\ncommand = [\"/bin/sleep\", \"100000\"]\nstop_timeout = \"2s\"\n{more}\n"
    );
    fabric::job::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What shows a program another wall clock: Debian's libfaketime.
pub fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    libraries.find(|library| library.is_file())
}

/// The command of `machine.sh`.
fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine.sh"));
    command
}

/// The kernel ends the process when the thread that started it ends.
pub fn dies_with_us(command: &mut Command) {
    let set = || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        Ok(())
    };
    // SAFETY: one system call, and no memory.
    unsafe { command.pre_exec(set) };
}

fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process number"));
    nix::sys::signal::kill(pid, signal).expect("it runs");
}

fn cgroup_mount() -> Option<PathBuf> {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    mounts.into_iter().find(|path| path.join("cgroup.controllers").exists())
}

fn remove_cgroups(cgroup: &Path) {
    let removed = script().arg("remove").arg(cgroup).status();
    if !removed.is_ok_and(|status| status.success()) {
        eprintln!("could not remove the cgroup {}", cgroup.display());
    }
}

fn all_cpus() -> String {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").expect("CPUs");
    online.trim().to_owned()
}

/// What a command printed, with its exit status, for messages.
pub fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}
