use super::super::doc::{flag, number};
use super::*;
use proptest::prelude::*;

#[test]
fn a_query_is_read_or_refused() {
    let known = &[number("tail", ""), flag("follow", "")];
    assert_eq!(query("", known).unwrap(), []);
    assert_eq!(
        query("tail=5&follow", known).unwrap(),
        [("tail".into(), "5".into()), ("follow".into(), String::new())]
    );
    assert_eq!(query("tail=%35+6", known).unwrap(), [("tail".into(), "5 6".into())]);
    let refused = [
        ("tial=5", "did you mean \"tail\"?"),
        ("tail=1&tail=2", "twice"),
        ("tail=%", "not percent-encoded"),
        ("tail=%ff", "not percent-encoded"),
    ];
    for (text, wanted) in refused {
        let message = query(text, known).unwrap_err();
        assert!(message.contains(wanted), "{text}: {message}");
    }
    assert!(query("a=1", &[]).unwrap_err().contains("has none"));
}

proptest! {
    #[test]
    fn no_query_is_too_strange(text in "\\PC{0,60}") {
        let _ = query(&text, &[number("tail", "")]);
    }

    #[test]
    fn what_was_encoded_is_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let encoded: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(decode(&encoded), String::from_utf8(bytes).ok());
    }
}
