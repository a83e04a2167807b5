//! What people expect of such a tool after an hour with others of its kind: 25 expectations, each with what they type and what
//! they must see, on a fabric of three agents in machines of namespaces. What weft does not have it must say so in a sentence
//! that leads on.
//!
//! `cargo test --test expectations -- --nocapture` prints each line with all that it printed, and the table at the end.

#![allow(clippy::disallowed_methods, reason = "commands are typed again in real time")]

mod testbed;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use testbed::{Lab, Machine};

/// How long something may take that needs time to be seen.
const PATIENCE: Duration = Duration::from_secs(60);
/// What only looks: typed again until it shows what it must.
const LOOKS: [&str; 10] =
    ["ps", "nodes", "node", "status", "jobs", "explain", "events", "logs", "doctor", "query"];
/// How many there are, and how many have to work.
const EXPECTATIONS: u8 = 25;
const WORK: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// As people expect it.
    Works,
    /// Some of it; what is not there says so.
    InPart,
    /// Not there, and says so.
    Missing,
}
use Verdict::{InPart, Missing, Works};

/// On which machine, a shell's line, how it ends, and parts of what it prints. `power off` and `power on` are done by hand.
type Typed = (&'static str, &'static str, i32, &'static [&'static str]);

struct Row {
    number: u8,
    expectation: &'static str,
    verdict: Verdict,
    typed: &'static [Typed],
}

const fn row(
    number: u8,
    expectation: &'static str,
    verdict: Verdict,
    typed: &'static [Typed],
) -> Row {
    Row { number, expectation, verdict, typed }
}

/// In the order in which they are typed.
const ROWS: &[Row] = &[
    row(
        21,
        "a fabric by three commands: init, token, join",
        Works,
        &[
            ("pine", "weft init --name grove", 0, &["fabric", "grove", "next: weft token create"]),
            ("pine", "weft token create --ttl 10m >token", 0, &["works for 10m"]),
            ("rowan", "weft join - <token", 0, &["let in by", "pine"]),
            ("birch", "weft join - <token", 0, &["let in by"]),
        ],
    ),
    row(
        1,
        "the bare command and help lead somewhere",
        Works,
        &[
            (
                "pine",
                "weft",
                2,
                &["Fabric", "Run", "Look", "Investigate", "Nodes", "weft apply web.toml"],
            ),
            ("pine", "test $(weft 2>&1 | wc -l) -le 16", 0, &[]),
            ("pine", "weft help apply", 0, &["Examples:", "weft apply jobs/"]),
        ],
    ),
    row(
        2,
        "one glance: status, first what is wrong",
        Works,
        &[("pine", "weft status", 0, &["state       all is well", "nodes       3 alive"])],
    ),
    row(
        3,
        "nodes, and one of them",
        Works,
        &[
            ("birch", "weft nodes", 0, &["NAME", "CORES FREE", "pine", "rowan", "birch (here)"]),
            ("birch", "weft nodes -o wide", 0, &["ARCH", "AGENT", "UP FOR", "10.77.0.1:7400"]),
            ("birch", "weft node pine", 0, &["name", "kernel", "up for", "cores", "memory"]),
            ("birch", "weft nodes -w", 2, &["weft top shows nodes, jobs and allocations again"]),
        ],
    ),
    row(
        8,
        "apply a file or a folder: plan, question, progress, healthy",
        Works,
        &[
            ("pine", "weft apply web.toml", 0, &["web is new", "web/0", "2 of 2 slots healthy"]),
            ("pine", "weft apply -f web.toml", 0, &["the spec does not change", "keep 2"]),
            ("pine", "weft apply jobs/ --quiet && weft jobs -o name", 0, &["first\nsecond\n"]),
            (
                "pine",
                "echo n | script -qec 'weft apply changed.toml' /dev/null",
                1,
                &["[y/N]", "nothing was changed"],
            ),
        ],
    ),
    row(
        7,
        "plan: what would change, for people and for scripts",
        Works,
        &[
            ("pine", "weft plan web.toml --exit-code", 0, &["the spec does not change", "keep 2"]),
            ("pine", "weft plan changed.toml --exit-code", 5, &["count", "2 -> 3", "start"]),
        ],
    ),
    row(
        4,
        "ps: what runs where, in 80 columns",
        Works,
        &[
            (
                "rowan",
                "weft ps web",
                0,
                &["SLOT", "NODE", "PHASE", "HEALTH", "CPUS", "PORTS", "running  healthy"],
            ),
            (
                "rowan",
                "script -qec 'stty cols 80 rows 24; weft ps' /dev/null | awk '{ sub(/\\r/, \"\"); if (length > 80) exit 1 }'",
                0,
                &[],
            ),
        ],
    ),
    row(
        5,
        "-o json, yaml, wide, name",
        Works,
        &[
            ("pine", "weft nodes -o json | python3 -m json.tool >/dev/null", 0, &[]),
            (
                "pine",
                "weft ps web -o yaml",
                0,
                &["- address: ", "  node_name: ", "    healthy: true"],
            ),
            ("pine", "weft ps web -o name", 0, &["web/0\nweb/1\n"]),
            ("pine", "weft jobs -o wide", 0, &["COMMAND", "/usr/bin/python3"]),
            ("pine", "weft ps -o xml", 2, &["table, wide, json, yaml, name"]),
        ],
    ),
    row(
        6,
        "run a command without a file",
        Works,
        &[
            (
                "pine",
                "weft run hello --port http --http / -- python3 -m http.server '${port.http}'",
                0,
                &["/usr/bin/python3", "hello version 1 is healthy"],
            ),
            (
                "pine",
                "weft run ends -- /usr/bin/true",
                1,
                &["ends version 1 is failing", "exit status 0", "a service is meant to go on"],
            ),
            ("pine", "weft stop ends --yes", 0, &["ends is gone"]),
        ],
    ),
    row(
        9,
        "Ctrl-C ends the watching and nothing else",
        Works,
        &[(
            "pine",
            "weft apply never.toml >said 2>&1 & until grep -q 'is on the disk' said; do sleep 0.1; done; \
             kill -INT $!; wait $!; code=$?; cat said; exit $code",
            130,
            &["stopped watching, nothing else: never goes on. To watch again: weft wait never"],
        )],
    ),
    row(
        10,
        "wait, with exit codes",
        Works,
        &[
            ("rowan", "weft wait web --timeout 30s", 0, &[]),
            ("rowan", "weft wait never --timeout 1s", 124, &[]),
            ("rowan", "weft wait nope", 4, &["there is no job nope"]),
            ("rowan", "weft wait web --for=healthy", 2, &["weft wait JOB --gone"]),
        ],
    ),
    row(
        11,
        "logs of all slots, from any machine",
        InPart,
        &[
            ("birch", "weft logs web -n 1", 0, &["web/0 | 127.0.0.1", "web/1 | 127.0.0.1"]),
            ("birch", "weft logs web --since 5m", 2, &["lines are kept without their times"]),
            ("birch", "weft logs web --grep GET", 2, &["weft logs JOB | grep PATTERN"]),
        ],
    ),
    row(
        12,
        "exec into a job",
        Missing,
        &[(
            "pine",
            "weft exec web -- sh",
            2,
            &["there is no `weft exec`", "`weft ps JOB` says on which node it runs"],
        )],
    ),
    row(
        13,
        "top, which says its keys and fits 80 columns",
        Works,
        &[
            ("pine", "weft top", 0, &["NODE", "JOB", "SLOT", "web/0"]),
            (
                "pine",
                "script -qec 'stty cols 80 rows 24; weft top -n 1' /dev/null",
                0,
                &["PINNED CPUS", "q ends", "sorted by name"],
            ),
        ],
    ),
    row(
        14,
        "why it is not placed, per node",
        Works,
        &[
            ("pine", "weft apply big.toml --settle 1s", 7, &["no node can take it"]),
            (
                "pine",
                "weft explain big",
                0,
                &["RANK", "WHY NOT", "labels.rack == \"r2\" does not hold", "birch"],
            ),
        ],
    ),
    row(
        15,
        "scale, restart, stop, rollback; questions before something stops",
        Works,
        &[
            ("pine", "weft scale web 3", 0, &["3 of 3 slots healthy"]),
            (
                "pine",
                "echo n | script -qec 'weft scale web 1' /dev/null",
                1,
                &["stop 2 slots of web, which has 3", "nothing was changed"],
            ),
            ("pine", "weft restart web/0", 0, &[]),
            ("pine", "weft scale web 2 --yes", 0, &["2 of 2 slots healthy"]),
            ("pine", "weft apply changed.toml --yes", 0, &["3 of 3 slots healthy"]),
            ("pine", "weft rollback web --yes", 0, &["3 -> 2", "2 of 2 slots healthy"]),
            ("pine", "weft rm hello --yes", 0, &["hello is gone"]),
        ],
    ),
    row(
        16,
        "drain, and back",
        Works,
        &[
            ("pine", "weft drain rowan --wait --timeout 50s", 0, &["nothing is left on rowan"]),
            ("pine", "weft nodes", 0, &["alive, draining"]),
            ("pine", "weft drain rowan --deadline 5m", 2, &["--wait --timeout 10m"]),
            ("pine", "weft undrain rowan", 0, &[]),
        ],
    ),
    row(
        17,
        "events: names, the last ones, the last minutes",
        Works,
        &[
            (
                "pine",
                "weft events --since 1h",
                0,
                &["alloc   web/0@1 on ", "job     web version 1"],
            ),
            ("pine", "test $(weft events -n 3 | wc -l) = 3", 0, &[]),
            ("pine", "test -z \"$(weft events --since 1h | grep -E ' on [0-9a-f]{8} ')\"", 0, &[]),
        ],
    ),
    row(
        18,
        "search, install, upgrade from a catalog",
        Missing,
        &[
            ("pine", "weft search redis", 2, &["weft has no catalog", "`weft apply FILE`"]),
            ("pine", "weft install redis", 2, &["weft has no catalog"]),
        ],
    ),
    row(
        19,
        "questions about performance",
        Works,
        &[
            ("birch", "weft query 'node_load1 >= 0'", 0, &["NODE", "birch", "pine", "rowan"]),
            ("birch", "weft query 'sum by (job) (rate(up[1m])'", 2, &["^", "unclosed"]),
            ("birch", "weft why-slow web", 0, &["web"]),
            ("birch", "weft why-slow web/0", 2, &["web/0 is a slot: name the job alone, web"]),
        ],
    ),
    row(
        20,
        "jobs by the clock",
        Missing,
        &[(
            "pine",
            "weft cron",
            2,
            &["jobs that end, or begin by the clock, cannot be described yet"],
        )],
    ),
    row(
        22,
        "doctor: what is wrong, and what to do",
        Works,
        &[
            ("pine", "weft doctor || [ $? = 3 ]", 0, &["CHECK", "LEVEL", "FOUND", "disk", "clock"]),
            (
                "pine",
                "weft doctor --json >found; python3 -c 'import json, sys; \
                 sys.exit(3 if any(it[\"level\"] == \"warning\" for it in json.load(open(\"found\"))) else 0)'; \
                 wanted=$?; weft doctor >/dev/null; [ $? = $wanted ]",
                0,
                &[],
            ),
        ],
    ),
    row(
        23,
        "completion with the names of jobs and nodes",
        Works,
        &[
            (
                "pine",
                "eval \"$(weft completion bash)\"; COMP_WORDS=(weft explain w); COMP_CWORD=2; COMP_TYPE=9; \
                 _clap_complete_weft weft w explain 2>/dev/null; echo \"${COMPREPLY[@]}\"",
                0,
                &["web"],
            ),
            (
                "pine",
                "eval \"$(weft completion bash)\"; COMP_WORDS=(weft drain ''); COMP_CWORD=2; COMP_TYPE=9; \
                 _clap_complete_weft weft '' drain 2>/dev/null; echo \"${COMPREPLY[@]}\"",
                0,
                &["birch", "pine", "rowan"],
            ),
        ],
    ),
    row(
        24,
        "from another machine, and contexts",
        Works,
        &[
            (
                "pine",
                "PATH=$PWD/bin:$PATH weft --host ssh://root@rowan nodes",
                0,
                &["rowan (asked)"],
            ),
            (
                "pine",
                "export HOME=$PWD PATH=$PWD/bin:$PATH; unset WEFT_SOCKET; weft ctx add there ssh://birch && \
                 weft ctx use there && weft nodes && weft context list && weft context remove there",
                0,
                &["birch (asked)", "there"],
            ),
        ],
    ),
    row(
        25,
        "quiet, verbose, no colour, near misses, short ids",
        InPart,
        &[
            ("pine", "test -z \"$(weft -q apply web.toml --yes 2>&1)\"", 0, &[]),
            ("pine", "weft -v jobs >/dev/null", 0, &["GET /v1/jobs: 200 after"]),
            ("pine", "weft statsu", 2, &["'status'"]),
            ("pine", "weft stop wbe", 4, &["there is no job wbe: did you mean web?"]),
            (
                "pine",
                "weft node $(weft node rowan --json | grep -m 1 '\"id\"' | cut -d'\"' -f4 | cut -c1-6)",
                0,
                &["rowan"],
            ),
            ("pine", "script -qec 'weft nodes' /dev/null | grep -q $'\\x1b'", 1, &[]),
            (
                "pine",
                "env -u NO_COLOR TERM=xterm script -qec 'weft nodes' /dev/null | grep -q $'\\x1b\\[32malive'",
                0,
                &[],
            ),
        ],
    ),
    // What a dead machine makes of the same.
    row(
        4,
        "",
        Works,
        &[
            ("pine", "weft wait web --timeout 50s && weft apply pinned.toml", 0, &["on rowan"]),
            ("rowan", "power off", 0, &[]),
            ("pine", "weft ps pinned", 0, &["rowan (dead)", "lost"]),
        ],
    ),
    row(
        2,
        "",
        Works,
        &[("pine", "weft status", 3, &["degraded: 1 node is dead", "slots not healthy"])],
    ),
    row(
        14,
        "",
        Works,
        &[("pine", "weft explain pinned", 0, &["rowan  lost   pending", "rowan  no"])],
    ),
    row(
        11,
        "",
        InPart,
        &[(
            "pine",
            "weft logs pinned",
            6,
            &["pinned/0 was on rowan, which is dead: its log is there"],
        )],
    ),
    row(17, "", Works, &[("pine", "weft events -n 20", 0, &["node    rowan is dead"])]),
    row(
        21,
        "",
        Works,
        &[
            ("rowan", "power on", 0, &[]),
            ("pine", "weft nodes", 0, &["rowan  "]),
            ("pine", "weft wait pinned --timeout 50s", 0, &[]),
            (
                "pine",
                "weft stop pinned --yes && weft stop big --yes && weft stop never --yes",
                0,
                &[],
            ),
            ("birch", "weft leave --yes", 0, &["birch has left the fabric"]),
        ],
    ),
];

/// Job files, and what else lies where the lines are typed.
fn lay_out(desk: &Path, socket: impl Fn(&str) -> String) {
    let serves = "[task]\ncommand = ['/usr/bin/python3', '-m', 'http.server', '${port.http}']\n\
                  [[port]]\nname = 'http'\n[health]\nhttp = '/'\n[resources]\ncpu = 0.1\n";
    let sleeps = "[task]\ncommand = ['/usr/bin/sleep', '100000']\n[resources]\ncpu = 0.1\n";
    let write = |name: &str, text: String| {
        let path = desk.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect(name);
    };
    write("web.toml", format!("name = 'web'\ncount = 2\n{serves}"));
    write(
        "changed.toml",
        format!("name = 'web'\ncount = 3\n{}", serves.replace("'-m'", "'-u', '-m'")),
    );
    write(
        "never.toml",
        format!("name = 'never'\n{sleeps}[health]\ncommand = ['/usr/bin/false']\n"),
    );
    write(
        "big.toml",
        format!("name = 'big'\n{sleeps}[placement]\nconstraints = ['labels.rack == \"r2\"']\n"),
    );
    write(
        "pinned.toml",
        format!("name = 'pinned'\n{sleeps}[placement]\nconstraints = ['name == \"rowan\"']\n"),
    );
    for name in ["first", "second"] {
        write(&format!("jobs/{name}.toml"), format!("name = '{name}'\n{sleeps}"));
    }
    // In place of ssh, which would start the same command on that machine.
    let goes = format!(
        "#!/bin/sh\nfor word; do case $word in\n*rowan) export WEFT_SOCKET={};;\n*birch) export WEFT_SOCKET={};;\nesac; done\n\
         while [ \"$1\" != weft ]; do shift; done\nexec \"$@\"\n",
        socket("rowan"),
        socket("birch")
    );
    write("bin/ssh", goes);
    let made = std::process::Command::new("chmod").arg("+x").arg(desk.join("bin/ssh")).status();
    assert!(made.is_ok_and(|status| status.success()));
}

/// Types a line until it shows what it must, or not.
fn types(machine: &Machine, desk: &Path, typed: &Typed) -> Result<String, String> {
    let (name, line, status, parts) = typed;
    let words: Vec<&str> = line.split(' ').collect();
    let looks = matches!(words[..], ["weft", verb, ..] if LOOKS.contains(&verb));
    let until = Instant::now() + if looks { PATIENCE } else { Duration::ZERO };
    loop {
        let (code, printed) = machine.types(desk, line);
        let printed = printed.replace('\r', "");
        let missing = parts.iter().find(|part| !printed.contains(**part));
        if code == Some(*status) && missing.is_none() {
            println!("{name}$ {line}\n{printed}[{status}]\n");
            return Ok(printed);
        }
        if Instant::now() >= until {
            return Err(format!(
                "{name}$ {line}\nends with {code:?}, not {status}, or has no {missing:?}:\n{printed}"
            ));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn what_people_expect_is_there_or_says_what_to_do_instead() {
    let Some(lab) = Lab::new("expects") else { return };
    let desk = lab.folder().join("desk");
    let mut machines: BTreeMap<&str, Machine> =
        ["pine", "rowan", "birch"].map(|name| (name, lab.machine(name))).into();
    lay_out(&desk, |name| machines[name].socket().display().to_string());
    machines.values_mut().for_each(Machine::start_agent);
    let (mut wrong, mut table) = (Vec::new(), BTreeMap::new());
    for row in ROWS {
        let (verdict, _, lines) =
            table.entry(row.number).or_insert((row.verdict, row.expectation, Vec::new()));
        assert_eq!(*verdict, row.verdict, "{}", row.number);
        for typed in row.typed {
            let (name, line, ..) = typed;
            let machine = machines.get_mut(name).expect("a machine");
            match *line {
                "power off" => machine.power_off(),
                "power on" => {
                    machine.power_on();
                    machine.start_agent();
                }
                _ => match types(machine, &desk, typed) {
                    Ok(_) => lines.push(format!("`{line}` → {}", seen(typed))),
                    Err(what) => {
                        println!("WRONG: {}: {what}\n", row.number);
                        wrong.push(format!("{}: {what}", row.number));
                    }
                },
            }
        }
    }
    for (number, (verdict, expectation, lines)) in &table {
        println!("| {number} | {verdict:?} | {expectation} | {} |", lines.join("; "));
    }
    assert!(wrong.is_empty(), "{} of the lines:\n\n{}", wrong.len(), wrong.join("\n"));
    assert!(table.keys().copied().eq(1..=EXPECTATIONS), "{:?}", table.keys());
    let work = table.values().filter(|(verdict, ..)| *verdict == Works).count();
    assert!(work >= WORK, "{work} work");
    println!(
        "{work} of {EXPECTATIONS} work; of the others each line above says what to do instead"
    );
}

/// How a line ended, and what was seen of what it printed.
fn seen((_, _, status, parts): &Typed) -> String {
    let parts: Vec<String> =
        parts.iter().map(|part| format!("\"{}\"", part.trim().replace('\n', " "))).collect();
    match *status {
        0 if parts.is_empty() => "so it is".to_owned(),
        0 => parts.join(", "),
        code => format!("{} (exit {code})", parts.join(", ")),
    }
}
