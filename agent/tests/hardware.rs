//! Real agents in network namespaces, asked what each other's machine is made of. What they say is set beside the kernel's
//! files, as a shell in the machine itself reads them.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::api::{Hardware, ProblemKind};
use std::collections::{BTreeMap, BTreeSet};
use testbed::{Lab, Machine};

/// As no processor is called.
const PROCESSOR: &str = "Processor of Another Machine";

/// What a machine is made of, asked of another one's agent.
fn ask(asked: &Machine, name: &str) -> Hardware {
    asked.get(&format!("/v1/nodes/{name}/hardware"))
}

/// Lines of two words that a shell in the machine says.
fn pairs(machine: &Machine, script: &str) -> BTreeMap<String, String> {
    let said = machine.shell(script);
    let pairs = said.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// Sets an answer beside the kernel's files. Returns how many things were compared.
fn compare(machine: &Machine, told: &Hardware) -> usize {
    let disks = pairs(
        machine,
        "for disk in /sys/block/*; do [ ! -e $disk/device ] || echo ${disk##*/} $(cat $disk/size); done",
    );
    let ours: BTreeMap<String, String> =
        told.disks.iter().map(|disk| (disk.name.clone(), (disk.bytes / 512).to_string())).collect();
    assert_eq!(ours, disks, "disks, and their sectors");
    let pci = pairs(
        machine,
        "for device in /sys/bus/pci/devices/*; do [ ! -e $device/vendor ] || \
         echo ${device##*/} $(cat $device/vendor $device/device); done",
    );
    let ours: BTreeMap<String, String> = told
        .pci
        .iter()
        .map(|device| (device.address.clone(), format!("0x{}", device.id.replace(':', " 0x"))))
        .collect();
    assert_eq!(ours, pci, "devices on PCI, with vendor and product");
    let drivers = pairs(
        machine,
        "for device in /sys/bus/pci/devices/*; do [ ! -e $device/driver ] || \
         echo ${device##*/} $(basename $(readlink $device/driver)); done",
    );
    let driven = told.pci.iter().filter_map(|one| Some((one.address.clone(), one.driver.clone()?)));
    assert_eq!(driven.collect::<BTreeMap<_, _>>(), drivers, "who drives them");
    let interfaces = pairs(
        machine,
        "for one in /sys/class/net/*; do [ ! -e $one/device ] || echo ${one##*/} $(cat $one/address); done",
    );
    let ours: BTreeMap<String, String> = told
        .interfaces
        .iter()
        .map(|one| (one.name.clone(), one.address.clone().unwrap_or_default()))
        .collect();
    assert_eq!(ours, interfaces, "interfaces with hardware, and their addresses");
    let sensors = machine.shell(
        "ls -d /sys/class/hwmon/*/*_input /sys/class/hwmon/*/device/*_input 2>/dev/null | wc -l",
    );
    let inputs = sensors.trim().parse::<usize>().expect("a number");
    assert_eq!(inputs == 0, told.sensors.is_empty(), "{inputs} sensors: {:?}", told.sensors);
    let file = |path: &str| {
        let said = machine.shell(&format!("cat {path} 2>/dev/null || true"));
        Some(said.trim().to_owned()).filter(|text| !text.is_empty())
    };
    assert_eq!(told.microcode, file("/sys/devices/system/cpu/cpu0/microcode/version"));
    let product = file("/sys/class/dmi/id/product_name");
    assert!(
        product.as_ref().is_none_or(|name| told.machine.as_ref().is_some_and(|m| m.contains(name))),
        "{product:?}: {:?}",
        told.machine
    );
    disks.len() + pci.len() + drivers.len() + interfaces.len()
}

/// What the kernel itself calls the processor.
fn processor(machine: &Machine) -> Option<String> {
    let said = machine.shell("sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1");
    Some(said.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The same, as a person asks: `weft node n2 --hardware`, typed on another machine.
fn typed(machine: &Machine, told: &Hardware) {
    // Built beside the agent when the whole workspace is tested.
    let weft = testbed::weftd().with_file_name("weft");
    if !weft.exists() {
        eprintln!("skipped: needs {}: cargo build --workspace", weft.display());
        return;
    }
    let run = |more: &[&str]| {
        let mut command = machine.command(&weft);
        command.arg("--socket").arg(machine.socket()).args(["node", "n2", "--hardware"]).args(more);
        testbed::netns::run(&mut command)
    };
    let shown = run(&[]);
    assert!(shown.contains(PROCESSOR), "{shown}");
    for disk in &told.disks {
        assert!(shown.lines().any(|line| line.starts_with(&disk.name)), "{}: {shown}", disk.name);
    }
    for device in &told.pci {
        let line = shown.lines().find(|line| line.starts_with(&device.address));
        assert!(line.is_some_and(|line| line.contains(&device.id)), "{device:?}: {shown}");
    }
    let json: Hardware = serde_json::from_str(&run(&["--json"])).expect("the API's own words");
    assert_eq!(&json, told);
}

#[test]
fn any_node_tells_what_another_ones_machine_is_made_of() {
    let Some(lab) = Lab::new("hardware") else { return };
    let mut machines = lab.fabric_with(2, |machine| {
        if machine.name == "n2" {
            // Namespaces share the hardware: so one machine is told that its processor is another.
            machine.shell(&format!(
                "{{ echo 'model name : {PROCESSOR}'; grep -v '^model name' /proc/cpuinfo; }} >/srv/cpuinfo \
                 && mount --bind /srv/cpuinfo /proc/cpuinfo"
            ));
        }
    });
    let (first, second) = (&machines[0], &machines[1]);
    assert_eq!(processor(second).as_deref(), Some(PROCESSOR), "the machine itself sees it so");
    assert_ne!(processor(first).as_deref(), Some(PROCESSOR));

    let of_itself = ask(second, "n2");
    let from_afar = ask(first, "n2");
    assert_eq!(from_afar, of_itself, "the answer is the same, whoever is asked");
    assert_eq!(from_afar.processor.as_deref(), Some(PROCESSOR), "it is the second machine's");
    let compared = compare(second, &from_afar);
    println!("{compared} things of the second machine are as the kernel has them");
    assert!(compared > 0, "this machine has neither disks nor buses: nothing was compared");

    typed(first, &from_afar);

    // And the other way round, by a part of its key.
    let id =
        first.nodes().into_iter().find(|node| node.name == "n1").expect("a row").id.to_string();
    let of_first = ask(second, &id[..8]);
    compare(first, &of_first);
    assert_eq!(of_first.processor.is_some(), processor(first).is_some());
    assert_ne!(of_first.processor, from_afar.processor, "they are not the same machine");

    let unknown = first.try_get::<Hardware>("/v1/nodes/nobody/hardware").unwrap_err().problem();
    assert_eq!(unknown.kind, ProblemKind::NotFound, "{unknown}");

    // A machine that is off tells nothing, and nobody makes something up for it.
    machines[1].power_off();
    let first = &machines[0];
    let off = first.try_get::<Hardware>("/v1/nodes/n2/hardware").unwrap_err().problem();
    assert_eq!(off.kind, ProblemKind::Unreachable, "{off}");
    first.wait_alive(1);
    let dead = first.try_get::<Hardware>("/v1/nodes/n2/hardware").unwrap_err().problem();
    assert_eq!(dead.kind, ProblemKind::Unreachable, "{dead}");
    compare(first, &ask(first, "n1"));
}

/// What is counted beside the buses: see `docs/METRICS.md`.
#[test]
fn what_the_processor_does_not_count_is_told_and_has_no_series() {
    let Some(lab) = Lab::new("counters") else { return };
    if !lab.has_cgroups() {
        eprintln!("skipped: without cgroups there is nothing to count by");
        return;
    }
    let machines = lab.fabric_with(2, |machine| {
        machine.metrics = format!("probes = []\ncounters = {}", machine.name == "n1");
    });
    machines[0].submit(&testbed::job(
        "sleeper",
        2,
        "[resources]\ncpu = 0.1\n[placement]\nspread = \"name\"",
    ));
    machines[0].wait_healthy("sleeper");
    let query = |expression: &str| -> Vec<serde_json::Value> {
        let path = format!("/api/v1/query?query={expression}");
        let text = testbed::api::text(&machines[0].socket(), &path).expect("an answer");
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        answer["data"]["result"].as_array().expect("series").clone()
    };
    let series = |expression: &str| -> BTreeSet<String> {
        query(expression).iter().map(|one| one["metric"].to_string()).collect()
    };
    let told = machines[0].wait("tells how its counters are", || {
        let found = series("weft_probe_info%7Bprobe=%22counters%22%7D");
        (found.len() == 2).then_some(found)
    });
    let of = |node: &str| told.iter().find(|one| one.contains(&format!("\"node\":\"{node}\"")));
    assert!(of("n2").expect("a row").contains("\"status\":\"off\""), "{told:?}");
    let findings: serde_json::Value = machines[0].get("/v1/doctor");
    let hardware =
        findings.as_array().expect("findings").iter().find(|one| one["check"] == "hardware");
    let hardware = hardware.expect("it speaks of hardware");
    println!("doctor: {hardware}");
    let message = hardware["message"].as_str().expect("a text");
    let line =
        message.split("; ").find(|part| part.starts_with("counters: ")).expect("of counters");
    if of("n1").expect("a row").contains("\"status\":\"running\"") {
        machines[0].wait("counts instructions of the job", || {
            let found = series("weft_unit_instructions_total");
            found.iter().any(|one| one.contains("\"job\":\"sleeper\"")).then_some(())
        });
        return;
    }
    assert!(of("n1").expect("a row").contains("\"status\":\"unsupported\""), "{told:?}");
    assert!(line.starts_with("counters: unsupported: ") && line.len() > 40, "{line}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let healthy = now.expect("a clock that is set").as_secs_f64();
    machines[0].wait("has looked at its allocations since", || {
        let rows = query("timestamp(weft_probe_info%7Bprobe=%22counters%22,node=%22n1%22%7D)");
        let looked = rows.first()?["value"][1].as_str()?.parse::<f64>().ok()?;
        (looked > healthy).then_some(())
    });
    for name in ["weft_unit_instructions_total", "weft_unit_cycles_total"] {
        assert_eq!(series(name), BTreeSet::new(), "not measured is not zero");
    }
}
