use super::*;
use proptest::prelude::*;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Takes as many as there are for these, and says how many that was.
fn take(counts: &mut Counts, from: impl IntoIterator<Item = SocketAddr>) -> usize {
    let admitted = |from| matches!(counts.judge(from, true), Verdict::Admit(_));
    from.into_iter().map(admitted).filter(|admitted| *admitted).count()
}

fn many(of: u32) -> impl Iterator<Item = SocketAddr> {
    (0..of).map(|n| SocketAddr::from((std::net::Ipv4Addr::from(0xc000_0200 + n), 4000)))
}

#[test]
fn one_source_gets_a_few_whatever_ports_and_hosts_it_uses() {
    let mut counts = Counts::default();
    assert_eq!(
        take(&mut counts, (1..100).map(|port| SocketAddr::new(at("192.0.2.1:1").ip(), port))),
        4
    );
    assert_eq!(take(&mut counts, [at("[::ffff:192.0.2.1]:7")]), 0);
    let hosts = (1..100).map(|host: u32| at(&format!("[2001:db8::{host:x}]:7")));
    assert_eq!(take(&mut counts, hosts), 4);
    assert_eq!(take(&mut counts, [at("[2001:db8:0:1::1]:7")]), 1);
    counts.give_back(Source::Network(at("192.0.2.1:0").ip()));
    assert_eq!(take(&mut counts, [at("192.0.2.1:9"), at("192.0.2.1:9")]), 1);
}

#[test]
fn strangers_leave_a_quarter_to_members() {
    let mut counts = Counts::default();
    counts.know([at("10.0.0.1:7400"), at("[2001:db8::1]:7400"), at("[fe80::1]:7400")]);
    assert_eq!(take(&mut counts, many(1000)), 48);
    // A member, at its address and port; the same machine at another port is anybody.
    assert_eq!(counts.judge(at("10.0.0.1:7401"), true), Verdict::Refuse);
    assert!(matches!(counts.judge(at("10.0.0.1:7400"), true), Verdict::Admit(_)));
    assert!(matches!(counts.judge(at("[fe80::1%4]:7400"), true), Verdict::Admit(_)));
    // Strangers on a member's network do not count for it.
    let mut counts = Counts::default();
    counts.know([at("[2001:db8::1]:7400")]);
    assert_eq!(take(&mut counts, (2..9).map(|host: u32| at(&format!("[2001:db8::{host}]:1")))), 4);
    assert_eq!(take(&mut counts, vec![at("[2001:db8::1]:7400"); 9]), 4);
}

#[test]
fn who_comes_beside_others_shows_that_its_address_is_its_own() {
    let mut counts = Counts::default();
    let first = at("192.0.2.1:1");
    assert!(matches!(counts.judge(first, false), Verdict::Admit(_)));
    assert_eq!(counts.judge(first, false), Verdict::Validate);
    assert!(matches!(counts.judge(first, true), Verdict::Admit(_)));
    assert_eq!(take(&mut counts, many(20).filter(|from| from.ip() != first.ip())), 19);
    assert_eq!(counts.judge(at("198.51.100.1:1"), false), Verdict::Validate);
    // Coming again is no place taken.
    assert_eq!(counts.under_way(), 21);
}

proptest! {
    #[test]
    fn at_most_so_many_at_a_time_and_so_many_of_one_source(
        steps in prop::collection::vec((0u32..40, any::<bool>(), any::<bool>()), 1..600)
    ) {
        let mut counts = Counts::default();
        counts.know(many(40).take(8));
        let places: Vec<SocketAddr> = many(40).collect();
        let mut held: Vec<Source> = Vec::new();
        for (from, comes, validated) in steps {
            if comes {
                if let Verdict::Admit(source) = counts.judge(places[from as usize], validated) {
                    held.push(source);
                }
            } else if !held.is_empty() {
                counts.give_back(held.swap_remove(from as usize % held.len()));
            }
            let strangers = held.iter().filter(|of| matches!(of, Source::Network(_))).count();
            prop_assert!(held.len() <= CONNECTIONS_MAX && strangers <= STRANGERS_MAX);
            prop_assert!(held.iter().all(|one| held.iter().filter(|of| *of == one).count() <= SOURCE_MAX));
            prop_assert_eq!(counts.under_way(), held.len());
        }
    }
}
