//! How the kernel's files are read, here and in the agent.

use ebpf::KeptFiles;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of any one file that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The kernel's files below a folder: `/`, or a recorded machine in tests.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
    /// Those that stay open. `None`: each is opened when it is read.
    kept: Option<Arc<Mutex<KeptFiles>>>,
}

impl Files {
    /// Of this machine.
    pub fn of_machine() -> Self {
        Self::at("/")
    }

    /// Those below `root`, which holds `sys`, `proc`, `etc` and `dev`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), kept: None }
    }

    /// The same for who reads the same few files again and again: so many stay open. Only for files that the kernel
    /// writes for their reader, and that stay where they are.
    pub fn keeping(self, descriptors_max: usize) -> Self {
        let kept = KeptFiles::new(descriptors_max, FILE_BYTES_MAX as usize);
        Self { kept: Some(Arc::new(Mutex::new(kept))), ..self }
    }

    /// Where a file or folder is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A file, or as much of it as is read here. What is no UTF-8 in it is replaced.
    pub fn text(&self, path: &str) -> Option<String> {
        if let Some(kept) = &self.kept {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            return Some(String::from_utf8_lossy(kept.read(&self.root, path)?).into_owned());
        }
        let file = File::open(self.path(path)).ok()?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let replaced = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Some(String::from_utf8(bytes).unwrap_or_else(|error| replaced(error.into_bytes())))
    }

    /// A file without the space around its text; nothing when it is empty.
    pub fn line(&self, path: &str) -> Option<String> {
        self.text(path).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Names in a folder, sorted; none when it is not there.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The numbers of entries named `prefix` and a number, ascending.
    pub fn numbered(&self, folder: &str, prefix: &str) -> Vec<u16> {
        let names = self.names(folder);
        let mut numbers: Vec<u16> =
            names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Writes a recorded machine below `root`, for tests: a file (`path = text`) or a link (`path -> target`) per line.
///
/// # Panics
/// When a line is neither, or cannot be written.
#[allow(clippy::missing_panics_doc, reason = "for tests")]
pub fn record(fixture: &str, root: &std::path::Path) {
    for line in fixture.lines().filter(|line| !line.starts_with('#')) {
        let link = line.split_once(" -> ");
        let (path, target) =
            link.or_else(|| line.split_once(" =")).unwrap_or_else(|| panic!("{line}"));
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        if link.is_some() {
            std::os::unix::fs::symlink(target, path).expect("a link");
        } else {
            let text =
                target.trim_start().replace("\\n", "\n").replace("\\t", "\t").replace("\\\"", "\"");
            std::fs::write(path, text).expect("a file");
        }
    }
}

/// A recorded machine in a folder of its own.
#[cfg(test)]
pub(crate) fn recorded(fixture: &str) -> (tempfile::TempDir, Files) {
    let folder = tempfile::tempdir().expect("a folder");
    record(fixture, folder.path());
    let files = Files::at(folder.path());
    (folder, files)
}
