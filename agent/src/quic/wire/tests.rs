use super::*;
use fabric::id::NodeId;
use proptest::prelude::*;

fn never_panics(bytes: &[u8]) {
    let _ = decode::<Greeting>(bytes);
    let _ = decode::<Answer>(bytes);
    let _ = decode::<JoinRequest>(bytes);
    let _ = decode::<JoinAnswer>(bytes);
    let _ = decode::<Invitation>(bytes);
    let _ = decode::<InvitationAnswer>(bytes);
    let _ = decode::<RequestHead>(bytes);
    let _ = decode::<ResponseHead>(bytes);
}

#[test]
fn greetings_do_not_change_unnoticed() {
    let start = Start { generation: 300, salt: [5; 8] };
    let standing = Standing { start, heard: Some(start) };
    let bytes = [&[0xac, 0x02][..], &[5; 8], &[1, 0xac, 0x02], &[5; 8]].concat();
    assert_eq!(encode(&Greeting::Member(standing)), [&[FIRST_LEVEL, 0], &bytes[..]].concat());
    assert_eq!(encode(&Answer::Member(standing)), [&[FIRST_LEVEL, 3], &bytes[..]].concat());
    let outdated = Outdated { by: start, address: None, silent_ms: Some(7) };
    let bytes = [&[FIRST_LEVEL, 4, 0xac, 0x02][..], &[5; 8], &[0, 1, 7]].concat();
    assert_eq!(encode(&Answer::Outdated(outdated)), bytes);
    assert_eq!(encode(&Greeting::Join), [FIRST_LEVEL, 1]);
    assert_eq!(encode(&Greeting::Invite), [FIRST_LEVEL, 2]);
    assert_eq!(encode(&Answer::Welcome), [FIRST_LEVEL, 0]);
    assert_eq!(encode(&Answer::Refused("no".into())), [FIRST_LEVEL, 1, 2, b'n', b'o']);
    let invitation = Invitation { token: "t".into(), port: 300 };
    assert_eq!(encode(&invitation), [FIRST_LEVEL, 1, b't', 0xac, 0x02]);
    assert_eq!(encode(&InvitationAnswer::Joined), [FIRST_LEVEL, 0]);
    assert_eq!(encode(&InvitationAnswer::Refused("no".into())), [FIRST_LEVEL, 1, 2, b'n', b'o']);
    let head = RequestHead { method: "GET".into(), path: "/".into(), body_bytes: 300 };
    assert_eq!(encode(&head), [FIRST_LEVEL, 3, b'G', b'E', b'T', 1, b'/', 0xac, 0x02]);
}

#[test]
fn another_version_is_told_apart_from_rubbish() {
    assert!(matches!(decode::<Greeting>(&[9, 0]), Err(WireError::Version(Some(9)))));
    assert!(matches!(decode::<Greeting>(&[]), Err(WireError::Version(None))));
    assert!(matches!(decode::<Greeting>(&[FIRST_LEVEL, 9]), Err(WireError::Malformed(_))));
    assert!(matches!(decode::<Greeting>(&[FIRST_LEVEL, 1, 0]), Err(WireError::Malformed(_))));
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let cut = reason("é".repeat(5000));
    assert!(cut.len() <= 1024 && cut.chars().all(|c| c == 'é'));
    assert_eq!(reason("short"), "short");
    assert!(encode(&Answer::Refused(cut)).len() < FRAME_BYTES_MAX);
}

#[test]
fn a_list_that_claims_to_be_huge_costs_nothing() {
    // Variant Accepted, then a vector of 2^60 bytes.
    let mut bytes = vec![FIRST_LEVEL, 0];
    bytes.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
    assert!(decode::<JoinAnswer>(&bytes).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        never_panics(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_version_and_a_variant_never_panic(
        variant in 0u8..4,
        bytes in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        let mut all = vec![FIRST_LEVEL, variant];
        all.extend_from_slice(&bytes);
        never_panics(&all);
    }

    #[test]
    fn an_invitation_survives_the_wire(token in ".{0,120}", port in any::<u16>()) {
        let invitation = Invitation { token: token.clone(), port };
        prop_assert_eq!(decode::<Invitation>(&encode(&invitation)).ok(), Some(invitation));
        let refused = InvitationAnswer::Refused(token);
        prop_assert_eq!(decode::<InvitationAnswer>(&encode(&refused)).ok(), Some(refused));
    }

    #[test]
    fn a_join_survives_the_wire(
        token in ".{0,20}",
        name in ".{0,20}",
        secret in prop::collection::vec(any::<u8>(), 0..40),
        entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
    ) {
        let request = JoinRequest { token: token.clone(), secret: secret.clone(), name: name.clone(), level: 1 };
        prop_assert!(decode::<JoinRequest>(&encode(&request)).ok() == Some(request));
        let accepted = JoinAnswer::Accepted {
            fabric: secret, name, entries, labels: BTreeMap::from([("a".into(), token)]),
        };
        prop_assert!(decode::<JoinAnswer>(&encode(&accepted)).ok() == Some(accepted));
        let proof = Answer::Proof { fabric: NodeId([3; 32]), signature: [[1; 32], [2; 32]] };
        prop_assert_eq!(decode::<Answer>(&encode(&proof)).ok(), Some(proof));
    }
}
