//! Traces on demand: how much of the kernel's memory those that run may have, and their pieces as a stream.
//!
//! A helper makes each trace ([`crate::helpers`]). The bound holds for all of this node together, so the agent keeps count.

use bytes::Bytes;
use ebpf::limits::TRACES_BYTES_MAX;
use ebpf::trace::Refused;
use fabric::api::{Problem, ProblemKind, TraceEvent, TraceWhat};
use fabric::id::JobName;
use helper::order::{Subject, Tried, Verb};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

use crate::clock::BootTime;
use crate::helpers::{Answer, Helpers};

/// Media type of the stream.
pub const MEDIA: &str = "text/event-stream";
/// Pieces of a stream that wait for its reader. Then the helper waits, and events stay in the kernel.
const CHUNKS_MAX: usize = 4;

/// Makes traces. Clones share the room there is.
#[derive(Clone, Debug)]
pub struct Tracer {
    helpers: Helpers,
    room: Arc<Room>,
}

/// The traces that run, and what they have of the kernel's memory.
#[derive(Debug, Default)]
struct Room {
    taken: Mutex<Vec<Taken>>,
}

/// What one of them has. Given back by [`Permit`].
#[derive(Debug)]
struct Taken {
    number: u64,
    bytes: usize,
    /// `None`: it tries what could be traced.
    of: Option<(TraceWhat, JobName, BootTime)>,
}

/// Room for one trace, given back when this is dropped.
#[derive(Debug)]
struct Permit {
    room: Arc<Room>,
    number: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.room.lock().retain(|taken| taken.number != self.number);
    }
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Vec<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(
        self: &Arc<Self>,
        needed: usize,
        of: Option<(TraceWhat, JobName, BootTime)>,
    ) -> Result<Permit, Problem> {
        let mut taken = self.lock();
        let used: usize = taken.iter().map(|taken| taken.bytes).sum();
        if used + needed > TRACES_BYTES_MAX {
            let now = BootTime::now();
            let one = |taken: &Taken| {
                let Some((what, job, until)) = &taken.of else {
                    return "a look at what could be traced".to_owned();
                };
                let left = until.since(now).as_secs();
                format!("{} of {job} for {left} s more", what.name())
            };
            let running = taken.iter().map(one).collect::<Vec<_>>().join(", ");
            let detail =
                format!("{}; running here: {running}", Refused::OverBudget { used, needed });
            let title = "other traces have the room there is";
            return Err(Problem::new(ProblemKind::Conflict, title, detail));
        }
        let number = taken.last().map_or(0, |last| last.number + 1);
        taken.push(Taken { number, bytes: needed, of });
        Ok(Permit { room: Arc::clone(self), number })
    }
}

impl Tracer {
    /// Those that these helpers make.
    pub fn new(helpers: Helpers) -> Self {
        Self { helpers, room: Arc::default() }
    }

    /// Starts a trace. Dropping the stream ends it.
    ///
    /// # Errors
    /// When the kernel cannot, or other traces have all the room there is: with what they are.
    pub async fn start(
        &self,
        job: JobName,
        subject: Subject,
    ) -> Result<mpsc::Receiver<Bytes>, Problem> {
        let (what, time) = (subject.what, subject.time);
        let until = BootTime::now() + time;
        let bytes = helper::kernel_side(what).bytes();
        let permit = self.room.take(bytes, Some((what, job.clone(), until)))?;
        let mut answer = self.helpers.ask(Verb::Trace(subject)).await?;
        // Until it has begun it may be refused, and then there is no stream.
        let first = answer.next().await?;
        tracing::info!(%job, what = what.name(), ?time, "a trace begins");
        let (stream, receiver) = mpsc::channel(CHUNKS_MAX);
        tokio::spawn(async move {
            pass_on(answer, first, stream).await;
            tracing::info!(%job, what = what.name(), "a trace ends");
            drop(permit);
        });
        Ok(receiver)
    }

    /// Tries every kind of trace, each for no time at all: milliseconds of one core. None is tried while others have the room.
    ///
    /// # Errors
    /// When there is no helper to try it.
    pub async fn attempt(&self) -> Result<Tried, Problem> {
        // One after the other.
        let all = ebpf::trace::What::ALL.iter().map(|what| what.bytes());
        let Ok(_permit) = self.room.take(all.max().unwrap_or(0), None) else {
            return Ok(Tried::new());
        };
        let tried = self.helpers.ask(Verb::TryTraces).await?.only().await?;
        serde_json::from_slice(&tried).map_err(|error| {
            let title = "weft-helper answered with nonsense";
            Problem::new(ProblemKind::Internal, title, error.to_string())
        })
    }
}

/// Hands pieces to a reader, as events of a stream, until the last one or until it has gone.
async fn pass_on(mut answer: Answer, first: Option<Vec<u8>>, stream: mpsc::Sender<Bytes>) {
    let mut piece = first;
    while let Some(json) = piece {
        // An event of the stream is one line.
        if json.contains(&b'\n') || stream.send(event(&json)).await.is_err() {
            return;
        }
        let next = tokio::select! {
            next = answer.next() => next,
            () = stream.closed() => return,
        };
        piece = match next {
            Ok(next) => next,
            Err(problem) => {
                tracing::warn!(%problem, "a trace broke off");
                let failed = serde_json::to_vec(&TraceEvent::Failed { problem });
                let _ = stream.send(event(&failed.unwrap_or_default())).await;
                return;
            }
        };
    }
}

fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}

#[cfg(test)]
mod tests;
