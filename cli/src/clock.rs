//! The wall clock, for the ages of things. The only place that reads it.

use fabric::clock::WallTime;
use fabric::job::duration;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, by this machine's clock.
#[allow(
    clippy::disallowed_methods,
    reason = "ages are shown to people, nothing is decided by them"
)]
pub fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(since.as_millis() as u64)
}

/// How long ago `then` was, with one or two units: `45s`, `3m10s`, `2d4h`. A clock that is ahead of
/// ours is shown as `0s`.
pub fn age(now: WallTime, then: WallTime) -> String {
    rounded(now.since(then))
}

/// How long until `then`: as [`age`], but rounded up a little, so that an hour that
/// has just begun is an hour.
pub fn until(now: WallTime, then: WallTime) -> String {
    rounded(then.since(now) + Duration::from_secs(5))
}

fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let grain = match seconds {
        0..60 => 1,
        60..3_600 => 10,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    duration::display(Duration::from_secs(seconds / grain * grain))
}

/// `2026-03-01 14:05:09` in UTC. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`.
pub fn display(time: WallTime) -> String {
    let seconds = time.0 / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_709_164_800, "2024-02-29 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (1_767_225_599, "2025-12-31 23:59:59"),
        ] {
            assert_eq!(display(WallTime(seconds * 1000)), date);
        }
        display(WallTime(u64::MAX));
    }

    #[test]
    fn ages_have_at_most_two_units_and_are_never_negative() {
        let now = WallTime(10_000_000_000);
        for (ago, text) in [
            (900, "0s"),
            (45_000, "45s"),
            (195_000, "3m10s"),
            (7_290_000, "2h1m"),
            (187_300_000, "2d4h"),
        ] {
            assert_eq!(age(now, WallTime(now.0 - ago)), text);
        }
        assert_eq!(age(now, WallTime(now.0 + 5_000)), "0s");
    }
}
