//! Flame graphs of folded stacks.

use super::stacks::{Stacks, Unit};
use inferno::flamegraph::{Options, from_lines};

/// An SVG of stacks, with this title: as wide as their counts, outermost functions at the bottom.
///
/// # Errors
/// When there are no stacks to draw: nothing ran, or nothing slept.
pub fn flame_graph(stacks: &Stacks, title: &str) -> Result<Vec<u8>, std::io::Error> {
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    match stacks.unit {
        Unit::Samples => "samples",
        Unit::Nanoseconds => "ns",
    }
    .clone_into(&mut options.count_name);
    let lines: Vec<String> =
        stacks.folded.iter().map(|(stack, count)| format!("{stack} {count}")).collect();
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    Ok(svg)
}
