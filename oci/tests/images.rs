//! Images in files, as the tools of others write them.

mod maker;

use maker::{Image, Tar, archive, gzip, layout, write_layout, zstd};
use oci::archive::{Keep, read};
use oci::contents::{ArchiveError, Contents, Source};
use oci::digest::Digest;
use oci::layer::{Bounds, Layer};
use oci::layout::Layout;
use oci::limits;
use oci::manifest::{Machine, choose};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Read};

fn plain(layer: &[u8]) -> Vec<u8> {
    layer.to_vec()
}

fn layers() -> Vec<Vec<u8>> {
    let base = Tar::new().folder("etc").file("etc/x", b"base").end();
    let top = Tar::new().file("etc/x", &[3; 70_000]).end();
    vec![base.clone(), top, base]
}

fn index(images: &[(&Image, &str, Value)]) -> Value {
    let entries = images.iter().map(|(image, architecture, annotations)| {
        let mut entry = image.entry(architecture);
        entry["annotations"] = annotations.clone();
        entry
    });
    json!({ "schemaVersion": 2, "manifests": entries.collect::<Vec<_>>() })
}

/// Keeps what goes by.
#[derive(Default)]
struct Kept(BTreeMap<String, Vec<u8>>);

impl Keep for Kept {
    fn keep(&mut self, path: &str, size: u64, bytes: &mut dyn Read) -> io::Result<()> {
        let mut kept = Vec::new();
        bytes.read_to_end(&mut kept)?;
        assert_eq!(kept.len() as u64, size);
        let before = self.0.insert(path.to_owned(), kept);
        // One that comes twice is the same.
        assert!(before.is_none_or(|before| before == self.0[path]));
        Ok(())
    }
}

/// Whether each layer of each image can be had from where it is said to be, whole.
fn check_layers(contents: &Contents, file: &[u8], kept: &Kept) {
    for variant in contents.images.iter().flat_map(|image| &image.variants) {
        for (layer, diff_id) in variant.manifest.layers.iter().zip(&variant.config.diff_ids) {
            let blob = &contents.blobs[&layer.digest];
            let bytes = match &blob.source {
                Source::Bytes(bytes) => bytes.clone(),
                Source::File { path, offset: Some(offset) } => {
                    let from = &file[usize::try_from(*offset).expect("in memory")..];
                    let bytes = from[..usize::try_from(blob.size).expect("in memory")].to_vec();
                    assert_eq!(kept.0[path], bytes);
                    bytes
                }
                Source::File { path, offset: None } => kept.0[path].clone(),
            };
            let expected =
                oci::layer::Expected { digest: layer.digest, size: layer.size, diff_id: *diff_id };
            let layer = Layer::new(&bytes[..], expected, Bounds::default()).expect("begun");
            layer.finish().expect("it is whole");
        }
        // Documents are here.
        for digest in [variant.digest, variant.manifest.config.digest] {
            let Source::Bytes(bytes) = &contents.blobs[&digest].source else { panic!() };
            assert_eq!(Digest::of(bytes), digest);
        }
    }
}

fn names(contents: &Contents) -> Vec<Vec<String>> {
    let images = contents.images.iter();
    images.map(|image| image.names.iter().map(ToString::to_string).collect()).collect()
}

#[test]
fn what_docker_saved_becomes_the_same_image_each_time() {
    let image = Image::new("amd64", &layers(), plain);
    let file = image.saved_by_docker(Some("app:1"));
    let mut digests = Vec::new();
    for file in [file.clone(), gzip(&file), zstd(&file)] {
        let mut kept = Kept::default();
        let contents = read(&file[..], &mut kept).expect("an image");
        assert_eq!(names(&contents), [["app:1"]]);
        let [image] = &contents.images[..] else { panic!() };
        assert_eq!(image.variants[0].config.launch.words(), ["sh"]);
        assert_eq!(image.variants[0].manifest.layers.len(), 3);
        // The third is the first, by a link.
        let layers = &image.variants[0].manifest.layers;
        assert_eq!((layers[0].digest, kept.0.len()), (layers[2].digest, 2));
        check_layers(&contents, &file, &kept);
        digests.push(image.digest);
    }
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], digests[2]);
    let untagged = read(&image.saved_by_docker(None)[..], &mut ()).expect("an image");
    assert_eq!((names(&untagged), untagged.images[0].digest), (vec![vec![]], digests[0]));
    // The form that bazel and ko write: layers compressed, a configuration that is called by its digest.
    let image = Image::new("arm64", &layers(), gzip);
    let paths: Vec<String> =
        image.layers.iter().map(|it| format!("{}.tar.gz", Digest::of(&it.0).digits())).collect();
    let config = Digest::of(&image.config).to_string();
    let manifest = json!([{ "Config": config, "RepoTags": ["ghcr.io/a/b:2"], "Layers": paths }]);
    let tar = Tar::new().file(&config, &image.config);
    let tar =
        paths.iter().zip(&image.layers).fold(tar, |tar, (path, layer)| tar.file(path, &layer.0));
    let file = tar.file("manifest.json", manifest.to_string().as_bytes()).end();
    let mut kept = Kept::default();
    let contents = read(&file[..], &mut kept).expect("an image");
    assert_eq!(names(&contents), [["ghcr.io/a/b:2"]]);
    assert_eq!(contents.images[0].variants[0].manifest, {
        let Ok(oci::manifest::Document::Manifest(mut wanted)) =
            oci::manifest::Document::read(&image.manifest, "")
        else {
            panic!()
        };
        for layer in &mut wanted.layers {
            layer.media_type += "+gzip";
        }
        wanted
    });
    check_layers(&contents, &file, &kept);
}

#[test]
fn a_layout_is_the_same_image_as_archive_and_as_folder() {
    let (amd, arm) = (Image::new("amd64", &layers(), gzip), Image::new("arm64", &layers(), zstd));
    let inner = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [amd.entry("amd64"), arm.entry("arm64"), {
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7,
            "digest": Digest::of(b"attestation"), "platform": { "os": "unknown", "architecture": "unknown" },
        }],
    });
    let inner = inner.to_string().into_bytes();
    let outer = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": Digest::of(&inner), "size": inner.len(),
        "annotations": { "io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "1" },
    }] });
    let mut blobs = amd.blobs();
    blobs.extend(arm.blobs());
    blobs.insert(Digest::of(&inner), inner.clone());
    // Docker from version 25 on has both forms in one file.
    let mut files = layout(&outer, &blobs);
    files.insert(
        "manifest.json".into(),
        b"[{\"Config\":\"blobs/sha256/x\",\"RepoTags\":null,\"Layers\":[]}]".to_vec(),
    );
    let file = archive(&files);
    let mut kept = Kept::default();
    let contents = read(&file[..], &mut kept).expect("an image");
    assert_eq!(names(&contents), [["docker.io/library/app:1"]]);
    let image = &contents.images[0];
    assert_eq!((image.digest, image.tag.as_deref()), (Digest::of(&inner), Some("1")));
    let platforms: Vec<String> = image.variants.iter().map(|it| it.platform.to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!(image.absent, []);
    check_layers(&contents, &file, &kept);
    // Whoever takes a manifest of it for a machine finds it among the variants.
    let Source::Bytes(bytes) = &contents.blobs[&image.digest].source else { panic!() };
    let Ok(oci::manifest::Document::Index(index)) = oci::manifest::Document::read(bytes, "") else {
        panic!()
    };
    let chosen = choose(&index, &Machine::linux("aarch64", "")).expect("one").digest;
    assert_eq!(chosen, image.variants[1].digest);

    let folder = tempfile::tempdir().expect("a folder");
    write_layout(folder.path(), &files);
    let layout = Layout::open(folder.path()).expect("opened");
    let there = layout.read().expect("an image");
    assert_eq!(there.images, contents.images);
    assert_eq!(there.blobs.keys().collect::<Vec<_>>(), contents.blobs.keys().collect::<Vec<_>>());
    let layer = &image.variants[0].manifest.layers[1];
    let mut bytes = Vec::new();
    layout.blob(layer.digest).expect("there").read_to_end(&mut bytes).expect("read");
    assert_eq!(Digest::of(&bytes), layer.digest);

    // One platform of two, as docker saves an image that was pulled.
    blobs.retain(|digest, _| *digest != Digest::of(&arm.manifest));
    let file = archive(&maker::layout(&outer, &blobs));
    let contents = read(&file[..], &mut ()).expect("an image");
    let image = &contents.images[0];
    assert_eq!((image.variants.len(), image.absent.len()), (1, 1));
    assert_eq!(image.absent[0].digest, Digest::of(&arm.manifest));
}

#[test]
fn several_images_keep_their_names() {
    let (one, two) =
        (Image::new("amd64", &layers(), gzip), Image::new("amd64", &layers()[..1], gzip));
    let name = |text: &str| json!({ "org.opencontainers.image.ref.name": text });
    let outer = index(&[
        (&one, "amd64", name("localhost/app:1")),
        (&two, "amd64", name("latest")),
        (&one, "amd64", name("localhost/app:latest")),
        (&one, "amd64", name("localhost/app:1")),
    ]);
    let mut blobs = one.blobs();
    blobs.extend(two.blobs());
    let contents = read(&archive(&layout(&outer, &blobs))[..], &mut ()).expect("two images");
    assert_eq!(names(&contents), [vec!["localhost/app:1", "localhost/app:latest"], vec![]]);
    assert_eq!(contents.images[1].tag.as_deref(), Some("latest"));
}

/// The error of reading a layout of one image in which something was changed, from an archive and from a folder.
fn refused(
    what: &str,
    change: impl Fn(&Image, &mut BTreeMap<String, Vec<u8>>),
) -> [ArchiveError; 2] {
    let image = Image::new("amd64", &layers(), gzip);
    let mut files = layout(&index(&[(&image, "amd64", json!({}))]), &image.blobs());
    change(&image, &mut files);
    let folder = tempfile::tempdir().expect("a folder");
    write_layout(folder.path(), &files);
    let there = Layout::open(folder.path()).expect("opened").read();
    [read(&archive(&files)[..], &mut ()).expect_err(what), there.expect_err(what)]
}

fn path(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).digits())
}

#[test]
fn a_layout_that_is_damaged_or_incomplete_is_refused() {
    for error in refused("another manifest", |image, files| {
        let other = String::from_utf8(image.manifest.clone())
            .expect("text")
            .replace("\"size\":", "\"size\" ");
        files.insert(path(&image.manifest), other.into_bytes());
    }) {
        assert!(matches!(error, ArchiveError::Digest { .. }), "{error}");
    }
    for error in
        refused("no configuration", |image, files| drop(files.remove(&path(&image.config))))
    {
        assert!(
            matches!(&error, ArchiveError::Missing(path) if path.starts_with("blobs/sha256/")),
            "{error}"
        );
    }
    for error in refused("no layer", |image, files| drop(files.remove(&path(&image.layers[1].0)))) {
        assert!(matches!(error, ArchiveError::Missing(_)), "{error}");
    }
    for error in refused("no index", |_, files| drop(files.remove("index.json"))) {
        assert!(matches!(error, ArchiveError::NoImage), "{error}");
    }
    for error in refused("no images", |_, files| {
        files.insert("index.json".into(), b"{\"manifests\":[]}".to_vec());
    }) {
        assert!(matches!(error, ArchiveError::Empty), "{error}");
    }
    for error in refused("a later layout", |_, files| {
        files.insert("oci-layout".into(), b"{\"imageLayoutVersion\":\"2.0.0\"}".to_vec());
    }) {
        assert!(
            error.to_string().contains("imageLayoutVersion: is \"2.0.0\", and 1 is known"),
            "{error}"
        );
    }
    // A layer's bytes are hashed in an archive; of a folder by whoever unpacks them.
    let [error, size] = refused("a cut layer", |image, files| {
        files.get_mut(&path(&image.layers[1].0)).expect("there").truncate(20);
    });
    assert!(matches!(error, ArchiveError::Digest { .. }), "{error}");
    assert!(matches!(size, ArchiveError::Size { got: 20, .. }), "{size}");
    // Indexes in indexes in indexes.
    for error in refused("a deep one", |image, files| {
        let mut entry = image.entry("amd64");
        for _ in 0..limits::INDEX_DEPTH_MAX {
            let index =
                json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes();
            entry = json!({
                "mediaType": "application/vnd.oci.image.index.v1+json", "digest": Digest::of(&index), "size": index.len(),
            });
            files.insert(path(&index), index);
        }
        let outer = json!({ "schemaVersion": 2, "manifests": [entry] });
        files.insert("index.json".into(), outer.to_string().into_bytes());
    }) {
        assert!(matches!(error, ArchiveError::TooDeep), "{error}");
    }
}

#[test]
fn an_archive_that_means_two_things_or_none_is_refused() {
    let image = Image::new("amd64", &layers(), plain);
    let file = image.saved_by_docker(Some("app:1"));
    let refused = |file: &[u8]| read(file, &mut ()).expect_err("refused");
    assert!(matches!(refused(b""), ArchiveError::NoImage));
    assert!(matches!(refused(b"no archive at all"), ArchiveError::Entry(_)));
    assert!(matches!(refused(&gzip(&file)[..200]), ArchiveError::Read(_)));
    for length in [600, 700, file.len() / 2] {
        let error = refused(&file[..length]);
        assert!(error.to_string().contains("the archive ends at byte"), "{error}");
    }
    // Behind the two blocks of zeros nothing is read; before them, what comes twice.
    let mut twice = file[..file.len() - 1024].to_vec();
    twice.extend(Tar::new().file("manifest.json", b"[]").end());
    assert!(matches!(refused(&twice), ArchiveError::Twice(path) if path == "manifest.json"));
    for (path, data) in [("../x", b"x"), ("a/../../x", b"x")] {
        assert!(matches!(refused(&Tar::new().file(path, data).end()), ArchiveError::Path(_)));
    }
    assert!(matches!(refused(&Tar::new().symlink("a/b", "../../x").end()), ArchiveError::Path(_)));
    // Links in a circle lead to nothing.
    let saved = |layers: &[&str]| {
        let config = format!("{}.json", Digest::of(&image.config).digits());
        let manifest = json!([{ "Config": config, "RepoTags": ["app:1"], "Layers": layers }]);
        Tar::new()
            .file(&config, &image.config)
            .file("manifest.json", manifest.to_string().as_bytes())
    };
    let circle = saved(&["a", "b", "a"]).symlink("a", "b").hard_link("b", "a").end();
    assert!(matches!(refused(&circle), ArchiveError::Missing(path) if path == "a"));
    let other = saved(&["a", "a", "a"]).file("a", b"not the layer").end();
    assert!(matches!(refused(&other), ArchiveError::Digest { path, .. } if path == "a"));
    let fewer = saved(&["a"]).file("a", &layers()[0]).end();
    let error = refused(&fewer).to_string();
    assert!(error.contains("rootfs.diff_ids: are 3, and the manifest has 1 layers"), "{error}");
    let name = json!([{ "Config": "x", "RepoTags": ["App"], "Layers": [] }]).to_string();
    let error = refused(&Tar::new().file("manifest.json", name.as_bytes()).end()).to_string();
    assert!(
        error.contains("manifest.json: [0].RepoTags: image 'App': repositories are in lower case"),
        "{error}"
    );

    let many = (0..=limits::ARCHIVE_ENTRIES_MAX).fold(Tar::new(), |tar, _| tar.folder("d")).end();
    assert!(matches!(refused(&many), ArchiveError::TooManyFiles));
    let mut json = vec![b' '; limits::MANIFEST_BYTES_MAX as usize];
    json[0] = b'{';
    let count = limits::ARCHIVE_JSON_BYTES_MAX / limits::MANIFEST_BYTES_MAX;
    let large =
        (0..=count).fold(Tar::new(), |tar, at| tar.file(&format!("{at}.json"), &json)).end();
    assert!(matches!(refused(&large), ArchiveError::TooMuchJson));
}

/// A disk that is full.
struct Full;

impl Keep for Full {
    fn keep(&mut self, _: &str, _: u64, bytes: &mut dyn Read) -> io::Result<()> {
        bytes.read_exact(&mut [0; 7])?;
        Err(io::Error::other("no room"))
    }
}

#[test]
fn whoever_cannot_keep_a_layer_is_the_one_who_is_named() {
    let file = Image::new("amd64", &layers(), plain).saved_by_docker(None);
    let error = read(&file[..], &mut Full).expect_err("no room");
    assert!(
        error.to_string().starts_with("keeping ")
            && error.to_string().ends_with("/layer.tar: no room"),
        "{error}"
    );
}

#[test]
fn links_of_a_folder_lead_nowhere_else() {
    let image = Image::new("amd64", &layers(), gzip);
    let files = layout(&index(&[(&image, "amd64", json!({}))]), &image.blobs());
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("layout");
    write_layout(&inside, &files);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, &image.manifest).expect("written");
    let blob = inside.join(path(&image.manifest));
    for target in [secret.clone(), "../../../secret".into()] {
        std::fs::remove_file(&blob).expect("removed");
        std::os::unix::fs::symlink(target, &blob).expect("made");
        let error = Layout::open(&inside).expect("opened").read().expect_err("outside");
        assert!(matches!(error, ArchiveError::Missing(_)), "{error}");
    }
    std::fs::remove_file(&blob).expect("removed");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &blob,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("made");
    let error = Layout::open(&inside).expect("opened").read().expect_err("a FIFO").to_string();
    assert!(error.ends_with(": it is no file"), "{error}");
}
