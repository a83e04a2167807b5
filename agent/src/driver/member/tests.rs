use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn a_datagram_goes_where_its_receiver_says_it_is() {
    let (hint, second, elsewhere) =
        (at("10.0.0.2:7400"), at("10.1.0.2:7400"), at("192.0.2.9:41000"));
    let advertised = [hint, second];
    // Never heard: everything it advertises.
    assert_eq!(targets_of(None, hint, &advertised), [hint, second]);
    assert_eq!(targets_of(None, hint, &[]), [hint]);
    // Heard lately, from an address of its own.
    assert_eq!(targets_of(Some((second, true)), hint, &advertised), [second]);
    // That was some time ago.
    assert_eq!(targets_of(Some((second, false)), hint, &advertised), [second, hint]);
    assert_eq!(targets_of(Some((hint, false)), hint, &advertised), [hint]);
    // Proved by a stream, but not what it says of itself: both, however fresh it is.
    assert_eq!(targets_of(Some((elsewhere, true)), hint, &advertised), [elsewhere, hint]);
    // Nothing is advertised yet but in gossip.
    assert_eq!(targets_of(Some((hint, true)), hint, &[]), [hint]);
}

#[test]
fn an_address_of_a_link_is_the_same_with_and_without_its_link() {
    assert!(is_same(at("[fe80::1%3]:7400"), at("[fe80::1]:7400")));
    assert!(is_same(at("[::ffff:10.0.0.1]:7400"), at("10.0.0.1:7400")));
    assert!(!is_same(at("10.0.0.1:7401"), at("10.0.0.1:7400")));
    assert!(!is_same(at("[fe80::2%3]:7400"), at("[fe80::1]:7400")));
}

#[test]
fn questions_go_through_other_members_and_updates_go_straight() {
    let passes = |method: &str, path: &str| {
        let (method, path) = (method.to_owned(), path.to_owned());
        may_be_passed_on(&ApiRequest { method, path, body: Vec::new() })
    };
    for (method, path) in [
        ("GET", "/v1/jobs/web/logs?slot=0&node=a"),
        ("GET", "/v1/nodes/a/hardware"),
        ("GET", "/v1/nodes/a/upgrade"),
        ("POST", "/v1/traces"),
        (wire::METHOD, wire::PATH),
    ] {
        assert!(passes(method, path), "{method} {path}");
    }
    for (method, path) in [
        ("POST", "/v1/nodes/a/upgrade"),
        ("PUT", "/v1/nodes/a/upgrade?offset=0"),
        ("POST", crate::driver::twins::PATH),
    ] {
        assert!(!passes(method, path), "{method} {path}");
    }
}
