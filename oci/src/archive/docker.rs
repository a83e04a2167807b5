//! Docker's own form: `manifest.json` names the configuration and the layers of each image by their paths.

use super::Passed;
use crate::contents::{ArchiveError, Blob, Contents, Image, Source, Variant, bounded, digest_of};
use crate::digest::Digest;
use crate::layer::Compression;
use crate::limits;
use crate::manifest::{CONFIG_TYPE, Config, Descriptor, LAYER_TYPE, Manifest, ManifestError};
use serde::Deserialize;
use std::collections::BTreeMap;

const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

pub(super) fn read(passed: &Passed) -> Result<Contents, ArchiveError> {
    let bytes = passed.documents.get(MANIFEST).ok_or(ArchiveError::NoImage)?;
    let saved: Vec<Saved> = serde_json::from_slice(bytes)
        .map_err(|error| wrong(MANIFEST, ManifestError::Json(error.to_string())))?;
    bounded(saved.len())?;
    let mut contents = Contents::default();
    for (at, saved) in saved.into_iter().enumerate() {
        let image = image(at, saved, passed, &mut contents.blobs)?;
        match contents.images.iter_mut().find(|it| it.digest == image.digest) {
            Some(known) => {
                let new = image.names.into_iter().filter(|it| !known.names.contains(it));
                let new: Vec<_> = new.collect();
                known.names.extend(new);
            }
            None => contents.images.push(image),
        }
    }
    if contents.images.is_empty() { Err(ArchiveError::Empty) } else { Ok(contents) }
}

fn wrong(path: &str, error: ManifestError) -> ArchiveError {
    ArchiveError::Document { path: path.to_owned(), error }
}

fn image(
    at: usize,
    saved: Saved,
    passed: &Passed,
    blobs: &mut BTreeMap<Digest, Blob>,
) -> Result<Image, ArchiveError> {
    let names = saved.repo_tags.unwrap_or_default();
    let paths = saved.layers.unwrap_or_default();
    bounded(names.len())?;
    if paths.len() > limits::LAYERS_MAX {
        let problem = format!("are {}, and {} are allowed", paths.len(), limits::LAYERS_MAX);
        let place = format!("[{at}].Layers");
        return Err(wrong(MANIFEST, ManifestError::Value { place, problem }));
    }
    let names = names.iter().map(|name| {
        let path = format!("{MANIFEST}: [{at}].RepoTags");
        name.parse().map_err(|error| ArchiveError::Name { path, error })
    });
    let names = names.collect::<Result<_, _>>()?;
    let (config_bytes, config) = configuration(&saved.config, passed)?;
    config.fits(paths.len()).map_err(|error| wrong(&saved.config, error))?;
    let mut layers = Vec::new();
    for (path, diff_id) in paths.iter().zip(&config.diff_ids) {
        let (layer, blob) = layer(path, *diff_id, passed)?;
        blobs.insert(layer.digest, blob);
        layers.push(layer);
    }
    let manifest = Manifest::new(described(CONFIG_TYPE, &config_bytes), layers);
    let bytes = manifest.to_json();
    let digest = Digest::of(&bytes);
    for document in [config_bytes, bytes] {
        let (key, size) = (Digest::of(&document), document.len() as u64);
        blobs.insert(key, Blob { size, source: Source::Bytes(document) });
    }
    let platform = config.platform.clone();
    let variants = vec![Variant { platform, digest, manifest, config }];
    Ok(Image { names, tag: None, digest, variants, absent: Vec::new() })
}

/// A configuration. Most tools call it by its digest, one way or the other.
fn configuration(path: &str, passed: &Passed) -> Result<(Vec<u8>, Config), ArchiveError> {
    let found = super::path(path.as_bytes(), &[])?;
    let found = passed.resolved(&found);
    let missing = || ArchiveError::Missing(path.to_owned());
    let bytes = passed.documents.get(found).ok_or_else(missing)?;
    let name = path.strip_suffix(".json").unwrap_or(path);
    let named = name.parse().or_else(|_| Digest::from_digits(name)).ok();
    let got = Digest::of(bytes);
    if named.or(digest_of(path)).is_some_and(|named| named != got) {
        return Err(ArchiveError::Digest { path: path.to_owned(), got });
    }
    let config = Config::read(bytes).map_err(|error| wrong(path, error))?;
    Ok((bytes.clone(), config))
}

fn layer(path: &str, diff_id: Digest, passed: &Passed) -> Result<(Descriptor, Blob), ArchiveError> {
    let found = super::path(path.as_bytes(), &[])?;
    let found = passed.resolved(&found);
    let missing = || ArchiveError::Missing(path.to_owned());
    let stored = passed.stored.get(found).ok_or_else(missing)?;
    if stored.compression == Compression::Plain && stored.digest != diff_id {
        return Err(ArchiveError::Digest { path: path.to_owned(), got: stored.digest });
    }
    let suffix = match stored.compression {
        Compression::Plain => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    let descriptor = Descriptor {
        media_type: format!("{LAYER_TYPE}{suffix}"),
        digest: stored.digest,
        size: stored.size,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let source = Source::File { path: found.to_owned(), offset: stored.offset };
    Ok((descriptor, Blob { size: stored.size, source }))
}

fn described(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    }
}
