//! Chips of hwmon, and how metrics name them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::files::Files;

/// So many are read.
const CHIPS_MAX: usize = 512;

/// Words that a sensor's file can begin with (Documentation/hwmon/sysfs-interface.rst).
const SENSORS: [&str; 13] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
];

/// Sensors of one chip: by name (`temp1`), then by property (`input`, `crit`; empty for the sensor itself).
pub type Chip = BTreeMap<String, BTreeMap<String, String>>;

/// Chips: the label that node_exporter gives it, its own name, its sensors.
pub fn read(files: &Files) -> Vec<(String, String, Chip)> {
    let folder = "sys/class/hwmon";
    let names = files.names(folder).into_iter().take(CHIPS_MAX);
    let chips = names.map(|name| {
        let place = files.path(&format!("{folder}/{name}"));
        let own = clean(&line(&place.join("name")).unwrap_or_default());
        let mut chip = Chip::new();
        // Older drivers have their files one folder below.
        for place in [place.clone(), place.join("device")] {
            read_sensors(&place, &mut chip);
        }
        (chip_label(&place, &own), own, chip)
    });
    chips.filter(|(_, _, chip)| !chip.is_empty()).collect()
}

/// A chip is called by the bus and the name of its device, or by its own name, or by its folder.
fn chip_label(place: &Path, own: &str) -> String {
    if let Ok(device) = std::fs::canonicalize(place.join("device")) {
        let part = |path: Option<&Path>| {
            clean(&path.and_then(Path::file_name).unwrap_or_default().to_string_lossy())
        };
        let (name, bus) = (part(Some(&device)), part(device.parent()));
        match (&*bus, &*name) {
            (_, "") => {}
            ("", name) => return name.to_owned(),
            (bus, name) => return format!("{bus}_{name}"),
        }
    }
    if !own.is_empty() {
        return own.to_owned();
    }
    clean(&place.file_name().unwrap_or_default().to_string_lossy())
}

fn read_sensors(folder: &Path, chip: &mut Chip) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(file) = entry.file_name().into_string() else { continue };
        let Some((sensor, property)) = split(&file) else { continue };
        if !entry.path().is_file() {
            continue;
        }
        if let Some(value) = line(&entry.path()) {
            chip.entry(sensor).or_default().insert(property.to_owned(), value);
        }
    }
}

/// `temp1_crit_alarm` is the sensor `temp1` and the property `crit_alarm`.
fn split(file: &str) -> Option<(String, &str)> {
    // The longest fit: beep_enable is no property of a sensor.
    let kind = SENSORS.iter().find(|kind| {
        file.strip_prefix(**kind).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(|c: char| c == '_' || c.is_ascii_digit())
        })
    })?;
    let rest = &file[kind.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, property) = rest.split_at(digits);
    match (property.is_empty(), property.strip_prefix('_')) {
        (true, _) => Some((format!("{kind}{number}"), "")),
        (_, Some(property)) => Some((format!("{kind}{number}"), property)),
        _ => None,
    }
}

/// A text as a part of a metric's name: as node_exporter does it, in small letters, with underscores for what is not
/// allowed in names.
pub fn clean(text: &str) -> String {
    let kept = |byte: char| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == ':';
    let small = text.to_ascii_lowercase();
    let clean: String = small.chars().map(|c| if kept(c) { c } else { '_' }).collect();
    clean.trim_matches('_').to_owned()
}

fn line(path: &Path) -> Option<String> {
    // A sensor that does not answer is an error of reading: no value.
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
