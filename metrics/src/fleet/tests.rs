use proptest::prelude::*;

use super::*;
use crate::evaluate::{Curve, range};
use crate::labels::Labels;
use crate::store::Store;

const START_MS: i64 = 1_700_000_000_000;
const HOME: &str = "node";

/// All stores as one.
struct Union<'a>(&'a [Store]);

impl Source for Union<'_> {
    fn size(&self) -> usize {
        self.0.iter().map(|store| store.size()).sum()
    }

    fn select(&self, matchers: &[Matcher]) -> Vec<(u32, Labels)> {
        let each = self.0.iter().enumerate().flat_map(|(number, store)| {
            let number = number as u32;
            store.select(matchers).into_iter().map(move |(id, labels)| (id * 64 + number, labels))
        });
        let mut all: Vec<_> = each.collect();
        all.sort_by(|(_, left), (_, right)| left.cmp(right));
        all
    }

    fn read(&self, series: u32, from_ms: i64, until_ms: i64, into: &mut Vec<Span>) {
        self.0[series as usize % 64].read(series / 64, from_ms, until_ms, into);
    }
}

/// Name, job and unit of a series, by number, and its samples.
type Given = (usize, usize, usize, Vec<u32>);

/// Stores of some nodes: each has some of the series, with some samples.
fn stores() -> impl Strategy<Value = Vec<Store>> {
    let series = (0..2usize, 0..3usize, 0..2usize, prop::collection::vec(0u32..1_000_000, 1..40));
    prop::collection::vec(prop::collection::vec(series, 0..6), 1..5).prop_map(|nodes| {
        let fill = |(number, list): (usize, Vec<Given>)| {
            let mut store = Store::new(1 << 20);
            for (name, job, unit, values) in list {
                let node = format!("n{number}");
                let pairs = [
                    ("__name__", ["a", "b"][name]),
                    ("job", ["x", "y", "z"][job]),
                    ("unit", ["u", "v"][unit]),
                    (HOME, &*node),
                ];
                let id =
                    store.series(&Labels::new(pairs).expect("labels"), START_MS).expect("room");
                for (index, value) in values.into_iter().enumerate() {
                    // The same series twice: what is out of order is refused, which is fine here.
                    let _ = store.append(id, START_MS + index as i64 * 10_000, f64::from(value));
                }
            }
            store
        };
        nodes.into_iter().enumerate().map(fill).collect()
    })
}

/// Vectors of all shapes: alone on a node, across nodes, nested.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a",
        "b",
        "a{job=\"x\"}",
        "b{unit!=\"u\"}",
        "rate(a[1m])",
        "increase(b[2m])",
        "max_over_time(a[1m])",
        "a offset 30s",
        "a @ end()",
        "b @ start()",
        "last_over_time(a[5m])",
        "-b",
        "timestamp(a) - 1700000000",
        "absent(a{job=\"x\"})",
        "absent_over_time(b{job=\"z\"}[1m])",
        "vector(7)",
        "quantile_over_time(0.5, a[1m])",
        "count_over_time(a[1m:10s])",
        "sum(a)",
        "avg by (job) (b)",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 12, 2, |inner| {
        let one = (
            inner.clone(),
            prop::sample::select(vec![
                "sum(~)",
                "sum by (job) (~)",
                "sum without (node) (~)",
                "sum by (node) (~)",
                "avg(~)",
                "avg by (unit) (~)",
                "min(~)",
                "max by (job, unit) (~)",
                "count(~)",
                "count by (node) (~)",
                "group by (job) (~)",
                "stddev(~)",
                "stdvar by (job) (~)",
                "topk(2, ~)",
                "bottomk by (job) (1, ~)",
                "quantile(0.5, ~)",
                "quantile by (job) (0.9, ~)",
                "count_values(\"v\", ~)",
                "abs(~)",
                "~ * 2",
                "~ > 500000",
                "3 - ~",
                "clamp_max(~, 600000)",
                "clamp_max(~, scalar(sum(a)))",
                "label_replace(~, \"job\", \"q\", \"job\", \"x\")",
                "sum(label_replace(~, \"node\", \"\", \"node\", \".*\"))",
                "max_over_time((~)[1m:20s])",
                "sum_over_time((~)[50s:10s] offset 20s)",
                "avg_over_time((~)[1m:30s] @ end())",
                "scalar(~) + a",
                "sort(~)",
                "absent(~)",
                "absent_over_time((~)[1m:30s])",
                "~ / scalar(count(b))",
                "(~) or vector(0)",
            ]),
        );
        let two = (
            inner.clone(),
            inner,
            prop::sample::select(vec![
                "l + r",
                "l / on (node, job, unit) r",
                "l * on (job) group_left sum by (job) (r)",
                "l and r",
                "l or r",
                "l unless on (job) r",
                "l > bool r",
                "sum(l) / sum(r)",
                "sum by (job) (l) - on (job) sum by (job) (r)",
                "l and on (node) r",
                "l + ignoring (node) group_left avg without (node) (r)",
            ]),
        );
        prop_oneof![
            2 => one.prop_map(|(inner, text)| text.replace('~', &inner)),
            1 => two.prop_map(|(left, right, text)| {
                let place = |word: &str| match word {
                    "l" => format!("({left})"),
                    "r" => format!("({right})"),
                    "(l)" => format!("({left})"),
                    "(r)" => format!("({right})"),
                    "sum(l)" => format!("sum({left})"),
                    "sum(r)" => format!("sum({right})"),
                    word => word.to_owned(),
                };
                text.split(' ').map(place).collect::<Vec<_>>().join(" ")
            }),
        ]
    })
}

/// As the asker does it: every part to every node, answers over the wire, merged in the given order.
fn asked(
    text: &str,
    stores: &[Store],
    grid: &Grid,
    is_range: bool,
    order: &[usize],
) -> Result<Finished, EvaluateError> {
    let expr = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let plan = Plan::of(&expr, grid, is_range, HOME)?;
    let mut merged = Vec::new();
    for part in plan.parts() {
        let bytes = postcard::to_stdvec(part).expect("encodes");
        let part: Part = postcard::from_bytes(&bytes).expect("decodes");
        let mut all = Partial::nothing(&part);
        for number in order {
            let answer = match part.answer(&stores[*number % stores.len()], Limits::default()) {
                Ok(answer) => answer,
                Err(PartError::Evaluate(error)) => return Err(error),
                Err(PartError::Syntax(error)) => panic!("{}: {error}", part.expression),
            };
            let bytes = postcard::to_stdvec(&answer).expect("encodes");
            all = all.merge(postcard::from_bytes(&bytes).expect("decodes"), &part)?;
        }
        merged.push(all);
    }
    plan.finish(merged, Limits::default())
}

/// The label that `count_values` makes of a value has digits in which a sum in another order differs.
fn rounded(labels: &Labels) -> String {
    let mut labels = labels.clone();
    if let Ok(value) = labels.value("v").parse::<f64>() {
        labels.set("v", &format!("{value:.7e}"));
    }
    labels.to_string()
}

/// By labels, without what is absent everywhere.
fn comparable(value: &Value) -> Vec<(String, Vec<f64>)> {
    let mut list: Vec<_> = match value {
        Value::Scalar(values) => vec![(String::new(), values.clone())],
        Value::Vector(curves) => {
            curves.iter().map(|curve| (rounded(&curve.labels), curve.values.clone())).collect()
        }
        other => panic!("{other:?}"),
    };
    list.sort_by(|left, right| left.0.cmp(&right.0));
    list
}

/// How far two ways to the same number may be apart: the deviation of a few seconds from 1.7 billion loses half of its digits.
const NEAR: f64 = 1e-7;

fn alike(left: &Value, right: &Value) -> bool {
    let (left, right) = (comparable(left), comparable(right));
    let near = |(left, right): (&f64, &f64)| {
        left.to_bits() == right.to_bits()
            || (left.is_nan()
                && right.is_nan()
                && crate::span::is_stale(*left) == crate::span::is_stale(*right))
            || (left - right).abs() <= NEAR * left.abs().max(right.abs()).max(1.0)
    };
    left.len() == right.len()
        && left
            .iter()
            .zip(&right)
            .all(|(left, right)| left.0 == right.0 && left.1.iter().zip(&right.1).all(near))
}

/// Where several values are equal, which of them is chosen is left open. Samples are not; these make them so.
fn has_ties(text: &str) -> bool {
    let equalisers = [
        "count",
        "group",
        "clamp",
        "bool",
        "absent",
        "vector",
        "scalar",
        "timestamp",
        "avg",
        "max",
        "min",
    ];
    (text.contains("topk") || text.contains("bottomk"))
        && equalisers.iter().any(|word| text.contains(word))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn merged_parts_are_what_one_store_with_all_series_says(
        stores in stores(), text in expressions(), step in 7_000i64..60_000, is_range in any::<bool>(),
    ) {
        let end = if is_range { START_MS + 400_000 } else { START_MS + 123_000 };
        let start = if is_range { START_MS } else { end };
        let grid = Grid::range(start, end, step).expect("a grid");
        let expr = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let whole = range(&expr, &Union(&stores), &grid, Limits::default());
        let order: Vec<usize> = (0..stores.len()).rev().collect();
        let parts = asked(&text, &stores, &grid, is_range, &order);
        match (whole, parts) {
            (Ok(whole), Ok(parts)) => {
                prop_assert!(parts.warnings.is_empty());
                prop_assert!(alike(&whole, &parts.value) || has_ties(&text), "{}: {:?} is not {:?}", text, parts.value, whole);
            }
            // What collides only across nodes, an aggregation over it does not notice.
            (Err(EvaluateError::SameLabels(_)), Ok(_)) => {}
            (Err(_), Err(_)) => {}
            (whole, parts) => prop_assert!(false, "{}: {:?} and {:?}", text, whole, parts),
        }
    }

    /// Commutative, associative, and nothing is neutral.
    #[test]
    fn merging_partials_keeps_the_laws(
        stores in stores(),
        text in prop::sample::select(vec![
            "sum by (job) (a)", "count(a)", "min by (unit) (a)", "max(a)", "avg by (job) (b)", "group by (job) (a)",
            "stddev(a)", "stdvar by (unit) (b)", "a", "rate(b[1m])", "topk(2, a)", "sum by (job, unit) (a)",
        ]),
        keep in prop::option::of(1u32..3),
    ) {
        let grid = Grid::range(START_MS, START_MS + 300_000, 50_000).expect("a grid");
        let keep = keep.map(|groups| Keep { largest: true, groups });
        let part = Part { expression: text.into(), grid, keep };
        let answers: Vec<Partial> = stores.iter()
            .map(|store| part.answer(store, Limits::default()).expect("an answer")).collect();
        let nothing = Partial::nothing(&part);
        let merge = |left: Partial, right: &Partial| left.merge(right.clone(), &part).expect("merges");
        let [first, second, third] = std::array::from_fn(|index| &answers[index % answers.len()]);
        let aggregates = !matches!(nothing, Partial::Curves(_));
        // Absent is a NaN: not equal to itself.
        prop_assert_eq!(format!("{:?}", merge(nothing.clone(), first)), format!("{first:?}"));
        prop_assert_eq!(format!("{:?}", merge(first.clone(), &nothing)), format!("{first:?}"));
        // Series of one node twice are refused, as they should be.
        if aggregates || answers.len() >= 3 {
            let left = merge(merge(first.clone(), second), third);
            let right = merge(first.clone(), &merge(second.clone(), third));
            let swapped = merge(merge(third.clone(), second), first);
            for other in [right, swapped] {
                prop_assert_eq!(left.warning(&part), other.warning(&part));
                let (left, other) = (left.clone().value(&part).expect("a value"), other.value(&part).expect("a value"));
                prop_assert!(alike(&left, &other), "{:?} is not {:?}", left, other);
            }
        }
    }

    /// What is left out is within the bound that is told.
    #[test]
    fn a_choice_of_sums_with_few_groups_is_within_its_bound(
        nodes in prop::collection::vec(prop::collection::vec(0u32..1000, 12), 2..5), groups in 1u32..12,
    ) {
        let grid = Grid::instant(START_MS).expect("a time");
        let part = Part { expression: "sum by (g) (a)".into(), grid, keep: Some(Keep { largest: true, groups }) };
        let mut merged = Partial::nothing(&part);
        let mut truth = [0.0; 12];
        for (number, values) in nodes.iter().enumerate() {
            let mut store = Store::new(1 << 20);
            for (group, value) in values.iter().enumerate() {
                truth[group] += f64::from(*value);
                let pairs = [("__name__", "a".to_owned()), ("g", group.to_string()), ("node", number.to_string())];
                let id = store.series(&Labels::new(pairs).expect("labels"), START_MS).expect("room");
                store.append(id, START_MS, f64::from(*value)).expect("in order");
            }
            merged = merged.merge(part.answer(&store, Limits::default()).expect("an answer"), &part).expect("merges");
        }
        let Partial::Groups { rows, left_out } = &merged else { panic!("groups") };
        let mut known = [false; 12];
        for row in rows {
            let group: usize = row.labels.value("g").parse().expect("a number");
            known[group] = true;
            let value = row.groups[0].finish(Aggregation::Sum);
            let (low, high) = row.slack.first().copied().unwrap_or((0.0, 0.0));
            prop_assert!((value + low..=value + high).contains(&truth[group]));
        }
        for (group, truth) in truth.iter().enumerate().filter(|(group, _)| !known[*group]) {
            prop_assert!(left_out[0].0 <= *truth && *truth <= left_out[0].1, "group {} is {}", group, truth);
        }
        prop_assert_eq!(merged.warning(&part).is_some(), groups < 12);
    }
}

proptest! {
    /// What is decoded is checked: damaged bytes are refused, or are another part or answer.
    #[test]
    fn damaged_bytes_never_panic(
        text in prop::sample::select(vec!["sum by (unit) (a)", "a", "topk(1, a)", "avg(rate(a[10s]))", "a[5s]"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let grid = Grid::instant(START_MS + 30_000).expect("a time");
        let part = Part { expression: text.into(), grid, keep: Some(Keep { largest: true, groups: 1 }) };
        let store = node(0);
        let answer = part.answer(&store, Limits::default()).expect("an answer");
        let damaged = |mut bytes: Vec<u8>| {
            for (place, byte) in &damage {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            bytes
        };
        let limits = Limits { values: 10_000, samples: 100_000, ..Limits::default() };
        if let Ok(odd) = postcard::from_bytes::<Part>(&damaged(postcard::to_stdvec(&part).expect("encodes"))) {
            let _ = odd.answer(&store, limits);
        }
        if let Ok(odd) = postcard::from_bytes::<Partial>(&damaged(postcard::to_stdvec(&answer).expect("encodes")))
            && let Ok(merged) = answer.merge(odd, &part)
        {
            let _ = merged.warning(&part);
            let _ = merged.value(&part);
        }
    }
}

fn node(number: usize) -> Store {
    let mut store = Store::new(1 << 20);
    for unit in ["u", "v"] {
        let node = number.to_string();
        let labels =
            Labels::new([("__name__", "a"), ("unit", unit), (HOME, &*node)]).expect("labels");
        let id = store.series(&labels, START_MS).expect("room");
        for second in 0..60 {
            store
                .append(id, START_MS + second * 1000, (second * (number as i64 + 1)) as f64)
                .expect("in order");
        }
    }
    store
}

#[test]
fn what_nodes_are_asked() {
    let grid = Grid::range(START_MS, START_MS + 60_000, 1000).expect("a grid");
    for (text, parts) in [
        ("sum(rate(a[1m]))", vec!["sum(rate(a[60000ms]))"]),
        ("sum(a) / sum(b)", vec!["sum(a)", "sum(b)"]),
        ("sum(a) + sum(a)", vec!["sum(a)"]),
        ("sum(a / b)", vec!["sum(a / b)"]),
        ("sum(a / on (job) b)", vec!["a", "b"]),
        ("topk(3, a)", vec!["topk(3, a)"]),
        ("topk(3, sum by (node) (a))", vec!["topk(3, sum by (node) (a))"]),
        ("topk(3, sum by (job) (a))", vec!["sum by (job) (a)"]),
        ("quantile(0.9, a)", vec!["a"]),
        (
            "histogram_quantile(0.9, sum by (le) (rate(a[1m])))",
            vec!["sum by (le) (rate(a[60000ms]))"],
        ),
        ("histogram_quantile(0.9, rate(a[1m]))", vec!["histogram_quantile(0.9, rate(a[60000ms]))"]),
        ("max_over_time(sum(a)[1m:10s])", vec!["sum(a)"]),
        ("a @ end()", vec!["a @ 1700000060.000"]),
        ("absent_over_time(a{b=\"c\"}[1m])", vec!["present_over_time(a{b=\"c\"}[60000ms])"]),
        ("vector(1) + time()", vec![]),
        ("count(count by (node) (a))", vec!["count(count by (node) (a))"]),
    ] {
        let plan = Plan::of(&parse(text).expect(text), &grid, true, HOME).expect(text);
        let asked: Vec<_> = plan.parts().iter().map(|part| &*part.expression).collect();
        assert_eq!(asked, parts, "{text}");
    }
    let refused = parse("quantile_over_time(scalar(sum(a)), b[1m])").expect("valid");
    assert!(matches!(Plan::of(&refused, &grid, true, HOME), Err(EvaluateError::Fleet(_))));
}

#[test]
fn a_range_of_samples_comes_from_all_nodes() {
    let stores = [node(0), node(1)];
    let grid = Grid::instant(START_MS + 59_000).expect("a time");
    let found = asked("a{unit=\"u\"}[5s]", &stores, &grid, false, &[0, 1]).expect("a value");
    let Value::Matrix(samples) = found.value else { panic!("{found:?}") };
    assert_eq!(samples.len(), 2);
    assert!(samples.iter().all(|one| one.samples.len() == 6));
    let none = asked("nothing[5s]", &stores, &grid, false, &[0, 1]).expect("a value");
    assert_eq!(none.value, Value::Matrix(Vec::new()));
    let sums = asked("sum(a)[10s:5s]", &stores, &grid, false, &[0, 1]).expect("a value");
    let Value::Matrix(samples) = sums.value else { panic!("subquery") };
    assert_eq!(samples[0].samples.len(), 2);
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let grid = Grid::range(START_MS, START_MS + 10_000, 1000).expect("a grid");
    let plan = Plan::of(&parse("sum(a)").expect("valid"), &grid, true, HOME).expect("a plan");
    let part = &plan.parts()[0];
    let nothing = Partial::nothing(part);
    let curve = |length: usize| Curve { labels: Labels::default(), values: vec![1.0; length] };
    for odd in [
        Partial::Curves(vec![curve(3)]),
        Partial::Curves(vec![curve(11)]),
        Partial::Samples(Vec::new()),
        Partial::Groups { rows: Vec::new(), left_out: vec![(0.0, 1.0)] },
        Partial::Groups { rows: Vec::new(), left_out: vec![(1.0, f64::NAN); 11] },
        Partial::Groups {
            rows: vec![Row { labels: Labels::default(), groups: Vec::new(), slack: Vec::new() }],
            left_out: Vec::new(),
        },
    ] {
        assert_eq!(nothing.clone().merge(odd, part), Err(EvaluateError::Part));
    }
    assert_eq!(plan.finish(Vec::new(), Limits::default()), Err(EvaluateError::Part));
    let odd = Part { expression: "sum(".into(), grid, keep: None };
    assert!(matches!(odd.answer(&node(0), Limits::default()), Err(PartError::Syntax(_))));
    // Grids from elsewhere: a million times, backwards, without a step, at the end of all numbers.
    for odd in
        [(START_MS, START_MS + 1_000_000, 1i64), (1, 0, 1), (0, 1, 0), (i64::MIN, i64::MAX, 1)]
    {
        let bytes = postcard::to_stdvec(&odd).expect("encodes");
        assert!(postcard::from_bytes::<Grid>(&bytes).is_err(), "{odd:?}");
    }
}
