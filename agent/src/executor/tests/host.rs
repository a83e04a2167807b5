//! What tasks may not take from the agent, or leave on the machine.

use fabric::job::TaskFile;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use super::{Agent, LogQuery, alive, shell, wait_until};
use crate::executor::environment;
use crate::executor::spawn::open_append;
use crate::executor::spawn::{self, Plan};

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn file(path: &Path) -> TaskFile {
    TaskFile { path: path.display().to_string(), content: "answer = 42\n".into() }
}

/// Everything below a folder. What goes meanwhile is left out.
pub fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        all.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(tree(&entry.path()));
        }
    }
    all.sort();
    all
}

#[test]
fn files_leave_nothing_on_the_machine() {
    if !is_root() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let machine = tempfile::tempdir().unwrap();
    let paths = ["conf.d/app.toml", "conf.d/more/b", "c"].map(|path| machine.path().join(path));
    let script = format!("cat {}; exec sleep 1000", paths[1].display());
    let mut agent = Agent::direct(state.path());
    let mut one = shell("one", &script);
    one.task.files = paths.iter().map(|path| file(path)).collect();
    one.task.sandbox.enabled = false;
    let mut two =
        shell("two", "trap 'cat \"$FILE\"; exit 0' TERM; echo up; while :; do sleep 0.02; done");
    two.task.files = vec![file(&paths[0])];
    two.task.env.insert("FILE".into(), paths[0].display().to_string());
    two.task.sandbox.enabled = false;
    agent.start(&one);
    agent.running(&one);
    agent.wait_for_log(&one, "answer");
    agent.start(&two);
    let pid = agent.running(&two);
    agent.wait_for_log(&two, "up");
    agent.stop(&one);
    agent.exited(&one);
    assert_eq!(tree(machine.path()), [machine.path().join("conf.d"), paths[0].clone()]);
    // The agent is gone when the second one ends.
    drop(agent);
    let signal = nix::sys::signal::Signal::SIGTERM;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
    wait_until("it ends", || !alive(pid));
    let mut agent = Agent::direct(state.path());
    agent.runtime.block_on(agent.executor.adopt()).unwrap();
    let log = agent.log(&two, LogQuery::default());
    assert_eq!(log, "up\nanswer = 42\n", "the end of the other one took nothing from it");
    assert_eq!(tree(machine.path()), [""; 0].map(PathBuf::from));

    // What cannot start leaves nothing either.
    let mut never = shell("never", "true");
    never.task.command = vec!["/no/such/program".into()];
    never.task.files = vec![file(&paths[1])];
    agent.start(&never);
    agent.refused(&never);
    assert_eq!(tree(machine.path()), [""; 0].map(PathBuf::from));
}

/// A job owns a folder that is on the way to a file of a task.
#[test]
fn a_link_in_a_folder_of_a_task_leads_nobody_elsewhere() {
    if !is_root() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let machine = tempfile::tempdir().unwrap();
    let (theirs, etc) = (machine.path().join("theirs"), machine.path().join("etc"));
    std::fs::create_dir(&theirs).unwrap();
    std::fs::create_dir(&etc).unwrap();
    chown(&theirs, Some(61184), Some(61184)).unwrap();
    let mut agent = Agent::direct(state.path());
    let mut one = shell("attacked", "true");
    one.task.files = vec![file(&theirs.join("conf/nologin"))];
    symlink(&etc, theirs.join("conf")).unwrap();
    agent.start(&one);
    let reason = agent.refused(&one);
    assert!(reason.contains("conf: is a symbolic link that others than root"), "{reason}");
    assert_eq!(tree(&etc), [""; 0].map(PathBuf::from));

    // The link comes after the agent has looked: then nothing is mounted through it.
    std::fs::write(etc.join("nologin"), "").unwrap();
    let log = || open_append(&machine.path().join("log")).unwrap();
    let plan = Plan {
        environment: environment(&one),
        launch: &one,
        identity: None,
        cgroup: None,
        until: None,
        files: vec![(etc.join("nologin"), theirs.join("conf/nologin"))],
        stdout: log(),
        stderr: log(),
    };
    let reason = spawn::spawn(plan).unwrap_err();
    assert!(reason.starts_with("could not mount its files: "), "{reason}");
}

/// The agent is protected where memory runs out; its work and its checks are not.
#[test]
fn a_task_does_not_inherit_the_agents_oom_score() {
    let state = tempfile::tempdir().unwrap();
    let mut agent = Agent::direct(state.path());
    let one = shell("score", "cat /proc/self/oom_score_adj");
    let _raised = RaisedOomScore::new();
    agent.start(&one);
    agent.running(&one);
    agent.exited(&one);
    assert_eq!(agent.log(&one, LogQuery::default()), "0\n");
}

/// While this lives, this process has another score than ordinary work: a higher one, which anybody may set.
pub struct RaisedOomScore(#[allow(dead_code)] std::sync::MutexGuard<'static, ()>);

impl RaisedOomScore {
    pub fn new() -> Self {
        static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::fs::write("/proc/self/oom_score_adj", "300").unwrap();
        Self(turn)
    }
}

impl Drop for RaisedOomScore {
    fn drop(&mut self) {
        let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    }
}
