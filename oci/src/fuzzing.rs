//! What the fuzzers reach: each function takes whatever bytes come, as a registry, a file or another member may send them.
//! `fuzz/` explores them with libFuzzer; the tests below replay the corpus of the tree, and mutations of it, in every test run.

use crate::archive::{self, Keep};
use crate::contents::Source;
use crate::digest::Digest;
use crate::entries::{Entries, Kind};
use crate::layer::{Bounds, Expected, diff_id};
use crate::limits;
use crate::manifest::{Config, Document, Machine, Signal, choose};
use crate::reference::{DefaultRegistry, Reference};
use crate::unpack::{Layers, Outcome};
use crate::users::Accounts;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;

/// What a layer may become here, so that a run is short.
const LAYER_BYTES: u64 = 1 << 20;
const LAYER_ENTRIES: u64 = 64;
const BLOCK_BYTES: usize = 512;

/// The name of an image. What is read is written as it was.
pub fn image_reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
        assert!(!reference.repository().split('/').any(|name| matches!(name, "" | "." | "..")));
        for default in ["docker.io", "registry.lan:5000/mirror"] {
            let default: DefaultRegistry = default.parse().expect("a registry");
            let whole = reference.or_at(&default);
            // Only its length may be too much now.
            let again = whole.to_string().parse::<Reference>();
            assert!(again.as_ref() == Ok(&whole) || again.is_err_and(|it| it.text.len() > 60));
        }
        drop((reference.wanted(), reference.moves(), reference.in_fabric()));
    }
    if let Ok(default) = text.parse::<DefaultRegistry>() {
        assert_eq!(default.to_string().parse(), Ok(default));
    }
    if let Ok(signal) = text.parse::<Signal>() {
        assert_eq!(signal.to_string().parse(), Ok(signal));
    }
}

/// An index, a manifest or a configuration; and the files with users, which come from an image, too.
pub fn image_manifest(bytes: &[u8]) {
    match Document::read(bytes, "") {
        Ok(Document::Index(index)) => {
            assert!(index.manifests.len() <= limits::INDEX_MANIFESTS_MAX);
            for (architecture, variant) in [("x86_64", "v3"), ("aarch64", ""), ("armv6l", "")] {
                let machine = Machine::linux(architecture, variant);
                match choose(&index, &machine) {
                    Ok(chosen) => assert!(chosen.is_image()),
                    Err(error) => drop(error.to_string()),
                }
            }
        }
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.layers.len() <= limits::LAYERS_MAX);
            let _ = manifest.bytes();
            let written = Document::read(&manifest.to_json(), "");
            assert_eq!(written, Ok(Document::Manifest(manifest)));
        }
        Err(error) => drop(error.to_string()),
    }
    match Config::read(bytes) {
        Ok(config) => {
            assert!(config.launch.working_dir.starts_with('/'));
            assert!(!config.launch.words().iter().any(|word| word.contains('\0')));
            drop((config.steps(), config.launch.health_command()));
            let _ = config.fits(1);
        }
        Err(error) => drop(error.to_string()),
    }
    let accounts = Accounts::parse(bytes, bytes);
    let names = bytes.split(|byte| *byte == b'\n').filter_map(|it| std::str::from_utf8(it).ok());
    for name in names.take(8) {
        if let Ok(account) = accounts.find(name) {
            assert!(account.home.starts_with('/') && account.uid != u32::MAX);
        }
    }
}

/// Everything that goes by.
#[derive(Default)]
struct Kept(BTreeMap<String, Vec<u8>>);

impl Keep for Kept {
    fn keep(&mut self, path: &str, _: u64, bytes: &mut dyn Read) -> io::Result<()> {
        let mut all = Vec::new();
        bytes.read_to_end(&mut all)?;
        self.0.insert(path.to_owned(), all);
        Ok(())
    }
}

/// An archive of images. What it is said to hold is there, and has the digest that it is known by.
pub fn image_archive(bytes: &[u8]) {
    let bytes = repaired(bytes);
    let mut kept = Kept::default();
    let contents = match archive::read(&bytes[..], &mut kept) {
        Ok(contents) => contents,
        Err(error) => return drop(error.to_string()),
    };
    assert!(!contents.images.is_empty());
    for (digest, blob) in &contents.blobs {
        let there = match &blob.source {
            Source::Bytes(bytes) => bytes,
            Source::File { path, .. } => &kept.0[path],
        };
        assert_eq!((Digest::of(there), there.len() as u64), (*digest, blob.size));
    }
    for image in &contents.images {
        assert!(!image.variants.is_empty() && contents.blobs.contains_key(&image.digest));
        for variant in &image.variants {
            assert_eq!(variant.config.diff_ids.len(), variant.manifest.layers.len());
            let layers = variant.manifest.layers.iter();
            assert!(
                layers
                    .chain([&variant.manifest.config])
                    .all(|it| contents.blobs.contains_key(&it.digest))
            );
        }
    }
}

/// A layer: decompressed, taken apart, and, where we are root, unpacked into a folder of its own. Beside that nothing changes, and
/// what fails leaves nothing.
pub fn image_layer(bytes: &[u8]) {
    let bytes = repaired(bytes);
    let bounds = Bounds { bytes: LAYER_BYTES, entries: LAYER_ENTRIES };
    let mut entries = Entries::new(&bytes[..]);
    while let Ok(Some(entry)) = entries.next() {
        assert!(entry.mode <= 0o7777 && !entry.path.contains(&0));
        assert!(entry.kind == Kind::File || entry.size == 0);
    }
    let Ok((diff_id, _)) = diff_id(&bytes[..], bounds) else { return };
    if !is_root() {
        return;
    }
    let expected = Expected { digest: Digest::of(&bytes), size: bytes.len() as u64, diff_id };
    let sandbox = Sandbox::new();
    let layers = Layers::open(&sandbox.0.join("layers")).expect("opened");
    match layers.unpack(&bytes[..], expected, bounds) {
        Ok(outcome) => {
            assert_ne!(outcome, Outcome::Present);
            assert_eq!(sandbox.layers(), 2);
        }
        Err(error) => {
            drop(error.to_string());
            assert_eq!(sandbox.layers(), 0, "{error}");
        }
    }
    sandbox.check();
}

/// Whether this process may give files away, and hide others.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0)
}

/// A folder of layers beside a file that is nobody's business.
struct Sandbox(PathBuf);

impl Sandbox {
    fn new() -> Self {
        let mut random = [0; 8];
        let random_source = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random_source, &mut random).expect("random");
        let name = format!("weft-oci-{}", data_encoding::HEXLOWER.encode(&random));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(folder.join("layers")).expect("made");
        std::fs::write(folder.join("keep"), "mine").expect("written");
        Self(folder)
    }

    fn layers(&self) -> usize {
        std::fs::read_dir(self.0.join("layers")).expect("read").count()
    }

    fn check(&self) {
        assert_eq!(std::fs::read(self.0.join("keep")).ok().as_deref(), Some(&b"mine"[..]));
        assert_eq!(std::fs::read_dir(&self.0).expect("read").count(), 2);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The same archive with right sums in its headers: else hardly any change of it would be looked at.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(block) = bytes.get_mut(at..at + BLOCK_BYTES) {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        if header.as_bytes().starts_with(&[0x1f, 0x8b])
            || header.as_bytes().starts_with(&[0x28, 0xb5])
        {
            break;
        }
        if block.iter().any(|byte| *byte != 0) {
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let data = usize::try_from(header.entry_size().unwrap_or(0)).unwrap_or(usize::MAX);
        let blocks = data.div_ceil(BLOCK_BYTES).saturating_add(1);
        at = at.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
        if at > bytes.len() {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
