//! The health that ATA disks tell of themselves (SMART): ATA8-ACS, section 7.52, in commands that SCSI wraps up (SAT-3, section
//! 12.2: ATA PASS-THROUGH). The table of attributes is older than the standard and was taken out of it, but every disk
//! still has it (SFF-8035i, section 7).
//!
//! Asking means commands to the disk, so it is done rarely and never in the loop. A disk that sleeps is not woken: it is
//! asked first whether it does, which it answers in its sleep. The kernel lets only those ask who have CAP_SYS_RAWIO.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use ebpf::Status;

use super::{DEVICES_MAX, Sink};
use crate::observe::SourceReport;
use crate::observe::sink::Metric;
use crate::topology::Sysfs;

/// Bytes of each answer with data.
const PAGE_BYTES: usize = 512;
/// Places for attributes, of twelve bytes each, behind two bytes of version.
const ATTRIBUTES_MAX: usize = 30;
const ATTRIBUTE_BYTES: usize = 12;
/// Bytes of what SCSI says of a command that did not simply succeed: enough for the disk's registers.
const SENSE_BYTES: usize = 32;
/// After this the kernel gives the command up, and resets the disk: one that is busy gets its time.
const TIMEOUT_MS: u32 = 20_000;
/// Number of CAP_SYS_RAWIO (capabilities(7)).
const SYS_RAWIO: u32 = 17;

/// `sg_io_hdr_t` (scsi/sg.h).
#[repr(C)]
#[derive(Debug)]
pub struct Request {
    interface: i32,
    direction: i32,
    command_bytes: u8,
    sense_bytes_max: u8,
    vectors: u16,
    data_bytes: u32,
    data: *mut u8,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack_id: i32,
    user: *mut u8,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_bytes: u8,
    host_status: u16,
    driver_status: u16,
    residual: i32,
    duration_ms: u32,
    info: u32,
}
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Request>() == 88, "as the kernel has it");

nix::ioctl_readwrite_bad!(
    /// `SG_IO`
    sg_io,
    0x2285,
    Request
);

/// What one is told by a disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// It says that it will fail soon.
    pub failing: bool,
    /// Attributes that are as bad as their maker says they must not be.
    pub attributes_failing: u32,
    /// Its temperature.
    pub celsius: Option<f64>,
    /// Time that it was on.
    pub power_on_seconds: Option<f64>,
    /// Times that it was switched on.
    pub power_cycles: Option<f64>,
    /// Sectors that others stand in for.
    pub reallocated: Option<f64>,
    /// Sectors that could not be read, and are given up at the next write.
    pub pending: Option<f64>,
    /// Sectors that could not be read in a check of its own.
    pub uncorrectable: Option<f64>,
}

/// What came of asking all disks.
#[derive(Debug, Default)]
pub struct Told {
    /// Of those that are awake and answer, by name.
    pub health: Vec<(String, Health)>,
    /// How it went; `None`: there is no such disk.
    pub report: Option<SourceReport>,
}

/// A disk that does not tell its health.
#[derive(Debug, thiserror::Error)]
enum Silent {
    #[error("it sleeps")]
    Asleep,
    #[error("it has no SMART, or it is switched off")]
    Without,
    #[error("its answer to {0} makes no sense")]
    Senseless(&'static str),
    #[error(transparent)]
    Refused(#[from] io::Error),
}

/// Asks all ATA disks.
pub fn ask_all(sysfs: &Sysfs) -> Told {
    let names: Vec<String> = sysfs
        .names("sys/block")
        .into_iter()
        .filter(|name| is_ata(sysfs, name))
        .take(DEVICES_MAX)
        .collect();
    if names.is_empty() {
        return Told::default();
    }
    let report = |status, note| Some(SourceReport { what: "smart", from: "ata", status, note });
    if !may_ask(sysfs) {
        let reason = "asking ATA disks for their health needs CAP_SYS_RAWIO, which the service does not have \
                      unless it is given (see METRICS.md, 'The health of disks')";
        return Told {
            report: report(Status::Unsupported(reason.into()), String::new()),
            ..Told::default()
        };
    }
    let mut told = Told::default();
    let mut silent = Vec::new();
    for name in names {
        match ask(sysfs, &name) {
            Ok(health) => told.health.push((name, health)),
            Err(reason) => {
                tracing::debug!(disk = name, %reason, "a disk does not tell its health");
                silent.push(format!("{name}: {reason}"));
            }
        }
    }
    told.report = report(Status::Running, silent.join(", "));
    told
}

/// The kernel calls the maker of every disk that speaks ATA so, and the standard wants it of others who translate.
fn is_ata(sysfs: &Sysfs, name: &str) -> bool {
    sysfs.line(&format!("sys/block/{name}/device/vendor")).is_some_and(|vendor| vendor == "ATA")
}

fn may_ask(sysfs: &Sysfs) -> bool {
    let status = sysfs.text("proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|bits| bits & (1 << SYS_RAWIO) != 0)
}

fn ask(sysfs: &Sysfs, name: &str) -> Result<Health, Silent> {
    let power = sysfs.line(&format!("sys/block/{name}/device/power/runtime_status"));
    // Opening it would wake it.
    if power.is_some_and(|status| status.starts_with("suspend")) {
        return Err(Silent::Asleep);
    }
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let disk = options.open(sysfs.path(&format!("dev/{name}")))?;
    let disk = disk.as_raw_fd();
    let registers = send(disk, &Command::CHECK_POWER_MODE, None)?;
    if registers.ok_or(Silent::Senseless("CHECK POWER MODE"))?.sleeps() {
        return Err(Silent::Asleep);
    }
    let mut page = [0; PAGE_BYTES];
    send(disk, &Command::IDENTIFY, Some(&mut page))?;
    if !has_smart(&page) {
        return Err(Silent::Without);
    }
    let registers = send(disk, &Command::RETURN_STATUS, None)?;
    let failing = registers.and_then(|registers| registers.failing());
    let failing = failing.ok_or(Silent::Senseless("SMART RETURN STATUS"))?;
    send(disk, &Command::READ_DATA, Some(&mut page))?;
    let mut thresholds = [0; PAGE_BYTES];
    // Left out of later standards: without them no attribute is judged.
    let judged = send(disk, &Command::READ_THRESHOLDS, Some(&mut thresholds)).is_ok();
    let health = Health::of(failing, &page, judged.then_some(&thresholds));
    health.ok_or(Silent::Senseless("SMART READ DATA"))
}

/// A command of ATA without an address: its registers.
#[derive(Clone, Copy, Debug)]
struct Command {
    code: u8,
    feature: u8,
    /// Answers with a page, and not with its registers.
    page: bool,
}

impl Command {
    const CHECK_POWER_MODE: Self = Self { code: 0xe5, feature: 0, page: false };
    const IDENTIFY: Self = Self { code: 0xec, feature: 0, page: true };
    const READ_DATA: Self = Self { code: Self::SMART, feature: 0xd0, page: true };
    const READ_THRESHOLDS: Self = Self { code: Self::SMART, feature: 0xd1, page: true };
    const RETURN_STATUS: Self = Self { code: Self::SMART, feature: 0xda, page: false };
    const SMART: u8 = 0xb0;
    /// What the middle and the high part of the address must be for SMART, and come back as where all is well.
    const WELL: (u8, u8) = (0x4f, 0xc2);
    /// What they come back as where it is not.
    const FAILING: (u8, u8) = (0xf4, 0x2c);

    /// ATA PASS-THROUGH (16).
    fn block(self) -> [u8; 16] {
        const NON_DATA: u8 = 3 << 1;
        const DATA_IN: u8 = 4 << 1;
        // From the disk, in blocks, as many as the count says.
        const ONE_BLOCK: u8 = 0b0000_1110;
        // Its registers are wanted although it succeeded.
        const REGISTERS: u8 = 0b0010_0000;
        let (middle, high) = if self.code == Self::SMART { Self::WELL } else { (0, 0) };
        let (protocol, how, count) =
            if self.page { (DATA_IN, ONE_BLOCK, 1) } else { (NON_DATA, REGISTERS, 0) };
        let mut block = [0; 16];
        (block[0], block[1], block[2]) = (0x85, protocol, how);
        (block[4], block[6]) = (self.feature, count);
        (block[10], block[12], block[14]) = (middle, high, self.code);
        block
    }
}

/// Sends a command and waits for its end: the disk's registers, where it tells them.
fn send(
    disk: RawFd,
    command: &Command,
    page: Option<&mut [u8; PAGE_BYTES]>,
) -> io::Result<Option<Registers>> {
    const NOTHING: i32 = -1;
    const FROM_THE_DISK: i32 = -3;
    const GOOD: u8 = 0;
    const CHECK_CONDITION: u8 = 2;
    let block = command.block();
    let mut sense = [0; SENSE_BYTES];
    let (direction, data, data_bytes) = match page {
        Some(page) => (FROM_THE_DISK, page.as_mut_ptr(), PAGE_BYTES as u32),
        None => (NOTHING, std::ptr::null_mut(), 0),
    };
    let mut request = Request {
        interface: i32::from(b'S'),
        direction,
        command_bytes: block.len() as u8,
        sense_bytes_max: SENSE_BYTES as u8,
        vectors: 0,
        data_bytes,
        data,
        command: block.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: TIMEOUT_MS,
        flags: 0,
        pack_id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_bytes: 0,
        host_status: 0,
        driver_status: 0,
        residual: 0,
        duration_ms: 0,
        info: 0,
    };
    // SAFETY: the request is as the kernel has it; block, page and sense have as many bytes as it says and live
    // through the call.
    unsafe { sg_io(disk, &mut request) }?;
    let told = usize::from(request.sense_bytes).min(SENSE_BYTES);
    let registers = Registers::of(&sense[..told]);
    let well = request.host_status == 0 && registers.is_none_or(|registers| !registers.refused());
    match request.status {
        GOOD if request.host_status == 0 && request.residual == 0 => Ok(None),
        // How registers come that were asked for.
        CHECK_CONDITION if well && registers.is_some() && !command.page => Ok(registers),
        status => Err(io::Error::other(format!(
            "the disk refuses command {:#04x} (SCSI status {status:#04x}, host {:#06x})",
            command.code, request.host_status
        ))),
    }
}

/// What a disk's registers are after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registers {
    status: u8,
    count: u8,
    middle: u8,
    high: u8,
}

impl Registers {
    /// From SCSI's sense data (SAT-3, sections 12.2.5 to 12.2.7), in the form with descriptors or in the fixed one.
    fn of(sense: &[u8]) -> Option<Self> {
        const RETURNED: (u8, u8) = (0x09, 0x0c);
        /// "ATA PASS-THROUGH INFORMATION AVAILABLE"
        const AVAILABLE: (u8, u8) = (0x00, 0x1d);
        let byte = |at: usize| sense.get(at).copied();
        // No error, or one that was got over: all else is about the command, and what follows is something else.
        let fine = |key: u8| matches!(key & 0x0f, 0 | 1);
        match byte(0)? & 0x7f {
            0x72 if fine(byte(1)?) => {
                let mut at = 8;
                // Each descriptor says how long it is, and there is at least one byte of each.
                loop {
                    let (kind, length) = (byte(at)?, byte(at + 1)?);
                    if (kind, length) == RETURNED {
                        return Some(Self {
                            count: byte(at + 5)?,
                            middle: byte(at + 9)?,
                            high: byte(at + 11)?,
                            status: byte(at + 13)?,
                        });
                    }
                    at += 2 + usize::from(length);
                }
            }
            0x70 if fine(byte(2)?) && (byte(12)?, byte(13)?) == AVAILABLE => {
                Some(Self { status: byte(4)?, count: byte(6)?, middle: byte(10)?, high: byte(11)? })
            }
            _ => None,
        }
    }

    /// Whether the disk did not do it: an error, or a fault.
    fn refused(self) -> bool {
        self.status & 0b0010_0001 != 0
    }

    /// After CHECK POWER MODE: in standby, of either kind, or standing still behind a cache that does not.
    fn sleeps(self) -> bool {
        matches!(self.count, 0x00 | 0x01 | 0x40)
    }

    /// After SMART RETURN STATUS.
    fn failing(self) -> Option<bool> {
        match (self.middle, self.high) {
            Command::WELL => Some(false),
            Command::FAILING => Some(true),
            _ => None,
        }
    }
}

/// Words 82 and 85 of IDENTIFY DEVICE: it has SMART, and that is switched on. Word 0: it is a disk.
fn has_smart(page: &[u8; PAGE_BYTES]) -> bool {
    let word = |number: usize| u16::from_le_bytes([page[2 * number], page[2 * number + 1]]);
    word(0) & 1 << 15 == 0 && word(82) & 1 != 0 && word(85) & 1 != 0
}

/// All bytes of a page add up to nothing.
fn is_whole(page: &[u8; PAGE_BYTES]) -> bool {
    page.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// The places of a table that are taken: number and all twelve bytes.
fn places(page: &[u8; PAGE_BYTES]) -> impl Iterator<Item = (u8, &[u8])> {
    let table = page[2..].chunks_exact(ATTRIBUTE_BYTES).take(ATTRIBUTES_MAX);
    table.map(|place| (place[0], place)).filter(|(number, _)| *number != 0)
}

impl Health {
    /// From what the disk says of itself, its attributes and their thresholds. `None` where the attributes are damaged.
    fn of(
        failing: bool,
        data: &[u8; PAGE_BYTES],
        thresholds: Option<&[u8; PAGE_BYTES]>,
    ) -> Option<Self> {
        if !is_whole(data) {
            return None;
        }
        // What the six bytes mean is up to the maker; how many of them count is what smartmontools found to be usual.
        let raw = |wanted: u8, bytes: usize| {
            let (_, place) = places(data).find(|(number, _)| *number == wanted)?;
            let bytes = place[5..5 + bytes].iter().rev();
            Some(bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) as f64)
        };
        let thresholds = thresholds.filter(|page| is_whole(page));
        let limits: Vec<(u8, u8)> = thresholds
            .into_iter()
            .flat_map(|page| places(page).map(|(number, place)| (number, place[1])))
            .collect();
        let is_failing = |number: u8, value: u8| {
            // 0 is never reached, and values begin with 1.
            limits
                .iter()
                .any(|limit| limit.0 == number && limit.1 > 0 && value > 0 && value <= limit.1)
        };
        let failed = places(data).filter(|(number, place)| is_failing(*number, place[3]));
        Some(Self {
            failing,
            attributes_failing: failed.count() as u32,
            celsius: raw(194, 1).or_else(|| raw(190, 1)),
            power_on_seconds: raw(9, 3).map(|hours| hours * 3600.0),
            power_cycles: raw(12, 6),
            reallocated: raw(5, 2),
            pending: raw(197, 6),
            uncorrectable: raw(198, 6),
        })
    }

    pub(super) fn tell(&self, device: &str, sink: &mut dyn Sink) {
        const FAILING: Metric<'_> = Metric::gauge(
            "weft_ata_failing",
            "Whether the disk says that it will fail soon; 0 is well.",
        );
        const ATTRIBUTES: Metric<'_> = Metric::gauge(
            "weft_ata_attributes_failing",
            "Attributes of the disk that have reached their thresholds.",
        );
        const CELSIUS: Metric<'_> =
            Metric::gauge("weft_ata_temperature_celsius", "Temperature of the disk.");
        const ON: Metric<'_> =
            Metric::counter("weft_ata_power_on_seconds_total", "Time that the disk was on.");
        const CYCLES: Metric<'_> =
            Metric::counter("weft_ata_power_cycles_total", "Times that the disk was switched on.");
        const REALLOCATED: Metric<'_> =
            Metric::gauge("weft_ata_reallocated_sectors", "Sectors that others stand in for.");
        const PENDING: Metric<'_> = Metric::gauge(
            "weft_ata_pending_sectors",
            "Sectors that could not be read, and are given up at the next write.",
        );
        const UNCORRECTABLE: Metric<'_> = Metric::gauge(
            "weft_ata_uncorrectable_sectors",
            "Sectors that could not be read in a check of the disk's own.",
        );
        let attributes = f64::from(self.attributes_failing);
        for (metric, value) in [
            (FAILING, Some(f64::from(u8::from(self.failing)))),
            (ATTRIBUTES, Some(attributes)),
            (CELSIUS, self.celsius),
            (ON, self.power_on_seconds),
            (CYCLES, self.power_cycles),
            (REALLOCATED, self.reallocated),
            (PENDING, self.pending),
            (UNCORRECTABLE, self.uncorrectable),
        ] {
            if let Some(value) = value {
                sink.sample(metric, &[("device", device)], value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
