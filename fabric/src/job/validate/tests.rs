use super::*;
use crate::id::JobName;
use crate::job::{Port, TaskFile};
use crate::signature::{SIGNATURE_BYTES, Signature};

fn spec() -> JobSpec {
    let mut spec = JobSpec::service(
        JobName::new("web").unwrap(),
        vec!["/bin/a".into(), "${port.http}".into()],
    );
    spec.ports.push(Port { name: "http".into(), fixed: None });
    spec.health = Some(Health::new(Check::Tcp { port: "http".into() }));
    spec
}

/// Specs that the job file cannot say, but JSON and peers can.
#[test]
fn a_spec_that_did_not_come_from_a_file_is_checked_as_well() {
    type Change = fn(&mut JobSpec);
    let table: [(Change, &str); 21] = [
        (|spec| spec.count = u32::MAX, "count"),
        (|spec| spec.ports.clear(), "task.command[1]"),
        (|spec| spec.ports[0].fixed = Some(0), "port[0].static"),
        (|spec| spec.ports[0].name = "a_b".into(), "port[0].name"),
        (|spec| spec.task.command = vec![], "task.command"),
        (|spec| spec.task.command.push("a\0b".into()), "task.command[2]"),
        (|spec| spec.task.command = vec!["/bin/x".into(); 257], "task.command"),
        (
            |spec| {
                let _ = spec.task.env.insert("WEFT_SLOT".into(), "".into());
            },
            "task.env.WEFT_SLOT",
        ),
        (
            |spec| {
                let _ = spec.task.env.insert("".into(), "".into());
            },
            "task.env.",
        ),
        (|spec| spec.task.user = Some("a b".into()), "task.user"),
        (|spec| spec.task.stop_timeout = Duration::MAX, "task.stop_timeout"),
        (|spec| spec.task.stop_timeout = Duration::ZERO, "task.stop_timeout"),
        (|spec| spec.task.sandbox.tasks_max = 0, "task.sandbox.tasks_max"),
        (|spec| spec.task.sandbox.writable = vec!["var".into()], "task.sandbox.writable[0]"),
        (|spec| spec.resources.memory = u64::MAX, "resources.memory"),
        (|spec| spec.resources.swap = u64::MAX, "resources.swap"),
        (|spec| spec.resources.disk = u64::MAX, "resources.disk"),
        (|spec| spec.resources.cpu = CpuRequest::Shared { millis: 0, hard: true }, "resources.cpu"),
        (
            |spec| {
                let _ = spec.resources.hugepages.insert(2048, 0);
            },
            "resources.hugepages",
        ),
        (|spec| spec.update.deadline = spec.update.min_healthy, "update.min_healthy"),
        (
            |spec| {
                spec.health =
                    Some(Health::new(Check::Http { path: "x".into(), port: "http".into() }))
            },
            "health.http",
        ),
    ];
    assert_eq!(spec().validate(), Ok(()));
    for (change, path) in table {
        let mut spec = spec();
        change(&mut spec);
        let error = spec.validate().expect_err(path);
        assert_eq!(error.path, path, "{error}");
    }
}

#[test]
fn device_requests_are_a_class_a_bus_identity_or_a_path() {
    for device in
        ["gpu", "usb", "net", "usb:1a86:7523", "pci:10de:2204", "/dev/ttyUSB0", "/dev/snd/pcm0"]
    {
        assert!(is_device_request(device), "{device}");
    }
    for device in [
        "",
        "GPU",
        "usb:1a86",
        "usb:1a86:7523:1",
        "scsi:1a86:7523",
        "usb:1A86:7523",
        "/dev/",
        "/dev/../etc/passwd",
        "/etc/passwd",
        "/dev/a\n",
    ] {
        assert!(!is_device_request(device), "{device}");
    }
}

/// An entry of the table holds the spec in force and the one to go back to.
#[test]
fn the_largest_spec_fits_an_entry_twice() {
    use crate::clock::WallTime;
    use crate::id::NodeId;
    use crate::stamp::HybridClock;
    use crate::table::{Entry, JobEntry, Key, Previous, Value};

    let mut spec = spec();
    let overhead = postcard::to_stdvec(&spec).unwrap().len() + 64;
    spec.task.files.push(TaskFile {
        path: "/a".into(),
        content: "x".repeat(limits::JOB_FILE_BYTES_MAX - overhead),
    });
    spec.validate().unwrap();
    let previous = Previous { spec: spec.clone(), version: u64::MAX, generation: u32::MAX };
    let job = JobEntry {
        spec: spec.clone(),
        version: u64::MAX,
        generation: u32::MAX,
        previous: Some(Box::new(previous)),
        reverted: true,
        by: "x".repeat(1000),
    };
    let entry = Entry {
        key: Key::Job(spec.name.clone()),
        stamp: HybridClock::new(NodeId([1; 32]), 0).tick(WallTime(1)),
        value: Value::Job(Box::new(job)),
        signature: Some(Signature::new([0xff; SIGNATURE_BYTES])),
    };
    assert_eq!(Entry::decode(&entry.encode()), Ok(entry));

    spec.task.files[0].content.push_str(&"x".repeat(64));
    assert_eq!(spec.validate().unwrap_err().path, "task.files");
}
