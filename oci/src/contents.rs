//! What an archive or a folder turns out to hold: images, and the blobs that they are made of.
//!
//! ```text
//! index.json ──► image ──► manifest for each platform ──► configuration, layers
//!            └─► image …
//! ```
//!
//! A document is believed when its bytes have the digest that led to it. Of layers, size and place are known; their bytes are
//! verified by whoever reads them ([`crate::layer`]), or were while an archive went by.

use crate::digest::Digest;
use crate::entries::EntryError;
use crate::layer::LayerError;
use crate::limits;
use crate::manifest::{Config, Descriptor, Document, Index, Manifest, ManifestError, Platform};
use crate::reference::{Reference, ReferenceError, is_tag};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Where an index of images is, in folders and archives.
pub(crate) const INDEX: &str = "index.json";
/// Says which version of the layout it is.
const LAYOUT: &str = "oci-layout";
/// Annotations with names of an image: containerd's whole one, and OCI's, which is often a tag alone.
const NAME: &str = "io.containerd.image.name";
const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";

/// Images, and all blobs that they need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// In their order.
    pub images: Vec<Image>,
    /// By their digests. What no image needs is not among them.
    pub blobs: BTreeMap<Digest, Blob>,
}

/// One image, for one platform or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it is called there; perhaps nothing.
    pub names: Vec<Reference>,
    /// A tag without a name.
    pub tag: Option<String>,
    /// Of its index or manifest: what it is called in the fabric.
    pub digest: Digest,
    /// Those that are there whole: at least one.
    pub variants: Vec<Variant>,
    /// Manifests of other platforms that the image has, and this archive or folder has not.
    pub absent: Vec<Descriptor>,
}

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What it runs on: as its index says, or else its configuration.
    pub platform: Platform,
    /// Of its manifest.
    pub digest: Digest,
    /// Configuration and layers as they travel.
    pub manifest: Manifest,
    /// What is run, and layers when they are decompressed.
    pub config: Config,
}

/// Bytes with a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Their number.
    pub size: u64,
    /// Where they are.
    pub source: Source,
}

/// Where bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Here: documents are.
    Bytes(Vec<u8>),
    /// In a file of the archive or folder.
    File {
        /// Within it.
        path: String,
        /// Where the file begins in the archive, in bytes, if that is not compressed as a whole; 0 in a folder.
        offset: Option<u64>,
    },
}

/// Why an archive or a folder is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read, or is compressed by something that is not understood.
    #[error("image file: {0}")]
    Read(LayerError),
    /// It is no archive.
    #[error("image file: {0}")]
    Entry(EntryError),
    /// A file of a folder cannot be read.
    #[error("image file: {path}: {error}")]
    File {
        /// Within the folder.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// Whoever was given a layer could not keep it.
    #[error("keeping {path}: {error}")]
    Keep {
        /// Of the layer.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// Of files in it.
    #[error("image file: it has more than {max} files", max = limits::ARCHIVE_ENTRIES_MAX)]
    TooManyFiles,
    /// Of images in it.
    #[error("image file: it has more than {max} images or names", max = limits::ARCHIVE_IMAGES_MAX)]
    TooManyImages,
    /// Of documents in it.
    #[error("image file: its JSON is more than {max} bytes", max = limits::ARCHIVE_JSON_BYTES_MAX)]
    TooMuchJson,
    /// Neither of the files that an image has.
    #[error(
        "image file: there is neither index.json nor manifest.json in it: make it with docker save, podman save or skopeo copy"
    )]
    NoImage,
    /// There are files of an image, and no image.
    #[error("image file: it holds no image")]
    Empty,
    /// A document that cannot be used.
    #[error("image file: {path}: {error}")]
    Document {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        error: ManifestError,
    },
    /// A name in it that is none.
    #[error("image file: {path}: {error}")]
    Name {
        /// Where it stands.
        path: String,
        /// What is wrong with it.
        error: ReferenceError,
    },
    /// A path in it that leads out of it.
    #[error("image file: {0:?} is no path within it")]
    Path(String),
    /// Two files of one name, with other bytes.
    #[error("image file: {0} is in it twice, and not the same")]
    Twice(String),
    /// A blob under the name of another one.
    #[error("image file: the bytes of {path} are {got}: it is damaged, or was changed")]
    Digest {
        /// Where it is.
        path: String,
        /// What it is.
        got: Digest,
    },
    /// It is said to have another size.
    #[error("image file: {path} has {got} bytes, and its manifest says {expected}")]
    Size {
        /// Where it is.
        path: String,
        /// As many as it has.
        got: u64,
        /// As many as it should have.
        expected: u64,
    },
    /// Something that everything else is about.
    #[error("image file: {0} is missing")]
    Missing(String),
    /// Indexes of indexes.
    #[error("image file: more than {max} indexes are inside of each other", max = limits::INDEX_DEPTH_MAX)]
    TooDeep,
}

impl From<EntryError> for ArchiveError {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::Io(error) => Self::Read(error.into()),
            error => Self::Entry(error),
        }
    }
}

/// What images are looked for in.
pub(crate) trait Files {
    /// The bytes of a JSON document; `None`: there is no such file, or it is none.
    fn document(&mut self, path: &str) -> Result<Option<Vec<u8>>, ArchiveError>;
    /// Size and place of a file.
    fn file(&mut self, path: &str) -> Result<Option<Blob>, ArchiveError>;
}

/// Where a layout has a blob.
pub(crate) fn path_of(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.digits())
}

/// The digest that a file is called by, if it is where blobs are.
pub(crate) fn digest_of(path: &str) -> Option<Digest> {
    Digest::from_digits(path.strip_prefix("blobs/sha256/")?).ok()
}

/// Reads the images of an OCI layout. `None`: there is no index.
pub(crate) fn of_layout(files: &mut dyn Files) -> Result<Option<Contents>, ArchiveError> {
    let Some(bytes) = files.document(INDEX)? else { return Ok(None) };
    let wrong = |error| ArchiveError::Document { path: INDEX.to_owned(), error };
    if let Some(bytes) = files.document(LAYOUT)? {
        check_version(&bytes)?;
    }
    let index = match Document::read(&bytes, "").map_err(wrong)? {
        Document::Index(index) => index,
        Document::Manifest(_) => {
            let problem = "is a manifest, and should be an index".to_owned();
            let error = ManifestError::Value { place: "config".into(), problem };
            return Err(wrong(error));
        }
    };
    let mut reading = Reading {
        files,
        contents: Contents::default(),
        missing: None,
        seen: BTreeSet::new(),
        json_bytes: 0,
    };
    for descriptor in index.manifests.iter().filter(|it| it.is_image()) {
        reading.image(descriptor)?;
    }
    match (reading.contents, reading.missing) {
        (contents, _) if !contents.images.is_empty() => Ok(Some(contents)),
        (_, Some(path)) => Err(ArchiveError::Missing(path)),
        (_, None) => Err(ArchiveError::Empty),
    }
}

fn check_version(bytes: &[u8]) -> Result<(), ArchiveError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let wrong = |error| ArchiveError::Document { path: LAYOUT.to_owned(), error };
    let layout: Layout = serde_json::from_slice(bytes)
        .map_err(|error| wrong(ManifestError::Json(error.to_string())))?;
    if layout.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    let problem = format!("is {:.20?}, and 1 is known", layout.image_layout_version);
    Err(wrong(ManifestError::Value { place: "imageLayoutVersion".into(), problem }))
}

struct Reading<'f> {
    files: &'f mut dyn Files,
    contents: Contents,
    /// The first blob that was looked for and is not there.
    missing: Option<String>,
    /// Indexes and manifests of this image: one that is named a thousand times is read once.
    seen: BTreeSet<Digest>,
    /// Of all documents that were read.
    json_bytes: u64,
}

impl Reading<'_> {
    /// An entry of the outermost index.
    fn image(&mut self, descriptor: &Descriptor) -> Result<(), ArchiveError> {
        let (name, tag) = name_of(&descriptor.annotations);
        if let Some(known) =
            self.contents.images.iter_mut().find(|it| it.digest == descriptor.digest)
        {
            known.names.extend(name.filter(|name| !known.names.contains(name)));
            known.tag = known.tag.take().or(tag);
            return bounded(known.names.len());
        }
        let (names, digest) = (Vec::from_iter(name), descriptor.digest);
        let mut image = Image { names, tag, digest, variants: Vec::new(), absent: Vec::new() };
        self.seen = BTreeSet::from([descriptor.digest]);
        self.follow(descriptor, 1, &mut image)?;
        if image.variants.is_empty() {
            return Ok(());
        }
        self.contents.images.push(image);
        bounded(self.contents.images.len())
    }

    /// An index or a manifest, and whatever it names.
    fn follow(
        &mut self,
        descriptor: &Descriptor,
        depth: usize,
        image: &mut Image,
    ) -> Result<(), ArchiveError> {
        let Some(bytes) = self.document(descriptor)? else {
            image.absent.push(descriptor.clone());
            return Ok(());
        };
        let path = path_of(descriptor.digest);
        let wrong = |error| ArchiveError::Document { path: path.clone(), error };
        match Document::read(&bytes, &descriptor.media_type).map_err(wrong)? {
            Document::Index(index) => {
                self.keep(descriptor.digest, bytes);
                self.index(&index, depth, image)
            }
            Document::Manifest(manifest) => {
                let Some(config) = self.document(&manifest.config)? else {
                    image.absent.push(descriptor.clone());
                    return Ok(());
                };
                let Some(layers) = self.layers(&manifest)? else {
                    image.absent.push(descriptor.clone());
                    return Ok(());
                };
                let read = Config::read(&config).and_then(|read| {
                    read.fits(manifest.layers.len())?;
                    Ok(read)
                });
                let config_path = path_of(manifest.config.digest);
                let read =
                    read.map_err(|error| ArchiveError::Document { path: config_path, error })?;
                self.contents.blobs.extend(layers);
                self.keep(manifest.config.digest, config);
                self.keep(descriptor.digest, bytes);
                let platform = descriptor.platform.clone();
                image.variants.push(Variant {
                    platform: platform.unwrap_or_else(|| read.platform.clone()),
                    digest: descriptor.digest,
                    manifest,
                    config: read,
                });
                Ok(())
            }
        }
    }

    fn index(
        &mut self,
        index: &Index,
        depth: usize,
        image: &mut Image,
    ) -> Result<(), ArchiveError> {
        if depth == limits::INDEX_DEPTH_MAX {
            return Err(ArchiveError::TooDeep);
        }
        for inner in index.manifests.iter().filter(|it| it.is_image()) {
            if self.seen.insert(inner.digest) {
                self.follow(inner, depth + 1, image)?;
            }
        }
        Ok(())
    }

    /// The bytes of a document, which are what they are called.
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, ArchiveError> {
        let path = path_of(descriptor.digest);
        let Some(bytes) = self.files.document(&path)? else {
            self.missing.get_or_insert(path);
            return Ok(None);
        };
        let (got, expected) = (bytes.len() as u64, descriptor.size);
        self.json_bytes += got;
        if self.json_bytes > limits::ARCHIVE_JSON_BYTES_MAX {
            return Err(ArchiveError::TooMuchJson);
        }
        if got != expected {
            return Err(ArchiveError::Size { path, got, expected });
        }
        match Digest::of(&bytes) {
            got if got == descriptor.digest => Ok(Some(bytes)),
            got => Err(ArchiveError::Digest { path, got }),
        }
    }

    /// The layers of a manifest, if all of them are there.
    fn layers(&mut self, manifest: &Manifest) -> Result<Option<Vec<(Digest, Blob)>>, ArchiveError> {
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let path = path_of(layer.digest);
            let Some(blob) = self.files.file(&path)? else {
                self.missing.get_or_insert(path);
                return Ok(None);
            };
            if blob.size != layer.size {
                let (got, expected) = (blob.size, layer.size);
                return Err(ArchiveError::Size { path, got, expected });
            }
            layers.push((layer.digest, blob));
        }
        Ok(Some(layers))
    }

    fn keep(&mut self, digest: Digest, bytes: Vec<u8>) {
        let blob = Blob { size: bytes.len() as u64, source: Source::Bytes(bytes) };
        self.contents.blobs.insert(digest, blob);
    }
}

/// Whether there are as many images, or names of one.
pub(crate) fn bounded(count: usize) -> Result<(), ArchiveError> {
    if count > limits::ARCHIVE_IMAGES_MAX { Err(ArchiveError::TooManyImages) } else { Ok(()) }
}

/// Name and tag of an image, as far as annotations tell them. What tools write there is up to them: what is no name is none.
fn name_of(annotations: &BTreeMap<String, String>) -> (Option<Reference>, Option<String>) {
    let value = |key: &str| annotations.get(key).map(String::as_str);
    let whole = value(NAME).or_else(|| value(REFERENCE_NAME).filter(|it| it.contains([':', '/'])));
    let tag = value(REFERENCE_NAME).filter(|text| is_tag(text)).map(str::to_owned);
    (whole.and_then(|text| text.parse().ok()), tag)
}
