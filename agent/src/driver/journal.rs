//! What the agent's own log says of work and of members: a line for each thing that happened, with the names that people use.
//! Of allocations each node tells its own; the rest is in `weft events` everywhere.

use fabric::alloc::Phase;
use fabric::api::{Event, EventKind, NodeState};
use fabric::id::NodeId;
use fabric::io::Request;

/// Something happened.
pub(super) fn tell(event: &Event, me: &NodeId) {
    match &event.what {
        EventKind::Node { name, state: state @ NodeState::Dead, .. } => {
            tracing::warn!("node {name} is {state}")
        }
        EventKind::Node { name, state, .. } => tracing::info!("node {name} is {state}"),
        EventKind::Roster { name, message, .. } => tracing::info!("node {name}: {message}"),
        EventKind::Job { job, version, message } => {
            tracing::info!("job {job} version {version}: {message}")
        }
        EventKind::Alloc { alloc, on, phase, healthy, message } if on == me => {
            let colon = if message.is_empty() { "" } else { ": " };
            match (phase, healthy) {
                (Phase::Running, true) => tracing::info!("{alloc} is running, healthy"),
                (Phase::Running, false) if !message.is_empty() => {
                    tracing::warn!("{alloc} is running, not healthy{colon}{message}")
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

/// Somebody wants something changed. Who submits a job is told with the job itself.
pub(super) fn tell_wish(by: &str, request: &Request) {
    match request {
        Request::Stop { job } => tracing::info!("{by} stops job {job}"),
        Request::RestartSlot { job, index } => tracing::info!("{by} restarts {job}/{index}"),
        Request::Drain { node, on: true } => tracing::info!("{by} drains node {}", node.short()),
        Request::Drain { node, on: false } => {
            tracing::info!("{by} ends the draining of node {}", node.short())
        }
        Request::RevokeToken { id } => tracing::info!("{by} revokes token {}", id.0),
        Request::SetQuota { namespace, .. } => {
            tracing::info!("{by} sets the quota of namespace {namespace}")
        }
        Request::RemoveQuota { namespace } => {
            tracing::info!("{by} removes the quota of namespace {namespace}")
        }
        Request::Rebalance { wish } if wish.apply => tracing::info!("{by} rebalances the fabric"),
        Request::Reclock => tracing::info!("{by} has what is dated ahead dated anew"),
        _ => {}
    }
}
