//! The agent's own counters in Prometheus' text format, version 0.0.4.

use std::fmt::Write;

/// Media type of the format.
pub const MEDIA: &str = "text/plain; version=0.0.4";

/// A text under construction. Families come in the order of the calls.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// What kind of number a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the agent.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Exposition {
    /// A family with one sample and no labels.
    pub fn single(&mut self, kind: Kind, name: &str, help: &str, value: u64) {
        self.family(kind, name, help, &[(&[], value)]);
    }

    /// A family: its samples with their labels.
    pub fn family(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        samples: &[(&[(&str, &str)], u64)],
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String cannot fail.
        let _ =
            writeln!(self.text, "# HELP {name} {}", help.replace('\\', "\\\\").replace('\n', " "));
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = write!(self.text, "{name}");
            for (index, (label, text)) in labels.iter().enumerate() {
                let open = if index == 0 { '{' } else { ',' };
                let _ = write!(self.text, "{open}{label}=\"{}\"", escaped(text));
            }
            let close = if labels.is_empty() { "" } else { "}" };
            let _ = writeln!(self.text, "{close} {value}");
        }
    }

    /// The finished text.
    pub fn finish(self) -> String {
        self.text
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
