//! The same machine in the same moment, as Debian's `prometheus-node-exporter` tells it and as we do.
//!
//! It runs on loopback, is asked before and after our collectors run, and ends with the test. Each value of ours
//! has to lie between its two, or as near to them as `NOISE` says, in one of several rounds: what changes by the
//! millisecond is seldom the same twice. What only one of both has is explained in `beside.txt`.

#![expect(clippy::disallowed_methods, reason = "another program is waited for")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

const EXPLANATIONS: &str = include_str!("beside.txt");
/// Of a value that may go up and down, how far ours may be outside of the two of theirs.
const NOISE: f64 = 0.02;
/// Of a counter: what floating-point arithmetic differs by.
const ROUNDING: f64 = 1e-9;
/// As upstream has it; Debian's leaves out /mnt and /media, where machines have their data.
const NO_MOUNT_POINTS: &str =
    "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";
/// Rounds until each value must have been the same once.
const ROUNDS: u32 = 40;

/// Values by series: name, then labels in order.
type Values = BTreeMap<String, f64>;

#[derive(Default)]
struct Ours {
    values: Values,
    kinds: BTreeMap<String, Kind>,
}

impl Sink for Ours {
    fn sample(&mut self, metric: Metric<'_>, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        self.values.insert(series(metric.name, labels.collect()), value);
        self.kinds.insert(metric.name.to_owned(), metric.kind);
    }
}

fn series(name: &str, mut labels: Vec<(String, String)>) -> String {
    labels.retain(|(_, text)| !text.is_empty());
    labels.sort();
    format!("{name} {labels:?}")
}

fn name_of(series: &str) -> &str {
    series.split(' ').next().expect("a name")
}

struct Exporter {
    process: Child,
    port: u16,
}

impl Exporter {
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.expect("a port").port();
        let process = Command::new("prometheus-node-exporter")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--collector.filesystem.mount-points-exclude={NO_MOUNT_POINTS}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let exporter = Exporter { process: process.ok()?, port };
        for _ in 0..600 {
            if exporter.fetch().is_some() {
                return Some(exporter);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("prometheus-node-exporter does not answer");
    }

    fn fetch(&self) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    fn values(&self) -> (Values, BTreeMap<String, String>) {
        let text = self.fetch().expect("an answer");
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let types = types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
        (text.lines().filter(|line| !line.starts_with('#')).map(read).collect(), types)
    }
}

/// A test that fails leaves no process behind.
impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `name{label="text",...} value`
fn read(line: &str) -> (String, f64) {
    let (left, value) = line.rsplit_once(' ').expect("a value");
    let (name, mut rest) = left.split_once('{').unwrap_or((left, "}"));
    let mut labels = Vec::new();
    while let Some((label, after)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut letters = after.char_indices();
        rest = loop {
            match letters.next().expect("a quote at the end") {
                (at, '"') => break after[at + 1..].trim_start_matches(','),
                (_, '\\') => match letters.next().expect("a letter").1 {
                    'n' => text.push('\n'),
                    letter => text.push(letter),
                },
                (_, letter) => text.push(letter),
            }
        };
        labels.push((label.to_owned(), text));
    }
    (series(name, labels), value.parse().expect("a number"))
}

/// Beginnings of names, and whether each must be found.
fn explanations(side: &str) -> Vec<(&'static str, bool)> {
    let lines = EXPLANATIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let words = lines.map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let of_side = words.filter(|words| words[0] == side);
    of_side.map(|words| (words[2], words[1] == "always")).collect()
}

fn unexplained(side: &str, only: &BTreeSet<&str>, wrong: &mut Vec<String>) {
    let known = explanations(side);
    for name in only {
        match known.iter().find(|(start, _)| name.starts_with(start)) {
            Some(_) => println!("explained: {side} alone: {name}"),
            None => wrong.push(format!("{side} alone, and not explained: {name}")),
        }
    }
    for (start, always) in known {
        if always && !only.iter().any(|name| name.starts_with(start)) {
            wrong.push(format!("{side} alone has nothing like {start}: take the explanation away"));
        }
    }
}

#[test]
#[ignore = "needs Debian's prometheus-node-exporter: run it with `make test-promql`"]
fn node_exporter_and_this_agent_tell_the_same() {
    let Some(exporter) = Exporter::start() else {
        assert!(
            std::env::var("WEFT_MUST").as_deref() != Ok("prometheus"),
            "prometheus-node-exporter is not installed"
        );
        println!("skipped: prometheus-node-exporter is not installed (`demo/setup.sh promql`)");
        return;
    };
    let mut differ: BTreeMap<String, String> = BTreeMap::new();
    let mut agreed: BTreeSet<String> = BTreeSet::new();
    let (mut our_names, mut their_names) = (BTreeSet::new(), BTreeSet::new());
    let mut wrong = Vec::new();
    for round in 0..ROUNDS {
        let (before, types) = exporter.values();
        let mut ours = Ours::default();
        // Theirs counts the connection that it is asked over.
        let _connection = TcpStream::connect(("127.0.0.1", exporter.port)).expect("it listens");
        for depth in [Depth::Second, Depth::Quarter, Depth::Minute] {
            let wall_seconds = crate::clock::wall().0 as f64 / 1000.0;
            quick(&Sysfs::default(), depth, wall_seconds, &mut ours);
        }
        Asked::new(Sysfs::default()).ask(BootTime::now(), &mut ours);
        let (after, _) = exporter.values();

        our_names.extend(ours.values.keys().map(|series| name_of(series).to_owned()));
        their_names.extend(before.keys().map(|series| name_of(series).to_owned()));
        for (name, kind) in &ours.kinds {
            let wanted = match kind {
                Kind::Counter => "counter",
                Kind::Unknown => "untyped",
                _ => "gauge",
            };
            if types.get(name).is_some_and(|theirs| theirs != wanted) {
                wrong.push(format!("{name} is a {wanted} here, and a {} there", types[name]));
            }
        }
        for (series, &ours) in &ours.values {
            let (Some(&before), Some(&after)) = (before.get(series), after.get(series)) else {
                continue;
            };
            let (low, high) = (before.min(after), before.max(after));
            let counts = types.get(name_of(series)).is_some_and(|kind| kind != "gauge");
            let noise = high.abs().max(low.abs()) * if counts { ROUNDING } else { NOISE };
            if (low - noise..=high + noise).contains(&ours) {
                agreed.insert(series.clone());
            } else {
                differ.insert(series.clone(), format!("theirs {before} and {after}, ours {ours}"));
            }
        }
        // Series of names that both have.
        let missing: Vec<_> = before
            .iter()
            .filter(|(series, _)| {
                our_names.contains(name_of(series)) && !ours.values.contains_key(*series)
            })
            .filter(|(series, _)| after.contains_key(*series))
            .map(|(series, _)| series.clone())
            .chain(
                ours.values
                    .keys()
                    .filter(|series| {
                        their_names.contains(name_of(series))
                            && !before.contains_key(*series)
                            && !after.contains_key(*series)
                    })
                    .cloned(),
            )
            .filter(|series| !never_carried_anything(series, &before))
            .collect();
        let settled = differ.keys().all(|series| agreed.contains(series)) && missing.is_empty();
        if settled {
            println!("{} series alike after {} rounds", agreed.len(), round + 1);
            break;
        }
        if round + 1 == ROUNDS {
            wrong.extend(missing.iter().map(|series| format!("one of both only: {series}")));
        }
    }
    let never = differ.iter().filter(|(series, _)| !agreed.contains(*series));
    wrong.extend(never.map(|(series, values)| format!("{series}: {values}")));
    let alone = |these: &'_ BTreeSet<String>, others: &BTreeSet<String>| -> Vec<String> {
        these.difference(others).cloned().collect()
    };
    let (ours_only, theirs_only) =
        (alone(&our_names, &their_names), alone(&their_names, &our_names));
    unexplained("ours", &ours_only.iter().map(|name| &**name).collect(), &mut wrong);
    unexplained("theirs", &theirs_only.iter().map(|name| &**name).collect(), &mut wrong);
    wrong.sort();
    wrong.dedup();
    assert!(agreed.len() > 100, "{} series are alike: {wrong:#?}", agreed.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Counters of an interface that are all 0 have no series of ours.
fn never_carried_anything(series: &str, theirs: &Values) -> bool {
    let Some((name, labels)) = series.split_once(' ') else { return false };
    let counts = |name: &str| {
        ["node_network_receive_", "node_network_transmit_"]
            .iter()
            .any(|start| name.starts_with(start))
            && name.ends_with("_total")
    };
    counts(name)
        && theirs.iter().all(|(series, value)| {
            let same =
                series.split_once(' ').is_some_and(|(name, of)| counts(name) && of == labels);
            !same || *value == 0.0 || series.starts_with("node_network_receive_nohandler")
        })
}
