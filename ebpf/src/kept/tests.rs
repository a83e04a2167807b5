use super::*;
use std::fs;

#[test]
fn a_file_is_read_as_it_is_now_and_of_any_length() {
    let folder = std::env::temp_dir().join(format!("weft-kept-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("file");
    let mut files = KeptFiles::new(2, 1 << 20);
    assert_eq!(files.read(&folder, "file"), None);
    let long = "long ".repeat(20_000);
    for text in ["one", "", long.as_str(), "four"] {
        fs::write(&path, text).expect("written");
        assert_eq!(files.text(&folder, "file"), Some(text));
        assert_eq!(files.descriptors(), 1);
    }
    let mut bounded = KeptFiles::new(1, 7);
    fs::write(&path, "0123456789").expect("written");
    assert_eq!(bounded.text(&folder, "file"), Some("0123456"));
    fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn descriptors_are_bounded_and_closed_when_nobody_reads() {
    let mut files = KeptFiles::new(2, 1 << 20);
    let names = ["stat", "loadavg", "uptime", "version"];
    for name in names {
        assert!(files.read(Path::new("/proc"), name).is_some_and(|text| !text.is_empty()));
    }
    assert_eq!(files.descriptors(), 2, "the others are opened each time");
    files.sweep();
    assert_eq!(files.descriptors(), 2, "both were read");
    files.read(Path::new("/proc"), "loadavg");
    files.sweep();
    assert_eq!(files.descriptors(), 1);
    files.sweep();
    assert_eq!(files.descriptors(), 0);
}

/// A process that is gone takes its files with it; the descriptor says so.
#[test]
fn what_is_gone_is_closed() {
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
    let folder = PathBuf::from(format!("/proc/{}", child.id()));
    let mut files = KeptFiles::new(2, 1 << 20);
    assert!(files.text(&folder, "stat").is_some_and(|text| text.contains("sleep")));
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(files.text(&folder, "stat"), None);
    assert_eq!(files.descriptors(), 0);
}
