use super::*;
use crate::clock::Clock;
use crate::executor::Preference;
use fabric::api::Hardware;
use tokio::sync::mpsc;

fn run<T>(test: impl AsyncFnOnce(Helpers) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let state = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (events, _heard) = mpsc::channel(16);
        let choice = Executor::choose(Preference::Direct, state.path(), Clock::start(), events);
        let answer = test(Helpers::new(choice.await.unwrap().executor)).await;
        // Those that have ended are looked after.
        tokio::time::sleep(Duration::from_millis(200)).await;
        answer
    })
}

#[test]
fn a_helper_lists_the_machine() {
    let json = run(async |helpers: Helpers| helpers.ask(Verb::Hardware).await?.only().await);
    let hardware: Hardware = serde_json::from_slice(&json.expect("a list")).unwrap();
    assert!(hardware.processor.is_some());
}

#[test]
fn more_than_a_few_at_a_time_are_refused_and_there_is_room_again() {
    run(async |helpers: Helpers| {
        let mut running = Vec::new();
        for _ in 0..HELPERS_MAX {
            running.push(helpers.ask(Verb::Hardware).await.expect("there is room"));
        }
        let problem = helpers.ask(Verb::Hardware).await.expect_err("there is none");
        assert!(problem.detail.contains("try again"), "{problem}");
        drop(running);
        helpers.ask(Verb::Hardware).await.expect("again").only().await.expect("a list");
    });
}

#[test]
fn one_that_is_killed_is_said_to_have_been() {
    run(async |helpers: Helpers| {
        let subject = helper::order::Subject {
            node: "here".into(),
            what: fabric::api::TraceWhat::Exec,
            time: Duration::from_secs(60),
            cgroups: [(u64::MAX, "web/0".to_owned())].into(),
        };
        let mut answer = helpers.ask(Verb::Trace(subject)).await.expect("it starts");
        if let Err(problem) = answer.next().await {
            eprintln!("skipped: {problem}");
            assert!(std::env::var("WEFT_MUST").as_deref() != Ok("ebpf"), "{problem}");
            return;
        }
        let pid = answer.started.name().rsplit(' ').next().unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        let problem = loop {
            match answer.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it did not finish"),
                Err(problem) => break problem,
            }
        };
        assert_eq!(problem.title, "weft-helper did not finish");
        assert_eq!(answer.next().await, Ok(None), "nothing comes after that");
    });
}
