//! `weft logs` and `weft events`: answers that come piece by piece.

use fabric::api::{AllocView, Event, EventKind, FailedVersion, JobView, NodeView};
use fabric::id::{JobName, NodeId};
use fabric::job::JobKind;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

use crate::arguments::{Events, JobOrSlot, LogStream};
use crate::client::{Client, Stream};
use crate::exit::{Exit, Failure};
use crate::screen::{Screen, Tone, printable};
use crate::{Context, clock, nodes};

/// Slots whose logs are shown together.
const SOURCES_MAX: usize = 64;
/// Bytes of one line; a longer one is cut into several.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes of one event.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// Between two looks for the next allocation of a slot.
const LOOK: Duration = Duration::from_millis(500);

/// Which logs, and how much of them.
pub struct Wanted {
    /// A job, or one of its slots.
    pub what: JobOrSlot,
    /// Go on as more is written.
    pub follow: bool,
    /// Begin with the last lines only.
    pub tail: Option<u32>,
    /// Stdout, stderr or both.
    pub stream: LogStream,
    /// On this node.
    pub node: Option<String>,
    /// Of which allocation.
    pub of: Of,
}

/// Of which of a slot's allocations: the newest, unless one of these says otherwise.
#[derive(Clone, Copy, Default)]
pub struct Of {
    /// The one that failed, or the one before.
    pub previous: bool,
    /// The one with this epoch.
    pub epoch: Option<u64>,
}

/// One slot's logs.
#[derive(Clone)]
struct Source {
    client: Client,
    job: JobName,
    slot: u32,
    /// Says which of the allocations of a system job is meant.
    node: Option<NodeId>,
    /// Stands before its lines when there are several sources: `web/0`, `web@rack1`.
    label: String,
    follow: bool,
    tail: Option<u32>,
    stream: &'static str,
    of: Of,
}

/// Shows the logs of a slot as they are, or of several slots with a label before each line.
pub async fn logs(context: &Context, wanted: Wanted) -> Result<Exit, Failure> {
    let mut sources = sources(context, &wanted).await?;
    let alone = sources.len() == 1;
    if !wanted.of.previous && wanted.of.epoch.is_none() {
        leave_out_lost(context, &wanted, &mut sources).await?;
    }
    if sources.is_empty() {
        context.screen.say("nothing of it runs");
        return Ok(Exit::Ok);
    }
    let (sender, mut lines) = mpsc::channel(16);
    let mut tasks = tokio::task::JoinSet::new();
    for source in sources {
        tasks.spawn(pump(source, sender.clone()));
    }
    drop(sender);
    let screen = &context.screen;
    while let Some((label, line)) = lines.recv().await {
        show_line(screen, &label, &line, alone)?;
    }
    let mut outcome = Err(Failure::failed("no logs"));
    while let Some(ended) = tasks.join_next().await {
        match ended.unwrap_or_else(|error| Err(Failure::failed(error.to_string()))) {
            Ok(()) => outcome = Ok(Exit::Ok),
            Err(failure) if alone => outcome = Err(failure),
            Err(failure) => {
                if let Failure::Said(_, message) = &failure {
                    screen.say_toned(Tone::Bad, &printable(message));
                }
                if outcome.is_err() {
                    outcome = Err(failure);
                }
            }
        }
    }
    outcome
}

/// Says which slots ran on nodes that nobody reaches, where their logs are, and leaves them out unless what comes after
/// them is wanted, too.
async fn leave_out_lost(
    context: &Context,
    wanted: &Wanted,
    sources: &mut Vec<Source>,
) -> Result<(), Failure> {
    let path = format!("/v1/allocs?job={}", wanted.what.job);
    let allocs: Vec<AllocView> = context.client.get(&path).await?;
    let lost = |source: &Source| {
        let of_slot = |alloc: &&AllocView| {
            alloc.id.slot.index == source.slot
                && alloc.row.phase.is_live()
                && source.node.is_none_or(|node| node == alloc.node)
        };
        let newest = allocs.iter().filter(of_slot).max_by_key(|alloc| alloc.id.epoch)?;
        let (label, node) = (&source.label, printable(&newest.node_name));
        crate::jobs::gone(newest).map(|_| {
            format!("{label} was on {node}, which is {}: its log is there", newest.node_state)
        })
    };
    let (kept, gone): (Vec<_>, Vec<_>) = sources
        .drain(..)
        .map(|source| (lost(&source), source))
        .partition(|(lost, _)| lost.is_none());
    let told: Vec<&str> = gone.iter().filter_map(|(lost, _)| lost.as_deref()).collect();
    if kept.is_empty() && !told.is_empty() && !wanted.follow {
        return Err(Failure::Said(Exit::Unreachable, told.join("; ")));
    }
    told.iter().for_each(|line| context.screen.say(line));
    let back = gone.iter().filter(|_| wanted.follow);
    let back: Vec<Source> = back.map(|(_, source)| source.clone()).collect();
    *sources = kept.into_iter().map(|(_, source)| source).chain(back).collect();
    Ok(())
}

fn show_line(screen: &Screen, label: &str, line: &[u8], alone: bool) -> Result<(), Failure> {
    if screen.is_json() {
        let text = String::from_utf8_lossy(line);
        return screen.json_line(&serde_json::json!({ "from": label, "line": text }));
    }
    let mut shown = Vec::with_capacity(label.len() + line.len() + 4);
    if !alone {
        shown.extend_from_slice(format!("{label} | ").as_bytes());
    }
    shown.extend_from_slice(line);
    shown.push(b'\n');
    screen.bytes(&shown)
}

/// The last lines that an allocation wrote to stderr, or to stdout if it wrote none there. Empty where its log is gone.
pub async fn last_lines(client: &Client, failed: &FailedVersion, lines: usize) -> Vec<String> {
    for stream in ["stderr", "stdout"] {
        let source = Source {
            client: client.clone(),
            job: failed.alloc.slot.job.clone(),
            slot: failed.alloc.slot.index,
            node: Some(failed.node),
            label: String::new(),
            follow: false,
            // Some of them may be empty.
            tail: Some(4 * lines as u32),
            stream,
            of: Of { previous: false, epoch: Some(failed.alloc.epoch) },
        };
        let Ok(mut stream) = source.open().await else { return Vec::new() };
        let mut cutter = Lines::new(LINE_BYTES_MAX);
        let mut last: Vec<Vec<u8>> = Vec::new();
        let mut keep = |lines_cut: Vec<Vec<u8>>| {
            last.extend(lines_cut.into_iter().filter(|line| !line.trim_ascii().is_empty()));
            last.drain(..last.len().saturating_sub(lines));
        };
        while let Ok(Some(bytes)) = stream.next().await {
            keep(cutter.push(&bytes));
        }
        keep(cutter.finish().into_iter().collect());
        if !last.is_empty() {
            return last.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        }
    }
    Vec::new()
}

/// What `wanted` means: one slot, each slot of a service, or each node of a system job.
async fn sources(context: &Context, wanted: &Wanted) -> Result<Vec<Source>, Failure> {
    let JobOrSlot { job, slot } = &wanted.what;
    let node = match &wanted.node {
        Some(name) => Some(nodes::find(context, name).await?),
        None => None,
    };
    let id = node.as_ref().map(|node| node.id);
    let source = |slot: u32, node: Option<NodeId>, label: String| Source {
        client: context.client.clone(),
        job: job.clone(),
        slot,
        node,
        label,
        follow: wanted.follow,
        tail: wanted.tail,
        stream: wanted.stream.name(),
        of: wanted.of,
    };
    if wanted.of.epoch.is_some() && slot.is_none() {
        return Err(Failure::usage(format!(
            "each slot counts its epochs: say which slot, as in {job}/0; weft ps {job} --all shows them"
        )));
    }
    if let Some(slot) = *slot {
        // The agent may still have the log of a slot that is no more.
        return Ok(vec![source(slot, id, format!("{job}/{slot}"))]);
    }
    let view: JobView = context.client.get(&format!("/v1/jobs/{job}")).await?;
    if let Some(failed) = view.failed.filter(|_| wanted.of.previous && id.is_none()) {
        let label = format!("{}@{}", failed.alloc.slot, failed.node_name);
        let (alloc, node) = (&failed.alloc, printable(&failed.node_name));
        let (version, reason) = (failed.version, printable(&failed.reason));
        context
            .screen
            .say(&format!("{alloc} on {node}, of version {version}, which failed: {reason}"));
        return Ok(vec![source(failed.alloc.slot.index, Some(failed.node), label)]);
    }
    let sources: Vec<Source> = if view.kind == JobKind::Service {
        let slots = (0..view.wanted).take(SOURCES_MAX + 1);
        slots.map(|slot| source(slot, id, format!("{job}/{slot}"))).collect()
    } else {
        let allocs: Vec<AllocView> = context.client.get(&format!("/v1/allocs?job={job}")).await?;
        allocs
            .iter()
            .filter(|alloc| id.is_none_or(|id| id == alloc.node))
            .take(SOURCES_MAX + 1)
            .map(|alloc| source(0, Some(alloc.node), format!("{job}@{}", alloc.node_name)))
            .collect()
    };
    if sources.len() > SOURCES_MAX {
        return Err(Failure::usage(format!(
            "{job} has more than {SOURCES_MAX} slots: choose one with JOB/SLOT or --node"
        )));
    }
    Ok(sources)
}

/// Reads one slot's logs into `lines`; when following, also those of the allocations after it.
async fn pump(mut source: Source, lines: mpsc::Sender<(String, Vec<u8>)>) -> Result<(), Failure> {
    let mut moved = false;
    loop {
        let read = source.alloc().await?;
        let mut stream = match source.open().await {
            Ok(stream) => stream,
            // The next allocation has a claim, and nothing to show yet.
            Err(Failure::Said(Exit::NotFound, _)) if moved && !source.is_gone().await? => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(Failure::Said(Exit::NotFound, _)) if moved => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let mut cutter = Lines::new(LINE_BYTES_MAX);
        {
            let over = source.over(read);
            tokio::pin!(over);
            loop {
                let piece = tokio::select! {
                    piece = stream.next() => piece,
                    () = &mut over, if source.follow => Ok(None),
                };
                let piece = match piece {
                    // The agent went away: it comes back, or the allocation goes on elsewhere.
                    Err(_) if source.follow => None,
                    piece => piece?,
                };
                let cut = match &piece {
                    Some(bytes) => cutter.push(bytes),
                    None => cutter.finish(),
                };
                for line in cut {
                    if lines.send((source.label.clone(), line)).await.is_err() {
                        return Ok(());
                    }
                }
                if piece.is_none() {
                    break;
                }
            }
        }
        if !source.follow {
            return Ok(());
        }
        source.tail = loop {
            tokio::time::sleep(LOOK).await;
            match source.alloc().await {
                // The same one, after its agent came back: all up to now was shown.
                Ok(Some(now)) if read == Some(now) => break Some(0),
                Ok(Some(_)) => break None,
                Ok(None) if source.is_gone().await? => return Ok(()),
                Ok(None) => {}
                Err(failure) => return Err(failure),
            }
        };
        moved = true;
    }
}

impl Source {
    async fn open(&self) -> Result<Stream, Failure> {
        let Source { job, slot, stream, .. } = self;
        let mut path = format!("/v1/jobs/{job}/logs?slot={slot}&stream={stream}");
        if self.follow {
            path.push_str("&follow=true");
        }
        if let Some(tail) = self.tail {
            path.push_str(&format!("&tail={tail}"));
        }
        if let Some(node) = self.node {
            path.push_str(&format!("&node={node}"));
        }
        if self.of.previous {
            path.push_str("&previous=true");
        }
        if let Some(epoch) = self.of.epoch {
            path.push_str(&format!("&epoch={epoch}"));
        }
        self.client.stream(&path).await
    }

    /// The allocation that fills the slot: its node and epoch.
    async fn alloc(&self) -> Result<Option<(NodeId, u64)>, Failure> {
        let path = format!("/v1/allocs?job={}", self.job);
        let allocs: Vec<AllocView> = self.client.get(&path).await?;
        Ok(allocs
            .iter()
            .filter(|alloc| alloc.id.slot.index == self.slot && alloc.row.phase.is_live())
            .filter(|alloc| self.node.is_none_or(|node| node == alloc.node))
            .map(|alloc| (alloc.node, alloc.id.epoch))
            .max_by_key(|(_, epoch)| *epoch))
    }

    /// Comes back some time after the slot went on to another allocation than `read`, or to none for
    /// good. The log of an allocation that has ended stays open: this is how its end is noticed.
    async fn over(&self, read: Option<(NodeId, u64)>) {
        let mut seen = false;
        loop {
            tokio::time::sleep(LOOK).await;
            let over = match self.alloc().await {
                Ok(Some(now)) => read != Some(now),
                Ok(None) => self.is_gone().await.unwrap_or(false),
                Err(_) => false,
            };
            // Once more, so that what it wrote last has come.
            if over && seen {
                return;
            }
            seen = over;
        }
    }

    /// Whether nothing can come any more: the job was stopped or scaled below this slot.
    async fn is_gone(&self) -> Result<bool, Failure> {
        match self.client.get::<JobView>(&format!("/v1/jobs/{}", self.job)).await {
            Ok(job) => Ok(job.kind == JobKind::Service && job.wanted <= self.slot),
            Err(Failure::Said(Exit::NotFound, _)) => Ok(true),
            Err(failure) => Err(failure),
        }
    }
}

/// Cuts a stream of bytes into lines, and lines that are too long into pieces.
pub struct Lines {
    rest: Vec<u8>,
    most: usize,
}

impl Lines {
    /// Lines of at most so many bytes.
    pub fn new(most: usize) -> Self {
        Self { rest: Vec::new(), most }
    }

    /// The lines that end in these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.push(std::mem::take(&mut self.rest));
            } else {
                self.rest.push(*byte);
                if self.rest.len() == self.most {
                    lines.push(std::mem::take(&mut self.rest));
                }
            }
        }
        lines
    }

    fn finish(&mut self) -> Vec<Vec<u8>> {
        if self.rest.is_empty() { Vec::new() } else { vec![std::mem::take(&mut self.rest)] }
    }
}

/// Those of the events that the agent remembers that are wanted, with their numbers.
fn chosen(wanted: Events, mut events: Vec<(u64, Event)>) -> Vec<(u64, Event)> {
    let now = clock::now();
    events.retain(|(_, event)| wanted.since.is_none_or(|since| now.since(event.at) <= since));
    let most = wanted.tail.map_or(usize::MAX, |tail| tail as usize);
    events.split_off(events.len().saturating_sub(most))
}

/// Shows what happened, and with `follow` what happens.
pub async fn events(context: &Context, wanted: Events) -> Result<Exit, Failure> {
    let mut names = Names::default();
    let mut remembered = Vec::new();
    let mut reader = EventReader::new();
    let mut stream = context.client.stream("/v1/events").await?;
    while let Some(bytes) = stream.next().await? {
        remembered.extend(reader.push(&bytes)?);
    }
    let next = remembered.last().map_or(0, |(number, _)| number + 1);
    for (_, event) in chosen(wanted, remembered) {
        show_event(context, &mut names, &event).await?;
    }
    if !wanted.follow {
        return Ok(Exit::Ok);
    }
    let mut reader = EventReader::new();
    let mut stream = context.client.stream("/v1/events?follow=true").await?;
    while let Some(bytes) = stream.next().await? {
        let happened = reader.push(&bytes)?.into_iter();
        for (_, event) in happened.filter(|(number, _)| *number >= next) {
            show_event(context, &mut names, &event).await?;
        }
    }
    Err(Failure::Said(Exit::Unreachable, "the agent ended the stream of events".into()))
}

/// Reads a stream of server-sent events: of their fields only `id:`, the agent's number, and `data:` say anything to us.
struct EventReader {
    lines: Lines,
    number: u64,
}

impl EventReader {
    fn new() -> Self {
        Self { lines: Lines::new(EVENT_BYTES_MAX), number: 0 }
    }

    /// The events that end in these bytes.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<(u64, Event)>, Failure> {
        let mut events = Vec::new();
        for line in self.lines.push(bytes) {
            if let Some(number) = line.strip_prefix(b"id:") {
                let number = str::from_utf8(number).ok().and_then(|text| text.trim().parse().ok());
                self.number = number.unwrap_or(self.number);
            } else if let Some(data) = line.strip_prefix(b"data:") {
                let event = serde_json::from_slice(data).map_err(|error| {
                    Failure::failed(format!(
                        "an event makes no sense ({error}): weft and weftd must have the same version"
                    ))
                })?;
                events.push((self.number, event));
            }
        }
        Ok(events)
    }
}

/// Names of nodes, asked for when one is seen that is not known. One that is no member any more has its key.
#[derive(Default)]
struct Names(BTreeMap<NodeId, String>);

impl Names {
    async fn of(&mut self, context: &Context, node: &NodeId) -> String {
        if !self.0.contains_key(node) {
            let nodes: Vec<NodeView> = context.client.get("/v1/nodes").await.unwrap_or_default();
            self.0.extend(nodes.into_iter().map(|node| (node.id, node.name)));
            self.0.entry(*node).or_insert_with(|| node.short().to_string());
        }
        self.0[node].clone()
    }
}

/// One event in a line.
async fn show_event(context: &Context, names: &mut Names, event: &Event) -> Result<(), Failure> {
    if context.screen.is_json() {
        return context.screen.json_line(event);
    }
    let what = match &event.what {
        EventKind::Node { name, state, .. } => format!("node    {name} is {state}"),
        EventKind::Job { job, version, message } => {
            format!("job     {job} version {version}: {message}")
        }
        EventKind::Alloc { alloc, on, phase, healthy, message } => {
            let healthy = if *healthy { ", healthy" } else { "" };
            let message = if message.is_empty() { String::new() } else { format!(": {message}") };
            let on = names.of(context, on).await;
            format!("alloc   {alloc} on {on} is {phase}{healthy}{message}")
        }
        EventKind::Roster { name, message, .. } => format!("roster  {name}: {message}"),
    };
    context.screen.data(&printable(&format!("{}  {what}", clock::display(event.at))))
}

#[cfg(test)]
mod tests;
