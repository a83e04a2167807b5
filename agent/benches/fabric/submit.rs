//! From a submit to a running unit on one machine: beside a bare fork and exec of the same program, and,
//! where a container with systemd can be started, beside `systemd-run`.

use super::Effort;
use super::events::Listener;
use super::results::{Better, Results};
use super::testbed::cost::median;
use super::testbed::{Lab, api, helper, job, netns, weftd};
use fabric::alloc::Phase;
use fabric::api::EventKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub fn measure(results: &mut Results, effort: &Effort) {
    println!("{} jobs on one node", effort.submits);
    let Some(lab) = Lab::new("submit") else { return };
    let machines = lab.fabric(1);
    let weft = submit_to_running(&machines[0].socket(), effort.submits);
    let bare = median((0..effort.submits).map(|_| fork_to_exec()).collect());
    results.add("submit to running, direct", weft, "ms", None, Better::Lower);
    results.beside("fork and exec", "bare", bare);
}

/// The same in a machine with systemd, each unit with the sandbox that jobs have by default.
pub fn measure_on_systemd(results: &mut Results, effort: &Effort) {
    println!("{} jobs on one node with systemd", effort.submits);
    let name = format!("bench-{}", std::process::id());
    let booted = script().args(["boot", &name]).output().expect("bash");
    if !booted.status.success() {
        println!("  no systemd in a container here: not measured beside systemd-run");
        return;
    }
    let machine = Booted(name);
    machine.copy(&weftd(), "/usr/bin/weftd");
    machine.copy(&helper(), "/usr/bin/weft-helper");
    let service = concat!(env!("CARGO_MANIFEST_DIR"), "/weftd.service");
    machine.copy(Path::new(service), "/etc/systemd/system/weftd.service");
    machine.shell("systemctl daemon-reload && systemctl start weftd.service");
    let init = netns::run(script().args(["pid", &machine.0]));
    let socket: PathBuf = format!("/proc/{}/root/run/weft/weft.sock", init.trim()).into();
    let _: serde_json::Value =
        api::call(&socket, "POST", "/v1/fabric/init", Some("{}")).expect("it founds a fabric");
    let weft = submit_to_running(&socket, effort.submits);

    // Everything between the first and the last stamp is systemd-run's.
    let stamps = machine.shell(&format!(
        "date +%s%N; for number in $(seq {}); do systemd-run --quiet --collect --service-type=exec \
         -p DynamicUser=yes -p PrivateTmp=yes -p PrivateDevices=yes -p ProtectSystem=strict \
         -p ProtectHome=yes -p NoNewPrivileges=yes -p SystemCallFilter=@system-service \
         -p CapabilityBoundingSet= -p RestrictAddressFamilies='AF_UNIX AF_INET AF_INET6' \
         -p MemoryMax=64M -p MemorySwapMax=0 -p TasksMax=1024 \
         /bin/sleep 100000; done; date +%s%N; systemctl --version | sed -n '1s/systemd \\([0-9]*\\).*/\\1/p'",
        effort.submits
    ));
    let mut lines = stamps.lines();
    let mut stamp = || lines.next().and_then(|line| line.parse::<f64>().ok()).expect("a time");
    let systemd_run = (-stamp() + stamp()) / 1e6 / effort.submits as f64;
    let version = lines.next().unwrap_or_default();
    results.add("submit to running, systemd", weft, "ms", None, Better::Lower);
    results.beside("systemd-run", version, systemd_run);
    let name = "submit to running, in systemd-run's";
    results.add(name, weft / systemd_run, "x", Some(1.5), Better::Lower);
}

/// Milliseconds, the median.
fn submit_to_running(socket: &Path, count: usize) -> f64 {
    let listener = Listener::new();
    listener.follow(0, socket);
    let times = (0..count)
        .map(|number| {
            let spec =
                job(&format!("bench-{number}"), 1, "[resources]\ncpu = 0.001\nmemory = \"1MiB\"");
            let body = serde_json::to_string(&spec).expect("it has a JSON form");
            let path = format!("/v1/jobs/{}", spec.name);
            let start = Instant::now();
            let _: serde_json::Value =
                api::call(socket, "PUT", &path, Some(&body)).expect("it is taken");
            let running = listener.wait("it runs", |line| match line.event()? {
                EventKind::Alloc { alloc, phase: Phase::Running, .. }
                    if alloc.slot.job == spec.name =>
                {
                    Some(line.at)
                }
                _ => None,
            });
            // The answer may come after the unit runs.
            let taken = running.saturating_duration_since(start);
            std::thread::sleep(Duration::from_millis(50));
            taken.as_secs_f64() * 1e3
        })
        .collect();
    median(times)
}

/// Milliseconds until exec has succeeded.
fn fork_to_exec() -> f64 {
    let start = Instant::now();
    let mut child = Command::new("/bin/sleep").arg("100000").spawn().expect("it starts");
    let taken = start.elapsed();
    child.kill().expect("it runs");
    child.wait().expect("it is ours");
    taken.as_secs_f64() * 1e3
}

/// A machine with systemd, of `nspawn.sh`.
struct Booted(String);

impl Booted {
    fn copy(&self, from: &Path, to: &str) {
        netns::run(script().args(["copy", &self.0]).arg(from).arg(to));
    }

    fn shell(&self, line: &str) -> String {
        netns::run(script().args(["run", &self.0, "sh", "-c", line]))
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        let _ = script().args(["stop", &self.0]).status();
    }
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nspawn.sh"));
    command
}
