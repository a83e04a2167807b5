//! Rotation and following, on files of the file system that temporary folders are on.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

use super::*;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Far more than anything here takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn rotation_frees_the_beginning_and_loses_nothing_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stdout");
    let mut writer = crate::executor::spawn::open_append(&path).unwrap();
    std::fs::write(folder.path().join("stderr"), "").unwrap();
    let line = |number: u32| format!("{number:0>63}\n");
    for number in 0..32_768 {
        writer.write_all(line(number).as_bytes()).unwrap();
    }
    writer.sync_all().unwrap();
    rotate(&path, 4 << 20, 64 << 10).unwrap();
    assert!(path.metadata().unwrap().blocks() * 512 >= 2 << 20, "small enough: not touched");
    rotate(&path, 1 << 20, 64 << 10).unwrap();
    let on_disk = path.metadata().unwrap().blocks() * 512;
    assert!(on_disk <= 128 << 10, "{on_disk}");
    writer.write_all(line(32_768).as_bytes()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(async {
        let mut stream = read(folder.path().into(), LogQuery::default()).await.unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = stream.next().await {
            text.extend_from_slice(&chunk.unwrap().bytes);
        }
        String::from_utf8(text).unwrap()
    });
    let numbers: Vec<u32> = text.lines().skip(1).map(|line| line.parse().unwrap()).collect();
    assert_eq!(*numbers.last().unwrap(), 32_768);
    assert!(numbers.len() >= 1000, "{}", numbers.len());
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

#[test]
fn a_follower_sees_what_comes_and_survives_a_cut_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stdout");
    let mut writer = crate::executor::spawn::open_append(&path).unwrap();
    std::fs::write(folder.path().join("stderr"), "").unwrap();
    writer.write_all(b"first line\n").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let query = LogQuery { follow: true, tail: Some(1), channel: None };
        let mut stream = read(folder.path().into(), query).await.unwrap();
        let mut next = async || {
            let chunk = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
            chunk.map(|chunk| chunk.unwrap().bytes)
        };
        assert_eq!(next().await.unwrap(), "first line\n");
        writer.write_all(b"second\n").unwrap();
        assert_eq!(next().await.unwrap(), "second\n");
        writer.set_len(0).unwrap();
        writer.write_all(b"third\n").unwrap();
        assert_eq!(next().await.unwrap(), "third\n");
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert_eq!(next().await, None, "the log is gone, and so is the stream");
    });
}

#[test]
fn a_file_as_long_as_a_file_can_be_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stdout");
    let mut writer = crate::executor::spawn::open_append(&path).unwrap();
    writer.set_len(LENGTH_MAX - 1).unwrap();
    writer.write_all(b"xy").unwrap();
    assert_eq!(rotate(&path, 1 << 20, 64 << 10).unwrap(), 0);
    writer.write_all(b"and on\n").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"and on\n");
}

/// Lines that do not end where blocks do.
#[test]
fn who_reads_too_slowly_is_told_what_is_missing_and_goes_on_with_a_whole_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stdout");
    std::fs::write(folder.path().join("stderr"), "").unwrap();
    let mut writer = crate::executor::spawn::open_append(&path).unwrap();
    let line = |number: u32| format!("{number:0>70}\n");
    let mut print = |numbers: std::ops::Range<u32>| {
        writer.write_all(numbers.map(line).collect::<String>().as_bytes()).unwrap();
        writer.sync_all().unwrap();
    };
    print(0..20_000);
    // Nothing but whole blocks is freed, and so nothing reads as zeroes.
    rotate(&path, 1 << 20, 64 << 10).unwrap();
    let all = std::fs::read(&path).unwrap();
    let kept = first_kept(&File::open(&path).unwrap(), all.len() as u64) as usize;
    assert!(kept > 1 << 20 && !all[kept..].contains(&0));

    let query = LogQuery { follow: true, tail: Some(2), channel: None };
    let mut reader = Reader::open(Channel::Stdout, &path, query).unwrap();
    assert_eq!(reader.read().unwrap(), [line(19_998), line(19_999)].concat());
    assert!(reader.read().unwrap().is_empty());
    let mut once =
        Reader::open(Channel::Stdout, &path, LogQuery { follow: false, ..query }).unwrap();
    assert_eq!(once.read().unwrap(), [line(19_998), line(19_999)].concat());
    print(20_000..40_000);
    rotate(&path, 1 << 20, 64 << 10).unwrap();
    assert!(once.read().unwrap().is_empty(), "what came after its end is no loss");
    let read = reader.read().unwrap();
    let (note, rest) = std::str::from_utf8(&read).unwrap().split_once('\n').unwrap();
    let lost: usize = note.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(note.starts_with("weft: ") && note.ends_with("are gone"), "{note}");
    let first: u32 = rest.lines().next().unwrap().parse().unwrap();
    assert_eq!(lost, (first as usize - 20_000) * 71, "{note}");
    let mut last = rest.lines().count() as u32 + first;
    while let Some(line) = reader.read().unwrap().split(|&byte| byte == b'\n').rev().nth(1) {
        last = std::str::from_utf8(line).unwrap_or_default().parse().unwrap_or(last) + 1;
    }
    assert_eq!(last, 40_000);
}

/// A thread that prints numbered lines as fast as it can until it is told to stop.
fn flood(path: &Path, over: &'static AtomicBool) -> std::thread::JoinHandle<()> {
    let mut writer = crate::executor::spawn::open_append(path).unwrap();
    std::thread::spawn(move || {
        let mut number = 0u64;
        while !over.load(Relaxed) {
            let lines: String = (number..number + 128).map(|n| format!("{n:0>63}\n")).collect();
            writer.write_all(lines.as_bytes()).unwrap();
            number += 128;
        }
    })
}

#[test]
fn a_log_ends_where_it_ended_when_it_was_asked_for_however_fast_it_grows() {
    static OVER: AtomicBool = AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stderr"), "").unwrap();
    let path = folder.path().join("stdout");
    let printing = flood(&path, &OVER);
    while path.metadata().unwrap().len() < 1 << 20 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = |query: LogQuery, every: Duration| {
        runtime.block_on(async {
            let mut stream = read(folder.path().into(), query).await.unwrap();
            let most = path.metadata().unwrap().len();
            let mut text = Vec::new();
            while let Some(chunk) = stream.next().await {
                text.extend_from_slice(&chunk.unwrap().bytes);
                assert!(text.len() as u64 <= most, "it does not end");
                tokio::time::sleep(every).await;
            }
            let text = String::from_utf8(text).unwrap();
            // The last of them may be half printed, and the note of what is gone may come at the end.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let mut numbers = whole.lines().filter(|line| !line.starts_with("weft: "));
            let last: Option<u64> = numbers.next_back().map(|line| line.parse().expect(line));
            assert!(last.is_none_or(|last| last < most / 64), "more than there was");
            text
        })
    };
    for round in 0..20 {
        // A hole comes close to what is printed, and passes those who read slowly.
        let punch = || assert!(rotate(&path, 256 << 10, 64 << 10).is_ok());
        punch();
        let last = log(LogQuery { tail: Some(3), ..LogQuery::default() }, Duration::ZERO);
        let numbers: Vec<u64> = last.lines().map(|line| line.parse().expect(line)).collect();
        match numbers[..] {
            [a, b, c] => assert!(a + 1 == b && (b + 1 == c || last.len() % 64 != 0), "{last}"),
            _ => panic!("{last}"),
        }
        let all = match round % 2 {
            0 => log(LogQuery::default(), Duration::ZERO),
            _ => std::thread::scope(|scope| {
                scope.spawn(|| (0..20).for_each(|_| punch()));
                log(LogQuery::default(), Duration::from_millis(1))
            }),
        };
        assert!(!all.contains('\0'), "zeroes of a hole");
    }
    OVER.store(true, Relaxed);
    printing.join().unwrap();
}
