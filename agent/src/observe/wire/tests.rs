use super::*;
use metrics::evaluate::Grid;

fn question() -> Request {
    let grid = Grid::range(0, 60_000, 15_000).unwrap();
    Request::Parts(vec![Part { expression: "up".into(), grid, keep: None }])
}

/// Nodes of two releases understand each other, or say that they do not.
#[test]
fn the_encoding_is_as_it_was() {
    let bytes = encode(&question());
    let wanted = [1, 0, 1, 2, b'u', b'p', 0, 0xc0, 0xa9, 0x07, 0xb0, 0xea, 0x01, 0];
    assert_eq!(bytes, wanted);
    assert_eq!(decode::<Request>(&bytes), Ok(question()));
    let answer = Response::Refused("no".into());
    assert_eq!(encode(&answer), [1, 4, 2, b'n', b'o']);
}

#[test]
fn what_is_not_of_this_version_is_refused() {
    let mut bytes = encode(&question());
    bytes[0] = 2;
    assert_eq!(decode::<Request>(&bytes), Err(WireError::Version(2)));
    bytes[0] = 1;
    bytes.push(0);
    assert!(matches!(decode::<Request>(&bytes), Err(WireError::Malformed(_))));
    assert!(matches!(decode::<Request>(&[]), Err(WireError::Malformed(_))));
}

#[test]
fn only_answers_to_the_question_are_taken() {
    let parts = question();
    let names = Request::Names { selectors: vec![], from_ms: 0, until_ms: 1 };
    let texts = Response::Texts(BTreeSet::from(["a".to_owned()]));
    assert!(texts.answers(&names) && !texts.answers(&parts));
    assert!(!Response::Parts(Vec::new()).answers(&parts), "one is missing");
    assert!(Response::Parts(vec![Partial::Curves(Vec::new())]).answers(&parts));
    let short = metrics::evaluate::Curve { labels: Labels::named("up"), values: vec![1.0] };
    assert!(!Response::Parts(vec![Partial::Curves(vec![short])]).answers(&parts), "too short");
}

#[test]
fn the_first_to_describe_a_metric_is_believed() {
    let described = |name: &str, help: &str| Described {
        name: name.into(),
        kind: "gauge".into(),
        help: help.into(),
        unit: String::new(),
    };
    let request = Request::Metadata { metric: None };
    let one = Response::Metadata(vec![described("a", "A."), described("b", "B.")]);
    let two = Response::Metadata(vec![described("b", "B, otherwise."), described("c", "C.")]);
    let Response::Metadata(both) = one.merge(two, &request).unwrap() else { panic!("metadata") };
    let names: Vec<&str> = both.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let bytes = [&[VERSION][..], &bytes].concat();
        let (request, response) = (decode::<Request>(&bytes), decode::<Response>(&bytes));
        if let (Ok(request), Ok(response)) = (request, response) {
            let _ = response.answers(&request);
        }
    }
}
