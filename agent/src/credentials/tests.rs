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

/// Made by ssh-keygen for this test.
const A_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJekEn10yitcKJAaKKHNEFj6od8NEmRY5MZ83EsR4k8c somebody";
const AN_RSA_KEY: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDC9TYAkk5k6LndhgzPcXSU6C562F28d7W1oXrqQJUg0yPJhRGdve6xB2Aa9MZVTxMcWPyJ/rzZZcEXHmbG+/d9Qw/L2B89AcEQKJ4SJEBIuMcE8RSRtpy3pqtS6chPwPfKl7ObNJYGX8cJXG1KtipmJFOJixVnj0hcDIVlT0+q0Q==";

#[test]
fn what_is_given_is_taken() {
    let token = a_token();
    let with_newline = format!("{token}\n");
    let keys = format!("# us\n{A_KEY}\r\n\nrestrict,command=\"weft status\" {AN_RSA_KEY}");
    let given = read(&[
        ("weft.token", with_newline.as_bytes()),
        ("weft.labels", b"rack=r1\n\n disk = nvme \nempty=\nformula=a=b\n"),
        ("ssh.authorized_keys.root", keys.as_bytes()),
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
    let two_lines = format!("{A_KEY}\n-----BEGIN OPENSSH PRIVATE KEY-----hunter2\n");
    // As many characters as base64 wants, and fewer than the key has.
    let cut_key = &A_KEY[..A_KEY.len() - " somebody".len() - 4];
    let indented = format!(" {A_KEY}");
    let of_another_kind = A_KEY.replace("ssh-ed25519 ", "ssh-rsa ");
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
        ("ssh.authorized_keys.root", b" \n# hunter2\n", "no key in it"),
        ("ssh.authorized_keys.root", two_lines.as_bytes(), "line 2 is no public key"),
        ("ssh.authorized_keys.root", cut_key.as_bytes(), "line 1 is no public key"),
        ("ssh.authorized_keys.root", of_another_kind.as_bytes(), "line 1 is no public key"),
        ("ssh.authorized_keys.root", indented.as_bytes(), "line 1 is no public key"),
        ("ssh.authorized_keys.root", b"ssh-ed25519", "line 1 is no public key"),
        (
            "ssh.authorized_keys.root",
            b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
            "line 1 is no public key",
        ),
        ("ssh.authorized_keys.root", &[b'\n'; 65_537], "more than 65536 bytes"),
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
            "ssh.authorized_keys.root" => assert!(given.token.is_some()),
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
        key in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let keys = format!("ssh-ed25519 {}\n", BASE64.encode(&key));
        let given = read(&[
            ("weft.token", &token),
            ("weft.labels", labels.as_bytes()),
            ("ssh.authorized_keys.root", keys.as_bytes()),
        ]);
        prop_assert!(given.labels.len() <= LABELS_MAX);
        prop_assert!(given.labels.keys().all(|name| !name.is_empty()));
    }
}
