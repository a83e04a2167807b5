//! What a machine is made of, as it is told to people.

use serde::{Deserialize, Serialize};

/// `GET /v1/nodes/<name>/hardware`: what a node is made of. Lists are empty where there is nothing, or where the kernel
/// does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// The machine: vendor and product, or a board's model.
    pub machine: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its main board.
    pub board: Option<String>,
    /// Its case, in the words of SMBIOS (3.6, section 7.4.1).
    pub chassis: Option<String>,
    /// Vendor, version and date of its firmware.
    pub firmware: Option<String>,
    /// `uefi`, `bios` or `device-tree`; how it came up.
    pub boot: Option<String>,
    /// Name of its processors.
    pub processor: Option<String>,
    /// Version of their microcode.
    pub microcode: Option<String>,
    /// Devices on PCI.
    pub pci: Vec<BusDevice>,
    /// Devices on USB, hubs too.
    pub usb: Vec<BusDevice>,
    /// Whole disks.
    pub disks: Vec<Disk>,
    /// Network interfaces with hardware of their own.
    pub interfaces: Vec<Interface>,
    /// What can be measured: the sensors of all chips.
    pub sensors: Vec<Sensor>,
}

/// A device on a bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusDevice {
    /// Where: `0000:00:1f.2`, `1-4.2`.
    pub address: String,
    /// Vendor and product, hexadecimal: `8086:1533`.
    pub id: String,
    /// What it is, in a word or two.
    pub class: String,
    /// The name that it tells; devices on PCI tell none.
    pub name: Option<String>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The memory node that it is near to.
    pub numa: Option<u16>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// `nvme0n1`
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Version of its firmware.
    pub firmware: Option<String>,
    /// Whether it turns.
    pub rotational: Option<bool>,
    /// Whether it can be taken out.
    pub removable: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0`
    pub name: String,
    /// Its hardware address.
    pub address: Option<String>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Where its device is on its bus.
    pub device: Option<String>,
    /// Megabits a second; `null` when it has no link.
    pub megabits: Option<u32>,
    /// Bytes of the largest packet.
    pub mtu: Option<u32>,
    /// `up`, `down` and more, in the kernel's words.
    pub state: Option<String>,
}

/// A sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sensor {
    /// The chip, as the label of its metrics.
    pub chip: String,
    /// The sensor of it: `temp1`.
    pub sensor: String,
    /// What the board's maker calls it.
    pub label: Option<String>,
}
