//! The JSON of Prometheus's HTTP API, as pure types: what a handler serialises.
//!
//! `{"status": "success", "data": ...}`, or `{"status": "error", "errorType": ..., "error": ...}` with the
//! status code of [`Answer::status`]; `warnings` beside either. The shapes are those of
//! 'HTTP API' in Prometheus's documentation, version 2.42.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use crate::evaluate::{Curve, EvaluateError, Grid, Value, is_present};
use crate::labels::{Labels, Matcher};
use crate::store::{Kind, Metadata, Source};
use crate::syntax::{Expr, Selector, SyntaxError};

/// What is sent back.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
    #[serde(rename = "errorType", skip_serializing_if = "Option::is_none")]
    error_type: Option<ErrorType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Nodes that did not answer, bounds that were met: what a reader must know about the data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What kind of error, in Prometheus's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    /// The request is not valid: 400.
    BadData,
    /// The request is valid, its evaluation fails: 422.
    Execution,
    /// It took too long: 503.
    Timeout,
    /// There is no such thing: 404.
    NotFound,
    /// Our fault: 500.
    Internal,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum Data {
    Query(QueryData),
    Texts(Vec<String>),
    Series(Vec<Metric>),
    Metadata(BTreeMap<String, Vec<MetadataEntry>>),
    Text(String),
    Object(BTreeMap<&'static str, String>),
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum QueryData {
    Scalar(Sample),
    String((Seconds, String)),
    Vector(Vec<Instant>),
    Matrix(Vec<Series>),
}

#[derive(Clone, Debug, Serialize)]
struct Instant {
    metric: Metric,
    value: Sample,
}

#[derive(Clone, Debug, Serialize)]
struct Series {
    metric: Metric,
    values: Vec<Sample>,
}

#[derive(Clone, Debug, Serialize)]
struct MetadataEntry {
    #[serde(rename = "type")]
    kind: &'static str,
    help: String,
    unit: String,
}

/// Labels as an object.
#[derive(Clone, Debug)]
struct Metric(Labels);

/// `[seconds, "value"]`
#[derive(Clone, Copy, Debug)]
struct Sample(i64, f64);

/// Milliseconds, as seconds.
#[derive(Clone, Copy, Debug)]
struct Seconds(i64);

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pair = serializer.serialize_seq(Some(2))?;
        pair.serialize_element(&Seconds(self.0))?;
        pair.serialize_element(&number(self.1))?;
        pair.end()
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1000 == 0 {
            serializer.serialize_i64(self.0 / 1000)
        } else {
            serializer.serialize_f64(self.0 as f64 / 1000.0)
        }
    }
}

impl Answer {
    /// Of a query; `range`: it was a range query.
    pub fn value(value: Value, grid: &Grid, range: bool) -> Self {
        let at_ms = grid.start_ms();
        Answer::data(Data::Query(match value {
            Value::Text(text) => QueryData::String((Seconds(at_ms), text)),
            Value::Scalar(values) if range => {
                let values = grid.times().zip(values).map(|(at_ms, value)| Sample(at_ms, value));
                QueryData::Matrix(vec![Series {
                    metric: Metric(Labels::default()),
                    values: values.collect(),
                }])
            }
            Value::Scalar(values) => {
                QueryData::Scalar(Sample(at_ms, values.first().copied().unwrap_or(f64::NAN)))
            }
            Value::Vector(curves) if range => QueryData::Matrix(matrix(curves, grid)),
            Value::Vector(curves) => {
                let present = curves.into_iter().filter_map(|curve| {
                    let value = curve.values.first().copied().filter(|value| is_present(*value))?;
                    Some(Instant { metric: Metric(curve.labels), value: Sample(at_ms, value) })
                });
                QueryData::Vector(present.collect())
            }
            Value::Matrix(series) => {
                let series = series.into_iter().map(|one| Series {
                    metric: Metric(one.labels),
                    values: one
                        .samples
                        .into_iter()
                        .map(|(at_ms, value)| Sample(at_ms, value))
                        .collect(),
                });
                let mut series: Vec<Series> = series.collect();
                series.sort_by(|left, right| left.metric.0.cmp(&right.metric.0));
                QueryData::Matrix(series)
            }
        }))
    }

    /// `/api/v1/series`: the labels of series.
    pub fn series(series: impl IntoIterator<Item = Labels>) -> Self {
        let series: BTreeSet<Labels> = series.into_iter().collect();
        Answer::data(Data::Series(series.into_iter().map(Metric).collect()))
    }

    /// `/api/v1/labels` and `/api/v1/label/.../values`: texts, each once and in order.
    pub fn texts(texts: impl IntoIterator<Item = String>) -> Self {
        let texts: BTreeSet<String> = texts.into_iter().collect();
        Answer::data(Data::Texts(texts.into_iter().collect()))
    }

    /// `/api/v1/metadata`
    pub fn metadata<'a>(metadata: impl IntoIterator<Item = (&'a str, &'a Metadata)>) -> Self {
        let mut entries: BTreeMap<String, Vec<MetadataEntry>> = BTreeMap::new();
        for (name, metadata) in metadata {
            let entry = MetadataEntry {
                kind: metadata.kind.name(),
                help: metadata.help.clone(),
                unit: metadata.unit.clone(),
            };
            entries.entry(name.to_owned()).or_insert_with(|| vec![entry]);
        }
        Answer::data(Data::Metadata(entries))
    }

    /// `/api/v1/format_query`: one text.
    pub fn text(text: String) -> Self {
        Answer::data(Data::Text(text))
    }

    /// `/api/v1/status/buildinfo`: texts by name.
    pub fn object(fields: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Answer::data(Data::Object(fields.into_iter().collect()))
    }

    /// Why there is no data, if it is an error.
    pub fn reason(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// An error.
    pub fn error(error_type: ErrorType, error: impl Into<String>) -> Self {
        Answer {
            status: "error",
            data: None,
            error_type: Some(error_type),
            error: Some(error.into()),
            warnings: Vec::new(),
        }
    }

    /// The status code of HTTP.
    pub fn status(&self) -> u16 {
        match self.error_type {
            None => 200,
            Some(ErrorType::BadData) => 400,
            Some(ErrorType::NotFound) => 404,
            Some(ErrorType::Execution) => 422,
            Some(ErrorType::Timeout) => 503,
            Some(ErrorType::Internal) => 500,
        }
    }

    fn data(data: Data) -> Self {
        Answer {
            status: "success",
            data: Some(data),
            error_type: None,
            error: None,
            warnings: Vec::new(),
        }
    }
}

impl From<SyntaxError> for Answer {
    fn from(error: SyntaxError) -> Self {
        Answer::error(ErrorType::BadData, error.to_string())
    }
}

impl From<EvaluateError> for Answer {
    fn from(error: EvaluateError) -> Self {
        let error_type = match error {
            EvaluateError::Range | EvaluateError::Steps(_) | EvaluateError::Kind(_) => {
                ErrorType::BadData
            }
            _ => ErrorType::Execution,
        };
        Answer::error(error_type, error.to_string())
    }
}

/// The series that any of some selectors (`match[]`) find and that have samples in a time; the error says
/// which text is no selector.
pub fn selected(
    source: &dyn Source,
    selectors: &[&str],
    from_ms: i64,
    until_ms: i64,
) -> Result<BTreeSet<Labels>, SyntaxError> {
    let (mut found, mut spans) = (BTreeSet::new(), Vec::new());
    for text in selectors {
        for (series, labels) in source.select(&matchers(text)?) {
            spans.clear();
            source.read(series, from_ms, until_ms, &mut spans);
            if spans.iter().any(|span| span.count > 0) {
                found.insert(labels);
            }
        }
    }
    Ok(found)
}

/// The names of all labels of some series.
pub fn label_names(series: &BTreeSet<Labels>) -> BTreeSet<String> {
    series.iter().flat_map(|labels| labels.iter().map(|(name, _)| name.to_owned())).collect()
}

/// The values that one label has in some series.
pub fn label_values(series: &BTreeSet<Labels>, name: &str) -> BTreeSet<String> {
    let values = series.iter().map(|labels| labels.value(name));
    values.filter(|value| !value.is_empty()).map(str::to_owned).collect()
}

/// The matchers of a series selector.
pub fn matchers(text: &str) -> Result<Vec<Matcher>, SyntaxError> {
    match crate::syntax::parse(text)? {
        Expr::Selector(Selector { matchers, when }) if when == Default::default() => Ok(matchers),
        _ => Err(SyntaxError {
            position: 0,
            line: 1,
            column: 1,
            reason:
                "this is an expression; a series selector is wanted, like metric{label=\"value\"}"
                    .into(),
        }),
    }
}

fn matrix(mut curves: Vec<Curve>, grid: &Grid) -> Vec<Series> {
    curves.sort_by(|left, right| left.labels.cmp(&right.labels));
    let series = curves.into_iter().map(|curve| {
        let samples = grid.times().zip(curve.values).filter(|(_, value)| is_present(*value));
        Series {
            metric: Metric(curve.labels),
            values: samples.map(|(at_ms, value)| Sample(at_ms, value)).collect(),
        }
    });
    series.filter(|series| !series.values.is_empty()).collect()
}

/// A number as Prometheus writes it: shortest, with an exponent only where it would be long.
pub(crate) fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    if value == 0.0 || (1e-6..1e21).contains(&value.abs()) {
        return value.to_string();
    }
    // `1e21` is written `1e+21`, `1e-7` is `1e-07`.
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

impl Kind {
    /// In OpenMetrics and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
            Kind::Unknown => "unknown",
        }
    }
}
