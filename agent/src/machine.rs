//! Which machine this is, so that a copied state directory does not become a second node with one key.
//!
//! What a machine tells of itself is kept beside the key, in `machine`, as hashes: what the hardware says, and
//! `/etc/machine-id`. Where both sides have something of the hardware, that alone decides, the most telling one first: the
//! operating system may be installed anew, and an image may keep its machine-id on the very card that was
//! copied. Else the machine-id decides, unless it is made up at each boot. Where nothing can be compared, nothing is refused,
//! and a copy is noticed when both speak; see `driver/twins.rs`.

use anyhow::bail;
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use std::fs;
use std::path::Path;

use crate::identity::{read_bounded, write_whole};

const FILE: &str = "machine";
const MACHINE_ID: &str = "machine-id";
/// What the hardware says, the most telling first.
const HARDWARE: [(&str, &str); 4] = [
    ("device-tree-serial", "sys/firmware/devicetree/base/serial-number"),
    ("product-uuid", "sys/class/dmi/id/product_uuid"),
    ("board-serial", "sys/class/dmi/id/board_serial"),
    ("product-serial", "sys/class/dmi/id/product_serial"),
];
/// What makers write who have no number to write, in small letters.
const NO_NUMBERS: [&str; 10] = [
    "none",
    "default string",
    "to be filled by o.e.m.",
    "not specified",
    "not applicable",
    "system serial number",
    "base board serial number",
    "123456789",
    "uninitialized",
    "03000200-0400-0500-0006-000700080009",
];
/// A hash says no more than that two are the same.
const HASH_BYTES: usize = 16;

/// What a machine tells of itself: names and hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine(Vec<(String, String)>);

impl Machine {
    /// This one, whose files are below `root`.
    pub fn this(root: &Path) -> Self {
        let mut marks = Vec::new();
        for (name, path) in HARDWARE {
            let said = fs::read(root.join(path)).unwrap_or_default();
            let said =
                String::from_utf8_lossy(&said).trim_matches(['\0', '\n', ' ']).to_lowercase();
            if is_number(&said) {
                marks.push((name.to_owned(), hash(name, &said)));
            }
        }
        // One that lies in /run is bound over /etc: it is new at each boot, or lies where the key does.
        let lasts = !root.join("run/machine-id").exists();
        let said = fs::read_to_string(root.join("etc/machine-id")).unwrap_or_default();
        if lasts && is_number(said.trim()) {
            marks.push((MACHINE_ID.to_owned(), hash(MACHINE_ID, said.trim())));
        }
        Self(marks)
    }

    /// What tells it from `other`; `None`: they are one machine, as far as can be seen.
    fn differs_from(&self, other: &Machine) -> Option<&'static str> {
        let names = HARDWARE.iter().map(|(name, _)| *name).chain([MACHINE_ID]);
        let common = names.filter_map(|name| Some((name, self.mark(name)? != other.mark(name)?)));
        let (name, differs) = common.into_iter().next()?;
        differs.then_some(name)
    }

    fn mark(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, hash)| hash.as_str())
    }

    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|(name, hash)| format!("{name} {hash}\n")).collect()
    }

    pub(crate) fn parse(text: &str) -> Self {
        let marks = text.lines().filter_map(|line| line.split_once(' '));
        Self(marks.map(|(name, hash)| (name.to_owned(), hash.to_owned())).collect())
    }
}

/// Refuses to go on with the state directory of another machine. Changes nothing.
///
/// # Errors
/// When it is one.
pub fn check(state: &Path, this: &Machine) -> anyhow::Result<()> {
    let Some(kept) = kept(state) else { return Ok(()) };
    let Some(name) = this.differs_from(&kept) else { return Ok(()) };
    bail!(
        "{state} belongs to another machine ({name} differs), and two machines with one key would be one node to all \
         others. If it was copied here (a card, an image, a clone, a backup of another node), remove what is in \
         {state} and join as a node of its own. If this machine replaces the other one, which stays off for good, \
         remove {file} and start again",
        state = state.display(),
        file = state.join(FILE).display()
    )
}

/// Notes that the key is this machine's, if that is not what is noted.
pub fn bind(state: &Path, this: &Machine) {
    if kept(state).as_ref() == Some(this) {
        return;
    }
    if let Err(error) = write_whole(&state.join(FILE), this.text().as_bytes()) {
        tracing::warn!(%error, "cannot note which machine this is: a copy of its disk would not be refused");
    }
}

/// What was noted. One that was cut off or is empty is as good as none.
fn kept(state: &Path) -> Option<Machine> {
    let bytes = read_bounded(&state.join(FILE)).ok().flatten()?;
    Some(Machine::parse(&String::from_utf8(bytes).ok()?))
}

/// Whether this tells a machine from others: not empty, not a phrase, not one digit again and again.
fn is_number(said: &str) -> bool {
    let mut digits = said.chars().filter(|c| c.is_alphanumeric());
    let first = digits.next();
    !NO_NUMBERS.contains(&said) && first.is_some() && digits.any(|digit| Some(digit) != first)
}

fn hash(name: &str, said: &str) -> String {
    let whole = digest(&SHA256, format!("weft machine 1\0{name}\0{said}").as_bytes());
    HEXLOWER.encode(&whole.as_ref()[..HASH_BYTES])
}

#[cfg(test)]
mod tests;
