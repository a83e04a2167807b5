//! Results: a table for people, a file for programs, in the form of `make bench`.

use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The lower value.
    Lower,
    /// The higher value.
    Higher,
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What, and in which world: `spread/10000 nodes`.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// What it should be at worst.
    pub budget: Option<f64>,
    /// Which way is better.
    pub better: Better,
}

/// Everything that was measured, in order.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// The figures.
    pub figures: Vec<Figure>,
}

impl Results {
    /// Takes note of a figure, and prints it.
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str, budget: Option<f64>) {
        let better = if unit == "1/s" { Better::Higher } else { Better::Lower };
        println!("  {name}: {} {unit}", shown(value));
        self.figures.push(Figure { name: name.to_owned(), value, unit, budget, better });
    }

    /// The value of a figure.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// Takes in what the bench of placements printed: one object a line.
    ///
    /// # Errors
    /// When the file cannot be read, or a line of it is not what the bench prints.
    pub fn read_placements(&mut self, path: &Path) -> io::Result<()> {
        let wrong = |line: &str| io::Error::other(format!("{}: {line}", path.display()));
        for line in std::fs::read_to_string(path)?.lines().filter(|line| line.starts_with('{')) {
            let object: Value = serde_json::from_str(line)?;
            let (Some(name), Some(value)) = (object["name"].as_str(), object["value"].as_f64())
            else {
                return Err(wrong(line));
            };
            let budget = match name {
                "placements/shared/5000 nodes" => Some(50_000.0),
                "placements/pinned/5000 nodes" | "placements/device/5000 nodes" => Some(20_000.0),
                _ => None,
            };
            self.add(name, value, "1/s", budget);
        }
        Ok(())
    }

    /// Adds figures of an earlier run, printed one object a line.
    ///
    /// # Errors
    /// When a file cannot be read or is not of that form.
    pub fn read(&mut self, path: &Path) -> io::Result<()> {
        let array: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        for object in array {
            let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
            let units = ["1/s", "s", "B/s", "B", "us", "us/s", "MiB", "KiB", "ns", "%", "1"];
            let unit = units.into_iter().find(|unit| *unit == text("unit")).unwrap_or("1");
            self.figures.push(Figure {
                name: text("name"),
                value: object["value"].as_f64().unwrap_or_default(),
                unit,
                budget: object["budget"].as_f64(),
                better: if text("better") == "higher" { Better::Higher } else { Better::Lower },
            });
        }
        Ok(())
    }

    /// The table.
    pub fn table(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        for Figure { name, value, unit, budget, better } in &self.figures {
            let met = match (better, budget) {
                (_, None) => "",
                (Better::Lower, Some(budget)) if value <= budget => "met",
                (Better::Higher, Some(budget)) if value >= budget => "met",
                _ => "NOT MET",
            };
            let budget = budget.map(|it| format!("{} {unit}", shown(it))).unwrap_or_default();
            let value = format!("{} {unit}", shown(*value));
            let _ = writeln!(text, "{name:width$}  {value:>14}  {budget:>12}  {met}");
        }
        text
    }

    /// What is worse than its budget by more than a tenth, by name.
    pub fn missed(&self) -> Vec<&str> {
        let is_missed = |figure: &&Figure| match (&figure.better, figure.budget) {
            (_, None) => false,
            (Better::Lower, Some(budget)) => figure.value > budget * 1.1,
            (Better::Higher, Some(budget)) => figure.value < budget / 1.1,
        };
        self.figures.iter().filter(is_missed).map(|figure| figure.name.as_str()).collect()
    }

    /// Writes the file for programs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let rows = self.figures.iter().map(|Figure { name, value, unit, budget, better }| {
            let better = if *better == Better::Lower { "lower" } else { "higher" };
            json!({ "name": name, "value": value, "unit": unit, "budget": budget, "better": better })
        });
        let rows: Vec<Value> = rows.collect();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(&rows)? + "\n")
    }
}

/// Three digits that mean something.
pub fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
