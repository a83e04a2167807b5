//! What was measured, by node, job and allocation.

use std::collections::BTreeMap;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::exit::Failure;
use crate::prometheus::{Labels, Point, vector};
use crate::screen::Screen;
use crate::series;

/// Over which rates and latencies are taken: long enough to have some, short enough to follow.
const WINDOW: &str = "30s";

/// What something uses, and how long it waits. `None`: nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    /// CPUs.
    pub cpu: Option<f64>,
    /// CPUs that there are.
    pub cpus: Option<f64>,
    /// Bytes.
    pub memory: Option<f64>,
    /// Bytes that there are.
    pub memory_total: Option<f64>,
    /// Seconds that one of a hundred waits for a CPU is longer than.
    pub runq_p99: Option<f64>,
    /// Seconds that one of a hundred requests to a disk takes longer than.
    pub disk_p99: Option<f64>,
}

/// An allocation's place: node, job, slot.
pub type Place = (String, String, String);

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// By the node's name.
    pub nodes: BTreeMap<String, Use>,
    /// By the job's name.
    pub jobs: BTreeMap<String, Use>,
    /// By place.
    pub allocs: BTreeMap<Place, Use>,
    /// What has to be known about it.
    pub warnings: Vec<String>,
}

/// Where a number belongs.
type Field = fn(&mut Use) -> &mut Option<f64>;

/// Whom a question is about.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Nodes,
    Jobs,
    Allocs,
}

impl Subject {
    fn labels(self) -> &'static str {
        match self {
            Subject::Nodes => "node",
            Subject::Jobs => "job",
            Subject::Allocs => "node, job, slot",
        }
    }

    /// Of a unit's series.
    fn matcher(self) -> &'static str {
        match self {
            Subject::Nodes => "",
            Subject::Jobs | Subject::Allocs => "job!=\"\"",
        }
    }
}

/// All questions.
fn questions() -> Vec<(Subject, Field, String)> {
    let mut questions: Vec<(Subject, Field, String)> = Vec::new();
    for subject in [Subject::Nodes, Subject::Jobs, Subject::Allocs] {
        let (by, matcher) = (subject.labels(), subject.matcher());
        let slowest = |name: &str| {
            format!(
                "histogram_quantile(0.99, sum by ({by}, le) (rate({name}_bucket{{{matcher}}}[{WINDOW}])))"
            )
        };
        questions.push((subject, |used| &mut used.runq_p99, slowest(series::RUNQUEUE)));
        questions.push((subject, |used| &mut used.disk_p99, slowest(series::BLOCK)));
    }
    for subject in [Subject::Jobs, Subject::Allocs] {
        let (by, matcher) = (subject.labels(), subject.matcher());
        let cpu = format!("sum by ({by}) (rate({}{{{matcher}}}[{WINDOW}]))", series::CPU);
        questions.push((subject, |used| &mut used.cpu, cpu));
        let memory = format!("sum by ({by}) ({}{{{matcher}}})", series::MEMORY);
        questions.push((subject, |used| &mut used.memory, memory));
    }
    let busy = "mode!=\"idle\",mode!=\"iowait\"";
    let nodes: [(Field, String); 4] = [
        (
            |used| &mut used.cpu,
            format!("sum by (node) (rate({}{{{busy}}}[{WINDOW}]))", series::NODE_CPU),
        ),
        (|used| &mut used.cpus, format!("count by (node) ({}{{mode=\"idle\"}})", series::NODE_CPU)),
        (
            |used| &mut used.memory,
            format!(
                "sum by (node) ({}) - sum by (node) ({})",
                series::NODE_MEMORY,
                series::NODE_MEMORY_AVAILABLE
            ),
        ),
        (|used| &mut used.memory_total, format!("sum by (node) ({})", series::NODE_MEMORY)),
    ];
    questions.extend(nodes.map(|(field, expression)| (Subject::Nodes, field, expression)));
    questions
}

impl Measured {
    /// Asks all nodes. What cannot be answered is missing, and the warnings say why.
    pub async fn ask(client: &Client, screen: &Screen) -> Self {
        let mut asked = JoinSet::new();
        for (subject, field, expression) in questions() {
            let (client, screen) = (client.clone(), *screen);
            asked.spawn(
                async move { (subject, field, vector(&client, &screen, &expression).await) },
            );
        }
        let mut measured = Measured::default();
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok((subject, field, Ok((points, warnings)))) => {
                    measured.warnings.extend(warnings);
                    points.iter().for_each(|point| measured.take(subject, field, point));
                }
                Ok((_, _, Err(Failure::Said(_, message)))) => measured.warnings.push(message),
                Ok((_, _, Err(_))) | Err(_) => {}
            }
        }
        measured.warnings.sort();
        measured.warnings.dedup();
        measured
    }

    fn take(&mut self, subject: Subject, field: Field, point: &Point) {
        let label = |name: &str| text(&point.metric, name);
        let used = match subject {
            Subject::Nodes => self.nodes.entry(label("node")).or_default(),
            Subject::Jobs => self.jobs.entry(label("job")).or_default(),
            Subject::Allocs => {
                self.allocs.entry((label("node"), label("job"), label("slot"))).or_default()
            }
        };
        // The quantile of nothing is not a number.
        *field(used) = Some(point.value.value).filter(|value| !value.is_nan());
    }
}

fn text(labels: &Labels, name: &str) -> String {
    labels.get(name).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::Sample;

    #[test]
    fn numbers_come_to_their_place_and_what_is_none_stays_none() {
        let mut measured = Measured::default();
        let labels = [("node", "n1"), ("job", "web"), ("slot", "0")];
        let metric: Labels = labels.map(|(name, value)| (name.into(), value.into())).into();
        let point = |value| Point { metric: metric.clone(), value: Sample { at: 0.0, value } };
        measured.take(Subject::Allocs, |used| &mut used.cpu, &point(0.5));
        measured.take(Subject::Allocs, |used| &mut used.runq_p99, &point(f64::NAN));
        measured.take(Subject::Jobs, |used| &mut used.cpu, &point(1.5));
        let place = ("n1".to_owned(), "web".to_owned(), "0".to_owned());
        assert_eq!(measured.allocs[&place], Use { cpu: Some(0.5), ..Use::default() });
        assert_eq!(measured.jobs["web"].cpu, Some(1.5));
        assert!(measured.nodes.is_empty());
    }
}
