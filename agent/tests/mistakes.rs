//! What people do wrong in their first hour, typed at the programs as they are: what they are told, how it exits, and that
//! nothing has changed. Each text says what is wrong, why, and what to do next.

mod agent;

use agent::{Agent, job};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The exit codes of `weft`.
const USAGE: i32 = 2;
const REFUSED: i32 = 1;
const NOT_FOUND: i32 = 4;
const UNREACHABLE: i32 = 6;

/// What is typed behind `weft`, how it exits, and parts of what it says on stderr.
type Mistake<'m> = (&'m [&'m str], i32, &'m [&'m str]);

/// Somebody who is neither root nor in the group weft.
const NOBODY: u32 = 65534;

fn weft(folder: &Path, socket: &Path, arguments: &[&str]) -> Command {
    let weftd = Path::new(env!("CARGO_BIN_EXE_weftd"));
    let weft = weftd.with_file_name("weft");
    assert!(weft.exists(), "{} is missing: cargo build -p weft-cli", weft.display());
    let mut command = Command::new(weft);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("WEFT_SOCKET", socket)
        .stdin(Stdio::null());
    command
}

/// Does it, and compares.
#[track_caller]
fn makes(mut command: Command, (typed, code, parts): &Mistake<'_>) {
    let ended = command.output().expect("weft runs");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    let all = format!("weft {}\n{stderr}[{:?}]", typed.join(" "), ended.status.code());
    assert_eq!(ended.status.code(), Some(*code), "{all}");
    assert_eq!(stdout, "", "{all}");
    assert!(stderr.starts_with("error: ") || stderr.contains("\nerror: "), "{all}");
    for part in *parts {
        assert!(stderr.contains(part), "no {part:?} in:\n{all}");
    }
    // The words of a library are no help to anybody.
    for foreign in ["try '--help'", "panicked", "tip: to pass"] {
        assert!(!stderr.contains(foreign), "{all}");
    }
}

/// All that somebody can have asked for.
fn wishes(agent: &Agent) -> Value {
    let jobs = agent.get("/v1/jobs");
    let jobs = jobs.as_array().expect("a list").iter();
    let jobs: Vec<Value> = jobs.map(|job| json!([job["version"], job["spec"]])).collect();
    let nodes = agent.get("/v1/nodes");
    let nodes = nodes.as_array().expect("a list").iter();
    let nodes: Vec<Value> =
        nodes.map(|node| json!([node["name"], node["info"]["draining"]])).collect();
    json!([jobs, nodes, agent.get("/v1/tokens"), agent.get("/v1/quotas")])
}

#[test]
fn where_there_is_no_agent_or_no_fabric_it_is_said_what_comes_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let none = folder.path().join("none.sock");
    let mistake: Mistake<'_> =
        (&["ps"], UNREACHABLE, &["none.sock cannot be reached: No such file", "is weftd running?"]);
    makes(weft(folder.path(), &none, mistake.0), &mistake);
    let file = folder.path().join("weft.toml");
    std::fs::write(&file, "").expect("it is written");
    let mistake: Mistake<'_> =
        (&["ps"], UNREACHABLE, &["Connection refused", "--socket or WEFT_SOCKET"]);
    makes(weft(folder.path(), &file, mistake.0), &mistake);

    let agent = Agent::start("one");
    for typed in [&["ps"][..], &["token", "create"], &["jobs"], &["leave"]] {
        let mistake: Mistake<'_> =
            (typed, REFUSED, &["no fabric yet: run `weft init` here, or `weft join TOKEN`"]);
        makes(weft(folder.path(), &agent.socket(), typed), &mistake);
    }
    assert_eq!(agent.get("/v1/status")["fabric"], Value::Null);

    // Programs in a folder of root's own cannot be started by anybody else: then there is nothing to see.
    let mut ps = weft(Path::new("/"), &agent.socket(), &["ps"]);
    ps.uid(NOBODY).gid(NOBODY);
    if nix::unistd::Uid::effective().is_root() && ps.output().is_ok() {
        let parts = &["Permission denied", "members of the group weft", "usermod -aG weft USER"];
        makes(ps, &(&["ps"], UNREACHABLE, parts));
    }
}

/// Job files that are none, what is said of each.
const FILES: &[(&str, &str)] = &[
    (
        "name = 'a'\n[task]\ncomand = ['/bin/a']",
        "bad.toml:3:1: unknown key task.comand: did you mean command?",
    ),
    (
        "name = 'a'\n[task]\ncommand = '/bin/sleep 60'",
        "bad.toml:3:11: task.command: expected a list in [ ]",
    ),
    (
        "name = 'a'\n[task]\ncommand = ['/bin/a']\n[resources]\nmemory = '64M'",
        "bad.toml:5:10: resources.memory: expected a size such as \"64MiB\"",
    ),
    (
        "name = 'a'\ntype = 'batch'\n[task]\ncommand = ['/bin/a']",
        "bad.toml:2:8: type: there is no \"batch\": write \"service\" or \"system\"",
    ),
    (
        "name = 'a'\n[task]\ncommand = ['sleep', '60']",
        "bad.toml:3:12: task.command[0]: \"sleep\" is not an absolute path: write where the nodes have it",
    ),
    ("services:\n  web:\n    image: nginx", "this is a Compose file: weft reads TOML"),
    ("apiVersion: apps/v1\nkind: Deployment", "this is a Kubernetes manifest: weft reads TOML"),
    ("job \"a\" {\n}", "this is a job of Nomad's in HCL: weft reads TOML"),
    (
        "name = 'a'\n[task]\nimage = 'nginx'",
        "weft does not run images of containers yet: `command` is a program",
    ),
    (
        "name = 'a'\n[task]\ncommand = ['/bin/a', '${port.htp}']\n[[port]]\nname = 'http'",
        "${port.htp}: the job has no port \"htp\": did you mean \"http\"?",
    ),
    ("name = 'a'\nname = 'b'", "bad.toml:2:1: this is not TOML: duplicate key"),
    ("", "name is missing: the job's name, as in name = \"web\""),
];

#[test]
fn a_file_that_is_no_job_file_is_told_so_with_the_place_and_what_to_write() {
    let agent = Agent::found("one");
    let before = wishes(&agent);
    let folder = tempfile::tempdir().expect("a folder");
    for (text, said) in FILES {
        std::fs::write(folder.path().join("bad.toml"), text).expect("it is written");
        let mistake: Mistake<'_> = (&["apply", "bad.toml"], USAGE, &["bad.toml:", said]);
        makes(weft(folder.path(), &agent.socket(), mistake.0), &mistake);
        assert_eq!(wishes(&agent), before, "{text}");
    }
}

/// What is typed where there is a fabric of one node, `one`, with a job `web` of one slot.
const TYPED: &[Mistake<'_>] = &[
    (
        &["exec", "web", "--", "sh"],
        USAGE,
        &["there is no `weft exec`", "`weft ps JOB` says on which node"],
    ),
    (&["upp"], USAGE, &["unrecognized subcommand 'upp'", "weft alone shows the commands"]),
    (&["apply"], USAGE, &["<FILE>", "For example: weft apply web.toml"]),
    (&["apply", "missing.toml"], USAGE, &["missing.toml: No such file"]),
    (&["apply", "empty"], USAGE, &["empty: there is no job file (NAME.toml) in this folder"]),
    (&["apply", "web.toml", "--wait"], USAGE, &["'--wait'", "apply waits by itself"]),
    (&["stop", "webb"], NOT_FOUND, &["there is no job webb: did you mean web?"]),
    (
        &["logs", "web/7"],
        NOT_FOUND,
        &["slot 7 of web has no allocation (1 wanted)", "`weft explain web`"],
    ),
    (&["scale", "web"], USAGE, &["<COUNT>", "For example: weft scale web 5"]),
    (&["scale", "web", "-1"], USAGE, &["write a number of slots such as 3"]),
    (&["drain", "nowhere"], NOT_FOUND, &["there is no node \"nowhere\": weft nodes lists them"]),
    (&["join", "abc"], USAGE, &["a token begins with weft1. and comes from weft token create"]),
    (
        &["join", "weft1.x"],
        REFUSED,
        &["this node belongs to a fabric already", "to move it, stop the agent"],
    ),
    (&["init"], REFUSED, &["this node belongs to a fabric already", "to move it, stop the agent"]),
    (
        &["run", "--", "sleeep", "60"],
        USAGE,
        &["\"sleeep\" is not on this machine's PATH", "the absolute path"],
    ),
    (&["run", "sleep", "60"], USAGE, &["weft run NAME -- PROGRAM ARGUMENT..."]),
    (
        &["run", "web", "--", "/bin/sleep", "60"],
        REFUSED,
        &["there is a job web already: choose another --name, or weft stop web"],
    ),
    (
        &["rollback", "web"],
        REFUSED,
        &["web has nothing to go back to: version 1 is in force", "Apply the job file"],
    ),
    (
        &["rollback", "web", "--to", "9"],
        NOT_FOUND,
        &["version 9 is not known", "apply its job file"],
    ),
    (
        &["leave", "--yes"],
        REFUSED,
        &["one is the last member of its fabric", "stop weftd, and empty its state directory"],
    ),
    (&["node", "one", "remove", "--yes"], REFUSED, &["one is the last member of its fabric"]),
    (&["node", "remove"], USAGE, &["which node? Write weft node NAME; weft nodes lists the names"]),
    (
        &["wait", "web", "--timeout", "5"],
        USAGE,
        &["\"5\" is not a duration: write a number and a unit", "2s"],
    ),
    (&["ps", "Web"], USAGE, &["\"Web\" is not a job name: use 1 to 63 of a-z"]),
    (&["explain", "web/0"], USAGE, &["web/0 is a slot: name the job alone, web"]),
    (&["restart", "web/x"], USAGE, &["\"x\" is not a slot: write JOB/0"]),
    (&["quota", "set", "default"], USAGE, &["it limits nothing: give cores, memory"]),
    (
        &["quota", "set", "default", "--memory", "16G"],
        USAGE,
        &["write a size such as 64MiB or 1.5GiB"],
    ),
    (
        &["quota", "set", "default", "--allocs", "0"],
        REFUSED,
        &["it would stop web/0", "or repeat with --force"],
    ),
    (
        &["token", "revoke", "nope"],
        NOT_FOUND,
        &["there is no token nope: `weft token list` shows those that work"],
    ),
    (
        &["token", "create", "--lifetime", "forever"],
        USAGE,
        &["\"forever\" is not a duration", "1h"],
    ),
    (&["-o", "xml", "ps"], USAGE, &["invalid value 'xml'", "table, wide, json, yaml, name"]),
    (&["--host", "pine", "ps"], USAGE, &["write ssh://[USER@]HOST[:PORT], as in ssh://root@pine"]),
    (
        &["context", "use", "home"],
        NOT_FOUND,
        &["there is no context \"home\"", "weft context add NAME ssh://HOST"],
    ),
    (&["query", "rate(foo"], USAGE, &["unclosed left parenthesis"]),
    (&["nodes", "one"], USAGE, &["weft node NAME shows one node"]),
    (&["completion", "tcsh"], USAGE, &["bash, zsh, fish"]),
];

#[test]
fn whoever_types_something_wrong_is_told_what_to_type_and_nothing_changes() {
    let agent = Agent::found("one");
    agent.run(&job("web", &["/usr/bin/sleep", "1000"]));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    let web = "name = 'web'\n[task]\ncommand = ['/usr/bin/other']\n";
    std::fs::write(folder.path().join("web.toml"), web).expect("it is written");
    let before = wishes(&agent);
    for mistake in TYPED {
        makes(weft(folder.path(), &agent.socket(), mistake.0), mistake);
        assert_eq!(wishes(&agent), before, "weft {}", mistake.0.join(" "));
    }
    agent.stop_job("web");
    assert!(FILES.len() + TYPED.len() >= 30);
}
