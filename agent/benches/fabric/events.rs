//! When something was said: lines of many programs, and events of many agents, on one clock.

use fabric::api::{Event, EventKind};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(90);

/// Somebody's line.
#[derive(Debug)]
pub struct Line {
    /// When it came.
    pub at: Instant,
    /// Whose, by the number that was given.
    pub who: usize,
    /// What it says.
    pub text: String,
}

impl Line {
    /// The event that it is.
    pub fn event(&self) -> Option<EventKind> {
        let event: Event = serde_json::from_str(self.text.strip_prefix("data: ")?).ok()?;
        Some(event.what)
    }
}

/// Reads lines of many sources as they come.
pub struct Listener {
    sender: Sender<Line>,
    lines: Receiver<Line>,
}

impl Listener {
    pub fn new() -> Self {
        let (sender, lines) = channel();
        Self { sender, lines }
    }

    /// Reads what comes from `source`, until it ends.
    pub fn read(&self, who: usize, source: impl Read + Send + 'static) {
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for text in BufReader::new(source).lines().map_while(Result::ok) {
                if sender.send(Line { at: Instant::now(), who, text }).is_err() {
                    break;
                }
            }
        });
    }

    /// Reads an agent's events, the ones to come too.
    pub fn follow(&self, who: usize, socket: &Path) {
        let mut stream = UnixStream::connect(socket).expect("the agent listens");
        let request = "GET /v1/events?follow=true HTTP/1.1\r\nhost: weft\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("the agent reads");
        self.read(who, stream);
    }

    /// Forgets what came until now.
    pub fn skip(&self) {
        while self.lines.try_recv().is_ok() {}
    }

    /// Waits for the first line that gives something.
    pub fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&Line) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("waited in vain until {what}"));
            if let Some(found) = wanted(&line) {
                return found;
            }
        }
    }
}
