//! `weft trace` and `weft profile`: a close look at a job, on every node that runs it.

use fabric::api::{AllocView, JobView, TraceBody, TraceEvent, TraceWhat, Traced, TracedCall};
use fabric::job::duration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

use crate::Context;
use crate::arguments::{JobOrSlot, Profile, Trace, TraceKind};
use crate::chart::seconds;
use crate::client::{Client, Stream};
use crate::exit::{Exit, Failure};
use crate::nodes;
use crate::screen::{Screen, Table, Tone, printable};
use crate::streams::Lines;
use crate::watch::{Ended, bounded};

/// Nodes that are looked at together.
const NODES_MAX: usize = 16;
/// Bytes of one event of the stream: 20,000 stacks of a kilobyte.
const EVENT_BYTES_MAX: usize = 32 << 20;
/// System calls that are shown; `-o json` has all.
const CALLS_SHOWN: usize = 30;
const NANOSECONDS: f64 = 1e-9;

/// What comes from the nodes, with the node's name.
type Seen = (String, Result<TraceEvent, Failure>);

/// Traces, and shows what was seen: single events as they come, system calls in the end.
pub async fn trace(context: &Context, wanted: Trace) -> Result<Exit, Failure> {
    let Trace { kind, what, time, node } = wanted;
    let look = match kind {
        TraceKind::Syscalls => TraceWhat::Syscalls,
        TraceKind::Exec => TraceWhat::Exec,
        TraceKind::Files => TraceWhat::Files,
        TraceKind::Net => TraceWhat::Net,
    };
    let screen = &context.screen;
    let bodies = bodies(context, look, &what, time, node).await?;
    let mut calls: BTreeMap<String, TracedCall> = BTreeMap::new();
    let exit = follow(context, bodies, |event| {
        match event {
            TraceEvent::Events { events } => {
                for event in events {
                    if screen.is_json() {
                        screen.json_line(event)?;
                    } else {
                        screen.data(&printable(&event_line(look, event)))?;
                    }
                }
            }
            TraceEvent::Calls { calls: seen } => seen.iter().for_each(|call| add(&mut calls, call)),
            _ => {}
        }
        Ok(())
    })
    .await?;
    if look != TraceWhat::Syscalls {
        return Ok(exit);
    }
    let mut calls: Vec<TracedCall> = calls.into_values().collect();
    calls.sort_by_key(|call| std::cmp::Reverse(call.total_ns));
    if screen.is_json() {
        screen.json(&calls)?;
        return Ok(exit);
    }
    if calls.is_empty() {
        screen.say("it made no system call in this time");
        return Ok(exit);
    }
    screen.table(&call_table(&calls))?;
    if calls.len() > CALLS_SHOWN {
        screen.say(&format!("and {} more: -o json has all", calls.len() - CALLS_SHOWN));
    }
    Ok(exit)
}

/// Profiles, and draws a flame graph.
pub async fn profile(context: &Context, wanted: Profile) -> Result<Exit, Failure> {
    let Profile { what, time, off_cpu, folded, node } = wanted;
    let look = if off_cpu { TraceWhat::OffCpu } else { TraceWhat::Profile };
    let screen = &context.screen;
    let bodies = bodies(context, look, &what, time, node).await?;
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    let mut counted = String::new();
    let exit = follow(context, bodies, |event| {
        if let TraceEvent::Stacks { unit, folded } = event {
            counted.clone_from(unit);
            for (stack, count) in folded {
                let all = stacks.entry(stack.clone()).or_default();
                *all = all.saturating_add(*count);
            }
        }
        Ok(())
    })
    .await?;
    if screen.is_json() {
        screen.json(&serde_json::json!({ "unit": counted, "folded": stacks }))?;
        return Ok(exit);
    }
    let lines: Vec<String> =
        stacks.iter().map(|(stack, count)| format!("{stack} {count}")).collect();
    if lines.is_empty() {
        let nothing = if off_cpu { "nothing of it slept" } else { "nothing of it ran" };
        return Err(Failure::failed(format!("{nothing} in this time: try a longer --for")));
    }
    if folded {
        return lines.iter().try_for_each(|line| screen.data(line)).map(|()| exit);
    }
    let title = if off_cpu { "where it sleeps" } else { "where it runs" };
    let title = format!("{}: {title}, {}", name_of(&what), duration::display(time));
    screen.bytes(&flame_graph(&lines, &title, &counted)?)?;
    Ok(exit)
}

fn flame_graph(lines: &[String], title: &str, unit: &str) -> Result<Vec<u8>, Failure> {
    let mut options = inferno::flamegraph::Options::default();
    title.clone_into(&mut options.title);
    unit.clone_into(&mut options.count_name);
    let mut svg = Vec::new();
    let drawn =
        inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg);
    drawn.map_err(|error| Failure::failed(format!("cannot draw it: {error}; try --folded")))?;
    Ok(svg)
}

fn name_of(what: &JobOrSlot) -> String {
    match what.slot {
        Some(slot) => format!("{}/{slot}", what.job),
        None => what.job.to_string(),
    }
}

/// One request for each node that runs it, with the node's name.
async fn bodies(
    context: &Context,
    look: TraceWhat,
    what: &JobOrSlot,
    time: Duration,
    node: Option<String>,
) -> Result<Vec<(String, TraceBody)>, Failure> {
    let node = match node {
        Some(name) => Some(nodes::find(context, &name).await?.id),
        None => None,
    };
    let JobOrSlot { job, slot } = what;
    let _: JobView = context.client.get(&format!("/v1/jobs/{job}")).await?;
    let allocs: Vec<AllocView> = context.client.get(&format!("/v1/allocs?job={job}")).await?;
    let on: BTreeSet<_> = allocs
        .iter()
        .filter(|alloc| slot.is_none_or(|slot| slot == alloc.id.slot.index))
        .filter(|alloc| node.is_none_or(|node| node == alloc.node))
        .map(|alloc| (alloc.node_name.clone(), alloc.node))
        .collect();
    if on.is_empty() {
        let name = name_of(what);
        return Err(Failure::not_found(format!("nothing of {name} runs there: weft ps {job}")));
    }
    if on.len() > NODES_MAX {
        return Err(Failure::usage(format!(
            "{job} runs on more than {NODES_MAX} nodes: choose one with --node, or a slot"
        )));
    }
    let body = |(name, node): (String, fabric::id::NodeId)| {
        let (job, node, time) = (job.clone(), Some(node.to_string()), duration::display(time));
        (name, TraceBody { what: look, job, slot: *slot, node, time })
    };
    Ok(on.into_iter().map(body).collect())
}

/// Reads all streams to their ends. What one node cannot do does not keep the others from it, and makes the exit degraded.
async fn follow(
    context: &Context,
    bodies: Vec<(String, TraceBody)>,
    mut see: impl FnMut(&TraceEvent) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let screen = &context.screen;
    let (sender, mut seen) = mpsc::channel(4);
    for (node, body) in bodies {
        tokio::spawn(pump(context.client.clone(), node, body, sender.clone()));
    }
    drop(sender);
    let (mut ended, mut failed) = (0, None);
    let work = async {
        while let Some((node, event)) = seen.recv().await {
            match event {
                Ok(event) => {
                    say(screen, &node, &event);
                    ended += u32::from(matches!(event, TraceEvent::Ended { .. }));
                    see(&event)?;
                }
                // Whoever looks for minutes is not to learn in the end what was known at once.
                Err(failure) => {
                    screen.clear_line();
                    for message in failure.messages() {
                        screen.complain(&printable(&format!("error: {node}: {message}")));
                    }
                    failed.get_or_insert(failure.exit());
                }
            }
        }
        Ok(())
    };
    let outcome: Ended<Result<(), Failure>> = bounded(work, None).await;
    screen.clear_line();
    match outcome {
        Ended::Itself(result) => result?,
        // The agents notice that nobody reads any more.
        Ended::TimedOut | Ended::Interrupted => {
            return Err(Failure::Said(Exit::Interrupted, "stopped before its time".into()));
        }
    }
    match failed {
        None => Ok(Exit::Ok),
        // All has been said.
        Some(exit) if ended == 0 => Err(Failure::Listed(exit, Vec::new())),
        Some(_) => {
            screen.say("not all nodes could be looked at");
            Ok(Exit::Degraded)
        }
    }
}

fn say(screen: &Screen, node: &str, event: &TraceEvent) {
    match event {
        TraceEvent::Started { slots, seconds, .. } => {
            let slots = slots.join(", ");
            screen.say(&printable(&format!("looking at {slots} on {node} for {seconds} s")));
        }
        TraceEvent::Progress { seconds_left } => {
            screen.replace_line(&format!("{seconds_left:.0} s left"));
        }
        TraceEvent::Ended { lost } if *lost > 0 => {
            screen.clear_line();
            let said = format!("{node}: there was no room for {lost} more");
            screen.say_toned(Tone::Busy, &printable(&said));
        }
        _ => screen.clear_line(),
    }
}

async fn pump(client: Client, node: String, body: TraceBody, seen: mpsc::Sender<Seen>) {
    let outcome = match client.post_stream("/v1/traces", &body).await {
        Ok(mut stream) => read(&mut stream, &node, &seen).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = outcome {
        let _ = seen.send((node, Err(failure))).await;
    }
}

async fn read(stream: &mut Stream, node: &str, seen: &mpsc::Sender<Seen>) -> Result<(), Failure> {
    let mut lines = Lines::new(EVENT_BYTES_MAX);
    let mut ended = false;
    while let Some(bytes) = stream.next().await? {
        for line in lines.push(&bytes) {
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let event: TraceEvent = serde_json::from_slice(data).map_err(|error| {
                Failure::failed(format!(
                    "an event makes no sense ({error}): weft and weftd must have the same version"
                ))
            })?;
            if let TraceEvent::Failed { problem } = event {
                return Err(problem.into());
            }
            ended |= matches!(event, TraceEvent::Ended { .. });
            if seen.send((node.to_owned(), Ok(event))).await.is_err() {
                return Ok(());
            }
        }
    }
    if ended {
        return Ok(());
    }
    Err(Failure::Said(
        Exit::Unreachable,
        "the connection broke off before the trace had ended".into(),
    ))
}

/// The same call of several nodes: counts add up, and a quantile is the worst of theirs.
fn add(calls: &mut BTreeMap<String, TracedCall>, call: &TracedCall) {
    match calls.get_mut(&call.call) {
        None => drop(calls.insert(call.call.clone(), call.clone())),
        Some(all) => {
            all.calls = all.calls.saturating_add(call.calls);
            all.errors = all.errors.saturating_add(call.errors);
            all.total_ns = all.total_ns.saturating_add(call.total_ns);
            all.p50_ns = all.p50_ns.max(call.p50_ns);
            all.p99_ns = all.p99_ns.max(call.p99_ns);
            all.max_ns = all.max_ns.max(call.max_ns);
        }
    }
}

fn call_table(calls: &[TracedCall]) -> Table {
    let time = |nanoseconds: u64| seconds(nanoseconds as f64 * NANOSECONDS);
    let mut table = Table::new(&["CALL", "TIMES", "FAILED", "TIME", "P50", "P99", "MAX"]);
    for call in calls.iter().take(CALLS_SHOWN) {
        table.row([
            call.call.clone().into(),
            call.calls.to_string().into(),
            call.errors.to_string().into(),
            time(call.total_ns).into(),
            time(call.p50_ns).into(),
            time(call.p99_ns).into(),
            time(call.max_ns).into(),
        ]);
    }
    table
}

/// `web/0  nginx[812]  /etc/passwd  fd 3`
fn event_line(look: TraceWhat, event: &Traced) -> String {
    let Traced { slot, name, process, path, result, .. } = event;
    let result = match (look, result) {
        (TraceWhat::Exec, _) => format!("by {}", event.parent),
        (_, result) if *result < 0 => {
            std::io::Error::from_raw_os_error(-*result as i32).to_string()
        }
        (TraceWhat::Net, took) => format!("after {}", seconds(*took as f64 * NANOSECONDS)),
        (_, descriptor) => format!("as {descriptor}"),
    };
    format!("{slot}  {name}[{process}]  {path}  {result}")
}

#[cfg(test)]
mod tests;
