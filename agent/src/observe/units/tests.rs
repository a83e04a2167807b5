use super::*;

/// A folder, and the unit that it belongs to.
#[test]
fn folders_belong_to_the_outermost_unit() {
    let rows = [
        ("", "root"),
        ("init.scope", "init.scope"),
        ("system.slice", "system.slice"),
        ("system.slice/ssh.service", "ssh.service"),
        ("system.slice/docker.service/deep/er", "docker.service"),
        ("system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("user.slice/user-1000.slice/session-3.scope", "user-1000.slice"),
        ("user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", "user-1000.slice"),
        ("weft.slice/odd", "weft.slice"),
        ("docker/0123456789ab", "docker"),
    ];
    for (folder, wanted) in rows {
        assert_eq!(of_system(Path::new(folder)), wanted, "{folder}");
    }
}

#[test]
fn allocations_are_known_by_their_folder_and_name() {
    let cgroups = Cgroups::default();
    let mut units = Units::new(None, &cgroups);
    units.ours = Some("weft/0123".into());
    let labels = |folder: &str| {
        let unit = units.named(Path::new(folder));
        unit.labels().map(|(label, value)| format!("{label}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        labels("weft/0123/weft-web-shop-2-7-00000000.service"),
        "unit=weft-web-shop-2-7-00000000.service job=web-shop slot=2"
    );
    assert_eq!(
        labels("weft/0123/weft-web-0-1-00000000.service/below"),
        "unit=weft-web-0-1-00000000.service job=web slot=0"
    );
    // Of another agent on the same machine, and none at all.
    assert_eq!(labels("weft/4567/weft-web-0-1-00000000.service"), "unit=weft");
    assert_eq!(labels("weft/0123/guard"), "unit=weft");
}
