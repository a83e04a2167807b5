use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_deadline_is_reached_when_the_clock_says_so_at_any_rate() {
    for rate in [950_000, 999_999, 1_000_000, 1_000_001, 1_050_000] {
        let mut clock = VirtualClock::new(SECOND * 77);
        clock.set_rate(SECOND * 3, rate);
        let deadline = clock.read(SECOND * 5).at + Duration::from_nanos(123_456_789);
        let when = clock.when(deadline, SECOND * 5);
        assert!(clock.read(when).at >= deadline);
        assert!(clock.read(when - Duration::from_nanos(2)).at < deadline);
    }
}

#[test]
fn a_deadline_that_has_passed_is_due_now() {
    let clock = VirtualClock::new(Duration::ZERO);
    assert_eq!(clock.when(Instant::at(SECOND), SECOND * 9), SECOND * 9);
}

#[test]
fn a_jump_moves_the_wall_clock_only() {
    let mut clock = VirtualClock::new(Duration::ZERO);
    let before = clock.read(SECOND);
    clock.jump(SECOND, -86_400_000);
    let after = clock.read(SECOND);
    assert_eq!(after.at, before.at);
    assert_eq!(after.wall.0 + 86_400_000, before.wall.0);
}

#[test]
fn a_slow_clock_loses_time_and_never_goes_back() {
    let mut clock = VirtualClock::new(Duration::ZERO);
    clock.set_rate(Duration::ZERO, 950_000);
    assert_eq!(clock.read(SECOND * 100).at, Instant::at(SECOND * 95));
    clock.set_rate(SECOND * 100, 1_050_000);
    assert_eq!(clock.read(SECOND * 100).at, Instant::at(SECOND * 95));
    assert_eq!(clock.read(SECOND * 200).at, Instant::at(SECOND * 200));
}
