//! Runs the example `browse` as a node in a namespace.
#![allow(dead_code)]

use crate::netns::{Netns, Process};
use std::path::PathBuf;

/// Hash of the key of one fabric, and of another.
pub const FABRIC: &str = "aaaaaaaaaaaaaaaa";
pub const OTHER_FABRIC: &str = "bbbbbbbbbbbbbbbb";

/// The id of node `number`: differs at both ends.
pub fn id(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

/// The example's executable, which cargo builds beside the tests.
pub fn browse() -> PathBuf {
    let mut path = std::env::current_exe().expect("this test's path");
    path.pop();
    path.pop();
    path.push("examples/browse");
    assert!(path.is_file(), "{} is missing: cargo build --examples", path.display());
    path
}

/// Starts node `number` in `netns`, listening at port 7000 + number. All have one machine name.
pub fn start(netns: &Netns, number: u8, arguments: &[&str]) -> Process {
    let mut command = netns.command(browse());
    command.args(["--node", &id(number), "--machine", "twin"]);
    command.args(["--port", &(7000 + u16::from(number)).to_string()]).args(arguments);
    let mut process = Process::spawn(command);
    process.wait_for("the node is ready", |line| line == "ready");
    process
}

/// Whether `line` says that node `number` was found at `address`, in that fabric.
pub fn is_found(line: &str, number: u8, fabric: &str, address: &str) -> bool {
    let words: Vec<&str> = line.splitn(6, ' ').collect();
    match words.as_slice() {
        ["found", _, node, its_fabric, addresses, _] => {
            *node == id(number)
                && *its_fabric == fabric
                && addresses.split(',').any(|one| one.starts_with(address))
        }
        _ => false,
    }
}

/// Whether `line` says that node `number` is not announced any more.
pub fn is_lost(line: &str, number: u8) -> bool {
    line.starts_with("lost ") && line.contains(&id(number))
}
