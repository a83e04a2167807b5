//! Agents of different levels beside each other: three real ones, taken up one after the other under load, and one of them
//! back. Prints what ran on through it. `make test-upgrade`.

// A test waits for the real thing.
#![allow(clippy::disallowed_methods)]

mod testbed;

use fabric::level::{LEVEL, LEVEL_MIN, Leveled};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use testbed::{Lab, Machine, job, shown};

/// The main processes of the job on each machine.
fn processes(machines: &[Machine]) -> BTreeMap<String, Vec<u32>> {
    machines.iter().map(|machine| (machine.name.clone(), machine.processes_of("kept"))).collect()
}

/// Ends the agent as a package upgrade does, and starts it at another level.
fn take_to(machine: &mut Machine, level: u8) {
    machine.end_agent();
    machine.level = level;
    machine.start_agent();
}

fn levels(machines: &[Machine]) -> Vec<u8> {
    machines.iter().map(|machine| machine.fabric_status().level).collect()
}

/// All that is in a state directory, by name: files, and rows and notes of the store, which notes in its head that it was opened.
fn kept(state: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut kept = BTreeMap::new();
    for file in std::fs::read_dir(state).expect("a folder").map(|file| file.expect("a file")) {
        let name = file.file_name().into_string().expect("a name");
        if name == "store.redb" {
            let store = redb::Database::open(file.path()).expect("a store");
            let read = store.begin_read().expect("it can be read");
            let rows = read.open_table(TableDefinition::<&[u8], &[u8]>::new("rows"));
            for row in rows.expect("rows").iter().expect("rows") {
                let (key, value) = row.expect("a row");
                kept.insert(format!("row {:?}", key.value()), value.value().to_vec());
            }
            let notes = read.open_table(TableDefinition::<&str, &[u8]>::new("notes"));
            for note in notes.expect("notes").iter().expect("notes") {
                let (name, value) = note.expect("a note");
                kept.insert(format!("note {}", name.value()), value.value().to_vec());
            }
        } else if file.file_type().expect("a kind").is_file() {
            kept.insert(name, std::fs::read(file.path()).expect("a file"));
        }
    }
    kept
}

#[test]
fn agents_are_upgraded_one_after_the_other_under_load_and_one_goes_back() {
    let Some(lab) = Lab::new("upgrade") else { return };
    let old = LEVEL - 1;
    assert!(old >= LEVEL_MIN);
    let mut machines = lab.fabric_with(3, |machine| machine.level = old);
    machines[0].submit(&job("kept", 6, ""));
    machines[1].wait_healthy("kept");
    let before = processes(&machines);
    assert_eq!(before.values().map(Vec::len).sum::<usize>(), 6, "{before:?}");
    assert_eq!(levels(&machines), [old; 3]);
    let mut newer = job("newer", 1, "");
    newer.resources.disk = 1 << 20;
    assert_eq!(newer.level(), LEVEL, "a job that only the newest agents can read");

    // Load: jobs come and go at the first machine that answers, all the time.
    let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
    let (socket, others) = (machines[0].socket(), [machines[1].socket(), machines[2].socket()]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sockets = [&socket, &others[0], &others[1]];
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let name = format!("load-{}", number % 5);
                let path = format!("/v1/jobs/{name}");
                let body = serde_json::to_string(&job(&name, 1, ""));
                let body = body.expect("it has a JSON form");
                let put = sockets.iter().any(|socket| {
                    let answer: Result<serde_json::Value, _> =
                        testbed::api::call(socket, "PUT", &path, Some(&body));
                    answer.is_ok()
                });
                std::thread::sleep(Duration::from_millis(100));
                let gone = sockets.iter().any(|socket| {
                    let answer: Result<serde_json::Value, _> =
                        testbed::api::call(socket, "DELETE", &path, None);
                    answer.is_ok()
                });
                done.fetch_add(u32::from(put && gone), Ordering::Relaxed);
                number += 1;
            }
        });
        // Whatever fails in here ends the load, too.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (index, level, rest) in [
                (0, LEVEL, "one new, two old"),
                (1, LEVEL, "two new, one old"),
                (1, old, "one of them back"),
                (1, LEVEL, "and again"),
            ] {
                take_to(&mut machines[index], level);
                machines[0].wait_alive(3);
                machines[2].wait_healthy("kept");
                assert_eq!(processes(&machines), before, "{rest}");
                assert_eq!(levels(&machines), [old; 3], "{rest}");
                // What an old agent cannot read is refused by a new one, and says by whom it is held back.
                let refused = machines[0]
                    .tell::<serde_json::Value>("PUT", "/v1/jobs/newer", &newer)
                    .expect_err("old agents are there");
                assert!(refused.to_string().contains("upgrade "), "{refused}");
                println!("{rest}: 6 of 6 ran on");
            }
            take_to(&mut machines[2], LEVEL);
            machines[0].wait("the fabric is at the new level", || {
                (levels(&machines) == [LEVEL; 3]).then_some(())
            });
            machines[0].submit(&newer);
            machines[2].wait_healthy("newer");
            assert_eq!(processes(&machines), before, "all new");
            println!("all new: 6 of 6 ran on; what only they can read is taken");
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    let done = done.load(Ordering::Relaxed);
    println!("meanwhile {done} jobs were submitted and stopped");
    assert!(done > 0);

    // Now one that goes back is told so, and nothing is changed in its state directory.
    machines[2].end_agent();
    machines[2].level = old;
    let (folder, handover) = (machines[2].state.clone(), machines[2].handover());
    let untouched = (kept(&folder), std::fs::read(&handover).ok());
    assert!(untouched.1.is_some(), "the agent keeps something for the next one");
    // The agent, and what the shipped service does after its end.
    for (what, mut command) in
        [("start", machines[2].agent_command()), ("farewell", machines[2].farewell_command())]
    {
        let output = command.output().expect("the program starts");
        assert_eq!(output.status.code(), Some(1), "{what}: {}", shown(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&format!("is of a fabric of level {LEVEL}")), "{said}");
        assert!(said.contains("nothing was changed"), "{said}");
        let now = (kept(&folder), std::fs::read(&handover).ok());
        for (name, before) in &untouched.0 {
            assert!(now.0.get(name) == Some(before), "{what}: {name} was changed");
        }
        assert!(now == untouched, "{what}: something was added, or what was kept was taken");
    }
    assert_eq!(processes(&machines), before, "its units run on");
    println!("back after that: refused, in words, with nothing changed");
    machines[2].level = LEVEL;
    machines[2].start_agent();
    machines[0].wait_alive(3);
    assert_eq!(processes(&machines), before);
}
