use super::*;

fn call(name: &str, calls: u64, p99_ns: u64) -> TracedCall {
    let (errors, total_ns, p50_ns, max_ns) = (1, calls * 1000, 500, p99_ns * 2);
    TracedCall { call: name.into(), calls, errors, total_ns, p50_ns, p99_ns, max_ns }
}

#[test]
fn calls_of_several_nodes_add_up_and_the_worst_is_shown() {
    let mut calls = BTreeMap::new();
    for seen in [call("read", 3, 4000), call("write", 1, 10), call("read", 4, 9000)] {
        add(&mut calls, &seen);
    }
    let read = &calls["read"];
    assert_eq!((read.calls, read.errors, read.total_ns), (7, 2, 7000));
    assert_eq!((read.p99_ns, read.max_ns), (9000, 18_000));
    assert_eq!(calls.len(), 2);
}

#[test]
fn a_line_says_who_what_and_how_it_ended() {
    let event = |result| Traced {
        at_ns: 1,
        slot: "web/0".into(),
        process: 812,
        parent: 7,
        name: "nginx".into(),
        path: "/etc/passwd".into(),
        result,
    };
    let line = |look, result| event_line(look, &event(result));
    assert_eq!(line(TraceWhat::Files, 3), "web/0  nginx[812]  /etc/passwd  as 3");
    assert!(line(TraceWhat::Files, -2).contains("No such file"));
    assert!(line(TraceWhat::Net, -111).contains("Connection refused"));
    assert!(line(TraceWhat::Net, 1_500_000).ends_with("after 1.5ms"));
    assert!(line(TraceWhat::Exec, 0).ends_with("by 7"));
}

#[test]
fn a_flame_graph_has_its_functions_and_title() {
    let lines = ["web;main;work 30".to_owned(), "web;main;rest 10".to_owned()];
    let svg = String::from_utf8(flame_graph(&lines, "web: where it runs", "samples").unwrap());
    let svg = svg.unwrap();
    assert!(svg.contains("<svg") && svg.contains("work (30 samples"), "{svg}");
    assert!(svg.contains("web: where it runs"));
    assert!(flame_graph(&[], "x", "samples").is_err());
}
