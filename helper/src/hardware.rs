//! What the machine is made of, for people: what is on its buses, and what its firmware says of it.
//!
//! What work is placed by is the agent's own; this is what a person goes to the rack with.

use std::path::Path;

use fabric::api::{BusDevice, Disk, Hardware, Interface, Sensor};

use crate::files::Files;

pub mod chips;

/// Of each kind, so many are listed.
const LISTED_MAX: usize = 512;
/// Bytes of what the kernel counts in sectors, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// Base classes of PCI (PCI Code and ID Assignment 1.15, section 1), by number.
const PCI_CLASSES: [&str; 20] = [
    "unclassified",
    "storage",
    "network",
    "display",
    "multimedia",
    "memory",
    "bridge",
    "communication",
    "system",
    "input",
    "docking station",
    "processor",
    "serial bus",
    "wireless",
    "intelligent I/O",
    "satellite",
    "encryption",
    "signal processing",
    "accelerator",
    "instrumentation",
];

/// Classes of USB (defined class codes of usb.org).
const USB_CLASSES: [(&str, &str); 11] = [
    ("00", "of its interfaces"),
    ("01", "audio"),
    ("02", "communication"),
    ("03", "input"),
    ("06", "image"),
    ("07", "printer"),
    ("08", "storage"),
    ("09", "hub"),
    ("0e", "video"),
    ("e0", "wireless"),
    ("ef", "miscellaneous"),
];

/// Types of cases that say where a machine is (SMBIOS 3.6, section 7.4.1).
const CHASSIS: [(&str, &str); 11] = [
    ("1", "other"),
    ("3", "desktop"),
    ("7", "tower"),
    ("9", "laptop"),
    ("10", "notebook"),
    ("17", "main server chassis"),
    ("23", "rack mount"),
    ("28", "blade"),
    ("34", "embedded"),
    ("35", "mini PC"),
    ("36", "stick PC"),
];

/// Reads it. Blocks.
pub fn read(files: &Files) -> Hardware {
    let dmi =
        |file: &str| files.line(&format!("sys/class/dmi/id/{file}")).filter(|text| is_told(text));
    // Texts of the device tree end with a zero.
    let tree = |file: &str| {
        let text = files.line(&format!("proc/device-tree/{file}"))?;
        Some(text.trim_end_matches('\0').to_owned()).filter(|text| !text.is_empty())
    };
    let joined = |files: &[&str]| {
        let words: Vec<String> = files.iter().filter_map(|file| dmi(file)).collect();
        Some(words.join(" ")).filter(|text| !text.is_empty())
    };
    let chassis = dmi("chassis_type");
    let chassis = chassis.and_then(|number| named(&CHASSIS, &number));
    Hardware {
        machine: joined(&["sys_vendor", "product_name", "product_version"])
            .or_else(|| tree("model")),
        serial: dmi("product_serial").or_else(|| tree("serial-number")),
        board: joined(&["board_vendor", "board_name", "board_version"]),
        chassis,
        firmware: joined(&["bios_vendor", "bios_version", "bios_date"]),
        boot: boot(files),
        processor: processor(files),
        microcode: files.line("sys/devices/system/cpu/cpu0/microcode/version"),
        pci: pci(files),
        usb: usb(files),
        disks: disks(files),
        interfaces: interfaces(files),
        sensors: sensors(files),
    }
}

/// What makers leave in a field that they were to fill in.
fn is_told(text: &str) -> bool {
    let empty = [
        "to be filled by o.e.m.",
        "default string",
        "not specified",
        "system serial number",
        "none",
    ];
    !empty.contains(&text.to_ascii_lowercase().as_str())
}

fn named(list: &[(&str, &str)], number: &str) -> Option<String> {
    list.iter().find(|(this, _)| *this == number).map(|(_, name)| (*name).to_owned())
}

fn boot(files: &Files) -> Option<String> {
    let there = |path: &str| files.path(path).exists();
    let word = match () {
        () if there("sys/firmware/efi") => "uefi",
        () if there("proc/device-tree") => "device-tree",
        () if there("sys/class/dmi/id") => "bios",
        () => return None,
    };
    Some(word.to_owned())
}

/// x86 says `model name`, arm64 nothing but numbers, RISC-V `uarch`.
fn processor(files: &Files) -> Option<String> {
    let text = files.text("proc/cpuinfo")?;
    let field = |wanted: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == wanted).then(|| value.trim().to_owned())
        })
    };
    let parts =
        || Some(format!("implementer {} part {}", field("CPU implementer")?, field("CPU part")?));
    field("model name").or_else(|| field("uarch")).or_else(parts)
}

fn pci(files: &Files) -> Vec<BusDevice> {
    let folder = "sys/bus/pci/devices";
    let names = files.names(folder).into_iter().take(LISTED_MAX);
    let devices = names.filter_map(|address| {
        let place = format!("{folder}/{address}");
        let number = |file: &str| {
            Some(files.line(&format!("{place}/{file}"))?.trim_start_matches("0x").to_owned())
        };
        let class =
            number("class").and_then(|digits| usize::from_str_radix(digits.get(..2)?, 16).ok());
        let class = class.and_then(|class| PCI_CLASSES.get(class)).unwrap_or(&"other");
        Some(BusDevice {
            id: format!("{}:{}", number("vendor")?, number("device")?),
            class: (*class).to_owned(),
            name: None,
            driver: link(&files.path(&format!("{place}/driver"))),
            // -1: it does not matter.
            numa: files.line(&format!("{place}/numa_node")).and_then(|node| node.parse().ok()),
            address,
        })
    });
    devices.collect()
}

fn usb(files: &Files) -> Vec<BusDevice> {
    let folder = "sys/bus/usb/devices";
    let names = files.names(folder).into_iter().take(LISTED_MAX);
    // Interfaces are listed beside their devices; only the device itself has the numbers.
    let devices = names.filter_map(|address| {
        let file = |file: &str| files.line(&format!("{folder}/{address}/{file}"));
        let words: Vec<String> = ["manufacturer", "product"].into_iter().filter_map(file).collect();
        Some(BusDevice {
            id: format!("{}:{}", file("idVendor")?, file("idProduct")?),
            class: file("bDeviceClass")
                .and_then(|number| named(&USB_CLASSES, &number))
                .unwrap_or_else(|| "other".into()),
            name: Some(words.join(" ")).filter(|name| !name.is_empty()),
            driver: link(&files.path(&format!("{folder}/{address}/driver"))),
            numa: None,
            address,
        })
    });
    devices.collect()
}

/// A disk without a device is made of something else: a partition, a file, memory.
fn disks(files: &Files) -> Vec<Disk> {
    let names = files.names("sys/block").into_iter().take(LISTED_MAX);
    let disks = names.filter_map(|name| {
        let folder = format!("sys/block/{name}");
        if !files.path(&format!("{folder}/device")).exists() {
            return None;
        }
        let file = |file: &str| files.line(&format!("{folder}/{file}"));
        let first = |files: &[&str]| files.iter().find_map(|name| file(name));
        let sectors = file("size")?.parse::<u64>().ok()?;
        Some(Disk {
            bytes: sectors.saturating_mul(SECTOR_BYTES),
            model: file("device/model"),
            serial: first(&["device/serial", "serial"]),
            firmware: first(&["device/firmware_rev", "device/rev"]),
            rotational: file("queue/rotational").map(|text| text == "1"),
            removable: file("removable").is_some_and(|text| text == "1"),
            name,
        })
    });
    disks.collect()
}

fn interfaces(files: &Files) -> Vec<Interface> {
    let names = files.names("sys/class/net").into_iter().take(LISTED_MAX);
    let interfaces = names.filter_map(|name| {
        let folder = format!("sys/class/net/{name}");
        let device = link(&files.path(&format!("{folder}/device")))?;
        let file = |file: &str| files.line(&format!("{folder}/{file}"));
        Some(Interface {
            address: file("address"),
            driver: link(&files.path(&format!("{folder}/device/driver"))),
            device: Some(device),
            // -1, or no answer at all: no link.
            megabits: file("speed").and_then(|text| text.parse().ok()),
            mtu: file("mtu").and_then(|text| text.parse().ok()),
            state: file("operstate"),
            name,
        })
    });
    interfaces.collect()
}

fn sensors(files: &Files) -> Vec<Sensor> {
    let mut sensors = Vec::new();
    for (chip, _, of_chip) in chips::read(files) {
        for (sensor, properties) in of_chip {
            if properties.contains_key("input") || properties.contains_key("average") {
                let label = properties.get("label").cloned();
                sensors.push(Sensor { chip: chip.clone(), sensor, label });
            }
        }
    }
    sensors.truncate(LISTED_MAX);
    sensors
}

/// The last part of where a link leads.
fn link(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
