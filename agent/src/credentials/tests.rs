use super::*;
use fabric::id::NodeId;
use proptest::prelude::*;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn read(files: &[(&str, &[u8])]) -> Credentials {
    Credentials::read(folder(files).path())
}

fn a_token() -> String {
    Token::generate(&NodeId([7; 32])).unwrap().to_string()
}

#[test]
fn what_is_given_is_taken() {
    let token = a_token();
    let with_newline = format!("{token}\n");
    let given = read(&[
        ("weft.token", with_newline.as_bytes()),
        ("weft.labels", b"rack=r1\n\n disk = nvme \nempty=\nformula=a=b\n"),
        ("weft.later", b"of another version"),
    ]);
    assert_eq!(given.token.map(|token| token.to_string()), Some(token));
    let labels: Vec<(&str, &str)> =
        given.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("disk", "nvme"), ("empty", ""), ("formula", "a=b"), ("rack", "r1")]);
    assert_eq!(given.troubles, [""; 0]);
}

#[test]
fn nothing_is_given_by_an_empty_folder_and_by_one_that_is_missing() {
    assert_eq!(read(&[]), Credentials::default());
    assert_eq!(Credentials::read(Path::new("/nonexistent/folder")), Credentials::default());
}

/// Credential, its bytes, and what is said about it.
#[test]
fn what_cannot_be_used_is_said_and_the_rest_is_taken() {
    let cut = a_token();
    let cut = &cut.as_bytes()[..50];
    let long = vec![b'a'; 600];
    let many: String = (0..=LABELS_MAX).map(|index| format!("l{index}=v\n")).collect();
    let rows: &[(&str, &[u8], &str)] = &[
        ("weft.token", b"", "is empty"),
        ("weft.token", b" \n", "is empty"),
        ("weft.token", b"hunter2", "not a weft token"),
        ("weft.token", cut, "characters instead of"),
        ("weft.token", b"weft2.a.b.c", "newer kind"),
        ("weft.token", &long, "more than 512 bytes"),
        ("weft.token", &[0xff, 0xfe], "not UTF-8"),
        ("weft.labels", b"rack", "line 1 is no label"),
        ("weft.labels", b"a=b\n=c", "line 2 is no label"),
        ("weft.labels", b"a=\x1b[2J", "printable"),
        ("weft.labels", b"a=b\na=c", "line 2 gives a label a second time"),
        ("weft.labels", &[b'\n'; 12_801], "more than 12800 bytes"),
        ("weft.labels", &[b'a', b'=', 0xff], "not UTF-8"),
        ("weft.labels", many.as_bytes(), "more than 64 labels"),
    ];
    let good = a_token();
    for (name, bytes, wanted) in rows {
        let other: (&str, &[u8]) = match *name {
            "weft.token" => ("weft.labels", b"rack=r1"),
            _ => ("weft.token", good.as_bytes()),
        };
        let given = read(&[(name, bytes), other]);
        let [trouble] = &given.troubles[..] else { panic!("{name}: {:?}", given.troubles) };
        assert!(trouble.starts_with(&format!("credential {name}: ")), "{trouble}");
        assert!(trouble.contains(wanted), "{trouble} instead of {wanted}");
        assert!(!trouble.contains("hunter2"), "what may be a secret is repeated: {trouble}");
        match *name {
            "weft.token" => assert_eq!((given.token, given.labels.len()), (None, 1)),
            _ => assert!(given.token.is_some() && given.labels.is_empty()),
        }
    }
}

#[test]
fn what_is_no_file_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("weft.token")).unwrap();
    // Nobody writes: reading it would wait for ever.
    let pipe = folder.path().join("weft.labels");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let given = Credentials::read(folder.path());
    assert_eq!(given.troubles.len(), 2, "{:?}", given.troubles);
    std::fs::remove_file(&pipe).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &pipe).unwrap();
    assert_eq!(Credentials::read(folder.path()).troubles.len(), 2);
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(
        token in prop::collection::vec(any::<u8>(), 0..600),
        labels in "[ -~\n=]{0,300}",
    ) {
        let given = read(&[("weft.token", &token), ("weft.labels", labels.as_bytes())]);
        prop_assert!(given.labels.len() <= LABELS_MAX);
        prop_assert!(given.labels.keys().all(|name| !name.is_empty()));
    }
}
