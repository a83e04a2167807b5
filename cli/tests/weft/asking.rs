//! status, nodes, ps, logs, events, tokens, and an agent that is not there.

use fabric::api::{Finding, FindingLevel, NodeState};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::beside_an_agent;
use crate::fake_agent::{Fake, Ran, weft};

#[test]
fn an_agent_that_is_not_there_is_told_from_all_else() {
    beside_an_agent(|fake| async move {
        let none = Path::new("/nonexistent/weft.sock");
        for arguments in [&["status"][..], &["nodes"], &["ps"], &["logs", "web"], &["wait", "web"]]
        {
            let ran = Ran::from(weft(none).args(arguments).output().await.unwrap());
            ran.exits(6)
                .shows_nothing()
                .says("/nonexistent/weft.sock cannot be reached")
                .says("is weftd running?");
        }
        // --socket goes before WEFT_SOCKET.
        let socket = fake.socket();
        let mut command = weft(none);
        Ran::from(command.arg("status").arg("--socket").arg(socket).output().await.unwrap())
            .exits(0);
    });
}

#[test]
fn an_agent_that_makes_no_sense_is_a_failure() {
    beside_an_agent(|fake| async move {
        let path = fake.directory.path().join("other.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::task::spawn_local(async move {
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
                "HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nwhy",
                "nonsense\r\n\r\n",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        for (code, said) in [
            (1, "must have the same version"),
            (1, "refuses /v1/status with status 500"),
            (6, "does not answer"),
        ] {
            Ran::from(weft(&path).arg("status").output().await.unwrap())
                .exits(code)
                .shows_nothing()
                .says(said);
        }
    });
}

#[test]
fn help_and_version_are_data_and_nonsense_is_usage() {
    beside_an_agent(|fake| async move {
        fake.weft(&["help"]).await.exits(0).shows("Exit codes:").shows("124  --timeout has passed");
        fake.weft(&["--version"]).await.exits(0).shows("weft ");
        fake.weft(&["help", "apply"]).await.exits(0).shows("weft apply web.toml --yes");
        fake.weft(&["aply"]).await.exits(2).shows_nothing().says("apply");
        fake.weft(&[])
            .await
            .exits(2)
            .shows_nothing()
            .says("Usage")
            .says("A first fabric: weft init");
        let help = fake.weft(&["--help"]).await.exits(0).stdout;
        for shown in
            ["\nFabric:\n  init ", "\nNodes:\n", "  apply       Run a job file", "--socket"]
        {
            assert!(help.contains(shown), "no {shown:?} in {help}");
        }
        fake.weft(&["ps", "Web"]).await.exits(2).says("is not a job name");
        assert_eq!(fake.state.borrow().requests, [""; 0]);
    });
}

#[test]
fn verbs_from_elsewhere_work_or_are_told_what_they_are_called_here() {
    beside_an_agent(|fake| async move {
        for (typed, said) in [
            (&["exec", "web", "--", "sh"][..], "cannot go into a running job yet"),
            (&["describe", "web"], "`weft explain JOB`"),
            (&["undo"], "`weft rollback JOB`"),
            (&["cordon", "rack1"], "`weft drain NODE`"),
            (&["install", "redis"], "no catalog"),
            (&["sinfo"], "`weft nodes`"),
        ] {
            let said_all = fake.weft(typed).await.exits(2).shows_nothing().says(said).stderr;
            assert!(said_all.contains(&format!("there is no `weft {}`", typed[0])), "{said_all}");
        }
        assert_eq!(fake.state.borrow().requests, [""; 0]);
        fake.has_job("web", 1, "/bin/web");
        fake.weft(&["ls"]).await.exits(0).shows("web/0");
        fake.weft(&["list"]).await.exits(0).shows("web");
        fake.weft(&["rm", "web"]).await.exits(0).says("web is being stopped");
        fake.has_job("web", 1, "/bin/web");
        fake.weft(&["delete", "web", "--yes"]).await.exits(0);
        fake.file("web.toml", "name = \"web\"\n[task]\ncommand = [\"/bin/new\"]");
        fake.weft(&["deploy", "web.toml"]).await.exits(0).says("web version 1 is healthy");
        let versions = fake.weft(&["version"]).await.exits(0).stdout;
        assert!(versions.starts_with("weft   ") && versions.contains("\nweftd  "), "{versions}");
        let json = fake.weft(&["version", "--json"]).await.exits(0).json();
        assert_eq!(json["weft"], env!("CARGO_PKG_VERSION"));
    });
}

#[test]
fn rebalance_shows_moves_and_makes_them_only_when_told_to() {
    beside_an_agent(|fake| async move {
        fake.weft(&["rebalance"]).await.exits(0).says("no move would make anything better");
        fake.has_job("web", 2, "/bin/web");
        let place = || fake.state.borrow().alloc_views(Some("web"))[0].node;
        let before = place();
        fake.weft(&["rebalance", "--plan"])
            .await
            .exits(0)
            .shows("web/0")
            .shows("free cores on one memory node there: 2 -> 4")
            .says("weft rebalance --apply makes them");
        assert_eq!(place(), before);
        let json = fake.weft(&["rebalance", "-o", "json"]).await.exits(0).json();
        assert_eq!((&json["applied"], json["moves"].as_array().unwrap().len()), (&false.into(), 1));
        assert_eq!(place(), before);
        fake.weft(&["rebalance", "--apply", "--max-moves", "1"])
            .await
            .exits(0)
            .says("1 move asked for");
        assert_ne!(place(), before);
        fake.weft(&["rebalance", "--apply", "--plan"]).await.exits(2).says("cannot be used with");
        fake.weft(&["rebalance", "--max-moves", "0"]).await.exits(2).says("0 is not in 1..=100");
        fake.weft(&["rebalance", "--max-moves", "101"]).await.exits(2).says("1..=100");
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    beside_an_agent(|fake| async move {
        for arguments in [
            &["ps", "web"][..],
            &["jobs", "web"],
            &["explain", "web"],
            &["logs", "web"],
            &["scale", "web", "2"],
            &["restart", "web"],
            &["stop", "web"],
            &["node", "rack9"],
            &["drain", "rack9"],
            &["undrain", "rack9"],
            &["token", "revoke", "zz"],
        ] {
            fake.weft(arguments).await.exits(4).shows_nothing().says("there is no ");
        }
        fake.weft(&["node", "nod2"]).await.exits(4).says("did you mean node2?");
        fake.has_job("web", 2, "/bin/web");
        fake.weft(&["logs", "web/2"]).await.exits(4).says("there is no slot");
    });
}

#[test]
fn status_is_3_when_not_all_is_well() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        fake.weft(&["status"])
            .await
            .exits(0)
            .shows("state       all is well")
            .shows("2 of 2 healthy")
            .shows("systemd: it is PID 1");
        fake.state.borrow_mut().nodes[1].state = NodeState::Dead;
        fake.weft(&["status"])
            .await
            .exits(3)
            .shows("degraded: 1 node is dead")
            .shows("2 alive, 1 dead")
            .shows("away        node2 (dead)");
        let json = fake.weft(&["status", "-o", "json"]).await.exits(3).json();
        assert_eq!(json["fabric"]["nodes"]["dead"], 1);
    });
}

#[test]
fn doctor_gives_advice_and_its_exit_code_says_how_bad_it_is() {
    beside_an_agent(|fake| async move {
        let finding = |level, advice: &str| Finding {
            check: "disk".into(),
            level,
            message: "4% free".into(),
            advice: advice.into(),
        };
        fake.state.borrow_mut().findings = vec![finding(FindingLevel::Ok, "")];
        fake.weft(&["doctor"]).await.exits(0).shows("disk   ok     4% free");
        fake.state.borrow_mut().findings.push(finding(FindingLevel::Warning, "make room"));
        fake.weft(&["doctor"]).await.exits(3).shows("do: make room");
        fake.state.borrow_mut().findings.push(finding(FindingLevel::Error, "make room"));
        let json = fake.weft(&["doctor", "-o", "json"]).await.exits(1).json();
        assert_eq!(json[2]["level"], "error");
        // A machine is not well beside an error of its own.
        fake.weft(&["status"]).await.exits(3).shows("weft doctor finds errors (disk)");
    });
}

#[test]
fn nodes_are_listed_found_drained_and_removed() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        fake.weft(&["nodes"])
            .await
            .exits(0)
            .shows("NAME          ID        STATE  CORES FREE  MEMORY FREE   DISK FREE       ALLOCS  LABELS\n")
            .shows("node1 (here)  a0101010  alive  4 of 4      1GiB of 1GiB  30GiB of 40GiB  2       rack=r1\n")
            .shows("node3         a2101010  alive  4 of 4      1GiB of 1GiB  -               0       rack=r2\n");
        assert_eq!(
            fake.weft(&["nodes", "-o", "json"]).await.exits(0).json().as_array().unwrap().len(),
            3
        );
        fake.weft(&["node", "a210"])
            .await
            .exits(0)
            .shows("name        node3")
            .shows("x86_64, debian 12");
        let disk = "30GiB of 40GiB free in pool default (2GiB set aside, 8GiB used by others)";
        fake.weft(&["node", "node1"]).await.exits(0).shows(disk);

        let node = fake.weft(&["ps", "-o", "json"]).await.exits(0).json()[0]["node_name"]
            .as_str()
            .unwrap()
            .to_owned();
        fake.weft(&["node", &node]).await.exits(0).shows("SLOT").shows("web/0");
        fake.weft(&["drain", &node, "--wait"])
            .await
            .exits(0)
            .says(&format!("nothing is left on {node}"));
        fake.weft(&["nodes"]).await.exits(0).shows("alive, draining");
        fake.weft(&["undrain", &node]).await.exits(0).says("takes work again");
        for (word, draining) in [("drain", true), ("undrain", false)] {
            let view = fake.weft(&[word, &node, "-o", "json"]).await.exits(0).json();
            assert_eq!(view["name"], node.as_str(), "{word}: {view}");
            assert_eq!(view["info"]["draining"], draining, "{word}: {view}");
        }
        fake.weft(&["drain", "node3", "--timeout", "1s"]).await.exits(2).says("--wait");

        for arguments in [&["node", "remove", "node3"][..], &["node", "node3", "remove", "node3"]] {
            fake.weft(arguments).await.exits(2).says("the name goes first: weft node node3 remove");
        }
        fake.weft(&["node", "node3", "remove"]).await.exits(0).says("node3 is no longer a member");
        assert_eq!(fake.state.borrow().nodes.len(), 2);
    });
}

#[test]
fn a_node_leaves_its_fabric_once_its_work_is_elsewhere() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        fake.has_all_on(0);
        let id = fake.state.borrow().nodes[0].id;
        let asked = move |fake: &Fake, what: &str| {
            let state = fake.state.borrow();
            state.requests.iter().any(|request| *request == format!("{what}{id}"))
        };
        for node in &mut fake.state.borrow_mut().nodes[1..] {
            node.state = NodeState::Suspect;
        }
        fake.weft(&["leave"])
            .await
            .exits(7)
            .shows_nothing()
            .says("node1 runs what no other node can take: web/0 stays until another node can take it: node2: ")
            .says("Nothing was changed")
            .says("(--now)");
        let info = fake.state.borrow().nodes[0].info.clone().unwrap();
        assert!(!info.draining && !asked(&fake, "DELETE /v1/nodes/"));
        for node in &mut fake.state.borrow_mut().nodes[1..] {
            node.state = NodeState::Alive;
        }
        let ran = fake.weft(&["leave", "--json"]).await.exits(0);
        assert_eq!(ran.json()["name"], "node1");
        ran.says("node1 hands over its work")
            .says("nothing is left on node1")
            .says("node1 has left the fabric, and the other 2 nodes go on")
            .says(
                "are still there. To use this machine again: stop weftd, empty its state directory",
            );
        assert!(asked(&fake, "DELETE /v1/nodes/"));
        fake.weft(&["leave"])
            .await
            .exits(1)
            .says("this agent's node is no longer a member of its fabric");
    });
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        fake.has_all_on(0);
        fake.weft(&["node", "node1", "remove", "--now"]).await.exits(0).says("has left the fabric");
        let state = fake.state.borrow();
        assert!(
            !state.requests.iter().any(|request| request.ends_with("/drain")),
            "it did not wait"
        );
    });
    beside_an_agent(|fake| async move {
        fake.state.borrow_mut().nodes.truncate(1);
        fake.weft(&["leave", "--force"])
            .await
            .exits(1)
            .says("node1 is the last member of its fabric")
            .says("stop its jobs (weft jobs, weft stop JOB), stop weftd, and empty its state directory");
        assert_eq!(fake.state.borrow().nodes.len(), 1);
    });
}

#[test]
fn a_node_that_dies_while_it_hands_over_is_waited_for_no_longer() {
    let dies = |fake: &Fake| {
        fake.has_job("web", 2, "/bin/web");
        fake.has_all_on(1);
        fake.state.borrow_mut().dies_draining = true;
    };
    beside_an_agent(|fake| async move {
        dies(&fake);
        fake.weft(&["drain", "node2", "--wait"])
            .await
            .exits(1)
            .says("node2 is gone meanwhile: what it ran is placed elsewhere")
            .says("until weft undrain");
    });
    beside_an_agent(|fake| async move {
        dies(&fake);
        fake.weft(&["node", "node2", "remove"])
            .await
            .exits(0)
            .says("node2 is gone meanwhile")
            .says("node2 is no longer a member");
    });
}

#[test]
fn ps_shows_what_runs_where() {
    beside_an_agent(|fake| async move {
        fake.weft(&["ps"]).await.exits(0).shows("SLOT");
        fake.has_job("web", 1, "/bin/web");
        let ran = fake.weft(&["ps", "web"]).await.exits(0);
        let words: Vec<_> = ran.stdout.lines().nth(1).unwrap().split_whitespace().take(5).collect();
        assert_eq!(words[0], "web/0");
        assert_eq!(words[3..], ["running", "healthy"]);
        fake.weft(&["ps", "--all"]).await.exits(0);
        assert_eq!(fake.state.borrow().requests.last().unwrap(), "GET /v1/allocs?all=true");
        // What it said of itself before its node went is not what it is now.
        fake.state.borrow_mut().nodes[0].state = NodeState::Dead;
        let ran = fake.weft(&["ps", "web"]).await.exits(0).shows("node1 (dead)  lost   -");
        assert!(!ran.stdout.contains("healthy"), "{}", ran.stdout);
        fake.state.borrow_mut().nodes[0].state = NodeState::Alive;
        let json = fake.weft(&["ps", "-o", "json"]).await.exits(0).json();
        assert_eq!(json[0]["row"]["phase"], "running");
    });
}

#[test]
fn a_name_from_afar_cannot_drive_the_terminal() {
    beside_an_agent(|fake| async move {
        fake.state.borrow_mut().nodes[1].name = "evil\x1b[2J".into();
        let ran = fake.weft(&["nodes"]).await.exits(0);
        assert!(!ran.stdout.contains('\x1b'), "{ran:?}");
    });
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    beside_an_agent(|fake| async move {
        let ran = fake
            .weft(&["token", "create", "--lifetime", "10m", "--label", "rack=r1"])
            .await
            .exits(0)
            .says("not shown again");
        assert_eq!(ran.stdout, "weft1.a.b.c\n");
        fake.weft(&["token", "list"]).await.exits(0).shows("rack=r1");
        fake.weft(&["token", "revoke", "b"]).await.exits(0);
        assert!(fake.state.borrow().tokens.is_empty());

        fake.weft(&["join", "weft1.a.b.c"]).await.exits(0).shows("let in by  node2");
        let mut command = fake.command(&["join", "-", "-o", "json"]);
        command.stdin(std::fs::File::open(fake.file("token", &ran.stdout)).unwrap());
        assert_eq!(Ran::from(command.output().await.unwrap()).exits(0).json()["by"], "node2");
        fake.weft(&["join", "weft1.x.y.z"])
            .await
            .exits(1)
            .says("the token is refused: ask for a new one");
        fake.weft(&["join", "hunter2"]).await.exits(2).says("a token begins with weft1.");
        fake.weft(&["init"]).await.exits(1).says("already in a fabric");
    });
}

#[test]
fn quotas_are_set_listed_and_removed() {
    beside_an_agent(|fake| async move {
        let set = [
            "quota",
            "set",
            "team",
            "--cores",
            "8",
            "--memory",
            "1GiB",
            "--disk",
            "5GiB",
            "--devices",
            "gpu=2",
        ];
        fake.weft(&set).await.exits(0).says("namespace team has a quota");
        let list = fake.weft(&["quota", "list"]).await.exits(0);
        list.shows("team")
            .shows("6 of 8")
            .shows("0B of 1GiB")
            .shows("3GiB of 5GiB")
            .shows("gpu: 0 of 2");
        fake.weft(&["quota", "set", "team", "--cores", "2"]).await.exits(1).says("--force");
        fake.weft(&["quota", "set", "team", "--cores", "2", "--force"]).await.exits(0);
        fake.weft(&["quota", "set", "team"]).await.exits(2).says("it limits nothing");
        fake.weft(&["quota", "set", "Team", "--cores", "2"]).await.exits(2).says("not a namespace");
        fake.weft(&["quota", "set", "a", "--devices", "gpu"]).await.exits(2).says("CLASS=COUNT");
        fake.weft(&["quota", "remove", "team"]).await.exits(0);
        fake.weft(&["quota", "remove", "team"]).await.exits(4);
    });
}

#[test]
fn logs_come_as_they_are_from_one_slot_and_labelled_from_several() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        let ran = fake.weft(&["logs", "web/1", "-n", "2", "--stream", "stderr"]).await.exits(0);
        assert_eq!(ran.stdout, "slot 1 stderr line 1\nslot 1 stderr line 2\n");
        let ran = fake.weft(&["logs", "web", "-n", "1"]).await.exits(0);
        let mut lines: Vec<_> = ran.stdout.lines().collect();
        lines.sort();
        assert_eq!(lines, ["web/0 | slot 0 both line 2", "web/1 | slot 1 both line 2"]);
        let ran = fake.weft(&["logs", "web/0", "-n", "1", "-o", "json"]).await.exits(0);
        assert_eq!(ran.stdout, "{\"from\":\"web/0\",\"line\":\"slot 0 both line 2\"}\n");
    });
}

#[test]
fn logs_on_a_node_that_is_gone_are_told_at_once() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        fake.state.borrow_mut().nodes[0].state = NodeState::Dead;
        let ran = fake.weft(&["logs", "web"]).await;
        assert!(ran.stderr.contains("was on node1, which is dead: its log is there"), "{ran:#?}");
        assert!(!ran.stdout.contains("web/0 | "), "{ran:#?}");
        let asked = fake.state.borrow().requests.iter().filter(|it| it.contains("slot=0")).count();
        assert_eq!(asked, 0, "nobody waits for it");
        fake.weft(&["logs", "web/0"]).await.exits(6).shows_nothing().says("which is dead");
    });
}

#[test]
fn following_goes_on_where_the_slot_goes_on_and_ends_with_the_job() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 1, "/bin/web");
        let mut child = fake.command(&["logs", "web/0", "-f"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut beginnings = 0;
        // Each allocation's log begins with its line 0.
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == "slot 0 both line 0" {
                beginnings += 1;
                match beginnings {
                    1 => fake.weft(&["restart", "web"]).await.exits(0),
                    _ => fake.weft(&["stop", "web"]).await.exits(0),
                };
            }
        }
        assert_eq!(beginnings, 2);
        assert_eq!(child.wait().await.unwrap().code(), Some(0));
    });
}

#[test]
fn a_reader_who_has_read_enough_ends_the_stream_in_peace() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        let mut child = fake.command(&["logs", "web", "-f"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().expect("the stream goes on").contains("one more") {}
        drop(lines);
        let ran = Ran::from(child.wait_with_output().await.unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    });
}

#[test]
fn events_are_a_line_each() {
    beside_an_agent(|fake| async move {
        fake.weft(&["events"])
            .await
            .exits(0)
            .shows("1970-01-01 00:00:00  node    node2 is dead\n")
            .shows("1970-01-01 00:00:00  alloc   web/0@2 on node1 is running, healthy\n");
        let ran = fake.weft(&["events", "-o", "json"]).await.exits(0);
        let events: Vec<serde_json::Value> =
            ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events[0]["event"], "node");
        assert_eq!(events.len(), 2);
        let last = fake.weft(&["events", "-n", "1", "-o", "json"]).await.exits(0);
        assert!(ran.stdout.ends_with(&last.stdout), "{}", last.stdout);
        assert_eq!(last.stdout.lines().count(), 1);
        // They are of 1970.
        assert_eq!(fake.weft(&["events", "--since", "1h"]).await.exits(0).stdout, "");
        // A stream that should go on and does not is a broken one.
        fake.weft(&["events", "-f"]).await.exits(6).says("ended the stream");
    });
}

#[test]
fn every_shell_gets_a_completion_script_that_it_can_read() {
    beside_an_agent(|fake| async move {
        for shell in ["bash", "zsh", "fish"] {
            let ran = fake.weft(&["completion", shell]).await.exits(0).shows("COMPLETE");
            if shell == "bash" {
                let script = fake.file("weft.bash", &ran.stdout);
                let status =
                    tokio::process::Command::new("bash").arg("-n").arg(script).status().await;
                assert!(status.unwrap().success());
            }
        }
        fake.weft(&["completion", "tcsh"]).await.exits(2);
    });
}

/// Runs `weft ...` on a terminal where somebody types `typed`; answers the exit code and the screen.
async fn on_a_terminal(mut command: tokio::process::Command, typed: &str) -> (Option<i32>, String) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    // The command keeps copies of the ends that it was given.
    drop(command);
    drop(pty.slave);
    let mut master = std::fs::File::from(pty.master);
    master.write_all(typed.as_bytes()).unwrap();
    let screen = tokio::task::spawn_blocking(move || {
        let (mut screen, mut piece) = (Vec::new(), [0; 4096]);
        // A terminal that nobody writes to any more reads as an error.
        while let Ok(count @ 1..) = master.read(&mut piece) {
            screen.extend_from_slice(&piece[..count]);
        }
        String::from_utf8_lossy(&screen).into_owned()
    });
    (child.wait().await.unwrap().code(), screen.await.unwrap())
}

/// Ctrl-C instead of an answer.
async fn interrupted_when_asked(mut command: tokio::process::Command) -> (Option<i32>, String) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    drop(command);
    drop(pty.slave);
    let pid = nix::unistd::Pid::from_raw(child.id().unwrap() as i32);
    let mut master = std::fs::File::from(pty.master);
    let screen = tokio::task::spawn_blocking(move || {
        let (mut screen, mut piece) = (String::new(), [0; 4096]);
        while let Ok(count @ 1..) = master.read(&mut piece) {
            let is_asked = |screen: &str| screen.contains("[y/N]");
            let was_asked = is_asked(&screen);
            screen.push_str(&String::from_utf8_lossy(&piece[..count]));
            if is_asked(&screen) && !was_asked {
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
            }
        }
        screen
    });
    (child.wait().await.unwrap().code(), screen.await.unwrap())
}

#[test]
fn a_terminal_gets_colour_beside_the_words_unless_it_asks_for_none() {
    beside_an_agent(|fake| async move {
        let (code, screen) = on_a_terminal(fake.command(&["nodes"]), "").await;
        assert_eq!(code, Some(0));
        assert!(screen.contains("\x1b[32malive\x1b[0m"), "{screen}");
        for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let mut command = fake.command(&["nodes"]);
            command.env(variable, value);
            let (code, screen) = on_a_terminal(command, "").await;
            assert_eq!(code, Some(0));
            assert!(screen.contains("alive") && !screen.contains('\x1b'), "{screen}");
        }
    });
}

#[test]
fn what_stops_or_replaces_something_is_asked_about_on_a_terminal() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        for (typed, code) in [("n\n", 1), ("\n", 1), ("y\n", 0)] {
            let (exit, screen) = on_a_terminal(fake.command(&["stop", "web"]), typed).await;
            assert_eq!(exit, Some(code), "{screen}");
            let question = "fabric test, by way of node1: stop web with its 2 running slots, and forget it? [y/N]";
            assert!(screen.contains(question), "{screen}");
            assert_eq!(fake.state.borrow().jobs.is_empty(), code == 0);
        }
        fake.has_job("web", 2, "/bin/web");
        let (code, screen) = interrupted_when_asked(fake.command(&["stop", "web"])).await;
        assert_eq!(code, Some(130), "{screen}");
        assert!(screen.contains("nothing was changed") && !fake.state.borrow().jobs.is_empty());
        fake.has_job("web", 2, "/bin/web");
        let (code, screen) = on_a_terminal(fake.command(&["scale", "web", "1"]), "n\n").await;
        assert_eq!(code, Some(1), "{screen}");
        assert!(screen.contains("stop 1 slot of web, which has 2. Go on? [y/N]"), "{screen}");
        let (code, screen) = on_a_terminal(fake.command(&["scale", "web", "3"]), "").await;
        assert_eq!(code, Some(0), "more is not asked about: {screen}");
        let (code, screen) = on_a_terminal(fake.command(&["scale", "web", "2", "-y"]), "").await;
        assert_eq!(code, Some(0), "{screen}");
        fake.weft(&["stop", "web"]).await.exits(0);
        fake.has_job("web", 2, "/bin/web");
        fake.file("web.toml", "name = \"web\"\n[task]\ncommand = [\"/bin/new\"]");
        let (code, screen) = on_a_terminal(fake.command(&["apply", "web.toml"]), "n\n").await;
        assert_eq!(code, Some(1));
        assert!(screen.contains("slots of web: 1 replaced, 1 stopped. Go on? [y/N]"), "{screen}");
        assert!(!fake.state.borrow().requests.iter().any(|request| request.starts_with("PUT")));
        let (code, screen) = on_a_terminal(fake.command(&["apply", "web.toml", "--yes"]), "").await;
        assert_eq!(code, Some(0), "{screen}");
        assert!(!screen.contains("Go on?"), "{screen}");
        // Progress is one line that changes.
        assert!(screen.contains("\r\x1b[K\x1b[?7lweb version 2 is progressing"), "{screen}");
        assert!(screen.contains("web version 2 is healthy, 1 of 1 slots healthy"), "{screen}");
    });
}

#[test]
fn nodes_that_wait_are_listed_and_let_in() {
    beside_an_agent(|fake| async move {
        fake.weft(&["nodes", "--waiting"]).await.exits(0).shows("NAME  FINGERPRINT");
        let node = format!("3fa91c220b7e99ad5c01{}", "0".repeat(44));
        fake.state.borrow_mut().waiting = vec![serde_json::json!({
            "name": "board", "node": node, "fingerprint": "3fa9-1c22-0b7e-99ad-5c01",
            "addresses": ["192.0.2.7:7400", "[fe80::1%2]:7400"], "since": 0
        })];
        fake.weft(&["nodes", "--waiting"])
            .await
            .exits(0)
            .shows("board  3fa9-1c22-0b7e-99ad-5c01")
            .shows("192.0.2.7:7400 [fe80::1%2]:7400")
            .says("weft node approve NAME");
        let listed = fake.weft(&["nodes", "--waiting", "--json"]).await.exits(0);
        let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
        assert_eq!(listed[0]["node"], node);

        fake.state.borrow_mut().requests.clear();
        fake.weft(&["node", "approve", "board"])
            .await
            .exits(0)
            .shows("reached at   192.0.2.7:7400");
        // By the key that was shown, whoever may be called so meanwhile.
        let wanted = ["GET /v1/waiting/board".into(), format!("POST /v1/waiting/{node}/approve")];
        assert_eq!(fake.state.borrow().requests, wanted);
        fake.weft(&["node", "approve", "../x"]).await.exits(4).says("these wait: board");
        fake.weft(&["node", "approve"]).await.exits(2).says("NAME");
        fake.weft(&["node", "board", "approve", "board"]).await.exits(2).says("approve NAME");
        fake.weft(&["node"]).await.exits(2);
        fake.weft(&["node", "--hardware", "approve", "board"]).await.exits(2);
    });
}

#[test]
fn the_console_shows_what_a_node_waits_for_and_when_its_agent_is_gone() {
    beside_an_agent(|fake| async move {
        fake.weft(&["console", "--once"]).await.exits(0).shows("state         all is well");
        fake.weft(&["console", "--json"]).await.exits(2).says("weft status -o json");
        fake.state.borrow_mut().fabric = None;
        fake.state.borrow_mut().entry =
            serde_json::json!({"way": "approval", "trouble": "credential weft.token: it is empty"});
        fake.weft(&["console", "--once"])
            .await
            .exits(3)
            .shows("fingerprint   0000-1111-2222-3333-4444")
            .shows("fabric        waiting to be approved: on a member run")
            .shows("weft node approve node1")
            .shows("! credential weft.token: it is empty");
        fake.weft(&["status"]).await.exits(3).shows("waits to be approved");
        let none = Path::new("/nonexistent/weft.sock");
        let output = weft(none).args(["console", "--once"]).output().await.unwrap();
        Ran::from(output).exits(6).shows("does not answer").shows("! the agent at");
    });
}

#[test]
fn the_console_draws_again_only_when_something_has_changed() {
    beside_an_agent(|fake| async move {
        let mut command = fake.command(&["console"]);
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut drawn = Vec::new();
        let mut look = async |seconds: f32, drawn: &mut Vec<u8>| {
            let end = tokio::time::Instant::now() + std::time::Duration::from_secs_f32(seconds);
            let mut buffer = [0; 4096];
            while let Ok(read) = tokio::time::timeout_at(end, stdout.read(&mut buffer)).await {
                drawn.extend_from_slice(&buffer[..read.unwrap()]);
            }
            let text = String::from_utf8(drawn.clone()).unwrap();
            (text.matches("\x1b[H").count(), text)
        };
        let (frames, _) = look(5.0, &mut drawn).await;
        let looks = fake.state.borrow().requests.len();
        assert!(frames == 1 && looks >= 2, "{frames} frames for {looks} looks");
        fake.state.borrow_mut().nodes[1].state = NodeState::Dead;
        let (frames, text) = look(4.5, &mut drawn).await;
        assert_eq!(frames, 2, "{text}");
        assert!(text.contains("2 alive, 1 dead") && text.ends_with("\x1b[J"), "{text}");
    });
}

#[test]
fn agents_that_have_stopped_are_not_called_dead() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        {
            let mut state = fake.state.borrow_mut();
            state.nodes[1].state = fabric::api::NodeState::Dead;
            state.stopped_agents = vec!["node2".into()];
        }
        let ran = fake.weft(&["status"]).await.exits(3);
        let ran = ran.shows("degraded: stopped agents: node2; their units run on (1 slot)");
        let ran = ran.shows("node2 (its agent has stopped)");
        assert!(!ran.stdout.contains("is dead"), "{ran:?}");
        fake.has_all_on(1);
        fake.weft(&["ps"]).await.exits(0).shows("node2 (agent stopped)  running  healthy");
        fake.state.borrow_mut().stopped_agents.clear();
        fake.weft(&["status"])
            .await
            .exits(3)
            .shows("degraded: 1 node is dead")
            .shows("node2 (dead)");
    });
}
