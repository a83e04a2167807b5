//! Network namespaces for tests: nodes, bridges between them, and processes inside.
//!
//! Whatever a test makes here goes away with its guard, also when the test panics. What a killed
//! test left behind is removed by the next one. Needs root and the `ip` command; ask [`can_run`]
//! first.
//!
//!     if !netns::can_run(&[]) { return; }
//!     let bridge = Bridge::new("lan");
//!     let node = Netns::new("a");
//!     bridge.connect(&node, "eth0");
//!     node.exec("ip addr add 10.77.0.1/24 dev eth0");
//!     let mut process = Process::spawn(node.command("weftd"));
//!     process.wait_for("it is ready", |line| line == "ready");

// Tests wait for real processes in real time, and a thread reads what each of them prints.
#![allow(clippy::disallowed_methods)]
// Each test file uses its part of this.
#![allow(dead_code)]

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest wait for anything. This says nothing about how long it should take: the machine may be
/// very busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether namespaces can be made here and all `programs` are installed. Says aloud if not.
pub fn can_run(programs: &[&str]) -> bool {
    if !nix::unistd::geteuid().is_root() || !is_installed("ip") {
        println!("skipped: needs root and ip");
        eprintln!("skipped: needs root and ip");
        return false;
    }
    for program in programs {
        if !is_installed(program) {
            println!("skipped: needs {program}");
            eprintln!("skipped: needs {program}");
            return false;
        }
    }
    static SWEEP: Once = Once::new();
    SWEEP.call_once(sweep);
    true
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin");
    path.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// Removes namespaces of tests that are not running any more. Their names carry the process id.
fn sweep() {
    let Ok(all) = std::fs::read_dir("/run/netns") else { return };
    for name in all.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let mut parts = name.splitn(3, '-');
        let (Some("weft"), Some(pid), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// A network namespace. Its loopback is up.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace. `name` is for people: a number makes it unique.
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-{}-{number}-{name}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let netns = Self { name };
        netns.exec("ip link set lo up");
        netns
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Does `work` on a thread inside: sockets that it opens belong to the namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let namespace = std::fs::File::open(Path::new("/run/netns").join(&self.name));
            setns(namespace.expect("the namespace"), CloneFlags::CLONE_NEWNET).expect("a way in");
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command inside, its words separated by spaces, and returns what it prints. Panics when
    /// it fails.
    pub fn exec(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        run(self.command(words.next().expect("a command")).args(words))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("could not remove the network namespace {}", self.name);
        }
    }
}

/// A switch in a namespace of its own.
pub struct Bridge {
    netns: Netns,
    ports: Cell<u32>,
}

impl Bridge {
    /// Makes a switch without ports.
    pub fn new(name: &str) -> Self {
        let netns = Netns::new(name);
        netns.exec("ip link add br0 type bridge mcast_snooping 0");
        netns.exec("ip link set br0 up");
        Self { netns, ports: Cell::new(0) }
    }

    /// The namespace that the switch is in. Its port to a node is what [`Bridge::connect`] returns.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Plugs a cable into the switch and into `node`, where its end is called `interface`. Both ends
    /// are up. Returns the name of the switch's end.
    pub fn connect(&self, node: &Netns, interface: &str) -> String {
        let port = format!("port{}", self.ports.get());
        self.ports.set(self.ports.get() + 1);
        let node_name = node.name();
        self.netns
            .exec(&format!("ip link add {port} type veth peer name {interface} netns {node_name}"));
        self.netns.exec(&format!("ip link set {port} master br0 up"));
        node.exec(&format!("ip link set {interface} up"));
        port
    }

    /// Pulls the cable at `port`, or puts it back.
    pub fn plug(&self, port: &str, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.netns.exec(&format!("ip link set {port} {state}"));
    }

    /// Cuts `port` off from the other isolated ports, though the cable stays, or undoes that.
    pub fn isolate(&self, port: &str, isolated: bool) {
        let state = if isolated { "on" } else { "off" };
        self.netns.exec(&format!("bridge link set dev {port} isolated {state}"));
    }
}

/// A running program, killed when it goes out of scope. Its lines on standard output can be waited
/// for.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts `command`, which may have its standard error set already.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("standard output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, stdin, lines, seen: Vec::new() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that was not waited for before, and returns it. Panics with all that was
    /// printed when it does not come.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("waited in vain until {what}; it printed: {:#?}", self.seen)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended before {what}; it printed: {:#?}", self.seen)
                }
            }
        }
    }

    /// Waits for a line, which may have been printed and waited past already.
    pub fn wait_until_seen(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        if !self.seen().iter().any(|line| wanted(line)) {
            self.wait_for(what, wanted);
        }
    }

    /// Every line that was printed until now.
    pub fn seen(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its standard input");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("its end")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command and returns what it prints. Panics when it fails.
pub fn run(command: &mut Command) -> String {
    let output =
        command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {text}{errors}");
    text
}

/// Waits until `condition` gives something. Panics when it never does.
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
