//! plan, apply, run, scale, restart, stop, wait.

use fabric::id::JobName;
use fabric::job::{Check, CpuRequest, JobKind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::beside_an_agent;
use crate::fake_agent::{CRASHES, FLAPS, HANGS, Ran};
use fabric::api::NodeState;
use std::time::Duration;

const WEB: &str = r#"
name = "web"
count = 3
[task]
command = ["/bin/web", "${port.http}"]
[resources]
cores = 1
[[port]]
name = "http"
[placement]
constraints = ['labels.rack == "r1"']
[update]
min_healthy = "300ms"
"#;

fn web() -> JobName {
    JobName::new("web").unwrap()
}

#[test]
fn apply_shows_the_plan_and_waits_until_the_job_is_healthy() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", WEB);
        fake.weft(&["apply", "web.toml"])
            .await
            .exits(0)
            .shows_nothing()
            .says("web is new")
            .says("  +  resources.cores")
            .says("slots: start 3")
            .says("  web/2  start  on node1")
            .says("web version 1 is on the disk of 2 of 3 nodes")
            .says("web/0 on node1: starting")
            .says("web version 1 is healthy, 3 of 3 slots healthy");
        assert!(
            fake.state.borrow().requests.contains(&"PUT /v1/jobs/web?expected_version=0".into())
        );

        fake.weft(&["apply", "web.toml"])
            .await
            .exits(0)
            .says("the spec does not change")
            .says("slots: keep 3")
            .says("says the same already");

        fake.file("web.toml", &WEB.replace("count = 3", "count = 4"));
        fake.weft(&["apply", "web.toml"])
            .await
            .exits(0)
            .says("  ~  count  3 -> 4")
            .says("slots: keep 3, start 1");
        assert_eq!(fake.state.borrow().jobs[&web()].version, 2);
        let ran = fake.weft(&["jobs", "web"]).await.exits(0).shows("4 of 4");
        assert!(!ran.stdout.contains('\x1b'), "{ran:?}");
    });
}

#[test]
fn a_plan_names_variables_and_files_and_shows_their_values_only_when_asked() {
    beside_an_agent(|fake| async move {
        let with = |value: &str| {
            let task = format!("[task]\nenv = {{ DB_PASSWORD = \"{value}\" }}");
            let file = format!("[[task.files]]\npath = \"/opt/key\"\ncontent = \"{value}\"\n");
            let variant = format!("[task.arch.riscv64]\nenv = {{ TOKEN = \"{value}\" }}\n");
            format!("{}{file}{variant}", WEB.replace("[task]", &task))
        };
        fake.file("web.toml", &with("hunter2"));
        for command in [&["plan", "web.toml"][..], &["apply", "web.toml"]] {
            let ran = fake.weft(command).await.exits(0);
            let all = format!("{}{}", ran.stdout, ran.stderr);
            for said in [
                "  +  task.env.DB_PASSWORD",
                "(not shown)",
                "task.files[0].content",
                "(7 bytes, not shown)",
                "task.arch.riscv64.env.TOKEN",
                "  note:  every node of this fabric keeps the values of env",
            ] {
                assert!(all.contains(said), "{said}: {all}");
            }
            assert!(!all.contains("hunter2"), "{all}");
        }
        fake.file("web.toml", &with("hunter3"));
        for output in ["table", "json"] {
            let ran = fake.weft(&["plan", "web.toml", "-o", output]).await.exits(0);
            assert!(ran.stdout.contains("task.env.DB_PASSWORD"), "{ran:?}");
            assert!(!ran.stdout.contains("hunter"), "{ran:?}");
            let ran = fake.weft(&["plan", "web.toml", "-o", output, "--show-values"]).await;
            let ran = ran.exits(0).shows("hunter2").shows("hunter3");
            assert!(!ran.stdout.contains("not shown"), "{ran:?}");
        }
        fake.file("plain.toml", &WEB.replace("\"web\"", "\"plain\""));
        let ran = fake.weft(&["plan", "plain.toml"]).await.exits(0);
        assert!(!ran.stdout.contains("every node"), "nothing to keep from anybody: {ran:?}");
    });
}

#[test]
fn rollback_submits_the_version_before_as_a_new_one() {
    beside_an_agent(|fake| async move {
        fake.weft(&["rollback", "web"]).await.exits(4).says("there is no job");
        fake.file("web.toml", WEB);
        fake.weft(&["apply", "web.toml"]).await.exits(0);
        let ran = fake.weft(&["rollback", "web"]).await.exits(1).shows_nothing();
        ran.says("web has nothing to go back to: version 1 is in force");
        fake.file("web.toml", &WEB.replace("/bin/web", "/bin/web2"));
        fake.weft(&["apply", "web.toml", "--yes"]).await.exits(0);

        let ran = fake.weft(&["rollback", "web", "--to", "7"]).await.exits(4).shows_nothing();
        ran.says("version 7 is not known")
            .says("version 2 is in force, and besides it, version 1 is known");
        fake.state.borrow_mut().interfere = true;
        fake.weft(&["rollback", "web"]).await.exits(1).says("it is at version 3 now");
        assert_eq!(fake.state.borrow().jobs[&web()].version, 3, "nothing was submitted");

        fake.file("web.toml", WEB);
        fake.weft(&["apply", "web.toml", "--yes"]).await.exits(0);
        fake.weft(&["rollback", "web", "--yes"])
            .await
            .exits(0)
            .shows_nothing()
            .says("web goes back to what version 3 said, as version 5")
            .says("web version 4 changes")
            .says("/bin/other")
            .says("web version 5 is healthy");
        let sent = "PUT /v1/jobs/web?expected_version=4".to_owned();
        assert!(fake.state.borrow().requests.contains(&sent));
        let ran = fake.weft(&["rollback", "web", "--to", "4", "--json"]).await.exits(0);
        let answer = ran.json();
        assert_eq!(answer["submitted"]["version"], 6);
        assert_eq!(answer["job"]["spec"]["task"]["command"][0], "/bin/web");
        let detached = fake.weft(&["rollback", "web", "--detach", "--json"]).await.exits(0).json();
        assert_eq!(detached["job"], serde_json::Value::Null);
    });
}

#[test]
fn apply_answers_programs_with_one_document() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", WEB);
        let answer = fake.weft(&["apply", "web.toml", "-o", "json"]).await.exits(0).json();
        assert_eq!(answer["submitted"]["version"], 1);
        assert_eq!(answer["job"]["state"], "healthy");
        let answer =
            fake.weft(&["apply", "web.toml", "-o", "json", "--detach"]).await.exits(0).json();
        assert_eq!(answer["submitted"]["changed"], false);
        assert_eq!(answer["job"], serde_json::Value::Null);
        // Of several: also of those before the one that failed.
        fake.file("api.toml", &WEB.replace("\"web\"", "\"api\""));
        fake.file("bad.toml", &WEB.replace("\"web\"", "\"bad\"").replace("/bin/web", CRASHES));
        fake.file("never.toml", &WEB.replace("\"web\"", "\"never\""));
        let files = ["apply", "web.toml", "api.toml", "-o", "json"];
        let answer = fake.weft(&files).await.exits(0).json();
        assert_eq!(
            (&answer[0]["submitted"]["job"], &answer[1]["submitted"]["job"]),
            (&"web".into(), &"api".into())
        );
        let files = ["apply", "web.toml", "bad.toml", "never.toml", "-o", "json", "--settle", "1s"];
        let ran = fake.weft(&files).await.says("not applied after that: never");
        assert_eq!(ran.json().as_array().unwrap().len(), 2);
    });
}

#[test]
fn everything_that_is_wrong_with_a_job_file_is_said_at_once_in_its_order() {
    beside_an_agent(|fake| async move {
        let text = WEB
            .replace("count = 3", "cuont = 3")
            .replace("\"/bin/web\"", "\"web\"")
            .replace("cores = 1", "cores = 0\nmemory = \"64M\"")
            .replace("'labels.rack == \"r1\"'", "'labels.rack = r1'");
        fake.file("bad.toml", &text);
        let ran = fake.weft(&["apply", "bad.toml"]).await.exits(2).shows_nothing();
        let lines: Vec<&str> = ran.stderr.lines().collect();
        for (line, said) in lines.iter().zip([
            "error: bad.toml:3:1: unknown key cuont: did you mean count?",
            "error: bad.toml:5:12: task.command[0]: \"web\" is not an absolute path",
            "error: bad.toml:7:9: resources.cores: 0 is out of range",
            "error: bad.toml:8:10: resources.memory: expected a size such as \"64MiB\"",
            "error: bad.toml:12:16: placement.constraints[0]: ",
        ]) {
            assert!(line.starts_with(said), "{line}, not {said}");
        }
        assert_eq!(lines.len(), 5, "{}", ran.stderr);
        // Of several files, too.
        fake.file("worse.toml", &WEB.replace("count", "cuont"));
        let ran = fake.weft(&["apply", "bad.toml", "worse.toml"]).await.exits(2);
        ran.says("bad.toml:12:16: placement").says("error: worse.toml:3:1: unknown key cuont");
        let many: String = (0..30).map(|at| format!("wrong{at} = 1\n")).collect();
        fake.file("bad.toml", &format!("{many}{WEB}"));
        let ran = fake.weft(&["apply", "bad.toml"]).await.exits(2);
        assert_eq!(ran.stderr.lines().count(), 21);
        ran.says("bad.toml:20:1: unknown key wrong19").says("error: and 10 more errors");
        // A file that is not there, or holds a job that is there already, hides nothing either.
        fake.file("bad.toml", &WEB.replace("count", "cuont"));
        fake.file("web.toml", WEB);
        fake.file("again.toml", WEB);
        std::fs::create_dir(fake.directory.path().join("empty")).unwrap();
        let files = ["apply", "none.toml", "web.toml", "empty", "again.toml", "bad.toml"];
        let ran = fake.weft(&files).await.exits(2).says("error: none.toml: No such file");
        ran.says("error: empty: there is no job file (NAME.toml) in this folder")
            .says("error: again.toml: a second job web: the first one is in web.toml")
            .says("error: bad.toml:3:1: unknown key cuont");
        fake.weft(&["plan", "empty"])
            .await
            .exits(2)
            .says("empty: is a folder, not a job file: name one of");
        assert_eq!(fake.state.borrow().requests, [""; 0]);
    });
}

#[test]
fn a_malformed_job_file_is_refused_with_its_place_and_nothing_is_sent() {
    beside_an_agent(|fake| async move {
        for (text, place) in [
            ("name = \"web\n", "bad.toml:1:12: this is not TOML"),
            (
                &WEB.replace("count", "cuont"),
                "bad.toml:3:1: unknown key cuont: did you mean count?",
            ),
            (
                &WEB.replace("cores = 1", "cores = 0"),
                "bad.toml:7:9: resources.cores: 0 is out of range",
            ),
            (&WEB.replace("/bin/web", "web"), "bad.toml:5:12: task.command[0]"),
            (
                &format!("{WEB}[[task.files]]\npath = \"/a\"\nsource = \"./none\""),
                "bad.toml:16:10: task.files[0].source: \"./none\": No such file",
            ),
        ] {
            fake.file("bad.toml", text);
            for command in ["apply", "plan"] {
                fake.weft(&[command, "bad.toml"]).await.exits(2).shows_nothing().says(place);
            }
        }
        std::fs::write(fake.directory.path().join("bad.toml"), b"name = \"a\"\nx = \"\xff\"")
            .unwrap();
        fake.weft(&["apply", "bad.toml"])
            .await
            .exits(2)
            .says("bad.toml: is not UTF-8 text, in line 2");
        fake.file("bad.toml", &"#".repeat(1 << 20));
        fake.weft(&["apply", "bad.toml"]).await.exits(2).says("is longer than the");
        fake.weft(&["apply", "none.toml"]).await.exits(2).says("none.toml: No such file");
        fake.weft(&["plan", "/"]).await.exits(2).says("/: is a folder, not a job file");
        fake.weft(&["apply", "/proc/self"])
            .await
            .exits(2)
            .says("there is no job file (NAME.toml) in this folder");
        for (text, advice) in [
            ("services:\n  web:\n    image: nginx\n", "this is a Compose file"),
            ("apiVersion: apps/v1\nkind: Deployment\n", "this is a Kubernetes manifest"),
            ("job \"web\" {\n  group \"g\" {}\n}\n", "this is a job of Nomad's"),
            (
                "name = \"web\"\n[task]\nimage = \"nginx\"\n",
                "does not run images of containers yet",
            ),
        ] {
            fake.file("foreign.toml", text);
            fake.weft(&["apply", "foreign.toml"]).await.exits(2).shows_nothing().says(advice);
        }
        assert_eq!(fake.state.borrow().requests, [""; 0]);
    });
}

#[test]
fn a_folder_of_job_files_is_applied_or_nothing_of_it() {
    beside_an_agent(|fake| async move {
        let folder = fake.directory.path().join("jobs");
        std::fs::create_dir(&folder).unwrap();
        for name in ["b", "a"] {
            let text = WEB.replace("\"web\"", &format!("{name:?}"));
            std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
        }
        std::fs::write(folder.join("notes.txt"), "no job").unwrap();
        std::fs::write(folder.join("c.toml"), "name =").unwrap();
        fake.weft(&["apply", "jobs"]).await.exits(2).says("c.toml:1");
        assert_eq!(fake.state.borrow().requests, [""; 0], "nothing was changed");
        std::fs::write(folder.join("c.toml"), WEB.replace("\"web\"", "\"a\"")).unwrap();
        fake.weft(&["apply", "jobs"]).await.exits(2).says("c.toml: a second job a");
        std::fs::remove_file(folder.join("c.toml")).unwrap();
        let said = fake.weft(&["apply", "jobs"]).await.exits(0).stderr;
        let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text} in {said}"));
        assert!(at("a version 1 is healthy") < at("b version 1 is healthy"));
        fake.weft(&["apply", "-f", "jobs/a.toml"]).await.exits(0).says("says the same already");
        fake.weft(&["apply"]).await.exits(2).says("FILE");
    });
}

#[test]
fn a_plan_can_tell_scripts_whether_there_is_something_to_do() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", WEB);
        fake.weft(&["plan", "web.toml"]).await.exits(0);
        fake.weft(&["plan", "web.toml", "--exit-code"]).await.exits(5);
        fake.weft(&["apply", "web.toml"]).await.exits(0);
        fake.weft(&["plan", "web.toml", "--exit-code"]).await.exits(0);
        fake.file("web.toml", &WEB.replace("count", "priority = 60\ncount"));
        fake.weft(&["plan", "web.toml", "--exit-code"]).await.exits(5);
    });
}

#[test]
fn files_are_read_beside_the_job_file_and_a_job_file_from_stdin() {
    beside_an_agent(|fake| async move {
        std::fs::create_dir(fake.directory.path().join("inner")).unwrap();
        fake.file("inner/page.html", "<p>hello");
        fake.file(
            "inner/web.toml",
            &format!("{WEB}[[task.files]]\npath = \"/srv/page\"\nsource = \"./page.html\""),
        );
        fake.weft(&["apply", "inner/web.toml", "--detach"]).await.exits(0);
        assert_eq!(fake.state.borrow().jobs[&web()].spec.task.files[0].content, "<p>hello");

        let mut command = fake.command(&["apply", "-", "--detach"]);
        command.stdin(
            std::fs::File::open(fake.file("other.toml", &WEB.replace("web", "other"))).unwrap(),
        );
        Ran::from(command.output().await.unwrap()).exits(0);
        assert!(fake.state.borrow().jobs.contains_key(&JobName::new("other").unwrap()));
    });
}

#[test]
fn a_job_that_no_node_can_run_is_accepted_and_explained() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", &WEB.replace("cores = 1", "cores = 8"));
        fake.weft(&["plan", "web.toml"])
            .await
            .exits(7)
            .shows("web/0  start  nowhere: no node can take it")
            .shows("not on node1:  8 cores wanted, 4 free")
            .shows("not on node3:  labels.rack == \"r1\" does not hold: it has \"r2\"");
        assert!(fake.state.borrow().jobs.is_empty(), "a plan changes nothing");

        fake.weft(&["apply", "web.toml", "--settle", "300ms"])
            .await
            .exits(7)
            .shows_nothing()
            .says("web version 1 is unplaceable, 0 of 3 slots healthy")
            .says("node2  8 cores wanted, 4 free")
            .says("it stays pending");
        assert_eq!(fake.state.borrow().jobs.len(), 1);

        fake.weft(&["explain", "web"])
            .await
            .exits(0)
            .shows("coordinator  node1")
            .shows("web/2  -     -      no node can take it")
            .shows("node1  no        -     8 cores wanted, 4 free")
            .shows("node3  no        -     labels.rack == \"r1\" does not hold: it has \"r2\"");
        let json = fake.weft(&["explain", "web", "-o", "json"]).await.exits(0).json();
        assert_eq!(json["nodes"].as_array().unwrap().len(), 3);
    });
}

#[test]
fn a_job_that_comes_to_nothing_fails() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", &WEB.replace("/bin/web", CRASHES));
        fake.weft(&["apply", "web.toml", "--settle", "300ms"])
            .await
            .exits(1)
            .says("web/1 on node2: running, not healthy yet: exit status 3")
            .says("web version 1 is failing")
            .says("see weft logs web and weft explain web");
    });
}

#[test]
fn an_update_that_fails_is_reported_as_reverted() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", WEB);
        fake.weft(&["apply", "web.toml"]).await.exits(0);
        fake.file("web.toml", &WEB.replace("/bin/web", CRASHES));
        fake.weft(&["apply", "web.toml", "--settle", "1ms"])
            .await
            .exits(1)
            .says("  ~  task.command  [\"/bin/web\",\"${port.http}\"] -> [\"/bin/crash\",\"${port.http}\"]")
            .says("slots: replace 3")
            .says("web was reverted to version 1: exit status 3");
    });
}

#[test]
fn a_submit_that_lost_a_race_changes_nothing() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", WEB);
        fake.state.borrow_mut().interfere = true;
        fake.weft(&["apply", "web.toml"]).await.exits(1).says("the job has changed: plan again");
        assert_eq!(fake.state.borrow().jobs[&web()].version, 1);
    });
}

#[test]
fn waiting_ends_when_the_time_is_up_and_the_job_goes_on() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", &WEB.replace("/bin/web", HANGS));
        fake.weft(&["apply", "web.toml", "--timeout", "300ms"])
            .await
            .exits(124)
            .says("not healthy in time: web version 1 is progressing, 0 of 3");
        fake.weft(&["wait", "web", "--timeout", "300ms"]).await.exits(124);
        fake.weft(&["wait", "web", "--gone", "--timeout", "300ms"])
            .await
            .exits(124)
            .says("web is not gone yet");
        assert_eq!(fake.state.borrow().jobs.len(), 1);
        fake.weft(&["wait", "web", "--timeout", "soon"]).await.exits(2).says("is not a duration");
    });
}

#[test]
fn ctrl_c_stops_watching_not_deploying() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", &WEB.replace("/bin/web", HANGS));
        let mut child = fake.command(&["apply", "web.toml"]).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut all = String::new();
        while let Some(line) = said.next_line().await.unwrap() {
            all.push_str(&line);
            if line.contains("starting") {
                let pid = Pid::from_raw(child.id().unwrap() as i32);
                kill(pid, Signal::SIGINT).unwrap();
            }
        }
        assert_eq!(child.wait().await.unwrap().code(), Some(130), "{all}");
        assert!(all.contains("stopped watching, nothing else: web goes on"), "{all}");
        assert_eq!(fake.state.borrow().jobs.len(), 1);
    });
}

#[test]
fn run_makes_a_job_from_flags() {
    beside_an_agent(|fake| async move {
        fake.weft(&[
            "run",
            "--name",
            "web",
            "--count",
            "2",
            "--cores",
            "2",
            "--memory",
            "1.5GiB",
            "--disk",
            "2GiB",
            "--numa",
            "prefer",
            "--env",
            "A=b=c",
            "--port",
            "http",
            "--port",
            "admin=9000",
            "--http",
            "/up",
            "--constraint",
            "labels.rack == r1",
            "--user",
            "nobody",
            "--device",
            "gpu",
            "--",
            "/bin/web",
            "${port.http}",
            "--flag",
        ])
        .await
        .exits(0)
        .says("web version 1 is healthy");
        {
            let state = fake.state.borrow();
            let spec = &state.jobs[&web()].spec;
            assert_eq!((spec.count, spec.kind), (2, JobKind::Service));
            assert!(matches!(spec.resources.cpu, CpuRequest::Exclusive { cores: 2, .. }));
            assert_eq!((spec.resources.memory, spec.resources.disk), (3 << 29, 2 << 30));
            assert_eq!(spec.task.command, ["/bin/web", "${port.http}", "--flag"]);
            assert_eq!(spec.task.env["A"], "b=c");
            assert_eq!(spec.ports[1].fixed, Some(9000));
            assert_eq!(
                spec.health.as_ref().unwrap().check,
                Check::Http { path: "/up".into(), port: "http".into() }
            );
        }
        fake.weft(&["run", "--name", "web", "--", "/bin/web"])
            .await
            .exits(1)
            .says("there is a job web already");
        fake.weft(&["run", "--detach", "--cpu", "0.5", "--", "sh", "-c", "x"])
            .await
            .exits(0)
            .says("/usr/bin/sh on this machine");
        fake.weft(&["run", "called", "--detach", "--", "/bin/web"]).await.exits(0);
        assert!(fake.state.borrow().jobs.contains_key(&JobName::new("called").unwrap()));
        // A program in somebody's home directory is on no other machine.
        let home = fake.directory.path().join("only-here");
        std::fs::write(&home, "").unwrap();
        let mut command = fake.command(&["run", "--", "only-here"]);
        command.env("PATH", fake.directory.path());
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("which other nodes hardly have"), "{said}");
        let state = fake.state.borrow();
        let sh = &state.jobs[&JobName::new("sh").unwrap()].spec;
        assert_eq!(sh.resources.cpu, CpuRequest::Shared { millis: 500, hard: false });
    });
}

#[test]
fn run_refuses_what_makes_no_sense() {
    beside_an_agent(|fake| async move {
        for (arguments, said) in [
            (&["run", "web", "--name", "web", "--", "/bin/a"][..], "cannot be used with"),
            (&["run", "--", "no-such-program-anywhere"], "is not on this machine's PATH"),
            (&["run", "--name", "Web", "--", "/bin/a"], "is not a job name"),
            (&["run", "--http", "/", "--", "/bin/a"], "add --port NAME"),
            (&["run", "--cores", "1", "--cpu", "1", "--", "/bin/a"], "cannot be used with"),
            (&["run", "--cpu", "-1", "--", "/bin/a"], "-1"),
            (&["run", "--memory", "64M", "--", "/bin/a"], "write a size such as 64MiB"),
            (&["run", "--constraint", "arhc == x", "--", "/bin/a"], "did you mean \"arch\"?"),
            (&["run", "--port", "http=99999", "--", "/bin/a"], "is not a port"),
            (&["run", "--env", "x", "--", "/bin/a"], "write NAME=VALUE"),
            (&["run", "--", "/bin/a", "${prt.a}"], "there is no ${prt.a}"),
            (&["run", "--name", "a"], "required"),
        ] {
            fake.weft(arguments).await.exits(2).shows_nothing().says(said);
        }
        assert_eq!(fake.state.borrow().requests, [""; 0]);
    });
}

#[test]
fn scale_and_restart_wait_as_well() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        fake.weft(&["scale", "web", "5"]).await.exits(0).says("web version 2 is healthy, 5 of 5");
        fake.weft(&["restart", "web"]).await.exits(0).says("web version 3 is healthy");
        fake.weft(&["restart", "web/4"]).await.exits(0).says("web/4 is restarted in place");
        fake.weft(&["restart", "web/5"]).await.exits(4).says("there is no slot");
        fake.weft(&["restart", "web/x"]).await.exits(2).says("is not a slot");
        fake.weft(&["scale", "web", "many"]).await.exits(2);
    });
}

#[test]
fn stop_waits_until_nothing_is_left() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        fake.weft(&["stop", "web"]).await.exits(0).says("web is being stopped").says("web is gone");
        assert!(fake.state.borrow().jobs.is_empty());
        fake.weft(&["wait", "web", "--gone"]).await.exits(0);
        fake.weft(&["stop", "web"]).await.exits(4);
        fake.weft(&["wait", "web"]).await.exits(4);
    });
}

#[test]
fn what_crashes_again_and_again_is_not_called_healthy() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", &WEB.replace("/bin/web", FLAPS).replace("300ms", "2s"));
        let ran = fake.weft(&["apply", "web.toml", "--settle", "1s"]).await.exits(1);
        let ran = ran.says("web version 1 is failing").says("exit status 3");
        assert!(!ran.stderr.contains("is healthy"), "{ran:?}");
        // Whoever runs out of time before that is told what was missing.
        fake.file("two.toml", &WEB.replace("\"web\"", "\"two\"").replace("300ms", "1m"));
        fake.weft(&["apply", "two.toml", "--timeout", "2s"])
            .await
            .exits(124)
            .says("3 of 3 slots healthy, but not for its update.min_healthy yet");
    });
}

#[test]
fn a_change_is_done_when_it_was_healthy_for_long_enough_and_no_change_at_once() {
    beside_an_agent(|fake| async move {
        let long = Duration::from_secs(2);
        fake.file("web.toml", &WEB.replace("300ms", "2s"));
        let begun = tokio::time::Instant::now();
        fake.weft(&["apply", "web.toml"]).await.exits(0).says("web version 1 is healthy");
        assert!(begun.elapsed() >= long);
        fake.file("two.toml", &WEB.replace("\"web\"", "\"two\"").replace("300ms", "110s"));
        fake.weft(&["apply", "two.toml", "--timeout", "2s"]).await.exits(124);
        // Almost two minutes would be more than this waits.
        let again = fake.weft(&["apply", "two.toml", "--timeout", "1m"]).await;
        again.exits(0).says("says the same already");
        fake.weft(&["wait", "two", "--timeout", "1m"]).await.exits(0);
    });
}

#[test]
fn only_a_version_that_can_be_taken_back_is_said_to_be() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", WEB);
        fake.weft(&["apply", "web.toml"]).await.exits(0);
        // There is room for eight, and those that run stay.
        let ran = fake.weft(&["scale", "web", "9", "--settle", "1s"]).await.exits(7);
        let ran = ran.says("it stays pending, and starts when a node can take it");
        assert!(!ran.stderr.contains("taken back"), "{ran:?}");
        fake.file("web.toml", &WEB.replace("cores = 1", "cores = 8"));
        fake.weft(&["apply", "web.toml", "--settle", "300ms"]).await.exits(7).says(
            "it is taken back, and version 2 is in force again, if no node can take it within 2m",
        );
    });
}

#[test]
fn what_does_not_end_is_named_with_what_to_do_about_it() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", WEB);
        fake.weft(&["apply", "web.toml"]).await.exits(0);
        fake.state.borrow_mut().nodes[1].state = NodeState::Dead;
        let dead = "on node2, which is dead; start the agent of node2, or if it is gone for good: weft node node2 remove";
        let ran = fake.weft(&["stop", "web", "--timeout", "2s"]).await.exits(124);
        ran.says(&format!("1 allocation of web left: web/1 {dead}"))
            .says(&format!("web is not gone yet: web/1 {dead}"));
    });
}

#[test]
fn a_drain_that_cannot_go_on_says_so_at_once() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", WEB);
        fake.weft(&["apply", "web.toml"]).await.exits(0);
        let stays = "stays until another node can take it: node1: it is draining; node3: ";
        let ran = fake.weft(&["drain", "node1"]).await.exits(0);
        assert!(!ran.stderr.contains("stays"), "{ran:?}");
        fake.weft(&["undrain", "node1"]).await.exits(0);
        fake.has_job("web", 3, "/bin/web");
        for index in [0, 2] {
            fake.weft(&["drain", ["node1", "node2", "node3"][index]]).await.exits(0);
        }
        fake.weft(&["drain", "node2"]).await.exits(0).says(stays);
        fake.weft(&["drain", "node2", "--wait", "--timeout", "300ms"])
            .await
            .exits(124)
            .says("node2 is not empty yet: web/")
            .says("on node2 (running)");
    });
}
