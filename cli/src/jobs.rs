//! `weft jobs`, `ps`, `explain`, `scale`, `restart`, `stop` and `wait`.

use fabric::alloc::Phase;
use fabric::api::{
    AllocView, Explanation, JobState, JobView, NodeState, RestartBody, Scale, Submitted,
};
use fabric::id::JobName;
use fabric::job::JobKind;
use fabric::resources::bytes;
use hyper::Method;
use std::time::Duration;

use crate::arguments::{JobOrSlot, Watch};
use crate::exit::{Exit, Failure};
use crate::screen::{Cell, Table, Tone, plural};
use crate::watch::{self, Goal};
use crate::{Context, apply, clock};

/// Every job in a line.
pub async fn jobs(context: &Context, job: Option<JobName>) -> Result<Exit, Failure> {
    let jobs: Vec<JobView> = match &job {
        Some(job) => vec![context.client.get(&format!("/v1/jobs/{job}")).await?],
        None => context.client.get("/v1/jobs").await?,
    };
    if context.screen.is_json() {
        match &jobs[..] {
            [one] if job.is_some() => context.screen.json(one)?,
            all => context.screen.json(&all)?,
        }
        return Ok(Exit::Ok);
    }
    if context.screen.names(jobs.iter().map(|job| &job.name))? {
        return Ok(Exit::Ok);
    }
    let now = clock::now();
    let mut head = vec!["NAME", "TYPE", "STATE", "HEALTHY", "VERSION", "BY", "AGE"];
    if context.screen.is_wide() {
        head.extend(["NAMESPACE", "PRIORITY", "COMMAND"]);
    }
    head.push("WHY");
    let mut table = Table::new(&head).without(&["BY", "TYPE", "VERSION", "AGE"]);
    for job in &jobs {
        let mut cells = vec![
            job.name.to_string().into(),
            match job.kind {
                JobKind::Service => "service".into(),
                JobKind::System => "system".into(),
            },
            state(job.state),
            format!("{} of {}", job.healthy, job.wanted).into(),
            job.version.to_string().into(),
            job.by.clone().into(),
            clock::age(now, job.submitted).into(),
        ];
        if context.screen.is_wide() {
            let spec = &job.spec;
            cells.extend([
                spec.namespace.to_string().into(),
                spec.priority.to_string().into(),
                Cell::from(spec.task.command.first().cloned().unwrap_or_default()),
            ]);
        }
        cells.push(job.reason.clone().unwrap_or_default().into());
        table.row_of(cells);
    }
    context.screen.table(&table)?;
    Ok(Exit::Ok)
}

fn state(state: JobState) -> Cell {
    let tone = match state {
        JobState::Healthy => Tone::Good,
        JobState::Progressing => Tone::Busy,
        JobState::Unplaceable | JobState::Failing | JobState::Reverted => Tone::Bad,
    };
    Cell::new(state.to_string(), tone)
}

/// Every allocation in a line.
pub async fn ps(context: &Context, job: Option<JobName>, all: bool) -> Result<Exit, Failure> {
    let mut path = format!("/v1/allocs?all={all}");
    if let Some(job) = &job {
        path.push_str(&format!("&job={job}"));
    }
    let allocs: Vec<AllocView> = context.client.get(&path).await?;
    if let (Some(job), true) = (&job, allocs.is_empty()) {
        // Nothing runs: is there such a job at all?
        context.client.get::<JobView>(&format!("/v1/jobs/{job}")).await?;
    }
    if context.screen.is_json() {
        context.screen.json(&allocs)?;
    } else if !context.screen.names(allocs.iter().map(|alloc| &alloc.id.slot))? {
        context.screen.table(&alloc_table(&allocs, context.screen.is_wide()))?;
    }
    Ok(Exit::Ok)
}

/// Allocations, one a line.
pub fn alloc_table(allocs: &[AllocView], wide: bool) -> Table {
    let now = clock::now();
    // Most jobs keep nothing on a disk.
    let has_disk = allocs.iter().any(|alloc| alloc.row.claim.disk > 0);
    let mut head = vec![
        "SLOT", "EPOCH", "NODE", "PHASE", "HEALTH", "CPUS", "MEMORY", "PORTS", "RESTARTS", "AGE",
        "NOTE",
    ];
    if has_disk {
        head.insert(DISK, "DISK");
    }
    if wide {
        head.push("UNIT");
    }
    let mut table =
        Table::new(&head).without(&["EPOCH", "AGE", "RESTARTS", "DISK", "MEMORY", "PORTS", "CPUS"]);
    for alloc in allocs {
        let row = &alloc.row;
        // What it says of itself is from before its node went.
        let gone = gone(alloc);
        let cpus = if row.claim.cpus.is_empty() {
            format!("{} shared", f64::from(row.claim.shared_millis) / 1000.0)
        } else {
            row.claim.cpus.to_string()
        };
        let ports: Vec<_> =
            row.claim.ports.iter().map(|(name, number)| format!("{name}={number}")).collect();
        let note = match (&row.ending, &row.trouble) {
            (Some(ending), _) => ending.to_string(),
            // That is over.
            (None, Some(trouble)) if row.healthy => format!("before: {trouble}"),
            (None, Some(trouble)) => trouble.clone(),
            (None, None) if !alloc.current => "old version".into(),
            (None, None) => String::new(),
        };
        let mut cells: Vec<Cell> = vec![
            alloc.id.slot.to_string().into(),
            alloc.id.epoch.to_string().into(),
            match alloc.node_state {
                NodeState::Alive => alloc.node_name.clone().into(),
                _ if alloc.agent_stopped => {
                    Cell::new(format!("{} (agent stopped)", alloc.node_name), Tone::Busy)
                }
                state => Cell::new(format!("{} ({state})", alloc.node_name), Tone::Bad),
            },
            match gone {
                Some(word) => Cell::new(word, Tone::Bad),
                None => phase(row.phase),
            },
            match (row.phase, row.healthy) {
                _ if gone.is_some() => "-".into(),
                (_, true) => Cell::new("healthy", Tone::Good),
                (Phase::Running, false) => Cell::new("unhealthy", Tone::Bad),
                (_, false) => "-".into(),
            },
            cpus.into(),
            bytes(row.claim.memory).into(),
            if ports.is_empty() { "-".into() } else { ports.join(",").into() },
            row.restarts.to_string().into(),
            clock::age(now, row.since).into(),
            note.into(),
        ];
        if has_disk {
            let disk = row.claim.disk;
            cells.insert(DISK, if disk > 0 { bytes(disk).into() } else { "-".into() });
        }
        if wide {
            cells.push(alloc.unit.clone().into());
        }
        table.row_of(cells);
    }
    table
}

/// Where the column of what an allocation may keep on disk is, if there is one: after memory.
const DISK: usize = 7;

/// What is to be said of an allocation in place of what it said of itself before its node went.
pub fn gone(alloc: &AllocView) -> Option<&'static str> {
    if !alloc.row.phase.is_live() || alloc.agent_stopped {
        return None;
    }
    match alloc.node_state {
        NodeState::Alive | NodeState::Suspect => None,
        NodeState::Dead | NodeState::Left => Some("lost"),
        // It may be this node that hears nobody.
        NodeState::Unknown => Some("unknown"),
    }
}

fn phase(phase: Phase) -> Cell {
    let tone = match phase {
        Phase::Running => Tone::Good,
        Phase::Ended => Tone::Faint,
        Phase::Pending | Phase::Reserved | Phase::Preparing | Phase::Starting | Phase::Stopping => {
            Tone::Busy
        }
    };
    Cell::new(phase.to_string(), tone)
}

/// Why each slot is where it is, and each node's answer to one more.
pub async fn explain(context: &Context, job: &JobName) -> Result<Exit, Failure> {
    let explanation: Explanation = context.client.get(&format!("/v1/jobs/{job}/explain")).await?;
    if context.screen.is_json() {
        context.screen.json(&explanation)?;
        return Ok(Exit::Ok);
    }
    let coordinator = explanation.coordinator.map(|node| {
        let known = explanation.nodes.iter().find(|verdict| verdict.node == node);
        known.map_or_else(|| node.short(), |verdict| verdict.name.clone())
    });
    context.screen.fields(&[(
        "coordinator",
        coordinator.unwrap_or_else(|| "none: no node is alive".into()).into(),
    )])?;
    if let Some(voters) = &explanation.voters {
        context.screen.fields(&[("voters", crate::status::of_voters(voters))])?;
    }
    let mut slots = Table::new(&["SLOT", "NODE", "PHASE", "NOW"]);
    for slot in &explanation.slots {
        let live = slot.allocs.iter().filter(|alloc| alloc.row.phase.holds_claim());
        let live = live.min_by_key(|alloc| gone(alloc).is_some());
        slots.row([
            format!("{job}/{}", slot.index).into(),
            live.map_or("-".into(), |alloc| alloc.node_name.clone().into()),
            live.map_or("-".into(), |alloc| match gone(alloc) {
                Some(word) => Cell::new(word, Tone::Bad),
                None => phase(alloc.row.phase),
            }),
            slot.doing.clone().into(),
        ]);
    }
    // They come best first; what a score is made of means something beside other scores only.
    let mut scores: Vec<i64> =
        explanation.nodes.iter().filter_map(|verdict| verdict.score).collect();
    scores.dedup();
    let rank = |score: i64| scores.iter().position(|other| *other == score);
    let mut nodes = Table::new(&["NODE", "ONE MORE", "RANK", "WHY NOT"]);
    for verdict in &explanation.nodes {
        let (answer, why) = match &verdict.rejection {
            None => (Cell::new("yes", Tone::Good), String::new()),
            Some(rejection) => (Cell::new("no", Tone::Bad), rejection.to_string()),
        };
        let rank = match verdict.score.and_then(rank) {
            None => "-".to_owned(),
            Some(0) => "best".to_owned(),
            Some(place) => (place + 1).to_string(),
        };
        nodes.row([verdict.name.clone().into(), answer, rank.into(), why.into()]);
    }
    for table in [slots, nodes] {
        context.screen.data("")?;
        context.screen.table(&table)?;
    }
    Ok(Exit::Ok)
}

/// Changes the number of slots.
pub async fn scale(
    context: &Context,
    job: &JobName,
    count: u32,
    yes: bool,
    watch: Watch,
) -> Result<Exit, Failure> {
    let view: JobView = context.client.get(&format!("/v1/jobs/{job}")).await?;
    if count < view.wanted {
        let stopped = plural((view.wanted - count) as usize, "slot");
        let question = format!("stop {stopped} of {job}, which has {}. Go on?", view.wanted);
        if !context.confirm(&question, yes).await? {
            return Err(Failure::failed("nothing was changed"));
        }
    }
    let path = format!("/v1/jobs/{job}/scale");
    let submitted: Submitted = context.client.send(Method::POST, &path, &Scale { count }).await?;
    let (exit, applied) = apply::finish(context, submitted, watch).await?;
    apply::tell(context, exit, &applied)
}

/// Restarts a job as an update would, or one slot in place.
pub async fn restart(context: &Context, what: &JobOrSlot, watch: Watch) -> Result<Exit, Failure> {
    let JobOrSlot { job, slot } = what;
    let path = format!("/v1/jobs/{job}/restart");
    match slot {
        Some(index) => {
            context.client.post(&path, &RestartBody { slot: Some(*index) }).await?;
            context.screen.say(&format!("{job}/{index} is restarted in place"));
            if context.screen.is_json() {
                context
                    .screen
                    .json(&context.client.get::<JobView>(&format!("/v1/jobs/{job}")).await?)?;
            }
            Ok(Exit::Ok)
        }
        None => {
            let body = RestartBody { slot: None };
            let submitted: Submitted = context.client.send(Method::POST, &path, &body).await?;
            let (exit, applied) = apply::finish(context, submitted, watch).await?;
            apply::tell(context, exit, &applied)
        }
    }
}

/// Stops a job and forgets it.
pub async fn stop(
    context: &Context,
    job: &JobName,
    yes: bool,
    detach: bool,
    timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    let view: JobView = context.client.get(&format!("/v1/jobs/{job}")).await?;
    let question = format!(
        "stop {job} with its {}, and forget it?",
        plural(view.running as usize, "running slot")
    );
    if !context.confirm(&question, yes).await? {
        return Err(Failure::failed("nothing was changed"));
    }
    context.client.delete(&format!("/v1/jobs/{job}")).await?;
    context.screen.say(&format!("{job} is being stopped"));
    let exit = if detach { Exit::Ok } else { watch::until_gone(context, job, timeout).await? };
    // What it was: there is nothing else to show of it any more.
    if context.screen.is_json() {
        context.screen.json(&view)?;
    }
    Ok(exit)
}

/// Waits until a job is healthy, or gone.
pub async fn wait(
    context: &Context,
    job: &JobName,
    gone: bool,
    timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    if gone {
        return watch::until_gone(context, job, timeout).await;
    }
    let goal = Goal { version: 0, settle: None, steady: false, timeout };
    let outcome = watch::until_healthy(context, job, goal).await?;
    if let (true, Some(job)) = (context.screen.is_json(), &outcome.job) {
        context.screen.json(job)?;
    }
    Ok(outcome.exit)
}
