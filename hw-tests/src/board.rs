//! A board of the lab: its power, its serial port, and what that shows.

use crate::console::Console;
use crate::lab::{Lab, Name, Spec};
use crate::power::{SWITCHED_WITHIN, switch};
use crate::screen::{Screen, without_escapes};
use crate::workshop::Bench;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long after power has come a serial port may be missing: one that the board itself powers has to be found first.
const PORT_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked at what a board shows.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How much is quoted of what it wrote last, in bytes.
const QUOTED_BYTES_MAX: usize = 600;

/// A board whose serial port is followed. It keeps its power when this is dropped.
pub struct Board {
    /// As it is written down.
    pub spec: Spec,
    name: Name,
    folder: PathBuf,
    log: PathBuf,
    console: Console,
    /// What its port had said when power came last, in bytes, and when that was.
    powered: (u64, Instant),
}

impl Board {
    /// Begins to follow the port. Nothing is switched yet.
    pub fn new(lab: &Lab, name: &Name, spec: &Spec, bench: &Bench) -> Result<Self> {
        let folder = lab.folder()?.to_owned();
        let heard = bench.path(&format!("{}.serial", name.as_str()));
        Ok(Self {
            console: Console::follow(&folder.join(&spec.serial), spec.baud, &heard)?,
            log: bench.path(&format!("{}.power", name.as_str())),
            powered: (0, Instant::now()),
            name: name.clone(),
            spec: spec.clone(),
            folder,
        })
    }

    /// As the lab calls it.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Switches it on, from a state without power: a board that ran already would have nothing new to show.
    pub fn switch_on(&mut self) -> Result<()> {
        self.off_and_on().with_context(|| self.name.as_str().to_owned())
    }

    /// Cuts its power and gives it again.
    pub fn cut_power(&mut self) -> Result<()> {
        let Some(cycle) = &self.spec.power.cycle else { return self.switch_on() };
        switch(cycle, &self.folder, &self.log, SWITCHED_WITHIN)
            .with_context(|| self.name.as_str().to_owned())?;
        // Whatever came before is of the board as it was.
        self.powered = (self.console.heard()?, Instant::now());
        Ok(())
    }

    fn off_and_on(&mut self) -> Result<()> {
        let power = &self.spec.power;
        switch(&power.off, &self.folder, &self.log, SWITCHED_WITHIN)?;
        std::thread::sleep(self.spec.settle.0);
        self.powered = (self.console.heard()?, Instant::now());
        switch(&power.on, &self.folder, &self.log, SWITCHED_WITHIN)
    }

    /// How long it has had power.
    pub fn running(&self) -> Duration {
        self.powered.1.elapsed()
    }

    /// What it shows since power came, if it is what is wanted. Too late, it says what there was in place of it.
    pub fn look(&self, what: &str, is: impl Fn(&Screen) -> bool) -> Result<Option<Screen>> {
        let heard = self.console.since(self.powered.0)?;
        let shown = Screen::last(&heard);
        if shown.as_ref().is_some_and(is) {
            return Ok(shown);
        }
        let (name, within) = (self.name(), self.spec.up_within.0);
        if heard.is_empty()
            && self.running() > PORT_WITHIN.min(within)
            && let Some(trouble) = self.console.trouble()
        {
            bail!(
                "{name}: serial port {}: {trouble}; is its adapter plugged in, and may you read it? \
                 ls -l /dev/serial/by-id",
                self.spec.serial.display()
            );
        }
        if self.running() > within {
            let instead = match shown {
                Some(shown) => format!("it shows {shown:?}"),
                None => instead(&heard),
            };
            bail!("{name}: not within {} s: {what}; {instead}", within.as_secs());
        }
        Ok(None)
    }

    /// Waits until it shows what is wanted.
    pub fn wait(&self, what: &str, is: impl Fn(&Screen) -> bool) -> Result<Screen> {
        loop {
            if let Some(shown) = self.look(what, &is)? {
                return Ok(shown);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// What came from a port that is no status screen, and what to look at.
fn instead(heard: &[u8]) -> String {
    if heard.is_empty() {
        return "nothing came from its serial port: does it have power, is the cable in the port that the kernel \
                has as its console, and are its two wires crossed?"
            .into();
    }
    let end = &heard[heard.len().saturating_sub(QUOTED_BYTES_MAX)..];
    let strange = end
        .iter()
        .filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | b' '..=b'~'))
        .count();
    if strange * 4 > end.len() {
        return "what comes from its serial port is no text: is that its baud rate?".into();
    }
    let text = without_escapes(&String::from_utf8_lossy(end));
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("it has shown no status screen; last it wrote \"{}\"", lines.join(" | "))
}

#[cfg(test)]
mod tests;
