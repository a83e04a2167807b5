//! `weft node upgrade`: brings a new image to nodes that start from one, node by node.

use bytes::Bytes;
use fabric::api::{DrainBody, NodeState, NodeView, UpgradeBody, UpgradeView};
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

use crate::exit::{Exit, Failure};
use crate::screen::{Tone, plural, printable};
use crate::watch::{self, Ended};
use crate::{Context, nodes};

/// Bytes of one piece: an agent takes more, and holds as many of them in memory as people send at a time.
const PIECE_BYTES: usize = 128 << 10;
/// Bytes of a header of tar, and of what may be said in the first file of an update.
const HEADER_BYTES: usize = 512;
const MANIFEST_BYTES_MAX: u64 = 4096;
/// A node is back by then, also when it had to go back to the version before.
const BACK_WITHIN: Duration = Duration::from_secs(1800);
/// Between two looks at a node that restarts.
const LOOK: Duration = Duration::from_secs(1);

/// What to bring where.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The file.
    pub file: &'a Path,
    /// Names or ids.
    pub nodes: &'a [String],
    /// Every node of the update's architecture that starts from an image of another version.
    pub all: bool,
    /// Hand the work over first.
    pub drain: bool,
    /// Do not ask.
    pub yes: bool,
    /// How long one node may take, from its last piece on.
    pub timeout: Option<Duration>,
}

/// One node that was upgraded.
#[derive(Debug, Serialize)]
struct Upgraded {
    node: String,
    name: String,
    from: String,
    to: String,
}

/// Upgrades one node after the other, and stops at the first that does not come up with the new version.
pub async fn upgrade(context: &Context, wanted: Wanted<'_>) -> Result<Exit, Failure> {
    let (mut file, update) = open(wanted.file)?;
    let nodes = chosen(context, &wanted, &update).await?;
    if nodes.is_empty() {
        context
            .screen
            .say(&format!("no node of {} starts from an image of another version", update.arch));
        return Ok(Exit::Ok);
    }
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let question = format!(
        "bring {} to {}, one after the other: {}? Each hands over its work and restarts.",
        update.version,
        plural(nodes.len(), "node"),
        names.join(", ")
    );
    if !context.confirm(&question, wanted.yes).await? {
        return Err(Failure::failed("nothing was changed"));
    }
    let work = async {
        let mut done = Vec::new();
        for node in &nodes {
            done.push(one(context, &mut file, &update, node, &wanted).await?);
        }
        Ok::<_, Failure>(done)
    };
    let done = match watch::bounded(work, None).await {
        Ended::Itself(done) => done?,
        Ended::TimedOut | Ended::Interrupted => {
            context.screen.clear_line();
            context.screen.say(
                "stopped: a node that was told to write the update goes on; `weft undrain` lets one take work again",
            );
            return Ok(Exit::Interrupted);
        }
    };
    if context.screen.is_json() {
        context.screen.json(&done)?;
    }
    Ok(Exit::Ok)
}

async fn chosen(
    context: &Context,
    wanted: &Wanted<'_>,
    update: &UpgradeBody,
) -> Result<Vec<NodeView>, Failure> {
    if !wanted.all {
        let mut found = Vec::new();
        for name in wanted.nodes {
            found.push(nodes::find(context, name).await?);
        }
        return Ok(found);
    }
    let mut all: Vec<NodeView> = context.client.get("/v1/nodes").await?;
    all.retain(|node| {
        node.state == NodeState::Alive
            && node.info.as_ref().is_some_and(|info| {
                let of = &info.topology;
                of.arch == update.arch
                    && of.os.strip_prefix("weft ").is_some_and(|version| version != update.version)
            })
    });
    Ok(all)
}

/// Brings the update to one node.
async fn one(
    context: &Context,
    file: &mut File,
    update: &UpgradeBody,
    node: &NodeView,
    wanted: &Wanted<'_>,
) -> Result<Upgraded, Failure> {
    let path = format!("/v1/nodes/{}/upgrade", node.id);
    let before = bring(context, file, update, node, &path).await?;
    let drained = async |on| {
        context.client.post(&format!("/v1/nodes/{}/drain", node.id), &DrainBody { on }).await
    };
    if wanted.drain {
        match nodes::drain(context, &node.id.to_string(), true, wanted.timeout).await {
            Ok(Exit::Ok) => {}
            Ok(_) => return Err(Failure::failed("stopped before anything was written")),
            Err(error) => {
                let text = match drained(false).await {
                    Ok(()) => {
                        "takes work again, and was not upgraded: --no-drain restarts it with its work"
                    }
                    Err(_) => "was not upgraded, and still takes no work: `weft undrain` lets it",
                };
                context.screen.say(&format!("{} {text}", node.name));
                return Err(error);
            }
        }
    }
    let installed = install(context, update, node, &path, wanted.timeout).await;
    let undrained = if wanted.drain { drained(false).await } else { Ok(()) };
    installed.and(undrained)?;
    let text = format!("{} runs {}, and takes work again", node.name, update.version);
    context.screen.say_toned(Tone::Good, &text);
    Ok(Upgraded {
        node: node.id.to_string(),
        name: node.name.clone(),
        from: before,
        to: update.version.clone(),
    })
}

/// Sends what the node does not have yet. Gives back the version that runs there.
async fn bring(
    context: &Context,
    file: &mut File,
    update: &UpgradeBody,
    node: &NodeView,
    path: &str,
) -> Result<String, Failure> {
    let mut view: UpgradeView = context.client.send(hyper::Method::POST, path, update).await?;
    let mut piece = vec![0; PIECE_BYTES];
    while view.have < update.bytes {
        let length =
            PIECE_BYTES.min(usize::try_from(update.bytes - view.have).unwrap_or(PIECE_BYTES));
        file.seek(SeekFrom::Start(view.have))
            .and_then(|_| file.read_exact(&mut piece[..length]))
            .map_err(|error| Failure::failed(format!("cannot read the update: {error}")))?;
        let bytes = Bytes::copy_from_slice(&piece[..length]);
        view = context.client.put(&format!("{path}?offset={}", view.have), bytes).await?;
        let percent = view.have * 100 / update.bytes;
        context.screen.replace_line(&format!(
            "{}: {percent} % of {} MiB",
            node.name,
            update.bytes >> 20
        ));
    }
    context.screen.clear_line();
    context.screen.say(&format!("{} has the update", node.name));
    Ok(view.running)
}

/// Has the node write it and restart, and waits until it is back.
async fn install(
    context: &Context,
    update: &UpgradeBody,
    node: &NodeView,
    path: &str,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let told = UpgradeBody { install: true, ..update.clone() };
    let _: UpgradeView = context.client.send(hyper::Method::POST, path, &told).await?;
    context.screen.say(&format!("{} writes it into its other slot", node.name));
    let until = Instant::now() + timeout.unwrap_or(BACK_WITHIN);
    // What it said last. Nothing is said any more once it has started anew.
    let mut last = String::new();
    while Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        // It does not answer while it restarts.
        let Ok(view) = context.client.get::<UpgradeView>(path).await else { continue };
        if view.running == update.version {
            return Ok(());
        }
        let line = view.said.lines().last().unwrap_or_default();
        if let Some(reason) = line.strip_prefix("failed: ") {
            let reason = printable(reason);
            return Err(Failure::failed(format!(
                "{} did not take the update: {reason}",
                node.name
            )));
        }
        if line.is_empty() && !last.is_empty() {
            return Err(Failure::failed(format!(
                "{} went back to {}: with {} it did not come up, or did not find its fabric in time",
                node.name, view.running, update.version
            )));
        }
        if line != last {
            context.screen.say(&format!("{}: {}", node.name, printable(line)));
            last = line.to_owned();
        }
    }
    Err(Failure::Said(
        Exit::TimedOut,
        format!("{} is not back yet: `weft node {0}` shows how it is", node.name),
    ))
}

/// Reads what an update says of itself.
fn open(path: &Path) -> Result<(File, UpgradeBody), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut head = Vec::new();
    let most = HEADER_BYTES as u64 + MANIFEST_BYTES_MAX;
    Read::by_ref(&mut file).take(most).read_to_end(&mut head).map_err(failed)?;
    let Some((version, arch)) = manifest(&head) else {
        return Err(Failure::failed(format!(
            "{} is no update of an image: `make image` writes one, weft-VERSION-ARCH.update",
            path.display()
        )));
    };
    Ok((file, UpgradeBody { version, arch, bytes, install: false }))
}

/// Version and architecture, from the beginning of an update: a tar whose first file is its manifest.
fn manifest(head: &[u8]) -> Option<(String, String)> {
    let header = head.get(..HEADER_BYTES)?;
    let name = header[..100].split(|byte| *byte == 0).next()?;
    let size = std::str::from_utf8(&header[124..135]).ok()?;
    let size = usize::from_str_radix(size.trim_end_matches(['\0', ' ']), 8).ok()?;
    if name != b"manifest" || size as u64 > MANIFEST_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(head.get(HEADER_BYTES..HEADER_BYTES + size)?).ok()?;
    let mut lines = text.lines();
    if lines.next() != Some("weft-update 1") {
        return None;
    }
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        (!line.is_empty() && !line.contains(char::is_whitespace)).then(|| line.to_owned())
    };
    Some((value("version")?, value("arch")?))
}

#[cfg(test)]
mod tests;
