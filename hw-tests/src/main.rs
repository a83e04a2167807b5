//! Tells stories: all of them, those that are named, or with `--list` what they are called.
// Stories wait for real machines.
#![allow(clippy::disallowed_methods)]

use anyhow::{Context, Result, bail};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use weft_hw_tests::stories::{self, Story};
use weft_hw_tests::workshop::Workshop;

fn main() -> ExitCode {
    match tell(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("test-vm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// In place of names: tell this one story, here. What `tell` starts for each story, so that a time limit ends all of it.
const ALONE: &str = "--alone";

/// Whether all went well.
fn tell(names: &[String]) -> Result<bool> {
    if names.iter().any(|name| name == "--list") {
        stories::ALL.iter().for_each(|story| println!("{}", story.name));
        return Ok(true);
    }
    if let [first, name] = names
        && first == ALONE
    {
        return alone(name);
    }
    let mut wanted = Vec::new();
    for name in names {
        match stories::ALL.iter().find(|story| story.name == name) {
            Some(story) => wanted.push(story),
            None => bail!("no story is called '{name}': --list names them"),
        }
    }
    if wanted.is_empty() {
        wanted.extend(stories::ALL);
    }
    let begun = Instant::now();
    let mut failed = Vec::new();
    for story in &wanted {
        println!("=== {}: {}", story.name, story.promise);
        if !within_its_time(story)? {
            failed.push(story.name);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "test-vm: {} of {} stories, {seconds:.0} s",
        wanted.len() - failed.len(),
        wanted.len()
    );
    if !failed.is_empty() {
        println!("test-vm: failed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

/// Whether a story went well, told by a process of its own.
fn within_its_time(story: &Story) -> Result<bool> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut teller = command.args([ALONE, story.name]).spawn().context("cannot tell a story")?;
    let limit = Duration::from_secs(60 * story.minutes);
    let started = Instant::now();
    loop {
        if let Some(status) = teller.try_wait()? {
            return Ok(status.success());
        }
        if started.elapsed() > limit {
            // Its machines end with it.
            teller.kill()?;
            teller.wait()?;
            println!("    FAILED: not told within its {} minutes", story.minutes);
            println!(
                "    what the machines wrote: {}",
                Workshop::open()?.logs(story.name).display()
            );
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn alone(name: &str) -> Result<bool> {
    let story = stories::ALL.iter().find(|story| story.name == name);
    let story = story.with_context(|| format!("no story is called '{name}'"))?;
    let workshop = Workshop::open()?;
    let bench = workshop.bench(name)?;
    let started = Instant::now();
    if let Err(error) = (story.tell)(&bench) {
        println!("    FAILED after {:.0} s: {error:#}", started.elapsed().as_secs_f64());
        println!("    what the machines wrote: {}", bench.logs().display());
        return Ok(false);
    }
    println!("    told in {:.0} s", started.elapsed().as_secs_f64());
    bench.clear();
    Ok(true)
}
