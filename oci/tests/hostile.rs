//! Layers that want something: each is refused or does no harm, and the folder beside the layers stays as it was.

mod layers;
mod maker;

use layers::Place;
use maker::{Tar, expected, gzip, zstd};
use oci::digest::Digest;
use oci::layer::{Bounds, LayerError};
use oci::limits;
use oci::unpack::{Outcome, Problem, UnpackError, Warning};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

/// Unpacks something hostile; whatever comes of it, nothing outside has changed, and a refusal has left nothing.
fn attack(what: &str, layer: &dyn Fn(&Place) -> Vec<u8>) -> (Place, Vec<u8>, Result<(), Problem>) {
    let place = Place::new();
    let layer = layer(&place);
    let before = place.outside();
    let result = place.unpack(&layer);
    assert_eq!(place.outside(), before, "{what}");
    let result = match result {
        Ok(_) => {
            let short = Digest::of(&layer).short();
            assert_eq!(place.names(), [short.clone(), format!("{short}.diffid")], "{what}");
            Ok(())
        }
        Err(UnpackError::Entry { problem, .. }) => {
            assert_eq!(place.names(), [""; 0], "{what}");
            Err(problem)
        }
        Err(other) => panic!("{what}: {other}"),
    };
    (place, layer, result)
}

fn refused(what: &str, wanted: &Problem, layer: &dyn Fn(&Place) -> Vec<u8>) {
    let (_, _, result) = attack(what, layer);
    assert_eq!(result.as_ref(), Err(wanted), "{what}");
}

fn harmless(what: &str, layer: &dyn Fn(&Place) -> Vec<u8>) -> (Place, Vec<u8>) {
    let (place, layer, result) = attack(what, layer);
    assert_eq!(result, Ok(()), "{what}");
    (place, layer)
}

/// How a folder beside the layers looks to a link within one.
fn climbing(name: &str) -> String {
    format!("../../../../../../..{name}")
}

#[test]
fn paths_that_leave_the_layer_are_refused() {
    if !layers::is_root() {
        return;
    }
    for path in ["../out1", "a/../../out1", "..", "./..", "/../out1", "a/..", ".wh.x/../../out1"] {
        refused(path, &Problem::Climbs, &|_| Tar::new().file(path, b"evil").end());
        refused(path, &Problem::Climbs, &|_| Tar::new().folder(path).end());
        refused(path, &Problem::Climbs, &|_| Tar::new().symlink(path, "/").end());
    }
    // pax and GNU say longer paths, and no other ones.
    refused("pax", &Problem::Climbs, &|_| {
        Tar::new().record("path", b"../out1").file("fine", b"evil").end()
    });
    let long = format!("{}../../out1", "a/".repeat(60));
    let wanted = format!("../{long}");
    refused("GNU", &Problem::Climbs, &|_| Tar::new().file(&wanted, b"evil").end());
    let name = "n".repeat(limits::NAME_COMPONENT_BYTES_MAX + 1);
    refused("a long name", &Problem::TooLong, &|_| Tar::new().file(&name, b"").end());
    let deep = "a/".repeat(limits::PATH_COMPONENTS_MAX + 1);
    refused("a deep one", &Problem::TooDeep, &|_| Tar::new().folder(&deep).end());
    let longest = "a".repeat(254) + &"/aaa".repeat(limits::PATH_BYTES_MAX / 4);
    refused("a long one", &Problem::TooLong, &|_| Tar::new().file(&longest, b"").end());
    refused("no folder", &Problem::Root, &|_| Tar::new().file("./", b"x").end());
    refused("no folder", &Problem::Root, &|_| Tar::new().symlink(".", "/etc").end());
    // Absolute paths begin where the layer does.
    let (place, layer) = harmless("absolute", &|place| {
        Tar::new().file(&format!("{}/keep", place.evil().display()), b"evil").end()
    });
    let inside = place.root(&layer).join(place.evil().strip_prefix("/").expect("absolute"));
    assert_eq!(std::fs::read(inside.join("keep")).expect("read"), b"evil");
}

#[test]
fn links_of_a_layer_lead_nowhere_but_into_it() {
    if !layers::is_root() {
        return;
    }
    let nowhere = |path: &str| Problem::NoFolder(path.to_owned());
    let absolute = |place: &Place| place.evil().display().to_string();
    let targets: [&dyn Fn(&Place) -> String; 5] = [
        &absolute,
        &|place| climbing(&absolute(place)),
        &|_| "../evil".to_owned(),
        &|_| "../../evil".to_owned(),
        &|_| "/proc/self/root/tmp".to_owned(),
    ];
    for target in targets {
        let link = |place: &Place| Tar::new().symlink("d", &target(place));
        refused("through it", &nowhere("d"), &|place| link(place).file("d/out2", b"evil").end());
        refused("below it", &nowhere("d"), &|place| link(place).folder("d/x/y").end());
        refused("a whiteout", &nowhere("d"), &|place| link(place).file("d/.wh.keep", b"").end());
        refused("an opaque mark", &nowhere("d"), &|place| {
            link(place).file("d/.wh..wh..opq", b"").end()
        });
        refused("a hard link", &Problem::HardLink("d/keep".into()), &|place| {
            link(place).hard_link("h", "d/keep").end()
        });
        // Where it would be a file, it is replaced and not written through.
        let (place, layer) = harmless("over it", &|place| link(place).file("d", b"mine").end());
        let stat = place.root(&layer).join("d").symlink_metadata().expect("there");
        assert!(stat.is_file());
        // The folder takes its place; what is set last is not set through the link that comes after it.
        harmless("first a folder", &|place| {
            Tar::new().mode(0o4777).folder("d").symlink("d", &target(place)).end()
        });
        harmless("then a folder", &|place| {
            link(place).mode(0o4777).folder("d").file("d/keep", b"x").end()
        });
    }
    refused("a loop", &nowhere("a"), &|_| {
        Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b"").end()
    });
    refused("a file", &nowhere("f"), &|_| Tar::new().file("f", b"").file("f/x", b"").end());
    refused("nothing", &Problem::Symlink, &|_| Tar::new().symlink("a", "").end());
    // Within the layer they are followed, as in the container: so are Debian's.
    let (place, layer) = harmless("within", &|_| {
        Tar::new().folder("run/").symlink("var/run", "/run").file("var/run/x", b"in run").end()
    });
    assert_eq!(std::fs::read(place.root(&layer).join("run/x")).expect("read"), b"in run");
    // A link that has been replaced by the time that something goes through it again.
    let (place, layer) = harmless("changed meanwhile", &|place| {
        Tar::new()
            .folder("real")
            .symlink("l", "real")
            .file("l/one", b"1")
            .symlink("l", &absolute(place))
            .folder("l")
            .file("l/two", b"2")
            .end()
    });
    let names: Vec<_> = std::fs::read_dir(place.root(&layer).join("l")).expect("read").collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn hard_links_are_to_files_of_the_same_layer() {
    if !layers::is_root() {
        return;
    }
    for target in [
        "/etc/hostname",
        "../hostname",
        "hostname",
        "nothing/x",
        "",
        "/",
        "..",
        "dir",
        "fifo/x",
        ".wh.gone",
        "gone",
    ] {
        refused(target, &Problem::HardLink(target.into()), &|_| {
            Tar::new().folder("dir").file(".wh.gone", b"").hard_link("h", target).end()
        });
    }
    // Written through, it would be the machine's file.
    refused("then a file", &Problem::HardLink("/etc/hostname".into()), &|_| {
        Tar::new().hard_link("h", "/etc/hostname").file("h", b"evil").end()
    });
    // A link to a link is a link, and what it leads to is not touched.
    let (place, layer) = harmless("of a link", &|place| {
        let outside = place.folder.path().join("hostname");
        Tar::new()
            .symlink("s", &outside.display().to_string())
            .hard_link("h", "s")
            .file("h", b"evil")
            .end()
    });
    assert!(place.root(&layer).join("h").symlink_metadata().expect("there").is_file());
    let (place, layer) = harmless("of itself, and of one that is there", &|_| {
        Tar::new().file("a", b"x").hard_link("a", "a").file("b", b"y").hard_link("b", "./a").end()
    });
    let stat = place.root(&layer).join("b").metadata().expect("there");
    assert_eq!((stat.nlink(), stat.size()), (2, 1));
    refused("of what made room", &Problem::HardLink("d/x".into()), &|_| {
        Tar::new().file("d/x", b"").hard_link("d", "d/x").end()
    });
}

#[test]
fn devices_and_attributes_of_the_machine_stay_out() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let layer = Tar::new()
        .device("mem")
        .entry(b'4', "dev/sda", "", b"", 0o660)
        .xattr("trusted.overlay.redirect", b"/etc")
        .xattr("trusted.overlay.opaque", b"y")
        .xattr("user.overlay.redirect", b"/etc")
        .xattr("security.selinux", b"x")
        .xattr("system.posix_acl_access", b"x")
        .folder("d")
        .xattr("security.capability", b"rubbish")
        .file("f", b"")
        .end();
    let summary = place.unpack(&layer).expect("it is harmless");
    let root = place.root(&layer);
    assert!(root.join("mem").symlink_metadata().is_err());
    assert!(root.join("dev").symlink_metadata().is_err());
    let mut value = [0; 64];
    for name in ["trusted.overlay.redirect", "trusted.overlay.opaque", "user.overlay.redirect"] {
        let got = rustix::fs::lgetxattr(root.join("d"), name, &mut value[..]);
        assert_eq!(got, Err(rustix::io::Errno::NODATA), "{name}");
    }
    let said: Vec<String> = summary.warnings.iter().map(Warning::to_string).collect();
    assert_eq!(said.len(), 8, "{said:#?}");
    assert_eq!(&said[..2], ["mem: a device, left out", "dev/sda: a device, left out"]);
    assert!(said[2].starts_with("d: its attribute "), "{said:?}");
    assert!(said[7].starts_with("f: its attribute security.capability is left out: "), "{said:?}");

    let many =
        (0..limits::WARNINGS_MAX + 3).fold(Tar::new(), |tar, at| tar.device(&format!("d{at}")));
    let summary = place.unpack(&many.end()).expect("it is harmless");
    assert_eq!((summary.warnings.len(), summary.more_warnings), (limits::WARNINGS_MAX, 3));
}

#[test]
fn owners_that_mean_something_else_to_the_kernel_are_refused() {
    if !layers::is_root() {
        return;
    }
    for (uid, gid, wanted) in
        [(0xffff_ffff, 0, 0xffff_ffff), (0, 0xffff_ffff, 0xffff_ffff), (1 << 32, 0, 1 << 32)]
    {
        refused("owner", &Problem::Owner(wanted), &|_| {
            Tar::new().owner(uid, gid).file("f", b"").end()
        });
    }
    refused("pax", &Problem::Owner(u64::MAX), &|_| {
        Tar::new().record("uid", u64::MAX.to_string().as_bytes()).file("f", b"").end()
    });
    // setuid is the image's own affair.
    let (place, layer) =
        harmless("setuid", &|_| Tar::new().owner(7, 8).mode(0o4755).file("su", b"evil").end());
    let stat = place.root(&layer).join("su").metadata().expect("there");
    assert_eq!((stat.permissions().mode() & 0o7777, stat.uid(), stat.gid()), (0o4755, 7, 8));
}

#[test]
fn whiteouts_hide_names_and_nothing_else() {
    if !layers::is_root() {
        return;
    }
    for path in [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh..."] {
        refused(path, &Problem::Whiteout, &|_| Tar::new().folder("d").file(path, b"").end());
    }
    let (place, layer) = harmless("names", &|_| {
        Tar::new()
            .file(".wh..a", b"data")
            .file("d/.wh.x", b"")
            .symlink(".wh.y", "/etc/passwd")
            .end()
    });
    for name in [".a", "d/x", "y"] {
        let stat = place.root(&layer).join(name).symlink_metadata().expect("there");
        assert!(stat.file_type().is_char_device() && stat.rdev() == 0, "{name}");
    }
    assert_eq!(std::fs::read_dir(place.root(&layer)).expect("read").count(), 3);
    let place = Place::new();
    let layer = Tar::new().file(".wh..wh.aufs", b"").folder(".wh..wh.plnk/").end();
    assert_eq!(place.unpack(&layer).expect("harmless").warnings.len(), 2);
    assert_eq!(std::fs::read_dir(place.root(&layer)).expect("read").count(), 0);
}

#[test]
fn more_than_the_bounds_is_refused_and_leaves_nothing() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let bounds = Bounds { entries: 10, ..Bounds::default() };
    let many = (0..11).fold(Tar::new(), |tar, at| tar.file(&format!("f{at}"), b"")).end();
    let implied = Tar::new().file("a/b/c/d/e/f/g/h/i/j/k", b"").end();
    for layer in [&many, &implied] {
        let error = place.unpack_within(layer, bounds).expect_err("too many");
        assert!(
            matches!(error, UnpackError::Entry { problem: Problem::TooMany(10), .. }),
            "{error}"
        );
        assert_eq!(place.names(), [""; 0]);
    }
    // Empty files are a few bytes each when they are compressed, and names that come again count again.
    let one = Tar::new().file("f", b"").end();
    let mut bytes = one[..512].repeat(20_000);
    bytes.extend([0; 1024]);
    let bounds = Bounds { entries: 5_000, ..Bounds::default() };
    let error = place.unpack_within(&bytes, bounds).expect_err("too many");
    assert!(
        matches!(error, UnpackError::Entry { problem: Problem::TooMany(5_000), .. }),
        "{error}"
    );

    let large = Tar::new().file("zeros", &vec![0; 64 << 20]).end();
    let bomb = zstd(&large);
    let error = place.layers.unpack(&bomb[..], expected(&bomb, &large), Bounds::default());
    assert!(matches!(error, Err(UnpackError::Layer(LayerError::Ratio { .. }))), "{error:?}");
    let bounds = Bounds { bytes: 1 << 20, ..Bounds::default() };
    let error = place.unpack_within(&large, bounds).expect_err("too large");
    assert!(matches!(error, UnpackError::Layer(LayerError::TooLarge(_))), "{error}");
    assert_eq!(place.names(), [""; 0]);

    // A name of gibibytes is not read into memory.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(8 << 30);
    header.set_cksum();
    let error = place.unpack(header.as_bytes()).expect_err("too long").to_string();
    assert!(error.contains("8589934592 bytes, and 1048576 are allowed"), "{error}");
}

#[test]
fn bytes_that_are_not_what_was_asked_for_are_never_a_layer() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let layer = Tar::new().file("f", b"data").end();
    let blob = gzip(&layer);
    let right = expected(&blob, &layer);
    let other = Digest::of(b"other");
    for (wanted, bytes) in [
        (oci::layer::Expected { digest: other, ..right }, &blob[..]),
        (oci::layer::Expected { diff_id: other, ..right }, &blob[..]),
        (right, &blob[..blob.len() - 3]),
        (right, &layer[..]),
        (right, b""),
    ] {
        place.layers.unpack(bytes, wanted, Bounds::default()).expect_err("other bytes");
        assert_eq!(place.names(), [""; 0]);
    }
    // What follows the archive counts, too: it is a part of the diffID.
    let longer = [&layer[..], b"more"].concat();
    place
        .layers
        .unpack(&longer[..], expected(&longer, &layer), Bounds::default())
        .expect_err("more");
    place.layers.unpack(&longer[..], expected(&longer, &longer), Bounds::default()).expect("all");
    // A layer that is there is not touched by a second one.
    let outcome = place.layers.unpack(&blob[..], right, Bounds::default()).expect("right");
    assert!(matches!(outcome, Outcome::Unpacked(_)));
    let outcome = place.layers.unpack(&b""[..], right, Bounds::default()).expect("right");
    assert_eq!(outcome, Outcome::Present);
    // Not even if its name begins alike.
    let whole =
        place.folder.path().join("layers").join(format!("{}.diffid", right.diff_id.short()));
    std::fs::write(&whole, format!("{other}\n")).expect("written");
    let error = place.layers.unpack(&blob[..], right, Bounds::default()).expect_err("another one");
    assert!(matches!(error, UnpackError::Collision { .. }), "{error}");
}

#[test]
fn damaged_archives_are_refused() {
    if !layers::is_root() {
        return;
    }
    let place = Place::new();
    let right = Tar::new().folder("d").file("d/f", &[7; 2000]).end();
    for length in (1..right.len() - 1024).step_by(37).filter(|length| length % 512 != 0) {
        place.unpack(&right[..length]).expect_err("cut");
    }
    let mut other = right.clone();
    other[0] ^= 1;
    let error = place.unpack(&other).expect_err("damaged").to_string();
    assert!(error.contains("at byte 0 of the archive: this is no tar header"), "{error}");
    for (layer, wanted) in [
        (Tar::new().record("size", b"-1").file("f", b"").end(), "its size is no number"),
        (Tar::new().record("GNU.sparse.major", b"1").file("f", b"").end(), "sparse"),
        (Tar::new().entry(b'S', "f", "", b"", 0o644).end(), "sparse"),
        (Tar::new().entry(b'V', "label", "", b"", 0o644).end(), "'V'"),
        (Tar::new().entry(b'x', "pax", "", b"5 a=b\n", 0o644).file("f", b"").end(), "broken"),
        (Tar::new().record("path", b"a\0b").file("f", b"").end(), "zero byte"),
        (Tar::new().record("linkpath", b"a\0b").symlink("f", "x").end(), "zero byte"),
    ] {
        let error = place.unpack(&layer).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error}, not {wanted}");
    }
    assert_eq!(place.names(), [""; 0]);
}
