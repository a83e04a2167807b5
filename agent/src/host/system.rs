//! The system as a whole: files, entropy, name, time, NVMe controllers.

use super::{DEVICES_MAX, Depth, Sink, number};
use crate::observe::sink::Metric;
use crate::topology::Sysfs;

const FILES: [Metric; 2] = [
    Metric::gauge("node_filefd_allocated", "File descriptor statistics: allocated."),
    Metric::gauge("node_filefd_maximum", "File descriptor statistics: maximum."),
];
const ENTROPY: [(&str, Metric); 2] = [
    ("entropy_avail", Metric::gauge("node_entropy_available_bits", "Bits of available entropy.")),
    ("poolsize", Metric::gauge("node_entropy_pool_size_bits", "Bits of entropy pool.")),
];
const NAME: Metric = Metric::info(
    "node_uname_info",
    "Labeled system information as provided by the uname system call.",
);
const TIME: Metric =
    Metric::gauge("node_time_seconds", "System time in seconds since epoch (1970).");
const CLOCK: Metric = Metric::info(
    "node_time_clocksource_current_info",
    "Current clocksource read from '/sys/devices/system/clocksource'.",
);
const CLOCKS: Metric = Metric::info(
    "node_time_clocksource_available_info",
    "Available clocksources read from '/sys/devices/system/clocksource'.",
);
const NVME: Metric = Metric::info(
    "node_nvme_info",
    "Non-numeric data from /sys/class/nvme/<device>, value is always 1.",
);

pub(super) fn collect(sysfs: &Sysfs, depth: Depth, wall_seconds: f64, sink: &mut dyn Sink) {
    match depth {
        Depth::Second => sink.sample(TIME, &[], wall_seconds),
        Depth::Quarter => files(sysfs, sink),
        Depth::Minute => {
            name(sysfs, sink);
            clocks(sysfs, sink);
            controllers(sysfs, sink);
            for (file, metric) in ENTROPY {
                if let Some(bits) = number(sysfs, &format!("proc/sys/kernel/random/{file}")) {
                    sink.sample(metric, &[], bits);
                }
            }
        }
    }
}

/// Allocated, free (always 0) and maximum.
fn files(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let Some(line) = sysfs.line("proc/sys/fs/file-nr") else { return };
    let words = line.split_ascii_whitespace().step_by(2);
    for (metric, value) in FILES.into_iter().zip(words) {
        if let Ok(value) = value.parse() {
            sink.sample(metric, &[], value);
        }
    }
}

fn name(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let file = |name: &str| sysfs.line(&format!("proc/sys/kernel/{name}"));
    // Kernels before 6.1 do not tell it there.
    let machine = file("arch").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let [domain, node, release, system, version] =
        ["domainname", "hostname", "osrelease", "ostype", "version"]
            .map(|name| file(name).unwrap_or_default());
    let labels = [
        ("domainname", &*domain),
        ("machine", &*machine),
        ("nodename", &*node),
        ("release", &*release),
        ("sysname", &*system),
        ("version", &*version),
    ];
    sink.sample(NAME, &labels, 1.0);
}

fn clocks(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let folder = "sys/devices/system/clocksource";
    for device in sysfs.numbered(folder, "clocksource") {
        let file =
            |name: &str| sysfs.line(&format!("{folder}/clocksource{device}/{name}_clocksource"));
        let device = device.to_string();
        for source in file("available").unwrap_or_default().split_ascii_whitespace() {
            sink.sample(CLOCKS, &[("clocksource", source), ("device", &device)], 1.0);
        }
        if let Some(source) = file("current") {
            sink.sample(CLOCK, &[("clocksource", &source), ("device", &device)], 1.0);
        }
    }
}

fn controllers(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let folder = "sys/class/nvme";
    for device in sysfs.names(folder).into_iter().take(DEVICES_MAX) {
        let file =
            |name: &str| sysfs.line(&format!("{folder}/{device}/{name}")).unwrap_or_default();
        let [firmware, model, serial, state] =
            ["firmware_rev", "model", "serial", "state"].map(file);
        let labels = [
            ("device", &*device),
            ("firmware_revision", &*firmware),
            ("model", &*model),
            ("serial", &*serial),
            ("state", &*state),
        ];
        sink.sample(NVME, &labels, 1.0);
    }
}
