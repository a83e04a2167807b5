use proptest::prelude::*;

use super::*;

const ME: NodeId = NodeId([1; 32]);

proptest! {
    /// Whatever the wall clock does, and whatever others stamp.
    #[test]
    fn stamps_only_grow(walls in prop::collection::vec(any::<u64>(), 1..50), seen in any::<u32>()) {
        let mut clock = HybridClock::new(ME, 0);
        let mut last = 0;
        for (index, wall) in walls.into_iter().enumerate() {
            if index == 3 {
                let stamp = Stamp { reading: u64::from(seen) << 24, node: NodeId([2; 32]) };
                clock.observe(stamp);
                last = last.max(stamp.reading);
            }
            let stamp = clock.tick(WallTime(wall));
            prop_assert!(stamp.reading > last);
            last = stamp.reading;
        }
    }
}

#[test]
fn a_clock_that_jumps_back_a_day_keeps_its_order() {
    let mut clock = HybridClock::new(ME, 0);
    let today = clock.tick(WallTime(86_400_000 * 2));
    let yesterday = clock.tick(WallTime(86_400_000));
    assert!(yesterday > today);
    assert_eq!(
        yesterday.wall(),
        today.wall(),
        "the reading stands still until the wall catches up"
    );
}

#[test]
fn the_largest_stamp_freezes_nothing() {
    let mut clock = HybridClock::new(ME, u64::MAX);
    clock.observe(Stamp { reading: u64::MAX, node: NodeId([0xff; 32]) });
    let one = clock.tick(WallTime(u64::MAX));
    let other = clock.tick(WallTime(u64::MAX));
    assert!(other > one);
    let mut clock = HybridClock::new(ME, 5);
    clock.observe(Stamp { reading: u64::MAX, node: NodeId([0xff; 32]) });
    assert_eq!(clock.last(), 5, "a stamp that no clock gives moves none");
}
