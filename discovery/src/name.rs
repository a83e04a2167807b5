//! The names under which a node is announced.
//!
//! Both carry the first digits of the node's id, so that two nodes of one host name do not clash,
//! and so that our host name is never the one that Avahi or resolved answers for.

use crate::limits;

/// The service's type: weft's agents speak their own protocols over UDP.
pub const SERVICE: &str = "_weft._udp";
/// The service's type on the link.
pub const SERVICE_LOCAL: &str = "_weft._udp.local.";

/// The instance's label: `<machine>-<first digits of the id>`, in lower case.
///
/// `machine` may be any text; what cannot stand in a host name becomes a dash.
pub fn instance(machine: &str, node: &str) -> String {
    let short = short(node);
    let mut label = String::with_capacity(limits::MACHINE_BYTES_MAX);
    let first_label = machine.split('.').next().unwrap_or_default();
    for char in first_label.chars().take(limits::MACHINE_BYTES_MAX) {
        let fine = char.is_ascii_alphanumeric();
        if fine {
            label.push(char.to_ascii_lowercase());
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    let label = label.trim_end_matches('-');
    if label.is_empty() { format!("node-{short}") } else { format!("{label}-{short}") }
}

/// The host name on the link: `weft-<first digits of the id>.local.`
pub fn host(node: &str) -> String {
    format!("weft-{}.local.", short(node))
}

fn short(node: &str) -> &str {
    node.get(..limits::SHORT_DIGITS).unwrap_or(node)
}

#[cfg(test)]
mod tests;
