//! Memory: `/proc/meminfo` and the part of `/proc/vmstat` that is about paging.

use std::fmt::Write;

use super::{Depth, Sink};
use crate::observe::sink::Metric;
use crate::topology::Sysfs;

/// What the store has each second: enough for what is used, cached, dirty and swapped.
const EACH_SECOND: [&str; 10] = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "SwapTotal",
    "SwapFree",
    "Dirty",
    "Writeback",
    "SReclaimable",
];

pub(super) fn collect(sysfs: &Sysfs, depth: Depth, sink: &mut dyn Sink) {
    match depth {
        Depth::Second => {
            memory(sysfs, depth, sink);
            paging(sysfs, sink);
        }
        Depth::Quarter => {}
        Depth::Minute => memory(sysfs, depth, sink),
    }
}

/// `MemTotal:  24684092 kB` is `node_memory_MemTotal_bytes`; what has no unit is a number of pages.
fn memory(sysfs: &Sysfs, depth: Depth, sink: &mut dyn Sink) {
    let text = sysfs.text("proc/meminfo").unwrap_or_default();
    let (mut name, mut help) = (String::new(), String::new());
    for line in text.lines() {
        let Some((field, rest)) = line.split_once(':') else { continue };
        if (depth == Depth::Second) != EACH_SECOND.contains(&field) {
            continue;
        }
        let mut words = rest.split_ascii_whitespace();
        let Some(value) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
        let in_kib = words.next() == Some("kB");
        name.clear();
        name.push_str("node_memory_");
        // Active(anon) is Active_anon.
        name.extend(field.chars().filter(|c| *c != ')').map(|c| if c == '(' { '_' } else { c }));
        if in_kib {
            name.push_str("_bytes");
        }
        help.clear();
        // Writing to a String cannot fail.
        let _ = write!(help, "Memory information field {}.", &name["node_memory_".len()..]);
        let value = if in_kib { value.saturating_mul(1024) } else { value };
        sink.sample(Metric::gauge(&name, &help), &[], value as f64);
    }
}

/// The fields that node_exporter has unless it is told otherwise.
fn is_about_paging(field: &str) -> bool {
    let fault = |rest: &str| rest.contains("fault");
    ["oom_kill", "pgpg", "pswp"].iter().any(|start| field.starts_with(start))
        || field.strip_prefix("pg").is_some_and(fault)
}

fn paging(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let text = sysfs.text("proc/vmstat").unwrap_or_default();
    let (mut name, mut help) = (String::new(), String::new());
    for line in text.lines() {
        let Some((field, value)) = line.split_once(' ') else { continue };
        let Some(value) = value.parse::<u64>().ok().filter(|_| is_about_paging(field)) else {
            continue;
        };
        name.clear();
        help.clear();
        let _ = write!(name, "node_vmstat_{field}");
        let _ = write!(help, "/proc/vmstat information field {field}.");
        sink.sample(Metric::unknown(&name, &help), &[], value as f64);
    }
}
