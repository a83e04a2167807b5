//! A task that prints as fast as it can.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

use super::{Agent, shell};
use crate::executor::output::LogQuery;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// What a unit's output may take on disk, at any time.
const MOST_BYTES: u64 = 32 << 20;
/// And where other tests keep all CPUs busy, so that nobody comes to look for a while.
const MOST_BESIDE_OTHERS: u64 = 256 << 20;

/// What it prints is bounded on disk, and its last lines can be read. `WEFT_FLOOD_SECONDS` says for how long it prints with
/// nothing beside it.
pub fn a_flood_is_bounded(agent: &mut Agent, executor: &str) {
    let seconds = std::env::var("WEFT_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(3));
    let bound = if seconds.is_some() { MOST_BYTES } else { MOST_BESIDE_OTHERS };
    let line = "a line as long as lines of programs are that have much to say, but not too long: 0123456789";
    let unit = shell("flood", &format!("exec yes '{line}'"));
    agent.start(&unit);
    agent.running(&unit);
    let stdout = agent.executor.store().folder(&unit.alloc).join("stdout");
    let (begun, mut most, mut longest) = (Instant::now(), 0, Duration::ZERO);
    let mut asked = Instant::now();
    while begun.elapsed() < time {
        most = most.max(stdout.metadata().unwrap().blocks() * 512);
        if asked.elapsed() > Duration::from_millis(500) {
            asked = Instant::now();
            let three = LogQuery { tail: Some(3), ..LogQuery::default() };
            let said = agent.log(&unit, three);
            longest = longest.max(asked.elapsed());
            assert_eq!(said.lines().count(), 3, "{said}");
            // The first may be one of which the file's beginning was freed, the last may be half printed.
            assert!(said.lines().all(|it| line.contains(it)), "{said}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let printed = stdout.metadata().unwrap().len();
    agent.stop(&unit);
    agent.exited(&unit);
    const MIB: u64 = 1 << 20;
    println!(
        "ground: {executor}: {} MiB printed in {} s, at most {} MiB of them on disk; the last three lines within {} ms",
        printed / MIB,
        time.as_secs(),
        most.div_ceil(MIB),
        longest.as_millis(),
    );
    assert!(printed > 32 << 20, "it was no flood: {printed} bytes");
    assert!(most <= bound, "{most} bytes on disk");
}

#[test]
fn floods_are_bounded() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    a_flood_is_bounded(&mut agent, "direct");
}
