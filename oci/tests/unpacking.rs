//! Ordinary layers, as the kernel has them afterwards.

mod layers;
mod maker;

use layers::Place;
use maker::{TIME, Tar, expected, gzip, zstd};
use oci::layer::Bounds;
use oci::unpack::{Outcome, UnpackError};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// `cap_net_raw+ep`, with a line feed in it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0];

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn files_have_owner_mode_time_and_attributes_of_the_archive() {
    if !layers::is_root() {
        return;
    }
    let long = format!("{}/{}", "long".repeat(30), "name".repeat(30));
    let layer = Tar::new()
        .mode(0o555)
        .folder("./")
        .mode(0o1777)
        .folder("tmp/")
        .owner(1234, 777)
        .mode(0o500)
        .folder("closed")
        .mode(0o6711)
        .file("closed/file", b"data")
        .record("mtime", b"1600000000.25")
        .file("timed", b"")
        .symlink("link", "closed/file")
        .hard_link("closed/again", "/closed/file")
        .mode(0o620)
        .fifo("fifo")
        .record("SCHILY.xattr.security.capability", &CAPABILITY)
        .xattr("user.note", b"a\nb")
        .file("ping", b"x")
        .file(&long, b"long")
        .record("path", "unicode-\u{e4}".as_bytes())
        .file("x", b"pax")
        .end();
    for compress in [|layer: &[u8]| layer.to_vec(), gzip, zstd] {
        let place = Place::new();
        let blob = compress(&layer);
        let outcome = place.layers.unpack(&blob[..], expected(&blob, &layer), Bounds::default());
        let Ok(Outcome::Unpacked(summary)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(summary.warnings, []);
        assert_eq!((summary.bytes, summary.implied), (layer.len() as u64, 1));
        assert_eq!(summary.entries, 12);
        let root = place.root(&layer);
        let stat = |path: &str| root.join(path).symlink_metadata().expect(path);
        let seconds = |path: &str| u64::try_from(stat(path).mtime()).expect("after 1970");
        for (path, mode, owner) in [
            ("", 0o555, (0, 0)),
            ("tmp", 0o1777, (0, 0)),
            ("closed", 0o500, (1234, 777)),
            ("closed/file", 0o6711, (1234, 777)),
            ("fifo", 0o620, (1234, 777)),
            ("link", 0o777, (1234, 777)),
        ] {
            let stat = stat(path);
            assert_eq!(stat.permissions().mode() & 0o7777, mode, "{path}");
            assert_eq!((stat.uid(), stat.gid()), owner, "{path}");
            assert_eq!(seconds(path), TIME, "{path}");
        }
        assert_eq!(
            (stat("timed").mtime(), stat("timed").mtime_nsec()),
            (1_600_000_000, 250_000_000)
        );
        assert_eq!(stat("closed/again").ino(), stat("closed/file").ino());
        assert!(stat("fifo").file_type().is_fifo());
        assert_eq!(
            std::fs::read_link(root.join("link")).expect("a link"),
            Path::new("closed/file")
        );
        assert_eq!(std::fs::read(root.join("closed/file")).expect("read"), b"data");
        assert_eq!(std::fs::read(root.join(&long)).expect("read"), b"long");
        assert_eq!(std::fs::read(root.join("unicode-\u{e4}")).expect("read"), b"pax");
        assert_eq!(
            xattr(&root.join("ping"), "security.capability").as_deref(),
            Some(&CAPABILITY[..])
        );
        assert_eq!(xattr(&root.join("ping"), "user.note").as_deref(), Some(&b"a\nb"[..]));
        assert!(place.layers.has(expected(&blob, &layer).diff_id).expect("looked"));
    }
}

#[test]
fn the_later_one_of_two_entries_counts() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let layer = Tar::new()
        .file("a", b"first")
        .file("a", b"second")
        .folder("b")
        .file("b/x", b"")
        .file("b", b"a file now")
        .file("c", b"")
        .folder("c")
        .file("c/x", b"")
        .folder("d")
        .file("d/x", b"")
        .mode(0o700)
        .folder("d")
        .end();
    place.unpack(&layer).expect("a layer");
    let root = place.root(&layer);
    assert_eq!(std::fs::read(root.join("a")).expect("read"), b"second");
    assert_eq!(std::fs::read(root.join("b")).expect("read"), b"a file now");
    assert!(root.join("c/x").is_file() && root.join("d/x").is_file());
    assert_eq!(root.join("d").metadata().expect("there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_was_left_by_a_power_cut_is_removed_and_layers_stay() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let layer = Tar::new().folder("d").file("d/f", b"").end();
    place.unpack(&layer).expect("a layer");
    let whole = place.names();
    let left = place.folder.path().join("layers/.tmp-0123");
    std::fs::create_dir_all(left.join("a/b/c")).expect("made");
    std::os::unix::fs::symlink(place.evil(), left.join("a/out")).expect("made");
    std::fs::write(place.folder.path().join("layers/.tmp-4567.diffid"), "x").expect("written");
    let before = place.outside();
    assert_eq!(place.layers.remove_unfinished().expect("removed"), 2);
    assert_eq!((place.names(), place.outside()), (whole, before));
    // A layer whose second file was written, and which then got no folder.
    let other = Tar::new().file("other", b"").end();
    let short = expected(&other, &other).diff_id.short();
    let file = place.folder.path().join("layers").join(format!("{short}.diffid"));
    std::fs::write(&file, "sha256:somebody's\n").expect("written");
    place.unpack(&other).expect("a layer");
    assert!(place.layers.has(expected(&other, &other).diff_id).expect("looked"));
}

#[test]
fn a_full_disk_is_said_to_be_full_and_nothing_is_left() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let small = place.folder.path().join("small");
    std::fs::create_dir(&small).expect("made");
    let options = c"size=256k";
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount("weft", &small, "tmpfs", flags, options) {
        return println!("skipped: a small file system cannot be mounted here: {error}");
    }
    let layers = oci::unpack::Layers::open(&small).expect("opened");
    let layer = Tar::new().file("a", &[1; 1000]).file("b", &vec![7; 1 << 20]).end();
    let result = layers.unpack(&layer[..], expected(&layer, &layer), Bounds::default());
    let left = std::fs::read_dir(&small).expect("read").count();
    drop(layers);
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    let error = result.expect_err("there is no room");
    assert!(error.is_full(), "{error}");
    assert!(matches!(error, UnpackError::Disk { .. }));
    assert_eq!(error.to_string(), "layer: writing b: No space left on device (os error 28)");
    assert_eq!(left, 0);
}

/// What overlayfs makes of layers, the highest one first: names in a folder of it.
fn overlaid(lower: &[&Path], look: impl Fn(&Path)) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let lower: Vec<String> = lower.iter().map(|path| path.display().to_string()).collect();
    let options = std::ffi::CString::new(format!("lowerdir={}", lower.join(":"))).expect("no zero");
    let flags = rustix::mount::MountFlags::RDONLY;
    let options = options.as_c_str();
    if let Err(error) = rustix::mount::mount("overlay", folder.path(), "overlay", flags, options) {
        println!("skipped: overlayfs cannot be mounted here: {error}");
        return false;
    }
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(folder.path())));
    let flags = rustix::mount::UnmountFlags::DETACH;
    rustix::mount::unmount(folder.path(), flags).expect("unmounted");
    looked.expect("as it should be");
    true
}

#[test]
fn whiteouts_hide_what_is_below_and_never_what_is_beside_them() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let below = ["gone", "kept", "d/old", "e/old", "f/old", "g/old", "h/old", "i/old"];
    let below = below.iter().fold(Tar::new(), |tar, path| tar.file(path, b"below")).end();
    // Marks before and after what is beside them; a name that is hidden and made anew, in both orders.
    let above = Tar::new()
        .file(".wh.gone", b"")
        .folder("d")
        .file("d/new", b"above")
        .file("d/.wh..wh..opq", b"")
        .file("e/.wh..wh..opq", b"")
        .file("e/new", b"above")
        .file(".wh.f", b"")
        .folder("f")
        .file("f/new", b"above")
        .folder("g")
        .file("g/new", b"above")
        .file(".wh.g", b"")
        .file(".wh.h", b"")
        .file("h/new", b"above")
        .file(".wh.i", b"")
        .file("i", b"a file")
        .end();
    place.unpack(&below).expect("a layer");
    let summary = place.unpack(&above).expect("a layer");
    assert!(!summary.is_opaque);
    overlaid(&[&place.root(&above), &place.root(&below)], |merged| {
        let names = |path: &str| {
            let files = std::fs::read_dir(merged.join(path)).expect("read");
            let names =
                files.map(|file| file.expect("one").file_name().into_string().expect("text"));
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["d", "e", "f", "g", "h", "i", "kept"]);
        for folder in ["d", "e", "f", "g", "h"] {
            assert_eq!(names(folder), ["new"], "{folder}");
        }
        assert_eq!(std::fs::read(merged.join("i")).expect("read"), b"a file");
    });
    // Of the root, overlayfs takes no mark: whoever mounts it leaves out what is below.
    let all = Tar::new().file(".wh..wh..opq", b"").file("only", b"").end();
    assert!(place.unpack(&all).expect("a layer").is_opaque);
    overlaid(&[&place.root(&all), &place.root(&below)], |merged| {
        assert!(merged.join("only").is_file() && merged.join("kept").is_file());
    });
}

#[test]
fn folders_that_nobody_spoke_of_are_counted() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let layer = Tar::new().file("a/b/c/f", b"").mode(0o700).folder("a").file("x/f", b"").end();
    let summary = place.unpack(&layer).expect("a layer");
    // `a` came later.
    assert_eq!(summary.implied, 3);
    let mode = |path: &str| {
        let stat = place.root(&layer).join(path).metadata().expect("there");
        stat.permissions().mode() & 0o7777
    };
    assert_eq!((mode("a"), mode("a/b"), mode("x"), mode("")), (0o700, 0o755, 0o755, 0o755));
}

#[test]
fn times_that_no_file_system_has_are_as_near_as_it_has_them() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let last = i64::MAX.to_string();
    let layer = Tar::new()
        .record("mtime", last.as_bytes())
        .file("last", b"")
        .record("mtime", format!("-{last}").as_bytes())
        .folder("first")
        .end();
    place.unpack(&layer).expect("a layer");
    let time = |path: &str| place.root(&layer).join(path).metadata().expect("there").mtime();
    assert!(time("last") > i64::from(i32::MAX) && time("first") < 0);
}
