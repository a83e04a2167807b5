//! What callers get from a member: answers read from the core's state, and wishes handed to the core.

use fabric::api::{Problem, ProblemKind};
use fabric::clock::Now;
use fabric::id::JobName;
use fabric::io::{Answer, Request};
use fabric::node::Node;

use super::readers::Read;
use crate::http::{Operation, Reply};

/// What is to be done about an operation.
pub(super) enum Step {
    /// It is refused.
    Refused(Problem),
    /// It is read from the core's state.
    Read(Read),
    /// The core decides.
    Ask(Request),
    /// It is about the agent itself.
    Other(Operation),
}

/// Says how to read what can be read from the core's state, and turns wishes into the core's words.
pub(super) fn step(node: &Node, now: Now, operation: Operation, by: &str) -> Step {
    let by = || by.to_owned();
    let request = match operation {
        Operation::Nodes => return read(|node| Reply::json(&node.nodes())),
        Operation::Node(name) => return read(move |node| one_node(node, &name)),
        Operation::Jobs => return read(|node| Reply::json(&node.jobs())),
        Operation::Job(job) => return read(move |node| one_job(node, &job)),
        Operation::Allocs { job, all } => {
            return read(move |node| Reply::json(&node.allocs(job.as_ref(), all)));
        }
        Operation::Plan(spec) => return read(move |node| Reply::json(&node.plan(now, &spec)?)),
        Operation::Explain(job) => return read(move |node| Reply::json(&node.explain(now, &job)?)),
        Operation::Versions(job) => {
            return read(move |node| match node.versions(&job) {
                Ok(versions) => Reply::json(&versions),
                Err(_) => Err(no_such_job(&job, node.job_names())),
            });
        }
        Operation::Tokens => return read(move |node| Reply::json(&node.tokens(now))),
        Operation::Quotas => return read(|node| Reply::json(&node.quotas())),
        Operation::SetQuota { namespace, wanted } => {
            Request::SetQuota { namespace, quota: wanted.quota, force: wanted.force }
        }
        Operation::RemoveQuota(namespace) => Request::RemoveQuota { namespace },
        Operation::Submit { spec, expected_version } => {
            Request::Submit { spec, by: by(), expected_version }
        }
        Operation::Rebalance(wish) => Request::Rebalance { wish },
        Operation::Reclock => Request::Reclock,
        Operation::StopJob(job) => Request::Stop { job },
        Operation::Scale { job, count } => Request::Scale { job, count, by: by() },
        Operation::Restart { job, slot: None } => Request::RestartJob { job, by: by() },
        Operation::Restart { job, slot: Some(index) } => Request::RestartSlot { job, index },
        Operation::Drain { node: name, on } => match node.find_node(&name) {
            Ok(node) => Request::Drain { node, on },
            Err(problem) => return Step::Refused(problem),
        },
        Operation::RevokeToken(id) => Request::RevokeToken { id },
        Operation::Init(_) | Operation::Join(_) => {
            return Step::Refused(belongs_already(node));
        }
        other => return Step::Other(other),
    };
    Step::Ask(request)
}

fn read(read: impl FnOnce(&Node) -> Result<Reply, Problem> + Send + 'static) -> Step {
    Step::Read(Box::new(read))
}

/// What an HTTP caller gets of the core's answer.
pub(super) fn reply(answer: Answer) -> Result<Reply, Problem> {
    match answer {
        Answer::Submitted(submitted) => Reply::json(&submitted),
        Answer::Done => Ok(Reply::Done),
        Answer::Rebalanced(rebalance) => Reply::json(&rebalance),
        Answer::Refused(problem) => Err(problem),
        Answer::Enrolled { .. } => Err(Problem::new(
            ProblemKind::Internal,
            "an enrolment answered a caller of the API",
            "this is a bug of the agent",
        )),
    }
}

/// What who asks a node to enter a fabric is told that has been in one.
pub(super) fn belongs_already(node: &Node) -> Problem {
    let (title, detail) = match node.is_removed() {
        true => (
            "this node was removed from its fabric",
            "to use it again, stop the agent, empty its state directory, start it, and join with a new token".to_owned(),
        ),
        false => (
            "this node belongs to a fabric already",
            format!(
                "it belongs to {}; to move it, stop the agent, empty its state directory, and start it again",
                node.fabric_name()
            ),
        ),
    };
    Problem::new(ProblemKind::Conflict, title, detail)
}

fn one_node(node: &Node, name: &str) -> Result<Reply, Problem> {
    Reply::json(&node.node_view(node.find_node(name)?))
}

fn one_job(node: &Node, name: &JobName) -> Result<Reply, Problem> {
    match node.job(name) {
        Ok(view) => Reply::json(&view),
        Err(_) => Err(no_such_job(name, node.job_names())),
    }
}

/// Says which job may have been meant.
pub(super) fn no_such_job<'a>(name: &JobName, jobs: impl Iterator<Item = &'a str>) -> Problem {
    let detail = match fabric::job::nearest(name.as_str(), jobs) {
        Some(near) => format!("did you mean {near}? `weft jobs` shows those that there are"),
        None => "`weft jobs` shows those that there are".into(),
    };
    Problem::new(ProblemKind::NotFound, format!("there is no job {name}"), detail)
}
