use super::*;

/// Of no bytes, and of `abc` (FIPS 180-2, appendix B.1).
const NOTHING: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn digests_are_those_of_the_standard_and_come_back_from_their_text() {
    assert_eq!(Digest::of(b"").to_string(), NOTHING);
    assert_eq!(Digest::of(b"abc").to_string(), ABC);
    assert_eq!(ABC.parse(), Ok(Digest::of(b"abc")));
    assert_eq!(Digest::of(b"abc").short(), "ba7816bf8f01");
    let json = serde_json::to_string(&Digest::of(b"abc")).expect("a string");
    assert_eq!(json, format!("\"{ABC}\""));
    assert_eq!(serde_json::from_str::<Digest>(&json).ok(), Some(Digest::of(b"abc")));
}

#[test]
fn what_is_no_digest_says_why() {
    let upper = ABC.replace("sha256:ba", "sha256:BA");
    let table = [
        ("", DigestError::NoAlgorithm),
        (&ABC[7..], DigestError::NoAlgorithm),
        ("sha512:00", DigestError::Algorithm),
        ("SHA256:00", DigestError::Algorithm),
        ("sha256:", DigestError::Length(0)),
        ("sha256:00", DigestError::Length(2)),
        (&ABC[..70], DigestError::Length(63)),
        (upper.as_str(), DigestError::Digits),
        (&ABC.replace("5ad", "5ag"), DigestError::Digits),
    ];
    for (text, error) in table {
        assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
    }
}

#[test]
fn what_goes_by_is_hashed_in_whatever_pieces() {
    let mut reader = Hashing::new(&b"abc"[..]);
    let mut piece = [0; 2];
    assert_eq!(reader.read(&mut piece).ok(), Some(2));
    assert_eq!(reader.passed(), 2);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).expect("from memory");
    let (_, digest, bytes) = reader.finish();
    assert_eq!((digest, bytes), (Digest::of(b"abc"), 3));

    let mut writer = Hashing::new(Vec::new());
    for piece in [&b"a"[..], b"", b"bc"] {
        writer.write_all(piece).expect("to memory");
    }
    let (written, digest, bytes) = writer.finish();
    assert_eq!((written, digest, bytes), (b"abc".to_vec(), Digest::of(b"abc"), 3));
}
