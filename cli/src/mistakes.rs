//! What is said of a command line that makes no sense: what is wrong with it, and what to type instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::arguments::help;
use crate::exit::Exit;

/// How the parser ends most of what it says; ours is more to the point.
const PARSERS_ADVICE: &str = "For more information, try '--help'.";
/// The parser takes whatever begins with a dash for a value that was meant.
const PARSERS_TIP: &str = "tip: to pass ";

/// What people type behind a command that does not take it, and what they mean. `""` is anything.
const MEANT: [(&str, &str, &str); 13] = [
    ("run", "", "what is to run stands behind two dashes: weft run NAME -- PROGRAM ARGUMENT..."),
    ("apply", "--wait", "apply waits by itself until the job is healthy; --detach does not wait"),
    ("nodes", "-w", WATCHING),
    ("nodes", "--watch", WATCHING),
    ("ps", "-w", WATCHING),
    ("ps", "--watch", WATCHING),
    ("nodes", "", "weft node NAME shows one node"),
    (
        "wait",
        "--for",
        "weft wait JOB waits until every slot is healthy, weft wait JOB --gone until it is stopped",
    ),
    (
        "drain",
        "--deadline",
        "no slot is ended before it runs elsewhere, however late it is: --wait --timeout 10m waits no longer than that",
    ),
    (
        "logs",
        "--since",
        "lines are kept without their times: -n LINES begins so many before the end, -f goes on",
    ),
    ("logs", "--grep", "weft logs JOB | grep PATTERN finds lines, of all slots"),
    ("plan", "", "plan takes one job file at a time; weft apply takes several"),
    ("stop", "", "stop takes one job at a time"),
];

const WATCHING: &str =
    "weft top shows nodes, jobs and allocations again and again, weft events -f what changes";

/// Says what is wrong with what was typed, or helps.
pub fn misunderstood(error: clap::Error, command: &mut clap::Command) -> Exit {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && words.is_empty() {
        eprint!("{}", help::short());
        return exit;
    }
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    if let Some(verb) = said(ContextKind::InvalidSubcommand)
        && let Some(advice) = help::familiar(&verb)
    {
        eprintln!("error: there is no `weft {verb}`: {advice}");
        return exit;
    }
    let unknown =
        said(ContextKind::InvalidArg).filter(|_| error.kind() == ErrorKind::UnknownArgument);
    let error = error.format(command);
    if exit == Exit::Ok || !error.to_string().contains(PARSERS_ADVICE) {
        let _ = error.print();
        return exit;
    }
    eprint!("{}", advised(&error.to_string(), command, &words, unknown.as_deref()));
    exit
}

/// What the parser says, with an example in place of its own advice.
fn advised(said: &str, command: &clap::Command, words: &[String], unknown: Option<&str>) -> String {
    let (path, verb) = meant(command, words);
    let lines = said.lines().filter(|line| {
        !line.contains(PARSERS_ADVICE) && !line.trim_start().starts_with(PARSERS_TIP)
    });
    let mut text = String::new();
    for line in lines {
        // What was left out leaves no gap.
        if !line.is_empty() || !text.ends_with("\n\n") {
            text.push_str(line);
            text.push('\n');
        }
    }
    let text = text.trim_end();
    let name = path.split(' ').next().unwrap_or_default();
    let meant = unknown.and_then(|unknown| {
        let mut known = MEANT.iter();
        known.find(|(verb, typed, _)| *verb == name && (typed.is_empty() || *typed == unknown))
    });
    let next = match (meant, example(verb)) {
        (Some((.., advice)), _) => (*advice).to_owned(),
        (None, Some(example)) => format!("For example: {example}"),
        (None, None) => "weft alone shows the commands".to_owned(),
    };
    let more = if path.is_empty() { "weft help".to_owned() } else { format!("weft help {path}") };
    format!("{text}\n\n{next}\n{more} says more.\n")
}

/// The command that was meant, as far as it was typed, and what it is called.
fn meant<'c>(command: &'c clap::Command, words: &[String]) -> (String, &'c clap::Command) {
    let (mut path, mut command) = (Vec::new(), command);
    for word in words.iter().take_while(|word| *word != "--") {
        if let Some(inner) = command.find_subcommand(word) {
            path.push(inner.get_name());
            command = inner;
        }
    }
    (path.join(" "), command)
}

/// The first example of its help, in one line.
fn example(command: &clap::Command) -> Option<String> {
    let help = command.get_after_help()?.to_string();
    let mut lines = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
    let mut example = lines.next()?.trim().to_owned();
    while let Some(first) = example.strip_suffix('\\') {
        example = format!("{}{}", first, lines.next().unwrap_or_default().trim());
    }
    Some(example)
}

#[cfg(test)]
mod tests;
