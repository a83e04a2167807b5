//! A systemd that lists its units and does not tell all of them, on a bus of its own.

use fabric::io::{Launch, UnitEvent};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use zbus::{Connection, MessageStream, OwnedObjectPath, Variant};

use super::leased::leased;
use super::{Agent, shell, wait_until};
use crate::clock::{BootTime, Clock};
use crate::executor::Executor;
use crate::executor::bus::{Bus, path_of};
use crate::executor::mount_points::View;
use crate::executor::record::{Record, Store};
use crate::executor::systemd::Systemd;
use crate::guard::{LeaseFile, LeaseFolder, Leases, Reach};
use crate::process;

/// A bus, and what speaks as systemd on it.
struct Fake {
    daemon: std::process::Child,
    address: String,
    systemd: Arc<Mutex<Known>>,
    _folder: tempfile::TempDir,
}

/// What the fake knows, and how it answers.
#[derive(Debug, Default)]
struct Known {
    /// Units it lists, with their environment and state.
    units: BTreeMap<String, (Vec<String>, &'static str)>,
    /// Questions about units that are answered; then some that are not; then all.
    answered: usize,
    unanswered: usize,
    /// What it was asked to do.
    asked: Vec<String>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Fake {
    /// `None`, and a word aloud, where there is no bus to be had.
    fn start(runtime: &tokio::runtime::Runtime) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("bus.conf");
        let listen = format!("unix:path={}", folder.path().join("bus").display());
        let text = format!(
            "<busconfig><type>session</type><listen>{listen}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\"/><allow own=\"*\"/>\
             <allow receive_sender=\"*\"/><allow user=\"*\"/></policy></busconfig>"
        );
        std::fs::write(&config, text).unwrap();
        let daemon = std::process::Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else {
            eprintln!("skipped: no dbus-daemon");
            return None;
        };
        let mut address = String::new();
        let mut output = std::io::BufReader::new(daemon.stdout.take().unwrap());
        output.read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let systemd = Arc::<Mutex<Known>>::default();
        let known = Arc::clone(&systemd);
        runtime.block_on(async {
            let builder = zbus::connection::Builder::address(address.as_str());
            let connection = builder.build().await.unwrap();
            let calls = MessageStream::from(&connection);
            connection.request_name("org.freedesktop.systemd1").await.unwrap();
            tokio::spawn(answer(connection, calls, known));
        });
        Some(Self { daemon, address, systemd, _folder: folder })
    }

    fn agent(&self, runtime: tokio::runtime::Runtime, state: &Path) -> Agent {
        let (sender, events) = mpsc::channel(256);
        let clock = Clock::start();
        let leases = Leases::open(state.join("guard"), clock);
        let bus = Bus::new(Some(&self.address));
        let systemd = Systemd::on(bus, "252".into(), state, leases, sender).unwrap();
        Agent { runtime, executor: Executor::Systemd(systemd), events, clock }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.systemd.lock().unwrap()
    }
}

async fn answer(connection: Connection, mut calls: MessageStream, known: Arc<Mutex<Known>>) {
    while let Some(Ok(call)) = calls.next().await {
        let header = call.header();
        let member = header.member().map(|member| member.to_string()).unwrap_or_default();
        if call.message_type() != zbus::message::Type::MethodCall {
            continue;
        }
        let path = header.path().map(|path| path.to_string()).unwrap_or_default();
        let known = || known.lock().unwrap();
        let done = match member.as_str() {
            "ListUnitsByPatterns" => {
                let nowhere = OwnedObjectPath::try_from("/").unwrap();
                let rows: Vec<_> = known()
                    .units
                    .iter()
                    .map(|(unit, (_, state))| {
                        let no = String::new;
                        let there = nowhere.clone();
                        let row = (unit.clone(), no(), no(), state.to_string(), no(), no());
                        (
                            row.0,
                            row.1,
                            row.2,
                            row.3,
                            row.4,
                            row.5,
                            there,
                            0u32,
                            no(),
                            nowhere.clone(),
                        )
                    })
                    .collect();
                connection.reply(&header, &rows).await
            }
            "Get" => {
                let (_, name): (String, String) = call.body().deserialize().unwrap();
                let is_silent = {
                    let mut known = known();
                    let is_silent = known.answered == 0 && known.unanswered > 0;
                    known.unanswered -= usize::from(is_silent);
                    known.answered = known.answered.saturating_sub(1);
                    is_silent
                };
                if is_silent {
                    let error = "org.freedesktop.DBus.Error.NoReply";
                    connection.reply_error(&header, error, &"not now").await
                } else {
                    let unit = {
                        let known = known();
                        let unit = known.units.iter().find(|(unit, _)| path_of(unit) == path);
                        unit.map(|(_, unit)| unit.clone())
                    };
                    let (environment, state) = unit.unwrap_or_else(|| (Vec::new(), "inactive"));
                    let runs = state == "active";
                    let value: Variant<'_> = match name.as_str() {
                        "Environment" => environment.into(),
                        "ActiveState" => state.into(),
                        "SubState" => (if runs { "running" } else { "dead" }).into(),
                        "MainPID" => (if runs { std::process::id() } else { 0 }).into(),
                        "ExecMainCode" | "ExecMainStatus" => 0i32.into(),
                        _ => "success".into(),
                    };
                    connection.reply(&header, &value).await
                }
            }
            "StopUnit" => {
                let (unit, _): (String, String) = call.body().deserialize().unwrap();
                known().asked.push(format!("stop {unit}"));
                let job = OwnedObjectPath::try_from("/job").unwrap();
                connection.reply(&header, &job).await
            }
            _ => connection.reply(&header, &()).await,
        };
        done.unwrap();
    }
}

/// An agent before has started a unit under a lease: what it left on disk.
fn left_behind(state: &Path, launch: &Launch) {
    let store = Store::open(state, View::Machine).unwrap();
    let record = Record {
        launch: launch.clone(),
        boot: process::boot_id(),
        process: None,
        user: None,
        ended: None,
    };
    store.write(&record).unwrap();
    let reach = Reach::marked(&launch.alloc.unit(), launch.run, "somebody");
    let until = BootTime::now() + Duration::from_secs(600);
    let lease = LeaseFile::new(&process::boot_id(), launch.alloc.unit(), launch.run, until, reach);
    let folder = LeaseFolder::new(state.join("guard"));
    folder.make().unwrap();
    folder.write_lease(&lease).unwrap();
}

fn environment(state: &Path, launch: &Launch) -> Vec<String> {
    let agent = crate::hash::fnv1a(state.as_os_str().as_encoded_bytes());
    vec![format!("WEFT_AGENT={agent:016x}"), format!("WEFT_RUN={}", launch.run)]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_unit_that_systemd_lists_is_never_said_to_have_ended() {
    // Every question that adoption asks about a unit fails once; then all of them, always.
    for (answered, unanswered) in (0..7).map(|nth| (nth, 1)).chain([(0, usize::MAX)]) {
        let state = tempfile::tempdir().unwrap();
        let runtime = runtime();
        let Some(fake) = Fake::start(&runtime) else { return };
        let one = leased(shell("listed", "x"), Duration::from_secs(600), Duration::ZERO);
        let unit = one.alloc.unit();
        left_behind(state.path(), &one);
        fake.known().units.insert(unit.clone(), (environment(state.path(), &one), "active"));
        (fake.known().answered, fake.known().unanswered) = (answered, unanswered);
        let agent = fake.agent(runtime, state.path());
        let adopted = agent.runtime.block_on(agent.executor.adopt());
        if unanswered < usize::MAX {
            let found = adopted.unwrap();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(matches!(found[0].event, UnitEvent::Running { .. }), "{found:?}");
            assert!(found[0].lease_until.is_some(), "{found:?}");
        } else {
            let error = adopted.unwrap_err().to_string();
            assert!(error.contains(&unit) && error.contains("cannot be adopted"), "{error}");
        }
        let folder = agent.executor.leases().folder();
        assert!(folder.lease(&unit, &process::boot_id()).is_ok(), "its guard is not disarmed");
        let record = Store::open(state.path(), View::Machine).unwrap().read(&one.alloc).unwrap();
        assert_eq!(record.ended, None);
    }
}

#[test]
fn a_unit_whose_file_was_taken_away_is_adopted_by_its_record() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let Some(fake) = Fake::start(&runtime) else { return };
    let mut one = shell("bare", "x");
    one.run = 3;
    left_behind(state.path(), &one);
    fake.known().units.insert(one.alloc.unit(), (Vec::new(), "active"));
    let agent = fake.agent(runtime, state.path());
    let found = agent.runtime.block_on(agent.executor.adopt()).unwrap();
    assert!(matches!(found[0].event, UnitEvent::Running { .. }) && found[0].run == 3, "{found:?}");
}

#[test]
fn a_unit_that_nobody_keeps_is_gone_when_systemd_says_so() {
    let state = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let Some(fake) = Fake::start(&runtime) else { return };
    let mut agent = fake.agent(runtime, state.path());
    let one = shell("stray", "x");
    let unit = one.alloc.unit();
    fake.known().units.insert(unit.clone(), (environment(state.path(), &one), "active"));
    fake.known().unanswered = 1;
    agent.stop(&one);
    wait_until("systemd was asked", || fake.known().unanswered == 0);
    agent.stop(&one);
    wait_until("it is stopped", || fake.known().asked == [format!("stop {unit}")]);
    assert!(agent.events.try_recv().is_err(), "nothing is said while it may run");
    fake.known().units.insert(unit, (environment(state.path(), &one), "inactive"));
    agent.stop(&one);
    assert_eq!(agent.exited(&one).0, "gone");
}
