//! `weft rollback`: a former version's spec is submitted again, as a new version. Nothing is special about it then: it is
//! compared with what runs, planned, rolled out, and taken back if it fails, as every other version is.

use fabric::api::JobVersion;
use fabric::id::JobName;

use crate::Context;
use crate::apply::{self, Values};
use crate::arguments::Watch;
use crate::exit::{Exit, Failure};

/// Where to go back to, and how.
pub struct Wanted {
    pub job: JobName,
    /// `None`: the last version that was healthy on all slots before the one in force.
    pub to: Option<u64>,
    pub yes: bool,
    pub values: Values,
    pub watch: Watch,
}

/// Brings a job back to what it was.
pub async fn rollback(context: &Context, wanted: Wanted) -> Result<Exit, Failure> {
    let Wanted { job, to, yes, values, watch } = wanted;
    let versions: Vec<JobVersion> = context.client.get(&format!("/v1/jobs/{job}/versions")).await?;
    let target = choose(&job, &versions, to)?;
    let newest = versions.iter().map(|version| version.version).max().unwrap_or(0);
    let plan = apply::ask(context, &target.spec, values).await?;
    if plan.version != newest {
        return Err(Failure::failed(format!(
            "{job} has changed in the meantime: it is at version {} now, and nothing was changed by this. `weft rollback {job}` \
             looks at it again",
            plan.version
        )));
    }
    context.screen.say(&format!(
        "{job} goes back to what version {} said, as version {}",
        target.version,
        newest + 1
    ));
    let (exit, applied) =
        apply::carry_out(context, &target.spec, &plan, yes, values, watch).await?;
    apply::tell(context, exit, &applied)
}

/// The version to go back to.
fn choose<'v>(
    job: &JobName,
    versions: &'v [JobVersion],
    to: Option<u64>,
) -> Result<&'v JobVersion, Failure> {
    let Some(in_force) = versions.iter().find(|version| version.in_force) else {
        return Err(Failure::failed(format!("{job}: no version is in force")));
    };
    let now = in_force.version;
    let others = || versions.iter().filter(|version| !version.in_force);
    let known = match &others().map(|version| version.version.to_string()).collect::<Vec<_>>()[..] {
        [] => "no other is known".to_owned(),
        known => format!("besides it, version {} is known", known.join(" and ")),
    };
    let target = match to {
        Some(to) if to == now => {
            return Err(Failure::failed(format!("{job}: version {to} is in force already; {known}")));
        }
        Some(to) => others().find(|version| version.version == to).ok_or_else(|| {
            Failure::not_found(format!(
                "{job}: version {to} is not known any more, or never was: version {now} is in force, and {known}. To run \
                 another one, apply its job file"
            ))
        })?,
        None => {
            let before = others().filter(|version| version.version < now);
            before.max_by_key(|version| version.version).ok_or_else(|| {
                let known = match others().next() {
                    Some(failed) => format!(
                        "version {} failed and was taken back already, and none before version {now} is known",
                        failed.version
                    ),
                    None => "no version before it was ever healthy on all slots".to_owned(),
                };
                Failure::failed(format!(
                    "{job} has nothing to go back to: version {now} is in force, and {known}. Apply the job file that you want"
                ))
            })?
        }
    };
    if target.spec == in_force.spec {
        return Err(Failure::failed(format!(
            "{job}: version {} says the same as version {now}, which is in force: nothing to go back to. Apply the job file \
             that you want",
            target.version
        )));
    }
    Ok(target)
}

#[cfg(test)]
mod tests;
