//! Waits for a job to get where it should be, and shows how it gets there.
//!
//! Watching changes nothing: whoever stops watching leaves the job as it is.

use fabric::alloc::Phase;
use fabric::api::{AllocView, Explanation, JobState, JobView, NodeState};
use fabric::id::JobName;
use fabric::job::duration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

use crate::Context;
use crate::exit::{Exit, Failure};
use crate::screen::{Cell, Table, Tone, plural, printable};
use crate::{jobs, streams};

/// Between two looks.
pub const POLL: Duration = Duration::from_millis(250);
/// An agent that is restarted while somebody watches is back by then.
const AGENT_BACK_WITHIN: Duration = Duration::from_secs(15);

/// Allocations, and nodes, that are named while something is to end.
const LEFT_SHOWN_MAX: usize = 5;
/// Lines that are shown of a version that was taken back.
const LAST_WORDS: usize = 3;
/// Characters of each.
const LAST_WORDS_WIDTH: usize = 200;
/// They are not waited for any longer: their node may be gone.
const LAST_WORDS_TAKE: Duration = Duration::from_secs(2);

/// How a wait came to its end.
pub enum Ended<T> {
    /// What was waited for has happened.
    Itself(T),
    /// `--timeout` has passed.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
}

/// Waits for `work`, but not past `timeout` and not past Ctrl-C.
pub async fn bounded<T>(work: impl Future<Output = T>, timeout: Option<Duration>) -> Ended<T> {
    let timed_out = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = work => Ended::Itself(result),
        () = timed_out => Ended::TimedOut,
        Ok(()) = tokio::signal::ctrl_c() => Ended::Interrupted,
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// The job's version, or a later one.
    pub version: u64,
    /// Give up when slots are failing or unplaceable for this long; `None`: never.
    pub settle: Option<Duration>,
    /// Something was changed: it has to stay healthy for the job's `update.min_healthy`.
    pub steady: bool,
    /// Wait no longer than this.
    pub timeout: Option<Duration>,
}

/// How a job was when the wait was over.
pub struct Outcome {
    /// The exit code that says it.
    pub exit: Exit,
    /// The job, as it was seen last.
    pub job: Option<JobView>,
}

/// Waits until every slot of `job` is healthy. Says what happens, and why it gives up if it does.
pub async fn until_healthy(
    context: &Context,
    job: &JobName,
    goal: Goal,
) -> Result<Outcome, Failure> {
    let mut progress = Progress::new(context, job);
    let ended = bounded(progress.follow(goal), goal.timeout).await;
    context.screen.clear_line();
    let exit = match ended {
        Ended::Itself(exit) => exit?,
        Ended::TimedOut => {
            let last = progress.summary();
            let last = match progress.steady {
                Some(_) => format!("{last}, but not for its update.min_healthy yet"),
                None => last,
            };
            context.screen.say_toned(Tone::Bad, &format!("not healthy in time: {last}"));
            if progress.job.as_ref().is_some_and(|job| job.state == JobState::Unplaceable) {
                explain(context, job).await?;
            }
            Exit::TimedOut
        }
        Ended::Interrupted => {
            context.screen.say(&format!(
                "stopped watching, nothing else: {job} goes on. To watch again: weft wait {job}"
            ));
            Exit::Interrupted
        }
    };
    Ok(Outcome { exit, job: progress.job })
}

/// Waits until a job is stopped and nothing of it runs any more.
pub async fn until_gone(
    context: &Context,
    job: &JobName,
    timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    let mut left = Vec::new();
    let gone = async {
        loop {
            let stopped = match context.client.get::<JobView>(&format!("/v1/jobs/{job}")).await {
                Ok(_) => false,
                Err(Failure::Said(Exit::NotFound, _)) => true,
                Err(failure) => return Err(failure),
            };
            let before = std::mem::replace(&mut left, allocs(context, job).await?);
            if stopped && left.is_empty() {
                return Ok(());
            }
            let (said, now) = (what_is_left(&before), what_is_left(&left));
            if said != now && !left.is_empty() {
                let count = plural(left.len(), "allocation");
                context.screen.say(&printable(&format!("{count} of {job} left: {now}")));
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match bounded(gone, timeout).await {
        Ended::Itself(result) => result.map(|()| {
            context.screen.say_toned(Tone::Good, &format!("{job} is gone"));
            Exit::Ok
        }),
        Ended::TimedOut => {
            let left = match &left[..] {
                [] => String::new(),
                left => format!(": {}", what_is_left(left)),
            };
            Err(Failure::Said(Exit::TimedOut, printable(&format!("{job} is not gone yet{left}"))))
        }
        Ended::Interrupted => {
            context.screen.say("stopped watching, nothing else");
            Ok(Exit::Interrupted)
        }
    }
}

/// Which allocations are left where, and what is to be done about those whose node does not answer:
/// `web/1 on two, which is dead; start its agent, or if it is gone for good: weft node two remove`.
pub fn what_is_left(allocs: &[AllocView]) -> String {
    let is_up =
        |alloc: &AllocView| matches!(alloc.node_state, NodeState::Alive | NodeState::Suspect);
    let one = |alloc: &AllocView| {
        let (slot, node) = (&alloc.id.slot, &alloc.node_name);
        match is_up(alloc) {
            true => format!("{slot} on {node} ({})", alloc.row.phase),
            false if alloc.agent_stopped => format!("{slot} on {node}, whose agent has stopped"),
            false => format!("{slot} on {node}, which is {}", alloc.node_state),
        }
    };
    let more = allocs.len().saturating_sub(LEFT_SHOWN_MAX);
    let mut parts: Vec<String> = allocs.iter().take(LEFT_SHOWN_MAX).map(one).collect();
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    let silent: BTreeSet<&str> =
        allocs.iter().filter(|alloc| !is_up(alloc)).map(|alloc| alloc.node_name.as_str()).collect();
    let advice = silent.into_iter().take(LEFT_SHOWN_MAX).map(|node| {
        format!("start the agent of {node}, or if it is gone for good: weft node {node} remove")
    });
    parts.extend(advice);
    parts.join("; ")
}

/// Live allocations of a job.
async fn allocs(context: &Context, job: &JobName) -> Result<Vec<AllocView>, Failure> {
    context.client.get(&format!("/v1/allocs?job={job}")).await
}

/// Says on stderr which node refuses the job for which reason.
pub async fn explain(context: &Context, job: &JobName) -> Result<(), Failure> {
    let explanation: Explanation = context.client.get(&format!("/v1/jobs/{job}/explain")).await?;
    let mut table = Table::new(&["NODE", "WHY NOT"]);
    for verdict in &explanation.nodes {
        if let Some(rejection) = &verdict.rejection {
            table.row([verdict.name.clone().into(), Cell::new(rejection.to_string(), Tone::Plain)]);
        }
    }
    context.screen.say_table(&table);
    Ok(())
}

/// What was seen so far.
struct Progress<'a> {
    context: &'a Context,
    name: &'a JobName,
    started: Instant,
    job: Option<JobView>,
    /// Each slot's last line, by slot and node.
    slots: BTreeMap<(u32, String), String>,
    /// Since when slots are failing or unplaceable, if they were not healthy for long enough meanwhile.
    trouble: Option<(JobState, Instant)>,
    /// Since when all are healthy, and which allocations these are: epoch and restarts, by slot and node.
    steady: Option<(Instant, Allocations)>,
}

type Allocations = BTreeMap<(u32, String), (u64, u32)>;

impl<'a> Progress<'a> {
    fn new(context: &'a Context, name: &'a JobName) -> Self {
        let started = Instant::now();
        Self {
            context,
            name,
            started,
            job: None,
            slots: BTreeMap::new(),
            trouble: None,
            steady: None,
        }
    }

    async fn follow(&mut self, goal: Goal) -> Result<Exit, Failure> {
        let mut answered = Instant::now();
        loop {
            match self.look().await {
                Ok(()) => answered = Instant::now(),
                Err(Failure::Said(Exit::Unreachable, message)) => {
                    if answered.elapsed() > AGENT_BACK_WITHIN || self.job.is_none() {
                        return Err(Failure::Said(Exit::Unreachable, message));
                    }
                }
                Err(failure) => return Err(failure),
            }
            if let Some(exit) = self.decide(goal).await? {
                return Ok(exit);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks once, and says what is new.
    async fn look(&mut self) -> Result<(), Failure> {
        let job: JobView = self.context.client.get(&format!("/v1/jobs/{}", self.name)).await?;
        let allocs = allocs(self.context, self.name).await?;
        for alloc in allocs.iter().filter(|alloc| alloc.current) {
            let line = slot_line(alloc);
            let key = (alloc.id.slot.index, alloc.node.to_string());
            if self.slots.get(&key) != Some(&line) {
                self.context.screen.clear_line();
                self.context.screen.say(&printable(&line));
                self.slots.insert(key, line);
            }
        }
        let is_other = self.job.as_ref().is_some_and(|before| before.version != job.version);
        self.trouble = match job.state {
            JobState::Failing | JobState::Unplaceable => self
                .trouble
                .filter(|(state, _)| *state == job.state && !is_other)
                .or(Some((job.state, Instant::now()))),
            // One that crashes again and again is healthy in between.
            JobState::Healthy => self.trouble.filter(|_| !is_other),
            JobState::Progressing | JobState::Reverted => None,
        };
        self.steady = match job.state {
            JobState::Healthy => {
                let row = |alloc: &AllocView| (alloc.row.epoch, alloc.row.restarts);
                let now = allocs.iter().filter(|alloc| alloc.current && alloc.row.phase.is_live());
                let now: Allocations = now
                    .map(|alloc| ((alloc.id.slot.index, alloc.node.to_string()), row(alloc)))
                    .collect();
                let known = self.steady.take().filter(|(_, before)| *before == now && !is_other);
                known.or_else(|| Some((Instant::now(), now)))
            }
            _ => None,
        };
        self.job = Some(job);
        let seconds = self.started.elapsed().as_secs();
        self.context.screen.replace_line(&format!("{} ({seconds}s)", self.summary()));
        Ok(())
    }

    fn summary(&self) -> String {
        let Some(job) = &self.job else { return format!("{} was not seen", self.name) };
        let reason = job.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        printable(&format!(
            "{} version {} is {}, {} of {} slots healthy{reason}",
            job.name, job.version, job.state, job.healthy, job.wanted
        ))
    }

    /// What the allocation wrote last for which a version was taken back, and where the rest is.
    async fn say_last_words(&self, job: &JobView) {
        let Some(failed) = &job.failed else { return };
        let lines = streams::last_lines(&self.context.client, failed, LAST_WORDS);
        let lines = tokio::time::timeout(LAST_WORDS_TAKE, lines).await.unwrap_or_default();
        let screen = &self.context.screen;
        let (alloc, node) = (&failed.alloc, printable(&failed.node_name));
        if lines.is_empty() {
            let slot = &alloc.slot;
            screen.say(&format!("what {alloc} wrote is on {node}: weft logs {slot} --previous"));
            return;
        }
        screen.say(&format!("{alloc} on {node} wrote last:"));
        for line in lines {
            let most = line.char_indices().nth(LAST_WORDS_WIDTH).map_or(line.len(), |(at, _)| at);
            let more = if most < line.len() { "…" } else { "" };
            screen.say(&format!("  {}{more}", printable(&line[..most])));
        }
        screen.say(&format!("all of it: weft logs {} --previous", alloc.slot));
    }

    /// Says so where the program of a service has done its work, which is no failure to whoever wrote it.
    fn say_if_ended_well(&self, job: &JobView) {
        if job.reason.as_ref().is_some_and(|reason| reason.contains("exit status 0")) {
            self.context.screen.say(
                "its program ended well, but a service is meant to go on; jobs that end cannot be described yet",
            );
        }
    }

    /// Whether it is over, and how. Says so.
    async fn decide(&self, goal: Goal) -> Result<Option<Exit>, Failure> {
        let Some(job) = &self.job else { return Ok(None) };
        let screen = &self.context.screen;
        match job.state {
            JobState::Healthy if job.version >= goal.version => {
                let for_long = |(since, allocs): &(Instant, Allocations)| {
                    allocs.is_empty() || since.elapsed() >= job.spec.update.min_healthy
                };
                if goal.steady && !self.steady.as_ref().is_some_and(for_long) {
                    return Ok(None);
                }
                screen.clear_line();
                screen.say_toned(Tone::Good, &self.summary());
                return Ok(Some(Exit::Ok));
            }
            JobState::Reverted if goal.settle.is_some() => {
                screen.clear_line();
                let reason = job.reason.as_deref().unwrap_or("it did not become healthy");
                screen.say_toned(
                    Tone::Bad,
                    &printable(&format!(
                        "{} was reverted to version {}: {reason}",
                        job.name, job.version
                    )),
                );
                self.say_if_ended_well(job);
                self.say_last_words(job).await;
                return Ok(Some(Exit::Failed));
            }
            // Whoever waits for as long as it takes waits for the version that is in force now.
            JobState::Reverted if job.healthy >= job.wanted => {
                screen.clear_line();
                screen.say_toned(Tone::Bad, &self.summary());
                self.say_last_words(job).await;
                return Ok(Some(Exit::Failed));
            }
            _ => {}
        }
        let (Some(settle), Some((state, since))) = (goal.settle, self.trouble) else {
            return Ok(None);
        };
        if job.state != state {
            return Ok(None);
        }
        let grace = job.spec.health.as_ref().map_or(Duration::ZERO, |health| health.grace);
        let patience = match state {
            JobState::Unplaceable => settle,
            // A version that fails is taken back, if there is one to go back to: worth waiting for.
            _ if job.reverts_to.is_some() => settle + job.spec.update.deadline,
            _ => settle + grace,
        };
        if since.elapsed() < patience {
            return Ok(None);
        }
        screen.clear_line();
        screen.say_toned(Tone::Bad, &self.summary());
        if state == JobState::Failing {
            self.say_if_ended_well(job);
            screen.say(&format!(
                "it goes on trying; see weft logs {0} and weft explain {0}",
                job.name
            ));
            return Ok(Some(Exit::Failed));
        }
        explain(self.context, self.name).await?;
        screen.say(&match job.reverts_to {
            Some(version) => format!(
                "it is taken back, and version {version} is in force again, if no node can take it within {}, its update.deadline",
                duration::display(job.spec.update.deadline)
            ),
            None => "it stays pending, and starts when a node can take it".into(),
        });
        Ok(Some(Exit::Unplaceable))
    }
}

/// `web/0 on rack1: running, healthy`
fn slot_line(alloc: &AllocView) -> String {
    if let Some(word) = jobs::gone(alloc) {
        return format!("{} on {} ({}): {word}", alloc.id.slot, alloc.node_name, alloc.node_state);
    }
    let healthy = match (alloc.row.phase, alloc.row.healthy) {
        (_, true) => ", healthy",
        (Phase::Running, false) => ", not healthy yet",
        (_, false) => "",
    };
    let trouble = alloc.row.trouble.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    let restarts = match alloc.row.restarts {
        0 => String::new(),
        count => format!(", restarts: {count}"),
    };
    format!(
        "{} on {}: {}{healthy}{restarts}{trouble}",
        alloc.id.slot, alloc.node_name, alloc.row.phase
    )
}
