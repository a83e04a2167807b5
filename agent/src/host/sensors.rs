//! Sensors: chips of hwmon, thermal zones, errors of memory (EDAC), energy (powercap).

use helper::hardware::chips;
use std::collections::BTreeMap;
use std::path::PathBuf;

use ::metrics::store::Kind;

use super::{DEVICES_MAX, Sink, clean, number};
use crate::observe::sink::Metric;
use crate::topology::Sysfs;

pub(super) fn collect(sysfs: &Sysfs, sink: &mut dyn Sink) {
    chips(sysfs, sink);
    thermal(sysfs, sink);
    memory_errors(sysfs, sink);
    energy(sysfs, sink);
}

const CHIP_NAMES: Metric =
    Metric::gauge("node_hwmon_chip_names", "Annotation metric for human-readable chip names.");
const SENSOR_LABEL: Metric =
    Metric::gauge("node_hwmon_sensor_label", "Label for given chip and sensor.");

fn chips(sysfs: &Sysfs, sink: &mut dyn Sink) {
    for (label, own, chip) in chips::read(sysfs) {
        if !own.is_empty() {
            sink.sample(CHIP_NAMES, &[("chip", &label), ("chip_name", &own)], 1.0);
        }
        for (sensor, properties) in &chip {
            let labels = [("chip", &*label), ("sensor", &**sensor)];
            let kind = sensor.trim_end_matches(|c: char| c.is_ascii_digit());
            let named = properties.get("label").map(|text| clean(text)).unwrap_or_default();
            if !named.is_empty() {
                let labels = [labels[0], ("label", &*named), labels[1]];
                sink.sample(SENSOR_LABEL, &labels, 1.0);
            }
            for (property, text) in properties {
                let Some(value) = text.parse::<f64>().ok().filter(|_| property != "label") else {
                    continue;
                };
                let (name, metric_kind, help, factor) =
                    quantity(kind, property, properties.contains_key(""));
                let metric = Metric { name: &name, kind: metric_kind, help };
                sink.sample(metric, &labels, value * factor);
            }
        }
    }
}

/// Name, type, help and factor of a sensor's property. `both`: the sensor has a file of its own beside `input`.
fn quantity(kind: &str, property: &str, both: bool) -> (String, Kind, &'static str, f64) {
    let gauge = |name: String, help, factor| (name, Kind::Gauge, help, factor);
    match kind {
        "beep_enable" => {
            return gauge("node_hwmon_beep_enabled".into(), "Hardware monitor beep enabled.", 1.0);
        }
        "vrm" => {
            return gauge(
                "node_hwmon_voltage_regulator_version".into(),
                "Hardware monitor voltage regulator.",
                1.0,
            );
        }
        "update_interval" => {
            return gauge(
                "node_hwmon_update_interval_seconds".into(),
                "Hardware monitor update interval.",
                1e-3,
            );
        }
        _ => {}
    }
    let mut name = format!("node_hwmon_{kind}");
    match property {
        // The input is the value itself.
        "input" if !both => {}
        "" => {}
        property => name = format!("{name}_{}", clean(property)),
    }
    match (kind, property) {
        (_, "fault" | "alarm") => gauge(name, "Hardware monitor fault or alarm status.", 1.0),
        (_, "beep") => {
            gauge(name + "_enabled", "Hardware monitor sensor has beeping enabled.", 1.0)
        }
        ("in" | "cpu", _) => gauge(name + "_volts", "Hardware monitor for voltage.", 1e-3),
        ("temp", property) if property != "type" => {
            gauge(name + "_celsius", "Hardware monitor for temperature.", 1e-3)
        }
        ("curr", _) => gauge(name + "_amps", "Hardware monitor for current.", 1e-3),
        ("energy", _) => {
            (name + "_joule_total", Kind::Counter, "Hardware monitor for joules used so far.", 1e-6)
        }
        ("power", "accuracy") => {
            gauge(name, "Hardware monitor power meter accuracy, as a ratio.", 1e-6)
        }
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
            gauge(name + "_seconds", "Hardware monitor power usage update interval.", 1e-3)
        }
        ("power", _) => gauge(name + "_watt", "Hardware monitor for power usage in watts.", 1e-6),
        ("humidity", _) => gauge(
            name,
            "Hardware monitor for humidity, as a ratio (multiply with 100.0 to get percents).",
            1e-6,
        ),
        ("fan", "input" | "min" | "max" | "target") => {
            gauge(name + "_rpm", "Hardware monitor for fan revolutions per minute.", 1.0)
        }
        _ => gauge(name, "Hardware monitor property, as the kernel tells it.", 1.0),
    }
}

const ZONE: Metric = Metric::gauge("node_thermal_zone_temp", "Zone temperature in Celsius.");
const COOLING_NOW: Metric =
    Metric::gauge("node_cooling_device_cur_state", "Current throttle state of the cooling device.");
const COOLING_MAX: Metric =
    Metric::gauge("node_cooling_device_max_state", "Maximum throttle state of the cooling device.");

fn thermal(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let folder = "sys/class/thermal";
    for name in sysfs.names(folder).into_iter().take(2 * DEVICES_MAX) {
        let Some(kind) = sysfs.line(&format!("{folder}/{name}/type")) else { continue };
        let file = |file: &str| number(sysfs, &format!("{folder}/{name}/{file}"));
        if let Some(zone) = name.strip_prefix("thermal_zone") {
            if let Some(millidegrees) = file("temp") {
                sink.sample(ZONE, &[("type", &kind), ("zone", zone)], millidegrees / 1000.0);
            }
        } else if let Some(device) = name.strip_prefix("cooling_device") {
            for (metric, name) in [(COOLING_NOW, "cur_state"), (COOLING_MAX, "max_state")] {
                if let Some(state) = file(name) {
                    sink.sample(metric, &[("name", device), ("type", &kind)], state);
                }
            }
        }
    }
}

const CORRECTABLE: Metric =
    Metric::counter("node_edac_correctable_errors_total", "Total correctable memory errors.");
const UNCORRECTABLE: Metric =
    Metric::counter("node_edac_uncorrectable_errors_total", "Total uncorrectable memory errors.");
const ROW_CORRECTABLE: Metric = Metric::counter(
    "node_edac_csrow_correctable_errors_total",
    "Total correctable memory errors for this csrow.",
);
const ROW_UNCORRECTABLE: Metric = Metric::counter(
    "node_edac_csrow_uncorrectable_errors_total",
    "Total uncorrectable memory errors for this csrow.",
);

fn memory_errors(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let folder = "sys/devices/system/edac/mc";
    for controller in sysfs.numbered(folder, "mc") {
        let path = format!("{folder}/mc{controller}");
        let controller = controller.to_string();
        let of = ("controller", &*controller);
        let mut tell = |metric: Metric, labels: &[(&str, &str)], file: &str| {
            if let Some(errors) = number(sysfs, file) {
                sink.sample(metric, labels, errors);
            }
        };
        tell(CORRECTABLE, &[of], &format!("{path}/ce_count"));
        tell(UNCORRECTABLE, &[of], &format!("{path}/ue_count"));
        let unknown = [of, ("csrow", "unknown")];
        tell(ROW_CORRECTABLE, &unknown, &format!("{path}/ce_noinfo_count"));
        tell(ROW_UNCORRECTABLE, &unknown, &format!("{path}/ue_noinfo_count"));
        for row in sysfs.numbered(&path, "csrow") {
            let number = row.to_string();
            let labels = [of, ("csrow", &*number)];
            tell(ROW_CORRECTABLE, &labels, &format!("{path}/csrow{row}/ce_count"));
            tell(ROW_UNCORRECTABLE, &labels, &format!("{path}/csrow{row}/ue_count"));
        }
    }
}

/// `package-0` is the metric `node_rapl_package_joules_total` with the index 0; zones of one name without a number
/// are counted. It starts again at 0 when the hardware's counter is full.
fn energy(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let folder = "sys/class/powercap";
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for zone in sysfs.names(folder).into_iter().take(DEVICES_MAX) {
        let Some(full) = sysfs.line(&format!("{folder}/{zone}/name")) else { continue };
        let split = full.split_once('-').filter(|(_, index)| index.parse::<u32>().is_ok());
        let (name, index) = match split {
            Some((name, index)) => (name, index.to_owned()),
            None => {
                let count = counts.entry(full.clone()).or_default();
                *count += 1;
                (&*full, (*count - 1).to_string())
            }
        };
        // Root only, since it tells what the machine computes.
        let Some(microjoules) = number(sysfs, &format!("{folder}/{zone}/energy_uj")) else {
            continue;
        };
        let path = PathBuf::from("/sys/class/powercap").join(&zone);
        let metric = format!("node_rapl_{}_joules_total", clean(name));
        let help = "Current RAPL value in joules.";
        let labels = [("index", &*index), ("path", &*path.to_string_lossy())];
        sink.sample(Metric::counter(&metric, help), &labels, microjoules / 1e6);
    }
}
