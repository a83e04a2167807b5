//! What tasks leave on the machine, and what they see of each other there.

use fabric::job::TaskFile;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::{agent, end, outcome, reload, systemctl};
use crate::executor::tests::host::tree;
use crate::executor::tests::{shell, wait_until};
use crate::executor::{Channel, LogQuery};

fn file(path: &str) -> TaskFile {
    TaskFile { path: path.into(), content: "answer = 42\n".into() }
}

/// What of a test is in the folders that it puts files into. Other tests run at the same time.
fn machine(mark: &str) -> Vec<PathBuf> {
    let folders = ["/etc", "/srv", "/run"].map(Path::new);
    let all = folders.into_iter().flat_map(tree);
    all.filter(|path| path.to_string_lossy().contains(mark)).collect()
}

#[test]
fn on_systemd_files_leave_nothing_on_the_machine() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let none = [""; 0].map(PathBuf::from);
    assert_eq!(machine("host-test"), none);
    // The last one by way of a link that every machine has.
    let paths = [
        "/etc/host-test/app/secret.conf",
        "/srv/host-test",
        "/etc/host-test.d/app",
        "/var/run/host-test/x",
    ];
    let mut one = shell("leaves", &format!("cat {} && exec sleep 600", paths.join(" ")));
    one.task.files = paths.iter().map(|path| file(path)).collect();
    let mut two = shell(
        "stays",
        // systemd signals whoever is there until nobody is new: what looks at the end is not to hear it.
        "trap 'trap \"\" TERM; cat /etc/host-test/app/secret.conf; exit 0' TERM; echo up; while :; do sleep 0.02; done",
    );
    two.task.files = vec![file(paths[0])];
    agent.start(&one);
    agent.running(&one);
    agent.wait_for_log(&one, &"answer = 42\n".repeat(paths.len()));
    agent.start(&two);
    agent.running(&two);
    agent.wait_for_log(&two, "up");
    assert_ne!(machine("host-test"), none, "it has something to be mounted over");
    end(&mut agent, &one);
    let left = ["/etc/host-test", "/etc/host-test/app", paths[0]].map(PathBuf::from);
    assert_eq!(machine("host-test"), left, "the other one has it mounted");
    // Started again by hand, it finds its file; so it does at its end.
    drop(agent);
    let (said, is_done) = systemctl(&["restart", &two.alloc.unit()]);
    assert!(is_done, "{said}");
    let mut agent = super::agent(&state).unwrap();
    agent.runtime.block_on(agent.executor.adopt()).unwrap();
    let stdout = state.path().join("alloc").join(two.alloc.unit()).join("stdout");
    let ups = || std::fs::read_to_string(&stdout).unwrap().matches("up").count();
    wait_until("it is up again", || ups() == 2);
    end(&mut agent, &two);
    let stdout = LogQuery { channel: Some(Channel::Stdout), ..LogQuery::default() };
    let log = agent.log(&two, stdout);
    assert_eq!(log, "up\nanswer = 42\nup\nanswer = 42\n");
    assert_eq!(machine("host-test"), none);

    // The agent is gone when this one ends, and what cannot start leaves nothing either.
    let mut three = shell("alone", "exec sleep 600");
    three.task.files = one.task.files.clone();
    agent.start(&three);
    agent.running(&three);
    drop(agent);
    let (said, is_done) = systemctl(&["stop", &three.alloc.unit()]);
    assert!(is_done, "{said}");
    assert_ne!(machine("host-test"), none);
    let mut agent = super::agent(&state).unwrap();
    agent.runtime.block_on(agent.executor.adopt()).unwrap();
    assert_eq!(machine("host-test"), none);
    let mut never = shell("never", "true");
    never.task.command = vec!["/no/such/program".into()];
    never.task.files = one.task.files.clone();
    agent.start(&never);
    agent.refused(&never);
    assert_eq!(machine("host-test"), none);
}

/// A job owns a folder that is on the way to a file of a task. systemd itself would follow the link, as root.
#[test]
fn on_systemd_a_link_in_a_folder_of_a_task_leads_nobody_elsewhere() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let theirs = Path::new("/srv/owned-link-test");
    std::fs::create_dir(theirs).unwrap();
    chown(theirs, Some(61184), Some(61184)).unwrap();
    symlink("/etc", theirs.join("conf")).unwrap();
    let before = machine("link-test");
    let mut one = shell("attacked", "true");
    one.task.files = vec![file("/srv/owned-link-test/conf/link-test")];
    agent.start(&one);
    let reason = agent.refused(&one);
    assert!(
        reason.contains("/srv/owned-link-test/conf: is a symbolic link that others than root"),
        "{reason}"
    );
    assert_eq!(machine("link-test"), before);
    std::fs::remove_dir_all(theirs).unwrap();
}

#[test]
fn on_systemd_an_environment_arrives_as_it_is_and_nobody_else_reads_it() {
    let state = tempfile::tempdir().unwrap();
    let Some(mut agent) = agent(&state) else { return };
    let secret = "hunter2";
    let long = "\"$\\%'\n".repeat(10_000);
    let mut one = shell("secretive", "exec sleep 600");
    for (name, value) in [
        ("PASSWORD", secret),
        ("LINES", "first\nsecond\r\n\tthird\n"),
        ("QUOTES", "a \"b\" 'c' `d` \\ \\n \\\n"),
        ("DOLLARS", "$HOME ${x} $$ $(id)"),
        ("PERCENT", "%h %% %n 100%"),
        ("COMMENT", "# ; = no"),
        ("EMPTY", ""),
        ("LONG", &long),
    ] {
        one.task.env.insert(name.into(), value.into());
    }
    agent.start(&one);
    let pid = agent.running(&one);
    let unit = one.alloc.unit();
    reload();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let has: std::collections::BTreeSet<&[u8]> = environment.split(|&byte| byte == 0).collect();
    for (name, value) in &one.task.env {
        assert!(has.contains(format!("{name}={value}").as_bytes()), "{name}");
    }

    let words = agent.executor.leases().folder().path().join(format!("{unit}.words"));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&words), mode(words.parent().unwrap())), (0o600, 0o700));
    let (shown, _) = systemctl(&["show", &unit]);
    let (file, _) = systemctl(&["cat", &unit]);
    assert!(file.contains("ExecStart="), "{file}");
    let object = crate::executor::bus::path_of(&unit);
    let all = ["introspect", "--no-pager", "org.freedesktop.systemd1", &object];
    let bus = std::process::Command::new("busctl").args(all).output().unwrap();
    assert!(bus.status.success(), "{bus:?}");
    for text in [shown, file, String::from_utf8_lossy(&bus.stdout).into_owned()] {
        assert!(!text.contains(secret), "{text}");
    }

    // What anybody on the machine may read, a task does not see.
    let transient = Path::new("/run/systemd/transient").join(&unit);
    assert_eq!(mode(&transient), 0o644);
    let look = format!(
        "cat {0} 2>&1; ls /run/systemd/transient /run/weft-guard 2>&1",
        transient.display()
    );
    let curious = shell("curious", &look);
    agent.start(&curious);
    outcome(&mut agent, &curious);
    let log = agent.log(&curious, LogQuery::default());
    assert_eq!(log.matches("denied").count(), 3, "{log}");
    assert!(!log.contains("ExecStart"), "{log}");

    end(&mut agent, &one);
    assert!(!words.exists(), "it goes with the unit");
}
