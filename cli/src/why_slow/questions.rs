//! What is asked: each number of the job and of everything else on its nodes, and of the job before.

use std::time::Duration;
use tokio::task::JoinSet;

use super::facts::{Facts, Number};
use crate::client::Client;
use crate::exit::Failure;
use crate::prometheus::{Point, any_of, duration, quoted, vector};
use crate::screen::Screen;
use crate::series;

/// The job's own past: so much of the time before the range.
const PAST: Duration = Duration::from_secs(30 * 60);
/// What tells units apart.
const BY: &str = "sum by (node, unit, job, slot)";

impl Number {
    /// Its expression: of series with these matchers, over the range that ends so long ago.
    fn expression(self, matchers: &str, range: Duration, ago: Duration) -> String {
        let (range, offset) = (duration(range), offset(ago));
        let rate = |name: &str, more: &str| {
            format!("{BY} (rate({name}{{{matchers}{more}}}[{range}]{offset}))")
        };
        match self {
            Number::Cpu => rate(series::CPU, ""),
            Number::CpuWait => rate(series::CPU_WAIT, ""),
            Number::Throttled => rate(series::THROTTLED, ""),
            Number::MemoryStall => rate(series::PRESSURE, ",resource=\"memory\",kind=\"some\""),
            Number::DiskStall => rate(series::PRESSURE, ",resource=\"io\",kind=\"some\""),
            Number::DiskTime => rate(&format!("{}_sum", series::BLOCK), ""),
            Number::DiskBytes => rate(series::BLOCK_BYTES, ""),
            Number::Memory => {
                let name = series::MEMORY;
                format!("{BY} (avg_over_time({name}{{{matchers}}}[{range}]{offset}))")
            }
            Number::Faults => rate(series::FAULTS, ""),
            Number::MajorFaults => rate(series::MAJOR_FAULTS, ""),
            Number::Kills => {
                format!("{BY} (increase({}{{{matchers}}}[{range}]{offset}))", series::KILLS)
            }
            Number::Retransmits => rate(series::RETRANSMITS, ""),
            Number::RoundTrip => {
                let name = series::ROUND_TRIP;
                format!(
                    "avg by (node, unit, job, slot) (avg_over_time({name}{{{matchers}}}[{range}]{offset}))"
                )
            }
        }
    }
}

fn offset(ago: Duration) -> String {
    if ago.is_zero() { String::new() } else { format!(" offset {}", duration(ago)) }
}

/// Which answer it is.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Now(Number),
    Before(Number),
    Peers,
}

/// Asks everything at once, and puts the answers into the facts.
///
/// # Errors
/// When no question at all was answered: with the reason.
pub async fn ask(
    client: &Client,
    screen: &Screen,
    range: Duration,
    facts: &mut Facts,
) -> Result<(), Failure> {
    let nodes = format!("node=~{}", any_of(facts.nodes()));
    let own = format!("job={}", quoted(&facts.job));
    let peers = format!(
        "sum by (node, unit, job, slot, peer) (rate({}{{{own}}}[{}])) > 0",
        series::RETRANSMITS,
        duration(range)
    );
    let mut questions = vec![(Asked::Peers, peers)];
    for number in Number::ALL {
        let now = number.expression(&nodes, range, Duration::ZERO);
        questions.push((Asked::Now(number), now));
        questions.push((Asked::Before(number), number.expression(&own, PAST, range)));
    }
    let mut asked = JoinSet::new();
    for (what, expression) in questions {
        let (client, screen) = (client.clone(), *screen);
        asked.spawn(async move { (what, vector(&client, &screen, &expression).await) });
    }
    let (mut failure, mut answers) = (None, 0);
    while let Some(answered) = asked.join_next().await {
        let Ok((what, answer)) = answered else { continue };
        match answer {
            Ok((points, warnings)) => {
                answers += 1;
                facts.warnings.extend(warnings);
                take(facts, what, &points);
            }
            Err(why) => {
                if let Failure::Said(_, message) = &why {
                    facts.warnings.push(message.clone());
                }
                failure = Some(why);
            }
        }
    }
    match failure {
        Some(why) if answers == 0 => Err(why),
        _ => Ok(()),
    }
}

fn take(facts: &mut Facts, what: Asked, points: &[Point]) {
    match what {
        Asked::Now(number) => facts.take(number, points),
        Asked::Before(number) => facts.take_before(number, points),
        Asked::Peers => facts.take_peers(points),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_asked_for_now_and_before() {
        let minute = Duration::from_secs(60);
        assert_eq!(
            Number::CpuWait.expression("node=~\"a\"", minute, Duration::ZERO),
            "sum by (node, unit, job, slot) (rate(weft_unit_cpu_wait_seconds_total{node=~\"a\"}[60000ms]))"
        );
        assert_eq!(
            Number::DiskStall.expression("job=\"web\"", minute, minute),
            "sum by (node, unit, job, slot) (rate(weft_unit_pressure_seconds_total\
             {job=\"web\",resource=\"io\",kind=\"some\"}[60000ms] offset 60000ms))"
        );
    }
}
