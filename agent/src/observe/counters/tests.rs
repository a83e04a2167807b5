use super::*;
use crate::observe::sink::Recorder;
use ebpf::{Cgroups, Status};
use metrics::exposition::{Exposition, Format};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const CLOCK: Metric<'_> = Metric::counter("weft_unit_clock_total", "Nanoseconds on a CPU.");
const SWITCHES: Metric<'_> = Metric::counter("weft_unit_switches_total", "Switches.");

/// A cgroup that goes when this is dropped, with what is in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let below: Vec<PathBuf> = fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        for cgroup in below.iter().chain([&self.0]).filter(|path| path.is_dir()) {
            let _not_empty = fs::remove_dir(cgroup);
        }
    }
}

/// Works for a moment in a cgroup, once told to.
fn worker(cgroup: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "read go; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]);
    let worker = command.stdin(Stdio::piped()).spawn().expect("a shell");
    fs::write(cgroup.join("cgroup.procs"), worker.id().to_string()).expect("it can be moved");
    worker
}

fn text(recorder: &Recorder, now_ms: i64) -> String {
    Exposition::of_store(recorder.store(), now_ms, Format::Prometheus).unwrap()
}

/// The kernel's own events: what the processor counts takes the same way.
#[test]
fn allocations_have_series_and_other_cgroups_have_none() {
    let events = [Event::TASK_CLOCK, Event::CONTEXT_SWITCHES];
    let counters = Counters::load(&events);
    let cgroups = Cgroups::new();
    let made = cgroups.root().map(|root| {
        let folder = root.join(format!("weft-counters-{}", std::process::id()));
        fs::create_dir(&folder).map(|()| Folder(folder))
    });
    let (Some(Ok(folder)), Status::Running) = (made, counters.status()) else {
        let _closed = writeln!(
            std::io::stderr(),
            "skipped: needs root, and cgroup v2: {}",
            counters.status()
        );
        return;
    };
    let (unit, other) = (folder.0.join("weft-web-0-1-00000000.service"), folder.0.join("guard"));
    fs::create_dir(&unit).unwrap();
    fs::create_dir(&other).unwrap();
    let mut counting =
        Counting { folder: folder.0.clone(), series: vec![CLOCK, SWITCHES], counters };
    let mut recorder = Recorder::new(1 << 20, "one");
    let mut workers = [worker(&unit), worker(&other)];
    recorder.collect(0, 1000, None, |sink| counting.collect(sink));
    for worker in &mut workers {
        worker.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert!(worker.wait().unwrap().success());
    }
    recorder.collect(0, 6000, Some(1000), |sink| counting.collect(sink));

    let text = text(&recorder, 6000);
    let labels = "{job=\"web\",node=\"one\",slot=\"0\",unit=\"weft-web-0-1-00000000.service\"}";
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{labels} ")));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
    };
    let stat = fs::read_to_string(unit.join("cpu.stat")).unwrap();
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<f64>().ok());
    let (ours_us, theirs_us) = (value("weft_unit_clock_total") / 1e3, usage.unwrap());
    // Its books began before it was watched, by the time that a shell needs to start; and they leave out what interrupts and
    // the machine's own host took meanwhile, which on a busy one is a good part.
    assert!((0.5..1.5).contains(&(ours_us / theirs_us)), "{ours_us} us, by its books {theirs_us}");
    assert!(value("weft_unit_switches_total") >= 1.0, "{text}");
    assert!(!text.contains("guard"), "{text}");
    assert!(
        text.contains(
            "weft_probe_info{node=\"one\",probe=\"counters\",source=\"perf\",status=\"running\"} 1"
        ),
        "{text}"
    );
}

#[test]
fn what_is_not_counted_has_no_series_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("weft-web-0-1-00000000.service")).unwrap();
    let mut recorder = Recorder::new(1 << 20, "one");
    let mut off = Counting::load(folder.path().to_owned(), false);
    recorder.collect(0, 1000, None, |sink| off.collect(sink));
    assert_eq!(off.sources()[0].status, Status::Off);
    let said = text(&recorder, 1000);
    let labels = "{node=\"one\",probe=\"counters\",source=\"none\",status=\"off\"}";
    assert!(said.contains(&format!("weft_probe_info{labels} 1")), "{said}");
    assert!(!said.contains("weft_unit"), "{said}");
}
