//! How single values are written: slots, counts, sizes.

use fabric::id::JobName;
use fabric::job::parse_bytes;
use std::str::FromStr;

/// `web` or `web/2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOrSlot {
    pub job: JobName,
    pub slot: Option<u32>,
}

impl FromStr for JobOrSlot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (job, slot) = match text.split_once('/') {
            Some((job, slot)) => (job, Some(slot)),
            None => (text, None),
        };
        let job = JobName::new(job).map_err(|error| error.to_string())?;
        let slot = slot.map(|slot| {
            slot.parse()
                .map_err(|_| format!("{slot:?} is not a slot: write JOB/0, JOB/1 and so on"))
        });
        Ok(Self { job, slot: slot.transpose()? })
    }
}

/// A job, where a slot of it is not enough.
pub fn job(text: &str) -> Result<JobName, String> {
    JobName::new(text).map_err(|error| match text.split_once('/') {
        Some((job, _)) if JobName::new(job).is_ok() => {
            format!("{text} is a slot: name the job alone, {job}")
        }
        _ => error.to_string(),
    })
}

pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("write NAME=VALUE".into()),
    }
}

pub fn cpus(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1e9).contains(number));
    number.ok_or_else(|| "write a number of CPUs such as 8 or 0.5".into())
}

pub fn slot_count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "write a number of slots such as 3".into())
}

pub fn device_count(text: &str) -> Result<(String, u32), String> {
    let (class, count) = key_value(text).map_err(|_| "write CLASS=COUNT as in gpu=2")?;
    count.parse().map(|count| (class, count)).map_err(|_| "write CLASS=COUNT as in gpu=2".into())
}

pub fn port(text: &str) -> Result<(String, Option<u16>), String> {
    let Some((name, number)) = text.split_once('=') else { return Ok((text.into(), None)) };
    match number.parse() {
        Ok(number) if number > 0 => Ok((name.into(), Some(number))),
        _ => Err(format!("{number:?} is not a port: write a number from 1 to 65535")),
    }
}

pub fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "write a size such as 64MiB or 1.5GiB".into())
}
