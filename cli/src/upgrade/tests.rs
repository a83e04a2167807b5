use super::*;
use std::io::Write;

/// The beginning of a tar with one file, as GNU tar and busybox write it.
fn tar(name: &str, content: &str) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    let size = format!("{:011o}", content.len());
    bytes[124..135].copy_from_slice(size.as_bytes());
    bytes.extend_from_slice(content.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(HEADER_BYTES), 0);
    bytes
}

const GOOD: &str = "weft-update 1\nversion 0.2.0\narch aarch64\nsha256 00 root 1\n";

#[test]
fn an_update_says_what_it_is() {
    assert_eq!(manifest(&tar("manifest", GOOD)), Some(("0.2.0".into(), "aarch64".into())));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&tar("manifest", GOOD)).unwrap();
    let (_, update) = open(file.path()).unwrap();
    assert_eq!((update.bytes, update.install), (1024, false));
}

#[test]
fn other_files_are_no_updates() {
    let long = format!("{GOOD}{}", "x".repeat(5000));
    for (name, content) in [
        ("root", GOOD),
        ("manifest", "weft-update 2\nversion 1\narch x86_64\n"),
        ("manifest", "weft-update 1\nversion \narch x86_64\n"),
        ("manifest", "weft-update 1\nversion 1 2\narch x86_64\n"),
        ("manifest", "weft-update 1\narch x86_64\n"),
        ("manifest", &long),
    ] {
        assert_eq!(manifest(&tar(name, content)), None, "{name} {content:.40}");
    }
    let good = tar("manifest", GOOD);
    for length in 0..HEADER_BYTES + GOOD.len() {
        assert_eq!(manifest(&good[..length]), None, "{length}");
    }
    let error = open(Path::new("/etc/hostname")).unwrap_err();
    assert!(format!("{error:?}").contains("is no update"), "{error:?}");
}
