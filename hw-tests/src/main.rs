//! Tells stories: all of them, those that are named, or with `--list` what they are called.
// Stories wait for real machines.
#![allow(clippy::disallowed_methods)]

use anyhow::{Context, Result, bail};
use std::process::ExitCode;
use std::time::Instant;
use weft_hw_tests::stories;
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

/// Whether all went well.
fn tell(names: &[String]) -> Result<bool> {
    if names.iter().any(|name| name == "--list") {
        stories::ALL.iter().for_each(|story| println!("{}", story.name));
        return Ok(true);
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
    let workshop = Workshop::open().context("run hw-tests/build.sh, or make test-vm")?;
    let begun = Instant::now();
    let mut failed = Vec::new();
    for story in &wanted {
        println!("=== {}: {}", story.name, story.promise);
        let started = Instant::now();
        let bench = workshop.bench(story.name)?;
        match (story.tell)(&bench) {
            Ok(()) => println!("    told in {:.0} s", started.elapsed().as_secs_f64()),
            Err(error) => {
                println!("    FAILED after {:.0} s: {error:#}", started.elapsed().as_secs_f64());
                println!("    what the machines wrote: {}", bench.logs().display());
                failed.push(story.name);
                continue;
            }
        }
        bench.clear();
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
