//! Finds nodes through a DNS server, and through seeds that it knows the names of.

mod netns;
mod node;

use netns::{Netns, Process};
use node::{FABRIC, OTHER_FABRIC, browse, id, is_found, is_lost};
use std::path::{Path, PathBuf};

/// A name server on the namespace's loopback that knows the nodes of the domain `rack.test`.
fn name_server(netns: &Netns, nodes: &[(u8, &str)]) -> Process {
    let mut command = netns.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"]);
    command.args(["--no-resolv", "--no-hosts", "--listen-address=127.0.0.1", "--bind-interfaces"]);
    command.args(["--local=/test/", "--host-record=seed.test,10.9.9.9", "--log-facility=-"]);
    for (number, fabric) in nodes {
        let (host, service) = (format!("n{number}.rack.test"), "_weft._udp.rack.test");
        let instance = format!("node{number}.{service}");
        command.arg(format!("--ptr-record={service},{instance}"));
        command.arg(format!("--srv-host={instance},{host},700{number}"));
        command.arg(format!("--txt-record={instance},v=1,node={},fabric={fabric}", id(*number)));
        command.arg(format!("--host-record={host},10.9.0.{number},2001:db8::{number}"));
    }
    let server = Process::spawn(command);
    netns::wait_until("the name server listens", || {
        netns.exec("cat /proc/net/udp").contains("0100007F:0035").then_some(())
    });
    server
}

/// A file with the address of that server, removed at the end.
struct ResolvConf(PathBuf);

impl ResolvConf {
    fn new(netns: &Netns) -> Self {
        let path = std::env::temp_dir().join(format!("{}-resolv.conf", netns.name()));
        std::fs::write(&path, "nameserver 127.0.0.1\n").expect("a file for resolv.conf");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Starts node 9, which sees the file `resolv_conf` as /etc/resolv.conf.
fn start(netns: &Netns, resolv_conf: &Path, arguments: &[&str]) -> Process {
    let mut command = netns.command("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"");
    command.arg(resolv_conf).arg(browse()).args(["--node", &id(9), "--port", "7009"]);
    command.args(["--fabric", FABRIC, "--no-mdns"]).args(arguments);
    let mut process = Process::spawn(command);
    process.wait_for("the node is ready", |line| line == "ready");
    process
}

#[test]
fn a_domain_lists_nodes_that_come_and_go() {
    if !netns::can_run(&["dnsmasq", "unshare"]) {
        return;
    }
    let netns = Netns::new("dns");
    let resolv_conf = ResolvConf::new(&netns);
    let ours_and_others = [(1, FABRIC), (2, FABRIC), (3, OTHER_FABRIC), (9, FABRIC)];
    let mut server = name_server(&netns, &ours_and_others);
    let mut node = start(&netns, resolv_conf.path(), &["--domain", "rack.test"]);
    for (number, addresses) in
        [(1, "10.9.0.1:7001,[2001:db8::1]:7001"), (2, "10.9.0.2:7002,[2001:db8::2]:7002")]
    {
        netns::wait_until("the domain's nodes are found", || {
            let found = |line: &&String| {
                is_found(line, number, FABRIC, "10.9.0.")
                    && line.starts_with("found dns ")
                    && line.contains(&format!(" {addresses} "))
            };
            node.seen().iter().find(found).map(|_| ())
        });
    }
    // The server restarts, and one node is gone from its zone, another is new.
    server.terminate();
    let _server = name_server(&netns, &[(2, FABRIC), (4, FABRIC)]);
    node.wait_for("the removed node is lost", |line| is_lost(line, 1));
    node.wait_for("the new node is found", |line| is_found(line, 4, FABRIC, "10.9.0.4:7004"));
    for line in node.seen() {
        assert!(!is_lost(line, 2), "a server that is down loses nobody: {line}");
        assert!(!line.contains(&id(3)), "of another fabric: {line}");
        assert!(!line.contains(&id(9)), "a node is not told about itself: {line}");
    }
}

#[test]
fn seeds_are_found_by_address_and_by_name() {
    if !netns::can_run(&["dnsmasq", "unshare"]) {
        return;
    }
    let netns = Netns::new("seeds");
    let resolv_conf = ResolvConf::new(&netns);
    let seeds =
        ["--seed", "10.1.2.3:7001", "--seed", "seed.test:7002", "--seed", "[fe80::5%lo]:7003"];
    let mut node = start(&netns, resolv_conf.path(), &seeds);
    let expected = [
        "found seed - - 10.1.2.3:7001 10.1.2.3:7001",
        "found seed - - [fe80::5%1]:7003 [fe80::5%lo]:7003",
        // Nobody answers for this one at first.
        "found seed - - 10.9.9.9:7002 seed.test:7002",
    ];
    let mut server = None;
    for line in expected {
        if line.contains("seed.test") {
            server = Some(name_server(&netns, &[]));
        }
        netns::wait_until(line, || node.seen().iter().find(|seen| *seen == line).map(|_| ()));
    }
    drop(server);
}
