use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as _;
use std::time::Duration;

use super::*;

mod placed;

const WEB: &str = include_str!("../../../../docs/examples/web.toml");
const NODE_EXPORTER: &str = include_str!("../../../../docs/examples/node-exporter.toml");
const PINNED: &str = include_str!("../../../../docs/examples/pinned.toml");
const DATABASE: &str = include_str!("../../../../docs/examples/database.toml");
const TRAINING: &str = include_str!("../../../../docs/examples/training.toml");
const SMALLEST: &str = "name = \"a\"\n[task]\ncommand = [\"/bin/true\"]\n";

#[test]
fn the_smallest_job_gets_every_default() {
    let spec = parse(SMALLEST).unwrap();
    let name = JobName::new("a").unwrap();
    assert_eq!(spec, JobSpec::service(name, vec!["/bin/true".into()]));
    assert_eq!((spec.kind, spec.count), (JobKind::Service, 1));
    assert_eq!(spec.guarantee, Guarantee::AtLeast);
    assert_eq!(spec.resources.cpu, CpuRequest::Shared { millis: 100, hard: false });
    assert_eq!(spec.resources.memory, 64 << 20);
    assert_eq!(spec.task.stop_timeout, Duration::from_secs(10));
}

#[test]
fn the_web_example_says_what_it_means() {
    let spec = parse(WEB).unwrap();
    assert_eq!((spec.name.as_str(), spec.count), ("web", 3));
    assert_eq!(spec.resources.cpu, CpuRequest::Exclusive { cores: 1, smt: Smt::Whole });
    assert_eq!(spec.resources.numa, NumaPolicy::Prefer);
    assert_eq!(spec.task.env["WHERE"], "${node}");
    assert_eq!(spec.task.stop_signal, "SIGINT");
    assert_eq!(spec.task.files[0].path, "/srv/web/index.html");
    assert!(spec.task.files[0].content.contains("<p>It works."));
    assert_eq!(spec.ports, [Port { name: "http".into(), fixed: None }]);
    let health = spec.health.unwrap();
    assert_eq!(health.check, Check::Http { path: "/".into(), port: "http".into() });
    assert_eq!(spec.placement.spread[0].to_string(), "arch");
    assert_eq!(spec.update, Update::default());
    assert_eq!(spec.restart, Restart::default());
}

#[test]
fn the_node_exporter_example_says_what_it_means() {
    let spec = parse(NODE_EXPORTER).unwrap();
    assert_eq!((spec.kind, spec.count), (JobKind::System, 1));
    assert_eq!(spec.resources.cpu, CpuRequest::Shared { millis: 100, hard: true });
    assert_eq!(spec.ports[0].fixed, Some(9100));
    assert_eq!(spec.health.unwrap().check, Check::Tcp { port: "metrics".into() });
    assert_eq!(spec.placement.constraints[0].to_string(), "executor == \"systemd\"");
    assert_eq!(spec.task.sandbox.tasks_max, 64);
}

#[test]
fn disk_is_a_size_and_none_unless_it_is_asked_for() {
    let disk = |lines: &str| parse(&format!("{SMALLEST}\n{lines}")).unwrap().resources.disk;
    assert_eq!(disk(""), 0);
    assert_eq!(disk("[resources]\ndisk = \"2GiB\""), 2 << 30);
    assert_eq!(disk("[resources]\ndisk = 4096"), 4096);
}

#[test]
fn the_database_example_says_what_it_means() {
    let spec = parse(DATABASE).unwrap();
    assert_eq!(spec.guarantee, Guarantee::AtMostOne);
    assert_eq!(spec.task.stop_timeout, Duration::from_secs(20));
}

#[test]
fn the_training_example_says_what_it_means() {
    let spec = parse(TRAINING).unwrap();
    assert_eq!((spec.priority, spec.namespace.as_str(), spec.gang), (20, "research", true));
    let plain = parse(SMALLEST).unwrap();
    assert_eq!((plain.priority, plain.namespace.as_str(), plain.gang), (50, "default", false));
}

#[test]
fn priority_namespace_and_gang_restart_nothing_and_show_in_the_difference() {
    let plain = parse(SMALLEST).unwrap();
    let namespace = Namespace::new("research").unwrap();
    let other = JobSpec { priority: 51, namespace, gang: true, ..plain.clone() };
    assert_eq!(plain.hash(0), other.hash(0));
    let changes = JobSpec::changes(Some(&plain), &other);
    let after: Vec<_> =
        changes.iter().map(|c| (c.path.as_str(), c.after.as_deref().unwrap())).collect();
    assert_eq!(after, [("gang", "true"), ("namespace", "\"research\""), ("priority", "51")]);
}

#[test]
fn impossible_priorities_namespaces_and_gangs_are_refused() {
    let refused = |top: &str| {
        let text = format!("name = \"a\"\n{top}\n[task]\ncommand = [\"/bin/true\"]\n");
        parse(&text).unwrap_err().to_string()
    };
    for (top, said) in [
        ("priority = 0", "1 to 100"),
        ("priority = 101", "1 to 100"),
        ("priority = \"high\"", "1 to 100"),
        ("namespace = \"A b\"", "is not a namespace"),
        ("gang = 1", "true or false"),
        ("gang = true\ntype = \"system\"", "leave gang out"),
        ("gang = true\nguarantee = \"at-most-one\"", "leave one of the two out"),
        ("gang = true\ncount = 1025", "1024"),
    ] {
        let error = refused(top);
        assert!(error.contains(said), "{top}: {error}");
    }
}

#[test]
fn the_guarantee_is_part_of_what_an_allocation_depends_on() {
    let least = parse(SMALLEST).unwrap();
    let most = JobSpec { guarantee: Guarantee::AtMostOne, ..least.clone() };
    assert_ne!(least.hash(0), most.hash(0));
    let changes = JobSpec::changes(Some(&least), &most);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].path, "guarantee");
    assert_eq!(changes[0].after.as_deref(), Some("\"at-most-one\""));
}

#[test]
fn a_guarantee_that_cannot_be_given_is_refused() {
    let refused = |text: &str| parse(text).unwrap_err().to_string();
    let job = |top: &str, task: &str| {
        format!("name = \"a\"\n{top}\n[task]\ncommand = [\"/bin/true\"]\n{task}")
    };
    let most = "guarantee = \"at-most-one\"";
    let error = refused(&job("guarantee = \"at-most\"", ""));
    assert!(error.contains("at-most-one"), "{error}");
    let error = refused(&job(&format!("{most}\ntype = \"system\""), ""));
    assert!(error.contains("system job"), "{error}");
    let error = refused(&job(&format!("{most}\ncount = 4097"), ""));
    assert!(error.contains("4096 leases"), "{error}");
    let error = refused(&job(most, "stop_timeout = \"31s\""));
    assert!(error.contains("30 s"), "{error}");
}

#[test]
fn the_pinned_example_says_what_it_means() {
    let spec = parse(PINNED).unwrap();
    assert_eq!(spec.resources.cpu, CpuRequest::Exclusive { cores: 2, smt: Smt::Whole });
    assert_eq!(spec.resources.numa, NumaPolicy::Require);
    assert_eq!(spec.resources.hugepages, BTreeMap::from([(2048, 16)]));
    assert_eq!(spec.resources.devices, ["/dev/pps0"]);
    assert_eq!(spec.placement.strategy, crate::job::Strategy::BestFit);
    assert_eq!(spec.placement.constraints.len(), 4);
    assert_eq!(spec.task.user.as_deref(), Some("root"));
    assert!(matches!(spec.health.unwrap().check, Check::Command { .. }));
}

#[test]
fn every_example_survives_json_and_postcard() {
    for text in [WEB, NODE_EXPORTER, PINNED, TRAINING, SMALLEST] {
        let spec = parse(text).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&json).unwrap(), spec);
        let bytes = postcard::to_stdvec(&spec).unwrap();
        assert_eq!(postcard::from_bytes::<JobSpec>(&bytes).unwrap(), spec);
    }
}

/// A job file with `lines` added, and where and how it is refused.
#[track_caller]
fn refused(text: &str, place: (usize, usize), message: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.message, message, "in {text}");
    assert_eq!((error.line, error.column), place, "of {error} in {text}");
}

#[track_caller]
fn refused_with(lines: &str, place: (usize, usize), message: &str) {
    refused(&format!("{SMALLEST}{lines}\n"), place, message);
}

#[test]
fn what_is_not_toml_is_refused_where_it_stops_being_toml() {
    for (text, place) in [
        ("name = \"web\ncount = 3\n", (1, 12)),
        ("name = \"web\"\ncount = 3 3\n", (2, 9)),
        ("[task\ncommand = []\n", (1, 6)),
        ("name = \"a\"\nname = \"b\"\n", (2, 1)),
        ("größe = 3\n", (1, 3)),
        ("[task]\ncommand = [\"/bin/true\"\n", (2, 23)),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.message.starts_with("this is not TOML: "), "{error}");
        assert_eq!((error.line, error.column), place, "{error} in {text}");
    }
}

#[test]
fn columns_are_counted_in_characters() {
    refused(
        "name = \"a\"\ntask = { command = [\"/bin/äöü\", 3] }\n",
        (2, 33),
        "task.command[1]: expected text in quotes, found 3",
    );
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    for (lines, place, message) in [
        (
            "[resources]\nmemroy = \"1GiB\"",
            (5, 1),
            "unknown key resources.memroy: did you mean memory?",
        ),
        ("[restrat]\nattempts = 3", (4, 2), "unknown key restrat: did you mean restart?"),
        ("[[ports]]\nname = \"http\"", (4, 3), "unknown key ports: did you mean port?"),
        (
            "[[port]]\nname = \"http\"\nnumber = 80",
            (6, 1),
            "unknown key port[0].number: known are name, static",
        ),
        (
            "env.A = \"x\"\nenvironment = 3",
            (5, 1),
            "unknown key task.environment: known are command, env, user, working_dir, files, stop_signal, stop_timeout, sandbox, arch",
        ),
        ("sandbox.homes = true", (4, 9), "unknown key task.sandbox.homes: did you mean home?"),
        (
            "[placement]\nconstraint = []",
            (5, 1),
            "unknown key placement.constraint: did you mean constraints?",
        ),
        (
            "[update]\nmax_paralel = 2",
            (5, 1),
            "unknown key update.max_paralel: did you mean max_parallel?",
        ),
        ("[health]\nTCP = true", (5, 1), "unknown key health.TCP: did you mean tcp?"),
    ] {
        refused_with(lines, place, message);
    }
}

/// Everything that is wrong, as a reader sees it.
fn all_of(text: &str) -> Vec<String> {
    let errors = parse_all(text, &mut |_| Err("there is none".into())).expect_err(text);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn everything_that_is_wrong_is_said_in_the_order_of_the_file() {
    let said = all_of(
        "nmae = \"a\"\ncount = \"3\"\n[task]\ncommand = [\"true\", 3, 4]\nuser = 5\nenv = { A = 1, B-C = \"x\" }\n\
         [[task.files]]\npath = \"a\"\nsource = \"./a\"\n[resources]\ncores = 0\nmemory = \"64M\"\ndisk = -1\n\
         [update]\ndeadline = \"2\"\nmax_parallel = 0\n[restart]\nattempts = -1\ndelay = \"1s\"\n",
    );
    let begins = [
        "1:1: unknown key nmae: did you mean name?",
        "2:9: count: expected a whole number",
        "4:20: task.command[1]: expected text in quotes, found 3",
        "4:23: task.command[2]: expected text in quotes, found 4",
        "5:8: task.user: expected text",
        "6:13: task.env.A: expected text in quotes, found 1",
        "6:22: task.env.B-C: not the name of a variable",
        "8:8: task.files[0].path: \"a\" is not an absolute path",
        "9:10: task.files[0].source: \"./a\": there is none",
        "11:9: resources.cores: 0 is out of range",
        "12:10: resources.memory: expected a size",
        "13:8: resources.disk: expected a size",
        "15:12: update.deadline: ",
        "16:16: update.max_parallel: 0 is out of range",
        "18:12: restart.attempts: -1 is out of range",
    ];
    for (said, begins) in said.iter().zip(begins) {
        assert!(said.starts_with(begins), "{said}, not {begins}");
    }
    assert_eq!(said.len(), begins.len(), "{said:#?}");
}

#[test]
fn what_is_wrong_only_because_something_else_is_is_not_said() {
    let task = |lines: &str| format!("name = \"a\"\n[task]\n{lines}\n");
    for (text, only) in [
        // The port that is used has a misspelt name.
        (
            task(
                "command = [\"/bin/a\", \"${port.http}\"]\n[[port]]\nnmae = \"http\"\n[health]\ntcp = true",
            ),
            "unknown key port[0].nmae: did you mean name?",
        ),
        // Whether it is less than the deadline nobody knows.
        (
            task(
                "command = [\"/bin/a\"]\n[update]\nmin_healthy = \"5m\"\ndeadline = \"10 minuets\"",
            ),
            "update.deadline: ",
        ),
        // What a check is that cannot be read, and whether a timeout is longer than it knows, nobody can say.
        (
            task(
                "command = [\"/bin/a\"]\n[health]\ntcp = 1\nport = \"http\"\n[[port]]\nname = \"http\"",
            ),
            "health.tcp: expected true or false",
        ),
        (
            task(
                "command = [\"/bin/a\"]\n[health]\ncommand = [\"/bin/b\"]\ninterval = 10\ntimeout = \"1h\"",
            ),
            "health.interval: ",
        ),
        (task("command = [\"/bin/a\"]\n[health]\nhttp = \"/\""), "has no port to check"),
        (task("command = [\"/bin/a\"]\n[health]\ngrace = \"1s\""), "health.http is missing"),
        (
            format!("type = \"sistem\"\ncount = 3\n{}", task("command = [\"/bin/a\"]")),
            "type: there is no \"sistem\"",
        ),
        (task("comand = [\"/bin/a\"]"), "unknown key task.comand: did you mean command?"),
        (task("command = \"/bin/a\""), "task.command: expected a list"),
        (task("command = []"), "task.command: is empty"),
        ("taks = 1\nname = \"a\"".into(), "unknown key taks: did you mean task?"),
    ] {
        let said = all_of(&text);
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].contains(only), "{said:?}");
    }
    // Two things that are missing are two.
    let said = all_of("count = 3\n");
    assert!(said[0].contains("name is missing") && said[1].contains("task is missing"), "{said:?}");
}

#[test]
fn one_error_of_a_section_hides_no_other() {
    let said = all_of(
        "name = \"a\"\n[task]\ncommand = [\"/bin/a\"]\n\
         [[task.files]]\npath = \"/a\"\nsource = \"./a\"\n[[task.files]]\npath = \"b\"\ncontent = \"\"\n\
         [resources]\ncores = \"2\"\nsmt = \"wohle\"\ncpu_hard = true\n\
         [[port]]\nstatic = \"80\"\nname = \"Web\"\n[[port]]\nname = \"db\"\nstatic = 0\n[[port]]\nname = \"db\"\n\
         [health]\nhttp = \"here\"\nport = \"webb\"\ninterval = \"soon\"\ntimeout = \"0s\"\nfailures = 0\n\
         [placement]\naffinity = [{ if = \"rack\", weight = 5000 }]\n\
         [update]\nmin_healthy = \"5m\"\ndeadline = \"later\"\nmax_parallel = 0\n",
    );
    let begins = [
        "6:10: task.files[0].source: \"./a\": there is none",
        "8:8: task.files[1].path: \"b\" is not an absolute path",
        "11:9: resources.cores: expected a whole number",
        "12:7: resources.smt: there is no \"wohle\": did you mean \"whole\"?",
        "13:12: resources.cpu_hard: goes with cpu",
        "15:10: port[0].static: expected a whole number",
        "16:8: port[0].name: \"Web\" is not a port's name",
        "19:10: port[1].static: 0 is out of range",
        "21:8: port[2].name: there are two ports called \"db\"",
        "23:8: health.http: \"here\" is not a path",
        "24:8: health.port: the job has no port \"webb\"",
        "25:12: health.interval: ",
        "26:11: health.timeout: must be more than 0s",
        "27:12: health.failures: 0 is out of range",
        "29:20: placement.affinity[0].if: ",
        "29:37: placement.affinity[0].weight: 5000 is out of range",
        "32:12: update.deadline: ",
        "33:16: update.max_parallel: 0 is out of range",
    ];
    for (said, begins) in said.iter().zip(begins) {
        assert!(said.starts_with(begins), "{said}, not {begins}");
    }
    assert_eq!(said.len(), begins.len(), "{said:#?}");
}

#[test]
fn a_file_of_nothing_but_errors_ends_somewhere() {
    let wrong: String = (0..2000).map(|at| format!("k{at} = 1\n")).collect();
    let errors = all_of(&format!("{wrong}{SMALLEST}"));
    assert!((20..=512).contains(&errors.len()), "{}", errors.len());
    let ports: String = (0..300).map(|at| format!("[[port]]\nname = \"P{at}\"\n")).collect();
    assert!((1..=512).contains(&all_of(&format!("{SMALLEST}{ports}")).len()));
}

#[test]
fn the_first_unknown_key_in_the_file_is_named() {
    refused_with(
        "[resources]\nzz = 1\naa = 2",
        (5, 1),
        "unknown key resources.zz: known are cores, cpu, cpu_hard, smt, memory, swap, disk, numa, hugepages, devices",
    );
}

#[test]
fn wrong_values_say_what_was_expected() {
    for (lines, place, message) in [
        (
            "[resources]\ncores = 0",
            (5, 9),
            "resources.cores: 0 is out of range: a whole number from 1 to 4096",
        ),
        (
            "[resources]\ncores = 1.5",
            (5, 9),
            "resources.cores: expected a whole number from 1 to 4096, found 1.5",
        ),
        (
            "[resources]\ncores = \"2\"",
            (5, 9),
            "resources.cores: expected a whole number from 1 to 4096, found \"2\"",
        ),
        ("[resources]\ncpu = -1", (5, 7), "resources.cpu: -1 is out of range: 0.001 to 4096 CPUs"),
        (
            "[resources]\ncpu = nan",
            (5, 7),
            "resources.cpu: NaN is out of range: 0.001 to 4096 CPUs",
        ),
        (
            "[resources]\ncpu = \"half\"",
            (5, 7),
            "resources.cpu: expected a number of CPUs such as 0.5, found \"half\"",
        ),
        (
            "[resources]\ncores = 1\ncpu = 0.5",
            (6, 7),
            "resources.cpu: ask for cores (exclusive) or for cpu (shared), not for both",
        ),
        (
            "[resources]\ncores = 1\ncpu_hard = true",
            (6, 12),
            "resources.cpu_hard: goes with cpu: exclusive cores are a limit by themselves",
        ),
        (
            "[resources]\nsmt = \"share\"",
            (5, 7),
            "resources.smt: goes with cores: shared CPU has no siblings to keep or give away",
        ),
        (
            "[resources]\ndisk = \"much\"",
            (5, 8),
            "resources.disk: expected a size such as \"64MiB\" or \"1.5GiB\", found \"much\"",
        ),
        (
            "[resources]\ndisk = -1",
            (5, 8),
            "resources.disk: expected a size such as \"64MiB\" or \"1.5GiB\", found -1",
        ),
        (
            "[resources]\ndisk = \"2048TiB\"",
            (5, 8),
            "resources.disk: 2048TiB is out of range: at most 1024TiB",
        ),
        (
            "[resources]\nmemory = \"64M\"",
            (5, 10),
            "resources.memory: expected a size such as \"64MiB\" or \"1.5GiB\", found \"64M\"",
        ),
        (
            "[resources]\nmemory = -5",
            (5, 10),
            "resources.memory: expected a size such as \"64MiB\" or \"1.5GiB\", found -5",
        ),
        (
            "[resources]\nmemory = 5",
            (5, 10),
            "resources.memory: 5B is out of range: 1MiB to 1024TiB",
        ),
        (
            "[resources]\nnuma = \"prefered\"",
            (5, 8),
            "resources.numa: there is no \"prefered\": did you mean \"prefer\"?",
        ),
        (
            "[resources]\nnuma = true",
            (5, 8),
            "resources.numa: expected \"none\" or \"prefer\" or \"require\", found true",
        ),
        (
            "[resources]\nhugepages = { \"2M\" = 4 }",
            (5, 22),
            "resources.hugepages.2M: is not the size of a huge page: write it like \"2MiB\" or \"1GiB\"",
        ),
        (
            "[resources]\nhugepages = { \"3MiB\" = 4 }",
            (5, 1),
            "resources.hugepages: 3MiB is not the size of a huge page: processors have powers of two from 64KiB to 16GiB, most of them 2MiB and 1GiB",
        ),
        (
            "[resources]\ndevices = [\"gpu\", \"usb:1A86:7523\"]",
            (5, 19),
            "resources.devices[1]: \"usb:1A86:7523\" is not a device: write a class (\"gpu\"), a bus identity (\"usb:1a86:7523\", lower case) or a path (\"/dev/ttyUSB0\")",
        ),
        (
            "stop_signal = \"TERM\"",
            (4, 15),
            "task.stop_signal: there is no signal \"TERM\": did you mean \"SIGTERM\"?",
        ),
        (
            "stop_timeout = \"10\"",
            (4, 16),
            "task.stop_timeout: \"10\" is not a duration: write a number and a unit, as in 500ms, 2s, 1m30s, 1h or 7d",
        ),
        (
            "stop_timeout = 10",
            (4, 16),
            "task.stop_timeout: expected a duration such as \"2s\" or \"1m30s\", found 10",
        ),
        (
            "working_dir = \"srv\"",
            (4, 15),
            "task.working_dir: \"srv\" is not an absolute path: write it from / on, without '..' and control characters",
        ),
        (
            "env = { \"A B\" = \"x\" }",
            (4, 17),
            "task.env.A B: not the name of a variable: use letters, digits and '_', a letter first",
        ),
        (
            "env = { \"A.B\" = \"x\" }",
            (4, 17),
            "task.env.A.B: not the name of a variable: use letters, digits and '_', a letter first",
        ),
        (
            "env = { A = \"${prt.http}\" }",
            (4, 13),
            "task.env.A: there is no ${prt.http}: known are ${cpus}, ${job}, ${slot}, ${epoch}, ${node} and ${port.NAME}; for a plain \"${prt.http}\" write $${prt.http}",
        ),
        (
            "env = { A = \"${slots}\" }",
            (4, 13),
            "task.env.A: there is no ${slots}: did you mean ${slot}?; for a plain \"${slots}\" write $${slots}",
        ),
        (
            "env = { A = \"${port.http}\" }",
            (4, 13),
            "task.env.A: ${port.http}: the job has no port \"http\": add [[port]] with that name",
        ),
        (
            "env = { A = \"${node\" }",
            (4, 13),
            "task.env.A: \"${\" is never closed: write ${NAME}, or $${ for a plain \"${\"",
        ),
        ("env = { A = 3 }", (4, 13), "task.env.A: expected text in quotes, found 3"),
        (
            "files = [{ path = \"/a\" }]",
            (4, 10),
            "task.files[0].content is missing: the file's text (or source = \"./FILE\")",
        ),
        (
            "files = [{ path = \"/a\", source = \"./b\" }]",
            (4, 34),
            "task.files[0].source: \"./b\": files cannot be read here: write content = \"...\"",
        ),
        (
            "files = [{ path = \"/a\", content = \"\", source = \"./b\" }]",
            (4, 48),
            "task.files[0].source: a file has either content or source, not both",
        ),
        (
            "[[task.files]]\npath = \"/a/../b\"\ncontent = \"\"",
            (5, 8),
            "task.files[0].path: \"/a/../b\" is not an absolute path: write it from / on, without '..' and control characters",
        ),
        (
            "[task.sandbox]\ncapabilities = [\"NET_ADMIN\"]",
            (5, 17),
            "task.sandbox.capabilities[0]: there is no capability \"NET_ADMIN\": did you mean \"CAP_NET_ADMIN\"?",
        ),
        (
            "[task.sandbox]\nsyscalls = [\"~mount\"]",
            (5, 13),
            "task.sandbox.syscalls[0]: \"~mount\" is not a system call (\"openat\") or a group of them (\"@system-service\")",
        ),
        (
            "[[port]]\nname = \"HTTP\"",
            (5, 8),
            "port[0].name: \"HTTP\" is not a port's name: use 1 to 15 of a-z, 0-9 and '-', a letter first",
        ),
        (
            "[[port]]\nname = \"http\"\nstatic = 65536",
            (6, 10),
            "port[0].static: 65536 is out of range: a whole number from 1 to 65535",
        ),
        (
            "[[port]]\nname = \"a\"\n[[port]]\nname = \"a\"",
            (7, 8),
            "port[1].name: there are two ports called \"a\"",
        ),
        (
            "[[port]]\nname = \"a\"\nstatic = 80\n[[port]]\nname = \"b\"\nstatic = 80",
            (9, 10),
            "port[1].static: two ports have the same number",
        ),
        (
            "[placement]\naffinity = [{ weight = 3 }]",
            (5, 13),
            "placement.affinity[0].if is missing: a condition, as in if = \"labels.disk == ssd\"",
        ),
        (
            "[placement]\naffinity = [{ if = \"os == a\", weight = 101 }]",
            (5, 40),
            "placement.affinity[0].weight: 101 is out of range: a whole number from -100 to 100",
        ),
        (
            "[placement]\nspread = [\"name\", \"arch\", \"name\"]",
            (5, 27),
            "placement.spread[2]: name is there twice: within one value of it there is nothing to spread",
        ),
        (
            "[placement]\nspread = [\"name\", \"arch\", \"os\", \"kernel\", \"version\"]",
            (5, 10),
            "placement.spread: has 5 levels, 4 are allowed",
        ),
        (
            "[placement]\nanti_affinity = [\"Db\"]",
            (5, 18),
            "placement.anti_affinity[0]: \"Db\" is not a job name: use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends",
        ),
        ("[task.arch.arm64]", (4, 12), "task.arch.arm64: the kernel calls it \"aarch64\""),
        (
            "[task.arch.aarch64]\nsandbox = { home = true }",
            (5, 1),
            "unknown key task.arch.aarch64.sandbox: known are command, env, user, working_dir, files",
        ),
        (
            "[task.arch.aarch64]\nenv = { WEFT_X = \"1\" }",
            (5, 18),
            "task.arch.aarch64.env.WEFT_X: names that begin with WEFT_ are set by weft itself",
        ),
        ("[port]\nname = \"a\"", (4, 2), "port: expected a list in [ ], found a section"),
        (
            "[health]\ninterval = \"2s\"",
            (4, 2),
            "health.http is missing: the check (or tcp = true, or command = [\"...\"])",
        ),
        (
            "[health]\nhttp = \"/\"",
            (5, 8),
            "health.http: the job has no port to check: add [[port]] with a name",
        ),
        (
            "[[port]]\nname = \"web\"\n[health]\nhttp = \"/\"\nport = \"wbe\"",
            (8, 8),
            "health.port: the job has no port \"wbe\": did you mean \"web\"?",
        ),
        (
            "[[port]]\nname = \"a\"\n[[port]]\nname = \"b\"\n[health]\ntcp = true",
            (8, 2),
            "health.port is missing: the name of the port to check",
        ),
        (
            "[health]\ntcp = true\nhttp = \"/\"",
            (5, 7),
            "health.tcp: a job has one check: http, tcp or command",
        ),
        ("[health]\ncommand = []", (5, 11), "health.command: is empty: name a program"),
        (
            "[health]\ncommand = [\"/bin/true\"]\ninterval = \"0s\"",
            (6, 12),
            "health.interval: must be more than 0s",
        ),
        (
            "[health]\ncommand = [\"/bin/true\"]\ninterval = \"5s\"\ntimeout = \"1h\"",
            (7, 11),
            "health.timeout: 1h is longer than health.interval (5s), and a check has to be over before the next one: write 5s at most, or a longer interval",
        ),
        (
            "[placement]\nconstraints = [\"arhc == x\"]",
            (5, 16),
            "placement.constraints[0]: a node has no attribute \"arhc\": did you mean \"arch\"?",
        ),
        (
            "[placement]\nspread = \"lables.rack\"",
            (5, 10),
            "placement.spread: a node has no attribute \"lables.rack\": use name, arch, kernel, os, version, executor, cores, memory, numa, labels.NAME or devices.CLASS",
        ),
        (
            "[placement]\nstrategy = \"bestfit\"",
            (5, 12),
            "placement.strategy: there is no \"bestfit\": did you mean \"best-fit\"?",
        ),
        (
            "[update]\nmin_healthy = \"3m\"",
            (5, 15),
            "update.min_healthy: must be less than update.deadline (2m), or no update ever succeeds",
        ),
        (
            "[update]\nmax_parallel = 0",
            (5, 16),
            "update.max_parallel: 0 is out of range: a whole number from 1 to 100000",
        ),
        ("[restart]\nwithin = \"0s\"", (5, 10), "restart.within: must be more than 0s"),
    ] {
        refused_with(lines, place, message);
    }
}

/// What is left out fits what is there.
#[test]
fn a_check_that_says_no_timeout_has_one_that_fits_its_interval() {
    for (interval, timeout) in [("500ms", 500), ("2s", 2000), ("1m", 2000)] {
        let text = format!(
            "name = \"a\"\n[task]\ncommand = [\"/bin/true\"]\n[health]\ncommand = [\"/bin/true\"]\ninterval = \"{interval}\""
        );
        let health = parse(&text).unwrap().health.unwrap();
        assert_eq!(health.timeout.as_millis(), timeout, "{interval}");
    }
}

#[test]
fn what_must_be_there_is_asked_for() {
    for (text, place, message) in [
        ("", (1, 1), "name is missing: the job's name, as in name = \"web\""),
        (
            "name = \"Web\"\n[task]\ncommand = [\"/bin/true\"]",
            (1, 8),
            "name: \"Web\" is not a job name: use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends",
        ),
        (
            "name = \"a\"",
            (1, 1),
            "task is missing: a section [task] with a command, as in command = [\"/usr/bin/sleep\", \"60\"]",
        ),
        (
            "name = \"a\"\n[task]\ncomand = [\"/bin/true\"]",
            (3, 1),
            "unknown key task.comand: did you mean command?",
        ),
        (
            "name = \"a\"\n[task]\nuser = \"x\"",
            (2, 2),
            "task.command is missing: the program and its arguments, as in command = [\"/usr/bin/sleep\", \"60\"]",
        ),
        ("name = \"a\"\n[task]\ncommand = []", (3, 11), "task.command: is empty: name a program"),
        (
            "name = \"a\"\n[task]\ncommand = \"/bin/true\"",
            (3, 11),
            "task.command: expected a list in [ ], found \"/bin/true\"",
        ),
        (
            "name = \"a\"\n[task]\ncommand = [\"true\"]",
            (3, 12),
            "task.command[0]: \"true\" is not an absolute path: write where the nodes have it, as in \"/usr/bin/python3\"",
        ),
        (
            "name = \"a\"\ntype = \"systm\"\n[task]\ncommand = [\"/bin/true\"]",
            (2, 8),
            "type: there is no \"systm\": did you mean \"system\"?",
        ),
        (
            "name = \"a\"\ntype = \"system\"\ncount = 3\n[task]\ncommand = [\"/bin/true\"]",
            (3, 9),
            "count: a system job has one copy on each matching node: leave count out",
        ),
        (
            "name = \"a\"\ncount = 100001\n[task]\ncommand = [\"/bin/true\"]",
            (2, 9),
            "count: 100001 is out of range: a whole number from 0 to 100000",
        ),
        (
            "name = \"a\"\ncount = 99999999999999999999999999999999999999999999\n[task]\ncommand = [\"/bin/true\"]",
            (2, 9),
            "count: expected a whole number from 0 to 100000, found 99999999999999999999999999999999999999999999",
        ),
    ] {
        refused(text, place, message);
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let long = format!("{SMALLEST}# {}", "x".repeat(limits::JOB_FILE_BYTES_MAX));
    assert!(parse(&long).unwrap_err().message.contains("bytes"), "a long file");
    let many = format!(
        "{SMALLEST}env = {{ {} }}",
        (0..300).map(|i| format!("A{i} = \"\", ")).collect::<String>()
    );
    refused(&many, (4, 1), "task.env: has 300 keys, 256 are allowed");
    let list = format!("{SMALLEST}[resources]\ndevices = [{}]", "\"gpu\", ".repeat(257));
    refused(&list, (5, 11), "resources.devices: has 257 items, 256 are allowed");
    let deep = format!("{SMALLEST}env = {}", "[".repeat(5000));
    assert!(parse(&deep).is_err());
}

#[test]
fn files_come_from_where_the_caller_reads_them() {
    let text = format!("{SMALLEST}files = [{{ path = \"/etc/a\", source = \"./a\" }}]\n");
    let mut asked = Vec::new();
    let spec = parse_with(&text, &mut |name| {
        asked.push(name.to_owned());
        Ok("hello".into())
    });
    assert_eq!(
        spec.unwrap().task.files,
        [TaskFile { path: "/etc/a".into(), content: "hello".into() }]
    );
    assert_eq!(asked, ["./a"]);

    let error = parse_with(&text, &mut |_| Err("no such file".into())).unwrap_err();
    assert_eq!(error.to_string(), "4:38: task.files[0].source: \"./a\": no such file");
    let huge = "x".repeat(limits::JOB_FILE_BYTES_MAX);
    let error = parse_with(&text, &mut |_| Ok(huge.clone())).unwrap_err();
    assert_eq!((error.line, error.column), (4, 9), "{error}");
    assert!(error.message.starts_with("task.files: the job has"), "{error}");
}

#[test]
fn sizes_are_read_as_written() {
    for (text, bytes) in [
        ("0", Some(0)),
        ("1000", Some(1000)),
        ("64MiB", Some(64 << 20)),
        ("1.5GiB", Some(3 << 29)),
        (" 2 KiB ", Some(2048)),
        ("500MB", Some(500_000_000)),
        ("0.3KiB", Some(307)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("16777216TiB", None),
        ("1.5", None),
        ("64M", None),
        ("64mib", None),
        ("-1", None),
        ("", None),
        ("MiB", None),
        ("1.", None),
        (".5GiB", None),
        ("1.5.5GiB", None),
        ("1e3", None),
        ("1.0000000000MiB", None),
    ] {
        assert_eq!(parse_bytes(text), bytes, "{text:?}");
    }
}

#[test]
fn nearest_is_near_or_nothing() {
    let names = ["memory", "cores", "cpu"];
    for (wrong, near) in [
        ("memroy", Some("memory")),
        ("CORES", Some("cores")),
        ("cpus", Some("cpu")),
        ("disk", None),
        ("", None),
    ] {
        assert_eq!(nearest(wrong, names.into_iter()), near, "{wrong}");
    }
    assert_eq!(nearest(&"x".repeat(100_000), names.into_iter()), None);
}

/// A valid file with a few bytes changed: close enough to the real thing to reach every reader.
fn mutated() -> impl proptest::strategy::Strategy<Value = String> {
    let file = proptest::sample::select(vec![WEB, NODE_EXPORTER, PINNED]);
    let edits = proptest::collection::vec(
        (any::<proptest::sample::Index>(), 0usize..4, "\\PC{0,6}|[\"\\[\\]{}=.\n$]"),
        1..6,
    );
    (file, edits).prop_map(|(file, edits)| {
        let mut text: Vec<char> = file.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        text.into_iter().collect()
    })
}

fn place_is_inside(text: &str, error: &ParseError) -> bool {
    let line = text.split('\n').nth(error.line - 1);
    line.is_some_and(|line| error.column <= line.chars().count() + 1)
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        if let Err(error) = parse(&text) {
            prop_assert!(place_is_inside(&text, &error), "{error} in {text:?}");
        }
    }

    #[test]
    fn a_mutated_file_is_read_or_refused_at_a_place_inside_it(text in mutated()) {
        match parse(&text) {
            Ok(spec) => prop_assert_eq!(spec.validate(), Ok(())),
            Err(error) => {
                prop_assert!(place_is_inside(&text, &error), "{error} in {text:?}");
                prop_assert!(!error.message.is_empty());
            }
        }
    }

    #[test]
    fn bytes_never_panic_and_whole_numbers_survive(text in "[0-9]{0,25}\\.?[0-9]{0,12} ?[A-Za-z]{0,4}", number: u64) {
        let _ = parse_bytes(&text);
        prop_assert_eq!(parse_bytes(&number.to_string()), Some(number));
    }
}
