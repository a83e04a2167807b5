use super::*;

/// A node that started from an image of version 1, with nothing in its inbox.
fn inbox() -> (tempfile::TempDir, Inbox) {
    let folder = tempfile::tempdir().unwrap();
    let release = folder.path().join("os-release");
    fs::write(&release, "ID=weft\nIMAGE_ID=weft\nIMAGE_VERSION=\"1\"\n").unwrap();
    let said = folder.path().join("said");
    let from_memory = folder.path().join("from-memory");
    let inbox = Inbox { release, said, from_memory, ..Inbox::new(folder.path()) };
    (folder, inbox)
}

fn wanted(version: &str, bytes: u64) -> UpgradeBody {
    let arch = std::env::consts::ARCH.into();
    UpgradeBody { version: version.into(), arch, bytes, install: false }
}

fn begin(wanted: UpgradeBody) -> Step {
    Step::begin(wanted).unwrap()
}

fn data(offset: u64, bytes: &[u8]) -> Step {
    Step::Data { offset, bytes: bytes.to_vec() }
}

#[test]
fn pieces_become_a_file_that_is_installed_once_it_is_whole() {
    let (folder, inbox) = inbox();
    assert_eq!(inbox.take(Step::Look).unwrap().running, "1");
    assert_eq!(inbox.take(begin(wanted("2", 6))).unwrap().have, 0);
    assert_eq!(inbox.take(data(0, b"abc")).unwrap().have, 3);
    // Whoever begins again, after the agent or the way to it was gone, goes on where it was.
    assert_eq!(inbox.take(begin(wanted("2", 6))).unwrap().have, 3);
    let early = inbox.take(begin(UpgradeBody { install: true, ..wanted("2", 6) })).unwrap_err();
    assert!(early.detail.contains("3 of 6 bytes"), "{early:?}");
    inbox.take(data(3, b"def")).unwrap();
    inbox.take(begin(UpgradeBody { install: true, ..wanted("2", 6) })).unwrap();
    assert_eq!(fs::read(folder.path().join("upgrade/update")).unwrap(), b"abcdef");
}

#[test]
fn what_is_said_is_of_the_last_installation_and_nothing_is_sent_into_one() {
    let (folder, inbox) = inbox();
    let said = folder.path().join("said");
    let install = |version| {
        inbox.take(begin(wanted(version, 2))).unwrap();
        inbox.take(data(0, b"ab")).unwrap();
        inbox.take(begin(UpgradeBody { install: true, ..wanted(version, 2) }))
    };
    fs::write(&said, "checking 2\nfailed: it is damaged\n").unwrap();
    assert_eq!(inbox.take(Step::Look).unwrap().said, "checking 2\nfailed: it is damaged");
    assert_eq!(install("2").unwrap().said, "");
    fs::write(&said, "checking 2\nwriting root: 43 MB to sda4\n").unwrap();
    let problem = inbox.take(begin(wanted("3", 2))).unwrap_err();
    assert!(problem.title.contains("being written"), "{problem:?}");
    assert!(folder.path().join("upgrade/update").exists());
    // The power went while it was written: the machine's start has swept away what was said.
    fs::remove_file(&said).unwrap();
    install("3").unwrap();
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let (_folder, inbox) = inbox();
    assert!(inbox.take(data(0, b"abc")).unwrap_err().detail.contains("begin"));
    inbox.take(begin(wanted("2", 6))).unwrap();
    inbox.take(data(0, b"abc")).unwrap();
    for (offset, bytes) in [(0, &b"abc"[..]), (4, b"d"), (3, b"defg")] {
        assert_eq!(inbox.take(data(offset, bytes)).unwrap_err().kind, ProblemKind::Conflict);
        assert_eq!(inbox.take(Step::Look).unwrap().have, 3);
    }
    let other = UpgradeBody { arch: "m68k".into(), ..wanted("2", 6) };
    assert!(inbox.take(begin(other)).unwrap_err().detail.contains("m68k"));
    assert!(inbox.take(begin(wanted("1", 6))).unwrap_err().detail.contains("runs here"));
    // Another update takes its place.
    assert_eq!(inbox.take(begin(wanted("3", 2))).unwrap().have, 0);
    assert_eq!(inbox.take(data(0, b"xy")).unwrap().have, 2);
}

#[test]
fn nonsense_and_machines_without_slots_are_refused() {
    for (version, bytes) in
        [("", 1), ("../../etc", 1), ("2 or so", 1), ("2", 0), ("2", BYTES_MAX + 1)]
    {
        let problem = Step::begin(wanted(version, bytes)).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Invalid, "{version} {bytes}");
    }
    let (folder, inbox) = inbox();
    fs::write(folder.path().join("from-memory"), "").unwrap();
    assert_eq!(inbox.take(Step::Look).unwrap().running, "1");
    let problem = inbox.take(begin(wanted("2", 6))).unwrap_err();
    assert!(problem.title.contains("runs from memory"), "{problem:?}");
    fs::write(folder.path().join("os-release"), "ID=debian\n").unwrap();
    let problem = inbox.take(Step::Look).unwrap_err();
    assert!(problem.title.contains("did not start from an image"), "{problem:?}");
}
