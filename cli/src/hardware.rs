//! `weft node NODE --hardware`.

use fabric::api::{BusDevice, Hardware};
use fabric::resources::bytes;

use crate::exit::{Exit, Failure};
use crate::screen::{Cell, Table};
use crate::{Context, nodes};

/// What a node is made of.
pub async fn show(context: &Context, wanted: &str) -> Result<Exit, Failure> {
    let node = nodes::find(context, wanted).await?;
    let path = format!("/v1/nodes/{}/hardware", node.id);
    let hardware: Hardware = context.client.get(&path).await?;
    if context.screen.is_json() {
        context.screen.json(&hardware)?;
        return Ok(Exit::Ok);
    }
    let fields = [
        ("machine", &hardware.machine),
        ("serial", &hardware.serial),
        ("board", &hardware.board),
        ("chassis", &hardware.chassis),
        ("firmware", &hardware.firmware),
        ("boot", &hardware.boot),
        ("processor", &hardware.processor),
        ("microcode", &hardware.microcode),
    ];
    let fields: Vec<(&str, Cell)> =
        fields.into_iter().map(|(name, text)| (name, or_dash(text).into())).collect();
    context.screen.fields(&fields)?;
    if !hardware.disks.is_empty() {
        let mut table = Table::new(&["DISK", "SIZE", "MODEL", "SERIAL", "FIRMWARE", "KIND"]);
        for disk in &hardware.disks {
            let kind = match (disk.removable, disk.rotational) {
                (true, _) => "removable",
                (_, Some(true)) => "turning",
                (_, Some(false)) => "solid",
                (_, None) => "-",
            };
            table.row([
                disk.name.clone().into(),
                bytes(disk.bytes).into(),
                or_dash(&disk.model).into(),
                or_dash(&disk.serial).into(),
                or_dash(&disk.firmware).into(),
                kind.into(),
            ]);
        }
        part(context, &table)?;
    }
    if !hardware.interfaces.is_empty() {
        let mut table =
            Table::new(&["INTERFACE", "ADDRESS", "STATE", "MBIT/S", "MTU", "DRIVER", "DEVICE"]);
        let number = |number: Option<u32>| number.map_or("-".into(), |number| number.to_string());
        for interface in &hardware.interfaces {
            table.row([
                interface.name.clone().into(),
                or_dash(&interface.address).into(),
                or_dash(&interface.state).into(),
                number(interface.megabits).into(),
                number(interface.mtu).into(),
                or_dash(&interface.driver).into(),
                or_dash(&interface.device).into(),
            ]);
        }
        part(context, &table)?;
    }
    bus(context, "PCI", &hardware.pci)?;
    bus(context, "USB", &hardware.usb)?;
    if !hardware.sensors.is_empty() {
        let mut table = Table::new(&["CHIP", "SENSOR", "LABEL"]);
        for sensor in &hardware.sensors {
            table.row([
                sensor.chip.clone().into(),
                sensor.sensor.clone().into(),
                or_dash(&sensor.label).into(),
            ]);
        }
        part(context, &table)?;
    }
    Ok(Exit::Ok)
}

fn bus(context: &Context, name: &str, devices: &[BusDevice]) -> Result<(), Failure> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[name, "ID", "CLASS", "DRIVER", "NUMA", "NAME"]);
    for device in devices {
        table.row([
            device.address.clone().into(),
            device.id.clone().into(),
            device.class.clone().into(),
            or_dash(&device.driver).into(),
            device.numa.map_or("-".into(), |node| node.to_string()).into(),
            or_dash(&device.name).into(),
        ]);
    }
    part(context, &table)
}

fn part(context: &Context, table: &Table) -> Result<(), Failure> {
    context.screen.data("")?;
    context.screen.table(table)
}

fn or_dash(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".into())
}
