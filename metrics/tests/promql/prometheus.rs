//! Prometheus in a folder of its own, on loopback, with three exporters to scrape.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::exposition::{Exposition, Format};
use metrics::labels::Labels;
use metrics::span::stale_marker;
use metrics::store::{Kind, Store};
use serde_json::Value as Json;

use crate::Query;
use crate::samples;

/// Scrapes after which one metric of each exporter is gone.
const GONE_AFTER: u32 = 4;
/// Scrapes after which the last exporter does not answer.
const SILENT_AFTER: u32 = 6;

pub struct Prometheus {
    process: Child,
    port: u16,
    folder: PathBuf,
    over: Arc<AtomicBool>,
}

impl Prometheus {
    /// With the history in it; nothing if it is not installed.
    pub fn start() -> Option<Self> {
        installed()?;
        let folder = std::env::temp_dir().join(format!("weft-promql-{}", std::process::id()));
        let data = folder.join("data");
        std::fs::create_dir_all(&data).expect("a folder");
        backfill(&folder, samples::history);
        let mut lint = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool runs");
        write!(lint.stdin.take().expect("piped"), "{}", exposition(0, 1)).expect("written");
        let lint = lint.wait_with_output().expect("promtool ends");
        assert!(lint.status.success(), "promtool check metrics: {lint:?}");

        let over = Arc::new(AtomicBool::new(false));
        let targets: Vec<String> = (0..3)
            .map(|number| format!("\"127.0.0.1:{}\"", exporter(number, over.clone())))
            .collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: live\n    static_configs:\n      - targets: [{}]\n",
            targets.join(", ")
        );
        std::fs::write(folder.join("prometheus.yml"), config).expect("written");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port")
            .port();
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let prometheus = Prometheus { process, port, folder, over };
        let deadline = Instant::now() + Duration::from_secs(60);
        while prometheus.fetch("/-/ready").is_none_or(|body| !body.contains("Ready")) {
            let log = || std::fs::read_to_string(prometheus.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "prometheus is not ready: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(prometheus)
    }

    /// Lets it scrape; a time up to which all scrapes are stored.
    pub fn scrape_for(&self, time: Duration) -> i64 {
        std::thread::sleep(time);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        // A scrape has the time at which it began, and is stored when it has ended.
        std::thread::sleep(Duration::from_secs(4));
        now.as_millis() as i64
    }

    /// Takes everything that was scraped until a time into the store; how many samples.
    ///
    /// The API leaves stale markers out. Prometheus writes them when a target has lost a series or does not
    /// answer, at the time of the scrape that shows it: where `up` has a sample and the series has none.
    pub fn read_back(&self, until_ms: i64, store: &mut Store) -> usize {
        let answer = self.ask("{job=\"live\"}[1m]", Query::At(until_ms));
        let series = answer["data"]["result"].as_array().expect("series");
        let samples = |one: &Json| -> Vec<(i64, f64)> {
            let values = one["values"].as_array().expect("samples").iter();
            let sample = |pair: &Json| {
                let at_ms = (pair[0].as_f64().expect("a time") * 1000.0).round() as i64;
                (at_ms, pair[1].as_str().expect("a value").parse().expect("a number"))
            };
            values.map(sample).collect()
        };
        let instance =
            |one: &Json| one["metric"]["instance"].as_str().expect("an instance").to_owned();
        let scrapes: BTreeMap<String, Vec<i64>> = series
            .iter()
            .filter(|one| one["metric"]["__name__"] == "up")
            .map(|one| (instance(one), samples(one).into_iter().map(|(at_ms, _)| at_ms).collect()))
            .collect();
        assert_eq!(scrapes.len(), 3, "three targets were scraped");
        let mut count = 0;
        for one in series {
            let pairs = one["metric"].as_object().expect("labels").iter();
            let labels =
                Labels::new(pairs.map(|(name, value)| (&**name, value.as_str().expect("a text"))));
            let id = store.series(&labels.expect("labels"), until_ms).expect("room");
            let mut there: BTreeMap<i64, f64> = samples(one).into_iter().collect();
            count += there.len();
            for pair in scrapes[&instance(one)].windows(2) {
                if there
                    .get(&pair[0])
                    .is_some_and(|value| value.to_bits() != stale_marker().to_bits())
                {
                    there.entry(pair[1]).or_insert_with(stale_marker);
                }
            }
            for (at_ms, value) in there {
                store.append(id, at_ms, value).expect("in order");
            }
        }
        count
    }

    pub fn ask(&self, expression: &str, query: Query) -> Json {
        let mut escaped = String::new();
        for byte in expression.bytes() {
            write!(escaped, "%{byte:02x}").expect("a text");
        }
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        let path = match query {
            Query::At(at_ms) => format!("/api/v1/query?query={escaped}&time={}", seconds(at_ms)),
            Query::Range(start, end, step) => format!(
                "/api/v1/query_range?query={escaped}&start={}&end={}&step={}",
                seconds(start),
                seconds(end),
                seconds(step)
            ),
        };
        let body = self.fetch(&path).expect("an answer");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{expression}: {error}: {body}"))
    }

    pub fn stop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    fn fetch(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        // 1.0: no chunks.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }
}

/// A test that fails leaves no process behind.
impl Drop for Prometheus {
    fn drop(&mut self) {
        self.stop();
    }
}

fn installed() -> Option<()> {
    for program in ["prometheus", "promtool"] {
        let mut version = Command::new(program);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        version.status().ok()?;
    }
    Some(())
}

/// Of the one that is installed.
#[allow(dead_code, reason = "for the bench")]
pub fn version() -> String {
    let said = Command::new("prometheus").arg("--version").output();
    let said = said.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    said.split_whitespace().nth(2).unwrap_or("unknown").to_owned()
}

/// What gives all its samples to a function.
type Samples = fn(&mut dyn FnMut(Labels, i64, f64));

/// Bytes that Prometheus's chunks of these samples have; nothing if it is not installed.
pub fn bytes_of_chunks(samples: Samples) -> Option<u64> {
    installed()?;
    let folder = std::env::temp_dir().join(format!("weft-promql-bytes-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("data")).expect("a folder");
    backfill(&folder, samples);
    let mut bytes = 0;
    for block in std::fs::read_dir(folder.join("data")).expect("blocks") {
        let chunks = block.expect("a block").path().join("chunks");
        for file in std::fs::read_dir(chunks).into_iter().flatten() {
            bytes += file.and_then(|file| file.metadata()).expect("a file").len();
        }
    }
    let _ = std::fs::remove_dir_all(folder);
    Some(bytes)
}

/// Samples a second that Prometheus's store takes in, its write-ahead log included: its own benchmark, with
/// so many series and as many samples of each. Nothing if it is not installed.
#[allow(dead_code, reason = "the benchmark asks for it, the tests do not")]
pub fn samples_a_second(series: usize, samples: usize) -> Option<f64> {
    installed()?;
    let folder = std::env::temp_dir().join(format!("weft-promql-rate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut lines = String::new();
    for number in 0..series {
        let unit = format!("weft-job-{number}.service");
        let labels = serde_json::json!({ "__name__": "bench", "unit": unit, "node": "n1" });
        writeln!(lines, "{labels}").expect("a text");
    }
    std::fs::write(folder.join("series.json"), lines).expect("written");
    let promtool = Command::new("promtool")
        .args(["tsdb", "bench", "write", "--out", "data"])
        .args([format!("--metrics={series}"), format!("--scrapes={samples}")])
        .arg("series.json")
        .current_dir(&folder)
        .output()
        .expect("promtool runs");
    let _ = std::fs::remove_dir_all(folder);
    let said = String::from_utf8_lossy(&promtool.stdout);
    let rate = said.lines().find_map(|line| line.trim().strip_prefix("> samples/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok())
}

/// Puts samples into the folder's `data`.
fn backfill(folder: &Path, samples: Samples) {
    std::fs::write(folder.join("history.txt"), openmetrics(samples)).expect("written");
    let promtool = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([folder.join("history.txt"), folder.join("data")])
        .output()
        .expect("promtool runs");
    assert!(promtool.status.success(), "promtool: {}", String::from_utf8_lossy(&promtool.stderr));
}

fn openmetrics(samples: Samples) -> String {
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    samples(&mut |labels, at_ms, value| {
        let name = labels.name().to_owned();
        let pairs: Vec<String> = labels
            .iter()
            .filter(|(label, _)| *label != "__name__")
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let value = if value.is_infinite() {
            if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
        } else {
            format!("{value:e}")
        };
        let lines = families.entry(name.clone()).or_default();
        writeln!(
            lines,
            "{name}{{{}}} {value} {}.{:03}",
            pairs.join(","),
            at_ms / 1000,
            at_ms % 1000
        )
        .expect("a text");
    });
    let mut text: String = families.into_values().collect();
    text.push_str("# EOF\n");
    text
}

/// Serves metrics on loopback, a little different with each scrape; the port.
fn exporter(number: u32, over: Arc<AtomicBool>) -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("an address").port();
    let scrapes = AtomicU32::new(0);
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let Ok(mut stream) = stream else { continue };
            let scrape = scrapes.fetch_add(1, Ordering::Relaxed);
            if number == 2 && scrape >= SILENT_AFTER {
                continue;
            }
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let body = exposition(number, scrape);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                format(number).content_type(),
                body.len()
            );
        }
    });
    port
}

/// The first exporter writes with this crate in the older format, the second with it in OpenMetrics, the
/// third by hand.
fn format(number: u32) -> Format {
    if number == 1 { Format::OpenMetrics } else { Format::Prometheus }
}

fn exposition(number: u32, scrape: u32) -> String {
    // Starts again after nine scrapes.
    let total = |index: u32| (scrape % 9) * (index + 1) * (number + 2);
    let paths = [(0, "/"), (1, "/api"), (2, "/metrics")];
    let temperature = 20.0 + f64::from(scrape * 7 % 5) + f64::from(number) / 8.0;
    let gone = scrape >= GONE_AFTER + number;
    if number == 2 {
        let mut text = String::new();
        for (index, path) in paths {
            writeln!(text, "live_requests_total{{path=\"{path}\"}} {}", total(index))
                .expect("a text");
        }
        writeln!(text, "live_temperature {temperature}").expect("a text");
        if !gone {
            writeln!(text, "live_gone {scrape}").expect("a text");
        }
        return text;
    }
    let mut exposition = Exposition::new(format(number));
    let mut family =
        exposition.family("live_requests", Kind::Counter, "", "Requests.").expect("a family");
    for (index, path) in paths {
        family.sample(&[("path", path)], f64::from(total(index))).expect("valid");
    }
    let mut family = exposition
        .family("live_temperature", Kind::Gauge, "", "Of \"nothing\".")
        .expect("a family");
    family.sample(&[], temperature).expect("valid");
    let mut family = exposition
        .family("live_latency_seconds", Kind::Histogram, "seconds", "Of nobody.")
        .expect("a family");
    let count = u64::from(scrape);
    family
        .histogram(&[], &[(0.1, count), (f64::INFINITY, count * 2)], f64::from(scrape))
        .expect("valid");
    let mut family =
        exposition.family("live_build", Kind::Info, "", "What this is.").expect("a family");
    family.sample(&[("version", "1 \\ \"2\"\n")], 1.0).expect("valid");
    if !gone {
        let mut family =
            exposition.family("live_gone", Kind::Gauge, "", "Goes away.").expect("a family");
        family.sample(&[], f64::from(scrape)).expect("valid");
    }
    exposition.finish()
}
