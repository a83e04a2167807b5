//! What an agent at rest does not do: a second program, `weft-helper`, is started for it and asked ([`helper`]).
//!
//! One process per order, a few at a time, each with a deadline. An answer comes in pieces, which are passed on as they are;
//! whoever stops reading ends the helper.

use fabric::api::{Problem, ProblemKind};
use helper::order::{Frame, HEAD_BYTES, Order, Verb};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::executor::{Executor, Started};

/// Helpers at a time. Whoever comes then is asked to come again.
const HELPERS_MAX: usize = 8;
/// It has begun to answer by then: it may have to wait until a service manager starts it.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);

/// Starts helpers. Clones count the same ones.
#[derive(Clone, Debug)]
pub struct Helpers {
    executor: Executor,
    permits: Arc<Semaphore>,
}

impl Helpers {
    /// Those that this executor starts.
    pub fn new(executor: Executor) -> Self {
        Self { executor, permits: Arc::new(Semaphore::new(HELPERS_MAX)) }
    }

    /// Orders something of a new helper.
    ///
    /// # Errors
    /// When none can be started. What it cannot do, its answer says.
    pub async fn ask(&self, verb: Verb) -> Result<Answer, Problem> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("{HELPERS_MAX} run on this node: try again in a moment");
            Problem::new(ProblemKind::Unavailable, "too many helpers at once", detail)
        })?;
        let failed = |error: std::io::Error| {
            let detail = format!("{error}: `weft doctor` and the agent's log say more");
            Problem::new(ProblemKind::Unavailable, "weft-helper cannot be started", detail)
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut socket = UnixStream::from_std(ours).map_err(failed)?;
        let until = Instant::now() + verb.takes();
        let started = self.executor.start_helper(&verb, OwnedFd::from(theirs)).await;
        let started = started.map_err(failed)?;
        tracing::debug!(helper = started.name(), verb = verb.name(), "a helper begins");
        let mut answer = Answer { started, until, begun: false, _permit: permit, socket: None };
        let order = Order::new(verb).encode();
        match tokio::time::timeout(BEGINS_WITHIN, socket.write_all(&order)).await {
            Ok(Ok(())) => answer.socket = Some(socket),
            Ok(Err(error)) => return Err(answer.broke_off(&error.to_string())),
            Err(_) => return Err(answer.broke_off("it takes no order")),
        }
        Ok(answer)
    }
}

/// What a helper says, piece by piece. Dropping it ends the helper.
#[derive(Debug)]
pub struct Answer {
    started: Started,
    until: Instant,
    begun: bool,
    /// `None`: it is over.
    socket: Option<UnixStream>,
    _permit: OwnedSemaphorePermit,
}

impl Answer {
    /// The next piece; `None`: it was all.
    ///
    /// # Errors
    /// When the helper cannot do it, or has ended before it had. Nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let Some(mut socket) = self.socket.take() else { return Ok(None) };
        let until = match self.begun {
            true => self.until,
            false => self.until.min(Instant::now() + BEGINS_WITHIN),
        };
        match tokio::time::timeout_at(until, frame(&mut socket)).await {
            Ok(Ok(Frame::Piece(piece))) => {
                self.begun = true;
                self.socket = Some(socket);
                Ok(Some(piece))
            }
            Ok(Ok(Frame::End)) => Ok(None),
            Ok(Ok(Frame::Refused(problem))) => Err(problem),
            Ok(Err(Broken::Read(error))) => Err(self.broke_off(&error.to_string())),
            Ok(Err(Broken::Strange(problem))) => Err(problem),
            Err(_) => Err(self.broke_off("it takes too long")),
        }
    }

    /// All of an answer that has one piece.
    ///
    /// # Errors
    /// As [`Answer::next`].
    pub async fn only(mut self) -> Result<Vec<u8>, Problem> {
        let piece = self.next().await?;
        piece.ok_or_else(|| self.broke_off("it said nothing"))
    }

    fn broke_off(&self, why: &str) -> Problem {
        let detail = format!(
            "{}: {why}: the journal of the node says more, and too little memory is the first thing to look for",
            self.started.name()
        );
        Problem::new(ProblemKind::Unavailable, "weft-helper did not finish", detail)
    }
}

enum Broken {
    Read(std::io::Error),
    Strange(Problem),
}

async fn frame(socket: &mut UnixStream) -> Result<Frame, Broken> {
    let mut head = [0; HEAD_BYTES];
    socket.read_exact(&mut head).await.map_err(Broken::Read)?;
    let mut body = vec![0; Frame::length(head).map_err(Broken::Strange)?];
    socket.read_exact(&mut body).await.map_err(Broken::Read)?;
    Frame::decode(head[0], body).map_err(Broken::Strange)
}

#[cfg(test)]
mod tests;
