//! Whether this agent can read what is in its state directory, and at which level it acts.

use fabric::level::LEVEL;
use fabric::node::level_on_disk;

use crate::config::Config;

/// Refuses a state directory that a newer agent has written, before anything is changed there.
pub fn check(config: &Config, rows: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()> {
    let level = config.node.level();
    let reached = level_on_disk(rows);
    anyhow::ensure!(
        reached <= level,
        "{} is of a fabric of level {reached}, and this agent reads up to level {level}: install the newer version \
         again{}; nothing was changed",
        config.state.display(),
        if level < LEVEL { ", or take node.level out of its configuration" } else { "" }
    );
    Ok(())
}
