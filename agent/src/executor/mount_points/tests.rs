use super::*;
use crate::executor::tests::host::tree;
use std::os::unix::fs::{PermissionsExt, symlink};

/// A state folder with units, and a machine to make things on.
struct Stage {
    state: tempfile::TempDir,
    machine: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let new = || tempfile::tempdir().unwrap();
        Self { state: new(), machine: new() }
    }

    /// What an agent knows that has just been started.
    fn agent(&self) -> MountPoints {
        MountPoints::new(self.state.path().to_owned(), View::Own)
    }

    fn unit(&self, name: &str) -> String {
        std::fs::create_dir_all(self.state.path().join(name)).unwrap();
        name.to_owned()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.machine.path().join(path)
    }

    /// All there is on the machine.
    fn tree(&self) -> Vec<PathBuf> {
        tree(self.machine.path())
    }
}

#[test]
fn what_was_missing_is_made_and_goes_and_what_was_there_stays() {
    let stage = Stage::new();
    let (agent, unit) = (stage.agent(), stage.unit("one"));
    std::fs::create_dir(stage.path("etc")).unwrap();
    std::fs::write(stage.path("etc/there"), "").unwrap();
    let before = stage.tree();
    let paths =
        ["etc/there", "etc/app/conf.d/a", "etc/app/b", "srv/c"].map(|path| stage.path(path));
    let places = agent.claim(&unit, &paths).unwrap();
    let real = stage.machine.path().canonicalize().unwrap();
    assert_eq!(places[1], real.join("etc/app/conf.d/a"));
    for path in &paths {
        assert!(std::fs::metadata(path).unwrap().is_file(), "{path:?}");
    }
    let mode =
        |path: &str| std::fs::metadata(stage.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("etc/app/conf.d"), mode("etc/app/b")), (0o755, 0), "a task goes through here");
    agent.release(&unit).unwrap();
    assert_eq!(stage.tree(), before);
    assert_eq!(agent.read(&unit).unwrap(), BTreeSet::new());
    agent.release(&unit).unwrap();
}

#[test]
fn a_path_that_two_units_need_goes_with_the_last_of_them() {
    let stage = Stage::new();
    let (agent, one, two) = (stage.agent(), stage.unit("one"), stage.unit("two"));
    let paths = [stage.path("app/conf")];
    agent.claim(&one, &paths).unwrap();
    agent.claim(&two, &[stage.path("app/conf"), stage.path("app/more")]).unwrap();
    agent.release(&one).unwrap();
    assert!(paths[0].exists(), "the other one has it mounted");
    // Started again, it claims the same.
    agent.claim(&two, &[stage.path("app/conf"), stage.path("app/more")]).unwrap();
    agent.release(&two).unwrap();
    assert_eq!(stage.tree(), [""; 0].map(PathBuf::from));
}

#[test]
fn what_somebody_has_made_use_of_stays() {
    let stage = Stage::new();
    let (agent, unit) = (stage.agent(), stage.unit("one"));
    let paths = ["a/written", "b/mode", "c/file"].map(|path| stage.path(path));
    agent.claim(&unit, &paths).unwrap();
    let readable = || std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&paths[0], readable()).unwrap();
    std::fs::write(&paths[0], "content").unwrap();
    std::fs::set_permissions(&paths[1], readable()).unwrap();
    std::fs::write(stage.path("c/of-somebody"), "").unwrap();
    agent.release(&unit).unwrap();
    let left = ["a", "a/written", "b", "b/mode", "c", "c/of-somebody"];
    assert_eq!(stage.tree(), left.map(|path| stage.path(path)));
    assert!(agent.read(&unit).unwrap().is_empty(), "it is theirs now");
}

#[test]
fn what_an_agent_left_the_next_one_removes() {
    let stage = Stage::new();
    let (ended, runs) = (stage.unit("ended"), stage.unit("runs"));
    stage.agent().claim(&ended, &[stage.path("app/ended")]).unwrap();
    stage.agent().claim(&runs, &[stage.path("app/runs")]).unwrap();
    // This one ended between writing it down and making it.
    let wrote = stage.unit("wrote");
    stage.agent().write(&wrote, &[stage.path("never"), stage.path("never/made")].into()).unwrap();
    stage.agent().release_others(&[runs.clone()].into());
    let left = ["app", "app/runs"].map(|path| stage.path(path));
    assert_eq!(stage.tree(), left);
    stage.agent().release_others(&BTreeSet::new());
    assert_eq!(stage.tree(), [""; 0].map(PathBuf::from));
}

#[test]
fn it_is_written_down_before_it_is_made() {
    let stage = Stage::new();
    let agent = stage.agent();
    // No folder for the list: nothing is made either.
    agent.claim("nobody", &[stage.path("app/conf")]).unwrap_err();
    assert_eq!(stage.tree(), [""; 0].map(PathBuf::from));
}

#[test]
fn a_link_is_followed_only_where_nobody_else_can_have_put_it() {
    let stage = Stage::new();
    let (agent, unit) = (stage.agent(), stage.unit("one"));
    for folder in ["target", "ours", "theirs"] {
        std::fs::create_dir(stage.path(folder)).unwrap();
    }
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(stage.path("theirs"), all).unwrap();
    symlink("../target", stage.path("ours/link")).unwrap();
    symlink("../target", stage.path("theirs/link")).unwrap();
    symlink("loop", stage.path("ours/loop")).unwrap();
    symlink("../../no/../such", stage.path("ours/nowhere")).unwrap();

    let places = agent.claim(&unit, &[stage.path("ours/link/sub/file")]).unwrap();
    assert_eq!(places, [stage.machine.path().canonicalize().unwrap().join("target/sub/file")]);
    agent.release(&unit).unwrap();
    assert!(stage.path("ours/link").exists() && !stage.path("target/sub").exists());

    let before = stage.tree();
    for (path, why) in [
        ("theirs/link/file", "theirs/link: is a symbolic link that others than root may have put"),
        ("theirs/link", "is a symbolic link that others than root"),
        ("ours/loop/file", "symbolic link"),
        ("ours/nowhere/file", "No such file"),
        ("target", "target: is a folder"),
    ] {
        let error = agent.claim(&unit, &[stage.path(path)]).unwrap_err().to_string();
        assert!(error.contains(why), "{path}: {error}");
        assert_eq!(stage.tree(), before, "{path}");
    }
}

/// A task owns a folder on the way, and puts a link in its place once the agent has looked.
#[test]
fn nothing_is_removed_through_a_link() {
    let stage = Stage::new();
    let (agent, unit) = (stage.agent(), stage.unit("one"));
    agent.claim(&unit, &[stage.path("theirs/sub/file")]).unwrap();
    std::fs::create_dir(stage.path("target")).unwrap();
    let other = stage.path("target/file");
    std::fs::write(&other, "").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o000)).unwrap();
    std::fs::rename(stage.path("theirs/sub"), stage.path("theirs/away")).unwrap();
    symlink(stage.path("target"), stage.path("theirs/sub")).unwrap();
    agent.release(&unit).unwrap();
    assert!(other.exists() && stage.path("theirs/sub").is_symlink());
}
