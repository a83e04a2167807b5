//! Devices that an allocation can hold: GPUs, accelerators, serial ports, cameras, USB devices.
//!
//! One device is listed once, as the most useful thing that it is: a USB serial adapter is the `tty`
//! `/dev/ttyUSB0` with the hardware `usb:1a86:7523`, and is found by either.

use fabric::topology::Device;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Sysfs;

/// Folder under `/sys/class`, beginning of the names, folder of the nodes, class of the device.
const CLASSES: [(&str, &str, &str, &str); 5] = [
    ("drm", "renderD", "dev/dri", "gpu"),
    ("accel", "accel", "dev/accel", "pci"),
    ("tty", "ttyUSB", "dev", "tty"),
    ("tty", "ttyACM", "dev", "tty"),
    ("video4linux", "video", "dev", "video"),
];

/// USB's own class of hubs: `bDeviceClass`.
const USB_HUB: &str = "09";

pub(super) fn read(sysfs: &Sysfs) -> Vec<Device> {
    let mut devices = Vec::new();
    let mut seen_usb = BTreeSet::new();
    for (class_folder, prefix, nodes, class) in CLASSES {
        for name in sysfs.names(&format!("sys/class/{class_folder}")) {
            let node = format!("{nodes}/{name}");
            if !name.starts_with(prefix) || !sysfs.path(&node).exists() {
                continue;
            }
            let link = sysfs.path(&format!("sys/class/{class_folder}/{name}/device"));
            let place = std::fs::canonicalize(link).ok();
            let usb = place.as_deref().and_then(usb_device);
            let hardware = match (&usb, &place) {
                (Some((_, hardware)), _) => Some(hardware.clone()),
                (None, Some(place)) => pci_hardware(place),
                (None, None) => None,
            };
            let numa = place.as_deref().and_then(numa_node);
            seen_usb.extend(usb.map(|(folder, _)| folder));
            devices.push(Device { path: format!("/{node}"), class: class.into(), hardware, numa });
        }
    }
    for name in sysfs.names("sys/bus/usb/devices") {
        let link = sysfs.path(&format!("sys/bus/usb/devices/{name}"));
        let Ok(place) = std::fs::canonicalize(link) else { continue };
        let Some((folder, hardware)) = usb_device(&place) else { continue };
        // Interfaces are listed beside their devices; only the device itself has the numbers.
        if folder != place || attribute(&place, "bDeviceClass").is_some_and(|c| c == USB_HUB) {
            continue;
        }
        let number = |file: &str| attribute(&place, file)?.parse::<u16>().ok();
        let (Some(bus), Some(device)) = (number("busnum"), number("devnum")) else { continue };
        let node = format!("dev/bus/usb/{bus:03}/{device:03}");
        if sysfs.path(&node).exists() && seen_usb.insert(folder) {
            devices.push(Device {
                path: format!("/{node}"),
                class: "usb".into(),
                hardware: Some(hardware),
                numa: numa_node(&place),
            });
        }
    }
    devices
}

fn attribute(folder: &Path, file: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(file)).ok()?;
    Some(text.trim().to_owned())
}

/// The USB device that `place` is or belongs to, and its identity.
fn usb_device(place: &Path) -> Option<(PathBuf, String)> {
    place.ancestors().find_map(|folder| {
        let vendor = attribute(folder, "idVendor")?;
        let product = attribute(folder, "idProduct")?;
        Some((folder.to_owned(), format!("usb:{vendor}:{product}")))
    })
}

fn pci_hardware(place: &Path) -> Option<String> {
    let number = |file: &str| Some(attribute(place, file)?.strip_prefix("0x")?.to_owned());
    Some(format!("pci:{}:{}", number("vendor")?, number("device")?))
}

/// The memory node of the nearest bus that says; -1 means that it does not matter.
fn numa_node(place: &Path) -> Option<u16> {
    place.ancestors().find_map(|folder| attribute(folder, "numa_node"))?.parse().ok()
}
