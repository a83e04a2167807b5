use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::clock::Instant;
use crate::id::JobName;
use crate::message::Datagram;
use crate::voters::{Member, VoterSet};

const STOP: Duration = Duration::from_secs(5);

fn at(seconds: f64) -> Instant {
    Instant::at(Duration::from_secs_f64(seconds))
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn slot() -> SlotId {
    SlotId { job: JobName::new("db").unwrap(), index: 0 }
}

fn set(voters: u8) -> VoterSet {
    let members = (1..=voters).map(|n| Member { node: node(n), incarnation: 1 }).collect();
    VoterSet { generation: 1, floor: 0, quiet: true, members }
}

fn ask(epoch: u64, wish: Wish) -> Ask {
    Ask { slot: slot(), epoch, round: 1, wish }
}

const PROPOSE: Wish = Wish::Propose { stop_timeout: STOP, renewal: false };
const RENEW: Wish = Wish::Propose { stop_timeout: STOP, renewal: true };

#[test]
fn a_lock_outlasts_the_lease_and_the_stop_for_any_two_clocks_within_the_drift_bound() {
    let rate = |ppm: i64| (1_000_000 + ppm) as f64 / 1e6;
    let bound = i64::from(limits::DRIFT_PPM_MAX);
    for stop in [Duration::ZERO, STOP, limits::LEASE_STOP_MAX] {
        let slowest_holder = (limits::LEASE + stop).as_secs_f64() / rate(-bound);
        let fastest_voter = hold(stop).as_secs_f64() / rate(bound);
        let slack = limits::LEASE_SLACK.as_secs_f64() / rate(bound);
        assert!(fastest_voter - slack >= slowest_holder - 1e-6, "{stop:?}");
        assert!(hold(stop) <= longest_hold());
    }
    assert_eq!(hold(Duration::MAX), longest_hold());
}

#[test]
fn a_datagram_holds_as_many_entries_as_it_may() {
    let name = JobName::new(&"a".repeat(limits::JOB_NAME_BYTES_MAX)).unwrap();
    let slot = SlotId { job: name, index: u32::MAX };
    let long = Duration::new(u64::MAX, 999_999_999);
    let ballot = Ballot { epoch: u64::MAX, node: NodeId([0xff; 32]) };
    let wish = Wish::Propose { stop_timeout: long, renewal: true };
    let ask = Ask { slot: slot.clone(), epoch: u64::MAX, round: u64::MAX, wish };
    let verdict = Verdict::Held { by: ballot, for_another: long };
    let answer = Answer { slot, epoch: u64::MAX, round: u64::MAX, verdict };
    let asks = vec![ask; limits::LEASE_ENTRIES_MAX];
    let answers = vec![answer; limits::LEASE_ENTRIES_MAX];
    for message in [
        LeaseMessage::Asks { generation: u64::MAX, asks },
        LeaseMessage::Answers { generation: u64::MAX, answers },
    ] {
        assert!(Datagram::Lease(message).encode().len() <= limits::DATAGRAM_BYTES_MAX);
    }
}

/// A voter in one of its states: the slot unknown, promised to (5, B), locked for (5, B), a lock for (5, B)
/// that has run out, unknown below a floor of 5, and mute.
fn voter(state: &str) -> (Voter, Instant) {
    let mut voter = Voter::default();
    voter.ceiling_is_on_disk(100);
    let now = at(100.0);
    match state {
        "fresh" => {}
        "promised" => {
            assert!(voter.handle(now, node(2), &ask(5, Wish::Prepare)).is_some());
        }
        "locked" => {
            assert!(voter.handle(now, node(2), &ask(5, PROPOSE)).is_some());
        }
        "expired" => {
            assert!(voter.handle(now, node(2), &ask(5, PROPOSE)).is_some());
            return (voter, now + hold(STOP));
        }
        "floor" => {
            voter.raise_floor(5);
            voter.ceiling_is_on_disk(200);
        }
        "mute" => {
            voter.silence(now);
            return (voter, at(100.0) + longest_hold() - Duration::from_secs(1));
        }
        other => panic!("no state {other}"),
    }
    (voter, at(101.0))
}

/// Every state of a voter against every ask: from the node of the ballot (5, B) or another, with a lower, the
/// same, and a higher epoch.
#[test]
fn a_voter_in_every_state_knows_every_ask() {
    // Columns: prepare, propose, renew; in each B's own (5, B), then A with epochs 4, 5 and 6.
    let table: [(&str, [&str; 3]); 6] = [
        ("fresh", ["PPPP", "AAAA", "AAAA"]),
        ("promised", ["PbbP", "AbbA", "AbbA"]),
        ("locked", ["PbbH", "AbbH", "AbbH"]),
        ("expired", ["PbbP", "AbbA", "AbbA"]),
        ("floor", ["bbbP", "bbbA", "AAAA"]),
        ("mute", ["MMMM", "MMMM", "MMMM"]),
    ];
    for (state, rows) in table {
        for (wish, expected) in [Wish::Prepare, PROPOSE, RENEW].into_iter().zip(rows) {
            let asks = [(node(2), 5), (node(1), 4), (node(1), 5), (node(1), 6)];
            for ((from, epoch), expected) in asks.into_iter().zip(expected.chars()) {
                let (mut voter, now) = voter(state);
                let answer = voter.handle(now, from, &ask(epoch, wish.clone())).unwrap();
                let verdict = match answer.verdict {
                    Verdict::Promised => 'P',
                    Verdict::Accepted => 'A',
                    Verdict::Held { by, .. } => {
                        assert_eq!(by, Ballot { epoch: 5, node: node(2) });
                        'H'
                    }
                    Verdict::Below { at_least } => {
                        assert_eq!(at_least, 6, "{state} {wish:?} {epoch}");
                        'b'
                    }
                    Verdict::Mute { .. } => 'M',
                    other => panic!("{other:?}"),
                };
                assert_eq!(verdict, expected, "{state} {wish:?} from {from:?} epoch {epoch}");
            }
        }
    }
}

#[test]
fn a_late_release_frees_nothing_that_was_asked_for_after_it() {
    let voters = set(3);
    let (mut holder, now) = holder("owned");
    holder.release(now, &slot(), &voters);
    let release = holder.tick(now, &voters).remove(0).1;
    assert_eq!(release.wish, Wish::Release);
    // The same allocation again: the disk did not know yet that it had ended.
    holder.acquire(now, &slot(), 5, STOP);
    let prepare = holder.tick(now, &voters).remove(0).1;
    let propose = Ask { wish: PROPOSE, ..prepare };
    let mut voter = Voter::default();
    voter.ceiling_is_on_disk(100);
    voter.handle(now, node(2), &propose);
    voter.handle(now, node(2), &release);
    assert_eq!(voter.locked(now).count(), 1);
    // Its own release does.
    let release = Ask { round: propose.round + 1, ..release };
    voter.handle(now, node(2), &release);
    assert_eq!(voter.locked(now).count(), 0);
}

#[test]
fn only_the_owner_releases_a_lock() {
    let (mut voter, now) = voter("locked");
    let release = |epoch| Ask { round: 2, ..ask(epoch, Wish::Release) };
    for (from, epoch) in [(node(1), 5), (node(2), 4), (node(2), 6)] {
        voter.handle(now, from, &release(epoch));
        assert_eq!(voter.locked(now).count(), 1);
    }
    voter.handle(now, node(2), &release(5));
    assert_eq!(voter.locked(now).count(), 0);
    let next = voter.handle(now, node(1), &ask(6, PROPOSE)).unwrap();
    assert_eq!(next.verdict, Verdict::Accepted);
}

#[test]
fn a_voter_says_nothing_before_its_ceiling_is_on_disk() {
    let mut voter = Voter::default();
    assert!(voter.handle(at(1.0), node(1), &ask(7, Wish::Prepare)).is_none());
    assert_eq!(voter.wanted_ceiling(), Some(7 + limits::EPOCH_BLOCK));
    voter.ceiling_is_on_disk(7 + limits::EPOCH_BLOCK);
    assert_eq!(voter.wanted_ceiling(), None);
    assert!(voter.handle(at(1.0), node(1), &ask(7, Wish::Prepare)).is_some());
}

#[test]
fn a_restarted_voter_is_mute_for_the_longest_hold_and_grants_nothing_that_it_may_have_promised() {
    let mut voter = Voter::restored(at(10.0), 64, false);
    voter.ceiling_is_on_disk(200);
    let answer = voter.handle(at(11.0), node(1), &ask(65, PROPOSE)).unwrap();
    assert!(matches!(answer.verdict, Verdict::Mute { .. }));
    let later = at(10.0) + longest_hold();
    let answer = voter.handle(later, node(1), &ask(64, PROPOSE)).unwrap();
    assert_eq!(answer.verdict, Verdict::Below { at_least: 65 });
    // Whoever still holds a lease by his own clock held it all the time.
    let answer = voter.handle(later, node(2), &ask(3, RENEW)).unwrap();
    assert_eq!(answer.verdict, Verdict::Accepted);
}

#[test]
fn a_voter_remembers_a_bounded_number_of_slots_and_forgets_none_that_is_locked() {
    let mut voter = Voter::default();
    voter.ceiling_is_on_disk(100);
    let of = |index, wish| Ask { slot: SlotId { index, ..slot() }, epoch: 9, round: 1, wish };
    for index in 0..2 * limits::LEASES_MAX as u32 {
        let wish = if index < 10 { PROPOSE } else { Wish::Prepare };
        assert!(voter.handle(at(1.0), node(1), &of(index, wish)).is_some());
    }
    let one_more = voter.handle(at(1.0), node(1), &of(u32::MAX, Wish::Prepare)).unwrap();
    assert_eq!(one_more.verdict, Verdict::Promised);
    assert_eq!(voter.locked(at(1.0)).count(), 10);
    // What was forgotten is covered by the floor.
    let again = voter.handle(at(1.0), node(2), &of(500, PROPOSE)).unwrap();
    assert_eq!(again.verdict, Verdict::Below { at_least: 10 });
}

#[test]
fn epochs_that_no_coordinator_gives_are_not_answered() {
    let mut voter = Voter::default();
    voter.ceiling_is_on_disk(u64::MAX);
    for epoch in [0, limits::EPOCH_MAX + 1, u64::MAX] {
        assert!(voter.handle(at(1.0), node(1), &ask(epoch, PROPOSE)).is_none());
    }
}

/// A holder with three voters, in one of its states.
fn holder(state: &str) -> (Holder, Instant) {
    let (mut holder, voters) = (Holder::new(1, false), set(3));
    let mut now = at(100.0);
    holder.acquire(now, &slot(), 5, STOP);
    let yes = |holder: &mut Holder, now: Instant, verdict: Verdict| {
        for (to, ask) in holder.tick(now, &voters) {
            if to != node(3) {
                let verdict = verdict.clone();
                holder.handle(now, to, reply(&ask, verdict), &voters);
            }
        }
    };
    if state == "preparing" {
        assert_eq!(holder.tick(now, &voters).len(), 3);
    } else {
        yes(&mut holder, now, Verdict::Promised);
    }
    if matches!(state, "owned" | "renewing" | "expired") {
        yes(&mut holder, now, Verdict::Accepted);
        assert!(matches!(holder.take_outcomes()[..], [Outcome::Owned { .. }]));
    }
    match state {
        "renewing" => {
            now = now + limits::LEASE_RENEWAL;
            assert_eq!(holder.tick(now, &voters).len(), 3);
        }
        "expired" => {
            // The asks of a renewal are on their way when the lease ends.
            holder.tick(now + limits::LEASE - Duration::from_millis(1), &voters);
            now = now + limits::LEASE;
        }
        "proposing" => assert_eq!(holder.tick(now, &voters).len(), 3),
        _ => {}
    }
    (holder, now)
}

fn reply(ask: &Ask, verdict: Verdict) -> Answer {
    Answer { slot: ask.slot.clone(), epoch: ask.epoch, round: ask.round, verdict }
}

/// The round that a holder is in: what its next ask says.
fn round_of(state: &str) -> u64 {
    let steps = match state {
        "preparing" => 1,
        "proposing" | "owned" => 2,
        _ => 3,
    };
    holder::first_round(1) + steps
}

/// Every state of a holder against the same verdict from two of three voters.
#[test]
fn a_holder_in_every_state_knows_every_verdict() {
    let held = |seconds| Verdict::Held {
        by: Ballot { epoch: 4, node: node(9) },
        for_another: Duration::from_secs(seconds),
    };
    let verdicts = [
        Verdict::Promised,
        Verdict::Accepted,
        Verdict::Released,
        held(9),
        Verdict::Below { at_least: 8 },
        Verdict::Mute { for_another: STOP },
        Verdict::Full,
    ];
    // What comes out: p asks for it, o owned (anew), b is told the floor, . nothing.
    let table = [
        ("preparing", "p...b.."),
        ("proposing", ".o..b.."),
        ("owned", "......."),
        ("renewing", ".o....."),
        ("expired", "......."),
    ];
    for (state, expected) in table {
        for (verdict, expected) in verdicts.iter().zip(expected.chars()) {
            let (mut holder, now) = holder(state);
            let voters = set(3);
            for voter in [1, 2] {
                let ask = Ask { round: round_of(state), ..ask(5, Wish::Prepare) };
                holder.handle(now, node(voter), reply(&ask, verdict.clone()), &voters);
            }
            let outcomes = holder.take_outcomes();
            let asks = holder.tick(now, &voters);
            let proposes = asks.iter().any(|(_, ask)| matches!(ask.wish, Wish::Propose { .. }));
            let got = match &outcomes[..] {
                [Outcome::Owned { until, .. }] => {
                    assert!(*until <= now + limits::LEASE);
                    'o'
                }
                [Outcome::Below { at_least: 8, .. }] => 'b',
                [] if proposes && state == "preparing" => 'p',
                [] => '.',
                other => panic!("{state} {verdict:?}: {other:?}"),
            };
            assert_eq!(got, expected, "{state} {verdict:?}");
        }
    }
}

#[test]
fn one_voter_of_three_decides_nothing() {
    for state in ["preparing", "proposing"] {
        let below = Verdict::Below { at_least: 9 };
        for verdict in [Verdict::Promised, Verdict::Accepted, below] {
            if (state, &verdict) == ("preparing", &Verdict::Below { at_least: 9 }) {
                continue;
            }
            let (mut holder, now) = holder(state);
            let ask = Ask { round: round_of(state), ..ask(5, Wish::Prepare) };
            for _ in 0..3 {
                holder.handle(now, node(1), reply(&ask, verdict.clone()), &set(3));
            }
            assert_eq!(holder.take_outcomes(), [], "{state} {verdict:?}");
        }
    }
}

/// A voter that restarted has a high floor, and another one is dead: the rest would be a majority with it only.
#[test]
fn one_voter_with_a_high_floor_is_enough_to_ask_for_a_higher_epoch() {
    let (mut holder, now) = holder("preparing");
    let ask = Ask { round: round_of("preparing"), ..ask(5, Wish::Prepare) };
    let below = Verdict::Below { at_least: 65 };
    holder.handle(now, node(1), reply(&ask, below), &set(3));
    let outcomes = holder.take_outcomes();
    assert_eq!(outcomes, [Outcome::Below { slot: slot(), epoch: 5, at_least: 65 }]);
}

#[test]
fn answers_of_another_round_epoch_voter_or_life_do_not_count() {
    let voters = set(3);
    let good = Ask { round: round_of("proposing"), ..ask(5, Wish::Prepare) };
    let stale = [
        (node(1), Ask { round: good.round - 1, ..good.clone() }),
        (node(1), Ask { round: good.round - holder::first_round(1), ..good.clone() }),
        (node(1), Ask { epoch: 4, ..good.clone() }),
        (node(7), good.clone()),
    ];
    for (from, ask) in stale {
        let (mut holder, now) = holder("proposing");
        holder.handle(now, node(2), reply(&good, Verdict::Accepted), &voters);
        holder.handle(now, from, reply(&ask, Verdict::Accepted), &voters);
        assert_eq!(holder.take_outcomes(), []);
    }
}

#[test]
fn a_lease_that_has_run_out_is_not_revived_by_a_late_majority() {
    let (mut holder, now) = holder("renewing");
    let voters = set(3);
    let ask = Ask { round: round_of("renewing"), ..ask(5, Wish::Prepare) };
    let late = now - limits::LEASE_RENEWAL + limits::LEASE;
    for voter in 1..=3 {
        holder.handle(late, node(voter), reply(&ask, Verdict::Accepted), &voters);
    }
    assert_eq!(holder.take_outcomes(), []);
    assert_eq!(holder.tick(late, &voters), []);
    assert_eq!(holder.standing(late, &slot()).unwrap().until, None);
}

#[test]
fn a_lease_counts_from_the_first_asking_however_late_the_majority() {
    let (mut holder, now) = holder("proposing");
    let voters = set(3);
    let later = now + Duration::from_millis(1500);
    let asks = holder.tick(later, &voters);
    for (to, ask) in asks {
        holder.handle(later, to, reply(&ask, Verdict::Accepted), &voters);
    }
    let outcomes = holder.take_outcomes();
    let until = now + limits::LEASE;
    assert_eq!(outcomes, [Outcome::Owned { slot: slot(), epoch: 5, until }]);
}

#[test]
fn a_change_of_the_set_asks_the_new_one_at_once() {
    let (mut holder, now) = holder("owned");
    let grown = VoterSet { generation: 2, ..set(4) };
    let asks = holder.tick(now, &grown);
    assert_eq!(asks.len(), 4);
    assert!(asks.iter().all(|(_, ask)| ask.wish == RENEW));
    // Two of four are no majority.
    for (to, ask) in &asks[..2] {
        holder.handle(now, *to, reply(ask, Verdict::Accepted), &grown);
    }
    assert_eq!(holder.take_outcomes(), []);
    holder.handle(now, asks[2].0, reply(&asks[2].1, Verdict::Accepted), &grown);
    assert_eq!(holder.take_outcomes().len(), 1);
}

#[test]
fn a_holder_gives_up_when_another_renews_and_in_time_when_nobody_answers() {
    let voters = set(3);
    let (mut renewed, now) = holder("preparing");
    let held = |seconds| Verdict::Held {
        by: Ballot { epoch: 4, node: node(9) },
        for_another: Duration::from_secs(seconds),
    };
    let ask = Ask { round: round_of("preparing"), ..ask(5, Wish::Prepare) };
    renewed.handle(now, node(1), reply(&ask, held(15)), &voters);
    renewed.handle(now + STOP, node(1), reply(&ask, held(10)), &voters);
    assert_eq!(renewed.take_outcomes(), []);
    renewed.handle(now + STOP, node(1), reply(&ask, held(15)), &voters);
    assert!(matches!(renewed.take_outcomes()[..], [Outcome::GaveUp { .. }]));

    let (mut alone, now) = holder("preparing");
    alone.tick(now + attempt_max(STOP), &voters);
    assert_eq!(alone.take_outcomes(), []);
    alone.tick(now + attempt_max(STOP) + Duration::from_secs(1), &voters);
    assert!(matches!(alone.take_outcomes()[..], [Outcome::GaveUp { .. }]));
    assert_eq!(alone.slots().count(), 0);
}

#[test]
fn an_adopted_lease_is_renewed_at_once_and_one_that_has_run_out_is_not() {
    let voters = set(3);
    let mut holder = Holder::new(2, false);
    holder.adopt(at(50.0), &slot(), 5, STOP, at(51.0));
    let asks = holder.tick(at(50.0), &voters);
    assert!(asks.iter().all(|(_, ask)| ask.wish == RENEW && ask.round >> 22 == 2));
    assert_eq!(asks.len(), 3);
    let mut holder = Holder::new(2, false);
    holder.adopt(at(50.0), &slot(), 5, STOP, at(50.0));
    assert_eq!(holder.tick(at(50.0), &voters), []);
}

/// A small world for the property: voters and contenders with clocks of their own and a network that delays,
/// repeats and loses.
struct World {
    voters: Vec<Machine<Voter>>,
    holders: Vec<Machine<Holder>>,
    set: VoterSet,
    network: VecDeque<(f64, Packet)>,
    /// In world time: when each holder's unit is gone at the latest, and under which epoch it ran.
    live: BTreeMap<usize, (f64, u64)>,
    tokens: u64,
    /// What voters said is the lowest epoch that they grant.
    at_least: u64,
}

struct Machine<T> {
    rate: f64,
    it: T,
}

impl<T> Machine<T> {
    fn clock(&self, world: f64) -> Instant {
        at(1000.0 + world * self.rate)
    }
    fn world(&self, local: Instant) -> f64 {
        (local.since_origin().as_secs_f64() - 1000.0) / self.rate
    }
}

enum Packet {
    Ask(usize, usize, Ask),
    Answer(usize, usize, Answer),
}

/// What a voter may do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    Forgets,
    UsesTwice,
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u32),
    Contend(usize),
    Restart(usize),
    /// In good order: what it has granted is handed over.
    HandsOver(usize),
    HolderDies(usize),
    Releases(usize),
}

impl World {
    fn new(voters: u8, rates: &[i32]) -> Self {
        let rate = |n: usize| 1.0 + f64::from(rates[n % rates.len()]) / 1e6;
        let bound = |rate: f64| rate.clamp(0.95, 1.05);
        Self {
            voters: (0..usize::from(voters))
                .map(|n| Machine { rate: bound(rate(n)), it: Voter::default() })
                .collect(),
            holders: (0..3)
                .map(|n| Machine { rate: bound(rate(n + 3)), it: Holder::new(1, false) })
                .collect(),
            set: set(voters),
            network: VecDeque::new(),
            live: BTreeMap::new(),
            tokens: 0,
            at_least: 0,
        }
    }

    /// Everything that happens at one moment. `luck` decides about packets.
    fn moment(&mut self, time: f64, luck: &mut impl FnMut() -> u8) -> Result<(), TestCaseError> {
        for voter in &mut self.voters {
            if let Some(ceiling) = voter.it.wanted_ceiling() {
                voter.it.ceiling_is_on_disk(ceiling);
            }
        }
        for from in 0..self.holders.len() {
            let now = self.holders[from].clock(time);
            for (to, ask) in self.holders[from].it.tick(now, &self.set) {
                let to = usize::from(to.0[0]) - 1;
                self.post(time, luck, || Packet::Ask(from, to, ask.clone()));
            }
        }
        let due: Vec<(f64, Packet)> = std::mem::take(&mut self.network).into();
        for (when, packet) in due {
            if when > time {
                self.network.push_back((when, packet));
                continue;
            }
            match packet {
                Packet::Ask(from, to, ask) => {
                    let now = self.voters[to].clock(time);
                    if let Some(answer) = self.voters[to].it.handle(now, holder_id(from), &ask) {
                        self.post(time, luck, || Packet::Answer(to, from, answer.clone()));
                    }
                }
                Packet::Answer(from, to, answer) => {
                    let now = self.holders[to].clock(time);
                    let voter = node(from as u8 + 1);
                    self.holders[to].it.handle(now, voter, answer, &self.set);
                }
            }
        }
        for at in 0..self.holders.len() {
            for outcome in self.holders[at].it.take_outcomes() {
                if let Outcome::Below { at_least, .. } = outcome {
                    self.at_least = self.at_least.max(at_least);
                }
                let Outcome::Owned { epoch, until, .. } = outcome else { continue };
                let gone = self.holders[at].world(until + STOP);
                for (other, (theirs, _)) in &self.live {
                    prop_assert!(*other == at || *theirs <= time, "two live at {time}");
                }
                prop_assert!(epoch >= self.tokens, "token {epoch} after {}", self.tokens);
                self.tokens = epoch;
                self.live.insert(at, (gone, epoch));
            }
        }
        Ok(())
    }

    fn post(&mut self, time: f64, luck: &mut impl FnMut() -> u8, packet: impl Fn() -> Packet) {
        let dice = luck();
        if dice < 25 {
            return;
        }
        let delay = if dice > 245 { 30.0 } else { f64::from(dice) / 1000.0 };
        let made = packet();
        self.network.push_back((time + delay, made));
        if dice.is_multiple_of(16) {
            let again = packet();
            self.network.push_back((time + f64::from(dice) / 10.0, again));
        }
    }
}

fn holder_id(holder: usize) -> NodeId {
    node(100 + holder as u8)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..60_u32).prop_map(Step::Pass),
        4 => (0..3_usize).prop_map(Step::Contend),
        2 => (0..5_usize).prop_map(Step::Restart),
        1 => (0..5_usize).prop_map(Step::HandsOver),
        1 => (0..3_usize).prop_map(Step::HolderDies),
        1 => (0..3_usize).prop_map(Step::Releases),
    ]
}

/// What the property draws: voters, drifts in millionths, steps, and dice for the packets.
fn lives() -> impl Strategy<Value = (u8, Vec<i32>, Vec<Step>, Vec<u8>)> {
    (
        prop::sample::select(vec![1_u8, 2, 3, 4, 5]),
        prop::collection::vec(-50_000..=50_000_i32, 8),
        prop::collection::vec(step(), 1..40),
        prop::collection::vec(any::<u8>(), 257),
    )
}

/// Never two holders at any instant, and tokens only grow.
fn live_through(
    (voters, rates, steps, dice): (u8, Vec<i32>, Vec<Step>, Vec<u8>),
    bug: Option<Bug>,
) -> Result<(), TestCaseError> {
    let mut world = World::new(voters, &rates);
    let (mut time, mut epoch, mut thrown) = (0.0, 0, 0);
    let mut handed: BTreeMap<usize, (f64, Handover)> = BTreeMap::new();
    // What each voter's machine has kept of it as it went, where the end of its life does not reach it.
    let mut kept: BTreeMap<usize, (f64, Handover)> = BTreeMap::new();
    let mut luck = || {
        thrown += 1;
        dice[thrown % dice.len()]
    };
    for step in steps {
        match step {
            Step::Pass(ticks) => {
                for _ in 0..ticks {
                    time += 0.3;
                    world.moment(time, &mut luck)?;
                }
            }
            Step::Contend(holder) => {
                // Every other contender does not know of the others' epochs, nor of what the voters said.
                if luck() % 2 == 1 {
                    epoch = world.at_least.max(epoch + 1);
                }
                let machine = &mut world.holders[holder];
                let now = machine.clock(time);
                if world.live.get(&holder).is_none_or(|(gone, _)| *gone <= time) {
                    machine.it.forget(&slot());
                    machine.it.acquire(now, &slot(), epoch.max(1), STOP);
                }
            }
            Step::Restart(voter) => {
                if let Some(machine) = world.voters.get_mut(voter) {
                    let now = machine.clock(time);
                    kept.remove(&voter);
                    let forgets = bug == Some(Bug::Forgets);
                    machine.it = Voter::restored(now, machine.it.ceiling(), forgets);
                    if let Some((since, handover)) = handed.get(&voter)
                        && bug == Some(Bug::UsesTwice)
                    {
                        let mut handover = handover.clone();
                        handover.age(now.since(machine.clock(*since)));
                        machine.it.take_over(now, handover);
                    }
                }
            }
            Step::HandsOver(voter) => {
                if let Some(machine) = world.voters.get_mut(voter) {
                    let now = machine.clock(time);
                    let mut handover = machine.it.changes(now, true).expect("all of it");
                    if let Some((since, mut kept)) = kept.remove(&voter) {
                        kept.age(now.since(machine.clock(since)));
                        let all = unlocked_left_out(handover);
                        prop_assert_eq!(unlocked_left_out(kept.clone()), all);
                        handover = kept;
                    }
                    machine.it = Voter::restored(now, machine.it.ceiling(), false);
                    handed.insert(voter, (time, handover.clone()));
                    prop_assert!(machine.it.take_over(now, handover));
                }
            }
            Step::HolderDies(holder) => {
                world.holders[holder].it = Holder::new(2 + time as u64, false);
            }
            Step::Releases(holder) => {
                // Its unit has ended. It may ask under the same epoch again: its disk may not know of the end.
                let machine = &mut world.holders[holder];
                let now = machine.clock(time);
                machine.it.release(now, &slot(), &world.set);
                world.live.remove(&holder);
            }
        }
        for (voter, machine) in world.voters.iter_mut().enumerate() {
            let now = machine.clock(time);
            let Some(changes) = machine.it.changes(now, !kept.contains_key(&voter)) else {
                continue;
            };
            let all = match kept.remove(&voter) {
                None => changes,
                Some((since, mut all)) => {
                    all.age(now.since(machine.clock(since)));
                    all.absorb([changes]);
                    all
                }
            };
            kept.insert(voter, (time, all));
        }
    }
    Ok(())
}

/// A lock that has run out is none.
fn unlocked_left_out(handover: Handover) -> serde_json::Value {
    let mut value = serde_json::to_value(handover).unwrap();
    for handed in value["slots"].as_array_mut().unwrap() {
        let left: Option<(Ballot, Duration, u64)> =
            serde_json::from_value(handed["lock"].take()).unwrap();
        // To a microsecond: it was aged piece by piece, and clocks count in floating point here.
        let left = left.filter(|(_, left, _)| *left > Duration::from_micros(10));
        handed["lock"] = match left {
            None => serde_json::Value::Null,
            Some((ballot, left, round)) => {
                serde_json::json!([ballot, (left.as_secs_f64() * 1e4).round(), round])
            }
        };
    }
    let mute: Duration = serde_json::from_value(value["mute"].take()).unwrap();
    value["mute"] = (mute.as_secs_f64() * 1e4).round().into();
    value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn never_two_holders_and_tokens_only_grow(life in lives()) {
        live_through(life, None)?;
    }
}

#[test]
fn the_property_finds_a_voter_that_forgets() {
    let config = ProptestConfig { cases: 16_384, failure_persistence: None, ..Default::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(config, rng);
    let found = runner.run(&lives(), |life| live_through(life, Some(Bug::Forgets)));
    let found = found.unwrap_err().to_string();
    assert!(found.contains("two live"), "{found}");
}

#[test]
fn what_was_handed_over_is_used_once() {
    use Step::*;
    let steps = [HandsOver(0), Contend(0), Pass(10), Restart(0), Contend(1), Pass(10)];
    let life = || (1, vec![0], steps.to_vec(), vec![31]);
    live_through(life(), None).unwrap();
    let found = live_through(life(), Some(Bug::UsesTwice)).unwrap_err().to_string();
    assert!(found.contains("two live"), "{found}");
}

#[test]
fn a_voter_goes_on_where_the_one_of_the_life_before_has_ended() {
    let later = Duration::from_secs(2);
    let next = |state| {
        let (mut before, now) = voter(state);
        let mut next = Voter::restored(now, before.ceiling(), false);
        let handover = before.changes(now, true).unwrap();
        assert_eq!(before.changes(now, false), None, "nothing has changed since");
        // As another agent of the same machine reads it.
        let text = serde_json::to_string(&handover).unwrap();
        let mut handover: Handover = serde_json::from_str(&text).unwrap();
        handover.age(later);
        assert!(next.take_over(now + later, handover));
        (next, now + later)
    };
    let (mut locked, now) = next("locked");
    let held = locked.handle(now, node(1), &ask(6, PROPOSE)).unwrap().verdict;
    // It was locked a second before the end of the life before.
    let for_another = hold(STOP) - Duration::from_secs(1) - later;
    assert_eq!(held, Verdict::Held { by: Ballot { epoch: 5, node: node(2) }, for_another });
    let mine = locked.handle(now, node(2), &ask(5, PROPOSE)).unwrap().verdict;
    assert_eq!(mine, Verdict::Accepted, "it is renewed at once");
    let (mut promised, now) = next("promised");
    let below = promised.handle(now, node(1), &ask(4, PROPOSE)).unwrap().verdict;
    assert_eq!(below, Verdict::Below { at_least: 6 });
    // Who was mute stays so for the rest of the time.
    let (mute, now) = next("mute");
    assert_eq!(mute.mute_for(now), None, "it had a second left");
    // A disk that knows of less is an older one.
    let (mut before, now) = voter("locked");
    let mut old = Voter::restored(now, 4, false);
    assert!(!old.take_over(now, before.changes(now, true).unwrap()));
    assert!(old.mute_for(now).is_some());
}

#[test]
fn a_lease_that_is_to_run_out_is_not_renewed() {
    let voters = set(3);
    for state in ["owned", "renewing"] {
        let (mut holder, now) = holder(state);
        holder.let_run_out(&slot());
        assert_eq!(holder.tick(now + limits::LEASE_RENEWAL, &voters), []);
        let ask = Ask { round: round_of(state), ..ask(5, Wish::Prepare) };
        for voter in [1, 2] {
            holder.handle(now, node(voter), reply(&ask, Verdict::Accepted), &voters);
        }
        assert_eq!(holder.take_outcomes(), []);
        // Once the unit is gone a successor need not wait.
        holder.release(now, &slot(), &voters);
        let asks = holder.tick(now, &voters);
        assert!(asks.len() == 3 && asks.iter().all(|(_, ask)| ask.wish == Wish::Release));
    }
}
