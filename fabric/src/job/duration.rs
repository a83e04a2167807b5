//! Durations as people write them (`500ms`, `2s`, `1m30s`, `1h`) in text formats, as milliseconds in binary ones.

use serde::{Deserialize, Deserializer, Serializer, de};
use std::time::Duration;

/// Serde's half: text for people, milliseconds for machines.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&display(*duration))
    } else {
        serializer.serialize_u64(duration.as_millis() as u64)
    }
}

/// Serde's other half.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    if deserializer.is_human_readable() {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        parse(&text).map_err(de::Error::custom)
    } else {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// Not a duration. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write a number and a unit, as in 500ms, 2s, 1m30s, 1h or 7d")]
pub struct NotADuration(String);

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `1m30s`. At most 10 years, so that sums cannot overflow.
pub fn parse(text: &str) -> Result<Duration, NotADuration> {
    let refuse = || NotADuration(text.chars().take(80).collect());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refuse());
    }
    let mut millis = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
        let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(refuse)?.1;
        millis = number
            .checked_mul(unit)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(refuse)?;
        rest = &rest[letters..];
    }
    if millis > crate::limits::JOB_DURATION_SECONDS_MAX * 1000 {
        Err(refuse())
    } else {
        Ok(Duration::from_millis(millis))
    }
}

/// Writes `1m30s`; zero is `0s`.
pub fn display(duration: Duration) -> String {
    let mut millis = duration.as_millis() as u64;
    if millis == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, unit) in UNITS {
        if millis >= unit {
            text.push_str(&format!("{}{name}", millis / unit));
            millis %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests;
