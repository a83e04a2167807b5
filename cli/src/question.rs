//! What is asked before something is changed that cannot simply be changed back.

use fabric::api::Status;
use std::io;
use tokio::signal::unix::{SignalKind, signal};

use crate::Context;
use crate::context::Way;
use crate::exit::{Exit, Failure};
use crate::screen::printable;

impl Context {
    /// Asks whether to go on, where somebody can be asked and has not said so before. Says which fabric it is about, and by
    /// way of which machine: there may be several.
    pub async fn confirm(&self, question: &str, yes: bool) -> Result<bool, Failure> {
        if yes || !self.screen.is_interactive() {
            return Ok(true);
        }
        let status: Status = self.client.get("/v1/status").await?;
        let asked = match &self.way {
            Way::Socket(_) => status.name,
            Way::Host(host) => format!("{} ({host})", status.name),
        };
        let of = match status.fabric {
            Some(fabric) => format!("fabric {}, by way of {asked}", fabric.name),
            None => asked,
        };
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::failed(format!("cannot read the answer: {error}; nothing was changed"))
        };
        // Before there is a question to be interrupted at.
        let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| cannot(&error))?;
        self.screen.ask(&printable(&format!("{of}: {question}")));
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            io::stdin().read_line(&mut answer).map(|_| answer)
        });
        tokio::select! {
            answer = answer => {
                let answer = answer.map_err(|error| cannot(&error))?.map_err(|error| cannot(&error))?;
                Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
            }
            _ = interrupted.recv() => {
                Err(Failure::Said(Exit::Interrupted, "nothing was changed".into()))
            }
        }
    }
}
