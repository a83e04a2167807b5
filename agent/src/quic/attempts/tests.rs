use super::*;

#[tokio::test]
async fn failures_are_remembered_for_a_bounded_number_of_networks() {
    let mut attempts = Attempts::default();
    let v4: IpAddr = "192.0.2.1".parse().expect("an address");
    assert!(attempts.failed(v4), "the first failure is worth a line");
    assert!(!attempts.failed(v4), "the second is not");
    for _ in 2..FAILURES_MAX {
        assert!(!attempts.is_throttled(v4));
        attempts.failed(v4);
    }
    assert!(attempts.is_throttled(v4));
    assert!(attempts.is_throttled("::ffff:192.0.2.1".parse().expect("an address")));
    assert!(!attempts.is_throttled("192.0.2.2".parse().expect("an address")));
    // All of an IPv6 network counts as one.
    for host in 0..FAILURES_MAX {
        attempts.failed(format!("2001:db8::{host}").parse().expect("an address"));
    }
    assert!(attempts.is_throttled("2001:db8::ffff".parse().expect("an address")));
    assert!(!attempts.is_throttled("2001:db8:1::1".parse().expect("an address")));
    for host in 0..5000u32 {
        attempts.failed(IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + host)));
    }
    assert!(attempts.sources.len() <= SOURCES_MAX);
}
