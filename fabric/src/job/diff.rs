//! What changes between two specs, line by line, in the words of the job file.

use serde_json::Value;
use std::collections::BTreeMap;

use super::{JobSpec, parse_bytes};
use crate::api::SpecChange;
use crate::resources;

/// Where a spec is called otherwise in JSON than in the job file. A path that is not here is the same
/// in both, so that a new field shows up by itself.
const RENAMED: [(&str, &str); 8] = [
    ("kind", "type"),
    ("resources.cpu.exclusive.cores", "resources.cores"),
    ("resources.cpu.exclusive.smt", "resources.smt"),
    ("resources.cpu.shared.hard", "resources.cpu_hard"),
    ("health.check.http.path", "health.http"),
    ("health.check.http.port", "health.port"),
    ("health.check.tcp.port", "health.port"),
    ("health.check.command.command", "health.command"),
];

impl JobSpec {
    /// What differs, by path. Without a spec `before`, everything that `after` says. What is empty or
    /// absent is not said.
    pub fn changes(before: Option<&JobSpec>, after: &JobSpec) -> Vec<SpecChange> {
        let before = before.map(lines).unwrap_or_default();
        let after = lines(after);
        let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
        paths.sort();
        paths.dedup();
        paths
            .into_iter()
            .filter(|path| before.get(*path) != after.get(*path))
            .map(|path| SpecChange {
                path: path.clone(),
                before: before.get(path).map(Value::to_string),
                after: after.get(path).map(Value::to_string),
            })
            .collect()
    }
}

/// Every line of a spec: its path in the job file, and what it says.
fn lines(spec: &JobSpec) -> BTreeMap<String, Value> {
    let spec = serde_json::to_value(spec).expect("a spec is JSON");
    let mut lines = BTreeMap::new();
    flatten(String::new(), spec, &mut lines);
    if lines.contains_key("health.check.tcp.port") {
        lines.insert("health.tcp".into(), Value::from(true));
    }
    lines.into_iter().map(|(path, value)| in_job_file(path, value)).collect()
}

fn flatten(path: String, value: Value, lines: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                flatten(path, value, lines);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, value) in items.into_iter().enumerate() {
                flatten(format!("{path}[{index}]"), value, lines);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        value => {
            lines.insert(path, value);
        }
    }
}

fn in_job_file(path: String, value: Value) -> (String, Value) {
    let number = value.as_u64();
    if path == "resources.cpu.shared.millis" {
        let cpus = number.map_or(value, |millis| Value::from(millis as f64 / 1000.0));
        return ("resources.cpu".into(), cpus);
    }
    if ["resources.memory", "resources.swap", "resources.disk"].contains(&&*path) {
        return (path, number.map_or(value, size));
    }
    if let Some(kib) =
        path.strip_prefix("resources.hugepages.").and_then(|kib| kib.parse::<u64>().ok())
    {
        return (format!("resources.hugepages.{}", resources::bytes(kib * 1024)), value);
    }
    if let Some(rest) = path.strip_prefix("ports[") {
        return (format!("port[{}", rest.replace(".fixed", ".static")), value);
    }
    match RENAMED.iter().find(|(json, _)| *json == path) {
        Some((_, name)) => ((*name).into(), value),
        None => (path, value),
    }
}

/// `"64MiB"` where that is exact, else the number of bytes.
fn size(bytes: u64) -> Value {
    let text = resources::bytes(bytes);
    if parse_bytes(&text) == Some(bytes) { Value::from(text) } else { Value::from(bytes) }
}

#[cfg(test)]
mod tests;
