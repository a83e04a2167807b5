//! weft: what a person types. Reads the arguments, asks the agent on this machine, shows the answer.
//!
//! Everything that is shown comes from one API call or a few; the only thing decided here is how to
//! show it and when to stop waiting. `docs/CLI.md` describes what each command promises.
#![forbid(unsafe_code)]

mod apply;
mod arguments;
mod chart;
mod client;
mod clock;
mod console;
mod exit;
mod hardware;
mod hist;
mod histogram;
mod job_file;
mod jobs;
mod membership;
mod nodes;
mod prometheus;
mod query;
mod quotas;
mod rebalance;
mod screen;
mod series;
mod status;
mod streams;
mod top;
mod trace;
mod upgrade;
mod waiting;
mod watch;
mod why_slow;

use apply::Values;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use fabric::api::RebalanceBody;
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{
    Arguments, Command, FabricCommand, NodeAction, QuotaCommand, Shell, TokenCommand, help,
};
use client::Client;
use exit::{Exit, Failure};
use screen::{Format, Screen, Tone};

/// What every command works with.
struct Context {
    client: Client,
    screen: Screen,
}

fn main() -> ExitCode {
    let mut command = help::command();
    let typed = command.try_get_matches_from_mut(std::env::args_os());
    let arguments = match typed.and_then(|typed| Arguments::from_arg_matches(&typed)) {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(misunderstood(error, &mut command) as u8),
    };
    let format = if arguments.json { Format::Json } else { arguments.output };
    let screen = Screen::new(format);
    let socket = arguments
        .socket
        .or_else(|| {
            std::env::var_os("WEFT_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
        })
        .unwrap_or_else(|| "/run/weft/weft.sock".into());
    let context = Context { client: Client::new(socket), screen };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            context.screen.say_toned(Tone::Bad, &format!("error: cannot start: {error}"));
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    let exit = runtime.block_on(run(&context, arguments.command)).unwrap_or_else(|failure| {
        if let Failure::Said(_, message) = &failure {
            let message = screen::printable(message);
            context.screen.say_toned(Tone::Bad, &format!("error: {message}"));
        }
        failure.exit()
    });
    ExitCode::from(exit as u8)
}

/// Says what is wrong with what was typed, or helps.
fn misunderstood(error: clap::Error, command: &mut clap::Command) -> Exit {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        && std::env::args_os().len() <= 1
    {
        eprint!("{}", help::short());
        return exit;
    }
    if let (ErrorKind::InvalidSubcommand, Some(ContextValue::String(verb))) =
        (error.kind(), error.get(ContextKind::InvalidSubcommand))
        && let Some(advice) = help::familiar(verb)
    {
        eprintln!("error: there is no `weft {verb}`: {advice}");
        return exit;
    }
    let _ = error.format(command).print();
    exit
}

async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Init { name } => membership::init(context, name).await,
        Command::Join { token, address } => membership::join(context, token, address).await,
        Command::Token(TokenCommand::Create { lifetime, labels }) => {
            membership::token_create(context, lifetime, labels).await
        }
        Command::Token(TokenCommand::List) => membership::token_list(context).await,
        Command::Token(TokenCommand::Revoke { id }) => membership::token_revoke(context, &id).await,
        Command::Fabric(FabricCommand::Reclock) => membership::reclock(context).await,
        Command::Quota(QuotaCommand::Set {
            namespace,
            cores,
            memory,
            disk,
            devices,
            allocs,
            force,
        }) => {
            let cpu_millis = cores.map(|cores| (cores * 1000.0).round() as u64);
            let devices = devices.into_iter().collect();
            let quota = fabric::quota::Quota { cpu_millis, memory, devices, allocs, disk };
            quotas::set(context, namespace.as_str(), quota, force).await
        }
        Command::Quota(QuotaCommand::List) => quotas::list(context).await,
        Command::Quota(QuotaCommand::Remove { namespace }) => {
            quotas::remove(context, namespace.as_str()).await
        }
        Command::Status => status::status(context).await,
        Command::Doctor => status::doctor(context).await,
        Command::Nodes { waiting: false } => nodes::list(context).await,
        Command::Nodes { waiting: true } => waiting::list(context).await,
        Command::Node { node, hardware, action } => of_node(context, node, hardware, action).await,
        Command::Console { once } => console::console(context, once).await,
        Command::Drain { node, wait, timeout } => nodes::drain(context, &node, wait, timeout).await,
        Command::Undrain { node } => nodes::undrain(context, &node).await,
        Command::Plan { file, show_values, exit_code } => {
            let values = Values::shown_if(show_values);
            apply::plan(context, &job_file::read(&file)?, values, exit_code).await
        }
        Command::Apply { files, also, yes, show_values, watch } => {
            let values = Values::shown_if(show_values);
            let specs = job_file::read_all(files.iter().chain(&also))?;
            apply::apply_all(context, &specs, yes, values, watch).await
        }
        Command::Run(run) => {
            let watch = run.watch;
            apply::run(context, &job_file::from_flags(*run, &context.screen)?, watch).await
        }
        Command::Rebalance { plan: _, apply, max_moves, at_most_one } => {
            let wish = RebalanceBody { apply, max_moves, at_most_one };
            rebalance::rebalance(context, wish).await
        }
        Command::Ps { job, all } => jobs::ps(context, job, all).await,
        Command::Jobs { job } => jobs::jobs(context, job).await,
        Command::Explain { job } => jobs::explain(context, &job).await,
        Command::Scale { job, count, yes, watch } => {
            jobs::scale(context, &job, count, yes, watch).await
        }
        Command::Restart { what, yes: _, watch } => jobs::restart(context, &what, watch).await,
        Command::Stop { job, yes, detach, timeout } => {
            jobs::stop(context, &job, yes, detach, timeout).await
        }
        Command::Wait { job, healthy: _, gone, timeout } => {
            jobs::wait(context, &job, gone, timeout).await
        }
        Command::Logs { what, follow, tail, stream, node, previous, epoch } => {
            let of = streams::Of { previous, epoch };
            let wanted = streams::Wanted { what, follow, tail, stream, node, of };
            streams::logs(context, wanted).await
        }
        Command::Events { follow } => streams::events(context, follow).await,
        Command::Query(wanted) => query::query(context, wanted).await,
        Command::Top(wanted) => top::top(context, wanted).await,
        Command::Hist(wanted) => hist::hist(context, wanted).await,
        Command::WhySlow { job, range } => why_slow::why_slow(context, &job, range).await,
        Command::Trace(wanted) => trace::trace(context, wanted).await,
        Command::Profile(wanted) => trace::profile(context, wanted).await,
        Command::Version => status::version(context).await,
        Command::Completion { shell } => completion(context, shell),
    }
}

async fn of_node(
    context: &Context,
    node: Option<String>,
    hardware: bool,
    action: Option<NodeAction>,
) -> Result<Exit, Failure> {
    match (node, action) {
        (_, Some(_)) if hardware => {
            Err(Failure::usage("--hardware shows a node: leave out what is to be done with it"))
        }
        (Some(node), None) if hardware => hardware::show(context, &node).await,
        (Some(node), None) => nodes::show(context, &node).await,
        (_, Some(NodeAction::Remove { misplaced: Some(name), .. })) => {
            Err(Failure::usage(format!("the name goes first: weft node {name} remove")))
        }
        (Some(node), Some(NodeAction::Remove { now, timeout, yes, force, misplaced: None })) => {
            let removal = nodes::Removal { now, timeout: Some(timeout), yes, force };
            nodes::remove(context, &node, &removal).await
        }
        (None, Some(NodeAction::Approve { waiting, yes })) => {
            waiting::approve(context, &waiting, yes).await
        }
        (None, Some(NodeAction::Upgrade { file, nodes, all, no_drain, timeout, yes })) => {
            let (file, nodes) = (&file, &nodes[..]);
            let wanted = upgrade::Wanted { file, nodes, all, drain: !no_drain, yes, timeout };
            upgrade::upgrade(context, wanted).await
        }
        (Some(_), Some(NodeAction::Upgrade { .. })) => {
            Err(Failure::usage("write weft node upgrade FILE NAME...: there may be several names"))
        }
        (Some(_), Some(NodeAction::Approve { .. })) => Err(Failure::usage(
            "write weft node approve NAME: a node that waits has no other name here",
        )),
        (None, _) => Err(Failure::usage("which node? weft nodes lists them")),
    }
}

fn completion(context: &Context, shell: Shell) -> Result<Exit, Failure> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "weft", &mut script);
    context.screen.bytes(&script)?;
    Ok(Exit::Ok)
}
