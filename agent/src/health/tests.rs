//! Checks against real listeners and real commands.

use super::*;
use crate::process;
use fabric::cpuset::CpuSet;
use fabric::id::JobName;
use std::io::{Read, Write};
use std::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(60);

fn launch(check: Check) -> Launch {
    let interval = Duration::from_millis(50);
    Launch {
        alloc: AllocId::new(JobName::new("web").unwrap(), 0, 1),
        run: 1,
        node: "here".into(),
        task: fabric::job::Task {
            command: vec!["true".into()],
            env: BTreeMap::from([("GREETING".into(), "hello".into())]),
            user: None,
            working_dir: None,
            files: Vec::new(),
            stop_signal: "SIGTERM".into(),
            stop_timeout: interval,
            sandbox: Default::default(),
            arch: Default::default(),
        },
        memory: 0,
        swap: 0,
        cpu_hard: false,
        claim: Default::default(),
        cpus: CpuSet::new(),
        lease: None,
        health: Some(Health {
            check,
            interval,
            timeout: Duration::from_secs(20),
            failures: 3,
            grace: Duration::ZERO,
        }),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The first outcome of checking `launch` beside the process of this test.
fn outcome(launch: &Launch) -> Result<(), String> {
    runtime().block_on(async {
        let (sender, mut outcomes) = mpsc::channel(8);
        let mut checker = Checker::new(sender, Listeners::new(None));
        checker.start(launch, std::process::id());
        let (alloc, run, outcome) =
            tokio::time::timeout(PATIENCE, outcomes.recv()).await.unwrap().unwrap();
        assert_eq!((&alloc, run), (&launch.alloc, launch.run));
        outcome
    })
}

/// Answers every connection with `answer` for as long as the test process lives, and counts.
#[allow(
    clippy::disallowed_methods,
    reason = "a server beside the single-threaded runtime under test"
)]
fn server(address: &str, answer: &'static str) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

fn http(port: u16) -> Launch {
    let mut launch = launch(Check::Http { path: "/ready".into(), port: "http".into() });
    launch.claim.ports.insert("http".into(), port);
    launch
}

#[test]
fn http_wants_two_or_three_hundred() {
    let ok = server("127.0.0.1", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(outcome(&http(ok)), Ok(()));
    let moved =
        server("127.0.0.1", "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(outcome(&http(moved)), Ok(()));
    let broken = server("127.0.0.1", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    assert!(outcome(&http(broken)).unwrap_err().contains("GET /ready answers 503"));
    let rubbish = server("127.0.0.1", "hello there\r\n\r\n");
    assert!(outcome(&http(rubbish)).unwrap_err().contains("GET /ready"));
}

#[test]
fn a_port_that_nobody_listens_on_fails_and_either_family_will_do() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reason = outcome(&http(closed)).unwrap_err();
    assert!(reason.contains(&closed.to_string()) && reason.contains("refused"), "{reason}");
    if TcpListener::bind("[::1]:0").is_ok() {
        let six = server("::1", "HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(outcome(&http(six)), Ok(()));
    }
    let missing = launch(Check::Tcp { port: "admin".into() });
    assert!(outcome(&missing).unwrap_err().contains("no port \"admin\""));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tcp = launch(Check::Tcp { port: "raw".into() });
    tcp.claim.ports.insert("raw".into(), listener.local_addr().unwrap().port());
    assert_eq!(outcome(&tcp), Ok(()));
}

#[test]
fn an_answer_that_does_not_come_is_a_failure() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut launch = http(silent.local_addr().unwrap().port());
    launch.health.as_mut().unwrap().timeout = Duration::from_millis(100);
    assert_eq!(outcome(&launch), Err("no answer within 100ms".into()));
}

fn command(script: &str) -> Launch {
    launch(Check::Command { command: ["/bin/sh", "-c", script].map(String::from).into() })
}

#[test]
fn a_command_has_the_environment_of_the_task_and_its_output_is_the_reason() {
    assert_eq!(outcome(&command("test \"$GREETING$WEFT_JOB\" = helloweb")), Ok(()));
    let reason = outcome(&command("echo not yet >&2; exit 3")).unwrap_err();
    assert_eq!(reason, "the check ended with exit status 3: not yet");
    let long = outcome(&command("yes no | head -c 1000000 >&2; exit 1")).unwrap_err();
    assert!(long.len() < 500, "{} bytes", long.len());
    let missing = launch(Check::Command { command: vec!["/no/such/check".into()] });
    assert!(outcome(&missing).unwrap_err().contains("/no/such/check"));
}

#[test]
fn a_command_that_hangs_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    // In a session of its own: no signal to the check's group finds it.
    let script = "setsid sh -c 'echo $$ >FILE; exec sleep 600' & wait";
    let mut hangs = command(&script.replace("FILE", &file.display().to_string()));
    hangs.health.as_mut().unwrap().timeout = Duration::from_secs(2);
    assert_eq!(outcome(&hangs), Err("no answer within 2s".into()));
    let child: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    runtime().block_on(async {
        let gone = async {
            while process::start_time(child).is_some() && !process::is_zombie(child) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("the child is killed too");
    });
}

#[test]
fn a_check_without_its_task_fails() {
    runtime().block_on(async {
        let (sender, mut outcomes) = mpsc::channel(8);
        let mut checker = Checker::new(sender, Listeners::new(None));
        checker.start(&command("true"), u32::MAX >> 1);
        let (_, _, outcome) =
            tokio::time::timeout(PATIENCE, outcomes.recv()).await.unwrap().unwrap();
        assert_eq!(outcome, Err("the task is not running".into()));
    });
}

#[test]
fn checks_go_on_until_they_are_stopped_and_only_once_a_run() {
    runtime().block_on(async {
        let (sender, mut outcomes) = mpsc::channel(1);
        let mut checker = Checker::new(sender, Listeners::new(None));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut one = launch(Check::Tcp { port: "raw".into() });
        one.claim.ports.insert("raw".into(), listener.local_addr().unwrap().port());
        let me = std::process::id();
        checker.start(&one, me);
        checker.start(&one, me);
        for _ in 0..3 {
            let (_, run, outcome) =
                tokio::time::timeout(PATIENCE, outcomes.recv()).await.unwrap().unwrap();
            assert_eq!((run, outcome), (1, Ok(())));
        }
        let two = Launch { run: 2, ..one.clone() };
        checker.start(&two, me);
        checker.stop(&one.alloc, 1);
        let second = async { while outcomes.recv().await.unwrap().1 != 2 {} };
        tokio::time::timeout(PATIENCE, second).await.expect("the later run goes on");
        checker.stop(&one.alloc, 2);
        drop(checker);
        let last = async { while outcomes.recv().await.is_some() {} };
        tokio::time::timeout(PATIENCE, last).await.expect("nobody is left who checks");
    });
}

#[test]
fn a_job_whose_checks_hang_keeps_no_other_waiting() {
    runtime().block_on(async {
        let (sender, mut outcomes) = mpsc::channel(64);
        let mut checker = Checker::new(sender, Listeners::new(None));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hog = http(silent.local_addr().unwrap().port());
        let health = hog.health.as_mut().unwrap();
        (health.interval, health.timeout) = (PATIENCE * 60, PATIENCE * 60);
        for slot in 0..40 {
            hog.alloc = AllocId::new(JobName::new("hog").unwrap(), slot, 1);
            checker.start(&hog, std::process::id());
        }
        // All of them have asked, or wait.
        tokio::time::sleep(FIRST_MAX * 5).await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut good = launch(Check::Tcp { port: "raw".into() });
        good.claim.ports.insert("raw".into(), listener.local_addr().unwrap().port());
        checker.start(&good, std::process::id());
        for _ in 0..3 {
            let (alloc, _, outcome) =
                tokio::time::timeout(PATIENCE, outcomes.recv()).await.expect("its turn").unwrap();
            assert_eq!((alloc, outcome), (good.alloc.clone(), Ok(())));
        }
    });
}

#[test]
fn a_check_does_not_inherit_the_agents_oom_score() {
    let _raised = crate::executor::tests::host::RaisedOomScore::new();
    let script = "read -r score </proc/self/oom_score_adj; [ \"$score\" = 0 ] || { echo $score >&2; exit 1; }";
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    assert_eq!(outcome(&launch(Check::Command { command })), Ok(()));
}
