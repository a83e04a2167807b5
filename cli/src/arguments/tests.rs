use super::*;
use clap::CommandFactory;

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_shows_an_example() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        if command.get_subcommands().all(|inner| ["remove", "approve"].contains(&inner.get_name()))
        {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains("weft "), "{path}: {help}");
        }
        command.get_subcommands().for_each(|inner| check(inner, &path));
    }
    Arguments::command().get_subcommands().for_each(|command| check(command, "weft"));
}

#[test]
fn every_command_stands_in_one_group_of_the_help() {
    let command = Arguments::command();
    let named: Vec<&str> = help::GROUPS.iter().flat_map(|group| group.commands).copied().collect();
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        let name = inner.get_name();
        assert_eq!(named.iter().filter(|other| **other == name).count(), 1, "{name}");
        assert!(help::familiar(name).is_none(), "{name} is a command, no verb from elsewhere");
    }
    let shown = command.get_subcommands().filter(|inner| !inner.is_hide_set()).count();
    assert_eq!(named.len(), shown, "{named:?}");
    let short = help::short();
    assert!(short.lines().all(|line| line.chars().count() <= 100), "{short}");
    for group in &help::GROUPS {
        assert!(short.contains(&format!("  {}\n", group.example)), "no gap in {short}");
    }
    let long = help::command().render_help().to_string();
    for option in command.get_arguments().filter_map(|option| option.get_long()) {
        assert!(long.contains(&format!("--{option}")), "--{option}");
    }
    // Every example is a command that can be typed.
    for group in &help::GROUPS {
        let words: Vec<&str> = group.example.split(' ').collect();
        let parsed = help::command().try_get_matches_from(&words);
        let is_help = words[1] == "help";
        assert!(is_help || parsed.is_ok(), "{}", group.example);
    }
}

#[test]
fn the_page_about_the_command_line_knows_every_command_and_exit_code() {
    let page = include_str!("../../../docs/CLI.md");
    for command in Arguments::command().get_subcommands() {
        let name = command.get_name();
        assert!(page.contains(&format!("`weft {name}")), "weft {name} is not in docs/CLI.md");
    }
    for line in EPILOGUE.lines().skip_while(|line| !line.starts_with("Exit codes")).skip(1) {
        let code = line.split_whitespace().next().unwrap();
        assert!(page.contains(&format!("| {code} |")), "exit code {code} is not in docs/CLI.md");
    }
}

#[test]
fn slots_are_read_as_people_write_them() {
    let read = |text: &str| text.parse::<JobOrSlot>();
    let job = JobName::new("web").unwrap();
    assert_eq!(read("web"), Ok(JobOrSlot { job: job.clone(), slot: None }));
    assert_eq!(read("web/2"), Ok(JobOrSlot { job, slot: Some(2) }));
    for wrong in ["", "/2", "web/", "web/x", "web/-1", "Web", "web/1/2"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
