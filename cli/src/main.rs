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
mod complete;
mod console;
mod context;
mod exit;
mod hardware;
mod hist;
mod histogram;
mod job_file;
mod jobs;
mod membership;
mod mistakes;
mod nodes;
mod prometheus;
mod query;
mod question;
mod quotas;
mod rebalance;
mod remote;
mod rollback;
mod screen;
mod series;
mod status;
mod streams;
mod text;
mod top;
mod trace;
mod upgrade;
mod waiting;
mod watch;
mod why_slow;

use apply::Values;
use clap::FromArgMatches;
use fabric::api::RebalanceBody;
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{
    Arguments, Command, ContextCommand, FabricCommand, NodeAction, QuotaCommand, Shell,
    TokenCommand, help,
};
use client::Client;
use context::Way;
use exit::{Exit, Failure};
use screen::{Format, Screen};

/// What every command works with.
struct Context {
    client: Client,
    way: Way,
    screen: Screen,
}

fn main() -> ExitCode {
    complete::if_asked();
    let mut command = help::command();
    let typed = command.try_get_matches_from_mut(std::env::args_os());
    let arguments = match typed.and_then(|typed| Arguments::from_arg_matches(&typed)) {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(mistakes::misunderstood(error, &mut command) as u8),
    };
    let format = if arguments.json { Format::Json } else { arguments.output };
    let screen = Screen::new(format).quiet(arguments.quiet);
    if let Some(refusal) = refused(format, &arguments.command) {
        screen.complain(&format!("error: {refusal}"));
        return ExitCode::from(Exit::Usage as u8);
    }
    let way = match context::way(arguments.socket, arguments.host) {
        Ok(way) => way,
        // `version` tells of this program whatever else is the matter.
        Err(failure) if needs_agent(&arguments.command) => {
            return ExitCode::from(say(&screen, failure) as u8);
        }
        Err(_) => Way::Socket(PathBuf::new()),
    };
    let client = Client::new(way.clone()).verbose(arguments.verbose);
    let context = Context { client, way, screen };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            context.screen.complain(&format!("error: cannot start: {error}"));
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    let exit = runtime
        .block_on(run(&context, arguments.command))
        .unwrap_or_else(|failure| say(&context.screen, failure));
    // Whoever reads stdin on a thread may do so for ever.
    runtime.shutdown_background();
    ExitCode::from(exit as u8)
}

/// Whether a command asks the agent.
fn needs_agent(command: &Command) -> bool {
    !matches!(command, Command::Completion { .. } | Command::Context(_))
}

/// Says what went wrong.
fn say(screen: &Screen, failure: Failure) -> Exit {
    for message in failure.messages() {
        screen.complain(&format!("error: {}", screen::printable(message)));
    }
    failure.exit()
}

/// Why this command has no answer of this kind.
fn refused(format: Format, command: &Command) -> Option<&'static str> {
    let lists = matches!(
        command,
        Command::Nodes { .. }
            | Command::Ps { .. }
            | Command::Jobs { .. }
            | Command::Context(ContextCommand::List)
            | Command::Token(TokenCommand::List)
            | Command::Quota(QuotaCommand::List)
    );
    let refusal = "-o name is for lists: weft nodes, ps, jobs, token list, quota list and context list. What else there is to \
                   know is in -o json or yaml";
    (format == Format::Name && !lists).then_some(refusal)
}

async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Init { name } => membership::init(context, name).await,
        Command::Join { token, address } => membership::join(context, token, address).await,
        Command::Leave { now, timeout, force, yes } => {
            let removal = nodes::Removal { now, timeout: Some(timeout), yes, force };
            nodes::leave(context, &removal).await
        }
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
        Command::Rollback { job, to, yes, show_values, watch } => {
            let values = Values::shown_if(show_values);
            rollback::rollback(context, rollback::Wanted { job, to, yes, values, watch }).await
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
        Command::Events(wanted) => streams::events(context, wanted).await,
        Command::Query(wanted) => query::query(context, wanted).await,
        Command::Top(wanted) => top::top(context, wanted).await,
        Command::Hist(wanted) => hist::hist(context, wanted).await,
        Command::WhySlow { job, range } => why_slow::why_slow(context, &job, range).await,
        Command::Trace(wanted) => trace::trace(context, wanted).await,
        Command::Profile(wanted) => trace::profile(context, wanted).await,
        Command::Version => status::version(context).await,
        Command::Context(ContextCommand::List) => context::list(context),
        Command::Context(ContextCommand::Add { name, host }) => context::add(context, name, host),
        Command::Context(ContextCommand::Use { name }) => context::switch(context, name),
        Command::Context(ContextCommand::Remove { name }) => context::remove(context, name),
        Command::ApiProxy => match &context.way {
            Way::Socket(socket) => remote::proxy(socket).await,
            Way::Host(_) => {
                Err(Failure::usage("api-proxy leads to the agent of this machine only"))
            }
        },
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
        (None, _) => {
            Err(Failure::usage("which node? Write weft node NAME; weft nodes lists the names"))
        }
    }
}

fn completion(context: &Context, shell: Shell) -> Result<Exit, Failure> {
    let script = complete::script(shell);
    let script = script.map_err(|error| Failure::failed(format!("there is no script: {error}")))?;
    context.screen.bytes(&script)?;
    Ok(Exit::Ok)
}
