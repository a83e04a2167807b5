//! A folder of layers beside a folder that is nobody's business.

#![allow(dead_code, reason = "each test uses a part of it")]

use crate::maker::expected;
use oci::layer::Bounds;
use oci::unpack::{Layers, Outcome, Summary, UnpackError};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Layers keep their owners, and hide others by device nodes: nobody but root can make these.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root can unpack layers");
    }
    root
}

pub struct Place {
    pub folder: tempfile::TempDir,
    pub layers: Layers,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("layers")).expect("made");
        // What hostile layers are after.
        let evil = folder.path().join("evil");
        std::fs::create_dir(&evil).expect("made");
        std::fs::write(evil.join("keep"), "mine").expect("written");
        std::fs::write(folder.path().join("hostname"), "mine").expect("written");
        let layers = Layers::open(&folder.path().join("layers")).expect("opened");
        Self { folder, layers }
    }

    pub fn evil(&self) -> PathBuf {
        self.folder.path().join("evil")
    }

    pub fn unpack(&self, layer: &[u8]) -> Result<Summary, UnpackError> {
        self.unpack_within(layer, Bounds::default())
    }

    pub fn unpack_within(&self, layer: &[u8], bounds: Bounds) -> Result<Summary, UnpackError> {
        match self.layers.unpack(layer, expected(layer, layer), bounds)? {
            Outcome::Unpacked(summary) => Ok(*summary),
            Outcome::Present => panic!("it was there already"),
        }
    }

    /// Where a layer is.
    pub fn root(&self, layer: &[u8]) -> PathBuf {
        let diff_id = expected(layer, layer).diff_id;
        self.folder.path().join("layers").join(diff_id.short())
    }

    /// Names in the folder of layers.
    pub fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path().join("layers")).expect("read");
        let names = files.map(|file| file.expect("one").file_name().into_string().expect("text"));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Everything beside the layers: type, mode, owner, links, size, time and contents.
    pub fn outside(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        look(self.folder.path(), &mut seen);
        let layers = self.folder.path().join("layers");
        seen.retain(|path, _| !path.starts_with(&layers) && path != self.folder.path());
        seen
    }
}

fn look(path: &Path, seen: &mut BTreeMap<PathBuf, String>) {
    let stat = path.symlink_metadata().expect("it is there");
    let mut said = format!("{:o} {} {} {} ", stat.mode(), stat.uid(), stat.gid(), stat.nlink());
    if stat.is_dir() {
        let files = std::fs::read_dir(path).expect("read");
        files.for_each(|file| look(&file.expect("one").path(), seen));
    } else if stat.is_file() {
        said += &std::fs::read_to_string(path).unwrap_or_default();
    }
    said += &format!("{}.{}", stat.mtime(), stat.mtime_nsec());
    seen.insert(path.to_owned(), said);
}
