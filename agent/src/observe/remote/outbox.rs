//! Messages that wait for the receiver, and what becomes of them: no clock, no socket.
//!
//! ```text
//!            push               step            settle(Taken)
//!  nothing ------> waiting ----------> sending --------------> waiting or nothing
//!                   ^   ^                |  | settle(Refused): its samples are lost
//!                   |   '----------------'  '----------------> waiting or nothing
//!                   |    settle(Failed): it stays the first, and the pause doubles
//!                   '-- full: the oldest is dropped
//! ```

use bytes::Bytes;
use metrics::remote_write::Batch;
use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::BootTime;

/// Bytes that wait at most, compressed: a quarter of an hour of a node with a thousand series, and a part of what
/// the store takes.
pub const WAITING_BYTES_MAX: usize = 1 << 20;
/// Messages that wait at most: small ones have their costs, too.
pub const WAITING_MAX: usize = 512;
/// The pause after a failure; each further one doubles it.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause, and the longest that a receiver can ask for: it is not away for ever.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has the samples.
    Taken,
    /// It does not want them, and would not want them a second time.
    Refused(String),
    /// It may take them later.
    Failed {
        /// Why not now.
        reason: String,
        /// How long it wants to be left alone, if it said so.
        pause: Option<Duration>,
    },
}

/// What the sender does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This message, and then [`Outbox::settle`].
    Send(Bytes),
    /// Until then, or until there is another message.
    Wait(Option<Duration>),
    /// Nobody sends any more.
    End,
}

/// What was counted, in samples unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// The receiver has them.
    pub sent: u64,
    /// It refused them, and they are lost.
    pub failed: u64,
    /// They gave way to newer ones, and are lost.
    pub dropped: u64,
    /// Requests that failed and were, or will be, made again.
    pub retries: u64,
    /// They are not sent yet.
    pub waiting: u64,
    /// `None`: the last request was taken.
    pub trouble: Option<Trouble>,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In the receiver's words, or the kernel's.
    pub reason: String,
    /// Whether the same samples are sent again.
    pub again: bool,
}

/// The queue.
///
/// Invariants: never more than [`WAITING_MAX`] messages and [`WAITING_BYTES_MAX`] bytes; messages leave in the order
/// in which they came, since a receiver takes no older sample after a newer one; the one that is being sent is
/// not dropped; every sample that came is waiting, sent, failed or dropped.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<(Bytes, u64)>,
    bytes: usize,
    /// The first is on its way.
    sending: bool,
    pause: Duration,
    not_before: BootTime,
    books: Books,
    closed: bool,
}

impl Outbox {
    /// Another message. The oldest make room for it.
    pub fn push(&mut self, batch: Batch) {
        let oldest = usize::from(self.sending);
        while self.waiting.len() >= WAITING_MAX || self.bytes + batch.body.len() > WAITING_BYTES_MAX
        {
            let Some((body, samples)) = self.waiting.remove(oldest) else { break };
            self.bytes -= body.len();
            self.books.dropped += samples;
        }
        self.bytes += batch.body.len();
        self.waiting.push_back((batch.body.into(), batch.samples));
    }

    /// What to do next.
    pub fn step(&mut self, now: BootTime) -> Step {
        if self.closed {
            return Step::End;
        }
        let Some((body, _)) = self.waiting.front() else { return Step::Wait(None) };
        let left = self.not_before.since(now);
        if !left.is_zero() {
            return Step::Wait(Some(left));
        }
        self.sending = true;
        Step::Send(body.clone())
    }

    /// What became of the message that was to be sent.
    pub fn settle(&mut self, now: BootTime, outcome: Outcome) {
        self.sending = false;
        self.not_before = now;
        self.books.trouble = match outcome {
            Outcome::Failed { reason, pause } => {
                self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                let asked = pause.unwrap_or_default().min(PAUSE_MAX);
                self.not_before = now + self.pause.max(asked);
                self.books.retries += 1;
                Some(Trouble { reason, again: true })
            }
            Outcome::Taken => {
                self.books.sent += self.done();
                None
            }
            Outcome::Refused(reason) => {
                self.books.failed += self.done();
                Some(Trouble { reason, again: false })
            }
        };
    }

    /// What was counted until now.
    pub fn books(&self) -> Books {
        let waiting = self.waiting.iter().map(|(_, samples)| samples).sum();
        Books { waiting, ..self.books.clone() }
    }

    /// Nobody sends any more.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The first one has been answered for good: its samples.
    fn done(&mut self) -> u64 {
        self.pause = Duration::ZERO;
        let Some((body, samples)) = self.waiting.pop_front() else { return 0 };
        self.bytes -= body.len();
        samples
    }
}

#[cfg(test)]
mod tests;
