//! Counts by stack, and the names of what is on them.

use super::symbols::Symbols;
use crate::hooks::Hooks;
use crate::status::Status;
use crate::table::{Table, words};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::collections::BTreeMap;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// How often somebody was seen there.
    Samples,
    /// How long somebody was there.
    Nanoseconds,
}

/// Counts by stack.
#[derive(Clone, Debug)]
pub struct Stacks {
    /// Of what.
    pub unit: Unit,
    /// By stack, folded: the program's name, then functions from the outermost to the innermost, separated by
    /// semicolons, as flame graphs are made of. Functions of the kernel end with `_[k]`. What has no name is called
    /// after the file that it is in, or `[unknown]`.
    pub folded: BTreeMap<String, u64>,
    /// What there was no room for, in the same unit.
    pub lost: u64,
}

impl Stacks {
    pub(super) fn read(hooks: &Hooks, unit: Unit) -> Result<Self, Status> {
        let refused = |error: libbpf_rs::Error| Status::refused("stacks", &error, "");
        let mut table = Table::<5>::new(hooks, "counts", &[])?;
        let addresses = hooks.map("stacks")?;
        let mut symbols = Symbols::default();
        let mut folded: BTreeMap<String, u64> = BTreeMap::new();
        for ([process, kernel, user, name_low, name_high], row) in table.rows().map_err(refused)? {
            let mut line = program_name(name_low, name_high);
            for address in stack(&addresses, user).map_err(refused)? {
                push(&mut line, &symbols.of_program(process as u32, address));
            }
            for address in stack(&addresses, kernel).map_err(refused)? {
                push(&mut line, &symbols.of_kernel(address));
                line.push_str("_[k]");
            }
            *folded.entry(line).or_default() += row.numbers.first().unwrap_or(&0);
        }
        Ok(Self { unit, folded, lost: super::lost(hooks)? })
    }
}

/// A line of folded stacks has a meaning for semicolons and line ends.
fn push(line: &mut String, frame: &str) {
    line.push(';');
    line.extend(frame.chars().map(|c| if c == ';' || c.is_control() { ':' } else { c }));
}

/// Sixteen bytes in two words.
fn program_name(low: u64, high: u64) -> String {
    let bytes = [low.to_ne_bytes(), high.to_ne_bytes()].concat();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let mut name = String::new();
    push(&mut name, &String::from_utf8_lossy(&bytes[..end]));
    name.split_off(1)
}

/// Addresses, outermost first. Nothing for a number that stands for an error.
fn stack(addresses: &MapHandle, number: u64) -> libbpf_rs::Result<Vec<u64>> {
    let Ok(number) = u32::try_from(number) else { return Ok(Vec::new()) };
    let bytes = addresses.lookup(&number.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
    let mut stack: Vec<u64> = words(&bytes).take_while(|address| *address != 0).collect();
    stack.reverse();
    Ok(stack)
}
