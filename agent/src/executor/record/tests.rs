use super::*;
use crate::executor::tests::{SmallDisk, shell};
use std::time::Duration;

fn ended_at(second: u64, job: &str) -> (JobName, SystemTime, PathBuf) {
    let when = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    (JobName::new(job).unwrap(), when, PathBuf::from(format!("{job}-{second}")))
}

/// Which folders are left of these.
fn kept(ended: Vec<(JobName, SystemTime, PathBuf)>) -> BTreeSet<PathBuf> {
    let all: BTreeSet<PathBuf> = ended.iter().map(|(_, _, folder)| folder.clone()).collect();
    let gone: BTreeSet<PathBuf> = surplus(ended).into_iter().collect();
    assert!(gone.is_subset(&all));
    all.difference(&gone).cloned().collect()
}

#[test]
fn of_each_job_the_last_logs_are_kept() {
    let ended = (0..40).map(|second| ended_at(second, "loops")).chain([ended_at(0, "quiet")]);
    let wanted = ["loops-36", "loops-37", "loops-38", "loops-39", "quiet-0"];
    assert_eq!(kept(ended.collect()), wanted.map(PathBuf::from).into());
}

/// A record has the environment of its task, and files may hold secrets: who is not root cannot enter the folder they lie in.
#[test]
fn nobody_but_the_agents_user_can_enter_the_folder_of_a_unit() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path(), View::Own).unwrap();
    let mut launch = shell("secretive", "true");
    launch.task.files =
        vec![fabric::job::TaskFile { path: "/etc/app/conf".into(), content: "hunter2".into() }];
    let folder = store.folder(&launch.alloc);
    let record =
        Record { launch: launch.clone(), boot: "b".into(), process: None, user: None, ended: None };
    store.write(&record).unwrap();
    store.prepare(&launch).unwrap();
    drop(crate::executor::spawn::open_append(&folder.join("stdout")).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(folder.parent().unwrap()), mode(&folder)), (0o700, 0o700));
    assert_eq!((mode(&folder.join("unit.json")), mode(&folder.join("stdout"))), (0o600, 0o600));
    assert_eq!(mode(&folder.join("files/0")), 0o444, "the task reads it, and nobody writes it");
}

#[test]
fn what_was_prepared_goes_unless_its_unit_was_started() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path(), View::Own).unwrap();
    let mut launch = shell("ready", "true");
    let bare = launch.clone();
    launch.task.files = ["/etc/app/a", "/etc/app/b"]
        .map(|path| fabric::job::TaskFile { path: path.into(), content: path.into() })
        .into();
    store.prepare(&bare).unwrap();
    let folder = store.folder(&launch.alloc);
    assert!(!folder.exists(), "what needs nothing leaves nothing");
    store.prepare(&launch).unwrap();
    let read = |store: &Store| {
        let pairs = store.files(&launch).unwrap().into_iter();
        pairs.map(|(file, to)| (std::fs::read_to_string(file).unwrap(), to)).collect::<Vec<_>>()
    };
    let wanted = ["/etc/app/a", "/etc/app/b"].map(|path| (path.to_owned(), PathBuf::from(path)));
    assert_eq!(read(&store), wanted);
    assert_eq!(store.all().unwrap(), [], "it is no unit yet");
    store.unprepare(&launch.alloc);
    assert!(!folder.exists());
    assert_eq!(read(&store), wanted, "a start does not rely on it");
    // An agent that ended in between leaves nothing either.
    drop(store);
    let store = Store::open(state.path(), View::Own).unwrap();
    assert!(!folder.exists());
    store.prepare(&launch).unwrap();
    let record =
        Record { launch: launch.clone(), boot: "b".into(), process: None, user: None, ended: None };
    store.write(&record).unwrap();
    store.unprepare(&launch.alloc);
    let store = Store::open(state.path(), View::Own).unwrap();
    assert_eq!(store.all().unwrap(), [record]);
    assert_eq!(read(&store), wanted);
}

#[test]
fn a_disk_that_fills_while_preparing_is_said_and_leaves_nothing_behind() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can mount a small file system");
    }
    let state = tempfile::tempdir().unwrap();
    let small = SmallDisk::mount(state.path());
    let store = Store::open(&small.0, View::Own).unwrap();
    let mut launch = shell("hungry", "true");
    let content = "x".repeat(100 << 10);
    launch.task.files = (0..4)
        .map(|n| fabric::job::TaskFile { path: format!("/etc/{n}"), content: content.clone() })
        .collect();
    let error = store.prepare(&launch).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::ENOSPC), "{error}");
    store.unprepare(&launch.alloc);
    assert!(!store.folder(&launch.alloc).exists());
    launch.task.files.truncate(2);
    store.prepare(&launch).unwrap();
}

#[test]
fn beyond_the_bound_the_job_that_has_most_gives_up_its_oldest() {
    // Each has as much as it may have; `old` ended once, before all others.
    let busy = (0..16).flat_map(|job| {
        (0..4).map(move |second| ended_at(100 + 10 * second + job, &format!("busy{job}")))
    });
    let left = kept(busy.chain([ended_at(1, "old"), ended_at(2, "older")]).collect());
    assert_eq!(left.len(), ENDED_MAX);
    assert!(left.contains(Path::new("old-1")) && left.contains(Path::new("older-2")));
    for gone in ["busy0-100", "busy1-101"] {
        assert!(!left.contains(Path::new(gone)), "{left:?}");
    }
    // Where each has one, the oldest go.
    let single = (0..100).map(|second| ended_at(second, &format!("single{second}")));
    let left = kept(single.collect());
    assert_eq!(left.len(), ENDED_MAX);
    assert!(left.contains(Path::new("single99-99")) && !left.contains(Path::new("single35-35")));
}

#[test]
fn a_job_that_fails_again_and_again_leaves_the_logs_of_one_that_ended_long_ago() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path(), View::Own).unwrap();
    let end = |job: &str, epoch| {
        let mut launch = shell(job, "true");
        launch.alloc.epoch = epoch;
        let folder = store.folder(&launch.alloc);
        let record = Record { launch, boot: "this".into(), process: None, user: None, ended: None };
        store.write(&record).unwrap();
        std::fs::write(folder.join("stdout"), job).unwrap();
        let status = "exit status 1".into();
        store.end(record, UnitEvent::Exited { status, success: false, killed: false }).unwrap();
        folder
    };
    let quiet = end("quiet", 1);
    let loops: Vec<PathBuf> = (1..=200).map(|epoch| end("loops", epoch)).collect();
    assert_eq!(std::fs::read_to_string(quiet.join("stdout")).unwrap(), "quiet");
    let left = loops.iter().filter(|folder| folder.exists()).count();
    assert!(left < ENDED_OF_JOB_MAX + ENDS_PER_PRUNING as usize, "{left}");
    assert!(loops[199].exists(), "the last one is there");
}
