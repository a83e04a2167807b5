use super::*;

#[test]
fn a_health_page_is_read_as_the_specification_has_it() {
    let mut page = [0; PAGE_BYTES];
    page[0] = 0b101;
    page[1..3].copy_from_slice(&311_u16.to_le_bytes());
    (page[3], page[4], page[5]) = (97, 10, 130);
    for (at, number) in [(32, 2_u128), (48, 3), (112, 40), (128, 5), (144, 6), (160, (1 << 64) + 7)]
    {
        page[at..at + 16].copy_from_slice(&number.to_le_bytes());
    }
    let health = Health::of(&page);
    assert_eq!((health.critical_warning, health.celsius), (0b101, 38.0));
    assert_eq!((health.spare, health.spare_threshold, health.used), (0.97, 0.1, 1.3));
    assert_eq!((health.read_bytes, health.written_bytes), (1_024_000.0, 1_536_000.0));
    assert_eq!((health.power_cycles, health.power_on_seconds), (40.0, 18_000.0));
    assert_eq!(health.unsafe_shutdowns, 6.0);
    assert_eq!(health.media_errors, (1_u128 << 64) as f64, "no number is too large");
}

#[test]
fn what_is_no_nvme_disk_has_no_health_and_one_that_sleeps_is_not_asked() {
    let machine = tempfile::tempdir().unwrap();
    let disk = |name: &str, status: &str, state: &str| {
        let folder = machine.path().join("sys/class/nvme").join(name);
        std::fs::create_dir_all(folder.join("device/power")).unwrap();
        std::fs::write(folder.join("device/power/runtime_status"), status).unwrap();
        std::fs::write(folder.join("state"), state).unwrap();
        std::fs::create_dir_all(machine.path().join("dev")).unwrap();
        // Reading from a pipe without a writer would never return: so whoever opens it is noticed.
        let node = machine.path().join("dev").join(name);
        if status == "suspended\n" || state == "dead\n" {
            nix::unistd::mkfifo(&node, nix::sys::stat::Mode::S_IRWXU).unwrap();
        } else {
            std::fs::write(node, "not a disk").unwrap();
        }
    };
    disk("nvme0", "suspended\n", "live\n");
    disk("nvme1", "active\n", "dead\n");
    disk("nvme2", "active\n", "live\n");
    let sysfs = Sysfs::at(machine.path());
    assert_eq!(health(&sysfs), []);
    let refused = ask(&sysfs, "nvme2").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::ENOTTY), "{refused}");
}
