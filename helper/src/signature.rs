//! Who made an update: its manifest is signed by a key (Ed25519, RFC 8032) whose public half is in the image that is to be
//! replaced. `weft-upgrade.service` asks before it writes anything:
//!
//! ```text
//! weft-helper verify-update KEYS MANIFEST SIGNATURE
//! ```
//!
//! `KEYS` is a folder with public keys as `openssl pkey -pubout` writes them (PEM, RFC 8410), in files that end in `.pub`;
//! any of them will do. `SIGNATURE` has a line for each key that signed:
//!
//! ```text
//! ed25519 PUBLIC-KEY SIGNATURE          in hexadecimal digits
//! ```
//!
//! The key in such a line is believed to be nobody's: it says which of ours to try, and whom to name in a refusal.

use data_encoding::{BASE64, HEXLOWER};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// As the first argument of the program: it verifies, and nothing else.
pub const WORD: &str = "verify-update";
/// Bytes of a file with a key, a manifest or signatures: far above what they need.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Keys of an image that are looked at, and signatures of an update.
const KEYS_MAX: usize = 32;
/// What stands before the 32 bytes of an Ed25519 key in a `SubjectPublicKeyInfo` (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Digits of a key that people are shown.
const SHOWN_DIGITS: usize = 16;

/// A public key that an image trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Of its file, without `.pub`.
    name: String,
    bytes: [u8; 32],
}

/// A line of the file with signatures.
struct Signed {
    key: [u8; 32],
    signature: Vec<u8>,
}

/// Why an update is refused. Nothing was written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The image was built without a key.
    #[error(
        "this image has no key that updates are signed with, so it takes none: put an image with a key on its disk once"
    )]
    NoKeys,
    /// There is no signature.
    #[error(
        "it is not signed: build it with images/build.sh and the key of the image that runs here ({0})"
    )]
    NotSigned(String),
    /// Somebody else signed it.
    #[error(
        "it is signed by {signers}, and this image takes updates of {keys} only: sign it with that key, or first bring an update that is signed with that one and has both in it"
    )]
    AnotherKey {
        /// Digits of their keys.
        signers: String,
        /// Those that would do.
        keys: String,
    },
    /// The right key is named, but did not sign this.
    #[error(
        "what it says of itself is not what {0} has signed: it was changed afterwards, or damaged"
    )]
    Changed(String),
}

impl Key {
    /// Reads a key as openssl writes it.
    pub(crate) fn parse(name: &str, pem: &str) -> Option<Self> {
        let mut lines =
            pem.lines().map(str::trim).skip_while(|line| *line != "-----BEGIN PUBLIC KEY-----");
        lines.next()?;
        let text: String = lines.take_while(|line| *line != "-----END PUBLIC KEY-----").collect();
        let bytes = BASE64.decode(text.as_bytes()).ok()?;
        let bytes = bytes.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
        Some(Self { name: name.to_owned(), bytes })
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = digits(&self.bytes);
        if self.name == digits {
            f.write_str(&digits)
        } else {
            write!(f, "{} ({digits})", self.name)
        }
    }
}

fn digits(key: &[u8; 32]) -> String {
    let mut digits = HEXLOWER.encode(key);
    digits.truncate(SHOWN_DIGITS);
    digits
}

/// The key that has signed a manifest.
///
/// # Errors
/// When none of `keys` has.
pub fn verify<'a>(keys: &'a [Key], manifest: &[u8], signatures: &str) -> Result<&'a Key, Refusal> {
    let named = |keys: Vec<String>| keys.join(", ");
    let ours = || named(keys.iter().map(Key::to_string).collect());
    if keys.is_empty() {
        return Err(Refusal::NoKeys);
    }
    let signed: Vec<Signed> = signatures.lines().filter_map(read_line).take(KEYS_MAX).collect();
    if signed.is_empty() {
        return Err(Refusal::NotSigned(ours()));
    }
    let mut failed = Vec::new();
    for Signed { key, signature } in &signed {
        let Some(known) = keys.iter().find(|known| known.bytes == *key) else { continue };
        match UnparsedPublicKey::new(&ED25519, &known.bytes).verify(manifest, signature) {
            Ok(()) => return Ok(known),
            Err(_) => failed.push(known.to_string()),
        }
    }
    if failed.is_empty() {
        let signers = named(signed.iter().map(|signed| digits(&signed.key)).collect());
        return Err(Refusal::AnotherKey { signers, keys: ours() });
    }
    Err(Refusal::Changed(named(failed)))
}

fn read_line(line: &str) -> Option<Signed> {
    let mut words = line.split(' ');
    let (kind, key, signature) = (words.next()?, words.next()?, words.next()?);
    (kind == "ed25519" && words.next().is_none()).then_some(())?;
    let key = HEXLOWER.decode(key.as_bytes()).ok()?.try_into().ok()?;
    Some(Signed { key, signature: HEXLOWER.decode(signature.as_bytes()).ok()? })
}

/// The keys in a folder, by name. A file that is no key is said, and left out.
fn keys(folder: &Path) -> Vec<Key> {
    let entries = fs::read_dir(folder).map(|entries| entries.filter_map(Result::ok).collect());
    let mut paths: Vec<_> =
        entries.unwrap_or_else(|_| Vec::new()).into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pub"));
    let read = |path: &std::path::PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = String::from_utf8(read(path).unwrap_or_default()).unwrap_or_default();
        let key = Key::parse(&name, &text);
        if key.is_none() {
            eprintln!("{}: not an Ed25519 key as openssl writes it (PEM)", path.display());
        }
        key
    };
    paths.iter().take(KEYS_MAX).filter_map(read).collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    // Whoever reads the rest would read what nobody has signed.
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too long"));
    }
    Ok(bytes)
}

/// The program that verifies: says on standard output who has signed, or why the update is refused.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let [folder, manifest, signatures] = arguments.as_slice() else {
        eprintln!("usage: weft-helper {WORD} KEYS MANIFEST SIGNATURE");
        return ExitCode::from(2);
    };
    let Ok(manifest) = read(Path::new(manifest)) else {
        println!("its manifest cannot be read");
        return ExitCode::FAILURE;
    };
    // None is the same as an empty one: it is not signed.
    let signatures = read(Path::new(signatures)).unwrap_or_default();
    match verify(&keys(Path::new(folder)), &manifest, &String::from_utf8_lossy(&signatures)) {
        Ok(key) => {
            println!("signed by {key}");
            ExitCode::SUCCESS
        }
        Err(refusal) => {
            println!("{refusal}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
