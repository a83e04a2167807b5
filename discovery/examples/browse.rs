//! Announces a node and prints what it finds, a line each. Ends with a goodbye on SIGTERM, or when
//! its standard input is a pipe and ends.
//!
//!     browse --node 64-HEX --port PORT [--fabric 16-HEX] [--machine NAME] [--no-mdns]
//!            [--domain DOMAIN]... [--seed HOST:PORT]... [--only INTERFACE]...
//!
//! A line `fabric 16-HEX` on standard input makes the node join that fabric, `fabric` leave it.

use discovery::{Discovery, Event, Settings};
use std::io::Write;
use std::os::fd::AsFd;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let settings = settings(std::env::args().skip(1))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(settings))
}

async fn run(settings: Settings) -> Result<(), Failure> {
    let mut discovery = Discovery::start(settings)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let standard_input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut commands =
        pipe::Receiver::from_owned_fd(standard_input).ok().map(|pipe| BufReader::new(pipe).lines());
    say("ready")?;
    loop {
        tokio::select! {
            event = discovery.next() => say(&line(&event))?,
            _ = terminate.recv() => break,
            command = next_line(&mut commands) => match command? {
                None => break,
                Some(command) => {
                    let fabric = command.strip_prefix("fabric").ok_or("say: fabric 16-HEX")?.trim();
                    discovery.set_fabric((!fabric.is_empty()).then(|| fabric.to_owned()))?;
                }
            },
        }
    }
    discovery.shutdown().await;
    say("stopped")
}

async fn next_line(
    commands: &mut Option<Lines<BufReader<pipe::Receiver>>>,
) -> std::io::Result<Option<String>> {
    match commands {
        Some(commands) => commands.next_line().await,
        None => std::future::pending().await,
    }
}

fn line(event: &Event) -> String {
    match event {
        Event::Found(found) => {
            let node = found.node.as_deref().unwrap_or("-");
            let fabric = found.fabric.as_deref().unwrap_or("-");
            let addresses: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
            format!("found {} {node} {fabric} {} {}", found.source, addresses.join(","), found.name)
        }
        Event::Lost(lost) => {
            let node = lost.node.as_deref().unwrap_or("-");
            format!("lost {} {node} {}", lost.source, lost.name)
        }
    }
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn settings(mut arguments: impl Iterator<Item = String>) -> Result<Settings, Failure> {
    let mut settings = Settings { mdns: true, machine: "example".into(), ..Settings::default() };
    while let Some(argument) = arguments.next() {
        if argument == "--no-mdns" {
            settings.mdns = false;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--node" => settings.node = value,
            "--port" => settings.port = value.parse()?,
            "--fabric" => settings.fabric = Some(value),
            "--machine" => settings.machine = value,
            "--domain" => settings.domains.push(value),
            "--seed" => settings.seeds.push(value),
            "--only" => settings.interfaces.only.push(value),
            _ => return Err(format!("unknown: {argument}").into()),
        }
    }
    Ok(settings)
}
