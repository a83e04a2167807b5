//! Metrics as text, for those who scrape: OpenMetrics 1.0, or Prometheus's older format 0.0.4.
//!
//! The two differ where they must: OpenMetrics names a counter's family without `_total`, knows units and
//! the type `info`, and ends with `# EOF`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::answer::number;
use crate::evaluate::{EvaluateError, Limits, Value, instant};
use crate::labels::{Labels, NAME, is_label_name, is_metric_name};
use crate::store::{Kind, Metadata, Store};
use crate::syntax::parse;

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4, which everything reads.
    Prometheus,
}

impl Format {
    /// By an `Accept` header: OpenMetrics for those who name it.
    pub fn accepted(accept: &str) -> Self {
        let names = |part: &str| part.trim().starts_with("application/openmetrics-text");
        if accept.split(',').any(names) { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// For the answer's `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Why something cannot be written. Nothing was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpositionError {
    /// Not a metric's name, or one that was written already.
    #[error(
        "{0:?} is not a metric's name, or is there already: all samples of a metric are written together"
    )]
    Name(String),
    /// Not a label's name.
    #[error("{0:?} is not a label's name")]
    Label(String),
    /// Buckets must be in order, cumulative, and end with infinity.
    #[error("the buckets of {0} are not in order, not cumulative, or without +Inf")]
    Buckets(String),
}

/// A text in the making: one family after the other.
pub struct Exposition {
    format: Format,
    text: String,
    families: BTreeMap<String, ()>,
}

/// A metric whose samples are being written.
pub struct Family<'a> {
    exposition: &'a mut Exposition,
    name: String,
    kind: Kind,
}

impl Exposition {
    /// Empty.
    pub fn new(format: Format) -> Self {
        Exposition { format, text: String::new(), families: BTreeMap::new() }
    }

    /// Begins a metric. `name` is without `_total` and `_info`, and ends with its unit if it has one.
    pub fn family(
        &mut self,
        name: &str,
        kind: Kind,
        unit: &str,
        help: &str,
    ) -> Result<Family<'_>, ExpositionError> {
        if !is_metric_name(name) || self.families.insert(name.to_owned(), ()).is_some() {
            return Err(ExpositionError::Name(name.to_owned()));
        }
        let open = self.format == Format::OpenMetrics;
        let shown = if open { name.to_owned() } else { format!("{name}{}", suffix(kind)) };
        let kind_name = match kind {
            Kind::Info if !open => "gauge",
            Kind::Unknown if !open => "untyped",
            kind => kind.name(),
        };
        if !help.is_empty() {
            self.text += &format!("# HELP {shown} {}\n", escaped(help, open));
        }
        self.text += &format!("# TYPE {shown} {kind_name}\n");
        if open && !unit.is_empty() && name.ends_with(&format!("_{unit}")) {
            self.text += &format!("# UNIT {shown} {unit}\n");
        }
        Ok(Family { exposition: self, name: name.to_owned(), kind })
    }

    /// The text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text += "# EOF\n";
        }
        self.text
    }

    /// The newest sample of every series of a store, by what the store was told about its metrics.
    pub fn of_store(store: &Store, now_ms: i64, format: Format) -> Result<String, EvaluateError> {
        let all = parse("{__name__=~\".+\"}").map_err(|_| EvaluateError::Part)?;
        let limits = Limits { series: usize::MAX, values: u64::MAX, samples: u64::MAX };
        let Value::Vector(curves) = instant(&all, store, now_ms, limits)? else {
            return Err(EvaluateError::Part);
        };
        let mut families: BTreeMap<String, Vec<(Labels, f64)>> = BTreeMap::new();
        for curve in curves {
            let family = family_of(curve.labels.name(), store.metadata());
            families.entry(family).or_default().push((curve.labels, curve.values[0]));
        }
        let unknown = Metadata { kind: Kind::Unknown, help: String::new(), unit: String::new() };
        let mut exposition = Exposition::new(format);
        for (name, mut series) in families {
            let metadata = store.metadata().get(&*name).unwrap_or(&unknown);
            let (unit, help) = (metadata.unit.clone(), metadata.help.clone());
            series.sort_by(|left, right| {
                order(&left.0).cmp(&order(&right.0)).then(left.0.cmp(&right.0))
            });
            // Names in a store are valid, and each family comes once.
            let Ok(family) = exposition.family(&name, metadata.kind, &unit, &help) else {
                continue;
            };
            for (labels, value) in series {
                let pairs: Vec<_> = labels.iter().filter(|(label, _)| *label != NAME).collect();
                family.exposition.line(labels.name(), &pairs, value);
            }
        }
        Ok(exposition.finish())
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text += name;
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text += &format!("{label}=\"{}\"", escaped(text, true));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text += &format!(" {}\n", number(value));
    }
}

impl Family<'_> {
    /// A sample of a counter, a gauge, an info or something unknown.
    pub fn sample(
        &mut self,
        labels: &[(&str, &str)],
        value: f64,
    ) -> Result<&mut Self, ExpositionError> {
        check(labels)?;
        let name = format!("{}{}", self.name, suffix(self.kind));
        self.exposition.line(&name, labels, value);
        Ok(self)
    }

    /// A histogram: upper bounds with cumulative counts, the last one infinite; and the sum of all.
    pub fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        buckets: &[(f64, u64)],
        sum: f64,
    ) -> Result<&mut Self, ExpositionError> {
        check(labels)?;
        let ordered =
            buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let Some((_, count)) = buckets.last().filter(|last| ordered && last.0 == f64::INFINITY)
        else {
            return Err(ExpositionError::Buckets(self.name.clone()));
        };
        for (bound, count) in buckets {
            let bound = number(*bound);
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.exposition.line(&format!("{}_bucket", self.name), &labels, *count as f64);
        }
        self.exposition.line(&format!("{}_sum", self.name), labels, sum);
        self.exposition.line(&format!("{}_count", self.name), labels, *count as f64);
        Ok(self)
    }
}

fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        _ => "",
    }
}

fn check(labels: &[(&str, &str)]) -> Result<(), ExpositionError> {
    let wrong = labels.iter().find(|(label, _)| !is_label_name(label));
    wrong.map_or(Ok(()), |(label, _)| Err(ExpositionError::Label((*label).to_owned())))
}

/// What a store's series belongs to: the metric that was described, with its suffixes.
fn family_of<T>(name: &str, metadata: &BTreeMap<std::sync::Arc<str>, T>) -> String {
    let suffixes = ["_total", "_bucket", "_sum", "_count", "_info"];
    let mut bases = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
    bases.find(|base| metadata.contains_key(*base)).unwrap_or(name).to_owned()
}

/// One series after the other: buckets of one histogram together, by bound, then its sum and count.
fn order(labels: &Labels) -> (Labels, u8, i64) {
    let mut rest = labels.clone().without_name();
    rest.set("le", "");
    let place = match labels.name() {
        name if name.ends_with("_sum") => 1,
        name if name.ends_with("_count") => 2,
        _ => 0,
    };
    let bound: f64 = labels.value("le").parse().unwrap_or(0.0);
    // Total order of doubles as integers; bounds are no NaN.
    let bits = bound.to_bits() as i64;
    (rest, place, bits ^ (((bits >> 63) as u64) >> 1) as i64)
}

fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out
}
