use super::*;
use fabric::id::NodeId;
use std::net::{Ipv4Addr, SocketAddr};

fn at(seconds: u64) -> Instant {
    Instant::at(Duration::from_secs(seconds))
}

fn token() -> Token {
    Token::generate(&NodeId([7; 32])).expect("random numbers")
}

fn with_token() -> Provision {
    Provision::new(Credentials { token: Some(token()), ..Credentials::default() }, false, at(0))
}

fn refused() -> JoinError {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 7400));
    JoinError::Refused { address, reason: "the token has expired".into() }
}

#[test]
fn who_was_given_nothing_waits_for_a_person() {
    let provision = Provision::new(Credentials::default(), false, at(0));
    assert!(provision.due(at(1000)).is_none());
    assert_eq!(provision.entry(), Entry { way: Way::ByHand, trouble: None });
    assert!(provision.warnings().is_empty());
}

#[test]
fn what_cannot_be_used_is_told_until_it_is_replaced() {
    let troubles = vec!["credential weft.token: it is empty".to_owned()];
    let provision = Provision::new(
        Credentials { troubles: troubles.clone(), ..Credentials::default() },
        false,
        at(0),
    );
    assert!(provision.due(at(1000)).is_none());
    assert_eq!(provision.entry(), Entry { way: Way::ByHand, trouble: Some(troubles[0].clone()) });
    assert_eq!(provision.warnings(), troubles);
}

#[test]
fn a_missing_member_is_looked_for_again_and_again_with_short_pauses() {
    let mut provision = with_token();
    assert!(provision.due(at(0)).is_some());
    let mut now = at(0);
    for pause in [1, 2, 4, 8, 15, 15, 15] {
        provision.failed(now, &JoinError::NobodyFound);
        let next = now + Duration::from_secs(pause);
        assert!(provision.due(next - Duration::from_millis(1)).is_none(), "before {pause} s");
        assert!(provision.due(next).is_some(), "after {pause} s");
        now = next;
    }
    assert_eq!(provision.entry().way, Way::Token);
    assert!(provision.warnings()[0].contains("waits for a member"));
    // Whoever turns up is asked soon.
    provision.failed(now, &JoinError::NobodyFound);
    provision.found_somebody(now);
    assert!(provision.due(now + Duration::from_secs(1)).is_some());
}

#[test]
fn a_member_that_refuses_is_asked_again_ever_more_rarely() {
    let mut provision = with_token();
    let mut now = at(0);
    for pause in [10, 20, 40, 80, 160, 320, 640, 900, 900] {
        provision.failed(now, &refused());
        // Nor does it help that it is seen once more.
        provision.found_somebody(now);
        let next = now + Duration::from_secs(pause);
        assert!(provision.due(next - Duration::from_millis(1)).is_none(), "before {pause} s");
        assert!(provision.due(next).is_some(), "after {pause} s");
        now = next;
    }
    let trouble = provision.entry().trouble.expect("it was refused");
    assert!(trouble.contains("refused") && trouble.contains("expired"), "{trouble}");
    // A member that goes away counts from the beginning.
    provision.failed(now, &JoinError::NobodyFound);
    assert!(provision.due(now + NOBODY_PAUSE_MIN).is_some());
    assert_eq!(pause(true, u32::MAX), REFUSED_PAUSE_MAX);
}

/// What it was given, whether it may be approved, and what it does.
#[test]
fn approval_is_for_those_who_have_no_token_that_works() {
    for (has_token, is_refused, approval, way) in [
        (false, false, false, Way::ByHand),
        (false, false, true, Way::Approval),
        (true, false, false, Way::Token),
        (true, false, true, Way::Token),
        (true, true, false, Way::Token),
        (true, true, true, Way::Approval),
    ] {
        let credentials = Credentials { token: has_token.then(token), ..Credentials::default() };
        let mut provision = Provision::new(credentials, approval, at(0));
        if is_refused {
            provision.failed(at(0), &refused());
        }
        assert_eq!(provision.entry().way, way, "{has_token} {is_refused} {approval}");
    }
}

#[test]
fn a_member_of_a_fabric_forgets_its_token() {
    let mut provision = with_token();
    provision.failed(at(0), &refused());
    provision.belongs_to(&Fabric::found("other").expect("random numbers"));
    assert!(provision.due(at(10_000)).is_none());
    assert!(provision.warnings().is_empty());
}
