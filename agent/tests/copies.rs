//! Two machines with one key: a card that was copied, and a state directory that was carried elsewhere.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::api::{Finding, FindingLevel, NodeState};
use std::process::Stdio;
use std::time::Duration;
use testbed::netns::wait_until;
use testbed::{Lab, Machine, job, shown};

/// Longer than a node that hears nobody takes to give the others' work away.
const LONG_ENOUGH: Duration = Duration::from_secs(12);

#[test]
fn a_copied_card_is_noticed_by_all_sides_and_the_original_comes_back() {
    let Some(lab) = Lab::new("copy") else { return };
    let mut machines = lab.fabric(3);
    // Between two starts of the original, so that the copy is whole.
    machines[1].kill_agent();
    let mut copy = lab.machine("n2");
    copy_state(&machines[1], &copy);
    machines[1].start_agent();
    for machine in &machines {
        machine.wait_alive(3);
    }
    machines[0].submit(&job("steady", 3, "[placement]\nspread = [\"name\"]"));
    for machine in &machines {
        machine.wait_healthy("steady");
    }
    let ran = machines[1].processes_of("steady");
    assert_eq!(ran.len(), 1);
    copy.start_agent();

    machines[0].wait("names both machines", || {
        let warnings = machines[0].status().warnings;
        warnings.iter().any(|it| it.starts_with("two machines use the key of n2: ")).then_some(())
    });
    println!("n1 says: {:?}", machines[0].status().warnings);
    let findings: Vec<Finding> = machines[0].get("/v1/doctor");
    let finding = findings.iter().find(|finding| finding.check == "identity");
    assert!(finding.is_some_and(|it| it.level == FindingLevel::Error), "{findings:?}");
    assert_eq!(machines[0].log().matches("two machines use the key").count(), 1, "it is said once");
    let says = |machine: &Machine, what: &str| {
        machine.wait(what, || {
            machine.status().warnings.iter().any(|text| text.contains(what)).then_some(())
        });
    };
    says(&machines[1], "the others listen to that one");
    says(&copy, "this one and one at");

    let late = job("late", 1, "");
    let refused = machines[1].tell::<serde_json::Value>("PUT", "/v1/jobs/late", &late);
    let refused = refused.expect_err("nobody would hear of it").to_string();
    assert!(refused.contains("another machine uses the key of this node"), "{refused}");

    // The original hears nobody, and takes nobody's work over.
    std::thread::sleep(LONG_ENOUGH);
    println!("n2 says: {:?}", machines[1].status().warnings);
    println!("its copy says: {:?}", copy.status().warnings);
    assert_eq!(machines[1].processes_of("steady"), ran, "it runs on, and starts nothing");

    copy.power_off();
    machines[0].wait("hears the original again", || {
        let nodes = machines[0].nodes();
        let alive = nodes.iter().filter(|node| node.state == NodeState::Alive);
        let alive: Vec<&str> = alive.map(|node| node.name.as_str()).collect();
        (alive == ["n1", "n2", "n3"]).then_some(())
    });
    for machine in &machines {
        machine.wait_alive(3);
        machine.wait_healthy("steady");
        machine.wait("has nothing to complain of", || {
            machine.status().warnings.is_empty().then_some(())
        });
    }
    wait_until("exactly three run", || {
        let running: usize = machines.iter().map(|it| it.processes_of("steady").len()).sum();
        (running == 3).then_some(())
    });
}

#[test]
fn a_backup_with_an_old_start_is_heard_again() {
    let Some(lab) = Lab::new("backup") else { return };
    let mut machines = lab.fabric(2);
    let generation = machines[1].state.join("generation");
    machines[1].kill_agent();
    // The others have heard a later start: of a clock that was wrong, or from before the backup was restored.
    std::fs::write(&generation, "99000000000000\n").expect("written");
    machines[1].start_agent();
    machines[0].wait_alive(2);
    machines[1].kill_agent();
    std::fs::remove_file(&generation).expect("it was there");
    machines[1].start_agent();
    machines[1].wait("says why nobody listens", || {
        machines[1].status().warnings.iter().any(|it| it.contains("listen to")).then_some(())
    });
    for machine in &machines {
        machine.wait_alive(2);
        machine.wait("has nothing to complain of", || {
            machine.status().warnings.is_empty().then_some(())
        });
    }
    let now = std::fs::read_to_string(&generation).expect("it is there");
    assert!(now.trim().parse::<u64>().expect("a number") > 99_000_000_000_000, "{now}");
}

#[test]
fn a_state_directory_of_another_machine_is_refused_until_somebody_says_that_it_moved() {
    let Some(lab) = Lab::new("moved") else { return };
    let mut machines = lab.fabric(2);
    let mut old = machines.pop().expect("two");
    old.kill_agent();
    let mut new = lab.machine("new");
    copy_state(&old, &new);
    old.power_off();
    let other = lab.folder().join("machine-id");
    std::fs::write(&other, "00112233445566778899aabbccddeeff\n").expect("written");
    new.shell(&format!("mount --bind {} /etc/machine-id", other.display()));
    let hardware =
        "ls /sys/class/dmi/id /sys/firmware/devicetree/base/serial-number 2>/dev/null; true";
    if !new.shell(hardware).is_empty() {
        println!("skipped: the hardware says that it is the same machine");
        return;
    }
    let before = new.shell(&format!("cd {} && sha256sum $(find . -type f)", new.state.display()));
    let mut agent = new.agent_command();
    let ended = agent.stdin(Stdio::null()).output().expect("it runs");
    let said = shown(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("belongs to another machine (machine-id differs)"), "{said}");
    let after = new.shell(&format!("cd {} && sha256sum $(find . -type f)", new.state.display()));
    assert_eq!(before, after, "nothing was changed");

    std::fs::remove_file(new.state.join("machine")).expect("as it was told");
    new.start_agent();
    new.wait_alive(2);
}

fn copy_state(from: &Machine, to: &Machine) {
    let (from, to) = (from.state.display(), to.state.display());
    let mut copy = std::process::Command::new("cp");
    testbed::netns::run(copy.arg("-a").arg(from.to_string()).arg(to.to_string()));
}
