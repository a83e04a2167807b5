use super::*;
use rand::SeedableRng;

fn network(quality: Quality) -> Network {
    Network::new(quality, ChaCha8Rng::seed_from_u64(7))
}

#[test]
fn a_one_way_split_loses_datagrams_one_way_and_streams_both_ways() {
    let mut network = network(Quality::default());
    network.block(&[0], &[1]);
    assert!(network.datagram(0, 1).is_empty());
    assert_eq!(network.datagram(1, 0).len(), 1);
    assert_eq!(network.stream(0, 1, 10), None);
    assert_eq!(network.stream(1, 0, 10), None);
    assert!(network.stream(1, 2, 10).is_some());
}

#[test]
fn overlapping_splits_end_one_by_one() {
    let mut network = network(Quality::default());
    network.block(&[0, 1], &[2]);
    network.block(&[0], &[1, 2]);
    network.unblock(&[0, 1], &[2]);
    assert!(!network.reaches(0, 2));
    assert!(network.reaches(1, 2));
    network.unblock(&[0], &[1, 2]);
    assert!(network.reaches(0, 2) && network.reaches(0, 1));
}

#[test]
fn loss_and_repetition_are_about_as_frequent_as_asked_for() {
    let quality = Quality { loss_permille: 200, repeat_permille: 100, ..Quality::default() };
    let mut network = network(quality);
    let copies: Vec<usize> = (0..10_000).map(|_| network.datagram(0, 1).len()).collect();
    let count = |n| copies.iter().filter(|copies| **copies == n).count();
    assert!((1700..2300).contains(&count(0)), "{} lost", count(0));
    assert!((600..1000).contains(&count(2)), "{} twice", count(2));
}

#[test]
fn a_stream_over_a_path_that_loses_everything_is_lost() {
    let mut network = network(Quality { loss_permille: 1000, ..Quality::default() });
    assert_eq!(network.stream(0, 1, 10), None);
}
