//! `weft plan`, `weft apply` and `weft run`: from a spec to a job that runs.

use fabric::api::{JobView, Plan, SlotAction, SpecChange, Submitted};
use fabric::job::JobSpec;
use hyper::Method;
use serde::Serialize;
use std::collections::BTreeMap;

use crate::Context;
use crate::arguments::Watch;
use crate::exit::{Exit, Failure};
use crate::screen::{Cell, Table, Tone};
use crate::watch::{self, Goal};

/// Slots that a plan lists one by one; the rest is counted.
const SLOTS_SHOWN_MAX: usize = 24;
/// Characters of a value that a plan shows.
const VALUE_CHARS_MAX: usize = 72;

/// Stands for a value that is not shown.
const NOT_SHOWN: &str = "(not shown)";
/// Goes with every plan of a job that brings values along.
const KEPT_BY_ALL: &str = "every node of this fabric keeps the values of env and the contents of files, and whoever may use \
                           weft on any of them can read them: no place for secrets that must stay on one node";

/// Whether a plan shows what may be secret: values of environment variables and contents of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    Shown,
    Hidden,
}

impl Values {
    pub fn shown_if(wanted: bool) -> Self {
        if wanted { Self::Shown } else { Self::Hidden }
    }

    /// The change without what is hidden.
    fn of(self, change: SpecChange) -> SpecChange {
        let SpecChange { path, before, after } = change;
        let is_variable = path.starts_with("task.env.")
            || path.strip_prefix("task.arch.").is_some_and(|rest| rest.contains(".env."));
        let is_file = path.starts_with("task.") && path.ends_with("].content");
        let hide = |value: String| match serde_json::from_str::<String>(&value) {
            Ok(content) if is_file => format!("({} bytes, not shown)", content.len()),
            _ => NOT_SHOWN.to_owned(),
        };
        match self == Self::Hidden && (is_variable || is_file) {
            true => SpecChange { path, before: before.map(hide), after: after.map(hide) },
            false => SpecChange { path, before, after },
        }
    }
}

/// What `apply`, `run`, `scale` and `restart` answer to programs: `apply` of several jobs with a list of them.
#[derive(Serialize)]
pub struct Applied {
    submitted: Submitted,
    /// As it was seen last; `null` with `--detach`.
    job: Option<JobView>,
}

/// Shows what an apply would do.
///
/// With `tell` the exit code says whether it would do anything.
pub async fn plan(
    context: &Context,
    spec: &JobSpec,
    values: Values,
    tell: bool,
) -> Result<Exit, Failure> {
    let plan = ask(context, spec, values).await?;
    if context.screen.is_json() {
        context.screen.json(&plan)?;
    } else {
        for part in render(&plan, spec, values) {
            context.screen.table(&part)?;
        }
    }
    let differs = plan.version == 0 || !plan.changes.is_empty();
    Ok(match plan.unplaceable.is_empty() {
        false => Exit::Unplaceable,
        true if tell && differs => Exit::Changes,
        true => Exit::Ok,
    })
}

/// Brings jobs to what their files say, one after the other. The first that fails is the last.
pub async fn apply_all(
    context: &Context,
    specs: &[JobSpec],
    yes: bool,
    values: Values,
    watch: Watch,
) -> Result<Exit, Failure> {
    if let [spec] = specs {
        let (exit, applied) = apply(context, spec, yes, values, watch).await?;
        return tell(context, exit, &applied);
    }
    let (mut done, mut last) = (Vec::new(), Ok(Exit::Ok));
    for (index, spec) in specs.iter().enumerate() {
        last = apply(context, spec, yes, values, watch).await.map(|(exit, applied)| {
            done.push(applied);
            exit
        });
        if !matches!(last, Ok(Exit::Ok)) {
            let left: Vec<_> = specs[index + 1..].iter().map(|spec| spec.name.as_str()).collect();
            if !left.is_empty() {
                context.screen.say(&format!("not applied after that: {}", left.join(", ")));
            }
            break;
        }
    }
    // Also of those before the one that failed.
    tell(context, Exit::Ok, &done)?;
    last
}

/// Brings a job to what its file says.
async fn apply(
    context: &Context,
    spec: &JobSpec,
    yes: bool,
    values: Values,
    watch: Watch,
) -> Result<(Exit, Applied), Failure> {
    let plan = ask(context, spec, values).await?;
    carry_out(context, spec, &plan, yes, values, watch).await
}

/// Tells programs what was done.
pub fn tell(context: &Context, exit: Exit, done: &impl Serialize) -> Result<Exit, Failure> {
    if context.screen.is_json() {
        context.screen.json(done)?;
    }
    Ok(exit)
}

/// Shows what is planned, asks where something is stopped for it, and submits, provided that nobody has changed the job since.
pub async fn carry_out(
    context: &Context,
    spec: &JobSpec,
    plan: &Plan,
    yes: bool,
    values: Values,
    watch: Watch,
) -> Result<(Exit, Applied), Failure> {
    for part in render(plan, spec, values) {
        context.screen.say_table(&part);
    }
    let counts = count(plan);
    let displaced: usize = plan.slots.iter().map(|slot| slot.displaces.len()).sum();
    let mut touched: Vec<_> = [(SlotAction::Replace, "replaced"), (SlotAction::Stop, "stopped")]
        .into_iter()
        .filter_map(|(action, word)| Some(format!("{} {word}", counts.get(word_of(action))?)))
        .collect();
    if displaced > 0 {
        touched.push(format!("{displaced} less important ones of other jobs displaced"));
    }
    if !touched.is_empty() {
        let question = format!("slots of {}: {}. Go on?", spec.name, touched.join(", "));
        if !context.confirm(&question, yes).await? {
            return Err(Failure::failed("nothing was changed"));
        }
    }
    submit(context, spec, plan.version, watch).await
}

/// Runs a new job.
pub async fn run(context: &Context, spec: &JobSpec, watch: Watch) -> Result<Exit, Failure> {
    let plan = ask(context, spec, Values::Hidden).await?;
    if plan.version > 0 {
        return Err(Failure::failed(format!(
            "there is a job {0} already: choose another --name, or weft stop {0}",
            spec.name
        )));
    }
    let (exit, applied) = submit(context, spec, 0, watch).await?;
    tell(context, exit, &applied)
}

/// What a submit of `spec` would do.
pub async fn ask(context: &Context, spec: &JobSpec, values: Values) -> Result<Plan, Failure> {
    let mut plan: Plan = context.client.send(Method::POST, "/v1/plan", spec).await?;
    plan.changes = plan.changes.into_iter().map(|change| values.of(change)).collect();
    Ok(plan)
}

async fn submit(
    context: &Context,
    spec: &JobSpec,
    expected_version: u64,
    watch: Watch,
) -> Result<(Exit, Applied), Failure> {
    let path = format!("/v1/jobs/{}?expected_version={expected_version}", spec.name);
    let submitted: Submitted = context.client.send(Method::PUT, &path, spec).await?;
    finish(context, submitted, watch).await
}

/// Says where the spec is, then waits for it to come true.
pub async fn finish(
    context: &Context,
    submitted: Submitted,
    watch: Watch,
) -> Result<(Exit, Applied), Failure> {
    let Submitted { job, version, changed, held_by, members } = &submitted;
    context.screen.say(&if *changed {
        format!("{job} version {version} is on the disk of {held_by} of {members} nodes")
    } else {
        format!("{job} version {version} says the same already")
    });
    let (exit, job) = if watch.detach {
        (Exit::Ok, None)
    } else {
        let goal = Goal {
            version: *version,
            settle: Some(watch.settle),
            steady: *changed,
            timeout: watch.timeout,
        };
        let outcome = watch::until_healthy(context, job, goal).await?;
        (outcome.exit, outcome.job)
    };
    Ok((exit, Applied { submitted, job }))
}

fn word_of(action: SlotAction) -> &'static str {
    match action {
        SlotAction::Keep => "keep",
        SlotAction::Start => "start",
        SlotAction::Replace => "replace",
        SlotAction::Stop => "stop",
    }
}

fn count(plan: &Plan) -> BTreeMap<&'static str, usize> {
    plan.slots.iter().fold(BTreeMap::new(), |mut counts, slot| {
        *counts.entry(word_of(slot.action)).or_default() += 1;
        counts
    })
}

/// A plan in words: what changes in the spec, what happens to the slots, why some have no place.
fn render(plan: &Plan, spec: &JobSpec, values: Values) -> Vec<Table> {
    let mut head = Table::new(&[]);
    let mut changes = Table::new(&[]);
    if plan.version == 0 {
        head.row([format!("{} is new", plan.job).into()]);
        // Against an empty job of the same command: the defaults are no news.
        let empty = JobSpec::service(spec.name.clone(), Vec::new());
        let said = JobSpec::changes(Some(&empty), spec).into_iter();
        for change in said.filter(|change| change.after.is_some()) {
            change_row(&mut changes, &values.of(SpecChange { before: None, ..change }));
        }
    } else if plan.changes.is_empty() {
        head.row([
            format!("{} version {}: the spec does not change", plan.job, plan.version).into()
        ]);
    } else {
        head.row([format!("{} version {} changes", plan.job, plan.version).into()]);
        plan.changes.iter().for_each(|change| change_row(&mut changes, change));
    }
    let counts: Vec<_> =
        count(plan).iter().map(|(word, count)| format!("{word} {count}")).collect();
    let mut summary = Table::new(&[]);
    summary.row([format!(
        "slots: {}",
        if counts.is_empty() { "none".into() } else { counts.join(", ") }
    )
    .into()]);
    let mut slots = Table::new(&[]);
    let moving = || plan.slots.iter().filter(|slot| slot.action != SlotAction::Keep);
    for slot in moving().take(SLOTS_SHOWN_MAX) {
        let tone = match slot.action {
            SlotAction::Keep => Tone::Faint,
            SlotAction::Start => Tone::Good,
            SlotAction::Replace => Tone::Busy,
            SlotAction::Stop => Tone::Bad,
        };
        let place = match (&slot.node, slot.action) {
            (Some(node), _) if !slot.displaces.is_empty() => {
                let slots = slot.displaces.iter().map(|alloc| alloc.slot.to_string());
                let slots = slots.collect::<Vec<_>>().join(", ");
                Cell::new(format!("on {node}, displacing {slots}"), Tone::Bad)
            }
            (Some(node), _) => format!("on {node}").into(),
            (None, SlotAction::Stop) => Cell::default(),
            (None, _) => Cell::new("nowhere: no node can take it", Tone::Bad),
        };
        slots.row([
            format!("  {}/{}", plan.job, slot.index).into(),
            Cell::new(word_of(slot.action), tone),
            place,
        ]);
    }
    let more = moving().count().saturating_sub(SLOTS_SHOWN_MAX);
    if more > 0 {
        slots.row([format!("  and {more} more").into()]);
    }
    let mut unplaceable = Table::new(&[]);
    for verdict in &plan.unplaceable {
        if let Some(rejection) = &verdict.rejection {
            unplaceable.row([
                format!("  not on {}:", verdict.name).into(),
                Cell::new(rejection.to_string(), Tone::Bad),
            ]);
        }
    }
    let mut warnings = Table::new(&[]);
    let kept = brings_values(spec).then(|| KEPT_BY_ALL.to_owned());
    for warning in plan.warnings.iter().cloned().chain(kept) {
        warnings.row([Cell::new("  note:", Tone::Busy), warning.into()]);
    }
    vec![head, changes, summary, slots, unplaceable, warnings]
}

fn brings_values(spec: &JobSpec) -> bool {
    let task = &spec.task;
    let variants = task.arch.values().any(|it| !it.env.is_empty() || !it.files.is_empty());
    !task.env.is_empty() || !task.files.is_empty() || variants
}

fn change_row(table: &mut Table, change: &SpecChange) {
    let shorten = |value: &String| {
        let mut shown: String = value.chars().take(VALUE_CHARS_MAX).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        shown
    };
    let (sign, tone, value) = match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            ("  ~", Tone::Busy, format!("{} -> {}", shorten(before), shorten(after)))
        }
        (Some(before), None) => ("  -", Tone::Bad, shorten(before)),
        (None, after) => ("  +", Tone::Good, after.as_ref().map(shorten).unwrap_or_default()),
    };
    table.row([Cell::new(sign, tone), change.path.clone().into(), value.into()]);
}
