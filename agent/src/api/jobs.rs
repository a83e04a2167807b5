//! Jobs and their allocations.

use fabric::api::{Problem, ProblemKind, RestartBody, Scale};
use fabric::id::JobName;
use fabric::io::Request;
use fabric::job::JobSpec;
use fabric::limits;
use serde_json::Value;

use super::doc::{flag, number, says, text};
use super::given::{Given, invalid, job_name, json};
use super::{Operation, Reply, Role, Route, delete, get, post, put, read, wish};

pub const ROUTES: &[Route] = &[
    get("/v1/jobs", Role::Look, jobs).doc(says("Every job.").lists("JobView")),
    get("/v1/jobs/{name}", Role::Look, job).doc(says("One job.").gives("JobView")),
    put("/v1/jobs/{name}", Role::Operate, submit)
        .query(&[number(
            "expected_version",
            "Refuse unless the job is at this version; 0: does not exist.",
        )])
        .doc(says("Run a job, or a new version of it.").takes("JobSpec").gives("Submitted")),
    delete("/v1/jobs/{name}", Role::Operate, stop)
        .doc(says("Stop a job and forget it.").gives("Submitted")),
    post("/v1/plan", Role::Look, plan)
        .doc(says("What a submit would do. Changes nothing.").takes("JobSpec").gives("Plan")),
    post("/v1/jobs/{name}/scale", Role::Operate, scale)
        .doc(says("Change the number of slots.").takes("Scale").gives("Submitted")),
    post("/v1/jobs/{name}/restart", Role::Operate, restart).doc(
        says("Restart one slot in place (204), or replace all as an update would (200).")
            .may_take("RestartBody")
            .gives("Submitted"),
    ),
    get("/v1/jobs/{name}/explain", Role::Look, explain)
        .doc(says("Why each slot is where it is, or nowhere.").gives("Explanation")),
    get("/v1/jobs/{name}/versions", Role::Look, versions).doc(
        says(
            "The versions of a job whose specs are known, the newest first: the last one, and the last one before it that was \
             healthy on all slots. To go back to it, submit its spec.",
        )
        .lists("JobVersion"),
    ),
    get("/v1/allocs", Role::Look, allocs)
        .query(&[text("job", "Only of this job."), flag("all", "Ended ones too.")])
        .doc(says("Allocations.").lists("AllocView")),
];

fn jobs(_: &Given<'_>) -> Result<Operation, Problem> {
    read(|node, _| Reply::json(&node.jobs()))
}

fn job(given: &Given<'_>) -> Result<Operation, Problem> {
    let job = given.job()?;
    read(move |node, _| match node.job(&job) {
        Ok(view) => Reply::json(&view),
        Err(_) => Err(no_such_job(&job, node.job_names())),
    })
}

fn submit(given: &Given<'_>) -> Result<Operation, Problem> {
    let spec = spec(given.body())?;
    let job = given.job()?;
    if spec.name != job {
        return Err(invalid(
            "two names",
            format!("the path says {job}, the spec says {}: make them equal", spec.name),
        ));
    }
    let expected_version = given.number("expected_version", u64::MAX)?;
    wish(move |_, by| Ok(Request::Submit { spec, by: by.to_owned(), expected_version }))
}

fn stop(given: &Given<'_>) -> Result<Operation, Problem> {
    let job = given.job()?;
    wish(move |_, _| Ok(Request::Stop { job }))
}

fn plan(given: &Given<'_>) -> Result<Operation, Problem> {
    let spec = spec(given.body())?;
    read(move |node, now| Reply::json(&node.plan(now, &spec)?))
}

fn scale(given: &Given<'_>) -> Result<Operation, Problem> {
    let job = given.job()?;
    let Scale { count, .. } = given.json()?;
    if count > limits::COUNT_MAX {
        return Err(invalid(
            "too many slots",
            format!("{count} are more than the {} allowed", limits::COUNT_MAX),
        ));
    }
    wish(move |_, by| Ok(Request::Scale { job, count, by: by.to_owned() }))
}

fn restart(given: &Given<'_>) -> Result<Operation, Problem> {
    let job = given.job()?;
    let RestartBody { slot } = given.json_or_default()?;
    wish(move |_, by| {
        Ok(match slot {
            None => Request::RestartJob { job, by: by.to_owned() },
            Some(index) => Request::RestartSlot { job, index },
        })
    })
}

fn explain(given: &Given<'_>) -> Result<Operation, Problem> {
    let job = given.job()?;
    read(move |node, now| Reply::json(&node.explain(now, &job)?))
}

fn versions(given: &Given<'_>) -> Result<Operation, Problem> {
    let job = given.job()?;
    read(move |node, _| match node.versions(&job) {
        Ok(versions) => Reply::json(&versions),
        Err(_) => Err(no_such_job(&job, node.job_names())),
    })
}

fn allocs(given: &Given<'_>) -> Result<Operation, Problem> {
    let (job, all) = which_allocs(given)?;
    read(move |node, _| Reply::json(&node.allocs(job.as_ref(), all)))
}

/// Of which job, if of one only, and whether ended ones too.
pub(super) fn which_allocs(given: &Given<'_>) -> Result<(Option<JobName>, bool), Problem> {
    Ok((given.text("job").map(job_name).transpose()?, given.flag("all")?))
}

/// Says which job may have been meant.
pub fn no_such_job<'a>(name: &JobName, jobs: impl Iterator<Item = &'a str>) -> Problem {
    let detail = match fabric::job::nearest(name.as_str(), jobs) {
        Some(near) => format!("did you mean {near}? `weft jobs` shows those that there are"),
        None => "`weft jobs` shows those that there are".into(),
    };
    Problem::new(ProblemKind::NotFound, format!("there is no job {name}"), detail)
}

/// Reads a job that makes sense.
fn spec(body: &[u8]) -> Result<Box<JobSpec>, Problem> {
    let spec: Box<JobSpec> = json(body)?;
    let (given, taken) = (json(body)?, serde_json::to_value(&spec).unwrap_or_default());
    if let Some(unknown) = unknown_field(&given, &taken) {
        let detail = format!("unknown field `{unknown}`: see /v1/openapi.json for what a job has");
        return Err(invalid("the job makes no sense", detail));
    }
    spec.validate().map_err(|error| invalid("the job makes no sense", error.to_string()))?;
    Ok(spec)
}

/// A field of what was given that is nothing that was taken, with its path: a slip of the pen is no wish for what is usual.
fn unknown_field(given: &Value, taken: &Value) -> Option<String> {
    match (given, taken) {
        (Value::Object(given), Value::Object(taken)) => given.iter().find_map(|(name, inner)| {
            let Some(known) = taken.get(name) else { return Some(name.clone()) };
            Some(format!("{name}.{}", unknown_field(inner, known)?))
        }),
        (Value::Array(given), Value::Array(taken)) => {
            let mut pairs = given.iter().zip(taken).enumerate();
            pairs
                .find_map(|(at, (one, other))| Some(format!("{at}.{}", unknown_field(one, other)?)))
        }
        // Short forms: a text for what is kept as a text, a number, or nothing.
        _ => None,
    }
}
