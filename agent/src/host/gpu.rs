//! What graphics processors of NVIDIA's tell of themselves, through NVML, the library that comes with their driver. It is
//! loaded when there is one, so the agent needs none to start.
//!
//! As long as the library is open the driver keeps the processors awake: it is opened once, not for each look. A
//! machine without it is asked again after [`AGAIN`], since a driver can be installed while the agent runs.

use std::ffi::OsStr;
use std::time::Duration;

use ebpf::Status;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::{DEVICES_MAX, Sink};
use crate::clock::BootTime;
use crate::observe::SourceReport;
use crate::observe::sink::Metric;

/// The library as drivers install it; the name without a number is there only for those who compile against it.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Time between two attempts to open it.
const AGAIN: Duration = Duration::from_secs(600);

/// The library, once it is open.
pub struct Gpus {
    library: String,
    opened: Option<Nvml>,
    tried: Option<BootTime>,
    status: Status,
}

impl Default for Gpus {
    fn default() -> Self {
        Self::of(LIBRARY)
    }
}

impl Gpus {
    /// In a library of this name.
    pub fn of(library: &str) -> Self {
        let status = Status::Unsupported("not looked for yet".into());
        Self { library: library.to_owned(), opened: None, tried: None, status }
    }

    /// Whether there is anything to ask.
    pub fn report(&self) -> SourceReport {
        SourceReport { what: "gpu", from: "nvml", status: self.status.clone(), note: String::new() }
    }

    /// Asks all processors.
    pub fn ask(&mut self, now: BootTime, sink: &mut dyn Sink) {
        if self.opened.is_none() && self.tried.is_none_or(|tried| now.since(tried) >= AGAIN) {
            self.tried = Some(now);
            match Nvml::builder().lib_path(OsStr::new(&self.library)).init() {
                Ok(library) => self.opened = Some(library),
                Err(error) => self.status = Status::Unsupported(self.missing(&error)),
            }
        }
        let Some(library) = &self.opened else { return };
        match tell(library, sink) {
            Ok(()) => self.status = Status::Running,
            Err(error) => {
                // The driver was unloaded or replaced under us: the library does not get over that.
                self.status = Status::Failed(format!("NVML: {error}"));
                self.opened = None;
            }
        }
    }

    fn missing(&self, error: &NvmlError) -> String {
        match error {
            NvmlError::LibloadingError(_) => {
                format!("no driver of NVIDIA's is installed here: there is no {}", self.library)
            }
            error => format!("{}: {error}", self.library),
        }
    }
}

fn tell(library: &Nvml, sink: &mut dyn Sink) -> Result<(), NvmlError> {
    let count = library.device_count()?.min(DEVICES_MAX as u32);
    let driver = library.sys_driver_version().unwrap_or_default();
    for number in 0..count {
        // One that has fallen off its bus takes no other with it.
        let Ok(device) = library.device_by_index(number) else { continue };
        let Ok(address) = device.pci_info() else { continue };
        tell_one(&device, &address_of(&address.bus_id), &driver, sink);
    }
    Ok(())
}

/// What a processor does not know (laptops their power, cheap ones their errors) it does not tell.
fn tell_one(device: &Device<'_>, address: &str, driver: &str, sink: &mut dyn Sink) {
    const INFO: Metric<'_> =
        Metric::info("weft_gpu_info", "What a graphics processor is, and its driver.");
    const BUSY: Metric<'_> = Metric::gauge(
        "weft_gpu_utilization_ratio",
        "Part of the last moments in which the processor did something.",
    );
    const MEMORY_BUSY: Metric<'_> = Metric::gauge(
        "weft_gpu_memory_utilization_ratio",
        "Part of the last moments in which its memory was read or written.",
    );
    const USED: Metric<'_> =
        Metric::gauge("weft_gpu_memory_used_bytes", "Memory of the processor that is in use.");
    const MEMORY: Metric<'_> = Metric::gauge("weft_gpu_memory_bytes", "Memory of the processor.");
    const CELSIUS: Metric<'_> =
        Metric::gauge("weft_gpu_temperature_celsius", "Temperature of the processor.");
    const POWER: Metric<'_> =
        Metric::gauge("weft_gpu_power_watts", "Power that the processor and its board take.");
    const ENERGY: Metric<'_> = Metric::counter(
        "weft_gpu_energy_joules_total",
        "Energy that the processor has taken since its driver was loaded.",
    );
    const ERRORS: Metric<'_> = Metric::counter(
        "weft_gpu_memory_errors_total",
        "Errors in the processor's memory since its driver was loaded, by whether they could be corrected.",
    );
    let name = device.name().unwrap_or_default();
    let uuid = device.uuid().unwrap_or_default();
    let labels = [("device", address), ("name", &name), ("uuid", &uuid), ("driver", driver)];
    sink.sample(INFO, &labels, 1.0);
    let mut give = |metric: Metric<'_>, value: Option<f64>| {
        if let Some(value) = value {
            sink.sample(metric, &[("device", address)], value);
        }
    };
    let busy = device.utilization_rates().ok();
    give(BUSY, busy.as_ref().map(|percent| f64::from(percent.gpu) / 100.0));
    give(MEMORY_BUSY, busy.as_ref().map(|percent| f64::from(percent.memory) / 100.0));
    let memory = device.memory_info().ok();
    give(USED, memory.as_ref().map(|bytes| bytes.used as f64));
    give(MEMORY, memory.as_ref().map(|bytes| bytes.total as f64));
    give(CELSIUS, device.temperature(TemperatureSensor::Gpu).ok().map(f64::from));
    give(POWER, device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3));
    let energy = device.total_energy_consumption().ok();
    give(ENERGY, energy.map(|millijoules| millijoules as f64 / 1e3));
    for (kind, which) in
        [("corrected", MemoryError::Corrected), ("uncorrected", MemoryError::Uncorrected)]
    {
        if let Ok(errors) = device.total_ecc_errors(which, EccCounter::Volatile) {
            sink.sample(ERRORS, &[("device", address), ("kind", kind)], errors as f64);
        }
    }
}

/// The library's address of a device on PCI as the kernel writes it: `00000000:3B:00.0` is `0000:3b:00.0`.
fn address_of(bus_id: &str) -> String {
    let small = bus_id.to_ascii_lowercase();
    match small.split_once(':') {
        Some((domain, rest)) => {
            format!("{:0>4}:{rest}", domain.trim_start_matches('0'))
        }
        None => small,
    }
}

#[cfg(test)]
mod tests;
