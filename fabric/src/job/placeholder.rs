//! `${port.http}` and its kin: what a job does not know before it has a node.
//!
//! They are replaced in the command, in the environment and in the command of a health check, and
//! nowhere else. `$${` stands for `${`; a `$` before anything else is an ordinary character.

use std::collections::BTreeMap;

use super::{Check, Health, Task, nearest};
use crate::cpuset::CpuSet;
use crate::id::AllocId;

/// What the placeholders of one allocation stand for.
#[derive(Clone, Copy, Debug)]
pub struct Placeholders<'a> {
    /// `${job}`, `${slot}` and `${epoch}`.
    pub alloc: &'a AllocId,
    /// `${node}`: the node's name.
    pub node: &'a str,
    /// `${cpus}`: the CPUs it runs on, as in `0-3,8`.
    pub cpus: &'a CpuSet,
    /// `${port.NAME}`.
    pub ports: &'a BTreeMap<String, u16>,
}

/// Why a text with placeholders is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// `${` without `}`.
    #[error("\"${{\" is never closed: write ${{NAME}}, or $${{ for a plain \"${{\"")]
    Unclosed,
    /// There is no such placeholder.
    #[error(
        "there is no ${{{name}}}: {}; for a plain \"${{{name}}}\" write $${{{name}}}",
        suggestion.as_ref().map_or_else(
            || format!("known are {}", PLAIN.map(|name| format!("${{{name}}}")).join(", ") + " and ${port.NAME}"),
            |near| format!("did you mean ${{{near}}}?"),
        )
    )]
    Unknown {
        /// What was written.
        name: String,
        /// The nearest real one.
        suggestion: Option<String>,
    },
    /// The job has no port of that name.
    #[error(
        "${{port.{name}}}: the job has no port {name:?}{}",
        suggestion.as_ref().map_or_else(|| ": add [[port]] with that name".into(), |near| format!(": did you mean {near:?}?"))
    )]
    NoSuchPort {
        /// What was written.
        name: String,
        /// The nearest real one.
        suggestion: Option<String>,
    },
}

const PLAIN: [&str; 5] = ["cpus", "job", "slot", "epoch", "node"];

/// A text, cut at its placeholders.
enum Piece<'t> {
    Text(&'t str),
    Placeholder(&'t str),
}

/// Cuts a text; each `$${` ends up as the text `${`.
fn pieces(text: &str) -> impl Iterator<Item = Result<Piece<'_>, PlaceholderError>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let piece = match rest.find("${") {
            None => Piece::Text(std::mem::take(&mut rest)),
            // `$${`: the first `$` goes, `${` stays.
            Some(at) if rest[..at].ends_with('$') => {
                let before = &rest[..at - 1];
                if before.is_empty() {
                    rest = &rest[at + 2..];
                    Piece::Text("${")
                } else {
                    rest = &rest[at - 1..];
                    Piece::Text(before)
                }
            }
            Some(0) => match rest[2..].split_once('}') {
                Some((name, after)) => {
                    rest = after;
                    Piece::Placeholder(name)
                }
                None => {
                    rest = "";
                    return Some(Err(PlaceholderError::Unclosed));
                }
            },
            Some(at) => {
                let before = &rest[..at];
                rest = &rest[at..];
                Piece::Text(before)
            }
        };
        Some(Ok(piece))
    })
}

fn unknown(name: &str) -> PlaceholderError {
    let name: String = name.chars().take(80).collect();
    let suggestion = nearest(&name, PLAIN.into_iter()).map(str::to_owned);
    PlaceholderError::Unknown { name, suggestion }
}

fn no_such_port<'a>(name: &str, ports: impl Iterator<Item = &'a str>) -> PlaceholderError {
    let name: String = name.chars().take(80).collect();
    let suggestion = nearest(&name, ports).map(str::to_owned);
    PlaceholderError::NoSuchPort { name, suggestion }
}

/// Checks that every placeholder of `text` is known and asks only for `ports` that there are.
pub fn check<'a>(
    text: &str,
    ports: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), PlaceholderError> {
    for piece in pieces(text) {
        let Piece::Placeholder(name) = piece? else { continue };
        match name.strip_prefix("port.") {
            Some(port) if ports.clone().any(|known| known == port) => {}
            Some(port) => return Err(no_such_port(port, ports.clone())),
            None if PLAIN.contains(&name) => {}
            None => return Err(unknown(name)),
        }
    }
    Ok(())
}

/// `text` with its placeholders replaced. Replaced text is not looked at again.
pub fn substitute(text: &str, values: &Placeholders<'_>) -> Result<String, PlaceholderError> {
    use std::fmt::Write;
    let mut replaced = String::with_capacity(text.len());
    for piece in pieces(text) {
        let name = match piece? {
            Piece::Text(text) => {
                replaced.push_str(text);
                continue;
            }
            Piece::Placeholder(name) => name,
        };
        let slot = &values.alloc.slot;
        let written = match name {
            "cpus" => write!(replaced, "{}", values.cpus),
            "job" => write!(replaced, "{}", slot.job),
            "slot" => write!(replaced, "{}", slot.index),
            "epoch" => write!(replaced, "{}", values.alloc.epoch),
            "node" => write!(replaced, "{}", values.node),
            _ => {
                let port = name.strip_prefix("port.").ok_or_else(|| unknown(name))?;
                let number = values.ports.get(port);
                let known = || values.ports.keys().map(String::as_str);
                write!(replaced, "{}", number.ok_or_else(|| no_such_port(port, known()))?)
            }
        };
        written.expect("a String takes everything");
    }
    Ok(replaced)
}

impl Task {
    /// The task of one allocation: command and environment replaced, all else as it is.
    pub fn substitute(&self, values: &Placeholders<'_>) -> Result<Task, PlaceholderError> {
        let command = self.command.iter().map(|text| substitute(text, values));
        let env = self.env.iter().map(|(name, text)| Ok((name.clone(), substitute(text, values)?)));
        Ok(Task {
            command: command.collect::<Result<_, _>>()?,
            env: env.collect::<Result<_, _>>()?,
            ..self.clone()
        })
    }
}

impl Health {
    /// The check of one allocation: its command replaced, if that is what it is.
    pub fn substitute(&self, values: &Placeholders<'_>) -> Result<Health, PlaceholderError> {
        let mut health = self.clone();
        if let Check::Command { command } = &mut health.check {
            for text in command {
                *text = substitute(text, values)?;
            }
        }
        Ok(health)
    }
}

#[cfg(test)]
mod tests;
