use super::*;

fn local(addresses: &[(u32, &str)]) -> Local {
    addresses.iter().map(|(index, text)| (*index, text.parse().unwrap())).collect()
}

fn shown(addresses: Vec<SocketAddr>) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

#[test]
fn the_best_address_is_told_first() {
    let mine = local(&[
        (1, "127.0.0.1"),
        (1, "::1"),
        (2, "fe80::1"),
        (2, "169.254.1.1"),
        (2, "2001:db8::1"),
        (3, "10.0.0.1"),
    ]);
    let told = shown(advertised(&Listen::default(), 7400, &mine));
    assert_eq!(told, ["10.0.0.1:7400", "[2001:db8::1]:7400", "[fe80::1]:7400", "169.254.1.1:7400"]);
}

#[test]
fn loopback_is_told_only_when_there_is_nothing_else() {
    let told = shown(advertised(&Listen::default(), 7400, &local(&[(1, "127.0.0.1"), (1, "::1")])));
    assert_eq!(told, ["127.0.0.1:7400", "[::1]:7400"]);
}

#[test]
fn a_machine_that_loses_its_links_goes_on_telling_what_it_told() {
    let alone = local(&[(1, "127.0.0.1"), (1, "::1")]);
    let linked = local(&[(1, "127.0.0.1"), (2, "fe80::1"), (2, "10.0.0.1")]);
    let elsewhere = local(&[(1, "127.0.0.1"), (2, "10.0.0.2")]);
    let rows = [
        (&linked, &alone, &linked),
        (&linked, &elsewhere, &elsewhere),
        (&alone, &linked, &linked),
        (&alone, &alone, &alone),
    ];
    for (before, now, told) in rows {
        assert_eq!(&worth_telling(before.clone(), now), told, "{before:?}, {now:?}");
    }
}

#[test]
fn what_the_owner_says_goes() {
    let mine = local(&[(3, "10.0.0.1")]);
    let told = Listen { advertise: vec!["192.0.2.1:9000".parse().unwrap()], ..Listen::default() };
    assert_eq!(shown(advertised(&told, 7400, &mine)), ["192.0.2.1:9000"]);
    let one = Listen { address: "127.0.0.1".parse().unwrap(), ..Listen::default() };
    assert_eq!(shown(advertised(&one, 7500, &mine)), ["127.0.0.1:7500"]);
    let v4 = Listen { address: "0.0.0.0".parse().unwrap(), ..Listen::default() };
    let both = local(&[(3, "10.0.0.1"), (3, "2001:db8::1")]);
    assert_eq!(shown(advertised(&v4, 7400, &both)), ["10.0.0.1:7400"]);
}

#[test]
fn a_link_local_address_without_a_link_is_tried_on_every_link() {
    let mine = local(&[(2, "fe80::1"), (3, "fe80::2"), (3, "10.0.0.1"), (4, "10.0.0.2")]);
    let rows = [
        ("[fe80::9]:7400", vec!["[fe80::9%2]:7400", "[fe80::9%3]:7400"]),
        ("[fe80::9%7]:7400", vec!["[fe80::9%7]:7400"]),
        ("10.0.0.9:7400", vec!["10.0.0.9:7400"]),
    ];
    for (address, wanted) in rows {
        assert_eq!(shown(routes(address.parse().unwrap(), &mine)), wanted);
    }
}
