use proptest::prelude::*;

use super::*;
use crate::clock::WallTime;
use crate::id::JobName;
use crate::table::{JobEntry, Keyring, Previous, RosterEntry, TokenEntry, TokenId};
use crate::voters::{Member, VoterSet};

const FABRIC: FabricKey = NodeId([9; 32]);
const ALICE: NodeId = NodeId([1; 32]);
const BOB: NodeId = NodeId([2; 32]);

fn signer(own: NodeId) -> HashSigner {
    HashSigner::new(7, own)
}

fn stamp(node: NodeId) -> Stamp {
    Stamp { reading: 0x1234_5678, node }
}

/// As Alice writes it.
fn written(key: Key, value: Value) -> Entry {
    Entry::written(&FABRIC, &signer(ALICE), key, stamp(ALICE), value)
}

fn roster(of: NodeId, name: &str) -> Entry {
    let value = RosterEntry { name: name.into(), vouched_by: ALICE, joined: WallTime(7) };
    written(Key::Roster(of), Value::Roster(value))
}

fn job(reverted: bool) -> Entry {
    let spec = crate::job::parse("name='a'\n[task]\ncommand=['/bin/true']").unwrap();
    let previous = Previous { spec: spec.clone(), version: 1, generation: 0 };
    let job = JobEntry {
        spec,
        version: 2,
        generation: 0,
        previous: Some(Box::new(previous)),
        reverted,
        by: "me".into(),
    };
    written(Key::Job(JobName::new("a").unwrap()), Value::Job(Box::new(job)))
}

/// One of each kind that is signed.
fn rows() -> Vec<Entry> {
    let token =
        TokenEntry { secret_hash: [5; 32], expires: WallTime(9), labels: Default::default() };
    let keyring = Keyring { keys: [(1, [1; 32])].into() };
    let voters = VoterSet::founded(Member { node: ALICE, incarnation: 3 });
    let quota = crate::quota::Quota { cpu_millis: Some(8000), ..Default::default() };
    vec![
        roster(BOB, "b"),
        job(false),
        job(true),
        written(Key::Keyring, Value::Keyring(keyring)),
        written(Key::Token(TokenId("t".into())), Value::Token(token)),
        written(Key::Voters, Value::Voters(voters)),
        written(Key::Quota(Default::default()), Value::Quota(quota)),
        written(Key::Roster(BOB), Value::Tombstone { rank: 0 }),
    ]
}

fn is_authentic(entry: &Entry) -> bool {
    // Whoever checks it is somebody else.
    entry.is_authentic(&FABRIC, &signer(BOB))
}

#[test]
fn what_was_signed_holds_also_after_a_journey() {
    for entry in rows() {
        assert!(entry.is_proper() && is_authentic(&entry), "{:?}", entry.key);
        let entry = Entry::decode(&entry.encode()).unwrap();
        assert!(is_authentic(&entry), "{:?}", entry.key);
    }
}

#[test]
fn what_was_changed_does_not_hold() {
    for good in rows() {
        let with = |change: &dyn Fn(&mut Entry)| {
            let mut entry = good.clone();
            change(&mut entry);
            is_authentic(&entry)
        };
        assert!(with(&|_| {}));
        assert!(!with(&|entry| entry.key = Key::Roster(NodeId([8; 32]))), "another key");
        assert!(!with(&|entry| entry.stamp.node = BOB), "another name");
        assert!(!with(&|entry| entry.stamp.reading += 1), "another time");
        assert!(!with(&|entry| entry.value = Value::Tombstone { rank: 77 }), "another value");
        assert!(!with(&|entry| entry.signature = None), "none");
        assert!(!with(&|entry| entry.signature = roster(ALICE, "x").signature), "another row's");
        assert!(!good.is_authentic(&NodeId([8; 32]), &signer(BOB)), "another fabric");
    }
}

#[test]
fn nobody_signs_for_another() {
    let Entry { key, value, .. } = roster(BOB, "b");
    let forged = Entry::written(&FABRIC, &signer(BOB), key, stamp(ALICE), value);
    assert!(forged.is_proper() && !is_authentic(&forged));
}

#[test]
fn a_mark_that_the_version_failed_keeps_its_submitters_signature() {
    let mut row = job(false);
    let Value::Job(job) = &mut row.value else { panic!("a job") };
    job.reverted = true;
    assert!(is_authentic(&row), "whoever marks it");
    let Value::Job(job) = &mut row.value else { panic!("a job") };
    job.previous = None;
    assert!(!is_authentic(&row), "what is gone back to is the submitter's");
}

#[test]
fn what_has_an_owner_is_not_signed() {
    let entry = written(Key::Node(ALICE), Value::Node(Box::default()));
    assert!(entry.signature.is_none() && entry.is_proper() && is_authentic(&entry));
    let signed = Entry { signature: roster(BOB, "b").signature, ..entry };
    assert!(!signed.is_proper() && !is_authentic(&signed));
}

#[test]
fn a_row_without_a_signature_pays_a_pointer_and_a_byte() {
    assert_eq!(size_of::<Option<Signature>>(), size_of::<usize>());
    let plain = written(Key::Node(ALICE), Value::Node(Box::default()));
    let mut signed = plain.clone();
    signed.signature = Some(Signature::new([0; SIGNATURE_BYTES]));
    assert_eq!(signed.encode().len(), plain.encode().len() + SIGNATURE_BYTES);
}

proptest! {
    /// Whatever byte of a row is changed on its way: it does not hold, or it says the same.
    #[test]
    fn a_changed_byte_is_noticed(which in 0..8usize, at in 0..2000usize, flip in 1..=255u8) {
        let good = rows().swap_remove(which);
        let mut bytes = good.encode();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(mut entry) = Entry::decode(&bytes) {
            if let (Value::Job(job), Value::Job(before)) = (&mut entry.value, &good.value) {
                job.reverted = before.reverted;
            }
            prop_assert!(entry == good || !is_authentic(&entry));
        }
    }
}
