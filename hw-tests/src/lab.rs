//! Boards on a desk: which there are, on what serial port each speaks, and what switches its power.
//!
//! `hw-tests/lab.toml`, or the file that `WEFT_LAB` names; `hw-tests/lab.example.toml` explains every key. A file that
//! cannot be read to its end is refused as a whole, before anything is switched.

use crate::machine::Arch;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::termios::BaudRate;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where it lies unless `WEFT_LAB` names another file.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lab.toml");
/// Boards that one story can tell of within its time limit.
pub const BOARDS_MAX: usize = 16;
/// Characters of a board's name, which files on the bench have.
const NAME_CHARACTERS_MAX: usize = 32;
/// The longest time without power, in seconds.
const SETTLE_SECONDS_MAX: u64 = 60;
/// The longest time that a board may take to come up, in seconds.
const UP_SECONDS_MAX: u64 = 1800;
/// Rates that serial ports of boards have.
const RATES: [(u32, BaudRate); 9] = [
    (9_600, BaudRate::B9600),
    (19_200, BaudRate::B19200),
    (38_400, BaudRate::B38400),
    (57_600, BaudRate::B57600),
    (115_200, BaudRate::B115200),
    (230_400, BaudRate::B230400),
    (460_800, BaudRate::B460800),
    (921_600, BaudRate::B921600),
    (1_500_000, BaudRate::B1500000),
];

/// All boards, by name.
#[derive(Clone, Debug)]
pub struct Lab {
    /// The file. Relative paths in it begin in its folder, and so do its commands.
    pub file: PathBuf,
    /// One at least.
    pub boards: BTreeMap<Name, Spec>,
}

/// One board, as it is written down.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Which of our images it has.
    pub arch: Arch,
    /// A serial device, or a socket that stands for one.
    pub serial: PathBuf,
    /// Of the serial device.
    #[serde(default)]
    pub baud: Baud,
    /// Where that image is.
    #[serde(default)]
    pub starts_from: StartsFrom,
    /// Without power for so long before it is given again: what still holds some must be empty.
    #[serde(default)]
    pub settle: Settle,
    /// From power to the status screen of a node that has found its place, at most.
    #[serde(default)]
    pub up_within: UpWithin,
    /// What switches it.
    pub power: Power,
}

/// Commands: a program and its arguments. Each returns once it is done, with exit status 0.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Gives power.
    pub on: Words,
    /// Takes it away.
    pub off: Words,
    /// Takes it away and gives it again, in place of the other two where power is cut.
    pub cycle: Option<Words>,
}

/// Where a board finds our image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartsFrom {
    /// On a disk or card of its own: it is the same node after each start.
    #[default]
    Disk,
    /// By network. Without a state partition on some disk it is a new node after each start.
    Network,
}

/// Small letters, digits and dashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Words(Vec<String>);

/// Bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Baud(pub BaudRate);

/// Seconds without power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Settle(pub Duration);

/// Seconds from power to the status screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct UpWithin(pub Duration);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    board: BTreeMap<Name, Spec>,
}

impl Lab {
    /// The one of this desk, if it has one. `WEFT_LAB` names the file; empty, it says that there is none.
    pub fn find() -> Result<Option<Self>> {
        match std::env::var_os("WEFT_LAB") {
            Some(file) if file.is_empty() => Ok(None),
            Some(file) => Self::read(Path::new(&file)).map(Some),
            None if Path::new(FILE).exists() => Self::read(Path::new(FILE)).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self> {
        let refused = "no board was switched; hw-tests/lab.example.toml is a file to begin with";
        let text = fs::read_to_string(file)
            .map_err(|error| anyhow!("{}: {error}: {refused}", file.display()))?;
        let boards = parse(&text).map_err(|(line, message)| {
            anyhow!(
                "{}, line {line}: {message}: no board was switched; mend that line, \
                 hw-tests/lab.example.toml explains every key",
                file.display()
            )
        })?;
        Ok(Self { file: std::path::absolute(file)?, boards })
    }

    /// The folder that the file is in.
    pub fn folder(&self) -> Result<&Path> {
        self.file.parent().context("a file lies in a folder")
    }
}

/// All boards, or a line and what is wrong with it.
fn parse(text: &str) -> Result<BTreeMap<Name, Spec>, (usize, String)> {
    let document: Document = toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
        (before.matches('\n').count() + 1, error.message().replace('\n', " "))
    })?;
    match document.board.len() {
        0 => Err((1, "it names no board: begin one with [board.NAME]".into())),
        1..=BOARDS_MAX => Ok(document.board),
        count => Err((1, format!("{count} boards: at most {BOARDS_MAX} are told of at once"))),
    }
}

impl Name {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            (1..=NAME_CHARACTERS_MAX).contains(&name.len()) && name.bytes().all(plain),
            "{name:?} is no name of a board: small letters, digits and dashes, \
             {NAME_CHARACTERS_MAX} at most"
        );
        Ok(Self(name))
    }
}

impl Words {
    /// The program, and what it is given.
    pub fn split(&self) -> (&str, &[String]) {
        // One at least: see below.
        (&self.0[0], &self.0[1..])
    }

    /// As one would type it.
    pub fn line(&self) -> String {
        self.0.join(" ")
    }
}

impl TryFrom<Vec<String>> for Words {
    type Error = anyhow::Error;

    fn try_from(words: Vec<String>) -> Result<Self> {
        ensure!(
            words.first().is_some_and(|program| !program.is_empty()),
            "a command needs a program: write [\"usbrelay\", \"BOARD_1=1\"]"
        );
        ensure!(!words.iter().any(|word| word.contains('\0')), "a command has a zero byte in it");
        Ok(Self(words))
    }
}

impl Default for Baud {
    fn default() -> Self {
        Self(BaudRate::B115200)
    }
}

impl TryFrom<u32> for Baud {
    type Error = anyhow::Error;

    fn try_from(wanted: u32) -> Result<Self> {
        match RATES.iter().find(|(rate, _)| *rate == wanted) {
            Some((_, rate)) => Ok(Self(*rate)),
            None => {
                let known = RATES.map(|(rate, _)| rate.to_string());
                bail!("{wanted} is no baud rate: there are {}", known.join(", "))
            }
        }
    }
}

impl Default for Settle {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl TryFrom<u64> for Settle {
    type Error = anyhow::Error;

    fn try_from(seconds: u64) -> Result<Self> {
        ensure!(
            (1..=SETTLE_SECONDS_MAX).contains(&seconds),
            "{seconds} s without power: write 1 to {SETTLE_SECONDS_MAX}"
        );
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl Default for UpWithin {
    fn default() -> Self {
        Self(Duration::from_secs(300))
    }
}

impl TryFrom<u64> for UpWithin {
    type Error = anyhow::Error;

    fn try_from(seconds: u64) -> Result<Self> {
        ensure!(
            (1..=UP_SECONDS_MAX).contains(&seconds),
            "{seconds} s to come up: write 1 to {UP_SECONDS_MAX}"
        );
        Ok(Self(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests;
