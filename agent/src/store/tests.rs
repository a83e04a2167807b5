use super::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use proptest::prelude::*;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

const FILE: &str = "store.redb";

/// Tests that need a process of their own run this binary again, with one test only.
fn again(test: &str, state: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", &format!("store::tests::{test}"), "--nocapture", "--test-threads=1"])
        .env("WEFT_TEST_STORE", state)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

fn changes(rows: &[(&str, Option<&str>)]) -> Changes {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let rows = rows.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect();
    Changes { rows, ..Changes::default() }
}

fn row(number: u64) -> Row {
    // Sizes differ, so that pages split, merge and overflow.
    let length = (number.wrapping_mul(2_654_435_761) % 3000) as usize;
    (
        format!("key-{:04}", number % 500).into_bytes(),
        format!("{number}:{}", "x".repeat(length)).into(),
    )
}

fn number_of(value: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(value);
    text.split(':').next().and_then(|number| number.parse().ok()).expect("a number")
}

fn fill(state: &Path, numbers: std::ops::Range<u64>) {
    let mut store = open(state).expect("opened").store;
    for number in numbers {
        let (key, value) = row(number);
        let rows = BTreeMap::from([(key, Some(value))]);
        store.apply(&Changes { rows, ..Changes::default() }).expect("written");
    }
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let state = tempfile::tempdir().expect("a directory");
    let state = state.path().join("state");
    let opened = open(&state).expect("made");
    assert!(opened.rows.is_empty() && opened.warnings.is_empty());
    let mut store = opened.store;
    store.apply(&changes(&[("a", Some("1")), ("b", Some("2"))])).expect("written");
    store.apply(&changes(&[("a", None), ("c", Some("3")), ("never", None)])).expect("written");
    let notes = BTreeMap::from([("labels".to_owned(), b"rack".to_vec())]);
    store.apply(&Changes { notes, ..Changes::default() }).expect("written");
    drop(store);
    let mut opened = open(&state).expect("opened");
    assert_eq!(opened.rows, [(b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
    assert_eq!(opened.store.load().expect("read"), opened.rows);
    assert_eq!(opened.store.note("labels").expect("read"), Some(b"rack".to_vec()));
    assert_eq!(opened.store.note("other").expect("read"), None);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
}

#[test]
fn two_agents_cannot_share_a_state_directory() {
    let state = tempfile::tempdir().expect("a directory");
    let _first = open(state.path()).expect("opened");
    let error = format!("{:#}", open(state.path()).expect_err("locked"));
    assert!(error.contains("another agent"), "{error}");
    assert!(!state.path().join("store.redb.broken-1").exists());
}

#[test]
fn a_store_of_a_newer_agent_is_left_alone() {
    let state = tempfile::tempdir().expect("a directory");
    fill(state.path(), 0..3);
    let path = state.path().join(FILE);
    {
        let database = redb::Database::open(&path).expect("opened");
        let transaction = database.begin_write().expect("begun");
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        transaction.open_table(meta).expect("there").insert("format", 2).expect("written");
        transaction.commit().expect("committed");
    }
    let error = format!("{:#}", open(state.path()).expect_err("refused"));
    assert!(error.contains("format 2") && error.contains("install the newer agent"), "{error}");
    assert_eq!(fs::read_dir(state.path()).expect("listed").count(), 1);
}

#[test]
fn a_file_that_is_no_store_is_put_aside_and_three_are_kept() {
    let state = tempfile::tempdir().expect("a directory");
    let path = state.path().join(FILE);
    for round in 1..=5 {
        fs::write(&path, format!("not a store {round}")).expect("written");
        let opened = open(state.path()).expect("a new one");
        assert!(opened.rows.is_empty());
        assert!(opened.warnings[0].contains("broken-1"), "{:?}", opened.warnings);
    }
    let aside = |number| fs::read_to_string(state.path().join(format!("{FILE}.broken-{number}")));
    assert_eq!(aside(1).expect("kept"), "not a store 5");
    assert_eq!(aside(3).expect("kept"), "not a store 3");
    assert!(aside(4).is_err());
}

/// Whatever happens to the file: a store opens, with rows that were written or with none and a warning.
fn opens_after(state: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> (usize, bool) {
    let path = state.join(FILE);
    let mut bytes = fs::read(&path).expect("read");
    damage(&mut bytes);
    fs::write(&path, &bytes).expect("written");
    let mut opened = open(state).expect("opened all the same");
    for (key, value) in &opened.rows {
        assert_eq!(row(number_of(value)), (key.clone(), value.clone()), "a row that nobody wrote");
    }
    let warned = !opened.warnings.is_empty();
    assert!(warned || !opened.rows.is_empty(), "rows were lost without a word");
    opened.store.apply(&changes(&[("k", Some("v"))])).expect("it can be written");
    (opened.rows.len(), warned)
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    fs::copy(from.join(FILE), to.path().join(FILE)).expect("copied");
    to
}

#[test]
fn a_cut_off_file_is_noticed() {
    let whole = tempfile::tempdir().expect("a directory");
    fill(whole.path(), 0..300);
    let length = fs::metadata(whole.path().join(FILE)).expect("there").len() as usize;
    for keep in [1, 100, 4096, length / 3, length / 2, length - 4096, length - 1] {
        let state = copy(whole.path());
        opens_after(state.path(), |bytes| bytes.truncate(keep));
    }
    // Nothing at all is a store that was never begun.
    let state = copy(whole.path());
    fs::write(state.path().join(FILE), b"").expect("written");
    assert!(open(state.path()).expect("opened").rows.is_empty());
}

#[test]
fn an_overwritten_tail_is_noticed() {
    let whole = tempfile::tempdir().expect("a directory");
    fill(whole.path(), 0..300);
    for (part, byte) in [(4, 0u8), (4, 0xff), (2, 0xa5), (16, 0x5a)] {
        let state = copy(whole.path());
        opens_after(state.path(), |bytes| {
            let from = bytes.len() - bytes.len() / part;
            bytes[from..].fill(byte);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_store_with_overwritten_bytes_never_yields_what_nobody_wrote(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        length in 1usize..600,
    ) {
        let state = tempfile::tempdir().expect("a directory");
        fill(state.path(), 0..30);
        opens_after(state.path(), |bytes| {
            for (place, byte) in places {
                let from = place.index(bytes.len());
                let to = (from + length).min(bytes.len());
                bytes[from..to].fill(byte);
            }
        });
    }
}

/// The other half of the test below; does nothing when it is run as a test of its own.
#[tokio::test]
async fn helper_writes_until_it_is_killed() {
    let Some(state) = std::env::var_os("WEFT_TEST_STORE") else { return };
    let opened = open(Path::new(&state)).expect("opened");
    let next = opened.rows.iter().map(|(_, value)| number_of(value) + 1).max().unwrap_or(0);
    let (writer, mut written) = Writer::start(opened.store).expect("started");
    let first = next;
    let mut number = next;
    loop {
        // Several in one go, so that commits carry batches.
        for _ in 0..1 + number % 7 {
            let (key, value) = row(number);
            writer.persist(number - first + 1, vec![(key, Some(value))]);
            number += 1;
        }
        if let Some(Progress::Persisted { through }) = written.next().await {
            println!("\nsafe {}", first + through - 1);
            std::io::stdout().flush().expect("the test listens");
        }
    }
}

#[test]
fn every_acknowledged_write_survives_kill_9() {
    let state = tempfile::tempdir().expect("a directory");
    let (mut safe, mut first_unsafe) = (None::<u64>, 0);
    for round in 0..20u64 {
        let mut child = again("helper_writes_until_it_is_killed", state.path());
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let wanted = 1 + (round * 37) % 23;
        let mut seen = 0;
        let mut lines = lines.map_while(Result::ok);
        for line in lines.by_ref() {
            if let Some(number) = line.strip_prefix("safe ") {
                safe = Some(number.parse().expect("a number"));
                seen += 1;
                if seen == wanted {
                    break;
                }
            }
        }
        assert_eq!(seen, wanted, "the helper ended by itself in round {round}");
        // It goes on writing meanwhile: the kill comes at any point of a commit.
        child.kill().expect("killed");
        child.wait().expect("gone");
        // What it said between our last look and its end counts, too.
        for line in lines {
            if let Some(number) = line.strip_prefix("safe ") {
                safe = number.parse().ok().or(safe);
            }
        }
        let opened = open(state.path()).expect("opened");
        assert!(opened.warnings.is_empty(), "{:?}", opened.warnings);
        let rows: BTreeMap<_, _> = opened.rows.into_iter().collect();
        let safe = safe.expect("at least one");
        for number in safe.saturating_sub(499)..=safe {
            let (key, value) = row(number);
            let found = rows.get(&key).unwrap_or_else(|| panic!("{number} of {safe} is gone"));
            // A later number of the same key may have made it as well.
            assert!(*found == value || number_of(found) > number, "{number} of {safe} is old");
        }
        assert!(safe >= first_unsafe, "no progress");
        first_unsafe = safe;
    }
}

/// The other half of the test below; does nothing when it is run as a test of its own.
#[tokio::test]
async fn helper_runs_out_of_disk() {
    let Some(state) = std::env::var_os("WEFT_TEST_STORE") else { return };
    let state = Path::new(&state);
    let opened = open(state).expect("opened");
    let (writer, mut written) = Writer::start(opened.store).expect("started");
    writer.persist(1, vec![(b"before".to_vec(), Some(b"1".to_vec()))]);
    assert_eq!(written.next().await, Some(Progress::Persisted { through: 1 }));

    // A file may not grow any more: what a full disk looks like to one process.
    // SAFETY: SIGXFSZ is ignored, no handler runs.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("ignored");
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("read");
    let now = fs::metadata(state.join(FILE)).expect("there").len();
    setrlimit(Resource::RLIMIT_FSIZE, now, hard).expect("lowered");
    let large = vec![7; 2 << 20];
    writer.persist(2, vec![(b"large".to_vec(), Some(large.clone()))]);
    match written.next().await {
        Some(Progress::Failed { sequence: 2, reason }) => {
            assert!(reason.contains("disk"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    writer.persist(3, vec![(b"after".to_vec(), Some(b"3".to_vec()))]);
    // Still the first that is not safe, however often it is tried.
    for _ in 0..2 {
        let progress = written.next().await;
        assert!(matches!(progress, Some(Progress::Failed { sequence: 2, .. })), "{progress:?}");
    }

    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).expect("raised");
    loop {
        match written.next().await {
            Some(Progress::Failed { .. }) => {}
            other => break assert_eq!(other, Some(Progress::Persisted { through: 3 })),
        }
    }
    writer.close();
    let rows = open(state).expect("opened").rows;
    let expected: Vec<Row> = vec![
        (b"after".to_vec(), b"3".to_vec()),
        (b"before".to_vec(), b"1".to_vec()),
        (b"large".to_vec(), large),
    ];
    assert!(rows == expected, "rows are missing");
    println!("\nrecovered");
}

#[test]
fn a_full_disk_is_reported_and_nothing_is_skipped_when_there_is_room_again() {
    let state = tempfile::tempdir().expect("a directory");
    let child = again("helper_runs_out_of_disk", state.path());
    let output = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("recovered"), "{text}");
}

/// The other half of the test below; does nothing when it is run as a test of its own.
#[test]
fn helper_starts_on_a_disk_without_room() {
    let Some(state) = std::env::var_os("WEFT_TEST_STORE") else { return };
    // SAFETY: SIGXFSZ is ignored, no handler runs.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("ignored");
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("read");
    setrlimit(Resource::RLIMIT_FSIZE, 0, hard).expect("lowered");
    let mut opened = open(Path::new(&state)).expect("opened for reading");
    assert_eq!(opened.rows.len(), 30);
    assert!(opened.warnings[0].contains("takes no new work"), "{:?}", opened.warnings);
    assert_eq!(opened.store.load().expect("read").len(), 30);
    let error = opened.store.apply(&changes(&[("k", Some("v"))])).expect_err("no room");
    assert!(matches!(error, StoreError::Disk(_)), "{error}");
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).expect("raised");
    opened.store.apply(&changes(&[("k", Some("v"))])).expect("there is room");
    assert_eq!(opened.store.load().expect("read").len(), 31);
    println!("\nrecovered");
}

#[test]
fn a_store_on_a_full_disk_is_read_and_written_later() {
    let state = tempfile::tempdir().expect("a directory");
    fill(state.path(), 0..30);
    let child = again("helper_starts_on_a_disk_without_room", state.path());
    let output = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("recovered"), "{text}");
}

/// A disk that takes nothing for a while.
struct Flaky {
    memory: Arc<Mutex<MemoryStore>>,
    refusals: u32,
}

impl Store for Flaky {
    fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        self.memory.lock().expect("unpoisoned").load()
    }

    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.lock().expect("unpoisoned").note(name)
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(StoreError::Disk("full".to_owned()));
        }
        self.memory.lock().expect("unpoisoned").apply(changes)
    }
}

#[tokio::test]
async fn later_values_win_over_refused_ones() {
    let memory = Arc::new(Mutex::new(MemoryStore::default()));
    let store = Flaky { memory: memory.clone(), refusals: 1 };
    let (writer, mut written) = Writer::start(Box::new(store)).expect("started");
    let set = |key: &[u8], value: &[u8]| (key.to_vec(), Some(value.to_vec()));
    writer.persist(5, vec![set(b"a", b"old"), set(b"b", b"b"), set(b"c", b"kept")]);
    writer.set_note("n", b"old".to_vec());
    let failed = written.next().await;
    assert!(matches!(failed, Some(Progress::Failed { sequence: 5, .. })), "{failed:?}");
    writer.persist(6, vec![(b"a".to_vec(), Some(b"new".to_vec()))]);
    writer.persist(7, vec![(b"b".to_vec(), None)]);
    writer.set_note("n", b"new".to_vec());
    while written.next().await != Some(Progress::Persisted { through: 7 }) {}
    writer.close();
    assert_eq!(written.next().await, None);
    let mut memory = memory.lock().expect("unpoisoned");
    assert_eq!(
        memory.load().expect("read"),
        [(b"a".to_vec(), b"new".to_vec()), (b"c".to_vec(), b"kept".to_vec())]
    );
    assert_eq!(memory.note("n").expect("read"), Some(b"new".to_vec()));
}

#[tokio::test]
async fn closing_writes_what_is_left() {
    let state = tempfile::tempdir().expect("a directory");
    let (writer, _written) =
        Writer::start(open(state.path()).expect("opened").store).expect("started");
    for sequence in 1..=100 {
        let (key, value) = row(sequence);
        writer.persist(sequence, vec![(key, Some(value))]);
    }
    writer.close();
    assert_eq!(open(state.path()).expect("opened").rows.len(), 100);
}
