use super::*;

fn found(node: bool, fabric: Option<&str>) -> Found {
    Found {
        source: Source::Mdns,
        name: "a".into(),
        node: node.then(|| "n".into()),
        fabric: fabric.map(Into::into),
        addresses: Vec::new(),
    }
}

#[test]
fn a_fabric_knows_its_own() {
    let table = [
        (true, Some("a"), Some("a"), Relation::Same),
        (true, Some("b"), Some("a"), Relation::Foreign),
        (true, Some("b"), None, Relation::Candidate),
        (true, None, Some("a"), Relation::Waiting),
        (true, None, None, Relation::Waiting),
        (false, None, Some("a"), Relation::Unknown),
        (false, None, None, Relation::Unknown),
    ];
    for (node, theirs, own, relation) in table {
        assert_eq!(found(node, theirs).relation(own), relation, "{node} {theirs:?} {own:?}");
    }
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn addresses_are_ordered_and_those_of_nobody_dropped() {
    let given = addresses(&[
        "[fe80::1%3]:7",
        "[fe80::1]:7",
        "169.254.1.1:7",
        "[2001:db8::1]:7",
        "10.0.0.1:7",
        "10.0.0.1:7",
        "10.0.0.1:0",
        "0.0.0.0:7",
        "255.255.255.255:7",
        "224.0.0.251:7",
        "[ff02::fb]:7",
        "127.0.0.1:7",
        "[::1]:7",
        "[::ffff:127.0.0.1]:7",
        "[::]:7",
    ]);
    assert_eq!(
        tidy(given.into_iter(), false),
        addresses(&["10.0.0.1:7", "[2001:db8::1]:7", "[fe80::1%3]:7", "169.254.1.1:7"])
    );
    assert_eq!(tidy(addresses(&["127.0.0.1:7"]).into_iter(), true), addresses(&["127.0.0.1:7"]));
}

#[test]
fn addresses_are_bounded() {
    let many = (1..=1000).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
    assert_eq!(tidy(many, false).len(), limits::ADDRESSES_PER_INSTANCE_MAX);
}
