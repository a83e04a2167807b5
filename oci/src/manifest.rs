//! Documents of an image: an index names a manifest for each platform, a manifest names a configuration and layers.
//!
//! ```text
//! index ──► manifest (one for each platform) ──► configuration     what is run, and the diffID of each layer
//!                                           └──► layers            in order, the lowest one first
//! ```
//!
//! Those of OCI (image specification 1.1) and of Docker (schema 2) are the same but for their media types. All of them are named by the
//! digest of their bytes, so they are kept as bytes and read when they are needed. What is read here has been checked: digests
//! are digests, sizes are within [`limits`], and an error says in which place of the document something is wrong.

mod config;
mod platform;

pub use config::{Check, Config, ExposedPort, Healthcheck, History, Launch, Protocol, Signal};
pub use platform::{Machine, NoPlatform, Platform, choose};

use crate::digest::Digest;
use crate::limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Media types of indexes and manifests: what is asked of a registry. Without all four, some of them answer 404.
pub const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// OCI's, which is also what we write.
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
/// A layer that is not compressed: which compression there is is seen in its bytes.
pub const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_TYPES: [&str; 6] = [
    LAYER_TYPE,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];
/// Annotation of an entry that is no image but speaks of one, as `docker buildx` writes them.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The same, in an entry's platform.
const UNKNOWN: &str = "unknown";
/// Characters of a value that an error repeats.
const SHOWN_CHARACTERS: usize = 80;

/// Where the bytes of something are to be had: its digest and size are what has to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Of its bytes.
    pub digest: Digest,
    /// Its number of bytes.
    pub size: u64,
    /// What it runs on: of entries of an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else is said of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Whether it is a manifest or an index of an image that could run, and not a statement about one.
    pub fn is_image(&self) -> bool {
        let unknown = self.platform.as_ref().is_some_and(|it| it.os == UNKNOWN);
        ACCEPTED.contains(&self.media_type.as_str())
            && !unknown
            && !self.annotations.contains_key(REFERENCE_TYPE)
    }

    /// Whether it is an index.
    pub fn is_index(&self) -> bool {
        ACCEPTED[..2].contains(&self.media_type.as_str())
    }
}

/// One image for several platforms, or the images of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Manifests, and perhaps other indexes, in order.
    pub manifests: Vec<Descriptor>,
}

/// One image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    media_type: String,
    /// What is run, and the layers when they are decompressed.
    pub config: Descriptor,
    /// As they travel, the lowest one first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// One of OCI's.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: ACCEPTED[2].to_owned(), config, layers }
    }

    /// Bytes of configuration and layers as they travel.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().fold(self.config.size, |sum, layer| sum.saturating_add(layer.size))
    }

    /// The document.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What a registry answers, or a layout names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// To choose from.
    Index(Index),
    /// An image.
    Manifest(Manifest),
}

/// Why a document of an image cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Before it was read.
    #[error("it has {bytes} bytes, and {max} are allowed")]
    TooLarge {
        /// As many as it has.
        bytes: u64,
        /// As many as it may have.
        max: u64,
    },
    /// Not JSON, or another type in some place; says the line and column.
    #[error("{0}")]
    Json(String),
    /// A value that cannot be.
    #[error("{place}: {problem}")]
    Value {
        /// Such as `layers[3].digest`.
        place: String,
        /// What is wrong there.
        problem: String,
    },
}

impl ManifestError {
    fn at(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Value { place: place.into(), problem: problem.into() }
    }
}

/// As it stands in the document.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    /// Of Docker's schema 1.
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: Option<String>,
    size: Option<i128>,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Document {
    /// Reads an index or a manifest. `media_type` is what a registry said of it, or whoever named it; an empty one says nothing.
    ///
    /// # Errors
    /// When it is neither, both, something of Docker's first schema, an artifact that is no image, or outside of the limits.
    pub fn read(bytes: &[u8], media_type: &str) -> Result<Self, ManifestError> {
        let raw: RawDocument = json(bytes, limits::MANIFEST_BYTES_MAX)?;
        if raw.fs_layers.is_some() || raw.schema_version == Some(1) {
            let problem = "is 1: such images are from before 2017, pull and push them once with Docker 20 or skopeo";
            return Err(ManifestError::at("schemaVersion", problem));
        }
        if let Some(version) = raw.schema_version.filter(|version| *version != 2) {
            return Err(ManifestError::at("schemaVersion", format!("is {version}, and not 2")));
        }
        // Whoever hands out two meanings of one document would have us run another image than was looked at.
        let said = raw.media_type.as_deref().unwrap_or_default();
        let outer = media_type.split(';').next().unwrap_or_default().trim();
        let outer = if ACCEPTED.contains(&outer) { outer } else { "" };
        if !said.is_empty() && !outer.is_empty() && said != outer {
            let problem = format!("is {}, and it was announced as {outer}", shown(said));
            return Err(ManifestError::at("mediaType", problem));
        }
        if !said.is_empty() && !ACCEPTED.contains(&said) {
            let problem = format!("{} is no index and no manifest of an image", shown(said));
            return Err(ManifestError::at("mediaType", problem));
        }
        let known = if said.is_empty() { outer } else { said };
        let is_index = match (&raw.manifests, &raw.layers, &raw.config) {
            (Some(_), None, None) => true,
            (None, _, Some(_)) => false,
            (Some(_), _, _) => {
                return Err(ManifestError::at("manifests", "stands beside layers or config"));
            }
            (None, _, None) => {
                let problem = "it has neither manifests, as an index, nor config, as a manifest";
                return Err(ManifestError::Json(problem.into()));
            }
        };
        if !known.is_empty() && ACCEPTED[..2].contains(&known) != is_index {
            let problem = format!("is {known}, and what follows is something else");
            return Err(ManifestError::at("mediaType", problem));
        }
        let known = known.to_owned();
        if is_index {
            index(raw).map(Self::Index)
        } else {
            manifest(raw, known).map(Self::Manifest)
        }
    }
}

fn index(raw: RawDocument) -> Result<Index, ManifestError> {
    let manifests = raw.manifests.unwrap_or_default();
    bounded("manifests", manifests.len(), limits::INDEX_MANIFESTS_MAX)?;
    let manifests = manifests.into_iter().enumerate().map(|(at, raw)| {
        let place = format!("manifests[{at}]");
        let descriptor = descriptor(&place, raw)?;
        if descriptor.is_image() {
            sized(&place, &descriptor, limits::MANIFEST_BYTES_MAX)?;
        }
        Ok(descriptor)
    });
    Ok(Index { manifests: manifests.collect::<Result<_, _>>()? })
}

fn manifest(raw: RawDocument, media_type: String) -> Result<Manifest, ManifestError> {
    let missing = || ManifestError::at("config", "is missing");
    let config = descriptor("config", raw.config.ok_or_else(missing)?)?;
    if ![CONFIG_TYPE, DOCKER_CONFIG_TYPE].contains(&config.media_type.as_str()) {
        let problem = format!(
            "{} is no configuration of an image: this is something else in a registry",
            shown(&config.media_type)
        );
        return Err(ManifestError::at("config.mediaType", problem));
    }
    sized("config", &config, limits::CONFIG_BYTES_MAX)?;
    let layers = raw.layers.unwrap_or_default();
    bounded("layers", layers.len(), limits::LAYERS_MAX)?;
    let layers = layers.into_iter().enumerate().map(|(at, raw)| {
        let place = format!("layers[{at}]");
        let layer = descriptor(&place, raw)?;
        if layer.media_type.contains("nondistributable") || layer.media_type.contains("foreign") {
            let problem = "may not be handed on by registries, as layers of Windows: such images do not run here";
            return Err(ManifestError::at(format!("{place}.mediaType"), problem));
        }
        if !LAYER_TYPES.contains(&layer.media_type.as_str()) {
            let problem =
                format!("{} is no layer: plain, gzip and zstd are", shown(&layer.media_type));
            return Err(ManifestError::at(format!("{place}.mediaType"), problem));
        }
        sized(&place, &layer, limits::LAYER_BYTES_MAX)?;
        Ok(layer)
    });
    let layers = layers.collect::<Result<_, _>>()?;
    let media_type = if media_type.is_empty() { ACCEPTED[2].to_owned() } else { media_type };
    Ok(Manifest { schema_version: 2, media_type, config, layers })
}

fn descriptor(place: &str, raw: RawDescriptor) -> Result<Descriptor, ManifestError> {
    let missing = |name: &str| ManifestError::at(format!("{place}.{name}"), "is missing");
    let digest = raw.digest.ok_or_else(|| missing("digest"))?;
    let digest = digest.parse().map_err(|error| {
        ManifestError::at(format!("{place}.digest"), format!("{}: {error}", shown(&digest)))
    })?;
    let size = raw.size.ok_or_else(|| missing("size"))?;
    let size = u64::try_from(size)
        .map_err(|_| ManifestError::at(format!("{place}.size"), format!("{size} is no size")))?;
    Ok(Descriptor {
        media_type: raw.media_type.ok_or_else(|| missing("mediaType"))?,
        digest,
        size,
        platform: raw.platform.map(Platform::normal),
        annotations: raw.annotations.unwrap_or_default(),
    })
}

/// Reads JSON within `max` bytes. An error says where it is wrong.
fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8], max: u64) -> Result<T, ManifestError> {
    if bytes.len() as u64 > max {
        return Err(ManifestError::TooLarge { bytes: bytes.len() as u64, max });
    }
    // serde would take a list of values for a struct, which nobody else reads so.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(ManifestError::Json("it is a list, and not an object".into()));
    }
    serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(error.to_string()))
}

fn bounded(place: &str, count: usize, max: usize) -> Result<(), ManifestError> {
    if count <= max {
        return Ok(());
    }
    Err(ManifestError::at(place, format!("are {count}, and {max} are allowed")))
}

fn sized(place: &str, descriptor: &Descriptor, max: u64) -> Result<(), ManifestError> {
    if descriptor.size <= max {
        return Ok(());
    }
    let problem = format!("is {} bytes, and {max} are allowed", descriptor.size);
    Err(ManifestError::at(format!("{place}.size"), problem))
}

/// A value of a document as an error repeats it.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARACTERS).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests;
