//! A time as a date, in UTC.

/// The parts of a date that functions ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say all")]
pub struct Date {
    pub year: i64,
    /// From 1.
    pub month: u8,
    /// From 1.
    pub day: u8,
    /// From 0, which is Sunday.
    pub weekday: u8,
    /// From 1.
    pub day_of_year: u16,
    pub days_in_month: u8,
    pub hour: u8,
    pub minute: u8,
}

impl Date {
    /// Seconds since the epoch; Howard Hinnant, 'chrono-compatible low-level date algorithms',
    /// `civil_from_days`.
    pub fn of(seconds: f64) -> Self {
        // Saturates: dates beyond a hundred million years are as wrong as any.
        let seconds = (seconds as i64).clamp(-(1 << 52), 1 << 52);
        let days = seconds.div_euclid(86_400);
        let second = seconds.rem_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u8;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u8;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = [31, 28 + u8::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let before: u16 =
            lengths[..usize::from(month) - 1].iter().map(|days| u16::from(*days)).sum();
        Date {
            year,
            month,
            day,
            weekday: (days + 4).rem_euclid(7) as u8,
            day_of_year: before + u16::from(day),
            days_in_month: lengths[usize::from(month) - 1],
            hour: (second / 3600) as u8,
            minute: (second % 3600 / 60) as u8,
        }
    }
}
