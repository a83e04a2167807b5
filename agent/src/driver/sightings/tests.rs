use super::*;
use discovery::{Found, Source};

fn node(first: &str) -> NodeId {
    format!("{first:0<64}").parse().expect("64 digits")
}

fn seen(source: Source, machine: &str, node: &NodeId, address: &str, since: u64) -> Seen {
    let digits = node.to_string();
    let found = Found {
        source,
        name: format!("{machine}-{}._weft._udp.local.", &digits[..NAME_DIGITS]),
        node: Some(digits),
        fabric: None,
        addresses: vec![address.parse().expect("an address")],
    };
    Seen { found, since: WallTime(since) }
}

#[test]
fn those_who_wait_are_listed_once_and_by_the_name_of_their_machine() {
    let (one, two) = (node("aa11"), node("bb22"));
    let mut member = seen(Source::Mdns, "member", &node("cc33"), "10.0.0.3:7400", 1);
    member.found.fabric = Some("0123456789abcdef".into());
    let seed = Seen { found: Found { node: None, ..member.found.clone() }, since: WallTime(1) };
    let all = [
        seen(Source::Mdns, "board", &two, "10.0.0.2:7400", 30),
        seen(Source::Dns, "board", &two, "[2001:db8::2]:7400", 20),
        seen(Source::Mdns, "x\u{1b}[2J", &one, "10.0.0.1:7400", 40),
        member,
        seed,
    ];
    let listed = waiting(all.iter());
    let shown: Vec<(&str, u64, usize)> =
        listed.iter().map(|one| (one.name.as_str(), one.since.0, one.addresses.len())).collect();
    assert_eq!(shown, [("x?[2J", 40, 1), ("board", 20, 2)]);
    assert_eq!(listed[1].fingerprint, "bb22-0000-0000-0000-0000");
}

#[test]
fn since_when_is_kept_for_as_long_as_it_waits() {
    let one = seen(Source::Mdns, "board", &node("aa"), "10.0.0.1:7400", 5);
    let moved = seen(Source::Mdns, "board", &node("aa"), "10.0.0.9:7400", 0).found;
    assert_eq!(Seen::new(moved, Some(&one), WallTime(9)).since, WallTime(5));
    let another = seen(Source::Mdns, "board", &node("bb"), "10.0.0.1:7400", 0).found;
    assert_eq!(Seen::new(another.clone(), Some(&one), WallTime(9)).since, WallTime(9));
    assert_eq!(Seen::new(another, None, WallTime(9)).since, WallTime(9));
}

/// Who is wanted, and the first digits of the key of who is meant, or what is said.
#[test]
fn a_name_or_a_fingerprint_means_exactly_one() {
    let all: Vec<Seen> =
        [("board", "aa11bb22cc"), ("board", "aa11bb22dd"), ("deadbeef", "12"), ("n3", "deadbeef")]
            .iter()
            .map(|(name, digits)| seen(Source::Mdns, name, &node(digits), "10.0.0.1:7400", 1))
            .collect();
    let rows = [
        ("N3", Ok("deadbeef")),
        ("aa11-bb22-dd00", Ok("aa11bb22dd")),
        ("AA11BB22CC", Ok("aa11bb22cc")),
        ("board", Err(ProblemKind::Invalid)),
        ("aa11bb22", Err(ProblemKind::Invalid)),
        // The name of one and the fingerprint of another.
        ("deadbeef", Err(ProblemKind::Invalid)),
        // Too little to compare.
        ("aa11", Err(ProblemKind::NotFound)),
        ("", Err(ProblemKind::NotFound)),
        ("aa11-bb22-cc00-0000-0001", Err(ProblemKind::NotFound)),
        ("../x", Err(ProblemKind::NotFound)),
    ];
    for (wanted, meant) in rows {
        let got = choose(waiting(all.iter()), wanted);
        match (got, meant) {
            (Ok(one), Ok(digits)) => assert!(one.node.to_string().starts_with(digits), "{wanted}"),
            (Err(problem), Err(kind)) => {
                assert_eq!(problem.kind, kind, "{wanted}: {problem}");
                assert!(problem.detail.contains("0000-0000)"), "{wanted}: {problem}");
            }
            (got, _) => panic!("{wanted}: {got:?}"),
        }
    }
    let nobody = choose(Vec::new(), "board").expect_err("nobody waits");
    assert!(nobody.detail.contains("no node waits"), "{nobody}");
    let crowd: Vec<Seen> = (10..40)
        .map(|index| seen(Source::Mdns, "board", &node(&index.to_string()), "10.0.0.1:7400", 1))
        .collect();
    let crowd = choose(waiting(crowd.iter()), "board").expect_err("thirty of them");
    assert!(crowd.detail.contains("and 22 more"), "{crowd}");
}
