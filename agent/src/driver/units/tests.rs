use super::*;
use crate::executor::tests::{Agent, SmallDisk, shell};
use fabric::job::TaskFile;

/// The disk has room for two of four files.
#[test]
fn a_preparation_that_fails_leaves_nothing_behind() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can mount a small file system");
    }
    let state = tempfile::tempdir().unwrap();
    let small = SmallDisk::mount(state.path());
    let agent = Agent::direct(&small.0);
    let (events, mut told) = mpsc::channel(8);
    let (executor, listeners) = (agent.executor.clone(), Listeners::new(None));
    let preparations = Preparations { executor, listeners, events, under_way: Arc::default() };
    let mut launch = shell("hungry", "true");
    let content = "x".repeat(100 << 10);
    launch.task.files = (0..4)
        .map(|number| TaskFile { path: format!("/etc/{number}"), content: content.clone() })
        .collect();
    let mut prepare = |launch: &Launch| {
        agent.runtime.block_on(async {
            preparations.begin(launch.clone());
            told.recv().await.expect("an event")
        })
    };
    let folder = small.0.join("alloc").join(launch.alloc.unit());
    for _ in 0..2 {
        let (alloc, run, event) = prepare(&launch);
        assert_eq!((&alloc, run), (&launch.alloc, launch.run));
        let UnitEvent::Refused { reason } = event else { panic!("{event:?}") };
        assert!(reason.contains("its files cannot be written"), "{reason}");
        assert!(!folder.exists(), "whether or not there is another attempt");
    }
    launch.task.files.truncate(2);
    assert_eq!(prepare(&launch).2, UnitEvent::Prepared);
    assert!(folder.join("files/1").exists());
}
