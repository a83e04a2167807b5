//! Close looks at what runs.

use fabric::api::{Problem, TraceBody};
use fabric::job::duration;

use super::doc::{Gives, says};
use super::given::{Given, invalid};
use super::{AgentVerb, Operation, Peers, Role, Route, post};

pub const ROUTES: &[Route] = &[post("/v1/traces", Role::Operate, trace).peers(Peers::Relayed).doc(
    says("Look closely at what a job does on one node, for a while. Each event of the stream is a TraceEvent as JSON in a data line, the last one is of type ended. The trace ends when its time is over, or when the stream is closed.")
        .takes("TraceBody")
        .answers(Gives::Events("TraceEvent")),
)];

fn trace(given: &Given<'_>) -> Result<Operation, Problem> {
    let wanted: Box<TraceBody> = given.json()?;
    let most = ebpf::limits::TRACE_TIME_MAX;
    let time = duration::parse(&wanted.time).ok();
    let time = time.filter(|time| !time.is_zero() && *time <= most).ok_or_else(|| {
        invalid(
            "not a trace's time",
            format!("{:?}: write 10s, at most {}", wanted.time, duration::display(most)),
        )
    })?;
    Ok(Operation::Agent(AgentVerb::Trace { wanted, time }))
}
