//! What the agent's own log says of work and of members: a line for each thing that happened, with the names that people use.
//! Of allocations each node tells its own; the rest is in `weft events` everywhere.

use fabric::alloc::Phase;
use fabric::api::{Event, EventKind, NodeState};
use fabric::id::NodeId;
use fabric::io::Request;
use fabric::node::Node;

/// How the words about a job begin whose last version was taken back.
const REVERTED: &str = "reverted";
/// How those about an allocation begin that was given up.
const FAILED: &str = "failed";

/// Something happened.
pub(super) fn tell(event: &Event, me: &NodeId) {
    match &event.what {
        EventKind::Node { name, state: state @ NodeState::Dead, .. } => {
            tracing::warn!("node {name} is {state}")
        }
        EventKind::Node { name, state, .. } => tracing::info!("node {name} is {state}"),
        EventKind::Roster { name, message, .. } => tracing::info!("node {name}: {message}"),
        EventKind::Job { job, version, message } if message.starts_with(REVERTED) => {
            tracing::warn!("job {job} version {version}: {message}")
        }
        EventKind::Job { job, version, message } => {
            tracing::info!("job {job} version {version}: {message}")
        }
        EventKind::Alloc { alloc, on, phase, healthy, message } if on == me => {
            let colon = if message.is_empty() { "" } else { ": " };
            match (phase, healthy) {
                (Phase::Running, true) => tracing::info!("{alloc} is running, healthy"),
                (Phase::Running, false) if !message.is_empty() => {
                    tracing::warn!("{alloc} is running, not healthy: {message}")
                }
                (Phase::Ended, _) if message.starts_with(FAILED) => {
                    tracing::warn!("{alloc} is {phase}{colon}{message}")
                }
                (Phase::Running | Phase::Stopping | Phase::Ended, _) => {
                    tracing::info!("{alloc} is {phase}{colon}{message}")
                }
                // On its way to one of these.
                _ => tracing::debug!("{alloc} is {phase}{colon}{message}"),
            }
        }
        EventKind::Alloc { .. } => {}
    }
}

/// What is said once somebody's wish was carried out. Who submits or scales a job is told with the job itself.
pub(super) fn wish(by: &str, request: &Request, node: &Node) -> Option<String> {
    Some(match request {
        Request::Stop { job } => format!("{by} stops job {job}"),
        Request::RestartJob { job, .. } => format!("{by} restarts job {job}"),
        Request::RestartSlot { job, index } => format!("{by} restarts {job}/{index}"),
        Request::Drain { node: which, on: true } => {
            format!("{by} drains node {}", node.name_of(which))
        }
        Request::Drain { node: which, on: false } => {
            format!("{by} ends the draining of node {}", node.name_of(which))
        }
        Request::RevokeToken { id } => format!("{by} revokes token {}", id.0.escape_debug()),
        Request::SetQuota { namespace, .. } => {
            format!("{by} sets the quota of namespace {namespace}")
        }
        Request::RemoveQuota { namespace } => {
            format!("{by} removes the quota of namespace {namespace}")
        }
        Request::Rebalance { wish } if wish.apply => format!("{by} rebalances the fabric"),
        Request::Reclock => format!("{by} has what is dated ahead dated anew"),
        _ => return None,
    })
}
