//! The guide (docs/guide), word for word: each page's commands are typed on machines made of namespaces, and what the
//! page says that they print is compared with what they print.
//!
//! In a block of kind `console` a line `birch$ COMMAND` is typed on the machine birch, and the lines below it are what comes
//! back, also on stderr. `…` stands for any text, and a line that is only that for any number of lines; how far columns are
//! apart does not matter, nor do empty lines. A command with no lines below it may print anything. It has to end well, unless the page says
//! otherwise. What a reader does by hand is said to this test in comments, which the book does not show:
//!
//!     <!-- file web.toml -->      the next block is the content of that file
//!     <!-- ends with 3 -->        the exit status of the commands of the next block
//!     <!-- not typed: WHY -->     the next block is only read
//!     <!-- power off cedar -->    and `power on`, `stop agent`, `start agent`

#![allow(clippy::disallowed_methods, reason = "commands are typed again in real time")]

mod testbed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testbed::{Lab, Machine};

/// How long a page may wait for what it says, where that is a matter of time.
const PATIENCE: Duration = Duration::from_secs(60);
/// What only looks: typed again until it shows what the page says.
const LOOKS: [&str; 10] =
    ["ps", "nodes", "node", "status", "jobs", "explain", "events", "logs", "doctor", "query"];
/// Stands for any text.
const ANY: &str = "…";

/// One thing that a page says or does.
#[derive(Debug, PartialEq)]
enum Step {
    File { name: String, content: String },
    Typed { line: usize, machine: String, command: String, shown: Vec<String>, status: i32 },
    Power { machine: String, on: bool },
    Agent { machine: String, on: bool },
}

fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    let files = std::fs::read_dir(&folder).expect("docs/guide");
    let mut pages: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    pages.retain(|page| page.extension().is_some_and(|it| it == "md"));
    pages.sort();
    pages
}

/// What a page says and does, in turn.
///
/// # Errors
/// When it is not written as it should be: with the line.
fn read(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let (mut file, mut status, mut skipped) = (None, 0, false);
    while let Some((at, line)) = lines.next() {
        let bad = |what: &str| Err(format!("line {at}: {what}: {line}"));
        if let Some(said) = line.strip_prefix("<!-- ").and_then(|it| it.strip_suffix(" -->")) {
            let words: Vec<&str> = said.split(' ').collect();
            match words[..] {
                ["file", name] => file = Some(name.to_owned()),
                ["ends", "with", code] => {
                    status = code.parse().map_err(|_| format!("line {at}: no number: {code}"))?;
                }
                ["not", "typed:", _, ..] => skipped = true,
                [what @ ("power" | "stop" | "start"), how, machine] => {
                    let machine = machine.to_owned();
                    steps.push(match (what, how) {
                        ("power", "on") => Step::Power { machine, on: true },
                        ("power", "off") => Step::Power { machine, on: false },
                        ("stop", "agent") => Step::Agent { machine, on: false },
                        ("start", "agent") => Step::Agent { machine, on: true },
                        _ => return bad("unknown"),
                    });
                }
                _ => return bad("unknown"),
            }
        } else if let Some(kind) = line.strip_prefix("```") {
            let block: Vec<(usize, &str)> = lines.by_ref().take_while(|it| it.1 != "```").collect();
            let said = (file.take(), std::mem::take(&mut status), std::mem::take(&mut skipped));
            match said {
                (_, _, true) => {}
                (Some(name), ..) => {
                    let content = block.iter().map(|(_, line)| format!("{line}\n")).collect();
                    steps.push(Step::File { name, content });
                }
                (None, status, false) if kind == "console" => {
                    steps.extend(typed(&block, status)?);
                }
                _ => {}
            }
        }
    }
    Ok(steps)
}

fn typed(block: &[(usize, &str)], status: i32) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    for (line, text) in block {
        let prompt = text.split_once("$ ").filter(|(name, _)| {
            !name.is_empty() && name.chars().all(|char| char.is_ascii_lowercase())
        });
        match (prompt, steps.last_mut()) {
            (Some((machine, command)), _) => steps.push(Step::Typed {
                line: *line,
                machine: machine.to_owned(),
                command: command.split("  #").next().unwrap_or_default().trim().to_owned(),
                shown: Vec::new(),
                status,
            }),
            (None, Some(Step::Typed { shown, .. })) => {
                shown.extend((!text.trim().is_empty()).then(|| (*text).to_owned()));
            }
            (None, _) => return Err(format!("line {line}: no command: {text}")),
        }
    }
    Ok(steps)
}

/// Whether what is said is what was printed; words with `…` in them and what stood there are noted.
fn is_shown(said: &[String], printed: &[&str], known: &mut BTreeMap<String, String>) -> bool {
    match said {
        [] => printed.is_empty(),
        [any, rest @ ..] if any.trim() == ANY => {
            (0..=printed.len()).any(|from| is_shown(rest, &printed[from..], known))
        }
        [line, rest @ ..] => {
            let [first, others @ ..] = printed else { return false };
            let mut found = known.clone();
            let same = is_line(line, first, &mut found) && is_shown(rest, others, &mut found);
            if same {
                *known = found;
            }
            same
        }
    }
}

fn is_line(said: &str, printed: &str, known: &mut BTreeMap<String, String>) -> bool {
    let (said, printed): (Vec<&str>, Vec<&str>) =
        (said.split_whitespace().collect(), printed.split_whitespace().collect());
    are_words(&said, &printed, known)
}

fn are_words(said: &[&str], printed: &[&str], known: &mut BTreeMap<String, String>) -> bool {
    match said {
        [] => printed.is_empty(),
        [any, rest @ ..] if *any == ANY => {
            (0..=printed.len()).any(|from| are_words(rest, &printed[from..], known))
        }
        [word, rest @ ..] => {
            let [first, others @ ..] = printed else { return false };
            let same = match word.split_once(ANY) {
                None => word == first,
                Some((before, after)) => {
                    first.len() >= before.len() + after.len()
                        && first.starts_with(before)
                        && first.ends_with(after)
                }
            };
            if !same || !are_words(rest, others, known) {
                return false;
            }
            if word.contains(ANY) {
                known.insert((*word).to_owned(), (*first).to_owned());
            }
            true
        }
    }
}

/// The machines of a page.
struct Reader<'l> {
    lab: &'l Lab,
    machines: BTreeMap<String, Machine>,
    desk: PathBuf,
    /// Words with `…`, and what stood there.
    known: BTreeMap<String, String>,
}

impl<'l> Reader<'l> {
    fn new(lab: &'l Lab, steps: &[Step]) -> Self {
        let desk = lab.folder().join("desk");
        std::fs::create_dir(&desk).expect("a folder");
        let mut reader = Self { lab, machines: BTreeMap::new(), desk, known: BTreeMap::new() };
        for step in steps {
            let Step::Typed { machine, .. } = step else { continue };
            if !reader.machines.contains_key(machine) {
                let mut started = reader.lab.machine(machine);
                started.start_agent();
                reader.machines.insert(machine.clone(), started);
            }
        }
        reader
    }

    /// # Errors
    /// When the page is wrong: with what was seen instead.
    fn does(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::File { name, content } => {
                std::fs::write(self.desk.join(name), content).map_err(|error| error.to_string())
            }
            Step::Power { machine, on } => {
                let machine = self.machine(machine)?;
                if *on {
                    machine.power_on();
                    machine.start_agent();
                } else {
                    machine.power_off();
                }
                Ok(())
            }
            Step::Agent { machine, on } => {
                let machine = self.machine(machine)?;
                if *on {
                    machine.start_agent()
                } else {
                    machine.end_agent()
                }
                Ok(())
            }
            Step::Typed { line, machine, command, shown, status } => {
                let words: Vec<&str> = command.split(' ').collect();
                let looks = matches!(words[..], ["weft", verb, ..] if LOOKS.contains(&verb));
                let until = Instant::now() + if looks { PATIENCE } else { Duration::ZERO };
                loop {
                    let (code, printed) = self.types(machine, command);
                    let lines: Vec<&str> =
                        printed.lines().filter(|line| !line.trim().is_empty()).collect();
                    let same = shown.is_empty() || is_shown(shown, &lines, &mut self.known);
                    if code == Some(*status) && same {
                        return Ok(());
                    }
                    if Instant::now() >= until {
                        let code = code.map_or("a signal".to_owned(), |code| code.to_string());
                        return Err(format!(
                            "line {line}: {machine}$ {command}\nends with {code}, not {status}, and prints\n{printed}"
                        ));
                    }
                    std::thread::sleep(Duration::from_millis(300));
                }
            }
        }
    }

    fn types(&self, machine: &str, command: &str) -> (Option<i32>, String) {
        let there = self.machines.get(machine).expect("it was started");
        let mut text = command.to_owned();
        for (word, stood) in &self.known {
            text = text.replace(word, stood);
        }
        let (code, printed) = there.types(&self.desk, &text);
        println!("{machine}$ {text}\n{printed}[{code:?}]\n");
        (code, printed)
    }

    fn machine(&mut self, name: &str) -> Result<&mut Machine, String> {
        self.machines.get_mut(name).ok_or_else(|| format!("nothing is typed on {name}"))
    }
}

fn follow(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(page);
    let text = std::fs::read_to_string(&path).expect("the page");
    let steps = read(&text).unwrap_or_else(|error| panic!("{page}: {error}"));
    let typed = steps.iter().filter(|step| matches!(step, Step::Typed { .. })).count();
    assert!(typed > 0, "{page}: nothing is typed");
    let Some(lab) = Lab::new("guide") else { return };
    let mut reader = Reader::new(&lab, &steps);
    for step in &steps {
        reader.does(step).unwrap_or_else(|error| panic!("docs/guide/{page}: {error}"));
    }
    println!("{page}: {typed} commands do what the page says");
}

#[test]
fn the_pages_that_are_typed_are_those_that_have_something_to_type() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guide.rs");
    let source = std::fs::read_to_string(source).expect("this file");
    let summary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SUMMARY.md");
    let summary = std::fs::read_to_string(summary).expect("the list of pages");
    for page in pages() {
        let name = page.file_name().and_then(|name| name.to_str()).expect("a name");
        let text = std::fs::read_to_string(&page).expect("a page");
        let steps = read(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let typed = source.contains(&format!("follow(\"{name}\")"));
        assert_eq!(typed, !steps.is_empty(), "{name}: has it commands, and a test?");
        assert!(summary.contains(&format!("(guide/{name})")), "{name} is not listed");
    }
}

#[test]
fn getting_started() {
    follow("getting-started.md");
}

#[test]
fn changing_a_job() {
    follow("changing-a-job.md");
}

#[test]
fn when_something_is_wrong() {
    follow("troubleshooting.md");
}

#[test]
fn coming_from_another_tool() {
    follow("coming-from.md");
}

#[test]
fn when_machines_are_lost() {
    follow("machines.md");
}

#[test]
fn limits_are_as_the_page_says() {
    use fabric::limits;
    let page = pages().into_iter().find(|page| page.ends_with("limits.md")).expect("the page");
    let page = std::fs::read_to_string(page).expect("the page");
    let limits = [
        ("nodes of a fabric", limits::MEMBERS_MAX),
        ("entries of its table: jobs, nodes, allocations, tokens and quotas", limits::ENTRIES_MAX),
        ("names of jobs, those of deleted ones included", limits::JOBS_MAX),
        ("slots of a job", limits::COUNT_MAX as usize),
        ("slots of a job that starts as a whole (`gang`)", limits::GANG_SLOTS_MAX as usize),
        ("allocations on a node", limits::ALLOCS_PER_NODE_MAX),
        ("letters of a job's name", limits::JOB_NAME_BYTES_MAX),
        ("labels of a node", limits::LABELS_MAX),
        ("devices of a node", limits::DEVICES_PER_NODE_MAX),
        ("CPUs of a machine", limits::CPUS_MAX),
        ("nodes that vote over leases", limits::VOTERS_MAX),
        ("quotas", limits::QUOTAS_MAX),
    ];
    let bytes = format!("{} B", grouped(limits::JOB_FILE_BYTES_MAX));
    let days = format!("{} days", limits::ENDED_KEEP_MAX.as_secs() / 86_400);
    let mut rows: Vec<String> =
        limits.map(|(what, most)| format!("| {what} | {} |", grouped(most))).to_vec();
    rows.push(format!("| a job file, files in it included | {bytes} |"));
    rows.push(format!("| how long what has ended is remembered | {days} |"));
    for row in &rows {
        assert!(page.contains(row), "limits.md has no row {row}");
    }
    let written = page.lines().filter(|line| line.starts_with("| ")).count();
    assert_eq!(written, rows.len() + 1, "and no row that nothing is compared with");
}

/// With a comma after each thousand.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    let groups = groups.iter().map(|group| String::from_utf8_lossy(group));
    groups.collect::<Vec<_>>().join(",")
}

#[test]
fn what_a_page_says_is_compared_with_what_is_printed() {
    let page = "text\n<!-- file a.toml -->\n```toml\nx = 1\n```\n<!-- ends with 3 -->\n```console\n\
        one$ weft status  # all of it\nfabric  …\n…\nend\ntwo$ weft ps\n```\n<!-- power off two -->\n";
    let steps = read(page).expect("a page");
    let typed = |line, machine: &str, command: &str, shown: &[&str]| Step::Typed {
        line,
        machine: machine.into(),
        command: command.into(),
        shown: shown.iter().map(|&line| line.to_owned()).collect(),
        status: 3,
    };
    let expected = [
        Step::File { name: "a.toml".into(), content: "x = 1\n".into() },
        typed(8, "one", "weft status", &["fabric  …", "…", "end"]),
        typed(12, "two", "weft ps", &[]),
        Step::Power { machine: "two".into(), on: false },
    ];
    assert_eq!(steps, expected);
    for wrong in ["<!-- fly cedar -->", "```console\nno command\n```", "<!-- ends with x -->"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }

    let mut known = BTreeMap::new();
    let mut shows = |said: &[&str], printed: &str| {
        let said: Vec<String> = said.iter().map(|&line| line.to_owned()).collect();
        is_shown(&said, &printed.lines().collect::<Vec<_>>(), &mut known)
    };
    assert!(shows(&["a  b", "…", "end"], "a b\nx\ny\nend"));
    assert!(shows(&["a … end"], "a much more at the end"));
    assert!(!shows(&["a b"], "a b\nand more"), "a line more");
    assert!(!shows(&["a b", "c"], "a b"), "a line less");
    assert!(!shows(&["a b"], "a c"));
    assert!(shows(&["token weft1.…"], "token weft1.abc"));
    assert_eq!(known.get("weft1.…").map(String::as_str), Some("weft1.abc"));
}
