//! Recorded machines: see [`recorded`].

use super::share::ShareError;
use super::*;
use fabric::topology::Device;

fn two_sockets() -> (tempfile::TempDir, Sysfs) {
    recorded(include_str!("fixtures/two-sockets.txt"))
}

fn board() -> (tempfile::TempDir, Sysfs) {
    recorded(include_str!("fixtures/board.txt"))
}

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

fn core(package: u16, numa: u16, cache: u16, list: &str) -> Core {
    Core { package, numa, cache, cpus: cpus(list) }
}

const MIB: u64 = 1 << 20;

#[test]
fn two_sockets_have_siblings_caches_and_memory_nodes() {
    let (_folder, sysfs) = two_sockets();
    let topology = sysfs.read().unwrap();
    assert_eq!(
        topology.cores,
        [core(0, 0, 0, "0,4"), core(0, 0, 0, "1,5"), core(1, 1, 1, "2,6"), core(1, 1, 1, "3")],
        "CPU 7 is offline"
    );
    assert_eq!((topology.arch.as_str(), topology.kernel.as_str()), ("x86_64", "6.1.0-18-amd64"));
    assert_eq!(topology.os, "debian 12");
    // 512 MiB of node 0 are in its pool of huge pages.
    assert_eq!(topology.memory, (8192 - 512) * MIB);
    assert_eq!(
        topology.numa,
        [NumaNode { id: 0, memory: (4096 - 512) * MIB }, NumaNode { id: 1, memory: 4096 * MIB }]
    );
    assert_eq!(topology.hugepages, [HugepagePool { size_kib: 2048, numa: 0, count: 256 }]);
}

#[test]
fn devices_are_listed_once_with_their_hardware_and_memory_node() {
    let (_folder, sysfs) = two_sockets();
    let device = |path: &str, class: &str, hardware: &str, numa| Device {
        path: path.into(),
        class: class.into(),
        hardware: Some(hardware.into()),
        numa,
    };
    assert_eq!(
        sysfs.read().unwrap().devices,
        [
            device("/dev/dri/renderD128", "gpu", "pci:10de:2204", Some(1)),
            device("/dev/ttyUSB0", "tty", "usb:1a86:7523", None),
            device("/dev/bus/usb/001/003", "usb", "usb:0781:5581", None),
        ],
        "no hub, no serial adapter twice, no camera without a node"
    );
}

#[test]
fn a_board_without_memory_nodes_is_one_node() {
    let (_folder, sysfs) = board();
    let topology = sysfs.read().unwrap();
    assert_eq!(
        topology.cores,
        [core(0, 0, 0, "0"), core(0, 0, 0, "1")],
        "CPU 2 is offline, CPU 3 outside the agent's affinity"
    );
    assert_eq!(topology.memory, 512 * MIB, "the limit of the agent's cgroup is lower");
    assert_eq!(topology.numa, [NumaNode { id: 0, memory: 512 * MIB }]);
    assert_eq!(topology.os, "alpine");
    assert_eq!(topology.hugepages, [HugepagePool { size_kib: 2048, numa: 0, count: 16 }]);
    assert_eq!(
        topology.devices,
        [Device { path: "/dev/ttyACM0".into(), class: "tty".into(), hardware: None, numa: None }]
    );
}

#[test]
fn a_limit_of_version_two_holds_at_any_level() {
    let (folder, sysfs) = two_sockets();
    let limit = folder.path().join("sys/fs/cgroup/system.slice/memory.max");
    std::fs::write(limit, "1073741824\n").unwrap();
    let topology = sysfs.read().unwrap();
    assert_eq!(topology.memory, 1024 * MIB);
    let on_nodes: u64 = topology.numa.iter().map(|node| node.memory).sum();
    assert!(on_nodes <= topology.memory && on_nodes >= topology.memory - 2, "{on_nodes}");
}

#[test]
fn a_machine_without_cpus_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Sysfs::at(folder.path()).read().is_err());
}

#[test]
fn cpus_that_the_agent_keeps_itself_off_are_there_all_the_same() {
    let (_folder, sysfs) = board();
    let topology = sysfs.giving_up(cpus("2-3")).read().unwrap();
    let all: Vec<_> = topology.cores.iter().map(|core| core.cpus.to_string()).collect();
    assert_eq!(all, ["0", "1", "3"], "CPU 2 is offline");
}

#[test]
fn this_machine_can_be_read() {
    let topology = Sysfs::default().read().unwrap();
    let mut all = CpuSet::new();
    topology.cores.iter().for_each(|core| all.insert_all(&core.cpus));
    assert_eq!(all, crate::process::affinity(0).unwrap());
    assert!(topology.memory > 0 && !topology.kernel.is_empty() && !topology.os.is_empty());
    assert!(topology.numa.iter().map(|node| node.memory).sum::<u64>() <= topology.memory);
}

#[test]
fn by_default_the_system_keeps_the_first_core_and_some_memory() {
    let (_folder, sysfs) = two_sockets();
    let machine = sysfs.read().unwrap();
    let topology = narrow(machine.clone(), &Share::default()).unwrap();
    assert_eq!(topology.housekeeping, cpus("0,4"));
    assert_eq!(topology.cores, machine.cores[1..]);
    assert_eq!(topology.memory, machine.memory - machine.memory / 20);
    assert_eq!(topology.ports, (20_000, 31_999));
    assert_eq!(topology.devices.len(), 3);

    let (_folder, sysfs) = board();
    let topology = narrow(sysfs.read().unwrap(), &Share::default()).unwrap();
    assert!(topology.housekeeping.is_empty(), "two cores are too few to keep one back");
    assert_eq!(topology.memory, (512 - 64) * MIB);
}

#[test]
fn a_share_cuts_cores_memory_devices_and_ports() {
    let (_folder, sysfs) = two_sockets();
    let share: Share = toml::from_str(
        "cpus = \"1-3,6\"\nmemory = 1073741824\nhousekeeping = \"3\"\n\
         ports = \"4000-4009\"\ndevices = [\"gpu\", \"usb:0781:5581\"]",
    )
    .unwrap();
    let topology = narrow(sysfs.read().unwrap(), &share).unwrap();
    assert_eq!(
        topology.cores,
        [core(0, 0, 0, "1"), core(1, 1, 1, "2,6")],
        "half of a core is left"
    );
    assert_eq!(topology.housekeeping, cpus("3"));
    assert_eq!((topology.memory, topology.ports), (1024 * MIB, (4000, 4009)));
    assert!(topology.numa.iter().map(|node| node.memory).sum::<u64>() <= 1024 * MIB);
    let paths: Vec<&str> = topology.devices.iter().map(|device| device.path.as_str()).collect();
    assert_eq!(paths, ["/dev/dri/renderD128", "/dev/bus/usb/001/003"]);
    let none: Share = toml::from_str("devices = []\nhousekeeping = \"\"").unwrap();
    let topology = narrow(sysfs.read().unwrap(), &none).unwrap();
    assert!(topology.devices.is_empty() && topology.housekeeping.is_empty());
}

#[test]
fn a_share_of_what_is_not_there_is_refused() {
    let (_folder, sysfs) = two_sockets();
    let machine = sysfs.read().unwrap();
    let refused = |share: Share| narrow(machine.clone(), &share).unwrap_err();
    let error = refused(Share { cpus: Some(cpus("6-7")), ..Share::default() });
    assert_eq!(error, ShareError::NoSuchCpus { wanted: cpus("6-7"), present: cpus("0-6") });
    assert!(matches!(
        refused(Share { cpus: Some(cpus("")), ..Share::default() }),
        ShareError::NoSuchCpus { .. }
    ));
    let all = Share { cpus: Some(cpus("1")), housekeeping: Some(cpus("0-6")), ..Share::default() };
    assert!(matches!(refused(all), ShareError::NothingLeft { .. }));
    let memory = Share { memory: Some(1 << 40), ..Share::default() };
    assert!(matches!(refused(memory), ShareError::TooMuchMemory { .. }));
    let ports = Share { ports: Some((9, 8)), ..Share::default() };
    assert_eq!(refused(ports), ShareError::Ports(9, 8));
    for bad in ["cpu = \"1\"", "cpus = \"x\"", "ports = \"80\"", "memory = \"lots\"", "memory = -1"]
    {
        assert!(toml::from_str::<Share>(bad).is_err(), "{bad}");
    }
}
