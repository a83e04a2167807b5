//! The fake's answers to PromQL: it understands one thing, the name of a series in an expression and the
//! labels to add up by, and answers with what it has of that name.

use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::State;

/// A series, and its values: as many as a range has, the last one is now's.
#[derive(Clone)]
pub struct Series {
    pub name: &'static str,
    pub labels: Vec<(&'static str, &'static str)>,
    pub values: Vec<f64>,
}

pub(super) fn answer(state: &State, asked: &str, query: &BTreeMap<String, String>) -> (u16, Value) {
    let expression = decoded(&query["query"]);
    let open = expression.matches('(').count();
    if open != expression.matches(')').count() {
        let column = expression.chars().count() + 1;
        let error = format!("1:{column}: parse error: a parenthesis is not closed");
        return (400, json!({ "status": "error", "errorType": "bad_data", "error": error }));
    }
    if expression.contains("everything") {
        let error = "it would touch 20000 series, and 10000 are allowed: select fewer";
        return (422, json!({ "status": "error", "errorType": "execution", "error": error }));
    }
    let warnings: Vec<String> =
        state.silent.iter().map(|node| format!("{node} did not answer within 2 s")).collect();
    // What was before is known of nobody.
    let before = expression.contains(" offset ");
    let by = expression.split_once("by (").and_then(|(_, rest)| rest.split_once(')'));
    let by: Option<Vec<&str>> = by.map(|(labels, _)| labels.split(", ").collect());
    let quantile = expression.starts_with("histogram_quantile");
    let named = state.series.iter().filter(|series| {
        let mut words = expression.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.any(|word| word == series.name) && !before && !quantile
    });
    let mut found: BTreeMap<BTreeMap<&str, &str>, Vec<f64>> = BTreeMap::new();
    for series in named {
        let labels = series.labels.iter().copied();
        let kept = labels.filter(|(name, _)| by.as_ref().is_none_or(|by| by.contains(name)));
        let sums = found.entry(kept.collect()).or_insert_with(|| vec![0.0; series.values.len()]);
        sums.iter_mut().zip(&series.values).for_each(|(sum, value)| *sum += value);
    }
    let (kind, result): (_, Vec<Value>) = if asked == "query_range" {
        let number = |name: &str| query[name].parse::<f64>().unwrap();
        let (start, step) = (number("start"), number("step"));
        let at = |place: usize| start + place as f64 * step;
        let curve = |(metric, values): (BTreeMap<&str, &str>, Vec<f64>)| {
            let values: Vec<_> =
                values.iter().enumerate().map(|(i, v)| json!([at(i), v.to_string()])).collect();
            json!({ "metric": metric, "values": values })
        };
        ("matrix", found.into_iter().map(curve).collect())
    } else {
        let point = |(metric, values): (BTreeMap<&str, &str>, Vec<f64>)| json!({ "metric": metric, "value": [1.5, values.last().unwrap().to_string()] });
        ("vector", found.into_iter().map(point).collect())
    };
    let data = json!({ "resultType": kind, "result": result });
    (200, json!({ "status": "success", "data": data, "warnings": warnings }))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}
