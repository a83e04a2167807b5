use super::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

const MANIFEST: &[u8] = b"weft-update 1\nversion 0.2.0\n";

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn key(name: &str, pair: &Ed25519KeyPair) -> Key {
    let bytes = [&SPKI_PREFIX, pair.public_key().as_ref()].concat();
    let text = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        BASE64.encode(&bytes)
    );
    Key::parse(name, &text).unwrap()
}

fn line(pair: &Ed25519KeyPair, manifest: &[u8]) -> String {
    let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
    format!("ed25519 {} {}\n", hex(pair.public_key().as_ref()), hex(pair.sign(manifest).as_ref()))
}

#[test]
fn a_key_of_openssl_is_read() {
    // openssl genpkey -algorithm ed25519 | openssl pkey -pubout
    let text = "-----BEGIN PUBLIC KEY-----\n\
                MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                -----END PUBLIC KEY-----\n";
    let key = Key::parse("ours", text).unwrap();
    assert_eq!(key.to_string(), "ours (19bf44096984cdfe)");
    for (from, to) in [("MCow", "MCoxx"), ("BEGIN", "BEGAN"), ("AyEA", "AyEB"), ("uE=", "=")] {
        assert_eq!(Key::parse("ours", &text.replace(from, to)), None, "{from}");
    }
    assert_eq!(Key::parse("ours", ""), None);
}

#[test]
fn only_a_key_of_the_image_will_do_and_each_refusal_says_why() {
    let (old, new, other) = (pair(1), pair(2), pair(3));
    let keys = [key("old", &old), key("new", &new)];
    let changed = b"weft-update 1\nversion 0.3.0\n";
    let by = |pair| line(pair, MANIFEST);
    let shown = |pair: &Ed25519KeyPair| HEXLOWER.encode(&pair.public_key().as_ref()[..8]);
    let rows = [
        (by(&old), Ok("old")),
        (by(&new), Ok("new")),
        // Signed by several, for images of before and after a change of keys.
        (by(&other) + &by(&new), Ok("new")),
        // One bad line does not spoil the others.
        (line(&old, changed) + &by(&new), Ok("new")),
        ("what is this?\n".to_owned() + &by(&old), Ok("old")),
        (String::new(), Err("it is not signed")),
        ("ed25519 12 34\n".to_owned(), Err("it is not signed")),
        (by(&old).replace("ed25519", "rsa"), Err("it is not signed")),
        (by(&other), Err("this image takes updates of old (")),
        (by(&other), Err(&*shown(&other))),
        (line(&old, changed), Err("was changed afterwards")),
        // Somebody claims to be another one.
        (
            by(&other).replace(
                &HEXLOWER.encode(other.public_key().as_ref()),
                &HEXLOWER.encode(old.public_key().as_ref()),
            ),
            Err("was changed afterwards"),
        ),
    ];
    for (signatures, wanted) in rows {
        match (verify(&keys, MANIFEST, &signatures), wanted) {
            (Ok(key), Ok(name)) => assert_eq!(key.name, name),
            (Err(refusal), Err(words)) => {
                assert!(refusal.to_string().contains(words), "{refusal} / {words}");
            }
            (verdict, wanted) => panic!("{verdict:?}, {wanted:?}: {signatures}"),
        }
    }
    let refusal = verify(&keys[1..], MANIFEST, &by(&old)).unwrap_err().to_string();
    assert!(refusal.contains("signed by"), "{refusal}");
    assert_eq!(verify(&[], MANIFEST, &by(&old)), Err(Refusal::NoKeys));
}

#[test]
fn every_change_of_a_byte_is_seen() {
    let signer = pair(1);
    let keys = [key("ours", &signer)];
    let signatures = line(&signer, MANIFEST);
    assert!(verify(&keys, MANIFEST, &signatures).is_ok());
    for index in 0..MANIFEST.len() {
        let mut changed = MANIFEST.to_vec();
        changed[index] ^= 1;
        assert!(verify(&keys, &changed, &signatures).is_err(), "{index}");
    }
    for length in 0..MANIFEST.len() {
        assert!(verify(&keys, &MANIFEST[..length], &signatures).is_err(), "{length}");
    }
}
