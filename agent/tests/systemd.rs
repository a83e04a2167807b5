//! Real agents on real systemd, each in a container with systemd as process 1 (`nspawn.sh`): jobs are
//! transient units, pinned to what they claim, and outlive the agent.
//!
//! The agent runs as the service that is shipped, hardened as it is shipped. Needs root; where no such
//! container can be started, the tests say so, and fail if `WEFT_MUST=systemd` is in the environment.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::api::{AllocView, JobView, Status};
use fabric::cpuset::CpuSet;
use fabric::job::JobSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testbed::netns::{run, wait_until};
use testbed::{api, helper, weftd};

/// Threads of [`a_task_with_threads`] besides those of the test harness.
const THREADS: usize = 4;

#[test]
fn a_job_is_a_transient_unit_whose_every_thread_is_where_its_claim_says() {
    let Some(machine) = Machine::boot("pins") else { return };
    let status: Status = machine.get("/v1/status");
    assert_eq!(status.executor, "systemd", "{}", status.executor_reason);

    machine.submit(&pinned("pinned", "whole"));
    machine.submit(&shared("beside"));
    let pinned = machine.healthy("pinned").remove(0);
    machine.healthy("beside");
    machine.reload();

    assert!(pinned.unit.starts_with("weft-pinned-0-1-"), "{}", pinned.unit);
    let unit = machine.show(&pinned.unit);
    assert_eq!(unit["Transient"], "yes");
    assert_eq!(unit["Slice"], "weft.slice");
    assert_eq!(unit["ActiveState"], "active");
    assert_eq!(unit["DynamicUser"], "yes");
    assert_eq!(unit["NoNewPrivileges"], "yes");
    assert_eq!(unit["ProtectSystem"], "strict");

    let claim = &pinned.row.claim;
    assert_eq!((claim.cpus.len(), claim.mems.len()), (1, 1), "{claim:?}");
    assert_eq!(pinned.row.effective_cpus.as_ref(), Some(&claim.cpus));
    let threads = machine.threads(&unit);
    assert!(threads.len() > THREADS, "{threads:?}");
    for (thread, (cpus, mems)) in &threads {
        assert_eq!(cpus, &claim.cpus, "CPUs of thread {thread}");
        assert_eq!(mems, &claim.mems, "memory nodes of thread {thread}");
    }

    let _: serde_json::Value = machine.call("DELETE", "/v1/jobs/pinned", "");
    wait_until("the unit is gone", || {
        (machine.show(&pinned.unit)["ActiveState"] == "inactive").then_some(())
    });
}

/// What the agent does not do itself is a unit of its own, which ends with its order and leaves nothing behind.
#[test]
fn a_helper_is_a_unit_of_its_own_while_it_works() {
    let Some(machine) = Machine::boot("helper") else { return };
    let status: Status = machine.get("/v1/status");
    let path = format!("/v1/nodes/{}/hardware", status.node);
    let hardware: fabric::api::Hardware = machine.get(&path);
    assert!(hardware.processor.is_some(), "{hardware:?}");
    // Whether anything can be traced there or not: it was tried by a helper, and the agent says what came of it.
    let findings: Vec<fabric::api::Finding> = machine.get("/v1/doctor");
    let traces = findings.iter().find(|finding| finding.check == "traces").expect("a finding");
    assert!(!traces.message.contains("weft-helper"), "{traces:?}");
    let said = machine.shell("journalctl --no-pager -o cat -u 'weft-helper-*'");
    for unit in ["weft helper: hardware", "weft helper: try-traces"] {
        assert!(said.contains(unit), "{unit}: {said}");
    }
    assert!(!said.contains("Failed"), "{said}");
    wait_until("no helper is left", || {
        let left = machine.shell("systemctl list-units --all --plain --no-legend 'weft-helper-*'");
        left.trim().is_empty().then_some(())
    });
    machine.shell("mv /usr/bin/weft-helper /root/");
    let refused = machine.try_get::<fabric::api::Hardware>(&path).expect_err("it is not there");
    assert!(refused.to_string().contains("/usr/bin/weft-helper is missing"), "{refused}");
}

#[test]
fn exclusive_jobs_share_no_core_and_outlive_the_agent() {
    let Some(machine) = Machine::boot("apart") else { return };
    let cores = machine.cores();
    if cores < 2 {
        println!("skipped: {cores} core cannot be given to two");
        return;
    }
    machine.submit(&pinned("one", "share"));
    machine.submit(&pinned("two", "share"));
    let (one, two) = (machine.healthy("one").remove(0), machine.healthy("two").remove(0));
    assert!(!one.row.claim.cpus.intersects(&two.row.claim.cpus), "{one:?} {two:?}");
    let own_cpus = |alloc: &AllocView| -> BTreeSet<CpuSet> {
        machine.threads(&machine.show(&alloc.unit)).into_values().map(|(cpus, _)| cpus).collect()
    };
    assert_eq!(own_cpus(&one), BTreeSet::from([one.row.claim.cpus.clone()]));
    assert_eq!(own_cpus(&two), BTreeSet::from([two.row.claim.cpus.clone()]));

    machine.reload();
    let before: Vec<String> =
        [&one, &two].map(|alloc| machine.show(&alloc.unit)["MainPID"].clone()).into();
    let agent = machine.show("weftd.service");
    machine.shell(&format!("kill -KILL {}", agent["MainPID"]));
    wait_until("systemd has started it again", || {
        let now = machine.show("weftd.service");
        (now["ActiveState"] == "active" && now["MainPID"] != agent["MainPID"]).then_some(())
    });
    wait_until("it has its jobs back", || {
        let jobs: Vec<JobView> = machine.try_get("/v1/jobs").ok()?;
        (jobs.len() == 2 && jobs.iter().all(|job| job.healthy == 1)).then_some(())
    });
    // Long enough for it to make a mistake.
    std::thread::sleep(Duration::from_secs(3));
    for (alloc, pid) in [&one, &two].into_iter().zip(&before) {
        let unit = machine.show(&alloc.unit);
        assert_eq!((&unit["ActiveState"][..], &unit["MainPID"]), ("active", pid), "{}", alloc.unit);
        let now = machine.healthy(&alloc.id.slot.job.to_string()).remove(0);
        assert_eq!((&now.id, now.row.restarts), (&alloc.id, 0), "it was adopted, not replaced");
        assert_eq!(now.row.claim, alloc.row.claim);
        assert_eq!(now.row.pid.map(|pid| pid.to_string()).as_ref(), Some(pid));
    }
    // What it adopted it also controls.
    let _: serde_json::Value = machine.call("DELETE", "/v1/jobs/one", "");
    wait_until("the unit is gone", || {
        (machine.show(&one.unit)["ActiveState"] == "inactive").then_some(())
    });
}

#[test]
fn credentials_reach_the_hardened_service() {
    let Some(machine) = Machine::boot("given") else { return };
    machine.shell(
        "mkdir -p /etc/systemd/system/weftd.service.d && \
         printf 'rack=r9\\n' > /root/labels && printf 'weft1.what' > /root/token && \
         printf '[Service]\\nLoadCredential=weft.labels:/root/labels\\nLoadCredential=weft.token:/root/token\\n' \
         > /etc/systemd/system/weftd.service.d/given.conf && \
         systemctl daemon-reload && systemctl restart weftd.service",
    );
    wait_until(&format!("the node has the label; {}", machine.log()), || {
        let nodes: Vec<fabric::api::NodeView> = machine.try_get("/v1/nodes").ok()?;
        let labels = &nodes.first()?.info.as_ref()?.labels;
        (labels.get("rack").map(String::as_str) == Some("r9")).then_some(())
    });
    let status: Status = machine.get("/v1/status");
    let said = status.warnings.iter().any(|text| text.contains("credential weft.token"));
    assert!(said, "{:?}", status.warnings);
    assert_eq!(machine.show("weftd.service")["ActiveState"], "active");
}

#[test]
fn an_at_most_one_job_ends_with_its_lease_while_its_agent_is_stopped() {
    let Some(machine) = Machine::boot("lease") else { return };
    let text = "name = \"single\"\nguarantee = \"at-most-one\"\n\
                [task]\nstop_timeout = \"1s\"\n\
                command = [\"/bin/sh\", \"-c\", \"trap '' TERM; while :; do sleep 0.1; done\"]\n\
                [resources]\ncpu = 0.1\n";
    machine.submit(&fabric::job::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}")));
    let before = machine.healthy("single").remove(0);
    machine.reload();
    let unit = machine.show(&before.unit);
    assert!(unit["ExecStart"].contains("weftd exec"), "{}", unit["ExecStart"]);
    assert!(unit["Environment"].contains(&format!("WEFT_EPOCH={}", before.id.epoch)));
    let guards = machine.shell("systemctl list-units --plain --no-legend 'weft-guard-*.service'");
    let guard = machine.show(guards.split(' ').next().expect("a guard"));
    assert_eq!((&guard["Slice"][..], &guard["Restart"][..]), ("weft.slice", "always"));

    let agent = machine.show("weftd.service")["MainPID"].clone();
    machine.shell(&format!("kill -STOP {agent}"));
    wait_until("the guard has ended the unit", || {
        (machine.show(&before.unit)["ActiveState"] != "active").then_some(())
    });
    assert!(
        machine.shell(&format!("cat /proc/{agent}/stat")).contains(") T "),
        "it was not the agent"
    );
    machine.shell(&format!("kill -CONT {agent}"));
    wait_until("it runs again, under a higher epoch", || {
        let allocs: Vec<AllocView> = machine.try_get("/v1/allocs?job=single").ok()?;
        allocs
            .iter()
            .any(|alloc| alloc.id.epoch > before.id.epoch && alloc.row.healthy)
            .then_some(())
    });
    assert_eq!(machine.show("weftd.service")["MainPID"], agent, "nobody started it again");
}

/// The agent is stopped, its guard has ended the unit, and somebody starts it by hand.
#[test]
fn an_at_most_one_job_whose_lease_is_over_is_not_started_by_hand_either() {
    let Some(machine) = Machine::boot("hand") else { return };
    let text = "name = \"single\"\nguarantee = \"at-most-one\"\n\
                [task]\nstop_timeout = \"1s\"\ncommand = [\"/bin/sleep\", \"5000\"]\n\
                [resources]\ncpu = 0.1\n";
    machine.submit(&fabric::job::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}")));
    let alloc = machine.healthy("single").remove(0);
    machine.reload();
    machine.shell("systemctl stop weftd");
    wait_until("the guard has ended the unit", || {
        (machine.show(&alloc.unit)["SubState"] != "running").then_some(())
    });
    for pause in [7.0, 0.2, 0.2, 0.2] {
        // At first the guard still looks, and kills whatever it sees. Then it is executed, and ends at once.
        machine.shell(&format!("systemctl restart {} || :; sleep {pause}", alloc.unit));
        let there = machine.shell("pgrep -x sleep -a | grep 5000 || :");
        assert_eq!(there, "", "nothing runs");
        machine.reload();
    }
    let said = machine.shell(&format!("cat /var/lib/weft/alloc/{}/stderr", alloc.unit));
    assert!(said.contains("weft: not executed: its lease ran out"), "{said}");
    machine.shell("systemctl start weftd");
    wait_until("the agent knows that it is over", || {
        let allocs: Vec<AllocView> = machine.try_get("/v1/allocs?job=single").ok()?;
        let ended =
            |other: &AllocView| other.id.epoch > alloc.id.epoch || !other.row.phase.is_live();
        allocs.iter().all(ended).then_some(())
    });
}

/// A switch that is slower than the machine, and a time server that never answers.
#[test]
fn the_service_waits_for_no_network_and_no_clock() {
    let Some(machine) = Machine::boot("alone") else { return };
    machine.shell(
        "systemctl stop weftd && \
         printf '[Unit]\\nBefore=network-online.target time-sync.target\\n\
         Wants=network-online.target time-sync.target\\n\
         [Service]\\nType=oneshot\\nTimeoutStartSec=infinity\\nExecStart=/bin/sleep 100000\\n' \
         > /etc/systemd/system/slow.service && systemctl daemon-reload && \
         systemctl start --no-block slow.service",
    );
    machine.shell("timeout 60 systemctl start weftd");
    let jobs = machine.shell("systemctl list-jobs --plain --no-legend");
    for target in ["network-online.target", "time-sync.target"] {
        assert!(jobs.lines().any(|job| job.contains(target) && job.contains("waiting")), "{jobs}");
    }
    wait_until("it says that there is no network", || {
        machine.show("weftd.service")["StatusText"].starts_with("no network: ").then_some(())
    });
}

/// What `systemd-analyze security` says of it, in tenths.
const EXPOSURE_MAX: u32 = 51;

#[test]
fn the_service_is_hardened_and_does_not_try_a_wrong_configuration_again_and_again() {
    let Some(machine) = Machine::boot("wrong") else { return };
    machine.shell(&format!(
        "systemd-analyze security --no-pager --offline=true --threshold={EXPOSURE_MAX} \
         /etc/systemd/system/weftd.service"
    ));
    let before = machine.show("weftd.service")["NRestarts"].clone();
    machine.shell(
        "cp /etc/weft/weftd.toml /root/ && echo 'no = \"such key\"' >> /etc/weft/weftd.toml && \
         ! systemctl restart weftd",
    );
    // Longer than the pause between two attempts.
    std::thread::sleep(Duration::from_secs(3));
    let service = machine.show("weftd.service");
    assert_eq!(
        (&service["ActiveState"][..], &service["ExecMainStatus"][..], &service["NRestarts"]),
        ("failed", "2", &before)
    );
    let said = machine.shell("systemctl status --no-pager weftd || :");
    assert!(said.contains("weftd.toml:") && said.contains("unknown key"), "{said}");
    machine.shell("mv /root/weftd.toml /etc/weft/ && systemctl start weftd");
    // Any other end is no reason to stay away.
    machine.shell("kill -KILL $(systemctl show -P MainPID weftd)");
    wait_until("it is started again", || {
        (machine.show("weftd.service")["NRestarts"] != before).then_some(())
    });
}

/// Which the shipped service tries again each second, and takes leave of each time.
#[test]
fn an_agent_that_may_not_read_its_state_folder_changes_nothing_there() {
    let Some(machine) = Machine::boot("older") else { return };
    machine.shell(&format!(
        "systemctl stop weftd && cp /etc/weft/weftd.toml /root/ && \
         printf '[node]\\nlevel = {}\\n' >> /etc/weft/weftd.toml",
        fabric::level::LEVEL - 1
    ));
    let kept = || {
        machine.shell("cd /var/lib/weft && sha256sum $(find . -type f ! -name store.redb | sort)")
    };
    let (before, starts) = (kept(), machine.show("weftd.service")["NRestarts"].clone());
    assert!(before.contains("./generation"), "{before}");
    machine.shell("systemctl start --no-block weftd");
    wait_until("it was tried again, and more than once", || {
        let now = machine.show("weftd.service")["NRestarts"].parse().unwrap_or(0);
        (now > starts.parse().unwrap_or(0) + 2).then_some(())
    });
    let said = machine.log();
    assert!(said.contains("weftd farewell: /var/lib/weft is of a fabric of level"), "{said}");
    assert!(!said.contains("told"), "{said}");
    assert_eq!(kept(), before);
    // What was wrong passes: nobody has to start it by hand.
    machine.shell("mv /root/weftd.toml /etc/weft/");
    wait_until("it works again", || machine.try_get::<Status>("/v1/status").ok());
}

/// Under either executor: files where there were none, a check that looks at them from within as the task's user, and what
/// both have inherited from the agent.
#[test]
fn files_and_checks_of_tasks_work_in_the_hardened_service_and_leave_nothing() {
    let Some(machine) = Machine::boot("within") else { return };
    machine.shell(
        "mkdir -p /etc/systemd/system/weftd.service.d && \
         printf '[Service]\\nOOMScoreAdjust=300\\n' > /etc/systemd/system/weftd.service.d/score.conf && \
         systemctl daemon-reload",
    );
    // What the agent sees of /etc is read-only; what systemd sees is not.
    for (executor, folder) in [("systemd", "/etc/within"), ("direct", "/srv/within")] {
        machine.shell(&format!(
            "sed -i '/^.executor/,$d' /etc/weft/weftd.toml && \
             printf '[executor]\\nkind = \"{executor}\"\\n' >> /etc/weft/weftd.toml && \
             systemctl restart weftd"
        ));
        let score = machine.shell("cat /proc/$(systemctl show -P MainPID weftd)/oom_score_adj");
        assert_eq!(score.trim(), "300");
        let status: Status = machine.get("/v1/status");
        assert_eq!(status.executor, executor, "{}", status.executor_reason);
        let look = format!(
            "grep -q answer {folder}/a/conf && [ $(id -u) -ge 61184 ] && \
             read -r score </proc/self/oom_score_adj && [ $score = 0 ]"
        );
        let text = format!(
            "name = \"within\"\n[task]\ncommand = [\"/bin/sh\", \"-c\", '{look} && exec sleep 5000']\n\
             [[task.files]]\npath = \"{folder}/a/conf\"\ncontent = \"answer\"\n\
             [resources]\ncpu = 0.1\n\
             [health]\ncommand = [\"/bin/sh\", \"-c\", '{look}']\ninterval = \"1s\"\n"
        );
        machine
            .submit(&fabric::job::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")));
        machine.healthy("within");
        machine.reload();
        machine.shell(&format!("test -e {folder}/a/conf"));
        let _: serde_json::Value = machine.call("DELETE", "/v1/jobs/within", "");
        wait_until("nothing of it is left", || {
            let left = machine.command("test").args(["-e", folder]).status().expect("bash");
            (!left.success()).then_some(())
        });
    }
}

/// Not a test of its own: the task that the others run in a machine, where its environment asks for it.
#[test]
fn a_task_with_threads() {
    if std::env::var_os("WEFT_JOB").is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| std::thread::sleep(Duration::from_secs(100_000)));
        }
    });
}

/// The task above on a core of its own.
fn pinned(name: &str, smt: &str) -> JobSpec {
    task(name, &format!("cores = 1\nsmt = \"{smt}\"\nnuma = \"require\""))
}

fn shared(name: &str) -> JobSpec {
    task(name, "cpu = 0.1")
}

fn task(name: &str, resources: &str) -> JobSpec {
    let text = format!(
        "name = \"{name}\"\n[task]\n\
         command = [\"/opt/task\", \"--exact\", \"a_task_with_threads\", \"--nocapture\"]\n\
         [resources]\n{resources}\n"
    );
    fabric::job::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A machine with systemd, and the agent as its service. Ends with its guard.
struct Machine {
    name: String,
    init: u32,
}

impl Machine {
    /// Boots one and starts the agent in it, which founds a fabric. `None`, and a word aloud, where that
    /// cannot be done.
    fn boot(what: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return skipped("needs root");
        }
        let name = format!("{what}-{}", std::process::id());
        let booted = script().args(["boot", &name]).output().expect("bash");
        if !booted.status.success() {
            return skipped(&format!("no systemd in a container: {}", testbed::shown(&booted)));
        }
        let pid = run(script().args(["pid", &name]));
        let init = pid.trim().parse().expect("a process number");
        let machine = Self { name, init };
        machine.copy(&weftd(), "/usr/bin/weftd");
        machine.copy(&helper(), "/usr/bin/weft-helper");
        machine.copy(&std::env::current_exe().expect("this program"), "/opt/task");
        let service = concat!(env!("CARGO_MANIFEST_DIR"), "/weftd.service");
        machine.copy(Path::new(service), "/etc/systemd/system/weftd.service");
        // A distribution older than this one cannot run what was built here.
        let version = machine.command("/usr/bin/weftd").arg("--version").output().expect("bash");
        if !version.status.success() {
            return skipped(&format!("weftd does not run there: {}", testbed::shown(&version)));
        }
        machine.shell("mkdir -p /etc/weft && printf '[resources]\\nhousekeeping = \"\"\\n' > /etc/weft/weftd.toml");
        machine.shell("systemctl daemon-reload && systemctl start weftd.service");
        let _: serde_json::Value = machine.call("POST", "/v1/fabric/init", "{}");
        Some(machine)
    }

    fn copy(&self, from: &Path, to: &str) {
        run(script().args(["copy", &self.name]).arg(from).arg(to));
    }

    /// A command that will run in it.
    fn command(&self, program: &str) -> Command {
        let mut command = script();
        command.args(["run", &self.name, program]);
        command
    }

    /// Runs a shell's line in it. Panics when that fails.
    fn shell(&self, line: &str) -> String {
        run(self.command("sh").args(["-c", line]))
    }

    /// Properties of a unit, as its systemd says them.
    fn show(&self, unit: &str) -> BTreeMap<String, String> {
        let text = self.shell(&format!("systemctl show {unit}"));
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Every thread in a unit's cgroup: the CPUs and memory nodes that the kernel lets it have.
    fn threads(&self, unit: &BTreeMap<String, String>) -> BTreeMap<String, (CpuSet, CpuSet)> {
        let text = self.shell(&format!(
            "for thread in $(cat /sys/fs/cgroup{}/cgroup.threads); do \
             sed -n 's/^Cpus_allowed_list:\\t//p; s/^Mems_allowed_list:\\t//p' \
             /proc/$thread/status | tr '\\n' ' '; echo $thread; done",
            unit["ControlGroup"]
        ));
        let line = |line: &str| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_else(|| panic!("{text}")).to_owned();
            let (cpus, mems) = (word(), word());
            let set = |text: String| text.parse().unwrap_or_else(|_| panic!("{text}"));
            (word(), (set(cpus), set(mems)))
        };
        text.lines().map(line).collect()
    }

    /// Hardware threads that the agent gives away.
    fn cores(&self) -> usize {
        let nodes: Vec<fabric::api::NodeView> = self.get("/v1/nodes");
        nodes[0].free.cpus.len()
    }

    /// The socket as this machine sees it.
    fn socket(&self) -> PathBuf {
        format!("/proc/{}/root/run/weft/weft.sock", self.init).into()
    }

    fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        self.try_get(path).unwrap_or_else(|refused| panic!("GET {path}: {refused}; {}", self.log()))
    }

    fn try_get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, api::Refused> {
        api::call(&self.socket(), "GET", path, None)
    }

    fn call<T: serde::de::DeserializeOwned>(&self, method: &str, path: &str, body: &str) -> T {
        api::call(&self.socket(), method, path, Some(body))
            .unwrap_or_else(|refused| panic!("{method} {path}: {refused}; {}", self.log()))
    }

    fn submit(&self, spec: &JobSpec) {
        let body = serde_json::to_string(spec).expect("it has a JSON form");
        let _: serde_json::Value = self.call("PUT", &format!("/v1/jobs/{}", spec.name), &body);
    }

    /// systemd reads all units anew, as after the installation of a package. In the middle of each story.
    fn reload(&self) {
        self.shell("systemctl daemon-reload");
    }

    /// Waits until every slot of a job is healthy: its allocations.
    fn healthy(&self, job: &str) -> Vec<AllocView> {
        wait_until(&format!("{job} is healthy; {}", self.log()), || {
            let view: JobView = self.try_get(&format!("/v1/jobs/{job}")).ok()?;
            (view.healthy == view.wanted).then_some(())
        });
        self.get(&format!("/v1/allocs?job={job}"))
    }

    /// What the agent said.
    fn log(&self) -> String {
        let journal =
            self.command("journalctl").args(["-u", "weftd", "--no-pager", "-o", "cat"]).output();
        journal.map(|output| testbed::shown(&output)).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- weftd said:\n{}", self.log());
        }
        let _ = script().args(["stop", &self.name]).status();
    }
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nspawn.sh"));
    command
}

fn skipped(why: &str) -> Option<Machine> {
    assert!(std::env::var("WEFT_MUST").as_deref() != Ok("systemd"), "{why}");
    eprintln!("skipped: {why}");
    None
}
