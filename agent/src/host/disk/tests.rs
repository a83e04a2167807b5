use super::*;

#[test]
fn partitions_and_disks_in_memory_are_left_out() {
    for name in ["sda", "vda", "xvdb", "nvme0n1", "mmcblk0", "dm-0", "md127", "sr0", "nbd1", "sdaa"]
    {
        assert!(!is_part_or_made_of_memory(name), "{name}");
    }
    for name in ["sda1", "vdb12", "xvda1", "nvme0n1p2", "loop0", "ram15", "fd0"] {
        assert!(is_part_or_made_of_memory(name), "{name}");
    }
}

#[test]
fn mount_points_are_unescaped() {
    for (written, meant) in [
        ("/srv/with\\040space", "/srv/with space"),
        ("/a\\134b\\011", "/a\\b\t"),
        ("/odd\\", "/odd\\"),
        ("/odd\\9", "/odd\\9"),
        ("/é\\04é", "/é\\04é"),
    ] {
        assert_eq!(unescaped(written), meant);
    }
}

#[test]
fn only_places_that_hold_data_and_answer_are_asked() {
    for (place, kind) in
        [("/", "ext4"), ("/var/lib", "xfs"), ("/run", "tmpfs"), ("/device", "vfat")]
    {
        assert!(holds_data(place, kind), "{place} {kind}");
    }
    for (place, kind) in [
        ("/dev/shm", "tmpfs"),
        ("/proc", "proc"),
        ("/mnt", "nfs4"),
        ("/home/x", "fuse.sshfs"),
        ("/var/lib/docker/overlay2/1", "ext4"),
        ("none", "tmpfs"),
        ("/run/credentials/a.service", "ramfs"),
    ] {
        assert!(!holds_data(place, kind), "{place} {kind}");
    }
}
