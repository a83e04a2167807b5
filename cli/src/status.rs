//! `weft status` and `weft doctor`: is all well?

use fabric::api::{
    FabricStatus, Finding, FindingLevel, NodeState, NodeView, Status, VoterView, VotersView,
};
use fabric::id::NodeId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::Context;
use crate::exit::{Exit, Failure};
use crate::screen::{Cell, Table, Tone, plural};

/// The doctor is not waited for any longer by who asks how things stand.
const DOCTOR_TAKES: Duration = Duration::from_secs(3);
/// Nodes that are named.
const NAMES_MAX: usize = 8;

/// What an agent says of itself and its fabric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    #[serde(flatten)]
    pub status: Status,
    /// Of the node's key, for people to compare.
    pub fingerprint: String,
    /// Whether the machine has an address that others may reach.
    pub network: bool,
    /// How it means to get into a fabric, while it is in none.
    pub entry: Option<Entry>,
}

/// The same as a document.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    agent: &'a AgentStatus,
    /// Why not all is well, in words.
    troubles: &'a [String],
}

/// How a node that is in no fabric means to get into one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub way: Way,
    /// What stands in the way of it.
    pub trouble: Option<String>,
}

/// What it does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Nothing.
    ByHand,
    /// It tries the token that it was given.
    Token,
    /// It waits to be approved on a member.
    Approval,
}

/// The part of a fabric's key that people compare, as nodes' fingerprints are written.
pub fn fingerprint(key: &NodeId) -> String {
    let digits = key.to_string();
    let groups = digits.as_bytes()[..20].chunks(4);
    groups.map(String::from_utf8_lossy).collect::<Vec<_>>().join("-")
}

/// The version of this program, and of the agent.
pub async fn version(context: &Context) -> Result<Exit, Failure> {
    let weft = env!("CARGO_PKG_VERSION");
    let json = context.screen.is_json();
    if !json {
        context.screen.data(&format!("weft   {weft}"))?;
    }
    let agent: AgentStatus = context.client.get("/v1/status").await?;
    let weftd = &agent.status.version;
    match json {
        true => context.screen.json(&serde_json::json!({ "weft": weft, "weftd": weftd }))?,
        false => context.screen.data(&format!("weftd  {weftd}"))?,
    }
    Ok(Exit::Ok)
}

/// This node and its fabric. Degraded when something is not as it should be.
pub async fn status(context: &Context) -> Result<Exit, Failure> {
    let agent: AgentStatus = context.client.get("/v1/status").await?;
    let mut troubles = troubles(&agent);
    troubles.extend(errors(context).await);
    let exit = if troubles.is_empty() { Exit::Ok } else { Exit::Degraded };
    if context.screen.is_json() {
        context.screen.json(&Told { agent: &agent, troubles: &troubles })?;
        return Ok(exit);
    }
    let AgentStatus { status, fingerprint: print, .. } = agent;
    let verdict = match exit {
        Exit::Ok => Cell::new("all is well", Tone::Good),
        _ => Cell::new(format!("degraded: {}", troubles.join("; ")), Tone::Bad),
    };
    let addresses: Vec<_> = status.addresses.iter().map(ToString::to_string).collect();
    let mut fields = vec![
        ("state", verdict),
        ("node", format!("{} (fingerprint {print})", status.name).into()),
        ("agent", format!("weftd {}", status.version).into()),
        ("executor", format!("{}: {}", status.executor, status.executor_reason).into()),
        ("listens on", addresses.join(" ").into()),
    ];
    if let Some(fabric) = &status.fabric {
        fields.extend(of_fabric(fabric));
        let nodes: Vec<NodeView> = context.client.get("/v1/nodes").await.unwrap_or_default();
        fields.extend(of_nodes(&nodes, &fabric.stopped_agents));
    }
    fields.extend(status.warnings.iter().map(|text| ("warning", Cell::new(text, Tone::Bad))));
    context.screen.fields(&fields)?;
    Ok(exit)
}

/// What the doctor calls an error: a machine is not well beside one. Says nothing where that takes long.
async fn errors(context: &Context) -> Option<String> {
    let asked = context.client.get::<Vec<Finding>>("/v1/doctor");
    let findings = tokio::time::timeout(DOCTOR_TAKES, asked).await.ok()?.ok()?;
    let errors = findings.iter().filter(|finding| finding.level == FindingLevel::Error);
    let checks: Vec<&str> = errors.map(|finding| finding.check.as_str()).collect();
    let checks = Some(checks.join(", ")).filter(|checks| !checks.is_empty())?;
    Some(format!("weft doctor finds errors ({checks})"))
}

/// The first few of these.
fn names(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut text = names[..names.len() - more].join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Which nodes are away, and which are drained.
fn of_nodes(nodes: &[NodeView], stopped: &[String]) -> Vec<(&'static str, Cell)> {
    let named =
        |nodes: Vec<String>, tone| (!nodes.is_empty()).then(|| Cell::new(names(nodes), tone));
    let away = nodes.iter().filter(|node| node.state != NodeState::Alive);
    let state = |node: &NodeView| match stopped.contains(&node.name) {
        true => "its agent has stopped".to_owned(),
        false => node.state.to_string(),
    };
    let away = away.map(|node| format!("{} ({})", node.name, state(node))).collect();
    let drains = |node: &&NodeView| node.info.as_ref().is_some_and(|info| info.draining);
    let draining = nodes.iter().filter(drains).map(|node| node.name.clone());
    let away = named(away, Tone::Bad).map(|cell| ("away", cell));
    let draining = named(draining.collect(), Tone::Busy).map(|cell| ("draining", cell));
    away.into_iter().chain(draining).collect()
}

fn of_fabric(fabric: &FabricStatus) -> Vec<(&'static str, Cell)> {
    let states: Vec<_> =
        fabric.nodes.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let mut fields = vec![
        ("fabric", Cell::from(format!("{} (key {})", fabric.name, fingerprint(&fabric.key)))),
        ("nodes", states.join(", ").into()),
        ("jobs", fabric.jobs.to_string().into()),
        ("slots", format!("{} of {} healthy", fabric.healthy, fabric.wanted).into()),
        ("view", fabric.fingerprint.clone().into()),
    ];
    if fabric.voters.generation > 0 {
        fields.push(("voters", of_voters(&fabric.voters)));
    }
    if fabric.local_health > 0 {
        let text = format!("this node is slow to react (local health {})", fabric.local_health);
        fields.push(("health", Cell::new(text, Tone::Busy)));
    }
    fields
}

/// Who grants leases: by name, with what is wrong with them.
pub fn of_voters(voters: &VotersView) -> Cell {
    let name = |voter: &VoterView| match voter.state {
        NodeState::Alive => voter.name.clone(),
        state => format!("{} ({state})", voter.name),
    };
    let names: Vec<String> = voters.members.iter().map(name).collect();
    let text = format!("{} of {} answer: {}", voters.answering(), names.len(), names.join(", "));
    Cell::new(text, if voters.can_decide() { Tone::Plain } else { Tone::Bad })
}

/// What keeps all from being well, in words.
pub fn troubles(agent: &AgentStatus) -> Vec<String> {
    let AgentStatus { status, entry, .. } = agent;
    let Some(fabric) = &status.fabric else {
        let what = match entry.as_ref().map(|entry| entry.way) {
            Some(Way::Token) => "it joins with the token that it was given",
            Some(Way::Approval) => "it waits to be approved on a member: weft node approve",
            Some(Way::ByHand) | None => "weft init, or weft join TOKEN",
        };
        let mut troubles = vec![format!("in no fabric yet: {what}")];
        if !status.warnings.is_empty() {
            troubles.push("see the warnings".into());
        }
        return troubles;
    };
    if fabric.removed {
        return vec!["it was removed from the fabric, and knows of the others what was so before: see the warnings".into()];
    }
    let mut troubles: Vec<String> = [NodeState::Suspect, NodeState::Dead, NodeState::Unknown]
        .into_iter()
        .filter_map(|state| Some((state, *fabric.nodes.get(&state)?)))
        .filter(|(_, count)| *count > 0)
        .filter_map(|(state, count)| match state {
            // What is expected of them is said of its own.
            NodeState::Dead => {
                let count = count.saturating_sub(fabric.stopped_agents.len() as u32);
                (count > 0).then_some((state, count))
            }
            _ => Some((state, count)),
        })
        .map(|(state, count)| {
            format!("{count} {} {state}", if count == 1 { "node is" } else { "nodes are" })
        })
        .collect();
    if !fabric.stopped_agents.is_empty() {
        let names = names(fabric.stopped_agents.clone());
        let slots = plural(fabric.left_to_them as usize, "slot");
        troubles.push(format!(
            "stopped agents: {names}; their units run on ({slots}), and are placed elsewhere unless they are back within half a \
             minute"
        ));
    }
    let missing = fabric.wanted.saturating_sub(fabric.healthy);
    let missing = missing.saturating_sub(fabric.left_to_them);
    if missing > 0 {
        let missing = plural(missing as usize, "slot");
        troubles.push(match fabric.unplaceable {
            0 => format!("{missing} not healthy"),
            count => format!("{missing} not healthy, {count} of them unplaceable"),
        });
    }
    if !status.warnings.is_empty() {
        troubles.push("see the warnings".into());
    }
    troubles
}

/// What this node finds when it looks at itself.
pub async fn doctor(context: &Context) -> Result<Exit, Failure> {
    let findings: Vec<Finding> = context.client.get("/v1/doctor").await?;
    let has = |level| findings.iter().any(|finding| finding.level == level);
    let exit = if has(FindingLevel::Error) {
        Exit::Failed
    } else if has(FindingLevel::Warning) {
        Exit::Degraded
    } else {
        Exit::Ok
    };
    if context.screen.is_json() {
        context.screen.json(&findings)?;
        return Ok(exit);
    }
    let mut table = Table::new(&["CHECK", "LEVEL", "FOUND"]);
    for finding in &findings {
        let level = match finding.level {
            FindingLevel::Ok => Cell::new("ok", Tone::Good),
            FindingLevel::Warning => Cell::new("warning", Tone::Busy),
            FindingLevel::Error => Cell::new("error", Tone::Bad),
        };
        table.row([finding.check.clone().into(), level, finding.message.clone().into()]);
        if !finding.advice.is_empty() {
            table.row(["".into(), "".into(), format!("do: {}", finding.advice).into()]);
        }
    }
    context.screen.table(&table)?;
    Ok(exit)
}
