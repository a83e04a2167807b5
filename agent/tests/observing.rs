//! Real agents in network namespaces, asked about what they measure: any of them answers for all.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use testbed::{Lab, Machine, api, job, netns};

/// Asks in Prometheus's API, over the Unix socket: status and answer.
fn prometheus(machine: &Machine, path: &str, parameters: &[(&str, &str)]) -> Value {
    let encoded: Vec<String> = parameters
        .iter()
        .map(|(name, value)| {
            let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            format!("{name}={value}")
        })
        .collect();
    let path = format!("/api/v1/{path}?{}", encoded.join("&"));
    let answer = api::text(&machine.socket(), &path);
    serde_json::from_str(&answer.unwrap_or_else(|error| panic!("{}: {error}", machine.name)))
        .expect("JSON")
}

fn query(machine: &Machine, expression: &str) -> Value {
    prometheus(machine, "query", &[("query", expression)])
}

/// The values of one label in an answer.
fn labels(answer: &Value, label: &str) -> BTreeSet<String> {
    let series = answer["data"]["result"].as_array().expect("series");
    series.iter().filter_map(|one| Some(one["metric"][label].as_str()?.to_owned())).collect()
}

fn names(machines: &[Machine]) -> BTreeSet<String> {
    machines.iter().map(|machine| machine.name.clone()).collect()
}

#[test]
fn any_node_answers_for_all_and_names_who_is_cut_off() {
    let Some(lab) = Lab::new("observe") else { return };
    let machines = lab.fabric(3);
    for machine in &machines {
        // What the loop counts comes into the store by and by.
        let answer = machine.wait("has series of all", || {
            let answer = query(machine, "weft_nodes{state=\"alive\"}");
            (labels(&answer, "node") == names(&machines)).then_some(answer)
        });
        assert!(answer.get("warnings").is_none(), "{answer}");
        let answer = query(machine, "count(weft_agent_info) + 0 * sum(weft_series)");
        assert_eq!(answer["data"]["result"][0]["value"][1], "3", "{answer}");
        let answer = prometheus(machine, "label/node/values", &[]);
        let told: BTreeSet<String> = serde_json::from_value(answer["data"].clone()).unwrap();
        assert_eq!(told, names(&machines));
        let alone = prometheus(machine, "query", &[("query", "weft_series"), ("scope", "node")]);
        assert_eq!(labels(&alone, "node"), BTreeSet::from([machine.name.clone()]));
    }

    // Cut off, it is asked in vain at first, and then known to be gone: named all the while.
    let port = &machines[2].port;
    lab.bridge.netns().exec("ip link add br1 type bridge mcast_snooping 0");
    lab.bridge.netns().exec("ip link set br1 up");
    lab.bridge.netns().exec(&format!("ip link set {port} master br1"));
    let named = |answer: &Value| {
        let warnings = answer["warnings"].as_array().cloned().unwrap_or_default();
        warnings
            .iter()
            .any(|warning| warning.as_str().is_some_and(|text| text.starts_with("n3 is")))
    };
    let parameters = [("query", "weft_agent_info"), ("timeout", "500ms")];
    let answer = prometheus(&machines[0], "query", &parameters);
    assert!(named(&answer), "{answer}");
    assert_eq!(labels(&answer, "node"), names(&machines[..2]));
    machines[0].wait_alive(2);
    machines[1].wait_alive(2);
    let answer = prometheus(&machines[1], "query", &[("query", "weft_agent_info")]);
    assert!(named(&answer), "{answer}");
    assert!(answer.to_string().contains("dead"), "{answer}");
    // And it answers for itself.
    machines[2].wait_alive(1);
    let answer = query(&machines[2], "weft_agent_info");
    assert_eq!(labels(&answer, "node"), BTreeSet::from(["n3".to_owned()]));
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(2), "{answer}");

    lab.bridge.netns().exec(&format!("ip link set {port} master br0"));
    machines[0].wait_alive(3);
    machines[0].wait("has the answer of all again", || {
        let answer = query(&machines[0], "weft_agent_info");
        (labels(&answer, "node") == names(&machines) && !named(&answer)).then_some(())
    });
}

#[test]
fn series_of_a_job_say_whose_they_are() {
    let Some(lab) = Lab::new("whose") else { return };
    let machines = lab.fabric_with(3, |machine| {
        machine.metrics = "probes = [\"scheduler\", \"processes\"]".to_owned();
    });
    let doctor: Value = machines[0].get("/v1/doctor");
    let probes = doctor.as_array().unwrap().iter().find(|finding| finding["check"] == "probes");
    println!("doctor: {}", probes.expect("it speaks of probes"));
    machines[0].submit(&job("pinned", 3, "[resources]\ncores = 1"));
    machines[1].submit(&job("sleeper", 2, "[resources]\ncpu = 0.1"));
    let wanted = machines[2].wait_healthy("sleeper");
    assert_eq!(wanted.healthy, 2);
    let first =
        prometheus(&machines[0], "query", &[("query", "weft_probe_info"), ("scope", "node")]);
    let source = &first["data"]["result"].as_array().expect("rows")[0];
    println!("source: {source}");
    if !lab.has_cgroups() {
        eprintln!("skipped: without cgroups nobody knows whose threads they are");
        return;
    }
    let places: BTreeSet<(String, String)> = machines[0]
        .live("sleeper")
        .into_iter()
        .map(|alloc| (alloc.id.slot.index.to_string(), alloc.node_name))
        .collect();
    for machine in &machines {
        machine.wait("has the CPU time of both slots", || {
            let answer = query(machine, "weft_unit_cpu_seconds_total{job=\"sleeper\"}");
            let found: BTreeSet<(String, String)> = answer["data"]["result"]
                .as_array()?
                .iter()
                .filter(|one| {
                    one["metric"]["unit"].as_str().is_some_and(|u| u.starts_with("weft-sleeper-"))
                })
                .filter_map(|one| {
                    let text = |label: &str| Some(one["metric"][label].as_str()?.to_owned());
                    Some((text("slot")?, text("node")?))
                })
                .collect();
            (found == places).then_some(())
        });
    }
}

#[test]
fn round_trips_of_a_job_are_those_that_tcp_measures() {
    let Some(lab) = Lab::new("trips") else { return };
    let machines = lab.fabric_with(2, |machine| {
        machine.metrics = "probes = [\"tcp\"]\nlisten = \"0.0.0.0:7480\"".to_owned();
    });
    let source = machines[0].wait("has looked once", || {
        let answer = query(&machines[0], "weft_probe_info{probe=\"tcp\", node=\"n1\"}");
        (!labels(&answer, "source").is_empty()).then_some(answer)
    });
    if !labels(&source, "source").contains("bpf") || !lab.has_cgroups() {
        eprintln!("skipped: no eBPF, or no cgroups to tell units apart by");
        assert!(std::env::var("WEFT_MUST").as_deref() != Ok("ebpf"), "{source}");
        return;
    }
    let peer = machines[1].address();
    let command = format!(
        "exec 3<>/dev/tcp/{peer}/7480; cat <&3 >/dev/null & \
         while printf 'GET /healthz HTTP/1.1\\r\\nhost: weft\\r\\n\\r\\n' >&3; do sleep 0.5; done"
    );
    let text = format!(
        "name = \"talker\"\n[placement]\nconstraints = ['name == \"n1\"']\n\
         [task]\ncommand = [\"/bin/bash\", \"-c\", {command:?}]\n[task.sandbox]\nenabled = false\n"
    );
    machines[0].submit(&fabric::job::parse(&text).expect("a job"));
    machines[0].wait_healthy("talker");

    let number = |machine: &Machine, expression: &str| -> Option<f64> {
        let answer = query(machine, expression);
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    // The bounds of the buckets that have anything, as `weft hist` asks for them: each is twice as wide as the one below.
    let bounds = |machine: &Machine| -> Option<(f64, f64)> {
        let answer = query(
            machine,
            "sum by (le) (increase(weft_unit_tcp_round_trip_seconds_bucket{job=\"talker\"}[1m]))",
        );
        let number = |text: &Value| text.as_str()?.replace("+Inf", "inf").parse::<f64>().ok();
        let buckets: Vec<(f64, f64)> = answer["data"]["result"]
            .as_array()?
            .iter()
            .filter_map(|one| Some((number(&one["metric"]["le"])?, number(&one["value"][1])?)))
            .filter(|(_, count)| *count > 0.0)
            .collect();
        let most = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
        let least_bound = |of: &dyn Fn(f64) -> bool| {
            let bounds = buckets.iter().filter(|(_, count)| of(*count)).map(|(bound, _)| *bound);
            bounds.reduce(f64::min)
        };
        Some((least_bound(&|_| true)? / 2.0, least_bound(&|count| count == most)?))
    };
    // The kernel's word for the connection, in seconds. Every other segment is acknowledged late, so it is some 20 ms all along.
    let now = || -> Option<f64> {
        let text = machines[0].shell(&format!("ss -tinH dst {peer} dport = 7480"));
        let ms: f64 = text.split(" rtt:").nth(1)?.split('/').next()?.parse().ok()?;
        Some(ms / 1e3)
    };
    let mean = "weft_unit_tcp_round_trip_mean_seconds{job=\"talker\"}";
    for machine in &machines {
        machine.wait("has the round trips of the job", || {
            let ((low, high), ours, theirs) = (bounds(machine)?, number(machine, mean)?, now()?);
            println!("{}: {low} to {high} s, {ours} s; ss: {theirs} s", machine.name);
            let is_near = |low: f64, high: f64| low / 1.5 <= theirs && theirs <= high * 1.5;
            (is_near(low, high) && high < 4.0 * low && is_near(ours, ours)).then_some(())
        });
        assert_eq!(number(machine, "sum(weft_unit_tcp_connections{job=\"talker\"})"), Some(1.0));
    }
    let mean = query(&machines[1], mean);
    assert_eq!(labels(&mean, "peer"), BTreeSet::from([peer.clone()]), "{mean}");
}

/// Its cgroup is gone with it, before anybody has looked.
#[test]
fn a_unit_that_is_killed_for_memory_at_once_is_counted_as_its_jobs() {
    let Some(lab) = Lab::new("memory") else { return };
    let machines = lab.fabric_with(1, |machine| machine.metrics = "probes = [\"oom\"]".to_owned());
    let machine = &machines[0];
    let source = machine.wait("has looked once", || {
        let answer = query(machine, "weft_probe_info{probe=\"oom\"}");
        (!labels(&answer, "source").is_empty()).then_some(answer)
    });
    if !labels(&source, "source").contains("bpf") || !lab.has_cgroups() {
        eprintln!("skipped: no eBPF, or no cgroups to tell units apart by");
        assert!(std::env::var("WEFT_MUST").as_deref() != Ok("ebpf"), "{source}");
        return;
    }
    // Where version 2 has no memory to give, a cgroup of version 1 has the limit; what counts is the other.
    let begun = machine.shell(
        "grep -qw memory /sys/fs/cgroup/cgroup.controllers && echo 2 && exit
         mkdir /srv/memory && mount -t cgroup -o memory memory /srv/memory && cd /srv/memory &&
         mkdir -p weft-glutton && cd weft-glutton && echo 16777216 >memory.limit_in_bytes &&
         { echo 16777216 >memory.memsw.limit_in_bytes || echo 0 >memory.swappiness; } 2>/dev/null && echo 1",
    );
    let (limit, command) = match begun.trim() {
        "2" => ("[resources]\nmemory = \"16MiB\"\n", "exec tail /dev/zero"),
        _ => ("", "echo 0 >/srv/memory/weft-glutton/cgroup.procs && exec tail /dev/zero"),
    };
    let text = format!(
        "name = \"glutton\"\n[task]\ncommand = [\"/bin/sh\", \"-c\", {command:?}]\n\
         [task.sandbox]\nenabled = false\n{limit}"
    );
    machine.submit(&fabric::job::parse(&text).expect("a job"));
    machine.wait("has counted it as the job's", || {
        let answer =
            query(machine, "max_over_time(weft_unit_oom_kills_total{job=\"glutton\"}[5m]) > 0");
        labels(&answer, "slot").contains("0").then_some(())
    });
    let lost = query(machine, "max_over_time(weft_unit_oom_kills_total{unit=\"other\"}[5m]) > 0");
    assert_eq!(lost["data"]["result"], Value::Array(Vec::new()), "{lost}");
    machine.shell("rmdir /srv/memory/weft-glutton 2>/dev/null; true");
}

/// Reads a page over TCP from within a machine: nothing else reaches it.
fn fetch(machine: &Machine, target: &str, accept: &str) -> (u16, String) {
    fetch_from(machine, 7480, target, accept)
}

fn fetch_from(machine: &Machine, port: u16, target: &str, accept: &str) -> (u16, String) {
    // 1.0: no chunks. Nobody listens: an empty answer.
    let target = target.replace('%', "%%");
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port} || exit 0; printf 'GET {target} HTTP/1.0\\r\\nhost: weft\\r\\naccept: {accept}\\r\\nconnection: close\\r\\n\\r\\n' >&3; cat <&3"
    );
    let text = netns::run(machine.command("bash").args(["-c", &script]));
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

#[test]
fn over_tcp_there_is_what_is_measured_and_nothing_else() {
    let Some(lab) = Lab::new("readers") else { return };
    let machines = lab.fabric_with(1, |machine| {
        machine.metrics = "listen = \"127.0.0.1:7480\"".to_owned();
    });
    let machine = &machines[0];
    for (target, wanted) in [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/api/v1/query?query=1", 200),
        ("/api/v1/query?query=1%2B", 400),
        ("/api/v1/status/buildinfo", 200),
        ("/v1/jobs", 403),
        ("/v1/status", 403),
        ("/nothing", 404),
    ] {
        let (status, body) = fetch(machine, target, "*/*");
        assert_eq!(status, wanted, "{target}: {body}");
    }
    let (_, open) = fetch(machine, "/metrics", "application/openmetrics-text; version=1.0.0");
    assert!(open.trim_end().ends_with("# EOF"), "{open}");
    promtool(&fetch(machine, "/metrics", "*/*").1);
}

/// Debian's own checker, where it is installed.
fn promtool(text: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var("WEFT_MUST").as_deref() != Ok("prometheus"), "promtool: {error}");
            eprintln!("skipped: promtool does not start ({error}); apt-get install prometheus");
            return;
        }
    };
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    child.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    let complaints: Vec<_> = said.lines().filter(|line| !is_about_a_given_name(line)).collect();
    assert!(complaints.is_empty(), "promtool: {complaints:?}\n{text}");
    // 3: nothing but complaints about style.
    assert!(matches!(status.code(), Some(0 | 3)), "promtool: {status}: {said}");
}

/// Names that node_exporter has made of the kernel's own words. Its checker does not like them there either.
fn is_about_a_given_name(complaint: &str) -> bool {
    let kernels = ["node_memory_", "node_netstat_", "node_vmstat_", "node_sockstat_"];
    let camel_case = "metric names should be written in 'snake_case' not 'camelCase'";
    let words =
        complaint.ends_with(camel_case) && kernels.iter().any(|start| complaint.starts_with(start));
    words || (complaint.starts_with("node_entropy_") && complaint.ends_with("instead of \"bits\""))
}

/// About what stays as it is in a fabric where nothing happens: then both have the same samples, whenever each
/// took its own. What grows all the time is asked whether it does.
const EXPRESSIONS: &[&str] = &[
    "weft_agent_info",
    "weft_nodes",
    "sum(weft_nodes)",
    "sum by (state) (weft_nodes)",
    "avg by (node) (weft_slots)",
    "avg without (state) (weft_slots)",
    "weft_slots{state=~\"h.*\", node!=\"n2\"}",
    "max(weft_jobs)",
    "min by (node) (weft_slots)",
    "count by (__name__) ({__name__=~\"weft_(jobs|slots|nodes)\"})",
    "group by (executor) (weft_agent_info)",
    "quantile(0.3, weft_slots)",
    "stddev(weft_slots)",
    "stdvar by (state) (weft_slots)",
    "topk by (node) (1, weft_slots * 3 + weft_slots)",
    "topk(1, sum by (state) (weft_slots * on (node) group_left (version) weft_agent_info))",
    "bottomk(1, weft_slots{state=\"unplaceable\", node=\"n1\"})",
    "count_values(\"value\", weft_jobs)",
    "weft_slots / on (node) group_left weft_jobs",
    "weft_slots{state=\"wanted\"} - ignoring (state) weft_slots{state=\"healthy\"}",
    "sum(weft_slots{state=\"wanted\"}) == sum(weft_slots{state=\"healthy\"})",
    "weft_slots > bool 1",
    "weft_slots unless weft_slots{state=\"wanted\"}",
    "weft_jobs and on (node) weft_agent_info{executor=\"direct\"}",
    "weft_jobs or weft_disk_refuses",
    "-weft_jobs ^ 2",
    "clamp_max(weft_slots, 1)",
    "absent(weft_nothing{of=\"this\"})",
    "absent(weft_jobs)",
    "scalar(sum(weft_nodes)) + vector(1)",
    "label_replace(weft_jobs, \"number\", \"$1\", \"node\", \"n(.*)\")",
    "label_join(weft_slots, \"both\", \"-\", \"node\", \"state\")",
    "max_over_time(weft_jobs[5s])",
    "changes(weft_jobs[5s])",
    "sum(weft_series_store_bytes{kind=\"budget\"})",
    "weft_probe_info{probe=\"block\"}",
    "count(rate(weft_gossip_bytes_total[20s]) > 0)",
    "count(increase(weft_core_ticks_total[20s]) > 0)",
    "sum by (node) (weft_gossip_datagrams_total > bool 0)",
    "max_over_time(sum(weft_jobs)[5s:1s])",
];

#[test]
#[ignore = "needs Debian's prometheus: run it with `make test-promql`"]
fn prometheus_that_scrapes_three_agents_answers_as_each_of_them() {
    let Some(lab) = Lab::new("scraped") else { return };
    let machines = lab.fabric_with(3, |machine| {
        machine.metrics = format!("probes = []\nlisten = \"{}:7480\"", machine.address());
    });
    machines[0].submit(&job("sleeper", 2, "[resources]\ncpu = 0.1"));
    machines[0].wait_healthy("sleeper");
    let targets: Vec<String> =
        machines.iter().map(|machine| format!("\"{}:7480\"", machine.address())).collect();
    // Our label `job` stays, and what the scraping adds goes.
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: scraped\n    honor_labels: true\n    metric_relabel_configs:\n      - {{action: labeldrop, regex: instance}}\n      - {{source_labels: [job], regex: scraped, target_label: job, replacement: \"\"}}\n    static_configs:\n      - targets: [{}]\n",
        targets.join(", ")
    );
    let Some(prometheus) = Prometheus::start(&lab, &machines[0], "127.0.0.1:9090", &config) else {
        return;
    };
    let theirs = |expression: &str| prometheus.query(expression);
    machines[0].wait("prometheus has scraped all three for a while", || {
        let answer = theirs("sum(count_over_time(weft_agent_info[1m])) >= 60");
        (!answer["data"]["result"].as_array()?.is_empty()).then_some(())
    });
    let mut wrong = Vec::new();
    for expression in EXPRESSIONS {
        let theirs = result(&theirs(expression));
        for machine in &machines {
            let ours = result(&query(machine, expression));
            if ours != theirs {
                let name = &machine.name;
                wrong.push(format!("{expression}\n  {name}: {ours:?}\n  prometheus: {theirs:?}"));
            }
        }
    }
    println!("{} expressions, each asked of three agents and of prometheus", EXPRESSIONS.len());
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Debian's prometheus on one of the machines. It ends when this is dropped.
struct Prometheus<'a> {
    machine: &'a Machine,
    process: Child,
}

impl<'a> Prometheus<'a> {
    /// `None`: it is not installed, and need not be.
    fn start(lab: &Lab, machine: &'a Machine, listen: &str, config: &str) -> Option<Self> {
        if Command::new("prometheus").arg("--version").output().is_err() {
            assert!(
                std::env::var("WEFT_MUST").as_deref() != Ok("prometheus"),
                "prometheus is not installed"
            );
            println!("skipped: prometheus is not installed (`demo/setup.sh promql`)");
            return None;
        }
        let folder = lab.folder().join("prometheus");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("prometheus.yml"), config).expect("written");
        let mut command = machine.command("prometheus");
        command
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={listen}"))
            .arg("--web.enable-remote-write-receiver")
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).expect("a log"));
        testbed::dies_with_us(&mut command);
        Some(Self { machine, process: command.spawn().expect("prometheus starts") })
    }

    /// From within its machine: it need not listen elsewhere.
    fn ask(&self, path: &str) -> Value {
        let (_, body) = fetch_from(self.machine, 9090, path, "*/*");
        serde_json::from_str(&body).unwrap_or(Value::Null)
    }

    fn query(&self, expression: &str) -> Value {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.ask(&format!("/api/v1/query?query={encoded}"))
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The finding of `weft doctor` about remote-write.
fn sending(machine: &Machine) -> (String, String) {
    let doctor: Value = machine.get("/v1/doctor");
    let findings = doctor.as_array().expect("findings");
    let finding = findings.iter().find(|finding| finding["check"] == "remote-write");
    let text = |key: &str| finding.and_then(|finding| finding[key].as_str()).unwrap_or_default();
    (text("level").to_owned(), text("message").to_owned())
}

#[test]
#[ignore = "needs Debian's prometheus: run it with `make test-promql`"]
fn prometheus_has_what_agents_send_it_and_doctor_says_when_it_does_not() {
    let Some(lab) = Lab::new("sent") else { return };
    let machines = lab.fabric_with(2, |machine| {
        // The first one's.
        let to = "http://10.77.0.1:9090/api/v1/write";
        machine.metrics =
            format!("probes = []\nremote_write = \"{to}\"\nremote_write_every = \"1s\"");
    });
    // Nobody takes it yet.
    let refused = machines[1].wait("says that nobody takes it", || {
        let (level, message) = sending(&machines[1]);
        (level == "warning").then_some(message)
    });
    println!("doctor: {refused}");
    assert!(refused.contains("onnection refused"), "{refused}");
    machines[0].submit(&job("sleeper", 2, "[resources]\ncpu = 0.1"));
    machines[0].wait_healthy("sleeper");
    let config = "global: {}\n";
    let Some(prometheus) = Prometheus::start(&lab, &machines[0], "0.0.0.0:9090", config) else {
        return;
    };
    // What was counted before is there, too: it waited.
    let old = machines[0].wait("prometheus has series of both", || {
        let answer = prometheus.query("min_over_time(timestamp(weft_agent_info)[1h:1s])");
        // It is not up yet.
        answer["data"]["result"].as_array()?;
        (labels(&answer, "node") == names(&machines)).then_some(answer)
    });
    println!("oldest: {}", old["data"]["result"]);
    // What stays as it is has the same series, labels and values on both sides.
    let expressions: Vec<_> = EXPRESSIONS.iter().filter(|text| !text.contains('[')).collect();
    let differ = |expression: &str| {
        let (ours, theirs) = (query(&machines[1], expression), prometheus.query(expression));
        let (ours, theirs) = (result(&ours), result(&theirs));
        let said = format!("{expression}\n  ours: {ours:?}\n  prometheus: {theirs:?}");
        (ours != theirs).then_some(said)
    };
    // What has just changed is not there at once.
    let mut wrong: Vec<String> = Vec::new();
    for _ in 0..30 {
        wrong = expressions.iter().filter_map(|expression| differ(expression)).collect();
        if wrong.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    let series = |answer: Value| -> BTreeSet<String> {
        let all = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| one["metric"].to_string()).collect()
    };
    let count = machines[0].wait("has all series on both sides", || {
        let all = "{__name__=~\".+\"}";
        let (ours, theirs) = (series(query(&machines[0], all)), series(prometheus.query(all)));
        (ours == theirs && ours.len() > 100).then_some(ours.len())
    });
    println!("{} expressions, and {count} series, are the same", expressions.len());
    let (level, message) = sending(&machines[1]);
    println!("doctor: {message}");
    assert_eq!(level, "ok", "{message}");
    // A series that ends there ends here.
    api::exchange(&machines[0].socket(), "DELETE", "/v1/jobs/sleeper", None).expect("an answer");
    machines[0].wait("prometheus knows that the units ended", || {
        let answer = prometheus.query("count({job=\"sleeper\"})");
        answer["data"]["result"].as_array()?.is_empty().then_some(())
    });
}

/// Labels and values of an answer, with what floating point allows left out.
fn result(answer: &Value) -> BTreeSet<String> {
    let data = &answer["data"];
    let number = |value: &Value| {
        let value: f64 = value[1].as_str().expect("a value").parse().expect("a number");
        format!("{value:.9e}")
    };
    match data["result"].as_array() {
        Some(pair) if data["resultType"] == "scalar" => {
            BTreeSet::from([number(&pair.clone().into())])
        }
        Some(series) => series
            .iter()
            .map(|one| format!("{} {}", one["metric"], number(&one["value"])))
            .collect(),
        None => BTreeSet::from([answer.to_string()]),
    }
}
