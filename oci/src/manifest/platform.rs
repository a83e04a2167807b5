//! Platforms: what an image is made for, what a machine runs, and which image of an index that is.
//!
//! Names are those of Go, as registries have them: `linux/amd64`, `linux/arm/v7`. A variant is a level of an architecture: a machine
//! runs everything up to its own, and takes the best.

use serde::{Deserialize, Serialize};
use std::fmt;

use super::{Descriptor, Index};

const LINUX: &str = "linux";

/// Variants from the least to the best, which a machine of the last one runs all of. What has no variant is the first;
/// but `arm` has always meant v7, and `arm64` v8.
const VARIANTS: &[(&str, &[&str], &str)] = &[
    ("arm", &["v5", "v6", "v7"], "v7"),
    (
        "arm64",
        &[
            "v8", "v8.1", "v8.2", "v8.3", "v8.4", "v8.5", "v8.6", "v8.7", "v8.8", "v8.9", "v9",
            "v9.1", "v9.2", "v9.3", "v9.4", "v9.5",
        ],
        "v8",
    ),
    ("amd64", &["v1", "v2", "v3", "v4"], "v1"),
];

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `v7`; empty: whatever is usual.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// With the names that are usual for it.
    pub(super) fn normal(self) -> Self {
        let lower = |text: String| text.to_ascii_lowercase();
        let (os, variant) = (lower(self.os), lower(self.variant));
        let (architecture, variant) = match (lower(self.architecture).as_str(), variant.as_str()) {
            ("x86_64" | "x86-64", variant) => ("amd64".to_owned(), variant.to_owned()),
            ("aarch64", variant) => ("arm64".to_owned(), variant.to_owned()),
            ("armhf", _) => ("arm".to_owned(), "v7".to_owned()),
            ("armel", _) => ("arm".to_owned(), "v6".to_owned()),
            ("i386", variant) => ("386".to_owned(), variant.to_owned()),
            (other, variant) => (other.to_owned(), variant.to_owned()),
        };
        let is_digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let variant = if is_digit(&variant) { format!("v{variant}") } else { variant };
        let variant = if usual(&architecture) == variant { String::new() } else { variant };
        Self { os, architecture, variant }
    }

    /// How good it is for a machine: more is better; `None`: that machine does not run it.
    fn rank(&self, machine: &Machine) -> Option<usize> {
        let (own, other) = (&machine.platform, self);
        if own.os != other.os || own.architecture != other.architecture {
            return None;
        }
        let Some((_, variants, usual)) = VARIANTS.iter().find(|it| it.0 == own.architecture) else {
            return (other.variant.is_empty() || other.variant == own.variant).then_some(0);
        };
        let level = |variant: &str| {
            let variant = if variant.is_empty() { usual } else { variant };
            variants.iter().position(|it| *it == variant)
        };
        let (own, other) = (level(&own.variant)?, level(&other.variant)?);
        (other <= own).then_some(other)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// The variant that nobody writes.
fn usual(architecture: &str) -> &'static str {
    VARIANTS.iter().find(|it| it.0 == architecture).map_or("", |it| it.2)
}

/// What runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    platform: Platform,
}

impl Machine {
    /// A machine with Linux. The architecture may be the kernel's name for it (`x86_64`, `aarch64`, `armv7l`) or Go's; `variant`
    /// is the best that it runs, such as `v3` of amd64; empty: the usual one.
    pub fn linux(architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = match (architecture, variant) {
            ("armv5tel" | "armv5tejl", "") => ("arm", "v5"),
            ("armv6l", "") => ("arm", "v6"),
            ("armv7l" | "armv8l", "") => ("arm", "v7"),
            ("i686" | "i586", variant) => ("386", variant),
            (other, variant) => (other, variant),
        };
        let platform = Platform {
            os: LINUX.into(),
            architecture: architecture.into(),
            variant: variant.into(),
        };
        Self { platform: platform.normal() }
    }

    /// What it runs at best.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Whether it runs images of this platform.
    pub fn runs(&self, platform: &Platform) -> bool {
        platform.rank(self).is_some()
    }
}

/// An index has nothing that a machine runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has no image for {machine}{}", if offered.is_empty() { String::new() } else { format!(", only for {offered}") })]
pub struct NoPlatform {
    /// What would have been right.
    pub machine: Platform,
    /// What there is, separated by commas.
    pub offered: String,
}

/// The best manifest of an index for a machine: of its architecture, with the highest variant that it runs; the first of
/// equals, as the specification has it. An entry that does not say what it is for is taken when it is the only image: its configuration
/// says it.
///
/// # Errors
/// When there is none.
pub fn choose<'i>(index: &'i Index, machine: &Machine) -> Result<&'i Descriptor, NoPlatform> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|it| it.is_image()).collect();
    if let [only] = images[..]
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let mut best: Option<(usize, &Descriptor)> = None;
    for image in &images {
        let rank = image.platform.as_ref().and_then(|platform| platform.rank(machine));
        if let Some(rank) = rank.filter(|rank| best.is_none_or(|(other, _)| *rank > other)) {
            best = Some((rank, image));
        }
    }
    best.map(|(_, image)| image).ok_or_else(|| {
        let offered = images.iter().filter_map(|image| image.platform.as_ref());
        let offered: Vec<String> = offered.take(16).map(Platform::to_string).collect();
        NoPlatform { machine: machine.platform.clone(), offered: offered.join(", ") }
    })
}

#[cfg(test)]
mod tests;
