//! query, top, hist, why-slow, trace, profile.

use crate::beside_an_agent;
use crate::fake_agent::{Fake, Series};

fn has(fake: &Fake, name: &'static str, labels: &[(&'static str, &'static str)], values: &[f64]) {
    let series = Series { name, labels: labels.to_vec(), values: values.to_vec() };
    fake.state.borrow_mut().series.push(series);
}

const WEB: [(&str, &str); 4] =
    [("node", "node1"), ("unit", "weft-web-0-1-00000000.service"), ("job", "web"), ("slot", "0")];
const BATCH: [(&str, &str); 4] = [
    ("node", "node1"),
    ("unit", "weft-batch-0-1-00000000.service"),
    ("job", "batch"),
    ("slot", "0"),
];

#[test]
fn a_query_is_a_table_and_as_json_what_came() {
    beside_an_agent(|fake| async move {
        has(&fake, "up", &[("__name__", "up"), ("node", "node1")], &[1.0]);
        has(&fake, "up", &[("__name__", "up"), ("node", "node2")], &[0.25]);
        fake.state.borrow_mut().silent.push("node3".into());
        fake.weft(&["query", "up"])
            .await
            .exits(0)
            .shows("SERIES  NODE   VALUE\nup      node1  1\nup      node2  0.25\n")
            .says("warning: node3 did not answer within 2 s");
        let ran = fake.weft(&["query", "up", "--json"]).await.exits(0);
        assert_eq!(ran.json()["data"]["result"][1]["value"][1], "0.25");
        assert_eq!(ran.json()["warnings"][0], "node3 did not answer within 2 s");
        assert_eq!(ran.stderr, "");
        fake.weft(&["query", "nothing"]).await.exits(0).says("no series");
    });
}

#[test]
fn a_query_over_time_is_a_line_and_a_histogram_a_map() {
    beside_an_agent(|fake| async move {
        has(&fake, "load", &[("node", "node1")], &[0.0, 1.0, 2.0, 8.0]);
        fake.weft(&["query", "load", "--range", "3s", "--step", "1s"])
            .await
            .exits(0)
            .shows("{node=\"node1\"}  ▁▂▃█       0    8    8");
        has(&fake, "took_bucket", &[("le", "1")], &[0.0, 4.0]);
        has(&fake, "took_bucket", &[("le", "+Inf")], &[2.0, 4.0]);
        fake.weft(&["query", "took_bucket", "--range", "1s", "--step", "1s"])
            .await
            .exits(0)
            .shows("UP TO  OVER TIME  MOST\n+Inf   ▓·         2\n1      ·█         4\n");
        fake.weft(&["query", "load", "--step", "1s"]).await.exits(2).says("--range");
        fake.weft(&["query", "load", "--range", "0s"]).await.exits(2);
    });
}

#[test]
fn a_mistake_is_shown_in_its_place() {
    beside_an_agent(|fake| async move {
        fake.weft(&["query", "sum(up"])
            .await
            .exits(2)
            .shows_nothing()
            .says("  sum(up\n        ^\nerror: 1:7: a parenthesis is not closed");
        fake.weft(&["query", "everything"]).await.exits(1).says("10000 are allowed: select fewer");
    });
}

#[test]
fn top_prints_what_is_used_and_a_dash_for_what_is_not_measured() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 1, "/bin/web");
        has(&fake, "weft_unit_cpu_seconds_total", &WEB, &[0.5]);
        has(&fake, "node_cpu_seconds_total", &[("node", "node1")], &[1.25]);
        let ran = fake.weft(&["top", "--batch"]).await.exits(0);
        let line = |start: &str| {
            let line = ran.stdout.lines().find(|line| line.starts_with(start));
            line.unwrap_or_else(|| panic!("no {start} in {ran:#?}")).to_owned()
        };
        assert!(line("node1 ").contains("alive  1.25 of 1.25"), "{ran:#?}");
        assert!(line("node1 ").contains("  ····  "), "{ran:#?}");
        assert!(line("web/0 ").contains("node1  running  0.50  0 shared"), "{ran:#?}");
        assert!(line("web ").contains("1 of 1   0.50  -"), "{ran:#?}");
        // On no terminal it prints once; as a stream of documents when asked for more.
        let ran = fake.weft(&["top", "--json", "-n", "2", "--every", "200ms"]).await.exits(0);
        let looks: Vec<serde_json::Value> =
            ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(looks.len(), 2);
        assert_eq!(looks[0]["allocs"][0]["cpu"], 0.5);
        assert_eq!(looks[0]["allocs"][0]["runq_p99_seconds"], serde_json::Value::Null);
        fake.weft(&["top", "-n", "0"]).await.exits(2);
    });
}

#[test]
fn histograms_are_bars_or_a_row_each_and_only_of_nodes_that_fit() {
    beside_an_agent(|fake| async move {
        for (unit, slow) in [("a.service", 0.0), ("b.service", 10.0)] {
            for (bound, count) in [("0.000001", 90.0), ("0.004", 90.0), ("1", 90.0 + slow)] {
                let labels = [("node", "node1"), ("unit", unit), ("le", bound)];
                has(&fake, "weft_unit_runqueue_seconds_bucket", &labels, &[count]);
            }
        }
        fake.weft(&["hist", "runq"])
            .await
            .exits(0)
            .shows("UP TO  COUNT  OF ALL\n1us    180    95 %    ████")
            .shows("1s     10     5.3 %   ██")
            .shows("count  190")
            .shows("max    1s");
        let ran = fake.weft(&["hist", "runq", "--by", "unit"]).await.exits(0);
        let place = |text: &str| ran.stdout.find(text).unwrap_or_else(|| panic!("{ran:#?}"));
        assert!(place("b.service") < place("a.service"), "the slowest first: {ran:#?}");
        fake.weft(&["hist", "runq", "--where", "labels.rack==\"r2\""]).await.exits(0);
        let asked = fake.state.borrow().requests.last().unwrap().clone();
        assert!(asked.contains("node%3D~%22node3%22"), "{asked}");
        fake.weft(&["hist", "runq", "--where", "labels.rack==\"r9\""])
            .await
            .exits(4)
            .shows_nothing()
            .says("there is no node with labels.rack");
        fake.weft(&["hist", "runq", "--where", "rack r2"]).await.exits(2);
        fake.weft(&["hist", "disk"]).await.exits(0).shows_nothing().says("nothing was counted");
        let json = fake.weft(&["hist", "runq", "--json"]).await.exits(0).json();
        assert_eq!(json["histograms"][0]["max_seconds"], 1.0);
    });
}

#[test]
fn a_slow_job_learns_who_has_its_cpus() {
    beside_an_agent(|fake| async move {
        fake.weft(&["why-slow", "web"]).await.exits(4).says("there is no job");
        fake.has_job("web", 1, "/bin/web");
        has(&fake, "weft_unit_cpu_seconds_total", &WEB, &[0.1]);
        has(&fake, "weft_unit_cpu_wait_seconds_total", &WEB, &[0.3]);
        has(&fake, "weft_unit_cpu_seconds_total", &BATCH, &[1.8]);
        fake.state.borrow_mut().silent.push("node3".into());
        fake.weft(&["why-slow", "web"])
            .await
            .exits(0)
            .shows("web/0 on node1 lost 75 % of the time that it had something to do")
            .shows("75 %  waiting for a CPU  nothing known of before")
            .shows("most of the CPUs is batch/0's: 1.80, and 0.10 its own")
            .shows(
                "not measured there (weft doctor says why): killed for want of memory, throttled",
            )
            .says("warning: node3 did not answer");
        let json = fake.weft(&["why-slow", "web", "-o", "json"]).await.exits(0).json();
        let reason = &json["slots"][0]["reasons"][0];
        assert_eq!((&reason["cause"], &reason["culprit"]), (&"cpu".into(), &"batch/0".into()));
    });
}

#[test]
fn a_trace_shows_what_is_seen_on_every_node_that_can() {
    beside_an_agent(|fake| async move {
        fake.weft(&["trace", "exec", "web"]).await.exits(4).says("there is no job");
        fake.has_job("web", 1, "/bin/web");
        fake.weft(&["trace", "syscalls", "web", "--for", "2s"])
            .await
            .exits(0)
            .shows("read  20     1       5ms   1us  64us  90us")
            .says("looking at web/0 on node1 for 2 s")
            .says("node1: there was no room for 3 more");
        // What comes from afar does not drive the terminal.
        fake.weft(&["trace", "files", "web/0"])
            .await
            .exits(0)
            .shows("web/0  web [2J[812]  /etc/web.conf  No such file or directory");
        let json = fake.weft(&["trace", "files", "web", "--json"]).await.exits(0).json();
        assert_eq!((&json["process"], &json["result"]), (&812.into(), &(-2).into()));
        fake.weft(&["trace", "files", "web/7"]).await.exits(4).says("nothing of web/7 runs");
        fake.weft(&["trace", "files", "web", "--for", "long"]).await.exits(2);
        fake.state.borrow_mut().breaks_off = true;
        let ran = fake.weft(&["trace", "files", "web"]).await.exits(6);
        ran.says("node1: the connection broke off before the trace had ended");
        fake.state.borrow_mut().breaks_off = false;
        fake.state.borrow_mut().fails = true;
        let ran = fake.weft(&["trace", "files", "web"]).await.exits(1);
        ran.says("error: node1: weft-helper did not finish: killed");
        fake.weft(&["profile", "web"]).await.exits(1).says("error: node1: weft-helper did not");
    });
}

#[test]
fn a_profile_is_a_drawing_or_folded_stacks_and_is_refused_with_the_reason() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 1, "/bin/web");
        fake.weft(&["profile", "web"]).await.exits(0).shows("<svg").shows("work (30 samples");
        let ran = fake.weft(&["profile", "web", "--folded"]).await.exits(0);
        assert_eq!(ran.stdout, "web;main 2\nweb;main;work 30\n");
        fake.state.borrow_mut().tracing = true;
        fake.weft(&["profile", "web"])
            .await
            .exits(1)
            .shows_nothing()
            .says("node1: other traces have the room there is: running here: profile of web");
        // What can be had of some nodes is shown, and is not all.
        fake.state.borrow_mut().tracing = false;
        fake.has_job("db", 2, "/bin/db");
        fake.has_slot_on("db", 1, 2);
        let ran = fake.weft(&["profile", "db", "--folded"]).await.exits(3).shows("web;main 2");
        ran.says("error: node3: this node cannot do that").says("not all nodes could be looked at");
    });
}
