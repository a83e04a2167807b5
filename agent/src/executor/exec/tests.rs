use super::*;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

fn words(command: &[&str], until: Option<BootTime>) -> Words {
    let command = command.iter().map(|word| word.to_string()).collect();
    Words::new(
        1,
        until,
        command,
        BTreeMap::from([("ODD".into(), "a;b $$ %h\n".into())]),
        CpuSet::new(),
    )
}

/// `weftd exec` as systemd starts it. `None`, and a word aloud, where it has not been built.
fn execute(folder: &Folder, unit: &str) -> Option<(String, String, Option<i32>)> {
    let command = command().unwrap();
    if !Path::new(&command[0]).is_file() {
        eprintln!("skipped: {} is not built", command[0]);
        return None;
    }
    let output = std::process::Command::new(&command[0])
        .args(&command[1..])
        .stdin(File::open(folder.path(unit)).unwrap())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some((text(output.stdout), text(output.stderr), output.status.code()))
}

#[test]
fn it_becomes_the_task_and_changes_no_word() {
    let state = tempfile::tempdir().unwrap();
    let folder = Folder::new(state.path().join("words"));
    let script = "echo \"$ODD\"; for word; do echo \"<$word>\"; done; cat";
    let odd = ["x", "id; no", "$$ ${x}", "%h", "'\"` \\", "two\nlines", ""];
    let command: Vec<&str> = ["/bin/sh", "-c", script].into_iter().chain(odd).collect();
    folder
        .write("unit", &words(&command, Some(BootTime::now() + Duration::from_secs(60))))
        .unwrap();
    let mode = std::fs::metadata(folder.path("unit")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "an environment may hold secrets");
    let Some((stdout, stderr, status)) = execute(&folder, "unit") else { return };
    assert_eq!((stderr.as_str(), status), ("", Some(0)), "its standard input is empty");
    let said: String = odd[1..].iter().map(|word| format!("<{word}>\n")).collect();
    assert_eq!(stdout, format!("a;b $$ %h\n\n{said}"));
    assert_eq!(folder.units(), ["unit"]);
    folder.remove("unit").unwrap();
    folder.remove("unit").unwrap();
    assert!(folder.units().is_empty());
}

#[test]
fn what_ends_before_it_is_a_task_is_none() {
    let ours = [command().unwrap()];
    let shell =
        |script: &str| std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
    let mut task = shell("sleep 60; :");
    let own = ["/bin/sh", "-c", "sleep 60; :"].map(str::to_owned).to_vec();
    let told = own.join("\0") + "\0";
    while std::fs::read_to_string(format!("/proc/{}/cmdline", task.id())).unwrap() != told {}
    assert!(is_a_task(task.id(), &ours));
    assert!(!is_a_task(task.id(), &[own]), "it is ours still");
    task.kill().unwrap();
    // Nobody has asked for its status: it stays a zombie.
    while !process::is_zombie(task.id()) {}
    assert!(!is_a_task(task.id(), &ours));
    task.wait().unwrap();
    assert!(!is_a_task(task.id(), &ours), "it is gone");
}

#[test]
fn why_it_does_not_become_the_task_is_its_last_line() {
    let state = tempfile::tempdir().unwrap();
    let folder = Folder::new(state.path());
    let stderr = state.path().join("stderr");
    let mut of_a_newer_agent = words(&["/bin/true"], None);
    of_a_newer_agent.format += 1;
    for (what, reason) in [
        (words(&["/bin/echo", "up"], Some(BootTime::now())), "its lease ran out before"),
        (words(&["/no/such"], None), "/no/such cannot be executed: it is not there"),
        (words(&["/etc"], None), "/etc cannot be executed: its user may not"),
        (words(&["/bin/true", "zero\0byte"], None), "zero byte"),
        (of_a_newer_agent, "format 2, and not 1"),
    ] {
        folder.write("unit", &what).unwrap();
        let Some((stdout, said, status)) = execute(&folder, "unit") else { return };
        assert_eq!((stdout.as_str(), status), ("", Some(FAILED)), "{said}");
        std::fs::write(&stderr, format!("before\n{said}")).unwrap();
        let found = super::reason(&stderr, "before\n".len() as u64).unwrap();
        assert!(found.contains(reason), "{found}");
        // The agent looks for lines of this start only.
        let whole = std::fs::metadata(&stderr).unwrap().len();
        assert_eq!(super::reason(&stderr, whole), None);
    }
    std::fs::write(&stderr, "weft: not executed: x\nthe task's own last word\n").unwrap();
    assert_eq!(super::reason(&stderr, 0), None);
}

#[test]
fn a_lease_is_extended_for_its_run_only_and_never_shortened() {
    let state = tempfile::tempdir().unwrap();
    let folder = Folder::new(state.path());
    let (soon, later) = (BootTime::now(), BootTime::now() + Duration::from_secs(9));
    let until = || read(File::open(folder.path("unit")).unwrap()).unwrap().until;
    folder.extend("unit", 1, later).unwrap();
    assert!(folder.units().is_empty(), "nothing is made of nothing");
    folder.write("unit", &words(&["/bin/true"], Some(soon))).unwrap();
    folder.extend("unit", 2, later).unwrap();
    assert_eq!(until(), Some(soon));
    folder.extend("unit", 1, later).unwrap();
    folder.extend("unit", 1, soon).unwrap();
    assert_eq!(until(), Some(later));
    folder.write("unit", &words(&["/bin/true"], None)).unwrap();
    folder.extend("unit", 1, later).unwrap();
    assert_eq!(until(), None, "it needs none");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    /// Through the file and through the execution, into the task's own memory.
    #[test]
    fn every_value_of_an_environment_arrives_as_it_is(
        values in proptest::collection::vec("([^\0]|[\n\r\t\"'`$\\\\%#;= ]){0,40}", 0..6),
        long in 0usize..100_000,
    ) {
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::new(state.path().join("words"));
        let long = ["\"$\\", "%\n"].concat().repeat(long / 5);
        let named = values.into_iter().chain([long]).enumerate();
        let wanted: BTreeMap<String, String> =
            named.map(|(number, value)| (format!("VALUE_{number}"), value)).collect();
        let command = vec!["/usr/bin/env".to_owned(), "-0".to_owned()];
        let words = Words::new(1, None, command, wanted.clone(), CpuSet::new());
        folder.write("unit", &words).unwrap();
        let Some((stdout, stderr, status)) = execute(&folder, "unit") else { return Ok(()) };
        proptest::prop_assert_eq!((stderr.as_str(), status), ("", Some(0)));
        let pairs = stdout.split_terminator('\0').filter_map(|pair| pair.split_once('='));
        let ours = pairs.filter(|(name, _)| name.starts_with("VALUE_"));
        let arrived: BTreeMap<String, String> =
            ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        proptest::prop_assert_eq!(arrived, wanted);
    }
}
