//! `weft top`: what nodes, jobs and allocations use, again and again.

mod keys;
mod measured;
mod view;

use fabric::api::{AllocView, JobView, NodeView};
use std::time::Duration;
use tokio::time::Instant;

use crate::Context;
use crate::arguments::{Order, Top};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::prometheus::warn;
use crate::screen::{Screen, printable};
use crate::watch::{Ended, bounded};
use keys::{Key, Keys};
use measured::Measured;

/// Between two looks: less would mostly measure the looking.
const EVERY_MIN: Duration = Duration::from_millis(200);

/// All that is shown at one time.
struct Snapshot {
    nodes: Vec<NodeView>,
    jobs: Vec<JobView>,
    allocs: Vec<AllocView>,
    measured: Measured,
}

impl Snapshot {
    async fn take(client: &Client, screen: &Screen) -> Result<Self, Failure> {
        let (nodes, jobs, allocs, measured) = tokio::join!(
            client.get("/v1/nodes"),
            client.get("/v1/jobs"),
            client.get("/v1/allocs"),
            Measured::ask(client, screen),
        );
        Ok(Self { nodes: nodes?, jobs: jobs?, allocs: allocs?, measured })
    }
}

/// Draws until somebody has seen enough, or prints.
pub async fn top(context: &Context, wanted: Top) -> Result<Exit, Failure> {
    let screen = &context.screen;
    let every = wanted.every.max(EVERY_MIN);
    match screen.size().filter(|_| screen.interactive && !wanted.batch && !screen.is_json()) {
        Some(_) => draw(context, every, wanted.looks, wanted.sort).await,
        None => print(context, every, wanted.looks.unwrap_or(1), wanted.sort).await,
    }
}

/// One look after the other, below each other.
async fn print(
    context: &Context,
    every: Duration,
    looks: u32,
    order: Order,
) -> Result<Exit, Failure> {
    let screen = &context.screen;
    let work = async {
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(every).await;
            }
            let mut snapshot = Snapshot::take(&context.client, screen).await?;
            if screen.is_json() {
                let json = view::json(&snapshot, order);
                if looks == 1 {
                    screen.json(&json)?
                } else {
                    screen.json_line(&json)?
                }
                continue;
            }
            if look > 0 {
                screen.data("")?;
            }
            screen.bytes(view::text(&snapshot, order, screen).as_bytes())?;
            warn(screen, &mut snapshot.measured.warnings);
        }
        Ok(Exit::Ok)
    };
    match bounded(work, None).await {
        Ended::Itself(result) => result,
        Ended::TimedOut | Ended::Interrupted => Ok(Exit::Interrupted),
    }
}

/// One look in place of the other, until q or Ctrl-C.
async fn draw(
    context: &Context,
    every: Duration,
    looks: Option<u32>,
    mut order: Order,
) -> Result<Exit, Failure> {
    let screen = &context.screen;
    let mut keys = Keys::listen(screen)?;
    let work = async {
        let mut seen = 0;
        loop {
            let began = Instant::now();
            let snapshot = Snapshot::take(&context.client, screen).await?;
            seen += 1;
            loop {
                show(screen, &snapshot, order)?;
                if looks == Some(seen) {
                    return Ok(Exit::Ok);
                }
                tokio::select! {
                    () = tokio::time::sleep_until(began + every) => break,
                    key = keys.next() => match key {
                        Key::Quit => return Ok(Exit::Ok),
                        Key::Sort(by) => order = by,
                        Key::Other => {}
                    },
                }
            }
        }
    };
    match bounded(work, None).await {
        Ended::Itself(result) => result,
        // It is how one leaves: nothing was interrupted.
        Ended::TimedOut | Ended::Interrupted => Ok(Exit::Ok),
    }
}

fn word(order: Order) -> &'static str {
    match order {
        Order::Name => "name",
        Order::Cpu => "CPU",
        Order::Memory => "memory",
        Order::Runq => "run queue",
        Order::Disk => "disk",
    }
}

fn show(screen: &Screen, snapshot: &Snapshot, order: Order) -> Result<(), Failure> {
    let rows = screen.size().map_or(24, |(_, rows)| rows);
    let mut text = view::text(snapshot, order, screen);
    for warning in &snapshot.measured.warnings {
        text.push_str(&format!("warning: {}\n", printable(warning)));
    }
    let hint =
        format!("q ends   sorted by {}: n name  c CPU  m memory  r run queue  d disk", word(order));
    let mut lines: Vec<&str> = text.lines().take(rows.saturating_sub(2)).collect();
    lines.push(&hint);
    // From the top left; what was there before is overwritten, and what is left of it erased.
    screen.bytes(format!("\x1b[H{}\x1b[K\n\x1b[J", lines.join("\x1b[K\n")).as_bytes())
}
