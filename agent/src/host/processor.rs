//! Processors: time by mode, load, pressure, scheduling, frequencies, throttling.

use std::collections::BTreeMap;

use super::{CPUS_EACH_SECOND_MAX, Depth, Sink, number};
use crate::observe::sink::Metric;
use crate::topology::Sysfs;

/// Ticks of `/proc/stat` in a second: part of the kernel's interface, whatever its own clock (proc(5)).
const TICKS_A_SECOND: f64 = 100.0;

/// Columns of `/proc/stat`.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
/// The columns behind them: time that is in `user` and `nice` already.
const GUEST_MODES: [&str; 2] = ["user", "nice"];

const SECONDS: Metric =
    Metric::counter("node_cpu_seconds_total", "Seconds the CPUs spent in each mode.");
const GUEST_SECONDS: Metric = Metric::counter(
    "node_cpu_guest_seconds_total",
    "Seconds the CPUs spent in guests (VMs) for each mode.",
);

/// Lines of `/proc/stat` with one number that matters.
const STAT: [(&str, Metric); 6] = [
    ("ctxt", Metric::counter("node_context_switches_total", "Total number of context switches.")),
    ("processes", Metric::counter("node_forks_total", "Total number of forks.")),
    ("intr", Metric::counter("node_intr_total", "Total number of interrupts serviced.")),
    ("btime", Metric::gauge("node_boot_time_seconds", "Node boot time, in unixtime.")),
    (
        "procs_running",
        Metric::gauge("node_procs_running", "Number of processes in runnable state."),
    ),
    (
        "procs_blocked",
        Metric::gauge(
            "node_procs_blocked",
            "Number of processes blocked waiting for I/O to complete.",
        ),
    ),
];

const LOAD: [Metric; 3] = [
    Metric::gauge("node_load1", "1m load average."),
    Metric::gauge("node_load5", "5m load average."),
    Metric::gauge("node_load15", "15m load average."),
];

/// File of `/proc/pressure`, line of it, metric.
const PRESSURE: [(&str, &str, Metric); 5] = [
    (
        "cpu",
        "some",
        Metric::counter(
            "node_pressure_cpu_waiting_seconds_total",
            "Total time in seconds that processes have waited for CPU time.",
        ),
    ),
    (
        "io",
        "some",
        Metric::counter(
            "node_pressure_io_waiting_seconds_total",
            "Total time in seconds that processes have waited due to IO congestion.",
        ),
    ),
    (
        "io",
        "full",
        Metric::counter(
            "node_pressure_io_stalled_seconds_total",
            "Total time in seconds no process could make progress due to IO congestion.",
        ),
    ),
    (
        "memory",
        "some",
        Metric::counter(
            "node_pressure_memory_waiting_seconds_total",
            "Total time in seconds that processes have waited for memory.",
        ),
    ),
    (
        "memory",
        "full",
        Metric::counter(
            "node_pressure_memory_stalled_seconds_total",
            "Total time in seconds no process could make progress due to memory congestion.",
        ),
    ),
];

/// File of a CPU's `cpufreq` folder, in kHz, and metric.
const FREQUENCIES: [(&str, Metric); 6] = [
    (
        "cpuinfo_cur_freq",
        Metric::gauge("node_cpu_frequency_hertz", "Current CPU thread frequency in hertz."),
    ),
    (
        "cpuinfo_min_freq",
        Metric::gauge("node_cpu_frequency_min_hertz", "Minimum CPU thread frequency in hertz."),
    ),
    (
        "cpuinfo_max_freq",
        Metric::gauge("node_cpu_frequency_max_hertz", "Maximum CPU thread frequency in hertz."),
    ),
    (
        "scaling_cur_freq",
        Metric::gauge(
            "node_cpu_scaling_frequency_hertz",
            "Current scaled CPU thread frequency in hertz.",
        ),
    ),
    (
        "scaling_min_freq",
        Metric::gauge(
            "node_cpu_scaling_frequency_min_hertz",
            "Minimum scaled CPU thread frequency in hertz.",
        ),
    ),
    (
        "scaling_max_freq",
        Metric::gauge(
            "node_cpu_scaling_frequency_max_hertz",
            "Maximum scaled CPU thread frequency in hertz.",
        ),
    ),
];

const CORE_THROTTLES: Metric = Metric::counter(
    "node_cpu_core_throttles_total",
    "Number of times this CPU core has been throttled.",
);
const PACKAGE_THROTTLES: Metric = Metric::counter(
    "node_cpu_package_throttles_total",
    "Number of times this CPU package has been throttled.",
);

pub(super) fn collect(sysfs: &Sysfs, depth: Depth, sink: &mut dyn Sink) {
    stat(sysfs, depth, sink);
    match depth {
        Depth::Second => {
            load(sysfs, sink);
            pressure(sysfs, sink);
        }
        Depth::Quarter => {
            frequencies(sysfs, depth, sink);
            throttles(sysfs, sink);
        }
        Depth::Minute => frequencies(sysfs, depth, sink),
    }
}

fn stat(sysfs: &Sysfs, depth: Depth, sink: &mut dyn Sink) {
    let Some(text) = sysfs.text("proc/stat") else { return };
    let cpu = |line: &str| {
        let (name, columns) = line.split_once(' ')?;
        let cpu = name.strip_prefix("cpu")?;
        cpu.parse::<u32>().is_ok().then(|| (cpu.to_owned(), columns.to_owned()))
    };
    let cpus = text.lines().filter(|line| cpu(line).is_some()).count();
    let seconds = match depth {
        Depth::Second => cpus <= CPUS_EACH_SECOND_MAX,
        Depth::Quarter => cpus > CPUS_EACH_SECOND_MAX,
        Depth::Minute => false,
    };
    for (cpu, columns) in text.lines().filter_map(cpu) {
        let mut ticks = columns.split_ascii_whitespace().map_while(|n| n.parse::<u64>().ok());
        let modes = ticks.by_ref().take(MODES.len()).zip(MODES);
        for (ticks, mode) in modes {
            if seconds {
                let labels = [("cpu", &*cpu), ("mode", mode)];
                sink.sample(SECONDS, &labels, ticks as f64 / TICKS_A_SECOND);
            }
        }
        // Guests are asked about by few.
        for (ticks, mode) in ticks.zip(GUEST_MODES).filter(|_| depth == Depth::Minute) {
            let labels = [("cpu", &*cpu), ("mode", mode)];
            sink.sample(GUEST_SECONDS, &labels, ticks as f64 / TICKS_A_SECOND);
        }
    }
    if depth != Depth::Second {
        return;
    }
    for line in text.lines() {
        let mut words = line.split(' ');
        let metric = words.next().and_then(|word| STAT.iter().find(|(name, _)| *name == word));
        let value = words.next().and_then(|word| word.parse::<u64>().ok());
        if let (Some((_, metric)), Some(value)) = (metric, value) {
            sink.sample(*metric, &[], value as f64);
        }
    }
}

fn load(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let text = sysfs.text("proc/loadavg").unwrap_or_default();
    for (metric, word) in LOAD.into_iter().zip(text.split(' ')) {
        if let Ok(value) = word.parse() {
            sink.sample(metric, &[], value);
        }
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`, in microseconds (Documentation/accounting/psi.rst).
fn pressure(sysfs: &Sysfs, sink: &mut dyn Sink) {
    for file in ["cpu", "io", "memory"] {
        // A kernel booted with psi=0 has the files and refuses to read them.
        let Some(text) = sysfs.text(&format!("proc/pressure/{file}")) else { continue };
        for (_, line, metric) in PRESSURE.iter().filter(|(of, ..)| *of == file) {
            let found = text.lines().find(|found| found.split(' ').next() == Some(line));
            let total = found.and_then(|found| found.rsplit_once("total=")?.1.parse::<u64>().ok());
            if let Some(total) = total {
                sink.sample(*metric, &[], total as f64 / 1e6);
            }
        }
    }
}

fn frequencies(sysfs: &Sysfs, depth: Depth, sink: &mut dyn Sink) {
    for cpu in sysfs.numbered(CPUS, "cpu") {
        for (file, metric) in FREQUENCIES {
            // The limits hardly change.
            if (depth == Depth::Minute) == file.ends_with("_cur_freq") {
                continue;
            }
            if let Some(khz) = number(sysfs, &format!("{CPUS}/cpu{cpu}/cpufreq/{file}")) {
                sink.sample(metric, &[("cpu", &cpu.to_string())], khz * 1000.0);
            }
        }
    }
}

const CPUS: &str = "sys/devices/system/cpu";

/// Threads of a core, and cores of a package, all tell the same count: it is told once.
fn throttles(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let mut cores = BTreeMap::new();
    let mut packages = BTreeMap::new();
    for cpu in sysfs.numbered(CPUS, "cpu") {
        let file = |name: &str| sysfs.line(&format!("{CPUS}/cpu{cpu}/{name}"));
        let count = |name: &str| file(&format!("thermal_throttle/{name}"))?.parse::<u64>().ok();
        let Some(package) = file("topology/physical_package_id") else { continue };
        if let (Some(core), Some(times)) = (file("topology/core_id"), count("core_throttle_count"))
        {
            cores.entry((package.clone(), core)).or_insert(times);
        }
        if let Some(times) = count("package_throttle_count") {
            packages.entry(package).or_insert(times);
        }
    }
    for ((package, core), times) in &cores {
        sink.sample(CORE_THROTTLES, &[("core", core), ("package", package)], *times as f64);
    }
    for (package, times) in &packages {
        sink.sample(PACKAGE_THROTTLES, &[("package", package)], *times as f64);
    }
}
