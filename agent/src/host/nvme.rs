//! The health that NVMe disks tell of themselves: log page 2 of the NVM Express base specification (2.0,
//! section 5.16.1.3).
//!
//! Asking means a command to the disk, so it is done rarely and never in the loop, and a disk that the kernel has put to
//! sleep is left alone.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::{DEVICES_MAX, Sink};
use crate::observe::sink::Metric;
use crate::topology::Sysfs;

/// Bytes of the log page.
const PAGE_BYTES: usize = 512;
/// Bytes of one of the specification's data units: a thousand sectors of 512 bytes.
const UNIT_BYTES: f64 = 512_000.0;
/// Kelvin at which water freezes, as the specification rounds it.
const FREEZING_KELVIN: f64 = 273.0;
/// After this the kernel gives the command up.
const TIMEOUT_MS: u32 = 5_000;

/// `struct nvme_admin_cmd` (linux/nvme_ioctl.h).
#[repr(C)]
#[derive(Debug, Default)]
pub struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    words_2_3: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_bytes: u32,
    data_bytes: u32,
    words_10_15: [u32; 6],
    timeout_ms: u32,
    result: u32,
}
const _: () = assert!(size_of::<AdminCommand>() == 72, "as the kernel has it");

nix::ioctl_readwrite!(
    /// `NVME_IOCTL_ADMIN_CMD`
    admin_command,
    b'N',
    0x41,
    AdminCommand
);

/// What a disk says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Bits: spare is low, too hot or too cold, unreliable, read-only, its own power backup has failed.
    pub critical_warning: u8,
    /// Of the whole disk.
    pub celsius: f64,
    /// Of its spare blocks, what is left: 1 is all.
    pub spare: f64,
    /// Below this part of its spare blocks it warns.
    pub spare_threshold: f64,
    /// Of the wear that it is made for; may go beyond 1.
    pub used: f64,
    /// Bytes that hosts have read, ever.
    pub read_bytes: f64,
    /// Bytes that hosts have written, ever.
    pub written_bytes: f64,
    /// Times that it was switched on.
    pub power_cycles: f64,
    /// Time that it was on.
    pub power_on_seconds: f64,
    /// Times that it lost its power without being told before.
    pub unsafe_shutdowns: f64,
    /// Times that it could not read back what was written.
    pub media_errors: f64,
}

/// Of all NVMe disks that are awake and answer, by name.
pub fn health(sysfs: &Sysfs) -> Vec<(String, Health)> {
    let names = sysfs.names("sys/class/nvme").into_iter().take(DEVICES_MAX);
    let read = names.filter_map(|name| {
        let asleep = sysfs.line(&format!("sys/class/nvme/{name}/device/power/runtime_status"));
        // "resetting" and "dead" are no states to ask in, and older kernels do not tell theirs.
        let state = sysfs.line(&format!("sys/class/nvme/{name}/state"));
        if asleep.is_some_and(|status| status.starts_with("suspend"))
            || state.is_some_and(|state| state != "live")
        {
            return None;
        }
        match ask(sysfs, &name) {
            Ok(page) => Some((name, Health::of(&page))),
            Err(error) => {
                tracing::debug!(disk = name, %error, "a disk does not tell its health");
                None
            }
        }
    });
    read.collect()
}

fn ask(sysfs: &Sysfs, name: &str) -> io::Result<[u8; PAGE_BYTES]> {
    const GET_LOG_PAGE: u8 = 0x02;
    const HEALTH_PAGE: u32 = 0x02;
    let disk = File::open(sysfs.path(&format!("dev/{name}")))?;
    let mut page = [0; PAGE_BYTES];
    let mut command = AdminCommand {
        opcode: GET_LOG_PAGE,
        // The whole disk rather than one of its namespaces.
        namespace: u32::MAX,
        address: page.as_mut_ptr() as u64,
        data_bytes: PAGE_BYTES as u32,
        // Words of the page without one, and its number.
        words_10_15: [(PAGE_BYTES as u32 / 4 - 1) << 16 | HEALTH_PAGE, 0, 0, 0, 0, 0],
        timeout_ms: TIMEOUT_MS,
        ..AdminCommand::default()
    };
    // SAFETY: the command is as the kernel has it, and `page`, which it writes to, has as many bytes as
    // it says and lives through the call.
    match unsafe { admin_command(disk.as_raw_fd(), &mut command) }? {
        0 => Ok(page),
        status => Err(io::Error::other(format!("the disk answers with status {status:#x}"))),
    }
}

impl Health {
    fn of(page: &[u8; PAGE_BYTES]) -> Self {
        let large = |at: usize| {
            let bytes = page[at..at + 16].iter().rev();
            bytes.fold(0_u128, |number, byte| number << 8 | u128::from(*byte)) as f64
        };
        let percent = |at: usize| f64::from(page[at]) / 100.0;
        Health {
            critical_warning: page[0],
            celsius: f64::from(u16::from_le_bytes([page[1], page[2]])) - FREEZING_KELVIN,
            spare: percent(3),
            spare_threshold: percent(4),
            used: percent(5),
            read_bytes: large(32) * UNIT_BYTES,
            written_bytes: large(48) * UNIT_BYTES,
            power_cycles: large(112),
            power_on_seconds: large(128) * 3600.0,
            unsafe_shutdowns: large(144),
            media_errors: large(160),
        }
    }

    pub(super) fn tell(&self, device: &str, sink: &mut dyn Sink) {
        let warning = f64::from(self.critical_warning);
        for (metric, value) in [
            (
                Metric::gauge(
                    "weft_nvme_critical_warning",
                    "Warnings of the disk, as bits; 0 is well.",
                ),
                warning,
            ),
            (
                Metric::gauge("weft_nvme_temperature_celsius", "Temperature of the disk."),
                self.celsius,
            ),
            (
                Metric::gauge("weft_nvme_available_spare_ratio", "Spare blocks that are left."),
                self.spare,
            ),
            (
                Metric::gauge(
                    "weft_nvme_available_spare_threshold_ratio",
                    "Spare blocks below which the disk warns.",
                ),
                self.spare_threshold,
            ),
            (
                Metric::gauge("weft_nvme_used_ratio", "Wear, of what the disk is made for."),
                self.used,
            ),
            (
                Metric::counter("weft_nvme_read_bytes_total", "Bytes read by hosts, ever."),
                self.read_bytes,
            ),
            (
                Metric::counter("weft_nvme_written_bytes_total", "Bytes written by hosts, ever."),
                self.written_bytes,
            ),
            (
                Metric::counter(
                    "weft_nvme_power_cycles_total",
                    "Times that the disk was switched on.",
                ),
                self.power_cycles,
            ),
            (
                Metric::counter("weft_nvme_power_on_seconds_total", "Time that the disk was on."),
                self.power_on_seconds,
            ),
            (
                Metric::counter(
                    "weft_nvme_unsafe_shutdowns_total",
                    "Losses of power without notice.",
                ),
                self.unsafe_shutdowns,
            ),
            (
                Metric::counter(
                    "weft_nvme_media_errors_total",
                    "Reads of the disk that failed for good.",
                ),
                self.media_errors,
            ),
        ] {
            sink.sample(metric, &[("device", device)], value);
        }
    }
}

#[cfg(test)]
mod tests;
