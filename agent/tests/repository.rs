//! The repository's own checks: the tests that its documents name are there, and its scripts for tests do as they say.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "repository/structure.rs"]
mod structure;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of crates").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between single backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_test_file(word: &str) -> bool {
    word.contains('/') && (word.ends_with(".rs") || word.ends_with(".sh"))
}

/// Whether a word is the name of a test, and of nothing else that the documents speak of: four words or more.
fn is_test_name(word: &str) -> bool {
    let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.matches('_').count() >= 3 && word.chars().all(small)
}

/// Whether a file has a test of this name, or a promise of the simulator's.
fn has_test(text: &str, name: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else { return false };
    let near = before.lines().rev().take(6).collect::<String>();
    name.starts_with("invariant_") || near.contains("#[test]") || near.contains("#[tokio::test")
}

/// The cells of the rows of all tables whose last column has this title.
fn rows<'a>(text: &'a str, last_column: &str) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| -> Option<Vec<&'a str>> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(str::trim).collect())
    };
    let (mut rows, mut inside) = (Vec::new(), false);
    for line in text.lines() {
        let Some(row) = cells(line) else {
            inside = false;
            continue;
        };
        if inside {
            rows.push(row);
        } else {
            inside = row.last() == Some(&last_column);
        }
    }
    let is_rule = |row: &Vec<&str>| row.iter().all(|cell| cell.chars().all(|c| c == '-'));
    rows.retain(|row| !is_rule(row));
    rows
}

/// What is wrong with a document in which each claim names the file of its test, and then the test.
fn faults_of_claims(document: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for row in rows(document, "shown by") {
        let claim: String = row[row.len().saturating_sub(2)].chars().take(60).collect();
        let shown_by = row[row.len() - 1];
        let says_why_not = shown_by.starts_with("no test: because ");
        if !says_why_not && !quoted(shown_by).any(is_test_file) {
            faults.push(format!("{claim}: names no test, and does not say 'no test: because ...'"));
        }
    }
    let mut file: Option<(&str, String)> = None;
    for word in quoted(document) {
        if is_test_file(word) {
            file = read(word).map(|text| (word, text));
            if file.is_none() {
                faults.push(format!("there is no file {word}"));
            }
        } else if is_test_name(word) {
            match &file {
                Some((_, text)) if has_test(text, word) => {}
                Some((path, _)) => faults.push(format!("{path} has no test {word}")),
                None => faults.push(format!("no file is named for {word}")),
            }
        }
    }
    faults
}

#[test]
fn every_claim_about_security_names_a_test_that_exists_or_says_why_there_is_none() {
    let page = read("docs/SECURITY.md");
    assert!(rows(&page, "shown by").len() > 50, "its tables are found");
    let read = |path: &str| std::fs::read_to_string(root().join(path)).ok();
    let faults = faults_of_claims(&page, read);
    assert!(faults.is_empty(), "docs/SECURITY.md:\n{}", faults.join("\n"));

    // And what it should find, it finds.
    let file = |path: &str| {
        let text =
            "#[test]\nfn what_is_there_is_found() {}\n\n\n\n\n\n\n\nfn a_helper_is_no_test() {}";
        (path == "a/tests.rs").then(|| text.to_owned())
    };
    let page = |shown_by: &str| format!("| | shown by |\n|---|---|\n| it is so | {shown_by} |\n");
    for (shown_by, fault) in [
        ("`a/tests.rs`: `what_is_there_is_found`", None),
        ("`a/tests.rs`", None),
        ("no test: because it is meant so", None),
        ("`a/tests.rs`: `what_is_gone_is_missed`", Some("a/tests.rs has no test")),
        ("`a/tests.rs`: `a_helper_is_no_test`", Some("a/tests.rs has no test")),
        ("`a/other.rs`: `what_is_there_is_found`", Some("there is no file a/other.rs")),
        ("`what_is_there_is_found`", Some("names no test")),
        ("everybody knows", Some("names no test")),
        ("", Some("names no test")),
    ] {
        let faults = faults_of_claims(&page(shown_by), file);
        let found = faults.iter().any(|said| fault.is_some_and(|fault| said.contains(fault)));
        assert_eq!((faults.is_empty(), found), (fault.is_none(), fault.is_some()), "{faults:?}");
    }
}

/// Names of all functions in the tree, and of its files: tests, promises, scenarios and stories.
fn names_in_the_tree() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let crates = ["agent", "cli", "discovery", "ebpf", "fabric", "helper", "hw-tests", "metrics"];
    let mut folders: Vec<PathBuf> = crates.map(|name| root().join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
                continue;
            }
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
            if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let after = text.split("fn ").skip(1);
                let name = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
                names.extend(after.filter_map(|rest| Some(rest.split(name).next()?.to_owned())));
                // Promises that are not looked at in a function of their own.
                let strings = text.split('"').filter(|word| word.starts_with("invariant_"));
                names.extend(strings.map(str::to_owned));
            }
        }
    }
    names
}

#[test]
fn tests_that_other_documents_name_are_there() {
    let names = names_in_the_tree();
    let mut looked_at = 0;
    let mut missing = Vec::new();
    // The title of the last column, and whether it is the one that names tests, or the first one.
    for (document, title, is_last) in [
        ("docs/CLAIMS.md", "shown by", true),
        ("docs/TESTING.md", "story", false),
        ("docs/TESTING.md", "s", false),
    ] {
        let text = read(document);
        for row in rows(&text, title) {
            let cell = if is_last { row[row.len() - 1] } else { row[0] };
            for word in quoted(cell) {
                // `a_pulled_cable_…`, `lease_of_*`: how it begins.
                let start = word.trim_end_matches(['…', '*']);
                let is_cut = start.len() < word.len();
                let is_name = |word: &str| {
                    let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                    !word.is_empty() && word.contains('_') && word.chars().all(small)
                };
                if !is_name(start) {
                    continue;
                }
                looked_at += 1;
                let is_there = match is_cut {
                    true => names
                        .range(start.to_owned()..)
                        .next()
                        .is_some_and(|name| name.starts_with(start)),
                    false => names.contains(start),
                };
                if !is_there {
                    missing.push(format!("{document}: {word}"));
                }
            }
        }
    }
    assert!(looked_at > 60, "only {looked_at} names were found");
    assert!(missing.is_empty(), "{missing:#?}");
}

/// A script of ours, what it said, and its exit status.
fn script(name: &str, words: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(root().join("agent/tests").join(name))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

#[test]
fn skipped_tests_are_counted_and_named_by_reason() {
    // As cargo prints it: two programs, then a script, then the first one's tests where they can run.
    let said = "\
running 5 tests
test store::works ... ok
test host::needs_root ... ok
test host::too ... ok
test elsewhere::first_here ... ok
test elsewhere::in_part ... ok

successes:

---- host::needs_root stdout ----
a word
skipped: needs root
skipped: needs root

---- host::too stdout ----
skipped: needs root
skipped: no pids controller

---- elsewhere::first_here stdout ----
skipped: systemd is not PID 1

---- elsewhere::in_part stdout ----
skipped: systemd is not PID 1


successes:
    host::needs_root
    store::works

test result: ok. 5 passed; 0 failed

running 1 test
test other::fails ... FAILED

failures:

---- other::fails stdout ----
it is shown

test result: FAILED. 0 passed; 1 failed
test_deb: skipped: no systemd in a container here

running 2 tests
test elsewhere::first_here ... ok
test elsewhere::in_part ... ok

successes:

---- elsewhere::in_part stdout ----
skipped: no cpu controller


successes:
    elsewhere::first_here
    elsewhere::in_part

test result: ok. 2 passed; 0 failed
";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("said");
    std::fs::write(&path, said).expect("written");
    let path = path.to_str().expect("text");
    let (shown, status) = script("skipped.sh", &["sh", "-c", "cat \"$1\"; exit 7", "sh", path]);
    assert_eq!(status, Some(7), "{shown}");
    let end = "
4 tests were skipped, whole or in part:
  needs root
      host::needs_root
      host::too
  no cpu controller
      elsewhere::in_part
  no pids controller
      host::too
  no systemd in a container here
      test_deb
";

    assert!(shown.ends_with(&end), "{shown}");
    for (text, is_shown) in [
        ("test store::works ... ok\n", true),
        ("it is shown\n", true),
        ("test result: FAILED. 0 passed; 1 failed\n", true),
        ("a word\n", false),
        ("systemd is not PID 1", false),
    ] {
        assert_eq!(shown.contains(text), is_shown, "{text:?} in {shown}");
    }

    let (shown, status) = script("skipped.sh", &["echo", "test a ... ok"]);
    assert_eq!((shown.as_str(), status), ("test a ... ok\n", Some(0)), "nothing was skipped");
}

#[test]
fn tests_side_by_side_are_shown_whole_and_a_failure_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("changed");
        path.display().to_string()
    };
    // Each waits until the other one runs, too.
    let meets = |mine: &str, other: &str, status: u8| {
        format!(
            "#!/bin/bash\necho {mine} begins\n: > {mine}\nuntil [ -e {other} ]; do sleep 0.01; done\n\
             echo {mine} ends\nexit {status}\n"
        )
    };
    let left = write("weftd-1", &meets("left", "right", 0));
    let right = write("ground-1", &meets("right", "left", 3));
    let artifact = |name: &str, kind: &str, path: &str| {
        format!(
            r#"{{"reason":"compiler-artifact","manifest_path":"{}/Cargo.toml","profile":{{"test":true}},"#,
            folder.path().display()
        ) + &format!(r#""target":{{"name":"{name}","kind":["{kind}"]}},"executable":"{path}"}}"#)
    };
    let built = write(
        "built",
        &[artifact("weftd", "lib", &left), artifact("ground", "test", &right)].join("\n"),
    );
    let cargo = write("cargo", &format!("#!/bin/bash\n[[ $* = *--doc* ]] || cat {built}\n"));
    let command = write("of_ours.sh", "#!/bin/bash\necho given \"$1\"\n");

    let (said, status) =
        script("side_by_side.py", &["--at-once", "2", &cargo, &format!("{command} {{weftd}}")]);
    assert_eq!(status, Some(1), "{said}");
    for whole in [
        "left begins\nleft ends\n".to_owned(),
        "right begins\nright ends\nside by side: ground failed: exit status 3\n".to_owned(),
        format!("given {left}\n"),
        "side by side: 4 of 4 ended after".to_owned(),
    ] {
        assert!(said.contains(&whole), "{whole:?} in {said}");
    }
    assert!(said.ends_with("side by side: failed: ground\n"), "{said}");

    let lists =
        "#!/bin/bash\n[ $1 != --list ] || printf 'one: test\\na::two: test\\n'\necho told $*\n";
    std::fs::write(folder.path().join("ground-1"), lists).expect("written");
    let (said, status) =
        script("side_by_side.py", &["--each", "ground", "--first", "ground", &cargo]);
    assert_eq!(status, Some(0), "{said}");
    for one in ["told --exact one --show-output\n", "told --exact a::two --show-output\n", "4 of 4"]
    {
        assert!(said.contains(one), "{one:?} in {said}");
    }
    let (said, status) = script("side_by_side.py", &["false"]);
    assert_eq!((said.as_str(), status), ("", Some(1)), "nothing was built");
}

#[test]
fn a_command_beside_load_has_its_exit_status_and_leaves_no_loop() {
    let (said, status) = script("beside_load.sh", &["sh", "-c", "exit 7"]);
    assert_eq!(status, Some(7), "{said}");
    let loops: Vec<u32> = said
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(pids, _)| pids.split(' ').filter_map(|pid| pid.parse().ok()).collect())
        .unwrap_or_default();
    let cpus = Command::new("nproc").output().expect("coreutils").stdout;
    let cpus = String::from_utf8_lossy(&cpus).trim().parse().ok();
    assert_eq!(Some(loops.len()), cpus, "one for each: {said}");
    assert!(loops.iter().all(|pid| !is_busy(*pid)), "{said}");

    // Nobody could tell its loops to end: they find out.
    let mut killed = Command::new(root().join("agent/tests/beside_load.sh"))
        .args(["sleep", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    let mut line = String::new();
    let stdout = killed.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    let loops: Vec<u32> = line
        .split(['(', ')'])
        .nth(1)
        .map(|pids| pids.split(' ').filter_map(|pid| pid.parse().ok()).collect())
        .unwrap_or_default();
    assert!(!loops.is_empty() && loops.iter().all(|pid| is_busy(*pid)), "{line}");
    let until = Instant::now() + Duration::from_secs(60);
    let command = loop {
        let others = children_of(killed.id()).into_iter().find(|pid| !loops.contains(pid));
        match others {
            Some(command) => break command,
            None => assert!(Instant::now() < until, "it runs no command"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    killed.kill().expect("it is ours");
    killed.wait().expect("it is ours");
    let command = nix::unistd::Pid::from_raw(command as i32);
    nix::sys::signal::kill(command, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
    while loops.iter().any(|pid| is_busy(*pid)) {
        assert!(Instant::now() < until, "{loops:?} go on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process is a loop of the script.
fn is_busy(pid: u32) -> bool {
    let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.contains("beside_load.sh")
}

fn children_of(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    text.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
