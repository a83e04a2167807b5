//! What `weft help` shows: the commands by what they are for; and what weft calls a verb that people know from elsewhere.

use clap::CommandFactory;
use std::fmt::Write;

use super::{Arguments, EPILOGUE};

/// Commands that belong together.
pub struct Group {
    pub name: &'static str,
    pub commands: &'static [&'static str],
    /// What one looks like.
    pub example: &'static str,
}

/// All of them, in the order in which somebody new needs them.
pub const GROUPS: [Group; 6] = [
    Group {
        name: "Fabric",
        commands: &["init", "token", "join", "leave", "status", "doctor", "quota", "fabric"],
        example: "weft init --name home",
    },
    Group {
        name: "Run",
        commands: &["apply", "plan", "run", "rollback", "scale", "restart", "stop", "wait"],
        example: "weft apply web.toml",
    },
    Group {
        name: "Look",
        commands: &["ps", "jobs", "explain", "logs", "events", "top"],
        example: "weft logs web -f",
    },
    Group {
        name: "Investigate",
        commands: &["why-slow", "query", "hist", "trace", "profile"],
        example: "weft why-slow web",
    },
    Group {
        name: "Nodes",
        commands: &["nodes", "node", "drain", "undrain", "rebalance", "console"],
        example: "weft drain rack1 --wait",
    },
    Group {
        name: "This program",
        commands: &["version", "context", "completion"],
        example: "weft help apply",
    },
];

/// Verbs that other tools have and weft does not, and what to do instead.
const FAMILIAR: &[(&[&str], &str)] = &[
    (
        &["describe", "inspect", "get", "show", "info"],
        "`weft explain JOB` says why a job is where it is, `weft ps JOB` what of it runs, `weft node NODE` shows a node",
    ),
    (
        &["exec", "attach", "cp", "ssh", "shell"],
        "weft cannot go into a running job yet: `weft ps JOB` says on which node it runs, and `weft logs JOB` what it writes",
    ),
    (
        &["undo", "revert"],
        "`weft rollback JOB` brings a job back to the version before; one that does not become healthy is taken back by itself",
    ),
    (&["up", "create", "start", "submit", "load"], "`weft apply FILE` runs what a job file says"),
    (&["down", "kill", "destroy", "purge"], "`weft stop JOB` stops a job and forgets it"),
    (
        &["update", "upgrade", "rollout"],
        "`weft apply FILE` changes a job; `weft node upgrade FILE NODE...` brings a new image to nodes",
    ),
    (
        &["cordon", "uncordon", "evict"],
        "`weft drain NODE` has a node hand over its work and take no more, `weft undrain NODE` ends that",
    ),
    (
        &["alloc", "allocs", "pods", "containers", "tasks", "squeue"],
        "`weft ps` lists what runs where",
    ),
    (
        &["job", "service", "services", "stack", "deployment"],
        "`weft jobs` lists jobs, `weft apply FILE` runs one, `weft stop JOB` ends one",
    ),
    (
        &["sinfo", "hosts", "members", "machines", "cluster"],
        "`weft nodes` lists the machines, `weft status` says how the fabric is",
    ),
    (
        &["agent", "server", "daemon", "serve"],
        "the agent is a program of its own: `systemctl start weftd`",
    ),
    (
        &["install", "uninstall", "search", "repo", "image", "pull"],
        "weft has no catalog and no images of containers yet: `weft apply FILE` runs a program of the node",
    ),
    (
        &["cron", "batch", "sbatch", "srun", "schedule"],
        "weft runs services; jobs that end, or begin by the clock, cannot be described yet",
    ),
    (
        &["config", "login", "remote"],
        "`weft --host ssh://HOST ...` asks the agent of another machine, `weft context` keeps such ways",
    ),
    (&["man", "usage"], "`weft help` lists the commands, `weft help COMMAND` explains one"),
];

/// The parser, with our own list of commands.
pub fn command() -> clap::Command {
    let command = Arguments::command();
    let help = long(&command);
    command.override_help(help)
}

/// What somebody sees who types `weft` and nothing else.
pub fn short() -> String {
    let mut text = format!("{}\n\nUsage: weft COMMAND\n\n", about(&Arguments::command()));
    for Group { name, commands, example } in &GROUPS {
        let _ = writeln!(text, "  {name:<13}{:<57}{example}", commands.join("  "));
    }
    text.push_str(
        "\nA first fabric: weft init; weft token create; and on the next machine: weft join TOKEN\n\
         weft help COMMAND explains one with examples, weft help all of them.\n",
    );
    text
}

/// What to say of a verb that does not exist here.
pub fn familiar(verb: &str) -> Option<&'static str> {
    let known = FAMILIAR.iter().find(|(verbs, _)| verbs.contains(&verb));
    known.map(|(_, advice)| *advice)
}

fn long(command: &clap::Command) -> String {
    let mut text = format!("{}\n\nUsage: weft [OPTIONS] COMMAND\n", about(command));
    for group in &GROUPS {
        let _ = write!(text, "\n{}:\n", group.name);
        for name in group.commands {
            let about = command.find_subcommand(name).map(about).unwrap_or_default();
            let _ = writeln!(text, "  {name:<12}{about}");
        }
    }
    let _ = write!(
        text,
        "\nOptions:\n\
         {:2}-o, --output FORMAT  table or wide for people; json, yaml or name for programs [default: table]\n\
         {:2}--json               the same as -o json\n\
         {:2}-q, --quiet          no progress: only data, questions and what went wrong\n\
         {:2}-v, --verbose        what the agent is asked, and how long it takes\n\
         {:2}--socket PATH        the agent's socket [default: $WEFT_SOCKET or /run/weft/weft.sock]\n\
         {:2}--host ssh://HOST    another machine's agent, through ssh [default: $WEFT_HOST, or the context in use]\n\
         {:2}-h, --help           this; `weft help COMMAND` explains one command, with examples\n\
         {:2}-V, --version        the version of this program\n\n{EPILOGUE}\n",
        "", "", "", "", "", "", "", ""
    );
    text
}

fn about(command: &clap::Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}
