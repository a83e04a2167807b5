//! Results: a table for people, a file for programs.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Which way is better.
#[derive(Clone, Copy, Debug)]
pub enum Better {
    Lower,
    Higher,
}

impl Better {
    fn name(self) -> &'static str {
        match self {
            Better::Lower => "lower",
            Better::Higher => "higher",
        }
    }
}

/// Another program that did the same in the same run.
#[derive(Debug)]
pub struct Peer {
    pub name: String,
    pub version: String,
    pub value: f64,
}

#[derive(Debug)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    budget: Option<f64>,
    better: Better,
    peer: Option<Peer>,
}

/// Everything that was measured, in order.
#[derive(Debug, Default)]
pub struct Results {
    rows: Vec<Row>,
}

impl Results {
    pub fn add(
        &mut self,
        name: &str,
        value: f64,
        unit: &'static str,
        budget: Option<f64>,
        better: Better,
    ) {
        println!("  {name}: {} {unit}", shown(value));
        self.rows.push(Row { name: name.to_owned(), value, unit, budget, better, peer: None });
    }

    /// A peer of the last row.
    pub fn beside(&mut self, name: &str, version: &str, value: f64) {
        let row = self.rows.last_mut().expect("there is a row");
        println!("    beside {name} {version}: {} {}", shown(value), row.unit);
        row.peer = Some(Peer { name: name.to_owned(), version: version.to_owned(), value });
    }

    /// What the bench of the core printed. Its budgets are those of 5,000 nodes.
    pub fn read_placements(&mut self, path: &Path) {
        let text = std::fs::read_to_string(path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let line: Value = serde_json::from_str(line).expect("one JSON object a line");
            let name = line["name"].as_str().expect("a name");
            let value = line["value"].as_f64().expect("a value");
            let budget = match name {
                "placements/shared/5000 nodes" | "placements/pinned/5000 nodes" => Some(50_000.0),
                "placements/device/5000 nodes" => Some(20_000.0),
                _ => None,
            };
            self.add(name, value, "1/s", budget, Better::Higher);
        }
    }

    /// Prints the table.
    pub fn print(&self) {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        println!("\n{:width$}  {:>12}  {:>12}  {:8}  beside", "", "measured", "budget", "");
        for Row { name, value, unit, budget, better, peer } in &self.rows {
            let met = match (better, budget) {
                (_, None) => "",
                (Better::Lower, Some(budget)) if value <= budget => "met",
                (Better::Higher, Some(budget)) if value >= budget => "met",
                _ => "NOT MET",
            };
            let with_unit = |value: f64| format!("{} {unit}", shown(value));
            let budget = budget.map(with_unit).unwrap_or_default();
            let peer = peer
                .as_ref()
                .map(|peer| format!("{} {}: {}", peer.name, peer.version, with_unit(peer.value)));
            let (value, peer) = (with_unit(*value), peer.unwrap_or_default());
            println!("{name:width$}  {value:>12}  {budget:>12}  {met:8}  {peer}");
        }
    }

    /// What is worse than its budget by more than a tenth, by name.
    pub fn missed(&self) -> Vec<&str> {
        let is_missed = |row: &&Row| match (row.better, row.budget) {
            (_, None) => false,
            (Better::Lower, Some(budget)) => row.value > budget * 1.1,
            (Better::Higher, Some(budget)) => row.value < budget / 1.1,
        };
        self.rows.iter().filter(is_missed).map(|row| row.name.as_str()).collect()
    }

    /// Writes `bench/results.json` into the build folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self) -> std::io::Result<PathBuf> {
        let rows = self.rows.iter().map(|row| {
            let Row { name, value, unit, budget, better, peer } = row;
            let mut object = json!({
                "name": name, "value": value, "unit": unit, "budget": budget,
                "better": better.name(),
            });
            if let Some(Peer { name, version, value }) = peer {
                object["peer"] = json!({ "name": name, "version": version, "value": value });
            }
            object
        });
        let rows: Vec<Value> = rows.collect();
        // The program lies in `<build folder>/<profile>/deps`.
        let program = std::env::current_exe()?;
        let folder = program.ancestors().nth(3).unwrap_or(Path::new("target")).join("bench");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("results.json");
        std::fs::write(&path, serde_json::to_string_pretty(&rows)? + "\n")?;
        Ok(path)
    }
}

/// Three digits that mean something.
fn shown(value: f64) -> String {
    match value.abs() {
        value_abs if value_abs >= 1000.0 => format!("{value:.0}"),
        value_abs if value_abs >= 10.0 => format!("{value:.1}"),
        value_abs if value_abs >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The largest one.
pub fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
