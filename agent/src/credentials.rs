//! What a machine is given from outside for its first start: systemd's credentials (systemd.exec(5),
//! "CREDENTIALS").
//!
//! | credential | what |
//! |---|---|
//! | `weft.token` | a join token, as `weft join` takes it |
//! | `weft.labels` | lines `name=value`, added to the labels of the configuration, which go first |
//! | `ssh.authorized_keys.root` | who may use an image's remote shell, which takes it itself: only looked at |
//!
//! Nothing in them keeps the agent from starting: what cannot be used is left out, and said. What is said
//! never repeats what is in them, for a token is a secret.

use data_encoding::BASE64;
use fabric::limits::LABELS_MAX;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::token::Token;

/// Set by the service manager for a service that has credentials.
const FOLDER_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
const TOKEN: &str = "weft.token";
const LABELS: &str = "weft.labels";
const KEYS: &str = "ssh.authorized_keys.root";
/// Bytes of the token's file: a token has about 90.
const TOKEN_BYTES_MAX: u64 = 512;
/// Bytes of the labels' file: all that a node may have, at 200 bytes each.
const LABELS_BYTES_MAX: u64 = 12_800;
const _: () = assert!(LABELS_BYTES_MAX == 200 * LABELS_MAX as u64);
/// Bytes of the keys' file: one of RSA with 4,096 bits has about 750.
const KEYS_BYTES_MAX: u64 = 65_536;
/// Kinds of keys that the SSH server of images knows.
const KEY_KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// What was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// A token to join with.
    pub token: Option<Token>,
    /// Labels of this node.
    pub labels: BTreeMap<String, String>,
    /// What is there and cannot be used, and why.
    pub troubles: Vec<String>,
}

impl Credentials {
    /// Those that the service manager gave to this process.
    pub fn load() -> Self {
        match std::env::var_os(FOLDER_VARIABLE) {
            Some(folder) => Self::read(Path::new(&folder)),
            None => Self::default(),
        }
    }

    /// Those in a folder.
    pub fn read(folder: &Path) -> Self {
        let mut given = Self::default();
        match text(folder, TOKEN, TOKEN_BYTES_MAX).and_then(|text| text.map(token).transpose()) {
            Ok(token) => given.token = token,
            Err(reason) => given.troubles.push(format!("credential {TOKEN}: {reason}")),
        }
        match text(folder, LABELS, LABELS_BYTES_MAX).and_then(|text| text.map(labels).transpose()) {
            Ok(labels) => given.labels = labels.unwrap_or_default(),
            Err(reason) => given.troubles.push(format!("credential {LABELS}: {reason}")),
        }
        if let Err(reason) =
            text(folder, KEYS, KEYS_BYTES_MAX).and_then(|text| text.map(keys).transpose())
        {
            given.troubles.push(format!("credential {KEYS}: {reason}"));
        }
        given
    }
}

pub(crate) fn token(text: String) -> Result<Token, String> {
    if text.trim().is_empty() {
        return Err("it is empty".into());
    }
    text.parse::<Token>().map_err(|error| error.to_string())
}

/// All of them or none: half of what somebody meant may be worse than nothing.
pub(crate) fn labels(text: String) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {number} is no label: write name=value"));
        };
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || line.chars().any(char::is_control) {
            return Err(format!(
                "line {number} is no label: write name=value in printable characters"
            ));
        }
        if labels.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("line {number} gives a label a second time"));
        }
        if labels.len() > LABELS_MAX {
            return Err(format!("more than {LABELS_MAX} labels"));
        }
    }
    Ok(labels)
}

/// Whether each line has a public key; the server passes over those that have none.
pub(crate) fn keys(text: String) -> Result<(), String> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    if lines.peek().is_none() {
        return Err("there is no key in it".into());
    }
    for (number, line) in lines {
        // Options may stand before a key, and a comment after it. The server takes no other space than one between them.
        let words: Vec<&str> = line.split(' ').collect();
        let has_key = words.windows(2).any(|pair| is_public_key(pair[0], pair[1]));
        if words[0].is_empty() || !has_key {
            return Err(format!(
                "line {number} is no public key: write it as in the file NAME.pub of ssh-keygen"
            ));
        }
    }
    Ok(())
}

/// Whether these are a kind of key and a key of that kind, complete (RFC 4253, section 6.6: strings, each after its
/// length, of which the first is the kind).
fn is_public_key(kind: &str, key: &str) -> bool {
    let Ok(bytes) = BASE64.decode(key.as_bytes()) else { return false };
    let (mut rest, mut strings) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_first_chunk() else { return false };
        let length = u32::from_be_bytes(*length) as usize;
        let Some((string, after)) = after.split_at_checked(length) else { return false };
        strings.push(string);
        rest = after;
    }
    KEY_KINDS.contains(&kind) && strings.len() > 1 && strings[0] == kind.as_bytes()
}

/// The text of a credential, if it is there.
fn text(folder: &Path, name: &str, bytes_max: u64) -> Result<Option<String>, String> {
    let opened = OpenOptions::new()
        .read(true)
        // A pipe must not hold up the start.
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(folder.join(name));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    let unreadable = |error: io::Error| format!("it cannot be read: {error}");
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("it is no file".into());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it has more than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| "it is not UTF-8".into())
}

#[cfg(test)]
mod tests;
