use super::*;
use proptest::prelude::*;

/// A header of an archive with a right sum.
fn header(kind: u8, path: &[u8], size: u64) -> [u8; BLOCK_BYTES] {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkflag[0] = kind;
    header.set_size(size);
    header.set_mode(0o100_644);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header.set_cksum();
    *header.as_bytes()
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let length = key.len() + value.len() + 3;
    let digits = if length + 2 < 100 { 2 } else { 3 };
    [format!("{} {key}=", length + digits).as_bytes(), value, b"\n"].concat()
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(BLOCK_BYTES), 0);
    data
}

fn all(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, EntryError> {
    let mut entries = Entries::new(archive);
    let mut found = Vec::new();
    while let Some(entry) = entries.next()? {
        let mut data = Vec::new();
        entries.read_to_end(&mut data)?;
        found.push((entry, data));
    }
    Ok(found)
}

#[test]
fn headers_and_what_extends_them_come_together() {
    let records = [
        record("path", b"long/name"),
        record("mtime", b"-1.5"),
        record("uid", b"4000000"),
        record("SCHILY.xattr.user.a", b"line\nfeed=\0"),
        record("comment", b"nobody reads it"),
    ];
    let records = records.concat();
    let archive = [
        &header(b'g', b"", 11)[..],
        &padded(b"11 a=bcdef\n"),
        &header(b'x', b"", records.len() as u64),
        &padded(&records),
        &header(b'0', b"short", 5),
        &padded(b"data!"),
        // Folders have no data, whatever they say.
        &header(b'5', b"d/", 512),
        &header(b'0', b"last", 0),
        &[0; 1024],
        b"whatever follows",
    ];
    let found = all(&archive.concat()).expect("an archive");
    let names: Vec<&[u8]> = found.iter().map(|(entry, _)| &entry.path[..]).collect();
    assert_eq!(names, [&b"long/name"[..], b"d/", b"last"]);
    let (first, data) = &found[0];
    assert_eq!((&data[..], first.size, first.offset), (&b"data!"[..], 5, 2560));
    assert_eq!((first.uid, first.gid, first.mode), (4_000_000, 2, 0o644));
    assert_eq!(first.modified, (-2, 500_000_000));
    assert_eq!(first.xattrs[&b"user.a"[..]], b"line\nfeed=\0");
    assert_eq!((found[1].0.modified, found[1].0.uid), ((3, 0), 1));
    assert_eq!((found[1].0.size, found[1].0.xattrs.len()), (0, 0));
    assert!(all(b"").expect("nothing").is_empty());
    assert!(all(&[0; 512]).expect("one block").is_empty());
}

#[test]
fn numbers_that_do_not_fit_their_digits_are_binary() {
    let mut block = header(b'0', b"old", 0);
    // Ten seconds before 1970, as Go writes it; and a user beyond seven octal digits.
    block[136..148].copy_from_slice(&[[0xff; 11].as_slice(), &[0xf6]].concat());
    block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xf0]);
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&block);
    header.set_cksum();
    let found = all(header.as_bytes()).expect("an archive");
    assert_eq!((found[0].0.modified, found[0].0.uid), ((-10, 0), 0xffff_fff0));
}

#[test]
fn what_was_not_read_of_an_entry_is_skipped() {
    let data = vec![7; 100_000];
    let archive =
        [&header(b'0', b"a", 100_000)[..], &padded(&data), &header(b'0', b"b", 0)].concat();
    let mut entries = Entries::new(&archive[..]);
    assert_eq!(entries.next().expect("one").expect("one").path, b"a");
    let mut some = [0; 10];
    entries.read_exact(&mut some).expect("there");
    assert_eq!(entries.next().expect("two").expect("two").path, b"b");
    assert_eq!(entries.next().expect("the end"), None);
}

#[test]
fn extended_headers_of_one_entry_are_bounded_together() {
    let large = vec![b'x'; 600 << 10];
    let long = [&header(b'L', b"", large.len() as u64)[..], &padded(&large)].concat();
    let error = all(&[&long[..], &long].concat()).expect_err("too much").to_string();
    assert!(
        error.ends_with("extended headers of 1228800 bytes, and 1048576 are allowed"),
        "{error}"
    );
    let file = header(b'0', b"f", 0);
    // Each entry has as much.
    assert_eq!(all(&[&long[..], &file, &long, &file].concat()).expect("an archive").len(), 2);
}

#[test]
fn times_have_decimals() {
    for (text, wanted) in [
        ("0", Some((0, 0))),
        ("1.5", Some((1, 500_000_000))),
        ("1.", Some((1, 0))),
        ("1.0000000019", Some((1, 1))),
        ("-1", Some((-1, 0))),
        ("-0.25", Some((-1, 750_000_000))),
        ("", None),
        ("-", None),
        ("1.x", None),
        ("1.-5", None),
        ("+1", None),
        ("99999999999999999999", None),
    ] {
        assert_eq!(time(text.as_bytes()), wanted, "{text}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        kind in prop::sample::select(b"0125SxgLK\0".to_vec()),
        size in 0_u64..2000,
        data in prop::collection::vec(any::<u8>(), 0..2000),
        at in 0_usize..512,
        byte in any::<u8>(),
    ) {
        let _ = all(&data);
        let mut block = header(kind, b"name", size);
        let archive = [&block[..], &data, &block, &data].concat();
        let _ = all(&archive);
        // With a right sum, so that the rest is looked at.
        block[at] = byte;
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        header.set_cksum();
        let archive = [&header.as_bytes()[..], &data].concat();
        if let Ok(entries) = all(&archive) {
            for (entry, data) in entries {
                prop_assert_eq!(entry.size, data.len() as u64);
            }
        }
    }
}
