//! Lives beside Avahi on one machine, and understands it on another.

mod netns;
mod node;

use netns::{Bridge, Netns, Process};
use node::{FABRIC, id, is_found, is_lost, start};
use std::process::{Command, Stdio};

/// Avahi in a namespace, with its own /run and its own D-Bus.
struct Avahi {
    daemon: Process,
    _bus: Process,
}

impl Avahi {
    fn start(netns: &Netns, host_name: &str) -> Self {
        let mut bus = netns.command("unshare");
        bus.args(["--mount", "sh", "-c"]).arg(
            "mount -t tmpfs tmpfs /run && mkdir /run/dbus && echo private && \
             exec dbus-daemon --system --nofork --nopidfile --print-address",
        );
        let mut bus = Process::spawn(bus);
        bus.wait_for("D-Bus listens", |line| line.starts_with("unix:"));

        let folder = std::env::temp_dir().join(format!("{}-{host_name}", netns.name()));
        let settings = folder.with_extension("conf");
        std::fs::write(
            &settings,
            format!("[server]\nhost-name={host_name}\nuse-ipv4=yes\nuse-ipv6=yes\n[publish]\npublish-workstation=no\n"),
        )
        .expect("a file for Avahi's settings");
        let mut daemon = inside(&bus, "avahi-daemon");
        daemon.arg("--file").arg(&settings);
        daemon.args(["--no-drop-root", "--no-chroot", "--no-rlimits"]).stderr(Stdio::null());
        let avahi = Self { daemon: Process::spawn(daemon), _bus: bus };
        netns::wait_until("Avahi answers", || {
            let asked = avahi.command("avahi-browse").args(["-apt"]).output().ok()?;
            asked.status.success().then_some(())
        });
        let _ = std::fs::remove_file(settings);
        avahi
    }

    /// A command that reaches this Avahi.
    fn command(&self, program: &str) -> Command {
        inside(&self.daemon, program)
    }
}

/// A command in the mount and network namespaces of `process`.
fn inside(process: &Process, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--net", "--target", &process.pid().to_string(), program]);
    command
}

#[test]
fn avahi_shows_our_nodes_and_we_find_what_it_publishes() {
    let programs =
        ["avahi-daemon", "avahi-browse", "avahi-publish", "dbus-daemon", "unshare", "nsenter"];
    if !netns::can_run(&programs) {
        return;
    }
    let bridge = Bridge::new("lan");
    let places = [Netns::new("weft"), Netns::new("avahi")];
    for (number, place) in (1..).zip(&places) {
        bridge.connect(place, "eth0");
        place.exec(&format!("ip addr add 10.77.0.{number}/24 dev eth0"));
    }
    // One Avahi shares the port with a node, the other has a machine for itself.
    let beside = Avahi::start(&places[0], "twin");
    let apart = Avahi::start(&places[1], "apart");
    let mut node = start(&places[0], 1, &["--fabric", FABRIC]);

    let node_text = format!("\"node={}\"", id(1));
    for avahi in [&apart, &beside] {
        let shown = netns::wait_until("avahi-browse shows the node", || {
            let output =
                avahi.command("avahi-browse").args(["-rpt", "_weft._udp"]).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            let resolved = |line: &&str| line.starts_with('=') && line.contains(";IPv4;");
            text.lines().find(resolved).map(str::to_owned)
        });
        // = ; interface ; protocol ; name ; type ; domain ; host ; address ; port ; text
        let fields: Vec<&str> = shown.split(';').collect();
        assert_eq!(fields[3], "twin-0101010101010101", "{shown}");
        assert_eq!(fields[4..6], ["_weft._udp", "local"], "{shown}");
        assert_eq!(fields[6..9], ["weft-0101010101010101.local", "10.77.0.1", "7001"], "{shown}");
        let texts = [node_text.as_str(), "\"v=1\"", "\"fabric=aaaaaaaaaaaaaaaa\""];
        assert!(texts.iter().all(|text| fields[9].contains(text)), "{shown}");
    }

    // Avahi keeps the machine's own name: we did not fight for it.
    let host_name =
        |avahi: &Avahi| netns::run(avahi.command("avahi-resolve").args(["-4", "-n", "twin.local"]));
    assert!(host_name(&apart).contains("10.77.0.1"), "{}", host_name(&apart));

    let texts = ["v=1".to_owned(), format!("node={}", id(2)), format!("fabric={FABRIC}")];
    for (avahi, name) in [(&apart, "by hand"), (&beside, "beside")] {
        let mut publish = avahi.command("avahi-publish");
        publish.args(["-s", name, "_weft._udp", "7002"]).args(&texts).stderr(Stdio::null());
        let mut publish = Process::spawn(publish);
        let line = node.wait_for("it finds what Avahi publishes", |line| {
            is_found(line, 2, FABRIC, "10.77.0.") && line.contains(":7002")
        });
        assert!(line.contains(&name.replace(' ', "\\032")) || line.contains(name), "{line}");
        publish.terminate();
        node.wait_for("it hears Avahi's goodbye", |line| is_lost(line, 2));
    }

    assert!(node.terminate().success());
    netns::wait_until("Avahi hears our goodbye", || {
        let output = apart.command("avahi-browse").args(["-pt", "_weft._udp"]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        (!text.contains("twin-0101010101010101")).then_some(())
    });
}
