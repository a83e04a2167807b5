//! Answers that are read from the core's state, beside the loop.
//!
//! ```text
//!   a question ──► does somebody read now? ──no──► a copy of the state ──► read in a thread ──► the answer
//!                        │ yes                            ▲                        │ done
//!                        └──► waits, with whoever comes ──┴────────────────────────┘
//! ```
//!
//! Whoever asks sees all that was done before. Ten who ask at once cost the loop two copies, in which rows are shared, and
//! no more than one copy is there at a time.

use fabric::clock::Now;
use fabric::node::Node;
use tokio::sync::mpsc;

use super::CallAnswer;
use crate::api::Read;

/// Whoever has asked for something that is to be read.
pub(super) struct Readers {
    waiting: Vec<(Now, Read, CallAnswer)>,
    /// Somebody reads now.
    busy: bool,
    done: mpsc::Sender<()>,
}

impl Readers {
    /// Nobody yet. Where it says that somebody is done, [`Readers::go_on`] is to be called.
    pub(super) fn new() -> (Self, mpsc::Receiver<()>) {
        let (done, told) = mpsc::channel(1);
        (Self { waiting: Vec::new(), busy: false, done }, told)
    }

    /// Has it read as soon as it is its turn.
    pub(super) fn ask(&mut self, node: &Node, now: Now, read: Read, answer: CallAnswer) {
        self.waiting.push((now, read, answer));
        if !self.busy {
            self.begin(node);
        }
    }

    /// Those who waited have their turn.
    pub(super) fn go_on(&mut self, node: &Node) {
        self.busy = false;
        if !self.waiting.is_empty() {
            self.begin(node);
        }
    }

    fn begin(&mut self, node: &Node) {
        self.busy = true;
        let turn = Turn(self.done.clone());
        let (snapshot, waiting) = (node.snapshot(), std::mem::take(&mut self.waiting));
        tokio::task::spawn_blocking(move || {
            // Over when all this is gone, even if one of them panics.
            let _turn = turn;
            let snapshot = snapshot;
            for (now, read, answer) in waiting {
                if !answer.is_closed() {
                    let _ = answer.send(read(&snapshot, now));
                }
            }
        });
    }
}

/// Says when it is over.
struct Turn(mpsc::Sender<()>);

impl Drop for Turn {
    fn drop(&mut self) {
        // There is room for it: there is one turn at a time.
        let _ = self.0.try_send(());
    }
}

#[cfg(test)]
mod tests;
