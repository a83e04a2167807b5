//! `weft why-slow`: what a job loses time to, and who takes it.
//!
//! Data goes one way: [`questions`] in PromQL, the answers as [`Facts`], from these
//! [`Finding`]s by a pure function, and those on the screen.

mod facts;
mod questions;
mod reasons;

use fabric::api::{AllocView, JobView};
use fabric::id::JobName;
use std::time::Duration;

use crate::Context;
use crate::chart::{percent, seconds};
use crate::exit::{Exit, Failure};
use crate::prometheus::warn;
use crate::screen::{Cell, Table, Tone};
use facts::Facts;
use reasons::{Finding, Reason, find};

/// Asks about a job, and says what was found.
pub async fn why_slow(context: &Context, job: &JobName, range: Duration) -> Result<Exit, Failure> {
    let screen = &context.screen;
    if range.is_zero() {
        return Err(Failure::usage("--range must be longer than nothing: 1m"));
    }
    let _: JobView = context.client.get(&format!("/v1/jobs/{job}")).await?;
    let allocs: Vec<AllocView> = context.client.get("/v1/allocs").await?;
    let mut facts = Facts::of_allocs(job.as_str(), &allocs);
    if facts.slots.is_empty() {
        return Err(Failure::failed(format!("nothing of {job} runs: weft explain {job} says why")));
    }
    questions::ask(&context.client, screen, range, &mut facts).await?;
    let findings = find(&facts);
    if screen.is_json() {
        screen.json(&serde_json::json!({ "slots": findings, "warnings": facts.warnings }))?;
        return Ok(Exit::Ok);
    }
    for (place, finding) in findings.iter().enumerate() {
        if place > 0 {
            screen.data("")?;
        }
        show(context, finding)?;
    }
    warn(screen, &mut facts.warnings);
    Ok(Exit::Ok)
}

fn show(context: &Context, finding: &Finding) -> Result<(), Failure> {
    let screen = &context.screen;
    let Finding { slot, node, .. } = finding;
    let verdict = match finding.lost {
        _ if !finding.busy => format!("{slot} on {node} had nothing to do"),
        lost => format!(
            "{slot} on {node} lost {} of the time that it had something to do",
            percent(lost)
        ),
    };
    screen.data(&crate::screen::printable(&verdict))?;
    let mut table = Table::new(&[]);
    for reason in &finding.reasons {
        let tone = if reason.grown { Tone::Bad } else { Tone::Busy };
        let estimated = if reason.estimated { "about " } else { "" };
        table.row([
            "".into(),
            Cell::new(format!("{estimated}{}", percent(reason.share)), tone),
            reason.cause.words().into(),
            compared(reason).into(),
        ]);
        for line in [&reason.who, &reason.detail, &reason.advice].into_iter().flatten() {
            table.row(["".into(), "".into(), "".into(), line.clone().into()]);
        }
    }
    screen.table(&table)?;
    let list = |what: &str, causes: &[reasons::Cause]| {
        let words: Vec<&str> = causes.iter().map(|cause| cause.words()).collect();
        if words.is_empty() {
            return Ok(());
        }
        screen.data(&format!("  {what}: {}", words.join(", ")))
    };
    list("not it", &finding.innocent)?;
    list("not measured there (weft doctor says why)", &finding.unmeasured)?;
    if let Some(round_trip) = &finding.round_trip {
        let before = round_trip
            .before
            .map_or("nothing before".into(), |before| format!("{} before", seconds(before)));
        screen.data(&format!("  round trips take {}, {before}", seconds(round_trip.now)))?;
    }
    Ok(())
}

/// `4.1 % before; others on the node: 12 %`
fn compared(reason: &Reason) -> String {
    let before = reason
        .before
        .map_or("nothing known of before".into(), |before| format!("{} before", percent(before)));
    match reason.others {
        Some(others) => format!("{before}; others there: {}", percent(others)),
        None => before,
    }
}
