//! Disks, and file systems on them.

use nix::sys::statvfs::statvfs;

use super::{DEVICES_MAX, Depth, Sink};
use crate::observe::sink::Metric;
use crate::topology::Sysfs;

/// Bytes of what the kernel counts in sectors, whatever the disk's own are.
const SECTOR_BYTES: f64 = 512.0;
/// Milliseconds as seconds.
const MILLISECONDS: f64 = 1e-3;

/// Columns of `/proc/diskstats` behind the name (Documentation/admin-guide/iostats.rst): metric, factor, and
/// whether it is read each second. Older kernels have fewer.
const COLUMNS: [(Metric, f64, bool); 17] = [
    (
        Metric::counter(
            "node_disk_reads_completed_total",
            "The total number of reads completed successfully.",
        ),
        1.0,
        true,
    ),
    (
        Metric::counter("node_disk_reads_merged_total", "The total number of reads merged."),
        1.0,
        false,
    ),
    (
        Metric::counter(
            "node_disk_read_bytes_total",
            "The total number of bytes read successfully.",
        ),
        SECTOR_BYTES,
        true,
    ),
    (
        Metric::counter(
            "node_disk_read_time_seconds_total",
            "This is the total number of seconds spent by all reads.",
        ),
        MILLISECONDS,
        true,
    ),
    (
        Metric::counter(
            "node_disk_writes_completed_total",
            "The total number of writes completed successfully.",
        ),
        1.0,
        true,
    ),
    (Metric::counter("node_disk_writes_merged_total", "The number of writes merged."), 1.0, false),
    (
        Metric::counter(
            "node_disk_written_bytes_total",
            "The total number of bytes written successfully.",
        ),
        SECTOR_BYTES,
        true,
    ),
    (
        Metric::counter(
            "node_disk_write_time_seconds_total",
            "This is the total number of seconds spent by all writes.",
        ),
        MILLISECONDS,
        true,
    ),
    (Metric::gauge("node_disk_io_now", "The number of I/Os currently in progress."), 1.0, true),
    (
        Metric::counter("node_disk_io_time_seconds_total", "Total seconds spent doing I/Os."),
        MILLISECONDS,
        true,
    ),
    (
        Metric::counter(
            "node_disk_io_time_weighted_seconds_total",
            "The weighted number of seconds spent doing I/Os.",
        ),
        MILLISECONDS,
        true,
    ),
    (
        Metric::counter(
            "node_disk_discards_completed_total",
            "The total number of discards completed successfully.",
        ),
        1.0,
        false,
    ),
    (
        Metric::counter("node_disk_discards_merged_total", "The total number of discards merged."),
        1.0,
        false,
    ),
    (
        Metric::counter(
            "node_disk_discarded_sectors_total",
            "The total number of sectors discarded successfully.",
        ),
        1.0,
        false,
    ),
    (
        Metric::counter(
            "node_disk_discard_time_seconds_total",
            "This is the total number of seconds spent by all discards.",
        ),
        MILLISECONDS,
        false,
    ),
    (
        Metric::counter(
            "node_disk_flush_requests_total",
            "The total number of flush requests completed successfully.",
        ),
        1.0,
        false,
    ),
    (
        Metric::counter(
            "node_disk_flush_requests_time_seconds_total",
            "This is the total number of seconds spent by all flush requests.",
        ),
        MILLISECONDS,
        false,
    ),
];

const INFO: Metric = Metric::info("node_disk_info", "Info of /sys/block/<block_device>.");

/// Label of a disk's info, and the property of udev's that it comes from.
const PROPERTIES: [(&str, &str); 5] = [
    ("path", "ID_PATH"),
    ("wwn", "ID_WWN"),
    ("model", "ID_MODEL"),
    ("serial", "ID_SERIAL_SHORT"),
    ("revision", "ID_REVISION"),
];

pub(super) fn collect(sysfs: &Sysfs, depth: Depth, sink: &mut dyn Sink) {
    if depth == Depth::Quarter {
        return;
    }
    let text = sysfs.text("proc/diskstats").unwrap_or_default();
    let mut disks = 0;
    let numbers = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(major), Some(minor), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if is_part_or_made_of_memory(name) || !numbers(major) || !numbers(minor) {
            continue;
        }
        disks += 1;
        if disks > DEVICES_MAX {
            break;
        }
        for ((metric, factor, each_second), word) in COLUMNS.into_iter().zip(words) {
            let Ok(value) = word.parse::<u64>() else { break };
            if each_second == (depth == Depth::Second) {
                sink.sample(metric, &[("device", name)], value as f64 * factor);
            }
        }
        if depth == Depth::Minute {
            info(sysfs, name, major, minor, sink);
        }
    }
}

fn info(sysfs: &Sysfs, name: &str, major: &str, minor: &str, sink: &mut dyn Sink) {
    let text = sysfs.text(&format!("run/udev/data/b{major}:{minor}")).unwrap_or_default();
    let property = |wanted: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix("E:")?.strip_prefix(wanted)?.strip_prefix('='))
            .unwrap_or("")
    };
    let mut labels = vec![("device", name), ("major", major), ("minor", minor)];
    labels.extend(PROPERTIES.map(|(label, source)| (label, property(source))));
    sink.sample(INFO, &labels, 1.0);
}

/// What node_exporter leaves out unless it is told otherwise: partitions, whose disk is there, and disks in memory.
fn is_part_or_made_of_memory(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = |prefix: &str| name.strip_prefix(prefix).is_some_and(digits);
    let part = ["hd", "sd", "vd", "xvd"].iter().any(|prefix| {
        let mut rest = name.strip_prefix(prefix).unwrap_or("").chars();
        rest.next().is_some_and(|letter| letter.is_ascii_lowercase()) && digits(rest.as_str())
    });
    let nvme_part = name.strip_prefix("nvme").and_then(|rest| rest.rsplit_once('p'));
    part || ["ram", "loop", "fd"].into_iter().any(numbered)
        || nvme_part.is_some_and(|(space, part)| {
            digits(part) && space.split_once('n').is_some_and(|(c, n)| digits(c) && digits(n))
        })
}

const SIZE: Metric = Metric::gauge("node_filesystem_size_bytes", "Filesystem size in bytes.");
const FREE: Metric = Metric::gauge("node_filesystem_free_bytes", "Filesystem free space in bytes.");
const AVAILABLE: Metric = Metric::gauge(
    "node_filesystem_avail_bytes",
    "Filesystem space available to non-root users in bytes.",
);
const FILES: Metric = Metric::gauge("node_filesystem_files", "Filesystem total file nodes.");
const FILES_FREE: Metric =
    Metric::gauge("node_filesystem_files_free", "Filesystem total free file nodes.");
const READ_ONLY: Metric = Metric::gauge("node_filesystem_readonly", "Filesystem read-only status.");
const DEVICE_ERROR: Metric = Metric::gauge(
    "node_filesystem_device_error",
    "Whether an error occurred while getting statistics for the given device.",
);

/// Types without a size of their own: what node_exporter leaves out unless it is told otherwise.
const NO_STORAGE: [&str; 24] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];
/// Types behind a server: one that does not answer holds whoever asks, for ever.
const BEHIND_A_SERVER: [&str; 10] =
    ["9p", "afs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3"];
/// Mount points that are not looked at, with all below them.
const NO_MOUNT_POINTS: [&str; 5] =
    ["/dev", "/proc", "/sys", "/var/lib/docker", "/var/lib/containers/storage"];

/// File systems that hold data. Asks each of them: a disk that sleeps need not wake up for that, one that is broken
/// may take its time.
pub(super) fn file_systems(sysfs: &Sysfs, sink: &mut dyn Sink) {
    // The agent's own mounts may be read-only where the machine's are not.
    let text = sysfs.text("proc/1/mounts").or_else(|| sysfs.text("proc/self/mounts"));
    let text = text.unwrap_or_default();
    let mut seen: Vec<(String, String, String)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let mut word = || words.next().map(unescaped).unwrap_or_default();
        let (device, place, kind, options) = (word(), word(), word(), word());
        let known = (device, place, kind);
        if !holds_data(&known.1, &known.2) || seen.contains(&known) {
            continue;
        }
        if seen.len() == DEVICES_MAX {
            break;
        }
        seen.push(known);
        let Some((device, place, kind)) = seen.last() else { break };
        let labels = [("device", &**device), ("fstype", &**kind), ("mountpoint", &**place)];
        let read_only = options.split(',').any(|option| option == "ro");
        let Ok(stat) = statvfs(&sysfs.path(place.trim_start_matches('/'))) else {
            sink.sample(DEVICE_ERROR, &labels, 1.0);
            continue;
        };
        let unit = stat.fragment_size() as f64;
        sink.sample(SIZE, &labels, stat.blocks() as f64 * unit);
        sink.sample(FREE, &labels, stat.blocks_free() as f64 * unit);
        sink.sample(AVAILABLE, &labels, stat.blocks_available() as f64 * unit);
        sink.sample(FILES, &labels, stat.files() as f64);
        sink.sample(FILES_FREE, &labels, stat.files_free() as f64);
        sink.sample(READ_ONLY, &labels, f64::from(u8::from(read_only)));
        sink.sample(DEVICE_ERROR, &labels, 0.0);
    }
}

fn holds_data(place: &str, kind: &str) -> bool {
    let below = |folder: &&str| {
        place.strip_prefix(*folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    place.starts_with('/')
        && !NO_STORAGE.contains(&kind)
        && !BEHIND_A_SERVER.contains(&kind)
        && !kind.starts_with("fuse.")
        && !place.starts_with("/run/credentials/")
        && !NO_MOUNT_POINTS.iter().any(below)
}

/// Spaces, tabs, line ends and backslashes are three octal digits there (proc(5)).
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 4);
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii) {
            Some(byte) => {
                out.push(byte as char);
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests;
