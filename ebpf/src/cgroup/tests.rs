use super::*;

#[test]
fn the_hierarchy_of_version_2_is_found_among_the_others() {
    let hybrid = "\
24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu
40 30 0:36 / /sys/fs/cgroup/a\\040b rw shared:14 - cgroup2 cgroup2 rw
";
    assert_eq!(first(hybrid), Some(PathBuf::from("/sys/fs/cgroup/a b")));
    let old = hybrid.replace("cgroup2", "cgroup");
    assert_eq!(first(&old), None);
}

#[test]
fn without_a_hierarchy_nothing_is_gone() {
    assert!(Cgroups::default().exists(CgroupId(4711)));
}

fn first(mounts: &str) -> Option<PathBuf> {
    mount_points(mounts).next()
}

/// A folder with this many cgroups below it, as the kernel would tell it.
fn hierarchy(names: &[&str]) -> (PathBuf, Cgroups) {
    let root =
        std::env::temp_dir().join(format!("weft-cgroups-{}-{}", std::process::id(), names[0]));
    for name in names {
        fs::create_dir_all(root.join(name)).expect("a folder");
    }
    tell(&root, names.len());
    let cgroups = Cgroups::at(root.clone());
    (root, cgroups)
}

fn tell(root: &Path, descendants: usize) {
    let text = format!("nr_descendants {descendants}\nnr_dying_descendants 7\n");
    fs::write(root.join("cgroup.stat"), text).expect("written");
}

#[test]
fn folders_are_walked_through_when_they_may_have_changed() {
    let (root, mut cgroups) = hierarchy(&["walked", "walked/below", "other"]);
    let names = |cgroups: &mut Cgroups| {
        cgroups.begin();
        let below = |path: &Path| path.strip_prefix(&root).expect("below").to_owned();
        let names: BTreeSet<PathBuf> = cgroups.all().map(|(_, path)| below(path)).collect();
        cgroups.end();
        names.into_iter().map(|path| path.to_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut cgroups), ["", "other", "walked", "walked/below"]);
    // As many as before, and all of those in place: nobody looks whether there are others.
    fs::create_dir(root.join("new")).expect("a folder");
    assert_eq!(names(&mut cgroups), ["", "other", "walked", "walked/below"]);
    tell(&root, 4);
    assert_eq!(names(&mut cgroups), ["", "new", "other", "walked", "walked/below"]);
    // One has gone, another one has come.
    fs::remove_dir(root.join("other")).expect("empty");
    fs::create_dir(root.join("last")).expect("a folder");
    assert_eq!(names(&mut cgroups), ["", "last", "new", "walked", "walked/below"]);
    // Where the kernel does not tell, they are walked through each time.
    fs::remove_file(root.join("cgroup.stat")).expect("ours");
    cgroups.count.sweep();
    cgroups.count.sweep();
    fs::create_dir(root.join("later")).expect("a folder");
    assert!(names(&mut cgroups).contains(&"later".to_owned()));
    fs::remove_dir_all(&root).expect("ours");
}

#[test]
fn who_is_never_found_is_not_looked_for_again() {
    let (root, mut cgroups) = hierarchy(&["strangers"]);
    let stranger = CgroupId(u64::MAX);
    let known = inode(&root.join("strangers")).expect("it is there");
    for walks in [1, 2, 2, 2] {
        cgroups.begin();
        assert!(!cgroups.exists(stranger) && cgroups.exists(known));
        assert_eq!(cgroups.walks, walks);
        cgroups.end();
    }
    // Another one is looked for, once.
    cgroups.begin();
    let later = root.join("later");
    fs::create_dir(&later).expect("a folder");
    tell(&root, 2);
    assert!(cgroups.exists(inode(&later).expect("it is there")) && !cgroups.exists(stranger));
    assert_eq!(cgroups.walks, 3);
    fs::remove_dir_all(&root).expect("ours");
}

/// Its events may be counted after the walk of a reading, whose tables are read one after the other.
#[test]
fn who_comes_during_a_reading_is_found_in_the_next_one() {
    let (root, mut cgroups) = hierarchy(&["coming"]);
    cgroups.begin();
    assert!(!cgroups.exists(CgroupId(u64::MAX)));
    let folder = root.join("just-made");
    fs::create_dir(&folder).expect("a folder");
    tell(&root, 2);
    let id = inode(&folder).expect("it is there");
    assert!(!cgroups.exists(id), "the folders were walked through before");
    cgroups.end();
    cgroups.begin();
    assert!(cgroups.exists(id));
    fs::remove_dir_all(&root).expect("ours");
}
