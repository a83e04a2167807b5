//! A machine with the agent as its service, set up and asked as a person would: `weft`, typed into its shell.

use crate::machine::{Machine, PATIENCE, Running};
use crate::serial::Said;
use crate::workshop::{Bench, built};
use anyhow::{Context, Result, bail, ensure};
use fabric::api::{AllocView, JobState, JobView, Status};
use fabric::cpuset::CpuSet;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The service as it is shipped.
const SERVICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/weftd.service");
/// How long the agent may take until it answers, and a job until it is healthy: seconds where nothing else runs.
const AGENT_PATIENCE: Duration = Duration::from_secs(240);

/// A machine that runs, with an agent.
pub struct Node {
    /// The machine.
    pub machine: Running,
}

/// One thread of a unit: where the kernel lets it run, and where it last ran.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its number, and the command of its process.
    pub name: String,
    /// `Cpus_allowed_list`.
    pub cpus: CpuSet,
    /// `Mems_allowed_list`.
    pub mems: CpuSet,
    /// The CPU that it runs on, or ran on last.
    pub last_cpu: u16,
}

/// A Debian with the agent's programs and its service on the second disk, and the journal on the console, so that a story
/// that fails keeps it. `WEFT_BIN` names another folder with `weftd`, `weft-helper` and `weft`.
pub fn machine(bench: &Bench, name: &str) -> Result<Machine> {
    let program = |name: &str| match std::env::var_os("WEFT_BIN") {
        Some(folder) => Ok(PathBuf::from(folder).join(name)),
        None => built(name),
    };
    let (weftd, helper, weft) = (program("weftd")?, program("weft-helper")?, program("weft")?);
    let service = Path::new(SERVICE);
    let files = [
        ("weftd", &*weftd),
        ("weft-helper", &*helper),
        ("weft", &*weft),
        ("weftd.service", service),
    ];
    let mut machine = Machine::debian(bench, name, &files)?;
    machine
        .argument("systemd.journald.forward_to_console=1 systemd.journald.max_level_console=info");
    Ok(machine)
}

impl Node {
    /// Boots a machine, makes the agent a service of it with this configuration, and waits until it answers.
    pub fn install(machine: &Machine, bench: &Bench, config: &str) -> Result<Self> {
        Self::install_after(machine, bench, "true", config)
    }

    /// As [`Node::install`], after a script that makes the machine ready for it.
    pub fn install_after(
        machine: &Machine,
        bench: &Bench,
        script: &str,
        config: &str,
    ) -> Result<Self> {
        let mut node = Self { machine: machine.boot(bench)? };
        node.machine.run(script)?;
        node.write("/etc/weft/weftd.toml", config)?;
        node.machine.run(
            "set -e
            ln -s /opt/weft/weftd /opt/weft/weft-helper /opt/weft/weft /usr/bin/
            cp /opt/weft/weftd.service /etc/systemd/system/
            systemctl daemon-reload
            systemctl --quiet enable weftd.service
            systemctl start --no-block weftd.service",
        )?;
        node.wait_for_agent()?;
        Ok(node)
    }

    /// Boots a machine on which the agent is a service already, and waits until it answers.
    pub fn boot(machine: &Machine, bench: &Bench) -> Result<Self> {
        let mut node = Self { machine: machine.boot(bench)? };
        node.wait_for_agent()?;
        Ok(node)
    }

    /// Founds a fabric, and says what the agent runs on. Its units must be systemd's.
    pub fn init(&mut self) -> Result<()> {
        self.machine.run("weft init --name lab")?;
        let status = self.status()?;
        ensure!(status.executor == "systemd", "{}: {}", status.executor, status.executor_reason);
        println!(
            "    weftd {}, {}; limits: {}",
            status.version,
            status.executor_reason,
            self.doctor("cgroup")?
        );
        Ok(())
    }

    /// Waits until `weft status` is answered.
    pub fn wait_for_agent(&mut self) -> Result<Status> {
        self.machine.wait_until("the agent answers", AGENT_PATIENCE, |machine| {
            let said = machine.try_run("weft --json status 2>/dev/null", PATIENCE)?;
            // 3: it works, but not all is well: there is no fabric yet, or no job is healthy yet.
            match said.status {
                0 | 3 => Ok(Some(serde_json::from_str(&said.text).context(said.text)?)),
                _ => Ok(None),
            }
        })
    }

    /// Waits until systemd has started an agent that is not this process, and it answers.
    pub fn wait_for_another_agent(&mut self, before: u32) -> Result<Status> {
        let script = "systemctl show --value -p ActiveState -p MainPID weftd.service";
        self.machine.wait_until(
            "systemd has started another agent",
            AGENT_PATIENCE,
            |machine| {
                let text = machine.run(script)?;
                let is_new = !text.lines().any(|line| line == before.to_string());
                Ok((is_new && text.lines().any(|line| line == "active")).then_some(()))
            },
        )?;
        self.wait_for_agent()
    }

    /// `weft status`.
    pub fn status(&mut self) -> Result<Status> {
        let said = self.machine.try_run("weft --json status 2>/dev/null", PATIENCE)?;
        ensure!(matches!(said.status, 0 | 3), "weft status: {}: {}", said.status, said.text);
        serde_json::from_str(&said.text).context(said.text)
    }

    /// What `weft doctor` finds at one of its checks.
    pub fn doctor(&mut self, check: &str) -> Result<String> {
        let said = self.machine.try_run("weft --json doctor 2>/dev/null", PATIENCE)?;
        let findings: Vec<fabric::api::Finding> =
            serde_json::from_str(&said.text).with_context(|| said.text.clone())?;
        let found = findings.into_iter().find(|finding| finding.check == check);
        Ok(found.with_context(|| format!("no check '{check}'"))?.message)
    }

    /// `weft --json` with these arguments: its answer, if it ends well.
    pub fn weft<T: DeserializeOwned>(&mut self, arguments: &str) -> Result<T> {
        let text = self.machine.run(&format!(
            "weft --json {arguments} 2>/run/weft-said ||
                {{ status=$?; cat /run/weft-said; exit $status; }}"
        ))?;
        serde_json::from_str(&text).with_context(|| format!("weft {arguments}: {text}"))
    }

    /// `weft apply` with this job file and these options, however that ends.
    pub fn try_apply(&mut self, file: &str, options: &str) -> Result<Said> {
        self.write("/run/job.toml", file)?;
        let script = format!("weft apply /run/job.toml --yes {options}");
        self.machine.try_run(&script, AGENT_PATIENCE)
    }

    /// Applies a job file and waits until all of it is healthy: its allocations.
    pub fn apply(&mut self, file: &str) -> Result<Vec<AllocView>> {
        let said = self.try_apply(file, "--settle 60s --timeout 200s")?;
        ensure!(said.status == 0, "weft apply: {}: {}", said.status, said.text);
        let name = file.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        self.allocs(name.context("the job file begins with no name")?)
    }

    /// Live allocations of a job.
    pub fn allocs(&mut self, job: &str) -> Result<Vec<AllocView>> {
        self.weft(&format!("ps {job}"))
    }

    /// The only live allocation of a job.
    pub fn alloc(&mut self, job: &str) -> Result<AllocView> {
        let allocs = self.allocs(job)?;
        match <[AllocView; 1]>::try_from(allocs) {
            Ok([alloc]) => Ok(alloc),
            Err(allocs) => bail!("{job} has not one allocation: {allocs:?}"),
        }
    }

    /// Waits until all slots of a job are healthy.
    pub fn wait_healthy(&mut self, job: &str) -> Result<JobView> {
        let script = format!("weft --json jobs {job} 2>/dev/null");
        let what = format!("{job} is healthy");
        self.machine.wait_until(&what, AGENT_PATIENCE, |machine| {
            let said = machine.try_run(&script, PATIENCE)?;
            let view: Option<JobView> = serde_json::from_str(&said.text).ok();
            Ok(view.filter(|view| view.state == JobState::Healthy && view.healthy == view.wanted))
        })
    }

    /// A property of a unit, as systemd says it.
    pub fn show(&mut self, unit: &str, property: &str) -> Result<String> {
        self.machine.run(&format!("systemctl show --value -p {property} {unit}"))
    }

    /// The main process of a unit that is active.
    pub fn main_pid(&mut self, unit: &str) -> Result<u32> {
        let text = self.show(unit, "MainPID")?;
        match text.parse() {
            Ok(0) | Err(_) => bail!("{unit} has no main process: '{text}'"),
            Ok(pid) => Ok(pid),
        }
    }

    /// A file in a unit's cgroup.
    pub fn cgroup_file(&mut self, unit: &str, file: &str) -> Result<String> {
        let group = self.show(unit, "ControlGroup")?;
        self.machine.run(&format!("cat /sys/fs/cgroup{group}/{file}"))
    }

    /// All threads in a unit's cgroup.
    pub fn threads(&mut self, unit: &str) -> Result<Vec<Thread>> {
        let group = self.show(unit, "ControlGroup")?;
        let text = self.machine.run(&format!(
            "for thread in $(cat /sys/fs/cgroup{group}/cgroup.threads); do
                [ -e /proc/$thread/stat ] || continue
                sed -n 's/^Cpus_allowed_list:\\t//p; s/^Mems_allowed_list:\\t//p' \
                    /proc/$thread/status | tr '\\n' ' '
                sed 's/.*) //' /proc/$thread/stat | cut -d ' ' -f 37 | tr '\\n' ' '
                echo $thread $(cat /proc/$thread/comm)
            done"
        ))?;
        text.lines().map(|line| thread(line).with_context(|| format!("thread: {line}"))).collect()
    }

    /// Writes a file, with the folders above it.
    pub fn write(&mut self, path: &str, text: &str) -> Result<()> {
        let script =
            format!("mkdir -p $(dirname {path}); cat >{path} <<'END-OF-FILE'\n{text}\nEND-OF-FILE");
        self.machine.run(&script).map(drop)
    }
}

fn thread(line: &str) -> Option<Thread> {
    let mut words = line.splitn(4, ' ');
    Some(Thread {
        cpus: words.next()?.parse().ok()?,
        mems: words.next()?.parse().ok()?,
        last_cpu: words.next()?.parse().ok()?,
        name: words.next()?.to_owned(),
    })
}
