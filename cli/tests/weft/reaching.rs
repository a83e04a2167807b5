//! Agents of other machines, names that the Tab key finds, and what is shown to whom.

use nix::pty::Winsize;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

use crate::beside_an_agent;
use crate::fake_agent::{Fake, Ran};

/// An `ssh` that notes what it was started with and goes nowhere: it runs the command here.
const SSH: &str = "#!/bin/sh\necho \"$@\" >> \"$SSH_LOG\"\nwhile [ \"$1\" != -- ]; do shift; done\n\
                   case $2 in *gone*) echo 'ssh: no such host' >&2; exit 255;; esac\nshift 2\nexec \"$@\"\n";

fn folder_of_weft() -> &'static str {
    env!("CARGO_BIN_EXE_weft").rsplit_once('/').unwrap().0
}

/// `weft ...` on a machine without an agent, whose `ssh` leads to the fake one.
fn elsewhere(fake: &Fake, arguments: &[&str]) -> Command {
    let bin = fake.directory.path().join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).unwrap();
        let ssh = bin.join("ssh");
        std::fs::write(&ssh, SSH).unwrap();
        std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
        // The agent's side: what is called weft there knows where its socket is.
        let weft = bin.join("weft");
        let text = format!(
            "#!/bin/sh\nunset WEFT_HOST\nexport WEFT_SOCKET={}\nexec {} \"$@\"\n",
            fake.socket().display(),
            env!("CARGO_BIN_EXE_weft")
        );
        std::fs::write(&weft, text).unwrap();
        std::fs::set_permissions(&weft, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = fake.command(arguments);
    command
        .env_remove("WEFT_SOCKET")
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("SSH_LOG", fake.directory.path().join("ssh.log"))
        .env("XDG_CONFIG_HOME", fake.directory.path().join("config"));
    command
}

async fn run(mut command: Command) -> Ran {
    Ran::from(command.output().await.unwrap())
}

#[test]
fn the_agent_of_another_machine_is_asked_through_ssh() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        let host = "ssh://root@pine:2222";
        run(elsewhere(&fake, &["--host", host, "jobs"])).await.exits(0).shows("web");
        let log = || std::fs::read_to_string(fake.directory.path().join("ssh.log")).unwrap();
        assert_eq!(log(), "-T -p 2222 -- root@pine weft api-proxy\n");
        // What streams streams, and what waits waits.
        let ran = run(elsewhere(&fake, &["--host", host, "logs", "web/0"])).await.exits(0);
        assert!(!ran.stdout.is_empty(), "{ran:?}");
        run(elsewhere(&fake, &["scale", "web", "3", "--host", host]))
            .await
            .exits(0)
            .says("web version 2 is healthy, 3 of 3 slots healthy");
        let mut command = elsewhere(&fake, &["nodes", "-o", "name"]);
        command.env("WEFT_HOST", host);
        assert_eq!(run(command).await.exits(0).stdout, "node1\nnode2\nnode3\n");
        // One connection for all, where its socket has a place.
        let mut command = elsewhere(&fake, &["jobs", "--host", "ssh://pine"]);
        command.env("XDG_RUNTIME_DIR", "/run/user/0");
        run(command).await.exits(0);
        assert!(log().contains("-o ControlPath=/run/user/0/weft-ssh-%C -T -- pine"), "{}", log());

        run(elsewhere(&fake, &["--host", "ssh://gone", "jobs"]))
            .await
            .exits(6)
            .shows_nothing()
            .says("ssh: no such host")
            .says("the agent at ssh://gone does not answer: what does `ssh -T -- gone weft version` say?");
        for wrong in ["pine", "ssh://-oProxyCommand=x"] {
            let ran = run(elsewhere(&fake, &["--host", wrong, "jobs"])).await.exits(2);
            ran.says("write ssh://[USER@]HOST[:PORT]");
        }
        let mut command = elsewhere(&fake, &["jobs"]);
        command.env("WEFT_HOST", "pine");
        run(command).await.exits(2).says("WEFT_HOST: \"pine\": write ssh://");
        let mut command = elsewhere(&fake, &["--host", host, "jobs"]);
        command.env("PATH", "/nonexistent");
        run(command).await.exits(6).says("ssh does not start");
    });
}

#[test]
fn contexts_are_kept_used_and_forgotten() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 1, "/bin/web");
        let weft = |arguments: &'static [&'static str]| run(elsewhere(&fake, arguments));
        weft(&["context", "list"]).await.exits(0).shows("here  of this machine  yes");
        weft(&["context", "use", "home"]).await.exits(4).says("there is no context \"home\"");
        weft(&["context", "add", "home", "ssh://pine"]).await.exits(0).says("home is kept");
        weft(&["context", "add", "home", "ssh://oak"]).await.exits(1).says("already");
        weft(&["context", "add", "a b", "ssh://oak"]).await.exits(2).says("letters, digits");
        weft(&["context", "add", "lab", "oak"]).await.exits(2).says("write ssh://");
        weft(&["jobs"]).await.exits(6).says("/run/weft/weft.sock cannot be reached");
        weft(&["context", "use", "hom"]).await.exits(4).says("did you mean home?");
        weft(&["context", "use", "home"]).await.exits(0).says("asks the agent of ssh://pine");
        weft(&["jobs"]).await.exits(0).shows("web");
        let json = weft(&["context", "list", "--json"]).await.exits(0).json();
        let home = serde_json::json!({"name": "home", "host": "ssh://pine", "current": true});
        assert_eq!(json[1], home);
        assert_eq!(json[0]["current"], false);
        assert_eq!(weft(&["context", "list", "-o", "name"]).await.exits(0).stdout, "here\nhome\n");
        // What is said goes before what is kept.
        weft(&["jobs", "--socket", "/nonexistent"]).await.exits(6);
        weft(&["context", "remove", "home"]).await.exits(0).says("home is forgotten");
        weft(&["jobs"]).await.exits(6).says("/run/weft/weft.sock cannot be reached");
        let file = fake.directory.path().join("config/weft/contexts.toml");
        std::fs::write(&file, "current = 3").unwrap();
        weft(&["jobs"]).await.exits(2).says("contexts.toml makes no sense").says("Mend it");
        weft(&["completion", "bash"]).await.exits(0);
    });
}

/// What bash would insert for the last of these words.
async fn completes(fake: &Fake, words: &str, socket: &str) -> Vec<String> {
    let script = fake.weft(&["completion", "bash"]).await.exits(0).stdout;
    let file = fake.file("weft.bash", &script);
    let (before, last) = words.rsplit_once(' ').unwrap();
    let count = before.split(' ').count();
    // As bash calls it: the command, the word that is typed, the word before.
    let line = format!(
        "source {}; COMP_WORDS=({words}); COMP_CWORD={count}; COMP_TYPE=9; \
         $(complete -p weft | sed 's/.*-F \\([^ ]*\\).*/\\1/') weft '{last}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &line])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", folder_of_weft()))
        .env("WEFT_SOCKET", socket)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = bash.output().await.unwrap();
    assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
    let text = String::from_utf8(ended.stdout).unwrap();
    text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_tab_key_finds_commands_and_what_the_agent_knows() {
    beside_an_agent(|fake| async move {
        for name in ["web", "worker"] {
            fake.has_job(name, 2, "/bin/web");
        }
        let socket = fake.socket().display().to_string();
        for (words, found) in [
            ("weft stop w", &["web", "worker"][..]),
            ("weft rollback we", &["web"]),
            ("weft logs web/", &["web/0", "web/1"]),
            ("weft drain node", &["node1", "node2", "node3"]),
            ("weft explai", &["explain"]),
            ("weft stop x", &[]),
        ] {
            assert_eq!(completes(&fake, words, &socket).await, found, "{words}");
        }
        assert!(fake.state.borrow().requests.iter().all(|request| request.starts_with("GET ")));
    });
}

#[test]
fn the_tab_key_waits_for_no_agent_and_says_nothing() {
    beside_an_agent(|fake| async move {
        let silent = fake.directory.path().join("silent.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&silent).unwrap();
        for socket in ["/nonexistent/weft.sock".to_owned(), silent.display().to_string()] {
            // Bash and the program itself take their time beside other work; a hang is something else.
            let completes = completes(&fake, "weft stop w", &socket);
            let completed = tokio::time::timeout(Duration::from_secs(10), completes).await;
            assert_eq!(completed.expect("nobody waits"), [""; 0], "{socket}");
        }
    });
}

#[test]
fn lists_are_names_for_scripts_and_wide_for_those_who_want_all_of_it() {
    beside_an_agent(|fake| async move {
        fake.has_job("web", 2, "/bin/web");
        fake.weft(&["token", "create", "--lifetime", "10m"]).await.exits(0);
        fake.weft(&["quota", "set", "team", "--cores", "9"]).await.exits(0);
        for (command, names) in [
            (&["nodes"][..], "node1\nnode2\nnode3\n"),
            (&["jobs"], "web\n"),
            (&["ps"], "web/0\nweb/1\n"),
            (&["token", "list"], "b\n"),
            (&["quota", "list"], "team\n"),
        ] {
            let arguments = [command, &["-o", "name"]].concat();
            assert_eq!(fake.weft(&arguments).await.exits(0).stdout, names, "{command:?}");
        }
        fake.weft(&["nodes", "-o", "wide"]).await.exits(0).shows("ARCH").shows("x86_64");
        fake.weft(&["ps", "-o", "wide"]).await.exits(0).shows("UNIT").shows("weft-web-0-1");
        fake.weft(&["jobs", "-o", "wide"]).await.exits(0).shows("COMMAND").shows("/bin/web");
        fake.weft(&["explain", "web", "-o", "name"])
            .await
            .exits(2)
            .shows_nothing()
            .says("-o name is for lists: weft nodes, ps, jobs");
        let yaml = fake.weft(&["jobs", "-o", "yaml"]).await.exits(0);
        assert!(yaml.stdout.starts_with("- "), "a list: {}", yaml.stdout);
        yaml.shows("\n  name: web\n").shows("\n  wanted: 2\n");
        fake.weft(&["events", "-o", "yaml"]).await.exits(0).shows("---\n").shows("event: node\n");
    });
}

#[test]
fn progress_is_left_out_when_nobody_wants_it_and_requests_are_shown_to_those_who_do() {
    beside_an_agent(|fake| async move {
        fake.file("web.toml", "name = \"web\"\n[task]\ncommand = [\"/bin/web\"]");
        let ran = fake.weft(&["apply", "web.toml", "--quiet"]).await.exits(0);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
        let ran = fake.weft(&["-q", "stop", "nope"]).await.exits(4);
        assert_eq!(ran.stderr, "error: there is no job: look again\n");
        let ran = fake.weft(&["jobs", "-v"]).await.exits(0);
        assert!(ran.stderr.starts_with("GET /v1/jobs: 200 after "), "{ran:?}");
        fake.weft(&["jobs", "-q", "-v"]).await.exits(2);
    });
}

/// What `weft ...` shows on a terminal of 80 columns.
async fn on_80_columns(fake: &Fake, arguments: &[&str]) -> String {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = fake.command(arguments);
    command.env("NO_COLOR", "1").stdin(end()).stdout(end()).stderr(end());
    let mut child = command.spawn().unwrap();
    drop(command);
    drop(pty.slave);
    let mut master = std::fs::File::from(pty.master);
    let screen = tokio::task::spawn_blocking(move || {
        let (mut screen, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = master.read(&mut piece) {
            screen.extend_from_slice(&piece[..count]);
        }
        String::from_utf8_lossy(&screen).into_owned()
    });
    assert!(child.wait().await.unwrap().success());
    screen.await.unwrap()
}

#[test]
fn lists_and_top_fit_on_a_terminal_of_80_columns() {
    beside_an_agent(|fake| async move {
        fake.has_job("a-job-with-quite-a-long-name", 3, "/bin/web");
        for node in &mut fake.state.borrow_mut().nodes {
            let labels = &mut node.info.as_mut().unwrap().labels;
            labels.insert("datacenter".into(), "somewhere-in-the-north".into());
        }
        for command in [&["nodes"][..], &["ps"], &["jobs"]] {
            let screen = on_80_columns(&fake, command).await;
            for line in screen.lines() {
                assert!(line.trim_end().chars().count() <= 80, "{command:?}: {line}\n{screen}");
            }
            let wide = on_80_columns(&fake, &[command, &["-o", "wide"]].concat()).await;
            assert!(wide.len() > screen.len(), "{wide}");
        }
        let screen = on_80_columns(&fake, &["top", "-n", "1"]).await;
        let text = screen.replace("\x1b[K", "").replace("\x1b[J", "");
        for line in text.lines().filter(|line| !line.contains('\x1b')) {
            assert!(line.trim_end().chars().count() <= 80, "{line}\n{text}");
        }
        assert!(text.contains("PINNED CPUS"), "{text}");
        assert!(text.contains("q ends   sorted by name: n name  c CPU"), "{text}");
        // The same order each time, whatever they use.
        let slots: Vec<&str> = text.lines().filter(|line| line.contains("long-name/")).collect();
        assert!(slots.is_sorted() && slots.len() == 3, "{text}");
    });
}
