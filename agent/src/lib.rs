//! weftd: the agent that runs on every node of a fabric.
//!
//! One runtime on one thread turns everything that waits. Its tasks:
//!
//! | task | started by | ends |
//! |---|---|---|
//! | the loop: owns all state, decides nothing itself | `main`, [`driver`] | at a signal |
//! | accepting connections of the API (Unix socket) and of those who scrape (TCP); one per connection | [`http`] | with the loop; with the caller |
//! | commands to the executor, in order | [`driver`] (`units`) | with the loop |
//! | one per unit, which looks after it; one that rotates output | [`executor`] | with the unit; with the runtime |
//! | one per health check | [`health`] | with the unit |
//! | accepting streams; one per connection, per stream, and per peer with messages waiting | [`quic`] | with the connection; when nothing waits |
//! | an attempt to join | [`driver`] (`enter`) | when it has ended |
//! | accepting invitations while in no fabric; one per visitor | [`approval`] | when it joins; with the visitor |
//! | handing over an invitation | [`driver`] (`let_in`) | when it has ended |
//! | one per query of what is measured | [`driver`] (`ask`) | with the answer |
//! | one per listener of events, per reader of a log, per `doctor` | [`events`], [`driver`] (`logs`, `about`) | with the caller |
//! | unicast lookups, one per domain or seed | crate `discovery` | with the loop |
//!
//! And its threads, for what blocks: `store` writes to disk ([`store`]); `observe` measures, keeps and
//! evaluates series ([`observe`]); `remote-write` sends samples to whom the configuration names, `lookup` finds out where that
//! is, and ends (`observe::remote`); `sensors` asks file systems, sensors and disks, and ends ([`host`]);
//! `mounts` makes and removes what files of tasks are mounted over, as process 1 sees the machine, and ends (`executor::mount_points`);
//! `mDNS_daemon` speaks multicast (crate
//! `mdns-sd`); the runtime's own for short file work (logs, records of units, `doctor`), which end
//! when idle.
//!
//! And one more process, where a unit has a lease: the guard ([`guard`]), this program without a runtime. It
//! outlives the agent; one task of the agent keeps it running where no service manager does.
//! systemd starts each task as this program, which becomes it at once ([`executor::exec`]). After an agent that has
//! crashed it tells the peers, and ends ([`driver::farewell`]).
//!
//! What an agent at rest does not do is done by a second program, one process per order ([`helpers`]): traces, and the list of
//! what the machine is made of.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "nobody uses this library but weftd: its documentation is made with all that is private"
)]

use anyhow::{Context, bail};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod api;
mod approval;
mod cgroup;
mod clock;
mod config;
mod credentials;
mod doctor;
mod driver;
mod events;
mod executor;
mod footprint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod guard;
mod hash;
mod health;
mod helpers;
mod host;
mod http;
mod identity;
mod join;
mod level;
mod listeners;
mod machine;
mod observe;
mod process;
mod program;
mod quic;
mod seal;
mod store;
mod token;
mod topology;
mod trace;
mod upgrade;

use config::Config;

const USAGE: &str = "\
weftd: the agent that runs on every node of a weft fabric

usage: weftd [OPTIONS]
       weftd farewell [OPTIONS]   tell the other members that the agent has ended and its units run on: for
                                  the service manager, after a crash

  --config FILE   configuration (default /etc/weft/weftd.toml, which may be missing)
  --state DIR     in place of `state` of the configuration
  --socket PATH   in place of `api.socket`
  --log FILTER    in place of `log`: error, warn, info, debug, trace, or target=level pairs
  --check         read the configuration, say whether it is fine, and end
  --version       print the version and end
  --help          print this and end

exit: 0 ended by a signal, 1 cannot run, 2 wrong arguments or configuration
";

/// Threads for short file work: more would only cost memory.
const BLOCKING_THREADS_MAX: usize = 4;
/// They end after this much idleness.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Stack of such a thread. Nothing deep runs there.
const BLOCKING_STACK_BYTES: usize = 512 << 10;

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    socket: Option<PathBuf>,
    log: Option<String>,
    check: bool,
    /// Print this and end.
    print: Option<String>,
}

/// The program: what `main` of the binary does, and all that this library offers.
pub fn main() -> ExitCode {
    let mut given = std::env::args_os().skip(1);
    let mut farewell = false;
    match given.next() {
        Some(word) if word == guard::WORD => return guard::main(given),
        Some(word) if word == program::EXEC => return executor::exec::main(given),
        Some(word) => farewell = word == driver::farewell::WORD,
        None => {}
    }
    let words = std::env::args().skip(1 + usize::from(farewell));
    let config = match read_arguments(words).and_then(|arguments| {
        if let Some(text) = &arguments.print {
            print!("{text}");
            return Ok(None);
        }
        let config = configuration(&arguments)?;
        if arguments.check {
            println!("the configuration is fine");
            return Ok(None);
        }
        Ok(Some(config))
    }) {
        Ok(Some(config)) => config,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weftd: {error:#}");
            return ExitCode::from(2);
        }
    };
    if farewell {
        return driver::farewell::main(&config);
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    start_log(&config.log)?;
    footprint::limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .thread_stack_size(BLOCKING_STACK_BYTES)
        .thread_name("file")
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async { driver::Driver::start(config).await?.run().await });
    // File work that hangs on a broken disk must not keep the agent from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

fn read_arguments(mut given: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
    let mut arguments = Arguments::default();
    while let Some(argument) = given.next() {
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut value = || {
            attached
                .clone()
                .or_else(|| given.next())
                .with_context(|| format!("{name} needs a value"))
        };
        match name.as_str() {
            "--config" => arguments.config = Some(value()?.into()),
            "--state" => arguments.state = Some(value()?.into()),
            "--socket" => arguments.socket = Some(value()?.into()),
            "--log" => arguments.log = Some(value()?),
            "--check" => arguments.check = true,
            "--version" | "-V" => {
                arguments.print = Some(format!("weftd {}\n", env!("CARGO_PKG_VERSION")));
            }
            "--help" | "-h" => arguments.print = Some(USAGE.to_owned()),
            _ => {
                let known =
                    ["--config", "--state", "--socket", "--log", "--check", "--version", "--help"];
                match fabric::job::nearest(&name, known.into_iter()) {
                    Some(near) => bail!("unknown argument {name}: did you mean {near}?"),
                    None => bail!("unknown argument {name}: see weftd --help"),
                }
            }
        }
    }
    Ok(arguments)
}

fn configuration(arguments: &Arguments) -> anyhow::Result<Config> {
    let path = arguments.config.clone().unwrap_or_else(|| config::PATH.into());
    let mut config = Config::load(&path, arguments.config.is_some())
        .with_context(|| format!("{}", path.display()))?;
    if let Some(state) = &arguments.state {
        config.state = std::path::absolute(state).context("--state")?;
    }
    if let Some(socket) = &arguments.socket {
        config.api.socket = std::path::absolute(socket).context("--socket")?;
    }
    if let Some(log) = &arguments.log {
        config.log = log.clone();
    }
    filter(&config.log)?;
    Ok(config)
}

fn filter(text: &str) -> anyhow::Result<Targets> {
    text.parse().with_context(|| {
        format!("log: {text:?} is no filter: write info, or info,weftd::driver=debug")
    })
}

/// Logs to stderr: the service manager's journal takes it from there, and adds the time itself.
fn start_log(text: &str) -> anyhow::Result<()> {
    use std::io::IsTerminal;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A cable that is pulled is told of in our own words, once.
    let quiet = if text.contains("quinn_udp") { "" } else { ",quinn_udp=error" };
    let registry = tracing_subscriber::registry().with(filter(&format!("{text}{quiet}"))?);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(lines.without_time()).init();
    } else {
        registry.with(lines).init();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> anyhow::Result<Arguments> {
        read_arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_with_and_without_equals_signs() {
        let wanted = Arguments {
            config: Some("/c".into()),
            state: Some("/s".into()),
            log: Some("info,weftd=debug".into()),
            ..Arguments::default()
        };
        assert_eq!(read("--config /c --state /s --log info,weftd=debug").unwrap(), wanted);
        assert_eq!(read("--config=/c --state=/s --log=info,weftd=debug").unwrap(), wanted);
        assert!(read("--help").unwrap().print.is_some());
    }

    #[test]
    fn wrong_arguments_are_refused_with_a_suggestion() {
        for (line, wanted) in [
            ("--confg /c", "did you mean --config?"),
            ("--config", "needs a value"),
            ("extra", "unknown argument"),
        ] {
            let error = read(line).unwrap_err().to_string();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        let arguments = Arguments { log: Some("weftd=loud".into()), ..Arguments::default() };
        assert!(configuration(&arguments).is_err());
    }
}
