//! Scenarios: text files that tell a story, make it happen, and say what came of it.
//!
//! ```text
//! # One of two nodes dies, and the other one takes over.
//! nodes 2
//! submit web cores=1
//! run 5s
//! crash a
//! run 10s
//! expect web healthy=1 on=b
//! trace
//! >     7.4 b sees a dead
//! ```
//!
//! Lines that begin with `#` are comments. `trace` is followed by what happened since the trace before,
//! each line behind a `> ` and its second. [`play`] returns the text with the traces that really came out: equal to the
//! file, or a finding. With `WEFT_REWRITE=1` in the environment the files are rewritten.

use anyhow::{Context, bail, ensure};
use fabric::api::RebalanceBody;
use fabric::id::{JobName, Namespace, NodeId};
use fabric::io::{Answer, Request};
use fabric::job::{CpuRequest, Guarantee, JobKind, JobSpec, Smt, duration};
use fabric::quota::Quota;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::true_wall;
use crate::disk::DiskMode;
use crate::invariants::settled;
use crate::machines;
use crate::network::Quality;
use crate::run::rest_within;
use crate::trace::Detail;
use crate::units::{BEHAVES, Behaviour, Temper, UnitState};
use crate::workload;
use crate::world::{Settings, World};

/// Plays a scenario. Returns its text with the traces that came out, or the line that could not be
/// played, or did not hold.
pub fn play(text: &str) -> anyhow::Result<String> {
    let mut stage = Stage::default();
    let mut result = String::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('>') {
            continue;
        }
        result.push_str(line);
        result.push('\n');
        let command = line.split('#').next().unwrap_or_default().trim();
        if !command.is_empty() {
            let told =
                stage.act(command).with_context(|| format!("line {}: {line}", number + 1))?;
            for line in told {
                result.push_str(&format!("> {line}\n"));
            }
        }
    }
    Ok(result)
}

/// Whether traces that differ are to be written back.
pub fn rewrites() -> bool {
    std::env::var_os("WEFT_REWRITE").is_some_and(|value| value == "1")
}

/// The first lines in which two texts differ, for people.
pub fn difference(expected: &str, actual: &str) -> String {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    for number in 1.. {
        match (expected.next(), actual.next()) {
            (None, None) => break,
            (one, other) if one == other => {}
            (one, other) => {
                let shown = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
                return format!(
                    "line {number}:\n  expected {}\n  came     {}\n",
                    shown(one),
                    shown(other)
                );
            }
        }
    }
    String::new()
}

/// The world of a scenario, and what its jobs look like now.
#[derive(Default)]
struct Stage {
    world: Option<World>,
    seed: u64,
    racks: BTreeMap<String, String>,
    jobs: BTreeMap<JobName, JobSpec>,
    answers_read: u64,
    planned: Option<fabric::api::Plan>,
}

impl Stage {
    fn act(&mut self, line: &str) -> anyhow::Result<Vec<String>> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match command {
            "seed" => self.seed = one(&words)?.parse().context("a seed is a number")?,
            "rack" => {
                let [node, rack] = words[..] else { bail!("write `rack NODE NAME`") };
                ensure!(self.world.is_none(), "racks are said before `nodes`");
                self.racks.insert(node.into(), rack.into());
            }
            "nodes" => self.build(one(&words)?.parse().context("how many nodes")?)?,
            "run" => {
                let time = duration::parse(one(&words)?)?;
                self.world()?.run_for(time)?;
            }
            "rest" => {
                let time = duration::parse(one(&words)?)?;
                rest_within(self.world()?, time)?;
            }
            "submit" => self.submit(&words)?,
            "flood" => {
                let [count, name, settings @ ..] = &words[..] else {
                    bail!("write `flood COUNT JOB SETTING=VALUE ...`")
                };
                for number in 0..count.parse::<u32>().context("how many jobs?")? {
                    let name = format!("{name}-{number}");
                    self.submit(&[&[name.as_str()], settings].concat())?;
                }
            }
            "scale" => {
                let [job, count, at @ ..] = &words[..] else { bail!("write `scale JOB COUNT`") };
                let (job, count) = (JobName::new(job)?, count.parse().context("a count")?);
                if let Some(spec) = self.jobs.get_mut(&job) {
                    spec.count = count;
                }
                let by = "somebody".into();
                self.ask(at, Request::Scale { job, count, by })?;
            }
            "stop" => {
                let [job, at @ ..] = &words[..] else { bail!("write `stop JOB`") };
                self.ask(at, Request::Stop { job: JobName::new(job)? })?;
            }
            "restart-job" => {
                let [job, at @ ..] = &words[..] else { bail!("write `restart-job JOB`") };
                let (job, by) = (JobName::new(job)?, "somebody".into());
                self.ask(at, Request::RestartJob { job, by })?;
            }
            "drain" | "undrain" => {
                let [node, at @ ..] = &words[..] else { bail!("write `{command} NODE`") };
                let node = self.identity(node)?;
                self.ask(at, Request::Drain { node, on: command == "drain" })?;
            }
            "quota" => self.quota(&words)?,
            "plan" => self.plan(&words)?,
            "rebalance" => {
                let [moves, at @ ..] = &words[..] else { bail!("write `rebalance MOVES`") };
                let max_moves = moves.parse().context("how many moves?")?;
                let wish = RebalanceBody { apply: true, max_moves, at_most_one: false };
                self.ask(at, Request::Rebalance { wish })?;
            }
            "remove" => {
                let [node, rest @ ..] = &words[..] else { bail!("write `remove NODE [force]`") };
                let (force, at) = match rest {
                    ["force", at @ ..] => (true, at),
                    at => (false, at),
                };
                let node = self.identity(node)?;
                self.ask(at, Request::Remove { node, new_key: [1; 32], force })?;
            }
            "reclock" => self.ask(&words, Request::Reclock)?,
            "expect" => self.expect(&words)?,
            "trace" => return Ok(told(self.world()?.trace.take_lines())),
            _ => self.disturb(command, rest, &words)?,
        }
        Ok(Vec::new())
    }

    /// Everything that goes wrong, and what makes it well again.
    fn disturb(&mut self, command: &str, rest: &str, words: &[&str]) -> anyhow::Result<()> {
        match command {
            "crash" => {
                let node = self.node(one(words)?)?;
                self.world()?.crash_agent(node);
            }
            // Its agent ends, and the others are told that its machine is up.
            "stop-agent" => {
                let node = self.node(one(words)?)?;
                self.world()?.stop_agent(node, false);
            }
            "shutdown" => {
                let node = self.node(one(words)?)?;
                let world = self.world()?;
                world.stop_agent(node, true);
                world.power_off(node);
            }
            "unplug" | "plug" => {
                let node = self.node(one(words)?)?;
                self.world()?.plug(node, command == "plug");
            }
            "poweroff" => {
                let node = self.node(one(words)?)?;
                self.world()?.power_off(node);
            }
            "wipe" => {
                let node = self.node(one(words)?)?;
                self.world()?.wipe(node);
            }
            "renumber" => {
                let node = self.node(one(words)?)?;
                self.world()?.renumber(node);
            }
            "restart" => {
                let node = self.node(one(words)?)?;
                self.world()?.restart(node);
            }
            "split" => {
                let (one, other) = self.sides(rest, "|")?;
                self.world()?.split(&one, &other);
                self.world()?.split(&other, &one);
            }
            "oneway" => {
                let (from, to) = self.sides(rest, "->")?;
                self.world()?.split(&from, &to);
            }
            "heal" => self.world()?.heal_network(),
            "stranger" => match one(words)? {
                "copies" => self.world()?.set_stranger(true),
                "leaves" => self.world()?.set_stranger(false),
                other => bail!("a stranger copies or leaves, not {other:?}"),
            },
            "forger" => match one(words)? {
                "writes" => self.world()?.set_forger(true),
                "leaves" => self.world()?.set_forger(false),
                other => bail!("a forger writes or leaves, not {other:?}"),
            },
            "disk" => {
                let [node, mode] = words else { bail!("write `disk NODE well|slow|full`") };
                let mode = match *mode {
                    "well" => DiskMode::Well,
                    "slow" => DiskMode::Slow,
                    "full" => DiskMode::Refusing,
                    other => bail!("a disk is well, slow or full, not {other:?}"),
                };
                let node = self.node(node)?;
                self.world()?.set_disk(node, mode);
            }
            "units" => {
                let [node, temper] = words else {
                    bail!("write `units NODE well|slow|refusing|crash-looping`")
                };
                let temper = match *temper {
                    "well" => Temper::Well,
                    "slow" => Temper::Slow,
                    "refusing" => Temper::Refusing,
                    "crash-looping" => Temper::CrashLooping,
                    other => bail!("a unit manager is never {other:?}"),
                };
                let node = self.node(node)?;
                self.world()?.set_temper(node, temper);
            }
            "clock" => {
                let [node, jump] = words else { bail!("write `clock NODE +1d`, `-1d` or `+50y`") };
                let (sign, amount) = jump.split_at(1);
                let ms = match amount.strip_suffix('y') {
                    Some(years) => years.parse::<i64>()? * 365 * 86_400_000,
                    None => duration::parse(amount)?.as_millis() as i64,
                };
                let ms = match sign {
                    "+" => ms,
                    "-" => -ms,
                    _ => bail!("a jump begins with + or -"),
                };
                let node = self.node(node)?;
                self.world()?.set_clock(node, None, ms);
            }
            "pause" => {
                let [node, time] = words else { bail!("write `pause NODE 5s`") };
                let (node, time) = (self.node(node)?, duration::parse(time)?);
                let world = self.world()?;
                world.pause(node, world.time + time);
            }
            other => bail!("there is no command {other:?}"),
        }
        Ok(())
    }

    fn build(&mut self, nodes: usize) -> anyhow::Result<()> {
        ensure!(self.world.is_none(), "the world is there already");
        ensure!((1..=26).contains(&nodes), "1 to 26 nodes, named a to z");
        let names = ('a'..='z').take(nodes).map(String::from);
        let machines = names.map(|name| {
            let mut hardware = machines::plain();
            if let Some(rack) = self.racks.get(&name) {
                hardware.labels.insert("rack".into(), rack.clone());
            }
            (name, hardware)
        });
        let settings = Settings {
            seed: self.seed,
            quality: Quality { tail: Duration::ZERO, ..Quality::default() },
            canary: None,
            rediscovery: None,
            detail: Detail::Story,
            print: false,
            numbered: false,
        };
        let mut world = World::new(settings, machines.collect());
        for machine in &mut world.nodes {
            machine.units.steady = true;
        }
        world.found_and_join();
        self.world = Some(world);
        Ok(())
    }

    /// `submit web count=3 cores=1 health behaves=exits=2s at=b`: what is not said stays as it was.
    fn submit(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let (spec, at) = self.spec(words)?;
        self.jobs.insert(spec.name.clone(), spec.clone());
        let by = "somebody".into();
        let at: Vec<&str> = at.iter().map(String::as_str).collect();
        self.ask(&at, Request::Submit { spec: Box::new(spec), by, expected_version: None })
    }

    /// The same words as `submit`: what the first node that runs says would come of it.
    fn plan(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let (spec, _) = self.spec(words)?;
        let world = self.world()?;
        let node = *world.running().first().context("no node runs")?;
        let machine = &world.nodes[node];
        let now = machine.clock.read(world.time);
        let core = machine.core().context("that node does not run")?;
        self.planned = Some(core.plan(now, &spec).map_err(|problem| anyhow::anyhow!("{problem}"))?);
        Ok(())
    }

    /// `expect gangs red,blue whole=1`: so many of them run as a whole, and of the others nothing is there.
    fn expect_gangs(&mut self, names: &str, whole: &str) -> anyhow::Result<()> {
        let wanted: usize = whole.strip_prefix("whole=").context("write whole=N")?.parse()?;
        let mut found = 0;
        for name in names.split(',') {
            let job = JobName::new(name)?;
            let count = self.jobs.get(&job).context("no such job")?.count as usize;
            let machines = self.world()?.nodes.iter();
            let there = machines.flat_map(|machine| machine.units.there());
            let there = there.filter(|(alloc, _)| alloc.slot.job == job).count();
            ensure!(there == 0 || there == count, "{there} of {count} of {name} are there");
            found += usize::from(there == count);
        }
        ensure!(found == wanted, "{found} are whole");
        Ok(())
    }

    /// `expect plan displaces=low/0 on=a`
    fn expect_plan(&mut self, wishes: &[&str]) -> anyhow::Result<()> {
        let plan = self.planned.as_ref().context("first say `plan`")?;
        let displaced = plan.slots.iter().flat_map(|slot| &slot.displaces);
        let displaced: Vec<String> = displaced.map(|alloc| alloc.slot.to_string()).collect();
        let places: Vec<&str> = plan.slots.iter().filter_map(|slot| slot.node.as_deref()).collect();
        for wish in wishes {
            let fits = match wish.split_once('=') {
                Some(("displaces", slots)) => displaced.join(",") == slots,
                Some(("on", nodes)) => places.join(",") == nodes,
                _ => bail!("a plan has no {wish:?} here"),
            };
            ensure!(fits, "not {wish}: displaces {displaced:?}, on {places:?}");
        }
        Ok(())
    }

    fn spec(&mut self, words: &[&str]) -> anyhow::Result<(JobSpec, Vec<String>)> {
        let [name, settings @ ..] = words else { bail!("write `submit JOB SETTING=VALUE ...`") };
        let name = JobName::new(name)?;
        let before = self.jobs.get(&name).cloned();
        let mut spec = before.unwrap_or_else(|| workload::service(name.clone()));
        let mut at = Vec::new();
        for setting in settings {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            let number = || value.parse::<u32>().with_context(|| format!("{key} is a number"));
            match key {
                "count" => spec.count = number()?,
                "system" => spec.kind = JobKind::System,
                "cores" => {
                    let cores = u16::try_from(number()?)?;
                    spec.resources.cpu = CpuRequest::Exclusive { cores, smt: Smt::Whole };
                }
                "millis" => {
                    spec.resources.cpu = CpuRequest::Shared { millis: number()?, hard: false };
                }
                "memory" => {
                    let bytes = fabric::job::parse_bytes(value);
                    spec.resources.memory = bytes.context("memory is like 64MiB")?;
                }
                "disk" => {
                    let bytes = fabric::job::parse_bytes(value);
                    spec.resources.disk = bytes.context("disk is like 2GiB")?;
                }
                "version" => {
                    spec.task.env.insert("VERSION".into(), value.into());
                }
                "behaves" => {
                    Behaviour::parse(value)?;
                    spec.task.env.insert(BEHAVES.into(), value.into());
                }
                "health" => spec.health = Some(workload::health()),
                "priority" => spec.priority = u8::try_from(number()?)?,
                "namespace" => spec.namespace = Namespace::new(value)?,
                "gang" => spec.gang = true,
                "parallel" => spec.update.max_parallel = number()?,
                "attempts" => spec.restart.attempts = number()?,
                "sticky" => spec.placement.sticky = true,
                "at-most-one" => spec.guarantee = Guarantee::AtMostOne,

                "spread" => {
                    let levels = value.split(',').map(str::parse);
                    spec.placement.spread = levels.collect::<Result<_, _>>()?;
                }
                "away" => spec.placement.anti_affinity.push(JobName::new(value)?),
                "rack" => {
                    spec.placement.constraints =
                        vec![format!("labels.rack == \"{value}\"").parse()?];
                }
                "at" => at.push((*setting).to_owned()),
                "deadline" => spec.update.deadline = duration::parse(value)?,
                "no-revert" => spec.update.auto_revert = false,
                other => bail!("a job has no setting {other:?} here"),
            }
        }
        Ok((spec, at))
    }

    /// `quota team cores=2 allocs=3 force at=b`
    fn quota(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let [name, settings @ ..] = words else { bail!("write `quota NAMESPACE cores=N`") };
        let (mut quota, mut force, mut at) = (Quota::default(), false, Vec::new());
        for setting in settings {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            match key {
                "cores" => quota.cpu_millis = Some(value.parse::<u64>()? * 1000),
                "allocs" => quota.allocs = Some(value.parse()?),
                "force" => force = true,
                "at" => at.push(*setting),
                other => bail!("a quota has no {other:?} here"),
            }
        }
        let namespace = Namespace::new(name)?;
        self.ask(&at, Request::SetQuota { namespace, quota, force })
    }

    /// Asks the node that `at=NODE` names, or the first one that runs.
    fn ask(&mut self, at: &[&str], request: Request) -> anyhow::Result<()> {
        let node = match at {
            [] => *self.world()?.running().first().context("no node runs")?,
            [at] => {
                let name = at.strip_prefix("at=").context("write `at=NODE`")?;
                self.node(name)?
            }
            _ => bail!("one node is asked, not {}", at.len()),
        };
        let asked = self.world()?.request(node, request).context("that node does not run")?;
        self.answers_read = asked;
        Ok(())
    }

    /// `expect web healthy=3 on=a,b` | `expect a sees b dead` | `expect answer held=2` |
    /// `expect answer refused` | `expect drained a` | `expect equal` | `expect healthy JOBS` |
    /// `expect a goes by the true time` | `expect a blames b` | `expect a blames nobody` |
    /// `expect a remembers 3` (rows of what ended) |
    /// `expect calm` (no output was dropped, nothing is left to push) | `expect a doubts` |
    /// `expect a refused forgeries` (rows in the name of somebody who did not write them)
    fn expect(&mut self, words: &[&str]) -> anyhow::Result<()> {
        match words {
            ["gangs", names, whole] => self.expect_gangs(names, whole),
            ["plan", wishes @ ..] => self.expect_plan(wishes),
            ["answer", wanted] => self.expect_answer(wanted),
            ["equal"] => Ok(settled::invariant_views_converge_after_heal(self.world()?)
                .map_err(anyhow::Error::msg)?),
            ["rest"] => match settled::unrest(self.world()?) {
                Some(violation) => Err(violation.into()),
                None => Ok(()),
            },
            ["empty", node] => {
                let node = self.node(node)?;
                let units = self.world()?.nodes[node].units.there().count();
                ensure!(units == 0, "{units} units are there");
                Ok(())
            }
            [node, "sees", other, state] => {
                let (node, other) = (self.node(node)?, self.identity(other)?);
                let core = self.world()?.nodes[node].core().context("that node does not run")?;
                let view = core.nodes().into_iter().find(|view| view.id == other);
                let seen = view.map_or("nothing".into(), |view| view.state.to_string());
                ensure!(seen == *state, "it sees it {seen}");
                Ok(())
            }
            ["healthy", wanted] => {
                let world = self.world()?;
                let core = world.nodes.iter().find_map(|machine| machine.core());
                let jobs = core.context("no node runs")?.jobs();
                let well = jobs.iter().filter(|view| view.healthy >= view.wanted).count();
                ensure!(wanted.parse() == Ok(well), "{well} of {} jobs are", jobs.len());
                Ok(())
            }
            ["calm"] => {
                for machine in &self.world()?.nodes {
                    let Some(core) = machine.core() else { continue };
                    let (name, dropped) = (&machine.name, core.counters().outputs_dropped);
                    ensure!(dropped == 0, "{name} dropped {dropped} outputs");
                    ensure!(core.sizes().1 == 0, "{name} still pushes {} entries", core.sizes().1);
                }
                Ok(())
            }
            [node, "goes", "by", "the", "true", "time"] => {
                let node = self.node(node)?;
                let world = self.world()?;
                let machine = &world.nodes[node];
                let core = machine.core().context("that node does not run")?;
                let (own, truth) = (machine.clock.read(world.time), true_wall(world.time));
                let time = core.fabric_time(own);
                let off = time.since(truth).max(truth.since(time));
                ensure!(off < Duration::from_secs(60), "it goes by {time}, and it is {truth}");
                Ok(())
            }
            [node, "blames", "nobody"] => {
                let node = self.node(node)?;
                let off = self.clocks_off(node)?;
                ensure!(off.is_empty(), "it says {off:?}");
                Ok(())
            }
            [node, "blames", other] => {
                let (node, other) = (self.node(node)?, self.identity(other)?);
                let off = self.clocks_off(node)?;
                ensure!(off == [other], "it says {off:?}");
                Ok(())
            }
            [node, "remembers", count] => {
                let node = self.node(node)?;
                let core = self.world()?.nodes[node].core().context("that node does not run")?;
                let over = core.entries().filter(|entry| entry.is_over()).count();
                ensure!(count.parse() == Ok(over), "{over} rows that ended");
                Ok(())
            }
            [node, "refused", "forgeries"] => {
                let node = self.node(node)?;
                let core = self.world()?.nodes[node].core().context("that node does not run")?;
                ensure!(core.counters().forged > 0, "nobody brought it any");
                Ok(())
            }
            [node, "doubts"] => {
                let node = self.node(node)?;
                let core = self.world()?.nodes[node].core().context("that node does not run")?;
                ensure!(core.doubts_itself(), "it does not");
                Ok(())
            }
            [job, wishes @ ..] if !wishes.is_empty() => self.expect_job(job, wishes),
            _ => bail!("expected what?"),
        }
    }

    /// Whose clocks are off, as a node says.
    fn clocks_off(&mut self, node: usize) -> anyhow::Result<Vec<NodeId>> {
        let world = self.world()?;
        let machine = &world.nodes[node];
        let core = machine.core().context("that node does not run")?;
        let clocks = core.clocks(machine.clock.read(world.time));
        Ok(clocks.off.iter().map(|off| off.node).collect())
    }

    fn expect_answer(&mut self, wanted: &str) -> anyhow::Result<()> {
        let id = self.answers_read;
        let answer = self.world()?.answers.get(&id).context("there is no answer yet")?;
        let fits = match (wanted.split_once('='), &answer.1) {
            (Some(("held", held)), Answer::Submitted(told)) => held.parse() == Ok(told.held_by),
            (Some(("version", version)), Answer::Submitted(told)) => {
                version.parse() == Ok(told.version)
            }
            (None, Answer::Refused(_)) => wanted == "refused",
            (None, Answer::Done | Answer::Submitted(_) | Answer::Rebalanced(_)) => wanted == "done",
            _ => false,
        };
        ensure!(fits, "the answer was {:?}", answer.1);
        Ok(())
    }

    /// What really runs of a job, and where.
    fn expect_job(&mut self, job: &str, wishes: &[&str]) -> anyhow::Result<()> {
        let job = JobName::new(job)?;
        let world = self.world()?;
        let (mut running, mut places, mut versions) = (0, Vec::new(), Vec::new());
        for machine in &world.nodes {
            for (alloc, unit) in machine.units.there() {
                if alloc.slot.job == job && unit.state == UnitState::Running {
                    running += 1;
                    places.push(machine.name.as_str());
                    versions.extend(unit.launch.task.env.get("VERSION").cloned());
                }
            }
        }
        let told = format!("{running} run, on {places:?}, versions {versions:?}");
        places.dedup();
        versions.dedup();
        for wish in wishes {
            let (key, value) = wish.split_once('=').context("write KEY=VALUE")?;
            let view = |world: &World| {
                let core = world.nodes.iter().find_map(|machine| machine.core());
                core.and_then(|core| core.jobs().into_iter().find(|view| view.name == job))
            };
            let fits = match key {
                "running" => value.parse() == Ok(running),
                "healthy" => view(world).is_some_and(|view| value.parse() == Ok(view.healthy)),
                "state" => view(world).is_some_and(|view| value == view.state.to_string()),
                "on" => value.split(',').eq(places.iter().copied()),
                "voters" => world.running().iter().all(|node| {
                    let core = world.nodes[*node].core();
                    core.is_some_and(|core| value.parse() == Ok(core.voters().members.len()))
                }),
                "version" => versions == [value],
                other => bail!("a job has no {other:?} here"),
            };
            ensure!(
                fits,
                "not {wish}: {told}; {:?}",
                view(world).map(|view| (view.healthy, view.state))
            );
        }
        Ok(())
    }

    fn world(&mut self) -> anyhow::Result<&mut World> {
        self.world.as_mut().context("first say `nodes N`")
    }

    fn node(&mut self, name: &str) -> anyhow::Result<usize> {
        self.world()?.named(name).with_context(|| format!("there is no node {name:?}"))
    }

    fn identity(&mut self, name: &str) -> anyhow::Result<NodeId> {
        let node = self.node(name)?;
        Ok(self.world()?.nodes[node].identity)
    }

    fn sides(&mut self, rest: &str, sign: &str) -> anyhow::Result<(Vec<usize>, Vec<usize>)> {
        let (one, other) =
            rest.split_once(sign).with_context(|| format!("write `a {sign} b c`"))?;
        let mut side = |names: &str| {
            names.split_whitespace().map(|name| self.node(name)).collect::<anyhow::Result<Vec<_>>>()
        };
        Ok((side(one)?, side(other)?))
    }
}

/// Lines of a trace, by tenths of a second; those of one tenth are in the order of the alphabet, so that
/// a trace changes only when something else happens.
fn told(lines: Vec<(Duration, String)>) -> Vec<String> {
    let mut lines: Vec<(u128, String)> =
        lines.into_iter().map(|(time, words)| (time.as_millis() / 100, words)).collect();
    lines.sort();
    let told = |(tenth, words)| format!("{:>5}.{} {words}", tenth / 10, tenth % 10);
    lines.into_iter().map(told).collect()
}

fn one<'a>(words: &[&'a str]) -> anyhow::Result<&'a str> {
    match words {
        [word] => Ok(word),
        _ => bail!("one word is wanted here, not {}", words.len()),
    }
}

#[cfg(test)]
mod tests;
