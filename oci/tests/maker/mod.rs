//! Makes layers and images, right ones and wrong ones: tar by hand, so that it says whatever a test wants.

#![allow(dead_code, reason = "each test uses a part of it")]

use oci::digest::Digest;
use oci::layer::Expected;
use oci::manifest::{CONFIG_TYPE, Descriptor, LAYER_TYPE, Manifest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// When whatever says nothing else was changed.
pub const TIME: u64 = 1_700_000_000;

/// A tar archive.
#[derive(Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
    uid: u64,
    gid: u64,
    mode: Option<u32>,
    /// Records of pax for the next entry.
    records: Vec<u8>,
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    /// Of all entries that follow.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Of the next entry.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// A record of pax for the next entry.
    pub fn record(mut self, key: &str, value: &[u8]) -> Self {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length += 1;
        }
        self.records.extend(format!("{length} {key}=").bytes());
        self.records.extend(value);
        self.records.push(b'\n');
        self
    }

    pub fn xattr(self, name: &str, value: &[u8]) -> Self {
        self.record(&format!("SCHILY.xattr.{name}"), value)
    }

    pub fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(b'0', path, "", data, 0o644)
    }

    pub fn folder(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"", 0o755)
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"", 0o777)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"", 0o644)
    }

    /// A character device: `/dev/mem`.
    pub fn device(self, path: &str) -> Self {
        self.entry(b'3', path, "", b"", 0o666)
    }

    pub fn fifo(self, path: &str) -> Self {
        self.entry(b'6', path, "", b"", 0o622)
    }

    /// An entry of any type. What does not fit the header goes before it, as GNU tar writes it.
    pub fn entry(mut self, kind: u8, path: &str, link: &str, data: &[u8], mode: u32) -> Self {
        let records = std::mem::take(&mut self.records);
        if !records.is_empty() {
            self.raw(b'x', "pax", "", &records, 0o644);
        }
        for (long, text) in [(b'L', path), (b'K', link)] {
            if text.len() > 100 {
                self.raw(long, "././@LongLink", "", format!("{text}\0").as_bytes(), 0o644);
            }
        }
        let mode = self.mode.take().unwrap_or(mode);
        let cut = |text: &str| text.bytes().take(100).collect::<Vec<u8>>();
        let (path, link) = (cut(path), cut(link));
        self.raw(
            kind,
            &String::from_utf8_lossy(&path),
            &String::from_utf8_lossy(&link),
            data,
            mode,
        );
        self
    }

    fn raw(&mut self, kind: u8, path: &str, link: &str, data: &[u8], mode: u32) {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        old.linkflag[0] = kind;
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_mtime(TIME);
        header.set_device_major(1).expect("of this format");
        header.set_device_minor(1).expect("of this format");
        header.set_cksum();
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// With the two blocks of zeros at its end.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("to memory");
    encoder.finish().expect("to memory")
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("to memory")
}

/// What a blob has to be that becomes `layer`.
pub fn expected(blob: &[u8], layer: &[u8]) -> Expected {
    Expected { digest: Digest::of(blob), size: blob.len() as u64, diff_id: Digest::of(layer) }
}

/// An image of one platform: blobs by their digests.
pub struct Image {
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    /// As they travel, and when they are decompressed.
    pub layers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Image {
    pub fn new(architecture: &str, layers: &[Vec<u8>], compress: fn(&[u8]) -> Vec<u8>) -> Self {
        let layers: Vec<_> = layers.iter().map(|layer| (compress(layer), layer.clone())).collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, layer)| Digest::of(layer)).collect();
        let config = json!({
            "os": "linux", "architecture": architecture,
            "config": { "Cmd": ["sh"], "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let described = layers.iter().map(|(blob, _)| descriptor(LAYER_TYPE, blob));
        let manifest = Manifest::new(descriptor(CONFIG_TYPE, &config), described.collect());
        Self { config, manifest: manifest.to_json(), layers }
    }

    pub fn blobs(&self) -> BTreeMap<Digest, Vec<u8>> {
        let documents = [&self.config, &self.manifest].map(Vec::clone);
        let blobs = self.layers.iter().map(|(blob, _)| blob.clone()).chain(documents);
        blobs.map(|blob| (Digest::of(&blob), blob)).collect()
    }

    /// Of an index.
    pub fn entry(&self, architecture: &str) -> Value {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&self.manifest), "size": self.manifest.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    }

    /// `docker save` before version 25, with a link for each layer that it has a second time.
    pub fn saved_by_docker(&self, name: Option<&str>) -> Vec<u8> {
        let mut tar = Tar::new();
        let mut layers = Vec::new();
        let mut known: BTreeMap<&[u8], String> = BTreeMap::new();
        for (at, (_, layer)) in self.layers.iter().enumerate() {
            let folder = Digest::of(format!("{at}").as_bytes()).digits();
            let path = format!("{folder}/layer.tar");
            tar = tar.folder(&format!("{folder}/")).file(&format!("{folder}/VERSION"), b"1.0");
            tar = match known.get(layer.as_slice()) {
                Some(other) => tar.symlink(&path, &format!("../{other}")),
                None => tar.file(&path, layer),
            };
            known.entry(layer).or_insert(path.clone());
            layers.push(path);
        }
        let config = format!("{}.json", Digest::of(&self.config).digits());
        let names: Option<Vec<&str>> = name.map(|name| vec![name]);
        let manifest = json!([{ "Config": config, "RepoTags": names, "Layers": layers }]);
        tar.file(&config, &self.config)
            .file("manifest.json", manifest.to_string().as_bytes())
            .file("repositories", b"{}")
            .end()
    }
}

pub fn descriptor(media_type: &str, blob: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(blob),
        size: blob.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

/// The files of an OCI layout, by their paths.
pub fn layout(index: &Value, blobs: &BTreeMap<Digest, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let blobs = blobs.iter();
    let blobs =
        blobs.map(|(digest, blob)| (format!("blobs/sha256/{}", digest.digits()), blob.clone()));
    let others = [
        ("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec()),
        ("index.json".to_owned(), index.to_string().into_bytes()),
    ];
    blobs.chain(others).collect()
}

pub fn write_layout(folder: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (path, bytes) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }
}

pub fn archive(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let files = files.iter();
    files.fold(Tar::new().folder("blobs/"), |tar, (path, bytes)| tar.file(path, bytes)).end()
}
