use super::*;
use proptest::prelude::*;

const ALICE: NodeId = NodeId([1; 32]);
const BOB: NodeId = NodeId([2; 32]);

fn keyring(ids: &[u32]) -> Keyring {
    Keyring { keys: ids.iter().map(|&id| (id, [id as u8; 32])).collect() }
}

fn seal(id: NodeId, generation: u64, keys: &[u32]) -> Seal {
    let mut seal = Seal::new(id, Start::new(generation).expect("random numbers"));
    seal.trust(&keyring(keys), |_| true);
    seal
}

#[test]
fn a_member_hears_a_member() {
    let (mut alice, mut bob) = (seal(ALICE, 1, &[1]), seal(BOB, 1, &[1]));
    for payload in [&b""[..], b"hello", &[0xa5; DATAGRAM_BYTES_MAX]] {
        let datagram = alice.seal(&BOB, payload).expect("sealed");
        assert_eq!(datagram.len(), payload.len() + SEAL_BYTES);
        assert!(payload.is_empty() || !datagram.windows(payload.len()).any(|part| part == payload));
        assert_eq!(bob.open(&datagram, |_| true), Ok((ALICE, payload.to_vec())));
    }
    assert_eq!(bob.counters(), SealCounters { opened: 3, ..Default::default() });
}

#[test]
fn a_datagram_for_another_member_is_refused() {
    let carol = NodeId([3; 32]);
    let (mut alice, mut bob, mut third) =
        (seal(ALICE, 1, &[1]), seal(BOB, 1, &[1]), seal(carol, 1, &[1]));
    let datagram = alice.seal(&BOB, b"for bob").expect("sealed");
    assert_eq!(third.open(&datagram, |_| true), Err(Refusal::Forged));
    assert_eq!(third.counters(), SealCounters { forged: 1, ..Default::default() });
    // It left no trace there: what is meant for the third one opens, counter and all.
    assert!(third.senders.is_empty());
    assert!(bob.open(&datagram, |_| true).is_ok());
    let datagram = alice.seal(&carol, b"for carol").expect("sealed");
    assert_eq!(third.open(&datagram, |_| true), Ok((ALICE, b"for carol".to_vec())));
    assert_eq!(bob.open(&datagram, |_| true), Err(Refusal::Forged));
}

#[test]
fn the_first_byte_is_no_quic_packet() {
    let datagram = seal(ALICE, 1, &[1]).seal(&BOB, b"x").expect("sealed");
    assert_eq!(datagram[0] & 0x40, 0);
}

#[test]
fn nothing_is_sealed_without_a_key_or_beyond_the_limit() {
    let mut nobody = Seal::new(ALICE, Start::new(1).expect("random numbers"));
    assert_eq!(nobody.seal(&BOB, b"x"), Err(SealError::NoKey));
    let mut alice = seal(ALICE, 1, &[1]);
    let long = vec![0; DATAGRAM_BYTES_MAX + 1];
    assert_eq!(alice.seal(&BOB, &long), Err(SealError::TooLong(DATAGRAM_BYTES_MAX + 1)));
}

#[test]
fn the_newest_key_seals_and_all_keys_open() {
    let (mut alice, mut bob) = (seal(ALICE, 1, &[1]), seal(BOB, 1, &[1, 2]));
    let old = alice.seal(&BOB, b"old").expect("sealed");
    alice.trust(&keyring(&[1, 2]), |_| true);
    let new = alice.seal(&BOB, b"new").expect("sealed");
    assert_eq!(new[KEY_ID..SENDER], 2u32.to_be_bytes());
    assert_eq!(bob.open(&new, |_| true), Ok((ALICE, b"new".to_vec())));
    assert_eq!(bob.open(&old, |_| true), Ok((ALICE, b"old".to_vec())));
    // The counter goes on across keys, so a replay is one under either key.
    assert_eq!(bob.open(&new, |_| true), Err(Refusal::Replayed));
    assert_eq!(bob.open(&old, |_| true), Err(Refusal::Replayed));
    let mut removed = seal(NodeId([3; 32]), 1, &[1]);
    let new = alice.seal(&removed.id, b"new").expect("sealed");
    assert_eq!(removed.open(&new, |_| true), Err(Refusal::UnknownKey(2)));
    assert_eq!(removed.counters().unknown_key, 1);
    bob.trust(&keyring(&[2]), |_| true);
    let late = removed.seal(&BOB, b"late").expect("sealed");
    assert_eq!(bob.open(&late, |_| true), Err(Refusal::UnknownKey(1)));
}

#[test]
fn only_members_are_heard() {
    let (mut alice, mut bob) = (seal(ALICE, 1, &[1]), seal(BOB, 1, &[1]));
    let datagram = alice.seal(&BOB, b"x").expect("sealed");
    assert_eq!(bob.open(&datagram, |_| false), Err(Refusal::NotMember(ALICE)));
    assert_eq!(bob.counters().not_member, 1);
    // It was not used up by that.
    assert!(bob.open(&datagram, |_| true).is_ok());
    bob.trust(&keyring(&[1]), |node| *node != ALICE);
    assert!(bob.senders.is_empty());
}

#[test]
fn a_replay_is_refused_in_any_order() {
    let (mut alice, mut bob) = (seal(ALICE, 1, &[1]), seal(BOB, 1, &[1]));
    let sent: Vec<_> = (0..600).map(|_| alice.seal(&BOB, b"x").expect("sealed")).collect();
    // Late by less than the window is fine, once.
    for order in [&sent[10..20], &sent[0..10], &sent[200..201], &sent[20..200]] {
        for datagram in order {
            assert!(bob.open(datagram, |_| true).is_ok());
        }
    }
    for datagram in &sent[..201] {
        assert_eq!(bob.open(datagram, |_| true), Err(Refusal::Replayed));
    }
    // A jump beyond the window: what lies below it cannot be told from a replay.
    assert!(bob.open(&sent[599], |_| true).is_ok());
    assert_eq!(bob.open(&sent[300], |_| true), Err(Refusal::Replayed));
    assert!(bob.open(&sent[599 - REPLAY_WINDOW as usize + 1], |_| true).is_ok());
    assert_eq!(bob.open(&sent[599 - REPLAY_WINDOW as usize], |_| true), Err(Refusal::Replayed));
    assert_eq!(bob.counters().replayed, 201 + 2);
}

#[test]
fn datagrams_of_an_earlier_start_are_refused() {
    let mut bob = seal(BOB, 1, &[1]);
    let old = seal(ALICE, 7, &[1]).seal(&BOB, b"old").expect("sealed");
    assert!(bob.open(&old, |_| true).is_ok());
    let new = seal(ALICE, 8, &[1]).seal(&BOB, b"new").expect("sealed");
    assert!(bob.open(&new, |_| true).is_ok());
    assert!(bob.has_started_anew(&ALICE) && !bob.has_started_anew(&ALICE));
    let other_old = seal(ALICE, 7, &[1]).seal(&BOB, b"other").expect("sealed");
    for datagram in [&old, &other_old] {
        assert_eq!(bob.open(datagram, |_| true), Err(Refusal::Outdated(ALICE)));
    }
    // Nobody else can say so.
    let mut forged = other_old.clone();
    forged[HEADER_BYTES] ^= 1;
    assert_eq!(bob.open(&forged, |_| true), Err(Refusal::Forged));
    assert_eq!(
        bob.counters(),
        SealCounters { opened: 2, outdated: 2, forged: 1, ..Default::default() }
    );
}

#[test]
fn of_two_starts_that_count_alike_everybody_listens_to_the_same_one() {
    let (one, two) = (seal(ALICE, 7, &[1]), seal(ALICE, 7, &[1]));
    let (mut less, mut greater) = if one.start < two.start { (one, two) } else { (two, one) };
    let send = |from: &mut Seal| from.seal(&BOB, b"x").expect("sealed");
    for less_is_first in [true, false] {
        let mut bob = seal(BOB, 1, &[1]);
        if less_is_first {
            assert!(bob.open(&send(&mut less), |_| true).is_ok());
        }
        assert!(bob.open(&send(&mut greater), |_| true).is_ok());
        assert_eq!(bob.open(&send(&mut less), |_| true), Err(Refusal::Outdated(ALICE)));
        assert_eq!(bob.start_of(&ALICE), Some(greater.start));
    }
}

#[test]
fn a_start_that_was_renewed_is_heard_again() {
    let (mut alice, mut bob) = (seal(ALICE, 7, &[1]), seal(BOB, 1, &[1]));
    assert!(bob.open(&seal(ALICE, 9, &[1]).seal(&BOB, b"copy").expect("sealed"), |_| true).is_ok());
    let unheard = alice.seal(&BOB, b"x").expect("sealed");
    assert_eq!(bob.open(&unheard, |_| true), Err(Refusal::Outdated(ALICE)));
    alice.renew(Start::new(10).expect("random numbers"));
    assert!(bob.open(&alice.seal(&BOB, b"x").expect("sealed"), |_| true).is_ok());
}

#[test]
fn a_forged_generation_does_not_lock_a_sender_out() {
    let (mut alice, mut bob) = (seal(ALICE, 7, &[1]), seal(BOB, 1, &[1]));
    let mut forged = alice.seal(&BOB, b"x").expect("sealed");
    forged[GENERATION..SALT].copy_from_slice(&u64::MAX.to_be_bytes());
    assert_eq!(bob.open(&forged, |_| true), Err(Refusal::Forged));
    let honest = alice.seal(&BOB, b"x").expect("sealed");
    assert!(bob.open(&honest, |_| true).is_ok());
    forged[GENERATION..SALT].copy_from_slice(&7u64.to_be_bytes());
    forged[COUNTER..HEADER_BYTES].copy_from_slice(&u64::MAX.to_be_bytes());
    assert_eq!(bob.open(&forged, |_| true), Err(Refusal::Forged));
    let honest = alice.seal(&BOB, b"x").expect("sealed");
    assert!(bob.open(&honest, |_| true).is_ok());
}

#[test]
fn our_own_datagrams_are_not_news() {
    let mut alice = seal(ALICE, 1, &[1]);
    let datagram = alice.seal(&BOB, b"x").expect("sealed");
    assert_eq!(alice.open(&datagram, |_| true), Err(Refusal::Replayed));
}

#[test]
fn two_starts_never_share_a_key() {
    let (one, two) = (seal(ALICE, 1, &[1]), seal(ALICE, 1, &[1]));
    assert_ne!(one.sealing, two.sealing);
    assert_ne!(one.sealing, seal(BOB, 1, &[1]).sealing);
}

#[test]
fn the_format_does_not_change_unnoticed() {
    let mut alice = seal(ALICE, 3, &[9]);
    alice.start.salt = [5; 8];
    alice.trust(&keyring(&[9]), |_| true);
    let datagram = alice.seal(&BOB, b"weft").expect("sealed");
    assert_eq!(datagram[..HEADER_BYTES].len(), 61);
    assert_eq!(
        data_encoding::HEXLOWER.encode(&datagram),
        "01000000090101010101010101010101010101010101010101010101010101010101010101\
         000000000000000305050505050505050000000000000001183ddb1c0cb660db99523aefdf395987ff95bd67"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut bob = seal(BOB, 1, &[1]);
        prop_assert!(bob.open(&bytes, |_| true).is_err());
        prop_assert!(bob.senders.is_empty());
    }

    #[test]
    fn arbitrary_bytes_behind_a_true_header_change_nothing(
        bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES - SENDER..1500)
    ) {
        let mut bob = seal(BOB, 1, &[1]);
        let mut datagram = vec![SEAL_VERSION, 0, 0, 0, 1];
        datagram.extend_from_slice(&bytes);
        prop_assert!(bob.open(&datagram, |_| true).is_err());
        prop_assert!(bob.senders.is_empty());
    }

    #[test]
    fn any_flipped_bit_is_refused(
        payload in prop::collection::vec(any::<u8>(), 0..100),
        at in any::<prop::sample::Index>(),
    ) {
        let (mut alice, mut bob) = (seal(ALICE, 1, &[1]), seal(BOB, 1, &[1]));
        let mut datagram = alice.seal(&BOB, &payload).expect("sealed");
        let bit = at.index(datagram.len() * 8);
        datagram[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(bob.open(&datagram, |_| true).is_err());
        datagram[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(bob.open(&datagram, |_| true), Ok((ALICE, payload)));
    }

    #[test]
    fn any_cut_is_refused(keep in 0usize..SEAL_BYTES + 50) {
        let (mut alice, mut bob) = (seal(ALICE, 1, &[1]), seal(BOB, 1, &[1]));
        let datagram = alice.seal(&BOB, &[3; 50]).expect("sealed");
        prop_assert!(bob.open(&datagram[..keep.min(datagram.len() - 1)], |_| true).is_err());
    }

    /// The window agrees with a set of everything that was accepted.
    #[test]
    fn a_counter_is_accepted_once_and_only_inside_the_window(
        steps in prop::collection::vec(-300i64..300, 1..400)
    ) {
        let (mut window, mut accepted) = (Window::default(), std::collections::BTreeSet::new());
        let mut counter = 1000i64;
        for step in steps {
            counter = (counter + step).max(0);
            let number = counter as u64;
            let highest = accepted.last().copied().unwrap_or(0);
            let expected = number > highest
                || (number != 0 && number + REPLAY_WINDOW > highest && !accepted.contains(&number));
            prop_assert_eq!(window.is_fresh(number), expected, "{} of {}", number, highest);
            if expected {
                window.mark(number);
                accepted.insert(number);
            }
        }
    }
}
