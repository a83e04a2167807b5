//! What people call an image: `redis:7`, `ghcr.io/owner/app@sha256:…`, `fabric/app:1`.
//!
//! ```text
//! [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
//! ```
//!
//! The rules are Docker's (`distribution/reference`): the first part is a registry if it has a dot, a colon or an upper case
//! letter in it, or is `localhost`. One registry is added: `fabric`, for images that were pushed into the fabric itself. Who names
//! no registry means an image of the fabric if there is one, and otherwise one of the [`DefaultRegistry`] of the settings:
//! which of them is for the caller to find out, so a [`Reference`] says [`Registry::Unnamed`].

use crate::digest::{Digest, DigestError};
use crate::limits;
use std::fmt;
use std::str::FromStr;

/// The registry of images that were pushed into the fabric, as it is written.
pub const FABRIC: &str = "fabric";
/// The tag of a reference that has neither tag nor digest.
pub const LATEST: &str = "latest";
/// Docker Hub, under the name that references have; its old name; and where its official images are.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ONCE: &str = "index.docker.io";
const OFFICIAL: &str = "library";
/// Characters of a reference that an error repeats.
const SHOWN_CHARACTERS: usize = 80;

/// A name of an image. Its repository is lower case and never begins with what would be a registry, so that it reads back
/// as it was: the text of a reference is that reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: Registry,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Registry {
    /// The reference does not say.
    Unnamed,
    /// It was pushed into the fabric.
    Fabric,
    /// A host name or address, perhaps with a port.
    Host(String),
}

/// Where images are whose reference names no registry: a setting, such as `docker.io`, `registry.lan:5000` or
/// `registry.lan/mirror`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRegistry {
    host: String,
    /// What is put before the repository.
    prefix: Option<String>,
}

/// Why a text is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image '{text}': {problem}")]
pub struct ReferenceError {
    /// The text, cut where it is too long.
    pub text: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing was written.
    #[error("it is empty: write a name such as app:1 or registry.example/app:1")]
    Empty,
    /// Of all.
    #[error("it has {0} bytes, and {max} are allowed", max = limits::REFERENCE_BYTES_MAX)]
    TooLong(usize),
    /// Of registry and repository.
    #[error("registry and repository have {0} bytes together, and {max} are allowed", max = limits::NAME_BYTES_MAX)]
    NameTooLong(usize),
    /// It was pasted from a browser.
    #[error("write it without {0}")]
    Scheme(&'static str),
    /// Not a host, an address or a port.
    #[error("{0:?} is no registry: write a host name or an address, with :PORT where it needs one")]
    Registry(String),
    /// Nothing follows the registry.
    #[error("there is no repository after '{0}/'")]
    NoRepository(String),
    /// As people write names.
    #[error("repositories are in lower case: write {0}")]
    UpperCase(String),
    /// Between two slashes.
    #[error(
        "{0:?} is no part of a repository: write a-z and 0-9, with one of . _ __ - between them"
    )]
    Component(String),
    /// Docker takes those for the number of an image.
    #[error("64 hexadecimal digits are no name: write @sha256:DIGITS after a name")]
    Digits,
    /// What follows a colon.
    #[error(
        "{0:?} is no tag: write up to 128 of letters, digits, _ . and -, the first no . and no -"
    )]
    Tag(String),
    /// What follows an @.
    #[error("the digest after @: {0}")]
    Digest(DigestError),
}

impl Reference {
    /// An image in the fabric itself.
    ///
    /// # Errors
    /// When `name` is not `REPOSITORY[:TAG]`, or names another registry.
    pub fn of_fabric(name: &str) -> Result<Self, ReferenceError> {
        let reference: Self = name.parse()?;
        match &reference.registry {
            Registry::Host(host) => Err(error(name, Problem::Registry(host.clone()))),
            Registry::Fabric | Registry::Unnamed => {
                Ok(Self { registry: Registry::Fabric, ..reference })
            }
        }
    }

    /// Where it is to be found.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Its name there, without tag or digest: `library/redis`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one is written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is written: of an index or of a manifest. It wins over the tag.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What is asked of a registry: the digest, or the tag, or `latest`.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => LATEST.to_owned(),
        }
    }

    /// Whether other bytes may have its name tomorrow, as a matter of habit: it has no digest, and no tag or `latest`.
    pub fn moves(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref().is_none_or(|tag| tag == LATEST)
    }

    /// The same name in the fabric, if it names no registry or this one.
    pub fn in_fabric(&self) -> Option<Self> {
        let may = !matches!(self.registry, Registry::Host(_));
        may.then(|| Self { registry: Registry::Fabric, ..self.clone() })
    }

    /// The same with a registry: `default`'s, if it names none.
    pub fn or_at(&self, default: &DefaultRegistry) -> Self {
        if self.registry != Registry::Unnamed {
            return self.clone();
        }
        let repository = match &default.prefix {
            Some(prefix) => format!("{prefix}/{}", self.repository),
            None => official(&default.host, &self.repository),
        };
        Self { registry: Registry::Host(default.host.clone()), repository, ..self.clone() }
    }

    /// The same bytes for ever.
    pub fn at(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|problem| error(text, problem))
    }
}

impl FromStr for DefaultRegistry {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (host, prefix) = match text.split_once('/') {
            Some((host, prefix)) => (host, Some(prefix)),
            None => (text, None),
        };
        let problem = match (text.is_empty(), prefix.map(check_repository)) {
            (true, _) => Problem::Empty,
            _ if !is_registry(host) || !says_registry(host) => Problem::Registry(host.to_owned()),
            (_, Some(Err(problem))) => problem,
            _ => {
                let (host, prefix) = (hub(host).to_owned(), prefix.map(str::to_owned));
                return Ok(Self { host, prefix });
            }
        };
        Err(error(text, problem))
    }
}

impl fmt::Display for DefaultRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.prefix.as_ref().map_or(Ok(()), |prefix| write!(f, "/{prefix}"))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.registry {
            Registry::Unnamed => {}
            Registry::Fabric => write!(f, "{FABRIC}/")?,
            Registry::Host(host) => write!(f, "{host}/")?,
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

fn error(text: &str, problem: Problem) -> ReferenceError {
    let shown = text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARACTERS);
    ReferenceError { text: shown.collect(), problem }
}

fn parse(text: &str) -> Result<Reference, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.len() > limits::REFERENCE_BYTES_MAX {
        return Err(Problem::TooLong(text.len()));
    }
    for scheme in ["https://", "http://", "docker://", "oci://"] {
        if text.starts_with(scheme) {
            return Err(Problem::Scheme(scheme));
        }
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(Problem::Digest)?)),
        None => (text, None),
    };
    // A colon before the last slash is that of a port.
    let after = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[after..].split_once(':') {
        Some((last, tag)) => (&rest[..after + last.len()], Some(tag)),
        None => (rest, None),
    };
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(Problem::Tag(tag.to_owned()));
    }
    let (registry, repository) = split(name)?;
    check_repository(&repository)?;
    if registry == Registry::Unnamed && Digest::from_digits(&repository).is_ok() {
        return Err(Problem::Digits);
    }
    let host = if let Registry::Host(host) = &registry { host.len() + 1 } else { 0 };
    if host + repository.len() > limits::NAME_BYTES_MAX {
        return Err(Problem::NameTooLong(host + repository.len()));
    }
    Ok(Reference { registry, repository, tag: tag.map(str::to_owned), digest })
}

/// The registry of a name and what follows it.
fn split(name: &str) -> Result<(Registry, String), Problem> {
    let Some((first, rest)) = name.split_once('/') else {
        return Ok((Registry::Unnamed, name.to_owned()));
    };
    if first == FABRIC || says_registry(first) {
        if rest.is_empty() {
            return Err(Problem::NoRepository(first.to_owned()));
        }
        if first == FABRIC {
            // What would be a registry there would read back as something else.
            return match split(rest)? {
                (Registry::Unnamed, repository) => Ok((Registry::Fabric, repository)),
                _ => Err(Problem::Component(rest.split('/').next().unwrap_or(rest).to_owned())),
            };
        }
        if !is_registry(first) {
            return Err(Problem::Registry(first.to_owned()));
        }
        let host = hub(first);
        return Ok((Registry::Host(host.to_owned()), official(host, rest)));
    }
    Ok((Registry::Unnamed, name.to_owned()))
}

/// Whether the first part of a name is a registry, and not the first folder of a repository.
fn says_registry(first: &str) -> bool {
    let is_upper = |byte: u8| byte.is_ascii_uppercase();
    first.contains(['.', ':', '[']) || first == "localhost" || first.bytes().any(is_upper)
}

fn hub(host: &str) -> &str {
    if host == DOCKER_HUB_ONCE { DOCKER_HUB } else { host }
}

/// A repository as the registry has it: Docker Hub's official images have a folder that nobody writes.
fn official(host: &str, repository: &str) -> String {
    let short = host == DOCKER_HUB && !repository.contains('/');
    if short { format!("{OFFICIAL}/{repository}") } else { repository.to_owned() }
}

fn check_repository(repository: &str) -> Result<(), Problem> {
    match repository.split('/').find(|component| !is_component(component)) {
        None => Ok(()),
        Some(component) if is_component(&component.to_ascii_lowercase()) => {
            Err(Problem::UpperCase(repository.to_ascii_lowercase()))
        }
        Some(component) => Err(Problem::Component(component.to_owned())),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_separator =
        |run: &[u8]| matches!(run, b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-');
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| is_plain(*first) && is_plain(*last))
        && bytes.split(|byte| is_plain(*byte)).filter(|run| !run.is_empty()).all(is_separator)
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
pub(crate) fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= limits::TAG_BYTES_MAX
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

/// A host name, or an IPv6 address in brackets, and perhaps a port.
fn is_registry(text: &str) -> bool {
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|it| it > 0)
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty()
            && label.chars().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests;
