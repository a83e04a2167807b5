use super::*;

fn link(index: u32, kind: LinkKind, addresses: &[&str]) -> Link {
    let usable: BTreeSet<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Link { index, name: format!("link{index}"), kind, assigned: usable.clone(), usable }
}

/// The same link, but nothing can be sent from it.
fn down(link: Link) -> Link {
    Link { usable: BTreeSet::new(), ..link }
}

fn machine(links: &[Link]) -> LinkAddresses {
    LinkAddresses { links: links.to_vec(), ..LinkAddresses::default() }
}

fn lo() -> Link {
    link(1, LinkKind::Loopback, &["127.0.0.1", "::1"])
}

/// What Docker makes of a machine: a bridge for each network, and the ends of cables.
fn docker() -> Vec<Link> {
    let bridge = |index: u32| {
        let address = format!("172.{}.0.1", index - 100 + 17);
        link(index, LinkKind::Inner, &[&address, &format!("fe80::d{index}")])
    };
    let cable = |index: u32| link(index, LinkKind::Inner, &[&format!("fe80::c{index}")]);
    (100..109).map(bridge).chain((109..118).map(cable)).collect()
}

fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn shown(addresses: Vec<SocketAddr>) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

fn told(local: &LinkAddresses) -> Vec<String> {
    shown(advertised(&Listen::default(), 7400, local))
}

#[test]
fn the_best_address_is_told_first() {
    let local = machine(&[
        lo(),
        link(2, LinkKind::Wire, &["fe80::1", "169.254.1.1", "2001:db8::1"]),
        link(3, LinkKind::Wire, &["10.0.0.1"]),
    ]);
    let wanted = ["10.0.0.1:7400", "[2001:db8::1]:7400", "[fe80::1]:7400", "169.254.1.1:7400"];
    assert_eq!(told(&local), wanted);
}

#[test]
fn loopback_is_told_only_when_there_is_nothing_else() {
    assert_eq!(told(&machine(&[lo()])), ["127.0.0.1:7400", "[::1]:7400"]);
    // An address that is routed here is one that others reach.
    let lo = link(1, LinkKind::Loopback, &["127.0.0.1", "192.0.2.9", "::1"]);
    assert_eq!(told(&machine(&[lo])), ["192.0.2.9:7400"]);
}

#[test]
fn bridges_that_lead_only_to_containers_push_nothing_out() {
    let lan = link(2, LinkKind::Wire, &["192.168.1.1", "fe80::1"]);
    let mut links = vec![lo(), lan];
    links.extend(docker());
    assert_eq!(told(&machine(&links)), ["192.168.1.1:7400", "[fe80::1]:7400"]);
    // The card has another number since it was replaced.
    links[1] = link(500, LinkKind::Wire, &["192.168.1.1"]);
    assert_eq!(told(&machine(&links)), ["192.168.1.1:7400"]);
    // A machine that is reached by IPv6 alone.
    links[1] = link(2, LinkKind::Wire, &["2001:db8::1", "fe80::1"]);
    assert_eq!(told(&machine(&links)), ["[2001:db8::1]:7400", "[fe80::1]:7400"]);
    // In a container that has containers of its own.
    links[1] = link(2, LinkKind::Veth, &["192.168.1.1"]);
    assert_eq!(told(&machine(&links)), ["192.168.1.1:7400"]);
    // They are better than nothing.
    links[1] = down(links[1].clone());
    assert_eq!(told(&machine(&links)).len(), ADVERTISED_MAX);
}

#[test]
fn what_peers_see_comes_before_the_default_route_and_that_before_the_rest() {
    let links = [
        lo(),
        link(2, LinkKind::Wire, &["10.0.0.1", "fe80::2"]),
        link(3, LinkKind::Wire, &["10.9.0.1", "10.9.0.2", "fe80::3"]),
        link(4, LinkKind::Tunnel, &["100.64.0.1"]),
        link(5, LinkKind::Inner, &["192.168.122.1"]),
    ];
    let mut local = machine(&links);
    let without = [
        "10.0.0.1:7400",
        "10.9.0.1:7400",
        "10.9.0.2:7400",
        "100.64.0.1:7400",
        "[fe80::2]:7400",
        "[fe80::3]:7400",
    ];
    assert_eq!(told(&local), without);
    local.routed = addresses(&["10.9.0.2"]);
    assert_eq!(told(&local)[..2], ["10.9.0.2:7400", "10.0.0.1:7400"]);
    // A member is a virtual machine of this one.
    local.seen = addresses(&["192.168.122.1"]);
    assert_eq!(told(&local)[..2], ["192.168.122.1:7400", "10.9.0.2:7400"]);
    // Members are spoken with over a tunnel.
    local.seen = addresses(&["100.64.0.1"]);
    assert_eq!(told(&local)[..2], ["100.64.0.1:7400", "10.9.0.2:7400"]);
    // By an address that only the link knows: the link is the right one, its other address leads further.
    local.seen = addresses(&["fe80::2"]);
    assert_eq!(told(&local)[..2], ["10.0.0.1:7400", "[fe80::2]:7400"]);
}

#[test]
fn a_link_with_many_addresses_hides_no_other() {
    let many: Vec<String> = (1..=12).map(|number| format!("2001:db8::{number:x}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut local =
        machine(&[lo(), link(2, LinkKind::Wire, &many), link(3, LinkKind::Wire, &["fe80::3"])]);
    local.seen = addresses(&["2001:db8::1"]);
    let told = told(&local);
    assert_eq!(told.len(), ADVERTISED_MAX);
    assert_eq!(told[0], "[2001:db8::1]:7400");
    assert_eq!(told[4], "[fe80::3]:7400");
}

#[test]
fn a_machine_that_loses_its_links_goes_on_telling_what_it_told() {
    let lan = link(2, LinkKind::Wire, &["fe80::1", "10.0.0.1"]);
    let bridge = link(9, LinkKind::Inner, &["172.17.0.1"]);
    let alone = machine(&[lo()]);
    let contained = machine(&[lo(), down(lan.clone()), bridge.clone()]);
    let linked = machine(&[lo(), lan, bridge]);
    let elsewhere = machine(&[lo(), link(2, LinkKind::Wire, &["10.0.0.2"])]);
    let rows = [
        (&linked, &alone, &linked),
        (&linked, &contained, &linked),
        (&linked, &elsewhere, &elsewhere),
        (&alone, &linked, &linked),
        (&alone, &alone, &alone),
        (&contained, &linked, &linked),
    ];
    for (before, now, told) in rows {
        assert_eq!(&worth_telling(before.clone(), now), told, "{before:?}, {now:?}");
    }
}

#[test]
fn what_the_owner_says_goes() {
    let mine = machine(&[link(3, LinkKind::Wire, &["10.0.0.1"])]);
    let told = Listen { advertise: vec!["192.0.2.1:9000".parse().unwrap()], ..Listen::default() };
    assert_eq!(shown(advertised(&told, 7400, &mine)), ["192.0.2.1:9000"]);
    let one = Listen { address: "127.0.0.1".parse().unwrap(), ..Listen::default() };
    assert_eq!(shown(advertised(&one, 7500, &mine)), ["127.0.0.1:7500"]);
    let v4 = Listen { address: "0.0.0.0".parse().unwrap(), ..Listen::default() };
    let both = machine(&[link(3, LinkKind::Wire, &["10.0.0.1", "2001:db8::1"])]);
    assert_eq!(shown(advertised(&v4, 7400, &both)), ["10.0.0.1:7400"]);
}

#[test]
fn a_link_local_address_without_a_link_is_tried_on_every_link_that_leads_somewhere() {
    let mut links = vec![
        link(2, LinkKind::Wire, &["fe80::1"]),
        link(3, LinkKind::Wire, &["fe80::2", "10.0.0.1"]),
        link(4, LinkKind::Wire, &["10.0.0.2"]),
    ];
    let rows = [
        ("[fe80::9]:7400", vec!["[fe80::9%2]:7400", "[fe80::9%3]:7400"]),
        ("[fe80::9%3]:7400", vec!["[fe80::9%3]:7400"]),
        // Its adapter was replaced: it has another number now.
        ("[fe80::9%7]:7400", vec!["[fe80::9%2]:7400", "[fe80::9%3]:7400"]),
        ("10.0.0.9:7400", vec!["10.0.0.9:7400"]),
        ("[2001:db8::9]:7400", vec!["[2001:db8::9]:7400"]),
    ];
    for (address, wanted) in &rows {
        assert_eq!(shown(routes(address.parse().unwrap(), &machine(&links))), *wanted);
    }
    links.splice(0..0, docker());
    for (address, wanted) in &rows {
        assert_eq!(shown(routes(address.parse().unwrap(), &machine(&links))), *wanted);
    }
    let known = "[fe80::9%100]:7400".parse().unwrap();
    assert_eq!(
        shown(routes(known, &machine(&links))),
        ["[fe80::9%100]:7400"],
        "a container of ours"
    );
}

#[test]
fn a_peer_on_the_sixth_link_is_found() {
    let address = |index: u32| format!("fe80::{index}");
    let links: Vec<Link> =
        (1..=6).map(|index| link(index, LinkKind::Wire, &[&address(index)])).collect();
    let mut local = machine(&links);
    let peer = "[fe80::9]:7400".parse().unwrap();
    assert!(shown(routes(peer, &local)).contains(&"[fe80::9%6]:7400".to_owned()));
    // The one over which peers are spoken with is the first.
    local.seen = addresses(&["fe80::6"]);
    assert_eq!(shown(routes(peer, &local))[0], "[fe80::9%6]:7400");
    let many: Vec<Link> =
        (1..=40).map(|index| link(index, LinkKind::Wire, &[&address(index)])).collect();
    assert_eq!(routes(peer, &machine(&many)).len(), LINKS_MAX);
}

#[test]
fn an_address_of_ours_is_told_from_the_same_one_elsewhere() {
    let mut links = vec![lo(), down(link(2, LinkKind::Wire, &["192.168.1.1"]))];
    links.push(link(3, LinkKind::Wire, &["fe80::1", "2001:db8::1"]));
    links.extend(docker());
    let own = machine(&links).own(&Listen::default(), 7400);
    let rows = [
        // Whatever the state of its link: the kernel does not let it out of the machine.
        ("192.168.1.1:7400", true),
        ("172.20.0.1:7400", true),
        ("[::ffff:172.20.0.1]:7400", true),
        ("[2001:db8::1]:7400", true),
        ("127.0.0.1:7400", true),
        ("127.8.0.1:7400", true),
        ("[::1]:7400", true),
        ("0.0.0.0:7400", true),
        ("[fe80::1%3]:7400", true),
        // Another machine may have it on another link.
        ("[fe80::1%2]:7400", false),
        ("[fe80::1]:7400", false),
        // Another agent of this machine.
        ("172.20.0.1:7500", false),
        ("192.168.1.2:7400", false),
    ];
    for (address, wanted) in rows {
        assert_eq!(own.contains(address.parse().unwrap()), wanted, "{address}");
    }
    // It listens at one address: another agent may listen at the others.
    let one = Listen { address: "127.0.0.1".parse().unwrap(), ..Listen::default() };
    let own = machine(&links).own(&one, 7400);
    for (address, wanted) in [("127.0.0.1:7400", true), ("127.0.0.2:7400", false)] {
        assert_eq!(own.contains(address.parse().unwrap()), wanted, "{address}");
    }
}

#[test]
fn a_machine_whose_cable_is_out_is_not_connected() {
    let lan = link(2, LinkKind::Wire, &["192.168.1.1", "fe80::1"]);
    let with = |links: &[Link]| {
        let mut all = vec![lo()];
        all.extend_from_slice(links);
        machine(&all)
    };
    let tunnel = link(8, LinkKind::Tunnel, &["100.64.0.1"]);
    let veth = link(2, LinkKind::Veth, &["10.77.0.1"]);
    let rows = [
        ("a cable", with(std::slice::from_ref(&lan)), true),
        ("no cable", with(&[down(lan.clone())]), false),
        ("nothing at all", with(&[]), false),
        (
            "one of two cables",
            with(&[down(lan.clone()), link(3, LinkKind::Wire, &["fe80::3"])]),
            true,
        ),
        ("a container", with(std::slice::from_ref(&veth)), true),
        ("a container without its link", with(&[down(veth)]), false),
        ("no cable, and a tunnel over it", with(&[down(lan.clone()), tunnel.clone()]), false),
        ("a tunnel that somebody else carries", with(&[tunnel]), true),
        ("no cable, but containers", with(&[&[down(lan.clone())][..], &docker()].concat()), false),
        ("a cable, and containers", with(&[&[lan.clone()][..], &docker()].concat()), true),
    ];
    for (what, local, wanted) in rows {
        assert_eq!(is_connected(&Listen::default(), &local), wanted, "{what}");
    }
    let bridge = link(5, LinkKind::Inner, &["192.168.122.1"]);
    let mut host = with(&[down(lan.clone()), bridge]);
    host.seen = addresses(&["192.168.122.1"]);
    assert!(is_connected(&Listen::default(), &host), "members are virtual machines of this one");
    let mut alone = with(&[]);
    alone.seen = addresses(&["127.0.0.1"]);
    assert!(is_connected(&Listen::default(), &alone), "members share this machine");
    let mut printer = with(&[down(lan), link(3, LinkKind::Wire, &["10.5.0.1"])]);
    printer.cut_off = true;
    assert!(
        !is_connected(&Listen::default(), &printer),
        "the cable that is left leads to no member"
    );
}

#[test]
fn an_agent_that_listens_at_one_address_needs_the_link_that_has_it() {
    let lan = link(2, LinkKind::Wire, &["192.168.1.1"]);
    let at = |address: &str| Listen { address: address.parse().unwrap(), ..Listen::default() };
    let rows = [
        ("127.0.0.1", lan.clone(), true),
        ("127.0.0.1", down(lan.clone()), true),
        ("192.168.1.1", lan.clone(), true),
        ("192.168.1.1", down(lan.clone()), false),
        ("10.0.0.1", lan, false),
    ];
    for (address, lan, wanted) in rows {
        assert_eq!(is_connected(&at(address), &machine(&[lo(), lan])), wanted, "{address}");
    }
}

#[test]
fn this_machine_can_be_looked_at() {
    let peers = BTreeSet::from(["127.0.0.1:9".parse().unwrap()]);
    let local = LinkAddresses::look(&peers, &LinkAddresses::default());
    assert_eq!(local.seen, addresses(&["127.0.0.1"]));
    assert!(is_connected(&Listen::default(), &local), "{local:?}");
    // What was seen stays seen, and what the machine has not got any more goes.
    let gone =
        LinkAddresses { seen: addresses(&["127.0.0.1", "192.0.2.77"]), ..LinkAddresses::default() };
    assert_eq!(LinkAddresses::look(&BTreeSet::new(), &gone).seen, addresses(&["127.0.0.1"]));
}
