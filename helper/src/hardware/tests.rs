use super::*;
use crate::files::recorded;

#[test]
fn a_server_is_listed_down_to_its_sensors() {
    let (_folder, files) = recorded(include_str!("fixtures/server.txt"));
    let hardware = read(&files);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        hardware.machine,
        text("Maker Rack 9000"),
        "a version that nobody filled in is left out"
    );
    assert_eq!(hardware.serial, text("R-1"));
    assert_eq!(hardware.board, text("Maker X1"));
    assert_eq!(hardware.chassis, text("rack mount"));
    assert_eq!(hardware.firmware, text("Firm 1.2 03/04/2025"));
    assert_eq!((hardware.boot, hardware.microcode), (text("uefi"), text("0xf0")));
    assert_eq!(hardware.processor, text("Fast CPU @ 3GHz"));
    let nic = BusDevice {
        address: "0000:01:00.0".into(),
        id: "8086:1533".into(),
        class: "network".into(),
        name: None,
        driver: text("igb"),
        numa: Some(1),
    };
    let odd = BusDevice {
        address: "0000:02:00.0".into(),
        id: "1234:0001".into(),
        class: "other".into(),
        driver: None,
        numa: None,
        ..nic.clone()
    };
    assert_eq!(hardware.pci, [nic, odd]);
    let stick = BusDevice {
        address: "1-4".into(),
        id: "0781:5567".into(),
        class: "storage".into(),
        name: text("Stick Co Blade"),
        driver: text("usb"),
        numa: None,
    };
    assert_eq!(hardware.usb, [stick], "its interface 1-4:1.0 is no device");
    let disk = Disk {
        name: "nvme0n1".into(),
        bytes: 1_000_000 * 512,
        model: text("Fast 1TB"),
        serial: text("S1"),
        firmware: text("7.0"),
        rotational: Some(false),
        removable: false,
    };
    assert_eq!(hardware.disks, [disk], "loop0 has no device");
    let interface = Interface {
        name: "eth0".into(),
        address: text("02:fc:00:00:00:01"),
        driver: text("igb"),
        device: text("0000:01:00.0"),
        megabits: None,
        mtu: Some(1500),
        state: text("down"),
    };
    assert_eq!(hardware.interfaces, [interface], "lo has no device");
    let sensor = Sensor { chip: "board".into(), sensor: "temp1".into(), label: text("CPU 0") };
    assert_eq!(hardware.sensors, [sensor]);
}

#[test]
fn a_board_has_a_device_tree_and_an_empty_machine_has_nothing() {
    let (_folder, files) = recorded(
        "proc/device-tree/model = Pi 4\0\nproc/device-tree/serial-number = 10\0\nproc/cpuinfo = processor\\t: 0\\nCPU implementer\\t: 0x41\\nCPU part\\t: 0xd08",
    );
    let hardware = read(&files);
    assert_eq!(hardware.machine.as_deref(), Some("Pi 4"));
    assert_eq!(
        (hardware.serial.as_deref(), hardware.boot.as_deref()),
        (Some("10"), Some("device-tree"))
    );
    assert_eq!(hardware.processor.as_deref(), Some("implementer 0x41 part 0xd08"));
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(read(&Files::at(nothing.path())), Hardware::default());
}
