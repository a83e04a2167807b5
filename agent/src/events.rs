//! What happened lately and what happens now, for everyone who asks for `/v1/events`.
//!
//! The ring is bounded and so is each listener's queue: a listener that reads too slowly misses events
//! and is told how many, nobody else notices.

use bytes::Bytes;
use fabric::api::Event;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};

/// Events remembered for those who ask later: a few KiB a hundred.
const RECENT_MAX: usize = 256;
/// Events that a slow listener may be behind before it misses some.
const BEHIND_MAX: usize = 256;
/// A comment is sent this often, so that a listener that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Chunks on their way to one listener: the rest waits in the ring.
const CHUNKS_MAX: usize = 16;

/// The ring and its listeners.
#[derive(Debug)]
pub struct Events {
    recent: VecDeque<Bytes>,
    live: broadcast::Sender<Bytes>,
    /// Number of the last event: its `id` in the stream.
    count: u64,
}

impl Default for Events {
    fn default() -> Self {
        let (live, _) = broadcast::channel(BEHIND_MAX);
        Self { recent: VecDeque::new(), live, count: 0 }
    }
}

impl Events {
    /// Takes in an event and passes it on to everyone who listens.
    pub fn push(&mut self, event: &Event) {
        let json = match serde_json::to_string(event) {
            Ok(json) => json,
            Err(error) => {
                tracing::error!(%error, "an event has no JSON form and is left out");
                return;
            }
        };
        self.count += 1;
        let message = Bytes::from(format!("id: {}\ndata: {json}\n\n", self.count));
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(message.clone());
        // Nobody listens: the ring has it.
        let _ = self.live.send(message);
    }

    /// Events so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The remembered events as server-sent events, and with `follow` all that come from now on.
    pub fn stream(&self, follow: bool) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        let recent: Vec<Bytes> = self.recent.iter().cloned().collect();
        let live = follow.then(|| self.live.subscribe());
        tokio::spawn(feed(recent, live, sender));
        receiver
    }
}

async fn feed(
    recent: Vec<Bytes>,
    live: Option<broadcast::Receiver<Bytes>>,
    sender: mpsc::Sender<Bytes>,
) {
    // Sent at once, so that a listener sees that it is connected.
    if sender.send(Bytes::from_static(b": weft events\n\n")).await.is_err() {
        return;
    }
    for message in recent {
        if sender.send(message).await.is_err() {
            return;
        }
    }
    let Some(mut live) = live else { return };
    loop {
        let message = match tokio::time::timeout(HEARTBEAT, live.recv()).await {
            Ok(Ok(message)) => message,
            Ok(Err(broadcast::error::RecvError::Lagged(missed))) => {
                Bytes::from(format!(": {missed} events missed\n\n"))
            }
            Ok(Err(broadcast::error::RecvError::Closed)) => return,
            Err(_quiet) => Bytes::from_static(b": quiet\n\n"),
        };
        if sender.send(message).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
