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
