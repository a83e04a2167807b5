//! Rotation and following, on files of the file system that temporary folders are on.

use super::*;
use std::io::Write;

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
