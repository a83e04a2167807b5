use super::*;
use fabric::id::JobName;
use std::future::Future;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(future)
}

fn config(text: &str) -> MetricsSection {
    crate::config::Config::parse(text).expect("a configuration").metrics
}

#[test]
fn it_measures_without_any_probe_and_says_so() {
    let observer =
        Observer::start(&config("[metrics]\nprobes = []"), "one", None, crate::host::collectors)
            .unwrap();
    block_on(async {
        let report = observer.report().await.unwrap();
        assert!(report.probes.iter().all(|probe| probe.status == ebpf::Status::Off));
        let alloc = AllocId::new(JobName::new("web").unwrap(), 0, 1);
        assert!(observer.cgroups(&alloc).await.unwrap().is_empty());
        // The first round may not have been yet.
        let text = loop {
            let text = observer.exposition(Vec::new(), Format::OpenMetrics).await;
            if text.contains("weft_series ") || text.contains("weft_series{") {
                break text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let line = "weft_probe_info{node=\"one\",probe=\"block\",source=\"none\",status=\"off\"} 1";
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains("weft_collector_cpu_seconds_total{collector=\"probes\",node=\"one\"}")
        );
    });
}

#[test]
fn what_is_switched_off_says_so() {
    let observer = Observer::start(
        &config("[metrics]\nenabled = false"),
        "one",
        None,
        crate::host::collectors,
    )
    .unwrap();
    assert_eq!(block_on(observer.report()), Err(Unanswered::Off));
}

#[test]
fn what_one_source_has_does_not_end_with_what_another_gives() {
    const STATE: Metric<'static> = Metric::gauge("state", "Of a service.");
    const JOBS: Metric<'static> = Metric::gauge("jobs", "How many there are.");
    let sample = |metric| Sample { metric, labels: Vec::new(), value: 1.0 };
    let observer =
        Observer::start(&config("[metrics]\nprobes = []"), "one", None, crate::host::collectors)
            .unwrap();
    block_on(async {
        observer.count(Source::Services, vec![sample(STATE)]);
        // Samples of one millisecond are one.
        tokio::time::sleep(Duration::from_millis(5)).await;
        observer.count(Source::Loop, vec![sample(JOBS)]);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let text = observer.exposition(vec![sample(JOBS)], Format::OpenMetrics).await;
        for series in ["state{node=\"one\"} 1", "jobs{node=\"one\"} 1"] {
            assert!(text.contains(series), "{series} is not in {text}");
        }
        observer.count(Source::Services, Vec::new());
        let text = observer.exposition(vec![sample(JOBS)], Format::OpenMetrics).await;
        assert!(!text.contains("state{") && text.contains("jobs{node=\"one\"} 1"), "{text}");
    });
}

#[test]
fn a_clock_that_was_set_is_told_from_one_that_is_slewed() {
    let boot = BootTime::now();
    let after = |ms: i64| (boot + Duration::from_secs(10), 1_000_000 + 10_000 + ms);
    let before = (boot, 1_000_000);
    for (moved, step) in [
        (0, None),
        (5, None),
        (-400, None),
        (-500, Some(-500)),
        (-7_200_000, Some(-7_200_000)),
        (86_400_000, Some(86_400_000)),
    ] {
        assert_eq!(step_between(before, after(moved)), step, "{moved} ms");
    }
}
