//! What systemd says of the machine's services, as the series `systemd_unit_state`.

use fabric::id::AllocId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::executor::systemd::Systemd;
use crate::observe::{Metric, Observer, Sample, Source};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(15);
/// So many services are reported. A machine with more has them made by others, one for each of something.
const SERVICES_MAX: usize = 256;
const STATE: Metric<'static> = Metric::gauge(
    "systemd_unit_state",
    "Whether a service of the machine is in this state; only states that it has been in have series.",
);

/// Looks again and again, until the runtime ends.
pub(super) async fn watch(systemd: Systemd, observer: Observer) {
    let mut known = Known::default();
    loop {
        match systemd.services().await {
            Ok(services) => observer.count(Source::Services, known.samples(services)),
            // Whoever starts units says so louder.
            Err(error) => tracing::debug!(%error, "systemd does not say how its services are"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// The states that each service has been in.
#[derive(Debug, Default)]
struct Known(BTreeMap<String, BTreeSet<String>>);

impl Known {
    /// 1 for the state that a service is in, and 0 for those that it was in. One that was unloaded is in none, once.
    fn samples(&mut self, services: Vec<(String, String)>) -> Vec<Sample> {
        let mut now: BTreeMap<String, String> = services
            .into_iter()
            // Allocations have series of their own.
            .filter(|(name, _)| AllocId::from_unit(name).is_none())
            .take(SERVICES_MAX)
            .collect();
        for (name, state) in &now {
            self.0.entry(name.clone()).or_default().insert(state.clone());
        }
        let mut samples = Vec::new();
        self.0.retain(|name, states| {
            let current = now.remove(name);
            for state in states.iter() {
                samples.push(Sample {
                    metric: STATE,
                    labels: vec![("name", name.clone()), ("state", state.clone())],
                    value: f64::from(u8::from(current.as_ref() == Some(state))),
                });
            }
            current.is_some()
        });
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_was_left_is_zero_and_who_is_gone_has_none() {
        let mut known = Known::default();
        let mut look = |services: &[(&str, &str)]| {
            let services =
                services.iter().map(|(name, state)| (name.to_string(), state.to_string()));
            let text = |sample: Sample| {
                format!("{} {} {}", sample.labels[0].1, sample.labels[1].1, sample.value)
            };
            known.samples(services.collect()).into_iter().map(text).collect::<Vec<_>>()
        };
        let unit = AllocId::new(fabric::id::JobName::new("web").unwrap(), 0, 1).unit();
        let first =
            look(&[("ssh.service", "active"), ("a.service", "inactive"), (&unit, "active")]);
        assert_eq!(first, ["a.service inactive 1", "ssh.service active 1"]);
        let second = look(&[("ssh.service", "failed")]);
        assert_eq!(
            second,
            ["a.service inactive 0", "ssh.service active 0", "ssh.service failed 1"]
        );
        assert_eq!(look(&[]), ["ssh.service active 0", "ssh.service failed 0"]);
        assert!(look(&[]).is_empty());
    }
}
