//! A cgroup of our own with a process in it: what it does is ours to know, and nobody else is counted with it.

use ebpf::{CgroupId, Cgroups, Config, Probe, Probes, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// One test at a time: they compare times, and some count what the whole machine does.
static ALONE: Mutex<()> = Mutex::new(());

/// Nobody beside us.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Probes that run, and nobody beside us. `None` after having said why not.
pub fn probes(config: &Config) -> Option<(Probes, MutexGuard<'static, ()>)> {
    let alone = alone();
    if let Err(reason) = ebpf::available() {
        skipped(&reason);
        return None;
    }
    let probes = Probes::load(config);
    for (probe, status) in probes.status() {
        match status {
            Status::Running | Status::Off => {}
            Status::Unsupported(reason) => {
                skipped(&format!("{probe}: {reason}"));
                return None;
            }
            Status::Failed(reason) => panic!("{probe}: {reason}"),
        }
    }
    Some((probes, alone))
}

/// Just this probe.
pub fn only(probe: Probe) -> Config {
    Config { probes: [probe].into(), ..Config::default() }
}

pub fn skipped(reason: &str) {
    assert!(std::env::var("WEFT_MUST").as_deref() != Ok("ebpf"), "{reason}");
    eprintln!("skipped: {reason}");
}

/// A cgroup, which goes when this is dropped.
pub struct Unit {
    folder: PathBuf,
}

impl Unit {
    pub fn new(probes: &Probes, name: &str) -> Option<Self> {
        Self::of(probes.cgroups(), name)
    }

    /// The same, where there are no probes.
    pub fn of(cgroups: &Cgroups, name: &str) -> Option<Self> {
        let Some(root) = cgroups.root() else {
            skipped("no cgroup hierarchy of version 2 is mounted");
            return None;
        };
        let folder = root.join(format!("weft-ebpf-{}-{name}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => Some(Self { folder }),
            Err(error) => {
                skipped(&format!("{}: {error}", folder.display()));
                None
            }
        }
    }

    pub fn id(&self) -> CgroupId {
        CgroupId(fs::metadata(&self.folder).expect("the cgroup is there").ino())
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A process in this cgroup that will do this and nothing else (`work.rs`), once told to.
    pub fn process(&self, work: &str) -> Process {
        self.process_in(&self.folder, work)
    }

    /// The same, in a cgroup below this one.
    pub fn process_in(&self, cgroup: &Path, work: &str) -> Process {
        let mut child = Command::new(std::env::current_exe().expect("we run"))
            .args(["process_of_a_test", "--exact", "--ignored", "--nocapture"])
            .env("WEFT_WORK", work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let mut process = Process {
            stdin: child.stdin.take().expect("piped"),
            lines: BufReader::new(child.stdout.take().expect("piped")),
            child,
        };
        // By then it has started all threads that it has without being asked.
        process.says("ready:");
        enter(cgroup, process.child.id());
        process
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // Processes that have been waited for have left.
        let _not_empty = fs::remove_dir(&self.folder);
    }
}

/// Puts a process into a cgroup.
pub fn enter(cgroup: &Path, pid: u32) {
    fs::write(cgroup.join("cgroup.procs"), pid.to_string()).expect("processes can be moved");
}

pub struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What all its threads had of a CPU, by schedstat.
    pub fn on_cpu_ns(&self) -> u64 {
        self.books().on_ns
    }

    /// The kernel's books of all threads that it has now.
    pub fn books(&self) -> Books {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it lives");
        let of_each = tasks.flatten().map(|task| Books::of(&task.path()));
        of_each.fold(Books::default(), |sum, books| Books {
            on_ns: sum.on_ns + books.on_ns,
            waited_ns: sum.waited_ns + books.waited_ns,
            voluntary: sum.voluntary + books.voluntary,
            involuntary: sum.involuntary + books.involuntary,
        })
    }

    /// Stops all its threads, and comes back once they have stopped.
    pub fn freeze(&self) {
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGSTOP).expect("it is ours");
        self.until_all_are("T");
    }

    /// Comes back once all its threads sleep.
    pub fn asleep(&self) {
        self.until_all_are("S");
    }

    /// The state of a thread is the first field after its name in parentheses (proc(5)).
    fn until_all_are(&self, state: &str) {
        let is = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(state))
        };
        let tasks = || fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it lives");
        let patience = Instant::now() + Duration::from_secs(60);
        while !tasks().flatten().all(is) {
            assert!(Instant::now() < patience, "not all threads are in state {state}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has it begin, without waiting for anything.
    pub fn begin(&mut self) {
        writeln!(self.stdin, "go").expect("it listens");
    }

    /// What it knows about what it has done, once it has: names and values. It then waits.
    pub fn end(&mut self) -> BTreeMap<String, u64> {
        let said = self.says("did:");
        let pairs = said.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.into(), value.parse().expect("a number"))).collect()
    }

    /// Waits for a line with this in it, and gives the rest of the line.
    fn says(&mut self, what: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let length = self.lines.read_line(&mut line).expect("it speaks");
            assert!(length > 0, "the process ended without saying '{what}'");
            if let Some((_, rest)) = line.split_once(what) {
                return rest.to_owned();
            }
        }
    }

    pub fn run(&mut self) -> BTreeMap<String, u64> {
        self.begin();
        self.end()
    }
}

/// What the kernel has written down about threads.
#[derive(Default)]
pub struct Books {
    pub on_ns: u64,
    pub waited_ns: u64,
    pub voluntary: u64,
    pub involuntary: u64,
}

impl Books {
    /// From `schedstat` and `status` of a thread (proc(5)).
    fn of(thread: &Path) -> Self {
        let read = |file: &str| fs::read_to_string(thread.join(file)).unwrap_or_default();
        let (schedstat, status) = (read("schedstat"), read("status"));
        let number =
            |text: Option<&str>| text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let field = |name: &str| number(status.lines().find_map(|line| line.strip_prefix(name)));
        let mut fields = schedstat.split(' ');
        Self {
            on_ns: number(fields.next()),
            waited_ns: number(fields.next()),
            voluntary: field("voluntary_ctxt_switches:"),
            involuntary: field("nonvoluntary_ctxt_switches:"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
