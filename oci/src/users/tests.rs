use super::*;
use proptest::prelude::*;
use std::os::fd::AsFd;
use std::path::Path;

const PASSWD_FILE: &[u8] = b"root:x:0:0:root:/root:/bin/sh
# a comment
app:x:1234:1235:The app:/app:/bin/sh
short:x:7:8
65:x:99:98::/odd:
broken
:x:1:1::/:
bad:x:-1:1::/:
none:x:4294967295:1::/:
app:x:9999:9999::/second:
relative:x:20:20::home:
last:x:30:30::/last:/bin/sh";
const GROUP_FILE: &[u8] = b"root:x:0:
app:x:1235:
extra:x:777:other,app
more:x:778:app
twice:x:777:app
bad:x:x:app
98:x:55:
";

fn accounts() -> Accounts {
    Accounts::parse(PASSWD_FILE, GROUP_FILE)
}

/// What is asked for; user, group, other groups, name, home.
type Row = (&'static str, u32, u32, &'static [u32], Option<&'static str>, &'static str);

#[test]
fn users_and_groups_are_found_by_dockers_rules() {
    #[rustfmt::skip]
    let table: &[Row] = &[
        ("", 0, 0, &[], Some("root"), "/root"),
        ("root", 0, 0, &[], Some("root"), "/root"),
        ("app", 1234, 1235, &[777, 778], Some("app"), "/app"),
        ("1234", 1234, 1235, &[777, 778], Some("app"), "/app"),
        ("app:", 1234, 1235, &[777, 778], Some("app"), "/app"),
        ("app:extra", 1234, 777, &[], Some("app"), "/app"),
        ("app:4711", 1234, 4711, &[], Some("app"), "/app"),
        (":extra", 0, 777, &[], Some("root"), "/root"),
        ("65532:65532", 65532, 65532, &[], None, "/"),
        ("65532", 65532, 0, &[], None, "/"),
        ("short", 7, 8, &[], Some("short"), "/"),
        ("relative", 20, 20, &[], Some("relative"), "/"),
        ("last", 30, 30, &[], Some("last"), "/last"),
        // A name that is a number is a name first, because its line is asked for both.
        ("65", 99, 98, &[], Some("65"), "/odd"),
        ("app:98", 1234, 55, &[], Some("app"), "/app"),
    ];
    for (words, uid, gid, groups, name, home) in table {
        let wanted = Account {
            uid: *uid,
            gid: *gid,
            groups: groups.to_vec(),
            name: name.map(str::to_owned),
            home: (*home).to_owned(),
        };
        let found = accounts().find(words).unwrap_or_else(|error| panic!("{words}: {error}"));
        assert_eq!(found, wanted, "{words}");
    }
    assert_eq!(accounts().group("more").ok(), Some(778));
    for (words, wanted) in [
        ("nobody", "the image has no user \"nobody\" in its /etc/passwd"),
        ("none", "the image has no user \"none\""),
        ("app:nobody", "the image has no group \"nobody\" in its /etc/group"),
        ("-1", "the image has no user \"-1\""),
        ("4294967295", "4294967295 is no number of a user or group"),
        ("4294967296", "4294967296 is no number of a user or group"),
        ("0:99999999999999999999", "99999999999999999999 is no number"),
    ] {
        let error = accounts().find(words).expect_err(words).to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
    let many: String =
        (1..=limits::GROUPS_MAX + 1).map(|gid| format!("g{gid}:x:{gid}:app\n")).collect();
    let many = Accounts::parse(b"app:x:5000:5000::/:", many.as_bytes());
    assert!(matches!(many.find("app"), Err(UserError::TooManyGroups(_))));
}

fn read(root: &Path) -> Result<Accounts, UserError> {
    Accounts::read(std::fs::File::open(root).expect("opened").as_fd())
}

#[test]
fn the_files_are_those_of_the_image_whatever_links_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    let etc = root.join("etc");
    std::fs::create_dir(&root).expect("made");
    assert_eq!(read(&root).expect("no /etc"), Accounts::default());
    std::fs::create_dir(&etc).expect("made");
    std::fs::write(etc.join("passwd"), PASSWD_FILE).expect("written");
    std::fs::write(etc.join("group"), GROUP_FILE).expect("written");
    assert_eq!(read(&root).expect("both"), accounts());

    // The machine's own, if links were followed as they stand.
    std::fs::write(folder.path().join("outside"), "app:x:1:1::/:").expect("written");
    let machine = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    assert!(!machine.is_empty(), "what the image must not see");
    for target in [
        "/etc/passwd",
        "../../outside",
        "../../../../../../etc/shadow",
        "/proc/self/root/etc/passwd",
    ] {
        std::fs::remove_file(etc.join("passwd")).expect("removed");
        std::os::unix::fs::symlink(target, etc.join("passwd")).expect("made");
        match read(&root) {
            Ok(found) => assert_eq!(found.users, [], "{target}"),
            Err(error) => {
                assert!(error.to_string().starts_with("the image's /etc/passwd"), "{error}")
            }
        }
    }
    // Within the image they are.
    std::fs::create_dir_all(root.join("usr/lib")).expect("made");
    std::fs::write(root.join("usr/lib/passwd"), PASSWD_FILE).expect("written");
    std::fs::remove_file(etc.join("passwd")).expect("removed");
    std::os::unix::fs::symlink("/usr/lib/passwd", etc.join("passwd")).expect("made");
    assert_eq!(read(&root).expect("both"), accounts());
}

#[test]
fn what_is_no_file_of_moderate_size_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, etc) = (folder.path(), folder.path().join("etc"));
    std::fs::create_dir(&etc).expect("made");
    let passwd = etc.join("passwd");
    let refused =
        |what: &str| assert!(matches!(read(root), Err(UserError::NoFile(PASSWD))), "{what}");
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::RUSR, 0).expect("made");
    refused("a FIFO");
    std::fs::remove_file(&passwd).expect("removed");
    std::fs::create_dir(&passwd).expect("made");
    refused("a folder");
    std::fs::remove_dir(&passwd).expect("removed");
    std::fs::write(&passwd, vec![b'\n'; limits::ACCOUNTS_BYTES_MAX as usize + 1]).expect("written");
    refused("a large file");
}

proptest! {
    #[test]
    fn arbitrary_files_never_panic(
        passwd in prop::collection::vec(any::<u8>(), 0..200),
        group in "([a-z,:0-9]{0,9}\n){0,9}",
        words in "[a-z0-9:]{0,9}",
    ) {
        let accounts = Accounts::parse(&passwd, group.as_bytes());
        if let Ok(found) = accounts.find(&words) {
            prop_assert!(found.home.starts_with('/') && found.uid != u32::MAX && found.gid != u32::MAX);
        }
        let accounts = Accounts::parse(group.as_bytes(), group.as_bytes());
        let _ = accounts.find(&words);
    }
}
