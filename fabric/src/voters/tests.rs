use proptest::prelude::*;

use super::*;
use std::time::Duration;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn member(n: u8) -> Member {
    Member { node: node(n), incarnation: u64::from(n) }
}

fn set(members: &[u8]) -> VoterSet {
    let members = members.iter().map(|n| member(*n)).collect();
    VoterSet { generation: 4, floor: 10, quiet: false, members }
}

fn at(seconds: u64) -> Instant {
    Instant::at(Duration::from_secs(seconds))
}

const LONG_AGO: Option<Instant> = None;

#[test]
fn any_majority_of_a_set_meets_any_majority_of_the_next() {
    let subsets = |members: &[Member], size: usize| {
        (0..1_u32 << members.len())
            .filter(|bits| bits.count_ones() as usize == size)
            .map(|bits| {
                let chosen = members.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
                chosen.map(|(_, member)| *member).collect::<BTreeSet<_>>()
            })
            .collect::<Vec<_>>()
    };
    for size in 1..=limits::VOTERS_MAX as u8 {
        let before = set(&(1..=size).collect::<Vec<_>>());
        let larger = before.with(member(9));
        let smaller = before.without(&node(1));
        for next in [larger, smaller] {
            if !before.may_be_followed_by(&next) {
                assert!(next.is_empty() || next.len() > limits::VOTERS_MAX);
                continue;
            }
            let after = before.followed_by(next, 0, false);
            for one in subsets(&before.members, before.majority()) {
                for other in subsets(&after.members, after.majority()) {
                    assert!(!one.is_disjoint(&other), "{one:?} {other:?}");
                }
            }
        }
    }
}

#[test]
fn a_set_is_followed_by_one_voter_more_or_less_and_by_nothing_else() {
    let now = set(&[1, 2, 3]);
    let good: [&[u8]; 4] = [&[1, 2, 3, 4], &[1, 2], &[1, 3], &[0, 1, 2, 3]];
    let bad: [&[u8]; 6] = [&[1, 2, 3], &[1, 2, 4], &[1], &[], &[1, 2, 3, 4, 5], &[2, 1]];
    for next in good {
        assert!(now.may_be_followed_by(&set(next).members), "{next:?}");
    }
    for next in bad {
        assert!(!now.may_be_followed_by(&set(next).members), "{next:?}");
    }
    // A voter that lost its disk is another one: first out, then in again.
    let reborn = Member { incarnation: 77, ..member(3) };
    assert!(!now.may_be_followed_by(&[member(1), member(2), reborn]));
    let five = set(&[1, 2, 3, 4, 5]);
    assert!(!five.may_be_followed_by(&five.with(member(6))));
}

#[test]
fn a_declared_set_is_of_another_era_and_far_above() {
    let now = set(&[1, 2, 3]);
    let declared = now.declared(vec![member(3)], 500);
    assert!(declared.is_proper() && declared.is_of_another_era(&now));
    assert!(declared.generation > now.generation);
    assert!(declared.floor >= 500 + limits::EPOCH_FORCED_JUMP);
    assert!(!now.may_be_followed_by(&declared.members));
}

/// Every state of an acceptor against every message: p promises, a accepts, r refuses, . says nothing.
#[test]
fn an_acceptor_in_every_state_knows_every_message() {
    let known = set(&[1, 2, 3]);
    let attempt = |number| Attempt { number, node: node(1) };
    let next = known.with(member(4));
    let acceptor = |state| Acceptor {
        generation: 4,
        promised: (state != "fresh").then(|| attempt(5)),
        accepted: (state == "accepted").then(|| (attempt(5), next.clone())),
    };
    let table = [("fresh", "ppp aaa .."), ("promised", "rpp raa .."), ("accepted", "rpp raa ..")];
    for (state, expected) in table {
        let prepares =
            [4, 5, 6].map(|number| Change::Prepare { generation: 4, attempt: attempt(number) });
        let accepts = [4, 5, 6].map(|number| Change::Accept {
            generation: 4,
            attempt: attempt(number),
            members: next.clone(),
        });
        let stale = [
            Change::Prepare { generation: 3, attempt: attempt(9) },
            Change::Accept { generation: 5, attempt: attempt(9), members: next.clone() },
        ];
        let changes = prepares.into_iter().chain(accepts).chain(stale);
        for (change, expected) in changes.zip(expected.chars().filter(|c| *c != ' ')) {
            let mut acceptor = acceptor(state);
            let before = acceptor.clone();
            let answer = acceptor.handle(at(100), &change, &known, LONG_AGO, 70, false);
            let got = match &answer {
                Some(Change::Promise { accepted, .. }) => {
                    assert_eq!(*accepted, before.accepted);
                    'p'
                }
                Some(Change::Accepted { ceiling: 70, .. }) => 'a',
                Some(Change::Refused { promised, .. }) => {
                    assert_eq!(Some(*promised), before.promised);
                    'r'
                }
                None => '.',
                other => panic!("{other:?}"),
            };
            assert_eq!(got, expected, "{state} {change:?}");
            assert!(acceptor.promised >= before.promised);
            assert_eq!(acceptor.is_bound(&known), state == "accepted" || got == 'a');
        }
    }
}

#[test]
fn the_set_after_next_waits_until_leases_of_this_one_are_over() {
    let known = set(&[1, 2, 3]);
    let attempt = Attempt { number: 1, node: node(1) };
    let members = known.with(member(4));
    let accept = Change::Accept { generation: 4, attempt, members };
    let since = at(100);
    let mut acceptor = Acceptor::default();
    let early = since + lease::longest_hold() - Duration::from_millis(1);
    assert_eq!(acceptor.handle(early, &accept, &known, Some(since), 0, true), None);
    assert!(!acceptor.is_bound(&known));
    // Not even promised: whoever accepts before a majority can is bound, and waits.
    let prepare = Change::Prepare { generation: 4, attempt };
    assert_eq!(acceptor.handle(early, &prepare, &known, Some(since), 0, true), None);
    assert_eq!(acceptor, Acceptor { generation: 4, ..Acceptor::default() });
    let late = since + lease::longest_hold();
    assert!(acceptor.handle(late, &accept, &known, Some(since), 0, true).is_some());
}

/// Several proposers, any order, loss and repetition: at most one set is ever chosen, and its floor covers
/// what any of those that accepted may have granted.
#[derive(Debug)]
struct Vote {
    acceptors: Vec<Acceptor>,
    ceilings: Vec<u64>,
    chosen: Option<Vec<Member>>,
}

proptest! {
    #[test]
    fn at_most_one_next_set_is_chosen(
        size in 1..=5_u8,
        ceilings in prop::collection::vec(0..1000_u64, 5),
        steps in prop::collection::vec((0..3_usize, 0..5_usize, 0..10_u8), 1..200),
    ) {
        let known = set(&(1..=size).collect::<Vec<_>>());
        let mut vote = Vote {
            acceptors: vec![Acceptor::default(); usize::from(size)],
            ceilings: ceilings[..usize::from(size)].to_vec(),
            chosen: None,
        };
        let mut number = 0;
        let wishes = [Wish::Add(member(8)), Wish::Drop(node(1)), Wish::Add(member(9))];
        let mut proposers: Vec<Proposer> = (0..3)
            .map(|n| Proposer::new(at(0), node(50 + n), 0, &known, wishes[usize::from(n)]))
            .collect();
        for (who, to, luck) in steps {
            if luck == 0 {
                number += 1;
                proposers[who] =
                    Proposer::new(at(0), node(50 + who as u8), number, &known, wishes[who]);
                continue;
            }
            let to = to % usize::from(size);
            let said = proposers[who].say();
            let ceiling = vote.ceilings[to];
            let answer = vote.acceptors[to].handle(at(0), &said, &known, LONG_AGO, ceiling, ceiling.is_multiple_of(2));
            let Some(answer) = answer.filter(|_| luck > 2) else { continue };
            let from = node(to as u8 + 1);
            if let Some(next) = proposers[who].hear(from, &answer, &known) {
                prop_assert!(next.is_proper() && next.generation == 5);
                let before = vote.chosen.get_or_insert(next.members.clone());
                prop_assert_eq!(&*before, &next.members);
                // Any majority that granted an epoch has a voter among those that accepted.
                let covered = vote.ceilings.iter().filter(|ceiling| **ceiling <= next.floor);
                prop_assert!(covered.count() >= known.majority());
                let quiet = vote.ceilings.iter().filter(|ceiling| ceiling.is_multiple_of(2));
                prop_assert!(!next.quiet || quiet.count() >= known.majority());
            }
        }
    }
}
