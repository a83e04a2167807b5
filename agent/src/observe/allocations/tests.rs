use super::*;
use crate::observe::sink::Recorder;
use metrics::exposition::{Exposition, Format};
use std::fs;

#[test]
fn each_allocation_has_what_its_controllers_say_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("weft-web-0-3-00000000.service");
    let bare = folder.path().join("weft-web-1-1-00000000.service");
    for cgroup in [&whole, &bare, &folder.path().join("guard")] {
        fs::create_dir(cgroup).unwrap();
        fs::write(cgroup.join("cpu.stat"), "usage_usec 900\nuser_usec 5\nsystem_usec 7\n").unwrap();
    }
    fs::write(whole.join("memory.current"), "4096\n").unwrap();
    fs::write(whole.join("pids.current"), "3\n").unwrap();
    let throttled = "usage_usec 9\nnr_periods 9\nnr_throttled 4\nthrottled_usec 2500000\n";
    fs::write(whole.join("cpu.stat"), throttled).unwrap();

    let mut recorder = Recorder::new(1 << 20, "one");
    let mut allocations = Allocations::new(folder.path().to_owned());
    recorder.collect(0, 1000, None, |sink| allocations.collect(sink));
    let text = Exposition::of_store(recorder.store(), 1000, Format::Prometheus).unwrap();
    let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let labels = "{job=\"web\",node=\"one\",slot=\"0\",unit=\"weft-web-0-3-00000000.service\"}";
    assert_eq!(
        values,
        [
            format!("weft_unit_memory_bytes{labels} 4096"),
            format!("weft_unit_tasks{labels} 3"),
            format!("weft_unit_throttled_periods_total{labels} 4"),
            format!("weft_unit_throttled_seconds_total{labels} 2.5"),
        ]
    );
}
