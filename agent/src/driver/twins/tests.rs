use super::*;

const NODE: NodeId = NodeId([1; 32]);

fn at(seconds: u64) -> Instant {
    Instant::at(Duration::from_secs(1000 + seconds))
}

fn start(generation: u64) -> Start {
    Start { generation, salt: [0; 8] }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn troubles(twins: &Twins) -> Vec<String> {
    twins.troubles(|_| "n2".into(), |_| Some(address("10.0.0.4:7400")))
}

#[test]
fn a_copy_is_named_with_both_places_for_as_long_as_it_is_seen() {
    let mut twins = Twins::default();
    assert!(twins.saw(at(0), NODE, address("10.0.0.2:7400")));
    assert!(!twins.saw(at(5), NODE, address("10.0.0.2:7400")), "it is said once");
    let said = troubles(&twins);
    assert_eq!(said, ["two machines use the key of n2: at 10.0.0.4 and at 10.0.0.2"]);
    assert_eq!(twins.looks(at(6)), []);
    assert_eq!(twins.looks(at(25)), [(NODE, address("10.0.0.2:7400"))]);
    assert_eq!(twins.looks(at(26)), []);
    assert!(!troubles(&twins).is_empty());
    twins.looks(at(5 + 60));
    assert!(troubles(&twins).is_empty());
    assert!(twins.saw(at(70), NODE, address("10.0.0.2:7400")), "it has come back");
    // It is listened to now.
    twins.started_anew(&NODE);
    assert!(troubles(&twins).is_empty());
}

#[test]
fn where_nobody_was_proved_to_be_nobody_is_asked() {
    let mut twins = Twins::default();
    assert_eq!(twins.question(at(0), NODE), None);
    twins.moved(NODE, address("10.0.0.2:7400"));
    assert_eq!(twins.question(at(0), NODE), Some(address("10.0.0.2:7400")));
    assert_eq!(twins.question(at(1), NODE), None, "not for each datagram");
    assert_eq!(twins.question(at(6), NODE), Some(address("10.0.0.2:7400")));
}

#[test]
fn who_is_not_listened_to_comes_back_when_nobody_hears_the_other() {
    let mut twins = Twins::default();
    let other = address("10.0.0.4:7400");
    assert!(!twins.superseded(at(0), start(7), start(7), None, None), "that is us");
    assert!(!twins.superseded(at(0), start(7), start(6), None, None), "that was before");
    assert!(twins.superseded(at(0), start(7), start(9), Some(other), None));
    assert!(!twins.superseded(at(1), start(7), start(9), None, seconds(0)), "it is said once");
    assert!(troubles(&twins)[0].contains("10.0.0.4"), "{:?}", troubles(&twins));
    assert_eq!(twins.looks_for_the_other(at(1)), None);
    assert_eq!(twins.looks_for_the_other(at(3)), Some(Some(other)));
    // One member has not heard it for long, another one has.
    twins.superseded(at(20), start(7), start(9), None, seconds(60));
    twins.superseded(at(20), start(7), start(9), None, seconds(2));
    twins.superseded(at(21), start(7), start(9), None, seconds(61));
    assert_eq!(twins.may_return(at(21)), None);
    // All have not, but it answers us.
    twins.superseded(at(32), start(7), start(9), None, seconds(14));
    twins.answered(at(31), other);
    assert_eq!(twins.may_return(at(32)), None);
    // It does not either, and has been started once more meanwhile.
    twins.superseded(at(44), start(7), start(12), None, seconds(26));
    assert_eq!(twins.may_return(at(44)), Some(start(12)));
    // Nobody has told us anything lately: we may be cut off, and know nothing.
    assert_eq!(twins.may_return(at(60)), None);
    twins.returned();
    assert!(troubles(&twins).is_empty() && twins.may_return(at(61)).is_none());
}
