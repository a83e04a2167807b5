use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeMap;

use super::*;
use crate::labels::Labels;
use crate::limits::{LABEL_VALUE_BYTES_MAX, LABELS_MAX, STORE_BYTES};
use crate::span::{STALE_BITS, stale_marker};

/// The messages as somebody else's decoder knows them.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

fn batches(store: &Store, since_ms: i64) -> Vec<Batch> {
    let mut all = Vec::new();
    newest(store, since_ms, |batch| all.push(batch));
    all
}

fn decoded(batch: &Batch) -> WriteRequest {
    let bytes = snap::raw::Decoder::new().decompress_vec(&batch.body).expect("snappy");
    assert!(bytes.len() <= BATCH_BYTES_MAX, "{} bytes", bytes.len());
    let request = WriteRequest::decode(&*bytes).expect("protobuf");
    assert_eq!(request.timeseries.len() as u64, batch.samples);
    request
}

/// Labels as text, and time and bits of the one sample.
fn told(batches: &[Batch]) -> BTreeMap<String, (i64, u64)> {
    let mut told = BTreeMap::new();
    for series in batches.iter().map(decoded).flat_map(|request| request.timeseries) {
        let names: Vec<&str> = series.labels.iter().map(|label| &*label.name).collect();
        assert!(names.is_sorted(), "as the specification wants them: {names:?}");
        let [sample] = &series.samples[..] else { panic!("one sample a series") };
        let labels: Vec<String> =
            series.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        let twice = told.insert(labels.join(","), (sample.timestamp, sample.value.to_bits()));
        assert_eq!(twice, None, "each series once");
    }
    told
}

fn append(store: &mut Store, labels: &[(&str, &str)], at_ms: i64, value: f64) {
    let labels = Labels::new(labels.iter().copied()).expect("labels");
    let id = store.series(&labels, at_ms).expect("room");
    store.append(id, at_ms, value).expect("in order");
}

#[test]
fn the_newest_sample_of_what_is_new_is_told() {
    let mut store = Store::new(STORE_BYTES);
    let (one, two) = ([("__name__", "m"), ("node", "a")], [("__name__", "m"), ("node", "ü")]);
    append(&mut store, &one, 1_000, 0.0);
    append(&mut store, &two, 1_000, 1.5);
    append(&mut store, &two, 2_000, -0.25);
    let first = told(&batches(&store, 0));
    let wanted = [
        ("__name__=m,node=a".to_owned(), (1_000, 0.0f64.to_bits())),
        ("__name__=m,node=ü".to_owned(), (2_000, (-0.25f64).to_bits())),
    ];
    assert_eq!(first, BTreeMap::from(wanted));
    assert!(batches(&store, 2_000).is_empty(), "nothing is new");
    append(&mut store, &one, 3_000, stale_marker());
    let ended = told(&batches(&store, 2_000));
    assert_eq!(ended, BTreeMap::from([("__name__=m,node=a".to_owned(), (3_000, STALE_BITS))]));
}

#[test]
fn a_message_is_bounded_in_samples_and_in_bytes() {
    let mut store = Store::new(STORE_BYTES);
    for number in 0..2_500 {
        append(&mut store, &[("__name__", "m"), ("number", &number.to_string())], 1_000, 1.0);
    }
    let all = batches(&store, 0);
    let sizes: Vec<u64> = all.iter().map(|batch| batch.samples).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    assert_eq!(told(&all).len(), 2_500);

    let mut store = Store::new(STORE_BYTES);
    for number in 0..40 {
        let names: Vec<String> = (2..LABELS_MAX).map(|label| format!("label_{label}")).collect();
        let value = format!("{number:0LABEL_VALUE_BYTES_MAX$}");
        let mut labels = vec![("__name__", "m")];
        labels.extend(names.iter().map(|name| (name.as_str(), value.as_str())));
        append(&mut store, &labels, 1_000, 1.0);
    }
    let all = batches(&store, 0);
    assert!(all.len() > 2, "{} messages", all.len());
    assert_eq!(told(&all).len(), 40);
}

proptest! {
    #[test]
    fn whatever_the_store_has_comes_out_of_somebody_elses_decoder(
        values in prop::collection::vec((any::<f64>(), 1i64..i64::pow(10, 13)), 1..40)
    ) {
        let mut store = Store::new(STORE_BYTES);
        let mut wanted = BTreeMap::new();
        for (number, (value, at_ms)) in values.iter().enumerate() {
            let number = number.to_string();
            append(&mut store, &[("__name__", "m"), ("number", &number)], *at_ms, *value);
            wanted.insert(format!("__name__=m,number={number}"), (*at_ms, value.to_bits()));
        }
        prop_assert_eq!(told(&batches(&store, 0)), wanted);
    }
}
