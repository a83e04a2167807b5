//! `weft console`: a status screen for a machine that nobody logs in to, on its console and its serial port.
//!
//! It looks every two seconds, and draws only what has changed. [`lines`] is all that is shown, as a function of
//! what is known: at most 80 by 24 printable ASCII characters, for that is what such a console can do.

use fabric::api::{FabricStatus, NodeState};
use std::time::Duration;

use crate::Context;
use crate::exit::{Exit, Failure};
use crate::screen::Tone;
use crate::status::{AgentStatus, Way, fingerprint, troubles};
use crate::watch::{Ended, bounded};

/// Columns and rows of the screen, and the most that is used of a larger one.
const SIZE: (usize, usize) = (80, 24);
/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// An agent that takes longer counts as one that does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Addresses that are shown.
const ADDRESSES_MAX: usize = 4;
/// Lines of one warning.
const WARNING_LINES_MAX: usize = 4;
/// Column at which values begin.
const VALUES: usize = 14;

/// What is known.
#[derive(Clone, Debug, PartialEq)]
enum View {
    /// What the agent says.
    Agent(Box<AgentStatus>),
    /// It says nothing: this machine's name, and why.
    Down { machine: String, reason: String },
}

/// A line of the screen and what it means.
type Line = (String, Tone);

/// Shows the screen until somebody ends it, or once.
pub async fn console(context: &Context, once: bool) -> Result<Exit, Failure> {
    if context.screen.is_json() {
        return Err(Failure::usage("a console is for people: weft status -o json says the same"));
    }
    if once {
        let view = look(context).await;
        for (text, tone) in lines(&view, SIZE) {
            context.screen.data(&context.screen.painted(&text, tone))?;
        }
        return Ok(match view {
            View::Down { .. } => Exit::Unreachable,
            View::Agent(agent) if agent.network && troubles(&agent).is_empty() => Exit::Ok,
            View::Agent(_) => Exit::Degraded,
        });
    }
    match bounded(draw(context), None).await {
        Ended::Itself(result) => result.map(|()| Exit::Ok),
        Ended::TimedOut | Ended::Interrupted => {
            context.screen.bytes(b"\x1b[?25h\r\n")?;
            Ok(Exit::Interrupted)
        }
    }
}

async fn draw(context: &Context) -> Result<(), Failure> {
    let mut shown = None;
    loop {
        let view = look(context).await;
        // A serial port tells no size.
        let (columns, rows) = context.screen.size().unwrap_or(SIZE);
        let now = lines(&view, (columns.min(SIZE.0), rows.min(SIZE.1)));
        if shown.as_ref() != Some(&now) {
            context.screen.bytes(frame(context, &now).as_bytes())?;
            shown = Some(now);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The bytes that put these lines on the screen in place of all else: cursor away and home, each line to its end,
/// and nothing below. No line end after the last, which would scroll.
fn frame(context: &Context, lines: &[Line]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .map(|(text, tone)| format!("{}\x1b[K", context.screen.painted(text, *tone)))
        .collect();
    format!("\x1b[?25l\x1b[H{}\x1b[J", lines.join("\r\n"))
}

async fn look(context: &Context) -> View {
    let down = |reason: String| View::Down { machine: machine_name(), reason };
    let asked = context.client.get::<AgentStatus>("/v1/status");
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(status)) => View::Agent(Box::new(status)),
        Ok(Err(Failure::Said(_, reason))) => down(reason),
        Ok(Err(Failure::Listed(..) | Failure::NobodyReads)) => down("it says nothing".into()),
        Err(_) => down(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
    }
}

fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "this machine".into(), |name| name.trim().to_owned())
}

/// What is shown, on so many columns and rows.
fn lines(view: &View, (columns, rows): (usize, usize)) -> Vec<Line> {
    let mut page = Page { columns, lines: Vec::new() };
    match view {
        View::Agent(agent) => of_agent(&mut page, agent),
        View::Down { machine, reason } => {
            page.title("weft", machine);
            page.field("node", machine, Tone::Plain);
            page.gap();
            page.field("agent", "does not answer", Tone::Bad);
            page.field(
                "",
                "It may be starting. If this stays: systemctl status weftd",
                Tone::Plain,
            );
            page.wrapped(reason, Tone::Faint);
        }
    }
    page.end(rows)
}

fn of_agent(page: &mut Page, agent: &AgentStatus) {
    let AgentStatus { status, fingerprint: print, network, entry } = agent;
    page.title(&format!("weft {}", status.version), &status.name);
    page.field("node", &status.name, Tone::Plain);
    page.field("fingerprint", print, Tone::Plain);
    if *network {
        for (index, address) in status.addresses.iter().take(ADDRESSES_MAX).enumerate() {
            let name = if index == 0 { "addresses" } else { "" };
            page.field(name, &address.to_string(), Tone::Plain);
        }
        let more = status.addresses.len().saturating_sub(ADDRESSES_MAX);
        if more > 0 {
            page.field("", &format!("and {more} more"), Tone::Faint);
        }
    } else {
        page.field("network", "none: no cable, or no address yet", Tone::Bad);
    }
    page.gap();
    match &status.fabric {
        Some(fabric) => of_fabric(page, agent, fabric),
        None => {
            let way = entry.as_ref().map_or(Way::ByHand, |entry| entry.way);
            match way {
                Way::ByHand => {
                    page.field("fabric", "none yet: weft init, or weft join TOKEN", Tone::Busy);
                }
                Way::Token => {
                    page.field(
                        "fabric",
                        "none yet: joining with the token that it was given",
                        Tone::Busy,
                    );
                }
                Way::Approval => {
                    page.field("fabric", "waiting to be approved: on a member run", Tone::Busy);
                    page.field("", &format!("weft node approve {}", status.name), Tone::Plain);
                    page.field(
                        "",
                        "after comparing the fingerprint above with what that asks",
                        Tone::Faint,
                    );
                }
            }
        }
    }
    let mut warnings: Vec<&String> = status.warnings.iter().collect();
    if let Some(trouble) = entry.as_ref().and_then(|entry| entry.trouble.as_ref())
        && !warnings.contains(&trouble)
    {
        warnings.push(trouble);
    }
    if !warnings.is_empty() {
        page.gap();
    }
    for warning in warnings {
        page.wrapped(warning, Tone::Bad);
    }
}

fn of_fabric(page: &mut Page, agent: &AgentStatus, fabric: &FabricStatus) {
    page.field("fabric", &fabric.name, Tone::Plain);
    page.field("", &format!("key {}", fingerprint(&fabric.key)), Tone::Plain);
    let nodes: Vec<String> = [
        (NodeState::Alive, "alive"),
        (NodeState::Suspect, "suspect"),
        (NodeState::Dead, "dead"),
        (NodeState::Left, "left"),
        (NodeState::Unknown, "never seen"),
    ]
    .into_iter()
    .filter_map(|(state, word)| Some((*fabric.nodes.get(&state)?, word)))
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    page.field("nodes", &nodes.join(", "), Tone::Plain);
    let mut slots = format!("{} of {} slots healthy", fabric.healthy, fabric.wanted);
    if fabric.unplaceable > 0 {
        slots.push_str(&format!(", {} without a place", fabric.unplaceable));
    }
    page.field("jobs", &format!("{}: {slots}", fabric.jobs), Tone::Plain);
    let troubles = troubles(agent);
    page.gap();
    match troubles.is_empty() {
        true => page.field("state", "all is well", Tone::Good),
        false => page.field("state", &troubles.join("; "), Tone::Bad),
    }
}

/// Lines as they are put together.
struct Page {
    columns: usize,
    lines: Vec<Line>,
}

impl Page {
    fn title(&mut self, left: &str, right: &str) {
        let (left, right) = (plain(left), plain(right));
        let width = self.columns.saturating_sub(left.len());
        self.push(format!("{left}{right:>width$}"), Tone::Good);
        self.gap();
    }

    fn field(&mut self, name: &str, value: &str, tone: Tone) {
        self.push(format!("{:<VALUES$}{}", plain(name), plain(value)), tone);
    }

    fn gap(&mut self) {
        self.lines.push((String::new(), Tone::Plain));
    }

    /// A sentence that may need more than one line.
    fn wrapped(&mut self, text: &str, tone: Tone) {
        let width = self.columns.saturating_sub(2).max(1);
        let mut rows: Vec<String> = vec![String::new()];
        for word in plain(text).split_whitespace() {
            // A word that is longer than a line is cut by it.
            let row = rows.last_mut().expect("there is one");
            if !row.is_empty() && row.len() + 1 + word.len() > width {
                rows.push(word.to_owned());
            } else {
                if !row.is_empty() {
                    row.push(' ');
                }
                row.push_str(word);
            }
        }
        if rows.len() > WARNING_LINES_MAX {
            rows.truncate(WARNING_LINES_MAX);
            if let Some(last) = rows.last_mut() {
                last.truncate(width.saturating_sub(4));
                last.push_str(" ...");
            }
        }
        for (index, row) in rows.into_iter().enumerate() {
            self.push(format!("{}{row}", if index == 0 { "! " } else { "  " }), tone);
        }
    }

    fn push(&mut self, mut text: String, tone: Tone) {
        text.truncate(self.columns);
        self.lines.push((text.trim_end().to_owned(), tone));
    }

    /// What fits on so many rows.
    fn end(mut self, rows: usize) -> Vec<Line> {
        if self.lines.len() > rows {
            self.lines.truncate(rows);
            if let Some((text, tone)) = self.lines.last_mut() {
                (*text, *tone) = ("... more: weft status".to_owned(), Tone::Faint);
                text.truncate(self.columns);
            }
        }
        self.lines
    }
}

/// Printable ASCII, so that every byte is one column.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            ' '..='~' => c,
            c if c.is_control() => ' ',
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests;
