//! Users and groups by `/etc/passwd` and `/etc/group`.
//!
//! Read directly rather than through the C library, whose lookup may load plugins and ask the network
//! in the middle of the event loop. A user that only a directory service knows appears by number.

use std::io::{BufRead, BufReader};

/// Lines looked at: bounds the time on a machine with a very long list.
const LINES_MAX: usize = 10_000;

/// The group's number.
pub fn group_id(name: &str) -> Option<u32> {
    let number = find("/etc/group", |fields| fields.first() == Some(&name), 2)?;
    number.parse().ok()
}

/// The user's name, or `uid N`.
pub fn user_name(uid: u32) -> String {
    let number = uid.to_string();
    find("/etc/passwd", |fields| fields.get(2) == Some(&number.as_str()), 0)
        .unwrap_or_else(|| format!("uid {uid}"))
}

/// Field `wanted` of the first line that `fits`.
fn find(path: &str, fits: impl Fn(&[&str]) -> bool, wanted: usize) -> Option<String> {
    let lines = BufReader::new(std::fs::File::open(path).ok()?).lines();
    lines.take(LINES_MAX).map_while(Result::ok).find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        if fits(&fields) { fields.get(wanted).map(|field| (*field).to_owned()) } else { None }
    })
}
