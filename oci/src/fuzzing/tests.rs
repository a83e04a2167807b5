use super::*;

/// The tests' own maker of layers and images.
#[path = "../../tests/maker/mod.rs"]
mod maker;
#[path = "../../../fuzz/replay.rs"]
mod replay;

use maker::{Image, Tar, archive, gzip, layout, zstd};
use replay::replay;
use serde_json::json;

/// Mutations of each file in the corpus.
const MUTATIONS: usize = 400;
/// Of a layer, each of which makes files.
const LAYER_MUTATIONS: usize = 30;

/// Writes the part of the corpus that is archives: `WEFT_REWRITE=1 cargo test -p weft-oci fuzzing`.
#[test]
fn the_corpus_has_archives_of_every_form_and_hostile_layers() {
    let ordinary = Tar::new()
        .mode(0o1777)
        .folder("tmp/")
        .owner(7, 8)
        .xattr("user.note", b"a\nb")
        .mode(0o4755)
        .file("su", b"data")
        .symlink("var/run", "/run")
        .hard_link("again", "su")
        .fifo("fifo")
        .device("mem")
        .end();
    let whiteouts = Tar::new()
        .file(".wh.gone", b"")
        .folder("d")
        .file("d/.wh..wh..opq", b"")
        .file(".wh.d", b"")
        .file(".wh..wh.aufs", b"")
        .end();
    let hostile = Tar::new()
        .symlink("a", "../../keep")
        .symlink("d", "/tmp")
        .file("d/.wh.keep", b"")
        .hard_link("h", "/etc/hostname")
        .file("../out1", b"evil")
        .end();
    let small = Tar::new().file("etc/x", b"base").end();
    let (plain, packed) = (
        Image::new("amd64", std::slice::from_ref(&small), |layer| layer.to_vec()),
        Image::new("arm64", std::slice::from_ref(&small), gzip),
    );
    let mut entry = packed.entry("arm64");
    entry["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/app:1" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    let files: [(&str, Vec<u8>); 7] = [
        ("image_layer/gzip", gzip(&ordinary)),
        ("image_layer/hostile", hostile),
        ("image_layer/ordinary", ordinary.clone()),
        ("image_layer/whiteouts", whiteouts),
        ("image_layer/zstd", zstd(&ordinary)),
        ("image_archive/docker", plain.saved_by_docker(Some("app:1"))),
        ("image_archive/layout", archive(&layout(&index, &packed.blobs()))),
    ];
    for (path, bytes) in files {
        let path = format!("{}/../fuzz/corpus/{path}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("WEFT_REWRITE").is_some() {
            std::fs::write(&path, &bytes).expect("written");
        }
        assert_eq!(std::fs::read(&path).expect("read"), bytes, "{path}");
    }
}

#[test]
fn names_of_images() {
    replay("image_reference", MUTATIONS, image_reference);
}

#[test]
fn documents_of_images() {
    replay("image_manifest", MUTATIONS, image_manifest);
}

#[test]
fn files_with_images() {
    replay("image_archive", MUTATIONS, image_archive);
}

#[test]
fn layers_of_images() {
    if !is_root() {
        println!("skipped: only root can unpack layers; they are read");
    }
    replay("image_layer", LAYER_MUTATIONS, image_layer);
}
