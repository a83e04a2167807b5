use super::*;

const YEAR_MS: i64 = 365 * 86_400_000;
const START_MS: u64 = 1_800_000_000_000;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// The true time after `seconds`, on a clock that is `off_ms` off.
fn now(seconds: u64, off_ms: i64) -> Now {
    let wall = WallTime((START_MS + seconds * 1000).saturating_add_signed(off_ms));
    Now { at: Instant::at(Duration::from_secs(seconds)), wall }
}

fn reading(seconds: u64, off_ms: i64, horizon: u64) -> ClockReading {
    ClockReading { wall: now(seconds, off_ms).wall, horizon: WallTime(horizon) }
}

fn off_by_ms(time: Now) -> i64 {
    time.wall.0 as i64 - now(time.at.since_origin().as_secs(), 0).wall.0 as i64
}

#[test]
fn a_clock_alone_against_two_is_not_the_time() {
    for off_ms in [50 * YEAR_MS, -5 * YEAR_MS, -60 * YEAR_MS, 7_200_000] {
        let mut keeper = Timekeeper::default();
        keeper.hear(now(1, 0).at, node(2), reading(1, 0, 0));
        keeper.hear(now(1, 0).at, node(3), reading(1, 500, 0));
        let time = keeper.read(now(2, off_ms), 3, WallTime(0));
        assert!((0..=500).contains(&off_by_ms(time)), "{off_ms}: {time:?}");
        assert_eq!(keeper.consent(), Consent::Majority);
        let off = keeper.differences(now(2, off_ms), node(1));
        assert_eq!(off.iter().filter(|(_, ahead)| ahead.abs() > 30_000).count(), 1);
    }
}

#[test]
fn a_wrong_clock_that_is_heard_first_is_not_believed() {
    let mut keeper = Timekeeper::default();
    keeper.hear(now(1, 0).at, node(2), reading(1, 50 * YEAR_MS, 0));
    let time = keeper.read(now(2, 0), 3, WallTime(START_MS - 5000));
    assert_eq!((off_by_ms(time), keeper.consent()), (0, Consent::Unsure));
    // And one that is years behind does not stop the time that the fabric has reached.
    let mut keeper = Timekeeper::default();
    keeper.read(now(1, 0), 1, WallTime(START_MS));
    keeper.hear(now(1, 0).at, node(2), reading(1, -5 * YEAR_MS, START_MS));
    let time = keeper.read(now(100, 0), 2, WallTime(START_MS));
    assert_eq!((off_by_ms(time), keeper.consent()), (0, Consent::Unsure));
}

#[test]
fn two_that_disagree_go_on_from_where_they_agreed() {
    let mut keeper = Timekeeper::default();
    keeper.hear(now(1, 0).at, node(2), reading(1, 0, 0));
    keeper.read(now(1, 0), 2, WallTime(0));
    assert_eq!(keeper.consent(), Consent::Majority);
    let time = keeper.read(now(60, 50 * YEAR_MS), 2, WallTime(0));
    assert_eq!((off_by_ms(time), keeper.consent()), (0, Consent::Unsure));
    let time = keeper.read(now(120, -3 * YEAR_MS), 2, WallTime(0));
    assert_eq!(off_by_ms(time), 0);
}

#[test]
fn a_node_that_hears_nobody_goes_on_from_its_disk() {
    let written = START_MS - 86_400_000;
    let read = |off_ms| Timekeeper::default().read(now(1, off_ms), 2, WallTime(written));
    assert_eq!(off_by_ms(read(0)), 0, "the machine was off for a day");
    assert_eq!(read(50 * YEAR_MS).wall.0, written);
    assert_eq!(read(-60 * YEAR_MS).wall.0, written, "a board without a battery");
    let mut keeper = Timekeeper::default();
    keeper.read(now(1, -60 * YEAR_MS), 2, WallTime(written));
    let later = keeper.read(now(61, -60 * YEAR_MS), 2, WallTime(written));
    assert_eq!(later.wall.0, written + 60_000);
}

#[test]
fn a_fabric_of_one_follows_its_clock() {
    let mut keeper = Timekeeper::default();
    assert_eq!(off_by_ms(keeper.read(now(1, 0), 1, WallTime(0))), 0);
    assert_eq!(off_by_ms(keeper.read(now(2, 7_200_000), 1, WallTime(0))), 7_200_000);
    assert_eq!(off_by_ms(keeper.read(now(3, -7_200_000), 1, WallTime(START_MS))), -7_200_000);
}

#[test]
fn what_a_majority_has_stamped_is_not_refused() {
    let far = START_MS + 50 * YEAR_MS as u64;
    for (others, refused) in [([far, START_MS], false), ([START_MS, START_MS], true)] {
        let mut keeper = Timekeeper::default();
        for (number, horizon) in (2..).zip(others) {
            keeper.hear(now(1, 0).at, node(number), reading(1, 0, horizon));
        }
        // This node has it already.
        keeper.read(now(1, 0), 3, WallTime(far));
        assert_eq!(keeper.is_ahead(now(1, 0).at, WallTime(far)), refused);
        keeper.disregard_stamps(now(1, 0).at);
        keeper.read(now(1, 0), 3, WallTime(far));
        assert!(keeper.is_ahead(now(1, 0).at, WallTime(far)));
    }
}

#[test]
fn a_crowd_takes_a_bounded_amount_of_memory() {
    let mut keeper = Timekeeper::default();
    for number in 0..5000u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        let off = if number % 3 == 0 { 50 * YEAR_MS } else { 0 };
        keeper.hear(now(1, 0).at, NodeId(id), reading(1, off, 0));
        keeper.complains(now(1, 0).at, NodeId(id));
    }
    assert!(keeper.heard.len() < limits::CLOCKS_MAX && keeper.told.len() <= limits::CLOCKS_MAX);
    let time = keeper.read(now(2, 50 * YEAR_MS), 5000, WallTime(0));
    assert_eq!((off_by_ms(time), keeper.consent()), (0, Consent::Majority));
}
