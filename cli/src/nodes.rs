//! `weft nodes`, `weft node`, `weft drain`, `weft undrain` and `weft leave`.

use fabric::api::{
    AllocView, DrainBody, Explanation, JobView, NodeState, NodeView, Status, VoterView,
};
use fabric::id::{JobName, NodeId, SlotId};
use fabric::job::{JobKind, nearest};
use fabric::resources::bytes;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::screen::{Cell, Table, Tone, plural, printable};
use crate::watch::{self, Ended};
use crate::{Context, clock, jobs};

/// Hex digits of an id that are enough to name a node by.
const ID_PREFIX_MIN: usize = 4;
/// Jobs of a draining node, and nodes, that are named when nobody can take a slot.
const STAYS_MAX: usize = 6;

/// Every node in a line.
pub async fn list(context: &Context) -> Result<Exit, Failure> {
    let nodes: Vec<NodeView> = context.client.get("/v1/nodes").await?;
    if context.screen.is_json() {
        context.screen.json(&nodes)?;
        return Ok(Exit::Ok);
    }
    if context.screen.names(nodes.iter().map(|node| &node.name))? {
        return Ok(Exit::Ok);
    }
    let mut head =
        vec!["NAME", "ID", "STATE", "CORES FREE", "MEMORY FREE", "DISK FREE", "ALLOCS", "LABELS"];
    if context.screen.is_wide() {
        head.extend(["ARCH", "AGENT", "UP FOR", "ADDRESSES"]);
    }
    let mut table = Table::new(&head).without(&["DISK FREE", "ID", "LABELS", "MEMORY FREE"]);
    for node in &nodes {
        let (cores, memory, disk) = match &node.info {
            Some(info) => (
                format!("{} of {}", node.free.cores, info.topology.cores.len()),
                format!("{} of {}", bytes(node.free.memory), bytes(info.topology.memory)),
                match info.topology.disk() {
                    Some(pool) => {
                        format!("{} of {}", bytes(node.free.disk), bytes(pool.capacity))
                    }
                    None => "-".into(),
                },
            ),
            None => ("?".into(), "?".into(), "?".into()),
        };
        let name = if node.local {
            format!("{} ({})", node.name, context.way.mark())
        } else {
            node.name.clone()
        };
        let mut cells: Vec<Cell> = vec![
            name.into(),
            node.id.short().into(),
            state(node),
            cores.into(),
            memory.into(),
            disk.into(),
            node.allocs.len().to_string().into(),
            labels(node).into(),
        ];
        if context.screen.is_wide() {
            cells.extend(wide(node));
        }
        table.row_of(cells);
    }
    context.screen.table(&table)?;
    Ok(Exit::Ok)
}

/// Architecture, version of the agent, for how long it is up, and where it is reached.
fn wide(node: &NodeView) -> [Cell; 4] {
    let Some(info) = &node.info else { return ["?", "?", "?", "?"].map(Cell::from) };
    let addresses: Vec<_> = info.addresses.iter().map(ToString::to_string).collect();
    [
        info.topology.arch.clone().into(),
        info.version.clone().into(),
        clock::age(clock::now(), info.started).into(),
        addresses.join(" ").into(),
    ]
}

fn labels(node: &NodeView) -> String {
    let labels = node.info.iter().flat_map(|info| &info.labels);
    let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

/// How a node is doing, with whatever keeps it from taking work.
fn state(node: &NodeView) -> Cell {
    let mut text = node.state.to_string();
    let mut tone = match node.state {
        NodeState::Alive => Tone::Good,
        NodeState::Suspect | NodeState::Unknown => Tone::Busy,
        NodeState::Dead => Tone::Bad,
        NodeState::Left => Tone::Faint,
    };
    if let Some(info) = &node.info {
        if info.draining {
            text.push_str(", draining");
            tone = Tone::Busy;
        }
        if info.impaired.is_some() {
            text.push_str(", impaired");
            tone = Tone::Bad;
        }
    }
    Cell::new(text, tone)
}

/// One node, and what runs there.
pub async fn show(context: &Context, wanted: &str) -> Result<Exit, Failure> {
    let node = find(context, wanted).await?;
    let node: NodeView = context.client.get(&format!("/v1/nodes/{}", node.id)).await?;
    if context.screen.is_json() {
        context.screen.json(&node)?;
        return Ok(Exit::Ok);
    }
    let mut fields = vec![
        ("name", Cell::from(node.name.clone())),
        ("id", node.id.to_string().into()),
        ("state", state(&node)),
    ];
    if let Some(info) = &node.info {
        let topology = &info.topology;
        let addresses: Vec<_> = info.addresses.iter().map(ToString::to_string).collect();
        fields.extend([
            ("labels", labels(&node).into()),
            (
                "machine",
                format!("{}, {}, kernel {}", topology.arch, topology.os, topology.kernel).into(),
            ),
            ("agent", format!("weftd {}, executor {}", info.version, info.executor).into()),
            ("up for", clock::age(clock::now(), info.started).into()),
            ("reached at", addresses.join(" ").into()),
            (
                "cores",
                format!(
                    "{} of {} free (CPUs {}), {} memory nodes",
                    node.free.cores,
                    topology.cores.len(),
                    if node.free.cpus.is_empty() { "-".into() } else { node.free.cpus.to_string() },
                    topology.numa.len()
                )
                .into(),
            ),
            (
                "shared cpu",
                format!("{} CPUs free", f64::from(node.free.shared_millis) / 1000.0).into(),
            ),
            (
                "memory",
                format!("{} of {} free", bytes(node.free.memory), bytes(topology.memory)).into(),
            ),
        ]);
        if let Some(pool) = topology.disk() {
            fields.push((
                "disk",
                format!(
                    "{} of {} free in pool {} ({} set aside, {} used by others)",
                    bytes(node.free.disk),
                    bytes(pool.capacity),
                    pool.name,
                    bytes(pool.reserved),
                    bytes(pool.used)
                )
                .into(),
            ));
        }
        for device in &topology.devices {
            let free = if node.free.devices.contains(&device.path) { "free" } else { "taken" };
            let hardware = device.hardware.as_deref().unwrap_or("-");
            fields.push((
                "device",
                format!("{} {} {hardware} {free}", device.path, device.class).into(),
            ));
        }
        if let Some(reason) = &info.impaired {
            fields.push(("impaired", Cell::new(reason, Tone::Bad)));
        }
    }
    context.screen.fields(&fields)?;
    if !node.allocs.is_empty() {
        context.screen.data("")?;
        context.screen.table(&jobs::alloc_table(&node.allocs, false))?;
    }
    Ok(Exit::Ok)
}

/// How a node is locked out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Removal {
    /// Without waiting until its work runs elsewhere.
    pub now: bool,
    /// How long that is waited for.
    pub timeout: Option<Duration>,
    /// Without asking.
    pub yes: bool,
    /// Also when no majority of the voters is left.
    pub force: bool,
}

impl Removal {
    /// What is given up with `--force`.
    fn warning(&self) -> &'static str {
        match self.force {
            true => {
                " If no majority of the voters is left, those that are decide alone: should it not be gone for good, its \
                 at-most-one work may run twice."
            }
            false => "",
        }
    }
}

/// Locks a node out. One that answers hands over its work first.
pub async fn remove(context: &Context, wanted: &str, removal: &Removal) -> Result<Exit, Failure> {
    let node = find(context, wanted).await?;
    if node.local {
        return leave(context, removal).await;
    }
    let answers = matches!(node.state, NodeState::Alive | NodeState::Suspect);
    let hands_over = answers && !removal.now && !node.allocs.is_empty();
    if hands_over {
        leaves_a_majority(context, &node, removal).await?;
    }
    let place = if hands_over { "is placed elsewhere first" } else { "is placed elsewhere" };
    let question = format!(
        "remove {} ({}) from the fabric? What it runs ({}) {place}, and it needs a new token to come back.{}",
        node.name,
        node.id.short(),
        plural(node.allocs.len(), "allocation"),
        removal.warning()
    );
    if !context.confirm(&question, removal.yes).await? {
        return Err(Failure::failed("nothing was changed"));
    }
    if hands_over && let Some(exit) = emptied(context, &node, removal, "remove").await? {
        return Ok(exit);
    }
    lock_out(context, &node, removal, hands_over).await?;
    context.screen.say(&format!("{} is no longer a member", node.name));
    if !answers {
        context.screen.say(
            "it did not answer: what still runs there goes on until it is reached again or its agent starts, which ends it, or \
             the machine is off",
        );
    }
    if context.screen.is_json() {
        context.screen.json(&node)?;
    }
    Ok(Exit::Ok)
}

/// Takes the node that is asked out of its fabric: it hands over its work, and another member writes that it is gone.
pub async fn leave(context: &Context, removal: &Removal) -> Result<Exit, Failure> {
    let mut nodes: Vec<NodeView> = context.client.get("/v1/nodes").await?;
    let others = nodes.len().saturating_sub(1);
    let Some(at) = nodes.iter().position(|node| node.local) else {
        return Err(Failure::failed(format!(
            "this agent's node is no longer a member of its fabric: there is nothing to leave. {START_ANEW}"
        )));
    };
    let node = nodes.swap_remove(at);
    let name = &node.name;
    if others == 0 {
        return Err(Failure::failed(format!(
            "{name} is the last member of its fabric: nobody would be left. To end the fabric, stop its jobs (weft jobs, weft \
             stop JOB), stop weftd, and empty its state directory, /var/lib/weft unless weftd.toml says otherwise"
        )));
    }
    let hands_over = !removal.now && !node.allocs.is_empty();
    if hands_over {
        leaves_a_majority(context, &node, removal).await?;
        let stays = stays(context, &node.id, &node.allocs).await;
        if !stays.is_empty() {
            let message = format!(
                "{name} runs what no other node can take: {}. Nothing was changed: make room, stop it (weft stop JOB), or leave \
                 without waiting for it (--now): it ends here, and starts elsewhere once it fits",
                stays.join("; ")
            );
            return Err(Failure::Said(Exit::Unplaceable, printable(&message)));
        }
    }
    let place =
        if hands_over { "is placed elsewhere first" } else { "ends, and is placed elsewhere" };
    let question = format!(
        "take {name}, the node that is asked, out of its fabric of {}? What it runs ({}) {place}. Files that jobs have written on \
         its disks stay there and are copied nowhere. It needs a new token to come back.{}",
        plural(others + 1, "node"),
        plural(node.allocs.len(), "allocation"),
        removal.warning()
    );
    if !context.confirm(&question, removal.yes).await? {
        return Err(Failure::failed("nothing was changed"));
    }
    if hands_over && let Some(exit) = emptied(context, &node, removal, "leave").await? {
        return Ok(exit);
    }
    lock_out(context, &node, removal, hands_over).await?;
    context.screen.say(&format!("{name} has left the fabric, and {} on", goes(others)));
    context
        .screen
        .say(&format!("files that jobs have written on its disks are still there. {START_ANEW}"));
    if context.screen.is_json() {
        context.screen.json(&node)?;
    }
    Ok(Exit::Ok)
}

/// Before work is moved for nothing: whether those that vote on leases can still decide when a node has gone.
async fn leaves_a_majority(
    context: &Context,
    node: &NodeView,
    removal: &Removal,
) -> Result<(), Failure> {
    let status: Status = context.client.get("/v1/status").await?;
    let Some(voters) = status.fabric.map(|fabric| fabric.voters).filter(|_| !removal.force) else {
        return Ok(());
    };
    let answers = |voter: &&VoterView| {
        voter.node != node.id && matches!(voter.state, NodeState::Alive | NodeState::Suspect)
    };
    let left = voters.members.iter().filter(answers).count();
    let votes = voters.members.iter().any(|voter| voter.node == node.id);
    if !votes || left >= voters.majority as usize {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{} is one of {} that vote on at-most-one work, and {left} of the {} that decide would be left. Nothing was changed: \
         another machine takes its vote soon after it has joined (`weft status` shows who votes); --force lets those that are \
         left decide alone",
        node.name,
        plural(voters.members.len(), "node"),
        voters.majority,
    )))
}

/// How a machine is used again whose agent belongs to a fabric no more.
const START_ANEW: &str = "To use this machine again: stop weftd, empty its state directory (/var/lib/weft), start it, and join with \
                          a new token";

fn goes(others: usize) -> String {
    if others == 1 { "the other node goes".into() } else { format!("the other {others} nodes go") }
}

/// Waits until a node that is about to go has handed over its work. `Some`: it has not, and stays a member.
async fn emptied(
    context: &Context,
    node: &NodeView,
    removal: &Removal,
    verb: &str,
) -> Result<Option<Exit>, Failure> {
    let stays = |text: &str| {
        format!(
            "{} is still a member: {text}. `weft explain JOB` says what keeps a slot there, `weft undrain {}` lets it take \
             work again, and `{verb} --now` does not wait",
            node.name, node.name
        )
    };
    match hand_over(context, node, true, removal.timeout).await {
        Ok(Handed::Over | Handed::Gone) => Ok(None),
        Ok(Handed::Not(exit)) => {
            context.screen.say(&stays("it goes on handing over"));
            Ok(Some(exit))
        }
        Err(Failure::Said(exit, text)) => Err(Failure::Said(exit, stays(&text))),
        Err(other) => Err(other),
    }
}

async fn lock_out(
    context: &Context,
    node: &NodeView,
    removal: &Removal,
    drained: bool,
) -> Result<(), Failure> {
    let query = if removal.force { "?force=true" } else { "" };
    let removed = context.client.delete(&format!("/v1/nodes/{}{query}", node.id)).await;
    match removed {
        Err(Failure::Said(exit, text)) if drained => {
            let name = &node.name;
            let text = format!(
                "{text}. {name} is still a member, and takes no work: `weft undrain {name}` lets it take work again"
            );
            Err(Failure::Said(exit, text))
        }
        other => other,
    }
}

/// Lets a node hand over its work.
pub async fn drain(
    context: &Context,
    wanted: &str,
    wait: bool,
    timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    let node = find(context, wanted).await?;
    let exit = match hand_over(context, &node, wait, timeout).await? {
        Handed::Over => Exit::Ok,
        Handed::Not(exit) => exit,
        Handed::Gone => {
            context.screen.say("it takes no work when it is back, until weft undrain");
            Exit::Failed
        }
    };
    show_if_json(context, &node.id).await?;
    Ok(exit)
}

/// What became of a node that was to hand over its work.
enum Handed {
    /// Nothing is left on it, or nobody waits for that.
    Over,
    /// It died or said goodbye meanwhile: there is nothing to wait for.
    Gone,
    /// Something is left.
    Not(Exit),
}

/// For programs: how the node is now. People were told what has happened.
async fn show_if_json(context: &Context, node: &NodeId) -> Result<(), Failure> {
    if context.screen.is_json() {
        context
            .screen
            .json(&context.client.get::<NodeView>(&format!("/v1/nodes/{node}")).await?)?;
    }
    Ok(())
}

async fn hand_over(
    context: &Context,
    node: &NodeView,
    wait: bool,
    timeout: Option<Duration>,
) -> Result<Handed, Failure> {
    let path = format!("/v1/nodes/{}", node.id);
    context.client.post(&format!("{path}/drain"), &DrainBody { on: true }).await?;
    context.screen.say(&format!("{} hands over its work and takes no more", node.name));
    let (id, name) = (node.id, &node.name);
    let view: NodeView = context.client.get(&path).await?;
    for line in stays(context, &id, &view.allocs).await {
        context.screen.say(&printable(&line));
    }
    if !wait {
        return Ok(Handed::Over);
    }
    let mut left = view.allocs;
    let mut said = String::new();
    let emptied = async {
        loop {
            if left.is_empty() {
                return Ok::<_, Failure>(Handed::Over);
            }
            let now = watch::what_is_left(&left);
            if said != now {
                let count = plural(left.len(), "allocation");
                context.screen.say(&printable(&format!("{count} left on {name}: {now}")));
                said = now;
            }
            tokio::time::sleep(watch::POLL).await;
            let view: NodeView = context.client.get(&path).await?;
            if matches!(view.state, NodeState::Dead | NodeState::Left) {
                return Ok(Handed::Gone);
            }
            left = view.allocs;
        }
    };
    match watch::bounded(emptied, timeout).await {
        Ended::Itself(result) => {
            let handed = result?;
            match handed {
                Handed::Gone => context.screen.say_toned(
                    Tone::Bad,
                    &format!("{name} is gone meanwhile: what it ran is placed elsewhere"),
                ),
                _ => context.screen.say_toned(Tone::Good, &format!("nothing is left on {name}")),
            }
            Ok(handed)
        }
        Ended::TimedOut => {
            for line in stays(context, &id, &left).await {
                context.screen.say(&printable(&line));
            }
            let left = watch::what_is_left(&left);
            let text = format!("{name} is not empty yet: {left}; it goes on handing over");
            Err(Failure::Said(Exit::TimedOut, printable(&text)))
        }
        Ended::Interrupted => {
            context.screen.say("stopped watching; it goes on handing over");
            Ok(Handed::Not(Exit::Interrupted))
        }
    }
}

/// For what a draining node runs and no other node can take now: that it stays, and which node says no for which reason.
async fn stays(context: &Context, draining: &NodeId, allocs: &[AllocView]) -> Vec<String> {
    let mut slots: BTreeMap<&JobName, &SlotId> = BTreeMap::new();
    for alloc in allocs.iter().filter(|alloc| alloc.row.phase.is_live()) {
        slots.entry(&alloc.id.slot.job).or_insert(&alloc.id.slot);
    }
    let mut lines = Vec::new();
    for (job, slot) in slots.into_iter().take(STAYS_MAX) {
        let path = format!("/v1/jobs/{job}");
        // One that is gone meanwhile stays nowhere; copies of a system job end where they are.
        let Ok(view) = context.client.get::<JobView>(&path).await else { continue };
        let Ok(explanation) = context.client.get::<Explanation>(&format!("{path}/explain")).await
        else {
            continue;
        };
        let is_moving = explanation.slots.iter().any(|it| {
            let mut live = it.allocs.iter().filter(|alloc| alloc.row.phase.is_live());
            it.index == slot.index && live.any(|alloc| alloc.node != *draining)
        });
        if is_moving {
            continue;
        }
        let others = explanation.nodes.iter().filter(|verdict| verdict.node != *draining);
        let refusals: Option<Vec<String>> = others
            .map(|verdict| {
                let rejection = verdict.rejection.as_ref()?;
                Some(format!("{}: {rejection}", verdict.name))
            })
            .collect();
        let (JobKind::Service, Some(refusals)) = (view.kind, refusals) else { continue };
        let more = refusals.len().saturating_sub(STAYS_MAX);
        let mut reasons = refusals[..refusals.len() - more].join("; ");
        if more > 0 {
            reasons.push_str(&format!("; {more} more"));
        }
        let reasons = if reasons.is_empty() { "there is none".into() } else { reasons };
        lines.push(format!("{slot} stays until another node can take it: {reasons}"));
    }
    lines
}

/// Lets a node take work again.
pub async fn undrain(context: &Context, wanted: &str) -> Result<Exit, Failure> {
    let node = find(context, wanted).await?;
    context.client.post(&format!("/v1/nodes/{}/drain", node.id), &DrainBody { on: false }).await?;
    context.screen.say(&format!("{} takes work again", node.name));
    show_if_json(context, &node.id).await?;
    Ok(Exit::Ok)
}

/// The one node that `wanted` means: a name, an id, or the first digits of an id.
pub async fn find(context: &Context, wanted: &str) -> Result<NodeView, Failure> {
    let mut nodes: Vec<NodeView> = context.client.get("/v1/nodes").await?;
    let position = position(&nodes, wanted)?;
    Ok(nodes.swap_remove(position))
}

fn position(nodes: &[NodeView], wanted: &str) -> Result<usize, Failure> {
    if let Some(position) = nodes.iter().position(|node| node.name == wanted) {
        return Ok(position);
    }
    let digits = wanted.to_ascii_lowercase();
    let means = |node: &NodeView| {
        node.info.as_ref().is_some_and(|info| info.name == wanted)
            || (digits.len() >= ID_PREFIX_MIN && node.id.to_string().starts_with(&digits))
    };
    let fitting: Vec<usize> = (0..nodes.len()).filter(|index| means(&nodes[*index])).collect();
    match fitting[..] {
        [only] => Ok(only),
        [] => {
            let hint = match nearest(wanted, nodes.iter().map(|node| node.name.as_str())) {
                Some(near) => format!("did you mean {near}?"),
                None => "weft nodes lists them".into(),
            };
            Err(Failure::not_found(format!("there is no node {wanted:?}: {hint}")))
        }
        _ => {
            let names: Vec<_> = fitting
                .iter()
                .map(|index| format!("{} ({})", nodes[*index].name, nodes[*index].id.short()))
                .collect();
            Err(Failure::usage(format!(
                "{wanted:?} may be {}: use the first digits of an id",
                names.join(" or ")
            )))
        }
    }
}

#[cfg(test)]
mod tests;
